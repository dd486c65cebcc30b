"""SSIMULACRA2: what the eye sees of a difference between two pictures, as one number. NumPy only.

Sneyers, "SSIMULACRA 2", Cloudinary, 2022. Structural similarity and differences of edges, at six scales, in the XYB
colour space of JPEG XL, weighed as people judged. 90 is hard to tell from the original side by side, 70 is high
quality, 50 medium, 30 low; 100 is the same picture, and there is no lower end.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from latens.errors import ShapeError

__all__ = ["LEAST_SIDE", "ssimulacra2"]

LEAST_SIDE = 8
"""Sides of pictures in pixels, at least."""

SCALES = 6
RADIUS = 5
SIGMA = 1.5
C2 = 0.0009
ABSORBANCE = np.array(
    [
        [0.30, 1.0 - 0.078 - 0.30, 0.078],
        [0.23, 1.0 - 0.078 - 0.23, 0.078],
        [0.24342268924547819, 0.20476744424496821, 1.0 - 0.24342268924547819 - 0.20476744424496821],
    ]
)
"""Linear RGB to what the cones take up."""

BIAS = 0.0037930732552754493

# Per channel (X, Y, B): for each scale the mean of three maps (structure, edges that are new, edges that are lost),
# then their fourth-power means.
# fmt: off
WEIGHTS = np.array([
    [[[0.0, 0.0007376606707406586, 0.0], [0.0, 0.0007793481682867309, 0.0]],
     [[0.0, 0.0004371155730107379, 0.0], [1.1041726426657346, 0.00066284834129271, 0.00015231632783718752]],
     [[0.0, 0.0016406437456599754, 0.0], [1.8422455520539298, 11.441172603757666, 0.0]],
     [[0.0007989109436015163, 0.000176816438078653, 0.0], [1.8787594979546387, 10.94906990605142, 0.0]],
     [[0.0007289346991508072, 0.9677937080626833, 0.0],
      [0.00014003424285435884, 0.9981766977854967, 0.00031949755934435053]],
     [[0.0004550992113792063, 0.0, 0.0], [0.0013648766163243398, 0.0, 0.0]]],
    [[[0.0, 0.0, 0.0], [7.466890328078848, 0.0, 17.445833984131262]],
     [[0.0006235601634041466, 0.0, 0.0], [6.683678146179332, 0.00037724407979611296, 1.027889937768264]],
     [[225.20515300849274, 0.0, 0.0], [19.213238186143016, 0.0011401524586618361, 0.001237755635509985]],
     [[176.39317598450694, 0.0, 0.0], [24.43300999870476, 0.28520802612117757, 0.0004485436923833408]],
     [[0.0, 0.0, 0.0], [34.77906344483772, 44.835625328877896, 0.0]],
     [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]],
    [[[0.0, 0.0008680556573291698, 0.0], [0.0, 0.0, 0.0]],
     [[0.0, 0.0005313191874358747, 0.0], [0.00016533814161379112, 0.0, 0.0]],
     [[0.0, 0.0, 0.0], [0.0004179171803251336, 0.0017290828234722833, 0.0]],
     [[0.0020827005846636437, 0.0, 0.0], [8.826982764996862, 23.19243343998926, 0.0]],
     [[95.1080498811086, 0.9863978034400682, 0.9834382792465353],
      [0.0012286405048278493, 171.2667255897307, 0.9807858872435379]],
     [[0.0, 0.0, 0.0], [0.0005130064588990679, 0.0, 0.00010854057858411537]]],
])
# fmt: on

_STRIP = 64
_GREYS = np.arange(256) / 255.0
Array = npt.NDArray[np.float64]
Planes = npt.NDArray[np.float32]


def ssimulacra2(original: npt.NDArray[Any], distorted: npt.NDArray[Any]) -> float:
    """The SSIMULACRA2 score of a picture: 100 for the same one, below 0 for a ruin.

    Args:
        original: ``(height, width, 3)`` sRGB, uint8 or floating-point in 0..1, at least 8 pixels on each side.
        distorted: likewise. Both orders give nearly, but not quite, the same.

    Raises:
        ShapeError: shapes that differ, pictures that are not RGB (alpha and grey come as another number of channels),
            or smaller than 8 pixels.
    """
    a, b = np.asarray(original), np.asarray(distorted)
    if a.ndim != 3 or a.shape != b.shape or a.shape[2] != 3:
        raise ShapeError(
            "ssimulacra2: expected two RGB pictures of one size (height, width, 3), without alpha, but got "
            f"{a.shape} and {b.shape}"
        )
    if min(a.shape[:2]) < LEAST_SIDE:
        raise ShapeError(
            f"ssimulacra2: pictures must have at least {LEAST_SIDE} pixels on each side, but have "
            f"{a.shape[1]}x{a.shape[0]}"
        )
    x, y = _linear(a), _linear(b)
    found: list[Array] = []
    while len(found) < SCALES and min(x.shape[1:]) >= LEAST_SIDE:
        found.append(_differences(x, y))
        x, y = _halved(x), _halved(y)
    # Weights follow one another without gaps: of a picture with fewer scales, a channel's begin where those of the one
    # before end. It is how the measure is defined.
    differences = np.stack(found, axis=1)
    total = float(differences.ravel() @ WEIGHTS.ravel()[: differences.size]) * 0.9562382616834844
    total = 2.326765642916932 * total - 0.020884521182843837 * total**2 + 6.248496625763138e-05 * total**3
    return 100.0 - 10.0 * total**0.6276336467831387 if total > 0.0 else 100.0


def _linear(pixels: npt.NDArray[Any]) -> Planes:
    """Linear light, ``(3, height, width)``."""
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(_to_linear(_GREYS).astype(np.float32)[pixels].transpose(2, 0, 1))
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ShapeError(f"ssimulacra2: expected uint8 or floating-point pictures, got {pixels.dtype}")
    return np.ascontiguousarray(_to_linear(pixels.astype(np.float64)).astype(np.float32).transpose(2, 0, 1))


def _to_linear(grey: Array) -> Array:
    grey = np.clip(grey, 0.0, 1.0)
    return np.where(grey <= 0.04045, grey / 12.92, ((grey + 0.055) / 1.055) ** 2.4)


def _halved(planes: Planes) -> Planes:
    """Means of 2x2 samples; at an odd side, of those that there are."""
    rows, columns = (side % 2 for side in planes.shape[1:])
    if rows or columns:
        planes = np.pad(planes, ((0, 0), (0, rows), (0, columns)), mode="edge")
    even, odd = planes[:, ::2], planes[:, 1::2]
    return (even[..., ::2] + even[..., 1::2] + odd[..., ::2] + odd[..., 1::2]) * np.float32(0.25)


def _xyb(planes: Planes) -> Planes:
    """Linear RGB ``(3, ...)`` to X, Y and B less Y, all of them positive."""
    mixed = np.tensordot(ABSORBANCE.astype(np.float32), planes, 1) + np.float32(BIAS)
    mixed = np.cbrt(np.maximum(mixed, 0, out=mixed), out=mixed) - np.float32(BIAS ** (1 / 3))
    luma = (mixed[0] + mixed[1]) / 2
    return np.stack(
        (
            7 * (mixed[0] - mixed[1]) + np.float32(0.42),
            luma + np.float32(0.01),
            mixed[2] - luma + np.float32(0.55),
        )
    )


@cache
def _band(count: int) -> Planes:
    """The Gaussian window at so many places in a row, one place per column."""
    offsets = np.arange(-RADIUS, RADIUS + 1)
    window = np.exp(-(offsets**2) / (2 * SIGMA**2))
    band = np.zeros((count + 2 * RADIUS, count), np.float32)
    for place in range(count):
        band[place : place + 2 * RADIUS + 1, place] = window / window.sum()
    return band


def _differences(x: Planes, y: Planes) -> Array:
    """Means, and fourth-power means, of the three maps of each channel: ``(3, 2, 3)``.

    Windows see the picture mirrored above and below, and zeros at its sides. Strip by strip, so that all that belongs
    to a strip stays in the cache.
    """
    height, width = x.shape[1:]
    sums = np.zeros((3, 2, 3))
    for top in range(0, height, _STRIP):
        count = min(_STRIP, height - top)
        rows = np.arange(top - RADIUS, top + count + RADIUS)
        rows = np.where(rows < 0, -rows - 1, np.where(rows >= height, 2 * height - 1 - rows, rows))
        both = [_xyb(planes[:, rows]) for planes in (x, y)]
        for channel in range(3):
            a, b = (one[channel] for one in both)
            error = a - b
            mean_a, mean_error, squares, square_error = _blurred(
                np.stack((a, error, a * a + b * b, error * error)), count, width
            )
            a, b, mean_b = a[RADIUS:-RADIUS], b[RADIUS:-RADIUS], mean_a - mean_error
            # One less structural similarity, of terms that are small for pictures that are nearly the same: as it is
            # usually written, float32 would leave nothing but rounding errors of it.
            squared = mean_error**2
            variance = squares - mean_a * mean_a - mean_b * mean_b + C2
            lost = np.maximum(squared + (1 - squared) * (square_error - squared) / variance, 0)
            edges = (1 + np.abs(b - mean_b)) / (1 + np.abs(a - mean_a)) - 1
            for place, values in enumerate((lost, np.maximum(edges, 0), np.maximum(-edges, 0))):
                sums[channel, 0, place] += values.sum(dtype=np.float64)
                sums[channel, 1, place] += np.square(np.square(values)).sum(dtype=np.float64)
    sums /= height * width
    sums[:, 1] **= 0.25
    return sums


def _blurred(maps: Planes, count: int, width: int) -> Planes:
    """Maps ``(n, count + 10, width)`` under the window, by products with band matrices: ``(n, count, width)``."""
    down = np.zeros((len(maps) * count, width + 2 * RADIUS), np.float32)
    down[:, RADIUS:-RADIUS] = np.matmul(_band(count).T, maps).reshape(-1, width)
    across = np.empty((len(down), width), np.float32)
    for left in range(0, width, _STRIP):
        columns = min(_STRIP, width - left)
        part = down[:, left : left + columns + 2 * RADIUS]
        np.matmul(part, _band(columns), out=across[:, left : left + columns])
    return across.reshape(len(maps), count, width)
