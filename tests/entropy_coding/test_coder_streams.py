"""Both streams against the plain-Python twin, against frozen bytes, and against damage."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coder_strategies import coded, native, patient, tables
from hypothesis import given
from hypothesis import strategies as st

from latens.entropy_coding import (
    CdfTables,
    Decoder,
    Encoder,
    LaneDecoder,
    LaneEncoder,
    choose_lanes,
    decode,
    encode,
    reference,
)
from latens.errors import CoderError, ShapeError, TableError

VECTORS = Path(__file__).parent.parent / "vectors" / "coder"
SIMPLE = CdfTables([[0, 30000, 60000, 65536]], [4], [0])


def split(symbols: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    return [value for value, _ in symbols], [index for _, index in symbols]


@patient
@given(st.data())
def test_stream_equals_twin(data: st.DataObject) -> None:
    rows = data.draw(tables())
    symbols = data.draw(coded(rows, -(2**30), 2**30))
    values, indexes = split(symbols)
    stream = encode(values, indexes, native(rows))
    assert stream == reference.encode(symbols, rows)
    assert decode(stream, indexes, native(rows)).tolist() == values
    reader = reference.Reader(stream)
    assert [reader.symbol(rows[index]) for index in indexes] == values
    reader.finish()


@patient
@given(st.data(), st.sampled_from([1, 2, 4, 8]))
def test_lanes_equal_twin(data: st.DataObject, lanes: int) -> None:
    """Several arrays in one stream, each with its own tables, index type and skip limit."""
    encoder, parts, all_tables, everything = LaneEncoder(), [], [], []
    for _ in range(data.draw(st.integers(0, 3))):
        rows = data.draw(tables())
        skip = data.draw(st.integers(0, len(rows)))
        dtype = data.draw(st.sampled_from([np.uint8, np.int16, np.int32]))
        symbols = data.draw(coded(rows, -30000, 30000))
        symbols = [(value if index >= skip else 0, index) for value, index in symbols]
        values, indexes = split(symbols)
        part = (np.array(values, np.int16), np.array(indexes, dtype), native(rows), skip)
        encoder.push(*part)
        parts.append(part)
        everything += [(value, index + len(all_tables)) for value, index in symbols if index >= skip]
        all_tables += rows
    assert len(encoder) == len(everything)
    stream = encoder.finish(lanes)
    assert stream == reference.encode(everything, all_tables, reference.LANES, lanes)
    decoder = LaneDecoder(stream, lanes)
    for values, indexes, prepared, skip in parts:
        np.testing.assert_array_equal(decoder.decode(indexes, prepared, skip), values)
    decoder.finish()
    reader = reference.Reader(stream, reference.LANES, lanes)
    assert [reader.symbol(all_tables[i]) for _, i in everything] == [value for value, _ in everything]
    reader.finish()


def test_large_arrays() -> None:
    """Long enough for every loop: blocks, groups of 64 positions, whole rounds of lanes."""
    rng = np.random.default_rng(3)
    cdfs = np.zeros((200, 402), np.int32)
    sizes = rng.integers(3, 403, 200)
    for row, size in zip(cdfs, sizes, strict=True):
        row[1:size] = [*np.sort(rng.choice(65535, size - 2, replace=False) + 1), 65536]
    prepared = CdfTables(cdfs, sizes, -(sizes // 2))
    for n in (1023, 1024, 1025, 70_001):
        indexes = rng.integers(0, 200, n)
        symbols = rng.integers(-210, 210, n)
        np.testing.assert_array_equal(decode(encode(symbols, indexes, prepared), indexes, prepared), symbols)
        for skip, dtype in (
            (0, np.uint8),
            (150, np.uint8),
            (150, np.int16),
            (199, np.int32),
            (300, np.int16),
        ):
            index = indexes.astype(dtype)
            value = np.where(index >= skip, symbols, 0).astype(np.int16)
            encoder = LaneEncoder()
            encoder.push(value, index, prepared, skip)
            for lanes in (1, 8):
                decoder = LaneDecoder(encoder.finish(lanes), lanes)
                np.testing.assert_array_equal(decoder.decode(index, prepared, skip), value)
                decoder.finish()


def vectors() -> list[dict[str, Any]]:
    with np.load(VECTORS / "compressai.npz", allow_pickle=False) as archive:
        names = sorted({key.split("/")[0] for key in archive.files if key.startswith("vector")})
        keys = ("cdfs", "sizes", "offsets", "symbols", "indexes", "expected")
        return [{key: archive[f"{name}/{key}"] for key in keys} for name in names]


@pytest.mark.parametrize("case", vectors())
def test_frozen_compressai_streams(case: dict[str, Any]) -> None:
    prepared = CdfTables(case["cdfs"], case["sizes"], case["offsets"])
    stream = encode(case["symbols"], case["indexes"], prepared)
    assert stream == case["expected"].tobytes()
    np.testing.assert_array_equal(decode(stream, case["indexes"], prepared), case["symbols"])


@pytest.mark.parametrize("case", json.loads((VECTORS / "lanes.json").read_text()), ids=lambda c: c["lanes"])
def test_frozen_lane_streams(case: dict[str, Any]) -> None:
    prepared = CdfTables(case["cdfs"], case["sizes"], case["offsets"])
    encoder = LaneEncoder()
    for part in case["arrays"]:
        encoder.push(part["symbols"], part["indexes"], prepared, part["skip_below"])
    assert encoder.finish(case["lanes"]).hex() == case["stream"]
    decoder = LaneDecoder(bytes.fromhex(case["stream"]), case["lanes"])
    for part in case["arrays"]:
        assert decoder.decode(part["indexes"], prepared, part["skip_below"]).tolist() == part["symbols"]
    decoder.finish()


def test_nothing_is_the_bare_state() -> None:
    assert encode([], [], SIMPLE).hex() == "0000008000000000"
    assert decode(bytes.fromhex("0000008000000000"), [], SIMPLE).size == 0
    assert LaneEncoder().finish(2).hex() == "00000001000000000100"
    LaneDecoder(LaneEncoder().finish(), 1).finish()


def test_arrays_of_any_kind_and_shape() -> None:
    symbols = np.array([[0, 1, 5], [1, -7, 0]])
    expected = encode(symbols.ravel().tolist(), [0] * 6, SIMPLE)
    for value in (symbols, symbols.astype(np.int16), np.asfortranarray(symbols), symbols.astype(np.int8)):
        assert encode(value, np.zeros((2, 3), np.uint8), SIMPLE) == expected
    assert encode(symbols.T[::1].T, np.zeros((2, 3), np.int64), SIMPLE) == expected
    decoded = decode(memoryview(bytearray(expected)), np.zeros((2, 3), np.int32), SIMPLE)
    assert decoded.dtype == np.int32
    np.testing.assert_array_equal(decoded, symbols)
    assert encode(np.int16(1), np.uint8(0), SIMPLE) == encode([1], [0], SIMPLE)


def test_several_calls_are_one_stream() -> None:
    encoder = Encoder()
    for value in (0, 1, 9, -4):
        encoder.push([value], [0], SIMPLE)
    stream = encoder.finish()
    assert stream == encoder.finish() == encode([0, 1, 9, -4], [0] * 4, SIMPLE)
    decoder = Decoder(stream)
    assert [decoder.decode([0], SIMPLE)[0] for _ in range(4)] == [0, 1, 9, -4]
    decoder.finish()


def test_extreme_values() -> None:
    """The compatible stream holds every int32 that lies within 2^31 of its table; lanes every int16."""
    values = [2**31 - 1, -(2**31), 2**30, -(2**30)]
    assert decode(encode(values, [0] * 4, SIMPLE), [0] * 4, SIMPLE).tolist() == values
    encoder = LaneEncoder()
    encoder.push([32767, -32768], [0, 0], SIMPLE)
    assert LaneDecoder(encoder.finish(1), 1).decode([0, 0], SIMPLE).tolist() == [32767, -32768]
    shifted = CdfTables([[0, 1, 65536]], [3], [10_000])
    with pytest.raises(CoderError, match="position 1: symbol -32768 is too far"):
        LaneEncoder().push([0, -32768], [0, 0], shifted)
    with pytest.raises(CoderError, match="too far"):
        encode([-(2**31)], [0], shifted)


def test_failed_push_appends_nothing() -> None:
    encoder = LaneEncoder()
    encoder.push([1, 40], [0, 0], SIMPLE)
    before = encoder.finish(1)
    with pytest.raises(CoderError, match=r"position 2: index 1 names no table \(there are 1\)"):
        encoder.push([0, 99, 0], [0, 0, 1], SIMPLE)
    with pytest.raises(CoderError, match="position 1: symbol 3 at a skipped position"):
        encoder.push([0, 3], [0, 0], SIMPLE, skip_below=1)
    with pytest.raises(ShapeError, match="one size"):
        encoder.push([0, 3], [0], SIMPLE)
    with pytest.raises(ShapeError, match="fit into int16"):
        encoder.push([40_000], [0], SIMPLE)
    with pytest.raises(ShapeError, match="expected integers"):
        encoder.push([0.5], [0], SIMPLE)
    assert len(encoder) == 2
    assert encoder.finish(1) == before


@pytest.mark.parametrize("index", [1, -1, 2**31 - 1])
def test_index_out_of_range(index: int) -> None:
    stream = encode([0], [0], SIMPLE)
    with pytest.raises(CoderError, match="names no table"):
        encode([0], [index], SIMPLE)
    with pytest.raises(CoderError, match="names no table"):
        decode(stream, [index], SIMPLE)
    with pytest.raises(CoderError, match="names no table"):
        LaneDecoder(LaneEncoder().finish(), 1).decode([index], SIMPLE)


def test_negative_index_is_never_skipped() -> None:
    for dtype in (np.int16, np.int32):
        index = np.array([0, -1] * 40, dtype)
        with pytest.raises(CoderError, match="index -1"):
            LaneEncoder().push(np.zeros(80, np.int16), index, SIMPLE, skip_below=1)
        with pytest.raises(CoderError, match="index -1"):
            LaneDecoder(LaneEncoder().finish(), 1).decode(index, SIMPLE, skip_below=1)


def stream_of(lanes: int) -> tuple[bytes, np.ndarray[Any, Any], CdfTables]:
    rng = np.random.default_rng(lanes)
    prepared = CdfTables([[0, 20000, 50000, 65000, 65536], [0, 100, 40000, 65535, 65536]], [5, 5], [-1, -2])
    indexes = rng.integers(0, 2, 300).astype(np.uint8)
    symbols = rng.integers(-2, 2, 300)
    symbols[::50] = 200
    if lanes == 0:
        return encode(symbols, indexes, prepared), indexes, prepared
    encoder = LaneEncoder()
    encoder.push(symbols, indexes, prepared)
    return encoder.finish(lanes), indexes, prepared


def decode_whole(
    stream: bytes, lanes: int, indexes: np.ndarray[Any, Any], prepared: CdfTables
) -> np.ndarray[Any, Any]:
    decoder = Decoder(stream) if lanes == 0 else LaneDecoder(stream, lanes)
    symbols = decoder.decode(indexes, prepared)
    decoder.finish()
    return symbols


@pytest.mark.parametrize("lanes", [0, 1, 8])
def test_damage(lanes: int) -> None:
    """Every cut, appended bytes and wrong indexes are errors; so are most flipped bits, and the rest decode
    to other symbols whose stream this is. 0 lanes: the compatible stream."""
    stream, indexes, prepared = stream_of(lanes)
    symbols = decode_whole(stream, lanes, indexes, prepared)
    for size in range(len(stream)):
        with pytest.raises(CoderError):
            decode_whole(stream[:size], lanes, indexes, prepared)
    for tail in (b"\0", b"\0\0", b"\0\0\0\0", b"\xff" * 8):
        with pytest.raises(CoderError):
            decode_whole(stream + tail, lanes, indexes, prepared)
    for other in (indexes[:-1], np.append(indexes, np.uint8(0)), 1 - indexes):
        with pytest.raises(CoderError):
            decode_whole(stream, lanes, other, prepared)
    unnoticed = 0
    for bit in range(8 * len(stream)):
        damaged = bytearray(stream)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            decoded = decode_whole(bytes(damaged), lanes, indexes, prepared)
        except CoderError:
            continue
        unnoticed += 1
        assert (decoded != symbols).any()
    assert unnoticed < 0.1 * 8 * len(stream)


@pytest.mark.parametrize("layout", [reference.STREAM, reference.LANES], ids=["stream", "lanes"])
@pytest.mark.parametrize("nibbles", [[9, *[1] * 9], [5, *[1] * 5], [15, *[1] * 15], [1, 0], [3, 1, 2, 0]])
def test_impossible_escapes(layout: reference.Layout, nibbles: list[int]) -> None:
    """A count above the limit, and a highest nibble of zero."""
    if layout is reference.STREAM and nibbles[0] == 5:
        nibbles = [8, *[15] * 8]  # 2^32 - 1: the symbol would be below the least int32
    x, words = layout.lower, b""
    events = [(60000, 5536, 16), *((nibble, 1, 4) for nibble in nibbles)]
    for start, freq, bits in reversed(events):
        if x >= freq << (layout.lower_bits + layout.word_bits - bits):
            words = (x % (1 << layout.word_bits)).to_bytes(layout.word_bits // 8, "little") + words
            x >>= layout.word_bits
        x = (x // freq << bits) + start + x % freq
    stream = x.to_bytes(layout.state_bytes, "little") + words
    decoder = Decoder(stream) if layout is reference.STREAM else LaneDecoder(stream, 1)
    prepared = CdfTables([[0, 30000, 60000, 65536]], [4], [-1])
    with pytest.raises(CoderError, match="impossible escape near symbol 0"):
        decoder.decode([0], prepared)


def test_decoder_stays_failed() -> None:
    decoder = Decoder(encode([0], [0], SIMPLE))
    with pytest.raises(CoderError, match="ends near symbol"):
        decoder.decode(np.zeros(1000, np.uint8), SIMPLE)
    with pytest.raises(CoderError, match="ends near symbol"):
        decoder.decode([], SIMPLE)
    with pytest.raises(CoderError, match="ends near symbol"):
        decoder.finish()


@pytest.mark.parametrize("lanes", [-1, 0, 3, 16, 2**32 + 1])
def test_lane_count(lanes: int) -> None:
    with pytest.raises((CoderError, TypeError)):
        LaneDecoder(bytes(160), lanes)
    with pytest.raises((CoderError, TypeError)):
        LaneEncoder().finish(lanes)


def test_choose_lanes() -> None:
    counts = [0, 2**18 - 1, 2**18, 2**19 - 1, 2**19, 2**20 - 1, 2**20, 10**9]
    assert [choose_lanes(n) for n in counts] == [1, 1, 2, 2, 4, 4, 8, 8]


def test_lanes_refuse_tables_beyond_int16() -> None:
    wide = CdfTables([[0, 1, 2, 65536]], [4], [32_767])
    with pytest.raises(TableError, match="table 0: its symbols must fit into 16 bits"):
        LaneDecoder(LaneEncoder().finish(), 1).decode([0], wide)


class AlarmError(Exception):
    pass


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
@pytest.mark.parametrize("work", ["push", "finish", "decode"])
def test_signals_interrupt_native_loops(work: str) -> None:
    """A handler's exception comes out of the middle of a call that would take far longer.

    The timer counts the time of this process alone, so that a busy machine doesn't let it go off before the call.
    """
    n = 12_000_000
    symbols, indexes = np.zeros(n, np.int16), np.zeros(n, np.uint8)
    encoder = LaneEncoder()
    if work != "push":
        encoder.push(symbols, indexes, SIMPLE)
    decoder = LaneDecoder(encoder.finish(1), 1) if work == "decode" else None
    calls = {
        "push": lambda: encoder.push(symbols, indexes, SIMPLE),
        "finish": lambda: encoder.finish(1),
        "decode": lambda: decoder.decode(indexes, SIMPLE) if decoder else None,
    }
    completed = False

    def handler(*_: object) -> None:
        raise AlarmError

    def call() -> None:
        nonlocal completed
        calls[work]()
        completed = True
        signal.pause()

    previous = signal.signal(signal.SIGVTALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.004)
        with pytest.raises(AlarmError):
            call()
        assert not completed
        if decoder:
            with pytest.raises(CoderError, match="an earlier call was interrupted"):
                decoder.decode(indexes, SIMPLE)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)


def test_threads_share_tables_and_the_gil_is_free() -> None:
    stream, indexes, prepared = stream_of(8)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(50):
                decode_whole(stream, 8, indexes, prepared)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
