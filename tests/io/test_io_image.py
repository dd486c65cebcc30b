"""Reading and writing images: every kind of sample, metadata, damage and limit. All inputs are made here."""

import io
import os
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as P
from PIL import ImageCms

from latens import io as lio
from latens.errors import ImageError, LatensError, LimitError, OutputError, ShapeError
from latens.io import Image, from_pil, read_image, to_pil, write_image

RNG = np.random.default_rng(1)
COLOUR = RNG.integers(0, 256, (7, 5, 3), dtype=np.uint8)
GREY = COLOUR[..., :1]
SRGB_ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def saved(image: P.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    samples: np.ndarray, depth: int, colour: int, *extra: bytes, size: tuple[int, int] | None = None
) -> bytes:
    """A PNG made by hand, for what Pillow cannot write; `size` overrides what the header says."""
    height, width = samples.shape[:2]
    rows = [b"\0" + (row.astype(">u2").tobytes() if depth == 16 else row.tobytes()) for row in samples]
    header = struct.pack(">IIBBBBB", *(size or (width, height)), depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + b"".join(extra)
        + png_chunk(b"IDAT", zlib.compress(b"".join(rows)))
        + png_chunk(b"IEND", b"")
    )


def exif_with(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    """A TIFF structure with a camera maker and an orientation."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 2)
    maker = struct.pack(order + "HHI4s", 0x010F, 2, 4, b"cam\0")
    value = struct.pack(order + "HH", orientation, 0) if kind == 3 else struct.pack(order + "I", orientation)
    return head + maker + struct.pack(order + "HHI", 0x0112, kind, 1) + value + bytes(4)


# ---- kinds of samples


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "JPEG2000"])
@pytest.mark.parametrize("grey", [False, True])
def test_lossless_files_give_their_samples(kind: str, grey: bool) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(P.fromarray(GREY[..., 0] if grey else COLOUR), kind, **options)
    image = read_image(data)
    expected = GREY if grey else COLOUR
    if grey and kind == "WEBP":
        expected = np.repeat(GREY, 3, axis=2)
    assert (image.pixels == expected).all()
    assert image.pixels.shape == expected.shape
    assert image.pixels.flags.writeable
    assert image.alpha is None
    assert image.notes == ()


@pytest.mark.parametrize("kind", ["JPEG", "AVIF"])
def test_lossy_files_come_close(kind: str) -> None:
    smooth = np.full((16, 24, 3), (200, 100, 50), np.uint8)
    image = read_image(saved(P.fromarray(smooth), kind, quality=95))
    assert image.pixels.shape == (16, 24, 3)
    assert np.abs(image.pixels.astype(int) - smooth).max() <= 4


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
def test_tiny_images(size: tuple[int, int]) -> None:
    pixels = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    assert (read_image(saved(P.fromarray(pixels), "PNG")).pixels == pixels).all()


def test_alpha_is_kept_exactly() -> None:
    rgba = RNG.integers(0, 256, (6, 4, 4), dtype=np.uint8)
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        image = read_image(saved(P.fromarray(rgba), kind, **options))
        assert (image.pixels == rgba[..., :3]).all()
        assert image.alpha is not None
        assert (image.alpha == rgba[..., 3]).all()
    la = rgba[..., :2]
    image = read_image(saved(P.fromarray(la), "PNG"))
    assert (image.pixels == la[..., :1]).all()
    assert image.alpha is not None
    assert (image.alpha == la[..., 1]).all()


def test_one_bit_images() -> None:
    bits = RNG.integers(0, 2, (5, 11)).astype(bool)
    for kind in ("PNG", "TIFF", "BMP", "PPM"):
        image = read_image(saved(P.fromarray(bits), kind))
        assert image.pixels.shape == (5, 11, 1)
        assert (image.pixels[..., 0] == bits * 255).all()


def palette_image() -> P.Image:
    image = P.fromarray(np.array([[0, 1, 2], [2, 1, 0]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    return image


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP"])
def test_palette_images(kind: str) -> None:
    image = read_image(saved(palette_image(), kind))
    assert image.pixels[0].tolist() == [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    assert image.alpha is None


def test_palette_images_with_transparency() -> None:
    for kind in ("PNG", "GIF"):
        image = read_image(saved(palette_image(), kind, transparency=1))
        assert image.alpha is not None
        assert image.alpha.tolist() == [[255, 0, 255], [255, 0, 255]]
    image = read_image(saved(palette_image(), "PNG", transparency=bytes([5, 6, 7])))
    assert image.alpha is not None
    assert image.alpha.tolist() == [[5, 6, 7], [7, 6, 5]]
    assert image.pixels[0].tolist() == [[10, 20, 30], [40, 50, 60], [70, 80, 90]]


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_grey_key_colour(depth: int) -> None:
    per_byte = 8 // depth
    values = np.arange(per_byte) % (1 << depth)
    packed = 0
    for value in values:
        packed = packed << depth | int(value)
    key = int(values[-1])
    image = read_image(
        png(
            np.array([[packed]], np.uint8),
            depth,
            0,
            png_chunk(b"tRNS", struct.pack(">H", key)),
            size=(per_byte, 1),
        )
    )
    assert image.alpha is not None
    assert image.alpha[0].tolist() == [0 if value == key else 255 for value in values]
    assert image.pixels[0, :, 0].tolist() == [int(value) * 255 // ((1 << depth) - 1) for value in values]


def test_colour_key() -> None:
    pixels = np.array([[[1, 2, 3], [1, 2, 4], [3, 2, 1]]], np.uint8)
    image = read_image(png(pixels, 8, 2, png_chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))))
    assert (image.pixels == pixels).all()
    assert image.alpha is not None
    assert image.alpha.tolist() == [[0, 255, 255]]


# ---- 16 bits: all values there are

DEEP = np.concatenate([np.arange(65536), np.arange(65536)[::-1]]).astype(np.uint16).reshape(256, 512)


def rounded(values: np.ndarray) -> np.ndarray:
    return np.floor(values.astype(np.float64) / 257 + 0.5).astype(np.uint8)


def test_16_bit_grey_png() -> None:
    image = read_image(png(DEEP[..., None], 16, 0))
    assert image.pixels.dtype == np.uint16
    assert (image.pixels[..., 0] == DEEP).all()
    assert image.notes == ()
    assert (image.to_8_bits().pixels[..., 0] == rounded(DEEP)).all()


@pytest.mark.parametrize(("colour", "channels"), [(4, 2), (2, 3), (6, 4)])
def test_16_bit_colour_and_alpha_png(colour: int, channels: int, tmp_path: Path) -> None:
    values = np.stack([np.roll(DEEP, 1000 * k) for k in range(channels)], axis=2)
    data = png(values, 16, colour)
    path = tmp_path / "deep.png"
    path.write_bytes(data)
    for source in (data, path):
        image = read_image(source)
        found = image.pixels if image.alpha is None else np.dstack([image.pixels, image.alpha])
        assert found.dtype == np.uint16
        assert (found == values).all()
        assert image.notes == ()


def test_16_bit_key_colours_compare_all_bits() -> None:
    values = np.array([[[256, 512, 768], [257, 512, 768]]], np.uint16)
    image = read_image(png(values, 16, 2, png_chunk(b"tRNS", struct.pack(">HHH", 256, 512, 768))))
    assert image.alpha is not None
    assert image.alpha.tolist() == [[0, 65535]]
    image = read_image(png(values[..., :1], 16, 0, png_chunk(b"tRNS", struct.pack(">H", 257))))
    assert image.alpha is not None
    assert image.alpha.tolist() == [[65535, 0]]


def tiff16(values: np.ndarray, order: str, compressed: bool) -> bytes:
    """A 16-bit RGB TIFF of one strip, by hand."""
    height, width, channels = values.shape
    strip = values.astype(order + "u2").tobytes()
    if compressed:
        strip = zlib.compress(strip)
    entries = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, channels, 8),
        (259, 3, 1, 8 if compressed else 1),
        (262, 3, 1, 2),
        (273, 4, 1, 14),
        (277, 3, 1, channels),
        (278, 3, 1, height),
        (279, 4, 1, len(strip)),
    ]
    if channels == 4:
        entries.append((338, 3, 1, 2))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(
        order + "I", 14 + len(strip) + len(strip) % 2 + 8
    )
    directory = 14 + len(strip) + len(strip) % 2 + 8
    bits = struct.pack(order + "4H", 16, 16, 16, 16)
    out = head + bytes(6) + strip + bytes(len(strip) % 2) + bits
    assert len(out) == directory
    out += struct.pack(order + "H", len(entries))
    for tag, kind, count, value in entries:
        if tag == 258:
            value = directory - 8
            out += struct.pack(order + "HHII", tag, kind, count, value)
        elif kind == 3:
            out += struct.pack(order + "HHIHH", tag, kind, count, value, 0)
        else:
            out += struct.pack(order + "HHII", tag, kind, count, value)
    return out + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_colour_tiff(order: str, compressed: bool, channels: int, tmp_path: Path) -> None:
    values = np.stack([np.roll(DEEP, 1000 * k) for k in range(channels)], axis=2)
    path = tmp_path / "deep.tif"
    path.write_bytes(tiff16(values, order, compressed))
    for source in (path, path.read_bytes()):
        image = read_image(source)
        found = image.pixels if image.alpha is None else np.dstack([image.pixels, image.alpha])
        assert found.dtype == np.uint16
        assert (found == values).all()
        assert image.notes == ()


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "PNG"])
def test_16_bit_grey_files(kind: str) -> None:
    image = read_image(saved(P.fromarray(DEEP), kind))
    assert (image.pixels[..., 0] == DEEP).all()


def test_other_deep_samples_are_refused() -> None:
    for array in (np.zeros((3, 3), np.int32), np.zeros((3, 3), np.float32)):
        with pytest.raises(ImageError, match="not supported"):
            read_image(saved(P.fromarray(array), "TIFF"))


# ---- colour


def test_cmyk_becomes_srgb() -> None:
    image = read_image(saved(P.new("CMYK", (3, 2), (0, 255, 255, 0)), "TIFF"))
    assert image.pixels.shape == (2, 3, 3)
    assert image.pixels[0, 0, 0] > 200
    assert image.pixels[0, 0, 1:].max() < 60
    assert image.notes == ("converted from CMYK to sRGB",)


def test_cmyk_with_a_useless_profile_is_still_read() -> None:
    bad = bytearray(SRGB_ICC)
    bad[16:20] = b"CMYK"
    image = read_image(saved(P.new("CMYK", (3, 2), (0, 0, 0, 0)), "JPEG", icc_profile=bytes(bad)))
    assert image.pixels.min() > 250
    assert image.icc is None
    assert "its ICC profile could not be used" in image.notes


def test_lab_becomes_srgb() -> None:
    image = read_image(saved(P.new("LAB", (2, 2), (255, 128, 128)), "TIFF"))
    assert image.pixels.min() >= 250
    assert image.notes == ("converted from LAB to sRGB",)


def test_icc_profiles_are_kept_not_applied() -> None:
    for kind in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        image = read_image(saved(P.fromarray(COLOUR), kind, icc_profile=SRGB_ICC, **options))
        assert (image.pixels == COLOUR).all()
        assert image.icc == SRGB_ICC


def test_icc_profiles_that_do_not_fit_are_left_out() -> None:
    for pixels, profile in ((GREY[..., 0], SRGB_ICC), (COLOUR, b"nonsense")):
        image = read_image(saved(P.fromarray(pixels), "PNG", icc_profile=profile))
        assert image.icc is None
        assert "ICC profile" in image.notes[0]


# ---- orientation and metadata

# where the pixel at the top left of the stored image goes: what EXIF 4.6.4 says about "row 0, column 0"
TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("order", "kind"), [("<", 3), (">", 3), ("<", 4), (">", 4)])
def test_orientation_is_applied_and_reset(orientation: int, order: str, kind: int) -> None:
    exif = exif_with(orientation, order, kind)
    rgba = np.dstack([COLOUR, GREY])
    image = read_image(saved(P.fromarray(rgba), "PNG", exif=exif))
    assert (np.dstack([image.pixels, image.alpha]) == TURNS[orientation](rgba)).all()
    for array in (image.pixels, image.alpha):
        assert array is not None
        assert array.flags.c_contiguous
        assert array.flags.writeable
    assert image.exif == exif_with(1, order, kind)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_in_tiff_and_avif(orientation: int) -> None:
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :12] = 255
    for kind in ("TIFF", "AVIF"):
        image = read_image(saved(P.fromarray(pixels), kind, exif=b"Exif\0\0" + exif_with(orientation)))
        expected = TURNS[orientation](pixels)
        assert image.pixels.shape == expected.shape
        assert np.abs(image.pixels.astype(int) - expected).max() < 60
        if image.exif:
            found = P.Exif()
            found.load(b"Exif\0\0" + image.exif)
            assert found.get(0x0112, 1) == 1
            assert found[0x010F] == "cam"


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_senseless_orientations_are_ignored(orientation: int) -> None:
    image = read_image(saved(P.fromarray(COLOUR), "PNG", exif=exif_with(orientation)))
    assert (image.pixels == COLOUR).all()


@given(st.binary(max_size=60))
def test_damaged_exif_is_harmless(tail: bytes) -> None:
    for head in (b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b""):
        image = read_image(png(COLOUR, 8, 2, png_chunk(b"eXIf", head + tail)))
        assert image.exif is None or len(image.exif) == len(head + tail)


def test_exif_that_is_none_is_left_out() -> None:
    image = read_image(png(COLOUR, 8, 2, png_chunk(b"eXIf", b"hello, world")))
    assert image.exif is None
    assert "EXIF" in image.notes[0]


def test_xmp_is_kept_with_its_orientation_reset() -> None:
    expected = XMP.replace(b'"6"', b'"1"')
    for kind in ("JPEG", "WEBP", "AVIF"):
        assert read_image(saved(P.fromarray(COLOUR), kind, xmp=XMP)).xmp == expected
    element = b"<tiff:Orientation>8</tiff:Orientation>"
    assert read_image(saved(P.fromarray(COLOUR), "WEBP", xmp=element)).xmp == element.replace(b"8", b"1")


def test_tiff_keeps_what_describes_the_photo_only() -> None:
    original = P.Exif()
    original[0x010F] = "maker"
    original[0x0100] = 12345
    original[0x8769] = {0x9003: "2024:01:02 03:04:05"}
    buffer = io.BytesIO()
    write_image(Image(COLOUR, exif=original.tobytes()[6:]), buffer, "tiff")
    image = read_image(buffer.getvalue())
    assert (image.pixels == COLOUR).all()
    assert image.exif is not None
    found = P.Exif()
    found.load(b"Exif\0\0" + image.exif)
    assert found[0x010F] == "maker"
    assert found.get_ifd(0x8769)[0x9003] == "2024:01:02 03:04:05"
    assert 273 not in found


# ---- animations and pages


def frames(kind: str) -> bytes:
    pictures = [P.new("RGB", (8, 6), (k * 100, 50, 200 - k * 50)) for k in range(3)]
    options = {"lossless": True} if kind == "WEBP" else {}
    return saved(pictures[0], kind, save_all=True, append_images=pictures[1:], **options)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_animations_need_a_frame(kind: str) -> None:
    data = frames(kind)
    with pytest.raises(ImageError, match=r"3 pictures.*frame=0 \(latens encode --frame 0\)"):
        read_image(data)
    for frame in (2, 0, 1):
        pixel = read_image(data, frame=frame).pixels[0, 0].astype(int)
        assert np.abs(pixel - [frame * 100, 50, 200 - frame * 50]).max() <= 3
    for frame in (3, -1):
        with pytest.raises(ImageError, match=f"frame {frame} does not exist: the file has 3"):
            read_image(data, frame=frame)


def test_a_still_image_has_frame_0() -> None:
    data = saved(P.fromarray(COLOUR), "PNG")
    assert (read_image(data, frame=0).pixels == COLOUR).all()
    with pytest.raises(ImageError, match="frame 1"):
        read_image(data, frame=1)


def test_the_first_picture_of_a_camera_file_is_taken() -> None:
    data = saved(
        P.new("RGB", (8, 8), (250, 0, 0)), "MPO", save_all=True, append_images=[P.new("RGB", (8, 8))]
    )
    image = read_image(data)
    assert image.pixels[0, 0, 0] > 240
    assert image.notes == ("not kept: further pictures",)
    assert read_image(data, frame=1).pixels.max() < 10


# ---- what is not an image


def test_sources(tmp_path: Path) -> None:
    data = saved(P.fromarray(COLOUR), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with path.open("rb") as file:
        sources = [path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data), file]
        for source in sources:
            assert (read_image(source).pixels == COLOUR).all()


def test_a_pipe(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    data = saved(P.fromarray(COLOUR), "PNG")

    def feed() -> None:
        with os.fdopen(write_end, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(read_end, "rb") as file:
        assert (read_image(file).pixels == COLOUR).all()
    thread.join()


def test_an_endless_pipe_is_cut() -> None:
    class Endless(io.RawIOBase):
        given = 0

        def seekable(self) -> bool:
            return False

        def read(self, size: int = -1) -> bytes:
            self.given += size
            return bytes(size)

    source = Endless()
    with pytest.raises(LimitError, match="of input"):
        read_image(source, max_pixels=1000)
    assert source.given < 100 << 20


PHOTO = saved(P.fromarray(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)), "JPEG")
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"hello, world, this is text", "not an image"),
        (b"LTN\0" + bytes(50), "not an image"),
        (EPS, "PostScript: this kind is not supported; convert it"),
        (b"%PDF-1.7\n", "PDF: this kind is not supported; convert it"),
        (saved(P.fromarray(COLOUR), "TGA"), "not an image"),
        (PHOTO[: len(PHOTO) // 2], "truncated"),
        (PHOTO[:10], "Truncated"),
        (saved(P.fromarray(COLOUR), "PNG")[:-40], "truncated"),
        (b"GIF89a" + bytes(7), "0 x 0|damaged|not an image|cannot"),
    ],
)
def test_bad_files(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "some\x1b[1m.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=words) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/some\\x1b[1m.png: ")
    assert message.isprintable()


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.png: cannot be read: No such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="cannot be read: Is a directory"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="null"):
        read_image(str(tmp_path) + "/a\0b")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "AVIF", "JPEG2000"])
def test_damage_never_escapes(kind: str) -> None:
    """Cuts and flips give an image or one of our errors; and warnings of Pillow become notes."""
    options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    pixels = np.add.outer(np.arange(20), np.arange(30)).astype(np.uint8)
    exif = {} if kind in ("GIF", "BMP", "PPM", "JPEG2000") else {"exif": b"Exif\0\0" + exif_with(6)}
    data = saved(P.fromarray(np.dstack([pixels] * 3)), kind, **options, **exif)
    rng = np.random.default_rng(7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(60):
            hostile = bytearray(data)
            for position in rng.integers(0, len(data), rng.integers(1, 4)):
                hostile[position] = rng.integers(0, 256)
            if rng.random() < 0.3:
                hostile = hostile[: rng.integers(0, len(data))]
            try:
                image = read_image(bytes(hostile), max_pixels=10**6)
            except LatensError as error:
                message = str(error)
            else:
                message = "".join(image.notes)
                assert image.pixels.size <= 3 * 10**6
            assert message.isprintable()


# ---- limits


def test_too_many_pixels_are_refused_before_decoding() -> None:
    data = png(COLOUR, 8, 2, size=(40_000, 40_000))
    with pytest.raises(LimitError, match="pixels"):
        read_image(data)
    with pytest.raises(LimitError, match="at most 65535"):
        read_image(png(COLOUR, 8, 2, size=(70_000, 1)))
    with pytest.raises(LimitError, match="100 x 100 pixels are above the limit of 9999"):
        read_image(saved(P.new("L", (100, 100)), "PNG"), max_pixels=9999)
    with pytest.raises(LimitError):
        read_image(saved(P.new("L", (100, 100)), "PNG"), max_pixels=10)
    assert read_image(saved(P.new("L", (100, 100)), "PNG"), max_pixels=10_000).pixels.shape == (100, 100, 1)


def test_pillows_own_limit_is_not_ours_and_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(P, "MAX_IMAGE_PIXELS", 5)
    assert read_image(saved(P.fromarray(COLOUR), "PNG")).pixels.shape == COLOUR.shape
    assert P.MAX_IMAGE_PIXELS == 5
    with pytest.raises(ImageError):
        read_image(b"no")
    assert P.MAX_IMAGE_PIXELS == 5


@pytest.mark.parametrize(
    "bomb",
    [
        png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(50 << 20))),
        png_chunk(b"zTXt", b"text\0\0" + zlib.compress(bytes(50 << 20))),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(50 << 20))),
        png_chunk(b"eXIf", b"II*\0" + bytes(17 << 20)),
    ],
    ids=["icc", "text", "xmp", "exif"],
)
def test_bombs_in_metadata(bomb: bytes) -> None:
    with pytest.raises((ImageError, LimitError)):
        read_image(png(COLOUR, 8, 2, bomb))


# ---- writing

FULL = Image(COLOUR, GREY[..., 0].copy(), SRGB_ICC, exif_with(1), b"<x/>")


@pytest.mark.parametrize("format", lio.WRITE_FORMATS)
@pytest.mark.parametrize("grey", [False, True])
def test_written_files_read_back(tmp_path: Path, format: str, grey: bool) -> None:
    pixels = GREY if grey else COLOUR
    path = tmp_path / f"out.{format}"
    assert write_image(Image(pixels), path) == ()
    back = read_image(path)
    if format in ("jpeg", "avif"):
        assert back.pixels.shape[:2] == pixels.shape[:2]
        return
    expected = np.repeat(pixels, 3, axis=2) if grey and format == "webp" else pixels
    assert back.pixels.shape == expected.shape
    assert (back.pixels == expected).all()


@pytest.mark.parametrize("format", ["png", "webp", "tiff", "avif"])
def test_alpha_and_metadata_are_written(format: str) -> None:
    buffer = io.BytesIO()
    assert write_image(FULL, buffer, format) == ()
    back = read_image(buffer.getvalue())
    assert back.alpha is not None
    if format != "avif":
        assert (back.pixels == FULL.pixels).all()
        assert (back.alpha == FULL.alpha).all()
    assert back.icc == FULL.icc
    assert back.xmp == FULL.xmp
    assert back.exif is not None
    assert b"cam\0" in back.exif
    assert back.notes == ()


@pytest.mark.parametrize("format", ["jpeg", "bmp", "ppm"])
def test_alpha_is_never_dropped(format: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no alpha"):
        write_image(FULL, tmp_path / f"a.{format}")
    assert not list(tmp_path.iterdir())


def test_notes_tell_what_is_left_out() -> None:
    opaque = Image(COLOUR, None, SRGB_ICC, exif_with(1) + bytes(70_000), b"<x/>")
    buffer = io.BytesIO()
    assert write_image(opaque, buffer, "jpeg") == ("not kept: EXIF (written as JPEG)",)
    back = read_image(buffer.getvalue())
    assert back.icc == SRGB_ICC
    assert back.xmp == b"<x/>"
    assert write_image(opaque, io.BytesIO(), "bmp") == ("not kept: ICC profile, EXIF, XMP (written as BMP)",)


def test_damaged_exif_is_not_written() -> None:
    for format in ("png", "tiff", "jpeg"):
        assert write_image(Image(COLOUR, exif=b"nonsense"), io.BytesIO(), format) == (
            f"not kept: damaged EXIF (written as {format.upper()})",
        )


@given(st.binary(max_size=60), st.sampled_from(["png", "tiff", "webp", "jpeg"]))
@settings(deadline=None)
def test_hostile_exif_is_written_or_refused(tail: bytes, format: str) -> None:
    buffer = io.BytesIO()
    try:
        write_image(Image(COLOUR, exif=b"II*\0\x08\0\0\0" + tail), buffer, format)
    except OutputError:
        return
    assert read_image(buffer.getvalue()).pixels.shape == COLOUR.shape


def test_the_suffix_decides() -> None:
    for name, format in {"a.PNG": "png", "b.jpg": "jpeg", "c.tif": "tiff", "d.x.avif": "avif"}.items():
        assert lio.write_format(name) == format
    for name in ("a", "a.xyz", "a.eps", ".png/a", "a.\x1b[m"):
        with pytest.raises(OutputError, match=r"known: \.png") as caught:
            lio.write_format(name)
        assert str(caught.value).isprintable()
    with pytest.raises(OutputError, match="not one of"):
        write_image(FULL, io.BytesIO(), "eps")


def test_existing_files_need_force(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match="exists"):
        write_image(FULL, path)
    assert path.read_bytes() == b"old"
    with pytest.raises(OutputError, match="also an input"):
        write_image(FULL, path, force=True, inputs=[path])
    write_image(FULL, path, force=True)
    assert (read_image(path).pixels == COLOUR).all()


def test_streams_that_fail() -> None:
    with open("/dev/full", "wb") as full, pytest.raises(OutputError, match="No space left"):  # noqa: PTH123
        write_image(Image(np.zeros((300, 300, 3), np.uint8)), full, "bmp")
    too_wide = Image(np.zeros((1, 20_000, 1), np.uint8))
    with pytest.raises(OutputError, match="cannot be written as WEBP"):
        write_image(too_wide, io.BytesIO(), "webp")


# ---- Pillow images and arrays

arrays = st.tuples(st.integers(1, 6), st.integers(1, 6), st.sampled_from(["L", "LA", "RGB", "RGBA"])).flatmap(
    lambda shape: st.binary(
        min_size=shape[0] * shape[1] * len(shape[2]), max_size=shape[0] * shape[1] * len(shape[2])
    ).map(lambda data: P.frombytes(shape[2], shape[:2], data))
)


@given(arrays)
@settings(deadline=None)
def test_pillow_round_trip(picture: P.Image) -> None:
    back = to_pil(from_pil(picture))
    assert back.mode == picture.mode
    assert back.tobytes() == picture.tobytes()
    assert (read_image(saved(picture, "PNG")).pixels == from_pil(picture).pixels).all()


def test_pillow_carries_metadata() -> None:
    picture = to_pil(FULL)
    again = from_pil(picture)
    assert (again.icc, again.exif, again.xmp) == (FULL.icc, FULL.exif, FULL.xmp)
    assert from_pil(P.open(io.BytesIO(PHOTO))).pixels.shape == (40, 40, 3)
    with pytest.raises(ImageError, match="truncated"):
        from_pil(P.open(io.BytesIO(PHOTO[:-100])))
    with pytest.raises(ImageError, match="not supported"):
        from_pil(P.new("F", (2, 2)))


def test_pillow_animations_need_a_choice() -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    first, *rest = (P.new("RGB", (8, 6), colour) for colour in colours)
    picture = P.open(io.BytesIO(saved(first, "PNG", save_all=True, append_images=rest)))
    with pytest.raises(ImageError, match=r"3 pictures; choose one with seek\(n\) and copy\(\)"):
        from_pil(picture)
    assert tuple(from_pil(picture.copy()).pixels[0, 0]) == colours[0]
    picture.seek(2)
    assert tuple(from_pil(picture).pixels[0, 0]) == colours[2]


@pytest.mark.parametrize(
    ("pixels", "alpha"),
    [
        (np.zeros((2, 2), np.uint8), None),
        (np.zeros((2, 2, 2), np.uint8), None),
        (np.zeros((0, 2, 3), np.uint8), None),
        (np.zeros((2, 2, 3), np.int16), None),
        (np.zeros((2, 2, 3), np.uint16), np.zeros((2, 2), np.uint8)),
        (np.zeros((2, 2, 3), np.uint8), np.zeros((2, 3), np.uint8)),
        (np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), bool)),
    ],
)
def test_wrong_arrays(pixels: np.ndarray, alpha: np.ndarray | None) -> None:
    with pytest.raises(ShapeError, match="expected uint"):
        Image(pixels, alpha)
