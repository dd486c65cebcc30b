"""Entropy models as integer arrays of a weights file, and back, each checked: the file may be hostile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from latens.errors import ModelError
from latens.runtime.layers import IntegerChain, IntegerLayer, Thresholds
from latens.runtime.parts import ORDERS, PARTS, Group, IntegerTables, Level

__all__ = ["Store", "of_group", "of_layers", "of_level", "of_tables"]

Arrays = dict[str, npt.NDArray[Any]]


def of_tables(prefix: str, tables: IntegerTables) -> Arrays:
    """Of CDF tables."""
    return {
        f"{prefix}.entries": tables.entries,
        f"{prefix}.sizes": tables.sizes,
        f"{prefix}.offsets": tables.offsets,
    }


def of_layers(prefix: str, layers: Sequence[IntegerLayer]) -> Arrays:
    """Of layers that follow each other."""
    arrays: Arrays = {}
    for i, layer in enumerate(layers):
        arrays[f"{prefix}.{i}.weight"] = layer.weight.astype(np.int16)
        arrays[f"{prefix}.{i}.bias"] = layer.bias
        arrays[f"{prefix}.{i}.form"] = np.array(layer.form, np.int32)
    return arrays


def of_group(prefix: str, group: Group) -> Arrays:
    """Of a group of channels."""
    mean = -1 if group.mean is None else group.mean
    order = ORDERS.index(group.order)
    form = [group.channels, order, group.scale, mean, group.mean_shift, group.odd_first]
    arrays: Arrays = {
        f"{prefix}.form": np.array(form, np.int32),
        f"{prefix}.parts": np.array([PARTS.index(p) for p in group.parts], np.int32),
        f"{prefix}.earlier": np.array(group.earlier, np.int32),
    }
    for name, chain in (("channel", group.channel), ("parameters", group.parameters)):
        if chain is not None:
            arrays |= of_layers(f"{prefix}.{name}", chain.layers)
    if group.spatial is not None:
        arrays |= of_layers(f"{prefix}.spatial", [group.spatial])
    return arrays


def of_level(prefix: str, level: Level) -> Arrays:
    """Of one rate."""
    arrays: Arrays = {f"{prefix}.steps": np.array([level.z_step, level.step], np.int64)}
    for k, thresholds in enumerate(level.thresholds):
        arrays[f"{prefix}.thresholds.{k}"] = thresholds.values
    for name, values in (("offsets", level.offsets), ("context", level.context)):
        if values is not None:
            arrays[f"{prefix}.{name}"] = values
    return arrays


class Store:
    """Arrays of a file, each checked when it is taken."""

    def __init__(self, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
        self.tensors = tensors
        self.used: set[str] = set()
        self.prefixes = {
            name[: i + 1]
            for name in tensors
            for i in range(len(name))
            if name[i] == "." or i + 1 == len(name)
        }

    def has(self, name: str) -> bool:
        """Whether there is an array of this name, or below it if it ends in a dot."""
        return name in self.prefixes

    def get(
        self, name: str, dtype: type[np.generic], ndim: int, size: int | None = None, *, empty: bool = False
    ) -> npt.NDArray[Any]:
        """An array of this type and number of dimensions."""
        array = self.tensors.get(name)
        if array is None:
            raise ModelError(f"entropy model: {name} is missing")
        fits = array.dtype == dtype and array.ndim == ndim and (empty or array.size)
        if not fits or (size is not None and array.size != size):
            raise ModelError(f"entropy model: {name} is {array.dtype} {array.shape}")
        self.used.add(name)
        return array

    def layers(self, prefix: str) -> list[IntegerLayer]:
        """The inverse of :func:`of_layers`."""
        found: list[IntegerLayer] = []
        while f"{prefix}.{len(found)}.weight" in self.tensors:
            own = f"{prefix}.{len(found)}."
            shift, activation, shuffle, up, top = self.get(own + "form", np.int32, 1, 5).tolist()
            weight = self.get(own + "weight", np.int16, 4).astype(np.int64)
            bias = self.get(own + "bias", np.int64, 1)
            found.append(IntegerLayer(weight, bias, shift, activation, shuffle, up, top))
        return found

    def tables(self, prefix: str) -> IntegerTables:
        """The inverse of :func:`of_tables`."""
        entries, sizes, offsets = (
            self.get(f"{prefix}.{part}", np.int32, 1) for part in ("entries", "sizes", "offsets")
        )
        try:
            return IntegerTables(entries, sizes, offsets)
        except ModelError as error:
            raise ModelError(f"entropy model: {prefix}: {error}") from error

    def group(self, prefix: str) -> Group:
        """The inverse of :func:`of_group`."""
        channels, order, scale, mean, shift, odd = self.get(f"{prefix}.form", np.int32, 1, 6).tolist()
        parts = self.get(f"{prefix}.parts", np.int32, 1, empty=True).tolist()
        if not 0 <= order < len(ORDERS) or odd not in (0, 1) or not all(0 <= p < len(PARTS) for p in parts):
            raise ModelError(
                f"entropy model: {prefix}.form or parts have values that are not known to this release"
            )
        chains = {
            name: IntegerChain(self.layers(f"{prefix}.{name}")) if self.has(f"{prefix}.{name}.") else None
            for name in ("channel", "parameters")
        }
        spatial = self.layers(f"{prefix}.spatial")
        if len(spatial) > 1:
            raise ModelError(f"entropy model: {prefix}.spatial has {len(spatial)} layers, expected 1")
        return Group(
            channels=channels,
            order=ORDERS[order],
            scale=scale,
            mean=None if mean < 0 else mean,
            mean_shift=shift,
            parts=tuple(PARTS[p] for p in parts),
            earlier=tuple(self.get(f"{prefix}.earlier", np.int32, 1, empty=True).tolist()),
            spatial=spatial[0] if spatial else None,
            odd_first=bool(odd),
            **chains,
        )

    def level(self, prefix: str, groups: int) -> Level:
        """The inverse of :func:`of_level`."""
        z_step, step = self.get(f"{prefix}.steps", np.int64, 1, 2).tolist()
        thresholds = tuple(
            Thresholds(self.get(f"{prefix}.thresholds.{k}", np.int64, 1)) for k in range(groups)
        )
        offsets, context = (
            self.get(f"{prefix}.{name}", np.int64, 1) if self.has(f"{prefix}.{name}") else None
            for name in ("offsets", "context")
        )
        return Level(thresholds, z_step, step, offsets, context)

    def check_all_used(self) -> None:
        """Raise an error if there is anything that was not asked for."""
        unknown = sorted(self.tensors.keys() - self.used)
        if unknown:
            raise ModelError(f"entropy model: {unknown[0]!r:.80} is not known to this release")
