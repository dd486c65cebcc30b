"""Residual blocks, small kernels and attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from latens.layers import (
    AttentionBlock,
    ResidualBlock,
    ResidualBlockUpsample,
    ResidualBlockWithStride,
    conv3x3,
    subpel_conv3x3,
)
from latens.models.google import JointAutoregressiveHierarchicalPriors

__all__ = ["Cheng2020Anchor", "Cheng2020Attention"]


def residual_analysis(N: int) -> nn.Sequential:
    """Residual blocks from pixels to latents at 1/16."""
    return nn.Sequential(
        ResidualBlockWithStride(3, N, stride=2),
        ResidualBlock(N, N),
        ResidualBlockWithStride(N, N, stride=2),
        ResidualBlock(N, N),
        ResidualBlockWithStride(N, N, stride=2),
        ResidualBlock(N, N),
        conv3x3(N, N, stride=2),
    )


def residual_synthesis(N: int) -> nn.Sequential:
    """Residual blocks from latents to pixels."""
    return nn.Sequential(
        ResidualBlock(N, N),
        ResidualBlockUpsample(N, N, 2),
        ResidualBlock(N, N),
        ResidualBlockUpsample(N, N, 2),
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
        a, s = list(self.g_a), list(self.g_s)
        self.g_a = nn.Sequential(*a[:3], AttentionBlock(N), *a[3:], AttentionBlock(N))
        self.g_s = nn.Sequential(AttentionBlock(N), *s[:4], AttentionBlock(N), *s[4:])
