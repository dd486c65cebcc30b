"""What the core offers around the latents of the default model, beside what test_picture.py proves."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from latens import _native


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=50))
def test_tame_is_asinh(values):
    y = np.array(values, np.int32)[:, None, None]
    wanted = (np.arcsinh(y / 256.0) * 2048).clip(-32768, 32767)
    assert np.abs(_native.tame(y) - wanted).max() <= 0.505  # asinh of float32, then rounded


def test_tame_is_odd_where_its_table_ends():
    y = np.arange(-20_000, 20_001, dtype=np.int32)[:, None, None]
    found = _native.tame(y).ravel()
    assert (found == -found[::-1]).all()
    assert (np.diff(found) >= 0).all()
