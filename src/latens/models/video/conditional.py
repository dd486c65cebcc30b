"""The default video model: latents coded under the condition of the picture before, moved where blocks went.

Pictures that need no other are those of the default image model, which also makes the latents and most of the
picture of all others; what is trained here is what says how probable these latents are, and a last pass over the
picture.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from latens.errors import ModelError
from latens.layers.depthconv import DepthConvBlock
from latens.models.latens_base import (
    STREAM_SCALE,
    LatensBase,
    asinh,
    first_step_mask,
    in_float32,
    likelihoods_of_y,
    likelihoods_of_z,
)
from latens.models.video.motion import compensate, search
from latens.ops import quantize_ste

__all__ = ["Context", "LatensVideo", "LatensVideoConfig", "settled"]

_GATE_START = 2.0  # sigmoid(2) = 0.88 of a latent is taken from the picture before


@dataclass(frozen=True)
class LatensVideoConfig:
    """Sizes of a :class:`LatensVideo` beyond those of its image model. Saved beside the weights.

    Attributes:
        context_blocks: at 1/16 resolution, on what the means are predicted from.
        picture_blocks: at 1/8 resolution, in the last pass over the picture.
    """

    context_blocks: int = 1
    picture_blocks: int = 2

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LatensVideoConfig:
        """The inverse of :meth:`to_dict`."""
        return cls(**values)

    def __post_init__(self) -> None:
        # The configuration comes from files too.
        if not all(type(n) is int and 0 <= n <= 16 for n in (self.context_blocks, self.picture_blocks)):
            raise ModelError(f"model configuration: a size is out of range in {self}")


class Context(NamedTuple):
    """What the picture before says about a picture.

    Attributes:
        picture: the picture before, its blocks moved: ``(B, 3, H, W)``.
        latent: what the image model makes of it, in units of the quantiser: ``(B, M, H/16, W/16)`` float32.
        features: of it, that means and gates are made of: ``(B, inner, H/16, W/16)``.
    """

    picture: Tensor
    latent: Tensor
    features: Tensor


class LatensVideo(nn.Module):
    r"""Conditional coding of latents of the image model, in blocks at 1/8 and 1/16 resolution.

    .. code-block:: none

        picture before ─ moved by blocks ─ g_a ── T ──────────┬──────────────────┐
                                                              ▼                  ▼
        x ─ g_a ─ * gain ─ y ── round around mean ─ y_hat    h_a(y - T, T) ─ z ─ h_scale (integers) ─ table index
                                          │    ▲                             └── h_mean ─ gate * T + ... ─ mean
                                          ▼    └─────────────────────────────────────────────────────────────┘
                                         g_s ─ blend with the picture before ─ x_hat

    In files, only h_a, the prior and h_scale are used of it, with T as the mean (``docs/pixels.md``); this is the
    network that they are trained in.

    Conditional coding in place of residuals is that of Li, Li and Lu (NeurIPS 2021, DCVC); that everything happens at
    1/8 resolution and below, in depthwise blocks and with one set of weights for all qualities, is that of Jia et al.
    (CVPR 2025, DCVC-RT). Motion is not learned: vectors of blocks are searched for (:mod:`latens.models.video.motion`).
    g_a, g_s and gains are those of the image model, and are not trained here.

    Shapes: frames ``(B, 3, H, W)`` in 0..1, H and W multiples of 64. Quality is a real number in 0..1 per sample,
    as that of :class:`latens.models.latens_base.LatensBase`.

    Args:
        image: the image model; it stays as it is, and is not part of ``state_dict()``.
        config: sizes.
    """

    def __init__(self, image: LatensBase, config: LatensVideoConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LatensVideoConfig()
        # In a list, so that it is neither trained nor saved with this model.
        self._image = [image.requires_grad_(False).eval()]
        N, M, inner = image.config.N, image.config.M, image.config.inner
        # What predicts latents starts as that of the image model, for what the condition leaves unsaid of them.
        self.h_a = copy.deepcopy(image.h_a)
        entry = cast(nn.Conv2d, self.h_a[0])
        self.h_a[0] = wider = nn.Conv2d(2 * M, inner, 1)
        with torch.no_grad():
            wider.weight.copy_(torch.cat([entry.weight, torch.zeros_like(entry.weight)], 1))
            cast(Tensor, wider.bias).copy_(cast(Tensor, entry.bias))
        self.z_offset = nn.Parameter(image.z_offset.detach().clone())
        self.prior = copy.deepcopy(image.prior)
        self.h_scale, self.h_mean, self.context = (
            copy.deepcopy(part) for part in (image.h_scale, image.h_mean, image.context)
        )
        self.mean_0, self.mean_1 = copy.deepcopy(image.mean_0), copy.deepcopy(image.mean_1)
        self.temporal = nn.Conv2d(M, inner, 1)
        self.temporal_blocks = nn.Sequential(*(DepthConvBlock(inner) for _ in range(config.context_blocks)))
        self.gate_0, self.gate_1 = nn.Conv2d(inner, M, 1), nn.Conv2d(inner, M, 1)
        for conv, bias in ((self.temporal, 0.0), (self.gate_0, _GATE_START), (self.gate_1, _GATE_START)):
            nn.init.zeros_(conv.weight)
            nn.init.constant_(cast(Tensor, conv.bias), bias)
        self.blend_in = nn.Conv2d(2 * N, N, 1)
        self.blend = nn.Sequential(*(DepthConvBlock(N) for _ in range(config.picture_blocks)))
        self.blend_out = nn.Conv2d(N, 2 * N, 1)
        nn.init.zeros_(self.blend_out.weight)
        with torch.no_grad():
            start = cast(Tensor, self.blend_out.bias)
            start[:N], start[N:] = 0.0, -_GATE_START
        self.requires_grad_(True)

    @property
    def image(self) -> LatensBase:
        """The image model."""
        return self._image[0]

    def _apply(self, fn: Any, recurse: bool = True) -> LatensVideo:
        # Moved between devices and types together with this model.
        self.image._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    # -- the parts -----------------------------------------------------------------------------------------

    def price(self, quality: Tensor) -> Tensor:
        """What a bit of motion may cost, for :func:`latens.models.video.motion.search`: ``(B,)``."""
        return self.image.lmbda(quality).rsqrt()

    def condition(self, before: Tensor, vectors: Tensor, quality: Tensor) -> Context:
        """What the picture before ``(B, 3, H, W)`` says, its blocks moved by ``vectors`` (B, 2, H/16, W/16)."""
        moved = compensate(before, vectors).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            latent = self.image.features(moved)
        features = self.temporal_blocks(self.temporal(latent / self.image.channel_scale))
        return Context(moved, latent * self.image.gain(quality), features)

    def hyper_analyse(self, y: Tensor, context: Context, quality: Tensor) -> Tensor:
        """y to z ``(B, hyper, H/64, W/64)``, not yet rounded."""
        seen = torch.cat([asinh(y - context.latent), asinh(context.latent)], dim=1)
        z: Tensor = self.h_a(seen).float() + self.image._at_quality(self.z_offset, quality)
        return z

    def means(self, z_hat: Tensor, context: Context) -> Tensor:
        """Features that the means are predicted from: ``(B, inner, H/16, W/16)``."""
        features: Tensor = self.h_mean(z_hat) + context.features
        return features

    def _mean(self, gate: nn.Module, mean: nn.Module, u: Tensor, context: Context, quality: Tensor) -> Tensor:
        scale = self.image.channel_scale * self.image.gain(quality)
        kept = torch.sigmoid(in_float32(gate, u))
        return kept * context.latent + in_float32(mean, u) * scale

    def first_mean(self, features: Tensor, context: Context, quality: Tensor) -> Tensor:
        """Mean of the positions coded first (given for all positions)."""
        return self._mean(self.gate_0, self.mean_0, features, context, quality)

    def second_mean(self, features: Tensor, y_first: Tensor, context: Context, quality: Tensor) -> Tensor:
        """Mean of the positions coded second, given ``y_first`` (zero elsewhere)."""
        first = first_step_mask(y_first)
        news = (y_first - context.latent * first) * (
            self.image.inverse_gain(quality) / self.image.channel_scale
        )
        u = self.context(torch.cat([news, features], dim=1))
        return self._mean(self.gate_1, self.mean_1, u, context, quality)

    def synthesise(self, y_hat: Tensor, context: Context, quality: Tensor) -> Tensor:
        """y_hat to x_hat ``(B, 3, H, W)``, not clamped."""
        image = self.image
        with torch.no_grad():
            own = image.g_s(y_hat * image.inverse_gain(quality))
            own = own * image._at_quality(image.out_scale, quality).to(own.dtype)
            other = image.g_a[1](image.g_a[0](context.picture - 0.5))
        difference = other - own
        u = self.blend(self.blend_in(torch.cat([own, difference], dim=1) / STREAM_SCALE))
        change, gate = self.blend_out(u).chunk(2, dim=1)
        features = own + torch.sigmoid(gate) * difference + change
        x_hat: Tensor = image.g_s_out(features / STREAM_SCALE).float() + 0.5
        return x_hat

    # -- training ------------------------------------------------------------------------------------------

    def forward(
        self, frames: Tensor, quality: Tensor, *, noise: bool = True, autocast: bool = False
    ) -> dict[str, Any]:
        """One training pass over a sequence; each frame refers to what became of the one before.

        Args:
            frames: ``(B, T, 3, H, W)`` in 0..1, H and W multiples of 64, T at least 2.
            quality: ``(B,)`` in 0..1.
            noise: as of :meth:`latens.models.latens_base.LatensBase.forward`.
            autocast: run the networks in bfloat16.

        Returns:
            ``{"x_hat": [...], "likelihoods": [...]}``, an entry for each frame but the first: pictures
            ``(B, 3, H, W)`` and ``{"y": ..., "z": ...}``.
        """
        with torch.no_grad():
            first = self.image(frames[:, 0], quality, noise=False, autocast=autocast)["x_hat"]
        before = settled(first)
        pictures, likelihoods = [], []
        for t in range(1, frames.shape[1]):
            x = frames[:, t]
            vectors = search(x, before, self.price(quality))
            x_hat, found = self._frame(x, before, vectors, quality, noise, autocast)
            pictures.append(x_hat)
            likelihoods.append(found)
            before = settled(x_hat.detach())
        return {"x_hat": pictures, "likelihoods": likelihoods}

    def _frame(
        self, x: Tensor, before: Tensor, vectors: Tensor, quality: Tensor, noise: bool, autocast: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        low_precision = torch.autocast(x.device.type, torch.bfloat16, enabled=autocast)
        with low_precision:
            context = self.condition(before, vectors, quality)
            with torch.no_grad():
                y = self.image.analyse(x, quality)
            z = self.hyper_analyse(y, context, quality)
            z_hat = quantize_ste(z)
            index = in_float32(self.h_scale[-1], self.h_scale[:-1](z_hat))
            features = self.means(z_hat, context)
        knot = self.image.nearest_knot(quality)
        z_likelihoods = likelihoods_of_z(self.prior, z, z_hat, knot, noise=noise)
        first = first_step_mask(y)
        mean = self.first_mean(features, context, quality)
        y_first = (quantize_ste(y - mean) + mean) * first
        with low_precision:
            second = self.second_mean(features, y_first, context, quality)
        mean = torch.where(first, mean, second)
        residual = y - mean
        y_hat = torch.round(residual).detach() + mean.detach()
        y_likelihoods = likelihoods_of_y(residual, index, noise=noise)
        with low_precision:
            x_hat = self.synthesise(y_hat, context, quality)
        return x_hat, {"y": y_likelihoods, "z": z_likelihoods}


def settled(picture: Tensor, depth: int = 8) -> Tensor:
    """A picture clamped and rounded to the levels of a bit depth, as both sides do with what they refer to."""
    levels = float((1 << depth) - 1)
    return picture.clamp(0, 1).mul_(levels).round_().div_(levels)
