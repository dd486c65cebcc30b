"""Lossless tiles: the native coder against the twin in plain Python, both ways, and against bad input."""

import base64
import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest

from latens.entropy_coding import lossless_reference as twin
from latens.entropy_coding.lossless import (
    decode_part,
    decode_tiles,
    encode_tiles,
    measure,
    only,
    spread,
)
from latens.errors import CoderError, ShapeError

RNG = np.random.default_rng(5)


def drawing(height=24, width=32, channels=3, dtype=np.uint8, colours=6):
    """Boxes, repeated marks and a few smooth edges."""
    top = np.iinfo(dtype).max
    palette = np.random.default_rng(colours).integers(0, top, (colours, channels), endpoint=True)
    picture = np.zeros((height, width), int)
    mark = np.random.default_rng(1).integers(0, colours, (5, 4))
    for y in range(2, height - 6, 9):
        picture[y : y + 7, 3 : width // 2] = y % colours
        for x in range(4, width - 5, 11):
            picture[y : y + 5, x : x + 4] = mark
    return palette[picture].astype(dtype)


def photograph(height=24, width=32, channels=3, dtype=np.uint8):
    y, x = np.mgrid[:height, :width]
    top = np.iinfo(dtype).max
    base = (0.5 + 0.3 * np.sin(x / 9) * np.cos(y / 7))[..., None] * np.linspace(1, 0.6, channels)
    noise = np.random.default_rng(2).normal(0, 0.01, (height, width, channels))
    return (np.clip(base + noise, 0, 1) * top).astype(dtype)


def mixed(dtype=np.uint8):
    picture = drawing(40, 70, 3, dtype)
    picture[:40, 30:70] = photograph(40, 40, 3, dtype)
    return picture


def stream_of(samples, **options):
    streams = encode_tiles(samples, 4096, **options)
    assert len(streams) == 1
    return streams[0]


def native(stream, shape, dtype):
    samples, problems = decode_tiles([stream], shape, dtype, 4096)
    if problems[0] is not None:
        raise CoderError(problems[0])
    return samples


def by_twin(stream, shape, dtype):
    height, width, channels = shape
    rows = twin.decode(stream, width, height, channels, 8 * np.dtype(dtype).itemsize)
    return np.array(rows).reshape(shape)


PICTURES = {
    "drawing": drawing(),
    "grey drawing": drawing(channels=1, colours=2),
    "drawing with alpha": drawing(channels=4),
    "16-bit drawing": drawing(dtype=np.uint16),
    "16-bit grey and alpha": drawing(channels=2, dtype=np.uint16),
    "photograph": photograph(),
    "grey photograph": photograph(channels=1),
    "photograph with alpha": photograph(channels=4),
    "16-bit photograph": photograph(dtype=np.uint16),
    "10 bits": ((photograph(dtype=np.uint16) >> 6).astype(np.uint32) * 65535 // 1023).astype(np.uint16),
    "mixed": mixed(),
    "enlarged": drawing(12, 12).repeat(4, 0).repeat(4, 1),
    "one pixel": np.full((1, 1, 3), 200, np.uint8),
    "one row": drawing(1, 30),
    "one column": drawing(30, 1),
    "noise": RNG.integers(0, 256, (14, 12, 3)).astype(np.uint8),
    "257 colours": np.pad(np.arange(257, dtype=np.uint16) * 200, (0, 31)).reshape(16, 18, 1),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("content", ["auto", "photo", "drawn"])
def test_the_twin_decodes_what_the_coder_writes(name, content):
    samples = PICTURES[name]
    stream = stream_of(samples, content=content)
    assert np.array_equal(native(stream, samples.shape, samples.dtype), samples)
    assert np.array_equal(by_twin(stream, samples.shape, samples.dtype), samples)
    assert len(stream) <= 1 + samples.nbytes


@pytest.mark.parametrize(
    "name", ["drawing with alpha", "photograph", "16-bit photograph", "mixed", "10 bits"]
)
@pytest.mark.parametrize("near", [1, 5, 255])
def test_errors_are_bounded(name, near):
    samples = PICTURES[name]
    stream = stream_of(samples, near=near)
    decoded = native(stream, samples.shape, samples.dtype)
    error = np.abs(decoded.astype(int) - samples)
    assert error.max() <= near
    if samples.shape[2] % 2 == 0:
        assert error[..., -1].max() == 0
    assert np.array_equal(by_twin(stream, samples.shape, samples.dtype), decoded)
    assert len(stream) <= len(stream_of(samples))


def chosen(rng, blocks, planes, bits):
    """Anything that a stream may say, sense or nonsense."""
    classes = rng.randint(1, 4)
    return twin.Choice(
        bits=bits,
        drawn=[rng.randint(0, 1) for _ in range(blocks)],
        planes=[
            twin.PlaneChoice(
                classes=classes,
                map=[rng.randrange(classes) for _ in range(200)],
                coefficients=[[rng.randint(-900, 1300) for _ in range(19)] for _ in range(classes)],
                size_weights=[rng.randint(0, 511) for _ in range(12)],
                offsets=[rng.randint(-90, 300) for _ in range(classes)],
                contexts=[min(level // 7, 9) for level in range(80)],
            )
            for _ in range(planes)
        ],
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_coder_decodes_what_the_twin_writes(seed):
    rng = random.Random(seed)
    channels, dtype = rng.randint(1, 4), rng.choice((np.uint8, np.uint16))
    samples = drawing(36, 40, channels, dtype, 9)
    samples[16:36, 10:40] = photograph(20, 30, channels, dtype)
    choice = chosen(rng, 4, channels, 8 * np.dtype(dtype).itemsize)
    pixels = [[tuple(int(v) for v in pixel) for pixel in row] for row in samples]
    stream = twin.encode(pixels, 8 * np.dtype(dtype).itemsize, choice)
    assert np.array_equal(native(stream, samples.shape, dtype), samples)


def test_the_twin_writes_what_the_coder_writes():
    """Where nothing can be chosen: all blocks drawn."""
    samples = PICTURES["drawing"]
    pixels = [[tuple(int(v) for v in pixel) for pixel in row] for row in samples]
    assert twin.encode(pixels, 8) == stream_of(samples, content="drawn")


def test_tiles_decode_alone():
    samples = mixed()
    streams = encode_tiles(samples, 32)
    assert len(streams) == 6
    kept = [streams[0], None, None, None, None, streams[5]]
    part, problems = decode_tiles(kept, samples.shape, samples.dtype, 32)
    assert problems == [None] * 6
    assert np.array_equal(part[:32, :32], samples[:32, :32])
    assert np.array_equal(part[32:, 64:], samples[32:, 64:])
    assert not part[:32, 64:].any()


def test_drawings_and_photographs_become_small():
    drawn = drawing(200, 300)
    assert len(stream_of(drawn)) < 600
    photo = photograph(128, 128)
    assert len(stream_of(photo)) < 0.6 * photo.nbytes


@pytest.mark.parametrize("name", ["drawing", "photograph", "mixed", "16-bit photograph"])
def test_damage_is_an_error_or_a_picture(name):
    """A stream has no checksum: damage may give other pixels, but never anything else."""
    samples = PICTURES[name]
    stream = stream_of(samples)
    rng = random.Random(name)
    errors = 0
    for _ in range(150):
        bad = bytearray(stream)
        for _ in range(rng.randint(1, 3)):
            bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        try:
            native(bytes(bad), samples.shape, samples.dtype)
        except CoderError:
            errors += 1
    assert errors > 100
    for end in (*range(12), len(stream) // 2, len(stream) - 1):
        with pytest.raises(CoderError):
            native(stream[:end], samples.shape, samples.dtype)
    with pytest.raises(CoderError):
        native(stream + b"\0", samples.shape, samples.dtype)


def header(choice, width=40, height=40, near=0, smooth=1, drawn=0):
    """The start of a bit stream, to go on from."""
    coder = twin._Coder()
    choice.near = near
    twin._code_plan(coder, choice, 16, smooth, drawn)
    return coder


def tile(coder, *planes):
    parts = [coder.finish(), *planes]
    return b"\1" + b"".join(twin._varint(len(part)) + part for part in parts)


def bad_class():
    coder = header(twin.Choice(bits=8))
    coder.uniform(2, 5)
    coder.bit(twin._Model(), 0)  # not as on the left
    coder.tree(twin._Models(), 3, 5)  # class 3 of 0 to 2
    return tile(coder, b"")


def bad_coefficient():
    coder = header(twin.Choice(bits=8))
    coder.uniform(0, 5)
    coder.integer(twin._Models(), 8192)
    return tile(coder, b"")


def no_frequencies():
    coder = header(twin.Choice(bits=1))
    coder.uniform(0, 5)
    for _ in range(9):
        coder.integer(twin._Models(), 0)
    for _ in range(6):
        coder.uniform(0, 9)
    coder.integer(twin._Models(), 0)
    following, models = twin._Model(), twin._Models()
    for _ in range(79):
        coder.bit(following, 0)
    for _ in range(4):
        coder.tree(models, 0, 4)
    return tile(coder, b"")


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"\2",
        b"\0" + bytes(1599),
        b"\1\xff\xff\xff\xff\x7f",
        b"\1\x80\0",
        tile(header(twin.Choice(bits=8), smooth=1)),
        tile(header(twin.Choice(bits=9), drawn=1)),
        bad_class(),
        bad_coefficient(),
        no_frequencies(),
    ],
)
def test_impossible_streams_are_refused(stream):
    with pytest.raises(CoderError):
        native(stream, (40, 40, 1), np.uint8)
    with pytest.raises(CoderError):
        twin.decode(stream, 40, 40, 1, 8)


def test_neither_smooth_nor_drawn_is_refused():
    coder = twin._Coder()
    for value, bits in ((7, 4), (0, 4), (0, 1), (0, 1), (0, 8)):
        coder.uniform(value, bits)
    with pytest.raises(CoderError, match="damaged"):
        native(tile(coder), (4, 4, 1), np.uint8)


@pytest.mark.parametrize("content", ["auto", "photo", "drawn"])
def test_every_colour_of_16_bits(content):
    samples = np.random.default_rng(3).permutation(65536).astype(np.uint16).reshape(256, 256, 1)
    stream = stream_of(samples, content=content)
    assert np.array_equal(native(stream, samples.shape, np.uint16), samples)
    assert len(stream) <= 1 + samples.nbytes


def test_a_large_tile_of_few_bytes_takes_little():
    samples = np.zeros((4096, 4096, 1), np.uint8)
    stream = stream_of(samples, content="drawn")
    assert len(stream) < 100
    assert not native(stream, samples.shape, np.uint8).any()


def test_arguments_are_checked():
    samples = PICTURES["drawing"]
    with pytest.raises(CoderError, match="0 to 255"):
        encode_tiles(samples, 4096, near=256)
    with pytest.raises(ShapeError, match="4096"):
        encode_tiles(samples, 4097)
    with pytest.raises(ShapeError, match="uint16"):
        encode_tiles(samples.astype(np.float32), 4096)
    with pytest.raises(ShapeError, match="1 to 4"):
        encode_tiles(np.zeros((4, 4, 5), np.uint8), 4096)
    with pytest.raises(ShapeError, match="tiles"):
        decode_tiles([b"", b""], (4, 4, 1), np.uint8, 4)


# ---- parts of tiles

PARTS = [[[1, 0, 1], [0, 1, 1]], [[0, 0, 0], [0, 0, 1]], [[1, 1, 0], [1, 1, 0]], [[1, 1, 1], [1, 1, 1]]]


def page(channels=3, dtype=np.uint8):
    """150 x 70: three by two blocks, the last ones narrow."""
    samples = drawing(70, 150, channels, dtype)
    samples[:, 64:110] = photograph(70, 46, channels, dtype)
    return samples


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(("channels", "dtype"), [(3, np.uint8), (1, np.uint8), (3, np.uint16)])
@pytest.mark.parametrize("near", [0, 3])
def test_parts_of_tiles_come_back_natively_and_by_the_twin(part, channels, dtype, near):
    samples, part = page(channels, dtype), np.array(part, bool)
    (stream,) = encode_tiles(samples, 1024, part=part, near=near)
    assert stream[0] == (1 if part.all() else 2)
    decoded, found = decode_part(stream, samples.shape, dtype)
    wanted = only(samples, part)
    assert np.array_equal(found, spread(part, *samples.shape[:2]))
    assert np.abs(decoded.astype(int) - wanted).max() <= near
    assert not np.any(decoded[only(np.ones_like(samples), part) == 0])
    assert np.array_equal(by_twin(stream, samples.shape, dtype), decoded)


@pytest.mark.parametrize("seed", range(3))
def test_parts_that_the_twin_writes(seed):
    rng = random.Random(seed)
    samples, part = page(), np.array(PARTS[seed], bool)
    choice = chosen(rng, 15, 3, 8)
    choice.part = [int(b) for b in part.ravel()]
    pixels = [[tuple(int(v) for v in pixel) for pixel in row] for row in only(samples, part)]
    decoded, found = decode_part(twin.encode(pixels, 8, choice), samples.shape, np.uint8)
    assert np.array_equal(found, spread(part, *samples.shape[:2]))
    assert np.array_equal(decoded, only(samples, part))


def test_what_is_left_out_costs_nothing():
    samples, part = page(), np.array(PARTS[1], bool)
    other = samples.copy()
    other[:64] = RNG.integers(0, 256, other[:64].shape)
    assert encode_tiles(samples, 1024, part=part) == encode_tiles(other, 1024, part=part)
    (whole,) = encode_tiles(samples, 1024)
    assert len(encode_tiles(samples, 1024, part=part)[0]) < len(whole) / 3


def test_tiles_without_a_block_have_no_stream():
    part = np.zeros((2, 3), bool)
    part[1, 2] = True
    streams = encode_tiles(page(), 64, part=part)
    assert [bool(stream) for stream in streams] == [False] * 5 + [True]


def test_whole_tiles_are_whole():
    samples = page()
    (stream,) = encode_tiles(samples, 1024, part=np.array(PARTS[0], bool))
    with pytest.raises(CoderError):
        native(stream, samples.shape, np.uint8)


def test_the_bits_of_blocks_are_about_those_of_streams():
    samples, part = page(), np.array(PARTS[0], bool)
    bits = measure(samples, 1024, part)
    assert np.array_equal(bits > 0, part)
    (stream,) = encode_tiles(samples, 1024, part=part)
    assert bits.sum() == pytest.approx(8 * len(stream), rel=0.4)


@pytest.mark.parametrize("shape", [(1, 3), (2, 2), (3, 3)])
def test_maps_of_other_sizes_are_refused(shape):
    with pytest.raises(ShapeError):
        encode_tiles(
            np.zeros((128, 150, 1), np.uint8), 1024, part=np.ones((3, 4), bool)[: shape[0], : shape[1]]
        )


def test_damaged_parts_are_refused_or_samples():
    samples, part = page(), np.array(PARTS[0], bool)
    (stream,) = encode_tiles(samples, 1024, part=part)
    rng = random.Random(3)
    for _ in range(300):
        data = bytearray(stream)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            decoded, found = decode_part(bytes(data[: rng.randrange(len(data)) + 1]), samples.shape, np.uint8)
        except CoderError:
            continue
        assert found.any()
        assert np.array_equal(decoded, only(decoded, found))


def test_a_part_of_no_block_is_refused():
    choice = twin.Choice(part=[0, 0, 0, 0, 0, 0])
    with pytest.raises(CoderError):
        twin.encode([[(0,)] * 150] * 70, 8, choice)


def masks():
    """Of 150 x 70 pixels."""
    y, x = np.mgrid[:70, :150]
    yield "a rectangle across blocks", (x < 37) | (x > 141) | (y < 9) | (y > 60)
    yield "what a disc leaves", np.hypot(x - 70, y - 31) > 26.5
    yield "noise", RNG.integers(0, 2, (70, 150)) > 0
    yield "one pixel", (x == 149) & (y == 69)
    yield "whole blocks", (x < 64) | (y >= 64)
    yield "all", np.ones((70, 150), bool)


@pytest.mark.parametrize(("name", "mask"), list(masks()))
@pytest.mark.parametrize(
    ("channels", "dtype", "near"), [(3, np.uint8, 0), (1, np.uint8, 3), (2, np.uint16, 0)]
)
def test_masks_come_back_natively_and_by_the_twin(name, mask, channels, dtype, near):
    samples = page(channels, dtype)
    (stream,) = encode_tiles(samples, 1024, mask=mask, near=near)
    assert stream[0] == 3
    decoded, found = decode_part(stream, samples.shape, dtype)
    assert np.array_equal(found, mask)
    assert np.abs(decoded.astype(int) - samples)[mask].max() <= near
    assert not decoded[~mask].any()
    assert np.array_equal(by_twin(stream, samples.shape, dtype), decoded)


FROZEN = json.loads((Path(__file__).parents[1] / "vectors" / "lossless.json").read_text())


@pytest.mark.parametrize("name", FROZEN)
def test_frozen_streams(name):
    """Made by tests/vectors/make_lossless.py. If this fails, files that people have do not decode any more."""
    case = FROZEN[name]
    stream, shape, dtype = base64.b64decode(case["stream"]), tuple(case["shape"]), np.dtype(case["dtype"])
    assert stream[0] == case["kind"]
    samples, there = decode_part(stream, shape, dtype)
    pixels = samples.astype("<u2").tobytes() + there.astype(np.uint8).tobytes()
    assert hashlib.sha256(pixels).hexdigest() == case["digest"]
    assert np.array_equal(by_twin(stream, shape, dtype), samples)


@pytest.mark.parametrize(("name", "mask"), list(masks()))
def test_masks_that_the_twin_writes(name, mask):
    samples = np.where(mask[..., None], page(), np.uint8(0))
    choice = chosen(random.Random(5), 15, 3, 8)
    choice.mask = [[int(there) for there in row] for row in mask]
    pixels = [[tuple(int(v) for v in pixel) for pixel in row] for row in samples]
    decoded, found = decode_part(twin.encode(pixels, 8, choice), samples.shape, np.uint8)
    assert np.array_equal(found, mask)
    assert np.array_equal(decoded, samples)


def test_a_mask_costs_little_and_what_it_leaves_out_nothing():
    mask = dict(masks())["a rectangle across blocks"]
    samples = np.where(mask[..., None], np.uint8(77), page())
    (stream,) = encode_tiles(samples, 1024, mask=mask)
    assert len(stream) < 70
    other = np.where(mask[..., None], samples, np.uint8(3))
    assert encode_tiles(other, 1024, mask=mask) == [stream]
    assert encode_tiles(samples, 64, mask=mask & (np.arange(150) < 64))[1:3] == [b"", b""]
    with pytest.raises(ShapeError):
        encode_tiles(samples, 1024, mask=mask[:-1])
    with pytest.raises(CoderError):
        native(stream, samples.shape, np.uint8)  # as a whole tile


def test_damaged_masks_are_refused_or_samples():
    mask = dict(masks())["what a disc leaves"]
    (stream,) = encode_tiles(page(), 1024, mask=mask)
    rng = random.Random(4)
    for _ in range(300):
        data = bytearray(stream)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(1, 40 if rng.random() < 0.5 else len(data))] = rng.randrange(256)
        try:
            decoded, found = decode_part(bytes(data[: rng.randrange(len(data)) + 1]), (70, 150, 3), np.uint8)
        except CoderError:
            continue
        assert found.any()
        assert not decoded[~found].any()


@pytest.mark.parametrize("wrong", ["nothing", "cut and smooth", "enlarged"])
def test_masks_that_cannot_be(wrong):
    coder = twin._Coder()
    mask = [[int(x < 40 and wrong != "nothing") for x in range(64)] for _ in range(64)]
    smooth = int(wrong == "cut and smooth")
    twin._code_plan(coder, twin.Choice(bits=8, scale=2 if wrong == "enlarged" else 1), 8, smooth, 1 - smooth)
    try:
        twin._code_mask(coder, 64, 64, mask)
    except CoderError:
        assert wrong == "nothing"
    first = coder.finish()
    stream = b"\3" + twin._varint(len(first)) + first
    with pytest.raises(CoderError):
        decode_part(stream, (64, 64, 1), np.uint8)
    with pytest.raises(CoderError):
        twin.decode(stream, 64, 64, 1, 8)


def soft(height=150, width=220):
    """Discs whose edges are mixtures of two colours."""
    y, x = np.mgrid[:height, :width]
    picture = np.full((height, width, 3), 250.0)
    for i in range(12):
        inside = np.clip(9.3 + i - np.hypot(y - 37 * i % height, x - 53 * i % width), 0, 1)[..., None]
        picture += inside * (np.array([20 * i, 90, 240 - 20 * i]) - picture)
    return np.round(picture).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_slack_is_for_edges_and_bounded_by_their_contrast(dtype):
    samples = soft().astype(dtype) * dtype(257 if dtype == np.uint16 else 1)
    (exact,) = encode_tiles(samples, 1024)
    (stream,) = encode_tiles(samples, 1024, slack=32)
    assert len(stream) < 0.8 * len(exact)
    decoded, problems = decode_tiles([stream], samples.shape, dtype, 1024)
    assert problems == [None]
    off = np.abs(decoded.astype(int) - samples).max(axis=2)
    padded = np.pad(samples.astype(int), ((1, 1), (1, 1), (0, 0)), mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
    contrast = np.ptp(around, axis=(3, 4)).max(axis=2)
    assert off.any()
    assert (off <= contrast * 32 // 256).all()
    repeats = np.zeros(off.shape, bool)
    for axis in (0, 1):
        for step in (-1, 1):
            same = (np.roll(samples, step, axis) == samples).all(axis=2)
            edge = [slice(None)] * 2
            edge[axis] = 0 if step == 1 else -1
            same[tuple(edge)] = False
            repeats |= same
    assert not off[repeats].any()
    with pytest.raises(CoderError, match="slack"):
        encode_tiles(samples, 1024, slack=65)
