"""Residual and attention blocks, and convolutions that change the resolution."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from latens.layers.gdn import GDN

__all__ = [
    "AttentionBlock",
    "ResidualBlock",
    "ResidualBlockUpsample",
    "ResidualBlockWithStride",
    "conv1x1",
    "conv3x3",
    "subpel_conv3x3",
]


def conv3x3(in_ch: int, out_ch: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution that keeps height and width, or divides them by ``stride``."""
    return nn.Conv2d(in_ch, out_ch, kernel_size=3, stride=stride, padding=1)


def conv1x1(in_ch: int, out_ch: int, stride: int = 1) -> nn.Conv2d:
    """1x1 convolution."""
    return nn.Conv2d(in_ch, out_ch, kernel_size=1, stride=stride)


def add_shortcut(out: Tensor, shortcut: Tensor) -> Tensor:
    """Sum of both, in the memory of the first where no gradients are asked for."""
    return out + shortcut if torch.is_grad_enabled() else out.add_(shortcut)


_STRIP_BYTES = 2**24
"""Input of a bottleneck that is worked on at once: what lies between its convolutions should stay in the cache."""


def add_bottleneck(
    x: Tensor, narrow: nn.Module, middle: nn.Module, widen: nn.Module, *, inplace: bool = False
) -> Tensor:
    """``x + widen(middle(narrow(x)))`` without gradients, strip by strip of rows.

    Args:
        x: ``(B, C, H, W)``.
        narrow, middle, widen: 1x1, 3x3 and 1x1 convolutions with what follows each; height and width are kept.
        inplace: the sum may take the place of ``x``.
    """
    height = x.shape[2]
    # With the row above and the one below, strips have a multiple of four: that suits Winograd convolutions.
    rows = max(2, _STRIP_BYTES * height // (4 * x.nbytes) * 4 - 2)
    out = x if inplace else torch.empty_like(x)
    between = x[:, :, :0]
    # A last row alone goes with those before it.
    for start, end in pairwise((*range(0, max(height - 1, 1), rows), height)):
        above = min(start, 1)
        # Rows up to the one below are read before anything is written there.
        fresh = narrow(x[:, :, start + above : end + 1])
        between = torch.cat((between[:, :, -2:], fresh), dim=2) if above else fresh
        change = widen(middle(between)[:, :, above : above + end - start])
        torch.add(x[:, :, start:end], change, out=out[:, :, start:end])
    return out


def subpel_conv3x3(in_ch: int, out_ch: int, r: int = 1) -> nn.Sequential:
    """3x3 convolution that multiplies height and width by ``r``, as a sub-pixel convolution.

    Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel convolutional
    neural network", CVPR 2016.
    """
    return nn.Sequential(nn.Conv2d(in_ch, out_ch * r**2, kernel_size=3, padding=1), nn.PixelShuffle(r))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each with a leaky ReLU, and a shortcut.

    Args:
        in_ch: channels of the input.
        out_ch: channels of the output.
    """

    def __init__(self, in_ch: int, out_ch: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_ch, out_ch)
        self.leaky_relu = nn.LeakyReLU(inplace=True)
        self.conv2 = conv3x3(out_ch, out_ch)
        self.skip = conv1x1(in_ch, out_ch) if in_ch != out_ch else None

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_ch, H, W)`` to ``(B, out_ch, H, W)``."""
        out: Tensor = self.leaky_relu(self.conv2(self.leaky_relu(self.conv1(x))))
        return add_shortcut(out, x if self.skip is None else self.skip(x))


class ResidualBlockWithStride(nn.Module):
    """3x3 convolution with a stride, another with GDN, and a shortcut.

    Args:
        in_ch: channels of the input.
        out_ch: channels of the output.
        stride: what height and width are divided by.
    """

    def __init__(self, in_ch: int, out_ch: int, stride: int = 2) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_ch, out_ch, stride=stride)
        self.leaky_relu = nn.LeakyReLU(inplace=True)
        self.conv2 = conv3x3(out_ch, out_ch)
        self.gdn = GDN(out_ch, inplace=True)
        self.skip = conv1x1(in_ch, out_ch, stride=stride) if stride != 1 or in_ch != out_ch else None

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_ch, H, W)`` to ``(B, out_ch, H / stride, W / stride)``."""
        out: Tensor = self.gdn(self.conv2(self.leaky_relu(self.conv1(x))))
        return add_shortcut(out, x if self.skip is None else self.skip(x))


class ResidualBlockUpsample(nn.Module):
    """Sub-pixel convolution, another convolution with inverse GDN, and a sub-pixel shortcut.

    Args:
        in_ch: channels of the input.
        out_ch: channels of the output.
        upsample: what height and width are multiplied by.
    """

    def __init__(self, in_ch: int, out_ch: int, upsample: int = 2) -> None:
        super().__init__()
        self.subpel_conv = subpel_conv3x3(in_ch, out_ch, upsample)
        self.leaky_relu = nn.LeakyReLU(inplace=True)
        self.conv = conv3x3(out_ch, out_ch)
        self.igdn = GDN(out_ch, inverse=True, inplace=True)
        self.upsample = subpel_conv3x3(in_ch, out_ch, upsample)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_ch, H, W)`` to ``(B, out_ch, H * upsample, W * upsample)``."""
        out: Tensor = self.igdn(self.conv(self.leaky_relu(self.subpel_conv(x))))
        return add_shortcut(out, self.upsample(x))


class ResidualUnit(nn.Module):
    """1x1, 3x3, 1x1 at half the width, a shortcut, and a ReLU behind the sum."""

    def __init__(self, N: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            conv1x1(N, N // 2),
            nn.ReLU(inplace=True),
            conv3x3(N // 2, N // 2),
            nn.ReLU(inplace=True),
            conv1x1(N // 2, N),
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Shape kept."""
        # Only a condition of just this is cut out by TorchScript, which does not know what is behind it.
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            out: Tensor = self.conv(x) + x
        else:
            out = self._sum(x)
        return self.relu(out)  # type: ignore[no-any-return]

    @torch.jit.unused
    def _sum(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return cast(Tensor, self.conv(x) + x)
        return add_bottleneck(x, self.conv[:2], self.conv[2:4], self.conv[4])


class AttentionBlock(nn.Module):
    """A branch gated by another: ``x + a(x) * sigmoid(b(x))``.

    Cheng, Sun, Takeuchi, Katto, "Learned image compression with discretized Gaussian mixture likelihoods and
    attention modules", CVPR 2020, a simplification of Zhou et al., CVPR workshops 2019.

    Args:
        N: channels of input and output.
    """

    def __init__(self, N: int) -> None:
        super().__init__()
        self.conv_a = nn.Sequential(*(ResidualUnit(N) for _ in range(3)))
        self.conv_b = nn.Sequential(*(ResidualUnit(N) for _ in range(3)), conv1x1(N, N))

    def forward(self, x: Tensor) -> Tensor:
        """Shape kept."""
        a: Tensor = self.conv_a(x)
        b: Tensor = self.conv_b(x)
        if torch.is_grad_enabled():
            return a * torch.sigmoid(b) + x
        return a.mul_(b.sigmoid_()).add_(x)
