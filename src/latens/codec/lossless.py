"""Pictures without loss, or with a bounded one, and the alpha of all pictures; no model, no PyTorch."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from latens import format as ltn
from latens.codec.threads import together
from latens.entropy_coding.lossless import (
    CONTENTS,
    MAX_NEAR,
    MAX_SLACK,
    MAX_TILE,
    Content,
    Mask,
    decode_tiles,
    encode_tiles,
)
from latens.errors import ChecksumError, CoderError, FormatError, ImageError, LimitError, VersionError
from latens.io import Image

__all__ = ["CONTENTS", "Content", "LosslessCodec", "alpha_of", "encode_alpha", "smaller"]

Samples = npt.NDArray[Any]  # uint8 or uint16

# One tile sees the whole picture, several are coded at the same time: what takes long is cut.
_ONE_TILE_PIXELS = 1 << 22
_TILE = 2048
_STRIP = 64  # rows: a copy of so many stays in the cache
_SHARE = 0.3  # of the blocks: with more of them drawn, a lossless file may be the smallest
# Rows that are coded to learn whether that is so: a multiple of these, of as many times a lossy file's bytes; as part
# of a whole, which shares its tables with them, they take at least so much of what they take alone.
_ROWS, _SAMPLED, _LEAST = 64, 4, 0.8


class LosslessCodec:
    """Codes images without a model.

    >>> image = Image(np.zeros((2, 3, 1), np.uint8))
    >>> codec = LosslessCodec()
    >>> codec.decode(ltn.read(codec.encode(image)))[0].pixels.shape
    (2, 3, 1)
    """

    def encode(
        self, image: Image, *, near: int = 0, slack: int = 0, effort: int = 1, content: Content = "auto"
    ) -> bytes:
        """The ``.ltn`` file of an image; every sample is kept, or is off by no more than ``near`` and ``slack`` allow.

        Args:
            image: grey or RGB, 8 to 16 bits. Alpha, always exact, ICC, EXIF and XMP go into the file unchanged. What
                would be larger than the PNG it came from is tried again with effort 2.
            near: 0 to 255, on the scale of the image's samples: 0 to 255, or 0 to 65,535.
            slack: 0 to 64; how much of the contrast around a pixel its samples may be off, in 1/256. Only for 8 bits.
            effort: 1; from 2 on files are smaller by a few per cent, and take longer to make and, of photographs, to
                decode.
            content: "photo" or "drawn" for who knows; "auto" finds out, block by block.

        Raises:
            ImageError: ``near``, ``slack``, effort or content out of range.
            LimitError: the image or its metadata are too large for a file.
        """
        if not 0 <= near <= MAX_NEAR:
            raise ImageError(f"the largest error must be 0 to {MAX_NEAR}, got {near}")
        if not 0 <= slack <= MAX_SLACK or (slack and image.pixels.dtype != np.uint8):
            raise ImageError(f"slack must be 0 to {MAX_SLACK}, and 0 for 16 bits, got {slack}")
        if not 1 <= effort <= 5:
            raise ImageError(f"effort must be 1 to 5, got {effort}")
        check_content(content)
        samples = image.pixels
        if image.alpha is not None:
            samples = np.concatenate([samples, image.alpha[..., None]], axis=2)
        file = self._file(image, samples, near, slack, effort, content)
        if near == slack == 0 and effort == 1 and 0 < image.png_bytes < len(file):
            # Something is in it that this effort does not look for.
            file = min(file, self._file(image, samples, near, slack, effort + 1, content), key=len)
        return file

    def _file(
        self, image: Image, samples: Samples, near: int, slack: int, effort: int, content: Content
    ) -> bytes:
        """The file of an image and its samples, alpha among them."""
        height, width = samples.shape[:2]
        header = ltn.Header.without_model(
            width=width,
            height=height,
            channels=image.pixels.shape[2],
            bit_depth=image.bit_depth,
            colour=ltn.Cicp(*image.colour),
            tile_size=_tile_size(width, height),
            near=near,
            alpha=image.alpha is not None,
        )
        streams = encode_tiles(
            samples, header.tile_size, near=near, slack=slack, effort=effort, content=content
        )
        # What is kept of a sample that may be off is known only after decoding.
        kept = _decode(header, streams)[0] if near or slack else samples
        if slack:
            off = np.maximum(kept, samples) - np.minimum(kept, samples)
            header = replace(header, near=int(off.max()))
        checksums = together(lambda rect: _checksum(kept, rect), header.tiles())
        tiles: list[ltn.Tile | None] = list(map(ltn.Tile, checksums, streams))
        metadata = (image.icc or None, image.exif or None, image.xmp or None, image.density)
        return ltn.write(ltn.Container(header, tiles, None, *metadata))

    def decode(
        self,
        container: ltn.Container,
        *,
        on_error: Literal["raise", "conceal"] = "raise",
        other_weights: bool = False,
    ) -> tuple[Image, tuple[str, ...]]:
        """The image of a container, and the problems that were met (none unless concealing).

        Args:
            container: as :func:`latens.format.read` returns it, of a lossless file.
            on_error: "conceal" leaves damaged tiles black and reports them, if there is a sound one.
            other_weights: without a meaning here.

        Raises:
            LimitError: tiles that take too much memory.
            VersionError: a tile of a kind that is newer than this release.
            CoderError, ChecksumError: a tile is damaged.
            FormatError: not a single tile can be decoded.
        """
        header = container.header
        if not header.lossless:
            raise FormatError(f"the file is not lossless: it needs the model {header.model}")
        streams = [None if tile is None else tile.stream for tile in container.tiles]
        samples, found = _decode(header, streams)
        problems = list(container.problems)
        lost = 0
        tiles = list(enumerate(zip(container.tiles, header.tiles(), strict=True)))

        def fault(given: Any) -> ChecksumError | CoderError | VersionError | None:
            index, (tile, rect) = given
            return None if tile is None else _fault(index, tile, found[index], samples, rect)

        for (_, (tile, rect)), error in zip(tiles, together(fault, tiles), strict=True):
            lost += tile is None
            if error is None:
                continue
            if on_error == "raise":
                raise error
            problems.append(str(error))
            lost += 1
            samples[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width] = 0
        if lost == header.tile_count:
            raise FormatError(f"nothing of the picture can be saved: {'; '.join(problems)[:500]}")
        alpha = np.ascontiguousarray(samples[..., -1]) if header.alpha else None
        pixels = np.ascontiguousarray(samples[..., : header.channels])
        image = Image(
            pixels,
            alpha,
            container.icc,
            container.exif,
            container.xmp,
            colour=header.colour,
            density=container.density,
            bit_depth=header.bit_depth,
        )
        return image, tuple(problems)


def check_content(content: str) -> None:
    """ImageError for a word that says nothing about a picture."""
    if content not in CONTENTS:
        raise ImageError(f"content must be one of {', '.join(CONTENTS)}, got {content!a:.40}")


def encode_alpha(alpha: Samples, tile: int) -> list[bytes]:
    """Lossless tiles of an alpha plane, for a file with tiles of this size."""
    return encode_tiles(alpha[..., None], tile)


def alpha_of(container: ltn.Container) -> Samples | None:
    """The alpha plane of a file that a model made, exact.

    Raises:
        CoderError: it is damaged.
        LimitError: tiles that take too much memory.
    """
    header = container.header
    dtype = np.uint8 if header.bit_depth == 8 else np.uint16
    if container.alpha_tiles is not None:
        _check_tiles(header)
        shape = (header.height, header.width, 1)
        alpha, problems = decode_tiles(container.alpha_tiles, shape, dtype, header.tile_size)
        for problem in problems:
            if problem is not None:
                raise CoderError(f"alpha: {problem}")
        return np.ascontiguousarray(alpha[..., 0])
    if container.alpha is None:
        return None
    stored = np.frombuffer(container.alpha, f"<u{header.sample_bytes}").reshape(header.height, header.width)
    return stored.astype(dtype, copy=False)  # the machine's byte order


def smaller(
    image: Image, lossy: bytes, drawn: Mask | None, *, near: int = 0, slack: int = 0, effort: int = 1
) -> bytes:
    """The file of an image without a model if that is not larger than ``lossy``, else ``lossy``.

    What the first rows take, the whole picture takes: of a photograph, a few of them are enough to know, and the rest
    is not coded. Their number doubles until they, or all, tell.

    Args:
        image: the picture.
        lossy: a file of it.
        drawn: which pixels look drawn; with many of them nothing is gained by looking at some first.
        near, slack, effort: of the file without a model.
    """
    samples = image.pixels.size + (0 if image.alpha is None else image.alpha.size)
    height = len(image.pixels)
    rows = _SAMPLED * len(lossy) * height // (samples * image.pixels.itemsize)
    if drawn is not None and drawn.mean() >= _SHARE:
        rows = height
    while (rows := max(_ROWS, -(-rows // _ROWS) * _ROWS)) <= height // 2:
        if _LEAST * len(LosslessCodec().encode(_top(image, rows))) > len(lossy):
            return lossy
        rows *= 2
    exact = LosslessCodec().encode(image, near=near, slack=slack, effort=effort)
    return exact if len(exact) <= len(lossy) else lossy


def _top(image: Image, rows: int) -> Image:
    """The first rows of an image, without what comes with it."""
    alpha = None if image.alpha is None else image.alpha[:rows]
    return Image(image.pixels[:rows], alpha, bit_depth=image.bit_depth)


def _tile_size(width: int, height: int) -> int:
    if width * height > _ONE_TILE_PIXELS or max(width, height) > MAX_TILE:
        return _TILE
    return next(size for size in (1024, 2048, 4096) if size >= max(width, height))


def decode_row(header: ltn.Header, numbers: Sequence[int], tiles: Sequence[ltn.Tile]) -> Samples:
    """The samples of tiles that stand side by side, alpha last.

    Raises:
        CoderError, VersionError, ChecksumError: one of them is damaged, or newer than this release.
        LimitError: tiles that take too much memory.
    """
    _check_tiles(header)
    rects = header.tiles()
    dtype = np.uint8 if header.bit_depth == 8 else np.uint16
    own = [rects[number] for number in numbers]
    shape = own[0].height, sum(rect.width for rect in own), header.channels + header.alpha
    samples, found = decode_tiles([tile.stream for tile in tiles], shape, dtype, header.tile_size)
    for number, tile, rect, problem in zip(numbers, tiles, own, found, strict=True):
        error = _fault(number, tile, problem, samples, rect._replace(x=rect.x - own[0].x, y=0))
        if error is not None:
            raise error
    return samples


def _fault(
    index: int, tile: ltn.Tile, problem: str | None, samples: Samples, rect: ltn.Rect
) -> ChecksumError | CoderError | VersionError | None:
    """What is wrong with a tile whose samples are at ``rect``."""
    if tile.stream[:1] > b"\1":
        return VersionError(f"tile {index}: its kind is newer than this release of Latens; update it")
    if problem is not None:
        return CoderError(f"tile {index}: {problem}")
    checksum = _checksum(samples, rect)
    if checksum == tile.checksum:
        return None
    return ChecksumError(
        f"tile {index}: its samples have checksum {checksum:08x}, {tile.checksum:08x} was stored"
    )


def _check_tiles(header: ltn.Header) -> None:
    if header.tile_size > MAX_TILE:
        raise LimitError(f"tiles of {header.tile_size} pixels are above the limit of {MAX_TILE}")


def _decode(
    header: ltn.Header, streams: list[bytes | None] | list[bytes]
) -> tuple[Samples, list[str | None]]:
    _check_tiles(header)
    dtype = np.uint8 if header.bit_depth == 8 else np.uint16
    shape = (header.height, header.width, header.channels + header.alpha)
    return decode_tiles(streams, shape, dtype, header.tile_size)


def _checksum(samples: Samples, rect: ltn.Rect) -> int:
    """CRC-32 of a tile's samples, row by row, as bytes in the order of files."""
    crc = 0
    for top in range(rect.y, rect.y + rect.height, _STRIP):
        part = samples[top : min(top + _STRIP, rect.y + rect.height), rect.x : rect.x + rect.width]
        crc = zlib.crc32(np.ascontiguousarray(part, part.dtype.newbyteorder("<")).data, crc)
    return crc
