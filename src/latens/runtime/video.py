"""The default video model at coding time: integers only, from symbols to pixels (``docs/pixels.md``)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from latens import _native
from latens import format as ltn
from latens.entropy_coding import LaneDecoder, LaneEncoder, choose_lanes
from latens.errors import FormatError, ModelError
from latens.runtime import motion
from latens.runtime.coding import CodedPicture, Keep, Samples, Squares, checksum
from latens.runtime.factors import Factors
from latens.runtime.networks import Network
from latens.runtime.parts import IntegerTables
from latens.runtime.picture import INDEXES, LATENT_BITS, Z_BITS, Z_MAX, PictureModel
from latens.runtime.released import ReleasedPictures
from latens.runtime.storage import Store, of_tables

__all__ = ["NETWORKS", "ReleasedVideo", "load"]

Array = npt.NDArray[Any]
Int16 = npt.NDArray[np.int16]
Int32 = npt.NDArray[np.int32]
Uint8 = npt.NDArray[np.uint8]

NETWORKS = ("h_a", "h_scale")
_SCALINGS = {"h_a": (1, 4), "h_scale": (4, 1)}
_DEPTH = 16
_PIXELS = _DEPTH, 3
_HYPER = 64  # pixels of a position of z
_SQUARE = 64  # and of a square that may be drawn
_Y_MAX = 1 << 20
_SYMBOL_MAX = 32767
# What a squared error of one step is worth, in bits: a symbol is changed to a cheaper one where that pays.
_STEP_WORTH = 20.0
# What weights say of the price of a bit of motion is in plain differences; times what transformed ones need.
_MOTION_WORTH = 1.4
_PRICED = 16  # symbols up to this size


class ReleasedVideo:
    """A model of video in integers: vectors of blocks, and the latent of what they leave.

    Args:
        name: that goes into files.
        weights_id: SHA-256 of the file.
        image: model of key frames; its analysis and synthesis are those of all frames.
        networks: those of :data:`NETWORKS`.
        z_tables: ``knots * hyper`` tables, all channels of one knot together.
        z_offset: ``(knots, hyper)`` int32, added to what ``h_a`` gives, in units of 2^-6; for encoders.
        price: of a bit of motion, in levels; one channel; for encoders.

    Raises:
        ModelError: the parts do not fit together.
        TableError: a table is not valid.
    """

    grid = _HYPER
    skip = 4
    qualities = True
    exact = True
    structured = True

    def __init__(
        self,
        name: str,
        weights_id: str,
        image: PictureModel,
        networks: Mapping[str, Network],
        z_tables: IntegerTables,
        z_offset: Int32,
        price: Factors,
    ) -> None:
        self.id, self.weights_id, self.image = name, weights_id, image
        self.networks, self.z_tables, self.z_offset, self.price = dict(networks), z_tables, z_offset, price
        if set(networks) != set(NETWORKS) or z_offset.shape != (image.knots, image.hyper):
            raise ModelError(
                "model: its networks are not those of a model of video, or not of its image model"
            )
        M, Z = image.channels, image.hyper
        for part, sizes in (("h_a", (2 * M, Z)), ("h_scale", (Z, M))):
            if (
                networks[part].inputs,
                networks[part].outputs,
            ) != sizes or networks[part].scaling != _SCALINGS[part]:
                raise ModelError(f"{part}: its sizes do not fit the image model's")
        if len(z_tables.sizes) != image.knots * image.hyper or price.logs.shape[1] != 1:
            raise ModelError("model: its tables do not fit its networks")
        self._z = [z_tables.tables(knot * Z, (knot + 1) * Z) for knot in range(image.knots)]
        self._y = image.y_tables.tables(0, INDEXES)

    @cached_property
    def entropy_id(self) -> str:
        """SHA-256 over every integer that decides which symbols a stream stands for: 64 hex digits."""
        digest = hashlib.sha256(f"latens video 3\nimage {self.image.entropy_id}".encode())
        for name, array in sorted(self.arrays().items()):
            if name.startswith(("z.", "network.h_scale.")):
                shape = ",".join(map(str, array.shape))
                digest.update(f"\n{name} {array.dtype.name} {shape}\n".encode())
                digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()

    # -- frames --------------------------------------------------------------------------------------------

    def encode(
        self,
        picture: Samples,
        references: Sequence[Samples],
        level: int,
        depth: int,
        visible: tuple[int, int] | None = None,
        keep: Keep | None = None,
    ) -> CodedPicture:
        """See :class:`latens.runtime.coding.VideoFileModel`."""
        image = self.image
        if not references:
            stream, lanes, found = image.encode(self._latent(picture, level), level, self.skip)
            crc = checksum(found.z, found.y.transpose(2, 0, 1))
            return CodedPicture((ltn.Stream(lanes, stream),), crc, self._pixels(found.y_hat, level))
        field = motion.search(picture, references, self._price(level), visible)
        still = motion.is_still(field)
        if still:
            field = motion.still(picture.shape[:2])
        moved = motion.compensate(references, field)
        if visible is not None:
            # What is not shown is best as predicted.
            shown = np.s_[: visible[0], : visible[1]]
            filled = moved.copy()
            filled[shown] = picture[shown]
            picture = filled
        kept = None if keep is None else keep(moved)
        if kept is not None:
            picture = _kept(picture, moved, kept)
        expected = self._latent(moved, level)
        y = self._latent(picture, level)
        z = self._z_of(y, expected, level)
        indexes = self._indexes(z)
        symbols = self._quantise(y - expected, indexes)
        latent, coded, found_picture = ltn.Stream(1, b""), [field], moved
        worth = _worth(y - expected, symbols)
        if worth > 0:
            encoder = LaneEncoder()
            encoder.push(z, _channels(*z.shape), self._z[image.knot(level)])
            encoder.push(symbols, indexes, self._y, self.skip)
            lanes = choose_lanes(len(encoder))
            data = encoder.finish(lanes)
            # Each symbol pays for itself; all of them have to pay for z, too.
            if worth > 8 * len(data):
                latent = ltn.Stream(lanes, data)
                coded += [z, symbols.transpose(2, 0, 1)]
                found_picture = _kept(self._changed(moved, expected, symbols, level), moved, kept)
        streams = [latent]
        if not still:
            streams.append(ltn.Stream(1, motion.encode(field, len(references))))
        return CodedPicture(tuple(streams), checksum(*coded), found_picture)

    def decode(
        self,
        frame: ltn.Frame,
        references: Sequence[Samples],
        shape: tuple[int, int],
        header: ltn.VideoHeader,
        kept: Squares | None = None,
    ) -> tuple[int, Samples]:
        """See :class:`latens.runtime.coding.VideoFileModel`."""
        image = self.image
        level = header.quality if frame.quality is None else frame.quality
        z_shape = shape[0] // _HYPER, shape[1] // _HYPER
        first = frame.streams[0]
        if not references:
            if len(frame.streams) != 1:
                raise FormatError(f"expected 1 stream, found {len(frame.streams)}")
            found = image.decode(first.data, z_shape, level, header.skip, first.lanes)
            return checksum(found.z, found.y.transpose(2, 0, 1)), self._pixels(found.y_hat, level)
        if len(frame.streams) > 2:
            raise FormatError(f"expected 1 or 2 streams, found {len(frame.streams)}")
        field = motion.still(shape)
        if len(frame.streams) == 2:
            if frame.streams[1].lanes != 1:
                raise FormatError(f"vectors have 1 lane, found {frame.streams[1].lanes}")
            field = motion.decode(frame.streams[1].data, shape, len(references))
        moved = motion.compensate(references, field)
        if not first.data:
            return checksum(field), moved
        decoder = LaneDecoder(first.data, first.lanes)
        z = decoder.decode(_channels(image.hyper, *z_shape), self._z[image.knot(level)])
        indexes = self._indexes(z)
        symbols = decoder.decode(indexes, self._y, header.skip)
        decoder.finish()
        crc = checksum(field, z, symbols.transpose(2, 0, 1))
        if symbols.any():
            moved = _kept(self._changed(moved, self._latent(moved, level), symbols, level), moved, kept)
        return crc, moved

    def _latent(self, picture: Samples, level: int) -> Int32:
        features = self.image.networks["g_a"].run(picture, (), _PIXELS)
        return self.image.latent(features, level)

    def _pixels(self, y_hat: Int32, level: int) -> Samples:
        scale = self.image.factors["out_scale"].at(level)
        return self.image.networks["g_s"].run(self.image.entry(y_hat, level), [scale], _PIXELS)

    def _changed(self, moved: Samples, expected: Int32, symbols: Int16, level: int) -> Samples:
        """A prediction changed by what symbols add to its latent."""
        y_hat = expected + (symbols.astype(np.int32) << LATENT_BITS)
        np.clip(y_hat, -_Y_MAX, _Y_MAX, out=y_hat)
        found = self._pixels(y_hat, level).astype(np.int32)
        found -= self._pixels(expected, level)
        found += moved
        return found.clip(0, (1 << _DEPTH) - 1).astype(np.uint16)

    def _indexes(self, z: Int16) -> Uint8:
        positions = np.ascontiguousarray(z.clip(-Z_MAX, Z_MAX).transpose(1, 2, 0))
        return self.networks["h_scale"].run(positions).astype(np.uint8)

    # -- what an encoder is free in ------------------------------------------------------------------------

    def _price(self, level: int) -> float:
        factor = self.price.at(level)
        return _MOTION_WORTH * float(factor.m[0] * 2.0 ** -float(factor.s[0]))

    def _z_of(self, y: Int32, expected: Int32, level: int) -> Int16:
        seen = np.concatenate([_native.tame(y - expected), _native.tame(expected)], axis=2)
        z = self.networks["h_a"].run(seen).astype(np.int32) + self.image.offset_at(self.z_offset, level)
        z = (z + (1 << Z_BITS - 1)) >> Z_BITS
        return np.ascontiguousarray(z.clip(-Z_MAX, Z_MAX).astype(np.int16).transpose(2, 0, 1))

    @cached_property
    def _prices(self) -> npt.NDArray[np.float32]:
        """Bits of symbols -16 to 16 by each table; what is escaped takes some nibbles more."""
        tables = self.image.y_tables
        found = np.empty((INDEXES, 2 * _PRICED + 1), np.float32)
        for index, (row, offset) in enumerate(
            zip(tables.rows(0, INDEXES), tables.offsets[:INDEXES], strict=True)
        ):
            cost = -np.log2(np.diff(row) / 65536.0)
            at = np.arange(-_PRICED, _PRICED + 1) - offset
            escaped = (at < 0) | (at >= len(cost) - 1)
            found[index] = np.where(escaped, cost[-1] + 8.0, cost[np.where(escaped, 0, at)])
        return found

    def _quantise(self, residual: Int32, indexes: Uint8) -> Int16:
        """The nearest symbol, the next one towards zero, or zero: whichever costs least."""
        nearest = ((residual + (1 << LATENT_BITS - 1)) >> LATENT_BITS).clip(-_SYMBOL_MAX, _SYMBOL_MAX)
        nearest[indexes < self.skip] = 0
        # Most are zero, and stay so.
        places = np.flatnonzero(nearest)
        symbols = nearest.ravel()[places]
        steps = residual.ravel()[places] * np.float32(2.0**-LATENT_BITS)
        prices = self._prices[indexes.ravel()[places]]
        best = np.full(len(places), np.inf, np.float32)
        chosen = symbols
        for tried in (symbols, symbols - np.sign(symbols), np.zeros_like(symbols)):
            at = tried.clip(-_PRICED, _PRICED) + _PRICED
            cost = prices[np.arange(len(places)), at] + _STEP_WORTH * (steps - tried) ** 2
            chosen = np.where(cost < best, tried, chosen)
            best = np.minimum(cost, best)
        result = np.zeros(residual.size, np.int16)
        result[places] = chosen
        return result.reshape(residual.shape)

    # -- storage -------------------------------------------------------------------------------------------

    def arrays(self) -> dict[str, Array]:
        """Everything but the image model as integer arrays, to be stored."""
        found: dict[str, Array] = {"z_offset": self.z_offset, "price": self.price.logs}
        found |= of_tables("z", self.z_tables)
        for name, network in self.networks.items():
            found |= network.arrays(f"network.{name}")
        return found


def _kept(picture: Samples, moved: Samples, kept: Squares | None) -> Samples:
    """A picture, in some squares as predicted."""
    if kept is None:
        return picture
    return np.where(kept.repeat(_SQUARE, 0).repeat(_SQUARE, 1)[..., None], moved, picture)


def _worth(residual: Int32, symbols: Int16) -> float:
    """By how much symbols bring a latent nearer, in bits; not for all quantisers more than nothing."""
    places = np.flatnonzero(symbols)
    values = symbols.ravel()[places].astype(np.float64)
    steps = residual.ravel()[places] * 2.0**-LATENT_BITS
    return float(_STEP_WORTH * (values * (2 * steps - values)).sum())


def _channels(channels: int, height: int, width: int) -> Int16:
    indexes = np.arange(channels, dtype=np.int16)[:, None, None]
    return np.ascontiguousarray(np.broadcast_to(indexes, (channels, height, width)))


def load(
    name: str,
    weights_id: str,
    arrays: Mapping[str, Array],
    metadata: Mapping[str, str],
    image: Any = None,
) -> ReleasedVideo:
    """The model of a weights file; ``image`` is the loaded model that it names.

    Raises:
        ModelError: something is missing, of the wrong type, out of range, or could leave 32 bits.
        TableError: a table is not valid.
    """
    if not isinstance(image, ReleasedPictures):
        raise ModelError("a model of video needs an image model in integers")

    def take(key: str) -> Int32:
        array = arrays.get(key)
        if array is None or array.dtype != np.int32 or array.ndim != 2:
            raise ModelError(f"{key} is missing, or no int32 of 2 dimensions")
        return array

    store = Store(arrays)
    model = ReleasedVideo(
        name,
        weights_id,
        image.model,
        {part: Network.from_arrays(arrays, f"network.{part}") for part in NETWORKS},
        store.tables("z"),
        take("z_offset"),
        Factors(take("price"), "price"),
    )
    # Weights from before fields of motion have tables of vectors, which nothing needs.
    unneeded = ("float.", "motion.")
    unknown = sorted(key for key in arrays.keys() - model.arrays().keys() if not key.startswith(unneeded))
    if unknown:
        raise ModelError(f"{unknown[0]!r:.80} is not known to this release")
    return model
