"""The published architectures, tiny, with weights that make latents of all kinds; the same in every run."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent / "vectors"))

from cases import CASES
from recipe import fill

import latens.models
from latens.entropy_models import GaussianConditional
from latens.entropy_models.gaussian import get_scale_table
from latens.latent_codecs import ChannelGroupsLatentCodec, CheckerboardLatentCodec
from latens.models import CompressionModel, FactorizedPrior, JointAutoregressiveHierarchicalPriors
from latens.models.utils import conv

SIZES: dict[str, tuple[int, ...]] = {
    "cca": (8, 2, 8, 1),
    "dcae": (32, 16, 2, 1),
    "hpcm": (8, 16),
    "hpcm-large": (8, 16),
    "lalic": (8, 144),
    "mlic++": (8, 16, 2),
    "stf": (3, 4),
    "tcm": (32, 16, 2, 1),
    "wacnn": (8, 16, 2, 1),
}
"""Arguments of small models of the architectures since 2022, by their names in the zoo."""

STEPWISE: dict[str, dict[str, Any]] = {
    "cca": {
        "M": 8, "num_slices": 3, "em_dim": 8, "em_layers": 1, "ae_dim": (8, 6, 8), "ae_layers": (1, 2, 1), "Z": 4,
    },
    "dcae": {
        "N": 32, "M": 12, "num_slices": 3, "max_support_slices": 2, "dict_head_num": 2, "dict_num": 5,
        "feature_dim": (8, 16, 32), "block_num": (1, 2, 1), "Z": 4,
    },
    "hpcm": {"N": 8, "M": 16, "dims": (8, 8, 12), "depths": (1, 2, 1)},
    "hpcm-large": {"N": 8, "M": 16, "dims": (8, 8, 12), "depths": (1, 1, 2)},
    "mlic++": {"N": 8, "M": 24, "slice_num": 3},
    "stf": {"embed_dim": 3, "num_slices": 4, "depths": (1, 2, 1, 1)},
    "tcm": {
        "N": 32, "M": 12, "num_slices": 3, "max_support_slices": 2, "config": (1, 2, 1, 1, 1, 2), "Z": 4,
        "attention": 16,
    },
    "wacnn": {"N": 8, "M": 16, "num_slices": 4, "max_support_slices": 2},
}  # fmt: skip
"""Arguments of tiny ones; their contexts are made narrow, too."""

SCALES = get_scale_table(0.11, 8.0, 24)
"""Fewer and smaller tables than usual, so that files are small and tables quick to make."""

FAMILIES = {
    "factorized": "FactorizedPrior",
    "scale": "ScaleHyperprior",
    "mean-scale": "MeanScaleHyperprior",
    "raster": "JointAutoregressiveHierarchicalPriors",
    "checkerboard": "Cheng2020AnchorCheckerboard",
    "groups": "Elic2022Official",
    "variable": "MeanScaleHyperpriorVbr",
}
"""One architecture of each kind."""


def make(name: str, *, narrow: bool = True, tables: bool = True, **arguments: Any) -> CompressionModel:
    """A model by the name of its class.

    Args:
        name: of a class.
        narrow: make channel contexts, whose width is fixed, narrow too. What is loaded from a file has the usual one.
        tables: make coding tables, with fewer scales than usual.
        arguments: of the class.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: CompressionModel = getattr(latens.models, name)(**{**CASES[name], **arguments})
    for module in model.modules():
        if isinstance(module, ChannelGroupsLatentCodec) and narrow:
            for key, context in module.channel_context.items():
                first, last = context[0], context[-1]
                module.channel_context[key] = nn.Sequential(
                    conv(first.in_channels, 6, 3, 1), nn.ReLU(), conv(6, last.out_channels, 3, 1)
                )
    fill(model)
    _enliven(model)
    if tables:
        model.update(scale_table=SCALES, force=True)
    return model.eval()


def codecs(model: CompressionModel) -> Iterator[CheckerboardLatentCodec]:
    """The codecs of groups of channels."""
    yield from (m for m in model.modules() if isinstance(m, CheckerboardLatentCodec))


def heads(model: CompressionModel) -> list[tuple[nn.Conv2d, bool]]:
    """The layers that scales come from, and whether they give scales first (or alone)."""
    if isinstance(model, FactorizedPrior):
        return []
    if list(codecs(model)):
        return [(c.entropy_parameters[-1], c.y.chunks[0] == "scales") for c in codecs(model)]
    if isinstance(model, JointAutoregressiveHierarchicalPriors):
        return [(model.entropy_parameters[-1], True)]
    return [([m for m in model.h_s if isinstance(m, nn.Conv2d)][-1], True)]


@torch.no_grad()
def _enliven(model: CompressionModel) -> None:
    """Let the scales of each channel lie elsewhere in the table, and vary."""
    for layer, scales_first in heads(model):
        alone = type(model).__name__.startswith("ScaleHyperprior")
        channels = layer.out_channels if alone else layer.out_channels // 2
        start = 0 if scales_first else channels
        layer.weight[start : start + channels].mul_(1.5)
        layer.bias[start : start + channels] = torch.linspace(0.15, 3.0, channels)


def gaussians(model: CompressionModel) -> list[GaussianConditional]:
    """Its Gaussians, which all have the same tables."""
    return [m for m in model.modules() if isinstance(m, GaussianConditional)]


@torch.no_grad()
def parameters(model: Any, z_hat: Tensor, y_hat: Tensor, gain: int) -> tuple[Tensor, Tensor]:
    """Scales and means of all latents in float, with y_hat as context, for one gain of a model of variable rate."""
    groups = list(codecs(model))
    if groups:
        side = model.latent_codec.hyper.h_s(z_hat)
        y = model.latent_codec.y
        if not isinstance(y, ChannelGroupsLatentCodec):
            return _board(groups[0], side, y_hat)
        parts = torch.split(y_hat, list(y.groups), dim=1)
        found = []
        for k, (codec, part) in enumerate(zip(groups, parts, strict=True)):
            own = side
            if k:
                own = y.merge_params(y.channel_context[f"y{k}"](y.merge_y(*parts[:k])), side)
            found.append(_board(codec, own, part))
        scales, means = (torch.cat(t, dim=1) for t in zip(*found, strict=True))
        return scales, means
    if isinstance(model, JointAutoregressiveHierarchicalPriors):
        context = model.context_prediction(y_hat)
        if hasattr(model, "scale_to_context"):
            context = context + model.scale_to_context(model.Gain[gain].abs().reshape(1, 1))[:, :, None, None]
        scales, means = model.entropy_parameters(torch.cat((model.h_s(z_hat), context), 1)).chunk(2, 1)
        return scales, means
    scales, means = model._parameters_of(z_hat)
    return scales, torch.zeros_like(scales) if means is None else means


def _board(codec: CheckerboardLatentCodec, side: Tensor, y_hat: Tensor) -> tuple[Tensor, Tensor]:
    rows, columns = (torch.arange(n) for n in y_hat.shape[2:])
    first = (rows[:, None] + columns) % 2 == (codec.anchor_parity == "odd")
    context = codec.context_prediction(y_hat * first) * ~first
    chunks = codec.entropy_parameters(codec.merge(context, side)).chunk(2, 1)
    named = dict(zip(codec.y.chunks, chunks, strict=True))
    return named["scales"], named["means"]
