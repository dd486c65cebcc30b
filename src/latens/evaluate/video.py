"""Video codecs on the same frames, by the same measures: files that are really written, read and decoded."""

from __future__ import annotations

import io
import json
import math
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
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


def _x264(preset: str, q: int, gop: int) -> list[str]:
    closed = [
        "-g",
        str(gop),
        "-keyint_min",
        str(gop),
        "-sc_threshold",
        "0",
        "-bsf:v",
        "filter_units=remove_types=6",
    ]
    return ["-c:v", "libx264", "-preset", preset, "-crf", str(q), *closed]


def _x265(preset: str, q: int, gop: int) -> list[str]:
    params = f"keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0:info=0:log-level=none"
    return ["-c:v", "libx265", "-preset", preset, "-crf", str(q), "-x265-params", params]


# Encoder, its arguments for a quality and a group of pictures, and the format of the bare stream. None spends bytes on
# telling its options: x265 is asked not to, of x264 the message is taken out.
_FFMPEG: dict[str, tuple[Callable[[int, int], list[str]], str, tuple[int, ...]]] = {
    **{
        name: (partial(_x264, preset), "h264", (22, 27, 32, 37))
        for name, preset in (("x264", "medium"), ("x264-slow", "slow"))
    },
    **{
        name: (partial(_x265, preset), "hevc", (22, 27, 32, 37))
        for name, preset in (("x265", "medium"), ("x265-slow", "slow"))
    },
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
        vmaf, xpsnr: by FFmpeg's filters, XPSNR of luma; None where there is no FFmpeg that has them.
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
    vmaf: float | None = None
    xpsnr: float | None = None

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
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as file:
        first, second = (str(Path(folder) / name) for name in ("original.y4m", "decoded.y4m"))
        with VideoSource(path, raw) as source:
            info = source.info
            start = time.perf_counter()
            wanted = islice(source.frames(), frames)
            for _ in codec.encode(info, wanted, file, structure=structure, quality=setting):
                progress()
            encoding = time.perf_counter() - start
        size = file.tell()
        file.seek(0)
        quality = _Quality(info)
        decoding = 0.0
        with (
            VideoSource(path, raw) as source,
            VideoSink(first, info) as given,
            VideoSink(second, info) as sink,
        ):
            decoded = codec.decode(ltn.VideoReader(file))
            for original in islice(source.frames(), frames):
                start = time.perf_counter()
                found = next(decoded)
                decoding += time.perf_counter() - start
                quality.add(original, found.frame)
                given.add(original)
                sink.add(found.frame)
                progress()
        result = quality.result(info, codec.model.id, setting, size, (encoding, decoding))
        return _seen(result, first, second)


def _seen(result: VideoResult, original: str, decoded: str) -> VideoResult:
    """With VMAF and XPSNR of two files of frames, as far as there is an FFmpeg that measures them."""
    try:
        import imageio_ffmpeg
    except ImportError:
        return result
    executable = imageio_ffmpeg.get_ffmpeg_exe()

    def measured(filters: str, first: str, second: str) -> str:
        # By number: timestamps of streams without a container are not always the same.
        graph = f"[0:v]setpts=N[a];[1:v]setpts=N[b];[a][b]{filters}"
        done = subprocess.run(
            [
                executable,
                "-hide_banner",
                "-nostdin",
                "-i",
                first,
                "-i",
                second,
                "-lavfi",
                graph,
                "-f",
                "null",
                "-",
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        return "" if done.returncode else done.stderr.decode(errors="replace")

    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "vmaf.json"
        escaped = str(log).replace("\\", "/").replace(":", "\\\\:")
        measured(f"libvmaf=log_fmt=json:log_path={escaped}", decoded, original)
        vmaf = json.loads(log.read_text())["pooled_metrics"]["vmaf"]["mean"] if log.exists() else None
    # Errors count by how busy the first one is: that has to be the original.
    xpsnr = re.search(r"XPSNR +y: *([0-9.]+)", measured("xpsnr", original, decoded))
    return replace(result, vmaf=vmaf, xpsnr=float(xpsnr[1]) if xpsnr else None)


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
                bare = Path(folder) / "decoded.y4m"
                pixels = f"yuv{info.chroma.replace(':', '')}p" + (
                    "" if info.bit_depth == 8 else f"{info.bit_depth}le"
                )
                options = ["-pix_fmt", pixels, "-fps_mode", "passthrough", "-strict", "-1"]
                _run([executable, "-y", "-i", str(coded), *options, str(bare)], name)
                end = time.perf_counter()
                measures = _Quality(info)
                with VideoSource(clip) as original, VideoSource(str(bare)) as found:
                    for a, b in zip(original.frames(), found.frames(), strict=True):
                        measures.add(a, b)
                size = coded.stat().st_size
                result = measures.result(info, name, quality, size, (middle - start, end - middle))
                yield _seen(result, clip, str(bare))


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
