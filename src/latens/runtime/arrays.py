"""Named arrays in a file: the safetensors format, read and written with nothing but NumPy.

A file is 8 bytes with the length of a header, the header (JSON: for each array its type, shape and place), and the
arrays. Arrays are views of what was read: nothing is copied. https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from latens.errors import ModelError

__all__ = ["read_arrays", "write_arrays"]

Arrays = dict[str, npt.NDArray[Any]]

_HEADER_MAX = 16 << 20
_TYPES = {
    "I8": "<i1", "U8": "<u1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8",
    "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _TYPES.items()}
_METADATA = "__metadata__"


def read_arrays(data: bytes | memoryview) -> tuple[Arrays, dict[str, str]]:
    """The arrays of a file, not writable, and its metadata.

    Raises:
        ModelError: the file is damaged, or has arrays of types that NumPy lacks.
    """
    view = memoryview(data)
    length = int.from_bytes(view[:8], "little")
    if len(view) < 8 or length > min(_HEADER_MAX, len(view) - 8):
        raise ModelError("weights: not a safetensors file, or cut off")
    try:
        header = json.loads(bytes(view[8 : 8 + length]))
        metadata = header.pop(_METADATA, {})
        places = sorted((*map(int, entry["data_offsets"]), name) for name, entry in header.items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError("weights: the header is damaged") from error
    if not all(isinstance(text, str) for pair in metadata.items() for text in pair):
        raise ModelError("weights: the header is damaged")
    body, end, arrays = view[8 + length :], 0, {}
    for start, stop, name in places:
        # Neither gaps nor overlaps: what a file holds is what its hash stands for.
        if start != end or stop > len(body):
            raise ModelError(f"weights: {name!a:.80} lies outside the file, or over another array")
        arrays[name] = _array(header[name], body[start:stop], name)
        end = stop
    if end != len(body):
        raise ModelError("weights: there are bytes behind the last array")
    return arrays, metadata


def _array(entry: Mapping[str, Any], content: memoryview, name: str) -> npt.NDArray[Any]:
    kind, shape = str(entry.get("dtype")), entry.get("shape")
    known = kind in _TYPES and isinstance(shape, list)
    if not known or not all(type(n) is int and n >= 0 for n in shape):  # type: ignore[union-attr]
        raise ModelError(f"weights: {name!a:.80} has a type or shape that is not known")
    sizes: list[int] = list(shape)  # type: ignore[arg-type]
    # Python's integers do not overflow.
    if math.prod(sizes) * np.dtype(_TYPES[kind]).itemsize != len(content):
        raise ModelError(f"weights: {name!a:.80} has a type or shape that does not fit")
    array = np.frombuffer(content, _TYPES[kind]).reshape(sizes)
    return array if np.little_endian else array.astype(array.dtype.newbyteorder("="))


def write_arrays(arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a file: the same for the same content, for their hash is its identity."""
    # The widest first, so that all are aligned.
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header: dict[str, Any] = {_METADATA: dict(sorted(metadata.items()))}
    content, end = [], 0
    for name in order:
        array = np.asarray(arrays[name])
        stored = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
        start, end = end, end + stored.nbytes
        kind = _NAMES[np.dtype(stored.dtype.str)]
        header[name] = {"dtype": kind, "shape": list(stored.shape), "data_offsets": [start, end]}
        content.append(stored.tobytes())
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *content])
