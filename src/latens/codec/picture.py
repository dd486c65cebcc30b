"""Parts of a picture, and small copies of it: no more is read and decoded than they need."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from latens import _native
from latens import format as ltn
from latens.codec import drawn as screens
from latens.codec.image import ImageCodec, at_a_time, check_tile_size
from latens.codec.lossless import alpha_of, decode_row
from latens.codec.small import DIVISOR, shrunk
from latens.codec.threads import together
from latens.errors import ChecksumError, CoderError, ImageError, VersionError
from latens.io import Image
from latens.runtime.coding import LATENT, FileModel, Rows, Window
from latens.zoo.preview import load_preview

if TYPE_CHECKING:
    from fractions import Fraction

__all__ = ["SCALES", "Box", "Metadata", "Picture", "check_box", "divisor"]

Samples = npt.NDArray[Any]  # uint8 or uint16
Array = npt.NDArray[Any]
Box = tuple[int, int, int, int]
CodecFor = Callable[[ltn.Header], ImageCodec]

SCALES = (1, 2, 4, 8)
"""The sides of a preview are those of the picture, divided by one of these."""
_PIECE = 8  # rows of latents that synthesis takes at a time


@dataclass(frozen=True)
class Metadata:
    """What a file says of its picture.

    Attributes:
        icc, exif, xmp: as in the file, exif without a prefix; None if there is none.
        colour: code points of ITU-T H.273: primaries, transfer, matrix, full range.
        density: samples per unit across and down, each as numerator and denominator, and the unit.
        bit_depth: bits per sample.
        channels: 1 or 3, without alpha.
        alpha: whether there is alpha.
        model: that made the file; empty for a lossless one.
        quality: the model's internal one, 0 to 65,535.
    """

    icc: bytes | None
    exif: bytes | None
    xmp: bytes | None
    colour: tuple[int, int, int, int]
    density: ltn.Density | None
    bit_depth: int
    channels: int
    alpha: bool
    model: str
    quality: int

    @classmethod
    def of(cls, container: ltn.Container, alpha: bool) -> Metadata:
        """What a container's header and chunks say."""
        header = container.header
        return cls(
            container.icc,
            container.exif,
            container.xmp,
            header.colour,
            container.density,
            header.bit_depth,
            header.channels,
            alpha,
            "" if header.lossless else header.model,
            header.quality,
        )


class Picture:
    """A ``.ltn`` file that is open. Several threads may use it at the same time.

    Args:
        source: where its bytes come from.
        codec_for: the codec for the header of a file that a model made; called when something is decoded.
        limits: as for :func:`latens.format.read`.
        other_weights: accept other weights for the pixels than the file was made with.

    Raises:
        FormatError, LimitError: it is no sound ``.ltn`` file, as far as it is read.
    """

    def __init__(
        self,
        source: ltn.Source,
        codec_for: CodecFor = ImageCodec.for_file,
        limits: ltn.Limits | None = None,
        *,
        other_weights: bool = False,
    ) -> None:
        self._reader, self._limits = ltn.RandomReader(source, limits), limits
        self._codec_for, self._other_weights = codec_for, other_weights
        self.header = self._reader.header

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.header.width, self.header.height

    @property
    def metadata(self) -> Metadata:
        """What the file says of the picture."""
        return Metadata.of(self._reader.container, self._reader.has_alpha)

    def check(self) -> None:
        """Read all of the file, and check what can be checked without decoding.

        Raises:
            FormatError: it is damaged.
        """
        self._reader.with_alpha()
        self._reader.preview()
        for number in range(self.header.tile_count):
            self._reader.tile(number)

    def image(
        self, box: Box | None = None, scale: float | Fraction | str = 1, *, embedded: bool = True
    ) -> Image:
        """A part of the picture, or all of it, maybe smaller.

        Args:
            box: left, top, right and bottom in pixels of the whole picture; right and bottom are outside. By default
                all of it.
            scale: 1, 1/2, 1/4 or 1/8. The result is the same area of the whole picture at this scale, whose sides are
                rounded up: a box whose sides are no multiples is widened to them.
            embedded: at 1/8, take the small copy that the file carries, if it does, which is quicker and less good than
                one that is made of the picture.

        Raises:
            ImageError: a box that is empty or not inside the picture, or another scale.
            FormatError, CoderError: what is needed is damaged.
            WrongWeightsError, ModelError, DownloadError: the model that the file needs is not at hand.
        """
        step = divisor(scale)
        left, top, right, bottom = _small(check_box(box, self.size), step)
        channels, alpha = self.header.channels, self._reader.has_alpha
        pixels = np.empty((bottom - top, right - left, channels), self._dtype)
        transparency = np.empty(pixels.shape[:2], self._dtype) if alpha else None
        end = 0
        for rows in self.rows(box, scale, embedded=embedded):
            pixels[end : end + len(rows)] = rows[..., :channels]
            if transparency is not None:
                transparency[end : end + len(rows)] = rows[..., channels]
            end += len(rows)
        return replace(self.about(step), pixels=pixels, alpha=transparency)

    def about(self, step: int = 1) -> Image:
        """What goes with the pixels of the picture, or of a small copy of it: an image of one pixel."""
        container, dtype = self._reader.container, self._dtype
        return Image(
            np.zeros((1, 1, self.header.channels), dtype),
            np.zeros((1, 1), dtype) if self._reader.has_alpha else None,
            container.icc,
            container.exif,
            container.xmp,
            colour=self.header.colour,
            density=_thinned(container.density, step),
            bit_depth=self.header.bit_depth,
        )

    def rows(
        self, box: Box | None = None, scale: float | Fraction | str = 1, *, embedded: bool = True
    ) -> Iterator[Samples]:
        """The same in pieces ``(n, width, channels)`` from top to bottom, alpha last, in memory that does not grow.

        Of the whole picture at scale 1, its checksum is proved at the end.
        """
        step = divisor(scale)
        left, top, right, bottom = _small(check_box(box, self.size), step)
        if step == DIVISOR and embedded and (inner := self._reader.preview()) is not None:
            source = ltn.FileSource(io.BytesIO(inner))
            small = Picture(source, self._codec_for, self._limits, other_weights=self._other_weights)
            yield from small.rows((left, top, right, bottom))
            return
        width, height = self.size
        area = left * step, top * step, min(right * step, width), min(bottom * step, height)
        if self.header.lossless:
            yield from shrunk(self._lossless(area), step)
            return
        codec = self._codec_for(self.header)
        codec.check_identity(self.header, self._other_weights)
        check_tile_size(self.header)
        preview = load_preview(codec.model.weights_id) if step == 8 else None
        if preview is not None:
            part = _Part(self.size, area, preview.reach)
            rows = preview.rows(part.width, self._dtype, self.header.channels)
            layers: list[screens.Layer] = []
            latents = self._latents(codec.model, part, layers, 8)
            found = part.cut(latents, rows, (left, top, right, bottom), LATENT // 8)
            found = _composed(found, (left, top), layers)
        else:
            found = shrunk(self._synthesised(codec.model, area), step)
        yield from self._with_alpha(found, area, step)

    @property
    def _dtype(self) -> npt.DTypeLike:
        return np.uint8 if self.header.sample_bytes == 1 else np.uint16

    def _bands(self, area: Box) -> Iterator[list[int]]:
        """Numbers of the tiles that an area touches, a list for each row of them."""
        size = self.header.tile_size
        columns = ltn.tile_grid(*self.size, size)[0]
        left, top, right, bottom = area
        for row in range(top // size, -(-bottom // size)):
            yield [row * columns + column for column in range(left // size, -(-right // size))]

    def _lossless(self, area: Box) -> Iterator[Samples]:
        left, top, right, bottom = area
        rects = self.header.tiles()
        for numbers in self._bands(area):
            first = rects[numbers[0]]
            samples = decode_row(self.header, numbers, [self._reader.tile(number) for number in numbers])
            rows = samples[max(top - first.y, 0) : bottom - first.y]
            yield rows[:, left - first.x : right - first.x]

    def _with_alpha(self, found: Iterator[Samples], area: Box, step: int) -> Iterator[Samples]:
        if not self._reader.has_alpha:
            yield from found
            return
        left, top, right, bottom = area
        plane = alpha_of(self._reader.with_alpha())
        assert plane is not None
        # Of rows that come, the same number of alpha.
        alpha = _Stock(shrunk(iter([plane[top:bottom, left:right, None]]), step))
        for rows in found:
            yield np.concatenate([rows, alpha.take(len(rows))], axis=2)

    def _synthesised(self, model: FileModel, area: Box) -> Iterator[Samples]:
        """Rows of an area at scale 1."""
        header = self.header
        part = _Part(self.size, area, model.reach)
        rows = model.synthesis(part.width, header.quality, self._dtype, header.channels)
        crc = 0
        layers: list[screens.Layer] = []
        found = part.cut(self._latents(model, part, layers, 1), rows, area, LATENT)
        for samples in _composed(found, area[:2], layers):
            if part.whole:
                crc = zlib.crc32(np.ascontiguousarray(samples, samples.dtype.newbyteorder("<")).data, crc)
            yield samples
        stored = self._reader.container.pixels
        same = model.exact and header.weights_id == model.weights_id[:8]
        if part.whole and stored is not None and same and crc != stored:
            raise ChecksumError(
                f"the decoded picture has CRC-32 {crc:08x}, {stored:08x} was stored; "
                "the file, or this installation, is damaged"
            )

    def _latents(
        self, model: FileModel, part: _Part, layers: list[screens.Layer], step: int
    ) -> Iterator[Array]:
        """What synthesis takes for a part, from top to bottom; drawn blocks go to ``layers``, shrunk by ``step``."""
        header, rects = self.header, self.header.tiles()

        def decoded(number: int) -> tuple[slice, Array]:
            rect = rects[number]
            window, place = part.within(rect)
            tile = self._reader.tile(number)
            coded_width, coded_height = ltn.coded_size(rect.width, rect.height)
            size = coded_height, coded_width
            try:
                checksum, rows = model.decode(
                    tile.stream, size, header.quality, header.skip, header.lanes, window
                )
            except CoderError as error:
                raise CoderError(f"tile {number}: {error}") from error
            if checksum != tile.checksum:
                raise ChecksumError(
                    f"tile {number}: its symbols have checksum {checksum:08x}, {tile.checksum:08x} was stored"
                )
            try:
                layer = screens.decode_layer(tile, rect, header)
            except (CoderError, ChecksumError, VersionError) as error:
                raise type(error)(f"tile {number}: {error}") from error
            if layer is not None:
                layers.append(_small_layer(layer, step))
            return place, rows

        for numbers in self._bands(part.pixels(self.size)):
            band = None
            # A few at a time: what comes of a row of them is as large as the band.
            at_once = max(_native.threads(), 1)
            for start in range(0, len(numbers), at_once):
                for place, rows in together(decoded, numbers[start : start + at_once]):
                    if band is None:
                        band = np.empty((len(rows), part.width, model.channels), model.rows_type)
                    band[:, place] = rows
            assert band is not None
            yield band


class _Part:
    """What has to be known of the latents for an area of the picture.

    Args:
        size: of the picture in pixels.
        area: in pixels.
        reach: positions around it that synthesis needs; None if all of them.
    """

    def __init__(self, size: tuple[int, int], area: Box, reach: int | None) -> None:
        self.whole = area == (0, 0, *size)
        columns, rows = (side // LATENT for side in ltn.coded_size(*size))
        left, top, right, bottom = area
        around = max(columns, rows) if reach is None else reach
        self._left, self._top = max(left // LATENT - around, 0), max(top // LATENT - around, 0)
        self._right = min(-(-right // LATENT) + around, columns)
        self._bottom = min(-(-bottom // LATENT) + around, rows)
        self.width = self._right - self._left

    def pixels(self, size: tuple[int, int]) -> Box:
        """The area of its latents in pixels of a picture."""
        left, top, right, bottom = (
            LATENT * side for side in (self._left, self._top, self._right, self._bottom)
        )
        return left, top, min(right, size[0]), min(bottom, size[1])

    def within(self, rect: ltn.Rect) -> tuple[Window, slice]:
        """The window of a tile that is needed, and which columns of the part it is."""
        width, height = (side // LATENT for side in ltn.coded_size(rect.width, rect.height))
        x, y = rect.x // LATENT, rect.y // LATENT
        left, right = max(self._left - x, 0), min(self._right - x, width)
        window = Window(max(self._top - y, 0), min(self._bottom - y, height), left, right)
        return window, slice(x + left - self._left, x + right - self._left)

    def cut(self, latents: Iterator[Array], synthesis: Rows, area: Box, unit: int) -> Iterator[Samples]:
        """The samples of an area, of those that synthesis makes of all latents, ``unit`` times as many each way."""
        left, top, right, bottom = area
        left, right = left - unit * self._left, right - unit * self._left
        row = unit * self._top

        def made() -> Iterator[Samples]:
            for band in latents:
                # In pieces: what comes out is eight times as large.
                portion = at_a_time(_PIECE, LATENT * self.width)
                for start in range(0, len(band), portion):
                    yield synthesis.push(np.ascontiguousarray(band[start : start + portion]))
                del band  # before the next one comes: of a wide picture, it is large
            yield synthesis.finish()

        for samples in made():
            kept = samples[max(top - row, 0) : max(bottom - row, 0), left:right]
            row += len(samples)
            if len(kept):
                yield np.ascontiguousarray(kept)


class _Stock:
    """Rows that come in portions of their own, and are taken in others."""

    def __init__(self, source: Iterator[Samples]) -> None:
        self._source = source
        self._rows: Samples | None = None

    def take(self, count: int) -> Samples:
        while self._rows is None or len(self._rows) < count:
            more = next(self._source)
            self._rows = more if self._rows is None else np.concatenate([self._rows, more])
        rows, self._rows = self._rows[:count], self._rows[count:]
        return rows


def check_box(box: Box | None, size: tuple[int, int]) -> Box:
    """The box, or that of the whole picture; ImageError for one that is empty or not inside."""
    width, height = size
    if box is None:
        return 0, 0, width, height
    try:
        left, top, right, bottom = (side.__index__() for side in box)
    except (TypeError, ValueError, AttributeError) as error:
        raise ImageError(
            f"expected a box of four whole numbers (left, top, right, bottom), got {box!a:.80}"
        ) from error
    if left >= right or top >= bottom:
        raise ImageError(f"the box {left}, {top}, {right}, {bottom} (left, top, right, bottom) is empty")
    if left < 0 or top < 0 or right > width or bottom > height:
        raise ImageError(
            f"the box {left}, {top}, {right}, {bottom} (left, top, right, bottom) is not inside the picture of "
            f"{width} x {height} pixels"
        )
    return left, top, right, bottom


def divisor(scale: float | Fraction | str) -> int:
    """What a scale divides the sides by: 1, 2, 4 or 8; ImageError for another scale."""
    from fractions import Fraction  # takes time to load

    try:
        found = Fraction(scale)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError):
        found = Fraction(0)
    for step in SCALES:
        if found == Fraction(1, step):
            return step
    raise ImageError(f"expected a scale of 1, 1/2, 1/4 or 1/8, got {scale!a:.40}")


def _small(box: Box, step: int) -> Box:
    """A box in pixels of the smaller picture."""
    left, top, right, bottom = box
    return left // step, top // step, -(-right // step), -(-bottom // step)


def _thinned(density: ltn.Density | None, step: int) -> ltn.Density | None:
    if density is None or not density[2] or step == 1:
        return density
    from fractions import Fraction

    across, down = (Fraction(*side) / step for side in density[:2])
    return across.as_integer_ratio(), down.as_integer_ratio(), density[2]


def _composed(
    found: Iterator[Samples], corner: tuple[int, int], layers: list[screens.Layer]
) -> Iterator[Samples]:
    """Rows of an area with its drawn blocks, which are known when the rows are."""
    left, top = corner
    for rows in found:
        if layers:
            rows = rows if rows.flags.writeable else rows.copy()
            screens.compose(rows, top, layers, left)
        top += len(rows)
        yield rows


def _small_layer(layer: screens.Layer, step: int) -> screens.Layer:
    rect = layer.rect
    if step == 1:
        return layer
    inside = layer.drawn[..., None]
    samples = np.concatenate(list(shrunk(iter([layer.samples]), step)))
    # Where only some of the pixels are drawn, the model's are taken.
    whole = np.concatenate(list(shrunk(iter([inside.astype(np.uint16) * np.uint16(step * step)]), step)))
    height, width = samples.shape[:2]
    rect = ltn.Rect(rect.x // step, rect.y // step, width, height)
    return screens.Layer(rect, samples, whole[..., 0] == step * step)
