"""Sequences of pictures as a video: the files of a folder, or ``frame_%04d.png``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from latens.errors import LatensError, VideoError
from latens.io._image import read_image
from latens.io._text import NOT_KEPT, printable
from latens.io._video import Plane, VideoFrame, VideoInfo, check_size

__all__ = ["PATTERN", "PictureSequence"]

PATTERN = re.compile(r"(?P<start>(?:[^%]|%%)*)%(?:0(?P<digits>\d{1,2}))?d(?P<end>(?:[^%]|%%)*)")
"""The name of a sequence of pictures, as ``frame_%04d.png``."""

_SUFFIXES = frozenset(
    ".png .jpg .jpeg .webp .avif .tif .tiff .bmp .ppm .pgm .pnm .jp2 .j2k .gif .heic .jxl".split()  # noqa: SIM905
)


class PictureSequence:
    """Pictures as frames, of which all have the size and the kind of samples of the first.

    Args:
        path: a folder, or a name with ``%d`` or ``%04d`` in it.
        rate: frames per second.

    Attributes:
        info: of the frames.
        lost: what reading pictures leaves out, as it is met.

    Raises:
        VideoError: there are no such pictures, or one in the middle is missing.
    """

    def __init__(self, path: str, rate: Fraction) -> None:
        self.lost: list[str] = []
        self._files = _numbered(Path(path)) if not Path(path).is_dir() else self._in_folder(Path(path))
        first = self._read(self._files[0])
        height, width = first.pixels.shape[:2]
        check_size(width, height)
        primaries, transfer = first.colour[:2]
        self._depth = _depth(first)
        self.info = VideoInfo(
            width,
            height,
            "4:4:4",
            self._depth,
            (primaries, transfer, 0, 1),
            1 / rate,
            rate,
            len(self._files),
            _aspect(first),
        )
        self._colour = first.colour

    def frames(self) -> Iterator[VideoFrame]:
        """All of them.

        Raises:
            VideoError: a picture that cannot be read, or differs from the first.
        """
        for number, file in enumerate(self._files):
            image = self._read(file)
            found = image.pixels.shape[1], image.pixels.shape[0], _depth(image), image.colour
            wanted = self.info.width, self.info.height, self._depth, self._colour
            if found != wanted:
                raise VideoError(
                    f"{printable(file)} has {found[0]}x{found[1]} pixels of {found[2]} bits and colour {found[3]}, the "
                    f"first picture {wanted[0]}x{wanted[1]} of {wanted[2]} bits and colour {wanted[3]}; make them alike"
                )
            yield VideoFrame(self._planes(image), number, 1)

    def _read(self, file: Path) -> Any:
        try:
            image = read_image(file)
        except LatensError as error:
            raise VideoError(str(error)) from error
        lost = [note.removeprefix(NOT_KEPT) for note in image.notes if note.startswith(NOT_KEPT)]
        for name, value in (
            ("transparency", image.alpha),
            ("colour profile", image.icc),
            ("EXIF", image.exif),
            ("XMP", image.xmp),
        ):
            if value is not None:
                lost.append(name)
        if image.bit_depth > 12:
            lost.append(f"samples of {image.bit_depth} bits (12 are)")
        self.lost += [name for name in dict.fromkeys(lost) if name not in self.lost]
        return image

    def _planes(self, image: Any) -> tuple[Plane, Plane, Plane]:
        samples = image.pixels
        if self._depth > 8:
            most = (1 << self._depth) - 1
            samples = ((samples.astype(np.uint32) * most + 32767) // 65535).astype(np.uint16)
        r, g, b = (np.ascontiguousarray(samples[:, :, i % samples.shape[2]]) for i in range(3))
        return g, b, r

    def _in_folder(self, folder: Path) -> list[Path]:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        found = sorted((e for e in entries if e.is_file() and e.suffix.lower() in _SUFFIXES), key=_natural)
        if not found:
            raise VideoError("is a folder without pictures; give a video file, or a folder of frames")
        if len(entries) > len(found):
            self.lost.append(f"{len(entries) - len(found)} other files of the folder")
        return found


def _depth(image: Any) -> int:
    return 8 if image.bit_depth == 8 else 10 if image.bit_depth <= 10 else 12


def _aspect(image: Any) -> Fraction:
    """Width of a pixel divided by its height: where more of them lie on the same length, they are smaller."""
    if image.density is None:
        return Fraction(1)
    across, down, _ = image.density
    return Fraction(*down) / Fraction(*across)


def _natural(path: Path) -> tuple[list[Any], str]:
    """Numbers in names by their value, whatever their number of digits."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], path.name


def _numbered(path: Path) -> list[Path]:
    """The files of a pattern, by their numbers.

    Raises:
        VideoError: there is none, or one is missing between others.
    """
    parts = PATTERN.fullmatch(path.name)
    if parts is None:
        raise VideoError(f"{printable(path)}: expected one %d or %04d in the name")
    start, end = (re.escape(parts[part].replace("%%", "%")) for part in ("start", "end"))
    digits = int(parts["digits"] or 1)
    name = re.compile(rf"{start}(\d{{{digits},}}){end}")
    found: dict[int, Path] = {}
    try:
        for entry in path.parent.iterdir():
            match = name.fullmatch(entry.name)
            if match and (len(match[1]) == digits or match[1][0] != "0"):
                found[int(match[1])] = entry
    except OSError as error:
        raise VideoError(f"cannot be read ({printable(error.strerror or str(error))})") from error
    if not found:
        raise VideoError("no file has such a name")
    first, last = min(found), max(found)
    if len(found) != last - first + 1:
        gap = next(number for number in range(first, last) if number not in found)
        raise VideoError(f"number {gap} is missing, between {first} and {last}; every frame is needed")
    return [found[number] for number in range(first, last + 1)]
