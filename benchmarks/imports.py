"""What ``import latens`` costs.

    python benchmarks/imports.py [--rounds 5]

Each import runs in a process of its own; printed are the least processor times of all rounds, which other work on the
machine disturbs least, and which of the packages were loaded that nobody wants to wait for.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

IMPORTS = {
    "nothing": "",
    "torch": "import torch",
    "latens": "import latens",
    "latens.models": "import torch, latens.models",
    "latens.zoo": "import torch, latens.zoo",
    "the command line": "import latens.cli.app",
}
HEAVY = ("torch", "matplotlib", "pandas", "scipy", "torchvision")


def processor_time(statement: str) -> tuple[float, str]:
    """Seconds that a process needs for ``statement``, and the heavy packages that it loads."""
    report = f"import sys; print(*(name for name in {HEAVY} if name in sys.modules))"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(
        [sys.executable, "-c", f"{statement}\n{report}"], capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, run.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    found = {
        name: min(processor_time(statement) for _ in range(options.rounds))
        for name, statement in IMPORTS.items()
    }
    for name, (seconds, loaded) in found.items():
        base = "torch" if "torch" in loaded.split() else "nothing"
        beyond = seconds - found[base][0]
        print(f"{name:<18}{seconds:>7.2f} s{beyond:>8.2f} s beyond {base:<9} loaded: {loaded or '-'}")


if __name__ == "__main__":
    main()
