"""Codes images with an exported model: ONNX Runtime for the networks, the native coder for the symbols, no PyTorch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from latens import format as ltn
from latens.entropy_coding import CdfTables, LaneDecoder, LaneEncoder
from latens.errors import LatensError, LimitError, ModelError, ShapeError
from latens.io import printable

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["FORMAT", "EntropyRunner", "Latents", "Pass", "Runner"]

FORMAT = "latens onnx 1"
_LIMIT = 1 << 20  # of values in the integer networks
_INT16 = 32767
_LANES = 8
_ORDERS = ("all", "checkerboard", "raster")
_LEVELS = 65535  # largest quality in a header
_MAX_SIDE = 4096  # pixels; as for the tiles of files

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Int16 = npt.NDArray[np.int16]
Uint8 = npt.NDArray[np.uint8]


class Pass(NamedTuple):
    """Symbols that are coded in one go: those of one group at some positions.

    Attributes:
        channels: of the group, within y.
        positions: ``(P,)`` int64, row times width plus column; None for all.
        indexes: ``(P, C)`` uint8, table of each symbol.
        means: ``(P, C)`` float64 integers in units of 2^-8.
    """

    channels: slice
    positions: Int64 | None
    indexes: Uint8
    means: Float64


class Latents(NamedTuple):
    """What a stream stands for.

    Attributes:
        z, y: symbols ``(C, h, w)`` int16.
        indexes: ``(C_y, H, W)`` uint8, table of each symbol of y.
        values: y as both sides have it, ``(1, C_y, H, W)`` float32; z for a model without y.
    """

    z: Int16
    y: Int16
    indexes: Uint8
    values: Float32

    @property
    def checksum(self) -> int:
        """The checksum of a tile with these symbols in a ``.ltn`` file."""
        return ltn.symbol_checksum(self.z.data, self.y.data)


class _Group(NamedTuple):
    channels: slice
    order: str
    odd_first: bool
    earlier: tuple[int, ...]
    taps: Int64 | None  # rows and columns ``(2, n)`` in the kernel of the spatial context
    reach: int


class _Folder:
    """The files of an exported model, sessions started when they are first used."""

    def __init__(self, folder: str | os.PathLike[str], threads: int | None) -> None:
        self.path, self.threads = Path(folder), threads
        self.sessions: dict[str, onnxruntime.InferenceSession] = {}
        try:
            self.description: dict[str, Any] = json.loads((self.path / "model.json").read_bytes())
            if self.description["format"] != FORMAT:
                raise ModelError(f"{self}: its format is not {FORMAT!r}; export the model again")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise self.damaged("model.json", error) from error

    def __str__(self) -> str:
        return printable(self.path)

    def damaged(self, name: str, error: Exception) -> ModelError:
        if isinstance(error, ModelError):
            return error
        return ModelError(f"{self}: {name} cannot be used ({str(error)[:200]}); is it an exported model?")

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(self.path / "tables.safetensors")
        except (OSError, ValueError, SafetensorError) as error:
            raise self.damaged("tables.safetensors", error) from error

    def run(self, name: str, **inputs: npt.NDArray[Any]) -> dict[str, Any]:
        """Outputs of a graph by name. Inputs that it does not ask for are left out."""
        session = self.sessions.get(name) or self._start(name)
        self.sessions[name] = session
        names = [node.name for node in session.get_outputs()]
        try:
            asked = {node.name: inputs[node.name] for node in session.get_inputs()}
            return dict(zip(names, session.run(names, asked), strict=True))
        except Exception as error:  # what it raises has no common base class
            raise self.damaged(f"{name}.onnx", error) from error

    def _start(self, name: str) -> onnxruntime.InferenceSession:
        try:
            import onnxruntime
        except ImportError as error:
            raise ModelError("exported models need onnxruntime: pip install 'latens[export]'") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads or 0
        options.log_severity_level = 3
        try:
            return onnxruntime.InferenceSession(
                self.path / f"{name}.onnx", options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # what it raises has no common base class
            raise self.damaged(f"{name}.onnx", error) from error


class EntropyRunner:
    """The entropy model of an exported folder: :class:`latens.latent_codecs.ExactEntropy` without PyTorch.

    Args:
        folder: what :func:`latens.export.export` wrote.
        threads: of ONNX Runtime; all processors by default. They never change a symbol.

    Raises:
        ModelError: the folder does not hold an exported model.
        TableError: its tables are not valid.
    """

    def __init__(self, folder: str | os.PathLike[str], threads: int | None = None) -> None:
        self._folder = _Folder(folder, threads)
        arrays = self._folder.arrays()
        try:
            self._read(self._folder.description, arrays)
        except LatensError:
            raise
        except (KeyError, IndexError, ValueError, TypeError, OverflowError) as error:
            raise self._folder.damaged("model.json or tables.safetensors", error) from error

    def _read(self, description: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> None:
        self.entropy_id, self.skip = str(description["entropy_id"]), _whole(description["skip"], 0, 255)
        self.upscale, self._unit = (
            _whole(description["upscale"], 1, 64),
            1 << _whole(description["z_bits"], 0, 16),
        )
        self._contexts = bool(description["contexts"])
        self._medians = arrays["medians"].astype(np.int64)
        channels = len(self._medians)
        self.knots = len(arrays["z.sizes"]) // channels
        z = _rows(arrays, "z")
        self._z = [_tables(arrays, "z", z, k * channels, (k + 1) * channels) for k in range(self.knots)]
        self._y = None
        if description["groups"]:
            self._y = _tables(arrays, "y", _rows(arrays, "y"), 0, len(arrays["y.sizes"]))
        count = sum(name.endswith(".steps") for name in arrays)
        self._steps = [arrays[f"levels.{i}.steps"].tolist() for i in range(count)]
        self._offsets = [arrays.get(f"levels.{i}.offsets") for i in range(count)]
        self._groups: list[_Group] = []
        start = 0
        for number, group in enumerate(description["groups"]):
            end = start + _whole(group["channels"], 1, 4096)
            reach = _whole(group["reach"], 0, 4)
            taps = [[_whole(place, 0, 2 * reach) for place in tap] for tap in group["taps"] or ()]
            earlier = tuple(_whole(e, 0, number - 1) for e in group["earlier"])
            order = _ORDERS[_ORDERS.index(group["order"])]
            where = np.array(taps, np.int64).reshape(-1, 2).T if order != "all" else None
            self._groups.append(
                _Group(slice(start, end), order, bool(group["odd_first"]), earlier, where, reach)
            )
            start = end
        self.y_channels, self.z_channels = start, channels

    def _level(self, knot: int) -> int:
        return knot if len(self._steps) > 1 else 0

    # -- coding --------------------------------------------------------------------------------------------

    def quantise_z(self, z: Float32, knot: int) -> Int16:
        """Symbols ``(C_z, h, w)`` of z ``(1, C_z, h, w)`` float32."""
        medians = (self._medians / self._unit).astype(np.float32)[:, None, None]
        symbols = np.rint((z[0] - medians) / (self._steps[self._level(knot)][0] / self._unit))
        return np.ascontiguousarray(symbols.clip(-_INT16, _INT16).astype(np.int16))

    def quantiser(self, y: Float32, knot: int) -> Callable[[Pass], Int16]:
        """What :meth:`encode` takes: rounds y ``(1, C_y, H, W)`` around its means."""
        rows = y[0].reshape(y.shape[1], -1).T
        step = self._steps[self._level(knot)][1] / (1 << 16)

        def quantise(part: Pass) -> Int16:
            own = rows[:, part.channels]
            target = own if part.positions is None else own[part.positions]
            symbols = np.rint((target - part.means / 256.0) / step).clip(-_INT16, _INT16)
            return np.where(part.indexes >= self.skip, symbols, 0.0).astype(np.int16)

        return quantise

    def encode(
        self, z: Int16, quantise: Callable[[Pass], Int16], knot: int = 0, lanes: int = _LANES
    ) -> tuple[bytes, Latents]:
        """A stream, and what its decoder will have.

        Args:
            z: ``(C_z, h, w)`` int16.
            quantise: symbols ``(P, C)`` int16 of a pass, zero wherever the index is below ``skip``.
            knot: table set of z.
            lanes: 1, 2, 4 or 8.

        Raises:
            CoderError, ShapeError: symbols that cannot be coded.
            ModelError: there is no such table set.
        """
        encoder = LaneEncoder()
        encoder.push(z, self._z_indexes(z.shape, knot), self._z[knot])

        def code(part: Pass, tables: CdfTables) -> Int16:
            symbols = np.ascontiguousarray(quantise(part))
            encoder.push(symbols, part.indexes, tables, self.skip)
            return symbols

        latents = self._code(z, knot, code)
        return encoder.finish(lanes), latents

    def decode(self, stream: bytes, z_shape: tuple[int, int], knot: int = 0, lanes: int = _LANES) -> Latents:
        """What a stream stands for.

        Args:
            stream: of one tile.
            z_shape: height and width of z.
            knot: table set of z.
            lanes: that it was written with.

        Raises:
            CoderError: the stream is damaged.
            ModelError, ShapeError: there is no such table set or shape.
        """
        decoder = LaneDecoder(stream, lanes)
        z = decoder.decode(self._z_indexes((self.z_channels, *z_shape), knot), self._z[knot])

        def code(part: Pass, tables: CdfTables) -> Int16:
            return decoder.decode(part.indexes, tables, self.skip)

        latents = self._code(z, knot, code)
        decoder.finish()
        return latents

    def _z_indexes(self, shape: tuple[int, ...], knot: int) -> Int16:
        if len(shape) != 3 or shape[0] != self.z_channels or min(shape) < 1:
            raise ShapeError(f"expected z ({self.z_channels}, height, width), but got {shape}")
        if not 0 <= knot < self.knots:
            raise ModelError(f"expected a table set from 0 to {self.knots - 1}, got {knot}")
        channels = np.arange(self.z_channels, dtype=np.int16)[:, None, None]
        return np.ascontiguousarray(np.broadcast_to(channels, shape))

    # -- the traversal -------------------------------------------------------------------------------------

    def _code(self, z: Int16, knot: int, code: Callable[[Pass, CdfTables], Int16]) -> Latents:
        z_step, step = self._steps[self._level(knot)]
        if self._y is None:
            empty = np.zeros((0, *z.shape[1:]), np.int16)
            values = (z.astype(np.float64) * z_step + self._medians[:, None, None]).clip(-_LIMIT, _LIMIT)
            return Latents(z, empty, empty.astype(np.uint8), (values / self._unit).astype(np.float32)[None])
        height, width = (self.upscale * size for size in z.shape[1:])
        shape = (height * width, self.y_channels)
        symbols, indexes, values = (np.zeros(shape, kind) for kind in (np.int16, np.uint8, np.float64))
        for part in self._passes(z, knot, values, (height, width)):
            symbol = code(part, self._y)
            value = symbol * 256.0
            offsets = self._offsets[self._level(knot)]
            if offsets is not None:
                value += np.sign(value) * offsets[part.indexes]
            value = np.floor((value * step + 2.0**15) / 2.0**16)
            place = (slice(None) if part.positions is None else part.positions, part.channels)
            # The passes to come see these values.
            values[place] = (value + part.means).clip(-_LIMIT, _LIMIT)
            symbols[place], indexes[place] = symbol, part.indexes
        y, index, latent = (
            np.ascontiguousarray(a.T).reshape(-1, height, width) for a in (symbols, indexes, values)
        )
        return Latents(z, y, index, (latent / 256.0).astype(np.float32)[None])

    def _passes(self, z: Int16, knot: int, values: Float64, size: tuple[int, int]) -> Iterator[Pass]:
        """The passes in coding order; each sees what has been put into ``values`` ``(H W, C_y)`` by then."""
        level = np.array(self._level(knot), np.int64)
        run = self._folder.run
        if not self._contexts:
            found = run("entropy", z=z, knot=level)
            yield _pass(self._groups[0], None, size[0] * size[1], found)
            return
        side = run("hyper", z=z, knot=level)["side"]
        for number, group in enumerate(self._groups):
            seen = [values[:, self._groups[e].channels] for e in group.earlier]
            before = np.concatenate([values[:, :0], *seen], axis=1).reshape(*size, -1)
            start = run(f"group_{number}", side=side, seen=before)["start"]
            for positions, known in _positions(group, *size):
                rows = start if positions is None else start[positions]
                window = _window(values[:, group.channels], group, positions, size)
                found = run(
                    f"pass_{number}", start=rows, window=window, known=np.array(known, np.float64), knot=level
                )
                yield _pass(group, positions, len(rows), found)


def _pass(group: _Group, positions: Int64 | None, count: int, found: dict[str, npt.NDArray[Any]]) -> Pass:
    shape = (count, group.channels.stop - group.channels.start)
    if any(values.size != math.prod(shape) for values in found.values()):
        raise ModelError(f"exported model: tables for {shape} symbols were expected; its files do not fit")
    indexes, means = found["indexes"].reshape(shape), np.zeros(shape)
    return Pass(
        group.channels, positions, indexes, found["means"].reshape(shape) if "means" in found else means
    )


def _positions(group: _Group, height: int, width: int) -> Iterator[tuple[Int64 | None, bool]]:
    """Passes over the positions of a group, and whether each has spatial context."""
    rows, columns = (a.ravel() for a in np.indices((height, width)))
    if group.order == "checkerboard":
        second = (rows + columns + group.odd_first) % 2
        for number in range(2):
            # A single position has no other half.
            if (second == number).any():
                yield np.flatnonzero(second == number), number == 1
    elif group.order == "raster":
        times = columns + (group.reach + 1) * rows
        for time in np.unique(times):
            yield np.flatnonzero(times == time), True
    else:
        yield None, False


def _window(values: Float64, group: _Group, positions: Int64 | None, size: tuple[int, int]) -> Float64:
    """y around each position, ``(P, taps * C)``; zero outside."""
    if group.taps is None or positions is None:
        return values[:0]
    places = np.stack(np.divmod(positions, size[1]))[:, :, None] + group.taps[:, None] - group.reach
    inside: npt.NDArray[np.bool_] = np.all((places >= 0) & (places < np.array(size)[:, None, None]), axis=0)
    around = values[np.where(inside, places[0] * size[1] + places[1], 0)] * inside[..., None]
    return np.ascontiguousarray(around.reshape(len(positions), -1))


def _whole(value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{value!r:.40} in place of a whole number from {low} to {high}")
    return value


def _rows(arrays: dict[str, npt.NDArray[Any]], name: str) -> list[npt.NDArray[Any]]:
    """The tables of z or y, which lie one after the other."""
    sizes = arrays[f"{name}.sizes"].astype(np.int64)
    if sizes.min() < 1 or sizes.max() > _INT16 * 2 + 3 or sizes.sum() != arrays[f"{name}.entries"].size:
        raise ModelError(f"CDF tables of {name}: the sizes do not fit the entries")
    return np.split(arrays[f"{name}.entries"], np.cumsum(sizes)[:-1])


def _tables(
    arrays: dict[str, npt.NDArray[Any]], name: str, rows: Sequence[npt.NDArray[Any]], start: int, stop: int
) -> CdfTables:
    rows = rows[start:stop]
    padded = np.zeros((len(rows), max(row.size for row in rows)), np.int32)
    for target, row in zip(padded, rows, strict=True):
        target[: row.size] = row
    return CdfTables(padded, arrays[f"{name}.sizes"][start:stop], arrays[f"{name}.offsets"][start:stop])


# -- images ------------------------------------------------------------------------------------------------------


class Runner:
    """Codes images with an exported model.

    A stream is that of a tile in a ``.ltn`` file (``docs/entropy.md``): what this class writes, PyTorch reads, and the
    reverse. Graphs are programs: run folders that you trust.

    Args:
        folder: what :func:`latens.export.export` wrote.
        threads: of ONNX Runtime; all processors by default. They never change what a stream stands for.

    Raises:
        ModelError: the folder does not hold an exported model.
        TableError: its tables are not valid.
    """

    def __init__(self, folder: str | os.PathLike[str], threads: int | None = None) -> None:
        self.entropy = EntropyRunner(folder, threads)
        self._folder = self.entropy._folder
        self._continuous = bool(self._folder.description.get("continuous"))
        self.hyper = 16 * self.entropy.upscale

    def compress(self, x: npt.NDArray[np.floating], quality: float = 50.0, lanes: int = _LANES) -> bytes:
        """The stream of an image.

        Args:
            x: ``(3, H, W)``, values from 0 to 1, sides up to 4,096. The border is repeated up to multiples of 64.
            quality: 0 to 100, of which a model with a few rates takes the nearest; a model of one rate ignores it.
            lanes: 1, 2, 4 or 8: more are faster to decode, and cost 5 bytes each.

        Raises:
            ShapeError: not such an image.
            ModelError: a quality that does not exist, or weights that give values that are not finite.
            LimitError: the image is too large.
        """
        level, knot = self._rate(quality)
        x = np.asarray(x)
        if x.ndim != 3 or x.shape[0] != 3 or x.dtype.kind != "f" or not np.isfinite(x).all():
            raise ShapeError(f"expected floats (3, height, width) from 0 to 1, but got {x.dtype} {x.shape}")
        height, width = self._coded(x.shape[1:])
        missing = ((0, 0), (0, height - x.shape[1]), (0, width - x.shape[2]))
        padded = np.pad(x.astype(np.float32), missing, mode="edge")[None]
        found = self._folder.run("encoder", x=padded, quality=level)
        if not all(np.isfinite(value).all() for value in found.values()):
            raise ModelError(f"{self._folder}: the weights give values that are not finite")
        y, entropy = found["y"], self.entropy
        z = entropy.quantise_z(found.get("z", y), knot)
        quantise = self._refining(y, z, level) if self._continuous else entropy.quantiser(y, knot)
        return entropy.encode(z, quantise, knot, lanes)[0]

    def decompress(
        self, stream: bytes, shape: tuple[int, int], quality: float = 50.0, lanes: int = _LANES
    ) -> Float32:
        """The image of a stream: ``(3, H, W)`` float32 from 0 to 1.

        Args:
            stream: of one tile.
            shape: height and width of the image.
            quality, lanes: as they were for :meth:`compress`.

        Raises:
            CoderError: the stream is damaged, or of another model, shape, quality or number of lanes.
            ShapeError, LimitError: not a shape that an image has.
            ModelError: a quality that does not exist.
        """
        level, _ = self._rate(quality)
        latents = self.latents(stream, shape, quality, lanes)
        y_hat = latents.values
        if self._continuous:
            features, mean, first = self._first(latents.z, level, y_hat.shape)
            y_first = ((y_hat + mean) * first).astype(np.float32)
            second = self._folder.run("context", features=features, y_first=y_first, quality=level)["mean"]
            y_hat = np.where(first, y_first, y_hat + second)
        # As for files: what was repeated to fill the grid is left out.
        y_hat = y_hat[:, :, : -(-shape[0] // 16), : -(-shape[1] // 16)]
        found = self._folder.run("synthesis", y_hat=y_hat, quality=level)["x_hat"]
        x_hat: Float32 = found[0, :, : shape[0], : shape[1]].clip(0.0, 1.0)
        return x_hat

    def latents(
        self, stream: bytes, shape: tuple[int, int], quality: float = 50.0, lanes: int = _LANES
    ) -> Latents:
        """The symbols of a stream; arguments and errors as for :meth:`decompress`."""
        _, knot = self._rate(quality)
        height, width = self._coded(shape)
        return self.entropy.decode(stream, (height // self.hyper, width // self.hyper), knot, lanes)

    def _rate(self, quality: float) -> tuple[Float32, int]:
        """The header's quality as networks take it, and the table set of z."""
        if not 0.0 <= quality <= 100.0:
            raise ModelError(f"quality must be 0 to 100, got {quality}")
        level, knots = round(quality / 100.0 * _LEVELS), self.entropy.knots
        return np.array([level / _LEVELS], np.float32), (2 * level * (knots - 1) + _LEVELS) // (2 * _LEVELS)

    @staticmethod
    def _coded(shape: Sequence[int]) -> tuple[int, int]:
        """Height and width up to multiples of 64."""
        if len(shape) != 2 or min(shape) < 1:
            raise ShapeError(f"expected height and width, but got {tuple(shape)}")
        if max(shape) > _MAX_SIDE:
            raise LimitError(f"{shape[0]}x{shape[1]} is above the limit of {_MAX_SIDE} pixels a side")
        width, height = ltn.coded_size(shape[1], shape[0])
        return height, width

    # -- the default model, which refines the mean of y after its tables are chosen --------------------------

    def _first(
        self, z: Int16, level: Float32, shape: tuple[int, ...]
    ) -> tuple[Float32, Float32, npt.NDArray[np.bool_]]:
        """Features of the means, the mean of what is coded first, and where that is ``(1, C, H, W)``."""
        found = self._folder.run("means", z=z[None].astype(np.float32), quality=level)
        channel, row, column = np.indices(shape[1:], sparse=True)
        first = ((row + column) % 2 == 0) == (channel < shape[1] // 2)
        return found["features"], found["mean"], first[None]

    def _refining(self, y: Float32, z: Int16, level: Float32) -> Callable[[Pass], Int16]:
        features, mean, first = self._first(z, level, y.shape)

        def quantise(part: Pass) -> Int16:
            coded = (part.indexes >= self.entropy.skip).T.reshape(y.shape)

            def symbols(mean: Float32) -> Float32:
                rounded: Float32 = np.rint(y - mean).clip(-_INT16, _INT16) * coded
                return rounded

            y_first = ((symbols(mean) + mean) * first).astype(np.float32)
            second = self._folder.run("context", features=features, y_first=y_first, quality=level)["mean"]
            if not math.isfinite(float(second.sum())):
                raise ModelError(f"{self._folder}: the weights give values that are not finite")
            found = np.where(first, symbols(mean), symbols(second))
            return np.ascontiguousarray(found.reshape(y.shape[1], -1).T.astype(np.int16))

        return quantise
