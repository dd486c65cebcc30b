"""Writes a model as ONNX graphs, tables and a description."""

from __future__ import annotations

import copy
import io
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from latens import format as ltn
from latens.convert import exact_entropy
from latens.convert.published import hyper_analysis
from latens.convert.research import ResearchPictures
from latens.errors import ModelError, OutputError
from latens.export.runner import FORMAT
from latens.io import printable
from latens.models.base import CompressionModel
from latens.runtime import ExactEntropy
from latens.runtime.arrays import write_arrays

__all__ = ["export"]

_OPSET = 17


def export(model: ResearchPictures | CompressionModel, folder: str | os.PathLike[str]) -> None:
    """Write a model for ONNX Runtime, as :class:`latens.export.Runner` takes it.

    Files: ``encoder.onnx`` (g_a and h_a), ``synthesis.onnx`` (g_s), ``entropy.safetensors`` (what decides about
    symbols, for :class:`latens.runtime.ExactEntropy`) and ``model.json``. Images and latents are ``(1, C, H, W)``, of
    any multiple of 64 pixels. The default model needs no export: its weights file runs without PyTorch.

    Args:
        model: a loaded model, or a trained one, whose entropy model is made exact first.
        folder: to be made; it must not exist.

    Raises:
        ModelError: a model that cannot be made exact, or a layer that ONNX does not have.
        OutputError: the folder exists or cannot be written, or the package ``onnx`` is not installed.
    """
    if not isinstance(model, ResearchPictures | CompressionModel):
        raise ModelError(
            "only published architectures are exported; the default model's files need no PyTorch as it is"
        )
    path = Path(folder)
    _check_folder(path)
    if find_spec("onnx") is None:
        raise OutputError("exporting models needs onnx: pip install 'latens[export]'")
    with torch.inference_mode(False), torch.enable_grad(), torch.device("cpu"):
        network = copy.deepcopy(model.network if isinstance(model, ResearchPictures) else model)
        # Where parameters ask for gradients, or where there are none at all, modules take ways that ONNX does not know.
        network = network.cpu().float().eval().requires_grad_(False)
        entropy = model.entropy if isinstance(model, ResearchPictures) else exact_entropy(network)
        # It checks that networks and integers fit.
        checked = ResearchPictures(type(network).__name__, "", network, entropy)
        description = {
            "format": FORMAT,
            "entropy_id": entropy.entropy_id,
            "skip": checked.skip,
        }
        files = {
            "entropy.safetensors": write_arrays(entropy.tensors(), {}),
            "model.json": json.dumps(description, indent=1).encode(),
        }
        try:
            files |= _classic(network, entropy)
        except (RuntimeError, TypeError) as error:
            raise ModelError(f"{type(network).__name__} cannot be exported: {str(error)[:300]}") from error
    _write(path, files)


# -- the folder --------------------------------------------------------------------------------------------------


def _check_folder(path: Path) -> None:
    shown = printable(path)
    if os.path.lexists(path):
        raise OutputError(f"{shown}: exists already; name a folder that does not")
    if not path.parent.is_dir():
        raise OutputError(f"{shown}: the folder {printable(path.parent)} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{shown}: the folder {printable(path.parent)} is not writable")


def _write(path: Path, files: Mapping[str, bytes]) -> None:
    """The folder appears with all of its files or not at all."""
    try:
        temporary = Path(tempfile.mkdtemp(prefix=".latens-", dir=path.parent))
        try:
            inner = temporary / "model"  # with the permissions of any new folder
            inner.mkdir()
            for name, data in files.items():
                (inner / name).write_bytes(data)
            inner.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{printable(path)}: cannot be written ({error.strerror})") from error


# -- float networks ----------------------------------------------------------------------------------------------


class _Encoder(nn.Module):
    def __init__(self, network: CompressionModel, hyper: bool) -> None:
        super().__init__()
        self.network, self.hyper = network, hyper

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        network = self.network
        y: Tensor = cast(nn.Module, network.g_a)(x)
        if not self.hyper:
            return (y,)
        return y, hyper_analysis(network, y)


def _classic(network: CompressionModel, entropy: ExactEntropy) -> dict[str, bytes]:
    x = torch.zeros(1, 3, ltn.GRID, 2 * ltn.GRID)
    side = ltn.GRID // 16
    y_hat = torch.zeros(1, entropy.y_channels or entropy.z_channels, side, 2 * side)
    outputs = ["y", "z"] if entropy.groups else ["y"]
    return {
        "encoder.onnx": _onnx(_Encoder(network, bool(entropy.groups)), {"x": x}, outputs),
        "synthesis.onnx": _onnx(cast(nn.Module, network.g_s), {"y_hat": y_hat}, ["x_hat"]),
    }


def _onnx(module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> bytes:
    """The file of a float network, for any height and width."""
    axes = {name: {2: f"{name}_height", 3: f"{name}_width"} for name in (*inputs, *outputs)}
    file = io.BytesIO()
    with warnings.catch_warnings():
        # Tracing warns of every check of a shape, and of a newer exporter that needs more packages.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            cast(Any, file),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )
    return file.getvalue()
