"""Chunks, and the container made of them."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Literal, NamedTuple

from latens.errors import (
    ChecksumError,
    FormatError,
    LatensError,
    LimitError,
    TruncatedError,
    VersionError,
)
from latens.format import _alpha
from latens.format._geometry import Rect, max_stream_size
from latens.format._header import (
    MAX_HEADER_SIZE,
    MAX_SIDE,
    SIGNATURE,
    Header,
    Limits,
    describe_header,
    pack_header,
    unpack_header,
)
from latens.format._wire import VARINT_BYTES, Reader, inflate, varint

Buffer = bytes | bytearray | memoryview

OPTIONAL = 0x20
ICC, EXIF, XMP, DENSITY, ALPHA, TILE, DRAWN, PIXELS, PREVIEW, INDEX, END = b"iexdATDcpnZ"
# The order of this table is the order of the chunks in a file.
_NAMES = {
    ICC: "ICC profile",
    EXIF: "EXIF",
    XMP: "XMP",
    DENSITY: "density",
    ALPHA: "alpha",
    TILE: "tile",
    DRAWN: "drawn tile",
    PIXELS: "checksum of the picture",
    PREVIEW: "preview",
    INDEX: "index",
    END: "END",
}
_ORDER = {kind: rank for rank, kind in enumerate(_NAMES)}
_ORDER[DRAWN] = _ORDER[TILE]  # one or the other, for each tile
_METADATA = {ICC: "icc", EXIF: "exif", XMP: "xmp"}
_ANY_KNOWN = re.compile(b"[iexdATDcpnZ]")
_UNITS = ("", "inch", "cm", "m")
_MAX_UNKNOWN = 256
_INDEXED = 16  # tiles, from which on files have an index; those with a preview have one in any case
_SMALL = 8  # of previews: they divide sides by it
# Salvage is bounded: CRC work of at most so many times the file's size, and so many problems.
_SALVAGE_EFFORT = 32
_SALVAGE_PROBLEMS = 1000


Density = tuple[tuple[int, int], tuple[int, int], str]
"""Samples per unit across and down, each as numerator and denominator, and the unit: inch, cm, m or none."""


class Tile(NamedTuple):
    """The coder stream of one tile, and the checksum of the symbols that it decodes to.

    drawn, drawn_checksum: its drawn blocks as a lossless tile or a part of one, and the checksum of their samples;
    empty if it has none.
    """

    checksum: int
    stream: bytes
    drawn: bytes = b""
    drawn_checksum: int = 0


@dataclass
class Container:
    """Everything in a `.ltn` file.

    tiles: one per rectangle of `header.tiles()`; None where salvage found nothing. alpha: height * width
    samples, row by row, one byte each (two, little-endian, at 16 bits). icc, exif, xmp: raw bytes; exif
    without an `Exif` prefix. density: samples per unit. pixels: CRC-32 of the decoded samples. alpha_tiles: alpha as
    lossless tiles, one for each tile of the image; there must not be both, and lossless files have neither. preview: a
    `.ltn` file of the picture at an eighth of its sides. problems: what salvage met; empty for a sound file.
    """

    header: Header
    tiles: list[Tile | None]
    alpha: bytes | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    density: Density | None = None
    pixels: int | None = None
    alpha_tiles: list[bytes] | None = None
    preview: bytes | None = None
    problems: tuple[str, ...] = field(default=(), compare=False)


class ChunkInfo(NamedTuple):
    """One chunk as `describe` reports it: its size in the file, framing included, and that of its content."""

    name: str
    offset: int
    size: int
    content: int


@dataclass(frozen=True)
class Description:
    """What `latens info` prints. All strings are printable ASCII.

    fields: (label, value) of each header field, a number or a string. chunks: in file order. size: bytes of the
    file. streams: bytes of coder streams. extras: bytes of chunks other than tiles and END. overhead: the rest,
    that is what the container costs.
    """

    fields: tuple[tuple[str, int | str], ...]
    chunks: tuple[ChunkInfo, ...]
    size: int
    streams: int
    extras: int
    overhead: int


def symbol_checksum(*parts: Buffer) -> int:
    """The checksum of a tile: CRC-32 over its symbols as little-endian int16, all of z, then all of y.

    `parts`: contiguous buffers in that order (`memoryview(array)` of a little-endian int16 NumPy array will
    do).
    """
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc


# ---- writing


def write(container: Container) -> bytes:
    """The bytes of a `.ltn` file.

    Whatever `read` would refuse raises here: FormatError for contradictions (number of tiles, size of alpha),
    LimitError for sizes above the default limits; only the number of pixels is free.
    """
    out = io.BytesIO()
    writer = Writer(out, container)
    count = container.header.tile_count
    if len(container.tiles) != count:
        raise FormatError(f"expected {count} tiles, got {len(container.tiles)}")
    for index, tile in enumerate(container.tiles):
        if tile is None:
            raise FormatError(f"tile {index} is missing")
        writer.tile(tile)
    writer.finish(container.pixels, container.preview)
    return out.getvalue()


class Writer:
    """Writes a `.ltn` file from front to back, tile by tile; it never goes back.

    `file`: takes bytes. `container`: all but tiles, the checksum of the picture and the preview is taken from it.
    Errors are those of `write`.
    """

    def __init__(self, file: BinaryIO, container: Container) -> None:
        header = container.header
        header.check(Limits(max_pixels=MAX_SIDE**2))
        self._file, self._header, self._rects = file, header, header.tiles()
        self._alpha = header.alpha or container.alpha is not None or container.alpha_tiles is not None
        self._sizes: list[int] = []
        self.size = 0
        self._put(pack_header(header))
        for chunk in _front(container, self._rects):
            self._put(chunk)
        self._first = self.size

    @classmethod
    def resume(cls, file: BinaryIO, container: Container, count: int, last: int) -> tuple[Writer, list[Tile]]:
        """Go on with a file that has `count` tiles already; gives the `last` of them, too.

        What the file begins with is read and checked, and what comes after is cut off. Raises FormatError: it is not
        what a writer for this container would have written so far.
        """
        kept = io.BytesIO()
        writer = cls(kept, container)
        file.seek(0)
        if not 0 <= last <= count <= len(writer._rects) or file.read(writer.size) != kept.getvalue():
            raise FormatError("the file was begun for another picture")
        writer._file = file
        tiles = []
        for index in range(count):
            data = file.read(1 + VARINT_BYTES)
            reader = Reader(memoryview(data), 1)
            left = reader.varint("a chunk's size") + 4 - (len(data) - reader.pos)
            rect = writer._rects[index]
            if not 0 <= left <= 2 * (max_stream_size(rect.width, rect.height) + 32):
                raise FormatError(f"tile {index} is damaged")
            data += file.read(left)
            chunk = _next_chunk(memoryview(data), 0, writer.size)
            reader = Reader(chunk.payload)
            number = reader.varint("a tile's number") if len(writer._rects) > 1 else 0
            if chunk.kind not in (TILE, DRAWN) or number != index:
                raise FormatError(f"{chunk.name} at byte {writer.size}, where tile {index} was expected")
            tile = unpack_tile(chunk.kind, reader, chunk.payload, index, rect, container.header)
            if index >= count - last:
                tiles.append(tile)
            writer._sizes.append(len(data))
            writer.size += len(data)
        file.seek(writer.size)
        file.truncate()
        return writer, tiles

    def tile(self, tile: Tile) -> None:
        """Write the next tile."""
        index = len(self._sizes)
        if index == len(self._rects):
            raise FormatError(f"expected {index} tiles, got more")
        number = index if len(self._rects) > 1 else None
        chunk = _pack_tile(tile, self._rects[index], number, drawable=not self._header.lossless)
        self._sizes.append(len(chunk))
        self._put(chunk)

    def finish(self, pixels: int | None, preview: bytes | None = None) -> None:
        """Write what follows the last tile; `pixels` and `preview` as in a container."""
        if len(self._sizes) != len(self._rects):
            raise FormatError(f"expected {len(self._rects)} tiles, got {len(self._sizes)}")
        if pixels is not None:
            if not 0 <= pixels < 1 << 32:
                raise FormatError(f"checksum of the picture: expected 32 bits, got {pixels}")
            self._put(_pack_chunk(PIXELS, pixels.to_bytes(4, "little")))
        if preview is not None:
            check_preview(memoryview(preview), self._header, self._alpha, Limits(max_pixels=MAX_SIDE**2))
            self._put(_pack_chunk(PREVIEW, preview))
        if len(self._sizes) >= _INDEXED or preview is not None:
            self._put(_pack_index(self._first, self._sizes))
        self._put(_pack_chunk(END, varint(self.size, "file size")))

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self.size += len(data)


def _front(container: Container, rects: list[Rect]) -> Iterator[bytes]:
    """The chunks before the first tile."""
    header = container.header
    limit = Limits().max_metadata
    for kind, name in _METADATA.items():
        data: bytes | None = getattr(container, name)
        if data is None:
            continue
        if not 0 < len(data) <= limit:
            raise LimitError(f"{_NAMES[kind]}: expected 1 to {limit} bytes, got {len(data)}")
        yield _pack_chunk(kind, zlib.compress(data, 9))
    if container.density is not None:
        yield _pack_chunk(DENSITY, _pack_density(container.density))
    if (container.alpha is not None) + (container.alpha_tiles is not None) + header.lossless > 1:
        raise FormatError("alpha: it is given twice, or in a lossless file, whose tiles hold it")
    if container.alpha_tiles is not None:
        if len(container.alpha_tiles) != len(rects):
            raise FormatError(f"alpha: expected {len(rects)} tiles, got {len(container.alpha_tiles)}")
        for index, (stream, limit) in enumerate(
            zip(container.alpha_tiles, _stream_limits(rects), strict=True)
        ):
            _check_stream(index, len(stream), limit)
        yield _pack_chunk(ALPHA, _alpha.pack_tiles(container.alpha_tiles))
    if container.alpha is not None:
        stride = _alpha_stride(header)
        if len(container.alpha) != stride * header.height:
            raise FormatError(f"alpha: expected {stride * header.height} bytes, got {len(container.alpha)}")
        yield _pack_chunk(ALPHA, _alpha.pack(container.alpha, stride))


def _pack_index(first: int, sizes: Sequence[int]) -> bytes:
    """The whole index chunk; its payload ends with its own size, so that it is found from the end of the file."""
    content = varint(first, "index") + b"".join(varint(size, "index") for size in sizes)
    payload = len(content) + 4
    whole = 1 + len(varint(payload, "index")) + payload + 4
    return _pack_chunk(INDEX, content + whole.to_bytes(4, "little"))


def unpack_index(payload: memoryview, count: int) -> tuple[int, list[int]]:
    """Where the first tile is, and the size of the chunk of each of `count`. Raises FormatError."""
    reader = Reader(payload)
    first, *sizes = (reader.varint("index") for _ in range(count + 1))
    whole = 1 + len(varint(len(payload), "index")) + len(payload) + 4
    if reader.uint(4, "index") != whole or reader.pos != len(payload):
        raise FormatError("index: it does not fit to the tiles of the image")
    return first, sizes


def _pack_tile(tile: Tile, rect: Rect, number: int | None, *, drawable: bool) -> bytes:
    """The chunk of a tile; `number` is left out of an image of one tile."""
    index, limit = number or 0, max_stream_size(rect.width, rect.height)
    for checksum in (tile.checksum, tile.drawn_checksum):
        if not 0 <= checksum < 1 << 32:
            raise FormatError(f"tile {index}: expected a 32-bit checksum, got {checksum}")
    _check_stream(index, len(tile.stream), limit)
    payload = b"" if number is None else varint(number, "tile number")
    payload += tile.checksum.to_bytes(4, "little")
    if not tile.drawn:
        return _pack_chunk(TILE, payload + tile.stream)
    if not drawable:
        raise FormatError(f"tile {index}: drawn blocks in a lossless file")
    _check_stream(index, len(tile.drawn), limit)
    payload += varint(len(tile.stream), "stream") + tile.stream
    return _pack_chunk(DRAWN, payload + tile.drawn_checksum.to_bytes(4, "little") + tile.drawn)


def _pack_chunk(kind: int, payload: bytes) -> bytes:
    head = bytes([kind]) + varint(len(payload), "chunk size")
    crc = zlib.crc32(payload, zlib.crc32(head))
    return head + payload + crc.to_bytes(4, "little")


def _alpha_stride(header: Header) -> int:
    return header.width * header.sample_bytes


def _pack_density(density: Density) -> bytes:
    across, down, unit = density
    if unit not in _UNITS or 0 in (*across, *down):
        raise FormatError(f"density: expected positive fractions per {_UNITS[1:]} or '', got {density!a:.80}")
    return bytes([_UNITS.index(unit)]) + b"".join(varint(part, "density") for part in (*across, *down))


def unpack_density(payload: memoryview) -> Density:
    """What a density chunk says. Raises FormatError, or VersionError for a unit that is not known."""
    reader = Reader(payload)
    unit = reader.uint(1, "density")
    if unit >= len(_UNITS):
        raise VersionError(f"density: unit {unit} is newer than this release of Latens; update it")
    a, b, c, d = (reader.varint("density") for _ in range(4))
    if 0 in (a, b, c, d):
        raise FormatError("density: a fraction has a zero")
    if reader.pos != len(payload):
        raise FormatError("density: its payload is too long")
    return (a, b), (c, d), _UNITS[unit]


def _stream_limits(rects: list[Rect]) -> list[int]:
    return [max_stream_size(rect.width, rect.height) for rect in rects]


def _check_stream(index: int, size: int, limit: int) -> None:
    if size > limit:
        raise LimitError(f"tile {index}: a coder stream of {size} bytes is above the limit of {limit}")


# ---- reading


def unpack_tile(
    kind: int, reader: Reader, payload: memoryview, index: int, rect: Rect, header: Header
) -> Tile:
    """A tile from its chunk; `reader` stands behind the number. Raises FormatError, LimitError."""
    checksum, limit = reader.uint(4, f"tile {index}"), max_stream_size(rect.width, rect.height)
    drawn, drawn_checksum = b"", 0
    if kind == DRAWN:
        if header.lossless:
            raise FormatError(f"tile {index}: drawn blocks in a lossless file")
        stream = reader.take(reader.varint(f"tile {index}"), f"tile {index}")
        drawn_checksum = reader.uint(4, f"tile {index}")
        drawn = bytes(payload[reader.pos :])
        _check_stream(index, len(drawn), limit)
        if not drawn:
            raise FormatError(f"tile {index}: it has no drawn blocks, and should be no D chunk")
    else:
        stream = payload[reader.pos :]
    _check_stream(index, len(stream), limit)
    return Tile(checksum, bytes(stream), drawn, drawn_checksum)


def check_preview(data: memoryview, header: Header, alpha: bool, limits: Limits) -> None:
    """Raises a FormatError for what is no preview of a picture with this header, and alpha or not."""
    if len(data) > limits.max_metadata:
        raise LimitError(f"preview: {len(data)} bytes are above the limit of {limits.max_metadata}")
    width, height = -(-header.width // _SMALL), -(-header.height // _SMALL)
    free = ("width", "height", "quality", "tile_size", "lanes", "skip", "near")
    try:
        found, _ = unpack_header(data, limits)
        if (found.width, found.height) != (width, height):
            raise FormatError(
                f"{found.width} x {found.height} pixels, where {width} x {height} were expected"
            )
        same = replace(found, **{name: getattr(header, name) for name in free}) == header
        if not same or _collect(data, limits, "raise", inner=True).alpha != alpha:
            raise FormatError("its model or its samples are not those of the picture")
    except FormatError as error:
        raise type(error)(f"preview: {error}") from error


class _Chunk(NamedTuple):
    kind: int
    start: int
    payload: memoryview
    end: int

    @property
    def name(self) -> str:
        return _NAMES.get(self.kind, f"chunk type 0x{self.kind:02x}")


def _next_chunk(data: memoryview, start: int, base: int = 0) -> _Chunk:
    """The chunk at `start`, its CRC proved; `base` is where `data` stand in the file."""
    reader = Reader(data, start)
    if start == len(data):
        raise TruncatedError("the file ends without an END chunk")
    kind = reader.uint(1, "a chunk")
    payload = reader.take(reader.varint("a chunk's size"), "a chunk")
    computed = zlib.crc32(data[start : reader.pos])
    stored = reader.uint(4, "a chunk's CRC")
    chunk = _Chunk(kind, base + start, payload, base + reader.pos)
    if stored != computed:
        raise ChecksumError(
            f"the chunk at byte {base + start} ({chunk.name}) is damaged: its CRC-32 is {computed:08x}, "
            f"{stored:08x} was stored"
        )
    return chunk


class _Collector:
    """Takes sound chunks one by one, checks their order and content, and builds the container."""

    def __init__(self, header: Header, limits: Limits, *, inner: bool = False) -> None:
        """`inner`: of a preview, which has neither metadata nor a preview."""
        self.limits, self.inner = limits, inner
        self.rects = header.tiles()
        self.container = Container(header, [None] * len(self.rects))
        self.alpha = header.alpha
        self.chunks: list[ChunkInfo] = []
        self.next_tile = 0
        self.rank = 0
        self.seen: set[int] = set()
        self.unknown = 0
        self.unknown_size = 0
        self.ended = False

    def add(self, chunk: _Chunk, *, strict: bool) -> None:
        """Raises a FormatError for a chunk that must not be here; with `strict` False its order is free."""
        kind = chunk.kind
        content = len(chunk.payload)
        if kind not in _ORDER:
            if not kind & OPTIONAL:
                raise VersionError(f"{chunk.name} is newer than this release of Latens; update it")
            self.unknown += 1
            self.unknown_size += chunk.end - chunk.start
            if self.unknown > _MAX_UNKNOWN or self.unknown_size > self.limits.max_metadata:
                raise LimitError(
                    f"chunks of unknown type exceed the limit of {_MAX_UNKNOWN} chunks and "
                    f"{self.limits.max_metadata} bytes"
                )
        else:
            rank = _ORDER[kind]
            # A repeated chunk is not even inflated, so that bombs cannot be added up.
            if kind in self.seen and kind not in (TILE, DRAWN):
                raise FormatError(f"{chunk.name} at byte {chunk.start} is repeated")
            if strict and rank < self.rank:
                raise FormatError(f"{chunk.name} at byte {chunk.start} is out of order")
            if self.inner and (kind in _METADATA or kind in (DENSITY, PREVIEW)):
                raise FormatError(f"{chunk.name} at byte {chunk.start} must not be in it")
            self.rank = rank
            self.seen.add(kind)
            if kind in _METADATA:
                content = self._metadata(chunk, _METADATA[kind])
            elif kind == DENSITY:
                self.container.density = unpack_density(chunk.payload)
            elif kind == ALPHA:
                content = self._alpha(chunk)
            elif kind in (TILE, DRAWN):
                content = self._tile(chunk, strict)
            elif kind == PIXELS:
                if len(chunk.payload) != 4:
                    raise FormatError(f"{chunk.name}: expected 4 bytes, got {len(chunk.payload)}")
                self.container.pixels = int.from_bytes(chunk.payload, "little")
            elif kind == PREVIEW:
                check_preview(chunk.payload, self.container.header, self.alpha, self.limits)
                self.container.preview = bytes(chunk.payload)
            elif kind == INDEX:
                self._index(chunk, strict)
            else:
                self._end(chunk)
        self.chunks.append(ChunkInfo(chunk.name, chunk.start, chunk.end - chunk.start, content))

    def _metadata(self, chunk: _Chunk, name: str) -> int:
        data = inflate(chunk.payload, self.limits.max_metadata, chunk.name)
        if not data:
            raise FormatError(f"{chunk.name} is empty")
        setattr(self.container, name, data)
        return len(data)

    def _alpha(self, chunk: _Chunk) -> int:
        header = self.container.header
        if header.lossless:
            raise FormatError("alpha has a chunk of its own in a lossless file, whose tiles hold it")
        self.alpha = True
        self.container.alpha_tiles = _alpha.unpack_tiles(chunk.payload, _stream_limits(self.rects))
        if self.container.alpha_tiles is not None:
            return len(chunk.payload) - 1
        self.container.alpha = _alpha.unpack(chunk.payload, _alpha_stride(header), header.height)
        return len(self.container.alpha)

    def _tile(self, chunk: _Chunk, strict: bool) -> int:
        reader = Reader(chunk.payload)
        count = len(self.rects)
        index = reader.varint("a tile's number") if count > 1 else 0
        if index >= count:
            raise FormatError(f"tile {index} does not exist: the image has {count}")
        if self.container.tiles[index] is not None:
            raise FormatError(f"tile {index} is repeated at byte {chunk.start}")
        if strict and index != self.next_tile:
            raise FormatError(f"tile {index} at byte {chunk.start}, where tile {self.next_tile} was expected")
        tile = unpack_tile(chunk.kind, reader, chunk.payload, index, self.rects[index], self.container.header)
        self.container.tiles[index] = tile
        self.next_tile = index + 1
        return len(tile.stream) + len(tile.drawn)

    def _index(self, chunk: _Chunk, strict: bool) -> None:
        found = unpack_index(chunk.payload, len(self.rects))
        tiles = [known for known in self.chunks if known.name in (_NAMES[TILE], _NAMES[DRAWN])]
        if strict and len(tiles) == len(self.rects) and found != (tiles[0].offset, [t.size for t in tiles]):
            raise FormatError("index: it names other places than those of the tiles")

    def _end(self, chunk: _Chunk) -> None:
        reader = Reader(chunk.payload)
        size = reader.varint("END")
        if reader.pos != len(chunk.payload):
            raise FormatError("END: its payload is too long")
        if size != chunk.start:
            raise FormatError(f"END says that {size} bytes precede it, {chunk.start} do: chunks are missing")
        self.ended = True

    def plausible(self, kind: int, payload: memoryview) -> bool:
        """Whether `payload` may be that of a chunk still awaited: a quick look before its CRC is computed."""
        if kind in (TILE, DRAWN):
            count = len(self.rects)
            index = Reader(payload).varint("a tile's number") if count > 1 else 0
            if index >= count or self.container.tiles[index] is not None:
                return False
            rect = self.rects[index]
            parts = 1 if kind == TILE else 2
            return len(payload) <= parts * (VARINT_BYTES + 4 + max_stream_size(rect.width, rect.height))
        if kind == END:
            return len(payload) <= VARINT_BYTES
        if kind == PIXELS:
            return kind not in self.seen and len(payload) == 4
        if kind == INDEX:
            return kind not in self.seen and len(payload) <= VARINT_BYTES * (len(self.rects) + 1) + 4
        if kind == PREVIEW:
            return kind not in self.seen and payload[: len(SIGNATURE)] == SIGNATURE
        if kind == DENSITY:
            return kind not in self.seen and len(payload) <= 1 + 4 * VARINT_BYTES
        if kind == ALPHA and payload[:1] == bytes([_alpha.TILED]):
            return kind not in self.seen and len(payload) <= sum(_stream_limits(self.rects))
        head = payload[1:3] if kind == ALPHA else payload[:2]
        # The two bytes that begin every zlib stream (RFC 1950, 2.2).
        return (
            kind not in self.seen
            and len(head) == 2
            and head[0] & 15 == 8
            and int.from_bytes(head, "big") % 31 == 0
        )

    def missing(self) -> list[int]:
        """The numbers of the tiles that have not come."""
        return [index for index, tile in enumerate(self.container.tiles) if tile is None]


def read(
    data: Buffer,
    limits: Limits | None = None,
    on_error: Literal["raise", "conceal"] = "raise",
) -> Container:
    """Read a `.ltn` file.

    With `on_error="raise"`, any damage raises: TruncatedError, ChecksumError, VersionError, LimitError or
    another FormatError. With "conceal" (salvage), only a damaged header raises; what else is damaged is left
    out: tiles are None, and `problems` tells what happened. Memory: the parts that are returned, plus what
    one of them needs to inflate.
    """
    collector = _collect(memoryview(data).cast("B"), limits or Limits(), on_error)
    return collector.container


def _collect(
    data: memoryview, limits: Limits, on_error: Literal["raise", "conceal"], *, inner: bool = False
) -> _Collector:
    if on_error not in ("raise", "conceal"):
        raise ValueError(f"on_error: expected 'raise' or 'conceal', got {on_error!r}")
    header, start = unpack_header(data, limits)
    collector = _Collector(header, limits, inner=inner)
    (_read_all if on_error == "raise" else _salvage)(data, start, collector)
    return collector


def _read_all(data: memoryview, position: int, collector: _Collector) -> None:
    while not collector.ended:
        chunk = _next_chunk(data, position)
        collector.add(chunk, strict=True)
        position = chunk.end
    missing = collector.missing()
    if missing:
        raise FormatError(
            f"{len(missing)} of {len(collector.rects)} tiles are missing, the first is {missing[0]}"
        )
    if position != len(data):
        raise FormatError(f"{len(data) - position} bytes follow the END chunk")


def _salvage(data: memoryview, position: int, collector: _Collector) -> None:
    problems: list[str] = []
    effort = _SALVAGE_EFFORT * len(data)
    while len(problems) < _SALVAGE_PROBLEMS:
        try:
            chunk = _next_chunk(data, position)
        except FormatError as error:
            problems.append(str(error))
            found, effort = _find_chunk(data, position, collector, effort)
            if found is None:
                break
            chunk = found
        try:
            collector.add(chunk, strict=False)
        except LatensError as error:
            problems.append(str(error))
        position = chunk.end
        if chunk.kind == END:
            if position != len(data):
                problems.append(f"{len(data) - position} bytes follow the END chunk")
            break
    else:
        problems.append("too many problems; the rest of the file is given up")
    missing = collector.missing()
    if missing:
        problems.append(f"{len(missing)} of {len(collector.rects)} tiles are lost")
    collector.container.problems = tuple(problems)


def _find_chunk(
    data: memoryview, damaged: int, collector: _Collector, effort: int
) -> tuple[_Chunk | None, int]:
    """The first sound chunk of a known type after a damaged one, and the effort left.

    The damaged one's own length is not trusted: it may be what is damaged, and point behind a sound chunk.
    """
    for match in _ANY_KNOWN.finditer(data, damaged + 1):
        start = match.start()
        reader = Reader(data, start + 1)
        try:
            payload = reader.take(reader.varint("a chunk's size"), "a chunk")
            if not collector.plausible(data[start], payload):
                continue
            effort -= len(payload)
            if effort < 0:
                break
            return _next_chunk(data, start), effort
        except FormatError:
            continue
    return None, effort


# ---- the rest of the public functions


def read_header(data: Buffer, limits: Limits | None = None) -> Header:
    """Only the header; `data` may end anywhere after it (its longest form has 128 bytes)."""
    return unpack_header(memoryview(data).cast("B"), limits or Limits())[0]


def load(file: BinaryIO, limits: Limits | None = None) -> bytes:
    """All bytes of a `.ltn` file from a binary file, a pipe included.

    No more is read than a valid file with this header can have: LimitError above. The header is checked
    before the rest is read; the rest is not checked at all: pass the result to `read`.
    """
    data = _read_up_to(file, b"", MAX_HEADER_SIZE)
    limits = limits or Limits()
    bound = read_header(data, limits).max_file_size(limits)
    data = _read_up_to(file, data, bound + 1)
    if len(data) > bound:
        raise LimitError(f"the file is longer than the {bound} bytes that its header allows")
    return data


def _read_up_to(file: BinaryIO, head: bytes, size: int) -> bytes:
    data = bytearray(head)
    while len(data) < size:
        # In pieces: what is allocated follows what really arrives.
        piece = file.read(min(size - len(data), 1 << 20))
        if not piece:
            break
        data += piece
    return bytes(data)


def describe(data: Buffer, limits: Limits | None = None) -> Description:
    """What is in a file, with sizes. The file must be sound: raises as `read` does."""
    view = memoryview(data).cast("B")
    collector = _collect(view, limits or Limits(), "raise")
    streams = sum(chunk.content for chunk in collector.chunks if chunk.name in (_NAMES[TILE], _NAMES[DRAWN]))
    own = (_NAMES[TILE], _NAMES[DRAWN], _NAMES[END])
    extras = sum(chunk.size for chunk in collector.chunks if chunk.name not in own)
    return Description(
        fields=tuple(describe_header(collector.container.header)),
        chunks=tuple(collector.chunks),
        size=len(view),
        streams=streams,
        extras=extras,
        overhead=len(view) - streams - extras,
    )
