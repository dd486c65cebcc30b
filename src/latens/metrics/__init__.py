"""Image quality: pure functions of two batches of images."""

from latens.metrics.quality import ms_ssim, mse, psnr, ssim

__all__ = ["ms_ssim", "mse", "psnr", "ssim"]
