"""Video models: conversion of what decides about their symbols to integers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import nn

from latens.convert.latens_base import freeze_parts
from latens.convert.networks import Step, steps_of
from latens.convert.published import gaussian_hyperprior
from latens.entropy_coding import pmfs_to_quantized_cdfs
from latens.models.video.conditional import LatensVideo
from latens.models.video.google import Hyperprior, ScaleSpaceFlow
from latens.models.video.motion import REACH
from latens.runtime import ExactEntropy, IntegerTables
from latens.runtime.layers import RELU
from latens.runtime.video import PARTS, ConditionalEntropy, ExactLatents

__all__ = ["freeze_conditional", "freeze_flow", "motion_tables"]

_LARGEST = 255.0  # of QReLU with 8 bits
# Probability of no difference to the neighbour, and by how much that of each larger difference falls.
_SHAPES = (
    (0.998, 0.5), (0.985, 0.6), (0.95, 0.7), (0.9, 0.75), (0.8, 0.8), (0.65, 0.85), (0.45, 0.9), (0.2, 0.95),
)  # fmt: skip
_FARTHEST = 2 * REACH
_LEAST = 1e-6


def freeze_flow(model: ScaleSpaceFlow) -> ExactLatents:
    """The entropy models of scale-space flow in integers, for files; makes the tables that it lacks.

    Raises:
        ModelError: weights that cannot be made exact.
        TableError: the tables are not valid.
    """
    return ExactLatents({name: _freeze(getattr(model, f"{name}_hyperprior"), name) for name in PARTS})


def freeze_conditional(model: LatensVideo, image: ExactEntropy) -> ConditionalEntropy:
    """What decides about the symbols of the default video model, in integers.

    Args:
        model: trained.
        image: of its image model.

    Raises:
        ModelError: weights that cannot be made exact.
        TableError: a prior that is not a distribution.
    """
    inter = freeze_parts(model.image.config, model.prior, model.h_scale)
    return ConditionalEntropy(image, inter, motion_tables(), REACH)


def _freeze(hyperprior: Hyperprior, name: str) -> ExactEntropy:
    layers = [m for m in hyperprior.hyper_decoder_scale.modules() if isinstance(m, nn.ConvTranspose2d)]
    scales: list[Step] = []
    for number, layer in enumerate(layers):
        (step,) = steps_of(nn.Sequential(layer), f"{name}_hyperprior, scales, layer {number}")
        scales.append(step._replace(activation=RELU, top=_LARGEST))
    means = steps_of(hyperprior.hyper_decoder_mean, f"{name}_hyperprior, means")
    return gaussian_hyperprior(hyperprior.entropy_bottleneck, scales, means, hyperprior.gaussian_conditional)


def motion_tables() -> IntegerTables:
    """Tables for differences of vectors, the narrowest first; the last one codes which of them is used."""
    sizes = np.abs(np.arange(-_FARTHEST, _FARTHEST + 1))
    rows: list[npt.NDArray[np.float64]] = []
    offsets: list[int] = []
    for zero, fall in _SHAPES:
        tail = fall ** np.maximum(sizes - 1, 0)
        pmf = np.where(sizes == 0, zero, (1.0 - zero) * tail / tail[sizes > 0].sum())
        kept = np.flatnonzero(pmf > _LEAST)
        rows.append(np.append(pmf[kept], max(1.0 - pmf[kept].sum(), _LEAST)))
        offsets.append(int(kept[0]) - _FARTHEST)
    rows.append(np.append(np.full(len(_SHAPES), 1.0 / len(_SHAPES)), _LEAST))
    offsets.append(0)
    padded = np.zeros((len(rows), max(map(len, rows))))
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    lengths = np.array([len(row) for row in rows])
    return IntegerTables.from_rows(pmfs_to_quantized_cdfs(padded, lengths), lengths + 1, np.array(offsets))
