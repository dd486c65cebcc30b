"""Released models: their cards, their weights, and how to load them; and the published architectures by their names.

Cards and weights of released models need no PyTorch; what needs it is imported when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from latens.zoo import released as _released  # noqa: F401  (registers the cards)
from latens.zoo.cards import DEFAULT_MODEL, DEFAULT_VIDEO_MODEL, ModelCard, card, cards, register_card, tuned

if TYPE_CHECKING:
    from latens.zoo.architectures import (
        ModelEntry as ModelEntry,
    )
    from latens.zoo.architectures import ModelFunction as ModelFunction
    from latens.zoo.architectures import Row as Row
    from latens.zoo.architectures import entries as entries
    from latens.zoo.architectures import entry as entry
    from latens.zoo.architectures import functions as functions
    from latens.zoo.architectures import listing as listing
    from latens.zoo.image import *  # noqa: F403
    from latens.zoo.pretrained import load_pretrained as load_pretrained
    from latens.zoo.video import *  # noqa: F403
    from latens.zoo.weights import load as load
    from latens.zoo.weights import save as save

    image_models: dict[str, ModelFunction]
    video_models: dict[str, ModelFunction]
    models: dict[str, ModelFunction]

_IMAGE = (
    "bmshj2018_factorized", "bmshj2018_factorized_relu", "bmshj2018_hyperprior", "bmshj2018_hyperprior_vbr", "cca",
    "cheng2020_anchor", "cheng2020_anchor_checkerboard", "cheng2020_attn", "cheng2020_gmm", "dcae",
    "elic2022_chandelier", "elic2022_official", "hpcm", "hpcm_large", "lalic", "mbt2018", "mbt2018_mean",
    "mbt2018_mean_vbr", "mbt2018_vbr", "mlic_plus_plus", "stf", "tcm", "wacnn",
)  # fmt: skip
_HOMES = {
    **dict.fromkeys(_IMAGE, "image"),
    **dict.fromkeys(
        ("ModelEntry", "ModelFunction", "Row", "entries", "entry", "functions", "listing"), "architectures"
    ),
    "load": "weights",
    "load_pretrained": "pretrained",
    "save": "weights",
    **dict.fromkeys(("dcvc_rt", "dcvc_rt_intra", "ssf2020"), "video"),
}

__all__ = [
    "DEFAULT_MODEL",
    "DEFAULT_VIDEO_MODEL",
    "ModelCard",
    "card",
    "cards",
    "image_models",
    "models",
    "register_card",
    "tuned",
    "video_models",
    "load_state_dict",  # noqa: F405
    *_HOMES,
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"latens.zoo.{_HOMES[name]}"), name)
    if name == "load_state_dict":
        return import_module("latens.zoo.pretrained").load_pretrained
    if name in ("image_models", "video_models", "models"):
        functions = import_module("latens.zoo.architectures").functions
        found = functions("image") if name != "video_models" else {}
        return found if name == "image_models" else found | functions("video")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
