"""How ``.ltn`` files code the latents of video models: tables chosen by integers only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from latens.errors import ModelError
from latens.runtime.entropy import ExactEntropy
from latens.runtime.motion import MotionCoder
from latens.runtime.parts import IntegerTables

__all__ = ["PARTS", "ConditionalEntropy", "ExactLatents"]

Array = npt.NDArray[Any]

PARTS = ("img", "motion", "res")
"""The latents: of pictures, of motion, of residuals."""


class ExactLatents:
    """The entropy models of all latents of a model.

    Args:
        parts: one for each of :data:`PARTS`.

    Raises:
        ModelError: the parts do not fit together.
    """

    def __init__(self, parts: Mapping[str, ExactEntropy]) -> None:
        if parts.keys() != set(PARTS):
            raise ModelError(
                f"entropy model: expected the parts {', '.join(PARTS)}, found {', '.join(parts)}"
            )
        self.parts = {name: parts[name] for name in PARTS}
        sizes = {(part.z_channels, part.y_channels, part.upscale, part.knots) for part in parts.values()}
        channels = parts["img"].y_channels
        if sizes != {(channels, channels, 8, 1)}:
            raise ModelError("entropy model: its parts are not those of one scale-space flow")

    @property
    def channels(self) -> int:
        """Channels of each latent, y and z."""
        return self.parts["img"].y_channels

    @cached_property
    def entropy_id(self) -> str:
        """SHA-256 over every integer that decides about symbols: 64 hex digits."""
        ids = "\n".join(f"{name} {part.entropy_id}" for name, part in self.parts.items())
        return hashlib.sha256(f"latens scale-space flow\n{ids}".encode()).hexdigest()

    def tensors(self) -> dict[str, Array]:
        """Everything as integer arrays, to be stored with the weights."""
        return {
            f"{name}.{key}": value
            for name, part in self.parts.items()
            for key, value in part.tensors().items()
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array]) -> ExactLatents:
        """The inverse of :meth:`tensors`. Everything is checked: a weights file may be hostile.

        Raises:
            ModelError: something is missing, too much, of the wrong type, or out of range.
            TableError: a CDF table is not valid.
        """
        own: dict[str, dict[str, Array]] = {name: {} for name in PARTS}
        for key, value in tensors.items():
            name, _, rest = key.partition(".")
            if name not in own:
                raise ModelError(f"entropy model: {key[:80]!a} belongs to no part of it")
            own[name][rest] = value
        return cls({name: ExactEntropy.from_tensors(part) for name, part in own.items()})


class ConditionalEntropy:
    """What decides about the symbols of the default video model.

    Args:
        image: of pictures that need no other; those of the image model.
        inter: of the latents of all others.
        motion: tables of vectors.
        reach: the largest component of a vector.

    Raises:
        ModelError: they do not fit together.
        TableError: a table is not valid.
    """

    def __init__(self, image: ExactEntropy, inter: ExactEntropy, motion: IntegerTables, reach: int) -> None:
        self.image, self.inter, self.motion = image, inter, MotionCoder(motion, reach)
        sizes = {(part.z_channels, part.y_channels, part.upscale, part.knots) for part in (image, inter)}
        if len(sizes) > 1:
            raise ModelError("entropy model: its parts are not those of one video model")

    @cached_property
    def entropy_id(self) -> str:
        """SHA-256 over every integer that decides about symbols: 64 hex digits."""
        motion = hashlib.sha256()
        self.motion.tables.update_hash(motion)
        ids = f"image {self.image.entropy_id}\ninter {self.inter.entropy_id}\nmotion {motion.hexdigest()}"
        return hashlib.sha256(f"latens video\n{ids}".encode()).hexdigest()

    def tensors(self) -> dict[str, Array]:
        """Everything but the image model's as integer arrays, to be stored with the weights."""
        found = {f"inter.{key}": value for key, value in self.inter.tensors().items()}
        tables = self.motion.tables
        for name, array in (
            ("entries", tables.entries),
            ("sizes", tables.sizes),
            ("offsets", tables.offsets),
        ):
            found[f"motion.{name}"] = array.copy()
        return found

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Array], image: ExactEntropy, reach: int
    ) -> ConditionalEntropy:
        """The inverse of :meth:`tensors`. Everything is checked: a weights file may be hostile.

        Raises:
            ModelError: something is missing, too much, of the wrong type, or out of range.
            TableError: a CDF table is not valid.
        """
        inter: dict[str, Array] = {}
        motion: dict[str, Array] = {}
        for key, value in tensors.items():
            name, _, rest = key.partition(".")
            if name not in ("inter", "motion"):
                raise ModelError(f"entropy model: {key[:80]!a} belongs to no part of it")
            (inter if name == "inter" else motion)[rest] = value
        if set(motion) != {"entries", "sizes", "offsets"} or any(
            t.dtype != np.int32 for t in motion.values()
        ):
            raise ModelError("entropy model: its tables of motion are damaged")
        tables = IntegerTables(*(motion[name] for name in ("entries", "sizes", "offsets")))
        return cls(image, ExactEntropy.from_tensors(inter), tables, reach)
