"""SSIMULACRA2 against an independent implementation, and what can be said of it without one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import tiny
from latens.errors import ShapeError
from latens.metrics import ssimulacra2
from latens.metrics.perceptual import WEIGHTS

oracle = pytest.importorskip("ssimulacra2.ssimulacra2")

Pixels = npt.NDArray[np.uint8]


def expected(folder: Path, a: Pixels, b: Pixels) -> float:
    paths = [folder / "a.png", folder / "b.png"]
    for pixels, path in zip((a, b), paths, strict=True):
        Image.fromarray(pixels).save(path, compress_level=0)
    return float(oracle.compute_ssimulacra2(*map(str, paths)))


def noisy(pixels: Pixels, sigma: float, seed: int = 0) -> Pixels:
    noise = np.random.default_rng(seed).normal(0, sigma, pixels.shape)
    return np.clip(np.round(pixels + noise), 0, 255).astype(np.uint8)


def test_weights() -> None:
    np.testing.assert_array_equal(WEIGHTS.ravel(), oracle.weights)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(8, 100), width=st.integers(8, 140), sigma=st.floats(0, 60), seed=st.integers(0, 1000)
)
def test_small_pictures(tmp_path: Path, height: int, width: int, sigma: float, seed: int) -> None:
    original = tiny.picture(height, width, seed=seed)
    distorted = noisy(original, sigma, seed)
    assert ssimulacra2(original, distorted) == pytest.approx(
        expected(tmp_path, original, distorted), abs=0.05
    )


@pytest.mark.parametrize(("size", "quality"), [((256, 256), 5), ((256, 259), 100), ((301, 517), 60)])
def test_pictures_with_all_scales(tmp_path: Path, size: tuple[int, int], quality: int) -> None:
    original = tiny.picture(*size)
    Image.fromarray(original).save(tmp_path / "coded.jpg", quality=quality)
    distorted = np.asarray(Image.open(tmp_path / "coded.jpg"))
    assert ssimulacra2(original, distorted) == pytest.approx(
        expected(tmp_path, original, distorted), abs=0.05
    )


@pytest.mark.parametrize("values", [(0, 0), (255, 255), (0, 255), (128, 129), (10, 30)])
def test_pictures_of_one_colour(tmp_path: Path, values: tuple[int, int]) -> None:
    a, b = (np.full((40, 33, 3), value, np.uint8) for value in values)
    found = ssimulacra2(a, b)
    assert np.isfinite(found)
    assert found == pytest.approx(expected(tmp_path, a, b), abs=0.05)


def test_the_same_picture_has_all_points_and_more_noise_has_fewer() -> None:
    picture = tiny.picture(96, 130)
    assert ssimulacra2(picture, picture) == 100.0
    scores = [ssimulacra2(picture, noisy(picture, sigma)) for sigma in (1, 3, 9, 27, 81)]
    assert scores == sorted(scores, reverse=True)


def test_floating_point_pictures_are_those_of_eight_bits() -> None:
    picture = tiny.picture(70, 90)
    other = noisy(picture, 6)
    want = ssimulacra2(picture, other)
    assert ssimulacra2(picture / 255.0, other / 255.0) == pytest.approx(want, abs=1e-3)
    assert ssimulacra2(picture, np.float32(other) / np.float32(255)) == pytest.approx(want, abs=1e-3)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ((7, 40, 3), (7, 40, 3), "at least 8 pixels on each side, but have 40x7"),
        ((40, 40, 4), (40, 40, 4), "without alpha"),
        ((40, 40), (40, 40), "two RGB pictures"),
        ((40, 40, 1), (40, 40, 1), "two RGB pictures"),
        ((40, 40, 3), (40, 41, 3), "of one size"),
        ((0, 0, 3), (0, 0, 3), "at least 8"),
    ],
)
def test_what_is_no_pair_of_pictures(a: tuple[int, ...], b: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        ssimulacra2(np.zeros(a, np.uint8), np.zeros(b, np.uint8))


def test_integers_of_other_depths_have_no_meaning() -> None:
    with pytest.raises(ShapeError, match="uint16"):
        ssimulacra2(np.zeros((9, 9, 3), np.uint16), np.zeros((9, 9, 3), np.uint16))


def test_it_does_without_torch() -> None:
    code = (
        "import sys, numpy as np; from latens.metrics import bd_rate, ssimulacra2; "
        "ssimulacra2(np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9, 3), np.uint8)); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
