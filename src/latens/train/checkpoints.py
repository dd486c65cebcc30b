"""Checkpoints of runs: written whole or not at all, read without running anything in them."""

from __future__ import annotations

import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from latens import zoo
from latens.errors import LatensError, TrainingError
from latens.io import check_output, printable
from latens.models import CompressionModel
from latens.models.latens_base import LatensBase
from latens.models.video import LatensVideo
from latens.train.objectives import model_of

__all__ = ["load_average", "read_checkpoint", "save_weights", "write_checkpoint"]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint: tensors and plain values only, never code.

    Raises:
        TrainingError: it cannot be read.
    """
    try:
        if zipfile.is_zipfile(path):
            # torch.load takes altered bytes for weights: it computes no checksum.
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice to programmers
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the zip, the pickle or the system does
        raise TrainingError(f"{printable(path)}: not a checkpoint ({_reason(error)})") from error
    if not isinstance(state, dict):
        raise TrainingError(f"{printable(path)}: not a checkpoint of a training run")
    return state


def _reason(error: Exception) -> str:
    """Why something cannot be read, for people; what torch says of it is advice to programmers."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, EOFError):
        return "the file is empty"
    if type(error).__name__ == "UnpicklingError":
        return "damaged, or it holds more than weights, which could run code"
    return "damaged or incomplete"


def write_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint: to a temporary file first, so that a kill never leaves half of one.

    Raises:
        TrainingError: it cannot be written; the one before is kept.
    """
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError | RuntimeError):
            # What torch reports of a full disk is where in its source it noticed.
            cause = error if isinstance(error, OSError) else error.__context__
            reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else "is the disk full?"
            kept = "; the one before is kept" if path.exists() else ""
            raise TrainingError(
                f"{printable(path.parent)}: cannot save the checkpoint at step {state['step']}{kept} "
                f"({printable(reason)})"
            ) from error
        raise


def load_average(path: Path) -> nn.Module:
    """The averaged weights of a run, from its ``checkpoint.pt``: a model of the run's architecture.

    Raises:
        TrainingError: the file is not a checkpoint of a training run.
    """
    state = read_checkpoint(path)
    try:
        model = model_of(state["architecture"])
        model.load_state_dict(state["average"])
    except (LatensError, KeyError, IndexError, TypeError, RuntimeError, AttributeError) as error:
        raise TrainingError(f"{printable(path)}: not a checkpoint of a training run") from error
    return model


def save_weights(checkpoint: Path, output: Path, name: str, notes: str = "", *, force: bool = False) -> None:
    """Write the weights file (safetensors) of a run's averaged weights.

    It is what :func:`latens.zoo.load` takes, and what files are coded with.

    Args:
        checkpoint: ``checkpoint.pt`` of a run.
        output: of the file, ``.safetensors``.
        name: identifier that files made with these weights carry.
        notes: stored with the weights.
        force: replace an existing file.

    Raises:
        TrainingError: the file is not a checkpoint of a training run.
        ModelError: a bad name, or weights that are not finite or cannot be made exact.
        OutputError: the file cannot be written.
    """
    check_output(output, force=force, inputs=[checkpoint])
    model = load_average(checkpoint)
    if isinstance(model, LatensVideo):
        # Loaded models are kept, so that this is the one that the networks were made with.
        image = zoo.load(str(read_checkpoint(checkpoint)["architecture"]["image_model"]))
        zoo.save(model, output, name, notes, image=image, force=force)
        return
    if not isinstance(model, LatensBase | CompressionModel):
        raise TrainingError(f"{printable(checkpoint)}: {type(model).__name__} has no weights file")
    if isinstance(model, CompressionModel):
        # Quantiles are no weights; an average of them says little.
        model.update(force=True, update_quantiles=True)
    zoo.save(model, output, name, notes, force=force)
