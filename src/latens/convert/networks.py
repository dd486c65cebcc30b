"""From trained networks to exact integers: a pure integer function of float32 weights, the same on every machine.

See :mod:`latens.runtime.layers` for the arithmetic, and what has to be proven of each layer.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from latens.errors import ModelError
from latens.runtime.layers import (
    ACTIVATION_MAX,
    LEAKY,
    LINEAR,
    RELU,
    WEIGHT_MAX,
    IntegerChain,
    IntegerLayer,
    reference_activate,
)

__all__ = ["Converted", "Part", "Step", "convert", "draw_bits", "draw_symbols", "steps_of"]

_HEADROOM_BITS = 2
_SCALE_OF_NOTHING = 20

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


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
    draws = draw_bits(len(cdfs) * count, seed).reshape(len(cdfs), count)
    rows = [
        np.minimum(np.searchsorted(cdf, row, side="right") - 1, len(cdf) - 3) + offset
        for cdf, row, offset in zip(cdfs, draws, offsets, strict=True)
    ]
    return np.stack(rows).reshape(len(cdfs), *shape).astype(np.int64)


def draw_bits(count: int, seed: int) -> Int64:
    """``count`` numbers of 16 bits by SplitMix64."""
    with np.errstate(over="ignore"):
        state = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        state += np.uint64(seed)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((state ^ (state >> np.uint64(31))) >> np.uint64(48)).astype(np.int64)


class Part(NamedTuple):
    """Consecutive channels of an input, whose integers stand for themselves times 2^-exponent."""

    channels: int
    exponent: int


class Step(NamedTuple):
    """A convolution and what follows it, in float, on the way to an :class:`IntegerLayer`.

    ``weight`` is ``(out, in, k, k)`` and ``bias`` ``(out,)``, float32; for ``up > 1`` as :class:`IntegerLayer` has it.
    ``top`` is the largest activation as a real number, None for no limit.
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    up: int = 1
    activation: int = LINEAR
    top: float | None = None
    shuffle: int = 1


class Converted(NamedTuple):
    """What :func:`convert` makes: a chain, the exponent of its result, and the result for the samples."""

    chain: IntegerChain
    exponent: int
    samples: list[npt.NDArray[Any]]  # int64 if they are sums, int32 if they are activations


def convert(
    steps: Sequence[Step],
    inputs: Sequence[Part],
    samples: Sequence[Int32],
    name: str,
    *,
    last: str = "sums",
) -> Converted:
    """Turn a trained network into integers; a pure integer function of the float32 weights and the samples.

    Args:
        steps: of the network; see :func:`steps_of`.
        inputs: what the input consists of, in the order of its channels.
        samples: inputs ``(H, W, C)`` int32 that set the range of each layer; two bits of headroom are
            added, and what exceeds them saturates on all machines alike.
        name: for error messages.
        last: whether the result are ``"sums"`` of the last layer or its ``"activations"``.

    Raises:
        ModelError: weights that are not finite or of absurd size, or a bound that cannot be proven.
    """
    parts = list(inputs)
    states: list[npt.NDArray[Any]] = list(samples)
    layers: list[IntegerLayer] = []
    for number, step in enumerate(steps):
        label = f"{name}, layer {number}"
        _check_finite(step, label)
        if sum(part.channels for part in parts) != step.weight.shape[1]:
            raise ModelError(
                f"{label}: expected {step.weight.shape[1]} channels, got {sum(p.channels for p in parts)}"
            )
        slices = np.split(step.weight, np.cumsum([part.channels for part in parts])[:-1], axis=1)
        # One scale for the sum; the parts' weights share it out so that all terms have the same unit.
        # Parts without weights do not limit it; where there are none at all, only the bias matters.
        peaks = [float(np.abs(w).max(initial=0)) for w in slices]
        scale = min(
            (
                _largest_scale(peak) + part.exponent
                for peak, part in zip(peaks, parts, strict=True)
                if peak > 0
            ),
            default=_SCALE_OF_NOTHING,
        )
        exact = all(-60 <= scale - part.exponent <= 60 for part in parts) and -100 <= scale <= 200
        if not exact or np.abs(np.ldexp(step.bias.astype(np.float64), scale)).max(initial=0) >= 2.0**52:
            raise ModelError(f"{label}: weights or biases are too large or too small to be made exact")
        weight = np.concatenate(
            [_quantised(w, scale - part.exponent) for w, part in zip(slices, parts, strict=True)], axis=1
        )
        layer = IntegerLayer(weight, _quantised(step.bias, scale), 0, step.activation, step.shuffle, step.up)
        layer.check(label)
        exponent = scale
        alone = IntegerChain([layer])
        sums = [alone.sums(s) for s in states]
        if number < len(steps) - 1 or last == "activations":
            reach = max(int(np.abs(acc).max()) for acc in sums)
            shift = max(0, (reach << _HEADROOM_BITS).bit_length() - ACTIVATION_MAX.bit_length() + 1)
            exponent = scale - shift
            top = ACTIVATION_MAX
            if step.top is not None:
                top = min(top, math.floor(math.ldexp(step.top, min(exponent, 40))))
            layer = replace(layer, shift=shift, top=top)
            layer.check(label)
            states = [reference_activate(acc.transpose(2, 0, 1), layer).transpose(1, 2, 0) for acc in sums]
            states = [np.ascontiguousarray(state, np.int32) for state in states]
        else:
            states = sums
        layers.append(layer)
        parts = [Part(layer.channels, exponent)]
    return Converted(IntegerChain(layers), parts[0].exponent, states)


def _quantised(values: npt.NDArray[np.float32], exponent: int) -> Int64:
    # A float32 times a power of two is exact in float64, and rint is exact: the same everywhere.
    return np.rint(np.ldexp(values.astype(np.float64), exponent)).astype(np.int64)


def _largest_scale(peak: float) -> int:
    """The largest power of two that keeps weights up to ``peak > 0`` in range."""
    # frexp and ldexp are exact, a logarithm is not the same on all machines.
    scale = 15 - math.frexp(peak)[1]
    return scale if math.ldexp(peak, scale) <= WEIGHT_MAX else scale - 1


def _check_finite(step: Step, label: str) -> None:
    if not (np.isfinite(step.weight).all() and np.isfinite(step.bias).all()):
        raise ModelError(f"{label}: weights are not finite")


def steps_of(network: nn.Module, name: str) -> list[Step]:
    """The steps of a trained network, for :func:`convert`.

    Args:
        network: a sequence of convolutions (stride 1, odd kernel, "same" zero padding, masked ones too), transposed
            convolutions that enlarge exactly by their stride, ReLU, LeakyReLU(0.01), PixelShuffle and sequences
            of these.
        name: for error messages.

    Raises:
        ModelError: a layer that cannot be made exact.
    """
    steps: list[Step] = []
    shuffled = activated = False
    for label, module in _leaves(network, name):
        if isinstance(module, nn.ConvTranspose2d):
            steps.append(_transposed(module, label))
        elif isinstance(module, nn.Conv2d):
            steps.append(_plain(module, label))
        elif isinstance(module, nn.PixelShuffle) and steps and not shuffled:
            # Activations act on single values, so that shuffling may come before or after.
            steps[-1] = steps[-1]._replace(shuffle=int(module.upscale_factor))
            shuffled = True
            continue
        elif (found := _activation(module)) and steps and not activated:
            steps[-1] = steps[-1]._replace(activation=found[0], top=found[1])
            activated = True
            continue
        else:
            raise ModelError(f"{label}: {type(module).__name__} cannot be made exact here")
        shuffled = activated = False
    if not steps:
        raise ModelError(f"{name}: it has no convolution")
    return steps


def _leaves(module: nn.Module, name: str) -> list[tuple[str, nn.Module]]:
    if isinstance(module, nn.Sequential):
        return [leaf for i, part in enumerate(module) for leaf in _leaves(part, f"{name}[{i}]")]
    return [] if isinstance(module, nn.Identity) else [(name, module)]


def _activation(module: nn.Module) -> tuple[int, float | None] | None:
    if isinstance(module, nn.ReLU):
        return RELU, None
    if isinstance(module, nn.LeakyReLU) and module.negative_slope == 0.01:
        return LEAKY, None
    return None


def _weights(
    conv: nn.Conv2d | nn.ConvTranspose2d, label: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    side, stride = conv.kernel_size[0], conv.stride[0]
    grown = (stride - 1, stride - 1) if isinstance(conv, nn.ConvTranspose2d) else (0, 0)
    fits = (
        conv.kernel_size == (side, side)
        and side % 2 == 1
        and conv.stride == (stride, stride)
        and (stride == 1 or isinstance(conv, nn.ConvTranspose2d))
        and conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding == (side // 2, side // 2)
        and conv.padding_mode == "zeros"
        and conv.output_padding == grown
    )
    if not fits:
        raise ModelError(
            f"{label}: {conv} cannot be made exact (stride, dilation, groups, kernel or padding)"
        )
    weight = conv.weight.detach().float()
    mask = getattr(conv, "mask", None)
    if isinstance(mask, Tensor):
        weight = weight * mask
    zeros = np.zeros(conv.out_channels, np.float32)
    bias = conv.bias.detach().float().cpu().numpy() if conv.bias is not None else zeros
    return weight.cpu().numpy(), bias


def _plain(conv: nn.Conv2d, label: str) -> Step:
    return Step(*_weights(conv, label))


def _transposed(conv: nn.ConvTranspose2d, label: str) -> Step:
    weight, bias = _weights(conv, label)
    weight = np.ascontiguousarray(weight.transpose(1, 0, 2, 3))
    if conv.stride == (1, 1):
        # Not enlarging, it is a convolution with the kernel turned round.
        return Step(np.ascontiguousarray(weight[:, :, ::-1, ::-1]), bias)
    return Step(weight, bias, conv.stride[0])
