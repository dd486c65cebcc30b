"""Video files to planes of samples. PyAV (``pip install latens[video]``) does what is not written here."""

from __future__ import annotations

import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np

from latens.errors import VideoError
from latens.io import _boxes, _matroska
from latens.io._pictures import PATTERN, PictureSequence
from latens.io._sound import Sound
from latens.io._text import printable
from latens.io._turn import Turn, turn_of, turned_chroma
from latens.io._video import (
    STANDARD,
    UNSPECIFIED,
    Light,
    Mastering,
    RawVideo,
    VideoFrame,
    VideoInfo,
    check_size,
    pyav,
    reason_of,
    usual_matrix,
)
from latens.io._video_samples import Samples, colour_of, has_alpha, samples_of

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["VIDEO_FORMATS", "VideoSource"]

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

# A tick of less than 1/240,000 s would let timestamps of long films run out of range.
_FINEST = 240_000
_SIGNS = ("ended prematurely", "partial file", "CRC mismatch")
_ATTACHED_PICTURE = 0x400
# What frames may carry and files have no place for.
_SIDE_DATA = {
    "A53_CC": "captions",
    "AMBIENT_VIEWING_ENVIRONMENT": "ambient light",
    "DOVI_METADATA": "Dolby Vision",
    "DOVI_RPU_BUFFER": "Dolby Vision",
    "DYNAMIC_HDR_PLUS": "HDR10+",
    "DYNAMIC_HDR_VIVID": "HDR Vivid",
    "GOP_TIMECODE": "time code",
    "ICC_PROFILE": "colour profile",
    "S12M_TIMECODE": "time code",
    "SPHERICAL": "spherical projection",
    "STEREO3D": "stereo arrangement",
}
# What every file says of how it was made is not worth a word.
_DULL_TAGS = frozenset(
    {
        *(
            "alpha_mode",
            "bps",
            "brand",
            "compatible_brands",
            "creation_time",
            "duration",
            "encoded_by",
            "encoder",
        ),
        *("handler_name", "language", "major_brand", "minor_version", "number_of_bytes", "number_of_frames"),
        *("software", "vendor_id"),
    }
)


class VideoSource:
    """The frames of a video file, one after the other, turned as the file wants them shown.

    Args:
        path: of a file that FFmpeg reads, ``-`` for standard input,
            or a folder of pictures or their name, ``frame_%04d.png``.
        raw: the file is bare planes, laid out like this; else its content says what it is.
        sound: keep it.
        rate: frames per second of pictures.

    Attributes:
        info: of the frames.
        sound: that goes with them, if it is kept and there is any; it grows while frames are read.
        notes: sentences about what was converted; reading may add some.
        not_kept: names of what the file has and frames do not; reading may add some.

    Raises:
        VideoError: it is not a video, or one that cannot be coded: a playlist, no frame, frames too large.
        UnavailableError: PyAV is not installed.
    """

    info: VideoInfo

    def __init__(
        self, path: str, raw: RawVideo | None = None, *, sound: bool = False, rate: Fraction = Fraction(25)
    ) -> None:
        self.sound: Sound | None = None
        self.notes: list[str] = []
        self.not_kept: list[str] = []
        self._path = path
        self._file: Any = None
        self._container: Any = None
        self._frames: Iterator[VideoFrame]
        if raw is None and _are_pictures(path):
            if rate <= 0:
                raise VideoError(f"the frame rate must be positive, not {rate}")
            pictures = PictureSequence(path, rate)
            self.info, self.not_kept, self._frames = pictures.info, pictures.lost, pictures.frames()
            return
        try:
            if path == STANDARD:
                if sys.stdin is None:
                    raise VideoError("standard input is closed")
                self._file = sys.stdin.buffer
            else:
                self._file = _open(path)
            self._frames = self._raw(raw) if raw is not None else self._decoded(sound)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self.sound is not None:
            self.sound.close()
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

    def _lose(self, name: str) -> None:
        if name not in self.not_kept:
            self.not_kept.append(name)

    def _note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)

    # -- bare planes

    def _raw(self, raw: RawVideo) -> Iterator[VideoFrame]:
        self.info = VideoInfo(
            raw.width,
            raw.height,
            raw.chroma,
            raw.bit_depth,
            (UNSPECIFIED, UNSPECIFIED, usual_matrix(raw.height), 0),
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

    def _decoded(self, sound: bool) -> Iterator[VideoFrame]:
        av = pyav()
        try:
            # The file is given open, and may not name others: nothing but its own bytes is ever read.
            self._container = av.open(
                self._file,
                options={"format_whitelist": _DEMUXERS, "protocol_whitelist": "file,pipe"},
            )
        except (av.FFmpegError, ValueError, OSError) as error:
            raise VideoError(
                f"is not a video that can be read ({printable(reason_of(error))}); playlists and streams are refused"
            ) from error
        moving = [s for s in self._container.streams.video if not int(s.disposition) & _ATTACHED_PICTURE]
        if not moving:
            raise VideoError("has no video")
        stream = moving[0]
        if stream.codec_context is None:
            raise VideoError("is coded in a way that is not known here; convert it first, or update PyAV")
        # Threads of FFmpeg that log wait for Python's lock, which whoever ends them may hold: both would wait for
        # ever. One thread is enough for what follows.
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        if sound and self._container.streams.audio:
            self.sound = Sound(self._container.streams.audio)
        decoded = self._pictures(av, stream)
        try:
            first = next(decoded)
        except StopIteration:
            raise VideoError("holds no frame, or is cut within the first") from None
        if self.sound is not None:
            self.sound.begin(Fraction(first.pts or 0) * Fraction(stream.time_base))
        self._name_what_is_left_out(stream)
        samples = samples_of(first)
        self.info = _info(stream, first, samples, _shown(self._container, stream))
        if samples.depth > samples.bit_depth:
            self._lose(f"samples of {samples.depth} bits ({samples.bit_depth} are)")
        return self._converted(av, stream, samples, first, decoded)

    def _name_what_is_left_out(self, stream: Any) -> None:
        container = self._container
        streams = container.streams
        for others, name in (
            (() if self.sound is not None else streams.audio, "sound"),
            (streams.subtitles, "subtitles"),
            (
                [s for s in streams.video if s is not stream and not int(s.disposition) & _ATTACHED_PICTURE],
                "other video tracks",
            ),
            ([s for s in streams.video if int(s.disposition) & _ATTACHED_PICTURE], "cover picture"),
            (streams.attachments, "attachments"),
            (streams.data, "data tracks"),
        ):
            if others:
                self._lose(name)
        if self._file.seekable() and _is_cropped(self._file, container.format.name):
            self._lose("cropping (frames are coded whole)")
        with suppress(Exception):
            if container.chapters():
                self._lose("chapters")
        tags = {key.lower() for key in (*container.metadata, *stream.metadata)}
        interesting = sorted(
            tag for tag in tags if tag not in _DULL_TAGS and not tag.startswith("_statistics")
        )
        if interesting:
            self._lose(f"tags ({printable(', '.join(interesting))[:200]})")
        if str(stream.metadata.get("alpha_mode", "0")) == "1":
            self._lose("transparency")

    def _pictures(self, av: Any, stream: Any) -> Iterator[Any]:
        count = end = found = 0
        announced = _announced(self._container, stream)
        tracks = () if self.sound is None else self._container.streams.audio
        packets = self._container.demux(stream, *tracks)
        try:
            while True:
                # That a file ends too early, or that a checksum is wrong, FFmpeg only mentions.
                with av.logging.Capture() as said:
                    packet = next(packets, None)
                    if packet is None:
                        break
                    is_frame = packet.stream_index == stream.index
                    pictures = packet.decode() if is_frame and not packet.is_corrupt else []
                if not is_frame:
                    if self.sound is not None:
                        self.sound.add(packet)
                    continue
                if packet.is_corrupt or any(sign in text for _, _, text in said for sign in _SIGNS):
                    raise VideoError(f"is damaged, or cut, after frame {count}")
                if packet.size:
                    found += 1
                    if packet.pos is not None:
                        end = packet.pos + packet.size
                for picture in pictures:
                    if picture.is_corrupt:
                        raise VideoError(f"frame {count} is damaged, or the file is cut there")
                    yield picture
                    count += 1
        except (av.FFmpegError, OSError) as error:
            raise VideoError(
                f"cannot be decoded after frame {count} ({printable(reason_of(error))})"
            ) from error
        if count and found < announced:
            raise VideoError(f"is cut: it announces {announced} frames, and {found} are there")
        if count and self._container.format.name == "yuv4mpegpipe" and end < (_size(self._file) or 0):
            raise VideoError(f"is cut within frame {count}")
        if count and _is_cut(self._file, self._container.format.name):
            raise VideoError(f"is cut after frame {count}")

    def _converted(
        self, av: Any, stream: Any, samples: Samples, first: Any, rest: Iterator[Any]
    ) -> Iterator[VideoFrame]:
        info = self.info
        ticks_per = Fraction(stream.time_base) / info.time_base
        step = max(round(1 / info.frame_rate / info.time_base), 1)
        start: int | None = None
        last: int | None = None
        pending = first
        shape: tuple[Any, ...] | None = None
        turn = Turn()
        number = 0
        while pending is not None:
            turn = self._look_at(pending, turn)
            found = pending.width, pending.height, pending.format.name, turn, colour_of(pending, samples)
            shape = shape or found
            if found != shape:
                raise VideoError(_change(number, shape, found))
            if pending.pts is None:
                time = 0 if last is None else last + step
            else:
                ticks = round(pending.pts * ticks_per)
                start = ticks if start is None else start
                time = ticks - start
            if last is not None and time <= last:
                if pending.pts is not None and time < last:
                    self._note(
                        "its timestamps go back somewhere; frames from there on come one after the other"
                    )
                time = last + 1
            duration = round(pending.duration * ticks_per) if getattr(pending, "duration", None) else None
            try:
                chroma = samples.chroma
                planes = samples.planes(pending, bool(info.colour[3]))
            except (av.FFmpegError, ValueError) as error:
                raise VideoError(
                    f"frame {number} cannot be converted ({printable(reason_of(error))})"
                ) from error
            y, u, v = turn.apply(planes, chroma)
            yield VideoFrame((y, u, v), time, duration)
            last = time
            number += 1
            pending = next(rest, None)

    def _look_at(self, frame: Any, turn: Turn) -> Turn:
        """How to turn a frame: as it says, or as one before said. What it has and cannot be kept is named."""
        if frame.interlaced_frame:
            self._lose("interlacing (fields are coded as whole frames)")
        if has_alpha(frame):
            self._lose("transparency")
        side = _side_data(frame)
        for name in side:
            if name in _SIDE_DATA:
                self._lose(_SIDE_DATA[name])
        if "DISPLAYMATRIX" in side:
            turn, lost = turn_of(side["DISPLAYMATRIX"])
            if lost:
                self._lose(lost)
        return turn


def _are_pictures(path: str) -> bool:
    """Whether a folder is meant, or a name with a number in it that is not the name of a file."""
    try:
        return Path(path).is_dir() or (
            PATTERN.fullmatch(Path(path).name) is not None and not Path(path).exists()
        )
    except (OSError, ValueError):
        return False


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


def _size(file: Any) -> int | None:
    """Of a file; of a pipe nobody knows."""
    if not file.seekable():
        return None
    size: int = file.seek(0, 2)
    return size


def _announced(container: Any, stream: Any) -> int:
    """How many packets a file promises. An edit list shows fewer frames, or some of them twice: FFmpeg's index of
    what is to be read tells. The number in the header of an AVI counts ticks, not frames."""
    if container.format.name.startswith("mov,"):
        return len(stream.index_entries)
    return 0 if container.format.name == "avi" else int(stream.frames or 0)


def _shown(container: Any, stream: Any) -> int | None:
    """How many frames a file says that it shows."""
    if container.format.name.startswith("mov,"):
        return sum(not entry.is_discard for entry in stream.index_entries) or None
    return _announced(container, stream) or None


def _is_cropped(file: Any, kind: str) -> bool:
    """Whether a container wants less to be shown than frames have. Its position stays."""
    position = file.tell()
    try:
        if kind.startswith("mov,"):
            return _boxes.is_cropped(file)
        return kind.startswith("matroska") and _matroska.is_cropped(file)
    finally:
        file.seek(position)


def _is_cut(file: Any, kind: str) -> bool:
    """Whether a file is shorter than its outermost chunk says: a cut between two frames leaves no other trace."""
    size = _size(file)
    if size is None:
        return False
    file.seek(0)
    head = file.read(256)
    claimed = None
    if kind == "avi":
        claimed = 8 + int.from_bytes(head[4:8], "little")
        if claimed >= 0xFFFFFFFF:
            claimed = None
    elif kind.startswith("matroska"):
        at = head.find(b"\x18\x53\x80\x67") + 4
        length = 9 - head[at].bit_length() if at > 3 and at + 8 < len(head) and head[at] else 0
        mask = (1 << 7 * length) - 1
        value = int.from_bytes(head[at : at + length], "big") & mask
        # All ones: it is not known.
        claimed = at + length + value if length and value != mask else None
    return claimed is not None and claimed > size


def _change(number: int, before: tuple[Any, ...], after: tuple[Any, ...]) -> str:
    if before[:3] != after[:3]:
        was, now = (f"{width}x{height} {name}" for width, height, name in (before[:3], after[:3]))
    elif before[3] != after[3]:
        was, now = "one way of turning frames", "another"
    else:
        was, now = (f"colours {'/'.join(map(str, shape[4]))}" for shape in (before, after))
    return f"changes at frame {number} from {was} to {now}; cut it there"


def _side_data(frame: Any) -> dict[str, bytes]:
    """Of kinds that PyAV knows."""
    found: dict[str, bytes] = {}
    with suppress(Exception):
        for item in frame.side_data:
            with suppress(Exception):
                found.setdefault(str(item.type.name), bytes(item))
    return found


def _info(stream: Any, first: Any, samples: Samples, frames: int | None) -> VideoInfo:
    check_size(first.width, first.height)
    side = _side_data(first)
    turn, _ = turn_of(side["DISPLAYMATRIX"]) if "DISPLAYMATRIX" in side else (Turn(), None)
    width, height = (first.height, first.width) if turn.transpose else (first.width, first.height)
    aspect = Fraction(stream.codec_context.sample_aspect_ratio or stream.sample_aspect_ratio or 1)
    if aspect <= 0:
        aspect = Fraction(1)
    time_base = Fraction(stream.time_base) if stream.time_base else Fraction(1, 90_000)
    if 1 / time_base > _FINEST:
        time_base = Fraction(1, 90_000)
    rate = Fraction(stream.average_rate or stream.guessed_rate or stream.base_rate or 25)
    return VideoInfo(
        width,
        height,
        turned_chroma(turn, samples.chroma, first.width, first.height),
        samples.bit_depth,
        colour_of(first, samples),
        time_base,
        rate if rate > 0 else Fraction(25),
        frames,
        1 / aspect if turn.transpose else aspect,
        _mastering(side.get("MASTERING_DISPLAY_METADATA")),
        _light(side.get("CONTENT_LIGHT_LEVEL")),
    )


def _mastering(data: bytes | None) -> Mastering | None:
    """FFmpeg's: ten rationals (x, y of red, green, blue, white; darkest, brightest), then what of them is known."""
    if data is None or len(data) < 88:
        return None
    *numbers, has_primaries, has_luminance = struct.unpack("=22i", data[:88])

    def steps(index: int, per_unit: int, limit: int, known: int) -> int:
        top, bottom = numbers[2 * index : 2 * index + 2]
        return min(max(round(Fraction(top * per_unit, bottom)), 0), limit) if known and bottom else 0

    points = [steps(i, 50_000, 0xFFFF, has_primaries) for i in range(8)]
    darkest, brightest = (steps(i, 10_000, 0xFFFFFFFF, has_luminance) for i in (8, 9))
    red, green, blue, white = zip(points[::2], points[1::2], strict=True)
    found = Mastering(red, green, blue, white, brightest, darkest)
    return found if any(points) or brightest or darkest else None


def _light(data: bytes | None) -> Light | None:
    if data is None or len(data) < 8:
        return None
    found = Light(*(min(value, 0xFFFF) for value in struct.unpack("=2I", data[:8])))
    return found if any(found) else None
