"""Elementary operations: bounded gradients, reparametrisation, rounding, padding."""

from latens import _research  # noqa: F401  (tells who lacks PyTorch)
from latens.ops.bound_ops import LowerBound, lower_bound
from latens.ops.ops import compute_padding, quantize_ste, ste_round
from latens.ops.parametrizers import NonNegativeParametrizer

__all__ = [
    "LowerBound",
    "NonNegativeParametrizer",
    "compute_padding",
    "lower_bound",
    "quantize_ste",
    "ste_round",
]
