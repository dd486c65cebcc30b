"""Lossless files, as users make and read them."""

import io
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image as PilImage

import latens
from latens import format as ltn
from latens.codec import LosslessCodec
from latens.codec.lossless import alpha_of, encode_alpha, smaller
from latens.errors import ChecksumError, CoderError, FormatError, ImageError, TargetError, VersionError
from latens.io import Image, read_image, write_image


def samples(height, width, channels, dtype=np.uint8):
    y, x = np.mgrid[:height, :width]
    planes = [(x * (3 + c) + y * y) // 5 for c in range(channels)]
    return (np.stack(planes, 2) * (1 if dtype == np.uint8 else 257)).astype(dtype)


def coded(image, **options):
    data = LosslessCodec().encode(image, **options)
    return data, LosslessCodec().decode(ltn.read(data))[0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 16])
def test_everything_is_kept(channels, alpha, bits):
    dtype = np.uint8 if bits == 8 else np.uint16
    image = Image(
        samples(20, 31, channels, dtype),
        samples(20, 31, 1, dtype)[..., 0] if alpha else None,
        icc=b"profile",
        exif=b"II*\0\x08\0\0\0\0\0\0\0\0\0",
        xmp=b"<x/>",
        density=((72, 1), (72, 1), "inch"),
        bit_depth=bits,
    )
    data, back = coded(image)
    assert np.array_equal(back.pixels, image.pixels)
    assert back.pixels.dtype == dtype
    assert (back.alpha is None) == (not alpha)
    if alpha:
        assert np.array_equal(back.alpha, image.alpha)
    for name in ("icc", "exif", "xmp", "density", "bit_depth", "colour"):
        assert getattr(back, name) == getattr(image, name)
    header = ltn.read_header(data)
    assert (header.lossless, header.alpha, header.near) == (True, alpha, 0)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_files_of_every_kind(mode, tmp_path):
    grey = PilImage.fromarray(samples(12, 17, 1)[..., 0])
    picture = grey.convert("RGB").quantize(7) if mode == "P" else grey.convert(mode)
    picture.save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    _, back = coded(image)
    write_image(back, tmp_path / "b.png")
    assert PilImage.open(tmp_path / "b.png").convert("RGBA").tobytes() == picture.convert("RGBA").tobytes()


def test_the_smallest_file_is_that_of_the_format():
    data, _ = coded(Image(np.full((1, 1, 1), 7, np.uint8)))
    text = "4C544E01 060101 0004".replace(" ", "")
    assert data[:9].hex().upper() == text
    assert data[9:13] == zlib.crc32(data[:9]).to_bytes(4, "little")
    assert (
        data[13:]
        .hex()
        .upper()
        .startswith("5406" + zlib.crc32(b"\7").to_bytes(4, "little").hex().upper() + "0007")
    )


def test_near_lossless_is_bounded_and_smaller():
    noisy = np.random.default_rng(0).normal(128, 6, (64, 64, 3)).astype(np.uint8)
    exact, _ = coded(Image(noisy))
    near, back = coded(Image(noisy), near=3)
    assert np.abs(back.pixels.astype(int) - noisy).max() <= 3
    assert len(near) < 0.7 * len(exact)
    assert ltn.read_header(near).near == 3


def test_tiles_are_lost_alone():
    image = Image(samples(2100, 2300, 1))
    data, back = coded(image)
    assert np.array_equal(back.pixels, image.pixels)
    container = ltn.read(data)
    assert len(container.tiles) == 4
    container.tiles[1] = ltn.Tile(container.tiles[1].checksum, b"\1\0")
    container.tiles[2] = None
    with pytest.raises(CoderError, match="tile 1"):
        LosslessCodec().decode(container)
    found, problems = LosslessCodec().decode(container, on_error="conceal")
    assert any("tile 1" in problem for problem in problems)
    assert np.array_equal(found.pixels[:2048, :2048], image.pixels[:2048, :2048])
    assert not found.pixels[:2048, 2048:].any()


def test_damage_is_found():
    image = Image(samples(30, 30, 3))
    container = ltn.read(LosslessCodec().encode(image))
    tile = container.tiles[0]
    wrong = replace(container, tiles=[ltn.Tile(tile.checksum ^ 1, tile.stream)])
    with pytest.raises(ChecksumError, match="tile 0"):
        LosslessCodec().decode(wrong)
    newer = replace(container, tiles=[ltn.Tile(tile.checksum, b"\x07" + tile.stream[1:])])
    with pytest.raises(VersionError, match="newer"):
        LosslessCodec().decode(newer)
    with pytest.raises(FormatError, match="nothing"):
        LosslessCodec().decode(wrong, on_error="conceal")


def test_every_changed_bit_is_an_error():
    data = bytearray(LosslessCodec().encode(Image(samples(5, 6, 1))))
    for position in range(8 * len(data)):
        data[position // 8] ^= 1 << position % 8
        with pytest.raises(latens.LatensError):
            LosslessCodec().decode(ltn.read(bytes(data)))
        data[position // 8] ^= 1 << position % 8


def test_a_lossless_file_has_no_chunk_of_alpha():
    container = ltn.read(LosslessCodec().encode(Image(samples(5, 6, 1))))
    container.alpha_tiles = encode_alpha(np.zeros((5, 6), np.uint8), 1024)
    with pytest.raises(FormatError, match="alpha"):
        ltn.write(container)


@pytest.mark.parametrize("bits", [8, 16])
def test_alpha_of_files_of_models(bits):
    """Both ways of the format: tiles, and a row filter with zlib, which is the one that is written."""
    dtype = np.uint8 if bits == 8 else np.uint16
    alpha = samples(70, 100, 1, dtype)[..., 0]
    header = ltn.Header(
        width=100,
        height=70,
        model="t",
        entropy_id="0" * 8,
        weights_id="0" * 8,
        quality=0,
        bit_depth=bits,
        tile_size=64,
    )
    tiles = [ltn.Tile(0, b"")] * 4
    new = ltn.write(ltn.Container(header, tiles, alpha_tiles=encode_alpha(alpha, 64)))
    old = ltn.write(ltn.Container(header, tiles, alpha.astype(f"<u{bits // 8}").tobytes()))
    for data in (new, old):
        assert np.array_equal(alpha_of(ltn.read(data)), alpha)
    container = ltn.read(new)
    container.alpha_tiles[1] = b"\1"
    with pytest.raises(CoderError, match="alpha"):
        alpha_of(ltn.read(ltn.write(container)))


def test_shortcuts(tmp_path):
    pixels = samples(16, 24, 3)
    data = latens.encode(pixels, lossless=True)
    assert np.array_equal(np.asarray(latens.decode(data)), pixels)
    latens.save(pixels, tmp_path / "a.ltn", lossless=True)
    assert np.array_equal(np.asarray(latens.open(tmp_path / "a.ltn")), pixels)
    near = np.asarray(latens.decode(latens.encode(pixels, near_lossless=2))).astype(int)
    assert np.abs(near - pixels).max() <= 2
    with pytest.raises(TargetError, match="lossless"):
        latens.encode(pixels, 50, lossless=True)
    for wish in ({"model": "t"}, {"tune": "eye"}, {"target_size": 500}):
        with pytest.raises(TargetError, match="lossless"):
            latens.encode(pixels, content="drawn", **wish)
    assert latens.encode(pixels, content="drawn") == LosslessCodec().encode(Image(pixels), content="drawn")
    assert latens.encode(pixels, lossless=True) == LosslessCodec().encode(Image(pixels))
    with pytest.raises(ImageError, match="content"):
        latens.encode(pixels, content="text")
    with pytest.raises(ImageError, match="largest error"):
        latens.encode(pixels, near_lossless=256)


def test_drawings_go_without_loss_where_that_is_smaller():
    flat = np.full((64, 96, 3), 255, np.uint8)
    flat[10:20, 10:80] = 30
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    exact = LosslessCodec().encode(Image(flat))
    drawn = np.ones((1, 2), bool)
    assert smaller(Image(flat), bytes(len(exact)), drawn) == exact
    assert smaller(Image(flat), bytes(len(exact)), None) == exact
    assert smaller(Image(flat), bytes(len(exact) - 1), drawn) == bytes(len(exact) - 1)
    photo = bytes(100)
    assert smaller(Image(noise), photo, None) is photo


def test_of_photographs_a_few_rows_are_coded(monkeypatch):
    seen = []
    encode = LosslessCodec.encode

    def counted(self, image, **options):
        seen.append(len(image.pixels))
        return encode(self, image, **options)

    grain = np.random.default_rng(0).normal(128, 9, (640, 96, 3)).astype(np.uint8)
    exact = len(encode(LosslessCodec(), Image(grain)))
    monkeypatch.setattr(LosslessCodec, "encode", counted)
    lossy = bytes(exact // 40)
    assert smaller(Image(grain), lossy, None) is lossy
    assert seen == [64]
    # The first rows are empty: they tell nothing, more of them do.
    grain[:90] = 0
    seen.clear()
    assert smaller(Image(grain), lossy, None) is lossy
    assert seen == [64, 128]
    # Where all of it is close, all of it decides.
    exact = len(encode(LosslessCodec(), Image(grain)))
    assert len(smaller(Image(grain), bytes(exact), None)) == exact
    assert seen[-1] == 640
    assert smaller(Image(grain), bytes(exact - 1), None) == bytes(exact - 1)


def repetitive():
    """Pictures in which something comes again that no single block shows."""
    rng = np.random.default_rng(5)
    texture = rng.integers(0, 256, (37, 41, 3)).astype(np.uint8)
    yield "a texture", np.tile(texture, (5, 5, 1))
    yield "two halves", np.tile(rng.integers(0, 256, (100, 300, 3)).astype(np.uint8), (2, 1, 1))
    yield "16 greys", np.arange(5, 245, 15, dtype=np.uint8)[rng.integers(0, 16, (200, 200))]
    yield "4 colours", rng.integers(0, 256, (4, 3)).astype(np.uint8)[rng.integers(0, 4, (200, 200))]
    yield "single bits", (rng.integers(0, 2, (200, 200)) * 255).astype(np.uint8)
    yield "noise", rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    yield "one pixel", np.full((1, 1, 3), 9, np.uint8)
    yield "flat", np.full((300, 300, 3), 9, np.uint8)


@pytest.mark.parametrize(("name", "pixels"), list(repetitive()))
def test_no_file_is_larger_than_its_png(name, pixels, tmp_path):
    path = tmp_path / "a.png"
    PilImage.fromarray(pixels).save(path, optimize=True)
    assert len(latens.encode(path, lossless=True)) <= path.stat().st_size


@pytest.mark.parametrize("colours", [2, 16, 256])
def test_no_file_is_larger_than_its_png_of_a_palette(colours, tmp_path):
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:200, :300]
    waves = 110 + 70 * np.sin(x / 23) * np.cos(y / 17)
    grain = np.clip(waves[..., None] * (1, 0.9, 0.7) + rng.normal(0, 3, (200, 300, 3)), 0, 255)
    path = tmp_path / "a.png"
    PilImage.fromarray(grain.astype(np.uint8)).quantize(colours).save(path, optimize=True)
    assert len(latens.encode(path, lossless=True)) <= path.stat().st_size


def test_what_is_larger_than_its_png_gets_a_second_try(tmp_path):
    path = tmp_path / "a.png"
    rng = np.random.default_rng(1)
    grain = np.clip(rng.normal(128, 9, (256, 320, 1)) + np.array([0, 5, 9]), 0, 255).astype(np.uint8)
    PilImage.fromarray(grain).save(path)
    image = read_image(path)
    assert image.png_bytes == path.stat().st_size
    PilImage.fromarray(grain).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif").png_bytes == 0
    first, second = (LosslessCodec().encode(image, effort=effort) for effort in (1, 2))
    assert len(second) < len(first) < image.png_bytes
    assert LosslessCodec().encode(replace(image, png_bytes=len(first))) == first
    assert LosslessCodec().encode(replace(image, png_bytes=len(first) - 1)) == second


def test_who_asks_for_nothing_gets_the_smaller_file():
    flat = np.full((64, 96, 3), 255, np.uint8)
    assert ltn.read_header(latens.encode(flat)).lossless
    assert not ltn.read_header(latens.encode(flat, content="photo")).lossless


def test_a_picture_of_noise_hardly_grows():
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3)).astype(np.uint8)
    assert len(LosslessCodec().encode(Image(noise))) <= 1.01 * noise.nbytes


def test_a_file_without_a_model_says_so():
    data = LosslessCodec().encode(Image(samples(5, 6, 1)))
    fields = dict(ltn.describe(data).fields)
    assert fields["Coding"] == "lossless"
    assert ltn.load(io.BytesIO(data)) == data
    header = ltn.Header(width=1, height=1, model="t", entropy_id="0" * 8, weights_id="0" * 8, quality=0)
    with pytest.raises(FormatError, match="not lossless"):
        LosslessCodec().decode(ltn.Container(header, [None]))
