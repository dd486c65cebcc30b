"""Which file goes where: inputs to outputs, ``-`` for standard input and output, checked before any work."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from latens.errors import OutputError
from latens.io import atomic_write, check_output, printable

STANDARD = "-"


@dataclass(frozen=True)
class Job:
    """One file to read and one to write; ``-`` stands for standard input or output."""

    source: str
    target: str

    @property
    def source_name(self) -> str:
        """For messages."""
        return "standard input" if self.source == STANDARD else printable(self.source)

    @property
    def target_name(self) -> str:
        """For messages."""
        return "standard output" if self.target == STANDARD else printable(self.target)


def plan(sources: list[str], output: str | None, suffix: str, force: bool) -> list[Job]:
    """The jobs of a command, all of them checked.

    One source may go to a file, or to standard output; several go to a folder, or each beside its source.

    Raises:
        OutputError: two sources would write the same file, or an output must not be written.
    """
    is_folder = output is not None and (
        len(sources) > 1 or output.endswith(("/", os.sep)) or Path(output).is_dir()
    )
    if is_folder and output == STANDARD:
        raise OutputError("several inputs cannot all go to standard output; give a folder with -o")
    if is_folder and not Path(str(output)).is_dir():
        try:
            Path(str(output)).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{printable(str(output))}: cannot be made a folder ({error.strerror})"
            ) from error
    jobs = []
    for source in sources:
        if output is not None and not is_folder:
            target = output
        elif source == STANDARD:
            target = STANDARD if output is None else str(Path(output) / f"stdin{suffix}")
        else:
            folder = Path(source).parent if output is None else Path(output)
            target = str(folder / (Path(source).stem + suffix))
        jobs.append(Job(source, target))
    _check(jobs, force)
    return jobs


def _check(jobs: list[Job], force: bool) -> None:
    taken: dict[str, Job] = {}
    sources = [job.source for job in jobs if job.source != STANDARD]
    if sum(job.source == STANDARD for job in jobs) > 1:
        raise OutputError("standard input can be read only once")
    for job in jobs:
        if job.target == STANDARD:
            continue
        key = os.path.normcase(Path(job.target).resolve())
        # Some file systems do not tell upper from lower case: two such names would be one file there.
        if (other := taken.setdefault(key.casefold(), job)) is not job:
            raise OutputError(
                f"{other.source_name} and {job.source_name} would both be written to {job.target_name}; "
                "nothing was written"
            )
        check_output(job.target, force=force, inputs=sources)


def open_source(job: Job) -> BinaryIO | str:
    """What the image reader takes."""
    return sys.stdin.buffer if job.source == STANDARD else job.source


def write(job: Job, data: bytes, force: bool, inputs: Iterable[str] = ()) -> None:
    """Write a whole result.

    Raises:
        OutputError: it cannot be written.
    """
    if job.target != STANDARD:
        atomic_write(job.target, data, force=force, inputs=[s for s in inputs if s != STANDARD])
        return
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output: cannot be written ({error.strerror})") from error


def with_progress(jobs: list[Job], verb: str, quiet: bool) -> Iterator[Job]:
    """The jobs one by one, with a progress bar on a terminal if there are several."""
    if len(jobs) < 2 or quiet or not sys.stderr.isatty():
        yield from jobs
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True, markup=False, highlight=False)) as progress:
        task = progress.add_task(verb, total=len(jobs))
        for job in jobs:
            yield job
            progress.advance(task)
