"""What a model is at decoding time: integer networks, tables and orders, and one traversal for both directions.

No PyTorch: arrays are NumPy's, networks run natively. ``docs/entropy.md`` is normative for entropy models.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from latens.runtime.threads import set_threads, threads

if TYPE_CHECKING:
    from latens.runtime.entropy import LATENT_BITS, QUALITY_MAX, ExactEntropy
    from latens.runtime.layers import IntegerChain, IntegerLayer, Thresholds
    from latens.runtime.parts import Decoded, Group, IntegerTables, Level, Pass

_HOMES = {
    **dict.fromkeys(("LATENT_BITS", "QUALITY_MAX", "ExactEntropy"), "entropy"),
    **dict.fromkeys(("IntegerChain", "IntegerLayer", "Thresholds"), "layers"),
    **dict.fromkeys(("Decoded", "Group", "IntegerTables", "Level", "Pass"), "parts"),
}

__all__ = [
    "LATENT_BITS",
    "QUALITY_MAX",
    "Decoded",
    "ExactEntropy",
    "Group",
    "IntegerChain",
    "IntegerLayer",
    "IntegerTables",
    "Level",
    "Pass",
    "Thresholds",
    "set_threads",
    "threads",
]


def __getattr__(name: str) -> Any:
    # Late: what a quality means is known without NumPy.
    if name in _HOMES:
        return getattr(import_module(f"latens.runtime.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
