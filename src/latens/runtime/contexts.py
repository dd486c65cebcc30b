"""Where the sums of scales and means of a group come from: what is known of z, and of y as far as it is coded."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from latens.runtime.layers import Int32, IntegerChain, IntegerLayer, Pointwise, reference_activate
from latens.runtime.parts import Group, Int64

__all__ = ["Networks", "Padded", "Parameters", "order_of"]


class Networks:
    """The parameter networks of a group, cut where inputs become known: those of some positions, or of all at once."""

    def __init__(self, group: Group, chain: IntegerChain, sides: int) -> None:
        first, *others = chain.layers
        sizes = {
            "side": sides,
            "channel": 0 if group.channel is None else group.channel.outputs,
            "spatial": 0 if group.spatial is None else group.spatial.channels,
        }
        ends = np.cumsum([sizes[part] for part in group.parts])
        columns = np.split(first.weight[:, :, 0, 0], ends[:-1], axis=1)
        matrices = dict(zip(group.parts, columns, strict=True))
        self.first = first
        self.parts = {
            part: Pointwise([first], {0: matrices[part]}) for part in group.parts if part != "spatial"
        }
        self.others = Pointwise(others) if others else None
        self.biases = [layer.bias[None] for layer in chain.layers]
        self.window = None if group.spatial is None else _Window(group.spatial)
        self.contextual = None
        if group.spatial is not None and self.window is not None:
            own = {0: self.window.matrix, 1: matrices["spatial"]}
            self.contextual = Pointwise([group.spatial, first, *others], own)


class Parameters:
    """Sums of scales and means of one group, wherever they are asked for.

    Args:
        group: which one.
        networks: its parameter networks; None where the hyper-synthesis gives the sums itself.
        context: added to the sums of the spatial context.
        sides: of the hyper-synthesis, ``(H W, C)`` each.
    """

    def __init__(
        self,
        group: Group,
        networks: Networks | None,
        context: Int64 | None,
        sides: list[npt.NDArray[Any]],
    ) -> None:
        self.group, self.sides, self.networks = group, sides, networks
        if networks is None:
            return
        # What does not depend on the order of positions is multiplied once, for all of them.
        self.start = networks.biases[0]
        self.add("side", sides[0])
        if group.spatial is not None:
            self.bias = (group.spatial.bias if context is None else group.spatial.bias + context)[None]

    def add(self, part: str, values: Int32) -> None:
        """Take note of a part of the inputs ``(H W, C)``, known at all positions."""
        if self.networks is not None:
            self.start = self.networks.parts[part].sums(values, [self.start])

    def sort(self, order: Int64) -> None:
        """From here on, rows are numbers in an order of positions."""
        self.start = self.start[order]

    def at(self, rows: slice, seen: Int32 | None) -> tuple[Int64, Int64]:
        """``(P, C)`` sums that hold those of scales, and sums that hold those of means.

        Args:
            rows: positions.
            seen: what a spatial context looks at there, ``(P, taps * C)`` int32; None for no context.
        """
        networks = self.networks
        if networks is None:
            return self.sides[0][rows], self.sides[-1][rows]
        start = self.start[rows]
        if seen is not None and networks.contextual is not None:
            biases = [self.bias, start, *networks.biases[1:]]
            sums = networks.contextual.sums(seen, biases)
        elif networks.others is not None:
            hidden = reference_activate(start.T[:, :, None], networks.first)[:, :, 0].T
            sums = networks.others.sums(np.ascontiguousarray(hidden, np.int32), networks.biases[1:])
        else:
            sums = start
        return sums, sums


class _Window:
    """A spatial layer as one matrix: its taps that are not zero, and the positions that they look at.

    Attributes:
        rows, columns: of each tap, from the upper left corner of the kernel.
        matrix: ``(out, taps * in)``.
    """

    def __init__(self, layer: IntegerLayer) -> None:
        self.reach, self.inputs = layer.weight.shape[2] // 2, layer.weight.shape[1]
        weight = layer.weight.reshape(*layer.weight.shape[:2], -1)
        # One tap is kept where all are zero: a matrix needs a column.
        used = np.flatnonzero(weight.any(axis=(0, 1))) if weight.any() else np.zeros(1, np.int64)
        self.rows, self.columns = np.divmod(used, 2 * self.reach + 1)
        self.matrix = weight[:, :, used].transpose(0, 2, 1).reshape(weight.shape[0], -1)


class Padded:
    """y of one group as far as it is decoded, with a border of zeros, for its spatial context.

    Args:
        window: what a position sees.
        height, width: positions.
        order: in which they are coded; rows are numbers in it.
    """

    def __init__(self, window: _Window, height: int, width: int, order: Int64) -> None:
        reach = window.reach
        pitch = width + 2 * reach
        self.latent = np.zeros(((height + 2 * reach) * pitch, window.inputs), np.int32)
        # Where the window of each position begins.
        corners = order + (order // width) * 2 * reach
        self.places = corners[:, None] + (window.rows * pitch + window.columns)
        self.centres = corners + reach * (pitch + 1)

    def seen(self, rows: slice) -> Int32:
        """What the windows of positions hold: ``(P, taps * C)``."""
        places = self.places[rows]
        found: Int32 = self.latent.take(places, axis=0).reshape(len(places), -1)
        return found

    def put(self, rows: slice, values: Int32) -> None:
        self.latent[self.centres[rows]] = values


def order_of(group: Group, height: int, width: int) -> tuple[Int64 | None, list[int]]:
    """Positions in the order in which they are coded (None: as they are), and how many at each time."""
    if group.spatial is None:
        return None, [height * width]
    rows, columns = (a.ravel() for a in np.indices((height, width)))
    if group.order == "checkerboard":
        times = (rows + columns + group.odd_first) % 2
    else:
        # Positions that are coded together see only positions of smaller times.
        times = columns + (group.spatial.weight.shape[2] // 2 + 1) * rows
    return np.argsort(times, kind="stable"), np.bincount(times).tolist()
