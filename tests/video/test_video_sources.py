"""What cameras, phones and programs make: turned, cut by edit lists, in RGB, in any layout, with things that get lost.

FFmpeg's program decodes the same files, and is believed.
"""

from __future__ import annotations

import random
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ffmpeg import as_rgb, ffmpeg, hashed, pattern, shown

from latens.errors import VideoError
from latens.io import VideoFrame, VideoInfo, VideoSink, VideoSource
from latens.io._video_samples import colour_of, samples_of
from latens.runtime.planes import planes_from_rgb, rgb_from_planes

av = pytest.importorskip("av")
pytest.importorskip("imageio_ffmpeg")

Read = tuple[VideoInfo, list[VideoFrame], VideoSource]


def read(path: Path) -> Read:
    with VideoSource(str(path)) as source:
        return source.info, list(source.frames()), source


def same_as_shown(path: Path, pixels: str) -> Read:
    """Read a file, and see that frames and times are those that FFmpeg shows."""
    info, frames, source = read(path)
    assert hashed(frames, info.time_base) == shown(path, pixels)
    return info, frames, source


def rgb(info: VideoInfo, frame: VideoFrame) -> Any:
    """As the codec sees it, 0 ... 255."""
    found = rgb_from_planes(frame.planes, info.chroma, info.bit_depth, info.colour)
    return np.rint(found / 257).astype(int)


@pytest.fixture(scope="module")
def h264(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("h264") / "clip.mp4"
    return pattern(path, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-g", "6", seconds=3)


class TestTurning:
    @pytest.mark.parametrize("angle", [0, 90, 180, 270])
    @pytest.mark.parametrize("flip", [(), ("-display_hflip",), ("-display_vflip",)], ids=["", "h", "v"])
    def test_a_files_matrix(self, h264: Path, tmp_path: Path, angle: int, flip: tuple[str, ...]) -> None:
        clip = tmp_path / "turned.mp4"
        ffmpeg("-display_rotation", str(angle), *flip, "-i", h264, "-t", "0.5", "-c", "copy", clip)
        info, _, source = same_as_shown(clip, "yuv420p")
        assert (info.width, info.height) == ((64, 96) if angle % 180 else (96, 64))
        assert source.not_kept == []

    @pytest.mark.parametrize("options", ["rotate=90", "rotate=180:flip=horizontal"])
    def test_a_streams_own_message(self, h264: Path, tmp_path: Path, options: str) -> None:
        # Only key frames carry it; it goes on for those after.
        clip = tmp_path / "turned.h264"
        bits = f"h264_mp4toannexb,h264_metadata=display_orientation=insert:{options}"
        ffmpeg("-i", h264, "-t", "1", "-c", "copy", "-bsf:v", bits, clip)
        info, frames, _ = read(clip)
        first = shown(clip, "yuv420p")[0]
        assert hashed(frames, info.time_base)[0] == first
        sizes = {frame.planes[0].shape for frame in frames}
        assert sizes == {(96, 64) if "90" in options else (64, 96)}

    @pytest.mark.parametrize("depth", ["yuv422p", "yuv422p10le"])
    def test_chroma_that_is_halved_one_way(self, tmp_path: Path, depth: str) -> None:
        flat = pattern(tmp_path / "flat.mov", "-c:v", "libx264", "-pix_fmt", depth, "-crf", "4", seconds=0.2)
        clip = tmp_path / "clip.mov"
        ffmpeg("-display_rotation", "90", "-i", flat, "-c", "copy", clip)
        info, frames, _ = read(clip)
        assert (info.width, info.height, info.chroma) == (64, 96, "4:4:4")
        upright, original, _ = read(flat)
        # Chroma is rounded once more.
        assert np.abs(rgb(info, frames[0]) - np.rot90(rgb(upright, original[0]))).max() <= 2

    def test_odd_sides(self, tmp_path: Path) -> None:
        flat = pattern(
            tmp_path / "flat.mkv", "-c:v", "ffv1", "-pix_fmt", "yuv420p", size="35x23", seconds=0.2
        )
        for angle in (90, 180):
            clip = tmp_path / "clip.mov"
            ffmpeg("-display_rotation", str(angle), "-i", flat, "-c", "copy", clip)
            info, frames, _ = read(clip)
            upright, original, _ = read(flat)
            turned = np.rot90(rgb(upright, original[0]), angle // 90)
            assert np.abs(rgb(info, frames[0]) - turned).max() <= 2

    def test_an_angle_that_cannot_be(self, h264: Path, tmp_path: Path) -> None:
        clip = tmp_path / "turned.mp4"
        ffmpeg("-display_rotation", "30", "-i", h264, "-t", "0.2", "-c", "copy", clip)
        _, frames, source = read(clip)
        assert frames[0].planes[0].shape == (64, 96)
        assert source.not_kept == ["turning by -30 degrees"]

    def test_pixels_that_are_not_square(self, tmp_path: Path) -> None:
        flat = pattern(tmp_path / "flat.mp4", "-vf", "setsar=4/3", "-c:v", "libx264", "-pix_fmt", "yuv420p")
        assert read(flat)[0].pixel_aspect == Fraction(4, 3)
        ffmpeg("-display_rotation", "90", "-i", flat, "-c", "copy", tmp_path / "clip.mp4")
        assert read(tmp_path / "clip.mp4")[0].pixel_aspect == Fraction(3, 4)

    def test_cropping_in_mp4(self, h264: Path, tmp_path: Path) -> None:
        data = h264.read_bytes()

        def cropped(width: int, left: int) -> bytes:
            aperture = struct.pack(">IIIIiIiI", width, 1, 64, 1, left, 1, 0, 1)
            return with_box(data, (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"), aperture)

        for width, left, lost in ((80, 0, True), (96, 4, True), (96, 0, False)):
            (tmp_path / "clip.mp4").write_bytes(cropped(width, left))
            _, frames, source = read(tmp_path / "clip.mp4")
            assert source.not_kept == (["cropping (frames are coded whole)"] if lost else [])
            assert (frames[0].planes[0].shape, len(frames)) == ((64, 96), 30)

    def test_cropping_in_matroska(self, h264: Path, tmp_path: Path) -> None:
        clip = tmp_path / "clip.mkv"
        ffmpeg("-i", h264, "-c", "copy", clip)
        data = clip.read_bytes()
        # FFmpeg pads a track behind what is said of the video: first with padding, then with eight rows less.
        height = b"\xb0\x81\x60\xba\x81\x40"
        at = data.index(height)
        assert data.count(height) == 1
        video, room = at - 2, data.index(b"\xec\x01", at)
        assert data[video] == 0xE0
        padding = 9 + data[room + 8]
        size = data[video + 1] & 0x7F
        inside = data[video + 2 : video + 2 + size]
        between = data[video + 2 + size : room]
        for rows, lost in ((8, True), (0, False)):
            crop = b"\x54\xaa\x81" + bytes([rows])
            new = b"\xe0" + bytes([0x80 | size + 4]) + inside + crop + between
            rest = room + padding - video - len(new)
            new += b"\xec" + bytes([0x80 | rest - 2]) + bytes(rest - 2)
            clip.write_bytes(data[:video] + new + data[room + padding :])
            _, frames, source = read(clip)
            assert source.not_kept == (["cropping (frames are coded whole)"] if lost else [])
            assert (frames[0].planes[0].shape, len(frames)) == ((64, 96), 30)


def with_box(data: bytes, path: tuple[bytes, ...], content: bytes) -> bytes:
    """An MP4 file whose last box is `moov`, with an aperture in what describes the samples."""
    found = bytearray(data)
    at, end = 0, len(found)
    where = []
    for kind in path:
        while found[at + 4 : at + 8] != kind:
            at += int.from_bytes(found[at : at + 4], "big")
            assert at < end
        where.append(at)
        at += {b"stsd": 16, b"avc1": 86}.get(kind, 8)
    box = struct.pack(">I4s", 8 + len(content), b"clap") + content
    for place in where:
        size = int.from_bytes(found[place : place + 4], "big") + len(box)
        found[place : place + 4] = size.to_bytes(4, "big")
    found[at:at] = box
    return bytes(found)


class TestTime:
    @pytest.mark.parametrize("start", ["0.15", "1.15", "2.5"])
    @pytest.mark.parametrize("kind", ["mp4", "mov"])
    def test_edit_lists(self, h264: Path, tmp_path: Path, start: str, kind: str) -> None:
        clip = tmp_path / f"cut.{kind}"
        ffmpeg("-ss", start, "-i", h264, "-t", "0.95", "-c", "copy", clip)
        info, frames, _ = same_as_shown(clip, "yuv420p")
        assert len(frames) < 12
        assert info.frames == len(frames)

    @pytest.mark.parametrize("kind", ["mp4", "mkv", "mov", "avi", "nut", "ts"])
    def test_varying_times(self, tmp_path: Path, kind: str) -> None:
        clip = pattern(
            tmp_path / f"clip.{kind}",
            *("-vf", "select='not(mod(n,3))+eq(n,1)'", "-fps_mode", "vfr", "-c:v", "mpeg4"),
            *("-pix_fmt", "yuv420p"),
        )
        _, frames, _ = same_as_shown(clip, "yuv420p")
        assert len(frames) == 5

    def test_an_index_that_counts_ticks(self, h264: Path, tmp_path: Path) -> None:
        # The header of this AVI speaks of 1,800 frames.
        ffmpeg("-i", h264, "-c", "copy", tmp_path / "clip.avi")
        assert len(read(tmp_path / "clip.avi")[1]) == 30


GRADIENT = "gradients=c0=0xF01020:c1=0x1060F0:x0=0:y0=0:x1=63:y1=47"
TAGGED = (
    *(
        "yuv420p",
        "yuvj420p",
        "yuvj444p",
        "nv12",
        "yuyv422",
        "uyvy422",
        "yuv410p",
        "yuv411p",
        "yuv440p",
        "yuv420p9le",
    ),
    *(
        "yuv420p10be",
        "yuv422p12le",
        "yuv444p14le",
        "yuv444p16le",
        "yuva420p",
        "yuva444p10le",
        "gray",
        "gray10le",
    ),
    *(
        "gray16le",
        "ya8",
        "rgb24",
        "bgra",
        "argb",
        "0rgb",
        "rgb565le",
        "rgb48be",
        "rgba64le",
        "gbrap",
        "gbrp9le",
    ),
    *("gbrp14be", "pal8"),
)
UNTAGGED = ("p010le", "p210le", "p016le", "nv16", "nv24", "x2rgb10le", "y210le", "vuya", "xv36le", "ayuv64le")


def fill(path: Path, pixels: str, *arguments: str, size: str = "64x48") -> Path:
    """One frame of a colour (199, 48, 20), without loss."""
    source = f"color=c=0xC73014:s={size}:r=5:d=0.2,format=rgb24"
    ffmpeg("-f", "lavfi", "-i", source, "-pix_fmt", pixels, *arguments, path)
    return path


class TestColour:
    @pytest.mark.parametrize("size", ["64x64", "64x720"])
    @pytest.mark.parametrize("tags", ["", "pc", "tv"])
    @pytest.mark.parametrize("pixels", ["gbrp", "bgr0", "gbrp10le", "gbrp12le", "gbrp16le"])
    def test_rgb(self, tmp_path: Path, pixels: str, tags: str, size: str) -> None:
        options = ("-color_range", tags, "-colorspace", "bt709") if tags else ()
        clip = fill(tmp_path / "clip.mkv", pixels, "-c:v", "ffv1", *options, size=size)
        info, frames, source = read(clip)
        assert info.colour[2:] == (0, 1)
        assert info.bit_depth == {"gbrp10le": 10, "gbrp12le": 12, "gbrp16le": 12}.get(pixels, 8)
        # FFmpeg made 10 bits of 8 by appending zeros.
        assert np.abs(rgb(info, frames[0])[0, 0] - (199, 48, 20)).max() <= (info.bit_depth > 8)
        assert source.not_kept == (["samples of 16 bits (12 are)"] if "16" in pixels else [])
        if info.bit_depth == 8:
            assert hashed(frames, info.time_base) == shown(clip, "gbrp")

    @pytest.mark.parametrize("size", [(64, 48), (64, 720)], ids=str)
    @pytest.mark.parametrize("kind", ["mkv", "y4m", "mp4", "mov"])
    def test_rgb_comes_out_again(self, tmp_path: Path, kind: str, size: tuple[int, int]) -> None:
        clip = fill(tmp_path / "clip.mkv", "gbrp", "-c:v", "ffv1", size="x".join(map(str, size)))
        info, frames, _ = read(clip)
        with VideoSink(str(tmp_path / f"out.{kind}"), info) as sink:
            sink.add(frames[0])
        again, planes, _ = read(tmp_path / f"out.{kind}")
        assert np.abs(rgb(again, planes[0])[4, 4] - (199, 48, 20)).max() <= 2
        if kind != "y4m":  # whose matrix players guess by size, and FFmpeg does not
            assert (
                np.abs(as_rgb(tmp_path / f"out.{kind}", size[1], 64)[4, 4].astype(int) - (199, 48, 20)).max()
                <= 2
            )

    @pytest.mark.parametrize("pixels", TAGGED)
    @pytest.mark.parametrize("tags", ["", "pc", "tv"])
    def test_any_layout(self, tmp_path: Path, pixels: str, tags: str) -> None:
        if pixels.startswith("yuvj") and tags == "tv":
            pytest.skip("means full range by its name")
        clip = tmp_path / "clip.nut"
        source = f"{GRADIENT}:s=64x48:r=5:d=0.2,format=rgb24"
        options = ("-color_range", tags) if tags else ()
        ffmpeg("-f", "lavfi", "-i", source, "-pix_fmt", pixels, "-c:v", "rawvideo", *options, clip)
        info, frames, _ = read(clip)
        # FFmpeg rounds once more, and has fewer steps in chroma that is enlarged.
        errors = np.abs(rgb(info, frames[0]) - as_rgb(clip, 48, 64).astype(int)).max(-1)
        assert np.median(errors) <= 1
        assert errors.max() <= 4

    @pytest.mark.parametrize("pixels", UNTAGGED)
    def test_layouts_that_files_seldom_have(self, pixels: str) -> None:
        y, x = np.mgrid[0:48, 0:64]
        picture = np.stack([4 * x, 5 * y, 255 - 4 * x], -1).astype(np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pixels)
        frame.color_range = 1
        samples = samples_of(frame)
        colour = colour_of(frame, samples)
        info = VideoInfo(64, 48, samples.chroma, samples.bit_depth, colour)
        found = rgb(info, VideoFrame(samples.planes(frame, bool(colour[3])), 0))
        errors = np.abs(found - picture).max(-1)
        assert np.median(errors) <= 2
        assert errors.max() <= 5

    def test_matrices_follow_primaries(self, tmp_path: Path) -> None:
        clip = tmp_path / "clip.mkv"
        source = "testsrc2=s=32x32:d=0.2:r=5,format=yuv420p10le,setparams=color_primaries=bt2020"
        ffmpeg("-f", "lavfi", "-i", source, "-c:v", "ffv1", clip)
        assert read(clip)[0].colour[0] == 9
        assert read(clip)[0].colour[2] == 9

    @pytest.mark.parametrize("space", ["ycgco", "bt2020c", "ictcp"])
    def test_matrices_that_nobody_can_convert(self, tmp_path: Path, space: str) -> None:
        clip = tmp_path / "clip.mkv"
        source = "testsrc2=s=32x32:d=0.2:r=5,format=yuv444p"
        ffmpeg("-f", "lavfi", "-i", source, "-vf", f"setparams=colorspace={space}", "-c:v", "ffv1", clip)
        with pytest.raises(VideoError, match=r"colours are coded as .*convert it first"):
            read(clip)

    def test_floating_point_is_refused(self, tmp_path: Path) -> None:
        clip = tmp_path / "clip.nut"
        ffmpeg(
            "-f",
            "lavfi",
            "-i",
            "testsrc2=s=32x32:d=0.2:r=5",
            "-pix_fmt",
            "gbrpf32le",
            "-c:v",
            "rawvideo",
            clip,
        )
        with pytest.raises(VideoError, match="not supported"):
            read(clip)

    @pytest.mark.parametrize("depth", [8, 10, 12])
    def test_the_identity_matrix(self, depth: int) -> None:
        """Planes G, B, R, and back, without any rounding."""
        rng = np.random.default_rng(3)
        planes = [
            rng.integers(0, 1 << depth, (5, 7)).astype(np.uint8 if depth == 8 else np.uint16)
            for _ in range(3)
        ]
        found = rgb_from_planes(planes, "4:4:4", depth, (1, 13, 0, 1))
        expected = np.stack([planes[2], planes[0], planes[1]], 2) / ((1 << depth) - 1)
        assert np.abs(found - 65_535 * expected).max() <= 0.51
        again = planes_from_rgb(found, "4:4:4", depth, (1, 13, 0, 1))
        assert all(np.array_equal(a, b) for a, b in zip(again, planes, strict=True))


class TestWhatIsNotKept:
    def test_transparency(self, tmp_path: Path) -> None:
        for name, options in (
            ("a.webm", ("-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p")),
            ("b.webm", ("-c:v", "libvpx", "-pix_fmt", "yuva420p", "-auto-alt-ref", "0")),
            ("c.mov", ("-c:v", "prores_ks", "-pix_fmt", "yuva444p10le")),
            ("d.mkv", ("-vf", "format=rgba,colorchannelmixer=aa=0.5", "-c:v", "ffv1")),
        ):
            assert read(pattern(tmp_path / name, *options, seconds=0.2))[2].not_kept == ["transparency"]
        assert read(pattern(tmp_path / "opaque.gif", seconds=0.2))[2].not_kept == []

    def test_other_streams(self, h264: Path, tmp_path: Path) -> None:
        (tmp_path / "words.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
        (tmp_path / "meta.txt").write_text(
            ";FFMETADATA1\ntitle=A \x1b[31mtitle\n[CHAPTER]\nTIMEBASE=1/1\nSTART=0\nEND=1\ntitle=one\n"
        )
        clip = tmp_path / "clip.mkv"
        ffmpeg(
            *("-i", h264, "-i", tmp_path / "words.srt", "-i", tmp_path / "meta.txt"),
            *("-f", "lavfi", "-i", "sine=d=1", "-map", "0", "-map", "0", "-map", "1", "-map", "3"),
            *("-map_metadata", "2", "-c:v", "copy", "-c:s", "srt", "-c:a", "flac", clip),
        )
        assert read(clip)[2].not_kept == [
            "sound",
            "subtitles",
            "other video tracks",
            "chapters",
            "tags (title)",
        ]

    def test_a_cover_is_not_the_video(self, h264: Path, tmp_path: Path) -> None:
        pattern(tmp_path / "cover.png", "-frames:v", "1", size="40x40")
        clip = tmp_path / "clip.mp4"
        ffmpeg(
            *("-i", tmp_path / "cover.png", "-i", h264, "-map", "0", "-map", "1", "-c", "copy"),
            *("-disposition:v:0", "attached_pic", clip),
        )
        info, _, source = read(clip)
        assert (info.width, source.not_kept) == (96, ["cover picture"])

    def test_fields(self, tmp_path: Path) -> None:
        clip = pattern(
            tmp_path / "clip.mpg", "-c:v", "mpeg2video", "-flags", "+ilme+ildct", "-pix_fmt", "yuv420p"
        )
        assert read(clip)[2].not_kept[0] == "interlacing (fields are coded as whole frames)"


KINDS = {
    "mp4": ("-c:v", "libx264", "-pix_fmt", "yuv420p"),
    "fast.mp4": ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-movflags", "faststart"),
    "frag.mp4": ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-movflags", "frag_keyframe+empty_moov", "-g", "4"),
    "mkv": ("-c:v", "ffv1", "-level", "3", "-slicecrc", "1", "-pix_fmt", "gbrp"),
    "webm": ("-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", "-deadline", "realtime"),
    "avi": ("-c:v", "mpeg4",),
    "10.mp4": ("-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params", "log-level=none:pools=1"),
    "y4m": ("-pix_fmt", "yuv420p"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
class TestDamage:
    def test_cut(self, tmp_path: Path, kind: str) -> None:
        whole = pattern(tmp_path / f"clip.{kind}", *KINDS[kind], size="64x48")
        frames = len(read(whole)[1])
        data = whole.read_bytes()
        rng = random.Random(4)
        for size in [*rng.sample(range(len(data)), 25), len(data) - 1]:
            whole.write_bytes(data[:size])
            try:
                found = len(read(whole)[1])
            except VideoError:
                continue
            # What is missing was an index at the end.
            assert found == frames

    def test_flipped(self, tmp_path: Path, kind: str) -> None:
        whole = pattern(tmp_path / f"clip.{kind}", *KINDS[kind], size="64x48")
        data = whole.read_bytes()
        rng = random.Random(5)
        for _ in range(25):
            damaged = bytearray(data)
            for _ in range(rng.choice((1, 8))):
                damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            whole.write_bytes(damaged)
            try:
                info, frames, _ = read(whole)
            except VideoError:
                continue
            assert all(
                plane.shape == size
                for frame in frames
                for plane, size in zip(frame.planes, info.plane_sizes, strict=True)
            )


def test_checksums_of_slices_are_checked(tmp_path: Path) -> None:
    clip = pattern(tmp_path / "clip.mkv", *KINDS["mkv"], size="64x48")
    data = bytearray(clip.read_bytes())
    data[len(data) // 2] ^= 1
    clip.write_bytes(data)
    with pytest.raises(VideoError):
        read(clip)
