"""The default model as files need it: a :class:`latens.runtime.coding.FileModel` of integers, with its name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from latens.errors import ImageError, ModelError
from latens.runtime.arrays import write_arrays
from latens.runtime.coding import LATENT, Anatomy, CodedTile, Prices, Rows, Window, checksum
from latens.runtime.factors import QUALITY_MAX
from latens.runtime.picture import LATENT_BITS, Z_BITS, PictureModel
from latens.runtime.scale import LINEAR, QualityScale

__all__ = ["ReleasedPictures", "load"]

Array = npt.NDArray[Any]

_HYPER = 4 * LATENT


class ReleasedPictures:
    """A model of pictures in integers.

    Args:
        name: that goes into files.
        weights_id: SHA-256 of the file.
        model: what it consists of.
        scale: what a user's quality means.
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
        scale: QualityScale = LINEAR,
        file: tuple[Mapping[str, Array], Mapping[str, str]] = ({}, {}),
    ) -> None:
        self.id, self.weights_id, self.model, self._file = name, weights_id, model, file
        self.entropy_id, self.channels = model.entropy_id, model.channels
        self.scale = scale
        self.tune = file[1].get("tune", "psnr")

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

    def weights_file(self) -> bytes:
        """The weights file that it was loaded from."""
        return write_arrays(*self._file)

    def level(self, quality: float) -> int:
        return round(self.scale.level(float(quality)) * QUALITY_MAX)

    def quality(self, level: int) -> float:
        return self.scale.quality(level / QUALITY_MAX)

    def analysis(self, width: int, dtype: npt.DTypeLike, channels: int) -> Rows:
        return self.model.analysis(width, 8 * np.dtype(dtype).itemsize, channels)

    def latent(self, features: Array, level: int) -> Array:
        return self.model.latent(features, level)

    def refine(self, samples: Array, latent: Array, level: int, steps: int) -> Array:
        try:
            search = import_module("latens.convert.effort")
        except ImportError as error:
            raise ImageError("effort above 1 needs PyTorch: pip install 'latens[torch]'") from error
        refined: Array = search.refine(self.base, samples, latent, level, self.skip, steps, self.tune)
        return refined

    def encode(self, latent: Array, level: int, lanes: int | None) -> CodedTile:
        stream, lanes, found = self.model.encode(latent, level, self.skip, lanes)
        rows = self.model.entry(found.y_hat, level)
        return CodedTile(stream, lanes, checksum(found.z, found.y.transpose(2, 0, 1)), rows)

    @property
    def reach(self) -> int | None:
        return self.model.networks["g_s"].reach

    @property
    def analysis_reach(self) -> int | None:
        return self.model.networks["g_a"].reach

    def decode(
        self,
        stream: bytes,
        size: tuple[int, int],
        level: int,
        skip: int,
        lanes: int,
        window: Window | None = None,
    ) -> tuple[int, Array]:
        height, width = size
        z, y, _ = self.model.symbols(stream, (height // _HYPER, width // _HYPER), level, skip, lanes)
        found = checksum(z, y.transpose(2, 0, 1))
        return found, self.model.entry(self.model.values(z, y, level, window), level)

    def anatomy(self, stream: bytes, size: tuple[int, int], level: int, skip: int, lanes: int) -> Anatomy:
        height, width = size
        found = self.model.decode(stream, (height // _HYPER, width // _HYPER), level, skip, lanes)
        z_bytes, all_bytes = self.model.weigh(found.z, found.y, found.indexes, level, skip)
        # y is its mean and whole steps of 2^8.
        mean = found.y_hat / 256.0 - found.y
        return Anatomy(
            found.z,
            _planes(found.y, np.int16),
            _planes(found.indexes, np.uint8),
            _planes(mean, np.float32),
            z_bytes,
            all_bytes - z_bytes,
        )

    def unrounded(self, samples: Array, level: int) -> tuple[Array, Array]:
        rows = self.analysis(samples.shape[1], samples.dtype, samples.shape[2])
        features = np.concatenate([part for part in (rows.push(samples), rows.finish()) if len(part)])
        y = self.model.latent(features, level)
        z = self.model.unrounded_z(y, level)
        return _planes(y / (1 << LATENT_BITS), np.float32), _planes(z / (1 << Z_BITS), np.float32)

    def bounds(self) -> dict[str, list[int]]:
        # What networks are refused without: docs/pixels.md, "No sum leaves 32 bits".
        return {
            name: [1 << 31 for stage in network.stages if stage.sums]
            for name, network in self.model.networks.items()
        }

    def prices(self, level: int) -> tuple[Prices, Prices | None]:
        model = self.model
        start = model.knot(level) * model.hyper
        z, y = model.z_tables, model.y_tables
        own = slice(start, start + model.hyper)
        return Prices(z.rows(own.start, own.stop), z.offsets[own]), Prices(y.rows(0, len(y.sizes)), y.offsets)

    def synthesis(self, width: int, level: int, dtype: npt.DTypeLike, channels: int) -> Rows:
        return self.model.synthesis(width, level, 8 * np.dtype(dtype).itemsize, channels)


def _planes(values: Array, dtype: npt.DTypeLike) -> Array:
    """``(H, W, C)`` to ``(C, H, W)``."""
    return np.ascontiguousarray(values.transpose(2, 0, 1), dtype)


def load(
    name: str, weights_id: str, arrays: Mapping[str, Array], metadata: Mapping[str, str]
) -> ReleasedPictures:
    """The model of a weights file.

    Raises:
        ModelError, TableError: it is damaged.
    """
    scale = QualityScale.from_json(metadata["scale"]) if "scale" in metadata else LINEAR
    return ReleasedPictures(name, weights_id, PictureModel.from_arrays(arrays), scale, (arrays, metadata))
