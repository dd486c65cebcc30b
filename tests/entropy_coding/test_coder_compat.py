"""The faces that code written for CompressAI uses."""

from __future__ import annotations

import numpy as np
import pytest

from latens.ans import BufferedRansEncoder, RansDecoder, RansEncoder
from latens.entropy_coding import CdfTables, encode
from latens.errors import CoderError, TableError

CDFS = [[0, 10, 65536], [0, 20000, 40000, 60000, 65536]]
SIZES = [3, 5]
OFFSETS = [0, -1]
TABLES = (CDFS, SIZES, OFFSETS)
PADDED = np.array([[0, 10, 65536, 0, 0], CDFS[1]])
SYMBOLS = [0, 1, 77, -1, -300, 0]
INDEXES = [0, 1, 0, 1, 1, 0]


def test_lists_and_arrays_give_one_stream() -> None:
    expected = encode(SYMBOLS, INDEXES, CdfTables(PADDED, SIZES, OFFSETS))
    arrays = (PADDED, np.array(SIZES), np.array(OFFSETS))
    assert RansEncoder().encode_with_indexes(SYMBOLS, INDEXES, *TABLES) == expected
    assert RansEncoder().encode_with_indexes(np.array(SYMBOLS), np.array(INDEXES), *arrays) == expected
    decoded = RansDecoder().decode_with_indexes(expected, INDEXES, *TABLES)
    assert type(decoded) is list
    assert decoded == RansDecoder().decode_with_indexes(expected, np.array(INDEXES), *arrays) == SYMBOLS
    assert all(type(symbol) is int for symbol in decoded)


def test_several_calls() -> None:
    expected = encode(SYMBOLS, INDEXES, CdfTables(PADDED, SIZES, OFFSETS))
    encoder = BufferedRansEncoder()
    for _ in range(2):
        for symbol, index in zip(SYMBOLS, INDEXES, strict=True):
            encoder.encode_with_indexes([symbol], [index], *TABLES)
        assert encoder.flush() == expected
    assert encoder.flush().hex() == "0000008000000000"
    decoder = RansDecoder()
    for _ in range(2):
        decoder.set_stream(expected)
        assert [decoder.decode_stream([index], *TABLES)[0] for index in INDEXES] == SYMBOLS


def test_a_part_of_a_stream_may_be_decoded() -> None:
    stream = RansEncoder().encode_with_indexes(SYMBOLS, INDEXES, *TABLES)
    assert RansDecoder().decode_with_indexes(stream, INDEXES[:2], *TABLES) == SYMBOLS[:2]


def test_lists_changed_in_place_are_noticed() -> None:
    encoder = RansEncoder()
    for make in (lambda: [list(row) for row in CDFS], PADDED.copy):
        cdfs = make()
        first = encoder.encode_with_indexes(SYMBOLS, INDEXES, cdfs, SIZES, OFFSETS)
        cdfs[0][1] = 60000
        second = encoder.encode_with_indexes(SYMBOLS, INDEXES, cdfs, SIZES, OFFSETS)
        assert second != first
        assert second == RansEncoder().encode_with_indexes(SYMBOLS, INDEXES, cdfs, SIZES, OFFSETS)


def test_errors() -> None:
    with pytest.raises(CoderError, match="call set_stream first"):
        RansDecoder().decode_stream([0], *TABLES)
    with pytest.raises(CoderError, match="cannot exist"):
        RansDecoder().set_stream(b"abc")
    with pytest.raises(TableError, match="table 0"):
        RansEncoder().encode_with_indexes([0], [0], [[0, 0, 65536]], [3], [0])
    with pytest.raises(CoderError, match="names no table"):
        RansEncoder().encode_with_indexes([0], [2], *TABLES)
