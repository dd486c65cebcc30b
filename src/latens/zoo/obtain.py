"""The weights that a file names: from the package, from a folder of the user's, from the cache, from the network."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from latens.errors import DownloadError, ModelError, UnknownModelError, WrongWeightsError
from latens.io import printable
from latens.zoo.cards import DEFAULT_MODEL, card, digest

__all__ = ["address", "obtain", "to_be_fetched"]

MAX_BYTES = 1 << 30
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def obtain(model: str, media: str, weights_dir: str | os.PathLike[str] | None = None) -> bytes:
    """The weights file of a set, checked against its hash if that is known.

    Looked for, in this order: in the package; in ``weights_dir``, as ``MODEL.safetensors`` or under the name of its
    address; in the cache (:func:`latens.zoo.download.cache_folder`); at its address.

    Args:
        model: identifier, as files carry it; never taken for a path.
        media: ``"image"`` or ``"video"``.
        weights_dir: folder with weights files; None is what ``LATENS_WEIGHTS_DIR`` names, if it is set.

    Raises:
        UnknownModelError: this release does not know the set, and the folder does not have it.
        UnavailableError: a set from before the first release, and the folder does not have it.
        WrongWeightsError: the file is not the one that was released.
        DownloadError: it cannot be fetched; the message names file and address.
    """
    if (found := _local(model, weights_dir)) is not None:
        data, own = _read(found), None
        if (known := digest(model)) is not None:
            own = hashlib.sha256(data).hexdigest()
        if own != known:
            raise WrongWeightsError(
                f"{printable(found)}: the weights of {model} are not those that were released: SHA-256 {own}, expected "
                f"{known}; install Latens again, or get the file anew"
            )
        _check_media(model, media)
        return data
    known_card = card(model)
    _check_media(model, media)
    try:
        # Sockets and TLS take a tenth of the time that coding a photograph does.
        from latens.zoo.download import fetch

        return fetch(address(model), sha256=known_card.sha256, max_bytes=MAX_BYTES).read_bytes()
    except OSError as error:
        raise DownloadError(
            f"the weights of {model} are not in this package, and could not be fetched: {error}. They are also taken "
            f"from a folder that --weights-dir (or LATENS_WEIGHTS_DIR) names. Expected: {address(model)}, SHA-256 "
            f"{known_card.sha256}"
        ) from error


def to_be_fetched(model: str, weights_dir: str | os.PathLike[str] | None = None) -> bool:
    """Whether :func:`obtain` will ask the network for a set."""
    if _local(model, weights_dir) is not None:
        return False
    from latens.zoo.download import cache_folder

    try:
        return not (cache_folder() / "models" / _file(address(model))).is_file()
    except ModelError:
        return False


def address(model: str) -> str:
    """Where a released set can be fetched; ``LATENS_WEIGHTS_URL`` names a mirror.

    Raises:
        UnknownModelError, UnavailableError: it was not released.
    """
    url = card(model).url
    mirror = os.environ.get("LATENS_WEIGHTS_URL")
    return f"{mirror.rstrip('/')}/{_file(url)}" if mirror else url


def _file(url: str) -> str:
    return url.rpartition("/")[2]


def _local(model: str, weights_dir: str | os.PathLike[str] | None) -> Path | None:
    """The file of a set in the package or in the user's folder."""
    if not _NAME.fullmatch(model):
        return None
    names = [f"{model}.safetensors"]
    try:
        known = card(model)
    except ModelError:
        pass
    else:
        if known.path.is_file():
            return known.path
        names.append(_file(known.url))
    folder = weights_dir or os.environ.get("LATENS_WEIGHTS_DIR")
    paths = [Path(folder, name) for name in names] if folder else []
    return next((path for path in paths if path.is_file()), None)


def _check_media(model: str, media: str) -> None:
    try:
        known = card(model)
    except ModelError:
        return  # what the file says about itself will tell
    if known.media != media and known.media == "float":
        raise UnknownModelError(
            f"{model} is a part of another model and codes no files by itself; use {DEFAULT_MODEL}"
        )
    if known.media != media:
        raise UnknownModelError(f"{model} is a model of {known.media}, not of {media}")


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{printable(path)}: larger than {MAX_BYTES} bytes; not a weights file")
        return path.read_bytes()
    except OSError as error:
        raise UnknownModelError(f"{printable(path)}: cannot be read ({error.strerror})") from error
