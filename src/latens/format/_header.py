"""The header. Every field is declared once, in FIELDS, which drives reading, writing, checking, printing."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from latens.errors import ChecksumError, FormatError, LimitError, TruncatedError, VersionError
from latens.format._geometry import GRID, Rect, max_stream_size, tile_grid, tile_rects
from latens.format._wire import Reader, varint

SIGNATURE = b"LTN"
VERSION = 1
_VIDEO, _LOSSLESS = 1, 2  # profiles
MAX_HEADER_SIZE = 128
MAX_SIDE = 65535

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NAME_MAX = 64
_PREFIXES = {0x01: "latens-base-", 0x02: "latens-eye-", 0x03: "latens-psnr-"}
_ID = re.compile(r"[0-9a-f]{8}")


class Cicp(NamedTuple):
    """Colour as code points of ITU-T H.273."""

    primaries: int
    transfer: int
    matrix: int
    full_range: int


SRGB = Cicp(1, 13, 0, 1)


@dataclass(frozen=True)
class Limits:
    """What a reader accepts; checked before anything is allocated.

    max_side: pixels; the format itself ends at 65,535. max_pixels: width times height. max_tiles: number of
    tiles. max_metadata: bytes of each of ICC, EXIF and XMP, inflated, of a preview, and of all unknown chunks
    together.
    """

    max_side: int = MAX_SIDE
    max_pixels: int = 1 << 28
    max_tiles: int = 65536
    max_metadata: int = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says about itself before the first chunk.

    Values are checked on construction: FormatError, or LimitError for a side above 65,535.

    width, height: pixels, 1 to 65,535. model: `[a-z0-9][a-z0-9._-]{0,63}`. entropy_id, weights_id: the first
    8 hexadecimal digits of the full SHA-256, lower case. quality: the model's internal quality, 0 to 65,535.
    channels: 3 or 1. bit_depth: 8 to 16; samples of 9 bits
    and more are on the scale of 16. colour: code points, sRGB unless given. tile_size: pixels, 64
    * 2^k, k up to 10. lanes: 2^k, k up to 10. skip: 0 to 255. lossless: no model made the file, see
    :meth:`without_model`. near: the largest error of a sample in such a file, 0 to 255. alpha: whether its tiles hold
    alpha.
    """

    width: int
    height: int
    model: str
    entropy_id: str
    weights_id: str
    quality: int
    channels: int = 3
    bit_depth: int = 8
    colour: Cicp = SRGB
    tile_size: int = 1024
    lanes: int = 1
    skip: int = 0
    lossless: bool = False
    near: int = 0
    alpha: bool = False

    def __post_init__(self) -> None:
        for field in LOSSLESS_FIELDS if self.lossless else FIELDS:
            if field.name in _DERIVED or (field.name == "colour" and self.colour == SRGB):
                continue
            value = getattr(self, field.name)
            problem = field.problem(value)
            if problem:
                error = LimitError if field.name in ("width", "height") and value > MAX_SIDE else FormatError
                raise error(f"{field.label.lower()}: {problem}")
        problem = _range_problem(self.bit_depth, 8, 16)
        if problem:
            raise FormatError(f"bits per sample: {problem}")
        if not self.lossless and (self.near or self.alpha):
            raise FormatError("near and alpha: only files without a model have them in their header")

    @classmethod
    def without_model(cls, **fields: Any) -> Header:
        """The header of a lossless file; what only models have is empty."""
        nothing: dict[str, Any] = {
            "model": "lossless",
            "entropy_id": "0" * 8,
            "weights_id": "0" * 8,
            "quality": 0,
        }
        return cls(**nothing, **fields, lossless=True)

    @property
    def sample_bytes(self) -> int:
        """Bytes of a sample, decoded: 1 or 2."""
        return 1 if self.bit_depth == 8 else 2

    @property
    def tile_count(self) -> int:
        """The number of tiles."""
        columns, rows = tile_grid(self.width, self.height, self.tile_size)
        return columns * rows

    def tiles(self) -> list[Rect]:
        """The rectangle of each tile, in the order of the file."""
        return tile_rects(self.width, self.height, self.tile_size)

    def check(self, limits: Limits) -> None:
        """Raises LimitError when the image is larger than `limits` allow."""
        for side, value in (("width", self.width), ("height", self.height)):
            if value > limits.max_side:
                raise LimitError(f"{side}: {value} pixels are above the limit of {limits.max_side}")
        if self.width * self.height > limits.max_pixels:
            raise LimitError(
                f"{self.width} x {self.height} pixels are above the limit of {limits.max_pixels}; "
                "raise the limit (max_pixels) if the file can be trusted"
            )
        if self.tile_count > limits.max_tiles:
            raise LimitError(f"{self.tile_count} tiles are above the limit of {limits.max_tiles}")

    def max_file_size(self, limits: Limits) -> int:
        """The largest number of bytes that a valid file with this header can have."""
        # Twice, for drawn blocks.
        streams = 2 * sum(max_stream_size(rect.width, rect.height) + 32 for rect in self.tiles())
        alpha = self.width * self.height * self.sample_bytes
        # 1/256 and 64 KiB are far above what zlib adds to data that it cannot compress.
        alpha += 16 * self.tile_count
        return MAX_HEADER_SIZE + streams + alpha + alpha // 256 + 5 * limits.max_metadata + 65536


# ---- how fields are stored: each kind knows its limits, its bytes and, for reading, the way back


class Field:
    def __init__(self, name: str, label: str) -> None:
        self.name = name
        self.label = label

    def problem(self, value: Any) -> str | None:
        """What is wrong with `value`, if anything."""
        raise NotImplementedError

    def pack(self, value: Any) -> bytes:
        raise NotImplementedError

    def unpack(self, reader: Reader) -> Any:
        raise NotImplementedError


class Bits(Field):
    """A few bits of a byte shared with its neighbours; `values[code]` is the meaning of each code."""

    def __init__(self, name: str, label: str, width: int, values: tuple[Any, ...]) -> None:
        super().__init__(name, label)
        self.width = width
        self.values = values

    def problem(self, value: Any) -> str | None:
        if value in self.values:
            return None
        return f"expected one of {', '.join(map(str, self.values))}, got {value!r}"

    def meaning(self, code: int) -> Any:
        if code >= len(self.values):
            raise VersionError(
                f"{self.label.lower()}: code {code} is newer than this release of Latens; update it"
            )
        return self.values[code]


class Uint(Field):
    def __init__(self, name: str, label: str, size: int) -> None:
        super().__init__(name, label)
        self.size = size

    def problem(self, value: Any) -> str | None:
        return _range_problem(value, 0, (1 << 8 * self.size) - 1)

    def pack(self, value: int) -> bytes:
        return value.to_bytes(self.size, "little")

    def unpack(self, reader: Reader) -> int:
        return reader.uint(self.size, "the header")


class Side(Field):
    def problem(self, value: Any) -> str | None:
        return _range_problem(value, 1, MAX_SIDE)

    def pack(self, value: int) -> bytes:
        return varint(value, self.label)

    def unpack(self, reader: Reader) -> int:
        return reader.varint("the header")


class _Colour(Field):
    """Present only when the header's colour is not sRGB."""

    def problem(self, value: Any) -> str | None:
        primaries, transfer, matrix, full_range = value
        if any(_range_problem(code, 0, 255) for code in (primaries, transfer)) or full_range not in (0, 1):
            return f"expected code points of H.273, got {tuple(value)}"
        if matrix != 0:
            return f"expected matrix 0 (RGB), got {matrix!r}"
        return None

    def pack(self, value: Cicp) -> bytes:
        return bytes(value)

    def unpack(self, reader: Reader) -> Cicp:
        return Cicp(*reader.take(4, "the header"))


class Name(Field):
    def problem(self, value: Any) -> str | None:
        if isinstance(value, str) and _NAME.fullmatch(value):
            return None
        return f"expected 1 to 64 characters a-z, 0-9, '.', '_' or '-', got {value!a:.80}"

    def pack(self, value: str) -> bytes:
        data = bytearray(value, "ascii")
        for code, prefix in _PREFIXES.items():
            if len(value) > len(prefix) and value.startswith(prefix):
                data[: len(prefix)] = bytes([code])
        data[-1] |= 0x80
        return bytes(data)

    def unpack(self, reader: Reader) -> str:
        stored = bytearray()
        while not stored or stored[-1] < 0x80:
            if len(stored) == _NAME_MAX:
                raise FormatError(f"{self.label.lower()}: the name is longer than {_NAME_MAX} bytes")
            stored.append(reader.uint(1, "the header"))
        stored[-1] &= 0x7F
        prefix = _PREFIXES.get(stored[0], "")
        return prefix + stored[bool(prefix) :].decode("ascii")


class Id(Field):
    def problem(self, value: Any) -> str | None:
        if isinstance(value, str) and _ID.fullmatch(value):
            return None
        return f"expected 8 lower-case hexadecimal digits, got {value!a:.80}"

    def pack(self, value: str) -> bytes:
        return bytes.fromhex(value)

    def unpack(self, reader: Reader) -> str:
        return reader.take(4, "the header").hex()


def _range_problem(value: Any, low: int, high: int) -> str | None:
    if isinstance(value, int) and low <= value <= high:
        return None
    return f"expected {low} to {high}, got {value!r}"


# The order is the order in the file. Neighbouring Bits share bytes, the first in the lowest bits.
FIELDS: tuple[Field, ...] = (
    Bits("profile", "Profile", 2, ("image",)),
    Bits("channels", "Channels", 1, (3, 1)),
    Bits("deep", "Deep", 1, (False, True)),
    Bits("explicit_colour", "Explicit colour", 1, (False, True)),
    Bits("left_out", "Bits left out", 3, tuple(range(8))),
    Side("width", "Width"),
    Side("height", "Height"),
    _Colour("colour", "Colour"),
    Name("model", "Model"),
    Id("entropy_id", "Entropy id"),
    Id("weights_id", "Weights id"),
    Uint("quality", "Internal quality", 2),
    Bits("tile_size", "Tile size", 4, tuple(GRID << k for k in range(11))),
    Bits("lanes", "Lanes", 4, tuple(1 << k for k in range(11))),
    Uint("skip", "Skip threshold", 1),
)
_DERIVED = frozenset({"profile", "deep", "explicit_colour", "left_out", "reserved"})
LOSSLESS_FIELDS: tuple[Field, ...] = (
    Bits("profile", "Profile", 2, ("image", "video", "lossless")),
    *FIELDS[1:8],
    Uint("near", "Largest error", 1),
    Bits("tile_size", "Tile size", 4, tuple(GRID << k for k in range(11))),
    Bits("alpha", "Alpha", 1, (False, True)),
    Bits("reserved", "Reserved bits", 3, (0,)),
)


def pack_header(header: Header) -> bytes:
    """The header's bytes, signature to CRC."""
    explicit = header.colour != SRGB
    deep = header.bit_depth > 8
    derived = {
        "profile": "lossless" if header.lossless else "image",
        "reserved": 0,
        "deep": deep,
        "explicit_colour": explicit,
        "left_out": 16 - header.bit_depth if deep else 0,
    }
    fields = LOSSLESS_FIELDS if header.lossless else FIELDS
    return pack_fields(fields, derived | vars(header), explicit)


def unpack_header(data: memoryview, limits: Limits) -> tuple[Header, int]:
    """The header at the start of `data`, and the offset of the byte after it."""
    reader = open_header(data)
    profile = data[reader.pos] & 3 if data[reader.pos : reader.pos + 1] else 0
    if profile == _VIDEO:
        # Its header is another; see _video.py.
        raise VersionError("profile 1: a video, which 'latens video' reads, unless the file is damaged")
    lossless = profile == _LOSSLESS
    values = {"colour": SRGB, **unpack_fields(LOSSLESS_FIELDS if lossless else FIELDS, reader, data)}
    if values["explicit_colour"] and values["colour"] == SRGB:
        raise FormatError("colour: sRGB must not be spelled out")
    if values["left_out"] and not values["deep"]:
        raise VersionError("reserved bits of the header are newer than this release of Latens; update it")
    values["bit_depth"] = 16 - values["left_out"] if values["deep"] else 8
    made = Header.without_model if lossless else Header
    header = made(**{name: value for name, value in values.items() if name not in _DERIVED})
    require_shortest(pack_header(header), data[: reader.pos])
    header.check(limits)
    return header, reader.pos


# ---- what headers of all profiles share


def pack_fields(fields: Sequence[Field], values: Mapping[str, Any], colour: bool = True) -> bytes:
    """Signature, version, `fields` (without the colour where `colour` is false) and CRC."""
    out = bytearray(SIGNATURE)
    out.append(VERSION)
    bits = filled = 0
    for field in fields:
        if isinstance(field, Bits):
            bits |= field.values.index(values[field.name]) << filled
            filled += field.width
            if filled == 8:
                out.append(bits)
                bits = filled = 0
        elif colour or field.name != "colour":
            out += field.pack(values[field.name])
    return bytes(out + zlib.crc32(out).to_bytes(4, "little"))


def open_header(data: memoryview) -> Reader:
    """A reader that stands behind signature and version."""
    head = bytes(data[: len(SIGNATURE)])
    if head != SIGNATURE:
        if SIGNATURE.startswith(head):
            raise TruncatedError(
                "the file is empty" if not head else f"the file ends after {len(head)} bytes"
            )
        raise FormatError("not a .ltn file: it does not begin with 'LTN'")
    reader = Reader(data, len(SIGNATURE))
    version = reader.uint(1, "the header")
    if version != VERSION:
        raise VersionError(
            f"format version {version}; this release of Latens reads version {VERSION}: update it, "
            "unless the file is damaged"
        )
    return reader


def unpack_fields(fields: Sequence[Field], reader: Reader, data: memoryview) -> dict[str, Any]:
    """The inverse of `pack_fields`, from behind the version on; the colour may be missing."""
    # Two passes: codes are interpreted only after the CRC has proved them.
    codes: list[tuple[Bits, int]] = []
    values: dict[str, Any] = {}
    bits = left = 0
    colour = True
    for field in fields:
        if isinstance(field, Bits):
            if not left:
                bits, left = reader.uint(1, "the header"), 8
            code = bits & (1 << field.width) - 1
            codes.append((field, code))
            bits >>= field.width
            left -= field.width
            if field.name == "explicit_colour":
                colour = bool(code)
        elif colour or field.name != "colour":
            values[field.name] = field.unpack(reader)
    stored = reader.uint(4, "the header")
    computed = zlib.crc32(data[: reader.pos - 4])
    if stored != computed:
        raise ChecksumError(f"the header is damaged: its CRC-32 is {computed:08x}, {stored:08x} was stored")
    return values | {field.name: field.meaning(code) for field, code in codes}


def require_shortest(packed: bytes, found: memoryview) -> None:
    """One header has one spelling; FormatError for another."""
    if packed != found:
        raise FormatError("model: the name is not stored in its shortest form")


def describe_header(header: Header) -> list[tuple[str, int | str]]:
    """(label, value) of each field: a number, or printable ASCII."""
    colour = "sRGB" if header.colour == SRGB else "CICP " + "/".join(map(str, header.colour))
    values = {**vars(header), "colour": colour}
    declared = LOSSLESS_FIELDS if header.lossless else FIELDS
    fields = [(field.label, values[field.name]) for field in declared if field.name not in _DERIVED]
    fields.insert(1, ("Bits per sample", header.bit_depth))
    if header.lossless:
        fields.insert(0, ("Coding", "near-lossless" if header.near else "lossless"))
    return fields
