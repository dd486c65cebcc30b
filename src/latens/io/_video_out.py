"""Planes of samples to video files. PyAV (``pip install latens[video]``) does what is not written here."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from latens.errors import LatensError, OutputError
from latens.io._hdr import hdr_template
from latens.io._matroska import set_shape
from latens.io._output import TemporaryOutput, check_output
from latens.io._picture import SRGB
from latens.io._pictures import PATTERN
from latens.io._sound import SoundFile
from latens.io._text import printable
from latens.io._video import (
    RGB,
    STANDARD,
    SUBSAMPLING,
    UNSPECIFIED,
    Plane,
    VideoFrame,
    VideoInfo,
    pixel_format,
    pyav,
    reason_of,
    usual_matrix,
)

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["VideoSink"]

_BARE = ("y4m", "yuv")
_ROOM = 24 * " "
_PNG = "png"
# What pictures and players take for granted.
_PLAIN = (UNSPECIFIED, 1, 5, 6, 13)


class VideoSink:
    """Writes frames to a video file, which appears under its name when all is well, and not before.

    Args:
        path: ``.y4m``, ``.yuv`` (bare planes), a video file of PyAV (``.mkv`` without loss, ``.mp4`` and ``.mov`` as
            H.264 of high quality), a folder (ends in ``/``) or ``frame_%04d.png`` for PNG files; ``-`` is y4m on
            standard output.
        info: of the frames. RGB becomes luma and chroma where a file has no place for it.
        force: replace what is there.
        inputs: files that must not be written over.
        sound: to be written along, unchanged.

    Attributes:
        notes: sentences about what was converted.
        not_kept: names of what ``info`` and frames have and the file does not.

    Raises:
        OutputError: it cannot be written there.
        UnavailableError: PyAV is not installed.
    """

    def __init__(
        self,
        path: str,
        info: VideoInfo,
        *,
        force: bool = False,
        inputs: Sequence[str] = (),
        sound: SoundFile | None = None,
    ) -> None:
        self._sound = sound
        self._first: Fraction | None = None
        self.notes: list[str] = []
        self.not_kept: list[str] = []
        self._name = "standard output" if path == STANDARD else printable(path)
        self._count = 0
        self._expected: int | None = None
        self._output: TemporaryOutput | None = None
        self._file: Any = None
        self._container: Any = None
        self._template: Any = None
        self._pictures: Callable[[int], Path] | None = None
        self._force = force
        suffix = Path(path).suffix.lower()
        if path == STANDARD:
            if sys.stdout is None:
                raise OutputError("standard output is closed")
            self._file = sys.stdout.buffer
            self._kind = "y4m"
        elif (pictures := _pictures(path, force)) is not None:
            self._kind = _PNG
            self._pictures = pictures
        else:
            self._kind = suffix.removeprefix(".")
            if self._kind not in _BARE:
                pyav()
            self._output = TemporaryOutput(path, force=force, inputs=inputs)
        if sound is not None and self._kind in (*_BARE, _PNG):
            raise OutputError(f"{self._name}: {self._kind} has no place for sound; .mkv, .mp4 and .mov do")
        self._from_rgb = info.colour[2] == RGB and self._kind in (*_BARE, "mp4", "mov", "m4v")
        self.info = _without_rgb(info) if self._from_rgb else info
        self._name_what_is_lost()
        try:
            with self._writing():
                if self._output is not None:
                    self._file = self._output.open()
                if self._kind == "y4m":
                    self._file.write(_y4m_header(self.info))
                elif self._kind not in ("yuv", _PNG):
                    self._open_container(suffix)
        except BaseException:
            self.abort()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.abort()

    def add(self, frame: VideoFrame, rgb: Callable[[], npt.NDArray[Any]] | None = None) -> None:
        """Write the next frame.

        Args:
            frame: shaped as the video says.
            rgb: makes the same as ``(height, width, 3)``, uint8, or of more than 8 bits uint16, 0 ... 65,535; PNG files
                need it.

        Raises:
            OutputError: it cannot be written.
        """
        step = round(1 / self.info.frame_rate / self.info.time_base)
        if self._expected is not None and abs(frame.timestamp - self._expected) > 1:
            self._lose("times of frames, which vary", self._kind in (*_BARE, _PNG))
        self._expected = frame.timestamp + step
        with self._writing():
            if self._pictures is not None:
                self._write_picture(rgb)
            else:
                planes = _luma_and_chroma(frame.planes, self.info) if self._from_rgb else frame.planes
                if self._container is not None:
                    self._encode(replace(frame, planes=planes))
                else:
                    self._file.write(b"FRAME\n" if self._kind == "y4m" else b"")
                    for plane in planes:
                        self._file.write(plane.tobytes())
        self._count += 1

    def finish(self) -> None:
        """Finish the file and give it its name."""
        try:
            with self._writing():
                if self._container is not None:
                    self._encode(None)
                    self._container.close()
                    self._container = None
                    self._say_shape()
                self._close_template()
                if self._output is not None:
                    self._output.commit()
                elif self._file is not None:
                    self._file.flush()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Leave nothing behind (but PNG files, which stay)."""
        with suppress(Exception):
            if self._container is not None:
                self._container.close()
        self._container = None
        self._close_template()
        if self._output is not None:
            self._output.discard()

    def _close_template(self) -> None:
        if self._template is not None:
            self._template.close()
            self._template = None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Errors of the system, those that FFmpeg passes on included, as ours."""
        try:
            yield
        except (BrokenPipeError, LatensError):
            raise
        except OSError as error:
            raise OutputError(f"{self._name}: cannot be written ({printable(reason_of(error))})") from error

    def _lose(self, name: str, lost: bool = True) -> None:
        if lost and name not in self.not_kept:
            self.not_kept.append(name)

    def _name_what_is_lost(self) -> None:
        info = self.info
        primaries, transfer, matrix, full = info.colour
        plain = primaries in _PLAIN and transfer in _PLAIN and matrix in (usual_matrix(info.height), RGB)
        self._lose(
            f"colour (CICP {primaries}/{transfer}/{matrix}/{full})",
            (self._kind in _BARE and not plain) or (self._kind == "yuv" and bool(full)),
        )
        hdr = info.mastering is not None or info.light is not None
        self._lose("HDR metadata", hdr and self._kind in (*_BARE, _PNG))
        self._lose("shape of pixels", info.pixel_aspect != 1 and self._kind == "yuv")

    # -- kinds of files

    def _write_picture(self, rgb: Callable[[], npt.NDArray[Any]] | None) -> None:
        from latens.io._picture import Image
        from latens.io._write import write_image

        if self._pictures is None or rgb is None:
            raise OutputError("PNG files need frames in RGB")
        target = self._pictures(self._count)
        check_output(target, force=self._force)
        info = self.info
        primaries, transfer = info.colour[:2]
        told = UNSPECIFIED not in (primaries, transfer) and not (primaries == 1 and transfer in (1, 13))
        aspect = info.pixel_aspect
        image = Image(
            rgb(),
            colour=(primaries, transfer, RGB, 1) if told else SRGB,
            density=None if aspect == 1 else ((aspect.denominator, 1), (aspect.numerator, 1), ""),
            bit_depth=info.bit_depth if info.bit_depth == 8 else 16,
        )
        data = io.BytesIO()
        write_image(image, data)
        try:
            target.write_bytes(data.getvalue())
        except OSError as error:
            with suppress(OSError):
                target.unlink()
            raise OutputError(f"{printable(target)}: cannot be written ({error.strerror})") from error

    def _open_container(self, suffix: str) -> None:
        av = pyav()
        info = self.info
        lossless = suffix not in (".mp4", ".mov", ".m4v")
        across, down = SUBSAMPLING[info.chroma]
        if not lossless and (info.width % across or info.height % down or info.bit_depth > 10):
            raise OutputError(
                f"H.264 in {suffix} cannot hold {info.width} x {info.height} pixels with chroma {info.chroma} and "
                f"{info.bit_depth} bits: sides must be even where chroma is halved, and 10 bits are the most; "
                ".mkv and .y4m can"
            )
        codec = "ffv1" if lossless else "libx264"
        try:
            muxer = {".mkv": "matroska", ".m4v": "mp4"}.get(suffix, suffix.removeprefix("."))
            self._container = av.open(self._file, "w", format=muxer)
            if info.mastering is None and info.light is None:
                stream = self._container.add_stream(codec)
            else:
                self._template = hdr_template(av, codec, info.mastering, info.light)
                stream = self._container.add_stream_from_template(
                    self._template.streams.video[0], opaque=False
                )
        except (av.FFmpegError, ValueError) as error:
            raise OutputError(
                f"a file of kind '{printable(suffix)}' cannot be written ({printable(reason_of(error))}); .y4m, .mkv, "
                ".mp4, .yuv or a folder can"
            ) from error
        if self._sound is not None:
            self._sound.attach(self._container, suffix)
        context = stream.codec_context
        if self._template is not None and not lossless:
            context.flags |= int(av.codec.context.Flags.global_header)
        stream.width, stream.height = info.width, info.height
        stream.pix_fmt = self._layout = pixel_format(info)
        if lossless and self._layout == "gbrp":
            stream.pix_fmt = self._layout = "bgr0"  # the only RGB of 8 bits that FFV1 has
        context.time_base = info.time_base
        # FFmpeg wants a rate that is not too odd; timestamps say when frames are shown.
        context.framerate = info.frame_rate.limit_denominator(1001)
        context.sample_aspect_ratio = info.pixel_aspect.limit_denominator(65535)
        if lossless:
            stream.options = context.options = {"level": "3", "slicecrc": "1"}
        else:
            stream.options = context.options = {"crf": "10", "preset": "fast"}
            self.notes.append("coded again as H.264, nearly without loss; .mkv and .y4m lose nothing")
        primaries, transfer, matrix, full = info.colour
        context.color_primaries, context.color_trc, context.colorspace = primaries, transfer, matrix
        context.color_range = 2 if full else 1
        self._stream = stream
        if info.pixel_aspect != 1 and muxer == "matroska":
            stream.metadata["title"] = _ROOM  # for what `_say_shape` writes there
        self._lose("shape of pixels", info.pixel_aspect != 1 and lossless and muxer != "matroska")

    def _say_shape(self) -> None:
        """What PyAV cannot set in a Matroska file."""
        if self.info.pixel_aspect != 1 and self._kind == "mkv":
            self._lose("shape of pixels", not set_shape(self._file, self.info.pixel_aspect))

    def _write_sound(self, frame: VideoFrame | None) -> None:
        """What is heard before a frame, or after the last one."""
        if self._sound is None:
            return
        base, step = self.info.time_base, 1 / self.info.frame_rate
        if frame is not None:
            now = frame.timestamp * base
            self._first = now if self._first is None else self._first
            self._end = now + (frame.duration * base if frame.duration else step)
            self._sound.until(self._container, now, self._first)
        elif self._first is not None:
            self._sound.until(self._container, self._end if self._sound.part else None, self._first)

    def _encode(self, frame: VideoFrame | None) -> None:
        av = pyav()
        try:
            picture = None
            if frame is not None:
                picture = av.VideoFrame(self.info.width, self.info.height, pixel_format(self.info))
                for plane, samples in zip(picture.planes, frame.planes, strict=True):
                    rows = np.zeros((samples.shape[0], plane.line_size // samples.itemsize), samples.dtype)
                    rows[:, : samples.shape[1]] = samples
                    plane.update(_fitting(rows.tobytes(), plane.buffer_size))
                if self._layout != picture.format.name:
                    picture = picture.reformat(format=self._layout, src_color_range=2, dst_color_range=2)
                picture.pts = frame.timestamp
                picture.time_base = self.info.time_base
            packets = self._stream.encode(picture)
            self._write_sound(frame)
            for packet in packets:
                self._container.mux(packet)
        except av.FFmpegError as error:
            raise OutputError(
                f"{self._name}: cannot be encoded or written ({printable(reason_of(error))})"
            ) from error


def _fitting(data: bytes, size: int) -> bytes:
    """FFmpeg pads planes of odd sizes with rows that nobody sees."""
    return data[:size].ljust(size, b"\0")


def _y4m_header(info: VideoInfo) -> bytes:
    chroma = info.chroma.replace(":", "")
    deep = f"p{info.bit_depth}" if info.bit_depth > 8 else "jpeg" if chroma == "420" else ""
    span = "FULL" if info.colour[3] else "LIMITED"
    rate, aspect = info.frame_rate, info.pixel_aspect
    return (
        f"YUV4MPEG2 W{info.width} H{info.height} F{rate.numerator}:{rate.denominator} Ip "
        f"A{aspect.numerator}:{aspect.denominator} C{chroma}{deep} XCOLORRANGE={span}\n"
    ).encode()


# ---- RGB, where there is no place for it


def _without_rgb(info: VideoInfo) -> VideoInfo:
    primaries, transfer = info.colour[:2]
    return replace(info, chroma="4:4:4", colour=(primaries, transfer, usual_matrix(info.height), 0))


def _luma_and_chroma(planes: tuple[Plane, Plane, Plane], info: VideoInfo) -> tuple[Plane, Plane, Plane]:
    """Y, U and V of G, B and R of full range: as readers take it who are not told, of limited range."""
    red, blue = {1: (0.2126, 0.0722), 6: (0.299, 0.114)}[info.colour[2]]
    g, b, r = (plane / ((1 << info.bit_depth) - 1) for plane in planes)
    unit = 1 << info.bit_depth - 8
    y = red * r + (1 - red - blue) * g + blue * b
    found = (
        16 + 219 * y,
        128 + 224 * (b - y) / (2 * (1 - blue)),
        128 + 224 * (r - y) / (2 * (1 - red)),
    )
    dtype = planes[0].dtype
    first, second, third = (np.rint(part * unit).astype(dtype) for part in found)
    return first, second, third


# ---- sequences of pictures


def _pictures(path: str, force: bool) -> Callable[[int], Path] | None:
    """How pictures are called, if a path means pictures.

    Raises:
        OutputError: they cannot be written there.
    """
    found = PATTERN.fullmatch(Path(path).name)
    if path.endswith(("/", os.sep)) or Path(path).is_dir():
        folder = Path(path)
        _make_folder(folder, force)
        return lambda number: folder / f"{number:06d}.png"
    if found is None:
        return None
    if not found["end"].lower().endswith(".png"):
        raise OutputError(f"{printable(path)}: pictures are written as PNG; let the name end in .png")
    start, end = (found[part].replace("%%", "%") for part in ("start", "end"))
    folder, digits = Path(path).parent, int(found["digits"] or 0)
    check_output(folder / f"{start}{1:0{digits}d}{end}", force=force)
    # From 1, as other programs do.
    return lambda number: folder / f"{start}{number + 1:0{digits}d}{end}"


def _make_folder(folder: Path, force: bool) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not force and any(folder.iterdir()):
            raise OutputError(f"{printable(folder)}: is not empty; use --force to write into it")
    except OSError as error:
        if isinstance(error, LatensError):
            raise
        raise OutputError(f"{printable(folder)}: cannot be made ({error.strerror})") from error
