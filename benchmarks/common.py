"""What the benchmarks and the demo share: codecs behind one face, quality measures, timing."""

from __future__ import annotations

import io
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
import torch
from PIL import Image, features

import latens
from latens.codec import ImageCodec
from latens.format import read
from latens.io import from_pil, to_pil
from latens.metrics import ms_ssim
from latens.zoo import DEFAULT_MODEL

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Codec:
    """A codec: whole files out of pictures and back.

    Attributes:
        name: as shown.
        suffix: of its files.
        version: of what does the work; results of another version are not comparable.
        encode: picture and quality (0..100, the better the larger) to the bytes of a file.
        decode: the inverse.
        step: smallest difference in quality that makes sense.
    """

    name: str
    suffix: str
    version: str
    encode: Callable[[Image.Image, float], bytes]
    decode: Callable[[bytes], Image.Image]
    step: float = 1.0


def latens_codec(model: str = DEFAULT_MODEL, fast: bool = False) -> Codec:
    """A released model of Latens, or a weights file."""
    codec = ImageCodec(model, fast=fast)
    return Codec(
        "Latens",
        ".ltn",
        codec.model.weights_id,
        lambda image, quality: codec.encode(from_pil(image), quality),
        lambda data: to_pil(codec.decode(read(data))[0]),
        step=0.05,
    )


def _pillow_codec(name: str, suffix: str, feature: str, **options: Any) -> Codec:
    def encode(image: Image.Image, quality: float) -> bytes:
        file = io.BytesIO()
        threads = {"max_threads": torch.get_num_threads()} if name == "AVIF" else {}
        image.save(file, name, quality=round(quality), **options, **threads)
        return file.getvalue()

    def decode(data: bytes) -> Image.Image:
        return Image.open(io.BytesIO(data)).convert("RGB")

    settings = " ".join(f"{key}={value}" for key, value in options.items())
    return Codec(name, suffix, f"{features.version(feature)} {settings}", encode, decode)


CLASSICAL = (
    _pillow_codec("JPEG", ".jpg", "libjpeg_turbo", optimize=True, progressive=True, subsampling="4:2:0"),
    _pillow_codec("WebP", ".webp", "webp", method=6),
    _pillow_codec("AVIF", ".avif", "avif", subsampling="4:4:4", speed=4),
)


def read_rgb(path: Path) -> Image.Image:
    """A photograph as an RGB picture without metadata, so that every file holds pixels alone."""
    return Image.fromarray(np.array(Image.open(path).convert("RGB")))


def psnr(original: Image.Image, decoded: Image.Image) -> float:
    """PSNR over all RGB samples of 8 bits, in dB."""
    difference = np.asarray(original, np.float64) - np.asarray(decoded, np.float64)
    return float(10 * np.log10(255**2 / np.mean(difference**2)))


def similarity(original: Image.Image, decoded: Image.Image) -> float:
    """MS-SSIM over RGB."""
    x, y = (torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255.0 for image in (original, decoded))
    return float(ms_ssim(x, y))


def closest(codec: Codec, image: Image.Image, size: float) -> tuple[float, bytes]:
    """The quality whose file comes closest to ``size`` bytes, and that file."""
    low, high = 0, round(100 / codec.step)
    best: tuple[float, bytes] | None = None
    while low <= high:
        middle = (low + high) // 2
        data = codec.encode(image, middle * codec.step)
        if best is None or abs(len(data) - size) < abs(len(best[1]) - size):
            best = middle * codec.step, data
        low, high = (middle + 1, high) if len(data) < size else (low, middle - 1)
    assert best is not None
    return best


def median_ms(function: Callable[[], object], rounds: int = 5) -> float:
    """Median time of a call in milliseconds, after one call to warm up."""
    function()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def machine() -> str:
    """Processor, threads and versions, in one line."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = (
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if "model name" in line
        )
        model = next(lines, model)
    return (
        f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; Python {platform.python_version()}, "
        f"torch {torch.__version__}, Pillow {PIL.__version__}, latens {latens.__version__}"
    )


class Peer:
    """A script in another Python environment that answers one line of JSON with another, to take turns with.

    Args:
        python: the interpreter.
        script: its source; reads requests from standard input, one a line, and prints its answers.
        arguments: for the script.
        environment: added to this process's own.
    """

    def __init__(
        self,
        python: str,
        script: str,
        arguments: Sequence[str] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            [python, "-c", script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | (environment or {}),
        )

    def ask(self, request: object) -> Any:
        """The answer to a request. Raises SystemExit if the script has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the peer ended with status {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """End the script."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
