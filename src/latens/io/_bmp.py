"""Colour in Windows bitmaps, which Pillow does not read."""

from __future__ import annotations

from typing import BinaryIO

from latens.io._facts import Facts, bounded

_HEADER = 14
_V4, _V5 = 108, 124
_EMBEDDED, _LINKED, _CALIBRATED = b"DEBM", b"KNIL", bytes(4)


def take_bmp_colour(file: BinaryIO, facts: Facts) -> None:
    """The ICC profile of a bitmap; calibration by numbers, and profiles that are elsewhere, are named as lost."""
    file.seek(_HEADER)
    header = file.read(_V5)
    size = int.from_bytes(header[:4], "little")
    if size < _V4 or len(header) < _V4:
        return
    kind = header[56:60]
    if kind == _CALIBRATED and any(header[60:108]):
        facts.lose("colour calibration")
    elif kind == _LINKED:
        facts.lose("ICC profile (in another file)")
    elif kind == _EMBEDDED and size >= _V5 and len(header) == _V5:
        start, length = (int.from_bytes(header[at : at + 4], "little") for at in (112, 116))
        end = file.seek(0, 2)
        if length and _HEADER + start + length <= end:
            file.seek(_HEADER + start)
            facts.icc = bounded(file.read(length), "ICC profile")
        else:
            facts.lose("ICC profile (damaged)")
