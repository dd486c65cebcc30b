"""A video model on raw videos: ``python -m compressai.utils.video.eval_model pretrained FOLDER OUT -a ssf2020``."""

from __future__ import annotations

import argparse
import json
import struct
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
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
from latens.compat.utils.video_measures import (
    open_sequence,
    planes_of,
    psnr,
    squared_errors,
    structural_similarity,
    to_rgb,
)
from latens.entropy_models import set_entropy_coder
from latens.models import ScaleSpaceFlow
from latens.ops import compute_padding
from latens.transforms.functional import Planes, rgb2ycbcr, yuv_444_to_420
from latens.zoo import entry, video_models

__all__ = ["eval_model", "main", "setup_args"]

_MULTIPLE = 128


def _measures(original: Planes, decoded: Tensor, peak: float) -> dict[str, float]:
    """Of a frame: RGB from 0 to 1, ``(1, 3, height, width)``."""
    planes = yuv_444_to_420(rgb2ycbcr(decoded))
    rounded = [(plane * peak).clamp(0, peak).round() for plane in planes]
    errors = squared_errors(original, (rounded[0], rounded[1], rounded[2]))
    found = {f"psnr-{name}": psnr(error, peak) for name, error in zip("yuv", errors, strict=True)}
    found["psnr-yuv"] = (4 * found["psnr-y"] + found["psnr-u"] + found["psnr-v"]) / 6
    a, b = ((x * peak).clamp(0, peak).round() for x in (to_rgb(original, peak), decoded))
    error = float((a - b).double().square().mean())
    return {**found, **structural_similarity(a, b, peak), "mse-rgb": error, "psnr-rgb": psnr(error, peak)}


def _write(file: BinaryIO, code: dict[str, Any]) -> None:
    """A frame's strings: height and width of z, the number of strings, and each after its length, big-endian."""
    parts = (
        [(code["shape"][key], code["strings"][key]) for key in code["strings"]]
        if isinstance(code["strings"], dict)
        else [(code["shape"], code["strings"])]
    )
    for shape, strings in parts:
        file.write(struct.pack(">3I", *shape, len(strings)))
        for (string,) in strings:
            file.write(struct.pack(">I", len(string)) + string)


@torch.no_grad()
def eval_model(
    model: ScaleSpaceFlow, path: Path, binary: Path | None = None, *, keep: bool = False
) -> dict[str, float]:
    """Code a video, the first frame alone and each other given the one before.

    Args:
        model: ready to code.
        path: of raw 4:2:0 frames, whose name says what they are.
        binary: file to write; None takes the rate from the likelihoods.
        keep: leave it there.

    Returns:
        Means over frames of PSNR (dB) of the planes and of RGB, MS-SSIM, and the squared error of RGB; ``bitrate`` in
        kbit/s.

    Raises:
        VideoError, DatasetError: see :func:`latens.compat.utils.video_measures.open_sequence`.
    """
    sequence = open_sequence(path)
    device = next(model.parameters()).device
    peak = float(2**sequence.bitdepth - 1)
    padding, unpadding = compute_padding(sequence.height, sequence.width, min_div=_MULTIPLE)
    file = None if binary is None else binary.open("wb")
    rows, bits = [], 0.0
    reference: Tensor | None = None
    if file is not None:
        head = (sequence.height, sequence.width, sequence.bitdepth, len(sequence))
        file.write(struct.pack(">2IBI", *head))
    try:
        for frame in sequence:
            original = planes_of(frame, device)
            x = F.pad(to_rgb(original, peak), padding)
            if file is not None:
                coded = model.encode_keyframe(x) if reference is None else model.encode_inter(x, reference)
                _write(file, coded[1])
            else:
                coded = model.forward_keyframe(x) if reference is None else model.forward_inter(x, reference)
                bits -= sum(
                    float(values.double().log2().sum())
                    for part in coded[1].values()
                    for values in part.values()
                )
            reference = coded[0].clamp(0, 1)
            rows.append(_measures(original, F.pad(reference, unpadding), peak))
    finally:
        if file is not None:
            file.close()
    if binary is not None:
        bits = 8.0 * binary.stat().st_size
        if not keep:
            binary.unlink()
    rate = float(sequence.framerate or 0)
    return {**means(rows), "bitrate": bits * rate / (1000 * len(rows))}


def setup_args() -> argparse.ArgumentParser:
    """The options."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("dataset", help="folder of raw videos (.yuv)")
    common.add_argument("output", help="folder to write to, unless there is -d")
    common.add_argument("-f", "--force", action="store_true", help="measure again what has been measured")
    common.add_argument("--keep_binaries", action="store_true", help="keep the coded files")
    parser = argparse.ArgumentParser(description="Evaluate a video model on raw videos.")
    add_evaluation_options(parser, common, list(video_models))
    return parser


def _load(arguments: argparse.Namespace, run: Any) -> ScaleSpaceFlow:
    name = arguments.architecture
    if arguments.source == "pretrained":
        model = video_models[name](quality=run, metric=arguments.metric, pretrained=True, progress=False)
    else:
        model = load_checkpoint(entry(name).model_class(), run, update=not arguments.no_update)
    model.fast = arguments.half
    assert isinstance(model, ScaleSpaceFlow)
    return model.to("cuda" if arguments.cuda and torch.cuda.is_available() else "cpu").eval()


def main(argv: list[str]) -> None:
    """Run with these arguments.

    Raises:
        SystemExit: wrong arguments, or no videos.
        LatensError: weights that cannot be had or used, videos that cannot be read.
    """
    parser = setup_args()
    arguments = parser.parse_args(argv)
    if arguments.source is None:
        parser.print_help(sys.stderr)
        raise SystemExit(1)
    paths = find_files(arguments.dataset, (".yuv",))
    if not paths:
        raise SystemExit(f"{arguments.dataset}: no .yuv file in this folder")
    set_entropy_coder(arguments.entropy_coder)
    folder = arguments.output_directory or arguments.output
    pretrained = arguments.source == "pretrained"
    runs: list[Any] = numbers(arguments.qualities) if pretrained else arguments.checkpoint_paths
    results: dict[str, list[Any]] = defaultdict(list)
    for run in runs:
        model = _load(arguments, run)
        name = label(arguments, run)
        announce(arguments, name)
        rows = [_evaluate(model, arguments, path, Path(folder), name) for path in paths]
        results["q"].append(name)
        for key, value in means(rows).items():
            results[key].append(value)
    finish(arguments, results, folder)


def _evaluate(
    model: ScaleSpaceFlow, arguments: argparse.Namespace, path: Path, folder: Path, name: str
) -> dict[str, float]:
    target = folder / path.parent.relative_to(arguments.dataset) / f"{path.stem}-{name}.json"
    if target.is_file() and not arguments.force:
        known: dict[str, float] = json.loads(target.read_bytes())["results"]
        return known
    if arguments.verbose:
        print(f"{name}: {path}", file=sys.stderr)
    target.parent.mkdir(parents=True, exist_ok=True)
    binary = None if arguments.entropy_estimation else target.with_suffix(".bin")
    row = eval_model(model, path, binary, keep=arguments.keep_binaries)
    what = "entropy-estimation" if arguments.entropy_estimation else arguments.entropy_coder
    content = {
        "source": path.stem,
        "name": arguments.architecture,
        "description": f"Inference ({what})",
        "results": row,
    }
    dump(content, target)
    return row


if __name__ == "__main__":
    main(sys.argv[1:])
