"""Models for ONNX Runtime: float networks as ONNX graphs, and what codes with them without PyTorch.

:func:`export` writes a folder (also ``model.export(folder)``), :class:`Runner` codes images with it. Tables are chosen
by :class:`latens.runtime.ExactEntropy`, as for files, so that both sides read each other's streams. See
``docs/tutorial/export.md``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from latens.export.runner import Runner

if TYPE_CHECKING:
    from latens.export.writer import export

__all__ = ["Runner", "export"]


def __getattr__(name: str) -> Any:
    # Whoever only runs a model needs neither PyTorch nor the package that writes graphs.
    if name == "export":
        return import_module("latens.export.writer").export
    raise AttributeError(f"module 'latens.export' has no attribute {name!r}")
