"""A tiny video model and clips for it, the same in every run."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from video_recipe import fill_video

from latens.io import VideoFrame, VideoInfo
from latens.models.video import ScaleSpaceFlow
from latens.zoo import save


def network(flow_unit: str = "pixels") -> ScaleSpaceFlow:
    """Four channels, random weights that make motion, residuals and symbols of all sizes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = ScaleSpaceFlow(N=4, M=4, flow_unit=flow_unit)
    fill_video(model)
    model.eval().update()
    return model


def save_weights(path: Path, name: str = "tiny-video") -> Path:
    """Write the weights file of the tiny model."""
    save(network(), path, name, force=True)
    return path


def info(width: int = 72, height: int = 40, **options: object) -> VideoInfo:
    """Of the clips."""
    return VideoInfo(width, height, **{"time_base": Fraction(1, 50), "frame_rate": Fraction(25), **options})  # type: ignore[arg-type]


def clip(about: VideoInfo, count: int, irregular: bool = False) -> Iterator[VideoFrame]:
    """Waves and a block that move."""
    largest = (1 << about.bit_depth) - 1
    dtype = np.uint8 if about.bit_depth == 8 else np.uint16
    time = 0
    for t in range(count):
        planes = []
        for number, (height, width) in enumerate(about.plane_sizes):
            y, x = np.mgrid[0:height, 0:width] * (72 / width)
            wave = 0.5 + 0.25 * np.sin((x + 3 * t) / 9 + number) + 0.2 * np.cos((y - 2 * t) / 7)
            wave[height // 4 : height // 2, (5 + 2 * t) % width : (5 + 2 * t) % width + 9] = (
                0.1 * number + 0.3
            )
            planes.append((wave.clip(0, 1) * largest).astype(dtype))
        first, second, third = planes
        yield VideoFrame((first, second, third), time, 2)
        time += 2 + (t % 3 if irregular else 0)
