"""Models that can be inspected: weights files through real ``.ltn`` files, others through their strings."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latens import format as ltn
from latens import models as classic
from latens.codec import ImageCodec
from latens.codec.drawn import fill, survey
from latens.codec.lossless import Content
from latens.entropy_models import EntropyBottleneck, GaussianConditional, GaussianMixtureConditional
from latens.entropy_models.gaussian import get_scale_table
from latens.errors import ImageError, ModelError, ShapeError, UnknownModelError
from latens.inspect.anatomy import REACH, Anatomy, Latent, Part, RatePoint, gaussian_pmf, psnr
from latens.io import Image, printable
from latens.models import CompressionModel
from latens.runtime.coding import LATENT, FileModel, Prices
from latens.runtime.coding import Anatomy as TileAnatomy
from latens.zoo import DEFAULT_MODEL, cards, entries, entry, image_models, load
from latens.zoo.pretrained import load_pretrained, read_checkpoint

__all__ = ["ClassicSubject", "LtnSubject", "Subject", "load_subject"]

Uint8 = npt.NDArray[np.uint8]
Float64 = npt.NDArray[np.float64]
Array = npt.NDArray[np.float32]

_GRID = 64  # pixels per position of z in all models
_LANE_STATE = 5
_STREAM_STATE = 8


class Subject(ABC):
    """A model under inspection.

    Attributes:
        name: of the model.
        qualities: on the model's own scale, lowest rate first; what :meth:`rate_curve` goes through.
        quality: what to look at if nobody says.
    """

    name: str
    qualities: tuple[float, ...]
    quality: float

    @abstractmethod
    def inspect(self, pixels: Uint8, quality: float | None = None) -> Anatomy:
        """Code a picture and take the result apart.

        Args:
            pixels: ``(H, W, 3)`` or ``(H, W, 1)``, 8 bits.
            quality: on the model's own scale; :attr:`quality` if None.

        Raises:
            ShapeError: another shape or type.
            ImageError: no such quality.
            ModelError: the weights cannot be used.
        """

    @abstractmethod
    def point(self, pixels: Uint8, quality: float) -> RatePoint:
        """Code a picture and tell what it costs; arguments and errors as for :meth:`inspect`."""

    def rate_curve(self, pixels: Uint8) -> list[RatePoint]:
        """:meth:`point` at all :attr:`qualities`."""
        return [self.point(pixels, quality) for quality in self.qualities]


def _rgb(pixels: Uint8) -> Uint8:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise ShapeError(f"expected uint8 (H, W, 1 or 3), got {pixels.dtype} {pixels.shape}")
    return np.array(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _padded(pixels: Uint8) -> Tensor:
    """``(1, 3, H, W)`` in 0..1, the border repeated up to the grid."""
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255.0
    return F.pad(x, (0, -x.shape[3] % _GRID, 0, -x.shape[2] % _GRID), mode="replicate")


def _array(tensor: Tensor) -> Array:
    """``(1, C, h, w)`` as an array ``(C, h, w)``."""
    return np.ascontiguousarray(tensor[0].float().numpy())


def _with_theory(parts: Sequence[Part], y: Latent, z: Latent | None) -> tuple[Part, ...]:
    """The same parts with their theoretical sizes."""
    bits = {"y": float(y.bits.sum(dtype=np.float64))}
    if z is not None:
        bits["z"] = float(z.bits.sum(dtype=np.float64))
    return tuple(Part(part.name, bits.get(part.name, part.ideal_bits), part.bytes) for part in parts)


class LtnSubject(Subject):
    """A model that makes ``.ltn`` files; what is inspected is a real file.

    Args:
        model: a loaded model, or what :func:`latens.zoo.load` takes.
        content: "auto" keeps text, lines and flat areas as they are, as files of the default model do.
    """

    def __init__(
        self, model: FileModel | str | os.PathLike[str] = DEFAULT_MODEL, content: Content = "photo"
    ) -> None:
        self._codec = ImageCodec(model)
        self._content: Content = content
        self._model = self._codec.model
        self.name = self._model.id
        rates = self._model.rates
        count = 11 if rates is None else rates
        self.qualities = tuple(100.0 * i / max(1, count - 1) for i in range(count))
        self.quality = 50.0 if count > 1 else 0.0

    def point(self, pixels: Uint8, quality: float) -> RatePoint:
        container, reconstruction, size, _ = self._code(_rgb(pixels), quality)
        parts, _ = self._parts(container, size)
        return RatePoint(
            quality, parts, pixels.shape[0] * pixels.shape[1], psnr(_rgb(pixels), reconstruction)
        )

    def inspect(self, pixels: Uint8, quality: float | None = None) -> Anatomy:
        quality = self.quality if quality is None else quality
        original = _rgb(pixels)
        container, reconstruction, size, exact = self._code(original, quality)
        parts, tiles = self._parts(container, size)
        drawn = None if self._content == "photo" else survey(container).mask()
        seen = original if drawn is None or not drawn.any() else fill(original, drawn)
        y, z = self._latents(seen, container.header, tiles)
        parts = _with_theory(parts, y, z)
        return Anatomy(self.name, quality, LATENT, original, reconstruction, y, z, parts, drawn, exact)

    def _code(self, original: Uint8, quality: float) -> tuple[ltn.Container, Uint8, int, int]:
        """What the model makes: the file, its picture and its size; and the size of a lossless file in its place."""
        if len(self.qualities) == 1 and quality != self.quality:
            raise ImageError(f"{self.name} has a single rate, quality {self.quality:g}, got {quality:g}")
        wanted = None if len(self.qualities) == 1 else quality
        data, exact = self._codec.encode(Image(original), wanted, content=self._content), 0
        if ltn.read_header(data).lossless:
            exact = len(data)
            data = self._codec.encode(Image(original), wanted)
        container = ltn.read(data, ltn.Limits(max_pixels=original.size))
        decoded, _ = self._codec.decode(container)
        return container, decoded.pixels, len(data), exact

    def _parts(self, container: ltn.Container, size: int) -> tuple[tuple[Part, ...], list[_Tile]]:
        """Real bytes, and the symbols of all tiles.

        All symbols share a stream. z and y are what each adds to it where there is one coder state; that state, and
        what further ones cost, counts as "coder states". What a model without side information codes is its y.
        """
        header = container.header
        tiles, streams, z_size, y_size, kept = [], 0, 0, 0, 0
        for tile, rect in zip(container.tiles, header.tiles(), strict=True):
            if tile is None:  # strict reading leaves none out
                continue
            width, height = ltn.coded_size(rect.width, rect.height)
            found = self._model.anatomy(
                tile.stream, (height, width), header.quality, header.skip, header.lanes
            )
            streams += len(tile.stream)
            kept += len(tile.drawn)
            z_size += found.z_bytes - _LANE_STATE
            y_size += found.y_bytes
            tiles.append((rect, found))
        coded = [Part("z", 0.0, z_size), Part("y", 0.0, y_size)]
        if not tiles[0][1].y.size:
            coded = [Part("y", 0.0, z_size)]
        if kept:
            coded.append(Part("drawn blocks", 8.0 * kept, kept))
        parts = (
            Part("container", 0.0, size - streams - kept),
            Part("coder states", 0.0, streams - z_size - y_size),
            *coded,
        )
        return parts, tiles

    def _latents(
        self, original: Uint8, header: ltn.Header, tiles: list[_Tile]
    ) -> tuple[Latent, Latent | None]:
        y_values, z_values = self._model.unrounded(_padded_samples(original), header.quality)
        z_prices, y_prices = self._model.prices(header.quality)
        z_symbols = np.empty(z_values.shape, np.int32)
        y_symbols, indexes = np.empty(y_values.shape, np.int32), np.empty(y_values.shape, np.uint8)
        mean = np.empty(y_values.shape, np.float32)
        step = _up(original.shape[0]) // z_values.shape[1]
        for rect, tile in tiles:
            z_symbols[_window(rect, step, tile.z.shape)] = tile.z
            if tile.y.size:
                here = _window(rect, LATENT, tile.y.shape)
                y_symbols[here], indexes[here] = tile.y, tile.indexes
                mean[here] = 0.0 if tile.mean is None else tile.mean
        channels = np.broadcast_to(np.arange(len(z_symbols))[:, None, None], z_symbols.shape)
        z = Latent(z_values, z_symbols, *_priced(z_prices, z_symbols, channels))
        if y_prices is None:
            return z, None
        coded = indexes >= header.skip
        bits, by_channel = _priced(y_prices, y_symbols, indexes, coded)
        means = None if tiles[0][1].mean is None else mean
        return Latent(y_values, y_symbols, bits, by_channel, means, get_scale_table().numpy()[indexes]), z


def _priced(
    prices: Prices,
    symbols: npt.NDArray[np.int32],
    tables: npt.NDArray[Any],
    coded: npt.NDArray[np.bool_] | None = None,
) -> tuple[Array, Float64]:
    """Bits of symbols ``(C, H, W)`` by the tables they are coded with, and for each channel how probable those around
    zero are on average. What is not ``coded`` is zero, and free."""
    around = np.arange(-REACH, REACH + 1)
    bits = np.zeros(symbols.shape, np.float32)
    of_table = np.zeros((len(prices.rows), len(around)))
    for number, (row, offset) in enumerate(zip(prices.rows, prices.offsets, strict=True)):
        mass = np.diff(row) / float(row[-1])
        escape = len(mass) - 1
        known = (around - offset >= 0) & (around - offset < escape)
        of_table[number, known] = mass[(around - offset)[known]]
        where = tables == number
        if not where.any():
            continue
        place = symbols[where] - offset
        inside = (place >= 0) & (place < escape)
        # Beyond the table: its last entry, then the number of nibbles and the nibbles of the distance.
        beyond = 2 * np.where(place < 0, -place - 1, place - escape) + 1
        nibbles = 1 + np.ceil(np.log2(np.maximum(beyond, 1) + 1) / 4)
        cost = -np.log2(mass[np.where(inside, place, escape)])
        bits[where] = np.where(inside, cost, cost + 4 * nibbles)
    if coded is not None:
        bits *= coded
    shares = np.zeros((len(symbols), len(around)))
    for channel, chosen in enumerate(tables):
        use = np.bincount(chosen.ravel(), minlength=len(prices.rows)) / chosen.size
        if coded is not None:
            free = 1.0 - coded[channel].mean()
            use = np.bincount(chosen[coded[channel]].ravel(), minlength=len(prices.rows)) / chosen.size
            shares[channel, REACH] += free
        shares[channel] += use @ of_table
    return bits, shares


_Tile = tuple[ltn.Rect, TileAnatomy]


def _up(size: int) -> int:
    return -(-size // _GRID) * _GRID


def _padded_samples(original: Uint8) -> Uint8:
    """The border repeated up to the grid."""
    height, width = original.shape[:2]
    return np.pad(original, ((0, _up(height) - height), (0, _up(width) - width), (0, 0)), mode="edge")


def _window(rect: ltn.Rect, step: int, shape: tuple[int, ...]) -> tuple[slice, slice, slice]:
    top, left = rect.y // step, rect.x // step
    return slice(None), slice(top, top + shape[1]), slice(left, left + shape[2])


class ClassicSubject(Subject):
    """Models with CompressAI's interface, one per quality or one of variable rate; strings without a container.

    Args:
        name: what to call them.
        models: by quality, either the model or a function that makes it.

    Raises:
        ModelError: no models.
    """

    def __init__(
        self, name: str, models: Mapping[int, CompressionModel | Callable[[], CompressionModel]]
    ) -> None:
        if not models:
            raise ModelError(f"{name}: there is no model to inspect")
        self.name = name
        self._models = dict(models)
        self._levels = 0
        if len(models) == 1:
            self._levels = int(getattr(self._model(next(iter(models))), "levels", 0))
        self.qualities = tuple(float(q) for q in (range(self._levels) if self._levels else sorted(models)))
        self.quality = self.qualities[len(self.qualities) // 2]

    def _model(self, quality: int) -> CompressionModel:
        model = self._models[quality]
        if not isinstance(model, CompressionModel):
            model = self._models[quality] = model()
        return model.eval()

    def _at(self, quality: float) -> tuple[CompressionModel, dict[str, Any]]:
        """The model of a quality, and what its methods want to know besides."""
        if quality not in self.qualities:
            low, high = self.qualities[0], self.qualities[-1]
            raise ImageError(f"{self.name}: expected a quality from {low:g} to {high:g}, got {quality:g}")
        if self._levels:
            return self._model(next(iter(self._models))), {"s": int(quality)}
        return self._model(int(quality)), {}

    def point(self, pixels: Uint8, quality: float) -> RatePoint:
        original = _rgb(pixels)
        model, options = self._at(quality)
        with torch.inference_mode():
            parts, reconstruction = _classic_parts(model, options, original)
        return RatePoint(
            quality, parts, original.shape[0] * original.shape[1], psnr(original, reconstruction)
        )

    def inspect(self, pixels: Uint8, quality: float | None = None) -> Anatomy:
        quality = self.quality if quality is None else quality
        original = _rgb(pixels)
        model, options = self._at(quality)
        with torch.inference_mode():
            # Coding comes first: it makes tables where there are none, and medians with them.
            parts, reconstruction = _classic_parts(model, options, original)
            with _recorded(model) as calls:
                out = model(_padded(original), **options)
            likelihoods = {name: _array(value) for name, value in out["likelihoods"].items()}
            gaussians = [call for call in calls if isinstance(call.module, GaussianConditional)]
            bottlenecks = [call for call in calls if isinstance(call.module, EntropyBottleneck)]
            if gaussians:
                y = _gaussian_latent(gaussians, likelihoods["y"])
                z = _bottleneck_latent(bottlenecks[0], likelihoods["z"]) if bottlenecks else None
            elif bottlenecks:
                y, z = _bottleneck_latent(bottlenecks[0], likelihoods["y"]), None
            else:
                raise ModelError(f"{self.name}: has no entropy model that could be looked into")
        step = -(-original.shape[0] // _GRID) * _GRID // y.bits.shape[1]
        return Anatomy(self.name, quality, step, original, reconstruction, y, z, _with_theory(parts, y, z))


def _classic_parts(
    model: CompressionModel, options: dict[str, Any], original: Uint8
) -> tuple[tuple[Part, ...], Uint8]:
    """Real bytes of the strings, and the decoded picture. The strings of z come last."""
    coded = model.compress(_padded(original), **options)  # type: ignore[operator]
    decoded = model.decompress(coded["strings"], coded["shape"], **options)  # type: ignore[operator]
    sizes = [sum(len(string) for string in part) for part in coded["strings"]]
    states = [_STREAM_STATE] * len(sizes)
    split = len(sizes) - (1 if len(sizes) > 1 else 0)
    parts = [Part("container", 0.0, 0), Part("coder states", 0.0, sum(states))]
    if split < len(sizes):
        parts.append(Part("z", 0.0, sizes[-1] - states[-1]))
    parts.append(Part("y", 0.0, sum(sizes[:split]) - sum(states[:split])))
    height, width = original.shape[:2]
    x_hat = decoded["x_hat"][0, :, :height, :width].clamp(0, 1).mul(255.0).round().to(torch.uint8)
    return tuple(parts), np.ascontiguousarray(x_hat.permute(1, 2, 0).numpy())


class _Call:
    """What an entropy model was given and returned."""

    def __init__(self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
        names = ("inputs", "scales", "means", "weights")
        if isinstance(module, EntropyBottleneck):
            names = ("inputs", "training", "qs", "ste")
        given = dict(zip(names, args, strict=False)) | dict(kwargs)
        self.module = module
        self.inputs: Tensor = given["x"] if "x" in given else given["inputs"]
        self.outputs: Tensor = out[0]
        self.scales: Tensor | None = given.get("scales")
        self.means: Tensor | None = given.get("means")
        self.weights: Tensor | None = given.get("weights")
        self.step: Tensor | None = given.get("qs")


@contextmanager
def _recorded(model: nn.Module) -> Iterator[list[_Call]]:
    """Write down every use of an entropy model."""
    calls: list[_Call] = []

    def hook(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        calls.append(_Call(module, args, kwargs, out))

    handles = [
        module.register_forward_hook(hook, with_kwargs=True)
        for module in model.modules()
        if isinstance(module, (GaussianConditional, EntropyBottleneck))
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _joined(pieces: Sequence[Tensor], shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Pieces of a latent in the order in which models make them: groups of channels, or single positions."""
    if len(pieces) > 1 and pieces[0].shape[2:] == (1, 1):
        joined = torch.cat(list(pieces), dim=3)
        return _array(joined.reshape(1, joined.shape[1], *shape[1:]))
    return _array(torch.cat(list(pieces), dim=1))


def _gaussian_latent(calls: Sequence[_Call], likelihood: npt.NDArray[np.float32]) -> Latent:
    shape = likelihood.shape
    bits = -np.log2(likelihood)
    values = _joined([call.inputs for call in calls], shape)
    decoded = _joined([call.outputs for call in calls], shape)
    mixture = calls[0].module
    if isinstance(mixture, GaussianMixtureConditional):
        scales, means, weights = (
            part[0].reshape(mixture.K, -1, *shape[1:])
            for part in (calls[0].scales, calls[0].means, calls[0].weights)
            if part is not None
        )
        mean = (weights * means).sum(0)
        spread = (weights * (scales**2 + means**2)).sum(0) - mean**2
        return Latent(
            values,
            np.rint(decoded).astype(np.int32),
            bits,
            _mixture_pmf(scales, means, weights),
            mean.numpy(),
            spread.clamp_min(1e-12).sqrt().numpy(),
        )
    # The scale that is coded with is never below the bound.
    lower = [call.module.lower_bound_scale(call.scales) for call in calls]  # type: ignore[operator]
    scale = _joined(lower, shape)
    mean_array = None
    if all(call.means is not None for call in calls):
        mean_array = _joined([call.means for call in calls if call.means is not None], shape)
    residual = decoded if mean_array is None else decoded - mean_array
    return Latent(values, np.rint(residual).astype(np.int32), bits, gaussian_pmf(scale), mean_array, scale)


def _mixture_pmf(scales: Tensor, means: Tensor, weights: Tensor) -> Float64:
    rows = []
    for k in range(-REACH, REACH + 1):
        s = scales.double() * 2**0.5
        upper, lower = torch.erf((k + 0.5 - means) / s), torch.erf((k - 0.5 - means) / s)
        rows.append((weights * 0.5 * (upper - lower)).sum(0).mean(dim=(1, 2)))
    result: Float64 = torch.stack(rows, dim=1).numpy()
    return result


def _bottleneck_latent(call: _Call, likelihood: npt.NDArray[np.float32]) -> Latent:
    bottleneck: Any = call.module
    step = torch.ones(()) if call.step is None else call.step
    medians = bottleneck._get_medians()  # (C, 1, 1)
    symbols = ((call.outputs[0] - medians) / step).round()
    grid = medians + step * torch.arange(-REACH, REACH + 1.0)
    if call.step is None:
        mass = bottleneck._likelihood(grid)[0]
    else:
        mass = bottleneck._likelihood_variable(grid, qs=call.step)[0]
    expected = mass[:, 0].double().numpy()
    return Latent(
        _array(call.inputs / step), symbols.numpy().astype(np.int32), -np.log2(likelihood), expected
    )


# -- opening ------------------------------------------------------------------------------------------------


def load_subject(
    model: str | os.PathLike[str] = DEFAULT_MODEL, *, metric: str = "mse", progress: bool = True
) -> Subject:
    """Open a model for inspection.

    Args:
        model: a released model, the path of a weights file of Latens, an architecture of the zoo (its published
            weights are downloaded when they are needed), or the path of a checkpoint of any image architecture.
        metric: of the zoo, what the weights were trained for.
        progress: show downloads on standard error.

    Raises:
        UnknownModelError: no such model or file.
        ModelError: a file that no image model of Latens fits.
        UnavailableError: no weights were published.
        DownloadError: they cannot be fetched.
    """
    name = os.fspath(model)
    if isinstance(model, str):
        if name in {card.id for card in cards()}:
            return LtnSubject(name, "auto" if name == DEFAULT_MODEL else "photo")
        if name in image_models:
            return _published(name, metric, progress)
    path = Path(name)
    if not path.is_file():
        known = ", ".join([*(c.id for c in cards()), *(e.id for e in entries() if e.media == "image")])
        raise UnknownModelError(f"{printable(name)}: neither a file nor a model; there are {known}")
    try:
        return LtnSubject(load(path))
    except ModelError as not_latens:
        try:
            state = load_pretrained(read_checkpoint(path))
        except ModelError:
            raise not_latens from None
    return ClassicSubject(path.name, {1: _recognised(state, printable(path))})


def _published(name: str, metric: str, progress: bool) -> ClassicSubject:
    known = entry(name)
    make = image_models[name]
    qualities = known.qualities or (1,)
    for quality in qualities:
        known.url(quality, metric)  # raises if there is nothing to download

    def maker(quality: int) -> Callable[[], CompressionModel]:
        return lambda: make(quality, metric, pretrained=True, progress=progress)

    return ClassicSubject(name, {quality: maker(quality) for quality in qualities})


def _recognised(state: Mapping[str, Tensor], shown: str) -> CompressionModel:
    """The model of the one architecture that these weights fit."""
    for name in classic.__all__:
        candidate = getattr(classic, name)
        if not (isinstance(candidate, type) and issubclass(candidate, CompressionModel)):
            continue
        try:
            found: CompressionModel = candidate.from_state_dict(state)
        except (ModelError, NotImplementedError):
            continue
        return found
    raise ModelError(
        f"{shown}: fits no image architecture of Latens; for one of your own, use "
        "latens.inspect.ClassicSubject(name, {1: model})"
    )
