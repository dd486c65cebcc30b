"""Colour and chroma transforms of tensors, as functions and as callable objects."""

from latens.transforms import functional
from latens.transforms.transforms import RGB2YCbCr, YCbCr2RGB, YUV420To444, YUV444To420

__all__ = ["RGB2YCbCr", "YCbCr2RGB", "YUV420To444", "YUV444To420", "functional"]
