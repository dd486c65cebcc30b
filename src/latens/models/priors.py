"""The names of :mod:`latens.models.google` and what they are made of, under the module name of older code."""

from latens.entropy_models import EntropyBottleneck, GaussianConditional
from latens.layers import GDN, MaskedConv2d
from latens.models.base import SCALES_LEVELS, SCALES_MAX, SCALES_MIN, CompressionModel, get_scale_table
from latens.models.google import (
    FactorizedPrior,
    FactorizedPriorReLU,
    JointAutoregressiveHierarchicalPriors,
    MeanScaleHyperprior,
    ScaleHyperprior,
)
from latens.models.utils import conv, deconv, update_registered_buffers

__all__ = [
    "GDN",
    "SCALES_LEVELS",
    "SCALES_MAX",
    "SCALES_MIN",
    "CompressionModel",
    "EntropyBottleneck",
    "FactorizedPrior",
    "FactorizedPriorReLU",
    "GaussianConditional",
    "JointAutoregressiveHierarchicalPriors",
    "MaskedConv2d",
    "MeanScaleHyperprior",
    "ScaleHyperprior",
    "conv",
    "deconv",
    "get_scale_table",
    "update_registered_buffers",
]
