"""The reader and writer of safetensors against the package of that name, and against damage."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load, save

from latens.errors import ModelError
from latens.runtime.arrays import read_arrays, write_arrays

_KINDS = st.sampled_from(["i1", "u1", "i2", "u2", "i4", "u4", "i8", "f2", "f4", "f8"])
_ARRAYS = st.dictionaries(
    st.text("abc.xyz_", min_size=1, max_size=8),
    _KINDS.flatmap(lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))),
    max_size=5,
)


def _same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and a[k].tobytes() == b[k].tobytes() for k in a
    )


@given(_ARRAYS)
def test_what_is_written_the_package_reads(arrays):
    assert _same(load(write_arrays(arrays, {"name": "x"})), arrays)


@given(_ARRAYS)
def test_what_the_package_writes_is_read(arrays):
    found, metadata = read_arrays(save(arrays, {"name": "x"}))
    assert _same(found, arrays)
    assert metadata == {"name": "x"}


def test_the_same_content_has_the_same_bytes():
    a, b = np.arange(3, dtype=np.int16), np.ones((2, 2))
    one = write_arrays({"a": a, "b": b}, {"x": "1", "y": "2"})
    assert one == write_arrays({"b": b, "a": a}, {"y": "2", "x": "1"})
    found, _ = read_arrays(one)
    assert all(array.flags.aligned for array in found.values())


def _file(header: object, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


_ENTRY = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        (1 << 60).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[}",
        _file([]),
        _file({"a": 3}),
        _file({"a": {**_ENTRY, "data_offsets": [0, 3]}}, b"12"),
        _file({"a": {**_ENTRY, "data_offsets": [-1, 1]}}, b"12"),
        _file({"a": {**_ENTRY, "shape": [3]}}, b"12"),
        _file({"a": {**_ENTRY, "shape": [-2]}}, b"12"),
        _file({"a": {**_ENTRY, "shape": [2**40, 2**40]}}, b"12"),
        _file({"a": {**_ENTRY, "dtype": "BF16"}}, b"12"),
        _file({"a": _ENTRY, "b": {**_ENTRY, "data_offsets": [1, 3]}}, b"123"),
        _file({"a": _ENTRY}, b"123"),
        _file({"a": _ENTRY, "__metadata__": {"x": 1}}, b"12"),
        b"\x10\x27\x00\x00\x00\x00\x00\x00" + b"[" * 10_000,
    ],
)
def test_damage_is_an_error(data):
    with pytest.raises(ModelError):
        read_arrays(data)
