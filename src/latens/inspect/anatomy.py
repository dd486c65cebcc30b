"""What an inspection finds: plain arrays, and what follows from them."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from latens.entropy_coding.lossless import touched
from latens.errors import ShapeError

__all__ = [
    "REACH",
    "Anatomy",
    "Baselines",
    "Latent",
    "Part",
    "RatePoint",
    "gaussian_pmf",
    "psnr",
    "spatial_correlation",
]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Uint8 = npt.NDArray[np.uint8]

REACH = 12
"""Histograms cover the symbols from minus this to plus this."""


@dataclass(frozen=True, eq=False)
class Latent:
    """One latent of a picture: what the model saw, expected and paid. All arrays are ``(C, h, w)`` but the last.

    Attributes:
        values: before rounding, in quantisation steps.
        symbols: the integers that are coded, relative to the mean (or to the median, for a learned density).
        bits: ``-log2`` of the probability that the model gives to each symbol; 0 where nothing is coded.
        expected: ``(C, 2 * REACH + 1)``, for each channel the probability of the symbols ``-REACH ... REACH``
            according to the model, averaged over all positions.
        mean: predicted mean in quantisation steps; None if the model predicts none.
        scale: predicted standard deviation in quantisation steps; None if the model predicts none.
    """

    values: Float32
    symbols: Int32
    bits: Float32
    expected: Float64
    mean: Float32 | None = None
    scale: Float32 | None = None

    def channel_bits(self) -> Float64:
        """Bits of each channel, ``(C,)``."""
        total: Float64 = self.bits.sum(axis=(1, 2), dtype=np.float64)
        return total

    def strongest(self, count: int) -> list[int]:
        """The channels that cost most, dearest first."""
        return [int(c) for c in np.argsort(-self.channel_bits(), kind="stable")[:count]]

    def observed(self) -> Float64:
        """Share of the symbols ``-REACH ... REACH`` in each channel, ``(C, 2 * REACH + 1)``."""
        counts = [(self.symbols == k).mean(axis=(1, 2)) for k in range(-REACH, REACH + 1)]
        return np.stack(counts, axis=1)

    def normalised(self) -> Float32:
        """``(values - mean) / scale``: what the model could not predict, of variance 1 if it is right.

        Raises:
            ShapeError: the model predicts no scale.
        """
        if self.scale is None:
            raise ShapeError("this latent has no predicted scale to be normalised with")
        residual = self.values if self.mean is None else self.values - self.mean
        normalised: Float32 = residual / self.scale
        return normalised


@dataclass(frozen=True)
class Part:
    """One part of what is stored.

    Attributes:
        name: ``"container"``, ``"coder states"``, ``"z"``, ``"y"`` or ``"drawn blocks"``.
        ideal_bits: by the probabilities of the model; 0 for what has none.
        bytes: real ones. Where several parts share a stream, a part counts what it makes the stream longer.
    """

    name: str
    ideal_bits: float
    bytes: int


@dataclass(frozen=True)
class Baselines:
    """Bytes of the same symbols, stored without a model.

    Attributes:
        int16: as 16-bit integers.
        zlib: the same through zlib, level 9.
    """

    int16: int
    zlib: int


@dataclass(frozen=True)
class RatePoint:
    """A picture at one quality: real bytes by part, and the PSNR of the 8-bit result over all samples, in dB."""

    quality: float
    parts: tuple[Part, ...]
    pixels: int
    psnr: float

    @property
    def bpp(self) -> float:
        """Bits per pixel, everything included."""
        return 8.0 * sum(part.bytes for part in self.parts) / self.pixels

    def part_bpp(self, name: str) -> float:
        """Bits per pixel of one part; 0 if there is no such part."""
        return 8.0 * sum(part.bytes for part in self.parts if part.name == name) / self.pixels


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A coded picture, taken apart.

    Attributes:
        model: its name.
        quality: on the model's own scale.
        step: pixels per position of y, along each side.
        original: ``(H, W, 3)``.
        reconstruction: ``(H, W, 3)``, decoded from the real bytes.
        y: the latent.
        z: the side information, if the model has any.
        parts: what is stored.
        drawn: which pixels are drawn, None if that was not looked for. The latent is that
            of what the model sees in their place.
        lossless: bytes of the lossless file that is made of the picture without being asked, because it is not larger;
            0 if there is none. All else tells what the model makes of it.
    """

    model: str
    quality: float
    step: int
    original: Uint8
    reconstruction: Uint8
    y: Latent
    z: Latent | None
    parts: tuple[Part, ...]
    drawn: npt.NDArray[np.bool_] | None = None
    lossless: int = 0

    @property
    def size(self) -> int:
        """Real bytes, everything included."""
        return sum(part.bytes for part in self.parts)

    @property
    def bpp(self) -> float:
        """Real bits per pixel of the picture."""
        pixels = self.original.size // 3
        return 8.0 * self.size / pixels

    @property
    def psnr(self) -> float:
        """dB, over all samples of the 8-bit pixels."""
        return psnr(self.original, self.reconstruction)

    def bit_map(self) -> Float64:
        """Theoretical bits at each position of y; those of z are spread evenly over the positions they cover.

        Its sum is that of the bits of y and z.
        """
        total: Float64 = self.y.bits.sum(axis=0, dtype=np.float64)
        if self.z is not None:
            z = self.z.bits.sum(axis=0, dtype=np.float64)
            rows, columns = total.shape[0] // z.shape[0], total.shape[1] // z.shape[1]
            total += np.kron(z, np.ones((rows, columns))) / (rows * columns)
        return total

    def difference(self, gain: float = 8.0) -> Uint8:
        """Original minus reconstruction, ``gain`` times, around middle grey: ``(H, W, 3)``."""
        error = self.original.astype(np.float32) - self.reconstruction
        amplified: Uint8 = np.clip(np.rint(128.0 + gain * error), 0, 255).astype(np.uint8)
        return amplified

    def baselines(self) -> Baselines:
        """What the symbols take without a model."""
        latents = [self.y] if self.z is None else [self.z, self.y]
        limit = np.iinfo(np.int16)
        raw = b"".join(np.clip(a.symbols, limit.min, limit.max).astype("<i2").tobytes() for a in latents)
        return Baselines(len(raw), len(zlib.compress(raw, 9)))

    def drawn_blocks(self) -> tuple[int, int]:
        """In how many blocks of 64x64 pixels something is drawn, and how many there are."""
        blocks = touched(np.zeros(self.original.shape[:2], bool) if self.drawn is None else self.drawn)
        return int(blocks.sum()), blocks.size

    def summary(self) -> dict[str, Any]:
        """The figures, ready for JSON."""
        channels = self.y.channel_bits()
        return {
            "model": self.model,
            "quality": self.quality,
            "width": self.original.shape[1],
            "height": self.original.shape[0],
            "bytes": self.size,
            "bpp": self.bpp,
            "psnr": self.psnr,
            "parts": {p.name: {"ideal_bytes": p.ideal_bits / 8, "bytes": p.bytes} for p in self.parts},
            "baselines": {"int16": self.baselines().int16, "zlib": self.baselines().zlib},
            "drawn": None
            if self.drawn is None
            else dict(zip(("blocks", "of"), self.drawn_blocks(), strict=True)),
            "lossless_bytes": self.lossless,
            "channels": [{"channel": c, "bits": float(channels[c])} for c in self.y.strongest(len(channels))],
        }


def psnr(a: Uint8, b: Uint8) -> float:
    """dB over all samples of 8 bits."""
    mse = float(np.mean(np.square(a.astype(np.float64) - b)))
    return 10.0 * math.log10(255.0**2 / max(mse, 1e-10))


def spatial_correlation(values: npt.NDArray[Any], reach: int = 4) -> Float64:
    """How far neighbours resemble each other: the correlation of a latent with itself, moved.

    For every offset, the product of all pairs of positions that far apart, over the variance; each channel counts
    the same. A good prediction leaves 1 in the middle and 0 around it (Minnen et al., 2018).

    Args:
        values: ``(C, h, w)``; channels without variance are left out.
        reach: largest offset.

    Returns:
        ``(2 * reach + 1, 2 * reach + 1)``, rows are vertical offsets; NaN where no channel has two positions
        that far apart.

    Raises:
        ShapeError: not three dimensions.
    """
    if values.ndim != 3:
        raise ShapeError(f"expected a latent (C, h, w), got shape {values.shape}")
    centred = values.astype(np.float64)
    centred -= centred.mean(axis=(1, 2), keepdims=True)
    variance = np.square(centred).mean(axis=(1, 2))
    alive = variance > 1e-12
    centred, variance = centred[alive], variance[alive]
    height, width = values.shape[1:]
    result = np.full((2 * reach + 1, 2 * reach + 1), np.nan)
    for dy in range(reach + 1):
        for dx in range(-reach, reach + 1):
            if dy >= height or abs(dx) >= width or not alive.any():
                continue
            a = centred[:, dy:, max(dx, 0) : width + min(dx, 0)]
            b = centred[:, : height - dy, max(-dx, 0) : width + min(-dx, 0)]
            value = float(np.mean((a * b).mean(axis=(1, 2)) / variance))
            result[reach + dy, reach + dx] = result[reach - dy, reach - dx] = value
    return result


def gaussian_pmf(scale: npt.NDArray[Any]) -> Float64:
    """Probability of the integers ``-REACH ... REACH`` under zero-mean Gaussians, averaged over positions.

    Args:
        scale: standard deviations, ``(C, h, w)``, positive.

    Returns:
        ``(C, 2 * REACH + 1)``.
    """
    s = torch.from_numpy(np.ascontiguousarray(scale)).double() * math.sqrt(2.0)
    rows = []
    for k in range(-REACH, REACH + 1):
        # The density is symmetric; the far side keeps the precision of small tails.
        mass = 0.5 * (torch.erfc((abs(k) - 0.5) / s) - torch.erfc((abs(k) + 0.5) / s))
        rows.append(mass.mean(dim=(1, 2)))
    result: Float64 = torch.stack(rows, dim=1).numpy()
    return result
