"""``.ltn`` files as Pillow images that are decoded when their pixels are asked for, and no more of them than that."""

from __future__ import annotations

import io
import os
import threading
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from PIL import Image as PilImage
from PIL import ImageFile

from latens import format as ltn
from latens.codec.image import ImageCodec
from latens.codec.lossless import LosslessCodec
from latens.codec.picture import Box, CodecFor, Metadata, Picture, check_box, divisor
from latens.errors import FormatError, ImageError, LatensError, named
from latens.io import Image, from_pil, printable, to_pil

if TYPE_CHECKING:
    from fractions import Fraction

__all__ = ["LtnImageFile", "OpenedImage", "as_os_error", "save"]

_NO_LIMIT = ltn.Limits(max_pixels=1 << 32)  # Pillow has one of its own


class LtnImageFile(ImageFile.ImageFile):
    """A ``.ltn`` file that Pillow has opened: size, mode and ``info`` are known, pixels come when they are used.

    Colour of more than 8 bits is rounded to 8, for Pillow has no mode for it; :meth:`image` gives it in full. Errors
    are those of :mod:`latens.errors` and ``OSError`` at the same time, which is what Pillow's users expect. With
    ``PIL.ImageFile.LOAD_TRUNCATED_IMAGES`` what can be had of a damaged file is shown, and :attr:`problems` names the
    rest.
    """

    format = "LTN"
    format_description = "Latens"
    _limits = _NO_LIMIT
    _codec_for: CodecFor = ImageCodec.for_file
    _other_weights = False
    _stays_open = False

    problems: tuple[str, ...] = ()
    """What was damaged of an image that was loaded nevertheless."""

    def _open(self) -> None:
        self._source: ltn.Source = ltn.FileSource(cast(BinaryIO, self.fp))
        try:
            header = ltn.read_header(self._source.read_at(0, ltn.MAX_HEADER_SIZE), self._limits)
        except LatensError as error:
            raise SyntaxError(str(error)) from error
        self._begin(header)

    def _begin(self, header: ltn.Header) -> None:
        """Take what is known without decoding."""
        self._picture: Picture | None = None
        self._damaged: ltn.Container | None = None
        self._lock = threading.RLock()
        self._step = 1
        self._cropped = 0
        try:
            self._picture = Picture(
                self._source, self._codec_for, self._limits, other_weights=self._other_weights
            )
            metadata = self._picture.metadata
        except LatensError as error:
            if not ImageFile.LOAD_TRUNCATED_IMAGES:
                raise as_os_error(error) from error
            self._damaged = self._salvaged()
            damaged = self._damaged
            alpha = damaged.header.alpha or damaged.alpha is not None or damaged.alpha_tiles is not None
            metadata = Metadata.of(damaged, alpha)
        self._size = header.width, header.height
        # Of one pixel, for what goes with it.
        one = np.zeros((1, 1, metadata.channels), np.uint8 if metadata.bit_depth == 8 else np.uint16)
        small = Image(
            one,
            one[..., 0] if metadata.alpha else None,
            metadata.icc,
            metadata.exif,
            metadata.xmp,
            colour=metadata.colour,
            density=metadata.density,
            bit_depth=metadata.bit_depth,
        )
        shown = to_pil(small)
        self._mode = shown.mode
        self.info.update(shown.info)
        self.metadata: Metadata = metadata
        self._full = self._size

    def load(self) -> Any:
        """Decode the pixels, if that has not been done. Several threads may do it at once."""
        with self._lock:
            if self._im is None:
                self._take(to_pil(self._decoded()))
        return PilImage.Image.load(self)

    def _take(self, shown: PilImage.Image) -> None:
        self.im = shown.im
        self._mode, self._size = shown.mode, shown.size
        self.tile, self.readonly, self._damaged = [], 0, None
        if not self._stays_open:
            self._picture = None
            if self._exclusive_fp and self._close_exclusive_fp_after_loading and self.fp:
                self.fp.close()
            self.fp = None

    def _salvaged(self) -> ltn.Container:
        data = self._source.read_at(0, self._source.size)
        return ltn.read(data, self._limits, on_error="conceal")

    def _decoded(self) -> Image:
        if self._picture is not None:
            try:
                return self._picture.image(None, 1 / self._step)
            except LatensError as error:
                if not ImageFile.LOAD_TRUNCATED_IMAGES:
                    raise self._failed(error) from error
                self._damaged = self._salvaged()
        if self._damaged is None:
            raise OSError("the image is closed")
        header = self._damaged.header
        codec = LosslessCodec() if header.lossless else self._codec_for(header)
        try:
            image, self.problems = codec.decode(
                self._damaged, on_error="conceal", other_weights=self._other_weights
            )
        except LatensError as error:
            raise self._failed(error) from error
        return image

    def draft(
        self, mode: str | None, size: tuple[int, int] | None
    ) -> tuple[str, tuple[int, int, float, float]] | None:
        """Make :meth:`load` give a smaller picture, of 1/2, 1/4 or 1/8 of the sides, but not smaller than ``size``.

        Pillow's ``thumbnail`` does this by itself. The mode stays.
        """
        if size is None or self._im is not None or self._picture is None:
            return None
        width, height = self._full
        wanted = min(width // max(int(size[0]), 1), height // max(int(size[1]), 1))
        self._step = next((step for step in (8, 4, 2) if wanted >= step), 1)
        self._size = -(-width // self._step), -(-height // self._step)
        return self.mode, (0, 0, width / self._step, height / self._step)

    def verify(self) -> None:
        """Check everything but what the coder streams stand for; the file must be opened anew afterwards."""
        if self._picture is not None:
            try:
                self._picture.check()
            except LatensError as error:
                raise self._failed(error) from error
        super().verify()

    def crop(self, box: tuple[float, float, float, float] | None = None) -> PilImage.Image:
        """A part of the image, as Pillow gives it; of one that is not loaded, no more is decoded than is needed."""
        if box is not None and self._im is None and self._picture is not None and self._step == 1:
            left, top, right, bottom = (round(side) for side in box)
            width, height = self._full
            if 0 <= left < right <= width and 0 <= top < bottom <= height:
                self._cropped += (right - left) * (bottom - top)
                # Who cuts it all up is served better by the whole.
                if self._cropped <= width * height // 2:
                    return self._part((left, top, right, bottom))
        return super().crop(box)

    def _failed(self, error: LatensError) -> LatensError:
        if self.filename:
            error = named(error, printable(os.fsdecode(self.filename)))
        return as_os_error(error)

    def _part(
        self, box: Box | None, scale: float | Fraction | str = 1, *, embedded: bool = True
    ) -> PilImage.Image:
        picture = self._picture
        if picture is None:
            raise OSError("the image is closed, or it was damaged")
        try:
            return to_pil(picture.image(box, scale, embedded=embedded))
        except LatensError as error:
            raise self._failed(error) from error


class OpenedImage(LtnImageFile):
    """What :func:`latens.open` gives: a Pillow image that is decoded when its pixels are used, with parts and previews.

    Attributes:
        size: width and height.
        info: of Pillow: ``icc_profile``, ``exif``, ``xmp``, ``dpi``.
        metadata: what the file says.

    Args:
        source: where its bytes come from; nothing is left open.
        name: for messages.
        codec_for, limits, other_weights: as for :class:`latens.codec.Picture`.

    Raises:
        FormatError, LimitError: no sound ``.ltn`` file, as far as it is read.
    """

    _stays_open = True

    def __init__(
        self,
        source: ltn.Source,
        name: str,
        codec_for: CodecFor,
        limits: ltn.Limits,
        *,
        other_weights: bool = False,
    ) -> None:
        self._source, self._limits = source, limits
        self._codec_for, self._other_weights = codec_for, other_weights
        super().__init__(io.BytesIO(), name)

    def _open(self) -> None:
        try:
            header = ltn.read_header(self._source.read_at(0, ltn.MAX_HEADER_SIZE), self._limits)
        except LatensError as error:
            raise as_os_error(error) from error
        self._begin(header)

    def crop(self, box: tuple[float, float, float, float] | None = None) -> PilImage.Image:
        """A part of the picture; bit for bit the same as of the whole, and only the tiles around it are read.

        Args:
            box: left, top, right and bottom, the last two outside, in whole pixels.

        Raises:
            ImageError: a box that is empty, or not inside the picture (where Pillow itself would fill it with black).
            FormatError, CoderError: what is needed is damaged.
        """
        try:
            inside = check_box(cast("Box | None", box), self.size)
        except ImageError as error:
            raise as_os_error(error) from error
        return super().crop(inside)

    def preview(self, scale: float | Fraction | str, *, embedded: bool = True) -> PilImage.Image:
        """A small copy: 1/2, 1/4 or 1/8 of the sides, rounded up.

        Args:
            scale: of the sides.
            embedded: see :meth:`latens.codec.Picture.image`.

        Raises:
            ImageError: another scale.
            FormatError, CoderError: the file is damaged.
        """
        try:
            step = divisor(scale)
        except ImageError as error:
            raise as_os_error(error) from error
        if self._im is not None:
            return self.reduce(step)
        return self._part(None, 1 / step, embedded=embedded)

    def read(self) -> PilImage.Image:
        """The whole picture, decoded now.

        Raises:
            FormatError, CoderError: the file is damaged.
        """
        self.load()
        return self.copy()

    def image(
        self, box: Box | None = None, scale: float | Fraction | str = 1, *, embedded: bool = True
    ) -> Image:
        """The same with all bits of its samples; see :meth:`latens.codec.Picture.image`."""
        if self._picture is None:
            raise self._failed(FormatError("damaged; only as much as can be had of it can be loaded"))
        try:
            return self._picture.image(box, scale, embedded=embedded)
        except LatensError as error:
            raise self._failed(error) from error


def save(image: PilImage.Image, file: IO[bytes], filename: str | bytes) -> None:
    """What Pillow calls for ``image.save("photo.ltn", **options)``; the options are those of :func:`latens.encode`.

    ``icc_profile``, ``exif`` and ``xmp`` replace those that the image has; empty ones leave them out. An orientation in
    EXIF is applied to the pixels, for ``.ltn`` files have none.

    Raises:
        LatensError: as :func:`latens.encode`; it is an ``OSError``, too.
    """
    from latens.codec.shortcuts import encode

    options = dict(image.encoderinfo)
    shown = image.copy()
    for name in ("icc_profile", "exif", "xmp"):
        value = options.pop(name, shown.info.get(name))
        shown.info.pop(name, None)
        if value:
            shown.info[name] = value.tobytes() if isinstance(value, PilImage.Exif) else value
    if "dpi" in options:
        shown.info["dpi"] = options.pop("dpi")
    try:
        unknown = options.keys() - _OPTIONS
        if unknown:
            raise ImageError(
                f"{printable(min(unknown))} is no option of .ltn files; known: {', '.join(_OPTIONS)}"
            )
        file.write(encode(from_pil(_turned(shown)), **options))
    except LatensError as error:
        raise as_os_error(error) from error


_OPTIONS = (
    "quality",
    "target_size",
    "target_psnr",
    "target_ssimulacra2",
    "model",
    "tune",
    "effort",
    "lossless",
    "near_lossless",
    "content",
    "preview",
)


def _turned(image: PilImage.Image) -> PilImage.Image:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # EXIF that Pillow cannot read; from_pil leaves it out
        return image


def as_os_error(error: LatensError) -> LatensError:
    """The same error as one that is an ``OSError``, too."""
    return error if isinstance(error, OSError) else _both(type(error))(str(error))


_BOTH: dict[type[LatensError], type[LatensError]] = {}


def _both(kind: type[LatensError]) -> type[LatensError]:
    names = {"__module__": kind.__module__, "__doc__": kind.__doc__}
    return _BOTH.setdefault(kind, type(kind.__name__, (kind, OSError), names))
