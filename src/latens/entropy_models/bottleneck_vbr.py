"""Entropy models with a quantisation step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from latens.entropy_models.base import EntropyModel
from latens.entropy_models.bottleneck import EntropyBottleneck, rename_old_keys
from latens.errors import ModelError
from latens.ops import quantize_ste

__all__ = ["EntropyBottleneckVbr", "EntropyModelVbr"]

_FLAT = {"matrices": "_matrix", "biases": "_bias", "factors": "_factor"}
_LIST_KEY = re.compile(r"(matrices|biases|factors)\.(\d+)")


class EntropyModelVbr(EntropyModel):
    """:class:`EntropyModel` that rounds to multiples of a step ``qs``, any positive scalar; None is a step of 1.

    Args:
        *args, **kwargs: see :class:`EntropyModel`.
    """

    def quantize_variable(
        self, inputs: Tensor, mode: str, means: Tensor | None = None, qs: Tensor | None = None
    ) -> Tensor:
        """:meth:`EntropyModel.quantize` with a step: noise as wide as it, multiples of it, or symbols that count it.

        Raises:
            ModelError: an unknown mode.
            CoderError: the mode is ``"symbols"`` and a value is not finite or too large.
        """
        if qs is None:
            return self.quantize(inputs, mode, means)
        if mode == "noise":
            # The noise of a unit step, so that there is one source of noise.
            return inputs + self.quantize(torch.zeros_like(inputs), mode) * qs
        steps = self.quantize((inputs if means is None else inputs - means) / qs, mode)
        return steps if mode == "symbols" else self.dequantize_variable(steps, means, steps.dtype, qs)

    @staticmethod
    def dequantize_variable(
        inputs: Tensor,
        means: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        qs: Tensor | None = None,
    ) -> Tensor:
        """Latents of integer symbols that count steps."""
        if qs is None:
            return EntropyModel.dequantize(inputs, means, dtype)
        return EntropyModel.dequantize(inputs.to(dtype if means is None else means.dtype) * qs, means, dtype)

    def compress(
        self, inputs: Tensor, indexes: Tensor, means: Tensor | None = None, qs: Tensor | None = None
    ) -> list[bytes]:
        """:meth:`EntropyModel.compress` with a step."""
        if qs is None:
            return super().compress(inputs, indexes, means)
        return super().compress((inputs if means is None else inputs - means) / qs, indexes)

    def decompress(
        self,
        strings: Sequence[bytes],
        indexes: Tensor,
        dtype: torch.dtype = torch.float32,
        means: Tensor | None = None,
        qs: Tensor | None = None,
    ) -> Tensor:
        """:meth:`EntropyModel.decompress` with a step."""
        if qs is None:
            return super().decompress(strings, indexes, dtype, means)
        return self.dequantize_variable(super().decompress(strings, indexes, dtype), means, dtype, qs)


class EntropyBottleneckVbr(EntropyBottleneck, EntropyModelVbr):
    """:class:`EntropyBottleneck` whose latents may be rounded to multiples of any step.

    Kamisli, Racapé, Choi, "Variable-rate learned image compression with multi-objective optimization and
    quantization-reconstruction offsets", DCC 2024.

    Its parameters are called ``_matrix0``, ``_bias0``, ``_factor0``, ... in the ``state_dict``. Where ``qs``,
    the step, is None, it is the ordinary bottleneck with step 1.

    Tables belong to one step. Those that were loaded or made by :meth:`update` or :meth:`update_variable` are
    used for whatever step is coded with; those that coding made by itself are made again for another step.

    Args:
        channels: number of channels.
        *args, **kwargs: see :class:`EntropyBottleneck`.
    """

    def __init__(self, channels: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(channels, *args, **kwargs)
        quantiles = self.quantiles
        lists = {name: list(getattr(self, name)) for name in _FLAT}
        for name in (*_FLAT, "quantiles"):
            delattr(self, name)
        for i in range(len(lists["matrices"])):
            for name, weights in lists.items():
                if i < len(weights):
                    self.register_parameter(f"{_FLAT[name]}{i}", weights[i])
        self.quantiles = quantiles
        # The step of tables that coding made by itself.
        self._own_step: float | None = None

    def _weights(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        layers = len(self.filters) + 1
        return (
            [getattr(self, f"_matrix{i}") for i in range(layers)],
            [getattr(self, f"_bias{i}") for i in range(layers)],
            [getattr(self, f"_factor{i}") for i in range(layers - 1)],
        )

    # -- the density ----------------------------------------------------------------------------------------

    def _likelihood_variable(
        self, inputs: Tensor, stop_gradient: bool = False, qs: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Probability of the interval of width ``qs`` around ``inputs``, and the logits at its two ends."""
        return self._mass(inputs, stop_gradient, 1.0 if qs is None else qs)

    def forward(
        self, x: Tensor, training: bool | None = None, qs: Tensor | None = None, ste: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Quantise latents and tell how likely they are.

        With a step, likelihoods are those of the interval of width 1, without gradients for the density, as in
        CompressAI 1.2.8: they are no measure of the rate unless the step is 1. :meth:`_likelihood_variable` is.

        Args:
            x: ``(batch, channels, ...)``.
            training: add noise instead of rounding; by default what the module's mode says.
            qs: the step, a scalar.
            ste: round with a straight-through gradient where noise would be added; only with ``qs``.

        Returns:
            The quantised latents and the likelihood of each, both shaped like ``x``.

        Raises:
            ShapeError: ``x`` has another number of channels.
            ModelError: the step is no positive number.
        """
        if qs is None:
            return super().forward(x, training)
        self._check_channels(x)
        step = self._step(qs)
        training = self.training if training is None else training
        by_channel = x.transpose(0, 1)
        values = by_channel.reshape(self.channels, 1, -1)
        medians = self._get_medians()
        if ste:
            outputs = quantize_ste((values - medians) / step) * step + medians
        else:
            outputs = self.quantize_variable(values, "noise" if training else "dequantize", medians, step)
        likelihood, _, _ = self._likelihood(outputs, stop_gradient=True)
        if self.use_likelihood_bound:
            likelihood = self.likelihood_lower_bound(likelihood)
        return (
            outputs.reshape(by_channel.shape).transpose(0, 1).contiguous(),
            likelihood.reshape(by_channel.shape).transpose(0, 1).contiguous(),
        )

    def _step(self, qs: Tensor | float | None) -> Tensor:
        step = torch.as_tensor(1.0 if qs is None else qs).to(self.quantiles)
        if step.numel() != 1 or not (torch.isfinite(step).all() and step > 0):
            raise ModelError(f"the quantisation step must be a positive number, not {qs}")
        return step.reshape(())

    # -- tables ---------------------------------------------------------------------------------------------

    def update(self, force: bool = False, update_quantiles: bool = False) -> bool:
        """Make the coding tables for step 1. See :meth:`EntropyBottleneck.update`."""
        updated = super().update(force, update_quantiles)
        if updated:
            self._own_step = None
        return updated

    def update_variable(self, force: bool = False, qs: Tensor | float = 1.0) -> bool:
        """Make the coding tables for the step ``qs``, from the present weights and quantiles.

        Args:
            force: make them even if there are tables of these weights already.
            qs: the step.

        Returns:
            Whether tables were made.

        Raises:
            ModelError: the step is no positive number.
            TableError: the weights or quantiles are not finite, or ask for tables too large to code with.
        """
        step = self._step(qs)
        if self._quantized_cdf.numel() > 0 and not force and not self._tables_are_stale():
            return False
        self._tables_from_quantiles(self.quantiles.detach(), step.detach())
        self._own_step = None
        return True

    def _tables_for(self, step: Tensor) -> None:
        """See to it that there are tables to code with, if possible of this step."""
        if self._quantized_cdf.numel() == 0:
            quantiles = self._table_ends()
        elif self._own_step in (None, float(step)) or self._tables_are_stale():
            self._tables()
            return
        else:
            quantiles = self.quantiles.detach()
        self._tables_from_quantiles(quantiles, step)
        self._own_step = float(step)

    # -- coding ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def compress(self, x: Tensor, qs: Tensor | float | None = None) -> list[bytes]:  # type: ignore[override]
        """Code latents ``(batch, channels, ...)``, rounded to multiples of ``qs``: one string per batch element.

        Raises:
            ShapeError: ``x`` has another number of channels.
            CoderError: a latent is not finite.
            ModelError: the step is no positive number.
            TableError: no valid tables can be made from the weights.
        """
        self._check_channels(x)
        step = self._step(qs)
        self._tables_for(step)
        batch, _, *size = x.shape
        medians = self._expanded_medians(batch, size)
        return EntropyModelVbr.compress(self, x, self._indexes(batch, size), medians, step)

    @torch.no_grad()
    def decompress(  # type: ignore[override]
        self, strings: Sequence[bytes], size: Sequence[int], qs: Tensor | float | None = None
    ) -> Tensor:
        """Undo :meth:`compress`.

        Args:
            strings: one per batch element.
            size: sizes of the latents after the channels, as ``x.shape[2:]``.
            qs: the step they were coded with.

        Returns:
            ``(len(strings), channels, *size)``.

        Raises:
            ShapeError: ``strings`` is not a list of bytes, or a size is negative.
            LimitError: so many values do not fit into the strings.
            CoderError: a damaged string.
            ModelError: the step is no positive number.
        """
        size = self._checked_size(strings, size)
        step = self._step(qs)
        self._tables_for(step)
        batch = len(strings)
        medians = self._expanded_medians(batch, size)
        indexes = self._indexes(batch, size)
        return EntropyModelVbr.decompress(self, strings, indexes, medians.dtype, medians, step)

    def dequantized(self, x: Tensor, qs: Tensor | float | None = None) -> Tensor:
        """What :meth:`decompress` will return for ``x``. To be called after :meth:`compress`."""
        medians = self._expanded_medians(x.shape[0], x.shape[2:])
        return self.quantize_variable(x, "dequantize", medians, self._step(qs))

    # -- loading --------------------------------------------------------------------------------------------

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        # All forms become that of lists, and this the flat one.
        rename_old_keys(state_dict, prefix)
        for key in [k for k in state_dict if k.startswith(prefix)]:
            if match := _LIST_KEY.fullmatch(key[len(prefix) :]):
                state_dict[f"{prefix}{_FLAT[match[1]]}{match[2]}"] = state_dict.pop(key)
        EntropyModel._load_from_state_dict(self, state_dict, prefix, *args)
        self._own_step = None
