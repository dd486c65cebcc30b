"""The default model: its parts against SciPy and definitions, its frozen form, and what estimates promise."""

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from latens import format as ltn
from latens.codec import ImageCodec
from latens.convert import freeze
from latens.convert.networks import draw_symbols
from latens.errors import ModelError, TableError
from latens.io import Image
from latens.models.latens_base import (
    LatensBase,
    LatensBaseConfig,
    LogisticMixturePrior,
    _Bounded,
    first_step_mask,
    gaussian_likelihood,
)
from latens.runtime.factors import QUALITY_MAX
from latens.runtime.picture import PictureModel
from latens.runtime.released import ReleasedPictures
from latens.train.objectives import rate_and_distortion

SCALES = np.geomspace(0.11, 256.0, 64)


@pytest.fixture(scope="module")
def network(tiny_model: ReleasedPictures) -> LatensBase:
    return tiny_model.base


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def pixels(height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(tiny.picture(height, width)).permute(2, 0, 1)[None] / 255.0


def indexes_of(model: PictureModel, z: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Table indexes of y ``(C, H, W)`` by the integer network."""
    found = model.networks["h_scale"].run(np.ascontiguousarray(z.transpose(1, 2, 0)))
    return np.ascontiguousarray(found.transpose(2, 0, 1))


# ---- probabilities


def test_gaussian_likelihood_is_the_mass_of_the_unit_interval() -> None:
    sigma, value = np.meshgrid(SCALES, np.arange(-40, 41, 2.5))
    got = gaussian_likelihood(torch.from_numpy(value), torch.from_numpy(np.log(sigma))).numpy()
    far = np.abs(value)  # the survival function keeps small tails
    want = scipy.stats.norm.sf(far - 0.5, scale=sigma) - scipy.stats.norm.sf(far + 0.5, scale=sigma)
    np.testing.assert_allclose(got, np.maximum(want, 1e-9), rtol=1e-6)


def test_prior_of_z_is_a_mixture_of_logistic_distributions(network: LatensBase) -> None:
    prior = copy.deepcopy(network.prior).double()
    assert isinstance(prior, LogisticMixturePrior)
    z = torch.linspace(-9, 9, 37, dtype=torch.float64).expand(2, tiny.CONFIG.hyper, 1, -1)
    got = prior(z, torch.tensor([0, 3])).numpy()
    for row, knot in enumerate((0, 3)):
        for channel in (0, 7):
            mean = (prior.mean + prior.delta[knot, 0])[channel].detach().numpy()
            scale = np.exp((prior.log_scale + prior.delta[knot, 1])[channel].detach().numpy())
            weight = scipy.special.softmax((prior.logit + prior.delta[knot, 2])[channel].detach().numpy())
            at = z[0, 0, 0].numpy()[:, None]
            cdf = [scipy.stats.logistic.cdf(at + side, mean, scale) @ weight for side in (-0.5, 0.5)]
            np.testing.assert_allclose(got[row, channel, 0], cdf[1] - cdf[0], rtol=1e-6, atol=1e-12)


def test_bounded_passes_gradients_that_lead_back() -> None:
    t = torch.tensor([-1.0, -1.0, 5.0, 5.0, 12.0, 12.0], requires_grad=True)
    out: torch.Tensor = _Bounded.apply(t, 10.0)  # type: ignore[no-untyped-call]
    assert out.tolist() == [0, 0, 5, 5, 10, 10]
    out.backward(torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0]))
    assert t.grad is not None
    # Descent moves against the gradient: below the range only a rise, above it only a fall may pass.
    assert t.grad.tolist() == [0, -1, 1, -1, 1, 0]


# ---- the parts


@given(st.integers(1, 9), st.integers(1, 7), st.integers(1, 7))
def test_first_step_is_a_checkerboard_that_swaps_colours_half_way(c: int, h: int, w: int) -> None:
    mask = first_step_mask(torch.zeros(2, c, h, w))
    assert mask.shape == (1, c, h, w)
    for k in range(c):
        for y in range(h):
            for x in range(w):
                assert mask[0, k, y, x] == ((y + x + (k >= c // 2)) % 2 == 0)


def test_linear_path_of_a_full_rank_start_is_the_identity() -> None:
    torch.manual_seed(0)
    model = LatensBase(
        LatensBaseConfig(
            N=192, M=768, inner=8, hyper=8, analysis_blocks=(1, 1), synthesis_blocks=(1, 1), knots=2
        )
    )
    model.initialise_from_patches(torch.rand(2000, 3, 16, 16))
    x = pixels(64, 128)
    for q in (0.0, 0.37, 1.0):
        quality = torch.tensor([q])
        with torch.no_grad():
            again = model.synthesise(model.analyse(x, quality), quality)
        torch.testing.assert_close(again, x, atol=2e-5, rtol=0)


def test_quality_moves_lambda_and_gains_on_a_logarithmic_scale(network: LatensBase) -> None:
    c = tiny.CONFIG
    ends = network.lmbda(torch.tensor([0.0, 1.0, 0.5]))
    want = torch.tensor([c.lambda_min, c.lambda_max, math.sqrt(c.lambda_min * c.lambda_max)])
    torch.testing.assert_close(ends, want)
    knots = torch.arange(c.knots) / (c.knots - 1)
    torch.testing.assert_close(network.gain(knots)[:, :, 0, 0], network.log_gain.exp())
    between = network.gain(torch.tensor([1.5 / (c.knots - 1)]))[0, :, 0, 0]
    torch.testing.assert_close(between, ((network.log_gain[1] + network.log_gain[2]) / 2).exp())


def test_another_range_of_lambda_keeps_what_belongs_to_a_lambda(network: LatensBase) -> None:
    """At the knots of the new range everything is as at that lambda of the old one; beyond, gains go on as before."""
    old = network.config
    other = network.with_range(old.lambda_min / 3, old.lambda_max * 4)
    assert (other.config.lambda_min, other.config.lambda_max) == (old.lambda_min / 3, old.lambda_max * 4)
    knots = torch.linspace(0, 1, old.knots)
    lmbda = other.lmbda(knots)
    same = torch.log(lmbda / old.lambda_min) / math.log(old.lambda_max / old.lambda_min)
    inside = (same >= 0) & (same <= 1)
    assert 0 < inside.sum() < old.knots
    y = torch.randn(int(inside.sum()), old.M, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(
            other.synthesise(y, knots[inside]), network.synthesise(y, same[inside]), rtol=1e-4, atol=1e-4
        )
        # The step of the quantiser keeps falling with the root of lambda.
        slope = (network.log_gain[-1] - network.log_gain[-2]) * (old.knots - 1)
        want = network.log_gain[-1] + slope * (same[-1] - 1)
        torch.testing.assert_close(other.log_gain[-1], want, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(other.out_scale[-1], network.out_scale[-1])
    with pytest.raises(ModelError):
        network.with_range(0.2, 0.1)


def test_first_means_need_nothing_and_second_means_only_the_first(network: LatensBase) -> None:
    torch.manual_seed(3)
    q = torch.tensor([0.4])
    features = network.means(torch.randint(-3, 4, (1, tiny.CONFIG.hyper, 2, 2)).float())
    y = torch.randn(1, tiny.CONFIG.M, 8, 8)
    first = first_step_mask(y)
    base = network.second_mean(features, y * first, q)
    # The context is alive, and what it says about the first positions is not used by them.
    assert (base - network.second_mean(features, torch.zeros_like(y), q)).abs().max() > 1e-3
    y_other = torch.where(first, y, torch.randn_like(y))
    torch.testing.assert_close(network.second_mean(features, y_other * first, q), base)


# ---- the frozen form


def test_freezing_is_deterministic_and_leaves_the_model_alone(threads: None) -> None:
    model = tiny.network()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    ids = set()
    for count in (1, 2):
        torch.set_num_threads(count)
        ids.add(freeze(model).entropy_id)
    assert len(ids) == 1
    for key, value in model.state_dict().items():
        assert value.dtype == before[key].dtype
        assert torch.equal(value, before[key])


def test_frozen_tables_are_the_distributions(tiny_model: ReleasedPictures) -> None:
    entropy, c = tiny_model.model, tiny.CONFIG
    for index in (0, 3, 20, 63):
        row, offset = entropy.y_tables.rows(index, index + 1)[0], int(entropy.y_tables.offsets[index])
        at = np.arange(offset, offset + len(row) - 2)
        # Gaussians whose scales are a fifth apart, as a rule, and together of the variance of one.
        u = np.linspace(-6, 6, 2001)
        scales = SCALES[index] * np.exp(0.2 * u - 0.2**2)[:, None]
        bins = scipy.stats.norm.cdf((at + 0.5) / scales) - scipy.stats.norm.cdf((at - 0.5) / scales)
        want = np.average(bins, axis=0, weights=scipy.stats.norm.pdf(u))
        assert np.average(scales[:, 0] ** 2, weights=scipy.stats.norm.pdf(u)) == pytest.approx(
            SCALES[index] ** 2, rel=1e-4
        )
        # Every symbol has at least one of 65,536 slots, which wide tables feel.
        np.testing.assert_allclose(np.diff(row)[:-1] / 2**16, want, atol=3e-3 if index == 63 else 2e-4)
    prior = copy.deepcopy(tiny_model.base.prior).double()
    for knot in (0, c.knots - 1):
        for channel in (0, 5):
            number = knot * c.hyper + channel
            row, offset = entropy.z_tables.rows(number, number + 1)[0], int(entropy.z_tables.offsets[number])
            at = torch.arange(offset, offset + len(row) - 2).double()
            z = at.expand(1, c.hyper, 1, -1)
            want = prior(z, torch.tensor([knot]))[0, channel, 0].detach().numpy()
            np.testing.assert_allclose(np.diff(row)[:-1] / 2**16, want, atol=2e-4)
            assert want.sum() > 1 - 1e-3


def test_integer_indexes_follow_the_float_network(tiny_model: ReleasedPictures) -> None:
    z = np.random.default_rng(0).integers(-6, 7, (tiny.CONFIG.hyper, 6, 5)).astype(np.int16)
    with torch.no_grad():
        real = copy.deepcopy(tiny_model.base.h_scale).double()(torch.from_numpy(z)[None].double())[0].numpy()
    got = indexes_of(tiny_model.model, z)
    assert len(np.unique(got)) > 8
    assert (got != np.clip(np.round(real), 0, 63)).mean() < 0.01
    assert np.abs(got - real.clip(0, 63)).max() < 0.52


@pytest.mark.parametrize("name", ["h_scale.0.weight", "prior.mean", "prior.log_scale", "prior.logit"])
def test_weights_that_are_not_numbers_cannot_be_frozen(name: str) -> None:
    model = tiny.network()
    with torch.no_grad():
        model.get_parameter(name).view(-1)[0] = math.nan
    with pytest.raises((ModelError, TableError)):
        freeze(model)


# ---- what training estimates is what files weigh


@pytest.mark.parametrize("q", [0, 50, 100])
def test_the_training_pass_with_hard_rounding_is_the_codec(
    tiny_model: ReleasedPictures, q: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the skip rule, which training does not know."""
    codec = ImageCodec(tiny_model)
    monkeypatch.setattr(tiny_model, "skip", 0)
    container = ltn.read(codec.encode(Image(tiny.picture(256, 320)), q))
    decoded, _ = codec.decode(container)
    x = pixels(256, 320)
    with torch.no_grad():
        out = tiny.network().eval()(x, torch.tensor([q / 100]), noise=False)
    estimated = (out["x_hat"][0].permute(1, 2, 0) * 255).round().clamp(0, 255).numpy()
    difference = np.abs(estimated - decoded.pixels)
    # Rounding is a matter of luck where floats and integers differ in their last bits: a few symbols may flip.
    assert (difference > 1).mean() < 0.04
    coding_error = np.square(decoded.pixels - tiny.picture(256, 320).astype(float)).mean()
    assert np.square(difference).mean() < 0.04 * coding_error
    assert container.tiles[0] is not None
    bits = float(rate_and_distortion(out, x)[0]) * x[0, 0].numel()
    # Not closer at high quality: random weights make outliers, whose likelihood ends at 1e-9 and whose code does not.
    assert len(container.tiles[0].stream) == pytest.approx(bits / 8, rel=0.15)


@pytest.mark.parametrize("skip", [0, 4, 12])
@pytest.mark.parametrize("knot", range(tiny.CONFIG.knots))
def test_estimated_rate_is_what_the_stream_weighs(tiny_model: ReleasedPictures, knot: int, skip: int) -> None:
    """Within 0.5 % and 16 bytes, for symbols that follow the distributions; the estimate is all float."""
    model, network = tiny_model.model, tiny_model.base
    channels, side = tiny.CONFIG.hyper, 12
    rng = np.random.default_rng([knot, skip])
    first = knot * channels
    rows = model.z_tables.rows(first, first + channels)
    z = draw_symbols(
        rows, model.z_tables.offsets[first : first + channels], (side, side), int(rng.integers(1000))
    )
    z = z.astype(np.int16)
    indexes = indexes_of(model, z)
    coded = torch.from_numpy(indexes >= skip)
    with torch.no_grad():
        z_hat = torch.from_numpy(z)[None].float()
        log_scale = network.h_scale(z_hat)[0].clamp(0, 63) * np.log(SCALES[1] / SCALES[0]) + np.log(SCALES[0])
        y = np.rint(rng.normal(0, np.exp(log_scale.numpy()))).astype(np.int16) * coded.numpy()
        bits_of_y = -torch.log2(gaussian_likelihood(torch.from_numpy(y).float(), log_scale))
        bits = -torch.log2(network.prior(z_hat, torch.tensor([knot]))).sum() + bits_of_y[coded].sum()
    y, by_position = (np.ascontiguousarray(a.transpose(1, 2, 0)) for a in (y, indexes.astype(np.uint8)))
    quality = round(knot / (tiny.CONFIG.knots - 1) * QUALITY_MAX)
    assert model.knot(quality) == knot
    _, size = model.weigh(z, y, by_position, quality, skip)
    assert 8 * size > 3 * channels * side**2
    assert abs(size - 5 - float(bits) / 8) < 0.005 * float(bits) / 8 + 16
    assert 0 < (~coded).float().mean() < 0.9 if skip else coded.all()


def test_likelihoods_have_the_shapes_of_the_latents(network: LatensBase) -> None:
    x = pixels(64, 128).repeat(2, 1, 1, 1)
    out = network(x, torch.tensor([0.1, 0.9]))
    assert out["x_hat"].shape == x.shape
    assert out["likelihoods"]["y"].shape == (2, tiny.CONFIG.M, 4, 8)
    assert out["likelihoods"]["z"].shape == (2, tiny.CONFIG.hyper, 1, 2)
    for likelihood in out["likelihoods"].values():
        assert 1e-9 <= likelihood.min() <= likelihood.max() <= 1.0 + 1e-6


# ---- configurations, which come from files


def test_configuration_round_trip() -> None:
    import json

    for config in (LatensBaseConfig(), tiny.CONFIG):
        assert LatensBaseConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    "change",
    [
        {"N": 0}, {"N": 1}, {"N": -4}, {"M": 4096}, {"M": 10**12}, {"inner": 2.0}, {"hyper": True}, {"knots": 1},
        {"knots": "16"}, {"analysis_blocks": (1,)}, {"analysis_blocks": (1, 2, 3), "synthesis_blocks": (1,)},
        {"analysis_blocks": (1, 65)}, {"synthesis_blocks": (-1, 1)}, {"synthesis_blocks": (1.5, 1)},
        {"lambda_min": 0.0}, {"lambda_min": 1.0, "lambda_max": 0.5}, {"lambda_max": math.inf},
        {"lambda_max": math.nan},
    ],
    ids=str,
)  # fmt: skip
def test_absurd_configurations_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="model configuration"):
        LatensBaseConfig(**change)
