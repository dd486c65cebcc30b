"""What a quality of 0 to 100 means: which level of a model gives it.

A level, 0 to 1, is what files carry: lambda on a logarithmic scale, which says little about how pictures look. A scale
says at which level they have a SSIMULACRA2 score of about the quality, on average over photographs.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from latens.errors import ModelError

__all__ = ["LINEAR", "QualityScale"]

_MOST_KNOTS = 1001


@dataclass(frozen=True)
class QualityScale:
    """Levels at some qualities, straight in between. Both rise, from 0 to 100 and from 0 to 1.

    Attributes:
        qualities: 0 to 100.
        levels: one for each.

    Raises:
        ModelError: numbers that do not rise, or do not go from end to end.
    """

    qualities: tuple[float, ...]
    levels: tuple[float, ...]

    def __post_init__(self) -> None:
        lists = ((self.qualities, 100.0), (self.levels, 1.0))
        good = 2 <= len(self.qualities) == len(self.levels) <= _MOST_KNOTS and all(
            all(type(v) in (int, float) for v in values)
            and values[0] == 0
            and values[-1] == last
            and all(a < b for a, b in pairwise(values))
            for values, last in lists
        )
        if not good:
            raise ModelError(
                "quality scale: expected qualities from 0 to 100 and as many levels from 0 to 1, rising"
            )

    def level(self, quality: float) -> float:
        """The level, 0 to 1, of a quality of 0 to 100."""
        return _between(quality, self.qualities, self.levels)

    def quality(self, level: float) -> float:
        """The quality of a level: the inverse of :meth:`level`."""
        return _between(level, self.levels, self.qualities)

    @classmethod
    def fitted(cls, levels: Sequence[float], scores: Sequence[float], step: float = 5.0) -> QualityScale:
        """The scale for scores that were measured at some levels.

        Qualities that no level reaches share the range beyond what does, so that 0 is always the smallest file and
        100 the best.

        Args:
            levels: rising from 0 to 1.
            scores: mean scores at these; a fall is taken for noise.
            step: qualities between two knots.

        Raises:
            ModelError: too few, or scores of which none is between 0 and 100.
        """
        risen: list[tuple[float, float]] = []
        for level, score in zip(levels, scores, strict=True):
            if not risen or score > risen[-1][1] + 1e-6:
                risen.append((float(level), float(score)))
        count = round(100 / step)
        inside = [
            q for i in range(1, count) if risen and risen[0][1] < (q := 100.0 * i / count) < risen[-1][1]
        ]
        if not inside or levels[0] != 0 or levels[-1] != 1:
            raise ModelError(
                "quality scale: expected scores at levels from 0 to 1, some of them between 0 and 100"
            )
        at, of = ([pair[i] for pair in risen] for i in (0, 1))
        found = [_between(q, of, at) for q in inside]
        # Knots that touch the ends would leave nothing for the qualities beyond them.
        kept = [(round(q, 6), round(x, 6)) for q, x in zip(inside, found, strict=True) if 1e-4 < x < 1 - 1e-4]
        return cls((0.0, *(q for q, _ in kept), 100.0), (0.0, *(x for _, x in kept), 1.0))

    def to_json(self) -> str:
        """The scale as JSON text."""
        return json.dumps({"qualities": self.qualities, "levels": self.levels})

    @classmethod
    def from_json(cls, text: str) -> QualityScale:
        """The inverse of :meth:`to_json`.

        Raises:
            ModelError: not a scale.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            return cls(tuple(values["qualities"]), tuple(values["levels"]))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ModelError("quality scale: not the JSON of one") from error


def _between(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    i = min(max(bisect_right(xs, x) - 1, 0), len(xs) - 2)
    share = (x - xs[i]) / (xs[i + 1] - xs[i])
    return min(max(ys[i] + share * (ys[i + 1] - ys[i]), ys[0]), ys[-1])


LINEAR = QualityScale((0.0, 100.0), (0.0, 1.0))
"""Of models for which nothing was measured."""
