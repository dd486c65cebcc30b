"""Networks in exact integers: against a model in Python's unbounded integers, at the proven bound, and hostile."""

import hashlib
import itertools
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from latens.errors import ModelError
from latens.ops import fixed_point
from latens.ops.fixed_point import FixedPointNetwork, IntegerLayer, convert, draw_symbols, run_reference

Int64 = npt.NDArray[np.int64]
BIG = 2**20
LIMIT = 2**53


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# ---- the oracle: Python integers, one output value at a time


def shuffled(a: list[list[list[int]]], r: int) -> list[list[list[int]]]:
    """PixelShuffle from its definition: out[c][r y + i][r x + j] = in[c r^2 + r i + j][y][x]."""
    height, width = len(a[0]), len(a[0][0])
    return [
        [
            [a[c * r * r + (y % r) * r + x % r][y // r][x // r] for x in range(r * width)]
            for y in range(r * height)
        ]
        for c in range(len(a) // (r * r))
    ]


def oracle(network: FixedPointNetwork, z: Int64) -> list[list[list[int]]]:
    a = [[[max(-BIG, min(BIG, int(v))) for v in row] for row in plane] for plane in z]
    for number, layer in enumerate(network.layers):
        weight, reach = layer.weight.tolist(), layer.weight.shape[2] // 2
        height, width = len(a[0]), len(a[0][0])
        out = []
        for o in range(len(weight)):
            plane = []
            for y, x in itertools.product(range(height), range(width)):
                acc = int(layer.bias[o])
                for i, u, v in itertools.product(range(len(a)), range(2 * reach + 1), range(2 * reach + 1)):
                    yy, xx = y + u - reach, x + v - reach
                    if 0 <= yy < height and 0 <= xx < width:
                        acc += weight[o][i][u][v] * a[i][yy][xx]
                assert abs(acc) < LIMIT
                if number == len(network.layers) - 1:
                    plane.append(sum(acc > int(t) for t in network.thresholds))
                    continue
                if layer.shift:
                    acc = (acc + 2 ** (layer.shift - 1)) // 2**layer.shift
                plane.append(max(0 if layer.relu else -BIG, min(BIG, acc)))
            out.append([plane[y * width : (y + 1) * width] for y in range(height)])
        a = out if number == len(network.layers) - 1 else shuffled(out, layer.shuffle)
    return a


@st.composite
def networks(draw: st.DrawFn) -> tuple[FixedPointNetwork, Int64]:
    """A network and an input; values prefer the extremes, so that saturation happens."""
    channels = first = draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    layers = []
    count = draw(st.integers(1, 3))
    for number in range(count):
        last = number == count - 1
        r = 1 if last else draw(st.sampled_from([1, 1, 2]))
        out = draw(st.integers(1, 2)) * r * r
        k = draw(st.sampled_from([1, 3, 5]))
        peak = draw(st.sampled_from([3, 500, 2**15 - 1]))
        weight = rng.integers(-peak, peak + 1, (out, channels, k, k))
        bias = rng.integers(-(10 ** draw(st.integers(0, 14))), 10 ** draw(st.integers(0, 14)), out)
        shift = 0 if last else draw(st.integers(0, 40))
        layers.append(IntegerLayer(weight, bias, shift, not last and draw(st.booleans()), r))
        channels = out // r**2
    reach = 10 ** draw(st.integers(1, 13))
    thresholds = np.unique(rng.integers(-reach, reach, draw(st.integers(1, 63))))
    shape = (first, draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    peak = draw(st.sampled_from([5, 2**10, 2**21]))
    return FixedPointNetwork(layers, thresholds), rng.integers(-peak, peak + 1, shape)


@given(networks())
@settings(max_examples=60)
def test_network_equals_python_integers(case: tuple[FixedPointNetwork, Int64]) -> None:
    network, z = case
    want = np.array(oracle(network, z), np.uint8)
    np.testing.assert_array_equal(run_reference(network, z), want)
    np.testing.assert_array_equal(network(torch.from_numpy(z)[None])[0].numpy(), want)


def random_layers(rng: np.random.Generator) -> FixedPointNetwork:
    """About the shape of a real hyper-scale network, small."""

    def layer(out: int, into: int, k: int, bias: int, *form: int) -> IntegerLayer:
        weight = rng.integers(-32767, 32768, (out, into, k, k))
        return IntegerLayer(weight, rng.integers(-bias, bias, out), form[0], bool(form[1]), form[2])

    layers = [
        layer(64, 8, 3, 2**24, 10, 1, 2),
        layer(64, 16, 3, 2**30, 14, 1, 2),
        layer(32, 16, 1, 2**33, 0, 0, 1),
    ]
    return FixedPointNetwork(layers, np.sort(rng.integers(-(2**35), 2**35, 63)))


def test_threads_dtype_autocast_and_layout_do_not_matter(threads: None) -> None:
    rng = np.random.default_rng(4)
    network = random_layers(rng)
    z = rng.integers(-300, 300, (2, 8, 13, 17))
    want = np.stack([run_reference(network, sample) for sample in z])
    assert len(np.unique(want)) > 30
    for count, dtype in itertools.product((1, 2, 3), (torch.int16, torch.float32, torch.float64)):
        torch.set_num_threads(count)
        given_z = torch.from_numpy(z).to(dtype)
        np.testing.assert_array_equal(network(given_z).numpy(), want)
    with torch.autocast("cpu", torch.bfloat16):
        given_z = torch.from_numpy(z).float().contiguous(memory_format=torch.channels_last)
        np.testing.assert_array_equal(network(given_z).numpy(), want)


# ---- the bound


def extreme(bias: int, sign: int = 1) -> IntegerLayer:
    """One layer, all of whose weights are as large as can be."""
    return IntegerLayer(np.full((1, 40, 5, 5), sign * 32767), np.array([sign * bias]), 0, False, 1)


REACH = 40 * 25 * 32767 * BIG


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_are_exact_up_to_the_bound(sign: int) -> None:
    top = LIMIT - 2  # one less for the rounding constant, which counts as at least 1
    layer = extreme(top - REACH, sign)
    assert layer.bound() == LIMIT - 1
    thresholds = np.array([sign * top - 1, sign * top])
    network = FixedPointNetwork([layer], thresholds)
    # Only in the middle all taps see the input; one unit less must be told apart.
    z = torch.full((1, 40, 5, 5), BIG)
    assert network(z)[0, 0, 2, 2] == 1
    z[0, 17, 1, 3] -= 1
    assert network(z)[0, 0, 2, 2] == (0 if sign > 0 else 2)


def test_one_more_than_the_bound_is_refused() -> None:
    with pytest.raises(ModelError, match="beyond the exact range"):
        FixedPointNetwork([extreme(LIMIT - 1 - REACH)], np.array([0]))


def test_shift_counts_in_the_bound() -> None:
    half = 2**51
    layer = IntegerLayer(np.zeros((1, 1, 1, 1), np.int64), np.array([LIMIT - 1 - half]), 52, False, 1)
    layer.check()
    with pytest.raises(ModelError, match="beyond the exact range"):
        IntegerLayer(layer.weight, layer.bias + 1, 52, False, 1).check()


@pytest.mark.parametrize("acc", [-5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, LIMIT // 2, -LIMIT // 2 + 1])
def test_rounding_is_floor_of_the_half_added(acc: int) -> None:
    first = IntegerLayer(np.zeros((1, 1, 1, 1), np.int64), np.array([acc]), 2, False, 1)
    identity = IntegerLayer(np.ones((1, 1, 1, 1), np.int64), np.array([0]), 0, False, 1)
    value = max(-BIG, min(BIG, math.floor((acc + 2) / 4)))
    network = FixedPointNetwork([first, identity], np.array([value - 1, value]))
    assert network(torch.zeros(1, 1, 1, 1)).item() == 1


def plain(out: int = 1, into: int = 1, k: int = 1) -> IntegerLayer:
    return IntegerLayer(np.ones((out, into, k, k), np.int64), np.zeros(out, np.int64), 0, False, 1)


MIN = np.iinfo(np.int64).min


@pytest.mark.parametrize(
    ("layers", "thresholds"),
    [
        ([], [0]),
        ([plain()], []),
        ([plain()], list(range(256))),
        ([plain()], [1, 1]),
        ([plain()], [2, 1]),
        ([plain()], [LIMIT]),
        ([plain()], [-LIMIT]),
        ([plain()], [MIN]),
        ([plain()], [1, MIN]),
        ([plain(2), plain()], [0]),
        ([plain(k=2)], [0]),
        ([plain(k=11)], [0]),
        ([IntegerLayer(np.ones((1, 1, 3, 1), np.int64), np.zeros(1, np.int64), 0, False, 1)], [0]),
        ([IntegerLayer(np.ones((2, 1, 1, 1), np.int64), np.zeros(1, np.int64), 0, False, 1)], [0]),
        ([IntegerLayer(np.full((1, 1, 1, 1), 32768), np.zeros(1, np.int64), 0, False, 1)], [0]),
        ([IntegerLayer(np.full((1, 1, 1, 1), -32768), np.zeros(1, np.int64), 0, False, 1)], [0]),
        ([IntegerLayer(np.ones((1, 1, 1, 1), np.int64), np.array([MIN]), 0, False, 1)], [0]),
        ([IntegerLayer(np.ones((1, 1, 1, 1), np.int64), np.zeros(1, np.int64), 53, False, 1), plain()], [0]),
        ([IntegerLayer(np.ones((1, 1, 1, 1), np.int64), np.zeros(1, np.int64), -1, False, 1), plain()], [0]),
        ([IntegerLayer(np.ones((2, 1, 1, 1), np.int64), np.zeros(2, np.int64), 0, False, 2), plain()], [0]),
        ([IntegerLayer(np.ones((1, 1, 1, 1), np.int64), np.zeros(1, np.int64), 0, False, 0), plain()], [0]),
        # What would follow the last layer would be ignored.
        ([IntegerLayer(np.ones((1, 1, 1, 1), np.int64), np.zeros(1, np.int64), 1, False, 1)], [0]),
        ([IntegerLayer(np.ones((1, 1, 1, 1), np.int64), np.zeros(1, np.int64), 0, True, 1)], [0]),
        ([IntegerLayer(np.ones((4, 1, 1, 1), np.int64), np.zeros(4, np.int64), 0, False, 2)], [0]),
    ],
)
def test_bad_networks_are_refused(layers: list[IntegerLayer], thresholds: list[int]) -> None:
    with pytest.raises(ModelError, match="integer"):
        FixedPointNetwork(layers, np.array(thresholds, np.int64))


def test_a_device_that_rounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = fixed_point._accumulate

    def single_precision(a: torch.Tensor, taps: list[torch.Tensor], bias: torch.Tensor) -> torch.Tensor:
        return real(a.float(), [tap.float() for tap in taps], bias.float()).double()

    fixed_point._prove_exact.cache_clear()
    monkeypatch.setattr(fixed_point, "_accumulate", single_precision)
    with pytest.raises(ModelError, match="cpu does not compute float64 exactly"):
        FixedPointNetwork([plain()], np.array([0]))(torch.zeros(1, 1, 1, 1))
    monkeypatch.undo()
    fixed_point._prove_exact(torch.device("cpu"))


# ---- conversion


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


THRESHOLDS = [level + 0.5 for level in range(63)]


def samples(count: int = 4) -> list[Int64]:
    rng = np.random.default_rng(9)
    return [rng.integers(-12, 13, (4, 9, 7)) for _ in range(count)]


def digest(network: FixedPointNetwork) -> str:
    result = hashlib.sha256()
    network.update_hash(result)
    return result.hexdigest()


def test_converted_network_follows_the_float_network() -> None:
    network = trained()
    exact = convert(network, THRESHOLDS, samples())
    assert exact.upscale == 2
    z = np.random.default_rng(1).integers(-12, 13, (4, 40, 50))
    with torch.no_grad():
        real = network.double()(torch.from_numpy(z)[None].double())[0].numpy()
    want = np.clip(np.round(real), 0, 63)
    got = exact(torch.from_numpy(z)[None])[0].numpy()
    assert len(np.unique(want)) > 20
    assert (got != want).mean() < 2e-3
    # Where they differ, the float network was undecided.
    assert np.abs(real - np.round(real))[got != want].min(initial=0.5) > 0.49


def test_conversion_is_the_same_again_and_with_any_thread_count(threads: None) -> None:
    ids = set()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        ids.add(digest(convert(trained(), THRESHOLDS, samples())))
    # Frozen: another value on another machine means that conversion is not a function of integers only.
    fixed = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.PixelShuffle(2), nn.Conv2d(1, 3, 1))
    with torch.no_grad():
        for parameter in fixed.parameters():
            numbers = torch.arange(parameter.numel(), dtype=torch.float32)
            parameter.copy_((numbers * 7919 % 257 - 128).view_as(parameter) / 256)
    small = [np.arange(2 * 5 * 6).reshape(2, 5, 6) % 11 - 5]
    assert len(ids) == 1
    assert digest(convert(fixed, [-0.5, 0.5, 1.5], small))[:12] == "ac9b5b23fc42"


def test_every_bit_of_a_network_is_hashed() -> None:
    rng = np.random.default_rng(0)
    base = random_layers(rng)
    seen = {digest(base)}
    for number, layer in enumerate(base.layers):
        weight, bias = layer.weight.copy(), layer.bias.copy()
        weight.flat[-1] = 5 if weight.flat[-1] != 5 else 6
        bias[-1] += 1
        changes = [
            IntegerLayer(weight, layer.bias, layer.shift, layer.relu, layer.shuffle),
            IntegerLayer(layer.weight, bias, layer.shift, layer.relu, layer.shuffle),
        ]
        if number < 2:
            changes += [
                IntegerLayer(layer.weight, layer.bias, layer.shift + 1, layer.relu, layer.shuffle),
                IntegerLayer(layer.weight, layer.bias, layer.shift, not layer.relu, layer.shuffle),
            ]
        for change in changes:
            layers = [*base.layers[:number], change, *base.layers[number + 1 :]]
            seen.add(digest(FixedPointNetwork(layers, base.thresholds)))
    thresholds = base.thresholds.copy()
    thresholds[-1] += 1
    seen.add(digest(FixedPointNetwork(base.layers, thresholds)))
    assert len(seen) == 12


@pytest.mark.parametrize("peak", [1.0, 0.3, 32767.0, 32767.49, 2.0**-30, 1e-9, 32767 / 1024, 32768 / 1024])
def test_weights_use_their_16_bits(peak: float) -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False))
    nn.init.constant_(network[0].weight, peak)
    layer = convert(network, [0.5 * peak], []).layers[0]
    assert 2**14 - 1 <= abs(int(layer.weight.item())) <= 2**15 - 1


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
    with pytest.raises(ModelError, match=r"h_scale\[2\]"):
        convert(network, THRESHOLDS, samples(), "h_scale")


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
        nn.ConvTranspose2d(4, 4, 3, padding=1),
        nn.LeakyReLU(),
        nn.Sigmoid(),
        nn.ReLU(),
    ],
    ids=str,
)
def test_unsupported_layers_are_refused(bad: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"network\[0\].*cannot be made exact"):
        convert(nn.Sequential(bad, nn.Conv2d(4, 1, 1)), [0.5], samples())


def test_an_unprovable_bound_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(300_000, 1, 1))
    nn.init.constant_(network[0].weight, 0.9999)
    with pytest.raises(ModelError, match="beyond the exact range"):
        convert(network, [0.5], [])


@pytest.mark.parametrize("thresholds", [[math.nan], [math.inf], [1e300], [0.5, 0.5], [1.0, 0.0], []])
def test_bad_thresholds_are_refused(thresholds: list[float]) -> None:
    with pytest.raises(ModelError):
        convert(trained(), thresholds, samples())


def test_a_network_that_ends_in_relu_is_refused() -> None:
    with pytest.raises(ModelError, match="nothing follows"):
        convert(trained().append(nn.ReLU()), THRESHOLDS, samples())


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


@pytest.mark.parametrize("step", [2, 4, 2**20, 2**45])
def test_evenly_spaced_thresholds(step: int) -> None:
    """They are counted without a search: at their edges and at the ends of the range as anywhere else."""
    thresholds = step * np.arange(63 if step < 2**40 else 5) + step // 2
    sums = np.concatenate([thresholds - 1, thresholds, thresholds + 1, [0, LIMIT - 2, 2 - LIMIT]])
    layer = IntegerLayer(np.zeros((len(sums), 1, 1, 1), np.int64), sums, 0, False, 1)
    for moved in (0, 1):  # moved by one, they take the search
        network = FixedPointNetwork([layer], thresholds + moved)
        expected = [sum(int(s) > int(t) for t in network.thresholds) for s in sums]
        assert network(torch.zeros(1, 1, 1, 1)).flatten().tolist() == expected
