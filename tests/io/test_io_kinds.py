"""Kinds of files that other programs get wrong: each is right, or refused by its name; and nothing is lost unnamed."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as PilImage
from PIL import ImageCms, ImageOps, PngImagePlugin

from latens.errors import ImageError, LatensError
from latens.io import Image, from_pil, read_image, to_pil, write_image

RNG = np.random.default_rng(11)
SHAPE = (24, 40)
Y, X = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]]
PHOTO = np.stack([X * 6, Y * 10, 255 - X * 6], axis=2).astype(np.uint8)
DEEP = np.stack([X * 1600 + Y, Y * 2700 + X, 65535 - X * 1600], axis=2).astype(np.uint16)
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b"<rdf:Description %s/></rdf:RDF></x:xmpmeta>"
)
ORIENTED = XMP % b'tiff:Orientation="6"'
EXIF = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"


def saved(pixels: npt.NDArray[Any] | PilImage.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture = pixels if isinstance(pixels, PilImage.Image) else PilImage.fromarray(pixels)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples: npt.NDArray[Any], *chunks: bytes) -> bytes:
    """A PNG by the letter of the standard, unfiltered."""
    height, width, channels = samples.shape
    deep = samples.dtype == np.uint16
    rows = b"".join(b"\0" + row.astype(">u2" if deep else "u1").tobytes() for row in samples)
    head = struct.pack(">IIBBBBB", width, height, 16 if deep else 8, (0, 4, 2, 6)[channels - 1], 0, 0, 0)
    parts = (chunk(b"IHDR", head), *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def jpeg(*segments: bytes, behind: bytes = b"", **options: object) -> bytes:
    data = saved(PHOTO, "JPEG", quality=95, subsampling=0, **options)
    return data[:2] + b"".join(segments) + data[2:] + behind


def lost(image: Image) -> list[str]:
    """What is said not to be kept; it is said once."""
    notes = [note for note in image.notes if note.startswith("not kept: ")]
    assert len(notes) <= 1
    return notes[0].removeprefix("not kept: ").split(", ") if notes else []


# ---- more than 8 bits


@pytest.mark.parametrize("bits", [9, 10, 12, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_jpeg_2000(bits: int, channels: int) -> None:
    """White is white, and opaque is opaque."""
    most = (1 << bits) - 1
    samples = np.full((*SHAPE, channels), most, np.uint16)
    samples[:4] = RNG.integers(0, most + 1, samples[:4].shape)
    samples[-1] = 0
    for codec in ("jp2", "j2k"):
        data = imagecodecs.jpeg2k_encode(
            samples[..., 0] if channels == 1 else samples, level=0, codecformat=codec, bitspersample=bits,
            reversible=True, mct=False, colorspace="GRAY" if channels < 3 else "SRGB",
        )  # fmt: skip
        image = read_image(bytes(data))
        found = image.pixels if image.alpha is None else np.dstack([image.pixels, image.alpha])
        assert (image.alpha is not None) == (channels in (2, 4))
        assert found.dtype == np.uint16
        assert (found == np.floor(samples / most * 65535 + 0.5)).all()
        assert image.bit_depth == bits


def test_jpeg_2000_of_8_bits_and_less() -> None:
    for bits in (8, 4, 1):
        most = (1 << bits) - 1
        samples = RNG.integers(0, most + 1, (*SHAPE, 3)).astype(np.uint8)
        data = imagecodecs.jpeg2k_encode(samples, level=0, bitspersample=bits, reversible=True, mct=False)
        image = read_image(bytes(data))
        assert (image.pixels == np.floor(samples / most * 255 + 0.5)).all()


def test_jpeg_2000_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    signed = imagecodecs.jpeg2k_encode(RNG.integers(-99, 99, (*SHAPE, 3)).astype(np.int16), level=0)
    with pytest.raises(ImageError, match="JPEG 2000 with signed samples: this kind is not supported"):
        read_image(bytes(signed))
    deep = bytes(imagecodecs.jpeg2k_encode(DEEP, level=0))
    monkeypatch.setattr("latens.io._extras.load_extra", lambda module: None)
    with pytest.raises(ImageError, match=r"of 16 bits per sample needs imagecodecs.*latens\[formats\]"):
        read_image(deep)


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("channels", [3, 4])
def test_avif(bits: int, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = (np.dstack([DEEP, DEEP[..., 1]])[..., :channels] >> (16 - bits)).astype(np.uint16)
    data = bytes(
        imagecodecs.avif_encode(
            samples, level=100, bitspersample=bits, pixelformat="yuv444", primaries=9, transfer=16, matrix=9
        )
    )
    image = read_image(data)
    most = (1 << bits) - 1
    assert image.pixels.dtype == np.uint16
    assert np.abs(image.pixels / 65535 - samples[..., :3] / most).max() < 0.02
    assert len(np.unique(image.pixels)) > 256
    assert (image.bit_depth, image.colour) == (bits, (9, 16, 0, 1))
    assert (image.alpha is not None) == (channels == 4)
    if image.alpha is not None:
        assert np.abs(image.alpha / 65535 - samples[..., 3] / most).max() < 0.01
    monkeypatch.setattr("latens.io._image.load_extra", lambda module: None)
    shallow = read_image(data)
    assert shallow.pixels.dtype == np.uint8
    assert np.abs(shallow.pixels.astype(int) - image.to_8_bits().pixels).max() <= 4
    assert lost(shallow) == [f"{bits} bits per sample", "8 are (pip install 'latens[formats]' keeps them)"]
    assert shallow.colour == image.colour


def with_aperture(avif: bytes, values: tuple[int, ...], turn: int | None = None) -> bytes:
    """An AVIF file of one picture with an aperture, and turned to the left by so many quarters."""
    found = bytearray(avif)
    new = struct.pack(">I4s", 40, b"clap") + struct.pack(">IIIIiIiI", *values)
    new += b"" if turn is None else struct.pack(">I4sB", 9, b"irot", turn)
    at = {kind: found.index(kind) - 4 for kind in (b"meta", b"iprp", b"ipco", b"ipma", b"iloc")}

    def size(place: int) -> int:
        return int.from_bytes(found[place : place + 4], "big")

    inside, count = at[b"ipco"] + 8, 0
    while inside < at[b"ipco"] + size(at[b"ipco"]):
        inside, count = inside + size(inside), count + 1
    added = [0x80 | count + 1, *([] if turn is None else [0x80 | count + 2])]
    # One item, with two bytes of number, and one byte for each property.
    number = at[b"ipma"] + 18
    assert found[at[b"ipma"] + 8 : at[b"ipma"] + 16] == bytes(7) + b"\1"
    end = at[b"ipma"] + size(at[b"ipma"])
    grown = len(new) + len(added)
    found[end:end] = bytes(added)
    found[number] += len(added)
    for kind, more in ((b"ipma", len(added)), (b"ipco", len(new)), (b"iprp", grown), (b"meta", grown)):
        found[at[kind] : at[kind] + 4] = (size(at[kind]) + more).to_bytes(4, "big")
    # The picture stands behind: its place is the last but one number of the table.
    place = at[b"iloc"] + size(at[b"iloc"]) - 8
    assert avif[size(place) - 4 : size(place)] == b"mdat"
    found[place : place + 4] = (size(place) + grown).to_bytes(4, "big")
    found[inside:inside] = new
    return bytes(found)


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("turn", [None, 1, 2, 3])
def test_avif_is_cropped_as_it_wants(bits: int, turn: int | None) -> None:
    samples = PHOTO if bits == 8 else DEEP >> 6
    data = bytes(
        imagecodecs.avif_encode(samples, level=100, bitspersample=bits, pixelformat="yuv444", matrix=0)
    )
    # Ten by eight pixels; the middle of the picture is between two.
    image = read_image(with_aperture(data, (10, 1, 16, 2, -7, 1, 3, 1), turn))
    top, left = 12 - 4 + 3, 20 - 5 - 7
    wanted = np.rot90(samples[top : top + 8, left : left + 10], turn or 0)
    assert image.pixels.shape == wanted.shape
    assert np.abs(image.pixels / np.iinfo(image.pixels.dtype).max - wanted / ((1 << bits) - 1)).max() < 0.01
    assert image.notes == ()
    for values in ((11, 1, 8, 1, 0, 1, 0, 1), (10, 1, 8, 1, 16, 1, 0, 1), (10, 3, 8, 1, 0, 1, 0, 1)):
        whole = read_image(with_aperture(data, values, turn))
        assert whole.pixels.shape == np.rot90(samples, turn or 0).shape
        assert lost(whole) == ["cropping (not of whole pixels", "or outside)"]


@pytest.mark.parametrize("grey", [False, True])
def test_jpeg_of_12_bits(grey: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = (DEEP[..., 0] if grey else DEEP) >> 4
    data = bytes(imagecodecs.jpeg8_encode(samples, level=98, bitspersample=12, subsampling="444"))
    data = data[:2] + segment(0xE1, b"Exif\0\0" + EXIF) + data[2:]
    image = read_image(data)
    turned = np.rot90(np.atleast_3d(samples), -1)
    assert image.pixels.shape == turned.shape
    assert np.abs(image.pixels / 65535 - turned / 4095).max() < 0.02
    assert len(np.unique(image.pixels)) > 1.5 * len(np.unique(image.to_8_bits().pixels))
    assert image.bit_depth == 12
    with pytest.raises(ImageError, match="truncated"):
        read_image(data[:-2])
    monkeypatch.setattr("latens.io._extras.load_extra", lambda module: None)
    with pytest.raises(ImageError, match="JPEG of 12 bits per sample: this kind needs imagecodecs"):
        read_image(data)


def test_lossless_jpeg_is_refused_by_name() -> None:
    data = bytes(imagecodecs.ljpeg_encode(DEEP[..., 0]))
    with pytest.raises(ImageError, match=r"lossless JPEG of 16 bits per sample.*not supported"):
        read_image(data)


@pytest.mark.parametrize("most", [1, 100, 254, 256, 1000, 1023, 4095, 65534, 65535])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("plain", [False, True])
def test_portable_maps(most: int, channels: int, plain: bool) -> None:
    samples = RNG.integers(0, most + 1, (*SHAPE, channels)).astype(np.uint16)
    samples[0, 0], samples[0, 1], samples[-1, -1] = 0, most, most
    kind = (2 if plain else 5) + (channels == 3)
    head = f"P{kind}\n# a comment\n{SHAPE[1]} {SHAPE[0]}\n{most}\n".encode()

    def body(values: npt.NDArray[Any]) -> bytes:
        if plain:
            return "\n".join(map(str, values.ravel())).encode()
        return values.astype(">u2" if most > 255 else "u1").tobytes()

    image = read_image(head + body(samples))
    scale = 65535 if most > 255 else 255
    assert (image.pixels == np.floor(samples / most * scale + 0.5)).all()
    assert image.pixels.dtype == (np.uint16 if most > 255 else np.uint8)
    with pytest.raises(ImageError, match="truncated"):
        read_image(head + body(samples.ravel()[:-1]))
    if most < 65535 or plain:
        with pytest.raises(ImageError, match=r"above the maximum|above 65535"):
            read_image(head + body(samples.astype(np.uint32) + 1))
    if plain:
        for word in (b"-1", b"1.5", b"0x1", b"123456789"):
            with pytest.raises(ImageError, match="no number"):
                read_image(head + word + body(samples)[1:])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [10, 16])
def test_deep_files_that_are_written(channels: int, bits: int) -> None:
    """What libpng and libavif, through imagecodecs, read of them."""
    samples = np.dstack([DEEP, DEEP[..., 0]])[..., [0, 3] if channels == 2 else list(range(channels))]
    samples = np.ascontiguousarray(samples)
    colours = channels - 1 + channels % 2
    image = Image(
        samples[..., :colours],
        None if channels % 2 else np.ascontiguousarray(samples[..., -1]),
        exif=EXIF.replace(b"\x06", b"\x01"),
        xmp=b"<x/>",
        colour=(9, 16, 0, 1),
        density=((300, 1), (300, 1), "inch"),
        bit_depth=bits,
    )
    buffer = io.BytesIO()
    assert write_image(image, buffer, "png") == ()
    data = buffer.getvalue()
    assert (np.atleast_3d(imagecodecs.png_decode(data)) == samples).all()
    assert len(data) < samples.nbytes // 3  # filters and compression work
    with PilImage.open(io.BytesIO(data)) as picture:
        picture.load()
        assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.01)
    back = read_image(data)
    assert (back.pixels == image.pixels).all()
    assert (back.exif, back.xmp, back.colour, back.bit_depth) == (image.exif, b"<x/>", (9, 16, 0, 1), bits)
    buffer = io.BytesIO()
    (note,) = write_image(image, buffer, "avif")
    assert note.startswith("not kept: EXIF, XMP, density")
    assert ("16 bits" in note) == (bits == 16)
    decoded = np.atleast_3d(imagecodecs.avif_decode(buffer.getvalue()))
    assert decoded.dtype == np.uint16
    assert np.abs(decoded[..., 0] / (1023 if bits == 10 else 4095) - samples[..., 0] / 65535).max() < 0.02
    if channels % 2:
        buffer = io.BytesIO()
        (note,) = write_image(image, buffer, "ppm")
        assert note == "not kept: EXIF, XMP, colour description, density (written as PPM)"
        assert (
            np.abs(read_image(buffer.getvalue()).pixels.astype(int) - samples).max()
            <= 65535 // (2 << bits) + 1
        )
    for format in ("webp", "jpeg") if channels % 2 else ("webp",):
        (note,) = write_image(image, io.BytesIO(), format)
        assert f"{bits} bits per sample, 8 are kept" in note
    assert to_pil(image).mode == ("I;16", "LA", "RGB", "RGBA")[channels - 1]


# ---- orientation


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_xmp_alone_turns(kind: str) -> None:
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", ORIENTED)
        data = saved(PHOTO, kind, pnginfo=text)
    else:
        data = saved(PHOTO, kind, xmp=ORIENTED, **options)
    image = read_image(data)
    assert np.abs(image.pixels.astype(int) - np.rot90(PHOTO, -1)).max() < 40
    assert image.xmp == ORIENTED.replace(b'"6"', b'"1"')


def test_exif_overrides_xmp() -> None:
    upright = EXIF.replace(b"\x06", b"\x01")
    image = read_image(jpeg(xmp=ORIENTED, exif=b"Exif\0\0" + upright))
    assert image.pixels.shape == PHOTO.shape
    assert image.xmp == ORIENTED.replace(b'"6"', b'"1"')
    image = read_image(jpeg(xmp=ORIENTED.replace(b'"6"', b'"3"'), exif=b"Exif\0\0" + EXIF))
    assert np.abs(image.pixels.astype(int) - np.rot90(PHOTO, -1)).max() < 40


@pytest.mark.parametrize("kind", ["exif", "APP1", "xmp"])
@pytest.mark.parametrize("compressed", [False, True])
def test_raw_profiles_in_png(kind: str, compressed: bool) -> None:
    """As ImageMagick writes them."""
    content = {"exif": b"Exif\0\0" + EXIF, "APP1": b"Exif\0\0" + EXIF, "xmp": ORIENTED}[kind]
    lines = [content.hex()[k : k + 72] for k in range(0, 2 * len(content), 72)]
    text = f"\n{kind.lower()}\n{len(content):8d}\n" + "\n".join(lines) + "\n"
    info = PngImagePlugin.PngInfo()
    info.add_text(f"Raw profile type {kind}", text, zip=compressed)
    image = read_image(saved(PHOTO, "PNG", pnginfo=info))
    assert (image.pixels == np.rot90(PHOTO, -1)).all()
    assert lost(image) == []
    if kind == "xmp":
        assert image.xmp == ORIENTED.replace(b'"6"', b'"1"')
    else:
        assert image.exif == EXIF.replace(b"\x06", b"\x01")
    for damaged in (text[:-3], text.replace(str(len(content)), "7"), "x"):
        info = PngImagePlugin.PngInfo()
        info.add_text(f"Raw profile type {kind}", damaged)
        assert lost(read_image(saved(PHOTO, "PNG", pnginfo=info))) == [f"raw profile ({kind.lower()})"]


CHANGES: dict[str, Callable[[PilImage.Image], PilImage.Image]] = {
    "rotate": lambda i: i.rotate(-90, expand=True),
    "transpose": lambda i: i.transpose(PilImage.Transpose.ROTATE_270),
    "crop": lambda i: i.crop((0, 0, 24, 16)),
    "copy": lambda i: i.copy(),
    "exif_transpose": lambda i: ImageOps.exif_transpose(i),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_pillow_images_are_taken_as_they_are(change: str, kind: str) -> None:
    with PilImage.open(io.BytesIO(saved(PHOTO, kind, exif=b"Exif\0\0" + EXIF))) as opened:
        changed = CHANGES[change](opened)
        image = from_pil(changed)
    assert (image.pixels == np.asarray(changed)).all()
    assert (
        image.exif in (None, EXIF.replace(b"\x06", b"\x01"))
        or b"\x12\x01\x03\0\x01\0\0\0\x06" not in image.exif
    )


def test_an_orientation_that_is_not_applied_is_told() -> None:
    for data in (jpeg(exif=b"Exif\0\0" + EXIF), jpeg(xmp=ORIENTED)):
        with PilImage.open(io.BytesIO(data)) as opened:
            opened.thumbnail((20, 20))
            with pytest.warns(UserWarning, match="orientation 6 .* is not applied.*exif_transpose"):
                image = from_pil(opened)
            assert (image.pixels == np.asarray(opened)).all()


# ---- colour


def codes_of(data: bytes) -> tuple[int, ...]:
    return read_image(data).colour


def linear(gamma: int = 100_000) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", gamma))


def chromaticities(*values: int) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *values))


BT709 = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
P3 = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
ODD = (31270, 32900, 61000, 34000, 29000, 61000, 14000, 5000)


def test_what_png_says_of_colour() -> None:
    assert codes_of(png(PHOTO)) == (1, 13, 0, 1)
    assert codes_of(png(PHOTO, linear())) == (1, 8, 0, 1)
    assert codes_of(png(PHOTO, linear(45455), chromaticities(*BT709))) == (1, 4, 0, 1)
    assert codes_of(png(PHOTO, linear(), chromaticities(*P3))) == (12, 8, 0, 1)
    assert codes_of(png(PHOTO, chromaticities(*P3))) == (12, 13, 0, 1)
    assert codes_of(png(PHOTO, linear(), chunk(b"sRGB", b"\0"))) == (1, 13, 0, 1)
    assert codes_of(png(DEEP, chunk(b"cICP", b"\x09\x10\0\1"), linear())) == (9, 16, 0, 1)
    assert codes_of(png(DEEP, chunk(b"cICP", b"\x09\x10\0\0"))) == (9, 16, 0, 0)
    assert codes_of(png(PHOTO[..., :1], linear(), chromaticities(*P3))) == (1, 8, 0, 1)
    damaged = read_image(png(PHOTO, chunk(b"cICP", b"\x09\x10\1\1")))
    assert (damaged.colour, lost(damaged)) == ((1, 13, 0, 1), ["damaged code points of colour"])
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profiled = chunk(b"iCCP", b"x\0\0" + zlib.compress(icc))
    image = read_image(png(PHOTO, profiled, linear()))
    assert (image.icc, image.colour) == (icc, (1, 13, 0, 1))
    image = read_image(png(PHOTO, chunk(b"cICP", b"\x0c\x0d\0\1"), profiled))
    assert (image.icc, image.colour) == (None, (12, 13, 0, 1))
    assert lost(image) == ["ICC profile (overridden by code points)"]


def shown(image: Image, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """What littlecms makes of pixels with the image's profile, in sRGB."""
    assert image.icc is not None
    grey = pixels.shape[2] == 1
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(image.icc)),
        ImageCms.createProfile("sRGB"),
        "L" if grey else "RGB",
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
    picture = PilImage.fromarray(pixels[..., 0] if grey else pixels)
    result = ImageCms.applyTransform(picture, transform)
    assert result is not None
    return np.asarray(result).astype(float)


def srgb_of(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


RAMP = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)


@pytest.mark.parametrize("channels", [1, 3])
def test_gamma_without_code_point_becomes_a_profile(channels: int) -> None:
    ramp = RAMP[..., :channels]
    image = read_image(png(ramp, linear(55_556)))  # 1.8
    wanted = srgb_of((RAMP / 255.0) ** 1.8)
    assert np.abs(shown(image, ramp) - wanted).max() <= 2.5
    assert (image.pixels == ramp).all()


def test_primaries_without_code_point_become_a_profile() -> None:
    image = read_image(png(PHOTO, linear(45455), chromaticities(*ODD)))
    colours = np.array(
        [[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [90, 90, 90], [200, 120, 40]]], np.uint8
    )

    def to_xyz(w: tuple[int, ...]) -> npt.NDArray[np.float64]:
        points = np.array(w).reshape(4, 2) / 1e5
        xyz = np.stack([points[:, 0] / points[:, 1], np.ones(4), (1 - points.sum(1)) / points[:, 1]])
        return xyz[:, 1:] * np.linalg.solve(xyz[:, 1:], xyz[:, 0])

    light = (colours / 255.0) ** 2.2 @ (np.linalg.inv(to_xyz(BT709)) @ to_xyz(ODD)).T
    assert np.abs(shown(image, colours) - srgb_of(light)).max() <= 3
    for nonsense in ((0,) * 8, (4_000_000_000,) * 8, (31270, 32900, *(64000, 33000) * 3)):
        image = read_image(png(PHOTO, linear(45455), chromaticities(*nonsense)))
        assert image.icc is None
        assert lost(image) == ["gamma and chromaticities (without sense)"]


@pytest.mark.parametrize(
    ("transfer", "light"),
    [
        (8, lambda v: v),
        (4, lambda v: v**2.2),
        (13, lambda v: np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)),
        (1, lambda v: np.where(v < 0.081, v / 4.5, ((v + 0.099) / 1.099) ** (1 / 0.45))),
    ],
)
@pytest.mark.parametrize("format", ["tiff", "jpeg", "webp"])
def test_code_points_become_a_profile_where_there_is_no_place(
    transfer: int, light: Callable[[Any], Any], format: str
) -> None:
    buffer = io.BytesIO()
    picture = Image(np.repeat(RAMP, 16, axis=0), colour=(12 if transfer == 13 else 1, transfer, 0, 1))
    assert write_image(picture, buffer, format) == ()
    image = read_image(buffer.getvalue())
    grey_shown = shown(image, RAMP)
    assert np.abs(grey_shown - srgb_of(light(RAMP / 255.0))).max() <= 2.5
    if transfer == 13:
        # The red of Display P3 is redder than sRGB has: a green below zero, cut off.
        red = shown(image, np.array([[[200, 50, 50]]], np.uint8))[0, 0]
        assert red[0] > 210
        assert red[1] < 40


def test_profiles_of_all_code_points_are_sound() -> None:
    for primaries in (1, 4, 5, 6, 7, 8, 9, 11, 12, 22):
        for transfer in (1, 4, 5, 6, 7, 8, 13, 14, 15, 16, 18):
            for channels in (1, 3):
                if (primaries, transfer) == (1, 13):
                    continue
                image = to_pil(Image(PHOTO[..., :channels], colour=(primaries, transfer, 0, 1)))
                profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
                assert profile.profile.xcolor_space.strip() == ("GRAY" if channels == 1 else "RGB")
                white = np.full((1, 1, channels), 255, np.uint8)
                found = Image(white, icc=image.info["icc_profile"])
                assert shown(found, white).min() >= 252
    (note,) = write_image(Image(PHOTO, colour=(99, 13, 0, 1)), io.BytesIO(), "jpeg")
    assert note == "not kept: colour description (written as JPEG)"


@pytest.mark.parametrize("format", ["png", "avif"])
def test_code_points_are_given_back(format: str) -> None:
    buffer = io.BytesIO()
    assert write_image(Image(PHOTO, colour=(12, 13, 0, 1)), buffer, format) == ()
    assert codes_of(buffer.getvalue()) == (12, 13, 0, 1)
    if format == "png":
        assert chunk(b"cICP", b"\x0c\x0d\0\1") in buffer.getvalue()


def test_avif_says_its_colours() -> None:
    data = bytes(imagecodecs.avif_encode(PHOTO, level=95, primaries=12, transfer=13, matrix=6))
    image = read_image(data)
    assert image.colour == (12, 13, 0, 1)
    assert np.abs(image.pixels.astype(int) - PHOTO).max() < 30
    assert codes_of(saved(PHOTO, "AVIF")) == (1, 13, 0, 1)


# ---- density


def test_density_is_kept_and_turned() -> None:
    data = png(PHOTO, chunk(b"pHYs", struct.pack(">IIB", 11811, 5906, 1)), chunk(b"eXIf", EXIF))
    image = read_image(data)
    assert image.density == ((5906, 1), (11811, 1), "m")
    aspect = read_image(png(PHOTO, chunk(b"pHYs", struct.pack(">IIB", 2, 1, 0))))
    assert aspect.density == ((2, 1), (1, 1), "")
    assert read_image(png(PHOTO, chunk(b"pHYs", struct.pack(">IIB", 1, 1, 0)))).density is None
    assert read_image(png(PHOTO, chunk(b"pHYs", struct.pack(">IIB", 0, 1, 1)))).density is None
    assert read_image(jpeg(dpi=(300, 150))).density == ((300, 1), (150, 1), "inch")
    for format, found in (
        ("png", ((5906, 1), (11811, 1), "m")),
        ("jpeg", ((59, 1), (118, 1), "cm")),
        ("tiff", ((2953, 50), (11811, 100), "cm")),
    ):
        buffer = io.BytesIO()
        assert write_image(image, buffer, format) == ()
        assert read_image(buffer.getvalue()).density == found
        buffer = io.BytesIO()
        assert write_image(aspect, buffer, format) == ()
        assert read_image(buffer.getvalue()).density == ((2, 1), (1, 1), "")
    # What no file of this kind can hold.
    for format, deep in (("png", False), ("jpeg", False), ("tiff", False), ("tiff", True)):
        huge = Image(DEEP if deep else PHOTO, density=((1 << 34, 1), (1, 1 << 34), "inch"))
        (note,) = write_image(huge, io.BytesIO(), format)
        assert note == f"not kept: density (written as {format.upper()})"
    assert to_pil(image).info["dpi"] == pytest.approx((150.01, 300), abs=0.01)
    assert from_pil(to_pil(read_image(jpeg(dpi=(300, 150))))).density == ((300, 1), (150, 1), "inch")


# ---- what is lost gets a name

GAIN = XMP % b'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0" dc:title="t"'
MOTION = XMP % b'GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion="1" dc:title="t"'
SECOND = saved(PHOTO, "JPEG")
FILM = b"\0\0\0\x18ftypmp42" + bytes(200)

LOST: dict[str, tuple[bytes, list[str]]] = {
    "comment": (jpeg(segment(0xFE, b"hello")), ["comment"]),
    "photoshop": (jpeg(segment(0xED, b"Photoshop 3.0\08BIM")), ["Photoshop data (IPTC)"]),
    "extended XMP": (jpeg(segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0abc")), ["extended XMP"]),
    "thumbnail": (jpeg(segment(0xE0, b"JFXX\0\x10")), ["thumbnail"]),
    "gain map": (jpeg(xmp=GAIN, behind=SECOND), ["gain map"]),
    "ISO gain map": (jpeg(segment(0xE2, b"urn:iso:std:iso:ts:21496:-1\0"), behind=SECOND), ["gain map"]),
    "further pictures": (jpeg(behind=SECOND), ["further pictures"]),
    "film": (jpeg(xmp=MOTION, behind=FILM), ["film of a motion photo"]),
    "text": (png(PHOTO, chunk(b"tEXt", b"b\0x"), chunk(b"tEXt", b"a\0y")), ["text (a", "b)"]),
    "time": (png(PHOTO, chunk(b"tIME", bytes(7))), ["time of last change"]),
    "HDR": (
        png(PHOTO, chunk(b"cLLI", bytes(8)), chunk(b"mDCV", bytes(24))),
        ["content light level", "mastering display"],
    ),
    "animation": (
        saved(PHOTO, "PNG", save_all=True, append_images=[PilImage.fromarray(255 - PHOTO)]),
        ["the other pictures of the animation"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LOST)
def test_what_is_lost_is_named(kind: str) -> None:
    data, names = LOST[kind]
    image = read_image(data, frame=0 if kind == "animation" else None)
    assert lost(image) == names
    assert np.abs(image.pixels.astype(int) - PHOTO).max() < 40


def test_xmp_does_not_claim_what_is_lost() -> None:
    for data in (LOST["gain map"][0], LOST["film"][0]):
        xmp = read_image(data).xmp
        assert xmp is not None
        assert b"hdrgm" not in xmp
        assert b"MotionPhoto" not in xmp
        assert b'dc:title="t"' in xmp
    directory = b"<Container:Directory><rdf:Seq/></Container:Directory>"
    elements = b"<x><hdrgm:Version>1.0</hdrgm:Version>" + directory + b"<dc:title>t</dc:title></x>"
    assert read_image(jpeg(xmp=elements)).xmp == b"<x><dc:title>t</dc:title></x>"


def test_nothing_is_said_of_plain_files() -> None:
    plain = [
        jpeg(), saved(PHOTO, "PNG"), saved(PHOTO, "WEBP"), saved(PHOTO, "TIFF"), saved(PHOTO, "AVIF"),
        saved(PHOTO, "BMP"), saved(PHOTO, "PPM"), saved(PHOTO, "JPEG2000"), saved(PHOTO, "GIF"),
    ]  # fmt: skip
    for data in plain:
        assert read_image(data).notes == ()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(100), "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(100), "HEIC"),
        (bytes(imagecodecs.jpegxl_encode(PHOTO)), "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50), "JPEG XL"),
        (b"8BPS" + bytes(60), "Photoshop"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(50), "camera"),
        (bytes(imagecodecs.jpegxr_encode(PHOTO)), "JPEG XR"),
        (bytes(imagecodecs.jpegls_encode(PHOTO)), "JPEG-LS"),
        (b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 1\nMAXVAL 255\nTUPLTYPE GRAYSCALE\nENDHDR\n0", "PAM"),
        (b"PF\n1 1\n-1.0\n" + bytes(12), "PFM"),
        (b"Pf\n1 1\n-1.0\n" + bytes(4), "PFM"),
        (png(PHOTO)[:8] + chunk(b"CgBI", b"P\0 \6") + png(PHOTO)[8:], "CgBI"),
    ],
)
def test_kinds_that_are_not_read_are_named(data: bytes, name: str) -> None:
    with pytest.raises(ImageError, match=f"{name}.*this kind is not supported; convert it"):
        read_image(data)


@pytest.mark.parametrize("colours", [0, 1, 4, 771])
def test_png_with_a_palette_that_is_none(colours: int) -> None:
    data = saved(PilImage.fromarray(np.zeros((3, 4), np.uint8), "P"), "PNG")
    start = data.index(b"PLTE") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    for palette in (
        (chunk(b"PLTE", bytes(colours)), b"") if colours == 0 else (chunk(b"PLTE", bytes(colours)),)
    ):
        with pytest.raises(ImageError, match=f"are a palette, {colours} bytes are there"):
            read_image(data[:start] + palette + data[end:])


# ---- what Pillow passes over


def gif(
    size: tuple[int, int], place: tuple[int, int], samples: npt.NDArray[np.uint8], *, shape: int = 0
) -> bytes:
    """A GIF of one picture that lies somewhere on a larger screen."""
    inner = saved(PilImage.fromarray(samples), "GIF")
    head = bytearray(inner[:13])
    head[6:10], head[12] = struct.pack("<HH", *size), shape
    start = inner.index(b",", 13 + 3 * (2 << (inner[10] & 7) if inner[10] & 128 else 0))
    picture = b"," + struct.pack("<HH", *place) + inner[start + 5 :]
    return bytes(head) + inner[13:start] + picture


def test_gif_that_does_not_cover_its_screen() -> None:
    samples = (np.arange(80, dtype=np.uint8) * 3).reshape(8, 10)
    image = read_image(gif((20, 15), (6, 4), samples))
    wanted = np.zeros((15, 20), np.uint8)
    wanted[4:12, 6:16] = 255
    assert image.alpha is not None
    assert (image.alpha == wanted).all()
    assert (image.pixels[4:12, 6:16, 0] == samples).all()
    whole = read_image(gif((10, 8), (0, 0), samples))
    assert whole.alpha is None
    two = gif((20, 15), (6, 4), samples)
    two = two[:-1] + two[two.index(b",") : -1] + b";"
    assert (read_image(two, frame=0).alpha == wanted).all()  # type: ignore[union-attr]
    with pytest.raises(ImageError, match="does not cover"):
        read_image(two, frame=1)


def test_gif_with_pixels_that_are_not_square() -> None:
    samples = np.zeros((8, 10), np.uint8)
    # (113 + 15) / 64: twice as wide as high.
    assert read_image(gif((10, 8), (0, 0), samples, shape=113)).density == ((64, 1), (128, 1), "")
    assert read_image(gif((10, 8), (0, 0), samples, shape=49)).density is None


def bitmap(kind: bytes, calibration: bytes = bytes(48), profile: bytes = b"", start: int = 0) -> bytes:
    """A Windows bitmap with a header of version 5."""
    rows = PHOTO[::-1, :, ::-1].tobytes()
    head = struct.pack("<IiiHHIIiiII", 124, SHAPE[1], SHAPE[0], 1, 24, 0, len(rows), 0, 0, 0, 0)
    head += bytes(16) + kind + calibration
    head += struct.pack("<IIII", 4, start or 124 + len(rows), len(profile), 0)
    size = 14 + len(head) + len(rows) + len(profile)
    return b"BM" + struct.pack("<IHHI", size, 0, 0, 14 + len(head)) + head + rows + profile


def test_colour_of_bitmaps() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = read_image(bitmap(b"DEBM", profile=profile))
    assert image.icc == profile
    assert (image.pixels == PHOTO).all()
    for data, name in (
        (bitmap(b"DEBM", profile=profile, start=1 << 30), "ICC profile (damaged)"),
        (bitmap(b"KNIL", profile=b"c:/profile.icc"), "ICC profile (in another file)"),
        (bitmap(bytes(4), calibration=bytes(range(48))), "colour calibration"),
    ):
        found = read_image(data)
        assert (found.icc, lost(found)) == (None, [name])
    for kind in (b"BGRs", b" niW", bytes(4)):
        assert read_image(bitmap(kind)).notes == ()


def test_ink_that_nobody_has_told_the_sense_of() -> None:
    ink = saved(PilImage.fromarray(np.dstack([255 - PHOTO, PHOTO[..., :1] * 0]), "CMYK"), "JPEG", quality=95)
    at = ink.index(b"\xff\xee")
    bare = ink[:at] + ink[at + 2 + int.from_bytes(ink[at + 2 : at + 4], "big") :]
    assert read_image(ink).notes == ("converted from CMYK to sRGB",)
    assert any("without Adobe's segment" in note for note in read_image(bare).notes)


# ---- JPEG files without their end


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("grey", [False, True])
def test_a_missing_end_marker_is_no_damage(options: dict[str, Any], grey: bool) -> None:
    noise = RNG.integers(0, 256, (70, 90, 3), dtype=np.uint8)
    data = saved(noise[..., 0] if grey else noise, "JPEG", quality=90, **options)
    whole = read_image(data)
    assert data.endswith(b"\xff\xd9")
    for cut in (data[:-2], data[:-1]):
        image = read_image(cut)
        assert (image.pixels == whole.pixels).all()
        assert image.notes == ("only the end marker of the JPEG file is missing",)
    for size in (*range(3, 12), 40, 500, len(data) // 2, len(data) - 700):
        try:
            image = read_image(data[:-size])
        except ImageError:
            continue
        # A few bits at the end may only fill up the last byte.
        assert size < 5
        assert (image.pixels == whole.pixels).all()


def test_a_progressive_file_without_its_last_scans_is_cut() -> None:
    data = saved(RNG.integers(0, 256, (70, 90, 3), dtype=np.uint8), "JPEG", quality=90, progressive=True)
    scans = [k for k in range(len(data) - 1) if data[k : k + 2] == b"\xff\xda"]
    assert len(scans) > 4
    for start in scans[2:]:
        tables = data.rfind(b"\xff\xc4", 0, start)
        with pytest.raises(ImageError, match="truncated"):
            read_image(data[: min(start, tables)])


# ---- damage

SOUND = {
    "JPEG 2000": bytes(imagecodecs.jpeg2k_encode(DEEP, level=0)),
    "AVIF": bytes(imagecodecs.avif_encode(DEEP >> 6, level=90, bitspersample=10, primaries=9, transfer=16)),
    "JPEG of 12 bits": bytes(imagecodecs.jpeg8_encode(DEEP >> 4, level=90, bitspersample=12)),
    "JPEG": LOST["gain map"][0],
    "PNG": png(DEEP, chunk(b"cICP", b"\x09\x10\0\1"), linear(), chromaticities(*ODD), chunk(b"pHYs", bytes(8) + b"\1")),
    "PPM": b"P6 40 24 1023\n" + (DEEP >> 6).astype(">u2").tobytes(),
}  # fmt: skip


@pytest.mark.parametrize("kind", SOUND)
def test_damage_never_escapes(kind: str) -> None:
    data = SOUND[kind]
    assert read_image(data).pixels.shape == PHOTO.shape
    rng = np.random.default_rng(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for round_ in range(90):
            hostile = bytearray(data)
            if round_ % 3:
                reach = len(data) if round_ % 2 else min(len(data), 300)
                for position in rng.integers(0, reach, rng.integers(1, 4)):
                    hostile[position] = rng.integers(0, 256)
            else:
                hostile = hostile[: rng.integers(1, len(data) - 2)]
            try:
                image = read_image(bytes(hostile), max_pixels=10**6)
            except LatensError as error:
                message = str(error)
            else:
                message = "".join(image.notes)
                assert image.pixels.size <= 3 * 10**6
                assert round_ % 3 or kind == "JPEG"  # cut in the gain map, or in a comment of no consequence
            assert message.isprintable()
