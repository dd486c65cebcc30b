"""Pictures without loss, or with a bounded one: the Python face of docs/lossless.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from latens import _native
from latens.errors import CoderError, ShapeError

MAX_NEAR = 255
MAX_SLACK = 64
MAX_TILE = 4096
BLOCK = 64
"""Side of the blocks that a part of a tile consists of."""
CONTENTS = ("auto", "photo", "drawn")
Content = Literal["auto", "photo", "drawn"]

Samples = npt.NDArray[Any]  # uint8 or uint16
Blocks = npt.NDArray[np.bool_]
"""Of each block of 64x64 pixels, ``(ceil(height / 64), ceil(width / 64))``."""
Mask = npt.NDArray[np.bool_]
"""Of each pixel, ``(height, width)``."""


def encode_tiles(
    samples: Samples,
    tile: int,
    *,
    near: int = 0,
    slack: int = 0,
    effort: int = 1,
    content: Content = "auto",
    part: Blocks | None = None,
    mask: Mask | None = None,
) -> list[bytes]:
    """The streams of a picture's tiles, row by row.

    Args:
        samples: (height, width, 1 to 4) of uint8 or uint16; with 2 or 4 channels the last is alpha.
        tile: width and height of tiles in pixels, up to 4096.
        near: the largest error of a sample, 0 to 255; alpha has none.
        slack: of the contrast around a drawn pixel, in 1/256, by how much it may be off besides if it does not
            have the colour of a neighbour; 0 to 64.
        effort: 1, or 2 for smaller streams that take longer to make and, of photographs, to decode.
        content: "photo" and "drawn" leave out the search for the way in which each block is coded.
        part: which blocks are coded, others being anything; tiles are then a multiple of 64 pixels wide, and a tile
            without any block has an empty stream. All if None.
        mask: in place of it, which pixels are coded, in any tiles.

    Raises:
        CoderError: ``near`` or ``slack`` out of range, or no memory.
        ShapeError: other samples or tiles.
    """
    if samples.ndim != 3 or samples.dtype not in (np.uint8, np.uint16):
        raise ShapeError(f"expected uint8 or uint16 of 3 dimensions, got {samples.dtype} of {samples.shape}")
    if not 0 <= near <= MAX_NEAR:
        raise CoderError(f"the largest error must be 0 to {MAX_NEAR}, got {near}")
    if not 0 <= slack <= MAX_SLACK:
        raise CoderError(f"the slack must be 0 to {MAX_SLACK}, got {slack}")
    samples = np.ascontiguousarray(samples)
    if mask is not None:
        if mask.shape != samples.shape[:2]:
            raise ShapeError(f"expected a mask of {samples.shape[:2]}, got {mask.shape}")
        samples = np.where(mask[..., None], samples, samples.dtype.type(0))
    elif part is not None:
        samples = only(samples, part)
    blocks = None if part is None else np.ascontiguousarray(part, np.uint8)
    pixels = None if mask is None else np.ascontiguousarray(mask, np.uint8)
    options = (min(max(effort, 1), 2), CONTENTS.index(content), blocks, pixels)
    streams = _native.lossless_encode(samples, tile, near, slack, *options)
    if near == slack == 0:
        return streams
    # Errors make new colours of a drawing's few: a tile may be smaller without any.
    exact = _native.lossless_encode(samples, tile, 0, 0, *options)
    return [min(pair, key=len) for pair in zip(streams, exact, strict=True)]


def decode_tiles(
    streams: Sequence[bytes | None], shape: tuple[int, int, int], dtype: npt.DTypeLike, tile: int
) -> tuple[Samples, list[str | None]]:
    """A picture from the streams of its tiles, and for each tile what is wrong with it.

    Tiles without a stream, and damaged ones, are black.

    Raises:
        ShapeError: the number of streams is not that of the tiles, or there are no such tiles.
    """
    out = np.zeros(shape, dtype)
    problems = _native.lossless_decode(streams, tile, out, None)
    columns = -(-shape[1] // tile)
    for index, problem in enumerate(problems):
        if problem is not None:
            row, column = divmod(index, columns)
            out[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile] = 0
    return out, problems


def decode_part(stream: bytes, shape: tuple[int, int, int], dtype: npt.DTypeLike) -> tuple[Samples, Mask]:
    """One tile of which parts may be left out: its samples, 0 where there are none, and the pixels that it has.

    Raises:
        CoderError: it is damaged.
        ShapeError: there is no such tile.
    """
    out = np.zeros(shape, dtype)
    mask = np.zeros(shape[:2], np.uint8)
    (problem,) = _native.lossless_decode([stream], MAX_TILE, out, mask)
    if problem is not None:
        raise CoderError(problem)
    return out, mask.view(np.bool_)


def measure(samples: Samples, tile: int, part: Blocks, *, slack: int = 0) -> npt.NDArray[np.float32]:
    """Bits that each block would take, about; 0 for blocks that are no part.

    Args:
        samples, tile, part, slack: as for :func:`encode_tiles`.
    """
    out = np.zeros(part.shape, np.float32)
    _native.lossless_measure(only(samples, part), tile, slack, np.ascontiguousarray(part, np.uint8), out)
    return out


def block_grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of blocks."""
    return -(-height // BLOCK), -(-width // BLOCK)


def spread(blocks: Blocks, height: int, width: int, side: int = BLOCK) -> Blocks:
    """The same for each pixel, ``(height, width)``."""
    return blocks.repeat(side, 0)[:height].repeat(side, 1)[:, :width]


def counts(mask: Mask) -> npt.NDArray[np.int32]:
    """How many pixels of each block there are."""
    rows, columns = (np.arange(0, size, BLOCK) for size in mask.shape)
    found: npt.NDArray[np.int32] = np.add.reduceat(np.add.reduceat(mask, rows, 0, np.int32), columns, 1)
    return found


def touched(mask: Mask) -> Blocks:
    """The blocks in which there is something."""
    return counts(mask) > 0


def only(samples: Samples, part: Blocks) -> Samples:
    """A copy of the samples that are in these blocks, 0 in the others. Raises ShapeError for another number of them."""
    if part.shape != block_grid(*samples.shape[:2]):
        raise ShapeError(f"expected {block_grid(*samples.shape[:2])} blocks, got {part.shape}")
    return np.where(spread(part, *samples.shape[:2])[..., None], samples, samples.dtype.type(0))
