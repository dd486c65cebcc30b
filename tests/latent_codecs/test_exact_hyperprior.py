"""The entropy model of files: streams against the slow twin coder, storage, identity, hostile tables."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from latens.entropy_coding import reference
from latens.errors import CoderError, LatensError, ModelError, TableError
from latens.latent_codecs import ExactHyperprior
from latens.latent_codecs.exact import IntegerTables
from latens.ops.fixed_point import FixedPointNetwork, IntegerLayer, run_reference

Z, Y, KNOTS, LEVELS = 2, 3, 2, 6


def numbers(*shape: int, modulus: int, start: int = 1) -> npt.NDArray[np.int64]:
    """Integers that only look random: the same for ever, on every machine."""
    count = int(np.prod(shape))
    return (np.arange(start, start + count, dtype=np.int64) ** 2 * 7919 % 10007 % modulus).reshape(shape)


def table(size: int, seed: int) -> npt.NDArray[np.int32]:
    """A CDF of ``size`` entries."""
    steps = numbers(size - 1, modulus=97, start=seed) + 1
    cdf = np.concatenate([[0], np.cumsum(steps)]) * (2**16 // int(steps.sum()))
    cdf[-1] = 2**16
    return cdf.astype(np.int32)


def tables(sizes: list[int], offsets: list[int], seed: int) -> IntegerTables:
    rows = [table(size, seed + i) for i, size in enumerate(sizes)]
    return IntegerTables(np.concatenate(rows), np.array(sizes, np.int32), np.array(offsets, np.int32))


def small_model() -> ExactHyperprior:
    layers = [
        IntegerLayer(numbers(16, Z, 3, 3, modulus=401) - 200, numbers(16, modulus=5000) - 1000, 4, True, 2),
        IntegerLayer(numbers(Y, 4, 1, 1, modulus=101, start=50) - 50, numbers(Y, modulus=2000), 0, False, 1),
    ]
    network = FixedPointNetwork(layers, np.array([-4000, -500, 300, 2000, 9000]))
    z_tables = tables([3, 9, 20, 5], [0, -4, -10, 100], 3)
    return ExactHyperprior(network, z_tables, tables([3, 4, 5, 9, 17, 33], [0, -1, -1, -3, -7, -15], 40), Z)


MODEL = small_model()
FROZEN_ID = "8645f2b977da10a65dcf87b68ac04d924b8ca2afaa62f65c38a280dbb4b3ad9f"

# Within reach of the escape of every table: 2^15 from its ends.
SYMBOL = st.one_of(st.integers(-3, 3), st.integers(-16000, 16000))


@st.composite
def latents(draw: st.DrawFn) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16], int, int, int]:
    height, width = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    z = draw(arrays(np.int16, (Z, height, width), elements=SYMBOL))
    y = draw(arrays(np.int16, (Y, 2 * height, 2 * width), elements=SYMBOL))
    return (
        z,
        y,
        draw(st.integers(0, KNOTS - 1)),
        draw(st.integers(0, LEVELS + 1)),
        draw(st.sampled_from([1, 2, 8])),
    )


@given(latents())
def test_streams_round_trip_and_equal_those_of_the_slow_coder(
    case: tuple[npt.NDArray[np.int16], npt.NDArray[np.int16], int, int, int],
) -> None:
    z, y, knot, skip, lanes = case
    indexes = MODEL.indexes(z)
    np.testing.assert_array_equal(indexes, run_reference(MODEL.network, z.astype(np.int64)))
    y = np.where(indexes < skip, 0, y).astype(np.int16)
    stream = MODEL.encode(z, y, indexes, knot, skip, lanes)

    slow = [
        reference.Table(row.tolist(), int(o))
        for row, o in zip(MODEL.z_tables.rows(0, 4), MODEL.z_tables.offsets, strict=True)
    ]
    slow += [
        reference.Table(row.tolist(), int(o))
        for row, o in zip(MODEL.y_tables.rows(0, 6), MODEL.y_tables.offsets, strict=True)
    ]
    symbols = [(int(v), knot * Z + c) for c in range(Z) for v in z[c].ravel()]
    symbols += [(int(v), 4 + int(i)) for v, i in zip(y.ravel(), indexes.ravel(), strict=True) if i >= skip]
    assert stream == reference.encode(symbols, slow, reference.LANES, lanes)

    got_z, got_y, got_indexes = MODEL.decode(stream, z.shape[1:], knot, skip, lanes)
    np.testing.assert_array_equal(got_z, z)
    np.testing.assert_array_equal(got_y, y)
    np.testing.assert_array_equal(got_indexes, indexes)


def test_a_skipped_symbol_that_is_not_zero_is_refused() -> None:
    z = np.zeros((Z, 1, 1), np.int16)
    indexes = MODEL.indexes(z)
    with pytest.raises(CoderError):
        MODEL.encode(z, np.ones((Y, 2, 2), np.int16), indexes, 0, 255, 1)


@given(st.binary(max_size=60), st.integers(0, KNOTS - 1), st.integers(0, 7), st.sampled_from([1, 4]))
def test_arbitrary_bytes_give_symbols_or_a_coder_error(data: bytes, knot: int, skip: int, lanes: int) -> None:
    try:
        z, y, _ = MODEL.decode(data, (2, 2), knot, skip, lanes)
    except CoderError:
        return
    assert MODEL.encode(z, y, MODEL.indexes(z), knot, skip, lanes) == data


_ZEROS = (np.zeros((Z, 1, 1), np.int16), np.zeros((Y, 2, 2), np.int16), np.zeros((Y, 2, 2), np.uint8))


@pytest.mark.parametrize("knot", [-1, KNOTS])
def test_a_knot_that_does_not_exist_is_refused(knot: int) -> None:
    with pytest.raises(ModelError, match="knot"):
        MODEL.encode(*_ZEROS, knot, 0, 1)


# ---- identity and storage


def test_the_identity_is_frozen() -> None:
    assert MODEL.entropy_id == FROZEN_ID
    assert (MODEL.knots, MODEL.z_channels, MODEL.y_channels) == (KNOTS, Z, Y)


def test_storage_keeps_everything() -> None:
    stored = load_tensors(save_tensors(MODEL.tensors()))
    again = ExactHyperprior.from_tensors(stored)
    assert again.entropy_id == MODEL.entropy_id
    z = numbers(Z, 3, 5, modulus=40).astype(np.int16) - 20
    y = numbers(Y, 6, 10, modulus=60).astype(np.int16) - 30
    streams = [m.encode(z, y, m.indexes(z), 1, 0, 2) for m in (MODEL, again)]
    assert streams[0] == streams[1]


def test_every_stored_integer_is_part_of_the_identity() -> None:
    seen = {MODEL.entropy_id}
    count = 1
    for name, tensor in MODEL.tensors().items():
        for position in {0, tensor.numel() // 2, tensor.numel() - 1}:
            changed = MODEL.tensors()
            changed[name] = tensor.clone()
            changed[name].view(-1)[position] += 1
            try:
                identity = ExactHyperprior.from_tensors(changed).entropy_id
            except LatensError:
                continue
            seen.add(identity)
            count += 1
    assert len(seen) == count > 20


def edit(name: str, change: Callable[[Tensor], Any]) -> Callable[[dict[str, Tensor]], None]:
    def apply(stored: dict[str, Tensor]) -> None:
        stored[name] = stored[name].clone()
        result = change(stored[name])
        if isinstance(result, Tensor):
            stored[name] = result

    return apply


def put(position: int, value: int) -> Callable[[Tensor], None]:
    def apply(tensor: Tensor) -> None:
        tensor.view(-1)[position] = value

    return apply


@pytest.mark.parametrize("name", sorted(MODEL.tensors()))
@pytest.mark.parametrize(
    "change",
    [
        None,
        Tensor.float,
        lambda t: t.to(torch.bfloat16),
        lambda t: t.to(torch.float8_e4m3fn),
        lambda t: t.to(torch.uint8),
        lambda t: t.bool(),
        lambda t: t.reshape(-1)[:0],
        lambda t: t[None],
        lambda t: t.reshape(-1)[0],
    ],
    ids=["missing", "float32", "bfloat16", "float8", "uint8", "bool", "empty", "dimension", "scalar"],
)
def test_tensors_of_other_kinds_are_refused(name: str, change: Callable[[Tensor], Tensor] | None) -> None:
    stored = MODEL.tensors()
    if change is None:
        del stored[name]
    else:
        stored[name] = change(stored[name])
    with pytest.raises(
        ModelError, match=r"entropy model: |integer network: it (has no layers|must end)|CDF tables"
    ):
        ExactHyperprior.from_tensors(stored)


INT32, INT64 = np.iinfo(np.int32), np.iinfo(np.int64)


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
        edit("thresholds", put(0, INT64.min)),
        edit("thresholds", put(4, INT64.max)),
        edit("thresholds", put(0, 0)),
        edit("thresholds", lambda t: t[:-1]),
        edit("thresholds", lambda t: torch.arange(300)),
        edit("layers.0.weight", put(0, -32768)),
        edit("layers.0.bias", put(0, INT64.min)),
        edit("layers.0.bias", put(0, INT64.max)),
        edit("layers.0.bias", lambda t: t[:-1]),
        edit("layers.0.form", put(0, -1)),
        edit("layers.0.form", put(0, 53)),
        edit("layers.0.form", put(0, INT32.max)),
        edit("layers.0.form", put(1, 2)),
        edit("layers.0.form", put(1, -1)),
        edit("layers.0.form", put(2, 0)),
        edit("layers.0.form", put(2, 3)),
        edit("layers.0.form", put(2, INT32.max)),
        edit("layers.0.form", put(2, INT32.min)),
        edit("layers.0.form", put(2, 1)),
        edit("layers.1.form", put(2, 2)),
        edit("layers.1.form", put(1, 1)),
        edit("layers.0.weight", lambda t: t[..., :2].contiguous()),
        edit("layers.0.weight", lambda t: torch.ones(16, 2, 101, 101, dtype=torch.int16)),
    ],
)
def test_hostile_values_are_refused(change: Callable[[dict[str, Tensor]], None]) -> None:
    stored = MODEL.tensors()
    change(stored)
    with pytest.raises((ModelError, TableError)):
        ExactHyperprior.from_tensors(stored)


def test_tables_that_would_flood_memory_when_padded_are_refused() -> None:
    """A long table among many short ones: 12 MB in a file, 150 GB as a rectangle."""
    channels = 1000
    layer = IntegerLayer(np.ones((1, channels, 1, 1), np.int64), np.zeros(1, np.int64), 0, False, 1)
    network = FixedPointNetwork([layer], np.array([0]))
    short = np.array([0, 1, 2**16], np.int32)
    long = np.arange(65_537, dtype=np.int32)
    knots = 600
    rows = [row for _ in range(knots) for row in (long, *[short] * (channels - 1))]
    sizes = np.array([row.size for row in rows], np.int32)
    z_tables = IntegerTables(np.concatenate(rows), sizes, np.zeros(len(rows), np.int32))
    with pytest.raises(ModelError, match="above the limit"):
        ExactHyperprior(network, z_tables, tables([3, 3], [0, 0], 1), channels)
