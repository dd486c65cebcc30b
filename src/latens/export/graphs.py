"""The integer networks of an entropy model as ONNX graphs, which compute in float64 what ``docs/entropy.md`` says.

Convolutions are sums of matrix products, one for each tap of the kernel: ONNX Runtime has no float64 convolution, and
the integers stay below 2^53, where the order of a sum does not matter. Positions come first and channels last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from latens.errors import ModelError
from latens.latent_codecs.exact import ExactEntropy, Group, Level
from latens.ops.fixed_point import ACTIVATION_MAX, LEAKY, RELU, IntegerChain, IntegerLayer

__all__ = ["OPSET", "entropy_graphs", "taps_of"]

OPSET = 17
_IR_VERSION = 8  # what came with this operator set, so that old runtimes read it too
_END = np.iinfo(np.int64).max

_Shape = Sequence[int | str | None]


class _Graph:
    """An ONNX graph that is being built; a value is the name of a node's output."""

    def __init__(self, levels: Sequence[Level]) -> None:
        self.levels = levels
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: dict[str, onnx.ValueInfoProto] = {}

    def input(self, name: str, shape: _Shape, kind: int = TensorProto.DOUBLE) -> str:
        self.inputs[name] = helper.make_tensor_value_info(name, kind, shape)
        return name

    def constant(self, value: Any, dtype: type[np.generic] = np.float64) -> str:
        name = f"constant_{len(self.constants)}"
        array = np.ascontiguousarray(np.asarray(value, dtype)).reshape(np.shape(value))
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, *values: str, **attributes: Any) -> str:
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, values, [name], name=name, **attributes))
        return name

    def of_level(self, values: Sequence[Any]) -> str:
        """What each level has of its own: chosen by the input ``knot``, unless all have the same."""
        arrays = [np.asarray(value, np.float64) for value in values]
        if all(np.array_equal(arrays[0], other) for other in arrays):
            return self.constant(arrays[0])
        knot = self.input("knot", (), TensorProto.INT64)
        return self.add("Gather", self.constant(np.stack(arrays)), knot, axis=0)

    def part(self, value: str, axis: int, start: int, end: int) -> str:
        bounds = (self.constant([bound], np.int64) for bound in (start, end, axis))
        return self.add("Slice", value, *bounds)

    def reshape(self, value: str, shape: Sequence[int]) -> str:
        return self.add("Reshape", value, self.constant(shape, np.int64))

    def model(self, outputs: Mapping[str, tuple[str, _Shape, int]]) -> bytes:
        """The file: for each output its value, shape and type."""
        nodes = [
            *self.nodes,
            *(helper.make_node("Identity", [value], [name]) for name, (value, _, _) in outputs.items()),
        ]
        described = [
            helper.make_tensor_value_info(name, kind, shape) for name, (_, shape, kind) in outputs.items()
        ]
        graph = helper.make_graph(nodes, "latens", list(self.inputs.values()), described, self.constants)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="latens"
        )
        model.ir_version = _IR_VERSION
        onnx.checker.check_model(model, full_check=True)
        data: bytes = model.SerializeToString()
        return data

    # -- integer arithmetic --------------------------------------------------------------------------------

    def halve(self, value: str, shift: int) -> str:
        """``floor((value + 2^(shift-1)) / 2^shift)``, times 2^-shift below zero."""
        if shift > 0:
            value = self.add("Add", value, self.constant(2.0 ** (shift - 1)))
        if shift:
            value = self.add("Mul", value, self.constant(2.0**-shift))
        return self.add("Floor", value) if shift > 0 else value

    def clamp(self, value: str, low: int = -ACTIVATION_MAX, top: int = ACTIVATION_MAX) -> str:
        return self.add("Clip", value, self.constant(low), self.constant(top))

    def sums(self, a: str, layer: IntegerLayer) -> str:
        """Sums of a layer ``(H, W, in)`` to ``(up H, up W, out)``; channels in the order that shuffling wants."""
        side, up = layer.weight.shape[2], layer.up
        places = np.arange(len(layer.bias)).reshape(-1, layer.shuffle, layer.shuffle)
        order = places.transpose(1, 2, 0).ravel()
        weight = layer.weight[order].transpose(2, 3, 1, 0)
        bias = self.constant(layer.bias[order])
        offsets = [_taps(side, up, phase) for phase in range(up)]
        before = max(0, -min(offset for taps in offsets for _, offset in taps))
        after = max(0, *(offset for taps in offsets for _, offset in taps))
        if before + after:
            pads = [before, before, 0, after, after, 0]
            a = self.add("Pad", a, self.constant(pads, np.int64), self.constant(0.0))

        def window(row: int, column: int) -> str:
            if not before + after:
                return a
            starts, ends = [before + row, before + column], [row - after or _END, column - after or _END]
            return self.add(
                "Slice", a, *(self.constant(bounds, np.int64) for bounds in (starts, ends, [0, 1]))
            )

        def phase(rows: list[tuple[int, int]], columns: list[tuple[int, int]]) -> str:
            taps = [(weight[i, j], row, column) for i, row in rows for j, column in columns]
            total = bias
            # A layer of zeros still needs one product, for the size of the result.
            for matrix, row, column in [tap for tap in taps if tap[0].any()] or taps[:1]:
                product = self.add("MatMul", window(row, column), self.constant(matrix))
                total = self.add("Add", product, total)
            return total

        lines = []
        for rows in offsets:
            found = [phase(rows, columns) for columns in offsets]
            lines.append(self.add("Concat", *found, axis=-1) if up > 1 else found[0])
        return self.interleave(lines, len(layer.bias)) if up > 1 else lines[0]

    def interleave(self, lines: Sequence[str], channels: int) -> str:
        """Lines ``(H, W, n * channels)``, each of n columns, to ``(len(lines) H, n W, channels)``."""
        flat = [self.reshape(line, [0, -1, channels]) for line in lines]
        rest = self.add("Shape", flat[0], start=1)
        shape = self.add("Concat", self.constant([-1], np.int64), rest, axis=0)
        return self.add("Reshape", self.add("Concat", *flat, axis=1), shape)

    def activate(self, sums: str, layer: IntegerLayer) -> str:
        """What follows the sums of a layer."""
        low = 0 if layer.activation == RELU else -ACTIVATION_MAX
        a = self.clamp(self.halve(sums, layer.shift), low, layer.top)
        if layer.activation == LEAKY:
            # The larger of the two is the one wanted, on either side of zero.
            a = self.add("Max", a, self.halve(self.add("Mul", a, self.constant(655.0)), 16))
        if layer.shuffle > 1:
            size = layer.shuffle * layer.channels
            a = self.interleave(
                [self.part(a, -1, i * size, (i + 1) * size) for i in range(layer.shuffle)], layer.channels
            )
        return a

    def chain(self, a: str, chain: IntegerChain, *, last: bool) -> str:
        """Activations of a chain if ``last``, otherwise sums of its last layer."""
        for layer in chain.layers[:-1]:
            a = self.activate(self.sums(a, layer), layer)
        a = self.sums(a, chain.layers[-1])
        return self.activate(a, chain.layers[-1]) if last else a

    def count(self, sums: str, thresholds: Sequence[npt.NDArray[np.int64]]) -> str:
        """How many thresholds each sum strictly exceeds: a binary search, bit by bit."""
        bits = max(t.size for t in thresholds).bit_length()
        padded = [np.append(t, np.full((1 << bits) - 1 - t.size, np.inf)) for t in thresholds]
        table = self.of_level(padded)
        count = ""
        for bit in reversed(range(bits)):
            place = self.constant((1 << bit) - 1, np.int32)
            at = self.add("Add", count, place) if count else place
            exceeded = self.add("Greater", sums, self.add("Gather", table, at))
            step = self.add(
                "Mul", self.add("Cast", exceeded, to=TensorProto.INT32), self.constant(1 << bit, np.int32)
            )
            count = self.add("Add", count, step) if count else step
        return self.add("Cast", count, to=TensorProto.UINT8)

    def tables(self, scales: str, means: str, number: int, group: Group, shape: _Shape) -> bytes:
        """The file that ends in table indexes and means of a group, from sums ``(..., channels)`` of both."""
        own = self.part(scales, -1, group.scale, group.scale + group.channels)
        index = self.count(own, [level.thresholds[number].values for level in self.levels])
        outputs = {"indexes": (index, (*shape, group.channels), TensorProto.UINT8)}
        if group.mean is not None:
            own = self.part(means, -1, group.mean, group.mean + group.channels)
            own = self.clamp(self.halve(own, group.mean_shift))
            outputs["means"] = (own, (*shape, group.channels), TensorProto.DOUBLE)
        return self.model(outputs)


def _taps(side: int, up: int, phase: int) -> list[tuple[int, int]]:
    """Rows (or columns) of a kernel that add to one phase of the result, and which position of the input each sees."""
    reach = side // 2
    if up == 1:
        return [(i, i - reach) for i in range(side)]
    return [(i, (phase + reach - i) // up) for i in range(side) if (phase + reach - i) % up == 0]


def taps_of(layer: IntegerLayer) -> list[tuple[int, int]]:
    """Row and column of each tap of a spatial layer that is not zero; one of zeros if there is no other."""
    used = np.argwhere(layer.weight.any(axis=(0, 1))).tolist()
    return [(row, column) for row, column in used or [[0, 0]]]


def entropy_graphs(entropy: ExactEntropy) -> dict[str, bytes]:
    """ONNX files of everything between symbols of z and the tables of y, by name.

    Without contexts there is one:

    - ``entropy``: z ``(C_z, h, w)`` int16 to ``indexes`` uint8 and ``means`` float64, ``(H, W, C)``. Means are integers
      in units of 2^-8, and left out if they are all zero.

    With contexts:

    - ``hyper``: z to ``side`` ``(H, W, S)``;
    - ``group_k``, for each group: ``side`` and, if it sees earlier groups, their y, ``seen`` ``(H, W, ...)``, to
      ``start`` ``(H W, F)``;
    - ``pass_k``: some rows of ``start`` and, if there is a spatial context, the y around each position, ``window``
      ``(P, taps * C)``, and ``known``, 1 if that counts and 0 if not, to ``indexes`` and ``means`` ``(P, C)``.

    Where rates differ, a graph also takes ``knot``, the number of the table set.
    """
    if not entropy.groups:
        return {}
    direct = entropy.groups[0].parameters is None
    graph = _Graph(entropy.levels)
    kind, size = TensorProto.INT16, (entropy.z_channels, "h", "w")
    z = graph.add("Cast", graph.input("z", size, kind), to=TensorProto.DOUBLE)
    z = graph.add("Transpose", z, perm=[1, 2, 0])
    z = graph.add("Mul", z, graph.of_level([level.z_step for level in entropy.levels]))
    z = graph.clamp(graph.add("Add", z, graph.constant(entropy.medians)))
    found = [graph.chain(z, chain, last=not direct) for chain in entropy.hyper]
    if direct:
        return {"entropy": graph.tables(found[0], found[-1], 0, entropy.groups[0], ("H", "W"))}
    outputs = {"side": (found[0], ("H", "W", entropy.hyper[0].outputs), TensorProto.DOUBLE)}
    files = {"hyper": graph.model(outputs)}
    for number, group in enumerate(entropy.groups):
        files |= _contexts(entropy, number, group)
    return files


def _contexts(entropy: ExactEntropy, number: int, group: Group) -> dict[str, bytes]:
    """``group_k`` and ``pass_k``."""
    if group.parameters is None:
        raise ModelError("entropy model: contexts need parameter networks")
    layers, side = group.parameters.layers, entropy.hyper[0].outputs
    sizes = {
        "side": side,
        "channel": 0 if group.channel is None else group.channel.outputs,
        "spatial": 0 if group.spatial is None else group.spatial.channels,
    }
    # The first of the parameters' layers is a sum over its parts, which are known at different times.
    ends = np.cumsum([sizes[part] for part in group.parts])
    first = np.split(layers[0].weight[:, :, 0, 0].T, ends[:-1])
    matrices = dict(zip(group.parts, first, strict=True))

    graph = _Graph(entropy.levels)
    start = graph.add("MatMul", graph.input("side", ("H", "W", side)), graph.constant(matrices["side"]))
    start = graph.add("Add", start, graph.constant(layers[0].bias))
    if group.channel is not None:
        channel = graph.chain(graph.input("seen", ("H", "W", group.channel.inputs)), group.channel, last=True)
        start = graph.add("Add", start, graph.add("MatMul", channel, graph.constant(matrices["channel"])))
    width = len(layers[0].bias)
    outputs = {"start": (graph.reshape(start, [-1, width]), ("N", width), TensorProto.DOUBLE)}
    files = {f"group_{number}": graph.model(outputs)}

    graph = _Graph(entropy.levels)
    sums = graph.input("start", ("P", width))
    if group.spatial is not None:
        taps = taps_of(group.spatial)
        weight = np.concatenate([group.spatial.weight[:, :, row, column] for row, column in taps], axis=1)
        biases = [
            group.spatial.bias if level.context is None else group.spatial.bias + level.context
            for level in entropy.levels
        ]
        seen = graph.input("window", ("P", weight.shape[1]))
        context = graph.add("MatMul", seen, graph.constant(weight.T))
        context = graph.activate(graph.add("Add", context, graph.of_level(biases)), group.spatial)
        context = graph.add("Mul", context, graph.input("known", ()))
        sums = graph.add("Add", graph.add("MatMul", context, graph.constant(matrices["spatial"])), sums)
    for before, layer in pairwise(layers):
        a = graph.activate(sums, before)
        product = graph.add("MatMul", a, graph.constant(layer.weight[:, :, 0, 0].T))
        sums = graph.add("Add", product, graph.constant(layer.bias))
    return files | {f"pass_{number}": graph.tables(sums, sums, number, group, ("P",))}
