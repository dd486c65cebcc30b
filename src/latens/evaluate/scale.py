"""Fitting what a quality of 0 to 100 means to photographs that a model was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latens.codec import ImageCodec
from latens.errors import DatasetError, LatensError
from latens.evaluate.quality import Pixels, find_images, read_rgb
from latens.io import Image, printable
from latens.metrics import ssimulacra2
from latens.runtime.scale import QualityScale

__all__ = ["FittedScale", "fit_scale"]

LEVELS = tuple(i / 12 for i in range(13))
_LEAST_SIDE = 256


@dataclass(frozen=True)
class FittedScale:
    """Attributes:
    scale: what was fitted.
    levels: that were measured.
    scores: mean SSIMULACRA2 at these.
    bpp: mean bits per pixel at these.
    """

    scale: QualityScale
    levels: tuple[float, ...]
    scores: tuple[float, ...]
    bpp: tuple[float, ...]


def fit_scale(
    codec: ImageCodec,
    folder: Path,
    *,
    side: int = 768,
    levels: Sequence[float] = LEVELS,
    progress: Callable[[int, int, str], None] = lambda done, total, text: None,
) -> FittedScale:
    """The quality scale of a model of continuous quality, from real files.

    Args:
        codec: of a model without a scale of its own: quality 100 is level 1.
        folder: of photographs, which training must not have seen.
        side: of the middle parts of them that are coded, at most, in pixels.
        levels: to measure at, from 0 to 1.
        progress: called with files done, files to do, and the photograph.

    Raises:
        DatasetError: no photographs of 256 pixels or more on each side.
        ModelError: scores that no scale fits.
    """
    pictures: list[tuple[str, Pixels]] = []
    for path in find_images(folder):
        try:
            pixels = _middle(read_rgb(path), side)
        except LatensError:
            continue
        if min(pixels.shape[:2]) >= _LEAST_SIDE:
            pictures.append((path.name, pixels))
    if not pictures:
        raise DatasetError(
            f"{printable(folder)}: no photographs of {_LEAST_SIDE} pixels or more on each side"
        )
    scores, bpp = np.zeros(len(levels)), np.zeros(len(levels))
    for number, (name, pixels) in enumerate(pictures):
        for place, level in enumerate(levels):
            progress(number * len(levels) + place, len(pictures) * len(levels), name)
            data = codec.encode(Image(pixels), 100.0 * level)
            scores[place] += ssimulacra2(pixels, codec.decode(data)[0].pixels) / len(pictures)
            bpp[place] += 8 * len(data) / (pixels.shape[0] * pixels.shape[1]) / len(pictures)
    found = tuple(map(float, scores))
    return FittedScale(QualityScale.fitted(levels, found), tuple(levels), found, tuple(map(float, bpp)))


def _middle(pixels: Pixels, side: int) -> Pixels:
    top, left = (max(0, (size - side) // 2) for size in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])
