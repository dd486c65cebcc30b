"""Released models: their cards, their weights, and how to load them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from latens.zoo.cards import DEFAULT_MODEL, ModelCard, card, cards, register_card

if TYPE_CHECKING:
    from latens.zoo.weights import LoadedModel, load, save

__all__ = ["DEFAULT_MODEL", "LoadedModel", "ModelCard", "card", "cards", "load", "register_card", "save"]


def __getattr__(name: str) -> Any:
    # Cards can be listed without torch; loading weights needs it.
    if name in ("LoadedModel", "load", "save"):
        from latens.zoo import weights

        return getattr(weights, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
