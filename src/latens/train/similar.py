"""Finds photographs that show the same as a test image, so that none of them enters training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
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

THRESHOLD = 0.6
"""Correlation from which on two pictures count as the same; unrelated photographs stay below 0.45."""

_SHORT = 48
_LONGEST = 96
_SCALES = tuple(1.1**-i for i in range(8))
_CHUNK = 24
_VERSION = 1


@dataclass(frozen=True)
class Match:
    """A photograph that shows the same as a test image.

    Attributes:
        index: of the photograph in its pool.
        name: its file name.
        reference: file name of the test image.
        score: correlation, :data:`THRESHOLD` to 1; 1 for equal pixels.
    """

    index: int
    name: str
    reference: str
    score: float


def find_similar(pool: PhotoPool, references: PhotoPool, cache: Path | None = None) -> list[Match]:
    """Photographs of ``pool`` that show the same as one of ``references``, best matches only.

    Equal pixels are found by hash. Everything else by correlation of small luma pictures, freed of slow changes
    of brightness and contrast: the whole photograph is looked for at any place in the reference, in eight sizes
    down to half, in all eight orientations, and the other way round. So resized, re-compressed, flipped and
    turned copies are found, and crops down to about half the sides; not copies turned by other angles, strongly
    distorted, or montages.

    Args:
        pool: photographs to look at.
        references: test images.
        cache: folder where the result is kept.

    Returns:
        One match per photograph found, by index.
    """
    kept = None if cache is None else cache / f"similar-{_key(pool, references)}.json"
    if kept is not None:
        with suppress(OSError, ValueError, TypeError):
            return [Match(**match) for match in json.loads(kept.read_text())]
    found = list(_matches(pool, references))
    if kept is not None:
        with suppress(LatensError, OSError):  # only a convenience
            kept.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(kept, json.dumps([vars(match) for match in found]).encode(), force=True)
    return found


def _key(*pools: PhotoPool) -> str:
    digest = hashlib.sha256(f"{_VERSION} {THRESHOLD}".encode())
    for pool in pools:
        digest.update(json.dumps(pool.names).encode())
        digest.update(pool.sizes.tobytes())
        digest.update(pool.pixels[:: max(1, pool.pixels.size >> 20)].tobytes())
    return digest.hexdigest()[:16]


def _matches(pool: PhotoPool, references: PhotoPool) -> Iterator[Match]:
    exact = {_digest(references[i]): references.names[i] for i in range(len(references))}
    best: dict[int, Match] = {}
    rest = []
    for index in range(len(pool)):
        name = exact.get(_digest(pool[index]))
        if name is None:
            rest.append((index, _pictures(pool[index])))
        else:
            best[index] = Match(index, pool.names[index], name, 1.0)
    # Pictures of one shape after the other, so that what depends on shapes is worked out but once.
    rest.sort(key=lambda entry: (entry[1][0].shape, entry[0]))
    for start in range(0, len(references), _CHUNK):
        names = references.names[start : start + _CHUNK]
        searched = _References([_pictures(references[start + i]) for i in range(len(names))])
        for index, pictures in rest:
            scores = searched.scores(pictures)
            name, score = names[int(scores.argmax())], round(float(scores.max()), 3)
            if score >= max(THRESHOLD, best[index].score if index in best else 0.0):
                best[index] = Match(index, pool.names[index], name, score)
    return iter(sorted(best.values(), key=lambda match: match.index))


def _digest(pixels: npt.NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).digest()


def _orientations(picture: Array) -> list[Array]:
    return [np.rot90(mirrored, turns) for mirrored in (picture, picture[:, ::-1]) for turns in range(4)]


def _pictures(pixels: npt.NDArray[np.uint8]) -> list[Array]:
    """The luma of an image in all sizes, the largest first: short side 48, without slow changes."""
    luma = Image.fromarray(np.asarray(pixels)).convert("L")
    width, height = luma.size
    full = min(_SHORT / min(width, height), _LONGEST / max(width, height))
    found = []
    for scale in _SCALES:
        size = (max(round(width * full * scale), 1), max(round(height * full * scale), 1))
        small = luma.resize(size, Image.Resampling.BOX, reducing_gap=3.0)
        found.append(_equalised(np.asarray(small, np.float32)))
    return found


def _equalised(small: Array) -> Array:
    """Local mean taken away, local deviation made one."""
    detail: Array = small - _blurred(small, 4)
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


class _References:
    """Test images, to be searched and to search for, in all orientations.

    Args:
        pictures: of each image, what :func:`_pictures` gives.
    """

    def __init__(self, pictures: list[list[Array]]) -> None:
        turned = [[_orientations(picture) for picture in sizes] for sizes in pictures]
        scenes = [scene for sizes in turned for scene in sizes[0]]
        self._count = len(pictures)
        self._scenes = _spectra(scenes)
        self._sums = [_Sums(scene) for scene in scenes]
        self._templates = [
            (
                [t.shape for sizes in turned for t in sizes[i]],
                _spectra([_unit(t) for sizes in turned for t in sizes[i]]).conj(),
            )
            for i in range(len(_SCALES))
        ]
        self._norms: dict[tuple[int, ...], Tensor] = {}

    def scores(self, pictures: list[Array]) -> Tensor:
        """Highest correlation of an image with each test image, ``(n,)``, the image given in all sizes."""
        best = torch.zeros(len(self._sums))
        for picture in pictures:
            found = _correlation(self._scenes * _spectra([_unit(picture)]).conj(), self._norm(picture.shape))
            best = torch.maximum(best, found)
        scene, sums = _spectra([pictures[0]]), _Sums(pictures[0])
        for shapes, templates in self._templates:
            norms = {shape: sums.norm(shape) for shape in set(shapes)}
            best = torch.maximum(
                best, _correlation(scene * templates, torch.stack([norms[s] for s in shapes]))
            )
        return best.reshape(self._count, -1).amax(1)

    def _norm(self, shape: tuple[int, ...]) -> Tensor:
        if shape not in self._norms:
            if len(self._norms) >= len(_SCALES):
                self._norms.clear()
            self._norms[shape] = torch.stack([sums.norm(shape) for sums in self._sums])
        return self._norms[shape]


def _unit(picture: Array) -> Array:
    """Mean zero, length one."""
    centred = picture - picture.mean()
    length = float(np.sqrt((centred * centred).sum()))
    unit: Array = (centred / max(length, 1e-6)).astype(np.float32)
    return unit


def _spectra(pictures: list[Array]) -> Tensor:
    """``(n, 96, 49)`` of pictures of up to 96x96."""
    canvas = torch.zeros(len(pictures), _LONGEST, _LONGEST)
    for place, picture in zip(canvas, pictures, strict=True):
        place[: picture.shape[0], : picture.shape[1]] = torch.from_numpy(np.ascontiguousarray(picture))
    spectra: Tensor = torch.fft.rfft2(canvas)
    return spectra


def _correlation(product: Tensor, norm: Tensor) -> Tensor:
    """Highest correlation at any place, each, from the product of spectra."""
    matches: Tensor = torch.fft.irfft2(product, (_LONGEST, _LONGEST)) / norm
    return matches.flatten(1).amax(1)


class _Sums:
    """Sums over any rectangle of a picture."""

    def __init__(self, picture: Array) -> None:
        padded = np.pad(picture.astype(np.float64), ((1, 0), (1, 0)))
        self._tables = padded.cumsum(0).cumsum(1), (padded * padded).cumsum(0).cumsum(1)

    def norm(self, shape: tuple[int, ...]) -> Tensor:
        """Length of what is below a template of this shape at each place, its mean taken away; ``(96, 96)``,
        infinite where the template does not fit in."""
        (h, w), out = shape, np.full((_LONGEST, _LONGEST), np.inf, np.float32)
        height, width = (n - 1 for n in self._tables[0].shape)
        if h <= height and w <= width:
            total, squares = (s[h:, w:] - s[:-h, w:] - s[h:, :-w] + s[:-h, :-w] for s in self._tables)
            inside = np.maximum(squares - total * total / (h * w), 1e-3)
            out[: inside.shape[0], : inside.shape[1]] = np.sqrt(inside)
        return torch.from_numpy(out)
