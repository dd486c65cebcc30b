"""Float networks to integers of 16 bits (``docs/pixels.md``): ranges from samples, bounds proven for every output."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from latens.errors import ModelError
from latens.layers.depthconv import DepthConvBlock
from latens.runtime.networks import (
    INT16,
    Block,
    Depthwise,
    Network,
    Pixels,
    Product,
    Scale,
    Shuffle,
    Stage,
    Unshuffle,
)

__all__ = ["Converted", "Signal", "exponent_for", "leaves_of", "network_of", "pixels_of", "scale_of"]

Float64 = npt.NDArray[np.float64]

_HEADROOM = 1.4  # what activations may exceed those of the samples by
_SHIFT_MAX = 30
_PIXELS_SHIFT_MAX = 22
_GATE_MAX = 11
_SUM_MAX = 2**31 - 1
_LEAST = 1e-200  # of what is divided by: layers that nothing was learned for are all zeros


class Signal(NamedTuple):
    """What the integers of a tensor stand for, times ``2^-exponent``, and their limits, for each channel."""

    exponent: npt.NDArray[np.int64]
    low: Float64
    high: Float64

    @classmethod
    def even(cls, channels: int, exponent: int, limits: tuple[int, int] = INT16) -> Signal:
        """The same for all channels."""
        return cls(
            np.full(channels, exponent),
            np.full(channels, float(limits[0])),
            np.full(channels, float(limits[1])),
        )

    def beside(self, other: Signal) -> Signal:
        """The channels of both."""
        return Signal(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))


class Converted(NamedTuple):
    """A network in integers, what its input and its result stand for, and the float results for the samples.

    ``units`` has the exponent of what each stage gives, and for a block that of its depthwise convolution: with it a
    network can be turned back (:mod:`latens.convert.floats`).
    """

    network: Network
    entry: Signal
    signal: Signal
    samples: list[Tensor]
    units: list[int]


def exponent_for(largest: float, *, top: int = 15) -> int:
    """The largest exponent that leaves room above values of this magnitude."""
    if not math.isfinite(largest):
        raise ModelError("weights give values that are not finite; they cannot be converted")
    if largest <= 0:
        return top
    return max(-15, min(top, math.floor(math.log2(INT16[1] / (_HEADROOM * largest)))))


def _reach(samples: Sequence[Tensor]) -> float:
    return max(float(s.abs().max()) for s in samples)


@dataclass
class _State:
    """On the way through a network: samples as they are here, and what the integers stand for."""

    samples: list[Tensor]
    signal: Signal

    def run(self, module: Callable[[Tensor], Tensor]) -> list[Tensor]:
        return [module(s) for s in self.samples]


def _limits(weight: Float64, bias: Float64, signal: Signal) -> tuple[Float64, Float64]:
    """The smallest and the largest sum of each output, ``weight`` ``(out, taps, in)``; outside there are zeros."""
    high, low = weight * signal.high, weight * signal.low
    most, least = np.maximum(high, low), np.minimum(high, low)
    if weight.shape[1] > 1:
        most, least = np.maximum(most, 0.0), np.minimum(least, 0.0)
    return least.sum((1, 2)) + bias, most.sum((1, 2)) + bias


def _quantise(
    weight: Float64, bias: Float64, signal: Signal, exponent: int, name: str, *, shift: int | None = None
) -> tuple[Float64, Float64, npt.NDArray[np.int64], Float64, Float64]:
    """Integers of a product, with as many bits for each output as its bound leaves.

    Args:
        weight: ``(out, taps, in)``.
        exponent: of the result.
        shift: of all outputs, in place of the largest possible for each.

    Returns:
        Weights, biases, shifts, and the limits of the rounded sums.

    Raises:
        ModelError: weights that are not finite, or sums that would leave 32 bits.
    """
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise ModelError(f"{name}: weights are not finite")
    real = np.ldexp(weight, -signal.exponent)
    largest = np.maximum(np.abs(real).max((1, 2)), _LEAST)
    sums = np.maximum(*(np.abs(limit) for limit in _limits(real, bias, signal)))
    # The largest that can be, and what is possible for certain: rounding adds less than a bit to a sum.
    most = np.minimum(np.log2(INT16[1] / largest), np.log2(_SUM_MAX / np.maximum(sums, _LEAST)))
    shifts = np.clip(np.floor(most) + 1 - exponent, 0, _SHIFT_MAX).astype(np.int64)
    if shift is not None:
        shifts[:] = shift
    while True:
        w = np.rint(np.ldexp(weight, (exponent + shifts)[:, None, None] - signal.exponent))
        b = np.rint(np.ldexp(bias, exponent + shifts))
        limits = _limits(w, b, signal)
        half = np.ldexp(0.5, shifts)
        fits = (
            (np.abs(w).max((1, 2)) <= INT16[1])
            & (limits[1] + half <= _SUM_MAX)
            & (limits[0] - half >= -_SUM_MAX)
        )
        if (shifts < 1).any() or (shift is not None and not fits.all()):
            raise ModelError(f"{name}: weights are too large to be converted")
        if fits.all():
            low, high = (np.floor(np.ldexp(limit + half, -shifts)) for limit in limits)
            return w, b, shifts, low, high
        shifts -= ~fits


def _arrays(conv: nn.Conv2d) -> tuple[Float64, Float64]:
    """Weights ``(out, k, k, in)`` and biases."""
    weight = conv.weight.detach().double().permute(0, 2, 3, 1).cpu().numpy()
    bias = np.zeros(len(weight)) if conv.bias is None else conv.bias.detach().double().cpu().numpy()
    return weight, bias


def _product(
    conv: nn.Conv2d,
    signal: Signal,
    exponent: int,
    name: str,
    *,
    limits: tuple[int, int] = INT16,
    gate: int = 0,
) -> tuple[Product, Signal]:
    side = conv.kernel_size[0]
    fits = (
        conv.kernel_size in ((1, 1), (3, 3)) and conv.stride == (1, 1) and conv.groups == 1
        and conv.dilation == (1, 1) and conv.padding == (side // 2, side // 2) and conv.padding_mode == "zeros"
    )  # fmt: skip
    if not fits:
        raise ModelError(f"{name}: {conv} cannot be converted (kernel, stride, groups or padding)")
    weight, bias = _arrays(conv)
    flat = weight.reshape(len(weight), side * side, -1)
    w, b, shift, least, most = _quantise(flat, bias, signal, exponent, name)
    low, high = limits
    least, most = np.clip(least, low, high), np.clip(most, low, high)
    if gate:
        least = np.full(len(w), -float(279 * 2**gate // 1000) - 2)
        most = np.maximum(most, 0.0)
    made = Product(
        w.reshape(weight.shape).astype(np.int16), b.astype(np.int32), shift.astype(np.uint8), low, high, gate
    )
    return made, Signal(np.full(len(w), exponent), least, most)


def _gated(conv: nn.Conv2d, state: _State, name: str) -> tuple[Product, Signal, list[Tensor]]:
    """A product with a gate behind it."""
    sums = state.run(conv)
    largest = _reach(sums)
    gate = min(_GATE_MAX, exponent_for(largest))
    if gate < 2:
        raise ModelError(f"{name}: values of {largest:.0f} are too large for a gate")
    top = min(INT16[1], math.ceil(_HEADROOM * largest * 2**gate))
    made, signal = _product(conv, state.signal, gate, name, limits=(-top, top), gate=gate)
    return made, signal, [nn.functional.silu(s) for s in sums]


def _block(block: DepthConvBlock, state: _State, name: str) -> tuple[Block, int]:
    """A block and the unit of its depthwise convolution; the state moves behind it, in the same units."""
    stream = state.signal
    pw_in, signal, inside = _gated(block.pw_in, state, f"{name}.pw_in")
    filtered = [block.dw(s) for s in inside]
    exponent = exponent_for(_reach(filtered))
    weight, bias = _arrays(block.dw)
    # Each output has one input: its own.
    own = Signal(signal.exponent[:, None, None], signal.low[:, None, None], signal.high[:, None, None])
    w, b, shift, least, most = _quantise(weight.reshape(-1, 9, 1), bias, own, exponent, f"{name}.dw")
    dw = Depthwise(w.reshape(-1, 3, 3).astype(np.int16), b.astype(np.int32), shift.astype(np.uint8))
    signal = Signal(np.full(len(w), exponent), np.clip(least, *INT16), np.clip(most, *INT16))
    unit = int(stream.exponent[0])
    pw_out, _ = _product(block.pw_out, signal, unit, f"{name}.pw_out")
    state.samples = [s + block.pw_out(f) for s, f in zip(state.samples, filtered, strict=True)]
    state.signal = Signal.even(len(stream.exponent), unit)
    ffn_in, signal, inside = _gated(block.ffn_in, state, f"{name}.ffn_in")
    ffn_out, _ = _product(block.ffn_out, signal, unit, f"{name}.ffn_out")
    state.samples = [s + block.ffn_out(i) for s, i in zip(state.samples, inside, strict=True)]
    return Block(pw_in, dw, pw_out, ffn_in, ffn_out), exponent


def leaves_of(module: nn.Module, name: str) -> list[tuple[str, nn.Module]]:
    """All layers of nested sequences, with their names."""
    if isinstance(module, nn.Sequential):
        return [leaf for i, part in enumerate(module) for leaf in leaves_of(part, f"{name}[{i}]")]
    return [(name, module)]


def _run_on(leaves: Sequence[tuple[str, nn.Module]], samples: list[Tensor]) -> float:
    """Largest magnitude from here on, through everything that keeps the unit: shuffles and blocks."""
    largest = _reach(samples)
    for _, module in leaves:
        if isinstance(module, DepthConvBlock):
            middle = [s + module.pw_out(module.dw(nn.functional.silu(module.pw_in(s)))) for s in samples]
            samples = [s + module.ffn_out(nn.functional.silu(module.ffn_in(s))) for s in middle]
            largest = max(largest, _reach(middle), _reach(samples))
        elif isinstance(module, nn.PixelShuffle | nn.PixelUnshuffle):
            samples = [module(s) for s in samples]
        else:
            break
    return largest


@torch.no_grad()
def network_of(
    module: nn.Module,
    samples: Sequence[Tensor],
    signal: Signal | None,
    name: str,
    *,
    exponent: int | None = None,
    limits: tuple[int, int] = INT16,
    prefix: Sequence[Stage] = (),
    suffix: Callable[[_State], list[Stage]] | None = None,
) -> Converted:
    """Turn a trained network into integers.

    Args:
        module: convolutions (1x1 or 3x3), ReLU, PixelShuffle, PixelUnshuffle, :class:`DepthConvBlock`, in sequence.
        samples: float inputs ``(B, C, H, W)`` that show how large values become.
        signal: what the input is in integers; None to choose one, the same for all channels.
        name: for error messages.
        exponent: of the result of a last convolution; None to choose one.
        limits: of that result.
        prefix: stages that come before, whose result ``signal`` and ``samples`` describe.
        suffix: makes stages that follow.

    Raises:
        ModelError: a layer of another kind, weights that are not finite, or too large.
    """
    leaves = leaves_of(module, name)
    state = _State([s.float() for s in samples], Signal.even(1, 0))
    if signal is None:
        signal = Signal.even(samples[0].shape[1], exponent_for(_run_on(leaves, state.samples)))
    # A network knows one pair of limits for all channels of its input.
    low, high = np.full_like(signal.low, signal.low.min()), np.full_like(signal.high, signal.high.max())
    state.signal = start = Signal(signal.exponent, low, high)
    stages: list[Stage] = list(prefix)
    units = [int(signal.exponent[0])] * len(stages)
    skip = False
    for number, (label, part) in enumerate(leaves):
        following = leaves[number + 1 :]
        if skip:
            skip = False
            continue
        if isinstance(part, DepthConvBlock):
            block, unit = _block(part, state, label)
            stages.append(block)
            units.append(unit)
            continue
        if isinstance(part, nn.Conv2d):
            state_limits, last = INT16, not following
            results = state.run(part)
            if following and isinstance(following[0][1], nn.ReLU):
                results, skip = [r.relu() for r in results], True
                following, state_limits = following[1:], (0, INT16[1])
            unit = exponent if last and exponent is not None else exponent_for(_run_on(following, results))
            product, state.signal = _product(
                part, state.signal, unit, label, limits=limits if last else state_limits
            )
            stages.append(product)
            state.samples = results
        elif isinstance(part, nn.PixelShuffle | nn.PixelUnshuffle):
            state.samples = state.run(part)
            up = isinstance(part, nn.PixelShuffle)
            r = int(cast(Any, part.upscale_factor if up else part.downscale_factor))
            stages.append(Shuffle(r) if up else Unshuffle(r))
            state.signal = _shuffled(state.signal, r, up=up)
        else:
            raise ModelError(f"{label}: {type(part).__name__} cannot be converted")
        units.append(int(state.signal.exponent[0]))
    if suffix is not None:
        stages += suffix(state)
    entry = INT16 if prefix else (int(start.low.min()), int(start.high.max()))
    return Converted(Network(stages, entry, name), start, state.signal, state.samples, units)


def _shuffled(signal: Signal, r: int, *, up: bool) -> Signal:
    if not up:
        return Signal(
            np.repeat(signal.exponent, r * r), np.repeat(signal.low, r * r), np.repeat(signal.high, r * r)
        )
    low, high = (a.reshape(-1, r * r) for a in signal[1:])
    return Signal(signal.exponent[:: r * r], low.min(1), high.max(1))


def scale_of(state: _State, samples: list[Tensor], slot: int = 0) -> tuple[Scale, int]:
    """A stage that multiplies channels by a factor, and the unit it leads to; ``samples`` are the values behind it."""
    channels = len(state.signal.exponent)
    unit = exponent_for(_reach(samples))
    state.samples, state.signal = samples, Signal.even(channels, unit)
    return Scale(channels, slot), unit


def pixels_of(conv: nn.Conv2d, state: _State, name: str, *, unit: float = 255.0) -> Pixels:
    """The last layer, from features to samples of 0..255 around the middle of the range."""
    weight, bias = _arrays(conv)
    weight, bias = unit * weight.reshape(len(weight), 1, -1), unit * (bias + 0.5)
    # One for all outputs: that of the one that leaves the least.
    *_, shifts, _, _ = _quantise(weight, bias, state.signal, 0, name)
    shift = min(int(shifts.min()), _PIXELS_SHIFT_MAX)
    w, b, *_ = _quantise(weight, bias, state.signal, 0, name, shift=shift)
    return Pixels(w[:, 0].astype(np.int16), b.astype(np.int32), shift)
