"""A checkpoint with its tables made anew, and its hash in its name: ``python -m compressai.utils.update_model``."""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import torch

from latens.errors import UnavailableError
from latens.models import CompressionModel
from latens.zoo import entries, entry, load_pretrained
from latens.zoo.pretrained import read_checkpoint

__all__ = ["main", "setup_args"]

_ALIASES = {
    "factorized-prior": "bmshj2018-factorized",
    "jarhp": "mbt2018",
    "mean-scale-hyperprior": "mbt2018-mean",
    "scale-hyperprior": "bmshj2018-hyperprior",
}


def setup_args() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description="Make the tables of a trained model, for coding with it.")
    add = parser.add_argument
    add("filepath", help="the checkpoint")
    add("-n", "--name", help="of the file to write; that of the checkpoint by default")
    add("-d", "--dir", help="folder to write to; this one by default")
    add("--no-update", action="store_true", help="leave the tables as they are")
    add(
        "-a",
        "--architecture",
        default="scale-hyperprior",
        choices=[*_ALIASES, *(known.id for known in entries())],
        help="(default: %(default)s)",
    )
    return parser


def main(argv: list[str]) -> None:
    """Run with these arguments.

    Raises:
        SystemExit: wrong arguments.
        UnavailableError: there is no such file.
        EOFError: it is empty.
        LatensError: it is no checkpoint, or of another architecture.
    """
    arguments = setup_args().parse_args(argv)
    path = Path(arguments.filepath).resolve()
    if not path.is_file():
        raise UnavailableError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise EOFError(f"{path}: an empty file")
    architecture = _ALIASES.get(arguments.architecture, arguments.architecture)
    model_class: type[CompressionModel] = entry(architecture).model_class()
    model = model_class.from_state_dict(load_pretrained(read_checkpoint(path)))
    if not arguments.no_update:
        model.update(force=True)
    suffix = "".join(path.suffixes)
    name = arguments.name or path.name.removesuffix(suffix)
    folder = Path.cwd() if arguments.dir is None else Path(arguments.dir)
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / f"{name}{suffix}.part"
    torch.save(model.state_dict(), written)
    digest = hashlib.sha256(written.read_bytes()).hexdigest()
    written.rename(folder / f"{name}-{digest[:8]}{suffix}")
    if not arguments.name and folder.resolve() == path.parent:
        path.unlink()  # as in CompressAI, the new file takes the place of the old one


if __name__ == "__main__":
    main(sys.argv[1:])
