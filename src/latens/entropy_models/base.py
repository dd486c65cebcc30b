"""What every entropy model shares: quantisation, integer tables, and coding with them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latens.errors import ModelError
from latens.ops import LowerBound

__all__ = ["EntropyModel"]


class EntropyModel(nn.Module):
    """Base class of the entropy models."""

    _offset: Tensor
    _quantized_cdf: Tensor
    _cdf_length: Tensor

    def __init__(
        self,
        likelihood_bound: float = 1e-9,
        entropy_coder: str | None = None,
        entropy_coder_precision: int = 16,
    ) -> None:
        super().__init__()
        self.entropy_coder_precision = int(entropy_coder_precision)
        self.use_likelihood_bound = likelihood_bound > 0
        if self.use_likelihood_bound:
            self.likelihood_lower_bound = LowerBound(likelihood_bound)
        for name in ("_offset", "_quantized_cdf", "_cdf_length"):
            self.register_buffer(name, torch.IntTensor())

    def quantize(self, inputs: Tensor, mode: str, means: Tensor | None = None) -> Tensor:
        """Quantise ``inputs``: ``"noise"``, ``"dequantize"`` or ``"symbols"``."""
        if mode == "noise":
            return inputs + torch.empty_like(inputs).uniform_(-0.5, 0.5)
        if mode not in ("dequantize", "symbols"):
            raise ModelError(f'quantization mode must be "noise", "dequantize" or "symbols", not {mode!r}')
        rounded = torch.round(inputs if means is None else inputs - means)
        if mode == "symbols":
            return rounded.int()
        return rounded if means is None else rounded + means
