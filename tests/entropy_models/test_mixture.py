"""Mixtures of Gaussians: likelihoods, integer tables, coding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recipe import numbers
from torch import Tensor
from torch.distributions import Normal

from latens.entropy_models import GaussianMixtureConditional
from latens.entropy_models.mixture import mixture_cdfs
from latens.errors import CoderError, ModelError, ShapeError

K, SHAPE = 3, (2, 4, 5, 6)


def parameters() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, channels, *size = SHAPE
    y = 8 * numbers("y", *SHAPE)
    scales = 0.05 + 3 * numbers("scales", batch, K * channels, *size).abs()
    means = 4 * numbers("means", batch, K * channels, *size)
    weights = torch.softmax(2 * numbers("weights", batch, K, channels, *size), 1).flatten(1, 2)
    return y, scales, means, weights


def test_likelihood_is_the_integral_over_the_unit_interval() -> None:
    model = GaussianMixtureConditional(K).double().eval()
    y, scales, means, weights = (p.double() for p in parameters())
    y_hat, likelihood = model(y, scales, means, weights)
    assert torch.equal(y_hat, y.round())
    s, m, w = (p.view(2, K, *SHAPE[1:]) for p in (scales.clamp(min=0.11), means, weights))
    cdf = Normal(m, s).cdf
    expected = (w * (cdf(y_hat[:, None] + 0.5) - cdf(y_hat[:, None] - 0.5))).sum(1)
    torch.testing.assert_close(likelihood, expected.clamp(min=1e-9), rtol=1e-7, atol=1e-12)


def test_one_gaussian_is_a_gaussian() -> None:
    y, scales, means, _ = parameters()
    scales, means = scales[:, :4], means[:, :4]
    model = GaussianMixtureConditional(1)
    likelihood = model._likelihood(y, scales, means, torch.ones_like(y))
    torch.testing.assert_close(likelihood, super(type(model), model)._likelihood(y, scales, means))


def test_tables_are_valid_and_close_to_the_probabilities() -> None:
    _, scales, means, weights = (p[:1, : K * 4].reshape(-1, 1)[: K * 40].view(K, -1) for p in parameters())
    weights = weights / weights.sum(0)
    cdfs = mixture_cdfs(scales, means, weights, 40)
    frequencies = np.diff(cdfs)
    assert cdfs.shape == (40, 83)
    assert (cdfs[:, 0] == 0).all()
    assert (cdfs[:, -1] == 2**16).all()
    assert (frequencies >= 1).all()
    edges = torch.arange(-40, 42).double()[:, None, None] - 0.5
    mass = (Normal(means.double(), scales.double()).cdf(edges).diff(dim=0) * weights.double()).sum(1).t()
    assert np.abs(frequencies[:, :-1] / 2**16 - mass.numpy()).max() < 2e-3


def test_hostile_tables() -> None:
    one = torch.ones(1, 2)
    # Nothing lies inside: all symbols are alike.
    frequencies = np.diff(mixture_cdfs(one, 1e6 * one, one, 3))
    assert (frequencies[:, 1:-1] == (2**16 - 8) // 7 + 1).all()
    for bad in (float("nan") * one, float("inf") * one):
        with pytest.raises(CoderError, match="finite"):
            mixture_cdfs(one, bad, one, 3)
    with pytest.raises(CoderError, match="negative"):
        mixture_cdfs(one, one, -one, 3)


@pytest.mark.parametrize("largest", [0, 1, 9, 5000])
def test_round_trip(largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Small pieces, so that there are several.
    monkeypatch.setattr("latens.entropy_models.mixture._ENTRIES_AT_ONCE", 2000)
    model = GaussianMixtureConditional(K)
    y, *params = parameters()
    y[:, 2] = 0
    y[0, 1] = 0
    if largest == 0:
        y = torch.zeros_like(y)
    else:
        y[1, 1, 0, 0] = -largest
    code, y_hat = model.compress(y, *params)
    assert torch.equal(y_hat, y.round())
    assert code[2].tolist() == (y_hat != 0).flatten(2).any(2).long().tolist()
    assert torch.equal(model.decompress(*code, *params), y_hat)


def test_length_is_close_to_the_likelihoods() -> None:
    model = GaussianMixtureConditional(K).eval()
    _, scales, means, weights = parameters()
    torch.manual_seed(0)
    by_gaussian = means.view(2, K, *SHAPE[1:]) + scales.view(2, K, *SHAPE[1:]) * torch.randn(2, K, *SHAPE[1:])
    choice = torch.distributions.Categorical(weights.view(2, K, *SHAPE[1:]).movedim(1, -1)).sample()
    y = by_gaussian.gather(1, choice[:, None])[:, 0]
    (string, _, _), _ = model.compress(y, scales, means, weights)
    bits = -model(y, scales, means, weights)[1].double().log2().sum().item()
    assert len(string) * 8 == pytest.approx(bits, rel=0.02, abs=96)


def test_wrong_use() -> None:
    model = GaussianMixtureConditional(K)
    y, scales, means, weights = parameters()
    with pytest.raises(ModelError, match="at least one"):
        GaussianMixtureConditional(0)
    with pytest.raises(ShapeError, match="parameters of 3 Gaussians"):
        model(y, scales[:, :4], means, weights)
    (string, reach, bitmap), _ = model.compress(y, scales, means, weights)
    with pytest.raises(CoderError, match="abs_max"):
        model.decompress(string, 10**9, bitmap, scales, means, weights)
    with pytest.raises(ShapeError, match="bitmap"):
        model.decompress(string, reach, bitmap[:1], scales, means, weights)
    with pytest.raises(CoderError):
        model.decompress(string[:9], reach, bitmap, scales, means, weights)
    y[0, 0, 0, 0] = float("nan")
    with pytest.raises(CoderError, match="NaN"):
        model.compress(y, scales, means, weights)
    assert not model.update_scale_table([1.0, 2.0])
