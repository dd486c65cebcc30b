"""Measures of one image against another, the same for every codec: on 8-bit RGB pixels as a viewer gets them."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from latens.errors import DatasetError, ShapeError
from latens.evaluate.colour import LUMA
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
    pixels = read_image(path).to_8_bits().pixels
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
    covariance: npt.NDArray[np.float64] | None = None
    for metric in metrics:
        if metric in ("psnr_rgb", "psnr_y"):
            if covariance is None:
                # Both errors follow from how those of the channels go together. Integers in float64: exact.
                difference = np.subtract(original, decoded, dtype=np.float64).reshape(-1, 3)
                covariance = difference.T @ difference / len(difference)
            both = np.trace(covariance) / 3 if metric == "psnr_rgb" else LUMA @ covariance @ LUMA
            found[metric] = _db(float(both))
        elif metric == "ms_ssim" and min(original.shape[:2]) >= LEAST_SIDE:
            found[metric] = _ms_ssim(original, decoded)
        elif metric == "lpips" and (network := _lpips()) is not None:
            found[metric] = float(network(_tensor(original) * 2 - 1, _tensor(decoded) * 2 - 1))
    return found


_STRIP = 32
_WINDOW = 11
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_C1, _C2 = np.float32(0.01**2), np.float32(0.03**2)
Planes = npt.NDArray[np.float32]


def _ms_ssim(original: Pixels, decoded: Pixels) -> float:
    """What :func:`latens.metrics.ms_ssim` is, without PyTorch, which most codecs do without, and in less time."""
    x, y = (
        np.ascontiguousarray(p.transpose(2, 0, 1), np.float32) / np.float32(255) for p in (original, decoded)
    )
    product = np.ones(3)
    for scale, weight in enumerate(_SCALE_WEIGHTS):
        last = scale == len(_SCALE_WEIGHTS) - 1
        product *= [
            max(_similarity(*planes, luminance=last), 0.0) ** weight for planes in zip(x, y, strict=True)
        ]
        if not last:
            x, y = _halved(x), _halved(y)
    return float(product.mean())


@cache
def _band(count: int) -> Planes:
    """The Gaussian window at so many places in a row, one place per column."""
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    band = np.zeros((count + _WINDOW - 1, count), np.float32)
    for place in range(count):
        band[place : place + _WINDOW, place] = window / window.sum()
    return band


def _similarity(x: Planes, y: Planes, *, luminance: bool) -> float:
    """Mean of contrast-structure similarity, times luminance similarity if wanted, of two planes in 0 to 1.

    Filters are products with band matrices, strip by strip, so that all that belongs to a strip stays in the cache.
    """
    height, width = (side - _WINDOW + 1 for side in x.shape)
    total = 0.0
    for top in range(0, height, _STRIP):
        count = min(_STRIP, height - top)
        a, b = (plane[top : top + count + _WINDOW - 1] for plane in (x, y))
        down = np.matmul(_band(count).T, np.stack((a, b, a * b, a * a + b * b))).reshape(-1, x.shape[1])
        across = np.empty((len(down), width), np.float32)
        for left in range(0, width, _STRIP):
            columns = min(_STRIP, width - left)
            part = down[:, left : left + columns + _WINDOW - 1]
            np.matmul(part, _band(columns), out=across[:, left : left + columns])
        mean_x, mean_y, product, squares = across.reshape(4, count, width)
        means, mean_squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
        found = (2 * (product - means) + _C2) / (squares - mean_squares + _C2)
        if luminance:
            found *= (2 * means + _C1) / (mean_squares + _C1)
        total += float(found.sum(dtype=np.float64))
    return total / float(height * width)


def _halved(planes: Planes) -> Planes:
    """Means of 2x2 samples; before an odd side there is a zero."""
    rows, columns = (side % 2 for side in planes.shape[1:])
    if rows or columns:
        planes = np.pad(planes, ((0, 0), (rows, 0), (columns, 0)))
    even, odd = planes[:, ::2], planes[:, 1::2]
    return (even[..., ::2] + even[..., 1::2] + odd[..., ::2] + odd[..., 1::2]) * np.float32(0.25)


def _tensor(pixels: Pixels) -> Tensor:
    import torch

    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 255.0


@cache
def _lpips() -> Callable[..., Any] | None:
    """The LPIPS network, if its package and the weights under it are there; nothing is downloaded."""
    if importlib.util.find_spec("lpips") is None:
        return None
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
