"""Finding the quality that gives a wanted size, SSIMULACRA2 score or PSNR."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from latens.errors import TargetError

__all__ = ["Target", "search"]

T = TypeVar("T")

_STEPS = 20
_WORDS = 8
_LEAST = 1e-3  # of what has a logarithm: the fewest bytes that would do may be none
"""Streams grow by words of four bytes: the smallest files cannot come closer."""


@dataclass(frozen=True)
class Target:
    """What a file should come to.

    Attributes:
        bytes: size of the file; the result is not larger, and at most 1 % and 8 bytes smaller.
        psnr: in dB; the result is within 0.05 dB.
        pixels: of the image, if sizes should be told in bits per pixel.
        ssimulacra2: the score, up to 100, below 0 for ruins; the result is within 0.3.
    """

    bytes: float | None = None
    psnr: float | None = None
    pixels: int | None = None
    ssimulacra2: float | None = None

    def __post_init__(self) -> None:
        wanted = [value for value in (self.bytes, self.psnr, self.ssimulacra2) if value is not None]
        good = len(wanted) == 1 and math.isfinite(wanted[0])
        if not good or (wanted[0] <= 0 and self.ssimulacra2 is None):
            share = 8 / self.pixels if self.pixels else 1.0
            values = " and ".join(f"{value * share:g}" for value in wanted) or "none"
            raise TargetError(f"expected one target, a positive size or PSNR, or a score, got {values}")
        if self.ssimulacra2 is not None and self.ssimulacra2 > 100:
            raise TargetError(f"SSIMULACRA2 has no scores above 100, got {self.ssimulacra2:g}")

    @property
    def wanted(self) -> float:
        """The value that was asked for."""
        return next(value for value in (self.bytes, self.psnr, self.ssimulacra2) if value is not None)

    @property
    def _within(self) -> float:
        """How far off a result may be, on either side, but for sizes."""
        return 0.05 if self.psnr is not None else 0.3

    @property
    def low(self) -> float:
        """Smallest value that will do."""
        return 0.99 * self.wanted - _WORDS if self.bytes is not None else self.wanted - self._within

    @property
    def high(self) -> float:
        """Largest value that will do."""
        return self.wanted if self.bytes is not None else self.wanted + self._within

    def place(self, value: float) -> float:
        """A value on a scale on which it rises about evenly with the level, 2.5 from end to end."""
        # Scores go below zero, and are nearly even; sizes and decibels are so as logarithms.
        return value / 40 if self.ssimulacra2 is not None else math.log(max(value, _LEAST))

    def show(self, value: float) -> str:
        """A value with its unit."""
        if self.ssimulacra2 is not None:
            return f"SSIMULACRA2 {value:.2f}"
        if self.psnr is not None:
            return f"{value:.2f} dB"
        if self.pixels is not None:
            return f"{8 * value / self.pixels:.4g} bits per pixel"
        return f"{value:,.0f} bytes"


@dataclass(frozen=True)
class _Point(Generic[T]):
    level: int
    value: float
    result: T


def search(measure: Callable[[int], tuple[float, T]], top: int, target: Target) -> T:
    """The result whose value meets the target, by regula falsi on a rising function of a level.

    Args:
        measure: value and result at a level 0 to ``top``. Calls are expensive; about five are made.
        top: highest level.
        target: what is wanted.

    Raises:
        TargetError: no level gives it; the message says what can be had.
    """
    aim = target.low + 0.6 * (target.high - target.low)
    low: _Point[T] | None = None
    high: _Point[T] | None = None
    level = top // 2
    for step in range(1, _STEPS + 1):
        point = _Point(level, *measure(level))
        if target.low <= point.value <= target.high:
            return point.result
        if point.value < target.low:
            low = point
        else:
            high = point
        if (low is not None and low.level == top) or (high is not None and high.level == 0):
            break
        # On a strongly bent curve one end of the bracket would never move: every third step halves it.
        level = _next(low, high, aim, top, target.place, halve=step % 3 == 0)
        if level == point.level:
            break
    found = [p for p in (low, high) if p is not None]
    reach = " and ".join(f"{target.show(p.value)} at quality {100 * p.level / top:.5g}" for p in found)
    raise TargetError(f"{target.show(target.wanted)} cannot be reached with this image; closest: {reach}")


def _next(
    low: _Point[T] | None,
    high: _Point[T] | None,
    aim: float,
    top: int,
    place: Callable[[float], float],
    halve: bool,
) -> int:
    """Where the value is expected to reach the aim, strictly between what is known, on a scale where it is even."""
    if low is None or high is None:
        known = low or high
        if known is None:
            return top // 2
        # Far outwards from the one side that is known, to get the other or the end of the range.
        distance = max(top // 8, round(top * abs(place(aim) - place(known.value)) / 2.5))
        return min(max(known.level + (distance if low else -distance), 0), top)
    if high.level - low.level <= 1:
        return high.level
    share = 0.5
    if not halve and high.value > low.value:
        share = (place(aim) - place(low.value)) / (place(high.value) - place(low.value))
    share = min(max(share, 0.05), 0.95)
    level = round(low.level + share * (high.level - low.level))
    return min(max(level, low.level + 1), high.level - 1)
