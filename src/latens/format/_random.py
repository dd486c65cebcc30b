"""Single chunks of a still image's file: what is wanted is read, and the rest is not."""

from __future__ import annotations

import os
import stat
import threading
import zlib
from pathlib import Path
from typing import Protocol

from latens.errors import FormatError, LimitError, TruncatedError
from latens.format._container import (
    _MAX_UNKNOWN,
    _NAMES,
    _ORDER,
    ALPHA,
    DRAWN,
    END,
    INDEX,
    OPTIONAL,
    PIXELS,
    PREVIEW,
    TILE,
    Container,
    Tile,
    _Chunk,
    _Collector,
    _next_chunk,
    unpack_index,
    unpack_tile,
)
from latens.format._geometry import max_stream_size
from latens.format._header import MAX_HEADER_SIZE, Limits, unpack_header
from latens.format._wire import VARINT_BYTES, Reader

__all__ = ["FileSource", "PathSource", "RandomReader", "Source"]

_HEAD = 1 << 12
_BLOCK = 1 << 16
_FRAME = 1 + VARINT_BYTES  # of type and length
_TAIL_BLOCK = 1 << 14


class Source(Protocol):
    """Bytes that can be had from any place; from several threads at once."""

    @property
    def size(self) -> int:
        """How many there are."""

    def read_at(self, offset: int, size: int) -> bytes:
        """So many bytes from a place; fewer only where they end."""


class Seekable(Protocol):
    """What is used of a file."""

    def seek(self, offset: int, whence: int = ..., /) -> int:
        """As of any file."""

    def read(self, size: int = ..., /) -> bytes:
        """As of any file."""


class FileSource:
    """A binary file that can be sought, from its beginning on.

    Args:
        file: it is not closed here.

    Raises:
        FormatError: it cannot be sought.
    """

    def __init__(self, file: Seekable) -> None:
        self._file, self._lock = file, threading.Lock()
        try:
            self.size = file.seek(0, os.SEEK_END)
        except (OSError, ValueError, AttributeError) as error:
            raise FormatError("the file cannot be sought; read it whole") from error

    def read_at(self, offset: int, size: int) -> bytes:
        """See :class:`Source`."""
        with self._lock:
            self._file.seek(offset)
            data = bytearray()
            while len(data) < size:
                # What is allocated follows what really arrives.
                piece = self._file.read(min(size - len(data), 1 << 20))
                if not piece:
                    break
                data += piece
        return bytes(data)


class PathSource:
    """A file of the disk, which is open only while it is read.

    Args:
        path: of the file.

    Raises:
        OSError: there is none.
        FormatError: something else than a regular file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        status = self._path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise FormatError("not a regular file")
        self.size = status.st_size

    def read_at(self, offset: int, size: int) -> bytes:
        """See :class:`Source`."""
        with self._path.open("rb") as file:
            return FileSource(file).read_at(offset, size)


class RandomReader:
    """A file of which only some chunks are read: all but tiles, alpha and preview at once, those when asked for.

    Tiles are found by the index of the file if it has one, else by going from chunk to chunk, of which the heads are
    read. What is read is checked as by :func:`latens.format.read`; what is not read may be damaged.

    Args:
        source: where the bytes come from.
        limits: as for :func:`latens.format.read`.

    Attributes:
        header: of the file.
        container: everything but the tiles, alpha and preview.

    Raises:
        FormatError, LimitError: as :func:`latens.format.read`.
    """

    def __init__(self, source: Source, limits: Limits | None = None) -> None:
        self._source, self._limits = source, limits or Limits()
        self._cache = (0, b"")
        head = self._at(0, _HEAD)
        self.header, start = unpack_header(memoryview(head)[:MAX_HEADER_SIZE], self._limits)
        self._collector = _Collector(self.header, self._limits)
        self._rects = self._collector.rects
        self._alpha: tuple[int, int] | None = None
        self._alpha_known = False
        self._preview: tuple[int, int] | None = None
        self._tiles: list[tuple[int, int]] = []
        self._lock = threading.Lock()
        if source.size > self.header.max_file_size(self._limits):
            raise LimitError(f"the file is longer than its header allows ({source.size} bytes)")
        position = self._front(start)
        if not self._by_index(position):
            self._walk(position)

    @property
    def container(self) -> Container:
        return self._collector.container

    @property
    def has_alpha(self) -> bool:
        """Whether the picture has alpha."""
        return self._collector.alpha

    def tile(self, number: int) -> Tile:
        """A tile of the file.

        Raises:
            TruncatedError, ChecksumError, FormatError: it is cut, damaged, or something else.
        """
        chunk = self._chunk(*self._tiles[number], "a tile")
        if chunk.kind not in (TILE, DRAWN):
            raise FormatError(
                f"{chunk.name} at byte {self._tiles[number][0]}, where tile {number} was expected"
            )
        reader = Reader(chunk.payload)
        found = reader.varint("a tile's number") if len(self._rects) > 1 else 0
        if found != number:
            raise FormatError(
                f"tile {found} at byte {self._tiles[number][0]}, where tile {number} was expected"
            )
        return unpack_tile(chunk.kind, reader, chunk.payload, number, self._rects[number], self.header)

    def with_alpha(self) -> Container:
        """:attr:`container` with alpha, if the file has any.

        Raises:
            TruncatedError, ChecksumError, FormatError: it is cut or damaged.
        """
        with self._lock:
            if self._alpha is not None and not self._alpha_known:
                self._collector.add(self._chunk(*self._alpha, "alpha"), strict=False)
            self._alpha_known = True
        return self.container

    def preview(self) -> bytes | None:
        """The `.ltn` file of the picture at an eighth of its sides, if there is one in the file.

        Raises:
            TruncatedError, ChecksumError, FormatError: it is cut, damaged, or of another picture.
        """
        with self._lock:
            if self._preview is not None and self.container.preview is None:
                self._collector.add(self._chunk(*self._preview, "a preview"), strict=False)
        return self.container.preview

    # -- reading ---------------------------------------------------------------------------------------------

    def _at(self, offset: int, size: int) -> bytes:
        """Bytes from a place, fewer at the end; a block around it is kept, for the next is mostly near."""
        start, data = self._cache
        if not start <= offset <= offset + size <= start + len(data):
            length = max(size, _HEAD if offset == 0 else _BLOCK if size <= _FRAME else size)
            data, start = self._source.read_at(offset, length), offset
            if len(data) > length:
                raise FormatError("more bytes came than were asked for")
            if size <= _BLOCK:
                self._cache = (start, data)
        return data[offset - start : offset - start + size]

    def _chunk(self, start: int, size: int, what: str) -> _Chunk:
        data = self._source.read_at(start, size)
        if len(data) < size:
            raise TruncatedError(f"the data end inside {what} at byte {start}")
        return _next_chunk(memoryview(data), 0, start)

    def _frame(self, position: int) -> tuple[int, int]:
        """Kind and size of the whole chunk at a place, neither proved yet."""
        if position >= self._source.size:
            raise TruncatedError("the file ends without an END chunk")
        reader = Reader(memoryview(self._at(position, min(_FRAME, self._source.size - position))))
        kind = reader.uint(1, "a chunk")
        content = reader.varint("a chunk's size")
        size = reader.pos + content + 4
        if position + size > self._source.size:
            raise TruncatedError(
                f"the data end inside a chunk: {size} bytes expected at byte {position}, "
                f"{self._source.size - position} left"
            )
        return kind, size

    def _front(self, position: int) -> int:
        """Take what stands before the first tile; gives the place of that."""
        while True:
            kind, size = self._frame(position)
            if kind in (TILE, DRAWN, END):
                return position
            if kind in (PIXELS, PREVIEW, INDEX):
                raise FormatError(f"{_NAMES[kind]} at byte {position} is out of order")
            if kind == ALPHA:
                if self.header.lossless:
                    raise FormatError("alpha has a chunk of its own in a lossless file, whose tiles hold it")
                self._alpha = (position, size)
                self._collector.rank, self._collector.alpha = _ORDER[ALPHA], True
            else:
                self._other(kind, position, size)
            position += size

    def _other(self, kind: int, position: int, size: int) -> None:
        if size > self._limits.max_metadata + 65536:
            raise LimitError(f"a chunk of {size} bytes at byte {position} is above the limit")
        if kind == PREVIEW:
            if self._collector.rank >= _ORDER[PREVIEW]:
                raise FormatError(f"preview at byte {position} is repeated, or out of order")
            self._preview = (position, size)
            self._collector.rank = _ORDER[PREVIEW]
            return
        self._collector.add(self._chunk(position, size, "a chunk"), strict=True)

    def _by_index(self, first: int) -> bool:
        """Find the tiles by the index, from the end of the file; False if there is none that can be used."""
        end = self._source.size
        start = max(first, end - _TAIL_BLOCK)
        tail = self._at(start, end - start)
        found = _end_chunk(tail, start)
        if found is None or found - 8 < start:
            return False
        size = int.from_bytes(tail[found - start - 8 : found - start - 4], "little")
        place = found - size
        if size < 8 or place < first:
            return False
        data = tail[place - start : found - start] if place >= start else self._at(place, size)
        if data[:1] != bytes([INDEX]):
            return False
        try:
            chunk = _next_chunk(memoryview(data), 0, place)
            offset, sizes = unpack_index(chunk.payload, len(self._rects))
        except FormatError:
            return False
        if offset != first or len(data) != size:
            return False
        for length, rect in zip(sizes, self._rects, strict=True):
            if length > 2 * (max_stream_size(rect.width, rect.height) + 32) or offset + length > place:
                return False
            self._tiles.append((offset, length))
            offset += length
        while offset < place:
            kind, length = self._frame(offset)
            if kind not in (PIXELS, PREVIEW) or offset + length > place:
                break
            self._other(kind, offset, length)
            offset += length
        return True

    def _walk(self, position: int) -> None:
        """Find the tiles by going from chunk to chunk."""
        unknown = 0
        while True:
            kind, size = self._frame(position)
            if kind in (TILE, DRAWN):
                number = len(self._tiles)
                if number == len(self._rects):
                    raise FormatError(f"tile {number} does not exist: the image has {number}")
                rect = self._rects[number]
                if size > 2 * (max_stream_size(rect.width, rect.height) + 32):
                    raise LimitError(f"tile {number}: a chunk of {size} bytes is above the limit")
                self._tiles.append((position, size))
            elif kind == ALPHA:
                raise FormatError(f"alpha at byte {position} is out of order")
            else:
                unknown += kind not in _ORDER and bool(kind & OPTIONAL)
                if unknown > _MAX_UNKNOWN:
                    raise LimitError(f"more than {_MAX_UNKNOWN} chunks of unknown type")
                self._other(kind, position, size)
            position += size
            if kind == END:
                break
        if len(self._tiles) < len(self._rects):
            raise FormatError(
                f"{len(self._rects) - len(self._tiles)} of {len(self._rects)} tiles are missing"
            )
        if position != self._source.size:
            raise FormatError(f"{self._source.size - position} bytes follow the END chunk")


def _end_chunk(tail: bytes, start: int) -> int | None:
    """Where the END chunk begins that ``tail`` ends with, if it does; ``start`` is the place of ``tail``."""
    for length in range(1, VARINT_BYTES + 1):
        at = len(tail) - length - 6
        if at < 0 or tail[at] != END or tail[at + 1] != length:
            continue
        payload = tail[at + 2 : at + 2 + length]
        if int.from_bytes(tail[-4:], "little") != zlib.crc32(tail[at:-4]):
            continue
        try:
            if Reader(memoryview(payload)).varint("END") == start + at:
                return start + at
        except FormatError:
            continue
    return None
