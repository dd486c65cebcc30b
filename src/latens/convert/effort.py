"""Rate-distortion optimisation of one image's latents, at the encoder's expense alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latens.entropy_models.gaussian import SCALES_LEVELS
from latens.losses import EYE, Mixture
from latens.models.latens_base import LatensBase, first_step_mask, gaussian_likelihood, log_scale_of
from latens.runtime.factors import QUALITY_MAX
from latens.runtime.picture import LATENT_BITS

__all__ = ["refine"]

_RATE = 0.12  # of Adam, over the root of the number of steps: more steps, smaller ones
_TEMPERATURE = 0.5
_COLDEST = 0.02
_EDGE = 1e-4
_LEAST_FOR_THE_EYE = 256


def refine(
    network: LatensBase,
    samples: npt.NDArray[Any],
    latent: npt.NDArray[np.int32],
    level: int,
    skip: int,
    steps: int,
    tune: str = "psnr",
) -> npt.NDArray[np.int32]:
    """A latent of a tile that costs less, by stochastic Gumbel annealing.

    Gradient steps on y through the frozen g_s and context, in which each value is drawn towards its neighbours
    above and below with a temperature that falls; z stays. Yang, Bamler and Mandt, "Improving Inference for
    Neural Image Compression", NeurIPS 2020, arXiv:2006.04240. What comes out is never worse than what went in, by
    the model's own estimate.

    Args:
        network: the default model, float.
        samples: ``(h, w, 1 or 3)`` uint8 or uint16, without what pads them to the grid.
        latent: y, ``(H, W, M)`` in units of 2^-8.
        level: quality of the header.
        skip: table indexes below are not coded.
        steps: how many gradient steps; none returns ``latent``.
        tune: ``"eye"`` aims at the mixture that such models are trained for, if the tile is large enough for its
            measures (256 pixels); otherwise it is squared error.

    Returns:
        Like ``latent``.
    """
    if not steps:
        return latent
    unit = float(1 << LATENT_BITS)
    pixels = torch.from_numpy(np.ascontiguousarray(samples, np.float32)) / float(np.iinfo(samples.dtype).max)
    y = torch.from_numpy(latent / np.float32(unit)).permute(2, 0, 1)[None].float()
    quality = torch.tensor([level / QUALITY_MAX], dtype=torch.float32)
    large = min(samples.shape[:2]) >= _LEAST_FOR_THE_EYE
    distortion = Mixture(EYE if tune == "eye" and large else {"mse": 1.0})
    with torch.inference_mode(False), torch.enable_grad(), torch.device("cpu"):
        search = _Search(network, pixels.permute(2, 0, 1)[None], y, quality, skip, distortion)
        refined = search.run(steps)
    found = np.rint(refined[0].permute(1, 2, 0).numpy() * unit)
    return np.ascontiguousarray(found.astype(np.int32))


class _Search:
    def __init__(
        self,
        network: LatensBase,
        pixels: Tensor,
        y: Tensor,
        quality: Tensor,
        skip: int,
        distortion: Mixture,
    ) -> None:
        self.network, self.quality, self.y = network, quality, y
        self.grey = pixels.shape[1] == 1
        self.pixels, self.distortion = pixels.expand(-1, 3, -1, -1), distortion
        # The same files each time.
        self.random = torch.Generator("cpu").manual_seed(0)
        with torch.no_grad():
            z = torch.round(network.hyper_analyse(self.y, quality))
            index = network.h_scale(z).clamp(0.0, SCALES_LEVELS - 1.0)
            self.log_scale = log_scale_of(index)
            self.coded: Tensor = index.round() >= skip
            self.first = first_step_mask(self.y)
            self.features = network.means(z)
            self.first_mean = network.first_mean(self.features, quality)
            self.lmbda = network.lmbda(quality)

    def run(self, steps: int) -> Tensor:
        y = self.y.clone().requires_grad_(True)
        rate = _RATE / math.sqrt(steps)
        adam = torch.optim.Adam([y], lr=rate)
        for step in range(steps):
            adam.param_groups[0]["lr"] = rate * (1.0 - step / steps)
            temperature = max(_TEMPERATURE * math.exp(-3.0 * step / steps), _COLDEST)
            (y.grad,) = torch.autograd.grad(self._cost(y, temperature), [y])
            adam.step()
        with torch.no_grad():
            refined = y.detach()
            best: Tensor = min((self.y, refined), key=lambda candidate: float(self._cost(candidate, 0.0)))
            return best

    def _cost(self, y: Tensor, temperature: float) -> Tensor:
        """Bits of y and weighted distortion, as files have them at temperature 0."""
        network, quality = self.network, self.quality
        y_first = (self._quantise(y - self.first_mean, temperature) + self.first_mean) * self.first
        mean = network.second_mean(self.features, y_first, quality)
        mean = torch.where(self.first, self.first_mean, mean)
        residual = self._quantise(y - mean, temperature)
        x_hat = network.synthesise(residual + mean, quality)
        bits: Tensor = -torch.log2(gaussian_likelihood(residual, self.log_scale)).sum()
        height, width = self.pixels.shape[2:]
        shown = x_hat[:, :, :height, :width]
        if self.grey:
            shown = shown.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        distortion = self.distortion(shown.float(), self.pixels, self.lmbda)
        total: Tensor = bits + (self.lmbda * distortion).sum() * (height * width)
        return total

    def _quantise(self, residual: Tensor, temperature: float) -> Tensor:
        if not temperature:
            return torch.round(residual) * self.coded
        low = residual.detach().floor()
        above = (residual - low).clamp(_EDGE, 1.0 - _EDGE)
        pull = (torch.atanh(above) - torch.atanh(1.0 - above)) / temperature
        chance = torch.rand(residual.shape, generator=self.random).clamp_(1e-6, 1.0 - 1e-6)
        # The difference of two Gumbel variables is logistic.
        return (low + torch.sigmoid(pull + torch.logit(chance))) * self.coded
