"""Training losses."""

from latens.losses.rate_distortion import RateDistortionLoss

__all__ = ["RateDistortionLoss"]
