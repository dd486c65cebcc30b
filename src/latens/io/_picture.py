"""The image in memory, and what all readers and writers of it share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from latens.errors import ImageError, LimitError, ShapeError

MAX_PIXELS = 1 << 28
MAX_SIDE = 65535
MAX_METADATA = 16 << 20
SRGB = (1, 13, 0, 1)

Pixels = npt.NDArray[Any]  # uint8 or uint16
Colour = tuple[int, int, int, int]
Density = tuple[tuple[int, int], tuple[int, int], str]


@dataclass(frozen=True, eq=False)
class Image:
    """An image in memory.

    pixels: height x width x 3 (R, G, B) or x 1 (grey); uint8, 0 to 255, or uint16, 0 to 65,535 whatever the number
    of bits. alpha: of the same type, height x width, straight, or None. icc, exif, xmp: as in a file; exif begins
    with its byte-order mark, without an `Exif` prefix. colour: code points of ITU-T H.273 (primaries, transfer, matrix
    0, full range); an ICC profile overrides it. density: samples per unit across and down, each as
    numerator and denominator, and the unit, "inch", "cm", "m" or "" (only the shape of a pixel is known). bit_depth:
    bits that the samples had in their file, 9 to 16 for uint16; 8 for uint8. notes: one sentence for each
    conversion that reading made, printable; what got lost is in one that begins with "not kept: ". png_bytes: size of
    the PNG file that it was read from, 0 if it was none.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    notes: tuple[str, ...] = ()
    colour: Colour = SRGB
    density: Density | None = None
    bit_depth: int = 0
    png_bytes: int = 0

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if dtype not in (np.uint8, np.uint16) or len(shape) != 3 or shape[2] not in (1, 3) or 0 in shape:
            raise ShapeError(
                f"pixels: expected uint8 or uint16 of height x width x 1 or 3, got {dtype} of {shape}"
            )
        if self.alpha is not None and (self.alpha.dtype != dtype or self.alpha.shape != shape[:2]):
            raise ShapeError(
                f"alpha: expected {dtype} of {shape[:2]}, got {self.alpha.dtype} of {self.alpha.shape}"
            )
        depths = (8,) if dtype == np.uint8 else range(9, 17)
        if not self.bit_depth:
            object.__setattr__(self, "bit_depth", max(depths))
        if self.bit_depth not in depths:
            raise ShapeError(f"bit_depth: {self.bit_depth} does not go with samples of {dtype}")

    def to_8_bits(self) -> Image:
        """The same picture with 8 bits per sample, rounded."""
        if self.bit_depth == 8:
            return self
        alpha = None if self.alpha is None else to_8_bits(self.alpha)
        return replace(self, pixels=to_8_bits(self.pixels), alpha=alpha, bit_depth=8)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """LimitError for a picture that is too large, ImageError for one without pixels."""
    if width > MAX_SIDE or height > MAX_SIDE:
        raise LimitError(f"{width} x {height} pixels; a side can have at most {MAX_SIDE}")
    if width * height > max_pixels:
        raise LimitError(f"{width} x {height} pixels are above the limit of {max_pixels} (--max-pixels)")
    if width <= 0 or height <= 0:
        raise ImageError(f"{width} x {height} pixels")


def to_8_bits(samples: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """round(v / 257) of 16-bit samples."""
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def to_16_bits(samples: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint16]:
    """Samples of 0 to 2^bits - 1 on the scale of 16 bits, rounded; 1 to 16 bits."""
    if bits == 16:
        return samples.astype(np.uint16, copy=False)
    most = (1 << bits) - 1
    table = (np.arange(most + 1, dtype=np.uint64) * 65535 + most // 2) // most
    result: npt.NDArray[np.uint16] = table.astype(np.uint16)[samples]
    return result


def from_16_bits(samples: npt.NDArray[np.uint16], bits: int) -> npt.NDArray[np.uint16]:
    """The inverse of :func:`to_16_bits`, for 9 to 16 bits: to the nearest of 0 to 2^bits - 1."""
    most = (1 << bits) - 1
    return ((samples.astype(np.uint32) * most + 32767) // 65535).astype(np.uint16)


def turn(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Apply an EXIF orientation; the result is contiguous and may be written to, as PyTorch wants it."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.require(array, requirements=["C", "W"])
