"""Factorized prior, hyperpriors, and the joint autoregressive prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from latens.ans import BufferedRansEncoder, RansDecoder  # noqa: F401  (derived models import them from here)
from latens.entropy_models import EntropyBottleneck, GaussianConditional
from latens.latent_codecs.rasterscan import RasterScan, raster_forward
from latens.layers import GDN, MaskedConv2d
from latens.models.base import (
    SCALES_LEVELS,
    SCALES_MAX,
    SCALES_MIN,
    CompressionModel,
    check_code,
    coded_exactly,
    decoded_exactly,
    get_scale_table,
)
from latens.models.utils import conv, deconv
from latens.registry import register_model  # noqa: F401  (as above)

__all__ = [
    "SCALES_LEVELS",
    "SCALES_MAX",
    "SCALES_MIN",
    "FactorizedPrior",
    "FactorizedPriorReLU",
    "JointAutoregressiveHierarchicalPriors",
    "MeanScaleHyperprior",
    "ScaleHyperprior",
    "get_scale_table",
]


def _analysis(N: int, M: int) -> nn.Sequential:
    first, second, third = (GDN(N, inplace=True) for _ in range(3))
    return nn.Sequential(conv(3, N), first, conv(N, N), second, conv(N, N), third, conv(N, M))


def _synthesis(N: int, M: int) -> nn.Sequential:
    return nn.Sequential(
        deconv(M, N),
        GDN(N, inverse=True, inplace=True),
        deconv(N, N),
        GDN(N, inverse=True, inplace=True),
        deconv(N, N),
        GDN(N, inverse=True, inplace=True),
        deconv(N, 3),
    )


def _n_and_m(state_dict: Mapping[str, Any]) -> dict[str, int]:
    return {"N": state_dict["g_a.0.weight"].shape[0], "M": state_dict["g_a.6.weight"].shape[0]}


class FactorizedPrior(CompressionModel):
    r"""Latents coded with one learned density per channel.

    .. code-block:: none

                   ┌───┐    y
             x ──►─┤g_a├──►─┐
                   └───┘    │
                            ▼
                          ┌─┴─┐
                          │ Q │
                          └─┬─┘
                            ▼ y_hat
                         EntropyBottleneck ──► bits
                            ▼
                   ┌───┐    │
         x_hat ──◄─┤g_s├────┘
                   └───┘

    ``x`` is ``(B, 3, H, W)`` with values from 0 to 1, ``y`` is ``(B, M, H/16, W/16)``.

    Ballé, Minnen, Singh, Hwang, Johnston, "Variational image compression with a scale hyperprior",
    ICLR 2018, where it is the baseline.

    Args:
        N: channels of the transforms.
        M: channels of the latent.
    """

    def __init__(self, N: int, M: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.entropy_bottleneck = EntropyBottleneck(M)
        self.g_a = _analysis(N, M)
        self.g_s = _synthesis(N, M)
        self.N = N
        self.M = M

    _arguments = staticmethod(_n_and_m)

    @property
    def downsampling_factor(self) -> int:
        """Pixels per latent, along each side."""
        return 16

    def forward(self, x: Tensor) -> dict[str, Any]:
        """Code and decode without strings, differentiably in training mode.

        Returns:
            ``x_hat`` like ``x``, and ``likelihoods``: ``y`` of shape ``(B, M, H/16, W/16)``.

        Raises:
            ShapeError: ``x`` is not ``(B, 3, H, W)`` of the type of the weights.
        """
        self._check_image(x, self.g_a, 16)
        y_hat, y_likelihoods = self.entropy_bottleneck(self._analyse(self.g_a, x))
        return {"x_hat": self._transform(self.g_s, y_hat), "likelihoods": {"y": y_likelihoods}}

    @torch.no_grad()
    def compress(self, x: Tensor, *, exact: bool = False) -> dict[str, Any]:
        """Code images.

        Args:
            x: images.
            exact: choose tables by integers, so that every machine decodes the same latent; strings are of another
                form then: see :func:`latens.convert.published.compress`.

        Returns:
            ``strings``: one list with a string per image; ``shape``: height and width of the latent.

        Raises:
            ShapeError: ``x`` is not ``(B, 3, H, W)`` of the type of the weights.
            CoderError: NaN in the image or in the weights.
        """
        if exact:
            return coded_exactly(self, x)
        self._check_image(x, self.g_a, 16)
        y = self._analyse(self.g_a, x)
        return {"strings": [self.entropy_bottleneck.compress(y)], "shape": y.shape[-2:]}

    @torch.no_grad()
    def decompress(
        self, strings: Sequence[Sequence[bytes]], shape: Sequence[int], *, exact: bool = False
    ) -> dict[str, Any]:
        """Undo :meth:`compress`.

        Returns:
            ``x_hat``: ``(B, 3, 16 * shape[0], 16 * shape[1])``, values from 0 to 1.

        Raises:
            ShapeError: another number of strings or sizes.
            CoderError: a damaged string.
        """
        if exact:
            return decoded_exactly(self, strings, shape)
        size = check_code(strings, shape, 1)
        y_hat = self.entropy_bottleneck.decompress(strings[0], size)
        return {"x_hat": self._reconstruct(self.g_s, y_hat)}


class FactorizedPriorReLU(FactorizedPrior):
    """:class:`FactorizedPrior` with ReLU where that has GDN: simple to run anywhere.

    Shapes and units are the same.

    Args:
        N: channels of the transforms.
        M: channels of the latent.
    """

    def __init__(self, N: int, M: int, **kwargs: Any) -> None:
        super().__init__(N, M, **kwargs)
        self.g_a = nn.Sequential(
            conv(3, N),
            nn.ReLU(inplace=True),
            conv(N, N),
            nn.ReLU(inplace=True),
            conv(N, N),
            nn.ReLU(inplace=True),
            conv(N, M),
        )
        self.g_s = nn.Sequential(
            deconv(M, N),
            nn.ReLU(inplace=True),
            deconv(N, N),
            nn.ReLU(inplace=True),
            deconv(N, N),
            nn.ReLU(inplace=True),
            deconv(N, 3),
        )


class ScaleHyperprior(CompressionModel):
    r"""Latents coded as zero-mean Gaussians whose scales are sent as side information.

    .. code-block:: none

                   ┌───┐    y          ┌───┐  z   ┌───┐ z_hat             z_hat ┌───┐
             x ──►─┤g_a├──►─┬──►─ abs ─┤h_a├──►───┤ Q ├───► EntropyBottleneck ──┤h_s├─┐
                   └───┘    │          └───┘      └───┘         └──► bits       └───┘ │
                            ▼                                                         │
                          ┌─┴─┐                                                       │
                          │ Q │                                                scales │
                          └─┬─┘                                                       ▼
                            ├──────────────► GaussianConditional ◄────────────────────┘
                            ▼ y_hat                └──► bits
                   ┌───┐    │
         x_hat ──◄─┤g_s├────┘
                   └───┘

    ``x`` is ``(B, 3, H, W)`` with values from 0 to 1, ``y`` and the scales ``(B, M, H/16, W/16)``, ``z``
    ``(B, N, H/64, W/64)``. A scale is a standard deviation in quantisation steps.

    Ballé, Minnen, Singh, Hwang, Johnston, "Variational image compression with a scale hyperprior", ICLR 2018.

    Args:
        N: channels of the transforms.
        M: channels of the latent.
    """

    def __init__(self, N: int, M: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.entropy_bottleneck = EntropyBottleneck(N)
        self.g_a = _analysis(N, M)
        self.g_s = _synthesis(N, M)
        self.h_a = nn.Sequential(
            conv(M, N, kernel_size=3, stride=1),
            nn.ReLU(inplace=True),
            conv(N, N),
            nn.ReLU(inplace=True),
            conv(N, N),
        )
        self.h_s = nn.Sequential(
            deconv(N, N),
            nn.ReLU(inplace=True),
            deconv(N, N),
            nn.ReLU(inplace=True),
            conv(N, M, kernel_size=3, stride=1),
            nn.ReLU(inplace=True),
        )
        self.gaussian_conditional = GaussianConditional(None)
        self.N = N
        self.M = M

    _arguments = staticmethod(_n_and_m)

    @property
    def downsampling_factor(self) -> int:
        """Pixels per hyper-latent, along each side: what height and width have to be multiples of."""
        return 64

    def _hyper_analysis(self, y: Tensor) -> Tensor:
        z: Tensor = self.h_a(torch.abs(y))
        return z

    def _parameters_of(self, z_hat: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scales and, where the model has them, means of ``y``."""
        return self.h_s(z_hat), None

    def forward(self, x: Tensor) -> dict[str, Any]:
        """Code and decode without strings, differentiably in training mode.

        Returns:
            ``x_hat`` like ``x``, and ``likelihoods``: ``y`` of shape ``(B, M, H/16, W/16)`` and ``z`` of
            shape ``(B, N, H/64, W/64)``.

        Raises:
            ShapeError: ``x`` is not ``(B, 3, H, W)`` of the type of the weights, or its size does not fit.
        """
        self._check_image(x, self.g_a, 16, 4)
        y = self._analyse(self.g_a, x)
        z_hat, z_likelihoods = self.entropy_bottleneck(self._hyper_analysis(y))
        scales, means = self._parameters_of(z_hat)
        y_hat, y_likelihoods = self.gaussian_conditional(y, scales, means)
        return {
            "x_hat": self._transform(self.g_s, y_hat),
            "likelihoods": {"y": y_likelihoods, "z": z_likelihoods},
        }

    @torch.no_grad()
    def compress(self, x: Tensor, *, exact: bool = False) -> dict[str, Any]:
        """Code images.

        Args:
            x: images.
            exact: choose tables by integers, so that every machine decodes the same latent; strings are of another
                form then: see :func:`latens.convert.published.compress`.

        Returns:
            ``strings``: for y and for z, a list with a string per image; ``shape``: height and width of z.

        Raises:
            ShapeError: ``x`` is not ``(B, 3, H, W)`` of the type of the weights, or its size does not fit.
            CoderError: NaN in the image or in the weights.
        """
        if exact:
            return coded_exactly(self, x)
        self._check_image(x, self.g_a, 16, 4)
        y = self._analyse(self.g_a, x)
        z = self._hyper_analysis(y)
        z_strings = self.entropy_bottleneck.compress(z)
        scales, means = self._parameters_of(self.entropy_bottleneck.dequantized(z))
        indexes = self.gaussian_conditional.build_indexes(scales)
        y_strings = self.gaussian_conditional.compress(y, indexes, means)
        return {"strings": [y_strings, z_strings], "shape": z.shape[-2:]}

    @torch.no_grad()
    def decompress(
        self, strings: Sequence[Sequence[bytes]], shape: Sequence[int], *, exact: bool = False
    ) -> dict[str, Any]:
        """Undo :meth:`compress`.

        Returns:
            ``x_hat``: ``(B, 3, 64 * shape[0], 64 * shape[1])``, values from 0 to 1.

        Raises:
            ShapeError: another number of strings or sizes.
            CoderError: a damaged string.
        """
        if exact:
            return decoded_exactly(self, strings, shape)
        size = check_code(strings, shape, 2)
        z_hat = self.entropy_bottleneck.decompress(strings[1], size)
        scales, means = self._parameters_of(z_hat)
        indexes = self.gaussian_conditional.build_indexes(scales)
        y_hat = self.gaussian_conditional.decompress(strings[0], indexes, z_hat.dtype, means)
        return {"x_hat": self._reconstruct(self.g_s, y_hat)}


class MeanScaleHyperprior(ScaleHyperprior):
    r"""Latents coded as Gaussians whose scales and means are sent as side information.

    .. code-block:: none

                   ┌───┐    y          ┌───┐  z   ┌───┐ z_hat             z_hat ┌───┐
             x ──►─┤g_a├──►─┬──►───────┤h_a├──►───┤ Q ├───► EntropyBottleneck ──┤h_s├─┐
                   └───┘    │          └───┘      └───┘         └──► bits       └───┘ │
                            ▼                                                         │
                          ┌─┴─┐                                                scales │
                          │ Q │                                                 means │
                          └─┬─┘                                                       ▼
                            ├──────────────► GaussianConditional ◄────────────────────┘
                            ▼ y_hat                └──► bits
                   ┌───┐    │
         x_hat ──◄─┤g_s├────┘
                   └───┘

    ``x`` is ``(B, 3, H, W)`` with values from 0 to 1, ``y``, scales and means ``(B, M, H/16, W/16)``, ``z``
    ``(B, N, H/64, W/64)``. Scales and means are in quantisation steps; ``h_s`` returns the scales first.

    Minnen, Ballé, Toderici, "Joint autoregressive and hierarchical priors for learned image compression",
    NeurIPS 2018, without its autoregressive part.

    Args:
        N: channels of the transforms.
        M: channels of the latent.
    """

    def __init__(self, N: int, M: int, **kwargs: Any) -> None:
        super().__init__(N, M, **kwargs)
        self._make_hyper_transforms(N, M)

    def _make_hyper_transforms(self, N: int, M: int) -> None:
        self.h_a = nn.Sequential(
            conv(M, N, kernel_size=3, stride=1),
            nn.LeakyReLU(inplace=True),
            conv(N, N),
            nn.LeakyReLU(inplace=True),
            conv(N, N),
        )
        self.h_s = nn.Sequential(
            deconv(N, M),
            nn.LeakyReLU(inplace=True),
            deconv(M, M * 3 // 2),
            nn.LeakyReLU(inplace=True),
            conv(M * 3 // 2, M * 2, kernel_size=3, stride=1),
        )

    def _hyper_analysis(self, y: Tensor) -> Tensor:
        z: Tensor = self.h_a(y)
        return z

    def _parameters_of(self, z_hat: Tensor) -> tuple[Tensor, Tensor | None]:
        scales, means = self.h_s(z_hat).chunk(2, 1)
        return scales, means


class JointAutoregressiveHierarchicalPriors(MeanScaleHyperprior):
    r"""Latents coded as Gaussians given side information and the latents above and to the left.

    .. code-block:: none

                   ┌───┐    y     ┌───┐  z   ┌───┐ z_hat             z_hat ┌───┐
             x ──►─┤g_a├──►─┬──►──┤h_a├──►───┤ Q ├───► EntropyBottleneck ──┤h_s├─┐
                   └───┘    │     └───┘      └───┘         └──► bits       └───┘ │
                            ▼                                                    │
                          ┌─┴─┐             ┌──┐ context     ┌──┐         params │
                          │ Q │       ┌─►───┤CP├──────►──────┤EP├───◄────────────┘
                          └─┬─┘       │     └──┘             └┬─┘
                            ├─────────┤                       ▼ scales, means
                            │         └───►───── GaussianConditional
                            ▼ y_hat                   └──► bits
                   ┌───┐    │
         x_hat ──◄─┤g_s├────┘
                   └───┘

    CP is a masked 5x5 convolution, EP looks at one position at a time. ``x`` is ``(B, 3, H, W)`` with values
    from 0 to 1, ``y``, scales and means ``(B, M, H/16, W/16)``, ``z`` ``(B, N, H/64, W/64)``; scales and means
    are in quantisation steps. Positions are coded one after the other, which takes its time.

    Minnen, Ballé, Toderici, "Joint autoregressive and hierarchical priors for learned image compression",
    NeurIPS 2018.

    Args:
        N: channels of the transforms.
        M: channels of the latent.
        arithmetic: ``"own"`` is fast; ``"reference"`` codes strings that CompressAI decodes, on one machine.
            See :class:`latens.latent_codecs.rasterscan.RasterScan`.
    """

    def __init__(self, N: int = 192, M: int = 192, arithmetic: str = "own", **kwargs: Any) -> None:
        super().__init__(N, M, **kwargs)
        # Made once more, as CompressAI does: the same seed then gives the same weights.
        self.g_a = _analysis(N, M)
        self.g_s = _synthesis(N, M)
        self._make_hyper_transforms(N, M)
        self.entropy_parameters = nn.Sequential(
            nn.Conv2d(M * 12 // 3, M * 10 // 3, 1),
            nn.LeakyReLU(inplace=True),
            nn.Conv2d(M * 10 // 3, M * 8 // 3, 1),
            nn.LeakyReLU(inplace=True),
            nn.Conv2d(M * 8 // 3, M * 6 // 3, 1),
        )
        self.context_prediction = MaskedConv2d(M, 2 * M, kernel_size=5, padding=2, stride=1)
        self.arithmetic = arithmetic

    def _scan(self) -> RasterScan:
        return RasterScan(
            self.gaussian_conditional, self.entropy_parameters, self.context_prediction, self.arithmetic
        )

    def forward(self, x: Tensor) -> dict[str, Any]:
        """See :meth:`ScaleHyperprior.forward`."""
        self._check_image(x, self.g_a, 16, 4)
        y = self._transform(self.g_a, x)
        z_hat, z_likelihoods = self.entropy_bottleneck(self.h_a(y))
        out = raster_forward(
            self.gaussian_conditional, self.entropy_parameters, self.context_prediction, y, self.h_s(z_hat)
        )
        return {
            "x_hat": self._transform(self.g_s, out["y_hat"]),
            "likelihoods": {**out["likelihoods"], "z": z_likelihoods},
        }

    @torch.no_grad()
    def compress(self, x: Tensor, *, exact: bool = False) -> dict[str, Any]:
        """See :meth:`ScaleHyperprior.compress`."""
        if exact:
            return coded_exactly(self, x)
        return self._compress_with(self._scan(), x)

    def _compress_with(self, scan: RasterScan, x: Tensor) -> dict[str, Any]:
        self._check_image(x, self.g_a, 16, 4)
        reference = self.arithmetic == "reference"
        y = self._analyse(self.g_a, x) if reference else self._transform(self.g_a, x)
        z = self.h_a(y)
        z_strings = self.entropy_bottleneck.compress(z)
        y_strings, _ = scan.compress(y, self.h_s(self.entropy_bottleneck.dequantized(z)))
        return {"strings": [y_strings, z_strings], "shape": z.shape[-2:]}

    @torch.no_grad()
    def decompress(
        self, strings: Sequence[Sequence[bytes]], shape: Sequence[int], *, exact: bool = False
    ) -> dict[str, Any]:
        """See :meth:`ScaleHyperprior.decompress`."""
        if exact:
            return decoded_exactly(self, strings, shape)
        return self._decompress_with(self._scan(), strings, shape)

    # What models of other people, derived from this one, call. ``y_hat`` has ``padding`` zeros on all sides, and
    # takes what is decoded.

    def _compress_ar(
        self, y_hat: Tensor, params: Tensor, height: int, width: int, kernel_size: int, padding: int
    ) -> bytes:
        inside = y_hat[:, :, padding : padding + height, padding : padding + width]
        (string,), decoded = self._scan().compress(inside, params)
        inside.copy_(decoded)
        return string

    def _decompress_ar(
        self,
        y_string: bytes,
        y_hat: Tensor,
        params: Tensor,
        height: int,
        width: int,
        kernel_size: int,
        padding: int,
    ) -> None:
        inside = y_hat[:, :, padding : padding + height, padding : padding + width]
        inside.copy_(self._scan().decompress([y_string], params))

    def _decompress_with(
        self, scan: RasterScan, strings: Sequence[Sequence[bytes]], shape: Sequence[int]
    ) -> dict[str, Any]:
        size = check_code(strings, shape, 2)
        z_hat = self.entropy_bottleneck.decompress(strings[1], size)
        y_hat = scan.decompress(strings[0], self.h_s(z_hat))
        return {"x_hat": self._reconstruct(self.g_s, y_hat)}
