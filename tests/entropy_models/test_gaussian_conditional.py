from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from latens.entropy_models import GaussianConditional
from latens.entropy_models.gaussian import get_scale_table
from latens.errors import CoderError, ModelError, ShapeError, TableError

SIZE = (2, 3, 8, 9)


def case(spread: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, scales and means."""
    torch.manual_seed(0)
    scales = torch.exp(torch.randn(SIZE) * 1.5)
    means = torch.randn(SIZE) * 3
    return means + spread * scales * torch.randn(SIZE), scales, means


def test_scale_table() -> None:
    table = get_scale_table()
    assert table.shape == (64,)
    assert table[0].item() == pytest.approx(0.11)
    assert table[-1].item() == pytest.approx(256)
    ratios = table[1:] / table[:-1]
    torch.testing.assert_close(ratios, ratios[:1].expand(63))


def test_likelihood_is_the_integral_of_the_density() -> None:
    y, scales, means = (t.double() for t in case())
    values, likelihoods = GaussianConditional(None).double()(y, scales, means, training=False)
    distance = torch.round(y - means)
    torch.testing.assert_close(values, distance + means)
    sigma = scales.clamp(min=0.11).numpy()
    expected = norm.cdf(distance + 0.5, scale=sigma) - norm.cdf(distance - 0.5, scale=sigma)
    torch.testing.assert_close(likelihoods, torch.from_numpy(expected).clamp(min=1e-9), rtol=1e-6, atol=1e-12)


def test_far_tail_is_bounded_and_pulls_back() -> None:
    y = torch.tensor([[60.0]], requires_grad=True)
    scales = torch.tensor([[0.5]], requires_grad=True)
    _, likelihoods = GaussianConditional(None)(y, scales, training=False)
    assert likelihoods.item() == pytest.approx(1e-9)
    small = torch.tensor([[0.01]], requires_grad=True)
    _, likelihoods = GaussianConditional(None)(torch.ones(1, 1), small, training=False)
    likelihoods.sum().backward()
    # A scale below its bound may still grow.
    assert small.grad is not None
    assert small.grad.item() >= 0


def test_indexes_equal_the_definition() -> None:
    model = GaussianConditional(None)
    table = get_scale_table()
    at_the_edges = torch.cat([table, table * (1 + 1e-6), table * (1 - 1e-6), torch.tensor([0.0, 1e-9, 1e9])])
    scales = torch.cat([at_the_edges, torch.exp(torch.randn(4000) * 3)])
    expected = torch.full(scales.shape, 63)
    for i in reversed(range(63)):
        expected[scales.clamp(min=0.11) <= table[i]] = i
    indexes = model.build_indexes(scales)
    assert indexes.dtype == torch.int32
    assert torch.equal(indexes, expected.int())
    assert torch.equal(model.build_indexes(scales.double().float().view(-1, 1))[:, 0], indexes)
    with pytest.raises(CoderError, match="NaN"):
        model.build_indexes(torch.tensor([1.0, float("nan")]))


def test_tables_hold_the_probabilities() -> None:
    model = GaussianConditional([0.3, 1.0, 5.0])
    model.update()
    reach = [math.ceil(s * norm.ppf(1 - 5e-10)) for s in (0.3, 1.0, 5.0)]
    assert model.offset.tolist() == [-r for r in reach]
    assert model.cdf_length.tolist() == [2 * r + 3 for r in reach]
    for row, scale, r in zip(model.quantized_cdf.tolist(), (0.3, 1.0, 5.0), reach, strict=True):
        for i, symbol in enumerate(range(-r, r + 1)):
            mass = row[i + 1] - row[i]
            exact = norm.cdf(symbol + 0.5, scale=scale) - norm.cdf(symbol - 0.5, scale=scale)
            assert mass == pytest.approx(65536 * exact, abs=0.001 * 65536)


@pytest.mark.parametrize("with_means", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coding_without_asking_for_tables(with_means: bool, dtype: torch.dtype) -> None:
    y, scales, means = (t.to(dtype) for t in case())
    given = means if with_means else None
    model = GaussianConditional(None).to(dtype)
    indexes = model.build_indexes(scales)
    strings = model.compress(y, indexes, given)
    decoded = model.decompress(strings, indexes, dtype, given)
    assert torch.equal(decoded, model(y, scales, given, training=False)[0])
    assert decoded.dtype == dtype


def test_values_far_outside_a_table() -> None:
    y, scales, means = case(spread=3000.0)
    model = GaussianConditional(None)
    indexes = model.build_indexes(scales)
    decoded = model.decompress(model.compress(y, indexes, means), indexes, means=means)
    assert torch.equal(decoded, model.quantize(y, "dequantize", means))


def test_means_broadcast_over_positions() -> None:
    y, scales, _ = case()
    means = torch.randn(2, 3, 1, 1)
    model = GaussianConditional(None)
    indexes = model.build_indexes(scales)
    decoded = model.decompress(model.compress(y, indexes, means), indexes, means=means)
    assert torch.equal(decoded, model.quantize(y, "dequantize", means))


@pytest.mark.parametrize("level", [0.12, 0.3, 1.0, 8.0])
def test_stream_is_as_long_as_the_likelihoods_say(level: float) -> None:
    torch.manual_seed(0)
    model = GaussianConditional(None)
    # Scales of the table: rounding scales up costs rate by design, not by the coder.
    table = get_scale_table()
    scales = table[(torch.bucketize(level, table) + torch.randint(-2, 3, (1, 32, 50, 50))).clamp(min=0)]
    y = torch.randn(scales.shape) * scales
    strings = model.compress(y, model.build_indexes(scales))
    bits = -model(y, scales, training=False)[1].log2().sum().item()
    assert len(strings[0]) * 8 == pytest.approx(bits, rel=0.005, abs=16 * 8)


def test_scale_table_is_set_once() -> None:
    model = GaussianConditional(None)
    assert model.update_scale_table([0.5, 1.0])
    assert not model.update_scale_table([0.5, 2.0])
    assert model.scale_table.tolist() == [0.5, 1.0]
    assert model.update_scale_table([0.5, 2.0], force=True)
    assert model.scale_table.tolist() == [0.5, 2.0]


def test_scale_table_set_by_hand_makes_new_tables() -> None:
    model = GaussianConditional([0.5, 1.0])
    indexes = torch.ones(1, 20).int()
    y = torch.arange(20.0)[None] % 3
    model.compress(y, indexes)
    model.scale_table = torch.tensor([0.5, 4.0])
    with pytest.warns(UserWarning, match="made again"):
        strings = model.compress(y, indexes)
    assert torch.equal(model.decompress(strings, indexes), y)


def test_tables_take_the_size_of_the_file() -> None:
    source = GaussianConditional(None).eval()
    source.update_scale_table(get_scale_table(levels=20))
    model = GaussianConditional([1.0, 2.0])
    model.update()
    model.load_state_dict(source.state_dict())
    assert torch.equal(model.quantized_cdf, source.quantized_cdf)
    assert model.scale_table.shape == (20,)
    empty = GaussianConditional(None).train()
    model.load_state_dict(empty.state_dict())
    assert model.quantized_cdf.numel() == model.scale_table.numel() == 0


def test_scale_bound() -> None:
    assert GaussianConditional([0.3, 0.4], scale_bound=None).scale_bound.item() == pytest.approx(0.3)
    for bad in (-1.0, 0.0, float("nan")):
        with pytest.raises(ModelError, match="scale_bound"):
            GaussianConditional([0.3], scale_bound=bad)
    with pytest.raises(ModelError, match="scale_bound"):
        GaussianConditional(None, scale_bound=None)


@pytest.mark.parametrize(
    "table", [[], [0.5, 0.2], [-0.5, 0.2], [0.0, 1.0], [1.0, float("nan")], [1.0, float("inf")], 3, [[1.0]]]
)
def test_scale_tables_that_make_no_sense(table: object) -> None:
    with pytest.raises((TableError, TypeError)):
        GaussianConditional(table)  # type: ignore[arg-type]
    if isinstance(table, list) and table and not isinstance(table[0], list):
        state = {**GaussianConditional(None).state_dict(), "scale_table": torch.tensor(table)}
        with pytest.raises(TableError, match="scale table"):
            GaussianConditional(None).load_state_dict(state)


def test_scales_too_large_for_a_table() -> None:
    with pytest.raises(TableError, match="65535 symbols"):
        GaussianConditional([1.0, 1e5]).update()
    with pytest.raises(TableError, match="symbols"):
        GaussianConditional([1.0, 3e38]).update()


def test_mismatching_shapes() -> None:
    y, scales, means = case()
    model = GaussianConditional(None)
    indexes = model.build_indexes(scales)
    with pytest.raises(ShapeError, match="indexes must be shaped like the inputs"):
        model.compress(y, indexes[:, :2])
    with pytest.raises(ShapeError, match="batch, channels"):
        model.compress(y[0, 0, 0], indexes[0, 0, 0])
    strings = model.compress(y, indexes, means)
    with pytest.raises(ShapeError, match="expected 2 strings"):
        model.decompress(strings[:1], indexes)
    with pytest.raises(ShapeError, match="means must be shaped"):
        model.decompress(strings, indexes, means=means[:, :1])
    with pytest.raises(ShapeError, match="means must be shaped"):
        model.decompress(strings, indexes, means=means[..., :2])
    with pytest.raises(CoderError):
        model.compress(y, torch.full_like(indexes, 64))
    with pytest.raises(CoderError):
        model.compress(y, indexes, means * float("nan"))


# -- the lookup of indexes -----------------------------------------------------------------------------------


def searched(model: GaussianConditional, scales: Tensor) -> Tensor:
    bounded = torch.maximum(scales, model.lower_bound_scale.bound)
    return torch.bucketize(bounded.contiguous(), model.scale_table[:-1], out_int32=True)


@pytest.mark.parametrize(
    ("table", "bound"),
    [
        (None, 0.11),
        (None, 1.0),
        (None, 0.5000001),
        (None, 1e-9),
        ([0.2, 0.5, 1.0, 2.0, 8.0, 20.0], 0.11),
        ([1.0], 0.11),
        ([1.0, 1.01, 1.02, 1.03, 5.0], 0.11),
        ([1.0, 1.0, 2.0, 2.0, 3.0], 0.11),
        ([1e-30, 1e-3, 1e30], 0.11),
    ],
    ids=str,
)
def test_lookup_equals_search(table: list[float] | None, bound: float) -> None:
    model = GaussianConditional(table, scale_bound=bound)
    if table is None:
        model._make_tables()
    special = torch.cat((model.scale_table, model.lower_bound_scale.bound))
    bits = special.view(torch.int32)[:, None] + torch.arange(-70, 71, dtype=torch.int32)
    # Around every power of two and sixteenth of it, too, where the entry of the lookup changes.
    edges = (torch.arange(0, 255 << 4, dtype=torch.int32) << 19)[:, None] + torch.arange(
        -2, 3, dtype=torch.int32
    )
    random = torch.empty(50_000).uniform_(0, 40)
    extremes = torch.tensor([0.0, -0.0, 1e-45, -1.0, 1e38, -1e38])
    scales = torch.cat(
        (bits.flatten().view(torch.float32), edges[1:].flatten().view(torch.float32), random, extremes)
    )
    assert torch.equal(model.build_indexes(scales), searched(model, scales))
    infinite = torch.tensor([float("inf"), 1.0, -float("inf")])
    assert torch.equal(model.build_indexes(infinite), searched(model, infinite))
    spaced = scales[:1200].view(2, 3, 200).transpose(1, 2)
    assert torch.equal(model.build_indexes(spaced), searched(model, spaced))


@pytest.mark.parametrize("nan", [0x7FC00000, 0x7F800001, -0x00400000, -0x007FFFFF])
def test_lookup_finds_every_nan(nan: int) -> None:
    scales = torch.ones(9)
    scales.view(torch.int32)[4] = nan
    with pytest.raises(CoderError, match="NaN"):
        GaussianConditional(None).build_indexes(scales)


def test_lookup_follows_the_scale_table() -> None:
    model = GaussianConditional([1.0, 2.0, 4.0])
    scales = torch.tensor([0.5, 1.5, 3.0])
    assert model.build_indexes(scales).tolist() == [0, 1, 2]
    model.update_scale_table([2.0, 4.0, 8.0], force=True)
    assert model.build_indexes(scales).tolist() == [0, 0, 1]
    model.scale_table.copy_(torch.tensor([0.1, 0.2, 0.3]))
    assert model.build_indexes(scales).tolist() == [2, 2, 2]
