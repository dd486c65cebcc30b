"""Copies of test images are found whatever was done to them, and others are left alone."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageEnhance

import tiny
from latens.train import Trainer, find_similar
from latens.train.data import PhotoPool

DATA = Path(os.environ.get("LATENS_DATA", Path(__file__).parents[3] / "shared" / "data"))

Make = Callable[..., Trainer]
Change = Callable[[Image.Image], Image.Image]


def scene(seed: int, height: int = 160, width: int = 240) -> Image.Image:
    """Something with structure of all sizes at places of its own, like a photograph."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.zeros((height, width, 3))
    for size in (80, 40, 20, 10):
        for _ in range(5 * 80 // size):
            at, radius, colour = (
                rng.uniform(0, (height, width)),
                rng.uniform(0.2, 0.6) * size,
                rng.normal(0, 40, 3),
            )
            angle, flatness = rng.uniform(0, np.pi), rng.uniform(0.4, 1)
            u = (y - at[0]) * np.cos(angle) + (x - at[1]) * np.sin(angle)
            v = (x - at[1]) * np.cos(angle) - (y - at[0]) * np.sin(angle)
            pixels += (np.hypot(u, v / flatness) < radius)[..., None] * colour
    return Image.fromarray(np.clip(128 + pixels, 0, 255).astype(np.uint8))


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def crop(image: Image.Image, left: float, top: float, width: float, height: float) -> Image.Image:
    w, h = image.size
    return image.crop((int(left * w), int(top * h), int((left + width) * w), int((top + height) * h)))


CHANGES: dict[str, Change] = {
    "equal": lambda image: image,
    "smaller": lambda image: image.resize((150, 100), Image.Resampling.BICUBIC),
    "larger": lambda image: image.resize((600, 400), Image.Resampling.BICUBIC),
    "recompressed": lambda image: jpeg(image, 15),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "upside down": lambda image: image.transpose(Image.Transpose.ROTATE_180),
    "turned and mirrored": lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    "a part": lambda image: crop(image, 0.25, 0.1, 0.7, 0.7),
    "a small part": lambda image: crop(image, 0.1, 0.4, 0.52, 0.52),
    "a square": lambda image: crop(image, 0.2, 0, 2 / 3, 1),
    "a part, smaller, mirrored, recompressed": lambda image: jpeg(
        crop(image, 0.1, 0.15, 0.83, 0.8).transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((200, 130)), 40
    ),
    "brighter": lambda image: ImageEnhance.Brightness(ImageEnhance.Contrast(image).enhance(0.6)).enhance(1.3),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


def pool(images: dict[str, Image.Image]) -> PhotoPool:
    arrays: list[npt.NDArray[np.uint8]] = [np.asarray(image.convert("RGB")) for image in images.values()]
    return PhotoPool(
        list(images),
        np.array([a.shape[:2] for a in arrays]),
        np.ones(len(arrays)),
        np.concatenate([a.reshape(-1) for a in arrays]),
        [],
    )


def test_copies_are_found_and_others_are_not() -> None:
    tests = {f"test-{i}": scene(i) for i in range(3)}
    photographs = {name: change(tests["test-1"]) for name, change in CHANGES.items()}
    others = {f"other-{i}": scene(100 + i) for i in range(4)}
    others |= {
        "flat": Image.new("RGB", (200, 100), "gold"),
        "noise": Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 140, 3), np.uint8)),
        "sky": Image.fromarray(np.linspace(0, 255, 90 * 120 * 3).reshape(90, 120, 3).astype(np.uint8)),
        "dot": Image.new("RGB", (1, 1)),
        "line": Image.new("RGB", (900, 1)),
    }
    matches = find_similar(pool(photographs | others), pool(tests))
    assert [match.name for match in matches] == list(CHANGES)
    assert {match.reference for match in matches} == {"test-1"}
    assert [match.index for match in matches] == list(range(len(CHANGES)))
    assert matches[0].score == 1.0
    assert all(0.5 <= match.score <= 1 for match in matches)


def test_a_photograph_that_holds_more_than_the_test_image() -> None:
    whole = scene(5, 200, 250)
    found = find_similar(
        pool({"whole": whole, "other": scene(6)}), pool({"part": crop(whole, 0.2, 0.1, 0.6, 0.7)})
    )
    assert [(match.name, match.reference) for match in found] == [("whole", "part")]


def test_many_test_images_are_taken_in_turn() -> None:
    tests = {f"test-{i}": Image.fromarray(tiny.picture(40, 60, seed=i)) for i in range(30)}
    found = find_similar(
        pool({"last": tests["test-29"].resize((90, 60)), "first": tests["test-0"]}), pool(tests)
    )
    assert [(match.name, match.reference) for match in found] == [("last", "test-29"), ("first", "test-0")]


def test_results_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photographs, tests = pool({"a": scene(1), "b": scene(2)}), pool({"t": scene(2)})
    found = find_similar(photographs, tests, tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    monkeypatch.setattr("latens.train.similar._search", lambda *_: pytest.fail("searched again"))
    assert find_similar(photographs, tests, tmp_path / "cache") == found
    monkeypatch.undo()
    assert find_similar(pool({"a": scene(3), "b": scene(2)}), tests, tmp_path / "cache") == found
    kept.write_text("[{")
    assert find_similar(photographs, tests, tmp_path / "cache") == found


def test_training_leaves_copies_of_test_images_out(make: Make, tmp_path: Path) -> None:
    """From the command line to the pool: what is drawn from has no copy in it."""
    for folder, names in (("data", "abc"), ("tests", "b")):
        (tmp_path / folder).mkdir()
        for name in names:
            image = scene(ord(name), 128, 192)
            image = image if folder == "tests" else jpeg(image.resize((160, 107)), 60)
            image.save(tmp_path / folder / f"{name}.png")
    trainer = make(data=str(tmp_path / "data"), exclude_like=str(tmp_path / "tests"))
    assert trainer.pool.names == ["a.png", "c.png"]
    assert [(match.name, match.reference) for match in trainer.excluded] == [("b.png", "b.png")]


@pytest.mark.long
@pytest.mark.skipif(not (DATA / "kodak").is_dir(), reason="needs the Kodak set and the training photographs")
def test_no_image_of_kodak_is_among_the_training_photographs() -> None:
    """The data that released weights were trained and are tested with: LATENS_DATA names their folder."""
    tests = PhotoPool.load(DATA / "kodak")
    assert len(tests) == 24
    assert find_similar(PhotoPool.load(DATA / "photos"), tests) == []
