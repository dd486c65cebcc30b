"""Parts of pictures and small copies: equal to those of the whole, of no more than is needed."""

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import latens
import tiny
from latens import format as ltn
from latens.codec import ImageCodec, LosslessCodec, Picture
from latens.errors import ChecksumError, FormatError, ImageError, TruncatedError, WrongWeightsError
from latens.io import Image


class Counting:
    """Bytes in memory, and how many of them were read."""

    def __init__(self, data: bytes) -> None:
        self.data, self.read = data, 0

    @property
    def size(self) -> int:
        return len(self.data)

    def read_at(self, offset: int, size: int) -> bytes:
        part = self.data[offset : offset + size]
        self.read += len(part)
        return part


def _reduced(samples: np.ndarray, step: int) -> np.ndarray:
    """Means of squares, slowly."""
    height, width = -(-samples.shape[0] // step), -(-samples.shape[1] // step)
    found = np.empty((height, width, samples.shape[2]), samples.dtype)
    for row, column in np.ndindex(height, width):
        square = samples[row * step : (row + 1) * step, column * step : (column + 1) * step].astype(np.int64)
        count = square.shape[0] * square.shape[1]
        found[row, column] = (square.sum((0, 1)) + count // 2) // count
    return found


@pytest.fixture(scope="module")
def coded(tiny_weights: Path) -> tuple[ImageCodec, bytes, Image]:
    """A file of four tiles with alpha, by a tiny model, and what it decodes to."""
    codec = ImageCodec(tiny_weights)
    pixels = tiny.picture(1100, 1200)
    data = codec.encode(Image(pixels, alpha=pixels[..., 1].copy()), 70)
    return codec, data, codec.decode(data)[0]


def _boxes(width: int, height: int) -> list[tuple[int, int, int, int]]:
    rng = np.random.default_rng(3)
    boxes = [(0, 0, width, height), (0, 0, 1, 1), (width - 1, height - 1, width, height)]
    boxes += [
        (1000, 1000, 1100, 1090),
        (1023, 0, 1025, height),
        (0, 1023, width, 1025),
        (1024, 0, 1200, 1024),
    ]
    for _ in range(8):
        left, top = int(rng.integers(width)), int(rng.integers(height))
        size = rng.integers(1, 300, 2)
        boxes.append((left, top, min(left + int(size[0]), width), min(top + int(size[1]), height)))
    return boxes


def test_parts_are_those_of_the_whole(coded: tuple[ImageCodec, bytes, Image]) -> None:
    codec, data, whole = coded
    picture = Picture(Counting(data), lambda _: codec)
    assert picture.size == (1200, 1100)
    assert whole.alpha is not None
    for left, top, right, bottom in _boxes(1200, 1100):
        part = picture.image((left, top, right, bottom))
        assert np.array_equal(part.pixels, whole.pixels[top:bottom, left:right])
        assert part.alpha is not None
        assert np.array_equal(part.alpha, whole.alpha[top:bottom, left:right])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_parts_of_lossless_files(dtype: type[np.generic]) -> None:
    pixels = tiny.picture(60, 4200).astype(dtype)
    if dtype == np.uint16:
        pixels = pixels * np.uint16(250) + np.uint16(3)
    image = Image(pixels, alpha=pixels[..., 2].copy())
    picture = Picture(Counting(LosslessCodec().encode(image)))
    for box in ((2040, 10, 2060, 50), (4199, 0, 4200, 60), (0, 47, 4200, 49)):
        left, top, right, bottom = box
        part = picture.image(box)
        assert np.array_equal(part.pixels, pixels[top:bottom, left:right])
        assert np.array_equal(part.alpha, pixels[top:bottom, left:right, 2])
    small = picture.image((2001, 11, 2100, 60), 0.25)
    assert np.array_equal(small.pixels, _reduced(pixels[8:60, 2000:2100], 4))
    tall = np.ascontiguousarray(pixels.swapaxes(0, 1))
    picture = Picture(Counting(LosslessCodec().encode(Image(tall))))
    assert np.array_equal(picture.image((3, 2040, 20, 4100)).pixels, tall[2040:4100, 3:20])


@pytest.mark.parametrize("step", [2, 4])
def test_small_copies_are_means(coded: tuple[ImageCodec, bytes, Image], step: int) -> None:
    codec, data, whole = coded
    picture = Picture(Counting(data), lambda _: codec)
    expected = _reduced(whole.pixels[:, :700], step)
    box = (0, 0, 700, 1100)
    for scale in (1 / step, Fraction(1, step), f"1/{step}"):
        assert np.array_equal(picture.image(box, scale).pixels, expected)
    part = picture.image((301, 203, 599, 1003), 1 / step)
    left, top, right, bottom = 301 // step, 203 // step, -(-599 // step), -(-1003 // step)
    assert np.array_equal(part.pixels, expected[top:bottom, left:right])


def test_no_more_is_read_than_needed(coded: tuple[ImageCodec, bytes, Image]) -> None:
    codec, data, _ = coded
    source = Counting(data)
    picture = Picture(source, lambda _: codec)
    assert picture.metadata.alpha
    sizes = [len(tile.stream) for tile in ltn.read(data).tiles if tile is not None]
    alpha = next(chunk.size for chunk in ltn.describe(data).chunks if chunk.name == "alpha")
    before = source.read
    assert before < len(data) - alpha - sum(sizes) + (1 << 19)
    picture.image((100, 100, 200, 200))
    assert source.read - before - alpha <= sizes[0] + 64


def test_an_index_says_where_tiles_are() -> None:
    header = ltn.Header(
        width=576,
        height=576,
        model="t",
        entropy_id="00000000",
        weights_id="00000000",
        quality=0,
        tile_size=64,
    )
    tiles: list[ltn.Tile | None] = [ltn.Tile(n, bytes([n]) * (3000 + 7 * n)) for n in range(81)]
    data = ltn.write(ltn.Container(header, tiles, icc=b"profile", pixels=5))
    assert ltn.read(data).tiles == tiles
    assert [chunk.name for chunk in ltn.describe(data).chunks][-3:] == [
        "checksum of the picture",
        "index",
        "END",
    ]
    source = Counting(data)
    reader = ltn.RandomReader(source)
    assert source.read < 25_000
    assert reader.container.pixels == 5
    assert [reader.tile(n) for n in range(81)] == tiles
    # One that says something else is an error for who reads all, and never gives another tile.
    chunks = [chunk for chunk in ltn.describe(data).chunks if chunk.name == "tile"]
    first, sizes = chunks[0].offset, [chunk.size for chunk in chunks]
    wrong = _with_index(data, first, [sizes[1], sizes[0], *sizes[2:]])
    with pytest.raises(FormatError, match="index"):
        ltn.read(wrong)
    with pytest.raises(FormatError):
        ltn.RandomReader(Counting(wrong)).tile(1)


def test_damage_is_found_where_it_is(coded: tuple[ImageCodec, bytes, Image]) -> None:
    codec, data, whole = coded
    chunk = [chunk for chunk in ltn.describe(data).chunks if chunk.name == "tile"][3]
    damaged = bytearray(data)
    damaged[chunk.offset + chunk.size // 2] ^= 1
    picture = Picture(Counting(bytes(damaged)), lambda _: codec)
    assert np.array_equal(picture.image((0, 0, 300, 300)).pixels, whole.pixels[:300, :300])
    with pytest.raises(ChecksumError, match=f"chunk at byte {chunk.offset}"):
        picture.image((1100, 1050, 1101, 1051))
    for end in (20, chunk.offset + 3, len(data) - 1):
        with pytest.raises(TruncatedError):
            Picture(Counting(data[:end]))
    with pytest.raises(FormatError, match="3 bytes follow"):
        Picture(Counting(data + b"abc"))


def test_the_checksum_of_the_picture_is_proved(coded: tuple[ImageCodec, bytes, Image]) -> None:
    codec, data, _ = coded
    container = ltn.read(data)
    assert container.pixels is not None
    container.pixels ^= 1
    picture = Picture(Counting(ltn.write(container)), lambda _: codec)
    picture.image((0, 0, 20, 20))
    with pytest.raises(ChecksumError, match="the decoded picture"):
        picture.image()


def test_other_weights(coded: tuple[ImageCodec, bytes, Image]) -> None:
    _, data, _ = coded
    with pytest.raises(WrongWeightsError):
        Picture(Counting(data), lambda _: ImageCodec()).image((0, 0, 9, 9))


@pytest.mark.parametrize(
    ("box", "why"),
    [
        ((0, 0, 0, 10), "is empty"),
        ((10, 10, 5, 20), "is empty"),
        ((5, 5, 5, 5), "is empty"),
        ((-1, 0, 10, 10), "not inside"),
        ((0, 0, 61, 10), "not inside"),
        ((0, 0, 10, 1 << 40), "not inside"),
        ((60, 40, 61, 41), "not inside"),
        ((0.5, 0, 10, 10), "four whole numbers"),
        ((0, 0, 10), "four whole numbers"),
        ((0, 0, float("nan"), 10), "four whole numbers"),
        ("abcd", "four whole numbers"),
    ],
)
def test_boxes_that_are_refused(box: object, why: str, tmp_path: Path) -> None:
    path = tmp_path / "a.ltn"
    latens.save(tiny.picture(40, 60), path, lossless=True)
    with latens.open(path) as image:
        with pytest.raises(ImageError, match=why):
            image.crop(box)  # type: ignore[arg-type]
        with pytest.raises(ImageError, match=why):
            image.image(box)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "scale", [0, 2, 1 / 3, 1 / 16, -0.5, "1/5", "half", "1/0", float("nan"), float("inf"), None]
)
def test_scales_that_are_refused(scale: object, tmp_path: Path) -> None:
    path = tmp_path / "a.ltn"
    latens.save(tiny.picture(40, 60), path, lossless=True)
    with latens.open(path) as image, pytest.raises(ImageError, match="scale of 1, 1/2, 1/4 or 1/8"):
        image.preview(scale)  # type: ignore[arg-type]


class _Pipe(io.RawIOBase):
    def readable(self) -> bool:
        return True


def test_open_takes_a_file_that_is_open(tmp_path: Path) -> None:
    pixels = tiny.picture(40, 60)
    path = tmp_path / "a.ltn"
    latens.save(pixels, path, lossless=True)
    with path.open("rb") as file:
        image = latens.open(file)
        assert np.array_equal(image.crop((7, 9, 50, 30)), pixels[9:30, 7:50])
        image.close()
        assert not file.closed
    with pytest.raises(FormatError, match=r"^file: "):
        latens.open(io.BytesIO(path.read_bytes()[:-1])).read()
    with pytest.raises(FormatError, match="file: the file cannot be sought"):
        latens.open(io.BufferedReader(_Pipe()))


def test_open_gives_parts(tmp_path: Path) -> None:
    pixels = tiny.picture(90, 140)
    path = tmp_path / "a.ltn"
    latens.save(pixels, path, lossless=True)
    image = latens.open(path)
    assert (image.size, image.metadata.bit_depth, image.metadata.model) == ((140, 90), 8, "")
    assert np.array_equal(image.crop((7, 9, 100, 80)), pixels[9:80, 7:100])
    assert image.preview(1 / 8).size == (18, 12)
    assert np.array_equal(image.image((0, 0, 9, 9)).pixels, pixels[:9, :9])
    assert np.array_equal(image.read(), pixels)
    assert np.array_equal(image.crop((7, 9, 100, 80)), pixels[9:80, 7:100])  # of what is loaded
    with pytest.raises(ImageError, match="not inside"):
        image.crop((-1, 0, 9, 9))


def _with_index(data: bytes, first: int, sizes: list[int]) -> bytes:
    from latens.format import _container

    chunks = {chunk.name: chunk for chunk in ltn.describe(data).chunks}
    start = chunks["index"].offset
    index = _container._pack_index(first, sizes)
    out = io.BytesIO()
    out.write(data[:start] + index)
    out.write(_container._pack_chunk(_container.END, _container.varint(start + len(index), "END")))
    return out.getvalue()
