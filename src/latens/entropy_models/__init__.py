"""Probability models of latents: likelihoods while training, integer tables while coding."""

from latens.entropy_models.base import EntropyModel
from latens.entropy_models.bottleneck import EntropyBottleneck

__all__ = ["EntropyBottleneck", "EntropyModel"]
