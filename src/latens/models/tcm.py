"""Convolutions and transformers side by side in every block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from latens.entropy_models import EntropyBottleneck, GaussianConditional
from latens.errors import ModelError
from latens.layers import (
    AttentionBlock,
    ResidualBlock,
    ResidualBlockUpsample,
    ResidualBlockWithStride,
    conv1x1,
    conv3x3,
    subpel_conv3x3,
)
from latens.layers.attention import DisplacementAttention, DropPath
from latens.models.stepwise import ChannelSlices, context_network, count_in, equal_slices, supports_in

__all__ = ["TCM"]

_WINDOW, _HYPER_WINDOW, _HYPER_HEAD, _CONTEXT_HEAD = 8, 4, 32, 16


class _Transformer(nn.Module):
    """Attention within windows and a feed-forward network: ``(B, H, W, C)``, shape kept."""

    def __init__(self, dim: int, head_dim: int, window: int, moved: bool, drop_path: float = 0.0) -> None:
        super().__init__()
        self.shift = window // 2 if moved else 0
        self.ln1 = nn.LayerNorm(dim)
        self.msa = DisplacementAttention(dim, head_dim, window)
        self.drop_path = DropPath(drop_path)
        self.ln2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.msa(self.ln1(x), self.shift))
        out: Tensor = x + self.drop_path(self.mlp(self.ln2(x)))
        return out


class _Mixture(nn.Module):
    """Half of the channels through convolutions, half through a transformer, then mixed; with a shortcut."""

    def __init__(self, dim: int, head_dim: int, window: int, moved: bool, drop_path: float = 0.0) -> None:
        super().__init__()
        self.trans_block = _Transformer(dim, head_dim, window, moved, drop_path)
        self.conv1_1 = conv1x1(2 * dim, 2 * dim)
        self.conv1_2 = conv1x1(2 * dim, 2 * dim)
        self.conv_block = ResidualBlock(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 2 dim, H, W)``, shape kept."""
        convolved, attended = self.conv1_1(x).chunk(2, 1)
        convolved = self.conv_block(convolved) + convolved
        attended = self.trans_block(attended.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        out: Tensor = x + self.conv1_2(torch.cat((convolved, attended), 1))
        return out


class _TwoTransformers(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.block_1 = _Transformer(dim, _CONTEXT_HEAD, _WINDOW, moved=False)
        self.block_2 = _Transformer(dim, _CONTEXT_HEAD, _WINDOW, moved=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block_2(self.block_1(x.permute(0, 2, 3, 1)))
        return out.permute(0, 3, 1, 2)


class _GatedTransformers(AttentionBlock):
    """``x + a(x) * sigmoid(b(transformers(x)))`` at another width."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__(width)
        self.non_local_block = _TwoTransformers(width)
        self.in_conv = conv1x1(dim, width)
        self.out_conv = conv1x1(width, dim)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, H, W)``, shape kept."""
        x = self.in_conv(x)
        gate = torch.sigmoid(self.conv_b(self.non_local_block(x)))
        out: Tensor = self.out_conv(self.conv_a(x) * gate + x)
        return out


class TCM(ChannelSlices):
    """Convolutions and transformers side by side; slices of channels whose contexts attend, too.

    Data flow: :class:`latens.models.stepwise.ChannelSlices`, with attention in front of ``cc_mean`` and ``cc_scale``.
    ``x`` is ``(B, 3, H, W)`` with values from 0 to 1, sides multiples of 64; ``y``, scales and means
    ``(B, M, H/16, W/16)``, ``z`` ``(B, Z, H/64, W/64)``. Where a side is no multiple of a window (128 pixels for all of
    them), attention sees zeros beyond the edge.

    Liu, Sun, Katto, "Learned image compression with mixed transformer-CNN architectures", CVPR 2023.

    Args:
        N: half the channels of the transforms.
        M: channels of the latent.
        num_slices: slices of the latent; they must divide ``M``.
        max_support_slices: how many slices, the first ones, are context of later ones; -1 for all.
        config: blocks at each resolution, of the analysis and then of the synthesis.
        head_dim: channels of a head of the attention at each.
        drop_path_rate: how often branches of the last block are left out while training; those of the first never.
        Z: channels of z.
        context: widths of the hidden layers of the context networks.
        attention: channels of the attention in front of them.

    Raises:
        ModelError: sizes that do not divide each other.
    """

    def __init__(
        self,
        N: int = 128,
        M: int = 320,
        num_slices: int = 5,
        max_support_slices: int = 5,
        config: Sequence[int] = (2, 2, 2, 2, 2, 2),
        head_dim: Sequence[int] = (8, 16, 32, 32, 16, 8),
        drop_path_rate: float = 0.0,
        Z: int = 192,
        context: Sequence[int] = (224, 128),
        attention: int = 128,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if len(config) != 6 or len(head_dim) != 6:
            raise ModelError(f"config and head_dim must be six numbers each, not {config} and {head_dim}")
        self.config, self.head_dim = tuple(config), tuple(head_dim)
        self.N, self.M, self.Z = N, M, Z
        self.num_slices, self.max_support_slices = num_slices, max_support_slices
        self.context, self.attention = tuple(context), attention
        self._sizes = equal_slices(M, num_slices)
        rates = [drop_path_rate * i / max(sum(config) - 1, 1) for i in range(sum(config))]

        def mixtures(i: int) -> list[nn.Module]:
            own = rates[sum(config[:i]) : sum(config[: i + 1])]
            return [_Mixture(N, head_dim[i], _WINDOW, n % 2 == 1, rate) for n, rate in enumerate(own)]

        def hyper_mixtures(blocks: int) -> list[nn.Module]:
            return [_Mixture(N, _HYPER_HEAD, _HYPER_WINDOW, n % 2 == 1) for n in range(blocks)]

        width = 2 * N
        self.g_a = nn.Sequential(
            ResidualBlockWithStride(3, width),
            *mixtures(0),
            ResidualBlockWithStride(width, width),
            *mixtures(1),
            ResidualBlockWithStride(width, width),
            *mixtures(2),
            conv3x3(width, M, stride=2),
        )
        self.g_s = nn.Sequential(
            ResidualBlockUpsample(M, width),
            *mixtures(3),
            ResidualBlockUpsample(width, width),
            *mixtures(4),
            ResidualBlockUpsample(width, width),
            *mixtures(5),
            subpel_conv3x3(width, 3, 2),
        )
        self.h_a = nn.Sequential(
            ResidualBlockWithStride(M, width), *hyper_mixtures(config[0]), conv3x3(width, Z, stride=2)
        )

        def hyper_synthesis() -> nn.Sequential:
            blocks = hyper_mixtures(config[3])
            return nn.Sequential(ResidualBlockUpsample(Z, width), *blocks, subpel_conv3x3(width, M, 2))

        self.h_mean_s, self.h_scale_s = hyper_synthesis(), hyper_synthesis()
        size = self._sizes[0]
        inputs = [M + size * self._before(k) for k in range(num_slices)]

        def each(make: Callable[[int], nn.Module]) -> nn.ModuleList:
            return nn.ModuleList(make(channels) for channels in inputs)

        self.atten_mean = each(lambda n: nn.Sequential(_GatedTransformers(n, attention)))
        self.atten_scale = each(lambda n: nn.Sequential(_GatedTransformers(n, attention)))
        self.cc_mean_transforms = each(lambda n: context_network((n, *context, size)))
        self.cc_scale_transforms = each(lambda n: context_network((n, *context, size)))
        self.lrp_transforms = each(lambda n: context_network((n + size, *context, size)))
        self.entropy_bottleneck = EntropyBottleneck(Z)
        self.gaussian_conditional = GaussianConditional(None)

    def _supports(self, k: int, side: tuple[Tensor, Tensor], before: list[Tensor]) -> tuple[Tensor, Tensor]:
        for_means, for_scales = super()._supports(k, side, before)
        return self.atten_mean[k](for_means), self.atten_scale[k](for_scales)

    @classmethod
    def _arguments(cls, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        N = state_dict["g_a.0.conv1.weight"].shape[0] // 2
        M, slices = state_dict["h_a.0.conv1.weight"].shape[1], count_in(state_dict, "cc_mean_transforms.")
        heads = [*_heads(state_dict, "g_a"), *_heads(state_dict, "g_s")]
        return {
            "config": tuple(len(stage) for stage in heads),
            "head_dim": tuple(N // stage[0] if stage else _HYPER_HEAD for stage in heads),
            "N": N,
            "M": M,
            "num_slices": slices,
            "max_support_slices": supports_in(
                state_dict, "cc_mean_transforms.{}.0.weight", slices, M, M // slices
            ),
            "Z": state_dict["entropy_bottleneck.quantiles"].shape[0],
            "context": tuple(
                state_dict[f"cc_mean_transforms.0.{2 * i}.weight"].shape[0]
                for i in range(count_in(state_dict, "cc_mean_transforms.0.") - 1)
            ),
            "attention": state_dict["atten_mean.0.0.in_conv.weight"].shape[0],
        }


def _heads(state_dict: Mapping[str, Any], name: str) -> list[list[int]]:
    """Heads of the attention of each block, at each of the three resolutions of a transform in a checkpoint."""
    stages: list[list[int]] = [[]]
    # The first layer changes the resolution, and so do the last one and what stands between the stages.
    for i in range(1, count_in(state_dict, f"{name}.") - 1):
        table = state_dict.get(f"{name}.{i}.trans_block.msa.relative_position_params")
        if table is None:
            stages.append([])
        else:
            stages[-1].append(table.shape[0])
    if len(stages) != 3:
        raise KeyError(f"{name} at three resolutions")
    return stages
