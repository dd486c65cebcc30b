"""A learned dictionary as prior: contexts look up in it what images have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latens.entropy_models import EntropyBottleneck, GaussianConditional
from latens.errors import ModelError
from latens.layers.attention import DisplacementAttention
from latens.layers.residual import conv1x1, conv3x3
from latens.models.sensetime import ResidualBottleneckBlock
from latens.models.stepwise import ChannelSlices, context_network, count_in, equal_slices
from latens.models.utils import conv, deconv

__all__ = ["DCAE"]

_WINDOW, _HYPER_WINDOW, _HYPER_HEAD, _DICTIONARY_HEAD = 8, 4, 32, 32


class _Down(nn.Module):
    """Half the resolution, then three bottleneck blocks."""

    def __init__(self, in_ch: int, out_ch: int) -> None:
        super().__init__()
        self.conv = conv(in_ch, out_ch)
        self.res1, self.res2, self.res3 = (
            ResidualBottleneckBlock(out_ch, out_ch, inplace=True) for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.res3(self.res2(self.res1(self.conv(x))))
        return out


class _Up(nn.Module):
    """Three bottleneck blocks, then twice the resolution."""

    def __init__(self, in_ch: int, out_ch: int) -> None:
        super().__init__()
        self.res1, self.res2, self.res3 = (ResidualBottleneckBlock(in_ch, in_ch) for _ in range(3))
        self.conv = deconv(in_ch, out_ch)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(self.res3(self.res2(self.res1(x))))
        return out


class _Depthwise(nn.Module):
    """3x3 for each channel alone: ``(B, H, W, C)``, shape kept."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dwconv(x.permute(0, 3, 1, 2))
        return out.permute(0, 2, 3, 1)


class _GatedFeedForward(nn.Module):
    """A feed-forward network one half of which is gated by the other, convolved: ``(B, H, W, C)``, shape kept."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden // 2 * 2)
        self.dwconv = _Depthwise(hidden // 2)
        self.fc2 = nn.Linear(hidden // 2, dim)

    def forward(self, x: Tensor) -> Tensor:
        gate, values = self.fc1(x).chunk(2, dim=-1)
        out: Tensor = self.fc2(F.gelu(self.dwconv(gate)) * values)
        return out


class _Scale(nn.Module):
    """A factor for each channel, the last dimension."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class _Block(nn.Module):
    """Attention within windows and a gated feed-forward network, with scaled shortcuts: ``(B, H, W, C)``."""

    def __init__(self, dim: int, head_dim: int, window: int, moved: bool) -> None:
        super().__init__()
        self.shift = window // 2 if moved else 0
        self.ln1 = nn.LayerNorm(dim)
        self.msa = DisplacementAttention(dim, head_dim, window)
        self.ln2 = nn.LayerNorm(dim)
        self.mlp = _GatedFeedForward(dim, 4 * dim)
        self.res_scale_1, self.res_scale_2 = _Scale(dim), _Scale(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.res_scale_1(x) + self.msa(self.ln1(x), self.shift)
        out: Tensor = self.res_scale_2(x) + self.mlp(self.ln2(x))
        return out


class _Blocks(nn.Module):
    """Blocks, every second one with moved windows, a 3x3 convolution, and a shortcut: ``(B, C, H, W)``."""

    def __init__(self, dim: int, head_dim: int, window: int, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Block(dim, head_dim, window, i % 2 == 1) for i in range(count))
        self.conv = conv3x3(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        inside = x.permute(0, 2, 3, 1)
        for layer in self.layers:
            inside = layer(inside)
        out: Tensor = self.conv(inside.permute(0, 3, 1, 2)) + x
        return out


class _SpatialGate(nn.Module):
    """What share of a position passes, from mean and maximum of its channels around it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), dim=1)
        return torch.sigmoid(self.conv1(seen))


class _Separable(nn.Module):
    """1x1, depthwise 3x3, 1x1, with GELU between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.in_trans = conv1x1(dim, dim)
        self.dw_conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.out_trans = conv1x1(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out_trans(F.gelu(self.dw_conv(F.gelu(self.in_trans(x)))))
        return out


class _Dense(nn.Module):
    """Three convolutions one after the other, and a mixture of all their outputs."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(nn.Sequential(nn.GELU(), _Separable(dim)) for _ in range(3))
        self.proj = conv1x1(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for layer in self.conv_layers:
            found.append(layer(found[-1]))
        out: Tensor = self.proj(torch.cat(found, dim=1))
        return out


class _Scales(nn.Module):
    """Features of several reaches, gated by position: ``(B, H, W, C)``, shape kept."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.s = conv1x1(dim, dim)
        self.spatial_atte = _SpatialGate()
        self.dense = _Dense(dim)

    def forward(self, x: Tensor) -> Tensor:
        found = self.dense(self.s(x.permute(0, 3, 1, 2)))
        gated: Tensor = found * self.spatial_atte(found)
        return gated.permute(0, 2, 3, 1)


class _DictionaryAttention(nn.Module):
    """What a dictionary has to say about each position.

    Args:
        in_ch: channels of what is known of a position.
        out_ch: channels of the answer.
        heads: parts of an entry, of 32 channels each, that are asked for by themselves.
    """

    def __init__(self, in_ch: int, out_ch: int, heads: int) -> None:
        super().__init__()
        dim = _DICTIONARY_HEAD * heads
        self.heads = heads
        self.scale = nn.Parameter(torch.ones(heads, 1, 1))
        self.x_trans = nn.Linear(in_ch, dim)
        self.ln_scale = nn.LayerNorm(dim)
        self.msa = _Scales(dim)
        self.lnx = nn.LayerNorm(dim)
        self.q_trans = nn.Linear(dim, dim)
        self.dict_ln = nn.LayerNorm(dim)
        self.k = nn.Linear(dim, dim)
        self.linear = nn.Linear(dim, dim)
        self.ln_mlp = nn.LayerNorm(dim)
        self.mlp = _GatedFeedForward(dim, 4 * dim)
        self.output_trans = nn.Sequential(nn.Linear(dim, out_ch))
        self.res_scale_1, self.res_scale_2, self.res_scale_3 = (_Scale(dim) for _ in range(3))

    def forward(self, x: Tensor, dictionary: Tensor) -> Tensor:
        """``(B, in_ch, H, W)`` and ``(entries, dim)`` to ``(B, out_ch, H, W)``."""
        batch, _, height, width = x.shape
        x = self.x_trans(x.permute(0, 2, 3, 1))
        x = self.msa(self.ln_scale(x)) + self.res_scale_1(x)
        entries = self.dict_ln(dictionary)

        def by_head(rows: Tensor) -> Tensor:
            return rows.view(*rows.shape[:-1], self.heads, _DICTIONARY_HEAD).transpose(-3, -2)

        queries = by_head(self.q_trans(self.lnx(x)).flatten(1, 2)) * self.scale
        keys, values = (by_head(rows).expand(batch, -1, -1, -1) for rows in (self.k(entries), entries))
        found = F.scaled_dot_product_attention(queries, keys, values, scale=1.0)
        found = self.linear(found.transpose(1, 2).reshape(batch, height, width, -1))
        found = found + self.res_scale_2(x)
        found = self.mlp(self.ln_mlp(found)) + self.res_scale_3(found)
        out: Tensor = self.output_trans(found)
        return out.permute(0, 3, 1, 2)


class DCAE(ChannelSlices):
    """Attention within windows in the transforms; slices of channels that look up a learned dictionary.

    .. code-block:: none

        side scales, side means, slices before ──┬──────────────────────────────┬──► support ──► cc_mean, cc_scale, lrp
                                                 └──► attention ◄── dictionary ─┘

    The rest of the data flow: :class:`latens.models.stepwise.ChannelSlices`. ``x`` is ``(B, 3, H, W)`` with values from
    0 to 1, sides multiples of 64; ``y``, scales and means ``(B, M, H/16, W/16)``, ``z`` ``(B, Z, H/64, W/64)``. Where a
    side is no multiple of a window (128 pixels for all of them), attention sees zeros beyond the edge.

    Lu, Zhang, Zhou, Li, Li, Gu, "Learned image compression with dictionary-based entropy model", CVPR 2025.

    Args:
        N: channels of the hyper-transforms.
        M: channels of the latent.
        num_slices: slices of the latent; they must divide ``M``.
        max_support_slices: how many slices, the first ones, are context of later ones; -1 for all.
        dict_head_num: heads of the attention to the dictionary, of 32 channels each.
        dict_num: entries of the dictionary.
        feature_dim: channels of the transforms at a half, a quarter and an eighth of the resolution.
        block_num: blocks at each.
        head_dim: channels of a head of the attention at each, of the analysis and then of the synthesis.
        Z: channels of z.
        context: widths of the hidden layers of the context networks.

    Raises:
        ModelError: sizes that do not divide each other.
    """

    def __init__(
        self,
        N: int = 192,
        M: int = 320,
        num_slices: int = 5,
        max_support_slices: int = 5,
        dict_head_num: int = 20,
        dict_num: int = 128,
        feature_dim: Sequence[int] = (96, 144, 256),
        block_num: Sequence[int] = (1, 2, 12),
        head_dim: Sequence[int] = (8, 16, 32, 32, 16, 8),
        Z: int = 192,
        context: Sequence[int] = (224, 128),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if len(feature_dim) != 3 or len(block_num) != 3 or len(head_dim) != 6:
            raise ModelError(
                f"feature_dim and block_num must be three each and head_dim six, not {feature_dim}, {block_num} and "
                f"{head_dim}"
            )
        self.N, self.M, self.Z, self.num_slices, self.max_support_slices = (
            N,
            M,
            Z,
            num_slices,
            max_support_slices,
        )
        self.dict_head_num, self.dict_num, self.context = dict_head_num, dict_num, tuple(context)
        self.feature_dim, self.block_num, self.head_dim = (
            tuple(feature_dim),
            tuple(block_num),
            tuple(head_dim),
        )
        self._sizes = equal_slices(M, num_slices)
        a, b, c = feature_dim

        def blocks(place: int, resolution: int) -> nn.Module:
            return _Blocks(feature_dim[resolution], head_dim[place], _WINDOW, block_num[resolution])

        self.dt = nn.Parameter(torch.randn(dict_num, _DICTIONARY_HEAD * dict_head_num))
        self.g_a = nn.Sequential(
            _Down(3, a), blocks(0, 0), _Down(a, b), blocks(1, 1), _Down(b, c), blocks(2, 2), conv(c, M)
        )
        self.g_s = nn.Sequential(
            deconv(M, c), blocks(3, 2), _Up(c, b), blocks(4, 1), _Up(b, a), blocks(5, 0), _Up(a, 3)
        )

        def hyper_blocks() -> nn.Module:
            return _Blocks(N, _HYPER_HEAD, _HYPER_WINDOW, 1)

        self.h_a = nn.Sequential(_Down(M, N), hyper_blocks(), conv(N, Z, kernel_size=3))
        self.h_z_s1 = nn.Sequential(deconv(Z, N, kernel_size=3), hyper_blocks(), _Up(N, M))
        self.h_z_s2 = nn.Sequential(deconv(Z, N, kernel_size=3), hyper_blocks(), _Up(N, M))
        size = self._sizes[0]
        known = [2 * M + size * self._before(k) for k in range(num_slices)]
        self.dt_cross_attention = nn.ModuleList(_DictionaryAttention(n, M, dict_head_num) for n in known)
        self.cc_mean_transforms = nn.ModuleList(context_network((n + M, *context, size)) for n in known)
        self.cc_scale_transforms = nn.ModuleList(context_network((n + M, *context, size)) for n in known)
        self.lrp_transforms = nn.ModuleList(context_network((n + M + size, *context, size)) for n in known)
        self.entropy_bottleneck = EntropyBottleneck(Z)
        self.gaussian_conditional = GaussianConditional(None)

    def _side(self, z_hat: Tensor) -> tuple[Tensor, Tensor]:
        return self.h_z_s2(z_hat), self.h_z_s1(z_hat)

    def _supports(self, k: int, side: tuple[Tensor, Tensor], before: list[Tensor]) -> tuple[Tensor, Tensor]:
        means, scales = side
        known = torch.cat((scales, means, *before), dim=1)
        support = torch.cat((known, self.dt_cross_attention[k](known, self.dt)), dim=1)
        return support, support

    @classmethod
    def _arguments(cls, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        slices, M = count_in(state_dict, "lrp_transforms."), state_dict["g_a.6.weight"].shape[0]
        dims = tuple(state_dict[f"g_a.{i}.conv.weight"].shape[0] for i in (0, 2, 4))
        heads = [
            state_dict[f"{name}.{i}.layers.0.msa.relative_position_params"].shape[0]
            for name in ("g_a", "g_s")
            for i in (1, 3, 5)
        ]
        hidden = count_in(state_dict, "lrp_transforms.0.") - 1
        last = state_dict[f"cc_mean_transforms.{slices - 1}.0.weight"].shape[1]
        return {
            "N": state_dict["h_a.0.conv.weight"].shape[0],
            "M": M,
            "num_slices": slices,
            "max_support_slices": (last - 3 * M) // max(M // slices, 1),
            "dict_head_num": state_dict["dt_cross_attention.0.scale"].shape[0],
            "dict_num": state_dict["dt"].shape[0],
            "feature_dim": dims,
            "block_num": tuple(count_in(state_dict, f"g_a.{i}.layers.") for i in (1, 3, 5)),
            "head_dim": tuple(dim // n for dim, n in zip((*dims, *reversed(dims)), heads, strict=True)),
            "Z": state_dict["entropy_bottleneck.quantiles"].shape[0],
            "context": tuple(state_dict[f"lrp_transforms.0.{2 * i}.weight"].shape[0] for i in range(hidden)),
        }
