"""Latens on the Kodak set against other codecs and published curves: the table and the plot of the README.

    python benchmarks/kodak.py KODAK_FOLDER [--others RESULTS] [--write]

Latens is measured now, with ``latens.evaluate``: real files, counted with all headers, decoded again. The other codecs
were measured by the same harness; their curves lie in ``docs/evidence/measured.json``, so that only what changes takes
time. They are renewed by ``latens bench KODAK_FOLDER -o RESULTS`` with the specifications in that file, and
``--others RESULTS``. ``docs/evidence/published.json`` holds curves that others have published. Results image by image
stay in the output folder.

A codec's curve is the mean of bits per pixel and of RGB PSNR over the images at each setting, and BD-rate compares
these curves: the field's convention, and the only one possible with published curves.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from latens.evaluate import Curve, Plan, Results, bench, make_codec, read_curves, table
from latens.evaluate.plot import plot
from latens.zoo import DEFAULT_MODEL

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE = ROOT / "docs" / "evidence"
IMAGES = 24
SOURCE = (
    f"{IMAGES} Kodak photographs, real files with headers; means over them. benchmarks/kodak.py renews this."
)

MEASURED = {
    "jpeg": "JPEG (Pillow, optimised, progressive, 4:2:0)",
    "webp": "WebP (Pillow, method 6)",
    "jxl": "JPEG XL (effort 7)",
    "avif": "AVIF (Pillow, 4:4:4, speed 4)",
    "av1": "AV1 (SVT-AV1, preset 4, 4:2:0)",
    "hevc": "HEVC (x265, slow, 4:4:4)",
    "vvc:preset=fast": "VVC (VVenC, fast, 4:2:0)",
}
PUBLISHED = {
    "compressai-bmshj2018-factorized_mse": "`bmshj2018-factorized`, published",
    "compressai-bmshj2018-hyperprior_mse": "`bmshj2018-hyperprior`, published",
    "compressai-mbt2018-mean_mse": "`mbt2018-mean`, published",
    "compressai-mbt2018_mse": "`mbt2018`, published",
    "compressai-cheng2020-anchor_mse": "`cheng2020-anchor`, published",
    "paper-elic2022_mse": "ELIC, published",
    "bpg_444_x265_ycbcr": "BPG 4:4:4, published",
    "vtm": "VTM, published",
}
DRAWN = {
    "jpeg": "JPEG", "webp": "WebP", "jxl": "JPEG XL", "avif": "AVIF", "hevc": "HEVC (x265)", "av1": "AV1 (SVT)",
    "vvc:preset=fast": "VVC (VVenC)", "compressai-mbt2018-mean_mse": "mbt2018-mean, published",
    "compressai-cheng2020-anchor_mse": "cheng2020-anchor, published", "vtm": "VTM, published",
}  # fmt: skip


def measure(folder: Path, model: str, output: Path, *, fast: bool, threads: int, jobs: int) -> Results:
    """Latens, now; what an earlier call has measured with the same weights is kept."""
    spec = model + (":fast=yes" if fast else "")
    codec = make_codec(spec)
    # What was measured with the same weights, release and options is kept.
    options = " ".join(f"{key} {value}" for key, value in codec.options.items())
    path = output / (re.sub(r"\W+", "-", f"{codec.version()} {options}") + ".json")
    plan = Plan(
        folder,
        (spec,),
        {},
        {},
        ("psnr_rgb", "ms_ssim"),
        repeats=1,
        threads=threads,
        jobs=jobs,
        keep_files=False,
    )
    with Progress(transient=True) as progress:
        task = progress.add_task(spec, total=None)

        def show(done: int, total: int, _: str) -> None:
            progress.update(task, completed=done, total=total)

        # Results are published; where the pictures lie here is nobody's business.
        return bench(plan, path, command=["benchmarks/kodak.py", folder.name], progress=show)


def write_curves(results: Results, path: Path) -> None:
    """The curves of results, one line for each list."""
    measures = {name: results.curves(name) for name in ("psnr_rgb", "ms_ssim")}
    versions = {spec: about["version"] for spec, about in results.codecs.items()}
    rows = []
    for name, curve in measures["psnr_rgb"].items():
        lists = {"settings": curve.settings, "bpp": curve.bpp}
        lists |= {measure: curves[name].quality for measure, curves in measures.items() if name in curves}
        text = ",\n".join(
            f'   "{key}": {[round(value, 5) for value in values]}' for key, values in lists.items()
        )
        rows.append(f"  {json.dumps(name)}: {{\n{text}\n  }}")
    curves = ",\n".join(rows)
    head = f' "source": {json.dumps(SOURCE)},\n "versions": {json.dumps(versions)}'
    path.write_text(f'{{\n{head},\n "curves": {{\n{curves}\n }}\n}}\n')


def against(anchor: Curve, ours: Curve, limits: tuple[float, float]) -> dict[str, Any]:
    """How Latens compares with one codec."""
    return table({"anchor": anchor, "ours": ours}, "anchor", limits)["ours"]


def sign(value: float) -> str:
    return f"{value:+.1f} %".replace("-", "\u2212")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="the 24 photographs")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "kodak")
    parser.add_argument(
        "--range", type=float, nargs=2, default=(28.0, 39.0), metavar=("LOW", "HIGH"), help="dB"
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a released model or a weights file")
    parser.add_argument("--fast", action="store_true", help="in bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--others", type=Path, help="results of 'latens bench': other codecs, measured anew")
    parser.add_argument("--write", action="store_true", help="renew the README and docs/evidence")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    limits = (args.range[0], args.range[1])
    console = Console(highlight=False, width=110)  # in a log, too

    results = measure(
        args.folder, args.model, args.output, fast=args.fast, threads=args.threads, jobs=args.jobs
    )
    (ours,) = results.curves().values()
    measured = Results.load(args.others) if args.others else None
    others: dict[str, Curve] = {}
    if len(results.images) == IMAGES:
        # Published curves of JPEG and WebP have the names of the measured ones, which count.
        found = measured.curves() if measured else read_curves(EVIDENCE / "measured.json")
        others = read_curves(EVIDENCE / "published.json") | found
    else:
        console.print(
            f"Curves of other codecs are of all {IMAGES} photographs: there is nothing to compare with."
        )

    shown = Table(title=f"{ours.name} on {len(results.images)} images", title_justify="left")
    for heading in ("quality", "bpp", "PSNR dB", "dB per bpp"):
        shown.add_column(heading, justify="right")
    for i, (setting, bpp, db) in enumerate(zip(ours.settings, ours.bpp, ours.quality, strict=True)):
        slope = (db - ours.quality[i - 1]) / (bpp - ours.bpp[i - 1]) if i else 0.0
        shown.add_row(f"{setting:g}", f"{bpp:.4f}", f"{db:.3f}", f"{slope:.2f}" if i else "")
    console.print(shown)

    lines = ["| against | BD-rate |", "|---|---|"]
    compared = Table(title=f"BD-rate, {limits[0]:g} to {limits[1]:g} dB", title_justify="left")
    for heading in ("against", "BD-rate", "BD-PSNR dB", "compared over dB"):
        compared.add_column(heading, justify="left" if heading == "against" else "right")
    for name, label in (MEASURED | PUBLISHED).items():
        if name not in others:
            continue
        row = against(others[name], ours, limits)
        if "error" in row:
            compared.add_row(label, row["error"])
            continue
        lines.append(f"| {label} | {sign(row['bd_rate'])} |")
        span = "{:.1f} to {:.1f}".format(*row["range"])
        compared.add_row(label, sign(row["bd_rate"]), f"{row['bd_quality']:+.2f}", span)
    console.print(compared)
    slope = (ours.quality[-1] - ours.quality[-2]) / (ours.bpp[-1] - ours.bpp[-2])
    covers = (
        f"One set of weights covers {ours.bpp[0]:.3f} to {ours.bpp[-1]:.2f} bits per pixel ({ours.quality[0]:.1f} to "
        f"{ours.quality[-1]:.1f} dB); the slope at the top is {slope:.1f} dB per bit."
    )
    console.print(covers)

    if args.write and not others:
        raise SystemExit("README.md is of all photographs; nothing was written")
    drawn = {"Latens": ours} | {label: others[name] for name, label in DRAWN.items() if name in others}
    picture = EVIDENCE / "kodak.svg" if args.write else args.output / "kodak.svg"
    plot(
        drawn, picture, log=True, axes=(0.06, 3.0, 25.0, 42.0), size=(8.5, 5.6), force=True,
        title="Kodak, 24 images: real files, mean PSNR over RGB",
        dashed=frozenset(label for name, label in DRAWN.items() if name in PUBLISHED),
    )  # fmt: skip
    text = "\n".join(lines) + "\n\n![PSNR over bits per pixel](docs/evidence/kodak.svg)\n\n" + covers
    if not args.write:
        console.print(f"Written: {picture}")
        return
    if measured is not None:
        write_curves(measured, EVIDENCE / "measured.json")
    readme = ROOT / "README.md"
    begin, end = "<!-- kodak: written by make evidence -->", "<!-- kodak: end -->"
    before, found, rest = readme.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"README.md has lost its marks {begin} and {end}")
    readme.write_text(f"{before}{begin}\n{text}\n{end}{after}")
    console.print("Written: README.md, docs/evidence")


if __name__ == "__main__":
    main()
