"""Decoders that are not always installed."""

from __future__ import annotations

import importlib
from types import ModuleType

from latens.errors import ImageError

EXTRA = "pip install 'latens[formats]'"


def load_extra(module: str) -> ModuleType | None:
    """A package of the extra `formats`, or None."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def need_extra(module: str, what: str) -> ModuleType:
    """The same; ImageError that says what cannot be read without it, and what to do."""
    found = load_extra(module)
    if found is None:
        raise ImageError(f"{what} needs {module}, which is not installed: {EXTRA}")
    return found
