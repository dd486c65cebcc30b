"""The entropy model of a file: tables chosen by integers only, all symbols of a tile in one stream."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from latens.entropy_coding import CdfTables, LaneDecoder, LaneEncoder, choose_lanes
from latens.errors import ModelError, ShapeError
from latens.runtime.contexts import Networks, Padded, Parameters, order_of
from latens.runtime.layers import (
    ACTIVATION_MAX,
    ARITHMETIC_VERSION,
    EXACT_LIMIT,
    LINEAR,
    Int32,
    IntegerChain,
    halve,
)
from latens.runtime.parts import (
    ORDERS,
    PARTS,
    STEP_BITS,
    Decoded,
    Group,
    Index,
    Int16,
    Int64,
    IntegerTables,
    Level,
    Pass,
)
from latens.runtime.storage import Store, of_group, of_layers, of_level, of_tables

__all__ = ["LATENT_BITS", "QUALITY_MAX", "ExactEntropy"]

LATENT_BITS = 8  # y, its means and the medians of z are in units of 2^-8
QUALITY_MAX = 65_535  # in a header
_CHANNELS_MAX = 4096
_INT16 = 32767
# Entries of tables once padded to one length, far above any model's; it bounds what a hostile file allocates.
_PADDED_MAX = 1 << 25


class ExactEntropy:
    """The entropy model of a file: z by one table per channel, y by tables that integer networks pick.

    Nothing here is rounded or depends on a device, so what one machine writes, every machine reads. Tables of
    z come in ``knots`` sets, one of which is chosen by the quality in the header.

    Args:
        z_tables: ``knots * channels`` tables, all channels of one knot together.
        medians: ``(channels of z,)``: what a symbol 0 of z stands for, in units of the hyper-synthesis' input.
        z_bits: z enters the networks in units of 2^-z_bits.
        y_tables: one table per index; None for a model without y.
        hyper: from z to ``"side"`` or, where the groups have no parameters, to sums of scales and means; if there
            are two, the first gives scales and the second means.
        groups: of channels of y, in coding order.
        levels: one, or one for each knot.

    Raises:
        ModelError: the parts do not fit together.
    """

    def __init__(
        self,
        z_tables: IntegerTables,
        medians: Int64,
        *,
        z_bits: int = LATENT_BITS,
        y_tables: IntegerTables | None = None,
        hyper: Sequence[IntegerChain] = (),
        groups: Sequence[Group] = (),
        levels: Sequence[Level] = (Level(()),),
    ) -> None:
        self.z_tables, self.y_tables = z_tables, y_tables
        self.medians, self.z_bits = np.asarray(medians, np.int64), z_bits
        self.hyper, self.groups, self.levels = tuple(hyper), tuple(groups), tuple(levels)
        self._check()
        self._z_tables_of: dict[int, CdfTables] = {}

    # -- consistency ---------------------------------------------------------------------------------------

    def _check(self) -> None:
        channels = self.z_channels
        if not channels or self.medians.ndim != 1 or len(self.z_tables.sizes) % channels:
            raise ModelError(f"entropy model: {len(self.z_tables.sizes)} tables of z for {channels} channels")
        if not 0 <= self.z_bits <= 16 or not _within(self.medians, ACTIVATION_MAX):
            raise ModelError("entropy model: medians of z are out of range")
        longest = self.z_tables.sizes.reshape(-1, channels).max(axis=1).sum(dtype=np.int64)
        padded = int(longest) * channels
        if self.y_tables is not None:
            padded = max(padded, int(self.y_tables.sizes.max()) * len(self.y_tables.sizes))
        if padded > _PADDED_MAX:
            raise ModelError(
                f"entropy model: tables of {padded} entries are above the limit of {_PADDED_MAX}"
            )
        if len(self.levels) not in (1, self.knots):
            raise ModelError(f"entropy model: {len(self.levels)} levels for {self.knots} table sets of z")
        if bool(self.groups) != (self.y_tables is not None) or bool(self.groups) != bool(self.hyper):
            raise ModelError("entropy model: y needs groups, tables and a hyper-synthesis")
        if len(self.hyper) > 2 or any(chain.inputs != channels for chain in self.hyper):
            raise ModelError(f"entropy model: the hyper-synthesis does not fit {channels} channels of z")
        if len({chain.scaling for chain in self.hyper}) > 1:
            raise ModelError("entropy model: scales and means are of different size")
        direct = [group.parameters is None for group in self.groups]
        if any(direct) and (
            len(self.groups) > 1 or any(g.parts or g.spatial or g.channel for g in self.groups)
        ):
            raise ModelError("entropy model: contexts need parameter networks")
        if len(self.hyper) == 2 and not all(direct):
            raise ModelError(
                "entropy model: two hyper-synthesis networks leave nothing for parameter networks"
            )
        for number, group in enumerate(self.groups):
            self._check_group(number, group)
        for level in self.levels:
            self._check_level(level)

    def _check_group(self, number: int, group: Group) -> None:
        def require(fits: bool, what: str) -> None:
            if not fits:
                raise ModelError(f"entropy model, group {number}: {what}")

        require(group.order in ORDERS, f"order {group.order!r} is unknown")
        require(1 <= group.channels <= _CHANNELS_MAX, f"{group.channels} channels")
        require((group.order == "all") == (group.spatial is None), "its order does not fit its context")
        require(-16 <= group.mean_shift <= 52, f"means are shifted by {group.mean_shift}")
        require((group.channel is None) == (not group.earlier), "its channel context sees nothing")
        require(all(0 <= e < number for e in group.earlier), "its context is not decoded before it")
        sums = self.hyper[0].layers[-1].weight.shape[0]
        if group.parameters is not None:
            require(set(group.parts) <= set(PARTS) and len(set(group.parts)) == len(group.parts), "its parts")
            sizes = {"side": self.hyper[0].outputs}
            if group.channel is not None:
                seen = sum(self.groups[e].channels for e in group.earlier)
                require(group.channel.inputs == seen, "channels of its channel context")
                require(group.channel.scaling == 1, "its channel context changes the size")
                sizes["channel"] = group.channel.outputs
            if group.spatial is not None:
                require(group.spatial.weight.shape[1] == group.channels, "channels of its spatial context")
                require(group.spatial.scaling == 1, "its spatial context changes the size")
                group.spatial.check()
                self._check_mask(group)
                sizes["spatial"] = group.spatial.channels
            require(set(sizes) == set(group.parts), f"parts {group.parts} of {tuple(sizes)}")
            inputs = sum(sizes[part] for part in group.parts)
            require(
                group.parameters.inputs == inputs,
                f"its parameters take {group.parameters.inputs}, not {inputs}",
            )
            ones = all(layer.weight.shape[2] == 1 and layer.scaling == 1 for layer in group.parameters.layers)
            require(ones, "its parameters are not made from 1x1 layers")
            sums = group.parameters.layers[-1].weight.shape[0]
        for chain in self.hyper if group.parameters is None else [group.parameters]:
            last = chain.layers[-1]
            require(last.form == (0, LINEAR, 1, last.up, ACTIVATION_MAX), "something follows its sums")
        require(0 <= group.scale <= sums - group.channels, "channels of its scales")
        if group.mean is not None:
            of_means = self.hyper[-1].layers[-1].weight.shape[0] if len(self.hyper) == 2 else sums
            require(0 <= group.mean <= of_means - group.channels, "channels of its means")
            apart = len(self.hyper) == 2 or abs(group.mean - group.scale) >= group.channels
            require(apart, "its scales and its means are the same channels")

    @staticmethod
    def _check_mask(group: Group) -> None:
        """A context that saw what is not decoded yet would differ between the two sides."""
        spatial = group.spatial
        if spatial is None:
            return
        side = spatial.weight.shape[2]
        rows, columns = np.divmod(np.arange(side * side), side)
        if group.order == "raster":
            hidden = np.arange(side * side) >= side * side // 2
        else:
            hidden = (rows + columns) % 2 == 0
        if spatial.weight.reshape(*spatial.weight.shape[:2], -1)[:, :, hidden].any():
            raise ModelError("entropy model: a context sees positions that are not decoded yet")

    def _check_level(self, level: Level) -> None:
        tables = 0 if self.y_tables is None else len(self.y_tables.sizes)
        if len(level.thresholds) != len(self.groups) or any(
            t.values.size + 1 != tables for t in level.thresholds
        ):
            raise ModelError(
                f"entropy model: thresholds {[t.values.size for t in level.thresholds]} do not fit "
                f"{len(self.groups)} groups and {tables} tables of y"
            )
        if not 1 <= level.z_step <= ACTIVATION_MAX or not 1 <= level.step <= 1 << 2 * STEP_BITS:
            raise ModelError(f"entropy model: steps {level.z_step} and {level.step} are out of range")
        if level.offsets is not None and (
            level.offsets.shape != (tables,) or not _within(level.offsets, ACTIVATION_MAX)
        ):
            raise ModelError("entropy model: reconstruction offsets are out of range")
        if level.context is not None:
            spatial = [group.spatial for group in self.groups if group.spatial is not None]
            if len(spatial) != 1 or level.context.shape != spatial[0].bias.shape:
                raise ModelError("entropy model: the context of a rate does not fit")
            if not _within(level.context, EXACT_LIMIT):
                raise ModelError("entropy model: the context of a rate is out of the exact range")
            replace(spatial[0], bias=spatial[0].bias + level.context).check()

    # -- what it is ----------------------------------------------------------------------------------------

    @property
    def z_channels(self) -> int:
        """Channels of z."""
        return len(self.medians)

    @property
    def knots(self) -> int:
        """Number of table sets of z."""
        return len(self.z_tables.sizes) // self.z_channels

    def knot_at(self, quality: int) -> int:
        """The table set of z for a header's quality, 0 to 65,535; only integers may decide about it."""
        return (2 * quality * (self.knots - 1) + QUALITY_MAX) // (2 * QUALITY_MAX)

    @property
    def y_channels(self) -> int:
        """Channels of y; 0 if there is none."""
        return sum(group.channels for group in self.groups)

    @property
    def upscale(self) -> int:
        """Positions of y per position of z, in each direction."""
        return self.hyper[0].scaling if self.hyper else 1

    def bounds(self) -> dict[str, list[int]]:
        """For each network, the proven bound of the sums of each of its layers; all are below 2^53."""
        found = {f"hyper.{i}": chain.bounds() for i, chain in enumerate(self.hyper)}
        for k, group in enumerate(self.groups):
            if group.channel is not None:
                found[f"groups.{k}.channel"] = group.channel.bounds()
            if group.spatial is not None:
                found[f"groups.{k}.spatial"] = [group.spatial.bound()]
            if group.parameters is not None:
                found[f"groups.{k}.parameters"] = group.parameters.bounds()
        return found

    @cached_property
    def entropy_id(self) -> str:
        """SHA-256 over every integer that decides which symbols a stream stands for: 64 hex digits."""
        digest = hashlib.sha256(f"latens exact entropy {ARITHMETIC_VERSION}".encode())
        for name, data in sorted(self.tensors().items()):
            shape = ",".join(map(str, data.shape))
            digest.update(f"\n{name} {data.dtype.name} {shape}\n".encode())
            digest.update(np.ascontiguousarray(data).astype(data.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()

    @cached_property
    def _y(self) -> CdfTables:
        if self.y_tables is None:
            raise ModelError("entropy model: it has no tables of y")
        return self.y_tables.tables(0, len(self.y_tables.sizes))

    @cached_property
    def _networks(self) -> list[Networks | None]:
        sides = self.hyper[0].outputs if self.hyper else 0
        return [
            None if group.parameters is None else Networks(group, group.parameters, sides)
            for group in self.groups
        ]

    def _z(self, knot: int) -> CdfTables:
        if knot not in self._z_tables_of:
            if not 0 <= knot < self.knots:
                raise ModelError(f"entropy model: knot {knot} of {self.knots}")
            start = knot * self.z_channels
            self._z_tables_of[knot] = self.z_tables.tables(start, start + self.z_channels)
        return self._z_tables_of[knot]

    def _level(self, knot: int) -> Level:
        return self.levels[knot if len(self.levels) > 1 else 0]

    @cached_property
    def _spans(self) -> list[slice]:
        """The channels of each group."""
        ends = np.cumsum([group.channels for group in self.groups]).tolist()
        return [slice(end - group.channels, end) for end, group in zip(ends, self.groups, strict=True)]

    def _z_indexes(self, shape: tuple[int, ...]) -> npt.NDArray[np.int16]:
        if len(shape) != 3 or shape[0] != self.z_channels or min(shape) < 1:
            raise ShapeError(f"expected z ({self.z_channels}, height, width), but got {shape}")
        channels = np.arange(self.z_channels, dtype=np.int16)[:, None, None]
        return np.ascontiguousarray(np.broadcast_to(channels, shape))

    # -- the traversal -------------------------------------------------------------------------------------

    def _z_values(self, z: Int16, knot: int) -> Int32:
        """What enters the hyper-synthesis: ``(h, w, C_z)``."""
        values = z.transpose(1, 2, 0).astype(np.int64) * self._level(knot).z_step + self.medians
        return values.clip(-ACTIVATION_MAX, ACTIVATION_MAX).astype(np.int32)

    def _traverse(self, z: Int16, knot: int, code: Callable[[Pass], Int16]) -> tuple[Int16, Index, Int32]:
        """Code y: ``code`` encodes or decodes one pass, and returns its symbols ``(P, C)``.

        Returns:
            Symbols, indexes and values (units of 2^-8), each ``(H, W, C_y)``.
        """
        level = self._level(knot)
        inputs = self._z_values(z, knot)
        direct = all(group.parameters is None for group in self.groups)
        sides = [chain.sums(inputs) if direct else chain.activations(inputs) for chain in self.hyper]
        height, width = sides[0].shape[:2]
        shape = (height, width, self.y_channels)
        results = tuple(np.zeros((height * width, shape[2]), kind) for kind in (np.int16, np.uint8, np.int32))
        values = results[2]
        flat: list[npt.NDArray[Any]] = [side.reshape(height * width, -1) for side in sides]
        for k, (group, span) in enumerate(zip(self.groups, self._spans, strict=True)):
            parameters = Parameters(group, self._networks[k], level.context, flat)
            if group.channel is not None:
                earlier = np.concatenate([values[:, self._spans[e]] for e in group.earlier], axis=1)
                channel = group.channel.activations(earlier.reshape(height, width, -1))
                parameters.add("channel", channel.reshape(height * width, -1))
            found = self._code_group(k, parameters, level, (height, width), code)
            for target, coded in zip(results, found, strict=True):
                target[:, span] = coded
        symbols, indexes, values = (result.reshape(shape) for result in results)
        return symbols, indexes, values

    def _code_group(
        self,
        k: int,
        parameters: Parameters,
        level: Level,
        size: tuple[int, int],
        code: Callable[[Pass], Int16],
    ) -> list[npt.NDArray[Any]]:
        """Code one group pass by pass: its symbols, indexes and values ``(H W, C)``."""
        group, networks = self.groups[k], self._networks[k]
        order, counts = order_of(group, *size)
        decoded = None
        if networks is not None and networks.window is not None and order is not None:
            # From here on, everything is in the order in which positions are coded.
            parameters.sort(order)
            decoded = Padded(networks.window, *size, order)
        passes: list[tuple[Int16, Index, Int32]] = []
        start = 0
        for time, count in enumerate(counts):
            if not count:
                continue
            rows = slice(start, start + count)
            # The first half of a checkerboard has no context.
            blind = time == 0 and group.order == "checkerboard"
            seen = None if blind or decoded is None else decoded.seen(rows)
            scales, sums = parameters.at(rows, seen)
            index = level.thresholds[k].count(scales, group.scale, group.channels)
            means = None
            if group.mean is not None:
                means = halve(sums[:, group.mean : group.mean + group.channels], group.mean_shift)
                means = means.clip(-ACTIVATION_MAX, ACTIVATION_MAX)
            symbol = code(Pass(k, None if order is None else order[rows], index, means))
            value = self._values(symbol, index, means, level)
            if decoded is not None:
                decoded.put(rows, value)
            passes.append((symbol, index, value))
            start += count
        found: list[npt.NDArray[Any]] = []
        for coded in zip(*passes, strict=True):
            rows_of_all = coded[0] if len(coded) == 1 else np.concatenate(coded)
            if order is not None:
                sorted_rows, rows_of_all = rows_of_all, np.empty_like(rows_of_all)
                rows_of_all[order] = sorted_rows
            found.append(rows_of_all)
        return found

    @staticmethod
    def _values(symbols: Int16, indexes: Index, means: Int64 | None, level: Level) -> Int32:
        """y of symbols, in units of 2^-8."""
        values = symbols.astype(np.int64) << LATENT_BITS
        if level.offsets is not None:
            values += np.sign(values) * level.offsets[indexes]
        if level.step != 1 << STEP_BITS:
            values = halve(values * level.step, STEP_BITS)
        if means is not None:
            values += means
        return values.clip(-ACTIVATION_MAX, ACTIVATION_MAX).astype(np.int32)

    def quantiser(self, y: npt.NDArray[np.floating], knot: int, skip: int) -> Callable[[Pass], Int16]:
        """What :meth:`encode` takes, for models whose means are integers: rounds y around them.

        Args:
            y: ``(1, C_y, H, W)`` float.
            knot, skip: as for :meth:`encode`.
        """
        take = self._rows(y[0])
        step = self._level(knot).step / (1 << STEP_BITS)

        def quantise(part: Pass) -> Int16:
            distance = take(part).astype(np.float64)
            if part.means is not None:
                distance -= part.means / (1 << LATENT_BITS)
            symbols = np.rint(distance / step).clip(-_INT16, _INT16)
            return np.where(part.indexes >= skip, symbols, 0.0).astype(np.int16)

        return quantise

    def replay(self, y: Int16) -> Callable[[Pass], Int16]:
        """What :meth:`encode` takes, for symbols ``(C_y, H, W)`` that are known already."""
        return self._rows(y)

    def _rows(self, y: npt.NDArray[Any]) -> Callable[[Pass], npt.NDArray[Any]]:
        """For each pass its part ``(P, C)`` of something shaped like y, ``(C_y, H, W)``."""
        rows = np.ascontiguousarray(y.transpose(1, 2, 0)).reshape(y.shape[1] * y.shape[2], len(y))

        def take(part: Pass) -> npt.NDArray[Any]:
            found = rows[:, self._spans[part.group]]
            return found if part.positions is None else found[part.positions]

        return take

    # -- coding --------------------------------------------------------------------------------------------

    def quantise_z(self, z: npt.NDArray[np.floating], knot: int) -> Int16:
        """Symbols ``(C_z, h, w)`` of z ``(1, C_z, h, w)`` float."""
        unit = float(1 << self.z_bits)
        medians = (self.medians / unit).astype(z.dtype)[:, None, None]
        symbols = np.rint((z[0] - medians) / (self._level(knot).z_step / unit)).clip(-_INT16, _INT16)
        return np.ascontiguousarray(symbols, np.int16)

    def encode(
        self, z: Int16, quantise: Callable[[Pass], Int16], knot: int, skip: int, lanes: int | None = None
    ) -> tuple[bytes, int, Decoded]:
        """One stream for a tile.

        Args:
            z: ``(C_z, h, w)`` int16.
            quantise: symbols ``(P, C)`` int16 of a pass, zero wherever the index is below ``skip``; see
                :meth:`quantiser`. Not called for a model without y.
            knot: table set of z.
            skip: indexes below are not coded.
            lanes: number of interleaved coder states; by default what suits the number of symbols.

        Returns:
            The stream, its lanes, and what the decoder will have.

        Raises:
            CoderError, ShapeError: symbols that do not fit.
            ModelError: there is no such table set.
        """
        encoder = LaneEncoder()
        encoder.push(z, self._z_indexes(z.shape), self._z(knot))

        def code(part: Pass) -> Int16:
            symbols = np.ascontiguousarray(quantise(part))
            encoder.push(symbols, part.indexes, self._y, skip)
            return symbols

        decoded = self._decoded(z, knot, code)
        lanes = choose_lanes(len(encoder)) if lanes is None else lanes
        return encoder.finish(lanes), lanes, decoded

    def decode(self, stream: bytes, z_shape: tuple[int, int], knot: int, skip: int, lanes: int) -> Decoded:
        """The symbols of a tile, and y.

        Raises:
            CoderError: the stream is damaged.
            ModelError, ShapeError: there is no such table set or shape.
        """
        decoder = LaneDecoder(stream, lanes)
        z = decoder.decode(self._z_indexes((self.z_channels, *z_shape)), self._z(knot))
        decoded = self._decoded(z, knot, lambda part: decoder.decode(part.indexes, self._y, skip))
        decoder.finish()
        return decoded

    def _decoded(self, z: Int16, knot: int, code: Callable[[Pass], Int16]) -> Decoded:
        if not self.groups:
            empty = np.zeros((0, *z.shape[1:]), np.int16)
            return Decoded(z, empty, empty.astype(np.uint8), _latent(self._z_values(z, knot), self.z_bits))
        symbols, indexes, values = self._traverse(z, knot, code)
        y, index = symbols.transpose(2, 0, 1), indexes.transpose(2, 0, 1)
        latent = _latent(values, LATENT_BITS)
        return Decoded(z, np.ascontiguousarray(y), np.ascontiguousarray(index), latent)

    # -- storage -------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Everything as integer arrays, to be stored with the weights."""
        arrays: dict[str, npt.NDArray[Any]] = {"medians": self.medians}
        arrays["z.bits"] = np.array([self.z_bits], np.int32)
        arrays |= of_tables("z", self.z_tables)
        if self.y_tables is not None:
            arrays |= of_tables("y", self.y_tables)
        for i, chain in enumerate(self.hyper):
            arrays |= of_layers(f"hyper.{i}", chain.layers)
        for k, group in enumerate(self.groups):
            arrays |= of_group(f"groups.{k}", group)
        for i, level in enumerate(self.levels):
            arrays |= of_level(f"levels.{i}", level)
        # Copies: who gets them may write to them, and safetensors takes none that share memory.
        return {name: np.array(array, order="C") for name, array in arrays.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> ExactEntropy:
        """The inverse of :meth:`tensors`. Everything is checked: a weights file may be hostile.

        Raises:
            ModelError: something is missing, of the wrong type, or out of range.
            TableError: a CDF table is not valid.
        """
        store = Store(tensors)
        (z_bits,) = store.get("z.bits", np.int32, 1, 1).tolist()
        hyper = [IntegerChain(store.layers(f"hyper.{i}")) for i in range(2) if store.has(f"hyper.{i}.")]
        groups: list[Group] = []
        while store.has(f"groups.{len(groups)}."):
            groups.append(store.group(f"groups.{len(groups)}"))
        levels: list[Level] = []
        while store.has(f"levels.{len(levels)}."):
            levels.append(store.level(f"levels.{len(levels)}", len(groups)))
        result = cls(
            store.tables("z"),
            store.get("medians", np.int64, 1),
            z_bits=z_bits,
            y_tables=store.tables("y") if store.has("y.") else None,
            hyper=hyper,
            groups=groups,
            levels=levels,
        )
        if result.groups:
            _ = result._y
        for knot in range(result.knots):
            result._z(knot)
        store.check_all_used()
        return result


def _latent(values: Int32, bits: int) -> npt.NDArray[np.float32]:
    """``(H, W, C)`` in units of 2^-bits, 21 bits at most, as ``(1, C, H, W)``: exactly."""
    return (values.astype(np.float32) / np.float32(1 << bits)).transpose(2, 0, 1)[None]


def _within(values: Int64, limit: int) -> bool:
    """Not by magnitudes: that of the smallest integer is negative."""
    return bool(values.min() >= -limit and values.max() <= limit)
