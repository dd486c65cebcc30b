"""Images to ``.ltn`` and back: joins the container, image arrays and the models."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latens import format as ltn
from latens.codec.effort import EFFORTS
from latens.codec.models import LATENT, LEVELS, FileModel, by_position
from latens.codec.target import Target, search
from latens.errors import (
    ChecksumError,
    CoderError,
    FormatError,
    ImageError,
    LimitError,
    TargetError,
    WrongWeightsError,
)
from latens.io import Image
from latens.metrics import ssimulacra2
from latens.metrics.perceptual import LEAST_SIDE
from latens.zoo import DEFAULT_MODEL, LoadedModel, load
from latens.zoo.weights import load_released

__all__ = ["ImageCodec"]

Samples = npt.NDArray[Any]  # uint8 or uint16
Int16 = npt.NDArray[np.int16]
Index = npt.NDArray[np.uint8]

_TILE = 1024
_MAX_TILE = 4096  # a tile is decoded in one piece, which takes memory in proportion
_LANES = 8  # of images of several tiles
_QUALITY = 50.0


class ImageCodec:
    """Codes images with one model.

    Args:
        model: a loaded model, or what :func:`latens.zoo.load` takes.
        fast: run g_a, h_a and g_s in bfloat16. Symbols stay exact; pixels change by less than quantisation does.
    """

    def __init__(
        self, model: LoadedModel | str | os.PathLike[str] = DEFAULT_MODEL, *, fast: bool = False
    ) -> None:
        self.model = model if isinstance(model, LoadedModel) else load(model)
        self._model = FileModel(self.model, fast)

    @classmethod
    def for_file(
        cls, header: ltn.Header, *, weights_dir: str | os.PathLike[str] | None = None, fast: bool = False
    ) -> ImageCodec:
        """The codec for the released model that a file names.

        Args:
            header: of the file.
            weights_dir: folder with weights that are not in the package; see :func:`latens.zoo.obtain.obtain`.
            fast: as for the class.

        Raises:
            UnknownModelError, UnavailableError: neither this release nor the folder has the model.
            DownloadError: its weights cannot be fetched.
        """
        return cls(
            load_released(header.model, None if weights_dir is None else os.fspath(weights_dir)), fast=fast
        )

    # -- encoding ------------------------------------------------------------------------------------------

    def encode(self, image: Image, quality: float | None = None, *, effort: int = 1) -> bytes:
        """The ``.ltn`` file of an image.

        Args:
            image: 8 or 16 bits, grey or RGB. Alpha, ICC, EXIF, XMP, colour and density go into the file unchanged.
            quality: 0 (smallest) to 100 (best), 50 by default; any real number between, of which a model with a
                few rates takes the nearest. Not for a model of a single rate.
            effort: 1 (none) to 5 (most) of searching for latents that cost less; see :mod:`latens.codec.effort`.

        Raises:
            ImageError: quality or effort out of range, or not for this model.
            LimitError: the image or its metadata are too large for a file.
            ModelError: the weights give values that are not finite.
        """
        if quality is not None and self._model.rates == 1:
            raise ImageError(
                f"{self.model.id} has a single rate; leave the quality out, or use another model"
            )
        quality = _QUALITY if quality is None else quality
        if not 0.0 <= quality <= 100.0:
            raise ImageError(f"quality must be 0 to 100, got {quality}")
        steps = self._steps(effort)
        header = self._header(image, self._model.level(quality))
        with self._inference():
            features = (self._features(image.pixels, rect) for rect in header.tiles())
            return self._write(image, header, features, steps)

    def encode_to(self, image: Image, target: Target, *, effort: int = 1) -> bytes:
        """The ``.ltn`` file of an image that has a wanted size, score or PSNR.

        g_a runs once, the rest once for each of about five qualities that are tried.

        Args:
            image: as for :meth:`encode`.
            target: bytes, SSIMULACRA2 or PSNR (dB, over all samples). Both are of colour and grey; alpha has no part.
            effort: as for :meth:`encode`, and spent on each of the qualities.

        Raises:
            TargetError: no quality gives it; the message says what can be had.
            ImageError: effort out of range, or not for this model.
            LimitError, ModelError: as :meth:`encode`.
        """
        if self._model.rates is not None:
            raise TargetError(f"{self.model.id} has no continuous quality to search; use a model that has")
        if target.ssimulacra2 is not None and min(image.pixels.shape[:2]) < LEAST_SIDE:
            raise TargetError(f"SSIMULACRA2 is not defined for sides of less than {LEAST_SIDE} pixels")
        steps = self._steps(effort)
        header = self._header(image, 0)
        original = _seen(image.pixels) if target.ssimulacra2 is not None else image.pixels
        with self._inference():
            features = [self._features(image.pixels, rect) for rect in header.tiles()]

            def measure(level: int) -> tuple[float, bytes]:
                data = self._write(image, replace(header, quality=level), features, steps)
                if target.bytes is not None:
                    return float(len(data)), data
                decoded, _ = self.decode(ltn.read(data, ltn.Limits(max_pixels=image.pixels.size)))
                if target.psnr is not None:
                    return _psnr(decoded.pixels, image.pixels), data
                return ssimulacra2(original, _seen(decoded.pixels)), data

            return search(measure, LEVELS, target)

    def _header(self, image: Image, level: int) -> ltn.Header:
        height, width, channels = image.pixels.shape
        return ltn.Header(
            width=width,
            height=height,
            channels=channels,
            bit_depth=image.bit_depth,
            colour=ltn.Cicp(*image.colour),
            model=self.model.id,
            entropy_id=self.model.entropy.entropy_id[:8],
            weights_id=self.model.weights_id[:8],
            quality=level,
            tile_size=_TILE,
            lanes=_LANES,
            skip=self._model.skip,
        )

    def _steps(self, effort: int) -> int:
        """Gradient steps that an effort stands for."""
        if effort not in EFFORTS:
            raise ImageError(f"effort must be {min(EFFORTS)} to {max(EFFORTS)}, got {effort}")
        if EFFORTS[effort] and not self._model.refines:
            raise ImageError(
                f"{self.model.id} has no effort above {min(EFFORTS)}; only the default model has"
            )
        return EFFORTS[effort]

    def _write(self, image: Image, header: ltn.Header, features: Iterable[Tensor], steps: int) -> bytes:
        """The file at the header's quality, given :meth:`_features` of each tile."""
        tiles: list[ltn.Tile | None] = []
        for tile, rect in zip(features, header.tiles(), strict=True):
            if steps:
                window = image.pixels[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width]
                x = _unit(window)[None].permute(0, 3, 1, 2)
                tile = self._model.refine(x, tile, header.quality, steps)
            coded = self._model.encode(tile, header.quality, None if header.tile_count == 1 else header.lanes)
            header = replace(header, lanes=coded.lanes)
            tiles.append(ltn.Tile(coded.checksum, coded.stream))
        # In the byte order of the file.
        alpha = None if image.alpha is None else image.alpha.astype(_stored(header), copy=False).tobytes()
        metadata = (image.icc or None, image.exif or None, image.xmp or None, image.density)
        return ltn.write(ltn.Container(header, tiles, alpha, *metadata))

    def _features(self, pixels: Samples, rect: ltn.Rect) -> Tensor:
        """What g_a makes of one tile, ``(1, channels, h, w)``, computed with the surroundings that it depends on."""
        height, width = pixels.shape[:2]
        coded_width, coded_height = ltn.coded_size(width, height)
        halo = 0 if _is_one_tile(rect, width, height) else self._model.analysis_halo
        x0, y0 = max(rect.x - halo, 0), max(rect.y - halo, 0)
        x1 = min(_up(rect.x + rect.width, ltn.GRID) + halo, coded_width)
        y1 = min(_up(rect.y + rect.height, ltn.GRID) + halo, coded_height)
        window = pixels[y0:y1, x0:x1]
        # The border is repeated up to the grid; it costs few bits and is cut off by the decoder.
        missing = ((0, y1 - y0 - window.shape[0]), (0, x1 - x0 - window.shape[1]), (0, 0))
        window = np.pad(window, missing, mode="edge")
        # The batch comes first: added last, its stride would hide the layout from what asks for it.
        x = by_position(_unit(window)[None].permute(0, 3, 1, 2).expand(-1, 3, -1, -1))
        y = self._model.analyse(x)
        top, left = (rect.y - y0) // LATENT, (rect.x - x0) // LATENT
        tile_width, tile_height = ltn.coded_size(rect.width, rect.height)
        bottom, right = top + tile_height // LATENT, left + tile_width // LATENT
        return by_position(y[:, :, top:bottom, left:right])

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
            CoderError, ChecksumError: a tile is damaged.
            FormatError: the bytes are damaged, or not a single tile can be decoded.
            ModelError: the weights give values that are not finite.
        """
        if not isinstance(container, ltn.Container):
            container = ltn.read(container, on_error=on_error)
        header = container.header
        self._check_identity(header, other_weights)
        _check_supported(header)
        problems = list(container.problems)
        coded_width, coded_height = ltn.coded_size(header.width, header.height)
        lost = 0
        with self._inference():
            # NumPy's zeros take no memory before they are touched: a file that only claims to be large is cheap.
            size = (1, coded_height // LATENT, coded_width // LATENT, self._model.channels)
            y_hat = torch.from_numpy(np.zeros(size, np.float32)).permute(0, 3, 1, 2)
            for number, (tile, rect) in enumerate(zip(container.tiles, header.tiles(), strict=True)):
                try:
                    if tile is None:
                        lost += 1
                        continue
                    part = self._decode_tile(tile, rect, header)
                except (ChecksumError, CoderError) as error:
                    if on_error == "raise":
                        raise type(error)(f"tile {number}: {error}") from error
                    problems.append(f"tile {number}: {error}")
                    lost += 1
                    continue
                top, left = rect.y // LATENT, rect.x // LATENT
                y_hat[:, :, top : top + part.shape[2], left : left + part.shape[3]] = part
            if lost == header.tile_count:
                raise FormatError(f"nothing of the picture can be saved: {'; '.join(problems)[:500]}")
            pixels = self._synthesise(y_hat, header)
        alpha = None
        if container.alpha is not None:
            alpha = np.frombuffer(container.alpha, _stored(header)).reshape(header.height, header.width)
            alpha = alpha.astype(pixels.dtype, copy=False)  # the machine's byte order
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

    def _check_identity(self, header: ltn.Header, other_weights: bool) -> None:
        have = self.model.entropy.entropy_id[:8]
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

    def _decode_tile(self, tile: ltn.Tile, rect: ltn.Rect, header: ltn.Header) -> Tensor:
        """y_hat of one tile ``(1, channels, h, w)``."""
        width, height = ltn.coded_size(rect.width, rect.height)
        checksum, y_hat = self._model.decode(tile.stream, (height, width), header)
        if checksum != tile.checksum:
            raise ChecksumError(f"its symbols have checksum {checksum:08x}, {tile.checksum:08x} was stored")
        return y_hat

    def _synthesise(self, y_hat: Tensor, header: ltn.Header) -> Samples:
        """Pixels ``(height, width, channels)``, tile by tile with the surroundings that each depends on."""
        most, dtype = (255, np.uint8) if header.bit_depth == 8 else (65535, np.uint16)
        pixels = np.empty((header.height, header.width, header.channels), dtype)
        halo = 0 if header.tile_count == 1 else self._model.synthesis_halo
        for rect in header.tiles():
            top, left = rect.y // LATENT, rect.x // LATENT
            y0, x0 = max(top - halo, 0), max(left - halo, 0)
            y1, x1 = (
                math.ceil((s + n) / LATENT) + halo for s, n in ((rect.y, rect.height), (rect.x, rect.width))
            )
            window = by_position(y_hat[:, :, y0:y1, x0:x1])
            x = self._model.synthesise(window, header.quality)
            row, col = (top - y0) * LATENT, (left - x0) * LATENT
            x = x[0, :, row : row + rect.height, col : col + rect.width]
            if header.channels == 1:
                x = x.mean(0, keepdim=True)
            # int32: not all of PyTorch knows uint16.
            x = x.mul(float(most)).round_().clamp_(0.0, float(most)).to(torch.int32)
            pixels[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width] = x.permute(1, 2, 0).numpy()
        return pixels

    # -- how networks run ----------------------------------------------------------------------------------

    @contextmanager
    def _inference(self) -> Iterator[None]:
        # Whatever a caller has set must not reach the networks that means are computed with.
        with torch.inference_mode(), torch.device("cpu"), torch.autocast("cpu", enabled=False):
            yield


def _check_supported(header: ltn.Header) -> None:
    if header.tile_size > _MAX_TILE:
        raise LimitError(f"tiles of {header.tile_size} pixels are above the limit of {_MAX_TILE}")


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


def _is_one_tile(rect: ltn.Rect, width: int, height: int) -> bool:
    return (rect.width, rect.height) == (width, height)


def _unit(samples: Samples) -> Tensor:
    """Samples as float32 in 0..1."""
    # Copied and contiguous: PyTorch warns of arrays that must not be written to.
    most = np.iinfo(samples.dtype).max
    return torch.from_numpy(np.ascontiguousarray(samples, np.float32)).div_(float(most))


def _stored(header: ltn.Header) -> str:
    """How samples of alpha are stored, for NumPy."""
    return f"<u{header.sample_bytes}"


def _seen(pixels: Samples) -> Samples:
    """RGB samples as measures take them."""
    colour = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return colour if pixels.dtype == np.uint8 else colour / np.float32(np.iinfo(pixels.dtype).max)


def _psnr(a: Samples, b: Samples) -> float:
    most = float(np.iinfo(a.dtype).max)
    mse = float(np.mean(np.square(a.astype(np.float32) - b), dtype=np.float64)) / most**2
    return -10.0 * math.log10(max(mse, 1e-15))
