"""Rate-distortion on a folder of photographs: Latens against JPEG, WebP, AVIF and published curves.

    python benchmarks/kodak.py KODAK_FOLDER [--anchors kodak_rd.json] [--output build/kodak]

Every point is made of real files: written, measured in bytes with all headers, decoded again. A codec's curve is
the mean of bits per pixel and of RGB PSNR over the pictures at each quality, and BD-rate compares these curves:
the field's convention, and the only one possible with published curves. "Per picture" is the mean of the BD-rates
of single pictures. Results of the classical codecs are kept in the output folder and not computed twice.

``--anchors`` takes ``{"curves": {id: {"bpp": [...], "psnr_rgb_db": [...]}}}``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from common import CLASSICAL, Codec, latens_codec, machine, psnr, read_rgb, similarity
from latens.errors import CurveError
from latens.metrics import bd_rate
from latens.zoo import DEFAULT_MODEL

Points = npt.NDArray[np.float64]  # (pictures, qualities, 3): bits per pixel, PSNR, MS-SSIM

QUALITIES: Mapping[str, Sequence[float]] = {
    "Latens": (*range(0, 100, 8), 100),
    "JPEG": (4, 7, 10, 15, 20, 30, 40, 50, 60, 70, 80, 87, 92, 95),
    "WebP": (0, 5, 12, 20, 30, 40, 50, 60, 70, 78, 84, 90, 95, 98),
    "AVIF": (10, 20, 28, 36, 44, 52, 60, 67, 74, 80, 85, 90, 94),
}


def measure(
    codec: Codec, qualities: Sequence[float], photos: Sequence[Path], cache: dict[str, Any]
) -> Points:
    """Results of a codec, taken from the cache where it has them."""
    rows = []
    for path in track(photos, f"{codec.name:12}", transient=True):
        photo = read_rgb(path)
        content = hashlib.sha256(photo.tobytes()).hexdigest()[:16]
        row = []
        for quality in qualities:
            key = f"{codec.name} {codec.version} quality={quality} of {content}"
            if key not in cache:
                data = codec.encode(photo, quality)
                decoded = codec.decode(data)
                rate = 8 * len(data) / (photo.width * photo.height)
                cache[key] = [rate, psnr(photo, decoded), similarity(photo, decoded)]
            row.append(cache[key])
        rows.append(row)
    return np.array(rows)


def compare(anchor: Points, test: Points, limits: tuple[float, float]) -> dict[str, Any]:
    """BD-rate of mean curves ``(qualities, 2 or more)``, and the PSNR range that was compared."""
    low, high = max(anchor[:, 1].min(), test[:, 1].min()), min(anchor[:, 1].max(), test[:, 1].max())
    curves = anchor[:, 0], anchor[:, 1], test[:, 0], test[:, 1]
    try:
        return {
            "bd_rate": bd_rate(*curves, psnr_range=limits),
            "bd_rate_cubic": bd_rate(*curves, psnr_range=limits, method="cubic"),
            "range": [max(low, limits[0]), min(high, limits[1])],
        }
    except CurveError as error:
        return {"error": str(error)}


def per_picture(anchor: Points, test: Points, limits: tuple[float, float]) -> float | None:
    """Mean of the BD-rates of single pictures; None if a picture's curves have no common range."""
    try:
        return float(
            np.mean(
                [
                    bd_rate(a[:, 0], a[:, 1], t[:, 0], t[:, 1], psnr_range=limits)
                    for a, t in zip(anchor, test, strict=True)
                ]
            )
        )
    except CurveError:
        return None


def curve_table(name: str, qualities: Sequence[float], curve: Points) -> Table:
    table = Table(title=name, title_justify="left")
    for heading in ("quality", "bpp", "PSNR dB", "MS-SSIM", "dB per bpp"):
        table.add_column(heading, justify="right")
    slopes = np.diff(curve[:, 1]) / np.diff(curve[:, 0])
    for quality, (rate, db, ssim), slope in zip(qualities, curve, ["", *slopes], strict=True):
        table.add_row(
            f"{quality:g}", f"{rate:.4f}", f"{db:.3f}", f"{ssim:.5f}", f"{slope:.2f}" if slope else ""
        )
    return table


def comparison_table(comparisons: Mapping[str, Mapping[str, Any]], limits: tuple[float, float]) -> Table:
    table = Table(
        title=f"Latens against others, {limits[0]:g} to {limits[1]:g} dB (negative: smaller files)",
        title_justify="left",
    )
    table.add_column("anchor", no_wrap=True)
    for heading in ("BD-rate %", "cubic %", "per picture %", "compared over dB"):
        table.add_column(heading, justify="right")
    for name, c in comparisons.items():
        if "error" in c:
            table.add_row(name, c["error"])
            continue
        single = c.get("per_picture")
        table.add_row(
            name,
            f"{c['bd_rate']:+.2f}",
            f"{c['bd_rate_cubic']:+.2f}",
            "" if single is None else f"{single:+.2f}",
            "{:.1f} to {:.1f}".format(*c["range"]),
        )
    return table


def read_anchors(path: Path) -> dict[str, Points]:
    """Published curves that were not optimised for MS-SSIM."""
    curves = json.loads(path.read_text())["curves"]
    return {
        name: np.array(sorted(zip(c["bpp"], c["psnr_rgb_db"], strict=True)))
        for name, c in curves.items()
        if "psnr_rgb_db" in c and "ms-ssim" not in name
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="photographs (.png)")
    parser.add_argument("--anchors", type=Path, help="published curves (JSON)")
    parser.add_argument("--output", type=Path, default=Path("build/kodak"))
    parser.add_argument("--pictures", type=int, help="only so many; published curves do not apply then")
    parser.add_argument(
        "--range", type=float, nargs=2, default=(28.0, 39.0), metavar=("LOW", "HIGH"), help="dB"
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a released model or a weights file")
    parser.add_argument("--fast", action="store_true", help="Latens in bfloat16")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    limits = (args.range[0], args.range[1])
    photos = sorted(args.folder.glob("*.png"))[: args.pictures]
    if not photos:
        parser.error(f"{args.folder}: no .png files")
    args.output.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False, width=110)  # in a log, too

    cache_path = args.output / "classical.json"
    cache = json.loads(cache_path.read_text()) if cache_path.exists() else {}
    points = {}
    for codec in CLASSICAL:
        points[codec.name] = measure(codec, QUALITIES[codec.name], photos, cache)
        cache_path.write_text(json.dumps(cache, indent=0))
    latens = latens_codec(args.model, args.fast)
    points["Latens"] = measure(latens, QUALITIES["Latens"], photos, {})

    curves = {name: p.mean(0) for name, p in points.items()}
    ours = curves["Latens"]
    comparisons = {}
    for codec in CLASSICAL:
        comparisons[codec.name] = compare(curves[codec.name], ours, limits) | {
            "per_picture": per_picture(points[codec.name], points["Latens"], limits)
        }
    if args.anchors and not args.pictures:
        for name, curve in read_anchors(args.anchors).items():
            comparisons[name] = compare(curve, ours, limits)

    for name, curve in curves.items():
        console.print(curve_table(name, QUALITIES[name], curve))
    console.print(comparison_table(comparisons, limits))
    top = float((ours[-1, 1] - ours[-2, 1]) / (ours[-1, 0] - ours[-2, 0]))
    console.print(
        f"Latens covers {ours[0, 0]:.3f} to {ours[-1, 0]:.3f} bpp; its slope at the top is {top:.2f} dB per bpp."
    )
    console.print(f"{len(photos)} pictures. {machine()}", style="dim")
    result = {
        "pictures": [path.name for path in photos],
        "machine": machine(),
        "codecs": {codec.name: codec.version for codec in (latens, *CLASSICAL)},
        "fast": args.fast,
        "range_db": limits,
        "curves": {
            name: {
                "quality": list(QUALITIES[name]),
                "bpp": curve[:, 0].tolist(),
                "psnr_rgb_db": curve[:, 1].tolist(),
                "ms_ssim_rgb": curve[:, 2].tolist(),
            }
            for name, curve in curves.items()
        },
        "comparisons": comparisons,
        "slope_at_the_top_db_per_bpp": top,
    }
    path = args.output / ("latens-fast.json" if args.fast else "latens.json")
    path.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"Written: {path}")


if __name__ == "__main__":
    main()
