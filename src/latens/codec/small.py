"""Small copies: means of squares of pixels, and when a file carries one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from latens.codec.threads import together
from latens.io import Strips

__all__ = ["DIVISOR", "Watched", "eighth", "shrunk", "wants_preview"]

Samples = npt.NDArray[Any]  # uint8 or uint16

DIVISOR = 8
"""The sides of the small copy in a file are those of its picture, divided by this."""
# Of pictures with so many pixels: the smallest decode quickly, and what is kept of the largest would take much memory.
_LEAST, _MOST = 1 << 23, 1 << 30
_ROWS = 8 * DIVISOR  # at a time


def wants_preview(wish: bool | None, size: int) -> bool:
    """Whether the file of a picture of so many pixels carries a small copy; by its size if nothing is wished."""
    return _LEAST <= size <= _MOST if wish is None else wish


class Watched:
    """Strips of which a small copy is kept while they go by.

    Attributes:
        shape, dtype: as of the strips.
    """

    def __init__(self, strips: Strips) -> None:
        self.shape, self.dtype = strips.shape, strips.dtype
        self._strips, self._left = strips, strips[:0]
        self._small: list[Samples] = []

    def __getitem__(self, rows: slice) -> Samples:
        """The next rows."""
        found = self._strips[rows]
        both = np.concatenate([self._left, found]) if len(self._left) else found
        whole = len(both) - len(both) % DIVISOR
        self._small += shrunk(iter([both[:whole]]), DIVISOR)
        self._left = both[whole:].copy()
        return found

    def small(self) -> Samples:
        """The copy, when all rows have been taken."""
        return np.concatenate([*self._small, *shrunk(iter([self._left]), DIVISOR)])


def eighth(samples: Samples) -> Samples:
    """The small copy of a picture ``(height, width, channels)`` that goes into a file."""
    pieces = [samples[top : top + _ROWS] for top in range(0, len(samples), _ROWS)]
    return np.concatenate(together(lambda rows: _means(rows, DIVISOR), pieces))


def shrunk(pieces: Iterator[Samples], step: int) -> Iterator[Samples]:
    """Means of squares of so many pixels, rounded; of those at the right and the bottom, of what there is."""
    if step == 1:
        yield from pieces
        return
    left: Samples | None = None
    for rows in pieces:
        rows = rows if left is None else np.concatenate([left, rows])
        whole = len(rows) - len(rows) % step
        if whole:
            yield _means(rows[:whole], step)
        left = rows[whole:]
    if left is not None and len(left):
        yield _means(left, step)


def _means(rows: Samples, step: int) -> Samples:
    height, width = rows.shape[:2]
    down, across = -(-height // step), -(-width // step)
    if height % step or width % step:
        rows = np.pad(rows, ((0, down * step - height), (0, across * step - width), (0, 0)))
    # Line by line, in as few bits as they need: four times as fast as NumPy's own sums of groups.
    lines = rows.reshape(down, step, -1)
    sums = lines[:, 0].astype(np.uint16 if rows.dtype == np.uint8 else np.uint32)
    for i in range(1, step):
        np.add(sums, lines[:, i], out=sums)
    squares = sums.reshape(down, across, step, -1)
    sums = squares[:, :, 0].astype(np.uint32)
    for i in range(1, step):
        np.add(sums, squares[:, :, i], out=sums)
    counts = np.multiply.outer(
        np.minimum(height - np.arange(0, height, step), step),
        np.minimum(width - np.arange(0, width, step), step),
    )
    counts = counts.astype(np.uint32)[:, :, None]
    found: Samples = ((sums + counts // 2) // counts).astype(rows.dtype)
    return found
