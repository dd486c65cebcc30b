"""Convolutions of large images on CPUs, faster than those of PyTorch."""

from __future__ import annotations

import itertools
import math
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["FastConvolutions"]

_LARGE_BYTES = 2**25
"""glibc hands out memory above 32 MiB page by page, which takes its time."""

_STRIP_BYTES = 2**24
"""What is computed at once of a large output."""

_KEPT_BYTES = 2**27
"""Memory that a thread keeps for the next convolutions: new pages have to be found and cleared."""

_REUSED_BYTES = 2**22
"""From here on, memory is kept. NumPy asks for huge pages from here on, too."""

_TILES_AT_ONCE = 192
"""What a Winograd convolution works on at once: it should stay in the cache."""

_MIN_CHANNELS = 32
_MIN_TILES = 64
"""Where a Winograd convolution is smaller, its transforms take longer than it saves."""

_TO_PIXELS = 8
"""Transposed convolutions to so few channels are slow as such."""


class FastConvolutions(TorchFunctionMode):
    """While entered, 2-d convolutions of this thread that profit from it run in other ways.

    For inference on CPUs, with images in the memory layout ``channels_last``. Large outputs are made strip by strip
    in huge pages; transposed 5x5 convolutions of stride 2 to a few channels run as sub-pixel convolutions. 3x3
    convolutions, 5x5 convolutions of stride 2, and other transposed ones, run as Winograd convolutions with a quarter
    to a bit more than half of the products. Errors are about twice those of PyTorch's own float32 convolutions in this
    layout, some 1e-6 of the spread of the values: right for transforms, wrong for what chooses tables.

    Lavin, Gray, "Fast algorithms for convolutional neural networks", CVPR 2016.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # torch.nn.Conv2d and ConvTranspose2d give everything by position.
        if not kwargs and len(args) >= 7:
            if func is F.conv2d:
                return self._conv2d(*args)
            if func is F.conv_transpose2d:
                return self._conv_transpose2d(*args)
        return func(*args, **kwargs)

    def _conv2d(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: int,
    ) -> Tensor:
        def direct(part: Tensor) -> Tensor:
            return F.conv2d(part, weight, bias, stride, padding, dilation, groups)

        height, width = weight.shape[2:]
        step = stride[0]
        same = padding == (height // 2, width // 2) and stride == (step, step) and dilation == (1, 1)
        if not same or height % 2 == 0 or x.dim() != 4 or x.shape[2] % step:
            return direct(x)
        if (height, width, step, groups) == (3, 3, 1, 1) and _winograd_pays(x, weight, weight.shape[0]):
            return _winograd(x, _prepared(weight, _winograd_plain), bias, 1)
        if (height, width, step, groups) == (5, 5, 2, 1) and _winograd_pays(x, weight, weight.shape[0]):
            return _halving(x, _prepared(weight, _halving_weight), bias)
        halo = -(-(height // 2) // step) * step
        return _in_strips(direct, x, halo, step, weight.shape[0] * x.shape[2] * x.shape[3] // step**2)

    def _conv_transpose2d(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Any,
        padding: Any,
        output_padding: Any,
        groups: int,
        dilation: Any,
    ) -> Tensor:
        def direct(part: Tensor) -> Tensor:
            return F.conv_transpose2d(part, weight, bias, stride, padding, output_padding, groups, dilation)

        doubling = (stride, padding, output_padding, dilation) == ((2, 2), (2, 2), (1, 1), (1, 1))
        if not doubling or groups != 1 or weight.shape[2:] != (5, 5) or x.dim() != 4:
            return direct(x)
        channels = weight.shape[1]
        if channels <= _TO_PIXELS:
            phases = _phases(weight).flatten(0, 2)
            repeated = None if bias is None else bias.repeat_interleave(4)
            return F.pixel_shuffle(F.conv2d(x, phases, repeated, padding=1), 2)
        if _winograd_pays(x, weight, channels):
            return _winograd(x, _prepared(weight, _winograd_doubling), bias, 2)
        return _in_strips(direct, x, 1, 1, channels * 4 * x.shape[2] * x.shape[3])


def _winograd_pays(x: Tensor, weight: Tensor, out_channels: int) -> bool:
    return (
        # Weights made on the fly would have to be transformed every time.
        isinstance(weight, nn.Parameter)
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and min(x.shape[1], out_channels) >= _MIN_CHANNELS
        and x.shape[2] * x.shape[3] >= 16 * _MIN_TILES
    )


class _Kept(threading.local):
    """Large memory of this thread, in use or not."""

    def __init__(self) -> None:
        self.arrays: list[npt.NDArray[np.int32]] = []

    def _idle(self, i: int) -> bool:
        # A tensor holds a reference to the array that it was made from; two others are the list's and the call's.
        return sys.getrefcount(self.arrays[i]) <= 2

    def take(self, words: int) -> npt.NDArray[np.int32]:
        """Memory that nobody uses, of ``words`` times 4 bytes."""
        idle = [i for i in range(len(self.arrays)) if self._idle(i)]
        fitting = [i for i in idle if words <= self.arrays[i].size <= 2 * words]
        if fitting:
            return self.arrays[min(fitting, key=lambda i: self.arrays[i].size)][:words]
        kept = sum(array.nbytes for array in self.arrays)
        for i in reversed(idle):
            if kept + 4 * words > _KEPT_BYTES:
                kept -= self.arrays.pop(i).nbytes
        # NumPy asks the system for huge pages.
        array = np.empty(words, np.int32)
        if kept + array.nbytes <= _KEPT_BYTES:
            self.arrays.append(array)
        return array


_kept = _Kept()


def _memory(count: int, dtype: torch.dtype) -> Tensor:
    """``(count,)`` values, whatever they are."""
    if dtype in (torch.float32, torch.bfloat16) and count * dtype.itemsize >= _REUSED_BYTES:
        return torch.from_numpy(_kept.take(-(-count * dtype.itemsize // 4))).view(dtype)[:count]
    return torch.empty(count, dtype=dtype)


def _empty(batch: int, height: int, width: int, channels: int, dtype: torch.dtype) -> Tensor:
    """A new ``(batch, channels, height, width)`` in the layout ``channels_last``."""
    size = (batch, height, width, channels)
    return _memory(math.prod(size), dtype).view(size).permute(0, 3, 1, 2)


def _in_strips(function: Callable[[Tensor], Tensor], x: Tensor, halo: int, step: int, values: int) -> Tensor:
    """``function(x)``, strip by strip of rows if it is large.

    Args:
        function: a convolution that pads with zeros and multiplies or divides the height by a whole number.
        x: ``(B, C, H, W)``.
        halo: rows of ``x`` above and below that a strip needs, a multiple of ``step``.
        step: what the height is divided by, which is a multiple of it.
        values: in the output, for each batch element.
    """
    batch, _, height, _ = x.shape
    autocast = torch.is_autocast_enabled("cpu")
    size = values * (torch.get_autocast_dtype("cpu") if autocast else x.dtype).itemsize
    rows = -(-height // -(-size // _STRIP_BYTES)) + halo
    rows -= rows % step
    if size <= _LARGE_BYTES or rows >= height or not x.is_contiguous(memory_format=torch.channels_last):
        return function(x)
    out: Tensor | None = None
    for i, start in itertools.product(range(batch), range(0, height, rows)):
        top, end = max(start - halo, 0), min(start + rows, height)
        part = function(x[i : i + 1, :, top : end + halo])
        if out is None:
            # Exact: the first strip starts at the top, and ends within the image.
            taken = min(end + halo, height)
            factor = part.shape[2] / taken
            out = _empty(batch, round(height * factor), part.shape[3], part.shape[1], part.dtype)
        first, last, skip = (round(row * factor) for row in (start, end, start - top))
        out[i, :, first:last] = part[0, :, skip : skip + last - first]
    assert out is not None
    return out


# -- Winograd convolution ---------------------------------------------------------------------------------------


def _transforms() -> tuple[Tensor, Tensor, Tensor]:
    """Matrices for tiles of four outputs and three taps, of the input, the weight and the output; float64.

    Polynomials of degree 5, evaluated at 0, +-3/4, +-3/2 and infinity: in float32, these points have a fifth of the
    error of the usual 0, +-1 and +-2.
    """
    points = torch.tensor([0, 0.75, -0.75, 1.5, -1.5], dtype=torch.float64)

    def evaluation(terms: int) -> Tensor:
        infinity = torch.zeros(1, terms, dtype=torch.float64)
        infinity[0, -1] = 1
        return torch.cat((torch.stack([points**k for k in range(terms)], dim=1), infinity))

    return torch.linalg.inv(evaluation(6)).t().contiguous(), evaluation(3), evaluation(4).t().contiguous()


_INPUT, _WEIGHT, _OUTPUT = _transforms()
_INPUT_1D, _OUTPUT_1D = _INPUT.float(), _OUTPUT.float()
_OUTPUT_2D = torch.kron(_OUTPUT, _OUTPUT).float()
_CONSTANT = torch.linalg.pinv(_OUTPUT).sum(1).float()
"""What is transformed to outputs of 1."""


def _phases(weight: Tensor) -> Tensor:
    """A transposed 5x5 convolution of stride 2 as 3x3 convolutions, one for each phase of the output.

    Args:
        weight: ``(in, out, 5, 5)``.

    Returns:
        ``(out, 2, 2, in, 3, 3)``; the order of channels is that of a pixel shuffle. Some taps are zero.
    """
    phases = weight.new_zeros(weight.shape[1], 2, 2, weight.shape[0], 3, 3)
    for phase_y, phase_x, shift_y, shift_x in itertools.product((0, 1), (0, 1), (-1, 0, 1), (-1, 0, 1)):
        y, x = phase_y + 2 - 2 * shift_y, phase_x + 2 - 2 * shift_x
        if y < 5 and x < 5:
            phases[:, phase_y, phase_x, :, shift_y + 1, shift_x + 1] = weight[:, :, y, x].t()
    return phases


def _winograd_weight(phases: Tensor) -> Tensor:
    """``(out, r, r, in, 3, 3)`` to ``(36, in, r * r * out)``; of the 36, those of one column follow each other."""
    points = torch.einsum("pi,oabcij,qj->qpcabo", _WEIGHT, phases.detach().double(), _WEIGHT)
    return points.flatten(0, 1).flatten(2).float().contiguous()


def _winograd_plain(weight: Tensor) -> Tensor:
    return _winograd_weight(weight[:, None, None])


def _winograd_doubling(weight: Tensor) -> Tensor:
    return _winograd_weight(_phases(weight))


def _halving_weight(weight: Tensor) -> Tensor:
    """``(out, in, 5, 5)`` to ``(6, out, in, 2, 5)``, for even and odd rows; each of the six is ``channels_last``."""
    taps = F.pad(weight.detach().double(), (0, 0, 0, 1)).view(*weight.shape[:2], 3, 2, 5)
    return torch.einsum("pi,ocisx->posxc", _WEIGHT, taps).float().contiguous().permute(0, 1, 4, 2, 3)


_known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def _prepared(weight: Tensor, prepare: Callable[[Tensor], Tensor]) -> Tensor:
    """``prepare(weight)``, remembered for as long as the weight lives and keeps its values."""
    # Values are compared, because changes through .data leave no other trace.
    if weight not in _known or not torch.equal(_known[weight][0], weight):
        _known[weight] = weight.detach().clone(), prepare(weight)
    prepared: Tensor = _known[weight][1]
    return prepared


def _winograd(x: Tensor, weight: Tensor, bias: Tensor | None, factor: int) -> Tensor:
    """3x3 convolution with zeros around, followed by a pixel shuffle.

    Args:
        x: ``(B, C, H, W)``, float32.
        weight: from :func:`_winograd_weight`, ``(36, C, factor * factor * out)``.
        bias: ``(out,)``.
        factor: of the pixel shuffle.

    Returns:
        ``(B, out, factor * H, factor * W)`` in the layout ``channels_last``.
    """
    batch, channels, height, width = x.shape
    out_channels = weight.shape[2] // factor**2
    across, down = -(-width // 4), -(-height // 4)
    tall = max(1, min(down, _TILES_AT_ONCE // across))
    image = x.permute(0, 2, 3, 1)
    out = _empty(batch, 4 * factor * down, 4 * factor * across, out_channels, x.dtype)
    rows = out.permute(0, 2, 3, 1)
    around = x.new_zeros((4 * tall + 2, 4 * across + 2, channels))
    line, pixel = around.stride()[:2]
    # Memory for all blocks: new memory would have to be fetched into the cache every time.
    lines = _memory(tall * 6 * line, x.dtype).view(tall, 6, line)
    windows, points = (_memory(tall * across * 36 * channels, x.dtype) for _ in range(2))
    products, tiles = (_memory(tall * across * values * weight.shape[2], x.dtype) for values in (36, 16))
    for i, first in itertools.product(range(batch), range(0, down, tall)):
        count = min(tall, down - first)
        number = count * across
        # Rows 4 * first - 1 ... 4 * (first + count), where the image has them.
        top, bottom = max(4 * first - 1, 0), min(4 * (first + count) + 1, height)
        skip = top - (4 * first - 1)
        around[:skip] = 0
        around[skip : skip + bottom - top, 1 : width + 1] = image[i, top:bottom]
        around[skip + bottom - top :] = 0
        # Rows first: of each column, six points for the six rows of a tile.
        window = around.as_strided((count, 6, line), (4 * line, line, 1))
        torch.bmm(_INPUT_1D.expand(count, 6, 6), window, out=lines[:count])
        window = windows[: number * 36 * channels].view(number, 6, 6 * channels)
        size, steps = (count, across, 6, 6, channels), (6 * line, 4 * pixel, pixel, line, 1)
        window.view(size).copy_(lines.as_strided(size, steps))
        point = points[: number * 36 * channels].view(number, 6, 6 * channels)
        torch.bmm(_INPUT_1D.expand(number, 6, 6), window, out=point)
        point = point.view(number, 36, channels)
        product = products[: number * 36 * weight.shape[2]].view(36, number, -1)
        torch.bmm(point.transpose(0, 1), weight, out=product)
        tile = tiles[: number * 16 * weight.shape[2]].view(number, 16, -1)
        torch.bmm(_OUTPUT_2D.expand(number, 16, 36), product.transpose(0, 1), out=tile)
        tile = tile.view(count, across, 4, 4, factor, factor, out_channels)
        if bias is not None:
            tile += bias
        place = rows[i, 4 * factor * first : 4 * factor * (first + count)]
        place = place.view(count, 4, factor, across, 4, factor, out_channels)
        place.copy_(tile.permute(0, 3, 4, 1, 2, 5, 6))
    cropped = out[:, :, : factor * height, : factor * width]
    return cropped.contiguous(memory_format=torch.channels_last)


def _halving(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """5x5 convolution of stride 2 with zeros around: Winograd's way along columns, direct along rows.

    Even rows of the input meet three rows of taps, odd ones two. Both are transformed to the same points, where one
    convolution over both makes a row of products for four rows of the output. In two dimensions, the transforms of
    four times as many channels would take as long as they save.

    Args:
        x: ``(B, C, H, W)``, float32, H even.
        weight: from :func:`_halving_weight`.
        bias: ``(out,)``.

    Returns:
        ``(B, out, H / 2, ceil(W / 2))`` in the layout ``channels_last``.
    """
    batch, channels, height, width = x.shape
    out_channels, out_width, line = weight.shape[1], -(-width // 2), width * channels
    down = -(-height // 8)
    tall = -(-down // -(-12 * down * line * x.element_size() // _STRIP_BYTES))
    biases = [None] * 6 if bias is None else list(_CONSTANT[:, None] * bias)
    image = x.permute(0, 2, 3, 1).reshape(batch, height, line)
    out = _empty(batch, 4 * down, out_width, out_channels, x.dtype)
    places = out.permute(0, 2, 3, 1).view(batch, down, 4, -1)
    around = _memory((8 * tall + 3) * line, x.dtype).view(-1, line)
    points = _memory(12 * tall * line, x.dtype).view(6, tall, 2, line)
    products = _memory(6 * tall * out_width * out_channels, x.dtype).view(6, tall, out_width, out_channels)
    for i, first in itertools.product(range(batch), range(0, down, tall)):
        count = min(tall, down - first)
        # Two rows before the tiles and one behind them, copied where the image ends among them.
        start, end = 8 * first - 2, 8 * (first + count) + 1
        top, bottom = max(start, 0), min(end, height)
        rows = image[i, top:bottom]
        if bottom - top < end - start:
            around[: top - start] = 0
            around[bottom - start :] = 0
            around[top - start : bottom - start] = rows
            rows = around
        for odd, number in ((0, 6), (1, 5)):
            # No taps of odd rows are as far down as the last point looks.
            size, steps = (count, number, line), (8 * line, 2 * line, 1)
            window = rows.as_strided(size, steps, rows.storage_offset() + odd * line)
            matrix = _INPUT_1D[:number, :number].expand(count, number, number)
            torch.bmm(matrix, window, out=points[:number, :count, odd].transpose(0, 1))
        for p in range(6):
            point = points[p, :count].view(1, 2 * count, width, channels).permute(0, 3, 1, 2)
            product = F.conv2d(point, weight[p, :, :, : 2 if p < 5 else 1], biases[p], 2, (0, 2))
            products[p, :count] = product[0].permute(1, 2, 0)
        product = products[:, :count].view(6, count, -1).transpose(0, 1)
        torch.bmm(_OUTPUT_1D.expand(count, 4, 6), product, out=places[i, first : first + count])
    return out[:, :, : height // 2].contiguous(memory_format=torch.channels_last)
