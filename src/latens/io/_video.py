"""What videos consist of, for those who read and write them: frames, and what all of them have in common."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy.typing as npt

from latens.errors import UnavailableError, VideoError

__all__ = [
    "SUBSAMPLING",
    "Light",
    "Mastering",
    "Plane",
    "RawVideo",
    "VideoFrame",
    "VideoInfo",
    "check_size",
    "pixel_format",
    "pyav",
    "reason_of",
    "usual_matrix",
]

Plane = npt.NDArray[Any]  # uint8 or uint16

STANDARD = "-"
SUBSAMPLING = {"4:2:0": (2, 2), "4:2:2": (2, 1), "4:4:4": (1, 1)}  # along width and height
_MAX_SIDE = 65535
_MAX_PIXELS = 1 << 28
RGB, UNSPECIFIED = 0, 2
"""Of ITU-T H.273: the matrix of samples that are G, B and R, and what is not said."""


class Mastering(NamedTuple):
    """The display that HDR was mastered on (SMPTE ST 2086); zeros where it is not said.

    Chromaticities x, y of red, green, blue and white, each in steps of 0.00002; luminances in steps of 0.0001 cd/m2.
    """

    red: tuple[int, int]
    green: tuple[int, int]
    blue: tuple[int, int]
    white: tuple[int, int]
    brightest: int
    darkest: int


class Light(NamedTuple):
    """How bright HDR gets, in cd/m2: its brightest pixel (MaxCLL), and its brightest frame on average (MaxFALL)."""

    pixel: int
    frame: int


@dataclass(frozen=True)
class VideoInfo:
    """What all frames of a video have in common.

    Attributes:
        width: pixels.
        height: pixels.
        chroma: ``"4:2:0"``, ``"4:2:2"`` or ``"4:4:4"``.
        bit_depth: 8, 10 or 12.
        colour: code points of ITU-T H.273: primaries, transfer, matrix, full range. With matrix 0 the planes are G, B
            and R; 2 is what nobody said.
        time_base: seconds per tick of a timestamp.
        frame_rate: nominal frames per second.
        frames: how many there are, if the file says so.
        pixel_aspect: width of a pixel divided by its height.
        mastering: of HDR.
        light: of HDR.
    """

    width: int
    height: int
    chroma: str = "4:2:0"
    bit_depth: int = 8
    colour: tuple[int, int, int, int] = (1, 1, 1, 0)
    time_base: Fraction = Fraction(1, 25)
    frame_rate: Fraction = Fraction(25)
    frames: int | None = None
    pixel_aspect: Fraction = Fraction(1)
    mastering: Mastering | None = None
    light: Light | None = None

    @property
    def plane_sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of Y, U and V."""
        across, down = SUBSAMPLING[self.chroma]
        small = -(-self.height // down), -(-self.width // across)
        return (self.height, self.width), small, small


@dataclass(frozen=True)
class VideoFrame:
    """One frame.

    Attributes:
        planes: Y, U and V (or G, B and R), ``(height, width)`` each as :attr:`VideoInfo.plane_sizes` says; uint8, or
            uint16 for more than 8 bits.
        timestamp: in ticks of the time base; rises.
        duration: ticks, if known.
    """

    planes: tuple[Plane, Plane, Plane]
    timestamp: int
    duration: int | None = None


@dataclass(frozen=True)
class RawVideo:
    """What a file of bare planes does not say about itself."""

    width: int
    height: int
    frame_rate: Fraction = Fraction(25)
    chroma: str = "4:2:0"
    bit_depth: int = 8

    def __post_init__(self) -> None:
        if self.chroma not in SUBSAMPLING or self.bit_depth not in (8, 10, 12):
            raise VideoError(
                f"raw video: expected 4:2:0, 4:2:2 or 4:4:4 and 8, 10 or 12 bits, got {self.chroma} and "
                f"{self.bit_depth}"
            )
        if self.frame_rate <= 0:
            raise VideoError(f"raw video: the frame rate must be positive, not {self.frame_rate}")
        check_size(self.width, self.height)


def check_size(width: int, height: int) -> None:
    """Raises VideoError for frames that are too large."""
    if not (1 <= width <= _MAX_SIDE and 1 <= height <= _MAX_SIDE and width * height <= _MAX_PIXELS):
        raise VideoError(
            f"frames of {width} x {height} pixels; sides must be 1 to {_MAX_SIDE}, pixels at most 2^28"
        )


def usual_matrix(height: int) -> int:
    """What most players take for video that does not say: BT.709 from 720 lines on, else BT.601."""
    return 1 if height >= 720 else 6


def pixel_format(info: VideoInfo) -> str:
    """FFmpeg's name of how the planes are laid out."""
    deep = "" if info.bit_depth == 8 else f"{info.bit_depth}le"
    return f"gbrp{deep}" if info.colour[2] == RGB else f"yuv{info.chroma.replace(':', '')}p{deep}"


def pyav() -> Any:
    """PyAV, silenced. Raises UnavailableError without it."""
    try:
        import av
    except ImportError as error:
        raise UnavailableError(
            "video files need PyAV: pip install 'latens[video]' (raw .yuv and .y4m output work without)"
        ) from error
    # Nothing is printed: what is captured is looked at where it matters.
    logging.getLogger("libav").setLevel(logging.CRITICAL + 1)
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_libav_level(av.logging.ERROR)
    return av


def reason_of(error: Exception) -> str:
    """Why something failed, in the system's or FFmpeg's words."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
