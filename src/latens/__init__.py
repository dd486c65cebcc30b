"""Latens: learned image and video compression.

>>> import latens
>>> latens.save("photo.png", "photo.ltn", quality=50)  # doctest: +SKIP
>>> latens.open("photo.ltn").save("copy.png")  # doctest: +SKIP

:func:`latens.encode` and :func:`latens.decode` do the same with bytes.

Nothing heavy is imported before it is used: ``import latens`` does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from latens.errors import LatensError

if TYPE_CHECKING:
    __version__: str
    from latens.codec import decode, encode
    from latens.codec import open as open
    from latens.codec import save as save
    from latens.entropy_models import available_entropy_coders, get_entropy_coder, set_entropy_coder

__all__ = [
    "LatensError",
    "__version__",
    "available_entropy_coders",
    "decode",
    "encode",
    "get_entropy_coder",
    "set_entropy_coder",
]

# Not in __all__: a star import must not hide the built-in open.
_CODEC = ("decode", "encode", "open", "save")

_SUBMODULES = frozenset(
    [
        "ans",
        "codec",
        "compat",
        "datasets",
        "entropy_coding",
        "entropy_models",
        "errors",
        "export",
        "format",
        "inspect",
        "io",
        "latent_codecs",
        "layers",
        "losses",
        "metrics",
        "models",
        "ops",
        "pillow",
        "optimizers",
        "registry",
        "train",
        "transforms",
        "typing",
        "zoo",
    ]
)


def __getattr__(name: str) -> Any:
    if name in _CODEC:
        return getattr(import_module("latens.codec"), name)
    if name in ("available_entropy_coders", "get_entropy_coder", "set_entropy_coder"):
        return getattr(import_module("latens.entropy_models"), name)
    if name == "__version__":
        return import_module("importlib.metadata").version("latens")
    if name in _SUBMODULES:
        return import_module(f"latens.{name}")
    raise AttributeError(f"module 'latens' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_CODEC, *_SUBMODULES})
