"""Real-time video compression: frames at an eighth of the resolution, without motion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import index
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latens.entropy_models import EntropyBottleneck, EntropyModel, GaussianConditional
from latens.entropy_models.base import check_capacity, check_strings
from latens.entropy_models.gaussian import get_scale_table
from latens.errors import ModelError, ShapeError
from latens.latent_codecs.shares import HALVES, Offset, blank, fill, select
from latens.latent_codecs.steps import Decoding, Encoding, Step, Training
from latens.layers import conv1x1
from latens.models.base import CompressionModel, check_code
from latens.ops import quantize_ste

__all__ = ["DCVCRT", "DCVCRTIntra", "Reference"]

_PIXELS = 3 * 8 * 8
"""Channels of a picture at an eighth of its resolution."""

_QUALITIES = 64
_EVEN: list[Offset] = [(0, 0), (1, 1)]
_ODD: list[Offset] = [(0, 1), (1, 0)]
_TWO = [[_EVEN, _ODD], [_ODD, _EVEN]]
_FOUR = [[[HALVES[k]] for k in order] for order in ((0, 1, 2, 3), (3, 2, 1, 0), (2, 3, 0, 1), (1, 0, 3, 2))]


# -- networks -----------------------------------------------------------------------------------------------------


class _Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(4 * x) * x


class _GatedSum(nn.Module):
    """The gate, and the sum of the two halves of the channels."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = (torch.sigmoid(4 * x) * x).chunk(2, 1)
        return first + second


class _Block(nn.Module):
    """Depthwise and pointwise convolutions with shortcuts; with ``always``, a 1x1 layer comes first in any case."""

    def __init__(self, in_ch: int, out_ch: int, shortcut: bool = False, always: bool = False) -> None:
        super().__init__()
        self.adaptor = conv1x1(in_ch, out_ch) if always or in_ch != out_ch else None
        self._shortcut = shortcut
        depthwise = nn.Conv2d(out_ch, out_ch, 3, padding=1, groups=out_ch)
        self.dc = nn.Sequential(conv1x1(out_ch, out_ch), _Gate(), depthwise, conv1x1(out_ch, out_ch))
        self.ffn = nn.Sequential(conv1x1(out_ch, 4 * out_ch), _GatedSum(), conv1x1(2 * out_ch, out_ch))

    def forward(self, x: Tensor) -> Tensor:
        if self.adaptor is not None:
            x = self.adaptor(x)
        mixed = self.dc(x) + x
        out: Tensor = self.ffn(mixed) + mixed
        return out + x if self._shortcut else out


class _Down(nn.Module):
    def __init__(self, in_ch: int, out_ch: int) -> None:
        super().__init__()
        self.down, self.conv = nn.Conv2d(in_ch, out_ch, 2, stride=2), _Block(out_ch, out_ch, shortcut=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(self.down(x))
        return out


class _Subpixel(nn.Module):
    def __init__(self, in_ch: int, out_ch: int, kernel: int = 1) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(in_ch, 4 * out_ch, kernel, padding=kernel // 2), nn.PixelShuffle(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class _Up(nn.Module):
    def __init__(self, in_ch: int, out_ch: int) -> None:
        super().__init__()
        self.up, self.conv = _Subpixel(in_ch, out_ch), _Block(out_ch, out_ch, shortcut=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(self.up(x))
        return out


def _blocks(*widths: int) -> list[nn.Module]:
    return [_Block(a, b) for a, b in pairwise(widths)]


class _Conv(nn.Module):
    """Layers under the name ``conv``."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


# -- z --------------------------------------------------------------------------------------------------------------


class _Curve(nn.Module):
    """A rising function for each quality and channel."""

    def __init__(self, qualities: int, channels: int, last: bool = False) -> None:
        super().__init__()
        shape = (qualities, channels, 1, 1)
        self.h, self.b = (nn.Parameter(0.01 * torch.randn(shape)) for _ in range(2))
        self.a = None if last else nn.Parameter(0.01 * torch.randn(shape))

    def forward(self, x: Tensor, rows: slice) -> Tensor:
        x = x * F.softplus(self.h[rows]) + self.b[rows]
        return x if self.a is None else x + torch.tanh(x) * torch.tanh(self.a[rows])


class _Bottleneck(EntropyModel):
    """A learned density around zero for each quality and channel."""

    def __init__(self, qualities: int, channels: int) -> None:
        super().__init__(likelihood_bound=0)
        self.qualities, self.channels = qualities, channels
        self.f1, self.f2, self.f3 = (_Curve(qualities, channels) for _ in range(3))
        self.f4 = _Curve(qualities, channels, last=True)
        _keep_out_of_checkpoints(self)

    def _cumulative(self, x: Tensor, rows: slice) -> Tensor:
        for curve in (self.f1, self.f2, self.f3, self.f4):
            x = curve(x, rows)
        return torch.sigmoid(x)

    def forward(self, x: Tensor, qp: int) -> tuple[Tensor, Tensor]:
        """Quantised latents with a straight-through gradient, and likelihoods; ``(B, C, H, W)``."""
        rows = slice(qp, qp + 1)
        noisy = self.quantize(x, "noise" if self.training else "dequantize")
        likelihood = self._cumulative(noisy + 0.5, rows) - self._cumulative(noisy - 0.5, rows)
        return quantize_ste(x), likelihood.clamp_min(1e-9)

    def _table_source(self) -> Tensor:
        return torch.cat([p.detach().flatten().float() for p in self.parameters()])

    @torch.no_grad()
    def _make_tables(self) -> None:
        rows = slice(None)
        reach = torch.arange(2, 9, device=self.f1.h.device, dtype=self.f1.h.dtype)
        # The first distance from zero outside of which hardly anything lies.
        outside = [
            self._cumulative(-reach.expand(self.qualities, self.channels, 1, -1), rows) < 1e-4,
            self._cumulative(reach.expand(self.qualities, self.channels, 1, -1), rows) > 1 - 1e-4,
        ]
        low, high = (2 + (~side).int().cummin(-1).values.sum(-1).clamp(max=6).flatten() for side in outside)
        samples = torch.arange(17, device=low.device)[None] - low[:, None]
        shaped = samples.view(self.qualities, self.channels, 1, -1).to(reach.dtype)
        upper, lower = (self._cumulative(shaped + half, rows).flatten(0, 2) for half in (0.5, -0.5))
        lengths = low + high + 1
        last = upper.gather(1, (lengths - 1).long()[:, None])
        tail = lower[:, :1] + 1 - last
        cdfs = self._pmf_to_cdf((upper - lower).clamp_min(0).float(), tail.float(), lengths, 17)
        self._set_tables(cdfs, lengths + 2, -low)

    def _rows(self, batch: int, size: Sequence[int], qp: int) -> Tensor:
        return EntropyBottleneck._build_indexes((batch, self.channels, *size)) + qp * self.channels

    def compress(self, x: Tensor, qp: int) -> list[bytes]:  # type: ignore[override]
        return super().compress(x, self._rows(len(x), x.shape[2:], qp))

    def decompress(self, strings: Sequence[bytes], size: Sequence[int], qp: int) -> Tensor:  # type: ignore[override]
        check_strings(strings)
        check_capacity(strings, self.channels * math.prod(size))
        return super().decompress(strings, self._rows(len(strings), size, qp), self.f1.h.dtype)


def _eight_bits(x: Tensor) -> Tensor:
    return x.clamp(-128, 127)


def _keep_out_of_checkpoints(model: nn.Module) -> None:
    """Published checkpoints have no buffers: tables are made anew."""
    for module in model.modules():
        module._non_persistent_buffers_set.update(module._buffers)


# -- models ---------------------------------------------------------------------------------------------------------


@dataclass
class Reference:
    """What the next frame is told of this one: the frame ``(B, 3, H, W)``, or features ``(B, C, H/8, W/8)``.

    Features count where there are both.
    """

    frame: Tensor | None = None
    feature: Tensor | None = None


class _Frames(CompressionModel):
    """What pictures on their own and others share."""

    inexact = (
        "its contexts have gates (sigmoid) and gains that docs/entropy.md has no integers for; use its compress() and "
        "decompress(), on one machine"
    )

    _qualities = _QUALITIES
    _scales = (0.11, 16, 128)

    def __init__(self, z_channels: int) -> None:
        super().__init__()
        self.bit_estimator_z = _Bottleneck(self._qualities, z_channels)
        self.gaussian_conditional = GaussianConditional(None)
        _keep_out_of_checkpoints(self.gaussian_conditional)

    def _other_bottlenecks(self) -> Sequence[Any]:
        return (self.bit_estimator_z,)

    @property
    def _gaussian(self) -> GaussianConditional:
        """Of y, with tables."""
        if self.gaussian_conditional.scale_table.numel() == 0:
            self.gaussian_conditional.update_scale_table(get_scale_table(*self._scales))
        return self.gaussian_conditional

    def _checked(self, qp: int, x: Tensor | None = None) -> int:
        """Raises ModelError for another quality than there is, ShapeError for what is no picture."""
        try:
            qp = index(qp)
        except TypeError:
            raise ModelError(f"qp must be a whole number, not {qp!r}") from None
        if not 0 <= qp < self._qualities:
            raise ModelError(f"qp must be 0 to {self._qualities - 1}, not {qp}")
        if x is not None and (x.dim() != 4 or x.shape[1] != 3 or 0 in x.shape):
            raise ShapeError(f"expected pictures (batch, 3, height, width), but got {tuple(x.shape)}")
        if x is not None and (x.shape[2] % 16 or x.shape[3] % 16):
            raise ShapeError(
                f"height and width must be multiples of 16, but the picture is {x.shape[2]}x{x.shape[3]}; pad it with "
                "latens.ops.compute_padding"
            )
        return qp

    @staticmethod
    def _padded(y: Tensor) -> Tensor:
        return F.pad(y, (0, -y.shape[3] % 4, 0, -y.shape[2] % 4), "replicate")

    def _decoder(self, strings: Any, shape: Any, qp: int) -> tuple[Decoding, Tensor, tuple[int, int]]:
        """What decodes y, z, and the size of y."""
        height, width = check_code(strings, shape, 2)
        channels = self._latent_channels()
        step = Decoding(self._gaussian, strings[0], channels * height * width)
        z_hat = self.bit_estimator_z.decompress(strings[1], (-(-height // 4), -(-width // 4)), qp)
        return step, z_hat, (height, width)

    def _latent_channels(self) -> int:
        raise NotImplementedError

    @staticmethod
    def _part(step: Step, scales: Tensor, means: Tensor, y_hat: Tensor, shares: list[list[Offset]]) -> None:
        scales, means = (select(t, shares) for t in (scales, means))

        def take(y: Tensor) -> Tensor:
            # Symbols have eight bits.
            return torch.clamp(select(y, shares), means - 128, means + 127)

        fill(step(take, scales, means), y_hat, shares)

    def _likelihoods(self, step: Training, y: Tensor, schedule: list[list[list[Offset]]]) -> Tensor:
        out = torch.zeros_like(y)
        for part, shares in zip(step.likelihoods, schedule, strict=True):
            fill(part, out, shares)
        return out


class _Halves(nn.Module):
    """Two networks and a gain between them."""

    def __init__(self, name: str, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self._names = f"{name}_1", f"{name}_2"
        for own, network in zip(self._names, (first, second), strict=True):
            self.add_module(own, network)

    def forward(self, x: Tensor, gain: Tensor) -> Tensor:
        first, second = (self.get_submodule(name) for name in self._names)
        out: Tensor = second(first(x) * gain)
        return out


class DCVCRTIntra(_Frames):
    """Pictures on their own, in four steps, at 64 qualities.

    .. code-block:: none

        x ──► enc (x gain) ──► y ──┬──► hyper_enc ──► z ──► hyper_dec, y_prior_fusion ──► steps, scales, means ──┐
                                   └──► step 0, 1, 2, 3 (each knows those before) ◄─────────────────────────────┘
                                            ▼ y_hat
        x_hat ◄── dec (x gain) ◄────────────┘

    ``x`` is ``(B, 3, H, W)``, sides multiples of 16, YCbCr (BT.709) with values from 0 to 1; ``y`` ``(B, N, H/16,
    W/16)``, ``z`` a quarter of that, rounded up. Strings are of this package's coder, not of the authors'.

    Jia, Li, Li, Xie, Qi, Li, Lu, "Towards practical real-time neural video compression", CVPR 2025.

    Args:
        N: channels of the latent, a multiple of 4.
        z_channels: of z.
        dim: of the transforms.

    Raises:
        ModelError: ``N`` is no multiple of 4.
    """

    def __init__(self, N: int = 256, z_channels: int = 128, dim: int = 368) -> None:
        super().__init__(z_channels)
        if N % 4:
            raise ModelError(f"N must be a multiple of 4, not {N}")
        self.N, self.z_channels, self.dim = N, z_channels, dim
        down = nn.Conv2d(dim, N, 3, stride=2, padding=1)
        self.enc = _Halves("enc", _Block(_PIXELS, dim), nn.Sequential(*_blocks(*[dim] * 7), down))
        self.dec = _Halves("dec", nn.Sequential(_Up(N, dim), *_blocks(*[dim] * 13)), _Block(dim, _PIXELS))
        Z = z_channels
        self.hyper_enc = nn.Sequential(_Block(N, Z), _Down(Z, Z), _Down(Z, Z))
        self.hyper_dec = nn.Sequential(_Up(Z, Z), _Up(Z, Z), _Block(Z, N))
        self.y_prior_fusion = nn.Sequential(*_blocks(N, *[2 * N] * 3), conv1x1(2 * N, 2 * N + 2))
        self.y_spatial_prior_reduction = conv1x1(2 * N + 2, N)
        for k in (1, 2, 3):
            self.add_module(f"y_spatial_prior_adaptor_{k}", _Block(2 * N, 2 * N, always=True))
        self.y_spatial_prior = nn.Sequential(*_blocks(*[2 * N] * 4), conv1x1(2 * N, 2 * N))
        self.q_scale_enc, self.q_scale_dec = (
            nn.Parameter(torch.ones(_QUALITIES, dim, 1, 1)) for _ in range(2)
        )

    def _latent_channels(self) -> int:
        return self.N

    def _analysis(self, x: Tensor, qp: int) -> Tensor:
        found: Tensor = self.enc(F.pixel_unshuffle(x, 8), self.q_scale_enc[qp : qp + 1])
        return found

    def _synthesis(self, y_hat: Tensor, qp: int) -> Tensor:
        return F.pixel_shuffle(self.dec(y_hat, self.q_scale_dec[qp : qp + 1]), 8)

    def _side(self, z_hat: Tensor, size: Sequence[int]) -> Tensor:
        found: Tensor = self.y_prior_fusion(self.hyper_dec(z_hat))
        return found[:, :, : size[0], : size[1]].contiguous()

    @staticmethod
    def _gains(side: Tensor) -> tuple[Tensor, Tensor]:
        """What y is multiplied with before it is coded, and after."""
        first, second = (torch.sigmoid(side[:, :2]) * 1.5 + 0.5).chunk(2, 1)
        return first, second

    def _traverse(self, step: Step, side: Tensor) -> Tensor:
        scales, means = side[:, 2:].chunk(2, 1)
        common = self.y_spatial_prior_reduction(side)
        y_hat = blank(side, self.N)
        for k, shares in enumerate(_FOUR):
            if k:
                adapted = getattr(self, f"y_spatial_prior_adaptor_{k}")(torch.cat((y_hat, common), 1))
                scales, means = self.y_spatial_prior(adapted).chunk(2, 1)
            self._part(step, scales, means, y_hat, shares)
        return y_hat * self._gains(side)[1]

    def forward(self, x: Tensor, qp: int) -> dict[str, Any]:
        """Code and decode without strings: ``x_hat`` and ``likelihoods`` of y and z.

        Raises:
            ModelError, ShapeError: as :meth:`compress`.
        """
        qp = self._checked(qp, x)
        y = self._analysis(x, qp)
        z_hat, z_likelihoods = self.bit_estimator_z(_eight_bits(self.hyper_enc(self._padded(y))), qp)
        side = self._side(z_hat, y.shape[2:])
        step = Training(self.gaussian_conditional, y * self._gains(side)[0])
        y_hat = self._traverse(step, side)
        likelihoods = {"y": self._likelihoods(step, y, _FOUR), "z": z_likelihoods}
        return {"x_hat": self._synthesis(y_hat, qp), "likelihoods": likelihoods}

    @torch.no_grad()
    def compress(self, x: Tensor, qp: int) -> dict[str, Any]:
        """Code pictures.

        Returns:
            ``strings``: of y and of z, a list with one for each picture; ``shape``: height and width of y.

        Raises:
            ModelError: no such quality.
            ShapeError: no pictures, or sides that are no multiples of 16.
            CoderError: NaN in pictures or weights.
        """
        qp = self._checked(qp, x)
        y = self._analysis(x, qp)
        z = _eight_bits(self.hyper_enc(self._padded(y)))
        z_strings = self.bit_estimator_z.compress(z, qp)
        side = self._side(z.round(), y.shape[2:])
        step = Encoding(self._gaussian, y * self._gains(side)[0])
        self._traverse(step, side)
        return {"strings": [step.finish(), z_strings], "shape": y.shape[2:]}

    @torch.no_grad()
    def decompress(self, strings: Sequence[Sequence[bytes]], shape: Sequence[int], qp: int) -> dict[str, Any]:
        """Undo :meth:`compress`: ``x_hat``, values from 0 to 1.

        Raises:
            ModelError: no such quality.
            ShapeError: another number of strings or sizes.
            LimitError: so many values do not fit into the strings.
            CoderError: a damaged string.
        """
        qp = self._checked(qp)
        step, z_hat, size = self._decoder(strings, shape, qp)
        y_hat = self._traverse(step, self._side(z_hat, size))
        step.finish()
        return {"x_hat": self._synthesis(y_hat, qp).clamp_(0, 1)}

    @classmethod
    def _arguments(cls, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "N": state_dict["enc.enc_2.6.weight"].shape[0],
            "z_channels": state_dict["bit_estimator_z.f1.h"].shape[1],
            "dim": state_dict["q_scale_enc"].shape[1],
        }


class _Extractor(nn.Module):
    """Contexts of the frame and of its parameters."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Sequential(*_blocks(*[dim] * 3)), nn.Sequential(*_blocks(*[dim] * 5))

    def forward(self, x: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv1(x)
        return self.conv2(x), x * gain


class _Encoder(nn.Module):
    def __init__(self, dim: int, out_ch: int) -> None:
        super().__init__()
        self.conv1 = conv1x1(_PIXELS, dim)
        self.conv2 = nn.Sequential(*_blocks(2 * dim, dim, dim))
        self.conv3 = _Block(dim, dim)
        self.down = nn.Conv2d(dim, out_ch, 3, stride=2, padding=1)

    def forward(self, x: Tensor, context: Tensor, gain: Tensor) -> Tensor:
        x = self.conv2(torch.cat((self.conv1(F.pixel_unshuffle(x, 8)), context), 1))
        out: Tensor = self.down(self.conv3(x) * gain)
        return out


class _Decoder(nn.Module):
    def __init__(self, dim: int, in_ch: int) -> None:
        super().__init__()
        self.up = _Subpixel(in_ch, dim, 3)
        self.conv1 = nn.Sequential(*_blocks(2 * dim, dim, dim, dim))
        self.conv2 = conv1x1(dim, dim)

    def forward(self, x: Tensor, context: Tensor, gain: Tensor) -> Tensor:
        out: Tensor = self.conv2(self.conv1(torch.cat((self.up(x), context), 1))) * gain
        return out


class _Generator(nn.Module):
    def __init__(self, dim: int, wide: int) -> None:
        super().__init__()
        self.conv, self.head = nn.Sequential(*_blocks(dim, *[wide] * 4)), conv1x1(wide, _PIXELS)

    def forward(self, x: Tensor, gain: Tensor) -> Tensor:
        return F.pixel_shuffle(self.head(self.conv(x) * gain), 8).clamp(0, 1)


class DCVCRT(_Frames):
    """Frames that are told of the one before, in two steps, at 72 qualities.

    .. code-block:: none

        reference ──► adaptor ──► feature_extractor ──► context ─────────────┬──────────────────┐
                                          └──► temporal_prior_encoder ──┐    │                  ▼
        x ──► encoder (x gain, context) ──► y ──► hyper_encoder ──► z ──┴──► steps, scales, means
                                            └──► step 0, step 1 ──► y_hat ──► decoder ──► feature ──► x_hat

    Nothing moves: what the frame before looked like is known to 8x8 pixels with 256 features. The feature is what
    the next frame is told; a frame decoded otherwise (:class:`DCVCRTIntra`) is one, too. Shapes and colours are those
    of :class:`DCVCRTIntra`; ``qp`` goes to 71, because frames of a group may be shifted by 8.

    Jia, Li, Li, Xie, Qi, Li, Lu, "Towards practical real-time neural video compression", CVPR 2025.

    Args:
        N: channels of the latent, a multiple of 2.
        z_channels: of z.
        dim: of features and contexts.
        wide: of the layers that make pixels.

    Raises:
        ModelError: ``N`` is odd.
    """

    _qualities = _QUALITIES + 8

    def __init__(self, N: int = 128, z_channels: int = 128, dim: int = 256, wide: int = 320) -> None:
        super().__init__(z_channels)
        if N % 2:
            raise ModelError(f"N must be a multiple of 2, not {N}")
        self.N, self.z_channels, self.dim, self.wide = N, z_channels, dim, wide
        Z = z_channels
        self.feature_adaptor_i, self.feature_adaptor_p = _Block(_PIXELS, dim), conv1x1(dim, dim)
        self.feature_extractor = _Extractor(dim)
        self.encoder, self.decoder = _Encoder(dim, N), _Decoder(dim, N)
        self.hyper_encoder = _Conv(_Block(N, Z), _Down(Z, Z), _Down(Z, Z))
        self.hyper_decoder = _Conv(_Up(Z, Z), _Up(Z, Z), _Block(Z, N))
        self.temporal_prior_encoder = _Down(dim, 2 * N)
        self.y_prior_fusion = _Conv(*_blocks(*[3 * N] * 4), conv1x1(3 * N, 3 * N))
        self.y_spatial_prior = _Conv(*_blocks(4 * N, 3 * N, 3 * N), conv1x1(3 * N, 2 * N))
        self.recon_generation_net = _Generator(dim, wide)
        for name, width in (("encoder", dim), ("decoder", dim), ("feature", dim), ("recon", wide)):
            self.register_parameter(f"q_{name}", nn.Parameter(torch.ones(self._qualities, width, 1, 1)))

    def _latent_channels(self) -> int:
        return self.N

    def _gain(self, name: str, qp: int) -> Tensor:
        gains: Tensor = getattr(self, f"q_{name}")
        return gains[qp : qp + 1]

    def _contexts(self, reference: Reference, qp: int) -> tuple[Tensor, Tensor]:
        if reference.feature is not None:
            known = self.feature_adaptor_p(reference.feature)
        elif reference.frame is not None:
            known = self.feature_adaptor_i(F.pixel_unshuffle(reference.frame, 8))
        else:
            raise ModelError("a frame needs a reference: the frame before, or its features")
        context, parameters = self.feature_extractor(known, self._gain("feature", qp))
        return context, parameters

    def _side(self, z_hat: Tensor, parameters: Tensor) -> Tensor:
        temporal = self.temporal_prior_encoder(parameters)
        hyper = self.hyper_decoder(z_hat)[:, :, : temporal.shape[2], : temporal.shape[3]]
        found: Tensor = self.y_prior_fusion(torch.cat((hyper, temporal), 1))
        return found

    def _traverse(self, step: Step, side: Tensor) -> Tensor:
        size, scales, means = side.chunk(3, 1)
        y_hat = blank(side, self.N)
        for k, shares in enumerate(_TWO):
            if k:
                scales, means = self.y_spatial_prior(torch.cat((y_hat, side), 1)).chunk(2, 1)
            self._part(step, scales, means, y_hat, shares)
        return y_hat * size.clamp_min(0.5)

    @staticmethod
    def _scaled(y: Tensor, side: Tensor) -> Tensor:
        return y * torch.reciprocal(side.chunk(3, 1)[0].clamp_min(0.5))

    def _check_reference(self, x: Tensor, reference: Reference) -> None:
        known = reference.frame if reference.feature is None else reference.feature
        factor = 1 if reference.feature is None else 8
        if known is not None and tuple(factor * s for s in known.shape[2:]) != tuple(x.shape[2:]):
            raise ShapeError(
                f"the reference is of a picture of {factor * known.shape[2]}x{factor * known.shape[3]}, not of "
                f"{x.shape[2]}x{x.shape[3]}"
            )

    def forward(self, x: Tensor, qp: int, reference: Reference) -> dict[str, Any]:
        """Code and decode without strings: ``x_hat``, ``likelihoods`` of y and z, ``reference`` for the next frame.

        Raises:
            ModelError, ShapeError: as :meth:`compress`.
        """
        qp = self._checked(qp, x)
        self._check_reference(x, reference)
        context, parameters = self._contexts(reference, qp)
        y = self.encoder(x, context, self._gain("encoder", qp))
        z_hat, z_likelihoods = self.bit_estimator_z(_eight_bits(self.hyper_encoder(self._padded(y))), qp)
        side = self._side(z_hat, parameters)
        step = Training(self.gaussian_conditional, self._scaled(y, side))
        feature = self.decoder(self._traverse(step, side), context, self._gain("decoder", qp))
        x_hat = self.recon_generation_net(feature, self._gain("recon", qp))
        likelihoods = {"y": self._likelihoods(step, y, _TWO), "z": z_likelihoods}
        return {"x_hat": x_hat, "likelihoods": likelihoods, "reference": Reference(x_hat, feature)}

    @torch.no_grad()
    def compress(self, x: Tensor, qp: int, reference: Reference) -> dict[str, Any]:
        """Code frames.

        Returns:
            ``strings``: of y and of z, a list with one for each frame; ``shape``: height and width of y;
            ``reference``: what the decoder will have for the next frame, without pixels.

        Raises:
            ModelError: no such quality, or no reference.
            ShapeError: no frames, sides that are no multiples of 16, or a reference of another size.
            CoderError: NaN in frames or weights.
        """
        qp = self._checked(qp, x)
        self._check_reference(x, reference)
        context, parameters = self._contexts(reference, qp)
        y = self.encoder(x, context, self._gain("encoder", qp))
        z = _eight_bits(self.hyper_encoder(self._padded(y)))
        z_strings = self.bit_estimator_z.compress(z, qp)
        side = self._side(z.round(), parameters)
        step = Encoding(self._gaussian, self._scaled(y, side))
        feature = self.decoder(self._traverse(step, side), context, self._gain("decoder", qp))
        return {
            "strings": [step.finish(), z_strings],
            "shape": y.shape[2:],
            "reference": Reference(feature=feature),
        }

    @torch.no_grad()
    def decompress(
        self, strings: Sequence[Sequence[bytes]], shape: Sequence[int], qp: int, reference: Reference
    ) -> dict[str, Any]:
        """Undo :meth:`compress`: ``x_hat``, and ``reference`` for the next frame.

        Raises:
            ModelError: no such quality, or no reference.
            ShapeError: another number of strings or sizes, or a reference of another size.
            LimitError: so many values do not fit into the strings.
            CoderError: a damaged string.
        """
        qp = self._checked(qp)
        step, z_hat, size = self._decoder(strings, shape, qp)
        context, parameters = self._contexts(reference, qp)
        if tuple(context.shape[2:]) != tuple(2 * s for s in size):
            raise ShapeError(f"the reference has another size than the frame, 16 times {size}")
        y_hat = self._traverse(step, self._side(z_hat, parameters))
        step.finish()
        feature = self.decoder(y_hat, context, self._gain("decoder", qp))
        x_hat = self.recon_generation_net(feature, self._gain("recon", qp))
        return {"x_hat": x_hat, "reference": Reference(x_hat, feature)}

    @classmethod
    def _arguments(cls, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "N": state_dict["encoder.down.weight"].shape[0],
            "z_channels": state_dict["bit_estimator_z.f1.h"].shape[1],
            "dim": state_dict["q_encoder"].shape[1],
            "wide": state_dict["q_recon"].shape[1],
        }
