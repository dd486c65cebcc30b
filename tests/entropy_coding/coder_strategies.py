"""Random tables and symbols for the coder's tests."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from latens.entropy_coding import CdfTables
from latens.entropy_coding.reference import Table

TOTAL = 1 << 16

# The twin is slow on purpose, and machines are slow by accident.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@st.composite
def tables(draw: st.DrawFn, max_offset: int = 300) -> list[Table]:
    """One to five tables: few symbols or hundreds, evenly spread or crowded at either end."""
    result = []
    for _ in range(draw(st.integers(1, 5))):
        symbols = draw(st.one_of(st.integers(2, 12), st.integers(2, 700)))
        inner: set[int] = set(draw(st.sets(st.integers(1, TOTAL - 1), max_size=symbols - 1)))
        crowd = draw(st.sampled_from([range(1, TOTAL), range(TOTAL - 1, 0, -1), range(97, TOTAL, 89)]))
        for cut in crowd:
            if len(inner) == symbols - 1:
                break
            inner.add(cut)
        offset = draw(st.integers(-max_offset, max_offset))
        result.append(Table((0, *sorted(inner), TOTAL), offset))
    return result


@st.composite
def coded(
    draw: st.DrawFn, tables: list[Table], low: int, high: int, max_size: int = 60
) -> list[tuple[int, int]]:
    """Symbols with the number of their table: most within it, some at its edges, some anywhere."""
    result = []
    for index in draw(st.lists(st.integers(0, len(tables) - 1), max_size=max_size)):
        table = tables[index]
        near = st.integers(-3, table.escape + 3).map(lambda s, table=table: s + table.offset)
        result.append((draw(st.one_of(near, near, st.integers(low, high))), index))
    return result


def native(tables: list[Table]) -> CdfTables:
    cdfs = np.zeros((len(tables), max(len(table.cdf) for table in tables)), np.int32)
    for row, table in zip(cdfs, tables, strict=True):
        row[: len(table.cdf)] = table.cdf
    return CdfTables(cdfs, [len(table.cdf) for table in tables], [table.offset for table in tables])
