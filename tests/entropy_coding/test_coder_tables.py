"""Tables: what is refused and why, and their construction from probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coder_strategies import patient
from hypothesis import given
from hypothesis import strategies as st

from latens import _CXX
from latens.entropy_coding import (
    CdfTables,
    decode,
    encode,
    pmf_to_quantized_cdf,
    pmfs_to_quantized_cdfs,
    reference,
)
from latens.errors import ShapeError, TableError

VECTORS = Path(__file__).parent.parent / "vectors" / "coder"
GOOD = [0, 100, 65536, 0]


@pytest.mark.parametrize(
    ("row", "size", "offset", "message"),
    [
        ([0, 65536, 0, 0], 2, 0, "size must be 3 to 4 entries, got 2"),
        (GOOD, 5, 0, "size must be 3 to 4 entries, got 5"),
        (GOOD, -1, 0, "size must be 3 to 4 entries, got -1"),
        ([1, 100, 65536, 0], 3, 0, "first entry must be 0, got 1"),
        ([0, 100, 100, 65536], 4, 0, r"increase strictly, but entry 2 \(100\)"),
        ([0, 100, 99, 65536], 4, 0, r"entry 2 \(99\)"),
        ([0, -5, 100, 65536], 4, 0, r"entry 1 \(-5\)"),
        ([0, 70000, 65536, 0], 3, 0, r"entry 2 \(65536\)"),
        ([0, 100, 65535, 0], 3, 0, "last entry must be 65536, got 65535"),
        ([0, 100, 2**31 - 1, 0], 3, 0, "last entry must be 65536, got 2147483647"),
        (GOOD, 3, 2**24 + 1, r"offset must lie within \+-16777216, got 16777217"),
        (GOOD, 3, -(2**31), "got -2147483648"),
    ],
)
def test_bad_tables_are_named(row: list[int], size: int, offset: int, message: str) -> None:
    with pytest.raises(TableError, match=f"table 1: .*{message}"):
        CdfTables([GOOD, row], [3, size], [0, offset])


def test_limits_of_a_set() -> None:
    with pytest.raises(TableError, match="expected 1 to 65536 tables, got 0"):
        CdfTables(np.zeros((0, 3), np.int32), [], [])
    with pytest.raises(TableError, match="expected 1 to 65536 tables, got 65537"):
        CdfTables(np.tile([0, 1, 65536], (65537, 1)), np.full(65537, 3), np.zeros(65537, int))
    full = np.arange(65537)
    with pytest.raises(TableError, match="2162688 symbols in total, the limit is 2097152"):
        CdfTables(np.tile(full, (33, 1)), np.full(33, 65537), np.zeros(33, int))
    largest = CdfTables([full], [65537], [-7])
    symbols = [-8, -7, 0, 60000, 65527, 65528, 65529, 70000]
    assert decode(encode(symbols, [0] * 8, largest), [0] * 8, largest).tolist() == symbols


@pytest.mark.parametrize(
    "arguments",
    [
        ([0, 1, 65536], [3], [0]),
        ([[0, 1, 65536]], [3, 3], [0]),
        ([[0, 1, 65536]], [3], [0, 0]),
        ([[0.0, 1.0, 65536.0]], [3], [0]),
        ([[0, 1, 2**40]], [3], [0]),
    ],
)
def test_shapes_of_tables(arguments: tuple[Any, Any, Any]) -> None:
    with pytest.raises(ShapeError):
        CdfTables(*arguments)


floats = st.floats(0, 1, width=32)


@patient
@given(
    st.one_of(
        st.lists(floats, min_size=1, max_size=60),
        st.lists(st.one_of(floats, st.just(0.0), st.just(2.0**-17)), min_size=1, max_size=200),
    ),
    st.sampled_from([8, 12, 16]),
)
def test_quantize_equals_twin(pmf: list[float], precision: int) -> None:
    try:
        expected = reference.quantize(pmf, precision)
    except TableError:
        with pytest.raises(TableError, match="round to zero"):
            pmf_to_quantized_cdf(pmf, precision)
        return
    cdf = pmf_to_quantized_cdf(pmf, precision)
    assert cdf == expected
    assert cdf[0] == 0
    assert cdf[-1] == 1 << precision
    assert all(np.diff(cdf) > 0)


def test_frozen_compressai_quantization() -> None:
    with np.load(VECTORS / "compressai.npz", allow_pickle=False) as archive:
        names = [key.split("/")[0] for key in archive.files if key.endswith("/pmf")]
        assert names
        pmfs = [archive[f"{name}/pmf"] for name in names]
        lengths = [pmf.size for pmf in pmfs]
        rows = np.full((len(pmfs), max(lengths)), np.nan, np.float32)  # padding must not be looked at
        for row, pmf in zip(rows, pmfs, strict=True):
            row[: pmf.size] = pmf
        tables = pmfs_to_quantized_cdfs(rows, lengths)
        for name, pmf, table in zip(names, pmfs, tables, strict=True):
            expected = archive[f"{name}/expected"].tolist()
            assert _CXX.pmf_to_quantized_cdf(pmf.tolist(), 16) == expected
            assert table[: pmf.size + 1].tolist() == expected
            assert not table[pmf.size + 1 :].any()


@pytest.mark.parametrize(
    ("pmf", "message"),
    [
        ([], "expected 1 to 0 probabilities, got 0"),
        ([0.5, float("nan")], "probability 1 is negative, not finite"),
        ([float("inf")], "probability 0"),
        ([0.5, -1e-9], "probability 1"),
        ([1e30], "probability 0"),
        ([0.0, 1e-9], "all probabilities round to zero"),
        ([1.0] * 65537, "expected 1 to 65536 probabilities, got 65537"),
    ],
)
def test_bad_distributions(pmf: list[float], message: str) -> None:
    with pytest.raises(TableError, match=f"distribution 0: .*{message}"):
        pmf_to_quantized_cdf(pmf)


def test_bad_batches() -> None:
    with pytest.raises(TableError, match="precision must be 1 to 16 bits, got 17"):
        pmf_to_quantized_cdf([1.0], 17)
    with pytest.raises(TableError, match="distribution 1: expected 1 to 2 probabilities, got 3"):
        pmfs_to_quantized_cdfs([[0.5, 0.5], [0.5, 0.5]], [2, 3])
    with pytest.raises(TableError, match="distribution 0: expected 1 to 2 probabilities, got -1"):
        pmfs_to_quantized_cdfs([[0.5, 0.5]], [-1])
    with pytest.raises(ShapeError):
        pmfs_to_quantized_cdfs([0.5, 0.5], [2])
    with pytest.raises(ShapeError):
        pmfs_to_quantized_cdfs([[0.5, 0.5]], [2, 2])


def test_a_table_of_one_symbol_per_slot() -> None:
    assert pmf_to_quantized_cdf([1.0] * 65536) == list(range(65537))
    assert pmf_to_quantized_cdf([0.3]) == [0, 65536]
