"""Models of variable rate, beside the numbers of the reference."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from recipe import fill, image, numbers

import latens.models
from latens.entropy_models import EntropyBottleneck, EntropyBottleneckVbr, EntropyModelVbr
from latens.errors import ModelError
from latens.models import JointAutoregressiveHierarchicalPriorsVbr, MeanScaleHyperpriorVbr, ScaleHyperpriorVbr

NAMES = pytest.mark.parametrize(
    "name", ["ScaleHyperpriorVbr", "MeanScaleHyperpriorVbr", "JointAutoregressiveHierarchicalPriorsVbr"]
)


def make(name: str, **arguments: Any) -> Any:
    torch.manual_seed(0)
    model = getattr(latens.models, name)(4, 6, **arguments)
    fill(model)
    return model.eval()


@NAMES
@pytest.mark.parametrize(
    "options", [{"s": s} for s in (0, 3, 7)] + [{"inputscale": 0.3}, {"stage": 1}], ids=str
)
def test_what_is_coded_is_what_was_computed(name: str, options: dict[str, Any]) -> None:
    model, x = make(name), image(2, 64, 64)
    code = model.compress(x, **options)
    decoded = model.decompress(code["strings"], code["shape"], **options)["x_hat"]
    with torch.no_grad():
        expected = model(x, **options)["x_hat"].clamp(0, 1)
    if "stage" not in options or not name.startswith("Joint"):
        torch.testing.assert_close(decoded, expected, rtol=1e-4, atol=1e-4)


@NAMES
def test_rate_rises_with_quality(name: str) -> None:
    model, x = make(name), image(1, 128, 64)
    sizes = [len(model.compress(x, s=s)["strings"][0][0]) for s in (1, 3, 5, 7)]
    assert sizes == sorted(set(sizes))


@NAMES
def test_wrong_options(name: str) -> None:
    model, x = make(name), image(1, 64, 64)
    code = model.compress(x)
    for options in (
        {"stage": 3},
        {"s": 8},
        {"s": -1},
        {"inputscale": float("nan")},
    ):
        for call in (
            lambda o=options: model.compress(x, **o),
            lambda o=options: model.decompress(**code, **o),
        ):
            with pytest.raises(ModelError):
                call()
    with pytest.raises(ModelError, match="stage must be"):
        model(x, stage=0)
    # As in the reference, forward takes the nearest quality there is.
    with torch.no_grad():
        assert torch.equal(model(x, s=99)["x_hat"], model(x, s=7)["x_hat"])


def test_nan_in_the_offsets() -> None:
    model, x = make("ScaleHyperpriorVbr"), image(1, 64, 64)
    code = model.compress(x, s=7)
    with torch.no_grad():
        model.QuantABCD[2].weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="NaN"):
        model.decompress(code["strings"], code["shape"], s=7)


def test_no_steps_of_z_for_the_autoregressive_model() -> None:
    with pytest.raises(ModelError, match="vr_entbttlnck"):
        JointAutoregressiveHierarchicalPriorsVbr(4, 6, vr_entbttlnck=True)


# -- steps of z ----------------------------------------------------------------------------------------------


def test_from_state_dict_finds_the_steps() -> None:
    model = make("MeanScaleHyperpriorVbr", vr_entbttlnck=True)
    again = MeanScaleHyperpriorVbr.from_state_dict(model.state_dict())
    assert isinstance(again.entropy_bottleneck, EntropyBottleneckVbr)
    assert list(again.state_dict()) == list(model.state_dict())


def test_tables_of_the_step_cost_less() -> None:
    x = image(1, 256, 256)
    ours, fixed = (make("ScaleHyperpriorVbr", vr_entbttlnck=True) for _ in range(2))
    for model in (ours, fixed):
        with torch.no_grad():
            model.gayn2zqstep[4].bias.fill_(4.0)
    fixed.update()
    sizes = [len(model.compress(x, s=5)["strings"][1][0]) for model in (ours, fixed)]
    assert sizes[0] < sizes[1]
    with pytest.raises(ModelError):
        ours.update(scale=float("inf"))


def test_tables_follow_the_step_unless_made_by_hand() -> None:
    bottleneck = EntropyBottleneckVbr(3).eval()
    fill(bottleneck)
    z = 6 * numbers("z", 2, 3, 4, 5)
    for step in (0.5, 2.0, None, 0.75):
        strings = bottleneck.compress(z, qs=step)
        decoded = bottleneck.decompress(strings, (4, 5), qs=step)
        torch.testing.assert_close(decoded, bottleneck.dequantized(z, qs=step))
        assert (decoded - z).abs().max() <= (step or 1) / 2 + 1e-5
    lengths = bottleneck.cdf_length.clone()
    assert bottleneck.update_variable(force=True, qs=4.0)
    assert not bottleneck.update_variable(qs=1.0)
    assert (bottleneck.cdf_length < lengths).all()
    kept = bottleneck.cdf_length.clone()
    bottleneck.compress(z, qs=0.5)
    assert torch.equal(bottleneck.cdf_length, kept)
    other = EntropyBottleneckVbr(3).eval()
    other.load_state_dict(bottleneck.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert other.compress(z, qs=0.5) == bottleneck.compress(z, qs=0.5)
    with torch.no_grad():
        other._matrix0.add_(0.1)
    with pytest.warns(UserWarning, match="changed"):
        other.compress(z, qs=0.5)


def test_without_steps_it_is_the_ordinary_bottleneck() -> None:
    torch.manual_seed(0)
    ordinary = EntropyBottleneck(3).eval()
    steps = EntropyBottleneckVbr(3).eval()
    steps.load_state_dict(ordinary.state_dict())
    assert [k for k in steps.state_dict() if "_matrix" in k] == [f"_matrix{i}" for i in range(5)]
    x = 4 * numbers("x", 2, 3, 4, 4)
    for a, b in zip(ordinary(x), steps(x), strict=True):
        torch.testing.assert_close(a, b)
    assert steps.compress(x) == ordinary.compress(x)
    torch.testing.assert_close(steps.loss(), ordinary.loss())


def test_mass_adds_up_whatever_the_step() -> None:
    bottleneck = EntropyBottleneckVbr(2).double()
    step = torch.tensor(0.4)
    points = torch.arange(-4000, 4001).double() * 0.4
    mass, _, _ = bottleneck._likelihood_variable(points.expand(2, 1, -1), qs=step.double())
    torch.testing.assert_close(mass.sum(-1), torch.ones(2, 1, dtype=torch.float64), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("step", [0.0, -1.0, float("nan"), torch.ones(2)])
def test_wrong_steps(step: Any) -> None:
    bottleneck = EntropyBottleneckVbr(3)
    x = torch.zeros(1, 3, 2, 2)
    for call in (lambda: bottleneck(x, qs=step), lambda: bottleneck.compress(x, qs=step)):
        with pytest.raises(ModelError, match="step must be"):
            call()


def test_rounded_with_straight_through_gradients() -> None:
    bottleneck = EntropyBottleneckVbr(3)
    x = (4 * numbers("x", 1, 3, 4, 4)).requires_grad_()
    y, _ = bottleneck(x, qs=torch.tensor(0.5), ste=True)
    y.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    assert isinstance(ScaleHyperpriorVbr(4, 6, vr_entbttlnck=True).aux_loss(), torch.Tensor)


# As CompressAI 1.2.8 has them.
VARIABLE = [
    ("dequantize", None, None, [0.0, 2.0, -3.0]),
    ("dequantize", None, 0.5, [0.5, 1.5, -2.5]),
    ("dequantize", 0.1, None, [0.1, 2.1, -2.9]),
    ("dequantize", 0.1, 0.5, [0.1, 1.6, -2.4]),
    ("symbols", None, 0.5, [1, 3, -5]),
    ("symbols", 0.1, 0.5, [0, 3, -5]),
]


@pytest.mark.parametrize(("mode", "mean", "step", "expected"), VARIABLE)
def test_quantising_with_a_step(
    mode: str, mean: float | None, step: float | None, expected: list[float]
) -> None:
    model = EntropyModelVbr()
    x = torch.tensor([[[0.3, 1.7, -2.6]]])
    means = None if mean is None else torch.full((1, 1, 1), mean)
    qs = None if step is None else torch.tensor(step)
    found = model.quantize_variable(x, mode, means, qs)
    torch.testing.assert_close(found, torch.tensor([[expected]], dtype=found.dtype))
    if mode == "symbols":
        latent = model.quantize_variable(x, "dequantize", means, qs)
        torch.testing.assert_close(model.dequantize_variable(found, means, qs=qs), latent)


def test_noise_is_as_wide_as_the_step() -> None:
    noise = EntropyModelVbr().quantize_variable(torch.zeros(1, 1, 10_000), "noise", None, torch.tensor(0.25))
    assert 0.124 < noise.max() <= 0.125
    assert -0.125 <= noise.min() < -0.124


def test_a_bare_model_codes_with_steps() -> None:
    model = EntropyModelVbr()
    model._quantized_cdf = torch.linspace(0, 2**16, 10).round().int()[None]
    model._cdf_length, model._offset = torch.tensor([10]).int(), torch.tensor([-4]).int()
    x, means, step = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.tensor(0.7)
    indexes = torch.zeros(x.shape).int()
    strings = model.compress(x, indexes, means, step)
    found = model.decompress(strings, indexes, torch.float32, means, step)
    torch.testing.assert_close(found, model.quantize_variable(x, "dequantize", means, step))
    assert model.decompress(model.compress(x, indexes), indexes).equal(torch.round(x))
