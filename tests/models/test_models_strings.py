"""Strings are those of the networks run plainly, one after the other, as CompressAI does, to the last bit."""

import pytest
import torch

from latens.models import (
    FactorizedPrior,
    JointAutoregressiveHierarchicalPriors,
    MeanScaleHyperprior,
    ScaleHyperprior,
)


@pytest.mark.parametrize("kind", [FactorizedPrior, ScaleHyperprior, MeanScaleHyperprior])
@torch.no_grad()
def test_of_hyperpriors(kind):
    torch.manual_seed(6)
    model = kind(48, 64).eval()
    model.g_a[6].weight.mul_(3000)  # latents of many values, some of them near a half
    x = torch.rand(1, 3, 256, 384)
    strings = model.compress(x)["strings"]
    y = model.g_a(x)
    if kind is FactorizedPrior:
        assert strings == [model.entropy_bottleneck.compress(y)]
        return
    z = model.h_a(y.abs() if kind is ScaleHyperprior else y)
    coded = model.entropy_bottleneck.compress(z)
    params = model.h_s(model.entropy_bottleneck.decompress(coded, z.shape[2:]))
    scales, means = (params, None) if kind is ScaleHyperprior else params.chunk(2, 1)
    gaussian = model.gaussian_conditional
    assert strings == [gaussian.compress(y, gaussian.build_indexes(scales), means), coded]
    assert len(strings[0][0]) > 10_000


@torch.no_grad()
def test_of_raster_models_that_are_asked_for_it(monkeypatch):
    torch.manual_seed(6)
    model = JointAutoregressiveHierarchicalPriors(32, 32, arithmetic="reference").eval()
    x = torch.rand(1, 3, 64, 64)
    seen = []
    monkeypatch.setattr(model, "_transform", lambda *_: seen.append("fast"))
    model.compress(x)
    assert seen == []
