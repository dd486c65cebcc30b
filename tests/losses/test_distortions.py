"""Distortions against the measures that they stand for, and mixtures of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import tiny
from latens import metrics
from latens.errors import ModelError, ShapeError
from latens.losses import (
    DISTORTIONS,
    EYE,
    Mixture,
    chroma_error,
    squared_error,
    ssimulacra2_distance,
    structural_dissimilarity,
)


def pictures(sigma: float, height: int = 256, width: int = 270, count: int = 2) -> tuple[Tensor, Tensor]:
    """Decoded pictures and their originals, values of eight bits."""
    x = torch.stack([torch.from_numpy(tiny.picture(height, width, seed=seed)) for seed in range(count)])
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    x_hat = (x + sigma * noise).round().clamp(0, 255)
    return tuple(t.permute(0, 3, 1, 2).float() / 255 for t in (x_hat, x))  # type: ignore[return-value]


@pytest.mark.parametrize("sigma", [0.5, 2.0, 8.0, 40.0])
def test_distance_is_what_the_score_lacks(sigma: float) -> None:
    x_hat, x = pictures(sigma)
    found = ssimulacra2_distance(x_hat, x)
    for one, a, b in zip(found, x, x_hat, strict=True):
        rgb = [(255 * p).round().byte().permute(1, 2, 0).numpy() for p in (a, b)]
        assert one.item() == pytest.approx(100 - metrics.ssimulacra2(*rgb), abs=0.05)


def test_the_gradient_of_the_distance_is_its_slope() -> None:
    x_hat, x = (t.double() for t in pictures(4.0, 256, 256, 1))
    x_hat.requires_grad_()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    ssimulacra2_distance(x_hat, x).sum().backward()
    assert x_hat.grad is not None
    slope = (x_hat.grad * direction).flatten(1).sum(1)
    step = 1e-3
    with torch.no_grad():
        ends = [ssimulacra2_distance(x_hat + s * step * direction, x) for s in (1, -1)]
    torch.testing.assert_close((ends[0] - ends[1]).double() / (2 * step), slope, rtol=0.03, atol=0.5)


@pytest.mark.parametrize("sigma", [0.0, 300.0])
def test_gradients_are_finite_at_both_ends(sigma: float) -> None:
    x_hat, x = pictures(sigma)
    for name, (distortion, _) in DISTORTIONS.items():
        leaf = x_hat.clone().requires_grad_()
        found = distortion(leaf, x)
        found.sum().backward()
        assert leaf.grad is not None
        assert torch.isfinite(found).all(), name
        assert torch.isfinite(leaf.grad).all(), name
        if not sigma:
            # The roots of the score have no slope at nothing: a little is added under them.
            assert found.abs().max() < (0.6 if name == "ssimulacra2" else 1e-5), name


def test_squared_and_colour_errors() -> None:
    x_hat, x = pictures(5.0)
    assert torch.allclose(squared_error(x_hat, x), metrics.mse(x_hat, x) * 255**2)
    grey = (x + 0.1) - x
    assert chroma_error(x + grey, x).max() < 1e-6  # all channels alike: no colour
    # Cb of pure blue is 127.5, Cr -0.081312 * 255.
    blue = torch.zeros_like(x)
    blue[:, 2] = 1.0
    want = ((0.5 * 255) ** 2 + (0.081312 * 255) ** 2) / 2
    assert chroma_error(blue, torch.zeros_like(x)).tolist() == pytest.approx([want, want], rel=1e-5)


def test_structure() -> None:
    x_hat, x = pictures(9.0)
    torch.testing.assert_close(structural_dissimilarity(x_hat, x), 1 - metrics.ms_ssim(x_hat, x))


def test_mixtures_are_weighted_sums_in_the_unit_of_squared_error() -> None:
    x_hat, x = pictures(6.0)
    lmbda = torch.tensor([0.001, 0.1])
    assert torch.allclose(Mixture({"mse": 1.0})(x_hat, x, lmbda), squared_error(x_hat, x))
    parts = [Mixture({name: weight})(x_hat, x, lmbda) for name, weight in EYE.items()]
    torch.testing.assert_close(Mixture(EYE)(x_hat, x, lmbda), torch.stack(parts).sum(0))
    worth = Mixture({"ssimulacra2": 1.0})(x_hat, x, lmbda) / ssimulacra2_distance(x_hat, x)
    # A point is worth 2.7 where rates are lowest and less than a third of it at the other end of latens-base-6.
    assert worth[0] > worth[1] > 0.6
    assert Mixture({"ssimulacra2": 1.0, "mse": 0.0}).weights == {"ssimulacra2": 1.0}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"beauty": 1.0}, "'beauty': expected some of mse, chroma"),
        ({}, "one or more"),
        ({"mse": 0.0}, "one or more"),
        ({"mse": -1.0}, "at least 0"),
        ({"mse": math.nan}, "at least 0"),
        ({"mse": math.inf}, "at least 0"),
    ],
)
def test_mixtures_that_are_none(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Mixture(weights)


def test_pictures_without_all_scales_are_refused() -> None:
    x = torch.from_numpy(np.zeros((1, 3, 255, 300), np.float32))
    with pytest.raises(ShapeError, match="256 pixels or more, got 300x255"):
        ssimulacra2_distance(x, x)
