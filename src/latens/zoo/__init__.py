"""Released models: their cards, their weights, and how to load them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from latens.zoo import released as _released  # noqa: F401  (registers the cards)
from latens.zoo.architectures import ModelEntry, ModelFunction, Row, entries, entry, functions, listing
from latens.zoo.cards import DEFAULT_MODEL, DEFAULT_VIDEO_MODEL, ModelCard, card, cards, register_card, tuned
from latens.zoo.image import (
    bmshj2018_factorized,
    bmshj2018_factorized_relu,
    bmshj2018_hyperprior,
    bmshj2018_hyperprior_vbr,
    cheng2020_anchor,
    cheng2020_anchor_checkerboard,
    cheng2020_attn,
    cheng2020_gmm,
    elic2022_chandelier,
    elic2022_official,
    mbt2018,
    mbt2018_mean,
    mbt2018_mean_vbr,
    mbt2018_vbr,
)
from latens.zoo.pretrained import load_pretrained
from latens.zoo.pretrained import load_pretrained as load_state_dict
from latens.zoo.video import ssf2020

if TYPE_CHECKING:
    from latens.zoo.weights import LoadedModel, load, save

__all__ = [
    "DEFAULT_MODEL",
    "DEFAULT_VIDEO_MODEL",
    "LoadedModel",
    "ModelCard",
    "ModelEntry",
    "ModelFunction",
    "Row",
    "bmshj2018_factorized",
    "bmshj2018_factorized_relu",
    "bmshj2018_hyperprior",
    "bmshj2018_hyperprior_vbr",
    "card",
    "cards",
    "cheng2020_anchor",
    "cheng2020_anchor_checkerboard",
    "cheng2020_attn",
    "cheng2020_gmm",
    "elic2022_chandelier",
    "elic2022_official",
    "entries",
    "entry",
    "image_models",
    "listing",
    "load",
    "load_pretrained",
    "load_state_dict",
    "mbt2018",
    "mbt2018_mean",
    "mbt2018_mean_vbr",
    "mbt2018_vbr",
    "models",
    "register_card",
    "save",
    "ssf2020",
    "tuned",
    "video_models",
]

image_models = functions("image")
video_models = functions("video")
models = image_models | video_models


def __getattr__(name: str) -> Any:
    # Cards can be listed without torch; loading weights needs it.
    if name in ("LoadedModel", "load", "save"):
        from latens.zoo import weights

        return getattr(weights, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
