"""Checkerboard context, and space-channel context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from latens.entropy_models import EntropyBottleneck
from latens.errors import ModelError
from latens.latent_codecs import (
    ChannelGroupsLatentCodec,
    CheckerboardLatentCodec,
    GaussianConditionalLatentCodec,
    HyperLatentCodec,
    HyperpriorLatentCodec,
)
from latens.layers import (
    AttentionBlock,
    CheckerboardMaskedConv2d,
    ResidualBlock,  # noqa: F401  (derived models import these from here)
    ResidualBlockUpsample,  # noqa: F401
    ResidualBlockWithStride,  # noqa: F401
    conv1x1,
    conv3x3,
    sequential_channel_ramp,
    subpel_conv3x3,  # noqa: F401
)
from latens.layers.residual import add_bottleneck, add_shortcut
from latens.models.base import SimpleVAECompressionModel
from latens.models.utils import conv, deconv
from latens.models.waseda import hyper_analysis, hyper_synthesis, residual_analysis, residual_synthesis
from latens.registry import register_model  # noqa: F401  (as above)

__all__ = ["Cheng2020AnchorCheckerboard", "Elic2022Chandelier", "Elic2022Official", "ResidualBottleneckBlock"]


class ResidualBottleneckBlock(nn.Module):
    """1x1, 3x3, 1x1 at half the width, and a shortcut.

    He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016.

    Args:
        in_ch: channels of the input.
        out_ch: channels of the output.
        inplace: the input may be overwritten where no gradients are asked for, which saves memory and time.
    """

    def __init__(self, in_ch: int, out_ch: int, *, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = bool(inplace)
        middle = min(in_ch, out_ch) // 2
        self.conv1 = conv1x1(in_ch, middle)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(middle, middle)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = conv1x1(middle, out_ch)
        self.skip = conv1x1(in_ch, out_ch) if in_ch != out_ch else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_ch, H, W)`` to ``(B, out_ch, H, W)``."""
        if self.inplace and not torch.is_grad_enabled() and isinstance(self.skip, nn.Identity):
            narrow, middle = nn.Sequential(self.conv1, self.relu1), nn.Sequential(self.conv2, self.relu2)
            return add_bottleneck(x, narrow, middle, self.conv3, inplace=True)
        shortcut: Tensor = self.skip(x)
        out: Tensor = self.conv3(self.relu2(self.conv2(self.relu1(self.conv1(x)))))
        return add_shortcut(out, shortcut)


class Cheng2020AnchorCheckerboard(SimpleVAECompressionModel):
    """Residual transforms with a checkerboard context: two steps instead of one per position.

    .. code-block:: none

        x ──► g_a ──► y ──┬──► hyper (h_a, EntropyBottleneck, h_s) ──► params ──┐
                          └──► checkerboard (anchors, then the others) ◄────────┘
                                     ▼ y_hat
        x_hat ◄── g_s ◄──────────────┘

    ``x`` is ``(B, 3, H, W)`` with values from 0 to 1, ``y``, scales and means ``(B, N, H/16, W/16)``, ``z``
    ``(B, N, H/64, W/64)``; scales and means are in quantisation steps.

    Transforms: Cheng, Sun, Takeuchi, Katto, "Learned image compression with discretized Gaussian mixture
    likelihoods and attention modules", CVPR 2020. Context: He, Zheng, Sun, Wang, Qin, "Checkerboard context
    model for efficient learned image compression", CVPR 2021.

    Args:
        N: channels of transforms and latent.
    """

    _step, _multiple = 16, 4

    def __init__(self, N: int = 192, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.g_a = residual_analysis(N)
        self.g_s = residual_synthesis(N)
        # In CompressAI's order: the same seed then gives the same weights.
        h_a, h_s = hyper_analysis(N), hyper_synthesis(N)
        self.latent_codec = HyperpriorLatentCodec(
            {
                "y": CheckerboardLatentCodec(
                    {"y": GaussianConditionalLatentCodec(quantizer="ste")},
                    entropy_parameters=nn.Sequential(
                        nn.Conv2d(N * 12 // 3, N * 10 // 3, 1),
                        nn.LeakyReLU(inplace=True),
                        nn.Conv2d(N * 10 // 3, N * 8 // 3, 1),
                        nn.LeakyReLU(inplace=True),
                        nn.Conv2d(N * 8 // 3, N * 6 // 3, 1),
                    ),
                    context_prediction=CheckerboardMaskedConv2d(N, 2 * N, 5, padding=2),
                ),
                "hyper": HyperLatentCodec(EntropyBottleneck(N), h_a, h_s, quantizer="ste"),
            }
        )
        self.N = N

    @staticmethod
    def _arguments(state_dict: Mapping[str, Any]) -> dict[str, int]:
        return {"N": state_dict["g_a.0.conv1.weight"].shape[0]}


def _bottlenecks(N: int) -> list[nn.Module]:
    return [ResidualBottleneckBlock(N, N, inplace=True) for _ in range(3)]


class Elic2022Official(SimpleVAECompressionModel):
    """Uneven groups of channels, each coded in two checkerboard steps, with all groups before it as context.

    .. code-block:: none

        x ──► g_a ──► y ──┬──► hyper (h_a, EntropyBottleneck, h_s) ──► params ──┐
                          └──► group 0, group 1, ... (each a checkerboard) ◄────┘
                                     ▼ y_hat
        x_hat ◄── g_s ◄──────────────┘

    ``x`` is ``(B, 3, H, W)`` with values from 0 to 1, ``y``, scales and means ``(B, M, H/16, W/16)``, ``z``
    ``(B, N, H/64, W/64)``; scales and means are in quantisation steps.

    He, Yang, Peng, Ma, Qin, Wang, "ELIC: Efficient learned image compression with unevenly grouped
    space-channel contextual adaptive coding", CVPR 2022.

    Args:
        N: channels of the transforms.
        M: channels of the latent.
        groups: channels of each group, ``M`` together; by default 16, 16, 32, 64 and the rest.

    Raises:
        ModelError: the groups do not add up to ``M``.
    """

    _step, _multiple = 16, 4
    _chunks = ("scales", "means")

    def __init__(
        self, N: int = 192, M: int = 320, groups: Sequence[int] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.groups = [16, 16, 32, 64, M - 128] if groups is None else list(groups)
        if sum(self.groups) != M or min(self.groups) < 1:
            raise ModelError(f"groups must be positive and add up to M={M}, but are {self.groups}")
        self.g_a = nn.Sequential(
            conv(3, N),
            *_bottlenecks(N),
            conv(N, N),
            *_bottlenecks(N),
            AttentionBlock(N),
            conv(N, N),
            *_bottlenecks(N),
            conv(N, M),
            AttentionBlock(M),
        )
        self.g_s = nn.Sequential(
            AttentionBlock(M),
            deconv(M, N),
            *_bottlenecks(N),
            deconv(N, N),
            AttentionBlock(N),
            *_bottlenecks(N),
            deconv(N, N),
            *_bottlenecks(N),
            deconv(N, 3),
        )
        h_a = nn.Sequential(
            conv(M, N, kernel_size=3, stride=1),
            nn.ReLU(inplace=True),
            conv(N, N),
            nn.ReLU(inplace=True),
            conv(N, N),
        )
        # In CompressAI's order: the same seed then gives the same weights.
        h_s = self._hyper_synthesis(N, M)
        channel_context = {
            f"y{k}": nn.Sequential(
                conv(self._context_channels(k), 224, stride=1),
                nn.ReLU(inplace=True),
                conv(224, 128, stride=1),
                nn.ReLU(inplace=True),
                conv(128, self.groups[k] * 2, stride=1),
            )
            for k in range(1, len(self.groups))
        }
        spatial = [CheckerboardMaskedConv2d(size, size * 2, 5, padding=2) for size in self.groups]
        aggregation = [
            self._aggregation(size, (2 if k == 0 else 4) * size, N, M) for k, size in enumerate(self.groups)
        ]
        codecs = {
            f"y{k}": CheckerboardLatentCodec(
                {"y": GaussianConditionalLatentCodec(quantizer="ste", chunks=self._chunks)},
                entropy_parameters=aggregation[k],
                context_prediction=spatial[k],
            )
            for k in range(len(self.groups))
        }
        self.latent_codec = HyperpriorLatentCodec(
            {
                "y": self._groups_codec(codecs, channel_context),
                "hyper": HyperLatentCodec(EntropyBottleneck(N), h_a, h_s, quantizer="ste"),
            }
        )
        self.N = N
        self.M = M

    def _context_channels(self, k: int) -> int:
        return sum(self.groups[:k])

    def _hyper_synthesis(self, N: int, M: int) -> nn.Sequential:
        return nn.Sequential(
            deconv(N, N),
            nn.ReLU(inplace=True),
            deconv(N, N * 3 // 2),
            nn.ReLU(inplace=True),
            deconv(N * 3 // 2, N * 2, kernel_size=3, stride=1),
        )

    def _aggregation(self, size: int, contexts: int, N: int, M: int) -> nn.Sequential:
        """From contexts and side parameters to those of a group of ``size`` channels."""
        return sequential_channel_ramp(
            contexts + N * 2,
            size * 2,
            min_ch=N * 2,
            make_layer=nn.Conv2d,
            make_act=lambda: nn.ReLU(inplace=True),
            kernel_size=1,
        )

    def _groups_codec(
        self, codecs: Mapping[str, CheckerboardLatentCodec], channel_context: Mapping[str, nn.Module]
    ) -> ChannelGroupsLatentCodec:
        return ChannelGroupsLatentCodec(codecs, channel_context, groups=self.groups)

    @staticmethod
    def _arguments(state_dict: Mapping[str, Any]) -> dict[str, Any]:
        groups: list[int] = []
        for k in count():
            key = f"latent_codec.y.latent_codec.y{k}.context_prediction.weight"
            if k > 0 and key not in state_dict:
                break
            groups.append(state_dict[key].shape[1])
        return {"N": state_dict["g_a.0.weight"].shape[0], "M": sum(groups), "groups": groups}


class _FirstAndLast(ChannelGroupsLatentCodec):
    """Context from the first group and the one coded last."""

    def merge_y(self, *args: Tensor) -> Tensor:
        return args[0] if len(args) == 1 else torch.cat((args[0], args[-1]), dim=1)


class Elic2022Chandelier(Elic2022Official):
    """The variant of ELIC by V. Chandelier (2023): only the first and the last group so far are context.

    Parameters are in the order means, scales. Data flow, shapes, units and arguments are otherwise those of
    :class:`Elic2022Official`.
    """

    _chunks = ("means", "scales")

    def _context_channels(self, k: int) -> int:
        return self.groups[0] + (self.groups[k - 1] if k > 1 else 0)

    def _hyper_synthesis(self, N: int, M: int) -> nn.Sequential:
        return nn.Sequential(
            deconv(N, N),
            nn.ReLU(inplace=True),
            deconv(N, N * 3 // 2),
            nn.ReLU(inplace=True),
            conv(N * 3 // 2, M * 2, kernel_size=3, stride=1),
        )

    def _aggregation(self, size: int, contexts: int, N: int, M: int) -> nn.Sequential:
        return nn.Sequential(
            conv1x1(contexts + M * 2, M * 2),
            nn.ReLU(inplace=True),
            conv1x1(M * 2, 512),
            nn.ReLU(inplace=True),
            conv1x1(512, size * 2),
        )

    def _groups_codec(
        self, codecs: Mapping[str, CheckerboardLatentCodec], channel_context: Mapping[str, nn.Module]
    ) -> ChannelGroupsLatentCodec:
        return _FirstAndLast(codecs, channel_context, groups=self.groups)
