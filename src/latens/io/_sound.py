"""Sound that goes with a video, as it is: its packets in a Matroska file of their own, and out of it again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, BinaryIO

from latens.errors import OutputError, VideoError
from latens.io._text import printable
from latens.io._video import pyav, reason_of

__all__ = ["Sound", "SoundFile"]

_MICRO = 1_000_000


class _Parts:
    """What is written to it, bit by bit; it cannot be seeked in."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def take(self) -> bytes:
        data = bytes(self._data)
        self._data.clear()
        return data


class Sound:
    """All tracks of sound of a file that is read, put into a Matroska file packet by packet.

    Attributes:
        start: when on that file's clock the first frame is shown, in microseconds.

    Raises:
        VideoError: sound of a kind that Matroska cannot hold.
    """

    start: int = 0

    def __init__(self, streams: Sequence[Any]) -> None:
        av = pyav()
        self.parts = _Parts()
        self._base: Fraction | None = None
        self._waiting: list[Any] = []
        self._container = av.open(self.parts, "w", format="matroska")
        self._tracks = {}
        try:
            for stream in streams:
                if stream.codec_context is None:
                    raise ValueError("its codec is not known")
                track = self._container.add_stream_from_template(stream)
                told = {k: v for k, v in stream.metadata.items() if k.lower() in ("language", "title")}
                track.metadata.update(told)
                self._tracks[stream.index] = track
        except (av.FFmpegError, ValueError) as error:
            raise VideoError(
                f"its sound cannot be kept ({printable(reason_of(error))}); leave out --audio copy"
            ) from error
        self._starts = [
            Fraction(s.start_time) * s.time_base for s in streams if s.start_time is not None and s.time_base
        ]

    def begin(self, first_frame: Fraction) -> None:
        """Packets are written from now on; the first frame is shown at so many seconds."""
        times = [_time(packet) for packet in self._waiting]
        self._base = min([first_frame, *self._starts, *times])
        self.start = round((first_frame - self._base) * _MICRO)
        if self.start >= 1 << 35:
            raise VideoError("its sound begins hours before its frames; leave out --audio copy")
        for packet in self._waiting:
            self._write(packet)
        self._waiting.clear()

    def add(self, packet: Any) -> None:
        """The next packet of one of the tracks."""
        if packet.is_corrupt:
            raise VideoError("its sound is damaged, or cut; leave out --audio copy to go without")
        if not packet.size or packet.is_discard:
            return
        if self._base is None:
            self._waiting.append(packet)
        else:
            self._write(packet)

    def _write(self, packet: Any) -> None:
        av = pyav()
        shift = round((self._base or 0) / packet.time_base)
        # Matroska knows no time before its beginning.
        packet.pts = max((packet.dts if packet.pts is None else packet.pts) - shift, 0)
        packet.dts = packet.pts if packet.dts is None else max(packet.dts - shift, 0)
        packet.stream = self._tracks[packet.stream_index]
        try:
            self._container.mux(packet)
        except av.FFmpegError as error:
            raise VideoError(
                f"its sound cannot be kept ({printable(reason_of(error))}); leave out --audio copy"
            ) from error

    def take(self) -> bytes:
        """The file's next bytes, as far as there are any."""
        return self.parts.take()

    def finish(self) -> bytes:
        """The file's last bytes."""
        self.close()
        return self.parts.take()

    def close(self) -> None:
        """End the file."""
        if self._container is not None:
            try:
                self._container.close()
            finally:
                self._container = None


def _time(packet: Any) -> Fraction:
    ticks = packet.dts if packet.pts is None else packet.pts
    if ticks is None:
        raise VideoError("its sound has no times; leave out --audio copy")
    return Fraction(ticks) * Fraction(packet.time_base)


class SoundFile:
    """Sound that was kept, to be written along with frames.

    Args:
        file: the Matroska file, seekable; it stays open.
        start: see :attr:`Sound.start`.
        part: frames are not all there are: sound before the first and behind the last is left out.

    Raises:
        VideoError: it is damaged, or something else than sound.
    """

    def __init__(self, file: BinaryIO, start: int, part: bool = False) -> None:
        av = pyav()
        self.part = part
        self._start = Fraction(start, _MICRO)
        self._tracks: dict[int, Any] = {}
        file.seek(0)
        try:
            self._container = av.open(
                file,
                format="matroska",
                options={"protocol_whitelist": "file,pipe"},
            )
        except (av.FFmpegError, ValueError, OSError) as error:
            raise VideoError(f"its sound is damaged ({printable(reason_of(error))})") from error
        streams = self._container.streams
        if not streams.audio or len(streams.audio) != len(streams):
            raise VideoError("its sound is damaged: there must be nothing but tracks of sound")
        self._packets: Iterator[Any] = iter(self._container.demux(streams.audio))
        self._ahead: Any = None

    def attach(self, container: Any, kind: str) -> None:
        """Add the tracks to a file that is written.

        Raises:
            OutputError: such a file cannot hold this sound.
        """
        av = pyav()
        name = "?"
        try:
            for stream in self._container.streams.audio:
                name = stream.codec_context.name if stream.codec_context is not None else "?"
                track = container.add_stream_from_template(stream)
                track.metadata.update(dict(stream.metadata))
                self._tracks[stream.index] = track
        except (av.FFmpegError, ValueError, AttributeError) as error:
            raise OutputError(
                f"sound of kind {printable(name)} cannot be put into {printable(kind)}; .mkv can hold it"
            ) from error

    def until(self, container: Any, time: Fraction | None, first: Fraction) -> None:
        """Write what is heard before a time, or all; in seconds, as `first`, when the first frame written is shown.

        Raises:
            VideoError: it is damaged.
        """
        av = pyav()
        while True:
            try:
                packet = self._ahead or next(self._packets, None)
            except (av.FFmpegError, OSError) as error:
                raise VideoError(f"its sound is damaged ({printable(reason_of(error))})") from error
            self._ahead = None
            if packet is None:
                return
            if not packet.size:
                continue
            if packet.is_corrupt:
                raise VideoError("its sound is damaged")
            heard = _time(packet) - self._start
            if time is not None and heard >= time:
                self._ahead = packet
                return
            if self.part and heard < first:
                continue
            shift = round(self._start / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts = None if packet.dts is None else packet.dts - shift
            packet.stream = self._tracks[packet.stream_index]
            container.mux(packet)

    def close(self) -> None:
        """Forget it."""
        self._container.close()
