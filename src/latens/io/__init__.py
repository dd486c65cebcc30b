"""Image files to arrays and back, and writing files safely.

The image functions load NumPy and Pillow when they are first used; the others need only the standard library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from latens.io._output import TemporaryOutput, UnfinishedOutput, atomic_write, check_output, remove_leftovers
from latens.io._text import NOT_KEPT, printable

if TYPE_CHECKING:
    from latens.io._http import RangeFile, is_address
    from latens.io._image import READ_FORMATS, from_pil, read_image
    from latens.io._picture import Image
    from latens.io._sound import Sound, SoundFile
    from latens.io._strips import STRIP_FORMATS, Strips, open_strips, write_strips
    from latens.io._video import Light, Mastering, RawVideo, VideoFrame, VideoInfo
    from latens.io._video_in import VIDEO_FORMATS, VideoSource
    from latens.io._video_out import VideoSink
    from latens.io._write import WRITE_FORMATS, to_pil, write_format, write_image

__all__ = [
    "NOT_KEPT",
    "READ_FORMATS",
    "STRIP_FORMATS",
    "VIDEO_FORMATS",
    "WRITE_FORMATS",
    "Image",
    "Light",
    "Mastering",
    "RangeFile",
    "RawVideo",
    "Sound",
    "SoundFile",
    "Strips",
    "TemporaryOutput",
    "UnfinishedOutput",
    "VideoFrame",
    "VideoInfo",
    "VideoSink",
    "VideoSource",
    "atomic_write",
    "check_output",
    "from_pil",
    "is_address",
    "open_strips",
    "printable",
    "read_image",
    "remove_leftovers",
    "to_pil",
    "write_format",
    "write_image",
    "write_strips",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for module in (
        "_picture", "_image", "_write", "_video", "_sound", "_video_in", "_video_out", "_strips", "_http",
    ):  # fmt: skip
        home = import_module(f"latens.io.{module}")
        if hasattr(home, name):
            return getattr(home, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
