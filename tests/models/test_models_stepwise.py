"""Architectures that code a latent step by step: one string, the same latent on both sides, typed errors."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe import image
from torch import Tensor

import latens.models
import latens.zoo
import published
from latens.cli.training import update_model
from latens.errors import CoderError, LatensError, LimitError, ModelError, ShapeError
from latens.latent_codecs.steps import Decoding
from latens.layers.attention import DropPath, attend_in_windows, relative_positions
from latens.zoo import entry
from latens.zoo.pretrained import read_checkpoint

NAMES = list(published.STEPWISE)
ALL = pytest.mark.parametrize("name", NAMES)


@cache
def make(name: str) -> Any:
    """A tiny model whose latents have some bits each; not to be changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        narrow = {"context": (6,)} if "context" in signature(entry(name).model_class()).parameters else {}
        model: Any = entry(name).model_class()(**published.STEPWISE[name], **narrow)
        x = image(1, 64, 64)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1 and parameter.numel() > 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
            for _ in range(40):
                if model.eval().g_a(x).std() > 1:
                    break
                for parameter in model.g_a.parameters():
                    if parameter.dim() > 1:
                        parameter.mul_(1.1)
    return model.eval()


@ALL
def test_one_string_holds_all_steps_and_decodes_to_what_was_coded(name: str) -> None:
    model, x = make(name), image(2, 64, 128)
    code = model.compress(x)
    assert [len(part) for part in code["strings"]] == [2, 2]
    decoded = model.decompress(code["strings"], code["shape"])["x_hat"]
    with torch.no_grad():
        expected = model(x)["x_hat"].clamp(0, 1)
    torch.testing.assert_close(decoded, expected, rtol=1e-4, atol=1e-4)
    # An image alone has the string that it has in a batch, but for the last bits of sums.
    alone = model.decompress([[s] for s in (part[1] for part in code["strings"])], code["shape"])["x_hat"]
    torch.testing.assert_close(alone, decoded[1:], rtol=1e-4, atol=1e-4)


@ALL
def test_small_and_odd_images(name: str) -> None:
    model = make(name)
    for height, width in ((64, 64), (64, 192), (192, 64)):
        x = image(1, height, width)
        code = model.compress(x)
        assert model.decompress(code["strings"], code["shape"])["x_hat"].shape == x.shape
    with pytest.raises(ShapeError, match="multiples of 64"):
        model.compress(image(1, 64, 64)[..., :40])


@ALL
def test_double_precision_is_what_float_is(name: str) -> None:
    model, x = make(name), image(1, 64, 64)
    with torch.no_grad():
        single = model(x)
        double = deepcopy(model).double()(x.double())
    for key, value in double["likelihoods"].items():
        rate, other = (p.double().log2().mean() for p in (value, single["likelihoods"][key]))
        assert float(rate) == pytest.approx(float(other), rel=1e-3)


@ALL
def test_from_state_dict_finds_all_sizes(name: str) -> None:
    model = make(name)
    again = type(model).from_state_dict({f"module.{k}": v for k, v in model.state_dict().items()})
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
    x = image(1, 64, 64)
    assert again.eval().compress(x)["strings"] == model.compress(x)["strings"]


@ALL
def test_checkpoints_become_files_of_networks(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As ``latens update-model`` makes them of what DataParallel has left."""
    model, x = make(name), image(1, 64, 64)
    theirs, ours = tmp_path / "theirs.pth.tar", tmp_path / "ours.safetensors"
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, theirs)
    update_model(theirs, ours, "mine-1", name)
    assert f"no .ltn files can be made with mine-1: {type(model).__name__} cannot" in capsys.readouterr().err
    again = type(model).from_state_dict(read_checkpoint(ours)).eval()
    assert again.compress(x)["strings"] == model.compress(x)["strings"]
    with pytest.raises(
        ModelError, match=f"ours.safetensors: the networks of {type(model).__name__}, which has no"
    ):
        latens.zoo.load(ours)
    other = next(n for n in NAMES if entry(n).architecture[:4] != entry(name).architecture[:4])
    with pytest.raises(ModelError, match="these weights"):
        update_model(theirs, tmp_path / "x.safetensors", "mine-1", other)
    broken = dict(model.state_dict())
    key = next(k for k, v in broken.items() if v.dim() == 4)
    torch.save({**broken, key: broken[key] * torch.nan}, theirs)
    with pytest.raises(ModelError, match=f"{key}.*finite"):
        update_model(theirs, tmp_path / "x.safetensors", "mine-1", name)
    assert not (tmp_path / "x.safetensors").exists()


@ALL
def test_weights_that_do_not_fit_are_named(name: str) -> None:
    model = make(name)
    state = model.state_dict()
    for key in (next(iter(state)), next(reversed(dict(model.named_parameters())))):
        with pytest.raises(ModelError, match=key.split(".")[0]):
            type(model).from_state_dict({k: v for k, v in state.items() if k != key})
    with pytest.raises(ModelError, match="surplus"):
        type(model).from_state_dict({**state, "surplus.weight": torch.zeros(1)})
    with pytest.raises(ModelError):
        type(model).from_state_dict({"g_a.0.weight": torch.zeros(4, 3, 5, 5)})
    key = next(k for k, v in state.items() if v.dim() == 4 and k.startswith("h_"))
    with pytest.raises(ModelError):
        type(model).from_state_dict({**state, key: torch.zeros(1, 1, 1, 1)})


@ALL
def test_damage(name: str) -> None:
    model, x = make(name), image(1, 64, 64)
    code = model.compress(x)
    (y,), (z,) = code["strings"]
    with pytest.raises(LatensError):
        model.decompress([[y[:-4]], [z]], code["shape"])
    with pytest.raises(CoderError):
        model.decompress([[y + b"\0\0\0\0"], [z]], code["shape"])
    with pytest.raises(LimitError):
        model.decompress([[b"\0" * 8], [b"\0" * 8]], (2**12, 2**12))
    with pytest.raises(ShapeError):
        model.decompress([[y]], code["shape"])
    with pytest.raises(CoderError, match="NaN"):
        model.compress(x * torch.nan)


@ALL
def test_files_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ModelError, match=r"cannot be made exact: its contexts"):
        make(name).compress(image(1, 64, 64), exact=True)


def test_sizes_that_do_not_divide_each_other() -> None:
    with pytest.raises(ModelError, match="24 channels of the latent cannot be cut into 5"):
        latens.models.WACNN(8, 24, 5)
    with pytest.raises(ModelError, match="cannot be shared by 8 heads"):
        latens.models.WACNN(12, 16, 2)
    with pytest.raises(ModelError, match="six numbers each"):
        latens.models.TCM(32, 16, 2, config=(1, 1))
    with pytest.raises(ModelError, match="four each"):
        latens.models.SymmetricalTransFormer(3, 4, depths=(1,))


def by_hand(x: Tensor, heads: int, window: int, bias: Tensor, shift: int) -> Tensor:
    """Attention of one image, position by position; queries, keys and values are thrice the input itself."""
    _, height, width, channels = x.shape
    rows, columns = -(-height // window) * window, -(-width // window) * window
    padded = torch.zeros(rows, columns, channels, dtype=x.dtype)
    padded[:height, :width] = x[0]
    out = torch.zeros_like(padded)
    size = channels // heads

    def window_of(place: int, side: int) -> tuple[int, bool]:
        moved = (place - shift) % side
        return moved // window, moved >= side - shift

    cells = [(r, c) for r in range(rows) for c in range(columns)]
    for r, c in cells:
        own = window_of(r, rows), window_of(c, columns)
        seen = [(a, b) for a, b in cells if (window_of(a, rows), window_of(b, columns)) == own]
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            weights = []
            for a, b in seen:
                inside = [
                    ((i - shift) % side) % window
                    for i, side in ((r, rows), (c, columns), (a, rows), (b, columns))
                ]
                at = bias[head, inside[0] * window + inside[1], inside[2] * window + inside[3]]
                weights.append(padded[r, c, part] @ padded[a, b, part] / size**0.5 + at)
            share = torch.softmax(torch.stack(weights), 0)
            out[r, c, part] = sum(s * padded[a, b, part] for s, (a, b) in zip(share, seen, strict=True))
    return out[None, :height, :width]


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(
    ("height", "width", "shift"), [(4, 4, 0), (4, 4, 1), (3, 5, 1), (2, 6, 1), (1, 1, 1)]
)
def test_attention_in_windows_is_the_definition(height: int, width: int, shift: int, grad: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, height, width, 6, dtype=torch.float64)
    bias = torch.randn(2, 4, 4, dtype=torch.float64)
    with torch.set_grad_enabled(grad):
        found = attend_in_windows(x, lambda w: torch.cat((w, w, w), -1), 2, 2, bias, shift)
    torch.testing.assert_close(found, by_hand(x, 2, 2, bias, shift))


def test_positions_of_a_window() -> None:
    index = relative_positions(3)
    assert index.shape == (9, 9)
    assert (index.diagonal() == 12).all()
    assert index[0, 8] == 0
    assert index[8, 0] == 24


def test_branches_are_left_out_while_training_alone() -> None:
    torch.manual_seed(0)
    x = torch.ones(4000, 2)
    path = DropPath(0.25)
    kept = path.train()(x)
    assert set(kept.unique().tolist()) == {0.0, float(torch.tensor(1 / 0.75))}
    assert (kept[:, 0] == kept[:, 1]).all()
    assert float(kept.mean()) == pytest.approx(1, abs=0.05)
    assert path.eval()(x) is x
    with pytest.raises(ModelError, match="from 0 to below 1"):
        DropPath(1.0)


def test_a_string_too_short_for_its_shape_is_found_out_before_anything_is_computed() -> None:
    model = make("wacnn")
    with pytest.raises(LimitError):
        Decoding(model.gaussian_conditional, [b"\0" * 8], 2**40)
