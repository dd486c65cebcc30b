"""Convolutions that see only what is decoded already."""

# TorchScript does not understand annotations that are put off (from __future__ import annotations).
from typing import Any

import torch
from torch import Tensor, nn

from latens.errors import ModelError

__all__ = ["CheckerboardMaskedConv2d", "MaskedConv2d"]


class MaskedConv2d(nn.Conv2d):
    """Convolution with some of its taps switched off, by default those that come later in raster order.

    The mask is the buffer ``mask``, shaped like the weight. It is applied to the values of the weight but not
    to its gradient, so gradients (and their norm) are those of an ordinary convolution.

    Van den Oord et al., "Conditional image generation with PixelCNN decoders", NeurIPS 2016.

    Args:
        *args, **kwargs: see :class:`torch.nn.Conv2d`.
        mask_type: ``"A"`` sees what is above, and to the left in its own row; ``"B"`` sees the centre too.
        mask: any other mask, ones and zeros that broadcast to the weight's shape
            ``(out_channels, in_channels / groups, height, width)``.

    Raises:
        ModelError: another ``mask_type``.
    """

    mask: Tensor

    def __init__(self, *args: Any, mask_type: str = "A", mask: Tensor | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if mask_type not in ("A", "B"):
            raise ModelError(f'mask_type must be "A" or "B", not {mask_type!r}')
        if mask is None:
            height, width = self.kernel_size
            mask = self._mask(height, width, mask_type == "B")
        self.register_buffer("mask", mask.to(self.weight).expand_as(self.weight).clone())

    @staticmethod
    def _mask(height: int, width: int, centre: bool) -> Tensor:
        positions = torch.arange(height * width).view(height, width)
        middle = (height // 2) * width + width // 2
        return positions <= middle if centre else positions < middle

    def forward(self, x: Tensor) -> Tensor:
        """As :class:`torch.nn.Conv2d`."""
        masked = self.weight + (self.weight * self.mask - self.weight).detach()
        return self._conv_forward(x, masked, self.bias)  # type: ignore[no-any-return]


class CheckerboardMaskedConv2d(MaskedConv2d):
    """Convolution that sees the four nearest neighbours and every second position from there.

    He, Zheng, Sun, Wang, Qin, "Checkerboard context model for efficient learned image compression",
    CVPR 2021.

    Args:
        *args, **kwargs: see :class:`torch.nn.Conv2d`.
        mask_type: ``"A"`` does not see the centre, ``"B"`` does.
    """

    @staticmethod
    def _mask(height: int, width: int, centre: bool) -> Tensor:
        rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
        distance = (rows - height // 2).abs() + (columns - width // 2).abs()
        mask = distance % 2 == 1
        return mask | (distance == 0) if centre else mask
