"""Image files <-> arrays, through Pillow.

What is converted on reading, by rule:

- 16-bit samples v become round(v / 257), alpha too. (Pillow alone would cut 16-bit colour to its high byte.)
  JPEG 2000 and AVIF of more than 8 bits, and 16-bit frames of animations, come with 8 from Pillow's decoders.
- 1-bit and palette images become grey or RGB; transparent palette entries and key colours become alpha.
- CMYK and Lab become sRGB; their ICC profile has then done its work and is not kept.
- The EXIF orientation is applied to the pixels and set to 1 in the EXIF data and XMP that are kept.
- Otherwise an ICC profile is kept and never applied.
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
from PIL import ImageCms, UnidentifiedImageError

from latens.errors import ImageError, LatensError, LimitError
from latens.io._exif import describing, is_exif, reset_xmp_orientation, split_orientation
from latens.io._picture import MAX_METADATA, MAX_PIXELS, MAX_SIDE, Image, Pixels, turn
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

    Pillow has already cut 16-bit colour to 8 bits by then; `read_image` rounds it. An animation is refused as long as
    nobody has chosen a picture with `seek`; of a copy Pillow knows no more that it was one. Raises ImageError.
    """
    try:
        if _frames(image) > 1 and image.format != "MPO" and not image.tell():
            raise ImageError(
                f"animated or with pages, {_frames(image)} pictures; choose one with seek(n) and copy()"
            )
        image.load()
        return _convert(image, [], None, None)
    except LatensError:
        raise
    except Exception as error:
        raise ImageError(f"the image cannot be used: {printable(str(error))}") from error


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
        # 8 bytes per pixel are 16-bit RGBA, stored raw.
        limit = 8 * max_pixels + 4 * MAX_METADATA
        data = bytearray()
        while piece := source.read(1 << 20):
            data += piece
            if len(data) > limit:
                raise LimitError(f"more than {limit} bytes of input")
        source = io.BytesIO(data)
    if not source.seek(0, os.SEEK_END):
        raise ImageError("the file is empty")
    yield source


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
    def opened() -> PilImage.Image:
        # libtiff moves the file descriptor behind Python's back; a seek to the end always resynchronises.
        file.seek(0, os.SEEK_END)
        file.seek(0)
        image = PilImage.open(file, formats=READ_FORMATS)
        _check_size(image, max_pixels)
        return image

    with opened() as image:
        notes: list[str] = []
        _select_frame(image, frame, notes)
        _check_size(image, max_pixels)
        key_scale = _key_scale(image)
        halves = _sixteen_bits(image, opened) if _frames(image) == 1 else None
        image.load()
        return _convert(image, notes, halves, key_scale)


def _check_size(image: PilImage.Image, max_pixels: int) -> None:
    width, height = image.size
    if width > MAX_SIDE or height > MAX_SIDE:
        raise LimitError(f"{width} x {height} pixels; a side can have at most {MAX_SIDE}")
    if width * height > max_pixels:
        raise LimitError(f"{width} x {height} pixels are above the limit of {max_pixels} (--max-pixels)")
    if not width or not height:
        raise ImageError(f"{width} x {height} pixels")


def _frames(image: PilImage.Image) -> int:
    return int(getattr(image, "n_frames", 1))


def _select_frame(image: PilImage.Image, frame: int | None, notes: list[str]) -> None:
    count = _frames(image)
    if frame is None:
        if count > 1 and image.format == "MPO":
            # Cameras append previews, gain maps or a second eye to what everybody takes for a plain JPEG.
            notes.append(f"only the first of {count} pictures in this file is used")
        elif count > 1:
            raise ImageError(
                f"animated or with pages, {count} pictures; choose one with frame=0 (latens encode --frame 0)"
            )
    elif not 0 <= frame < count:
        raise ImageError(f"frame {frame} does not exist: the file has {count}, numbered from 0")
    else:
        image.seek(frame)


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
    notes: list[str],
    halves: tuple[Pixels, Pixels] | None,
    key_scale: int | None,
) -> Image:
    """Pixels, alpha and metadata of a loaded image."""
    icc = _metadata(image, "icc_profile", "ICC profile")
    exif = _exif(image, notes)
    xmp = _metadata(image, "xmp", "XMP")
    orientation = 1
    if exif:
        orientation, exif = split_orientation(exif)
    if xmp:
        xmp = reset_xmp_orientation(xmp)

    if image.mode in ("CMYK", "LAB"):
        notes.append(f"converted from {image.mode} to sRGB")
        image, icc = _to_srgb(image, icc, notes), None
    samples, key = _samples(image, halves, key_scale, notes)
    pixels, alpha = samples, key
    if samples.shape[2] in (2, 4):
        pixels, alpha = samples[..., :-1], samples[..., -1]
    if icc and not _icc_fits(icc, pixels.shape[2]):
        notes.append("the ICC profile is damaged or of another kind than the pixels, and was left out")
        icc = None
    return Image(
        turn(pixels, orientation),
        None if alpha is None else turn(alpha, orientation),
        icc,
        exif,
        xmp,
        tuple(notes),
    )


def _samples(
    image: PilImage.Image, halves: tuple[Pixels, Pixels] | None, key_scale: int | None, notes: list[str]
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


# ---- metadata


def _metadata(image: PilImage.Image, key: str, name: str) -> bytes | None:
    data = image.info.get(key)
    if isinstance(data, str):
        data = data.encode()
    if not isinstance(data, bytes) or not data:
        return None
    if len(data) > MAX_METADATA:
        raise LimitError(f"{name}: {len(data)} bytes are above the limit of {MAX_METADATA}")
    return data


def _exif(image: PilImage.Image, notes: list[str]) -> bytes | None:
    if image.format == "TIFF":
        # The file itself is the EXIF structure. Pillow has applied the orientation.
        try:
            return describing(image.getexif())
        except Exception:
            notes.append("the EXIF data are damaged and were left out")
            return None
    exif = _metadata(image, "exif", "EXIF")
    if exif is None:
        return None
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    if not is_exif(exif):
        notes.append("the EXIF data are damaged and were left out")
        return None
    return exif


def _icc_fits(icc: bytes, channels: int) -> bool:
    """Whether an ICC profile looks sound and describes pixels with so many channels."""
    space = b"GRAY" if channels == 1 else b"RGB "
    return len(icc) >= 128 and icc[36:40] == b"acsp" and icc[16:20] == space
