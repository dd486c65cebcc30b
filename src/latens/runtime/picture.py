"""The default model at coding time: integers only, from symbols to pixels (``docs/pixels.md``)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from latens import _native
from latens.entropy_coding import CdfTables, LaneDecoder, LaneEncoder, choose_lanes
from latens.errors import ModelError
from latens.runtime.coding import Window
from latens.runtime.factors import QUALITY_MAX, Factors
from latens.runtime.networks import Factor, Network
from latens.runtime.parts import IntegerTables
from latens.runtime.storage import Store, of_tables

__all__ = ["INDEXES", "LATENT_BITS", "Z_BITS", "Z_MAX", "Latents", "PictureModel"]

LATENT_BITS = 8  # y and its means are in units of 2^-8
Z_BITS = 6  # of what analysis gives for z
Z_MAX = 1023
INDEXES = 64
ARITHMETIC = 2
_Y_MAX = 1 << 20

Int16 = npt.NDArray[np.int16]
Int32 = npt.NDArray[np.int32]
Uint8 = npt.NDArray[np.uint8]

NETWORKS = ("g_a", "h_a", "h_scale", "h_mean", "mean_0", "context", "g_s")
DECIDING = ("h_scale",)  # the networks that tables depend on
FACTORS = ("gain", "mean_scale", "context_scale", "input_scale", "out_scale")


class Latents(NamedTuple):
    """What a tile's stream stands for.

    Attributes:
        z: symbols ``(hyper, h, w)`` int16.
        y: symbols ``(H, W, M)`` int16.
        indexes: ``(H, W, M)`` uint8, the table of each symbol of y.
        y_hat: ``(H, W, M)`` int32 in units of 2^-8.
    """

    z: Int16
    y: Int16
    indexes: Uint8
    y_hat: Int32


class PictureModel:
    """Networks, tables and factors of the default model.

    Shapes of a tile of ``16 H x 16 W`` pixels: y ``(H, W, M)``, z ``(hyper, H/4, W/4)``. A quality is a header's, 0 to
    65,535.

    Args:
        z_tables: ``knots * hyper`` tables, all channels of one knot together.
        y_tables: one for each index.
        networks: those of :data:`NETWORKS`.
        factors: those of :data:`FACTORS`.
        z_offset: ``(knots, hyper)`` int32, added to what ``h_a`` gives, in units of 2^-6; for encoders.

    Raises:
        ModelError: the parts do not fit together.
        TableError: a table is not valid.
    """

    def __init__(
        self,
        z_tables: IntegerTables,
        y_tables: IntegerTables,
        networks: Mapping[str, Network],
        factors: Mapping[str, Factors],
        z_offset: Int32,
    ) -> None:
        self.z_tables, self.y_tables = z_tables, y_tables
        self.networks, self.factors, self.z_offset = dict(networks), dict(factors), z_offset
        if set(networks) != set(NETWORKS) or set(factors) != set(FACTORS) or z_offset.ndim != 2:
            raise ModelError("model: its networks or factors are not those of a model of pictures")
        self.knots, self.hyper = int(z_offset.shape[0]), int(z_offset.shape[1])
        self.channels = networks["h_scale"].outputs
        if len(z_tables.sizes) != self.knots * self.hyper or len(y_tables.sizes) != INDEXES:
            raise ModelError("model: its tables do not fit its networks")
        self._check_sizes()
        self._y = y_tables.tables(0, INDEXES)
        self._z = [z_tables.tables(knot * self.hyper, (knot + 1) * self.hyper) for knot in range(self.knots)]

    def _check_sizes(self) -> None:
        n, M, Z = self.networks, self.channels, self.hyper
        inner = n["h_mean"].outputs
        expected = {
            "g_a": (None, M), "h_a": (M, Z), "h_scale": (Z, M), "h_mean": (Z, inner), "mean_0": (inner, M),
            "context": (M + inner, M), "g_s": (M, None),
        }  # fmt: skip
        for name, (inputs, outputs) in expected.items():
            fits = inputs in (None, n[name].inputs) and outputs in (None, n[name].outputs)
            if not fits or n[name].scaling != _SCALINGS[name]:
                raise ModelError(f"{name}: its sizes do not fit the model's")
        sizes = {"out_scale": None, "gain": M, "mean_scale": M, "context_scale": M, "input_scale": M}
        for name, channels in sizes.items():
            if channels is not None and self.factors[name].logs.shape[1] != channels:
                raise ModelError(f"{name}: its factors do not fit the model's channels")

    # -- what it is ----------------------------------------------------------------------------------------

    @cached_property
    def entropy_id(self) -> str:
        """SHA-256 over every integer that decides which symbols a stream stands for: 64 hex digits."""
        arrays = self.arrays()
        deciding = {
            name: array
            for name, array in arrays.items()
            if name.startswith(("z.", "y.")) or name.split(".")[1:2] in [[n] for n in DECIDING]
        }
        return _hash("entropy", deciding)

    def knot(self, quality: int) -> int:
        """The table set of z at a quality."""
        return (2 * quality * (self.knots - 1) + QUALITY_MAX) // (2 * QUALITY_MAX)

    def _tables(self, quality: int) -> CdfTables:
        return self._z[self.knot(quality)]

    # -- the traversal -------------------------------------------------------------------------------------

    def _indexes(self, z: Int16) -> Uint8:
        return self.networks["h_scale"].run(_positions(z)).astype(np.uint8)

    @cached_property
    def _two_steps(self) -> _native.TwoSteps:
        return self.networks["h_mean"].two_steps(self.networks["mean_0"], self.networks["context"])

    def __getstate__(self) -> dict[str, Any]:
        # The core's part is made again from the networks.
        return {name: value for name, value in vars(self).items() if name != "_two_steps"}

    def _step_factors(self, quality: int) -> list[Factor]:
        return [self.factors[name].at(quality) for name in ("mean_scale", "context_scale")]

    def decode(self, stream: bytes, z_shape: tuple[int, int], quality: int, skip: int, lanes: int) -> Latents:
        """What the stream of a tile stands for.

        Args:
            stream: of one tile.
            z_shape: height and width of z.
            quality: of the header.
            skip: indexes below are not coded.
            lanes: number of interleaved coder states.

        Raises:
            CoderError: the stream is damaged.
        """
        z, y, indexes = self.symbols(stream, z_shape, quality, skip, lanes)
        return Latents(z, y, indexes, self.values(z, y, quality))

    def symbols(
        self, stream: bytes, z_shape: tuple[int, int], quality: int, skip: int, lanes: int
    ) -> tuple[Int16, Int16, Uint8]:
        """z, y and indexes of :class:`Latents`; arguments and errors as for :meth:`decode`."""
        decoder = LaneDecoder(stream, lanes)
        z = decoder.decode(_channel_indexes(self.hyper, *z_shape), self._tables(quality))
        indexes = self._indexes(z)
        y = decoder.decode(indexes, self._y, skip)
        decoder.finish()
        return z, y, indexes

    def values(self, z: Int16, y: Int16, quality: int, window: Window | None = None) -> Int32:
        """y_hat of a tile with these symbols, or the part of it in a window."""
        factors = self._step_factors(quality)
        if window is None:
            return self._two_steps.decode(factors, _positions(z), y)
        # In whole positions of z, which keeps the checkerboard as it is. Beyond the tile is nothing either way.
        reach = self._reach
        top, left = (max(side - reach, 0) // 4 for side in (window.top, window.left))
        bottom, right = (-(-(side + reach) // 4) for side in (window.bottom, window.right))
        part = np.ascontiguousarray(y[4 * top : 4 * bottom, 4 * left : 4 * right])
        found = self._two_steps.decode(factors, _positions(z[:, top:bottom, left:right]), part)
        rows = slice(window.top - 4 * top, window.bottom - 4 * top)
        columns = slice(window.left - 4 * left, window.right - 4 * left)
        return np.ascontiguousarray(found[rows, columns])

    @cached_property
    def _reach(self) -> int:
        """Positions of y around one that its value depends on."""
        networks = self.networks
        return 4 * networks["h_mean"].reach + networks["context"].reach + networks["mean_0"].reach

    def latent(self, features: Int16, quality: int) -> Int32:
        """y ``(H, W, M)`` in units of 2^-8, from what g_a gives."""
        return _rescaled(features, self.factors["gain"].at(quality), -_Y_MAX, _Y_MAX)

    def encode(
        self, y: Int32, quality: int, skip: int, lanes: int | None = None
    ) -> tuple[bytes, int, Latents]:
        """The stream of a tile, its lanes, and what the decoder will have.

        Args:
            y: see :meth:`latent`.
            quality, skip, lanes: as for :meth:`decode`; lanes by default what suits the number of symbols.
        """
        z = self._z_of(y, quality)
        indexes = self._indexes(z)
        symbols, y_hat = self._two_steps.encode(self._step_factors(quality), _positions(z), y, indexes, skip)
        encoder = LaneEncoder()
        encoder.push(z, _channel_indexes(*z.shape), self._tables(quality))
        encoder.push(symbols, indexes, self._y, skip)
        lanes = choose_lanes(len(encoder)) if lanes is None else lanes
        return encoder.finish(lanes), lanes, Latents(z, symbols, indexes, y_hat)

    def _z_of(self, y: Int32, quality: int) -> Int16:
        z = (self.unrounded_z(y, quality) + (1 << Z_BITS - 1)) >> Z_BITS
        return np.ascontiguousarray(np.clip(z, -Z_MAX, Z_MAX).astype(np.int16).transpose(2, 0, 1))

    def unrounded_z(self, y: Int32, quality: int) -> Int32:
        """z ``(h, w, hyper)`` in units of 2^-6; an encoder is free in what it does here."""
        found = self.networks["h_a"].run(_native.tame(y)).astype(np.int32)
        return found + self.offset_at(self.z_offset, quality)

    def offset_at(self, offsets: Int32, quality: int) -> Int32:
        """What a table of ``(knots, hyper)`` gives at a quality; for encoders."""
        place = quality * (self.knots - 1) / QUALITY_MAX
        knot = min(int(place), self.knots - 2)
        share = place - knot
        found: Int32 = np.rint((1 - share) * offsets[knot] + share * offsets[knot + 1]).astype(np.int32)
        return found

    def weigh(self, z: Int16, y: Int16, indexes: Uint8, quality: int, skip: int) -> tuple[int, int]:
        """Bytes of a stream of one lane with the symbols of z alone, and with those of y, too."""
        sizes = []
        for with_y in (False, True):
            encoder = LaneEncoder()
            encoder.push(z, _channel_indexes(*z.shape), self._tables(quality))
            if with_y:
                encoder.push(y, indexes, self._y, skip)
            sizes.append(len(encoder.finish(1)))
        return sizes[0], sizes[1]

    # -- pixels --------------------------------------------------------------------------------------------

    def analysis(self, width: int, depth: int, channels: int) -> _native.Stream:
        """From rows of samples ``(n, width, 1 or 3)`` of 8 or 16 bits to rows of features; width a multiple of 64."""
        return self.networks["g_a"].stream(width, (), (depth, channels))

    def entry(self, y_hat: Int32, quality: int) -> Int16:
        """What enters :meth:`synthesis` for y_hat."""
        return _saturated(y_hat, self.factors["input_scale"].at(quality))

    def synthesis(self, width: int, quality: int, depth: int, channels: int) -> _native.Stream:
        """From rows ``(n, width, M)`` of :meth:`entry` to rows of samples of 8 or 16 bits, ``16 width`` wide."""
        scale = self.factors["out_scale"].at(quality)
        return self.networks["g_s"].stream(width, [scale], (depth, channels))

    # -- storage -------------------------------------------------------------------------------------------

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything as integer arrays, to be stored."""
        found: dict[str, npt.NDArray[Any]] = {"z_offset": self.z_offset}
        for prefix, tables in (("z", self.z_tables), ("y", self.y_tables)):
            found |= of_tables(prefix, tables)
        for name, network in self.networks.items():
            found |= network.arrays(f"network.{name}")
        for name, factors in self.factors.items():
            found[f"factor.{name}"] = factors.logs
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> PictureModel:
        """The inverse of :meth:`arrays`; everything is checked, for a file may be hostile.

        Raises:
            ModelError: something is missing, of the wrong type, out of range, or could leave 32 bits.
            TableError: a table is not valid.
        """

        def take(name: str) -> npt.NDArray[Any]:
            array = arrays.get(name)
            if array is None or array.dtype != np.int32:
                raise ModelError(f"{name} is missing, or no int32")
            return array

        store = Store(arrays)
        model = cls(
            store.tables("z"),
            store.tables("y"),
            {name: Network.from_arrays(arrays, f"network.{name}") for name in NETWORKS},
            {name: Factors(take(f"factor.{name}"), name) for name in FACTORS},
            take("z_offset"),
        )
        # What training goes on from is none of a codec's business.
        unknown = sorted(k for k in arrays.keys() - model.arrays().keys() if not k.startswith("float."))
        if unknown:
            raise ModelError(f"{unknown[0]!r:.80} is not known to this release")
        return model


_SCALINGS = {
    "g_a": (1, 16), "h_a": (1, 4), "h_scale": (4, 1), "h_mean": (4, 1), "mean_0": (1, 1), "context": (1, 1),
    "g_s": (16, 1),
}  # fmt: skip


def _hash(what: str, arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256(f"latens {what} {ARITHMETIC}".encode())
    for name, array in sorted(arrays.items()):
        shape = ",".join(map(str, array.shape))
        digest.update(f"\n{name} {array.dtype.name} {shape}\n".encode())
        digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _positions(symbols: Int16) -> Int16:
    """Symbols of z ``(C, h, w)`` as a network takes them, ``(h, w, C)``."""
    return np.ascontiguousarray(symbols.clip(-Z_MAX, Z_MAX).transpose(1, 2, 0))


def _channel_indexes(channels: int, height: int, width: int) -> Int16:
    indexes = np.arange(channels, dtype=np.int16)[:, None, None]
    return np.ascontiguousarray(np.broadcast_to(indexes, (channels, height, width)))


def _rescaled(values: npt.NDArray[Any], factor: Factor, low: int, high: int) -> Int32:
    flat = values.reshape(-1, values.shape[-1])
    return _native.rescale(flat, factor.m, factor.s, low, high).reshape(values.shape)


def _saturated(values: npt.NDArray[Any], factor: Factor) -> Int16:
    flat = values.reshape(-1, values.shape[-1])
    return _native.rescale16(flat, factor.m, factor.s).reshape(values.shape)
