"""Latens on the Kodak set against other codecs and published curves: the table and the plots of the README.

    python benchmarks/kodak.py KODAK_FOLDER [--others RESULTS] [--write]

Latens is measured now, with ``latens.evaluate``: real files, counted with all headers, decoded again; the default model
by measures that follow the eye, and the one tuned for PSNR by that. The other codecs were measured by the same harness;
their curves lie in ``docs/evidence/measured.json``, so that only what changes takes time. They are renewed by ``latens
bench KODAK_FOLDER -o RESULTS`` with the specifications in that file, and ``--others RESULTS``.
``docs/evidence/published.json`` holds curves that others have published. Results image by image stay in the output
folder. A measure that is not installed here, or that a codec was not measured by, is left open in the table.

A codec's curve is the mean of bits per pixel and of the measure over the images at each setting, and BD-rate compares
these curves: the field's convention, and the only one possible with published curves.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from latens.evaluate import Curve, Plan, Results, bench, make_codec, read_curves, table
from latens.evaluate.plot import plot
from latens.evaluate.quality import MEASURES
from latens.zoo import DEFAULT_MODEL, tuned

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
    "avif": "AVIF (Pillow, 4:4:4, speed 4, tune iq)",
    "avif:tune=ssimulacra2": "AVIF (the same, tune ssimulacra2)",
    "avif:tune=psnr": "AVIF (the same, tune psnr)",
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
    "jpeg": "JPEG", "webp": "WebP", "jxl": "JPEG XL", "avif": "AVIF", "avif:tune=ssimulacra2": "AVIF, tune ssimulacra2",
    "hevc": "HEVC (x265)", "av1": "AV1 (SVT)",
    "vvc:preset=fast": "VVC (VVenC)", "compressai-mbt2018-mean_mse": "mbt2018-mean, published",
    "compressai-cheng2020-anchor_mse": "cheng2020-anchor, published", "vtm": "VTM, published",
}  # fmt: skip

LIMITS = {
    "ssimulacra2": (30.0, 85.0),
    "ms_ssim": None,
    "butteraugli": None,
    "cvvdp": None,
    "psnr_rgb": (28.0, 39.0),
}
"""What is measured, and between which values curves are compared; None: as far as both reach."""

HEADINGS = {
    "ssimulacra2": "SSIMULACRA2", "ms_ssim": "MS-SSIM (dB)", "butteraugli": "Butteraugli", "cvvdp": "ColorVideoVDP",
    "psnr_rgb": "PSNR",
}  # fmt: skip


def measure(folder: Path, model: str, output: Path, *, threads: int, jobs: int) -> Results:
    """Latens, now; what an earlier call has measured with the same weights is kept."""
    codec = make_codec(model)
    # What was measured with the same weights, release and options is kept.
    options = " ".join(f"{key} {value}" for key, value in codec.options.items())
    path = output / (re.sub(r"\W+", "-", f"{codec.version()} {options}") + ".json")
    plan = Plan(
        folder,
        (model,),
        {},
        {},
        tuple(LIMITS),
        repeats=1,
        threads=threads,
        jobs=jobs,
        keep_files=False,
    )
    with Progress(transient=True) as progress:
        task = progress.add_task(model, total=None)

        def show(done: int, total: int, _: str) -> None:
            progress.update(task, completed=done, total=total)

        # Results are published; where the pictures lie here is nobody's business.
        return bench(plan, path, command=["benchmarks/kodak.py", folder.name], progress=show)


def write_curves(results: Results, path: Path) -> None:
    """The curves of results, one line for each list."""
    measures = {name: results.curves(name) for name in LIMITS}
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


def comparable(curve: Curve, metric: str) -> Curve:
    """A curve that rises, of a measure whose differences mean the same everywhere."""
    if metric == "ms_ssim":
        decibels = [-10.0 * math.log10(max(1.0 - value, 1e-9)) for value in curve.quality]
        return replace(curve, quality=decibels)
    return curve if MEASURES[metric].rising else curve.mirrored()


def against(anchor: Curve, ours: Curve, metric: str) -> dict[str, Any]:
    """How Latens compares with one codec."""
    curves = {"anchor": comparable(anchor, metric), "ours": comparable(ours, metric)}
    return table(curves, "anchor", LIMITS[metric])["ours"]


def sign(value: float) -> str:
    return f"{value:+.1f} %".replace("-", "\u2212")


def show_curve(console: Console, ours: dict[str, Curve], title: str) -> None:
    """What a model reaches, setting by setting."""
    shown = Table(title=title, title_justify="left")
    first = next(iter(ours.values()))
    for heading in ("quality", "bpp", *(HEADINGS[metric] for metric in ours)):
        shown.add_column(heading, justify="right")
    for i, (setting, bpp) in enumerate(zip(first.settings, first.bpp, strict=True)):
        values = [f"{curve.quality[i]:.{MEASURES[metric].digits}f}" for metric, curve in ours.items()]
        shown.add_row(f"{setting:g}", f"{bpp:.4f}", *values)
    console.print(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="the 24 photographs")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "kodak")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a released model or a weights file")
    parser.add_argument("--psnr-model", default=tuned("psnr"), help="what is compared by PSNR")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--others", type=Path, help="results of 'latens bench': other codecs, measured anew")
    parser.add_argument("--write", action="store_true", help="renew the README and docs/evidence")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False, width=130)  # in a log, too

    ours: dict[str, dict[str, Curve]] = {}
    complete = True
    for model in dict.fromkeys((args.model, args.psnr_model)):
        results = measure(args.folder, model, args.output, threads=args.threads, jobs=args.jobs)
        complete = complete and len(results.images) == IMAGES
        found = {metric: list(results.curves(metric).values()) for metric in LIMITS}
        ours[model] = {metric: curves[0] for metric, curves in found.items() if curves}
        show_curve(console, ours[model], f"{model} on {len(results.images)} images")
        for metric, reason in results.absent.items():
            console.print(f"not measured: {metric}: {reason}")

    measured = Results.load(args.others) if args.others else None
    others: dict[str, dict[str, Curve]] = {}
    for metric in LIMITS:
        # Published curves of JPEG and WebP have the names of the measured ones, which count.
        curves = measured.curves(metric) if measured else read_curves(EVIDENCE / "measured.json", metric)
        others[metric] = read_curves(EVIDENCE / "published.json", metric) | curves
    if not complete:
        console.print(
            f"Curves of other codecs are of all {IMAGES} photographs: there is nothing to compare with."
        )
        if args.write:
            raise SystemExit("README.md is of all photographs; nothing was written")
        return

    used = {metric: args.psnr_model if metric == "psnr_rgb" else args.model for metric in LIMITS}
    columns = [metric for metric in LIMITS if metric in ours[used[metric]] and others[metric]]
    lines = [
        f"| against | {' | '.join(HEADINGS[metric] for metric in columns)} |",
        f"|---|{'---|' * len(columns)}",
        f"| *model* | {' | '.join(f'`{used[metric]}`' for metric in columns)} |",
    ]
    compared = Table(title="BD-rate", title_justify="left")
    for heading in ("against", *(HEADINGS[metric] for metric in columns)):
        compared.add_column(heading, justify="left" if heading == "against" else "right")
    for name, label in (MEASURED | PUBLISHED).items():
        cells = []
        for metric in columns:
            row = (
                against(others[metric][name], ours[used[metric]][metric], metric)
                if name in others[metric]
                else {}
            )
            cells.append(sign(row["bd_rate"]) if "bd_rate" in row else "")
        if any(cells):
            lines.append(f"| {label} | {' | '.join(cells)} |")
            compared.add_row(label, *cells)
    console.print(compared)
    reached = ours[args.model][columns[0]]
    covers = (
        f"One set of weights covers {reached.bpp[0]:.3f} to {reached.bpp[-1]:.2f} bits per pixel, "
        f"{HEADINGS[columns[0]]} {reached.quality[0]:.0f} to {reached.quality[-1]:.0f}."
    )
    console.print(covers)

    links = []
    for metric, limits, axes in (
        ("ssimulacra2", "", (0.06, 3.0, 0.0, 95.0)), ("psnr_rgb", " over RGB", (0.06, 3.0, 25.0, 42.0))
    ):  # fmt: skip
        if metric not in columns:
            continue
        drawn = {"Latens": ours[used[metric]][metric]}
        drawn |= {label: others[metric][name] for name, label in DRAWN.items() if name in others[metric]}
        file = f"kodak-{metric.split('_')[0]}.svg"
        plot(
            drawn, (EVIDENCE if args.write else args.output) / file, metric=metric, log=True, axes=axes,
            size=(8.5, 5.6), force=True, title=f"Kodak, 24 images: real files, mean {HEADINGS[metric]}{limits}",
            dashed=frozenset(label for name, label in DRAWN.items() if name in PUBLISHED),
        )  # fmt: skip
        links.append(f"![{HEADINGS[metric]} over bits per pixel](docs/evidence/{file})")
    text = "\n".join(lines) + "\n\n" + "\n".join(links) + "\n\n" + covers
    if not args.write:
        console.print(f"Written: {args.output}")
        return
    if measured is not None:
        write_curves(measured, EVIDENCE / "measured.json")
    readme = ROOT / "README.md"
    begin, end = "<!-- kodak: written by make evidence -->", "<!-- kodak: end -->"
    before, found_mark, rest = readme.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found_mark and closed):
        raise SystemExit(f"README.md has lost its marks {begin} and {end}")
    readme.write_text(f"{before}{begin}\n{text}\n{end}{after}")
    console.print("Written: README.md, docs/evidence")


if __name__ == "__main__":
    main()
