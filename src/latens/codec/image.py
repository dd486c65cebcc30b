"""Images to ``.ltn`` and back: joins the container, image arrays and the models."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, BinaryIO, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from latens import _native
from latens import format as ltn
from latens.codec import drawn as screens
from latens.codec.lossless import Content, LosslessCodec, alpha_of, check_content, encode_alpha, smaller
from latens.codec.small import Watched, eighth, wants_preview
from latens.codec.target import Target, search
from latens.codec.threads import together
from latens.entropy_coding.lossless import Mask, encode_tiles, measure, spread
from latens.errors import (
    ChecksumError,
    CoderError,
    FormatError,
    ImageError,
    LimitError,
    TargetError,
    VersionError,
    WrongWeightsError,
)
from latens.io import Image, Strips
from latens.metrics import ssimulacra2
from latens.metrics.perceptual import LEAST_SIDE
from latens.runtime.coding import LATENT, CodedTile, FileModel
from latens.zoo.cards import DEFAULT_MODEL
from latens.zoo.weights import load, load_released

__all__ = ["EFFORTS", "Begun", "ImageCodec"]

Samples = npt.NDArray[Any]  # uint8 or uint16
Array = npt.NDArray[Any]

EFFORTS = {1: 0, 2: 20, 3: 40, 4: 100, 5: 250}
"""Gradient steps for each effort."""

_LEVELS = 65_535
_TILE = 1024
_MAX_TILE = 4096  # a tile is decoded in one piece, which takes memory in proportion
_LANES = 8  # of images of several tiles
_QUALITY = 70.0
_ROWS = 64  # of pixels that analysis takes at a time
_PIECE = 8  # rows of y that synthesis takes at a time
_WIDE = 8192  # pixels, above which networks take a quarter of these rows
_BLOCK = 64  # side of the blocks that are drawn or not
# Bits that a block kept as it is may take, for each that a model spends on it and does not get right.
_WORTH = 1.5


class Begun(NamedTuple):
    """What is done of a picture that is coded from top to bottom.

    Attributes:
        bands: rows of tiles that are in the file.
        crc: of the samples that could be decoded from them.
    """

    bands: int
    crc: int


class ImageCodec:
    """Codes images with one model.

    Args:
        model: a loaded model, or what :func:`latens.zoo.load` takes.
    """

    def __init__(self, model: FileModel | str | os.PathLike[str] = DEFAULT_MODEL) -> None:
        self.model = load(model) if isinstance(model, str | os.PathLike) else model

    @classmethod
    def for_file(cls, header: ltn.Header, *, weights_dir: str | os.PathLike[str] | None = None) -> ImageCodec:
        """The codec for the released model that a file names.

        Args:
            header: of the file.
            weights_dir: folder with weights that are not in the package; see :func:`latens.zoo.obtain.obtain`.

        Raises:
            UnknownModelError, UnavailableError: neither this release nor the folder has the model.
            DownloadError: its weights cannot be fetched.
        """
        return cls(load_released(header.model, None if weights_dir is None else os.fspath(weights_dir)))

    # -- encoding ------------------------------------------------------------------------------------------

    def encode(
        self,
        image: Image,
        quality: float | None = None,
        *,
        effort: int = 1,
        content: Content = "photo",
        preview: bool | None = None,
    ) -> bytes:
        """The ``.ltn`` file of an image.

        Args:
            image: 8 or 16 bits, grey or RGB. Alpha, ICC, EXIF, XMP, colour and density go into the file unchanged.
            quality: 0 (smallest) to 100 (best), 70 by default; any real number between, of which a model with a
                few rates takes the nearest. Not for a model of a single rate.
            effort: 1 (none) to 5 (most) of searching for latents that cost less; above 1 it needs PyTorch.
            content: "photo" leaves everything to the model. "auto" keeps blocks of 64x64 pixels with text, lines and
                flat areas, where they are found, as they are but for what cannot be seen of their edges at this
                quality, and gives a file without a model if that is smaller. "drawn" is a lossless file in any case.
            preview: whether the file carries a small copy, an eighth of the sides, which decodes in no time; by default
                pictures of 8 to 1024 megapixels do. It takes about 1 % of the file. Files without a model have none.

        Raises:
            ImageError: quality, effort or content out of range, or not for this model.
            LimitError: the image or its metadata are too large for a file.
            ModelError: the weights give values that are not finite.
        """
        level = self._level(quality)
        steps = self._steps(effort)
        check_content(content)
        if content == "drawn":
            return LosslessCodec().encode(image, effort=effort, content="drawn")
        header = self._header(image, level)
        quality = _QUALITY if quality is None else quality
        drawn = self._drawn(image.pixels, header, screens.slack(quality)) if content == "auto" else None
        loss = screens.Loss()
        if drawn is not None:
            loss = screens.loss(image.pixels, quality, drawn)
            if drawn.all():
                return LosslessCodec().encode(image, effort=effort, **loss._asdict())
        features = self._features(_filled(image.pixels, drawn), header)
        data = self._write(image, header, features, steps, drawn, loss, self._small(image, preview))
        return data if content == "photo" else smaller(image, data, drawn, effort=effort, **loss._asdict())

    def encode_strips(
        self,
        strips: Strips,
        file: BinaryIO,
        quality: float | None = None,
        *,
        progress: Callable[[float], None] | None = None,
        begun: Begun | None = None,
        save: Callable[[Begun], None] | None = None,
        preview: bool | None = None,
    ) -> int:
        """The same for an image that comes from top to bottom, in memory that does not grow with its height.

        Args:
            strips: as :func:`latens.io.open_strips` gives them.
            file: what is written to, front to back.
            quality: as for :meth:`encode`.
            progress: called with the share that is done.
            begun: go on where another call for the same picture, with the same quality, was stopped: ``file`` holds
                what that one wrote, and can be read and sought.
            save: called after each row of tiles but the last with what to go on with, when its bytes have been given
                to the system; not with models that cannot.
            preview: as for :meth:`encode`. The small copy is held until the end.

        Returns:
            The number of bytes.

        Raises:
            ImageError: the file is damaged; quality out of range, or not for this model.
            FormatError, CoderError, ChecksumError: the file that was begun is damaged, or of another picture.
            LimitError, ModelError: as :meth:`encode`.
        """
        about = strips.about
        header = self._header(about, self._level(quality))
        header = replace(header, width=strips.shape[1], height=strips.shape[0])
        picture = _Picture(self.model, header) if self.model.exact else None
        writer: ltn.Writer | None = None
        bands = _bands(header)
        metadata = (about.icc or None, about.exif or None, about.xmp or None, about.density)
        resumes = self.model.analysis_reach is not None and header.tile_count > 1
        start = 0
        if begun is not None:
            start = begun.bands
            if not resumes or picture is None or not 0 < start < len(bands):
                raise FormatError("this cannot be gone on with")
            count, last = sum(map(len, bands[:start])), bands[start - 1]
            container = ltn.Container(header, [], None, *metadata)
            writer, tiles = ltn.Writer.resume(file, container, count, len(last))
            self._restore(picture, last, tiles, begun.crc)
        watched = Watched(strips) if wants_preview(preview, header.width * header.height) else None
        features = self._features(cast(Samples, watched or strips), header, start)
        for number, band in enumerate(bands[start:], start):
            for rect, coded in zip(band, self._coded(header, band, features), strict=True):
                if writer is None:
                    header = replace(header, lanes=coded.lanes)
                    writer = ltn.Writer(file, ltn.Container(header, [], None, *metadata))
                writer.tile(ltn.Tile(coded.checksum, coded.stream))
                if picture is not None:
                    picture.put(rect, coded.rows)
            if picture is not None:
                for _ in picture.band():
                    pass
                # After the last row, which may be lower than synthesis reaches, nothing is left that takes long.
                if save is not None and resumes and number + 1 < len(bands):
                    file.flush()
                    save(Begun(number + 1, picture.crc))
            if progress is not None:
                progress((number + 1) / len(bands))
        if picture is not None:
            for _ in picture.finish():
                pass
        assert writer is not None
        crc, small = None if picture is None else picture.crc, None
        if watched is not None:
            del features, picture  # large, and not needed any more
            small = self._preview(replace(about, pixels=watched.small()), header.quality)
        writer.finish(crc, small)
        return writer.size

    def _restore(self, picture: _Picture, band: list[ltn.Rect], tiles: list[ltn.Tile], crc: int) -> None:
        """Bring the decoded picture to where it was after a row of tiles, which reaches further up than synthesis."""
        picture.start_at(band[0].y)
        given: list[tuple[ltn.Rect, ltn.Tile | None]] = list(zip(band, tiles, strict=True))
        for (rect, _), found in zip(given, together(self._decoder(picture.header), given), strict=True):
            for error in found.errors:
                raise error
            picture.put(rect, found.rows)
        for _ in picture.band():
            pass
        picture.crc = crc

    def _coded(
        self, header: ltn.Header, band: list[ltn.Rect], features: Iterator[Array]
    ) -> Iterator[CodedTile]:
        """The tiles of a row, a few at a time: what they are made from, and what synthesis takes of them, is large."""
        at_once = max(_native.threads(), 1)
        encode = partial(self._encode_tile, np.empty((0, 0, 0), np.uint8), header, 0)
        for start in range(0, len(band), at_once):
            yield from together(encode, [(rect, next(features)) for rect in band[start : start + at_once]])

    def _small(self, image: Image, wish: bool | None) -> Image | None:
        """The small copy that goes into the file of an image, if one does."""
        height, width = image.pixels.shape[:2]
        if not wants_preview(wish, width * height):
            return None
        pixels = eighth(image.pixels)
        alpha = None if image.alpha is None else eighth(image.alpha[..., None])[..., 0]
        return replace(image, pixels=pixels, alpha=alpha)

    def _preview(self, small: Image, level: int) -> bytes:
        """The file of a small copy, without metadata, for the file of a picture with this level."""
        if self.model.rates is None:
            level //= 2  # at the same, it would take 3 % of the file
        small = replace(small, icc=None, exif=None, xmp=None, density=None)
        header = self._header(small, level)
        # Without its own checksum: to compute it takes as long as nearly all else.
        return self._write(small, header, self._features(small.pixels, header), 0, checked=False)

    def encode_to(
        self,
        image: Image,
        target: Target,
        *,
        effort: int = 1,
        content: Content = "photo",
        preview: bool | None = None,
    ) -> bytes:
        """The ``.ltn`` file of an image that has a wanted size, score or PSNR.

        g_a runs once, the rest once for each of about five qualities that are tried.

        Args:
            image: as for :meth:`encode`.
            target: bytes, SSIMULACRA2 or PSNR (dB, over all samples). Both are of colour and grey; alpha has no part.
            effort: as for :meth:`encode`, and spent on each of the qualities.
            content: as for :meth:`encode`. A lossless file has every score, and as many bytes as it has: it is taken
                where it is smaller than what was asked for.
            preview: as for :meth:`encode`; it is a part of the bytes that are asked for.

        Raises:
            TargetError: no quality gives it; the message says what can be had.
            ImageError: effort out of range, or not for this model.
            LimitError, ModelError: as :meth:`encode`.
        """
        if self.model.rates is not None:
            raise TargetError(f"{self.model.id} has no continuous quality to search; use a model that has")
        if target.ssimulacra2 is not None and min(image.pixels.shape[:2]) < LEAST_SIDE:
            raise TargetError(f"SSIMULACRA2 is not defined for sides of less than {LEAST_SIDE} pixels")
        steps = self._steps(effort)
        check_content(content)
        header = self._header(image, 0)
        drawn = None
        if content != "photo":
            drawn = self._drawn(image.pixels, replace(header, quality=self.model.level(_QUALITY)))
            if content == "drawn" or drawn is not None:
                exact = LosslessCodec().encode(image, effort=effort)
                if content == "drawn" or (target.bytes is not None and len(exact) <= target.bytes):
                    return exact
                if drawn is not None and drawn.all() and target.bytes is None:
                    return exact
        original = _seen(image.pixels) if target.ssimulacra2 is not None else image.pixels
        features = list(self._features(_filled(image.pixels, drawn), header))
        small = self._small(image, preview)

        def measure(level: int) -> tuple[float, bytes]:
            data = self._write(image, replace(header, quality=level), features, steps, drawn, small=small)
            if target.bytes is not None:
                return float(len(data)), data
            decoded, _ = self.decode(ltn.read(data, ltn.Limits(max_pixels=image.pixels.size)))
            if target.psnr is not None:
                return _psnr(decoded.pixels, image.pixels), data
            return ssimulacra2(original, _seen(decoded.pixels)), data

        data = search(measure, _LEVELS, target)
        return data if content == "photo" else smaller(image, data, drawn, effort=effort)

    def _header(self, image: Image, level: int) -> ltn.Header:
        height, width, channels = image.pixels.shape
        return ltn.Header(
            width=width,
            height=height,
            channels=channels,
            bit_depth=image.bit_depth,
            colour=ltn.Cicp(*image.colour),
            model=self.model.id,
            entropy_id=self.model.entropy_id[:8],
            weights_id=self.model.weights_id[:8],
            quality=level,
            tile_size=_TILE,
            lanes=_LANES,
            skip=self.model.skip,
        )

    def _level(self, quality: float | None) -> int:
        """The header's quality for a user's."""
        if quality is not None and self.model.rates == 1:
            raise ImageError(
                f"{self.model.id} has a single rate; leave the quality out, or use another model"
            )
        quality = _QUALITY if quality is None else quality
        if not 0.0 <= quality <= 100.0:
            raise ImageError(f"quality must be 0 to 100, got {quality}")
        return self.model.level(quality)

    def _steps(self, effort: int) -> int:
        """Gradient steps that an effort stands for."""
        if effort not in EFFORTS:
            raise ImageError(f"effort must be {min(EFFORTS)} to {max(EFFORTS)}, got {effort}")
        if EFFORTS[effort] and not self.model.refines:
            raise ImageError(
                f"{self.model.id} has no effort above {min(EFFORTS)}; only the default model has"
            )
        return EFFORTS[effort]

    def _features(self, pixels: Samples, header: ltn.Header, first: int = 0) -> Iterator[Array]:
        """What analysis makes of each tile, ``(h, w, C)``, from the ``first`` row of them on; it sees what is near."""
        height, width = pixels.shape[:2]
        coded_width, coded_height = ltn.coded_size(width, height)
        rows = self.model.analysis(coded_width, pixels.dtype, pixels.shape[2])
        left_over: Array | None = None
        portion = at_a_time(_ROWS, coded_width)

        edge: Samples = np.empty((0, width, pixels.shape[2]), pixels.dtype)

        def padded(top: int) -> Samples:
            # The border is repeated up to the grid; it costs few bits and is cut off by the decoder.
            nonlocal edge
            strip = pixels[top : min(top + portion, height)] if top < height else edge
            edge = strip[-1:].copy()
            below = min(top + portion, coded_height) - top - len(strip)
            missing = ((0, below), (0, coded_width - width), (0, 0))
            return np.pad(strip, missing, mode="edge") if below or coded_width > width else strip

        bands = _bands(header)[first:]
        # Whole positions of z above the first row that is wanted, as many as networks see of.
        above = -(-(self.model.analysis_reach or 0) // _BLOCK) * _BLOCK
        begin = max(bands[0][0].y - above, 0)
        unwanted = (bands[0][0].y - begin) // LATENT
        for row in range(0, begin, _ROWS):  # rows come in their order
            edge = pixels[row : min(row + _ROWS, begin)]
        starts = iter(range(begin, coded_height, portion))
        for band in bands:
            wanted = ltn.coded_size(1, band[0].height)[1] // LATENT
            # An array for each tile, which is gone when that is coded: of a wide picture, a row of them is large.
            tiles: list[Array] = []
            end = 0
            while end < wanted:
                if left_over is None:
                    top = next(starts, None)
                    left_over = rows.finish() if top is None else rows.push(np.ascontiguousarray(padded(top)))
                missed = min(unwanted, len(left_over))
                left_over, unwanted = left_over[missed:], unwanted - missed
                count = min(len(left_over), wanted - end)
                if count and not tiles:
                    sides = [ltn.coded_size(rect.width, 1)[0] // LATENT for rect in band]
                    tiles = [np.empty((wanted, side, left_over.shape[2]), left_over.dtype) for side in sides]
                for rect, tile in zip(band, tiles, strict=count > 0):
                    left = rect.x // LATENT
                    tile[end : end + count] = left_over[:count, left : left + tile.shape[1]]
                end += count
                left_over = left_over[count:].copy() if count < len(left_over) else None
            tiles.reverse()
            while tiles:
                yield tiles.pop()

    def _drawn(self, pixels: Samples, header: ltn.Header, slack: int = 0) -> Mask | None:
        """The pixels that are better drawn, with slack, than left to the model at the quality; None for none."""
        seen = screens.look(pixels)
        drawn = seen.sure
        photo = seen.photo[..., None]
        if seen.doubt.any():
            bits, plain = self._spent(pixels, header)
            page = np.where(photo, pixels.dtype.type(0), pixels) if photo.any() else pixels
            kept = measure(page, header.tile_size, drawn | seen.doubt, slack=slack)
            drawn = drawn | (seen.doubt & (kept <= _WORTH * bits))
        if not drawn.any():
            return None
        mask = spread(drawn, *pixels.shape[:2]) & ~seen.photo
        if not seen.page:
            # Estimates leave out what is lost at borders, for the model and for what adapts: single blocks of a
            # photograph are hardly ever worth it.
            streams = encode_tiles(pixels, header.tile_size, slack=slack, part=drawn)
            gain = plain - self._spent(screens.fill(pixels, mask), header)[1]
            if sum(map(len, streams)) > _WORTH * gain:
                return None
        return mask

    def _spent(self, pixels: Samples, header: ltn.Header) -> tuple[Array, int]:
        """What the model spends on a picture: bits of y for each block of 64x64 pixels, and bytes of all streams."""
        _, prices = self.model.prices(header.quality)
        height, width = ltn.coded_size(header.width, header.height)[::-1]
        bits = np.zeros((height // _BLOCK, width // _BLOCK), np.float32)
        total = 0
        for rect, features in zip(header.tiles(), self._features(pixels, header), strict=True):
            coded = self.model.encode(self.model.latent(features, header.quality), header.quality, 1)
            total += len(coded.stream)
            size = ltn.coded_size(rect.width, rect.height)[::-1]
            parts = self.model.anatomy(coded.stream, size, header.quality, header.skip, coded.lanes)
            spent = screens.costs(parts, prices, header.skip)
            top, left = rect.y // _BLOCK, rect.x // _BLOCK
            bits[top : top + len(spent), left : left + spent.shape[1]] = spent
        return bits, total

    def _write(
        self,
        image: Image,
        header: ltn.Header,
        features: Iterable[Array],
        steps: int,
        drawn: Mask | None = None,
        loss: screens.Loss = screens.Loss(),  # noqa: B008
        small: Image | None = None,
        checked: bool = True,
    ) -> bytes:
        """The file at the header's quality, given :meth:`_features` of the picture that the model sees."""
        tiles: list[ltn.Tile | None] = []
        layers = None if drawn is None else iter(screens.drawn_tiles(image.pixels, header, drawn, loss))
        pixels = _filled(image.pixels, drawn) if steps else image.pixels
        picture = _Picture(self.model, header) if self.model.exact and checked else None
        given = iter(features)
        for band in _bands(header):
            work = [(rect, next(given)) for rect in band]
            encode = partial(self._encode_tile, pixels, header, steps)
            # A search takes all processors for each tile.
            found = [encode(item) for item in work] if steps else together(encode, work)
            for rect, coded in zip(band, found, strict=True):
                header = replace(header, lanes=coded.lanes)
                stream, layer = (b"", None) if layers is None else next(layers)
                kept = screens.checksum(layer) if layer is not None else 0
                tiles.append(ltn.Tile(coded.checksum, coded.stream, stream, kept))
                if picture is not None:
                    picture.put(rect, coded.rows, layer)
            if picture is not None:
                for _ in picture.band():
                    pass
        if picture is not None:
            for _ in picture.finish():
                pass
        alpha = None if image.alpha is None else encode_alpha(image.alpha, header.tile_size)
        metadata = (image.icc or None, image.exif or None, image.xmp or None, image.density)
        crc = None if picture is None else picture.crc
        preview = None if small is None else self._preview(small, header.quality)
        return ltn.write(ltn.Container(header, tiles, None, *metadata, crc, alpha, preview))

    def _encode_tile(
        self, pixels: Samples, header: ltn.Header, steps: int, given: tuple[ltn.Rect, Array]
    ) -> CodedTile:
        rect, features = given
        latent = self.model.latent(features, header.quality)
        if steps:
            window = pixels[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width]
            latent = self.model.refine(window, latent, header.quality, steps)
        return self.model.encode(latent, header.quality, None if header.tile_count == 1 else header.lanes)

    # -- decoding ------------------------------------------------------------------------------------------

    def decode(
        self,
        container: ltn.Container | bytes | bytearray | memoryview,
        *,
        on_error: Literal["raise", "conceal"] = "raise",
        other_weights: bool = False,
    ) -> tuple[Image, tuple[str, ...]]:
        """The image of a file, and the problems that were met (none unless concealing).

        Args:
            container: the bytes of a ``.ltn`` file, or what :func:`latens.format.read` makes of them.
            on_error: "conceal" leaves damaged tiles flat and reports them, if there is a sound one.
            other_weights: accept other weights for the pixels than the file was made with.

        Raises:
            WrongWeightsError: the file needs another entropy model or other weights.
            LimitError: tiles that take too much memory.
            CoderError, ChecksumError: a tile is damaged, or the picture is not the one that was coded.
            FormatError: the bytes are damaged, or not a single tile can be decoded.
            ModelError: the weights give values that are not finite.
        """
        if not isinstance(container, ltn.Container):
            container = ltn.read(container, on_error=on_error)
        header = container.header
        if header.lossless:
            return LosslessCodec().decode(container, on_error=on_error)
        self.check_identity(header, other_weights)
        check_tile_size(header)
        problems = list(container.problems)
        lost = damaged = 0
        dtype = np.uint8 if header.sample_bytes == 1 else np.uint16
        # NumPy's empty arrays take no memory before they are touched: a file that only claims to be large is cheap.
        pixels = np.empty((header.height, header.width, header.channels), dtype)
        picture = _Picture(self.model, header)
        end = 0
        given = iter(container.tiles)
        for band in _bands(header):
            tiles = [(rect, next(given)) for rect in band]
            for (rect, _), found in zip(tiles, together(self._decoder(header), tiles), strict=True):
                number = picture.tiles
                for error in found.errors:
                    if on_error == "raise":
                        raise type(error)(f"tile {number}: {error}") from error
                    problems.append(f"tile {number}: {error}")
                lost += found.rows is None
                damaged += bool(found.errors)
                picture.put(rect, found.rows, found.layer)
            for rows in picture.band():
                pixels[end : end + len(rows)] = rows
                end += len(rows)
        if lost == header.tile_count:
            raise FormatError(f"nothing of the picture can be saved: {'; '.join(problems)[:500]}")
        for rows in picture.finish():
            pixels[end : end + len(rows)] = rows
            end += len(rows)
        stored = container.pixels
        same = self.model.exact and header.weights_id == self.model.weights_id[:8]
        if stored is not None and same and not lost and not damaged and picture.crc != stored:
            problem = f"the decoded picture has CRC-32 {picture.crc:08x}, {stored:08x} was stored"
            if on_error == "raise":
                raise ChecksumError(f"{problem}; the file, or this installation, is damaged")
            problems.append(problem)
        alpha = alpha_of(container)
        image = Image(
            pixels,
            alpha,
            container.icc,
            container.exif,
            container.xmp,
            colour=header.colour,
            density=container.density,
            bit_depth=header.bit_depth,
        )
        return image, tuple(problems)

    def check_identity(self, header: ltn.Header, other_weights: bool) -> None:
        """WrongWeightsError if this is not the model that a file was made with."""
        have = self.model.entropy_id[:8]
        if header.entropy_id != have:
            raise WrongWeightsError(
                f"the file was made with entropy model {header.entropy_id}, {self.model.id} at hand has {have}; "
                "install the release that the file was made with"
            )
        have = self.model.weights_id[:8]
        if header.weights_id != have and not other_weights:
            raise WrongWeightsError(
                f"the file was made with weights {header.weights_id}, {self.model.id} at hand has {have}; "
                "use --other-weights (other_weights=True) to accept other pixels"
            )

    def _decoder(self, header: ltn.Header) -> Any:
        def decode(given: tuple[ltn.Rect, ltn.Tile | None]) -> _Found:
            rect, tile = given
            if tile is None:
                return _Found(None, None, [])
            width, height = ltn.coded_size(rect.width, rect.height)
            errors: list[CoderError | ChecksumError | VersionError] = []
            rows, layer = None, None
            try:
                found, rows = self.model.decode(
                    tile.stream, (height, width), header.quality, header.skip, header.lanes
                )
                if found != tile.checksum:
                    rows = None
                    errors.append(
                        ChecksumError(
                            f"its symbols have checksum {found:08x}, {tile.checksum:08x} was stored"
                        )
                    )
            except CoderError as error:
                errors.append(error)
            try:
                layer = screens.decode_layer(tile, rect, header)
            except (CoderError, ChecksumError, VersionError) as error:
                errors.append(error)
            return _Found(rows, layer, errors)

        return decode


class _Found(NamedTuple):
    """What could be had of a tile, and why the rest could not, if that is not known already."""

    rows: Array | None
    layer: screens.Layer | None
    errors: list[CoderError | ChecksumError | VersionError]


class _Picture:
    """The decoded picture, made from latents of tiles, band by band, in memory that does not grow with its height."""

    def __init__(self, model: FileModel, header: ltn.Header) -> None:
        self._model, self.header = model, header
        self._width = ltn.coded_size(header.width, 1)[0] // LATENT
        dtype = np.uint8 if header.sample_bytes == 1 else np.uint16
        self._rows = model.synthesis(self._width, header.quality, dtype, header.channels)
        self._band: Array | None = None
        self._left = header.height
        self._layers: list[screens.Layer] = []
        self.tiles, self.crc = 0, 0

    def start_at(self, row: int) -> None:
        """Begin further down; what comes first is not that of the whole picture, as far as networks reach."""
        self._left = self.header.height - row

    def put(self, rect: ltn.Rect, rows: Array | None, layer: screens.Layer | None = None) -> None:
        """The next tile, with its drawn blocks; no rows for one that is lost, which becomes flat."""
        if layer is not None:
            self._layers.append(layer)
        width, height = ltn.coded_size(rect.width, rect.height)
        if self._band is None:
            size = height // LATENT, self._width, self._model.channels
            self._band = np.zeros(size, self._model.rows_type)
        if rows is not None:
            left = rect.x // LATENT
            self._band[:, left : left + width // LATENT] = rows
        self.tiles += 1

    def band(self) -> Iterator[Samples]:
        """Rows of samples that are complete, now that all tiles of a row of them have been put."""
        if self._band is not None:
            # In pieces: what comes out is eight times as large.
            portion = at_a_time(_PIECE, LATENT * self._width)
            for top in range(0, len(self._band), portion):
                yield from self._cut(self._rows.push(self._band[top : top + portion]))
        self._band = None

    def finish(self) -> Iterator[Samples]:
        """The last rows."""
        yield from self._cut(self._rows.finish())

    def _cut(self, rows: Samples) -> Iterator[Samples]:
        if not len(rows):
            return
        kept = np.ascontiguousarray(rows[: self._left, : self.header.width])
        if self._layers:
            if not kept.flags.writeable:
                kept = kept.copy()
            screens.compose(kept, self.header.height - self._left, self._layers)
        self._left -= len(kept)
        self.crc = zlib.crc32(kept.astype(kept.dtype.newbyteorder("<"), copy=False).data, self.crc)
        yield kept


def _filled(pixels: Samples, drawn: Mask | None) -> Samples:
    """What a model sees of a picture."""
    return pixels if drawn is None else screens.fill(pixels, drawn)


def _bands(header: ltn.Header) -> list[list[ltn.Rect]]:
    """Tiles, a list for each row of them."""
    rects = header.tiles()
    columns = ltn.tile_grid(header.width, header.height, header.tile_size)[0]
    return [rects[start : start + columns] for start in range(0, len(rects), columns)]


def check_tile_size(header: ltn.Header) -> None:
    """LimitError for tiles that take too much memory."""
    if header.tile_size > _MAX_TILE:
        raise LimitError(f"tiles of {header.tile_size} pixels are above the limit of {_MAX_TILE}")


def at_a_time(rows: int, width: int) -> int:
    """How many rows a network takes at a time of so many: fewer of wide pictures, for what it has between is large."""
    return rows if width <= _WIDE else rows // 4


def _seen(pixels: Samples) -> Samples:
    """RGB samples as measures take them."""
    colour = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return colour if pixels.dtype == np.uint8 else colour / np.float32(np.iinfo(pixels.dtype).max)


def _psnr(a: Samples, b: Samples) -> float:
    most = float(np.iinfo(a.dtype).max)
    mse = float(np.mean(np.square(a.astype(np.float32) - b), dtype=np.float64)) / most**2
    return -10.0 * math.log10(max(mse, 1e-15))
