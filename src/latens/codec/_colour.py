"""Planes of luma and chroma to RGB and back, by the matrices of ITU-T H.273.

Chroma samples lie in the middle of the luma samples that they belong to: enlarged bilinearly, reduced by averages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from latens.errors import VersionError

__all__ = ["planes_from_rgb", "rgb_from_planes"]

# Luma weights of red and blue, by matrix coefficients of H.273.
_WEIGHTS = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
_IDENTITY = 0  # the planes are G, B, R
_SUBSAMPLING = {"4:2:0": (2, 2), "4:2:2": (1, 2), "4:4:4": (1, 1)}  # down, across


def _weights(matrix: int) -> tuple[float, float]:
    if matrix not in _WEIGHTS:
        raise VersionError(f"matrix coefficients {matrix} are newer than this release of Latens; update it")
    return _WEIGHTS[matrix]


def _ranges(bit_depth: int, full: int) -> tuple[float, float, float, float]:
    """Offset and span of luma and of chroma."""
    unit = float(1 << bit_depth - 8)
    most = float((1 << bit_depth) - 1)
    middle = 128 * unit
    return (0.0, most, middle, most) if full else (16 * unit, 219 * unit, middle, 224 * unit)


def rgb_from_planes(
    planes: Sequence[npt.NDArray[Any]], chroma: str, bit_depth: int, colour: Sequence[int]
) -> Tensor:
    """RGB ``(1, 3, H, W)`` float32 of the planes Y, U, V; a little below 0 and above 1, where they say so.

    Args:
        planes: ``(h, w)`` each, uint8 or uint16.
        chroma: ``"4:2:0"``, ``"4:2:2"`` or ``"4:4:4"``.
        bit_depth: of the samples.
        colour: code points: primaries, transfer, matrix, full range. Of matrix 0 the planes are G, B, R.

    Raises:
        VersionError: an unknown matrix.
    """
    offset, span, middle, chroma_span = _ranges(bit_depth, colour[3])
    if colour[2] == _IDENTITY:
        g, b, r = (torch.from_numpy(np.ascontiguousarray(p).astype(np.float32))[None, None] for p in planes)
        return torch.cat((r, g, b), 1).sub_(offset).div_(span)
    red, blue = _weights(colour[2])
    y, u, v = (torch.from_numpy(np.ascontiguousarray(p).astype(np.float32))[None, None] for p in planes)
    height, width = y.shape[2:]
    y = (y - offset) / span
    both = (torch.cat((u, v), 1) - middle) / chroma_span
    down, across = _SUBSAMPLING[chroma]
    if down * across > 1:
        both = F.interpolate(both, scale_factor=(float(down), float(across)), mode="bilinear")
        both = both[:, :, :height, :width]
    u, v = both[:, :1], both[:, 1:]
    r = y + 2 * (1 - red) * v
    b = y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    return torch.cat((r, g, b), 1)


def planes_from_rgb(
    rgb: Tensor, chroma: str, bit_depth: int, colour: Sequence[int]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """The planes Y, U, V of RGB ``(1, 3, H, W)``, rounded and clamped: the inverse of :func:`rgb_from_planes`.

    Raises:
        VersionError: an unknown matrix.
    """
    offset, span, middle, chroma_span = _ranges(bit_depth, colour[3])
    r, g, b = rgb[:, :1], rgb[:, 1:2], rgb[:, 2:]
    if colour[2] == _IDENTITY:
        first, second, third = (_samples(plane[0, 0], offset, span, bit_depth) for plane in (g, b, r))
        return first, second, third
    red, blue = _weights(colour[2])
    y = red * r + (1 - red - blue) * g + blue * b
    both = torch.cat(((b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))), 1)
    down, across = _SUBSAMPLING[chroma]
    if down * across > 1:
        height, width = both.shape[2:]
        both = F.pad(both, (0, width % across, 0, height % down), mode="replicate")
        both = F.avg_pool2d(both, (down, across))
    u, v = (_samples(plane, middle, chroma_span, bit_depth) for plane in both[0])
    return _samples(y[0, 0], offset, span, bit_depth), u, v


def _samples(values: Tensor, zero: float, scale: float, bit_depth: int) -> npt.NDArray[Any]:
    dtype = torch.uint8 if bit_depth == 8 else torch.int32
    most = (1 << bit_depth) - 1
    found = values.mul(scale).add_(zero).round_().clamp_(0, most).to(dtype).numpy()
    return found if bit_depth == 8 else found.astype(np.uint16)
