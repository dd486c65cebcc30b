r"""Networks in exact integer arithmetic: the same integers on every machine, device and thread count.

The path from decoded symbols to the index of a CDF table must not depend on how a sum is ordered, or a file
decodes to noise elsewhere. Here it consists of integers only. They are kept in float64, whose products and
sums of integers below 2^53 are exact in any order, so that the fast matrix product of any device can be used;
:func:`run_reference` is the same in plain int64 NumPy.

Arithmetic (version 1): weights have 16 bits, activations 21 bits, each layer one power-of-two scale. A layer
computes ``acc = sum(w * a) + b``, then ``floor((acc + 2^(s-1)) / 2^s)`` (nothing is added for ``s = 0``), clamps
to +-2^20 and applies ReLU. The last layer's accumulator is compared with integer thresholds; the index is the
number of thresholds strictly exceeded. At conversion each layer must prove
``sum|w| * 2^20 + |b| + 2^(s-1) < 2^53``.

The idea of integer networks for learned codecs is that of Ballé, Johnston and Minnen (ICLR 2019).
"""

import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from latens.errors import ModelError

__all__ = [
    "ARITHMETIC_VERSION",
    "FixedPointNetwork",
    "IntegerLayer",
    "convert",
    "draw_symbols",
    "run_reference",
]

ARITHMETIC_VERSION = 1
WEIGHT_MAX = 2**15 - 1
ACTIVATION_MAX = 2**20
EXACT_LIMIT = 2**53
_HEADROOM_BITS = 2
_KERNEL_MAX = 9

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class IntegerLayer:
    """A stride-1 convolution with zero padding, followed by rescaling, ReLU and PixelShuffle.

    Attributes:
        weight: ``(out, in, k, k)`` int64 in +-(2^15 - 1), k odd.
        bias: ``(out,)`` int64, in units of the accumulator.
        shift: bits dropped from the accumulator.
        relu: whether negative activations become zero.
        shuffle: upscaling factor of the PixelShuffle that follows; 1 for none.
    """

    weight: Int64
    bias: Int64
    shift: int
    relu: bool
    shuffle: int

    def bound(self) -> int:
        """Largest magnitude that any intermediate result can reach, whatever the input."""
        reach = np.abs(self.weight).sum(axis=(1, 2, 3), dtype=np.int64)
        worst = max(int(r) * ACTIVATION_MAX + abs(int(b)) for r, b in zip(reach, self.bias, strict=True))
        return worst + (1 << max(self.shift - 1, 0))

    def check(self) -> None:
        """Prove that the layer is exact.

        Raises:
            ModelError: a value is out of range, or the bound cannot be proven.
        """
        out, _, height, width = self.weight.shape
        if height != width or height % 2 == 0 or height > _KERNEL_MAX or self.bias.shape != (out,):
            raise ModelError(
                f"integer layer: weight {self.weight.shape} and bias {self.bias.shape} do not fit; kernels "
                f"are square, odd and at most {_KERNEL_MAX} wide"
            )
        if not 0 <= self.shift <= 52 or self.shuffle < 1 or out % self.shuffle**2:
            raise ModelError(f"integer layer: shift {self.shift} or shuffle {self.shuffle} out of range")
        if np.abs(self.weight).max(initial=0) > WEIGHT_MAX:
            raise ModelError(f"integer layer: weights exceed +-{WEIGHT_MAX}")
        if self.bound() >= EXACT_LIMIT:
            raise ModelError(
                f"integer layer: sums may reach {self.bound()}, beyond the exact range of {EXACT_LIMIT}; "
                "this network cannot be converted"
            )


class FixedPointNetwork:
    """A chain of :class:`IntegerLayer` that ends in table indexes.

    Args:
        layers: first to last; of the last one only the sums are used, so nothing may follow them.
        thresholds: ascending int64, in units of the last accumulator; at most 255.

    Raises:
        ModelError: a layer cannot be proven exact, channels do not fit, or thresholds are not ascending.
    """

    def __init__(self, layers: Sequence[IntegerLayer], thresholds: Int64) -> None:
        self.layers = tuple(layers)
        self.thresholds = np.asarray(thresholds, np.int64)
        if not self.layers:
            raise ModelError("integer network: it has no layers")
        for layer in self.layers:
            layer.check()
        for layer, following in zip(self.layers, self.layers[1:], strict=False):
            if layer.weight.shape[0] // layer.shuffle**2 != following.weight.shape[1]:
                raise ModelError("integer network: channels of consecutive layers do not fit")
        last = self.layers[-1]
        if last.shift or last.relu or last.shuffle != 1:
            raise ModelError("integer network: it must end in a convolution that nothing follows")
        if not 1 <= self.thresholds.size <= 255:
            raise ModelError(f"integer network: expected 1 to 255 thresholds, got {self.thresholds.size}")
        # The range first: differences of extreme integers would wrap around.
        if self.thresholds.max() >= EXACT_LIMIT or self.thresholds.min() <= -EXACT_LIMIT:
            raise ModelError("integer network: thresholds are out of the exact range")
        if (np.diff(self.thresholds) <= 0).any():
            raise ModelError("integer network: thresholds do not ascend")
        self._step = _even_step(self.thresholds)
        self._on_device: dict[torch.device, list[tuple[list[Tensor], Tensor]]] = {}

    @property
    def upscale(self) -> int:
        """Positions of the result per position of the input, in each direction."""
        return math.prod(layer.shuffle for layer in self.layers)

    def update_hash(self, digest: "hashlib._Hash") -> None:
        """Add all integers that decide about results to a hash."""
        digest.update(struct.pack("<II", ARITHMETIC_VERSION, len(self.layers)))
        for layer in self.layers:
            digest.update(struct.pack("<4I3I", *layer.weight.shape, layer.shift, layer.relu, layer.shuffle))
            digest.update(layer.weight.astype("<i2").tobytes() + layer.bias.astype("<i8").tobytes())
        digest.update(self.thresholds.astype("<i8").tobytes())

    def _taps(self, device: torch.device) -> list[tuple[list[Tensor], Tensor]]:
        """Per layer: one (in, out) matrix per kernel tap, and the bias, as float64 on the device."""
        if device not in self._on_device:
            _prove_exact(device)
            self._on_device[device] = [_tap_matrices(layer, device) for layer in self.layers]
        return self._on_device[device]

    @torch.no_grad()
    def __call__(self, z: Tensor) -> Tensor:
        """Indexes for integer input.

        Args:
            z: ``(B, C, H, W)`` of any real dtype, integers in +-2^20. Outside is zero.

        Returns:
            ``(B, C', r H, r W)`` uint8, r the product of all shuffles.

        Raises:
            ModelError: the device does not compute float64 exactly.
        """
        a = z.to(torch.float64).permute(0, 2, 3, 1)
        a = a.clamp(-ACTIVATION_MAX, ACTIVATION_MAX)
        for i, (layer, (taps, bias)) in enumerate(zip(self.layers, self._taps(z.device), strict=True)):
            acc = _accumulate(a, taps, bias)
            if i == len(self.layers) - 1:
                return self._index(acc).to(torch.uint8).permute(0, 3, 1, 2).contiguous()
            a = _activate(acc, layer)
        raise AssertionError  # unreachable: there is at least one layer

    def _index(self, acc: Tensor) -> Tensor:
        """Number of thresholds that each sum strictly exceeds; ``acc`` is overwritten."""
        if self._step is not None:
            # acc > (k + 1/2) step. Dividing by a power of two is exact, and so is the rest within the bound.
            return acc.mul_(1.0 / self._step).sub_(0.5).ceil_().clamp_(0, self.thresholds.size)
        thresholds = torch.from_numpy(self.thresholds.astype(np.float64)).to(acc.device)
        return torch.bucketize(acc, thresholds, out_int32=True)


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


def _tap_matrices(layer: IntegerLayer, device: torch.device) -> tuple[list[Tensor], Tensor]:
    """One ``(in, out)`` matrix per kernel tap, row by row, and the bias, as float64 on the device."""
    side = layer.weight.shape[2]
    columns = (
        layer.weight.astype(np.float64).transpose(2, 3, 1, 0).reshape(side * side, *layer.weight.shape[1::-1])
    )
    bias = torch.from_numpy(layer.bias.astype(np.float64)).to(device)
    return list(torch.from_numpy(columns.copy()).to(device)), bias


def _accumulate(a: Tensor, taps: list[Tensor], bias: Tensor) -> Tensor:
    """Convolution of ``(B, H, W, C)`` as one matrix product per tap: exact for integers within the bound."""
    side = round(len(taps) ** 0.5)
    batch, height, width, channels = a.shape
    flat = a.reshape(-1, channels)
    if side == 1:
        return torch.addmm(bias, flat, taps[0]).view(batch, height, width, -1)
    reach = side // 2
    acc = bias.expand(batch, height, width, -1).clone()
    for t, tap in enumerate(taps):
        down, right = t // side - reach, t % side - reach
        # Product of all positions once, added where its source position lies inside the picture.
        rows, cols = height - abs(down), width - abs(right)
        if rows <= 0 or cols <= 0:
            continue
        source = a[:, max(down, 0) : max(down, 0) + rows, max(right, 0) : max(right, 0) + cols]
        target = acc[:, max(-down, 0) : max(-down, 0) + rows, max(-right, 0) : max(-right, 0) + cols]
        target += (source.reshape(-1, channels) @ tap).view(batch, rows, cols, -1)
    return acc


def _activate(acc: Tensor, layer: IntegerLayer) -> Tensor:
    """What follows the sums of a layer; ``acc`` is overwritten."""
    if layer.shift:
        acc = torch.floor_(acc.add_(float(1 << (layer.shift - 1))).mul_(2.0**-layer.shift))
    a = acc.clamp_(0 if layer.relu else -ACTIVATION_MAX, ACTIVATION_MAX)
    if layer.shuffle > 1:
        a = nn.functional.pixel_shuffle(a.permute(0, 3, 1, 2), layer.shuffle).permute(0, 2, 3, 1)
    return a


@lru_cache
def _prove_exact(device: torch.device) -> None:
    """Known-answer test, once per device and process: sums far beyond single precision, against NumPy.

    Raises:
        ModelError: the device gives other integers.
    """
    channels, side = 24, 7
    numbers = np.arange(2 * channels * channels * 9, dtype=np.int64) * 0x9E3779B1 % EXACT_LIMIT
    weight = (
        numbers[: channels * channels * 9].reshape(channels, channels, 3, 3) % (2 * WEIGHT_MAX) - WEIGHT_MAX
    )
    bias = EXACT_LIMIT - 2**45 - 2 * numbers[:channels]
    a = (
        numbers[: channels * side * side].reshape(channels, side, side) % (2 * ACTIVATION_MAX)
        - ACTIVATION_MAX
    )
    layer = IntegerLayer(weight, bias * np.where(np.arange(channels) % 2, 1, -1), 0, False, 1)
    layer.check()
    given = torch.from_numpy(a.transpose(1, 2, 0).astype(np.float64)).to(device)[None]
    got = _accumulate(given, *_tap_matrices(layer, device))[0].cpu().numpy().transpose(2, 0, 1)
    if not np.array_equal(got, _reference_layer(a, layer)):
        raise ModelError(f"device {device} does not compute float64 exactly; files would be destroyed on it")


def _reference_layer(a: Int64, layer: IntegerLayer) -> Int64:
    side = layer.weight.shape[2]
    reach = side // 2
    padded = np.pad(a, ((0, 0), (reach, reach), (reach, reach)))
    height, width = a.shape[1:]
    acc = np.zeros((layer.weight.shape[0], height, width), np.int64) + layer.bias[:, None, None]
    for r in range(side):
        for c in range(side):
            acc += np.tensordot(
                layer.weight[:, :, r, c], padded[:, r : r + height, c : c + width], axes=(1, 0)
            )
    return acc


def _reference_step(acc: Int64, layer: IntegerLayer) -> Int64:
    if layer.shift:
        acc = (acc + (1 << (layer.shift - 1))) >> layer.shift
    a = np.clip(acc, 0 if layer.relu else -ACTIVATION_MAX, ACTIVATION_MAX)
    r = layer.shuffle
    out, height, width = a.shape
    return (
        a.reshape(out // r**2, r, r, height, width)
        .transpose(0, 3, 1, 4, 2)
        .reshape(-1, r * height, r * width)
    )


def run_reference(network: FixedPointNetwork, z: Int64) -> npt.NDArray[np.uint8]:
    """The same as calling the network, for one sample ``(C, H, W)``, in int64 NumPy: slow and plain."""
    a = np.clip(np.asarray(z, np.int64), -ACTIVATION_MAX, ACTIVATION_MAX)
    for layer in network.layers[:-1]:
        a = _reference_step(_reference_layer(a, layer), layer)
    acc = _reference_layer(a, network.layers[-1])
    return np.searchsorted(network.thresholds, acc.ravel()).astype(np.uint8).reshape(acc.shape)


# -- conversion ------------------------------------------------------------------------------------------------


def draw_symbols(
    cdfs: Sequence[npt.NDArray[np.integer]],
    offsets: npt.NDArray[np.integer],
    shape: tuple[int, int],
    seed: int,
) -> Int64:
    """Symbols from CDF tables by a fixed integer generator (SplitMix64): ``(len(cdfs), *shape)`` int64.

    The last entry of a table, its escape, is never drawn.
    """
    count = shape[0] * shape[1]
    with np.errstate(over="ignore"):
        state = np.arange(1, len(cdfs) * count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        state += np.uint64(seed)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        draws = (
            ((state ^ (state >> np.uint64(31))) >> np.uint64(48)).astype(np.int64).reshape(len(cdfs), count)
        )
    rows = [
        np.minimum(np.searchsorted(cdf, row, side="right") - 1, len(cdf) - 3) + offset
        for cdf, row, offset in zip(cdfs, draws, offsets, strict=True)
    ]
    return np.stack(rows).reshape(len(cdfs), *shape).astype(np.int64)


def _quantised(values: npt.NDArray[np.float32], exponent: int) -> Int64:
    # A float32 times a power of two is exact in float64, and rint is exact: the same everywhere.
    return np.rint(np.ldexp(values.astype(np.float64), exponent)).astype(np.int64)


def convert(
    network: nn.Sequential,
    thresholds: Sequence[float] | npt.NDArray[np.float64],
    samples: Sequence[Int64],
    name: str = "network",
) -> FixedPointNetwork:
    """Turn a trained network into integers; a pure integer function of the float32 weights and the samples.

    Args:
        network: convolutions (stride 1, odd kernel, "same" zero padding), ReLU and PixelShuffle.
        thresholds: ascending real values that the last layer's output is compared with.
        samples: integer inputs ``(C, H, W)`` that set the range of each layer; two bits of headroom are added,
            and what exceeds them saturates on all machines alike.
        name: for error messages.

    Raises:
        ModelError: a layer of another kind, weights that are not finite, or a bound that cannot be proven.
    """
    modules = list(network)
    states = [torch.from_numpy(s.transpose(1, 2, 0).astype(np.float64))[None] for s in samples]
    layers: list[IntegerLayer] = []
    exponent = 0  # an activation a stands for a * 2^-exponent
    i = 0
    while i < len(modules):
        conv = modules[i]
        label = f"{name}[{i}]"
        if not isinstance(conv, nn.Conv2d):
            raise ModelError(
                f"{label}: expected a convolution, found {type(conv).__name__}; it cannot be made exact"
            )
        weight, bias = _checked_parameters(conv, label)
        i += 1
        relu, shuffle = False, 1
        if i < len(modules) and isinstance(modules[i], nn.ReLU):
            relu, i = True, i + 1
        if i < len(modules) and isinstance(modules[i], nn.PixelShuffle):
            shuffle, i = int(getattr(modules[i], "upscale_factor")), i + 1  # noqa: B009
        scale = _largest_scale(float(np.abs(weight).max(initial=0)))
        exact = -40 <= scale <= 60 and -100 <= scale + exponent <= 200
        if not exact or np.abs(np.ldexp(bias.astype(np.float64), scale + exponent)).max() >= 2.0**52:
            raise ModelError(f"{label}: weights or biases are too large or too small to be made exact")
        layer = IntegerLayer(_quantised(weight, scale), _quantised(bias, scale + exponent), 0, relu, shuffle)
        layer.check()
        if i < len(modules):
            accs = [_accumulate(s, *_tap_matrices(layer, s.device)) for s in states]
            reach = max(int(acc.abs().max()) for acc in accs)
            shift = max(0, (reach << _HEADROOM_BITS).bit_length() - ACTIVATION_MAX.bit_length() + 1)
            layer = IntegerLayer(layer.weight, layer.bias, shift, relu, shuffle)
            states = [_activate(acc, layer) for acc in accs]
            exponent += scale - shift
        else:
            exponent += scale
        layer.check()
        layers.append(layer)
    with np.errstate(over="ignore"):
        levels = np.ldexp(np.asarray(thresholds, np.float64), exponent)
    if not np.isfinite(levels).all() or np.abs(levels).max(initial=0) >= EXACT_LIMIT:
        raise ModelError(f"{name}: thresholds are out of the exact range")
    return FixedPointNetwork(layers, np.floor(levels).astype(np.int64))


def _largest_scale(peak: float) -> int:
    """The largest power of two that keeps weights up to ``peak`` in range: 0 for a peak of 0."""
    if peak == 0.0:
        return 0
    # frexp and ldexp are exact, a logarithm is not the same on all machines.
    scale = 15 - math.frexp(peak)[1]
    return scale if math.ldexp(peak, scale) <= WEIGHT_MAX else scale - 1


def _checked_parameters(
    conv: nn.Conv2d, label: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    side = conv.kernel_size[0]
    same: tuple[Any, ...] = (side // 2, side // 2)
    plain = conv.stride == (1, 1) and conv.dilation == (1, 1) and conv.groups == 1 and side % 2
    if not plain or conv.kernel_size != (side, side) or conv.padding != same or conv.padding_mode != "zeros":
        raise ModelError(
            f"{label}: {conv} cannot be made exact (stride, dilation, groups, kernel or padding)"
        )
    weight = conv.weight.detach().float().cpu().numpy()
    zeros = np.zeros(conv.out_channels, np.float32)
    bias = conv.bias.detach().float().cpu().numpy() if conv.bias is not None else zeros
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise ModelError(f"{label}: weights are not finite")
    return weight, bias
