"""A codec for arrays of pictures, for numcodecs and zarr; docs/numcodecs.md says what its bytes are.

Needs numcodecs, which finds it by its entry point: ``pip install numcodecs``.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
from numcodecs.abc import Codec
from numcodecs.compat import ensure_contiguous_ndarray, ndarray_copy
from numcodecs.registry import register_codec

from latens import format as ltn
from latens.codec import ImageCodec, LosslessCodec
from latens.errors import FormatError, ImageError, TruncatedError
from latens.io import Image

__all__ = ["Latens", "check_array"]

_MAGIC = b"LTNS\1"
_KINDS = {("|u1", 1): 0, ("|u1", 3): 1, ("<u2", 1): 2, ("<u2", 3): 3}


class Latens(Codec):  # type: ignore[misc]
    """Arrays of pictures as ``.ltn`` files, one after the other.

    Args:
        quality: 0 to 100; None for lossless.
        channels: 1 for pictures ``(..., height, width)``; 3 for ``(..., height, width, 3)``.
        near_lossless: with no quality, the largest error of a sample.
        effort: as for :func:`latens.encode`.

    >>> stack = np.zeros((2, 4, 5), np.uint8)
    >>> codec = Latens()
    >>> bool((codec.decode(codec.encode(stack)) == stack).all())
    True
    """

    codec_id = "latens"

    def __init__(
        self, quality: float | None = None, channels: int = 1, near_lossless: int = 0, effort: int = 1
    ) -> None:
        if channels not in (1, 3):
            raise ImageError(f"channels must be 1 or 3, got {channels}")
        self.quality, self.channels = quality, channels
        self.near_lossless, self.effort = near_lossless, effort

    def encode(self, buf: Any) -> bytes:
        """The bytes of an array of uint8 or uint16 of two dimensions or more.

        Raises:
            ImageError, LimitError: it is no stack of pictures, or an option is out of range.
        """
        array = np.ascontiguousarray(buf)
        kind = check_array(array.dtype, array.shape, self.channels)
        dimensions = 2 + (self.channels == 3)
        height, width = array.shape[-dimensions:][:2]
        out = bytearray(
            _MAGIC + struct.pack("<BB", kind, array.ndim) + struct.pack(f"<{array.ndim}I", *array.shape)
        )
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        pictures = (
            native.reshape(-1, height, width, self.channels) if array.size else native[:0].reshape(0, 1, 1, 1)
        )
        for picture in pictures:
            data = self._file(Image(picture))
            out += struct.pack("<I", len(data)) + data
        return bytes(out)

    def _file(self, image: Image) -> bytes:
        if self.quality is None:
            return LosslessCodec().encode(image, near=self.near_lossless, effort=self.effort)
        return ImageCodec().encode(image, self.quality, effort=self.effort)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """The array; copied into ``out`` if that is given.

        Raises:
            FormatError, LimitError: the bytes are damaged.
        """
        data = memoryview(ensure_contiguous_ndarray(buf)).cast("B")
        found = _decoded(data)
        return found if out is None else ndarray_copy(found, out)


def check_array(dtype: np.dtype[Any], shape: tuple[int, ...], channels: int) -> int:
    """The kind of a stack, as its bytes name it. Raises ImageError: the array is no stack of pictures."""
    kind = _KINDS.get((dtype.newbyteorder("<").str, channels))
    if kind is None or len(shape) < 2 + (channels == 3) or (channels == 3 and shape[-1] != 3):
        raise ImageError(
            f"expected uint8 or uint16 of (..., height, width{', 3' if channels == 3 else ''}), got {dtype} {shape}"
        )
    return kind


def _decoded(data: memoryview) -> npt.NDArray[Any]:
    head = len(_MAGIC)
    if bytes(data[:head]) != _MAGIC or len(data) < head + 2:
        raise FormatError("not a stack of .ltn files")
    kind, dimensions = data[head], data[head + 1]
    start = head + 2 + 4 * dimensions
    if kind >= len(_KINDS) or not 2 + kind % 2 <= dimensions <= 32:
        raise FormatError("a stack of a kind that this release does not know")
    if start > len(data):
        raise TruncatedError("the stack ends in its header")
    shape = struct.unpack_from(f"<{dimensions}I", data, head + 2)
    dtype, channels = next(key for key, number in _KINDS.items() if number == kind)
    own = 2 + kind % 2
    height, width = shape[-own:][:2]
    if kind % 2 and shape[-1] != 3:
        raise FormatError("a stack of colour pictures has three channels")
    count = 1
    for side in shape[:-own]:
        count *= side
    if 0 in shape:
        count = 0
    # Each picture has a length of its own, so a number of them that cannot be true is found before memory is taken.
    if 4 * count > len(data) - start:
        raise TruncatedError(f"{count} pictures do not fit into {len(data)} bytes")
    pictures = []
    for _ in range(count):
        if start + 4 > len(data):
            raise TruncatedError("the stack ends between two pictures")
        (size,) = struct.unpack_from("<I", data, start)
        start += 4
        if start + size > len(data):
            raise TruncatedError("the stack ends in a picture")
        pictures.append(_picture(data[start : start + size], (height, width, channels), np.dtype(dtype)))
        start += size
    if start != len(data):
        raise FormatError(f"{len(data) - start} bytes follow the last picture")
    whole = np.stack(pictures) if pictures else np.empty(0, dtype)
    return whole.reshape(shape).astype(np.dtype(dtype), copy=False)


def _picture(data: memoryview, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    header = ltn.read_header(data)
    if (header.height, header.width, header.channels, header.sample_bytes) != (*shape, dtype.itemsize):
        raise FormatError("a picture of the stack has another size or type than the others")
    container = ltn.read(data)
    codec = LosslessCodec() if header.lossless else ImageCodec.for_file(header)
    return codec.decode(container)[0].pixels


register_codec(Latens)
