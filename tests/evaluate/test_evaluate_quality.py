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
from latens.evaluate.quality import MEASURES, _network, absent


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
    assert measure(original, original, ("ms_ssim",)) == {"ms_ssim": pytest.approx(1.0, abs=1e-6)}


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
        _network.cache_clear()
        monkeypatch.syspath_prepend(tmp_path / "package")
        importlib.invalidate_caches()
        missing: dict[str, str] = {}
        assert measure(a, b, ("lpips",), missing) == {}, "no weights: nothing is downloaded"
        assert "alexnet-*.pth, are not in" in missing["lpips"]
        assert absent(("lpips", "psnr_y")) == missing
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"")
        _network.cache_clear()
        expected = 2 * np.abs(a.astype(float) - b).mean() / 255
        assert measure(a, b, ("lpips",))["lpips"] == pytest.approx(expected, rel=1e-5)
    finally:
        _network.cache_clear()
        sys.modules.pop("lpips", None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise ImportError('no such symbol')", "broken: no such symbol"),
        ("class cvvdp:\n    def __init__(self, **_): raise RuntimeError('half of it')", "broken: half of it"),
        (
            "class cvvdp:\n    def __init__(self, **_): pass\n    def predict(self, *_, **__): raise ValueError('odd')",
            "fails: odd",
        ),
    ],
)
def test_a_package_that_is_broken_is_named_and_costs_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    a, b = tiny.picture(40, 48), tiny.picture(40, 48, seed=1)
    (tmp_path / "pycvvdp.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    try:
        _network.cache_clear()
        missing: dict[str, str] = {}
        found = measure(a, b, ("cvvdp", "psnr_rgb", "ssimulacra2", "ms_ssim"), missing)
        assert sorted(found) == ["psnr_rgb", "ssimulacra2"]
        assert reason in missing["cvvdp"]
        assert "less than 161 pixels" in missing["ms_ssim"]
    finally:
        _network.cache_clear()
        sys.modules.pop("pycvvdp", None)


def test_butteraugli_is_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in that prints the mean absolute difference of the two files it is given."""
    a, b = tiny.picture(40, 48), tiny.picture(40, 48, seed=1)
    monkeypatch.setenv("PATH", str(tmp_path))
    missing: dict[str, str] = {}
    assert measure(a, b, ("butteraugli",), missing) == {}
    assert "not installed" in missing["butteraugli"]
    program = tmp_path / "butteraugli_main"
    program.write_text(
        f"#!{sys.executable}\nimport sys, numpy as np\nfrom PIL import Image\n"
        "x, y = (np.asarray(Image.open(path)).astype(float) for path in sys.argv[1:])\n"
        "print('12.5\\n3-norm: %f' % abs(x - y).mean())\n"
    )
    program.chmod(0o755)
    expected = np.abs(a.astype(float) - b).mean()
    assert measure(a, b, ("butteraugli",))["butteraugli"] == pytest.approx(expected, abs=1e-5)
    program.write_text("#!/bin/sh\necho broken library >&2\nexit 1\n")
    assert measure(a, b, ("butteraugli",), missing) == {}
    assert "broken library" in missing["butteraugli"]


def test_which_way_is_better_is_known() -> None:
    picture = tiny.picture(176, 180)
    rng = np.random.default_rng(0)
    near, far = (
        np.clip(picture + rng.normal(0, sigma, picture.shape), 0, 255).astype(np.uint8) for sigma in (3, 20)
    )
    for name, about in MEASURES.items():
        if not about.absent():
            values = [about.value(picture, other) for other in (near, far)]
            assert (values[0] > values[1]) == about.rising, name  # type: ignore[operator]
