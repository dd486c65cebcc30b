"""Convolutions at half and double resolution, and help with checkpoints of any age."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latens.entropy_models.bottleneck import rename_old_keys
from latens.errors import ModelError, UnavailableError

__all__ = [
    "conv",
    "deconv",
    "find_named_buffer",
    "find_named_module",
    "gaussian_blur",
    "gaussian_kernel1d",
    "gaussian_kernel2d",
    "meshgrid2d",
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


def gaussian_kernel1d(kernel_size: int, sigma: float, device: Any, dtype: torch.dtype) -> Tensor:
    """Samples of a Gaussian around its middle, ``(kernel_size,)``, of sum 1; ``sigma`` in samples."""
    taps = torch.arange(kernel_size, dtype=dtype, device=device) - (kernel_size - 1) / 2
    taps = torch.exp(-0.5 * (taps / sigma) ** 2)
    return taps / taps.sum()


def gaussian_kernel2d(kernel_size: int, sigma: float, device: Any, dtype: torch.dtype) -> Tensor:
    """The outer product of :func:`gaussian_kernel1d` with itself, ``(kernel_size, kernel_size)``."""
    taps = gaussian_kernel1d(kernel_size, sigma, device, dtype)
    return taps[:, None] * taps


def gaussian_blur(
    x: Tensor, kernel: Tensor | None = None, kernel_size: int | None = None, sigma: float | None = None
) -> Tensor:
    """Blur the planes of ``x``, ``(B, C, H, W)``; outside, the border goes on.

    Args:
        x: what to blur.
        kernel: ``(height, width)``, both odd; or
        kernel_size: odd, and
        sigma: standard deviation in pixels, of a Gaussian.

    Raises:
        ModelError: neither a kernel, nor a size and a deviation, or an even size.
    """
    if kernel is not None:
        height, width = kernel.shape
        _check_odd(height, width)
        padded = F.pad(x, (width // 2, width // 2, height // 2, height // 2), "replicate")
        return F.conv2d(padded, kernel.expand(x.shape[1], 1, height, width), groups=x.shape[1])
    if kernel_size is None or sigma is None:
        raise ModelError("gaussian_blur needs a kernel, or kernel_size and sigma")
    _check_odd(kernel_size, kernel_size)
    taps = gaussian_kernel1d(kernel_size, sigma, "cpu", torch.float64).tolist()
    # Along rows, then along columns: the same, and faster. Sums of moved planes, because convolutions of so few
    # channels take several times as long.
    for dim in (3, 2):
        size, margin = x.shape[dim], kernel_size // 2
        padded = F.pad(x, (margin, margin, 0, 0) if dim == 3 else (0, 0, margin, margin), "replicate")
        x = padded.narrow(dim, 0, size) * taps[0]
        for start in range(1, kernel_size):
            x.add_(padded.narrow(dim, start, size), alpha=taps[start])
    return x


def _check_odd(height: int, width: int) -> None:
    if height % 2 == 0 or width % 2 == 0:
        raise ModelError(f"the sides of a kernel must be odd, but this one is {height}x{width}")


def meshgrid2d(N: int, C: int, H: int, W: int, device: Any) -> Tensor:
    """Where pixels are, as ``torch.nn.functional.grid_sample`` counts: ``(N, H, W, 2)``, x and y of their middles.

    From -1, the left and upper edge, to 1. ``C`` is not used.
    """
    y, x = ((torch.arange(size, device=device) * 2 + (1 - size)) / size for size in (H, W))
    return torch.stack((x.expand(H, W), y[:, None].expand(H, W)), -1).expand(N, H, W, 2)


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


def _update_registered_buffer(
    module: nn.Module,
    buffer_name: str,
    state_dict_key: str,
    state_dict: Mapping[str, Tensor],
    policy: str = "resize_if_empty",
    dtype: torch.dtype = torch.int32,
) -> None:
    """:func:`update_registered_buffers` for one buffer, whose name in the checkpoint is given in full."""
    if policy not in ("resize_if_empty", "resize", "register"):
        raise ModelError(f'policy must be "resize_if_empty", "resize" or "register", not {policy!r}')
    if state_dict_key not in state_dict:
        raise ModelError(f"the checkpoint has no {state_dict_key}; it belongs to another model")
    size = state_dict[state_dict_key].shape
    present = dict(module.named_buffers(recurse=False)).get(buffer_name)
    if policy == "register":
        if present is not None:
            raise UnavailableError(f"buffer {buffer_name} is registered already; use another policy")
        module.register_buffer(buffer_name, torch.zeros(size, dtype=dtype))
    elif present is None:
        raise UnavailableError(f'buffer {buffer_name} is not registered; use policy="register"')
    elif policy == "resize" or present.numel() == 0:
        setattr(module, buffer_name, present.new_empty(size))


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
    for name in buffer_names:
        _update_registered_buffer(module, name, f"{module_name}.{name}", state_dict, policy, dtype)
