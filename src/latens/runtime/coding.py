"""What a codec needs of a model, whatever executes it: from pixels to a tile's stream, and back."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from latens import format as ltn

__all__ = [
    "LATENT",
    "Anatomy",
    "CodedPicture",
    "CodedTile",
    "FileModel",
    "Keep",
    "Prices",
    "Rows",
    "Samples",
    "Squares",
    "VideoFileModel",
    "Window",
    "checksum",
]

LATENT = 16  # pixels per position of y

Array = npt.NDArray[Any]
Samples = npt.NDArray[np.uint16]
Squares = npt.NDArray[np.bool_]
"""Of the squares of 64x64 pixels of a picture, ``(H / 64, W / 64)``."""
Keep = Callable[[Samples], Squares]
"""From the prediction of a frame, ``(H, W, 3)``, to the squares that stay as predicted."""


class Window(NamedTuple):
    """Positions of a tile: from ``top`` and ``left`` on, before ``bottom`` and ``right``."""

    top: int
    bottom: int
    left: int
    right: int


class CodedTile(NamedTuple):
    """A tile's stream, the lanes it was written with, the checksum over its symbols, and what synthesis takes of it."""

    stream: bytes
    lanes: int
    checksum: int
    rows: Array


class Rows(Protocol):
    """Something that takes rows of a picture from top to bottom, and gives rows of another as they become known."""

    def push(self, rows: Array) -> Array:
        """Take rows ``(n, width, C)``, and give those that are complete, ``(m, width', C')``; m may be 0."""

    def finish(self) -> Array:
        """Give the rest; nothing may be pushed any more."""


class FileModel(Protocol):
    """A loaded model that codes files of pictures.

    Latents are arrays ``(H, W, C)``, a position for 16x16 pixels, of a type that is the model's own business.
    """

    id: str
    """The name that goes into files."""
    weights_id: str
    """SHA-256 of the weights, 64 hex digits."""
    entropy_id: str
    """SHA-256 over every integer that decides about symbols, 64 hex digits."""
    skip: int
    """Table indexes below are not coded: a symbol other than zero is not worth its bits and its time."""
    exact: bool
    """Whether pixels are the same on every machine."""
    rates: int | None
    """Number of rates to choose from: None for any."""
    refines: bool
    """Whether :meth:`refine` can be used."""
    reach: int | None
    """How many positions of rows around a part of the picture :meth:`synthesis` needs for it; None if all of them."""
    analysis_reach: int | None
    """How many pixels around a part :meth:`analysis` needs for it; None if all of them, or if nobody knows."""
    channels: int
    """Channels of :meth:`decode`'s rows."""
    rows_type: npt.DTypeLike
    """Type of them."""

    @property
    def base(self) -> Any:
        """The float network of the default architecture: to train on, and to search with.

        Raises:
            ModelError: it is of another architecture, or what it needs is not installed.
        """

    def level(self, quality: float) -> int:
        """The header's quality, 0 to 65,535, for a user's of 0 to 100: the nearest that the model has."""

    def quality(self, level: int) -> float:
        """The inverse of :meth:`level`."""

    def analysis(self, width: int, dtype: npt.DTypeLike, channels: int) -> Rows:
        """From samples, uint8 or uint16, of 1 or 3 channels, to rows of features. Widths are multiples of 64."""

    def latent(self, features: Array, level: int) -> Array:
        """What is coded of features at a quality."""

    def refine(self, samples: Array, latent: Array, level: int, steps: int) -> Array:
        """A latent that costs less for samples ``(h, w, 1 or 3)``, after so many gradient steps.

        Raises:
            ImageError: this model has no search, or what it needs is not installed.
        """

    def encode(self, latent: Array, level: int, lanes: int | None) -> CodedTile:
        """The stream of a tile.

        Raises:
            ModelError: the weights give values that are not finite.
        """

    def decode(
        self,
        stream: bytes,
        size: tuple[int, int],
        level: int,
        skip: int,
        lanes: int,
        window: Window | None = None,
    ) -> tuple[int, Array]:
        """Checksum over the symbols of a tile of coded ``size`` (height, width), and its rows for :meth:`synthesis`.

        With a window, only the rows that lie in it: what takes long is done for these alone, if :attr:`reach` is known.

        Raises:
            CoderError: the stream is damaged.
        """

    def anatomy(self, stream: bytes, size: tuple[int, int], level: int, skip: int, lanes: int) -> Anatomy:
        """What is in the stream of a tile; arguments and errors as for :meth:`decode`."""

    def unrounded(self, samples: Array, level: int) -> tuple[Array, Array]:
        """y and z of a picture before rounding, in steps: ``(C, H, W)`` float32; sides are multiples of 64.

        For a model without side information y is empty.
        """

    def bounds(self) -> dict[str, list[int]]:
        """For each integer network, what the sums of each of its layers are proven to stay below."""

    def prices(self, level: int) -> tuple[Prices, Prices | None]:
        """Tables of z, one for each channel, and of y, one for each index."""

    def synthesis(self, width: int, level: int, dtype: npt.DTypeLike, channels: int) -> Rows:
        """From rows ``width`` positions wide to samples ``(n, 16 width, channels)``, uint8 or uint16."""


class CodedPicture(NamedTuple):
    """What became of a frame of a video.

    Attributes:
        streams: of the coder.
        checksum: over its symbols.
        picture: as the decoder will have it, ``(H, W, 3)`` uint16.
    """

    streams: tuple[ltn.Stream, ...]
    checksum: int
    picture: Samples


class VideoFileModel(Protocol):
    """A loaded model that codes files of video, one frame at a time.

    Pictures are RGB ``(H, W, 3)`` uint16, H and W multiples of ``grid``.
    """

    id: str
    """The name that goes into files."""
    weights_id: str
    """SHA-256 of the weights, 64 hex digits."""
    entropy_id: str
    """SHA-256 over every integer that decides about symbols, 64 hex digits."""
    grid: int
    skip: int
    """Table indexes below are not coded."""
    qualities: bool
    """Whether it has all qualities; otherwise the header's is 0."""
    exact: bool
    """Whether pixels are the same on every machine."""
    structured: bool
    """Whether a frame may refer to any one or two others, and have a quality of its own; else to the one before."""

    def encode(
        self,
        picture: Samples,
        references: Sequence[Samples],
        level: int,
        depth: int,
        visible: tuple[int, int] | None = None,
        keep: Keep | None = None,
    ) -> CodedPicture:
        """Code a frame, alone or under the condition of others as the decoder has them.

        Args:
            picture: the frame.
            references: none for a key frame, else one or two: an earlier one, a later one.
            level: the frame's quality, as a header's.
            depth: the header's bits of samples.
            visible: height and width of what is shown; None for all.
            keep: of a structured model, for a frame that is not alone: says what stays as predicted.

        Raises:
            ModelError: the weights give values that are not finite.
        """

    def decode(
        self,
        frame: ltn.Frame,
        references: Sequence[Samples],
        shape: tuple[int, int],
        header: ltn.VideoHeader,
        kept: Squares | None = None,
    ) -> tuple[int, Samples]:
        """Checksum over the symbols of a frame of padded ``shape``, and its picture.

        Args:
            frame: from the file.
            references: the pictures that it refers to, in its order.
            shape: height and width.
            header: of the file.
            kept: of a structured model: what stays as predicted.

        Raises:
            CoderError, FormatError: the frame is damaged.
            ModelError: the weights give values that are not finite.
        """


class Prices(NamedTuple):
    """Tables that symbols of a latent are coded with: entries of each, summing up to 2^16, and its first symbol."""

    rows: list[npt.NDArray[np.int32]]
    offsets: npt.NDArray[np.int32]


class Anatomy(NamedTuple):
    """A tile taken apart.

    Attributes:
        z, y: symbols, ``(C_z, h, w)`` and ``(C, H, W)`` int16; no y for a model without side information.
        indexes: table of each symbol of y, ``(C, H, W)`` uint8.
        mean: what y was expected to be, in steps of its quantiser, ``(C, H, W)`` float32; None where that is always 0.
        z_bytes, y_bytes: what either adds to a stream of one coder state, and that state's own.
    """

    z: npt.NDArray[np.int16]
    y: npt.NDArray[np.int16]
    indexes: npt.NDArray[np.uint8]
    mean: npt.NDArray[np.float32] | None
    z_bytes: int
    y_bytes: int


def checksum(*symbols: npt.NDArray[np.int16]) -> int:
    """The checksum of a tile: CRC-32 over its symbols as little-endian int16, all of z, then all of y ``(C, H, W)``."""
    crc = 0
    for array in symbols:
        crc = zlib.crc32(np.ascontiguousarray(array, "<i2").data, crc)
    return crc
