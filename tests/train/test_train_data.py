"""Training photographs: found, decoded, kept; crops that depend on seed and step only."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import tiny
from latens.errors import TrainingError
from latens.train.data import CropSampler, PhotoPool


def png(height: int, width: int, seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(tiny.picture(height, width, seed=seed)).save(buffer, "PNG")
    return buffer.getvalue()


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images (one in a folder, one in a tar), and things that are none."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.png").write_bytes(png(30, 40, 1))
    Image.fromarray(tiny.picture(20, 25, 1)[..., 0]).save(folder / "sub" / "b.JPG")
    with tarfile.open(folder / "c.tar", "w") as archive:
        add(archive, "deep/c.png", png(50, 60, 2))
        add(archive, "notes.txt", b"hello")
        add(archive, "broken.png", b"\x89PNG nothing")
    (folder / "readme.txt").write_text("no image")
    (folder / "cut.png").write_bytes(png(90, 90)[:200])
    (folder / "empty.webp").write_bytes(b"")
    (folder / "folder.png").mkdir()
    (folder / "dangling.png").symlink_to("nowhere")
    return folder


def test_images_are_found_everywhere_and_the_rest_is_listed(photos: Path) -> None:
    pool = PhotoPool.load(photos)
    assert dict(zip(pool.names, map(tuple, pool.sizes.tolist()), strict=True)) == {
        "a.png": (30, 40), "b.JPG": (20, 25), "c.png": (50, 60),
    }  # fmt: skip
    assert sorted(pool.skipped) == ["broken.png", "cut.png", "dangling.png", "empty.webp"]
    np.testing.assert_array_equal(pool[pool.names.index("a.png")], tiny.picture(30, 40, seed=1))
    np.testing.assert_array_equal(pool[pool.names.index("c.png")], tiny.picture(50, 60, seed=2))
    assert pool[pool.names.index("b.JPG")].shape == (20, 25, 3)
    part = pool.subset([2])
    np.testing.assert_array_equal(part[0], pool[2])


def test_a_damaged_archive_gives_what_comes_before_the_damage(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        add(archive, "a.png", png(30, 40))
        add(archive, "b.png", png(200, 200))
    data = (tmp_path / "x.tar").read_bytes()
    (tmp_path / "x.tar").write_bytes(data[: len(data) // 2])
    pool = PhotoPool.load(tmp_path / "x.tar")
    assert (pool.names, pool.skipped) == (["a.png"], ["x.tar"])


@pytest.mark.parametrize("kind", ["missing", "empty", "only damaged", "text file", "not a tar"])
def test_no_images_is_an_error_that_names_the_source(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    if kind == "empty":
        source.mkdir()
    elif kind == "only damaged":
        source.mkdir()
        (source / "a.png").write_bytes(b"nothing")
    elif kind == "text file":
        source.write_text("x")
    elif kind == "not a tar":
        source = tmp_path / "source.tar"
        source.write_text("x")
    with pytest.raises(TrainingError, match="source"):
        PhotoPool.load(source)


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_files_that_must_not_be_read_are_listed(photos: Path) -> None:
    (photos / "a.png").chmod(0)
    assert "a.png" in PhotoPool.load(photos).skipped


def test_the_cache_gives_the_same_pool_and_survives_damage(photos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    pools = [PhotoPool.load(photos, cache), PhotoPool.load(photos, cache)]
    (listing,) = cache.glob("*.json")
    pixels = listing.with_suffix(".npy")
    for path, content in ((listing, b'{"names": ['), (listing, b"[]"), (pixels, b"junk"), (pixels, b"")):
        path.write_bytes(content)
        pools.append(PhotoPool.load(photos, cache))
        assert not list(cache.glob(".latens-*"))
    # Pixels of another pool, and pixels without their listing (killed in between).
    np.save(pixels, pools[0].pixels[:-3])
    pools.append(PhotoPool.load(photos, cache))
    listing.unlink()
    pools.append(PhotoPool.load(photos, cache))
    for pool in pools[1:]:
        assert (pool.names, pool.skipped) == (pools[0].names, pools[0].skipped)
        np.testing.assert_array_equal(pool.pixels, pools[0].pixels)
        np.testing.assert_array_equal(pool.weights, pools[0].weights)


def pool_of(*images: np.ndarray, weights: list[float] | None = None) -> PhotoPool:
    sizes = np.array([image.shape[:2] for image in images])
    pixels = np.concatenate([image.reshape(-1) for image in images])
    return PhotoPool(
        [str(i) for i in range(len(images))], sizes, np.array(weights or [1.0] * len(images)), pixels, []
    )


def coordinates(height: int, width: int) -> np.ndarray:
    """An image whose pixels say where they are."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([y, x, np.full_like(y, 200)], axis=-1).astype(np.uint8)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_crops_are_parts_of_the_image(height: int, width: int, seed: int) -> None:
    crops = CropSampler(pool_of(coordinates(height, width)), 3, seed)(7, 64).numpy() * 255
    assert crops.shape == (3, 3, 64, 64)
    for crop in crops:
        y, x, constant = crop
        assert (constant.round() == 200).all()
        assert y.max() < height
        assert x.max() < width
        if min(height, width) >= 128:
            # Turned by quarters and mirrored: one of the two coordinates goes along each axis, evenly.
            down, right = (y, x) if np.ptp(y[:, 0]) > np.ptp(x[:, 0]) else (x, y)
            pace = abs(np.diff(down, axis=0)).mean()
            assert 0.98 < pace < 2.02
            assert abs(pace - abs(np.diff(right, axis=1)).mean()) < 0.05
            assert np.ptp(down, axis=1).max() <= 1


def test_crops_depend_on_seed_and_step_only() -> None:
    pool = pool_of(tiny.picture(100, 120), tiny.picture(300, 200))
    first = CropSampler(pool, 4, 5)
    for _ in range(3):
        first(1, 64)  # what was drawn before does not matter
    again = CropSampler(pool, 4, 5)
    assert (first(9, 64) == again(9, 64)).all()
    for other in (CropSampler(pool, 4, 6)(9, 64), again(10, 64)):
        assert (other != again(9, 64)).any()


def test_images_are_drawn_by_weight() -> None:
    flat = [np.full((8, 8, 3), value, np.uint8) for value in (0, 100, 200)]
    sampler = CropSampler(pool_of(*flat, weights=[1.0, 0.0, 3.0]), 50, 0)
    drawn = np.concatenate([sampler(step, 64)[:, 0, 0, 0].numpy() * 255 for step in range(8)]).round()
    assert set(drawn) == {0, 200}
    assert 0.68 < (drawn == 200).mean() < 0.82


def test_samples_of_16_bits_keep_their_shades(tmp_path: Path) -> None:
    """Pillow's own conversion would make all of them white."""
    shades = np.arange(0, 65536, 257, np.uint16).reshape(16, 16)
    Image.fromarray(shades).save(tmp_path / "deep.png")
    want = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    np.testing.assert_array_equal(PhotoPool.load(tmp_path)[0], want)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    Image.fromarray(tiny.picture(8, 8)).save(tmp_path / "b.png")
    assert PhotoPool.load(tmp_path).skipped == ["a.png"]
