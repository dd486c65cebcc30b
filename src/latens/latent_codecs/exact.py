"""How ``.ltn`` files code latents: tables chosen by integers only, all symbols of a tile in one stream."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latens.entropy_coding import CdfTables, LaneDecoder, LaneEncoder, choose_lanes
from latens.errors import ModelError
from latens.ops.fixed_point import FixedPointNetwork, IntegerLayer

__all__ = ["ExactHyperprior", "IntegerTables"]

Int16 = npt.NDArray[np.int16]
Index = npt.NDArray[np.uint8]

_TABLE_MAX = 65_537
# Entries of tables once padded to one length, far above any model's; it bounds what a hostile file allocates.
_PADDED_MAX = 1 << 25
_DTYPES = {np.int16: torch.int16, np.int32: torch.int32, np.int64: torch.int64}


@dataclass(frozen=True)
class IntegerTables:
    """CDF tables as data: ``sizes[i]`` entries of table i after those of table i - 1, and its first symbol.

    Attributes:
        entries: int32, all tables one after the other.
        sizes: int32 ``(n,)``.
        offsets: int32 ``(n,)``.
    """

    entries: npt.NDArray[np.int32]
    sizes: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        if self.sizes.ndim != 1 or self.sizes.shape != self.offsets.shape or self.entries.ndim != 1:
            raise ModelError("CDF tables: entries, sizes and offsets must be flat, sizes and offsets alike")
        if not self.sizes.size or self.sizes.min() < 3 or self.sizes.max() > _TABLE_MAX:
            raise ModelError(f"CDF tables: expected sizes of 3 to {_TABLE_MAX} entries")
        if int(self.sizes.sum(dtype=np.int64)) != self.entries.size:
            raise ModelError("CDF tables: the sizes do not add up to the number of entries")

    @classmethod
    def from_rows(
        cls, cdfs: npt.NDArray[Any], sizes: npt.NDArray[Any], offsets: npt.NDArray[Any]
    ) -> IntegerTables:
        """From padded rows ``(n, max_size)``."""
        rows = [row[:size] for row, size in zip(cdfs, sizes, strict=True)]
        return cls(np.concatenate(rows).astype(np.int32), sizes.astype(np.int32), offsets.astype(np.int32))

    def rows(self, start: int, stop: int) -> list[npt.NDArray[np.int32]]:
        """The entries of tables ``start`` to ``stop``."""
        ends = np.cumsum(self.sizes, dtype=np.int64)
        return [self.entries[ends[i] - self.sizes[i] : ends[i]] for i in range(start, stop)]

    def tables(self, start: int, stop: int) -> CdfTables:
        """Tables ``start`` to ``stop`` as the coder wants them.

        Raises:
            TableError: an entry is not valid.
        """
        rows = self.rows(start, stop)
        padded = np.zeros((len(rows), max(row.size for row in rows)), np.int32)
        for target, row in zip(padded, rows, strict=True):
            target[: row.size] = row
        return CdfTables(padded, self.sizes[start:stop], self.offsets[start:stop])

    def update_hash(self, digest: hashlib._Hash) -> None:
        """Add everything to a hash."""
        for array in (self.sizes, self.offsets, self.entries):
            digest.update(len(array).to_bytes(8, "little") + array.astype("<i4").tobytes())


class ExactHyperprior:
    """The entropy model of a file: z by one table per channel, y by tables that an integer network picks.

    Nothing here is rounded or depends on a device, so what one machine writes, every machine reads. Tables of
    z come in ``knots`` sets, one of which is chosen by the quality in the header.

    Args:
        network: from z to table indexes of y.
        z_tables: ``knots * channels`` tables, all channels of one knot together.
        y_tables: one table per index.
        z_channels: channels of z.

    Raises:
        ModelError: the parts do not fit together.
    """

    def __init__(
        self, network: FixedPointNetwork, z_tables: IntegerTables, y_tables: IntegerTables, z_channels: int
    ) -> None:
        if z_channels != network.layers[0].weight.shape[1] or len(z_tables.sizes) % z_channels:
            raise ModelError(f"entropy model: {len(z_tables.sizes)} tables of z for {z_channels} channels")
        if len(y_tables.sizes) != len(network.thresholds) + 1:
            raise ModelError(
                f"entropy model: {len(y_tables.sizes)} tables of y, {len(network.thresholds)} thresholds"
            )
        longest = z_tables.sizes.reshape(-1, z_channels).max(axis=1).sum(dtype=np.int64)
        padded = max(int(longest) * z_channels, int(y_tables.sizes.max()) * len(y_tables.sizes))
        if padded > _PADDED_MAX:
            raise ModelError(
                f"entropy model: tables of {padded} entries are above the limit of {_PADDED_MAX}"
            )
        self.network, self.z_tables, self.y_tables, self.z_channels = network, z_tables, y_tables, z_channels
        self._z_tables_of: dict[int, CdfTables] = {}

    @property
    def knots(self) -> int:
        """Number of table sets of z."""
        return len(self.z_tables.sizes) // self.z_channels

    @property
    def y_channels(self) -> int:
        """Channels of y."""
        return int(self.network.layers[-1].weight.shape[0])

    @cached_property
    def entropy_id(self) -> str:
        """SHA-256 over every integer that decides which symbols a stream stands for: 64 hex digits."""
        digest = hashlib.sha256(b"latens exact hyperprior")
        self.network.update_hash(digest)
        self.z_tables.update_hash(digest)
        self.y_tables.update_hash(digest)
        return digest.hexdigest()

    @cached_property
    def _y(self) -> CdfTables:
        return self.y_tables.tables(0, len(self.y_tables.sizes))

    def _z(self, knot: int) -> CdfTables:
        if knot not in self._z_tables_of:
            if not 0 <= knot < self.knots:
                raise ModelError(f"entropy model: knot {knot} of {self.knots}")
            start = knot * self.z_channels
            self._z_tables_of[knot] = self.z_tables.tables(start, start + self.z_channels)
        return self._z_tables_of[knot]

    def _z_indexes(self, shape: tuple[int, ...]) -> npt.NDArray[np.int16]:
        channels = np.arange(self.z_channels, dtype=np.int16)[:, None, None]
        return np.ascontiguousarray(np.broadcast_to(channels, shape))

    def indexes(self, z: Int16) -> Index:
        """Table index of every y: ``(channels of y, r H, r W)`` uint8 for z ``(channels of z, H, W)``."""
        return self.network(torch.from_numpy(z.astype(np.float64))[None])[0].numpy()

    def encode(self, z: Int16, y: Int16, indexes: Index, knot: int, skip: int, lanes: int) -> bytes:
        """One stream for a tile.

        Args:
            z: ``(C_z, H, W)`` int16.
            y: ``(C_y, r H, r W)`` int16, zero wherever the index is below ``skip``.
            indexes: what :meth:`indexes` returns for z.
            knot: table set of z.
            skip: indexes below are not coded.
            lanes: number of interleaved coder states.

        Raises:
            CoderError, ShapeError: symbols that do not fit.
        """
        encoder = LaneEncoder()
        encoder.push(z, self._z_indexes(z.shape), self._z(knot))
        encoder.push(y, indexes, self._y, skip)
        return encoder.finish(lanes)

    def decode(
        self, stream: bytes, z_shape: tuple[int, int], knot: int, skip: int, lanes: int
    ) -> tuple[Int16, Int16, Index]:
        """The symbols of z and y, and y's table indexes.

        Raises:
            CoderError: the stream is damaged.
        """
        decoder = LaneDecoder(stream, lanes)
        z = decoder.decode(self._z_indexes((self.z_channels, *z_shape)), self._z(knot))
        indexes = self.indexes(z)
        y = decoder.decode(indexes, self._y, skip)
        decoder.finish()
        return z, y, indexes

    @staticmethod
    def lanes_for(symbols: int) -> int:
        """A good number of lanes for tiles of at most so many coded symbols."""
        return choose_lanes(symbols)

    # -- storage -------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Everything as integer tensors, to be stored with the weights."""
        arrays: dict[str, npt.NDArray[Any]] = {"thresholds": self.network.thresholds}
        for i, layer in enumerate(self.network.layers):
            arrays[f"layers.{i}.weight"] = layer.weight.astype(np.int16)
            arrays[f"layers.{i}.bias"] = layer.bias
            arrays[f"layers.{i}.form"] = np.array([layer.shift, layer.relu, layer.shuffle], np.int32)
        for name, tables in (("z", self.z_tables), ("y", self.y_tables)):
            arrays |= {
                f"{name}.entries": tables.entries,
                f"{name}.sizes": tables.sizes,
                f"{name}.offsets": tables.offsets,
            }
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> ExactHyperprior:
        """The inverse of :meth:`tensors`. Everything is checked: a weights file may be hostile.

        Raises:
            ModelError: something is missing, of the wrong type, or out of range.
            TableError: a CDF table is not valid.
        """
        layers: list[IntegerLayer] = []
        while f"layers.{len(layers)}.weight" in tensors:
            get = _getter(tensors, f"layers.{len(layers)}.")
            shift, relu, shuffle = (int(v) for v in get("form", np.int32, 1, 3))
            if relu not in (0, 1):
                raise ModelError(
                    f"entropy model: layer {len(layers)} has {relu} for its ReLU, expected 0 or 1"
                )
            layers.append(
                IntegerLayer(
                    get("weight", np.int16, 4).astype(np.int64),
                    get("bias", np.int64, 1),
                    shift,
                    bool(relu),
                    shuffle,
                )
            )
        network = FixedPointNetwork(layers, _getter(tensors, "")("thresholds", np.int64, 1))
        z_tables, y_tables = (
            IntegerTables(
                *(_getter(tensors, prefix)(part, np.int32, 1) for part in ("entries", "sizes", "offsets"))
            )
            for prefix in ("z.", "y.")
        )
        result = cls(network, z_tables, y_tables, network.layers[0].weight.shape[1])
        _ = result._y, [result._z(knot) for knot in range(result.knots)]
        return result


def _getter(tensors: Mapping[str, Tensor], prefix: str) -> Callable[..., npt.NDArray[Any]]:
    def get(name: str, dtype: type[np.generic], ndim: int, size: int | None = None) -> npt.NDArray[Any]:
        tensor = tensors.get(prefix + name)
        if tensor is None:
            raise ModelError(f"entropy model: {prefix}{name} is missing")
        fits = tensor.dtype == _DTYPES[dtype] and tensor.ndim == ndim and tensor.numel()
        if not fits or (size is not None and tensor.numel() != size):
            raise ModelError(f"entropy model: {prefix}{name} is {tensor.dtype} {tuple(tensor.shape)}")
        return tensor.numpy()

    return get
