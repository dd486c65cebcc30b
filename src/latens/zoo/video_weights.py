"""Weights files of video models: as those of images, with the integers that files depend on."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from latens.errors import ModelError, TableError, UnknownModelError
from latens.io import atomic_write, check_output, printable
from latens.models.video.exact import ExactLatents
from latens.models.video.google import FLOW_UNITS, ScaleSpaceFlow
from latens.zoo.architectures import entry
from latens.zoo.pretrained import load_pretrained, read_checkpoint
from latens.zoo.weights import _canonical

__all__ = ["LoadedVideoModel", "load_video", "save_video"]

_FORMAT = "latens-weights-1"
_ARCHITECTURE = "ScaleSpaceFlow"
_MAX_BYTES = 1 << 30
_SUFFIX = ".safetensors"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PUBLISHED = re.compile(r"ssf2020-([1-9])")
_MAX_LEVELS = 8  # frames are multiples of 128


@dataclass(frozen=True, eq=False)
class LoadedVideoModel:
    """A model ready to code videos.

    Attributes:
        id: the name that goes into files.
        network: float networks, in evaluation mode.
        entropy: what decides about symbols, in integers.
        weights_id: SHA-256 of the weights file, 64 hex digits.
    """

    id: str
    network: ScaleSpaceFlow
    entropy: ExactLatents
    weights_id: str


def save_video(
    model: ScaleSpaceFlow, path: str | os.PathLike[str], name: str, notes: str = "", *, force: bool = False
) -> None:
    """Freeze a trained model and write its weights file.

    Args:
        model: trained; its ``flow_unit`` is stored, too.
        path: of the file, ``.safetensors``.
        name: identifier that files made with these weights will carry.
        notes: for the reader.
        force: replace an existing file.

    Raises:
        ModelError: a name that files cannot carry, or weights that are not finite or cannot be made exact.
        OutputError: the file cannot be written.
    """
    if Path(path).suffix != _SUFFIX:
        raise ModelError(f"{printable(path)}: the name of a weights file must end in {_SUFFIX}")
    check_output(path, force=force)
    atomic_write(path, _frozen(model, name, notes), force=force)


def _frozen(model: ScaleSpaceFlow, name: str, notes: str = "") -> bytes:
    if not _NAME.fullmatch(name):
        raise ModelError(f"model name {name!r}: expected 1 to 64 characters a-z, 0-9, '.', '_' or '-'")
    for key, value in model.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ModelError(f"{name}: {printable(key)} has values that are not finite")
    entropy = ExactLatents.freeze(model)
    # Freezing makes the tables that a model lacks.
    # Scale tables may be one tensor, which a file cannot say.
    tensors = {f"network.{k}": v.detach().cpu().clone().contiguous() for k, v in model.state_dict().items()}
    tensors |= {f"entropy.{k}": v for k, v in entropy.tensors().items()}
    config = {"num_levels": model.num_levels, "sigma0": model.sigma0, "flow_unit": model.flow_unit}
    metadata = {
        "format": _FORMAT,
        "name": name,
        "architecture": _ARCHITECTURE,
        "config": json.dumps(config),
        "notes": notes,
    }
    return _canonical(save_tensors(tensors, metadata))


def load_video(model: str | os.PathLike[str], *, flow_unit: str | None = None) -> LoadedVideoModel:
    """Load a video model.

    Args:
        model: a weights file; a checkpoint of CompressAI (``.pth.tar``, ``.pth``, ``.pt``) that holds CDF tables; or
            ``ssf2020-1`` to ``ssf2020-9``, the published weights, which are downloaded once.
        flow_unit: of a checkpoint or published weights; ``"corrected"`` if None. See
            :class:`latens.models.video.ScaleSpaceFlow`.

    Raises:
        UnknownModelError: no such model, or no such file.
        DownloadError: published weights cannot be downloaded.
        ModelError: the file is damaged, of another architecture, or a checkpoint without tables.
    """
    name = os.fspath(model)
    if not isinstance(model, os.PathLike) and (match := _PUBLISHED.fullmatch(name)):
        from latens.zoo.download import fetch

        path = fetch(entry("ssf2020").url(int(match[1]), "mse"), progress=True)
    else:
        path = Path(name)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnknownModelError(
            f"{printable(name)}: cannot be read ({printable(reason)}); give a weights file, a checkpoint, or "
            "ssf2020-1 to ssf2020-9"
        ) from error
    return _load_file(path.absolute(), status.st_mtime_ns, status.st_size, flow_unit)


@lru_cache(maxsize=2)
def _load_file(path: Path, mtime_ns: int, size: int, flow_unit: str | None) -> LoadedVideoModel:
    """Cached until the file changes."""
    shown = printable(path)
    if not path.is_file():
        raise UnknownModelError(f"{shown}: not a regular file")
    if size > _MAX_BYTES:
        raise ModelError(f"{shown}: larger than {_MAX_BYTES} bytes; not a weights file")
    if path.suffix == _SUFFIX:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UnknownModelError(f"{shown}: cannot be read ({error.strerror})") from error
        if _metadata(data).get("format") == _FORMAT:
            if flow_unit is not None:
                raise ModelError(f"{shown}: its unit of the flow is stored with it; leave flow_unit out")
            return _parse(data, shown)
    return _from_checkpoint(path, flow_unit or "corrected")


def _from_checkpoint(path: Path, flow_unit: str) -> LoadedVideoModel:
    model = ScaleSpaceFlow.from_state_dict(load_pretrained(read_checkpoint(path))).eval()
    model.flow_unit = flow_unit
    hyperpriors = (model.img_hyperprior, model.motion_hyperprior, model.res_hyperprior)
    if any(h.entropy_bottleneck.quantized_cdf.numel() == 0 for h in hyperpriors):
        raise ModelError(
            f"{printable(path)}: holds no CDF tables, and made anew they would not be the same on every machine; make "
            "a weights file of it once ('latens video freeze', latens.zoo.video_weights.save_video)"
        )
    stem = re.sub(r"[^a-z0-9._-]+", "-", path.name.split(".")[0].lower()).strip("-._")[:64]
    shown = printable(path)
    return _parse(_frozen(model, stem or "scale-space-flow"), shown)


def _metadata(data: bytes) -> dict[str, str]:
    """What a safetensors file says about itself; nothing if it is damaged, which loading will find."""
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + min(length, 1 << 24)])
        found = header.get("__metadata__", {})
    except (ValueError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}


def _parse(data: bytes, shown: str) -> LoadedVideoModel:
    try:
        tensors = load_tensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{shown}: not a sound safetensors file ({printable(str(error)[:200])})") from error
    metadata = _metadata(data)
    name = metadata.get("name", "")
    if metadata.get("architecture") != _ARCHITECTURE or not _NAME.fullmatch(str(name)):
        raise ModelError(
            f"{shown}: of architecture {printable(str(metadata.get('architecture')))[:80]}; expected {_ARCHITECTURE}"
        )
    config = _checked_config(metadata.get("config", ""), shown)
    network_state: dict[str, Tensor] = {}
    entropy_state: dict[str, Tensor] = {}
    for key, value in tensors.items():
        kind, _, rest = key.partition(".")
        if kind not in ("network", "entropy"):
            raise ModelError(
                f"{shown}: {printable(key)[:80]} is neither of the networks nor of the entropy model"
            )
        (network_state if kind == "network" else entropy_state)[rest] = value
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ModelError(f"{shown}: {printable(key)[:80]} has values that are not finite")
    try:
        network = ScaleSpaceFlow.from_state_dict(network_state).eval()
        entropy = ExactLatents.from_tensors(entropy_state)
    except (ModelError, TableError) as error:
        raise ModelError(f"{shown}: {error}") from error
    network.num_levels, network.sigma0 = config["num_levels"], config["sigma0"]
    network.flow_unit = config["flow_unit"]
    if entropy.channels != network_state["img_encoder.6.weight"].shape[0]:
        raise ModelError(f"{shown}: the entropy model does not fit the networks")
    return LoadedVideoModel(name, network, entropy, hashlib.sha256(data).hexdigest())


def _checked_config(text: str, shown: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
        levels, sigma, unit = config["num_levels"], config["sigma0"], config["flow_unit"]
        fits = (
            isinstance(levels, int)
            and 1 <= levels <= _MAX_LEVELS
            and isinstance(sigma, float)
            and 0 < sigma < 100
            and unit in FLOW_UNITS
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{shown}: its configuration is damaged") from error
    if not fits:
        raise ModelError(f"{shown}: its configuration is out of range: {printable(text)[:200]}")
    return {"num_levels": levels, "sigma0": sigma, "flow_unit": unit}
