"""Latents of the float video models, in two steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latens.errors import ModelError
from latens.models.latens_base import first_step_mask
from latens.runtime import QUALITY_MAX as LEVELS
from latens.runtime import Decoded, ExactEntropy, Pass

__all__ = [
    "LEVELS",
    "CodedLatent",
    "Predict",
    "Second",
    "by_position",
    "encode_in_two_steps",
    "finish_in_two_steps",
    "finite",
]

Int16 = npt.NDArray[np.int16]
# From z, rounded, to the means of all positions, and what makes means of the second half from y of the first.
Second = Callable[[Tensor], Tensor]
Predict = Callable[[Tensor], tuple[Tensor, Second]]

_INT16 = 32767.0


class CodedLatent(NamedTuple):
    """A stream and its lanes, what the decoder will have of it, and y as both sides have it, ``(1, C, H, W)``."""

    stream: bytes
    lanes: int
    decoded: Decoded
    y_hat: Tensor


def encode_in_two_steps(
    entropy: ExactEntropy, y: Tensor, z: Tensor, predict: Predict, knot: int, skip: int, lanes: int | None
) -> CodedLatent:
    """The stream of a latent whose means come from z and, at the second half of all positions, from the first.

    Args:
        entropy: of both.
        y: ``(1, C, H, W)`` in units of the quantiser.
        z: ``(1, C_z, h, w)``, rounded.
        predict: the means.
        knot, skip, lanes: as for :meth:`latens.runtime.ExactEntropy.encode`.

    Raises:
        ModelError: the weights give values that are not finite.
    """
    found: list[Tensor] = []
    # In the layout that a decoder has, so that on one machine both sides have the same to the last bit.
    y = by_position(y)

    def quantise(part: Pass) -> Int16:
        coded = torch.from_numpy(part.indexes >= skip).view(*y.shape[2:], -1).permute(2, 0, 1)[None]
        coded = by_position(coded)
        first = by_position(first_step_mask(y))
        mean, second = predict(by_position(z))
        symbols = _round(y - mean) * coded
        y_first = (symbols + mean) * first
        mean = second(y_first)
        symbols = torch.where(first, symbols, _round(y - finite(mean)) * coded)
        found.append(by_position(torch.where(first, y_first, symbols + mean)))
        return symbols[0].permute(1, 2, 0).reshape(-1, y.shape[1]).to(torch.int16).numpy()

    z_symbols = np.ascontiguousarray(z[0].numpy().astype(np.int16))
    stream, lanes, decoded = entropy.encode(z_symbols, quantise, knot, skip, lanes)
    return CodedLatent(stream, lanes, decoded, found[0])


def finish_in_two_steps(decoded: Decoded, predict: Predict) -> Tensor:
    """y ``(1, C, H, W)`` of decoded symbols; the inverse of :func:`encode_in_two_steps`."""
    symbols = by_position(torch.from_numpy(decoded.latent))
    first = by_position(first_step_mask(symbols))
    mean, second = predict(by_position(torch.from_numpy(decoded.z)[None]).float())
    y_first = (symbols + mean) * first
    return by_position(torch.where(first, y_first, symbols + second(y_first)))


def finite(values: Tensor) -> Tensor:
    """The values themselves; hostile or damaged weights must not turn into symbols or pixels.

    Raises:
        ModelError: one of them is not finite.
    """
    # A sum is finite only if all of its terms are, and takes a tenth of the time.
    if not math.isfinite(values.sum()):
        raise ModelError("the weights of this model give values that are not finite; they cannot be used")
    return values


def by_position(values: Tensor) -> Tensor:
    """The same values with the channels of each position side by side, the layout that all networks run in."""
    return values.contiguous(memory_format=torch.channels_last)


def _round(residual: Tensor) -> Tensor:
    return residual.round().clamp_(-_INT16, _INT16)
