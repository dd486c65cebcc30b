"""Block motion in plain NumPy: the rules of docs/pixels.md, and the search, one block after the other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from latens.runtime.motion import REACH

TAPS = np.array([1, -5, 20, 20, -5, 1], np.int64)
Array = npt.NDArray[np.integer]
Vector = tuple[int, int]


def clamped(reference: Array, rows: Array, columns: Array) -> Array:
    """Samples of a picture that goes on beyond its border as at it."""
    height, width = reference.shape[:2]
    return reference[np.ix_(rows.clip(0, height - 1), columns.clip(0, width - 1))].astype(np.int64)


def patch(reference: Array, top: int, left: int, vector: Vector, most: int = 65_535) -> Array:
    """The block that a vector of half pixels leads to."""
    down, right = vector
    rows = top + (down >> 1) + np.arange(-2, 19)
    columns = left + (right >> 1) + np.arange(-2, 19)
    found = clamped(reference, rows, columns)
    bits = 0
    if right & 1:
        found = sum(t * found[:, i : i + 16] for i, t in enumerate(TAPS))
        bits += 5
    else:
        found = found[:, 2:18]
    if down & 1:
        found = sum(t * found[i : i + 16] for i, t in enumerate(TAPS))
        bits += 5
    else:
        found = found[2:18]
    if bits:
        found = (found + (1 << bits - 1)) >> bits
    return found.clip(0, most)


def compensate(reference: Array, vectors: Array) -> Array:
    """See :func:`latens.runtime.motion.compensate`."""
    out = np.zeros_like(reference)
    for r in range(vectors.shape[1]):
        for c in range(vectors.shape[2]):
            at = slice(16 * r, 16 * r + 16), slice(16 * c, 16 * c + 16)
            vector = int(vectors[0, r, c]), int(vectors[1, r, c])
            out[at] = patch(reference, 16 * r, 16 * c, vector)
    return out


def search(x: Array, reference: Array, costs: Array) -> Array:
    """Vectors of pictures ``(H, W)`` of 10 bits; see :func:`latens.runtime.motion.search`."""
    rows, columns = x.shape[0] // 16, x.shape[1] // 16
    assert len(costs) == 2 * REACH + 1

    def bits(down: int, right: int) -> int:
        return int(costs[abs(down)] + costs[abs(right)])

    def difference(r: int, c: int, vector: Vector) -> int:
        block = x[16 * r : 16 * r + 16, 16 * c : 16 * c + 16].astype(np.int64)
        return int(np.abs(block - patch(reference, 16 * r, 16 * c, vector, 1023)).sum())

    vectors = coarse(x, reference, bits, rows, columns)
    blocks = [(r, c) for r in range(rows) for c in range(columns)]

    def around(vector: Vector, reach: int, unit: int) -> list[Vector]:
        steps = range(-reach, reach + 1)
        return [(vector[0] + unit * dy, vector[1] + unit * dx) for dy in steps for dx in steps]

    for reach, unit in ((3, 2), (1, 1)):
        vectors = {
            (r, c): min(
                around(vectors[r, c], reach, unit), key=lambda v, r=r, c=c: difference(r, c, v) + bits(*v)
            )
            for r, c in blocks
        }

    def near(r: int, c: int) -> Vector:
        return vectors[min(max(r, 0), rows - 1), min(max(c, 0), columns - 1)]

    agreed = {}
    for r, c in blocks:
        left, right = near(r, c - 1), near(r, c + 1)

        def cost(v: Vector, r: int = r, c: int = c, left: Vector = left, right: Vector = right) -> int:
            return (
                difference(r, c, v)
                + bits(v[0] - left[0], v[1] - left[1])
                + bits(right[0] - v[0], right[1] - v[1])
            )

        agreed[r, c] = min([near(r, c), left, near(r - 1, c), right, near(r + 1, c), (0, 0)], key=cost)
    return np.array([[[agreed[r, c][k] for c in range(columns)] for r in range(rows)] for k in (0, 1)])


def coarse(x: Array, reference: Array, bits: object, rows: int, columns: int) -> dict[Vector, Vector]:
    """Multiples of four pixels, in half pixels, by sums of 4x4, seen together with blocks around."""
    small, other = (
        a.astype(np.int64).reshape(4 * rows, 4, 4 * columns, 4).sum((1, 3)) for a in (x, reference)
    )
    best: dict[Vector, tuple[int, Vector]] = {}
    for dy in range(-7, 8):
        for dx in range(-7, 8):
            moved = clamped(other, np.arange(4 * rows) + dy, np.arange(4 * columns) + dx)
            own = np.abs(small - moved).reshape(rows, 4, columns, 4).sum((1, 3))
            for r in range(rows):
                for c in range(columns):
                    near = own[max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2]
                    cost = (own[r, c] * near.size + near.sum()) // (2 * near.size) + bits(8 * dy, 8 * dx)
                    if (r, c) not in best or cost < best[r, c][0]:
                        best[r, c] = int(cost), (8 * dy, 8 * dx)
    return {block: vector for block, (_, vector) in best.items()}
