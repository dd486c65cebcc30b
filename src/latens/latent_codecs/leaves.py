"""Codecs around one entropy model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from latens.entropy_models import EntropyBottleneck, GaussianConditional
from latens.errors import ModelError
from latens.latent_codecs.base import LatentCodec, Strings, check_size, check_streams
from latens.ops import quantize_ste

__all__ = [
    "EntropyBottleneckLatentCodec",
    "GainHyperLatentCodec",
    "GaussianConditionalLatentCodec",
    "HyperLatentCodec",
]

_CHUNKS = (("scales",), ("means",), ("scales", "means"), ("means", "scales"))


def _check_quantizer(quantizer: str) -> str:
    if quantizer not in ("noise", "ste"):
        raise ModelError(f'quantizer must be "noise" or "ste", not {quantizer!r}')
    return quantizer


class EntropyBottleneckLatentCodec(LatentCodec):
    """A latent coded with one learned density per channel.

    .. code-block:: none

        y ──►── Q ──►── EntropyBottleneck ──►── y_hat

    Args:
        entropy_bottleneck: the entropy model; made from ``kwargs`` if None.
        **kwargs: for :class:`EntropyBottleneck`.
    """

    def __init__(self, entropy_bottleneck: EntropyBottleneck | None = None, **kwargs: Any) -> None:
        super().__init__()
        self.entropy_bottleneck = entropy_bottleneck or EntropyBottleneck(**kwargs)

    def forward(self, y: Tensor) -> dict[str, Any]:
        """``y`` is ``(B, C, H, W)``."""
        y_hat, likelihoods = self.entropy_bottleneck(y)
        return {"likelihoods": {"y": likelihoods}, "y_hat": y_hat}

    def compress(self, y: Tensor) -> dict[str, Any]:
        """``shape`` is ``(H, W)``."""
        strings = self.entropy_bottleneck.compress(y)
        return {"strings": [strings], "shape": y.shape[-2:], "y_hat": self.entropy_bottleneck.dequantized(y)}

    def decompress(self, strings: Strings, shape: Sequence[int], **kwargs: Any) -> dict[str, Any]:
        """Raises ``ShapeError`` for another number of streams, ``CoderError`` for a damaged one."""
        (part,) = check_streams(strings, 1)
        return {"y_hat": self.entropy_bottleneck.decompress(part, shape)}


class GaussianConditionalLatentCodec(LatentCodec):
    """A latent coded as Gaussians, whose parameters a network makes from the context.

    .. code-block:: none

                     ctx_params
                         ▼
                  entropy_parameters
                         ▼ scales, means
        y ──►── Q ──►── GaussianConditional ──►── y_hat

    Args:
        scale_table: for :class:`GaussianConditional`.
        gaussian_conditional: the entropy model; made from ``scale_table`` and ``kwargs`` if None.
        entropy_parameters: network from context to parameters; the identity if None.
        quantizer: what ``y_hat`` is while training: with ``"noise"``, or rounded with a straight-through
            gradient (``"ste"``).
        chunks: what the parameters hold, in their order: ``"scales"``, ``"means"`` or both.
        **kwargs: for :class:`GaussianConditional`.

    Raises:
        ModelError: another quantizer or other chunks.
    """

    def __init__(
        self,
        scale_table: Sequence[float] | Tensor | None = None,
        gaussian_conditional: GaussianConditional | None = None,
        entropy_parameters: nn.Module | None = None,
        quantizer: str = "noise",
        chunks: Sequence[str] = ("scales", "means"),
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.quantizer = _check_quantizer(quantizer)
        self.gaussian_conditional = gaussian_conditional or GaussianConditional(scale_table, **kwargs)
        self.entropy_parameters = nn.Identity() if entropy_parameters is None else entropy_parameters
        self.chunks = tuple(chunks)
        if self.chunks not in _CHUNKS:
            raise ModelError(f"chunks must be one of {_CHUNKS}, not {self.chunks}")

    def _chunk(self, params: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Scales and means, None where there are none."""
        if len(self.chunks) == 1:
            return (params, None) if self.chunks == ("scales",) else (None, params)
        first, second = params.chunk(2, 1)
        return (first, second) if self.chunks == ("scales", "means") else (second, first)

    def _parameters_of(self, ctx_params: Tensor) -> tuple[Tensor, Tensor | None]:
        scales, means = self._chunk(self.entropy_parameters(ctx_params))
        if scales is None:
            raise ModelError("a Gaussian needs scales: use other chunks")
        return scales, means

    def forward(self, y: Tensor, ctx_params: Tensor) -> dict[str, Any]:
        """``y`` is ``(B, C, H, W)``, ``ctx_params`` what ``entropy_parameters`` takes."""
        scales, means = self._parameters_of(ctx_params)
        y_hat, likelihoods = self.gaussian_conditional(y, scales, means=means)
        if self.quantizer == "ste":
            y_hat = quantize_ste(y) if means is None else quantize_ste(y - means) + means
        return {"likelihoods": {"y": likelihoods}, "y_hat": y_hat}

    def compress(self, y: Tensor, ctx_params: Tensor) -> dict[str, Any]:
        """``shape`` is ``(H, W)``."""
        scales, means = self._parameters_of(ctx_params)
        indexes = self.gaussian_conditional.build_indexes(scales)
        strings = self.gaussian_conditional.compress(y, indexes, means)
        y_hat = self.gaussian_conditional.quantize(y, "dequantize", means)
        return {"strings": [strings], "shape": y.shape[2:4], "y_hat": y_hat}

    def decompress(
        self, strings: Strings, shape: Sequence[int], ctx_params: Tensor, **kwargs: Any
    ) -> dict[str, Any]:
        """Raises ``ShapeError`` for another number of streams or size, ``CoderError`` for damage."""
        (part,) = check_streams(strings, 1)
        scales, means = self._parameters_of(ctx_params)
        check_size(shape, scales.shape[2:])
        indexes = self.gaussian_conditional.build_indexes(scales)
        return {"y_hat": self.gaussian_conditional.decompress(part, indexes, scales.dtype, means)}


class HyperLatentCodec(LatentCodec):
    """Side information: a latent of the latent, coded with one learned density per channel.

    .. code-block:: none

                      (gain)                                  (gain_inv)
                         ▼                                        ▼
        y ──►── h_a ──►─ × ──►── Q ──►── EntropyBottleneck ──►─── × ──►── h_s ──►── params

    Ballé, Minnen, Singh, Hwang, Johnston, "Variational image compression with a scale hyperprior", ICLR 2018.
    The gains are those of Cui et al., "Asymmetric gained deep image compression with continuous rate
    adaptation", CVPR 2021; leave them out for fixed rate.

    Args:
        entropy_bottleneck: the entropy model.
        h_a: network from ``y`` to ``z``.
        h_s: network from ``z_hat`` to parameters of ``y``.
        quantizer: what ``h_s`` sees while training: ``z`` with ``"noise"``, or rounded with a
            straight-through gradient (``"ste"``).

    Raises:
        ModelError: another quantizer.
    """

    def __init__(
        self,
        entropy_bottleneck: EntropyBottleneck,
        h_a: nn.Module,
        h_s: nn.Module,
        quantizer: str = "noise",
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.entropy_bottleneck = entropy_bottleneck
        self.h_a = h_a
        self.h_s = h_s
        self.quantizer = _check_quantizer(quantizer)

    def _analysis(self, y: Tensor, gain: Tensor | None) -> Tensor:
        z: Tensor = self.h_a(y)
        return z if gain is None else z * gain

    def _synthesis(self, z_hat: Tensor, gain_inv: Tensor | None) -> Tensor:
        params: Tensor = self.h_s(z_hat if gain_inv is None else z_hat * gain_inv)
        return params

    def forward(
        self, y: Tensor, gain: Tensor | None = None, gain_inv: Tensor | None = None
    ) -> dict[str, Any]:
        """``y`` is ``(B, C, H, W)``; returns ``likelihoods`` of ``z``, and ``params``."""
        z = self._analysis(y, gain)
        z_hat, likelihoods = self.entropy_bottleneck(z)
        if self.quantizer == "ste":
            medians = self.entropy_bottleneck._get_medians().view(1, -1, 1, 1)
            z_hat = quantize_ste(z - medians) + medians
        return {"likelihoods": {"z": likelihoods}, "params": self._synthesis(z_hat, gain_inv)}

    def compress(
        self, y: Tensor, gain: Tensor | None = None, gain_inv: Tensor | None = None
    ) -> dict[str, Any]:
        """``shape`` is height and width of ``z``."""
        z = self._analysis(y, gain)
        strings = self.entropy_bottleneck.compress(z)
        params = self._synthesis(self.entropy_bottleneck.dequantized(z), gain_inv)
        return {"strings": [strings], "shape": z.shape[-2:], "params": params}

    def decompress(
        self, strings: Strings, shape: Sequence[int], gain_inv: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Raises ``ShapeError`` for another number of streams, ``CoderError`` for a damaged one."""
        (part,) = check_streams(strings, 1)
        z_hat = self.entropy_bottleneck.decompress(part, shape)
        return {"params": self._synthesis(z_hat, gain_inv)}


class GainHyperLatentCodec(HyperLatentCodec):
    """:class:`HyperLatentCodec` under the name that says that gains are used with it."""
