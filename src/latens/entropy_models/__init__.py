"""Probability models of latents: likelihoods while training, integer tables while coding."""

from latens import _research  # noqa: F401  (tells who lacks PyTorch)
from latens.entropy_models.base import EntropyModel
from latens.entropy_models.bottleneck import EntropyBottleneck
from latens.entropy_models.bottleneck_vbr import EntropyBottleneckVbr, EntropyModelVbr
from latens.entropy_models.coders import available_entropy_coders, get_entropy_coder, set_entropy_coder
from latens.entropy_models.gaussian import GaussianConditional
from latens.entropy_models.generalized import GeneralizedBottleneck, GeneralizedGaussianConditional
from latens.entropy_models.mixture import GaussianMixtureConditional

__all__ = [
    "EntropyBottleneck",
    "EntropyBottleneckVbr",
    "EntropyModel",
    "EntropyModelVbr",
    "GaussianConditional",
    "GaussianMixtureConditional",
    "GeneralizedBottleneck",
    "GeneralizedGaussianConditional",
    "available_entropy_coders",
    "get_entropy_coder",
    "set_entropy_coder",
]
