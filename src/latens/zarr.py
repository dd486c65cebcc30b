"""A codec for arrays of pictures in zarr's format 3; docs/numcodecs.md says what its bytes are, and its configuration.

Needs zarr, which finds it by its entry point: ``pip install 'zarr>=3'``.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.common import parse_named_configuration

from latens.errors import FormatError
from latens.numcodecs import Latens, check_array

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

__all__ = ["LatensCodec"]


@dataclass(frozen=True)
class LatensCodec(ArrayBytesCodec):  # type: ignore[misc]
    """Chunks as stacks of ``.ltn`` files: the serializer of an array.

    Args:
        quality, channels, near_lossless, effort: as of :class:`latens.numcodecs.Latens`.
    """

    quality: float | None = None
    channels: int = 1
    near_lossless: int = 0
    effort: int = 1

    is_fixed_size = False

    def __post_init__(self) -> None:
        self._codec  # noqa: B018 - raises for what is out of range

    @property
    def _codec(self) -> Latens:
        return Latens(self.quality, self.channels, self.near_lossless, self.effort)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LatensCodec:
        """From what an array's metadata say."""
        _, configuration = parse_named_configuration(data, "latens", require_configuration=False)
        return cls(**(configuration or {}))

    def to_dict(self) -> dict[str, Any]:
        """For an array's metadata."""
        names = ("quality", "channels", "near_lossless", "effort")
        return {"name": "latens", "configuration": {name: getattr(self, name) for name in names}}

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Raises ImageError: the chunks are no stacks of pictures."""
        chunk = getattr(chunk_grid, "chunk_shape", shape)
        check_array(np.dtype(dtype.to_native_dtype()), tuple(chunk), self.channels)

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        data = await asyncio.to_thread(self._codec.encode, chunk_array.as_numpy_array())
        return chunk_spec.prototype.buffer.from_bytes(data)

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        found = await asyncio.to_thread(self._codec.decode, chunk_bytes.to_bytes())
        wanted = chunk_spec.dtype.to_native_dtype()
        if found.shape != chunk_spec.shape or found.dtype != wanted.newbyteorder("="):
            raise FormatError(
                f"a chunk holds {found.dtype} {found.shape}, {wanted} {chunk_spec.shape} was expected"
            )
        return chunk_spec.prototype.nd_buffer.from_numpy_array(found.astype(wanted, copy=False))

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Raises NotImplementedError: it depends on the pictures."""
        raise NotImplementedError
