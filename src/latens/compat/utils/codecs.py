"""The codecs of CompressAI's tools, by its names and options; Latens' own adapters do the work."""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image as PilImage

from latens.errors import CodecError
from latens.evaluate.codecs import Codec as Adapter
from latens.evaluate.codecs import make_codec
from latens.evaluate.quality import measure, read_rgb

__all__ = ["AV1", "BPG", "CODECS", "HM", "JPEG", "JPEG2000", "TFCI", "VTM", "Codec", "WebP", "find_program"]

_MEASURES = {"psnr-rgb": "psnr_rgb", "ms-ssim-rgb": "ms_ssim"}


def find_program(folder: str, name: str) -> str:
    """A program of a reference software, whose name ends in ``Static`` on Linux.

    Raises:
        CodecError: it is not there.
    """
    path = Path(folder) / (name if platform.system() == "Darwin" else f"{name}Static")
    if not path.is_file():
        raise CodecError(f"{path}: no such program; --build-dir is the folder that it was built in")
    return str(path)


class Codec:
    """One codec.

    Args:
        args: the options that :meth:`setup_args` adds.
    """

    spec: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, args: argparse.Namespace) -> None:
        self.adapter: Adapter = make_codec(self.spec, 1, **self.options(args))

    @classmethod
    def setup_args(cls, parser: argparse.ArgumentParser) -> None:
        """Add the codec's options."""

    @classmethod
    def options(cls, args: argparse.Namespace) -> dict[str, str]:
        """What the adapter is made with."""
        return {}

    @property
    def name(self) -> str:
        """As results call it."""
        return self.title

    @property
    def description(self) -> str:
        """With the version."""
        return f"{self.title}. {self.adapter.version()}"

    def run(
        self,
        in_filepath: str | Path,
        quality: float,
        metrics: Sequence[str] | None = None,
        return_rec: bool = False,
    ) -> Any:
        """Code an image and decode it.

        Args:
            in_filepath: the image.
            quality: as the codec counts.
            metrics: of ``"psnr-rgb"`` (dB) and ``"ms-ssim-rgb"``; the first by default.
            return_rec: return the decoded image, too.

        Returns:
            ``bpp``, ``encoding_time`` and ``decoding_time`` in seconds, and the metrics.

        Raises:
            CodecError: the codec fails, or does not have this quality.
            ImageError: the image cannot be read.
        """
        dial = self.adapter.dial
        if not dial.low <= quality <= dial.high:
            raise CodecError(f"{self.title}: {dial.name} {quality:g} is not in {dial.low:g} to {dial.high:g}")
        pixels = read_rgb(Path(in_filepath))
        height, width = pixels.shape[:2]
        start = time.perf_counter()
        data = self.adapter.encode(pixels, quality)
        middle = time.perf_counter()
        decoded = self.adapter.decode(data, (height, width), quality)
        end = time.perf_counter()
        wanted = [_MEASURES[name] for name in (["psnr-rgb"] if metrics is None else metrics)]
        found = measure(pixels, decoded, wanted)
        row = {
            "bpp": 8 * len(data) / (height * width),
            "encoding_time": middle - start,
            "decoding_time": end - middle,
        }
        for name, key in _MEASURES.items():
            if key in found:
                value = found[key]
                row[name] = float("inf") if value is None else value
        return (row, PilImage.fromarray(decoded)) if return_rec else row


class JPEG(Codec):
    """Pillow's, with its usual options: 4:2:0, neither progressive nor optimised."""

    spec, title = "jpeg", "JPEG"

    @classmethod
    def options(cls, args: argparse.Namespace) -> dict[str, str]:
        return {"progressive": "no", "optimize": "no"}


class WebP(Codec):
    """Pillow's, with its usual options."""

    spec, title = "webp", "WebP"

    @classmethod
    def options(cls, args: argparse.Namespace) -> dict[str, str]:
        return {"method": "4"}


class JPEG2000(Codec):
    """OpenJPEG, by compression ratio."""

    spec, title = "jpeg2000", "JPEG2000"


class BPG(Codec):
    """BPG, by programs that the user has built."""

    spec, title = "bpg", "BPG"

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self._name = f"BPG {args.b}b {args.m} {args.e} {args.c}"

    @classmethod
    def setup_args(cls, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("-m", choices=["420", "444"], default="444", help="chroma (default: %(default)s)")
        add("-b", choices=["8", "10"], default="8", help="bits (default: %(default)s)")
        add("-c", choices=["rgb", "ycbcr"], default="ycbcr", help="colour space (default: %(default)s)")
        add("-e", choices=["jctvc", "x265"], default="x265", help="encoder inside (default: %(default)s)")
        add("--encoder-path", default="bpgenc", help="BPG encoder")
        add("--decoder-path", default="bpgdec", help="BPG decoder")

    @classmethod
    def options(cls, args: argparse.Namespace) -> dict[str, str]:
        paths = {"encoder": args.encoder_path, "decoder": args.decoder_path}
        return {"chroma": args.m, "bits": args.b, "space": args.c, "inside": args.e, **paths}

    @property
    def name(self) -> str:
        return self._name


class TFCI(Codec):
    """Models of TensorFlow Compression, by its script."""

    spec, title = "tfci", "TFCI"
    _MODELS = ("bmshj2018-factorized-mse", "bmshj2018-hyperprior-mse", "mbt2018-mean-mse")

    @classmethod
    def setup_args(cls, parser: argparse.ArgumentParser) -> None:
        models = cls._MODELS
        parser.add_argument("-m", "--model", choices=models, default=models[0], help="(default: %(default)s)")
        parser.add_argument("-p", "--path", required=True, help="the script tfci.py, executable")

    @classmethod
    def options(cls, args: argparse.Namespace) -> dict[str, str]:
        return {"model": args.model, "encoder": args.path}

    @property
    def name(self) -> str:
        return self.adapter.options["model"]


class VTM(Codec):
    """The reference software of VVC."""

    spec, title = "vtm", "VTM"
    _PROGRAMS: ClassVar[Mapping[str, str]] = {"encoder": "EncoderApp", "decoder": "DecoderApp"}

    @classmethod
    def setup_args(cls, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("-b", "--build-dir", required=True, help=f"folder that {cls.title} was built in")
        add("-c", "--config", required=True, help="configuration")
        add("--rgb", action="store_true", help="code RGB instead of YCbCr")

    @classmethod
    def options(cls, args: argparse.Namespace) -> dict[str, str]:
        programs = {kind: find_program(args.build_dir, name) for kind, name in cls._PROGRAMS.items()}
        return {"config": args.config, "space": "rgb" if args.rgb else "ycbcr", **programs}


class HM(VTM):
    """The reference software of HEVC."""

    spec, title = "hm", "HM"
    _PROGRAMS: ClassVar = {"encoder": "TAppEncoder", "decoder": "TAppDecoder"}


class AV1(Codec):
    """libaom, the one inside of ffmpeg."""

    spec, title = "aom", "AV1"

    @classmethod
    def setup_args(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("-b", "--build-dir", help="not needed: ffmpeg has libaom")

    @classmethod
    def options(cls, args: argparse.Namespace) -> dict[str, str]:
        return {"speed": "0"}


CODECS: dict[str, type[Codec]] = {
    kind.title.lower(): kind for kind in (JPEG, WebP, JPEG2000, BPG, TFCI, VTM, HM, AV1)
}
"""By the names that the tools know them by."""
