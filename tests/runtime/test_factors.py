"""Factors in integers against floating point."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latens.errors import ModelError
from latens.runtime.factors import QUALITY_MAX, Factors


@given(
    st.integers(0, QUALITY_MAX),
    st.lists(st.floats(-20, 20), min_size=2, max_size=6),
)
def test_factors_are_powers_of_interpolated_logarithms(quality, knots):
    factors = Factors.of(np.array(knots)[:, None])
    m, s = factors.at(quality)
    place = quality / QUALITY_MAX * (len(knots) - 1)
    wanted = 2.0 ** np.interp(place, range(len(knots)), knots)
    assert m[0] * 2.0 ** -int(s[0]) == pytest.approx(wanted, rel=2**-14 + 2**-15)
    assert 0 <= m[0] < 2**15


def test_a_finer_unit_is_a_shift():
    one, other = Factors.of(np.array([[0.3], [4.0]])), Factors.of(np.array([[0.3], [4.0]]), bits=3)
    for quality in (0, 1000, QUALITY_MAX):
        (m, s), (n, t) = one.at(quality), other.at(quality)
        assert (m == n).all()
        assert (s == t + 3).all()


@pytest.mark.parametrize(
    "logs",
    [
        np.zeros((1, 3), np.int32),
        np.zeros((2, 0), np.int32),
        np.zeros((2, 3), np.int64),
        np.full((2, 3), 30 << 16, np.int32),
        np.full((2, 3), -(33 << 16), np.int32),
    ],
)
def test_factors_out_of_range_are_refused(logs):
    with pytest.raises(ModelError):
        Factors(logs)
