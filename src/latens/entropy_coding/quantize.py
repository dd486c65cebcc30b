"""From probabilities to integer CDF tables."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latens import _native
from latens.entropy_coding.arrays import exact
from latens.errors import ShapeError, TableError


def pmf_to_quantized_cdf(pmf: ArrayLike, precision: int = 16) -> list[int]:
    """The CDF table of one distribution: ``len(pmf) + 1`` integers increasing from 0 to ``2**precision``.

    Probabilities are rounded in float32; every symbol gets at least one slot, taken from the symbol that has
    the fewest but more than one. The result equals that of CompressAI's function of the same name.

    Args:
        pmf: 1 to 2^precision probabilities, each 0 to 32,768; they need not sum to 1.
        precision: 1 to 16 bits.

    Raises:
        TableError: if there are too many symbols or a probability is negative, NaN or too large, or all
            round to 0.
    """
    row = np.asarray(pmf, np.float32)
    if row.ndim != 1:
        raise ShapeError(f"expected probabilities [n], got shape {row.shape}")
    table: list[int] = pmfs_to_quantized_cdfs(row[None], [row.size], precision)[0].tolist()
    return table


def pmfs_to_quantized_cdfs(pmfs: ArrayLike, lengths: ArrayLike, precision: int = 16) -> NDArray[np.int32]:
    """The CDF tables of many distributions at once.

    Args:
        pmfs: float32 [n, max_len]; row ``i`` uses its first ``lengths[i]`` entries, and the last of these is
            the escape's probability (the tail mass).
        lengths: integers [n], each 1 to max_len.
        precision: 1 to 16 bits.

    Returns:
        int32 [n, max_len + 1]; row ``i`` holds ``lengths[i] + 1`` entries, then zeros.

    Raises:
        TableError: naming the first bad distribution and what is wrong with it.
    """
    rows = np.ascontiguousarray(np.asarray(pmfs, np.float32))
    sizes = exact("lengths", lengths, np.dtype(np.int32))
    if rows.ndim != 2 or sizes.ndim != 1:
        raise ShapeError(f"expected pmfs [n, max_len] and lengths [n], got {rows.shape} and {sizes.shape}")
    if not 1 <= precision <= 16:
        raise TableError(f"precision must be 1 to 16 bits, got {precision}")
    cdfs = np.zeros((rows.shape[0], rows.shape[1] + 1), np.int32)
    _native.quantize(rows, sizes, precision, cdfs)
    return cdfs
