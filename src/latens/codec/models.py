"""What the codec needs of a model: from pixels to latents, to a tile's stream, and back."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from latens import format as ltn
from latens.codec.effort import refine
from latens.convert.published import hyper_analysis
from latens.errors import ModelError
from latens.models.base import CompressionModel
from latens.models.latens_base import LatensBase, first_step_mask
from latens.ops.fast_convolutions import FastConvolutions
from latens.runtime import QUALITY_MAX as LEVELS
from latens.runtime import Decoded, ExactEntropy, Pass
from latens.zoo import LoadedModel
from latens.zoo.cards import tune_of

__all__ = [
    "LATENT",
    "LEVELS",
    "CodedLatent",
    "CodedTile",
    "FileModel",
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

LATENT = 16  # pixels per position of y
_INT16 = 32767.0


class CodedTile(NamedTuple):
    """A tile's stream, the lanes it was written with, and the checksum over its symbols."""

    stream: bytes
    lanes: int
    checksum: int


class _Networks(Protocol):
    """The float networks of a model, on one image ``(1, C, H, W)`` at a time."""

    skip: int
    """Table indexes below are not coded: a symbol other than zero is not worth its bits and its time."""

    def analyse(self, x: Tensor) -> Tensor:
        """Pixels in 0..1 to what latents are made of at any quality."""

    def encode(
        self, features: Tensor, level: int, knot: int, lanes: int | None, fast: torch.autocast
    ) -> tuple[bytes, int, Int16, Int16]:
        """Stream, lanes, and symbols of z and y."""

    def decode(
        self, stream: bytes, z_shape: tuple[int, int], header: ltn.Header, knot: int
    ) -> tuple[Int16, Int16, Tensor]:
        """Symbols of z and y, and what :meth:`synthesise` takes."""

    def synthesise(self, y_hat: Tensor, level: int) -> Tensor:
        """Pixels around 0..1, not clamped."""


class FileModel:
    """A loaded model as the codec uses it.

    Args:
        model: network and integer entropy model.
        fast: run g_a, h_a and g_s in bfloat16.

    Raises:
        ModelError: a network that files cannot hold.
    """

    def __init__(self, model: LoadedModel, fast: bool) -> None:
        self.id, self.weights_id, self.entropy = model.id, model.weights_id, model.entropy
        self.fast = fast
        network = model.network
        self._networks: _Networks = (
            _Base(network, self.entropy)
            if isinstance(network, LatensBase)
            else _Classic(network, self.entropy)
        )
        self.skip = self._networks.skip
        # A model without y has its z where others have y.
        self.channels = self.entropy.y_channels or self.entropy.z_channels
        self.hyper = LATENT * self.entropy.upscale
        if ltn.GRID % self.hyper:
            raise ModelError(
                f"{self.id}: {self.hyper} pixels per position of z do not fit the grid of {ltn.GRID}"
            )

    @property
    def rates(self) -> int | None:
        """Number of rates to choose from: None for any."""
        return None if isinstance(self._networks, _Base) else self.entropy.knots

    @property
    def refines(self) -> bool:
        """Whether :meth:`refine` can be used."""
        return isinstance(self._networks, _Base)

    def knot(self, level: int) -> int:
        """The table set of z for a header's quality, which only integers may decide about."""
        return self.entropy.knot_at(level)

    def level(self, quality: float) -> int:
        """The header's quality for 0 to 100: the nearest that the model has."""
        level = round(quality / 100.0 * LEVELS)
        if self.rates is None:
            return level
        return 0 if self.rates == 1 else round(self.knot(level) * LEVELS / (self.rates - 1))

    def analyse(self, x: Tensor) -> Tensor:
        """x ``(1, 3, H, W)`` in 0..1 to features ``(1, channels, H/16, W/16)`` float32.

        Raises:
            ModelError: the weights give values that are not finite.
        """
        with self._precision(), self._convolutions():
            return finite(self._networks.analyse(x).float())

    def refine(self, x: Tensor, features: Tensor, level: int, steps: int) -> Tensor:
        """Features whose latents cost less for pixels ``(1, 1 or 3, h, w)``, after so many gradient steps.

        Raises:
            ModelError: the networks of this model are not made for it, or give values that are not finite.
        """
        if not isinstance(self._networks, _Base):
            raise ModelError(f"{self.id}: only latents of the default model can be refined")
        return finite(self._networks.refine(x, features, level, steps, self.fast, tune_of(self.id)))

    def encode(self, features: Tensor, level: int, lanes: int | None) -> CodedTile:
        """The stream of a tile.

        Raises:
            ModelError: the weights give values that are not finite.
        """
        stream, used, z, y = self._networks.encode(
            features, level, self.knot(level), lanes, self._precision()
        )
        return CodedTile(stream, used, ltn.symbol_checksum(z.data, y.data))

    def decode(self, stream: bytes, size: tuple[int, int], header: ltn.Header) -> tuple[int, Tensor]:
        """Checksum over the symbols of a tile of coded ``size`` (height, width), and y_hat ``(1, channels, ...)``.

        Raises:
            CoderError: the stream is damaged.
        """
        z_shape = (size[0] // self.hyper, size[1] // self.hyper)
        z, y, y_hat = self._networks.decode(stream, z_shape, header, self.knot(header.quality))
        return ltn.symbol_checksum(z.data, y.data), y_hat

    def synthesise(self, y_hat: Tensor, level: int) -> Tensor:
        """y_hat to pixels ``(1, 3, H, W)``.

        Raises:
            ModelError: the weights give values that are not finite.
        """
        with self._precision(), self._convolutions():
            return finite(self._networks.synthesise(y_hat, level).float())

    def _precision(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.fast)

    def _convolutions(self) -> AbstractContextManager[object]:
        # The default model has next to none that are made for it.
        return nullcontext() if isinstance(self._networks, _Base) else FastConvolutions()

    @cached_property
    def analysis_halo(self) -> int:
        """Pixels around a tile that its latents depend on."""

        def affected(cells: int) -> Tensor:
            x = torch.zeros((1, 3, cells * LATENT, cells * LATENT), dtype=torch.float32)
            middle = slice(cells // 2 * LATENT, (cells // 2 + 1) * LATENT)
            x[..., middle, middle] = math.nan
            return self._networks.analyse(by_position(x))[0].isnan().any(0)

        return LATENT * _reach(affected)

    @cached_property
    def synthesis_halo(self) -> int:
        """Positions of y around a tile that its pixels depend on."""

        def affected(cells: int) -> Tensor:
            y_hat = torch.zeros((1, self.channels, cells, cells), dtype=torch.float32)
            y_hat[..., cells // 2, cells // 2] = math.nan
            x = self._networks.synthesise(by_position(y_hat), 0)[0].isnan().any(0)
            return nn.functional.max_pool2d(x.float()[None], LATENT)[0] > 0

        return _reach(affected)


def _reach(affected: Callable[[int], Tensor]) -> int:
    """How many cells away something that is not a number shows: the reach of a network, without knowing its layers."""
    for cells in (25, 49, 97):
        rows = torch.nonzero(affected(cells))
        distance = int((rows - cells // 2).abs().max())
        if distance < cells // 2:
            return distance
    raise ModelError("the networks of this model look too far for images that are coded in tiles")


class _Base:
    """The default model: the mean of y is refined in float32, after its tables are chosen."""

    skip = 4

    def __init__(self, network: LatensBase, entropy: ExactEntropy) -> None:
        self.network, self.entropy = network, entropy

    @staticmethod
    def _quality(level: int) -> Tensor:
        return torch.tensor([level / LEVELS], dtype=torch.float32, device="cpu")

    def analyse(self, x: Tensor) -> Tensor:
        return self.network.features(x)

    def encode(
        self, features: Tensor, level: int, knot: int, lanes: int | None, fast: torch.autocast
    ) -> tuple[bytes, int, Int16, Int16]:
        network, q = self.network, self._quality(level)
        y = features * network.gain(q)
        with fast:
            z = finite(network.hyper_analyse(y, q)).round_().clamp_(-_INT16, _INT16)
        coded = encode_in_two_steps(self.entropy, y, z, self._predict(q), knot, self.skip, lanes)
        return coded.stream, coded.lanes, coded.decoded.z, coded.decoded.y

    def decode(
        self, stream: bytes, z_shape: tuple[int, int], header: ltn.Header, knot: int
    ) -> tuple[Int16, Int16, Tensor]:
        decoded = self.entropy.decode(stream, z_shape, knot, header.skip, header.lanes)
        return (
            decoded.z,
            decoded.y,
            finish_in_two_steps(decoded, self._predict(self._quality(header.quality))),
        )

    def _predict(self, q: Tensor) -> Predict:
        def predict(z: Tensor) -> tuple[Tensor, Second]:
            means = self.network.means(z)
            return self.network.first_mean(means, q), lambda y: self.network.second_mean(means, y, q)

        return predict

    def synthesise(self, y_hat: Tensor, level: int) -> Tensor:
        return self.network.synthesise(y_hat, self._quality(level))

    def refine(self, x: Tensor, features: Tensor, level: int, steps: int, fast: bool, tune: str) -> Tensor:
        quality = self._quality(level)
        return refine(self.network, x, features, quality, self.skip, steps, fast=fast, tune=tune)


class _Classic:
    """The published architectures: scales and means both come from integers, so that y is the same on both sides."""

    skip = 2

    def __init__(self, network: CompressionModel, entropy: ExactEntropy) -> None:
        self.network, self.entropy = network, entropy
        self.g_a, self.g_s = cast(nn.Module, network.g_a), cast(nn.Module, network.g_s)
        with torch.inference_mode(), torch.device("cpu"):
            y = self.g_a(torch.zeros((1, 3, ltn.GRID, ltn.GRID), dtype=torch.float32))
            z = hyper_analysis(network, y) if entropy.groups else y
        side = ltn.GRID // LATENT
        if y.shape[2:] != (side, side) or y.shape[1] != (entropy.y_channels or entropy.z_channels):
            raise ModelError(
                f"latents {tuple(y.shape)} of {ltn.GRID} pixels: expected one per {LATENT} pixels"
            )
        if z.shape[1:] != (entropy.z_channels, side // entropy.upscale, side // entropy.upscale):
            raise ModelError(f"z {tuple(z.shape)} of {ltn.GRID} pixels does not fit the integer networks")

    def analyse(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.g_a(x))

    def encode(
        self, features: Tensor, level: int, knot: int, lanes: int | None, fast: torch.autocast
    ) -> tuple[bytes, int, Int16, Int16]:
        entropy = self.entropy
        if not entropy.groups:
            z_symbols = entropy.quantise_z(features.numpy(), knot)
            stream, lanes, decoded = entropy.encode(z_symbols, _nothing, knot, self.skip, lanes)
            return stream, lanes, z_symbols, decoded.y
        with fast:
            z = finite(hyper_analysis(self.network, features).float())
        z_symbols = entropy.quantise_z(z.numpy(), knot)
        quantise = entropy.quantiser(features.numpy(), knot, self.skip)
        stream, lanes, decoded = entropy.encode(z_symbols, quantise, knot, self.skip, lanes)
        return stream, lanes, z_symbols, decoded.y

    def decode(
        self, stream: bytes, z_shape: tuple[int, int], header: ltn.Header, knot: int
    ) -> tuple[Int16, Int16, Tensor]:
        decoded = self.entropy.decode(stream, z_shape, knot, header.skip, header.lanes)
        return decoded.z, decoded.y, torch.from_numpy(decoded.latent)

    def synthesise(self, y_hat: Tensor, level: int) -> Tensor:
        return cast(Tensor, self.g_s(y_hat))


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


def _nothing(part: Pass) -> Int16:
    raise ModelError("this model has no y")


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
