"""Tile geometry, the alpha filter and the symbol checksum against straightforward versions of themselves."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latens import format as ltn
from latens.errors import FormatError
from latens.format import _alpha
from latens.format._header import FIELDS


@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from([64, 128, 256, 1024]))
def test_tiles_cover_every_pixel_once_in_row_order(width: int, height: int, size: int) -> None:
    rects = ltn.tile_rects(width, height, size)
    columns, rows = ltn.tile_grid(width, height, size)
    assert len(rects) == columns * rows
    seen = np.zeros((height, width), np.int64)
    for index, rect in enumerate(rects):
        assert (rect.x, rect.y) == (index % columns * size, index // columns * size)
        assert 0 < rect.width <= size
        assert 0 < rect.height <= size
        seen[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize(
    ("size", "coded"), [((1, 1), (64, 64)), ((64, 65), (64, 128)), ((768, 512), (768, 512))]
)
def test_coded_size(size: tuple[int, int], coded: tuple[int, int]) -> None:
    assert ltn.coded_size(*size) == coded
    assert ltn.max_stream_size(*size) == 8 * coded[0] * coded[1] + 65536


@given(st.integers(1, 20), st.integers(1, 20), st.data())
def test_alpha_filter_is_a_difference_of_rows(width: int, height: int, data: st.DataObject) -> None:
    alpha = data.draw(st.binary(min_size=width * height, max_size=width * height))
    rows = np.frombuffer(alpha, np.uint8).reshape(height, width)
    above = np.vstack([np.zeros((1, width), np.uint8), rows[:-1]])
    filtered = (rows - above).tobytes()
    assert _alpha._up(alpha, width) == filtered
    assert _alpha._undo_up(filtered, width) == alpha
    for payload in (b"\0" + zlib.compress(alpha), b"\1" + zlib.compress(filtered), _alpha.pack(alpha, width)):
        assert _alpha.unpack(memoryview(payload), width, height) == alpha
    with pytest.raises(FormatError):
        _alpha.unpack(memoryview(_alpha.pack(alpha, width)), width, height + 1)


def test_smooth_alpha_gets_small() -> None:
    ramp = np.add.outer(np.arange(200), np.arange(300)).astype(np.uint8)
    assert len(_alpha.pack(ramp.tobytes(), 300)) < 500


def test_symbol_checksum_is_the_crc_of_all_symbols() -> None:
    z = np.arange(-5, 5, dtype="<i2").reshape(2, 5)
    y = np.full((3, 1, 2), -32768, "<i2")
    assert ltn.symbol_checksum(memoryview(z), memoryview(y)) == zlib.crc32(z.tobytes() + y.tobytes())
    assert ltn.symbol_checksum() == 0


def test_field_names_are_unique_and_bits_fill_bytes() -> None:
    names = [field.name for field in FIELDS]
    assert len(set(names)) == len(names)
    widths = [getattr(field, "width", 0) for field in FIELDS]
    assert widths[:5] == [2, 1, 1, 1, 3]
    assert sum(widths) % 8 == 0
