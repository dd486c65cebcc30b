"""What goes along with frames: shape of pixels, HDR metadata, sound; in the container, and through real files."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import clip, info
from ffmpeg import ffmpeg, pattern

from latens.errors import ChecksumError, FormatError, LatensError, LimitError, OutputError, VideoError
from latens.format import Frame, Stream, VideoExtras, VideoHeader, VideoReader, VideoWriter
from latens.format import _video as internals
from latens.io import Light, Mastering, SoundFile, VideoInfo, VideoSink, VideoSource

HEADER = VideoHeader(width=33, height=17, model="t", entropy_id="01020304", weights_id="05060708")
P3 = (34000, 16000, 13250, 34500, 7500, 3000, 15635, 16450, 10_000_000, 1)
EXTRAS = VideoExtras(pixel_aspect=(4, 3), mastering=P3, light=(1000, 400))


def frame(number: int) -> Frame:
    return Frame(number, number, (number - 1,) if number else (), 7, (Stream(1, bytes([number]) * 9),))


def written(extras: VideoExtras | None = None, sound: bytes = b"", count: int = 4) -> bytes:
    file = io.BytesIO()
    writer = VideoWriter(file, HEADER, extras)
    for number in range(count):
        writer.add_sound(sound[number::count], 21_000)
        writer.add(frame(number))
    writer.finish(count)
    return file.getvalue()


def read(data: bytes, **options: Any) -> tuple[list[Frame], VideoReader]:
    reader = VideoReader(io.BytesIO(data), **options)
    return list(reader.frames()), reader


def chunk(kind: bytes, payload: bytes) -> bytes:
    return internals._pack_chunk(kind[0], payload)


class TestContainer:
    def test_bytes(self) -> None:
        # By hand from docs/format.md, section 10.
        plain, data = written(), written(EXTRAS)
        head = internals.pack_video_header(HEADER)
        shape = b"d\x05\x00\x03\x01\x04\x01"
        hdr = b"h\x1c" + struct.pack("<8H2I2H", *P3, 1000, 400)
        expected = head + b"".join(c + zlib.crc32(c).to_bytes(4, "little") for c in (shape, hdr))
        assert data.startswith(expected)
        assert data[len(expected) : len(expected) + 1] == b"F"
        found, reader = read(data)
        assert found == [frame(i) for i in range(4)]
        assert reader.extras == EXTRAS
        assert read(plain)[1].extras == VideoExtras()

    @pytest.mark.parametrize(
        "extras", [VideoExtras(pixel_aspect=(64, 45)), VideoExtras(light=(0, 3)), VideoExtras(mastering=P3)]
    )
    def test_each_alone(self, extras: VideoExtras) -> None:
        assert read(written(extras))[1].extras == extras

    @pytest.mark.parametrize("size", [1, 30_000, 70_001, 3 << 20])
    def test_sound(self, size: int) -> None:
        sound = np.random.default_rng(0).bytes(size)
        parts: list[bytes] = []
        data = written(EXTRAS, sound)
        _, reader = read(data, sound=parts.append)
        assert b"".join(parts) == b"".join(sound[i::4] for i in range(4))
        assert all(len(part) <= 1 << 16 for part in parts)
        assert reader.sound_start == 21_000
        assert read(data)[0] == [frame(i) for i in range(4)]

    def test_seeking_goes_on_without_sound(self) -> None:
        parts: list[bytes] = []
        reader = VideoReader(io.BytesIO(written(None, bytes(100_000))), sound=parts.append)
        reader.seek(0.0)
        assert len(list(reader.frames())) == 4
        assert parts == []

    def test_every_flipped_bit(self) -> None:
        data = written(EXTRAS, b"sound")
        for position in range(len(data) * 8):
            damaged = bytearray(data)
            damaged[position // 8] ^= 1 << position % 8
            with pytest.raises(LatensError):
                read(bytes(damaged))

    def test_cut_anywhere(self) -> None:
        data = written(EXTRAS, b"sound")
        for size in range(len(data)):
            with pytest.raises(FormatError):
                read(data[:size])

    def test_salvage(self) -> None:
        sound = np.random.default_rng(0).bytes(200_000)
        data = bytearray(written(EXTRAS, sound))
        data[len(internals.pack_video_header(HEADER)) + 3] ^= 1
        found, reader = read(bytes(data), on_error="conceal")
        assert len(found) == 4
        assert reader.problems
        at = data.find(b"s", len(data) // 2)
        data[at + 1000] ^= 1
        parts: list[bytes] = []
        found, reader = read(bytes(data), on_error="conceal", sound=parts.append)
        assert len(found) == 4
        whole = b"".join(sound[i::4] for i in range(4))
        assert whole.startswith(b"".join(parts))
        assert len(b"".join(parts)) < len(whole)
        assert len(reader.problems) < 8

    @pytest.mark.parametrize(
        ("wrong", "error"),
        [
            (chunk(b"d", b"\0\3\1\4\1") * 2, FormatError),
            (chunk(b"h", bytes(27) + b"\1") + chunk(b"d", b"\0\3\1\4\1"), FormatError),
            (chunk(b"h", bytes(28)), FormatError),
            (chunk(b"h", bytes(27)), FormatError),
            (chunk(b"d", b"\0\3\1\0\1"), FormatError),
            (chunk(b"d", b"\7\3\1\4\1"), FormatError),
            (chunk(b"s", b"\1x"), FormatError),
            (chunk(b"s", b"\0\0"), LimitError),
            (chunk(b"s", b"\0\0" + bytes((1 << 16) + 1)), LimitError),
            (chunk(b"s", b""), FormatError),
            (chunk(b"s", b"\0\0x") * 2, FormatError),
        ],
    )
    def test_what_cannot_be(self, wrong: bytes, error: type[Exception]) -> None:
        head = internals.pack_video_header(HEADER)
        data = written()
        with pytest.raises(error):
            read(head + wrong + data[len(head) :])

    def test_out_of_place(self) -> None:
        data = written()
        head = internals.pack_video_header(HEADER)
        first = chunk(b"F", internals._pack_frame(frame(0)))
        assert data.startswith(head + first)
        with pytest.raises(FormatError, match="out of place"):
            read(head + first + chunk(b"h", bytes(27) + b"\1") + data[len(head + first) :])
        with pytest.raises(ChecksumError):
            read(head + chunk(b"h", bytes(27) + b"\1")[:-1] + b"x" + data[len(head) :])

    @pytest.mark.parametrize(
        "values",
        [
            {"pixel_aspect": (0, 1)},
            {"pixel_aspect": (1, 1 << 35)},
            {"mastering": (1,) * 9},
            {"mastering": (65536,) * 10},
            {"light": (-1, 0)},
        ],
    )
    def test_values_out_of_range(self, values: dict[str, Any]) -> None:
        with pytest.raises(FormatError):
            VideoExtras(**values)


HDR = info(
    64,
    48,
    bit_depth=10,
    colour=(9, 16, 9, 0),
    pixel_aspect=Fraction(4, 3),
    mastering=Mastering((34000, 16000), (13250, 34500), (7500, 3000), (15635, 16450), 10_000_000, 1),
    light=Light(1000, 400),
)


def write(path: Path, about: VideoInfo, **options: Any) -> VideoSink:
    with VideoSink(str(path), about, **options) as sink:
        for f in clip(about, 5):
            sink.add(f, lambda: np.zeros((about.height, about.width, 3), np.uint8))
    return sink


class TestFiles:
    """FFmpeg's program says what is in them."""

    @pytest.mark.parametrize("kind", ["mkv", "mp4", "mov"])
    def test_hdr(self, tmp_path: Path, kind: str) -> None:
        pytest.importorskip("av")
        assert write(tmp_path / f"clip.{kind}", HDR).not_kept == []
        report = ffmpeg(
            *("-i", tmp_path / f"clip.{kind}", "-vf", "showinfo", "-loglevel", "info", "-f", "null", "-"),
            errors=True,
        ).decode()
        for text in (
            "r(0.6800,0.3200) g(0.2650,0.6900) b(0.1500 0.0600) wp(0.3127, 0.3290)",
            "min_luminance=0.000100, max_luminance=1000.000000",
            "MaxCLL=1000, MaxFALL=400",
            "yuv420p10le",
            "bt2020nc/bt2020/smpte2084",
            "SAR 4:3",
        ):
            assert text in report
        with VideoSource(str(tmp_path / f"clip.{kind}")) as source:
            found = source.info
            frames = list(source.frames())
        assert (found.mastering, found.light) == (HDR.mastering, HDR.light)
        assert found.pixel_aspect == Fraction(4, 3)
        assert (found.colour, found.bit_depth, len(frames)) == (HDR.colour, 10, 5)
        if kind == "mkv":
            for mine, theirs in zip(frames, clip(HDR, 5), strict=True):
                assert all(np.array_equal(a, b) for a, b in zip(mine.planes, theirs.planes, strict=True))

    @pytest.mark.parametrize("aspect", [Fraction(64, 45), Fraction(1, 7), Fraction(65521, 65519)])
    @pytest.mark.parametrize("sound", [False, True])
    def test_shapes_of_pixels_in_matroska(self, tmp_path: Path, aspect: Fraction, sound: bool) -> None:
        pytest.importorskip("av")
        path, tones = tmp_path / "clip.mkv", tmp_path / "tones.mka"
        ffmpeg("-f", "lavfi", "-i", "sine=d=0.5", "-c:a", "pcm_s16le", tones)
        about = info(64, 48, pixel_aspect=aspect)
        with tones.open("rb") as file:
            sink = write(path, about, sound=SoundFile(file, 0) if sound else None)
        assert sink.not_kept == []
        report = ffmpeg("-i", path, "-vf", "showinfo", "-loglevel", "info", "-f", "null", "-", errors=True)
        assert f"SAR {aspect.numerator}:{aspect.denominator}" in report.decode()
        with VideoSource(str(path)) as reader:
            assert reader.info.pixel_aspect == aspect
            assert reader.not_kept == (["sound"] if sound else [])
            assert len(list(reader.frames())) == 5
        # The checksum over all that was written anew.
        data = path.read_bytes()
        at = data.index(b"\x16\x54\xae\x6b", data.index(b"Lavf"))
        size = int.from_bytes(data[at + 4 : at + 6], "big") & 0x3FFF
        assert data[at + 6 : at + 8] == b"\xbf\x84"
        assert int.from_bytes(data[at + 8 : at + 12], "little") == zlib.crc32(data[at + 12 : at + 6 + size])

    @pytest.mark.parametrize(
        ("name", "lost"),
        [
            ("a.y4m", ["colour (CICP 9/16/9/0)", "HDR metadata"]),
            ("a.yuv", ["colour (CICP 9/16/9/0)", "HDR metadata", "shape of pixels"]),
        ],
    )
    def test_where_there_is_no_place(self, tmp_path: Path, name: str, lost: list[str]) -> None:
        assert write(tmp_path / name, HDR).not_kept == lost

    def test_what_x265_writes(self, tmp_path: Path) -> None:
        pytest.importorskip("av")
        display = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
        colour = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
        options = f"log-level=none:pools=1:{colour}:master-display={display}:max-cll=1000,400"
        path = pattern(
            tmp_path / "clip.mp4",
            *("-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params", options),
            seconds=0.3,
        )
        with VideoSource(str(path)) as source:
            assert (source.info.mastering, source.info.light) == (HDR.mastering, HDR.light)
            assert source.info.colour == (9, 16, 9, 0)


def packets(path: Path) -> list[list[tuple[Fraction, str]]]:
    """Time and MD5 of each packet of sound, track by track, times from the first frame shown."""
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        start = None
        found: dict[int, list[tuple[Fraction, str]]] = {}
        for packet in container.demux():
            if not packet.size:
                continue
            time = packet.pts * packet.time_base
            if packet.stream.type == "video":
                start = time if start is None else min(start, time)
            elif not packet.is_discard:
                found.setdefault(packet.stream_index, []).append(
                    (time, hashlib.md5(bytes(packet)).hexdigest())
                )
    assert start is not None
    return [[(time - start, digest) for time, digest in track] for track in found.values()]


def same_sound(a: Path, b: Path) -> None:
    """The same packets, at times that differ by less than Matroska can say."""
    for first, second in zip(packets(a), packets(b), strict=True):
        assert [digest for _, digest in first] == [digest for _, digest in second]
        assert max(abs(x - y) for (x, _), (y, _) in zip(first, second, strict=True)) <= Fraction(2, 1000)


def kept(path: Path, tmp_path: Path, limit: int | None = None) -> tuple[bytes, VideoSource, list[Any]]:
    """A container with the file's sound, made as the codec does."""
    file = io.BytesIO()
    with VideoSource(str(path), sound=True) as source:
        writer = VideoWriter(file, HEADER)
        frames = []
        for number, found in enumerate(source.frames()):
            if number == limit:
                break
            assert source.sound is not None
            writer.add_sound(source.sound.take(), source.sound.start)
            writer.add(frame(number))
            frames.append(found)
        assert source.sound is not None
        writer.add_sound(source.sound.finish(), source.sound.start)
        writer.finish(len(frames))
    return file.getvalue(), source, frames


SOUNDS = {
    "aac.mp4": ("-c:a", "aac", "-b:a", "64k"),
    "opus.webm": ("-c:a", "libopus", "-c:v", "libvpx"),
    "flac.mkv": ("-c:a", "flac"),
    "pcm.mov": ("-c:a", "pcm_s16le"),
    "mp3.avi": ("-c:a", "libmp3lame", "-c:v", "mpeg4"),
    "ac3.ts": ("-c:a", "ac3"),
}


class TestSound:
    @pytest.mark.parametrize("name", SOUNDS)
    @pytest.mark.parametrize("delay", ["0", "0.3"])
    def test_there_and_back(self, tmp_path: Path, name: str, delay: str) -> None:
        original = tmp_path / name
        pattern(
            original,
            *("-itsoffset", delay, "-f", "lavfi", "-i", "sine=d=1.2", "-pix_fmt", "yuv420p", *SOUNDS[name]),
        )
        data, source, frames = kept(original, tmp_path)
        assert "sound" not in source.not_kept
        found = io.BytesIO()
        _, reader = read(data, sound=found.write)
        for kind in ("mkv", "mp4") if name == "aac.mp4" else ("mkv",):
            assert reader.sound_start is not None
            sound = SoundFile(found, reader.sound_start)
            with VideoSink(str(tmp_path / f"again.{kind}"), source.info, sound=sound) as sink:
                for f in frames:
                    sink.add(f)
            sound.close()
            same_sound(original, tmp_path / f"again.{kind}")

    def test_two_tracks_and_a_part(self, tmp_path: Path) -> None:
        original = tmp_path / "clip.mkv"
        pattern(
            original,
            *(
                "-f",
                "lavfi",
                "-i",
                "sine=d=2",
                "-f",
                "lavfi",
                "-i",
                "sine=f=800:d=2",
                "-map",
                "0",
                "-map",
                "1",
            ),
            *("-map", "2", "-c:a", "flac", "-metadata:s:a:1", "language=swe", "-pix_fmt", "yuv420p"),
            seconds=2.0,
        )
        data, source, frames = kept(original, tmp_path)
        found = io.BytesIO()
        _, reader = read(data, sound=found.write)
        sound = SoundFile(found, reader.sound_start or 0, part=True)
        with VideoSink(str(tmp_path / "part.mkv"), source.info, sound=sound) as sink:
            for f in frames[5:15]:
                sink.add(f)
        tracks = packets(tmp_path / "part.mkv")
        assert len(tracks) == 2
        whole = packets(original)
        for track, full in zip(tracks, whole, strict=True):
            expected = [d for time, d in full if Fraction(1, 2) <= time < Fraction(3, 2)]
            assert [digest for _, digest in track] == expected
        assert b"swe" in (tmp_path / "part.mkv").read_bytes()

    def test_refusals(self, tmp_path: Path) -> None:
        original = pattern(
            tmp_path / "clip.mkv",
            "-f",
            "lavfi",
            "-i",
            "sine=d=1",
            "-c:a",
            "vorbis",
            "-strict",
            "-2",
            "-ac",
            "2",
        )
        data, source, _ = kept(original, tmp_path)
        found = io.BytesIO()
        _, reader = read(data, sound=found.write)
        start = reader.sound_start or 0
        for name in ("a.y4m", "a.yuv", "pictures/"):
            with pytest.raises(OutputError, match="no place for sound"):
                VideoSink(f"{tmp_path}/{name}", source.info, sound=SoundFile(found, start))
        for junk in (b"", b"junk" * 100, found.getvalue()[:100], original.read_bytes()):
            with pytest.raises(VideoError, match="sound is damaged"):
                SoundFile(io.BytesIO(junk), start)

    def test_damage(self, tmp_path: Path) -> None:
        original = pattern(tmp_path / "clip.mkv", "-f", "lavfi", "-i", "sine=d=1", "-c:a", "flac")
        data, source, frames = kept(original, tmp_path)
        found = io.BytesIO()
        read(data, sound=found.write)
        rng = np.random.default_rng(1)
        for _ in range(20):
            bad = bytearray(found.getvalue())
            for position in rng.integers(0, len(bad), 5):
                bad[position] ^= 1 << int(rng.integers(8))
            try:
                sound = SoundFile(io.BytesIO(bad), 0)
                with VideoSink(str(tmp_path / "again.mkv"), source.info, sound=sound, force=True) as sink:
                    for f in frames[:3]:
                        sink.add(f)
            except LatensError:
                continue
