"""The Python face of the native coder."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latens import _native
from latens.entropy_coding.arrays import exact, integers
from latens.errors import CoderError, ShapeError

Buffer = bytes | bytearray | memoryview


class CdfTables:
    """Cumulative distribution tables, checked once and held in the forms the coder wants.

    Table ``i`` consists of the first ``sizes[i]`` entries of ``cdfs[i]``, which increase strictly from 0 to
    2^16: one more than it has symbols. Its symbols stand for ``offsets[i]``, ``offsets[i] + 1``, ...; the
    last one is the escape, after which any value outside of that range is written in full.

    Args:
        cdfs: integers [n, max_len]; entries beyond a table's size are ignored.
        sizes: integers [n], each 3 to 65,537.
        offsets: integers [n], each within +-2^24.

    Raises:
        TableError: naming the first bad table and what is wrong with it.
        ShapeError: if the arrays do not fit together.
    """

    def __init__(self, cdfs: ArrayLike, sizes: ArrayLike, offsets: ArrayLike) -> None:
        int32 = np.dtype(np.int32)
        arrays = [
            exact(name, array, int32)
            for name, array in (("cdfs", cdfs), ("sizes", sizes), ("offsets", offsets))
        ]
        if [array.ndim for array in arrays] != [2, 1, 1]:
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise ShapeError(f"expected cdfs [n, max_len], sizes [n] and offsets [n], got shapes {shapes}")
        self._native = _native.Tables(*arrays)
        # Of their own, so that tables can be copied and pickled, whatever becomes of the caller's arrays.
        self._arrays = tuple(array.copy() for array in arrays)

    def __reduce__(self) -> tuple[type[CdfTables], tuple[NDArray[np.int32], ...]]:
        return CdfTables, self._arrays

    def __len__(self) -> int:
        """The number of tables."""
        return len(self._native)


class Encoder:
    """Writes the compatible stream; symbols may come in several calls.

    >>> tables = CdfTables([[0, 30000, 60000, 65536]], [4], [0])
    >>> encoder = Encoder()
    >>> encoder.push([0, 1, 0], [0, 0, 0], tables)
    >>> encoder.push([7], [0], tables)
    >>> encoder.finish().hex()
    'c10f97d3b43d0000'
    """

    def __init__(self) -> None:
        self._native = _native.Encoder(_native.STREAM_ESCAPE_NIBBLES)

    def __len__(self) -> int:
        """The number of symbols pushed so far."""
        return len(self._native)

    def push(self, symbols: ArrayLike, indexes: ArrayLike, tables: CdfTables) -> None:
        """Appends ``symbols``, each coded with the table that ``indexes`` names, in C order.

        Contiguous arrays of int32 or int16 (indexes also uint8) are read in place.

        Raises:
            CoderError: if an index names no table, or a symbol is too far from its table (2^31); nothing is
                appended then.
            ShapeError: if the two differ in size or are not integers.
        """
        self._native.push(integers("symbols", symbols), integers("indexes", indexes), tables._native, 0)

    def finish(self) -> bytes:
        """The stream of all symbols pushed. It can be called again; the encoder is not changed."""
        return self._native.finish_stream()


class Decoder:
    """Reads the compatible stream, in as many calls as wanted.

    Raises:
        CoderError: if ``data`` cannot be a stream; from :meth:`decode`, if it turns out to be damaged.
    """

    def __init__(self, data: Buffer) -> None:
        self._native = _native.StreamDecoder(np.frombuffer(data, np.uint8))

    def decode(self, indexes: ArrayLike, tables: CdfTables) -> NDArray[np.int32]:
        """The next ``indexes.size`` symbols, in the shape of ``indexes``.

        Raises:
            CoderError: if the stream ends early or holds an impossible escape, or an index names no table.
                The decoder is of no use afterwards.
        """
        index = integers("indexes", indexes)
        out = np.empty(index.shape, np.int32)
        self._native.decode(index, tables._native, out)
        return out

    def finish(self) -> None:
        """Checks that decoding ended exactly where encoding began: same state, nothing left over.

        Nearly all damage shows here, but not all: a changed bit within an escaped value leaves no trace in
        the state.

        Raises:
            CoderError: if it did not: the data are damaged, or tables, indexes or their number differ.
        """
        self._native.finish()


def encode(symbols: ArrayLike, indexes: ArrayLike, tables: CdfTables) -> bytes:
    """The compatible stream of ``symbols``. See :class:`Encoder`."""
    encoder = Encoder()
    encoder.push(symbols, indexes, tables)
    return encoder.finish()


def decode(data: Buffer, indexes: ArrayLike, tables: CdfTables) -> NDArray[np.int32]:
    """The symbols of a whole compatible stream, in the shape of ``indexes``. See :class:`Decoder`."""
    decoder = Decoder(data)
    symbols = decoder.decode(indexes, tables)
    decoder.finish()
    return symbols


def choose_lanes(symbols: int) -> int:
    """How many lanes to use for so many coded symbols: 1, 2, 4 or 8.

    A lane costs 5 bytes and pays in speed, some nanoseconds a symbol, which a short stream does not need.
    """
    for lanes in (8, 4, 2):
        if symbols >= lanes << 17:
            return lanes
    return 1


class LaneEncoder:
    """Writes the lane stream; several arrays may share it, with tables of their own."""

    def __init__(self) -> None:
        self._native = _native.Encoder(_native.LANE_ESCAPE_NIBBLES)

    def __len__(self) -> int:
        """The number of symbols to be coded so far; skipped positions do not count."""
        return len(self._native)

    def push(self, symbols: ArrayLike, indexes: ArrayLike, tables: CdfTables, skip_below: int = 0) -> None:
        """Appends ``symbols`` (int16), each coded with the table that ``indexes`` names, in C order.

        Positions whose index is below ``skip_below`` are not coded and must hold 0. Contiguous arrays of
        int16 (indexes also uint8) are read in place.

        Raises:
            CoderError: if an index names no table, a skipped symbol is not 0, or a symbol is too far from its
                table (2^15); nothing is appended then.
            ShapeError: if the two differ in size, or symbols do not fit into int16.
        """
        symbol = exact("symbols", symbols, np.dtype(np.int16))
        self._native.push(symbol, integers("indexes", indexes), tables._native, _limit(skip_below))

    def finish(self, lanes: int | None = None) -> bytes:
        """The stream of all symbols pushed, in 1, 2, 4 or 8 lanes: by default :func:`choose_lanes` of their number.

        Raises:
            CoderError: if there cannot be so many lanes.
        """
        return self._native.finish_lanes(choose_lanes(len(self)) if lanes is None else lanes)


class LaneDecoder:
    """Reads the lane stream, array by array in the order in which they were pushed.

    Args:
        data: the stream, which is read in place.
        lanes: the number of lanes it was written with.

    Raises:
        CoderError: if ``data`` cannot be a stream; from :meth:`decode`, if it turns out to be damaged.
    """

    def __init__(self, data: Buffer, lanes: int) -> None:
        self._native = _native.LaneDecoder(np.frombuffer(data, np.uint8), lanes)

    def decode(self, indexes: ArrayLike, tables: CdfTables, skip_below: int = 0) -> NDArray[np.int16]:
        """The symbols of the next array, in the shape of ``indexes``; skipped positions are 0.

        Raises:
            CoderError: if the stream ends early or holds an impossible escape, or an index names no table.
                The decoder is of no use afterwards.
            TableError: if a table has symbols that are no int16.
        """
        index = integers("indexes", indexes)
        out = np.empty(index.shape, np.int16)
        self._native.decode(index, tables._native, out, _limit(skip_below))
        return out

    def finish(self) -> None:
        """Checks that decoding ended exactly where encoding began: same states, nothing left over.

        Nearly all damage shows here, but not all: a changed bit within an escaped value leaves no trace in
        the states. A file format needs a checksum of its own.

        Raises:
            CoderError: if it did not: the data are damaged, or tables, indexes or their number differ.
        """
        self._native.finish()


def _limit(skip_below: int) -> int:
    if not 0 <= skip_below <= 65_536:
        raise CoderError(f"skip_below must be 0 to 65,536, got {skip_below}")
    return skip_below
