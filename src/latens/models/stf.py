"""Attention within windows in the transforms: as a part of convolutional networks, and as transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latens.entropy_models import EntropyBottleneck, GaussianConditional
from latens.errors import ModelError
from latens.layers import GDN, conv1x1, conv3x3, subpel_conv3x3
from latens.layers.attention import SwinBlock, WindowAttention
from latens.models.stepwise import ChannelSlices, context_network, count_in, equal_slices, supports_in
from latens.models.utils import conv, deconv

__all__ = ["WACNN", "SymmetricalTransFormer"]

_CONTEXT = (224, 176, 128, 64)


class _ResidualUnit(nn.Module):
    """1x1, 3x3, 1x1 at half the width, a shortcut, and a GELU behind the sum."""

    def __init__(self, N: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            conv1x1(N, N // 2), nn.GELU(), conv3x3(N // 2, N // 2), nn.GELU(), conv1x1(N // 2, N)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return F.gelu(out + x)


class _MovedWindows(nn.Module):
    """Attention within moved windows, with a shortcut: ``(B, C, H, W)``, shape kept."""

    def __init__(self, dim: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.attn = WindowAttention(dim, window, heads)

    def forward(self, x: Tensor) -> Tensor:
        attended: Tensor = self.attn(x.permute(0, 2, 3, 1), self.shift)
        return x + attended.permute(0, 3, 1, 2)


class _GatedWindows(nn.Module):
    """A branch gated by another that attends within windows: ``x + a(x) * sigmoid(b(x))``."""

    def __init__(self, N: int, window: int, shift: int, heads: int = 8) -> None:
        super().__init__()
        self.conv_a = nn.Sequential(*(_ResidualUnit(N) for _ in range(3)))
        self.conv_b = nn.Sequential(
            _MovedWindows(N, heads, window, shift), *(_ResidualUnit(N) for _ in range(3)), conv1x1(N, N)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv_a(x) * torch.sigmoid(self.conv_b(x)) + x
        return out


class _WindowSlices(ChannelSlices):
    """The entropy model that both share: side networks with GELU, slices with convolutional contexts."""

    M: int

    def _make_entropy_model(
        self,
        analysis: Sequence[int],
        synthesis: Sequence[int],
        context: Sequence[int],
        num_slices: int,
        max_support_slices: int,
    ) -> None:
        M = self.M
        self.num_slices, self.max_support_slices = num_slices, max_support_slices
        self.context = tuple(context)
        self._sizes = equal_slices(M, num_slices)
        size = self._sizes[0]
        strides = (1, 1, 2, 1, 2)
        layers: list[nn.Module] = []
        for (before, after), stride in zip(pairwise(analysis), strides, strict=True):
            layers += [conv3x3(before, after, stride), nn.GELU()]
        self.h_a = nn.Sequential(*layers[:-1])
        self.h_mean_s, self.h_scale_s = _hyper_synthesis(synthesis), _hyper_synthesis(synthesis)
        supports = [self._before(k) for k in range(num_slices)]
        self.cc_mean_transforms = nn.ModuleList(
            context_network((M + size * n, *context, size)) for n in supports
        )
        self.cc_scale_transforms = nn.ModuleList(
            context_network((M + size * n, *context, size)) for n in supports
        )
        self.lrp_transforms = nn.ModuleList(
            context_network((M + size * (n + 1), *context, size)) for n in supports
        )
        self.entropy_bottleneck = EntropyBottleneck(analysis[-1])
        self.gaussian_conditional = GaussianConditional(None)

    @staticmethod
    def _slices_of(state_dict: Mapping[str, Any]) -> dict[str, Any]:
        slices = count_in(state_dict, "cc_mean_transforms.")
        M = state_dict["h_a.0.weight"].shape[1]
        first = "cc_mean_transforms.{}.0.weight"
        return {
            "num_slices": slices,
            "max_support_slices": supports_in(state_dict, first, slices, M, M // slices),
            "context": tuple(
                state_dict[f"cc_mean_transforms.0.{2 * i}.weight"].shape[0]
                for i in range(count_in(state_dict, "cc_mean_transforms.0.") - 1)
            ),
        }


def _hyper_synthesis(channels: Sequence[int]) -> nn.Sequential:
    a, b, c, d, e, f = channels
    return nn.Sequential(
        conv3x3(a, b),
        nn.GELU(),
        subpel_conv3x3(b, c, 2),
        nn.GELU(),
        conv3x3(c, d),
        nn.GELU(),
        subpel_conv3x3(d, e, 2),
        nn.GELU(),
        conv3x3(e, f),
    )


class WACNN(_WindowSlices):
    """Convolutions with GDN, gated by attention within windows; slices of channels.

    Data flow: :class:`latens.models.stepwise.ChannelSlices`. ``x`` is ``(B, 3, H, W)`` with values from 0 to 1, sides
    multiples of 64; ``y``, scales and means ``(B, M, H/16, W/16)``, ``z`` ``(B, N, H/64, W/64)``.

    Zou, Song, Zhang, "The devil is in the details: Window-based attention for image compression", CVPR 2022.

    Args:
        N: channels of the transforms and of z.
        M: channels of the latent.
        num_slices: slices of the latent; they must divide ``M``.
        max_support_slices: how many slices, the first ones, are context of later ones; -1 for all.
        context: widths of the hidden layers of the context networks.

    Raises:
        ModelError: sizes that do not divide each other.
    """

    def __init__(
        self,
        N: int = 192,
        M: int = 320,
        num_slices: int = 10,
        max_support_slices: int = 5,
        context: Sequence[int] = _CONTEXT,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.N, self.M = N, M
        self.g_a = nn.Sequential(
            conv(3, N),
            GDN(N, inplace=True),
            conv(N, N),
            GDN(N, inplace=True),
            _GatedWindows(N, window=8, shift=4),
            conv(N, N),
            GDN(N, inplace=True),
            conv(N, M),
            _GatedWindows(M, window=4, shift=2),
        )
        self.g_s = nn.Sequential(
            _GatedWindows(M, window=4, shift=2),
            deconv(M, N),
            GDN(N, inverse=True, inplace=True),
            deconv(N, N),
            GDN(N, inverse=True, inplace=True),
            _GatedWindows(N, window=8, shift=4),
            deconv(N, N),
            GDN(N, inverse=True, inplace=True),
            deconv(N, 3),
        )
        self._make_entropy_model(
            (M, M, 288, 256, 224, N), (N, N, 224, 256, 288, M), context, num_slices, max_support_slices
        )

    @classmethod
    def _arguments(cls, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "N": state_dict["g_a.0.weight"].shape[0],
            "M": state_dict["g_a.7.weight"].shape[0],
            **cls._slices_of(state_dict),
        }


class _Merge(nn.Module):
    """Half the resolution, twice the channels: ``(B, H, W, C)`` to ``(B, ceil(H/2), ceil(W/2), 2 C)``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        parts = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        out: Tensor = self.reduction(self.norm(torch.cat(parts, -1)))
        return out


class _Split(nn.Module):
    """Twice the resolution, half the channels: ``(B, H, W, C)`` to ``(B, 2 H, 2 W, C/2)``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.reduction(self.norm(x)).permute(0, 3, 1, 2)
        return F.pixel_shuffle(wide, 2).permute(0, 2, 3, 1)


class _Stage(nn.Module):
    """Swin blocks, every second one with moved windows, and a change of resolution."""

    def __init__(
        self,
        dim: int,
        heads: int,
        window: int,
        ratio: float,
        drop_path: Sequence[float],
        last: nn.Module | None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(dim, heads, window, window // 2 if i % 2 else 0, ratio, rate)
            for i, rate in enumerate(drop_path)
        )
        self.downsample = last

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class _PatchEmbed(nn.Module):
    """Patches as positions: ``(B, 3, H, W)`` to ``(B, H/patch, W/patch, C)``, sides rounded up."""

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(3, dim, kernel_size=patch, stride=patch)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, -x.shape[3] % self.patch, 0, -x.shape[2] % self.patch))
        out: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return out


class SymmetricalTransFormer(_WindowSlices):
    """Swin transformers as transforms; slices of channels.

    .. code-block:: none

        x ──► patch_embed ──► layers (H/2, H/4, H/8, H/16) ──► y ──► slices ──► y_hat
        x_hat ◄── end_conv ◄── syn_layers (H/16, H/8, H/4, H/2) ◄──────────────────┘

    The rest of the data flow: :class:`latens.models.stepwise.ChannelSlices`. ``x`` is ``(B, 3, H, W)`` with values from
    0 to 1, sides multiples of 64; ``y``, scales and means ``(B, 8 embed_dim, H/16, W/16)``, ``z``
    ``(B, 4 embed_dim, H/64, W/64)``.

    Zou, Song, Zhang, "The devil is in the details: Window-based attention for image compression", CVPR 2022.

    Args:
        embed_dim: channels at half the resolution of the image; they double with each halving.
        num_slices: slices of the latent; half of them, the first ones, are context of later ones.
        depths: blocks at each of the four resolutions.
        num_heads: heads of the attention at each.
        window_size: side of a window.
        mlp_ratio: width of the feed-forward networks, as a multiple of their channels.
        drop_path_rate: how often the last block of the analysis is left out while training; the first never is.
        context: widths of the hidden layers of the context networks.

    Raises:
        ModelError: sizes out of range or that do not divide each other, or not four resolutions.
    """

    def __init__(
        self,
        embed_dim: int = 48,
        num_slices: int = 12,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 4,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.2,
        context: Sequence[int] = _CONTEXT,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if len(depths) != 4 or len(num_heads) != 4:
            raise ModelError(f"depths and num_heads must be four each, not {depths} and {num_heads}")
        if not 1 / embed_dim <= mlp_ratio <= 64:
            raise ModelError(f"mlp_ratio must leave a channel and be at most 64, not {mlp_ratio}")
        self.embed_dim, self.M = embed_dim, 8 * embed_dim
        self.depths, self.num_heads, self.window_size = tuple(depths), tuple(num_heads), window_size
        self.mlp_ratio = mlp_ratio
        rates = [drop_path_rate * i / max(sum(depths) - 1, 1) for i in range(sum(depths))]

        def stage(i: int, depths: Sequence[int], heads: int, dim: int, last: nn.Module | None) -> _Stage:
            own = rates[sum(depths[:i]) : sum(depths[: i + 1])]
            return _Stage(dim, heads, window_size, mlp_ratio, own, last)

        self.patch_embed = _PatchEmbed(2, embed_dim)
        dims = [embed_dim * 2**i for i in range(4)]
        self.layers = nn.ModuleList(
            stage(i, depths, num_heads[i], dims[i], _Merge(dims[i]) if i < 3 else None) for i in range(4)
        )
        back = [3, 2, 1, 0]
        reverse = [depths[i] for i in back]
        self.syn_layers = nn.ModuleList(
            stage(n, reverse, num_heads[i], dims[i], _Split(dims[i]) if i else None)
            for n, i in enumerate(back)
        )
        self.end_conv = nn.Sequential(
            nn.Conv2d(embed_dim, embed_dim * 4, kernel_size=5, padding=2),
            nn.PixelShuffle(2),
            conv3x3(embed_dim, 3),
        )
        e = embed_dim
        self._make_entropy_model(
            (8 * e, 8 * e, 7 * e, 6 * e, 5 * e, 4 * e),
            (4 * e, 5 * e, 6 * e, 7 * e, 8 * e, 8 * e),
            context,
            num_slices,
            num_slices // 2,
        )

    @property
    def g_a(self) -> nn.Module:
        """Analysis: ``(B, 3, H, W)`` to ``(B, M, H/16, W/16)``."""
        return _Analysis(self.patch_embed, self.layers)

    @property
    def g_s(self) -> nn.Module:
        """Synthesis, the way back."""
        return _Synthesis(self.syn_layers, self.end_conv)

    @classmethod
    def _arguments(cls, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        slices = cls._slices_of(state_dict)
        del slices["max_support_slices"]
        first = "layers.{}.blocks.0.attn.relative_position_bias_table"
        hidden, dim = state_dict["layers.0.blocks.0.mlp.fc1.weight"].shape
        return {
            "embed_dim": state_dict["patch_embed.proj.weight"].shape[0],
            "depths": tuple(count_in(state_dict, f"layers.{i}.blocks.") for i in range(4)),
            "num_heads": tuple(state_dict[first.format(i)].shape[1] for i in range(4)),
            "window_size": round(
                state_dict["layers.0.blocks.0.attn.relative_position_index"].shape[0] ** 0.5
            ),
            "mlp_ratio": hidden / dim,
            **slices,
        }


class _Analysis(nn.Module):
    def __init__(self, patches: nn.Module, layers: nn.ModuleList) -> None:
        super().__init__()
        self.patches, self.layers = patches, layers

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x)
        for layer in self.layers:
            x = layer(x)
        return x.permute(0, 3, 1, 2)


class _Synthesis(nn.Module):
    def __init__(self, layers: nn.ModuleList, end: nn.Module) -> None:
        super().__init__()
        self.layers, self.end = layers, end

    def forward(self, y_hat: Tensor) -> Tensor:
        x = y_hat.permute(0, 2, 3, 1)
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.end(x.permute(0, 3, 1, 2))
        return out
