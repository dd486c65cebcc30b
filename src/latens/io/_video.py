"""Video files to planes of samples and back. PyAV (``pip install latens[video]``) does what is not written here."""

from __future__ import annotations

import logging
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from latens.errors import LatensError, OutputError, UnavailableError, VideoError
from latens.io._output import TemporaryOutput, check_output
from latens.io._text import printable

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["VIDEO_FORMATS", "RawVideo", "VideoFrame", "VideoInfo", "VideoSink", "VideoSource"]

Plane = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

STANDARD = "-"

# What is read is files, whatever they say inside: no playlists (hls, dash, concat), no network.
_DEMUXERS = (
    "aiff,apng,asf,avi,av1,dv,evc,ffmetadata,flv,gif,h261,h263,h264,hevc,ivf,m4v,matroska,webm,mjpeg,mjpeg_2000,mov,mp4,"
    "m4a,3gp,3g2,mj2,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,rm,swf,vc1,vvc,wtv,yuv4mpegpipe"
)
VIDEO_FORMATS = (
    ".mkv",
    ".mp4",
    ".mov",
    ".webm",
    ".avi",
    ".y4m",
    ".yuv",
    ".ivf",
    ".h264",
    ".h265",
    ".hevc",
    ".ts",
)
"""Usual suffixes of what can be read; what a file is, is found out from its content."""

_SUBSAMPLING = {"4:2:0": (2, 2), "4:2:2": (2, 1), "4:4:4": (1, 1)}  # along width and height
_MAX_SIDE = 65535
_MAX_PIXELS = 1 << 28
# A tick of less than 1/240,000 s would let timestamps of long films run out of range.
_FINEST = 240_000
_UNSPECIFIED = 2
_SIGNS_OF_A_CUT = ("ended prematurely", "partial file")
_MATRICES = (1, 4, 5, 6, 7, 9)


@dataclass(frozen=True)
class VideoInfo:
    """What all frames of a video have in common.

    Attributes:
        width: pixels.
        height: pixels.
        chroma: ``"4:2:0"``, ``"4:2:2"`` or ``"4:4:4"``.
        bit_depth: 8, 10 or 12.
        colour: code points of ITU-T H.273: primaries, transfer, matrix, full range.
        time_base: seconds per tick of a timestamp.
        frame_rate: nominal frames per second.
        frames: how many there are, if the file says so.
        notes: what is not kept, for people.
    """

    width: int
    height: int
    chroma: str = "4:2:0"
    bit_depth: int = 8
    colour: tuple[int, int, int, int] = (1, 1, 1, 0)
    time_base: Fraction = Fraction(1, 25)
    frame_rate: Fraction = Fraction(25)
    frames: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def plane_sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of Y, U and V."""
        across, down = _SUBSAMPLING[self.chroma]
        small = -(-self.height // down), -(-self.width // across)
        return (self.height, self.width), small, small


@dataclass(frozen=True)
class VideoFrame:
    """One frame.

    Attributes:
        planes: Y, U and V, ``(height, width)`` each as :attr:`VideoInfo.plane_sizes` says; uint8, or uint16 for more
            than 8 bits.
        timestamp: in ticks of the time base; rises.
        duration: ticks, if known.
    """

    planes: tuple[Plane, Plane, Plane]
    timestamp: int
    duration: int | None = None


@dataclass(frozen=True)
class RawVideo:
    """What a file of bare planes does not say about itself."""

    width: int
    height: int
    frame_rate: Fraction = Fraction(25)
    chroma: str = "4:2:0"
    bit_depth: int = 8

    def __post_init__(self) -> None:
        if self.chroma not in _SUBSAMPLING or self.bit_depth not in (8, 10, 12):
            raise VideoError(
                f"raw video: expected 4:2:0, 4:2:2 or 4:4:4 and 8, 10 or 12 bits, got {self.chroma} and "
                f"{self.bit_depth}"
            )
        if self.frame_rate <= 0:
            raise VideoError(f"raw video: the frame rate must be positive, not {self.frame_rate}")
        _check_size(self.width, self.height)


def _check_size(width: int, height: int) -> None:
    if not (1 <= width <= _MAX_SIDE and 1 <= height <= _MAX_SIDE and width * height <= _MAX_PIXELS):
        raise VideoError(
            f"frames of {width} x {height} pixels; sides must be 1 to {_MAX_SIDE}, pixels at most 2^28"
        )


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise UnavailableError(
            "video files need PyAV: pip install 'latens[video]' (raw .yuv and .y4m output work without)"
        ) from error
    # Nothing is printed: what is captured is looked at where it matters.
    logging.getLogger("libav").setLevel(logging.CRITICAL + 1)
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_libav_level(av.logging.ERROR)
    return av


# ---- reading


class VideoSource:
    """The frames of a video file, one after the other.

    Args:
        path: of a file that FFmpeg reads, or ``-`` for standard input.
        raw: the file is bare planes, laid out like this; else its content says what it is.

    Raises:
        VideoError: it is not a video, or one that cannot be coded: a playlist, no frame, frames too large.
        UnavailableError: PyAV is not installed.
    """

    info: VideoInfo

    def __init__(self, path: str, raw: RawVideo | None = None) -> None:
        self._path = path
        self._name = "standard input" if path == STANDARD else printable(path)
        self._file: Any = None
        self._container: Any = None
        self._frames: Iterator[VideoFrame]
        try:
            if path == STANDARD:
                if sys.stdin is None:
                    raise VideoError("standard input is closed")
                self._file = sys.stdin.buffer
            else:
                self._file = _open(path)
            self._frames = self._raw(raw) if raw is not None else self._decoded()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._container is not None:
            self._container.close()
        if self._file is not None and self._path != STANDARD:
            self._file.close()

    def frames(self) -> Iterator[VideoFrame]:
        """All frames, once.

        Raises:
            VideoError: damaged or cut input, no frame at all, or frames of different sizes.
        """
        return self._frames

    # -- bare planes

    def _raw(self, raw: RawVideo) -> Iterator[VideoFrame]:
        self.info = VideoInfo(
            raw.width,
            raw.height,
            raw.chroma,
            raw.bit_depth,
            _guess_colour(raw.height),
            1 / raw.frame_rate,
            raw.frame_rate,
        )
        return self._raw_frames()

    def _raw_frames(self) -> Iterator[VideoFrame]:
        info = self.info
        dtype = np.dtype("<u2" if info.bit_depth > 8 else "u1")
        counts = [height * width for height, width in info.plane_sizes]
        size = sum(counts) * dtype.itemsize
        number = 0
        while data := _read_all(self._file, size):
            if len(data) != size:
                raise VideoError(
                    f"ends inside frame {number}: {len(data)} of {size} bytes; wrong size or "
                    "pixel format, or the file is cut"
                )
            samples = np.frombuffer(data, dtype)
            if info.bit_depth > 8 and samples.max(initial=0) >= 1 << info.bit_depth:
                raise VideoError(f"frame {number} has samples of more than {info.bit_depth} bits")
            parts = np.split(samples, np.cumsum(counts)[:-1])
            y, u, v = (part.reshape(shape) for part, shape in zip(parts, info.plane_sizes, strict=True))
            yield VideoFrame((y, u, v), number, 1)
            number += 1
        if not number:
            raise VideoError("holds no frame")

    # -- everything else

    def _decoded(self) -> Iterator[VideoFrame]:
        av = _av()
        try:
            # The file is given open, and may not name others: nothing but its own bytes is ever read.
            self._container = av.open(
                self._file,
                options={"format_whitelist": _DEMUXERS, "protocol_whitelist": "file,pipe"},
            )
        except (av.FFmpegError, ValueError, OSError) as error:
            raise VideoError(
                f"is not a video that can be read ({printable(_reason(error))}); playlists and streams are refused"
            ) from error
        if not self._container.streams.video:
            raise VideoError("has no video")
        stream = self._container.streams.video[0]
        stream.thread_type = "AUTO"
        decoded = self._pictures(av, stream)
        try:
            first = next(decoded)
        except StopIteration:
            raise VideoError("holds no frame, or is cut within the first") from None
        self.info = _info(self._container, stream, first)
        return self._converted(av, stream, first, decoded)

    def _pictures(self, av: Any, stream: Any) -> Iterator[Any]:
        count = end = 0
        packets = self._container.demux(stream)
        try:
            while True:
                # That a file ends too early, FFmpeg only mentions.
                with av.logging.Capture() as said:
                    packet = next(packets, None)
                if packet is None:
                    break
                if packet.is_corrupt or any(sign in text for _, _, text in said for sign in _SIGNS_OF_A_CUT):
                    raise VideoError(f"is damaged, or cut, after frame {count}")
                if packet.size and packet.pos is not None:
                    end = packet.pos + packet.size
                for picture in packet.decode():
                    if picture.is_corrupt:
                        raise VideoError(f"frame {count} is damaged, or the file is cut there")
                    yield picture
                    count += 1
        except (av.FFmpegError, OSError) as error:
            raise VideoError(
                f"cannot be decoded after frame {count} ({printable(_reason(error))})"
            ) from error
        if 0 < count < stream.frames and stream.duration:
            raise VideoError(f"is cut: it announces {stream.frames} frames, and {count} can be decoded")
        if (
            count
            and self._container.format.name == "yuv4mpegpipe"
            and self._file.seekable()
            and end < self._file.seek(0, 2)
        ):
            raise VideoError(f"is cut within frame {count}")

    def _converted(self, av: Any, stream: Any, first: Any, rest: Iterator[Any]) -> Iterator[VideoFrame]:
        info = self.info
        wanted = _pixel_format(info)
        ticks_per = Fraction(stream.time_base) / info.time_base
        step = max(round(1 / info.frame_rate / info.time_base), 1)
        start: int | None = None
        last: int | None = None
        pending = first
        shape = first.width, first.height, first.format.name
        number = 0
        while pending is not None:
            found = pending.width, pending.height, pending.format.name
            if found != shape:
                raise VideoError(
                    f"changes at frame {number} from {shape[0]}x{shape[1]} {shape[2]} to "
                    f"{found[0]}x{found[1]} {found[2]}; cut it there"
                )
            if pending.pts is None:
                time = 0 if last is None else last + step
            else:
                ticks = round(pending.pts * ticks_per)
                start = ticks if start is None else start
                time = ticks - start
            if last is not None and time <= last:
                time = last + 1
            duration = round(pending.duration * ticks_per) if getattr(pending, "duration", None) else None
            try:
                picture = pending if found[2] == wanted else pending.reformat(format=wanted)
                planes = _planes(picture, info)
            except (av.FFmpegError, ValueError) as error:
                raise VideoError(
                    f"frame {number} cannot be converted ({printable(_reason(error))})"
                ) from error
            yield VideoFrame(planes, time, duration)
            last = time
            number += 1
            pending = next(rest, None)


def _open(path: str) -> BinaryIO:
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise VideoError("is a folder")
        if stat.S_ISREG(mode) and not Path(path).stat().st_size:
            raise VideoError("holds no frame: it is empty")
        return Path(path).open("rb")
    except (OSError, ValueError) as error:
        hint = "; only files and pipes are read" if "://" in path else ""
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise VideoError(f"cannot be read ({printable(reason)}){hint}") from error


def _read_all(file: BinaryIO, size: int) -> bytes:
    """Up to `size` bytes; fewer only at the end, of pipes too."""
    parts = []
    while size and (data := file.read(size)):
        parts.append(data)
        size -= len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _guess_colour(height: int) -> tuple[int, int, int, int]:
    """What most players take for video that does not say: BT.709 from 720 lines on, else BT.601."""
    return (1, 1, 1, 0) if height >= 720 else (6, 6, 6, 0)


def _info(container: Any, stream: Any, first: Any) -> VideoInfo:
    _check_size(first.width, first.height)
    notes = []
    if container.streams.audio:
        notes.append("sound is left out")
    if first.interlaced_frame:
        notes.append("fields are coded as whole frames")
    if first.rotation:
        notes.append(f"it is marked to be turned by {first.rotation} degrees, which is left out")
    aspect = stream.codec_context.sample_aspect_ratio
    if aspect and aspect != 1:
        notes.append(f"its pixels are not square ({aspect}), which is left out")
    name = first.format.name
    components = first.format.components
    is_rgb = first.format.is_rgb or name.startswith(("pal", "gbr"))
    depth = max(component.bits for component in components) if components else 8
    bit_depth = 8 if depth <= 8 or is_rgb else 10 if depth <= 10 else 12
    if depth > bit_depth:
        notes.append(f"samples of {depth} bits become {bit_depth}")
    if len(components) == 4 or name in ("rgba", "bgra", "argb", "abgr", "pal8"):
        notes.append("transparency is left out")
    if is_rgb:
        chroma = "4:4:4"
    elif len(components) < 3:
        chroma = "4:2:0"
    else:
        across, down = (
            4096 // size for size in (first.format.chroma_width(4096), first.format.chroma_height(4096))
        )
        chroma = next((name for name, sizes in _SUBSAMPLING.items() if sizes == (across, down)), "4:4:4")
    guess = _guess_colour(first.height)
    codes = [int(first.color_primaries), int(first.color_trc), int(first.colorspace)]
    primaries, transfer, matrix = (
        code if code not in (0, _UNSPECIFIED) else usual for code, usual in zip(codes, guess, strict=False)
    )
    if is_rgb or matrix not in _MATRICES:
        matrix = guess[2]
    full = int(int(first.color_range) == 2 or name.startswith("yuvj")) if not is_rgb else 0
    time_base = Fraction(stream.time_base) if stream.time_base else Fraction(1, 90_000)
    if 1 / time_base > _FINEST:
        time_base = Fraction(1, 90_000)
    rate = Fraction(stream.average_rate or stream.guessed_rate or stream.base_rate or 25)
    return VideoInfo(
        first.width,
        first.height,
        chroma,
        bit_depth,
        (primaries, transfer, matrix, full),
        time_base,
        rate if rate > 0 else Fraction(25),
        stream.frames or None,
        tuple(notes),
    )


def _pixel_format(info: VideoInfo) -> str:
    deep = "" if info.bit_depth == 8 else f"{info.bit_depth}le"
    return f"yuv{info.chroma.replace(':', '')}p{deep}"


def _planes(picture: Any, info: VideoInfo) -> tuple[Plane, Plane, Plane]:
    dtype = np.dtype("<u2" if info.bit_depth > 8 else "u1")
    found = []
    for plane, (height, width) in zip(picture.planes, info.plane_sizes, strict=True):
        rows = np.frombuffer(plane, dtype).reshape(-1, plane.line_size // dtype.itemsize)
        found.append(rows[:height, :width].copy())
    y, u, v = found
    return y, u, v


# ---- writing


class VideoSink:
    """Writes frames to a video file, which appears under its name when all is well, and not before.

    Args:
        path: ``.y4m``, ``.yuv`` (bare planes), a video file of PyAV (``.mkv`` without loss, ``.mp4`` and ``.mov`` as
            H.264 of high quality), or a folder (ends in ``/``) for PNG files; ``-`` is y4m on standard output.
        info: of the frames.
        force: replace what is there.
        inputs: files that must not be written over.

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
    ) -> None:
        self.info = info
        self.notes: list[str] = []
        self._name = "standard output" if path == STANDARD else printable(path)
        self._count = 0
        self._expected: int | None = None
        self._irregular = False
        self._output: TemporaryOutput | None = None
        self._file: Any = None
        self._container: Any = None
        self._folder: Path | None = None
        suffix = Path(path).suffix.lower()
        if path == STANDARD:
            if sys.stdout is None:
                raise OutputError("standard output is closed")
            self._file = sys.stdout.buffer
            self._kind = "y4m"
        elif path.endswith(("/", os.sep)) or Path(path).is_dir():
            self._kind = "png"
            self._open_folder(Path(path), force)
        else:
            self._kind = suffix.removeprefix(".")
            if self._kind not in ("y4m", "yuv"):
                _av()
            self._output = TemporaryOutput(path, force=force, inputs=inputs)
        try:
            with self._writing():
                if self._output is not None:
                    self._file = self._output.open()
                if self._kind == "y4m":
                    self._file.write(_y4m_header(info))
                elif self._kind not in ("yuv", "png"):
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

    def add(self, frame: VideoFrame, rgb: Callable[[], npt.NDArray[np.uint8]] | None = None) -> None:
        """Write the next frame.

        Args:
            frame: shaped as the video says.
            rgb: makes the same as ``(height, width, 3)``; PNG files need it.

        Raises:
            OutputError: it cannot be written.
        """
        step = round(1 / self.info.frame_rate / self.info.time_base)
        if self._expected is not None and abs(frame.timestamp - self._expected) > 1:
            self._irregular = True
        self._expected = frame.timestamp + step
        with self._writing():
            if self._kind == "png":
                self._write_png(rgb)
            elif self._container is not None:
                self._encode(frame)
            else:
                self._file.write(b"FRAME\n" if self._kind == "y4m" else b"")
                for plane in frame.planes:
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
                if self._irregular and self._kind in ("y4m", "yuv", "png"):
                    self.notes.append(f"frames come at varying times, which {self._kind} cannot say")
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
        if self._output is not None:
            self._output.discard()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Errors of the system, those that FFmpeg passes on included, as ours."""
        try:
            yield
        except (BrokenPipeError, LatensError):
            raise
        except OSError as error:
            raise OutputError(f"{self._name}: cannot be written ({printable(_reason(error))})") from error

    # -- kinds of files

    def _open_folder(self, folder: Path, force: bool) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not force and any(folder.iterdir()):
                raise OutputError(f"{printable(folder)}: is not empty; use --force to write into it")
        except OSError as error:
            if isinstance(error, LatensError):
                raise
            raise OutputError(f"{printable(folder)}: cannot be made ({error.strerror})") from error
        self._folder = folder

    def _write_png(self, rgb: Callable[[], npt.NDArray[np.uint8]] | None) -> None:
        from PIL import Image

        if self._folder is None or rgb is None:
            raise OutputError("PNG files need frames in RGB")
        target = self._folder / f"{self._count:06d}.png"
        check_output(target, force=True)
        try:
            Image.fromarray(rgb()).save(target)
        except OSError as error:
            raise OutputError(f"{printable(target)}: cannot be written ({error.strerror})") from error

    def _open_container(self, suffix: str) -> None:
        av = _av()
        info = self.info
        lossless = suffix not in (".mp4", ".mov", ".m4v")
        across, down = _SUBSAMPLING[info.chroma]
        if not lossless and (info.width % across or info.height % down or info.bit_depth > 10):
            raise OutputError(
                f"H.264 in {suffix} cannot hold {info.width} x {info.height} pixels with chroma {info.chroma} and "
                f"{info.bit_depth} bits: sides must be even where chroma is halved, and 10 bits are the most; "
                ".mkv and .y4m can"
            )
        try:
            muxer = {".mkv": "matroska", ".m4v": "mp4"}.get(suffix, suffix.removeprefix("."))
            self._container = av.open(self._file, "w", format=muxer)
            # FFmpeg wants a rate that is not too odd; timestamps say when frames are shown.
            rate = info.frame_rate.limit_denominator(1001)
            stream = self._container.add_stream("ffv1" if lossless else "libx264", rate=rate)
        except (av.FFmpegError, ValueError) as error:
            raise OutputError(
                f"a file of kind '{printable(suffix)}' cannot be written ({printable(_reason(error))}); .y4m, .mkv, "
                ".mp4, .yuv or a folder can"
            ) from error
        stream.width, stream.height = info.width, info.height
        stream.pix_fmt = _pixel_format(info)
        stream.codec_context.time_base = info.time_base
        if lossless:
            stream.options = {"level": "3", "slicecrc": "1"}
        else:
            stream.options = {"crf": "10", "preset": "fast"}
            self.notes.append("coded again as H.264, nearly without loss; .mkv and .y4m lose nothing")
        context = stream.codec_context
        primaries, transfer, matrix, full = info.colour
        context.color_primaries, context.color_trc, context.colorspace = primaries, transfer, matrix
        context.color_range = 2 if full else 1
        self._stream = stream

    def _encode(self, frame: VideoFrame | None) -> None:
        av = _av()
        try:
            picture = None
            if frame is not None:
                picture = av.VideoFrame(self.info.width, self.info.height, _pixel_format(self.info))
                for plane, samples in zip(picture.planes, frame.planes, strict=True):
                    rows = np.zeros((samples.shape[0], plane.line_size // samples.itemsize), samples.dtype)
                    rows[:, : samples.shape[1]] = samples
                    plane.update(_fitting(rows.tobytes(), plane.buffer_size))
                picture.pts = frame.timestamp
                picture.time_base = self.info.time_base
            for packet in self._stream.encode(picture):
                self._container.mux(packet)
        except av.FFmpegError as error:
            raise OutputError(
                f"{self._name}: cannot be encoded or written ({printable(_reason(error))})"
            ) from error


def _fitting(data: bytes, size: int) -> bytes:
    """FFmpeg pads planes of odd sizes with rows that nobody sees."""
    return data[:size].ljust(size, b"\0")


def _y4m_header(info: VideoInfo) -> bytes:
    chroma = info.chroma.replace(":", "")
    deep = f"p{info.bit_depth}" if info.bit_depth > 8 else "jpeg" if chroma == "420" else ""
    span = "FULL" if info.colour[3] else "LIMITED"
    rate = info.frame_rate
    return (
        f"YUV4MPEG2 W{info.width} H{info.height} F{rate.numerator}:{rate.denominator} Ip A1:1 C{chroma}{deep} "
        f"XCOLORRANGE={span}\n"
    ).encode()
