"""Run programs written for CompressAI: ``python -m latens.compat train.py ...``, ``... -m compressai.utils.bench ...``.

With ``--path`` it prints a folder instead. Processes whose ``PYTHONPATH`` begins with that find CompressAI's modules in
Latens, without another word.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from latens.compat import install


def main(arguments: list[str]) -> None:
    """Run what the arguments say, as Python would."""
    if arguments[:1] == ["--path"]:
        print(Path(__file__).with_name("path"))
        return
    as_module = arguments[:1] == ["-m"]
    rest = arguments[as_module:]
    if not rest or rest[0].startswith("-"):
        raise SystemExit("usage: python -m latens.compat SCRIPT|-m MODULE [ARGUMENTS]   or   --path")
    install()
    sys.argv = rest
    if as_module:
        sys.path.insert(0, "")
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(rest[0]).resolve().parent))
        runpy.run_path(rest[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
