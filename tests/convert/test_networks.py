"""From trained networks to exact integers: what they compute, that they are always the same, and hostile weights."""

import hashlib
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from latens.convert.networks import Converted, Part, Step, convert, draw_symbols, steps_of
from latens.errors import ModelError
from latens.layers import CheckerboardMaskedConv2d, MaskedConv2d
from latens.runtime import Thresholds, set_threads
from latens.runtime.layers import RELU, reference_sums

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
BIG = 2**20


@pytest.fixture
def threads() -> Iterator[None]:
    yield
    set_threads(None)


def given_to(a: Int64) -> Int32:
    """``(C, H, W)`` as chains take it."""
    return np.ascontiguousarray(a.transpose(1, 2, 0), np.int32)


def planes_of(result: npt.NDArray[np.integer]) -> Int64:
    return result.transpose(2, 0, 1).astype(np.int64)


def trained(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(4, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 32, 1), nn.ReLU(), nn.PixelShuffle(2),
            nn.Conv2d(8, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 6, 1),
        )  # fmt: skip
        network[-1].weight.mul_(30.0)
        network[-1].bias.fill_(20.0)
    return network


def enlarging(seed: int = 0) -> nn.Sequential:
    """Transposed convolutions, sub-pixel convolutions, leaky units, nested."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.ConvTranspose2d(4, 12, 5, 2, 2, 1), nn.LeakyReLU(), nn.Identity(),
            nn.Sequential(nn.Conv2d(12, 32, 3, padding=1), nn.PixelShuffle(2), nn.LeakyReLU()),
            nn.ConvTranspose2d(8, 10, 3, 1, 1), nn.LeakyReLU(),
            nn.ConvTranspose2d(10, 6, 3, 3, 1, 2, bias=False),
        )  # fmt: skip
        network[-1].weight.mul_(400.0)
    return network


LEVELS = np.arange(63) + 0.5


def samples(channels: int = 4, count: int = 4) -> list[Int32]:
    rng = np.random.default_rng(9)
    return [given_to(rng.integers(-12, 13, (channels, 9, 7))) for _ in range(count)]


def converted(network: nn.Module, last: str = "sums") -> Converted:
    return convert(steps_of(network, "h_s"), [Part(4, 0)], samples(), "h_s", last=last)


@pytest.mark.parametrize("make", [trained, enlarging])
def test_converted_network_follows_the_float_network(make: type[nn.Sequential]) -> None:
    network = make()
    exact = converted(network)
    assert exact.chain.scaling == (2 if make is trained else 12)
    z = np.random.default_rng(1).integers(-12, 13, (4, 12, 15))
    with torch.no_grad():
        real = network.double()(torch.from_numpy(z)[None].double())[0].numpy()
    thresholds = Thresholds.of(LEVELS, exact.exponent, "h_s")
    want = np.clip(np.round(real), 0, 63)
    sums = exact.chain.sums(given_to(z))
    real_sums = np.ldexp(planes_of(sums).astype(float), -exact.exponent)
    np.testing.assert_allclose(real_sums, real, atol=0.01)
    got = planes_of(thresholds.count(sums.reshape(-1, 6), 0, 6).reshape(sums.shape))
    assert len(np.unique(want)) > 20
    assert (got != want).mean() < 2e-3
    # Where they differ, the float network was undecided.
    assert np.abs(real - np.round(real))[got != want].min(initial=0.5) > 0.49
    # Activations are the same with fewer bits.
    short = converted(make(), "activations")
    coarse = np.ldexp(planes_of(short.chain.activations(given_to(z))).astype(float), -short.exponent)
    np.testing.assert_allclose(coarse, real, atol=0.01)
    assert short.exponent < exact.exponent


def test_parts_of_different_scale_are_joined() -> None:
    """A layer whose input channels come from three networks: their weights share out what differs."""
    rng = np.random.default_rng(3)
    parts = [Part(3, 4), Part(1, 17), Part(2, -3)]
    weight = rng.normal(0, 1, (5, 6, 3, 3)).astype(np.float32)
    weight[:, 3:4] *= 100
    step = Step(weight, rng.normal(0, 1, 5).astype(np.float32))
    a = rng.integers(-2000, 2000, (6, 8, 8))
    made = convert([step], parts, [given_to(a)], "joined")
    exponents = np.repeat([p.exponent for p in parts], [p.channels for p in parts])
    real = np.ldexp(a.astype(float), -exponents[:, None, None])
    want = nn.functional.conv2d(
        torch.from_numpy(real)[None], torch.from_numpy(weight).double(),
        torch.from_numpy(step.bias).double(), padding=1,
    )[0].numpy()  # fmt: skip
    got = np.ldexp(planes_of(made.samples[0]).astype(float), -made.exponent)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=np.abs(want).max() * 1e-3)
    with pytest.raises(ModelError, match=r"joined, layer 0: expected 6 channels, got 5"):
        convert([step], [Part(3, 4), Part(2, 1)], [given_to(a[:5])], "joined")


def test_a_limit_of_activations_is_kept() -> None:
    """What QReLU needs: ReLU that ends at 255."""
    steps = [
        Step(np.full((1, 1, 1, 1), 40.0, np.float32), np.zeros(1, np.float32), activation=RELU, top=255.0),
        Step(np.ones((1, 1, 1, 1), np.float32), np.zeros(1, np.float32)),
    ]
    made = convert(steps, [Part(1, 0)], [given_to(np.array([[[-9, 20]]]))], "capped")
    z = np.array([[[-3, 0, 1, 3, 6, 7, 1000]]])
    got = np.ldexp(planes_of(made.chain.sums(given_to(z))).astype(float), -made.exponent)
    np.testing.assert_allclose(got, [[[0, 0, 40, 120, 240, 255, 255]]], rtol=2e-4)


def digest(exact: Converted) -> str:
    result = hashlib.sha256(str(exact.exponent).encode())
    for layer in exact.chain.layers:
        result.update(f"{layer.weight.shape} {layer.form}".encode())
        result.update(layer.weight.astype("<i2").tobytes() + layer.bias.astype("<i8").tobytes())
    return result.hexdigest()


def lattice(network: nn.Module) -> nn.Module:
    """Weights that are the same on all machines and releases."""
    with torch.no_grad():
        for parameter in network.parameters():
            numbers = torch.arange(parameter.numel(), dtype=torch.float32)
            parameter.copy_((numbers * 7919 % 257 - 128).view_as(parameter) / 256)
    return network


def test_conversion_is_the_same_again_and_with_any_thread_count(threads: None) -> None:
    ids = set()
    for count in (1, 2, 3):
        set_threads(count)
        ids.add((digest(converted(trained())), digest(converted(enlarging(), "activations"))))
    assert len(ids) == 1
    # Frozen: another value on another machine means that conversion is not a function of integers only.
    small = [given_to(np.arange(2 * 5 * 6).reshape(2, 5, 6) % 11 - 5)]
    first = lattice(
        nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.PixelShuffle(2), nn.Conv2d(1, 3, 1))
    )
    second = lattice(
        nn.Sequential(nn.ConvTranspose2d(2, 3, 5, 2, 2, 1), nn.LeakyReLU(), nn.Conv2d(3, 2, 3, padding=1))
    )
    frozen = [
        digest(convert(steps_of(network, "frozen"), [Part(2, 0)], small, "frozen"))[:12]
        for network in (first, second)
    ]
    assert frozen == ["e9cad2be7715", "0ce2b5359f0e"]


def test_headroom_of_two_bits() -> None:
    """The largest sum of all samples lies in the upper half of the lower quarter of a layer's range."""
    chain = converted(enlarging(), "activations").chain
    for number, layer in enumerate(chain.layers):
        sums = [reference_sums(chain.layers[: number + 1], planes_of(sample)) for sample in samples()]
        largest = max(int(np.abs(s).max()) for s in sums)
        assert BIG / 8 <= largest / 2**layer.shift < BIG / 4


@pytest.mark.parametrize("peak", [1.0, 0.3, 32767.0, 32767.49, 2.0**-30, 1e-9, 32767 / 1024, 32768 / 1024])
def test_weights_use_their_16_bits(peak: float) -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False))
    nn.init.constant_(network[0].weight, peak)
    made = convert(steps_of(network, "one"), [Part(1, 0)], [given_to(np.ones((1, 1, 1)))], "one")
    assert 2**14 - 1 <= abs(int(made.chain.layers[0].weight.item())) <= 2**15 - 1


@pytest.mark.parametrize("bias", [0.0, 0.3, -40.0])
def test_weights_of_zero_are_fine(bias: float) -> None:
    """Networks that do not look at their input, all of them or their last layer."""
    for network in (trained(), enlarging(), nn.Sequential(*trained()[:-1], nn.Conv2d(24, 6, 1))):
        for parameter in network.parameters():
            nn.init.zeros_(parameter)
        network[-1].bias = nn.Parameter(torch.full((6,), bias))
        made = converted(network)
        got = made.samples[0] * 2.0**-made.exponent
        assert float(np.abs(got - bias).max()) <= abs(bias) * 1e-4


def test_a_part_without_weights_does_not_limit_the_others() -> None:
    weight = np.zeros((1, 2, 1, 1), np.float32)
    weight[0, 0] = 0.7
    step = Step(weight, np.array([0.1], np.float32))
    a = [given_to(np.array([[[1000]], [[-7]]]))]
    for exponent in (-20, 0, 30):
        made = convert([step], [Part(1, 8), Part(1, exponent)], a, "parts")
        assert 2**14 <= made.chain.layers[0].weight.max() < 2**15
        assert made.exponent == 8 + 15


@pytest.mark.parametrize(
    ("value", "where"),
    [(math.nan, "weight"), (math.inf, "weight"), (-math.inf, "bias"), (math.nan, "bias"), (1e38, "weight"),
     (1e38, "bias"), (1e30, "bias"), (1e-38, "weight")],
)  # fmt: skip
def test_absurd_weights_are_refused(value: float, where: str) -> None:
    network = trained()
    with torch.no_grad():
        if where == "weight":
            network[2].weight.fill_(value)
        else:
            network[2].bias[3] = value
    with pytest.raises(ModelError, match=r"h_s, layer 1"):
        converted(network)


@pytest.mark.parametrize(
    "bad",
    [
        nn.Conv2d(4, 4, 3, padding=1, stride=2),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, (1, 3), padding=(0, 1)),
        nn.Conv2d(4, 4, 2, padding=1),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1),
        nn.ConvTranspose2d(4, 4, 5, stride=2, padding=2, output_padding=1, groups=2),
        nn.ConvTranspose2d(4, 4, 3, stride=2, padding=2, output_padding=1, dilation=2),
        nn.ConvTranspose2d(4, 4, 4, stride=2, padding=1),
        nn.ConvTranspose2d(4, 4, 3, stride=(2, 3), padding=1, output_padding=(1, 2)),
        nn.LeakyReLU(),
        nn.LeakyReLU(0.2),
        nn.PixelShuffle(2),
        nn.Sigmoid(),
        nn.ReLU(),
    ],
    ids=str,
)
def test_unsupported_layers_are_refused(bad: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"h_s\[0\].*cannot be made exact"):
        steps_of(nn.Sequential(bad, nn.Conv2d(4, 1, 1)), "h_s")


@pytest.mark.parametrize(
    "bad",
    [nn.LeakyReLU(0.2), nn.Softplus(), nn.Sequential(nn.ReLU(), nn.ReLU()), nn.Dropout(), nn.BatchNorm2d(4),
     nn.Sequential(nn.PixelShuffle(2), nn.PixelShuffle(2)), nn.Linear(4, 4), nn.Upsample(scale_factor=2)],
    ids=str,
)  # fmt: skip
def test_unsupported_layers_behind_a_convolution_are_refused(bad: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"h_s\[1\].*cannot be made exact"):
        steps_of(nn.Sequential(nn.Conv2d(4, 16, 1), bad), "h_s")


@pytest.mark.parametrize("empty", [nn.Sequential(), nn.Identity(), nn.Sequential(nn.Identity())], ids=str)
def test_a_network_without_layers_is_refused(empty: nn.Module) -> None:
    with pytest.raises(ModelError, match="h_s: it has no convolution"):
        steps_of(empty, "h_s")


def test_what_no_integer_layer_is_names_its_layer() -> None:
    """Found only when the integers are made."""
    for bad in (
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.ConvTranspose2d(4, 4, 3, 2, 1, 1), nn.PixelShuffle(2)),
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.ConvTranspose2d(4, 4, 3, 4, 1, 3)),
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 11, padding=5)),
    ):
        with pytest.raises(ModelError, match=r"h_s, layer 1"):
            converted(bad)


def test_an_unprovable_bound_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(300_000, 1, 1))
    nn.init.constant_(network[0].weight, 0.9999)
    with pytest.raises(ModelError, match=r"wide, layer 0.*beyond the exact range"):
        convert(steps_of(network, "wide"), [Part(300_000, 0)], [], "wide")


def test_masks_are_part_of_the_weights() -> None:
    for kind in (MaskedConv2d, CheckerboardMaskedConv2d):
        conv = kind(2, 3, 5, padding=2)
        nn.init.ones_(conv.weight)
        (step,) = steps_of(conv, "context")
        mask = np.arange(25).reshape(5, 5)
        seen = mask < 12 if kind is MaskedConv2d else mask % 2 == 1
        np.testing.assert_array_equal(step.weight, np.broadcast_to(seen, (3, 2, 5, 5)).astype(np.float32))


# ---- the integer generator


def test_drawn_symbols_are_those_of_splitmix64() -> None:
    tables = [np.array([0, 20000, 50000, 65000, 65536]), np.array([0, 1, 65536])]
    offsets = np.array([-1, 7])
    mask = 2**64 - 1

    def draw(number: int) -> int:
        x = ((number + 1) * 0x9E3779B97F4A7C15 + 5) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return (x ^ (x >> 31)) >> 48

    want = []
    for t, (cdf, offset) in enumerate(zip(tables, offsets, strict=True)):
        for position in range(600):
            slot = draw(600 * t + position)
            symbol = max(i for i in range(len(cdf) - 1) if cdf[i] <= slot)
            want.append(min(symbol, len(cdf) - 3) + offset)
    got = draw_symbols(tables, offsets, (20, 30), seed=5)
    np.testing.assert_array_equal(got, np.array(want).reshape(2, 20, 30))
    assert set(got[0].ravel()) == {-1, 0, 1}  # the escape never
    assert set(got[1].ravel()) == {7}
