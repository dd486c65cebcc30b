from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.interpolate import Akima1DInterpolator, PchipInterpolator

from latens.errors import CurveError
from latens.metrics import bd_psnr, bd_rate

Curve = tuple[list[float], list[float]]

CURVES: dict[str, Curve] = {
    "a": (
        [0.131, 0.209, 0.317, 0.483, 0.677, 0.968, 1.322, 1.759],
        [27.58, 28.95, 30.31, 31.94, 33.43, 35.43, 37.37, 39.22],
    ),
    "b": (
        [0.0821, 0.1719, 0.2803, 0.4416, 0.7005, 1.1203, 1.9208],
        [26.11, 28.02, 29.97, 31.65, 33.98, 36.71, 40.36],
    ),
    "c": ([0.25, 0.5, 1.0, 1.5], [27.2, 30.9, 34.8, 36.1]),
}

# Computed with the package bjontegaard 1.3.0 (FAU Erlangen-Nürnberg), min_overlap=0.
REFERENCE = [
    ("a", "b", "akima", -3.078549490808846, 0.13561793134921038),
    ("a", "b", "pchip", -3.0029966432243427, 0.13536938300696738),
    ("a", "b", "cubic", -3.3792776579739003, 0.14589808113102623),
    ("a", "c", "akima", 35.64023630941102, -1.29557284307901),
    ("a", "c", "pchip", 34.80886696091567, -1.2781359311280494),
    ("a", "c", "cubic", 35.667922117444895, -1.3059450413827296),
    ("c", "b", "akima", -28.57585784883475, 1.5469077312908128),
    ("c", "b", "pchip", -28.114641933534823, 1.5286122705960385),
    ("c", "b", "cubic", -28.7269797300157, 1.5503220766029053),
]


@pytest.mark.parametrize(("anchor", "test", "method", "rate", "psnr"), REFERENCE)
def test_equals_another_implementation(anchor: str, test: str, method: Any, rate: float, psnr: float) -> None:
    assert bd_rate(*CURVES[anchor], *CURVES[test], method=method) == pytest.approx(rate, abs=1e-6)
    assert bd_psnr(*CURVES[anchor], *CURVES[test], method=method) == pytest.approx(psnr, abs=1e-6)


@st.composite
def curves(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    steps = st.lists(st.floats(0.05, 3.0), min_size=4, max_size=9)
    psnr = 25.0 + np.cumsum(draw(steps))
    log_rate = -2.0 + np.cumsum([draw(st.floats(0.01, 0.8)) for _ in psnr])
    return np.exp(log_rate), psnr


@settings(max_examples=60, deadline=None)
@given(curves(), curves(), st.sampled_from(["akima", "pchip"]), st.floats(25.5, 28.0), st.floats(28.5, 40.0))
def test_equals_numerical_integration(anchor: Any, test: Any, method: Any, low: float, high: float) -> None:
    interpolate = {"akima": Akima1DInterpolator, "pchip": PchipInterpolator}[method]
    low = max(anchor[1][0], test[1][0], low)
    high = min(anchor[1][-1], test[1][-1], high)
    if high - low < 1e-3:
        return
    area = [
        quad(interpolate(psnr, np.log(rate)), low, high, points=psnr, limit=200)[0]
        for rate, psnr in (anchor, test)
    ]
    expected = 100 * math.expm1((area[1] - area[0]) / (high - low))
    actual = bd_rate(*anchor, *test, method=method, psnr_range=(low, high))
    assert actual == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_a_constant_factor() -> None:
    rate, psnr = CURVES["a"]
    for method in ("akima", "pchip", "cubic"):
        half = [r / 2 for r in rate]
        assert bd_rate(rate, psnr, half, psnr, method=method) == pytest.approx(-50, abs=1e-9)
        more = [p + 1.25 for p in psnr]
        assert bd_psnr(rate, psnr, rate, more, method=method) == pytest.approx(1.25, abs=1e-9)


def test_order_of_points_does_not_matter() -> None:
    a, b = CURVES["a"], CURVES["b"]
    backwards = bd_rate(a[0][::-1], a[1][::-1], b[0][::-1], b[1][::-1])
    assert backwards == bd_rate(*a, *b)


def test_ranges() -> None:
    a, b = CURVES["a"], CURVES["b"]
    assert bd_rate(*a, *b, psnr_range=(0, 99)) == bd_rate(*a, *b)
    assert bd_rate(*a, *b, psnr_range=(37, 39)) < -4 < 0 < bd_rate(*a, *b, psnr_range=(28, 29))
    assert bd_psnr(*a, *b, rate_range=(0.01, 9)) == bd_psnr(*a, *b)
    assert bd_psnr(*a, *b, rate_range=(1, 1.5)) > 0.2


@pytest.mark.parametrize(
    ("rate", "psnr", "message"),
    [
        ([0.1, 0.2, 0.3], [30, 31, 32], "at least 4"),
        ([0.1, 0.2, 0.3, 0.4], [30, 31, 32], "as many rates"),
        ([[0.1, 0.2, 0.3, 0.4]], [[30, 31, 32, 33]], "as many rates"),
        ([0.0, 0.2, 0.3, 0.4], [30, 31, 32, 33], "positive"),
        ([0.1, 0.2, 0.3, 0.4], [30, 31, 32, math.inf], "finite"),
        ([0.1, 0.2, math.nan, 0.4], [30, 31, 32, 33], "finite"),
        ([0.1, 0.2, 0.3, 0.4], [30, 32, 31, 33], "rise"),
        ([0.1, 0.2, 0.2, 0.4], [30, 31, 32, 33], "rise"),
        ([0.1, 0.2, 0.3, 0.4], [10, 11, 12, 13], "common range"),
    ],
)
def test_unusable_curves(rate: Any, psnr: Any, message: str) -> None:
    good = CURVES["a"]
    with pytest.raises(CurveError, match=message):
        bd_rate(*good, rate, psnr)
    with pytest.raises(CurveError, match=message):
        bd_rate(rate, psnr, *good)


def test_unusable_options() -> None:
    a, b = CURVES["a"], CURVES["b"]
    with pytest.raises(CurveError, match="expected akima"):
        bd_rate(*a, *b, method="spline")  # type: ignore[arg-type]
    with pytest.raises(CurveError, match="limits 50 to 60"):
        bd_rate(*a, *b, psnr_range=(50, 60))
    with pytest.raises(CurveError, match="rate_range"):
        bd_psnr(*a, *b, rate_range=(0, 1))
