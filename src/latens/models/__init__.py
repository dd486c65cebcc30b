"""Compression models, one file per family."""

from latens.models.base import CompressionModel
from latens.models.google import FactorizedPrior, FactorizedPriorReLU, MeanScaleHyperprior, ScaleHyperprior

__all__ = [
    "CompressionModel",
    "FactorizedPrior",
    "FactorizedPriorReLU",
    "MeanScaleHyperprior",
    "ScaleHyperprior",
]
