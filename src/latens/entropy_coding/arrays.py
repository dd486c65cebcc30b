"""What may cross to the native code: contiguous arrays of a few integer types, converted only if needed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latens.errors import ShapeError

NATIVE_DTYPES = (np.dtype(np.uint8), np.dtype(np.int16), np.dtype(np.int32))


def integers(name: str, values: ArrayLike) -> NDArray[Any]:
    """``values`` as a C-contiguous uint8, int16 or int32 array: itself if it is one, else a converted copy.

    Raises:
        ShapeError: if the values are not integers of at most 32 bits.
    """
    array = np.asarray(values)
    if array.dtype in NATIVE_DTYPES:
        return np.ascontiguousarray(array) if array.ndim else array
    return exact(name, array, np.dtype(np.int32))


def exact(name: str, values: ArrayLike, dtype: np.dtype[Any]) -> NDArray[Any]:
    """``values`` as a C-contiguous array of integers of type ``dtype``, none of them changed.

    Raises:
        ShapeError: if the values are not integers, or do not fit.
    """
    array = np.asarray(values)
    if array.dtype == dtype:
        return np.ascontiguousarray(array) if array.ndim else array
    if array.size == 0:
        return np.zeros(array.shape, dtype)
    if array.dtype.kind not in "iu":
        raise ShapeError(f"{name}: expected integers, got an array of {array.dtype}")
    info = np.iinfo(dtype)
    if array.min() < info.min or array.max() > info.max:
        raise ShapeError(f"{name}: expected values that fit into {dtype}, got {array.min()} to {array.max()}")
    return np.ascontiguousarray(array, dtype)
