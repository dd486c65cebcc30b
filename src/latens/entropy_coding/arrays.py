"""What may cross to the native code: contiguous arrays of a few integer types, converted only if needed."""

from __future__ import annotations

from array import array
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latens.errors import ShapeError

_NATIVE = (np.dtype(np.uint8), np.dtype(np.int16), np.dtype(np.int32))


def integers(name: str, values: ArrayLike) -> NDArray[Any]:
    """``values`` as a C-contiguous uint8, int16 or int32 array: itself if it is one, else a converted copy.

    Raises:
        ShapeError: if the values are not integers of at most 32 bits.
    """
    if isinstance(values, list):
        # Much faster than NumPy's way, and callers of the compatible interface bring long lists.
        with suppress(TypeError, OverflowError):
            return np.array(array("i", values))
    found = np.asarray(values)
    return exact(name, found, found.dtype if found.dtype in _NATIVE else np.dtype(np.int32))


def exact(name: str, values: ArrayLike, dtype: np.dtype[Any]) -> NDArray[Any]:
    """``values`` as a C-contiguous array of integers of type ``dtype``, none of them changed.

    Raises:
        ShapeError: if the values are not integers, or do not fit.
    """
    found = np.asarray(values)
    if found.dtype == dtype:
        return np.ascontiguousarray(found) if found.ndim else found
    if found.size == 0:
        return np.zeros(found.shape, dtype)
    if found.dtype.kind not in "iu":
        raise ShapeError(f"{name}: expected integers, got an array of {found.dtype}")
    info = np.iinfo(dtype)
    if found.min() < info.min or found.max() > info.max:
        raise ShapeError(f"{name}: expected values that fit into {dtype}, got {found.min()} to {found.max()}")
    return np.ascontiguousarray(found, dtype)
