from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latens.errors import ShapeError
from latens.ops import LowerBound, NonNegativeParametrizer, compute_padding, lower_bound, quantize_ste

finite = st.floats(-1e3, 1e3, width=32)


@settings(deadline=None)
@given(finite, finite, finite)
def test_lower_bound_passes_gradients_that_stay_or_lead_inside(x: float, bound: float, grad: float) -> None:
    value = torch.tensor([x], requires_grad=True)
    out = LowerBound(bound)(value)
    assert out.item() == max(x, torch.tensor(bound).item())
    out.backward(torch.tensor([grad]))
    inside = value.item() >= torch.tensor(bound).item()
    assert value.grad is not None
    assert value.grad.item() == (grad if inside or grad < 0 else 0)


def test_lower_bound_takes_numbers_and_tensors() -> None:
    x = torch.tensor([-1.0, 2.0])
    assert lower_bound(x, 0.5).tolist() == [0.5, 2.0]
    assert lower_bound(x, torch.tensor([3.0, 1.0])).tolist() == [3.0, 2.0]
    assert LowerBound(0.5).lower_bound(x).tolist() == [0.5, 2.0]
    assert list(LowerBound(0.5).state_dict()) == ["bound"]


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e3, width=32), min_size=1, max_size=8), st.floats(0, 10, width=32))
def test_parametrizer_hands_out_what_was_put_in(values: list[float], minimum: float) -> None:
    parametrizer = NonNegativeParametrizer(minimum).double()
    x = torch.tensor(values, dtype=torch.float64)
    out = parametrizer(parametrizer.init(x))
    # The bound is stored in float32.
    torch.testing.assert_close(out, x.clamp(min=minimum), rtol=1e-6, atol=1e-9)


def test_round_has_gradient_of_identity() -> None:
    x = torch.tensor([-2.5, -0.4, 0.5, 1.5, 1e7 + 1], requires_grad=True)
    out = quantize_ste(x)
    assert out.tolist() == [-2.0, 0.0, 0.0, 2.0, 1e7 + 1]
    (out * torch.arange(5.0)).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 2, 3, 4]


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([1, 2, 16, 64]))
def test_padding_centres_and_is_undone(height: int, width: int, step: int) -> None:
    (left, right, top, bottom), unpad = compute_padding(height, width, min_div=step)
    assert (height + top + bottom) % step == (width + left + right) % step == 0
    assert 0 <= right - left <= 1
    assert 0 <= bottom - top <= 1
    assert left + right < step
    assert top + bottom < step
    assert unpad == (-left, -right, -top, -bottom)


def test_padding_to_a_given_size() -> None:
    assert compute_padding(10, 10, out_h=71, out_w=84)[0] == (37, 37, 30, 31)
    assert compute_padding(5, 5, out_h=2, out_w=3)[0] == (-1, -1, -2, -1)
    with pytest.raises(ShapeError, match="out_h must be a multiple of min_div=4, but it is 7"):
        compute_padding(5, 5, out_h=7, min_div=4)
    with pytest.raises(ShapeError, match="at least 1"):
        compute_padding(5, 5, min_div=0)
