"""Bjøntegaard deltas: the average difference of two rate-distortion curves.

Bjøntegaard, "Calculation of average PSNR differences between RD-curves", VCEG-M33, 2001. The curves run through
log rate over PSNR (or the reverse) and are integrated exactly over the range that both cover. Akima's
interpolation, the default, follows the points without overshooting: Herglotz et al., "Beyond Bjøntegaard:
Limits of Video Compression Performance Comparisons", ICIP 2022. The original cubic is one polynomial per curve,
fitted by least squares where there are more than four points.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from latens.errors import CurveError

__all__ = ["bd_psnr", "bd_rate"]

Method = Literal["akima", "pchip", "cubic"]
Array = npt.NDArray[np.float64]

_LEAST_POINTS = 4


def bd_rate(
    rate_anchor: npt.ArrayLike,
    psnr_anchor: npt.ArrayLike,
    rate_test: npt.ArrayLike,
    psnr_test: npt.ArrayLike,
    *,
    method: Method = "akima",
    psnr_range: tuple[float, float] | None = None,
) -> float:
    """Average difference in rate at equal PSNR, in percent: negative if the test codec needs less.

    Args:
        rate_anchor: rates of the anchor, in any unit, positive; four or more, in any order.
        psnr_anchor: PSNR (or another measure, the higher the better) at these rates; it must rise with rate.
        rate_test: rates of the test codec, in the same unit; their number may differ.
        psnr_test: PSNR at these rates.
        method: interpolation: "akima", "pchip", or "cubic" (the polynomial of 2001).
        psnr_range: compare only within these limits (low, high), as far as both curves reach.

    Raises:
        CurveError: points that are too few, not finite or not monotone, or curves without a common range.
    """
    (rate_a, psnr_a), (rate_t, psnr_t) = _curve(rate_anchor, psnr_anchor), _curve(rate_test, psnr_test)
    return 100.0 * math.expm1(_difference(psnr_a, rate_a, psnr_t, rate_t, method, psnr_range, "PSNR"))


def bd_psnr(
    rate_anchor: npt.ArrayLike,
    psnr_anchor: npt.ArrayLike,
    rate_test: npt.ArrayLike,
    psnr_test: npt.ArrayLike,
    *,
    method: Method = "akima",
    rate_range: tuple[float, float] | None = None,
) -> float:
    """Average difference in PSNR at equal rate, in dB: positive if the test codec is better.

    Args:
        rate_anchor, psnr_anchor, rate_test, psnr_test, method: as for :func:`bd_rate`.
        rate_range: compare only within these limits (low, high), as far as both curves reach.

    Raises:
        CurveError: points that are too few, not finite or not monotone, or curves without a common range.
    """
    limits = None
    if rate_range is not None:
        if not 0.0 < rate_range[0] < rate_range[1]:
            raise CurveError(f"rate_range: expected 0 < low < high, got {rate_range}")
        limits = math.log(rate_range[0]), math.log(rate_range[1])
    (rate_a, psnr_a), (rate_t, psnr_t) = _curve(rate_anchor, psnr_anchor), _curve(rate_test, psnr_test)
    return _difference(rate_a, psnr_a, rate_t, psnr_t, method, limits, "log rate")


def _curve(rate: npt.ArrayLike, psnr: npt.ArrayLike) -> tuple[Array, Array]:
    """Log rate and PSNR, both ascending."""
    r, p = np.asarray(rate, np.float64), np.asarray(psnr, np.float64)
    if r.ndim != 1 or r.shape != p.shape or r.size < _LEAST_POINTS:
        raise CurveError(
            f"a curve takes as many rates as PSNR values, at least {_LEAST_POINTS}; got {r.shape} and {p.shape}"
        )
    if not (np.isfinite(r).all() and np.isfinite(p).all() and (r > 0).all()):
        raise CurveError("rates must be positive and finite, PSNR values finite; leave lossless points out")
    order = np.argsort(r, kind="stable")
    r, p = np.log(r[order]), p[order]
    if (np.diff(r) <= 0).any() or (np.diff(p) <= 0).any():
        raise CurveError(
            "PSNR must rise with rate from every point to the next; leave out points that are beaten"
        )
    return r, p


def _difference(
    x_a: Array,
    y_a: Array,
    x_t: Array,
    y_t: Array,
    method: Method,
    limits: tuple[float, float] | None,
    name: str,
) -> float:
    """Mean of test minus anchor over the common range of x."""
    low, high = max(x_a[0], x_t[0]), min(x_a[-1], x_t[-1])
    if limits is not None:
        low, high = max(low, limits[0]), min(high, limits[1])
    if not low < high:
        raise CurveError(
            f"the curves have no common range of {name}: anchor {x_a[0]:.4g} to {x_a[-1]:.4g}, "
            f"test {x_t[0]:.4g} to {x_t[-1]:.4g}"
            + (f", limits {limits[0]:.4g} to {limits[1]:.4g}" if limits else "")
        )
    area = _integral(x_t, y_t, method, low, high) - _integral(x_a, y_a, method, low, high)
    return float(area / (high - low))


def _integral(x: Array, y: Array, method: Method, low: float, high: float) -> float:
    if method == "cubic":
        middle = x.mean()  # keeps the fit well conditioned
        primitive = np.polyint(np.polyfit(x - middle, y, 3))
        return float(np.polyval(primitive, high - middle) - np.polyval(primitive, low - middle))
    if method not in ("akima", "pchip"):
        raise CurveError(f"method {method!r}: expected akima, pchip or cubic")
    h = np.diff(x)
    secant = np.diff(y) / h
    slope = _akima_slopes(secant) if method == "akima" else _pchip_slopes(h, secant)
    # Hermite form of each piece, over t in 0..1, and its integral.
    c2 = (3.0 * secant - 2.0 * slope[:-1] - slope[1:]) * h
    c3 = (slope[:-1] + slope[1:] - 2.0 * secant) * h

    def primitive_at(t: Array) -> Array:
        return t * (y[:-1] + t * (slope[:-1] * h / 2.0 + t * (c2 / 3.0 + t * c3 / 4.0)))

    t_low, t_high = (np.clip((limit - x[:-1]) / h, 0.0, 1.0) for limit in (low, high))
    return float(np.sum(h * (primitive_at(t_high) - primitive_at(t_low))))


def _akima_slopes(secant: Array) -> Array:
    """Slopes at the points: Akima, Journal of the ACM 17(4), 1970. Two secants are added at both ends."""
    first = 2.0 * secant[0] - secant[1]
    last = 2.0 * secant[-1] - secant[-2]
    m = np.concatenate(([2.0 * first - secant[0], first], secant, [last, 2.0 * last - secant[-1]]))
    bend = np.abs(np.diff(m))
    left, right = bend[2:], bend[:-2]  # weights of the secants on the left and on the right
    total = left + right
    straight = total <= 1e-9 * total.max()
    weighted = (left * m[1:-2] + right * m[2:-1]) / np.where(straight, 1.0, total)
    return np.asarray(np.where(straight, (m[:-3] + m[3:]) / 2.0, weighted))


def _pchip_slopes(h: Array, secant: Array) -> Array:
    """Slopes that keep the curve monotone: Fritsch and Butland, SIAM J. Sci. Stat. Comput. 5(2), 1984.

    The secants are positive, since curves rise.
    """
    w1, w2 = 2.0 * h[1:] + h[:-1], h[1:] + 2.0 * h[:-1]
    inner = (w1 + w2) / (w1 / secant[:-1] + w2 / secant[1:])
    return np.concatenate(
        (
            [_pchip_end(h[0], h[1], secant[0], secant[1])],
            inner,
            [_pchip_end(h[-1], h[-2], secant[-1], secant[-2])],
        )
    )


def _pchip_end(h0: float, h1: float, secant0: float, secant1: float) -> float:
    """Three-point slope at an end, never falling."""
    slope = ((2.0 * h0 + h1) * secant0 - h0 * secant1) / (h0 + h1)
    return max(slope, 0.0)
