"""Hyperpriors of variable rate: one model for all qualities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latens.ans import BufferedRansEncoder, RansDecoder  # noqa: F401  (derived models import them from here)
from latens.entropy_models import EntropyBottleneckVbr, GaussianConditional
from latens.entropy_models.gaussian import get_scale_table
from latens.errors import ModelError
from latens.latent_codecs.rasterscan import PositionCodec, RasterScan
from latens.models.base import check_code, coded_exactly, decoded_exactly
from latens.models.google import JointAutoregressiveHierarchicalPriors, MeanScaleHyperprior, ScaleHyperprior
from latens.ops import LowerBound, quantize_ste
from latens.registry import register_model  # noqa: F401  (as above)

__all__ = ["JointAutoregressiveHierarchicalPriorsVbr", "MeanScaleHyperpriorVbr", "ScaleHyperpriorVbr"]

_GAINS = (0.1, 0.13944, 0.19293, 0.26874, 0.37268, 0.51801, 0.71957, 1.0)
_LMBDA = (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483, 0.0932, 0.1800)

_ZERO = 1e-4
"""Magnitudes below are those of latents rounded to zero."""


class _GainQuantizer(PositionCodec):
    """Steps of ``1 / gain`` around the means; values of decoded symbols are moved towards zero by a network.

    Args:
        gaussian_conditional: the entropy model.
        offsets: network from (standard deviation in steps, gain) to how far towards zero, in steps.
        gain: a scalar.
    """

    def __init__(self, gaussian_conditional: GaussianConditional, offsets: nn.Module, gain: Tensor) -> None:
        super().__init__(gaussian_conditional)
        self.offsets = offsets
        self.gain = gain
        self.step = 1.0 / gain

    def _values(self, signs: Tensor, magnitudes: Tensor, scales: Tensor, means: Tensor | None) -> Tensor:
        deviations = self.gaussian_conditional.lower_bound_scale(scales * self.gain)
        features = torch.stack((deviations, self.gain.detach().expand_as(deviations)), dim=-1)
        offsets = -self.offsets(features).squeeze(-1)
        offsets = torch.where(magnitudes < _ZERO, torch.zeros_like(offsets), offsets)
        values = signs * (magnitudes + offsets) * self.step
        return values if means is None else values + means

    def indexes(self, scales: Tensor) -> Tensor:
        return super().indexes(scales * self.gain)

    def symbols(self, y: Tensor, means: Tensor) -> Tensor:
        return self.gaussian_conditional.quantize((y - means) * self.gain, "symbols")

    def values(self, symbols: Tensor, scales: Tensor, means: Tensor | None) -> Tensor:
        symbols = symbols.to(scales.dtype)
        return self._values(torch.sign(symbols), symbols.abs(), scales, means)

    def round(self, y: Tensor, scales: Tensor, means: Tensor | None) -> Tensor:
        """What the decoder will have for ``y``, with straight-through gradients."""
        steps = (y if means is None else y - means) * self.gain
        return self._values(torch.sign(steps).detach(), quantize_ste(steps.abs()), scales, means)


class _ReferenceStage1(PositionCodec):
    """Steps of 1, with the tables of another gain: what CompressAI 1.2.8 codes in stage 1, at a higher rate."""

    def __init__(self, gaussian_conditional: GaussianConditional, gain: Tensor) -> None:
        super().__init__(gaussian_conditional)
        self.gain = gain

    def indexes(self, scales: Tensor) -> Tensor:
        return super().indexes(scales * self.gain)


class ScaleHyperpriorVbr(ScaleHyperprior):
    r""":class:`ScaleHyperprior` of variable rate.

    .. code-block:: none

        y ──►── × gain ──►── Q ──►── GaussianConditional(scales * gain) ──►── offsets ──►── / gain ──►── y_hat

    A latent is rounded in steps of 1 over a gain, and moved towards zero by an offset that a small network
    (``QuantABCD``) knows from its scale and the gain. There is a learned gain per quality; any other can be
    given. Everything else, with its shapes and units, is as in the class of fixed rate, whose numbers ``stage=1``
    gives: models are trained in stage 1 at one rate, then in stage 2 at all.

    Kamisli, Racapé, Choi, "Variable-rate learned image compression with multi-objective optimization and
    quantization-reconstruction offsets", DCC 2024.

    Args:
        N: channels of the transforms.
        M: channels of the latent.
        vr_entbttlnck: give z a step, too, which a small network (``gayn2zqstep``) knows from the gain.
    """

    entropy_bottleneck: Any

    def __init__(self, N: int, M: int, vr_entbttlnck: bool = False, **kwargs: Any) -> None:
        super().__init__(N, M, **kwargs)
        self.lmbda = list(_LMBDA)
        self.levels = len(_GAINS)
        self.Gain = nn.Parameter(torch.tensor(_GAINS))
        width = 12
        self.QuantABCD = nn.Sequential(
            nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )
        self.vr_entbttlnck = bool(vr_entbttlnck)
        if self.vr_entbttlnck:
            self.entropy_bottleneck = EntropyBottleneckVbr(N)
            width = 10
            self.gayn2zqstep = nn.Sequential(
                nn.Linear(1, width),
                nn.ReLU(),
                nn.Linear(width, width),
                nn.ReLU(),
                nn.Linear(width, 1),
                nn.Softplus(),
            )
            self.lower_bound_zqstep = LowerBound(0.5)

    @staticmethod
    def _arguments(state_dict: Mapping[str, Any]) -> dict[str, Any]:
        arguments: dict[str, Any] = ScaleHyperprior._arguments(state_dict)
        if "gayn2zqstep.0.weight" in state_dict:
            arguments["vr_entbttlnck"] = True
        return arguments

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Any], vr_entbttlnck: bool | None = None) -> Self:
        """See :meth:`CompressionModel.from_state_dict`.

        Args:
            state_dict: the weights.
            vr_entbttlnck: what the weights should be made for; None takes what they are made for.

        Raises:
            ModelError: they are not.
        """
        model = super().from_state_dict(state_dict)
        if vr_entbttlnck is not None and bool(vr_entbttlnck) != model.vr_entbttlnck:
            raise ModelError(
                f"vr_entbttlnck={vr_entbttlnck} was asked for, but these weights "
                f"{'have' if model.vr_entbttlnck else 'lack'} the network (gayn2zqstep) for it; leave the argument out"
            )
        return model

    # -- gains ----------------------------------------------------------------------------------------------

    def _given_gain(self, gain: Tensor | float) -> Tensor:
        given = torch.as_tensor(gain).to(self.Gain).detach()
        if given.numel() != 1 or not (torch.isfinite(given).all() and given != 0):
            raise ModelError(f"a gain must be one finite number that is not 0, not {gain}")
        return given.reshape(())

    def _get_scale(self, stage: int, s: int, inputscale: Tensor | float) -> Tensor:
        """The gain to train or evaluate with; qualities beyond the last or below 0 count as these."""
        _check_stage(stage)
        if inputscale != 0 and not self.training:
            return self._given_gain(inputscale)
        return self.Gain[max(0, min(int(s), self.levels - 1))].detach()

    def _coding_gain(self, s: int, inputscale: Tensor | float) -> Tensor:
        """The gain to code with."""
        if inputscale != 0:
            return self._given_gain(inputscale)
        if s not in range(self.levels):
            raise ModelError(f"s must be a quality from 0 to {self.levels - 1}, not {s}")
        return self._given_gain(self.Gain[s].abs())

    def _exact_level(self, stage: int, s: int, inputscale: Tensor | float) -> int:
        """The quality for integer coding, which knows the learned gains only."""
        if stage != 2 or inputscale != 0 or s not in range(self.levels):
            raise ModelError(
                f"exact coding takes stage 2 and a quality s from 0 to {self.levels - 1}, and no inputscale; got stage "
                f"{stage}, s {s}, inputscale {inputscale}"
            )
        return s

    def _quantizer(self, gain: Tensor) -> _GainQuantizer:
        return _GainQuantizer(self.gaussian_conditional, self.QuantABCD, gain)

    def _z_step(self, gain: Tensor) -> Tensor | None:
        """The step of z, None for the ordinary bottleneck."""
        if not self.vr_entbttlnck:
            return None
        step: Tensor = self.lower_bound_zqstep(self.gayn2zqstep(1.0 / gain.reshape(1)))
        return step[0]

    def _z_options(self, gain: Tensor) -> dict[str, Tensor]:
        step = self._z_step(gain)
        return {} if step is None else {"qs": step}

    # -- tables ---------------------------------------------------------------------------------------------

    def update(
        self,
        scale_table: Sequence[float] | Tensor | None = None,
        force: bool = False,
        update_quantiles: bool = False,
        scale: Tensor | float | None = None,
    ) -> bool:
        """Make the coding tables now. Nobody has to: coding makes what is missing.

        Args:
            scale_table: see :meth:`CompressionModel.update`.
            force: see :meth:`CompressionModel.update`.
            update_quantiles: see :meth:`CompressionModel.update`.
            scale: the gain whose step of z the tables are for; without effect unless z has steps.

        Returns:
            Whether any table was made.

        Raises:
            TableError: weights or scale table do not allow valid tables.
            ModelError: ``scale`` is no gain.
        """
        if scale is None or not self.vr_entbttlnck:
            return super().update(scale_table, force, update_quantiles)
        table = get_scale_table() if scale_table is None else scale_table
        updated = self.gaussian_conditional.update_scale_table(table, force=force)
        with torch.no_grad():
            step = self._z_step(self._given_gain(scale))
        if update_quantiles:
            self.entropy_bottleneck._update_quantiles()
        return bool(self.entropy_bottleneck.update_variable(force=force, qs=step)) or updated

    # -- training -------------------------------------------------------------------------------------------

    def _train_hyper(self, y: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        """Rounded z, with straight-through gradients unless it has steps, and its likelihoods."""
        z = self._hyper_analysis(y)
        z_hat, likelihoods = self.entropy_bottleneck(z, **self._z_options(gain))
        if not self.vr_entbttlnck:
            medians = self.entropy_bottleneck._get_medians()
            z_hat = quantize_ste(z - medians) + medians
        return z_hat, likelihoods

    def forward(
        self, x: Tensor, stage: int = 2, s: int = 1, inputscale: Tensor | float = 0
    ) -> dict[str, Any]:
        """Code and decode without strings, differentiably in training mode.

        Args:
            x: ``(B, 3, H, W)``.
            stage: 1 for fixed rate, 2 for variable rate.
            s: quality, 0 to 7, of which the learned gain is taken. It gets no gradient here.
            inputscale: any other gain instead; not while training. 0 for none.

        Returns:
            ``x_hat`` like ``x``, and ``likelihoods``: ``y`` of shape ``(B, M, H/16, W/16)`` and ``z`` of
            shape ``(B, N, H/64, W/64)``.

        Raises:
            ShapeError: ``x`` is not ``(B, 3, H, W)`` of the type of the weights, or its size does not fit.
            ModelError: another stage, or no valid gain.
        """
        gain = self._get_scale(stage, s, inputscale)
        if stage == 1:
            return super().forward(x)
        self._check_image(x, self.g_a, 16, 4)
        y = self._analyse(self.g_a, x)
        z_hat, z_likelihoods = self._train_hyper(y, gain)
        y_hat, y_likelihoods = self._train_y(y, z_hat, gain)
        return {
            "x_hat": self._transform(self.g_s, y_hat),
            "likelihoods": {"y": y_likelihoods, "z": z_likelihoods},
        }

    def _train_y(self, y: Tensor, z_hat: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        """Rounded y and its likelihoods."""
        scales, means = self._parameters_of(z_hat)
        y_hat = self._quantizer(gain).round(y, scales, means)
        centre = None if means is None else means * gain
        _, likelihoods = self.gaussian_conditional(y * gain, scales * gain, centre)
        return y_hat, likelihoods

    # -- coding ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def compress(
        self, x: Tensor, stage: int = 2, s: int = 1, inputscale: Tensor | float = 0, *, exact: bool = False
    ) -> dict[str, Any]:
        """Code images.

        Args:
            x: ``(B, 3, H, W)``.
            stage: 1 for fixed rate, 2 for variable rate.
            s: quality, 0 to 7, of which the learned gain is taken.
            inputscale: any other gain instead. 0 for none.

        Returns:
            ``strings``: for y and for z, a list with a string per image; ``shape``: height and width of z.

        Raises:
            ShapeError: ``x`` is not ``(B, 3, H, W)`` of the type of the weights, or its size does not fit.
            CoderError: NaN in the image or in the weights.
            ModelError: another stage or quality, or no valid gain.
        """
        if exact:
            return coded_exactly(self, x, self._exact_level(stage, s, inputscale))
        _check_stage(stage)
        gain = self._coding_gain(s, inputscale)
        if stage == 1:
            return super().compress(x)
        self._check_image(x, self.g_a, 16, 4)
        y = self._analyse(self.g_a, x)
        z = self._hyper_analysis(y)
        options = self._z_options(gain)
        z_strings = self.entropy_bottleneck.compress(z, **options)
        y_strings = self._compress_y(y, self.entropy_bottleneck.dequantized(z, **options), gain)
        return {"strings": [y_strings, z_strings], "shape": z.shape[-2:]}

    def _compress_y(self, y: Tensor, z_hat: Tensor, gain: Tensor) -> list[bytes]:
        scales, means = self._parameters_of(z_hat)
        indexes = self.gaussian_conditional.build_indexes(scales * gain)
        centre = None if means is None else means * gain
        return self.gaussian_conditional.compress(y * gain, indexes, centre)

    @torch.no_grad()
    def decompress(
        self,
        strings: Sequence[Sequence[bytes]],
        shape: Sequence[int],
        stage: int = 2,
        s: int = 1,
        inputscale: Tensor | float = 0,
        *,
        exact: bool = False,
    ) -> dict[str, Any]:
        """Undo :meth:`compress`, with its options.

        Returns:
            ``x_hat``: ``(B, 3, 64 * shape[0], 64 * shape[1])``, values from 0 to 1.

        Raises:
            ShapeError: another number of strings or sizes.
            CoderError: a damaged string.
            ModelError: another stage or quality, or no valid gain.
        """
        if exact:
            return decoded_exactly(self, strings, shape, self._exact_level(stage, s, inputscale))
        _check_stage(stage)
        gain = self._coding_gain(s, inputscale)
        if stage == 1:
            return super().decompress(strings, shape)
        size = check_code(strings, shape, 2)
        z_hat = self.entropy_bottleneck.decompress(strings[1], size, **self._z_options(gain))
        return {"x_hat": self._reconstruct(self.g_s, self._decompress_y(strings[0], z_hat, gain))}

    def _decompress_y(self, strings: Sequence[bytes], z_hat: Tensor, gain: Tensor) -> Tensor:
        scales, means = self._parameters_of(z_hat)
        indexes = self.gaussian_conditional.build_indexes(scales * gain)
        symbols = self.gaussian_conditional.decompress(strings, indexes, z_hat.dtype)
        return self._quantizer(gain).values(symbols, scales, means)


class MeanScaleHyperpriorVbr(ScaleHyperpriorVbr, MeanScaleHyperprior):
    """:class:`MeanScaleHyperprior` of variable rate. See :class:`ScaleHyperpriorVbr`.

    Args:
        N: channels of the transforms.
        M: channels of the latent.
        vr_entbttlnck: give z a step, too.
    """

    def __init__(self, N: int = 192, M: int = 320, vr_entbttlnck: bool = False, **kwargs: Any) -> None:
        super().__init__(N, M, vr_entbttlnck=vr_entbttlnck, **kwargs)


class JointAutoregressiveHierarchicalPriorsVbr(ScaleHyperpriorVbr, JointAutoregressiveHierarchicalPriors):
    """:class:`JointAutoregressiveHierarchicalPriors` of variable rate. See :class:`ScaleHyperpriorVbr`.

    The gain is context, too, by ``scale_to_context``. In stage 2 positions are also trained one after the other,
    because what the decoder will have of one is context of the next; that takes its time.

    Args:
        N: channels of the transforms.
        M: channels of the latent.
        arithmetic: see :class:`JointAutoregressiveHierarchicalPriors`.
    """

    def __init__(self, N: int = 192, M: int = 320, **kwargs: Any) -> None:
        if "vr_entbttlnck" in kwargs:
            raise ModelError("this model has no steps for z (vr_entbttlnck)")
        super().__init__(N, M, **kwargs)
        self.scale_to_context = nn.Linear(1, 2 * M)

    def _scan_for(self, stage: int, gain: Tensor) -> RasterScan:
        _check_stage(stage)
        codec: PositionCodec | None = None
        offset: Tensor | None = None
        if stage == 2:
            codec = self._quantizer(gain)
            offset = self.scale_to_context(gain.reshape(1, 1)).flatten()
        elif self.arithmetic == "reference":
            codec = _ReferenceStage1(self.gaussian_conditional, gain)
        return RasterScan(
            self.gaussian_conditional,
            self.entropy_parameters,
            self.context_prediction,
            self.arithmetic,
            codec,
            offset,
        )

    def _train_y(self, y: Tensor, z_hat: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        params = self.h_s(z_hat)
        quantizer = self._quantizer(gain)
        offset = self.scale_to_context(gain.reshape(1, 1)).reshape(1, -1, 1, 1)
        convolution = self.context_prediction
        weight = convolution.weight * convolution.mask
        span = convolution.kernel_size[0]
        reach = span // 2
        latent = F.pad(torch.zeros_like(y), (reach, reach, reach, reach))
        likelihoods = []
        for row in range(y.shape[2]):
            for column in range(y.shape[3]):
                here = (..., slice(row, row + 1), slice(column, column + 1))
                # A copy, because the latent is written to below.
                window = latent[..., row : row + span, column : column + span].clone()
                context = F.conv2d(window, weight, convolution.bias) + offset
                scales, means = self.entropy_parameters(torch.cat((params[here], context), 1)).chunk(2, 1)
                _, likelihood = self.gaussian_conditional((y[here] - means) * gain, scales * gain)
                likelihoods.append(likelihood)
                value = quantizer.round(y[here], scales, means)
                latent[..., row + reach : row + reach + 1, column + reach : column + reach + 1] = value
        y_hat = latent[..., reach:-reach, reach:-reach].contiguous()
        return y_hat, torch.cat(likelihoods, 3).reshape(*y.shape[:2], *y.shape[2:])

    @torch.no_grad()
    def compress(
        self, x: Tensor, stage: int = 2, s: int = 1, inputscale: Tensor | float = 0, *, exact: bool = False
    ) -> dict[str, Any]:
        """See :meth:`ScaleHyperpriorVbr.compress`."""
        if exact:
            return coded_exactly(self, x, self._exact_level(stage, s, inputscale))
        return self._compress_with(self._scan_for(stage, self._coding_gain(s, inputscale)), x)

    @torch.no_grad()
    def decompress(
        self,
        strings: Sequence[Sequence[bytes]],
        shape: Sequence[int],
        stage: int = 2,
        s: int = 1,
        inputscale: Tensor | float = 0,
        *,
        exact: bool = False,
    ) -> dict[str, Any]:
        """See :meth:`ScaleHyperpriorVbr.decompress`."""
        if exact:
            return decoded_exactly(self, strings, shape, self._exact_level(stage, s, inputscale))
        return self._decompress_with(self._scan_for(stage, self._coding_gain(s, inputscale)), strings, shape)


def _check_stage(stage: int) -> None:
    if stage not in (1, 2):
        raise ModelError(f"stage must be 1 (fixed rate) or 2 (variable rate), not {stage}")
