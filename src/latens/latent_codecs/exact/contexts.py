"""What the parameters of positions follow from: hyper-synthesis, earlier groups, and what is coded around them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from latens.latent_codecs.exact.parts import Group, Int64
from latens.ops.fixed_point import IntegerChain, IntegerLayer, Pointwise, activate

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
        self.biases = [_row(layer.bias) for layer in chain.layers]
        self.window = None if group.spatial is None else _Window(group.spatial)
        self.contextual = None
        if group.spatial is not None and self.window is not None:
            own = {0: self.window.matrix, 1: matrices["spatial"]}
            self.contextual = Pointwise([group.spatial, first, *others], own)


def _row(values: Int64) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.int64))[None]


class Parameters:
    """Sums of scales and means of one group, wherever they are asked for."""

    def __init__(
        self, group: Group, networks: Networks | None, context: Int64 | None, sides: list[Tensor]
    ) -> None:
        self.group, self.sides, self.networks = group, sides, networks
        if networks is None:
            return
        self.crew = Pointwise.crew()
        # What does not depend on the order of positions is multiplied once, for all of them.
        self.start = networks.biases[0]
        self.add("side", sides[0])
        if group.spatial is not None:
            self.bias = _row(group.spatial.bias if context is None else group.spatial.bias + context)

    def add(self, part: str, values: Tensor) -> None:
        """Take note of a part of the inputs ``(..., C)``, known at all positions."""
        if self.networks is not None:
            flat = values.reshape(-1, values.shape[-1]).to(torch.int32)
            self.start = self.networks.parts[part].sums(flat, [self.start], self.crew)

    def sort(self, order: Tensor) -> None:
        """From here on, rows are numbers in an order of positions."""
        self.start = self.start[order]

    def at(self, rows: slice, seen: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """``(P, C)`` sums of scales and, where there are means, of means.

        Args:
            rows: positions.
            seen: what a spatial context looks at there, ``(P, taps * C)`` int32; None for no context.
        """
        group, networks = self.group, self.networks
        if networks is None:
            flat = [side.view(-1, side.shape[-1])[rows] for side in self.sides]
            mean = None if group.mean is None else _channels(flat[-1], group.mean, group.channels)
            return _channels(flat[0], group.scale, group.channels), mean
        start = self.start[rows]
        if seen is not None and networks.contextual is not None:
            sums = networks.contextual.sums(seen, [self.bias, start, *networks.biases[1:]], self.crew)
        elif networks.others is not None:
            hidden = activate(start.double(), networks.first).to(torch.int32)
            sums = networks.others.sums(hidden, networks.biases[1:], self.crew)
        else:
            sums = start
        mean = None if group.mean is None else sums[:, group.mean : group.mean + group.channels].double()
        return sums[:, group.scale : group.scale + group.channels].double(), mean


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
        self.rows, self.columns = (torch.from_numpy(a) for a in np.divmod(used, 2 * self.reach + 1))
        self.matrix = weight[:, :, used].transpose(0, 2, 1).reshape(weight.shape[0], -1)


class Padded:
    """y of one group as far as it is decoded, with a border of zeros, for its spatial context.

    Args:
        window: what a position sees.
        height, width: positions.
        order: in which they are coded; rows are numbers in it.
    """

    def __init__(self, window: _Window, height: int, width: int, order: Tensor) -> None:
        reach = window.reach
        pitch = width + 2 * reach
        self.latent = torch.zeros(
            ((height + 2 * reach) * pitch, window.inputs), dtype=torch.int32, device="cpu"
        )
        # Where the window of each position begins.
        corners = order + (order // width) * 2 * reach
        self.places = corners[:, None] + (window.rows * pitch + window.columns)
        self.centres = corners + reach * (pitch + 1)

    def seen(self, rows: slice) -> Tensor:
        """What the windows of positions hold: ``(P, taps * C)``."""
        places = self.places[rows]
        return self.latent.index_select(0, places.view(-1)).view(len(places), -1)

    def put(self, rows: slice, values: Tensor) -> None:
        self.latent.index_copy_(0, self.centres[rows], values.to(torch.int32))


def order_of(group: Group, height: int, width: int) -> tuple[Tensor | None, list[int]]:
    """Positions in the order in which they are coded (None: as they are), and how many at each time."""
    if group.spatial is None:
        return None, [height * width]
    rows, columns = (torch.from_numpy(a.ravel()) for a in np.indices((height, width)))
    if group.order == "checkerboard":
        times = (rows + columns + group.odd_first) % 2
    else:
        # Positions that are coded together see only positions of smaller times.
        times = columns + (group.spatial.weight.shape[2] // 2 + 1) * rows
    return torch.argsort(times, stable=True), torch.bincount(times).tolist()


def _channels(sums: Tensor, start: int, count: int) -> Tensor:
    """Some channels of sums ``(..., C)``, to be overwritten."""
    part = sums[..., start : start + count]
    return part if part.shape == sums.shape else part.contiguous()
