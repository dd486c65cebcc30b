"""A model, exercised: the same calls on the same weights and images, whichever library the model is from.

``make_reference.py`` runs this on the reference implementation and freezes what comes out; the tests run it
on this library and compare. Nothing here may import either. Weights and images come from integer arithmetic,
so they are the same everywhere and need no storage.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

QUANTILES = (-8.0, 0.3, 9.0)


def numbers(name: str, *shape: int) -> Tensor:
    """Multiples of 2^-15 in [-1, 1), the same for the same name and shape."""
    count = 1
    for size in shape:
        count *= size
    state = torch.arange(count, dtype=torch.int64) * 2654435761 + zlib.crc32(name.encode())
    for _ in range(3):
        state = (state ^ (state >> 15)) * 2246822519 % 2**32
    return ((state >> 16).double() / 2**15 - 1).to(torch.get_default_dtype()).reshape(shape)


def image(batch: int, height: int, width: int) -> Tensor:
    """Images with edges, slopes and texture, values 0 to 1."""
    rows = torch.arange(height)[:, None] / height
    columns = torch.arange(width)[None, :] / width
    smooth = (rows + columns) / 2 + 0.25 * ((rows * 5).floor() % 2) * ((columns * 4).floor() % 2)
    texture = numbers("image", batch, 3, height, width)
    return (0.7 * smooth + 0.15 + 0.15 * texture).clamp(0, 1).to(torch.get_default_dtype())


@torch.no_grad()
def fill(model: nn.Module) -> None:
    """Give all weights values that exercise the model: latents of several units, tails, every scale."""
    for name, value in model.named_parameters():
        noise = numbers(name, *value.shape)
        leaf = name.rsplit(".", 1)[-1]
        if leaf == "quantiles":
            value.copy_(torch.tensor(QUANTILES).expand_as(value) + 0.5 * noise)
        elif value.dim() == 4:
            # Blocks with shortcuts would let larger weights explode.
            plain = name.count(".") == 2
            gain = (3.0 if name.startswith("g_a") else 1.7) if plain else 1.1
            value.copy_(noise * gain / value[0].numel() ** 0.5)
        elif value.dim() == 2 and leaf == "weight":
            value.copy_(noise / value.shape[1] ** 0.5)
        elif leaf == "Gain":
            value.mul_(1 + 0.2 * noise)
        elif leaf == "bias":
            # Positive where scales are made, so that most lie inside the table.
            value.copy_(0.3 * noise + (0.5 if "h_s" in name or "entropy_parameters" in name else 0.0))
        elif "biases" in name:
            value.copy_(0.4 * noise)
        elif leaf == "gamma":
            value.add_(0.05 * (noise + 1))
        else:
            value.add_(0.2 * noise)


def fix_noise(model: nn.Module) -> None:
    """Replace random quantisation noise by known numbers."""

    def fixed(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def quantize(inputs: Tensor, mode: str, means: Tensor | None = None, **rest: Any) -> Tensor:
            if mode == "noise":
                return inputs + numbers("noise", *inputs.shape) / 2
            return original(inputs, mode, means, **rest)

        return quantize

    def fixed_steps(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def quantize(inputs: Tensor, mode: str, means: Tensor | None, qs: Tensor | None) -> Tensor:
            if mode == "noise" and qs is not None:
                return inputs + numbers("noise", *inputs.shape) / 2 * qs
            return original(inputs, mode, means, qs)

        return quantize

    for module in model.modules():
        if hasattr(module, "_quantized_cdf"):
            module.quantize = fixed(module.quantize)
        # The reference has a function of its own for steps other than 1.
        if hasattr(module, "quantize_variable"):
            module.quantize_variable = fixed_steps(module.quantize_variable)


def digest(tensor: Tensor) -> str:
    """Hash of an integer tensor with its shape."""
    data = tensor.to(torch.int32).contiguous().numpy().tobytes()
    return hashlib.sha256(repr(tuple(tensor.shape)).encode() + data).hexdigest()


def strings_of(tree: Any) -> list[bytes]:
    """All byte strings of a nested list, in order."""
    if isinstance(tree, bytes):
        return [tree]
    return [string for part in tree for string in strings_of(part)]


def exercise(model: Any, x: Tensor, **options: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Train one step, make tables, evaluate, code, decode.

    Args:
        model: freshly filled.
        x: images.
        options: passed on to forward, compress and decompress.

    Returns:
        Tensors, and facts that are not tensors.
    """
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Any] = {}

    original = {m: dict(m.__dict__) for m in model.modules() if hasattr(m, "_quantized_cdf")}
    fix_noise(model)
    model.train()
    out = model(x, **options)
    loss = out["x_hat"].square().sum() - sum(p.log().sum() for p in out["likelihoods"].values())
    loss.backward()
    # The model's own sum leaves out bottlenecks with steps in the reference.
    aux = sum(m.loss() for m in model.modules() if hasattr(m, "quantiles"))
    aux.backward()
    tensors["train/x_hat"] = out["x_hat"].detach()[..., ::5, ::5]
    tensors["loss"] = torch.stack([loss.detach(), aux.detach()])
    for name, value in model.named_parameters():
        if value.grad is not None:
            weights = numbers("grad" + name, *value.shape)
            tensors["grad/" + name] = torch.stack([(value.grad * weights).sum(), value.grad.abs().sum()])
    for module, attributes in original.items():
        for name in module.__dict__.keys() - attributes.keys():
            delattr(module, name)

    model.eval()
    model.update()
    with torch.no_grad():
        out = model(x, **options)
        code = model.compress(x, **options)
        decoded = model.decompress(code["strings"], code["shape"], **options)["x_hat"]
    tensors["x_hat"] = out["x_hat"][..., ::5, ::5]
    for key, value in out["likelihoods"].items():
        tensors["likelihood/" + key] = value
    tensors["decoded"] = decoded[..., ::5, ::5]

    facts["strings"] = [string.hex() for string in strings_of(code["strings"])]
    facts["shape"] = repr(code["shape"]).replace("torch.Size(", "").replace(")", "")
    facts["state"] = {k: [list(v.shape), str(v.dtype)] for k, v in model.state_dict().items()}
    facts["parameters"] = [name for name, _ in model.named_parameters()]
    facts["tables"] = {
        k: digest(v) for k, v in model.state_dict().items() if k.endswith(("_cdf", "_offset", "_cdf_length"))
    }
    return {k: v.clone().contiguous() for k, v in tensors.items()}, facts
