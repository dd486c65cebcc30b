"""The small copy that a file carries: what it is, who takes it, and what comes of a damaged one."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

import latens
import tiny
from latens import format as ltn
from latens.cli import app
from latens.codec import ImageCodec, LosslessCodec, Picture, Target
from latens.codec.image import Begun
from latens.codec.small import shrunk, wants_preview
from latens.errors import ChecksumError, FormatError
from latens.io import Image, Strips, write_image


@pytest.fixture(scope="module")
def codec(tiny_weights: Path) -> ImageCodec:
    return ImageCodec(tiny_weights)


def _image(height: int, width: int, channels: int = 3, *, alpha: bool = False, deep: bool = False) -> Image:
    pixels = tiny.picture(height, width, channels)
    if deep:
        pixels = pixels * np.uint16(257)
    plane = np.ascontiguousarray(pixels[..., 0]) if alpha else None
    return Image(
        pixels, plane, xmp=b"<x/>", density=((300, 1), (300, 1), "inch"), bit_depth=12 if deep else 8
    )


def _picture(data: bytes, codec: ImageCodec) -> Picture:
    return Picture(ltn.FileSource(io.BytesIO(data)), lambda _: codec)


def _means(samples: np.ndarray) -> np.ndarray:
    return np.concatenate(list(shrunk(iter([samples]), 8)))


@pytest.mark.parametrize(
    ("height", "width", "channels", "alpha", "deep"),
    [
        (1100, 130, 3, False, False),
        (77, 131, 1, True, True),
        (1, 1, 3, True, False),
        (64, 72, 3, False, True),
    ],
)
def test_it_is_a_file_of_means(
    codec: ImageCodec, height: int, width: int, channels: int, alpha: bool, deep: bool
) -> None:
    image = _image(height, width, channels, alpha=alpha, deep=deep)
    data = codec.encode(image, 60, preview=True)
    whole, inner = ltn.read(data), ltn.read(data).preview
    assert inner is not None
    assert replace(whole, preview=None) == ltn.read(codec.encode(image, 60))
    small = ltn.read(inner)
    assert small.header.quality == whole.header.quality // 2
    plain = Image(
        _means(image.pixels),
        None if image.alpha is None else _means(image.alpha[..., None])[..., 0],
        bit_depth=image.bit_depth,
    )
    level = codec.model.level
    codec.model.level = lambda _: small.header.quality  # type: ignore[method-assign]
    try:
        assert small == replace(ltn.read(codec.encode(plain, 60)), pixels=None)
    finally:
        codec.model.level = level  # type: ignore[method-assign]
    decoded, _ = codec.decode(inner)
    picture = _picture(data, codec)
    shown = picture.image(None, 1 / 8)
    assert np.array_equal(shown.pixels, decoded.pixels)
    assert (shown.alpha is None) == (image.alpha is None)
    assert image.alpha is None or np.array_equal(shown.alpha, plain.alpha)  # alpha is exact
    assert (shown.xmp, shown.density) == (b"<x/>", ((75, 2), (75, 2), "inch"))
    if width > 20:
        part = picture.image((9, 0, 33, 17), "1/8")
        assert np.array_equal(part.pixels, decoded.pixels[0:3, 1:5])
    # Whoever asks for a copy of the picture itself gets what there was before.
    own = _picture(codec.encode(image, 60), codec).image(None, 1 / 8)
    assert np.array_equal(picture.image(None, 1 / 8, embedded=False).pixels, own.pixels)


@pytest.mark.parametrize(
    ("size", "wish", "expected"),
    [
        ((1 << 23) - 1, None, False),
        (1 << 23, None, True),
        (1 << 30, None, True),
        ((1 << 30) + 1, None, False),
        (1, True, True),
        (1 << 24, False, False),
    ],
)
def test_which_files_carry_one(size: int, wish: bool | None, expected: bool) -> None:
    assert wants_preview(wish, size) == expected


def _strips(pixels: np.ndarray) -> Strips:
    parts = (pixels[start : start + 50] for start in range(0, len(pixels), 50))
    return Strips(pixels.shape, Image(pixels[:1]), parts)


def test_strips_give_the_same_file(codec: ImageCodec) -> None:
    pixels = tiny.picture(2101, 139)
    expected = codec.encode(Image(pixels), 60, preview=True)
    out, told = io.BytesIO(), list[Begun]()
    parts: dict[int, bytes] = {}

    def save(begun: Begun) -> None:
        told.append(begun)
        parts[begun.bands] = out.getvalue()

    codec.encode_strips(_strips(pixels), out, 60, preview=True, save=save)
    assert out.getvalue() == expected
    assert ltn.read(expected).preview is not None
    assert len(told) == 2
    for begun in told:
        rest = io.BytesIO(parts[begun.bands])
        codec.encode_strips(_strips(pixels), rest, 60, preview=True, begun=begun)
        assert rest.getvalue() == expected


def test_it_counts_among_the_bytes_of_a_target(codec: ImageCodec) -> None:
    image = Image(tiny.picture(300, 300))
    most = len(codec.encode(image, 50, preview=True))
    data = codec.encode_to(image, Target(bytes=most), preview=True)
    assert 0.99 * most <= len(data) <= most
    assert ltn.read(data).preview is not None


def test_lossless_files_have_none_but_it_is_read(codec: ImageCodec) -> None:
    image = _image(100, 90, alpha=True)
    assert ltn.read(codec.encode(image, content="drawn", preview=True)).preview is None
    whole = ltn.read(LosslessCodec().encode(image))
    assert image.alpha is not None
    small = Image(_means(image.pixels), _means(image.alpha[..., None])[..., 0])
    data = ltn.write(replace(whole, preview=LosslessCodec().encode(small)))
    shown = _picture(data, codec).image(None, 1 / 8)
    assert np.array_equal(shown.pixels, small.pixels)
    assert np.array_equal(shown.alpha, small.alpha)


def test_damage_of_it_is_told_to_who_needs_it(codec: ImageCodec) -> None:
    image = Image(tiny.picture(200, 150))
    data = bytearray(codec.encode(image, 60, preview=True))
    place = next(about for about in ltn.describe(data).chunks if about.name == "preview")
    data[place.offset + place.size // 2] ^= 1
    picture = _picture(bytes(data), codec)
    assert np.array_equal(picture.image().pixels, codec.decode(codec.encode(image, 60))[0].pixels)
    for call in (lambda: picture.image(None, 1 / 8), picture.check):
        with pytest.raises(ChecksumError):
            call()
    with pytest.raises(FormatError):
        codec.decode(bytes(data))
    # One that is sound to look at, with a stream that no model makes.
    container = ltn.read(codec.encode(image, 60, preview=True))
    assert container.preview is not None
    inner = ltn.read(container.preview)
    assert inner.tiles[0] is not None
    broken = ltn.write(replace(inner, tiles=[inner.tiles[0]._replace(checksum=7)]))
    picture = _picture(ltn.write(replace(container, preview=broken)), codec)
    picture.check()
    with pytest.raises(ChecksumError, match="tile 0"):
        picture.image(None, 1 / 8)


def test_commands_and_pillow(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = tiny.picture(260, 330)
    write_image(Image(pixels), tmp_path / "a.png")
    model = ["-m", str(tiny_weights)]
    assert app.run(["encode", "a.png", "-o", "plain.ltn", *model]) == 0
    assert app.run(["encode", "a.png", "-o", "with.ltn", "--preview", *model]) == 0
    assert latens.encode(pixels, model=tiny_weights, preview=True) == (tmp_path / "with.ltn").read_bytes()
    monkeypatch.setattr("latens.codec.small._LEAST", 80_000)
    assert app.run(["encode", "a.png", "-o", "auto.ltn", *model]) == 0
    assert app.run(["encode", "a.png", "-o", "none.ltn", "--no-preview", *model]) == 0
    read = {path.stem: path.read_bytes() for path in tmp_path.glob("*.ltn")}
    assert read["auto"] == read["with"] != read["plain"] == read["none"]
    capsys.readouterr()
    assert app.run(["info", "with.ltn"]) == 0
    assert " preview " in capsys.readouterr().out
    assert app.run(["decode", "with.ltn", "--scale", "1/8", "-o", "small.png", *model]) == 0
    inner = ltn.read(read["with"]).preview
    assert inner is not None
    expected = np.asarray(latens.decode(inner, model=tiny_weights))
    assert np.array_equal(np.asarray(PillowImage.open("small.png")), expected)
    with latens.open("with.ltn", model=tiny_weights) as image:
        assert np.array_equal(np.asarray(image.preview(1 / 8)), expected)
        assert not np.array_equal(np.asarray(image.preview(1 / 8, embedded=False)), expected)
    with latens.open("with.ltn", model=tiny_weights) as image:
        image.draft(None, (40, 30))
        assert np.array_equal(np.asarray(image), expected)
