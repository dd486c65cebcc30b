"""Every latent codec computes and codes what the reference's does (frozen vectors), and checks its input."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from codec_cases import cases, exercise_codec
from recipe import fill, numbers
from safetensors import safe_open
from torch import nn

import latens.entropy_models
import latens.latent_codecs
import latens.layers
from latens.entropy_models import GaussianConditional
from latens.errors import CoderError, ModelError, ShapeError
from latens.latent_codecs import (
    ChannelGroupsLatentCodec,
    CheckerboardLatentCodec,
    GaussianConditionalLatentCodec,
    HyperLatentCodec,
    LatentCodec,
    RasterScanLatentCodec,
)
from latens.latent_codecs.rasterscan import RasterScan
from latens.layers import CheckerboardMaskedConv2d, MaskedConv2d

PARTS = (latens.entropy_models, latens.latent_codecs, latens.layers)
LIB = SimpleNamespace(**{k: v for part in PARTS for k, v in vars(part).items()})
VECTORS = Path(__file__).parents[1] / "vectors" / "models" / "codecs.safetensors"


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", cases())
def test_equals_reference(name: str) -> None:
    make, inputs, side = cases()[name]
    found = exercise_codec(make(LIB), inputs, side)
    with safe_open(VECTORS, "pt") as file:
        expected = {k.split("/", 1)[1]: file.get_tensor(k) for k in file.keys() if k.startswith(name + "/")}  # noqa: SIM118
        strings = json.loads(file.metadata()["strings"])[name]
    assert found.pop("strings") == strings
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-9, check_dtype=False)


def raster(arithmetic: str = "own", **convolution: Any) -> RasterScanLatentCodec:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(16, 12, 1), nn.ReLU(), nn.Conv2d(12, 9, 1), nn.LeakyReLU(), nn.Conv2d(9, 8, 1)
    )
    convolution = {"kernel_size": 5, "padding": 2, **convolution}
    codec = RasterScanLatentCodec(
        GaussianConditional(None), network, MaskedConv2d(4, 8, **convolution), arithmetic=arithmetic
    )
    fill(codec)
    return codec.eval()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (6, 1), (5, 8)])
@pytest.mark.parametrize("options", [{}, {"kernel_size": 3, "padding": 1}, {"bias": False}])
def test_raster_arithmetics_agree(size: tuple[int, int], options: dict[str, Any]) -> None:
    y, side = 5 * numbers("y", 2, 4, *size), numbers("side", 2, 8, *size)
    results = {}
    for arithmetic in ("own", "reference"):
        codec = raster(arithmetic, **options)
        code = codec.compress(y, side)
        decoded = codec.decompress(code["strings"], code["shape"], side)["y_hat"]
        assert torch.equal(decoded, code["y_hat"])
        # A batch is coded image by image, so that it decodes image by image.
        single = codec.decompress([code["strings"][0][1:]], code["shape"], side[1:])["y_hat"]
        assert torch.equal(single, decoded[1:])
        results[arithmetic] = decoded
    torch.testing.assert_close(results["own"], results["reference"], rtol=1e-4, atol=1e-4)


def test_raster_context_with_a_mask_of_its_own() -> None:
    mask = torch.zeros(5, 5)
    mask[1, 2] = mask[2, 1] = 1
    y, side = 5 * numbers("y", 1, 4, 4, 5), numbers("side", 1, 8, 4, 5)
    decoded = [
        raster(arithmetic, mask=mask).compress(y, side)["y_hat"] for arithmetic in ("own", "reference")
    ]
    torch.testing.assert_close(*decoded, rtol=1e-4, atol=1e-4)


def test_raster_refuses_what_it_cannot_do() -> None:
    model, side = GaussianConditional(None), numbers("side", 1, 8, 2, 2)
    with pytest.raises(ModelError, match="must not see"):
        RasterScan(model, nn.Identity(), MaskedConv2d(4, 8, 5, padding=2, mask_type="B"))
    with pytest.raises(ModelError, match='"own" or "reference"'):
        raster("fast").compress(numbers("y", 1, 4, 2, 2), side)
    for network in (
        nn.Conv2d(16, 8, 3, padding=1),
        nn.Sequential(nn.Conv2d(16, 8, 1), nn.Tanh()),
        nn.Identity(),
    ):
        scan = RasterScan(model, network, MaskedConv2d(4, 8, 5, padding=2))
        with pytest.raises(ModelError, match="1x1 convolutions"):
            scan.compress(numbers("y", 1, 4, 2, 2), side)
    with pytest.raises(ShapeError, match="do not fit"):
        raster().compress(numbers("y", 1, 4, 2, 3), side)
    code = raster().compress(numbers("y", 1, 4, 2, 2), side)
    with pytest.raises(ShapeError):
        raster().decompress([code["strings"][0] * 2], code["shape"], side)
    with pytest.raises(ShapeError, match="shape beside"):
        raster().decompress(code["strings"], (2, 3), side)
    with pytest.raises(CoderError):
        raster().decompress([[code["strings"][0][0] + b"\0\0\0\0"]], code["shape"], side)


@pytest.mark.parametrize("parity", ["even", "odd"])
def test_checkerboard_halves(parity: str) -> None:
    codec = CheckerboardLatentCodec(
        {"y": GaussianConditionalLatentCodec()},
        nn.Identity(),
        CheckerboardMaskedConv2d(1, 2, 3),
        anchor_parity=parity,
    )
    y = torch.arange(30.0).view(1, 1, 5, 6)
    halves = codec.unembed(y)
    odd = [v for v in range(30) if (v // 6 + v % 6) % 2 == (parity == "odd")]
    assert halves[0].flatten().tolist() == odd
    assert torch.equal(codec.embed(halves), y)
    with pytest.raises(ShapeError, match="even width"):
        codec.unembed(y[..., :5])


def test_unknown_options() -> None:
    leaf = GaussianConditionalLatentCodec()
    for options in ({"anchor_parity": "both"}, {"forward_method": "threepass"}):
        with pytest.raises(ModelError):
            CheckerboardLatentCodec({"y": leaf}, nn.Identity(), CheckerboardMaskedConv2d(1, 2, 3), **options)
    with pytest.raises(ModelError, match="quantizer"):
        GaussianConditionalLatentCodec(quantizer="floor")
    with pytest.raises(ModelError, match="chunks"):
        GaussianConditionalLatentCodec(chunks=("scales", "scales"))
    with pytest.raises(ModelError, match="needs scales"):
        GaussianConditionalLatentCodec(chunks=("means",))(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))
    with pytest.raises(ModelError, match=r"latent_codec\[y1\], channel_context\[y1\]"):
        ChannelGroupsLatentCodec({"y0": leaf}, {}, groups=[1, 2])
    with pytest.raises(ModelError, match="quantizer"):
        HyperLatentCodec(LIB.EntropyBottleneck(1), nn.Identity(), nn.Identity(), quantizer="x")


def test_channel_groups_check_their_input() -> None:
    codec = ChannelGroupsLatentCodec(
        {"y0": GaussianConditionalLatentCodec(), "y1": GaussianConditionalLatentCodec()},
        {"y1": nn.Conv2d(2, 2, 1)},
        groups=[2, 2],
    )
    for call in (codec, codec.compress):
        with pytest.raises(ShapeError, match="expected 4 channels"):
            call(torch.zeros(1, 3, 2, 2), torch.zeros(1, 4, 2, 2))
    for strings, shape in (([[b""]], [(2, 2)] * 2), ([[b""]] * 2, [(2, 2)]), ([], [(2, 2)] * 2)):
        with pytest.raises(ShapeError):
            codec.decompress(strings, shape, torch.zeros(1, 4, 2, 2))


def test_base_class_does_nothing() -> None:
    codec = LatentCodec()
    for call in (lambda: codec(1), lambda: codec.compress(1), lambda: codec.decompress([], ())):
        with pytest.raises(NotImplementedError):
            call()


@pytest.mark.parametrize("parity", ["even", "odd"])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 5), (7, 7), (3, 5), (5, 3)])
@pytest.mark.parametrize("size", [(2, 5, 6), (1, 1, 2), (1, 4, 8)])
def test_context_in_the_plane_of_anchors(
    parity: str, kernel: tuple[int, int], size: tuple[int, int, int]
) -> None:
    batch, height, width = size
    padding = (kernel[0] // 2, kernel[1] // 2)
    codec = CheckerboardLatentCodec(
        {"y": GaussianConditionalLatentCodec()},
        nn.Identity(),
        CheckerboardMaskedConv2d(3, 4, kernel, padding=padding),
        anchor_parity=parity,
    ).double()
    anchors, _ = codec.unembed(torch.randn(batch, 3, height, width, dtype=torch.float64))
    both = codec.embed(torch.stack((anchors, torch.zeros_like(anchors))))
    _, expected = codec.unembed(codec.context_prediction(both))
    torch.testing.assert_close(codec._context_of(anchors), expected)
