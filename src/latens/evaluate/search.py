"""The setting of any codec that comes closest to a rate or a quality."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from latens.errors import TargetError
from latens.evaluate.codecs import Codec, Pixels
from latens.evaluate.quality import MEASURES, measure

__all__ = ["TARGETS", "Found", "find", "find_closest"]

TARGETS = ("bpp", "bytes", "ssimulacra2", "ms-ssim", "butteraugli", "psnr", "psnr_y")
"""What can be aimed at."""


@dataclass(frozen=True)
class Found:
    """Attributes:
    setting: the closest.
    value: what it gives, in the unit of the target.
    data: the file.
    """

    setting: float
    value: float
    data: bytes


def find_closest(codec: Codec, pixels: Pixels, metric: str, target: float) -> Found:
    """The setting of a codec that comes closest to a target on one image.

    Args:
        codec: any.
        pixels: uint8 ``(height, width, 3)``.
        metric: of :data:`TARGETS`: bits per pixel, bytes, SSIMULACRA2, MS-SSIM, Butteraugli (3-norm), PSNR (RGB or
            luma) in dB.
        target: in that unit.

    Raises:
        TargetError: no such metric, or a target that is not a positive number.
        CodecError: the codec fails.
    """
    if metric not in TARGETS:
        raise TargetError(f"--metric {metric}: expected one of {', '.join(TARGETS)}")
    if not (math.isfinite(target) and target > 0):
        raise TargetError(f"expected a positive target, got {target:g}")
    size = pixels.shape[0], pixels.shape[1]
    key = (
        None if metric in ("bpp", "bytes") else {"psnr": "psnr_rgb", "ms-ssim": "ms_ssim"}.get(metric, metric)
    )
    sign = 1.0 if key is None or MEASURES[key].rising else -1.0

    def value(data: bytes, setting: float) -> float:
        if key is None:
            return len(data) * (1.0 if metric == "bytes" else 8.0 / (size[0] * size[1]))
        absent: dict[str, str] = {}
        found = measure(pixels, codec.decode(data, size, setting), (key,), absent)
        if key not in found:
            raise TargetError(f"{metric} cannot be measured of this image: {absent[key]}")
        got = found[key]
        return math.inf if got is None else sign * got

    best = find(codec, value, pixels, sign * target)
    return replace(best, value=sign * best.value)


def find(codec: Codec, value: Callable[[bytes, float], float], pixels: Pixels, target: float) -> Found:
    """Bisection over the steps of a codec's dial, for a value that rises with the size of the files.

    Args:
        codec: any.
        value: of a file and the setting that it was made with.
        pixels: uint8 ``(height, width, 3)``.
        target: for the value.
    """
    dial = codec.dial
    steps = round((dial.high - dial.low) / dial.step)
    best: Found | None = None
    low, high = 0, steps
    while low <= high:
        middle = (low + high) // 2
        place = middle if dial.rising else steps - middle
        setting = round(dial.low + place * dial.step, 6)
        data = codec.encode(pixels, setting)
        got = Found(setting, value(data, setting), data)
        if best is None or abs(got.value - target) < abs(best.value - target):
            best = got
        low, high = (middle + 1, high) if got.value < target else (low, middle - 1)
    assert best is not None
    return best
