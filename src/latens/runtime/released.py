"""The default model as files need it: a :class:`latens.runtime.coding.FileModel` of integers, with its name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from latens.errors import ImageError, ModelError
from latens.runtime.coding import LATENT, CodedTile, Rows, checksum
from latens.runtime.factors import QUALITY_MAX
from latens.runtime.picture import PictureModel

__all__ = ["ReleasedPictures", "load"]

Array = npt.NDArray[Any]

_HYPER = 4 * LATENT


class ReleasedPictures:
    """A model of pictures in integers.

    Args:
        name: that goes into files.
        weights_id: SHA-256 of the file.
        model: what it consists of.
        scale: pairs of a user's quality, 0 to 100, and a header's, 0 to 65,535, both rising; what lies between is
            interpolated. Empty for a scale that is even.
        file: arrays and metadata of the weights file, for :attr:`base`.
    """

    skip = 4
    exact = True
    rates: int | None = None
    refines = True
    rows_type: npt.DTypeLike = np.int16

    def __init__(
        self,
        name: str,
        weights_id: str,
        model: PictureModel,
        scale: list[tuple[float, int]] | None = None,
        file: tuple[Mapping[str, Array], Mapping[str, str]] = ({}, {}),
    ) -> None:
        self.id, self.weights_id, self.model, self._file = name, weights_id, model, file
        self.entropy_id, self.channels = model.entropy_id, model.channels
        points = scale or [(0.0, 0), (100.0, QUALITY_MAX)]
        self._qualities, self._levels = (np.array(values, float) for values in zip(*points, strict=True))
        rising = all((np.diff(values) > 0).all() for values in (self._qualities, self._levels))
        if not rising or self._levels[0] < 0 or self._levels[-1] > QUALITY_MAX:
            raise ModelError(f"{name}: its scale of qualities does not rise, or is out of range")

    @cached_property
    def base(self) -> Any:
        """The float networks, a :class:`latens.models.latens_base.LatensBase`: to train on, and to search with.

        Raises:
            ModelError: PyTorch is not installed, or the file does not hold what is needed.
        """
        try:
            # By name: nothing else here knows of PyTorch.
            floats = import_module("latens.convert.floats")
        except ImportError as error:
            raise ModelError("float networks need PyTorch: pip install 'latens[torch]'") from error
        return floats.float_model(self.model, *self._file)

    def level(self, quality: float) -> int:
        return round(float(np.interp(quality, self._qualities, self._levels)))

    def quality(self, level: int) -> float:
        return float(np.interp(level, self._levels, self._qualities))

    def analysis(self, width: int, dtype: npt.DTypeLike, channels: int) -> Rows:
        return self.model.analysis(width, 8 * np.dtype(dtype).itemsize, channels)

    def latent(self, features: Array, level: int) -> Array:
        return self.model.latent(features, level)

    def refine(self, samples: Array, latent: Array, level: int, steps: int) -> Array:
        try:
            search = import_module("latens.convert.effort")
        except ImportError as error:
            raise ImageError("effort above 1 needs PyTorch: pip install 'latens[torch]'") from error
        refined: Array = search.refine(self.base, samples, latent, level, self.skip, steps)
        return refined

    def encode(self, latent: Array, level: int, lanes: int | None) -> CodedTile:
        stream, lanes, found = self.model.encode(latent, level, self.skip, lanes)
        rows = self.model.entry(found.y_hat, level)
        return CodedTile(stream, lanes, checksum(found.z, found.y.transpose(2, 0, 1)), rows)

    def decode(
        self, stream: bytes, size: tuple[int, int], level: int, skip: int, lanes: int
    ) -> tuple[int, Array]:
        height, width = size
        found = self.model.decode(stream, (height // _HYPER, width // _HYPER), level, skip, lanes)
        return checksum(found.z, found.y.transpose(2, 0, 1)), self.model.entry(found.y_hat, level)

    def synthesis(self, width: int, level: int, dtype: npt.DTypeLike, channels: int) -> Rows:
        return self.model.synthesis(width, level, 8 * np.dtype(dtype).itemsize, channels)


def load(
    name: str, weights_id: str, arrays: Mapping[str, Array], metadata: Mapping[str, str]
) -> ReleasedPictures:
    """The model of a weights file.

    Raises:
        ModelError, TableError: it is damaged.
    """
    try:
        scale = [(float(q), int(level)) for q, level in json.loads(metadata.get("scale", "[]"))]
    except (ValueError, TypeError) as error:
        raise ModelError(f"{name}: its scale of qualities is damaged") from error
    if not all(math.isfinite(q) for q, _ in scale):
        raise ModelError(f"{name}: its scale of qualities is damaged")
    return ReleasedPictures(name, weights_id, PictureModel.from_arrays(arrays), scale, (arrays, metadata))
