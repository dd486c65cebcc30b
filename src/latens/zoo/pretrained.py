"""Checkpoints of other origin: read without running anything in them, renamed to today's layout."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from latens.errors import LimitError, ModelError
from latens.io import printable

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["load_pretrained", "load_state_dict_from_url", "read_checkpoint", "rename_key"]

V = TypeVar("V")

MAX_BYTES = 1 << 30

_LIST = re.compile(r"entropy_bottleneck\._(?:(bias)es|(matri)ces|(factor)s)\.(\d+)")
_SINGULAR = {"bias": "_bias", "matri": "_matrix", "factor": "_factor"}


_NETWORK = "network."  # before names of weights in weights files of Latens


def rename_key(key: str) -> str:
    """The name that a weight of an old checkpoint has today.

    ``module.`` in front (from ``DataParallel``) goes away, ``.downsample.`` becomes ``.skip.``, and lists in
    the entropy bottleneck become single names. Others are kept.

    >>> rename_key("module.g_a.0.downsample.weight")
    'g_a.0.skip.weight'
    >>> rename_key("entropy_bottleneck._matrices.2")
    'entropy_bottleneck._matrix2'
    """
    key = key.removeprefix("module.").replace(".downsample.", ".skip.")
    if found := _LIST.fullmatch(key):
        *stems, number = found.groups()
        return f"entropy_bottleneck.{_SINGULAR[next(filter(None, stems))]}{number}"
    return key


def load_pretrained(state_dict: Mapping[str, V]) -> dict[str, V]:
    """``state_dict`` with all keys renamed by :func:`rename_key`."""
    return {rename_key(key): value for key, value in state_dict.items()}


def load_state_dict_from_url(url: str, progress: bool = True, **options: Any) -> dict[str, Tensor]:
    """The weights at an address, from the cache or downloaded: what scripts call ``torch.hub``'s function for.

    Args:
        url: see :func:`latens.zoo.download.fetch`.
        progress: see :func:`latens.zoo.download.fetch`.
        options: of ``torch.hub``'s function; hashes are checked, and tensors on the CPU, whatever they say.

    Raises:
        DownloadError: it cannot be had, or is not what its name announces.
        ModelError, LimitError: as :func:`read_checkpoint`.
    """
    from latens.zoo.download import fetch

    return read_checkpoint(fetch(url, progress=progress))


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Weights from a file of ``torch.save`` or safetensors. Code in the file is not run, but refused.

    A training checkpoint, with the weights under ``state_dict``, ``network``, ``model_state_dict`` or ``net``, is fine,
    too, and so is a weights file of Latens, whose integers are left out.

    Raises:
        ModelError: it cannot be read, holds anything but tensors, or values that are not finite.
        LimitError: it is, or claims to be, larger than 1 GiB.
    """
    path = Path(path)
    shown = printable(path)
    try:
        size = path.stat().st_size
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = max(size, sum(member.file_size for member in archive.infolist()))
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelError(f"{shown}: cannot be read ({error})") from error
    if size > MAX_BYTES:
        raise LimitError(f"{shown}: {size:,} bytes, but weights may have at most {MAX_BYTES:,}")
    content = _safetensors(path) if _is_safetensors(path) else _pickled(path)
    if isinstance(content, dict):
        for key in ("state_dict", "network", "model_state_dict", "net"):
            content = content[key] if isinstance(content.get(key), dict) else content
        networks = {k: v for k, v in content.items() if isinstance(k, str) and k.startswith(_NETWORK)}
        if networks:
            content = {k.removeprefix(_NETWORK): v for k, v in networks.items()}
    return _checked(content, shown)


def _is_safetensors(path: Path) -> bool:
    # Eight bytes of length, then the header, which is a JSON object.
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{printable(path)}: damaged ({printable(str(error))})") from error


def _pickled(path: Path) -> Any:
    import pickle

    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{printable(path)}: is damaged, or holds more than weights, which could run code when it is loaded. If "
            "you trust its origin, read it with torch.load and save its state_dict alone "
            f"({printable(str(error).splitlines()[0])})"
        ) from error
    # torch raises many kinds for damaged files; none of them is a reason to go on.
    except Exception as error:
        raise ModelError(f"{printable(path)}: damaged ({printable(str(error)[:200])})") from error


def _checked(content: Any, shown: str) -> dict[str, Tensor]:
    import torch

    if not isinstance(content, dict) or not content:
        raise ModelError(f"{shown}: expected weights by name, but got {type(content).__name__}")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise ModelError(
                f"{shown}: expected tensors by name, but {printable(str(key))} is {type(value).__name__}"
            )
        # A view with repeated elements would look like any number of weights.
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ModelError(f"{shown}: {printable(key)} has more elements than are stored")
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ModelError(f"{shown}: {printable(key)} has values that are not finite")
    return content
