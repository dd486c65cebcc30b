"""Networks in integers of 16 bits, as data: what ``docs/pixels.md`` says a stage consists of, declared once.

:class:`Network` holds them, checks that they may be run, and runs them natively.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from latens import _native
from latens.errors import ModelError

__all__ = [
    "INT16",
    "Block",
    "Depthwise",
    "Factor",
    "Input",
    "Network",
    "Pixels",
    "Product",
    "Scale",
    "Shuffle",
    "Stage",
    "Unshuffle",
]

Int16 = npt.NDArray[np.int16]
Int32 = npt.NDArray[np.int32]
Uint8 = npt.NDArray[np.uint8]
Arrays = dict[str, npt.NDArray[Any]]

INT16 = (-32768, 32767)
_STAGES_MAX = 256


@dataclass(frozen=True)
class Stage:
    """One step of a network. Its numbers are arrays or whole numbers; a block has stages of its own."""

    kind: ClassVar[str]
    sums: ClassVar[bool] = True
    """Whether it multiplies and adds."""

    def native(self) -> tuple[str, dict[str, Any]]:
        """As the native engine takes it."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return self.kind, {
            name: v.native()[1]
            if isinstance(v, Stage)
            else np.ascontiguousarray(v)
            if isinstance(v, np.ndarray)
            else v
            for name, v in values.items()
        }


@dataclass(frozen=True)
class Product(Stage):
    """A convolution of 1x1 or 3x3 positions, limited, and maybe a gate.

    Attributes:
        weight: ``(out, k, k, in)`` int16.
        bias: ``(out,)`` int32.
        shift: ``(out,)`` uint8, bits dropped from each sum.
        low, high: limits of the results, before the gate.
        gate: ``x * sigmoid(x)`` for x in units of ``2^-gate``; 0 for none.
    """

    kind = "product"
    weight: Int16
    bias: Int32
    shift: Uint8
    low: int = INT16[0]
    high: int = INT16[1]
    gate: int = 0


@dataclass(frozen=True)
class Depthwise(Stage):
    """A convolution of 3x3 positions for each channel alone: ``weight`` ``(C, 3, 3)`` int16, and as a product."""

    kind = "depthwise"
    weight: Int16
    bias: Int32
    shift: Uint8


@dataclass(frozen=True)
class Block(Stage):
    """The integers of a :class:`latens.layers.DepthConvBlock`: two branches that are added to what enters them."""

    kind = "block"
    pw_in: Product
    dw: Depthwise
    pw_out: Product
    ffn_in: Product
    ffn_out: Product


@dataclass(frozen=True)
class Shuffle(Stage):
    """``r * r`` channels become a square of positions."""

    kind = "shuffle"
    sums = False
    r: int


@dataclass(frozen=True)
class Unshuffle(Stage):
    """A square of ``r * r`` positions becomes channels."""

    kind = "unshuffle"
    sums = False
    r: int


@dataclass(frozen=True)
class Scale(Stage):
    """Each channel times a factor that is given along with the input, the one of number ``slot``."""

    kind = "scale"
    sums = False
    channels: int
    slot: int = 0


@dataclass(frozen=True)
class Pixels(Stage):
    """The last product, to samples of squares of 8x8 pixels: ``weight`` ``(192, in)`` int16, one ``shift``."""

    kind = "pixels"
    weight: Int16
    bias: Int32
    shift: int


@dataclass(frozen=True)
class Input(Stage):
    """Samples of 8x8 pixels become the 192 channels that analysis begins with."""

    kind = "input"
    sums = False


_KINDS: dict[str, type[Stage]] = {
    stage.kind: stage for stage in (Product, Depthwise, Block, Shuffle, Unshuffle, Scale, Pixels, Input)
}
_ORDER = tuple(_KINDS)
_PARTS: dict[str, type[Stage]] = {
    "pw_in": Product,
    "dw": Depthwise,
    "pw_out": Product,
    "ffn_in": Product,
    "ffn_out": Product,
}
_DTYPES: dict[str, tuple[type[np.generic], int]] = {
    "bias": (np.int32, 1), "shift": (np.uint8, 1),
}  # fmt: skip
_WEIGHT_DIMENSIONS = {"product": 4, "depthwise": 3, "pixels": 2}


class Factor(NamedTuple):
    """A factor for each channel, ``m * 2^-s``: ``(C,)`` int32 each."""

    m: Int32
    s: Int32


class Network:
    """Stages one after the other, proven to stay within 32 bits.

    Args:
        stages: first to last.
        limits: the smallest and the largest value that the input may have; what is beyond counts as that.
        name: for error messages.

    Raises:
        ModelError: stages that do not fit together, or whose sums could leave 32 bits.
    """

    def __init__(
        self, stages: Sequence[Stage], limits: tuple[int, int] = INT16, name: str = "network"
    ) -> None:
        self.stages, self.limits = tuple(stages), limits
        try:
            self._native = _native.Network([stage.native() for stage in stages], limits)
        except (ModelError, ValueError, TypeError) as error:
            raise ModelError(f"{name}: {error}") from error

    def __reduce__(self) -> tuple[Any, ...]:
        return Network, (self.stages, self.limits)

    def run(
        self,
        x: npt.NDArray[Any],
        factors: Sequence[Factor] = (),
        samples: tuple[int, int] | None = None,
    ) -> npt.NDArray[Any]:
        """The result for one input.

        Args:
            x: ``(H, W, C)`` int16, or samples ``(H, W, 1 or 3)`` uint8 or uint16.
            factors: one for each scale.
            samples: bits of samples that are given or wanted, and for samples that are wanted their channels.

        Returns:
            ``(H', W', C')`` int16, or samples.
        """
        return self._native.run(x, list(factors), samples)

    def stream(
        self, width: int, factors: Sequence[Factor] = (), samples: tuple[int, int] | None = None
    ) -> _native.Stream:
        """The same for inputs that come and go in pieces, rows ``(n, width, C)`` from top to bottom."""
        return self._native.stream(width, list(factors), samples)

    def two_steps(self, mean_0: Network, context: Network) -> _native.TwoSteps:
        """This network's features, and what the two others make of them and of y: see the default model."""
        return _native.TwoSteps(self._native, mean_0._native, context._native)

    # -- storage -------------------------------------------------------------------------------------------

    @property
    def inputs(self) -> int:
        """Channels of the input."""
        return int(self._native.inputs)

    @property
    def outputs(self) -> int:
        """Channels of the result."""
        return int(self._native.outputs)

    @cached_property
    def scaling(self) -> tuple[int, int]:
        """Positions of the result per position of the input, in each direction, as a fraction in lowest terms."""
        up = down = 1
        for stage in self.stages:
            up *= stage.r if isinstance(stage, Shuffle) else 8 if isinstance(stage, Pixels) else 1
            down *= stage.r if isinstance(stage, Unshuffle) else 8 if isinstance(stage, Input) else 1
        both = math.gcd(up, down)
        return up // both, down // both

    @cached_property
    def reach(self) -> int:
        """How many positions of the input on each side, at most, what comes of one depends on."""
        found, up, down = 0.0, 1, 1  # exact: all steps are powers of two
        for stage in self.stages:
            wide = isinstance(stage, Block | Depthwise) or (
                isinstance(stage, Product) and stage.weight.shape[1] == 3
            )
            found += down / up if wide else 0
            up *= stage.r if isinstance(stage, Shuffle) else 8 if isinstance(stage, Pixels) else 1
            down *= stage.r if isinstance(stage, Unshuffle) else 8 if isinstance(stage, Input) else 1
        return math.ceil(found)

    def arrays(self, prefix: str) -> Arrays:
        """Everything as integer arrays, to be stored."""
        found: Arrays = {f"{prefix}.limits": np.array(self.limits, np.int32)}
        for number, stage in enumerate(self.stages):
            found |= dict(_stored(stage, f"{prefix}.{number}"))
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> Network:
        """The inverse of :meth:`arrays`; each array that is used is checked, for they may be hostile.

        Raises:
            ModelError: something is missing, of the wrong type, or makes no sense.
        """
        low, high = _take(arrays, f"{prefix}.limits", np.int32, 1, 2).tolist()
        stages: list[Stage] = []
        while f"{prefix}.{len(stages)}.form" in arrays:
            if len(stages) == _STAGES_MAX:
                raise ModelError(f"{prefix}: more than {_STAGES_MAX} stages")
            stages.append(_restored(arrays, f"{prefix}.{len(stages)}"))
        return cls(stages, (low, high), prefix)


def _stored(stage: Stage, prefix: str) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """An array for each array, and one ``form`` with the kind and all whole numbers."""
    form = [_ORDER.index(stage.kind)]
    for field in fields(stage):
        value = getattr(stage, field.name)
        if isinstance(value, Stage):
            yield from _stored(value, f"{prefix}.{field.name}")
        elif isinstance(value, np.ndarray):
            yield f"{prefix}.{field.name}", value
        else:
            form.append(int(value))
    yield f"{prefix}.form", np.array(form, np.int32)


def _restored(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> Stage:
    form = _take(arrays, f"{prefix}.form", np.int32, 1).tolist()
    if not 0 <= form[0] < len(_ORDER):
        raise ModelError(f"{prefix}: stage kind {form[0]} is not known to this release")
    kind = _KINDS[_ORDER[form[0]]]
    numbers = iter(form[1:])
    values: dict[str, Any] = {}
    for field in fields(kind):
        if kind is Block:
            part = _restored(arrays, f"{prefix}.{field.name}")
            if type(part) is not _PARTS[field.name]:
                raise ModelError(f"{prefix}.{field.name}: expected a {_PARTS[field.name].kind}")
            values[field.name] = part
        elif field.name == "weight":
            ndim = _WEIGHT_DIMENSIONS[kind.kind]
            values["weight"] = _take(arrays, f"{prefix}.weight", np.int16, ndim)
        elif field.name in _DTYPES and not (kind is Pixels and field.name == "shift"):
            values[field.name] = _take(arrays, f"{prefix}.{field.name}", *_DTYPES[field.name])
        else:
            number = next(numbers, None)
            if number is None:
                raise ModelError(f"{prefix}.form: {field.name} is missing")
            values[field.name] = number
    if next(numbers, None) is not None:
        raise ModelError(f"{prefix}.form: more numbers than a {kind.kind} has")
    return kind(**values)


def _take(
    arrays: Mapping[str, npt.NDArray[Any]],
    name: str,
    dtype: type[np.generic],
    ndim: int,
    size: int | None = None,
) -> npt.NDArray[Any]:
    array = arrays.get(name)
    if array is None:
        raise ModelError(f"{name} is missing")
    if (
        array.dtype != dtype
        or array.ndim != ndim
        or not array.size
        or (size is not None and array.size != size)
    ):
        raise ModelError(
            f"{name} is {array.dtype} {array.shape}, expected {np.dtype(dtype)} of {ndim} dimensions"
        )
    return array
