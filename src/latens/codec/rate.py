"""Bitrates for videos: a first pass at one quality says how many bytes each frame needs; the second one gives them.

Bytes grow about exponentially with the quality, those of key frames and of others each in their own way. How fast is
guessed at first, and learned while frames are coded.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from latens import format as ltn
from latens.errors import TargetError, VideoError

if TYPE_CHECKING:
    from latens.codec.structure import Structure
    from latens.codec.video import VideoCodec
    from latens.io import Sound, VideoFrame, VideoInfo

__all__ = ["Budget", "FirstPass", "first_pass"]

_FIRST = 50.0

_GROWTH = 0.03  # of the logarithm of bytes, by a step of quality, of 100
_TRUST = 60.0  # in that, in squared steps of quality: what is measured that far away counts as much
_PACE = 2.0  # steps of quality between two frames at most
_WITHIN = 0.02


@dataclass(frozen=True)
class FirstPass:
    """What a video needs at one quality.

    Attributes:
        frames: bytes of each frame, by number.
        keys: numbers of those that refer to none.
        size: of the whole file.
        seconds: that it lasts.
    """

    frames: Mapping[int, int]
    keys: frozenset[int]
    size: int
    seconds: float

    def budget(self, kbit_per_second: float) -> Budget:
        """What frames may need, so that the whole file has a bitrate.

        Raises:
            TargetError: a bitrate that is not above zero.
        """
        if not (math.isfinite(kbit_per_second) and kbit_per_second > 0):
            raise TargetError(f"a bitrate is a number above 0, got {kbit_per_second:g}")
        rest = self.size - sum(self.frames.values())
        return Budget(self.frames, self.keys, _FIRST, 125 * kbit_per_second * self.seconds - rest)

    def check(self, kbit_per_second: float, size: int, quality: float) -> None:
        """Refuse a file whose quality ended at an end of the scale without the bitrate being met.

        Raises:
            TargetError: saying what can be had.
        """
        found = 8e-3 * size / self.seconds
        if (quality < 1 and found > (1 + _WITHIN) * kbit_per_second) or (
            quality > 99 and found < (1 - _WITHIN) * kbit_per_second
        ):
            end = "least, at quality 0" if quality < 1 else "most, at quality 100"
            raise TargetError(
                f"{kbit_per_second:g} kbit/s cannot be reached with these frames; {found:.4g} kbit/s is the {end}"
            )


def first_pass(
    codec: VideoCodec,
    info: VideoInfo,
    frames: Iterable[VideoFrame],
    structure: Structure,
    sound: Sound | None = None,
    content: str = "auto",
    progress: Callable[[], None] = lambda: None,
) -> FirstPass:
    """Code a video at a middle quality into a file that is thrown away; arguments as of :meth:`VideoCodec.encode`.

    Raises:
        VideoError: weights that have one quality only, and what :meth:`VideoCodec.encode` raises.
    """
    if not codec.qualities:
        raise VideoError("weights of one quality have one bitrate; leave the bitrate out")
    sizes: dict[int, int] = {}
    keys = set()
    with tempfile.TemporaryFile() as opened:
        file = cast(BinaryIO, opened)
        options: dict[str, Any] = {"structure": structure, "sound": sound, "content": content}
        for coded in codec.encode(info, frames, file, quality=_FIRST, **options):
            sizes[coded.number] = coded.bytes
            if coded.key:
                keys.add(coded.number)
            progress()
        size = file.tell()
        file.seek(0)
        seconds = float(ltn.VideoReader(file).read_index().end * Fraction(info.time_base))
    return FirstPass(sizes, frozenset(keys), size, seconds)


class Budget:
    """What is left to spend, and the quality at which it should last.

    Args:
        frames: bytes of each frame in a first pass, by number; the same frames, in the same structure.
        keys: numbers of those that refer to none.
        quality: of the first pass, 0 to 100.
        wanted: bytes of all frames together.
    """

    def __init__(
        self, frames: Mapping[int, int], keys: frozenset[int], quality: float, wanted: float
    ) -> None:
        self._left, self._keys = dict(frames), keys
        self._first, self._wanted = quality, wanted
        # Of keys and of others: what the first pass needed for those that are done, and what they need now; where.
        self._before, self._spent, self._far = [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
        self._rest = [0.0, 0.0]
        for number, size in self._left.items():
            self._rest[number in keys] += size
        self.quality = self._solved()
        """For the next frame, 0 to 100."""

    def spend(self, number: int, size: int) -> None:
        """A frame was coded at :attr:`quality`, which follows what it took."""
        kind = number in self._keys
        before = self._left.pop(number)
        self._rest[kind] -= before
        self._before[kind] += before
        self._spent[kind] += size
        self._far[kind] += before * (self.quality - self._first)
        solved = self._solved()
        self.quality = min(max(solved, self.quality - _PACE), self.quality + _PACE)

    def _growth(self, kind: int) -> float:
        if not self._before[kind] or not self._spent[kind]:
            return _GROWTH
        far = self._far[kind] / self._before[kind]
        measured = math.log(self._spent[kind] / self._before[kind])
        found = (far * measured + _TRUST * _GROWTH) / (far * far + _TRUST)
        return min(max(found, _GROWTH / 4), 4 * _GROWTH)

    def _solved(self) -> float:
        """The quality at which what is left will be spent by what is to come."""
        left = self._wanted - sum(self._spent)
        growth = [self._growth(kind) for kind in (0, 1)]
        low, high = 0.0, 100.0
        for _ in range(20):
            middle = (low + high) / 2
            needed = sum(
                rest * math.exp(g * (middle - self._first))
                for rest, g in zip(self._rest, growth, strict=True)
            )
            low, high = (middle, high) if needed < left else (low, middle)
        return (low + high) / 2
