"""Small copies straight from the latent: a linear map for each set of weights, fitted by ``tools/fit_preview.py``.

Each position of the latent, which stands for 16x16 pixels, gives 2x2 pixels of a copy with 1/8 of the sides, as a sum
over it and its eight neighbours; integers, like everything that makes pixels.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from latens.errors import ModelError
from latens.runtime.arrays import read_arrays, write_arrays
from latens.runtime.networks import Network, Product

__all__ = ["BITS", "Preview", "file_name", "load_preview"]

Array = npt.NDArray[Any]

BITS = 14  # white is 2^14
_FORMAT = "latens-preview-1"
_SIDE = 2


class Preview:
    """A map from latents to small copies.

    Args:
        weights_id: of the model that it belongs to, 64 hex digits.
        product: from channels of the latent to ``2 * 2 * 3`` samples.

    Raises:
        ModelError: a product of another kind, or one whose sums could leave 32 bits.
    """

    def __init__(self, weights_id: str, product: Product) -> None:
        self.weights_id = weights_id
        self._network = Network([product], name="preview")
        if self._network.outputs != 3 * _SIDE**2:
            raise ModelError(f"preview: expected {3 * _SIDE**2} outputs, got {self._network.outputs}")
        self.reach = self._network.reach

    def rows(self, width: int, dtype: npt.DTypeLike, channels: int) -> PreviewRows:
        """From rows ``width`` positions wide, as synthesis takes them, to samples ``(n, 2 width, 1 or 3)``."""
        return PreviewRows(self._network, width, dtype, channels)

    def file(self) -> bytes:
        """To be stored."""
        return write_arrays(
            self._network.arrays("preview"), {"format": _FORMAT, "weights_id": self.weights_id}
        )

    @classmethod
    def from_file(cls, data: bytes) -> Preview:
        """The inverse of :meth:`file`.

        Raises:
            ModelError: it is damaged, or something else.
        """
        arrays, metadata = read_arrays(data)
        if metadata.get("format") != _FORMAT:
            raise ModelError("not a map of previews of this release")
        stages = Network.from_arrays(arrays, "preview").stages
        if len(stages) != 1 or not isinstance(stages[0], Product):
            raise ModelError("preview: expected one product")
        return cls(metadata.get("weights_id", ""), stages[0])


class PreviewRows:
    """A small copy on its way from top to bottom; see :class:`latens.runtime.coding.Rows`."""

    def __init__(self, network: Network, width: int, dtype: npt.DTypeLike, channels: int) -> None:
        self._stream = network.stream(width)
        self._dtype, self._channels = np.dtype(dtype), channels

    def push(self, rows: Array) -> Array:
        return self._samples(self._stream.push(rows))

    def finish(self) -> Array:
        return self._samples(self._stream.finish())

    def _samples(self, values: Array) -> Array:
        height, width = values.shape[:2]
        squares = values.reshape(height, width, _SIDE, _SIDE, 3).transpose(0, 2, 1, 3, 4)
        found = squares.reshape(height * _SIDE, width * _SIDE, 3).astype(np.int64)
        most = np.iinfo(self._dtype).max
        if self._channels == 1:
            found = found.sum(axis=2, keepdims=True)
            samples = (2 * found * most + 3 * (1 << BITS)) // (6 << BITS)
        else:
            samples = (found * most + (1 << BITS - 1)) >> BITS
        limited: Array = np.clip(samples, 0, most).astype(self._dtype)
        return limited


def file_name(weights_id: str) -> str:
    """The name of the file for a set of weights, in the folder of weights of the package."""
    return f"preview-{weights_id[:16]}.safetensors"


@lru_cache(maxsize=4)
def load_preview(weights_id: str) -> Preview | None:
    """The map for a set of weights; None if there is none.

    Raises:
        ModelError: it is damaged.
    """
    path = Path(__file__).with_name("data") / file_name(weights_id)
    if not path.is_file():
        return None
    found = Preview.from_file(path.read_bytes())
    if found.weights_id != weights_id:
        raise ModelError(f"{path.name}: it belongs to other weights")
    return found
