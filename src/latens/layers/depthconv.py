"""The block that the default model is built from: pointwise and depthwise convolutions only.

Almost all of its work is two matrix products per position, which is what CPUs and GPUs do best. The shape
follows DCVC-RT (Jia et al., CVPR 2025), there ``DepthConvBlock``.
"""

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DepthConvBlock"]

# The paper's gate x * sigmoid(4x) equals silu(4x) / 4. Both factors are absorbed by the linear layers around
# it, so only the initial weights have to know of a slope.
_GATE_SLOPE = 2.0


class DepthConvBlock(nn.Module):
    r"""Residual 1x1 -> gate -> depthwise 3x3 -> 1x1, then a residual 1x1 -> gate -> 1x1.

    .. code-block:: none

        x ─┬─ pw_in ─ gate ─ dw ─ pw_out ─(+)─┬─ ffn_in ─ gate ─ ffn_out ─(+)── out
           └──────────────────────────────┘   └───────────────────────────┘

    Both branches start at zero, so a new block is the identity and a network of them starts as its linear path.

    Args:
        channels: channels of input and output.
        inner: channels of the depthwise part; ``channels`` by default.
        hidden: channels inside the feed-forward part; ``2 * inner`` by default.

    Shape: ``(B, channels, H, W)`` to the same. The receptive field grows by one position on each side.
    """

    def __init__(self, channels: int, inner: int | None = None, hidden: int | None = None) -> None:
        super().__init__()
        inner = inner or channels
        hidden = hidden or 2 * inner
        self.pw_in = nn.Conv2d(channels, inner, 1)
        self.dw = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.pw_out = nn.Conv2d(inner, channels, 1)
        self.ffn_in = nn.Conv2d(channels, hidden, 1)
        self.ffn_out = nn.Conv2d(hidden, channels, 1)
        for entry in (self.pw_in, self.ffn_in):
            nn.init.normal_(entry.weight, std=_GATE_SLOPE * (0.5 / entry.in_channels) ** 0.5)
        for branch_end in (self.pw_out, self.ffn_out):
            nn.init.zeros_(branch_end.weight)
        for conv in (self.pw_in, self.pw_out, self.ffn_in, self.ffn_out):
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pw_out(self.dw(F.silu(self.pw_in(x))))
        x = x + self.ffn_out(F.silu(self.ffn_in(x)))
        return x
