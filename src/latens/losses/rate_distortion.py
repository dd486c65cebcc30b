"""Rate plus weighted distortion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from latens.errors import ModelError
from latens.metrics import ms_ssim

__all__ = ["RateDistortionLoss"]


class RateDistortionLoss(nn.Module):
    r"""``bpp + lmbda * distortion``, the loss that compression models are trained with.

    The distortion is the mean squared error for pixel values of 0 to 255, or one minus MS-SSIM. The rate is
    in bits per pixel, from the likelihoods of all latents.

    Args:
        lmbda: weight of the distortion.
        metric: ``"mse"`` or ``"ms-ssim"`` (images of more than 160 pixels on each side).
        return_type: ``"all"`` for a dictionary of all terms, or the name of one of them.

    Raises:
        ModelError: an unknown metric.
    """

    def __init__(self, lmbda: float = 0.01, metric: str = "mse", return_type: str = "all") -> None:
        super().__init__()
        if metric not in ("mse", "ms-ssim"):
            raise ModelError(f'metric must be "mse" or "ms-ssim", not {metric!r}')
        self.lmbda = lmbda
        self.metric = metric
        self.return_type = return_type

    def forward(self, output: Mapping[str, Any], target: Tensor) -> dict[str, Tensor] | Tensor:
        """Loss of what a model returned for ``target``, images ``(batch, channels, height, width)``, 0 to 1.

        Returns:
            ``bpp_loss``, ``mse_loss`` (of values 0 to 1) or ``ms_ssim_loss`` (the similarity itself), and
            ``loss``, each a scalar; only one of them if ``return_type`` says so.

        Raises:
            ShapeError: images too small for MS-SSIM.
        """
        pixels = target.shape[0] * target.shape[2] * target.shape[3]
        nats = sum(-likelihood.log().sum() for likelihood in output["likelihoods"].values())
        out = {"bpp_loss": nats / (math.log(2) * pixels)}
        if self.metric == "mse":
            out["mse_loss"] = F.mse_loss(output["x_hat"], target)
            distortion = 255**2 * out["mse_loss"]
        else:
            out["ms_ssim_loss"] = ms_ssim(output["x_hat"], target).mean()
            distortion = 1 - out["ms_ssim_loss"]
        out["loss"] = self.lmbda * distortion + out["bpp_loss"]
        return out if self.return_type == "all" else out[self.return_type]
