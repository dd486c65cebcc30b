"""Shares of the channels of a latent that are coded at some positions first, and at others later.

Within a square of 2x2 or 4x4 positions that repeats, each share has positions of its own in each step.

Li, Li, Lu, "Neural video compression with diverse contexts", CVPR 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["HALVES", "Offset", "blank", "every", "fill", "select"]

Offset = tuple[int, int]
"""Row and column within a square that repeats."""

HALVES: tuple[Offset, ...] = ((0, 0), (0, 1), (1, 0), (1, 1))
"""The positions of a square of 2x2, row by row: for each quarter of the channels one."""


def every(x: Tensor, group: int, groups: int, offset: Offset, period: int) -> Tensor:
    """A view: a share of the channels at one of every ``period`` x ``period`` positions."""
    size = x.shape[1] // groups
    return x[:, group * size : (group + 1) * size, offset[0] :: period, offset[1] :: period]


def blank(x: Tensor, channels: int, factor: int = 1) -> Tensor:
    """Zeros of another number of channels and size, in the same memory layout."""
    by_position = x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if by_position else torch.contiguous_format
    size = (x.shape[0], channels, factor * x.shape[2], factor * x.shape[3])
    return torch.zeros(size, dtype=x.dtype, device=x.device).contiguous(memory_format=layout)


def select(x: Tensor, shares: list[list[Offset]]) -> Tensor:
    """What a step codes, shares of channels on top of each other: ``(B, C, H, W)`` to ``(B, C / shares, H, W)``."""
    count = len(shares)
    period = 4 if count == 8 else 2
    out = blank(x, x.shape[1] // count)
    for k, offsets in enumerate(shares):
        for offset in offsets:
            every(out, 0, 1, offset, period).copy_(every(x, k, count, offset, period))
    return out


def fill(part: Tensor, into: Tensor, shares: list[list[Offset]]) -> None:
    """Undo :func:`select`: write what a step has decoded to where it belongs."""
    count = len(shares)
    period = 4 if count == 8 else 2
    for k, offsets in enumerate(shares):
        for offset in offsets:
            every(into, k, count, offset, period).copy_(every(part, 0, 1, offset, period))
