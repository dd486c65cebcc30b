"""The video codecs of CompressAI's tools, by its names and options."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from latens.compat.utils.codecs import find_program
from latens.datasets import RawVideoSequence, get_raw_video_file_info
from latens.errors import CodecError
from latens.evaluate.codecs.programs import ffmpeg, run

__all__ = ["CODECS", "HM", "VTM", "Codec", "x264", "x265"]


class Codec:
    """One codec; :meth:`set_args` comes first."""

    name: ClassVar[str]
    suffix: ClassVar[str]

    def add_parser_args(self, parser: argparse.ArgumentParser) -> None:
        """Add the codec's options."""
        raise NotImplementedError

    def set_args(self, args: argparse.Namespace) -> argparse.Namespace:
        """Take the options."""
        raise NotImplementedError

    @property
    def description(self) -> str:
        """With the version."""
        raise NotImplementedError

    def name_config(self) -> str:
        """As results call it."""
        raise NotImplementedError

    def get_bin_path(self, filepath: Path, qp: int, binpath: str, inputdir: str) -> Path:
        """Where the coded video goes; its folder is made."""
        folder = Path(binpath) / filepath.parent.relative_to(inputdir)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{filepath.stem}_{self.name_config()}_qp{qp}{self.suffix}"

    def get_encode_cmd(self, filepath: Path, qp: int, binpath: Path) -> list[Any]:
        """The command that encodes."""
        raise NotImplementedError

    def get_decode_cmd(self, binpath: Path, decpath: Path, input_filepath: Path) -> list[Any]:
        """The command that decodes into raw planes."""
        raise NotImplementedError


class x264(Codec):  # noqa: N801  (what CompressAI calls it)
    """H.264 by x264, inside of ffmpeg."""

    name, suffix = "x264", ".mp4"
    _more: ClassVar = ("-c:v", "libx264", "-bf", "0")

    def add_parser_args(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("-p", "--preset", default="medium", help="(default: %(default)s)")
        parser.add_argument("--tune", default="psnr-rgb", help="psnr or ssim (default: %(default)s)")

    def set_args(self, args: argparse.Namespace) -> argparse.Namespace:
        self.preset, self.tune = args.preset, args.tune
        return args

    @property
    def description(self) -> str:
        version = run((ffmpeg(), "-hide_banner", "-version")).decode(errors="replace").split()[2]
        return f"{self.name} {self.preset}, {self.tune}, ffmpeg version {version}"

    def name_config(self) -> str:
        return f"{self.name}-{self.preset}-tune-{self.tune}"

    def get_encode_cmd(self, filepath: Path, qp: int, binpath: Path) -> list[Any]:
        info = get_raw_video_file_info(filepath.stem)
        layout = "yuv420p" if info["bitdepth"] == 8 else f"yuv420p{info['bitdepth']}le"
        size = f"{info['width']}x{info['height']}"
        return [
            ffmpeg(), "-y", "-hide_banner", "-nostdin", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", layout,
            "-s:v", size, "-r", str(info["framerate"]), "-i", filepath, *self._more, "-crf", qp,
            "-preset", self.preset, "-tune", self.tune.removesuffix("-rgb"), "-pix_fmt", layout, "-threads", 4, binpath,
        ]  # fmt: skip

    def get_decode_cmd(self, binpath: Path, decpath: Path, input_filepath: Path) -> list[Any]:
        bits = get_raw_video_file_info(input_filepath.stem)["bitdepth"]
        layout = "yuv420p" if bits == 8 else f"yuv420p{bits}le"
        return [
            ffmpeg(), "-y", "-hide_banner", "-nostdin", "-loglevel", "error", "-i", binpath, "-pix_fmt", layout,
            "-fps_mode", "passthrough", "-f", "rawvideo", decpath,
        ]  # fmt: skip


class x265(x264):  # noqa: N801
    """HEVC by x265, inside of ffmpeg."""

    name = "x265"
    _more: ClassVar = ("-c:v", "libx265", "-x265-params", "bframes=0:log-level=none")


class VTM(Codec):
    """The reference software of VVC."""

    name, suffix = "VTM", ".bin"
    _programs: ClassVar[Mapping[str, str]] = {"encoder": "EncoderApp", "decoder": "DecoderApp"}

    def add_parser_args(self, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("-b", "--build-dir", required=True, help=f"folder that {self.name} was built in")
        add("-c", "--config", required=True, help="configuration")
        add("--rgb", action="store_true", help="the video is RGB")

    def set_args(self, args: argparse.Namespace) -> argparse.Namespace:
        found = {kind: find_program(args.build_dir, program) for kind, program in self._programs.items()}
        self.encoder_path, self.decoder_path = found["encoder"], found["decoder"]
        self.config_path, self.rgb = args.config, args.rgb
        return args

    @property
    def version(self) -> str:
        """Of the encoder, as it says itself."""
        try:
            said = run((self.encoder_path, "--help")).decode(errors="replace")
        except CodecError as error:  # HM ends with a status of its own
            said = str(error)
        found = re.search(r"Version\s*\[?([\w.+-]+)", said)
        return found[1] if found else "unknown"

    @property
    def description(self) -> str:
        return f"{self.name} reference software, version {self.version}"

    def name_config(self) -> str:
        return f"{self.name}-v{self.version}-{Path(self.config_path).stem.split('_')[-1]}"

    def get_encode_cmd(self, filepath: Path, qp: int, binpath: Path) -> list[Any]:
        info = get_raw_video_file_info(filepath.stem)
        spaces = (
            "InputColourSpaceConvert=RGBtoGBR",
            "SNRInternalColourSpace=1",
            "OutputInternalColourSpace=0",
        )
        return [
            self.encoder_path, "-i", filepath, "-c", self.config_path, "-q", qp, "-o", "/dev/null", "-b", binpath,
            "-wdt", info["width"], "-hgt", info["height"], "-fr", info["framerate"],
            "-f", len(RawVideoSequence.from_file(filepath)),
            f"--InputBitDepth={info['bitdepth']}", f"--OutputBitDepth={info['bitdepth']}",
            *(f"--{space}" for space in spaces if self.rgb),
        ]  # fmt: skip

    def get_decode_cmd(self, binpath: Path, decpath: Path, input_filepath: Path) -> list[Any]:
        bits = get_raw_video_file_info(input_filepath.stem)["bitdepth"]
        return [self.decoder_path, "-b", binpath, "-o", decpath, "-d", bits]


class HM(VTM):
    """The reference software of HEVC."""

    name = "HM"
    _programs: ClassVar = {"encoder": "TAppEncoder", "decoder": "TAppDecoder"}


CODECS: dict[str, type[Codec]] = {kind.name: kind for kind in (x264, x265, VTM, HM)}
"""By the names that the tools know them by."""
