from __future__ import annotations

import pytest
import torch

from latens.errors import ModelError
from latens.losses import RateDistortionLoss

SIDE = 176


def case() -> tuple[dict[str, object], torch.Tensor]:
    torch.manual_seed(0)
    target = torch.rand(2, 3, SIDE, SIDE)
    likelihoods = {"y": torch.full((2, 4, 11, 11), 0.25), "z": torch.full((2, 1, 2, 2), 0.5)}
    return {"x_hat": target + 0.1, "likelihoods": likelihoods}, target


def test_terms() -> None:
    output, target = case()
    terms = RateDistortionLoss(lmbda=0.02)(output, target)
    bits = 2 * 2 * 4 * 11 * 11 + 2 * 4
    assert terms["bpp_loss"].item() == pytest.approx(bits / (2 * SIDE * SIDE), rel=1e-5)
    assert terms["mse_loss"].item() == pytest.approx(0.01, rel=1e-5)
    assert terms["loss"].item() == pytest.approx(0.02 * 255**2 * 0.01 + terms["bpp_loss"].item(), rel=1e-5)
    assert RateDistortionLoss(lmbda=0.02, return_type="loss")(output, target) == terms["loss"]


def test_ms_ssim() -> None:
    output, target = case()
    terms = RateDistortionLoss(lmbda=3, metric="ms-ssim")(output, target)
    expected = 3 * (1 - terms["ms_ssim_loss"]) + terms["bpp_loss"]
    torch.testing.assert_close(terms["loss"], expected)
    assert 0.5 < terms["ms_ssim_loss"] < 1


def test_unknown_metric() -> None:
    with pytest.raises(ModelError, match="'psnr'"):
        RateDistortionLoss(metric="psnr")
