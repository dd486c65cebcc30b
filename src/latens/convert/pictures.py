"""The default model in integers: what :class:`latens.runtime.picture.PictureModel` consists of."""

from __future__ import annotations

import copy
import json
import math
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from latens.convert.latens_base import freeze_parts
from latens.convert.products import (
    Signal,
    _State,
    exponent_for,
    network_of,
    pixels_of,
    scale_of,
)
from latens.errors import ModelError
from latens.models.latens_base import STREAM_SCALE, LatensBase, asinh, first_step_mask
from latens.runtime.factors import Factors
from latens.runtime.networks import Input, Stage
from latens.runtime.parts import IntegerTables
from latens.runtime.picture import INDEXES, LATENT_BITS, Z_BITS, Z_MAX, PictureModel

__all__ = ["ASINH_BITS", "QUALITIES", "picture_model", "sample_pictures"]

_SIDE, _PICTURES, _DISCS = 192, 10, 600
QUALITIES = (0.0, 0.4, 0.8, 1.0)
ASINH_BITS = 11


def sample_pictures(count: int = _PICTURES, side: int = _SIDE) -> Tensor:
    """Pictures ``(count, 3, side, side)`` in 0..1 with the statistics of photographs, the same each time.

    Discs of all sizes in front of each other (Lee, Mumford and Huang, "Occlusion models for natural images", IJCV
    2001), each of a colour of its own with a slope and some grain.
    """
    random = np.random.Generator(np.random.PCG64(1))
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32)
    found = np.empty((count, 3, side, side), np.float32)
    for picture in found:
        grain = random.standard_normal((3, side, side)).astype(np.float32)
        palette = random.random((8, 3))
        picture[:] = palette[0][:, None, None]
        for _ in range(_DISCS):
            # Density falls with the cube of the radius.
            radius = 1.0 / math.sqrt(random.uniform(1.0 / side**2 * 4, 1.0 / 2.0**2))
            y, x = random.uniform(-radius, side + radius, 2)
            inside = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
            colour = np.clip(palette[random.integers(8)] + 0.15 * random.standard_normal(3), 0, 1)
            slope = 0.3 * random.standard_normal(2) / max(radius, 8.0)
            shade = slope[0] * (rows - y) + slope[1] * (columns - x)
            texture = random.choice([0.0, 0.02, 0.08])
            value = colour[:, None, None] + shade + texture * grain
            picture[:, inside] = value[:, inside]
    return torch.from_numpy(found.clip(0.0, 1.0))


def _log2(values: Tensor) -> np.ndarray:
    return values.detach().double().cpu().numpy() / math.log(2.0)


class Pictures(NamedTuple):
    """A model in integers, and the units of its networks: of what enters, and of what each stage gives."""

    model: PictureModel
    units: dict[str, tuple[list[int], list[int]]]


@torch.no_grad()
def picture_model(model: LatensBase, pictures: Tensor | None = None) -> Pictures:
    """Turn a trained model into integers.

    Args:
        model: float.
        pictures: ``(n, 3, H, W)`` in 0..1, sides multiples of 64, that show how large values become;
            :func:`sample_pictures` by default.

    Raises:
        ModelError: weights that are not finite, or so large that sums would leave 32 bits.
        TableError: a prior that is not a distribution.
    """
    model = copy.deepcopy(model).cpu().float().eval()
    x = sample_pictures() if pictures is None else pictures
    config = model.config
    entropy = freeze_parts(config, model.prior, model.h_scale)
    qualities = [torch.full((len(x),), q) for q in QUALITIES]

    # What the networks see and give, in float.
    features = model.features(x)
    y = [features * model.gain(q) for q in qualities]
    z = [model.hyper_analyse(v, q).round().clamp(-Z_MAX, Z_MAX) for v, q in zip(y, qualities, strict=True)]
    symbols = Signal.even(config.hyper, 0, (-Z_MAX, Z_MAX))
    h_scale = network_of(model.h_scale, z, symbols, "h_scale", exponent=0, limits=(0, INDEXES - 1))
    h_mean = network_of(model.h_mean, z, symbols, "h_mean")
    knowns, inputs = [], []
    first = first_step_mask(y[0])
    for v, u, q in zip(y, h_mean.samples, qualities, strict=True):
        mean = model.first_mean(u, q)
        y_first = ((v - mean).round() + mean) * first
        knowns.append(y_first * (model.inverse_gain(q) / model.channel_scale))
        second = model.second_mean(u, y_first, q)
        mean = torch.where(first, mean, second)
        inputs.append(((v - mean).round() + mean) * model.inverse_gain(q))

    mean_0 = network_of(model.mean_0, h_mean.samples, h_mean.signal, "mean_0")
    known_unit = exponent_for(max(float(k.abs().max()) for k in knowns))
    known = Signal.even(config.M, known_unit)
    seen = [torch.cat([k, u], 1) for k, u in zip(knowns, h_mean.samples, strict=True)]
    context = network_of(
        nn.Sequential(model.context, model.mean_1), seen, known.beside(h_mean.signal), "context",
        exponent=int(mean_0.signal.exponent[0]),
    )  # fmt: skip
    scales = [model._at_quality(model.out_scale, q) / STREAM_SCALE for q in qualities]
    units: list[int] = []

    def finish(state: _State) -> list[Stage]:
        before = int(state.signal.exponent[0])
        stage, unit = scale_of(state, [s * k for s, k in zip(state.samples, scales, strict=True)])
        units.append(unit - before)
        conv = model.g_s_out[0]
        if not isinstance(conv, nn.Conv2d):
            raise ModelError("g_s_out: expected a convolution first")
        return [stage, pixels_of(conv, state, "g_s_out")]

    g_s = network_of(model.g_s, inputs, None, "g_s", suffix=finish)
    body = nn.Sequential(*list(model.g_a)[1:])
    g_a = network_of(
        body, [nn.functional.pixel_unshuffle(x - 0.5, 8)], Signal.even(192, 15, (-(2**14), 2**14)), "g_a",
        prefix=[Input()],
    )  # fmt: skip
    h_a = network_of(
        model.h_a, [asinh(v) for v in y], Signal.even(config.M, ASINH_BITS), "h_a", exponent=Z_BITS
    )
    if not (model.out_scale > 0).all() or not (model.channel_scale > 0).all():
        raise ModelError("out_scale, channel_scale: expected factors above zero")
    channel = _log2(torch.log(model.channel_scale.flatten()))
    gain, inverse = _log2(model.log_gain), _log2(model.log_inverse_gain)
    mean_unit, entry = int(mean_0.signal.exponent[0]), int(g_s.entry.exponent[0])
    networks = {
        "g_a": g_a, "h_a": h_a, "h_scale": h_scale, "h_mean": h_mean, "mean_0": mean_0, "context": context,
        "g_s": g_s,
    }  # fmt: skip
    made = PictureModel(
        z_tables=entropy.z_tables,
        y_tables=cast(IntegerTables, entropy.y_tables),
        networks={name: part.network for name, part in networks.items()},
        factors={
            "gain": Factors.of(gain, LATENT_BITS - int(g_a.signal.exponent[0])),
            "mean_scale": Factors.of(gain + channel, LATENT_BITS - mean_unit),
            "context_scale": Factors.of(inverse - channel, known_unit - LATENT_BITS),
            "input_scale": Factors.of(inverse, entry - LATENT_BITS),
            "out_scale": Factors.of(_log2(torch.log(model.out_scale / STREAM_SCALE)), units[0]),
        },
        z_offset=np.rint(model.z_offset.double().numpy() * 2.0**Z_BITS).astype(np.int32),
    )
    return Pictures(
        made, {name: (part.entry.exponent.tolist(), part.units) for name, part in networks.items()}
    )


def weights_of(model: LatensBase, name: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a weights file.

    Raises:
        ModelError, TableError: as :func:`picture_model`.
    """
    for key, value in model.state_dict().items():
        if not torch.isfinite(value).all():
            raise ModelError(f"{name}: {key} has values that are not finite")
    made = picture_model(model)
    # What integers do not hold, so that training can go on from them.
    arrays = {f"float.{key}": value.numpy() for key, value in model.prior.cpu().state_dict().items()}
    metadata = {"config": json.dumps(model.config.to_dict()), "units": json.dumps(made.units)}
    return made.model.arrays() | arrays, metadata
