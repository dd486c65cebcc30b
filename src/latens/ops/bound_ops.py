"""A lower bound whose gradient can pull values back inside."""

# TorchScript does not understand annotations that are put off (from __future__ import annotations).
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LowerBound", "LowerBoundFunction", "lower_bound", "lower_bound_bwd", "lower_bound_fwd"]


def lower_bound_fwd(x: Tensor, bound: Tensor) -> Tensor:
    """``max(x, bound)``."""
    return torch.max(x, bound)


def lower_bound_bwd(x: Tensor, bound: Tensor, grad_output: Tensor) -> tuple[Tensor, None]:
    """Gradients of ``x`` and of the bound, from that of the result."""
    # A value below the bound keeps the gradients that would raise it; without them it is stuck for ever.
    return torch.where((x >= bound) | (grad_output < 0), grad_output, torch.zeros_like(grad_output)), None


class LowerBoundFunction(torch.autograd.Function):
    """:func:`lower_bound` for autograd; to be called with ``apply(x, bound)``, two tensors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: Tensor) -> Tensor:
        """See :func:`lower_bound_fwd`."""
        ctx.save_for_backward(x, bound)
        return lower_bound_fwd(x, bound)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        """See :func:`lower_bound_bwd`."""
        x, bound = ctx.saved_tensors
        return lower_bound_bwd(x, bound, grad_output)


def lower_bound(x: Tensor, bound: float | Tensor) -> Tensor:
    """``max(x, bound)``, where the gradient also passes below the bound if it would raise ``x``.

    Args:
        x: any floating-point tensor.
        bound: a number, or a tensor that broadcasts against ``x``. It receives no gradient.

    Returns:
        A tensor shaped like ``x``, nowhere below ``bound``.
    """
    if not isinstance(bound, Tensor):
        bound = torch.tensor(bound, dtype=x.dtype, device=x.device)
    if torch.is_grad_enabled() and x.requires_grad:
        return LowerBoundFunction.apply(x, bound)  # type: ignore[no-any-return,no-untyped-call]
    return torch.max(x, bound)


class LowerBound(nn.Module):
    """Module form of :func:`lower_bound`; the bound is the buffer ``bound`` of shape ``(1,)``.

    Args:
        bound: the smallest value that the output may take.
    """

    bound: Tensor

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.register_buffer("bound", torch.tensor([float(bound)]))

    @torch.jit.unused
    def lower_bound(self, x: Tensor) -> Tensor:
        """The same as calling the module."""
        return lower_bound(x, self.bound)

    def forward(self, x: Tensor) -> Tensor:
        """Bound ``x`` from below; any shape, shape kept. Scripted, it has the gradient of ``max``."""
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return torch.max(x, self.bound)
        return self.lower_bound(x)
