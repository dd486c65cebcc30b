"""Measures of one image against another, the same for every codec: on 8-bit RGB pixels as a viewer gets them."""

from __future__ import annotations

import importlib
import importlib.util
import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage

from latens.errors import CodecError, DatasetError, ShapeError
from latens.evaluate.colour import LUMA
from latens.io import printable, read_image
from latens.metrics import ssimulacra2

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MEASURES", "METRICS", "Measure", "absent", "find_images", "measure", "read_rgb"]

Pixels = npt.NDArray[np.uint8]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".ppm", ".jp2", ".gif")
_PROGRAM_SECONDS = 120.0


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


def measure(
    original: Pixels,
    decoded: Pixels,
    metrics: Iterable[str] = ("psnr_rgb", "psnr_y", "ms_ssim"),
    absent: dict[str, str] | None = None,
) -> dict[str, float | None]:
    """All measures that are asked for and can be had.

    Args:
        original: uint8 ``(height, width, 3)``.
        decoded: likewise.
        metrics: of :data:`METRICS`.
        absent: takes, by metric, why one could not be had: its package or program is not installed or fails, or the
            image is too small for it.

    Returns:
        By metric, the value; None for an error that has no finite PSNR, as there is none.

    Raises:
        ShapeError: the images are not of one size.
    """
    if original.shape != decoded.shape or decoded.dtype != np.uint8:
        raise ShapeError(
            f"expected uint8 of {original.shape} from the decoder, got {decoded.dtype} of {decoded.shape}"
        )
    found: dict[str, float | None] = {}
    missing = {} if absent is None else absent
    for metric in metrics:
        about = MEASURES[metric]
        if min(original.shape[:2]) < about.least_side:
            missing[metric] = f"not defined for images of less than {about.least_side} pixels on a side"
        elif reason := about.absent():
            missing[metric] = reason
        else:
            try:
                found[metric] = about.value(original, decoded)
            except (
                Exception
            ) as error:  # whatever a package or program of others raises must not cost the rest
                missing[metric] = f"fails: {printable(str(error))[:200] or type(error).__name__}"
    return found


def absent(metrics: Iterable[str] = ()) -> dict[str, str]:
    """Which measures cannot be had here at all, all of them by default, and why."""
    wanted = metrics or MEASURES
    return {metric: reason for metric in wanted if (reason := MEASURES[metric].absent())}


def _covariance(original: Pixels, decoded: Pixels) -> npt.NDArray[np.float64]:
    """How errors of the channels go together; both kinds of PSNR follow from it. Integers in float64: exact."""
    difference = np.subtract(original, decoded, dtype=np.float64).reshape(-1, 3)
    return difference.T @ difference / len(difference)


def _psnr_rgb(original: Pixels, decoded: Pixels) -> float | None:
    return _db(float(np.trace(_covariance(original, decoded))) / 3)


def _psnr_y(original: Pixels, decoded: Pixels) -> float | None:
    return _db(float(LUMA @ _covariance(original, decoded) @ LUMA))


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
    return min(float(product.mean()), 1.0)


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


# ---- measures of others


def _find_butteraugli() -> str | None:
    return shutil.which("butteraugli_main") or shutil.which("butteraugli")


def _butteraugli(original: Pixels, decoded: Pixels) -> float:
    """The 3-norm over the picture, as libjxl's program computes it."""
    with tempfile.TemporaryDirectory(prefix="latens-") as folder:
        paths = [str(Path(folder) / name) for name in ("original.png", "decoded.png")]
        for pixels, path in zip((original, decoded), paths, strict=True):
            PilImage.fromarray(pixels).save(path, compress_level=1)
        command = [_find_butteraugli() or "butteraugli_main", *paths]
        done = subprocess.run(command, capture_output=True, timeout=_PROGRAM_SECONDS, check=False)
    norm = re.search(rb"3-norm: *([0-9.]+)", done.stdout)
    if done.returncode or norm is None:
        raise CodecError(
            f"{command[0]}: {done.stderr.decode(errors='replace').strip() or 'no 3-norm in its output'}"
        )
    return float(norm[1])


@cache
def _network(name: str) -> Callable[[Pixels, Pixels], float] | str:
    """A measure that a package of others computes, or why there is none. Nothing is downloaded."""
    package, make, weights = _NETWORKS[name]
    if importlib.util.find_spec(package) is None:
        return f"Python package {name if name != 'dists' else 'dists-pytorch'} is not installed"
    if weights:
        import torch

        folder = Path(torch.hub.get_dir()) / "checkpoints"
        if not list(folder.glob(weights)):
            return f"its weights, {weights}, are not in {printable(folder)}; they are not downloaded"
    try:
        return make(importlib.import_module(package))
    except Exception as error:  # packages that are broken raise anything
        return f"Python package {package} is broken: {printable(str(error))[:200] or type(error).__name__}"


def _make_lpips(package: Any) -> Callable[[Pixels, Pixels], float]:
    network = package.LPIPS(net="alex", verbose=False).eval()
    return lambda a, b: _without_gradient(network, 2 * _tensor(a) - 1, 2 * _tensor(b) - 1)


def _make_dists(package: Any) -> Callable[[Pixels, Pixels], float]:
    network = package.DISTS().eval()
    return lambda a, b: _without_gradient(network, _tensor(a), _tensor(b))


def _make_cvvdp(package: Any) -> Callable[[Pixels, Pixels], float]:
    import torch

    network = package.cvvdp(display_name="standard_4k", quiet=True, device=torch.device("cpu"))
    return lambda a, b: float(network.predict(b, a, dim_order="HWC")[0])


_NETWORKS: dict[str, tuple[str, Callable[[Any], Callable[[Pixels, Pixels], float]], str]] = {
    "lpips": ("lpips", _make_lpips, "alexnet-*.pth"),
    "dists": ("DISTS_pytorch", _make_dists, "vgg16-*.pth"),
    "cvvdp": ("pycvvdp", _make_cvvdp, ""),
}


def _without_gradient(network: Any, a: Tensor, b: Tensor) -> float:
    import torch

    with torch.no_grad():
        return float(network(a, b))


def _by_network(name: str) -> tuple[Callable[[Pixels, Pixels], float], Callable[[], str]]:
    def value(original: Pixels, decoded: Pixels) -> float:
        network = _network(name)
        if isinstance(network, str):
            raise CodecError(network)
        return network(original, decoded)

    def reason() -> str:
        network = _network(name)
        return network if isinstance(network, str) else ""

    return value, reason


# ---- all of them


@dataclass(frozen=True)
class Measure:
    """A measure of one image against another.

    Attributes:
        label: for people.
        unit: empty, or dB and the like.
        digits: that are worth showing.
        value: of an original and a decoded image, uint8 ``(height, width, 3)``.
        absent: why it cannot be had here; empty if it can.
        rising: whether more is better.
        least_side: of images, in pixels.
    """

    label: str
    unit: str
    digits: int
    value: Callable[[Pixels, Pixels], float | None]
    absent: Callable[[], str] = lambda: ""
    rising: bool = True
    least_side: int = 1


MEASURES: dict[str, Measure] = {
    "ssimulacra2": Measure("SSIMULACRA2", "", 2, ssimulacra2, least_side=8),
    "ms_ssim": Measure("MS-SSIM", "", 5, _ms_ssim, least_side=161),
    "butteraugli": Measure(
        "Butteraugli, 3-norm", "", 3, _butteraugli, rising=False, least_side=8,
        absent=lambda: "" if _find_butteraugli() else "program butteraugli_main (of libjxl) is not installed",
    ),
    "cvvdp": Measure("ColorVideoVDP", "JOD", 3, *_by_network("cvvdp")),
    "psnr_rgb": Measure("PSNR, RGB", "dB", 2, _psnr_rgb),
    "psnr_y": Measure("PSNR, luma", "dB", 2, _psnr_y),
    "lpips": Measure("LPIPS", "", 4, *_by_network("lpips"), rising=False, least_side=32),
    "dists": Measure("DISTS", "", 4, *_by_network("dists"), rising=False, least_side=32),
}  # fmt: skip
"""What can be measured, by the name that results give it."""

METRICS = tuple(MEASURES)
