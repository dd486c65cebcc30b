"""Video: a header, one chunk per frame, an index and an end. The normative text is docs/format.md, section 10.

Frames are written and read one by one, in memory that does not grow with their number.
"""

from __future__ import annotations

import binascii
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, BinaryIO, Literal, NamedTuple

from latens.errors import (
    ChecksumError,
    FormatError,
    LatensError,
    LimitError,
    TruncatedError,
    VersionError,
)
from latens.format._container import unpack_density
from latens.format._header import (
    MAX_SIDE,
    SIGNATURE,
    VERSION,
    Bits,
    Cicp,
    Field,
    Id,
    Limits,
    Name,
    Side,
    Uint,
    open_header,
    pack_fields,
    require_shortest,
    unpack_fields,
)
from latens.format._wire import VARINT_BYTES, VARINT_MAX, Reader, varint

__all__ = [
    "BT601",
    "BT709",
    "QUALITY_STEP",
    "Drawn",
    "Frame",
    "FrameOrder",
    "Index",
    "KeyFrame",
    "Stream",
    "VideoExtras",
    "VideoHeader",
    "VideoReader",
    "VideoWriter",
    "is_video",
    "max_frame_size",
]

BT709 = Cicp(1, 1, 1, 0)
BT601 = Cicp(6, 6, 6, 0)

VIDEO_PROFILE = 1
GRID = 128
MAX_INDEX = 65536
"""Key frames in an index. One of a longer film leaves out every other, again and again."""

_SHAPE, _HDR, _DRAWN, _FRAME, _COMPACT, _SOUND, _INDEX, _END = b"dhDFPsnZ"
_ANY_KNOWN = re.compile(b"[DFsnZ]")
# Sound is written in chunks of about so much, and read in chunks of at most so much.
_SOUND_USUAL, _SOUND_MOST = 1 << 15, 1 << 16
_OPTIONAL = 0x20
_MAX_UNKNOWN = 256
_OWN_QUALITY = 8
_HAS_DRAWN = 16
_MAX_KIND = 31
_MAX_RUNS = 1 << 16
# Of what a compact frame's CRC starts with, where drawn squares go before.
_CRC_DRAWN = 0x8000
_MAX_STREAMS = 4
_LANES = (1, 2, 4, 8)
# References of a compact frame, by their code: how far the one before is away, and the one behind; 0 is none.
_DISTANCES = ((1, 0), (2, 0), (4, 0), (8, 0), (1, 1), (2, 2), (4, 4))
_TOLD = len(_DISTANCES)
_MAX_DISTANCE = 15
_MAX_WAITING = 3
QUALITY_STEP = 1024
"""Unit in which the quality of a compact frame differs from the header's."""
_QUALITY_ZERO = 16
_HEAD_MAX = 1 + VARINT_BYTES
_HDR_LAYOUT = "<8H2I2H"
_UNKNOWN = (0,) * 10
_BLOCK = 1 << 16
# Salvage is bounded: CRC work of at most so many times the bytes read, and so many problems.
_SALVAGE_EFFORT = 32
_SALVAGE_PROBLEMS = 1000
_MAX_STEP = 1 << 20


def max_frame_size(width: int, height: int) -> int:
    """The most bytes that the coder streams of a frame may have together."""
    return 8 * (-(-width // GRID) * GRID) * (-(-height // GRID) * GRID) + 65536


# ---- the header


class _Rational(Field):
    """Two varints, numerator and denominator, both positive."""

    def problem(self, value: Any) -> str | None:
        if (
            isinstance(value, tuple)
            and len(value) == 2
            and all(isinstance(part, int) and 1 <= part <= VARINT_MAX for part in value)
        ):
            return None
        return f"expected two positive integers, got {value!r}"

    def pack(self, value: tuple[int, int]) -> bytes:
        return b"".join(varint(part, self.label) for part in value)

    def unpack(self, reader: Reader) -> tuple[int, int]:
        return reader.varint("the header"), reader.varint("the header")


class _Colour(Field):
    def problem(self, value: Any) -> str | None:
        codes = tuple(value)
        if len(codes) == 4 and all(isinstance(c, int) and 0 <= c <= 255 for c in codes) and codes[3] < 2:
            return None
        return f"expected code points of H.273, got {codes}"

    def pack(self, value: Cicp) -> bytes:
        return bytes(value)

    def unpack(self, reader: Reader) -> Cicp:
        return Cicp(*reader.take(4, "the header"))


# The order is the order in the file. Neighbouring Bits share bytes, the first in the lowest bits.
_FIELDS: tuple[Field, ...] = (
    Bits("profile", "Profile", 2, (None, "video")),
    Bits("chroma", "Chroma", 2, ("4:2:0", "4:2:2", "4:4:4")),
    Bits("bit_depth", "Bits per sample", 2, (8, 10, 12)),
    Bits("reserved", "Reserved bits", 2, (0,)),
    Side("width", "Width"),
    Side("height", "Height"),
    _Colour("colour", "Colour"),
    Name("model", "Model"),
    Id("entropy_id", "Entropy id"),
    Id("weights_id", "Weights id"),
    Uint("quality", "Internal quality", 2),
    Uint("skip", "Skip threshold", 1),
    _Rational("time_base", "Time base"),
    _Rational("frame_rate", "Frame rate"),
)
_DERIVED = frozenset({"profile", "reserved"})


@dataclass(frozen=True, kw_only=True)
class VideoHeader:
    """What a video says about itself before the first frame.

    Values are checked on construction: FormatError, or LimitError for a side above 65,535.

    width, height: pixels, 1 to 65,535. model, entropy_id, weights_id, quality, skip: as in the header of an image.
    chroma, bit_depth, colour: of the samples that were coded and that a decoder gives by default: "4:2:0", "4:2:2" or
    "4:4:4"; 8, 10 or 12; code points of H.273. time_base: seconds per tick, (numerator, denominator).
    frame_rate: nominal frames per second; the timestamps of the frames decide.
    """

    width: int
    height: int
    model: str
    entropy_id: str
    weights_id: str
    quality: int = 0
    skip: int = 0
    chroma: str = "4:2:0"
    bit_depth: int = 8
    colour: Cicp = BT709
    time_base: tuple[int, int] = (1, 25)
    frame_rate: tuple[int, int] = (25, 1)

    def __post_init__(self) -> None:
        for field in _FIELDS:
            if field.name in _DERIVED:
                continue
            value = getattr(self, field.name)
            problem = field.problem(value)
            if problem:
                error = LimitError if field.name in ("width", "height") and value > MAX_SIDE else FormatError
                raise error(f"{field.label.lower()}: {problem}")

    def check(self, limits: Limits) -> None:
        """Raises LimitError when frames are larger than `limits` allow."""
        for side, value in (("width", self.width), ("height", self.height)):
            if value > limits.max_side:
                raise LimitError(f"{side}: {value} pixels are above the limit of {limits.max_side}")
        if self.width * self.height > limits.max_pixels:
            raise LimitError(
                f"frames of {self.width} x {self.height} pixels are above the limit of {limits.max_pixels}; "
                "raise the limit (max_pixels) if the file can be trusted"
            )

    @property
    def max_chunk(self) -> int:
        """The largest payload of a frame in bytes."""
        return max_frame_size(self.width, self.height) + (2 + _MAX_STREAMS) * VARINT_BYTES + 7

    def describe(self) -> list[tuple[str, int | str]]:
        """(label, value) of each field: a number, or printable ASCII."""
        shown: dict[str, str] = {
            "colour": "CICP " + "/".join(map(str, self.colour)),
            "time_base": "{}/{} s".format(*self.time_base),
            "frame_rate": f"{self.frame_rate[0] / self.frame_rate[1]:.6g} per second",
        }
        return [
            (field.label, shown.get(field.name, getattr(self, field.name)))
            for field in _FIELDS
            if field.name not in _DERIVED
        ]


def pack_video_header(header: VideoHeader) -> bytes:
    """The header's bytes, signature to CRC."""
    return pack_fields(_FIELDS, {"profile": "video", "reserved": 0, **vars(header)})


def is_video(data: bytes | bytearray | memoryview) -> bool:
    """Whether a `.ltn` file that starts with these bytes (at least five) is a video."""
    head = bytes(data[:5])
    return len(head) == 5 and head[:4] == SIGNATURE + bytes([VERSION]) and head[4] & 3 == VIDEO_PROFILE


def unpack_video_header(data: memoryview, limits: Limits) -> tuple[VideoHeader, int]:
    """The header at the start of `data`, and the offset of the byte after it."""
    reader = open_header(data)
    profile = reader.uint(1, "the header") & 3
    if profile != VIDEO_PROFILE:
        raise FormatError("the file is an image, or damaged; 'latens decode' takes images")
    reader.pos -= 1
    values = unpack_fields(_FIELDS, reader, data)
    header = VideoHeader(**{name: value for name, value in values.items() if name not in _DERIVED})
    require_shortest(pack_video_header(header), data[: reader.pos])
    header.check(limits)
    return header, reader.pos


# ---- frames and the index


class Stream(NamedTuple):
    """A coder stream, and how many interleaved states (1, 2, 4 or 8) made it."""

    lanes: int
    data: bytes


class Drawn(NamedTuple):
    """What of a frame is drawn, in squares of 64x64 pixels.

    runs: lengths of runs of squares, row by row: some that are left to the model, some that stay as predicted, and so
    on in turn; none for a key frame. tile: a tile of a lossless file that has a part of the squares, or no byte.
    """

    runs: tuple[int, ...] = ()
    tile: bytes = b""


class Frame(NamedTuple):
    """One coded frame. Frames come in the order of decoding.

    number: place in the order of showing, from 0. timestamp: ticks of the time base; rises with numbers. references:
    numbers of the frames that it needs, the earlier first; none for a key frame, two at most. checksum: of its symbols;
    None for a compact frame. streams: one to four, of a compact frame one or two. quality: of its own; None for the
    header's. drawn: what of it is, if anything.
    """

    number: int
    timestamp: int
    references: tuple[int, ...]
    checksum: int | None
    streams: tuple[Stream, ...]
    quality: int | None = None
    drawn: Drawn | None = None

    @property
    def key(self) -> bool:
        """Whether it can be decoded without others."""
        return not self.references

    @property
    def size(self) -> int:
        """Bytes of all streams, and of what is drawn."""
        drawn = 0 if self.drawn is None else len(_pack_drawn(self.drawn))
        return sum(len(stream.data) for stream in self.streams) + drawn


class KeyFrame(NamedTuple):
    """Where a key frame is: its number, its timestamp in ticks, and the offset of its chunk in the file."""

    number: int
    timestamp: int
    offset: int


class Index(NamedTuple):
    """What the end of a file tells: number of frames, end of the last one in ticks, and key frames."""

    frames: int
    end: int
    keys: tuple[KeyFrame, ...]


@dataclass(frozen=True, kw_only=True)
class VideoExtras:
    """What is told of all frames beside the header. Values are checked on construction: FormatError.

    pixel_aspect: width of a pixel to its height, (numerator, denominator). mastering: of the display that HDR was
    mastered on, x and y of red, green, blue and white in steps of 0.00002, then brightest and darkest luminance in
    steps of 0.0001 cd/m2. light: brightest pixel and brightest mean of a frame, in cd/m2. 0 is what is not known.
    """

    pixel_aspect: tuple[int, int] = (1, 1)
    mastering: tuple[int, ...] | None = None
    light: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        mastering, light = self.mastering or _UNKNOWN, self.light or (0, 0)
        if len(self.pixel_aspect) != 2 or not all(0 < part <= VARINT_MAX for part in self.pixel_aspect):
            raise FormatError(f"pixel_aspect: expected two positive integers, got {self.pixel_aspect!a:.80}")
        bits = (16,) * 8 + (32,) * 2 + (16,) * 2
        values = (*mastering, *light)
        if len(values) != len(bits) or not all(
            0 <= value < 1 << size for value, size in zip(values, bits, strict=True)
        ):
            raise FormatError("HDR metadata: expected ten and two integers in range")

    def pack(self) -> bytes:
        """The chunks."""
        across, down = self.pixel_aspect
        out = b""
        if across != down:
            # So many samples per unit: the wider a pixel, the fewer.
            shape = (0, down, 1, across, 1)
            out += _pack_chunk(_SHAPE, b"".join(varint(part, "pixel_aspect") for part in shape))
        values = (*(self.mastering or _UNKNOWN), *(self.light or (0, 0)))
        if any(values):
            out += _pack_chunk(_HDR, struct.pack(_HDR_LAYOUT, *values))
        return out

    def describe(self) -> list[tuple[str, str]]:
        """Labels and values of what is told, for people."""
        found = []
        if self.pixel_aspect[0] != self.pixel_aspect[1]:
            found.append(("Shape of pixels", f"{self.pixel_aspect[0]}:{self.pixel_aspect[1]}"))
        if self.mastering is not None:
            brightest, darkest = (value / 10_000 for value in self.mastering[8:])
            found.append(("Mastered for", f"{darkest:g} to {brightest:g} cd/m2"))
        if self.light is not None:
            found.append(("Content light", f"pixels to {self.light[0]}, frames to {self.light[1]} cd/m2"))
        return found

    def with_chunk(self, kind: int, payload: bytes) -> VideoExtras:
        """The same and what a chunk says. Raises FormatError, or VersionError for a unit that is not known."""
        if kind == _SHAPE:
            (a, b), (c, d), _ = unpack_density(memoryview(payload))
            ratio = Fraction(c * b, d * a)
            if max(ratio.numerator, ratio.denominator) > VARINT_MAX:
                raise FormatError("shape of pixels: its ratio is out of range")
            return replace(self, pixel_aspect=(ratio.numerator, ratio.denominator))
        if len(payload) != struct.calcsize(_HDR_LAYOUT):
            raise FormatError(f"HDR metadata: {len(payload)} bytes, where 28 are expected")
        values = struct.unpack(_HDR_LAYOUT, payload)
        if not any(values):
            raise FormatError("HDR metadata: the chunk says nothing")
        mastering, light = values[:10], values[10:]
        return replace(
            self, mastering=mastering if any(mastering) else None, light=light if any(light) else None
        )


class FrameOrder:
    """Which frames have come, where that is not the order in which they are shown: the same for all who follow it.

    ready: the highest number so that no frame up to it is missing; -1 before the first. waiting: numbers and timestamps
    of frames that have come, while one with a lower number has not.
    """

    def __init__(self, header: VideoHeader) -> None:
        rate, base = Fraction(*header.frame_rate), Fraction(*header.time_base)
        self._period = 1 / (rate * base)
        self.ready = -1
        self.waiting: dict[int, int] = {}
        self.count = 0
        self._time = -1
        self._key = KeyFrame(0, 0, 0)

    def go_to(self, key: KeyFrame) -> None:
        """Go on with this key frame, whatever came before."""
        self.ready, self._time, self.count = key.number - 1, key.timestamp - 1, key.number
        self.waiting.clear()

    def usual_time(self, number: int) -> int:
        """The timestamp of a frame at the nominal rate, counted from the last key frame."""
        return self._key.timestamp + self._ticks(number) - self._ticks(self._key.number)

    def _ticks(self, number: int) -> int:
        return (2 * number * self._period.numerator + self._period.denominator) // (
            2 * self._period.denominator
        )

    def check(self, frame: Frame) -> None:
        """Raises FormatError for a frame that cannot come next."""
        number = frame.number
        if frame.checksum is not None or frame.key:
            if self.waiting:
                raise FormatError(
                    f"frame {number} comes while {_listed(self.waiting)} wait for one before them"
                )
            if number != self.ready + 1:
                raise FormatError(f"frame {number}, where frame {self.ready + 1} was expected")
            if number == 0 and not frame.key:
                raise FormatError("the first frame is not a key frame")
            if frame.references not in ((), (self.ready,)):
                raise FormatError(f"frame {number} cannot refer to {_listed(frame.references)}")
        else:
            if self.ready < 0:
                raise FormatError("the first frame is not a key frame")
            if number in self.waiting:
                raise FormatError(f"frame {number} comes again")
            if not self.ready < number <= self.ready + _MAX_DISTANCE:
                raise FormatError(f"frame {number} cannot come after frame {self.ready}")
            if number > self.ready + 1 and len(self.waiting) == _MAX_WAITING:
                raise FormatError(f"frame {number}: more than {_MAX_WAITING} frames would wait for others")
            before, *behind = frame.references
            later = all(
                number < other <= number + _MAX_DISTANCE and other in self.waiting for other in behind
            )
            if before != self.ready or len(behind) > 1 or not later:
                raise FormatError(f"frame {number} cannot refer to {_listed(frame.references)}: not there")
        known = [(self.ready, self._time), *self.waiting.items()]
        if any(
            (time < frame.timestamp) != (other < number) or time == frame.timestamp for other, time in known
        ):
            raise FormatError(f"frame {number}: its timestamp does not rise with its number")

    def add(self, frame: Frame) -> None:
        """Take the next one. Raises FormatError for one that cannot come now."""
        self.check(frame)
        if frame.key:
            self._key = KeyFrame(frame.number, frame.timestamp, 0)
        self.count += 1
        self.waiting[frame.number] = frame.timestamp
        while self.ready + 1 in self.waiting:
            self.ready += 1
            self._time = self.waiting.pop(self.ready)

    @property
    def last(self) -> int:
        """The timestamp of the last frame that is ready; -1 before the first."""
        return self._time


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(f"frame {number}" for number in sorted(numbers)) or "none"


def _pack_chunk(kind: int, payload: bytes) -> bytes:
    head = bytes([kind]) + varint(len(payload), "chunk size")
    return head + payload + zlib.crc32(payload, zlib.crc32(head)).to_bytes(4, "little")


def _pack_compact(frame: Frame, header: VideoHeader, order: FrameOrder) -> bytes:
    """The whole chunk of a frame that `order` would take next."""
    past = frame.number - order.ready
    future = frame.references[1] - frame.number if len(frame.references) == 2 else 0
    late = frame.timestamp - order.usual_time(frame.number)
    code = _TOLD if late or (past, future) not in _DISTANCES else _DISTANCES.index((past, future))
    steps = 0 if frame.quality is None else (frame.quality - header.quality) // QUALITY_STEP
    out = bytearray([code | steps + _QUALITY_ZERO << 3])
    if code == _TOLD:
        out.append(past | future << 4)
        out += varint(2 * late if late >= 0 else -2 * late - 1, "timestamp")
    first, *second = frame.streams
    data = second[0].data if second else b""
    out += varint(len(data) << 2 | first.lanes.bit_length() - 1, "stream size") + data + first.data
    chunk = bytes([_COMPACT]) + varint(len(out), "chunk size") + out
    return chunk + _crc16(chunk, order, frame.drawn is not None).to_bytes(2, "little")


def _crc16(chunk: bytes | memoryview, order: FrameOrder, drawn: bool) -> int:
    return binascii.crc_hqx(chunk, (order.count & 0xFFFF) ^ (_CRC_DRAWN if drawn else 0))


def _pack_drawn(drawn: Drawn) -> bytes:
    runs = b"".join(varint(run, "a run of squares") for run in drawn.runs)
    return varint(len(drawn.runs), "runs of squares") + runs + drawn.tile


def _unpack_drawn(payload: memoryview) -> Drawn:
    reader = Reader(payload)
    count = reader.varint("runs of squares")
    if count > _MAX_RUNS:
        raise LimitError(f"{count} runs of squares, where {_MAX_RUNS} are allowed")
    runs = tuple(reader.varint("a run of squares") for _ in range(count))
    if 0 in runs[1:]:
        raise FormatError("drawn squares: a run is empty")
    return Drawn(runs, bytes(payload[reader.pos :]))


def _unpack_compact(payload: memoryview, header: VideoHeader, order: FrameOrder) -> Frame:
    reader = Reader(payload)
    byte = reader.uint(1, "a frame")
    code, late = byte & 7, 0
    if code == _TOLD:
        told = reader.uint(1, "a frame")
        past, future = told & 15, told >> 4
        late = reader.varint("a frame's timestamp")
        late = -(late + 1 >> 1) if late & 1 else late >> 1
        if not late and (past, future) in _DISTANCES:
            raise FormatError(
                f"a frame after frame {order.ready}: its references are not in their shortest form"
            )
    else:
        past, future = _DISTANCES[code]
    number = order.ready + past
    steps = (byte >> 3) - _QUALITY_ZERO
    quality = header.quality + steps * QUALITY_STEP
    if not 0 <= quality <= 0xFFFF:
        raise FormatError(f"frame {number}: quality {quality} is out of range")
    size = reader.varint("a stream's size")
    second = bytes(reader.take(size >> 2, "a stream"))
    streams = [Stream(1 << (size & 3), bytes(payload[reader.pos :]))]
    if second:
        streams.append(Stream(1, second))
    references = (order.ready, number + future) if future else (order.ready,)
    timestamp = order.usual_time(number) + late
    return Frame(number, timestamp, references, None, tuple(streams), quality if steps else None)


def _pack_frame(frame: Frame) -> bytes:
    kind = frame.key | len(frame.streams) - 1 << 1
    assert frame.checksum is not None  # FrameOrder and the writer see to it
    if frame.quality is not None:
        kind |= _OWN_QUALITY
    if frame.drawn is not None:
        kind |= _HAS_DRAWN
    out = bytearray(varint(frame.number, "frame number") + varint(frame.timestamp, "timestamp"))
    out.append(kind)
    if frame.quality is not None:
        out += frame.quality.to_bytes(2, "little")
    out += frame.checksum.to_bytes(4, "little")
    for stream in frame.streams:
        out += varint(len(stream.data) << 2 | stream.lanes.bit_length() - 1, "stream size") + stream.data
    return bytes(out)


def _unpack_frame(payload: memoryview, drawn: Drawn | None) -> Frame:
    reader = Reader(payload)
    number, timestamp = reader.varint("a frame's number"), reader.varint("a frame's timestamp")
    kind = reader.uint(1, "a frame")
    if kind > _MAX_KIND:
        raise VersionError(f"frame {number}: kind {kind} is newer than this release of Latens; update it")
    if bool(kind & _HAS_DRAWN) != (drawn is not None):
        raise FormatError(f"frame {number}: its drawn squares do not go before it")
    quality = reader.uint(2, "a frame") if kind & _OWN_QUALITY else None
    checksum = reader.uint(4, "a frame")
    streams = []
    for _ in range((kind >> 1 & 3) + 1):
        size = reader.varint("a stream's size")
        streams.append(Stream(1 << (size & 3), bytes(reader.take(size >> 2, "a stream"))))
    if reader.pos != len(payload):
        raise FormatError(f"frame {number}: {len(payload) - reader.pos} bytes follow its last stream")
    references = () if kind & 1 else (number - 1,)
    return Frame(number, timestamp, references, checksum, tuple(streams), quality, drawn)


def _pack_index(index: Index) -> bytes:
    out = bytearray(
        varint(index.frames, "frames") + varint(index.end, "end") + varint(len(index.keys), "keys")
    )
    before = KeyFrame(0, 0, 0)
    for key in index.keys:
        for new, old in zip(key, before, strict=True):
            out += varint(new - old, "index")
        before = key
    # So that it is found from the end of the file.
    size = len(out) + 4
    return bytes(out) + (1 + len(varint(size, "index")) + size + 4).to_bytes(4, "little")


def _unpack_index(payload: memoryview) -> Index:
    reader = Reader(payload)
    frames, end, count = (reader.varint("the index") for _ in range(3))
    if count > MAX_INDEX or count > frames:
        raise LimitError(f"the index: {count} key frames of {frames} frames; at most {MAX_INDEX} are allowed")
    keys: list[KeyFrame] = []
    before = KeyFrame(0, 0, 0)
    for _ in range(count):
        key = KeyFrame(*(old + reader.varint("the index") for old in before))
        if keys and not all(new > old for new, old in zip(key, before, strict=True)):
            raise FormatError("the index: its entries do not rise")
        keys.append(key)
        before = key
    reader.take(4, "the index")
    index = Index(frames, end, tuple(keys))
    if bytes(payload) != _pack_index(index):
        raise FormatError("the index: its size does not fit its content")
    return index


# ---- writing


class VideoWriter:
    """Writes a video, frame by frame; everything given so far is in the file.

    file: opened for writing bytes; it need not be seekable, and is not closed. extras: of all frames.
    """

    def __init__(self, file: BinaryIO, header: VideoHeader, extras: VideoExtras | None = None) -> None:
        header.check(Limits(max_pixels=MAX_SIDE**2))
        self.header = header
        self._file = file
        self._size = 0
        self.order = FrameOrder(header)
        self._keys = _Keys()
        self._sound = bytearray()
        self._sound_start = 0
        self._sound_chunks = 0
        self._write(pack_video_header(header) + (extras or VideoExtras()).pack())

    def add(self, frame: Frame) -> None:
        """Write the next frame. Raises FormatError or LimitError for what a reader would refuse."""
        number, compact = frame.number, frame.checksum is None
        lanes_fit = all(stream.lanes in _LANES for stream in frame.streams)
        if not 1 <= len(frame.streams) <= _MAX_STREAMS or not lanes_fit:
            raise FormatError(f"frame {number}: expected 1 to {_MAX_STREAMS} streams of 1, 2, 4 or 8 lanes")
        if frame.checksum is not None and not 0 <= frame.checksum < 1 << 32:
            raise FormatError(f"frame {number}: expected a 32-bit checksum")
        if frame.quality is not None and not 0 <= frame.quality <= 0xFFFF:
            raise FormatError(f"frame {number}: quality {frame.quality} is out of range")
        if frame.size > max_frame_size(self.header.width, self.header.height):
            raise LimitError(f"frame {number}: coder streams of {frame.size} bytes are too long")
        if frame.key and compact:
            raise FormatError(f"frame {number}: a key frame needs a checksum")
        if compact:
            second = frame.streams[1:]
            steps, rest = divmod((frame.quality or self.header.quality) - self.header.quality, QUALITY_STEP)
            if len(second) > 1 or any(stream.lanes != 1 or not stream.data for stream in second):
                raise FormatError(
                    f"frame {number}: a compact frame has one stream, or a second one of one lane"
                )
            if rest or not -_QUALITY_ZERO <= steps < _QUALITY_ZERO:
                raise FormatError(f"frame {number}: quality {frame.quality} is no whole number of steps away")
        self.order.check(frame)
        if frame.key:
            self._keys.add(KeyFrame(number, frame.timestamp, self._size))
        if frame.drawn is not None:
            if len(frame.drawn.runs) > _MAX_RUNS or 0 in frame.drawn.runs[1:]:
                raise FormatError(f"frame {number}: its runs of squares are not what a reader takes")
            self._write(_pack_chunk(_DRAWN, _pack_drawn(frame.drawn)))
        if compact:
            self._write(_pack_compact(frame, self.header, self.order))
        else:
            self._write(_pack_chunk(_FRAME, _pack_frame(frame)))
        self.order.add(frame)

    def add_sound(self, data: bytes, start: int) -> None:
        """Write the next part of the sound, a Matroska file. What is little is held back until there is more.

        start: when on that file's clock the first frame is shown, in microseconds.
        """
        self._sound += data
        self._sound_start = start
        while len(self._sound) >= _SOUND_USUAL:
            self._write_sound(min(len(self._sound), _SOUND_MOST))

    def _write_sound(self, size: int) -> None:
        first = self._sound_chunks == 0
        head = varint(self._sound_chunks, "sound") + (varint(self._sound_start, "sound") if first else b"")
        self._write(_pack_chunk(_SOUND, head + bytes(self._sound[:size])))
        del self._sound[:size]
        self._sound_chunks += 1

    def finish(self, end: int) -> int:
        """Write index and end; `end` is when the last frame ends, in ticks. Returns the size of the file.

        Raises FormatError without a single frame.
        """
        order = self.order
        if not order.count:
            raise FormatError("a video without a single frame cannot be written")
        if order.waiting:
            raise FormatError(f"{_listed(order.waiting)} wait for one before them")
        if end <= order.last:
            raise FormatError(f"the last frame ends at {end}, but begins at {order.last}")
        if self._sound:
            self._write_sound(len(self._sound))
        self._write(_pack_chunk(_INDEX, _pack_index(Index(order.count, end, tuple(self._keys.kept)))))
        self._write(_pack_chunk(_END, varint(self._size, "file size")))
        return self._size

    def _write(self, data: bytes) -> None:
        if self._size + len(data) > VARINT_MAX:
            raise LimitError(f"a file may have at most {VARINT_MAX} bytes")
        self._file.write(data)
        self._size += len(data)


class _Keys:
    """The key frames of an index, thinned out alike by writers and readers."""

    def __init__(self) -> None:
        self.kept: list[KeyFrame] = []
        self._every = 1
        self._count = 0

    def add(self, key: KeyFrame) -> None:
        if self._count % self._every == 0:
            if len(self.kept) == MAX_INDEX:
                del self.kept[1::2]
                self._every *= 2
            if self._count % self._every == 0:
                self.kept.append(key)
        self._count += 1


# ---- reading


class VideoReader:
    """Reads a video frame by frame.

    With `on_error="raise"`, any damage raises: TruncatedError, ChecksumError, VersionError, LimitError or another
    FormatError; an end that is missing or followed by more, too. With "conceal" (salvage), only a damaged header
    raises; frames that are damaged are left out, and `problems` tells what happened.

    file: opened for reading bytes, at the start of the video; it need not be seekable. wait: called when the file
    ends too early; True means that there may be more now. So a file is read while it is written. sound: is given the
    parts of a Matroska file while frames are read; see `sound_start`. extras: what the file tells of all frames.
    """

    def __init__(
        self,
        file: BinaryIO,
        limits: Limits | None = None,
        on_error: Literal["raise", "conceal"] = "raise",
        wait: Callable[[], bool] | None = None,
        sound: Callable[[bytes], object] | None = None,
    ) -> None:
        if on_error not in ("raise", "conceal"):
            raise ValueError(f"on_error: expected 'raise' or 'conceal', got {on_error!r}")
        self.limits = limits or Limits()
        self.problems: list[str] = []
        self.index: Index | None = None
        self._conceal = on_error == "conceal"
        self._file = file
        # Of a pipe, take what is there and do not wait for a whole block.
        self._read: Callable[[int], bytes] = getattr(file, "read1", file.read)
        self._wait = wait
        self._buffer = bytearray()
        self._offset = 0  # of the buffer's first byte in the file
        self.header, size = self._header()
        self._drop(size)
        self.order = FrameOrder(self.header)
        """Which frames have come, and which of them are held."""
        # In a salvaged file, whether nothing is known to be missing since the last key frame.
        self._whole = True
        self._keys = _Keys()
        self._unknown = self._unknown_size = 0
        self._drawn: tuple[Drawn, int] | None = None  # of the next frame, and where it is
        self._effort = 0
        self._seeked = False
        self._sound = sound
        self._sound_chunks = 0
        self.sound_start: int | None = None
        """When on the sound's clock the first frame is shown, in microseconds, once sound was met."""
        self.extras = VideoExtras()
        self._read_extras()

    def _read_extras(self) -> None:
        seen = b""
        while self._need(1) and self._buffer[0] in (_SHAPE, _HDR):
            try:
                kind, payload, size = self._intact_chunk()
                if kind <= max(seen, default=0):
                    raise FormatError(
                        f"chunk '{chr(kind)}' at byte {self._offset} is repeated or out of place"
                    )
                self.extras = self.extras.with_chunk(kind, payload)
            except FormatError:
                if not self._conceal:
                    raise
                return  # reading frames meets it again, and tells
            seen += bytes([kind])
            self._drop(size)

    def _header(self) -> tuple[VideoHeader, int]:
        while True:
            try:
                with memoryview(bytes(self._buffer)) as data:
                    return unpack_video_header(data, self.limits)
            except TruncatedError:
                if not self._need(len(self._buffer) + 1):
                    raise

    @property
    def position(self) -> int:
        """Bytes of the file that have been used."""
        return self._offset

    def frames(self) -> Iterator[Frame]:
        """The frames, in the order of decoding. After the last one, `index` is what the file's end told.

        In a salvaged file, numbers tell what is missing.
        """
        ended = False
        while not ended:
            try:
                kind, payload, start = self._chunk()
            except FormatError as error:
                if not self._conceal:
                    raise
                self._whole, self._drawn = False, None
                if not self._note(str(error)) or not self._find():
                    break
                continue
            try:
                frame = self._take(kind, payload, start)
            except LatensError as error:
                if not self._conceal:
                    raise
                self._whole, self._drawn = False, None
                if not self._note(str(error)):
                    break
                continue
            if frame is not None:
                yield frame
            ended = kind == _END

    def seek(self, seconds: float) -> None:
        """Go to the key frame at or before a time; the file must be seekable and complete.

        Raises FormatError if it has no index that can be used, LimitError if the time is after its end.
        """
        index = self.read_index()
        numerator, denominator = self.header.time_base
        tick = max(int(seconds * denominator / numerator), 0)
        if tick >= index.end:
            raise LimitError(
                f"{seconds:g} s is after the end of the video ({index.end * numerator / denominator:g} s)"
            )
        keys = [key for key in index.keys if key.timestamp <= tick] or [index.keys[0]]
        self._file.seek(keys[-1].offset)
        self._buffer.clear()
        self._offset = keys[-1].offset
        self.order.go_to(keys[-1])
        self._seeked = True

    def read_index(self) -> Index:
        """The index at the end of a seekable file. The position is kept. Raises FormatError without a sound one."""
        here = self._file.tell()
        try:
            size = self._file.seek(0, 2)
            self._file.seek(max(size - 24, 0))
            tail = self._file.read(24)
            for length in range(1 + 1 + 1 + 4, 1 + 1 + VARINT_BYTES + 4 + 1):
                end = tail[-length:]
                if (
                    len(end) == length
                    and end[0] == _END
                    and end == _pack_chunk(_END, varint(size - length, ""))
                ):
                    break
            else:
                raise FormatError("the file has no end: it is cut, or still being written")
            start = size - length - int.from_bytes(tail[-length - 8 : -length - 4], "little")
            most = 3 * VARINT_BYTES * (MAX_INDEX + 1) + 64
            if not 0 < start < size - length or size - length - start > most:
                raise FormatError("the file has no index that can be used")
            self._file.seek(start)
            chunk = memoryview(self._file.read(size - length - start))
            reader = Reader(chunk)
            kind = reader.uint(1, "the index")
            payload = reader.take(reader.varint("the index"), "the index")
            if kind != _INDEX or zlib.crc32(chunk[: reader.pos]) != reader.uint(4, "the index"):
                raise ChecksumError("the index is damaged")
            index = _unpack_index(payload)
            if not index.keys or index.keys[-1].offset >= start:
                raise FormatError("the index points behind itself")
            return index
        finally:
            self._file.seek(here)

    # -- bytes

    def _need(self, count: int) -> bool:
        """Have at least `count` bytes in the buffer, if the file has them."""
        while len(self._buffer) < count:
            data = self._read(max(min(count - len(self._buffer), 1 << 24), _BLOCK))
            if data:
                self._buffer += data
            elif self._wait is None or not self._wait():
                return False
        return True

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._offset += count

    def _intact_chunk(self) -> tuple[int, bytes, int]:
        """Kind, payload and size of the chunk that the buffer starts with, its CRC proved. It is left there."""
        if not self._need(1):
            raise TruncatedError("the file ends without an END chunk")
        self._need(_HEAD_MAX)
        reader = Reader(memoryview(bytes(self._buffer[:_HEAD_MAX])))
        kind = reader.uint(1, "a chunk")
        length = reader.varint("a chunk's size")
        if length > self._most:
            raise FormatError(
                f"the chunk at byte {self._offset}: {length} bytes are above the limit of {self._most}"
            )
        end = reader.pos + length
        size = end + (2 if kind == _COMPACT else 4)
        if not self._need(size):
            raise TruncatedError(f"the file ends inside the chunk at byte {self._offset}")
        with memoryview(self._buffer) as data:
            computed = (
                _crc16(data[:end], self.order, self._drawn is not None)
                if kind == _COMPACT
                else zlib.crc32(data[:end])
            )
        stored = int.from_bytes(self._buffer[end:size], "little")
        if stored != computed:
            raise ChecksumError(
                f"the chunk at byte {self._offset} is damaged: its CRC is {computed:x}, {stored:x} was stored"
            )
        return kind, bytes(self._buffer[reader.pos : end]), size

    @property
    def _most(self) -> int:
        return max(self.header.max_chunk, self.limits.max_metadata)

    def _chunk(self) -> tuple[int, bytes, int]:
        """Kind, payload and offset of the next chunk."""
        start = self._offset
        kind, payload, size = self._intact_chunk()
        self._drop(size)
        return kind, payload, start

    def _take(self, kind: int, payload: bytes, start: int) -> Frame | None:
        drawn, self._drawn = self._drawn, None
        if kind == _FRAME:
            frame = _unpack_frame(memoryview(payload), drawn[0] if drawn else None)
            self._check(frame)
            if frame.key:
                self._keys.add(KeyFrame(frame.number, frame.timestamp, drawn[1] if drawn else start))
            return frame
        if kind == _COMPACT:
            if not self._whole:
                return None
            frame = _unpack_compact(memoryview(payload), self.header, self.order)
            frame = frame._replace(drawn=drawn[0] if drawn else None)
            self._check(frame)
            return frame
        if drawn:
            raise FormatError(f"no frame follows the drawn squares at byte {drawn[1]}")
        if kind == _DRAWN:
            self._drawn = _unpack_drawn(memoryview(payload)), start
        elif kind == _INDEX:
            index = _unpack_index(memoryview(payload))
            if self.index is not None:
                raise FormatError(f"the index at byte {start} is repeated")
            order = self.order
            if order.waiting and not self.problems:
                raise FormatError(f"the index comes while {_listed(order.waiting)} wait for one before them")
            seen = Index(order.count, index.end, tuple(self._keys.kept) if not self._seeked else index.keys)
            self.index = index
            if index.end <= order.last or (index != seen and not self.problems):
                raise FormatError("the index does not fit the frames")
        elif kind == _END:
            self._end(payload, start)
        elif kind == _SOUND:
            self._take_sound(payload, start)
        elif kind in (_SHAPE, _HDR):
            if not self._conceal:
                raise FormatError(f"chunk '{chr(kind)}' at byte {start} is repeated or out of place")
            self.extras = self.extras.with_chunk(kind, payload)
        elif not kind & _OPTIONAL:
            raise VersionError(f"chunk type 0x{kind:02x} is newer than this release of Latens; update it")
        else:
            self._unknown += 1
            self._unknown_size += len(payload)
            if self._unknown > _MAX_UNKNOWN or self._unknown_size > self.limits.max_metadata:
                raise LimitError(
                    f"chunks of unknown type exceed the limit of {_MAX_UNKNOWN} chunks and "
                    f"{self.limits.max_metadata} bytes"
                )
        return None

    def _take_sound(self, payload: bytes, start: int) -> None:
        if self.index is not None:
            raise FormatError(f"the sound at byte {start} comes after the index")
        reader = Reader(memoryview(payload))
        number = reader.varint("sound")
        if number == 0:
            self.sound_start = reader.varint("sound")
        size = len(payload) - reader.pos
        if not 0 < size <= _SOUND_MOST:
            raise LimitError(f"the sound at byte {start}: {size} bytes, where 1 to {_SOUND_MOST} are allowed")
        if self._seeked:
            return
        if number != self._sound_chunks:
            # What is behind a hole is not delivered: nobody could tell when it is heard.
            expected, self._sound_chunks, self._sound = self._sound_chunks, number + 1, None
            raise FormatError(f"part {number} of the sound, where part {expected} was expected")
        self._sound_chunks += 1
        if self._sound is not None:
            self._sound(payload[reader.pos :])

    def _check(self, frame: Frame) -> None:
        if self.index is not None:
            raise FormatError(f"frame {frame.number} comes after the index")
        if frame.size > max_frame_size(self.header.width, self.header.height):
            raise LimitError(f"frame {frame.number}: coder streams of {frame.size} bytes are too long")
        order = self.order
        if self._conceal and frame.checksum is not None and frame.number > order.ready + 1:
            # What is between was lost.
            if frame.timestamp <= max([order.last, *order.waiting.values()]):
                raise FormatError(f"frame {frame.number}: its timestamp does not rise with its number")
            order.go_to(KeyFrame(frame.number, frame.timestamp, 0))
        order.add(frame)
        self._whole |= frame.key

    def _end(self, payload: bytes, start: int) -> None:
        reader = Reader(memoryview(payload))
        size = reader.varint("END")
        if reader.pos != len(payload):
            raise FormatError("END: its payload is too long")
        if size != start:
            raise FormatError(f"END says that {size} bytes precede it, {start} do: chunks are missing")
        if self.index is None and not self.problems:
            raise FormatError("the file has no index")
        if not self.order.count and not self.problems:
            raise FormatError("the video has no frames")
        # Whoever waits for more frames does not wait for what must not come.
        self._wait = None
        if self._need(1):
            raise FormatError("bytes follow the END chunk")

    # -- salvage

    def _note(self, problem: str) -> bool:
        self.problems.append(problem)
        if len(self.problems) < _SALVAGE_PROBLEMS:
            return True
        self.problems.append("too many problems; the rest of the file is given up")
        return False

    def _find(self) -> bool:
        """Go to the next sound chunk of a known kind.

        The damaged one's own length is not trusted: it may be what is damaged, and point behind a sound chunk.
        """
        at = 1
        while True:
            if not self._need(at + 1):
                return False
            match = _ANY_KNOWN.search(self._buffer, at)
            found = -1 if match is None else match.start()
            del match  # it would keep the buffer from changing its size
            if found < 0:
                self._drop(len(self._buffer))
                at = 0
                continue
            self._drop(found)
            if self._plausible():
                with suppress(FormatError):
                    self._intact_chunk()
                    return True
                if self._effort > _SALVAGE_EFFORT * (self._offset + len(self._buffer)):
                    self._note("the search for sound frames is given up")
                    return False
            at = 1

    def _plausible(self) -> bool:
        """Whether the buffer may start with a chunk still awaited: a quick look before its CRC is computed."""
        self._need(_HEAD_MAX + 2 * VARINT_BYTES + 5)
        reader = Reader(memoryview(bytes(self._buffer[: _HEAD_MAX + 2 * VARINT_BYTES + 5])))
        order = self.order
        try:
            kind = reader.uint(1, "a chunk")
            length = reader.varint("a chunk's size")
            if kind == _FRAME:
                start = reader.pos
                number, timestamp = reader.varint("a frame"), reader.varint("a frame")
                code = reader.uint(1, "a frame")
                fits = (
                    order.ready < number <= order.ready + _MAX_STEP
                    and timestamp > order.last
                    and code <= _MAX_KIND
                    and reader.pos - start + 4 <= length <= self.header.max_chunk
                )
            elif kind == _DRAWN:
                fits = reader.varint("squares") <= _MAX_RUNS and length <= self.header.max_chunk
            elif kind == _SOUND:
                fits = (
                    reader.varint("sound") >= self._sound_chunks and length <= _SOUND_MOST + 2 * VARINT_BYTES
                )
            elif kind == _INDEX:
                frames, end, count = (reader.varint("the index") for _ in range(3))
                fits = (
                    self.index is None
                    and order.ready < frames <= order.ready + 1 + _MAX_STEP
                    and end > order.last
                    and count <= min(MAX_INDEX, frames)
                    and length <= 3 * VARINT_BYTES * (count + 1) + 4
                )
            else:
                fits = length <= VARINT_BYTES
        except FormatError:
            return False
        self._effort += length if fits else 0
        return fits
