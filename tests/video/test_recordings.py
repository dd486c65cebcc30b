"""Recordings of screens: text stays as it is, a page that stands still costs nothing, damage is found."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latens import format as ltn
from latens.codec import recording
from latens.codec.structure import Structure
from latens.codec.video import VideoCodec
from latens.entropy_coding.lossless import encode_tiles
from latens.errors import FormatError, LatensError, VersionError, VideoError
from latens.format._video import unpack_video_header
from latens.io import VideoFrame, VideoInfo

RGB = (1, 13, 0, True)


@pytest.fixture(scope="module")
def codec() -> VideoCodec:
    return VideoCodec("latens-video-6")


def about(width: int = 192, height: int = 128, depth: int = 8) -> VideoInfo:
    base = {"time_base": Fraction(1, 25), "frame_rate": Fraction(25)}
    return VideoInfo(width, height, chroma="4:4:4", bit_depth=depth, colour=RGB, **base)


def screens(info: VideoInfo, count: int, letters: int = 300, moving: bool = False) -> Iterator[VideoFrame]:
    """A page that is typed on; a moving picture in its lower right corner, if that is wanted."""
    rng = np.random.default_rng(3)
    glyphs = rng.random((20, 8, 5)) < 0.45
    text = rng.integers(20, size=letters + 8 * count)
    top = (1 << info.bit_depth) - 1
    for t in range(count):
        page = np.full((info.height, info.width, 3), top, np.uint16)
        page[:12] = np.array([top // 6, top // 4, top // 2])
        columns = (info.width - 8) // 6
        for n, glyph in enumerate(text[: letters + 8 * t]):
            y, x = 16 + 10 * (n // columns), 4 + 6 * (n % columns)
            if y + 8 <= info.height:
                page[y : y + 8, x : x + 5][glyphs[glyph]] = top // 10
        if moving:
            y, x = np.mgrid[0:64, 0:64]
            grain = rng.normal(0, 0.02, (64, 64, 1))
            wave = 0.5 + 0.3 * np.sin((x + 3 * t) / 7 + y / 11)[..., None] + grain
            page[-64:, -64:] = (wave.clip(0, 1) * top).astype(np.uint16)
        samples = page.astype(np.uint8 if info.bit_depth == 8 else np.uint16)
        yield VideoFrame(tuple(np.ascontiguousarray(samples[..., c]) for c in (1, 2, 0)), t, 1)


def coded(codec: VideoCodec, info: VideoInfo, frames: list[VideoFrame], **options) -> tuple[bytes, list]:
    file = io.BytesIO()
    options.setdefault("structure", Structure(8))
    found = list(codec.encode(info, frames, file, **options))
    return file.getvalue(), found


def opened(data: bytes, **options) -> ltn.VideoReader:
    return ltn.VideoReader(io.BytesIO(data), **options)


def planes(frame) -> np.ndarray:
    return np.stack(frame.planes, 2).astype(np.int32)


@pytest.fixture(scope="module")
def typed(codec: VideoCodec) -> tuple[bytes, list[VideoFrame]]:
    frames = list(screens(about(), 18))
    return coded(codec, about(), frames, quality=30)[0], frames


def test_text_is_exact_in_every_frame_and_small(codec, typed):
    data, frames = typed
    found = list(codec.decode(opened(data)))
    assert len(found) == len(frames)
    for a, b in zip(frames, found, strict=True):
        assert (planes(a) == planes(b.frame)).all()
    photo, shown = coded(codec, about(), frames, quality=30, content="photo")
    assert len(data) < len(photo)
    assert any((planes(a) != planes(b.frame)).any() for a, b in zip(frames, shown, strict=True))


@pytest.mark.parametrize("depth", [8, 10])
def test_what_the_encoder_says_is_what_comes_out(codec, depth):
    info = about(200, 140, depth)
    frames = list(screens(info, 10, moving=True))
    data, said = coded(codec, info, frames, quality=20)
    found = {frame.number: frame for frame in codec.decode(opened(data))}
    for frame in said:
        assert (planes(frame.frame) == planes(found[frame.number].frame)).all()
    # The text, which no square of the moving picture touches.
    for a, b in zip(frames, found.values(), strict=True):
        assert (planes(a)[:64, :128] == planes(b.frame)[:64, :128]).all()


def test_a_page_that_stands_still_costs_nothing(codec):
    (frame,) = screens(about(), 1)
    still = [VideoFrame(frame.planes, t, 1) for t in range(9)]
    data, said = coded(codec, about(), still, structure=Structure(9))
    assert all(frame.bytes < 4 for frame in said[1:])
    for frame in codec.decode(opened(data)):
        assert (planes(frame.frame) == planes(still[0])).all()


def test_what_a_camera_sees_is_left_to_the_model(codec):
    rng = np.random.default_rng(1)
    info = about()
    frames = []
    for t in range(4):
        y, x = np.mgrid[0 : info.height, 0 : info.width]
        wave = 128 + 70 * np.sin(x / 17 + t)[..., None] * np.cos(y / 23)[..., None]
        samples = (wave + rng.normal(0, 3, (info.height, info.width, 3))).clip(0, 255).astype(np.uint8)
        frames.append(VideoFrame(tuple(np.ascontiguousarray(samples[..., c]) for c in range(3)), t, 1))
    both = [coded(codec, info, frames, content=content)[0] for content in ("auto", "photo")]
    assert both[0] == both[1]


def test_seeking_finds_the_drawn_squares_of_a_key_frame(codec, typed):
    data, frames = typed
    reader = opened(data)
    reader.seek(9 / 25)
    found = list(codec.decode(reader))
    assert found[0].number == 8
    for frame in found:
        assert (planes(frame.frame) == planes(frames[frame.number])).all()


def chunks(data: bytes) -> list[tuple[int, int, int]]:
    """Kind, start and end of each chunk."""
    reader = opened(data)
    list(reader.frames())
    found, at = [], unpack_video_header(memoryview(data), ltn.Limits())[1]
    while at < len(data):
        size, shift, length = at + 1, 0, 0
        while True:
            byte = data[size]
            length |= (byte & 127) << shift
            size, shift = size + 1, shift + 7
            if not byte & 128:
                break
        end = size + length + (2 if data[at : at + 1] == b"P" else 4)
        found.append((data[at], at, end))
        at = end
    return found


def test_squares_that_are_missing_or_damaged_are_found(codec, typed):
    data, frames = typed
    places = [(start, end) for kind, start, end in chunks(data) if kind == ord("D")]
    assert len(places) > 3
    for start, end in places:
        flipped = bytearray(data)
        flipped[(start + end) // 2] ^= 4
        for damaged in (data[:start] + data[end:], data[:end] + data[start:], bytes(flipped)):
            with pytest.raises(LatensError):
                list(codec.decode(opened(damaged)))
            # No wrong picture when what is left is saved, either.
            reader = opened(damaged, on_error="conceal")
            try:
                found = list(codec.decode(reader, on_error="conceal"))
            except FormatError:
                continue
            assert reader.problems
            for frame in found:
                assert (planes(frame.frame) == planes(frames[frame.number])).all()


class TestDamage:
    """What a hostile file may say of squares."""

    def tile(self, channels: int = 4) -> bytes:
        samples = np.full((128, 192, channels), 9, np.uint8)
        part = np.zeros((2, 3), bool)
        part[0, 1] = True
        return encode_tiles(samples, 4096, part=part)[0]

    @pytest.mark.parametrize("runs", [(0, 7), (6, 1), (0, 1, 2, 3, 1), (2**60, 1)])
    def test_more_squares_than_there_are(self, runs):
        with pytest.raises(FormatError, match="runs"):
            recording.read(ltn.Drawn(runs, b""), False, (128, 192), 8)

    def test_runs_of_a_key_frame(self):
        with pytest.raises(FormatError, match="runs"):
            recording.read(ltn.Drawn((0, 1), self.tile(3)), True, (128, 192), 8)

    def test_a_tile_that_is_cut(self):
        good = recording.read(ltn.Drawn((), self.tile()), False, (128, 192), 8)
        assert good.part.sum() == 1
        assert (good.samples[:64, 64:128] == 9).all()
        with pytest.raises(LatensError):
            recording.read(ltn.Drawn((), self.tile()[:-3]), False, (128, 192), 8)

    def test_a_tile_that_is_newer(self):
        with pytest.raises(VersionError):
            recording.read(ltn.Drawn((), b"\x03" + self.tile()[1:]), False, (128, 192), 8)

    def test_frames_that_are_too_large_for_a_tile(self):
        with pytest.raises(FormatError, match="4160"):
            recording.read(ltn.Drawn((), b""), False, (64, 4160), 8)

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.integers(0, 8), max_size=5), st.integers(0, 400), st.integers(0, 255), st.booleans())
    def test_any_bytes(self, runs, at, byte, key):
        tile = bytearray(self.tile(3 if key else 4))
        tile[at % len(tile)] = byte
        try:
            squares = recording.read(ltn.Drawn(tuple(runs), bytes(tile)), key, (128, 192), 8)
        except LatensError:
            return
        assert squares.part.shape == squares.kept.shape == (2, 3)

    def test_a_kind_of_content_that_there_is_not(self, codec):
        with pytest.raises(VideoError, match="auto or photo"):
            coded(codec, about(), list(screens(about(), 1)), content="drawn")


@given(st.lists(st.booleans(), min_size=12, max_size=12))
def test_runs_say_which_squares(bits):
    kept = np.array(bits).reshape(3, 4)
    runs = recording._runs(kept)
    assert 0 not in runs[1:]
    assert (recording.read(ltn.Drawn(runs, b""), False, (192, 256), 8).kept == kept).all()
