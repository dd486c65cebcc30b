"""Large pictures from top to bottom, by the command and by the codec: the same files and pixels as of whole ones."""

import io
from pathlib import Path

import numpy as np
import pytest

import tiny
from latens import format
from latens.cli import app
from latens.codec import ImageCodec, LosslessCodec, Picture
from latens.codec.image import at_a_time
from latens.errors import ModelError
from latens.io import Image, open_strips, read_image, write_image
from latens.runtime.networks import Product
from latens.zoo.preview import Preview, load_preview


def test_files_are_those_of_whole_pictures(tiny_weights: Path) -> None:
    codec = ImageCodec(tiny_weights)
    image = Image(tiny.picture(1100, 130), icc=None, xmp=b"<x/>")
    file, out, told = io.BytesIO(), io.BytesIO(), []
    write_image(image, file, "png")
    strips = open_strips(file, 1 << 20)
    assert strips is not None
    size = codec.encode_strips(strips, out, 60, progress=told.append)
    assert out.getvalue() == codec.encode(image, 60)
    assert size == len(out.getvalue())
    assert told == [0.5, 1.0]


def test_wide_pictures_go_in_thinner_portions(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = ImageCodec(tiny_weights)
    image = Image(tiny.picture(150, 1100))
    data = codec.encode(image, 60)
    pixels = codec.decode(data)[0].pixels
    monkeypatch.setattr("latens.codec.image._WIDE", 1000)
    pushed = []

    def told(rows: int, width: int) -> int:
        pushed.append(at_a_time(rows, width))
        return pushed[-1]

    monkeypatch.setattr("latens.codec.image.at_a_time", told)
    monkeypatch.setattr("latens.codec.picture.at_a_time", told)
    assert codec.encode(image, 60) == data
    assert np.array_equal(codec.decode(data)[0].pixels, pixels)
    picture = Picture(format.FileSource(io.BytesIO(data)), lambda header: codec)
    assert np.array_equal(picture.image().pixels, pixels)
    assert set(pushed) == {16, 2}


def test_commands_go_from_top_to_bottom(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image = Image(tiny.picture(200, 300))
    write_image(image, tmp_path / "a.png")
    model = ["-m", str(tiny_weights)]
    assert app.run(["encode", "a.png", "-o", "whole.ltn", *model]) == 0
    assert app.run(["decode", "whole.ltn", *model]) == 0
    monkeypatch.setattr("latens.cli.work.LARGE", 1000)
    assert app.run(["encode", "a.png", "-o", "strips.ltn", *model]) == 0
    assert (tmp_path / "strips.ltn").read_bytes() == (tmp_path / "whole.ltn").read_bytes()
    whole = read_image("whole.png").pixels
    for kind in ("png", "tiff", "ppm"):
        assert app.run(["decode", "strips.ltn", "-o", f"b.{kind}", *model]) == 0
        assert np.array_equal(read_image(f"b.{kind}").pixels, whole)
    assert app.run(["decode", "strips.ltn", "-o", "part.png", "--region", "17,40,101,90", *model]) == 0
    assert np.array_equal(read_image("part.png").pixels, whole[40:130, 17:118])
    assert app.run(["decode", "strips.ltn", "-o", "half.png", "--scale", "1/2", *model]) == 0
    assert read_image("half.png").pixels.shape == (100, 150, 3)
    # Nothing is left of what fails on the way.
    damaged = bytearray((tmp_path / "strips.ltn").read_bytes())
    damaged[-30] ^= 1
    (tmp_path / "damaged.ltn").write_bytes(damaged)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert app.run(["decode", "damaged.ltn", *model]) == 2
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:-2000])
    assert app.run(["encode", "cut.png", *model]) == 2
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cut.png") == before


def test_large_screenshots_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("latens.cli.work.LARGE", 1000)
    screen = np.full((600, 200, 3), 250, np.uint8)
    screen[500:540:4, 20:90:3] = 20  # far down
    for name, pixels in (("screen", screen), ("photo", tiny.picture(600, 200))):
        write_image(Image(pixels), tmp_path / f"{name}.png")
        assert app.run(["encode", f"{name}.png"]) == 0
    assert format.read_header((tmp_path / "screen.ltn").read_bytes()).lossless
    assert not format.read_header((tmp_path / "photo.ltn").read_bytes()).lossless
    # Too large to be held, or not to be looked at.
    for number, (most, options) in enumerate(((1000, []), (10**6, ["--content", "photo"]))):
        monkeypatch.setattr("latens.cli.work.WHOLE", most)
        assert app.run(["encode", "screen.png", "-o", f"{number}.ltn", *options]) == 0
        assert not format.read_header((tmp_path / f"{number}.ltn").read_bytes()).lossless


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--region", "0,0,0,5"], "at least 1"),
        (["--region", "0,0,-4,5"], "at least 1"),
        (["--region", "-1,0,4,5"], "not inside"),
        (["--region", "299,0,2,5"], "not inside"),
        (["--region", "999999999,0,2,5"], "not inside"),
        (["--region", "1,2,3"], "four whole numbers"),
        (["--region", "1,2,3,x"], "four whole numbers"),
        (["--scale", "1/3"], "scale of 1, 1/2, 1/4 or 1/8"),
        (["--scale", "2"], "scale of 1, 1/2, 1/4 or 1/8"),
        (["--scale", "1/2", "--salvage"], "whole pictures"),
    ],
)
def test_parts_that_are_refused(
    options: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.ltn"
    path.write_bytes(LosslessCodec().encode(Image(tiny.picture(200, 300))))
    assert app.run(["decode", str(path), *options]) == 2
    assert why in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ltn"]


class TestPreviews:
    def test_they_look_like_means(self) -> None:
        codec = ImageCodec()
        pixels = np.asarray(read_image(Path(__file__).parents[2] / "examples" / "blossom.png").pixels)
        pixels = pixels[:300, :331]
        for image in (Image(pixels), Image(pixels[..., :1]), Image(pixels * np.uint16(257))):
            data = codec.encode(image, 60)
            small = Picture(_Memory(data)).image(None, 1 / 8)
            assert small.pixels.shape == (38, 42, image.pixels.shape[2])
            assert small.pixels.dtype == image.pixels.dtype
            whole = codec.decode(data)[0].pixels[:296, :328].astype(np.float64)
            means = whole.reshape(37, 8, 41, 8, -1).mean((1, 3))
            error = np.abs(small.pixels[:37, :41] - means).mean() / np.iinfo(small.pixels.dtype).max
            assert error < 0.02
            part = Picture(_Memory(data)).image((77, 101, 200, 299), 1 / 8)
            assert np.array_equal(part.pixels, small.pixels[12:38, 9:25])

    def test_damaged_files(self) -> None:
        assert load_preview("0" * 64) is None
        weight = np.ones((12, 3, 3, 4), np.int16)
        found = Preview("0" * 64, Product(weight, np.zeros(12, np.int32), np.ones(12, np.uint8)))
        assert Preview.from_file(found.file()).file() == found.file()
        for data in (b"", found.file()[:100], found.file().replace(b"latens-preview-1", b"latens-preview-2")):
            with pytest.raises(ModelError):
                Preview.from_file(data)
        weight = np.zeros((9, 3, 3, 4), np.int16)
        with pytest.raises(ModelError, match="expected 12 outputs"):
            Preview("", Product(weight, np.zeros(9, np.int32), np.ones(9, np.uint8)))


class _Memory:
    def __init__(self, data: bytes) -> None:
        self._data, self.size = data, len(data)

    def read_at(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]
