"""Image orientation in EXIF and XMP: found and reset in place, so that every other byte stays as it was."""

from __future__ import annotations

import re
import struct

from PIL import Image as PilImage

_ORIENTATION = 0x0112
_SHORT, _LONG = 3, 4
# What is worth keeping of a TIFF file's own directory; the rest describes how its pixels are stored.
_TIFF_TAGS = (0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x8298)
_DENSITY_TAGS = (0x011A, 0x011B, 0x0128)
_TIFF_DIRECTORIES = (0x8769, 0x8825)
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|\s*>)\s*)[2-8]")


def is_exif(data: bytes) -> bool:
    """Whether `data` begin as EXIF (a TIFF structure) does."""
    return data[:4] in (b"II*\0", b"MM\0*") and len(data) >= 8


def split_orientation(exif: bytes) -> tuple[int | None, bytes]:
    """The orientation (1 to 8; None if absent or nonsense), and `exif` with orientation 1.

    `exif`: a TIFF structure, see `is_exif`. Damaged structures come back unchanged.
    """
    order = "<" if exif.startswith(b"II") else ">"
    result = bytearray(exif)
    orientation = 0
    try:
        (directory,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(order + "HHI", exif, entry)
            if tag == _ORIENTATION and kind in (_SHORT, _LONG) and number == 1:
                code = order + ("H" if kind == _SHORT else "I")
                (value,) = struct.unpack_from(code, exif, entry + 8)
                struct.pack_into(code, result, entry + 8, 1)
                orientation = orientation or value
    except struct.error:
        pass  # the directory points outside: keep what was found before
    return (orientation if orientation in range(1, 9) else None), bytes(result)


def xmp_orientation(xmp: bytes) -> int | None:
    """The orientation that XMP has a copy of, 2 to 8, or None."""
    found = _XMP_ORIENTATION.search(xmp)
    return int(found[0][-1:]) if found else None


def reset_xmp_orientation(xmp: bytes) -> bytes:
    """`xmp` with its copy of the orientation, if any, set to 1."""
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)


def describing(found: PilImage.Exif, *, density: bool = True) -> bytes | None:
    """EXIF with only those of the tags that describe the photo; without its density, where that is kept elsewhere."""
    kept = PilImage.Exif()
    for tag in _TIFF_TAGS:
        if tag in found and (density or tag not in _DENSITY_TAGS):
            kept[tag] = found[tag]
    for tag in _TIFF_DIRECTORIES:
        directory = found.get_ifd(tag)
        if directory:
            kept[tag] = dict(directory)
    return kept.tobytes().removeprefix(b"Exif\0\0") if len(kept) else None
