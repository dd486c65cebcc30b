"""``latens video``, as a user runs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import Result

sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("vectors", "video")]

from clips import clip, info, network, save_weights  # noqa: E402

from latens.io import RawVideo, VideoSink, VideoSource  # noqa: E402
from latens.zoo import DEFAULT_VIDEO_MODEL, card  # noqa: E402

pytest.importorskip("av")

Run = Callable[..., Result]


@pytest.fixture
def here(work: Path) -> Path:
    """A folder with a clip of five frames and a model."""
    save_weights(work / "tiny.safetensors")
    about = info(40, 24)
    with VideoSink("clip.mkv", about) as sink:
        for frame in clip(about, 5):
            sink.add(frame)
    return work


@pytest.mark.usefixtures("here")
class TestWays:
    def test_there_and_back(self, latens: Run, here: Path) -> None:
        done = latens("video", "encode", "clip.mkv", "-o", "clip.ltn", "-m", "tiny.safetensors", "--gop", "3")
        assert done.code == 0
        # The size is that of the file, not of what is coded in it.
        assert f"5 frames, {(here / 'clip.ltn').stat().st_size:,} bytes" in done.err
        assert "frames per second" in done.err
        for target in ("a.y4m", "a.mkv", "a.yuv", "pngs/"):
            assert latens("video", "decode", "clip.ltn", "-o", target, "-m", "tiny.safetensors").code == 0
        frames = []
        for name, raw in (("a.y4m", None), ("a.mkv", None), ("a.yuv", RawVideo(40, 24))):
            with VideoSource(name, raw) as source:
                frames.append([f.planes for f in source.frames()])
        assert len(frames[0]) == 5
        assert all(
            np.array_equal(p, q)
            for other in frames[1:]
            for a, b in zip(frames[0], other, strict=True)
            for p, q in zip(a, b, strict=True)
        )
        assert len(list((here / "pngs").iterdir())) == 5

    def test_pipes(self, latens: Run, here: Path) -> None:
        options = ("-m", "tiny.safetensors", "--quiet")
        coded = latens("video", "encode", "-", "-o", "-", *options, stdin=Path("clip.mkv").read_bytes())
        assert coded.code == 0
        assert coded.err == ""
        assert coded.out[:3] == b"LTN"
        decoded = latens("video", "decode", "-", "-o", "-", *options, stdin=coded.out)
        assert decoded.out.startswith(b"YUV4MPEG2 W40 H24 F25:1")
        assert decoded.out.count(b"FRAME\n") == 5

    def test_sound_and_what_is_not_kept(self, latens: Run, here: Path) -> None:
        av = pytest.importorskip("av")
        with av.open("talk.mkv", "w") as container:
            video = container.add_stream("ffv1", rate=25)
            video.width, video.height, video.pix_fmt = 40, 24, "gbrp10le"
            audio = container.add_stream("pcm_s16le", rate=8000)
            audio.layout = "mono"
            for number in range(3):
                picture = av.VideoFrame(40, 24, "gbrp10le")
                picture.pts = number
                container.mux(video.encode(picture))
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 320), np.int16), "s16", "mono")
                silence.sample_rate = 8000
                silence.pts = 320 * number
                container.mux(audio.encode(silence))
            for stream in (video, audio):
                container.mux(stream.encode(None))
        options = ("-m", "tiny.safetensors", "--quiet")
        done = latens("video", "encode", "talk.mkv", "-o", "mute.ltn", *options)
        assert done.err == "talk.mkv: not kept: sound\n"
        assert latens("video", "encode", "talk.mkv", "-o", "talk.ltn", *options, "--audio", "copy").err == ""
        done = latens("video", "decode", "talk.ltn", "-o", "mute.mkv", *options)
        assert done.err == "mute.mkv: not kept: sound (--audio copy gives it back)\n"
        data = Path("talk.ltn").read_bytes()
        for source, target in (("talk.ltn", "back.mkv"), ("-", "piped.mkv")):
            line = ("video", "decode", source, "-o", target, *options, "--audio", "copy")
            assert latens(*line, stdin=data).err == ""
            with av.open("talk.mkv") as before, av.open(target) as after:
                assert after.streams.video[0].codec_context.pix_fmt == "gbrp10le"
                found = [
                    [bytes(packet) for packet in container.demux(audio=0)] for container in (before, after)
                ]
                assert found[0] == found[1]
        done = latens("video", "decode", "talk.ltn", "-o", "x.y4m", *options, "--audio", "copy")
        assert (done.code, "no place for sound" in done.err) == (2, True)
        done = latens("video", "encode", "talk.mkv", "-o", "x.ltn", *options, "--audio", "mp3")
        assert (done.code, "expected copy" in done.err) == (2, True)

    def test_the_default_model(self, latens: Run, here: Path) -> None:
        if not card(DEFAULT_VIDEO_MODEL).path.exists():
            pytest.skip("the default video model's weights are not in this checkout")
        sizes = []
        for quality in ("10", "80"):
            line = ("video", "encode", "clip.mkv", "-f", "-o", "clip.ltn", "--gop", "3", "-q", quality)
            assert latens(*line).code == 0
            sizes.append((here / "clip.ltn").stat().st_size)
        assert sizes[0] < sizes[1]
        assert b"latens-video-6" in latens("video", "info", "clip.ltn").out
        assert latens("video", "decode", "clip.ltn", "-o", "copy.y4m").code == 0
        assert (here / "copy.y4m").read_bytes().count(b"FRAME\n") == 5
        assert latens("models").out.count(b"\nlatens-video-6\n") == 1

    def test_info(self, latens: Run) -> None:
        latens("video", "encode", "clip.mkv", "-m", "tiny.safetensors", "--gop", "2")
        text = latens("video", "info", "clip.ltn").out.decode()
        assert "40" in text
        assert "0.200 s, 5 frames" in text
        about = json.loads(latens("video", "info", "clip.ltn", "--json").out)
        assert about["frames"] == 5
        assert [key["number"] for key in about["keyframes"]] == [0, 2, 4]
        assert about["size"] == Path("clip.ltn").stat().st_size

    def test_part_of_it(self, latens: Run) -> None:
        options = ("-m", "tiny.safetensors")
        latens("video", "encode", "clip.mkv", *options, "--gop", "2", "--frames", "4")
        done = latens("video", "decode", "clip.ltn", "-o", "end.y4m", *options, "--start", "0.13")
        assert "2 frames" in done.err
        done = latens("video", "decode", "clip.ltn", "-o", "start.y4m", *options, "--frames", "1")
        assert "1 frames" in done.err

    def test_raw(self, latens: Run) -> None:
        about = info(33, 17, chroma="4:4:4", bit_depth=10)
        with VideoSink("clip.yuv", about) as sink:
            for frame in clip(about, 2):
                sink.add(frame)
        options = ("--raw", "33x17", "--raw-fps", "30000/1001", "--raw-format", "yuv444p10le")
        assert (
            latens("video", "encode", "clip.yuv", "-o", "c.ltn", "-m", "tiny.safetensors", *options).code == 0
        )
        fields = json.loads(latens("video", "info", "c.ltn", "--json").out)["fields"]
        assert (fields["Chroma"], fields["Bits per sample"], fields["Time base"]) == (
            "4:4:4",
            10,
            "1001/30000 s",
        )

    def test_salvage(self, latens: Run) -> None:
        options = ("-m", "tiny.safetensors")
        latens("video", "encode", "clip.mkv", *options, "--gop", "2")
        data = bytearray(Path("clip.ltn").read_bytes())
        data[-100] ^= 1
        Path("bad.ltn").write_bytes(data)
        done = latens("video", "decode", "bad.ltn", "-o", "bad.y4m", *options)
        assert done.code == 2
        assert "damaged" in done.err
        assert not Path("bad.y4m").exists()
        done = latens("video", "decode", "bad.ltn", "-o", "bad.y4m", *options, "--salvage")
        assert done.code == 3
        with VideoSource("bad.y4m") as source:
            assert len(list(source.frames())) == 4

    def test_follow(self, latens: Run) -> None:
        options = ("-m", "tiny.safetensors")
        latens("video", "encode", "clip.mkv", *options)
        assert latens("video", "decode", "clip.ltn", "-o", "a.y4m", *options, "--follow", "0.2").code == 0
        Path("cut.ltn").write_bytes(Path("clip.ltn").read_bytes()[:-20])
        done = latens("video", "decode", "cut.ltn", "-o", "b.y4m", *options, "--follow", "0.2")
        assert done.code == 2

    def test_eval_and_bench(self, latens: Run) -> None:
        done = latens("video", "eval", "clip.mkv", "-m", "tiny.safetensors", "--gop", "3", "--json")
        (row,) = json.loads(done.out)
        assert (row["codec"], row["frames"], row["gop"]) == ("tiny-video", 5, 3)
        latens("video", "encode", "clip.mkv", "-m", "tiny.safetensors", "--gop", "3")
        assert row["bytes"] == Path("clip.ltn").stat().st_size
        assert 3 < row["psnr_y"] < 60
        pytest.importorskip("imageio_ffmpeg")
        line = "video bench clip.mkv --codecs x264 --frames 3 -m tiny.safetensors --json"
        first, *rows = json.loads(latens(*line.split()).out)
        assert first["codec"] == "tiny-video"
        assert [r["codec"] for r in rows] == ["x264"] * 4
        sizes = [r["bytes"] for r in rows]
        assert sizes == sorted(sizes, reverse=True)
        assert rows[0]["psnr_y"] > rows[3]["psnr_y"] > 20

    def test_freeze(self, latens: Run) -> None:
        import torch

        torch.save(dict(network().state_dict()), "run.pth")
        assert latens("video", "freeze", "run.pth", "-o", "mine.safetensors", "--name", "mine-1").code == 0
        assert latens("video", "encode", "clip.mkv", "-m", "mine.safetensors", "--frames", "1").code == 0


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("encode clip.mkv -m latens-video-6 --flow-unit pixels", "leave flow_unit out"),
        ("encode clip.mkv -m ssf2020", "needs a quality"),
        ("encode clip.mkv -m tiny.safetensors -q 3", "one quality"),
        ("encode clip.mkv -q 3 --target-bitrate 300", "not both"),
        ("encode clip.mkv --target-bitrate 0", "above 0"),
        ("encode clip.mkv --target-bitrate inf", "above 0"),
        ("encode - -o x.ltn --target-bitrate 300", "a pipe can be read once"),
        ("encode clip.mkv -m tiny.safetensors --target-bitrate 300", "one quality"),
        ("encode missing.mp4 -m tiny.safetensors", "cannot be read"),
        ("encode tiny.safetensors -o x.ltn -m tiny.safetensors", "not a video"),
        ("encode clip.mkv -m clip.mkv", "clip.mkv"),
        ("encode clip.mkv -m nothing.safetensors", "cannot be read"),
        ("encode clip.mkv -o no/folder.ltn -m tiny.safetensors", "does not exist"),
        ("encode clip.mkv -o clip.mkv -m tiny.safetensors -f", "also an input"),
        ("encode clip.mkv -m tiny.safetensors --raw 4by4", "--raw"),
        ("encode clip.mkv -m tiny.safetensors --raw 4x4 --raw-format nv12", "--raw-format"),
        ("encode . -m tiny.safetensors -o x.ltn", "folder"),
        ("decode clip.mkv -o x.y4m -m tiny.safetensors", "not a .ltn file"),
        ("decode missing.ltn -o x.y4m -m tiny.safetensors", "cannot be read"),
        ("info clip.mkv", "not a .ltn file"),
        ("bench clip.mkv --codecs theora", "no such codec"),
        ("eval - -m tiny.safetensors", "more than once"),
        ("freeze clip.mkv -o x.safetensors --name x", "clip.mkv"),
    ],
)
def test_errors(fails: Callable[..., str], line: str, message: str) -> None:
    assert message in fails("video", *line.split())


def test_weights_of_another_model(latens: Run, here: Path) -> None:
    import torch

    latens("video", "encode", "clip.mkv", "-m", "tiny.safetensors")
    torch.save(dict(network().state_dict()), "run.pth")
    done = latens("video", "decode", "clip.ltn", "-o", "x.y4m", "-m", "run.pth")
    assert done.code == 2
    assert "--other-weights" in done.err
