from __future__ import annotations

import pytest
import torch
from torch import Tensor

from latens.errors import ShapeError
from latens.layers import GDN, GDN1


def filled(kind: type[GDN], inverse: bool) -> GDN:
    torch.manual_seed(1)
    layer = kind(5, inverse=inverse).double()
    with torch.no_grad():
        layer.gamma.add_(torch.randn(5, 5) * 0.2)
        layer.beta.add_(torch.randn(5) * 0.3)
    return layer


def by_definition(layer: GDN, x: Tensor) -> Tensor:
    """The formulas of the papers, one loop per index."""
    pedestal = 2.0**-36
    gamma = layer.gamma.clamp(min=2.0**-18) ** 2 - pedestal
    beta = layer.beta.clamp(min=(1e-6 + pedestal) ** 0.5) ** 2 - pedestal
    simple = isinstance(layer, GDN1)
    out = torch.empty_like(x)
    for i in range(x.shape[1]):
        pool = beta[i].expand_as(x[:, i])
        for j in range(x.shape[1]):
            pool = pool + gamma[i, j] * (x[:, j].abs() if simple else x[:, j] ** 2)
        divisor = pool if simple else pool**0.5
        out[:, i] = x[:, i] * divisor if layer.inverse else x[:, i] / divisor
    return out


@pytest.mark.parametrize("kind", [GDN, GDN1])
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (3, 4), (33, 40)])
def test_formula_in_every_layout(
    kind: type[GDN], inverse: bool, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latens.layers.gdn._BLOCK_BYTES", 10_000)
    layer = filled(kind, inverse)
    x = torch.randn(2, 5, *size, dtype=torch.float64)
    before = x.clone()
    expected = by_definition(layer, x).detach()
    last = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        outputs = [layer(x), layer(last)]
    assert outputs[1].is_contiguous(memory_format=torch.channels_last)
    outputs += [layer(x), layer(last)]
    for out in outputs:
        torch.testing.assert_close(out.detach(), expected, rtol=1e-8, atol=1e-8)
    assert torch.equal(x, before)
    assert torch.equal(last, before)


@pytest.mark.parametrize("kind", [GDN, GDN1])
@pytest.mark.parametrize("inverse", [False, True])
def test_gradient(kind: type[GDN], inverse: bool) -> None:
    layer = filled(kind, inverse)
    x = torch.randn(1, 5, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


def test_new_layer_is_nearly_diagonal() -> None:
    layer = GDN(3)
    x = torch.randn(1, 3, 2, 2)
    torch.testing.assert_close(layer(x), x / torch.sqrt(1 + 0.1 * x**2))


@pytest.mark.parametrize("shape", [(1, 4, 2, 2), (5, 2, 2), (1, 5, 2)])
def test_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"expected \(batch, 5, height, width\)"):
        GDN(5)(torch.zeros(shape))


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_inplace_is_the_same_and_leaves_training_alone(inverse: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    plain, inplace = GDN(6, inverse), GDN(6, inverse, inplace=True)
    x = torch.randn(2, 6, 40, 30).contiguous(memory_format=torch.channels_last).to(dtype)
    with torch.no_grad():
        expected = plain(x)
        given = x.clone(memory_format=torch.preserve_format)
        found = inplace(given)
    assert torch.equal(found, expected)
    assert found.data_ptr() == given.data_ptr()
    exact = plain(x.float().contiguous())
    torch.testing.assert_close(
        found.float(), exact, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-3
    )
    if dtype == torch.float32:
        before = x.clone()
        inplace(x).sum().backward()
        assert torch.equal(x, before)


def test_fast_models_decode_their_own_strings() -> None:
    from latens.models import MeanScaleHyperprior

    torch.manual_seed(0)
    model = MeanScaleHyperprior(8, 12).eval()
    x = torch.rand(1, 3, 64, 64)
    model.fast = True
    code = model.compress(x)
    fast = model.decompress(code["strings"], code["shape"])["x_hat"]
    model.fast = False
    exact = model.decompress(code["strings"], code["shape"])["x_hat"]
    assert fast.dtype == torch.float32
    assert not torch.equal(fast, exact)
    torch.testing.assert_close(fast, exact, rtol=0.02, atol=0.02)
