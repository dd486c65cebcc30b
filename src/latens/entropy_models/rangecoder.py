"""The range coder of ``constriction`` behind the interface of the library's own coder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latens.entropy_coding import CdfTables
from latens.errors import CoderError, UnavailableError

__all__ = ["RangeCoder"]

IntArray = NDArray[np.int32]

_ESCAPE_BITS = 16
"""Escaped values are written as two uniform numbers of so many bits."""


class RangeCoder:
    """An adapter to ``constriction.stream.queue``: symbols come out in the order in which they went in.

    Within one call, symbols are grouped by table, which costs one call of ``constriction`` per table; values
    outside of a table follow at the end. Streams are this library's own: nothing else reads them.

    Bamler, "Understanding entropy coding with asymmetric numeral systems (ANS)", 2022; range coding: Martin,
    "Range encoding", 1979.
    """

    name = "rangecoder"

    def __init__(self) -> None:
        try:
            import constriction  # noqa: F401
        except ImportError as error:
            raise UnavailableError(
                'the entropy coder "rangecoder" needs the package constriction: pip install constriction'
            ) from error

    def register(self, cdfs: IntArray, sizes: IntArray, offsets: IntArray) -> _Tables:
        CdfTables(cdfs, sizes, offsets)  # raises TableError for whatever is wrong with them
        return _Tables(cdfs, sizes, offsets)

    def encoder(self) -> _Encoder:
        return _Encoder()

    def decoder(self, data: bytes) -> _Decoder:
        return _Decoder(data)


class _Tables:
    def __init__(self, cdfs: IntArray, sizes: IntArray, offsets: IntArray) -> None:
        self.cdfs, self.sizes, self.offsets = cdfs.copy(), sizes.copy(), offsets.copy()
        self._models: dict[int, Any] = {}

    def escape(self, table: int) -> int:
        """The last symbol of a table, which stands for all values outside."""
        return int(self.sizes[table]) - 2

    def model(self, table: int) -> Any:
        if table not in self._models:
            # Multiples of 2^-16, which the 24 bits of constriction hold exactly or nearly so.
            frequencies = np.diff(self.cdfs[table, : self.sizes[table]])
            self._models[table] = _stream().model.Categorical(
                frequencies.astype(np.float64) / 2**16, perfect=False
            )
        return self._models[table]

    def groups(self, indexes: IntArray) -> Iterator[tuple[int, NDArray[np.intp]]]:
        """Every table in use, and where.

        Raises:
            CoderError: an index names no table.
        """
        if indexes.size == 0:
            return
        if indexes.min() < 0 or indexes.max() >= len(self.sizes):
            raise CoderError(
                f"indexes must be 0 to {len(self.sizes) - 1}, got {indexes.min()} to {indexes.max()}"
            )
        order = np.argsort(indexes, kind="stable")
        starts = np.flatnonzero(np.diff(indexes[order], prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
            yield int(indexes[order[start]]), order[start:end]


def _stream() -> Any:
    # Imported late, because it is optional.
    import constriction

    return constriction.stream


def _uniform() -> Any:
    return _stream().model.Uniform(2**_ESCAPE_BITS)


class _Encoder:
    def __init__(self) -> None:
        self._encoder = _stream().queue.RangeEncoder()

    def push(self, symbols: IntArray, indexes: IntArray, tables: _Tables) -> None:
        symbols, indexes = symbols.reshape(-1), indexes.reshape(-1)
        escaped: list[IntArray] = []
        for table, positions in tables.groups(indexes):
            values = symbols[positions]
            escape = tables.escape(table)
            coded = values.astype(np.int64) - tables.offsets[table]
            outside = (coded < 0) | (coded >= escape)
            coded[outside] = escape
            self._encoder.encode(coded.astype(np.int32), tables.model(table))
            escaped.append(values[outside])
        if escaped:
            halves = np.concatenate(escaped).astype("<i4").view("<u2").astype(np.int32)
            self._encoder.encode(halves, _uniform())

    def finish(self) -> bytes:
        data: bytes = self._encoder.get_compressed().astype("<u4").tobytes()
        return data


class _Decoder:
    def __init__(self, data: bytes) -> None:
        if len(data) % 4:
            raise CoderError(f"a stream of the range coder has a multiple of 4 bytes, not {len(data)}")
        self._decoder = _stream().queue.RangeDecoder(np.frombuffer(data, "<u4").astype(np.uint32))

    def decode(self, indexes: IntArray, tables: _Tables) -> IntArray:
        out = np.empty(indexes.shape, np.int32)
        symbols, rows = out.reshape(-1), indexes.reshape(-1)
        escaped: list[NDArray[np.intp]] = []
        for table, positions in tables.groups(rows):
            values = self._decode(len(positions), tables.model(table))
            symbols[positions] = values + tables.offsets[table]
            escaped.append(positions[values == tables.escape(table)])
        if escaped:
            where = np.concatenate(escaped)
            halves = self._decode(2 * len(where), _uniform())
            symbols[where] = halves.astype("<u2").view("<i4")
        return out

    def _decode(self, count: int, model: Any) -> NDArray[np.int32]:
        try:
            values: NDArray[np.int32] = self._decoder.decode(model, count)
        except (ValueError, AssertionError) as error:
            raise CoderError(f"the stream is damaged: {error}") from error
        return values

    def finish(self) -> None:
        if not self._decoder.maybe_exhausted():
            raise CoderError("something of the stream is left over: it is damaged, or made with other tables")
