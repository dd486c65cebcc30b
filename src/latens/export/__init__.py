"""Models for ONNX Runtime: the networks as ONNX graphs, and what codes with them without PyTorch.

:func:`export` writes a folder (also ``model.export(folder)``), :class:`Runner` codes images with it. The graphs that
choose tables compute in the integers of ``docs/entropy.md``, so that both sides read each other's streams. See
``docs/tutorial/export.md``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from latens.export.runner import EntropyRunner, Latents, Pass, Runner

if TYPE_CHECKING:
    from latens.export.writer import export

__all__ = ["EntropyRunner", "Latents", "Pass", "Runner", "export"]


def __getattr__(name: str) -> Any:
    # Whoever only runs a model needs neither PyTorch nor the package that writes graphs.
    if name == "export":
        return import_module("latens.export.writer").export
    raise AttributeError(f"module 'latens.export' has no attribute {name!r}")
