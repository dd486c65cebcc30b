"""What all models promise beside the numbers: checks, checkpoints, tables without ritual."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from cases import CASES as REFERENCE
from cases import OWN
from recipe import fill, image
from torch import Tensor, nn

import latens.models
from latens.entropy_models import EntropyBottleneck
from latens.errors import CoderError, LatensError, LimitError, ModelError, ShapeError, TableError
from latens.models import CompressionModel, FactorizedPrior, MeanScaleHyperprior, ScaleHyperprior
from latens.models.utils import remap_old_keys, update_registered_buffers

CASES = {**REFERENCE, **OWN}
ALL = pytest.mark.parametrize("name", CASES)
LATENT_CODECS = ("Cheng2020AnchorCheckerboard", "Elic2022Official", "Elic2022Chandelier")
FLAT = pytest.mark.parametrize("name", [name for name in CASES if name not in LATENT_CODECS])
AUTOREGRESSIVE = ("JointAutoregressiveHierarchicalPriors", "Cheng2020Anchor", "Cheng2020Attention")


def make(name: str) -> Any:
    torch.manual_seed(0)
    model = getattr(latens.models, name)(**CASES[name])
    fill(model)
    return model.eval()


@ALL
def test_coding_needs_no_preparation(name: str) -> None:
    model = make(name)
    x = image(2, 64, 128)
    code = model.compress(x)
    decoded = model.decompress(code["strings"], code["shape"])["x_hat"]
    with torch.no_grad():
        out = model(x)
    assert decoded.shape == x.shape
    # While training, the autoregressive models round around zero and not around the means.
    if name not in AUTOREGRESSIVE:
        torch.testing.assert_close(decoded, out["x_hat"].clamp(0, 1), rtol=1e-5, atol=1e-5)
    assert not model.update()


@ALL
def test_streams_are_as_long_as_the_likelihoods_say(name: str) -> None:
    model = make(name)
    x = image(1, 256, 192)
    strings = model.compress(x)["strings"]
    with torch.no_grad():
        likelihoods = model(x)["likelihoods"]
    if "z" in likelihoods:
        # For y, scales are rounded up to those of the table, which costs something by design.
        strings, likelihoods = strings[-1:], {"z": likelihoods["z"]}
    bits = -sum(p.double().log2().sum().item() for p in likelihoods.values())
    assert sum(len(s) for part in strings for s in part) * 8 == pytest.approx(bits, rel=0.005, abs=16 * 8)


@ALL
def test_from_state_dict(name: str) -> None:
    model = make(name)
    state = model.state_dict()
    again = type(model).from_state_dict({"module." + k: v for k, v in state.items()}).eval()
    x = image(1, 64, 64)
    assert again.compress(x)["strings"] == model.compress(x)["strings"]
    assert {k: getattr(again, k) for k in CASES[name]} == CASES[name]
    assert sum(p.numel() for p in again.parameters()) == sum(p.numel() for p in model.parameters())


@ALL
def test_one_training_step(name: str) -> None:
    model = make(name).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    out = model(image(1, 64, 64))
    loss = out["x_hat"].square().mean() - sum(p.log().mean() for p in out["likelihoods"].values())
    (loss + model.aux_loss()).backward()
    # Gains of qualities are not trained by the gradient, in the reference neither.
    trained = [v for k, v in model.named_parameters() if k != "Gain"]
    assert all(v.grad is not None and torch.isfinite(v.grad).all() for v in trained)
    optimizer.step()
    model.eval().compress(image(1, 64, 64))


def test_step_per_latent_is_what_the_model_says() -> None:
    assert make("FactorizedPrior").downsampling_factor == 16
    assert make("ScaleHyperprior").downsampling_factor == 64


@ALL
def test_wrong_images(name: str) -> None:
    model = make(name)
    for call in (model, model.compress):
        for bad in (
            torch.zeros(1, 4, 64, 64),
            torch.zeros(3, 64, 64),
            torch.zeros(1, 3, 0, 64),
            torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
            torch.zeros(1, 3, 64, 64, dtype=torch.float64),
        ):
            with pytest.raises(ShapeError, match="expected"):
                call(bad)


def test_size_that_does_not_fit() -> None:
    model = make("ScaleHyperprior")
    with pytest.raises(ShapeError, match="multiples of 64, but the image is 65x64; pad it"):
        model.compress(torch.zeros(1, 3, 65, 64))
    # Whatever rounds up to a multiple works, and so does everything without a hyper-latent.
    assert model(torch.zeros(1, 3, 60, 64))["x_hat"].shape == (1, 3, 64, 64)
    assert make("FactorizedPrior")(torch.zeros(1, 3, 17, 31))["x_hat"].shape == (1, 3, 32, 32)


@ALL
def test_nan_in_the_image(name: str) -> None:
    x = image(1, 64, 64)
    x[0, 1, 20, 30] = float("nan")
    with pytest.raises(CoderError, match="NaN"):
        make(name).compress(x)


@ALL
def test_nan_in_the_weights(name: str) -> None:
    healthy, x = make(name), image(1, 64, 64)
    code = healthy.compress(x)
    # Quantiles are solved for, and offsets are not used where all is zero: what was in them doesn't matter.
    keys = [k for k, _ in healthy.named_parameters() if not k.endswith("quantiles") and "QuantABCD" not in k]
    for key in keys[:: len(keys) // 12]:
        model = make(name)
        with torch.no_grad():
            dict(model.named_parameters())[key].fill_(float("nan"))
        errors = []
        for call in (
            lambda m=model: m.compress(x),
            lambda m=model: m.decompress(code["strings"], code["shape"]),
        ):
            try:
                call()
            except LatensError as error:
                errors.append(error)
        assert errors, key
        assert all(isinstance(error, ValueError) for error in errors)


@FLAT
def test_wrong_strings(name: str) -> None:
    model = make(name)
    code = model.compress(image(2, 64, 64))
    strings, shape = code["strings"], code["shape"]
    for bad in (strings + strings, [], strings[0][0], None, [s[0] for s in strings], [[] for _ in strings]):
        with pytest.raises(ShapeError):
            model.decompress(bad, shape)
    for bad_shape in ((1,), (1, 1, 1), (0, 1), (-1, 4)):
        with pytest.raises(ShapeError, match="height and a width"):
            model.decompress(strings, bad_shape)
    if len(strings) == 2:
        with pytest.raises(ShapeError, match="expected 2 strings"):
            model.decompress([strings[0], strings[1][:1]], shape)
    with pytest.raises(CoderError):
        model.decompress([[b"\1" * 3] * 2 for _ in strings], shape)


@pytest.mark.parametrize("name", LATENT_CODECS)
def test_wrong_strings_for_latent_codecs(name: str) -> None:
    model = make(name)
    code = model.compress(image(2, 64, 64))
    strings, shape = code["strings"], code["shape"]
    for bad in (strings + strings, strings[1:], [], None, [s[:1] for s in strings[:-1]] + strings[-1:]):
        with pytest.raises(ShapeError):
            model.decompress(bad, shape)
    for bad_shape in (
        (1, 1),
        {"y": shape["y"]},
        {"y": shape["y"], "hyper": (2, 1)},
        {"y": (1,), "hyper": (1, 1)},
    ):
        with pytest.raises((ShapeError, CoderError)):
            model.decompress(strings, bad_shape)
    with pytest.raises(CoderError):
        model.decompress([[b"\1" * 3] * 2 for _ in strings], shape)


# -- checkpoints ---------------------------------------------------------------------------------------------


@ALL
def test_checkpoint_of_another_size(name: str) -> None:
    model = make(name)
    arguments = {"N": 8, "M": 24} if "M" in CASES[name] else {"N": 8}
    if "groups" in CASES[name]:
        arguments["groups"] = [4, 4, 4, 12]
    with pytest.raises(ModelError, match="do not fit"):
        model.load_state_dict(type(model)(**arguments).state_dict())


def test_checkpoint_of_another_architecture() -> None:
    with pytest.raises(ModelError, match="is not among them"):
        ScaleHyperprior.from_state_dict({"fc.weight": torch.zeros(3)})
    with pytest.raises(ModelError, match=r"(?s)not fit|not of"):
        ScaleHyperprior.from_state_dict(make("MeanScaleHyperprior").state_dict())
    with pytest.raises(ModelError, match=r"(?s)not fit|not of"):
        MeanScaleHyperprior.from_state_dict(make("FactorizedPrior").state_dict())


def test_absurd_sizes_are_found_before_memory_is_taken() -> None:
    state = make("FactorizedPrior").state_dict()
    state["g_a.0.weight"] = torch.zeros(1).expand(10**7, 3, 5, 5)
    with pytest.raises(ModelError, match="should be"):
        FactorizedPrior.from_state_dict(state)


def test_names_of_wrappers_and_of_old() -> None:
    class Net(CompressionModel):
        def __init__(self) -> None:
            super().__init__()
            self.skip = nn.ModuleList([nn.Linear(2, 2)])
            self.block = nn.ModuleDict({"skip": nn.Linear(2, 2), "downsample": nn.Linear(2, 2)})

    net = Net()
    state = net.state_dict()
    assert net.load_state_dict({"module." + k: v for k, v in state.items()})
    moved = {
        k.replace("block.skip.", "block.downsample."): v for k, v in state.items() if "downsample" not in k
    }
    result = net.load_state_dict(moved, strict=False)
    # The model knows `downsample` itself, so it is not renamed.
    assert result.missing_keys == ["block.skip.weight", "block.skip.bias"]


def test_bottleneck_keys_of_old() -> None:
    state = make("FactorizedPrior").state_dict()
    old = {k.replace("matrices.", "_matrix").replace("biases.", "_bias"): v for k, v in state.items()}
    model = FactorizedPrior.from_state_dict(old)
    assert torch.equal(model.entropy_bottleneck.biases[0], state["entropy_bottleneck.biases.0"])
    assert remap_old_keys("entropy_bottleneck", old).keys() == state.keys()


@ALL
def test_tables_travel_with_the_weights(name: str) -> None:
    model = make(name)
    x = image(1, 64, 64)
    code = model.compress(x)
    other = type(model)(**CASES[name]).eval()
    other.update()
    other.load_state_dict(model.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert other.compress(x)["strings"] == code["strings"]


@FLAT
def test_hostile_tables(name: str) -> None:
    state = {k: v.clone() for k, v in make(name).state_dict().items()}
    state["entropy_bottleneck._quantized_cdf"][0, 1] = 2**30
    model = make(name)
    model.load_state_dict(state)
    with pytest.raises(TableError):
        model.compress(image(1, 64, 64))


def test_update_takes_a_scale_table() -> None:
    model = make("ScaleHyperprior")
    assert model.update(scale_table=[0.2, 1.0, 5.0], update_quantiles=True)
    assert model.gaussian_conditional.scale_table.tolist() == pytest.approx([0.2, 1, 5])
    assert not model.update()
    assert model.update(force=True)
    assert model.gaussian_conditional.scale_table.numel() == 64
    with pytest.raises(TableError):
        model.update(scale_table=[2.0, 1.0], force=True)


def test_aux_loss_is_the_sum_over_bottlenecks() -> None:
    model = CompressionModel()
    assert model.aux_loss() == 0
    model.a, model.b = EntropyBottleneck(2), EntropyBottleneck(3)
    torch.testing.assert_close(model.aux_loss(), model.a.loss() + model.b.loss())


def test_deprecated_arguments() -> None:
    with pytest.warns(DeprecationWarning, match="entropy_bottleneck_channels"):
        assert CompressionModel(entropy_bottleneck_channels=3).entropy_bottleneck.channels == 3
    with pytest.warns(DeprecationWarning, match="init_weights"):
        CompressionModel(init_weights=True)


def test_buffers_take_the_size_of_a_checkpoint() -> None:
    module = nn.Module()
    module.register_buffer("a", torch.IntTensor())
    module.register_buffer("b", torch.zeros(2, dtype=torch.int32))
    state = {"m.a": torch.zeros(5), "m.b": torch.zeros(3), "m.c": torch.zeros(4)}
    update_registered_buffers(module, "m", ["a", "b"], state)
    assert (module.a.shape, module.b.shape) == ((5,), (2,))
    update_registered_buffers(module, "m", ["b"], state, policy="resize")
    update_registered_buffers(module, "m", ["c"], state, policy="register")
    assert (module.b.shape, module.c.shape, module.c.dtype) == ((3,), (4,), torch.int32)
    for names, policy in ((["a"], "drop"), (["d"], "resize"), (["a"], "register")):
        with pytest.raises(ModelError):
            update_registered_buffers(module, "m", names, state, policy=policy)
    with pytest.raises(ModelError, match="not registered"):
        update_registered_buffers(nn.Module(), "m", ["a"], state)


def test_layout_and_gradient_mode_do_not_change_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("MeanScaleHyperprior")
    x = image(1, 64, 64)
    with torch.no_grad():
        fast = model(x)
    exact = model(x)
    torch.testing.assert_close(fast["x_hat"], exact["x_hat"].detach(), rtol=1e-5, atol=1e-5)

    def check(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert inputs[0].is_contiguous()

    # The networks that choose tables always see the reference's layout.
    model.h_s.register_forward_pre_hook(check)
    model.h_a.register_forward_pre_hook(check)
    code = model.compress(x.contiguous(memory_format=torch.channels_last))
    model.decompress(code["strings"], code["shape"])


@ALL
@pytest.mark.parametrize("training", [False, True])
def test_coding_changes_no_parameter(name: str, training: bool) -> None:
    model = make(name).train(training)
    before = {key: value.clone() for key, value in model.named_parameters()}
    model.compress(image(1, 64, 64))
    model.eval().state_dict()
    assert all(torch.equal(value, before[key]) for key, value in model.named_parameters())


@ALL
def test_things_that_are_something_else(name: str) -> None:
    model = make(name)
    code = model.compress(image(1, 64, 64))
    for thing in (None, 5, "x"):
        with pytest.raises(ShapeError, match="tensor"):
            model.compress(thing)
    for thing in (None, 5, "ab", [None, None], ("a", "b"), (1.5, 2.0), (1, 2, 3), {}):
        with pytest.raises(ShapeError):
            model.decompress(code["strings"], thing)
    for thing in (None, 5, [], {1: 2}):
        with pytest.raises(ModelError, match="dictionary"):
            model.load_state_dict(thing)
        with pytest.raises(ModelError, match="dictionary"):
            type(model).from_state_dict(thing)


@ALL
@pytest.mark.parametrize("size", [2**20, 2**40])
def test_sizes_that_no_string_can_hold(name: str, size: int) -> None:
    model = make(name)
    code = model.compress(image(1, 64, 64))
    shape = (size, size) if name not in LATENT_CODECS else {**code["shape"], "hyper": (size, size)}
    with pytest.raises(LimitError, match="cannot hold"):
        model.decompress(code["strings"], shape)


@ALL
@pytest.mark.parametrize("value", [1e9, float("nan"), float("inf")])
def test_absurd_quantiles(name: str, value: float) -> None:
    model = make(name)
    bottleneck = next(m for m in model.modules() if isinstance(m, EntropyBottleneck))
    bottleneck.quantiles.data[0, 0, 2] = value
    with pytest.raises(TableError, match="quantiles"):
        model.update(force=True)
    bottleneck.quantiles.data[0, 0, 1] = value
    with pytest.raises(LatensError) as caught:
        model.compress(image(1, 64, 64))
    assert isinstance(caught.value, ValueError)
