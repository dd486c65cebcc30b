"""The bridge: trained PyTorch models to what the runtime decodes with, as pure integer functions of their weights."""

from latens import _research  # noqa: F401  (tells who lacks PyTorch)
from latens.convert.latens_base import freeze
from latens.convert.published import exact_entropy

__all__ = ["exact_entropy", "freeze"]
