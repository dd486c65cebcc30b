"""Gaussian entropy models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latens.entropy_models.base import EntropyModel, Unchanged, check_table_size, lasting
from latens.errors import CoderError, ModelError, TableError
from latens.ops import LowerBound

__all__ = ["SCALES_LEVELS", "SCALES_MAX", "SCALES_MIN", "GaussianConditional", "get_scale_table"]

SCALES_MIN = 0.11
SCALES_MAX = 256
SCALES_LEVELS = 64


def get_scale_table(min: float = SCALES_MIN, max: float = SCALES_MAX, levels: int = SCALES_LEVELS) -> Tensor:
    """``levels`` standard deviations from ``min`` to ``max``, evenly spaced on a logarithmic scale."""
    return torch.exp(torch.linspace(math.log(min), math.log(max), levels))


class GaussianConditional(EntropyModel):
    """Gaussian density whose scale, and where wanted mean, is given for every latent.

    While training, the likelihood is that of the Gaussian integrated over the unit interval around the
    latent. While coding, the scale is rounded up to the next entry of the scale table, and each entry has
    one CDF table.

    Ballé, Minnen, Singh, Hwang, Johnston, "Variational image compression with a scale hyperprior", ICLR 2018.

    Args:
        scale_table: rising positive standard deviations; None leaves the table to
            :meth:`update_scale_table`, or to the first coding, which takes :func:`get_scale_table`.
        scale_bound: smaller scales are raised to this value; None takes the first entry of the table.
        tail_mass: probability outside a CDF table, both tails together.
        *args, **kwargs: see :class:`EntropyModel`.

    Raises:
        TableError: the scale table does not rise, or is not positive and finite.
        ModelError: no valid scale bound.
    """

    scale_table: Tensor
    scale_bound: Tensor
    # Of the class, because there are derived ones that call the constructor of EntropyModel alone.
    _known_lookup: tuple[Unchanged, _IndexLookup] | None = None

    def __init__(
        self,
        scale_table: Sequence[float] | Tensor | None,
        *args: Any,
        scale_bound: float | None = 0.11,
        tail_mass: float = 1e-9,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.tail_mass = float(tail_mass)
        table = torch.Tensor() if scale_table is None else _checked_scale_table(scale_table)
        if scale_bound is None and table.numel() > 0:
            scale_bound = float(table[0])
        if scale_bound is None or not scale_bound > 0:
            raise ModelError(f"scale_bound must be positive, or None beside a scale table, not {scale_bound}")
        self.lower_bound_scale = LowerBound(scale_bound)
        self.register_buffer("scale_table", table)
        self.register_buffer("scale_bound", torch.tensor([float(scale_bound)]))

    # -- the density ----------------------------------------------------------------------------------------

    def _standardized_cumulative(self, inputs: Tensor) -> Tensor:
        # erfc keeps its precision in the tail, where erf is 1 minus nothing.
        return 0.5 * torch.erfc(-(2**-0.5) * inputs)

    @staticmethod
    def _standardized_quantile(quantile: float) -> float:
        return NormalDist().inv_cdf(quantile)

    def _likelihood(self, inputs: Tensor, scales: Tensor, means: Tensor | None = None) -> Tensor:
        """Probability of the unit interval around ``inputs``."""
        # The density is symmetric, and in the left tail the difference of the two ends loses nothing.
        values = torch.abs(inputs if means is None else inputs - means)
        scales = self.lower_bound_scale(scales)
        upper = self._standardized_cumulative((0.5 - values) / scales)
        lower = self._standardized_cumulative((-0.5 - values) / scales)
        return upper - lower

    def forward(
        self, inputs: Tensor, scales: Tensor, means: Tensor | None = None, training: bool | None = None
    ) -> tuple[Tensor, Tensor]:
        """Quantise latents and tell how likely they are.

        Args:
            inputs: ``(batch, channels, ...)``.
            scales: standard deviations, shaped like ``inputs``.
            means: shaped like ``inputs``; None for zero.
            training: add noise instead of rounding; by default what the module's mode says.

        Returns:
            The quantised latents and the likelihood of each, both shaped like ``inputs``.
        """
        training = self.training if training is None else training
        outputs = self.quantize(inputs, "noise" if training else "dequantize", means)
        likelihood = self._likelihood(outputs, scales, means)
        if self.use_likelihood_bound:
            likelihood = self.likelihood_lower_bound(likelihood)
        return outputs, likelihood

    # -- tables ---------------------------------------------------------------------------------------------

    def update_scale_table(self, scale_table: Sequence[float] | Tensor, force: bool = False) -> bool:
        """Set the scale table and make the coding tables.

        Args:
            scale_table: rising positive standard deviations.
            force: also where there are tables already.

        Returns:
            Whether tables were made.

        Raises:
            TableError: the scale table is not valid.
        """
        if self._quantized_cdf.numel() > 0 and not force:
            return False
        self.scale_table = lasting(_checked_scale_table(scale_table).to(self.scale_table.device))
        self.update()
        return True

    @torch.no_grad()
    def update(self) -> None:
        """Make the coding tables of the present scale table.

        Raises:
            TableError: there is no valid scale table, or it asks for tables too large to code with.
        """
        table = _checked_scale_table(self.scale_table)
        multiplier = -self._standardized_quantile(self.tail_mass / 2)
        check_table_size(len(table), 2 * math.ceil(table[-1].item() * multiplier) + 1)
        reach = torch.ceil(table * multiplier).int()
        lengths = 2 * reach + 1
        max_length = int(lengths.max().item())

        samples = torch.arange(max_length, device=table.device)[None, :] - reach[:, None]
        # Tables are computed in float32 whatever the type of the model, so that all get the same ones.
        distances = samples.abs().float()
        scales = table[:, None].float()
        upper = self._standardized_cumulative((0.5 - distances) / scales)
        lower = self._standardized_cumulative((-0.5 - distances) / scales)
        tail_mass = 2 * lower[:, :1]
        cdfs = self._pmf_to_cdf(upper - lower, tail_mass, lengths, max_length)
        self._set_tables(cdfs, lengths + 2, -reach)

    def _table_source(self) -> Tensor:
        return self.scale_table.detach().clone()

    def _make_tables(self) -> None:
        if self.scale_table.numel() == 0:
            self.scale_table = lasting(get_scale_table().to(self.scale_table))
        self.update()

    def build_indexes(self, scales: Tensor) -> Tensor:
        """Table that each scale is coded with: the first whose standard deviation is not smaller.

        Args:
            scales: standard deviations, any shape. Those beyond the table get its last entry.

        Returns:
            int32, shaped like ``scales``.

        Raises:
            CoderError: a scale is NaN.
            TableError: the scale table is not valid.
        """
        if self.scale_table.numel() == 0:
            self._make_tables()
        scales = scales.detach()
        if scales.device.type == "cpu" and scales.dtype == torch.float32 and scales.dim() > 0:
            found = self._lookup()(scales.contiguous().numpy())
            if found is not None:
                return torch.from_numpy(found)
        scales = torch.maximum(scales, self._index_bound().to(scales))
        # The extremes of anything with NaN are NaN.
        if scales.numel() > 0 and torch.isnan(torch.aminmax(scales).max):
            raise CoderError("the scales of the latents contain NaN; look for it in weights and input")
        dtype = torch.promote_types(scales.dtype, self.scale_table.dtype)
        # The last entry takes what is left, so it is no boundary.
        boundaries = self.scale_table[:-1].to(dtype)
        return torch.bucketize(scales.to(dtype).contiguous(), boundaries, out_int32=True)

    def _index_bound(self) -> Tensor:
        """What smaller scales are raised to before a table is chosen, ``(1,)``."""
        return self.lower_bound_scale.bound

    def _lookup(self) -> _IndexLookup:
        sources = (self.scale_table, self.lower_bound_scale.bound)
        if self._known_lookup is None or not self._known_lookup[0](*sources):
            lookup = _IndexLookup(self.scale_table.detach(), self._index_bound().detach())
            self._known_lookup = Unchanged(*sources), lookup
        return self._known_lookup[1]

    # -- saving and loading ---------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_known_lookup": None}

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        table = state_dict.get(prefix + "scale_table")
        if isinstance(table, Tensor) and table.numel() > 0:
            _checked_scale_table(table)
        self._resize_like_file(state_dict, prefix, ("scale_table",))
        super()._load_from_state_dict(state_dict, prefix, *args)


class _IndexLookup:
    """Indexes of float32 scales by a table lookup, where a search would take a hundred times as long.

    Positive floats are ordered like their bits. The first 13 (sign, exponent, 4 of the mantissa) choose an entry,
    which is so made that adding the other 19 carries into bit 19 if they are above the one boundary that may lie
    there: the index is what stands above.

    Args:
        scale_table: rising standard deviations.
        bound: smaller scales are raised to it.
    """

    _LOW_BITS = 19
    _KEYS = 1 << (32 - _LOW_BITS)
    _ASK = -(2**31)
    """What is no number, and tables with boundaries too close to each other, need the search."""

    def __init__(self, scale_table: Tensor, bound: Tensor) -> None:
        low_mask = (1 << self._LOW_BITS) - 1
        self._mask = np.uint32(low_mask)
        boundaries = scale_table[:-1].to("cpu", torch.float32).numpy()
        first = int(np.searchsorted(boundaries, bound.cpu().item()))
        bits = boundaries.view(np.int32).astype(np.int64)[first:]
        keys = np.arange(self._KEYS, dtype=np.int64)
        # Negative scales are raised to the bound like small ones.
        below = np.where(keys < self._KEYS // 2, np.searchsorted(bits, keys << self._LOW_BITS), 0)
        thresholds = np.full(self._KEYS, low_mask)
        thresholds[bits >> self._LOW_BITS] = bits & low_mask
        entries = ((first + below) << self._LOW_BITS) + low_mask - thresholds
        crowded = np.bincount(bits >> self._LOW_BITS, minlength=self._KEYS) > 1
        exponent = (keys >> (23 - self._LOW_BITS)) & 0xFF
        entries[crowded | (exponent == 0xFF) | (entries >= 2**31 - 2**20)] = self._ASK
        self._entries = entries.astype(np.int32)

    def __call__(self, scales: NDArray[np.float32]) -> NDArray[np.int32] | None:
        """The indexes, or None if some scale needs the search."""
        bits = scales.view(np.uint32)
        found: NDArray[np.int32] = np.take(self._entries, bits >> self._LOW_BITS, mode="clip")
        found += (bits & self._mask).view(np.int32)
        if found.size > 0 and found.min() < 0:
            return None
        found >>= self._LOW_BITS
        return found


def _checked_scale_table(scale_table: object) -> Tensor:
    """``scale_table`` as a tensor.

    Raises:
        TableError: it is not a list of rising, positive, finite numbers.
    """
    if not isinstance(scale_table, (list, tuple, Tensor)):
        raise TableError(f"a scale table must be a list of numbers, not {type(scale_table).__name__}")
    if not isinstance(scale_table, Tensor):
        scale_table = torch.tensor(tuple(float(s) for s in scale_table))
    table = scale_table.detach()
    if table.dim() != 1 or table.numel() == 0:
        raise TableError(f"a scale table must be a list of numbers, not of shape {tuple(table.shape)}")
    if not (torch.isfinite(table).all() and table[0] > 0 and (table[1:] >= table[:-1]).all()):
        raise TableError(
            f"a scale table must hold rising, positive, finite numbers; these go from {table[0].item():g} to "
            f"{table[-1].item():g} and break the rule: sort them and remove what is not a positive number"
        )
    return table
