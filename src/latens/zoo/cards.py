"""One card per released set of weights; the identifier is for ever, and so are the bytes behind it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from latens.errors import ModelError, UnavailableError, UnknownModelError
from latens.io import printable

__all__ = [
    "DEFAULT_MODEL",
    "DEFAULT_VIDEO_MODEL",
    "WEIGHTS_URL",
    "ModelCard",
    "card",
    "cards",
    "register_card",
    "tune_of",
    "tuned",
    "unreleased",
]

DEFAULT_MODEL = "latens-eye-1"
DEFAULT_VIDEO_MODEL = "latens-video-6"

WEIGHTS_URL = "https://github.com/latens/latens/releases/download/weights"
"""Where every release puts its weights, for ever; tools/check_weights.py must find them there before it goes out."""


@dataclass(frozen=True)
class ModelCard:
    """What a released model is.

    Attributes:
        id: the name that files carry.
        summary: one sentence.
        file: weights inside the package, if this release has them there.
        sha256: of that file.
        licence: of the weights (SPDX).
        papers: what the architecture builds on.
        training: data and time spent.
        parameters: number of parameters.
        mac_per_pixel: multiply-accumulate operations per pixel of (encoding, decoding).
        quality_range: bits per pixel at quality 0 and 100: of images on the Kodak set, of video on ``range_of``.
        media: ``"image"`` or ``"video"``.
        range_of: what the range was measured on.
        tune: what it was trained for: ``"eye"`` or ``"psnr"``.
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
    tune: str = "psnr"

    @property
    def path(self) -> Path:
        """Where the weights are."""
        return Path(str(resources.files("latens.zoo").joinpath("data", self.file)))

    @property
    def url(self) -> str:
        """Where the weights can be had when they are not in the package. Its name ends in digits of their hash."""
        return f"{WEIGHTS_URL}/{self.id}-{self.sha256[:8]}.safetensors"


_CARDS: dict[str, ModelCard] = {}
_UNRELEASED: dict[str, str] = {}


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


def unreleased(sets: Mapping[str, str]) -> None:
    """Name sets of weights from before the first release, by their SHA-256: they are known, but nobody keeps them."""
    _UNRELEASED.update(sets)


def cards(media: str = "image") -> tuple[ModelCard, ...]:
    """All cards of models of images, or of ``"video"``, sorted by identifier."""
    return tuple(_CARDS[key] for key in sorted(_CARDS) if _CARDS[key].media == media)


def card(model: str) -> ModelCard:
    """The card of a model.

    Raises:
        UnknownModelError: no such model in this release.
        UnavailableError: a set of weights from before the first release.
    """
    if model not in _CARDS:
        raise _unknown(model)
    return _CARDS[model]


def tuned(tune: str, media: str = "image") -> str:
    """The newest model of this release that was trained for something.

    Args:
        tune: ``"eye"`` or ``"psnr"``.
        media: ``"image"`` or ``"video"``.

    Raises:
        UnknownModelError: there is none.
    """
    known = cards(media)
    found = [one for one in known if one.tune == tune]
    if not found:
        tunes = sorted({one.tune for one in known})
        raise UnknownModelError(
            f"no {media} model of this release is tuned for {printable(repr(tune))[:80]}; there are {', '.join(tunes)}"
        )
    return max(found, key=lambda one: _order(one.id)).id


def tune_of(model: str) -> str:
    """What a model was trained for, by its identifier; PSNR if this release does not know it."""
    return _CARDS[model].tune if model in _CARDS else "psnr"


def _order(model: str) -> tuple[int, str]:
    """Numbers of sets count as numbers: 10 comes after 9."""
    number = re.search(r"\d+$", model)
    return int(number[0]) if number else 0, model


def digest(model: str) -> str | None:
    """The SHA-256 of a set of weights, 64 hex digits, if it is known."""
    return _CARDS[model].sha256 if model in _CARDS else _UNRELEASED.get(model)


_SET = re.compile(r"(latens-[a-z]+-)([1-9][0-9]{0,5})")
_FOLDER = "--weights-dir (or LATENS_WEIGHTS_DIR) takes a folder that has"


def _unknown(model: str) -> ModelError:
    """Why there is no card, and what to do about it."""
    shown = printable(model)[:80]
    if model in _UNRELEASED:
        return UnavailableError(
            f"{shown} is a set of weights from before the first release, which nobody keeps: use the version of Latens "
            f"that made the file; {_FOLDER} {model}.safetensors (SHA-256 {_UNRELEASED[model]})"
        )
    known = f"unknown model {shown!r}; this release knows {', '.join(sorted(_CARDS))}"
    if (found := _SET.fullmatch(model)) is not None:
        numbers = [int(other[2]) for key in _CARDS if (other := _SET.fullmatch(key)) and other[1] == found[1]]
        if numbers and int(found[2]) > max(numbers):
            return UnknownModelError(f"{known}. It is newer than this release: update Latens")
    return UnknownModelError(
        f"{known}. If these are weights of your own, give the file with --model; {_FOLDER} {shown}.safetensors"
    )
