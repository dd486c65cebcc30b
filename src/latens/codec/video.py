"""Videos to ``.ltn`` and back, frame by frame: joins the container, planes of samples and models."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from latens import format as ltn
from latens.codec import recording
from latens.codec.rate import Budget
from latens.codec.structure import DEFAULT_STRUCTURE, Structure, plan
from latens.entropy_coding.lossless import Blocks
from latens.errors import ChecksumError, CoderError, FormatError, VideoError, WrongWeightsError
from latens.io import Light, Mastering, Sound, VideoFrame, VideoInfo
from latens.runtime.coding import Samples, VideoFileModel
from latens.runtime.factors import QUALITY_MAX
from latens.runtime.planes import planes_from_rgb, rgb_from_planes
from latens.zoo.weights import load_video

__all__ = ["DEFAULT_QUALITY", "CodedFrame", "DecodedFrame", "VideoCodec"]

DEFAULT_QUALITY = 50.0
"""Of weights that have all qualities."""


@dataclass(frozen=True)
class CodedFrame:
    """What became of a frame that was coded.

    Attributes:
        number: from 0.
        key: whether it needs no other.
        bytes: of its coder streams.
        frame: as a decoder will have it.
    """

    number: int
    key: bool
    bytes: int
    frame: VideoFrame


@dataclass(frozen=True)
class DecodedFrame:
    """A decoded frame.

    Attributes:
        number: from 0; where some are missing, they were lost.
        key: whether it needs no other.
        frame: its samples.
        rgb: ``(H, W, 3)`` uint16.
    """

    number: int
    key: bool
    frame: VideoFrame
    rgb: Samples

    def rgb8(self) -> npt.NDArray[np.uint8]:
        """The same of 8 bits."""
        return ((self.rgb.astype(np.uint32) * 255 + 32_767) // 65_535).astype(np.uint8)

    def rgb16(self) -> Samples:
        """The same, for whoever takes a function."""
        return self.rgb


class VideoCodec:
    """Codes videos with one model.

    Args:
        model: a loaded model, or what :func:`latens.zoo.weights.load_video` takes.
    """

    def __init__(self, model: VideoFileModel | str | os.PathLike[str]) -> None:
        self.model = load_video(model) if isinstance(model, str | os.PathLike) else model

    @property
    def qualities(self) -> bool:
        """Whether the weights have all qualities."""
        return self.model.qualities

    # -- encoding ------------------------------------------------------------------------------------------

    def encode(
        self,
        info: VideoInfo,
        frames: Iterable[VideoFrame],
        file: BinaryIO,
        *,
        structure: Structure = DEFAULT_STRUCTURE,
        quality: float | None = None,
        sound: Sound | None = None,
        budget: Budget | None = None,
        content: str = "auto",
    ) -> Iterator[CodedFrame]:
        """Write the ``.ltn`` file of a video; a frame is in the file when it is yielded, in the order of coding.

        Args:
            info: of the frames.
            frames: with rising timestamps.
            file: opened for writing bytes.
            structure: which frames are coded alone, and which between others.
            quality: 0 to 100, 50 by default; None for weights that have one only.
            sound: that goes with the frames; see :attr:`latens.io.VideoSource.sound`.
            budget: of bytes, from a first pass over the same frames (:mod:`latens.codec.rate`), in place of a quality.
            content: "photo" leaves everything to the model; with "auto" what is drawn, as on a screen, loses nothing.

        Yields:
            What became of each frame.

        Raises:
            VideoError: no frame, frames that do not fit ``info``, timestamps that do not rise, or a quality or
                content that there is not.
            LimitError: too large for a file.
            ModelError: the weights give values that are not finite.
        """
        if content not in ("auto", "photo"):
            raise VideoError(f"content of a video is auto or photo, not {content!a:.40}")
        level = self._level(quality if budget is None else budget.quality)
        header = ltn.VideoHeader(
            width=info.width,
            height=info.height,
            model=self.model.id,
            entropy_id=self.model.entropy_id[:8],
            weights_id=self.model.weights_id[:8],
            quality=level,
            skip=self.model.skip,
            chroma=info.chroma,
            bit_depth=info.bit_depth,
            colour=ltn.Cicp(*info.colour),
            time_base=info.time_base.as_integer_ratio(),
            frame_rate=info.frame_rate.as_integer_ratio(),
        )
        writer = ltn.VideoWriter(file, header, extras_of(info))
        if not self.model.structured:
            structure = replace(structure, bframes=0)
        step = max(round(1 / info.frame_rate / info.time_base), 1)
        shown = info.height, info.width
        pictures: dict[int, Samples] = {}
        drawn: dict[int, Blocks | None] = {}  # squares of the pictures
        last: VideoFrame | None = None
        better = 0  # steps of quality above the header's
        for planned in plan(frames, structure, info.bit_depth):
            frame, number = planned.frame, planned.number
            references = [pictures[other] for other in planned.references]
            if budget is not None and len(references) < 2:
                better = round((self._level(budget.quality) - level) / ltn.QUALITY_STEP)
            own = self._own_level(level, planned.bonus + better, not references)
            picture = self._picture(frame, info)
            given = picture, references, own, info.bit_depth, shown
            before = drawn[planned.references[0]] if references else None
            if content == "auto" and self.model.structured:
                found, exact, drawn[number] = recording.encode(self.model, before, *given)
            else:
                found, exact, drawn[number] = self.model.encode(*given), None, None
            checksum = found.checksum if not references or not self.model.structured else None
            coded = ltn.Frame(
                number,
                frame.timestamp,
                planned.references,
                checksum,
                found.streams,
                None if own == level else own,
                exact,
            )
            if sound is not None:
                writer.add_sound(sound.take(), sound.start)
            writer.add(coded)
            pictures[number] = found.picture
            pictures = {other: pictures[other] for other in (writer.order.ready, *writer.order.waiting)}
            drawn = {other: drawn[other] for other in pictures}
            if budget is not None:
                budget.spend(number, coded.size)
            if last is None or frame.timestamp > last.timestamp:
                last = frame
            yield CodedFrame(number, coded.key, coded.size, self._frame(found.picture, info, frame))
        if last is None:
            raise VideoError("holds no frame")
        if sound is not None:
            writer.add_sound(sound.finish(), sound.start)
        writer.finish(last.timestamp + (last.duration or step))

    def _own_level(self, level: int, bonus: int, key: bool) -> int:
        """The quality of a frame, near to what is wanted."""
        if not self.model.structured:
            return level
        if key:
            return min(max(level + bonus * ltn.QUALITY_STEP, 0), QUALITY_MAX)
        low, high = -(level // ltn.QUALITY_STEP), (QUALITY_MAX - level) // ltn.QUALITY_STEP
        return level + min(max(bonus, low, -16), high, 15) * ltn.QUALITY_STEP

    def _picture(self, frame: VideoFrame, info: VideoInfo) -> Samples:
        """RGB, its border repeated up to the grid."""
        if tuple(plane.shape for plane in frame.planes) != info.plane_sizes:
            raise VideoError(
                f"a frame with planes {[plane.shape for plane in frame.planes]}, where "
                f"{list(info.plane_sizes)} are expected"
            )
        rgb = rgb_from_planes(frame.planes, info.chroma, info.bit_depth, info.colour)
        height, width = self._padded(info.height, info.width)
        return np.pad(rgb, ((0, height - info.height), (0, width - info.width), (0, 0)), mode="edge")

    def _padded(self, height: int, width: int) -> tuple[int, int]:
        return height + -height % self.model.grid, width + -width % self.model.grid

    def _level(self, quality: float | None) -> int:
        """The header's quality."""
        if not self.model.qualities:
            if quality is not None:
                raise VideoError(f"{self.model.id} has one quality; leave quality out")
            return 0
        if quality is None:
            quality = DEFAULT_QUALITY
        if not 0 <= quality <= 100:
            raise VideoError(f"quality must be between 0 and 100, got {quality}")
        return round(quality / 100 * QUALITY_MAX)

    # -- decoding ------------------------------------------------------------------------------------------

    def decode(
        self,
        reader: ltn.VideoReader,
        *,
        on_error: Literal["raise", "conceal"] = "raise",
        other_weights: bool = False,
    ) -> Iterator[DecodedFrame]:
        """The frames of a file, in the order of showing.

        Args:
            reader: of the file, made with the same ``on_error``; its ``problems`` tell what was lost.
            on_error: "conceal" leaves out frames that are damaged, and those that need them.
            other_weights: accept other weights for the pixels than the file was made with.

        Raises:
            WrongWeightsError: the file needs another entropy model or other weights.
            VersionError: matrix coefficients of colour that are not known.
            CoderError, ChecksumError: a frame is damaged.
            FormatError: the file is damaged, or nothing of it can be decoded.
            ModelError: the weights give values that are not finite.
        """
        header = reader.header
        self._check_identity(header, other_weights)
        info = info_of(header, reader.extras)
        pictures: dict[int, Samples] = {}
        hidden: dict[int, ltn.Frame] = {}
        delivered = False

        def shown(up_to: float) -> Iterator[DecodedFrame]:
            nonlocal delivered
            for number in sorted(number for number in hidden if number <= up_to):
                frame, picture = hidden.pop(number), pictures[number]
                planes = self._frame(picture, info, VideoFrame((_NONE, _NONE, _NONE), frame.timestamp))
                delivered = True
                yield DecodedFrame(number, frame.key, planes, picture[: header.height, : header.width])

        for frame in reader.frames():
            if frame.key:
                yield from shown(frame.number - 1)
            if all(other in pictures for other in frame.references):
                try:
                    references = [pictures[other] for other in frame.references]
                    pictures[frame.number] = self._decode(frame, references, header)
                    hidden[frame.number] = frame
                except (ChecksumError, CoderError, FormatError) as error:
                    if on_error == "raise":
                        raise type(error)(f"frame {frame.number}: {error}") from error
                    reader.problems.append(f"frame {frame.number}: {error}")
            else:
                reader.problems.append(f"frame {frame.number} needs one that is lost")
            yield from shown(reader.order.ready)
            held = {reader.order.ready, *reader.order.waiting}
            pictures = {number: picture for number, picture in pictures.items() if number in held}
        yield from shown(float("inf"))
        if not delivered:
            raise FormatError(f"nothing of the video can be saved: {'; '.join(reader.problems)[:500]}")

    def _check_identity(self, header: ltn.VideoHeader, other_weights: bool) -> None:
        have = self.model.entropy_id[:8]
        if header.entropy_id != have:
            raise WrongWeightsError(
                f"the file was made with entropy model {header.entropy_id} of {header.model}, {self.model.id} at hand "
                f"has {have}; give the weights that the file was made with (--model)"
            )
        have = self.model.weights_id[:8]
        if header.weights_id != have and not other_weights:
            raise WrongWeightsError(
                f"the file was made with weights {header.weights_id}, {self.model.id} at hand has {have}; "
                "use --other-weights (other_weights=True) to accept other pixels"
            )

    def _decode(self, frame: ltn.Frame, references: list[Samples], header: ltn.VideoHeader) -> Samples:
        shape = self._padded(header.height, header.width)
        squares = None
        if frame.drawn is not None:
            if not self.model.structured:
                raise FormatError(f"{self.model.id} knows no drawn squares")
            squares = recording.read(frame.drawn, frame.key, shape, header.bit_depth)
        kept = None if squares is None else squares.drawn
        checksum, picture = self.model.decode(frame, references, shape, header, kept)
        if frame.checksum is not None and checksum != frame.checksum:
            raise ChecksumError(f"its symbols have checksum {checksum:08x}, {frame.checksum:08x} was stored")
        return picture if squares is None else recording.lay(picture, squares)

    # -- help ----------------------------------------------------------------------------------------------

    @staticmethod
    def _frame(picture: Samples, info: VideoInfo, like: VideoFrame) -> VideoFrame:
        rgb = picture[: info.height, : info.width]
        planes = planes_from_rgb(rgb, info.chroma, info.bit_depth, info.colour)
        return VideoFrame(planes, like.timestamp, like.duration)


_NONE: npt.NDArray[np.uint8] = np.zeros((0, 0), np.uint8)


def info_of(header: ltn.VideoHeader, extras: ltn.VideoExtras | None = None) -> VideoInfo:
    """What a file says of its frames."""
    extras = extras or ltn.VideoExtras()
    mastering = extras.mastering
    return VideoInfo(
        header.width,
        header.height,
        header.chroma,
        header.bit_depth,
        (header.colour.primaries, header.colour.transfer, header.colour.matrix, header.colour.full_range),
        Fraction(*header.time_base),
        Fraction(*header.frame_rate),
        pixel_aspect=Fraction(*extras.pixel_aspect),
        mastering=None if mastering is None else _mastering(mastering),
        light=None if extras.light is None else Light(*extras.light),
    )


def _mastering(values: tuple[int, ...]) -> Mastering:
    red, green, blue, white = ((values[i], values[i + 1]) for i in range(0, 8, 2))
    return Mastering(red, green, blue, white, values[8], values[9])


def extras_of(info: VideoInfo) -> ltn.VideoExtras:
    """What of it has a place beside the header."""
    mastering = info.mastering
    return ltn.VideoExtras(
        pixel_aspect=info.pixel_aspect.as_integer_ratio(),
        mastering=None
        if mastering is None
        else (*(x for point in mastering[:4] for x in point), mastering.brightest, mastering.darkest),
        light=info.light,
    )
