"""Networks in exact integers: against a model in Python's unbounded integers, at the proven bound, and hostile."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from latens import _native
from latens.errors import ModelError, ShapeError
from latens.runtime import IntegerChain, IntegerLayer, Thresholds, set_threads
from latens.runtime.layers import Pointwise, reference_activate, reference_sums

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Planes = list[list[list[int]]]
BIG = 2**20
LIMIT = 2**53
LINEAR, RELU, LEAKY = range(3)


# ---- the oracle: Python integers, one product at a time


def oracle_sums(a: Planes, layer: IntegerLayer) -> Planes:
    """Convolution from its definition; every product is scattered to where it belongs."""
    weight, side, up = layer.weight.tolist(), layer.weight.shape[2], layer.up
    height, width = up * len(a[0]), up * len(a[0][0])
    out = [[[int(b)] * width for _ in range(height)] for b in layer.bias]
    taps = range(side)
    for o, i, u, v in itertools.product(range(len(weight)), range(len(a)), taps, taps):
        for y, x in itertools.product(range(len(a[0])), range(len(a[0][0]))):
            # An ordinary convolution looks around, a transposed one spreads.
            if up == 1:
                yy, xx = y - u + side // 2, x - v + side // 2
            else:
                yy, xx = up * y + u - side // 2, up * x + v - side // 2
            if 0 <= yy < height and 0 <= xx < width:
                out[o][yy][xx] += weight[o][i][u][v] * a[i][y][x]
    assert all(abs(value) < LIMIT for plane in out for row in plane for value in row)
    return out


def oracle_activation(acc: int, layer: IntegerLayer) -> int:
    if layer.shift:
        acc = (acc + 2 ** (layer.shift - 1)) // 2**layer.shift
    acc = max(0 if layer.activation == RELU else -BIG, min(layer.top, acc))
    return (655 * acc + 2**15) // 2**16 if layer.activation == LEAKY and acc < 0 else acc


def shuffled(a: Planes, r: int) -> Planes:
    """PixelShuffle from its definition: out[c][r y + i][r x + j] = in[c r^2 + r i + j][y][x]."""
    height, width = len(a[0]), len(a[0][0])
    return [
        [
            [a[c * r * r + (y % r) * r + x % r][y // r][x // r] for x in range(r * width)]
            for y in range(r * height)
        ]
        for c in range(len(a) // (r * r))
    ]


def oracle(layers: Sequence[IntegerLayer], a: Int64) -> tuple[Planes, Planes]:
    """Sums and activations of the last layer."""
    planes: Planes = a.tolist()
    for layer in layers:
        sums = oracle_sums(planes, layer)
        after = [[[oracle_activation(v, layer) for v in row] for row in plane] for plane in sums]
        planes = shuffled(after, layer.shuffle)
    return sums, planes


@st.composite
def layer_forms(draw: st.DrawFn, channels: int) -> IntegerLayer:
    """A layer; values prefer the extremes, so that saturation happens."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    k = draw(st.sampled_from([1, 3, 5]))
    up = draw(st.sampled_from([u for u in (1, 1, 2, 3) if u <= k]))
    r = draw(st.sampled_from([1, 1, 2])) if up == 1 else 1
    out = draw(st.integers(1, 2)) * r * r
    peak = draw(st.sampled_from([3, 500, 2**15 - 1]))
    weight = rng.integers(-peak, peak + 1, (out, channels, k, k))
    if draw(st.booleans()):
        weight = np.where(weight < 0, -peak, peak)
    reach = 10 ** draw(st.integers(0, 14))
    top = draw(st.sampled_from([BIG, BIG, 255, 0]))
    activation = draw(st.sampled_from([LINEAR, RELU, LEAKY]))
    return IntegerLayer(
        weight, rng.integers(-reach, reach + 1, out), draw(st.integers(0, 40)), activation, r, up, top
    )


@st.composite
def chains(draw: st.DrawFn) -> tuple[IntegerChain, Int64]:
    channels = first = draw(st.integers(1, 3))
    layers: list[IntegerLayer] = []
    for _ in range(draw(st.integers(1, 3))):
        layers.append(draw(layer_forms(channels)))
        channels = layers[-1].channels
    shape = (first, draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    peak = draw(st.sampled_from([5, 2**10, BIG]))
    a = rng.integers(-peak, peak + 1, shape)
    if draw(st.booleans()):
        a = np.where(a < 0, -BIG, BIG)
    return IntegerChain(layers), a


def given_to(a: Int64) -> Int32:
    """``(C, H, W)`` as chains take it."""
    return np.ascontiguousarray(a.transpose(1, 2, 0), np.int32)


def planes_of(result: npt.NDArray[np.integer]) -> Int64:
    assert result.dtype in (np.int64, np.int32)
    return result.transpose(2, 0, 1).astype(np.int64)


@given(chains(), st.integers(1, 3))
@settings(max_examples=120)
def test_chain_equals_python_integers(case: tuple[IntegerChain, Int64], threads: int) -> None:
    chain, a = case
    set_threads(threads)
    sums, activations = (np.array(planes, np.int64) for planes in oracle(chain.layers, a))
    reference = reference_sums(chain.layers, a)
    np.testing.assert_array_equal(reference, sums)
    np.testing.assert_array_equal(reference_activate(reference, chain.layers[-1]), activations)
    np.testing.assert_array_equal(planes_of(chain.sums(given_to(a))), sums)
    np.testing.assert_array_equal(planes_of(chain.activations(given_to(a))), activations)
    assert activations.shape == (chain.outputs, *(chain.scaling * side for side in a.shape[1:]))
    assert a.shape[0] == chain.inputs
    assert np.abs(sums).max() <= chain.bounds()[-1] < LIMIT


@pytest.mark.parametrize(
    ("k", "form"),
    [
        (1, {}),
        (3, {}),
        (5, {}),
        (9, {}),
        (5, {"up": 2}),
        (7, {"up": 3}),
        (3, {"shuffle": 2}),
        (1, {"shuffle": 3}),
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (1, 60), (60, 1), (17, 49)])
def test_large_layers(k: int, form: dict[str, int], size: tuple[int, int]) -> None:
    """Several blocks of outputs and of positions, odd numbers of channels, runs that end where 32 bits do."""
    rng = np.random.default_rng(k)
    # Weights so large that sums leave 32 bits within a window; numbers of channels that fill no pair and no block.
    weight = rng.choice([-32767, 32767, 3, 20000], (36, 41, k, k))
    layer = IntegerLayer(weight, rng.integers(-1000, 1000, 36), 20, LEAKY, **form)
    last = IntegerLayer(rng.integers(-32767, 32768, (17, layer.channels, 3, 3)), rng.integers(-9, 9, 17))
    a = rng.choice([-BIG, BIG, 1023, 1024, -1024, -1025, 7], (41, *size))
    for layers in ([layer], [layer, last]):
        chain = IntegerChain(layers)
        for threads in (1, 3):
            set_threads(threads)
            want = reference_sums(layers, a)
            np.testing.assert_array_equal(planes_of(chain.sums(given_to(a))), want)
            got = planes_of(chain.activations(given_to(a)))
            np.testing.assert_array_equal(got, reference_activate(want, layers[-1]))


def test_what_is_out_of_range_counts_as_its_ends() -> None:
    chain = IntegerChain([IntegerLayer(np.ones((1, 1, 1, 1), np.int64), np.zeros(1, np.int64))])
    a = np.array([[[2**31 - 1], [-(2**31)], [BIG + 1]]], np.int32)
    assert chain.sums(a).ravel().tolist() == [BIG, -BIG, BIG]


def test_planes_that_do_not_fit_are_refused() -> None:
    chain = IntegerChain([IntegerLayer(np.ones((2, 3, 1, 1), np.int64), np.zeros(2, np.int64))])
    plane, row = np.zeros((4, 5, 3), np.int32), np.zeros((1, 2), np.int64)
    good = chain._native
    good.plane_sums(plane, [row], np.zeros((4, 5, 2), np.int64))
    for inputs, added, out in (
        (plane[:, :, :2].copy(), [row], np.zeros((4, 5, 2), np.int64)),
        (plane, [], np.zeros((4, 5, 2), np.int64)),
        (plane, [row[:, :1].copy()], np.zeros((4, 5, 2), np.int64)),
        (plane, [np.zeros((20, 2), np.int64)], np.zeros((4, 5, 2), np.int64)),
        (plane, [row], np.zeros((4, 5, 1), np.int64)),
        (plane, [row], np.zeros((5, 5, 2), np.int64)),
    ):
        with pytest.raises(ShapeError):
            good.plane_sums(inputs, added, out)
    with pytest.raises(ShapeError):
        good.plane_activations(plane, [row], np.zeros((4, 5, 3), np.int32))
    around = IntegerChain([IntegerLayer(np.ones((2, 3, 3, 3), np.int64), np.zeros(2, np.int64))])._native
    with pytest.raises(ShapeError):
        around.sums(plane[0], [row], np.zeros((5, 2), np.int64))


@pytest.mark.parametrize(("k", "up"), [(3, 2), (3, 3), (5, 2), (5, 3), (5, 4), (5, 5), (7, 2), (9, 8)])
def test_transposed_convolution_is_that_of_torch(k: int, up: int) -> None:
    rng = np.random.default_rng(k * up)
    weight = rng.integers(-32767, 32768, (3, 2, k, k))
    layer = IntegerLayer(weight, rng.integers(-1000, 1000, 3), up=up)
    a = rng.integers(-BIG, BIG + 1, (2, 5, 4))
    want = nn.functional.conv_transpose2d(
        torch.from_numpy(a).double()[None], torch.from_numpy(weight.transpose(1, 0, 2, 3)).double(),
        torch.from_numpy(layer.bias).double(), up, k // 2, up - 1,
    )  # fmt: skip
    np.testing.assert_array_equal(planes_of(IntegerChain([layer]).sums(given_to(a))), want[0].numpy())
    np.testing.assert_array_equal(reference_sums([layer], a), want[0].numpy())


def test_a_chain_can_be_used_again_and_leaves_its_input_alone() -> None:
    weight = np.arange(6).reshape(3, 2, 1, 1)
    chain = IntegerChain([IntegerLayer(weight, np.array([1, 2, -7]), 1, LEAKY)])
    a = given_to(np.array([[[5]], [[-900]]]))
    before = a.copy()
    first = chain.activations(a)
    np.testing.assert_array_equal(a, before)
    np.testing.assert_array_equal(chain.activations(a), first)
    assert chain.scaling == 1


# ---- layers at single positions


def plain_form(weight: Int64 | None = None, **form: int) -> IntegerLayer:
    chosen = np.ones((1, 1, 1, 1), np.int64) if weight is None else weight.astype(np.int64)
    return IntegerLayer(chosen, np.zeros(len(chosen), np.int64), **form)


@st.composite
def pointwise_cases(draw: st.DrawFn) -> tuple[list[IntegerLayer], Int64, list[Int64]]:
    count = draw(st.integers(1, 3))
    sizes = draw(st.lists(st.integers(1, 40), min_size=count + 1, max_size=count + 1))
    positions = draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    most = draw(st.sampled_from([3, 300, 2**15 - 1]))
    layers, added = [], []
    for inputs, outputs in itertools.pairwise(sizes):
        weight = rng.integers(-most, most, (outputs, inputs, 1, 1), endpoint=True)
        weight = np.where(rng.random(weight.shape) < 0.3, np.sign(weight) * most, weight)
        form = (draw(st.integers(0, 40)), draw(st.sampled_from([LINEAR, RELU, LEAKY])))
        top = draw(st.sampled_from([0, 5000, BIG]))
        layers.append(IntegerLayer(weight, rng.integers(-(2**45), 2**45, outputs), *form, top=top))
        added.append(rng.integers(-(2**45), 2**45, (positions, outputs)))
    ends = [0, 1, -1, 1023, 1024, -1024, -1025, BIG - 1, BIG, -BIG]
    inputs = rng.choice([*ends, *rng.integers(-BIG, BIG, 8)], (positions, sizes[0]))
    return layers, inputs, added


@settings(max_examples=60)
@given(case=pointwise_cases(), each=st.booleans(), threads_used=st.integers(1, 3))
def test_layers_at_single_positions_are_those_of_int64(
    case: tuple[list[IntegerLayer], Int64, list[Int64]], each: bool, threads_used: int
) -> None:
    layers, inputs, added = case
    a = inputs
    for number, layer in enumerate(layers):
        sums = a @ layer.weight[:, :, 0, 0].T + (added[number] if each else layer.bias)
        a = reference_activate(sums.T[:, :, None], layer)[:, :, 0].T
    rows = [added[i] if each else layer.bias[None] for i, layer in enumerate(layers)]
    set_threads(threads_used)
    for _ in range(2):
        np.testing.assert_array_equal(Pointwise(layers).sums(inputs.astype(np.int32), rows), sums)


def test_layers_at_single_positions_take_a_part_of_the_weights_and_many_positions() -> None:
    rng = np.random.default_rng(3)
    first, second = (
        IntegerLayer(rng.integers(-(2**15) + 1, 2**15, (600, 600, 1, 1)), np.zeros(600, np.int64), 14, LEAKY)
        for _ in range(2)
    )
    matrix = rng.integers(-900, 900, (600, 7))
    a = rng.integers(-BIG, BIG, (200, 7))
    hidden = reference_activate((a @ matrix.T).T[:, :, None], first)[:, :, 0].T
    want = hidden @ second.weight[:, :, 0, 0].T
    zeros = [np.zeros((1, 600), np.int64)] * 2
    layers = Pointwise([first, second], {0: matrix})
    np.testing.assert_array_equal(layers.sums(a.astype(np.int32), zeros), want)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "got 0"),
        ([plain_form(weight=np.full((1, 1, 1, 1), -(2**15)))], "weights must be at least -32767"),
        ([plain_form(shift=53)], "a shift must be 0 to 52, got 53"),
        ([plain_form(shift=-1)], "a shift must be 0 to 52"),
        ([plain_form(activation=3)], "activation 3 is unknown"),
        ([plain_form(top=BIG + 1)], "largest activation must be 0 to 1048576"),
        ([plain_form(), plain_form(weight=np.ones((1, 2, 1, 1)))], "has 2 inputs, but the one before has 1"),
        ([plain_form(weight=np.ones((1, 1, 3, 3)), up=2)], "cannot change the size"),
    ],
)
def test_layers_at_single_positions_refuse_what_is_not_exact(
    layers: list[IntegerLayer], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        Pointwise(layers)


def test_layers_at_single_positions_refuse_arrays_that_do_not_fit() -> None:
    layers = Pointwise([plain_form(weight=np.ones((2, 3, 1, 1)))])
    rows = np.zeros((1, 2), np.int64)
    for inputs, added in (
        (np.zeros((4, 2), np.int32), [rows]),
        (np.zeros((4, 3), np.int32), [rows, rows]),
        (np.zeros((4, 3), np.int32), [np.zeros((3, 2), np.int64)]),
        (np.zeros((4, 3), np.int32), [np.zeros((1, 3), np.int64)]),
    ):
        with pytest.raises(ShapeError):
            layers.sums(inputs, added)


# ---- the bound


def extreme(bias: int, sign: int = 1) -> IntegerLayer:
    """One layer, all of whose weights are as large as can be."""
    return IntegerLayer(np.full((1, 40, 5, 5), sign * 32767), np.array([sign * bias]))


REACH = 40 * 25 * 32767 * BIG


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_are_exact_up_to_the_bound(sign: int) -> None:
    top = LIMIT - 2  # one less for the rounding constant, which counts as at least 1
    layer = extreme(top - REACH, sign)
    assert layer.bound() == LIMIT - 1
    thresholds = Thresholds(np.array([sign * top - 1, sign * top]))
    chain = IntegerChain([layer])
    # Only in the middle all taps see the input; one unit less must be told apart.
    a = np.full((5, 5, 40), BIG, np.int32)
    assert chain.sums(a)[2, 2, 0] == sign * top
    assert thresholds.count(chain.sums(a)[2], 0, 1)[2, 0] == 1
    a[1, 3, 17] -= 1
    assert thresholds.count(chain.sums(a)[2], 0, 1)[2, 0] == (0 if sign > 0 else 2)


def test_one_more_than_the_bound_is_refused() -> None:
    with pytest.raises(ModelError, match="beyond the exact range"):
        IntegerChain([extreme(LIMIT - 1 - REACH)])


def test_shift_counts_in_the_bound() -> None:
    half = 2**51
    layer = IntegerLayer(np.zeros((1, 1, 1, 1), np.int64), np.array([LIMIT - 1 - half]), 52)
    layer.check()
    with pytest.raises(ModelError, match="beyond the exact range"):
        replace(layer, bias=layer.bias + 1).check()


@pytest.mark.parametrize("acc", [-5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, LIMIT // 2, -LIMIT // 2 + 1])
def test_rounding_is_floor_of_the_half_added(acc: int) -> None:
    chain = IntegerChain([IntegerLayer(np.zeros((1, 1, 1, 1), np.int64), np.array([acc]), 2)])
    value = max(-BIG, min(BIG, math.floor((acc + 2) / 4)))
    assert chain.activations(np.zeros((1, 1, 1), np.int32)).item() == value


@pytest.mark.parametrize("top", [0, 1, 255, BIG])
@pytest.mark.parametrize("activation", [LINEAR, RELU, LEAKY])
def test_activations_at_their_edges(activation: int, top: int) -> None:
    accs = [-LIMIT // 2, -BIG - 1, -BIG, -200, -101, -100, -99, -51, -50, -49, -2, -1, 0, 1, 254, 255, 256]
    accs += [BIG - 1, BIG, BIG + 1, LIMIT // 2]
    layer = IntegerLayer(np.zeros((len(accs), 1, 1, 1), np.int64), np.array(accs), 0, activation, top=top)
    got = IntegerChain([layer]).activations(np.zeros((1, 1, 1), np.int32)).ravel()
    assert got.tolist() == [oracle_activation(acc, layer) for acc in accs]
    if activation == LEAKY:
        assert oracle_activation(-100, layer) == -1
        assert oracle_activation(-BIG, layer) == -10480


def plain(out: int = 1, into: int = 1, k: int = 1) -> IntegerLayer:
    return IntegerLayer(np.ones((out, into, k, k), np.int64), np.zeros(out, np.int64))


MIN = np.iinfo(np.int64).min
ONE = np.ones((1, 1, 1, 1), np.int64)
ZERO = np.zeros(1, np.int64)


@pytest.mark.parametrize(
    "layers",
    [
        [],
        [plain(2), plain()],
        [plain(k=2)],
        [plain(k=11)],
        [IntegerLayer(np.ones((1, 1, 3, 1), np.int64), ZERO)],
        [IntegerLayer(np.ones((2, 1, 1, 1), np.int64), ZERO)],
        [IntegerLayer(ONE, ZERO[:, None])],
        [IntegerLayer(32768 * ONE, ZERO)],
        [IntegerLayer(-32768 * ONE, ZERO)],
        [IntegerLayer(MIN * ONE, ZERO)],
        [IntegerLayer(ONE, np.array([MIN]))],
        [IntegerLayer(ONE, ZERO, 53)],
        [IntegerLayer(ONE, ZERO, -1)],
        [IntegerLayer(plain(2).weight, plain(2).bias, shuffle=2)],
        [IntegerLayer(ONE, ZERO, shuffle=0)],
        [IntegerLayer(ONE, ZERO, shuffle=-1)],
        [IntegerLayer(ONE, ZERO, activation=3)],
        [IntegerLayer(ONE, ZERO, activation=-1)],
        [IntegerLayer(ONE, ZERO, top=-1)],
        [IntegerLayer(ONE, ZERO, top=BIG + 1)],
        [replace(plain(k=3), up=0)],
        [replace(plain(k=3), up=-2)],
        [replace(plain(k=9), up=9)],
        [replace(plain(4, k=3), up=2, shuffle=2)],
        # Some positions would get nothing but the bias.
        [replace(plain(k=1), up=2)],
        [replace(plain(k=3), up=4)],
        # Each enlarges by as much as it may, all together by more.
        [replace(plain(k=9), up=8)] * 3,
    ],
)
def test_bad_layers_are_refused(layers: list[IntegerLayer]) -> None:
    with pytest.raises(ModelError, match="integer"):
        IntegerChain(layers)


@pytest.mark.parametrize(
    "values",
    [[], list(range(256)), [[0]], [1, 1], [2, 1], [LIMIT], [-LIMIT], [MIN], [1, MIN], [MIN, MIN + 1]],
    ids=lambda v: str(v)[:20],
)
def test_bad_thresholds_are_refused(values: list[int]) -> None:
    with pytest.raises(ModelError, match="integer network"):
        Thresholds(np.array(values, np.int64))


@pytest.mark.parametrize("levels", [[math.nan], [math.inf], [1e300], [0.5, 0.5], [1.0, 0.0], []])
def test_bad_real_thresholds_are_refused(levels: list[float]) -> None:
    with pytest.raises(ModelError):
        Thresholds.of(np.array(levels), 20, "scales")


def test_real_thresholds_that_fall_together_are_refused() -> None:
    assert Thresholds.of(np.array([0.13, 0.14]), 7, "scales").values.tolist() == [16, 17]
    with pytest.raises(ModelError, match="fall together"):
        Thresholds.of(np.array([0.13, 0.14]), 6, "scales")


@given(st.integers(-30, 50), st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5, unique=True), st.data())
def test_real_thresholds_are_exceeded_by_the_same_values(
    exponent: int, levels: list[float], data: st.DataObject
) -> None:
    """As integers, they split the sums exactly where the real ones do."""
    try:
        thresholds = Thresholds.of(np.array(sorted(levels)), exponent, "scales")
    except ModelError:
        return
    near = [int(v) + d for v in thresholds.values for d in (-1, 0, 1)]
    sums = np.array(near + data.draw(st.lists(st.integers(-(2**52), 2**52), max_size=9)))
    real = [sum(math.ldexp(float(s), -exponent) > level for level in levels) for s in sums]
    assert thresholds.count(sums[:, None], 0, 1).ravel().tolist() == real


@given(st.lists(st.integers(1 - LIMIT, LIMIT - 1), min_size=1, max_size=255, unique=True), st.integers(0, 3))
@settings(max_examples=40)
def test_only_thresholds_that_are_exceeded_count(values: list[int], first: int) -> None:
    thresholds = Thresholds(np.array(sorted(values)))
    near = np.concatenate([thresholds.values - 1, thresholds.values, thresholds.values + 1])
    sums = np.stack([np.roll(near, i) for i in range(5)], axis=1)
    want = (sums[:, first : first + 2, None] > thresholds.values).sum(axis=2)
    np.testing.assert_array_equal(thresholds.count(sums, first, 2), want)


def test_channels_that_do_not_exist_have_no_thresholds() -> None:
    sums = np.zeros((3, 4), np.int64)
    for first, channels in ((0, 5), (3, 2), (5, 1)):
        with pytest.raises(ShapeError):
            Thresholds(np.array([1])).count(sums, first, channels)
    with pytest.raises(ShapeError):
        _native.count_exceeded(sums, 0, np.arange(256), np.zeros((3, 4), np.uint8))
    with pytest.raises(ShapeError):
        _native.count_exceeded(sums, 0, np.arange(6), np.zeros((2, 4), np.uint8))
