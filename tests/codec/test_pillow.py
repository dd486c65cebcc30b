"""The plug-in, through Pillow alone: what it opens, what it writes, and what it makes of damaged files."""

import io
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

import latens.pillow
from latens import format as ltn
from latens.codec import LosslessCodec
from latens.errors import LatensError, LimitError
from latens.io import Image as Picture

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'


def _photo(height: int = 150, width: int = 200, channels: int = 3) -> np.ndarray:
    down, across = np.mgrid[:height, :width]
    waves = [127 + 90 * np.sin(across / (9 + c) + c) * np.cos(down / (13 - c)) for c in range(channels)]
    return np.stack(waves, axis=2).astype(np.uint8)


def _saved(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "LTN", **options)
    return file.getvalue()


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)


@pytest.fixture
def truncated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)


def test_files_are_opened_without_being_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    exif[0x0112] = 6
    path = tmp_path / "photo.ltn"
    options = {"icc_profile": SRGB, "exif": exif, "xmp": XMP, "dpi": (300, 300)}
    Image.fromarray(_photo()).save(path, quality=40, **options)
    monkeypatch.setattr("latens.zoo.weights.load_released", None)  # as if there were no weights
    with Image.open(path) as image:
        assert (image.format, image.mode, image.size) == ("LTN", "RGB", (150, 200))  # turned
        assert image.get_format_mimetype() == "image/x-ltn"
        assert image.info["icc_profile"] == SRGB
        assert image.info["xmp"] == XMP
        assert image.info["dpi"] == (300, 300)
        assert image.getexif()[0x010F] == "Camera"
        assert image.getexif().get(0x0112, 1) == 1


def test_pixels_are_those_of_the_codec(tmp_path: Path) -> None:
    path = tmp_path / "photo.ltn"
    Image.fromarray(_photo()).save(path, quality=60)
    expected = np.asarray(latens.decode(path.read_bytes()))
    assert np.array_equal(np.asarray(Image.open(path)), expected)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(path.read_bytes()))), expected)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image.crop((3, 5, 70, 140))), expected[5:140, 3:70])
        beyond = np.asarray(image.crop((-2, -1, 10, 10)))  # as of any other file
    assert np.array_equal(beyond[1:, 2:], expected[:10, :10])
    assert not beyond[0].any()
    assert len(_saved(Image.fromarray(_photo()), target_size=1500)) <= 1500
    assert _saved(Image.fromarray(_photo()), quality=60) == path.read_bytes()


def _palette() -> Image.Image:
    image = Image.fromarray(_photo()).quantize(16)
    image.info["transparency"] = 3
    return image


@pytest.mark.parametrize(
    ("image", "mode"),
    [
        (Image.fromarray(_photo(channels=3)), "RGB"),
        (Image.fromarray(_photo(channels=4), "RGBA"), "RGBA"),
        (Image.fromarray(_photo(channels=1)[..., 0]), "L"),
        (Image.fromarray(_photo(channels=2), "LA"), "LA"),
        (Image.fromarray(_photo(channels=1)[..., 0] * np.uint16(257)), "I;16"),
        (Image.fromarray(_photo()).quantize(16), "RGB"),
        (_palette(), "RGBA"),
        (Image.fromarray(_photo(channels=1)[..., 0]).convert("1"), "L"),
    ],
    ids=["RGB", "RGBA", "L", "LA", "I;16", "P", "P and a transparent colour", "1"],
)
@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
def test_modes(image: Image.Image, mode: str) -> None:
    exact = Image.open(io.BytesIO(_saved(image, lossless=True)))
    assert exact.mode == mode
    expected = image if mode == image.mode else image.convert(mode)
    assert np.array_equal(np.asarray(exact), np.asarray(expected))
    near = Image.open(io.BytesIO(_saved(image, near_lossless=2)))
    colours = slice(None) if mode in ("L", "RGB", "I;16") else slice(-1)
    difference = np.asarray(near, np.int64) - np.asarray(expected, np.int64)
    assert np.abs(difference[..., colours] if difference.ndim == 3 else difference).max() <= 2
    lossy = Image.open(io.BytesIO(_saved(image, quality=30)))
    assert (lossy.mode, lossy.size) == (mode, image.size)
    lossy.load()
    assert lossy.mode == mode


def test_what_cannot_be_written_is_said() -> None:
    with pytest.raises(OSError, match="floating point"):
        _saved(Image.new("F", (4, 4)))
    with pytest.raises(OSError, match="speed is no option"):
        _saved(Image.new("RGB", (4, 4)), speed=3)
    with pytest.raises(LatensError, match="quality must be 0 to 100"):
        _saved(Image.new("RGB", (4, 4)), quality=101)
    with pytest.raises(ValueError, match="not several"):
        _saved(Image.new("RGB", (4, 4)), quality=10, target_size=100)


def test_metadata_can_be_left_out() -> None:
    image = Image.fromarray(_photo())
    image.info |= {"icc_profile": SRGB, "xmp": XMP}
    assert Image.open(io.BytesIO(_saved(image, lossless=True))).info["icc_profile"] == SRGB
    without = Image.open(io.BytesIO(_saved(image, lossless=True, icc_profile=None, xmp=b"")))
    assert "icc_profile" not in without.info
    assert "xmp" not in without.info


def test_a_draft_is_smaller() -> None:
    data = _saved(Image.fromarray(_photo(150, 201)), lossless=True)
    image = Image.open(io.BytesIO(data))
    assert image.draft("RGB", (45, 30)) == ("RGB", (0, 0, 201 / 4, 150 / 4))
    assert image.size == (51, 38)
    whole = np.asarray(Image.open(io.BytesIO(data)))
    assert np.array_equal(np.asarray(image)[3, 7], np.floor(whole[12:16, 28:32].mean((0, 1)) + 0.5))
    assert np.array_equal(np.asarray(image)[37, 50], np.floor(whole[148:, 200:].mean((0, 1)) + 0.5))
    assert image.draft("RGB", (10, 10)) is None  # loaded
    thumbnail = Image.open(io.BytesIO(data))
    thumbnail.thumbnail((50, 50))
    assert max(thumbnail.size) == 50


@pytest.mark.parametrize("content", [{"lossless": True}, {"quality": 20}], ids=["lossless", "by a model"])
def test_damage(content: dict[str, object]) -> None:
    data = _saved(Image.fromarray(_photo()), icc_profile=SRGB, **content)
    for end in (0, 2, 4, 10):
        with pytest.raises(UnidentifiedImageError):
            Image.open(io.BytesIO(data[:end]))
    for end in (40, len(data) // 2, len(data) - 1):
        with pytest.raises(OSError, match=r"ends? (inside|without)"):
            Image.open(io.BytesIO(data[:end])).load()
    with pytest.raises(OSError, match="1 bytes follow the END chunk"):
        Image.open(io.BytesIO(data + b"\0"))
    for place in range(30, len(data), 97):
        damaged = bytearray(data)
        damaged[place] ^= 16
        with pytest.raises(OSError):
            Image.open(io.BytesIO(damaged)).load()
        with pytest.raises(OSError):
            Image.open(io.BytesIO(damaged)).verify()
    Image.open(io.BytesIO(data)).verify()


def test_what_can_be_had_of_damaged_files_is_loaded_on_request(truncated: None) -> None:
    data = LosslessCodec().encode(Picture(np.tile(_photo(200, 200), (1, 21, 1))))
    whole = np.asarray(latens.decode(data))
    assert ltn.read_header(data).tile_count > 1
    image = Image.open(io.BytesIO(data[: len(data) * 2 // 3]))
    found = np.asarray(image)
    assert image.problems
    assert np.array_equal(found[:, :2048], whole[:, :2048])
    damaged = bytearray(data)
    damaged[-100] ^= 1  # found by decoding only
    image = Image.open(io.BytesIO(damaged))
    assert np.array_equal(np.asarray(image)[:, :2048], whole[:, :2048])
    with pytest.raises(OSError, match="nothing of the picture"):
        Image.open(io.BytesIO(data[:100])).load()


def _bomb(width: int, height: int) -> bytes:
    """A file of a few bytes that claims to be large."""
    header = ltn.Header.without_model(width=width, height=height, tile_size=65536)
    return ltn.write(ltn.Container(header, [ltn.Tile(0, b"\0")] * header.tile_count))


def test_bombs(small_limit: None) -> None:
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(_bomb(60_000, 60_000)))
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(_saved(Image.new("RGB", (40, 40)), lossless=True)))
    Image.open(io.BytesIO(_saved(Image.new("RGB", (20, 20)), lossless=True)))


def test_tiles_too_large_to_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(LimitError, match="above the limit of 4096"):
        Image.open(io.BytesIO(_bomb(60_000, 60_000))).crop((0, 0, 1, 1))


def test_metadata_bombs() -> None:
    import zlib

    data = _saved(Image.new("RGB", (4, 4)), lossless=True)
    start = len(data) - len(data[data.index(b"T", 4) :])
    payload = zlib.compress(bytes((16 << 20) + 1))
    chunk = b"i" + _varint(len(payload)) + payload
    chunk += struct.pack("<I", zlib.crc32(chunk))
    with pytest.raises(LimitError, match="inflates to more"):
        Image.open(io.BytesIO(data[:start] + chunk + data[start:]))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def test_a_video_is_no_image() -> None:
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(b"LTN\x01\x01" + bytes(100)))


def test_threads_share_an_image() -> None:
    data = _saved(Image.fromarray(_photo()), quality=50)
    expected = np.asarray(latens.decode(data))
    image = Image.open(io.BytesIO(data))
    found: list[bool] = []

    def work(number: int) -> None:
        box = (number, number, number + 40, number + 50)
        cropped = np.asarray(image.crop(box))
        found.append(np.array_equal(cropped, expected[number : number + 50, number : number + 40]))
        found.append(np.array_equal(np.asarray(image), expected))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 12
