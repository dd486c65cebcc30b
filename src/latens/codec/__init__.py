"""The product: images to ``.ltn`` files and back."""

from latens.codec.image import ImageCodec, decode, encode

__all__ = ["ImageCodec", "decode", "encode"]
