"""Models, layers, losses, data sets, optimisers, schedulers and transforms by name.

Configuration files speak of classes by name; these dictionaries translate. What comes with the library is in
them from the start (imported when a dictionary is first asked for), and the ``register_*`` decorators add more:

>>> from latens.registry import MODELS, register_model
>>> @register_model("my-model")
... class MyModel(CompressionModel): ...  # doctest: +SKIP
>>> MODELS["mbt2018-mean"]  # doctest: +SKIP
<class 'latens.models.google.MeanScaleHyperprior'>
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from latens.errors import RegistryError

if TYPE_CHECKING:
    from latens.typing import TCriterion, TDataset, TModel, TModule, TOptimizer, TScheduler, TTransform

    CRITERIONS: dict[str, Callable[..., TCriterion]]
    DATASETS: dict[str, Callable[..., TDataset[Any]]]
    MODELS: dict[str, Callable[..., TModel]]
    MODULES: dict[str, Callable[..., TModule]]
    OPTIMIZERS: dict[str, Callable[..., TOptimizer]]
    SCHEDULERS: dict[str, Callable[..., TScheduler]]
    TRANSFORMS: dict[str, Callable[..., TTransform]]

__all__ = [
    "CRITERIONS",
    "DATASETS",
    "MODELS",
    "MODULES",
    "OPTIMIZERS",
    "SCHEDULERS",
    "TRANSFORMS",
    "register_criterion",
    "register_dataset",
    "register_model",
    "register_module",
    "register_optimizer",
    "register_scheduler",
    "register_transform",
]

T = TypeVar("T", bound=Callable[..., Any])

# What comes with the library, as strings, so that this module depends on none of it and loads none of it.
_BUILT_IN: dict[str, dict[str, str]] = {
    "CRITERIONS": {"RateDistortionLoss": "latens.losses:RateDistortionLoss"},
    "DATASETS": {
        "ImageFolder": "latens.datasets:ImageFolder",
        "PreGeneratedMemmapDataset": "latens.datasets:PreGeneratedMemmapDataset",
        "VideoFolder": "latens.datasets:VideoFolder",
        "Vimeo90kDataset": "latens.datasets:Vimeo90kDataset",
    },
    "MODELS": {
        "bmshj2018-factorized": "latens.models:FactorizedPrior",
        "bmshj2018-factorized-relu": "latens.models:FactorizedPriorReLU",
        "bmshj2018-hyperprior": "latens.models:ScaleHyperprior",
        "bmshj2018-hyperprior-vbr": "latens.models:ScaleHyperpriorVbr",
        "cca": "latens.models:CCA",
        "cheng2020-anchor": "latens.models:Cheng2020Anchor",
        "cheng2020-anchor-checkerboard": "latens.models:Cheng2020AnchorCheckerboard",
        "cheng2020-attn": "latens.models:Cheng2020Attention",
        "cheng2020-gmm": "latens.models:Cheng2020GMM",
        "dcae": "latens.models:DCAE",
        "dcvc-rt": "latens.models.video:DCVCRT",
        "dcvc-rt-intra": "latens.models.video:DCVCRTIntra",
        "elic2022-chandelier": "latens.models:Elic2022Chandelier",
        "elic2022-official": "latens.models:Elic2022Official",
        "hpcm": "latens.models:HPCM",
        "hpcm-large": "latens.models:HPCMLarge",
        "lalic": "latens.models:LALIC",
        "mbt2018": "latens.models:JointAutoregressiveHierarchicalPriors",
        "mbt2018-mean": "latens.models:MeanScaleHyperprior",
        "mbt2018-mean-vbr": "latens.models:MeanScaleHyperpriorVbr",
        "mbt2018-vbr": "latens.models:JointAutoregressiveHierarchicalPriorsVbr",
        "mlic++": "latens.models:MLICPlusPlus",
        "stf": "latens.models:SymmetricalTransFormer",
        "tcm": "latens.models:TCM",
        "wacnn": "latens.models:WACNN",
        "ssf2020": "latens.models.video:ScaleSpaceFlow",
    },
    "MODULES": {
        "ChannelGroupsLatentCodec": "latens.latent_codecs:ChannelGroupsLatentCodec",
        "CheckerboardLatentCodec": "latens.latent_codecs:CheckerboardLatentCodec",
        "EntropyBottleneckLatentCodec": "latens.latent_codecs:EntropyBottleneckLatentCodec",
        "GainHyperLatentCodec": "latens.latent_codecs:GainHyperLatentCodec",
        "GainHyperpriorLatentCodec": "latens.latent_codecs:GainHyperpriorLatentCodec",
        "GaussianConditionalLatentCodec": "latens.latent_codecs:GaussianConditionalLatentCodec",
        "HyperLatentCodec": "latens.latent_codecs:HyperLatentCodec",
        "HyperpriorLatentCodec": "latens.latent_codecs:HyperpriorLatentCodec",
        "RasterScanLatentCodec": "latens.latent_codecs:RasterScanLatentCodec",
    },
    "OPTIMIZERS": {
        "net": "latens.optimizers:net_optimizer",
        "net_aux": "latens.optimizers:net_aux_optimizer",
    },
    "SCHEDULERS": {},
    "TRANSFORMS": {
        "RGB2YCbCr": "latens.transforms:RGB2YCbCr",
        "YCbCr2RGB": "latens.transforms:YCbCr2RGB",
        "YUV420To444": "latens.transforms:YUV420To444",
        "YUV444To420": "latens.transforms:YUV444To420",
    },
}

# Everything of these modules that is public and derives from the class named is registered, too.
_BORROWED = {
    "OPTIMIZERS": ("torch.optim", "torch.optim:Optimizer"),
    "SCHEDULERS": ("torch.optim.lr_scheduler", "torch.optim.lr_scheduler:LRScheduler"),
    "TRANSFORMS": ("torchvision.transforms", "builtins:object"),
}

_registries: dict[str, dict[str, Callable[..., Any]]] = {}

# While code written for CompressAI runs, where a second registration silently replaces the first.
_replace_duplicates = False


def _registry(kind: str) -> dict[str, Callable[..., Any]]:
    """The registry of this name, filled with what comes with the library when first asked for."""
    if kind not in _registries:
        entries = _borrowed(*_BORROWED[kind]) if kind in _BORROWED else {}
        ours = {name: _named(path) for name, path in _BUILT_IN[kind].items()}
        # Some names are agreed upon before there is a class for them.
        _registries[kind] = entries | {name: value for name, value in ours.items() if value is not None}
    return _registries[kind]


def _borrowed(module: str, base: str) -> dict[str, Callable[..., Any]]:
    source = _module(module)
    if source is None:
        return {}
    return {
        name: value
        for name, value in vars(source).items()
        if name[0].isupper() and isinstance(value, type) and issubclass(value, _named(base))
    }


def _module(name: str) -> ModuleType | None:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        return None


def _named(path: str) -> Any:
    module, name = path.split(":")
    return getattr(_module(module), name, None)


def __getattr__(name: str) -> Any:
    if name in _BUILT_IN:
        return _registry(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _decorator(kind: str, name: str) -> Callable[[T], T]:
    def register(new: T) -> T:
        entries = _registry(kind)
        old = entries.get(name, new)
        # A definition that is run once more (a notebook cell, a reloaded module) is no conflict.
        if old is not new and _origin(old) != _origin(new):
            taken = f"{name!r} is registered in {kind} already, for {'.'.join(_origin(old))}"
            if not _replace_duplicates:
                raise RegistryError(f"{taken}; choose another name for {'.'.join(_origin(new))}")
            warnings.warn(f"{taken}, which {'.'.join(_origin(new))} replaces", stacklevel=2)
        entries[name] = new
        return new

    return register


def _origin(thing: Any) -> tuple[str, str]:
    return getattr(thing, "__module__", "?"), getattr(thing, "__qualname__", repr(thing))


def register_criterion(name: str) -> Callable[[T], T]:
    """Decorator that adds a loss to ``CRITERIONS``.

    Raises:
        RegistryError: the name is taken by another class.
    """
    return _decorator("CRITERIONS", name)


def register_dataset(name: str) -> Callable[[T], T]:
    """Decorator that adds a data set to ``DATASETS``; see :func:`register_criterion`."""
    return _decorator("DATASETS", name)


def register_model(name: str) -> Callable[[T], T]:
    """Decorator that adds a compression model to ``MODELS``; see :func:`register_criterion`."""
    return _decorator("MODELS", name)


def register_module(name: str) -> Callable[[T], T]:
    """Decorator that adds a part of models to ``MODULES``; see :func:`register_criterion`."""
    return _decorator("MODULES", name)


def register_optimizer(name: str) -> Callable[[T], T]:
    """Decorator that adds an optimiser to ``OPTIMIZERS``, which has those of torch; see
    :func:`register_criterion`."""
    return _decorator("OPTIMIZERS", name)


def register_scheduler(name: str) -> Callable[[T], T]:
    """Decorator that adds a scheduler to ``SCHEDULERS``, which has those of torch; see
    :func:`register_criterion`."""
    return _decorator("SCHEDULERS", name)


def register_transform(name: str) -> Callable[[T], T]:
    """Decorator that adds a transform to ``TRANSFORMS``, which has those of torchvision if that is installed;
    see :func:`register_criterion`."""
    return _decorator("TRANSFORMS", name)
