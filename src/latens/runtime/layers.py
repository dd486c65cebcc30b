r"""Networks in exact integer arithmetic: the same integers on every machine and thread count.

The path from decoded symbols to the index of a CDF table must not depend on how a sum is ordered, or a file
decodes to noise elsewhere. Here it consists of integers only, computed natively; :func:`reference_sums` is the
same in plain int64 NumPy.

Arithmetic (version 1): weights have 16 bits, activations 21 bits, each layer one power-of-two scale. A layer
computes ``acc = sum(w * a) + b``, then ``floor((acc + 2^(s-1)) / 2^s)`` (nothing is added for ``s = 0``), clamps
to +-2^20 and applies its activation. Sums of a last layer are compared with integer thresholds; the index is the
number of thresholds strictly exceeded. At conversion each layer must prove
``sum|w| * 2^20 + |b| + 2^(s-1) < 2^53``.

The idea of integer networks for learned codecs is that of Ballé, Johnston and Minnen (ICLR 2019).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

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
    "reference_activate",
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
_SCALING_MAX = 64

Int32 = npt.NDArray[np.int32]
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


def _native_layers(
    layers: Sequence[IntegerLayer], matrices: Mapping[int, Int64] | None = None
) -> _native.Layers:
    """Layers as they are run; some with other weights ``(out, in)``, by their number."""
    weights = [layer.weight for layer in layers]
    for number, matrix in (matrices or {}).items():
        weights[number] = matrix[:, :, None, None]
    forms = np.array([layer.form for layer in layers], np.int64).reshape(-1, 5)
    # Layers that are proven exact have weights of 16 bits.
    return _native.Layers([np.ascontiguousarray(weight, np.int16) for weight in weights], forms)


def _row(values: Int64) -> Int64:
    return np.ascontiguousarray(values, np.int64)[None]


class IntegerChain:
    """Layers one after the other, over a plane of positions with zeros around it.

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
        if self.scaling > _SCALING_MAX:
            raise ModelError(f"integer network: it enlarges {self.scaling} times, the most is {_SCALING_MAX}")
        self._native = _native_layers(self.layers)
        self._biases = [_row(layer.bias) for layer in self.layers]

    def __reduce__(self) -> tuple[Any, ...]:
        return IntegerChain, (self.layers,)

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

    def sums(self, a: Int32) -> Int64:
        """The last layer's sums.

        Args:
            a: ``(H, W, C)`` int32 in +-2^20. Outside is zero.

        Returns:
            ``(r H, r W, out)`` int64, r the product of all scalings (a last PixelShuffle excepted).
        """
        last = self.layers[-1]
        out = np.empty(self._size(a, self.scaling // last.shuffle, len(last.bias)), np.int64)
        self._native.plane_sums(np.ascontiguousarray(a), self._biases, out)
        return out

    def activations(self, a: Int32) -> Int32:
        """The last layer's activations: as :meth:`sums`, then rescaled, clamped, activated and shuffled."""
        out = np.empty(self._size(a, self.scaling, self.outputs), np.int32)
        self._native.plane_activations(np.ascontiguousarray(a), self._biases, out)
        return out

    @staticmethod
    def _size(a: Int32, scaling: int, channels: int) -> tuple[int, int, int]:
        return scaling * a.shape[0], scaling * a.shape[1], channels


class Pointwise:
    """Layers without neighbours, at any number of positions: the same integers as :class:`IntegerChain`.

    Args:
        layers: first to last; kernels are 1x1.
        matrices: weights ``(out, in)`` in place of some layers' own, by their number: of a part of the inputs, or of
            a window of positions side by side.

    Raises:
        ModelError: layers that do not fit together, or numbers out of range.
    """

    def __init__(self, layers: Sequence[IntegerLayer], matrices: Mapping[int, Int64] | None = None) -> None:
        if any(layer.scaling > 1 for layer in layers):
            raise ModelError("integer network: layers at single positions cannot change the size")
        self._native = _native_layers(layers, matrices)
        self._outputs = len(layers[-1].bias)
        self._arguments = (layers, matrices)

    def __reduce__(self) -> tuple[Any, ...]:
        return Pointwise, self._arguments

    def sums(self, inputs: Int32, added: Sequence[Int64]) -> Int64:
        """Sums of the last layer.

        Args:
            inputs: ``(P, in)`` int32, in +-2^20.
            added: for each layer what its products are added to, int64 within +-2^53: biases ``(1, out)``, or
                ``(P, out)`` if they differ between positions.

        Returns:
            ``(P, out)`` int64.
        """
        out = np.empty((len(inputs), self._outputs), np.int64)
        self._native.sums(inputs, list(added), out)
        return out


def halve(sums: Int64, shift: int) -> Int64:
    """``floor((sums + 2^(shift-1)) / 2^shift)`` for ``shift > 0``, times 2^-shift below: exact up to +-2^40, and beyond
    on the same side of what any clamp lets through."""
    if shift > 0:
        return (sums + (1 << (shift - 1))) >> shift
    return np.clip(sums, -(1 << 40), 1 << 40) << -shift if shift else sums


class Thresholds:
    """Counts the thresholds that sums exceed: the index of a CDF table.

    Args:
        values: ascending int64, in units of the sums; 1 to 255.

    Raises:
        ModelError: they do not ascend, or are out of range.
    """

    def __init__(self, values: Int64) -> None:
        self.values = np.ascontiguousarray(values, np.int64)
        if self.values.ndim != 1 or not 1 <= self.values.size <= 255:
            raise ModelError(f"integer network: expected 1 to 255 thresholds, got {self.values.size}")
        # The range first: differences of extreme integers would wrap around.
        if self.values.max() >= EXACT_LIMIT or self.values.min() <= -EXACT_LIMIT:
            raise ModelError("integer network: thresholds are out of the exact range")
        if (np.diff(self.values) <= 0).any():
            raise ModelError("integer network: thresholds do not ascend")

    @classmethod
    def of(cls, levels: npt.NDArray[np.float64], exponent: int, name: str) -> Thresholds:
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

    def count(self, sums: Int64, first: int, channels: int) -> npt.NDArray[np.uint8]:
        """Number of thresholds that each sum strictly exceeds: ``(P, channels)``.

        Args:
            sums: ``(P, C)`` int64.
            first, channels: which of its channels.
        """
        out = np.empty((len(sums), channels), np.uint8)
        _native.count_exceeded(sums, first, self.values, out)
        return out


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
    """What follows the sums of a layer, ``(C, H, W)``, in int64 NumPy."""
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
