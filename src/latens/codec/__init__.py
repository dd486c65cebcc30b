"""The product: images to ``.ltn`` files and back."""

from latens.codec.image import ImageCodec, decode, encode
from latens.codec.target import Target

__all__ = ["ImageCodec", "Target", "decode", "encode"]
