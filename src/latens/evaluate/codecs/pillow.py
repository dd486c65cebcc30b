"""Codecs that Pillow writes and reads."""

from __future__ import annotations

import importlib
import io
from importlib.metadata import version as package_version
from typing import Any, ClassVar

import numpy as np
import PIL
from PIL import Image as PilImage
from PIL import features

from latens.errors import CodecError
from latens.evaluate.codecs.base import Codec, Dial, Pixels, register_codec

_QUALITY = (5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 87, 92, 95)
_CHROMA = {"420": "4:2:0", "422": "4:2:2", "444": "4:4:4"}


class PillowCodec(Codec):
    """What they share."""

    format: ClassVar[str]
    feature: ClassVar[str]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if not features.check(self.feature):
            raise CodecError(f"{self.spec}: this Pillow was built without {self.feature}")

    def version(self) -> str:
        return f"{self.feature} {features.version(self.feature)}, Pillow {PIL.__version__}"

    def save_options(self, setting: float) -> dict[str, Any]:
        """Arguments of Pillow's ``save``."""
        return {"quality": round(setting)}

    def encode(self, pixels: Pixels, setting: float) -> bytes:
        file = io.BytesIO()
        PilImage.fromarray(pixels).save(file, self.format, **self.save_options(setting))
        return file.getvalue()

    def decode(self, data: bytes, size: tuple[int, int], setting: float) -> Pixels:
        with PilImage.open(io.BytesIO(data), formats=(self.format,)) as image:
            return np.asarray(image.convert("RGB"))


@register_codec("jpeg")
class Jpeg(PillowCodec):
    """JPEG; with both switches off the files are those of the published curve."""

    format, feature, suffix = "JPEG", "libjpeg_turbo", ".jpg"
    dial = Dial("quality", 1, 95, 1, tuple(map(float, _QUALITY)))
    defaults: ClassVar = {"chroma": "420", "progressive": "yes", "optimize": "yes"}
    colour = "YCbCr, BT.601 full range (JFIF), 4:2:0 unless chroma=444"

    def save_options(self, setting: float) -> dict[str, Any]:
        return {
            "quality": round(setting),
            "subsampling": _CHROMA[self.choice("chroma", *_CHROMA)],
            "progressive": self.flag("progressive"),
            "optimize": self.flag("optimize"),
        }


@register_codec("jpeg2000")
class Jpeg2000(PillowCodec):
    """JPEG 2000, irreversible wavelet, by compression ratio."""

    format, feature, suffix = "JPEG2000", "jpg_2000", ".jp2"
    dial = Dial("ratio", 2, 400, 0.01, (200.0, 120.0, 80.0, 56.0, 40.0, 28.0, 20.0, 14.0, 10.0))
    colour = "irreversible colour transform of the standard, 4:4:4"

    def save_options(self, setting: float) -> dict[str, Any]:
        return {
            "quality_mode": "rates",
            "quality_layers": [setting],
            "irreversible": True,
            "mct": 1,
        }


@register_codec("webp")
class WebP(PillowCodec):
    """WebP; method=4 gives the files of the published curve."""

    format, feature, suffix = "WEBP", "webp", ".webp"
    dial = Dial("quality", 0, 100, 1, tuple(map(float, (0, *_QUALITY[1:], 98))))
    defaults: ClassVar = {"method": "6"}
    colour = "YCbCr, BT.601 limited range, 4:2:0 (the format has nothing else)"

    def save_options(self, setting: float) -> dict[str, Any]:
        return {"quality": round(setting), "method": self.number("method")}


@register_codec("avif")
class Avif(PillowCodec):
    """AVIF; tune is what its encoder (libaom) aims at, its own choice by default."""

    format, feature, suffix = "AVIF", "avif", ".avif"
    dial = Dial("quality", 0, 100, 1, (10, 20, 28, 36, 44, 52, 60, 67, 74, 80, 85, 90, 94))
    defaults: ClassVar = {"speed": "4", "chroma": "444", "tune": "default"}
    colour = "YCbCr, BT.601 full range, 8 bits, 4:4:4 unless chroma=420"

    def save_options(self, setting: float) -> dict[str, Any]:
        tune = self.choice("tune", "default", "iq", "ssimulacra2", "psnr", "ssim")
        return {
            "quality": round(setting),
            "speed": self.number("speed"),
            "subsampling": _CHROMA[self.choice("chroma", *_CHROMA)],
            "max_threads": self.threads,
            **({} if tune == "default" else {"advanced": {"tune": tune}}),
        }


@register_codec("jxl")
class JpegXl(PillowCodec):
    """JPEG XL, lossy (VarDCT), through pillow-jxl-plugin."""

    format, suffix = "JXL", ".jxl"
    dial = Dial("quality", 0, 99, 1, (5, 15, 25, 35, 45, 55, 65, 72, 79, 85, 90, 94))
    defaults: ClassVar = {"effort": "7"}
    colour = "XYB, 4:4:4"

    def __init__(self, *args: Any) -> None:
        Codec.__init__(self, *args)
        try:
            importlib.import_module("pillow_jxl")
        except ImportError as error:
            raise CodecError(f"{self.spec}: needs the package pillow-jxl-plugin") from error

    def version(self) -> str:
        return f"pillow-jxl-plugin {package_version('pillow-jxl-plugin')}, Pillow {PIL.__version__}"

    def save_options(self, setting: float) -> dict[str, Any]:
        return {
            "quality": round(setting),
            "effort": self.number("effort"),
            "num_threads": self.threads,
        }
