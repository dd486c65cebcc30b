"""Options that commands share."""

from typing import Annotated

import typer

__all__ = ["Force", "Json", "OtherWeights", "Quiet", "Threads"]

Force = Annotated[bool, typer.Option("--force", "-f", help="Replace existing files.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable.")]
OtherWeights = Annotated[
    bool, typer.Option("--other-weights", help="Accept weights other than the file was made with.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; all cores by default.")]
