"""The entropy model of files: against a slow twin in plain integers, streams against the slow coder, storage,
identity, hostile tensors."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from latens.entropy_coding import reference
from latens.errors import CoderError, LatensError, ModelError, ShapeError, TableError
from latens.runtime import (
    ExactEntropy,
    Group,
    IntegerChain,
    IntegerLayer,
    IntegerTables,
    Level,
    Pass,
    Thresholds,
    set_threads,
)
from latens.runtime.layers import reference_activate, reference_sums

Array = npt.NDArray[Any]
Int64 = npt.NDArray[np.int64]
Int16 = npt.NDArray[np.int16]
BIG = 2**20
LINEAR, RELU, LEAKY = range(3)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    yield
    set_threads(None)


# ---- the oracle: one position after the other, in Python's integers


def oracle(model: ExactEntropy, z: Int16, y: Int16, knot: int) -> tuple[Int64, Int64, Int64]:
    """Indexes, means and values ``(C, H, W)`` of symbols y: what both sides must agree on."""
    level = model.levels[knot if len(model.levels) > 1 else 0]
    inputs = np.clip(z.astype(np.int64) * level.z_step + model.medians[:, None, None], -BIG, BIG)
    direct = model.groups[0].parameters is None
    sides = [reference_sums(chain.layers, inputs) for chain in model.hyper]
    if not direct:
        sides = [reference_activate(s, c.layers[-1]) for s, c in zip(sides, model.hyper, strict=True)]
    height, width = sides[0].shape[1:]
    indexes, means, values = (np.zeros((model.y_channels, height, width), np.int64) for _ in range(3))
    starts = np.cumsum([0, *(group.channels for group in model.groups)])
    for k, group in enumerate(model.groups):
        own = slice(starts[k], starts[k + 1])
        parts = {"side": sides[0]}
        if group.channel is not None:
            seen = np.concatenate([values[starts[e] : starts[e + 1]] for e in group.earlier])
            parts["channel"] = reference_activate(
                reference_sums(group.channel.layers, seen), group.channel.layers[-1]
            )
        places = [(r, c) for r in range(height) for c in range(width)]
        if group.order == "checkerboard":
            places.sort(key=lambda p: (sum(p) + group.odd_first) % 2)
        for r, c in places:
            late = group.order == "raster" or (sum((r, c)) + group.odd_first) % 2 == 1
            if direct:
                scales = sides[0][group.scale :, r, c]
                all_means = sides[-1][:, r, c]
            else:
                here = {name: part[:, r, c] for name, part in parts.items()}
                if group.spatial is not None:
                    here["spatial"] = np.zeros(group.spatial.weight.shape[0], np.int64)
                    if late:
                        here["spatial"] = window(group.spatial, values[own], r, c, level.context)
                vector = np.concatenate([here[part] for part in group.parts])
                for number, layer in enumerate(group.parameters.layers):
                    sums = layer.weight[:, :, 0, 0] @ vector + layer.bias
                    vector = reference_activate(sums[:, None, None], layer)[:, 0, 0]
                    assert (
                        number < len(group.parameters.layers) - 1
                        or (vector == np.clip(sums, -BIG, BIG)).all()
                    )
                scales, all_means = sums[group.scale :], sums
            for channel in range(group.channels):
                o = starts[k] + channel
                index = sum(int(scales[channel]) > int(t) for t in level.thresholds[k].values)
                mean = 0
                if group.mean is not None:
                    shift, mean = group.mean_shift, int(all_means[group.mean + channel])
                    mean = (mean + 2 ** (shift - 1)) // 2**shift if shift > 0 else mean * 2**-shift
                    mean = max(-BIG, min(BIG, mean))
                symbol = int(y[o, r, c])
                value = 256 * symbol
                if level.offsets is not None and symbol:
                    moved = value + int(level.offsets[index]) * (1 if symbol > 0 else -1)
                    value = moved
                value = (value * level.step + 2**15) // 2**16 + mean
                indexes[o, r, c], means[o, r, c] = index, mean
                values[o, r, c] = max(-BIG, min(BIG, value))
    return indexes, means, values


def window(layer: IntegerLayer, values: Int64, r: int, c: int, added: Int64 | None) -> Int64:
    """A spatial context at one position, from the whole window: what is not decoded yet is zero there."""
    reach = layer.weight.shape[2] // 2
    padded = np.pad(values, ((0, 0), (reach, reach), (reach, reach)))
    around = padded[:, r : r + 2 * reach + 1, c : c + 2 * reach + 1]
    sums = np.tensordot(layer.weight, around, axes=3) + layer.bias + (0 if added is None else added)
    return reference_activate(sums[:, None, None], layer)[:, 0, 0]


# ---- random models, most of whose layers saturate


def table_rows(rng: np.random.Generator, sizes: list[int]) -> IntegerTables:
    rows = []
    for size in sizes:
        steps = rng.integers(1, 100, size - 1)
        cdf = np.concatenate([[0], np.cumsum(steps)]) * (2**16 // int(steps.sum()))
        cdf[-1] = 2**16
        rows.append(cdf.astype(np.int32))
    offsets = -(np.array(sizes) // 2) + rng.integers(-3, 4, len(sizes))
    return IntegerTables(np.concatenate(rows), np.array(sizes, np.int32), offsets.astype(np.int32))


@st.composite
def models(draw: st.DrawFn) -> ExactEntropy:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def layer(out: int, into: int, k: int, last: bool = False, **form: int) -> IntegerLayer:
        weight = rng.integers(-32767, 32768, (out, into, k, k))
        kind = draw(st.sampled_from(["extreme", "any", "sparse"]))
        if kind == "extreme":
            weight = np.where(weight < 0, -32767, 32767)
        elif kind == "sparse":
            weight *= rng.random(weight.shape) < 0.2
        bias = rng.integers(-(2**40), 2**40, out) // 2 ** draw(st.integers(0, 40))
        if last:
            return IntegerLayer(weight, bias, **form)
        activation = draw(st.sampled_from([LINEAR, RELU, LEAKY]))
        top = draw(st.sampled_from([BIG, BIG, 255]))
        return IntegerLayer(weight, bias, draw(st.integers(0, 36)), activation, top=top, **form)

    channels, tables = draw(st.integers(1, 2)), draw(st.integers(2, 6))
    knots = draw(st.integers(1, 3))
    kind = draw(st.sampled_from(["direct", "two", "groups", "groups", "groups"]))

    def network(into: int, out: int, last: bool, *, enlarge: bool) -> IntegerChain:
        layers: list[IntegerLayer] = []
        if enlarge:
            if draw(st.booleans()):
                layers = [layer(8, into, 3, shuffle=2)]
            else:
                layers = [layer(2, into, draw(st.sampled_from([3, 5])), up=2)]
            into = 2
        return IntegerChain([*layers, layer(out, into, draw(st.sampled_from([1, 3])), last)])

    enlarge = draw(st.booleans())
    groups: list[Group] = []
    hyper: list[IntegerChain]
    shift = st.integers(-4, 44)
    if kind == "direct":
        size = draw(st.integers(1, 2))
        hyper = [network(channels, 2 * size + 1, True, enlarge=enlarge)]
        means_first, mean = draw(st.booleans()), draw(st.booleans())
        scale = size if means_first else 0
        groups = [Group(size, scale=scale, mean=(size - scale if mean else None), mean_shift=draw(shift))]
    elif kind == "two":
        size = draw(st.integers(1, 2))
        hyper = [
            network(channels, size, True, enlarge=enlarge),
            network(channels, size + 1, True, enlarge=enlarge),
        ]
        groups = [Group(size, mean=1, mean_shift=draw(shift))]
    else:
        hyper = [network(channels, 2, False, enlarge=enlarge)]
        for k in range(draw(st.integers(1, 3))):
            size = draw(st.integers(1, 2))
            order = draw(st.sampled_from(["all", "checkerboard", "raster"]))
            sizes = {"side": 2}
            spatial = channel = None
            earlier: tuple[int, ...] = ()
            if order != "all":
                k_size = draw(st.sampled_from([1, 3, 5]))
                spatial = masked(layer(3, size, k_size), order)
                sizes["spatial"] = 3
            if k and draw(st.booleans()):
                earlier = tuple(draw(st.permutations(range(k)))[: draw(st.integers(1, k))])
                channel = network(sum(groups[e].channels for e in earlier), 2, False, enlarge=False)
                sizes["channel"] = 2
            parts = tuple(draw(st.permutations(sorted(sizes))))
            layers = [layer(4, sum(sizes.values()), 1)] if draw(st.booleans()) else []
            layers.append(layer(2 * size, 4 if layers else sum(sizes.values()), 1, True))
            means_first = draw(st.booleans())
            groups.append(
                Group(
                    size, order, size if means_first else 0,
                    (0 if means_first else size) if draw(st.booleans()) else None,
                    draw(shift), IntegerChain(layers), parts, earlier, channel, spatial, draw(st.booleans()),
                )
            )  # fmt: skip

    def thresholds() -> Thresholds:
        if draw(st.booleans()):
            step = 2 ** draw(st.integers(1, 40))
            return Thresholds(step * np.arange(tables - 1) + step // 2)
        reach = 10 ** draw(st.integers(2, 12))
        values = np.unique(rng.integers(-reach, reach, tables - 1))
        return Thresholds(
            np.arange(values[0], values[0] + tables - 1) if len(values) < tables - 1 else values
        )

    spatials = [g.spatial for g in groups if g.spatial is not None]
    levels = [
        Level(
            tuple(thresholds() for _ in groups),
            draw(st.sampled_from([1, 256, BIG])),
            draw(st.sampled_from([1, 2**16, 5000, 2**24 + 1, 2**32])),
            rng.integers(-300, 300, tables) if draw(st.booleans()) else None,
            rng.integers(-(2**40), 2**40, 3) if len(spatials) == 1 and draw(st.booleans()) else None,
        )
        for _ in range(draw(st.sampled_from([1, knots])))
    ]
    return ExactEntropy(
        table_rows(rng, [int(s) for s in rng.integers(3, 12, knots * channels)]),
        rng.integers(-300, 300, channels),
        z_bits=draw(st.integers(0, 16)),
        y_tables=table_rows(rng, [int(s) for s in rng.integers(3, 12, tables)]),
        hyper=hyper,
        groups=groups,
        levels=levels,
    )


# Within reach of the escape of every table: 2^15 from its ends.
SYMBOL = [0, 0, 1, -1, 2, -3, 7, -900, 16000, -16000]


@given(models(), st.data())
@settings(max_examples=40)
def test_everything_equals_the_slow_twin(model: ExactEntropy, data: st.DataObject) -> None:
    """Means and tables of every symbol, values, and streams: with any number of threads, on both sides."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    shape = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    knot, skip = (
        data.draw(st.integers(0, model.knots - 1)),
        data.draw(st.integers(0, len(model.y_tables.sizes))),
    )
    lanes = data.draw(st.sampled_from([1, 2, 8]))
    z = rng.choice(SYMBOL, (model.z_channels, *shape)).astype(np.int16)
    size = [model.upscale * side for side in shape]
    wanted = model.replay(rng.choice(SYMBOL, (model.y_channels, *size)).astype(np.int16))
    passes: list[tuple[Pass, Int16]] = []

    def quantise(part: Pass) -> Int16:
        symbols = wanted(part) * (part.indexes >= skip)
        passes.append((part, symbols))
        return symbols

    set_threads(data.draw(st.integers(1, 3)))
    stream, used, coded = model.encode(z, quantise, knot, skip, lanes)
    assert used == lanes
    indexes, means, values = oracle(model, z, coded.y, knot)
    np.testing.assert_array_equal(coded.indexes, indexes)
    np.testing.assert_array_equal(coded.z, z)
    assert coded.latent.dtype == np.float32
    np.testing.assert_array_equal(coded.latent[0].astype(float) * 256, values)

    ends = np.cumsum([group.channels for group in model.groups])
    symbols = [(int(v), knot * model.z_channels + c) for c in range(len(z)) for v in z[c].ravel()]
    covered = 0
    for part, coded_symbols in passes:
        end = ends[part.group]
        flat = means[end - model.groups[part.group].channels : end].reshape(-1, size[0] * size[1]).T
        rows = slice(None) if part.positions is None else part.positions
        got = np.zeros_like(flat[rows]) if part.means is None else part.means
        np.testing.assert_array_equal(got, flat[rows])
        symbols += [
            (int(v), len(model.z_tables.sizes) + int(i))
            for v, i in zip(coded_symbols.ravel(), part.indexes.ravel(), strict=True)
            if i >= skip
        ]
        covered += coded_symbols.size
    assert covered == coded.y.size
    slow = [
        reference.Table(row.tolist(), int(offset))
        for tables in (model.z_tables, model.y_tables)
        for row, offset in zip(tables.rows(0, len(tables.sizes)), tables.offsets, strict=True)
    ]
    assert stream == reference.encode(symbols, slow, reference.LANES, lanes)

    set_threads(data.draw(st.integers(1, 3)))
    again = ExactEntropy.from_tensors(load_tensors(save_tensors(model.tensors())))
    assert again.entropy_id == model.entropy_id
    decoded = again.decode(stream, shape, knot, skip, lanes)
    for name in ("z", "y", "indexes"):
        np.testing.assert_array_equal(getattr(decoded, name), getattr(coded, name))
    np.testing.assert_array_equal(decoded.latent, coded.latent)


# ---- small models that are the same for ever


Z, Y, KNOTS, TABLES = 2, 3, 2, 6


def numbers(*shape: int, modulus: int, start: int = 1) -> Int64:
    """Integers that only look random: the same for ever, on every machine."""
    count = int(np.prod(shape))
    return (np.arange(start, start + count, dtype=np.int64) ** 2 * 7919 % 10007 % modulus).reshape(shape)


def tables(sizes: list[int], offsets: list[int], seed: int) -> IntegerTables:
    rows = []
    for i, size in enumerate(sizes):
        steps = numbers(size - 1, modulus=97, start=seed + i) + 1
        cdf = np.concatenate([[0], np.cumsum(steps)]) * (2**16 // int(steps.sum()))
        cdf[-1] = 2**16
        rows.append(cdf.astype(np.int32))
    return IntegerTables(np.concatenate(rows), np.array(sizes, np.int32), np.array(offsets, np.int32))


def layer(out: int, into: int, k: int, shift: int = 0, *form: int, start: int = 1) -> IntegerLayer:
    weight = numbers(out, into, k, k, modulus=401, start=start) - 200
    return IntegerLayer(weight, numbers(out, modulus=5000, start=start) - 1000, shift, *form)


def masked(plain: IntegerLayer, order: str) -> IntegerLayer:
    side = plain.weight.shape[2]
    rows, columns = np.mgrid[:side, :side]
    seen = rows * side + columns < side * side // 2 if order == "raster" else (rows + columns) % 2 == 1
    return dataclasses.replace(plain, weight=plain.weight * seen)


LEVELS = np.array([-4000, -500, 300, 2000, 9000])
Z_TABLES = tables([3, 9, 20, 5], [0, -4, -10, 100], 3)
Y_TABLES = tables([3, 4, 5, 9, 17, 33], [0, -1, -1, -3, -7, -15], 40)
UP = layer(16, Z, 3, 4, RELU, 2)


def made(**parts: Any) -> ExactEntropy:
    parts = {"y_tables": Y_TABLES, "levels": [Level((Thresholds(LEVELS),) * len(parts["groups"]))], **parts}
    return ExactEntropy(Z_TABLES, np.array([37, -81]), **parts)


def raster_group(**changes: Any) -> Group:
    spatial = masked(layer(4, Y, 5, 9, LEAKY, start=9), "raster")
    parameters = IntegerChain([layer(7, 9, 1, 6, LEAKY), layer(2 * Y, 7, 1, start=5)])
    group = Group(Y, "raster", 0, Y, 4, parameters, ("side", "spatial"), spatial=spatial)
    return dataclasses.replace(group, **changes)


def board_group(channels: int = 2, **changes: Any) -> Group:
    spatial = masked(layer(4, channels, 3, 9, start=9), "checkerboard")
    parameters = IntegerChain([layer(2 * channels, 9, 1, start=5)])
    parts = ("spatial", "side")
    group = Group(
        channels, "checkerboard", channels, 0, 4, parameters, parts, spatial=spatial, odd_first=True
    )
    return dataclasses.replace(group, **changes)


def late_group(**changes: Any) -> Group:
    channel = IntegerChain([layer(3, 2, 3, 8, RELU)])
    parameters = IntegerChain([layer(2, 8, 1, start=5)])
    group = Group(1, "all", 0, 1, 4, parameters, ("channel", "side"), (0,), channel)
    return dataclasses.replace(group, **changes)


SIDE = IntegerChain([UP, layer(5, 4, 3, 7, LEAKY, start=50)])
VARIABLE_LEVELS = [
    Level((Thresholds(LEVELS + i),), 256, 40_000 + i, numbers(TABLES, modulus=50) - i, numbers(4, modulus=900))
    for i in range(KNOTS)
]  # fmt: skip
MODELS = {
    "direct": made(hyper=[IntegerChain([UP, layer(Y, 4, 1, start=50)])], groups=[Group(Y)], z_bits=0),
    "two": made(
        hyper=[
            IntegerChain([layer(4, Z, 5, 5, LEAKY, 1, 2), layer(Y, 4, 1, start=50)]),
            IntegerChain([layer(4, Z, 5, 5, RELU, 1, 2, 255), layer(Y, 4, 3, start=70)]),
        ],
        groups=[Group(Y, mean=0, mean_shift=3)],
    ),
    "raster": made(hyper=[SIDE], groups=[raster_group()], levels=VARIABLE_LEVELS),
    "groups": made(hyper=[SIDE], groups=[board_group(), late_group()]),
    "factorized": ExactEntropy(Z_TABLES, np.array([37, -81]), levels=[Level((), 256)]),
}
FROZEN = {
    "direct": "16c6022007779e9056359d3d1eaed7e415c4633bf1b5bcd4d153ccf27c477124",
    "two": "48a4c84c42b40bcd22bbfe7339efc4834c7bb9320ba6289921f44072f11ebb46",
    "raster": "eee47671ae2dc916181246dd2019aa631e63ce266718cfe6d6d7364619526de8",
    "groups": "9aaead224417343115a29b8729c96efd5588ad60479eac010fe288f9878241ab",
    "factorized": "f5d12d05378845760e7a15bfcf7c5fdd359202de244a7201f9a8d6557b34cfb6",
}
EACH = pytest.mark.parametrize("kind", MODELS)


@EACH
def test_the_identity_is_frozen(kind: str) -> None:
    model = MODELS[kind]
    assert model.entropy_id == FROZEN[kind]
    assert (model.knots, model.z_channels) == (KNOTS, Z)
    assert model.y_channels == (0 if kind == "factorized" else Y)
    assert model.upscale == (1 if kind == "factorized" else 2)
    assert all(0 < bound < 2**53 for bounds in model.bounds().values() for bound in bounds)


def coded(model: ExactEntropy, seed: int = 0, lanes: int = 2) -> tuple[bytes, Int16, Int16]:
    """A stream and its symbols."""
    z = numbers(Z, 3, 5, modulus=40, start=1 + seed).astype(np.int16) - 20
    y = numbers(model.y_channels, 6, 10, modulus=60, start=1 + seed).astype(np.int16) - 30
    stream, _, decoded = model.encode(z, model.replay(y), 1, 0, lanes)
    np.testing.assert_array_equal(decoded.y, y if model.groups else y[:, :3, :5])
    return stream, z, decoded.y


@EACH
def test_storage_keeps_everything(kind: str) -> None:
    model = MODELS[kind]
    again = ExactEntropy.from_tensors(load_tensors(save_tensors(model.tensors())))
    assert again.entropy_id == model.entropy_id
    assert coded(again)[0] == coded(model)[0]


@EACH
def test_every_stored_integer_is_part_of_the_identity(kind: str) -> None:
    model = MODELS[kind]
    seen = {model.entropy_id}
    count = 1
    for name, tensor in model.tensors().items():
        for position in {0, tensor.size // 2, tensor.size - 1} if tensor.size else set():
            changed = model.tensors()
            changed[name].reshape(-1)[position] += 1
            try:
                identity = ExactEntropy.from_tensors(changed).entropy_id
            except LatensError:
                continue
            seen.add(identity)
            count += 1
    assert len(seen) == count > (20 if model.groups else 8)


def test_z_alone_is_the_latent_of_a_model_without_y() -> None:
    model = MODELS["factorized"]
    z = np.array([[[0, 3], [-200, 1]], [[1, 0], [0, 30_000]]], np.int16)
    stream, lanes, decoded = model.encode(z, model.replay(z), 0, 0)
    again = model.decode(stream, (2, 2), 0, 0, lanes)
    np.testing.assert_array_equal(again.latent, decoded.latent)
    want = np.clip(z + np.array([37, -81])[:, None, None] / 256, -4096, 4096)
    np.testing.assert_array_equal(decoded.latent[0], want)
    assert decoded.y.shape == decoded.indexes.shape == (0, 2, 2)
    np.testing.assert_array_equal(model.quantise_z(decoded.latent, 0)[0], z[0])


def spied(quantise: Callable[[Pass], Int16], seen: list[Pass]) -> Callable[[Pass], Int16]:
    def call(part: Pass) -> Int16:
        seen.append(part)
        return quantise(part)

    return call


@pytest.mark.parametrize("kind", ["raster", "groups", "two"])
def test_the_quantiser_rounds_around_integer_means(kind: str) -> None:
    model = MODELS[kind]
    z = numbers(Z, 2, 3, modulus=9).astype(np.int16) - 4
    y = numbers(1, Y, 4, 6, modulus=9001).astype(np.float32) / 300
    for knot, skip in ((0, 0), (1, 3)):
        seen: list[Pass] = []
        quantise = model.quantiser(y, knot, skip)

        _, _, decoded = model.encode(z, spied(quantise, seen), knot, skip, 1)
        indexes, means, _ = oracle(model, z, decoded.y, knot)
        step = model._level(knot).step / 2**16
        want = np.round((y[0].astype(float) - means / 256) / step)
        np.testing.assert_array_equal(decoded.y, np.where(indexes < skip, 0, want))
        assert len(seen) == {"raster": 6 + 3 * 3, "groups": 3, "two": 1}[kind]
        assert len(np.unique(indexes)) > 1
    huge = model.quantiser(np.full((1, Y, 4, 6), 1e30, np.float32), 0, 0)
    everything = Pass(0, None, np.full((24, model.groups[0].channels), 5, np.uint8), None)
    assert (huge(everything) == 32767).all()


def test_a_skipped_symbol_that_is_not_zero_is_refused() -> None:
    model = MODELS["direct"]
    with pytest.raises(CoderError):
        model.encode(np.zeros((Z, 1, 1), np.int16), model.replay(np.ones((Y, 2, 2), np.int16)), 0, 255, 1)


@EACH
@given(st.binary(max_size=60), st.integers(0, KNOTS - 1), st.integers(0, 7), st.sampled_from([1, 4]))
@settings(max_examples=40)
def test_arbitrary_bytes_give_symbols_or_a_coder_error(
    kind: str, data: bytes, knot: int, skip: int, lanes: int
) -> None:
    model = MODELS[kind]
    try:
        decoded = model.decode(data, (2, 2), knot, skip, lanes)
    except CoderError:
        return
    assert model.encode(decoded.z, model.replay(decoded.y), knot, skip, lanes)[0] == data


@EACH
@pytest.mark.parametrize("lanes", [1, 8])
def test_altered_streams_give_other_symbols_or_a_coder_error(kind: str, lanes: int) -> None:
    model = MODELS[kind]
    stream, z, y = coded(model, lanes=lanes)
    rng = np.random.default_rng(0)
    for _ in range(5):
        altered = bytearray(stream)
        altered[rng.integers(len(altered))] ^= 1 << rng.integers(8)
        try:
            decoded = model.decode(bytes(altered), (3, 5), 1, 0, lanes)
        except CoderError:
            continue
        assert (decoded.z != z).any() or (decoded.y != y).any()


@pytest.mark.parametrize("knot", [-1, KNOTS])
def test_a_knot_that_does_not_exist_is_refused(knot: int) -> None:
    model = MODELS["direct"]
    with pytest.raises(ModelError, match="knot"):
        model.encode(np.zeros((Z, 1, 1), np.int16), model.replay(np.zeros((Y, 2, 2), np.int16)), knot, 0, 1)


@pytest.mark.parametrize("shape", [(3, 4, 4), (Z, 4), (Z, 0, 4)])
def test_z_of_other_shapes_is_refused(shape: tuple[int, ...]) -> None:
    model = MODELS["direct"]
    with pytest.raises(ShapeError, match="expected z"):
        model.encode(np.zeros(shape, np.int16), model.replay(np.zeros((Y, 8, 8), np.int16)), 0, 0)


# ---- parts that do not fit


def sums_of(*layers: IntegerLayer) -> list[IntegerChain]:
    return [IntegerChain(layers)]


DIRECT = {"hyper": MODELS["direct"].hyper, "groups": [Group(Y)]}
RASTER = {"hyper": [SIDE], "groups": [raster_group()]}
GROUPS = {"hyper": [SIDE], "groups": [board_group(), late_group()]}
T = Thresholds(LEVELS)
SEES_ITSELF = np.zeros((4, Y, 5, 5), np.int64)
SEES_ITSELF[3, 2, 2, 2] = 1
SEES_LATER = np.roll(SEES_ITSELF, 1, axis=3)
SEES_DIAGONAL = np.zeros((4, 2, 3, 3), np.int64)
SEES_DIAGONAL[0, 0, 0, 0] = -1
CONTEXT = numbers(4, modulus=900)


def seeing(weight: Int64) -> IntegerLayer:
    return IntegerLayer(weight, np.zeros(len(weight), np.int64), 9, LEAKY)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({**DIRECT, "groups": []}, "y needs"),
        ({**DIRECT, "y_tables": None}, "y needs"),
        ({**DIRECT, "hyper": []}, "y needs"),
        ({**DIRECT, "z_bits": -1}, "medians"),
        ({**DIRECT, "z_bits": 17}, "medians"),
        ({**DIRECT, "levels": [Level((T,))] * 3}, "3 levels for 2"),
        ({**DIRECT, "levels": []}, "0 levels"),
        ({**DIRECT, "hyper": sums_of(layer(Y, 3, 1))}, "hyper-synthesis does not fit"),
        ({**DIRECT, "hyper": sums_of(layer(Y, Z, 1)) * 3}, "hyper-synthesis does not fit"),
        ({**DIRECT, "hyper": [*MODELS["direct"].hyper, *sums_of(layer(Y, Z, 1))]}, "different size"),
        ({**DIRECT, "groups": [Group(1), Group(2)]}, "contexts need"),
        ({**DIRECT, "groups": [Group(Y, parts=("side",))]}, "contexts need"),
        ({**DIRECT, "groups": [raster_group(parameters=None, parts=())]}, "contexts need"),
        ({**RASTER, "hyper": [SIDE, SIDE]}, "nothing for parameter"),
        ({**DIRECT, "groups": [Group(Y, order="spiral")]}, "order 'spiral'"),
        ({**DIRECT, "groups": [Group(0)]}, "0 channels"),
        ({**DIRECT, "groups": [Group(4097)]}, "4097 channels"),
        ({**DIRECT, "groups": [Group(Y, order="raster")]}, "order does not fit"),
        ({**RASTER, "groups": [raster_group(order="all")]}, "order does not fit"),
        ({**DIRECT, "groups": [Group(Y, mean_shift=53)]}, "shifted by 53"),
        ({**DIRECT, "groups": [Group(Y, mean_shift=-17)]}, "shifted by -17"),
        ({**GROUPS, "groups": [board_group(), late_group(earlier=())]}, "sees nothing"),
        ({**GROUPS, "groups": [board_group(), late_group(channel=None)]}, "sees nothing"),
        ({**GROUPS, "groups": [board_group(), late_group(earlier=(1,))]}, "not decoded before"),
        ({**GROUPS, "groups": [board_group(), late_group(earlier=(-1,))]}, "not decoded before"),
        ({**GROUPS, "groups": [late_group(), board_group()]}, "not decoded before"),
        ({**RASTER, "groups": [raster_group(parts=("side", "colour"))]}, "its parts"),
        ({**RASTER, "groups": [raster_group(parts=("side", "side"))]}, "its parts"),
        ({**GROUPS, "groups": [board_group(1), late_group()]}, "channels of its channel context"),
        (
            {
                **GROUPS,
                "groups": [board_group(), late_group(channel=IntegerChain([layer(12, 2, 3, 8, RELU, 2)]))],
            },
            "channel context changes the size",
        ),
        (
            {
                **GROUPS,
                "groups": [board_group(), late_group(channel=IntegerChain([layer(3, 2, 3, 8, 0, 1, 2)]))],
            },
            "channel context changes the size",
        ),
        (
            {**RASTER, "groups": [raster_group(spatial=masked(layer(4, 2, 5), "raster"))]},
            "its spatial context",
        ),
        ({**RASTER, "groups": [raster_group(spatial=layer(16, Y, 3, 0, 0, 2))]}, "spatial context changes"),
        ({**RASTER, "groups": [raster_group(spatial=layer(4, Y, 3, 0, 0, 1, 2))]}, "spatial context changes"),
        ({**RASTER, "groups": [raster_group(spatial=layer(4, Y, 3, 99))]}, "shift 99"),
        ({**RASTER, "groups": [raster_group(spatial=seeing(SEES_ITSELF))]}, "not decoded yet"),
        ({**RASTER, "groups": [raster_group(spatial=seeing(SEES_LATER))]}, "not decoded yet"),
        ({**GROUPS, "groups": [board_group(spatial=seeing(SEES_DIAGONAL)), late_group()]}, "not decoded yet"),
        ({**RASTER, "groups": [raster_group(parts=("side",))]}, "parts"),
        ({**GROUPS, "groups": [board_group(parts=("side", "spatial", "channel")), late_group()]}, "parts"),
        ({**RASTER, "groups": [raster_group(parameters=IntegerChain([layer(6, 8, 1)]))]}, "take 8, not 9"),
        ({**RASTER, "groups": [raster_group(parameters=IntegerChain([layer(6, 9, 3)]))]}, "1x1"),
        (
            {**RASTER, "groups": [raster_group(parameters=IntegerChain([layer(24, 9, 1, 0, 0, 2)]))]},
            "1x1",
        ),
        ({**DIRECT, "hyper": sums_of(layer(Y, Z, 1, 1))}, "something follows"),
        ({**DIRECT, "hyper": sums_of(layer(Y, Z, 1, 0, RELU))}, "something follows"),
        ({**DIRECT, "hyper": sums_of(layer(4 * Y, Z, 1, 0, 0, 2))}, "something follows"),
        ({**DIRECT, "hyper": sums_of(layer(Y, Z, 1, 0, 0, 1, 1, 255))}, "something follows"),
        (
            {
                **DIRECT,
                "hyper": [*sums_of(layer(4 * Y, Z, 1, 0, 0, 2)), *sums_of(layer(Y, Z, 3, 0, 0, 1, 2))],
            },
            "something follows",
        ),
        (
            {**RASTER, "groups": [raster_group(parameters=IntegerChain([layer(6, 9, 1, 2)]))]},
            "something follows",
        ),
        ({**DIRECT, "groups": [Group(Y, scale=1)]}, "channels of its scales"),
        ({**DIRECT, "groups": [Group(Y, scale=-1)]}, "channels of its scales"),
        ({**DIRECT, "groups": [Group(Y, mean=1)]}, "channels of its means"),
        ({**DIRECT, "groups": [Group(Y, mean=-1)]}, "channels of its means"),
        ({**DIRECT, "groups": [Group(Y, mean=0)]}, "same channels"),
        ({**DIRECT, "groups": [Group(2, mean=1)]}, "same channels"),
        ({**RASTER, "groups": [raster_group(mean=4)]}, "channels of its means"),
        ({**DIRECT, "levels": [Level(())]}, "thresholds"),
        ({**DIRECT, "levels": [Level((T, T))]}, "thresholds"),
        ({**DIRECT, "levels": [Level((Thresholds(LEVELS[:-1]),))]}, "thresholds"),
        ({**DIRECT, "levels": [Level((T,), z_step=0)]}, "steps"),
        ({**DIRECT, "levels": [Level((T,), z_step=BIG + 1)]}, "steps"),
        ({**DIRECT, "levels": [Level((T,), step=0)]}, "steps"),
        ({**DIRECT, "levels": [Level((T,), step=2**32 + 1)]}, "steps"),
        ({**DIRECT, "levels": [Level((T,), offsets=np.zeros(5, np.int64))]}, "offsets"),
        ({**DIRECT, "levels": [Level((T,), offsets=np.full(6, BIG + 1))]}, "offsets"),
        ({**DIRECT, "levels": [Level((T,), offsets=np.full(6, -(2**63)))]}, "offsets"),
        ({**DIRECT, "levels": [Level((T,), context=CONTEXT)]}, "context of a rate"),
        ({**RASTER, "levels": [Level((T,), context=CONTEXT[:3])]}, "context of a rate"),
        ({**RASTER, "levels": [Level((T,), context=CONTEXT + 2**62)]}, "context of a rate"),
        ({**RASTER, "levels": [Level((T,), context=CONTEXT - 2**62 - 2**62)]}, "context of a rate"),
        ({**RASTER, "levels": [Level((T,), context=CONTEXT + 2**53 - 5000)]}, "beyond the exact range"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        made(**parts)


def test_a_context_that_a_clamp_would_bring_back_into_range_is_refused() -> None:
    """The bias of the layer is at one end of the range, the rate's context beyond the other."""
    spatial = masked(layer(4, Y, 5, 52), "raster")
    spatial = dataclasses.replace(spatial, bias=np.full(4, -(2**52)))
    parts = {"hyper": [SIDE], "groups": [raster_group(spatial=spatial)]}
    made(**parts, levels=[Level((T,), context=np.full(4, 2**52))])
    with pytest.raises(ModelError, match="context of a rate"):
        made(**parts, levels=[Level((T,), context=np.full(4, 2**62))])


@pytest.mark.parametrize(
    ("medians", "count"), [([2**20 + 1, 0], 4), ([0, -(2**63)], 4), ([], 4), ([0, 0, 0], 4), ([[0, 0]], 4)]
)
def test_medians_that_do_not_fit_are_refused(medians: list[Any], count: int) -> None:
    with pytest.raises(ModelError):
        ExactEntropy(tables([3] * count, [0] * count, 1), np.array(medians, np.int64))


@pytest.mark.parametrize(
    ("entries", "sizes", "offsets"),
    [
        ([0, 1, 2**16], [[3]], [[0]]),
        ([[0, 1, 2**16]], [3], [0]),
        ([0, 1, 2**16], [3], [0, 0]),
        ([], [], []),
        ([0, 2**16], [2], [0]),
        ([0] * 65538, [65538], [0]),
        ([0, 1, 2**16], [4], [0]),
        ([0, 1, 2**16, 5], [3], [0]),
    ],
    ids=str,
)
def test_tables_that_do_not_fit_are_refused(entries: Any, sizes: Any, offsets: Any) -> None:
    with pytest.raises(ModelError, match="CDF tables"):
        IntegerTables(np.array(entries, np.int32), np.array(sizes, np.int32), np.array(offsets, np.int32))


@pytest.mark.parametrize("name", ["y", "z"])
@pytest.mark.parametrize(
    ("offset", "good"), [(-32768, True), (-32769, False), (None, True), (1 - 2**31, False)]
)
def test_tables_with_symbols_that_are_no_int16_are_refused(name: str, offset: int | None, good: bool) -> None:
    """Nobody else notices before such a symbol comes; a decoder cannot have it."""
    stored = MODELS["two"].tensors()
    offsets, sizes = stored[f"{name}.offsets"], stored[f"{name}.sizes"]
    offsets[-1] = 32767 + 3 - sizes[-1] if offset is None else offset  # the last symbol is the escape
    if good:
        ExactEntropy.from_tensors(stored)
    else:
        with pytest.raises(
            ModelError, match=rf"{name}: CDF tables: .* of table {len(sizes) - 1} leave 16 bits"
        ):
            ExactEntropy.from_tensors(stored)
    offsets[0] = 32767 + 4 - sizes[0]
    with pytest.raises(ModelError, match=rf"{name}: CDF tables: .* to 32768 of table 0 leave 16 bits"):
        ExactEntropy.from_tensors(stored)


def test_tables_that_would_flood_memory_when_padded_are_refused() -> None:
    """A long table among many short ones: 12 MB in a file, 150 GB as a rectangle."""
    channels = 1000
    short = np.array([0, 1, 2**16], np.int32)
    long = np.arange(65_537, dtype=np.int32)
    knots = 600
    rows = [row for _ in range(knots) for row in (long, *[short] * (channels - 1))]
    sizes = np.array([row.size for row in rows], np.int32)
    z_tables = IntegerTables(np.concatenate(rows), sizes, np.full(len(rows), -(2**15), np.int32))
    with pytest.raises(ModelError, match="above the limit"):
        ExactEntropy(z_tables, np.zeros(channels, np.int64))
    y_sizes = np.full(600, 3, np.int32)
    y_sizes[0] = 65_537
    many = IntegerTables(np.concatenate([long, *[short] * 599]), y_sizes, np.full(600, -(2**15), np.int32))
    with pytest.raises(ModelError, match="above the limit"):
        made(**DIRECT, y_tables=many)


def test_models_without_y_have_no_tables_of_y() -> None:
    model = MODELS["factorized"]
    with pytest.raises(ModelError, match="no tables of y"):
        _ = model._y
    assert model.bounds() == {}


# ---- hostile tensors


def edit(name: str, change: Callable[[Array], Any]) -> Callable[[dict[str, Array]], None]:
    def apply(stored: dict[str, Array]) -> None:
        result = change(stored[name])
        if isinstance(result, np.ndarray):
            stored[name] = result

    return apply


def put(position: int, value: int) -> Callable[[Array], None]:
    def apply(array: Array) -> None:
        array.reshape(-1)[position] = value

    return apply


def may_be_empty(name: str) -> bool:
    return name.endswith((".parts", ".earlier"))


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, m in MODELS.items() for n in sorted(m.tensors())])
def test_tensors_of_other_kinds_are_refused(kind: str, name: str) -> None:
    changes: dict[str, Callable[[Array], Array | None]] = {
        "missing": lambda t: None,
        "float32": lambda t: t.astype(np.float32),
        "float64": lambda t: t.astype(np.float64),
        "uint8": lambda t: t.astype(np.uint8),
        "bool": lambda t: t.astype(bool),
        "complex": lambda t: t.astype(np.complex64),
        "objects": lambda t: t.astype(object),
        "other integers": lambda t: t.astype(np.int16 if t.dtype != np.int16 else np.int32),
        "empty": lambda t: t.reshape(-1)[:0],
        "dimension": lambda t: t[None],
        "scalar": lambda t: t.reshape(-1)[0] if t.size else np.zeros((), t.dtype),
    }
    optional = (".offsets", ".context")
    for title, change in changes.items():
        stored = MODELS[kind].tensors()
        changed = change(stored.pop(name))
        if changed is not None:
            stored[name] = changed
        if title == "missing" and name.startswith("levels.") and name.endswith(optional):
            continue  # Another model, and a valid one.
        if title == "empty" and may_be_empty(name) and not MODELS[kind].tensors()[name].size:
            continue
        with pytest.raises(ModelError, match=r"entropy model|integer network|CDF tables"):
            ExactEntropy.from_tensors(stored)


INT32, INT64 = np.iinfo(np.int32), np.iinfo(np.int64)
RASTER_EDITS = [
    edit("groups.0.form", put(0, 0)),
    edit("groups.0.form", put(0, INT32.max)),
    edit("groups.0.form", put(1, 3)),
    edit("groups.0.form", put(1, -1)),
    edit("groups.0.form", put(1, 0)),
    edit("groups.0.form", put(2, 1)),
    edit("groups.0.form", put(2, INT32.min)),
    edit("groups.0.form", put(3, 4)),
    edit("groups.0.form", put(3, INT32.max)),
    edit("groups.0.form", put(4, 53)),
    edit("groups.0.form", put(4, INT32.min)),
    edit("groups.0.form", put(5, 2)),
    edit("groups.0.form", put(5, -1)),
    edit("groups.0.parts", put(0, 3)),
    edit("groups.0.parts", put(0, -1)),
    edit("groups.0.parts", put(0, 2)),
    edit("groups.0.parts", lambda t: np.tile(t, 1000)),
    edit("groups.0.earlier", lambda t: np.zeros(1, np.int32)),
    edit("groups.0.spatial.0.weight", lambda t: t[..., ::-1]),
    edit("groups.0.spatial.0.weight", lambda t: t.swapaxes(2, 3)),
    edit("groups.0.spatial.0.form", put(3, 2)),
    edit("groups.0.spatial.0.form", put(2, 2)),
    edit("groups.0.parameters.1.form", put(0, 1)),
    edit("groups.0.parameters.0.form", put(3, 2)),
    edit("levels.0.steps", put(0, 0)),
    edit("levels.0.steps", put(1, INT64.min)),
    edit("levels.1.steps", put(1, INT64.max)),
    edit("levels.0.offsets", put(0, INT64.min)),
    edit("levels.0.offsets", lambda t: t[:-1]),
    edit("levels.1.context", put(0, INT64.min)),
    edit("levels.1.context", put(0, INT64.max)),
    edit("levels.0.context", lambda t: t[:-1]),
    edit("medians", put(0, INT64.min)),
    edit("medians", put(0, INT64.max)),
    edit("medians", lambda t: np.zeros(3, np.int64)),
    edit("z.bits", put(0, 17)),
    edit("z.bits", put(0, -1)),
    edit("z.bits", lambda t: np.tile(t, 2)),
]


@pytest.mark.parametrize("change", RASTER_EDITS)
def test_hostile_contexts_are_refused(change: Callable[[dict[str, Array]], None]) -> None:
    stored = MODELS["raster"].tensors()
    change(stored)
    with pytest.raises((ModelError, TableError)):
        ExactEntropy.from_tensors(stored)


@pytest.mark.parametrize(
    "change",
    [
        edit("z.entries", put(0, 1)),
        edit("z.entries", put(2, 2**16 - 1)),
        edit("z.entries", put(1, 0)),
        edit("z.entries", put(1, -5)),
        edit("y.entries", put(-1, 2**16 + 1)),
        edit("y.entries", put(1, INT32.max)),
        edit("y.entries", lambda t: t[:-1]),
        edit("y.sizes", put(0, 2)),
        edit("y.sizes", put(0, 0)),
        edit("y.sizes", put(0, -3)),
        edit("y.sizes", put(0, INT32.max)),
        edit("y.sizes", lambda t: t[:-1]),
        edit("z.sizes", lambda t: t[:-1]),
        edit("z.offsets", lambda t: t[:-1]),
        edit("z.offsets", put(0, INT32.max)),
        edit("y.offsets", put(0, INT32.min)),
        edit("levels.0.thresholds.0", put(0, INT64.min)),
        edit("levels.0.thresholds.0", put(4, INT64.max)),
        edit("levels.0.thresholds.0", put(0, 0)),
        edit("levels.0.thresholds.0", lambda t: t[:-1]),
        edit("levels.0.thresholds.0", lambda t: np.arange(300)),
        edit("hyper.0.0.weight", put(0, -32768)),
        edit("hyper.0.0.bias", put(0, INT64.min)),
        edit("hyper.0.0.bias", put(0, INT64.max)),
        edit("hyper.0.0.bias", lambda t: t[:-1]),
        edit("hyper.0.0.form", put(0, -1)),
        edit("hyper.0.0.form", put(0, 53)),
        edit("hyper.0.0.form", put(0, INT32.max)),
        edit("hyper.0.0.form", put(1, 3)),
        edit("hyper.0.0.form", put(1, -1)),
        edit("hyper.0.0.form", put(2, 0)),
        edit("hyper.0.0.form", put(2, 3)),
        edit("hyper.0.0.form", put(2, INT32.max)),
        edit("hyper.0.0.form", put(2, INT32.min)),
        edit("hyper.0.0.form", put(2, 1)),
        edit("hyper.0.0.form", put(3, 2)),
        edit("hyper.0.0.form", put(3, 0)),
        edit("hyper.0.0.form", put(3, INT32.max)),
        edit("hyper.0.0.form", put(4, -1)),
        edit("hyper.0.0.form", put(4, BIG + 1)),
        edit("hyper.0.1.form", put(0, 1)),
        edit("hyper.0.1.form", put(1, RELU)),
        edit("hyper.0.1.form", put(2, 2)),
        edit("hyper.0.1.form", put(3, 2)),
        edit("hyper.0.1.form", put(4, 255)),
        edit("hyper.0.0.weight", lambda t: t[..., :2]),
        edit("hyper.0.0.weight", lambda t: np.ones((16, 2, 101, 101), np.int16)),
    ],
)
def test_hostile_values_are_refused(change: Callable[[dict[str, Array]], None]) -> None:
    stored = MODELS["direct"].tensors()
    change(stored)
    with pytest.raises((ModelError, TableError)):
        ExactEntropy.from_tensors(stored)


@pytest.mark.parametrize(
    "name", ["a", "", "z", "z.", "medians.", "hyper", "hyper.0", "hyper.2.0.weight", "groups.7.form", "y.more",
             "groups.0.spatial.0.more", "levels.0.thresholds.1", "levels.2.steps", "hyper.0.9.weight"],
)  # fmt: skip
def test_tensors_of_a_later_release_are_refused(name: str) -> None:
    stored = MODELS["raster"].tensors()
    stored[name] = np.zeros(1, np.int64)
    with pytest.raises(ModelError):
        ExactEntropy.from_tensors(stored)


def test_a_second_layer_of_a_spatial_context_is_refused() -> None:
    stored = MODELS["raster"].tensors()
    for part in ("weight", "bias", "form"):
        stored[f"groups.0.spatial.1.{part}"] = stored[f"groups.0.spatial.0.{part}"]
    with pytest.raises(ModelError, match="2 layers, expected 1"):
        ExactEntropy.from_tensors(stored)


EXTREMES = [-(2**63), -(2**53), -(2**31), -(2**20) - 1, -32768, -2, -1, 0, 1, 2, 3, 4, 8, 9, 52, 53, 255, 32767,
            2**16, 2**20 + 1, 2**31 - 1, 2**32, 2**53, 2**63 - 1]  # fmt: skip


@st.composite
def mutants(draw: st.DrawFn) -> dict[str, Array]:
    """The tensors of a model, of which some were changed."""
    stored = MODELS[draw(st.sampled_from(sorted(MODELS)))].tensors()
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(stored)))
        tensor = stored[name]
        kind = draw(st.sampled_from(["value", "value", "value", "type", "shape", "drop", "rename", "swap"]))
        if kind == "value" and tensor.size and tensor.dtype.kind == "i":
            info = np.iinfo(tensor.dtype)
            small = tensor.reshape(-1)
            position = draw(st.integers(0, tensor.size - 1))
            near = int(small[position])
            value = draw(st.sampled_from(EXTREMES) | st.integers(near - 9, near + 9))
            small[position] = max(info.min, min(info.max, value))
            tensor = small.reshape(tensor.shape)
        elif kind == "type":
            tensor = tensor.astype(draw(st.sampled_from([np.int32, np.int64, np.int16, np.float64])))
        elif kind == "shape":
            change = draw(st.sampled_from(["flat", "more", "less", "twice", "turned"]))
            tensor = {
                "flat": lambda t: t.reshape(-1),
                "more": lambda t: t[..., None],
                "less": lambda t: t[:-1],
                "twice": lambda t: np.concatenate([t, t]),
                "turned": lambda t: np.flip(t),
            }[change](tensor)
        stored[name] = tensor
        if kind == "drop":
            del stored[name]
        elif kind == "rename":
            digit = draw(st.sampled_from("0123"))
            stored["".join(digit if c.isdigit() else c for c in name)] = stored.pop(name)
        elif kind == "swap":
            other = draw(st.sampled_from(sorted(stored)))
            stored[name], stored[other] = stored[other], stored[name]
    return stored


@given(mutants(), st.integers(0, 9))
@settings(max_examples=150)
def test_mutants_are_refused_or_code(stored: dict[str, Array], seed: int) -> None:
    try:
        model = ExactEntropy.from_tensors(stored)
        shape = (model.z_channels, 1 + seed % 2, 1 + seed // 5)
        z = np.resize(numbers(8, modulus=7, start=seed + 1) - 3, shape).astype(np.int16)
        size = [model.upscale * side for side in shape[1:]]
        y = np.resize(numbers(99, modulus=9, start=seed + 1) - 4, (model.y_channels, *size)).astype(np.int16)
        stream, lanes, written = model.encode(z, model.replay(y), model.knots - 1, 0)
    except LatensError:
        return
    read = model.decode(stream, shape[1:], model.knots - 1, 0, lanes)
    np.testing.assert_array_equal(read.z, z)
    np.testing.assert_array_equal(read.indexes, written.indexes)
    np.testing.assert_array_equal(read.latent, written.latent)
    if model.groups:
        np.testing.assert_array_equal(read.y, y)
        indexes, _, values = oracle(model, z, y, model.knots - 1)
        np.testing.assert_array_equal(read.indexes, indexes)
        np.testing.assert_array_equal(read.latent[0].astype(float) * 256, values)


def test_a_single_position_has_only_one_colour() -> None:
    """Without upscaling, a checkerboard of one position has no second half."""
    side = IntegerChain([layer(5, Z, 1, 3)])
    for odd_first in (False, True):
        model = made(hyper=[side], groups=[board_group(odd_first=odd_first), late_group()])
        z = np.ones((Z, 1, 1), np.int16)
        y = np.array([[[3]], [[-1]], [[2]]], np.int16)
        stream, lanes, _ = model.encode(z, model.replay(y), 0, 0)
        np.testing.assert_array_equal(model.decode(stream, (1, 1), 0, 0, lanes).y, y)


def test_files_of_the_first_day_decode_without_pytorch() -> None:
    """Of every kind of model, in a process that cannot import it."""
    code = """
import json, sys
from pathlib import Path
sys.modules["torch"] = None
from safetensors.numpy import load_file
from latens import format as ltn
from latens.runtime import ExactEntropy
from latens.codec import ImageCodec
folder = Path(sys.argv[1])
for kind, expected in json.loads((folder / "expected.json").read_text()).items():
    if kind == "default":
        codec = ImageCodec(folder / "default.safetensors")
        assert codec.model.entropy_id == expected["entropy_id"]
        codec.decode((folder / "default.ltn").read_bytes())  # compares with the checksum of the picture
        print(kind)
        continue
    entropy = ExactEntropy.from_tensors(load_file(folder / f"{kind}.safetensors"))
    assert entropy.entropy_id == expected["entropy_id"]
    container = ltn.read((folder / f"{kind}.ltn").read_bytes())
    for tile in container.tiles:
        shape, header = tuple(expected["z_shape"]), container.header
        found = entropy.decode(tile.stream, shape, expected["knot"], header.skip, header.lanes)
        assert found.checksum == tile.checksum
    print(kind)
"""
    folder = Path(__file__).parents[1] / "vectors" / "ltn"
    run = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.split()) == 8
