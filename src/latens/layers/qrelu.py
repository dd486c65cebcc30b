"""ReLU for integer networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["QReLU"]

_ALPHA = 0.9943258522851727


class QReLU(torch.autograd.Function):
    """Clamp to 0 ... 2^bit_depth - 1, with a gradient that fades out beyond instead of ending there.

    Ballé, Johnston, Minnen, "Integer networks for data compression with latent-variable models", ICLR 2019.
    Use as ``QReLU.apply(input, bit_depth, beta)``; a large ``beta`` (100) makes the gradient fade fast.
    """

    @staticmethod
    def forward(ctx: Any, input: Tensor, bit_depth: int, beta: float) -> Tensor:
        """``input`` clamped; any shape."""
        ctx.largest = 2**bit_depth - 1
        ctx.beta = beta
        ctx.save_for_backward(input)
        return input.clamp(0, ctx.largest)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        """Full gradient inside the range, ``exp(-(alpha |2 x / largest - 1|)^beta)`` of it outside."""
        (x,) = ctx.saved_tensors
        fade = torch.exp(-((_ALPHA * torch.abs(2 * x / ctx.largest - 1)) ** ctx.beta))
        inside = (x >= 0) & (x <= ctx.largest)
        return torch.where(inside, grad_output, grad_output * fade), None, None
