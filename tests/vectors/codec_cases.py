"""Small latent codecs that are compared with the reference's, made from either library's parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from recipe import fill, numbers, strings_of
from torch import Tensor, nn

SCALES = [0.2, 0.5, 1.0, 2.0, 8.0, 20.0]

Case = tuple[Callable[[Any], nn.Module], tuple[Tensor, ...], tuple[Tensor, ...]]
"""What makes the codec, what it takes beside nothing, and what decoding takes beside strings and shape."""


def _parameters() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(16, 10, 1), nn.LeakyReLU(), nn.Conv2d(10, 8, 1))


def _checkerboard(lib: Any, **options: str) -> nn.Module:
    leaf = lib.GaussianConditionalLatentCodec(quantizer="ste")
    context = lib.CheckerboardMaskedConv2d(4, 8, 5, padding=2)
    return lib.CheckerboardLatentCodec({"y": leaf}, _parameters(), context, **options)


def _hyper(lib: Any, name: str = "HyperLatentCodec", **options: str) -> nn.Module:
    return getattr(lib, name)(lib.EntropyBottleneck(4), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 8, 1), **options)


def _hyperprior(lib: Any, gain: str = "") -> nn.Module:
    parts = {"hyper": _hyper(lib, f"{gain}HyperLatentCodec"), "y": lib.GaussianConditionalLatentCodec()}
    return getattr(lib, f"{gain}HyperpriorLatentCodec")(parts)


def _raster(lib: Any) -> nn.Module:
    context = lib.MaskedConv2d(4, 8, 5, padding=2)
    return lib.RasterScanLatentCodec(lib.GaussianConditional(None), _parameters(), context)


def cases() -> dict[str, Case]:
    """All cases by name, on tensors of the default type."""
    y, side = 6 * numbers("y", 2, 4, 6, 8), numbers("side", 2, 8, 6, 8)
    a, b, c, d = (numbers(f"gain{i}", 1, 4, 1, 1) + 2 for i in range(4))
    found: dict[str, Case] = {
        "bottleneck": (lambda lib: lib.EntropyBottleneckLatentCodec(channels=4), (y,), ()),
        "gaussian": (lambda lib: lib.GaussianConditionalLatentCodec(), (y, side), (side,)),
        "gaussian, means first": (
            lambda lib: lib.GaussianConditionalLatentCodec(chunks=("means", "scales"), quantizer="ste"),
            (y, side),
            (side,),
        ),
        "gaussian, scales only": (
            lambda lib: lib.GaussianConditionalLatentCodec(chunks=("scales",)),
            (y, side[:, :4]),
            (side[:, :4],),
        ),
        "hyper": (_hyper, (y,), ()),
        "hyper, ste": (lambda lib: _hyper(lib, quantizer="ste"), (y,), ()),
        "hyper with gain": (lambda lib: _hyper(lib, "GainHyperLatentCodec"), (y, a, b), (b,)),
        "hyperprior": (_hyperprior, (y,), ()),
        "hyperprior with gain": (lambda lib: _hyperprior(lib, "Gain"), (y, a, b, c, d), (c, d)),
        # The reference decodes single images only.
        "raster": (_raster, (y[:1], side[:1]), (side[:1],)),
    }
    for parity in ("even", "odd"):
        for method in ("onepass", "twopass", "twopass_faster"):
            options = {"anchor_parity": parity, "forward_method": method}
            make = lambda lib, options=options: _checkerboard(lib, **options)  # noqa: E731
            found[f"checkerboard, {parity}, {method}"] = (make, (y, side), (side,))
    return found


def exercise_codec(codec: Any, inputs: tuple[Tensor, ...], side: tuple[Tensor, ...]) -> dict[str, Any]:
    """Evaluate, code and decode; tensors under their names, and ``strings``."""
    fill(codec)
    for module in codec.modules():
        if hasattr(module, "scale_table"):
            module.update_scale_table(SCALES)
        elif hasattr(module, "_quantized_cdf"):
            module.update()
    codec.eval()
    found: dict[str, Any] = {}
    with torch.no_grad():
        out = codec(*inputs)
        code = codec.compress(*inputs)
        decoded = codec.decompress(code["strings"], code["shape"], *side)
    for key, value in out.get("likelihoods", {}).items():
        found[f"likelihood/{key}"] = value
    for name, part in (("forward", out), ("encoded", code), ("decoded", decoded)):
        found[name] = part["y_hat"] if "y_hat" in part else part["params"]
    found["strings"] = [string.hex() for string in strings_of(code["strings"])]
    return found
