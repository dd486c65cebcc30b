"""Weights files: safetensors that hold the float networks and the integers that files depend on."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from latens.errors import ModelError, UnknownModelError, WrongWeightsError
from latens.io import atomic_write, printable
from latens.latent_codecs import ExactHyperprior
from latens.models.latens_base import LatensBase, LatensBaseConfig, freeze
from latens.zoo.cards import DEFAULT_MODEL, card, cards

__all__ = ["LoadedModel", "load", "save"]

_FORMAT = "latens-weights-1"
_MAX_BYTES = 1 << 30
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model ready to code files.

    Attributes:
        id: the name that goes into files.
        network: float networks, in evaluation mode.
        entropy: what decides about symbols, in integers.
        weights_id: SHA-256 of the weights file, 64 hex digits.
    """

    id: str
    network: LatensBase
    entropy: ExactHyperprior
    weights_id: str


def save(
    model: LatensBase, path: str | os.PathLike[str], name: str, notes: str = "", *, force: bool = False
) -> None:
    """Freeze a trained model and write its weights file.

    Convolution weights are stored in float16, which costs nothing measurable; gains and priors in float32;
    what decides about symbols as integers, made from the weights as stored.

    Args:
        model: trained.
        path: of the file, ``.safetensors``.
        name: identifier that files made with these weights will carry.
        notes: recipe and log, for the reader.
        force: replace an existing file.

    Raises:
        ModelError: a name that files cannot carry, or weights that cannot be made exact.
        OutputError: the file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise ModelError(f"model name {name!r}: expected 1 to 64 characters a-z, 0-9, '.', '_' or '-'")
    stored = {
        k: v.detach().half() if v.ndim == 4 else v.detach().float() for k, v in model.state_dict().items()
    }
    twin = LatensBase(model.config)
    twin.load_state_dict({k: v.float() for k, v in stored.items()})
    tensors = {f"network.{k}": v.contiguous() for k, v in stored.items()}
    tensors |= {f"entropy.{k}": v for k, v in freeze(twin).tensors().items()}
    metadata = {
        "format": _FORMAT,
        "name": name,
        "architecture": "latens-base",
        "config": json.dumps(model.config.to_dict()),
        "notes": notes,
    }
    atomic_write(path, save_tensors(tensors, metadata), force=force)


@lru_cache(maxsize=4)
def load(model: str = DEFAULT_MODEL) -> LoadedModel:
    """Load a released model by identifier, or any weights file by path (anything with a dot-suffix or slash).

    Raises:
        UnknownModelError: no such model, or no such file.
        WrongWeightsError: a released model's file is not the one that was released.
        ModelError: the file is damaged or of another architecture.
    """
    if "/" in model or os.sep in model or model.endswith(".safetensors"):
        return _parse(_read(Path(model)), printable(model))
    entry = card(model)
    data = _read(entry.path)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise WrongWeightsError(
            f"the weights of {model} are not those that were released; install Latens again"
        )
    return _parse(data, model)


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ModelError(f"{printable(path)}: larger than {_MAX_BYTES} bytes; not a weights file")
        return path.read_bytes()
    except OSError as error:
        known = ", ".join(c.id for c in cards())
        raise UnknownModelError(
            f"{printable(path)}: cannot be read ({error.strerror}); released models: {known}"
        ) from error


def _parse(data: bytes, shown: str) -> LoadedModel:
    try:
        tensors = load_tensors(data)
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        if metadata.get("format") != _FORMAT or metadata.get("architecture") != "latens-base":
            raise ModelError(f"{shown}: not a weights file of Latens ('latens update-model' makes one)")
        name = metadata["name"]
        network = LatensBase(LatensBaseConfig.from_dict(json.loads(metadata["config"])))
        state = {
            k.removeprefix("network."): v.float() for k, v in tensors.items() if k.startswith("network.")
        }
        network.load_state_dict(state)
    except ModelError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ModelError(
            f"{shown}: damaged, or weights of another architecture ({printable(str(error)[:200])})"
        ) from error
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ModelError(f"{shown}: its name is not one that files can carry")
    bad = [k for k, v in state.items() if not torch.isfinite(v).all()]
    if bad:
        raise ModelError(f"{shown}: {bad[0]} has values that are not finite")
    network.eval().requires_grad_(False)
    entropy = ExactHyperprior.from_tensors(
        {k.removeprefix("entropy."): v for k, v in tensors.items() if k.startswith("entropy.")}
    )
    config = network.config
    if (entropy.z_channels, entropy.knots) != (config.hyper, config.knots) or entropy.y_channels != config.M:
        raise ModelError(f"{shown}: its integer tables do not fit its networks")
    return LoadedModel(name, network, entropy, hashlib.sha256(data).hexdigest())
