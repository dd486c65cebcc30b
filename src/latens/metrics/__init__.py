"""Image quality: pure functions of two batches of images, and of two rate-distortion curves.

What needs torch loads it when it is asked for: :func:`ssimulacra2` and the curves do without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from latens.metrics.bjontegaard import bd_psnr, bd_rate
from latens.metrics.perceptual import ssimulacra2

if TYPE_CHECKING:
    from latens.metrics.quality import ms_ssim, mse, psnr, ssim

__all__ = ["bd_psnr", "bd_rate", "ms_ssim", "mse", "psnr", "ssim", "ssimulacra2"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("latens.metrics.quality"), name)
    raise AttributeError(f"module 'latens.metrics' has no attribute {name!r}")
