"""Training losses."""

from latens import _research  # noqa: F401  (tells who lacks PyTorch)
from latens.losses.distortions import (
    DISTORTIONS,
    EYE,
    Mixture,
    chroma_error,
    squared_error,
    ssimulacra2_distance,
    structural_dissimilarity,
)
from latens.losses.rate_distortion import RateDistortionLoss

__all__ = [
    "DISTORTIONS",
    "EYE",
    "Mixture",
    "RateDistortionLoss",
    "chroma_error",
    "squared_error",
    "ssimulacra2_distance",
    "structural_dissimilarity",
]
