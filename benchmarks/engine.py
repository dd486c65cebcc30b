"""Speed of the integer engine on every instruction set of this processor, in products a second.

    python benchmarks/engine.py [--threads 1 2] [--seconds 1]

The shapes are those of the default model, at an eighth and a sixteenth of 768x512. `GMAC/s` is by wall clock, the
best of the runs; `of CPU` is by the processor time of all threads, which other work on the machine changes little.
"""

import argparse
import os
import subprocess
import sys
import time
from typing import Any

import numpy as np

from latens import _native

Stages = list[tuple[str, dict[str, Any]]]


def _form(outputs: int, inputs: int, kernel: int = 1, gate: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(outputs * inputs + kernel)
    most = 2**29 // (8192 * inputs * kernel**2)
    return {
        "weight": rng.integers(-most, most + 1, (outputs, kernel, kernel, inputs)).astype(np.int16),
        "bias": np.zeros(outputs, np.int32),
        "shift": np.full(outputs, 14, np.uint8),
        "low": -32768,
        "high": 32767,
        "gate": gate,
    }


def _product(outputs: int, inputs: int, kernel: int = 1) -> Stages:
    return [("product", _form(outputs, inputs, kernel))]


def _block(channels: int, inner: int, hidden: int) -> Stages:
    rng = np.random.default_rng(channels)
    dw = {
        "weight": rng.integers(-3000, 3000, (inner, 3, 3)).astype(np.int16),
        "bias": np.zeros(inner, np.int32),
        "shift": np.full(inner, 14, np.uint8),
    }
    parts = {"pw_in": _form(inner, channels, gate=10), "dw": dw, "pw_out": _form(channels, inner)}
    parts |= {"ffn_in": _form(hidden, channels, gate=10), "ffn_out": _form(channels, hidden)}
    return [("block", parts)]


def _synthesis() -> Stages:
    pixels = _form(192, 128)
    pixels = {"weight": pixels["weight"].reshape(192, 128), "bias": pixels["bias"], "shift": 14}
    up: Stages = [*_product(512, 320), ("shuffle", {"r": 2})]
    return [*_block(320, 192, 384) * 2, *up, *_block(128, 128, 256) * 8, ("pixels", pixels)]


def _macs(stages: Stages) -> int:
    """Products for each position of the input."""
    total, positions = 0, 1
    for kind, form in stages:
        if kind == "shuffle":
            positions *= form["r"] ** 2
        parts = form.values() if kind == "block" else [form] if "weight" in form else []
        total += positions * sum(part["weight"].size for part in parts)
    return total


CASES: dict[str, tuple[Stages, tuple[int, int, int]]] = {
    "product 128 to 128": (_product(128, 128), (64, 96, 128)),
    "product 3x3, 128 to 128": (_product(128, 128, 3), (64, 96, 128)),
    "block 128, 128, 256": (_block(128, 128, 256), (64, 96, 128)),
    "block 320, 192, 384": (_block(320, 192, 384), (32, 48, 320)),
    "synthesis, 768x512": (_synthesis(), (32, 48, 320)),
}


def _measure(threads: int, seconds: float) -> None:
    _native.set_threads(threads)
    for name, (stages, shape) in CASES.items():
        network = _native.Network(stages, (-8192, 8191))
        x = np.random.default_rng(0).integers(-8192, 8192, shape).astype(np.int16)
        samples = (8, 3) if stages[-1][0] == "pixels" else None
        macs = _macs(stages) * shape[0] * shape[1] / 1e9
        best, cpu, end = float("inf"), float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < end:
            wall, used = time.perf_counter(), time.process_time()
            network.run(x, (), samples)
            best, cpu = min(best, time.perf_counter() - wall), min(cpu, time.process_time() - used)
        print(
            f"{network.isa:9}{threads:2} {name:24} {macs:6.2f} GMAC {1e3 * best:8.2f} ms {macs / best:7.1f} GMAC/s"
            f" {macs / cpu:7.1f} of CPU",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each case")
    arguments = parser.parse_args()
    if os.environ.get("LATENS_ISA"):
        for threads in arguments.threads:
            _measure(threads, arguments.seconds)
        return
    for isa in ("avx512", "avx2", "sse4", "neon", "portable"):
        check = "from latens import _native; _native.Network([('input', {})], (0, 0))"
        environment = os.environ | {"LATENS_ISA": isa}
        tried = subprocess.run([sys.executable, "-c", check], env=environment, capture_output=True)
        if tried.returncode == 0:
            subprocess.run([sys.executable, *sys.argv], env=environment, check=True)


if __name__ == "__main__":
    main()
