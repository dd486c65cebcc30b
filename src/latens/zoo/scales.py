"""What qualities mean to released models, from the first bytes of their weights files and without NumPy."""

from __future__ import annotations

import json
from typing import BinaryIO

from latens.errors import LatensError, ModelError
from latens.runtime.scale import LINEAR, QualityScale
from latens.zoo.cards import card

__all__ = ["read_metadata", "scale_of"]

_HEADER_MAX = 16 << 20


def scale_of(model: str) -> QualityScale | None:
    """What qualities mean to a released model; None if its weights are not in the package."""
    try:
        with card(model).path.open("rb") as file:
            metadata = read_metadata(file)
    except (LatensError, OSError):
        return None
    return QualityScale.from_json(metadata["scale"]) if "scale" in metadata else LINEAR


def read_metadata(file: BinaryIO) -> dict[str, str]:
    """The metadata of an open file, without reading its arrays.

    Raises:
        ModelError: the file is damaged.
    """
    length = int.from_bytes(file.read(8), "little")
    if length > _HEADER_MAX:
        raise ModelError("weights: not a safetensors file, or cut off")
    try:
        metadata = json.loads(file.read(length)).get("__metadata__", {})
    except (ValueError, AttributeError, RecursionError) as error:
        raise ModelError("weights: the header is damaged") from error
    return {str(key): str(value) for key, value in metadata.items()}
