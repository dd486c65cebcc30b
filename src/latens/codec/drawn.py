"""Which blocks of a picture are drawn, what a model sees in their place, and the picture that both make."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from latens import format as ltn
from latens.entropy_coding.lossless import (
    BLOCK,
    MAX_TILE,
    Blocks,
    Mask,
    block_grid,
    counts,
    decode_part,
    encode_tiles,
    spread,
    touched,
)
from latens.errors import ChecksumError, VersionError
from latens.io import Image, Strips
from latens.metrics import ssimulacra2
from latens.metrics.perceptual import LEAST_SIDE
from latens.runtime.coding import Anatomy, Prices

__all__ = [
    "Layer",
    "Look",
    "Loss",
    "checksum",
    "compose",
    "costs",
    "decode_layer",
    "drawn_tiles",
    "fill",
    "look",
    "look_at_strips",
    "loss",
    "photographs",
    "slack",
    "survey",
]

Samples = npt.NDArray[Any]  # uint8 or uint16
Array = npt.NDArray[Any]

# Of the pixels of a block, in a picture that has drawn blocks: as many repeat a neighbour in what is drawn, with and
# without doubt. Grain and lenses leave photographs far below, but for what is over-exposed.
_DOUBT, _SURE = 0.35, 0.7
_STEP, _EDGES = 1 / 4, 8  # of the range, between neighbours: a block with text or lines has so many
# Of the blocks without photographs, and of all: with less text it is no page.
_PAGE, _LEAST_PAGE = 1 / 4, 1 / 7
# A square of a photograph has so large a share of pixels in runs of one colour at most, and so many colours at least.
# Around it so many pixels more belong to it, and gaps of so many. The page has a colour all over if it is this share of
# what is left.
_CELL, _RUNS, _COLOURS, _GROWTH, _GAP, _COMMON = 16, 0.15, 64, 48, 256, 1 / 256
_STRIP = 4 * BLOCK  # rows of a large picture that are looked at by themselves
_SAMPLE = 1 << 19  # pixels with which is found out how much may be lost
_GAIN = 0.97  # of the bytes: for less nothing is to be lost
# What each point of quality below 100 gives of slack, the most of that, and what it takes of the SSIMULACRA2 score of
# what is drawn: less than in photographs, for here it is seen. The share of bytes that a point below that is worth.
_SLACK, _MOST_SLACK, _SCORE, _POINT = 32 / 30, 64, 1 / 3, 0.08


class Look(NamedTuple):
    """What blocks look like.

    Attributes:
        sure: drawn without a doubt.
        doubt: what real bits must decide.
        page: whether text or lines are all over the picture, but for its photographs. If not, a block may look drawn by
            chance, and there are none without a doubt.
        photo: the photographs of a page, which are no part of its blocks.
    """

    sure: Blocks
    doubt: Blocks
    page: bool
    photo: Mask


def look(pixels: Samples) -> Look:
    """Looks at the blocks of a picture ``(H, W, C)``.

    Counts, in each block, the pixels that have exactly the colour of one of four neighbours. Flat blocks are drawn
    only in a picture in which text or lines are found, for a model codes an even sky as well. Photographs of a page are
    cut out to the pixel.
    """
    height, width = pixels.shape[:2]
    grid = block_grid(height, width)
    packed = _packed(pixels)
    same = np.zeros((height, width), bool)
    same[:, 1:] = packed[:, 1:] == packed[:, :-1]
    same[1:] |= packed[1:] == packed[:-1]
    same[1:, 1:] |= packed[1:, 1:] == packed[:-1, :-1]
    same[1:, :-1] |= packed[1:, :-1] == packed[:-1, 1:]
    nothing = np.zeros((height, width), bool)
    sizes = counts(~nothing)
    share = counts(same) / sizes
    if not (share >= _SURE).any():
        return Look(np.zeros(grid, bool), np.zeros(grid, bool), False, nothing)
    # Lenses and grain leave no photograph with steps like those at the edge of a letter where all else repeats.
    green = pixels[..., pixels.shape[2] // 2].astype(np.int32)
    steps = np.zeros((height, width), bool)
    steps[:, 1:] = np.abs(np.diff(green, axis=1)) >= _STEP * np.iinfo(pixels.dtype).max
    sharp = (share >= _SURE) & (counts(steps) >= _EDGES)
    if not sharp.any():
        return Look(np.zeros(grid, bool), np.zeros(grid, bool), False, nothing)
    photo = photographs(packed)
    left = counts(~photo)
    if sharp.sum() < max(_PAGE * (2 * left >= sizes).sum(), _LEAST_PAGE * sharp.size):
        return Look(np.zeros(grid, bool), share >= _DOUBT, False, nothing)
    share = counts(same & ~photo) / np.maximum(left, 1)
    return Look(share >= _SURE, (share >= _DOUBT) & (share < _SURE), True, photo)


def photographs(packed: Array) -> Mask:
    """Where photographs are in a page, given one number for each pixel.

    Squares of many colours, in which hardly a pixel is part of a run of one, and what lies around them up to such
    runs, and to colours that the page has all over; what is enclosed by that, too.
    """
    height, width = packed.shape
    flat = _flat(packed)
    padding = (0, -height % _CELL), (0, -width % _CELL)
    rows, columns = (height + padding[0][1]) // _CELL, (width + padding[1][1]) // _CELL

    def cells(values: Array) -> Array:
        padded = np.pad(values, padding, mode="edge")
        return padded.reshape(rows, _CELL, columns, _CELL).swapaxes(1, 2).reshape(rows, columns, _CELL**2)

    seeds = cells(flat).mean(axis=2) < _RUNS
    if not seeds.any():
        return np.zeros(packed.shape, bool)
    colours = np.sort(cells(packed)[seeds], axis=1)
    seeds[seeds] = (colours[:, 1:] != colours[:, :-1]).sum(axis=1) >= _COLOURS
    found = seeds.repeat(_CELL, 0)[:height].repeat(_CELL, 1)[:, :width]
    colours, often = np.unique(packed[::4][~found[::4]], return_counts=True)
    others = ~flat
    for colour in colours[often >= max(_COMMON * often.sum(), 2)]:
        others &= packed != colour
    found &= others
    count = found.sum()
    for _ in range(_GROWTH):
        grown = found.copy()
        grown[1:] |= found[:-1]
        grown[:-1] |= found[1:]
        grown[:, 1:] |= found[:, :-1]
        grown[:, :-1] |= found[:, 1:]
        found |= grown & others
        if (now := found.sum()) == count:
            break
        count = now
    photo: Mask = found | (_between(found) & _between(found.T).T)
    return photo


def _flat(packed: Array) -> Mask:
    """Pixels in runs of one colour, down or across."""
    found = np.zeros(packed.shape, bool)
    for lines, out in ((packed, found), (packed.T, found.T)):
        width = lines.shape[1]
        if width < _CELL // 2:
            continue
        same = np.pad(lines[:, 1:] == lines[:, :-1], ((0, 0), (1, 0)))
        sums = np.cumsum(same, axis=1, dtype=np.int32)
        steps = _CELL // 2 - 1
        whole = sums[:, steps:] - sums[:, : width - steps] == steps  # a run begins here
        for step in range(steps + 1):
            out[:, step : step + width - steps] |= whole
    return found


def _between(found: Mask) -> Mask:
    """What has something close on its left and on its right."""
    places = np.arange(found.shape[1], dtype=np.int32)
    far = np.int32(1 << 30)
    left = np.maximum.accumulate(np.where(found, places, -far), axis=1)
    right = np.minimum.accumulate(np.where(found, places, far)[:, ::-1], axis=1)[:, ::-1]
    close: Mask = right - np.maximum(left, -far // 2) <= _GAP
    return close


def look_at_strips(strips: Strips) -> bool:
    """Whether something drawn is in a large picture, which is read to its end, or to the first rows where it is so."""
    height = strips.shape[0]
    return any(look(strips[top : min(top + _STRIP, height)]).sure.any() for top in range(0, height, _STRIP))


def _packed(pixels: Samples) -> Array:
    """One number for each pixel."""
    bits = 8 * pixels.dtype.itemsize
    kind = np.dtype(np.uint32 if bits == 8 else np.uint64)
    packed: Array = pixels[..., 0].astype(kind)
    for channel in range(1, pixels.shape[2]):
        packed = packed << kind.type(bits) | pixels[..., channel]
    return packed


def fill(pixels: Samples, inside: Mask) -> Samples:
    """The picture with drawn pixels replaced by a smooth continuation of the others.

    Means of ever larger squares of what is known are laid below it, from coarse to fine (push-pull, Gortler et al.
    1996): no edge appears at the border, where a model's synthesis would see it, and nothing that costs bits.
    """
    if inside.all():
        return np.full_like(pixels, np.iinfo(pixels.dtype).max // 2 + 1)
    weight = (~inside).astype(np.float32)
    levels = [(pixels * weight[..., None], weight)]
    while min(levels[-1][1].shape) > 1 and not levels[-1][1].all():
        levels.append((_halve(levels[-1][0]), _halve(levels[-1][1][..., None])[..., 0]))
    values, weight = levels[-1]
    total = values.sum((0, 1)) / weight.sum()
    picture = np.where(weight[..., None] > 0, values / np.maximum(weight, 1e-9)[..., None], total)
    for values, weight in reversed(levels[:-1]):
        picture = _double(picture)[: values.shape[0], : values.shape[1]]
        known = weight[..., None]
        picture = np.where(known > 0, values / np.maximum(known, 1e-9), picture)
    rounded = np.clip(np.round(picture), 0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)
    return np.where(inside[..., None], rounded, pixels)


def _halve(values: Array) -> Array:
    """Sums over squares of 2x2, the last ones narrower."""
    height, width = values.shape[:2]
    padded = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)))
    total: Array = padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]
    return total


def _double(values: Array) -> Array:
    """Twice as large, linearly."""
    for axis in (0, 1):
        padded = np.concatenate([values.take([0], axis), values, values.take([-1], axis)], axis)
        before = np.take(padded, range(values.shape[axis]), axis)
        after = np.take(padded, range(2, values.shape[axis] + 2), axis)
        pair = np.stack([0.75 * values + 0.25 * before, 0.75 * values + 0.25 * after], axis + 1)
        shape = list(values.shape)
        shape[axis] *= 2
        values = pair.reshape(shape)
    return values


class Layer(NamedTuple):
    """What is drawn of a rectangle of a picture: its samples, and for each pixel whether it is."""

    rect: ltn.Rect
    samples: Samples
    drawn: Mask


class Loss(NamedTuple):
    """How much of drawn pixels may be lost, in the words of :func:`latens.entropy_coding.lossless.encode_tiles`."""

    slack: int = 0
    near: int = 0


def slack(quality: float) -> int:
    """How much of the contrast around them drawn pixels may be off, in 1/256, at a quality of 0 to 100."""
    return min(round((100 - quality) * _SLACK), _MOST_SLACK)


def loss(pixels: Samples, quality: float, drawn: Mask | None = None) -> Loss:
    """How much of what is drawn may be lost at a quality, by real bits and SSIMULACRA2 of some of its rows.

    Soft edges take most of the bytes of many drawings, and what they are to the last level cannot be seen. What is
    shaded takes fewer if it may be off by a level or two, what is not loses by that.

    Args:
        pixels: ``(H, W, C)`` of the picture. Of 16 bits, nothing is lost.
        quality: 0 to 100.
        drawn: which pixels are; all if None.
    """
    most = slack(quality)
    if drawn is None:
        drawn = np.ones(pixels.shape[:2], bool)
    pixels, drawn = _sample(pixels, drawn)
    if most == 0 or pixels.dtype != np.uint8 or min(pixels.shape[:2]) < LEAST_SIDE or not drawn.any():
        return Loss()
    original = np.where(drawn[..., None], pixels, np.uint8(0))
    (stream,) = encode_tiles(pixels, MAX_TILE, mask=drawn)
    best, least = Loss(), float(len(stream))
    limit = _GAIN * least
    for near in dict.fromkeys((0, 1, most // 16)):
        (stream,) = encode_tiles(pixels, MAX_TILE, slack=most, near=near, mask=drawn)
        if len(stream) > limit:
            continue
        decoded, _ = decode_part(stream, pixels.shape, pixels.dtype)
        missing = 100 - (100 - quality) * _SCORE - ssimulacra2(_colour(original), _colour(decoded))
        price = len(stream) * math.exp(_POINT * max(missing, 0))
        if price < least:
            best, least = Loss(most, near), price
    return best


def _sample(pixels: Samples, drawn: Mask) -> tuple[Samples, Mask]:
    """Some bands with something drawn, from everywhere, that fit into one tile."""
    pixels, drawn = pixels[:, :MAX_TILE], drawn[:, :MAX_TILE]
    rows = np.flatnonzero(touched(drawn).any(axis=1))
    count = min(max(_SAMPLE // (BLOCK * pixels.shape[1]), 1), MAX_TILE // BLOCK)
    if len(rows) > count:
        rows = rows[np.arange(count) * len(rows) // count]
    if not len(rows):
        return pixels[:0], drawn[:0]
    bands = [slice(row * BLOCK, (row + 1) * BLOCK) for row in rows]
    return np.concatenate([pixels[band] for band in bands]), np.concatenate([drawn[band] for band in bands])


def _colour(pixels: Samples) -> Samples:
    """Samples of R, G and B."""
    return np.broadcast_to(
        pixels[..., :3] if pixels.shape[2] > 2 else pixels[..., :1], (*pixels.shape[:2], 3)
    )


def drawn_tiles(
    pixels: Samples, header: ltn.Header, drawn: Mask, loss: Loss
) -> list[tuple[bytes, Layer | None]]:
    """For each tile of a file what is drawn, coded, and as a decoder will have it."""
    blocks = touched(drawn)
    # Whole blocks go into tiles that all readers know.
    part, mask = (blocks, None) if np.array_equal(spread(blocks, *drawn.shape), drawn) else (None, drawn)
    streams = encode_tiles(pixels, header.tile_size, near=loss.near, slack=loss.slack, part=part, mask=mask)
    return [
        (stream, _layer(stream, rect, header) if stream else None)
        for rect, stream in zip(header.tiles(), streams, strict=True)
    ]


def _layer(stream: bytes, rect: ltn.Rect, header: ltn.Header) -> Layer:
    dtype = np.uint8 if header.sample_bytes == 1 else np.uint16
    return Layer(rect, *decode_part(stream, (rect.height, rect.width, header.channels), dtype))


def checksum(layer: Layer) -> int:
    """CRC-32 of its samples."""
    samples = layer.samples
    return zlib.crc32(np.ascontiguousarray(samples, samples.dtype.newbyteorder("<")).data)


def decode_layer(tile: ltn.Tile, rect: ltn.Rect, header: ltn.Header) -> Layer | None:
    """The drawn blocks of a tile, None if it has none.

    Raises:
        CoderError, ChecksumError: they are damaged.
        VersionError: they are coded in a way that is newer than this release.
    """
    if not tile.drawn:
        return None
    if tile.drawn[0] > 3:
        raise VersionError("drawn blocks of a kind that is newer than this release of Latens; update it")
    layer = _layer(tile.drawn, rect, header)
    found = checksum(layer)
    if found != tile.drawn_checksum:
        raise ChecksumError(
            f"its drawn blocks have checksum {found:08x}, {tile.drawn_checksum:08x} was stored"
        )
    return layer


def compose(rows: Samples, top: int, layers: list[Layer], left: int = 0) -> None:
    """Lay drawn blocks over rows ``(n, W, C)`` of a picture; drops layers that are done with.

    Args:
        rows: changed in place.
        top, left: the place of their first pixel.
        layers: of the picture, or of a small copy of it.
    """
    bottom, right = top + len(rows), left + rows.shape[1]
    for layer in list(layers):
        rect = layer.rect
        first, last = max(top, rect.y), min(bottom, rect.y + rect.height)
        begin, end = max(left, rect.x), min(right, rect.x + rect.width)
        if first < last and begin < end:
            part = np.s_[first - rect.y : last - rect.y, begin - rect.x : end - rect.x]
            window = rows[first - top : last - top, begin - left : end - left]
            np.copyto(window, layer.samples[part], where=layer.drawn[part][..., None])
        if bottom >= rect.y + rect.height:
            layers.remove(layer)


def costs(parts: Anatomy, prices: Prices | None, skip: int) -> npt.NDArray[np.float32]:
    """About the bits of y that blocks of 64x64 pixels of a tile take, ``(H / 4, W / 4)`` for y ``(C, H, W)``.

    For a model without side information there is nothing to tell: they are infinitely many.
    """
    height, width = parts.z.shape[1:]
    if prices is None or not parts.y.size:
        return np.full((height, width), np.inf, np.float32)
    width_of = max(map(len, prices.rows))
    tables = np.ones((len(prices.rows), width_of), np.float32)
    for row, table in zip(tables, prices.rows, strict=True):
        row[: len(table)] = np.maximum(table, 1)
    tables = 16 - np.log2(tables)
    last = np.array([len(table) - 1 for table in prices.rows])
    at = parts.y - prices.offsets[parts.indexes]
    spent = tables[parts.indexes, np.clip(at, 0, last[parts.indexes])]
    spent = np.where(parts.indexes < skip, 0, spent).sum(0)
    height, width = spent.shape
    blocks: npt.NDArray[np.float32] = (
        spent.reshape(height // 4, 4, width // 4, 4).sum((1, 3)).astype(np.float32)
    )
    return blocks


@dataclass(frozen=True)
class Survey:
    """What of a model's file is drawn.

    Attributes:
        header: of the file.
        layers: the drawn blocks of each tile that has some.
    """

    header: ltn.Header
    layers: list[Layer]

    @property
    def count(self) -> int:
        """How many blocks are drawn, or partly."""
        return sum(int(touched(layer.drawn).sum()) for layer in self.layers)

    def mask(self) -> Mask:
        """Which pixels of the picture are drawn."""
        mask = np.full((self.header.height, self.header.width), self.header.lossless)
        for rect, _, drawn in self.layers:
            mask[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width] = drawn
        return mask

    def picture(self) -> Image:
        """The drawn blocks, on grey."""
        header = self.header
        dtype = np.uint8 if header.sample_bytes == 1 else np.uint16
        size = header.height, header.width, header.channels
        picture = np.full(size, np.iinfo(dtype).max // 2 + 1, dtype)
        compose(picture, 0, list(self.layers))
        return Image(picture, bit_depth=header.bit_depth)


def survey(container: ltn.Container) -> Survey:
    """The drawn blocks of a model's file, whose rest need not be decoded.

    Raises:
        CoderError, ChecksumError, VersionError: see :func:`decode_layer`.
    """
    header = container.header
    tiles = zip(container.tiles, header.tiles(), strict=True)
    layers = [layer for tile, rect in tiles if tile and (layer := decode_layer(tile, rect, header))]
    return Survey(header, layers)
