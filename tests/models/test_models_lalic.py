"""Linear attention over all positions."""

from __future__ import annotations

import pytest
import torch
from recipe import image
from torch import Tensor

from latens.errors import ModelError
from latens.models.lalic import LALIC, wkv

SMALL = {"N": 4, "M": 12, "dims": (4, 6, 8, 6, 4), "depths": (1, 2, 1, 1), "groups": (2, 4, 6)}


def by_definition(decay: Tensor, boost: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    total = keys.shape[1]
    distance = (torch.arange(total)[:, None] - torch.arange(total)[None]).abs()[None, :, :, None]
    exponents = torch.where(distance == 0, boost + keys[:, None], keys[:, None] - (distance - 1) * decay)
    return (torch.softmax(exponents, 2) * values[:, None]).sum(2)


@pytest.mark.parametrize("total", [1, 2, 37])
@pytest.mark.parametrize("scale", [0.0, 0.05, 1.0])
def test_running_sums_are_the_definition(total: int, scale: float) -> None:
    torch.manual_seed(total)
    decay, boost = (torch.randn(5, dtype=torch.float64) * scale for _ in range(2))
    keys, values = (3 * torch.randn(2, total, 5, dtype=torch.float64) for _ in range(2))
    torch.testing.assert_close(wkv(decay, boost, keys, values), by_definition(decay, boost, keys, values))


def test_large_keys_do_not_overflow() -> None:
    keys = torch.tensor([1000.0, -1000.0, 1000.0]).view(1, 3, 1)
    out = wkv(torch.tensor([0.1]), torch.tensor([0.0]), keys, torch.tensor([1.0, 5.0, 3.0]).view(1, 3, 1))
    assert torch.isfinite(out).all()
    assert float(out[0, 1, 0]) == pytest.approx(2.0)


def test_gradients_flow_through_the_running_sums() -> None:
    torch.manual_seed(0)
    inputs = [
        torch.randn(n, dtype=torch.float64, requires_grad=True) for n in ((2,), (2,), (1, 5, 2), (1, 5, 2))
    ]
    assert torch.autograd.gradcheck(lambda d, b, k, v: wkv(d / 5, b / 5, k, v), inputs)


def small() -> LALIC:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return LALIC(**SMALL).eval()


def test_coding_and_the_sizes_found_in_weights() -> None:
    model, x = small(), image(2, 64, 128)
    code = model.compress(x)
    decoded = model.decompress(code["strings"], code["shape"])["x_hat"]
    with torch.no_grad():
        torch.testing.assert_close(decoded, model(x)["x_hat"].clamp(0, 1), rtol=1e-4, atol=1e-4)
    again = LALIC.from_state_dict(model.state_dict()).eval()
    assert (again.N, again.M, again.dims, again.depths, tuple(again.groups)) == tuple(SMALL.values())
    assert again.compress(x)["strings"] == code["strings"]


def test_what_it_refuses() -> None:
    with pytest.raises(ModelError, match="add up to M=12"):
        LALIC(**{**SMALL, "groups": (1, 2)})
    with pytest.raises(ModelError, match="dims must be five"):
        LALIC(**{**SMALL, "dims": (1, 2)})
    with pytest.raises(ModelError, match=r"h_s\[1\].*cannot be made exact"):
        small().compress(image(1, 64, 64), exact=True)
    with pytest.raises(ModelError, match=r"g_a\.0\.bias|gamma1"):
        LALIC.from_state_dict({k: v for k, v in small().state_dict().items() if k != "g_a.0.bias"})
