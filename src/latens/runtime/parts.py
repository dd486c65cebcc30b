"""What an entropy model in integers consists of: tables, groups of channels, and what belongs to one rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from latens.entropy_coding import CdfTables
from latens.errors import ModelError
from latens.format import symbol_checksum
from latens.runtime.layers import Int64, IntegerChain, IntegerLayer, Thresholds

__all__ = [
    "ORDERS",
    "PARTS",
    "STEP_BITS",
    "Decoded",
    "Group",
    "Index",
    "Int16",
    "Int64",
    "IntegerTables",
    "Level",
    "Pass",
]

Int16 = npt.NDArray[np.int16]
Index = npt.NDArray[np.uint8]

STEP_BITS = 16
ORDERS = ("all", "checkerboard", "raster")
PARTS = ("side", "channel", "spatial")
_TABLE_MAX = 65_537


@dataclass(frozen=True)
class IntegerTables:
    """CDF tables as data: ``sizes[i]`` entries of table i after those of table i - 1, and its first symbol.

    Attributes:
        entries: int32, all tables one after the other.
        sizes: int32 ``(n,)``.
        offsets: int32 ``(n,)``.

    Raises:
        ModelError: arrays that do not fit together, or a symbol that is no int16: files hold no others.
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
        last = self.offsets.astype(np.int64) + self.sizes - 3  # before the escape
        (wide,) = np.nonzero((self.offsets < -(1 << 15)) | (last >= 1 << 15))
        if wide.size:
            raise ModelError(
                f"CDF tables: symbols {self.offsets[wide[0]]} to {last[wide[0]]} of table {wide[0]} leave 16 bits"
            )

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


@dataclass(frozen=True)
class Group:
    """Channels of y that are coded together, and the networks that say how.

    Attributes:
        channels: how many.
        order: ``"all"`` positions at once, ``"checkerboard"`` in two steps, or ``"raster"`` in a wavefront.
        scale, mean: first channel of the scales and of the means (None: all zero) in the sums of the parameters.
        mean_shift: bits dropped from the sums to make means in units of 2^-8.
        parameters: 1x1 layers from the parts to these sums; None if the hyper-synthesis gives them itself.
        parts: what the parameters are made from, in the order of their input: ``"side"`` (the hyper-synthesis),
            ``"channel"`` and ``"spatial"``.
        earlier: groups that the channel context sees, in the order of its input.
        channel: from y of these groups to ``"channel"``.
        spatial: one layer from y of this group, as far as it is coded, to ``"spatial"``.
        odd_first: whether a checkerboard begins with positions of odd row plus column.
    """

    channels: int
    order: str = "all"
    scale: int = 0
    mean: int | None = None
    mean_shift: int = 0
    parameters: IntegerChain | None = None
    parts: tuple[str, ...] = ()
    earlier: tuple[int, ...] = ()
    channel: IntegerChain | None = None
    spatial: IntegerLayer | None = None
    odd_first: bool = False


@dataclass(frozen=True)
class Level:
    """What belongs to one rate of a model.

    Attributes:
        thresholds: for each group, what turns sums of scales into table indexes.
        z_step: distance between values of z, in units of the hyper-synthesis' input.
        step: distance between values of y, times 2^16.
        offsets: for each table index, how far values of y other than zero are moved away from zero, in units of
            2^-8 steps.
        context: added to the sums of the spatial contexts.
    """

    thresholds: tuple[Thresholds, ...]
    z_step: int = 1
    step: int = 1 << STEP_BITS
    offsets: Int64 | None = None
    context: Int64 | None = None


class Pass(NamedTuple):
    """Symbols that are coded in one go: those of one group at some positions.

    Attributes:
        group: number of the group.
        positions: ``(P,)`` int64, row times width plus column; None for all.
        indexes: ``(P, C)`` uint8, table of each symbol.
        means: ``(P, C)`` int64 in units of 2^-8; None for zero.
    """

    group: int
    positions: Int64 | None
    indexes: Index
    means: Int64 | None


class Decoded(NamedTuple):
    """Symbols of a tile, and y as both sides have it.

    Attributes:
        z: ``(C_z, h, w)`` int16.
        y: ``(C_y, H, W)`` int16.
        indexes: ``(C_y, H, W)`` uint8.
        latent: ``(1, C_y, H, W)`` float32, channels side by side in memory; for a model without y that of z.
    """

    z: Int16
    y: Int16
    indexes: Index
    latent: npt.NDArray[np.float32]

    @property
    def checksum(self) -> int:
        """The checksum of a tile with these symbols in a file."""
        return symbol_checksum(self.z.data, self.y.data)
