"""Convolutions whose weights are trained in the frequency domain."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

__all__ = ["SpectralConv2d", "SpectralConvTranspose2d"]


class _SpectralWeight(nn.Module):
    """Replaces the parameter ``weight`` of a convolution by ``weight_transformed``, its Fourier transform.

    Optimisers like Adam scale each coefficient by its own history. In the frequency domain the coefficients of
    a smooth filter have very different histories, in the spatial domain they all have the same.
    """

    kernel_size: tuple[int, ...]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        weight = cast(Tensor, self._parameters.pop("weight"))
        self.weight_transformed = nn.Parameter(torch.fft.rfftn(weight.detach(), dim=(-2, -1), norm="ortho"))

    @property
    def weight(self) -> Tensor:
        """The weight in the spatial domain."""
        size = self.kernel_size
        return cast(Tensor, torch.fft.irfftn(self.weight_transformed, s=size, dim=(-2, -1), norm="ortho"))


class SpectralConv2d(_SpectralWeight, nn.Conv2d):  # type: ignore[override]
    """:class:`torch.nn.Conv2d` trained in the frequency domain.

    Ballé, Laparra, Simoncelli, "End-to-end optimized image compression", ICLR 2017, appendix.

    Args:
        *args, **kwargs: see :class:`torch.nn.Conv2d`.
    """


class SpectralConvTranspose2d(_SpectralWeight, nn.ConvTranspose2d):  # type: ignore[override]
    """:class:`torch.nn.ConvTranspose2d` trained in the frequency domain; see :class:`SpectralConv2d`.

    Args:
        *args, **kwargs: see :class:`torch.nn.ConvTranspose2d`.
    """
