"""Videos to ``.ltn`` and back, frame by frame: joins the container, planes of samples and models."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from latens import format as ltn
from latens.codec._colour import planes_from_rgb, rgb_from_planes
from latens.codec.models import LEVELS
from latens.codec.video_models import picture_coder
from latens.errors import ChecksumError, CoderError, FormatError, VideoError, WrongWeightsError
from latens.io import Light, Mastering, Sound, VideoFrame, VideoInfo
from latens.models.video.conditional import settled
from latens.zoo.video_weights import LoadedVideoModel, load_video

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
        rgb: ``(1, 3, H, W)`` float32, 0 to 1.
    """

    number: int
    key: bool
    frame: VideoFrame
    rgb: Tensor

    def rgb8(self) -> npt.NDArray[np.uint8]:
        """The same as ``(H, W, 3)`` of 8 bits."""
        rounded = self.rgb[0].mul(255).round_().to(torch.uint8).permute(1, 2, 0)
        return np.ascontiguousarray(rounded.numpy())

    def rgb16(self) -> npt.NDArray[np.uint16]:
        """The same as ``(H, W, 3)`` of 16 bits."""
        rounded = self.rgb[0].double().mul(65535).round_().to(torch.int32).permute(1, 2, 0)
        return np.ascontiguousarray(rounded.numpy().astype(np.uint16))


class VideoCodec:
    """Codes videos with one model.

    Args:
        model: a loaded model, or what :func:`latens.zoo.video_weights.load_video` takes.
        fast: run the transforms in bfloat16. Symbols stay exact, but the pictures that frames refer to are exactly
            the encoder's only if the decoder does the same.
    """

    def __init__(self, model: LoadedVideoModel | str | os.PathLike[str], *, fast: bool = False) -> None:
        self.model = model if isinstance(model, LoadedVideoModel) else load_video(model)
        self.fast = fast
        self._coder = picture_coder(self.model, fast)

    @property
    def qualities(self) -> bool:
        """Whether the weights have all qualities."""
        return self._coder.qualities

    # -- encoding ------------------------------------------------------------------------------------------

    def encode(
        self,
        info: VideoInfo,
        frames: Iterable[VideoFrame],
        file: BinaryIO,
        *,
        gop: int = 12,
        quality: float | None = None,
        sound: Sound | None = None,
    ) -> Iterator[CodedFrame]:
        """Write the ``.ltn`` file of a video; a frame is in the file when it is yielded.

        Args:
            info: of the frames.
            frames: with rising timestamps.
            file: opened for writing bytes.
            gop: every so many frames one can be decoded without others.
            quality: 0 to 100, 50 by default; None for weights that have one only.
            sound: that goes with the frames; see :attr:`latens.io.VideoSource.sound`.

        Yields:
            What became of each frame.

        Raises:
            VideoError: no frame, frames that do not fit ``info``, a gop below 1 or too long for the model, or a
                quality that there is not.
            LimitError: too large for a file.
            ModelError: the weights give values that are not finite.
        """
        if gop < 1:
            raise VideoError(f"gop must be at least 1, not {gop}")
        if self._coder.longest is not None and gop > self._coder.longest:
            raise VideoError(
                f"gop must be at most {self._coder.longest} with {self.model.id}, not {gop}: in longer groups, "
                "pictures of two machines drift apart"
            )
        level = self._level(quality)
        header = ltn.VideoHeader(
            width=info.width,
            height=info.height,
            model=self.model.id,
            entropy_id=self.model.entropy.entropy_id[:8],
            weights_id=self.model.weights_id[:8],
            quality=level,
            skip=self._coder.skip,
            chroma=info.chroma,
            bit_depth=info.bit_depth,
            colour=ltn.Cicp(*info.colour),
            time_base=info.time_base.as_integer_ratio(),
            frame_rate=info.frame_rate.as_integer_ratio(),
        )
        writer = ltn.VideoWriter(file, header, extras_of(info))
        reference: Tensor | None = None
        step = max(round(1 / info.frame_rate / info.time_base), 1)
        last: VideoFrame | None = None
        for number, frame in enumerate(frames):
            key = number % gop == 0
            with self._inference():
                found = self._coder.encode(self._picture(frame, info), None if key else reference, level)
                reference = settled(found.picture, info.bit_depth)
            coded = ltn.Frame(number, frame.timestamp, key, found.checksum, found.streams)
            if sound is not None:
                writer.add_sound(sound.take(), sound.start)
            writer.add(coded)
            last = frame
            yield CodedFrame(number, key, coded.size, self._frame(reference, info, frame))
        if last is None:
            raise VideoError("holds no frame")
        if sound is not None:
            writer.add_sound(sound.finish(), sound.start)
        writer.finish(last.timestamp + (last.duration or step))

    def _picture(self, frame: VideoFrame, info: VideoInfo) -> Tensor:
        """RGB, its border repeated up to the grid."""
        if tuple(plane.shape for plane in frame.planes) != info.plane_sizes:
            raise VideoError(
                f"a frame with planes {[plane.shape for plane in frame.planes]}, where "
                f"{list(info.plane_sizes)} are expected"
            )
        rgb = rgb_from_planes(frame.planes, info.chroma, info.bit_depth, info.colour).clamp_(0, 1)
        height, width = self._padded(info.height, info.width)
        return F.pad(rgb, (0, width - info.width, 0, height - info.height), mode="replicate")

    def _padded(self, height: int, width: int) -> tuple[int, int]:
        return height + -height % self._coder.grid, width + -width % self._coder.grid

    def _level(self, quality: float | None) -> int:
        """The header's quality."""
        if not self._coder.qualities:
            if quality is not None:
                raise VideoError(f"{self.model.id} has one quality; leave quality out")
            return 0
        if quality is None:
            quality = DEFAULT_QUALITY
        if not 0 <= quality <= 100:
            raise VideoError(f"quality must be between 0 and 100, got {quality}")
        return round(quality / 100 * LEVELS)

    # -- decoding ------------------------------------------------------------------------------------------

    def decode(
        self,
        reader: ltn.VideoReader,
        *,
        on_error: Literal["raise", "conceal"] = "raise",
        other_weights: bool = False,
    ) -> Iterator[DecodedFrame]:
        """The frames of a file.

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
        reference: Tensor | None = None
        expected = 0
        delivered = False
        for frame in reader.frames():
            if frame.number != expected:
                reference = None
            expected = frame.number + 1
            if not frame.key and reference is None:
                reader.problems.append(f"frame {frame.number} needs one that is lost")
                continue
            try:
                with self._inference():
                    reference = self._decode(frame, reference, header)
            except (ChecksumError, CoderError, FormatError) as error:
                if on_error == "raise":
                    raise type(error)(f"frame {frame.number}: {error}") from error
                reader.problems.append(f"frame {frame.number}: {error}")
                reference = None
                continue
            delivered = True
            found = self._frame(reference, info, VideoFrame((_NONE, _NONE, _NONE), frame.timestamp))
            yield DecodedFrame(
                frame.number, frame.key, found, reference[:, :, : header.height, : header.width]
            )
        if not delivered:
            raise FormatError(f"nothing of the video can be saved: {'; '.join(reader.problems)[:500]}")

    def _check_identity(self, header: ltn.VideoHeader, other_weights: bool) -> None:
        have = self.model.entropy.entropy_id[:8]
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

    def _decode(self, frame: ltn.Frame, reference: Tensor | None, header: ltn.VideoHeader) -> Tensor:
        shape = self._padded(header.height, header.width)
        checksum, picture = self._coder.decode(frame, None if frame.key else reference, shape, header)
        if checksum != frame.checksum:
            raise ChecksumError(f"its symbols have checksum {checksum:08x}, {frame.checksum:08x} was stored")
        return settled(picture, header.bit_depth)

    # -- help ----------------------------------------------------------------------------------------------

    @staticmethod
    def _frame(picture: Tensor, info: VideoInfo, like: VideoFrame) -> VideoFrame:
        planes = planes_from_rgb(
            picture[:, :, : info.height, : info.width], info.chroma, info.bit_depth, info.colour
        )
        return VideoFrame(planes, like.timestamp, like.duration)

    @staticmethod
    @contextmanager
    def _inference() -> Iterator[None]:
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            yield


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
