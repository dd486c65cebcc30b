"""RGB to planes of Y, Cb and Cr and back, for codecs that are given raw planes.

BT.709 coefficients, full range, rounded to the nearest value; with 4:2:0, chroma is the mean of 2x2 pixels and
comes back by the matching triangle filter (weights 3/4 and 1/4). Own arithmetic, so that no program's scaler
with its own idea of range and siting stands between a codec and its figures.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from latens.errors import ShapeError

__all__ = ["LUMA", "to_planes", "to_rgb"]

Pixels = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]

_RED, _BLUE = 0.2126, 0.0722
_GREEN = 1.0 - _RED - _BLUE
LUMA = np.array([_RED, _GREEN, _BLUE])
"""What R, G and B weigh in luma."""


def to_planes(pixels: Pixels, bits: int, subsampled: bool) -> bytes:
    """Raw planes, little-endian words if deeper than 8 bits.

    Args:
        pixels: uint8 ``(height, width, 3)``.
        bits: depth of the planes, 8 to 16.
        subsampled: 4:2:0. An odd side is made even by repeating its last line.
    """
    if subsampled:
        height, width = pixels.shape[:2]
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    top = np.float32((1 << bits) - 1)
    r, g, b = (pixels[..., i] * (top / np.float32(255)) for i in range(3))
    y = np.float32(_RED) * r + np.float32(_GREEN) * g + np.float32(_BLUE) * b
    middle = np.float32(1 << (bits - 1))
    planes = [y]
    for channel, weight in ((b, _BLUE), (r, _RED)):
        plane = (channel - y) * np.float32(0.5 / (1.0 - weight)) + middle
        if subsampled:
            height, width = plane.shape
            plane = plane.reshape(height // 2, 2, width // 2, 2).mean((1, 3))
        planes.append(plane)
    kind = "<u2" if bits > 8 else "u1"
    return b"".join(np.clip(np.rint(plane), 0, top).astype(kind).tobytes() for plane in planes)


def to_rgb(data: bytes, size: tuple[int, int], bits: int, subsampled: bool) -> Pixels:
    """The inverse of :func:`to_planes`: uint8 ``(height, width, 3)`` of ``size``.

    Raises:
        ShapeError: another amount of data than planes of this size have.
    """
    height, width = (side + side % 2 for side in size) if subsampled else size
    samples = np.frombuffer(data, "<u2" if bits > 8 else "u1") if len(data) % 2 == 0 or bits == 8 else None
    count, chroma = height * width, height * width // (4 if subsampled else 1)
    if samples is None or samples.size != count + 2 * chroma:
        raise ShapeError(f"the decoder gave {len(data):,} bytes, which is no image of {width}x{height}")
    scale = np.float32(255.0 / ((1 << bits) - 1))
    y = samples[:count].reshape(height, width) * scale
    offset = np.float32(1 << (bits - 1)) * scale
    differences = []
    for i in range(2):
        plane = samples[count + i * chroma : count + (i + 1) * chroma] * scale - offset
        if subsampled:
            plane = _double(_double(plane.reshape(height // 2, width // 2), 0), 1)
        differences.append(plane.reshape(height, width))
    b = y + differences[0] * np.float32(2.0 * (1.0 - _BLUE))
    r = y + differences[1] * np.float32(2.0 * (1.0 - _RED))
    g = (y - np.float32(_RED) * r - np.float32(_BLUE) * b) / np.float32(_GREEN)
    rgb: Pixels = np.clip(np.rint(np.stack((r, g, b), axis=2)), 0, 255).astype(np.uint8)
    return rgb[: size[0], : size[1]]


def _double(plane: Plane, axis: int) -> Plane:
    """Twice as many samples along an axis, between the old ones."""
    count = plane.shape[axis]
    near = np.float32(0.75) * plane
    far = np.float32(0.25) * plane
    before = far.take(np.maximum(np.arange(count) - 1, 0), axis)
    after = far.take(np.minimum(np.arange(count) + 1, count - 1), axis)
    pairs = np.stack((near + before, near + after), axis + 1)
    shape = list(plane.shape)
    shape[axis] *= 2
    return pairs.reshape(shape)
