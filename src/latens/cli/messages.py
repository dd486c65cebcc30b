"""Messages to people, on standard error."""

from __future__ import annotations

import sys
from contextlib import suppress

from latens.errors import LatensError
from latens.io import printable


def say(text: str, quiet: bool = False) -> None:
    """One line, made safe to print. Who closes standard error wants to hear nothing."""
    if not quiet and sys.stderr is not None:
        with suppress(OSError):
            print(printable(text), file=sys.stderr, flush=True)


def on_terminal() -> bool:
    """Whether somebody watches standard error."""
    return sys.stderr is not None and sys.stderr.isatty()


def reason(error: BaseException) -> str:
    """What an error means to people, in a line."""
    if isinstance(error, LatensError):
        return str(error)
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return "not enough memory"
    what = f"{type(error).__name__}: {printable(str(error))}"
    return f"unexpected error, please report it ({what}); --debug shows more"
