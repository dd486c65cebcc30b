"""Recordings of screens: which squares of a video's frames are drawn, and the pictures that they make."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from latens import format as ltn
from latens.codec.drawn import Look, fill, look
from latens.entropy_coding.lossless import (
    BLOCK,
    MAX_TILE,
    Blocks,
    counts,
    decode_part,
    encode_tiles,
    spread,
    touched,
)
from latens.errors import FormatError, VersionError
from latens.runtime.coding import CodedPicture, Samples, VideoFileModel

__all__ = ["Squares", "encode", "fits", "lay", "read"]

Array = npt.NDArray[Any]

# Of the pixels of a square that was drawn before: if so many are as predicted, it still is.
_SAME = 0.5
# Drawn squares may take so many times what the model would need for them, which is less sharp: in a key frame, where
# one must doubt that there is anything drawn, and in others, where what moves by parts of pixels costs most.
_WORTH, _WORTH_LATER = 1.5, 4.0
_ALWAYS_WORTH = 2048  # bytes
_COVERED = 0.3  # of a square


class Squares(NamedTuple):
    """What is drawn of a frame, for squares of 64x64 pixels of its coded area.

    Attributes:
        kept: those that stay as the motion predicts.
        part: those with pixels of their own.
        samples: ``(H, W, 3)``, or of a frame that needs others ``(H, W, 4)``, where 0 in the last channel is a pixel as
            predicted; uint8 or uint16.
    """

    kept: Blocks
    part: Blocks
    samples: Array

    @property
    def drawn(self) -> Blocks:
        """All of them."""
        return self.kept | self.part


def fits(height: int, width: int) -> bool:
    """Whether a coded area can have drawn squares."""
    return max(height, width) <= MAX_TILE and not (height % BLOCK or width % BLOCK)


def encode(
    model: VideoFileModel,
    before: Blocks | None,
    picture: Samples,
    references: list[Samples],
    level: int,
    depth: int,
    visible: tuple[int, int],
) -> tuple[CodedPicture, ltn.Drawn | None, Blocks | None]:
    """Codes a frame, with what is drawn of it without loss; see :meth:`VideoFileModel.encode`.

    Args:
        model: a structured one.
        before: the squares of the first reference that are drawn; None of a frame that has none, or whose group has
            no drawn squares.
        picture, references, level, depth, visible: as there.

    Returns:
        The frame and its picture; what goes into the file beside its streams; the squares of it that are drawn.
    """
    given = level, depth, visible
    if (references and before is None) or not fits(*picture.shape[:2]):
        return model.encode(picture, references, *given), None, None
    samples = _samples(picture, depth)
    seen = _look(samples[: visible[0], : visible[1]])
    if before is None:
        return _encode_key(model, picture, samples, seen, given)
    candidates = seen.sure | (seen.doubt & before)
    squares, tile = Squares(np.zeros_like(before), np.zeros_like(before), samples), b""

    def keep(moved: Samples) -> Blocks:
        nonlocal squares, tile
        squares = _changes(samples, _samples(moved, depth), candidates, before)
        if squares.part.any():
            (tile,) = encode_tiles(squares.samples, MAX_TILE, part=squares.part)
        return squares.drawn

    found = model.encode(picture, references, *given, keep)
    if len(tile) > _ALWAYS_WORTH:
        plain = model.encode(picture, references, *given)
        if len(tile) > _WORTH_LATER * max(_size(plain) - _size(found), 0):
            return plain, None, np.zeros_like(before)
    # Without a stream of its own the model leaves everything as predicted.
    told = squares.part.any() or (squares.kept.any() and found.streams[0].data)
    drawn = ltn.Drawn(_runs(squares.kept), tile) if told else None
    return found._replace(picture=lay(found.picture, squares)), drawn, squares.drawn


def _look(samples: Samples) -> Look:
    """What squares look like that are drawn whole, or not: without those in which much of a photograph is."""
    seen = look(samples)
    free = counts(seen.photo) <= _COVERED * BLOCK**2
    return seen._replace(sure=seen.sure & free, doubt=seen.doubt & free)


def _encode_key(
    model: VideoFileModel,
    picture: Samples,
    samples: Array,
    seen: Look,
    given: tuple[int, int, tuple[int, int]],
) -> tuple[CodedPicture, ltn.Drawn | None, Blocks | None]:
    part = seen.sure if seen.page else seen.doubt
    if not part.any():
        return model.encode(picture, [], *given), None, None
    (tile,) = encode_tiles(samples, MAX_TILE, part=part)
    found = model.encode(fill(picture, spread(part, *picture.shape[:2])), [], *given)
    if not seen.page:
        plain = model.encode(picture, [], *given)
        if len(tile) > _WORTH * (_size(plain) - _size(found)):
            return plain, None, None
    squares = Squares(np.zeros_like(part), part, samples)
    return found._replace(picture=lay(found.picture, squares)), ltn.Drawn((), tile), part


def _changes(samples: Array, moved: Array, candidates: Blocks, before: Blocks) -> Squares:
    """What of a frame is drawn, and which pixels of that are not as predicted."""
    same = (samples == moved).all(2)
    height, width = same.shape
    share = same.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK).mean((1, 3))
    drawn = candidates | (before & (share >= _SAME))
    kept, part = drawn & (share == 1), drawn & (share < 1)
    own = ~same & spread(part, height, width)
    top = np.iinfo(samples.dtype).max
    pixels = np.concatenate([samples, np.full_like(samples[..., :1], top)], 2) * own[..., None]
    return Squares(kept, part, pixels)


def _size(found: CodedPicture) -> int:
    return sum(len(stream.data) for stream in found.streams)


def _runs(kept: Blocks) -> tuple[int, ...]:
    """See :class:`latens.format.Drawn`."""
    flat = kept.ravel()
    ends = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist()]
    if flat[-1]:
        ends.append(len(flat))
    lengths = [b - a for a, b in pairwise(ends)]
    return tuple([0, *lengths] if flat[0] else lengths)


def read(drawn: ltn.Drawn, key: bool, shape: tuple[int, int], depth: int) -> Squares:
    """The drawn squares of a frame of padded ``shape``.

    Raises:
        CoderError, FormatError: they are damaged.
        VersionError: they are coded in a way that is newer than this release.
    """
    if not fits(*shape):
        raise FormatError(f"drawn squares in a frame of {shape[1]} x {shape[0]} pixels")
    grid = shape[0] // BLOCK, shape[1] // BLOCK
    kept = np.zeros(grid[0] * grid[1], np.bool_)
    ends = list(accumulate(drawn.runs, initial=0))
    if ends[-1] > len(kept) or (key and drawn.runs):
        raise FormatError("runs of squares that do not fit the frame")
    for number, (start, end) in enumerate(pairwise(ends)):
        kept[start:end] = number % 2 == 1
    dtype = np.uint8 if depth == 8 else np.uint16
    size = *shape, 3 if key else 4
    if drawn.tile and drawn.tile[0] > 2:  # squares are whole: no masks
        raise VersionError("drawn squares of a kind that is newer than this release of Latens; update it")
    samples, part = np.zeros(size, dtype), np.zeros(grid, np.bool_)
    if drawn.tile:
        samples, mask = decode_part(drawn.tile, size, dtype)
        part = touched(mask)
    return Squares(kept.reshape(grid), part, samples)


def lay(picture: Samples, squares: Squares) -> Samples:
    """A picture with the drawn squares laid over it."""
    samples = squares.samples
    inside = spread(squares.part, *picture.shape[:2])
    if samples.shape[2] == 4:
        inside &= samples[..., 3] > 0
    steps = np.uint16(257 if samples.dtype == np.uint8 else 1)
    return np.where(inside[..., None], samples[..., :3] * steps, picture)


def _samples(picture: Samples, depth: int) -> Array:
    """A picture in the samples that drawn squares have."""
    if depth > 8:
        return picture
    return ((picture.astype(np.uint32) * 255 + 32_767) // 65_535).astype(np.uint8)
