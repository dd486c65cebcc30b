"""Measures, against independent computations of the same."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from latens import metrics
from latens.errors import ShapeError
from latens.evaluate import measure
from latens.evaluate.quality import _lpips


def test_psnr_is_that_of_its_definition() -> None:
    a, b = tiny.picture(37, 53), tiny.picture(37, 53, seed=1)
    found = measure(a, b, ("psnr_y", "psnr_rgb"))
    error = a.astype(float) - b
    assert found["psnr_rgb"] == pytest.approx(10 * np.log10(255**2 / np.mean(error**2)), abs=1e-9)
    luma = error @ [0.2126, 0.7152, 0.0722]  # BT.709
    assert found["psnr_y"] == pytest.approx(10 * np.log10(255**2 / np.mean(luma**2)), abs=1e-9)
    assert measure(a, a) == {"psnr_rgb": None, "psnr_y": None}


@pytest.mark.parametrize("size", [(161, 161), (192, 256), (175, 333), (227, 190)])
def test_ms_ssim_is_that_of_the_differentiable_one(size: tuple[int, int]) -> None:
    original = tiny.picture(*size)
    rng = np.random.default_rng(0)
    for strength in (1, 20, 80):
        noise = rng.integers(-strength, strength + 1, original.shape)
        decoded = np.clip(original + noise, 0, 255).astype(np.uint8)
        x, y = (torch.from_numpy(p).permute(2, 0, 1)[None].double() / 255 for p in (original, decoded))
        expected = float(metrics.ms_ssim(x, y))
        assert measure(original, decoded, ("ms_ssim",))["ms_ssim"] == pytest.approx(expected, abs=2e-6)
    assert measure(original, original, ("ms_ssim",)) == {"ms_ssim": 1.0}


def test_ms_ssim_of_opposites_is_nothing() -> None:
    x = tiny.picture(200, 170)
    assert measure(x, 255 - x, ("ms_ssim",))["ms_ssim"] == pytest.approx(0.0, abs=1e-6)


def test_decoders_that_give_another_size_or_type_are_noticed() -> None:
    with pytest.raises(ShapeError, match="expected uint8"):
        measure(tiny.picture(4, 4), tiny.picture(4, 5))
    with pytest.raises(ShapeError, match="float32"):
        measure(tiny.picture(4, 4), tiny.picture(4, 4).astype(np.float32))  # type: ignore[arg-type]


# A stand-in for the package, whose distance is the mean absolute difference on the scale that the network is given.
LPIPS = """
import torch
class LPIPS(torch.nn.Module):
    def __init__(self, net, verbose):
        super().__init__()
        if net != "alex" or verbose:
            raise RuntimeError("another network than the field's")
    def forward(self, a, b):
        if a.shape[:2] != (1, 3) or min(a.min(), b.min()) < -1 or max(a.max(), b.max()) > 1:
            raise RuntimeError("images are (1, 3, h, w) from -1 to 1")
        return (a - b).abs().mean().view(1, 1, 1, 1)
"""


def test_lpips_is_measured_where_package_and_weights_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = tiny.picture(40, 48), tiny.picture(40, 48, seed=1)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "lpips.py").write_text(LPIPS)
    weights = tmp_path / "torch" / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    try:
        _lpips.cache_clear()
        monkeypatch.syspath_prepend(tmp_path / "package")
        importlib.invalidate_caches()
        assert measure(a, b, ("lpips",)) == {}, "no weights: left out, and nothing is downloaded"
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"")
        _lpips.cache_clear()
        expected = 2 * np.abs(a.astype(float) - b).mean() / 255
        assert measure(a, b, ("lpips",))["lpips"] == pytest.approx(expected, rel=1e-5)
    finally:
        _lpips.cache_clear()
        sys.modules.pop("lpips", None)
