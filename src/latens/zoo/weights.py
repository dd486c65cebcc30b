"""Weights files: arrays in the safetensors format, with a name and the family that they belong to."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from latens.errors import ModelError, TableError, UnknownModelError, WrongWeightsError
from latens.families import family, family_of_network
from latens.io import atomic_write, check_output, printable
from latens.runtime.arrays import read_arrays, write_arrays
from latens.runtime.coding import FileModel, VideoFileModel
from latens.zoo import released as _released  # noqa: F401  (registers the cards)
from latens.zoo.cards import DEFAULT_MODEL, DEFAULT_VIDEO_MODEL, cards, digest
from latens.zoo.obtain import obtain

__all__ = [
    "frozen",
    "load",
    "load_released",
    "load_released_video",
    "load_video",
    "parse",
    "released_bytes",
    "save",
]

_FORMAT = "latens-weights-2"
_NETWORK_FORMAT = "latens-network-1"
_MAX_BYTES = 1 << 30
_SUFFIX = ".safetensors"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VIDEO = re.compile(r"latens-video-\d+")
_PUBLISHED = re.compile(r"[a-z0-9-]+?(-[1-9](-ms-ssim)?)?")


def save(
    network: Any,
    path: str | os.PathLike[str],
    name: str,
    notes: str = "",
    *,
    image: FileModel | None = None,
    force: bool = False,
) -> None:
    """Turn a trained model into what files are coded with, and write its weights file.

    Of an architecture that has no portable files, its networks and tables as they are: for ``from_state_dict`` of its
    class, which takes what :func:`latens.zoo.pretrained.read_checkpoint` reads, and to train from.

    Args:
        network: trained: the default model, or a published architecture.
        path: of the file, ``.safetensors``.
        name: identifier that files made with these weights will carry.
        notes: recipe and log, for the reader.
        image: the image model of a default model of video, as it was loaded: one that is released is named in the file,
            others are put into it. None to make it of the network.
        force: replace an existing file.

    Raises:
        ModelError: a name that files cannot carry, an architecture that is not of the zoo, or weights that are not
            finite or cannot be made exact.
        OutputError: the file cannot be written.
    """
    if Path(path).suffix != _SUFFIX:
        raise ModelError(f"{printable(path)}: the name of a weights file must end in {_SUFFIX}")
    check_output(path, force=force)
    atomic_write(path, frozen(network, name, notes, image=image), force=force)


def frozen(
    network: Any,
    name: str,
    notes: str = "",
    more: Mapping[str, str] | None = None,
    *,
    image: FileModel | None = None,
) -> bytes:
    """The weights file of a trained model; ``more`` goes into its metadata, ``image`` is as for :func:`save`."""
    if not _NAME.fullmatch(name):
        raise ModelError(f"model name {name!r}: expected 1 to 64 characters a-z, 0-9, '.', '_' or '-'")
    if getattr(network, "inexact", ""):
        return _network_alone(network, {**(more or {}), "name": name, "notes": notes})
    known = family_of_network(network)
    others = () if image is None else (image,)
    arrays, metadata = known.find("convert")(network, name, *others)
    own = {"format": _FORMAT, "family": known.id, "name": name, "notes": notes}
    return write_arrays(arrays, {**metadata, **(more or {}), **own})


def _network_alone(network: Any, metadata: Mapping[str, str]) -> bytes:
    state = {key: value.detach().cpu().numpy() for key, value in network.state_dict().items()}
    broken = [key for key, value in state.items() if value.dtype.kind == "f" and not np.isfinite(value).all()]
    if broken:
        raise ModelError(f"{broken[0]} has values that are not finite; these weights are damaged")
    own = {"format": _NETWORK_FORMAT, "architecture": type(network).__name__}
    return write_arrays({f"network.{key}": value for key, value in state.items()}, {**metadata, **own})


def load(model: str | os.PathLike[str] = DEFAULT_MODEL) -> FileModel:
    """Load a released model by its identifier, a published one by name and quality, or any weights file by its path.

    Args:
        model: an identifier; ``ARCHITECTURE-QUALITY`` or ``ARCHITECTURE-QUALITY-ms-ssim`` (``mbt2018-mean-3``), whose
            published weights are downloaded once; or a path: what has a slash in it or ends in ``.safetensors``.

    Raises:
        UnknownModelError: no such model, or no such file.
        DownloadError: published weights cannot be downloaded.
        WrongWeightsError: a released model's file is not the one that was released.
        ModelError: the file is damaged, or needs what is not installed.
    """
    name = os.fspath(model)
    if not (isinstance(model, os.PathLike) or "/" in name or os.sep in name or name.endswith(_SUFFIX)):
        if name not in {known.id for known in cards()} and _PUBLISHED.fullmatch(name):
            found = _published(name)
            if found is not None:
                return found
        return load_released(name)
    path = Path(name)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return _load_file(path.absolute(), status.st_mtime_ns, status.st_size)


def load_video(
    model: str | os.PathLike[str] = DEFAULT_VIDEO_MODEL, *, flow_unit: str | None = None
) -> VideoFileModel:
    """The same for models of video.

    Args:
        model: an identifier; a weights file; a checkpoint of CompressAI (``.pth.tar``, ``.pth``, ``.pt``) that holds
            CDF tables; or ``ssf2020-1`` to ``ssf2020-9``, published weights, which are downloaded once.
        flow_unit: of a checkpoint or published weights; ``"corrected"`` if None. See
            :class:`latens.models.video.ScaleSpaceFlow`.

    Raises:
        UnknownModelError: no such model, or no such file.
        DownloadError: published weights cannot be downloaded.
        ModelError: the file is damaged, of another architecture, a checkpoint without tables, or needs what is not
            installed.
    """
    name = os.fspath(model)
    known = not isinstance(model, os.PathLike) and (
        _VIDEO.fullmatch(name) or name in {c.id for c in cards("video")}
    )
    if flow_unit is not None and (known or name.endswith(_SUFFIX)):
        raise ModelError(
            f"{printable(name)}: leave flow_unit out; it is of checkpoints and published weights"
        )
    if known:
        return load_released_video(name)
    if not name.endswith(_SUFFIX):
        try:
            flow = import_module("latens.convert.flow")
        except ImportError as error:
            raise ModelError(
                f"{printable(name)}: checkpoints and published weights need PyTorch: pip install 'latens[torch]'"
            ) from error
        data, shown = flow.checkpoint(model, flow_unit or "corrected")
        found: VideoFileModel = parse(data, shown, "video")
        return found
    path = Path(name)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error, "video") from error
    return _load_video_file(path.absolute(), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=2)
def load_released_video(model: str, weights_dir: str | None = None) -> VideoFileModel:
    """As :func:`load_released`, for models of video."""
    loaded: VideoFileModel = parse(released_bytes(model, "video", weights_dir), model, "video", digest(model))
    if loaded.id != model:
        raise WrongWeightsError(f"the weights of {model} call themselves {loaded.id}; install Latens again")
    return loaded


@lru_cache(maxsize=2)
def _load_video_file(path: Path, mtime_ns: int, size: int) -> VideoFileModel:
    """Cached until the file changes."""
    found: VideoFileModel = parse(_read(path), printable(path), "video")
    return found


@lru_cache(maxsize=4)
def load_released(model: str, weights_dir: str | None = None) -> FileModel:
    """Load a released model by its identifier, which is never taken for a path: it may come from a file.

    Args:
        model: the identifier.
        weights_dir: folder with weights that are not in the package; see :func:`latens.zoo.obtain.obtain`.

    Raises:
        UnknownModelError, UnavailableError: neither this release nor the folder has the model.
        WrongWeightsError: its file is not the one that was released.
        DownloadError: it cannot be fetched.
    """
    loaded: FileModel = parse(released_bytes(model, "image", weights_dir), model, "image", digest(model))
    if loaded.id != model:
        raise WrongWeightsError(f"the weights of {model} call themselves {loaded.id}; install Latens again")
    return loaded


def released_bytes(model: str, media: str, weights_dir: str | None = None) -> bytes:
    """The weights file of a released model, checked; see :func:`latens.zoo.obtain.obtain`."""
    return obtain(model, media, weights_dir)


@lru_cache(maxsize=4)
def _published(name: str) -> FileModel | None:
    """The published model of this name, if there is one; its module knows, and needs PyTorch."""
    try:
        make = import_module("latens.convert.research").published
    except ImportError:
        return None
    data: bytes | None = make(name)
    return None if data is None else parse(data, name)


@lru_cache(maxsize=4)
def _load_file(path: Path, mtime_ns: int, size: int) -> FileModel:
    """Cached until the file changes."""
    loaded: FileModel = parse(_read(path), printable(path))
    return loaded


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


def _unreadable(path: Path, error: Exception, media: str = "image") -> UnknownModelError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UnknownModelError(f"{printable(path)}: cannot be read ({printable(reason)}); {_known(media)}")


def _known(media: str = "image") -> str:
    return f"released models: {', '.join(c.id for c in cards(media))}"


def parse(data: bytes, shown: str, media: str = "image", sha256: str | None = None) -> Any:
    """The model of a weights file, everything checked.

    Args:
        data: the file.
        shown: its name for messages.
        media: ``"image"`` or ``"video"``.
        sha256: of the file, if it is known.

    Raises:
        ModelError: it is damaged, of another release or kind, or needs what is not installed.
        TableError: a table is not valid.
    """
    try:
        arrays, metadata = read_arrays(data)
        if metadata.get("format") == _NETWORK_FORMAT:
            raise ModelError(
                f"the networks of {printable(metadata.get('architecture', ''))}, which has no portable files; code "
                "strings with from_state_dict() of that class"
            )
        if metadata.get("format") != _FORMAT:
            raise ModelError("not a weights file of this release ('latens update-model' makes one)")
        name = metadata.get("name", "")
        if not _NAME.fullmatch(name):
            raise ModelError("its name is not one that files can carry")
        known = family(metadata.get("family", ""))
        if known.media != media:
            raise ModelError(f"a model of {known.media}, not of {media}")
        others = _image_model(arrays, metadata) if media == "video" else ()
        weights_id = sha256 or hashlib.sha256(data).hexdigest()
        return known.find("load")(name, weights_id, arrays, metadata, *others)
    except (ModelError, TableError) as error:
        raise type(error)(f"{shown}: {error}") from error


def _image_model(arrays: dict[str, Any], metadata: Mapping[str, str]) -> tuple[FileModel, ...]:
    """The image model that a model of video holds or names, if it does."""
    held = arrays.pop("image", None)
    if held is not None:
        return (parse(held.tobytes(), "its image model"),)
    if "image" not in metadata:
        return ()
    found = load_released(metadata["image"])
    if found.weights_id != metadata.get("image_sha256"):
        raise ModelError(f"made for other weights of {found.id} than those of this release")
    return (found,)
