"""Frames of FFmpeg, in whatever layout, as planes of samples that a file can have; no sample changes its meaning."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from latens.errors import VideoError
from latens.io._text import printable
from latens.io._video import RGB, SUBSAMPLING, UNSPECIFIED, Plane, usual_matrix

__all__ = ["Samples", "colour_of", "has_alpha", "samples_of"]

_MATRICES = (1, 4, 5, 6, 7, 9)
_REFUSED_MATRICES = {
    8: "YCgCo",
    10: "BT.2020 with constant luminance",
    11: "Y'D'zD'x",
    12: "derived from the primaries",
    13: "derived from the primaries, constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
# Primaries that come with one matrix.
_OF_PRIMARIES = {1: 1, 4: 4, 5: 5, 6: 6, 7: 7, 9: 9}
_FULL = 2
_PACKED_RGB = "rgb24"
# Where alpha is in four bytes.
_PACKED = {"rgba": 3, "bgra": 3, "argb": 0, "abgr": 0}
# Samples of these lie plane by plane, as they are wanted.
_PLANAR = re.compile(r"(yuvj?|yuva|gbra?|gray)(420|422|444)?p?(9|10|12|14|16)?(le|be)?")


@dataclass(frozen=True)
class Samples:
    """How the samples of a video's frames are had.

    Attributes:
        chroma: of the planes.
        bit_depth: 8, 10 or 12, of the planes.
        depth: bits per sample in the file.
        rgb: whether the planes are G, B and R.
        grey: whether there is nothing but luma.
        layout: FFmpeg's name of a layout that is read; frames in another are rearranged into this one first.
    """

    chroma: str
    bit_depth: int
    depth: int
    rgb: bool
    grey: bool
    layout: str

    def planes(self, frame: Any, full: bool) -> tuple[Plane, Plane, Plane]:
        """The three planes of a frame. `full`: whether samples use the whole range, so that depths convert."""
        if frame.format.name != self.layout:
            # Where colours do not change, ranges must not, and FFmpeg guesses unless told: then it changes nothing.
            same = {"src_color_range": _FULL, "dst_color_range": _FULL}
            frame = frame.reformat(format=self.layout, **same)
        dtype = np.dtype(np.uint8 if self.depth == 8 else "<u2" if "be" not in self.layout[-2:] else ">u2")
        found: list[Plane] = []
        across, down = SUBSAMPLING[self.chroma]
        small = -(-frame.height // down), -(-frame.width // across)
        if self.layout == _PACKED_RGB:
            plane = frame.planes[0]
            rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[
                : frame.height, : 3 * frame.width
            ]
            r, g, b = (np.ascontiguousarray(rows[:, i::3]) for i in range(3))
            return g, b, r
        for number, plane in enumerate(frame.planes[: 1 if self.grey else 3]):
            height, width = small if number else (frame.height, frame.width)
            samples = np.frombuffer(plane, dtype).reshape(-1, plane.line_size // dtype.itemsize)
            found.append(self._at_depth(samples[:height, :width], full))
        if self.grey:
            middle = np.full(small, 1 << self.bit_depth - 1, found[0].dtype)
            found += [middle, middle]
        first, second, third = found
        return first, second, third

    def _at_depth(self, samples: Any, full: bool) -> Plane:
        """Samples with as many bits as files have: shifted where black and white move with the depth, else scaled."""
        if self.depth == self.bit_depth:
            kept: Plane = samples.astype(np.uint8 if self.depth == 8 else np.uint16)
            return kept
        most, largest = (1 << self.bit_depth) - 1, (1 << self.depth) - 1
        if full:
            scaled = (samples.astype(np.uint32) * most + largest // 2) // largest
        elif self.bit_depth > self.depth:
            scaled = samples.astype(np.uint32) << self.bit_depth - self.depth
        else:
            less = self.depth - self.bit_depth
            scaled = np.minimum((samples.astype(np.uint32) + (1 << less - 1)) >> less, most)
        found: Plane = scaled.astype(np.uint16)
        return found


def samples_of(frame: Any) -> Samples:
    """How the samples of frames like this one are had.

    Raises:
        VideoError: samples of floating point, or none at all.
    """
    form = frame.format
    name = form.name
    parts = form.components
    if not parts or re.search(r"f(16|32)?(le|be)$", name):
        raise VideoError(
            f"its samples ({printable(name)}) are of a kind that is not supported; convert it first"
        )
    bits = max(part.bits for part in parts)
    rgb = bool(form.is_rgb or form.has_palette or name.startswith(("gbr", "xyz")))
    if name.startswith("bayer"):
        bits = 8 if name.endswith("8") else 16
    grey = not rgb and len([part for part in parts if not part.is_alpha]) == 1
    depth = next(d for d in (8, 9, 10, 12, 14, 16) if bits <= d) if bits <= 16 else 16
    if rgb:
        chroma = "4:4:4"
    elif grey:
        chroma = "4:2:0"
    else:
        found = tuple(4096 // size for size in (form.chroma_width(4096), form.chroma_height(4096)))
        chroma = next((c for c, sizes in SUBSAMPLING.items() if sizes == found), "4:4:4")
    planar = _PLANAR.fullmatch(name)
    if planar and (rgb or grey or planar[2] == chroma.replace(":", "")):
        layout = name
    else:
        kind = "gbrp" if rgb else "gray" if grey else f"yuv{chroma.replace(':', '')}p"
        depth = next(d for d in (8, 10, 12, 16) if depth <= d)
        layout = kind if depth == 8 else f"{kind}{depth}le"
        if layout == "gbrp":
            # Of fewer bits, FFmpeg spreads values over the whole range this way only.
            layout = _PACKED_RGB
    bit_depth = 8 if depth == 8 else 10 if depth <= 10 else 12
    return Samples(chroma, bit_depth, depth, rgb, grey, layout)


def has_alpha(frame: Any) -> bool:
    """Whether a frame is transparent somewhere; in unusual layouts, whether it may be."""
    name = frame.format.name
    if frame.format.has_palette:
        return bool((np.frombuffer(frame.planes[1], np.uint8)[3::4] < 255).any())
    if not any(part.is_alpha for part in frame.format.components):
        return False
    if name in _PACKED:
        plane = frame.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : 4 * frame.width]
        return bool((rows[:, _PACKED[name] :: 4] < 255).any())
    return True


def colour_of(frame: Any, samples: Samples) -> tuple[int, int, int, int]:
    """Code points of ITU-T H.273 of a frame; a matrix that it does not tell is the usual one.

    Raises:
        VideoError: a matrix that frames cannot be converted with.
    """
    primaries, transfer, matrix = (
        code if 0 < code < 256 and code not in (0, 3) else UNSPECIFIED
        for code in (int(frame.color_primaries), int(frame.color_trc), int(frame.colorspace))
    )
    if samples.rgb:
        # What RGB says of matrix and range is often left over from elsewhere; players do not look at it either.
        return primaries, transfer, RGB, 1
    if matrix in _REFUSED_MATRICES:
        raise VideoError(
            f"its colours are coded as {_REFUSED_MATRICES[matrix]}, which is not supported; convert it first, as to "
            "BT.709 or RGB"
        )
    if matrix not in _MATRICES:
        matrix = _OF_PRIMARIES.get(primaries, usual_matrix(frame.height))
    told = int(frame.color_range)
    full = told == _FULL or frame.format.name.startswith("yuvj") or (samples.grey and not told)
    return primaries, transfer, matrix, int(full)
