"""The coder beside CompressAI's: the same bytes? how much faster?

    python benchmarks/coder.py --peer OTHER_ENVIRONMENT/bin/python [--write-vectors tests/vectors/coder]

CompressAI runs in a process of its own, in an environment of its own; arrays go through ``.npz`` files, and
each side times itself with its inputs ready in the form it likes best: lists there, arrays here. Without
``--peer`` only Latens is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from latens.entropy_coding import (
    CdfTables,
    LaneDecoder,
    LaneEncoder,
    choose_lanes,
    decode,
    encode,
    pmf_to_quantized_cdf,
    pmfs_to_quantized_cdfs,
)

ROUNDS = 15
TURNS = 3

# What the other side runs: no import from here, since Latens is not installed there.
PEER = """
import json, sys, time
import numpy as np
from compressai._CXX import pmf_to_quantized_cdf
from compressai.ans import BufferedRansEncoder, RansDecoder, RansEncoder

source, target, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
cases, result, times = np.load(source), {}, {}
for name in sorted({key.split("/")[0] for key in cases.files}):
    case = {key.split("/")[1]: cases[key] for key in cases.files if key.startswith(name + "/")}
    if "pmf" in case:
        result[name] = np.array(pmf_to_quantized_cdf(case["pmf"].tolist(), 16), np.int32)
        continue
    tables = [case[key].tolist() for key in ("cdfs", "sizes", "offsets")]
    symbols, indexes = case["symbols"].tolist(), case["indexes"].tolist()
    encode_time = decode_time = float("inf")
    for _ in range(rounds if name == "speed" else 1):
        start = time.perf_counter()
        stream = RansEncoder().encode_with_indexes(symbols, indexes, *tables)
        middle = time.perf_counter()
        decoded = RansDecoder().decode_with_indexes(stream, indexes, *tables)
        end = time.perf_counter()
        encode_time, decode_time = min(encode_time, middle - start), min(decode_time, end - middle)
    if decoded != symbols:
        sys.exit(f"{name}: CompressAI does not decode its own stream")
    times[name] = [encode_time, decode_time]
    result[name] = np.frombuffer(stream, np.uint8)
np.savez(target, **result)
print(json.dumps(times["speed"]))
"""

Case = dict[str, np.ndarray[Any, Any]]


def gaussian_tables() -> Case:
    """The 64 tables of the field's Gaussian models: scales 0.11 to 256, tail mass 1e-9."""
    from math import erfc, sqrt

    scales = np.exp(np.linspace(np.log(0.11), np.log(256), 64))
    reach = np.ceil(scales * 6.109410204869).astype(int)
    upper = np.vectorize(lambda t: 0.5 * erfc(t / sqrt(2)))
    pmfs = np.zeros((64, 2 * reach.max() + 2), np.float32)
    for row, scale, r in zip(pmfs, scales, reach, strict=True):
        distance = np.abs(np.arange(-r, r + 1))
        row[: 2 * r + 1] = upper((distance - 0.5) / scale) - upper((distance + 0.5) / scale)
        row[2 * r + 1] = 2 * upper((r + 0.5) / scale)
    cdfs = pmfs_to_quantized_cdfs(pmfs, 2 * reach + 2)
    return {"cdfs": cdfs, "sizes": 2 * reach + 3, "offsets": -reach, "scales": scales}


def speed_case(rng: np.random.Generator, n: int) -> Case:
    """``n`` symbols, every table equally often, each symbol drawn from its table's Gaussian."""
    case = gaussian_tables()
    scales = case.pop("scales")
    indexes = rng.integers(0, 64, n).astype(np.int32)
    symbols = np.round(rng.normal(size=n) * scales[indexes]).astype(np.int32)
    return {**case, "symbols": symbols, "indexes": indexes}


def random_case(rng: np.random.Generator, tables: int, width: int, n: int) -> Case:
    """Random tables and symbols, of which some lie far outside of their table."""
    sizes = rng.integers(3, width + 1, tables)
    cdfs = np.zeros((tables, sizes.max()), np.int32)
    for row, size in zip(cdfs, sizes, strict=True):
        kind = rng.integers(3)
        inner = rng.choice(65535, size - 2, replace=False) + 1
        if kind == 1:  # one symbol has nearly everything
            inner = np.arange(1, size - 1)
        elif kind == 2:
            inner = 65536 - np.arange(1, size - 1)
        row[1:size] = [*np.sort(inner), 65536]
    offsets = rng.integers(-width, width, tables)
    indexes = rng.integers(0, tables, n)
    symbols = offsets[indexes] + rng.integers(-2, sizes[indexes] + 2)
    far = rng.random(n) < 0.1
    # CompressAI never returns for a distance of 2^27 or more, where its shift by 32 bits is undefined.
    reach = 2 ** rng.integers(0, 26, n)
    symbols = np.where(far, symbols + rng.integers(-reach, reach + 1), symbols)
    return {"cdfs": cdfs, "sizes": sizes, "offsets": offsets, "symbols": symbols, "indexes": indexes}


def random_pmf(rng: np.random.Generator) -> Case:
    """A distribution with many probabilities that round to zero."""
    n = int(rng.integers(2, 2000))
    pmf = rng.random(n) ** rng.integers(1, 40)
    pmf[rng.random(n) < rng.random()] = 0
    pmf[rng.integers(n)] += rng.random() + 1e-3
    return {"pmf": (pmf / pmf.sum()).astype(np.float32)}


def our_result(case: Case) -> np.ndarray[Any, Any]:
    if "pmf" in case:
        return np.array(pmf_to_quantized_cdf(case["pmf"]), np.int32)
    tables = CdfTables(case["cdfs"], case["sizes"], case["offsets"])
    stream = encode(case["symbols"], case["indexes"], tables)
    if not np.array_equal(decode(stream, case["indexes"], tables), case["symbols"]):
        sys.exit("Latens does not decode its own stream")
    return np.frombuffer(stream, np.uint8)


def best(function: Callable[[], object]) -> float:
    """The shortest of several runs, in seconds."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def our_times(case: Case) -> dict[str, float]:
    tables = CdfTables(case["cdfs"], case["sizes"], case["offsets"])
    symbols, indexes = case["symbols"], case["indexes"]
    stream = encode(symbols, indexes, tables)
    short, small = symbols.astype(np.int16), indexes.astype(np.uint8)
    lanes = choose_lanes(symbols.size)

    def lane_encode() -> bytes:
        encoder = LaneEncoder()
        encoder.push(short, small, tables)
        return encoder.finish(lanes)

    laned = lane_encode()

    def lane_decode() -> np.ndarray[Any, Any]:
        decoder = LaneDecoder(laned, lanes)
        decoded = decoder.decode(small, tables)
        decoder.finish()
        return decoded

    if not np.array_equal(lane_decode(), symbols):
        sys.exit("Latens does not decode its own lanes")
    return {
        "encode": best(lambda: encode(symbols, indexes, tables)),
        "decode": best(lambda: decode(stream, indexes, tables)),
        "encode, lanes": best(lane_encode),
        "decode, lanes": best(lane_decode),
        "register the tables": best(lambda: CdfTables(case["cdfs"], case["sizes"], case["offsets"])),
        "bytes": len(stream),
        "bytes, lanes": len(laned),
    }


def run_peer(python: str, cases: dict[str, Case]) -> tuple[dict[str, np.ndarray[Any, Any]], list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "cases.npz"), Path(folder, "results.npz")
        flat = {f"{name}/{key}": array for name, case in cases.items() for key, array in case.items()}
        np.savez(source, allow_pickle=False, **flat)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [python, "-W", "ignore", "-c", PEER, str(source), str(target), str(ROUNDS)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        with np.load(target) as results:
            return {name: results[name] for name in results.files}, json.loads(done.stdout)


def write_vectors(folder: Path, cases: dict[str, Case], results: dict[str, np.ndarray[Any, Any]]) -> None:
    """Freezes the small cases with the other side's results, for tests without a second environment."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = [name for name, case in cases.items() if name.startswith("vector") or "pmf" in case][:20]
    flat: dict[str, Any] = {f"{name}/{key}": array for name in kept for key, array in cases[name].items()}
    flat |= {f"{name}/expected": results[name] for name in kept}
    np.savez_compressed(folder / "compressai.npz", allow_pickle=False, **flat)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", metavar="PYTHON", help="a Python that has CompressAI 1.2.8")
    parser.add_argument("--symbols", type=int, default=300_000, help="default: %(default)s")
    parser.add_argument(
        "--cases", type=int, default=200, help="random cases to compare (default: %(default)s)"
    )
    parser.add_argument("--write-vectors", metavar="FOLDER", type=Path)
    options = parser.parse_args()

    rng = np.random.default_rng(20)
    cases = {"speed": speed_case(rng, options.symbols)}
    cases |= {f"vector{i}": random_case(rng, 5, 40, 400) for i in range(8)}
    cases |= {f"pmf{i}": random_pmf(rng) for i in range(options.cases)}
    for i in range(options.cases):
        tables, width = [(80, 60), (80, 4), (30, 3000), (3, 65537)][i % 4]
        cases[f"random{i}"] = random_case(rng, int(rng.integers(1, tables + 1)), width, 2000)
    ours = our_times(cases["speed"])
    peer_times = None
    if options.peer:
        results, peer_times = run_peer(options.peer, cases)
        # Take turns, and the best of each side: other work on the machine must not favour one.
        for _ in range(TURNS - 1):
            again = our_times(cases["speed"])
            ours = {what: min(ours[what], again[what]) for what in ours}
            _, times = run_peer(options.peer, {"speed": cases["speed"]})
            peer_times = [min(pair) for pair in zip(peer_times, times, strict=True)]
        different = [name for name in cases if not np.array_equal(our_result(cases[name]), results[name])]
        print(f"{len(cases)} cases, {len(different)} with other bytes than CompressAI's {different[:5]}")
        if options.write_vectors:
            write_vectors(options.write_vectors, cases, results)
        if different:
            sys.exit(1)

    print(f"{options.symbols} symbols, 64 Gaussian tables, one thread, best of {TURNS} x {ROUNDS}:")
    for what in ("encode", "decode", "encode, lanes", "decode, lanes"):
        line = f"  {what:<14} {ours[what] * 1e9 / options.symbols:6.2f} ns a symbol"
        if peer_times:
            other = peer_times[what.startswith("decode")]
            line += f"   CompressAI {other * 1e9 / options.symbols:6.2f} ns: {other / ours[what]:.1f}x"
        print(line)
    print(f"  register the tables: {ours['register the tables'] * 1e3:.2f} ms")
    print(f"  {ours['bytes']:.0f} bytes; {ours['bytes, lanes']:.0f} in lanes")


if __name__ == "__main__":
    main()
