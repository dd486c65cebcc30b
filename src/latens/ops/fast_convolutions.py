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

from latens._native import Winograd

__all__ = ["FastConvolutions", "in_strips"]

_LARGE_BYTES = 2**25
"""glibc hands out memory above 32 MiB page by page, which takes its time."""

_STRIP_BYTES = 2**24
"""What is computed at once of a large output."""

_KEPT_BYTES = 2**27
"""Memory that a thread keeps for the next convolutions: new pages have to be found and cleared."""

_REUSED_BYTES = 2**22
"""From here on, memory is kept. NumPy asks for huge pages from here on, too."""

_MIN_CHANNELS = 32
_MIN_TILES = 32
"""Where a Winograd convolution is smaller, its transforms take longer than it saves."""

_TO_PIXELS = 8
"""Transposed convolutions to so few channels are slow as such."""


class FastConvolutions(TorchFunctionMode):
    """While entered, 2-d convolutions of this thread that profit from it run in other ways.

    For inference on CPUs, with images in the memory layout ``channels_last``. Large outputs are made strip by strip
    in huge pages; transposed 5x5 convolutions of stride 2 to a few channels run as sub-pixel convolutions. 3x3
    convolutions, 5x5 convolutions of stride 2, and other transposed ones, run natively as Winograd convolutions with
    a quarter to a third of the products. Errors are about twice those of PyTorch's own float32 convolutions in this
    layout, some 1e-6 of the spread of the values: right for transforms, wrong for what chooses tables.

    Lavin, Gray, "Fast algorithms for convolutional neural networks", CVPR 2016.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # torch.nn.Conv2d and ConvTranspose2d give everything by position, and pairs for both sides.
        if not kwargs and len(args) >= 7 and isinstance(args[3], tuple):
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
        prepare = {(3, 3, 1, 1): _plain, (5, 5, 2, 1): _halving}.get((height, width, step, groups))
        if prepare is not None and _winograd_pays(x, weight, weight.shape[0], step):
            size = -(-x.shape[2] // step), -(-x.shape[3] // step)
            return _winograd(x, _prepared(weight, prepare), bias, size, weight.shape[0])
        halo = -(-(height // 2) // step) * step
        return in_strips(direct, x, halo, step, weight.shape[0] * x.shape[2] * x.shape[3] // step**2)

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
            repeated = None if bias is None else bias.repeat_interleave(4)
            return F.pixel_shuffle(F.conv2d(x, _phases(weight).flatten(0, 2), repeated, padding=1), 2)
        if _winograd_pays(x, weight, channels, 1):
            size = 2 * x.shape[2], 2 * x.shape[3]
            return _winograd(x, _prepared(weight, _doubling), bias, size, channels)
        return in_strips(direct, x, 1, 1, channels * 4 * x.shape[2] * x.shape[3])


def _winograd_pays(x: Tensor, weight: Tensor, out_channels: int, step: int) -> bool:
    return (
        # Weights made on the fly would have to be transformed every time.
        isinstance(weight, nn.Parameter)
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and min(x.shape[1], out_channels) >= _MIN_CHANNELS
        and x.shape[2] * x.shape[3] >= 16 * step**2 * _MIN_TILES
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


def in_strips(function: Callable[[Tensor], Tensor], x: Tensor, halo: int, step: int, values: int) -> Tensor:
    """``function(x)``, strip by strip of rows if it is large.

    Args:
        function: convolutions that pad with zeros and multiply or divide the height by a whole number.
        x: ``(B, C, H, W)``.
        halo: rows of ``x`` above and below that a strip needs, a multiple of ``step``.
        step: what the height is divided by, which is a multiple of it.
        values: in the largest output, for each batch element.
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

# Polynomials of degree 5 are evaluated at these and at infinity; native/winograd.cpp says why.
_POINTS = (0, 0.75, -0.75, 1.5, -1.5)
_WEIGHT = torch.tensor([[p**k for k in range(3)] for p in _POINTS] + [[0, 0, 1]], dtype=torch.float64)
_PANEL = 32
"""Outputs that the native code computes together."""


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


def _plain(weight: Tensor) -> Winograd:
    """``(out, in, 3, 3)``."""
    return _transformed(weight.detach()[None, :, None])


def _halving(weight: Tensor) -> Winograd:
    """``(out, in, 5, 5)`` of a convolution of stride 2."""
    # Even rows of the input meet three rows of taps, odd ones two: the last one there is zero.
    taps = F.pad(weight.detach(), (0, 1, 0, 1)).view(*weight.shape[:2], 3, 2, 3, 2)
    return _transformed(taps.permute(0, 3, 5, 1, 2, 4).flatten(1, 2)[None])


def _doubling(weight: Tensor) -> Winograd:
    """``(in, out, 5, 5)`` of a transposed convolution of stride 2."""
    return _transformed(_phases(weight.detach()).flatten(1, 2).transpose(0, 1)[:, :, None])


def _transformed(taps: Tensor) -> Winograd:
    """``(phases of the output, out, phases of the input, in, 3, 3)`` as the native code wants them."""
    points = torch.einsum("pi,sogcij,qj->sqpgco", _WEIGHT, taps.double(), _WEIGHT).flatten(1, 2).float()
    zero = (points == 0).flatten(3).all(3)
    out_channels = points.shape[4]
    panels = F.pad(points, (0, -out_channels % _PANEL))
    panels = panels.view(*panels.shape[:4], -1, _PANEL)
    return Winograd(
        panels.permute(0, 4, 1, 2, 3, 5).contiguous().numpy(), zero.to(torch.uint8).numpy(), out_channels
    )


_known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def _prepared(weight: Tensor, prepare: Callable[[Tensor], Winograd]) -> Winograd:
    """``prepare(weight)``, remembered for as long as the weight lives and keeps its values."""
    # Values are compared, because changes through .data leave no other trace.
    if weight not in _known or not torch.equal(_known[weight][0], weight):
        _known[weight] = weight.detach().clone(), prepare(weight)
    prepared: Winograd = _known[weight][1]
    return prepared


def _winograd(
    x: Tensor, layer: Winograd, bias: Tensor | None, size: tuple[int, int], out_channels: int
) -> Tensor:
    """Run a prepared convolution.

    Args:
        x: ``(B, C, H, W)``, float32.
        layer: the convolution.
        bias: ``(out,)``.
        size: of the output.
        out_channels: of the output.

    Returns:
        ``(B, out, *size)`` in the layout ``channels_last``.
    """
    out = _empty(x.shape[0], *size, out_channels, x.dtype)
    layer.run(
        x.detach().permute(0, 2, 3, 1).contiguous().numpy(),
        np.empty(0, np.float32) if bias is None else bias.detach().numpy(),
        out.permute(0, 2, 3, 1).numpy(),
        _memory(torch.get_num_threads() * layer.scratch(), x.dtype).numpy(),
    )
    return out
