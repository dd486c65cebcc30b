"""The names of :mod:`latens.entropy_models`, and what entropy models of other people are built with, under the module
name that code written for CompressAI imports them from.
"""

from __future__ import annotations

import torch
from torch import Tensor

from latens import entropy_coding
from latens.entropy_models.base import EntropyModel
from latens.entropy_models.bottleneck import EntropyBottleneck
from latens.entropy_models.coders import coder_by_name as _EntropyCoder  # noqa: F401  (derived models use it)
from latens.entropy_models.coders import get_entropy_coder as default_entropy_coder
from latens.entropy_models.gaussian import GaussianConditional
from latens.entropy_models.mixture import GaussianMixtureConditional
from latens.ops import LowerBound

__all__ = [
    "EntropyBottleneck",
    "EntropyModel",
    "GaussianConditional",
    "GaussianMixtureConditional",
    "LowerBound",
    "default_entropy_coder",
    "pmf_to_quantized_cdf",
]


def pmf_to_quantized_cdf(pmf: Tensor, precision: int = 16) -> Tensor:
    """:func:`latens.entropy_coding.pmf_to_quantized_cdf` of a tensor ``(n,)``, as int32 ``(n + 1,)``."""
    table = entropy_coding.pmf_to_quantized_cdf(pmf.detach().cpu().numpy(), precision)
    return torch.tensor(table, dtype=torch.int32)
