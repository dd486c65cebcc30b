"""Large files from top to bottom: the same as whole ones, and what is refused."""

import io
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as PilImage

import tiny
from latens.errors import ImageError, LimitError
from latens.io import Image, open_strips, read_image, write_image, write_strips


def _pixels(dtype: type[np.generic] = np.uint8, channels: int = 3) -> np.ndarray:
    pixels = tiny.picture(300, 210, channels).astype(dtype)
    return pixels if dtype == np.uint8 else pixels * np.uint16(253) + np.uint16(9)


def _saved(image: Image, kind: str) -> bytes:
    file = io.BytesIO()
    write_image(image, file, kind)
    return file.getvalue()


def _tiff(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    kind = "rgb" if pixels.shape[2] == 3 else "minisblack"
    tifffile.imwrite(file, pixels if pixels.shape[2] == 3 else pixels[..., 0], photometric=kind, **options)
    return file.getvalue()


FILES = {
    f"{kind} {np.dtype(dtype).name} {channels}": _saved(Image(_pixels(dtype, channels)), kind)
    for kind in ("png", "ppm", "tiff")
    for dtype in (np.uint8, np.uint16)
    for channels in (1, 3)
} | {
    "tiles": _tiff(_pixels(), tile=(64, 48)),
    "tiles of 16 bits": _tiff(_pixels(np.uint16), tile=(64, 48), compression="zlib"),
    "BigTIFF": _tiff(_pixels(), bigtiff=True, rowsperstrip=17),
    "big-endian": _tiff(_pixels(np.uint16, 1), byteorder=">", rowsperstrip=100),
    "one strip": _tiff(_pixels(), rowsperstrip=300),
    "one strip, big-endian": _tiff(_pixels(np.uint16), byteorder=">", rowsperstrip=300),
    "one strip, deflate": _tiff(_pixels(), compression="zlib", rowsperstrip=300),
    "packbits": _tiff(_pixels(), compression="packbits", rowsperstrip=40),
    "10 bits": b"P6\n210 300\n1023\n" + (_pixels(np.uint16) % 1024).astype(">u2").tobytes(),
    "5 levels": b"P5\n210 300\n4\n" + (_pixels(channels=1) % 5).tobytes(),
}


@pytest.mark.parametrize("name", FILES)
def test_strips_are_those_of_the_whole(name: str) -> None:
    whole = read_image(FILES[name])
    strips = open_strips(io.BytesIO(FILES[name]), 1 << 20)
    assert strips is not None
    assert (strips.shape, strips.dtype) == (whole.pixels.shape, whole.pixels.dtype)
    found = [strips[0:7], strips[7:7], strips[7:256], strips[256:300]]
    assert [len(rows) for rows in found] == [7, 0, 249, 44]
    assert np.array_equal(np.concatenate(found), whole.pixels)
    for fact in ("icc", "exif", "xmp", "colour", "density", "bit_depth", "notes"):
        assert getattr(strips.about, fact) == getattr(whole, fact)


def test_strips_of_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not compressed is taken in portions; another is as large as the picture."""
    monkeypatch.setattr("latens.io._strips._MOST_ROWS", 100)
    assert open_strips(io.BytesIO(FILES["one strip, deflate"]), 1 << 20) is None
    for name in ("one strip", "one strip, big-endian"):
        data = FILES[name]
        assert np.array_equal(_drained(data), read_image(data).pixels)
        strips = open_strips(io.BytesIO(data), 1 << 20)
        assert strips is not None
        assert len(next(strips._parts)) < 300
    # Sizes that contradict each other are for who reads it whole.
    row = 210 * 3
    data = bytearray(FILES["one strip"])
    place = data.index(struct.pack("<HHII", 279, 4, 1, 300 * row))
    struct.pack_into("<I", data, place + 8, 300 * row - 1)
    assert open_strips(io.BytesIO(data), 1 << 20) is None


def test_all_filters_of_png() -> None:
    """Pillow's own writer takes each of them somewhere."""
    file = io.BytesIO()
    PilImage.fromarray(_pixels()).save(file, "PNG", dpi=(300, 300))
    strips = open_strips(file, 1 << 20)
    assert strips is not None
    assert np.array_equal(strips[0:300], _pixels())
    assert strips.about.density == read_image(file.getvalue()).density


def test_metadata_come_along() -> None:
    image = Image(
        _pixels(), exif=b"II*\0\x08\0\0\0\0\0\0\0\0\0", xmp=b"<x/>", density=((300, 1), (300, 1), "inch")
    )
    for kind in ("png", "tiff"):
        data = _saved(image, kind)
        strips, whole = open_strips(io.BytesIO(data), 1 << 20), read_image(data)
        assert strips is not None
        assert (strips.about.xmp, strips.about.exif) == (whole.xmp, whole.exif)
        assert strips.about.density == whole.density


@pytest.mark.parametrize(
    "data",
    [
        _saved(Image(_pixels(), alpha=_pixels()[..., 0].copy()), "png"),
        _saved(Image(_pixels(), alpha=_pixels()[..., 0].copy()), "tiff"),
        _saved(Image(_pixels()), "webp"),
        _tiff(_pixels(), planarconfig="separate") if False else b"P3\n1 1\n255\n1 2 3\n",
        b"P6\n" + b"#" * 9000,
        b"\x89PNG\r\n\x1a\n\0\0",
        b"II*\0\x08\0\0\0",
        b"",
    ],
    ids=["alpha in PNG", "alpha in TIFF", "WebP", "text", "comments", "cut PNG", "cut TIFF", "nothing"],
)
def test_others_are_read_whole(data: bytes) -> None:
    try:
        assert open_strips(io.BytesIO(data), 1 << 20) is None
    except ImageError:  # found to be damaged at once
        with pytest.raises(ImageError):
            read_image(data)


@pytest.mark.parametrize(
    "name", ["png uint8 3", "png uint16 1", "ppm uint8 3", "tiff uint8 3", "tiles", "one strip"]
)
def test_damage(name: str) -> None:
    data = FILES[name]
    for end in (len(data) // 2, len(data) * 9 // 10):
        with pytest.raises(ImageError):
            _drained(data[:end])
    with pytest.raises(LimitError, match="above the limit of 1000"):
        open_strips(io.BytesIO(data), 1000)


def test_a_png_whose_pixels_were_altered() -> None:
    data = bytearray(FILES["png uint8 3"])
    data[len(data) // 2] ^= 4
    with pytest.raises(ImageError):
        _drained(bytes(data))


def _drained(data: bytes) -> np.ndarray:
    strips = open_strips(io.BytesIO(data), 1 << 20)
    if strips is None:
        return read_image(data).pixels
    return np.concatenate([strips[start : start + 30] for start in range(0, 300, 30)])


@pytest.mark.parametrize("kind", ["png", "tiff", "ppm"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("alpha", [False, True])
def test_what_is_written(kind: str, dtype: type[np.generic], alpha: bool, tmp_path: Path) -> None:
    if alpha and kind == "ppm":
        pytest.skip("it has none")
    pixels = _pixels(dtype)
    about = Image(
        pixels[:1], pixels[:1, :, 0] if alpha else None, density=((300, 1), (150, 1), "inch"), xmp=b"<x/>"
    )
    samples = np.concatenate([pixels, pixels[..., :1]], axis=2) if alpha else pixels

    def rows() -> Iterator[np.ndarray]:
        yield from (samples[:100], samples[100:101], samples[101:290], samples[290:])

    with (tmp_path / "out").open("wb") as file:
        notes = write_strips(file, kind, (210, 300), about, rows())
    found = read_image(tmp_path / "out")
    assert np.array_equal(found.pixels, pixels)
    assert (found.alpha is not None) == alpha
    if alpha:
        assert np.array_equal(found.alpha, pixels[..., 0])
    if kind == "ppm":
        assert "XMP" in notes[0]
    else:
        assert (notes, found.xmp) == ((), b"<x/>")
        assert found.density is not None
    assert replace(found, notes=()).bit_depth == about.bit_depth
