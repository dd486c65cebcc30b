"""Do integer networks and moved blocks give the same on other processors? Compiles the core, runs it under QEMU.

    python tools/cross.py [--cases N] [--motions N] [--processors aarch64 s390x riscv64] [--pictures FILE.ltn ...]

Needs Debian's g++-aarch64-linux-gnu, g++-s390x-linux-gnu, g++-riscv64-linux-gnu and qemu-user-static. Random
networks of all kinds of stages (those of tests/runtime/test_engine.py) must give the integers of plain int64
arithmetic everywhere, on this processor's instruction sets, too; streams of vectors, near and far beyond the
picture, the fields and pictures of plain Python (tests/video/slow_motion.py). Beside the coder of symbols that is
all that a frame of video is made with. Pictures are decoded by libltn, which compares them with the checksum in the
file; they take some seconds each.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / folder) for folder in ("runtime", "video")]

import slow_motion  # noqa: E402
from test_engine import Draw  # noqa: E402

from latens import format as ltn  # noqa: E402
from latens.runtime import reference  # noqa: E402
from latens.zoo.cards import card  # noqa: E402

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
    arguments = parser.parse_args()
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
        sets = ("avx2", "sse4", "portable") if os.uname().machine == "x86_64" else ("portable",)
        own: list[dict[str, str]] = [{}, *({"LATENS_ISA": name} for name in sets)]
        runs: list[tuple[list[str], dict[str, str]]] = [([str(here)], environment) for environment in own]
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
            decoders = [("here", [decoder], environment) for environment in own]
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
