"""Image files to arrays: through Pillow where it is faithful, else through what is, or not at all.

What is converted on reading, by rule:

- Samples of 9 to 16 bits are brought to the scale of 16, alpha too. (Pillow alone would cut colour to its high byte.)
- 1-bit and palette images become grey or RGB; transparent palette entries and key colours become alpha; colours that
  were multiplied by alpha are divided.
- CMYK and Lab become sRGB; their ICC profile has then done its work and is not kept.
- An orientation, from EXIF or else XMP, is applied to the pixels and set to 1 in the EXIF data and XMP that are kept.
- Otherwise an ICC profile is kept and never applied. Colour that is described by code points stays described by them;
  gamma and primaries become code points, too, or a profile that says the same.

What is not kept is named in one note. One module for each family of files that needs more than Pillow: `_tiff`, `_png`,
`_jpeg`, `_pnm`, and `_boxes` for AVIF and JPEG 2000.
"""

from __future__ import annotations

import io
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage
from PIL import ImageFile, UnidentifiedImageError

from latens.errors import ImageError, LatensError, LimitError
from latens.io import _boxes, _jpeg, _png
from latens.io._bmp import take_bmp_colour
from latens.io._exif import xmp_orientation
from latens.io._extras import EXTRA, load_extra, need_extra
from latens.io._facts import Facts, bounded
from latens.io._picture import (
    MAX_METADATA,
    MAX_PIXELS,
    SRGB,
    Image,
    Pixels,
    check_size,
    to_8_bits,
    to_16_bits,
)
from latens.io._pnm import read_pnm
from latens.io._text import printable

READ_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "PPM", "JPEG2000")
"""Pillow's names of the formats that are read; a closed list, for others start external programs."""

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO


# ---- reading


def read_image(source: Source, *, frame: int | None = None, max_pixels: int = MAX_PIXELS) -> Image:
    """Read an image file.

    source: a path, the bytes of a file, or a binary file (a pipe too). frame: which picture of an animation
    or of a file with pages, from 0; such files are refused without it. max_pixels: limit on width times
    height, checked before pixels are decoded.

    Raises ImageError when there is no image to be had (missing, empty, damaged, unsupported, animated),
    LimitError when it is too large. Both name the file and the cause. One image is read at a time: Pillow's
    size limit is global.
    """
    name = _source_name(source)
    try:
        with _open_source(source, max_pixels) as file, _pillow(max_pixels) as pillow_says:
            image = _read(file, frame, max_pixels)
        said = tuple(f"Pillow: {printable(str(warning.message))}" for warning in pillow_says)
        return replace(image, notes=image.notes + said)
    except LatensError as error:
        raise type(error)(f"{name}: {error}") from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name}: not an image, or damaged at its beginning (formats read: {', '.join(READ_FORMATS)})"
        ) from error
    except PilImage.DecompressionBombError as error:
        raise LimitError(f"{name}: more pixels than the limit of {max_pixels}") from error
    except MemoryError as error:
        raise LimitError(f"{name}: not enough memory to decode this image") from error
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise ImageError(f"{name}: cannot be read: {printable(reason)}") from error
    except Exception as error:  # decoders raise whatever they like for damaged files
        reason = str(error) or type(error).__name__
        raise ImageError(f"{name}: damaged image: {printable(reason)}") from error


def from_pil(image: PilImage.Image) -> Image:
    """A Pillow image as an `Image`, by the rules of this module.

    The pixels are taken as they are: an orientation in EXIF or XMP is not applied, for whoever opened the image may
    have turned or cropped it; it is reset, with a warning if the image looks as if it came straight from its file.
    Pillow has already cut 16-bit colour to 8 bits; `read_image` keeps it. An animation is refused as long as
    nobody has chosen a picture with `seek`; of a copy Pillow knows no more that it was one. Raises ImageError.
    """
    try:
        if _frames(image) > 1 and image.format != "MPO" and not image.tell():
            raise ImageError(
                f"animated or with pages, {_frames(image)} pictures; choose one with seek(n) and copy()"
            )
        image.load()
        return _convert(image, _seen(image))
    except LatensError:
        raise
    except Exception as error:
        raise ImageError(f"the image cannot be used: {printable(str(error))}") from error


def _seen(image: PilImage.Image) -> Facts:
    """What goes with a Pillow image that somebody has opened, and perhaps changed."""
    facts = Facts()
    _take_info(image, facts)
    dpi = image.info.get("dpi")
    if isinstance(dpi, tuple) and len(dpi) == 2:
        facts.take_density(float(dpi[0]), float(dpi[1]), "inch")
    if facts.icc is None and image.format == "PNG":
        _png.take_gamma(image.info.get("gamma"), image.info.get("chromaticity"), facts, len(image.getbands()))
    orientation = facts.orientation
    if facts.xmp and facts.xmp_may_turn:
        orientation = xmp_orientation(facts.xmp) or 1
    if orientation != 1 and isinstance(image, ImageFile.ImageFile) and image.format not in ("TIFF", None):
        warnings.warn(
            f"orientation {orientation} of the Pillow image is not applied: it is coded as it is; "
            "PIL.ImageOps.exif_transpose turns it, and so does latens.io.read_image",
            stacklevel=5,
        )
    facts.orientation, facts.xmp_may_turn = 1, False
    return facts


def _source_name(source: Source) -> str:
    if isinstance(source, str | os.PathLike):
        return printable(source)
    name = getattr(source, "name", None)
    return printable(name) if isinstance(name, str) else "image"


@contextmanager
def _open_source(source: Source, max_pixels: int) -> Iterator[BinaryIO]:
    """A seekable binary file with something in it."""
    if isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as file, _open_source(file, max_pixels) as seekable:
            yield seekable
        return
    if isinstance(source, bytes | bytearray | memoryview):
        source = io.BytesIO(source)
    if not source.seekable():
        source = io.BytesIO(_whole(source, max_pixels))
    if not source.seek(0, os.SEEK_END):
        raise ImageError("the file is empty")
    yield source


def _whole(file: BinaryIO, max_pixels: int) -> bytes:
    """All that is in a file, if that is not more than a picture can have."""
    if file.seekable():
        file.seek(0)
    # 8 bytes per pixel are 16-bit RGBA, stored raw.
    limit = 8 * max_pixels + 4 * MAX_METADATA
    data = bytearray()
    while piece := file.read(1 << 20):
        data += piece
        if len(data) > limit:
            raise LimitError(f"more than {limit} bytes of input")
    return bytes(data)


_PILLOW_LOCK = threading.RLock()


@contextmanager
def _pillow(max_pixels: int) -> Iterator[list[warnings.WarningMessage]]:
    """Pillow's global pixel limit set to ours, its warnings caught."""
    with _PILLOW_LOCK, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", PilImage.DecompressionBombWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        before = PilImage.MAX_IMAGE_PIXELS
        PilImage.MAX_IMAGE_PIXELS = max_pixels
        try:
            yield caught
        finally:
            PilImage.MAX_IMAGE_PIXELS = before


def _read(file: BinaryIO, frame: int | None, max_pixels: int) -> Image:
    file.seek(0)
    kind = kind_of(file.read(_HEAD))
    if kind is not None and kind not in READ_FORMATS:
        raise ImageError(f"{kind}: this kind is not supported; convert it to PNG or TIFF")
    facts = Facts()
    if kind == "TIFF":
        return _read_tiff(file, frame, max_pixels, facts)
    if kind == "JPEG":
        return _read_jpeg(file, frame, max_pixels)
    if kind == "JPEG2000":
        return _read_jpeg_2000(file, frame, max_pixels, facts)
    if kind == "PPM" and (found := read_pnm(file, max_pixels)):
        _only_frame(frame, 1)
        pixels, facts.bit_depth = found
        return facts.finish(pixels, None)
    with _opened(file, max_pixels) as image:
        _select_frame(image, frame, facts)
        _check_size(image, max_pixels)
        if image.format == "AVIF":
            return _read_avif(file, image, frame or 0, facts)
        if image.format == "PNG":
            size = file.seek(0, os.SEEK_END) if _frames(image) == 1 else 0
            return replace(_read_png(file, image, max_pixels, facts), png_bytes=size)
        if image.format == "GIF":
            return _read_gif(file, image, facts)
        image.load()
        _take_info(image, facts)
        if image.format == "BMP":
            take_bmp_colour(file, facts)
        return _convert(image, facts)


@contextmanager
def _opened(file: BinaryIO, max_pixels: int) -> Iterator[PilImage.Image]:
    # libtiff moves the file descriptor behind Python's back; a seek to the end always resynchronises.
    file.seek(0, os.SEEK_END)
    file.seek(0)
    with PilImage.open(file, formats=READ_FORMATS) as image:
        _check_size(image, max_pixels)
        yield image


def _check_size(image: PilImage.Image, max_pixels: int) -> None:
    check_size(*image.size, max_pixels)


def _frames(image: PilImage.Image) -> int:
    return int(getattr(image, "n_frames", 1))


def _select_frame(image: PilImage.Image, frame: int | None, facts: Facts) -> None:
    count = _frames(image)
    if frame is None and count > 1:
        raise ImageError(
            f"animated or with pages, {count} pictures; choose one with frame=0 (latens encode --frame 0)"
        )
    if frame is not None:
        _only_frame(frame, count)
        image.seek(frame)
        if count > 1:
            facts.lose("the other pictures of the animation")


def _only_frame(frame: int | None, count: int) -> None:
    if frame is not None and not 0 <= frame < count:
        raise ImageError(f"frame {frame} does not exist: the file has {count}, numbered from 0")


def kind_of(head: bytes) -> str | None:
    """One of READ_FORMATS, the name of a kind that is not read, or None for what only Pillow may know."""
    for kind, begins in _BEGINNINGS:
        if head.startswith(begins):
            return kind
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[k : k + 4] for k in range(16, min(head[3], len(head) - 3), 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}:
            return "HEIC (HEIF)"
        if b"crx " in brands:
            return "the raw data of a camera (CR3)"
    return None


_HEAD = 64
_BEGINNINGS = (
    ("PNG", b"\x89PNG\r\n\x1a\n"),
    ("JPEG", b"\xff\xd8\xff"),
    ("TIFF", b"II*\0"),
    ("TIFF", b"MM\0*"),
    ("TIFF", b"II+\0"),
    ("TIFF", b"MM\0+"),
    ("JPEG2000", b"\xff\x4f\xff\x51"),
    ("JPEG2000", b"\0\0\0\x0cjP  \r\n\x87\n"),
    *(("PPM", begins) for begins in (b"P2", b"P3", b"P5", b"P6")),
    ("PAM (portable arbitrary map)", b"P7\n"),
    ("PFM (floating point)", b"PF\n"),
    ("PFM (floating point)", b"Pf\n"),
    ("JPEG XL", b"\xff\x0a"),
    ("JPEG XL", b"\0\0\0\x0cJXL \r\n\x87\n"),
    ("JPEG XR", b"II\xbc"),
    ("Photoshop document", b"8BPS"),
    ("OpenEXR", b"v/1\x01"),
    ("Radiance HDR", b"#?RADIANCE"),
    ("the raw data of a camera", b"FUJIFILMCCD-RAW"),
    ("the raw data of a camera", b"IIRO"),
    ("the raw data of a camera", b"IIU\0"),
    ("PDF", b"%PDF"),
    ("PostScript", b"%!PS"),
    ("DPX", b"SDPX"),
    ("BPG", b"BPG\xfb"),
    ("QOI", b"qoif"),
)


# ---- one kind of file after another


def _read_tiff(file: BinaryIO, frame: int | None, max_pixels: int, facts: Facts) -> Image:
    from latens.io import _tiff  # takes time to load

    page = _tiff.choose(file, frame, facts)
    _tiff.check(page, max_pixels)
    _tiff.read_facts(file, page, facts)
    if not _tiff.is_plain(page):
        pixels, alpha, ink = _tiff.decode(file, page, facts)
        if ink is not None:
            facts.notes.append("converted from CMYK to sRGB")
            pixels, facts.icc = np.asarray(_to_srgb(ink, facts.icc, facts.notes)), None
        return facts.finish(pixels, alpha)
    if facts.density is not None and facts.orientation in range(5, 9):
        across, down, unit = facts.density
        facts.density = (down, across, unit)
    facts.orientation = 1  # Pillow turns
    with _opened(file, max_pixels) as image:
        image.seek(page.index)

        def again() -> PilImage.Image:
            second = PilImage.open(file, formats=("TIFF",))
            second.seek(page.index)
            return second

        halves = _sixteen_bits(image, lambda: _rewound(file, again))
        image.load()
        return _convert(image, facts, halves)


def _rewound(file: BinaryIO, again: Callable[[], PilImage.Image]) -> PilImage.Image:
    file.seek(0, os.SEEK_END)
    file.seek(0)
    return again()


def _read_jpeg(file: BinaryIO, frame: int | None, max_pixels: int) -> Image:
    data = _whole(file, max_pixels)
    found = _jpeg.marks(data)
    facts = found.facts
    _jpeg.check(found)
    if found.frame and found.precision != 8:
        check_size(*found.size, max_pixels)
        _only_frame(frame, 1)
        facts.bit_depth = 12
        return facts.finish(_jpeg.read_deep(data, found), None)

    def decoded(data: bytes) -> PilImage.Image:
        with _opened(io.BytesIO(data), max_pixels) as image:
            _only_frame(frame, _frames(image))
            image.seek(frame or 0)
            _check_size(image, max_pixels)
            image.load()
            return image

    if found.frame and found.end is None:
        if not _jpeg.complete_but_for_its_end(data, found, lambda data: np.asarray(decoded(data))):
            raise ImageError("image file is truncated")
        facts.notes.append("only the end marker of the JPEG file is missing")
        data += _jpeg.END
    image = decoded(data)
    if image.mode == "CMYK" and not found.adobe:
        facts.notes.append("CMYK without Adobe's segment: taken as most programs do, 255 for no ink")
    return _convert(image, facts)


def _read_jpeg_2000(file: BinaryIO, frame: int | None, max_pixels: int, facts: Facts) -> Image:
    data = _whole(file, max_pixels)
    _only_frame(frame, 1)
    found = _boxes.jp2(data)
    if found is None:
        raise ImageError("damaged image: a JPEG 2000 file without a codestream")
    check_size(*found.size, max_pixels)
    if found.signed or len(set(found.bits)) != 1 or max(found.bits) > 16:
        kind = "signed samples" if found.signed else f"{'/'.join(map(str, found.bits))} bits per sample"
        raise ImageError(f"JPEG 2000 with {kind}: this kind is not supported; convert it to PNG or TIFF")
    if found.space not in (0, 16, 17, 18) or len(found.bits) > 4:
        raise ImageError(
            f"JPEG 2000 of colour space {found.space} and {len(found.bits)} components: this kind is not supported; "
            "convert it to PNG or TIFF"
        )
    facts.icc = found.icc
    if found.density is not None:
        facts.take_density(*found.density, "m")
    if found.kinds & {b"uuid", b"xml "}:
        facts.lose("metadata in boxes")
    bits = found.bits[0]
    premultiplied = found.alpha is not None and found.alpha[1]
    if bits == 8 and not premultiplied:
        with _opened(file, max_pixels) as image:
            image.load()
            if found.icc is None and isinstance(image.info.get("icc_profile"), bytes):
                facts.icc = image.info["icc_profile"]
            return _convert(image, facts)
    if found.palette or premultiplied or found.space == 18 or b"subsampled" in found.kinds:
        raise ImageError(
            f"JPEG 2000 of {bits} bits per sample with a palette, chroma or multiplied alpha: this kind is not "
            "supported; convert it to PNG or TIFF"
        )
    decoder = need_extra("imagecodecs", f"JPEG 2000 of {bits} bits per sample")
    samples = decoder.jpeg2k_decode(data)
    samples = samples[..., None] if samples.ndim == 2 else samples
    width, height = found.size
    if samples.shape != (height, width, len(found.bits)) or samples.dtype not in (np.uint8, np.uint16):
        raise ImageError("damaged image: its samples do not fit to its header")
    if samples.max(initial=0) >> bits:
        raise ImageError(f"damaged image: samples of more than {bits} bits")
    samples = to_16_bits(samples, bits)
    if bits < 8:
        samples = to_8_bits(samples)
    else:
        facts.bit_depth = bits
    return facts.finish(*_split(samples))


def _read_avif(file: BinaryIO, image: PilImage.Image, frame: int, facts: Facts) -> Image:
    about = _boxes.properties(file)
    if about.colour is not None and max(about.colour[:2]) < 256:
        primaries, transfer = about.colour[:2]
        # Where nothing is said, sRGB is meant.
        facts.colour = (
            SRGB[0] if primaries == 2 else primaries,
            SRGB[1] if transfer == 2 else transfer,
            0,
            1,
        )
    facts.lose(*(name for kind, name in _AVIF_LOST.items() if kind in about.kinds))
    if about.aspect is not None:
        across, down = about.aspect
        facts.take_density(down, across, "")
    _take_info(image, facts)
    facts.xmp_may_turn = False  # these files say it in a box of their own
    left, top, right, bottom = _shown(image.size, about, facts)
    if about.bits > 8:
        decoder = load_extra("imagecodecs")
        if decoder is not None:
            file.seek(0)
            samples = decoder.avif_decode(file.read(), index=frame if _frames(image) > 1 else None)
            samples = samples[..., None] if samples.ndim == 2 else samples
            if samples.shape[:2] != image.size[::-1] or samples.dtype != np.uint16:
                raise ImageError("damaged image: its samples do not fit to its header")
            if samples.max(initial=0) >> about.bits:
                raise ImageError(f"damaged image: samples of more than {about.bits} bits")
            facts.bit_depth = about.bits
            return facts.finish(*_split(to_16_bits(samples[top:bottom, left:right], about.bits)))
        facts.lose(f"{about.bits} bits per sample, 8 are ({EXTRA} keeps them)")
    image.load()
    return _convert(image.crop((left, top, right, bottom)), facts)


def _shown(size: tuple[int, int], about: _boxes.Properties, facts: Facts) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what an AVIF file wants to be shown, before it is turned."""
    whole = 0, 0, *size
    if about.aperture is None:
        return whole
    width, height, right, below = about.aperture
    left, top = (size[0] - width) / 2 + right, (size[1] - height) / 2 + below
    sides = left, top, left + width, top + height
    inside = 0 <= left < sides[2] <= size[0] and 0 <= top < sides[3] <= size[1]
    if not inside or any(side.denominator != 1 for side in sides):
        facts.lose("cropping (not of whole pixels, or outside)")
        return whole
    return int(left), int(top), int(sides[2]), int(sides[3])


_AVIF_LOST = {
    b"tmap": "gain map",
    b"mdcv": "mastering display",
    b"clli": "content light level",
    b"grpl": "groups of pictures",
}


def _read_png(file: BinaryIO, image: PilImage.Image, max_pixels: int, facts: Facts) -> Image:
    key_scale = _key_scale(image)
    chunks = dict(_png.chunks_before_pixels(file))
    if b"CgBI" in chunks:
        raise ImageError(
            "PNG as made for iPhones (CgBI): this kind is not supported; convert it to usual PNG"
        )
    _png.check_palette(chunks)
    still = _frames(image) == 1

    def again() -> PilImage.Image:
        return PilImage.open(file, formats=("PNG",))

    halves = None
    if still:
        halves = _sixteen_bits(image, lambda: _rewound(file, again))
    elif chunks.get(b"IHDR", b"")[8:9] == b"\x10":
        facts.lose("16 bits per sample, 8 are kept of animations")
    file.seek(0, os.SEEK_END)
    image.load()
    _take_info(image, facts)
    _png.take_colour(chunks, facts, 1 if image.mode in ("1", "L", "LA", "I;16") else 3)
    _png.take_others(chunks, facts, image.info)
    return _convert(image, facts, halves, key_scale)


def _read_gif(file: BinaryIO, image: PilImage.Image, facts: Facts) -> Image:
    file.seek(0)
    aspect = file.read(13)[12:]
    if aspect and aspect[0]:
        facts.take_density(64, aspect[0] + 15, "")
    # What no picture has covered is seen through; Pillow gives it some colour of the palette.
    frame = image.tell()
    image.seek(0)
    whole = 0, 0, *image.size
    covered = image.tile[0][1] if isinstance(image, ImageFile.ImageFile) and image.tile else None
    left, top, right, bottom = covered or whole
    image.seek(frame)
    image.load()
    _take_info(image, facts)
    found = _convert(image, facts)
    if (left, top, right, bottom) == whole or found.alpha is not None:
        return found
    if frame:
        raise ImageError(
            "a GIF whose first picture does not cover all of it: of this kind only that one is supported"
        )
    alpha = np.zeros(found.pixels.shape[:2], np.uint8)
    alpha[top:bottom, left:right] = 255
    return replace(found, alpha=alpha)


def _take_info(image: PilImage.Image, facts: Facts) -> None:
    """What Pillow has found besides the samples."""
    icc = _metadata(image, "icc_profile", "ICC profile")
    exif, xmp = _metadata(image, "exif", "EXIF"), _metadata(image, "xmp", "XMP")
    if icc:
        facts.icc = icc
    if exif:
        facts.take_exif(exif)
    if xmp:
        facts.take_xmp(xmp)
    dpi = image.info.get("dpi")
    if isinstance(dpi, tuple) and len(dpi) == 2 and image.format in (None, "BMP"):
        facts.take_density(float(dpi[0]), float(dpi[1]), "inch")
    if image.info.get("comment") and image.format == "GIF":
        facts.lose("comment")


# ---- samples


def _rawmode(image: PilImage.Image) -> str:
    """How the file stores its samples, in Pillow's words; empty if unknown. Only before it is loaded."""
    for tile in getattr(image, "tile", []):
        args = tile[3]
        first = args[0] if isinstance(args, tuple) and args else args
        if isinstance(first, str):
            return first
    return ""


def _key_scale(image: PilImage.Image) -> int | None:
    """Factor for a grey key colour: Pillow stretches 2- and 4-bit samples to 8 bits, but not the key."""
    return {"L;2": 85, "L;4": 17}.get(_rawmode(image)) if image.format == "PNG" else None


def _sixteen_bits(
    image: PilImage.Image, opened: Callable[[], PilImage.Image]
) -> tuple[Pixels, Pixels] | None:
    """(high, low) bytes of 16-bit colour samples, height x width x 2 to 4; None for all other images.

    Pillow keeps one byte of a 16-bit sample. Which one depends on the byte order that it is told, so decoding
    twice, once with the order reversed, gives both.
    """
    match = re.fullmatch(r"(RGB|RGBA|LA);16([BLN])", _rawmode(image))
    if not match:
        return None
    layout, order = match.groups()
    high = np.asarray(image)
    if layout == "LA":
        # Four bytes per pixel: taken as RGBA they are high, low grey and high, low alpha.
        with opened() as second:
            _retile(second, "RGBA")
            both = np.asarray(second)
        return both[..., 0::2], both[..., 1::2]
    native = "L" if sys.byteorder == "little" else "B"
    reverse = {"L": "B", "B": "L", "N": "B" if native == "L" else "L"}[order]
    with opened() as second:
        _retile(second, f"{layout};16{reverse}")
        low = np.asarray(second)
    return high, low


def _retile(image: PilImage.Image, rawmode: str) -> None:
    image_file = cast(Any, image)
    image_file.tile = [
        tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)
        for tile in image_file.tile
    ]


def _convert(
    image: PilImage.Image,
    facts: Facts,
    halves: tuple[Pixels, Pixels] | None = None,
    key_scale: int | None = None,
) -> Image:
    """The image, of what Pillow has loaded."""
    if image.mode in ("CMYK", "LAB"):
        facts.notes.append(f"converted from {image.mode} to sRGB")
        image, facts.icc = _to_srgb(image, facts.icc, facts.notes), None
    samples, key = _samples(image, halves, key_scale)
    pixels, alpha = _split(samples)
    return facts.finish(pixels, key if alpha is None else alpha)


def _split(samples: Pixels) -> tuple[Pixels, Pixels | None]:
    """Colour and alpha."""
    return (samples[..., :-1], samples[..., -1]) if samples.shape[2] in (2, 4) else (samples, None)


def _samples(
    image: PilImage.Image, halves: tuple[Pixels, Pixels] | None, key_scale: int | None
) -> tuple[Pixels, Pixels | None]:
    """Height x width x 1 to 4 samples of 8 or 16 bits, and alpha made from a key colour, if there is one."""
    mode = image.mode
    transparent = image.info.get("transparency")
    if mode.startswith("I;16") or (mode == "I" and image.format == "PPM"):
        values = np.asarray(image)[..., None]
        halves = (values >> 8).astype(np.uint8), (values & 255).astype(np.uint8)
    if halves is not None:
        high, low = halves
        alpha = None
        if transparent is not None and high.shape[2] in (1, 3):
            key = np.atleast_1d(np.asarray(transparent, np.int64))
            alpha = _key_alpha((high == key >> 8) & (low == (key & 255))).astype(np.uint16) * np.uint16(257)
        return high.astype(np.uint16) << 8 | low, alpha

    if mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        transparent = None
    simple = {"1": "L", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB", "YCbCr": "RGB"}
    if mode in simple:
        image = image.convert(simple[mode])
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise ImageError(f"samples of kind {printable(mode)} (32 bits or floating point) are not supported")
    samples = np.asarray(image)
    if samples.ndim == 2:
        samples = samples[..., None]
    alpha = None
    if isinstance(transparent, int | tuple) and image.mode in ("L", "RGB"):
        key = np.atleast_1d(np.asarray(transparent, np.int64)) * (key_scale or 1)
        alpha = _key_alpha(samples == key)
    return samples, alpha


def _key_alpha(matches: npt.NDArray[np.bool_]) -> Pixels:
    return np.where(matches.all(axis=2), np.uint8(0), np.uint8(255))


def _to_srgb(image: PilImage.Image, icc: bytes | None, notes: list[str]) -> PilImage.Image:
    from PIL import ImageCms

    srgb = ImageCms.createProfile("sRGB")
    if image.mode == "LAB":
        source: Any = ImageCms.createProfile("LAB")
    elif icc and icc[16:20] == b"CMYK":
        source = io.BytesIO(icc)
    else:
        return image.convert("RGB")
    try:
        converted = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
    except ImageCms.PyCMSError:
        notes.append("its ICC profile could not be used")
        return image.convert("RGB")
    return cast(PilImage.Image, converted)  # None only when converting in place


def _metadata(image: PilImage.Image, key: str, name: str) -> bytes | None:
    data = image.info.get(key)
    if isinstance(data, str):
        data = data.encode()
    return bounded(data, name) if isinstance(data, bytes) and data else None
