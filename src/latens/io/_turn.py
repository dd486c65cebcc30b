"""How frames are turned before anybody sees them: the display matrix of files and streams."""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

import numpy as np

from latens.io._video import SUBSAMPLING, Plane

__all__ = ["Turn", "turn_of", "turned_chroma"]

_TOLERANCE = 0.01


class Turn(NamedTuple):
    """A picture is transposed, then its rows, then its columns are put in reverse order."""

    transpose: bool = False
    rows: bool = False
    columns: bool = False

    def apply(self, planes: tuple[Plane, ...], chroma: str) -> tuple[Plane, ...]:
        """The planes turned; chroma as :func:`turned_chroma` says, so that samples stay where they are seen."""
        if self == Turn():
            return planes
        height, width = planes[0].shape
        if turned_chroma(self, chroma, width, height) != chroma:
            across, down = SUBSAMPLING[chroma]
            planes = planes[0], *(_spread(_spread(p, 0, down, height), 1, across, width) for p in planes[1:])
        return tuple(
            np.ascontiguousarray(
                (p.T if self.transpose else p)[:: -1 if self.rows else 1, :: -1 if self.columns else 1]
            )
            for p in planes
        )


def turned_chroma(turn: Turn, chroma: str, width: int, height: int) -> str:
    """How chroma lies in turned frames: 4:4:4 where fewer samples could not stay in their places."""
    across, down = SUBSAMPLING[chroma]
    mirrored = (turn.rows, turn.columns) if not turn.transpose else (turn.columns, turn.rows)
    # The last sample of an odd side belongs to one row or column, every other to two.
    odd = (mirrored[0] and height % down) or (mirrored[1] and width % across)
    return "4:4:4" if odd or (turn.transpose and across != down) else chroma


def turn_of(matrix: bytes) -> tuple[Turn, str | None]:
    """What FFmpeg's display matrix (nine int32) asks for, and in words what of it cannot be done."""
    a, b, _, c, d, _, _, _, _ = struct.unpack("=9i", matrix[:36])
    straight, crossed = max(abs(a), abs(d)), max(abs(b), abs(c))
    if not straight and not crossed:
        return Turn(), None
    lost = None
    if crossed <= _TOLERANCE * straight:
        turn, sides = Turn(False, d < 0, a < 0), (a, d)
    elif straight <= _TOLERANCE * crossed:
        turn, sides = Turn(True, b < 0, c < 0), (b, c)
    else:
        angle = math.degrees(math.atan2(b, a))
        return Turn(), f"turning by {angle:.0f} degrees"
    first, second = (abs(side) for side in sides)
    if abs(first - second) > _TOLERANCE * max(first, second):
        lost = "stretching"
    return turn, lost


def _spread(plane: Plane, axis: int, factor: int, size: int) -> Plane:
    """Twice as many samples along an axis, each between the middles of those that there were; `size` are kept."""
    if factor == 1:
        return plane
    wide = np.moveaxis(plane, axis, 0).astype(np.int32)
    padded = np.concatenate((wide[:1], wide, wide[-1:]))
    out = np.empty((2 * len(wide), *wide.shape[1:]), np.int32)
    out[0::2] = (3 * wide + padded[:-2] + 2) >> 2
    out[1::2] = (3 * wide + padded[2:] + 2) >> 2
    found: Plane = np.moveaxis(out[:size], 0, axis).astype(plane.dtype)
    return found
