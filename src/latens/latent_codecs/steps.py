"""A latent coded part by part into one string for each image: what channel-wise and checkerboard contexts share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from latens.entropy_models import GaussianConditional
from latens.entropy_models.base import check_capacity, check_strings
from latens.ops import quantize_ste

__all__ = ["Decoding", "Encoding", "Step", "Training"]

Take = Callable[[Tensor], Tensor]
"""Cuts a part out of a latent ``(B, C, H, W)``."""


class Step(Protocol):
    """Trains, encodes or decodes the next part of a latent, and returns it as the decoder will have it.

    Args:
        take: cuts the part out of the latent; not called while decoding.
        scales, means: of the part.
    """

    def __call__(self, take: Take, scales: Tensor, means: Tensor) -> Tensor: ...


class Training:
    """Likelihoods, and rounding with a straight-through gradient.

    Attributes:
        likelihoods: of each part so far, in their order.
    """

    def __init__(self, gaussian: GaussianConditional, y: Tensor) -> None:
        self._gaussian, self._y = gaussian, y
        self.likelihoods: list[Tensor] = []

    def __call__(self, take: Take, scales: Tensor, means: Tensor) -> Tensor:
        part = take(self._y)
        self.likelihoods.append(self._gaussian(part, scales, means=means)[1])
        return quantize_ste(part - means) + means


class Encoding:
    """Writes parts one after the other, a string for each image.

    Raises:
        CoderError: when called, for latents or scales that are not finite.
        TableError: invalid tables.
    """

    def __init__(self, gaussian: GaussianConditional, y: Tensor) -> None:
        self._gaussian, self._y, self._tables = gaussian, y, gaussian._tables()
        self._encoders = [gaussian.entropy_coder.encoder() for _ in y]

    def __call__(self, take: Take, scales: Tensor, means: Tensor) -> Tensor:
        symbols = self._gaussian.quantize(take(self._y), "symbols", means)
        rows = _to_numpy(self._gaussian.build_indexes(scales))
        for encoder, symbol, row in zip(self._encoders, _to_numpy(symbols), rows, strict=True):
            encoder.push(symbol, row, self._tables)
        return _like(means, self._gaussian.dequantize(symbols, means))

    def finish(self) -> list[bytes]:
        """The strings, one for each image."""
        return [encoder.finish() for encoder in self._encoders]


class Decoding:
    """Reads what :class:`Encoding` wrote.

    Args:
        gaussian: of the latent.
        strings: one for each image.
        values: of the latent of an image; checked against the strings before anything is computed.

    Raises:
        ShapeError: no list of strings.
        LimitError: so many values do not fit into the strings.
        CoderError: a damaged string.
        TableError: invalid tables.
    """

    def __init__(self, gaussian: GaussianConditional, strings: Sequence[bytes], values: int) -> None:
        check_strings(strings)
        check_capacity(strings, values)
        self._gaussian, self._tables = gaussian, gaussian._tables()
        self._decoders = [gaussian.entropy_coder.decoder(string) for string in strings]

    def __call__(self, take: Take, scales: Tensor, means: Tensor) -> Tensor:
        rows = _to_numpy(self._gaussian.build_indexes(scales))
        symbols = np.empty(rows.shape, np.int32)
        for symbol, row, decoder in zip(symbols, rows, self._decoders, strict=True):
            symbol[...] = decoder.decode(row, self._tables)
        return _like(means, self._gaussian.dequantize(torch.from_numpy(symbols).to(means.device), means))

    def finish(self) -> None:
        """Check that the strings end here; raises ``CoderError`` if not."""
        for decoder in self._decoders:
            decoder.finish()


def _like(means: Tensor, values: Tensor) -> Tensor:
    """The values in the memory layout of the means: mixed layouts would be copied over and over by what follows."""
    if means.is_contiguous(memory_format=torch.channels_last):
        return values.contiguous(memory_format=torch.channels_last)
    return values


def _to_numpy(tensor: Tensor) -> Any:
    return tensor.detach().to("cpu", torch.int32).contiguous().numpy()
