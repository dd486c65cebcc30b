"""PSNR, SSIM and MS-SSIM."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from latens.errors import ShapeError

__all__ = ["ms_ssim", "mse", "psnr", "ssim"]

_WINDOW = 11
_SIGMA = 1.5
_K1, _K2 = 0.01, 0.03
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def mse(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of each image: ``(batch,)`` from two ``(batch, channels, height, width)``.

    Raises:
        ShapeError: shapes that differ or are not those of images.
    """
    _check(x, y)
    return (x - y).square().flatten(1).mean(1)


def psnr(x: Tensor, y: Tensor, data_range: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB: ``(batch,)``; infinite for equal images.

    Args:
        x: ``(batch, channels, height, width)``.
        y: shaped like ``x``.
        data_range: difference between the largest and the smallest possible value.

    Raises:
        ShapeError: shapes that differ or are not those of images.
    """
    return 10 * torch.log10(data_range**2 / mse(x, y))


def ssim(x: Tensor, y: Tensor, data_range: float = 1.0) -> Tensor:
    """Structural similarity of each image, at most 1: ``(batch,)``.

    Gaussian window of 11x11 pixels, sigma 1.5, at positions where it fits inside the image; mean over
    positions and channels. Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility
    to structural similarity", IEEE Transactions on Image Processing, 2004.

    Args:
        x: ``(batch, channels, height, width)``, at least 11 pixels on each side.
        y: shaped like ``x``.
        data_range: difference between the largest and the smallest possible value.

    Raises:
        ShapeError: shapes that differ, or images that are too small.
    """
    _check(x, y, _WINDOW)
    luminance, contrast = _similarity(x, y, data_range)
    return (luminance * contrast).flatten(1).mean(1)


def ms_ssim(x: Tensor, y: Tensor, data_range: float = 1.0) -> Tensor:
    """Multi-scale structural similarity of each image, 0 to 1: ``(batch,)``.

    Five scales, each half the size of the one before; per channel, then averaged over channels. Negative
    factors count as zero. Wang, Simoncelli, Bovik, "Multiscale structural similarity for image quality
    assessment", Asilomar 2003.

    Args:
        x: ``(batch, channels, height, width)``, more than 160 pixels on each side.
        y: shaped like ``x``.
        data_range: difference between the largest and the smallest possible value.

    Raises:
        ShapeError: shapes that differ, or images that are too small for five scales.
    """
    _check(x, y, (_WINDOW - 1) * 2 ** (len(_SCALE_WEIGHTS) - 1) + 1)
    product = torch.ones(x.shape[:2], dtype=x.dtype, device=x.device)
    for scale, weight in enumerate(_SCALE_WEIGHTS):
        luminance, contrast = _similarity(x, y, data_range)
        last = scale == len(_SCALE_WEIGHTS) - 1
        factor = (luminance * contrast if last else contrast).mean((2, 3))
        # relu(factor) ** weight would do, but its gradient at negative factors is infinity times zero.
        positive = factor > 0
        product = product * torch.where(positive, factor, 1.0) ** weight * positive
        if not last:
            # An odd side is padded with a zero on both ends, and the zeros count: the established definition.
            padding = [size % 2 for size in x.shape[2:]]
            x, y = (F.avg_pool2d(image, 2, padding=padding) for image in (x, y))
    return product.mean(1)


def _check(x: Tensor, y: Tensor, smallest: int = 1) -> None:
    if x.dim() != 4 or x.shape != y.shape or not x.is_floating_point() or not y.is_floating_point():
        raise ShapeError(
            "expected two equally shaped floating-point batches (batch, channels, height, width), but got "
            f"{tuple(x.shape)} of {x.dtype} and {tuple(y.shape)} of {y.dtype}"
        )
    if min(x.shape[2:]) < smallest:
        raise ShapeError(
            f"images must have at least {smallest} pixels on each side for this metric, but have "
            f"{x.shape[2]}x{x.shape[3]}"
        )


def _similarity(x: Tensor, y: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
    """Luminance similarity, and contrast-structure similarity, at every position of the window."""
    batch, channels, height, width = x.shape
    offsets = torch.arange(_WINDOW, dtype=x.dtype, device=x.device) - _WINDOW // 2
    window = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    window = window / window.sum()

    # All five maps go through the window together, as channels: as a batch they would take 15 times longer.
    maps = torch.stack((x, y, x * x, y * y, x * y)).reshape(1, -1, height, width)
    kernel = window.view(1, 1, -1, 1).expand(maps.shape[1], 1, -1, 1)
    maps = F.conv2d(maps, kernel, groups=maps.shape[1])
    maps = F.conv2d(maps, kernel.transpose(2, 3), groups=maps.shape[1])
    mean_x, mean_y, square_x, square_y, product = maps.reshape(5, batch, channels, *maps.shape[-2:])

    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    mean_xy, mean_xx, mean_yy = mean_x * mean_y, mean_x * mean_x, mean_y * mean_y
    luminance = (2 * mean_xy + c1) / (mean_xx + mean_yy + c1)
    contrast = (2 * (product - mean_xy) + c2) / ((square_x - mean_xx) + (square_y - mean_yy) + c2)
    return luminance, contrast
