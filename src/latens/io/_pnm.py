"""Portable maps whose samples go up to something else than 255, where Pillow cuts or clips them."""

from __future__ import annotations

import re
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from latens.errors import ImageError
from latens.io._picture import check_size, to_16_bits

_HEADER = re.compile(rb"P([2356])" + rb"(?:\s+|\s*#[^\n\r]*[\n\r]\s*)+(\d{1,10})" * 3 + rb"\s")
_MAX_HEADER = 4096
# Of a number in plain text, with what is around it.
_MAX_DIGITS = 16


def read_pnm(file: BinaryIO, max_pixels: int) -> tuple[npt.NDArray[np.uint8 | np.uint16], int] | None:
    """Samples on the scale of 8 or 16 bits, and how many bits there were; None where the largest is 255.

    Raises:
        ImageError: the file ends too early, or has a sample above its maximum.
        LimitError: it is too large.
    """
    file.seek(0)
    match = _HEADER.match(file.read(_MAX_HEADER))
    if match is None:
        return None
    width, height, most = (int(number) for number in match.groups()[1:])
    if not 0 < most < 65536 or most == 255:
        return None
    check_size(width, height, max_pixels)
    channels = 3 if match[1] in b"36" else 1
    count = width * height * channels
    file.seek(match.end())
    samples = (
        _plain(file, count) if match[1] in b"23" else _binary(file, count, ">u2" if most > 255 else "u1")
    )
    if samples.max() > most:
        raise ImageError(f"damaged image: a sample above the maximum of {most}")
    samples = samples.reshape(height, width, channels)
    if most < 255:
        return ((samples.astype(np.uint32) * 255 + most // 2) // most).astype(np.uint8), 8
    bits = most.bit_length()
    if most == (1 << bits) - 1:
        return to_16_bits(samples, bits), bits
    return ((samples.astype(np.uint64) * 65535 + most // 2) // most).astype(np.uint16), 16


def _binary(file: BinaryIO, count: int, dtype: str) -> npt.NDArray[np.uint8 | np.uint16]:
    size = count * np.dtype(dtype).itemsize
    data = file.read(size)
    if len(data) < size:
        raise ImageError("image file is truncated")
    return np.frombuffer(data, dtype)


def _plain(file: BinaryIO, count: int) -> npt.NDArray[np.uint16]:
    words = file.read(count * _MAX_DIGITS).split(maxsplit=count)[:count]
    if len(words) < count:
        raise ImageError("image file is truncated")
    if not all(word.isdigit() and len(word) <= 5 for word in words):
        raise ImageError("damaged image: a sample that is no number")
    numbers = np.array(words, np.uint32)
    if numbers.max() > 65535:
        raise ImageError("damaged image: a sample above 65535")
    return numbers.astype(np.uint16)
