"""TIFF: a family of formats, of which Pillow reads some rightly, some wrongly and some not at all.

The tags of the file decide who decodes it. What is plain, see `is_plain`, comes through Pillow; the rest
through tifffile, which is only imported then, and is converted here; or it is refused by its name.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage
from PIL import TiffImagePlugin

from latens.errors import ImageError
from latens.io._exif import describing
from latens.io._extras import load_extra, need_extra
from latens.io._facts import Facts, bounded
from latens.io._picture import check_size, to_16_bits

_MAX_PAGES = 65536
_MAX_SAMPLES = 16
_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}
_PHOTOMETRIC = {
    4: "a transparency mask",
    9: "ICC Lab",
    10: "ITU Lab",
    32803: "the raw data of a camera (CFA)",
    34892: "the linear raw data of a camera",
    32844: "LogL",
    32845: "LogLuv",
    51177: "a depth map",
}
_FORMATS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
_DEFLATE = (8, 32946)
# What tifffile reads by itself, and with imagecodecs; and what Pillow reads.
_ALONE = (1, 32773, *_DEFLATE)
_WITH_CODECS = (*_ALONE, 2, 3, 4, 5, 7, 34925, 50000)
_PILLOW = (*_WITH_CODECS, 6, 32771)
# What luma and chroma are made of, and what their black and white are, where the file does not say it.
_LUMA = (0.299, 0.587, 0.114)
_BLACK_AND_WHITE = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)
_LOST = {
    33723: "IPTC",
    34377: "Photoshop data (IPTC)",
    37724: "Photoshop layers",
    33550: "georeference",
    33922: "georeference",
    34264: "georeference",
    50341: "print image matching",
}


@dataclass(frozen=True)
class Page:
    """One picture of a TIFF file.

    index, offset: of its directory in the file. tags: by number; what is not in the file is not there.
    """

    index: int
    offset: int
    tags: dict[int, Any]

    def one(self, tag: int, default: int) -> int:
        """A tag of one number; the first, where there are several."""
        value = self.tags.get(tag, default)
        value = value[0] if isinstance(value, tuple) and value else value
        if not isinstance(value, int):
            raise ImageError(f"damaged image: tag {tag} is no number")
        return value

    def many(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """A tag of several numbers."""
        value = self.tags.get(tag, default)
        values = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(v, int) for v in values):
            raise ImageError(f"damaged image: tag {tag} has something else than numbers")
        return values

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, as stored."""
        return self.one(256, 0), self.one(257, 0)

    @property
    def bits(self) -> int:
        """Bits per sample."""
        found = set(self.many(258, (1,)))
        if len(found) != 1:
            raise ImageError("samples of different numbers of bits: this kind of TIFF is not supported")
        return found.pop()

    @property
    def photometric(self) -> int:
        """What samples stand for."""
        return self.one(262, 0)

    @property
    def compression(self) -> int:
        """The kind of compression."""
        return self.one(259, 1)

    @property
    def samples(self) -> int:
        """Samples per pixel."""
        return self.one(277, 1)

    @property
    def extra(self) -> tuple[int, ...]:
        """What the samples beside the colours are: 1 alpha with which colours were multiplied, 2 alpha, 0 unknown."""
        count = self.samples - _COLOURS.get(self.photometric, self.samples)
        found = self.many(338)
        # A fourth channel that nobody has described is alpha for nearly all programs.
        if count and not found:
            found = (2,)
        return (*found[:count], *[0] * (count - len(found)))


def choose(file: BinaryIO, frame: int | None, facts: Facts) -> Page:
    """The directory of the picture that is wanted; thumbnails, reduced copies and masks are no pictures.

    Raises:
        ImageError: there are several and none was chosen, or none.
    """
    pages, masks, reduced = [], 0, 0
    for page in _directories(file):
        kind = page.one(254, 0) if 254 in page.tags else {2: 1}.get(page.one(255, 0), 0)
        if kind & 4:
            masks += 1
        elif kind & 1:
            reduced += 1
        else:
            pages.append(page)
    if not pages:
        raise ImageError(
            "the file has nothing but a preview; the picture itself is probably the raw data of a camera: this kind is "
            "not supported; develop it, and save it as PNG or TIFF"
        )
    if frame is None and len(pages) > 1:
        raise ImageError(
            f"animated or with pages, {len(pages)} pictures; choose one with frame=0 (latens encode --frame 0)"
        )
    if frame is not None and not 0 <= frame < len(pages):
        raise ImageError(f"frame {frame} does not exist: the file has {len(pages)}, numbered from 0")
    if masks:
        facts.lose("transparency mask")
    if reduced:
        facts.lose("thumbnail")
    if 330 in pages[frame or 0].tags:
        facts.lose("pictures inside of others (SubIFDs)")
    return pages[frame or 0]


def _directories(file: BinaryIO) -> list[Page]:
    file.seek(0)
    head = file.read(16)
    if head[:4] == b"MM\0\x2b":
        raise ImageError(
            "BigTIFF with its most significant bytes first: this kind is not supported; save it as TIFF"
        )
    head = head if head[2:4] == b"\x2b\0" else head[:8]
    directory = TiffImagePlugin.ImageFileDirectory_v2(head)
    pages: list[Page] = []
    seen: set[int] = set()
    position = directory.next
    while position:
        if position in seen or len(pages) > _MAX_PAGES:
            break
        seen.add(position)
        _check_directory(file, position, head)
        file.seek(position)
        directory.load(file)
        pages.append(Page(len(pages), position, dict(directory)))
        position = directory.next
    if not pages:
        raise ImageError("damaged image: a TIFF file without a directory")
    return pages


_VALUE_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}


def _check_directory(file: BinaryIO, position: int, head: bytes) -> None:
    """ImageError if a directory or a value of it is cut; Pillow would go on without the tags that are lost."""
    order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
    count_size, entry_size, place_size = (8, 20, 8) if len(head) == 16 else (2, 12, 4)
    end = file.seek(0, os.SEEK_END)
    file.seek(position)
    count = int.from_bytes(file.read(count_size), order)
    if position + count_size + entry_size * count > end:
        raise ImageError("image file is truncated")
    entries = file.read(entry_size * count)
    for at in range(0, len(entries), entry_size):
        kind = int.from_bytes(entries[at + 2 : at + 4], order)
        number = int.from_bytes(entries[at + 4 : at + 4 + place_size], order)
        size = number * _VALUE_SIZES.get(kind, 0)
        if size > place_size:
            place = int.from_bytes(entries[at + 4 + place_size : at + entry_size], order)
            if place + size > end:
                tag = int.from_bytes(entries[at : at + 2], order)
                raise ImageError(f"damaged image: the value of tag {tag} is cut")


def read_facts(file: BinaryIO, page: Page, facts: Facts) -> None:
    """Metadata of a page."""
    tags = page.tags
    if isinstance(tags.get(34675), bytes):
        facts.icc = bounded(tags[34675], "ICC profile")
    if isinstance(tags.get(700), bytes) and tags[700]:
        facts.take_xmp(tags[700])
    unit = {2: "inch", 3: "cm"}.get(page.one(296, 2), "")
    try:
        if 282 in tags and 283 in tags:
            facts.take_density(float(tags[282]), float(tags[283]), unit)
    except (TypeError, ValueError, ZeroDivisionError):
        pass
    if 274 in tags:
        facts.orientation, facts.xmp_may_turn = page.one(274, 1), False
    facts.lose(*(name for tag, name in _LOST.items() if tag in tags))
    try:
        found = PilImage.Exif()
        file.seek(0)
        head = file.read(4)
        found.endian, found.bigtiff = ("<" if head[:2] == b"II" else ">"), 43 in head[2:]
        found.load_from_fp(file, page.offset)
        facts.exif = describing(found, density=False)
    except Exception:
        facts.notes.append("the EXIF data are damaged and were left out")


def check(page: Page, max_pixels: int) -> None:
    """ImageError that names a kind of TIFF that is not read; LimitError for one that is too large."""
    check_size(*page.size, max_pixels)
    for code in page.many(339, (1,)):
        if code in _FORMATS:
            raise ImageError(
                f"TIFF with {_FORMATS[code]} samples of {page.bits} bits: this kind is not supported; convert them to "
                "unsigned ones of 8 or 16 bits"
            )
    if page.bits > 16:
        raise ImageError(
            f"TIFF of {page.bits} bits per sample: this kind is not supported; convert it to 8 or 16 bits"
        )
    photometric = page.photometric
    if photometric not in _COLOURS:
        what = _PHOTOMETRIC.get(photometric, f"of photometric interpretation {photometric}")
        raise ImageError(f"the TIFF file is {what}: this kind is not supported; convert it to RGB")
    if photometric in (0, 5) and 1 in page.extra:
        # Readers differ: were the stored values multiplied, or the light?
        raise ImageError(
            "TIFF of ink (or with white as zero) multiplied by alpha: this kind is not supported; convert it to RGB"
        )
    if photometric == 5 and page.one(332, 1) != 1:
        raise ImageError("TIFF with inks other than CMYK: this kind is not supported; convert it to RGB")
    if not _COLOURS[photometric] <= page.samples <= _MAX_SAMPLES:
        raise ImageError(f"damaged image: {page.samples} samples per pixel")
    if len(page.many(258, (1,))) not in (1, page.samples):
        raise ImageError("damaged image: its tags contradict each other")
    if photometric == 6 and page.compression not in (6, 7):
        for tag, usual in ((529, _LUMA), (532, _BLACK_AND_WHITE)):
            found = page.tags.get(tag, usual)
            if not isinstance(found, tuple) or [round(float(v), 3) for v in found] != list(usual):
                raise ImageError("TIFF with YCbCr of an unusual kind: it is not supported; convert it to RGB")
    if page.one(32997, 1) != 1:
        raise ImageError("TIFF with volumes: this kind is not supported")


def is_plain(page: Page) -> bool:
    """Whether Pillow gives the samples as they are meant."""
    bits, extra, photometric = page.bits, page.extra, page.photometric
    if page.compression not in _PILLOW or page.one(266, 1) != 1:
        return False
    if page.one(284, 1) != 1:
        return (photometric, bits, extra) == (2, 8, ())
    if photometric in (0, 1):
        if bits in (1, 2, 4, 8):
            return not extra or (photometric, bits, extra) == (1, 8, (2,))
        return (photometric, bits, extra) == (1, 16, ()) and page.one(281, 65535) == 65535
    if photometric == 2:
        if bits == 16 and page.one(281, 65535) != 65535:
            return False
        return bits in (8, 16) and extra in ((), (2,)) and (not extra or 338 in page.tags or bits == 8)
    if photometric == 3:
        return bits in (1, 2, 4, 8) and not extra
    return bits == 8 and not extra


def decode(
    file: BinaryIO, page: Page, facts: Facts
) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None, PilImage.Image | None]:
    """Pixels and alpha of a page that Pillow does not read rightly; or, for CMYK, ink for Pillow to convert, and alpha.

    Raises:
        ImageError: this kind of TIFF is not supported, or needs another package, or the file is damaged.
    """
    bits, photometric = page.bits, page.photometric
    colours = _COLOURS[photometric]
    if photometric in (6, 8) or (photometric == 3 and (bits > 8 or 1 in page.extra)):
        name = {3: "palettes", 6: "YCbCr", 8: "Lab"}[photometric]
        raise ImageError(
            f"TIFF with {name} of {bits} bits per sample and {page.samples} samples: this kind is not supported; "
            "convert it to RGB"
        )
    samples = _segments(file, page)
    if samples.max(initial=0) >> bits:
        raise ImageError(f"damaged image: samples of more than {bits} bits")
    if bits == 16 and photometric != 5:
        # Cameras and scanners of 10 to 14 bits say so here; anything else is the largest sample there is.
        most = page.one(281, 65535)
        if most.bit_count() == most.bit_length() and 8 <= most.bit_length() < 16:
            bits = most.bit_length()
            samples = np.minimum(samples, most)
    most = (1 << bits) - 1
    colour, alpha, multiplied = samples[..., :colours], None, False
    for number, kind in enumerate(page.extra):
        if kind in (1, 2) and alpha is None:
            alpha, multiplied = samples[..., colours + number], kind == 1
        else:
            facts.lose("extra channel")
    if photometric == 3:
        colour = _from_palette(page, colour[..., 0], facts)
        return colour, None if alpha is None else _scaled(alpha, bits, 8), None
    depth = 8 if bits <= 8 or photometric == 5 else 16
    if bits > 8 and photometric == 5:
        facts.lose(f"{bits} bits per sample, 8 are kept of CMYK")
    if depth == 16:
        facts.bit_depth = bits
    pixels = (
        _scaled(colour, bits, depth) if alpha is None or not multiplied else _divided(colour, alpha, depth)
    )
    if photometric == 0:
        pixels = ~pixels
    alpha = None if alpha is None else _scaled(alpha, bits, depth)
    if photometric == 5:
        return pixels, alpha, PilImage.fromarray(np.ascontiguousarray(pixels), "CMYK")
    return pixels, alpha, None


def _scaled(samples: npt.NDArray[Any], bits: int, depth: int) -> npt.NDArray[Any]:
    """Samples of so many bits as those of 8 or 16."""
    if depth == 16:
        return to_16_bits(samples, bits)
    most = (1 << bits) - 1
    result: npt.NDArray[np.uint8] = ((samples.astype(np.uint32) * 255 + most // 2) // most).astype(np.uint8)
    return result


def _divided(colour: npt.NDArray[Any], alpha: npt.NDArray[Any], depth: int) -> npt.NDArray[Any]:
    """Colours that were multiplied by alpha, as they were before, as those of 8 or 16 bits."""
    most = (1 << depth) - 1
    divisor = np.maximum(alpha, 1).astype(np.uint64)[..., None]
    divided = np.minimum((colour.astype(np.uint64) * most + divisor // 2) // divisor, most)
    whole: npt.NDArray[Any] = divided.astype(np.uint8 if depth == 8 else np.uint16)
    return whole


def _from_palette(page: Page, indexes: npt.NDArray[Any], facts: Facts) -> npt.NDArray[np.uint8]:
    palette = np.array(page.many(320), np.uint16)
    if palette.size != 3 << page.bits:
        raise ImageError("damaged image: its palette has another number of colours")
    table = (palette >> 8 if palette.max() > 255 else palette).astype(np.uint8).reshape(3, -1).T
    result: npt.NDArray[np.uint8] = table[indexes]
    return result


# ---- strips and tiles


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """A library that logs what it thinks of a damaged file, without it: whoever reads gets one error."""
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _segments(file: BinaryIO, page: Page) -> npt.NDArray[Any]:
    """Samples as they are stored, height x width x samples per pixel."""
    width, height = page.size
    planes = page.samples if page.one(284, 1) == 2 else 1
    dtype = np.uint8 if page.bits <= 8 else np.uint16
    result: npt.NDArray[Any] | None = None
    for plane, y, x, part in _each_segment(file, page):
        if result is None:
            result = np.empty((planes, height, width, page.samples // planes), dtype)
        result[plane, y : y + part.shape[0], x : x + part.shape[1]] = part
    assert result is not None
    whole: npt.NDArray[Any] = np.concatenate(list(result), axis=2)
    return whole


def bands(file: BinaryIO, page: Page) -> Iterator[npt.NDArray[Any]]:
    """The same from top to bottom, of a page whose samples stand side by side: rows of tiles, or strips."""
    band: npt.NDArray[Any] | None = None
    start = 0
    for _, y, x, part in _each_segment(file, page):
        if band is not None and y != start:
            yield band
            band = None
        if band is None:
            start = y
            band = np.empty((part.shape[0], page.size[0], page.samples), part.dtype)
        band[:, x : x + part.shape[1]] = part
    assert band is not None
    yield band


def plain_rows(file: BinaryIO, page: Page, rows: int) -> Iterator[npt.NDArray[Any]] | None:
    """The same of a page in strips that are not compressed, one of which may be all of it: so many rows at a time.

    None for a page of another kind, or one whose strips are not where they should be.
    """
    width, height = page.size
    if (page.compression, page.one(284, 1), page.one(266, 1)) != (1, 1, 1) or 322 in page.tags:
        return None
    row, most = width * page.samples * page.bits // 8, page.one(278, height)
    offsets, sizes = page.many(273), page.many(279)
    end = file.seek(0, 2)
    file.seek(0)
    dtype = np.dtype("u1" if page.bits == 8 else "<u2" if file.read(2) == b"II" else ">u2")
    strips = []
    for offset, size, top in zip(offsets, sizes, range(0, height, max(most, 1)), strict=False):
        count = min(most, height - top)
        if offset < 0 or count * row > size or offset + count * row > end:
            return None
        strips.append((offset, count))
    if (
        sum(count for _, count in strips) != height
        or len(strips) != len(offsets)
        or len(strips) != len(sizes)
    ):
        return None

    def parts() -> Iterator[npt.NDArray[Any]]:
        for offset, count in strips:
            for start in range(0, count, rows):
                some = min(rows, count - start)
                file.seek(offset + start * row)
                data = file.read(some * row)
                if len(data) < some * row:
                    raise ImageError("image file is truncated")
                found = np.frombuffer(data, dtype).reshape(some, width, page.samples)
                yield found.astype(dtype.newbyteorder("="), copy=False)

    return parts()


def is_streamable(page: Page) -> bool:
    """Whether :func:`bands` can decode it with what is installed."""
    return page.compression in _ALONE or (
        page.compression in (5, 50000) and load_extra("imagecodecs") is not None
    )


def segment_rows(file: BinaryIO, page: Page) -> int:
    """Rows of a strip or a tile."""
    return int(next(_each_segment(file, page))[3].shape[0])


def _each_segment(file: BinaryIO, page: Page) -> Iterator[tuple[int, int, int, npt.NDArray[Any]]]:
    """Plane, row, column and samples of each strip or tile."""
    import tifffile

    compression = page.compression
    if compression not in _WITH_CODECS:
        raise ImageError(
            f"TIFF with compression {compression}: this kind is not supported; save it with another, such as deflate"
        )
    if compression not in _ALONE or page.bits not in (1, 8, 16):
        what = f"TIFF of {page.bits} bits per sample, compression {compression}"
        need_extra("imagecodecs", what)
    file.seek(0)
    with _silent("tifffile"), tifffile.TiffFile(file) as opened:
        found = opened.pages[page.index]
        if not isinstance(found, tifffile.TiffPage):
            raise ImageError("damaged image: no such directory")
        width, height = page.size
        planes = page.samples if page.one(284, 1) == 2 else 1
        shape = (found.tilelength, found.tilewidth) if found.is_tiled else (found.rowsperstrip, width)
        if not 0 < shape[0] <= 1 << 17 or not 0 < shape[1] <= 1 << 17:
            raise ImageError("damaged image: strips or tiles of no size")
        if (found.imagewidth, found.imagelength, found.samplesperpixel) != (width, height, page.samples):
            raise ImageError("damaged image: its tags contradict each other")
        count = planes * -(-height // shape[0]) * -(-width // shape[1])
        offsets, sizes = found.dataoffsets, found.databytecounts
        end = file.seek(0, 2)
        if len(offsets) != count or len(sizes) != count:
            raise ImageError(f"damaged image: {len(offsets)} strips or tiles, {count} were expected")
        rows = min(shape[0], height) if not found.is_tiled else shape[0]
        most = rows * shape[1] * (page.samples // planes) * 2
        tables = page.tags.get(347)
        for index, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
            if size <= 0 or offset < 0 or offset + size > end:
                raise ImageError("image file is truncated")
            file.seek(offset)
            data = file.read(size)
            if compression in _DEFLATE and len(zlib.decompressobj().decompress(data, most + 1)) > most:
                raise ImageError("damaged image: a strip is longer than it can be")
            values, place, _ = found.decode(data, index, jpegtables=tables)
            if values is None:
                raise ImageError("damaged image: a strip is empty")
            plane, _, y, x, _ = place
            part = values[0]
            part = part[: height - y, : width - x]
            if part.shape[0] < min(shape[0], height - y) or part.shape[1] < min(shape[1], width - x):
                raise ImageError("damaged image: a strip is too short")
            yield plane, y, x, part
