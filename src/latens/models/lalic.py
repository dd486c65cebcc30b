"""Linear attention (RWKV) over all positions, in transforms and contexts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latens.entropy_models import EntropyBottleneck
from latens.errors import ModelError
from latens.latent_codecs import (
    ChannelGroupsLatentCodec,
    CheckerboardLatentCodec,
    GaussianConditionalLatentCodec,
    HyperLatentCodec,
    HyperpriorLatentCodec,
)
from latens.layers import CheckerboardMaskedConv2d, conv1x1, conv3x3, sequential_channel_ramp
from latens.models.base import SimpleVAECompressionModel
from latens.models.stepwise import count_in
from latens.models.utils import conv, deconv

__all__ = ["LALIC", "wkv"]


def wkv(decay: Tensor, boost: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """For each position a mean of the values of all, those with large keys and those near it counting more.

    .. code-block:: none

        out[t] = sum_i weight[t, i] values[i] / sum_i weight[t, i]
        weight[t, i] = exp(keys[i] - (|t - i| - 1) decay)  for i != t,   exp(keys[t] + boost)  for i = t

    Two running sums, one from each end, take time in proportion to the number of positions. Sums are in float64: in
    float32 they would lose what a position adds to a hundred thousand others. ``decay`` times T must be within some
    hundreds, as it is in the models that divide it by T.

    Duan, Wang, Chen et al., "Vision-RWKV: Efficient and scalable visual perception with RWKV-like architectures",
    ICLR 2025.

    Args:
        decay, boost: ``(C,)``.
        keys, values: ``(B, T, C)``.

    Returns:
        ``(B, T, C)``.
    """
    positions = torch.arange(keys.shape[1], device=keys.device, dtype=torch.float64)[:, None]
    slope = positions * decay.double()
    keys64, values64 = keys.double(), values.double()
    # Keys are only compared with each other, and so are exponents of one direction: the largest becomes 1.
    weight = torch.exp(keys64 - keys64.amax(1, keepdim=True))
    rising, falling = torch.exp(slope - slope.amax(0)), torch.exp(slope.amin(0) - slope)
    one = torch.exp(decay.double())

    def both(amount: Tensor) -> Tensor:
        # Sums without the position itself: taking it away afterwards would leave nothing of small ones.
        before = torch.cumsum(F.pad(amount * rising, (0, 0, 1, -1)), 1)
        after = torch.cumsum(F.pad(amount * falling, (0, 0, -1, 1)).flip(1), 1).flip(1)
        return (before / rising + after / falling) * one

    own = weight * torch.exp(boost.double())
    total = both(weight * values64) + own * values64
    return (total / (both(weight) + own)).to(values.dtype)


class _Kept(nn.Module):
    """A weight that checkpoints have, and nothing uses."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(shape))


class _OmniShift(nn.Module):
    """A mixture of the input and of depthwise convolutions of three sizes, computed as one of 5x5.

    Yang, Li, Dong et al., "Restore-RWKV: Efficient and effective medical image restoration with RWKV", JBHI 2025.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()

        def depthwise(side: int) -> nn.Conv2d:
            return nn.Conv2d(dim, dim, side, padding=side // 2, groups=dim, bias=False)

        self.conv1x1, self.conv3x3, self.conv5x5 = depthwise(1), depthwise(3), depthwise(5)
        self.alpha = nn.Parameter(torch.randn(4))
        # Kept for checkpoints: it is the mixture, which is made anew whenever it is needed.
        self.conv5x5_reparam = _Kept((dim, 1, 5, 5))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, H, W)``, shape kept."""
        single = F.pad(self.alpha[0] + self.alpha[1] * self.conv1x1.weight, (2, 2, 2, 2))
        small = F.pad(self.alpha[2] * self.conv3x3.weight, (1, 1, 1, 1))
        kernel = single + small + self.alpha[3] * self.conv5x5.weight
        return F.conv2d(x, kernel, padding=2, groups=len(kernel))


class _SpatialMix(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.omni_shift = _OmniShift(dim)
        self.key, self.value = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.receptance, self.output = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.decay, self.boost = nn.Parameter(torch.randn(dim)), nn.Parameter(torch.randn(dim))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, dim)``, shape kept."""
        shape = x.shape
        x = self.omni_shift(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        keys, values = (network(x).flatten(1, 2) for network in (self.key, self.value))
        total = keys.shape[1]
        mixed = wkv(self.decay / total, self.boost / total, keys, values).view(shape)
        out: Tensor = self.output(torch.sigmoid(self.receptance(x)) * mixed)
        return out


class _ChannelMix(nn.Module):
    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        self.omni_shift = _OmniShift(dim)
        self.key, self.value = (
            nn.Linear(dim, ratio * dim, bias=False),
            nn.Linear(ratio * dim, dim, bias=False),
        )
        self.receptance = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, dim)``, shape kept."""
        x = self.omni_shift(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        out: Tensor = torch.sigmoid(self.receptance(x)) * self.value(F.relu(self.key(x)).square())
        return out


class _Block(nn.Module):
    """A mixture over positions and one over channels, on normalised values, with scaled branches and shortcuts."""

    def __init__(self, dim: int, ratio: int = 4) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.att, self.ffn = _SpatialMix(dim), _ChannelMix(dim, ratio)
        self.gamma1, self.gamma2 = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, H, W)``, shape kept."""
        x = x.permute(0, 2, 3, 1)
        x = x + self.gamma1 * self.att(self.ln1(x))
        x = x + self.gamma2 * self.ffn(self.ln2(x))
        return x.permute(0, 3, 1, 2)


class _Parameters(nn.Module):
    """One layer from contexts to parameters, position by position: 1x1, then a gated feed-forward network."""

    def __init__(self, in_ch: int, out_ch: int, **kwargs: Any) -> None:
        super().__init__()
        self.mix, self.norm = conv1x1(in_ch, out_ch), nn.LayerNorm(out_ch)
        self.key, self.value = (
            nn.Linear(out_ch, 2 * out_ch, bias=False),
            nn.Linear(2 * out_ch, out_ch, bias=False),
        )
        self.receptance = nn.Linear(out_ch, out_ch, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        start: Tensor = self.mix(x)
        x = self.norm(start.permute(0, 2, 3, 1))
        x = torch.sigmoid(self.receptance(x)) * self.value(F.relu(self.key(x)).square())
        return x.permute(0, 3, 1, 2) + start


class LALIC(SimpleVAECompressionModel):
    """ELIC's groups of channels, with RWKV blocks in place of its convolutions.

    .. code-block:: none

        x ──► g_a ──► y ──┬──► hyper (h_a, EntropyBottleneck, h_s) ──► params ──┐
                          └──► group 0, group 1, ... (each a checkerboard) ◄────┘
                                     ▼ y_hat
        x_hat ◄── g_s ◄──────────────┘

    ``x`` is ``(B, 3, H, W)`` with values from 0 to 1, sides multiples of 64; ``y``, scales and means
    ``(B, M, H/16, W/16)``, ``z`` ``(B, dims[4], H/64, W/64)``. Each position sees all others, so images cannot be cut.

    Feng, Cheng, Wang, Wu, Hu, Lu, Song, "Linear attention modeling for learned image compression", CVPR 2025.

    Args:
        N: half of the smallest width of the networks from contexts to parameters.
        M: channels of the latent.
        dims: channels at a half, a quarter and an eighth of the resolution, then at 1/32 and 1/64.
        depths: blocks at a half, a quarter, an eighth, and 1/32.
        groups: channels of each group, ``M`` together; by default 16, 16, 32, 64 and the rest.

    Raises:
        ModelError: the groups do not add up to ``M``, or not as many sizes as resolutions.
    """

    _step, _multiple = 16, 4

    inexact = (
        "its contexts have normalisation and exponentials that docs/entropy.md has no integers for; use its compress() "
        "and decompress(), on one machine"
    )

    def __init__(
        self,
        N: int = 128,
        M: int = 320,
        dims: Sequence[int] = (96, 144, 256, 256, 192),
        depths: Sequence[int] = (2, 4, 6, 6),
        groups: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if len(dims) != 5 or len(depths) != 4:
            raise ModelError(f"dims must be five numbers and depths four, not {dims} and {depths}")
        self.groups = [16, 16, 32, 64, M - 128] if groups is None else list(groups)
        if sum(self.groups) != M or min(self.groups) < 1:
            raise ModelError(f"groups must be positive and add up to M={M}, but are {self.groups}")
        self.N, self.M, self.dims, self.depths = N, M, tuple(dims), tuple(depths)
        a, b, c, d, e = dims

        def blocks(dim: int, number: int) -> list[nn.Module]:
            return [_Block(dim) for _ in range(depths[number])]

        self.g_a = nn.Sequential(
            conv(3, a),
            *blocks(a, 0),
            conv(a, b, kernel_size=3),
            *blocks(b, 1),
            conv(b, c, kernel_size=3),
            *blocks(c, 2),
            conv(c, M, kernel_size=3),
        )
        self.g_s = nn.Sequential(
            deconv(M, c, kernel_size=3),
            *blocks(c, 2),
            deconv(c, b, kernel_size=3),
            *blocks(b, 1),
            deconv(b, a, kernel_size=3),
            *blocks(a, 0),
            deconv(a, 3),
        )
        self.h_a = nn.Sequential(conv(M, d), *blocks(d, 3), conv(d, e))
        self.h_s = nn.Sequential(deconv(e, d), *blocks(d, 3), deconv(d, M))
        channel_context = {
            f"y{k}": nn.Sequential(
                conv3x3(sum(self.groups[:k]), M),
                _Block(M, 8),
                _Block(M, 8),
                conv1x1(M, 2 * size),
            )
            for k, size in enumerate(self.groups)
            if k
        }
        codecs = {
            f"y{k}": CheckerboardLatentCodec(
                {"y": GaussianConditionalLatentCodec(quantizer="ste")},
                entropy_parameters=sequential_channel_ramp(
                    (2 if k == 0 else 4) * size + M,
                    2 * size,
                    min_ch=2 * N,
                    num_layers=3,
                    make_layer=_Parameters,
                    make_act=nn.Identity,
                ),
                context_prediction=CheckerboardMaskedConv2d(size, 2 * size, 5, padding=2),
            )
            for k, size in enumerate(self.groups)
        }
        self.latent_codec = HyperpriorLatentCodec(
            {
                "y": ChannelGroupsLatentCodec(codecs, channel_context, groups=self.groups),
                "hyper": HyperLatentCodec(EntropyBottleneck(e), self.h_a, self.h_s, quantizer="ste"),
            }
        )

    @staticmethod
    def _arguments(state_dict: Mapping[str, Any]) -> dict[str, Any]:
        groups: list[int] = []
        codec = "latent_codec.y.latent_codec.y{}."
        for k in count():
            key = codec.format(k) + "context_prediction.weight"
            if k > 0 and key not in state_dict:
                break
            groups.append(state_dict[key].shape[1])
        widths = [
            state_dict[f"{codec.format(k)}entropy_parameters.{i}.mix.weight"].shape[0]
            for k in range(len(groups))
            for i in (0, 2)
        ]
        stages = [[0]]
        for i in range(1, count_in(state_dict, "g_a.")):
            stages[-1].append(i) if f"g_a.{i}.gamma1" in state_dict else stages.append([i])
        if len(stages) != 4:
            raise KeyError("g_a at four resolutions")
        hyper = count_in(state_dict, "h_a.")
        return {
            "N": min(widths) // 2,
            "M": sum(groups),
            "dims": tuple(
                state_dict[key].shape[0]
                for key in (
                    *(f"g_a.{s[0]}.weight" for s in stages[:3]),
                    "h_a.0.weight",
                    f"h_a.{hyper - 1}.weight",
                )
            ),
            "depths": (*(len(s) - 1 for s in stages[:3]), hyper - 2),
            "groups": groups,
        }
