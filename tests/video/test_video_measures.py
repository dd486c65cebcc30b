"""Measures of other programs: which picture is the original, and which the decoded one."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from latens.evaluate.video import VideoResult, _seen
from latens.io import VideoFrame, VideoInfo, VideoSink

pytest.importorskip("imageio_ffmpeg")


def test_xpsnr_weighs_errors_by_the_original(tmp_path: Path) -> None:
    """Noise is seen on something flat; flatness in place of noise is not, the error being the same."""
    about = VideoInfo(128, 96, frame_rate=Fraction(25))
    noise = np.random.default_rng(0).normal(120, 12, (96, 128)).clip(0, 255).astype(np.uint8)
    grey = np.full((48, 64), 128, np.uint8)
    for name, luma in (("flat", np.full_like(noise, 120)), ("noisy", noise)):
        with VideoSink(str(tmp_path / f"{name}.y4m"), about) as sink:
            for t in range(2):
                sink.add(VideoFrame((luma, grey, grey), t))
    empty = VideoResult("none", None, 2, 1, 1.0, 1.0, 1.0, 1.0, None, 1.0, 1.0)
    flat, noisy = (str(tmp_path / f"{name}.y4m") for name in ("flat", "noisy"))
    seen, hidden = (_seen(empty, *pair).xpsnr for pair in ((flat, noisy), (noisy, flat)))
    if seen is None or hidden is None:
        pytest.skip("this FFmpeg has no XPSNR")
    assert seen < hidden - 5
