"""What a model is at decoding time: integer networks, tables and orders, and one traversal for both directions.

No PyTorch: arrays are NumPy's, networks run natively. ``docs/entropy.md`` is normative for entropy models.
"""

from latens.runtime.entropy import LATENT_BITS, QUALITY_MAX, ExactEntropy
from latens.runtime.layers import IntegerChain, IntegerLayer, Thresholds
from latens.runtime.parts import Decoded, Group, IntegerTables, Level, Pass
from latens.runtime.threads import set_threads, threads

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
