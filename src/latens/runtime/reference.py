"""The integer networks of docs/pixels.md in plain NumPy: slow, and what the native engine is checked against.

Every function follows the page's text one to one, in int64. Tensors are int64 arrays (H, W, C).
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Stage", "gate", "rescale", "rounded", "run"]

Tensor: TypeAlias = NDArray[np.int64]
#: Kind and parameters of a stage, named as in docs/pixels.md.
Stage: TypeAlias = tuple[str, Mapping[str, Any]]

_GATE = np.array(
    [
        [-515, 76, 219, 129, 56, 22, 8, 3, 1, 0, 0, 0, 0, 0, 0, 0],
        [-128, -1634, -1306, -640, -262, -100, -37, -14, -5, -2, -1, 0, 0, 0, 0, 0],
        [8214, 6465, 3439, 1476, 576, 217, 80, 30, 11, 4, 1, 1, 0, 0, 0, 0],
        [16384, 23955, 28862, 31214, 32179, 32549, 32687, 32738, 32757, 32764, *[32767] * 6],
    ],
    np.int64,
)


def rounded(v: Tensor, s: NDArray[Any] | int) -> Tensor:
    """v / 2^s to nearest, halves upwards; for s below 1 it is v * 2^-s. Only while that fits in 64 bits."""
    s = np.asarray(s, np.int64)
    down, up = np.maximum(s, 1), np.maximum(-s, 0)
    result: Tensor = np.where(s > 0, (v + (np.int64(1) << (down - 1))) >> down, v << up)
    return result


def _sat(v: Tensor) -> Tensor:
    return np.clip(v, -32768, 32767)


def _mulr(a: Tensor, b: Tensor) -> Tensor:
    return (a * b + 2**14) >> 15


def gate(v: Tensor, unit: int) -> Tensor:
    """v * sigmoid(v) for values of 16 bits in units of 2^-unit."""
    a = np.minimum(np.abs(v), 32767)
    inside = np.minimum(a, 16 * 2**unit - 1)
    n = inside >> unit
    t = (inside - (n << unit)) << (15 - unit)
    p = _GATE[0][n]
    p = _GATE[1][n] + _mulr(p, t)
    p = _GATE[2][n] + _mulr(p, t)
    p = np.minimum(_GATE[3][n] + _mulr(p, t), 32767)
    m = _mulr(a, p)
    return np.where(v >= 0, m, m - a)


def _bordered(x: Tensor) -> Tensor:
    return np.pad(x, ((1, 1), (1, 1), (0, 0)))


def _integers(values: Any) -> Tensor:
    return np.asarray(values, np.int64)


def _sums(x: Tensor, part: Mapping[str, Any]) -> Tensor:
    weight = _integers(part["weight"])
    if weight.ndim == 2:
        weight = weight[:, None, None, :]
    if weight.shape[1] == 3:
        x = _bordered(x)
    height, width = x.shape[0] - weight.shape[1] + 1, x.shape[1] - weight.shape[2] + 1
    total = np.broadcast_to(_integers(part["bias"]), (height, width, len(weight))).copy()
    for row in range(weight.shape[1]):
        for column in range(weight.shape[2]):
            total += x[row : row + height, column : column + width] @ weight[:, row, column].T
    return total


def _product(x: Tensor, part: Mapping[str, Any]) -> Tensor:
    v = np.clip(rounded(_sums(x, part), part["shift"]), part["low"], part["high"])
    return gate(v, part["gate"]) if part["gate"] else v


def _depthwise(x: Tensor, part: Mapping[str, Any]) -> Tensor:
    weight, (height, width, _) = _integers(part["weight"]), x.shape
    x = _bordered(x)
    total = np.broadcast_to(_integers(part["bias"]), (height, width, len(weight))).copy()
    for row in range(3):
        for column in range(3):
            total += x[row : row + height, column : column + width] * weight[:, row, column]
    return _sat(rounded(total, part["shift"]))


def _residual(x: Tensor, inner: Tensor, part: Mapping[str, Any]) -> Tensor:
    return _sat(x + rounded(_sums(inner, part), part["shift"]))


def _block(x: Tensor, form: Mapping[str, Any]) -> Tensor:
    x = _residual(x, _depthwise(_product(x, form["pw_in"]), form["dw"]), form["pw_out"])
    return _residual(x, _product(x, form["ffn_in"]), form["ffn_out"])


def _shuffle(x: Tensor, r: int) -> Tensor:
    height, width, channels = x.shape
    parts = x.reshape(height, width, channels // r**2, r, r)
    return parts.transpose(0, 3, 1, 4, 2).reshape(height * r, width * r, channels // r**2)


def _unshuffle(x: Tensor, r: int) -> Tensor:
    height, width, channels = x.shape
    parts = x.reshape(height // r, r, width // r, r, channels)
    return parts.transpose(0, 2, 4, 1, 3).reshape(height // r, width // r, channels * r**2)


def _pixels(x: Tensor, form: Mapping[str, Any], depth: int, channels: int) -> Tensor:
    total, shift, top = _shuffle(_sums(x, form), 8), int(form["shift"]), 2**depth - 1
    unit = 255
    if channels == 1:
        total, unit = total.sum(-1, keepdims=True), 3 * 255
    result: Tensor = np.clip((total * top + unit * 2 ** (shift - 1)) // (unit * 2**shift), 0, top)
    return result


def _input(samples: Tensor, depth: int) -> Tensor:
    top = 2**depth - 1
    values = (np.minimum(samples, top) * 2**15 + top // 2) // top - 2**14
    return _unshuffle(np.broadcast_to(values, (*values.shape[:2], 3)), 8)


def run(
    stages: Sequence[Stage],
    x: NDArray[Any],
    factors: Sequence[tuple[NDArray[Any], NDArray[Any]]] = (),
    samples: tuple[int, int] | None = None,
    limits: tuple[int, int] = (-32768, 32767),
) -> Tensor:
    """What ``_native.Network(stages, limits).run(x, factors, samples)`` must give."""
    depth, channels = samples or (8, 3)
    x = _integers(x)
    if stages[0][0] != "input":
        x = np.clip(x, *limits)
    for kind, form in stages:
        if kind == "input":
            x = _input(x, depth)
        elif kind == "product":
            x = _product(x, form)
        elif kind == "depthwise":
            x = _depthwise(x, form)
        elif kind == "block":
            x = _block(x, form)
        elif kind == "shuffle":
            x = _shuffle(x, form["r"])
        elif kind == "unshuffle":
            x = _unshuffle(x, form["r"])
        elif kind == "scale":
            m, s = factors[form["slot"]]
            x = _sat(rounded(x * _integers(m), s))
        elif kind == "pixels":
            x = _pixels(x, form, depth, channels)
        else:
            raise ValueError(f"unknown kind of stage: {kind}")
    return x


def rescale(x: NDArray[Any], m: NDArray[Any], s: NDArray[Any], low: int, high: int) -> Tensor:
    """clamp(round(x * m, s), low, high), for any s, in integers of any size."""
    wide = x.astype(object) * np.asarray(m).astype(object)
    result = np.empty(x.shape, np.int64)
    for at in np.ndindex(x.shape):
        v, shift = int(wide[at]), int(s[at[-1]])
        v = (v + (1 << (shift - 1))) >> shift if shift > 0 else v << -shift
        result[at] = min(max(v, low), high)
    return result
