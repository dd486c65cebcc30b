"""What a file says besides its samples, brought together from all places where files say it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from latens.errors import LimitError
from latens.io._exif import is_exif, reset_xmp_orientation, split_orientation, xmp_orientation
from latens.io._picture import MAX_METADATA, SRGB, Colour, Density, Image, turn
from latens.io._text import NOT_KEPT

# What an XMP packet says of things that are not in the picture any more.
_GAIN_MAP = re.compile(rb"\s+(?:xmlns:)?hdrgm(?::\w+)?=(?:\"[^\"]*\"|'[^']*')")
_GAIN_MAP_ELEMENT = re.compile(rb"<hdrgm:(\w+)\b[^>]*?(?:/>|>.*?</hdrgm:\1>)", re.DOTALL)
_MOTION = re.compile(rb"\s+GCamera:(?:MotionPhoto|MicroVideo)\w*=(?:\"[^\"]*\"|'[^']*')")
_DIRECTORY = re.compile(rb"<(G?Container):Directory\b.*?</\1:Directory>", re.DOTALL)


@dataclass
class Facts:
    """What is known of a picture while its file is read.

    orientation: as EXIF counts, 1 to 8, to be applied to the samples; `finish` does it. xmp_may_turn: whether the
    orientation in XMP counts where EXIF has none. bit_depth: 0 for what the samples are stored with. lost: names of
    what is not kept.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    colour: Colour = SRGB
    density: Density | None = None
    orientation: int = 1
    xmp_may_turn: bool = True
    bit_depth: int = 0
    notes: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def lose(self, *names: str) -> None:
        """Something is not kept; it is named once, however often it occurs."""
        self.lost += [name for name in names if name not in self.lost]

    def take_exif(self, exif: bytes, *, turns: bool = True) -> None:
        """EXIF with or without its prefix; its orientation counts if it `turns`."""
        bounded(exif, "EXIF")
        while exif.startswith(b"Exif\0\0"):
            exif = exif[6:]
        if not is_exif(exif):
            self.notes.append("the EXIF data are damaged and were left out")
            return
        orientation, self.exif = split_orientation(exif)
        if turns and orientation is not None:
            self.orientation, self.xmp_may_turn = orientation, False

    def take_xmp(self, xmp: bytes) -> None:
        """XMP; what it says of gain maps and films that are lost is taken out."""
        bounded(xmp, "XMP")
        stripped = _GAIN_MAP_ELEMENT.sub(b"", _GAIN_MAP.sub(b"", xmp))
        if stripped != xmp:
            self.lose("gain map")
        without = _MOTION.sub(b"", stripped)
        if without != stripped:
            self.lose("film of a motion photo")
        if without != xmp:
            without = _DIRECTORY.sub(b"", without)
        self.xmp = without

    def take_density(self, across: float, down: float, unit: str) -> None:
        """Samples per unit; nonsense is left out."""
        if all(0 < value < 1 << 32 for value in (across, down)) and (unit or across != down):
            self.density = (_ratio(across), _ratio(down), unit)

    def finish(self, pixels: npt.NDArray[np.generic], alpha: npt.NDArray[np.generic] | None) -> Image:
        """The image: turned, with what fits to it."""
        orientation, xmp = self.orientation, self.xmp
        if xmp and self.xmp_may_turn:
            orientation = xmp_orientation(xmp) or orientation
        if xmp:
            xmp = reset_xmp_orientation(xmp)
        icc = self.icc
        if icc and not icc_fits(icc, pixels.shape[2]):
            self.lose("ICC profile (damaged, or of another kind than the pixels)")
            icc = None
        density = self.density
        if density is not None and orientation in range(5, 9):
            density = (density[1], density[0], density[2])
        return Image(
            turn(pixels, orientation),
            None if alpha is None else turn(alpha, orientation),
            icc,
            self.exif,
            xmp,
            (*self.notes, *([f"{NOT_KEPT}{', '.join(self.lost)}"] if self.lost else ())),
            self.colour,
            density,
            self.bit_depth,
        )


def _ratio(value: float) -> tuple[int, int]:
    if isinstance(value, int):
        return value, 1
    from fractions import Fraction  # takes time to load, which most files need not spend

    return Fraction(value).limit_denominator(10**6).as_integer_ratio()


def bounded(data: bytes, name: str) -> bytes:
    """The data; LimitError if a file could not hold them."""
    if len(data) > MAX_METADATA:
        raise LimitError(f"{name}: {len(data)} bytes are above the limit of {MAX_METADATA}")
    return data


def icc_fits(icc: bytes, channels: int) -> bool:
    """Whether an ICC profile looks sound and describes pixels with so many channels."""
    space = b"GRAY" if channels == 1 else b"RGB "
    return len(icc) >= 128 and icc[36:40] == b"acsp" and icc[16:20] == space
