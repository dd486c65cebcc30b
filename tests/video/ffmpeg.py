"""FFmpeg's program: makes the files that tests read, and says what it makes of them itself."""

from __future__ import annotations

import hashlib
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from latens.io import VideoFrame


def ffmpeg(*arguments: str | Path, errors: bool = False) -> bytes:
    """Run it; its standard output, or what it says on standard error. A test is skipped where it is not installed."""
    program = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    line = [
        program,
        "-y",
        "-hide_banner",
        "-nostdin",
        "-loglevel",
        "error",
        "-bitexact",
        *map(str, arguments),
    ]
    done = subprocess.run(line, check=True, capture_output=True)
    return done.stderr if errors else done.stdout


def pattern(
    path: Path, *arguments: str | Path, size: str = "96x64", rate: int = 10, seconds: float = 1.0
) -> Path:
    """A video of moving shapes."""
    ffmpeg("-f", "lavfi", "-i", f"testsrc2=s={size}:r={rate}:d={seconds}", *arguments, path)
    return path


def shown(path: Path, pixels: str | None = None) -> list[tuple[Fraction, str]]:
    """When each frame is shown, from the first one on, and the MD5 of its planes."""
    layout = () if pixels is None else ("-pix_fmt", pixels)
    report = ffmpeg(
        "-i",
        path,
        "-map",
        "0:v:0",
        "-fps_mode",
        "passthrough",
        *layout,
        "-f",
        "framehash",
        "-hash",
        "md5",
        "-",
    )
    base, found = Fraction(1), []
    for line in report.decode().splitlines():
        if line.startswith("#tb 0:"):
            base = Fraction(line.split(":")[1].strip())
        elif not line.startswith("#"):
            _, _, time, _, _, digest = (part.strip() for part in line.split(","))
            found.append((int(time) * base, digest))
    return [(time - found[0][0], digest) for time, digest in found]


def hashed(frames: list[VideoFrame], base: Fraction) -> list[tuple[Fraction, str]]:
    """The same of frames that were read."""
    return [
        (frame.timestamp * base, hashlib.md5(b"".join(p.tobytes() for p in frame.planes)).hexdigest())
        for frame in frames
    ]


def as_rgb(path: Path, height: int, width: int) -> npt.NDArray[np.uint8]:
    """The first frame as FFmpeg shows it, ``(height, width, 3)``."""
    flags = "accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"
    data = ffmpeg(
        "-i", path, "-frames:v", "1", "-sws_flags", flags, "-pix_fmt", "rgb24", "-f", "rawvideo", "-"
    )
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)
