"""One entry per architecture of the published zoo, and the function that makes the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from latens.errors import ModelError, UnavailableError, UnknownModelError

if TYPE_CHECKING:
    from latens.models import CompressionModel

__all__ = [
    "ROOT_URL",
    "ModelEntry",
    "ModelFunction",
    "Row",
    "entries",
    "entry",
    "functions",
    "listing",
    "register_entry",
]

ROOT_URL = "https://compressai.s3.amazonaws.com/models/v1"


@dataclass(frozen=True)
class ModelEntry:
    """What is known of an architecture and of its published weights.

    Attributes:
        id: the name it goes by.
        architecture: class in :mod:`latens.models` (or ``latens.models.video``).
        sizes: constructor arguments for each quality, lowest rate first; ``{0: ...}`` if one model has all
            rates, or nobody has agreed on sizes per quality.
        paper: where it was published.
        metrics: what it may have been trained for.
        lmbda: for each metric, the weights of the distortion that the published weights were trained with, one
            per quality (for a model of all rates, those it covers); not there if unknown.
        weights: for each metric, the file of each quality below :data:`ROOT_URL`. Its name ends in the first
            eight digits of its SHA-256.
        licence: of the weights (SPDX).
        media: ``"image"`` or ``"video"``.
    """

    id: str
    architecture: str
    sizes: Mapping[int, tuple[int, ...]]
    paper: str
    metrics: tuple[str, ...] = ("mse", "ms-ssim")
    lmbda: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    weights: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    licence: str = "BSD-3-Clause-Clear"
    media: str = "image"

    @property
    def qualities(self) -> tuple[int, ...]:
        """Qualities to choose from; none if there is only one model."""
        return tuple(sorted(self.sizes)) if 0 not in self.sizes else ()

    def check(self, quality: int | None, metric: str) -> int:
        """The key of this quality in :attr:`sizes` and :attr:`weights`.

        Raises:
            ModelError: there is no such quality or metric.
        """
        if metric not in self.metrics:
            raise ModelError(f"{self.id}: expected metric {' or '.join(self.metrics)}, but got {metric!r}")
        if not self.qualities:
            return 0
        if quality not in self.qualities:
            low, high = self.qualities[0], self.qualities[-1]
            raise ModelError(f"{self.id}: expected a quality from {low} to {high}, but got {quality!r}")
        return quality

    def url(self, quality: int | None = None, metric: str = "mse") -> str:
        """Where the published weights are.

        Raises:
            ModelError: there is no such quality or metric.
            UnavailableError: no weights were published.
        """
        files = self.weights.get(metric, {})
        key = self.check(quality, metric)
        if key not in files:
            raise UnavailableError(f"{self.id}: no weights were published for metric {metric}")
        return f"{ROOT_URL}/{files[key]}"

    def model_class(self) -> type[CompressionModel]:
        """The class of the model.

        Raises:
            UnavailableError: this release does not have it yet.
        """
        for module in ("latens.models", "latens.models.video"):
            try:
                found: type[CompressionModel] = getattr(import_module(module), self.architecture)
            except (ModuleNotFoundError, AttributeError):
                continue
            return found
        raise UnavailableError(
            f"{self.id}: this release of Latens does not have {self.architecture} yet; a newer one may"
        )


class ModelFunction(Protocol):
    """Makes a model of the zoo."""

    __name__: str

    def __call__(
        self,
        quality: int | None = None,
        metric: str = "mse",
        pretrained: bool = False,
        progress: bool = True,
        **kwargs: Any,
    ) -> CompressionModel:
        """Make the model, with random weights or with the published ones.

        Args:
            quality: see the entry; no matter for models of all rates.
            metric: ``"mse"`` or ``"ms-ssim"``, what the weights were trained for.
            pretrained: download the published weights, once, and load them.
            progress: show the progress of the download on standard error.
            kwargs: for the constructor of the class, without ``pretrained``.

        Raises:
            ModelError: there is no such quality, metric or constructor argument.
            UnavailableError: no weights were published, or this release does not have the class.
            DownloadError: the weights cannot be downloaded.
        """


_ENTRIES: dict[str, ModelEntry] = {}
_FUNCTIONS: dict[str, ModelFunction] = {}


def register_entry(describe: Callable[[], ModelEntry]) -> ModelFunction:
    """Add the entry that the decorated function returns; what takes its place makes the model.

    Raises:
        ModelError: the name is taken.
    """
    new = describe()
    if new.id in _ENTRIES:
        raise ModelError(f"model {new.id!r} is registered twice")
    _ENTRIES[new.id] = new

    def make(
        quality: int | None = None,
        metric: str = "mse",
        pretrained: bool = False,
        progress: bool = True,
        **kwargs: Any,
    ) -> CompressionModel:
        return _load_model(new.id, metric, quality, pretrained, progress, **kwargs)

    make.__name__ = make.__qualname__ = describe.__name__
    make.__module__ = describe.__module__
    make.__doc__ = f"{describe.__doc__}\n\n    See :class:`latens.zoo.architectures.ModelFunction`.\n    "
    _FUNCTIONS[new.id] = make
    return make


def functions(media: str) -> dict[str, ModelFunction]:
    """The functions that make the models of images or of video, by name."""
    return {known.id: _FUNCTIONS[known.id] for known in entries() if known.media == media}


def dictionary(name: str, media: str) -> dict[str, Any]:
    """What scripts written for CompressAI look into: a value for each model of images or of video, by id.

    Args:
        name: ``"model_architectures"`` (the classes), ``"model_urls"`` (by metric and quality; by metric alone where
            there is one model) or ``"cfgs"`` (constructor arguments by quality).
        media: ``"image"`` or ``"video"``.

    Raises:
        AttributeError: another name.
    """
    found: dict[str, Any] = {}
    for known in entries():
        if known.media != media:
            continue
        if name == "model_architectures":
            found[known.id] = known.model_class()
        elif name == "cfgs":
            found[known.id] = dict(known.sizes)
        elif name != "model_urls":
            raise AttributeError(f"there is no dictionary of models called {name!r}")
        elif known.weights:
            urls = {
                metric: {q: known.url(q, metric) for q in files} for metric, files in known.weights.items()
            }
            found[known.id] = urls if known.qualities else {metric: by[0] for metric, by in urls.items()}
    return found


def attribute(name: str, media: str) -> Any:
    """What scripts written for CompressAI find in its modules of images or of video: a :func:`dictionary`, or a class.

    Raises:
        AttributeError: another name.
    """
    for known in entries():
        if known.media == media and known.architecture == name:
            return known.model_class()
    return dictionary(name, media)


def entries() -> tuple[ModelEntry, ...]:
    """All entries, sorted by name."""
    for module in ("image", "video"):
        import_module(f"latens.zoo.{module}")  # registers its own
    return tuple(_ENTRIES[key] for key in sorted(_ENTRIES))


def entry(model: str) -> ModelEntry:
    """The entry of this name.

    Raises:
        UnknownModelError: there is none.
    """
    known = {found.id: found for found in entries()}
    if model not in known:
        raise UnknownModelError(f"unknown model {model!r}; there are {', '.join(known)}")
    return known[model]


def _load_model(
    architecture: str,
    metric: str,
    quality: int | None,
    pretrained: bool = False,
    progress: bool = True,
    **kwargs: Any,
) -> CompressionModel:
    known = entry(architecture)
    size = known.sizes[known.check(quality, metric)]
    model_class: Any = known.model_class()
    if not pretrained:
        return cast("CompressionModel", model_class(*size, **kwargs))
    if kwargs:
        raise ModelError(f"{architecture}: published weights leave no choice of {', '.join(kwargs)}")
    from latens.zoo.download import fetch
    from latens.zoo.pretrained import load_pretrained, read_checkpoint

    weights = read_checkpoint(fetch(known.url(quality, metric), progress=progress))
    return cast("CompressionModel", model_class.from_state_dict(load_pretrained(weights)))


@dataclass(frozen=True)
class Row:
    """One line of :func:`listing`: an architecture in one size.

    Attributes:
        name: of the entry.
        qualities: those that have this size; empty for a model of all rates, or without published weights.
        metrics: what there are published weights for.
        parameters: number of trained values; None if this release does not have the class.
        mac_per_pixel: multiply-accumulate operations per pixel of (encoding, decoding); None likewise.
        source: address of the published weights, or an empty string.
        licence: of the weights (SPDX).
        paper: where the architecture was published.
    """

    name: str
    qualities: tuple[int, ...]
    metrics: tuple[str, ...]
    parameters: int | None
    mac_per_pixel: tuple[int, int] | None
    source: str
    licence: str
    paper: str


def listing() -> list[Row]:
    """All architectures of the zoo in all their sizes, with what they cost. Loads torch, downloads nothing."""
    import torch

    from latens.zoo.complexity import count

    rows = []
    for known in entries():
        for size in dict.fromkeys(known.sizes.values()):
            try:
                model_class: Any = known.model_class()
                with torch.device("meta"):
                    cost = count(model_class(*size))
            except UnavailableError:
                cost = None
            rows.append(
                Row(
                    name=known.id,
                    qualities=tuple(q for q in known.qualities if known.sizes[q] == size),
                    metrics=tuple(known.weights),
                    parameters=cost.parameters if cost else None,
                    mac_per_pixel=(round(cost.encoding), round(cost.decoding)) if cost else None,
                    source=f"{ROOT_URL}/" if known.weights else "",
                    licence=known.licence,
                    paper=known.paper,
                )
            )
    return rows
