"""Rate-distortion curves of JSON results: ``python -m compressai.utils.plot -f RESULTS.json ... -m psnr``."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from latens.errors import ResultsError
from latens.evaluate.plot import BACKENDS, plot
from latens.evaluate.results import Curve
from latens.io import printable

__all__ = ["draw", "main", "read_curve", "setup_args"]


def read_curve(path: Path, metric: str, rate: str = "bpp") -> Curve:
    """The curve of a results file.

    Args:
        path: JSON with lists, or with these in ``"results"``.
        metric: name of a list; ``"psnr"`` and ``"ms-ssim"`` are those of RGB. MS-SSIM comes in dB.
        rate: name of the list of rates.

    Raises:
        ResultsError: the file cannot be read, or does not have them.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ResultsError(f"{printable(path)}: cannot be read ({printable(str(error))})") from error
    results = content.get("results", content) if isinstance(content, dict) else {}
    metric = f"{metric}-rgb" if metric in ("psnr", "ms-ssim") else metric
    for key in (metric, rate):
        if not isinstance(results, dict) or not isinstance(results.get(key), list):
            known = ", ".join(map(str, results)) if isinstance(results, dict) else "nothing"
            raise ResultsError(f"{printable(path)}: no list {key!r} in it; there are {printable(known)}")
    rates, values = results[rate], results[metric]
    if len(rates) != len(values) or not all(isinstance(v, int | float) for v in (*rates, *values)):
        raise ResultsError(f"{printable(path)}: as many numbers in {metric} as in {rate} are expected")
    if metric.startswith("ms-ssim"):
        values = [-10 * math.log10(1 - value) if value < 1 else math.inf for value in values]
    return Curve(
        str(content.get("name", path.name.split(".")[0])), list(map(float, rates)), list(map(float, values))
    )


def setup_args(metric: str = "psnr") -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description="Draw rate-distortion curves.")
    add = parser.add_argument
    add("-f", "--results-file", metavar="", nargs="*", required=True, help="JSON of bench or eval_model")
    add("-m", "--metric", metavar="", default=metric, help="measure (default: %(default)s)")
    add("-t", "--title", metavar="", help="title")
    add("-o", "--output", metavar="", help="picture to write")
    add("--figsize", metavar="", type=float, nargs=2, default=(9, 6), help="inches (default: %(default)s)")
    add("--axes", metavar="", type=float, nargs=4, help="limits: xmin xmax ymin ymax")
    add("--backend", metavar="", choices=BACKENDS, default=BACKENDS[0], help="(default: %(default)s)")
    add("--show", action="store_true", help="open it")
    return parser


def draw(arguments: argparse.Namespace, rate: str, rate_label: str) -> None:
    """Draw what the arguments say.

    Raises:
        ResultsError, OutputError: see :func:`read_curve` and :func:`latens.evaluate.plot.plot`.
    """
    curves: dict[str, Curve] = {}
    for file in map(Path, arguments.results_file):
        curve = read_curve(file, arguments.metric, rate)
        curves[curve.name if curve.name not in curves else f"{curve.name} ({file.stem})"] = curve
    output = arguments.output
    if output is None and arguments.backend == "plotly":
        output = "plot.html"
    options: dict[str, Any] = {"axes": tuple(arguments.axes)} if arguments.axes else {}
    plot(
        curves,
        None if output is None else Path(output),
        metric=f"{arguments.metric} [dB]",
        rate=rate_label,
        title=arguments.title or "",
        backend=arguments.backend,
        size=tuple(arguments.figsize),
        show=arguments.show,
        force=True,
        **options,
    )


def main(argv: list[str]) -> None:
    """Run with these arguments.

    Raises:
        SystemExit: wrong arguments.
        LatensError: see :func:`draw`.
    """
    draw(setup_args().parse_args(argv), "bpp", "Bit-rate [bpp]")


if __name__ == "__main__":
    main(sys.argv[1:])
