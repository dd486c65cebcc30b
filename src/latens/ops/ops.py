"""Rounding with a straight-through gradient, and padding to a multiple."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latens.errors import ShapeError

__all__ = ["compute_padding", "quantize_ste", "ste_round"]

Padding = tuple[int, int, int, int]


class _RoundStraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        return grad_output


def quantize_ste(x: Tensor) -> Tensor:
    """Round to the nearest integer (halves to even) with the gradient of the identity.

    Theis, Shi, Cunningham, Huszár, "Lossy image compression with compressive autoencoders", ICLR 2017.
    """
    return _RoundStraightThrough.apply(x)  # type: ignore[no-any-return,no-untyped-call]


ste_round = quantize_ste
"""The name that models of some years ago import."""


def compute_padding(
    in_h: int, in_w: int, *, out_h: int | None = None, out_w: int | None = None, min_div: int = 1
) -> tuple[Padding, Padding]:
    """Padding that centres an ``in_h`` x ``in_w`` image in a larger one, and the padding that undoes it.

    Args:
        in_h: height before padding, pixels.
        in_w: width before padding, pixels.
        out_h: height after padding; by default the next multiple of ``min_div``.
        out_w: width after padding; by default the next multiple of ``min_div``.
        min_div: what the padded height and width have to be multiples of.

    Returns:
        ``(pad, unpad)``, each ``(left, right, top, bottom)`` as :func:`torch.nn.functional.pad` takes it.

    Raises:
        ShapeError: ``min_div`` is not positive, or ``out_h`` or ``out_w`` is not a multiple of it.
    """
    if min_div < 1:
        raise ShapeError(f"min_div must be at least 1, not {min_div}")
    sizes = []
    for name, size, wanted in (("out_h", in_h, out_h), ("out_w", in_w, out_w)):
        target = -(-size // min_div) * min_div if wanted is None else wanted
        if target % min_div:
            raise ShapeError(f"{name} must be a multiple of min_div={min_div}, but it is {target}")
        before = (target - size) // 2
        sizes.append((before, target - size - before))
    (top, bottom), (left, right) = sizes
    return (left, right, top, bottom), (-left, -right, -top, -bottom)
