"""Small modules to build sequences from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from latens.errors import ModelError

__all__ = [
    "Gain",
    "Interleave",
    "Lambda",
    "NamedLayer",
    "Reshape",
    "Transpose",
    "sequential_channel_ramp",
]


class Lambda(nn.Module):
    """Any function as a module.

    Args:
        func: called with what the module is called with.
    """

    def __init__(self, func: Callable[..., Any]) -> None:
        super().__init__()
        self.func = func

    def extra_repr(self) -> str:
        return f"func={self.func}"

    def forward(self, x: Any) -> Any:
        """``func(x)``."""
        return self.func(x)


class NamedLayer(nn.Module):
    """Identity with a name, to mark a place in a sequence.

    Args:
        name: the name.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def extra_repr(self) -> str:
        return f"name={self.name}"

    def forward(self, x: Tensor) -> Tensor:
        """``x`` itself."""
        return x


class Reshape(nn.Module):
    """Gives every batch element another shape.

    Args:
        shape: sizes after the batch.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def extra_repr(self) -> str:
        return f"shape={self.shape}"

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, ...)`` to ``(batch, *shape)``."""
        return x.reshape(x.shape[0], *self.shape)


class Transpose(nn.Module):
    """Swaps two dimensions.

    Args:
        dim0: one of them.
        dim1: the other.
    """

    def __init__(self, dim0: int, dim1: int) -> None:
        super().__init__()
        self.dim0 = dim0
        self.dim1 = dim1

    def extra_repr(self) -> str:
        return f"dim0={self.dim0}, dim1={self.dim1}"

    def forward(self, x: Tensor) -> Tensor:
        """``x.transpose(dim0, dim1)``, contiguous."""
        return x.transpose(self.dim0, self.dim1).contiguous()


class Interleave(nn.Module):
    """Takes channels from each of several groups in turn: ``0 1 2 3`` in two groups becomes ``0 2 1 3``.

    Args:
        groups: number of groups, a divisor of the number of channels.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def extra_repr(self) -> str:
        return f"groups={self.groups}"

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, ...)``, shape kept."""
        grouped = x.reshape(x.shape[0], self.groups, x.shape[1] // self.groups, *x.shape[2:])
        return grouped.transpose(1, 2).reshape(x.shape)


class Gain(nn.Module):
    """Multiplies by a trained factor.

    Args:
        shape: shape of the trained tensor, which broadcasts against the input; None for a scalar.
        factor: a constant beside it; a larger one makes the gain train faster.
    """

    def __init__(self, shape: Sequence[int] | None = None, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.gain = nn.Parameter(torch.ones(tuple(shape) if shape is not None else ()))

    def forward(self, x: Tensor) -> Tensor:
        """``factor * gain * x``."""
        return self.factor * self.gain * x


def sequential_channel_ramp(
    in_ch: int,
    out_ch: int,
    *,
    min_ch: int = 0,
    num_layers: int = 3,
    interp: str = "linear",
    make_layer: Callable[..., nn.Module],
    make_act: Callable[[], nn.Module],
    skip_last_act: bool = True,
    **layer_kwargs: Any,
) -> nn.Sequential:
    """Layers whose numbers of channels go from ``in_ch`` to ``out_ch`` in even steps.

    Args:
        in_ch: channels of the input.
        out_ch: channels of the output.
        min_ch: lower limit for those between.
        num_layers: number of layers.
        interp: ``"linear"`` for even differences, ``"log"`` for even ratios.
        make_layer: called with input channels, output channels and ``layer_kwargs``.
        make_act: called without arguments for the activation behind each layer.
        skip_last_act: no activation behind the last layer.
        **layer_kwargs: for ``make_layer``.

    Raises:
        ModelError: another ``interp``.
    """
    if interp not in ("linear", "log"):
        raise ModelError(f'interp must be "linear" or "log", not {interp!r}')
    channels = [in_ch]
    for i in range(1, num_layers):
        part = i / num_layers
        if interp == "linear":
            between = in_ch + (out_ch - in_ch) * part
        else:
            between = math.exp(math.log(in_ch) * (1 - part) + math.log(out_ch) * part)
        # An exact integer may come out a little below itself.
        channels.append(max(min_ch, math.floor(between + 1e-6)))
    channels.append(out_ch)
    layers: list[nn.Module] = []
    for i in range(num_layers):
        layers.append(make_layer(channels[i], channels[i + 1], **layer_kwargs))
        if i < num_layers - 1 or not skip_last_act:
            layers.append(make_act())
    return nn.Sequential(*layers)
