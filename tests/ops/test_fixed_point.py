"""Networks in exact integers: against a model in Python's unbounded integers, at the proven bound, and hostile."""

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from latens.errors import ModelError, ShapeError
from latens.layers import CheckerboardMaskedConv2d, MaskedConv2d
from latens.ops import fixed_point
from latens.ops.conversion import (
    Converted,
    Part,
    Step,
    convert,
    draw_symbols,
    steps_of,
)
from latens.ops.fixed_point import (
    IntegerChain,
    IntegerLayer,
    Pointwise,
    Thresholds,
    reference_activate,
    reference_sums,
)

Int64 = npt.NDArray[np.int64]
Planes = list[list[list[int]]]
BIG = 2**20
LIMIT = 2**53
LINEAR, RELU, LEAKY = range(3)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


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


def given_to(a: Int64) -> Tensor:
    """``(C, H, W)`` as chains take it."""
    return torch.from_numpy(a.transpose(1, 2, 0).astype(np.float64))[None].contiguous()


def planes_of(result: Tensor) -> Int64:
    assert result.dtype == torch.float64
    return result[0].permute(2, 0, 1).numpy().astype(np.int64)


@given(chains())
@settings(max_examples=80)
def test_chain_equals_python_integers(case: tuple[IntegerChain, Int64]) -> None:
    chain, a = case
    sums, activations = (np.array(planes, np.int64) for planes in oracle(chain.layers, a))
    reference = reference_sums(chain.layers, a)
    np.testing.assert_array_equal(reference, sums)
    np.testing.assert_array_equal(reference_activate(reference, chain.layers[-1]), activations)
    np.testing.assert_array_equal(planes_of(chain.sums(given_to(a))), sums)
    np.testing.assert_array_equal(planes_of(chain.activations(given_to(a))), activations)
    assert activations.shape == (chain.outputs, *(chain.scaling * side for side in a.shape[1:]))
    assert a.shape[0] == chain.inputs
    assert np.abs(sums).max() <= chain.bounds()[-1] < LIMIT


def winograd_everywhere(patch: pytest.MonkeyPatch) -> None:
    """However small layers and inputs are, fast convolutions are taken where they are exact."""
    patch.setattr(fixed_point, "_WINOGRAD_CHANNELS", 1)
    patch.setattr(fixed_point, "_WINOGRAD_POSITIONS", 1)


@given(chains(), st.sampled_from([1, 4 << 20]))
@settings(max_examples=80)
def test_fast_convolutions_are_as_exact(case: tuple[IntegerChain, Int64], pieces: int) -> None:
    chain, a = case
    with pytest.MonkeyPatch.context() as patch:
        winograd_everywhere(patch)
        patch.setattr(fixed_point, "_WINDOW_BYTES", pieces)
        found = planes_of(chain.sums(given_to(a)))
    np.testing.assert_array_equal(found, reference_sums(chain.layers, a))


@pytest.mark.parametrize(
    ("k", "up", "points"), [(3, 1, [16]), (5, 2, [16, 12, 12, 9]), (7, 3, [16, 12, 12, 12, 9, 9, 12, 9, 9])]
)
def test_large_layers_run_as_fast_convolutions(k: int, up: int, points: list[int]) -> None:
    rng = np.random.default_rng(k)
    layer = IntegerLayer(rng.integers(-32767, 32768, (33, 40, k, k)), rng.integers(-1000, 1000, 33), up=up)
    chain = IntegerChain([layer])
    a = rng.integers(-BIG, BIG + 1, (40, 17, 19))
    np.testing.assert_array_equal(planes_of(chain.sums(given_to(a))), reference_sums([layer], a))
    phases = chain._prepared(torch.device("cpu"))[0][0]
    assert [len(p.winograd.points) for p in phases if p.winograd is not None] == points


@pytest.mark.parametrize("channels", [1024, 1025])
def test_fast_convolutions_end_where_they_are_not_proven(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    winograd_everywhere(monkeypatch)
    # At the points, weights become up to 64 times as large together, values 4 times: 2^10 channels fill 53 bits.
    layer = IntegerLayer(np.full((1, channels, 3, 3), 32767), np.array([5]))
    chain = IntegerChain([layer])
    signs = np.where(np.indices((channels, 4, 5)).sum(axis=0) % 3 == 0, -BIG, BIG)
    for a in (np.full((channels, 4, 5), BIG), signs):
        np.testing.assert_array_equal(planes_of(chain.sums(given_to(a))), reference_sums([layer], a))
    assert (chain._prepared(torch.device("cpu"))[0][0][0].winograd is None) == (channels > 1024)


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


def random_chain(rng: np.random.Generator) -> IntegerChain:
    """About the shape of real hyper-synthesis networks, small, with all kinds of layers."""

    def layer(out: int, into: int, k: int, bias: int, *form: int) -> IntegerLayer:
        weight = rng.integers(-32767, 32768, (out, into, k, k))
        return IntegerLayer(weight, rng.integers(-bias, bias, out), *form)

    return IntegerChain(
        [
            layer(64, 8, 3, 2**24, 10, RELU, 2),
            layer(20, 16, 5, 2**30, 15, LEAKY, 1, 2),
            layer(16, 20, 5, 2**33, 18, RELU, 1, 1, 255),
            layer(32, 16, 1, 2**33, 3),
        ]
    )


def test_threads_autocast_layout_and_size_of_pieces_do_not_matter(
    threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(4)
    chain = random_chain(rng)
    z = rng.integers(-300, 300, (2, 8, 9, 13))
    want = np.stack([reference_sums(chain.layers, sample) for sample in z])
    assert len(np.unique(want)) > 30
    a = torch.from_numpy(z.transpose(0, 2, 3, 1).astype(np.float64))
    for count, pieces in ((1, 1), (2, 50_000), (3, 4 << 20)):
        monkeypatch.setattr(fixed_point, "_WINDOW_BYTES", pieces)
        torch.set_num_threads(count)
        np.testing.assert_array_equal(chain.sums(a).permute(0, 3, 1, 2).numpy(), want)
    with torch.autocast("cpu", torch.bfloat16):
        strided = a.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
        np.testing.assert_array_equal(chain.sums(strided).permute(0, 3, 1, 2).numpy(), want)


def test_a_chain_can_be_used_again_and_leaves_its_input_alone() -> None:
    weight = np.arange(6).reshape(3, 2, 1, 1)
    chain = IntegerChain([IntegerLayer(weight, np.array([1, 2, -7]), 1, LEAKY)])
    a = given_to(np.array([[[5]], [[-900]]]))
    before = a.clone()
    first = chain.activations(a)
    assert torch.equal(a, before)
    assert torch.equal(chain.activations(a), first)
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
    before = torch.get_num_threads()
    torch.set_num_threads(threads_used)
    try:
        crew = Pointwise.crew()
        for _ in range(2):
            got = Pointwise(layers).sums(
                torch.from_numpy(inputs.astype(np.int32)), [torch.from_numpy(row) for row in rows], crew
            )
            np.testing.assert_array_equal(got.numpy(), sums)
    finally:
        torch.set_num_threads(before)


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
    zeros = [torch.zeros(1, 600, dtype=torch.int64)] * 2
    layers = Pointwise([first, second], {0: matrix})
    got = layers.sums(torch.from_numpy(a.astype(np.int32)), zeros, Pointwise.crew())
    np.testing.assert_array_equal(got.numpy(), want)


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
    layers, crew = Pointwise([plain_form(weight=np.ones((2, 3, 1, 1)))]), Pointwise.crew()
    rows = torch.zeros(1, 2, dtype=torch.int64)
    for inputs, added in (
        (torch.zeros(4, 2, dtype=torch.int32), [rows]),
        (torch.zeros(4, 3, dtype=torch.int32), [rows, rows]),
        (torch.zeros(4, 3, dtype=torch.int32), [rows.expand(3, 2).contiguous()]),
        (torch.zeros(4, 3, dtype=torch.int32), [torch.zeros(1, 3, dtype=torch.int64)]),
    ):
        with pytest.raises(ShapeError):
            layers.sums(inputs, added, crew)


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
    a = torch.full((1, 5, 5, 40), float(BIG), dtype=torch.float64)
    assert chain.sums(a)[0, 2, 2, 0] == sign * top
    assert thresholds.count(chain.sums(a))[0, 2, 2, 0] == 1
    a[0, 1, 3, 17] -= 1
    assert thresholds.count(chain.sums(a))[0, 2, 2, 0] == (0 if sign > 0 else 2)


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
    assert chain.activations(torch.zeros(1, 1, 1, 1, dtype=torch.float64)).item() == value


@pytest.mark.parametrize("top", [0, 1, 255, BIG])
@pytest.mark.parametrize("activation", [LINEAR, RELU, LEAKY])
def test_activations_at_their_edges(activation: int, top: int) -> None:
    accs = [-LIMIT // 2, -BIG - 1, -BIG, -200, -101, -100, -99, -51, -50, -49, -2, -1, 0, 1, 254, 255, 256]
    accs += [BIG - 1, BIG, BIG + 1, LIMIT // 2]
    layer = IntegerLayer(np.zeros((len(accs), 1, 1, 1), np.int64), np.array(accs), 0, activation, top=top)
    got = IntegerChain([layer]).activations(torch.zeros(1, 1, 1, 1, dtype=torch.float64)).flatten()
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
    sums = torch.tensor(near + data.draw(st.lists(st.integers(-(2**52), 2**52), max_size=9))).double()
    real = [sum(math.ldexp(float(s), -exponent) > level for level in levels) for s in sums]
    assert thresholds.count(sums).tolist() == real


def test_a_device_that_rounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = fixed_point._accumulate

    def single_precision(a: Tensor, phases: list[fixed_point._Phase], bias: Tensor, up: int) -> Tensor:
        phases = [phase._replace(matrix=phase.matrix.float()) for phase in phases]
        return real(a.float(), phases, bias.float(), up).double()

    fixed_point.prove_exact.cache_clear()
    monkeypatch.setattr(fixed_point, "_accumulate", single_precision)
    with pytest.raises(ModelError, match="cpu does not compute float64 exactly"):
        IntegerChain([plain()]).sums(torch.zeros(1, 1, 1, 1, dtype=torch.float64))
    monkeypatch.undo()
    fixed_point.prove_exact(torch.device("cpu"))


def test_a_device_without_float64_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_float64(*_: object) -> None:
        raise TypeError("Cannot convert a tensor to this device as it does not support float64")

    fixed_point.prove_exact.cache_clear()
    monkeypatch.setattr(fixed_point, "_prepare", no_float64)
    with pytest.raises(ModelError, match=r"device cpu has no float64.*CPU"):
        fixed_point.prove_exact(torch.device("cpu"))
    monkeypatch.undo()
    fixed_point.prove_exact(torch.device("cpu"))


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


def samples(channels: int = 4, count: int = 4) -> list[Tensor]:
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
    got = planes_of(thresholds.count(sums).double())
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
        torch.set_num_threads(count)
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
        assert float((got - bias).abs().max()) <= abs(bias) * 1e-4


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


@pytest.mark.parametrize("step", [2, 4, 2**20, 2**45])
def test_evenly_spaced_thresholds(step: int) -> None:
    """They are counted without a search: at their edges and at the ends of the range as anywhere else."""
    values = step * np.arange(63 if step < 2**40 else 5) + step // 2
    sums = np.concatenate([values - 1, values, values + 1, [0, LIMIT - 2, 2 - LIMIT]])
    for moved in (0, 1):  # moved by one, they take the search
        thresholds = Thresholds(values + moved)
        assert (thresholds._step is None) == bool(moved)
        expected = [sum(int(s) > int(t) for t in thresholds.values) for s in sums]
        assert thresholds.count(torch.from_numpy(sums.astype(np.float64))).tolist() == expected
