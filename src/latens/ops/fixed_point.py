r"""Networks in exact integer arithmetic: the same integers on every machine, device and thread count.

The path from decoded symbols to the index of a CDF table must not depend on how a sum is ordered, or a file
decodes to noise elsewhere. Here it consists of integers only. They are kept in float64, whose products and
sums of integers below 2^53 are exact in any order, so that the fast matrix product of any device can be used;
:func:`reference_sums` is the same in plain int64 NumPy. Convolutions may be rearranged, as long as all that is
computed on the way are integers proven to stay below 2^53.

Arithmetic (version 1): weights have 16 bits, activations 21 bits, each layer one power-of-two scale. A layer
computes ``acc = sum(w * a) + b``, then ``floor((acc + 2^(s-1)) / 2^s)`` (nothing is added for ``s = 0``), clamps
to +-2^20 and applies its activation. Sums of a last layer are compared with integer thresholds; the index is the
number of thresholds strictly exceeded. At conversion each layer must prove
``sum|w| * 2^20 + |b| + 2^(s-1) < 2^53``.

The idea of integer networks for learned codecs is that of Ballé, Johnston and Minnen (ICLR 2019).
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from latens import _native
from latens.errors import ModelError

__all__ = [
    "ACTIVATION_MAX",
    "ARITHMETIC_VERSION",
    "IntegerChain",
    "IntegerLayer",
    "Pointwise",
    "Thresholds",
    "halve",
    "reference_sums",
]

ARITHMETIC_VERSION = 1
WEIGHT_MAX = 2**15 - 1
ACTIVATION_MAX = 2**20
EXACT_LIMIT = 2**53
LINEAR, RELU, LEAKY = range(3)
_LEAKY_SLOPE = 655  # of 2^16, for the slope 0.01
_KERNEL_MAX = 9
_UP_MAX = 8
# Bytes of gathered windows at a time: what fits into the second-level cache and a little more.
_WINDOW_BYTES = 4 << 20
# Where a Winograd convolution is smaller, reading its larger weights takes longer than it saves.
_WINOGRAD_CHANNELS = 32
_WINOGRAD_POSITIONS = 256

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class IntegerLayer:
    """A convolution with zero padding, followed by rescaling, an activation and PixelShuffle.

    Attributes:
        weight: ``(out, in, k, k)`` int64 in +-(2^15 - 1), k odd.
        bias: ``(out,)`` int64, in units of the sums.
        shift: bits dropped from the sums.
        activation: ``LINEAR``, ``RELU``, or ``LEAKY`` (negative a become ``floor((655 a + 2^15) / 2^16)``).
        shuffle: upscaling factor of the PixelShuffle that follows; 1 for none.
        up: 1, or the stride of a transposed convolution, whose result is ``up`` times as large:
            ``weight[:, :, r, c]`` times position i adds to position ``up * i + (r, c) - k // 2``.
        top: largest activation, at most 2^20.
    """

    weight: Int64
    bias: Int64
    shift: int = 0
    activation: int = LINEAR
    shuffle: int = 1
    up: int = 1
    top: int = ACTIVATION_MAX

    def bound(self) -> int:
        """Largest magnitude that any intermediate result can reach, whatever the input."""
        reach = np.abs(self.weight).sum(axis=(1, 2, 3), dtype=np.int64)
        worst = max(int(r) * ACTIVATION_MAX + abs(int(b)) for r, b in zip(reach, self.bias, strict=True))
        return worst + (1 << max(self.shift - 1, 0))

    def check(self, name: str = "integer layer") -> None:
        """Prove that the layer is exact.

        Args:
            name: for error messages.

        Raises:
            ModelError: a value is out of range, or the bound cannot be proven.
        """
        out, _, height, width = self.weight.shape
        if height != width or height % 2 == 0 or height > _KERNEL_MAX or self.bias.shape != (out,):
            raise ModelError(
                f"{name}: weight {self.weight.shape} and bias {self.bias.shape} do not fit; kernels "
                f"are square, odd and at most {_KERNEL_MAX} wide"
            )
        if not 0 <= self.shift <= 52 or self.shuffle < 1 or out % self.shuffle**2:
            raise ModelError(f"{name}: shift {self.shift} or shuffle {self.shuffle} out of range")
        # A kernel smaller than the stride would leave positions that nothing adds to.
        if not 1 <= self.up <= min(_UP_MAX, height) or (self.up > 1 and self.shuffle > 1):
            raise ModelError(
                f"{name}: upscaling by {self.up} and shuffling by {self.shuffle} with a kernel of {height} "
                "cannot be made exact"
            )
        if self.activation not in (LINEAR, RELU, LEAKY) or not 0 <= self.top <= ACTIVATION_MAX:
            raise ModelError(f"{name}: activation {self.activation} up to {self.top} is unknown")
        # Not by their magnitudes: that of the smallest integer is negative.
        if self.weight.max(initial=0) > WEIGHT_MAX or self.weight.min(initial=0) < -WEIGHT_MAX:
            raise ModelError(f"{name}: weights exceed +-{WEIGHT_MAX}")
        if self.bound() >= EXACT_LIMIT:
            raise ModelError(
                f"{name}: sums may reach {self.bound()}, beyond the exact range of {EXACT_LIMIT}; "
                "this network cannot be converted"
            )

    @property
    def form(self) -> tuple[int, ...]:
        """What there is beside weight and bias: shift, activation, shuffle, up, top."""
        return self.shift, self.activation, self.shuffle, self.up, self.top

    @property
    def scaling(self) -> int:
        """Positions of the result per position of the input, in each direction."""
        return self.shuffle * self.up

    @property
    def channels(self) -> int:
        """Channels of the result."""
        return int(self.weight.shape[0]) // self.shuffle**2


class _Winograd(NamedTuple):
    """A plain convolution within 3x3 positions, for tiles of 2x2 results, in integers."""

    points: Tensor  # (P,) int64, which of the 16 points have weights other than zero
    weight: Tensor  # (P, in, out) float64
    output: Tensor  # (4, P) float64, from products at the points to four times the results


class _Phase(NamedTuple):
    """The outputs at one offset of the upscaled grid: a plain convolution over a window of the input."""

    row: int  # offset within the upscaled grid
    column: int
    first_row: int  # of the window, relative to the position
    first_column: int
    rows: int
    columns: int
    matrix: Tensor  # (rows * columns * in, out) float64
    winograd: _Winograd | None  # where it is proven exact, and faster


class IntegerChain:
    """Layers one after the other.

    Args:
        layers: first to last.

    Raises:
        ModelError: a layer cannot be proven exact, or channels do not fit.
    """

    def __init__(self, layers: Sequence[IntegerLayer]) -> None:
        self.layers = tuple(layers)
        if not self.layers:
            raise ModelError("integer network: it has no layers")
        for layer in self.layers:
            layer.check()
        for layer, following in zip(self.layers, self.layers[1:], strict=False):
            if layer.channels != following.weight.shape[1]:
                raise ModelError("integer network: channels of consecutive layers do not fit")
        self._on_device: dict[torch.device, list[tuple[list[_Phase], Tensor]]] = {}

    @property
    def scaling(self) -> int:
        """Positions of the result per position of the input, in each direction."""
        return math.prod(layer.scaling for layer in self.layers)

    @property
    def inputs(self) -> int:
        """Channels of the input."""
        return int(self.layers[0].weight.shape[1])

    @property
    def outputs(self) -> int:
        """Channels of the result."""
        return self.layers[-1].channels

    def bounds(self) -> list[int]:
        """For each layer, the largest magnitude that its sums can reach."""
        return [layer.bound() for layer in self.layers]

    def _prepared(self, device: torch.device) -> list[tuple[list[_Phase], Tensor]]:
        if device not in self._on_device:
            prove_exact(device)
            self._on_device[device] = [_prepare(layer, device) for layer in self.layers]
        return self._on_device[device]

    @torch.no_grad()
    def sums(self, a: Tensor) -> Tensor:
        """The last layer's sums.

        Args:
            a: ``(B, H, W, C)`` float64, integers in +-2^20. Outside is zero.

        Returns:
            ``(B, r H, r W, out)`` float64, r the product of all scalings (a last PixelShuffle excepted).

        Raises:
            ModelError: the device does not compute float64 exactly.
        """
        prepared = self._prepared(a.device)
        for layer, (phases, bias) in zip(self.layers[:-1], prepared, strict=False):
            a = activate(_accumulate(a, phases, bias, layer.up), layer)
        return _accumulate(a, *prepared[-1], self.layers[-1].up)

    def activations(self, a: Tensor) -> Tensor:
        """The last layer's activations: as :meth:`sums`, then rescaled, clamped, activated and shuffled."""
        return activate(self.sums(a), self.layers[-1])


class Pointwise:
    """Layers without neighbours, at any number of positions: the same integers as :class:`IntegerChain`.

    In float64 a product with few positions costs as much as reading its weights. Natively these take a quarter of the
    space, and processors have more products of 16 bits: activations are cut in two, and sums of either half stay within
    32 bits, as their weights prove.

    Args:
        layers: first to last; kernels are 1x1.
        matrices: weights ``(out, in)`` in place of some layers' own, by their number: of a part of the inputs, or of
            a window of positions side by side.

    Raises:
        ModelError: layers that do not fit together, or numbers out of range.
    """

    def __init__(self, layers: Sequence[IntegerLayer], matrices: Mapping[int, Int64] | None = None) -> None:
        chosen = matrices or {}
        if any(layer.scaling > 1 for layer in layers):
            raise ModelError("integer network: layers at single positions cannot change the size")
        weights = [chosen[i] if i in chosen else layer.weight[:, :, 0, 0] for i, layer in enumerate(layers)]
        forms = np.array([(layer.shift, layer.activation, layer.top) for layer in layers], np.int64)
        # Layers that are proven exact have weights of 16 bits.
        packed = [np.ascontiguousarray(weight, np.int16) for weight in weights]
        self._native = _native.Layers(packed, forms.reshape(-1, 3))
        self._outputs = len(packed[-1])
        self._arguments = (layers, matrices)

    def __reduce__(self) -> tuple[Any, ...]:
        return Pointwise, self._arguments

    @staticmethod
    def crew() -> _native.Crew:
        """Threads for :meth:`sums`, as many as PyTorch may use. They wait for work while it exists."""
        return _native.Crew(torch.get_num_threads())

    def sums(self, inputs: Tensor, added: Sequence[Tensor], crew: _native.Crew) -> Tensor:
        """Sums of the last layer.

        Args:
            inputs: ``(P, in)`` int32 on the CPU, in +-2^20.
            added: for each layer what its products are added to, int64 within +-2^53: biases ``(1, out)``, or
                ``(P, out)`` if they differ between positions.
            crew: see :meth:`crew`.

        Returns:
            ``(P, out)`` int64.
        """
        out = torch.empty((len(inputs), self._outputs), dtype=torch.int64, device="cpu")
        arrays = [rows.numpy() for rows in added]
        self._native.sums(inputs.numpy(), arrays, out.numpy(), crew)
        return out


def _prepare(layer: IntegerLayer, device: torch.device) -> tuple[list[_Phase], Tensor]:
    """A layer as plain convolutions, one for each offset of the upscaled grid, and its bias."""
    side, up = layer.weight.shape[2], layer.up
    reach = side // 2
    weight = layer.weight.astype(np.float64)

    def window(offset: int) -> tuple[int, list[int]]:
        """First input position, relative, and for it and those that follow the row of the kernel."""
        if up == 1:
            return -reach, list(range(side))
        taps = [j for j in range(-side, side + 1) if 0 <= offset + reach - up * j < side]
        return taps[0], [offset + reach - up * j for j in taps]

    phases = []
    for row in range(up):
        for column in range(up):
            first_row, rows = window(row)
            first_column, columns = window(column)
            taps = weight[:, :, rows][:, :, :, columns].transpose(2, 3, 1, 0)
            matrix = torch.from_numpy(taps.reshape(-1, weight.shape[0]).copy()).to(device)
            winograd = _prepare_winograd(taps, first_row, first_column, device)
            phases.append(
                _Phase(row, column, first_row, first_column, len(rows), len(columns), matrix, winograd)
            )
    return phases, torch.from_numpy(layer.bias.astype(np.float64)).to(device)


# Lavin, Gray, "Fast algorithms for convolutional neural networks", CVPR 2016: from 4x4 values, and from 3x3 weights,
# to 16 points, and from products there to 2x2 results. Weights are doubled along each side, which makes all integers.
_VALUES = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], np.float64)
_WEIGHTS = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]], np.float64)
_RESULTS = np.array([[1, 1, 1, 0], [0, 1, -1, -1]], np.float64)


def _prepare_winograd(
    taps: npt.NDArray[np.float64], first_row: int, first_column: int, device: torch.device
) -> _Winograd | None:
    """The phase with weights ``taps``, ``(rows, columns, in, out)``, or None where it is not exact or not faster."""
    rows, columns, inputs, outputs = taps.shape
    within = min(first_row, first_column) >= -1 and max(first_row + rows, first_column + columns) <= 2
    if not within or rows * columns == 1 or min(inputs, outputs) < _WINOGRAD_CHANNELS:
        return None
    kernel = np.zeros((3, 3, inputs, outputs))
    kernel[first_row + 1 : first_row + 1 + rows, first_column + 1 : first_column + 1 + columns] = taps
    weight = (np.kron(_WEIGHTS, _WEIGHTS) @ kernel.reshape(9, -1)).reshape(16, inputs, outputs)
    # Values at the points are sums of four activations. No sum of products, in whatever order, exceeds this.
    if np.abs(weight).sum(axis=(0, 1)).max() * 4 * ACTIVATION_MAX >= EXACT_LIMIT:
        return None
    points = np.flatnonzero(weight.any(axis=(1, 2)))
    output = np.kron(_RESULTS, _RESULTS)[:, points]
    return _Winograd(*(torch.from_numpy(array).to(device) for array in (points, weight[points], output)))


def _accumulate(a: Tensor, phases: list[_Phase], bias: Tensor, up: int) -> Tensor:
    """Convolution of ``(B, H, W, C)`` as matrix products of windows: exact for integers within the bound."""
    batch, height, width, channels = a.shape
    if height * width >= _WINOGRAD_POSITIONS and all(p.winograd for p in phases):
        return _accumulate_winograd(a, phases, bias, up)
    if len(phases) == 1 and phases[0].rows == 1:
        return torch.addmm(bias, a.reshape(-1, channels), phases[0].matrix).view(batch, height, width, -1)
    before = -min(min(p.first_row, p.first_column) for p in phases)
    after = max(max(p.first_row + p.rows, p.first_column + p.columns) for p in phases) - 1
    padded = F.pad(a, (0, 0, before, after, before, after))
    out = a.new_empty((batch, up * height, up * width, bias.shape[0]))
    widest = max(p.matrix.shape[0] for p in phases)
    step = max(1, _WINDOW_BYTES // (8 * width * widest))
    for image, target in zip(padded, out, strict=True):
        for p in phases:
            for top in range(0, height, step):
                count = min(step, height - top)
                windows = _windows(
                    image[top + before + p.first_row :, before + p.first_column :], count, width, p
                )
                result = torch.addmm(bias, windows, p.matrix).view(count, width, -1)
                rows = slice(up * top + p.row, up * (top + count), up)
                target[rows, p.column :: up] = result
    return out


def _accumulate_winograd(a: Tensor, phases: list[_Phase], bias: Tensor, up: int) -> Tensor:
    """:func:`_accumulate` with a half of the products or less, and just as exact."""
    batch, height, width, channels = a.shape
    down, across = -(-height // 2), -(-width // 2)
    padded = F.pad(a, (0, 0, 1, 2 * across + 1 - width, 1, 2 * down + 1 - height))
    out = a.new_empty((batch, 2 * up * down, 2 * up * across, bias.shape[0]))
    values = torch.from_numpy(np.kron(_VALUES, _VALUES)).to(a.device)
    step = max(1, _WINDOW_BYTES // (16 * 8 * across * channels))
    for image, target in zip(padded, out, strict=True):
        row, column, _ = image.stride()
        for top in range(0, down, step):
            count = min(step, down - top)
            tiles = image[2 * top :].as_strided(
                (4, 4, count, across, channels), (row, column, 2 * row, 2 * column, 1)
            )
            points = (values @ tiles.reshape(16, -1)).view(16, count * across, channels)
            for p in phases:
                if p.winograd is None:
                    raise ModelError("integer network: a phase is not prepared")
                used = p.winograd.points
                products = torch.bmm(points if len(used) == 16 else points[used], p.winograd.weight)
                # Four times the results, without a remainder.
                results = (p.winograd.output @ products.flatten(1)).mul_(0.25)
                results = results.view(2, 2, count, across, -1).add_(bias)
                for i, j in itertools.product(range(2), range(2)):
                    rows = slice(up * (2 * top + i) + p.row, up * 2 * (top + count), 2 * up)
                    target[rows, up * j + p.column :: 2 * up] = results[i, j]
    return out[:, : up * height, : up * width].contiguous()


def _windows(image: Tensor, height: int, width: int, phase: _Phase) -> Tensor:
    """The window of each position as one row: ``(height * width, rows * columns * C)``."""
    row, column, _ = image.stride()
    channels = image.shape[2]
    # Neighbours in a row lie side by side with their channels: one run of memory per row of a window.
    size = (height, width, phase.rows, phase.columns * channels)
    return image.as_strided(size, (row, column, row, 1)).reshape(height * width, -1)


def halve(sums: Tensor, shift: int) -> Tensor:
    """``floor((sums + 2^(shift-1)) / 2^shift)`` for ``shift > 0``, times 2^-shift below; overwrites ``sums``."""
    if shift > 0:
        return torch.floor_(sums.add_(float(1 << (shift - 1))).mul_(2.0**-shift))
    return sums.mul_(2.0**-shift) if shift else sums


def activate(sums: Tensor, layer: IntegerLayer) -> Tensor:
    """What follows the sums of a layer, ``(..., C)``; they are overwritten."""
    low = 0 if layer.activation == RELU else -ACTIVATION_MAX
    a = halve(sums, layer.shift).clamp_(low, layer.top)
    if layer.activation == LEAKY:
        # The larger of the two is the one wanted, on either side of zero.
        a = torch.maximum(a, (a * (_LEAKY_SLOPE / 2**16)).add_(0.5).floor_())
    if layer.shuffle > 1:
        a = F.pixel_shuffle(a.permute(0, 3, 1, 2), layer.shuffle).permute(0, 2, 3, 1).contiguous()
    return a


class Thresholds:
    """Counts the thresholds that sums exceed: the index of a CDF table.

    Args:
        values: ascending int64, in units of the sums; 1 to 255.

    Raises:
        ModelError: they do not ascend, or are out of range.
    """

    def __init__(self, values: Int64) -> None:
        self.values = np.asarray(values, np.int64)
        if self.values.ndim != 1 or not 1 <= self.values.size <= 255:
            raise ModelError(f"integer network: expected 1 to 255 thresholds, got {self.values.size}")
        # The range first: differences of extreme integers would wrap around.
        if self.values.max() >= EXACT_LIMIT or self.values.min() <= -EXACT_LIMIT:
            raise ModelError("integer network: thresholds are out of the exact range")
        if (np.diff(self.values) <= 0).any():
            raise ModelError("integer network: thresholds do not ascend")
        self._step = _even_step(self.values)
        self._tensor = torch.from_numpy(self.values.astype(np.float64))

    @classmethod
    def of(cls, levels: npt.NDArray[np.float64], exponent: int, name: str) -> "Thresholds":
        """From real thresholds, for sums that stand for themselves times 2^-exponent.

        Raises:
            ModelError: they are out of range, or fall together.
        """
        with np.errstate(over="ignore"):
            scaled = np.ldexp(np.asarray(levels, np.float64), exponent)
        if not np.isfinite(scaled).all() or np.abs(scaled).max(initial=0) >= EXACT_LIMIT:
            raise ModelError(f"{name}: thresholds are out of the exact range")
        values = np.floor(scaled).astype(np.int64)
        if (np.diff(values) <= 0).any():
            raise ModelError(
                f"{name}: weights are so large that entries of the scale table fall together in integers; "
                "expected scales of the size that the table has"
            )
        return cls(values)

    def count(self, sums: Tensor) -> Tensor:
        """Number of thresholds that each sum strictly exceeds: uint8; ``sums`` may be overwritten."""
        if self._step is not None:
            # acc > (k + 1/2) step. Dividing by a power of two is exact, and so is the rest within the bound.
            counted = sums.mul_(1.0 / self._step).sub_(0.5).ceil_().clamp_(0, self.values.size)
        else:
            counted = torch.bucketize(sums, self._tensor.to(sums.device), out_int32=True)
        return counted.to(torch.uint8)


def _even_step(thresholds: Int64) -> int | None:
    """The step of thresholds ``(k + 1/2) step`` if they are such, and the step is a power of two from 2 on.

    Conversion makes them so for outputs that are linear in the index; counting them then takes an eighth of the
    time of a search.
    """
    step = int(thresholds[-1] - thresholds[-2]) if thresholds.size > 1 else 0
    even = step >= 2 and step & (step - 1) == 0
    return (
        step if even and np.array_equal(thresholds, step * np.arange(thresholds.size) + step // 2) else None
    )


@lru_cache
def prove_exact(device: torch.device) -> None:
    """Known-answer test, once per device and process: sums far beyond single precision, against NumPy.

    A small and a large input, because they are computed in two ways.

    Raises:
        ModelError: the device gives other integers, or has no float64.
    """
    channels = 32
    numbers = np.arange(2 * channels * channels * 9, dtype=np.int64) * 0x9E3779B1 % EXACT_LIMIT
    weight = (
        numbers[: channels * channels * 9].reshape(channels, channels, 3, 3) % (2 * WEIGHT_MAX) - WEIGHT_MAX
    )
    bias = EXACT_LIMIT - 2**45 - 2 * numbers[:channels]
    layer = IntegerLayer(weight, bias * np.where(np.arange(channels) % 2, 1, -1))
    layer.check()
    for side in (7, 17):
        a = numbers[: channels * side * side].reshape(channels, side, side) % (2 * ACTIVATION_MAX)
        a -= ACTIVATION_MAX
        try:
            given = torch.from_numpy(a.transpose(1, 2, 0).astype(np.float64)).to(device)[None]
            got = _accumulate(given, *_prepare(layer, device), 1)[0].cpu().numpy().transpose(2, 0, 1)
        except (RuntimeError, TypeError) as error:
            raise ModelError(f"device {device} has no float64; run the entropy model on the CPU") from error
        if not np.array_equal(got, reference_sums([layer], a)):
            raise ModelError(
                f"device {device} does not compute float64 exactly; files would be destroyed on it"
            )


# -- the same in NumPy -----------------------------------------------------------------------------------------


def reference_sums(layers: Sequence[IntegerLayer], a: Int64) -> Int64:
    """:meth:`IntegerChain.sums` of one sample ``(C, H, W)`` in int64 NumPy: slow and plain."""
    a = np.asarray(a, np.int64)
    for layer in layers[:-1]:
        a = reference_activate(_reference_layer(a, layer), layer)
    return _reference_layer(a, layers[-1])


def _reference_layer(a: Int64, layer: IntegerLayer) -> Int64:
    out, _, side, _ = layer.weight.shape
    reach, up = side // 2, layer.up
    height, width = a.shape[1:]
    if up == 1:
        a = np.pad(a, ((0, 0), (reach, reach), (reach, reach)))
        acc = np.zeros((out, height, width), np.int64)
    else:
        acc = np.zeros((out, up * height + side, up * width + side), np.int64)
    for r in range(side):
        for c in range(side):
            weight = layer.weight[:, :, r, c]
            if up == 1:
                acc += np.tensordot(weight, a[:, r : r + height, c : c + width], axes=(1, 0))
            else:
                # Scattered onto the enlarged grid, with a border of the kernel's reach.
                target = acc[:, r : r + up * height : up, c : c + up * width : up]
                target += np.tensordot(weight, a, axes=(1, 0))
    if up > 1:
        acc = acc[:, reach : reach + up * height, reach : reach + up * width]
    return acc + layer.bias[:, None, None]


def reference_activate(acc: Int64, layer: IntegerLayer) -> Int64:
    """:func:`activate` of ``(C, H, W)`` in int64 NumPy."""
    if layer.shift:
        acc = (acc + (1 << (layer.shift - 1))) >> layer.shift
    a = np.clip(acc, 0 if layer.activation == RELU else -ACTIVATION_MAX, layer.top)
    if layer.activation == LEAKY:
        a = np.where(a < 0, (_LEAKY_SLOPE * a + 2**15) >> 16, a)
    r = layer.shuffle
    out, height, width = a.shape
    return (
        a.reshape(out // r**2, r, r, height, width)
        .transpose(0, 3, 1, 4, 2)
        .reshape(-1, r * height, r * width)
    )
