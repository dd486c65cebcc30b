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
from torch import Tensor, nn

from latens.convert.video import freeze_conditional, freeze_flow
from latens.errors import ModelError, TableError, UnknownModelError, WrongWeightsError
from latens.io import atomic_write, check_output, printable
from latens.models.video import LatensVideo, LatensVideoConfig
from latens.models.video.google import FLOW_UNITS, ScaleSpaceFlow
from latens.models.video.motion import REACH
from latens.runtime.video import ConditionalEntropy, ExactLatents
from latens.zoo.architectures import entry
from latens.zoo.cards import cards
from latens.zoo.float_weights import LoadedModel, canonical, integers, load_released, packed, released_bytes
from latens.zoo.float_weights import frozen as frozen_image
from latens.zoo.float_weights import parse as parse_image
from latens.zoo.pretrained import load_pretrained, read_checkpoint

__all__ = ["LoadedVideoModel", "load_released_video", "load_video", "save_video"]

_FORMAT = "latens-weights-1"
_ARCHITECTURE = "ScaleSpaceFlow"
_CONDITIONAL = "latens-video"
_MAX_BYTES = 1 << 30
_SUFFIX = ".safetensors"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SET = re.compile(r"latens-video-\d+")
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
    network: ScaleSpaceFlow | LatensVideo
    entropy: ExactLatents | ConditionalEntropy
    weights_id: str


def save_video(
    model: ScaleSpaceFlow | LatensVideo,
    path: str | os.PathLike[str],
    name: str,
    notes: str = "",
    *,
    image: LoadedModel | None = None,
    force: bool = False,
) -> None:
    """Freeze a trained model and write its weights file.

    A :class:`latens.models.video.LatensVideo` is stored without its image model if that is a released one; the file
    names it and its hash. Its weights go to float16, from which its integers are made.

    Args:
        model: trained; the ``flow_unit`` of scale-space flow is stored, too.
        path: of the file, ``.safetensors``.
        name: identifier that files made with these weights will carry.
        notes: for the reader.
        image: the image model of a :class:`latens.models.video.LatensVideo`.
        force: replace an existing file.

    Raises:
        ModelError: an image model that is missing or not that of the video model, a name that files cannot carry, or
            weights that are not finite or cannot be made exact.
        OutputError: the file cannot be written.
    """
    if Path(path).suffix != _SUFFIX:
        raise ModelError(f"{printable(path)}: the name of a weights file must end in {_SUFFIX}")
    check_output(path, force=force)
    if isinstance(model, LatensVideo):
        if image is None or image.network is not model.image:
            raise ModelError(
                f"{name}: give the loaded image model that the video model was made with (image)"
            )
        data = _frozen_conditional(model, image, name, notes)
    else:
        data = _frozen(model, name, notes)
    atomic_write(path, data, force=force)


def _check(model: nn.Module, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ModelError(f"model name {name!r}: expected 1 to 64 characters a-z, 0-9, '.', '_' or '-'")
    for key, value in model.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ModelError(f"{name}: {printable(key)} has values that are not finite")


def _frozen_conditional(model: LatensVideo, image: LoadedModel, name: str, notes: str) -> bytes:
    state = {k: v.detach().cpu() for k, v in model.state_dict().items()}
    state = {k: v.half() if v.ndim == 4 else v.float() for k, v in state.items()}
    twin = LatensVideo(image.base, model.config)
    twin.load_state_dict({k: v.float() for k, v in state.items()})
    _check(twin, name)
    entropy = freeze_conditional(twin, image.entropy)
    tensors = packed(state, entropy.tensors())
    metadata = {
        "format": _FORMAT,
        "name": name,
        "architecture": _CONDITIONAL,
        "config": json.dumps(model.config.to_dict()),
        "notes": notes,
    }
    if any(card.id == image.id and card.sha256 == image.weights_id for card in cards("float")):
        metadata |= {"image": image.id, "image_sha256": image.weights_id}
    else:
        tensors["image"] = torch.frombuffer(bytearray(frozen_image(image.base, image.id)), dtype=torch.uint8)
    return canonical(save_tensors(tensors, metadata))


def _frozen(model: ScaleSpaceFlow, name: str, notes: str = "") -> bytes:
    _check(model, name)
    entropy = freeze_flow(model)
    # Freezing makes the tables that a model lacks.
    state = {k: v.detach().cpu() for k, v in model.state_dict().items()}
    tensors = packed(state, entropy.tensors())
    config = {"num_levels": model.num_levels, "sigma0": model.sigma0, "flow_unit": model.flow_unit}
    metadata = {
        "format": _FORMAT,
        "name": name,
        "architecture": _ARCHITECTURE,
        "config": json.dumps(config),
        "notes": notes,
    }
    return canonical(save_tensors(tensors, metadata))


def load_video(model: str | os.PathLike[str], *, flow_unit: str | None = None) -> LoadedVideoModel:
    """Load a video model.

    Args:
        model: a released one (``latens-video-5``); a weights file; a checkpoint of CompressAI (``.pth.tar``, ``.pth``,
            ``.pt``) that holds CDF tables; or ``ssf2020-1`` to ``ssf2020-9``, the published weights, which are
            downloaded once.
        flow_unit: of a checkpoint or published weights; ``"corrected"`` if None. See
            :class:`latens.models.video.ScaleSpaceFlow`.

    Raises:
        UnknownModelError: no such model, or no such file.
        DownloadError: published weights cannot be downloaded.
        ModelError: the file is damaged, of another architecture, or a checkpoint without tables.
    """
    name = os.fspath(model)
    if not isinstance(model, os.PathLike) and (
        _SET.fullmatch(name) or name in {known.id for known in cards("video")}
    ):
        if flow_unit is not None:
            raise ModelError(f"{name} has no flow; leave flow_unit out")
        return load_released_video(name)
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
            f"{printable(name)}: cannot be read ({printable(reason)}); give a weights file, a checkpoint, "
            f"{', '.join(known.id for known in cards('video'))} or ssf2020-1 to ssf2020-9"
        ) from error
    return _load_file(path.absolute(), status.st_mtime_ns, status.st_size, flow_unit)


@lru_cache(maxsize=2)
def load_released_video(model: str, weights_dir: str | None = None) -> LoadedVideoModel:
    """Load a released video model by its identifier, which is never taken for a path: it may come from a file.

    Args:
        model: the identifier.
        weights_dir: folder with weights that are not in the package; see :func:`latens.zoo.obtain.obtain`.

    Raises:
        UnknownModelError, UnavailableError: neither this release nor the folder has the model.
        WrongWeightsError: its file is not the one that was released.
        DownloadError: it cannot be fetched.
    """
    loaded = _parse(released_bytes(model, "video", weights_dir), model, weights_dir)
    if loaded.id != model:
        raise WrongWeightsError(f"the weights of {model} call themselves {loaded.id}")
    return loaded


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


def _parse(data: bytes, shown: str, weights_dir: str | None = None) -> LoadedVideoModel:
    try:
        tensors = load_tensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{shown}: not a sound safetensors file ({printable(str(error)[:200])})") from error
    metadata = _metadata(data)
    name = metadata.get("name", "")
    if metadata.get("architecture") == _CONDITIONAL and _NAME.fullmatch(str(name)):
        return _parse_conditional(data, tensors, metadata, shown, weights_dir)
    if metadata.get("architecture") != _ARCHITECTURE or not _NAME.fullmatch(str(name)):
        raise ModelError(
            f"{shown}: of architecture {printable(str(metadata.get('architecture')))[:80]}; expected {_ARCHITECTURE} "
            f"or {_CONDITIONAL}"
        )
    config = _checked_config(metadata.get("config", ""), shown)
    network_state, entropy_state = _split(tensors, shown)
    try:
        network = ScaleSpaceFlow.from_state_dict(network_state).eval()
        entropy = ExactLatents.from_tensors(integers(entropy_state))
    except (ModelError, TableError) as error:
        raise ModelError(f"{shown}: {error}") from error
    network.num_levels, network.sigma0 = config["num_levels"], config["sigma0"]
    network.flow_unit = config["flow_unit"]
    if entropy.channels != network_state["img_encoder.6.weight"].shape[0]:
        raise ModelError(f"{shown}: the entropy model does not fit the networks")
    return LoadedVideoModel(name, network, entropy, hashlib.sha256(data).hexdigest())


def _split(tensors: dict[str, Tensor], shown: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors of the networks and of the entropy model."""
    network: dict[str, Tensor] = {}
    entropy: dict[str, Tensor] = {}
    for key, value in tensors.items():
        kind, _, rest = key.partition(".")
        if kind not in ("network", "entropy"):
            raise ModelError(
                f"{shown}: {printable(key)[:80]} is neither of the networks nor of the entropy model"
            )
        (network if kind == "network" else entropy)[rest] = value
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ModelError(f"{shown}: {printable(key)[:80]} has values that are not finite")
    return network, entropy


def _parse_conditional(
    data: bytes,
    tensors: dict[str, Tensor],
    metadata: dict[str, str],
    shown: str,
    weights_dir: str | None,
) -> LoadedVideoModel:
    embedded = tensors.pop("image", None)
    if embedded is None:
        image = load_released(str(metadata.get("image")), weights_dir)
        if image.weights_id != metadata.get("image_sha256"):
            raise ModelError(f"{shown}: made for other weights of {image.id} than those of this release")
    elif embedded.dtype != torch.uint8:
        raise ModelError(f"{shown}: its image model is damaged")
    else:
        image = parse_image(embedded.numpy().tobytes(), f"{shown}, image model")
    network_state, entropy_state = _split(tensors, shown)
    try:
        config = LatensVideoConfig.from_dict(json.loads(metadata.get("config", "")))
        _check_sizes(config, network_state, shown)
        network = LatensVideo(image.base, config)
        network.load_state_dict({k: v.float() for k, v in network_state.items()})
        entropy = ConditionalEntropy.from_tensors(integers(entropy_state), image.entropy, REACH)
    except (ModelError, TableError) as error:
        raise type(error)(f"{shown}: {error}") from error
    except (ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise ModelError(
            f"{shown}: damaged, or weights of another architecture ({printable(str(error)[:200])})"
        ) from error
    network.eval().requires_grad_(False)
    return LoadedVideoModel(str(metadata["name"]), network, entropy, hashlib.sha256(data).hexdigest())


def _check_sizes(config: LatensVideoConfig, state: dict[str, Tensor], shown: str) -> None:
    """Refuse a small file that claims many blocks, before they are allocated."""
    for name, claimed in (("temporal_blocks", config.context_blocks), ("blend", config.picture_blocks)):
        held = {key.split(".")[1] for key in state if key.startswith(f"{name}.")}
        if len(held) != claimed:
            raise ModelError(
                f"{shown}: its configuration claims {claimed} blocks ({name}), it holds {len(held)}"
            )


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
