"""What the tools share."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latens.entropy_models import available_entropy_coders
from latens.evaluate.quality import SUFFIXES
from latens.models import CompressionModel
from latens.zoo import load_pretrained
from latens.zoo.pretrained import read_checkpoint

__all__ = ["add_evaluation_options", "dump", "find_files", "label", "load_checkpoint", "means", "numbers"]


def numbers(text: str) -> list[int]:
    """``"1,2,3"`` as numbers, in order."""
    return sorted(int(part) for part in text.split(",") if part)


def find_files(folder: str, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """The files with these suffixes below a folder, sorted."""
    return sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in suffixes and p.is_file())


def means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means of all that every row has."""
    keys = [key for key in rows[0] if all(key in row for row in rows)]
    return {key: sum(row[key] for row in rows) / len(rows) for key in keys}


def dump(content: Mapping[str, Any], *files: Path) -> str:
    """The JSON of results, also written to files."""
    text = json.dumps(content, indent=2)
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return text


def load_checkpoint(model_class: type[CompressionModel], path: str, *, update: bool) -> CompressionModel:
    """A model with the weights of a checkpoint, ready to code.

    Raises:
        ModelError, LimitError: see :func:`latens.zoo.pretrained.read_checkpoint` and ``from_state_dict``.
    """
    model = model_class.from_state_dict(load_pretrained(read_checkpoint(path)))
    if update:
        model.update(force=True)
    return model.eval()


def label(arguments: argparse.Namespace, run: Any) -> str:
    """What results call the weights of a run."""
    what = "entropy-estimation" if arguments.entropy_estimation else arguments.entropy_coder
    if arguments.source == "pretrained":
        return f"{arguments.architecture}-{arguments.metric}-{run}-{what}"
    return f"{Path(run).name[: -len('.pth.tar')]}-{what}"


def add_evaluation_options(
    parser: argparse.ArgumentParser, common: argparse.ArgumentParser, architectures: Sequence[str]
) -> None:
    """The sub-commands ``pretrained`` and ``checkpoint``, and what both take beside ``common``."""
    coders = available_entropy_coders()
    add = common.add_argument
    add("-a", "--architecture", choices=list(architectures), required=True, help="architecture")
    add(
        "-c",
        "--entropy-coder",
        choices=coders,
        default=coders[0],
        help="entropy coder (default: %(default)s)",
    )
    add("--cuda", action="store_true", help="run on the GPU")
    add("--half", action="store_true", help="bfloat16 in the image networks; what decides about bits is not")
    add("--entropy-estimation", action="store_true", help="rates from the likelihoods; nothing is coded")
    add("-v", "--verbose", action="store_true", help="say what is being evaluated")
    add("-m", "--metric", choices=["mse", "ms-ssim"], default="mse", help="what weights were trained for")
    add("-d", "--output_directory", default="", help="folder for the JSON")
    add("-o", "--output-file", default="", help="name of the JSON (default: architecture-entropy_coder.json)")
    sources = parser.add_subparsers(dest="source", help="where weights come from")
    pretrained = sources.add_parser("pretrained", parents=[common])
    pretrained.add_argument(
        "-q", "--quality", dest="qualities", default="1", help="as in 1,2,3 (default: %(default)s)"
    )
    checkpoint = sources.add_parser("checkpoint", parents=[common])
    checkpoint.add_argument(
        "-p", "--path", dest="checkpoint_paths", nargs="*", required=True, help="checkpoints"
    )
    checkpoint.add_argument("--no-update", action="store_true", help="keep the tables of the checkpoint")


def finish(arguments: argparse.Namespace, results: Mapping[str, Sequence[Any]], folder: str) -> None:
    """Print the results of all runs, and write them to the folder, if any."""
    what = "entropy estimation" if arguments.entropy_estimation else arguments.entropy_coder
    content = {
        "name": f"{arguments.architecture}-{arguments.metric}",
        "description": f"Inference ({what})",
        "results": results,
    }
    name = arguments.output_file or f"{arguments.architecture}-{what}"
    files = [(Path(folder) / name).with_suffix(".json")] if folder else []
    print(dump(content, *files))


def announce(arguments: argparse.Namespace, name: str) -> None:
    """Say on standard error which weights are next."""
    print(f"Using trained model {name}", file=sys.stderr)
