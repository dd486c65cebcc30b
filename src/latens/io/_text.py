"""Strings from outside, made safe to print."""

from __future__ import annotations

import os

NOT_KEPT = "not kept: "
"""How a note begins that names what is lost; such notes are shown even where others are not wanted."""


def printable(text: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> str:
    """`text` with every character that does not print as itself written as an escape.

    That covers control characters (so no terminal escapes), marks that reverse or hide text, line and
    paragraph separators, unusual spaces, and bytes of a file name that are not valid text.

    >>> printable("a\\x1b[31mb\\u202ec")
    'a\\\\x1b[31mb\\\\u202ec'
    """
    plain = os.fsdecode(text)
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in plain
    )
