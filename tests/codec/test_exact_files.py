"""Files of the published architectures: the same symbols under every configuration, identities, rates, and for ever."""

import dataclasses
import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImage
from safetensors.numpy import load_file

import latens
import published
import tiny
from latens import format as ltn
from latens.codec import ImageCodec
from latens.codec import image as codec_module
from latens.convert.research import ResearchPictures
from latens.errors import ImageError, ModelError, TargetError, WrongWeightsError
from latens.io import Image
from latens.runtime import ExactEntropy, set_threads
from latens.runtime.released import ReleasedPictures
from latens.zoo import load, save

VECTORS = Path(__file__).parents[1] / "vectors" / "ltn"
EACH = pytest.mark.parametrize("kind", published.FAMILIES)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a weights file of each kind."""
    folder = tmp_path_factory.mktemp("published")
    for kind, name in published.FAMILIES.items():
        save(published.make(name, narrow=False), folder / f"{kind}.safetensors", f"tiny-{kind}")
    return folder


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_module, "_TILE", 64)


def codec_of(weights: Path, kind: str) -> ImageCodec:
    return ImageCodec(load(weights / f"{kind}.safetensors"))


def symbols(codec: ImageCodec, data: bytes) -> str:
    """Hash of all symbols of a file."""
    container = ltn.read(data)
    header, model = container.header, codec.model
    digest = hashlib.sha256()
    for tile, rect in zip(container.tiles, header.tiles(), strict=True):
        assert tile is not None
        width, height = ltn.coded_size(rect.width, rect.height)
        found = model.anatomy(tile.stream, (height, width), header.quality, header.skip, header.lanes)
        digest.update(found.z.tobytes() + found.y.tobytes() + found.indexes.tobytes())
    return digest.hexdigest()


def psnr(a: Any, b: Any) -> float:
    return 10 * math.log10(255**2 / max(float(np.square(a.astype(float) - b).mean()), 1e-9))


# ---- what only the default model has


def test_effort_is_refused(weights: Path) -> None:
    with pytest.raises(ImageError, match="only the default model"):
        codec_of(weights, next(iter(published.FAMILIES))).encode(Image(tiny.picture(8, 8, 3)), effort=2)


# ---- other configurations

_DECODE = """
import sys
import torch
sys.path[:0] = {paths!r}
from pathlib import Path
from test_exact_files import codec_of, ltn, symbols
from latens.runtime import set_threads
torch.set_num_threads(3)
set_threads(3)
assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"
for kind in {kinds!r}:
    codec = codec_of(Path({folder!r}), kind)
    data = Path({folder!r}, kind + ".ltn").read_bytes()
    with torch.backends.mkldnn.flags(enabled=False):
        image, problems = codec.decode(ltn.read(data))
        print(kind, symbols(codec, data), codec.model.entropy_id)
    assert problems == ()
    image.pixels.tofile(Path({folder!r}, kind + ".raw"))
"""


def test_files_decode_the_same_under_another_configuration(weights: Path, tiles: None) -> None:
    """In a process without vector instructions and oneDNN, with more threads; every tile has a checksum, too."""
    picture = Image(tiny.picture(100, 140))
    expected, decoded = [], {}
    for kind in published.FAMILIES:
        codec = codec_of(weights, kind)
        data = codec.encode(picture)
        assert ltn.read_header(data).tile_count == 6
        (weights / f"{kind}.ltn").write_bytes(data)
        decoded[kind] = codec.decode(ltn.read(data))[0].pixels
        expected.append(f"{kind} {symbols(codec, data)} {codec.model.entropy_id}")
    here = Path(__file__).parent
    script = _DECODE.format(
        paths=[str(here), str(here.parent)], kinds=list(published.FAMILIES), folder=str(weights)
    )
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == expected
    for kind, pixels in decoded.items():
        there = np.fromfile(weights / f"{kind}.raw", np.uint8).reshape(pixels.shape)
        assert np.abs(there.astype(int) - pixels).max() <= 1


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    set_threads(None)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # what the flags of oneDNN warn of, without reason
@EACH
def test_files_decode_the_same_in_this_process(weights: Path, kind: str, tiles: None, threads: None) -> None:
    codec = codec_of(weights, kind)
    data = codec.encode(Image(tiny.picture(70, 130)))
    want = symbols(codec, data)
    plain = codec.decode(ltn.read(data))[0].pixels
    for count, onednn in ((1, False), (2, True), (3, False)):
        torch.set_num_threads(count)
        set_threads(count)
        with torch.backends.mkldnn.flags(enabled=onednn):
            assert symbols(codec, data) == want
            assert np.abs(codec.decode(ltn.read(data))[0].pixels.astype(int) - plain).max() <= 1


@EACH
def test_the_decoder_has_what_the_encoder_had(weights: Path, kind: str) -> None:
    """Pixels are those of g_s on the latent that encoding left behind."""
    codec = codec_of(weights, kind)
    picture = tiny.picture(128, 64)
    data = codec.encode(Image(picture))
    decoded = codec.decode(data)[0].pixels
    model = codec.model
    assert isinstance(model, ResearchPictures)
    network: Any = model.network
    with torch.inference_mode():
        x = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
        y = network.g_a(x)
        entropy, skip = model.entropy, model.skip
        knot = entropy.knot_at(ltn.read_header(data).quality)
        if entropy.groups:
            hyper = (
                network.latent_codec.hyper.h_a
                if hasattr(network, "latent_codec")
                else network._hyper_analysis
            )
            z = entropy.quantise_z(hyper(y).numpy(), knot)
            latent = entropy.encode(z, entropy.quantiser(y.numpy(), knot, skip), knot, skip)[2].latent
        else:
            latent = entropy.encode(entropy.quantise_z(y.numpy(), knot), lambda part: y, knot, skip)[2].latent
        want = (network.g_s(torch.from_numpy(latent))[0].permute(1, 2, 0) * 255).round().clamp(0, 255).numpy()
    assert psnr(decoded, want) > 50


# ---- sizes and kinds of pictures


@EACH
def test_pictures_of_all_sizes_and_kinds(weights: Path, kind: str, tiles: None) -> None:
    codec = codec_of(weights, kind)
    for size, channels, alpha in (((1, 1), 3, False), ((65, 130), 1, True), ((64, 65), 3, True)):
        pixels = tiny.picture(*size, channels)
        image = Image(pixels, pixels[..., 0] if alpha else None)
        decoded, problems = codec.decode(ltn.read(codec.encode(image)))
        assert problems == ()
        assert decoded.pixels.shape == pixels.shape
        assert (decoded.alpha is not None) == alpha
        if alpha:
            np.testing.assert_array_equal(decoded.alpha, pixels[..., 0])


def test_the_functions_take_weights_files(weights: Path) -> None:
    path = str(weights / "mean-scale.safetensors")
    data = latens.encode(PilImage.fromarray(tiny.picture(30, 40)), model=path)
    assert latens.decode(data, model=path).size == (40, 30)


# ---- identities


@EACH
def test_other_identities_are_refused(weights: Path, kind: str) -> None:
    codec = codec_of(weights, kind)
    container = ltn.read(codec.encode(Image(tiny.picture(20, 20))))
    entropy_id, weights_id = codec.model.entropy_id[:8], codec.model.weights_id[:8]
    assert (container.header.entropy_id, container.header.weights_id) == (entropy_id, weights_id)
    container.header = dataclasses.replace(container.header, weights_id="89abcdef")
    with pytest.raises(WrongWeightsError, match=f"89abcdef, tiny-{kind} at hand has {weights_id}"):
        codec.decode(container)
    codec.decode(container, other_weights=True)
    container.header = dataclasses.replace(container.header, entropy_id="01234567")
    with pytest.raises(WrongWeightsError, match=f"01234567, tiny-{kind} at hand has {entropy_id}"):
        codec.decode(container, other_weights=True)


def test_saved_weights_are_those_that_were_trained(weights: Path) -> None:
    for kind, name in published.FAMILIES.items():
        model, loaded = published.make(name, narrow=False), load(weights / f"{kind}.safetensors")
        assert isinstance(loaded, ResearchPictures)
        assert loaded.id == f"tiny-{kind}"
        assert type(loaded.network) is type(model)
        for key, value in model.state_dict().items():
            assert torch.equal(loaded.network.state_dict()[key], value)
        with pytest.raises(ModelError, match=f"tiny-{kind}: expected the default model's architecture"):
            _ = loaded.base


# ---- rates


@pytest.mark.parametrize("kind", [kind for kind in published.FAMILIES if kind != "variable"])
def test_models_of_one_rate_refuse_a_quality(weights: Path, kind: str) -> None:
    codec = codec_of(weights, kind)
    for quality in (0, 50, 100):
        with pytest.raises(ImageError, match=f"tiny-{kind} has a single rate"):
            codec.encode(Image(tiny.picture(8, 8)), quality)
    with pytest.raises(TargetError, match="no continuous quality"):
        codec.encode_to(Image(tiny.picture(8, 8)), codec_module.Target(bytes=1000))


def test_models_of_variable_rate_have_eight(weights: Path) -> None:
    codec = codec_of(weights, "variable")
    picture = Image(tiny.picture(64, 128))
    files = [codec.encode(picture, 100 * rate / 7) for rate in range(8)]
    levels = [ltn.read_header(data).quality for data in files]
    assert isinstance(codec.model, ResearchPictures)
    assert [codec.model.entropy.knot_at(level) for level in levels] == list(range(8))
    assert len({symbols(codec, data) for data in files}) == 8
    sizes = [len(data) for data in files]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 1.5 * sizes[0]
    for rate, data in enumerate(files):
        codec.decode(ltn.read(data))
        for quality in (100 * rate / 7 - 5, 100 * rate / 7 + 5):
            if 0 <= quality <= 100:
                assert (
                    ltn.read_header(codec.encode(Image(tiny.picture(1, 1)), quality)).quality == levels[rate]
                )
    with pytest.raises(ImageError, match="0 to 100"):
        codec.encode(picture, 101)


# ---- for ever

EXPECTED: dict[str, dict[str, Any]] = json.loads((VECTORS / "expected.json").read_text())


@EACH
def test_a_file_of_the_first_day_decodes_to_the_same_symbols(kind: str) -> None:
    """Frozen by tests/vectors/make_ltn.py. If this fails, files that people have do not decode any more."""
    expected = EXPECTED[kind]
    entropy = ExactEntropy.from_tensors(load_file(VECTORS / f"{kind}.safetensors"))
    assert entropy.entropy_id == expected["entropy_id"]
    container = frozen_file(kind, entropy.entropy_id)
    header = container.header
    digest, used = hashlib.sha256(), set()
    for tile in container.tiles:
        assert tile is not None
        knot, shape = expected["knot"], tuple(expected["z_shape"])
        z, y, indexes, _ = entropy.decode(tile.stream, shape, knot, header.skip, header.lanes)
        assert ltn.symbol_checksum(z.data, y.data) == tile.checksum
        used |= set(np.unique(indexes).tolist())
        digest.update(z.astype("<i2").tobytes() + y.astype("<i2").tobytes())
        again, *_ = entropy.encode(z, entropy.replay(y), knot, header.skip, header.lanes)
        assert again == tile.stream
    assert digest.hexdigest() == expected["symbols"]
    assert len(used) >= 5 or not entropy.groups


def test_a_file_of_the_default_model_decodes_to_the_same_pixels_for_ever() -> None:
    """Weights, symbols and pixels of the first day: everything on the way from a file to a picture is in integers."""
    expected, model = EXPECTED["default"], load(VECTORS / "default.safetensors")
    assert isinstance(model, ReleasedPictures)
    assert model.entropy_id == expected["entropy_id"]
    container = frozen_file("default", model.entropy_id)
    assert container.header.weights_id == model.weights_id[:8]
    header, used = container.header, set()
    digest = hashlib.sha256()
    for tile in container.tiles:
        assert tile is not None
        found = model.anatomy(tile.stream, (64, 64), header.quality, header.skip, header.lanes)
        assert ltn.symbol_checksum(found.z.data, found.y.data) == tile.checksum
        used |= set(np.unique(found.indexes).tolist())
        digest.update(found.z.astype("<i2").tobytes() + found.y.astype("<i2").tobytes())
        rows = model.decode(tile.stream, (64, 64), header.quality, header.skip, header.lanes)[1]
        assert rows.any()
    assert digest.hexdigest() == expected["symbols"]
    assert len(used) >= 5
    image, problems = ImageCodec(model).decode(container)
    assert problems == ()
    assert container.pixels is not None  # and decoding compares with it
    assert hashlib.sha256(image.pixels.tobytes()).hexdigest() == expected["pixels"]
    assert psnr(image.pixels, tiny.picture(70, 150)) > 20


def frozen_file(kind: str, entropy_id: str) -> ltn.Container:
    """A file of the first day, and what its container says."""
    container = ltn.read((VECTORS / f"{kind}.ltn").read_bytes())
    header = container.header
    assert header.entropy_id == entropy_id[:8]
    assert (header.width, header.height, header.tile_count) == (150, 70, 6)
    assert container.icc == b"profile"
    assert container.alpha == tiny.picture(70, 150, 1).tobytes()
    return container


def test_vectors_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in VECTORS.iterdir()}
    assert max(sizes.values()) < 80_000
    assert sum(sizes.values()) < 400_000


def test_a_model_whose_latents_do_not_fit_is_refused(weights: Path) -> None:
    """Integer networks of another architecture beside the float ones."""
    raster, board = (load(weights / f"{kind}.safetensors") for kind in ("mean-scale", "checkerboard"))
    assert isinstance(raster, ResearchPictures)
    assert isinstance(board, ResearchPictures)
    with pytest.raises(ModelError, match=r"does not fit|expected"):
        ResearchPictures("mixed", raster.weights_id, raster.network, board.entropy)


def test_absurd_transforms_do_not_become_pixels(tmp_path: Path) -> None:
    """Files are indifferent to them; pictures are not."""
    model: Any = published.make("MeanScaleHyperprior")
    with torch.no_grad():
        model.g_s[0].weight.mul_(1e38)
    save(model, tmp_path / "absurd.safetensors", "absurd")
    codec = ImageCodec(load(tmp_path / "absurd.safetensors"))
    data = codec.encode(Image(tiny.picture(40, 50, 3)))
    with pytest.raises(ModelError, match="not finite; they cannot be used"):
        codec.decode(ltn.read(data))
