"""The way back: integers of the default model as a float network, to train on and to search with.

A weight comes back with the 9 to 15 bits that it had as an integer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from latens.convert.products import leaves_of
from latens.errors import ModelError
from latens.io import printable
from latens.layers.depthconv import DepthConvBlock
from latens.models.latens_base import STREAM_SCALE, LatensBase, LatensBaseConfig
from latens.runtime.networks import Block, Depthwise, Network, Pixels, Product, Scale
from latens.runtime.picture import LATENT_BITS, Z_BITS, PictureModel

__all__ = ["float_model"]

Float64 = npt.NDArray[np.float64]

_DAMAGE = (
    KeyError, ValueError, TypeError, IndexError, AttributeError, OverflowError, RuntimeError, StopIteration
)  # fmt: skip


@torch.no_grad()
def float_model(
    model: PictureModel, arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]
) -> LatensBase:
    """The float network of a weights file.

    Args:
        model: in integers.
        arrays, metadata: of the file.

    Raises:
        ModelError: the file does not hold what is needed.
    """
    try:
        config = LatensBaseConfig.from_dict(json.loads(metadata["config"]))
        _check_claim(config, model)
        network = LatensBase(config)
        _restore(network, model, arrays, json.loads(metadata["units"]))
    except _DAMAGE as error:
        raise ModelError(f"the file has no float network ({printable(str(error))[:100]})") from error
    for name, value in network.state_dict().items():
        if not torch.isfinite(value).all():
            raise ModelError(f"the file has no float network ({name} has values that are not finite)")
    return network.eval().requires_grad_(False)


def _check_claim(config: LatensBaseConfig, model: PictureModel) -> None:
    """A small file must not claim huge networks: nothing is allocated before its integers are as many."""
    at8, at16 = (a + s for a, s in zip(config.analysis_blocks, config.synthesis_blocks, strict=True))
    # The matrices of a block, the bulk of all weights, have six times channels * inner elements.
    claimed = 6 * (at8 * config.N**2 + at16 * config.M * config.inner)
    held = sum(array.size for array in model.arrays().values())
    if claimed > held:
        raise ModelError(f"its configuration claims more than {claimed} weights, it holds {held}")


def _restore(
    network: LatensBase, model: PictureModel, arrays: Mapping[str, npt.NDArray[Any]], units: dict[str, Any]
) -> None:
    ends = {}
    for name, module in (
        ("g_a", nn.Sequential(*list(network.g_a)[1:])), ("h_a", network.h_a), ("h_scale", network.h_scale),
        ("h_mean", network.h_mean), ("mean_0", network.mean_0),
        ("context", nn.Sequential(network.context, network.mean_1)), ("g_s", network.g_s),
    ):  # fmt: skip
        ends[name] = _fill(module, model.networks[name], *units[name])
    before = ends["g_s"]
    stages = model.networks["g_s"].stages
    out, pixels = network.g_s_out[0], stages[-1]
    if not isinstance(out, nn.Conv2d) or not isinstance(pixels, Pixels) or not isinstance(stages[-2], Scale):
        raise ValueError("g_s does not end in pixels")
    # The unit behind the scale is free: its factors make up for it.
    weight = np.ldexp(pixels.weight.astype(np.float64), -pixels.shift) / 255.0
    level = max(float(np.abs(weight).max()), 1e-9)
    unit = -round(math.log2(level)) - 3
    out.weight.copy_(torch.from_numpy(np.ldexp(weight, unit))[:, :, None, None])
    bias = np.ldexp(pixels.bias.astype(np.float64), -pixels.shift) / 255.0 - 0.5
    _set(out.bias, bias)
    log2 = {name: factors.logs / 65536.0 for name, factors in model.factors.items()}
    entry = units["g_s"][0][0]
    to_log = math.log(2.0)
    _set(network.log_gain, (log2["gain"] - (LATENT_BITS - ends["g_a"])) * to_log)
    _set(network.log_inverse_gain, (log2["input_scale"] - (entry - LATENT_BITS)) * to_log)
    channel = (
        log2["mean_scale"] - (LATENT_BITS - ends["mean_0"]) - (log2["gain"] - (LATENT_BITS - ends["g_a"]))
    )
    _set(network.channel_scale, 2.0 ** channel.mean(0)[None, :, None, None])
    _set(network.out_scale, STREAM_SCALE * 2.0 ** (log2["out_scale"] + before - unit))
    _set(network.z_offset, model.z_offset / 2.0**Z_BITS)
    prior = {
        key.removeprefix("float."): torch.from_numpy(np.array(a))
        for key, a in arrays.items()
        if key.startswith("float.")
    }
    network.prior.load_state_dict(prior)


def _fill(module: nn.Module, network: Network, entry: list[int], units: list[int]) -> int:
    """Weights of a network, in units in which values are what they were; returns the last one."""
    exponent = np.array(entry, np.int64)
    parts: Iterator[nn.Module] = (part for _, part in leaves_of(module, ""))
    for stage, unit in zip(network.stages, units, strict=False):
        part = next(parts) if stage.kind != "input" else None
        while isinstance(part, nn.ReLU):
            part = next(parts)
        if isinstance(stage, Block) and isinstance(part, DepthConvBlock):
            stream = exponent
            _product(part.pw_in, stage.pw_in, exponent, stage.pw_in.gate)
            _depthwise(part.dw, stage.dw, stage.pw_in.gate, unit)
            inner = np.full(len(stage.dw.bias), unit)
            _product(part.pw_out, stage.pw_out, inner, int(stream[0]))
            _product(part.ffn_in, stage.ffn_in, stream, stage.ffn_in.gate)
            hidden = np.full(len(stage.ffn_in.bias), stage.ffn_in.gate)
            _product(part.ffn_out, stage.ffn_out, hidden, int(stream[0]))
            continue
        if isinstance(stage, Product) and isinstance(part, nn.Conv2d):
            _product(part, stage, exponent, unit)
            exponent = np.full(len(stage.bias), unit)
        elif stage.kind in ("shuffle", "unshuffle", "input"):
            exponent = np.full(1, unit)
        else:
            raise ValueError(f"{stage.kind} does not belong to {type(part).__name__}")
    if not all(isinstance(part, nn.ReLU) for part in parts):
        raise ValueError("the network has more layers than integers")
    return int(exponent[0])


def _product(conv: nn.Conv2d, stage: Product, entry: npt.NDArray[np.int64], unit: int) -> None:
    scale = -(stage.shift.astype(np.int64) + unit)
    exponents = scale[:, None, None, None] + (entry if len(entry) > 1 else entry[0])
    weight = np.ldexp(stage.weight.astype(np.float64), exponents)
    conv.weight.copy_(torch.from_numpy(weight).permute(0, 3, 1, 2))
    _set(conv.bias, np.ldexp(stage.bias.astype(np.float64), scale))


def _depthwise(conv: nn.Conv2d, stage: Depthwise, entry: int, unit: int) -> None:
    scale = -(stage.shift.astype(np.int64) + unit)
    conv.weight.copy_(
        torch.from_numpy(np.ldexp(stage.weight.astype(np.float64), scale[:, None, None] + entry))[:, None]
    )
    _set(conv.bias, np.ldexp(stage.bias.astype(np.float64), scale))


def _set(target: Tensor | None, values: Float64) -> None:
    if target is None:
        raise ValueError("a layer has no bias")
    target.copy_(torch.from_numpy(np.asarray(values, np.float64)))
