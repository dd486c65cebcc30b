"""Integers of the default model against the float network that they were made from."""

import numpy as np
import pytest
import torch

from latens.convert.floats import float_model
from latens.convert.pictures import picture_model, sample_pictures, weights_of
from latens.convert.products import network_of
from latens.errors import ModelError
from latens.runtime.picture import PictureModel
from tiny import network, picture


@pytest.fixture(scope="module")
def float_network():
    return network().eval()


@pytest.fixture(scope="module")
def weights(float_network):
    return weights_of(float_network, "tiny")


def _psnr(a, b):
    return -10 * np.log10(np.mean((a.astype(float) - b) ** 2) / 255**2)


@pytest.mark.parametrize("level", [10_000, 40_000, 65_535])
@torch.no_grad()
def test_pixels_are_those_of_the_float_network_but_for_rounding(float_network, weights, level):
    model = PictureModel.from_arrays(weights[0])
    samples = picture(128, 128, seed=3)
    features = model.networks["g_a"].run(samples, (), (8, 3))
    x = torch.from_numpy(samples)[None].permute(0, 3, 1, 2) / 255.0
    q = torch.tensor([level / 65_535])
    y = model.latent(features, level) / 256.0
    wanted = float_network.analyse(x, q)[0].permute(1, 2, 0).numpy()
    assert np.abs(y - wanted).max() < 0.01 * np.abs(wanted).max() + 0.1
    _, _, found = model.encode(model.latent(features, level), level, 0)
    rows = model.synthesis(found.y_hat.shape[1], level, 8, 3)
    got = np.concatenate([r for r in (rows.push(model.entry(found.y_hat, level)), rows.finish()) if len(r)])
    y_hat = torch.from_numpy(found.y_hat / 256.0).permute(2, 0, 1)[None].float()
    float_pixels = float_network.synthesise(y_hat, q)[0].permute(1, 2, 0).mul(255).clamp(0, 255).numpy()
    assert _psnr(got, float_pixels) > 50


@torch.no_grad()
def test_the_float_network_comes_back(float_network, weights):
    arrays, metadata = weights
    again = float_model(PictureModel.from_arrays(arrays), arrays, metadata)
    x = torch.from_numpy(np.stack([picture(128, 128, seed=s) for s in (3, 4)])).permute(0, 3, 1, 2) / 255.0
    for q in (0.1, 0.9):
        one, other = (m(x, torch.full((2,), q), noise=False) for m in (float_network, again))
        bits = [-sum(p.log2().sum() for p in out["likelihoods"].values()) for out in (one, other)]
        assert abs(bits[0] - bits[1]) < 0.03 * bits[0]
        errors = [(out["x_hat"] - x).square().mean() for out in (one, other)]
        assert abs(errors[0] - errors[1]) < 0.05 * errors[0]


def test_conversion_is_a_function_of_the_weights(float_network, weights):
    again, _ = weights_of(float_network, "tiny")
    assert all((again[name] == array).all() for name, array in weights[0].items())


def test_sample_pictures_are_the_same_each_time_and_have_all_tones():
    a = sample_pictures(2, 64)
    assert torch.equal(a, sample_pictures(2, 64))
    assert a.min() < 0.1
    assert a.max() > 0.9


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9])
def test_weights_that_cannot_be_converted_are_refused(value):
    model = network()
    with torch.no_grad():
        model.g_s[0].ffn_in.weight[0, 0] = value
    with pytest.raises(ModelError):
        picture_model(model, torch.rand(1, 3, 64, 64))


def test_a_layer_without_integers_is_refused():
    for module in (torch.nn.Conv2d(4, 4, 5, padding=2), torch.nn.Conv2d(4, 4, 3), torch.nn.GELU()):
        with pytest.raises(ModelError, match="cannot be converted"):
            network_of(module, [torch.rand(1, 4, 8, 8)], None, "layer")
