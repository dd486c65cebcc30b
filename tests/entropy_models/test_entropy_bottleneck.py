from __future__ import annotations

import copy
import io
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from latens.entropy_models import EntropyBottleneck, EntropyModel
from latens.errors import CoderError, ModelError, ShapeError, TableError


def trained(channels: int = 4, seed: int = 0) -> EntropyBottleneck:
    """A bottleneck with a density of its own per channel."""
    torch.manual_seed(seed)
    model = EntropyBottleneck(channels, init_scale=4)
    with torch.no_grad():
        for weight in (*model.matrices, *model.factors, *model.biases):
            weight.add_(torch.randn_like(weight) * 0.3)
        model.biases[0].add_(torch.randn(channels, 1, 1) * 3)
    return model.eval()


def samples(model: EntropyBottleneck, count: int) -> torch.Tensor:
    """Draws from the density of each channel, ``(1, channels, count)``."""
    grid = torch.linspace(-300, 300, 120001).expand(model.channels, 1, -1)
    with torch.no_grad():
        cumulative = torch.sigmoid(model._logits_cumulative(grid, stop_gradient=True))[:, 0].numpy()
    uniform = np.random.default_rng(0).random((model.channels, count))
    rows = [np.interp(u, c, g) for u, c, g in zip(uniform, cumulative, grid[:, 0].numpy(), strict=True)]
    return torch.tensor(np.stack(rows), dtype=torch.float32)[None]


def test_likelihoods_are_a_distribution() -> None:
    model = trained()
    grid = torch.arange(-3000.0, 3001.0).expand(1, 4, -1)
    values, likelihoods = model(grid, training=False)
    torch.testing.assert_close(likelihoods.sum(-1), torch.ones(1, 4), atol=1e-4, rtol=0)
    assert torch.equal(values - model._get_medians()[:, 0], torch.round(grid - model._get_medians()[:, 0]))


def test_noise_stays_within_half_a_step() -> None:
    model = trained().train()
    x = torch.randn(2, 4, 5, 6) * 10
    noisy, likelihoods = model(x)
    assert noisy.shape == likelihoods.shape == x.shape
    assert 0.3 < (noisy - x).abs().max() <= 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_solved_quantiles_are_where_they_should_be(dtype: torch.dtype) -> None:
    model = trained(16).to(dtype)
    before = model.loss().item()
    model.update(update_quantiles=True)
    assert before > 10
    # Logits of 21 have a resolution of 2e-6 in float32, times the width of the search's last step.
    assert model.loss().item() / 48 < (1e-3 if dtype == torch.float32 else 1e-9)
    assert (model.quantiles[:, 0, :-1] < model.quantiles[:, 0, 1:]).all()


@pytest.mark.parametrize("size", [(), (1,), (7,), (3, 4), (2, 3, 4), (0,), (0, 5)])
def test_coding_any_shape_without_asking_for_tables(size: tuple[int, ...]) -> None:
    model = trained()
    x = torch.randn(3, 4, *size) * 20
    strings = model.compress(x)
    assert len(strings) == 3
    decoded = model.decompress(strings, size)
    assert torch.equal(decoded, model(x)[0])


def test_escaped_values_survive() -> None:
    model = trained()
    x = torch.tensor([[1e6, -1e6, 12345.0, -70000.0]])
    assert torch.equal(model.decompress(model.compress(x), ()), model(x)[0])


def test_stream_is_as_long_as_the_likelihoods_say() -> None:
    model = trained(8)
    x = samples(model, 20000)
    strings = model.compress(x)
    bits = -model(x)[1].log2().sum().item()
    assert len(strings[0]) * 8 == pytest.approx(bits, rel=0.005, abs=16 * 8)


def test_each_image_is_a_stream_of_its_own() -> None:
    model = trained()
    x = torch.randn(3, 4, 6) * 5
    together = model.compress(x)
    assert together == [model.compress(x[i : i + 1])[0] for i in range(3)]
    assert torch.equal(model.decompress(together[1:2], (6,)), model(x[1:2])[0])


# -- tables ------------------------------------------------------------------------------------------------


def test_update_makes_tables_once() -> None:
    model = trained()
    assert model.quantized_cdf.numel() == 0
    assert model.update()
    assert not model.update()
    assert model.update(force=True)
    tables, lengths, offsets = model.quantized_cdf, model.cdf_length, model.offset
    assert tables.dtype == lengths.dtype == offsets.dtype == torch.int32
    assert tables.shape == (4, int(lengths.max()))
    for row, length in zip(tables.tolist(), lengths.tolist(), strict=True):
        used = row[:length]
        assert used[0] == 0
        assert used[-1] == 2**16
        assert sorted(set(used)) == used
        assert not any(row[length:])


def test_changed_weights_make_new_tables_with_a_warning() -> None:
    model = trained()
    x = torch.randn(1, 4, 50) * 5
    old = model.compress(x)
    with torch.no_grad():
        model.biases[2].add_(1.0)
    with pytest.warns(UserWarning, match="tables are made again"):
        new = model.compress(x)
    assert new != old
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(model.decompress(new, (50,)), model(x)[0])


def test_loaded_tables_win() -> None:
    source = trained()
    source.update()
    other = torch.arange(9, dtype=torch.int32)
    state = source.state_dict()
    state["_quantized_cdf"] = torch.cat([other[:8] * 100, torch.tensor([2**16])]).int().expand(4, -1)
    state["_cdf_length"] = torch.full((4,), 9, dtype=torch.int32)
    state["_offset"] = torch.full((4,), -3, dtype=torch.int32)
    model = EntropyBottleneck(4).eval()
    model.load_state_dict(state)
    x = torch.randn(1, 4, 50) * 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        strings = model.compress(x)
    assert torch.equal(model.quantized_cdf, state["_quantized_cdf"])
    assert strings != trained().compress(x)
    assert torch.equal(model.decompress(strings, (50,)), source(x)[0])
    assert torch.equal(model.double().decompress(strings, (50,)), source.double()(x.double())[0])
    # Fine-tuned after loading: now they are those of other weights.
    with torch.no_grad():
        model.matrices[0].add_(0.5)
    with pytest.warns(UserWarning, match="made again"):
        model.compress(x.double())


def test_finished_models_are_saved_with_tables() -> None:
    model = trained()
    assert model.train().state_dict()["_quantized_cdf"].numel() == 0
    state = model.eval().state_dict()
    assert state["_quantized_cdf"].shape[0] == 4
    loaded = EntropyBottleneck(4).eval()
    loaded.load_state_dict(state)
    x = torch.randn(1, 4, 50) * 5
    assert loaded.compress(x) == model.compress(x)


def test_damaged_weights_are_saved_without_tables() -> None:
    model = trained()
    with torch.no_grad():
        model.biases[1][0] = float("nan")
    with pytest.warns(UserWarning, match="without valid CDF tables"):
        assert model.state_dict()["_quantized_cdf"].numel() == 0


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_code_alike(copied: object) -> None:
    model = trained()
    x = torch.randn(1, 4, 50) * 5
    strings = model.compress(x)
    assert copied(model).compress(x) == strings  # type: ignore[operator]


def test_tables_made_in_inference_mode_can_be_replaced() -> None:
    model, other = trained(), trained(seed=1)
    with torch.inference_mode():
        strings = model.compress(torch.zeros(1, 4, 3))
    model.load_state_dict(other.state_dict())
    assert model.compress(torch.zeros(1, 4, 3)) == other.compress(torch.zeros(1, 4, 3)) != strings


def test_autocast_does_not_touch_tables() -> None:
    model, same = trained(), trained()
    with torch.autocast("cpu", torch.bfloat16):
        model._make_tables()
    same._make_tables()
    assert torch.equal(model.quantized_cdf, same.quantized_cdf)


@pytest.mark.parametrize("form", ["_matrix{0}", "_matrices.{0}", "matrices.{0}"])
def test_checkpoints_of_any_age(form: str) -> None:
    old = {"matrices": "_matrix", "biases": "_bias", "factors": "_factor"}
    source = trained()
    state = {}
    for key, value in source.train().state_dict().items():
        group, _, number = key.partition(".")
        if group in old and form != "matrices.{0}":
            key = f"{old[group]}{number}" if form == "_matrix{0}" else f"_{group}.{number}"
        state["bottleneck." + key] = value
    model = torch.nn.ModuleDict({"bottleneck": EntropyBottleneck(4)})
    model.load_state_dict(state)
    assert torch.equal(model["bottleneck"].matrices[2], source.matrices[2])
    assert torch.equal(model["bottleneck"].factors[1], source.factors[1])


# -- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1e9, 7e4, float("inf"), float("nan"), 3e38])
def test_absurd_quantiles(value: float) -> None:
    model = trained()
    with torch.no_grad():
        model.quantiles[1, 0, 2] = value
    with pytest.raises(TableError, match="quantiles"):
        model.update()
    # Solved for, they do not matter.
    model.compress(torch.zeros(1, 4, 2))


def test_tables_too_large_together() -> None:
    model = EntropyBottleneck(600)
    with torch.no_grad():
        model.quantiles[:, 0, 2] = 3e4
    with pytest.raises(TableError, match="600 tables"):
        model.update()


def test_nan_in_weights() -> None:
    model = trained()
    with torch.no_grad():
        model.biases[3][2] = float("nan")
    with pytest.raises(TableError, match="NaN"):
        model.compress(torch.zeros(1, 4, 2))
    with pytest.raises(TableError, match="NaN"):
        model.update()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e30])
def test_latents_that_cannot_be_coded(value: float) -> None:
    x = torch.zeros(1, 4, 5)
    x[0, 2, 3] = value
    with pytest.raises(CoderError, match="finite"):
        trained().compress(x)


@pytest.mark.parametrize("shape", [(1, 3, 5), (4,), (1, 5, 2, 2)])
def test_wrong_channels(shape: tuple[int, ...]) -> None:
    model = trained()
    for call in (model, model.compress):
        with pytest.raises(ShapeError, match=r"\(batch, 4, \.\.\.\)"):
            call(torch.zeros(shape))


def test_wrong_strings() -> None:
    model = trained()
    good = model.compress(torch.zeros(1, 4, 5))
    for bad in (good[0], "text", [1], None):
        with pytest.raises(ShapeError, match="list of bytes"):
            model.decompress(bad, (5,))  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="negative"):
        model.decompress(good, (-5,))
    with pytest.raises(CoderError):
        model.decompress([b""], (5,))
    with pytest.raises(CoderError):
        model.decompress([good[0] + b"\0\0\0\0"], (5,))
    with pytest.raises(CoderError):
        model.decompress(good, (500,))


def hostile_state() -> dict[str, torch.Tensor]:
    model = trained()
    model.update()
    return {k: v.clone() for k, v in model.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_quantized_cdf", torch.zeros(4, 2**16 + 2, dtype=torch.int32)),
        ("_quantized_cdf", torch.zeros(5, 9, dtype=torch.int32)),
        ("_quantized_cdf", torch.zeros(4, dtype=torch.int32)),
        ("_quantized_cdf", torch.zeros(4, 9)),
        ("_cdf_length", torch.zeros(0, dtype=torch.int32)),
        ("_offset", torch.zeros(4, 1, dtype=torch.int32)),
    ],
)
def test_tables_of_impossible_shape(name: str, value: torch.Tensor) -> None:
    state = {**hostile_state(), name: value}
    with pytest.raises(TableError, match="CDF tables must be"):
        EntropyBottleneck(4).load_state_dict(state)


@pytest.mark.parametrize("damage", ["falling", "end", "start", "length", "offset"])
def test_tables_of_impossible_content(damage: str) -> None:
    state = hostile_state()
    cdf, length = state["_quantized_cdf"], state["_cdf_length"]
    match damage:
        case "falling":
            cdf[2, 3] = cdf[2, 2]
        case "end":
            cdf[1, length[1] - 1] = 2**16 - 1
        case "start":
            cdf[0, 0] = 1
        case "length":
            length[3] = 10**9
        case "offset":
            state["_offset"][0] = -(2**31)
    model = EntropyBottleneck(4)
    model.load_state_dict(state)
    with pytest.raises(TableError):
        model.compress(torch.zeros(1, 4, 2))


def test_bare_model_has_no_tables() -> None:
    model = EntropyModel()
    x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="no CDF tables"):
        model.compress(x, x.int())
    with pytest.raises(ValueError, match="no CDF tables"):
        model.decompress([b"\0" * 8], x.int())
    with pytest.raises(ValueError, match="'round'"):
        model.quantize(x, "round")
    with pytest.raises(NotImplementedError):
        model(x)
    # Tables set by hand are used as they are.
    model._quantized_cdf = torch.tensor([[0, 20000, 50000, 65536]], dtype=torch.int32)
    model._cdf_length = torch.tensor([4], dtype=torch.int32)
    model._offset = torch.tensor([0], dtype=torch.int32)
    strings = model.compress(torch.ones(1, 9), torch.zeros(1, 9).int())
    assert torch.equal(model.decompress(strings, torch.zeros(1, 9).int()), torch.ones(1, 9))


def test_unknown_coder_and_precision() -> None:
    with pytest.raises(ModelError, match=r"'zip'.*available: .*ans"):
        EntropyModel(entropy_coder="zip")
    assert EntropyBottleneck(1, entropy_coder="ans").entropy_coder.name == "ans"
    with pytest.raises(ModelError, match="16"):
        EntropyModel(entropy_coder_precision=12)


def test_no_likelihood_bound() -> None:
    model = EntropyBottleneck(2, likelihood_bound=0)
    assert not any("bound" in key for key in model.state_dict())
    assert (model(torch.full((1, 2, 1), 1e4))[1] == 0).all()


def test_torch_save(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    model = trained()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    fresh = EntropyBottleneck(4)
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(fresh.quantized_cdf, model.quantized_cdf)
