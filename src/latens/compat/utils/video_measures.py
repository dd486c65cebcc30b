"""Frames of raw video, and measures of decoded ones, as CompressAI's video tools define them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latens.datasets import RawVideoSequence, VideoFormat
from latens.errors import VideoError
from latens.metrics import ms_ssim
from latens.transforms.functional import Planes, ycbcr2rgb, yuv_420_to_444

__all__ = ["open_sequence", "planes_of", "psnr", "squared_errors", "structural_similarity", "to_rgb"]

_LEAST_SIDE = 161


def open_sequence(path: Path) -> RawVideoSequence:
    """The frames of a file whose name says what they are.

    Raises:
        VideoError: not 4:2:0, of unknown frame rate, or without frames.
        DatasetError: its name does not say what it holds, or it does not hold that.
    """
    sequence = RawVideoSequence.from_file(path)
    if sequence.format != VideoFormat.YUV420:
        raise VideoError(f"{path}: expected 4:2:0, not {sequence.format}")
    if not sequence.framerate or not len(sequence):
        raise VideoError(f"{path}: its name must say the frame rate, and it must hold frames")
    return sequence


def planes_of(frame: Any, device: torch.device | str = "cpu") -> Planes:
    """The planes of a frame as they are, ``(1, 1, height, width)`` each, float32."""
    y, u, v = (
        torch.from_numpy(np.asarray(plane, np.float32))[None, None].to(device) for plane in tuple(frame)
    )
    return y, u, v


def to_rgb(planes: Planes, peak: float) -> Tensor:
    """RGB from 0 to 1, ``(1, 3, height, width)``, of planes from 0 to ``peak``; not clamped."""
    y, u, v = (plane / peak for plane in planes)
    whole = yuv_420_to_444((y, u, v), mode="bicubic")
    assert isinstance(whole, Tensor)
    return ycbcr2rgb(whole)


def squared_errors(a: Planes, b: Planes) -> list[float]:
    """Mean squared error of each plane."""
    return [float((x - y).double().square().mean()) for x, y in zip(a, b, strict=True)]


def structural_similarity(a: Tensor, b: Tensor, peak: float) -> dict[str, float]:
    """MS-SSIM of RGB from 0 to ``peak``; nothing for frames smaller than 161 pixels."""
    if min(a.shape[2:]) < _LEAST_SIDE:
        return {}
    return {"ms-ssim-rgb": float(ms_ssim(a, b, peak))}


def psnr(error: float, peak: float) -> float:
    """dB; infinite for no error."""
    return 20 * float(np.log10(peak)) - 10 * float(np.log10(error)) if error > 0 else float("inf")
