"""Files of a model with drawn blocks: what is kept, where, and what damage does."""

import random
import zlib

import numpy as np
import pytest
from PIL import Image as PilImage
from typer.testing import CliRunner

import latens
from latens import format as ltn
from latens.cli.app import app
from latens.codec import ImageCodec, LosslessCodec, Target
from latens.codec import image as codec_module
from latens.codec.drawn import Loss, fill, look, loss, photographs
from latens.codec.picture import Picture
from latens.entropy_coding.lossless import encode_tiles, spread
from latens.errors import ChecksumError, CoderError, FormatError, ImageError, LatensError, VersionError
from latens.io import Image
from latens.metrics import ssimulacra2


def photograph(height, width, seed=0):
    y, x = np.mgrid[:height, :width]
    waves = 110 + 60 * np.sin(x / 23) * np.cos(y / 17)
    grain = np.random.default_rng(seed).normal(0, 6, (height, width, 3))
    return np.clip(waves[..., None] * (1, 0.9, 0.7) + grain, 0, 255).astype(np.uint8)


def text(height, width, seed=0):
    """Marks in rows on white, as of letters."""
    rng = np.random.default_rng(seed)
    marks = rng.integers(0, 2, (12, 7, 5)) * 255
    page = np.full((height, width), 255, np.uint8)
    for y in range(4, height - 8, 12):
        for x in range(4, width - 8, 7):
            page[y : y + 7, x : x + 5] = marks[rng.integers(12)]
    return np.repeat(page[..., None], 3, 2)


def page(height=256, width=320):
    """Text with a photograph in the blocks from (64, 64) to (192, 256)."""
    pixels = text(height, width)
    pixels[64:192, 64:256] = photograph(128, 192)
    return pixels


PHOTO = np.s_[64:192, 64:256]


@pytest.fixture(scope="module")
def codec() -> ImageCodec:
    return ImageCodec()


@pytest.fixture(scope="module")
def file(codec: ImageCodec) -> bytes:
    return codec.encode(Image(page()), 60, content="auto")


def test_text_is_kept_and_the_photograph_is_not(codec, file):
    pixels = page()
    decoded = codec.decode(file)[0].pixels
    outside = np.ones(pixels.shape[:2], bool)
    outside[PHOTO] = False
    assert np.array_equal(decoded[outside], pixels[outside])
    assert 20 < 20 * np.log10(255 / np.std(decoded[PHOTO].astype(float) - pixels[PHOTO])) < 45
    assert len(file) < len(codec.encode(Image(pixels), 60)) / 2
    assert len(file) < len(LosslessCodec().encode(Image(pixels))) / 2


def test_drawn_blocks_cost_the_model_next_to_nothing(codec, file):
    (tile,) = ltn.read(file).tiles
    alone = codec.encode(Image(page()[PHOTO]), 60)
    assert len(tile.stream) < len(alone) + 250  # and not the thousands that text takes


def test_photographs_stay_as_they_are(codec):
    for seed in range(2):
        pixels = photograph(200, 260, seed)
        pixels[:90, :90] = 255  # over-exposed
        image = Image(pixels)
        assert codec.encode(image, 70, content="auto") == codec.encode(image, 70)


def mixtures():
    rng = np.random.default_rng(3)
    yield "a page", page()
    yield "a page of grey", page()[..., :1]
    yield "half of each", np.concatenate([photograph(128, 256), text(128, 256)])
    yield "flat above grain", np.concatenate([np.full((320, 64, 3), 30, np.uint8), photograph(70, 64)])
    yield "a texture that comes again", np.tile(rng.integers(0, 256, (50, 60, 3)).astype(np.uint8), (4, 4, 1))
    yield "few colours", np.array([[9, 9, 9], [200, 30, 8]], np.uint8)[rng.integers(0, 2, (90, 150))]
    yield (
        "a smooth ramp",
        np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None, None], (200, 130, 3)).copy(),
    )
    yield "one pixel", np.full((1, 1, 3), 7, np.uint8)


@pytest.mark.parametrize(("name", "pixels"), list(mixtures()))
def test_no_file_is_larger_than_the_lossless_one(codec, name, pixels):
    alpha = (np.indices(pixels.shape[:2]).sum(0) // 9 * 9).astype(np.uint8)
    for image in (Image(pixels), Image(pixels, alpha)):
        exact = len(LosslessCodec().encode(image))
        for quality in (20, 100):
            assert len(codec.encode(image, quality, content="auto")) <= exact


def test_blocks_that_look_drawn_by_chance_stay_with_the_model(codec):
    """Of a photograph without grain, with an outline, many pixels repeat; the model codes them in fewer bits."""
    y, x = np.mgrid[:256, :320]
    waves = np.round(110 + 60 * np.sin(x / 23) * np.cos(y / 17) + 10 * np.sin(x / 3 + y / 5))
    pixels = np.repeat((waves // 3 * 3)[..., None], 3, 2).astype(np.uint8)
    pixels[(x > 70 + 20 * np.sin(y / 9)) & (x < 110 + 9 * np.sin(y / 4)) & (y < 120)] = 5
    seen = look(pixels)
    assert seen.doubt.any()
    assert not seen.sure.any()
    assert not seen.page
    image = Image(pixels)
    assert codec.encode(image, 70, content="auto") == codec.encode(image, 70)


def test_a_caption_in_a_photograph_is_kept(codec):
    pixels = photograph(320, 384)
    pixels[128:256, 64:192] = text(128, 128)
    assert not look(pixels).page
    decoded = codec.decode(codec.encode(Image(pixels), 70, content="auto"))[0].pixels
    assert np.array_equal(decoded[128:256, 64:192], text(128, 128))
    assert not np.array_equal(decoded[:128], pixels[:128])


def test_a_screenshot_has_no_model():
    data = latens.encode(text(200, 300))
    assert ltn.read_header(data).lossless
    assert np.array_equal(np.asarray(latens.decode(data)), text(200, 300))


def test_shortcuts_find_text_unless_a_model_is_named(file):
    named = latens.encode(page(), 60, model="latens-eye-1")
    assert ltn.read(latens.encode(page(), 60)).tiles[0].drawn
    assert not ltn.read(named).tiles[0].drawn
    assert not ltn.read(latens.encode(page(), 60, content="photo")).tiles[0].drawn


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_several_tiles_grey_and_sixteen_bits(codec, monkeypatch, dtype, channels):
    monkeypatch.setattr(codec_module, "_TILE", 128)
    pixels = page(200, 330)[..., :channels].astype(dtype) * dtype(1 if dtype == np.uint8 else 257)
    image = Image(np.ascontiguousarray(pixels), bit_depth=8 * pixels.itemsize)
    data = codec.encode(image, 60, content="auto")
    container = ltn.read(data)
    assert len({bool(tile.drawn) for tile in container.tiles}) >= 1
    assert sum(bool(tile.drawn) for tile in container.tiles) > 2
    decoded = codec.decode(data)[0].pixels
    assert np.array_equal(decoded[:64], pixels[:64])
    assert not np.array_equal(decoded[PHOTO], pixels[PHOTO])


def test_targets_are_met_with_the_photograph_alone(codec):
    data = codec.encode_to(Image(page()), Target(bytes=6500), content="auto")
    assert 0.98 * 6500 < len(data) <= 6500
    assert np.array_equal(codec.decode(data)[0].pixels[:64], page()[:64])
    drawing = Image(text(128, 192))
    assert ltn.read_header(codec.encode_to(drawing, Target(bytes=5000), content="auto")).lossless
    assert ltn.read_header(codec.encode_to(drawing, Target(ssimulacra2=60), content="auto")).lossless


def test_photographs_of_a_page_are_cut_out_to_the_pixel(codec):
    pixels, inside = text(300, 400), np.s_[75:213, 91:302]
    pixels[inside] = photograph(138, 211)
    outside = np.ones(pixels.shape[:2], bool)
    outside[inside] = False
    seen = look(pixels)
    assert seen.page
    assert np.array_equal(seen.photo, ~outside)
    image = Image(pixels)
    data = codec.encode(image, 60, content="auto")
    (tile,) = ltn.read(data).tiles
    assert tile.drawn[0] == 3
    decoded = codec.decode(data)[0].pixels
    assert np.array_equal(decoded[outside], pixels[outside])
    assert not np.array_equal(decoded[inside], pixels[inside])
    alone = codec.encode(Image(text(300, 400)), 60, content="auto")
    cut = codec.encode(Image(np.ascontiguousarray(pixels[inside])), 60)
    assert len(data) < 1.3 * (len(alone) + len(cut))


def test_no_photographs_in_text_or_in_nothing():
    for pixels in (text(200, 300), soft(), np.full((70, 3, 3), 9, np.uint8), np.zeros((1, 1, 1), np.uint8)):
        assert not look(pixels).photo.any()
    rng = np.random.default_rng(1)
    for size in ((16, 16), (40, 70)):
        noise = rng.integers(0, 1 << 24, size).astype(np.uint32)
        assert photographs(noise).all()


def test_the_fill_is_smooth_and_leaves_the_rest_alone():
    pixels = page()
    drawn = np.ones((4, 5), bool)
    drawn[1:3, 1:4] = False
    inside = spread(drawn, 256, 320)
    filled = fill(pixels, inside)
    assert np.array_equal(filled[PHOTO], pixels[PHOTO])
    steps = np.abs(np.diff(filled.astype(int), axis=1)).max(axis=2)
    assert steps[inside[:, 1:] & inside[:, :-1]].max() < 40
    assert (fill(pixels, np.ones((256, 320), bool)) == 128).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (65, 1), (64, 64), (63, 130)])
def test_odd_sizes_are_looked_at_and_filled(size):
    pixels = text(*size)
    seen = look(pixels)
    assert seen.sure.shape == (-(-size[0] // 64), -(-size[1] // 64))
    assert seen.photo.shape == size
    drawn = np.zeros(size, bool)
    drawn[0, 0] = True
    assert fill(pixels, drawn).shape == pixels.shape


@pytest.mark.parametrize("tile", [128, 1024])
def test_parts_and_small_copies_have_drawn_blocks(codec, monkeypatch, tmp_path, tile):
    monkeypatch.setattr(codec_module, "_TILE", tile)
    pixels = page(200, 330)
    path = tmp_path / "page.ltn"
    path.write_bytes(codec.encode(Image(pixels), 60, content="auto"))
    whole = codec.decode(path.read_bytes())[0].pixels
    picture = Picture(ltn.PathSource(path))
    assert np.array_equal(picture.image().pixels, whole)
    for box in ((0, 0, 330, 64), (50, 60, 200, 180), (129, 100, 131, 200), (300, 190, 330, 200)):
        left, top, right, bottom = box
        assert np.array_equal(picture.image(box).pixels, whole[top:bottom, left:right])
    for scale in (2, 4, 8):
        small = picture.image(scale=1 / scale).pixels
        area = pixels[: 64 // scale * scale, : 64 // scale * scale].astype(int)
        means = area.reshape(64 // scale, scale, 64 // scale, scale, 3).mean((1, 3))
        assert np.abs(small[: 64 // scale, : 64 // scale] - means).max() <= 0.5


def test_info_tells_the_blocks_and_paints_them(file, tmp_path):
    (tmp_path / "page.ltn").write_bytes(file)
    run = CliRunner().invoke(app, ["info", str(tmp_path / "page.ltn"), "--map", str(tmp_path / "map.png")])
    assert run.exit_code == 0, run.output
    assert "Drawn blocks       14 of 20" in run.output
    painted = np.asarray(PilImage.open(tmp_path / "map.png"))
    assert np.array_equal(painted[:64], page()[:64])
    assert (painted[PHOTO] == 128).all()


def test_alpha_is_coded_without_loss_by_the_lossless_coder(codec):
    alpha = text(256, 320)[..., 0]
    data = codec.encode(Image(page(), alpha), 60, content="auto")
    container = ltn.read(data)
    assert container.alpha is None
    assert np.array_equal(codec.decode(data)[0].alpha, alpha)
    assert sum(map(len, container.alpha_tiles)) < len(zlib.compress(alpha.tobytes(), 9))


# ---- damage


def rewritten(file, **changes):
    """The file with another first tile."""
    container = ltn.read(file)
    container.tiles[0] = container.tiles[0]._replace(**changes)
    return ltn.write(container)


def test_blocks_that_are_not_what_was_coded(codec, file):
    pixels = page()
    (tile,) = ltn.read(file).tiles
    with pytest.raises(ChecksumError, match="drawn blocks have checksum"):
        codec.decode(rewritten(file, drawn_checksum=tile.drawn_checksum ^ 1))
    # Blocks that claim to be lossless and are not: sound in themselves, but not the picture that was coded.
    pixels[10, 10] ^= 1
    part = np.ones((4, 5), bool)
    part[1:3, 1:4] = False
    (stream,) = encode_tiles(pixels, 1024, part=part)
    false = np.where(spread(part, 256, 320)[..., None], pixels, 0).astype(np.uint8)
    with pytest.raises(ChecksumError, match="decoded picture"):
        codec.decode(rewritten(file, drawn=stream, drawn_checksum=zlib.crc32(false.tobytes())))


def test_hostile_maps_of_blocks(codec, file):
    (tile,) = ltn.read(file).tiles
    rng = random.Random(1)
    for _ in range(60):
        data = bytearray(tile.drawn)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(min(len(data), 40))] = rng.randrange(256)
        with pytest.raises(LatensError):
            codec.decode(rewritten(file, drawn=bytes(data)))
    with pytest.raises(VersionError, match="newer"):
        codec.decode(rewritten(file, drawn=b"\4" + tile.drawn[1:]))
    with pytest.raises(CoderError):
        codec.decode(rewritten(file, drawn=tile.drawn[:-1]))


def test_what_is_sound_is_saved(codec, file):
    (tile,) = ltn.read(file).tiles
    broken = ltn.read(rewritten(file, drawn_checksum=tile.drawn_checksum ^ 1))
    image, problems = codec.decode(broken, on_error="conceal")
    assert "drawn blocks" in problems[0]
    assert not np.array_equal(image.pixels[:64], page()[:64])


def test_a_lossless_file_has_no_drawn_blocks():
    data = LosslessCodec().encode(Image(text(64, 64)))
    with pytest.raises(FormatError, match="lossless file"):
        rewritten(data, drawn=b"\1")


def test_a_drawn_tile_has_drawn_blocks(file):
    (tile,) = ltn.read(file).tiles
    payload = tile.checksum.to_bytes(4, "little") + b"\0" + bytes(4)
    chunk = b"D" + bytes([len(payload)]) + payload
    header_size = file.index(b"D", 20)
    bad = file[:header_size] + chunk + zlib.crc32(chunk).to_bytes(4, "little")
    with pytest.raises(FormatError, match="no drawn blocks"):
        ltn.read(bad)


def test_chunks_of_files_say_that_they_need_a_reader_who_knows_them(file):
    assert ltn.describe(file).chunks[0].name == "drawn tile"
    assert not file[file.index(b"D", 20)] & 0x20  # critical: others would show a picture with holes


def soft(size=256):
    """Rings with soft edges on white."""
    y, x = np.mgrid[:size, :size]
    picture = np.full((size, size, 3), 255.0)
    for i in range(9):
        distance = np.abs(np.hypot(y - 23 * i, x - 29 * (i % 5) - 40) - 18)
        picture += np.clip(2.6 - distance, 0, 1)[..., None] * (np.array([25 * i, 60, 200]) - picture)
    return np.round(picture).astype(np.uint8)


def test_soft_edges_are_kept_as_well_as_the_quality_says(codec):
    pixels = soft()
    exact = LosslessCodec().encode(Image(pixels))
    assert codec.encode(Image(pixels), 100, content="auto") == exact
    sizes = []
    for quality, least in ((90, 95), (70, 88)):
        data = codec.encode(Image(pixels), quality, content="auto")
        header = ltn.read_header(data)
        decoded = codec.decode(data)[0].pixels
        assert header.lossless
        assert header.near == np.abs(decoded.astype(int) - pixels).max() > 0
        assert ssimulacra2(pixels, decoded) > least
        sizes.append(len(data))
    assert sizes[1] < sizes[0] < len(exact)
    assert sizes[1] < 0.75 * len(exact)


def test_what_has_no_soft_edges_is_kept_to_the_bit():
    assert loss(text(200, 300), 30) == Loss()
    assert loss(soft().astype(np.uint16) * np.uint16(257), 70) == Loss()
    assert loss(soft()[:5], 70) == Loss()  # too small to be measured
    assert loss(soft(), 70, np.zeros((4, 4), bool)) == Loss()
    found = loss(soft(), 70)
    assert found.slack == 32
    with pytest.raises(ImageError, match="slack"):
        LosslessCodec().encode(Image(soft().astype(np.uint16)), slack=1)
