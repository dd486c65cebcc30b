"""``.ltn`` files for Pillow, and for everything that opens pictures with it.

>>> import latens.pillow
>>> from PIL import Image
>>> Image.registered_extensions()[".ltn"]
'LTN'

After the import ``Image.open`` reads ``.ltn`` files, and ``image.save("photo.ltn", quality=50)`` writes them. Pillow
has no way to find plug-ins by itself: the program, or a module that it imports anyway, has to import this one.
"""

from __future__ import annotations

from PIL import Image

from latens.codec.lazy import LtnImageFile, save

__all__ = ["LtnImageFile", "register"]


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(b"LTN")


def register() -> None:
    """Tell Pillow of ``.ltn`` files; importing this module has done it."""
    Image.register_open(LtnImageFile.format, LtnImageFile, _accept)
    Image.register_save(LtnImageFile.format, save)
    Image.register_extension(LtnImageFile.format, ".ltn")
    Image.register_mime(LtnImageFile.format, "image/x-ltn")


register()
