"""Images to files."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

import numpy as np
from PIL import Image as PilImage
from PIL import PngImagePlugin

from latens.errors import ImageError, OutputError
from latens.io import _boxes, _png
from latens.io._colour import profile_of_codes
from latens.io._exif import describing, is_exif
from latens.io._extras import load_extra
from latens.io._output import atomic_write
from latens.io._picture import SRGB, Image, from_16_bits
from latens.io._text import NOT_KEPT, printable

if TYPE_CHECKING:
    from fractions import Fraction


@dataclass(frozen=True)
class _Writer:
    pillow: str
    suffixes: tuple[str, ...]
    carries: tuple[Literal["alpha", "icc", "exif", "xmp", "colour", "density", "deep"], ...]
    options: dict[str, Any]


_WRITERS = {
    # Level 6 took most of the time of decoding: this takes a third. Photographs get 3 % smaller, drawings 16 % larger.
    "png": _Writer(
        "PNG",
        (".png",),
        ("alpha", "icc", "exif", "xmp", "colour", "density", "deep"),
        {"compress_level": 2},
    ),
    "jpeg": _Writer(
        "JPEG",
        (".jpg", ".jpeg"),
        ("icc", "exif", "xmp", "density"),
        {"quality": 95, "subsampling": 0, "optimize": True},
    ),
    "webp": _Writer(
        "WEBP", (".webp",), ("alpha", "icc", "exif", "xmp"), {"lossless": True, "exact": True, "method": 4}
    ),
    "avif": _Writer(
        "AVIF",
        (".avif",),
        ("alpha", "icc", "exif", "xmp", "colour", "deep"),
        {"quality": 95, "subsampling": "4:4:4"},
    ),
    # Not compressed: Pillow's compressing writer cannot write the EXIF directory.
    "tiff": _Writer("TIFF", (".tif", ".tiff"), ("alpha", "icc", "exif", "xmp", "density", "deep"), {}),
    "bmp": _Writer("BMP", (".bmp",), (), {}),
    "ppm": _Writer("PPM", (".ppm", ".pgm", ".pnm"), ("deep",), {}),
}
WRITE_FORMATS = tuple(_WRITERS)
"""Names of the formats that are written. All are lossless but jpeg and avif (quality 95, 4:4:4)."""
_JPEG_SEGMENT = 65000
_XMP_TAG = 700
_PER_METRE = {"m": (1, 1), "cm": (100, 1), "inch": (10000, 254)}


def write_format(path: str | os.PathLike[str]) -> str:
    """The format that a file name stands for, one of WRITE_FORMATS; OutputError if there is none."""
    suffix = Path(path).suffix.lower()
    for name, writer in _WRITERS.items():
        if suffix in writer.suffixes:
            return name
    known = ", ".join(suffix for writer in _WRITERS.values() for suffix in writer.suffixes)
    raise OutputError(
        f"{printable(path)}: no image format has the suffix '{printable(suffix)}'; known: {known}"
    )


def to_pil(image: Image) -> PilImage.Image:
    """A Pillow image of mode L, LA, RGB or RGBA, or I;16 for grey of more than 8 bits without alpha.

    Other samples of more than 8 bits are rounded, for Pillow has no place for them. ICC profile (one made from the
    code points, where these are not sRGB's), EXIF, XMP and dpi are in its `info`.
    """
    if image.bit_depth > 8 and (image.alpha is not None or image.pixels.shape[2] != 1):
        image = image.to_8_bits()
    samples = _samples(image)
    result = PilImage.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
    exif = b"Exif\0\0" + image.exif if image.exif else None
    for key, value in (("icc_profile", _profile(image)), ("exif", exif), ("xmp", image.xmp)):
        if value:
            result.info[key] = value
    if image.density is not None and image.density[2]:
        result.info["dpi"] = tuple(float(value) for value in _per(image, "inch"))
    return result


def write_image(
    image: Image,
    dest: str | os.PathLike[str] | BinaryIO,
    format: str | None = None,
    *,
    force: bool = False,
    inputs: Iterable[str | os.PathLike[str]] = (),
) -> tuple[str, ...]:
    """Write an image file; the result is empty, or one note that names what its format could not carry.

    dest: a path, written as `atomic_write` does (`force` and `inputs` are for it), or a binary file. format:
    one of WRITE_FORMATS; by default what the suffix says, and png for a binary file. Samples of more than 8 bits are
    written as such to png, tiff and ppm, and to avif where imagecodecs is installed. Alpha is never dropped:
    a format without it raises OutputError, as does everything else that goes wrong.
    """
    is_path = isinstance(dest, str | os.PathLike)
    if format is None:
        format = write_format(cast("str | os.PathLike[str]", dest)) if is_path else "png"
    if format not in _WRITERS:
        raise OutputError(f"format '{printable(format)}' is not one of {', '.join(WRITE_FORMATS)}")
    name = dest if is_path else getattr(dest, "name", None)
    shown = printable(name) if isinstance(name, str | os.PathLike) else "image"
    data, lost = _encode(image, _WRITERS[format], shown)
    if isinstance(dest, str | os.PathLike):
        atomic_write(dest, data, force=force, inputs=inputs)
    else:
        try:
            dest.write(data)
            dest.flush()
        except OSError as error:
            raise OutputError(
                f"{shown}: cannot be written: {printable(error.strerror or str(error))}"
            ) from error
    return (f"{NOT_KEPT}{', '.join(lost)} (written as {_WRITERS[format].pillow})",) if lost else ()


def _samples(image: Image) -> Any:
    """Pixels and alpha in one array, height x width x 1 to 4."""
    if image.alpha is None:
        return image.pixels
    return np.concatenate([image.pixels, image.alpha[..., None]], axis=2)


def _profile(image: Image) -> bytes | None:
    """The ICC profile, or one made from code points that are not sRGB's."""
    if image.icc or image.colour == SRGB:
        return image.icc
    return profile_of_codes(*image.colour[:2], image.pixels.shape[2]) if image.colour[3] else None


def _per(image: Image, unit: str) -> tuple[Fraction, Fraction]:
    """Samples per unit across and down."""
    from fractions import Fraction  # takes time to load, which most calls need not spend

    assert image.density is not None
    across, down, stored = image.density
    factor = Fraction(*_PER_METRE[stored]) / Fraction(*_PER_METRE[unit]) if stored else Fraction(1)
    return Fraction(*across) * factor, Fraction(*down) * factor


def _encode(image: Image, writer: _Writer, shown: str) -> tuple[bytes, list[str]]:
    if image.alpha is not None and "alpha" not in writer.carries:
        raise OutputError(f"{shown}: {writer.pillow} has no alpha channel; choose png, webp, avif or tiff")
    lost: list[str] = []
    try:
        if image.bit_depth > 8:
            if "deep" in writer.carries:
                deep = _DEEP[writer.pillow](image, lost)
                if deep is not None:
                    return deep, lost
            lost.append(f"{image.bit_depth} bits per sample, 8 are kept")
            image = image.to_8_bits()
        return _encode_8_bits(image, writer, lost), lost
    except ImageError:
        raise
    except Exception as error:
        reason = printable(str(error))
        raise OutputError(f"{shown}: cannot be written as {writer.pillow}: {reason}") from error


def _encode_8_bits(image: Image, writer: _Writer, lost: list[str]) -> bytes:
    picture = to_pil(image)
    picture.info.clear()
    buffer = io.BytesIO()
    picture.save(buffer, writer.pillow, **_save_options(image, writer, lost))
    data = buffer.getvalue()
    if writer.pillow == "PNG":
        data = _png.with_chunks(data, _png_chunks(image, lost))
    elif writer.pillow == "JPEG" and image.density is not None:
        data = _with_jfif_density(data, image, lost)
    elif writer.pillow == "AVIF" and image.colour != SRGB and not image.icc:
        data = _with_nclx(data, image, lost)
    return data


def _save_options(image: Image, writer: _Writer, lost: list[str]) -> dict[str, Any]:
    """What `save` is to be told, metadata included."""
    options = dict(writer.options)
    for name in ("icc", "exif", "xmp"):
        data: bytes | None = getattr(image, name)
        if name == "icc" and "colour" not in writer.carries:
            data = _profile(image)
        if not data:
            continue
        too_long = writer.pillow == "JPEG" and name != "icc" and len(data) > _JPEG_SEGMENT
        # WebP and AVIF have no grey: Pillow writes RGB, to which a grey profile does not apply.
        grey = name == "icc" and image.pixels.shape[2] == 1 and writer.pillow in ("WEBP", "AVIF")
        if name == "exif" and not is_exif(data):
            lost.append("damaged EXIF")
        elif name not in writer.carries or too_long or grey:
            lost.append("colour description" if name == "icc" and not image.icc else _LABELS[name])
        elif name == "icc":
            options["icc_profile"] = data
        elif writer.pillow == "TIFF":
            pass  # in its own directory, below
        elif name == "exif":
            options["exif"] = b"Exif\0\0" + data
        elif writer.pillow == "PNG":
            text = PngImagePlugin.PngInfo()
            text.add_itxt("XML:com.adobe.xmp", data)
            options["pnginfo"] = text
        else:
            options["xmp"] = data
    if image.colour != SRGB and not image.icc and "colour" not in writer.carries and _profile(image) is None:
        lost.append("colour description")
    if image.density is not None and "density" not in writer.carries:
        lost.append("density")
    if writer.pillow == "TIFF":
        options["exif"] = _tiff_directory(image, lost)
    return options


_LABELS = {"icc": "ICC profile", "exif": "EXIF", "xmp": "XMP"}


# ---- what Pillow leaves to us


def _png_chunks(image: Image, lost: list[str]) -> list[bytes]:
    """Colour by code points, density, and how many bits of a sample there were."""
    chunks = []
    if image.colour != SRGB and not image.icc:
        chunks.append(_png.chunk(b"cICP", bytes(image.colour)))
    if image.density is not None:
        unit = image.density[2]
        numbers = [round(value) for value in _per(image, "m" if unit else "")]
        if not unit:
            across, down = _per(image, "")
            ratio = (across / down).limit_denominator((1 << 31) - 1)
            numbers = [ratio.numerator, ratio.denominator]
        if all(0 < number < 1 << 31 for number in numbers):
            chunks.append(_png.chunk(b"pHYs", struct.pack(">IIB", *numbers, bool(unit))))
        else:
            lost.append("density")
    if 8 < image.bit_depth < 16:
        count = image.pixels.shape[2] + (image.alpha is not None)
        chunks.append(_png.chunk(b"sBIT", bytes([image.bit_depth] * count)))
    return chunks


def _with_jfif_density(data: bytes, image: Image, lost: list[str]) -> bytes:
    assert image.density is not None
    unit = image.density[2]
    kind, per = {"": (0, ""), "inch": (1, "inch")}.get(unit, (2, "cm"))
    values = _per(image, per)
    if not kind:
        ratio = (values[0] / values[1]).limit_denominator(255)
        numbers = [ratio.numerator, ratio.denominator]
    else:
        numbers = [round(value) for value in values]
    if data[6:11] != b"JFIF\0" or not all(0 < number < 1 << 16 for number in numbers):
        lost.append("density")
        return data
    return data[:13] + struct.pack(">BHH", kind, *numbers) + data[18:]


def _with_nclx(data: bytes, image: Image, lost: list[str]) -> bytes:
    """An AVIF file whose pixels are marked with other primaries and transfer; its matrix stays."""
    at = _boxes.properties(io.BytesIO(data)).colour_at
    if not at or not image.colour[3]:
        lost.append("colour description")
        return data
    return data[:at] + struct.pack(">HH", *image.colour[:2]) + data[at + 4 :]


def _tiff_directory(image: Image, lost: list[str]) -> PilImage.Exif:
    """EXIF, XMP and density as a TIFF file carries them: in its own directory, other tags of which must stay."""
    from PIL import TiffImagePlugin

    result = PilImage.Exif()
    if image.exif and is_exif(image.exif):
        found = PilImage.Exif()
        found.load(b"Exif\0\0" + image.exif)
        result.load(describing(found) or b"")
    if image.xmp:
        result[_XMP_TAG] = image.xmp
    density = _tiff_density(image)
    if density is not None:
        for tag, value in zip((0x011A, 0x011B), density[:2], strict=True):
            result[tag] = TiffImagePlugin.IFDRational(*value)
        result[0x0128] = density[2]
    elif image.density is not None:
        lost.append("density")
    return result


def _tiff_density(image: Image) -> tuple[tuple[int, int], tuple[int, int], int] | None:
    """Density as TIFF has it, in fractions of 32 bits, and the code of its unit; None for one that has no place."""
    if image.density is None:
        return None
    unit = image.density[2]
    code, per = {"": (1, ""), "inch": (2, "inch")}.get(unit, (3, "cm"))
    values = [value.limit_denominator(1000).as_integer_ratio() for value in _per(image, per)]
    if not all(0 < part < 1 << 32 for value in values for part in value):
        return None
    return values[0], values[1], code


# ---- more than 8 bits


def png_metadata(image: Image, lost: list[str]) -> list[bytes]:
    """All chunks of a PNG file between its header and its pixels."""
    chunks = _png_chunks(image, lost)
    # Pillow's own chunks for the rest: those of a picture of one pixel.
    small = Image(np.zeros((1, 1, image.pixels.shape[2]), np.uint8), None, image.icc, image.exif, image.xmp)
    with_metadata = _encode_8_bits(small, _WRITERS["png"], lost)
    kept = (b"iCCP", b"eXIf", b"iTXt")
    chunks += [_png.chunk(kind, data) for kind, data in _png.all_chunks(with_metadata) if kind in kept]
    return chunks


def _deep_png(image: Image, lost: list[str]) -> bytes:
    return _png.deep_png(_samples(image), png_metadata(image, lost))


def _deep_ppm(image: Image, lost: list[str]) -> bytes:
    lost += [_LABELS[name] for name in ("icc", "exif", "xmp") if getattr(image, name)]
    if image.colour != SRGB and not image.icc:
        lost.append("colour description")
    if image.density is not None:
        lost.append("density")
    height, width, channels = image.pixels.shape
    most = (1 << image.bit_depth) - 1
    head = f"P{6 if channels == 3 else 5}\n{width} {height}\n{most}\n"
    return head.encode() + from_16_bits(image.pixels, image.bit_depth).astype(">u2").tobytes()


def tiff_options(image: Image, lost: list[str]) -> tuple[dict[str, Any], dict[int, Any]]:
    """What tifffile is to be told of a picture, and the directories of EXIF that it does not write."""
    if image.exif and not is_exif(image.exif):
        lost.append("damaged EXIF")
    if image.colour != SRGB and _profile(image) is None:
        lost.append("colour description")
    directory = _tiff_directory(image, lost)
    tags: list[tuple[int, int, int, Any, bool]] = []
    for tag, value in directory.items():
        if tag == _XMP_TAG:
            tags.append((tag, 1, len(value), bytes(value), True))
        elif isinstance(value, str):
            tags.append((tag, 2, 0, value.encode("utf-8", "replace") + b"\0", True))
    density = _tiff_density(image)
    channels = image.pixels.shape[2] + (image.alpha is not None)
    options = {
        "photometric": "minisblack" if image.pixels.shape[2] == 1 else "rgb",
        "planarconfig": "contig" if channels > 1 else None,
        "extrasamples": ["unassalpha"] if image.alpha is not None else None,
        "metadata": None,
        "software": False,
        "iccprofile": _profile(image),
        "extratags": tags,
        "resolution": None if density is None else density[:2],
        "resolutionunit": None if density is None else density[2],
    }
    inner = {tag: directory.get_ifd(tag) for tag in (0x8769, 0x8825) if tag in directory}
    return options, {tag: tags for tag, tags in inner.items() if tags}


def _deep_tiff(image: Image, lost: list[str]) -> bytes:
    import tifffile

    options, inner = tiff_options(image, lost)
    samples = _samples(image)
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        samples = samples[..., 0] if samples.shape[2] == 1 else samples
        file.write(samples, compression="zlib", predictor=True, **options)
    return _with_directories(buffer.getvalue(), inner)


def _with_directories(data: bytes, inner: dict[int, Any]) -> bytes:
    """A little-endian TIFF file with directories inside of its first, which tifffile does not write."""
    if not inner:
        return data
    from PIL import TiffImagePlugin

    out = bytearray(data)
    (start,) = struct.unpack_from("<I", out, 4)
    (count,) = struct.unpack_from("<H", out, start)
    entries = [bytes(out[at : at + 12]) for at in range(start + 2, start + 2 + 12 * count, 12)]
    for tag, content in inner.items():
        out += bytes(len(out) % 2)
        directory = TiffImagePlugin.ImageFileDirectory_v2(ifh=b"II*\0\0\0\0\0")
        for key, value in content.items():
            directory[key] = value
        entries.append(struct.pack("<HHII", tag, 4, 1, len(out)))
        out += directory.tobytes(len(out))
    out += bytes(len(out) % 2)
    struct.pack_into("<I", out, 4, len(out))
    entries.sort(key=lambda entry: entry[1::-1])
    return bytes(out + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4))


def _deep_avif(image: Image, lost: list[str]) -> bytes | None:
    # imagecodecs writes samples and code points, and nothing else: a picture whose colours need a profile is better
    # off with 8 bits and the profile.
    imagecodecs = load_extra("imagecodecs")
    if imagecodecs is None or image.icc or not image.colour[3]:
        return None
    lost += [_LABELS[name] for name in ("exif", "xmp") if getattr(image, name)]
    if image.density is not None:
        lost.append("density")
    bits = 10 if image.bit_depth <= 10 else 12
    if image.bit_depth > bits:
        lost.append(f"{image.bit_depth} bits per sample, {bits} are kept")
    samples = from_16_bits(_samples(image), bits)
    if samples.shape[2] == 2:
        samples = samples[..., [0, 0, 0, 1]]
    return bytes(
        imagecodecs.avif_encode(
            samples[..., 0] if samples.shape[2] == 1 else samples,
            level=95,
            speed=6,
            bitspersample=bits,
            pixelformat="yuv400" if samples.shape[2] == 1 else "yuv444",
            primaries=image.colour[0],
            transfer=image.colour[1],
            matrix=1,
        )
    )


_DEEP = {"PNG": _deep_png, "PPM": _deep_ppm, "TIFF": _deep_tiff, "AVIF": _deep_avif}
