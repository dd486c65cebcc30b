"""Weights files: safetensors that hold the float networks and the integers that files depend on."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from latens.convert import exact_entropy, freeze
from latens.errors import ModelError, TableError, UnknownModelError, WrongWeightsError
from latens.io import atomic_write, check_output, printable
from latens.models import CompressionModel
from latens.models.latens_base import LatensBase, LatensBaseConfig
from latens.runtime import ExactEntropy
from latens.zoo.architectures import entries, functions
from latens.zoo.cards import DEFAULT_MODEL, cards
from latens.zoo.obtain import obtain

__all__ = [
    "LoadedModel",
    "canonical",
    "frozen",
    "integers",
    "load",
    "load_released",
    "packed",
    "parse",
    "released_bytes",
    "save",
]

_FORMAT = "latens-weights-1"
_MAX_BYTES = 1 << 30
_SUFFIX = ".safetensors"
_BASE = "latens-base"
_Y_PER_Z = 4  # positions of y per position of z of the default model, in each direction
_PUBLISHED = re.compile(r"(?P<architecture>[a-z0-9-]+?)-(?P<quality>[1-9])(-(?P<metric>ms-ssim))?")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model ready to code files.

    Attributes:
        id: the name that goes into files.
        network: float networks, in evaluation mode: the default model, or a published architecture.
        entropy: what decides about symbols, in integers.
        weights_id: SHA-256 of the weights file, 64 hex digits.
    """

    id: str
    network: LatensBase | CompressionModel
    entropy: ExactEntropy
    weights_id: str

    @property
    def base(self) -> LatensBase:
        """The networks, of the default model's architecture.

        Raises:
            ModelError: they are of another.
        """
        if not isinstance(self.network, LatensBase):
            raise ModelError(
                f"{self.id}: expected the default model's architecture, got {type(self.network).__name__}"
            )
        return self.network


def save(
    model: LatensBase | CompressionModel,
    path: str | os.PathLike[str],
    name: str,
    notes: str = "",
    *,
    force: bool = False,
) -> None:
    """Freeze a trained model and write its weights file.

    What decides about symbols is stored as integers, made from the weights as stored. Weights of a published
    architecture keep their type; those of the default model go to float16 where that costs nothing measurable.

    Args:
        model: trained.
        path: of the file, ``.safetensors``.
        name: identifier that files made with these weights will carry.
        notes: recipe and log, for the reader.
        force: replace an existing file.

    Raises:
        ModelError: a name that files cannot carry, an architecture that is not of the zoo, or weights that are not
            finite or cannot be made exact.
        OutputError: the file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise ModelError(f"model name {name!r}: expected 1 to 64 characters a-z, 0-9, '.', '_' or '-'")
    if Path(path).suffix != _SUFFIX:
        raise ModelError(f"{printable(path)}: the name of a weights file must end in {_SUFFIX}")
    check_output(path, force=force)
    atomic_write(path, frozen(model, name, notes), force=force)


def frozen(model: LatensBase | CompressionModel, name: str, notes: str = "") -> bytes:
    """The weights file of a trained model."""
    state = {k: v.detach().cpu() for k, v in model.state_dict().items()}
    if isinstance(model, LatensBase):
        architecture, config = _BASE, model.config.to_dict()
        state = {k: v.half() if v.ndim == 4 else v.float() for k, v in state.items()}
        _check_finite(state, name)
        twin = LatensBase(model.config)
        twin.load_state_dict({k: v.float() for k, v in state.items()})
        entropy = freeze(twin)
    else:
        architecture, config = type(model).__name__, {}
        _architecture(architecture, name)
        _check_finite(state, name)
        entropy = exact_entropy(model)
        # Conversion makes the tables that a model lacks.
        state = {k: v.detach().cpu() for k, v in model.state_dict().items()}
    tensors = packed(state, entropy.tensors())
    metadata = {
        "format": _FORMAT,
        "name": name,
        "architecture": architecture,
        "config": json.dumps(config),
        "notes": notes,
    }
    return canonical(save_tensors(tensors, metadata))


def packed(state: Mapping[str, Tensor], entropy: Mapping[str, npt.NDArray[Any]]) -> dict[str, Tensor]:
    """What a weights file holds: the networks and the integers of the entropy model, under their prefixes."""
    # Groups of channels may share a scale table, and safetensors takes no tensors that share memory.
    tensors = {f"network.{k}": v.clone(memory_format=torch.contiguous_format) for k, v in state.items()}
    return tensors | {f"entropy.{k}": torch.from_numpy(v) for k, v in entropy.items()}


def integers(tensors: Mapping[str, Tensor]) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an entropy model.

    Raises:
        ModelError: one of them is of a type that it does not have.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in (torch.int16, torch.int32, torch.int64):
            raise ModelError(f"entropy model: {printable(name)[:80]} is {tensor.dtype}")
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _architecture(name: str, shown: str) -> type[CompressionModel]:
    """The class of a published architecture, by its name."""
    for known in entries():
        if known.architecture == name and known.media == "image":
            return known.model_class()
    raise ModelError(f"{shown}: {printable(name)[:80]} is not an image architecture of the zoo")


def canonical(data: bytes) -> bytes:
    """The same file with its metadata in alphabetical order: safetensors writes them in any order, and the
    same weights must give the same bytes, for their hash is their identity."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def load(model: str | os.PathLike[str] = DEFAULT_MODEL) -> LoadedModel:
    """Load a released model by its identifier, a published one by name and quality, or any weights file by its path.

    Args:
        model: an identifier; ``ARCHITECTURE-QUALITY`` or ``ARCHITECTURE-QUALITY-ms-ssim`` (``mbt2018-mean-3``), whose
            published weights are downloaded once; or a path: what has a slash in it or ends in ``.safetensors``.

    Raises:
        UnknownModelError: no such model, or no such file.
        DownloadError: published weights cannot be downloaded.
        WrongWeightsError: a released model's file is not the one that was released.
        ModelError: the file is damaged or of another architecture.
    """
    name = os.fspath(model)
    if not (isinstance(model, os.PathLike) or "/" in name or os.sep in name or name.endswith(_SUFFIX)):
        return _load_published(name) if _published(name) else load_released(name)
    path = Path(name)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return _load_file(path.absolute(), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def load_released(model: str, weights_dir: str | None = None) -> LoadedModel:
    """Load a released model by its identifier, which is never taken for a path: it may come from a file.

    Args:
        model: the identifier.
        weights_dir: folder with weights that are not in the package; see :func:`latens.zoo.obtain.obtain`.

    Raises:
        UnknownModelError, UnavailableError: neither this release nor the folder has the model.
        WrongWeightsError: its file is not the one that was released.
        DownloadError: it cannot be fetched.
    """
    loaded = parse(released_bytes(model, "float", weights_dir), model)
    if loaded.id != model:
        raise WrongWeightsError(f"the weights of {model} call themselves {loaded.id}; install Latens again")
    return loaded


def released_bytes(model: str, media: str, weights_dir: str | None = None) -> bytes:
    """The weights file of a released model, checked; see :func:`latens.zoo.obtain.obtain`."""
    return obtain(model, media, weights_dir)


def _published(name: str) -> tuple[str, int | None, str] | None:
    """Architecture, quality and metric, if the name is that of published weights."""
    match = _PUBLISHED.fullmatch(name)
    for known in entries():
        if known.media != "image" or not known.weights:
            continue
        if match and match["architecture"] == known.id and known.qualities:
            return known.id, int(match["quality"]), match["metric"] or "mse"
        if name == known.id and not known.qualities:
            return known.id, None, "mse"
    return None


@lru_cache(maxsize=4)
def _load_published(name: str) -> LoadedModel:
    architecture, quality, metric = _published(name) or (name, None, "mse")
    make = functions("image")[architecture]
    return parse(frozen(make(quality=quality, metric=metric, pretrained=True).eval(), name), name)


@lru_cache(maxsize=4)
def _load_file(path: Path, mtime_ns: int, size: int) -> LoadedModel:
    """Cached until the file changes."""
    return parse(_read(path), printable(path))


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            reason = "not a regular file" if path.exists() else "no such file"
            raise UnknownModelError(f"{printable(path)}: {reason}; {_known()}")
        if path.stat().st_size > _MAX_BYTES:
            raise ModelError(f"{printable(path)}: larger than {_MAX_BYTES} bytes; not a weights file")
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UnknownModelError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UnknownModelError(f"{printable(path)}: cannot be read ({printable(reason)}); {_known()}")


def _known() -> str:
    return f"released models: {', '.join(c.id for c in cards())}"


def _check_claim(config: LatensBaseConfig, state: dict[str, Tensor], shown: str) -> None:
    """Refuse a small file that claims huge networks, before they are allocated."""
    at8, at16 = (a + s for a, s in zip(config.analysis_blocks, config.synthesis_blocks, strict=True))
    # The matrices of a block, the bulk of all weights, have six times channels * inner elements.
    claimed = 6 * (at8 * config.N**2 + at16 * config.M * config.inner)
    held = sum(tensor.numel() for tensor in state.values())
    if claimed > held:
        raise ModelError(f"{shown}: its configuration claims more than {claimed} weights, it holds {held}")


def _check_finite(tensors: dict[str, Tensor], shown: str) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{shown}: {printable(name)} has values that are not finite")


def parse(data: bytes, shown: str) -> LoadedModel:
    """The model of a weights file, everything checked; ``shown`` is its name for messages."""
    try:
        tensors = load_tensors(data)
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        if metadata.get("format") != _FORMAT or not isinstance(metadata.get("architecture"), str):
            raise ModelError(f"{shown}: not a weights file of Latens ('latens update-model' makes one)")
        name = metadata["name"]
        stored = {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
        _check_finite(stored, shown)
        network = _network(metadata["architecture"], metadata["config"], stored, shown)
    except ModelError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ModelError(
            f"{shown}: damaged, or weights of another architecture ({printable(str(error)[:200])})"
        ) from error
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ModelError(f"{shown}: its name is not one that files can carry")
    network.eval().requires_grad_(False)
    try:
        stored = {k.removeprefix("entropy."): v for k, v in tensors.items() if k.startswith("entropy.")}
        entropy = ExactEntropy.from_tensors(integers(stored))
    except (ModelError, TableError) as error:
        raise type(error)(f"{shown}: {error}") from error
    if isinstance(network, LatensBase):
        have = (entropy.z_channels, entropy.knots, entropy.y_channels, entropy.upscale, len(entropy.levels))
        config = network.config
        if have != (config.hyper, config.knots, config.M, _Y_PER_Z, 1):
            raise ModelError(f"{shown}: its integer tables do not fit its networks")
    return LoadedModel(name, network, entropy, hashlib.sha256(data).hexdigest())


def _network(
    architecture: str, config: str, state: dict[str, Tensor], shown: str
) -> LatensBase | CompressionModel:
    if architecture != _BASE:
        return _architecture(architecture, shown).from_state_dict(state)
    shape = LatensBaseConfig.from_dict(json.loads(config))
    state = {k: v.float() for k, v in state.items()}
    _check_claim(shape, state, shown)
    with torch.device("cpu"):
        network = LatensBase(shape)
    network.load_state_dict(state)
    return network
