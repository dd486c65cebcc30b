"""Help for models: Gaussians and grids. The figures are CompressAI 1.2.8's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from latens.errors import ModelError
from latens.models.utils import gaussian_blur, gaussian_kernel1d, gaussian_kernel2d, meshgrid2d


def test_kernels() -> None:
    taps = gaussian_kernel1d(5, 1.0, "cpu", torch.float32)
    torch.testing.assert_close(
        taps, torch.tensor([0.0545, 0.2442, 0.4026, 0.2442, 0.0545]), atol=1e-4, rtol=0
    )
    kernel = gaussian_kernel2d(3, 1.0, "cpu", torch.float64)
    expected = torch.tensor([[0.0751, 0.1238, 0.0751], [0.1238, 0.2042, 0.1238], [0.0751, 0.1238, 0.0751]])
    torch.testing.assert_close(kernel, expected.double(), atol=1e-4, rtol=0)


def test_blur_is_that_of_another_library() -> None:
    x = torch.rand(2, 3, 9, 12, dtype=torch.float64)
    kernel = gaussian_kernel2d(5, 1.3, "cpu", torch.float64)
    expected = np.stack([[ndimage.convolve(p, kernel.numpy(), mode="nearest") for p in b] for b in x.numpy()])
    for found in (gaussian_blur(x, kernel), gaussian_blur(x, kernel_size=5, sigma=1.3)):
        torch.testing.assert_close(found, torch.from_numpy(expected))


@pytest.mark.parametrize("wrong", [{}, {"kernel_size": 3}, {"sigma": 1.0}, {"kernel_size": 4, "sigma": 1.0}])
def test_a_blur_of_nothing(wrong: dict[str, float]) -> None:
    with pytest.raises(ModelError, match="kernel"):
        gaussian_blur(torch.zeros(1, 1, 4, 4), **wrong)  # type: ignore[arg-type]


def test_a_grid_samples_the_picture_itself() -> None:
    x = torch.rand(2, 3, 5, 7)
    grid = meshgrid2d(2, 3, 5, 7, x.device)
    assert grid.shape == (2, 5, 7, 2)
    torch.testing.assert_close(torch.nn.functional.grid_sample(x, grid, align_corners=False), x)
