"""What every compression model shares: tables, checkpoints, checks of what goes in and comes out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from inspect import signature
from numbers import Integral, Real
from operator import index
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from latens.entropy_models import EntropyBottleneck, GaussianConditional
from latens.entropy_models.base import check_strings
from latens.entropy_models.gaussian import SCALES_LEVELS, SCALES_MAX, SCALES_MIN, get_scale_table
from latens.errors import ModelError, ShapeError
from latens.latent_codecs import LatentCodec
from latens.models.utils import (
    remap_old_keys,  # noqa: F401  (derived models import these from here)
    rename_to_fit,
    update_registered_buffers,  # noqa: F401
)
from latens.ops.fast_convolutions import FastConvolutions

__all__ = [
    "SCALES_LEVELS",
    "SCALES_MAX",
    "SCALES_MIN",
    "CompressionModel",
    "SimpleVAECompressionModel",
    "get_scale_table",
]

# Buffers that take the size they have in a checkpoint, and so say nothing about the architecture.
_SIZED_BY_FILE = ("_quantized_cdf", "_offset", "_cdf_length", "scale_table")


class CompressionModel(nn.Module):
    """Base class of the compression models.

    A subclass has a method ``forward(x) -> {"x_hat", "likelihoods"}`` to train with, and
    ``compress(x) -> {"strings", "shape"}`` and ``decompress(strings, shape) -> {"x_hat"}`` to code with.
    Images are ``(batch, channels, height, width)`` with values from 0 to 1.

    Attributes:
        fast: run analysis and synthesis in bfloat16 where no gradients are asked for, set it as you like. What is
            coded is decoded to the same latent either way; an encoder's latents and a decoder's pixels differ in
            their last bits. Networks that choose tables are never affected.

        inexact: why there are no portable files of an architecture, whose weights files then hold its networks alone;
            empty where there are.

    Args:
        entropy_bottleneck_channels: deprecated; make an ``entropy_bottleneck`` in the subclass.
        init_weights: deprecated, without effect.
    """

    fast: bool = False
    inexact: str = ""
    _scales: tuple[float, float, int] = (SCALES_MIN, SCALES_MAX, SCALES_LEVELS)
    """Of the Gaussian tables; see :func:`get_scale_table`."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # Before any constructor: PyTorch's own errors come late, and do not say which argument was wrong.
        _check_arguments(cls, args, kwargs)
        return super().__new__(cls)

    def __init__(
        self, entropy_bottleneck_channels: int | None = None, init_weights: bool | None = None
    ) -> None:
        super().__init__()
        if entropy_bottleneck_channels is not None:
            warnings.warn(
                "entropy_bottleneck_channels is deprecated; set self.entropy_bottleneck in the subclass",
                DeprecationWarning,
                stacklevel=2,
            )
            self.entropy_bottleneck = EntropyBottleneck(entropy_bottleneck_channels)
        if init_weights is not None:
            warnings.warn("init_weights has no effect", DeprecationWarning, stacklevel=2)

    # -- entropy models -------------------------------------------------------------------------------------

    def aux_loss(self) -> Tensor:
        """Sum of :meth:`EntropyBottleneck.loss` over all entropy bottlenecks, a scalar."""
        losses = [m.loss() for m in self.modules() if isinstance(m, EntropyBottleneck)]
        return torch.stack(losses).sum() if losses else torch.zeros(())

    def update(
        self,
        scale_table: Sequence[float] | Tensor | None = None,
        force: bool = False,
        update_quantiles: bool = False,
    ) -> bool:
        """Make the coding tables of all entropy models now. Nobody has to: coding makes what is missing.

        Args:
            scale_table: rising standard deviations of the Gaussian tables; those of the architecture if None.
            force: make tables even where there are some.
            update_quantiles: solve for the quantiles of the entropy bottlenecks first.

        Returns:
            Whether any table was made.

        Raises:
            TableError: weights or scale table do not allow valid tables.
        """
        scale_table = get_scale_table(*self._scales) if scale_table is None else scale_table
        updated = False
        for module in self.modules():
            if isinstance(module, EntropyBottleneck):
                updated |= module.update(force=force, update_quantiles=update_quantiles)
            elif isinstance(module, GaussianConditional):
                updated |= module.update_scale_table(scale_table, force=force)
        for bottleneck in self._other_bottlenecks():
            if force or bottleneck.quantized_cdf.numel() == 0:
                bottleneck._make_tables()
                updated = True
        return updated

    def _other_bottlenecks(self) -> Sequence[Any]:
        """Those of other distributions than :class:`EntropyBottleneck` learns."""
        return ()

    def export(self, folder: str | os.PathLike[str]) -> None:
        """Write the model for ONNX Runtime: :func:`latens.export.export`, whose errors it raises.

        Args:
            folder: to be made; it must not exist.
        """
        from latens.export import export

        export(self, folder)

    # -- checkpoints ----------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        # What coding with integers keeps can neither be copied nor pickled, and is made anew when needed.
        return {name: value for name, value in self.__dict__.items() if name != "_exact_entropy"}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load weights, old ones too; coding tables take the size they have in ``state_dict``.

        Raises:
            ModelError: the weights belong to another model.
            TableError: their tables are not valid.
        """
        _check_weights(state_dict)
        renamed = rename_to_fit(self.state_dict_names(), state_dict)
        try:
            return super().load_state_dict(renamed, strict=strict, assign=assign)
        except RuntimeError as error:
            raise ModelError(f"these weights do not fit {type(self).__name__}: {error}") from error

    def state_dict_names(self) -> list[str]:
        """Names of all parameters and buffers."""
        return [name for named in (self.named_parameters(), self.named_buffers()) for name, _ in named]

    @classmethod
    def _arguments(cls, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        """Constructor arguments of the model that ``state_dict`` is of; KeyError if of no such model."""
        raise NotImplementedError(f"{cls.__name__} cannot be made from weights alone")

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Any]) -> Self:
        """The model that ``state_dict`` belongs to, with its weights.

        Raises:
            ModelError: the weights belong to another architecture. Found out before any memory is taken.
            TableError: their tables are not valid.
        """
        _check_weights(state_dict)
        try:
            arguments = cls._arguments({k.removeprefix("module."): v for k, v in state_dict.items()})
        except (KeyError, IndexError) as error:
            raise ModelError(
                f"these weights do not belong to {cls.__name__}: {error} is not among them"
            ) from error
        try:
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of layers without channels, whose sizes are checked below
                skeleton = cls(**arguments)
        except (RuntimeError, ValueError, ArithmeticError) as error:
            raise ModelError(f"these weights are of no {cls.__name__} that can be: {error}") from error
        fitting = rename_to_fit(skeleton.state_dict_names(), state_dict)
        for name, expected in (*skeleton.named_parameters(), *skeleton.named_buffers()):
            found = fitting.get(name, expected)
            if not name.endswith(_SIZED_BY_FILE) and found.shape != expected.shape:
                raise ModelError(
                    f"these weights are not of {cls.__name__}: {name} should be {tuple(expected.shape)}, but "
                    f"is {tuple(found.shape)}"
                )
        model = cls(**arguments)
        model.load_state_dict(state_dict)
        return model

    # -- help for subclasses --------------------------------------------------------------------------------

    def _transform(self, transform: nn.Module, x: Tensor) -> Tensor:
        """Run analysis or synthesis. No table depends on its last bits, so the layout is free.

        Args:
            transform: g_a or g_s.
            x: what it takes.
        """
        if torch.is_grad_enabled() or x.dtype == torch.float64 or torch.compiler.is_compiling():
            return cast(Tensor, transform(x))
        x = x.contiguous(memory_format=torch.channels_last)
        with ExitStack() as stack:
            if x.device.type == "cpu":
                stack.enter_context(FastConvolutions())
            if self.fast:
                stack.enter_context(torch.autocast(x.device.type, torch.bfloat16))
            return cast(Tensor, transform(x)).to(x.dtype).contiguous()

    def _analyse(self, g_a: nn.Module, x: Tensor) -> Tensor:
        """The latent of an image, with CompressAI's operations in its layout, so that strings are the same as there.

        The last bits of a faster analysis would round a few latents in a hundred thousand to the other side. Where
        :attr:`fast` is set, that is what was asked for.

        Args:
            g_a: analysis.
            x: what it takes.
        """
        if self.fast and not torch.is_grad_enabled():
            return self._transform(g_a, x)
        return cast(Tensor, g_a(x.contiguous()))

    def _reconstruct(self, g_s: nn.Module, y_hat: Tensor) -> Tensor:
        """The decoded image, values clamped to 0 ... 1.

        Raises:
            ModelError: it holds NaN, which only damaged weights explain.
        """
        x_hat = self._transform(g_s, y_hat)
        if torch.isnan(x_hat).any():
            raise ModelError("the decoded image contains NaN; the synthesis transform has damaged weights")
        return x_hat.clamp_(0, 1)

    def _check_image(self, x: Tensor, transform: nn.Module, step: int, multiple: int = 1) -> None:
        """Check an image before anything is computed.

        Args:
            x: the image.
            transform: what takes it, starting with a convolution.
            step: pixels per latent, along each side.
            multiple: latents along each side must be a multiple of this.

        Raises:
            ShapeError: wrong dimensions, channels, type or size.
        """
        weight = next(transform.parameters())
        channels = weight.shape[1]
        if not isinstance(x, Tensor):
            raise ShapeError(
                f"expected images as a tensor (batch, {channels}, height, width), not {type(x).__name__}"
            )
        if x.dim() != 4 or x.shape[1] != channels or 0 in x.shape:
            raise ShapeError(f"expected images (batch, {channels}, height, width), but got {tuple(x.shape)}")
        if not x.is_floating_point() or (
            x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type)
        ):
            raise ShapeError(f"expected {weight.dtype} with values from 0 to 1, but got {x.dtype}")
        if any(-(-size // step) % multiple for size in x.shape[2:]):
            raise ShapeError(
                f"height and width must be multiples of {step * multiple}, but the image is "
                f"{x.shape[2]}x{x.shape[3]}; pad it with latens.ops.compute_padding"
            )


class SimpleVAECompressionModel(CompressionModel):
    """Transforms around any latent codec.

    .. code-block:: none

               ┌───┐  y  ┌──────────────┐ y_hat ┌───┐
        x ──►──┤g_a├──►──┤ latent_codec ├───►───┤g_s├──►── x_hat
               └───┘     └──────────────┘       └───┘

    A subclass, or whoever makes one, sets ``g_a``, ``g_s`` and ``latent_codec``. ``x`` is ``(B, C, H, W)`` with
    values from 0 to 1.
    """

    g_a: nn.Module
    g_s: nn.Module
    latent_codec: LatentCodec

    _step = 1
    _multiple = 1

    def __getitem__(self, key: str) -> LatentCodec:
        return cast(LatentCodec, cast(Any, self.latent_codec)[key])

    def forward(self, x: Tensor) -> dict[str, Any]:
        """Code and decode without strings, differentiably in training mode.

        Returns:
            ``x_hat`` like ``x``, and ``likelihoods`` as the latent codec returns them.

        Raises:
            ShapeError: images of another type or size than the model takes.
        """
        self._check_image(x, self.g_a, self._step, self._multiple)
        out = self.latent_codec(self._transform(self.g_a, x))
        return {"x_hat": self._transform(self.g_s, out["y_hat"]), "likelihoods": out["likelihoods"]}

    @torch.no_grad()
    def compress(self, x: Tensor, *, exact: bool = False) -> dict[str, Any]:
        """Code images.

        Args:
            x: images.
            exact: choose tables by integers, so that every machine decodes the same latent; strings are of another
                form then: see :func:`latens.convert.published.compress`.

        Returns:
            ``strings`` and ``shape`` for :meth:`decompress`, and ``y_hat``, the latent that it will have.

        Raises:
            ShapeError: images of another type or size than the model takes.
            CoderError: NaN in the image or in the weights.
        """
        if exact:
            return coded_exactly(self, x)
        self._check_image(x, self.g_a, self._step, self._multiple)
        return self.latent_codec.compress(self._transform(self.g_a, x))

    @torch.no_grad()
    def decompress(
        self, strings: Sequence[Sequence[bytes]], shape: Any, *, exact: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Undo :meth:`compress`.

        Returns:
            ``x_hat``, values from 0 to 1.

        Raises:
            ShapeError: another number of strings, or another shape.
            CoderError: a damaged string.
        """
        if exact:
            return decoded_exactly(self, strings, shape)
        out = self.latent_codec.decompress(strings, shape, **kwargs)
        return {"x_hat": self._reconstruct(self.g_s, out["y_hat"])}


def coded_exactly(model: CompressionModel, x: Tensor, level: int = 0) -> dict[str, Any]:
    """See :func:`latens.convert.published.compress`."""
    # That module knows the architectures, which are made from what is here.
    from latens.convert import published

    return published.compress(model, x, level)


def decoded_exactly(
    model: CompressionModel, strings: Sequence[Sequence[bytes]], shape: Sequence[int], level: int = 0
) -> dict[str, Any]:
    """See :func:`latens.convert.published.decompress`."""
    from latens.convert import published

    return published.decompress(model, strings, shape, level)


_LARGEST = 4096
"""Channels, layers or parts that a model may be asked to have."""

_LEAST = {"max_support_slices": -1}
"""Smallest values of sizes that may be below 1."""


def _check_arguments(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Check the numbers that a model of Latens is made with, by what its constructor says that they are.

    Classes of others have rules of their own. What is missing or surplus, Python itself refuses.

    Raises:
        ModelError: a number that is none, or out of range; the message has the name of the argument.
    """
    make = cast(Any, cls).__init__
    if not str(make.__module__).startswith("latens."):  # None where code is run that is no module
        return
    parameters = signature(make).parameters
    for name, value in (dict(zip(list(parameters)[1:], args, strict=False)) | kwargs).items():
        kind = str(parameters[name].annotation) if name in parameters else ""
        if value is None and kind.endswith("| None"):
            continue
        if kind.startswith(("int", "Sequence")):
            _check_sizes(f"{cls.__name__}: {name}", value, _LEAST.get(name, 1), kind.count("Sequence"))
        elif kind == "float" and not (_is_a(Real, value) and -_LARGEST <= value <= _LARGEST):
            raise ModelError(f"{cls.__name__}: {name} should be a number, not {_shown(value)}")


def _check_sizes(name: str, value: Any, least: int, depth: int) -> None:
    """Check a size, or lists of sizes; ``depth`` is how many lists are around each."""
    if not depth:
        if not (_is_a(Integral, value) and least <= value <= _LARGEST):
            raise ModelError(
                f"{name} should be a whole number from {least} to {_LARGEST}, not {_shown(value)}"
            )
        return
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)) or len(value) > _LARGEST:
        raise ModelError(f"{name} should be a list of at most {_LARGEST}, not {_shown(value)}")
    for part in value:
        _check_sizes(name, part, least, depth - 1)


def _is_a(kind: type, value: Any) -> bool:
    """Whether it is a number of this kind; True and False are none here."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    """A few characters of it; Python refuses to print numbers of thousands of digits."""
    digits = isinstance(value, int) and value.bit_length() > 64
    return f"one of {value.bit_length()} bits" if digits else repr(value)[:80]


def _check_weights(state_dict: object) -> None:
    """Raises ModelError for what is no mapping from names."""
    if not isinstance(state_dict, Mapping) or not all(isinstance(key, str) for key in state_dict):
        raise ModelError(
            f"weights must be a dictionary from names to tensors, as state_dict() returns it, not "
            f"{type(state_dict).__name__}"
        )


def check_code(strings: object, shape: Sequence[int], parts: int) -> tuple[int, int]:
    """Check what a model with ``parts`` streams was given to decode; returns ``shape`` as integers.

    Raises:
        ShapeError: another number or order of strings, or not a height and a width.
    """
    if not isinstance(strings, (list, tuple)) or len(strings) != parts:
        found = f"{len(strings)}" if isinstance(strings, (list, tuple)) else type(strings).__name__
        raise ShapeError(f"expected {parts} list(s) of strings, as compress returns them, but got {found}")
    for part in strings:
        check_strings(part, len(strings[0]))
    if len(strings[0]) == 0:
        raise ShapeError("there are no strings to decode")
    return _positive_pair(shape)


def _positive_pair(shape: object) -> tuple[int, int]:
    wrong = ShapeError(
        f"shape must be a height and a width of at least 1, as compress returns it, not {shape!r}"
    )
    if not isinstance(shape, (list, tuple)) or len(shape) != 2:
        raise wrong
    try:
        height, width = (index(size) for size in shape)
    except (TypeError, ValueError):
        raise wrong from None
    if min(height, width) < 1:
        raise wrong
    return height, width
