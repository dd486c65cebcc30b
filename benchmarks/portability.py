"""Encode under one configuration, decode under many: which images and symbols does each path lose?

For each model, all images are coded twice: to ``.ltn`` files (integers decide about symbols) and by the model's own
``compress`` (floating point decides, as is usual). Both are decoded in processes that are configured otherwise: number
of threads, vector instructions, oneDNN, memory layout, another PyTorch, an emulated processor, a GPU. A symbol is lost
if it is decoded to another value, or if its image cannot be decoded at all.

Usage: python benchmarks/portability.py IMAGES MODEL.safetensors... [--count N] [--other-python PYTHON]
       [--emulate CPU...] [--json FILE]

Emulation needs ``qemu-x86_64``; a CPU is what its option -cpu takes: Nehalem, for example, has no AVX.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latens import format as ltn
from latens.codec import ImageCodec
from latens.convert.research import ResearchPictures
from latens.errors import ChecksumError, LatensError
from latens.io import read_image
from latens.runtime import set_threads
from latens.zoo import load


@dataclass(frozen=True)
class Configuration:
    """How a decoding process differs from the encoding one."""

    name: str
    environment: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    python: str = sys.executable
    prefix: tuple[str, ...] = ()
    count: int | None = None  # images; None: all


EMULATED_IMAGES = 2  # an emulated processor is some twenty times slower


def configurations(other_python: str | None, emulated: list[str]) -> list[Configuration]:
    """All that can be tried here."""
    found = [
        Configuration("as encoded (2 threads)"),
        Configuration("1 thread", options=("threads=1",)),
        Configuration("3 threads", options=("threads=3",)),
        *(
            Configuration(f"ATen kernels: {level}", {"ATEN_CPU_CAPABILITY": level})
            for level in ("default", "avx2", "avx512")
        ),
        Configuration("oneDNN off", options=("mkldnn=0",)),
        *(
            Configuration(f"oneDNN up to {level}", {"ONEDNN_MAX_CPU_ISA": level})
            for level in ("SSE41", "AVX2", "AVX512_CORE")
        ),
        Configuration(
            "oneDNN off, 1 thread, plain kernels",
            {"ATEN_CPU_CAPABILITY": "default"},
            ("mkldnn=0", "threads=1"),
        ),
        Configuration("channels_last", options=("channels_last",)),
        Configuration("bfloat16", options=("fast",)),
        Configuration("deterministic algorithms", options=("deterministic",)),
    ]
    if other_python:
        found.append(Configuration("another PyTorch", python=other_python))
    found += [
        Configuration(f"QEMU, {cpu}", prefix=("qemu-x86_64", "-cpu", cpu), count=EMULATED_IMAGES)
        for cpu in emulated
    ]
    if torch.cuda.is_available():
        found += [
            Configuration(f"CUDA, TF32 {'on' if on else 'off'}", options=("cuda", f"tf32={on}"))
            for on in (0, 1)
        ]
    return found


def latent_of(model: Any, strings: Any, shape: Any) -> np.ndarray[Any, Any]:
    """y_hat as the model's own decompress has it."""
    kept = []
    model._reconstruct = lambda _, y_hat: kept.append(y_hat) or y_hat
    model.decompress(strings, shape)
    return kept[0].float().cpu().numpy()


def tiles(codec: ImageCodec, container: ltn.Container) -> list[np.ndarray[Any, Any]]:
    """What synthesis takes of each tile of a file; checksums over symbols are checked, and those over exact pixels.

    Raises:
        LatensError: a tile does not decode, or pixels are others.
    """
    header, model = container.header, codec.model
    found = []
    for tile, rect in zip(container.tiles, header.tiles(), strict=True):
        assert tile is not None  # strict reading leaves none out
        width, height = ltn.coded_size(rect.width, rect.height)
        checksum, rows = model.decode(tile.stream, (height, width), header.quality, header.skip, header.lanes)
        if checksum != tile.checksum:
            raise ChecksumError(f"symbols with checksum {checksum:08x}, {tile.checksum:08x} was stored")
        found.append(rows.astype(np.float32))
    codec.decode(container)
    return found


def network_of(codec: ImageCodec) -> Any:
    """The float network of a published architecture; None for a model in integers, which has no other way."""
    return codec.model.network if isinstance(codec.model, ResearchPictures) else None


def encode(folder: Path, images: list[Path], weights: Path) -> None:
    """Code all images both ways; what the decoder should have goes beside."""
    codec = ImageCodec(load(weights))
    model = network_of(codec)
    for number, path in enumerate(images):
        image = read_image(path)
        data = codec.encode(image)
        np.savez(folder / f"{number}.exact.npz", *tiles(codec, ltn.read(data)))
        (folder / f"{number}.ltn").write_bytes(data)
        if model is None:
            continue
        height, width = (s // 64 * 64 for s in image.pixels.shape[:2])
        x = torch.from_numpy(image.pixels[:height, :width].copy()).permute(2, 0, 1)[None].float() / 255
        coded = model.compress(x)
        hexadecimal = [[string.hex() for string in part] for part in coded["strings"]]
        (folder / f"{number}.float").write_text(json.dumps([hexadecimal, list(coded["shape"])]))
        np.save(folder / f"{number}.float.npy", latent_of(model, coded["strings"], coded["shape"]))


def decode(folder: Path, count: int, weights: Path, options: set[str]) -> dict[str, list[int]]:
    """For both paths: images lost, images, symbols lost, symbols."""
    lost = {"integer": [0, 0, 0, 0], "float": [0, 0, 0, 0]}

    def note(path: str, want: list[np.ndarray[Any, Any]], got: list[np.ndarray[Any, Any]] | None) -> None:
        symbols = sum(a.size for a in want)
        wrong = symbols
        if got is not None:
            wrong = sum(int((np.abs(a - b) > 0.25).sum()) for a, b in zip(want, got, strict=True))
        for i, value in enumerate((wrong > 0, 1, wrong, symbols)):
            lost[path][i] += int(value)

    for option in options:
        name, _, value = option.partition("=")
        if name == "threads":
            torch.set_num_threads(int(value))
            set_threads(int(value))
        if name == "tf32":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = value == "1"
    torch.use_deterministic_algorithms("deterministic" in options)
    codec = ImageCodec(load(weights))
    model = network_of(codec)
    if "channels_last" in options and model is not None:
        model.to(memory_format=torch.channels_last)
    device = "cuda" if "cuda" in options else "cpu"
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        if "mkldnn=0" in options:
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
        for number in range(count):
            container = ltn.read((folder / f"{number}.ltn").read_bytes())
            with np.load(folder / f"{number}.exact.npz") as stored:
                want = [stored[key] for key in stored.files]
            try:
                note("integer", want, tiles(codec, container))
            except LatensError:
                note("integer", want, None)
        if model is None:
            return lost
        model.to(device)
        model.fast = "fast" in options
        for number in range(count):
            hexadecimal, shape = json.loads((folder / f"{number}.float").read_text())
            strings = [[bytes.fromhex(string) for string in part] for part in hexadecimal]
            want = [np.load(folder / f"{number}.float.npy")]
            try:
                note("float", want, [latent_of(model, strings, shape)])
            except LatensError:
                note("float", want, None)
    return lost


def run(arguments: list[str], configuration: Configuration, script: str = __file__) -> str:
    """This script, or another, in a process of its own."""
    environment = {**os.environ, **configuration.environment}
    command = [*configuration.prefix, configuration.python, script, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{configuration.name}: {done.stderr[-2000:]}")
    return done.stdout


def main() -> None:
    """Print a table per model, and write all of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--other-python")
    parser.add_argument("--emulate", nargs="+", default=[], metavar="CPU")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    images = sorted(args.images.glob("*.png"))[: args.count]
    results: dict[str, Any] = {}
    for weights in args.models:
        rows: dict[str, Any] = {}
        with tempfile.TemporaryDirectory() as name:
            run(["--encode", name, str(weights), *map(str, images)], Configuration("encoding"))
            print(f"\n{weights.stem}, {len(images)} images\n")
            print(f"| decoded with | {' | '.join(f'{p}: images | symbols' for p in ('integers', 'float'))} |")
            print("|---|---|---|---|---|")
            for configuration in configurations(args.other_python, args.emulate):
                count = min(len(images), configuration.count or len(images))
                child = ["--decode", name, str(weights), str(count), *configuration.options]
                lost = json.loads(run(child, configuration))
                rows[configuration.name] = lost
                cells = [f"{a} of {b} | {c:,} of {d:,}" if b else "- | -" for a, b, c, d in lost.values()]
                print(f"| {configuration.name} | {' | '.join(cells)} |", flush=True)
        results[weights.stem] = rows
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(2)
    if sys.argv[1:2] == ["--encode"]:
        with torch.no_grad():
            encode(Path(sys.argv[2]), [Path(p) for p in sys.argv[4:]], Path(sys.argv[3]))
    elif sys.argv[1:2] == ["--decode"]:
        found = decode(Path(sys.argv[2]), int(sys.argv[4]), Path(sys.argv[3]), set(sys.argv[5:]))
        print(json.dumps(found))
    else:
        main()
