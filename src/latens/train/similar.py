"""Finds photographs that show the same as a test image, so that none of them enters training."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from latens.errors import LatensError
from latens.io import atomic_write
from latens.train.data import PhotoPool

__all__ = ["Match", "find_similar"]

Array = npt.NDArray[np.float32]

THRESHOLD = 0.5
"""Correlation of details from which on two pictures count as the same."""

_SUSPECT = 0.4
"""Correlation of tiny pictures from which on two of them are looked at closely."""

_TINY, _CLOSE = 64, 160
_SCALES = tuple(1.1**-i for i in range(8))
_NUDGES = tuple(0.94 + 0.02 * i for i in range(7))
_CHUNK = 24
_ORIENTATIONS = 8


@dataclass(frozen=True)
class Match:
    """A photograph that shows the same as a test image.

    Attributes:
        index: of the photograph in its pool.
        name: its file name.
        reference: file name of the test image.
        score: correlation of their details, :data:`THRESHOLD` to 1; 1 for equal pixels.
    """

    index: int
    name: str
    reference: str
    score: float


def find_similar(pool: PhotoPool, references: PhotoPool, cache: Path | None = None) -> list[Match]:
    """Photographs of ``pool`` that show the same as one of ``references``.

    Equal pixels are found by hash. Everything else by correlation of small luma pictures, freed of slow changes
    of brightness and contrast: the whole photograph is looked for at any place in the reference, in eight sizes
    down to half, in all eight orientations, and the other way round; what looks alike is then looked at closely.
    So resized, re-compressed, brightened, flipped and turned copies are found, and crops down to about half the
    sides; not copies turned by other angles, strongly distorted, or montages.

    Args:
        pool: photographs to look at.
        references: test images.
        cache: folder where the result is kept.

    Returns:
        One match per photograph found, that of the highest score, by index.
    """
    kept = None if cache is None else cache / f"similar-{_key(pool, references)}.json"
    if kept is not None:
        with suppress(OSError, ValueError, TypeError):
            return [Match(**match) for match in json.loads(kept.read_text())]
    found = _search(pool, references)
    if kept is not None:
        with suppress(LatensError, OSError):  # only a convenience
            kept.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(kept, json.dumps([vars(match) for match in found]).encode(), force=True)
    return found


def _key(*pools: PhotoPool) -> str:
    digest = hashlib.sha256(f"{THRESHOLD} {_SUSPECT} {_TINY} {_CLOSE}".encode())
    for pool in pools:
        digest.update(json.dumps(pool.names).encode())
        digest.update(pool.sizes.tobytes())
        digest.update(pool.pixels[:: max(1, pool.pixels.size >> 20)].tobytes())
    return digest.hexdigest()[:16]


def _search(pool: PhotoPool, references: PhotoPool) -> list[Match]:
    equal = {_digest(references[i]): references.names[i] for i in range(len(references))}
    best: dict[int, Match] = {}
    for index in range(len(pool)):
        if (name := equal.get(_digest(pool[index]))) is not None:
            best[index] = Match(index, pool.names[index], name, 1.0)
    # Pictures of one shape after the other, so that what depends on shapes is worked out but once.
    rest = sorted(set(range(len(pool))) - best.keys(), key=lambda i: (*pool.sizes[i], i))
    for start in range(0, len(references), _CHUNK):
        chunk = range(start, min(start + _CHUNK, len(references)))
        tiny = _Tiny([[_picture(references[i], _TINY * scale) for scale in _SCALES] for i in chunk])
        for index in rest:
            suspects = tiny.suspects([_picture(pool[index], _TINY * scale) for scale in _SCALES])
            for number, orientation, scale in suspects:
                score = _close_look(pool[index], references[chunk[number]], orientation, scale)
                if score >= THRESHOLD and (index not in best or score > best[index].score):
                    name = references.names[chunk[number]]
                    best[index] = Match(index, pool.names[index], name, round(score, 3))
    return [best[index] for index in sorted(best)]


def _digest(pixels: npt.NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).digest()


def _turned(picture: Array, orientation: int) -> Array:
    """One of eight orientations: mirrored from the fifth on, then turned by quarters."""
    return np.rot90(picture[:, ::-1] if orientation >= 4 else picture, orientation % 4)


def _picture(pixels: npt.NDArray[np.uint8], longer: float) -> Array:
    """The details of an image's luma: its longer side reduced to so many pixels, without slow changes."""
    luma = Image.fromarray(np.asarray(pixels)).convert("L")
    factor = longer / max(luma.size)
    width, height = (max(round(side * factor), 1) for side in luma.size)
    small = luma.resize((width, height), Image.Resampling.BOX, reducing_gap=3.0)
    luminance = np.asarray(small, np.float32)
    detail = luminance - _blurred(luminance, 4)
    out: Array = detail / np.sqrt(_blurred(detail * detail, 6) + 4.0)
    return out


def _blurred(picture: Array, radius: int) -> Array:
    """Mean over squares of ``2 * radius + 1`` pixels, with mirrored borders."""
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (radius + 1, radius)
        total = np.cumsum(np.pad(picture, pad, mode="symmetric"), axis=axis, dtype=np.float64)
        n = picture.shape[axis]
        upper = np.take(total, np.arange(n) + 2 * radius + 1, axis=axis)
        picture = ((upper - np.take(total, np.arange(n), axis=axis)) / (2 * radius + 1)).astype(np.float32)
    return picture


class _Tiny:
    """Test images in all orientations, tiny, to be searched and to search for.

    Args:
        pictures: of each image, :func:`_picture` in all sizes, the largest first.
    """

    def __init__(self, pictures: list[list[Array]]) -> None:
        turned = [
            [_turned(picture, way) for picture in sizes for way in range(_ORIENTATIONS)]
            for sizes in zip(*pictures, strict=True)
        ]
        self._scenes = _spectra(turned[0], _TINY)
        self._sums = [_Sums(scene) for scene in turned[0]]
        self._templates = [_spectra([_unit(t) for t in row], _TINY).conj() for row in turned]
        self._shapes = [[t.shape for t in row] for row in turned]
        self._lengths: dict[tuple[int, ...], Tensor] = {}

    def suspects(self, pictures: list[Array]) -> list[tuple[int, int, float]]:
        """Test images that may show the same as an image given in all sizes.

        Returns:
            For each its number, orientation, and how large the photograph is in it (in units of longer sides).
        """
        rows = []
        for picture in pictures:
            template = _spectra([_unit(picture)], _TINY).conj()
            rows.append(_correlation(self._scenes * template, self._length(picture.shape)))
        scene, sums = _spectra(pictures[:1], _TINY), _Sums(pictures[0])
        for templates, shapes in zip(self._templates, self._shapes, strict=True):
            lengths = {shape: sums.length(shape, _TINY) for shape in set(shapes)}
            rows.append(_correlation(scene * templates, torch.stack([lengths[shape] for shape in shapes])))
        scores = torch.stack(rows).reshape(len(rows), -1, _ORIENTATIONS)
        found = []
        for number in (scores.amax((0, 2)) >= _SUSPECT).nonzero().flatten().tolist():
            row, orientation = divmod(int(scores[:, number].argmax()), _ORIENTATIONS)
            scale = _SCALES[row] if row < len(_SCALES) else 1 / _SCALES[row - len(_SCALES)]
            found.append((number, orientation, scale))
        return found

    def _length(self, shape: tuple[int, ...]) -> Tensor:
        if shape not in self._lengths:
            if len(self._lengths) >= len(_SCALES):
                self._lengths.clear()
            self._lengths[shape] = torch.stack([sums.length(shape, _TINY) for sums in self._sums])
        return self._lengths[shape]


def _close_look(
    photo: npt.NDArray[np.uint8], reference: npt.NDArray[np.uint8], orientation: int, scale: float
) -> float:
    """Highest correlation of two images in about the given relation, as :meth:`_Tiny.suspects` returns it."""
    best = 0.0
    for nudge in _NUDGES:
        part = min(scale, 1 / scale) * nudge * _CLOSE
        if scale <= 1:
            scene, template = _turned(_picture(reference, _CLOSE), orientation), _picture(photo, part)
        else:
            scene, template = _picture(photo, _CLOSE), _turned(_picture(reference, part), orientation)
        # A nudge beyond the scene's size: what sticks out is as good as cropped.
        template = template[: scene.shape[0], : scene.shape[1]]
        product = _spectra([scene], _CLOSE) * _spectra([_unit(template)], _CLOSE).conj()
        length = _Sums(scene).length(template.shape, _CLOSE)
        best = max(best, float(_correlation(product, length[None])))
    return best


def _unit(picture: Array) -> Array:
    """Mean zero, length one."""
    centred = picture - picture.mean()
    length = float(np.sqrt((centred * centred).sum()))
    unit: Array = (centred / max(length, 1e-6)).astype(np.float32)
    return unit


def _spectra(pictures: list[Array], side: int) -> Tensor:
    """``(n, side, side // 2 + 1)`` of pictures of up to ``side`` in square."""
    canvas = torch.zeros(len(pictures), side, side)
    for place, picture in zip(canvas, pictures, strict=True):
        place[: picture.shape[0], : picture.shape[1]] = torch.from_numpy(np.ascontiguousarray(picture))
    spectra: Tensor = torch.fft.rfft2(canvas)
    return spectra


def _correlation(product: Tensor, length: Tensor) -> Tensor:
    """Highest correlation at any place, each, from the product of spectra."""
    side = product.shape[1]
    matches: Tensor = torch.fft.irfft2(product, (side, side)) / length
    return matches.flatten(1).amax(1)


class _Sums:
    """Sums over any rectangle of a picture."""

    def __init__(self, picture: Array) -> None:
        padded = np.pad(picture.astype(np.float64), ((1, 0), (1, 0)))
        self._tables = padded.cumsum(0).cumsum(1), (padded * padded).cumsum(0).cumsum(1)

    def length(self, shape: tuple[int, ...], side: int) -> Tensor:
        """Length of what is below a template of this shape at each place, its mean taken away: ``(side, side)``,
        infinite where the template does not fit in."""
        (h, w), out = shape, np.full((side, side), np.inf, np.float32)
        height, width = (n - 1 for n in self._tables[0].shape)
        if h <= height and w <= width:
            total, squares = (s[h:, w:] - s[:-h, w:] - s[h:, :-w] + s[:-h, :-w] for s in self._tables)
            inside = np.maximum(squares - total * total / (h * w), 1e-3)
            out[: inside.shape[0], : inside.shape[1]] = np.sqrt(inside)
        return torch.from_numpy(out)
