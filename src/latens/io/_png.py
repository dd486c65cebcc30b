"""PNG chunks: what Pillow does not tell of a file, and what it cannot write."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_AHEAD = 1 << 16
_ROWS = 64


def chunks_before_pixels(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Type and first 64 KiB of each chunk that stands before the pixels; damage ends the list."""
    file.seek(len(SIGNATURE))
    while len(head := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        if kind in (b"IDAT", b"IEND"):
            return
        yield kind, file.read(min(size, _AHEAD))
        file.seek(max(size - _AHEAD, 0) + 4, 1)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A whole chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(png: bytes, chunks: Iterable[bytes]) -> bytes:
    """A PNG file with more chunks, right behind its header."""
    end = len(SIGNATURE) + 25
    return b"".join((png[:end], *chunks, png[end:]))


def deep_png(samples: npt.NDArray[np.uint16], chunks: Iterable[bytes]) -> bytes:
    """A PNG file of 16 bits per sample.

    Args:
        samples: height x width x 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA).
        chunks: what stands between header and pixels.
    """
    height, width, channels = samples.shape
    kind = (0, 4, 2, 6)[channels - 1]
    compressor = zlib.compressobj(6)
    above = np.zeros((1, 2 * channels * (width + 1)), np.uint8)
    pixels = bytearray()
    for start in range(0, height, _ROWS):
        rows = samples[start : start + _ROWS].astype(">u2").reshape(-1, channels * width).view(np.uint8)
        # One pixel of zeros on the left, as the filters want it.
        rows = np.pad(rows, ((0, 0), (2 * channels, 0)))
        pixels += compressor.compress(_filtered(np.concatenate((above, rows)), 2 * channels).tobytes())
        above = rows[-1:]
    pixels += compressor.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    return b"".join((SIGNATURE, header, *chunks, chunk(b"IDAT", bytes(pixels)), chunk(b"IEND", b"")))


def _filtered(rows: npt.NDArray[np.uint8], step: int) -> npt.NDArray[np.uint8]:
    """All rows but the first, each with the number of the filter that makes its differences smallest."""
    here = rows[1:, step:]
    left, up, corner = rows[1:, :-step], rows[:-1, step:], rows[:-1, :-step]
    a, b, c = (part.astype(np.int16) for part in (left, up, corner))
    to_left, to_up, to_corner = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    paeth = np.where(
        (to_left <= to_up) & (to_left <= to_corner), left, np.where(to_up <= to_corner, up, corner)
    )
    guesses = (np.zeros_like(here), left, up, ((a + b) >> 1).astype(np.uint8), paeth)
    differences = np.stack([here - guess for guess in guesses])
    best = np.abs(differences.view(np.int8).astype(np.int16)).sum(axis=2, dtype=np.int64).argmin(axis=0)
    chosen = differences[best, np.arange(len(best))]
    return np.concatenate((best.astype(np.uint8)[:, None], chosen), axis=1)


def all_chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of each chunk of a whole, sound file."""
    start = len(SIGNATURE)
    while start < len(png):
        size, kind = struct.unpack_from(">I4s", png, start)
        yield kind, png[start + 8 : start + 8 + size]
        start += size + 12
