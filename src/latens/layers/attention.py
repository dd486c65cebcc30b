"""Self-attention within windows, as Swin transformers have it, for transforms and contexts of many models.

Liu, Lin, Cao, Hu, Wei, Zhang, Lin, Guo, "Swin transformer: Hierarchical vision transformer using shifted windows",
ICCV 2021. Feature maps are ``(B, H, W, C)`` here: all channels of a position side by side.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latens.errors import ModelError

__all__ = [
    "DisplacementAttention",
    "DropPath",
    "FeedForward",
    "SwinBlock",
    "WindowAttention",
    "attend_in_windows",
    "relative_positions",
]

_CHUNK_BYTES = 2**23
"""Attention weights that are worked on at once without gradients: they should stay in the cache."""


def relative_positions(window: int) -> Tensor:
    """For each pair of positions of a window, which of its ``(2 window - 1)^2`` displacements lies between them.

    Returns:
        ``(window^2, window^2)``, int64: rows are queries, columns keys.
    """
    axis = torch.arange(window)
    shift = axis[:, None] - axis[None, :] + window - 1
    rows, columns = shift[:, None, :, None], shift[None, :, None, :]
    return (rows * (2 * window - 1) + columns).reshape(window**2, window**2)


def _regions(size: int, window: int, shift: int) -> Tensor:
    """For each position along a side that has been moved by ``shift``: 0, or 1 behind the seam of the last window."""
    return (torch.arange(size, device="cpu") >= size - shift).long()


def attend_in_windows(
    x: Tensor,
    embed: Callable[[Tensor], Tensor] | None,
    heads: int,
    window: int,
    bias: Tensor | None,
    shift: int = 0,
    scale: float | None = None,
) -> Tensor:
    """Multi-head self-attention of the positions of each window.

    Sides that are no multiple of the window get zeros at their ends, which take part.

    Args:
        x: ``(B, H, W, C)``; without ``embed``, queries, keys and values side by side, ``(B, H, W, 3 C)``.
        embed: from ``(..., C)`` to queries, keys and values side by side, ``(..., 3 C)``.
        heads: shares of the channels that attend for themselves.
        window: side of a window.
        bias: ``(heads, window^2, window^2)``, added to the attention weights before the softmax; None for nothing.
        shift: how far windows are moved; what is brought together from opposite sides does not see each other.
        scale: of products of queries and keys; one over the square root of the channels of a head if None.

    Returns:
        ``(B, H, W, C)``, before any projection.
    """
    batch, height, width, channels = x.shape
    x = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))
    if shift:
        x = torch.roll(x, (-shift, -shift), (1, 2))
    rows, columns, cells = x.shape[1] // window, x.shape[2] // window, window**2
    windows = x.view(batch, rows, window, columns, window, channels).transpose(2, 3)
    windows = windows.reshape(batch * rows * columns, cells, channels)
    masks = None
    if shift:
        down = _regions(x.shape[1], window, shift).view(rows, 1, window, 1)
        right = _regions(x.shape[2], window, shift).view(1, columns, 1, window)
        regions = (2 * down + right).reshape(rows * columns, cells)
        # Only windows at the two seams hold more than one region.
        masks = regions[:, None, :] != regions[:, :, None]

    def attend(part: Tensor, mask: Tensor | None) -> Tensor:
        embedded = part if embed is None else embed(part)
        q, k, v = embedded.view(len(part), cells, 3, heads, -1).permute(2, 0, 3, 1, 4)
        weights = None if bias is None else bias[None]
        if mask is not None:
            blank = x.new_zeros(1, 1, 1, 1) if weights is None else weights
            weights = blank.masked_fill(mask[:, None].to(x.device), float("-inf"))
        if weights is not None:
            weights = weights.to(q.dtype).expand(len(part), -1, -1, -1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=weights, scale=scale)
        return out.transpose(1, 2).reshape(len(part), cells, -1)

    if torch.is_grad_enabled():
        out = attend(windows, None if masks is None else masks.repeat(batch, 1, 1))
    else:
        size = max(1, _CHUNK_BYTES // (heads * cells**2 * x.element_size()))
        out = windows.new_empty(*windows.shape[:2], channels if embed else channels // 3)
        for start in range(0, len(windows), size):
            end = min(start + size, len(windows))
            mask = None
            if masks is not None:
                chosen = masks[torch.arange(start, end, device="cpu") % len(masks)]
                mask = chosen if chosen.any() else None
            out[start:end] = attend(windows[start:end], mask)
    out = out.view(batch, rows, columns, window, window, -1).transpose(2, 3).reshape((*x.shape[:3], -1))
    if shift:
        out = torch.roll(out, (shift, shift), (1, 2))
    return out[:, :height, :width]


class WindowAttention(nn.Module):
    """Self-attention within windows with a learned bias for each displacement.

    Args:
        dim: channels.
        window: side of a window.
        heads: shares of the channels that attend for themselves; they must divide ``dim``.

    Raises:
        ModelError: the heads do not divide the channels.
    """

    relative_position_index: Tensor

    def __init__(self, dim: int, window: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ModelError(f"{dim} channels cannot be shared by {heads} heads of attention")
        self.window, self.heads = window, heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("relative_position_index", relative_positions(window))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor, shift: int = 0) -> Tensor:
        """``(B, H, W, dim)``, shape kept; windows are moved by ``shift``."""
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        attended = attend_in_windows(x, self.qkv, self.heads, self.window, bias, shift)
        out: Tensor = self.proj(attended)
        return out


class DropPath(nn.Module):
    """While training, leaves out a branch for some images of a batch; the others are scaled up for it.

    Huang, Sun, Liu, Sedra, Weinberger, "Deep networks with stochastic depth", ECCV 2016.

    Args:
        rate: how often, from 0 to below 1.

    Raises:
        ModelError: another rate.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ModelError(
                f"drop_path_rate, of branches that are left out, must be from 0 to below 1, not {rate}"
            )
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Shape kept; the first dimension is the batch."""
        if self.rate == 0 or not self.training:
            return x
        kept = 1 - self.rate
        return x * x.new_empty((len(x), *(1 for _ in x.shape[1:]))).bernoulli_(kept) / kept


class FeedForward(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., dim)``, shape kept."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class SwinBlock(nn.Module):
    """Attention within windows and a feed-forward network, each on normalised values and with a shortcut.

    Args:
        dim: channels.
        heads: of the attention.
        window: side of a window.
        shift: how far windows are moved.
        ratio: width of the feed-forward network, as a multiple of ``dim``.
        drop_path: see :class:`DropPath`.
    """

    def __init__(
        self, dim: int, heads: int, window: int, shift: int = 0, ratio: float = 4.0, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.shift = shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window, heads)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim, int(dim * ratio))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, dim)``, shape kept."""
        x = x + self.drop_path(self.attn(self.norm1(x), self.shift))
        out: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return out


class DisplacementAttention(nn.Module):
    """Self-attention within windows whose learned bias is kept as a plane of displacements for each head.

    Args:
        dim: channels.
        head_dim: channels of each head; they must divide ``dim``.
        window: side of a window.

    Raises:
        ModelError: the heads do not divide the channels.
    """

    def __init__(self, dim: int, head_dim: int, window: int) -> None:
        super().__init__()
        if head_dim < 1 or dim % head_dim:
            raise ModelError(f"{dim} channels cannot be cut into heads of {head_dim}")
        self.heads, self.window = dim // head_dim, window
        self.embedding_layer = nn.Linear(dim, 3 * dim)
        side = 2 * window - 1
        self.relative_position_params = nn.Parameter(torch.zeros(self.heads, side, side))
        self.linear = nn.Linear(dim, dim)
        nn.init.trunc_normal_(self.relative_position_params, std=0.02)

    def forward(self, x: Tensor, shift: int = 0) -> Tensor:
        """``(B, H, W, dim)``, shape kept; windows are moved by ``shift``."""
        index = relative_positions(self.window).to(x.device)
        bias = self.relative_position_params.flatten(1)[:, index]
        attended = attend_in_windows(x, self.embedding_layer, self.heads, self.window, bias, shift)
        out: Tensor = self.linear(attended)
        return out
