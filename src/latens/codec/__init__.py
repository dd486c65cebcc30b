"""The product: images to ``.ltn`` files and back."""

from latens.codec.image import ImageCodec
from latens.codec.lazy import OpenedImage
from latens.codec.lossless import LosslessCodec
from latens.codec.picture import Metadata, Picture
from latens.codec.shortcuts import decode, encode, open, save
from latens.codec.target import Target

__all__ = [
    "ImageCodec",
    "LosslessCodec",
    "Metadata",
    "OpenedImage",
    "Picture",
    "Target",
    "decode",
    "encode",
    "open",
    "save",
]
