"""Boxes of ISO base media files (AVIF, HEIF, MP4) and JPEG 2000: only what Pillow and PyAV do not tell."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO, NamedTuple

_MAX_META = 1 << 20
_MAX_MOVIE = 1 << 26
_CONTAINERS = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"jp2h": 0}


class Box(NamedTuple):
    """A box: its type, its content, and where the content begins in what it was found in."""

    kind: bytes
    content: bytes
    start: int


def boxes(data: bytes, start: int = 0) -> Iterator[Box]:
    """The boxes in `data`; damage ends the list."""
    while start + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1 and start + 16 <= len(data):
            (size,) = struct.unpack_from(">Q", data, start + 8)
            head = 16
        end = len(data) if size == 0 else start + size
        if end < start + head or end > len(data):
            return
        yield Box(kind, data[start + head : end], start + head)
        start = end


def top_level(file: BinaryIO, wanted: bytes, most: int = _MAX_META) -> Box | None:
    """The first box of this type at the top of a file, if it has no more than so many bytes."""
    position = 0
    for _ in range(1000):
        file.seek(position)
        head = file.read(16)
        if len(head) < 8:
            return None
        size, kind = struct.unpack_from(">I4s", head)
        skip = 8
        if size == 1 and len(head) == 16:
            (size,) = struct.unpack_from(">Q", head, 8)
            skip = 16
        if kind == wanted and skip <= size <= most:
            file.seek(position + skip)
            content = file.read(size - skip)
            return Box(kind, content, position + skip) if len(content) == size - skip else None
        if size < skip:
            return None
        position += size
    return None


def is_cropped(file: BinaryIO) -> bool:
    """Whether a track of a video file is to be shown without some of its rows or columns; damage hides it."""
    movie = top_level(file, b"moov", _MAX_MOVIE)
    return movie is not None and any(
        len(entry) >= 78 and _clips(entry)
        for track in _within(movie.content, b"trak", b"mdia", b"minf", b"stbl", b"stsd")
        for _, entry, _ in boxes(track, 8)
    )


def _within(data: bytes, *path: bytes) -> Iterator[bytes]:
    """Contents of all boxes that are inside of each other like this."""
    for kind, content, _ in boxes(data):
        if kind == path[0]:
            yield from _within(content, *path[1:]) if path[1:] else (content,)


def _clips(entry: bytes) -> bool:
    """Whether what describes the samples of a video has an aperture that is smaller than its frames."""
    width, height = struct.unpack_from(">HH", entry, 24)
    for kind, content, _ in boxes(entry, 78):
        if kind == b"clap" and (aperture := _aperture(content)) is not None:
            return aperture != tuple(map(Fraction, (width, height, 0, 0)))
    return False


class Properties(NamedTuple):
    """What an AVIF or HEIF file says of its main picture.

    colour: primaries, transfer, matrix, full range, or None. bits: per sample, 8 if nothing is said.
    colour_at: offset of the colour's code points in the file.
    aspect: width and height of a pixel. aperture: width and height of what is to be shown, and how far its middle
    lies to the right of the picture's, and below it. kinds: types of all items and properties.
    """

    colour: tuple[int, int, int, int] | None
    bits: int
    colour_at: int
    aspect: tuple[int, int] | None
    aperture: tuple[Fraction, Fraction, Fraction, Fraction] | None
    kinds: frozenset[bytes]


def properties(file: BinaryIO) -> Properties:
    """Properties of the main picture. Damage gives what can be found."""
    nothing = Properties(None, 8, 0, None, None, frozenset())
    meta = top_level(file, b"meta")
    if meta is None:
        return nothing
    parts = {box.kind: box for box in boxes(meta.content, 4)}
    kinds = set(_item_types(parts[b"iinf"].content)) if b"iinf" in parts else set()
    if b"iprp" not in parts:
        return nothing
    inner = {box.kind: box for box in boxes(parts[b"iprp"].content)}
    if b"ipco" not in inner:
        return nothing
    found = list(boxes(inner[b"ipco"].content))
    base = meta.start + parts[b"iprp"].start + inner[b"ipco"].start
    chosen = list(range(len(found)))
    if b"pitm" in parts and b"ipma" in inner:
        chosen = _associated(inner[b"ipma"].content, _number(parts[b"pitm"].content)) or chosen
    colour, bits, at, aspect, aperture = None, 8, 0, None, None
    for index in chosen:
        if index >= len(found):
            continue
        kind, content, start = found[index]
        kinds.add(kind)
        if kind == b"colr" and content[:4] == b"nclx" and len(content) >= 11 and colour is None:
            primaries, transfer, matrix = struct.unpack_from(">HHH", content, 4)
            colour, at = (primaries, transfer, matrix, content[10] >> 7), base + start + 4
        elif kind == b"av1C" and len(content) >= 4:
            high, twelve = content[2] >> 6 & 1, content[2] >> 5 & 1
            bits = max(bits, 12 if high and twelve else 10 if high else 8)
        elif kind == b"pixi" and len(content) >= 6:
            bits = max(bits, *content[5 : 5 + content[4]], 8)
        elif kind == b"pasp" and len(content) >= 8:
            aspect = struct.unpack_from(">II", content)
        elif kind == b"clap":
            aperture = _aperture(content)
    return Properties(colour, bits, at, aspect, aperture, frozenset(kinds))


def _aperture(content: bytes) -> tuple[Fraction, Fraction, Fraction, Fraction] | None:
    """Of a `clap` box; None for nonsense."""
    if len(content) < 32:
        return None
    numbers = struct.unpack_from(">IIIIiIiI", content)
    if not all(numbers[1::2]):
        return None
    width, height, right, below = map(Fraction, numbers[0::2], numbers[1::2])
    return width, height, right, below


def _number(content: bytes) -> int:
    """The item that a full box with one item number names."""
    wide = content[:1] != b"\0"
    return int.from_bytes(content[4 : 8 if wide else 6], "big")


def _associated(content: bytes, item: int) -> list[int] | None:
    """Indexes of an item's properties, from 0."""
    if len(content) < 8:
        return None
    version, flags = content[0], content[3]
    (count,) = struct.unpack_from(">I", content, 4)
    position, wide_id, wide_index = 8, 4 if version else 2, 2 if flags & 1 else 1
    for _ in range(count):
        if position + wide_id + 1 > len(content):
            return None
        number = int.from_bytes(content[position : position + wide_id], "big")
        entries = content[position + wide_id]
        position += wide_id + 1
        if number == item:
            mask = 0x7FFF if wide_index == 2 else 0x7F
            raw = (content[position + wide_index * k :][:wide_index] for k in range(entries))
            indexes = [int.from_bytes(entry, "big") & mask for entry in raw]
            return [index - 1 for index in indexes if index]
        position += wide_index * entries
    return None


def _item_types(content: bytes) -> Iterator[bytes]:
    """Types of the items of an `iinf` box."""
    start = 6 if content[:1] == b"\0" else 8
    for box in boxes(content, start):
        if box.kind == b"infe" and box.content[:1] in (b"\2", b"\3"):
            at = 8 if box.content[:1] == b"\2" else 10
            yield box.content[at : at + 4]


# ---- JPEG 2000


class Jp2(NamedTuple):
    """What a JPEG 2000 file says of its samples.

    size: width, height. bits: per sample of each component. signed: whether any is. space: code of the enumerated
    colour space, 0 if there is none. icc: profile. palette: whether samples are indexes. alpha: number of the
    component that is opacity, and whether colour is multiplied by it. kinds: types of boxes that are not read.
    """

    size: tuple[int, int]
    bits: tuple[int, ...]
    signed: bool
    space: int
    icc: bytes | None
    palette: bool
    alpha: tuple[int, bool] | None
    density: tuple[float, float] | None
    kinds: frozenset[bytes]


def jp2(data: bytes) -> Jp2 | None:
    """Facts of a JPEG 2000 file, with boxes or without; None for damage."""
    space, icc, palette, alpha, density = 0, None, False, None, None
    kinds = set()
    codestream = data if data[:4] == b"\xff\x4f\xff\x51" else b""
    for box in boxes(data) if not codestream else ():
        kinds.add(box.kind)
        if box.kind == b"jp2c" and not codestream:
            codestream = box.content[:65536]
        if box.kind != b"jp2h":
            continue
        for inner in boxes(box.content):
            content = inner.content
            if inner.kind == b"colr" and not space and icc is None and len(content) >= 3:
                if content[0] == 1:
                    space = int.from_bytes(content[3:7], "big")
                elif content[0] in (2, 3):
                    icc = content[3:]
            elif inner.kind == b"pclr":
                palette = True
            elif inner.kind == b"cdef":
                for at in range(2, len(content) - 5, 6):
                    channel, kind, _ = struct.unpack_from(">HHH", content, at)
                    if kind in (1, 2):
                        alpha = (channel, kind == 2)
            elif inner.kind == b"res ":
                for resolution in boxes(content):
                    if resolution.kind in (b"resc", b"resd") and len(resolution.content) >= 10:
                        vn, vd, hn, hd, ve, he = struct.unpack_from(">HHHHbb", resolution.content)
                        if vd and hd:
                            density = (hn / hd * 10.0**he, vn / vd * 10.0**ve)
    if len(codestream) < 42 or codestream[:4] != b"\xff\x4f\xff\x51":
        return None
    x1, y1, x0, y0 = struct.unpack_from(">4I", codestream, 8)
    (count,) = struct.unpack_from(">H", codestream, 40)
    depths = codestream[42 : 42 + 3 * count : 3]
    steps = codestream[43 : 42 + 3 * count]
    if (
        not count
        or len(depths) < count
        or any(steps[k : k + 2] != b"\1\1" for k in range(0, 3 * count - 1, 3))
    ):
        # Components of different sizes are scaled by the decoder, or not at all.
        kinds.add(b"subsampled")
    bits = tuple((depth & 127) + 1 for depth in depths)
    signed = any(depth & 128 for depth in depths)
    return Jp2((x1 - x0, y1 - y0), bits, signed, space, icc, palette, alpha, density, frozenset(kinds))
