"""Planes of luma and chroma to RGB of 16 bits and back in integers, by the matrices of ITU-T H.273 (docs/pixels.md).

Chroma samples lie in the middle of the luma samples that they belong to: enlarged bilinearly, reduced by averages.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from latens.errors import VersionError

__all__ = ["planes_from_rgb", "rgb_from_planes"]

Int64 = npt.NDArray[np.int64]
Plane = npt.NDArray[Any]

# Luma weights of red and blue in units of 1/10,000, by matrix coefficients of H.273.
_WEIGHTS = {
    1: (2126, 722), 4: (3000, 1100), 5: (2990, 1140), 6: (2990, 1140), 7: (2120, 870), 9: (2627, 593),
}  # fmt: skip
_IDENTITY = 0  # the planes are G, B, R
_SUBSAMPLING = {"4:2:0": (2, 2), "4:2:2": (1, 2), "4:4:4": (1, 1)}  # down, across
_MOST = 65_535
_TO_RGB, _FROM_RGB = 14, 28  # bits of the coefficients


def _weights(matrix: int) -> tuple[Fraction, Fraction]:
    if matrix not in _WEIGHTS:
        raise VersionError(f"matrix coefficients {matrix} are newer than this release of Latens; update it")
    red, blue = _WEIGHTS[matrix]
    return Fraction(red, 10_000), Fraction(blue, 10_000)


def _ranges(bit_depth: int, full: int) -> tuple[int, int, int, int]:
    """Offset and span of luma and of chroma."""
    unit, most = 1 << bit_depth - 8, (1 << bit_depth) - 1
    return (0, most, 128 * unit, most) if full else (16 * unit, 219 * unit, 128 * unit, 224 * unit)


def _nearest(value: Fraction) -> int:
    """Halves upwards."""
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def _shifted(sums: Int64, bits: int) -> Int64:
    """Divided by a power of two, halves upwards."""
    sums += 1 << bits - 1
    sums >>= bits
    return sums


def rgb_from_planes(
    planes: Sequence[Plane], chroma: str, bit_depth: int, colour: Sequence[int]
) -> npt.NDArray[np.uint16]:
    """RGB ``(H, W, 3)`` uint16 of the planes Y, U, V, limited to 0 to 65,535.

    Args:
        planes: ``(h, w)`` each, uint8 or uint16.
        chroma: ``"4:2:0"``, ``"4:2:2"`` or ``"4:4:4"``.
        bit_depth: of the samples.
        colour: code points: primaries, transfer, matrix, full range. Of matrix 0 the planes are G, B, R.

    Raises:
        VersionError: an unknown matrix.
    """
    offset, span, middle, chroma_span = _ranges(bit_depth, colour[3])
    first, second, third = (np.asarray(p).astype(np.int64) for p in planes)
    found = np.empty((*first.shape, 3), np.uint16)
    luma = _nearest(Fraction(_MOST << _TO_RGB, span))
    first -= offset
    if colour[2] == _IDENTITY:
        for channel, plane in ((0, third - offset), (1, first), (2, second - offset)):
            found[..., channel] = _shifted(luma * plane, _TO_RGB).clip(0, _MOST)
        return found
    red, blue = _weights(colour[2])
    green = 1 - red - blue
    down, across = _SUBSAMPLING[chroma]
    unit = Fraction(_MOST << _TO_RGB, chroma_span)
    u, v = (_enlarged(p - middle, down, across, first.shape) for p in (second, third))
    # Sums are in units of 1/16, as enlarged chroma is.
    first *= 16 * luma
    rows = (
        first + _nearest(2 * (1 - red) * unit) * v,
        first
        - _nearest(2 * red * (1 - red) / green * unit) * v
        - _nearest(2 * blue * (1 - blue) / green * unit) * u,
        first + _nearest(2 * (1 - blue) * unit) * u,
    )
    for channel, sums in enumerate(rows):
        found[..., channel] = _shifted(sums, _TO_RGB + 4).clip(0, _MOST)
    return found


def _enlarged(plane: Int64, down: int, across: int, shape: tuple[int, ...]) -> Int64:
    """Sixteen times the plane, at luma's positions."""
    return _doubled(_doubled(plane, 0, down)[: shape[0]], 1, across)[:, : shape[1]]


def _doubled(plane: Int64, axis: int, factor: int) -> Int64:
    """Four times the values, at positions between them if there are to be twice as many."""
    if factor == 1:
        return 4 * plane
    padded = np.pad(plane, [(1, 1) if i == axis else (0, 0) for i in range(2)], mode="edge")
    count = plane.shape[axis]
    before, here, after = (padded.take(range(i, i + count), axis) for i in range(3))
    both = np.stack([before + 3 * here, 3 * here + after], axis + 1)
    shape = list(plane.shape)
    shape[axis] *= 2
    return both.reshape(shape)


def planes_from_rgb(
    rgb: npt.NDArray[np.uint16], chroma: str, bit_depth: int, colour: Sequence[int]
) -> tuple[Plane, Plane, Plane]:
    """The planes Y, U, V of RGB ``(H, W, 3)`` of 16 bits: the inverse of :func:`rgb_from_planes`.

    Raises:
        VersionError: an unknown matrix.
    """
    offset, span, middle, chroma_span = _ranges(bit_depth, colour[3])
    luma = _nearest(Fraction(span << _FROM_RGB, _MOST))
    r, g, b = (rgb[..., i].astype(np.int64) for i in range(3))
    if colour[2] == _IDENTITY:
        first, second, third = (_samples(luma * p, _FROM_RGB, offset, bit_depth) for p in (g, b, r))
        return first, second, third
    red, blue = _weights(colour[2])
    unit = Fraction(span << _FROM_RGB, _MOST)
    of_red, of_blue = _nearest(red * unit), _nearest(blue * unit)
    y = of_red * r + (luma - of_red - of_blue) * g + of_blue * b
    down, across = _SUBSAMPLING[chroma]
    r, g, b = (_added(p, down, across) for p in (r, g, b))
    unit = Fraction(chroma_span << _FROM_RGB, _MOST)
    half = _nearest(unit / 2)
    bits = _FROM_RGB + down * across // 2
    u_red, v_blue = _nearest(red / (2 * (1 - blue)) * unit), _nearest(blue / (2 * (1 - red)) * unit)
    # Each adds up to nothing: grey has no chroma.
    u = half * b - u_red * r - (half - u_red) * g
    v = half * r - v_blue * b - (half - v_blue) * g
    return (
        _samples(y, _FROM_RGB, offset, bit_depth),
        _samples(u, bits, middle, bit_depth),
        _samples(v, bits, middle, bit_depth),
    )


def _added(plane: Int64, down: int, across: int) -> Int64:
    """Sums of those that share a sample of chroma; the border is repeated."""
    height, width = plane.shape
    padded = np.pad(plane, ((0, height % down), (0, width % across)), mode="edge")
    sums = padded[::down] + padded[1::down] if down == 2 else padded
    result: Int64 = sums[:, ::across] + sums[:, 1::across] if across == 2 else sums
    return result


def _samples(sums: Int64, bits: int, offset: int, bit_depth: int) -> Plane:
    dtype = np.uint8 if bit_depth == 8 else np.uint16
    return (_shifted(sums, bits) + offset).clip(0, (1 << bit_depth) - 1).astype(dtype)
