"""One card per released set of weights; the identifier is for ever, and so are the bytes behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from latens.errors import UnknownModelError

__all__ = ["DEFAULT_MODEL", "DEFAULT_VIDEO_MODEL", "ModelCard", "card", "cards", "register_card"]

DEFAULT_MODEL = "latens-base-6"
DEFAULT_VIDEO_MODEL = "latens-video-5"


@dataclass(frozen=True)
class ModelCard:
    """What a released model is.

    Attributes:
        id: the name that files carry.
        summary: one sentence.
        file: weights inside the package.
        sha256: of that file.
        licence: of the weights (SPDX).
        papers: what the architecture builds on.
        training: data and time spent.
        parameters: number of parameters.
        mac_per_pixel: multiply-accumulate operations per pixel of (encoding, decoding).
        quality_range: bits per pixel at quality 0 and 100: of images on the Kodak set, of video on ``range_of``.
        media: ``"image"`` or ``"video"``.
        range_of: what the range was measured on.
    """

    id: str
    summary: str
    file: str
    sha256: str
    licence: str
    papers: tuple[str, ...]
    training: str
    parameters: int
    mac_per_pixel: tuple[int, int]
    quality_range: tuple[float, float]
    media: str = "image"
    range_of: str = "Kodak"

    @property
    def path(self) -> Path:
        """Where the weights are."""
        return Path(str(resources.files("latens.zoo").joinpath("data", self.file)))


_CARDS: dict[str, ModelCard] = {}


def register_card(make: Callable[[], ModelCard]) -> Callable[[], ModelCard]:
    """Add the card that the decorated function returns.

    Raises:
        ValueError: the identifier is taken.
    """
    new = make()
    if new.id in _CARDS:
        raise ValueError(f"model {new.id!r} is registered twice")
    _CARDS[new.id] = new
    return make


def cards(media: str = "image") -> tuple[ModelCard, ...]:
    """All cards of models of images, or of ``"video"``, sorted by identifier."""
    return tuple(_CARDS[key] for key in sorted(_CARDS) if _CARDS[key].media == media)


def card(model: str) -> ModelCard:
    """The card of a model.

    Raises:
        UnknownModelError: no such model in this release.
    """
    try:
        return _CARDS[model]
    except KeyError:
        known = ", ".join(sorted(_CARDS))
        raise UnknownModelError(
            f"unknown model {model!r}; this release knows {known}. A newer release may know more; "
            "for weights of your own, give the path of the file (--model)"
        ) from None
