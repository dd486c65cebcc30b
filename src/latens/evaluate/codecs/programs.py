"""Codecs that are programs: those inside of ffmpeg, and binaries that the user has built."""

from __future__ import annotations

import importlib
import io
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image as PilImage

from latens.errors import CodecError
from latens.evaluate.codecs.base import Codec, Dial, Pixels, register_codec
from latens.evaluate.colour import to_planes, to_rgb
from latens.io import printable

_QP = (42.0, 37.0, 32.0, 27.0, 22.0, 17.0, 12.0)
_MESSAGE = 400


def run(command: Sequence[str], data: bytes = b"") -> bytes:
    """Standard output of a program that is given ``data``.

    It stays in the process group of its caller, so that a time limit ends both.

    Raises:
        CodecError: it cannot be started, or fails; with the end of what it said.
    """
    name = Path(command[0]).name
    try:
        done = subprocess.run(command, input=data, capture_output=True, check=False)
    except (OSError, ValueError) as error:
        raise CodecError(f"{printable(name)}: cannot be started ({error})") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-_MESSAGE:].decode(errors="replace")
        raise CodecError(f"{printable(name)} ended with status {done.returncode}: {printable(said)}")
    return done.stdout


# ---- inside of ffmpeg


@cache
def ffmpeg() -> str:
    """Path of the program that the package imageio-ffmpeg brings (or finds).

    Raises:
        CodecError: the package is not installed.
    """
    try:
        return str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise CodecError("needs the package imageio-ffmpeg") from error


@cache
def _ffmpeg_has(encoder: str) -> bool:
    listed = run((ffmpeg(), "-hide_banner", "-encoders")).decode(errors="replace")
    return any(line.split()[1:2] == [encoder] for line in listed.splitlines())


class FfmpegCodec(Codec):
    """A still picture as a raw stream of one frame; planes of 10 bits go in and come out without conversion."""

    encoder: ClassVar[str]
    container: ClassVar[str]
    bits: ClassVar[int] = 10
    timing = "starting ffmpeg and converting colour included"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        try:
            present = _ffmpeg_has(self.encoder)
        except CodecError as error:
            raise CodecError(f"{self.spec}: {error}") from error
        if not present:
            raise CodecError(f"{self.spec}: this ffmpeg was built without {self.encoder}")

    @property
    def subsampled(self) -> bool:
        """Whether chroma has half the resolution."""
        return self.choice("chroma", "444", "420") == "420"

    def version(self) -> str:
        first = run((ffmpeg(), "-hide_banner", "-version")).decode(errors="replace").split(" Copyright")[0]
        return f"{self.encoder} in {first.strip()}"

    def arguments(self, setting: float) -> list[str]:
        """Of the encoder."""
        raise NotImplementedError

    def encode(self, pixels: Pixels, setting: float) -> bytes:
        layout = ("yuv420p" if self.subsampled else "yuv444p") + "10le"
        height, width = pixels.shape[:2]
        if self.subsampled:
            height, width = height + height % 2, width + width % 2
        stream = run(
            (
                ffmpeg(), "-hide_banner", "-nostdin", "-loglevel", "error",
                "-f", "rawvideo", "-pix_fmt", layout, "-s", f"{width}x{height}", "-framerate", "1",
                "-color_range", "pc", "-colorspace", "bt709", "-color_primaries", "bt709",
                "-color_trc", "iec61966-2-1", "-i", "pipe:0", "-frames:v", "1",
                "-threads", str(self.threads), "-c:v", self.encoder, *self.arguments(setting),
                "-pix_fmt", layout, "-f", self.container, "pipe:1",
            ),
            to_planes(pixels, self.bits, self.subsampled),
        )  # fmt: skip
        if not stream:
            raise CodecError(f"{self.spec}: {self.encoder} wrote nothing")
        return stream

    def decode(self, data: bytes, size: tuple[int, int], setting: float) -> Pixels:
        layout = ("yuv420p" if self.subsampled else "yuv444p") + "10le"
        planes = run(
            (
                ffmpeg(), "-hide_banner", "-nostdin", "-loglevel", "error", "-threads", str(self.threads),
                "-f", self.container, "-i", "pipe:0", "-frames:v", "1",
                "-f", "rawvideo", "-pix_fmt", layout, "pipe:1",
            ),
            data,
        )  # fmt: skip
        return to_rgb(planes, size, self.bits, self.subsampled)


_BT709 = "YCbCr, BT.709 full range, 10 bits, converted by the harness"


@register_codec("hevc")
class Hevc(FfmpegCodec):
    """HEVC by x265, tuned for PSNR; without the message that x265 puts into every stream."""

    encoder, container, suffix = "libx265", "hevc", ".hevc"
    dial = Dial("qp", 0, 51, 1, _QP)
    defaults: ClassVar = {"preset": "slow", "chroma": "444"}
    colour = f"{_BT709}, 4:4:4 unless chroma=420"

    def arguments(self, setting: float) -> list[str]:
        params = f"qp={round(setting)}:info=0:log-level=none:pools={self.threads}:frame-threads=1"
        return ["-preset", self.options["preset"], "-tune", "psnr", "-x265-params", params]


@register_codec("av1")
class SvtAv1(FfmpegCodec):
    """AV1 by SVT-AV1, tuned for PSNR, as a still picture."""

    encoder, container, suffix = "libsvtav1", "obu", ".obu"
    dial = Dial("crf", 0, 63, 1, (60.0, 52.0, 44.0, 36.0, 28.0, 20.0, 12.0, 5.0))
    defaults: ClassVar = {"preset": "4"}
    colour = f"{_BT709}, 4:2:0 (SVT-AV1 has nothing else)"
    subsampled = True

    def arguments(self, setting: float) -> list[str]:
        params = f"tune=1:avif=1:lp={self.threads}"
        return ["-preset", self.options["preset"], "-crf", str(round(setting)), "-svtav1-params", params]


@register_codec("aom")
class Aom(FfmpegCodec):
    """AV1 by libaom, all intra."""

    encoder, container, suffix = "libaom-av1", "obu", ".obu"
    dial = Dial("crf", 0, 63, 1, (60.0, 52.0, 44.0, 36.0, 28.0, 20.0, 12.0, 5.0))
    defaults: ClassVar = {"speed": "4", "chroma": "444"}
    colour = f"{_BT709}, 4:4:4 unless chroma=420"

    def arguments(self, setting: float) -> list[str]:
        return [
            "-usage", "allintra", "-still-picture", "1", "-tune", "psnr",
            "-cpu-used", self.options["speed"], "-crf", str(round(setting)),
        ]  # fmt: skip


@register_codec("vvc")
class Vvc(FfmpegCodec):
    """VVC by VVenC, without perceptual adaptation."""

    encoder, container, suffix = "libvvenc", "vvc", ".vvc"
    dial = Dial("qp", 0, 63, 1, _QP[:-1])
    defaults: ClassVar = {"preset": "medium"}
    colour = f"{_BT709}, 4:2:0 (VVenC inside of ffmpeg has nothing else)"
    subsampled = True

    def arguments(self, setting: float) -> list[str]:
        return [
            "-preset", self.options["preset"], "-qpa", "0", "-qp", str(round(setting)),
            "-vvenc-params", "verbosity=0",
        ]  # fmt: skip


# ---- binaries of the user


class BinaryCodec(Codec):
    """Programs that are given by --encoder-path and --decoder-path; files lie in a temporary folder."""

    defaults: ClassVar = {"encoder": "", "decoder": "", "config": ""}
    timing = "starting programs and writing their temporary files included"
    needs: ClassVar[tuple[str, ...]] = ("encoder", "decoder")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        for name in self.needs:
            path = self.options[name]
            option = "--config" if name == "config" else f"--{name}-path"
            if not path:
                raise CodecError(f"{self.spec}: needs {option}")
            if not Path(path).is_file():
                raise CodecError(f"{self.spec}: {option} {printable(path)}: no such file")

    def version(self) -> str:
        return Path(self.options["encoder"]).name

    def describe(self) -> dict[str, Any]:
        about = super().describe()
        about["options"] = {key: Path(value).name for key, value in self.options.items()}
        return about

    def write(self, folder: Path, pixels: Pixels, setting: float) -> None:
        """Make ``folder / "out"``."""
        raise NotImplementedError

    def read(self, folder: Path, size: tuple[int, int]) -> Pixels:
        """The image of ``folder / "out"``."""
        raise NotImplementedError

    def encode(self, pixels: Pixels, setting: float) -> bytes:
        with tempfile.TemporaryDirectory(prefix="latens-") as folder:
            self.write(Path(folder), pixels, setting)
            try:
                return (Path(folder) / "out").read_bytes()
            except OSError as error:
                raise CodecError(f"{self.spec}: the encoder wrote no file") from error

    def decode(self, data: bytes, size: tuple[int, int], setting: float) -> Pixels:
        with tempfile.TemporaryDirectory(prefix="latens-") as folder:
            (Path(folder) / "out").write_bytes(data)
            return self.read(Path(folder), size)


def _png(path: Path) -> Pixels:
    try:
        with PilImage.open(io.BytesIO(path.read_bytes()), formats=("PNG",)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError) as error:
        raise CodecError(f"the decoder wrote no image ({printable(str(error))})") from error


@register_codec("bpg")
class Bpg(BinaryCodec):
    """BPG: bpgenc and bpgdec."""

    suffix = ".bpg"
    dial = Dial("qp", 0, 51, 1, _QP)
    defaults: ClassVar = {
        **BinaryCodec.defaults, "chroma": "444", "bits": "8", "level": "8", "space": "", "inside": "",
    }  # fmt: skip
    colour = "YCbCr of bpgenc unless space=rgb, 4:4:4 unless chroma=420"

    def write(self, folder: Path, pixels: Pixels, setting: float) -> None:
        PilImage.fromarray(pixels).save(folder / "in.png")
        run(
            (
                self.options["encoder"], "-q", str(round(setting)), "-f", self.choice("chroma", "444", "420"),
                "-b", self.options["bits"], "-m", self.options["level"],
                *(["-c", self.choice("space", "rgb", "ycbcr")] if self.options["space"] else []),
                *(["-e", self.choice("inside", "jctvc", "x265")] if self.options["inside"] else []),
                "-o", str(folder / "out"), str(folder / "in.png"),
            )
        )  # fmt: skip

    def read(self, folder: Path, size: tuple[int, int]) -> Pixels:
        run((self.options["decoder"], "-o", str(folder / "image.png"), str(folder / "out")))
        return _png(folder / "image.png")


@register_codec("tfci")
class Tfci(BinaryCodec):
    """Models of TensorFlow Compression: its script tfci.py, both ways."""

    suffix = ".tfci"
    dial = Dial("quality", 1, 8, 1, tuple(map(float, range(1, 9))))
    defaults: ClassVar = {"encoder": "", "model": "bmshj2018-factorized-mse"}
    needs: ClassVar = ("encoder",)

    def write(self, folder: Path, pixels: Pixels, setting: float) -> None:
        PilImage.fromarray(pixels).save(folder / "in.png")
        model = f"{self.options['model']}-{round(setting)}"
        run((self.options["encoder"], "compress", model, str(folder / "in.png"), str(folder / "out")))

    def read(self, folder: Path, size: tuple[int, int]) -> Pixels:
        run((self.options["encoder"], "decompress", str(folder / "out"), str(folder / "image.png")))
        return _png(folder / "image.png")


class ReferenceCodec(BinaryCodec):
    """What the reference softwares of HEVC and VVC share."""

    dial = Dial("qp", 0, 63, 1, _QP)
    defaults: ClassVar = {**BinaryCodec.defaults, "chroma": "444", "bits": "8", "space": "ycbcr"}
    needs: ClassVar = ("encoder", "decoder", "config")
    colour = (
        "YCbCr, BT.709 full range, 8 bits unless bits=10, 4:4:4 unless chroma=420; converted by the harness; "
        "with space=rgb 8-bit RGB, converted by the codec"
    )

    @property
    def rgb(self) -> bool:
        """Whether the codec gets RGB."""
        return self.choice("space", "ycbcr", "rgb") == "rgb"

    def write(self, folder: Path, pixels: Pixels, setting: float) -> None:
        bits, chroma = self.number("bits"), self.choice("chroma", "444", "420")
        height, width = pixels.shape[:2]
        if chroma == "420":
            height, width = height + height % 2, width + width % 2
        if self.rgb and (bits, chroma) != (8, "444"):
            raise CodecError(f"{self.spec}: space=rgb goes with bits=8 and chroma=444")
        planes = pixels.transpose(2, 0, 1).tobytes() if self.rgb else to_planes(pixels, bits, chroma == "420")
        (folder / "in.yuv").write_bytes(planes)
        spaces = (
            "InputColourSpaceConvert=RGBtoGBR",
            "SNRInternalColourSpace=1",
            "OutputInternalColourSpace=0",
        )
        run(
            (
                self.options["encoder"], "-c", self.options["config"], "-i", str(folder / "in.yuv"),
                "-b", str(folder / "out"), "-o", str(folder / "rec.yuv"), "-wdt", str(width), "-hgt", str(height),
                "-fr", "1", "-f", "1", "-q", str(round(setting)), f"--InputChromaFormat={chroma}",
                f"--InputBitDepth={bits}", "--ConformanceWindowMode=1",
                *(f"--{space}" for space in spaces if self.rgb),
            )
        )  # fmt: skip

    def read(self, folder: Path, size: tuple[int, int]) -> Pixels:
        bits = self.number("bits")
        run(
            (
                self.options["decoder"], "-b", str(folder / "out"), "-o", str(folder / "image.yuv"),
                "-d", str(bits), *(["--OutputInternalColourSpace=GBRtoRGB"] if self.rgb else []),
            )
        )  # fmt: skip
        try:
            planes = (folder / "image.yuv").read_bytes()
        except OSError as error:
            raise CodecError(f"{self.spec}: the decoder wrote no image") from error
        if not self.rgb:
            return to_rgb(planes, size, bits, self.options["chroma"] == "420")
        if len(planes) != 3 * size[0] * size[1]:
            raise CodecError(f"{self.spec}: the decoder wrote {len(planes)} bytes for {size[1]}x{size[0]}")
        return np.frombuffer(planes, np.uint8).reshape(3, *size).transpose(1, 2, 0)


@register_codec("hm")
class Hm(ReferenceCodec):
    """HM, the reference software of HEVC."""

    suffix = ".hevc"
    dial = Dial("qp", 0, 51, 1, _QP)


@register_codec("vtm")
class Vtm(ReferenceCodec):
    """VTM, the reference software of VVC."""

    suffix = ".vvc"
