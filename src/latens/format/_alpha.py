"""The lossless alpha plane: tiles of docs/lossless.md, which are coded elsewhere; or a row filter and zlib.

Bytes of a row are handled all at once as one Python integer, which keeps this module free of NumPy and
still runs at hundreds of megabytes per second. Additions and subtractions modulo 256 are done on the low
7 bits of every byte, where no carry can reach the neighbour; bit 7 is repaired by exclusive or.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from latens.errors import FormatError, LimitError, VersionError
from latens.format._wire import Reader, inflate, varint

TILED = 2


def _up(alpha: bytes, stride: int) -> bytes:
    """Every byte minus the one above it, modulo 256; `stride` bytes per row."""
    high = int.from_bytes(b"\x80" * stride, "little")
    low = int.from_bytes(b"\x7f" * stride, "little")
    rows = []
    above = 0
    for start in range(0, len(alpha), stride):
        row = int.from_bytes(alpha[start : start + stride], "little")
        difference = ((row | high) - (above & low)) ^ ((row ^ above ^ high) & high)
        rows.append(difference.to_bytes(stride, "little"))
        above = row
    return b"".join(rows)


def _undo_up(filtered: bytes, stride: int) -> bytes:
    high = int.from_bytes(b"\x80" * stride, "little")
    low = int.from_bytes(b"\x7f" * stride, "little")
    rows = []
    above = 0
    for start in range(0, len(filtered), stride):
        row = int.from_bytes(filtered[start : start + stride], "little")
        above = ((row & low) + (above & low)) ^ ((row ^ above) & high)
        rows.append(above.to_bytes(stride, "little"))
    return b"".join(rows)


def pack(alpha: bytes, stride: int) -> bytes:
    """The payload of an alpha chunk: the smaller of both filters. `alpha`: whole rows of `stride` bytes."""
    return min(
        (b"\0" + zlib.compress(alpha), b"\1" + zlib.compress(_up(alpha, stride))),
        key=len,
    )


def pack_tiles(streams: Sequence[bytes]) -> bytes:
    """The payload of an alpha chunk of lossless tiles."""
    return bytes([TILED]) + b"".join(varint(len(stream), "alpha") + stream for stream in streams)


def unpack_tiles(payload: memoryview, limits: Sequence[int]) -> list[bytes] | None:
    """The lossless tiles of an alpha chunk, None if it holds something else. `limits`: of bytes, for each tile."""
    if not payload or payload[0] != TILED:
        return None
    reader = Reader(payload, 1)
    streams = []
    for index, limit in enumerate(limits):
        size = reader.varint("alpha")
        if size > limit:
            raise LimitError(f"alpha: tile {index} of {size} bytes is above the limit of {limit}")
        streams.append(bytes(reader.take(size, "alpha")))
    if reader.pos != len(payload):
        raise FormatError("alpha: its payload is too long")
    return streams


def unpack(payload: memoryview, stride: int, height: int) -> bytes:
    """The `stride * height` bytes of an alpha plane. Raises FormatError unless they are exactly so many."""
    if not payload:
        raise FormatError("alpha: the chunk is empty")
    kind = payload[0]
    if kind > TILED:
        raise VersionError(f"alpha: filter {kind} is newer than this release of Latens; update it")
    size = stride * height
    try:
        data = inflate(payload[1:], size, "alpha")
    except LimitError as error:
        raise FormatError(f"alpha: inflates to more than the {size} bytes of the image") from error
    if len(data) != size:
        raise FormatError(f"alpha: inflates to {len(data)} bytes, the image has {size}")
    return _undo_up(data, stride) if kind else data
