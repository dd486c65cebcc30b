"""Exported models in ONNX Runtime: the integers of PyTorch bit for bit, streams in both directions, bad input."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

import published
import tiny
from latens import format as ltn
from latens.codec import ImageCodec
from latens.convert import exact_entropy
from latens.convert.research import ResearchPictures
from latens.errors import CoderError, LatensError, LimitError, ModelError, OutputError, ShapeError
from latens.export import Runner, export
from latens.io import from_pil
from latens.models import CompressionModel
from latens.runtime.coding import CodedTile
from latens.runtime.released import ReleasedPictures

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

NAMES = [*published.FAMILIES.values()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("onnx")


@pytest.fixture(scope="module")
def written(folder: Path) -> Callable[[str], tuple[Path, ResearchPictures]]:
    """An exported model by name, and the same in PyTorch."""

    @lru_cache
    def write(name: str) -> tuple[Path, ResearchPictures]:
        model = of_files(published.make(name))
        export(model, folder / name)
        return folder / name, model

    return write


def of_files(network: CompressionModel) -> ResearchPictures:
    network.eval().requires_grad_(False)
    return ResearchPictures(type(network).__name__.lower(), "0" * 64, network, exact_entropy(network))


def samples(height: int, width: int) -> npt.NDArray[np.uint8]:
    return tiny.picture(height, width, seed=3)


def floats(x: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """As a runner takes them."""
    return x.transpose(2, 0, 1) / np.float32(255.0)


def pixels(height: int, width: int) -> npt.NDArray[np.float32]:
    return floats(samples(height, width))


def padded(x: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """By repetition."""
    return np.pad(x, [*((0, -size % 64) for size in x.shape[:2]), (0, 0)], mode="edge")


def coded(model: ResearchPictures, x: npt.NDArray[np.uint8], quality: float) -> CodedTile:
    whole, level = padded(x), model.level(quality)
    rows = model.analysis(whole.shape[1], whole.dtype, 3)
    features = np.concatenate([part for part in (rows.push(whole), rows.finish()) if len(part)])
    return model.encode(model.latent(features, level), level, 8)


# ---- whole models


@pytest.mark.parametrize("name", NAMES)
def test_streams_go_both_ways(name: str, written: Callable[[str], tuple[Path, ResearchPictures]]) -> None:
    """Identical symbols whoever wrote them, with any number of threads; pixels up to the last bits."""
    path, model = written(name)
    runners, alive = [Runner(path, threads) for threads in (1, 2)], 0
    for (height, width), quality in (((64, 64), 50.0), ((70, 150), 0.0), ((129, 64), 93.0)):
        x, size = samples(height, width), (height, width)
        tile = coded(model, x, quality)
        for runner in runners:
            assert runner.latents(tile.stream, size, quality).checksum == tile.checksum
        stream = runners[0].compress(floats(x), quality)
        found = runners[1].latents(stream, size, quality)
        checksum, rows = model.decode(stream, padded(x).shape[:2], model.level(quality), model.skip, 8)
        y_hat = torch.from_numpy(rows).permute(2, 0, 1)[None]
        with torch.inference_mode():
            x_hat = model.g_s(y_hat)[0, :, :height, :width].clamp(0, 1).numpy()
        assert checksum == found.checksum
        alive += np.count_nonzero(found.y if len(found.y) else found.z)
        got = runners[0].decompress(stream, size, quality)
        assert got.shape == (3, *size)
        np.testing.assert_allclose(got, x_hat, atol=2e-5)
    assert alive > 100


@pytest.mark.parametrize("name", NAMES)
def test_the_encoder_finds_the_same_symbols(
    name: str, written: Callable[[str], tuple[Path, ResearchPictures]]
) -> None:
    """At most one in 100,000 may differ; of these few, none."""
    path, model = written(name)
    runner, x = Runner(path, 1), samples(192, 256)
    for quality in (0.0, 60.0):
        tile = coded(model, x, quality)
        theirs = runner.latents(tile.stream, (192, 256), quality)
        ours = runner.latents(runner.compress(floats(x), quality), (192, 256), quality)
        np.testing.assert_array_equal(ours.z, theirs.z)
        np.testing.assert_array_equal(ours.y, theirs.y)


def test_a_file_of_the_codec(written: Callable[[str], tuple[Path, ResearchPictures]]) -> None:
    """The stream within a ``.ltn`` file, and the picture that it decodes to."""
    path, model = written("MeanScaleHyperpriorVbr")
    codec, runner = ImageCodec(model), Runner(path, 1)
    container = ltn.read(codec.encode(from_pil(to_pil_image(100, 90)), quality=70), ltn.Limits())
    header, (tile,) = container.header, container.tiles
    quality = header.quality / 65535 * 100
    assert runner.entropy.entropy_id[:8] == header.entropy_id
    assert runner.skip == header.skip
    latents = runner.latents(tile.stream, (100, 90), quality, header.lanes)
    assert latents.checksum == tile.checksum
    x_hat = runner.decompress(tile.stream, (100, 90), quality, header.lanes)
    decoded, _ = codec.decode(container)
    assert np.abs(np.rint(x_hat.transpose(1, 2, 0) * 255) - decoded.pixels.astype(int)).max() <= 1


def to_pil_image(height: int, width: int) -> Any:
    from PIL import Image

    return Image.fromarray(tiny.picture(height, width))


def test_the_runner_needs_no_torch(written: Callable[[str], tuple[Path, ResearchPictures]]) -> None:
    path, model = written("MeanScaleHyperprior")
    tile = coded(model, samples(64, 128), 50.0)
    (path.parent / "stream").write_bytes(tile.stream)
    code = """
import sys
from pathlib import Path
import numpy as np
from latens.export import Runner
runner = Runner(sys.argv[1], 1)
latents = runner.latents(Path(sys.argv[2]).read_bytes(), (64, 128))
x = runner.decompress(runner.compress(np.full((3, 64, 128), 0.5)), (64, 128))
assert x.shape == (3, 64, 128) and "torch" not in sys.modules and "onnx" not in sys.modules
print(latents.checksum)
"""
    command = [sys.executable, "-c", code, str(path), str(path.parent / "stream")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == tile.checksum


def test_a_model_is_exported_as_it_stands(folder: Path) -> None:
    """In training, with gradients, after it has coded something: and it stays as it was."""
    model = published.make("ScaleHyperprior")
    model.compress(torch.rand(1, 3, 64, 64))
    model.train()
    with torch.inference_mode():
        model.export(folder / "training")
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    x = samples(64, 64)
    assert Runner(folder / "training", 1).compress(floats(x)) == coded(of_files(model), x, 0).stream


# ---- bad input


def test_folders_that_cannot_be_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = published.make("FactorizedPrior")
    (tmp_path / "file").touch()
    for name, match in (("", "exists"), ("file", "exists"), ("none/model", "does not exist")):
        with pytest.raises(OutputError, match=match):
            model.export(tmp_path / name)
    with monkeypatch.context() as patched:
        patched.setattr("os.access", lambda *_: False)
        with pytest.raises(OutputError, match="not writable"):
            model.export(tmp_path / "new")
    with monkeypatch.context() as patched:

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match="No space left"):
            model.export(tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_packages_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: Callable[[str], tuple[Path, ResearchPictures]]
) -> None:
    path, _ = written("FactorizedPrior")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r"pip install 'latens\[export\]'"):
        Runner(path).compress(pixels(64, 64))
    monkeypatch.setattr("latens.export.writer.find_spec", lambda name: None)
    with pytest.raises(OutputError, match=r"pip install 'latens\[export\]'"):
        published.make("FactorizedPrior").export(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_default_model_needs_no_export(tmp_path: Path, tiny_model: ReleasedPictures) -> None:
    for model in (tiny_model, tiny.network()):
        with pytest.raises(ModelError, match="need no PyTorch as it is"):
            export(model, tmp_path / "new")  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()


def test_models_that_cannot_be_exported(tmp_path: Path) -> None:
    class Strange(CompressionModel):
        pass

    with pytest.raises(ModelError, match="Strange cannot be made exact"):
        Strange().export(tmp_path / "new")

    class Special(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.bessel_j0(x)

    model = published.make("FactorizedPrior")
    model.g_s = nn.Sequential(model.g_s, Special())
    with pytest.raises(ModelError, match="cannot be exported"):
        model.export(tmp_path / "new")
    model = published.make("MeanScaleHyperprior")
    with torch.no_grad():
        model.h_s[0].weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="finite"):
        model.export(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_a_runner_refuses(written: Callable[[str], tuple[Path, ResearchPictures]]) -> None:
    path, _ = written("MeanScaleHyperpriorVbr")
    runner, x = Runner(path, 1), pixels(64, 64)
    stream = runner.compress(x)
    for wrong in (x[0], x[:2], (x * 255).astype(np.uint8), np.full_like(x, np.nan), x[:, :0]):
        with pytest.raises(ShapeError):
            runner.compress(wrong)
    with pytest.raises(LimitError):
        runner.compress(np.zeros((3, 1, 5000), np.float32))
    with pytest.raises(LimitError):
        runner.decompress(stream, (1 << 40, 1 << 40))
    with pytest.raises(ShapeError):
        runner.decompress(stream, (0, 64))
    for quality in (-1.0, 101.0, float("nan")):
        with pytest.raises(ModelError, match="0 to 100"):
            runner.compress(x, quality)
    for damaged in (b"", stream[:-1], stream[:20] + b"\xff" + stream[21:], stream + b"\0"):
        with pytest.raises(CoderError):
            runner.decompress(damaged, (64, 64))
    with pytest.raises(CoderError):
        runner.decompress(stream, (64, 64), lanes=3)


CHANGES: list[Callable[[dict[str, Any]], Any]] = [
    lambda d: d.update(format="latens onnx 1"),
    lambda d: d.pop("skip"),
    lambda d: d.update(skip=256),
    lambda d: d.update(skip="4"),
    lambda d: d.update(skip=True),
]


def round_trip(path: Path) -> None:
    runner = Runner(path, 1)
    runner.decompress(runner.compress(pixels(64, 64)), (64, 64))


def test_folders_that_are_damaged(
    tmp_path: Path, written: Callable[[str], tuple[Path, ResearchPictures]]
) -> None:
    path, _ = written("MeanScaleHyperprior")
    files = {file.name: file.read_bytes() for file in path.iterdir()}

    def refused(**changed: bytes | None) -> None:
        for name, content in {**files, **{k.replace("_", "."): v for k, v in changed.items()}}.items():
            (tmp_path / name).unlink(missing_ok=True)
            if content is not None:
                (tmp_path / name).write_bytes(content)
        with pytest.raises(LatensError):
            round_trip(tmp_path)

    for content in (None, b"", b"[" * 100_000, b"{}", b"[]"):
        refused(model_json=content)
    for change in CHANGES:
        description = json.loads(files["model.json"])
        change(description)
        refused(model_json=json.dumps(description).encode())
    for name in ("entropy_safetensors", "encoder_onnx", "synthesis_onnx"):
        whole = files[name.replace("_", ".")]
        for content in (None, b"", whole[: len(whole) // 2]):
            refused(**{name: content})
    refused(synthesis_onnx=files["encoder.onnx"])
    with pytest.raises(ModelError):
        Runner(tmp_path / "none")
