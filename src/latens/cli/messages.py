"""Messages to people, on standard error."""

from __future__ import annotations

import sys
from contextlib import suppress

from latens.io import printable


def say(text: str, quiet: bool = False) -> None:
    """One line, made safe to print. Who closes standard error wants to hear nothing."""
    if not quiet and sys.stderr is not None:
        with suppress(OSError):
            print(printable(text), file=sys.stderr, flush=True)


def on_terminal() -> bool:
    """Whether somebody watches standard error."""
    return sys.stderr is not None and sys.stderr.isatty()
