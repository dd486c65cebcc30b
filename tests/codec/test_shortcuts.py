"""Encode, decode, open and save: what they take, and that they agree with the codec."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import latens
import tiny
from latens.codec import ImageCodec, Target
from latens.errors import (
    FormatError,
    ImageError,
    OutputError,
    ShapeError,
    TargetError,
    UnknownModelError,
)
from latens.io import Image as Picture
from latens.zoo import DEFAULT_MODEL, tuned


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A file whose pixels lie on their side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(tiny.picture(40, 60)).save(tmp_path / "photo.png", exif=exif)
    return tmp_path / "photo.png"


def test_every_kind_of_image_gives_the_same_file(tmp_path: Path, tiny_weights: Path) -> None:
    pixels = tiny.picture(40, 60)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    kinds = (
        tmp_path / "photo.png", str(tmp_path / "photo.png"), pixels, Image.fromarray(pixels), Picture(pixels)
    )  # fmt: skip
    files = {latens.encode(kind, 40, model=tiny_weights) for kind in kinds}
    assert len(files) == 1
    assert files == {ImageCodec(tiny_weights).encode(Picture(pixels), 40)}


def test_files_are_turned(photo: Path, tiny_weights: Path) -> None:
    assert latens.decode(latens.encode(photo, model=tiny_weights), model=tiny_weights).size == (40, 60)


def test_to_the_disk_and_back(photo: Path, tmp_path: Path, tiny_weights: Path) -> None:
    target = tmp_path / "photo.ltn"
    size = latens.save(photo, target, 60, model=tiny_weights)
    assert target.read_bytes() == latens.encode(photo, 60, model=tiny_weights)
    assert size == target.stat().st_size
    opened = latens.open(str(target), model=tiny_weights)
    assert np.array_equal(opened, latens.decode(target.read_bytes(), model=tiny_weights))
    with pytest.raises(OutputError, match="exists already"):
        latens.save(photo, target, 1, model=tiny_weights)
    assert latens.save(photo, target, 1, model=tiny_weights, force=True) < size


def test_targets(tiny_weights: Path) -> None:
    photo = tiny.picture(130, 200)
    codec, picture = ImageCodec(tiny_weights), Picture(photo)
    size = (len(codec.encode(picture, 20)) + len(codec.encode(picture, 80))) / 2
    data = latens.encode(photo, target_size=size, model=tiny_weights)
    assert 0.98 * size <= len(data) <= size
    assert data == codec.encode_to(picture, Target(bytes=size))
    wanted = _psnr(latens.decode(codec.encode(picture, 50), model=tiny_weights), picture)
    data = latens.encode(photo, target_psnr=wanted, model=tiny_weights)
    assert abs(_psnr(latens.decode(data, model=tiny_weights), picture) - wanted) <= 0.05
    with pytest.raises(TargetError, match="not several"):
        latens.encode(photo, 50, target_size=size, model=tiny_weights)
    with pytest.raises(TargetError, match="positive"):
        latens.encode(photo, target_size=0, model=tiny_weights)


def _psnr(decoded: Image.Image, original: Picture) -> float:
    error = np.asarray(decoded, np.float64) - original.pixels
    return float(10 * np.log10(255**2 / np.mean(error**2)))


def test_the_codec_takes_bytes(tiny_weights: Path) -> None:
    codec = ImageCodec(tiny_weights)
    data = codec.encode(Picture(tiny.picture(40, 60)))
    image, problems = codec.decode(data)
    assert problems == ()
    assert np.array_equal(image.pixels, np.asarray(latens.decode(data, model=tiny_weights)))
    for kind in (bytearray, memoryview):
        assert np.array_equal(codec.decode(kind(data))[0].pixels, image.pixels)
    with pytest.raises(FormatError):
        codec.decode(data[:-3])


def test_mistakes_are_explained(photo: Path, tmp_path: Path, tiny_weights: Path) -> None:
    with pytest.raises(ImageError, match="expected a path, a Pillow image"):
        latens.encode(b"bytes")  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=r"missing\.png: cannot be read"):
        latens.encode(tmp_path / "missing.png", model=tiny_weights)
    with pytest.raises(ShapeError, match=r"latens\.open"):
        latens.decode("photo.ltn")  # type: ignore[arg-type]
    for name, why in (
        ("missing.ltn", "cannot be read .No such file"),
        ("photo.png", "not a .ltn file"),
        ("a\0b", "cannot be read"),
    ):
        with pytest.raises(FormatError, match=why):
            latens.open(tmp_path / name)
    with pytest.raises(OutputError, match=r"ends in \.ltn"):
        latens.save(photo, tmp_path / "copy.png", model=tiny_weights)
    link = tmp_path / "twin.ltn"
    os.link(photo, link)
    with pytest.raises(OutputError, match="also an input"):
        latens.save(photo, link, model=tiny_weights, force=True)


def test_a_star_import_hides_no_built_in() -> None:
    names: dict[str, object] = {}
    exec("from latens import *", names)
    assert "open" not in names
    assert {"open", "save", "encode", "decode"} <= set(dir(latens))


def test_a_tune_stands_for_a_model() -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    given = latens.encode(picture, 10, tune="psnr", content="photo")
    assert given == latens.encode(picture, 10, model=tuned("psnr"))
    with pytest.raises(ImageError, match="a model or a tune"):
        latens.encode(picture, tune="psnr", model=DEFAULT_MODEL)
    with pytest.raises(UnknownModelError, match=r"tuned for 'taste'; there are .*psnr"):
        latens.encode(picture, tune="taste")
