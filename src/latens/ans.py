"""The coder under the names and signatures of ``compressai.ans``; streams are the same, byte by byte.

New code should use :mod:`latens.entropy_coding`: it checks tables once instead of on every call, and takes
arrays. Here, too, arrays are accepted wherever lists are, and the last tables are remembered, because callers
pass the same ones for every position of an autoregressive model.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latens.entropy_coding import CdfTables, Decoder, Encoder
from latens.entropy_coding.arrays import integers
from latens.errors import CoderError

__all__ = ["BufferedRansEncoder", "RansDecoder", "RansEncoder"]

Ints = Sequence[int] | NDArray[Any]
Rows = Sequence[Sequence[int]] | NDArray[Any]


class _LastTables:
    """The tables of the last call. They are compared by value: a caller may change its lists in place."""

    def __init__(self) -> None:
        self._arguments: list[Any] = []
        self._tables: CdfTables | None = None

    def __call__(self, cdfs: Rows, cdfs_sizes: Ints, offsets: Ints) -> CdfTables:
        arguments = (cdfs, cdfs_sizes, offsets)
        if self._tables is None or not all(map(_same, arguments, self._arguments)):
            self._tables = CdfTables(_rectangle(cdfs), np.asarray(cdfs_sizes), np.asarray(offsets))
            self._arguments = [copy(argument) for argument in arguments]
            if not isinstance(cdfs, np.ndarray):
                self._arguments[0] = [copy(row) for row in cdfs]
        return self._tables


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b)


def _rectangle(cdfs: Rows) -> NDArray[Any]:
    """Rows of any lengths as one array, filled up with zeros."""
    if isinstance(cdfs, np.ndarray):
        return cdfs
    rows = [integers("cdfs", row) for row in cdfs]
    result = np.zeros((len(rows), max((row.size for row in rows), default=0)), np.int32)
    for target, row in zip(result, rows, strict=True):
        target[: row.size] = row
    return result


class BufferedRansEncoder:
    """Collects symbols over several calls; :meth:`flush` writes them and starts anew."""

    def __init__(self) -> None:
        self._encoder = Encoder()
        self._tables = _LastTables()

    def encode_with_indexes(
        self, symbols: Ints, indexes: Ints, cdfs: Rows, cdfs_sizes: Ints, offsets: Ints
    ) -> None:
        """Appends ``symbols``, each coded with the row of ``cdfs`` that ``indexes`` names.

        Raises:
            TableError: if the tables are not valid.
            CoderError: if an index names no table, or a symbol is too far from its table.
        """
        self._encoder.push(symbols, indexes, self._tables(cdfs, cdfs_sizes, offsets))

    def flush(self) -> bytes:
        """The stream of all symbols so far; without any, the bare state."""
        stream = self._encoder.finish()
        self._encoder = Encoder()
        return stream


class RansEncoder:
    """Writes a stream in one call."""

    def __init__(self) -> None:
        self._tables = _LastTables()

    def encode_with_indexes(
        self, symbols: Ints, indexes: Ints, cdfs: Rows, cdfs_sizes: Ints, offsets: Ints
    ) -> bytes:
        """The stream of ``symbols``. See :meth:`BufferedRansEncoder.encode_with_indexes`."""
        encoder = Encoder()
        encoder.push(symbols, indexes, self._tables(cdfs, cdfs_sizes, offsets))
        return encoder.finish()


class RansDecoder:
    """Reads a stream in one call, or in several after :meth:`set_stream`.

    As in the original, nothing checks that the whole stream was read;
    :func:`latens.entropy_coding.decode` does.
    """

    def __init__(self) -> None:
        self._decoder: Decoder | None = None
        self._tables = _LastTables()

    def decode_with_indexes(
        self, encoded: bytes, indexes: Ints, cdfs: Rows, cdfs_sizes: Ints, offsets: Ints
    ) -> list[int]:
        """The first ``len(indexes)`` symbols of ``encoded``.

        Raises:
            TableError: if the tables are not valid.
            CoderError: if the stream ends early or is damaged.
        """
        tables = self._tables(cdfs, cdfs_sizes, offsets)
        symbols: list[int] = Decoder(encoded).decode(indexes, tables).tolist()
        return symbols

    def set_stream(self, encoded: bytes) -> None:
        """Starts at the beginning of ``encoded``."""
        self._decoder = Decoder(encoded)

    def decode_stream(self, indexes: Ints, cdfs: Rows, cdfs_sizes: Ints, offsets: Ints) -> list[int]:
        """The next ``len(indexes)`` symbols.

        Raises:
            TableError: if the tables are not valid.
            CoderError: without :meth:`set_stream`, or if the stream ends early or is damaged.
        """
        if self._decoder is None:
            raise CoderError("no stream to decode: call set_stream first")
        tables = self._tables(cdfs, cdfs_sizes, offsets)
        symbols: list[int] = self._decoder.decode(indexes, tables).tolist()
        return symbols
