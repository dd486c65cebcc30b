"""JPEG markers: what Pillow does not tell of a file."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from latens.errors import ImageError
from latens.io._extras import need_extra
from latens.io._facts import Facts
from latens.io._picture import to_16_bits

END = b"\xff\xd9"
# A marker among entropy-coded data: neither a stuffed byte nor a restart.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_FRAMES = frozenset([*range(0xC0, 0xD0), 0xF7]) - {0xC4, 0xC8, 0xCC}
_LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF)
_JPEG_LS = 0xF7
_MAX_SEGMENTS = 20_000


@dataclass
class Marks:
    """What the segments of a JPEG file say.

    frame: marker of the frame header, 0 if there is none. precision: bits per sample. size: width, height. end:
    offset behind the end marker; None if that is missing. refined: whether each coefficient of a progressive
    file has come to its last bit. adobe: whether Adobe's segment is there.
    """

    frame: int = 0
    precision: int = 8
    size: tuple[int, int] = (0, 0)
    components: int = 0
    end: int | None = None
    refined: bool = True
    adobe: bool = False
    facts: Facts = field(default_factory=Facts)


def marks(data: bytes) -> Marks:
    """Read all segments; damage ends the list."""
    found = Marks()
    profile: dict[int, bytes] = {}
    missing: dict[int, dict[int, int]] = {}
    position = 2
    for _ in range(_MAX_SEGMENTS):
        match = _MARKER.search(data, position)
        if match is None:
            break
        marker, position = data[match.start() + 1], match.end()
        if marker == 0xD9:
            found.end = position
            break
        if marker in (0x01, 0xD8):
            continue
        size = int.from_bytes(data[position : position + 2], "big")
        content = data[position + 2 : position + size]
        if size < 2 or position + size > len(data):
            break
        position += size
        if marker in _FRAMES and len(content) >= 6 and not found.frame:
            found.frame, found.precision, found.components = marker, content[0], content[5]
            found.size = (int.from_bytes(content[3:5], "big"), int.from_bytes(content[1:3], "big"))
            if marker in (0xC2, 0xCA):
                names = content[6 : 6 + 3 * content[5] : 3]
                missing = {name: dict.fromkeys(range(64), 1) for name in names}
        elif marker == 0xDA and missing and len(content) >= 4:
            _scan(content, missing)
        else:
            found.adobe |= marker == 0xEE and content.startswith(b"Adobe")
            _segment(marker, content, found.facts, profile)
    if profile:
        found.facts.icc = b"".join(profile[number] for number in sorted(profile))
    # In a scan of luma alone, files of few coefficients leave out nothing.
    found.refined = not any(left for coefficients in missing.values() for left in coefficients.values())
    if found.end is not None and found.end < len(data):
        _behind(data[found.end :], found.facts)
    return found


def _scan(content: bytes, missing: dict[int, dict[int, int]]) -> None:
    """A scan of a progressive file: which bits of which coefficients it brings."""
    count = content[0]
    if len(content) < 4 + 2 * count:
        return
    first, last, bits = content[1 + 2 * count : 4 + 2 * count]
    for name in content[1 : 1 + 2 * count : 2]:
        for index in range(first, min(last, 63) + 1):
            missing.get(name, {})[index] = bits & 15


def _segment(marker: int, content: bytes, facts: Facts, profile: dict[int, bytes]) -> None:
    if marker == 0xE0 and content.startswith(b"JFIF\0") and len(content) >= 12:
        across, down = int.from_bytes(content[8:10], "big"), int.from_bytes(content[10:12], "big")
        unit = {0: "", 1: "inch", 2: "cm"}.get(content[7])
        if unit is not None:
            facts.take_density(across, down, unit)
        if len(content) >= 14 and content[12] and content[13]:
            facts.lose("thumbnail")
    elif marker == 0xE0 and content.startswith(b"JFXX\0"):
        facts.lose("thumbnail")
    elif marker == 0xE1 and content.startswith(b"Exif\0") and facts.exif is None:
        facts.take_exif(b"Exif\0\0" + content[6:])
    elif marker == 0xE1 and content.startswith(_XMP) and facts.xmp is None:
        facts.take_xmp(content[len(_XMP) :])
    elif marker == 0xE1 and content.startswith(b"http://ns.adobe.com/xmp/extension/"):
        facts.lose("extended XMP")
    elif marker == 0xE2 and content.startswith(b"ICC_PROFILE\0") and len(content) > 14:
        profile.setdefault(content[12], content[14:])
    elif marker == 0xE2 and content.startswith(b"urn:iso:std:iso:ts:21496:-1"):
        facts.lose("gain map")
    elif marker == 0xEB and content.startswith(b"JP"):
        facts.lose("content credentials")
    elif marker == 0xED and content.startswith(b"Photoshop"):
        facts.lose("Photoshop data (IPTC)")
    elif marker == 0xFE:
        facts.lose("comment")


def _behind(rest: bytes, facts: Facts) -> None:
    """What stands behind the picture: more pictures, or a film."""
    if b"ftyp" in rest[:64] or b"ftypmp4" in rest or b"ftypisom" in rest:
        facts.lose("film of a motion photo")
    pictures = len(re.findall(rb"\xff\xd8\xff[\xc0-\xfe]", rest))
    if b"ns.adobe.com/hdr-gain-map" in rest or b"urn:iso:std:iso:ts:21496" in rest:
        facts.lose("gain map")
    elif pictures and "gain map" not in facts.lost:
        facts.lose("further pictures")


def check(found: Marks) -> None:
    """ImageError that names a kind of JPEG that is not read."""
    if found.frame == _JPEG_LS:
        raise ImageError("JPEG-LS: this kind is not supported; convert it to PNG or TIFF")
    if found.frame in _LOSSLESS:
        raise ImageError(
            f"lossless JPEG of {found.precision} bits per sample (from a camera or a scanner): this kind is not "
            "supported; convert it to PNG or TIFF"
        )


def read_deep(data: bytes, found: Marks) -> Any:
    """Samples of a JPEG file of 12 bits, on the scale of 16.

    Raises:
        ImageError: imagecodecs is not there, or the file is damaged.
    """
    what = f"JPEG of {found.precision} bits per sample: this kind"
    if found.precision != 12 or found.components not in (1, 3):
        raise ImageError(f"{what} is not supported; convert it to PNG or TIFF")
    decoder = need_extra("imagecodecs", what)
    if found.end is None:
        raise ImageError("image file is truncated")
    samples = decoder.jpeg_decode(data)
    if samples.ndim == 2:
        samples = samples[..., None]
    width, height = found.size
    if samples.shape != (height, width, found.components):
        raise ImageError("damaged image: its samples do not fit to its header")
    return to_16_bits(samples.clip(0, 4095), 12)


def complete_but_for_its_end(data: bytes, found: Marks, decode: Callable[[bytes], Any]) -> bool:
    """Whether a JPEG file without end marker lacks nothing else.

    A decoder that has all it needs reads no further: whatever is put behind the data, the picture is the same. Where
    data are missing, it takes what it finds there for the rest.
    """
    if found.end is not None or not found.refined:
        return False
    first, second = (decode(data + filler * 40 + END) for filler in (b"\0\x55\xaa", b"\xd3\x1c\x7e"))
    return bool((first == second).all())
