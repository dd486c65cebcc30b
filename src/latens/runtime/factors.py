"""Factors that depend on the quality: logarithms stored at knots, interpolated and raised in integers."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from latens.errors import ModelError
from latens.runtime.networks import Factor

__all__ = ["QUALITY_MAX", "Factors"]

QUALITY_MAX = 65_535  # in a header
_LOG_BITS = 16
_M_BITS = 14
# The table of docs/pixels.md. Powers in float64 are off by less than 2^-52, and no entry lies that near to a half.
_POWERS = np.array([math.floor(2.0 ** (_M_BITS + j / 256) + 0.5) for j in range(257)], np.int64)
_EXPONENT_MIN, _EXPONENT_MAX = -32, 29


class Factors:
    """A factor for each channel at each quality.

    Args:
        logs: ``(knots, channels)`` int32, logarithms to the base of 2 in units of 2^-16.
        name: for error messages.

    Raises:
        ModelError: fewer than two knots, or factors out of range.
    """

    def __init__(self, logs: npt.NDArray[np.int32], name: str = "factors") -> None:
        if logs.ndim != 2 or logs.dtype != np.int32 or len(logs) < 2 or not logs.shape[1]:
            raise ModelError(f"{name}: expected int32 of 2 knots or more, got {logs.dtype} {logs.shape}")
        exponents = logs.astype(np.int64) >> _LOG_BITS
        if exponents.min() < _EXPONENT_MIN or exponents.max() > _EXPONENT_MAX:
            raise ModelError(f"{name}: a factor is out of range")
        self.logs = logs

    @classmethod
    def of(cls, log2: npt.NDArray[np.floating], bits: int = 0) -> Factors:
        """From logarithms to the base of 2, of factors that turn units of 1 into units of ``2^-bits``."""
        scaled = (np.asarray(log2, np.float64) + bits) * (1 << _LOG_BITS)
        if not np.isfinite(scaled).all() or np.abs(scaled).max(initial=0.0) >= 2**31:
            raise ModelError("factors: a logarithm is not finite or out of range")
        return cls(np.rint(scaled).astype(np.int32))

    def at(self, quality: int) -> Factor:
        """The factors at a header's quality, 0 to 65,535."""
        place = quality * (len(self.logs) - 1)
        knot = min(place // QUALITY_MAX, len(self.logs) - 2)
        rest = place - knot * QUALITY_MAX
        low, high = self.logs[knot].astype(np.int64), self.logs[knot + 1].astype(np.int64)
        log = low + ((high - low) * rest + QUALITY_MAX // 2) // QUALITY_MAX
        fraction = log & ((1 << _LOG_BITS) - 1)
        j = fraction >> 8
        m = _POWERS[j] + (((_POWERS[j + 1] - _POWERS[j]) * (fraction & 255) + 128) >> 8)
        m = np.minimum(m, (1 << _M_BITS + 1) - 1).astype(np.int32)
        return Factor(m, (_M_BITS - (log >> _LOG_BITS)).astype(np.int32))
