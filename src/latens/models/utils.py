"""Convolutions at half and double resolution, and help with checkpoints of any age."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from latens.entropy_models.bottleneck import rename_old_keys
from latens.errors import ModelError

__all__ = [
    "conv",
    "deconv",
    "find_named_buffer",
    "find_named_module",
    "remap_old_keys",
    "rename_to_fit",
    "update_registered_buffers",
]


def conv(in_channels: int, out_channels: int, kernel_size: int = 5, stride: int = 2) -> nn.Conv2d:
    """Convolution that divides height and width by ``stride``, rounding up."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2)


def deconv(in_channels: int, out_channels: int, kernel_size: int = 5, stride: int = 2) -> nn.ConvTranspose2d:
    """Transposed convolution that multiplies height and width by ``stride``."""
    return nn.ConvTranspose2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        output_padding=stride - 1,
    )


def find_named_module(module: nn.Module, query: str) -> nn.Module | None:
    """The sub-module that has this name (with dots, seen from ``module``), or None."""
    return dict(module.named_modules()).get(query)


def find_named_buffer(module: nn.Module, query: str) -> Tensor | None:
    """The buffer that has this name (with dots, seen from ``module``), or None."""
    return dict(module.named_buffers()).get(query)


def remap_old_keys(module_name: str, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """``state_dict`` with the parameters of the bottleneck ``module_name`` under the names of today."""
    renamed = dict(state_dict)
    rename_old_keys(renamed, f"{module_name}." if module_name else "")
    return renamed


def rename_to_fit(names: Iterable[str], state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Rename keys that only an older layout or a wrapper explains, where ``names`` does not have them.

    ``module.`` in front (from ``DataParallel``) goes away, and ``.downsample.`` becomes ``.skip.``. Names
    that the model knows are kept, and so are the versions of modules that ``state_dict()`` notes.
    """
    known = set(names)
    renamed: Any = OrderedDict()  # a plain dictionary cannot carry the versions
    versions = getattr(state_dict, "_metadata", {})
    renamed._metadata = {f"{key}.".removeprefix("module.")[:-1]: value for key, value in versions.items()}
    for key, value in state_dict.items():
        if key not in known:
            bare = key.removeprefix("module.")
            key = bare if bare in known else bare.replace(".downsample.", ".skip.")
        renamed[key] = value
    return cast(dict[str, Any], renamed)


def update_registered_buffers(
    module: nn.Module,
    module_name: str,
    buffer_names: Iterable[str],
    state_dict: MutableMapping[str, Tensor],
    policy: str = "resize_if_empty",
    dtype: torch.dtype = torch.int32,
) -> None:
    """Give buffers the size that they have in a checkpoint, before it is loaded.

    The entropy models of this package do so by themselves; this is for modules that don't.

    Args:
        module: owner of the buffers.
        module_name: its name in ``state_dict``.
        buffer_names: names of the buffers.
        state_dict: the checkpoint.
        policy: ``"resize_if_empty"`` leaves buffers alone that hold something, ``"resize"`` doesn't,
            ``"register"`` makes new ones.
        dtype: of buffers made by ``"register"``.

    Raises:
        ModelError: an unknown policy, or a buffer that is missing (or, for ``"register"``, that exists).
    """
    if policy not in ("resize_if_empty", "resize", "register"):
        raise ModelError(f'policy must be "resize_if_empty", "resize" or "register", not {policy!r}')
    present = dict(module.named_buffers(recurse=False))
    for name in buffer_names:
        key = f"{module_name}.{name}"
        if key not in state_dict:
            raise ModelError(f"the checkpoint has no {key}; it belongs to another model")
        size = state_dict[key].shape
        if policy == "register":
            if name in present:
                raise ModelError(f"buffer {name} is registered already; use another policy")
            module.register_buffer(name, torch.empty(size, dtype=dtype))
            continue
        if name not in present:
            raise ModelError(f'buffer {name} is not registered; use policy="register"')
        if policy == "resize" or present[name].numel() == 0:
            setattr(module, name, present[name].new_empty(size))
