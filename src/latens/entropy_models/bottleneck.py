"""The fully factorized entropy model."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latens.entropy_models.base import EntropyModel

__all__ = ["EntropyBottleneck"]


class EntropyBottleneck(EntropyModel):
    """A learned, non-parametric density per channel."""

    target: Tensor

    def __init__(
        self,
        channels: int,
        *args: Any,
        tail_mass: float = 1e-9,
        init_scale: float = 10,
        filters: tuple[int, ...] = (3, 3, 3, 3),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.channels = int(channels)
        self.filters = tuple(int(f) for f in filters)
        self.init_scale = float(init_scale)
        self.tail_mass = float(tail_mass)

        widths = (1, *self.filters, 1)
        scale = self.init_scale ** (1 / (len(self.filters) + 1))
        self.matrices = nn.ParameterList()
        self.biases = nn.ParameterList()
        self.factors = nn.ParameterList()
        for fan_in, fan_out in itertools.pairwise(widths):
            # softplus of this value is 1 / (scale * fan_out): an untrained density is `init_scale` wide.
            matrix = math.log(math.expm1(1 / scale / fan_out))
            self.matrices.append(nn.Parameter(torch.full((channels, fan_out, fan_in), matrix)))
            self.biases.append(nn.Parameter(torch.empty(channels, fan_out, 1).uniform_(-0.5, 0.5)))
        for width in self.filters:
            self.factors.append(nn.Parameter(torch.zeros(channels, width, 1)))

        quantiles = torch.tensor([-self.init_scale, 0, self.init_scale])
        self.quantiles = nn.Parameter(quantiles.repeat(channels, 1, 1))
        edge = math.log(2 / self.tail_mass - 1)
        self.register_buffer("target", torch.tensor([-edge, 0.0, edge]))

    def _get_medians(self) -> Tensor:
        return self.quantiles[:, :, 1:2]

    def _logits_cumulative(self, inputs: Tensor, stop_gradient: bool) -> Tensor:
        """Logits of the cumulative distribution at ``inputs`` of shape ``(channels, 1, n)``; same shape."""
        logits = inputs
        for i, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            if stop_gradient:
                matrix, bias = matrix.detach(), bias.detach()
            logits = torch.matmul(F.softplus(matrix), logits) + bias
            if i < len(self.factors):
                factor = self.factors[i].detach() if stop_gradient else self.factors[i]
                logits = logits + torch.tanh(factor) * torch.tanh(logits)
        return logits

    def _likelihood(self, inputs: Tensor, stop_gradient: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        lower = self._logits_cumulative(inputs - 0.5, stop_gradient)
        upper = self._logits_cumulative(inputs + 0.5, stop_gradient)
        return torch.sigmoid(upper) - torch.sigmoid(lower), lower, upper

    def loss(self) -> Tensor:
        """Auxiliary loss that trains the quantiles; it has no gradient on the density itself."""
        return (self._logits_cumulative(self.quantiles, stop_gradient=True) - self.target).abs().sum()

    def forward(self, x: Tensor, training: bool | None = None) -> tuple[Tensor, Tensor]:
        """Quantise ``x`` of shape ``(batch, channels, ...)``; returns it and its likelihoods."""
        training = self.training if training is None else training
        by_channel = x.transpose(0, 1)
        values = by_channel.reshape(x.shape[1], 1, -1)
        outputs = self.quantize(values, "noise" if training else "dequantize", self._get_medians())
        likelihood, _, _ = self._likelihood(outputs)
        if self.use_likelihood_bound:
            likelihood = self.likelihood_lower_bound(likelihood)
        return (
            outputs.reshape(by_channel.shape).transpose(0, 1).contiguous(),
            likelihood.reshape(by_channel.shape).transpose(0, 1).contiguous(),
        )
