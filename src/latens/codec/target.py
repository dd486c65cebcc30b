"""Finding the quality that gives a wanted size or PSNR."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from latens.errors import TargetError

__all__ = ["Target", "search"]

T = TypeVar("T")

_STEPS = 20


@dataclass(frozen=True)
class Target:
    """What a file should come to.

    Attributes:
        bytes: size of the file; the result is not larger, and at most 2 % smaller.
        psnr: in dB; the result is within 0.05 dB.
        pixels: of the image, if sizes should be told in bits per pixel.
    """

    bytes: float | None = None
    psnr: float | None = None
    pixels: int | None = None

    def __post_init__(self) -> None:
        wanted = [value for value in (self.bytes, self.psnr) if value is not None]
        if len(wanted) != 1 or not (math.isfinite(wanted[0]) and wanted[0] > 0):
            share = 8 / self.pixels if self.pixels else 1.0
            values = " and ".join(f"{value * share:g}" for value in wanted) or "none"
            raise TargetError(f"expected one target, a positive size or PSNR, got {values}")

    @property
    def wanted(self) -> float:
        """The value that was asked for."""
        return self.bytes if self.bytes is not None else self.psnr or 0.0

    @property
    def low(self) -> float:
        """Smallest value that will do."""
        return 0.98 * self.wanted if self.bytes is not None else self.wanted - 0.05

    @property
    def high(self) -> float:
        """Largest value that will do."""
        return self.wanted if self.bytes is not None else self.wanted + 0.05

    def show(self, value: float) -> str:
        """A value with its unit."""
        if self.bytes is None:
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
        level = _next(low, high, aim, top, halve=step % 3 == 0)
        if level == point.level:
            break
    found = [p for p in (low, high) if p is not None]
    reach = " and ".join(f"{target.show(p.value)} at quality {100 * p.level / top:.5g}" for p in found)
    raise TargetError(f"{target.show(target.wanted)} cannot be reached with this image; closest: {reach}")


def _next(low: _Point[T] | None, high: _Point[T] | None, aim: float, top: int, halve: bool) -> int:
    """Where the logarithm of the value is expected to reach the aim, strictly between what is known."""
    if low is None or high is None:
        known = low or high
        if known is None:
            return top // 2
        # Far outwards from the one side that is known, to get the other or the end of the range.
        distance = max(top // 8, round(top * abs(math.log(aim / known.value)) / 2.5))
        return min(max(known.level + (distance if low else -distance), 0), top)
    if high.level - low.level <= 1:
        return high.level
    share = 0.5
    if not halve and high.value > low.value:
        share = math.log(aim / low.value) / math.log(high.value / low.value)
    share = min(max(share, 0.05), 0.95)
    level = round(low.level + share * (high.level - low.level))
    return min(max(level, low.level + 1), high.level - 1)
