"""Portable maps of more than 8 bits per sample, which Pillow gives with 8."""

from __future__ import annotations

import re
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from latens.errors import ImageError
from latens.io._picture import check_size, to_16_bits

_HEADER = re.compile(rb"P([56])" + rb"(?:\s+|\s*#[^\n\r]*[\n\r]\s*)+(\d{1,10})" * 3 + rb"\s")
_MAX_HEADER = 4096


def read_deep_pnm(file: BinaryIO, max_pixels: int) -> tuple[npt.NDArray[np.uint16], int] | None:
    """Samples of a binary file, on the scale of 16 bits, and the number of bits; None for one of 8 bits or less.

    Raises:
        ImageError: the file ends too early, or has a sample above its maximum.
        LimitError: it is too large.
    """
    file.seek(0)
    match = _HEADER.match(file.read(_MAX_HEADER))
    if match is None:
        return None
    width, height, most = (int(number) for number in match.groups()[1:])
    if not 255 < most < 65536:
        return None
    check_size(width, height, max_pixels)
    channels = 3 if match[1] == b"6" else 1
    size = 2 * width * height * channels
    file.seek(match.end())
    data = file.read(size)
    if len(data) < size:
        raise ImageError("image file is truncated")
    samples = np.frombuffer(data, ">u2").reshape(height, width, channels)
    if samples.max() > most:
        raise ImageError(f"damaged image: a sample above the maximum of {most}")
    bits = most.bit_length()
    if most == (1 << bits) - 1:
        return to_16_bits(samples, bits), bits
    return ((samples.astype(np.uint64) * 65535 + most // 2) // most).astype(np.uint16), 16
