"""Video codecs on the same frames, by the same measures: files that are really written, read and decoded."""

from __future__ import annotations

import io
import math
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latens import format as ltn
from latens.codec.structure import Structure
from latens.codec.video import VideoCodec
from latens.errors import UnavailableError, VideoError
from latens.io import RawVideo, VideoFrame, VideoInfo, VideoSink, VideoSource, printable
from latens.metrics import ms_ssim

__all__ = ["CODECS", "VideoResult", "evaluate_ffmpeg", "evaluate_model", "require_codecs"]

_SMALLEST_FOR_MS_SSIM = 161

# Encoder, its arguments for a quality and a group of pictures, and the format of the bare stream.
_FFMPEG: dict[str, tuple[Callable[[int, int], list[str]], str, tuple[int, ...]]] = {
    "x264": (
        lambda q, gop: ["-c:v", "libx264", "-preset", "medium", "-crf", str(q), *_closed(gop)],
        "h264",
        (22, 27, 32, 37),
    ),
    "x265": (
        lambda q, gop: [
            *["-c:v", "libx265", "-preset", "medium", "-crf", str(q)],
            *["-x265-params", f"keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0:log-level=none"],
        ],
        "hevc",
        (22, 27, 32, 37),
    ),
    "svt-av1": (
        lambda q, gop: ["-c:v", "libsvtav1", "-preset", "6", "-crf", str(q), "-g", str(gop)],
        "ivf",
        (28, 36, 44, 52),
    ),
    "vvenc": (
        lambda q, gop: ["-c:v", "libvvenc", "-preset", "faster", "-qp", str(q), "-g", str(gop)],
        "vvc",
        (22, 27, 32, 37),
    ),
}
CODECS = tuple(_FFMPEG)
"""Codecs to compare with; they come with the package imageio-ffmpeg."""


def _closed(gop: int) -> list[str]:
    return ["-g", str(gop), "-keyint_min", str(gop), "-sc_threshold", "0"]


@dataclass(frozen=True)
class VideoResult:
    """One codec at one quality.

    Attributes:
        codec: its name.
        quality: the setting, as the codec counts.
        frames: coded.
        bytes: of the whole file.
        bits_per_pixel: of the file.
        kbit_per_second: of the file.
        psnr_y: dB, mean over frames.
        psnr_yuv: the same with luma six times as heavy as each plane of chroma.
        ms_ssim: of luma, mean over frames; None for frames that are too small.
        encode_fps: frames per second of encoding; of other codecs, of the whole process.
        decode_fps: the same of decoding.
    """

    codec: str
    quality: float | None
    frames: int
    bytes: int
    bits_per_pixel: float
    kbit_per_second: float
    psnr_y: float
    psnr_yuv: float
    ms_ssim: float | None
    encode_fps: float
    decode_fps: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class _Quality:
    """Means over frames."""

    def __init__(self, info: VideoInfo) -> None:
        self._peak = float((1 << info.bit_depth) - 1)
        self._structural = min(info.width, info.height) >= _SMALLEST_FOR_MS_SSIM
        self._sums = [0.0, 0.0, 0.0]
        self.frames = 0

    def add(self, a: VideoFrame, b: VideoFrame) -> None:
        found = []
        for plane, other in zip(a.planes, b.planes, strict=True):
            if plane.shape != other.shape:
                raise VideoError(f"decoded planes are {other.shape}, expected {plane.shape}")
            error = float(np.mean(np.square(plane.astype(np.float32) - other), dtype=np.float64))
            found.append(10 * math.log10(self._peak**2 / max(error, 1e-10)))
        self._sums[0] += found[0]
        self._sums[1] += (6 * found[0] + found[1] + found[2]) / 8
        if self._structural:
            x, y = (torch.from_numpy(f.planes[0].astype(np.float32))[None, None] for f in (a, b))
            self._sums[2] += float(ms_ssim(x, y, self._peak))
        self.frames += 1

    def result(
        self, info: VideoInfo, codec: str, quality: float | None, size: int, times: tuple[float, float]
    ) -> VideoResult:
        n = self.frames
        if not n:
            raise VideoError("holds no frame")
        return VideoResult(
            codec=codec,
            quality=quality,
            frames=n,
            bytes=size,
            bits_per_pixel=8 * size / (n * info.width * info.height),
            kbit_per_second=8e-3 * size * float(info.frame_rate) / n,
            psnr_y=self._sums[0] / n,
            psnr_yuv=self._sums[1] / n,
            ms_ssim=self._sums[2] / n if self._structural else None,
            encode_fps=n / max(times[0], 1e-9),
            decode_fps=n / max(times[1], 1e-9),
        )


def evaluate_model(
    codec: VideoCodec,
    path: str,
    *,
    structure: Structure,
    frames: int | None = None,
    raw: RawVideo | None = None,
    setting: float | None = None,
    progress: Callable[[], None] = lambda: None,
) -> VideoResult:
    """Code a clip into a ``.ltn`` file, decode it, and compare. Frames are not held.

    Args:
        codec: with its model.
        path: of the clip.
        structure: which frames are coded alone, and which between others.
        frames: only so many, from the start.
        raw: layout of a file of bare planes.
        setting: quality, 0 to 100, of weights that have all.
        progress: called after each frame, twice.

    Raises:
        VideoError: the clip cannot be read.
        ModelError: the model cannot be used.
    """
    with tempfile.TemporaryFile() as file:
        with VideoSource(path, raw) as source:
            info = source.info
            start = time.perf_counter()
            given = islice(source.frames(), frames)
            for _ in codec.encode(info, given, file, structure=structure, quality=setting):
                progress()
            encoding = time.perf_counter() - start
        size = file.tell()
        file.seek(0)
        quality = _Quality(info)
        decoding = 0.0
        with VideoSource(path, raw) as source:
            decoded = codec.decode(ltn.VideoReader(file))
            for original in islice(source.frames(), frames):
                start = time.perf_counter()
                found = next(decoded)
                decoding += time.perf_counter() - start
                quality.add(original, found.frame)
                progress()
    return quality.result(info, codec.model.id, setting, size, (encoding, decoding))


def require_codecs(names: Sequence[str]) -> None:
    """Refuse names of codecs that are not known.

    Raises:
        UnavailableError: naming the first one.
    """
    for name in names:
        if name not in _FFMPEG:
            raise UnavailableError(f"{printable(name)[:80]}: no such codec; there are {', '.join(CODECS)}")


def evaluate_ffmpeg(
    names: Sequence[str], path: str, *, gop: int, frames: int | None = None, raw: RawVideo | None = None
) -> Iterator[VideoResult]:
    """The same for codecs of FFmpeg, at four qualities each, with key frames as often.

    Raises:
        VideoError: the clip cannot be read, or a codec fails.
        UnavailableError: a codec that is not known, or imageio-ffmpeg is not installed.
    """
    require_codecs(names)
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise UnavailableError("other codecs need imageio-ffmpeg: pip install 'latens[video]'") from error
    executable = imageio_ffmpeg.get_ffmpeg_exe()
    with tempfile.TemporaryDirectory() as folder:
        clip = str(Path(folder) / "clip.y4m")
        with VideoSource(path, raw) as source:
            info = source.info
            with VideoSink(clip, info) as sink:
                for frame in islice(source.frames(), frames):
                    sink.add(frame)
                info = sink.info  # y4m has no place for RGB
        for name in names:
            arguments, kind, qualities = _FFMPEG[name]
            for quality in qualities:
                coded = Path(folder) / f"coded.{kind}"
                start = time.perf_counter()
                _run([executable, "-y", "-i", clip, *arguments(quality, gop), "-f", kind, str(coded)], name)
                middle = time.perf_counter()
                bare = Path(folder) / "decoded.yuv"
                pixels = f"yuv{info.chroma.replace(':', '')}p" + (
                    "" if info.bit_depth == 8 else f"{info.bit_depth}le"
                )
                _run(
                    [
                        executable,
                        "-y",
                        "-i",
                        str(coded),
                        "-pix_fmt",
                        pixels,
                        "-fps_mode",
                        "passthrough",
                        "-f",
                        "rawvideo",
                        str(bare),
                    ],
                    name,
                )
                end = time.perf_counter()
                layout = RawVideo(info.width, info.height, info.frame_rate, info.chroma, info.bit_depth)
                result = _Quality(info)
                with VideoSource(clip) as original, VideoSource(str(bare), layout) as found:
                    for a, b in zip(original.frames(), found.frames(), strict=True):
                        result.add(a, b)
                size = coded.stat().st_size
                yield result.result(info, name, quality, size, (middle - start, end - middle))


def _run(command: list[str], name: str) -> None:
    done = subprocess.run(
        [*command[:1], "-hide_banner", "-loglevel", "error", "-nostdin", *command[1:]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        reason = io.TextIOWrapper(io.BytesIO(done.stderr), errors="replace").read().strip().splitlines()
        raise VideoError(f"{name} failed: {printable(reason[-1] if reason else str(done.returncode))[:300]}")
