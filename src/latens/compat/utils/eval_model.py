"""A model on a folder of images: ``python -m compressai.utils.eval_model pretrained|checkpoint FOLDER -a ...``."""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from latens.compat.utils.common import (
    add_evaluation_options,
    announce,
    dump,
    find_files,
    finish,
    label,
    load_checkpoint,
    means,
    numbers,
)
from latens.entropy_models import set_entropy_coder
from latens.evaluate.codecs.base import Pixels
from latens.evaluate.codecs.learned import to_pixels
from latens.evaluate.quality import measure, read_rgb
from latens.models import CompressionModel
from latens.ops import compute_padding
from latens.zoo import entry, image_models

__all__ = ["inference", "main", "setup_args"]

_STEPS = "10.0000,7.1715,5.1832,3.7211,2.6833,1.9305,1.3897,1.0000"


@torch.no_grad()
def inference(
    model: CompressionModel, pixels: Pixels, *, estimate: bool = False, **options: Any
) -> dict[str, float]:
    """Code an image and decode it.

    Args:
        model: ready to code.
        pixels: uint8 ``(height, width, 3)``.
        estimate: take the rate from the likelihoods instead.
        **options: of the model's ``compress`` and ``decompress``, or of its ``forward``.

    Returns:
        ``psnr-rgb`` in dB, ``ms-ssim-rgb`` (not of images smaller than 161 pixels), ``bpp``, and both times in seconds.
    """
    height, width = pixels.shape[:2]
    pad, unpad = compute_padding(height, width, min_div=64)
    x = torch.from_numpy(pixels).to(next(model.parameters()).device).permute(2, 0, 1)[None].float() / 255
    x = F.pad(x, pad)
    start = time.perf_counter()
    if estimate:
        out: dict[str, Any] = model(x, **options)
        bits = -sum(float(likelihoods.double().log2().sum()) for likelihoods in out["likelihoods"].values())
        middle = (start + time.perf_counter()) / 2
    else:
        coder: Any = model
        coded = coder.compress(x, **options)
        bits = sum(8 * len(part[0]) for part in coded["strings"])
        middle = time.perf_counter()
        out = coder.decompress(coded["strings"], coded["shape"], **options)
    end = time.perf_counter()
    measures = measure(pixels, to_pixels(F.pad(out["x_hat"], unpad)), ("psnr_rgb", "ms_ssim"))
    psnr = measures["psnr_rgb"]
    found = {"psnr-rgb": float("inf") if psnr is None else psnr}
    if measures.get("ms_ssim") is not None:
        found["ms-ssim-rgb"] = float(measures["ms_ssim"] or 0.0)
    times = {"encoding_time": middle - start, "decoding_time": end - middle}
    return {**found, "bpp": bits / (height * width), **times}


def setup_args() -> argparse.ArgumentParser:
    """The options."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("dataset", help="folder of images")
    common.add_argument("--per-image", action="store_true", help="a JSON for each image as well; needs -d")
    common.add_argument(
        "--vbr_quantstep",
        dest="vbr_quantstepsizes",
        default=_STEPS,
        help="quantisation steps of a model of variable rate, as in 10.0,8.0,1.0",
    )
    common.add_argument(
        "--vbr_tr_stage",
        type=int,
        choices=[1, 2],
        default=2,
        help="1: fixed rate; 2: variable rate (default: %(default)s)",
    )
    parser = argparse.ArgumentParser(description="Evaluate a model on a folder of images.")
    add_evaluation_options(parser, common, list(image_models))
    return parser


def _load(arguments: argparse.Namespace, run: Any) -> CompressionModel:
    name = arguments.architecture
    if arguments.source == "pretrained":
        model = image_models[name](quality=run, metric=arguments.metric, pretrained=True, progress=False)
    else:
        model = load_checkpoint(entry(name).model_class(), run, update=not arguments.no_update)
    model.fast = arguments.half
    return model.to("cuda" if arguments.cuda and torch.cuda.is_available() else "cpu").eval()


def main(argv: list[str]) -> None:
    """Run with these arguments.

    Raises:
        SystemExit: wrong arguments, or no images.
        LatensError: weights that cannot be had or used, images that cannot be read.
    """
    parser = setup_args()
    arguments = parser.parse_args(argv)
    if arguments.source is None:
        parser.print_help(sys.stderr)
        raise SystemExit(1)
    paths = find_files(arguments.dataset)
    if not paths:
        raise SystemExit(f"{arguments.dataset}: no images in this folder")
    if arguments.per_image and not arguments.output_directory:
        raise SystemExit("--per-image needs a folder: -d")
    set_entropy_coder(arguments.entropy_coder)
    torch.set_num_threads(1)  # times are those of one thread, as there
    variable = arguments.architecture.endswith("-vbr")
    runs: list[Any]
    if arguments.source == "pretrained":
        runs = [None] if variable else numbers(arguments.qualities)
    else:
        runs = arguments.checkpoint_paths
    steps = sorted((float(step) for step in arguments.vbr_quantstepsizes.split(",") if step), reverse=True)
    results: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        model = _load(arguments, run)
        name = label(arguments, run)
        announce(arguments, name)
        for step in steps if variable else [None]:
            row = _evaluate(model, arguments, paths, name, step)
            for key, value in row.items():
                results[key].append(value)
    finish(arguments, results, arguments.output_directory)


def _evaluate(
    model: CompressionModel, arguments: argparse.Namespace, paths: list[Path], name: str, step: float | None
) -> dict[str, float]:
    options: dict[str, Any] = {}
    if step is not None:
        scale = torch.tensor(1 / step, device=next(model.parameters()).device)
        options = {"stage": arguments.vbr_tr_stage, "inputscale": scale}
        if not arguments.entropy_estimation:
            options["s"] = 0
        if arguments.vbr_tr_stage == 2:
            coder: Any = model
            coder.update(force=True, scale=scale)
    rows = []
    for path in paths:
        if arguments.verbose:
            print(f"{name}{'' if step is None else f' step {step:g}'}: {path}", file=sys.stderr)
        row = inference(model, read_rgb(path), estimate=arguments.entropy_estimation, **options)
        rows.append(row)
        if arguments.per_image:
            what = "entropy-estimation" if arguments.entropy_estimation else arguments.entropy_coder
            place = Path(arguments.output_directory) / path.parent.relative_to(arguments.dataset)
            content = {
                "source": path.stem,
                "name": arguments.architecture,
                "description": f"Inference ({what})",
                "results": row,
            }
            dump(content, place / f"{path.stem}-{name}.json")
    return means(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
