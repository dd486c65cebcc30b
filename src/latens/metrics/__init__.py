"""Image quality: pure functions of two batches of images, and of two rate-distortion curves."""

from latens.metrics.bjontegaard import bd_psnr, bd_rate
from latens.metrics.quality import ms_ssim, mse, psnr, ssim

__all__ = ["bd_psnr", "bd_rate", "ms_ssim", "mse", "psnr", "ssim"]
