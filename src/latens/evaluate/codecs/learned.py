"""Learned codecs: ``.ltn`` files, and the models of the published zoo."""

from __future__ import annotations

import math
import re
import struct
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

import latens
from latens import format as ltn
from latens.errors import CodecError, FormatError, LatensError, ModelError
from latens.evaluate.codecs.base import Codec, Dial, Make, Pixels, register_codec, register_family
from latens.io import Image, printable
from latens.zoo import DEFAULT_MODEL, cards, entries, entry

if TYPE_CHECKING:
    from torch import Tensor

    from latens.codec import ImageCodec

__all__ = ["LatensCodec", "ZooCodec", "checkpoints"]

_QUALITY = (*map(float, range(0, 100, 8)), 100.0)
# Quantisation steps of the models of variable rate, from the smallest files to the largest.
_STEPS = (10.0, 7.2, 5.2, 3.7, 2.7, 1.9, 1.4, 1.0)
_MULTIPLE = 64


def _use_threads(threads: int) -> None:
    """Of the native core, and of PyTorch where it is loaded."""
    from latens.runtime import set_threads

    set_threads(threads)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)


@register_codec("latens")
class LatensCodec(Codec):
    """``.ltn`` files of a released model or of a weights file."""

    suffix = ".ltn"
    defaults: ClassVar = {"model": DEFAULT_MODEL, "effort": "1"}
    colour = "RGB, learned"

    def __init__(self, spec: str, options: Mapping[str, str], threads: int = 1) -> None:
        super().__init__(spec, options, threads)
        self._effort = self.number("effort")

    @cached_property
    def _codec(self) -> ImageCodec:
        from latens.codec import ImageCodec

        codec = ImageCodec(self.options["model"])
        _use_threads(self.threads)
        return codec

    @cached_property
    def dial(self) -> Dial:  # type: ignore[override]
        """The default model has all qualities; weights of a published architecture have one, or a few."""
        if self.options["model"] in {card.id for card in cards()} or self._rates is None:
            return Dial("quality", 0, 100, 0.05, _QUALITY)
        points = tuple(100.0 * i / max(1, self._rates - 1) for i in range(self._rates))
        return Dial("quality", 0, points[-1], points[1] if self._rates > 1 else 1, points)

    @cached_property
    def _rates(self) -> int | None:
        """How many rates the model has; None for all."""
        return self._codec.model.rates

    def version(self) -> str:
        return f"{self._codec.model.id}, weights {self._codec.model.weights_id[:16]}, Latens {latens.__version__}"

    def encode(self, pixels: Pixels, setting: float) -> bytes:
        return self._codec.encode(Image(pixels), None if self._rates == 1 else setting, effort=self._effort)

    def decode(self, data: bytes, size: tuple[int, int], setting: float) -> Pixels:
        limits = ltn.Limits(max_pixels=size[0] * size[1])
        decoded = self._codec.decode(ltn.read(data, limits))[0].pixels
        return np.repeat(decoded, 3, axis=2) if decoded.shape[2] == 1 else decoded


@register_family
def _ltn_model(name: str) -> Make | None:
    """Released models by their names, weights files by their paths."""
    if name not in {card.id for card in cards()} and not name.endswith(".safetensors"):
        return None
    return lambda spec, options, threads: LatensCodec(spec, {"model": name, **options}, threads)


def checkpoints(path: str) -> list[Path]:
    """Checkpoints: a file, or the files of a folder in the order of their numbers.

    Raises:
        ModelError: there are none.
    """
    place = Path(path)
    if place.is_file():
        return [place]
    suffixes = (".pt", ".pth", ".tar", ".safetensors")

    def order(file: Path) -> list[Any]:
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.name)]

    found = sorted((p for p in place.glob("*") if p.suffix in suffixes), key=order) if place.is_dir() else []
    if not found:
        raise ModelError(f"{printable(path)}: no checkpoint, and no folder with {', '.join(suffixes)} files")
    return found


class ZooCodec(Codec):
    """An architecture of the zoo, through its own ``compress`` and ``decompress``.

    A file is: width and height (u16), the quantisation step of a model of variable rate (float32), then all strings
    in turn, each but the last with its length before it (u32); all little-endian. Images are padded at the right
    and at the bottom by repeating their last samples, to multiples of 64 pixels.
    """

    suffix = ".bin"
    defaults: ClassVar = {"weights": "", "metric": "mse", "fast": "no", "coder": "ans", "device": "cpu"}
    colour = "RGB, learned"

    def __init__(self, name: str, spec: str, options: Mapping[str, str], threads: int = 1) -> None:
        super().__init__(spec, options, threads)
        self._entry = entry(name)
        if self._entry.media != "image":
            raise CodecError(f"{printable(spec)}: is no model of images")
        self._fast = self.flag("fast")
        if self.choice("device", "cpu", "cuda") == "cuda":
            import torch

            if not torch.cuda.is_available():
                raise CodecError(f"{printable(spec)}: device=cuda, but there is no GPU here")
        self._loaded: tuple[int, Any] | None = None
        self._templates: tuple[int, Any, Any] | None = None
        self._files = checkpoints(self.options["weights"]) if self.options["weights"] else []
        self.variable = name.endswith("-vbr")
        if self.variable:
            self.dial = Dial("step", 0.5, 20.0, 0.01, _STEPS)
        else:
            numbers = range(1, len(self._files) + 1) if self._files else self._entry.qualities
            if not numbers:
                raise CodecError(
                    f"{printable(spec)}: no weights were published; give a checkpoint with weights=PATH"
                )
            what = "checkpoint" if self._files else "quality"
            self.dial = Dial(what, numbers[0], numbers[-1], 1, tuple(map(float, numbers)))
        if not self._files:
            for point in self.dial.points:  # known before anything is measured
                self._entry.url(None if self.variable else round(point), self.options["metric"])

    def network(self, setting: float) -> Any:
        """The model for a setting; only one is kept in memory."""
        number = 1 if self.variable else round(setting)
        if self._loaded is None or self._loaded[0] != number:
            self._loaded = self._templates = None  # memory for one
            self._loaded = number, self._load(number)
        return self._loaded[1]

    def _load(self, number: int) -> Any:
        from latens.entropy_models import set_entropy_coder
        from latens.zoo import image_models, load_pretrained
        from latens.zoo.pretrained import read_checkpoint

        _use_threads(self.threads)
        set_entropy_coder(self.options["coder"])
        if self._files:
            if not 1 <= number <= len(self._files):
                raise ModelError(f"{printable(self.spec)}: there are checkpoints 1 to {len(self._files)}")
            state = load_pretrained(read_checkpoint(self._files[number - 1]))
            network = self._entry.model_class().from_state_dict(state)
        else:
            quality = None if self.variable else number
            make = image_models[self._entry.id]
            network = make(quality, self.options["metric"], pretrained=True, progress=False)
        network.to(self.options["device"]).eval()
        network.fast = self._fast
        network.update()
        return network

    def _shape(self, network: Any, height: int, width: int) -> tuple[int, Any]:
        """How many strings the model makes of an image, and the shape that its ``decompress`` is to be given.

        Found out with two small images: what is the same for both is a constant, the rest grows with a side.
        """
        import torch

        if self._templates is None:
            images = (
                torch.full((1, 3, *sides), 0.5, device=self.options["device"])
                for sides in ((64, 64), (128, 192))
            )
            outs = [network.compress(image) for image in images]
            self._templates = len(outs[0]["strings"]), outs[0]["shape"], outs[1]["shape"]
        count, small, large = self._templates
        rows, columns = math.ceil(height / _MULTIPLE), math.ceil(width / _MULTIPLE)

        def grow(a: Any, b: Any) -> Any:
            if isinstance(a, Mapping):
                return {key: grow(a[key], b[key]) for key in a}
            if isinstance(a, int):
                return a * {1: 1, 2: rows, 3: columns}[b // a]
            grown = [grow(*pair) for pair in zip(a, b, strict=True)]
            return torch.Size(grown) if isinstance(a, torch.Size) else type(a)(grown)

        return count, grow(small, large)

    def version(self) -> str:
        if not self._files:
            return f"published weights, Latens {latens.__version__}"
        from hashlib import sha256

        sums = [sha256(file.read_bytes()).hexdigest()[:8] for file in self._files]
        return f"weights {' '.join(sums)}, Latens {latens.__version__}"

    def arguments(self, setting: float) -> dict[str, float]:
        """Keyword arguments of the model for a setting."""
        return {"inputscale": 1.0 / setting} if self.variable else {}

    def estimate(self, pixels: Pixels, setting: float) -> tuple[float, Pixels]:
        """Bits per pixel by the likelihoods, and the decoded image; nothing is coded."""
        import torch

        with torch.no_grad():
            out = self.network(setting)(self._batch(pixels), **self.arguments(setting))
        bits = -sum(float(likelihoods.double().log2().sum()) for likelihoods in out["likelihoods"].values())
        height, width = pixels.shape[:2]
        return bits / (height * width), to_pixels(out["x_hat"])[:height, :width]

    def _batch(self, pixels: Pixels) -> Tensor:
        return padded(pixels).to(self.options["device"])

    def encode(self, pixels: Pixels, setting: float) -> bytes:
        height, width = pixels.shape[:2]
        if max(height, width) > 0xFFFF:
            raise CodecError(f"{width}x{height}: at most 65535 pixels on each side")
        head = struct.pack("<HH", width, height)
        if self.variable:
            head += struct.pack("<f", setting)
            setting = struct.unpack("<f", head[4:])[0]
        out = self.network(setting).compress(self._batch(pixels), **self.arguments(setting))
        strings = [string for group in out["strings"] for string in group]
        sized = [struct.pack("<I", len(string)) + string for string in strings[:-1]]
        return b"".join((head, *sized, *strings[-1:]))

    def decode(self, data: bytes, size: tuple[int, int], setting: float) -> Pixels:
        network = self.network(setting)
        try:
            width, height = struct.unpack_from("<HH", data)
            start = 4
            more: dict[str, float] = {}
            if self.variable:
                more = self.arguments(struct.unpack_from("<f", data, start)[0])
                start += 4
            count, shape = self._shape(network, height, width)
            strings = []
            for _ in range(count - 1):
                (length,) = struct.unpack_from("<I", data, start)
                start += 4
                strings.append([data[start : start + length]])
                start += length
            strings.append([data[start:]])
        except (struct.error, ZeroDivisionError) as error:
            raise FormatError("the file ends too early") from error
        x_hat = network.decompress(strings, shape, **more)["x_hat"]
        return to_pixels(x_hat)[:height, :width]


def padded(pixels: Pixels) -> Tensor:
    """An image as a batch of one, ``(1, 3, height, width)`` in 0 to 1, sides padded to multiples of 64."""
    import torch

    height, width = pixels.shape[:2]
    edge = np.pad(pixels, ((0, -height % _MULTIPLE), (0, -width % _MULTIPLE), (0, 0)), mode="edge")
    return torch.from_numpy(edge).permute(2, 0, 1)[None].float() / 255.0


def to_pixels(x_hat: Tensor) -> Pixels:
    """The inverse of :func:`padded`, but for the padding."""
    rounded = x_hat[0].float().clamp(0.0, 1.0).mul(255.0).round()
    return rounded.permute(1, 2, 0).byte().contiguous().cpu().numpy()


@register_family
def _zoo_model(name: str) -> Make | None:
    """Architectures by their names."""
    if name not in {known.id for known in entries()}:
        return None
    return lambda spec, options, threads: ZooCodec(name, spec, options, threads)


def loads(codec: Codec) -> str | None:
    """Why a learned codec cannot be used, None if it can; others can be used once they have been made."""
    try:
        if isinstance(codec, ZooCodec):
            codec.network(codec.dial.points[0])
        else:
            codec.version()
    except LatensError as error:
        return str(error)
    return None
