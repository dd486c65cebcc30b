"""The native coder, as the bindings expose it. Use :mod:`latens.entropy_coding`, which converts and checks."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

_Ints: TypeAlias = NDArray[np.uint8] | NDArray[np.int16] | NDArray[np.int32]

STREAM_ESCAPE_NIBBLES: int
LANE_ESCAPE_NIBBLES: int

class Tables:
    def __init__(
        self, cdfs: NDArray[np.int32], sizes: NDArray[np.int32], offsets: NDArray[np.int32]
    ) -> None: ...
    def __len__(self) -> int: ...

class Encoder:
    def __init__(self, escape_nibbles: int) -> None: ...
    def push(self, symbols: _Ints, indexes: _Ints, tables: Tables, skip_below: int) -> None: ...
    def finish_stream(self) -> bytes: ...
    def finish_lanes(self, lanes: int) -> bytes: ...
    def __len__(self) -> int: ...

class StreamDecoder:
    def __init__(self, data: NDArray[np.uint8]) -> None: ...
    def decode(self, indexes: _Ints, tables: Tables, out: NDArray[np.int32]) -> None: ...
    def finish(self) -> None: ...

class LaneDecoder:
    def __init__(self, data: NDArray[np.uint8], lanes: int) -> None: ...
    def decode(self, indexes: _Ints, tables: Tables, out: NDArray[np.int16], skip_below: int) -> None: ...
    def finish(self) -> None: ...

class Layers:
    def __init__(self, weights: list[NDArray[np.int16]], forms: NDArray[np.int64]) -> None: ...
    def sums(
        self,
        inputs: NDArray[np.int32],
        added: list[NDArray[np.int64]],
        out: NDArray[np.int64],
    ) -> None: ...
    def plane_sums(
        self, inputs: NDArray[np.int32], added: list[NDArray[np.int64]], out: NDArray[np.int64]
    ) -> None: ...
    def plane_activations(
        self, inputs: NDArray[np.int32], added: list[NDArray[np.int64]], out: NDArray[np.int32]
    ) -> None: ...

def count_exceeded(
    sums: NDArray[np.int64], first: int, thresholds: NDArray[np.int64], out: NDArray[np.uint8]
) -> None: ...

class Winograd:
    def __init__(self, weight: NDArray[np.float32], zero: NDArray[np.uint8], outputs: int) -> None: ...
    def scratch(self) -> int: ...
    def run(
        self,
        inputs: NDArray[np.float32],
        bias: NDArray[np.float32],
        out: NDArray[np.float32],
        scratch: NDArray[np.float32],
    ) -> None: ...

_Factors: TypeAlias = Sequence[tuple[NDArray[np.int32], NDArray[np.int32]]]

class Network:
    """Stages of docs/pixels.md, checked and packed.

    Each is a pair of kind and parameters: ``("product", {weight (out, k, k, in) int16, bias (out,) int32, shift
    (out,) uint8, low, high, gate})``, ``("depthwise", {weight (C, 3, 3), bias, shift})``, ``("block", {pw_in,
    dw, pw_out, ffn_in, ffn_out})`` with products (out, 1, 1, in), ``("shuffle", {r})``, ``("unshuffle", {r})``,
    ``("scale", {channels, slot})``, ``("pixels", {weight (192, in), bias, shift})``, ``("input", {})``. A shuffle
    that comes first has ``channels``, too. Values beyond ``limits``, of what comes in, count as these.

    Raises:
        ModelError: a network that docs/pixels.md does not allow; the message names the stage and part.
    """

    def __init__(self, stages: Sequence[tuple[str, Mapping[str, Any]]], limits: tuple[int, int]) -> None: ...
    @property
    def inputs(self) -> int:
        """Channels that come in (3 for samples)."""
    @property
    def outputs(self) -> int:
        """Channels that come out (3 for samples)."""
    @property
    def isa(self) -> str: ...
    def bounds(self) -> list[NDArray[np.int64]]:
        """Lowest and highest result of each channel, (C, 2) for each stage; of the sums, (192, 2), for pixels."""
    def run(
        self, x: NDArray[Any], factors: _Factors = (), samples: tuple[int, int] | None = None
    ) -> NDArray[Any]:
        """(H, W, C) int16, or samples of ``(depth, 1 or 3 channels)``: uint8 up to 8 bits, else uint16."""
    def stream(
        self, width: int, factors: _Factors = (), samples: tuple[int, int] | None = None
    ) -> Stream: ...

class Stream:
    """A network on its way down a picture; its memory does not grow with the height."""

    def push(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Takes any number of rows; gives those that no later ones can change."""
    def finish(self) -> NDArray[Any]:
        """The rest."""

class TwoSteps:
    """The two steps over y of the default model; factors are those of means and of the context."""

    def __init__(self, h_mean: Network, mean_0: Network, context: Network) -> None: ...
    def decode(
        self, factors: _Factors, z: NDArray[np.int16], symbols: NDArray[np.int16]
    ) -> NDArray[np.int32]:
        """y_hat (H, W, M) from z (h, w, C) and symbols (H, W, M)."""
    def encode(
        self,
        factors: _Factors,
        z: NDArray[np.int16],
        y: NDArray[np.int32],
        indexes: NDArray[np.uint8],
        skip: int,
    ) -> tuple[NDArray[np.int16], NDArray[np.int32]]:
        """Symbols for y (H, W, M) and y_hat; indexes below skip have none."""

def tame(y: NDArray[np.int32]) -> NDArray[np.int16]:
    """asinh(y) in units of 2^-11, for y (H, W, M) in units of 2^-8."""

def rescale(
    x: NDArray[np.int16] | NDArray[np.int32], m: NDArray[np.int32], s: NDArray[np.int32], low: int, high: int
) -> NDArray[np.int32]:
    """``clamp(round(x * m, s), low, high)`` for x (P, C) and m, 0 to 32767, and s (C,)."""

def rescale16(
    x: NDArray[np.int16] | NDArray[np.int32], m: NDArray[np.int32], s: NDArray[np.int32]
) -> NDArray[np.int16]:
    """The same, limited to 16 bits."""

def compensate(references: list[NDArray[np.uint16]], field: NDArray[np.int16]) -> NDArray[np.uint16]:
    """A picture (H, W, 3) from one or two of its size, by a field (H/8, W/8, 6)."""

def search_motion(
    picture: NDArray[np.uint16],
    references: list[NDArray[np.uint16]],
    price: int,
    visible_height: int,
    visible_width: int,
) -> NDArray[np.int16]:
    """A field (H/8, W/8, 6) for pictures (H, W, 3); the price of a bit in 1/128."""

def encode_field(field: NDArray[np.int16], references: int) -> bytes: ...
def decode_field(stream: bytes, rows: int, columns: int, references: int) -> NDArray[np.int16]: ...
def lossless_encode(
    samples: NDArray[np.uint8] | NDArray[np.uint16],
    tile: int,
    near: int,
    slack: int,
    effort: int,
    content: int,
    part: NDArray[np.uint8] | None,
    mask: NDArray[np.uint8] | None,
) -> list[bytes]:
    """The tiles of (H, W, C), row by row, ``tile`` pixels wide and high; content: 0 any, 1 photo, 2 drawn.

    part (H/64, W/64): which blocks are coded; mask (H, W): which pixels, 0 or 1; nothing for tiles without any.
    """

def lossless_decode(
    streams: Sequence[bytes | None], tile: int, out: NDArray[Any], mask: NDArray[np.uint8] | None
) -> list[str | None]:
    """Fills ``out`` (H, W, C); for each tile what is wrong with it. Tiles without a stream are left alone.

    mask (H, W): filled with which pixels there are; without it, tiles must be whole.
    """

def lossless_measure(
    samples: NDArray[np.uint8] | NDArray[np.uint16],
    tile: int,
    slack: int,
    part: NDArray[np.uint8],
    out: NDArray[np.float32],
) -> None:
    """Bits that each block of a part (H/64, W/64) would take, about."""

def set_threads(count: int) -> None: ...
def threads() -> int: ...
def processor_quota(groups: str, mount: str) -> float: ...
def quantize(
    pmf: NDArray[np.float32], lengths: NDArray[np.int32], precision: int, cdfs: NDArray[np.int32]
) -> None: ...
