"""The container of video: round trips, damage of every kind, seeking, reading while it is written."""

from __future__ import annotations

import io
import itertools
import zlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latens.errors import ChecksumError, FormatError, LatensError, LimitError, TruncatedError, VersionError
from latens.format import BT601, BT709, Frame, Limits, Stream, VideoHeader, VideoReader, VideoWriter, is_video
from latens.format import _video as internals

NONE = (Stream(1, b""),)
HEADER = VideoHeader(width=33, height=17, model="t", entropy_id="01020304", weights_id="05060708")


def frames_of(count: int, gop: int = 4, step: int = 1) -> list[Frame]:
    return [
        Frame(
            i,
            i * step,
            (i - 1,) if i % gop else (),
            i * 77,
            (Stream(1 << i % 4, bytes([i % 256]) * (3 + i % 5)),) * (1 + i % 3),
        )
        for i in range(count)
    ]


def written(frames: Sequence[Frame], header: VideoHeader = HEADER, end: int | None = None) -> bytes:
    file = io.BytesIO()
    writer = VideoWriter(file, header)
    for frame in frames:
        writer.add(frame)
    size = writer.finish(frames[-1].timestamp + 1 if end is None else end)
    assert size == len(file.getvalue())
    return file.getvalue()


def read(data: bytes, **options: Any) -> tuple[list[Frame], VideoReader]:
    reader = VideoReader(io.BytesIO(data), **options)
    return list(reader.frames()), reader


def test_bytes_of_the_smallest_file() -> None:
    # By hand from docs/format.md, section 10.
    header = VideoHeader(width=1, height=1, model="t", entropy_id="01020304", weights_id="05060708")
    expected = bytearray.fromhex("4C544E01 01 01 01 01010100 F4 01020304 05060708 0000 00 01 19 19 01")
    expected += zlib.crc32(expected).to_bytes(4, "little")
    key = len(expected)
    for kind, payload in ((b"F", "00 00 01 00000000 00"), (b"n", f"01 01 01 00 00 {key:02X} 10000000")):
        content = bytes.fromhex(payload)
        chunk = kind + bytes([len(content)]) + content
        expected += chunk + zlib.crc32(chunk).to_bytes(4, "little")
    end = b"Z\x01" + bytes([len(expected)])
    expected += end + zlib.crc32(end).to_bytes(4, "little")
    assert written([Frame(0, 0, (), 0, NONE)], header) == expected
    assert read(bytes(expected))[0] == [Frame(0, 0, (), 0, NONE)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([1, 2, 4, 8]), st.binary(max_size=300)),
        min_size=1,
        max_size=12,
    ),
    st.lists(st.integers(1, 2**20), min_size=12, max_size=12),
    st.sampled_from(["4:2:0", "4:2:2", "4:4:4"]),
    st.sampled_from([8, 10, 12]),
    st.tuples(st.integers(1, 2**35 - 1), st.integers(1, 2**35 - 1)),
)
def test_round_trip(parts: Any, steps: list[int], chroma: str, depth: int, rational: tuple[int, int]) -> None:
    time, frames = 0, []
    for i, (key, lanes, stream) in enumerate(parts):
        frames.append(
            Frame(
                i,
                time,
                () if key or i == 0 else (i - 1,),
                zlib.crc32(stream),
                (Stream(lanes, stream), Stream(2, b"x")),
            )
        )
        time += steps[i]
    header = VideoHeader(
        width=640, height=360, model="latens-base-7", entropy_id="00ff00ff", weights_id="12345678", quality=65535,
        skip=9, chroma=chroma, bit_depth=depth, colour=BT601, time_base=rational, frame_rate=rational,
    )  # fmt: skip
    found, reader = read(written(frames, header, time))
    assert found == frames
    assert reader.header == header
    assert reader.index is not None
    assert (reader.index.frames, reader.index.end) == (len(frames), time)
    assert [key.number for key in reader.index.keys] == [f.number for f in frames if f.key]


def test_a_file_cut_anywhere() -> None:
    data = written(frames_of(6))
    for size in range(len(data)):
        with pytest.raises(TruncatedError):
            read(data[:size])


def test_every_flipped_bit() -> None:
    data = written(frames_of(5))
    for position in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(LatensError):
            read(bytes(damaged))


def test_bytes_after_the_end() -> None:
    with pytest.raises(FormatError, match="follow"):
        read(written(frames_of(2)) + b"\0")


def pieces(data: bytes) -> list[bytes]:
    """Header, then each chunk."""
    reader = VideoReader(io.BytesIO(data))
    cuts = [0, reader.position]
    cuts.extend(reader.position for _ in reader.frames())
    at = cuts[-1]
    while at < len(data):
        at += 2 + data[at + 1] + 4
        cuts.append(at)
    return [data[a:b] for a, b in itertools.pairwise(cuts)]


def chunk(kind: bytes, payload: bytes) -> bytes:
    return internals._pack_chunk(kind[0], payload)


def test_chunks_out_of_place() -> None:
    head, first, second, third, index, end = pieces(written(frames_of(3)))
    for wrong, message in (
        (head + first + third + index + end, "expected"),
        (head + second + first + third + index + end, "expected"),
        (head + first + first + second + third + index + end, "expected"),
        (head + first + second + third + end, "END says"),
        (head + first + second + index + third + end, "does not fit"),
        (head + first + second + third + index + index + end, "repeated"),
        (head + index + end, "does not fit"),
        (head + first + second + third + index + chunk(b"Z", b"\1\1"), "too long"),
    ):
        with pytest.raises(FormatError, match=message):
            read(wrong)


def test_chunks_of_unknown_kind() -> None:
    head, *rest = pieces(written(frames_of(2)))
    with pytest.raises(VersionError, match="newer"):
        read(head + chunk(b"Q", b"abc") + b"".join(rest))
    with pytest.raises(LimitError, match="unknown"):
        read(head + chunk(b"q", b"") * 300 + b"".join(rest))
    optional = chunk(b"q", b"abc")
    first, second, _, _ = rest
    file = io.BytesIO(head + optional + first + second)
    assert [f.number for f in itertools.islice(VideoReader(file).frames(), 2)] == [0, 1]


def test_kind_of_frame_that_is_newer() -> None:
    head, *_ = pieces(written(frames_of(1)))
    with pytest.raises(VersionError, match="newer"):
        read(head + chunk(b"F", b"\0\0\x21" + bytes(4)))


def test_sizes_above_the_limits() -> None:
    data = written(frames_of(2))
    with pytest.raises(LimitError, match="max_pixels"):
        read(data, limits=Limits(max_pixels=500))
    head = pieces(data)[0]
    with pytest.raises(FormatError, match="above the limit"):
        read(head + b"F\xff\xff\xff\xff\x7f")
    with pytest.raises(LimitError, match="too long"):
        written([Frame(0, 0, (), 0, (Stream(1, bytes(10**6)),))])
    with pytest.raises(LimitError, match="width"):
        VideoHeader(width=70000, height=1, model="t", entropy_id="01020304", weights_id="05060708")


@pytest.mark.parametrize(
    "field",
    [
        {"chroma": "4:1:1"},
        {"bit_depth": 9},
        {"time_base": (0, 1)},
        {"frame_rate": (25.0, 1)},
        {"model": "A"},
        {"colour": (1, 2, 3, 4)},
        {"width": 0},
    ],
)
def test_headers_with_impossible_values(field: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        VideoHeader(**{**vars(HEADER), **field})


def test_frames_that_a_reader_would_refuse() -> None:
    for bad in (
        [Frame(1, 0, (), 0, NONE)],
        [Frame(0, 0, (-1,), 0, NONE)],
        [Frame(0, 0, (), 0, (Stream(3, b""),))],
        [Frame(0, 0, (), 0, NONE), Frame(1, 0, (), 0, NONE)],
    ):
        with pytest.raises(FormatError):
            written(bad)
    with pytest.raises(FormatError, match="without a single frame"):
        VideoWriter(io.BytesIO(), HEADER).finish(1)
    with pytest.raises(FormatError, match="ends at"):
        written(frames_of(2), end=1)


class TestSalvage:
    def test_a_damaged_frame_costs_no_other(self) -> None:
        data = written(frames_of(9))
        head, *rest = pieces(data)
        for number in range(9):
            damaged = list(rest)
            for at in (0, 1, 2, len(rest[number]) - 1):
                broken = bytearray(rest[number])
                broken[at] ^= 0x41
                damaged[number] = bytes(broken)
                found, reader = read(head + b"".join(damaged), on_error="conceal")
                assert [f.number for f in found] == [i for i in range(9) if i != number]
                assert reader.problems

    def test_whole_frames_before_a_cut(self) -> None:
        data = written(frames_of(7))
        starts = [len(b"".join(pieces(data)[: i + 2])) for i in range(7)]
        for size in range(len(pieces(data)[0]), len(data)):
            found, reader = read(data[:size], on_error="conceal")
            assert len(found) == sum(start <= size for start in starts)
            assert reader.problems

    def test_garbage_between_frames(self) -> None:
        head, *rest = pieces(written(frames_of(4)))
        noise = bytes((i * 7919) % 256 for i in range(5000))
        found, reader = read(head + rest[0] + noise + b"".join(rest[1:]), on_error="conceal")
        assert [f.number for f in found] == [0, 1, 2, 3]
        assert len(reader.problems) >= 1

    def test_damaged_header(self) -> None:
        data = bytearray(written(frames_of(2)))
        data[6] ^= 1
        with pytest.raises(ChecksumError):
            read(bytes(data), on_error="conceal")

    def test_hostile_file_ends(self) -> None:
        head = pieces(written(frames_of(1)))[0]
        found, reader = read(head + b"F\x7f" * 100_000, on_error="conceal")
        assert found == []
        assert reader.problems

    @settings(max_examples=100, deadline=None)
    @given(st.data())
    def test_any_damage(self, data: Any) -> None:
        sound = written(frames_of(5))
        size = len(pieces(sound)[0])
        damaged = bytearray(sound)
        for _ in range(data.draw(st.integers(1, 5))):
            damaged[data.draw(st.integers(size, len(sound) - 1))] = data.draw(st.integers(0, 255))
        known = frames_of(5)
        found, _ = read(bytes(damaged), on_error="conceal")
        assert all(frame in known for frame in found)


class TestIndex:
    def test_seek(self) -> None:
        frames = frames_of(20, gop=6, step=2)
        data = written(frames)
        for tick in range(39):
            reader = VideoReader(io.BytesIO(data))
            reader.seek(tick / 25)
            first = next(reader.frames())
            assert first == frames[tick // 2 // 6 * 6]
            assert [f.number for f in reader.frames()] == list(range(first.number + 1, 20))
        with pytest.raises(LimitError, match="after the end"):
            VideoReader(io.BytesIO(data)).seek(2.0)

    def test_file_without_an_end(self) -> None:
        data = written(frames_of(3))
        for size in (len(data) - 1, len(data) // 2):
            with pytest.raises(FormatError, match="no end"):
                VideoReader(io.BytesIO(data[:size])).read_index()

    def test_damaged_index(self) -> None:
        head, *rest = pieces(written(frames_of(3)))
        broken = bytearray(rest[3])
        broken[3] ^= 1
        with pytest.raises(ChecksumError):
            VideoReader(io.BytesIO(head + b"".join(rest[:3]) + bytes(broken) + rest[4])).read_index()

    def test_long_films_thin_it_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(internals, "MAX_INDEX", 8)
        frames = frames_of(50, gop=1)
        found, reader = read(written(frames))
        assert found == frames
        assert reader.index is not None
        assert [key.number for key in reader.index.keys] == list(range(0, 50, 8))


def test_reading_while_it_is_written() -> None:
    frames = frames_of(6)
    parts = iter(pieces(written(frames)))
    file = io.BytesIO()

    def more() -> bool:
        piece = next(parts, None)
        if piece is None:
            return False
        here = file.tell()
        file.seek(0, 2)
        file.write(piece)
        file.seek(here)
        return True

    reader = VideoReader(file, wait=more)
    assert list(reader.frames()) == frames


def test_what_is_a_video() -> None:
    data = written(frames_of(1))
    assert is_video(data)
    assert not is_video(data[:4])
    assert not is_video(b"LTN\1\4")
    with pytest.raises(FormatError, match=r"not a \.ltn file"):
        read(b"RIFF....")
    with pytest.raises(FormatError, match="an image"):
        read(b"LTN\1\4\1\1")
    with pytest.raises(VersionError, match="format version 9"):
        read(b"LTN\x09\1")
    assert HEADER.colour == BT709


def pyramid(count: int, distance: int, step: int = 2, late: int = 0) -> list[Frame]:
    """In the order of coding: a key frame, then the last frame of each group and those between by halves."""
    found = [Frame(0, 7, (), 5, (Stream(2, b"key"),), 40_000)]

    def one(number: int, *references: int) -> None:
        streams = [Stream(1 << number % 4, bytes([number % 256]) * (number % 7))]
        if number % 3:
            streams.append(Stream(1, b"vectors" * (number % 50 + 1)))
        quality = None if number % 16 == 0 else (number % 16) * 1024
        time = 7 + step * number + (late if number % 5 == 3 else 0)
        found.append(Frame(number, time, references, None, tuple(streams), quality))

    def between(low: int, high: int) -> None:
        if high - low > 1:
            middle = (low + high) // 2
            one(middle, low, high)
            between(low, middle)
            between(middle, high)

    low = 0
    while low < count - 1:
        high = min(low + distance, count - 1)
        one(high, low)
        between(low, high)
        low = high
    return found


# Frames last two ticks.
COMPACT = VideoHeader(
    width=33, height=17, model="t", entropy_id="01020304", weights_id="05060708", time_base=(1, 50)
)


class TestCompactFrames:
    @pytest.mark.parametrize("distance", [1, 2, 3, 4, 5, 8])
    @pytest.mark.parametrize("late", [0, 1, -1])
    def test_round_trip(self, distance: int, late: int) -> None:
        frames = pyramid(23, distance, late=late)
        found, reader = read(written(frames, COMPACT, 1000))
        assert found == frames
        assert reader.index is not None
        assert reader.index.frames == 23
        assert not reader.order.waiting

    def test_bytes(self) -> None:
        # By hand: reference 1 back, quality 3 steps up; two vectors' bytes, two lanes of the other stream.
        key = Frame(0, 0, (), 0, NONE)
        data = written([key], COMPACT, 10)
        frame = Frame(1, 2, (0,), None, (Stream(2, b"abc"), Stream(1, b"vv")), 3072)
        at = len(b"".join(pieces(data)[:2]))
        payload = bytes([19 << 3, 2 << 2 | 1]) + b"vvabc"
        body = b"P" + bytes([len(payload)]) + payload
        crc = 1  # frames before this one
        for byte in body:
            for bit in range(7, -1, -1):
                crc = (crc << 1 ^ (0x1021 if (crc >> 15 ^ byte >> bit) & 1 else 0)) & 0xFFFF
        assert written([key, frame], COMPACT, 10)[at : at + len(body) + 2] == body + crc.to_bytes(2, "little")

    @pytest.mark.parametrize("distance", [1, 2, 4, 8])
    def test_container_takes_at_most_eight_bytes(self, distance: int) -> None:
        frames = [
            f._replace(streams=(Stream(1, bytes(900)), Stream(1, bytes(99)))) for f in pyramid(33, distance)
        ]
        header = COMPACT.__class__(**{**vars(COMPACT), "width": 640, "height": 480})
        alone = len(written(frames[:1], header, 1000))
        size = len(written(frames, header, 1000)) - alone - sum(f.size for f in frames[1:])
        # The index has a byte more for larger numbers.
        assert size <= 32 * 8 + 1

    def test_every_flipped_bit_and_a_file_cut_anywhere(self) -> None:
        data = written(pyramid(7, 4), COMPACT, 1000)
        for position in range(len(data) * 8):
            damaged = bytearray(data)
            damaged[position // 8] ^= 1 << position % 8
            with pytest.raises(LatensError):
                read(bytes(damaged))
        for size in range(len(data)):
            with pytest.raises(TruncatedError):
                read(data[:size])

    def test_orders_that_cannot_be(self) -> None:
        def frame(number: int, *references: int, time: int | None = None) -> Frame:
            return Frame(number, 2 * number if time is None else time, references, None, NONE)

        key = Frame(0, 0, (), 0, NONE)
        for bad, message in (
            ([frame(1, 0)], "first frame"),
            ([key, frame(4, 0), frame(4, 0)], "comes again"),
            ([key, frame(1, 0), frame(1, 0)], "cannot come after"),
            ([key, frame(16, 0)], "cannot come after"),
            ([key, frame(2, 0), frame(1, 0, 3)], "not there"),
            ([key, frame(1, 0), frame(3, 0)], "not there"),
            ([key, frame(4, 0), frame(3, 0, 2)], "not there"),
            ([key, frame(4, 0), frame(2, 0, 4, 4)], "not there"),
            ([key, frame(9, 0), frame(8, 0), frame(7, 0), frame(6, 0)], "more than 3"),
            ([key, frame(2, 0), Frame(2, 4, (), 0, NONE)], "wait for"),
            ([key, frame(2, 0), Frame(1, 2, (0,), 0, NONE)], "wait for"),
            ([key, frame(4, 0), frame(2, 0, 4, time=8)], "does not rise"),
            ([key, frame(4, 0), frame(2, 0, 4, time=0)], "does not rise"),
            ([key, frame(2, 0)], "wait for"),
            ([key, frame(1, 0)._replace(quality=100)], "whole number of steps"),
            ([key, frame(1, 0)._replace(quality=17 * 1024)], "whole number of steps"),
            ([key, frame(1, 0)._replace(streams=(*NONE, Stream(2, b"x")))], "one lane"),
            ([key._replace(checksum=None)], "needs a checksum"),
        ):
            with pytest.raises(FormatError, match=message):
                written(bad, COMPACT, 10_000)

    def chunk(self, payload: bytes, count: int = 1) -> bytes:
        import binascii

        body = b"P" + bytes([len(payload)]) + payload
        return body + binascii.crc_hqx(body, count).to_bytes(2, "little")

    def test_hostile_chunks(self) -> None:
        head, key, *_ = pieces(written(frames_of(1)))
        zero = 16 << 3
        for chunks, message in (
            ([bytes([4 | zero, 0])], "not there"),
            ([bytes([7 | zero, 0, 2, 0])], "cannot come after"),
            ([bytes([7 | zero, 0xF1, 2, 0])], "not there"),
            ([bytes([7 | zero, 1, 0, 0])], "shortest"),
            ([bytes([7 | zero, 1, 1, 0])], "does not rise"),
            ([bytes([7 | zero, 1]) + b"\xff" * 5], "longer than"),
            ([bytes([15 << 3, 0])], "out of range"),
            ([bytes([zero, 9])], "end inside"),
            ([b""], "end inside"),
            ([bytes([7 | zero, p, 2, 0]) for p in (9, 8, 7, 6)], "more than 3"),
            ([bytes([1 | zero, 0])] * 2, "comes again"),
        ):
            data = head + key + b"".join(self.chunk(payload, i + 1) for i, payload in enumerate(chunks))
            with pytest.raises(FormatError, match=message):
                read(data)
        # An index while a frame waits.
        with pytest.raises(FormatError, match="wait for"):
            read(head + key + self.chunk(bytes([1 | zero, 0])) + chunk(b"n", b"\2\3\1\0\0\x1f\x10\0\0\0"))

    def test_a_chunk_that_is_missing_is_noticed(self) -> None:
        head, *rest = pieces_of(written(pyramid(9, 1), COMPACT, 1000))
        with pytest.raises(ChecksumError):
            read(head + b"".join(rest[:3] + rest[4:]))

    def test_salvage_goes_on_at_the_next_key_frame(self) -> None:
        frames = pyramid(8, 4)
        again = [f._replace(number=f.number + 8, timestamp=f.timestamp + 16) for f in frames]
        again = [f._replace(references=tuple(r + 8 for r in f.references)) for f in again]
        head, *rest = pieces_of(written([*frames, *again], COMPACT, 1000))
        for lost in range(8):
            broken = bytearray(rest[lost])
            broken[-1] ^= 0x41
            data = head + b"".join([*rest[:lost], bytes(broken), *rest[lost + 1 :]])
            found, reader = read(data, on_error="conceal")
            assert found == [*frames[:lost], *again]
            assert reader.problems

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def test_any_damage(self, data: Any) -> None:
        frames = pyramid(9, 4, late=1)
        sound = written(frames, COMPACT, 1000)
        size = len(pieces_of(sound)[0])
        damaged = bytearray(sound)
        for _ in range(data.draw(st.integers(1, 5))):
            damaged[data.draw(st.integers(size, len(sound) - 1))] = data.draw(st.integers(0, 255))
        if data.draw(st.booleans()):
            del damaged[data.draw(st.integers(size, len(damaged) - 1)) :]
        found, _ = read(bytes(damaged), on_error="conceal")
        assert all(frame in frames for frame in found)

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.binary(min_size=2, max_size=5), max_size=20))
    def test_any_compact_frames_hold_little(self, payloads: list[bytes]) -> None:
        """Whatever they say of references: an error, or never more than three that wait."""
        head, key, *_ = pieces(written(frames_of(1)))
        chunks = b"".join(self.chunk(payload, i + 1) for i, payload in enumerate(payloads))
        reader = VideoReader(io.BytesIO(head + key + chunks))

        def follow() -> None:
            held = {-1}
            for frame in reader.frames():
                assert frame.key or set(frame.references) <= held
                held = {reader.order.ready, *reader.order.waiting}
                assert len(held) <= 4

        with pytest.raises(FormatError):
            follow()

    def test_seek(self) -> None:
        frames = pyramid(6, 4)
        again = [f._replace(number=f.number + 6, timestamp=f.timestamp + 12) for f in frames]
        again = [f._replace(references=tuple(r + 6 for r in f.references)) for f in again]
        reader = VideoReader(io.BytesIO(written([*frames, *again], COMPACT, 1000)))
        reader.seek(23 / 50)
        assert list(reader.frames()) == again


def pieces_of(data: bytes) -> list[bytes]:
    """Header, then each frame's chunk, then the rest; of files with compact frames."""
    reader = VideoReader(io.BytesIO(data))
    cuts = [0, reader.position, *(reader.position for _ in reader.frames())]
    return [data[a:b] for a, b in itertools.pairwise([*cuts, len(data)])]
