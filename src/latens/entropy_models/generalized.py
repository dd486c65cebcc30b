"""Generalised Gaussian entropy models: tails heavier than a Gaussian's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from latens.entropy_models.base import EntropyModel, check_capacity, check_strings, check_table_size, lasting
from latens.entropy_models.bottleneck import EntropyBottleneck
from latens.entropy_models.gaussian import GaussianConditional, get_scale_table

__all__ = ["GeneralizedBottleneck", "GeneralizedGaussianConditional"]

_SCALES = 0.12, 64, 60
"""Of the scale table: smallest, largest, how many."""


class _Cumulative(torch.autograd.Function):
    """Distribution function, whose derivative PyTorch does not have at zero."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, beta: Tensor) -> Tensor:
        powers = values.abs() ** beta
        ctx.save_for_backward(powers, beta)
        found: Tensor = (1 + values.sign() * torch.special.gammainc(1 / beta, powers)) / 2
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        powers, beta = ctx.saved_tensors
        return gradients[0] * torch.exp(-powers - torch.special.gammaln(1 / beta)) * beta / 2, None


@cache
def _reach(beta: float, tail_mass: float) -> float:
    """How far from the middle, in scales, ``tail_mass`` lies outside, both tails together."""
    shape, low, high = torch.tensor(1 / beta, dtype=torch.float64), 0.0, 1e4
    for _ in range(200):
        middle = (low + high) / 2
        if torch.special.gammaincc(shape, torch.tensor(middle, dtype=torch.float64)).item() > tail_mass:
            low = middle
        else:
            high = middle
    return float(high ** (1 / beta))


class GeneralizedGaussianConditional(GaussianConditional):
    """A density in proportion to ``exp(-|x / scale|^beta)`` whose scale, and where wanted mean, is given per latent.

    ``beta`` 2 is a Gaussian (of scale sqrt(2) times its deviation), 1 a Laplacian. Tables, indexes and arguments are
    those of :class:`GaussianConditional`; the scale table has 60 entries from 0.12 to 64 if none is given.

    Zhang, Li, Li, Liu, "Generalized Gaussian model for learned image compression", IEEE TIP 2025.

    Args:
        scale_table: rising positive scales, or None.
        beta: shape of the density.
        *args, **kwargs: see :class:`GaussianConditional`.
    """

    beta: Tensor

    def __init__(
        self,
        scale_table: Sequence[float] | Tensor | None = None,
        *args: Any,
        beta: float = 1.5,
        scale_bound: float | None = 0.12,
        tail_mass: float = 1e-6,
        **kwargs: Any,
    ) -> None:
        super().__init__(scale_table, *args, scale_bound=scale_bound, tail_mass=tail_mass, **kwargs)
        self.register_buffer("beta", torch.tensor([float(beta)]))

    def _standardized_cumulative(self, inputs: Tensor) -> Tensor:
        found: Tensor = _Cumulative.apply(inputs, self.beta.to(inputs))  # type: ignore[no-untyped-call]
        return found

    def _index_bound(self) -> Tensor:
        # The bound and the first entry are the same number, and differ in its last bit.
        return self.scale_table[:1]

    @torch.no_grad()
    def tables_for(self, scales: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coding tables of these scales, ``(T,)``: CDFs, lengths and offsets.

        Raises:
            TableError: a scale asks for a table too large to code with, or is not finite.
        """
        # In float32 and with differences of what lies around 1, as checkpoints of the field are coded.
        scales = torch.maximum(scales.float(), self.lower_bound_scale.bound.float())
        multiplier = _reach(float(self.beta), self.tail_mass)
        largest = min(torch.nan_to_num(scales, nan=math.inf).max().item(), 1e30)
        check_table_size(len(scales), 2 * math.ceil(largest * multiplier) + 1)
        reach = torch.ceil(scales * multiplier).int()
        lengths = 2 * reach + 1
        max_length = int(lengths.max().item())
        samples = (torch.arange(max_length, device=scales.device)[None] - reach[:, None]).float()
        upper = self._standardized_cumulative((samples + 0.5) / scales[:, None])
        lower = self._standardized_cumulative((samples - 0.5) / scales[:, None])
        tail_mass = lower[:, :1] + (1 - upper[:, -1:])
        return self._pmf_to_cdf(upper - lower, tail_mass, lengths, max_length), lengths + 2, -reach

    @torch.no_grad()
    def update(self) -> None:
        """Make the coding tables of the present scale table."""
        self._set_tables(*self.tables_for(self.scale_table))

    def _make_tables(self) -> None:
        if self.scale_table.numel() == 0:
            self.scale_table = lasting(get_scale_table(*_SCALES).to(self.scale_table))
        self.update()


class GeneralizedBottleneck(EntropyModel):
    """One generalised Gaussian for each channel, with a mean and a scale that are parameters of somebody else.

    It has the methods of :class:`EntropyBottleneck` that models code with. :meth:`attach` has to be called before
    any other.
    """

    def __init__(self) -> None:
        super().__init__(likelihood_bound=0)
        self._given: tuple[GeneralizedGaussianConditional, Tensor, Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_given": None}

    def attach(
        self, density: GeneralizedGaussianConditional, means: Tensor, scales: Tensor
    ) -> GeneralizedBottleneck:
        """Say what the density is, and its means and scales, ``(1, C, 1, 1)`` each; returns the bottleneck."""
        self._given = density, means, scales
        return self

    def _known(self) -> tuple[GeneralizedGaussianConditional, Tensor, Tensor]:
        assert self._given is not None, "attach() comes first"
        return self._given

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Quantised latents and likelihoods, both ``(B, C, H, W)``."""
        density, means, scales = self._known()
        outputs, likelihood = density(x - means, scales)
        return outputs + means, likelihood

    def _get_medians(self) -> Tensor:
        return self._known()[1]

    def _table_source(self) -> Tensor | None:
        return None if self._given is None else self._given[2].detach().flatten().float().clone()

    def _make_tables(self) -> None:
        density, _, scales = self._known()
        self._set_tables(*density.tables_for(scales.detach().flatten()))

    def compress(self, x: Tensor) -> list[bytes]:  # type: ignore[override]
        """Code latents ``(B, C, H, W)``, a string for each image."""
        return super().compress(x, EntropyBottleneck._build_indexes(x.shape), self._get_medians().detach())

    def decompress(self, strings: Sequence[bytes], size: Sequence[int]) -> Tensor:  # type: ignore[override]
        """Undo :meth:`compress`; ``size`` is height and width."""
        means = self._get_medians().detach()
        check_strings(strings)
        check_capacity(strings, means.numel() * math.prod(size))
        indexes = EntropyBottleneck._build_indexes((len(strings), means.numel(), *size))
        return super().decompress(strings, indexes, means.dtype, means.expand(len(strings), -1, -1, -1))

    def dequantized(self, x: Tensor) -> Tensor:
        """What :meth:`decompress` will return for ``x``."""
        return self.quantize(x, "dequantize", self._get_medians().detach())
