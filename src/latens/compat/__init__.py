"""Code written for CompressAI 1.2.8 runs unchanged.

>>> import latens.compat
>>> latens.compat.install()
>>> from compressai.models import MeanScaleHyperprior  # of Latens

``compressai`` and its sub-modules are then found in Latens, each when it is first imported. They are the modules of
Latens themselves, so that a class is the same under both names. ``compressai.__version__`` is the release whose
interface this is, not the version of Latens.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any

from latens import registry
from latens.errors import LatensError, OutOfScopeError, UnavailableError

__all__ = ["COMPRESSAI_VERSION", "install", "uninstall"]

COMPRESSAI_VERSION = "1.2.8"

_ROOT = "compressai"

# Modules that Latens has elsewhere. All others have their name in common.
_ELSEWHERE = {
    "entropy_models.entropy_models_vbr": "entropy_models",
    "latent_codecs.entropy_bottleneck": "latent_codecs",
    "latent_codecs.gain": "latent_codecs",
    "latent_codecs.gain.hyper": "latent_codecs",
    "latent_codecs.gain.hyperprior": "latent_codecs",
    "latent_codecs.gaussian_conditional": "latent_codecs",
    "latent_codecs.hyper": "latent_codecs",
    "optimizers.net": "optimizers",
    "optimizers.net_aux": "optimizers",
    "registry.torch": "registry",
    "registry.torchvision": "registry",
    "registry.transforms": "registry",
    "typing.torch": "typing",
    "utils": "compat.utils",
    "utils.bench.codecs": "compat.utils.codecs",
    "utils.video": "compat.utils",
    "utils.video.bench.codecs": "compat.utils.video_codecs",
    "zoo.image_vbr": "zoo.image",
}

for _tool in ("bench", "eval_model", "find_close", "plot", "update_model"):
    _ELSEWHERE[f"utils.{_tool}"] = _ELSEWHERE[f"utils.{_tool}.__main__"] = f"compat.utils.{_tool}"
for _tool in ("bench", "eval_model", "plot"):
    _ELSEWHERE[f"utils.video.{_tool}"] = f"compat.utils.video_{_tool}"
    _ELSEWHERE[f"utils.video.{_tool}.__main__"] = f"compat.utils.video_{_tool}"

_OUT_OF_SCOPE = {
    "point clouds": (
        "datasets.pointcloud",
        "datasets.utils",
        "layers.pointcloud",
        "losses.pointcloud",
        "losses.utils",
        "models.pointcloud",
        "transforms.point",
        "zoo.pointcloud",
    ),
    "export to SADL": ("sadl_codec",),
}

_POINT_CLOUDS = {
    "datasets": "ModelNetDataset S3disDataset SemanticKittiDataset ShapeNetCorePartDataset",
    "losses": "ChamferPccRateDistortionLoss RateDistortionLoss_hrtzxf2022 chamfer_distance",
    "models": "DensityPreservingReconstructionPccModel PointNet2SsgReconstructionPccModel "
    "PointNetReconstructionPccModel",
    "transforms": "GeneratePositionNormals NormalizeScaleV2 RandomPermutation RandomRotateFull RandomSample "
    "SamplePointsV2 ToDict",
    "zoo": "pointcloud_models",
}
"""Names within packages that Latens has otherwise."""

_TOP_LEVEL = ("available_entropy_coders", "get_entropy_coder", "set_entropy_coder")


def install() -> None:
    """Make ``import compressai`` find Latens, from now on in this process. A second call does nothing.

    A name that code registers a second time (:mod:`latens.registry`) then replaces the first with a warning, instead of
    being an error.

    Raises:
        LatensError: CompressAI itself is imported already; its classes and those of Latens would get mixed up.
    """
    if _finder in sys.meta_path:
        return
    loaded = sys.modules.get(_ROOT)
    if loaded is not None:
        raise LatensError(
            f"CompressAI is imported already, from {getattr(loaded, '__file__', 'somewhere')}; call "
            "latens.compat.install() before anything imports it"
        )
    sys.meta_path.insert(0, _finder)
    registry._replace_duplicates = True


def uninstall() -> None:
    """Undo :func:`install`. What was imported meanwhile goes on working where it is held."""
    registry._replace_duplicates = False
    if _finder not in sys.meta_path:
        return
    if hasattr(convolution := _masked_convolution(), "__prepare_scriptable__"):
        del convolution.__prepare_scriptable__
    sys.meta_path.remove(_finder)
    for name in [name for name in sys.modules if f"{name}.".startswith(f"{_ROOT}.")]:
        missing = vars(sys.modules.pop(name)).get("__getattr__")
        if isinstance(missing, _Missing):
            missing.remove()


def _masked_convolution() -> Any:
    """The class, or None before it was imported."""
    return getattr(sys.modules.get("latens.layers"), "MaskedConv2d", None)


def _refuse_scripting(convolution: object) -> None:
    # TorchScript calls this first. It is of use to nobody but those who run CompressAI's own tests.
    raise UnavailableError(
        f"{type(convolution).__name__} cannot be scripted, as in CompressAI; call latens.compat.uninstall() first"
    )


class _Package(ModuleType):
    """A package of CompressAI's that is none in Latens; its attributes are those of a module of Latens."""

    def __init__(self, name: str, target: ModuleType) -> None:
        super().__init__(name, target.__doc__)
        self.__path__: list[str] = []
        self._target = target

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def __dir__(self) -> list[str]:
        return dir(self._target)


class _TopLevel(ModuleType):
    """``compressai`` itself: sub-modules on demand, and what little else it has."""

    def __init__(self) -> None:
        super().__init__(_ROOT, __doc__)
        self.__path__: list[str] = []
        self.__version__ = COMPRESSAI_VERSION
        self.__all__ = [
            *("datasets", "entropy_models", "latent_codecs", "layers", "losses", "models", "ops"),
            *("optimizers", "registry", "transforms", "typing", "utils", "zoo"),
            *_TOP_LEVEL,
        ]

    def __getattr__(self, name: str) -> Any:
        if name in _TOP_LEVEL:
            return getattr(import_module("latens.entropy_models"), name)
        if name.startswith("__"):
            raise AttributeError(f"module {_ROOT!r} has no attribute {name!r}")
        try:
            return import_module(f"{_ROOT}.{name}")
        except ModuleNotFoundError as error:
            raise AttributeError(f"module {_ROOT!r} has no attribute {name!r}") from error


class _Missing:
    """``__getattr__`` of a package that Latens has only a part of."""

    def __init__(self, module: ModuleType, name: str) -> None:
        self.module, self.name = module, name
        self.before = vars(module).get("__getattr__")

    def __call__(self, attribute: str) -> Any:
        if attribute in _POINT_CLOUDS[self.name].split():
            raise OutOfScopeError(
                f"{_ROOT}.{self.name}.{attribute}: Latens does not have point clouds; it is out of its scope"
            )
        if self.before is not None:
            return self.before(attribute)
        raise AttributeError(f"module {self.module.__name__!r} has no attribute {attribute!r}")

    def remove(self) -> None:
        if self.before is None:
            del self.module.__dict__["__getattr__"]
        else:
            self.module.__dict__["__getattr__"] = self.before


class _Loader(Loader):
    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.spec = module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def get_code(self, fullname: str) -> CodeType | None:
        """For ``python -m``, which runs a module anew."""
        if isinstance(self.module, _Package) or self.spec is None:
            return None
        loader: Any = self.spec.loader
        code: CodeType | None = loader.get_code(self.spec.name)
        return code

    def exec_module(self, module: ModuleType) -> None:
        # A module of Latens was run under its own name. The import system has just written the other one into it.
        if self.spec is not None:
            module.__spec__ = self.spec


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        root, _, name = fullname.partition(".")
        if root != _ROOT:
            return None
        module = _find(name)
        origin = getattr(module, "__file__", None)
        return ModuleSpec(fullname, _Loader(module), origin=origin, is_package=hasattr(module, "__path__"))


def _find(name: str) -> ModuleType:
    """What ``compressai.<name>`` is.

    Raises:
        OutOfScopeError: nothing in Latens, on purpose.
        ModuleNotFoundError: nothing in Latens.
    """
    if not name:
        return _TopLevel()
    if name == "version":
        version = ModuleType(f"{_ROOT}.version")
        version.__dict__["__version__"] = COMPRESSAI_VERSION
        return version
    for what, modules in _OUT_OF_SCOPE.items():
        if any(f"{name}.".startswith(f"{module}.") for module in modules):
            raise OutOfScopeError(f"{_ROOT}.{name}: Latens does not have {what}; it is out of its scope")
    ours = f"latens.{_ELSEWHERE.get(name, name)}"
    try:
        module = import_module(ours)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{ours}.".startswith(f"{error.name}."):
            raise
        raise ModuleNotFoundError(
            f"{_ROOT}.{name}: Latens has no such module", name=f"{_ROOT}.{name}"
        ) from error
    if name == "layers":
        _masked_convolution().__prepare_scriptable__ = _refuse_scripting
    if name in _POINT_CLOUDS and not isinstance(vars(module).get("__getattr__"), _Missing):
        module.__dict__["__getattr__"] = _Missing(module, name)
    is_package = hasattr(module, "__path__") and _ELSEWHERE.get(name, name) == name
    if not is_package and any(other.startswith(f"{name}.") for other in _ELSEWHERE):
        return _Package(f"{_ROOT}.{name}", module)
    return module


_finder = _Finder()
