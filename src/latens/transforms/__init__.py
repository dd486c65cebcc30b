"""Colour and chroma transforms of tensors, as functions and as callable objects."""

from latens import _research  # noqa: F401  (tells who lacks PyTorch)
from latens.transforms import functional
from latens.transforms.transforms import RGB2YCbCr, YCbCr2RGB, YUV420To444, YUV444To420

__all__ = ["RGB2YCbCr", "YCbCr2RGB", "YUV420To444", "YUV444To420", "functional"]
