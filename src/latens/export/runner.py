"""Codes images with an exported model: ONNX Runtime for its float networks, the runtime for its symbols, no PyTorch."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from latens import format as ltn
from latens.errors import LimitError, ModelError, ShapeError
from latens.io import printable
from latens.runtime import QUALITY_MAX, Decoded, ExactEntropy
from latens.runtime.arrays import read_arrays

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["FORMAT", "Runner"]

FORMAT = "latens onnx 2"
_INT16 = 32767
_LANES = 8
_MAX_SIDE = 4096  # pixels; as for the tiles of files

Float32 = npt.NDArray[np.float32]
Int16 = npt.NDArray[np.int16]


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

    def entropy(self) -> ExactEntropy:
        try:
            return ExactEntropy.from_tensors(read_arrays((self.path / "entropy.safetensors").read_bytes())[0])
        except (OSError, ValueError, KeyError) as error:
            raise self.damaged("entropy.safetensors", error) from error

    def whole(self, name: str, low: int, high: int) -> int:
        """A number of the description."""
        value = self.description.get(name)
        if type(value) is not int or not low <= value <= high:
            raise ModelError(f"{self}: model.json: {name} must be a whole number from {low} to {high}")
        return value

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


class Runner:
    """Codes images with an exported model.

    A stream is that of a tile in a ``.ltn`` file (``docs/entropy.md``): what this class writes, PyTorch reads, and the
    reverse. Graphs are programs: run folders that you trust.

    Attributes:
        entropy: what decides about symbols.
        skip: table indexes below are not coded.

    Args:
        folder: what :func:`latens.export.export` wrote.
        threads: of ONNX Runtime; all processors by default. They never change what a stream stands for.

    Raises:
        ModelError: the folder does not hold an exported model.
        TableError: its tables are not valid.
    """

    def __init__(self, folder: str | os.PathLike[str], threads: int | None = None) -> None:
        self._folder = _Folder(folder, threads)
        self.entropy, self.skip = self._folder.entropy(), self._folder.whole("skip", 0, 255)
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
        knot = self._knot(quality)
        x = np.asarray(x)
        if x.ndim != 3 or x.shape[0] != 3 or x.dtype.kind != "f" or not np.isfinite(x).all():
            raise ShapeError(f"expected floats (3, height, width) from 0 to 1, but got {x.dtype} {x.shape}")
        height, width = self._coded(x.shape[1:])
        missing = ((0, 0), (0, height - x.shape[1]), (0, width - x.shape[2]))
        padded = np.pad(x.astype(np.float32), missing, mode="edge")[None]
        found = self._folder.run("encoder", x=padded)
        if not all(np.isfinite(value).all() for value in found.values()):
            raise ModelError(f"{self._folder}: the weights give values that are not finite")
        y, entropy = found["y"], self.entropy
        z = entropy.quantise_z(found.get("z", y), knot)
        return entropy.encode(z, entropy.quantiser(y, knot, self.skip), knot, self.skip, lanes)[0]

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
        y_hat = self.latents(stream, shape, quality, lanes).latent
        found = self._folder.run("synthesis", y_hat=y_hat)["x_hat"]
        x_hat: Float32 = found[0, :, : shape[0], : shape[1]].clip(0.0, 1.0)
        return x_hat

    def latents(
        self, stream: bytes, shape: tuple[int, int], quality: float = 50.0, lanes: int = _LANES
    ) -> Decoded:
        """The symbols of a stream; arguments and errors as for :meth:`decompress`."""
        knot = self._knot(quality)
        height, width = self._coded(shape)
        z_shape = (height // self.hyper, width // self.hyper)
        return self.entropy.decode(stream, z_shape, knot, self.skip, lanes)

    def _knot(self, quality: float) -> int:
        """The table set of z."""
        if not 0.0 <= quality <= 100.0:
            raise ModelError(f"quality must be 0 to 100, got {quality}")
        return self.entropy.knot_at(round(quality / 100.0 * QUALITY_MAX))

    @staticmethod
    def _coded(shape: Sequence[int]) -> tuple[int, int]:
        """Height and width up to multiples of 64."""
        if len(shape) != 2 or min(shape) < 1:
            raise ShapeError(f"expected height and width, but got {tuple(shape)}")
        if max(shape) > _MAX_SIDE:
            raise LimitError(f"{shape[0]}x{shape[1]} is above the limit of {_MAX_SIDE} pixels a side")
        width, height = ltn.coded_size(shape[1], shape[0])
        return height, width
