"""GaussianConditional and EntropyBottleneck beside CompressAI's: same tensors, same run, one thread.

    python benchmarks/entropy_models.py --peer PYTHON_WITH_COMPRESSAI [--rounds 15]

Both run as processes of their own and take turns, one repetition each, so that a busy machine is busy for
both. Printed are the medians of the paired ratios, the medians of the times, and whether the bytes are equal.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import time
from typing import Any

CASES = {"0.15 bits": 0.12, "0.9 bits": 0.45, "2.5 bits": 1.5, "6 bits": 18.0}
"""Bits per latent, and the scale around which the latents lie."""

SHAPE = (1, 192, 32, 48)


def worker(package: str) -> None:
    """Time one repetition of everything for each line that comes in."""
    import numpy as np
    import torch

    if package == "compressai":
        from compressai.entropy_models import EntropyBottleneck, GaussianConditional
        from compressai.models.base import get_scale_table
    else:
        from latens.entropy_models import EntropyBottleneck, GaussianConditional
        from latens.models.base import get_scale_table

    torch.set_num_threads(1)
    gaussian = GaussianConditional(None)
    gaussian.update_scale_table(get_scale_table())
    torch.manual_seed(0)
    bottleneck = EntropyBottleneck(SHAPE[1]).eval()
    bottleneck.update()
    random = np.random.default_rng(0)

    def tensor(values: Any) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32))

    calls: dict[str, Any] = {}
    digests = []
    for name, level in CASES.items():
        scales = tensor(level * np.exp(0.6 * random.standard_normal(SHAPE)))
        means = tensor(random.standard_normal(SHAPE))
        y = means + scales * tensor(random.standard_normal(SHAPE))
        indexes = gaussian.build_indexes(scales)
        strings = gaussian.compress(y, indexes, means)
        digests.append(hashlib.sha256(strings[0]).hexdigest())
        calls[f"GaussianConditional.compress, {name}"] = lambda y=y, i=indexes, m=means: gaussian.compress(
            y, i, m
        )
        calls[f"GaussianConditional.decompress, {name}"] = lambda s=strings, i=indexes, m=means: (
            gaussian.decompress(s, i, means=m)
        )
        if level == 1.5:
            calls["GaussianConditional.build_indexes"] = lambda s=scales: gaussian.build_indexes(s)
    z = tensor(3 * random.standard_normal((1, SHAPE[1], 8, 12)))
    strings = bottleneck.compress(z)
    digests.append(hashlib.sha256(strings[0]).hexdigest())
    calls["EntropyBottleneck.compress, 1x192x8x12"] = lambda: bottleneck.compress(z)
    calls["EntropyBottleneck.decompress, 1x192x8x12"] = lambda: bottleneck.decompress(strings, (8, 12))
    calls["EntropyBottleneck.update"] = lambda: bottleneck.update(force=True)

    for call in calls.values():
        call()
    print(json.dumps(digests), flush=True)
    for _ in sys.stdin:
        times = {}
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name] = time.perf_counter() - start
        print(json.dumps(times), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", help="Python interpreter of an environment with CompressAI 1.2.8")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker)
        return
    if not options.peer:
        parser.error("--peer is needed")

    pythons = {"compressai": options.peer, "latens": sys.executable}
    processes = {
        package: subprocess.Popen(
            [python, "-W", "ignore", __file__, "--worker", package],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for package, python in pythons.items()
    }

    def ask(package: str, question: str = "") -> Any:
        process = processes[package]
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(question)
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    digests = [ask(package) for package in pythons]
    rounds = [{package: ask(package, "again\n") for package in pythons} for _ in range(options.rounds)]
    for process in processes.values():
        assert process.stdin is not None
        process.stdin.close()
        process.wait()

    print(f"{'':<46}{'CompressAI':>12}{'Latens':>12}{'ratio':>9}")
    for name in rounds[0]["latens"]:
        theirs, ours = ([r[package][name] for r in rounds] for package in pythons)
        ratio = statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
        print(
            f"{name:<46}{statistics.median(theirs) * 1e3:>9.2f} ms{statistics.median(ours) * 1e3:>9.2f} ms"
            f"{ratio:>8.1f}x"
        )
    print("bytes:", "identical" if digests[0] == digests[1] else "DIFFERENT")


if __name__ == "__main__":
    main()
