"""Published architectures in ``.ltn`` files: integers decide about symbols, PyTorch makes the pixels."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from latens.convert.published import exact_entropy, hyper_analysis
from latens.errors import ImageError, ModelError
from latens.io import printable
from latens.models.base import CompressionModel
from latens.ops.fast_convolutions import FastConvolutions
from latens.runtime.coding import LATENT, Anatomy, CodedTile, Prices, Rows, Window, checksum
from latens.runtime.entropy import LATENT_BITS, ExactEntropy
from latens.runtime.factors import QUALITY_MAX
from latens.runtime.parts import STEP_BITS, Decoded, Pass
from latens.zoo.architectures import entries, functions
from latens.zoo.weights import frozen

__all__ = ["ResearchPictures", "load"]

Array = npt.NDArray[Any]

_GRID = 64
_PUBLISHED = re.compile(r"(?P<architecture>[a-z0-9-]+?)-(?P<quality>[1-9])(-(?P<metric>ms-ssim))?")
_SIDE = 1024  # pixels of the squares that networks see at a time, without what surrounds them


class ResearchPictures:
    """A published architecture, trained, as files need it: a :class:`latens.runtime.coding.FileModel`.

    Its symbols are exact; its pixels are those of PyTorch.

    Args:
        name: that goes into files.
        weights_id: SHA-256 of the file.
        network: in evaluation mode.
        entropy: what decides about its symbols, in integers.

    Raises:
        ModelError: a network that files cannot hold.
    """

    skip = 2
    exact = False
    refines = False
    reach: int | None = None
    analysis_reach: int | None = None
    rows_type: npt.DTypeLike = np.float32

    def __init__(self, name: str, weights_id: str, network: CompressionModel, entropy: ExactEntropy) -> None:
        self.id, self.weights_id, self.network, self.entropy = name, weights_id, network, entropy
        self.entropy_id, self.rates = entropy.entropy_id, entropy.knots
        self.g_a, self.g_s = cast(nn.Module, network.g_a), cast(nn.Module, network.g_s)
        # A model without y has its z where others have y.
        self.channels = entropy.y_channels or entropy.z_channels
        self._hyper = LATENT * entropy.upscale
        if _GRID % self._hyper:
            raise ModelError(f"{name}: {self._hyper} pixels per position of z do not fit the grid of {_GRID}")
        with _session():
            y = self.g_a(torch.zeros((1, 3, _GRID, _GRID)))
            z = hyper_analysis(network, y) if entropy.groups else y
        side = _GRID // LATENT
        if y.shape[1:] != (self.channels, side, side):
            raise ModelError(
                f"{name}: latents {tuple(y.shape)} of {_GRID} pixels: expected one per {LATENT} pixels"
            )
        if z.shape[1:] != (entropy.z_channels, side // entropy.upscale, side // entropy.upscale):
            raise ModelError(
                f"{name}: z {tuple(z.shape)} of {_GRID} pixels does not fit the integer networks"
            )

    @property
    def base(self) -> Any:
        raise ModelError(
            f"{self.id}: expected the default model's architecture, got {type(self.network).__name__}"
        )

    def level(self, quality: float) -> int:
        if self.rates == 1:
            return 0
        knot = self.entropy.knot_at(round(quality / 100.0 * QUALITY_MAX))
        return round(knot * QUALITY_MAX / (self.rates - 1))

    def quality(self, level: int) -> float:
        return 100.0 * level / QUALITY_MAX

    def analysis(self, width: int, dtype: npt.DTypeLike, channels: int) -> Rows:
        return _Whole(self._analyse)

    def latent(self, features: Array, level: int) -> Array:
        return features

    def refine(self, samples: Array, latent: Array, level: int, steps: int) -> Array:
        raise ImageError(f"{self.id} has no effort above 1; only the default model has")

    def encode(self, latent: Array, level: int, lanes: int | None) -> CodedTile:
        entropy, knot = self.entropy, self.entropy.knot_at(level)
        y = np.ascontiguousarray(latent.transpose(2, 0, 1))[None]
        if entropy.groups:
            with _session():
                z = finite(hyper_analysis(self.network, by_position(torch.from_numpy(y))).float()).numpy()
            symbols = entropy.quantise_z(z, knot)
            quantise: Callable[[Pass], npt.NDArray[np.int16]] = entropy.quantiser(y, knot, self.skip)
        else:
            symbols, quantise = entropy.quantise_z(y, knot), _nothing
        stream, lanes, found = entropy.encode(symbols, quantise, knot, self.skip, lanes)
        return CodedTile(stream, lanes, checksum(found.z, found.y), _rows(found.latent))

    def decode(
        self,
        stream: bytes,
        size: tuple[int, int],
        level: int,
        skip: int,
        lanes: int,
        window: Window | None = None,
    ) -> tuple[int, Array]:
        shape = size[0] // self._hyper, size[1] // self._hyper
        found = self.entropy.decode(stream, shape, self.entropy.knot_at(level), skip, lanes)
        rows = _rows(found.latent)
        if window is not None:
            rows = rows[window.top : window.bottom, window.left : window.right]
        return checksum(found.z, found.y), rows

    def anatomy(self, stream: bytes, size: tuple[int, int], level: int, skip: int, lanes: int) -> Anatomy:
        entropy, knot = self.entropy, self.entropy.knot_at(level)
        shape = size[0] // self._hyper, size[1] // self._hyper
        found = entropy.decode(stream, shape, knot, skip, lanes)
        z_bytes = len(entropy.encode(found.z, entropy.replay(np.zeros_like(found.y)), knot, 256, 1)[0])
        all_bytes = len(entropy.encode(found.z, entropy.replay(found.y), knot, skip, 1)[0])
        mean = None
        if any(group.mean is not None for group in entropy.groups):
            step = entropy.levels[knot if len(entropy.levels) > 1 else 0].step / (1 << STEP_BITS)
            mean = self._means(found, knot) / np.float32(step)
        return Anatomy(found.z, found.y, found.indexes, mean, z_bytes, all_bytes - z_bytes)

    def _means(self, found: Decoded, knot: int) -> npt.NDArray[np.float32]:
        """What the integer networks say when they meet the same symbols again: ``(C, H, W)``."""
        entropy = self.entropy
        rows = np.zeros((found.y[0].size, entropy.y_channels), np.int64)
        ends = np.cumsum([group.channels for group in entropy.groups])
        replay = entropy.replay(found.y)

        def note(part: Pass) -> npt.NDArray[np.int16]:
            end = int(ends[part.group])
            columns = slice(end - entropy.groups[part.group].channels, end)
            if part.means is not None:
                rows[slice(None) if part.positions is None else part.positions, columns] = part.means
            return replay(part)

        entropy.encode(found.z, note, knot, 0)
        means = rows / (1 << LATENT_BITS)
        return np.ascontiguousarray(means.T.reshape(found.y.shape), np.float32)

    def unrounded(self, samples: Array, level: int) -> tuple[Array, Array]:
        entropy = self.entropy
        of_level = entropy.levels[entropy.knot_at(level) if len(entropy.levels) > 1 else 0]
        features = self._analyse(samples).transpose(2, 0, 1)
        y = np.ascontiguousarray(features / np.float32(of_level.step / (1 << STEP_BITS)))
        z = features
        if entropy.groups:
            with _session():
                z = hyper_analysis(self.network, by_position(torch.from_numpy(np.array(features))[None]))[
                    0
                ].numpy()
        unit = 1 << entropy.z_bits
        z = (z - (entropy.medians / unit)[:, None, None]) / (of_level.z_step / unit)
        return y if entropy.groups else y[:0], z.astype(np.float32)

    def bounds(self) -> dict[str, list[int]]:
        return self.entropy.bounds()

    def prices(self, level: int) -> tuple[Prices, Prices | None]:
        entropy = self.entropy
        start = entropy.knot_at(level) * entropy.z_channels
        own = slice(start, start + entropy.z_channels)
        z, y = entropy.z_tables, entropy.y_tables
        of_y = None if y is None else Prices(y.rows(0, len(y.sizes)), y.offsets)
        return Prices(z.rows(own.start, own.stop), z.offsets[own]), of_y

    def synthesis(self, width: int, level: int, dtype: npt.DTypeLike, channels: int) -> Rows:
        return _Whole(lambda rows: self._synthesise(rows, np.dtype(dtype), channels))

    # -- networks, on squares with what surrounds them ---------------------------------------------------------

    def _analyse(self, samples: Array) -> Array:
        height, width = samples.shape[:2]
        features = np.empty((height // LATENT, width // LATENT, self.channels), np.float32)
        whole = max(height, width) <= _SIDE
        for top, left, bottom, right in _squares(height, width, _SIDE):
            halo = 0 if whole else self._analysis_halo
            y0, x0 = max(top - halo, 0), max(left - halo, 0)
            window = samples[y0 : bottom + halo, x0 : right + halo]
            x = torch.from_numpy(np.ascontiguousarray(window, np.float32)).div_(
                float(np.iinfo(samples.dtype).max)
            )
            with _session(), FastConvolutions():
                y = self.g_a(by_position(x[None].permute(0, 3, 1, 2).expand(-1, 3, -1, -1)))
                y = finite(y.float())[0].permute(1, 2, 0).numpy()
            rows = slice((top - y0) // LATENT, (bottom - y0) // LATENT)
            columns = slice((left - x0) // LATENT, (right - x0) // LATENT)
            features[top // LATENT : bottom // LATENT, left // LATENT : right // LATENT] = y[rows, columns]
        return features

    def _synthesise(self, rows: Array, dtype: np.dtype[Any], channels: int) -> Array:
        height, width = rows.shape[:2]
        most = float(np.iinfo(dtype).max)
        samples = np.empty((LATENT * height, LATENT * width, channels), dtype)
        whole = max(height, width) * LATENT <= _SIDE
        for top, left, bottom, right in _squares(height, width, _SIDE // LATENT):
            halo = 0 if whole else self._synthesis_halo
            y0, x0 = max(top - halo, 0), max(left - halo, 0)
            window = np.ascontiguousarray(rows[y0 : bottom + halo, x0 : right + halo])
            with _session(), FastConvolutions():
                x = self.g_s(by_position(torch.from_numpy(window)[None].permute(0, 3, 1, 2)))
                x = finite(x.float())[0]
                if channels == 1:
                    x = x.mean(0, keepdim=True)
                # int32: not all of PyTorch knows uint16.
                x = x.mul(most).round_().clamp_(0.0, most).to(torch.int32).permute(1, 2, 0)
            inner = (
                slice(LATENT * (top - y0), LATENT * (bottom - y0)),
                slice(LATENT * (left - x0), LATENT * (right - x0)),
            )
            place = slice(LATENT * top, LATENT * bottom), slice(LATENT * left, LATENT * right)
            samples[place] = x.numpy()[inner]
        return samples

    @cached_property
    def _analysis_halo(self) -> int:
        """Pixels around a square that its latents depend on."""

        def affected(cells: int) -> Tensor:
            x = torch.zeros((1, 3, cells * LATENT, cells * LATENT))
            middle = slice(cells // 2 * LATENT, (cells // 2 + 1) * LATENT)
            x[..., middle, middle] = math.nan
            return cast(Tensor, self.g_a(by_position(x)))[0].isnan().any(0)

        return LATENT * _reach(affected)

    @cached_property
    def _synthesis_halo(self) -> int:
        """Positions of y around a square that its pixels depend on."""

        def affected(cells: int) -> Tensor:
            y_hat = torch.zeros((1, self.channels, cells, cells))
            y_hat[..., cells // 2, cells // 2] = math.nan
            x = cast(Tensor, self.g_s(by_position(y_hat)))[0].isnan().any(0)
            return nn.functional.max_pool2d(x.float()[None], LATENT)[0] > 0

        return _reach(affected)


class _Whole:
    """Rows that are kept until all have come: networks of any kind see pictures as a whole."""

    def __init__(self, work: Callable[[Array], Array]) -> None:
        self._work, self._pieces = work, list[Array]()

    def push(self, rows: Array) -> Array:
        self._pieces.append(rows)
        return rows[:0]

    def finish(self) -> Array:
        return self._work(np.concatenate(self._pieces))


def load(
    name: str, weights_id: str, arrays: Mapping[str, Array], metadata: Mapping[str, str]
) -> ResearchPictures:
    """The model of a weights file.

    Raises:
        ModelError: it is damaged, or of an architecture that is not of the zoo.
        TableError: a table is not valid.
    """
    parts: dict[str, dict[str, Array]] = {"network": {}, "entropy": {}}
    for key, array in arrays.items():
        part, _, rest = key.partition(".")
        if part not in parts:
            raise ModelError(f"{printable(key)[:80]} is not known to this release")
        parts[part][rest] = array
    state = {key: torch.from_numpy(np.array(array)) for key, array in parts["network"].items()}
    _check_finite(state)
    try:
        network = _architecture(metadata.get("architecture", "")).from_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ModelError(
            f"damaged, or weights of another architecture ({printable(str(error)[:200])})"
        ) from error
    exact = ExactEntropy.from_tensors(parts["entropy"])
    return ResearchPictures(name, weights_id, network.eval().requires_grad_(False), exact)


def weights_of(network: CompressionModel, name: str) -> tuple[dict[str, Array], dict[str, str]]:
    """Arrays and metadata of a weights file.

    Raises:
        ModelError: an architecture that is not of the zoo, or weights that are not finite or cannot be made exact.
        TableError: a table is not valid.
    """
    architecture = type(network).__name__
    _architecture(architecture)
    _check_finite(network.state_dict())
    # Conversion makes the tables that a model lacks.
    entropy = exact_entropy(network).tensors()
    state = {key: value.detach().cpu().numpy() for key, value in network.state_dict().items()}
    arrays = {f"network.{key}": array for key, array in state.items()}
    return arrays | {f"entropy.{key}": array for key, array in entropy.items()}, {
        "architecture": architecture
    }


def published(name: str) -> bytes | None:
    """The weights file of a published model, ``ARCHITECTURE-QUALITY`` or with ``-ms-ssim``; None if there is none.

    Raises:
        DownloadError: its weights cannot be downloaded.
    """
    match = _PUBLISHED.fullmatch(name)
    for known in entries():
        if known.media != "image" or not known.weights:
            continue
        make = functions("image")[known.id]
        if match and match["architecture"] == known.id and known.qualities:
            found = make(quality=int(match["quality"]), metric=match["metric"] or "mse", pretrained=True)
        elif name == known.id and not known.qualities:
            found = make(quality=None, metric="mse", pretrained=True)
        else:
            continue
        return frozen(found.eval(), name)
    return None


def _architecture(name: str) -> type[CompressionModel]:
    """The class of a published architecture, by its name."""
    for known in entries():
        if known.architecture == name and known.media == "image":
            return known.model_class()
    raise ModelError(f"{printable(name)[:80]} is not an image architecture of the zoo")


def _check_finite(state: Mapping[str, Tensor]) -> None:
    for key, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelError(f"{printable(key)[:80]} has values that are not finite")


def _nothing(part: Pass) -> npt.NDArray[np.int16]:
    raise ModelError("this model has no y")


def _rows(latent: npt.NDArray[np.float32]) -> Array:
    return np.ascontiguousarray(latent[0].transpose(1, 2, 0))


def _squares(height: int, width: int, side: int) -> Iterator[tuple[int, int, int, int]]:
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield top, left, min(top + side, height), min(left + side, width)


def _reach(affected: Callable[[int], Tensor]) -> int:
    """How many cells away something that is not a number shows: the reach of a network, without knowing its layers."""
    for cells in (25, 49, 97):
        with _session():
            rows = torch.nonzero(affected(cells))
        distance = int((rows - cells // 2).abs().max())
        if distance < cells // 2:
            return distance
    raise ModelError("the networks of this model look too far for images that are coded in tiles")


@contextmanager
def _session() -> Iterator[None]:
    """Whatever a caller has set must not reach the networks."""
    with torch.inference_mode(), torch.device("cpu"), torch.autocast("cpu", enabled=False):
        yield


def finite(values: Tensor) -> Tensor:
    """The values themselves; hostile or damaged weights must not turn into symbols or pixels.

    Raises:
        ModelError: one of them is not finite.
    """
    # A sum is finite only if all of its terms are, and takes a tenth of the time.
    if not math.isfinite(values.sum()):
        raise ModelError("the weights of this model give values that are not finite; they cannot be used")
    return values


def by_position(x: Tensor) -> Tensor:
    """All channels of a position side by side, as convolutions on a CPU like it best."""
    return x.contiguous(memory_format=torch.channels_last)
