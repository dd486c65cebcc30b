"""Options that commands share."""

from typing import Annotated

import typer

__all__ = [
    "FilesFrom",
    "Force",
    "Jobs",
    "Json",
    "Lines",
    "ManifestFile",
    "OtherWeights",
    "Quiet",
    "Ray",
    "Recursive",
    "SkipExisting",
    "Threads",
    "WeightsDir",
]

Force = Annotated[bool, typer.Option("--force", "-f", help="Replace existing files.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable.")]
Lines = Annotated[bool, typer.Option("--json", help="A line of JSON for each file, and one for all.")]
OtherWeights = Annotated[
    bool, typer.Option("--other-weights", help="Accept weights other than the file was made with.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors, and what is not kept.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; all cores by default.")]
WeightsDir = Annotated[
    str | None,
    typer.Option("--weights-dir", help="Folder with sets of weights that are not in the package."),
]
Recursive = Annotated[
    bool, typer.Option("--recursive", "-r", help="Take all files of folders; the output keeps their tree.")
]
SkipExisting = Annotated[
    bool, typer.Option("--skip-existing", help="Leave out what has a result: goes on with a stopped batch.")
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs", "-j", min=1, max=256, help="Files at a time, which share the threads; chosen by default."
    ),
]
FilesFrom = Annotated[
    str | None,
    typer.Option(
        "--files-from", metavar="LIST", help="A file with more inputs, one on a line; '-' is standard input."
    ),
]
ManifestFile = Annotated[
    str | None,
    typer.Option(
        "--manifest",
        metavar="FILE",
        help="Write down what is done, as it is done; the same command again does the rest.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="[ADDRESS]",
        help="On the machines of a Ray cluster: HOST:PORT, or auto (that of RAY_ADDRESS, else this machine), which is "
        "what it means without an address.",
    ),
]
