"""Sequences of pictures in and out."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from latens.errors import OutputError, VideoError
from latens.io import Image, VideoFrame, VideoInfo, VideoSink, VideoSource, read_image, write_image

RNG = np.random.default_rng(2)


def picture(bits: int = 8, channels: int = 3) -> Image:
    samples = RNG.integers(0, 1 << bits, (5, 7, channels)).astype(np.uint32)
    if bits == 8:
        return Image(samples.astype(np.uint8))
    return Image(((samples * 65535 + (1 << bits - 1)) // ((1 << bits) - 1)).astype(np.uint16), bit_depth=bits)


def read(path: str, rate: Fraction = Fraction(25)) -> tuple[VideoInfo, list[VideoFrame], list[str]]:
    with VideoSource(path, rate=rate) as source:
        return source.info, list(source.frames()), source.not_kept


def test_a_folder(tmp_path: Path) -> None:
    images = {name: picture() for name in ("f2.png", "f10.png", "f1.png")}
    for name, image in images.items():
        write_image(image, tmp_path / name)
    (tmp_path / "readme.txt").write_text("x")
    (tmp_path / ".hidden").write_text("x")
    info, frames, lost = read(str(tmp_path), Fraction(30000, 1001))
    assert (info.width, info.height, info.bit_depth, info.colour, info.frames) == (7, 5, 8, (1, 13, 0, 1), 3)
    assert info.frame_rate == Fraction(30000, 1001)
    assert lost == ["1 other files of the folder"]
    for frame, name in zip(frames, ("f1.png", "f2.png", "f10.png"), strict=True):
        g, b, r = frame.planes
        assert np.array_equal(np.stack([r, g, b], -1), images[name].pixels)
    assert [frame.timestamp for frame in frames] == [0, 1, 2]


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_there_and_back(tmp_path: Path, bits: int) -> None:
    images = [picture(bits) for _ in range(3)]
    for number, image in enumerate(images):
        write_image(image, tmp_path / f"in_{number + 1:04d}.tif")
    info, frames, lost = read(f"{tmp_path}/in_%04d.tif")
    depth = min(max(bits, 8), 12)
    # TIFF has 16 bits for 10 and 12.
    assert info.bit_depth == (8 if bits == 8 else 12)
    with VideoSink(f"{tmp_path}/out_%04d.png", info) as sink:
        for frame in frames:
            g, b, r = (plane.astype(float) / ((1 << info.bit_depth) - 1) for plane in frame.planes)
            top, kind = (255, np.uint8) if info.bit_depth == 8 else (65535, np.uint16)
            sink.add(
                frame, lambda r=r, g=g, b=b, k=kind, t=top: np.rint(np.stack([r, g, b], -1) * t).astype(k)
            )
    assert sink.not_kept == []
    assert sorted(p.name for p in tmp_path.glob("out*")) == [f"out_{i:04d}.png" for i in (1, 2, 3)]
    for number, image in enumerate(images):
        again = read_image(tmp_path / f"out_{number + 1:04d}.png").pixels.astype(int)
        most = 255 if bits == 8 else 65535
        assert np.abs(again - image.pixels).max() <= (0 if bits == 8 else most // ((1 << depth) - 1))
    assert bits == 8 or lost == ["samples of 16 bits (12 are)"]


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    pixels = picture().pixels
    for density, aspect in (
        (((300, 1), (150, 1), "inch"), Fraction(1, 2)),
        (((1, 1), (2, 1), ""), Fraction(2)),
        (((72, 1), (72, 1), "inch"), Fraction(1)),
    ):
        write_image(Image(pixels, density=density), tmp_path / "a1.png", force=True)
        info, frames, lost = read(f"{tmp_path}/a%d.png")
        assert info.pixel_aspect.limit_denominator(100) == aspect
        assert lost == []
        with VideoSink(f"{tmp_path}/out/", info) as sink:
            sink.add(frames[0], lambda: pixels)
        found = read_image(tmp_path / "out/000000.png").density
        assert found is None if aspect == 1 else found is not None
        (tmp_path / "out/000000.png").unlink()


def test_grey(tmp_path: Path) -> None:
    image = picture(channels=1)
    write_image(image, tmp_path / "a.png")
    _, frames, _ = read(str(tmp_path))
    assert all(np.array_equal(plane, image.pixels[:, :, 0]) for plane in frames[0].planes)


def test_what_is_missing_or_differs(tmp_path: Path) -> None:
    for number in (3, 4, 6):
        write_image(picture(), tmp_path / f"f{number}.png")
    with pytest.raises(VideoError, match="number 5 is missing, between 3 and 6"):
        read(f"{tmp_path}/f%d.png")
    with pytest.raises(VideoError, match="no file has such a name"):
        read(f"{tmp_path}/g%d.png")
    write_image(Image(np.zeros((4, 4, 3), np.uint8)), tmp_path / "f5.png")
    with pytest.raises(VideoError, match="make them alike"):
        read(f"{tmp_path}/f%d.png")
    (tmp_path / "f5.png").write_bytes((tmp_path / "f4.png").read_bytes()[:60])
    with pytest.raises(VideoError, match="f5"):
        read(f"{tmp_path}/f%d.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match="folder without pictures"):
        read(f"{tmp_path}/empty")
    with pytest.raises(VideoError, match="must be positive"):
        read(str(tmp_path), Fraction(0))


def test_what_is_lost(tmp_path: Path) -> None:
    alpha = np.full((5, 7), 9, np.uint8)
    write_image(
        Image(picture().pixels, alpha=alpha, density=((300, 1), (300, 1), "inch")), tmp_path / "a.png"
    )
    assert read(str(tmp_path))[2] == ["transparency"]


def test_names_that_are_refused(tmp_path: Path) -> None:
    info = VideoInfo(7, 5, "4:4:4", colour=(1, 13, 0, 1))
    with pytest.raises(OutputError, match=r"let the name end in \.png"):
        VideoSink(f"{tmp_path}/f%04d.jpg", info)
    (tmp_path / "f0001.png").write_bytes(b"x")
    with pytest.raises(OutputError, match="exists"):
        VideoSink(f"{tmp_path}/f%04d.png", info)


def test_colour_of_pictures(tmp_path: Path) -> None:
    """PQ of BT.2020 is told by PNG, too."""
    info = VideoInfo(7, 5, "4:4:4", 10, colour=(9, 16, 0, 1))
    planes = tuple(np.full((5, 7), 700, np.uint16) for _ in range(3))
    with VideoSink(f"{tmp_path}/out/", info) as sink:
        sink.add(VideoFrame(planes, 0), lambda: np.full((5, 7, 3), 44845, np.uint16))  # type: ignore[arg-type]
    image = read_image(tmp_path / "out" / "000000.png")
    assert image.colour == (9, 16, 0, 1)
    assert image.pixels.max() == image.pixels.min() == 44845
