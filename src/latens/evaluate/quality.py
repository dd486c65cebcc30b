"""Measures of one image against another, the same for every codec: on 8-bit RGB pixels as a viewer gets them."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from latens.errors import DatasetError, ShapeError
from latens.evaluate.colour import luma
from latens.io import printable, read_image

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["METRICS", "find_images", "measure", "read_rgb"]

Pixels = npt.NDArray[np.uint8]

METRICS = ("psnr_rgb", "psnr_y", "ms_ssim", "lpips")
"""What can be measured. The higher the better, but for LPIPS."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".ppm", ".jp2", ".gif")
LEAST_SIDE = 161
"""MS-SSIM is not defined for images that are smaller."""


def find_images(folder: Path) -> list[Path]:
    """The image files of a folder (not of folders in it), or the one file that is given; sorted by name.

    Raises:
        DatasetError: there are none.
    """
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise DatasetError(f"{printable(folder)}: no such folder")
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise DatasetError(f"{printable(folder)}: no images in it ({', '.join(SUFFIXES)})")
    return found


def read_rgb(path: Path) -> Pixels:
    """An image file as 8-bit RGB. Grey becomes RGB, transparency and profiles are left out.

    Raises:
        ImageError: it cannot be read.
        LimitError: it is too large.
    """
    pixels = read_image(path).pixels
    return np.ascontiguousarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)


def _db(error: float) -> float | None:
    """PSNR of a mean squared error on 0 to 255; None for no error at all, since JSON knows no infinity."""
    return 10.0 * math.log10(255.0**2 / error) if error > 0.0 else None


def measure(original: Pixels, decoded: Pixels, metrics: Iterable[str] = METRICS) -> dict[str, float | None]:
    """All measures that are asked for and can be had.

    Args:
        original: uint8 ``(height, width, 3)``.
        decoded: likewise.
        metrics: of :data:`METRICS`. MS-SSIM is left out of images of less than 161 pixels on a side, LPIPS
            where its network is not installed.

    Returns:
        PSNR in dB (``psnr_rgb``: one error over all samples of the three channels; ``psnr_y``: of BT.709 luma,
        not rounded), None if equal; MS-SSIM over RGB; LPIPS (AlexNet).

    Raises:
        ShapeError: the images are not of one size.
    """
    if original.shape != decoded.shape or decoded.dtype != np.uint8:
        raise ShapeError(
            f"expected uint8 of {original.shape} from the decoder, got {decoded.dtype} of {decoded.shape}"
        )
    found: dict[str, float | None] = {}
    for metric in metrics:
        if metric == "psnr_rgb":
            difference = original.astype(np.float32) - decoded
            found[metric] = _db(float(np.mean(difference * difference, dtype=np.float64)))
        elif metric == "psnr_y":
            found[metric] = _db(float(np.mean((luma(original) - luma(decoded)) ** 2)))
        elif metric == "ms_ssim" and min(original.shape[:2]) >= LEAST_SIDE:
            from latens.metrics import ms_ssim

            found[metric] = float(ms_ssim(_tensor(original), _tensor(decoded)))
        elif metric == "lpips" and (network := _lpips()) is not None:
            found[metric] = float(network(_tensor(original) * 2 - 1, _tensor(decoded) * 2 - 1))
    return found


def _tensor(pixels: Pixels) -> Tensor:
    import torch

    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 255.0


@cache
def _lpips() -> Callable[..., Any] | None:
    """The LPIPS network, if its package and the weights under it are there; nothing is downloaded."""
    import torch

    if not list((Path(torch.hub.get_dir()) / "checkpoints").glob("alexnet-*.pth")):
        return None
    try:
        network = importlib.import_module("lpips").LPIPS(net="alex", verbose=False).eval()
    except (ImportError, OSError, RuntimeError):
        return None

    def call(a: Tensor, b: Tensor) -> Tensor:
        with torch.no_grad():
            return network(a, b)  # type: ignore[no-any-return]

    return call
