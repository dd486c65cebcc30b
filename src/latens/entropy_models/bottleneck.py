"""The fully factorized entropy model."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import MutableMapping, Sequence
from operator import index
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latens.entropy_models.base import EntropyModel, check_capacity, check_strings, check_table_size
from latens.errors import ShapeError, TableError

__all__ = ["EntropyBottleneck"]

_SEARCH_REACH = 2.0**20
"""Quantiles are looked for in +- this range."""

_SEARCH_STEPS = 64
"""Enough halvings of the range to run out of float32 mantissa."""

_MAX_REACH = 2.0**13
"""Tables reach no further than this from the median; symbols beyond it are escaped."""

_NEW_NAME = {"matrix": "matrices", "bias": "biases", "factor": "factors"}
_OLD_KEY = re.compile(r"_?(?:(matrix|bias|factor)|(matrices|biases|factors))\.?(\d+)")


class EntropyBottleneck(EntropyModel):
    r"""A learned density per channel, for latents that nothing else is known about.

    Each channel's cumulative distribution is a small monotone network: softplus keeps its matrices
    positive, and the gated tanh keeps its activations monotone::

        x -> softplus(H1) x + b1 -> + tanh(a1) tanh(.) -> ... -> softplus(HK) x + bK -> sigmoid -> P(X <= x)

    Ballé, Minnen, Singh, Hwang, Johnston, "Variational image compression with a scale hyperprior",
    ICLR 2018, appendix 6.1.

    ``quantiles`` of shape ``(channels, 1, 3)`` holds each channel's lower tail, median and upper tail, in
    units of the latent. Rounding happens around the median and the tables reach from tail to tail. They
    are trained with :meth:`loss`, or solved for by ``update(update_quantiles=True)``. Tables that are made without
    anybody asking keep the medians and reach as far as the density asks for.

    Args:
        channels: number of channels.
        tail_mass: probability outside the quantiles, both tails together.
        init_scale: width of the initial density.
        filters: widths of the hidden layers.
        *args, **kwargs: see :class:`EntropyModel`.
    """

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

    # -- the density ----------------------------------------------------------------------------------------

    def _get_medians(self) -> Tensor:
        """Medians of the channels, ``(channels, 1, 1)``."""
        return self.quantiles[:, :, 1:2]

    def _logits_cumulative(self, inputs: Tensor, stop_gradient: bool) -> Tensor:
        """Logits of the cumulative distribution at ``inputs`` of shape ``(channels, 1, n)``; same shape."""
        logits = inputs
        matrices, biases, factors = self._weights()
        for matrix, bias, factor in itertools.zip_longest(matrices, biases, factors):
            if stop_gradient:
                matrix, bias = matrix.detach(), bias.detach()
            logits = torch.matmul(F.softplus(matrix), logits) + bias
            if factor is not None:
                factor = factor.detach() if stop_gradient else factor
                logits = logits + torch.tanh(factor) * torch.tanh(logits)
        return logits

    def _likelihood(self, inputs: Tensor, stop_gradient: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Probability of the unit interval around ``inputs``, and the logits at its two ends."""
        return self._mass(inputs, stop_gradient, 1.0)

    def _mass(
        self, inputs: Tensor, stop_gradient: bool, width: Tensor | float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Probability of the interval of some width around ``inputs``, and the logits at its two ends."""
        lower = self._logits_cumulative(inputs - 0.5 * width, stop_gradient)
        upper = self._logits_cumulative(inputs + 0.5 * width, stop_gradient)
        return torch.sigmoid(upper) - torch.sigmoid(lower), lower, upper

    def loss(self) -> Tensor:
        """Distance of the quantiles from where they should be, in logits: the auxiliary loss, a scalar.

        Its gradient moves the quantiles only, never the density.
        """
        return (self._logits_cumulative(self.quantiles, stop_gradient=True) - self.target).abs().sum()

    def forward(self, x: Tensor, training: bool | None = None) -> tuple[Tensor, Tensor]:
        """Quantise latents and tell how likely they are.

        Args:
            x: ``(batch, channels, ...)``.
            training: add noise instead of rounding; by default what the module's mode says.

        Returns:
            The quantised latents and the likelihood of each, both shaped like ``x``.

        Raises:
            ShapeError: ``x`` has another number of channels.
        """
        self._check_channels(x)
        training = self.training if training is None else training
        by_channel = x.transpose(0, 1)
        values = by_channel.reshape(self.channels, 1, -1)
        outputs = self.quantize(values, "noise" if training else "dequantize", self._get_medians())
        likelihood, _, _ = self._likelihood(outputs)
        if self.use_likelihood_bound:
            likelihood = self.likelihood_lower_bound(likelihood)
        return (
            outputs.reshape(by_channel.shape).transpose(0, 1).contiguous(),
            likelihood.reshape(by_channel.shape).transpose(0, 1).contiguous(),
        )

    def _check_channels(self, x: Tensor) -> None:
        if x.dim() < 2 or x.shape[1] != self.channels:
            raise ShapeError(f"expected (batch, {self.channels}, ...), but got {tuple(x.shape)}")

    # -- tables ---------------------------------------------------------------------------------------------

    def update(self, force: bool = False, update_quantiles: bool = False) -> bool:
        """Make the coding tables from the present weights and quantiles.

        Nobody has to call this. Tables that are missing are made by the first call of :meth:`compress` or
        :meth:`decompress`. They go as far as the density asks for, whatever the quantiles say, and no parameter
        changes. This method makes them as far as the trained quantiles say.

        Args:
            force: make them even if there are tables of these weights already.
            update_quantiles: first solve for the quantiles, and set the parameter ``quantiles`` to them.

        Returns:
            Whether tables were made.

        Raises:
            TableError: the weights or quantiles are not finite, or ask for tables too large to code with.
        """
        if self._quantized_cdf.numel() > 0 and not force and not self._tables_are_stale():
            return False
        if update_quantiles:
            self._update_quantiles()
        self._tables_from_quantiles(self.quantiles.detach())
        return True

    def _weights(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """The parameters of the density: matrices, biases and factors of its layers; the last has no factor."""
        return list(self.matrices), list(self.biases), list(self.factors)

    def _table_source(self) -> Tensor:
        weights = itertools.chain(*self._weights(), [self.quantiles])
        return torch.cat([w.detach().flatten() for w in weights])

    def _require_finite(self, *others: Tensor) -> None:
        if not all(torch.isfinite(w).all() for w in itertools.chain(*self._weights(), others)):
            raise TableError("the weights or quantiles of this EntropyBottleneck hold NaN or infinite values")

    def _make_tables(self) -> None:
        self._tables_from_quantiles(self._table_ends())

    def _table_ends(self) -> Tensor:
        """Quantiles as the density has them, but around the present medians, which latents are rounded around."""
        # Coding must not change what is trained, so these are not written into the parameter.
        solved, present = self._solved_quantiles(), self.quantiles.detach()
        return torch.cat((solved[..., :1], present[..., 1:2], solved[..., 2:]), dim=-1)

    @torch.no_grad()
    def _update_quantiles(self) -> None:
        self.quantiles.copy_(self._solved_quantiles())

    @torch.no_grad()
    def _solved_quantiles(self) -> Tensor:
        """Solve ``logits(quantile) = target`` by bisection; the logits rise with the quantile."""
        self._require_finite()
        low = torch.full_like(self.quantiles, -_SEARCH_REACH)
        high = torch.full_like(self.quantiles, _SEARCH_REACH)
        with torch.autocast(low.device.type, enabled=False):
            for _ in range(_SEARCH_STEPS):
                middle = (low + high) / 2
                logits = self._logits_cumulative(middle, stop_gradient=True)
                above = logits >= self.target
                high = torch.where(above, middle, high)
                low = torch.where(above, low, middle)
        medians = high[:, :, 1:2]
        return torch.clamp(high, medians - _MAX_REACH, medians + _MAX_REACH)

    @torch.no_grad()
    def _tables_from_quantiles(self, quantiles: Tensor, step: Tensor | float = 1.0) -> None:
        """Make tables for symbols that are ``step`` apart, from the median to both sides."""
        self._require_finite(quantiles)
        medians = quantiles[:, 0, 1]
        minima = torch.ceil((medians - quantiles[:, 0, 0]) / step).clamp(min=0)
        maxima = torch.ceil((quantiles[:, 0, 2] - medians) / step).clamp(min=0)
        check_table_size(self.channels, (minima.double() + maxima.double() + 1).max().item())
        lengths = minima.int() + maxima.int() + 1
        max_length = int(lengths.max().item())

        steps = torch.arange(max_length, device=quantiles.device)
        samples = steps[None, None, :] * step + (medians - minima * step)[:, None, None]
        with torch.autocast(samples.device.type, enabled=False):
            pmf, lower, upper = self._mass(samples, stop_gradient=True, width=step)
        tail_mass = torch.sigmoid(lower[:, 0, :1]) + torch.sigmoid(-upper[:, 0, -1:])
        cdfs = self._pmf_to_cdf(pmf[:, 0, :], tail_mass, lengths, max_length)
        self._set_tables(cdfs, lengths + 2, -minima)

    # -- coding ---------------------------------------------------------------------------------------------

    def _indexes(self, batch: int, size: Sequence[int]) -> Tensor:
        """Table of every element of ``(batch, channels, *size)``: one table per channel."""
        channels = torch.arange(self.channels, dtype=torch.int32, device=self.quantiles.device)
        return channels.view(1, -1, *(1 for _ in size)).expand(batch, self.channels, *size)

    @staticmethod
    def _build_indexes(size: Sequence[int]) -> Tensor:
        """Table of every element of a latent of this size, batch and channels included; for derived models."""
        channels = torch.arange(size[1], dtype=torch.int32)
        return channels.view(1, -1, *(1 for _ in size[2:])).repeat(size[0], 1, *size[2:])

    @staticmethod
    def _extend_ndims(tensor: Tensor, n: int) -> Tensor:
        """All values along the first dimension, followed by ``n`` dimensions of size 1; for derived models."""
        return tensor.reshape(-1, *(1 for _ in range(n)))

    def _expanded_medians(self, batch: int, size: Sequence[int]) -> Tensor:
        medians = self._get_medians().detach().view(1, -1, *(1 for _ in size))
        return medians.expand(batch, *medians.shape[1:])

    def compress(self, x: Tensor) -> list[bytes]:  # type: ignore[override]
        """Code latents ``(batch, channels, ...)`` into one string per batch element.

        Raises:
            ShapeError: ``x`` has another number of channels.
            CoderError: a latent is not finite.
            TableError: no valid tables can be made from the weights.
        """
        self._check_channels(x)
        batch, _, *size = x.shape
        return super().compress(x, self._indexes(batch, size), self._expanded_medians(batch, size))

    def decompress(self, strings: Sequence[bytes], size: Sequence[int]) -> Tensor:  # type: ignore[override]
        """Undo :meth:`compress`.

        Args:
            strings: one per batch element.
            size: sizes of the latents after the channels, as ``x.shape[2:]``.

        Returns:
            ``(len(strings), channels, *size)``.

        Raises:
            ShapeError: ``strings`` is not a list of bytes, or a size is negative.
            LimitError: so many values do not fit into the strings; found out before any memory is taken.
            CoderError: a damaged string.
        """
        size = self._checked_size(strings, size)
        self._tables()
        batch = len(strings)
        medians = self._expanded_medians(batch, size)
        return super().decompress(strings, self._indexes(batch, size), medians.dtype, medians)

    def _checked_size(self, strings: Sequence[bytes], size: Sequence[int]) -> tuple[int, ...]:
        """``size`` as integers; raises what :meth:`decompress` raises for wrong ones."""
        check_strings(strings)
        try:
            sizes = tuple(index(s) for s in size)
        except TypeError:
            raise ShapeError(f"expected the sizes of the latents as whole numbers, not {size!r}") from None
        if min(sizes, default=0) < 0:
            raise ShapeError(f"sizes cannot be negative: {sizes}")
        check_capacity(strings, math.prod((self.channels, *sizes)))
        return sizes

    def dequantized(self, x: Tensor) -> Tensor:
        """What :meth:`decompress` will return for ``x``, without coding it: both are integers plus medians."""
        return self.quantize(x, "dequantize", self._expanded_medians(x.shape[0], x.shape[2:]))

    # -- loading --------------------------------------------------------------------------------------------

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        rename_old_keys(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


def rename_old_keys(state_dict: MutableMapping[str, Any], prefix: str) -> None:
    """Give the parameters of the bottleneck at ``prefix`` (with its dot) the names they have today, in place.

    ``_matrix0`` and ``_matrices.0`` become ``matrices.0``, and the same for biases and factors.
    """
    for key in [k for k in state_dict if k.startswith(prefix)]:
        if match := _OLD_KEY.fullmatch(key[len(prefix) :]):
            old, new, number = match.groups()
            state_dict[f"{prefix}{new or _NEW_NAME[old]}.{number}"] = state_dict.pop(key)
