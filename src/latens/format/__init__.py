"""The `.ltn` container: reading, writing and describing files. The normative text is docs/format.md.

Needs only the standard library, so that a file can be described without starting anything heavy.

>>> header = Header(width=2, height=1, model="t", entropy_id="01020304", weights_id="05060708", quality=7)
>>> data = write(Container(header, [Tile(symbol_checksum(b""), b"stream")]))
>>> read(data).tiles[0].stream
b'stream'
>>> describe(data).overhead
41
"""

from typing import TYPE_CHECKING, Any

from latens.format._container import (
    ChunkInfo,
    Container,
    Density,
    Description,
    Tile,
    Writer,
    describe,
    load,
    read,
    read_header,
    symbol_checksum,
    write,
)
from latens.format._geometry import GRID, Rect, coded_size, max_stream_size, tile_grid, tile_rects
from latens.format._header import MAX_HEADER_SIZE, SRGB, VERSION, Cicp, Header, Limits
from latens.format._random import FileSource, PathSource, RandomReader, Source

if TYPE_CHECKING:
    from latens.format._video import (
        BT601,
        BT709,
        QUALITY_STEP,
        Drawn,
        Frame,
        FrameOrder,
        Index,
        KeyFrame,
        Stream,
        VideoExtras,
        VideoHeader,
        VideoReader,
        VideoWriter,
        is_video,
        max_frame_size,
    )

__all__ = [
    "BT601",
    "BT709",
    "GRID",
    "MAX_HEADER_SIZE",
    "QUALITY_STEP",
    "SRGB",
    "VERSION",
    "ChunkInfo",
    "Cicp",
    "Container",
    "Density",
    "Description",
    "Drawn",
    "FileSource",
    "Frame",
    "FrameOrder",
    "Header",
    "Index",
    "KeyFrame",
    "Limits",
    "PathSource",
    "RandomReader",
    "Rect",
    "Source",
    "Stream",
    "Tile",
    "VideoExtras",
    "VideoHeader",
    "VideoReader",
    "VideoWriter",
    "Writer",
    "coded_size",
    "describe",
    "is_video",
    "load",
    "max_frame_size",
    "max_stream_size",
    "read",
    "read_header",
    "symbol_checksum",
    "tile_grid",
    "tile_rects",
    "write",
]


def __getattr__(name: str) -> Any:
    # Video needs modules that take time to load, and most files are pictures.
    if name in __all__:
        from latens.format import _video

        return getattr(_video, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
