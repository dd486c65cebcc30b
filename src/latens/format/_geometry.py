"""Tiles: how an image is cut, in whole numbers of pixels."""

from __future__ import annotations

from typing import NamedTuple

GRID = 64


class Rect(NamedTuple):
    """A rectangle of pixels; (x, y) is the top left corner."""

    x: int
    y: int
    width: int
    height: int


def tile_grid(width: int, height: int, tile_size: int) -> tuple[int, int]:
    """(columns, rows) of tiles of an image of `width` x `height` pixels."""
    return -(-width // tile_size), -(-height // tile_size)


def tile_rects(width: int, height: int, tile_size: int) -> list[Rect]:
    """The rectangle of each tile, row by row; those in the last column and row may be smaller."""
    return [
        Rect(x, y, min(tile_size, width - x), min(tile_size, height - y))
        for y in range(0, height, tile_size)
        for x in range(0, width, tile_size)
    ]


def coded_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) rounded up to the grid of 64 pixels, the area that a model really codes."""
    return -(-width // GRID) * GRID, -(-height // GRID) * GRID


def max_stream_size(width: int, height: int) -> int:
    """The longest coder stream in bytes that a tile of `width` x `height` pixels may have."""
    coded_width, coded_height = coded_size(width, height)
    return 8 * coded_width * coded_height + 65536
