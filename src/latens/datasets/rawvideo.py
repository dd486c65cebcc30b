"""Video in files of bare samples."""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from latens.errors import DatasetError
from latens.io import printable

__all__ = [
    "RawVideoSequence",
    "VideoFormat",
    "bitdepth_to_dtype",
    "file_extensions",
    "framerate_to_fraction",
    "get_num_frms",
    "get_raw_video_file_info",
    "make_dtype",
    "subsampling",
    "video_formats",
]


class VideoFormat(enum.Enum):
    """Layout of the samples of a frame, plane after plane."""

    YUV400 = "yuv400"
    YUV420 = "yuv420"
    YUV422 = "yuv422"
    YUV444 = "yuv444"
    RGB = "rgb"


video_formats = {
    "yuv400": VideoFormat.YUV400,
    "yuv420": VideoFormat.YUV420,
    "420": VideoFormat.YUV420,
    "p420": VideoFormat.YUV420,
    "i420": VideoFormat.YUV420,
    "yuv422": VideoFormat.YUV422,
    "p422": VideoFormat.YUV422,
    "i422": VideoFormat.YUV422,
    "y42b": VideoFormat.YUV422,
    "yuv444": VideoFormat.YUV444,
    "p444": VideoFormat.YUV444,
    "y444": VideoFormat.YUV444,
}

file_extensions = {"yuv", "rgb", "raw"}

bitdepth_to_dtype: dict[int, type[np.uint8] | type[np.uint16]] = {
    8: np.uint8,
    10: np.uint16,
    12: np.uint16,
    14: np.uint16,
    16: np.uint16,
}

# Luma samples per chroma sample, along width and height; 0: there is no chroma.
subsampling = {
    VideoFormat.YUV400: (0, 0),
    VideoFormat.YUV420: (2, 2),
    VideoFormat.YUV422: (2, 1),
    VideoFormat.YUV444: (1, 1),
}

# Names round these rates, or cut them off.
framerate_to_fraction = {
    "23.98": Fraction(24000, 1001),
    "23.976": Fraction(24000, 1001),
    "29.97": Fraction(30000, 1001),
    "59.94": Fraction(60000, 1001),
}

_SIZE = re.compile(r"(\d+)x(\d+)")
_FRAMERATE = re.compile(r"(\d+(?:\.\d+)?)(?:hz|fps)")
_BITDEPTH = re.compile(r"(\d+)bit")
_FORMAT = re.compile(rf"(?<!\d)({'|'.join(video_formats)})(?:[p_]?(\d+)?(le|be))?(?![\dx])")
_EXTENSION = re.compile(rf"\.({'|'.join(sorted(file_extensions))})$")


def _sample_type(bitdepth: int) -> type[np.uint8] | type[np.uint16]:
    if bitdepth not in bitdepth_to_dtype:
        raise DatasetError(f"expected a bit depth of 8, 10, 12, 14 or 16, but got {bitdepth!r}")
    return bitdepth_to_dtype[bitdepth]


def make_dtype(format: VideoFormat, value_type: DTypeLike, width: int, height: int) -> np.dtype[np.void]:
    """NumPy type of one frame, with fields ``y``, ``u`` and ``v`` (empty for grey video).

    Chroma planes round up, as those of ffmpeg do.

    Raises:
        DatasetError: RGB, or no positive size.
    """
    if width < 1 or height < 1:
        raise DatasetError(f"expected a size of at least 1x1, but got {width}x{height}")
    if format not in subsampling:
        raise DatasetError(f"expected a YUV format, but got {format}")
    horizontal, vertical = subsampling[format]
    chroma = (-(-height // vertical), -(-width // horizontal)) if horizontal else (0, 0)
    return np.dtype(
        [("y", value_type, (height, width)), ("u", value_type, chroma), ("v", value_type, chroma)]
    )


def get_num_frms(file_size: int, width: int, height: int, video_format: VideoFormat, dtype: DTypeLike) -> int:
    """Whole frames in a file of ``file_size`` bytes, whose samples are of ``dtype``.

    Raises:
        DatasetError: RGB, or no positive size.
    """
    return file_size // make_dtype(video_format, dtype, width, height).itemsize


def get_raw_video_file_info(filename: str | os.PathLike[str]) -> dict[str, Any]:
    """What the name of a file says about the video in it.

    The name is expected as Vooya and others write it,
    ``name_WIDTHxHEIGHT[_FPS(Hz|fps)][_BITSbit][_P420|P422|P444...].yuv``; formats in the style of GStreamer
    (``I420_10LE``) and ffmpeg (``yuv420p10le``) are understood, too. Capitals don't matter.

    Returns:
        ``width``, ``height``, ``framerate`` (a ``Fraction``), ``bitdepth`` (8 if the name says nothing),
        ``format`` (a :class:`VideoFormat`), ``endianness`` (``"le"`` or ``"be"``) and ``extension``, each None
        if unknown; empty if nothing is known.

    Raises:
        DatasetError: the name gives two different bit depths.
    """
    name = Path(filename).name.lower()
    size, rate, bits, layout, extension = (
        pattern.search(name) for pattern in (_SIZE, _FRAMERATE, _BITDEPTH, _FORMAT, _EXTENSION)
    )
    if not any((size, rate, bits, layout, extension)):
        return {}
    depths = {int(found) for found in (bits and bits[1], layout and layout[2]) if found}
    if len(depths) > 1:
        raise DatasetError(f"{printable(filename)}: names two bit depths, {sorted(depths)}")
    return {
        "width": int(size[1]) if size else None,
        "height": int(size[2]) if size else None,
        "framerate": framerate_to_fraction.get(rate[1], Fraction(rate[1])) if rate else None,
        "bitdepth": depths.pop() if depths else 8,
        "format": video_formats[layout[1]] if layout else None,
        "endianness": layout[3] if layout else None,
        "extension": extension[1] if extension else None,
    }


class RawVideoSequence(Sequence[Any]):
    """The frames of a raw video file, read from the disk when they are asked for.

    A frame is a NumPy record with the planes ``y`` ``(height, width)``, ``u`` and ``v``; a slice is an array
    of them, so that ``sequence[2:4]["y"]`` is ``(2, height, width)``. Samples of more than 8 bits are uint16,
    little-endian, in the low bits.

    Args:
        mmap: one-dimensional array of samples.
        width: of the luma plane, in samples.
        height: of the luma plane, in samples.
        bitdepth: 8, 10, 12, 14 or 16 bits per sample.
        format: a :class:`VideoFormat`, or its name.
        framerate: frames per second, if known.

    Raises:
        DatasetError: an unknown format or bit depth, or ``mmap`` is not a whole number of frames.
    """

    def __init__(
        self,
        mmap: NDArray[Any],
        width: int,
        height: int,
        bitdepth: int,
        format: VideoFormat | str,
        framerate: int | Fraction | None = None,
    ) -> None:
        if not isinstance(format, VideoFormat):
            if format.lower() not in video_formats:
                raise DatasetError(f"unknown format {format!r}; there are {', '.join(video_formats)}")
            format = video_formats[format.lower()]
        self.width = width
        self.height = height
        self.bitdepth = bitdepth
        self.framerate = framerate
        self.format = format
        self.dtype = make_dtype(format, _sample_type(bitdepth), width, height)
        if mmap.nbytes % self.dtype.itemsize:
            raise DatasetError(
                f"{mmap.nbytes} bytes are not a whole number of frames of {self.dtype.itemsize} bytes "
                f"({width}x{height}, {bitdepth} bits, {format.value})"
            )
        self.data = mmap.view(self.dtype)
        self.total_frms = len(self.data)

    @classmethod
    def new_like(cls, sequence: RawVideoSequence, filename: str | os.PathLike[str]) -> Self:
        """Open a file with size, format and rate of another sequence.

        Raises:
            DatasetError: it cannot be read, or is not a whole number of frames.
        """
        return cls.from_file(
            filename, sequence.width, sequence.height, sequence.bitdepth, sequence.format, sequence.framerate
        )

    @classmethod
    def from_file(
        cls,
        filename: str | os.PathLike[str],
        width: int | None = None,
        height: int | None = None,
        bitdepth: int | None = None,
        format: VideoFormat | str | None = None,
        framerate: int | Fraction | None = None,
    ) -> Self:
        """Open a file. What isn't given is taken from its name; see :func:`get_raw_video_file_info`.

        Raises:
            DatasetError: size or format are unknown, or the file cannot be read, is not a whole number of
                frames, or holds big-endian samples.
        """
        info = get_raw_video_file_info(filename)
        width = width or info.get("width")
        height = height or info.get("height")
        bitdepth = bitdepth or info.get("bitdepth")
        format = format or info.get("format")
        if width is None or height is None or bitdepth is None or format is None:
            raise DatasetError(
                f"{printable(filename)}: its name does not say all of width, height, bit depth and format; "
                "give them as arguments"
            )
        if info.get("endianness") == "be":
            raise DatasetError(f"{printable(filename)}: expected little-endian samples, not big-endian ones")
        try:
            mmap = np.memmap(filename, _sample_type(bitdepth), "r")
            return cls(mmap, width, height, bitdepth, format, framerate or info.get("framerate"))
        except DatasetError as error:
            raise DatasetError(f"{printable(filename)}: {error}") from None
        except (OSError, ValueError) as error:
            raise DatasetError(f"{printable(filename)}: cannot be read ({error})") from error

    def __getitem__(self, index: int | slice) -> Any:
        return self.data[index]

    def __len__(self) -> int:
        return len(self.data)

    def close(self) -> None:
        """Let go of the file."""
        del self.data
