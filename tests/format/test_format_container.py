"""The container against a second, naive writer made from docs/format.md, and against damage of every kind."""

import binascii
import contextlib
import io
import re
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latens import errors
from latens import format as ltn
from latens.format import Container, Header, Limits, Tile

DOCS = Path(__file__).parents[2] / "docs" / "format.md"
HEADER = Header(width=150, height=100, model="tiny", entropy_id="01020304", weights_id="0a0b0c0d", quality=9)


# ---- the naive writer: byte strings glued by hand


def leb(value: int) -> bytes:
    groups = []
    while True:
        groups.append(value % 128)
        value //= 128
        if not value:
            break
    return bytes([group + 128 for group in groups[:-1]] + [groups[-1]])


def crc(data: bytes) -> bytes:
    return (binascii.crc32(data) & 0xFFFFFFFF).to_bytes(4, "little")


def raw_header(
    *,
    magic: bytes = b"LTN",
    version: int = 1,
    flags: int = 0,
    width: bytes = leb(150),
    height: bytes = leb(100),
    colour: bytes = b"",
    model: bytes = b"tin\xf9",
    quality: int = 9,
    grid: int = 0x00,
    skip: int = 0,
) -> bytes:
    body = magic + bytes([version, flags]) + width + height + colour + model
    body += bytes([1, 2, 3, 4, 10, 11, 12, 13]) + quality.to_bytes(2, "little") + bytes([grid, skip])
    return body + crc(body)


def chunk(kind: bytes, payload: bytes) -> bytes:
    body = kind + leb(len(payload)) + payload
    return body + crc(body)


def tile(index: int, checksum: int = 7, stream: bytes = b"stream") -> bytes:
    return chunk(b"T", leb(index) + checksum.to_bytes(4, "little") + stream)


def end(before: bytes) -> bytes:
    return chunk(b"Z", leb(len(before)))


def finish(*parts: bytes) -> bytes:
    body = b"".join(parts)
    return body + end(body)


# 64-pixel tiles: three columns, two rows
TILES = b"".join(tile(index) for index in range(6))
SMALL = replace(HEADER, tile_size=64)


def small_container() -> Container:
    tiles: list[Tile | None] = [Tile(1000 + k, bytes(range(k, 3 * k))) for k in range(6)]
    return Container(
        SMALL,
        tiles,
        alpha=b"\0\xff" * 7500,
        icc=b"icc profile",
        exif=b"II*\0 exif",
        xmp=b"<x/>",
        density=((4, 1), (3, 1), ""),
        preview=small_preview(),
    )


def small_preview(header: Header = SMALL, alpha: bytes | None = bytes(19 * 13), **about: Any) -> bytes:
    """A file as large as the preview of SMALL; what is in its tile is of no account."""
    small = replace(header, width=19, height=13, quality=3, tile_size=1024, lanes=2)
    return ltn.write(Container(small, [Tile(5, b"small")], alpha, **about))


def rich_file() -> bytes:
    """A small file with every kind of chunk, an unknown optional one included."""
    data = ltn.write(small_container())
    cut = data.index(b"T")
    for position in range(cut, len(data)):
        head = data[:position] + chunk(b"q", b"what is this")
        rest = data[position : -_end_size(data)]
        candidate = head + rest
        candidate += end(candidate)
        try:
            ltn.read(candidate)
        except errors.LatensError:
            continue
        return candidate
    raise AssertionError("no chunk border found")


def _end_size(data: bytes) -> int:
    return ltn.describe(data).chunks[-1].size


# ---- agreement with the page


def test_the_example_in_the_page_is_what_we_write() -> None:
    block = DOCS.read_text().split("The smallest file")[1].split("```")[1]
    data = bytes.fromhex(
        " ".join(re.match(r"[0-9A-F ]+?(?=  |$)", line)[0] for line in block.strip().splitlines())
    )
    header = Header(
        width=1, height=1, channels=1, model="t", entropy_id="01020304", weights_id="05060708", quality=0
    )
    container = Container(header, [Tile(ltn.symbol_checksum(b""), b"")])
    assert ltn.write(container) == data
    assert ltn.read(data) == container


def test_a_naive_writer_agrees() -> None:
    container = Container(
        replace(SMALL, quality=513, lanes=8, skip=3, channels=1),
        [Tile(7, b"stream") for _ in range(6)],
        icc=b"i" * 50,
        xmp=b"x" * 5,
        density=((300, 1), (11811, 100), "cm"),
    )
    expected = finish(
        raw_header(flags=0b100, quality=513, grid=0x30, skip=3),
        chunk(b"i", zlib.compress(b"i" * 50, 9)),
        chunk(b"x", zlib.compress(b"x" * 5, 9)),
        chunk(b"d", b"\2" + leb(300) + leb(1) + leb(11811) + leb(100)),
        TILES,
    )
    assert ltn.write(container) == expected
    assert ltn.read(expected) == container


@pytest.mark.parametrize("bits", range(9, 17))
def test_deep_headers(bits: int) -> None:
    """The bits that are missing to 16 stand in the three highest bits; alpha has two bytes a sample."""
    header = replace(SMALL, bit_depth=bits)
    alpha = bytes(range(256)) * (150 * 100 * 2 // 256) + bytes(150 * 100 * 2 % 256)
    data = ltn.write(Container(header, [Tile(7, b"stream")] * 6, alpha))
    assert data.startswith(raw_header(flags=0b1000 | (16 - bits) << 5))
    back = ltn.read(data)
    assert (back.header.bit_depth, back.header.sample_bytes, back.alpha) == (bits, 2, alpha)
    assert ("Bits per sample", bits) in ltn.describe(data).fields


@pytest.mark.parametrize(("code", "prefix"), [(b"\1", "base"), (b"\2", "eye"), (b"\3", "psnr")])
def test_explicit_colour_and_the_model_prefix(code: bytes, prefix: str) -> None:
    header = replace(HEADER, colour=ltn.Cicp(12, 13, 0, 1), model=f"latens-{prefix}-1", tile_size=1024)
    data = ltn.write(Container(header, [Tile(0, b"")]))
    stored = {"model": code + b"\xb1", "colour": bytes([12, 13, 0, 1])}
    assert data.startswith(raw_header(flags=0b10000, grid=0x04, **stored))
    assert ltn.read(data).header == header


@pytest.mark.parametrize(("size", "overhead"), [(1000, 48), (16_000, 48), (17_000, 48), (2**21 - 100, 48)])
def test_overhead_of_a_photo_of_one_tile(size: int, overhead: int) -> None:
    header = Header(
        width=1024,
        height=1024,
        model="latens-base-1",
        entropy_id="ffffffff",
        weights_id="ffffffff",
        quality=65535,
        lanes=32,
        skip=255,
    )
    data = ltn.write(Container(header, [Tile(2**32 - 1, bytes(size))]))
    assert len(data) - size <= overhead
    assert ltn.describe(data).overhead == len(data) - size


# ---- round trips

headers = st.builds(
    Header,
    width=st.integers(1, 200),
    height=st.integers(1, 200),
    model=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)
    | st.from_regex(r"latens-(base|eye|psnr)-[0-9]{0,3}", fullmatch=True),
    entropy_id=st.binary(min_size=4, max_size=4).map(bytes.hex),
    weights_id=st.binary(min_size=4, max_size=4).map(bytes.hex),
    quality=st.integers(0, 65535),
    channels=st.sampled_from([1, 3]),
    bit_depth=st.integers(8, 16),
    colour=st.builds(ltn.Cicp, st.integers(0, 255), st.integers(0, 255), st.just(0), st.integers(0, 1)),
    tile_size=st.sampled_from([64, 128, 1024, 65536]),
    lanes=st.sampled_from([1, 2, 1024]),
    skip=st.integers(0, 255),
)


@st.composite
def containers(draw: st.DrawFn) -> Container:
    header = draw(headers)
    some = st.none() | st.binary(min_size=1, max_size=50)
    size = header.width * header.height * (1 if header.bit_depth == 8 else 2)
    alpha = None
    if draw(st.booleans()):
        pattern = draw(st.binary(min_size=1, max_size=300))
        alpha = (pattern * (size // len(pattern) + 1))[:size]
    checksums = st.integers(0, 2**32 - 1)
    tiles = draw(
        st.lists(
            st.builds(Tile, checksums, st.binary(max_size=20), st.just(b""), st.just(0))
            | st.builds(
                Tile, checksums, st.binary(max_size=20), st.binary(min_size=1, max_size=20), checksums
            ),
            min_size=header.tile_count,
            max_size=header.tile_count,
        )
    )
    fractions = st.tuples(st.integers(1, 2**35 - 1), st.integers(1, 2**35 - 1))
    density = draw(st.none() | st.tuples(fractions, fractions, st.sampled_from(["", "inch", "cm", "m"])))
    preview = None
    if draw(st.booleans()):
        small = replace(header, width=-(-header.width // 8), height=-(-header.height // 8), tile_size=1024)
        size = small.width * small.height * small.sample_bytes
        plane = None if alpha is None else bytes(size)
        preview = ltn.write(Container(small, [Tile(draw(checksums), draw(st.binary(max_size=20)))], plane))
    return Container(header, list(tiles), alpha, draw(some), draw(some), draw(some), density, preview=preview)


@given(containers())
@settings(deadline=None)
def test_round_trip(container: Container) -> None:
    data = ltn.write(container)
    back = ltn.read(data)
    assert back == container
    assert ltn.write(back) == data
    assert ltn.read(data, on_error="conceal") == container
    assert ltn.read_header(data[:128]) == container.header
    assert ltn.load(io.BytesIO(data)) == data
    shown = ltn.describe(data)
    assert shown.size == shown.overhead + shown.extras + shown.streams == len(data)
    assert sum(chunk.size for chunk in shown.chunks) + shown.chunks[0].offset == len(data)
    assert all(str(part).isprintable() and str(part).isascii() for pair in shown.fields for part in pair)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_can_be_read(kind: type) -> None:
    assert ltn.read(kind(ltn.write(small_container()))) == small_container()


# ---- previews


def test_a_preview_stands_behind_the_tiles_and_brings_an_index() -> None:
    data = ltn.write(small_container())
    chunks = {about.name: about for about in ltn.describe(data).chunks}
    assert list(chunks)[-4:] == ["tile", "preview", "index", "END"]
    start = chunks["preview"].offset
    assert data[start:].startswith(chunk(b"p", small_preview()))
    # A reader that does not know it skips it by its lower case.
    older = data.replace(chunk(b"p", small_preview()), chunk(b"q", small_preview()))
    assert ltn.read(older) == replace(small_container(), preview=None)


@pytest.mark.parametrize(
    ("preview", "why"),
    [
        (b"", "empty"),
        (small_preview()[:-1], "data end"),
        (small_preview() + b"x", "follow the END"),
        (small_preview(replace(SMALL, model="other")), "its model or its samples"),
        (small_preview(replace(SMALL, weights_id="0" * 8)), "its model or its samples"),
        (small_preview(replace(SMALL, channels=1)), "its model or its samples"),
        (small_preview(replace(SMALL, bit_depth=12), bytes(2 * 19 * 13)), "its model or its samples"),
        (small_preview(replace(SMALL, colour=ltn.Cicp(9, 16, 0, 1))), "its model or its samples"),
        (small_preview(alpha=None), "its model or its samples"),
        (small_preview(icc=b"profile"), "ICC profile at byte .* must not be in it"),
        (small_preview(xmp=b"<x/>"), "XMP at byte .* must not be in it"),
        (small_preview(density=((1, 1), (2, 1), "")), "density at byte .* must not be in it"),
        (b"nested", ""),
        (ltn.write(Container(SMALL, [Tile(5, b"")] * 6)), "150 x 100 pixels, where 19 x 13"),
        (
            ltn.write(Container(Header.without_model(width=19, height=13, alpha=True), [Tile(0, b"")])),
            "its model",
        ),
    ],
)
def test_previews_that_are_refused(preview: bytes, why: str) -> None:
    if not why:  # nested, which no writer makes
        why = "preview at byte .* must not be in it"
        cut = small_preview(alpha=bytes(19 * 13))
        size = _end_size(cut)
        preview = finish(cut[:-size], chunk(b"p", small_preview()))
    data = ltn.write(small_container())
    start = next(about.offset for about in ltn.describe(data).chunks if about.name == "preview")
    bad = finish(data[:start], chunk(b"p", preview))
    with pytest.raises(errors.FormatError, match=f"preview: .*{why}"):
        ltn.read(bad)
    with pytest.raises(errors.FormatError):
        ltn.write(replace(small_container(), preview=preview))
    reader = ltn.RandomReader(ltn.FileSource(io.BytesIO(bad)))
    assert reader.tile(5) == small_container().tiles[5]  # who does not ask for it is not told
    with pytest.raises(errors.FormatError):
        reader.preview()
    saved = ltn.read(bad, on_error="conceal")
    assert saved.tiles == small_container().tiles
    assert saved.preview is None
    assert saved.problems


def test_a_preview_elsewhere_is_out_of_order() -> None:
    data, kept = ltn.write(small_container()), chunk(b"p", small_preview())
    chunks = ltn.describe(data).chunks
    body = data.replace(kept, b"")[: chunks[-3].offset]
    for bad in (
        finish(body[: chunks[5].offset], kept, body[chunks[5].offset :]),  # before the tiles
        finish(body, kept, kept),
        finish(body, kept, chunk(b"c", bytes(4))),
    ):
        with pytest.raises(errors.FormatError, match=r"out of order|repeated"):
            ltn.read(bad)
        with pytest.raises(errors.FormatError, match=r"out of order|repeated"):
            ltn.RandomReader(ltn.FileSource(io.BytesIO(bad)))


def test_a_damaged_preview_costs_nothing_else() -> None:
    data = bytearray(ltn.write(small_container()))
    start = next(about.offset for about in ltn.describe(data).chunks if about.name == "preview")
    for place in (start, start + 1, start + 30, start + len(small_preview())):
        data[place] ^= 0x40
        saved = ltn.read(data, on_error="conceal")
        assert replace(saved, problems=(), preview=None) == replace(small_container(), preview=None)
        assert saved.problems
        data[place] ^= 0x40


def test_a_preview_above_the_limit() -> None:
    with pytest.raises(errors.LimitError, match=r"preview: .* above the limit of 60"):
        ltn.read(ltn.write(small_container()), Limits(max_metadata=60))


# ---- damage


def test_every_cut_is_truncated() -> None:
    data = rich_file()
    for size in range(len(data)):
        with pytest.raises(errors.TruncatedError):
            ltn.read(data[:size])


def test_every_flipped_bit_is_an_error() -> None:
    data = bytearray(rich_file())
    for position in range(len(data)):
        for bit in range(8):
            data[position] ^= 1 << bit
            with pytest.raises(errors.LatensError):
                ltn.read(data)
            data[position] ^= 1 << bit
    assert ltn.read(data) == small_container()


RICH = rich_file()


@given(st.integers(0, len(RICH)), st.integers(0, 40), st.binary(max_size=40))
@settings(max_examples=500, deadline=None)
def test_every_replaced_part_is_an_error(start: int, removed: int, inserted: bytes) -> None:
    data = RICH[:start] + inserted + RICH[start + removed :]
    if data == RICH:
        return
    with pytest.raises(errors.LatensError):
        ltn.read(data)
    with contextlib.suppress(errors.FormatError, errors.LimitError):  # only the header may still raise
        ltn.read(data, on_error="conceal")


def test_a_flip_in_the_version_is_a_version_error() -> None:
    data = bytearray(rich_file())
    data[3] = 0
    with pytest.raises(errors.VersionError, match="version 0"):
        ltn.read(data)


@pytest.mark.parametrize("tail", [b"\0", b"LTN", b"\n"])
def test_bytes_after_the_end_are_an_error(tail: bytes) -> None:
    with pytest.raises(errors.FormatError, match="follow the END"):
        ltn.read(rich_file() + tail)


@given(st.binary(max_size=300))
def test_noise_is_an_error(data: bytes) -> None:
    for prefix in (b"", b"LTN", b"LTN\1", raw_header()):
        with pytest.raises(errors.LatensError):
            ltn.read(prefix + data)


def _repaired(data: bytes) -> bytes:
    """`data` with the CRC of the header and of every chunk made right again, as an attacker would."""
    body = bytearray(data)
    start = ltn.describe(ltn.write(small_container())).chunks[0].offset
    body[start - 4 : start] = crc(bytes(body[: start - 4]))
    position = start
    while position + 6 <= len(body):
        size, shift, cursor = 0, 0, position + 1
        while cursor < len(body):
            size |= (body[cursor] & 127) << shift
            shift += 7
            cursor += 1
            if body[cursor - 1] < 128:
                break
        stop = cursor + size
        if stop + 4 > len(body):
            break
        body[stop : stop + 4] = crc(bytes(body[position:stop]))
        position = stop + 4
    return bytes(body)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_damage_with_repaired_checksums_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(ltn.write(small_container()))
    for position, value in changes:
        data[position % len(data)] = value
    hostile = _repaired(bytes(data))
    for on_error in ("raise", "conceal"):
        try:
            container = ltn.read(hostile, Limits(max_pixels=10**6), on_error=on_error)  # type: ignore[arg-type]
        except errors.LatensError:
            continue
        assert len(container.tiles) == container.header.tile_count


# ---- one hand-made bad file per rule

X = b"x" * 10
DEFLATED = zlib.compress(X)
ALPHA = b"\0" + zlib.compress(bytes(15000))


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"", errors.TruncatedError, "empty"),
        (b"\x89PNG\r\n\x1a\n", errors.FormatError, "not a .ltn file"),
        (b"\0TN\0", errors.FormatError, "not a .ltn file"),
        (raw_header(version=2), errors.VersionError, "version 2"),
        (raw_header(version=255), errors.VersionError, "version 255"),
        (raw_header()[:-1] + b"\0", errors.ChecksumError, "CRC-32"),
        (raw_header(flags=0b01), errors.VersionError, "profile"),
        (raw_header(flags=0b100000), errors.VersionError, "reserved"),
        (finish(raw_header(), chunk(b"d", b""), TILES), errors.TruncatedError, "density"),
        (finish(raw_header(), chunk(b"d", b"\4\1\1\1\1"), TILES), errors.VersionError, "density: unit 4"),
        (finish(raw_header(), chunk(b"d", b"\0\1\0\1\1"), TILES), errors.FormatError, "density"),
        (finish(raw_header(), chunk(b"d", b"\0\1\1\1\1\1"), TILES), errors.FormatError, "too long"),
        (finish(raw_header(), chunk(b"d", b"\0\1\1\1") * 2, TILES), errors.TruncatedError, "density"),
        (raw_header(flags=0b10000, colour=bytes([1, 13, 0, 1])), errors.FormatError, "sRGB"),
        (raw_header(flags=0b10000, colour=bytes([1, 13, 1, 1])), errors.FormatError, "matrix"),
        (raw_header(flags=0b10000, colour=bytes([1, 13, 0, 2])), errors.FormatError, "H.273"),
        (raw_header(width=leb(0)), errors.FormatError, "width"),
        (raw_header(height=leb(0)), errors.FormatError, "height"),
        (raw_header(width=b"\x96\x81\x00"), errors.FormatError, "shortest"),
        (raw_header(width=b"\xff" * 5 + b"\x01"), errors.FormatError, "longer than 5"),
        (raw_header(width=leb(10**9), height=leb(10**9)), errors.LimitError, "width"),
        (raw_header(width=leb(65535), height=leb(65535)), errors.LimitError, "pixels"),
        (raw_header(grid=0x0B), errors.VersionError, "tile size"),
        (raw_header(grid=0xB0), errors.VersionError, "lanes"),
        (raw_header(model=b"T\xe9"), errors.FormatError, "model"),
        (raw_header(model=b"\x1b[31m\xed"), errors.FormatError, "model"),
        (raw_header(model=b"a" * 64 + b"\xe1"), errors.FormatError, "longer"),
        (raw_header(model=b"latens-base-\xb1"), errors.FormatError, "shortest"),
        (raw_header(model=b"\x81"), errors.FormatError, "shortest"),
        (raw_header(model=b"\x04\xb1"), errors.FormatError, "model"),
        (finish(raw_header(), TILES[:-17]), errors.FormatError, "missing"),
        (finish(raw_header()), errors.FormatError, "6 of 6 tiles are missing"),
        (finish(raw_header(), tile(1), TILES), errors.FormatError, r"tile 1 .* tile 0 was expected"),
        (finish(raw_header(), tile(0), tile(0)), errors.FormatError, "repeated"),
        (finish(raw_header(), TILES, tile(6)), errors.FormatError, "does not exist"),
        (finish(raw_header(), chunk(b"T", b"\0\1\2")), errors.FormatError, "tile 0"),
        (finish(raw_header(), tile(0, stream=bytes(8 * 64 * 64 + 65537))), errors.LimitError, "coder stream"),
        (finish(raw_header(), chunk(b"Q", b""), TILES), errors.VersionError, "0x51"),
        (finish(raw_header(), *[chunk(b"q", b"")] * 257, TILES), errors.LimitError, "unknown"),
        (raw_header() + TILES + chunk(b"Z", leb(3)), errors.FormatError, "END says that 3"),
        (raw_header() + TILES + chunk(b"Z", b"\1\1"), errors.FormatError, "END"),
        (raw_header() + TILES, errors.TruncatedError, "without an END"),
        (raw_header() + b"T\xff\xff\xff\xff\x7f", errors.TruncatedError, "34359738367 bytes expected"),
        (
            finish(raw_header(), chunk(b"i", DEFLATED), chunk(b"i", DEFLATED), TILES),
            errors.FormatError,
            "repeated",
        ),
        (
            finish(raw_header(), chunk(b"x", DEFLATED), chunk(b"e", DEFLATED), TILES),
            errors.FormatError,
            "out of order",
        ),
        (finish(raw_header(), TILES, chunk(b"A", ALPHA)), errors.FormatError, "out of order"),
        (finish(raw_header(), chunk(b"i", DEFLATED[:-1])), errors.FormatError, "incomplete"),
        (finish(raw_header(), chunk(b"i", DEFLATED + b"\0")), errors.FormatError, "1 bytes follow"),
        (finish(raw_header(), chunk(b"i", b"\0\1\2")), errors.FormatError, "damaged"),
        (finish(raw_header(), chunk(b"i", zlib.compress(b""))), errors.FormatError, "empty"),
        (finish(raw_header(), chunk(b"i", zlib.compress(bytes(2**24 + 1)))), errors.LimitError, "ICC"),
        (finish(raw_header(), chunk(b"e", zlib.compress(bytes(2**24 + 1)))), errors.LimitError, "EXIF"),
        (finish(raw_header(), chunk(b"x", zlib.compress(bytes(2**24 + 1)))), errors.LimitError, "XMP"),
        (finish(raw_header(), chunk(b"A", b"")), errors.FormatError, "alpha"),
        (finish(raw_header(), chunk(b"A", b"\3" + ALPHA[1:])), errors.FormatError, "filter 3"),
        (
            finish(raw_header(), chunk(b"A", b"\1" + zlib.compress(bytes(14999)))),
            errors.FormatError,
            "inflates to 14999",
        ),
        (
            finish(raw_header(), chunk(b"A", b"\1" + zlib.compress(bytes(10**8)))),
            errors.FormatError,
            "more than the 15000",
        ),
    ],
)
def test_bad_files(data: bytes, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        ltn.read(data)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_most_metadata_allowed() -> None:
    container = Container(SMALL, small_container().tiles, icc=bytes(2**24), exif=bytes(2**24))
    assert ltn.read(ltn.write(container)) == container


def test_unknown_optional_chunks_are_skipped() -> None:
    data = finish(raw_header(), chunk(b"q", b"new"), TILES, chunk(b"\xff", b""))
    assert ltn.read(data).tiles == [Tile(7, b"stream")] * 6
    assert [part.name for part in ltn.describe(data).chunks] == [
        "chunk type 0x71",
        *["tile"] * 6,
        "chunk type 0xff",
        "END",
    ]


def test_limits_can_be_changed() -> None:
    data = ltn.write(small_container())
    for limits in (
        Limits(max_pixels=14_999),
        Limits(max_side=149),
        Limits(max_tiles=5),
        Limits(max_metadata=3),
    ):
        with pytest.raises(errors.LimitError):
            ltn.read(data, limits)
    huge = raw_header(width=leb(65535), height=leb(65535), grid=0x0A)
    assert ltn.read_header(huge, Limits(max_pixels=2**32)).width == 65535


# ---- writing what must not be written


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"tiles": []}, errors.FormatError, "expected 6 tiles, got 0"),
        ({"tiles": [None] * 6}, errors.FormatError, "tile 0 is missing"),
        ({"tiles": [Tile(-1, b"")] * 6}, errors.FormatError, "checksum"),
        ({"tiles": [Tile(2**32, b"")] * 6}, errors.FormatError, "checksum"),
        ({"tiles": [Tile(0, bytes(8 * 64 * 64 + 65537))] * 6}, errors.LimitError, "coder stream"),
        ({"alpha": b"short"}, errors.FormatError, "expected 15000 bytes, got 5"),
        ({"icc": b""}, errors.LimitError, "ICC"),
        ({"exif": bytes(2**24 + 1)}, errors.LimitError, "EXIF"),
    ],
)
def test_contradictions_are_not_written(
    change: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        ltn.write(replace(small_container(), **change))


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0},
        {"height": -1},
        {"width": 65536},
        {"width": 1.5},
        {"channels": 2},
        {"bit_depth": 7},
        {"bit_depth": 17},
        {"bit_depth": 9.5},
        {"model": ""},
        {"model": "A"},
        {"model": "a/b"},
        {"model": "a" * 65},
        {"model": "a\n"},
        {"entropy_id": "0102030"},
        {"weights_id": "0102030G"},
        {"weights_id": "0102030A"},
        {"quality": 65536},
        {"tile_size": 96},
        {"lanes": 3},
        {"skip": 256},
        {"colour": ltn.Cicp(1, 2, 3, 1)},
    ],
)
def test_bad_headers_cannot_be_made(change: dict[str, object]) -> None:
    with pytest.raises((errors.FormatError, errors.LimitError), match="expected"):
        replace(HEADER, **change)


# ---- salvage


def test_salvage_keeps_every_chunk_that_is_not_touched() -> None:
    data = bytearray(rich_file())
    whole = small_container()
    chunks = ltn.describe(data).chunks
    tiles = [part for part in chunks if part.name == "tile"]
    for position in range(chunks[0].offset, len(data)):
        for bit in range(8):
            data[position] ^= 1 << bit
            saved = ltn.read(data, on_error="conceal")
            data[position] ^= 1 << bit
            assert saved.problems
            assert all(text.isprintable() for text in saved.problems)
            for index, part in enumerate(tiles):
                touched = part.offset <= position < part.offset + part.size
                assert saved.tiles[index] == (None if touched else whole.tiles[index])
            for part in chunks:
                touched = part.offset <= position < part.offset + part.size
                for name, attribute in (("ICC profile", "icc"), ("alpha", "alpha"), ("XMP", "xmp")):
                    if part.name == name:
                        expected = None if touched else getattr(whole, attribute)
                        assert getattr(saved, attribute) == expected


def test_salvage_names_what_is_lost() -> None:
    data = bytearray(rich_file())
    for part in ltn.describe(data).chunks:
        data[part.offset + part.size // 2] ^= 1
        assert (
            f"the chunk at byte {part.offset} ({part.name}) is"
            in ltn.read(data, on_error="conceal").problems[0]
        )
        data[part.offset + part.size // 2] ^= 1


def test_salvage_of_a_cut_file_keeps_what_is_there() -> None:
    data = rich_file()
    chunks = ltn.describe(data).chunks
    tiles = [part for part in chunks if part.name == "tile"]
    for size in range(chunks[0].offset, len(data)):
        saved = ltn.read(data[:size], on_error="conceal")
        assert saved.problems
        whole = [part.offset + part.size <= size for part in tiles]
        assert [tile is not None for tile in saved.tiles] == whole


def test_salvage_needs_the_header() -> None:
    data = bytearray(rich_file())
    data[8] ^= 1
    with pytest.raises(errors.ChecksumError):
        ltn.read(data, on_error="conceal")


def test_salvage_takes_tiles_in_any_order_and_never_twice() -> None:
    data = finish(
        raw_header(),
        tile(5),
        tile(2, 1),
        tile(2, 2),
        chunk(b"i", b"bad"),
        chunk(b"i", DEFLATED),
        chunk(b"Q", b""),
    )
    saved = ltn.read(data + b"tail", on_error="conceal")
    assert saved.tiles == [None, None, Tile(1, b"stream"), None, None, Tile(7, b"stream")]
    assert saved.icc is None
    assert len(saved.problems) == 6


def test_salvage_gives_up_on_endless_problems() -> None:
    saved = ltn.read(finish(raw_header(), *[tile(0)] * 5000), on_error="conceal")
    assert saved.tiles[0] == Tile(7, b"stream")
    assert len(saved.problems) < 1100


def test_salvage_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    # Everywhere, something that looks like tile 0 with 16,000 bytes.
    data = raw_header() + b"T\x80\x7d\x00" * 30_000
    work = 0
    real = zlib.crc32

    def counted(part: bytes, start: int = 0) -> int:
        nonlocal work
        work += len(part)
        return real(part, start)

    monkeypatch.setattr(ltn._container.zlib, "crc32", counted)
    saved = ltn.read(data, on_error="conceal")
    assert saved.tiles == [None] * 6
    assert work <= 34 * len(data)


def test_on_error_is_checked() -> None:
    with pytest.raises(ValueError, match="on_error"):
        ltn.read(rich_file(), on_error="ignore")  # type: ignore[arg-type]


# ---- reading from files


class Endless(io.RawIOBase):
    """A pipe that never ends: some bytes, then zeros."""

    def __init__(self, head: bytes) -> None:
        self.head = head
        self.given = 0

    def read(self, size: int = -1) -> bytes:
        assert size >= 0
        part = self.head[self.given : self.given + size] or bytes(size)
        self.given += len(part)
        return part


def test_load_stops_at_the_bound_of_the_header() -> None:
    header = ltn.Header(width=1, height=1, model="t", entropy_id="01020304", weights_id="05060708", quality=0)
    limits = Limits(max_metadata=1000)
    source = Endless(ltn.write(Container(header, [Tile(0, b"")])))
    with pytest.raises(errors.LimitError, match="longer than"):
        ltn.load(source, limits)
    assert source.given < 300_000
    nothing = Endless(b"")
    with pytest.raises(errors.FormatError, match=r"not a \.ltn file"):
        ltn.load(nothing)
    assert nothing.given <= 128


def test_load_puts_pieces_together() -> None:
    data = ltn.write(small_container())

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 0, 7))

    assert ltn.load(Slow(data)) == data


def test_import_is_light() -> None:
    code = "import sys, latens.format; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "torch", "PIL", "typer", "rich"} & set(modules.stdout.split())
