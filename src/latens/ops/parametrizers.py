"""Reparametrisation that keeps a trained parameter above a minimum."""

# TorchScript does not understand annotations that are put off (from __future__ import annotations).
import torch
from torch import Tensor, nn

from latens.ops.bound_ops import LowerBound

__all__ = ["NonNegativeParametrizer"]


class NonNegativeParametrizer(nn.Module):
    """Stores ``sqrt(x + pedestal)`` and hands out ``x >= minimum``.

    Gradient steps on the square root shrink with the value, so that small coefficients settle instead of
    jumping across zero; the pedestal keeps the slope from vanishing at zero.
    Ballé, Laparra, Simoncelli, "Density modeling of images using a generalized normalization
    transformation", ICLR 2016.

    Args:
        minimum: smallest value handed out.
        reparam_offset: square root of the pedestal.
    """

    pedestal: Tensor

    def __init__(self, minimum: float = 0, reparam_offset: float = 2**-18) -> None:
        super().__init__()
        self.minimum = float(minimum)
        self.reparam_offset = float(reparam_offset)
        pedestal = self.reparam_offset**2
        self.register_buffer("pedestal", torch.tensor([pedestal]))
        self.lower_bound = LowerBound((self.minimum + pedestal) ** 0.5)

    def init(self, x: Tensor) -> Tensor:
        """The stored form of the values ``x`` (any shape): what the parameter has to be initialised with."""
        return torch.sqrt(torch.max(x + self.pedestal, self.pedestal))

    def forward(self, x: Tensor) -> Tensor:
        """The values behind the stored form ``x``: any shape, all at least ``minimum``."""
        bounded: Tensor = self.lower_bound(x)
        return bounded**2 - self.pedestal
