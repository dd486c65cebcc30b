"""Activation-free blocks in transforms and contexts, trained so that early slices inform later ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latens.entropy_models import EntropyBottleneck, GaussianConditional
from latens.errors import ModelError
from latens.layers import conv1x1
from latens.models.sensetime import ResidualBottleneckBlock
from latens.models.stepwise import ChannelSlices, context_network, count_in
from latens.models.utils import conv, deconv

__all__ = ["CCA"]

_AUXILIARY = "aux_entropymodel."
"""Networks that only the authors' training has: they estimate what one slice more of context is worth."""


class _ChannelNorm(nn.Module):
    """Mean 0 and variance 1 over the channels of each position, then a learned scale and shift."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        by_position = x.permute(0, 2, 3, 1)
        return F.layer_norm(by_position, self.weight.shape, self.weight, self.bias, 1e-6).permute(0, 3, 1, 2)


def _gate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    return a * b


class _Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _gate(x)


class _PlainBlock(nn.Module):
    """Products of halves of the channels where others have activations; each branch scaled, from zero on.

    Chen, Chu, Zhang, Sun, "Simple baselines for image restoration", ECCV 2022 (NAFNet).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Sequential(
            conv1x1(dim, 2 * dim), nn.Conv2d(2 * dim, 2 * dim, 3, padding=1, groups=2 * dim)
        )
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv1x1(dim, dim))
        self.FFN = nn.Sequential(conv1x1(dim, 2 * dim), _Gate(), conv1x1(dim, dim))
        self.norm1, self.norm2 = _ChannelNorm(dim), _ChannelNorm(dim)
        self.conv1 = conv1x1(dim, dim)
        self.beta = nn.Parameter(torch.zeros(1, dim, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, dim, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, H, W)``, shape kept."""
        gated = _gate(self.dwconv(self.norm1(x)))
        x = torch.addcmul(x, self.conv1(gated * self.sca(gated)), self.beta)
        return torch.addcmul(x, self.FFN(self.norm2(x)), self.gamma)


class _PlainBlocks(nn.Module):
    """Blocks at another width, with a shortcut around them."""

    def __init__(self, dim: int, width: int, layers: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_PlainBlock(width) for _ in range(layers))
        self.in_conv, self.out_conv = conv1x1(dim, width), conv1x1(width, dim)

    def forward(self, x: Tensor) -> Tensor:
        start = x = self.in_conv(x)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.out_conv(x + start)
        return out


class _Analysis(nn.Module):
    def __init__(self, dims: Sequence[int], layers: Sequence[int], M: int) -> None:
        super().__init__()
        widths = [3, *dims, M]
        self.down = nn.ModuleList(conv(a, b) for a, b in pairwise(widths))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(ResidualBottleneckBlock(d, d) for _ in range(3)), *(_PlainBlock(d) for _ in range(n))
            )
            for d, n in zip(dims, layers, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        for down, block in zip(self.down[:-1], self.blocks, strict=True):
            x = block(down(x))
        out: Tensor = self.down[-1](x)
        return out


class _Synthesis(nn.Module):
    def __init__(self, dims: Sequence[int], layers: Sequence[int], M: int) -> None:
        super().__init__()
        widths = [M, *reversed(dims), 3]
        self.up = nn.ModuleList(deconv(a, b) for a, b in pairwise(widths))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(_PlainBlock(d) for _ in range(n)), *(ResidualBottleneckBlock(d, d) for _ in range(3))
            )
            for d, n in zip(reversed(dims), reversed(layers), strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        for up, block in zip(self.up[:-1], self.blocks, strict=True):
            x = block(up(x))
        out: Tensor = self.up[-1](x)
        return out


class CCA(ChannelSlices):
    """Activation-free blocks (NAFNet) in transforms and in front of the contexts; uneven slices of channels.

    Data flow: :class:`latens.models.stepwise.ChannelSlices`, all slices so far being context. ``x`` is
    ``(B, 3, H, W)`` with values from 0 to 1, sides multiples of 64; ``y``, scales and means ``(B, M, H/16, W/16)``,
    ``z`` ``(B, Z, H/64, W/64)``.

    Han, Jiang, Chen, Wang, Wu, "Causal context adjustment loss for learned image compression", NeurIPS 2024. The loss
    of the title needs an auxiliary model beside this one while training, which is not here; what a checkpoint has of
    it is left out.

    Args:
        M: channels of the latent.
        num_slices: slices of the latent, of equal sizes, the last one with what is left; or
        slices: shares of the channels for each slice.
        em_dim: channels of the blocks in front of the context networks.
        em_layers: how many of them.
        ae_dim: channels of the transforms at a half, a quarter and an eighth of the resolution.
        ae_layers: blocks at each.
        Z: channels of z.
        context: widths of the hidden layers of the context networks.

    Raises:
        ModelError: slices without channels, or not three resolutions.
    """

    max_support_slices = -1

    def __init__(
        self,
        M: int = 320,
        num_slices: int = 5,
        em_dim: int = 224,
        em_layers: int = 4,
        ae_dim: Sequence[int] = (192, 224, 256),
        ae_layers: Sequence[int] = (4, 4, 4),
        Z: int = 192,
        slices: Sequence[int] | None = None,
        context: Sequence[int] = (224, 128),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if len(ae_dim) != 3 or len(ae_layers) != 3:
            raise ModelError(f"ae_dim and ae_layers must be three each, not {ae_dim} and {ae_layers}")
        shares = [1] * num_slices if slices is None else list(slices)
        if not shares or min(shares) < 1:
            raise ModelError(f"slices must be positive shares of the channels, not {shares}")
        self._sizes = [M * share // sum(shares) for share in shares]
        self._sizes[-1] += M - sum(self._sizes)
        if min(self._sizes) < 1:
            raise ModelError(f"{M} channels of the latent cannot be cut into slices of {self._sizes}")
        self.M, self.Z, self.num_slices, self.slices = M, Z, len(shares), tuple(shares)
        self.em_dim, self.em_layers, self.context = em_dim, em_layers, tuple(context)
        self.ae_dim, self.ae_layers = tuple(ae_dim), tuple(ae_layers)
        self.g_a, self.g_s = _Analysis(ae_dim, ae_layers, M), _Synthesis(ae_dim, ae_layers, M)
        width = ae_dim[2]
        self.h_a = nn.Sequential(
            conv(M, width, stride=1, kernel_size=3), nn.GELU(), conv(width, width), nn.GELU(), conv(width, Z)
        )

        def hyper_synthesis() -> nn.Sequential:
            last = deconv(width, M, stride=1, kernel_size=3)
            return nn.Sequential(deconv(Z, width), nn.GELU(), deconv(width, width), nn.GELU(), last)

        self.h_mean_s, self.h_scale_s = hyper_synthesis(), hyper_synthesis()
        inputs = [M + sum(self._sizes[:k]) for k in range(self.num_slices)]
        sized = list(zip(inputs, self._sizes, strict=True))
        self.mean_NAF_transforms = nn.ModuleList(_PlainBlocks(n, em_dim, em_layers) for n in inputs)
        self.scale_NAF_transforms = nn.ModuleList(_PlainBlocks(n, em_dim, em_layers) for n in inputs)
        self.mean_cc_transforms = nn.ModuleList(context_network((n, *context, size)) for n, size in sized)
        self.scale_cc_transforms = nn.ModuleList(context_network((n, *context, size)) for n, size in sized)
        self.lrp_transforms = nn.ModuleList(context_network((n + size, *context, size)) for n, size in sized)
        self.z_entropy_bottleneck = EntropyBottleneck(Z)
        self.gaussian_conditional = GaussianConditional(None)

    @property
    def _bottleneck(self) -> EntropyBottleneck:
        return self.z_entropy_bottleneck

    def _heads(self, k: int) -> tuple[nn.Module, nn.Module, nn.Module]:
        return self.mean_cc_transforms[k], self.scale_cc_transforms[k], self.lrp_transforms[k]

    def _supports(self, k: int, side: tuple[Tensor, Tensor], before: list[Tensor]) -> tuple[Tensor, Tensor]:
        for_means, for_scales = super()._supports(k, side, before)
        return self.mean_NAF_transforms[k](for_means), self.scale_NAF_transforms[k](for_scales)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """See :meth:`CompressionModel.load_state_dict`; networks that only training has are left out."""
        own = {
            key: v for key, v in state_dict.items() if not key.removeprefix("module.").startswith(_AUXILIARY)
        }
        return super().load_state_dict(own, *args, **kwargs)

    @classmethod
    def _arguments(cls, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        count = count_in(state_dict, "lrp_transforms.")
        hidden = count_in(state_dict, "lrp_transforms.0.") - 1
        naf = "mean_NAF_transforms.0."
        return {
            "M": state_dict["h_a.0.weight"].shape[1],
            "slices": tuple(
                state_dict[f"lrp_transforms.{k}.{2 * hidden}.weight"].shape[0] for k in range(count)
            ),
            "em_dim": state_dict[naf + "in_conv.weight"].shape[0],
            "em_layers": count_in(state_dict, naf + "blocks."),
            "ae_dim": tuple(state_dict[f"g_a.down.{i}.weight"].shape[0] for i in range(3)),
            "ae_layers": tuple(count_in(state_dict, f"g_a.blocks.{i}.") - 3 for i in range(3)),
            "Z": state_dict["z_entropy_bottleneck.quantiles"].shape[0],
            "context": tuple(state_dict[f"lrp_transforms.0.{2 * i}.weight"].shape[0] for i in range(hidden)),
        }
