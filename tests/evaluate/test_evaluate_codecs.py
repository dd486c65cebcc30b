"""Adapters: every codec gives back what it was given, in the right colours, in any size."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import tiny
from latens.errors import CodecError, FormatError, ModelError, ShapeError, TargetError, UnavailableError
from latens.evaluate import Results, codec_names, find_closest, make_codec, measure
from latens.evaluate.codecs.base import split_spec
from latens.evaluate.codecs.learned import checkpoints
from latens.evaluate.colour import to_planes, to_rgb
from latens.models import MeanScaleHyperprior, ScaleHyperpriorVbr

INSTALLED = [name for name in codec_names() if name not in ("latens", "bpg", "tfci", "hm", "vtm")]


def codec_or_skip(name: str) -> Any:
    try:
        return make_codec(name)
    except CodecError as error:
        pytest.skip(str(error))


def colourful(height: int, width: int) -> Any:
    """Smooth, with all hues, dark and bright: an error of matrix or range moves its mean by much more than coding."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 23 + 2 * k) + np.cos(y / 19 - k) for k in range(3)]
    return (128 + 60 * np.stack(waves, 2)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", INSTALLED)
def test_images_come_back_in_their_colours(name: str) -> None:
    codec = codec_or_skip(name)
    pixels = colourful(75, 101)
    best = codec.dial.points[-1]
    data = codec.encode(pixels, best)
    decoded = codec.decode(data, (75, 101), best)
    assert decoded.shape == pixels.shape
    assert decoded.dtype == np.uint8
    error = decoded.astype(float) - pixels
    assert np.abs(error.mean((0, 1))).max() < 1.5, "a bias means wrong range or matrix"
    assert measure(pixels, decoded, ("psnr_rgb",))["psnr_rgb"] > 36  # type: ignore[operator]
    assert len(codec.encode(pixels, codec.dial.points[0])) < len(data)
    assert codec.version()


def test_files_are_of_the_format_that_they_are_said_to_be() -> None:
    pixels = tiny.picture(40, 40)
    for name, kind in (("jpeg", "JPEG"), ("webp", "WEBP"), ("avif", "AVIF"), ("jpeg2000", "JPEG2000")):
        codec = codec_or_skip(name)
        with Image.open(io.BytesIO(codec.encode(pixels, codec.dial.points[2]))) as image:
            assert image.format == kind


def test_options_reach_the_codec() -> None:
    pixels = tiny.picture(64, 64)
    assert make_codec("jpeg:chroma=444").encode(pixels, 60) != make_codec("jpeg").encode(pixels, 60)
    assert split_spec("x:a=1:b=C:/p") == ("x", {"a": "1", "b": "C:/p"})
    assert split_spec("C:/w.safetensors:effort=2") == ("C:/w.safetensors", {"effort": "2"})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing", "no such codec"),
        ("jpeg:colour=1", "no option colour"),
        ("vtm", "--encoder-path"),
        ("ssf2020", "no model of images"),
        ("cheng2020-anchor-checkerboard", "no weights were published"),
        ("latens:fast=yes", "no option fast"),
        ("latens:effort=much", "effort must be a whole number"),
        ("mbt2018-mean:fast=maybe", "must be yes or no"),
    ],
)
def test_codecs_that_cannot_be_had_say_why(spec: str, message: str) -> None:
    with pytest.raises((CodecError, UnavailableError), match=message):
        make_codec(spec)


def test_wrong_values_of_options_are_refused() -> None:
    pixels = tiny.picture(16, 16)
    for spec in ("webp:method=fast", "jpeg:chroma=411", "jpeg:progressive=1"):
        with pytest.raises(CodecError, match="must be"):
            make_codec(spec).encode(pixels, 50)


def test_a_program_that_fails_is_quoted(programs: dict[str, str]) -> None:
    codec = make_codec("bpg", 1, **programs)
    assert "encoder" not in codec.describe()["options"]["encoder"].replace("encoder", "", 1)
    with pytest.raises(CodecError, match="cannot encode"):
        codec.encode(tiny.picture(8, 8), 3)
    pixels = tiny.picture(9, 7)
    assert np.array_equal(codec.decode(codec.encode(pixels, 30), (9, 7), 30), pixels)


def test_missing_programs_are_named(tmp_path: Path) -> None:
    with pytest.raises(CodecError, match="no such file"):
        make_codec("bpg", 1, encoder=str(tmp_path / "none"), decoder=str(tmp_path / "none"))


@pytest.mark.parametrize("name", ["hm", "vtm"])
@pytest.mark.parametrize(("options", "limit"), [("", 42), (":bits=10", 46), (":chroma=420:bits=10", 36)])
def test_reference_software_is_given_planes(
    reference_software: dict[str, str], name: str, options: str, limit: float
) -> None:
    codec = make_codec(name + options, 1, **reference_software)
    pixels = colourful(45, 51)
    data = codec.encode(pixels, 12)
    assert len(codec.encode(pixels, 37)) < len(data)
    decoded = codec.decode(data, (45, 51), 12)
    found = measure(pixels, decoded, ("psnr_rgb",))["psnr_rgb"]
    assert found is not None
    assert found > limit
    error = decoded.astype(float) - pixels
    assert np.abs(error.mean((0, 1))).max() < 1.5, "a bias means wrong range or matrix"
    about = codec.describe()
    assert about["options"]["encoder"] == about["version"] == "encoderApp"
    assert about["options"]["config"] == "encoder_intra.cfg"


def test_programs_are_given_on_the_command_line(
    reference_software: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    from latens.cli import app

    paths = {"--encoder-path": "encoder", "--decoder-path": "decoder", "--config": "config"}
    given = [word for option, name in paths.items() for word in (option, reference_software[name])]
    results = tmp_path / "r.json"
    settings = ("-p", "vtm=12,37", "--repeats", "1", "--metrics", "psnr_rgb")
    assert app.run(["bench", str(photos), "-c", "vtm", *settings, *given, "-o", str(results)]) == 0
    found = Results.load(results)
    assert len(found.points) == 4
    assert str(tmp_path) not in json.dumps(found.codecs), "where programs lie is nobody's business"
    page = tmp_path / "r.html"
    assert app.run(["report", str(results), *given, "-o", str(page)]) == 0
    assert page.read_text().count("data:image/webp") >= 4
    image = str(photos / "plain.png")
    assert app.run(["find", image, "-c", "vtm", "--target", "40", *given, "--json"]) == 0


def test_reference_software_that_fails_is_quoted(
    reference_software: dict[str, str], tmp_path: Path, programs: dict[str, str]
) -> None:
    Path(reference_software["config"]).write_text("nothing")
    with pytest.raises(CodecError, match="no configuration of pictures"):
        make_codec("vtm", 1, **reference_software).encode(colourful(8, 8), 22)
    with pytest.raises(CodecError, match="the encoder wrote no file"):
        make_codec("vtm", 1, **{**reference_software, "encoder": "/bin/true"}).encode(colourful(8, 8), 22)
    with pytest.raises(CodecError, match="the decoder wrote no image"):
        make_codec("vtm", 1, **{**reference_software, "decoder": "/bin/true"}).decode(b"x", (8, 8), 22)
    with pytest.raises(CodecError, match="needs --config"):
        make_codec("hm", 1, **programs)


def test_tfci_is_called_both_ways(tfci_script: str) -> None:
    codec = make_codec("tfci:model=mbt2018-mean-mse", 1, encoder=tfci_script)
    pixels = colourful(20, 30)
    data = codec.encode(pixels, 3)
    assert data[:1] == b"3"
    assert np.array_equal(codec.decode(data, (20, 30), 3), pixels)
    with pytest.raises(CodecError, match="unknown model b2018-leaky-relu-128-1"):
        make_codec("tfci:model=b2018-leaky-relu-128", 1, encoder=tfci_script).encode(pixels, 1)


# ---- colour


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([8, 10, 12]), st.integers(0, 2**32 - 1))
def test_planes_at_full_resolution_lose_no_more_than_rounding(h: int, w: int, bits: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)
    back = to_rgb(to_planes(pixels, bits, False), (h, w), bits, False)
    assert np.abs(back.astype(int) - pixels).max() <= (2 if bits == 8 else 0)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (8, 6)])
def test_flat_colours_survive_subsampling_in_any_size(size: tuple[int, int]) -> None:
    for colour in ((255, 0, 0), (0, 255, 0), (12, 34, 56), (255, 255, 255), (0, 0, 0)):
        pixels = np.full((*size, 3), colour, np.uint8)
        assert np.array_equal(to_rgb(to_planes(pixels, 10, True), size, 10, True), pixels)


def test_decoders_that_give_another_size_are_noticed() -> None:
    with pytest.raises(ShapeError, match="no image of"):
        to_rgb(b"\0" * 7, (2, 2), 8, False)
    with pytest.raises(ShapeError, match="expected uint8"):
        measure(tiny.picture(4, 4), tiny.picture(4, 5))


# ---- models


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes checkpoints of small random models."""
    import torch

    def make(kind: str) -> Path:
        torch.manual_seed(0)
        model = {"mean": MeanScaleHyperprior, "vbr": ScaleHyperpriorVbr}[kind](8, 12)
        path = tmp_path_factory.mktemp(kind) / "checkpoint-2.pth.tar"
        torch.save({"state_dict": model.state_dict()}, path)
        return path

    return make


def test_a_checkpoint_becomes_files_and_comes_back(checkpoint: Any) -> None:
    import torch

    path = checkpoint("mean")
    codec = make_codec(f"mbt2018-mean:weights={path}")
    assert codec.dial.points == (1.0,)
    pixels = tiny.picture(70, 50)
    data = codec.encode(pixels, 1.0)
    # The same through the model itself: the strings, two sizes and one length.
    model = MeanScaleHyperprior.from_state_dict(torch.load(path)["state_dict"]).eval()
    edge = np.pad(pixels, ((0, 58), (0, 14), (0, 0)), mode="edge")
    x = torch.from_numpy(edge).permute(2, 0, 1)[None] / 255
    out = model.compress(x)
    assert len(data) == 4 + 4 + sum(len(s[0]) for s in out["strings"])
    expected = model.decompress(**out)["x_hat"][0].mul(255).round().permute(1, 2, 0).byte().numpy()[:70, :50]
    fresh = make_codec(f"mbt2018-mean:weights={path.parent}")
    decoded = fresh.decode(data, (70, 50), 1.0)
    assert np.abs(decoded.astype(int) - expected).max() <= 1  # halves may be rounded either way
    for cut in (b"", data[:6]):
        with pytest.raises(FormatError):
            fresh.decode(cut, (70, 50), 1.0)


def test_a_model_of_variable_rate_takes_steps(checkpoint: Any) -> None:
    codec = make_codec(f"bmshj2018-hyperprior-vbr:weights={checkpoint('vbr')}")
    pixels = tiny.picture(64, 64)
    sizes = [len(codec.encode(pixels, step)) for step in (10.0, 1.0)]
    assert sizes[0] <= sizes[1]
    assert codec.decode(codec.encode(pixels, 2.5), (64, 64), 2.5).shape == (64, 64, 3)
    assert not codec.dial.rising


def test_estimated_and_real_rates_are_close(checkpoint: Any) -> None:
    codec: Any = make_codec(f"mbt2018-mean:weights={checkpoint('mean')}")
    pixels = tiny.picture(256, 256)
    bpp, decoded = codec.estimate(pixels, 1.0)
    assert bpp * 256 * 256 == pytest.approx(8 * (len(codec.encode(pixels, 1.0)) - 8), rel=0.02, abs=200)
    coded = codec.decode(codec.encode(pixels, 1.0), (256, 256), 1.0)
    assert np.abs(decoded.astype(int) - coded).max() <= 1


def test_checkpoints_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("q10.pth", "q9.pth", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [p.name for p in checkpoints(str(tmp_path))] == ["q9.pth", "q10.pth"]
    with pytest.raises(ModelError, match="no checkpoint"):
        checkpoints(str(tmp_path / "none"))


def test_a_weights_file_is_a_codec(tiny_weights: Path) -> None:
    codec = make_codec(str(tiny_weights))
    pixels = tiny.picture(33, 47)
    data = codec.encode(pixels, 60.0)
    assert data[:3] == b"LTN"
    assert "tiny-1" in codec.version()
    assert codec.decode(data, (33, 47), 60.0).shape == (33, 47, 3)


# ---- searching


def test_the_closest_setting_is_found() -> None:
    codec, pixels = make_codec("jpeg"), tiny.picture(80, 80)
    values = {}
    for setting in range(1, 96):
        decoded = codec.decode(codec.encode(pixels, setting), (80, 80), setting)
        values[setting] = measure(pixels, decoded, ("psnr_rgb",))["psnr_rgb"]
    found = find_closest(codec, pixels, "psnr", 33.0)
    best = min(abs(value - 33.0) for value in values.values() if value is not None)
    assert abs(found.value - 33.0) == pytest.approx(best, abs=0.02)
    size = find_closest(codec, pixels, "bytes", 2000)
    assert size.value == len(size.data) == len(codec.encode(pixels, size.setting))
    falling = make_codec("jpeg2000")
    assert find_closest(falling, pixels, "bpp", 2.0).value == pytest.approx(2.0, rel=0.05)


def test_targets_that_make_no_sense_are_refused() -> None:
    codec, pixels = make_codec("jpeg"), tiny.picture(20, 20)
    for metric, target in (("beauty", 1.0), ("psnr", -1.0), ("psnr", float("nan")), ("ms-ssim", 0.9)):
        with pytest.raises(TargetError):
            find_closest(codec, pixels, metric, target)


def test_frozen_weights_of_an_architecture_are_a_codec_of_one_rate(checkpoint: Any, tmp_path: Path) -> None:
    from latens.cli import app

    path = tmp_path / "frozen.safetensors"
    command = [
        "update-model",
        str(checkpoint("mean")),
        "-a",
        "mbt2018-mean",
        "-o",
        str(path),
        "--name",
        "mine",
    ]
    assert app.run(command) == 0
    codec = make_codec(str(path))
    assert codec.dial.points == (0.0,)
    pixels = tiny.picture(70, 50)
    assert codec.decode(codec.encode(pixels, 0.0), (70, 50), 0.0).shape == (70, 50, 3)
    assert "mine" in codec.version()
