"""Block motion in plain Python: the rules of docs/format.md (vectors) and docs/pixels.md (moved blocks), one by one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from random import Random

import numpy as np
import numpy.typing as npt

from latens.entropy_coding.lossless_reference import _Coder, _Model, _Models
from latens.errors import CoderError
from latens.runtime.motion import REACH, Field

TAPS = np.array(
    [
        [0, 0, 0, 64, 0, 0, 0, 0],
        [-1, 4, -10, 58, 17, -5, 1, 0],
        [-1, 4, -11, 40, 40, -11, 4, -1],
        [0, 1, -5, 17, 58, -10, 4, -1],
    ]
)
Array = npt.NDArray[np.integer]
Vector = tuple[int, int]
Motion = tuple[int, Vector, Vector]
ZERO: Vector = (0, 0)


# Probabilities of ones that models begin with, in 256ths; 128 for others of the same kind.
PRIORS = {
    ("split", 2): [71, 133, 191],
    ("split", 4): [62, 145, 219],
    ("split", 8): [40, 150, 228],
    ("taken", 1): [128, 157, 199, 169],
    ("taken", 2): [128, 198, 202, 182],
    ("taken", 4): [128, 180, 196, 178],
    ("taken", 8): [128, 226, 224, 192],
    ("index", 0): [],
    ("index", 1): [37],
    ("index", 2): [108, 35],
    ("index", 3): [159, 84, 90, 79, 70],
}
LENGTHS = [190, 164, 146, 148, 140, 135, 120, 120, 112, *[64] * 7]


def model(prior: int) -> _Model:
    """One that begins as if it had seen eight bits."""
    found = _Model()
    found.p, found.count = prior << 14, 8
    return found


# -- streams -----------------------------------------------------------------------------------------------


def encode(field: Field, references: int) -> bytes:
    """The stream of a field."""
    coder = _Coder()
    _Syntax(coder, field, field.shape[:2], references)
    return coder.finish()


def decode(stream: bytes, shape: tuple[int, int], references: int) -> Field:
    """The field of pictures of such a shape."""
    coder = _Coder(stream)
    found = _Syntax(coder, None, (shape[0] // 8, shape[1] // 8), references)
    coder.finish()
    return found.field


class _Syntax:
    def __init__(self, coder: _Coder, given: Field | None, shape: Sequence[int], references: int) -> None:
        self.coder, self.given, self.references = coder, given, references
        self.field = np.zeros((*shape[:2], 6), np.int16)
        self.models: dict[tuple[str | int, ...], _Model] = {}
        self.lengths = [_Models(enumerate(map(model, LENGTHS))) for _ in range(2)]
        for row in range(0, shape[0], 8):
            for column in range(0, shape[1], 8):
                self.node(row, column, 8)

    def bit(self, bit: int, kind: str, *which: int) -> int:
        key = (kind, *which)
        if key not in self.models:
            self.models[key] = _Model()
            if kind in ("split", "taken", "index"):
                priors = dict(enumerate(PRIORS[kind, which[0]]))
                self.models[key] = model(priors.get(which[1], 128))
        return self.coder.bit(self.models[key], bit)

    def motion(self, row: int, column: int, field: Field | None = None) -> Motion | None:
        field = self.field if field is None else field
        if row < 0 or column < 0 or row >= field.shape[0] or column >= field.shape[1]:
            return None
        size, references, *v = field[row, column].tolist()
        return (references, (v[0], v[1]), (v[2], v[3])) if size else None

    def node(self, row: int, column: int, size: int) -> None:
        if size > 1:
            smaller = 0
            for r, c in ((row, column - 1), (row - 1, column)):
                smaller += int(r >= 0 and c >= 0 and self.field[r, c, 0] < 8 * size)
            divided = self.given is not None and self.given[row, column, 0] < 8 * size
            if self.bit(int(divided), "split", size, smaller):
                half = size // 2
                for r, c in ((0, 0), (0, half), (half, 0), (half, half)):
                    self.node(row + r, column + c, half)
                return
        motion = (1, ZERO, ZERO) if self.given is None else self.motion(row, column, self.given)
        assert motion is not None
        references, first, second = self.block(row, column, size, motion)
        self.field[row : row + size, column : column + size] = (8 * size, references, *first, *second)

    def block(self, row: int, column: int, size: int, motion: Motion) -> Motion:
        last = size - 1
        left, above, corner = (
            self.motion(row + last, column - 1),
            self.motion(row - 1, column + last),
            self.motion(row - 1, column + size),
        )
        below, diagonal = self.motion(row + size, column - 1), self.motion(row - 1, column - 1)
        found: list[Motion] = []
        for near in (left, above, corner, below, diagonal):
            if near is not None and near not in found:
                found.append(near)
        around = min(len(found), 3)
        if self.references == 2:
            firsts = [m[1] for m in found if m[0] & 1]
            seconds = [m[2] for m in found if m[0] & 2]
            more = [(3, firsts[0], seconds[0])] if firsts and seconds else []
            more += [(kind, ZERO, ZERO) for kind in (1, 3, 2)]
        else:
            more = [(1, ZERO, ZERO)]
        for one in more:
            if one not in found and len(found) < 6:
                found.append(one)
        if self.bit(int(motion in found), "taken", size, around):
            index = found.index(motion) if motion in found else 0
            i = 0
            while i + 1 < len(found) and self.bit(int(i < index), "index", around, i):
                i += 1
            return found[i]
        references = 1
        if self.references == 2:
            if self.bit(int(motion[0] == 3), "both", size):
                references = 3
            else:
                references = 1 + self.bit(int(motion[0] == 2), "second")
        vectors = [ZERO, ZERO]
        for k in range(2):
            if references >> k & 1:
                near_vectors = [m[1 + k] for m in (left, above, corner) if m is not None and m[0] >> k & 1]
                vectors[k] = self.vector(near_vectors, motion[1 + k])
        return references, vectors[0], vectors[1]

    def vector(self, near: list[Vector], value: Vector) -> Vector:
        if len(near) < 3:
            near = near[:1] or [ZERO]
        found = []
        for axis in range(2):
            predicted = sorted(v[axis] for v in near)[len(near) // 2]
            found.append(predicted + self.coder.integer(self.lengths[axis], value[axis] - predicted))
            if self.given is None and abs(found[-1]) > REACH:
                raise CoderError("a vector is too long")
        return found[0], found[1]


# -- pixels ------------------------------------------------------------------------------------------------


def compensate(references: Sequence[Array], field: Field) -> Array:
    """See :func:`latens.runtime.motion.compensate`."""
    height, width = references[0].shape[:2]
    sums = np.zeros((height, width, 3), np.int64)
    total = np.zeros((height, width), np.int64)
    for row in range(field.shape[0]):
        for column in range(field.shape[1]):
            size, kind, *v = field[row, column].tolist()
            if row * 8 % size or column * 8 % size:
                continue
            rows, down = weights(8 * row, size, height)
            columns, across = weights(8 * column, size, width)
            found = [
                moved(references[k], rows, columns, v[2 * k], v[2 * k + 1]) for k in (0, 1) if kind >> k & 1
            ]
            pixels = found[0] if len(found) == 1 else found[0] + found[1] + 1 >> 1
            weight = down[:, None] * across
            sums[np.ix_(rows, columns)] += weight[..., None] * pixels
            total[np.ix_(rows, columns)] += weight
    assert (total == 256).all()
    return (sums + 128 >> 8).astype(np.uint16)


def weights(first: int, size: int, end: int) -> tuple[Array, Array]:
    """Where a block is seen along one axis, and how much of it, in sixteenths."""
    at = np.arange(max(first - 4, 0), min(first + size + 4, end))
    weight = np.full(len(at), 16)
    if first > 0:
        weight = np.minimum(weight, 2 * (at - first + 4) + 1)
    if first + size < end:
        weight = np.minimum(weight, 2 * (first + size + 3 - at) + 1)
    return at, weight


def moved(reference: Array, rows: Array, columns: Array, down: int, right: int) -> Array:
    """Samples that a vector leads to."""
    height, width = reference.shape[:2]
    rows = (rows[0] + (down >> 2) - 3 + np.arange(len(rows) + 7)).clip(0, height - 1)
    columns = (columns[0] + (right >> 2) - 3 + np.arange(len(columns) + 7)).clip(0, width - 1)
    found = reference[np.ix_(rows, columns)].astype(np.int64)
    n = found.shape[1] - 7
    found = (sum(t * found[:, i : i + n] for i, t in enumerate(TAPS[right & 3])) + 32 >> 6).clip(0, 65_535)
    n = found.shape[0] - 7
    return (sum(t * found[i : i + n] for i, t in enumerate(TAPS[down & 3])) + 32 >> 6).clip(0, 65_535)


def any_field(random: Random, references: int) -> Field:
    """Any blocks, with near or far vectors, many of them alike, of a picture of one to six squares."""
    rows, columns = random.choice([(8, 8), (8, 16), (16, 24)])
    reach = random.choice([3, 40, 500, REACH])
    field = np.zeros((rows, columns, 6), np.int16)
    known: list[list[int]] = [[1, 0, 0, 0, 0]]

    def node(row: int, column: int, size: int) -> None:
        if size > 1 and random.random() < 0.5:
            for r, c in itertools.product((row, row + size // 2), (column, column + size // 2)):
                node(r, c, size // 2)
            return
        if random.random() < 0.6:
            kind = random.randint(1, 2**references - 1)
            vector = [random.randint(-reach, reach) if kind >> k // 2 & 1 else 0 for k in range(4)]
            known.append([kind, *vector])
        field[row : row + size, column : column + size] = [8 * size, *random.choice(known[-4:])]

    for row, column in itertools.product(range(0, rows, 8), range(0, columns, 8)):
        node(row, column, 8)
    return field
