"""Residual blocks, small kernels and attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from latens.entropy_models import GaussianMixtureConditional
from latens.entropy_models.coders import SymbolDecoder, SymbolEncoder
from latens.errors import CoderError, ModelError
from latens.latent_codecs.rasterscan import PositionCodec, RasterScan
from latens.layers import (
    AttentionBlock,
    ResidualBlock,
    ResidualBlockUpsample,
    ResidualBlockWithStride,
    conv3x3,
    subpel_conv3x3,
)
from latens.models.google import JointAutoregressiveHierarchicalPriors
from latens.registry import register_model  # noqa: F401  (derived models import it from here)

__all__ = ["Cheng2020Anchor", "Cheng2020Attention", "Cheng2020GMM"]


def _attention(N: int, wanted: bool) -> list[nn.Module]:
    return [AttentionBlock(N)] if wanted else []


def residual_analysis(N: int, attention: bool = False) -> nn.Sequential:
    """Residual blocks from pixels to latents at 1/16, with attention at 1/4 and 1/16 if wanted."""
    return nn.Sequential(
        ResidualBlockWithStride(3, N, stride=2),
        ResidualBlock(N, N),
        ResidualBlockWithStride(N, N, stride=2),
        *_attention(N, attention),
        ResidualBlock(N, N),
        ResidualBlockWithStride(N, N, stride=2),
        ResidualBlock(N, N),
        conv3x3(N, N, stride=2),
        *_attention(N, attention),
    )


def residual_synthesis(N: int, attention: bool = False) -> nn.Sequential:
    """Residual blocks from latents to pixels, with attention at 1/16 and 1/4 if wanted."""
    return nn.Sequential(
        *_attention(N, attention),
        ResidualBlock(N, N),
        ResidualBlockUpsample(N, N, 2),
        ResidualBlock(N, N),
        ResidualBlockUpsample(N, N, 2),
        *_attention(N, attention),
        ResidualBlock(N, N),
        ResidualBlockUpsample(N, N, 2),
        ResidualBlock(N, N),
        subpel_conv3x3(N, 3, 2),
    )


def hyper_analysis(N: int) -> nn.Sequential:
    """3x3 convolutions from latents to hyper-latents at a quarter of the resolution."""
    return nn.Sequential(
        conv3x3(N, N),
        nn.LeakyReLU(inplace=True),
        conv3x3(N, N),
        nn.LeakyReLU(inplace=True),
        conv3x3(N, N, stride=2),
        nn.LeakyReLU(inplace=True),
        conv3x3(N, N),
        nn.LeakyReLU(inplace=True),
        conv3x3(N, N, stride=2),
    )


def hyper_synthesis(N: int) -> nn.Sequential:
    """3x3 and sub-pixel convolutions from hyper-latents to parameters of the latents."""
    return nn.Sequential(
        conv3x3(N, N),
        nn.LeakyReLU(inplace=True),
        subpel_conv3x3(N, N, 2),
        nn.LeakyReLU(inplace=True),
        conv3x3(N, N * 3 // 2),
        nn.LeakyReLU(inplace=True),
        subpel_conv3x3(N * 3 // 2, N * 3 // 2, 2),
        nn.LeakyReLU(inplace=True),
        conv3x3(N * 3 // 2, N * 2),
    )


class Cheng2020Anchor(JointAutoregressiveHierarchicalPriors):
    """The joint autoregressive prior with residual transforms of small kernels.

    Data flow, shapes and units are those of :class:`JointAutoregressiveHierarchicalPriors` with ``M = N``.
    Gaussians are single, where the paper mixes three.

    Cheng, Sun, Takeuchi, Katto, "Learned image compression with discretized Gaussian mixture likelihoods and
    attention modules", CVPR 2020, without its attention.

    Args:
        N: channels of transforms and latent.
        **kwargs: see :class:`JointAutoregressiveHierarchicalPriors`.
    """

    def __init__(self, N: int = 192, **kwargs: Any) -> None:
        super().__init__(N, N, **kwargs)
        self.g_a = residual_analysis(N)
        self.h_a = hyper_analysis(N)
        self.h_s = hyper_synthesis(N)
        self.g_s = residual_synthesis(N)

    @staticmethod
    def _arguments(state_dict: Mapping[str, Any]) -> dict[str, int]:
        return {"N": state_dict["g_a.0.conv1.weight"].shape[0]}


class Cheng2020Attention(Cheng2020Anchor):
    """:class:`Cheng2020Anchor` with attention at 1/4 and 1/16 of the resolution, in both transforms.

    Shapes and units are the same. Cheng, Sun, Takeuchi, Katto, "Learned image compression with discretized
    Gaussian mixture likelihoods and attention modules", CVPR 2020.

    Args:
        N: channels of transforms and latent.
        **kwargs: see :class:`JointAutoregressiveHierarchicalPriors`.
    """

    def __init__(self, N: int = 192, **kwargs: Any) -> None:
        super().__init__(N, **kwargs)
        self.g_a = residual_analysis(N, attention=True)
        self.g_s = residual_synthesis(N, attention=True)


class _MixturePositions(PositionCodec):
    """Integers as mixtures of Gaussians, with tables made on the spot.

    The string starts with a byte: the largest magnitude that the tables reach.
    """

    MAX_REACH = 255

    def __init__(self, mixture: GaussianMixtureConditional) -> None:
        super().__init__(mixture)
        self.mixture = mixture

    def begin(self, latent: Tensor) -> tuple[bytes, int]:
        largest = self.mixture.quantize(latent, "symbols").abs().max()
        reach = int(largest.clamp(1, self.MAX_REACH))
        return bytes([reach]), reach

    def resume(self, string: bytes) -> tuple[bytes, int]:
        if not string or string[0] == 0:
            raise CoderError("the string is damaged: it must start with the reach of its tables, 1 to 255")
        return string[1:], string[0]

    def _tables(self, params: Tensor, reach: int) -> Any:
        scales, means, weights = params.view(3, self.mixture.K, -1)
        return self.mixture.tables(scales, means, torch.softmax(weights, dim=0), reach)

    def encode(self, y: Tensor, params: Tensor, encoder: SymbolEncoder, state: int) -> Tensor:
        symbols = self.mixture.quantize(y, "symbols")
        rows = torch.arange(len(symbols), dtype=torch.int32)
        encoder.push(symbols.cpu().numpy(), rows.numpy(), self._tables(params, state))
        return symbols.to(y.dtype)

    def decode(self, params: Tensor, decoder: SymbolDecoder, state: int) -> Tensor:
        rows = torch.arange(params.numel() // (3 * self.mixture.K), dtype=torch.int32)
        symbols = decoder.decode(rows.numpy(), self._tables(params, state))
        return torch.from_numpy(symbols).to(params)


class Cheng2020GMM(Cheng2020Attention):
    """The whole model of the paper: attention, and a mixture of Gaussians for every latent.

    .. code-block:: none

        x ──► g_a ──► y ──► Q ──┬──► CP (masked 5x5) ──► context ──┐
                      │         │                                  ▼
                      │         │          params ──────────────► EP ──► K scales, means and weights
                      │         │            ▲                               ▼
                      └──► h_a ─│─► Q ──► h_s         ┌──── GaussianMixtureConditional ──► bits
                                └────────────────────►┘
        x_hat ◄── g_s ◄── y_hat

    ``x`` is ``(B, 3, H, W)`` with values from 0 to 1, ``y`` ``(B, N, H/16, W/16)``, ``z`` ``(B, N, H/64, W/64)``;
    scales, means and weights are ``(B, K * N, H/16, W/16)``, the first two in quantisation steps; EP returns
    scales, means and the logarithms of weights, in this order. Latents are rounded to integers. Positions are coded
    one after the other, each with integer tables made from its mixture on the spot; strings need the machine and
    release that wrote them.

    Cheng, Sun, Takeuchi, Katto, "Learned image compression with discretized Gaussian mixture likelihoods and
    attention modules", CVPR 2020.

    Args:
        N: channels of transforms and latent.
        K: Gaussians per latent.
        **kwargs: see :class:`JointAutoregressiveHierarchicalPriors`.
    """

    gaussian_conditional: GaussianMixtureConditional

    def __init__(self, N: int = 192, K: int = 3, **kwargs: Any) -> None:
        super().__init__(N, **kwargs)
        self.K = int(K)
        self.gaussian_conditional = GaussianMixtureConditional(K)
        last = self.entropy_parameters[-1]
        if not isinstance(last, nn.Conv2d):
            raise ModelError("the last layer of the entropy parameters must be a convolution")
        self.entropy_parameters[-1] = nn.Conv2d(last.in_channels, 3 * self.K * N, 1)

    @staticmethod
    def _arguments(state_dict: Mapping[str, Any]) -> dict[str, int]:
        N = state_dict["g_a.0.conv1.weight"].shape[0]
        return {"N": N, "K": state_dict["entropy_parameters.4.weight"].shape[0] // (3 * N)}

    def _scan(self) -> RasterScan:
        return RasterScan(
            self.gaussian_conditional,
            self.entropy_parameters,
            self.context_prediction,
            self.arithmetic,
            _MixturePositions(self.gaussian_conditional),
        )

    def forward(self, x: Tensor) -> dict[str, Any]:
        """See :meth:`ScaleHyperprior.forward`."""
        self._check_image(x, self.g_a, 16, 4)
        y = self._transform(self.g_a, x)
        z_hat, z_likelihoods = self.entropy_bottleneck(self.h_a(y))
        y_hat = self.gaussian_conditional.quantize(y, "noise" if self.training else "dequantize")
        context = self.context_prediction(y_hat)
        scales, means, weights = self.entropy_parameters(torch.cat((self.h_s(z_hat), context), 1)).chunk(3, 1)
        weights = torch.softmax(weights.unflatten(1, (self.K, -1)), dim=1).flatten(1, 2)
        _, y_likelihoods = self.gaussian_conditional(y, scales, means, weights)
        return {
            "x_hat": self._transform(self.g_s, y_hat),
            "likelihoods": {"y": y_likelihoods, "z": z_likelihoods},
        }
