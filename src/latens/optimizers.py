"""Optimisers made from a configuration: one for the networks, and one for the quantiles if they are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer

from latens import (
    _research,  # noqa: F401  (tells who lacks PyTorch)
    registry,
)
from latens.errors import TrainingError

__all__ = ["net_aux_optimizer", "net_optimizer"]


def net_optimizer(net: nn.Module, conf: Mapping[str, Any]) -> dict[str, Optimizer]:
    """One optimiser for all parameters that require gradients.

    Args:
        net: the model.
        conf: ``{"net": {"type": "Adam", "lr": 1e-4, ...}}``; ``type`` is a name in
            :data:`latens.registry.OPTIMIZERS`, the rest goes to its constructor.

    Returns:
        ``{"net": optimizer}``.

    Raises:
        TrainingError: a configuration that cannot be followed, or nothing to train.
    """
    names = [name for name, parameter in net.named_parameters() if parameter.requires_grad]
    return {"net": _make(net, names, conf, "net")}


def net_aux_optimizer(net: nn.Module, conf: Mapping[str, Any]) -> dict[str, Optimizer]:
    """Two optimisers: ``aux`` for the quantiles of entropy bottlenecks, ``net`` for all other parameters.

    Args:
        net: the model. Every parameter must require gradients, so that none is forgotten.
        conf: like that of :func:`net_optimizer`, with entries ``net`` and ``aux``.

    Returns:
        ``{"net": optimizer, "aux": optimizer}``.

    Raises:
        TrainingError: a configuration that cannot be followed, a frozen parameter, or nothing to train.
    """
    frozen = [name for name, parameter in net.named_parameters() if not parameter.requires_grad]
    if frozen:
        raise TrainingError(
            f"{len(frozen)} parameters do not require gradients, {frozen[0]} first; "
            "unfreeze them, or use net_optimizer, which leaves frozen parameters alone"
        )
    names = [name for name, _ in net.named_parameters()]
    return {
        "net": _make(net, [name for name in names if not name.endswith(".quantiles")], conf, "net"),
        "aux": _make(net, [name for name in names if name.endswith(".quantiles")], conf, "aux"),
    }


def _make(net: nn.Module, names: list[str], conf: Mapping[str, Any], key: str) -> Optimizer:
    # Asked for here and not above: filling this registry imports this module.
    optimizers = registry.OPTIMIZERS
    try:
        arguments = dict(conf[key])
        kind = arguments.pop("type")
    except (KeyError, TypeError, ValueError):
        raise TrainingError(
            f'expected a configuration with {{"{key}": {{"type": ..., "lr": ...}}}}, but got {conf!r}'
        ) from None
    if kind not in optimizers:
        raise TrainingError(f"unknown optimiser {kind!r}; there are {', '.join(sorted(optimizers))}")
    if not names:
        raise TrainingError(f"there are no parameters for the optimiser {key!r}")
    parameters = dict(net.named_parameters())
    # Sorted, so that optimiser states fit whatever order a later version defines its layers in.
    chosen = [parameters[name] for name in sorted(names)]
    try:
        return cast(Optimizer, optimizers[kind](chosen, **arguments))
    except (TypeError, ValueError) as error:
        raise TrainingError(f"optimiser {key!r}: {kind} does not accept {arguments}: {error}") from error
