from __future__ import annotations

import math

import pytest
import pytorch_msssim
import torch
from torch import Tensor

from latens.errors import ShapeError
from latens.metrics import ms_ssim, mse, psnr, ssim


def pair(*shape: int, data_range: float = 1.0, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    ramp = torch.linspace(0, 1, shape[-1], dtype=torch.float64).expand(shape)
    x = (ramp + 0.2 * torch.rand(shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    y = (x + noise * torch.randn(shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    return x * data_range, y * data_range


@pytest.mark.parametrize("data_range", [1.0, 255.0])
@pytest.mark.parametrize("shape", [(1, 1, 161, 161), (2, 3, 170, 203), (1, 2, 256, 161)])
def test_ssim_equals_independent_implementation(shape: tuple[int, ...], data_range: float) -> None:
    x, y = pair(*shape, data_range=data_range)
    expected = pytorch_msssim.ms_ssim(x, y, data_range=data_range, size_average=False)
    torch.testing.assert_close(ms_ssim(x, y, data_range), expected, rtol=1e-5, atol=1e-5)
    expected = pytorch_msssim.ssim(x, y, data_range=data_range, size_average=False)
    torch.testing.assert_close(ssim(x, y, data_range), expected, rtol=1e-5, atol=1e-5)


def test_memory_layout_does_not_matter() -> None:
    x, y = pair(2, 3, 170, 203)
    laid_out = [image.contiguous(memory_format=torch.channels_last) for image in (x, y)]
    for metric in (ms_ssim, ssim, psnr, mse):
        torch.testing.assert_close(metric(*laid_out), metric(x, y))


def test_equal_images() -> None:
    x, _ = pair(2, 3, 176, 176)
    torch.testing.assert_close(ms_ssim(x, x), torch.ones(2, dtype=torch.float64))
    assert psnr(x, x).tolist() == [math.inf, math.inf]
    assert mse(x, x).tolist() == [0, 0]


def test_psnr_of_a_known_error() -> None:
    x = torch.zeros(2, 3, 4, 4)
    y = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)])
    torch.testing.assert_close(psnr(x, y), torch.tensor([20.0, 40.0]))
    torch.testing.assert_close(psnr(x * 255, y * 255, 255), torch.tensor([20.0, 40.0]))


def test_negative_similarity_has_a_finite_gradient() -> None:
    x, _ = pair(1, 1, 164, 164)
    y = (1 - x).requires_grad_()
    value = ms_ssim(x, y)
    assert value.item() == 0
    value.sum().backward()
    assert y.grad is not None
    assert torch.isfinite(y.grad).all()


@pytest.mark.parametrize(("height", "width"), [(160, 200), (200, 160), (8, 8)])
def test_too_small_for_five_scales(height: int, width: int) -> None:
    with pytest.raises(ShapeError, match=f"at least 161 pixels.*have {height}x{width}"):
        ms_ssim(torch.zeros(1, 3, height, width), torch.zeros(1, 3, height, width))


def test_too_small_for_the_window() -> None:
    with pytest.raises(ShapeError, match="at least 11"):
        ssim(torch.zeros(1, 3, 10, 12), torch.zeros(1, 3, 10, 12))


@pytest.mark.parametrize("metric", [mse, psnr, ssim, ms_ssim])
def test_not_two_equal_batches(metric: object) -> None:
    x = torch.zeros(1, 3, 200, 200)
    for y in (x[:, :2], x[0], x.to(torch.uint8)):
        with pytest.raises(ShapeError, match="equally shaped"):
            metric(x, y)  # type: ignore[operator]
