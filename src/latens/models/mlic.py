"""Contexts of several kinds at once: channels before, positions around, and all that is like this one."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latens.entropy_models import EntropyBottleneck, GaussianConditional
from latens.latent_codecs.steps import Step
from latens.layers import GDN, conv1x1, conv3x3, subpel_conv3x3
from latens.layers.attention import FeedForward, relative_positions
from latens.models.stepwise import Named, StepwiseModel, context_network, count_in, equal_slices

__all__ = ["MLICPlusPlus"]

_HEADS, _HEAD, _SIDE = 2, 32, 5


# -- the two halves of a checkerboard ----------------------------------------------------------------------------
# Half 0, the anchors, has the positions whose row and column have an odd sum; half 1 has the others.


def _empty_like(x: Tensor, width: int) -> Tensor:
    """Another width, the same memory layout."""
    by_position = x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if by_position else torch.contiguous_format
    return torch.empty((*x.shape[:3], width), dtype=x.dtype, device=x.device, memory_format=layout)


def half_of(x: Tensor, half: int) -> Tensor:
    """The positions of one half side by side: ``(B, C, H, W)`` to ``(B, C, H, W / 2)``."""
    out = _empty_like(x, x.shape[3] // 2)
    for row in (0, 1):
        out[:, :, row::2] = x[:, :, row::2, (row + half + 1) % 2 :: 2]
    return out


def spread(x: Tensor, half: int) -> Tensor:
    """Undo :func:`half_of`; the other half is zero."""
    out = _empty_like(x, x.shape[3] * 2).zero_()
    for row in (0, 1):
        out[:, :, row::2, (row + half + 1) % 2 :: 2] = x[:, :, row::2]
    return out


# -- transforms --------------------------------------------------------------------------------------------------


class _Residual(nn.Module):
    """Two 3x3 convolutions, each with GELU, and a shortcut."""

    def __init__(self, in_ch: int, out_ch: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv3x3(in_ch, out_ch), conv3x3(out_ch, out_ch)
        self.skip = conv1x1(in_ch, out_ch) if in_ch != out_ch else None

    def forward(self, x: Tensor) -> Tensor:
        out = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        shortcut: Tensor = x if self.skip is None else self.skip(x)
        return out + shortcut


class _Down(nn.Module):
    """3x3 convolution of stride 2, another with GDN, and a shortcut."""

    def __init__(self, in_ch: int, out_ch: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv3x3(in_ch, out_ch, stride=2), conv3x3(out_ch, out_ch)
        self.gdn = GDN(out_ch, inplace=True)
        self.skip = conv1x1(in_ch, out_ch, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.gdn(self.conv2(F.gelu(self.conv1(x)))) + self.skip(x)
        return out


class _Up(nn.Module):
    """Sub-pixel convolution, another convolution with inverse GDN, and a sub-pixel shortcut."""

    def __init__(self, in_ch: int, out_ch: int) -> None:
        super().__init__()
        self.subpel_conv, self.conv = subpel_conv3x3(in_ch, out_ch, 2), conv3x3(out_ch, out_ch)
        self.igdn = GDN(out_ch, inverse=True, inplace=True)
        self.upsample = subpel_conv3x3(in_ch, out_ch, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.igdn(self.conv(F.gelu(self.subpel_conv(x)))) + self.upsample(x)
        return out


# -- contexts ----------------------------------------------------------------------------------------------------


class _Correction(Named):
    """What rounding took away, as far as it can be told: at most half a step."""

    def __init__(self, in_ch: int, out_ch: int) -> None:
        super().__init__("lrp_transform", context_network((in_ch, 224, 128, out_ch)))

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * torch.tanh(super().forward(x))


def _entropy_parameters(in_ch: int, out_ch: int) -> nn.Module:
    widths = (in_ch, 320, 256, 128, out_ch)
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [conv1x1(before, after), nn.GELU()]
    return Named("fusion", nn.Sequential(*layers[:-1]))


class _Local(nn.Module):
    """What the anchors in the 5x5 positions around one of the others say about it, by attention among them.

    Args:
        dim: channels of the slice.
    """

    relative_position_index: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv_proj = nn.Linear(dim, 3 * dim)
        self.relative_position_table = nn.Parameter(torch.zeros((2 * _SIDE - 1) ** 2, _HEADS))
        nn.init.trunc_normal_(self.relative_position_table, std=0.02)
        self.proj = nn.Linear(2 * dim, 2 * dim)
        self.mlp = FeedForward(2 * dim, 4 * dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(2 * dim)
        self.register_buffer("relative_position_index", relative_positions(_SIDE))
        self.fusion = nn.Conv2d(dim, 2 * dim, _SIDE)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Anchors ``(B, C, H, W)`` and :func:`_window_mask` to ``(B, 2 C, H, W / 2)``, for the other half."""
        batch, dim, height, width = x.shape
        projected = self.qkv_proj(self.norm1(x.permute(0, 2, 3, 1)))
        windows = _windows(projected, _SIDE)  # (B, H W / 2, 25, 3 C)
        # Channels of a head are not side by side.
        q, k, v = windows.flatten(0, 1).unflatten(-1, (3, dim // _HEADS, _HEADS)).permute(2, 0, 4, 1, 3)  # type: ignore[no-untyped-call]
        bias = self.relative_position_table[self.relative_position_index].permute(2, 0, 1)
        weights = bias[None] + mask.to(bias.dtype)[:, None]
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=weights.repeat(batch, 1, 1, 1))
        cells = found.permute(0, 2, 1, 3).flatten(2)  # (B H W / 2, 25, C)
        # The kernel is as large as a window: a product of matrices.
        kernel = self.fusion.weight.permute(2, 3, 1, 0).flatten(0, 2)
        fused = cells.flatten(1) @ kernel
        out: Tensor = self.proj(fused if self.fusion.bias is None else fused + self.fusion.bias)
        out = out + self.mlp(self.norm2(out))
        return out.view(batch, height, width // 2, 2 * dim).permute(0, 3, 1, 2)


def _windows(x: Tensor, side: int) -> Tensor:
    """Windows around half 1, zeros beyond the edge: ``(B, H, W, C)`` to ``(B, H W / 2, side^2, C)``."""
    reach = side // 2
    height, width = x.shape[1:3]
    padded = F.pad(x, (0, 0, reach, reach, reach, reach))
    rows = torch.arange(height, device=x.device)[:, None]
    columns = torch.arange(width // 2, device=x.device)[None] * 2 + rows % 2
    corners = (rows * (width + 2 * reach) + columns).reshape(-1, 1)
    axis = torch.arange(side, device=x.device)
    inside = (axis[:, None] * (width + 2 * reach) + axis[None]).reshape(1, -1)
    return padded.flatten(1, 2)[:, corners + inside]


def _window_mask(height: int, width: int, device: torch.device) -> Tensor:
    """What is added to attention weights: anchors see anchors, ``(H W / 2, 25, 25)``.

    The rows of what is no anchor see everything alike, as they always have.
    """
    ones = torch.ones(1, 1, height, width // 2, device=device)
    anchors = _windows(spread(ones, 0).permute(0, 2, 3, 1), _SIDE)[0, :, :, 0]
    return (anchors[:, :, None] * anchors[:, None, :] - 1) * 100


def _linear_attention(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """Attention whose cost grows with the number of positions, not with its square: ``(B, C, P)`` each, shape kept.

    Shen, Zhang, Zhao, Yi, Li, "Efficient attention: Attention with linear complexities", WACV 2021.
    """
    q, k, v = (t.unflatten(1, (heads, -1)) for t in (queries, keys, values))  # type: ignore[no-untyped-call]
    context = torch.softmax(k, 3) @ v.transpose(2, 3)
    found: Tensor = context.transpose(2, 3) @ torch.softmax(q, 2)
    return found.flatten(1, 2)


def _projection(dim: int) -> nn.Sequential:
    return nn.Sequential(conv1x1(dim, dim), nn.Conv2d(dim, dim, 3, padding=1, groups=dim))


def _mixer(in_ch: int, hidden: int, out_ch: int) -> nn.Sequential:
    return nn.Sequential(
        conv1x1(in_ch, hidden),
        nn.GELU(),
        nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
        nn.GELU(),
        conv1x1(hidden, out_ch),
    )


class _Within(nn.Module):
    """What the anchors of a slice say about the others, as these resembled them in the slice before."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.keys, self.queries, self.values = _projection(dim), _projection(dim), _projection(dim)
        self.reprojection = nn.Conv2d(dim, 2 * dim, 5, padding=2)
        self.mlp = _mixer(2 * dim, 4 * dim, 2 * dim)

    def forward(self, before: Tensor, anchors: Tensor) -> Tensor:
        """Slice before and anchors of this one, ``(B, C, H, W)`` each, to ``(B, 2 C, H, W)``."""
        queries = half_of(self.queries(spread(half_of(before, 1), 1)), 1)
        keys = half_of(self.keys(spread(half_of(before, 0), 0)), 0)
        values = half_of(self.values(anchors), 0)
        found = _linear_attention(queries.flatten(2), keys.flatten(2), values.flatten(2), _HEADS)
        attention = self.reprojection(spread(found.view(queries.shape), 1))
        out: Tensor = attention + self.mlp(attention)
        return out


class _Between(nn.Module):
    """What resembles a position in all slices before."""

    def __init__(self, dim: int, out_ch: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.keys, self.queries, self.values = _projection(dim), _projection(dim), _projection(dim)
        self.reprojection = nn.Conv2d(dim, out_ch * 3 // 2, 5, padding=2)
        self.mlp = _mixer(out_ch * 3 // 2, out_ch * 2, out_ch)
        self.skip = conv1x1(out_ch * 3 // 2, out_ch)

    def forward(self, before: Tensor) -> Tensor:
        """``(B, dim, H, W)`` to ``(B, out_ch, H, W)``."""
        queries, keys, values = (
            network(before).flatten(2) for network in (self.queries, self.keys, self.values)
        )
        found = _linear_attention(queries, keys, values, self.heads).view(before.shape)
        attention = self.reprojection(found)
        out: Tensor = self.skip(attention) + self.mlp(attention)
        return out


class MLICPlusPlus(StepwiseModel):
    """Slices of channels in two checkerboard steps, with contexts of channels, of positions around, and of all.

    .. code-block:: none

        slice:   slices before ──► channels, likeness ──┬───────────────► anchors ──┐
                                                        │                           ▼
                 slice before, anchors ──► around, likeness within the slice ──► the others
                 side parameters ───────────────────────┴──────────── (to both)

    The rest of the data flow: :class:`latens.models.stepwise.StepwiseModel`. ``x`` is ``(B, 3, H, W)`` with values from
    0 to 1, sides multiples of 64; ``y``, scales and means ``(B, M, H/16, W/16)``, ``z`` ``(B, N, H/64, W/64)``. What a
    position looks for in all others costs time in proportion to their number.

    Jiang, Yang, Zhai, Ning, Gao, Wang, "MLIC++: Linear complexity multi-reference entropy modeling for learned image
    compression", ACM TOMM 2025 (first at the ICML 2023 workshop on neural compression).

    Args:
        N: channels of the transforms and of z.
        M: channels of the latent.
        slice_num: slices of the latent; they must divide ``M``, into an even number of channels each.

    Raises:
        ModelError: sizes that do not divide each other.
    """

    def __init__(self, N: int = 192, M: int = 320, slice_num: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.N, self.M, self.slice_num = N, M, slice_num
        (size, *_) = equal_slices(M, slice_num * _HEADS)
        size *= _HEADS
        self.slice_ch = size
        self.entropy_bottleneck = EntropyBottleneck(N)
        stages: list[nn.Module] = [layer for n in (3, N, N) for layer in (_Down(n, N), _Residual(N, N))]
        self.g_a = Named("analysis_transform", nn.Sequential(*stages, conv3x3(N, M, stride=2)))
        stages = [
            _Residual(M, M),
            _Up(M, N),
            _Residual(N, N),
            _Up(N, N),
            _Residual(N, N),
            _Up(N, N),
            _Residual(N, N),
        ]
        self.g_s = Named("synthesis_transform", nn.Sequential(*stages, subpel_conv3x3(N, 3, 2)))
        self.h_a = Named(
            "reduction",
            nn.Sequential(
                conv3x3(M, N),
                nn.GELU(),
                conv3x3(N, N),
                nn.GELU(),
                conv3x3(N, N, stride=2),
                nn.GELU(),
                conv3x3(N, N),
                nn.GELU(),
                conv3x3(N, N, stride=2),
            ),
        )
        wide = M * 3 // 2
        self.h_s = Named(
            "increase",
            nn.Sequential(
                conv3x3(N, M),
                nn.GELU(),
                subpel_conv3x3(M, M, 2),
                nn.GELU(),
                conv3x3(M, wide),
                nn.GELU(),
                subpel_conv3x3(wide, wide, 2),
                nn.GELU(),
                conv3x3(wide, 2 * M),
            ),
        )
        self.gaussian_conditional = GaussianConditional(None)
        numbers = range(slice_num)
        # The first slice has none of these.
        later: list[Any] = [None]
        self.local_context = nn.ModuleList(_Local(size) for _ in numbers)
        self.channel_context = nn.ModuleList(
            later + [Named("fushion", context_network((size * i, 192, 128, 4 * size))) for i in numbers[1:]]
        )
        self.global_inter_context = nn.ModuleList(
            later + [_Between(size * i, 2 * size, max(size * i // _HEAD, 1)) for i in numbers[1:]]
        )
        self.global_intra_context = nn.ModuleList(later + [_Within(size) for _ in numbers[1:]])
        self.entropy_parameters_anchor = nn.ModuleList(
            _entropy_parameters(2 * M + (6 * size if i else 0), 2 * size) for i in numbers
        )
        self.entropy_parameters_nonanchor = nn.ModuleList(
            _entropy_parameters(2 * M + (10 * size if i else 2 * size), 2 * size) for i in numbers
        )
        self.lrp_anchor = nn.ModuleList(_Correction(M + (i + 1) * size, size) for i in numbers)
        self.lrp_nonanchor = nn.ModuleList(_Correction(M + (i + 1) * size, size) for i in numbers)

    def _side(self, z_hat: Tensor) -> Tensor:
        side: Tensor = self.h_s(z_hat)
        return side

    def _traverse(self, step: Step, side: Tensor) -> Tensor:
        means_side = side.chunk(2, 1)[1]
        side_halves = half_of(side, 0), half_of(side, 1)
        mask = _window_mask(side.shape[2], side.shape[3], side.device)
        size = self.slice_ch
        done: list[Tensor] = []

        def code(i: int, half: int, network: nn.Module, contexts: list[Tensor]) -> Tensor:
            """One half of slice ``i``, spread out; its parameters look at one position at a time."""
            scales, means = network(torch.cat((*contexts, side_halves[half]), dim=1)).chunk(2, 1)
            channels = slice(i * size, (i + 1) * size)
            return spread(step(lambda y: half_of(y[:, channels], half), scales, means), half)

        for i in range(self.slice_num):
            before = torch.cat(done, dim=1) if i else side[:, :0]
            shared = [self.global_inter_context[i](before), self.channel_context[i](before)] if i else []
            contexts = [half_of(context, 0) for context in shared]
            anchors = code(i, 0, self.entropy_parameters_anchor[i], contexts)
            change = self.lrp_anchor[i](torch.cat((means_side, before, anchors), dim=1))
            anchors = anchors + spread(half_of(change, 0), 0)
            contexts = [self.local_context[i](anchors, mask)]
            if i:
                contexts.append(half_of(self.global_intra_context[i](done[-1], anchors), 1))
            contexts += [half_of(context, 1) for context in shared]
            both = anchors + code(i, 1, self.entropy_parameters_nonanchor[i], contexts)
            change = self.lrp_nonanchor[i](torch.cat((means_side, before, both), dim=1))
            done.append(both + spread(half_of(change, 1), 1))
        return torch.cat(done, dim=1)

    def _likelihoods(self, parts: list[Tensor]) -> Tensor:
        both = zip(parts[::2], parts[1::2], strict=True)
        return torch.cat([spread(anchors, 0) + spread(others, 1) for anchors, others in both], dim=1)

    @classmethod
    def _arguments(cls, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        M, N = state_dict["g_a.analysis_transform.6.weight"].shape[:2]
        return {"N": N, "M": M, "slice_num": count_in(state_dict, "lrp_anchor.")}
