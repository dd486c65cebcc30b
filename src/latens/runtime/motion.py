"""Block motion: one vector for each 16x16 block, in half pixels: found, applied to a picture, and as a coder stream.

The oracle of what is native here is in ``tests/video/slow_motion.py``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from latens import _native
from latens.entropy_coding import LaneDecoder, LaneEncoder, choose_lanes
from latens.errors import CoderError, ModelError
from latens.runtime.parts import Int16, IntegerTables

__all__ = ["BLOCK", "REACH", "MotionCoder", "compensate", "costs_of", "search"]

BLOCK = 16
REACH = 64
"""The largest component of a vector, in half pixels."""

_PRICE_MAX = 2.0**16

Samples = npt.NDArray[np.uint16]


class MotionCoder:
    """Vectors to a coder stream and back.

    Each component of a vector is coded as its difference to that of the block on the left, at the left border to that
    above, and the first one as it is. Which table codes the differences of a component is chosen by the encoder and
    coded before them.

    Args:
        tables: several for differences, and a last one for the choice among these.
        reach: the largest component of a vector.

    Raises:
        ModelError: too few tables, or one that is not valid.
        TableError: an entry is not valid.
    """

    def __init__(self, tables: IntegerTables, reach: int) -> None:
        self.choices = len(tables.sizes) - 1
        if not 1 <= self.choices <= 64:
            raise ModelError(f"motion: expected 2 to 65 tables, found {len(tables.sizes)}")
        self.tables, self.reach = tables, reach
        self._tables = tables.tables(0, len(tables.sizes))

    def encode(self, vectors: Int16) -> tuple[bytes, int]:
        """The stream of vectors ``(2, h, w)``, and its lanes.

        Raises:
            CoderError: they do not fit.
        """
        values = vectors.astype(np.int32)
        differences = np.diff(values, axis=2, prepend=0)
        differences[:, :, 0] = np.diff(values[:, :, 0], axis=1, prepend=0)
        encoder = LaneEncoder()
        for plane in differences:
            choice = self._cheapest(plane)
            encoder.push(np.array([choice], np.int16), np.array([self.choices], np.uint8), self._tables)
            encoder.push(plane.astype(np.int16), np.full(plane.shape, choice, np.uint8), self._tables)
        lanes = choose_lanes(len(encoder))
        return encoder.finish(lanes), lanes

    def decode(self, stream: bytes, lanes: int, shape: tuple[int, int]) -> Int16:
        """Vectors ``(2, h, w)`` int16.

        Raises:
            CoderError: the stream is damaged.
        """
        decoder = LaneDecoder(stream, lanes)
        differences = np.zeros((2, *shape), np.int64)
        for plane in differences:
            (choice,) = decoder.decode(np.array([self.choices], np.uint8), self._tables)
            if not 0 <= choice < self.choices:
                raise CoderError(f"motion: table {choice} of {self.choices}")
            plane[:] = decoder.decode(np.full(shape, choice, np.uint8), self._tables)
        decoder.finish()
        differences[:, :, 0] = np.cumsum(differences[:, :, 0], axis=1)
        vectors = np.cumsum(differences, axis=2)
        if np.abs(vectors).max(initial=0) > self.reach:
            raise CoderError(f"motion: a vector is longer than {self.reach} steps")
        return vectors.astype(np.int16)

    def _cheapest(self, plane: npt.NDArray[np.int32]) -> int:
        bits = [self._bits_of(plane, i) for i in range(self.choices)]
        return int(np.argmin(bits))

    def _bits_of(self, plane: npt.NDArray[np.int32], table: int) -> float:
        (row,) = self.tables.rows(table, table + 1)
        probabilities = np.diff(row) / 65536.0
        symbols = plane.ravel() - self.tables.offsets[table]
        escaped = (symbols < 0) | (symbols >= len(probabilities) - 1)
        cost = -np.log2(probabilities)
        # An escape takes some nibbles more.
        return float(np.where(escaped, cost[-1] + 16.0, cost[np.where(escaped, 0, symbols)]).sum())


def compensate(reference: Samples, vectors: Int16) -> Samples:
    """A picture with each block taken from where its vector points to.

    Args:
        reference: ``(H, W, 3)`` uint16, H and W multiples of 16; it goes on beyond its border as at its border.
        vectors: ``(2, H/16, W/16)``, down and right, in half pixels, within :data:`REACH`.
    """
    return _native.compensate(reference, vectors) if vectors.any() else reference


def search(picture: Samples, reference: Samples, price: float) -> Int16:
    """Vectors that make a reference look like a picture: coarse to fine, then as neighbours where that saves bits.

    Args:
        picture, reference: ``(H, W, 3)`` uint16, H and W multiples of 16.
        price: of a bit, in sums of absolute differences of a block (levels of 0..255).

    Returns:
        ``(2, H/16, W/16)`` for :func:`compensate`.
    """
    return _native.search_motion(_grey(picture), _grey(reference), costs_of(price))


def costs_of(price: float) -> npt.NDArray[np.int32]:
    """What components of each size take, in levels of 10 bits; about how many bits they are, times the price."""
    sizes = np.arange(2 * REACH + 1)
    bits = 2.0 * np.log2(1.0 + sizes) + (sizes > 0)
    costs: npt.NDArray[np.int32] = np.rint(bits * min(4.0 * price, _PRICE_MAX)).astype(np.int32)
    return costs


def _grey(picture: Samples) -> Samples:
    """``(H, W)`` of 10 bits."""
    r, g, b = (picture[..., i].astype(np.uint32) for i in range(3))
    return ((r + 2 * g + b) >> 8).astype(np.uint16)
