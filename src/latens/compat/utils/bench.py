"""Other codecs on a folder of images: ``python -m compressai.utils.bench CODEC FOLDER -q 20,50,80``."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from latens.compat.utils.codecs import CODECS, Codec
from latens.compat.utils.common import dump, find_files, means, numbers

__all__ = ["collect", "main", "setup_args"]


def _run(codec: Codec, path: Path, quality: int, metrics: list[str]) -> dict[str, float]:
    row: dict[str, float] = codec.run(path, quality, metrics)
    return row


def collect(
    codec: Codec, dataset: str, qps: list[int], metrics: list[str], num_jobs: int = 1
) -> dict[str, list[float]]:
    """Means over the images of a folder, a list with a value per quality for each measure.

    Raises:
        SystemExit: no images.
        CodecError: the codec fails.
    """
    paths = find_files(dataset)
    if not paths:
        raise SystemExit(f"{dataset}: no images in this folder")
    work = [(codec, path, quality, metrics) for quality in qps for path in paths]
    # Threads are enough: codecs are native code, or programs.
    with ThreadPoolExecutor(num_jobs) as pool:
        rows = list(pool.map(_run, *zip(*work, strict=True))) if work else []
    found = [means(rows[i * len(paths) : (i + 1) * len(paths)]) for i in range(len(qps))]
    return {key: [row[key] for row in found] for key in found[0]} if found else {}


def setup_args() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description="Measure a codec on a folder of images.")
    codecs = parser.add_subparsers(dest="codec", required=True)
    for name, kind in CODECS.items():
        add = codecs.add_parser(name, help=kind.__doc__).add_argument
        add("dataset", help="folder of images")
        add("-j", "--num-jobs", type=int, default=1, metavar="N", help="processes (default: %(default)s)")
        add("-q", "--qps", default="75", help="settings of the codec, as in 20,50 (default: %(default)s)")
        add(
            "--metrics",
            nargs="*",
            default=["psnr-rgb", "ms-ssim-rgb"],
            choices=["psnr-rgb", "ms-ssim-rgb"],
            help="what to measure (default: both)",
        )
        kind.setup_args(codecs.choices[name])
    return parser


def main(argv: list[str]) -> None:
    """Run with these arguments.

    Raises:
        SystemExit: wrong arguments, or no images.
        LatensError: a codec that is not there or fails, images that cannot be read.
    """
    arguments = setup_args().parse_args(argv)
    codec = CODECS[arguments.codec](arguments)
    qps = numbers(arguments.qps)
    results = collect(codec, arguments.dataset, qps, arguments.metrics, arguments.num_jobs)
    content: dict[str, Any] = {"name": codec.name, "description": codec.description, "results": results}
    print(dump(content))


if __name__ == "__main__":
    main(sys.argv[1:])
