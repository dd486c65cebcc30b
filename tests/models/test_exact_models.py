"""Conversion of the published architectures: reproducible, true to the float networks, and refused where it must."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from cases import CASES
from recipe import fill
from safetensors.torch import load_file, save_file
from torch import nn

import latens.models
import published
from latens.convert.networks import steps_of
from latens.convert.published import exact_entropy, gaussian_hyperprior
from latens.entropy_models import EntropyBottleneck, GaussianConditional
from latens.errors import ModelError
from latens.layers import GDN
from latens.models import CompressionModel
from latens.runtime import ExactEntropy, Pass, set_threads
from latens.runtime.layers import RELU
from latens.zoo import entries, entry

WITH_Y = [name for name in CASES if not name.startswith("FactorizedPrior")]
SPACE = 256  # of integer means
N, M = CASES["MeanScaleHyperprior"]["N"], CASES["MeanScaleHyperprior"]["M"]


@lru_cache
def model_of(name: str) -> CompressionModel:
    return published.make(name)


@lru_cache
def entropy_of(name: str) -> ExactEntropy:
    return exact_entropy(model_of(name))


@pytest.fixture
def threads() -> Iterator[None]:
    yield
    set_threads(None)


# ---- true to the float networks


def drawn(
    entropy: ExactEntropy, size: int, knot: int, rng: np.random.Generator
) -> tuple[Any, npt.NDArray[np.float64]]:
    """Latents drawn from the tables of a model, and the integer means of y as real numbers."""
    channels = entropy.z_channels
    rows = entropy.z_tables.rows(knot * channels, (knot + 1) * channels)
    z = np.stack([sample(row, (size, size), rng) for row in rows])
    z += entropy.z_tables.offsets[knot * channels : (knot + 1) * channels, None, None]
    y_rows = entropy.y_tables.rows(0, len(entropy.y_tables.sizes))
    side = size * entropy.upscale
    means = np.zeros((side * side, entropy.y_channels))
    ends = np.cumsum([group.channels for group in entropy.groups])

    def code(part: Pass) -> npt.NDArray[np.int16]:
        symbols = draw_y(part.indexes, y_rows, entropy.y_tables.offsets, rng)
        if part.means is not None:
            own = slice(ends[part.group] - entropy.groups[part.group].channels, ends[part.group])
            means[slice(None) if part.positions is None else part.positions, own] = part.means / SPACE
        return symbols.astype(np.int16)

    decoded = entropy._decoded(z.astype(np.int16), knot, code)
    return decoded, means.reshape(side, side, -1).transpose(2, 0, 1)


def sample(row: npt.NDArray[Any], shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    found = np.searchsorted(row, rng.integers(0, 2**16, shape), side="right") - 1
    return np.minimum(found, len(row) - 3)


def draw_y(
    indexes: npt.NDArray[Any], rows: list[Any], offsets: npt.NDArray[Any], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    symbols = np.zeros(indexes.shape, np.int64)
    for index in np.unique(indexes):
        here = indexes == index
        symbols[here] = sample(rows[index], (int(here.sum()),), rng) + offsets[index]
    return symbols


def bits(
    symbols: npt.NDArray[Any], indexes: npt.NDArray[Any], rows: list[Any], offsets: npt.NDArray[Any]
) -> float:
    """Ideal size of the symbols under the tables; an escape costs its nibbles."""
    total = 0.0
    for index in np.unique(indexes):
        row = rows[index]
        place = symbols[indexes == index] - offsets[index]
        outside = (place < 0) | (place >= len(row) - 2)
        place = np.where(outside, len(row) - 2, place)
        total += float(-np.log2(np.diff(row)[place] / 2**16).sum()) + 8 * float(outside.sum())
    return total


@pytest.mark.parametrize("name", WITH_Y)
def test_integers_follow_the_float_networks(name: str) -> None:
    """Indexes, means, and what their differences cost, on latents drawn from the model."""
    model, entropy = model_of(name), entropy_of(name)
    rng = np.random.default_rng(7)
    rows = entropy.y_tables.rows(0, len(entropy.y_tables.sizes))
    offsets = entropy.y_tables.offsets
    gaussian = published.gaussians(model)[0]
    for knot in {0, entropy.knots - 1}:
        decoded, means = drawn(entropy, 8, knot, rng)
        medians = bottleneck_of(model)._get_medians().detach().reshape(1, -1, 1, 1)
        z_hat = torch.from_numpy(decoded.z.astype(np.float32))[None] + medians
        scales, float_means = published.parameters(model, z_hat, torch.from_numpy(decoded.latent), knot)
        gain = float(model.Gain[knot].detach().abs()) if hasattr(model, "Gain") else 1.0
        indexes = gaussian.build_indexes(scales * gain)[0].numpy()
        want = float_means[0].double().numpy()

        assert len(np.unique(indexes)) >= 8
        assert (indexes != decoded.indexes).mean() < 1e-3
        assert np.abs(want - means).max() <= 2**-7

        ours = theirs = 0.0
        deviations = np.maximum(scales[0].double().numpy() * gain, 0.11)
        for _ in range(10):
            y = want + rng.normal(0, 1, want.shape) * deviations / gain
            own, symbols = (np.round((y - centre) * gain).astype(int) for centre in (means, want))
            ours += bits(own, decoded.indexes, rows, offsets)
            theirs += bits(symbols, indexes, rows, offsets)
        assert abs(ours / theirs - 1) < 1e-3


def test_no_architecture_is_left_out() -> None:
    """Every one of the zoo is compared with its float networks above, but those that are refused."""
    images = {known.architecture for known in entries() if known.media == "image"}
    assert images - set(CASES) == {"Cheng2020GMM", *(entry(name).architecture for name in published.SIZES)}


def bottleneck_of(model: CompressionModel) -> EntropyBottleneck:
    return next(m for m in model.modules() if isinstance(m, EntropyBottleneck))


@pytest.mark.parametrize("name", WITH_Y)
def test_the_quantiser_codes_the_latents_of_pictures(name: str) -> None:
    """y_hat is within half a step, and its symbols are those of the float model's own coder almost everywhere."""
    entropy = entropy_of(name)
    rng = np.random.default_rng(3)
    knot = entropy.knots - 1
    y = rng.normal(0, 3, (1, entropy.y_channels, 8, 8)).astype(np.float32)
    z = entropy.quantise_z(rng.normal(0, 3, (1, entropy.z_channels, 2, 2)), knot)
    stream, lanes, coded = entropy.encode(z, entropy.quantiser(y, knot, 0), knot, 0)
    decoded = entropy.decode(stream, (2, 2), knot, 0, lanes)
    np.testing.assert_array_equal(decoded.y, coded.y)
    np.testing.assert_array_equal(decoded.latent, coded.latent)
    level = entropy._level(knot)
    moved = 0 if level.offsets is None else np.abs(level.offsets).max() / SPACE
    assert np.abs(decoded.latent - y).max() <= (0.5 + moved) * level.step / 2**16 + 1 / SPACE


@pytest.mark.parametrize("name", ["FactorizedPrior", "FactorizedPriorReLU"])
def test_models_without_y(name: str) -> None:
    model, entropy = model_of(name), entropy_of(name)
    medians = bottleneck_of(model)._get_medians().detach().reshape(1, -1, 1, 1)
    y = torch.from_numpy(np.random.default_rng(0).normal(0, 4, (1, entropy.z_channels, 5, 7))).float()
    z = entropy.quantise_z(y.numpy(), 0)
    symbols = bottleneck_of(model).quantize(y, "symbols", medians.expand_as(y))[0].numpy()
    assert (z != symbols).mean() < 0.02
    stream, lanes, _ = entropy.encode(z, lambda part: pytest.fail("no y"), 0, 0)
    decoded = entropy.decode(stream, (5, 7), 0, 0, lanes)
    np.testing.assert_array_equal(decoded.z, z)
    assert np.abs(decoded.latent - y.numpy()).max() <= 0.5 + 1 / SPACE
    float_string = bottleneck_of(model).compress(y)[0]
    assert abs(len(stream) - len(float_string)) <= 16


# ---- the same everywhere


_CONVERT = """
import json, sys
sys.path[:0] = {paths!r}
import published
from safetensors.torch import load_file
from latens.convert import exact_entropy
import torch
assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"
ids = {{}}
for name in {names!r}:
    model = published.make(name, tables=False)
    model.load_state_dict(load_file(f"{folder}/{{name}}.safetensors"))
    ids[name] = exact_entropy(model).entropy_id
print(json.dumps(ids))
"""


def test_conversion_is_the_same_on_other_machines(tmp_path: Path, threads: None) -> None:
    """Of the same weights and tables: in a fresh process without vector instructions, with more threads."""
    names = list(published.FAMILIES.values())
    for name in names:
        state = {key: value.clone() for key, value in model_of(name).state_dict().items()}
        save_file(state, tmp_path / f"{name}.safetensors")
    paths = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "vectors")]
    script = _CONVERT.format(paths=paths, names=names, folder=tmp_path)
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "3"}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == {name: entropy_of(name).entropy_id for name in names}
    set_threads(2)
    assert exact_entropy(published.make(names[2])).entropy_id == entropy_of(names[2]).entropy_id


def test_loaded_weights_convert_to_the_same(tmp_path: Path) -> None:
    """Through a checkpoint, and whatever type and layout the float weights come in."""
    name = "MeanScaleHyperprior"
    save_file({k: v.contiguous() for k, v in model_of(name).state_dict().items()}, tmp_path / "a.safetensors")
    again = latens.models.MeanScaleHyperprior.from_state_dict(load_file(tmp_path / "a.safetensors"))
    assert exact_entropy(again).entropy_id == entropy_of(name).entropy_id
    turned = published.make(name).to(memory_format=torch.channels_last).train()
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        assert exact_entropy(turned).entropy_id == entropy_of(name).entropy_id


def test_bounds_are_proven_for_every_network() -> None:
    for name in CASES:
        bounds = entropy_of(name).bounds()
        assert all(0 < bound < 2**53 for found in bounds.values() for bound in found)
        assert bool(bounds) == (name in WITH_Y)
    assert list(entropy_of("JointAutoregressiveHierarchicalPriors").bounds()) == [
        "hyper.0", "groups.0.spatial", "groups.0.parameters"
    ]  # fmt: skip


# ---- weights that are absurd


PLACES: dict[str, tuple[str, str]] = {
    "h_s": ("MeanScaleHyperprior", "h_s.2.weight"),
    "h_s bias": ("MeanScaleHyperprior", "h_s.0.bias"),
    "context": ("JointAutoregressiveHierarchicalPriors", "context_prediction.weight"),
    "parameters": ("JointAutoregressiveHierarchicalPriors", "entropy_parameters.2.weight"),
    "checkerboard": ("Cheng2020AnchorCheckerboard", "latent_codec.y.context_prediction.bias"),
    "groups": ("Elic2022Official", "latent_codec.y.channel_context.y2.0.weight"),
    "offsets": ("MeanScaleHyperpriorVbr", "QuantABCD.2.weight"),
    "gains": ("ScaleHyperpriorVbr", "Gain"),
    "gain as context": ("JointAutoregressiveHierarchicalPriorsVbr", "scale_to_context.weight"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30])
def test_absurd_weights_are_refused(place: str, value: float) -> None:
    name, key = PLACES[place]
    model = published.make(name)
    with torch.no_grad():
        model.get_parameter(key).view(-1)[0] = value
    with pytest.raises(ModelError):
        exact_entropy(model)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("factor", [3000.0, 1e-4, 1e-30, 0.0])
def test_weights_that_saturate_do_so_on_both_sides(place: str, factor: float) -> None:
    name, key = PLACES[place]
    model = published.make(name)
    with torch.no_grad():
        model.get_parameter(key).mul_(factor)
    try:
        entropy = exact_entropy(model)
    except ModelError:
        assert factor != 0.0 or place == "gains"
        return
    rng = np.random.default_rng(1)
    knot = entropy.knots - 1
    z = rng.integers(-30_000, 30_000, (entropy.z_channels, 1, 2)).astype(np.int16)
    wanted = entropy.replay(rng.integers(-9000, 9000, (entropy.y_channels, 4, 8)).astype(np.int16))
    stream, lanes, coded = entropy.encode(z, wanted, knot, 0)
    again = ExactEntropy.from_tensors(entropy.tensors())
    decoded = again.decode(stream, (1, 2), knot, 0, lanes)
    np.testing.assert_array_equal(decoded.y, coded.y)
    np.testing.assert_array_equal(decoded.indexes, coded.indexes)
    np.testing.assert_array_equal(decoded.latent, coded.latent)


@pytest.mark.parametrize("value", [math.nan, 1e5, -1e30])
def test_absurd_medians_are_refused(value: float) -> None:
    model = published.make("MeanScaleHyperprior")
    medians = torch.zeros(N, 1, 1)
    medians[2] = value
    bottleneck_of(model)._get_medians = lambda: medians
    with pytest.raises(ModelError, match="medians of z must be finite and below 4096"):
        exact_entropy(model)


# ---- what cannot be made exact


def hyperprior(h_s: nn.Module) -> CompressionModel:
    model = published.make("MeanScaleHyperprior")
    model.h_s = h_s
    return model


@pytest.mark.parametrize(
    ("h_s", "layer"),
    [
        (nn.Sequential(nn.ConvTranspose2d(N, N, 5, 2, 2, 1), GDN(N)), r"h_s\[1\]: GDN"),
        (nn.Sequential(nn.Conv2d(N, 2 * M, 3, padding=1, groups=2)), r"h_s\[0\].*groups"),
        (nn.Sequential(nn.ReLU(), nn.Conv2d(N, 2 * M, 3, padding=1)), r"h_s\[0\]: ReLU"),
        (
            nn.Sequential(nn.Conv2d(N, N, 1), nn.Conv2d(N, 2 * M, 3, padding=2, dilation=2)),
            r"h_s\[1\].*dilation",
        ),
        (nn.Sequential(nn.Conv2d(N, 2 * M, 3, 2, 1)), r"h_s\[0\].*stride"),
        (nn.Sequential(nn.Conv2d(N, N, 1), nn.Sequential(nn.Softplus())), r"h_s\[1\]\[0\]: Softplus"),
        (nn.Sequential(nn.Conv2d(N, 2 * M, 1), nn.ReLU()), r"h_s: the activation"),
        (nn.Sequential(nn.Conv2d(N + 1, 2 * M, 1)), r"h_s, layer 0: expected 7 channels, got 6"),
        (nn.Sequential(nn.Conv2d(N, 2 * M - 1, 1)), r"19 parameters do not fit 9 channels"),
    ],
    ids=str,
)
def test_layers_that_cannot_be_made_exact_are_named(h_s: nn.Module, layer: str) -> None:
    with pytest.raises(ModelError, match=layer):
        exact_entropy(hyperprior(h_s))


def test_other_models_are_refused_by_name() -> None:
    mixture = latens.models.Cheng2020GMM(N=4, K=2)
    fill(mixture)
    with pytest.raises(ModelError, match="Cheng2020GMM: mixtures"):
        exact_entropy(mixture)
    for name in ("ScaleHyperpriorVbr", "MeanScaleHyperpriorVbr"):
        with pytest.raises(ModelError, match=f"{name} with steps for z"):
            exact_entropy(published.make(name, tables=False, vr_entbttlnck=True))

    class Mine(CompressionModel):
        pass

    with pytest.raises(ModelError, match="Mine cannot be made exact"):
        exact_entropy(Mine())


def changed(name: str, change: Callable[[Any], None]) -> CompressionModel:
    model = published.make(name)
    change(model)
    return model


RASTER, BOARD, GROUPS = (
    "JointAutoregressiveHierarchicalPriors",
    "Cheng2020AnchorCheckerboard",
    "Elic2022Official",
)


def other_scales(model: Any) -> None:
    published.gaussians(model)[1].update_scale_table([0.2, 0.5, 1.0], force=True)


def merge_by_adding(model: Any) -> None:
    for codec in published.codecs(model):
        codec.merge = lambda context, side: context + side


def earlier_by_adding(model: Any) -> None:
    model.latent_codec.y.merge_y = lambda *groups: sum(groups[1:], groups[0])


def high_bound(model: Any) -> None:
    own = GaussianConditional(published.SCALES, scale_bound=0.5)
    own.update()
    model.gaussian_conditional = own


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (RASTER, lambda m: m.entropy_parameters.append(nn.Conv2d(12, 12, 3, padding=1)),
         "group 0, parameters, layer 3.*1x1"),
        (RASTER, lambda m: m.entropy_parameters.append(nn.Sigmoid()), r"group 0, parameters\[5\]: Sigmoid"),
        (RASTER, lambda m: m.context_prediction.mask.fill_(1), "must not see"),
        (BOARD, lambda m: setattr(m.latent_codec.y, "context_prediction", nn.Conv2d(4, 8, 5, padding=2)),
         "not decoded yet"),
        (BOARD, lambda m: m.latent_codec.y.entropy_parameters.insert(0, nn.Hardtanh()),
         r"group 0, parameters\[0\]: Hardtanh"),
        (BOARD, merge_by_adding, "merges contexts"),
        (GROUPS, merge_by_adding, "merges contexts"),
        (GROUPS, earlier_by_adding, "merges contexts"),
        (GROUPS, other_scales, "different scale tables"),
        (GROUPS, lambda m: m.latent_codec.y.channel_context["y2"].append(nn.Tanh()),
         r"group 2, channel context\[3\]: Tanh"),
        ("ScaleHyperprior", high_bound, "bound of scales"),
        ("ScaleHyperpriorVbr", lambda m: m.Gain.data[3].fill_(1e-3), "gain of 0.001"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_exact_is_named(name: str, change: Callable[[Any], None], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        exact_entropy(changed(name, change))


# ---- scales and means from two networks


def two_networks() -> tuple[EntropyBottleneck, nn.Sequential, nn.Sequential, GaussianConditional]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        bottleneck = EntropyBottleneck(4)
        scales, means = (
            nn.Sequential(
                nn.ConvTranspose2d(4, 6, 5, 2, 2, 1), nn.ReLU(), nn.ConvTranspose2d(6, 5, 5, 2, 2, 1)
            )
            for _ in range(2)
        )
    fill(nn.ModuleList([bottleneck, scales, means]))
    with torch.no_grad():
        scales[-1].bias.add_(torch.linspace(0.3, 4, 5))
    bottleneck.update()
    gaussian = GaussianConditional(published.SCALES)
    gaussian.update()
    return bottleneck, scales, means, gaussian


def test_two_networks_with_limited_activations() -> None:
    """As in scale-space flow, where ReLU ends at 255: the integers do as the float networks."""
    bottleneck, scales, means, gaussian = two_networks()
    limited = [step._replace(activation=RELU, top=255.0) for step in steps_of(scales, "scales")]
    entropy = gaussian_hyperprior(bottleneck, limited, steps_of(means, "means"), gaussian)
    decoded, integer_means = drawn(entropy, 6, 0, np.random.default_rng(0))
    z_hat = torch.from_numpy(decoded.z.astype(np.float32))[None] + bottleneck._get_medians().reshape(
        1, -1, 1, 1
    )
    with torch.no_grad():
        hidden = scales[0](z_hat).clamp(0, 255)
        indexes = gaussian.build_indexes(scales[2](hidden).clamp(0, 255))[0].numpy()
        want = means(z_hat)[0].double().numpy()
    assert len(np.unique(indexes)) > 15
    assert (indexes != decoded.indexes).mean() < 1e-3
    assert np.abs(want - integer_means).max() <= 2**-7
    again = gaussian_hyperprior(bottleneck, limited, steps_of(means, "means"), gaussian)
    assert again.entropy_id == entropy.entropy_id


def test_scales_that_end_within_the_table_are_refused() -> None:
    bottleneck, scales, means, gaussian = two_networks()
    limited = [step._replace(activation=RELU, top=5.0) for step in steps_of(scales, "scales")]
    with pytest.raises(ModelError, match=r"scales end at 5\.0"):
        gaussian_hyperprior(bottleneck, limited, steps_of(means, "means"), gaussian)
