"""``compress(exact=True)``: the same latent on every machine, from the models' own methods."""

from typing import Any

import numpy as np
import pytest
import torch

from latens.convert import exact_entropy
from latens.errors import CoderError, LimitError, ModelError, ShapeError
from latens.models import (
    Cheng2020AnchorCheckerboard,
    Cheng2020GMM,
    CompressionModel,
    FactorizedPrior,
    JointAutoregressiveHierarchicalPriors,
    MeanScaleHyperprior,
    ScaleHyperprior,
    ScaleHyperpriorVbr,
)

MODELS = {
    "factorized": (lambda: FactorizedPrior(8, 12), {}),
    "scale": (lambda: ScaleHyperprior(8, 12), {}),
    "mean and scale": (lambda: MeanScaleHyperprior(8, 12), {}),
    "raster": (lambda: JointAutoregressiveHierarchicalPriors(8, 12), {}),
    "checkerboard": (lambda: Cheng2020AnchorCheckerboard(8), {}),
    "variable rate": (lambda: ScaleHyperpriorVbr(8, 12), {"s": 5}),
}


def lively(model: CompressionModel) -> CompressionModel:
    """With latents that are not all zero."""
    with torch.no_grad():
        last = [m for m in model.g_a.modules() if isinstance(m, torch.nn.Conv2d)][-1]
        last.weight *= 300.0
    return model.eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand((2, 3, 64, 128), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", MODELS)
def test_latents_are_those_of_the_integer_model(kind: str, images: torch.Tensor) -> None:
    torch.manual_seed(1)
    make, options = MODELS[kind]
    model = lively(make())
    coded = model.compress(images, exact=True, **options)
    seen: list[torch.Tensor] = []
    model._reconstruct = lambda g_s, y_hat: seen.append(y_hat) or y_hat  # type: ignore[method-assign,func-returns-value]
    decoded = model.decompress(coded["strings"], coded["shape"], exact=True, **options)
    (strings,) = coded["strings"]
    assert decoded["x_hat"].shape[0] == len(strings) == 2
    entropy = exact_entropy(model)
    for string, latent in zip(strings, seen[0], strict=True):
        own = entropy.decode(string[1:], tuple(coded["shape"]), options.get("s", 0), 0, string[0])
        np.testing.assert_array_equal(own.latent[0], latent.numpy())
    assert seen[0].unique().numel() > 20
    with torch.no_grad():
        y = model.g_a(images)
    if not options:
        assert (seen[0] - y).abs().max() <= 0.5 + 2**-8


def test_a_batch_is_coded_like_single_images(images: torch.Tensor) -> None:
    torch.manual_seed(1)
    model = lively(MeanScaleHyperprior(8, 12))
    both = model.compress(images, exact=True)["strings"][0]
    assert both == [model.compress(x[None], exact=True)["strings"][0][0] for x in images]


def test_changed_weights_are_converted_again(images: torch.Tensor) -> None:
    torch.manual_seed(1)
    model = lively(ScaleHyperprior(8, 12))
    before = model.compress(images, exact=True)
    assert model.compress(images, exact=True) == before
    with torch.no_grad():
        model.h_s[0].weight.mul_(4.0)
        model.h_s[-2].bias.add_(2.0)
    after = model.compress(images, exact=True)
    assert after["strings"] != before["strings"]
    model.decompress(after["strings"], after["shape"], exact=True)


def test_bad_input(images: torch.Tensor) -> None:
    model = lively(MeanScaleHyperprior(8, 12))
    coded = model.compress(images, exact=True)
    strings: Any = coded["strings"]
    with pytest.raises(ShapeError):
        model.decompress([strings[0], strings[0]], coded["shape"], exact=True)
    with pytest.raises(CoderError, match="number of its lanes"):
        model.decompress([[b"\x03" + strings[0][0][1:]]], coded["shape"], exact=True)
    with pytest.raises(CoderError, match="number of its lanes"):
        model.decompress([[b""]], coded["shape"], exact=True)
    with pytest.raises(CoderError):
        model.decompress([[strings[0][0][:-3]]], coded["shape"], exact=True)
    for size in ((1 << 20, 1 << 20), (1 << 40, 1)):
        with pytest.raises(LimitError, match="cannot hold"):
            model.decompress(strings, size, exact=True)
    with pytest.raises(ShapeError):
        model.compress(images[..., :100], exact=True)
    with pytest.raises(CoderError, match="not finite"):
        model.compress(images * torch.nan, exact=True)
    with pytest.raises(ModelError, match="mixtures"):
        Cheng2020GMM(8).eval().compress(images, exact=True)
    variable = ScaleHyperpriorVbr(8, 12).eval()
    for options in ({"s": 8}, {"stage": 1}, {"inputscale": 0.7}):
        with pytest.raises(ModelError, match="exact coding takes"):
            variable.compress(images, exact=True, **options)
