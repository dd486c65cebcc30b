"""What the benchmarks share: the line that says where they ran, and a peer in another environment."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from latens.evaluate import results


def machine() -> str:
    """Processor, threads and versions, in one line."""
    about = results.machine()
    packages = ", ".join(f"{name} {version}" for name, version in results.versions().items())
    return f"{about['processor']}, {about['cores']} cores, {torch.get_num_threads()} threads; {packages}"


class Peer:
    """A script in another Python environment that answers one line of JSON with another, to take turns with.

    Args:
        python: the interpreter.
        script: its source, or the file it is in; reads requests from standard input, one a line, and prints its
            answers.
        arguments: for the script.
        environment: added to this process's own.
    """

    def __init__(
        self,
        python: str,
        script: str | Path,
        arguments: Sequence[str] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        where = [str(script)] if isinstance(script, Path) else ["-c", script]
        self._process = subprocess.Popen(
            [python, "-W", "ignore", *where, *arguments],
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
