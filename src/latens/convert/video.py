"""The default video model in integers: what :class:`latens.runtime.video.ReleasedVideo` consists of."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latens.convert.latens_base import freeze_parts
from latens.convert.pictures import ASINH_BITS, QUALITIES, sample_pictures
from latens.convert.products import Signal, network_of
from latens.errors import ModelError
from latens.models.latens_base import asinh
from latens.models.video.conditional import Context, LatensVideo
from latens.runtime.factors import Factors
from latens.runtime.picture import INDEXES, Z_BITS, Z_MAX
from latens.runtime.released import ReleasedPictures
from latens.runtime.storage import of_tables
from latens.zoo.cards import cards
from latens.zoo.weights import frozen

__all__ = ["weights_of"]

# By how many pixels samples move, down and right, and how much of that a prediction leaves.
_MOVES = ((0, 0), (1, 0), (0, 3), (7, -5), (48, 31))


@torch.no_grad()
def _seen(model: LatensVideo) -> tuple[list[Tensor], list[Tensor]]:
    """What h_a sees of pictures that move, in float, and what it makes of it, rounded."""
    image = model.image
    x = sample_pictures()
    latents = image.features(x)
    seen, found = [], []
    for number, move in enumerate(_MOVES):
        before = image.features(x.roll(move, (2, 3)))
        for value in QUALITIES[number % 2 :: 2] if number else QUALITIES:
            quality = torch.full((len(x),), value)
            y, expected = latents * image.gain(quality), before * image.gain(quality)
            seen.append(torch.cat([asinh(y - expected), asinh(expected)], 1))
            context = Context(x, expected, expected)
            found.append(model.hyper_analyse(y, context, quality).round().clamp(-Z_MAX, Z_MAX))
    return seen, found


@torch.no_grad()
def weights_of(
    network: LatensVideo, name: str, image: ReleasedPictures | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Arrays and metadata of a weights file.

    Args:
        network: trained.
        name: for error messages.
        image: the network's image model as it was loaded; a released one is named, others are put into the file. None
            to make it of the network.

    Raises:
        ModelError: weights that are not finite, or so large that sums would leave 32 bits.
        TableError: a prior that is not a distribution.
    """
    for key, value in network.state_dict().items():
        if not torch.isfinite(value).all():
            raise ModelError(f"{name}: {key} has values that are not finite")
    model = copy.deepcopy(network).cpu().float().eval()
    config = model.image.config
    parts = freeze_parts(config, model.prior, model.h_scale)
    seen, z = _seen(model)
    symbols = Signal.even(config.hyper, 0, (-Z_MAX, Z_MAX))
    h_scale = network_of(model.h_scale, z, symbols, "h_scale", exponent=0, limits=(0, INDEXES - 1))
    h_a = network_of(model.h_a, seen, Signal.even(2 * config.M, ASINH_BITS), "h_a", exponent=Z_BITS)
    quality = torch.tensor([0.0, 1.0])
    price = torch.log2(model.price(quality).double())[:, None].numpy()
    arrays: dict[str, Any] = {
        "z_offset": np.rint(model.z_offset.detach().double().numpy() * 2.0**Z_BITS).astype(np.int32),
        "price": Factors.of(price).logs,
    }
    arrays |= of_tables("z", parts.z_tables)
    for part, converted in (("h_a", h_a), ("h_scale", h_scale)):
        arrays |= converted.network.arrays(f"network.{part}")
    if image is None:
        data = frozen(network.image, "image")
    elif any(known.id == image.id and known.sha256 == image.weights_id for known in cards()):
        return arrays, {"image": image.id, "image_sha256": image.weights_id}
    else:
        data = image.weights_file()
    return arrays | {"image": np.frombuffer(data, np.uint8)}, {}
