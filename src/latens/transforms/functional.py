"""Colour and chroma transforms of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from latens.errors import ShapeError

__all__ = ["YCBCR_WEIGHTS", "rgb2ycbcr", "ycbcr2rgb", "yuv_420_to_444", "yuv_444_to_420"]

Planes = tuple[Tensor, Tensor, Tensor]

# Luma weights (K_r, K_g, K_b), which sum to one.
YCBCR_WEIGHTS = {"ITU-R_BT.709": (0.2126, 0.7152, 0.0722)}


def _check(image: Tensor) -> None:
    if (
        not isinstance(image, Tensor)
        or not image.is_floating_point()
        or image.ndim not in (3, 4)
        or image.shape[-3] != 3
    ):
        got = f"{image.dtype} {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
        raise ShapeError(f"expected a floating-point tensor (3, H, W) or (N, 3, H, W), but got {got}")


def rgb2ycbcr(rgb: Tensor) -> Tensor:
    """RGB to YCbCr with the weights of ITU-R BT.709, full range.

    Args:
        rgb: ``(3, H, W)`` or ``(N, 3, H, W)``, values from 0 to 1.

    Returns:
        The same shape; Cb and Cr have their zero at 0.5.

    Raises:
        ShapeError: another shape, or not floating-point.
    """
    _check(rgb)
    k_r, k_g, k_b = YCBCR_WEIGHTS["ITU-R_BT.709"]
    r, g, b = rgb.unbind(-3)
    y = k_r * r + k_g * g + k_b * b
    cb = 0.5 * (b - y) / (1 - k_b) + 0.5
    cr = 0.5 * (r - y) / (1 - k_r) + 0.5
    return torch.stack((y, cb, cr), -3)


def ycbcr2rgb(ycbcr: Tensor) -> Tensor:
    """Undo :func:`rgb2ycbcr`. Values are not clamped.

    Raises:
        ShapeError: not ``(3, H, W)`` or ``(N, 3, H, W)``, or not floating-point.
    """
    _check(ycbcr)
    k_r, k_g, k_b = YCBCR_WEIGHTS["ITU-R_BT.709"]
    y, cb, cr = ycbcr.unbind(-3)
    r = y + 2 * (1 - k_r) * (cr - 0.5)
    b = y + 2 * (1 - k_b) * (cb - 0.5)
    g = (y - k_r * r - k_b * b) / k_g
    return torch.stack((r, g, b), -3)


def yuv_444_to_420(yuv: Tensor | Planes, mode: str = "avg_pool") -> Planes:
    """Halve the chroma planes by averaging 2x2 samples.

    Args:
        yuv: ``(N, 3, H, W)``, or three tensors ``(N, 1, H, W)``; H and W even.
        mode: ``"avg_pool"``.

    Returns:
        Y ``(N, 1, H, W)``; U and V ``(N, 1, H/2, W/2)``.

    Raises:
        ShapeError: another mode, or not three planes.
    """
    if mode != "avg_pool":
        raise ShapeError(f'expected mode "avg_pool", but got {mode!r}')
    y, u, v = _planes(yuv.chunk(3, 1) if isinstance(yuv, Tensor) else yuv)
    return y, F.avg_pool2d(u, 2), F.avg_pool2d(v, 2)


def yuv_420_to_444(yuv: Planes, mode: str = "bilinear", return_tuple: bool = False) -> Tensor | Planes:
    """Double the chroma planes by interpolation; samples are at pixel centres.

    Args:
        yuv: Y ``(N, 1, H, W)``; U and V ``(N, 1, H/2, W/2)``.
        mode: ``"bilinear"``, ``"bicubic"`` or ``"nearest"``.
        return_tuple: three tensors instead of one.

    Returns:
        ``(N, 3, H, W)``, or three tensors ``(N, 1, H, W)``.

    Raises:
        ShapeError: another mode, or not three planes of fitting sizes.
    """
    if mode not in ("bilinear", "bicubic", "nearest"):
        raise ShapeError(f'expected mode "bilinear", "bicubic" or "nearest", but got {mode!r}')
    y, u, v = _planes(yuv)
    align_corners = None if mode == "nearest" else False
    u, v = (F.interpolate(plane, scale_factor=2, mode=mode, align_corners=align_corners) for plane in (u, v))
    if return_tuple:
        return y, u, v
    if not y.shape == u.shape == v.shape:
        raise ShapeError(
            f"chroma planes become {tuple(u.shape)} and {tuple(v.shape)}, but Y is {tuple(y.shape)}"
        )
    return torch.cat((y, u, v), 1)


def _planes(yuv: object) -> Planes:
    if (
        not isinstance(yuv, (tuple, list))
        or len(yuv) != 3
        or not all(isinstance(plane, Tensor) and plane.ndim == 4 for plane in yuv)
    ):
        raise ShapeError("expected three tensors (N, 1, H, W), or for 4:4:4 one (N, 3, H, W)")
    y, u, v = yuv
    return y, u, v
