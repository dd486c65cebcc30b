"""In which order the frames of a video are coded, what each refers to, and how good it becomes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from latens.errors import VideoError
from latens.io import VideoFrame

__all__ = ["DEFAULT_STRUCTURE", "PRESETS", "Planned", "Structure", "plan"]


PRESETS = {"fast": 0, "medium": 0, "slow": 0}
"""Most B frames between two others, by how long an encoder may take."""


@dataclass(frozen=True)
class Structure:
    """What a user decides.

    Attributes:
        gop: every so many frames, or sooner, one is coded alone.
        bframes: the most B frames between two others; 0, 1, 3 or 7.
        scene_cuts: whether a new scene begins with a key frame.
    """

    gop: int = 12
    bframes: int = 0
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
        bonus: what its quality differs from that of the video, in steps of :data:`latens.format.QUALITY_STEP`.
    """

    frame: VideoFrame
    number: int
    references: tuple[int, ...]
    bonus: int


# Bonus of key frames; of P frames by the distance to the one before; of B frames by their place in the pyramid.
_KEY = 8
_P = {1: 0, 2: 3, 3: 5, 4: 5, 8: 6}
_B = (-3, -6, -7)


def plan(frames: Iterable[VideoFrame], structure: Structure) -> Iterator[Planned]:
    """Frames in the order of coding. Not more than some tens of them are held."""
    window: list[VideoFrame] = []
    source = iter(frames)
    number = since = 0  # of the first frame in the window, and frames since the key frame

    def fill(count: int) -> int:
        while len(window) < count and (frame := next(source, None)) is not None:
            window.append(frame)
        return len(window)

    while fill(structure.bframes + 1):
        if since == 0:
            yield Planned(window.pop(0), number, (), _KEY)
            number, since = number + 1, 1 % structure.gop
            continue
        distance = min(len(window), structure.bframes + 1, structure.gop - since)
        group, window = window[:distance], window[distance:]
        yield from _pyramid(group, number)
        number += distance
        since = (since + distance) % structure.gop


def _pyramid(group: list[VideoFrame], number: int) -> Iterator[Planned]:
    """The last frame of a group, then the one in the middle, and so on."""
    distance = len(group)
    yield Planned(group[-1], number + distance - 1, (number - 1,), _P.get(distance, _P[4]))

    def between(low: int, high: int, depth: int) -> Iterator[Planned]:
        if high - low < 2:
            return
        middle = (low + high) // 2
        yield Planned(group[middle - number], middle, (low, high), _B[depth])
        yield from between(low, middle, depth + 1)
        yield from between(middle, high, depth + 1)

    yield from between(number - 1, number + distance - 1, 0)
