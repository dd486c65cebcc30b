"""The functions of :mod:`latens.transforms.functional` as objects, to be composed."""

from __future__ import annotations

from torch import Tensor

from latens.transforms import functional as F_transforms  # the name is part of the interface

__all__ = ["RGB2YCbCr", "YCbCr2RGB", "YUV420To444", "YUV444To420"]


class RGB2YCbCr:
    """See :func:`~latens.transforms.functional.rgb2ycbcr`."""

    def __call__(self, rgb: Tensor) -> Tensor:
        return F_transforms.rgb2ycbcr(rgb)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class YCbCr2RGB:
    """See :func:`~latens.transforms.functional.ycbcr2rgb`."""

    def __call__(self, ycbcr: Tensor) -> Tensor:
        return F_transforms.ycbcr2rgb(ycbcr)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class YUV444To420:
    """See :func:`~latens.transforms.functional.yuv_444_to_420`."""

    def __init__(self, mode: str = "avg_pool") -> None:
        self.mode = mode

    def __call__(self, yuv: Tensor | F_transforms.Planes) -> F_transforms.Planes:
        return F_transforms.yuv_444_to_420(yuv, mode=self.mode)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class YUV420To444:
    """See :func:`~latens.transforms.functional.yuv_420_to_444`."""

    def __init__(self, mode: str = "bilinear", return_tuple: bool = False) -> None:
        self.mode = mode
        self.return_tuple = return_tuple

    def __call__(self, yuv: F_transforms.Planes) -> Tensor | F_transforms.Planes:
        return F_transforms.yuv_420_to_444(yuv, mode=self.mode, return_tuple=self.return_tuple)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(return_tuple={self.return_tuple})"
