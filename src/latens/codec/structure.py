"""In which order the frames of a video are coded, what each refers to, and how good it becomes.

A pyramid as in Schwarz, Marpe and Wiegand, "Analysis of hierarchical B pictures and MCTF" (ICME 2006): the last frame
of a group first, from the one before the group; then the one in the middle, from both; then those between
these. What others are made of is coded better, what nobody refers to worse.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from latens.errors import VideoError
from latens.io import VideoFrame
from latens.runtime.motion import SQUARE, UNIT, compensate, search

__all__ = ["DEFAULT_STRUCTURE", "PRESETS", "Planned", "Structure", "plan"]

PRESETS = {"fast": 0, "medium": 3, "slow": 7}
"""Most B frames between two others, by how long an encoder may take."""


@dataclass(frozen=True)
class Structure:
    """What a user decides.

    Attributes:
        gop: every so many frames, or sooner, one is coded alone.
        bframes: the most B frames between two others; 0, 1, 3 or 7.
        scene_cuts: whether a new scene begins with a frame that is coded alone.

    Raises:
        VideoError: a value that there is not.
    """

    gop: int = 12
    bframes: int = PRESETS["medium"]
    scene_cuts: bool = True

    def __post_init__(self) -> None:
        if self.gop < 1:
            raise VideoError(f"gop must be at least 1, not {self.gop}")
        if self.bframes not in (0, 1, 3, 7):
            raise VideoError(f"bframes must be 0, 1, 3 or 7, not {self.bframes}")


DEFAULT_STRUCTURE = Structure()


class Planned(NamedTuple):
    """A frame, in the order of coding.

    Attributes:
        frame: itself.
        number: in the order of showing.
        references: numbers of those it refers to: none, an earlier one, or that and a later one.
        bonus: how much better than the video it is to be, in steps of :data:`latens.format.QUALITY_STEP`.
    """

    frame: VideoFrame
    number: int
    references: tuple[int, ...]
    bonus: int


# Bonus of P frames by the distance to the one before, and of B frames by their place in the pyramid.
_P = {1: 0, 2: 4}
_P_FAR = 6
# Groups are longer only where little changes: else those in the middle of eight find nothing that is like them.
_FAR = 4
_B = (-4, -8, -8)

_CUT, _CUT_RISE = 0.6, 1.5
_CUT_LEAST = 0.5  # levels of 255
_CUTS_IN_A_ROW = 2
_CALM = 0.97  # share of blocks that stay where they are
_LEAST = 32  # pixels of the shorter side of a picture in which motion can be told from a cut
_SMALL = 60  # pixels of the shorter side of what is looked at
_MOST_SMALLER = 16


def plan(frames: Iterable[VideoFrame], structure: Structure, bit_depth: int = 8) -> Iterator[Planned]:
    """Frames in the order of coding; no more than a group of them is held.

    Raises:
        VideoError: a timestamp that does not rise.
    """
    key_bonus = min(max(round(4 * math.log2(structure.gop) - 2.3), 0), 20)
    window: list[_Looked] = []
    source = _with_cuts(frames, bit_depth if structure.scene_cuts else None)
    number = since = 0  # of the first frame in the window, and frames since the last key frame
    while True:
        while len(window) <= structure.bframes and (found := next(source, None)) is not None:
            window.append(found)
        if not window:
            return
        if since == 0 or window[0].cut:
            yield Planned(window.pop(0).frame, number, (), key_bonus)
            number, since = number + 1, 1 % structure.gop
            continue
        most = min(len(window), structure.gop - since)
        if most > _FAR and not all(looked.calm for looked in window[:most]):
            most = _FAR
        distance = next((i for i in range(1, most) if window[i].cut), most)
        group, window = [looked.frame for looked in window[:distance]], window[distance:]
        yield from _pyramid(group, number)
        number += distance
        since = (since + distance) % structure.gop


def _pyramid(group: list[VideoFrame], number: int) -> Iterator[Planned]:
    """A group whose first frame has a number."""
    before, last = number - 1, number + len(group) - 1
    yield Planned(group[-1], last, (before,), _P.get(len(group), _P_FAR))

    def between(low: int, high: int, depth: int) -> Iterator[Planned]:
        middle = (low + high) // 2
        if middle > low:
            yield Planned(group[middle - number], middle, (low, high), _B[depth])
            yield from between(low, middle, depth + 1)
            yield from between(middle, high, depth + 1)

    yield from between(before, last, 0)


class _Looked(NamedTuple):
    """A frame, whether a scene begins with it, and whether nearly all of it stays where it was."""

    frame: VideoFrame
    cut: bool
    calm: bool


def _with_cuts(frames: Iterable[VideoFrame], bit_depth: int | None) -> Iterator[_Looked]:
    """Each frame, and whether a scene begins with it; nobody looks without a bit depth.

    One does where the frame before, moved, predicts hardly better than means of blocks; not where that is always so.
    """
    before: npt.NDArray[np.uint16] | None = None
    usual, row = 0.0, 0
    time = -1
    for number, frame in enumerate(frames):
        if frame.timestamp <= time:
            raise VideoError(f"frame {number}: its timestamp, {frame.timestamp}, is not after {time}")
        time = frame.timestamp
        if bit_depth is None or min(frame.planes[0].shape) < _LEAST:
            yield _Looked(frame, False, False)
            continue
        small, visible = _small(frame.planes[0], 65_535 / ((1 << bit_depth) - 1))
        cut = calm = False
        if before is not None and before.shape == small.shape:
            surprise, still = _compared(small, before, visible)
            calm = still >= _CALM
            cut = surprise > max(_CUT, _CUT_RISE * usual) and row < _CUTS_IN_A_ROW
            row = row + 1 if cut else 0
            usual = usual if cut else surprise
        before = small
        yield _Looked(frame, cut, calm)


def _small(luma: npt.NDArray[Any], scale: float) -> tuple[npt.NDArray[np.uint16], tuple[int, int]]:
    """A picture ``(H, W, 3)`` of 16 bits for a search, some hundred pixels wide, and the part that is not padding."""
    factor = 1
    while factor < _MOST_SMALLER and min(luma.shape) // (2 * factor) >= _SMALL:
        factor *= 2
    height, width = (side // factor for side in luma.shape)
    whole = luma[: height * factor, : width * factor].reshape(height, factor, width, factor)
    mean = whole.mean((1, 3), dtype=np.float32)
    grey = np.rint(mean * scale).astype(np.uint16)
    padded = np.pad(grey, ((0, -height % SQUARE), (0, -width % SQUARE)), mode="edge")
    return np.ascontiguousarray(np.repeat(padded[..., None], 3, 2)), (height, width)


def _compared(
    picture: npt.NDArray[np.uint16], before: npt.NDArray[np.uint16], visible: tuple[int, int]
) -> tuple[float, float]:
    """The error of a prediction from the frame before, relative to means of 8x8 pixels; the share that stands still."""
    field = search(picture, [before], 1.0, visible)
    predicted = compensate([before], field)
    height, width = (side // 8 * 8 for side in visible)
    luma = picture[:height, :width, 0].astype(np.float32)
    blocks = luma.reshape(height // 8, 8, -1, 8)
    flat = float(np.abs(blocks - blocks.mean((1, 3), keepdims=True)).mean())
    error = float(np.abs(luma - predicted[:height, :width, 0]).mean())
    vectors = field[: height // UNIT, : width // UNIT, 2:4]
    return error / (flat + 257 * _CUT_LEAST), float((np.abs(vectors) <= 1).all(2).mean())
