"""The default model: conversion of what decides about its symbols to integers, with the tables of z and y."""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from latens.convert.networks import Part, convert, draw_symbols, steps_of
from latens.entropy_coding import pmfs_to_quantized_cdfs
from latens.entropy_models.gaussian import SCALES_LEVELS
from latens.errors import TableError
from latens.models.latens_base import (
    LatensBase,
    LatensBaseConfig,
    LogisticMixturePrior,
    gaussian_likelihood,
    log_scale_of,
)
from latens.runtime import ExactEntropy, Group, IntegerTables, Level, Thresholds

__all__ = ["freeze", "freeze_parts"]

_Z_REACH = 512
_Y_REACH = 2048
_TAIL = 1e-6
_SCALE_SPREAD = 0.2
_RAREST = 1e-9


def _pmfs_of_y() -> npt.NDArray[np.float64]:
    """Probabilities of values of y less their means, a row for each table index: ``(64, 2 * _Y_REACH + 1)``.

    Training takes them for Gaussians of a known scale. The scale that z tells is right only within a fifth or so, and
    symbols follow a mixture of Gaussians around it, of the same variance.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    levels = torch.arange(SCALES_LEVELS, dtype=torch.float64)[:, None]
    values = torch.arange(-_Y_REACH, _Y_REACH + 1, dtype=torch.float64)
    pmf = torch.zeros(SCALES_LEVELS, len(values), dtype=torch.float64)
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        log_scale = log_scale_of(levels) + _SCALE_SPREAD * (node - _SCALE_SPREAD)
        pmf += weight * gaussian_likelihood(values, log_scale)
    return pmf.numpy()


def _tables(pmf: npt.NDArray[np.float64], first_value: int, improbable: str) -> IntegerTables:
    """Integer tables of distributions, a row each, of values from ``first_value`` on."""
    # Values so rare that an escape is cheaper are left out at both ends.
    kept = pmf > _TAIL
    if not kept.any(axis=1).all():
        raise TableError(improbable)
    first = kept.argmax(axis=1)
    lengths = pmf.shape[1] - kept[:, ::-1].argmax(axis=1) - first
    rows = np.zeros((len(pmf), int(lengths.max()) + 1))
    for row, p, start, length in zip(rows, pmf, first, lengths, strict=True):
        row[:length] = p[start : start + length]
        row[length] = max(1.0 - row[:length].sum(), _RAREST)
    cdfs = pmfs_to_quantized_cdfs(rows, lengths + 1)
    return IntegerTables.from_rows(cdfs, lengths + 2, first + first_value)


def freeze(model: LatensBase) -> ExactEntropy:
    """The entropy model of a trained :class:`LatensBase` in integers, for files.

    Raises:
        ModelError: weights that are not finite or cannot be made exact.
        TableError: a prior that is not a distribution.
    """
    return freeze_parts(model.config, model.prior, model.h_scale)


@torch.no_grad()
def freeze_parts(config: LatensBaseConfig, prior: LogisticMixturePrior, h_scale: nn.Module) -> ExactEntropy:
    """The same for the parts of a model that decide about symbols.

    Raises:
        ModelError: weights that are not finite or cannot be made exact.
        TableError: a prior that is not a distribution.
    """
    prior = copy.deepcopy(prior).cpu().double()
    reach = torch.arange(-_Z_REACH, _Z_REACH + 1, dtype=torch.float64)
    z = reach[None, None, None, :].expand(config.knots, config.hyper, 1, -1)
    pmf = prior(z, torch.arange(config.knots))[:, :, 0].reshape(config.knots * config.hyper, -1).numpy()
    z_tables = _tables(pmf, -_Z_REACH, "prior of z: a channel has no probable value; are the weights finite?")
    y_tables = _tables(_pmfs_of_y(), -_Y_REACH, "tables of y: a scale without a probable value")
    samples = [
        draw_symbols(
            z_tables.rows(knot * config.hyper, (knot + 1) * config.hyper),
            z_tables.offsets[knot * config.hyper : (knot + 1) * config.hyper],
            (16, 16),
            seed=knot,
        )
        for knot in range(config.knots)
    ]
    states = [s.transpose(1, 2, 0).astype(np.int32) for s in samples]
    scales = convert(steps_of(h_scale, "h_scale"), [Part(config.hyper, 0)], states, "h_scale")
    # The network's result is linear in the index.
    levels = np.arange(SCALES_LEVELS - 1, dtype=np.float64) + 0.5
    return ExactEntropy(
        z_tables,
        np.zeros(config.hyper, np.int64),
        z_bits=0,
        y_tables=y_tables,
        hyper=[scales.chain],
        groups=[Group(config.M)],
        levels=[Level((Thresholds.of(levels, scales.exponent, "h_scale"),))],
    )
