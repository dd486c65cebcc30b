"""Coarse to fine: what weights say about sizes, and densities with heavier tails."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from recipe import image

import published
from latens.entropy_models import GaussianConditional, GeneralizedGaussianConditional
from latens.errors import ModelError, TableError
from latens.models.hpcm import HPCM, HPCMLarge

SMALL = published.STEPWISE["hpcm"]


@pytest.fixture(scope="module")
def model() -> HPCM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return HPCM(**SMALL).eval()


def test_weights_of_the_other_size_are_named(model: HPCM) -> None:
    large = HPCMLarge(**SMALL)
    with pytest.raises(ModelError, match="these weights are of HPCMLarge, another size than HPCM"):
        HPCM.from_state_dict(large.state_dict())
    with pytest.raises(ModelError, match="these weights are of HPCM, another size than HPCMLarge"):
        HPCMLarge.from_state_dict(model.state_dict())
    with pytest.raises(ModelError, match="M must be a multiple of 16"):
        HPCM(8, 24)
    with pytest.raises(ModelError, match="two pairs"):
        HPCM(8, 16, prior=((1,), (2, 3)))


def test_weights_from_before_gains_were_learned_and_without_fusion(model: HPCM) -> None:
    state = model.state_dict()
    assert all((state[f"adaptive_params_list.{i}"] == 1).all() for i in range(10))
    older = {k: v for k, v in state.items() if not k.startswith("adaptive_params_list")}
    again, x = HPCM.from_state_dict(older).eval(), image(1, 64, 64)
    assert again.compress(x)["strings"] == model.compress(x)["strings"]
    unfused = HPCM.from_state_dict({k: v for k, v in state.items() if not k.startswith("attn_")}).eval()
    code = unfused.compress(x)
    assert code["strings"][0] != model.compress(x)["strings"][0]
    assert unfused.decompress(code["strings"], code["shape"])["x_hat"].shape == x.shape


def test_tables_travel_with_weights(model: HPCM) -> None:
    state, x = model.state_dict(), image(1, 64, 64)
    assert state["quantized_cdf_y"].shape[0] == 60
    assert state["quantized_cdf_z"].shape[0] == SMALL["N"]
    strings = model.compress(x)["strings"]
    state["quantized_cdf_y"][0, 1] += 1
    other = deepcopy(model)
    other.load_state_dict(state)
    assert other.compress(x)["strings"][0] != strings[0]
    with torch.no_grad():
        other.scales_hyper.mul_(3)
    with pytest.warns(UserWarning, match="tables are made again"):
        assert other.compress(x)["strings"][1] != strings[1]
    assert other.update(force=True)
    assert other.compress(x)["strings"][0] == strings[0]
    with pytest.raises(TableError):
        other.load_state_dict({**state, "cdf_length_z": torch.zeros(3, dtype=torch.int32)})


def test_shape_two_is_a_gaussian() -> None:
    torch.manual_seed(0)
    values, scales = 3 * torch.randn(500, dtype=torch.float64), 0.2 + 5 * torch.rand(500, dtype=torch.float64)
    ours = GeneralizedGaussianConditional(beta=2.0).double()._likelihood(values, scales * 2**0.5)
    torch.testing.assert_close(
        ours, GaussianConditional(None)._likelihood(values, scales), rtol=1e-9, atol=1e-12
    )


def test_gradients_of_the_density() -> None:
    torch.manual_seed(0)
    density = GeneralizedGaussianConditional().double()
    values = torch.tensor([-2.0, -0.3, 0.0, 0.4, 5.0], dtype=torch.float64, requires_grad=True)
    scales = torch.tensor([0.5, 1.0, 0.7, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(density._likelihood, (values + 0.05, scales))


def test_scales_that_no_table_can_have(model: HPCM) -> None:
    other = deepcopy(model)
    for value in (1e9, torch.nan):
        with torch.no_grad():
            other.scales_hyper.fill_(value)
        with pytest.raises(TableError):
            other.update(force=True)
