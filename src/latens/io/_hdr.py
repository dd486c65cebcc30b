"""HDR metadata for files that PyAV writes.

PyAV sets no such data on a stream that it makes, but copies those of a stream that it is shown. So it is shown one: a
Matroska header (RFC 9559) that says it.
"""

from __future__ import annotations

import io
from typing import Any

from latens.io._matroska import element, number, real
from latens.io._video import Light, Mastering

__all__ = ["hdr_template"]

_CODECS = {"ffv1": b"V_FFV1", "libx264": b"V_MPEG4/ISO/AVC"}
_RED, _BRIGHTEST, _DARKEST = 0x55D1, 0x55D9, 0x55DA


def hdr_template(av: Any, encoder: str, mastering: Mastering | None, light: Light | None) -> Any:
    """A container whose one stream has these metadata, to make others from; to be closed."""
    colour = b""
    if light is not None:
        colour += number(0x55BC, light.pixel) + number(0x55BD, light.frame)
    if mastering is not None:
        points = [x for point in mastering[:4] for x in point]
        found = [(_RED + i, x / 50_000) for i, x in enumerate(points)] if any(points) else []
        if mastering.brightest or mastering.darkest:
            found += [(_BRIGHTEST, mastering.brightest / 10_000), (_DARKEST, mastering.darkest / 10_000)]
        colour += element(0x55D0, b"".join(real(*pair) for pair in found))
    # Size is told again later; no frame ever comes.
    video = number(0xB0, 16) + number(0xBA, 16) + element(0x55B0, colour)
    track = number(0xD7, 1) + number(0x73C5, 1) + number(0x83, 1) + element(0x86, _CODECS[encoder])
    segment = (
        element(0x1549A966, number(0x2AD7B1, 1_000_000))
        + element(0x1654AE6B, element(0xAE, track + element(0xE0, video)))
        + element(0x1F43B675, number(0xE7, 0) + element(0xA3, b"\x81\0\0\x80"))
    )
    head = element(0x4282, b"matroska") + number(0x4287, 4) + number(0x4285, 2)
    data = element(0x1A45DFA3, head) + element(0x18538067, segment)
    return av.open(io.BytesIO(data), format="matroska")
