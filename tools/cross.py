"""Do integer networks and moved blocks give the same on other processors? Compiles the core, runs it under QEMU.

    python tools/cross.py [--cases N] [--motions N] [--processors aarch64 s390x riscv64] [--pictures FILE.ltn ...]
    python tools/cross.py --python FOLDER [--frames N] [--processors ...] [--pictures FILE.ltn ...]

Needs Debian's g++-aarch64-linux-gnu, g++-s390x-linux-gnu, g++-riscv64-linux-gnu and qemu-user-static. Random
networks of all kinds of stages (those of tests/runtime/test_engine.py) must give the integers of plain int64
arithmetic everywhere, on this processor's instruction sets, too; streams of vectors, near and far beyond the
picture, the fields and pictures of plain Python (tests/video/slow_motion.py). Beside the coder of symbols that is
all that a frame of video is made with. Pictures are decoded by libltn, which compares them with the checksum in the
file; they take some seconds each.

With --python FOLDER, all of Latens runs in Python of the other processors, with Debian's NumPy and Pillow (mmdebstrap
fetches them into the folder, where they stay): pictures of every kind and a video, or the files of --pictures, are
decoded by tools/cross_decode.py, whole and in parts, and every checksum must be the one of this processor.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / folder) for folder in ("runtime", "video")]

import slow_motion  # noqa: E402
from test_engine import Draw  # noqa: E402

import latens  # noqa: E402
from latens import format as ltn  # noqa: E402
from latens.codec.structure import Structure  # noqa: E402
from latens.codec.video import VideoCodec  # noqa: E402
from latens.io import VideoFrame, VideoInfo  # noqa: E402
from latens.runtime import reference  # noqa: E402
from latens.zoo.cards import DEFAULT_VIDEO_MODEL, card  # noqa: E402

SOURCES = (
    "status",
    "network",
    "execute",
    "pool",
    "fork",
    "team",
    "kernels",
    "kernels_sse4",
    "kernels_avx2",
    "kernels_avx512",
    "kernels_neon",
    "kernels_simd128",
    "motion",
    "motion_avx2",
    "motion_field",
)
KINDS = ("product", "depthwise", "block", "shuffle", "unshuffle", "scale", "pixels", "input")
PARTS = ("pw_in", "dw", "pw_out", "ffn_in", "ffn_out")
# This processor's instruction sets, the one that it chooses by itself first.
SETS = ("avx2", "sse4", "portable") if os.uname().machine == "x86_64" else ("portable",)
OWN: list[dict[str, str]] = [{}, *({"LATENS_ISA": name} for name in SETS)]


def _array(values: Any) -> list[int]:
    flat = np.asarray(values, np.int64).ravel().tolist()
    return [len(flat), *flat]


def _weights(part: Mapping[str, Any]) -> list[int]:
    weight = np.asarray(part["weight"])
    depthwise = weight.ndim == 3
    outputs, kernel, inputs = len(weight), 1 if weight.ndim == 2 else weight.shape[1], weight.shape[-1]
    shift = np.broadcast_to(part["shift"], outputs)
    limits = [
        int(part.get(name, default)) for name, default in (("low", -32768), ("high", 32767), ("gate", 0))
    ]
    head = [outputs, kernel, 1 if depthwise else inputs, *limits]
    return [*head, *_array(weight), *_array(part["bias"]), *_array(shift)]


def _case(case: Mapping[str, Any]) -> list[int]:
    numbers = [*case["limits"], *case.get("samples", (8, 3)), len(case["stages"])]
    for kind, form in case["stages"]:
        parts = [form[name] for name in PARTS] if kind == "block" else [form] if "weight" in form else []
        numbers += [
            KINDS.index(kind),
            form.get("r", form.get("slot", 0)),
            form.get("channels", 0),
            len(parts),
        ]
        for part in parts:
            numbers += _weights(part)
    numbers.append(len(case["factors"]))
    for m, s in case["factors"]:
        numbers += [len(m), *_array(m), *_array(s)]
    return [*numbers, *case["x"].shape[:2], *_array(case["x"])]


def _motion(seed: int) -> tuple[list[int], list[int]]:
    """A case of motion, and what comes of it."""
    references = 1 + seed % 2
    field = slow_motion.any_field(Random(seed), references)
    height, width = (8 * side for side in field.shape[:2])
    values = np.random.default_rng(seed).choice([0, 1, 30_000, 65_535], (references, height, width, 3))
    pictures = values.astype(np.uint16)
    stream = slow_motion.encode(field, references)
    case = [*field.shape[:2], references, *_array(np.frombuffer(stream, np.uint8))]
    for picture in pictures:
        case += _array(picture)
    moved = slow_motion.compensate(list(pictures), field)
    return case, [*field.ravel().tolist(), *moved.ravel().tolist()]


def _write(path: Path, numbers: Iterable[int]) -> None:
    path.write_bytes(np.array(list(numbers), "<i8").tobytes())


def _compile(compiler: str, folder: Path, name: str, *flags: str) -> Path:
    if shutil.which(compiler) is None:
        sys.exit(f"there is no {compiler}: install Debian's g++ for that processor")
    program = folder / name
    sources = [ROOT / "tools" / "cross.cpp", *(ROOT / "native" / f"{source}.cpp" for source in SOURCES)]
    command = [
        compiler,
        "-std=c++20",
        "-O3",
        "-Wall",
        "-Wextra",
        *flags,
        f"-I{ROOT / 'native'}",
        "-pthread",
        *map(str, sources),
    ]
    subprocess.run([*command, "-o", str(program), "-ldl"], check=True)
    return program


def _library(compiler: str, folder: Path) -> Path:
    """examples/ltn.c with libltn in it; ``compiler`` is the beginning of the names of a processor's compilers."""
    command = [
        "cmake",
        "-S",
        str(ROOT / "native" / "library"),
        "-B",
        str(folder),
        "-DBUILD_SHARED_LIBS=OFF",
        f"-DCMAKE_C_COMPILER={compiler}gcc",
        f"-DCMAKE_CXX_COMPILER={compiler}g++",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(
        ["cmake", "--build", str(folder), "--parallel", str(os.cpu_count() or 1)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    program = folder / "decode"
    sources = [str(ROOT / "examples" / "ltn.c"), str(folder / "libltn.a")]
    include = f"-I{ROOT / 'native' / 'library'}"
    command = [f"{compiler}gcc", "-O2", include, *sources, "-lstdc++", "-lm", "-pthread", "-ldl"]
    subprocess.run([*command, "-o", str(program)], check=True)
    return program


def _pictures(pictures: Iterable[Path], command: list[str], environment: Mapping[str, str]) -> int:
    """How many pictures a decoder refuses, or finds to differ from what was coded."""
    wrong = 0
    for picture in pictures:
        model = ltn.read_header(picture.read_bytes()).model
        weights = [str(card(model).path)] if model else []
        result = subprocess.run(
            [*command, str(picture), os.devnull, *weights],
            env=os.environ | environment,
            capture_output=True,
            text=True,
        )
        if result.returncode:
            wrong += 1
            print(f"{picture.name}: {result.stderr.strip()}")
    return wrong


def _any_files(folder: Path) -> list[Path]:
    """A small file of each kind that decoders tell apart."""
    with PillowImage.open(ROOT / "examples" / "blossom.png") as image:
        photo = image.convert("RGB")
    small = photo.crop((100, 100, 292, 228))
    drawn = small.copy()
    drawn.paste("white", (0, 0, 128, 64))
    ImageDraw.Draw(drawn).multiline_text((2, 2), "\n".join(["Black on white, kept as it is"] * 4), "black")
    seen = small.copy()
    seen.putalpha(small.convert("L"))
    deep = np.asarray(small).astype(np.uint16) * 256 + np.arange(192, dtype=np.uint16)[:, None]
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "low": (small, {"quality": 20}),
        "high": (small, {"quality": 95}),
        "psnr": (small, {"tune": "psnr"}),
        "tiles": (photo.resize((1096, 72)), {}),
        "drawn": (drawn, {}),
        "alpha": (seen, {}),
        "deep": (deep, {}),
        "lossless": (drawn, {"lossless": True}),
        "near": (small, {"near_lossless": 2}),
        "deep-lossless": (deep, {"lossless": True}),
    }
    files = [folder / f"{name}.ltn" for name in (*kinds, "video")]
    for path, (picture, options) in zip(files, kinds.values(), strict=False):
        path.write_bytes(latens.encode(picture, **options))
    frames = []
    for i in range(6):
        part = photo.rotate(3 * i).crop((150 + 3 * i, 150 + i, 246 + 3 * i, 214 + i)).convert("YCbCr")
        y, cb, cr = np.asarray(part).transpose(2, 0, 1)
        frames.append(VideoFrame((y, cb[::2, ::2], cr[::2, ::2]), i))
    with files[-1].open("wb") as file:
        codec, structure = VideoCodec(DEFAULT_VIDEO_MODEL), Structure(gop=6, bframes=3, scene_cuts=False)
        for _ in codec.encode(VideoInfo(96, 64), frames, file, structure=structure, quality=90):
            pass
    return files


def _python(processor: str, root: Path) -> str:
    """Python of another processor, in ``root``, with Latens in it; fetched if it is not there."""
    architecture = {"aarch64": "arm64"}.get(processor, processor)
    if not (root / "usr").exists():
        packages = "python3,python3-numpy,python3-pil,libpython3-dev"
        fetch = ["mmdebstrap", "--quiet", "--variant=extract", f"--architectures={architecture}"]
        source = "deb http://deb.debian.org/debian trixie main"
        subprocess.run([*fetch, f"--include={packages}", "trixie", str(root), source], check=True)
    if not (root / "lib").exists():
        (root / "lib").symlink_to("usr/lib")
    libraries = f"/usr/lib/{processor}-linux-gnu"
    python = root / "python"
    # BLAS and LAPACK of Debian lie in folders of their own, since there may be several.
    python.write_text(
        f"#!/bin/sh\nexec qemu-{processor}-static -L '{root}' -E LD_LIBRARY_PATH={libraries}/blas:{libraries}/lapack "
        f"'{root}/usr/bin/python3' \"$@\"\n"
    )
    python.chmod(0o755)
    paths = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        for command in (
            [str(python), "-c", "import sysconfig; print(sysconfig.get_path('include'))"],
            [sys.executable, "-m", "nanobind", "--cmake_dir"],
        )
    ]
    build = root / "build"
    configure = [
        "cmake",
        "-S",
        str(ROOT),
        "-B",
        str(build),
        "-DCMAKE_SYSTEM_NAME=Linux",
        f"-DCMAKE_SYSTEM_PROCESSOR={processor}",
        f"-DCMAKE_CXX_COMPILER={processor}-linux-gnu-g++",
        f"-DCMAKE_CXX_FLAGS=-idirafter {root}/usr/include",  # of its C library, nothing that the compiler has
        f"-DPython_EXECUTABLE={python}",
        f"-DPython_INCLUDE_DIR={paths[0]}",
        f"-Dnanobind_DIR={paths[1]}",
    ]
    subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
    make = ["cmake", "--build", str(build), "--parallel", str(os.cpu_count() or 1)]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    place = root / "usr/lib/python3/dist-packages/latens"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(ROOT / "src" / "latens", place, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    (extension,) = build.glob("_native*.so")
    shutil.copy(extension, place)
    return str(python)


def _pythons(processors: Iterable[str], folder: Path, files: Iterable[str]) -> int:
    """How many checksums of what is decoded in Python differ, of all instruction sets, threads and processors."""
    ways = [("here", sys.executable, environment, threads) for environment in OWN for threads in (1, 2, 3, 4)]
    ways += [(processor, _python(processor, folder / processor), {}, 2) for processor in processors]
    expected: list[str] = []
    different = 0
    for name, python, environment, threads in ways:
        command = [python, str(ROOT / "tools" / "cross_decode.py"), "--threads", str(threads), *files]
        result = subprocess.run(
            command, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True
        )
        got = result.stdout.splitlines()
        expected = expected or got
        wrong = sum(a != b for a, b in zip_longest(expected, got))
        different += wrong
        isa = environment.get("LATENS_ISA", "")
        print(f"{name:8} {isa:9} {threads} threads: {len(got)} checksums, {wrong} differ", flush=True)
    return different


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=100, help="random networks")
    parser.add_argument("--motions", type=int, default=12, help="random fields of motion")
    parser.add_argument("--processors", nargs="*", default=["aarch64", "s390x", "riscv64"])
    parser.add_argument(
        "--pictures", nargs="*", type=Path, default=[], metavar="FILE", help="files to decode"
    )
    parser.add_argument(
        "--python", type=Path, metavar="FOLDER", help="decode in Python of other processors, kept there"
    )
    parser.add_argument("--frames", type=int, help="with --python, so many of each video")
    arguments = parser.parse_args()
    if arguments.python:
        with tempfile.TemporaryDirectory() as name:
            files = [str(path) for path in arguments.pictures or _any_files(Path(name))]
            if arguments.frames is not None:
                files += ["--frames", str(arguments.frames)]
            different = _pythons(arguments.processors, arguments.python.resolve(), files)
        sys.exit(1 if different else 0)
    cases = [Draw(seed).network() for seed in range(arguments.cases)]
    expected: list[int] = []
    for case in cases:
        rest = {name: case[name] for name in ("factors", "samples") if name in case}
        expected += _array(reference.run(case["stages"], case["x"], limits=case["limits"], **rest))
    motions = [_motion(seed) for seed in range(arguments.motions)]
    for _, found in motions:
        expected += found
    different = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        networks = [number for case in cases for number in _case(case)]
        moves = [number for case, _ in motions for number in case]
        _write(folder / "in", [len(cases), *networks, len(motions), *moves])
        here = _compile("c++", folder, "here")
        runs: list[tuple[list[str], dict[str, str]]] = [([str(here)], environment) for environment in OWN]
        emulators: dict[str, list[str]] = {}
        for processor in arguments.processors:
            program = _compile(f"{processor}-linux-gnu-g++", folder, processor)
            emulators[processor] = [f"qemu-{processor}-static", "-L", f"/usr/{processor}-linux-gnu"]
            command = [*emulators[processor], str(program)]
            runs += [(command, {}), (command, {"LATENS_ISA": "portable"})]
        for command, environment in runs:
            result = subprocess.run(
                [*command, str(folder / "in"), str(folder / "out")],
                env=os.environ | environment,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            got = np.frombuffer((folder / "out").read_bytes(), "<i8")
            wrong = len(expected) if len(got) != len(expected) else int((got != np.array(expected)).sum())
            different += wrong
            print(
                f"{Path(command[-1]).name:8} {result.stdout.strip():9} {len(expected)} integers, {wrong} differ",
                flush=True,
            )
        if arguments.pictures:
            decoder = str(_library("", folder / "library"))
            decoders = [("here", [decoder], environment) for environment in OWN]
            for processor, emulator in emulators.items():
                decoder = str(_library(f"{processor}-linux-gnu-", folder / f"library-{processor}"))
                decoders.append((processor, [*emulator, decoder], {}))
            for name, command, environment in decoders:
                wrong = _pictures(arguments.pictures, command, environment)
                different += wrong
                isa = environment.get("LATENS_ISA", "")
                print(f"{name:8} {isa:9} {len(arguments.pictures)} pictures, {wrong} differ", flush=True)
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
