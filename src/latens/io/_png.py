"""PNG chunks: what Pillow does not tell of a file, and what it cannot write."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from latens.errors import ImageError
from latens.io._colour import (
    PRIMARIES,
    SRGB_TRANSFER,
    Chromaticities,
    primaries_code,
    profile_of_gamma,
    transfer_code,
)
from latens.io._facts import Facts
from latens.io._text import printable

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_AHEAD = 1 << 16
_ROWS = 64


def chunks_before_pixels(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Type and first 64 KiB of each chunk that stands before the pixels; damage ends the list."""
    file.seek(len(SIGNATURE))
    while len(head := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        if kind in (b"IDAT", b"IEND"):
            return
        yield kind, file.read(min(size, _AHEAD))
        file.seek(max(size - _AHEAD, 0) + 4, 1)


def check_palette(chunks: dict[bytes, bytes]) -> None:
    """ImageError for a picture of indices that has no colours, or not whole ones."""
    size = len(chunks.get(b"PLTE", b""))
    if chunks.get(b"IHDR", b"")[9:10] == b"\x03" and (size % 3 or not 3 <= size <= 768):
        raise ImageError(f"damaged PNG: 1 to 256 colours of 3 bytes are a palette, {size} bytes are there")


def chunk(kind: bytes, data: bytes) -> bytes:
    """A whole chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(png: bytes, chunks: Iterable[bytes]) -> bytes:
    """A PNG file with more chunks, right behind its header."""
    end = len(SIGNATURE) + 25
    return b"".join((png[:end], *chunks, png[end:]))


def deep_png(samples: npt.NDArray[np.uint16], chunks: Iterable[bytes]) -> bytes:
    """A PNG file of 16 bits per sample.

    Args:
        samples: height x width x 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA).
        chunks: what stands between header and pixels.
    """
    height, width, channels = samples.shape
    kind = (0, 4, 2, 6)[channels - 1]
    compressor = zlib.compressobj(6)
    above = np.zeros((1, 2 * channels * (width + 1)), np.uint8)
    pixels = bytearray()
    for start in range(0, height, _ROWS):
        rows = samples[start : start + _ROWS].astype(">u2").reshape(-1, channels * width).view(np.uint8)
        # One pixel of zeros on the left, as the filters want it.
        rows = np.pad(rows, ((0, 0), (2 * channels, 0)))
        pixels += compressor.compress(_filtered(np.concatenate((above, rows)), 2 * channels).tobytes())
        above = rows[-1:]
    pixels += compressor.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    return b"".join((SIGNATURE, header, *chunks, chunk(b"IDAT", bytes(pixels)), chunk(b"IEND", b"")))


def _filtered(rows: npt.NDArray[np.uint8], step: int) -> npt.NDArray[np.uint8]:
    """All rows but the first, each with the number of the filter that makes its differences smallest."""
    here = rows[1:, step:]
    left, up, corner = rows[1:, :-step], rows[:-1, step:], rows[:-1, :-step]
    a, b, c = (part.astype(np.int16) for part in (left, up, corner))
    to_left, to_up, to_corner = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    paeth = np.where(
        (to_left <= to_up) & (to_left <= to_corner), left, np.where(to_up <= to_corner, up, corner)
    )
    guesses = (np.zeros_like(here), left, up, ((a + b) >> 1).astype(np.uint8), paeth)
    differences = np.stack([here - guess for guess in guesses])
    best = np.abs(differences.view(np.int8).astype(np.int16)).sum(axis=2, dtype=np.int64).argmin(axis=0)
    chosen = differences[best, np.arange(len(best))]
    return np.concatenate((best.astype(np.uint8)[:, None], chosen), axis=1)


def all_chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of each chunk of a whole, sound file."""
    start = len(SIGNATURE)
    while start < len(png):
        size, kind = struct.unpack_from(">I4s", png, start)
        yield kind, png[start + 8 : start + 8 + size]
        start += size + 12


# ---- what chunks say


_GAMMA_UNIT = 100_000
_LOST = {
    b"bKGD": "background colour",
    b"caBX": "content credentials",
    b"cLLI": "content light level",
    b"cLLi": "content light level",
    b"mDCV": "mastering display",
    b"mDCv": "mastering display",
    b"oFFs": "offset",
    b"pCAL": "calibration",
    b"sCAL": "scale",
    b"tIME": "time of last change",
}
_XMP_KEYS = ("XML:com.adobe.xmp", "xmp")


def take_colour(chunks: dict[bytes, bytes], facts: Facts, channels: int) -> None:
    """Colour, from the first of cICP, iCCP, sRGB, and gAMA with cHRM."""
    codes = chunks.get(b"cICP")
    if codes is not None and len(codes) == 4 and codes[2] == 0 and codes[3] < 2:
        facts.colour = (codes[0], codes[1], 0, codes[3])
        if facts.icc:
            facts.lose("ICC profile (overridden by code points)")
        facts.icc = None
        return
    if codes is not None:
        facts.lose("damaged code points of colour")
    if facts.icc or b"sRGB" in chunks or b"iCCP" in chunks:
        return
    gamma, primaries = chunks.get(b"gAMA"), chunks.get(b"cHRM")
    take_gamma(
        struct.unpack(">I", gamma)[0] / _GAMMA_UNIT if gamma is not None and len(gamma) == 4 else None,
        [v / _GAMMA_UNIT for v in struct.unpack(">8I", primaries)]
        if primaries is not None and len(primaries) == 32
        else None,
        facts,
        channels,
    )


def take_gamma(gamma: object, chromaticity: object, facts: Facts, channels: int) -> None:
    """Colour from an encoding exponent and primaries (white, red, green, blue): code points, or a profile."""
    known: Chromaticities | None = None
    if isinstance(chromaticity, list | tuple) and len(chromaticity) == 8:
        x, y, *others = (float(v) for v in chromaticity)
        known = cast(Chromaticities, (*others, x, y))
    if not isinstance(gamma, int | float) or gamma <= 0:
        gamma = None
    if gamma is None and (known is None or channels < 3):
        return
    primaries = 1 if known is None or channels < 3 else primaries_code(known)
    transfer = SRGB_TRANSFER if gamma is None else transfer_code(1 / gamma)
    if primaries is not None and transfer is not None:
        facts.colour = (primaries, transfer, 0, 1)
        return
    exponent = 2.2 if gamma is None else 1 / gamma
    facts.icc = profile_of_gamma(known or PRIMARIES[1], exponent, channels)
    if facts.icc is None:
        facts.lose("gamma and chromaticities (without sense)")


def take_others(chunks: dict[bytes, bytes], facts: Facts, info: Mapping[Any, Any]) -> None:
    """Density, number of bits, and metadata in text; what is not kept gets its name.

    chunks: those before the pixels. info: what Pillow found, text included.
    """
    density = chunks.get(b"pHYs")
    if density is not None and len(density) == 9:
        across, down, unit = struct.unpack(">IIB", density)
        facts.take_density(across, down, "m" if unit == 1 else "")
    bits = chunks.get(b"sBIT")
    if bits and chunks.get(b"IHDR", b"")[8:9] == b"\x10" and 8 < max(bits) < 16:
        facts.bit_depth = max(bits)
    texts = {key: value for key, value in info.items() if isinstance(value, str) and key not in _XMP_KEYS}
    for key in [key for key in texts if key.lower().startswith("raw profile type ")]:
        kind, content = key.split()[-1].lower(), _raw_profile(texts.pop(key))
        content = content and content.removeprefix(b"http://ns.adobe.com/xap/1.0/\0")
        if content and facts.exif is None and (kind == "exif" or content.startswith(b"Exif\0\0")):
            facts.take_exif(content)
        elif content and facts.xmp is None and (kind == "xmp" or content.lstrip().startswith(b"<")):
            facts.take_xmp(content)
        elif content and facts.icc is None and kind in ("icc", "icm"):
            facts.icc = content
        else:
            facts.lose(f"raw profile ({printable(kind)})")
    if texts:
        names = sorted(printable(str(key))[:40] for key in texts)
        facts.lose(f"text ({', '.join(names[:8])}{', ...' if len(names) > 8 else ''})")
    facts.lose(*(name for kind, name in _LOST.items() if kind in chunks))


def _raw_profile(text: str) -> bytes | None:
    """The content of what ImageMagick writes: a name, a length and hexadecimal digits."""
    parts = text.split(maxsplit=2)
    if len(parts) < 3 or not parts[1].isdigit():
        return None
    try:
        data = bytes.fromhex(parts[2])
    except ValueError:
        return None
    return data if len(data) == int(parts[1]) else None
