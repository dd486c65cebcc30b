"""Elements of Matroska files (RFC 9559): what PyAV neither tells of them nor can say in them."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import BinaryIO, NamedTuple

__all__ = ["element", "is_cropped", "number", "real", "set_shape"]

_SEGMENT, _TRACKS, _TRACK, _VIDEO, _CLUSTER = 0x18538067, 0x1654AE6B, 0xAE, 0xE0, 0x1F43B675
_VOID, _CRC, _NAME = 0xEC, 0xBF, 0x536E
_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT = 0x54B0, 0x54BA, 0x54B2
_CROPS = (0x54AA, 0x54BB, 0x54CC, 0x54DD)
_AS_RATIO = 3
_MAX_TRACKS = 1 << 20


class _Element(NamedTuple):
    """Its identifier, and where it, its content, and what comes after it begin."""

    kind: int
    start: int
    content: int
    end: int


def element(kind: int, data: bytes) -> bytes:
    """A whole element; its length takes four bytes."""
    return _identifier(kind) + (1 << 28 | len(data)).to_bytes(4, "big") + data


def number(kind: int, value: int) -> bytes:
    """An element with an unsigned integer."""
    return element(kind, value.to_bytes(8, "big"))


def real(kind: int, value: float) -> bytes:
    """An element with a number of floating point."""
    return element(kind, struct.pack(">d", value))


def is_cropped(file: BinaryIO) -> bool:
    """Whether a track of a file is to be shown without some of its rows or columns; damage hides it."""
    found = _tracks(file)
    if found is None:
        return False
    data, tracks = found
    return any(
        any(data[part.content : part.end])
        for track in _inside(data, tracks)
        if track.kind == _TRACK
        for video in _inside(data, track)
        if video.kind == _VIDEO
        for part in _inside(data, video)
        if part.kind in _CROPS
    )


def set_shape(file: BinaryIO, aspect: Fraction) -> bool:
    """Say the shape of pixels in a file that FFmpeg has written, in place; False where there is no room for it.

    FFmpeg's writer takes it from a field that PyAV cannot set, and calls it unknown. Room is what the track has of
    padding, and its name.

    Args:
        file: open for reading and writing, with one track of video.
        aspect: width of a pixel divided by its height.
    """
    found = _tracks(file)
    if found is None:
        return False
    data, tracks = found
    tracks_data = bytearray(data[tracks.start : tracks.end])
    for track in _inside(data, tracks):
        if track.kind != _TRACK:
            continue
        parts = list(_inside(data, track))
        if not any(part.kind == _VIDEO for part in parts):
            continue
        kept = b"".join(
            _shaped(data, part, aspect) if part.kind == _VIDEO else data[part.start : part.end]
            for part in parts
            if part.kind not in (_VOID, _NAME, _CRC)
        )
        room = track.end - track.content - len(kept)
        if room < 2:
            return False
        padded = kept + _padding(room)
        tracks_data[track.content - tracks.start : track.end - tracks.start] = padded
    first = next(_inside(data, tracks), None)
    if first is not None and first.kind == _CRC:
        at = first.end - tracks.start
        tracks_data[at - 4 : at] = zlib.crc32(tracks_data[at:]).to_bytes(4, "little")
    file.seek(tracks.start)
    file.write(tracks_data)
    file.seek(0, os.SEEK_END)
    return True


def _shaped(data: bytes, video: _Element, aspect: Fraction) -> bytes:
    """The settings of a track of video, with the shape of its pixels."""
    unwanted = (_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT)
    parts = list(_inside(data, video))
    sides = {part.kind: int.from_bytes(data[part.content : part.end], "big") for part in parts}
    picture = aspect * Fraction(sides[0xB0], sides[0xBA])
    content = b"".join(data[part.start : part.end] for part in parts if part.kind not in unwanted)
    for kind, value in (
        (_DISPLAY_UNIT, _AS_RATIO),
        (_DISPLAY_WIDTH, picture.numerator),
        (_DISPLAY_HEIGHT, picture.denominator),
    ):
        size = (value.bit_length() + 7) // 8
        content += _identifier(kind) + bytes([0x80 | size]) + value.to_bytes(size, "big")
    return _identifier(_VIDEO) + (1 << 14 | len(content)).to_bytes(2, "big") + content


def _padding(size: int) -> bytes:
    """An element that says nothing, of so many bytes."""
    width = 1 if size < 129 else 8
    rest = size - 1 - width
    return _identifier(_VOID) + (1 << 7 * width | rest).to_bytes(width, "big") + bytes(rest)


def _identifier(kind: int) -> bytes:
    return kind.to_bytes((kind.bit_length() + 7) // 8, "big")


def _tracks(file: BinaryIO) -> tuple[bytes, _Element] | None:
    """The beginning of a file, up to the end of its tracks, and where in it these are; None for damage."""
    with suppress(OSError, ValueError, IndexError):
        file.seek(0)
        data = file.read(_MAX_TRACKS)
        segment = next(part for part in _elements(data, 0, len(data)) if part.kind == _SEGMENT)
        for part in _elements(data, segment.content, len(data)):
            if part.kind == _TRACKS and part.end <= len(data):
                return data, part
            if part.kind == _CLUSTER:
                break
    return None


def _inside(data: bytes, parent: _Element) -> Iterator[_Element]:
    return _elements(data, parent.content, parent.end)


def _elements(data: bytes, start: int, end: int) -> Iterator[_Element]:
    """Elements one after the other; damage ends the list."""
    while start < end:
        if not data[start]:
            return
        content = start + 9 - data[start].bit_length()
        if content >= min(end, len(data)) or not data[content]:
            return
        size = 9 - data[content].bit_length()
        length = int.from_bytes(data[content : content + size], "big") & (1 << 7 * size) - 1
        kind = int.from_bytes(data[start:content], "big")
        unknown = length == (1 << 7 * size) - 1
        after = end if unknown else content + size + length
        yield _Element(kind, start, content + size, after)
        start = after
