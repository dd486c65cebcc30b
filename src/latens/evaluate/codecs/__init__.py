"""Codecs behind one face: adapters in a registry."""

from latens.evaluate.codecs import learned, pillow, programs  # noqa: F401  (they register themselves)
from latens.evaluate.codecs.base import (
    Codec,
    Dial,
    Pixels,
    codec_names,
    make_codec,
    register_codec,
    register_family,
)

__all__ = ["Codec", "Dial", "Pixels", "codec_names", "make_codec", "register_codec", "register_family"]
