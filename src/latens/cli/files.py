"""Which file goes where: inputs to outputs, ``-`` for standard input and output, checked before any work."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from latens.cli.messages import on_terminal
from latens.errors import ImageError, LatensError, OutputError
from latens.io import atomic_write, check_output, printable

STANDARD = "-"
EXIT_SALVAGED = 3


class Inputs:
    """All files that a command reads, by what they are and not by how they are called.

    Looked up once each: comparing every output with every input would take minutes for thousands of files.
    """

    def __init__(self, sources: Iterable[str]) -> None:
        self._names: dict[tuple[int, int], str] = {}
        for source in sources:
            with suppress(OSError, ValueError):
                status = Path(source).stat()
                self._names[status.st_dev, status.st_ino] = source

    def same_as(self, target: str) -> list[str]:
        """The input that is the file ``target``, if there is one."""
        with suppress(OSError, ValueError):
            status = Path(target).stat()
            name = self._names.get((status.st_dev, status.st_ino))
            return [] if name is None else [name]
        return []


@dataclass(frozen=True)
class Job:
    """One file to read and one to write; ``-`` stands for standard input or output.

    ``new_folder``: whether the folder of the target is made if it is not there.
    """

    source: str
    target: str
    inputs: Inputs
    new_folder: bool

    @property
    def source_name(self) -> str:
        """For messages."""
        return shown(self.source)

    @property
    def target_name(self) -> str:
        """For messages."""
        return "standard output" if self.target == STANDARD else printable(self.target)


def shown(source: str) -> str:
    """An input as messages name it."""
    return "standard input" if source == STANDARD else printable(source)


@contextmanager
def named(source: str) -> Iterator[None]:
    """Put the name of an input before the message of every error."""
    try:
        yield
    except LatensError as error:
        raise type(error)(f"{shown(source)}: {error}") from error


def plan(sources: list[str], output: str | None, suffix: str, force: bool) -> list[Job]:
    """The jobs of a command, all of them checked; nothing is written.

    One source may go to a file, or to standard output; several go to a folder, or each beside its source. A folder is
    made if ``output`` names it; that of a file has to be there.

    Raises:
        OutputError: two sources would write the same file, or an output must not be written.
        ImageError: an input without a name.
    """
    is_folder = output is not None and (
        len(sources) > 1 or output.endswith(("/", os.sep)) or _is_folder(output)
    )
    if is_folder and output == STANDARD:
        raise OutputError("several inputs cannot all go to standard output; give a folder with -o")
    inputs = Inputs(source for source in sources if source != STANDARD)
    jobs = []
    for source in sources:
        if not source:
            raise ImageError("an input has an empty name")
        if output is not None and not is_folder:
            target = output
        elif source == STANDARD:
            target = STANDARD if output is None else str(Path(output) / f"stdin{suffix}")
        else:
            folder = Path(source).parent if output is None else Path(output)
            target = str(folder / (Path(source).stem + suffix))
        jobs.append(Job(source, target, inputs, is_folder))
    _check(jobs, force)
    return jobs


def _check(jobs: list[Job], force: bool) -> None:
    if sum(job.source == STANDARD for job in jobs) > 1:
        raise OutputError("standard input can be read only once")
    taken: dict[str, Job] = {}
    for job in jobs:
        if job.target == STANDARD:
            if sys.stdout is None or sys.stdout.isatty():
                raise OutputError(
                    "standard output is closed or a terminal; redirect it, or name a file with -o"
                )
            continue
        key = os.path.normcase(os.path.realpath(job.target))
        # Some file systems do not tell upper from lower case: two such names would be one file there.
        if (other := taken.setdefault(key.casefold(), job)) is not job:
            raise OutputError(
                f"{other.source_name} and {job.source_name} would both be written to {job.target_name}; "
                "nothing was written"
            )
    for job in taken.values():
        folder = Path(job.target).parent
        if _is_folder(folder) or not job.new_folder:
            check_output(job.target, force=force, inputs=job.inputs.same_as(job.target))
        else:
            _check_folder(folder)


def _check_folder(folder: Path) -> None:
    """Whether a folder that does not exist could be made, as :func:`write` will do."""
    above = next(parent for parent in folder.absolute().parents if os.path.lexists(parent))
    if os.path.lexists(folder) or not _is_folder(above):
        raise OutputError(f"{printable(folder)}: cannot be made a folder: something else is in its place")
    if not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(f"{printable(folder)}: cannot be made: {printable(above)} is not writable")


def _is_folder(path: str | Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112  (Path.is_dir raises for names that are too long)


def open_source(source: str) -> BinaryIO | str:
    """What the image reader takes: a path, or standard input.

    Raises:
        ImageError: standard input is closed.
    """
    if source != STANDARD:
        return source
    if sys.stdin is None:
        raise ImageError("standard input is closed")
    return sys.stdin.buffer


def write(job: Job, data: bytes, force: bool) -> None:
    """Write a whole result, which never replaces an input.

    Raises:
        OutputError: it cannot be written.
    """
    if job.target == STANDARD:
        to_standard_output(data)
        return
    folder = Path(job.target).parent
    if job.new_folder:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{printable(folder)}: cannot be made ({error.strerror})") from error
    atomic_write(job.target, data, force=force, inputs=job.inputs.same_as(job.target))


def show(text: str) -> None:
    """Results, to standard output."""
    to_standard_output((text + "\n").encode(errors="backslashreplace"))


def to_standard_output(data: bytes) -> None:
    """Write to standard output, all of it now.

    Raises:
        OutputError: it cannot be written.
        BrokenPipeError: nobody reads it any more.
    """
    if sys.stdout is None:
        raise OutputError("standard output is closed")
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output: cannot be written ({error.strerror})") from error


def with_progress(jobs: list[Job], verb: str, quiet: bool) -> Iterator[Job]:
    """The jobs one by one, with a progress bar on a terminal if there are several."""
    if len(jobs) < 2 or quiet or not on_terminal():
        yield from jobs
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True, markup=False, highlight=False)) as progress:
        task = progress.add_task(verb, total=len(jobs))
        for job in jobs:
            yield job
            progress.advance(task)
