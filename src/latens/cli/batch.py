"""Doing many jobs: several at a time, each failing for itself, with a line for each and one for all."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from latens.cli import files
from latens.cli.messages import on_terminal, reason, say
from latens.errors import LatensError, OutputError
from latens.io import NOT_KEPT, remote, remove_leftovers

if TYPE_CHECKING:
    from latens.cli.manifest import Manifest

__all__ = ["EXIT_ERROR", "Do", "Done", "Interruption", "Result", "here", "interruption", "run", "share"]

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
_MOST_JOBS = 8  # each takes memory in proportion to its image
_NO_PLACE = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EROFS}


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a job.

    Attributes:
        text: for people.
        before: bytes of the input, None if unknown.
        after: bytes of the output.
        bpp: bits per pixel of the ``.ltn`` file.
        notes: what was converted or left out, and what was damaged.
        salvaged: whether only a part could be had.
    """

    text: str
    before: int | None
    after: int
    bpp: float
    notes: Sequence[str] = ()
    salvaged: bool = False


class Interruption:
    """Whether Ctrl-C was pressed: its exception gets lost in destructors and foreign libraries."""

    def __init__(self) -> None:
        self.came = False

    def check(self) -> None:
        """Raise the exception that was lost."""
        if self.came:
            raise KeyboardInterrupt


interruption = Interruption()


def share(count: int, jobs: int | None, threads: int | None) -> tuple[int, int | None]:
    """How many jobs run at a time, and with how many threads each; None leaves that to the libraries.

    Args:
        count: of jobs, those included that have nothing to do any more: a batch that goes on where it was stopped must
            give the same bytes.
        jobs: at a time; chosen here if it is None.
        threads: for all of them together; as many as there are processors if it is None.
    """
    if count == 1:
        return 1, threads
    total = _processors() if threads is None else threads
    jobs = min(total, _MOST_JOBS) if jobs is None else jobs
    return jobs, max(total // jobs, 1)


def _processors() -> int:
    """How many this process may use."""
    found = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    # Who says so to the libraries below means us, too.
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(found, int(wanted)) if wanted.isdecimal() and int(wanted) else found


def run(
    plan: files.Plan,
    do: Do,
    *,
    verb: str,
    coded: str,
    quiet: bool = False,
    as_json: bool = False,
    debug: bool = False,
    fatal: type[LatensError] | tuple[()] = (),
    manifest: Manifest | None = None,
) -> int:
    """Do all jobs of a plan, and say what came of them.

    A job that fails is reported and the rest goes on, unless its error concerns all: one of ``fatal``, or a disk that
    is full. The error of the only job of a command is raised.

    Args:
        plan: what to do.
        do: does jobs: :func:`here`, or on other machines.
        verb: for the progress bar.
        coded: what jobs that are done are called in the closing line.
        quiet: say nothing but errors.
        as_json: one line of JSON a job and one for all, to standard output.
        debug: show where errors come from.
        fatal: errors that concern all jobs.
        manifest: where it is written down.

    Returns:
        Exit code: 2 if anything failed, else 3 if anything was only salvaged, else 0.
    """
    many = len(plan.jobs) != 1 or plan.recursive
    if as_json and any(job.target == files.STANDARD for job in plan.jobs):
        raise OutputError("--json and the result cannot both go to standard output; name a file with -o")
    report = _Report(plan, coded, many, quiet, as_json, debug, manifest)
    for problem in plan.problems:
        report.trouble(problem)
    waiting = []
    for job in plan.jobs:
        if job.exists:
            report.skipped(job)
        elif job.problem:
            report.failed(job, OutputError(f"{job.source_name}: {job.problem}"), 0.0)
        else:
            waiting.append(job)
    if many:
        local = (j for j in waiting if j.archive is None and not remote.is_remote(j.target))
        targets = (j.target for j in local if j.target != files.STANDARD)
        for folder in {os.path.dirname(target) or "." for target in targets}:  # noqa: PTH120
            remove_leftovers(folder)
    started = time.perf_counter()
    with (
        _progress(verb, len(waiting), many and not quiet) as advance,
        do(waiting, report.begun) as results,
    ):
        for job, seconds, result in results:
            if isinstance(result, Done):
                report.done(job, result, seconds)
            else:
                full = _no_place(result) or _no_entry(job, result)
                ends = full or not many or not isinstance(result, Exception) or isinstance(result, fatal)
                report.failed(job, result, seconds, aloud=not ends)
                if full and many:
                    report.close(time.perf_counter() - started)
                    raise OutputError(
                        f"{result}. All results that are there are complete; the same command with --skip-existing "
                        "goes on from here"
                    ) from result
                if ends:
                    raise result
            advance(result.before or 0 if isinstance(result, Done) else 0)
            interruption.check()
    report.close(time.perf_counter() - started)
    return report.code


def _no_place(error: BaseException) -> bool:
    """Whether a disk takes no more of anything."""
    cause = error.__cause__
    return isinstance(error, OutputError) and isinstance(cause, OSError) and cause.errno in _NO_PLACE


def _no_entry(job: files.Job, error: BaseException) -> bool:
    """Whether a store takes nothing from us: it would be the same for all."""
    return (
        isinstance(error, OutputError)
        and isinstance(error.__cause__, PermissionError)
        and remote.is_remote(job.target)
    )


Result = tuple[files.Job, float, Done | BaseException]
"""A job, seconds, and what came of it."""
Begun = Callable[[files.Job], None]
Do = Callable[[list[files.Job], Begun], AbstractContextManager[Iterator[Result]]]
"""Gives jobs as they get done, of which each is told when it begins. When the block is left early, none goes on."""


def here(work: Callable[[files.Job], Done], at_once: int = 1) -> Do:
    """Do jobs on this machine.

    Args:
        work: does a job; called by several threads if ``at_once`` is more than 1.
        at_once: jobs at a time.
    """
    return lambda jobs, begun: _finished(work, jobs, begun, at_once)


@contextmanager
def _finished(
    work: Callable[[files.Job], Done], jobs: list[files.Job], begun: Begun, at_once: int
) -> Iterator[Iterator[Result]]:
    """See :data:`Do`; those that run are waited for."""
    stopped = False

    def attempt(job: files.Job) -> Result:
        started = time.perf_counter()
        result: Done | BaseException
        try:
            if stopped:
                raise KeyboardInterrupt
            begun(job)
            result = work(job)
        except BaseException as error:
            if at_once == 1 and not isinstance(error, Exception):
                raise
            result = error
        return job, time.perf_counter() - started, result

    if at_once == 1:
        yield map(attempt, jobs)
        return

    from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

    def results() -> Iterator[Result]:
        # Submitted bit by bit: what waits takes memory.
        waiting = iter(jobs)
        running: set[Future[Result]] = {pool.submit(attempt, job) for job in islice(waiting, 2 * at_once)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
            running |= {pool.submit(attempt, job) for job in islice(waiting, len(done))}

    pool = ThreadPoolExecutor(at_once, "latens")
    try:
        yield results()
    finally:
        stopped = True
        try:
            pool.shutdown(cancel_futures=True)
        except KeyboardInterrupt:  # a second time: at once
            os._exit(EXIT_INTERRUPTED)


class _Report:
    """Tells people, or programs, what happens, and adds up."""

    def __init__(
        self,
        plan: files.Plan,
        coded: str,
        many: bool,
        quiet: bool,
        as_json: bool,
        debug: bool,
        manifest: Manifest | None,
    ) -> None:
        self._manifest = manifest
        self._plan = plan
        self._word = coded
        self._many = many
        self._as_json = as_json
        self._quiet = quiet or as_json
        self._debug = debug
        self._coded = self._skipped = self._failed = self._salvaged = 0
        self._before = self._after = 0

    @property
    def code(self) -> int:
        """Exit code for what happened so far."""
        if self._failed or self._plan.problems:
            return EXIT_ERROR
        return files.EXIT_SALVAGED if self._salvaged else 0

    def done(self, job: files.Job, result: Done, seconds: float) -> None:
        self._coded += 1
        self._salvaged += result.salvaged
        # What was read without anybody knowing how much would make a false percentage.
        if result.before is not None:
            self._before += result.before
            self._after += result.after
        for note in result.notes:
            # What is lost is told to people who want to hear nothing else; programs get it in their line.
            say(
                f"{job.source_name}: {note}", self._quiet and (self._as_json or not note.startswith(NOT_KEPT))
            )
        to = "" if self._word == "verified" else f" -> {job.target_name}"
        say(f"{job.source_name}{to}: {result.text}", self._quiet)
        self._line(
            job,
            "salvaged" if result.salvaged else "coded",
            bytes_before=result.before,
            bytes=result.after,
            bpp=round(result.bpp, 6),
            seconds=round(seconds, 6),
            notes=list(result.notes),
        )

    def begun(self, job: files.Job) -> None:
        if self._manifest is not None:
            self._manifest.write("begun", job.source, job.target)

    def skipped(self, job: files.Job) -> None:
        self._skipped += 1
        self._line(job, "skipped")

    def failed(self, job: files.Job, error: BaseException, seconds: float, aloud: bool = True) -> None:
        self._failed += 1
        self._line(job, "failed", error=reason(error), seconds=round(seconds, 6))
        if aloud:
            name = "" if isinstance(error, LatensError) else f"{job.source_name}: "
            self.trouble(name + reason(error), error)

    def trouble(self, text: str, error: BaseException | None = None) -> None:
        if self._debug and error is not None:
            with suppress(OSError):
                traceback.print_exception(error)
        say(f"latens: error: {text}")

    def close(self, seconds: float) -> None:
        """The line about all."""
        plan = self._plan
        if self._as_json:
            self._print(
                {
                    "coded": self._coded, "skipped": self._skipped, "failed": self._failed,
                    "salvaged": self._salvaged, "other_files": plan.others,
                    "unsupported": dict(plan.unsupported), "links": plan.links,
                    "unreadable_folders": len(plan.problems), "bytes_before": self._before,
                    "bytes": self._after, "seconds": round(seconds, 3),
                }
            )  # fmt: skip
        if plan.unsupported:
            found = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(plan.unsupported.items()))
            say(f"latens: pictures of kinds that are not supported were left alone: {found}")
        if not self._many:
            return
        text = f"{self._coded:,} {self._word}, {self._skipped:,} skipped, {self._failed:,} failed"
        if self._before and self._word != "verified":
            text += f"; {megabytes(self._before)} -> {megabytes(self._after)} ({percent(self._after, self._before)})"
        if self._coded:
            text += f", {self._coded / max(seconds, 1e-9):.1f} files per second"
        left = [
            f"{count:,} {what if count > 1 else one}"
            for count, one, what in (
                (plan.others, "other file", "other files"),
                (plan.links, "link to a folder", "links to folders"),
            )
            if count
        ]
        say(text + (f"; {' and '.join(left)} left alone" if left else ""), self._quiet)

    def _line(self, job: files.Job, status: str, **more: Any) -> None:
        if self._manifest is not None and status != "skipped":
            self._manifest.write(status, job.source, job.target, **more)
        if self._as_json:
            self._print({"source": job.source, "target": job.target, "status": status, **more})

    def _print(self, record: dict[str, Any]) -> None:
        files.show(json.dumps(record))


def megabytes(size: int) -> str:
    """A size as people say it."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def percent(after: int, before: int) -> str:
    """One size in per cent of another."""
    return f"{100 * after / max(before, 1):.1f} %"


@contextmanager
def _progress(verb: str, total: int, wanted: bool) -> Iterator[Callable[[int], None]]:
    """A bar with count, speed and what is left, on a terminal; takes the bytes of each input that is done."""
    if total < 2 or not wanted or not on_terminal():
        yield lambda size: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    started = time.perf_counter()
    count = read = 0
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True, markup=False, highlight=False)) as progress:
        task = progress.add_task(verb, total=total, speed="")

        def advance(size: int) -> None:
            nonlocal count, read
            count += 1
            read += size
            seconds = max(time.perf_counter() - started, 1e-9)
            progress.update(
                task, advance=1, speed=f"{count / seconds:.1f} files/s, {read / 1e6 / seconds:.1f} MB/s"
            )

        yield advance


@contextmanager
def progress(verb: str, wanted: bool) -> Iterator[Callable[[float], None] | None]:
    """A bar for one large file, where somebody looks; what it gives takes the share that is done."""
    if not wanted or not on_terminal():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True, markup=False, highlight=False)) as shown:
        task = shown.add_task(verb, total=1.0)
        yield lambda share: shown.update(task, completed=share)


def counted(rows: Iterator[Any], total: int, progress: Callable[[float], None] | None) -> Iterator[Any]:
    """The same rows; of how many of all have come, ``progress`` is told."""
    done = 0
    for part in rows:
        yield part
        done += len(part)
        if progress is not None:
            progress(done / total)
