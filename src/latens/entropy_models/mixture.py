"""Mixtures of Gaussians."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latens.entropy_models.base import PRECISION
from latens.entropy_models.gaussian import GaussianConditional
from latens.errors import CoderError, ModelError, ShapeError

__all__ = ["GaussianMixtureConditional", "mixture_cdfs"]

MAX_REACH = 2**12
"""Largest magnitude that has a probability of its own; beyond it, symbols are escaped."""

_ENTRIES_AT_ONCE = 2**20
"""Table entries made together; bounds memory."""


class GaussianMixtureConditional(GaussianConditional):
    """Mixture of ``K`` Gaussians whose weights, scales and means are given for every latent.

    Latents are rounded to integers, whatever the means. There are no fixed tables: coding makes one per latent.

    Cheng, Sun, Takeuchi, Katto, "Learned image compression with discretized Gaussian mixture likelihoods and
    attention modules", CVPR 2020.

    Scales, means and weights are ``(B, K * M, H, W)`` beside latents ``(B, M, H, W)``: all channels of the first
    Gaussian, then all of the second, and so on. The weights of a latent should add up to 1.

    Args:
        K: number of Gaussians.
        scale_table: not used.
        *args, **kwargs: see :class:`GaussianConditional`.

    Raises:
        ModelError: ``K`` is not positive.
    """

    def __init__(
        self, K: int = 3, scale_table: Sequence[float] | Tensor | None = None, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(scale_table, *args, **kwargs)
        if K < 1:
            raise ModelError(f"a mixture needs at least one Gaussian, not {K}")
        self.K = int(K)

    def update_scale_table(self, scale_table: Sequence[float] | Tensor, force: bool = False) -> bool:
        """Does nothing: mixtures have no fixed tables."""
        return False

    def _table_source(self) -> None:  # type: ignore[override]
        return None

    def _per_gaussian(self, params: Tensor, y_shape: Sequence[int]) -> Tensor:
        batch, channels, *size = y_shape
        if params.shape != (batch, self.K * channels, *size):
            raise ShapeError(
                f"parameters of {self.K} Gaussians for latents of {tuple(y_shape)} must be "
                f"{(batch, self.K * channels, *size)}, not {tuple(params.shape)}"
            )
        return params.reshape(batch, self.K, channels, *size)

    def _likelihood(  # type: ignore[override]
        self, inputs: Tensor, scales: Tensor, means: Tensor, weights: Tensor
    ) -> Tensor:
        """Probability of the unit interval around ``inputs``."""
        scales, means, weights = (self._per_gaussian(p, inputs.shape) for p in (scales, means, weights))
        return (weights * super()._likelihood(inputs[:, None], scales, means)).sum(dim=1)

    def forward(  # type: ignore[override]
        self,
        inputs: Tensor,
        scales: Tensor,
        means: Tensor,
        weights: Tensor,
        training: bool | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Quantise latents and tell how likely they are.

        Args:
            inputs: ``(B, M, H, W)``.
            scales: standard deviations, ``(B, K * M, H, W)``.
            means: ``(B, K * M, H, W)``.
            weights: ``(B, K * M, H, W)``.
            training: add noise instead of rounding; by default what the module's mode says.

        Returns:
            The quantised latents and the likelihood of each, both shaped like ``inputs``.

        Raises:
            ShapeError: shapes that do not match.
        """
        training = self.training if training is None else training
        outputs = self.quantize(inputs, "noise" if training else "dequantize")
        likelihood = self._likelihood(outputs, scales, means, weights)
        if self.use_likelihood_bound:
            likelihood = self.likelihood_lower_bound(likelihood)
        return outputs, likelihood

    # -- coding ---------------------------------------------------------------------------------------------

    def tables(self, scales: Tensor, means: Tensor, weights: Tensor, reach: int) -> Any:
        """Registered tables of the symbols ``-reach ... reach``, one for each of ``n`` latents.

        Args:
            scales: ``(K, n)``, and so are means and weights.
            means: see scales.
            weights: see scales.
            reach: largest magnitude with a probability of its own.

        Raises:
            CoderError: a parameter is not finite, or a weight negative.
        """
        cdfs = mixture_cdfs(self.lower_bound_scale(scales), means, weights, reach)
        count, entries = cdfs.shape
        sizes = np.full(count, entries, np.int32)
        return self.entropy_coder.register(cdfs, sizes, np.full(count, -reach, np.int32))

    def _pieces(self, y_shape: Sequence[int], params: Sequence[Tensor], reach: int) -> Any:
        """Tables of all latents in C order, in pieces: ``(slice of latents, tables)``."""
        scales, means, weights = (
            self._per_gaussian(p, y_shape).transpose(0, 1).reshape(self.K, -1) for p in params
        )
        count = scales.shape[1]
        step = max(1, _ENTRIES_AT_ONCE // (2 * reach + 3))
        for start in range(0, count, step):
            part = slice(start, min(start + step, count))
            yield part, self.tables(scales[:, part], means[:, part], weights[:, part], reach)

    @torch.no_grad()
    def compress(  # type: ignore[override]
        self, y: Tensor, scales: Tensor, means: Tensor, weights: Tensor
    ) -> tuple[tuple[bytes, int, Tensor], Tensor]:
        """Code latents, all batch elements into one string.

        Args:
            y: ``(B, M, H, W)``.
            scales: standard deviations, ``(B, K * M, H, W)``.
            means: ``(B, K * M, H, W)``.
            weights: ``(B, K * M, H, W)``.

        Returns:
            What :meth:`decompress` takes first, ``(string, abs_max, zero_bitmap)``, and the rounded latents.
            ``abs_max`` is the largest magnitude with a probability of its own, and ``zero_bitmap`` of shape
            ``(B, M)`` is 0 for channels that are all zero.

        Raises:
            ShapeError: shapes that do not match.
            CoderError: a latent or a parameter is not finite.
        """
        symbols = self.quantize(y, "symbols")
        magnitudes = symbols.abs().flatten(2).amax(2)
        reach = min(max(int(magnitudes.max()), 1), MAX_REACH)
        encoder = self.entropy_coder.encoder()
        bitmap = (magnitudes > 0).long()
        coded = self._coded(bitmap, y.shape)
        rows = symbols.cpu().numpy().reshape(-1)
        for part, tables in self._pieces(y.shape, (scales, means, weights), reach):
            which = np.flatnonzero(coded[part]).astype(np.int32)
            encoder.push(rows[part][which], which, tables)
        return (encoder.finish(), reach, bitmap), symbols.to(y.dtype)

    @torch.no_grad()
    def decompress(  # type: ignore[override]
        self,
        strings: bytes,
        abs_max: int,
        zero_bitmap: Tensor,
        scales: Tensor,
        means: Tensor,
        weights: Tensor,
    ) -> Tensor:
        """Undo :meth:`compress`: ``(B, M, H, W)``, integers.

        Raises:
            ShapeError: shapes that do not match.
            CoderError: a damaged string, or another ``abs_max``.
        """
        if not isinstance(strings, bytes):
            raise ShapeError(f"expected one string for the whole batch, not {type(strings).__name__}")
        if not 1 <= abs_max <= MAX_REACH:
            raise CoderError(f"abs_max must be 1 to {MAX_REACH}, not {abs_max}")
        batch, channels, *size = scales.shape
        shape = (batch, channels // self.K, *size)
        if zero_bitmap.shape != shape[:2]:
            raise ShapeError(f"the zero bitmap must be {shape[:2]}, not {tuple(zero_bitmap.shape)}")
        coded = self._coded(zero_bitmap, shape)
        decoder = self.entropy_coder.decoder(strings)
        rows = np.zeros(coded.size, np.int32)
        for part, tables in self._pieces(shape, (scales, means, weights), abs_max):
            which = np.flatnonzero(coded[part]).astype(np.int32)
            rows[part][which] = decoder.decode(which, tables)
        decoder.finish()
        return torch.from_numpy(rows).reshape(shape).to(scales)

    @staticmethod
    def _coded(bitmap: Tensor, shape: Sequence[int]) -> Any:
        batch, channels, *size = shape
        kept = (bitmap != 0).view(batch, channels, *(1 for _ in size)).expand(shape)
        return kept.cpu().numpy().reshape(-1)


def mixture_cdfs(scales: Tensor, means: Tensor, weights: Tensor, reach: int) -> Any:
    """Integer CDF tables of mixtures of Gaussians over the symbols ``-reach ... reach`` and the escape.

    Every symbol gets one of the 2^16 slots, and its share of the rest by its probability, rounded down; what is
    left over goes to the most probable. Computed in float64 on the CPU.

    Args:
        scales: ``(K, n)`` positive standard deviations.
        means: ``(K, n)``.
        weights: ``(K, n)``, not negative.
        reach: the largest magnitude, 1 to 2^12.

    Returns:
        int32, ``(n, 2 * reach + 3)``.

    Raises:
        CoderError: a parameter is not finite, or a weight negative.
    """
    scales, means, weights = (p.detach().to("cpu", torch.float64) for p in (scales, means, weights))
    if not all(torch.isfinite(p).all() for p in (scales, means, weights)) or (weights < 0).any():
        raise CoderError("weights, scales and means of the mixture must be finite, and weights not negative")
    edges = torch.arange(-reach, reach + 2, dtype=torch.float64)[:, None, None] - 0.5
    below = 0.5 * torch.erfc((means - edges) / (scales * 2**0.5))
    mass = ((below[1:] - below[:-1]) * weights).sum(1).clamp_(min=0)
    symbols = mass.shape[0] + 1
    total = mass.sum(0)
    # Where nothing lies inside, all symbols are alike.
    share = torch.where(total > 0, mass / total, 1.0 / mass.shape[0])
    spare = 2**PRECISION - symbols
    frequencies = torch.floor(share * spare).long() + 1
    left = 2**PRECISION - 1 - frequencies.sum(0)
    frequencies.scatter_add_(0, mass.argmax(0)[None], left[None])
    cdfs = torch.zeros(frequencies.shape[1], symbols + 1, dtype=torch.int32)
    cdfs[:, 1:-1] = frequencies.cumsum(0).t()
    cdfs[:, -1] = 2**PRECISION
    return cdfs.numpy()
