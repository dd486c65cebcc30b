"""Video files in and out: what comes back, timestamps, and everything that is refused."""

from __future__ import annotations

import io
import resource
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import clip, info

from latens.errors import OutputError, UnavailableError, VideoError
from latens.io import RawVideo, VideoFrame, VideoInfo, VideoSink, VideoSource

av = pytest.importorskip("av")


def write(path: Path, about: VideoInfo, count: int = 5, **options: Any) -> list[VideoFrame]:
    frames = list(clip(about, count, **options))
    with VideoSink(str(path), about) as sink:
        for frame in frames:
            sink.add(frame)
    return frames


def read(path: Path, raw: RawVideo | None = None) -> tuple[VideoInfo, list[VideoFrame]]:
    with VideoSource(str(path), raw) as source:
        return source.info, list(source.frames())


def not_kept(path: Path) -> list[str]:
    """What reading the whole file says is lost."""
    with VideoSource(str(path)) as source:
        list(source.frames())
        return source.not_kept


def same(a: list[VideoFrame], b: list[VideoFrame]) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(p, q)
        for x, y in zip(a, b, strict=True)
        for p, q in zip(x.planes, y.planes, strict=True)
    )


@pytest.mark.parametrize("suffix", [".y4m", ".mkv"])
@pytest.mark.parametrize(
    "about",
    [
        info(),
        info(71, 39),
        info(32, 16, chroma="4:2:2"),
        info(33, 17, chroma="4:4:4"),
        info(32, 16, bit_depth=10),
    ],
    ids=lambda a: f"{a.width}x{a.height}-{a.chroma}-{a.bit_depth}",
)
def test_nothing_is_lost(tmp_path: Path, about: VideoInfo, suffix: str) -> None:
    frames = write(tmp_path / f"clip{suffix}", about)
    found, again = read(tmp_path / f"clip{suffix}")
    assert same(frames, again)
    assert (found.width, found.height, found.chroma, found.bit_depth) == (
        about.width,
        about.height,
        about.chroma,
        about.bit_depth,
    )
    assert found.frame_rate == 25
    times = [f.timestamp * found.time_base for f in again]
    assert times == [f.timestamp * about.time_base for f in frames]


def test_varying_times_are_kept(tmp_path: Path) -> None:
    about = info(32, 16, time_base=Fraction(1, 1000), frame_rate=Fraction(25))
    frames = [VideoFrame(f.planes, t) for f, t in zip(clip(about, 4), (0, 40, 55, 300), strict=True)]
    with VideoSink(str(tmp_path / "clip.mkv"), about) as sink:
        for frame in frames:
            sink.add(frame)
    found, again = read(tmp_path / "clip.mkv")
    assert [round(1000 * f.timestamp * found.time_base) for f in again] == [0, 40, 55, 300]
    with VideoSink(str(tmp_path / "clip.y4m"), about) as sink:
        for frame in frames:
            sink.add(frame)
    assert sink.not_kept == ["colour (CICP 1/1/1/0)", "times of frames, which vary"]


def test_colour_is_kept(tmp_path: Path) -> None:
    about = info(32, 16, colour=(1, 1, 1, 1))
    write(tmp_path / "clip.mkv", about)
    assert read(tmp_path / "clip.mkv")[0].colour == (1, 1, 1, 1)
    write(tmp_path / "plain.y4m", info(32, 16))
    assert read(tmp_path / "plain.y4m")[0].colour == (2, 2, 6, 0)


def test_h264(tmp_path: Path) -> None:
    frames = write(tmp_path / "clip.mp4", info())
    found, again = read(tmp_path / "clip.mp4")
    assert len(again) == 5
    assert np.abs(again[2].planes[0].astype(int) - frames[2].planes[0]).mean() < 2
    assert found.frames == 5


def test_bare_planes(tmp_path: Path) -> None:
    about = info(33, 17, bit_depth=10, chroma="4:2:2")
    frames = write(tmp_path / "clip.yuv", about)
    layout = RawVideo(33, 17, Fraction(25), "4:2:2", 10)
    found, again = read(tmp_path / "clip.yuv", layout)
    assert same(frames, again)
    assert found.frame_rate == 25
    data = (tmp_path / "clip.yuv").read_bytes()
    (tmp_path / "cut.yuv").write_bytes(data[:-1])
    with pytest.raises(VideoError, match="ends inside frame 4"):
        read(tmp_path / "cut.yuv", layout)
    (tmp_path / "high.yuv").write_bytes(b"\xff" * len(data))
    with pytest.raises(VideoError, match="more than 10 bits"):
        read(tmp_path / "high.yuv", layout)
    (tmp_path / "empty.yuv").write_bytes(b"")
    with pytest.raises(VideoError, match="no frame"):
        read(tmp_path / "empty.yuv", layout)
    for bad in ((0, 5), (70000, 5), (65535, 65535)):
        with pytest.raises(VideoError, match="pixels"):
            RawVideo(*bad)
    with pytest.raises(VideoError, match="rate"):
        RawVideo(4, 4, Fraction(0))
    with pytest.raises(VideoError, match="raw video"):
        RawVideo(4, 4, chroma="4:1:1")


def encoded(path: Path, pixel_format: str, size: tuple[int, int] = (32, 16), codec: str = "ffv1") -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        pixels = np.zeros((size[1], size[0], 3), np.uint8)
        pixels[:, : size[0] // 2] = (200, 30, 60)
        for _ in range(2):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format=pixel_format)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("pixel_format", "chroma", "depth"),
    [("gray", "4:2:0", 8), ("bgra", "4:4:4", 8), ("yuv444p12le", "4:4:4", 12), ("yuv411p", "4:4:4", 8)],
)
def test_other_layouts_are_converted(tmp_path: Path, pixel_format: str, chroma: str, depth: int) -> None:
    encoded(tmp_path / "clip.mkv", pixel_format)
    found, frames = read(tmp_path / "clip.mkv")
    assert (found.chroma, found.bit_depth, len(frames)) == (chroma, depth, 2)
    assert frames[0].planes[0][0, 0] > frames[0].planes[0][0, -1] + 20


def test_sound_is_left_out_with_a_note(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        video = container.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 16, 16, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=8000)
        audio.layout = "mono"
        container.mux(video.encode(av.VideoFrame(16, 16, "yuv420p")))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        silence.sample_rate = 8000
        container.mux(audio.encode(silence))
        for stream in (video, audio):
            container.mux(stream.encode(None))
    assert not_kept(tmp_path / "clip.mkv") == ["sound"]


PLAYLISTS: dict[str, Callable[[Path], bytes]] = {
    "list.m3u8": lambda p: b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nclip.mkv\n#EXT-X-ENDLIST\n",
    "list.ffconcat": lambda p: b"ffconcat version 1.0\nfile clip.mkv\n",
    "list.mpd": lambda p: b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>\n',
    "list.sdp": lambda p: (
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n"
    ),
    "noise.mp4": lambda p: bytes(range(256)) * 40,
    "text.mkv": lambda p: b"hello\n",
    "none.mkv": lambda p: b"",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_playlists_and_what_is_no_video(tmp_path: Path, name: str) -> None:
    write(tmp_path / "clip.mkv", info(32, 16))
    (tmp_path / name).write_bytes(PLAYLISTS[name](tmp_path))
    with pytest.raises(VideoError):
        read(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["http://127.0.0.1:9/clip.mp4", "tcp://127.0.0.1:9", "concat:a.ts|b.ts", "pipe:0"]
)
def test_addresses_are_not_opened(name: str) -> None:
    with pytest.raises(VideoError, match="cannot be read"):
        VideoSource(name)


@pytest.mark.parametrize("suffix", [".y4m", ".mp4", ".mkv"])
def test_files_that_are_cut(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"clip{suffix}", info(), 6)
    data = (tmp_path / f"clip{suffix}").read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(VideoError):
        read(tmp_path / f"cut{suffix}")


def test_files_without_a_frame(tmp_path: Path) -> None:
    (tmp_path / "head.y4m").write_bytes(b"YUV4MPEG2 W96 H64 F25:1 Ip A1:1 C420jpeg\n")
    with pytest.raises(VideoError, match=r"^holds no frame"):
        read(tmp_path / "head.y4m")
    (tmp_path / "void.mp4").touch()
    with pytest.raises(VideoError, match="holds no frame: it is empty"):
        read(tmp_path / "void.mp4")


def test_size_that_changes(tmp_path: Path) -> None:
    # An elementary stream may start again with another size.
    parts = []
    for number, size in enumerate(((64, 32), (32, 64))):
        path = tmp_path / f"{number}.h264"
        encoded(path, "yuv420p", size, "libx264")
        parts.append(path.read_bytes())
    (tmp_path / "both.h264").write_bytes(b"".join(parts))
    with pytest.raises(VideoError, match="changes at frame 2"):
        read(tmp_path / "both.h264")


def test_outputs_that_are_refused(tmp_path: Path) -> None:
    about = info(32, 16)
    (tmp_path / "there.y4m").write_bytes(b"x")
    with pytest.raises(OutputError, match="exists"):
        VideoSink(str(tmp_path / "there.y4m"), about)
    with pytest.raises(OutputError, match="kind"):
        VideoSink(str(tmp_path / "clip.xyz"), about)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.png").write_bytes(b"x")
    with pytest.raises(OutputError, match="not empty"):
        VideoSink(str(tmp_path / "full"), about)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "there.y4m"]


@pytest.mark.parametrize("about", [info(71, 40), info(72, 39), info(32, 16, bit_depth=12)])
def test_what_h264_cannot_hold_is_said_at_once(tmp_path: Path, about: VideoInfo) -> None:
    with pytest.raises(OutputError, match=r"H\.264 in \.mp4 cannot hold .*\.mkv and \.y4m can"):
        VideoSink(str(tmp_path / "clip.mp4"), about)
    assert not list(tmp_path.iterdir())
    write(tmp_path / "clip.mkv", about, 1)


@pytest.mark.parametrize("suffix", [".y4m", ".yuv", ".mkv", ".mp4"])
def test_a_full_disk_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        with pytest.raises(OutputError, match=rf"clip\{suffix}: cannot be (encoded or )?written"):
            write(path, info(), 30)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with VideoSink(str(tmp_path / "clip.mkv"), info()) as sink:
            sink.add(next(clip(info(), 1)))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_pictures(tmp_path: Path) -> None:
    from PIL import Image

    about = info(5, 3)
    red = np.full((3, 5, 3), (200, 0, 0), np.uint8)
    with VideoSink(f"{tmp_path}/out/", about) as sink:
        for frame in clip(about, 2):
            sink.add(frame, lambda: red)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["000000.png", "000001.png"]
    with Image.open(tmp_path / "out" / "000001.png") as picture:
        assert np.array_equal(np.asarray(picture), red)


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = write(tmp_path / "clip.y4m", info())
    data = (tmp_path / "clip.y4m").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    with VideoSource("-") as source:
        assert same(list(source.frames()), frames)


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "clip.yuv", info(32, 16))
    monkeypatch.setitem(sys.modules, "av", None)
    assert len(read(tmp_path / "clip.yuv", RawVideo(32, 16))[1]) == 5
    write(tmp_path / "clip.y4m", info(32, 16))
    with pytest.raises(UnavailableError, match="pip install"):
        VideoSource(str(tmp_path / "clip.y4m"))
