"""libltn, built and called through ctypes, for the tests."""

import ctypes
import os
import shutil
import subprocess
from ctypes import (
    POINTER,
    byref,
    c_char,
    c_char_p,
    c_double,
    c_int,
    c_size_t,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from latens import format as ltn
from latens.errors import (
    ChecksumError,
    CoderError,
    FormatError,
    LatensError,
    LimitError,
    ModelError,
    TableError,
    TruncatedError,
    VersionError,
    WrongWeightsError,
)
from latens.io import Image

ROOT = Path(__file__).parents[2]

# Codes of ltn.h that stand for errors of the Python side, the narrowest first.
CODES: dict[type[LatensError], set[int]] = {
    TruncatedError: {3},
    VersionError: {4},
    ChecksumError: {5},
    LimitError: {6},
    FormatError: {2, 7},
    CoderError: {8},
    WrongWeightsError: {10},
    ModelError: {9},
    TableError: {9},
}


class Header(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        *((name, c_uint32) for name in ("width", "height", "channels", "bit_depth", "lossless", "near")),
        *((name, c_uint32) for name in ("alpha", "quality", "tile_size", "tiles")),
        ("colour", c_uint8 * 4),
        ("density", c_uint32 * 4),
        ("density_unit", c_uint32),
        ("model", c_char * 68),
        ("entropy_id", c_char * 12),
        ("weights_id", c_char * 12),
    )


class Error(ctypes.Structure):
    _fields_ = (("code", c_int), ("message", c_char * 252))


class Limits(ctypes.Structure):
    _fields_ = (("struct_size", c_size_t), ("max_pixels", c_uint64), ("max_memory", c_uint64))


class Source(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        *((name, c_uint32) for name in ("width", "height", "channels", "bit_depth")),
        ("pixels", c_void_p),
        ("pitch", c_size_t),
        ("alpha", c_void_p),
        ("alpha_pitch", c_size_t),
        *((name, c_char_p) for name in ("icc", "exif", "xmp")),
        *((f"{name}_size", c_size_t) for name in ("icc", "exif", "xmp")),
        ("colour", c_uint8 * 4),
        ("density", c_uint32 * 4),
        ("density_unit", c_uint32),
    )


class LibraryError(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


def build(folder: Path, *options: str) -> Path:
    """The folder that libltn is built in; what is up to date stays as it is."""
    cmake = shutil.which("cmake", path=f"{Path(os.sys.executable).parent}:{os.environ['PATH']}")
    assert cmake is not None
    for command in (
        [cmake, "-S", ROOT / "native/library", "-B", folder, *options],
        [cmake, "--build", folder, "-j2"],
    ):
        subprocess.run(command, check=True, capture_output=True)
    return folder


class Library:
    """What ltn.h declares; pictures are :class:`latens.io.Image`."""

    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        takes: dict[str, tuple[Any, list[Any]]] = {
            "ltn_info": (c_int, [c_char_p, c_size_t, c_void_p, POINTER(Header), POINTER(Error)]),
            "ltn_preview": (
                c_int,
                [c_char_p, c_size_t, c_void_p, POINTER(c_void_p), POINTER(c_size_t), POINTER(Error)],
            ),
            "ltn_model_load": (c_int, [c_char_p, c_size_t, POINTER(c_void_p), POINTER(Error)]),
            "ltn_model_free": (None, [c_void_p]),
            "ltn_model_name": (c_char_p, [c_void_p]),
            "ltn_model_weights_id": (c_char_p, [c_void_p]),
            "ltn_model_entropy_id": (c_char_p, [c_void_p]),
            "ltn_decode": (
                c_int,
                [c_void_p, c_char_p, c_size_t, c_void_p, POINTER(c_void_p), POINTER(Error)],
            ),
            "ltn_image_free": (None, [c_void_p]),
            "ltn_image_header": (c_int, [c_void_p, POINTER(Header)]),
            "ltn_image_pixels": (c_void_p, [c_void_p]),
            "ltn_image_alpha": (c_void_p, [c_void_p]),
            "ltn_image_metadata": (c_void_p, [c_void_p, c_int, POINTER(c_size_t)]),
            "ltn_encode": (
                c_int,
                [c_void_p, POINTER(Source), c_double, POINTER(c_void_p), POINTER(c_size_t), POINTER(Error)],
            ),
            "ltn_encode_lossless": (
                c_int,
                [POINTER(Source), c_uint32, c_uint32, POINTER(c_void_p), POINTER(c_size_t), POINTER(Error)],
            ),
            "ltn_weights_pack": (
                c_int,
                [c_char_p, c_size_t, c_int, POINTER(c_void_p), POINTER(c_size_t), POINTER(Error)],
            ),
            "ltn_free": (None, [c_void_p]),
        }
        for name, (result, arguments) in takes.items():
            function = getattr(self.c, name)
            function.restype, function.argtypes = result, arguments

    @staticmethod
    def _check(code: int, error: Error) -> None:
        assert code == error.code
        if code:
            message = error.message.decode("ascii")
            assert message
            raise LibraryError(code, message)

    def load(self, weights: bytes) -> c_void_p:
        model, error = c_void_p(), Error()
        self._check(self.c.ltn_model_load(weights, len(weights), byref(model), byref(error)), error)
        return model

    def try_load(self, weights: bytes) -> tuple[int, c_void_p]:
        """The code of an error, and the model if there is none."""
        model = c_void_p()
        return self.c.ltn_model_load(weights, len(weights), byref(model), None), model

    def pack(self, weights: bytes, *, encoding: bool = False) -> bytes:
        file, size, error = c_void_p(), c_size_t(), Error()
        code = self.c.ltn_weights_pack(
            weights, len(weights), encoding, byref(file), byref(size), byref(error)
        )
        return self._taken(code, file, size, error)

    def _taken(self, code: int, file: c_void_p, size: c_size_t, error: Error) -> bytes:
        self._check(code, error)
        data = ctypes.string_at(file, size.value)
        self.c.ltn_free(file)
        return data

    def info(self, data: bytes, limits: Limits | None = None) -> Header:
        header, error = Header(ctypes.sizeof(Header)), Error()
        code = self.c.ltn_info(data, len(data), limits and byref(limits), byref(header), byref(error))
        self._check(code, error)
        return header

    def preview(self, data: bytes) -> bytes | None:
        found, size, error = c_void_p(), c_size_t(), Error()
        code = self.c.ltn_preview(data, len(data), None, byref(found), byref(size), byref(error))
        self._check(code, error)
        return ctypes.string_at(found, size.value) if found else None

    def decode(self, model: c_void_p | None, data: bytes, limits: Limits | None = None) -> Image:
        image, error = c_void_p(), Error()
        code = self.c.ltn_decode(model, data, len(data), limits and byref(limits), byref(image), byref(error))
        self._check(code, error)
        try:
            return self._image(image)
        finally:
            self.c.ltn_image_free(image)

    def _image(self, image: c_void_p) -> Image:
        about = Header(ctypes.sizeof(Header))
        assert self.c.ltn_image_header(image, byref(about)) == 0
        dtype = np.dtype(np.uint8 if about.bit_depth == 8 else np.uint16)

        def samples(address: int, *shape: int) -> npt.NDArray[Any]:
            size = int(np.prod(shape)) * dtype.itemsize
            return np.frombuffer(ctypes.string_at(address, size), dtype).reshape(shape)

        alpha = self.c.ltn_image_alpha(image)
        assert bool(alpha) == bool(about.alpha)
        metadata = []
        for kind in range(3):
            size = c_size_t()
            found = self.c.ltn_image_metadata(image, kind, byref(size))
            metadata.append(ctypes.string_at(found, size.value) if found else None)
        across, down = (tuple(about.density[i : i + 2]) for i in (0, 2))
        return Image(
            samples(self.c.ltn_image_pixels(image), about.height, about.width, about.channels),
            samples(alpha, about.height, about.width) if alpha else None,
            *metadata,
            colour=ltn.Cicp(*about.colour),
            density=(across, down, ("", "inch", "cm", "m")[about.density_unit]) if across[0] else None,
            bit_depth=about.bit_depth,
        )

    def encode(
        self,
        model: c_void_p | None,
        image: Image,
        quality: float = 70.0,
        *,
        near: int = 0,
        effort: int = 1,
        gap: int = 0,
    ) -> bytes:
        """The file of an image, lossless if there is no model; rows are ``gap`` samples apart."""
        source = Source(ctypes.sizeof(Source))
        height, width, channels = image.pixels.shape
        source.width, source.height, source.channels = width, height, channels
        source.bit_depth = image.bit_depth
        rows = np.pad(image.pixels.reshape(height, -1), ((0, 0), (0, gap)), constant_values=77)
        source.pixels, source.pitch = rows.ctypes.data, rows.strides[0] if gap else 0
        if image.alpha is not None:
            alpha = np.pad(image.alpha, ((0, 0), (0, gap)), constant_values=99)
            source.alpha, source.alpha_pitch = alpha.ctypes.data, alpha.strides[0] if gap else 0
        for name in ("icc", "exif", "xmp"):
            content = getattr(image, name)
            if content:
                setattr(source, name, content)
                setattr(source, f"{name}_size", len(content))
        source.colour = (c_uint8 * 4)(*image.colour)
        if image.density is not None:
            across, down, unit = image.density
            source.density = (c_uint32 * 4)(*across, *down)
            source.density_unit = ("", "inch", "cm", "m").index(unit)
        file, size, error = c_void_p(), c_size_t(), Error()
        out = byref(file), byref(size), byref(error)
        if model is None:
            code = self.c.ltn_encode_lossless(byref(source), near, effort, *out)
        else:
            code = self.c.ltn_encode(model, byref(source), quality, *out)
        return self._taken(code, file, size, error)
