"""Images to files and back: every shape, seams, identities, damage, hostile weights and headers."""

import dataclasses
import math
import resource
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image as PilImage

import latens
import tiny
from latens import format as ltn
from latens.codec import ImageCodec
from latens.codec import image as codec_module
from latens.convert import effort as effort_module
from latens.convert.effort import refine
from latens.errors import (
    ChecksumError,
    CoderError,
    FormatError,
    ImageError,
    LatensError,
    LimitError,
    ShapeError,
    UnknownModelError,
    WrongWeightsError,
)
from latens.io import Image
from latens.losses import EYE, Mixture
from latens.runtime import set_threads
from latens.runtime.picture import PictureModel
from latens.runtime.released import ReleasedPictures
from latens.zoo import DEFAULT_MODEL, card


@pytest.fixture(scope="module")
def codec(tiny_model: ReleasedPictures) -> ImageCodec:
    return ImageCodec(tiny_model)


@pytest.fixture
def threads() -> Iterator[None]:
    yield
    set_threads(None)


def there_and_back(codec: ImageCodec, image: Image, quality: float = 50.0) -> Image:
    decoded, problems = codec.decode(ltn.read(codec.encode(image, quality)))
    assert problems == ()
    return decoded


def psnr(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    mse = np.square(a.astype(float) - b).mean()
    return 10 * math.log10(255**2 / max(float(mse), 1e-9))


# ---- what goes in comes out


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 77), (63, 65), (64, 64), (65, 1), (1025, 30), (200, 136)])
def test_every_size_comes_back(codec: ImageCodec, size: tuple[int, int], channels: int) -> None:
    image = Image(tiny.picture(*size, channels))
    decoded = there_and_back(codec, image, 80)
    assert decoded.pixels.shape == (*size, channels)
    assert psnr(decoded.pixels, image.pixels) > 26
    assert decoded.alpha is decoded.icc is decoded.exif is decoded.xmp is None


@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_and_metadata_pass_through_unchanged(codec: ImageCodec, channels: int) -> None:
    rng = np.random.default_rng(0)
    alpha = rng.integers(0, 256, (33, 70), dtype=np.uint8)
    metadata = {"icc": rng.bytes(3000), "exif": b"II*\0" + rng.bytes(90), "xmp": b"<x:xmpmeta/>"}
    decoded = there_and_back(codec, Image(tiny.picture(33, 70, channels), alpha, **metadata))
    assert decoded.alpha is not None
    np.testing.assert_array_equal(decoded.alpha, alpha)
    assert {name: getattr(decoded, name) for name in metadata} == metadata
    empty = there_and_back(codec, Image(tiny.picture(33, 70), icc=b"", exif=b"", xmp=b""))
    assert empty.icc is empty.exif is empty.xmp is None


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [10, 16])
def test_deep_pictures_keep_their_gradients(codec: ImageCodec, channels: int, bits: int) -> None:
    """A ramp of less than one step of 8 bits in 40 pixels, and alpha, colour and density beside it."""
    ramp = np.linspace(20_000, 30_000, 1600).astype(np.uint16)
    pixels = np.repeat(np.broadcast_to(ramp, (64, 1600))[..., None], channels, axis=2)
    alpha = np.random.default_rng(0).integers(0, 65536, (64, 1600), np.uint16)
    image = Image(pixels, alpha, colour=(9, 16, 0, 1), density=((300, 1), (72, 1), "inch"), bit_depth=bits)
    decoded = there_and_back(codec, image, 100)
    assert decoded.pixels.dtype == np.uint16
    assert decoded.pixels.shape == pixels.shape
    assert len(np.unique(decoded.pixels)) > 1000  # an 8-bit picture has 40 in this range
    assert psnr(decoded.pixels / 257, pixels / 257) > 26
    assert decoded.alpha is not None
    np.testing.assert_array_equal(decoded.alpha, alpha)
    assert (decoded.colour, decoded.density, decoded.bit_depth) == (image.colour, image.density, bits)


def test_deep_pictures_are_scaled_like_others(codec: ImageCodec) -> None:
    pixels = tiny.picture(70, 90)
    shallow = there_and_back(codec, Image(pixels), 90)
    deep = there_and_back(codec, Image(pixels.astype(np.uint16) * 257), 90)
    assert np.abs(deep.to_8_bits().pixels.astype(int) - shallow.pixels).max() <= 1


def test_pixels_may_come_in_any_layout(codec: ImageCodec) -> None:
    pixels = tiny.picture(80, 50)
    turned = np.asfortranarray(pixels)
    frozen = pixels.copy()
    frozen.flags.writeable = False
    mirrored = pixels[::-1, ::-1][::-1, ::-1]
    files = {codec.encode(Image(p)) for p in (pixels, turned, frozen, mirrored)}
    assert len(files) == 1


@pytest.mark.parametrize(
    ("quality", "level"),
    [(0, 0), (100, 65535), (100.0, 65535), (0.0001, 0), (50, 32768), (33.3, 21823), (np.float32(25), 16384)],
)
def test_quality_becomes_the_internal_one(codec: ImageCodec, quality: float, level: int) -> None:
    data = codec.encode(Image(tiny.picture(8, 8)), quality)
    assert ltn.read_header(data).quality == level


@pytest.mark.parametrize("quality", [-1e-9, 100.0001, math.nan, math.inf, -math.inf, 1e400])
def test_quality_out_of_range_is_refused(codec: ImageCodec, quality: float) -> None:
    with pytest.raises(ImageError, match="quality must be 0 to 100"):
        codec.encode(Image(tiny.picture(8, 8)), quality)


def test_more_quality_is_more_bytes_and_less_error(codec: ImageCodec) -> None:
    image = Image(tiny.picture(128, 192))
    files = [codec.encode(image, q) for q in (0, 25, 50, 75, 100)]
    assert sorted(map(len, files)) == [len(f) for f in files]
    errors = [psnr(codec.decode(ltn.read(f))[0].pixels, image.pixels) for f in (files[0], files[2])]
    assert errors[0] + 1 < errors[1]


def test_table_sets_of_z_are_chosen_by_integers(codec: ImageCodec) -> None:
    """As the network does it in floating point, for each of the 65,536 levels."""
    nearest = codec.model.base.nearest_knot(torch.arange(65536) / 65535).tolist()
    assert [codec.model.model.knot(level) for level in range(65536)] == nearest


# ---- symbols are the same on both sides, always


def symbols(codec: ImageCodec, data: bytes) -> list[tuple[bytes, bytes]]:
    """z and y of each tile."""
    container = ltn.read(data)
    header = container.header
    result = []
    for tile, rect in zip(container.tiles, header.tiles(), strict=True):
        assert tile is not None
        width, height = ltn.coded_size(rect.width, rect.height)
        found = codec.model.model.decode(
            tile.stream, (height // 64, width // 64), header.quality, header.skip, header.lanes
        )
        z, y = found.z, np.ascontiguousarray(found.y.transpose(2, 0, 1))
        assert ltn.symbol_checksum(z.data, y.data) == tile.checksum
        result.append((z.tobytes(), y.tobytes()))
    return result


def test_symbols_that_were_encoded_are_decoded(
    codec: ImageCodec, threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec_module, "_TILE", 128)
    set_threads(1)  # tiles in their order
    seen = []
    encode = PictureModel.encode

    def record(self: PictureModel, *args: Any) -> Any:
        result = encode(self, *args)
        seen.append((result[2].z.tobytes(), result[2].y.transpose(2, 0, 1).tobytes()))
        return result

    monkeypatch.setattr(PictureModel, "encode", record)
    data = codec.encode(Image(tiny.picture(150, 300)), 70)
    assert len(seen) == 6
    assert symbols(codec, data) == seen


def test_results_repeat_and_do_not_depend_on_threads(codec: ImageCodec, threads: None) -> None:
    image = Image(tiny.picture(130, 200))
    data = codec.encode(image, 60)
    assert codec.encode(image, 60) == data
    base, _ = codec.decode(ltn.read(data))
    results: dict[int, list[Any]] = {1: [], 2: [], 3: []}
    for count, result in results.items():
        set_threads(count)
        assert codec.encode(image, 60) == data
        result += symbols(codec, data)
        np.testing.assert_array_equal(codec.decode(ltn.read(data))[0].pixels, base.pixels)
    assert results[1] == results[2] == results[3]


def test_a_callers_torch_settings_do_not_matter(codec: ImageCodec) -> None:
    image = Image(tiny.picture(64, 100))
    data = codec.encode(image)
    base, _ = codec.decode(ltn.read(data))
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.autocast("cpu", torch.bfloat16), torch.device("meta"), torch.enable_grad():
            assert codec.encode(image) == data
            np.testing.assert_array_equal(codec.decode(ltn.read(data))[0].pixels, base.pixels)
    finally:
        torch.set_default_dtype(before)


def test_threads_of_python_can_share_a_codec(codec: ImageCodec) -> None:
    image = Image(tiny.picture(128, 128))
    data = codec.encode(image)
    results: list[bool] = []

    def work() -> None:
        ok = codec.encode(image) == data and codec.decode(ltn.read(data))[0].pixels.shape == (128, 128, 3)
        results.append(ok)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [True] * 4


# ---- tiles


@pytest.fixture
def tiled(codec: ImageCodec, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A file of 4 x 3 tiles."""
    monkeypatch.setattr(codec_module, "_TILE", 64)
    return codec.encode(Image(tiny.picture(150, 250)), 60)


def test_there_are_no_seams(codec: ImageCodec, tiled: bytes) -> None:
    """Pixels follow from all of y at once, whatever tiles it came in."""
    container = ltn.read(tiled)
    header = container.header
    assert header.tile_count == 12
    width, height = ltn.coded_size(header.width, header.height)
    entry = np.zeros((height // 16, width // 16, tiny.CONFIG.M), np.int16)
    for tile, rect in zip(container.tiles, header.tiles(), strict=True):
        assert tile is not None
        size = ltn.coded_size(rect.width, rect.height)[::-1]
        _, part = codec.model.decode(tile.stream, size, header.quality, header.skip, header.lanes)
        top, left = rect.y // 16, rect.x // 16
        entry[top : top + part.shape[0], left : left + part.shape[1]] = part
    scale = codec.model.model.factors["out_scale"].at(header.quality)
    whole = codec.model.model.networks["g_s"].run(entry, [scale], (8, 3))
    decoded = codec.decode(container)[0].pixels
    np.testing.assert_array_equal(decoded, whole[: header.height, : header.width])


@pytest.mark.parametrize("tile", [64, 128, 1024])
def test_tiles_are_analysed_as_the_whole_image_is(codec: ImageCodec, tile: int) -> None:
    pixels = tiny.picture(150, 250)
    padded = np.pad(pixels, ((0, 42), (0, 6), (0, 0)), mode="edge")
    whole = codec.model.model.networks["g_a"].run(padded, (), (8, 3))
    header = dataclasses.replace(ltn.read_header(codec.encode(Image(pixels))), tile_size=tile)
    parts = list(codec._features(pixels, header))
    assert len(parts) == header.tile_count
    for part, rect in zip(parts, header.tiles(), strict=True):
        top, left = rect.y // 16, rect.x // 16
        np.testing.assert_array_equal(part, whole[top : top + part.shape[0], left : left + part.shape[1]])


def test_a_lost_tile_changes_nothing_far_away(codec: ImageCodec, tiled: bytes) -> None:
    container = ltn.read(tiled)
    sound, _ = codec.decode(container)
    tile = container.tiles[5]
    assert tile is not None
    container.tiles[5] = ltn.Tile(tile.checksum ^ 1, tile.stream)
    with pytest.raises(ChecksumError, match="tile 5: its symbols have checksum"):
        codec.decode(container)
    saved, problems = codec.decode(container, on_error="conceal")
    assert len(problems) == 1
    assert problems[0].startswith("tile 5: ")
    changed = (saved.pixels != sound.pixels).any(axis=2)
    rect = container.header.tiles()[5]
    reach = 16 * tiny.CONFIG.synthesis_blocks[1] + 8 * tiny.CONFIG.synthesis_blocks[0]
    assert changed[rect.y : rect.y + 64, rect.x : rect.x + 64].mean() > 0.5
    changed[rect.y - reach : rect.y + 64 + reach, rect.x - reach : rect.x + 64 + reach] = False
    assert not changed.any()


def test_salvage_delivers_no_picture_when_there_is_none(codec: ImageCodec, tiled: bytes) -> None:
    """Neither when tiles are missing, nor when each of them turns out to be damaged."""
    container = ltn.read(tiled)
    missing = dataclasses.replace(container, tiles=[None] * 12, problems=("12 of 12 tiles are lost",))
    with pytest.raises(FormatError, match="nothing of the picture can be saved: 12 of 12 tiles are lost"):
        codec.decode(missing, on_error="conceal")
    damaged = [ltn.Tile(tile.checksum ^ 1, tile.stream) for tile in container.tiles if tile]
    with pytest.raises(FormatError, match="nothing of the picture can be saved: tile 0: its symbols"):
        codec.decode(dataclasses.replace(container, tiles=damaged), on_error="conceal")
    # One sound tile is something.
    one = dataclasses.replace(container, tiles=[*container.tiles[:1], *[None] * 11], problems=("lost",))
    assert codec.decode(one, on_error="conceal")[1] == ("lost",)


def test_altered_streams_never_decode(codec: ImageCodec) -> None:
    """With all checksums of the container right, as an attacker would leave them."""
    container = ltn.read(codec.encode(Image(tiny.picture(128, 128)), 60))
    tile = container.tiles[0]
    assert tile is not None
    rng = np.random.default_rng(0)
    for _ in range(80):
        stream = bytearray(tile.stream)
        kind = rng.integers(4)
        if kind == 0:
            stream[rng.integers(len(stream))] ^= 1 << rng.integers(8)
        elif kind == 1:
            del stream[rng.integers(len(stream)) :]
        elif kind == 2:
            stream += rng.bytes(int(rng.integers(1, 9)))
        else:
            stream[:] = rng.bytes(len(stream))
        container.tiles[0] = ltn.Tile(tile.checksum, bytes(stream))
        with pytest.raises((CoderError, ChecksumError), match="tile 0: "):
            codec.decode(container)


def test_a_file_that_only_claims_to_be_large_is_cheap(codec: ImageCodec) -> None:
    """2^28 pixels would take gigabytes; the first stream is wrong, and little is allocated before that is known."""
    header = dataclasses.replace(
        ltn.read_header(codec.encode(Image(tiny.picture(8, 8)))), width=16384, height=16384, lanes=8
    )
    tiles: list[ltn.Tile | None] = [ltn.Tile(0, bytes(40))] * header.tile_count
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((CoderError, ChecksumError), match="tile 0"):
        codec.decode(ltn.Container(header, tiles))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


# ---- the right model, or none


def with_header(data: bytes, **changes: Any) -> ltn.Container:
    container = ltn.read(data)
    container.header = dataclasses.replace(container.header, **changes)
    return container


def test_other_entropy_models_are_refused_by_name(codec: ImageCodec) -> None:
    container = with_header(codec.encode(Image(tiny.picture(8, 8))), entropy_id="01234567")
    own = codec.model.entropy_id[:8]
    for other_weights in (False, True):
        with pytest.raises(WrongWeightsError, match=f"01234567, tiny-1 at hand has {own}"):
            codec.decode(container, other_weights=other_weights, on_error="conceal")


def test_other_weights_are_refused_unless_the_user_insists(codec: ImageCodec) -> None:
    data = codec.encode(Image(tiny.picture(40, 40)))
    container = with_header(data, weights_id="89abcdef")
    own = codec.model.weights_id[:8]
    with pytest.raises(WrongWeightsError, match=f"89abcdef, tiny-1 at hand has {own}.*--other-weights"):
        codec.decode(container)
    decoded, _ = codec.decode(container, other_weights=True)
    np.testing.assert_array_equal(decoded.pixels, codec.decode(ltn.read(data))[0].pixels)


def test_unknown_models_are_refused(codec: ImageCodec) -> None:
    with pytest.raises(UnknownModelError, match="'tiny-1'; this release knows"):
        latens.decode(codec.encode(Image(tiny.picture(8, 8))))


def test_a_model_name_in_a_file_is_not_a_path(
    codec: ImageCodec, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_weights.parent)
    data = ltn.write(with_header(codec.encode(Image(tiny.picture(8, 8))), model=tiny_weights.name))
    with pytest.raises(UnknownModelError):
        latens.decode(data)
    assert latens.decode(data, model=tiny_weights.name).size == (8, 8)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"tile_size": 8192}, LimitError),
        ({"tile_size": 65536}, LimitError),
    ],
    ids=str,
)
def test_headers_that_cannot_be_honoured_are_refused(
    codec: ImageCodec, changes: dict[str, Any], error: type[LatensError]
) -> None:
    container = with_header(codec.encode(Image(tiny.picture(8, 8))), **changes)
    with pytest.raises(error):
        codec.decode(container)


def test_a_picture_that_is_too_large_for_a_file_is_refused_at_once(
    codec: ImageCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageCodec, "_features", lambda *_: pytest.fail("work was done"))
    with pytest.raises(LimitError, match="width"):
        codec.encode(Image(np.zeros((1, 65536, 1), np.uint8)))


# ---- the picture that was coded is the one that is decoded


def test_a_picture_that_differs_is_an_error(codec: ImageCodec) -> None:
    for pixels in (tiny.picture(70, 80), tiny.picture(9, 9, 1), tiny.picture(9, 9).astype(np.uint16) * 257):
        container = ltn.read(codec.encode(Image(pixels)))
        decoded, _ = codec.decode(container)
        stored = zlib.crc32(decoded.pixels.astype(decoded.pixels.dtype.newbyteorder("<")).tobytes())
        assert container.pixels == stored
        container.pixels = stored ^ 1
        with pytest.raises(ChecksumError, match=f"CRC-32 {stored:08x}, {stored ^ 1:08x} was stored"):
            codec.decode(container)
        saved, problems = codec.decode(container, on_error="conceal")
        np.testing.assert_array_equal(saved.pixels, decoded.pixels)
        assert len(problems) == 1
        container.pixels = None
        codec.decode(container)


def test_pictures_of_several_tiles_have_a_checksum_of_the_whole(codec: ImageCodec, tiled: bytes) -> None:
    container = ltn.read(tiled)
    assert container.pixels == zlib.crc32(codec.decode(container)[0].pixels.tobytes())


# ---- latens.encode and latens.decode


def test_python_functions_take_arrays_and_pillow_images(tiny_weights: Path) -> None:
    model = str(tiny_weights)
    pixels = tiny.picture(40, 50)
    files = {
        latens.encode(image, 30, model=model) for image in (pixels, PilImage.fromarray(pixels), Image(pixels))
    }
    (data,) = files
    for given in (data, bytearray(data), memoryview(data)):
        decoded = latens.decode(given, model=model)
        assert (decoded.mode, decoded.size) == ("RGB", (50, 40))
    grey = latens.decode(latens.encode(pixels[..., 0], model=model), model=model)
    assert (grey.mode, grey.size) == ("L", (50, 40))
    assert latens.encode(pixels[..., :1], model=model) == latens.encode(pixels[..., 0], model=model)
    assert latens.encode(pixels, 30, model=tiny_weights) == data
    assert latens.decode(data, model=tiny_weights).size == (50, 40)
    rgba = PilImage.fromarray(tiny.picture(9, 9, 4), "RGBA")
    rgba.info["icc_profile"] = b"x"
    again = latens.decode(latens.encode(rgba, model=model), model=model)
    assert again.mode == "RGBA"
    assert again.getchannel("A").tobytes() == rgba.getchannel("A").tobytes()


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (np.zeros((4, 4, 3)), ShapeError),
        (np.zeros((4, 4, 3), np.int16), ShapeError),
        (np.zeros(4, np.uint8), ShapeError),
        (np.zeros((4, 4, 2), np.uint8), ShapeError),
        (np.zeros((4, 4, 4), np.uint8), ShapeError),
        (np.zeros((1, 4, 4, 3), np.uint8), ShapeError),
        (np.zeros((0, 4, 3), np.uint8), ShapeError),
        (np.zeros((4, 0), np.uint8), ShapeError),
        ("photo.png", ImageError),
        (None, ImageError),
        (b"", ImageError),
    ],
    ids=str,
)
def test_what_is_no_image_is_refused(image: Any, error: type[LatensError], tiny_weights: Path) -> None:
    with pytest.raises(error):
        latens.encode(image, model=str(tiny_weights))


def test_paths_are_no_files() -> None:
    for wrong in ("photo.ltn", Path("photo.ltn"), [1, 2]):
        with pytest.raises(ShapeError, match=r"expected the bytes of a \.ltn file, got .*latens\.open"):
            latens.decode(wrong)  # type: ignore[arg-type]


def test_python_decode_is_limited(tiny_weights: Path) -> None:
    data = latens.encode(tiny.picture(40, 50), model=str(tiny_weights))
    with pytest.raises(LimitError, match="40"):
        latens.decode(data, model=str(tiny_weights), max_pixels=1999)
    assert latens.decode(data, model=str(tiny_weights), max_pixels=2000).size == (50, 40)
    with pytest.raises(FormatError):
        latens.decode(b"", model=str(tiny_weights))


# ---- the shipped model


@pytest.fixture(scope="module")
def shipped() -> ImageCodec:
    if not card(DEFAULT_MODEL).path.exists():
        pytest.skip("the default model's weights are not in this checkout")
    return ImageCodec()


def test_default_model_codes_a_picture(shipped: ImageCodec) -> None:
    pixels = tiny.picture(96, 160)
    sizes = []
    for quality, least in ((0, 18), (50, 24), (100, 30)):
        data = shipped.encode(Image(pixels), quality)
        decoded, _ = shipped.decode(ltn.read(data))
        assert psnr(decoded.pixels, pixels) > least
        sizes.append(len(data))
    assert sizes[0] < sizes[1] < sizes[2]
    overhead = ltn.describe(data).overhead
    assert overhead <= 48


# ---- effort


def cost(codec: ImageCodec, image: Image, data: bytes) -> float:
    """Bits and weighted squared error, from the file itself."""
    decoded = codec.decode(ltn.read(data))[0].pixels
    lmbda = float(codec.model.base.lmbda(torch.tensor(ltn.read_header(data).quality / 65535)))
    error = np.square(decoded.astype(float) - image.pixels).mean()
    return 8 * len(data) + lmbda * error * image.pixels.shape[0] * image.pixels.shape[1]


@pytest.mark.parametrize("channels", [1, 3])
def test_effort_makes_files_cheaper(shipped: ImageCodec, channels: int) -> None:
    image = Image(tiny.picture(60, 70, channels))
    plain, refined = (shipped.encode(image, 40, effort=effort) for effort in (1, 2))
    assert plain == shipped.encode(image, 40)
    assert refined == shipped.encode(image, 40, effort=2)
    assert cost(shipped, image, refined) < 0.99 * cost(shipped, image, plain)


def test_effort_aims_at_what_the_model_is_tuned_for(tiny_model: ReleasedPictures) -> None:
    """The same search, judged by either aim, does better by its own."""
    network, level, samples = tiny_model.base, 39_321, tiny.picture(256, 320)
    rows = tiny_model.analysis(320, np.uint8, 3)
    features = np.concatenate([part for part in (rows.push(samples), rows.finish()) if len(part)])
    y = tiny_model.latent(features, level)
    x = torch.from_numpy(samples).permute(2, 0, 1)[None].float() / 255

    def loss(latent: npt.NDArray[np.int32], weights: dict[str, float]) -> float:
        values = torch.from_numpy(latent / 256).permute(2, 0, 1)[None].float()
        search = effort_module._Search(network, x, values, torch.tensor([0.6]), 0, Mixture(weights))
        with torch.no_grad():
            return float(search._cost(values, 0.0))

    found = {tune: refine(network, samples, y, level, 0, 8, tune) for tune in ("psnr", "eye")}
    plain = loss(y, EYE)
    assert loss(found["eye"], EYE) < 0.999 * plain
    assert loss(found["eye"], EYE) < loss(found["psnr"], EYE)
    assert loss(found["psnr"], {"mse": 1.0}) < loss(found["eye"], {"mse": 1.0})


def test_effort_sees_every_tile(tiny_model: ReleasedPictures, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    def watch(self: Any, x: npt.NDArray[Any], latent: npt.NDArray[Any], level: int, steps: int) -> Any:
        seen.append((*x.shape, *latent.shape[:2]))
        return latent

    monkeypatch.setattr(ReleasedPictures, "refine", watch)
    codec = ImageCodec(tiny_model)
    image = Image(tiny.picture(70, 1100, 3))
    assert codec.encode(image, 50, effort=2) == codec.encode(image, 50)
    assert seen == [(70, 1024, 3, 8, 64), (70, 76, 3, 8, 8)]


def test_refined_latents_are_never_worse(tiny_model: ReleasedPictures) -> None:
    codec = ImageCodec(tiny_model)
    image = Image(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8))
    plain, refined = (codec.encode(image, 90, effort=effort) for effort in (1, 2))
    # Estimated and real bits differ by less than this.
    assert cost(codec, image, refined) < 1.01 * cost(codec, image, plain)


@pytest.mark.parametrize("effort", [0, 6, -1])
def test_effort_out_of_range_is_refused(codec: ImageCodec, effort: int) -> None:
    with pytest.raises(ImageError, match=r"1 to 5"):
        codec.encode(Image(tiny.picture(8, 8, 3)), 50, effort=effort)
