"""Large image files from top to bottom, in memory that does not grow with their height: TIFF, PNG and PPM.

What needs a closer look (palettes, alpha, transparency, colours other than grey and RGB, turned pictures, interlaced
files) is left to :func:`latens.io.read_image`, which holds whole pictures.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import IO, Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from latens.errors import ImageError, LatensError
from latens.io import _png, _tiff
from latens.io._facts import Facts
from latens.io._image import kind_of, read_image
from latens.io._picture import Image, check_size, from_16_bits
from latens.io._text import NOT_KEPT
from latens.io._write import png_metadata, tiff_options

__all__ = ["STRIP_FORMATS", "Strips", "open_strips", "write_strips"]

Samples = npt.NDArray[Any]  # uint8 or uint16

STRIP_FORMATS = ("png", "tiff", "ppm")
"""What :func:`write_strips` writes."""
_ROWS = 128
_PIECE = 1 << 20
_MOST_ROWS = 2048  # of a strip of a TIFF file
_BIG_TIFF = 1 << 31
_PNM = re.compile(rb"P([56])" + rb"(?:\s+|\s*#[^\n\r]*[\n\r]\s*)+(\d{1,10})" * 3 + rb"\s")


class Strips:
    """Rows of an image file, to be taken once, from top to bottom: ``strips[start:stop]``.

    Attributes:
        shape: height, width and channels, 1 or 3.
        dtype: uint8 or uint16.
        about: everything but the pixels, of which it has a few.
    """

    def __init__(self, shape: tuple[int, int, int], about: Image, parts: Iterator[Samples]) -> None:
        self.shape, self.dtype, self.about = shape, about.pixels.dtype, about
        self._parts, self._kept, self._end = parts, about.pixels[:0], 0

    @property
    def size(self) -> int:
        """Number of samples."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    def __getitem__(self, rows: slice) -> Samples:
        """The next rows.

        Raises:
            ImageError: the file is damaged.
        """
        start, stop, _ = rows.indices(self.shape[0])
        if start != self._end:
            raise ValueError(f"rows come in their order: {self._end} is next, {start} was asked for")
        pieces, count = [self._kept], len(self._kept)
        while count < stop - start:
            part = next(self._parts, None)
            if part is None:
                raise ImageError("image file is truncated")
            pieces.append(part)
            count += len(part)
        found = np.concatenate(pieces) if len(pieces) > 1 else pieces[0]
        self._kept, self._end = found[stop - start :].copy(), stop
        return found[: stop - start]


def open_strips(file: BinaryIO, max_pixels: int) -> Strips | None:
    """The strips of an image file that can be sought; None if it is of a kind that has to be read whole.

    Raises:
        ImageError, LimitError: as :func:`latens.io.read_image`, of what is wrong with the beginning of the file.
    """
    file.seek(0)
    opener = _OPENERS.get(kind_of(file.read(64)) or "")
    if opener is None:
        return None
    try:
        return opener(file, max_pixels)
    except LatensError:
        raise
    except (OSError, ValueError, struct.error, zlib.error, KeyError, TypeError):
        return None  # who reads it whole finds out what is wrong


def _open_ppm(file: BinaryIO, max_pixels: int) -> Strips | None:
    file.seek(0)
    match = _PNM.match(file.read(4096))
    if match is None:
        return None
    width, height, most = (int(number) for number in match.groups()[1:])
    if not 0 < most < 65536:
        return None
    check_size(width, height, max_pixels)
    channels = 3 if match[1] == b"6" else 1
    row = width * channels * (2 if most > 255 else 1)
    file.seek(match.end())

    def image(rows: int) -> Image:
        data = file.read(rows * row)
        if len(data) < rows * row:
            raise ImageError("image file is truncated")
        return read_image(b"P%s %d %d %d\n" % (match[1], width, rows, most) + data, max_pixels=max_pixels)

    return _of_images((height, width, channels), image)


def _of_images(shape: tuple[int, int, int], image: Callable[[int], Image]) -> Strips | None:
    """Strips that are read as small files of the same kind, by the rules for those."""
    height, width, channels = shape
    first = image(min(_ROWS, height))
    if first.alpha is not None or first.pixels.shape[1:] != (width, channels):
        return None

    def parts() -> Iterator[Samples]:
        yield first.pixels
        for start in range(_ROWS, height, _ROWS):
            yield image(min(_ROWS, height - start)).pixels

    return Strips(shape, replace(first, pixels=first.pixels[:1]), parts())


_SAMPLES = {0: 1, 2: 3}


def _open_png(file: BinaryIO, max_pixels: int) -> Strips | None:
    chunks = dict(_png.chunks_before_pixels(file))
    width, height, bits, kind, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if kind not in _SAMPLES or bits not in (8, 16) or interlaced or chunks.keys() & {b"tRNS", b"acTL"}:
        return None
    check_size(width, height, max_pixels)
    channels = _SAMPLES[kind]
    row = width * channels * bits // 8
    file.seek(len(_png.SIGNATURE))
    before, position = [], len(_png.SIGNATURE)
    while True:
        head = file.read(8)
        size, name = struct.unpack(">I4s", head)
        if name == b"IDAT":
            break
        if size > 1 << 25:
            return None
        data = head + file.read(size + 4)
        position += len(data)
        if name != b"IHDR":
            before.append(data)
    file.seek(position)
    filtered = _Inflated(_idat(file))
    above = bytes(row)
    first = True

    def image(rows: int) -> Image:
        nonlocal above, first
        # A small file of the rows, below the one above them: so filters mean what they meant.
        data = zlib.compress(b"\0" + above + filtered.take(rows * (row + 1)), 0)
        header = struct.pack(">IIBBBBB", width, rows + 1, bits, kind, 0, 0, 0)
        parts = [_png.SIGNATURE, _png.chunk(b"IHDR", header), *before, _png.chunk(b"IDAT", data)]
        found = read_image(b"".join([*parts, _png.chunk(b"IEND", b"")]), max_pixels=max_pixels + width)
        pixels = found.pixels[1:]
        if len(pixels) and found.pixels.shape == (rows + 1, width, channels):
            last = pixels[-1]
            above = last.tobytes() if bits == 8 else last.astype(">u2").tobytes()
        return replace(found, pixels=pixels)

    return _of_images((height, width, channels), image)


def _idat(file: BinaryIO) -> Iterator[bytes]:
    """The contents of all IDAT chunks, their CRC proved."""
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise ImageError("image file is truncated")
        size, name = struct.unpack(">I4s", head)
        if name != b"IDAT":
            return
        crc = zlib.crc32(name)
        while size:
            data = file.read(min(size, _PIECE))
            if not data:
                raise ImageError("image file is truncated")
            crc = zlib.crc32(data, crc)
            size -= len(data)
            yield data
        if file.read(4) != struct.pack(">I", crc):
            raise ImageError("damaged image: a chunk of pixels has another checksum")


class _Inflated:
    """What a zlib stream holds, taken in portions."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._inflater, self._held = pieces, zlib.decompressobj(), b""

    def take(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            if not self._held and (piece := next(self._pieces, None)) is not None:
                self._held = piece
            try:
                part = self._inflater.decompress(self._held, size - len(found))
            except zlib.error as error:
                raise ImageError(f"damaged image: {error}") from error
            if not part and not self._inflater.unconsumed_tail and not self._held:
                raise ImageError("image file is truncated")
            self._held = self._inflater.unconsumed_tail
            found += part
        return bytes(found)


def _open_tiff(file: BinaryIO, max_pixels: int) -> Strips | None:
    facts = Facts()
    page = _tiff.choose(file, None, facts)
    _tiff.check(page, max_pixels)
    if page.photometric not in (1, 2) or page.bits not in (8, 16) or page.extra or page.one(284, 1) != 1:
        return None
    if page.bits == 16 and page.one(281, 65535) != 65535:
        return None
    _tiff.read_facts(file, page, facts)
    width, height = page.size
    if facts.orientation != 1:
        return None
    parts = _tiff.plain_rows(file, page, _ROWS)
    if parts is None:
        if not _tiff.is_streamable(page) or _tiff.segment_rows(file, page) > _MOST_ROWS:
            return None
        parts = _tiff.bands(file, page)
    dtype = np.uint8 if page.bits == 8 else np.uint16
    about = facts.finish(np.zeros((1, width, page.samples), dtype), None)
    return Strips((height, width, page.samples), about, parts)


_OPENERS: dict[str, Callable[[BinaryIO, int], Strips | None]] = {
    "PPM": _open_ppm,
    "PNG": _open_png,
    "TIFF": _open_tiff,
}


# ---- writing


def write_strips(
    file: BinaryIO, format: str, size: tuple[int, int], about: Image, rows: Iterator[Samples]
) -> tuple[str, ...]:
    """Write an image file from top to bottom; the result is as that of :func:`latens.io.write_image`.

    Args:
        file: takes bytes; it has to be one that can be sought for TIFF.
        format: one of :data:`STRIP_FORMATS`.
        size: width and height.
        about: everything but the pixels; those tell their type and channels, and alpha whether there is any.
        rows: ``(n, width, channels)``, alpha last.
    """
    lost: list[str] = []
    {"png": _write_png, "tiff": _write_tiff, "ppm": _write_ppm}[format](file, size, about, rows, lost)
    return (f"{NOT_KEPT}{', '.join(lost)} (written as {format.upper()})",) if lost else ()


def _write_ppm(
    file: BinaryIO, size: tuple[int, int], about: Image, rows: Iterator[Samples], lost: list[str]
) -> None:
    labels = {"icc": "ICC profile", "exif": "EXIF", "xmp": "XMP", "density": "density"}
    lost += [label for name, label in labels.items() if getattr(about, name)]
    most = (1 << about.bit_depth) - 1
    kind = 6 if about.pixels.shape[2] == 3 else 5
    file.write(f"P{kind}\n{size[0]} {size[1]}\n{most}\n".encode())
    for part in rows:
        deep = about.bit_depth > 8
        file.write((from_16_bits(part, about.bit_depth).astype(">u2") if deep else part).tobytes())


def _write_png(
    file: BinaryIO, size: tuple[int, int], about: Image, rows: Iterator[Samples], lost: list[str]
) -> None:
    channels = about.pixels.shape[2] + (about.alpha is not None)
    bits = 8 if about.bit_depth == 8 else 16
    step = channels * bits // 8
    kind = (0, 4, 2, 6)[channels - 1]
    file.write(_png.SIGNATURE)
    file.write(_png.chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, kind, 0, 0, 0)))
    for chunk in png_metadata(about, lost):
        file.write(chunk)
    compressor = zlib.compressobj(3)
    above = np.zeros((1, size[0] * step), np.uint8)
    for part in rows:
        for start in range(0, len(part), 64):
            raw = part[start : start + 64]
            raw = np.ascontiguousarray(raw if bits == 8 else raw.astype(">u2"))
            raw = raw.reshape(len(raw), -1).view(np.uint8)
            both = np.concatenate([above, raw])
            # Filter 2, the difference to the row above: quick, and nearly as small as a choice for each row.
            lines = np.concatenate([np.full((len(raw), 1), 2, np.uint8), both[1:] - both[:-1]], axis=1)
            above = both[-1:]
            _idat_chunk(file, compressor.compress(lines.tobytes()))
    _idat_chunk(file, compressor.flush())
    file.write(_png.chunk(b"IEND", b""))


def _idat_chunk(file: BinaryIO, data: bytes) -> None:
    if data:
        file.write(_png.chunk(b"IDAT", data))


def _write_tiff(
    file: BinaryIO, size: tuple[int, int], about: Image, rows: Iterator[Samples], lost: list[str]
) -> None:
    import tifffile

    options, inner = tiff_options(about, lost)
    if inner:
        lost.append("EXIF (but for what TIFF has tags of its own for)")
    width, height = size
    channels = about.pixels.shape[2] + (about.alpha is not None)
    dtype = about.pixels.dtype
    shape = (height, width, channels) if channels > 1 else (height, width)

    def strips() -> Iterator[bytes]:
        kept = np.empty((0, width, channels), dtype)
        for part in rows:
            kept = np.concatenate([kept, part]) if len(kept) else part
            while len(kept) >= _ROWS:
                yield zlib.compress(kept[:_ROWS].astype(dtype.newbyteorder("<"), copy=False).tobytes(), 3)
                kept = kept[_ROWS:]
        if len(kept):
            yield zlib.compress(kept.astype(dtype.newbyteorder("<"), copy=False).tobytes(), 3)

    big = width * height * channels * dtype.itemsize > _BIG_TIFF
    with tifffile.TiffWriter(cast("IO[bytes]", _Nameless(file)), bigtiff=big, byteorder="<") as writer:
        writer.write(strips(), shape=shape, dtype=dtype, rowsperstrip=_ROWS, compression="zlib", **options)


class _Nameless:
    """A file without a name: of temporary ones it is a number, which tifffile takes for a path."""

    def __init__(self, file: BinaryIO) -> None:
        self.write, self.seek, self.tell, self.flush = file.write, file.seek, file.tell, file.flush
        self.read = file.read
