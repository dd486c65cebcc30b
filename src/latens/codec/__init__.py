"""The product: images to ``.ltn`` files and back."""

from latens.codec.image import ImageCodec
from latens.codec.lossless import LosslessCodec
from latens.codec.shortcuts import decode, encode, open, save
from latens.codec.target import Target

__all__ = ["ImageCodec", "LosslessCodec", "Target", "decode", "encode", "open", "save"]
