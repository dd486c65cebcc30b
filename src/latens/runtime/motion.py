"""Block motion in integers: fields of blocks in quadtrees, found, applied to pictures, and as coder streams.

The rules are those of ``docs/pixels.md`` and ``docs/format.md``; the oracle is in ``tests/video/slow_motion.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from latens import _native

__all__ = [
    "REACH",
    "SQUARE",
    "UNIT",
    "Field",
    "compensate",
    "decode",
    "encode",
    "is_still",
    "search",
    "still",
]

UNIT, SQUARE = 8, 64
"""Sides of the smallest block and of the largest."""
REACH = 8191
"""The largest component of a vector, in quarter pixels."""

_PRICE_UNIT = 128
_PRICE_MAX = 1 << 24

Samples = npt.NDArray[np.uint16]
Field = npt.NDArray[np.int16]
"""``(H/8, W/8, 6)``, for each unit of 8x8 pixels: the size of its block, 8, 16, 32 or 64; where it comes from, 1 the
first reference, 2 the second, 3 the mean of both; vectors to the first and to the second, down and right, in quarter
pixels, 0 where they are not used."""


def still(shape: tuple[int, int]) -> Field:
    """The field of pictures ``(H, W)`` in which nothing moves."""
    field = np.zeros((shape[0] // UNIT, shape[1] // UNIT, 6), np.int16)
    field[..., 0], field[..., 1] = SQUARE, 1
    return field


def is_still(field: Field) -> bool:
    """Whether a field predicts the first reference itself."""
    return bool((field[..., 1] == 1).all() and not field[..., 2:].any())


def search(
    picture: Samples, references: Sequence[Samples], price: float, visible: tuple[int, int] | None = None
) -> Field:
    """A field that makes references look like a picture at few bits.

    Args:
        picture, references: ``(H, W, 3)`` uint16, H and W multiples of 64; one or two references.
        price: of a bit, in sums of absolute transformed differences (levels of 0..255).
        visible: height and width of what counts; None for all.

    Raises:
        ShapeError: sizes that do not fit.
    """
    height, width = visible or picture.shape[:2]
    scaled = int(min(max(price, 0.0) * _PRICE_UNIT, _PRICE_MAX))
    return _native.search_motion(picture, list(references), scaled, height, width)


def encode(field: Field, references: int) -> bytes:
    """The stream of a field, for one or two references to choose from.

    Raises:
        ShapeError: a field that cannot be.
    """
    return _native.encode_field(field, references)


def decode(stream: bytes, shape: tuple[int, int], references: int) -> Field:
    """The field of pictures ``(H, W)``, multiples of 64, in a stream.

    Raises:
        CoderError: it is damaged.
    """
    return _native.decode_field(stream, shape[0] // UNIT, shape[1] // UNIT, references)


def compensate(references: Sequence[Samples], field: Field) -> Samples:
    """A picture predicted from references ``(H, W, 3)`` uint16, which go on beyond their borders as at them.

    Raises:
        ShapeError: a field that cannot be, or of another size.
    """
    return references[0] if is_still(field) else _native.compensate(list(references), field)
