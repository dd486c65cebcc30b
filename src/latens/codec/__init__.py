"""The product: images to ``.ltn`` files and back.

Each name loads what it needs when it is first used: a decoder needs no more than decoders do.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "ImageCodec": "image",
    "LosslessCodec": "lossless",
    "Metadata": "picture",
    "OpenedImage": "lazy",
    "Picture": "picture",
    "Target": "target",
    "decode": "shortcuts",
    "encode": "shortcuts",
    "open": "shortcuts",
    "save": "shortcuts",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"latens.codec.{_MODULES[name]}"), name)
