"""What models share whose latent is coded part by part, each part with all before it as context."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from latens.entropy_models import EntropyBottleneck, GaussianConditional, GeneralizedBottleneck
from latens.errors import ModelError
from latens.latent_codecs.steps import Decoding, Encoding, Step, Training
from latens.layers import conv3x3
from latens.models.base import CompressionModel, check_code, coded_exactly, decoded_exactly
from latens.ops import quantize_ste
from latens.ops.fast_convolutions import FastConvolutions

__all__ = ["ChannelSlices", "Named", "StepwiseModel", "context_network"]


def context_network(channels: Sequence[int]) -> nn.Sequential:
    """3x3 convolutions with GELU between them, from ``channels[0]`` to ``channels[-1]`` channels."""
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [conv3x3(before, after), nn.GELU()]
    return nn.Sequential(*layers[:-1])


class Named(nn.Module):
    """One network under a name of its own."""

    def __init__(self, name: str, network: nn.Module) -> None:
        super().__init__()
        self._name = name
        self.add_module(name, network)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = getattr(self, self._name)(x)
        return out


class StepwiseModel(CompressionModel):
    """A hyperprior, and Gaussians whose parameters are made anew for each part of the latent.

    .. code-block:: none

        x ──► g_a ──► y ──┬──► h_a ──► z ──► EntropyBottleneck ──► z_hat ──► side parameters ──┐
                          └──► part 0, part 1, ... (each with all before it) ◄────────────────┘
                                     ▼ y_hat
        x_hat ◄── g_s ◄──────────────┘

    All parts of an image's latent go into one string, in the order of the steps; within a part, in the order of its
    memory (channel, row, column). Subclasses make the networks, say how side parameters come from z
    (:meth:`_side`) and in what steps the latent is coded (:meth:`_traverse`), once for all directions.

    ``x`` is ``(B, 3, H, W)`` with values from 0 to 1, ``y`` ``(B, M, H/16, W/16)``, ``z`` ``(B, N, H/64, W/64)``;
    scales and means are in quantisation steps.
    """

    _multiple = 4
    """Latents along each side must be a multiple of this."""

    inexact = (
        "its contexts have activations (GELU, tanh) and corrections of decoded values that docs/entropy.md has no "
        "integers for; use its compress() and decompress(), on one machine"
    )

    gaussian_conditional: GaussianConditional

    # -- what subclasses are ----------------------------------------------------------------------------------

    @property
    def _bottleneck(self) -> EntropyBottleneck | GeneralizedBottleneck:
        """Of z."""
        return self.entropy_bottleneck

    @property
    def _gaussian(self) -> GaussianConditional:
        """Of y."""
        return self.gaussian_conditional

    @abstractmethod
    def _side(self, z_hat: Tensor) -> Any:
        """What :meth:`_traverse` has to know of z."""

    @abstractmethod
    def _traverse(self, step: Step, side: Any) -> Tensor:
        """Code all parts in turn, and return ``y_hat``."""

    def _latent_channels(self) -> int:
        return cast(int, self.M)

    def _likelihoods(self, parts: list[Tensor]) -> Tensor:
        """``(B, M, H/16, W/16)``, of those of all steps."""
        return torch.cat(parts, dim=1)

    # -- the three directions ---------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> dict[str, Any]:
        """Code and decode without strings, differentiably in training mode.

        Returns:
            ``x_hat`` like ``x``, and ``likelihoods``: ``y`` of shape ``(B, M, H/16, W/16)`` and ``z`` of shape
            ``(B, N, H/64, W/64)``.

        Raises:
            ShapeError: ``x`` is not ``(B, 3, H, W)`` of the type of the weights, or its size does not fit.
        """
        self._check_image(x, cast(nn.Module, self.g_a), 16, self._multiple)
        y = self._transform(cast(nn.Module, self.g_a), x)
        with self._networks(y):
            z = cast(nn.Module, self.h_a)(_by_position(y))
            z_likelihoods = self._bottleneck(z)[1]
            medians = self._bottleneck._get_medians().view(1, -1, 1, 1)
            step = Training(self._gaussian, y)
            y_hat = self._traverse(step, self._side(_by_position(quantize_ste(z - medians) + medians)))
        return {
            "x_hat": self._transform(cast(nn.Module, self.g_s), y_hat),
            "likelihoods": {"y": self._likelihoods(step.likelihoods), "z": z_likelihoods},
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
            ModelError: ``exact``, and the model cannot be made exact.
        """
        if exact:
            return coded_exactly(self, x)
        self._check_image(x, cast(nn.Module, self.g_a), 16, self._multiple)
        y = self._transform(cast(nn.Module, self.g_a), x)
        with self._networks(y):
            z = cast(nn.Module, self.h_a)(_by_position(y))
            z_strings = self._bottleneck.compress(z)
            step = Encoding(self._gaussian, y)
            self._traverse(step, self._side(_by_position(self._bottleneck.dequantized(z))))
        return {"strings": [step.finish(), z_strings], "shape": z.shape[-2:]}

    @torch.no_grad()
    def decompress(
        self, strings: Sequence[Sequence[bytes]], shape: Sequence[int], *, exact: bool = False
    ) -> dict[str, Any]:
        """Undo :meth:`compress`.

        Returns:
            ``x_hat``: ``(B, 3, 64 * shape[0], 64 * shape[1])``, values from 0 to 1.

        Raises:
            ShapeError: another number of strings or sizes.
            LimitError: so many values do not fit into the strings.
            CoderError: a damaged string.
            ModelError: ``exact``, and the model cannot be made exact.
        """
        if exact:
            return decoded_exactly(self, strings, shape)
        size = check_code(strings, shape, 2)
        values = self._latent_channels() * 16 * size[0] * size[1]
        step = Decoding(self._gaussian, strings[0], values)
        z_hat = self._bottleneck.decompress(strings[1], size).to(next(self.parameters()).dtype)
        with self._networks(z_hat):
            y_hat = self._traverse(step, self._side(_by_position(z_hat)))
        step.finish()
        return {"x_hat": self._reconstruct(cast(nn.Module, self.g_s), y_hat)}

    @contextmanager
    def _networks(self, x: Tensor) -> Iterator[None]:
        """Where hyper and context networks run: alike while encoding and decoding, and fast where that is possible."""
        if torch.is_grad_enabled() or x.device.type != "cpu" or torch.compiler.is_compiling():
            yield
        else:
            with FastConvolutions():
                yield


class ChannelSlices(StepwiseModel):
    """Slices of channels, each predicted from those before it and corrected once it is decoded.

    .. code-block:: none

        side means,  slices before ──► support ─┬─► cc_mean ──► means ──┐
                                                │                       ├──► slice ──► (+) ──► y_hat of the slice
        side scales, slices before ──► support ─┼─► cc_scale ─► scales ─┘      │        ▲
                                                └──────────────────────────────┴──► 0.5 tanh(lrp)

    Minnen, Singh, "Channel-wise autoregressive entropy models for learned image compression", ICIP 2020.

    Subclasses have ``h_mean_s``, ``h_scale_s``, ``cc_mean_transforms``, ``cc_scale_transforms`` and
    ``lrp_transforms``, under these names or others (:meth:`_heads`).
    """

    _sizes: list[int]
    """Channels of each slice."""

    max_support_slices: int

    def _side(self, z_hat: Tensor) -> tuple[Tensor, Tensor]:
        """Side parameters of means, and of scales: ``(B, M, H/16, W/16)`` each."""
        return cast(nn.Module, self.h_mean_s)(z_hat), cast(nn.Module, self.h_scale_s)(z_hat)

    def _heads(self, k: int) -> tuple[nn.Module, nn.Module, nn.Module]:
        """Networks of slice ``k``: from supports to means and to scales, and to the correction."""
        lists = self.cc_mean_transforms, self.cc_scale_transforms, self.lrp_transforms
        means, scales, corrections = (cast(nn.ModuleList, networks)[k] for networks in lists)
        return means, scales, corrections

    def _supports(self, k: int, side: tuple[Tensor, Tensor], before: list[Tensor]) -> tuple[Tensor, Tensor]:
        """What means and scales of slice ``k`` come from."""
        return torch.cat((side[0], *before), dim=1), torch.cat((side[1], *before), dim=1)

    def _before(self, k: int) -> int:
        """How many slices are context of slice ``k``: the first ones."""
        return k if self.max_support_slices < 0 else min(k, self.max_support_slices)

    def _traverse(self, step: Step, side: tuple[Tensor, Tensor]) -> Tensor:
        done: list[Tensor] = []
        ends = list(accumulate(self._sizes))
        for k, (size, end) in enumerate(zip(self._sizes, ends, strict=True)):
            for_means, for_scales = self._supports(k, side, done[: self._before(k)])
            mean_head, scale_head, correction = self._heads(k)
            decoded = step(
                lambda y, end=end, size=size: y[:, end - size : end],  # type: ignore[misc]
                scale_head(for_scales),
                mean_head(for_means),
            )
            change = torch.tanh(correction(torch.cat((for_means, decoded), dim=1)))
            done.append(decoded + 0.5 * change)
        return torch.cat(done, dim=1)


def _by_position(x: Tensor) -> Tensor:
    """All channels of a position side by side, as convolutions and attention on a CPU like it best."""
    return x if torch.is_grad_enabled() else x.contiguous(memory_format=torch.channels_last)


def equal_slices(channels: int, count: int) -> list[int]:
    """Sizes of ``count`` slices of ``channels``.

    Raises:
        ModelError: they cannot be equal.
    """
    if count < 1 or channels % count:
        raise ModelError(f"{channels} channels of the latent cannot be cut into {count} equal slices")
    return [channels // count] * count


def count_in(state_dict: Mapping[str, Any], prefix: str) -> int:
    """How many numbered entries a list of networks has in a checkpoint; KeyError if none."""
    numbers = {key[len(prefix) :].partition(".")[0] for key in state_dict if key.startswith(prefix)}
    if not numbers:
        raise KeyError(prefix)
    return len(numbers)


def supports_in(state_dict: Mapping[str, Any], key: str, slices: int, base: int, size: int) -> int:
    """How many slices are context of the last one, by the width of its first layer.

    Args:
        state_dict: a checkpoint.
        key: of the weight of the first layer, with ``{}`` for the number of the slice.
        slices: how many there are.
        base: inputs that are no slices.
        size: channels of a slice.
    """
    if size < 1:
        raise KeyError(f"a latent of {slices} slices")
    width: int = state_dict[key.format(slices - 1)].shape[1]
    return (width - base) // size
