"""Doing many jobs on the machines of a Ray cluster; workers may die, and machines come and go."""

from __future__ import annotations

import os
import pickle
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import latens
from latens.cli import batch, files, work
from latens.cli.messages import reason
from latens.errors import LatensError, UnavailableError, WorkerError

__all__ = ["on_ray"]

_EXTRA = "pip install 'latens[cluster]'"
_MOST_FILES = 32  # of a unit of work
_MOST_BYTES = 1 << 26
_MOST_DEATHS = 3  # of workers, at one file
_MOST_FALSE_STARTS = 20  # one after the other
_CONNECT = 10.0  # seconds
_POLL = 5.0  # seconds, after which new machines are counted


def on_ray(worker: work.Encode | work.Decode, address: str, threads: int) -> batch.Do:
    """Do jobs on a cluster; to be given to :func:`latens.cli.batch.run`.

    Units of a few files go to processes that have loaded the model, and what comes of each file is told when it is
    known. If a process dies, or its machine, the rest of its unit goes to others; the file at which it died is tried
    again alone, three times in all. Files that were done are not done again.

    Args:
        worker: does a job.
        address: ``auto``, ``local``, or host and port.
        threads: of each process.

    Raises:
        UnavailableError: Ray is not installed, there is no cluster, or Latens is not the same there.
    """
    return lambda jobs, begun: _finished(jobs, begun, worker, address, threads)


@contextmanager
def _finished(
    jobs: list[files.Job], begun: batch.Begun, worker: Any, address: str, threads: int
) -> Iterator[Iterator[batch.Result]]:
    ray = _connected(address)
    try:
        yield _Cluster(ray, worker, begun, threads).results(jobs)
    finally:
        # Processes that are at work for us end with the connection; files are written whole or not at all.
        ray.shutdown()


def _connected(address: str) -> Any:
    # Nobody is told that it is used.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray: Any = import_module("ray")
    except ImportError as error:
        raise UnavailableError(f"--ray needs Ray, which is not installed: {_EXTRA}") from error
    if address.startswith("ray://"):
        raise UnavailableError(
            "Ray's client (ray://) cannot be used: run latens on a machine of the cluster, with --ray alone, or give "
            "--ray HOST:PORT of its head"
        )
    try:
        if ":" in address:
            # Ray itself would try for many minutes.
            host, port = address.rsplit(":", 1)
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT).close()
        ray.init(
            address=None if address == "auto" else address,
            log_to_driver=False,
            logging_level="error",
            configure_logging=False,
        )
    except Exception as error:
        raise UnavailableError(
            f"no Ray cluster can be reached at {address}: {_first_line(error)}; 'ray status' tells whether there is one"
        ) from error
    return ray


def _first_line(error: BaseException) -> str:
    """The first line of what Ray says, which goes on for pages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


@dataclass
class _Running:
    """A unit of work on its way.

    Attributes:
        left: what has not been told of; the first one is at work, if any.
        ready: whether its process has begun.
    """

    left: deque[files.Job]
    ready: bool = False


class _Cluster:
    """Work units on their way.

    Args:
        ray: the package, connected.
        worker: does a job.
        begun: is told of each job.
        threads: of a process.
    """

    def __init__(self, ray: Any, worker: Any, begun: batch.Begun, threads: int) -> None:
        self._ray, self._begun, self._threads = ray, begun, threads
        # Ray sends everything as pickles, between processes that trust each other; no file is ever read as one.
        self._worker = ray.put(pickle.dumps(worker))
        self._token = os.urandom(16)
        self._unit = ray.remote(num_cpus=threads, max_retries=0, num_returns="streaming")(_unit)
        self._deaths: dict[str, int] = {}
        self._slots, self._counted, self._false_starts = 1, 0.0, 0

    def results(self, jobs: list[files.Job]) -> Iterator[batch.Result]:
        """What comes of each job, as it comes."""
        ray = self._ray
        waiting = deque(jobs)
        again: deque[list[files.Job]] = deque()
        running: dict[Any, _Running] = {}
        while waiting or again or running:
            self._count()
            # A few more than are at work, so that nobody waits for the next one.
            while (waiting or again) and len(running) < self._slots + max(self._slots // 4, 1):
                unit = again.popleft() if again else self._next(waiting)
                for job in unit:
                    self._begun(job)
                running[self._start(unit)] = _Running(deque(unit))
            ready, _ = ray.wait(list(running), num_returns=1, timeout=_POLL, fetch_local=False)
            for stream in ready:
                run = running[stream]
                try:
                    data = ray.get(next(stream))
                except StopIteration:
                    del running[stream]
                    again.extend([job] for job in run.left)  # none, unless Ray has lost something
                    continue
                except ray.exceptions.RayError as error:
                    del running[stream]
                    yield from self._lost(error, run, again)
                    continue
                if not data:
                    run.ready, self._false_starts = True, 0
                    continue
                seconds, result, cause = pickle.loads(data)
                if isinstance(result, BaseException):
                    result.__cause__ = cause
                job = run.left.popleft()
                if isinstance(result, batch.Done):
                    job.size = result.before
                yield job, seconds, result

    def _start(self, unit: list[files.Job]) -> Any:
        return self._unit.remote(
            self._token, self._worker, unit, str(Path.cwd()), latens.__version__, self._threads
        )

    def _next(self, waiting: deque[files.Job]) -> list[files.Job]:
        """As much as is bounded in number and bytes, and less when little is left: all end at about the same time."""
        most = min(_MOST_FILES, max(len(waiting) // (4 * self._slots), 1))
        unit: list[files.Job] = []
        size = 0
        while waiting and len(unit) < most and (not unit or size < _MOST_BYTES):
            job = waiting.popleft()
            size += files.size_of(job) or 0
            unit.append(job)
        return unit

    def _count(self) -> None:
        now = time.monotonic()
        if now - self._counted > _POLL:
            self._counted = now
            self._slots = max(int(self._ray.cluster_resources().get("CPU", 1)) // self._threads, 1)

    def _lost(
        self, error: Exception, unit: _Running, again: deque[list[files.Job]]
    ) -> Iterator[batch.Result]:
        """What becomes of a unit whose process has died; the files at the front had been told of."""
        if isinstance(error, self._ray.exceptions.RayTaskError):
            # Not a death: the process cannot begin, which would be the same for all.
            raise UnavailableError(
                f"the machines of the cluster cannot do this: {_last_line(error)}; Latens {latens.__version__} has "
                "to be installed on each of them"
            ) from error
        left = unit.left
        if not unit.ready:
            self._false_starts += 1
            if self._false_starts >= _MOST_FALSE_STARTS:
                raise WorkerError(
                    f"processes of the cluster die before they begin, {self._false_starts} of them by now "
                    f"({_first_line(error)})"
                ) from error
            again.append(list(left))
            return
        if not left:
            return
        died = left.popleft()
        deaths = self._deaths[died.source] = self._deaths.get(died.source, 0) + 1
        if left:
            again.append(list(left))
        if deaths < _MOST_DEATHS:
            again.append([died])
            return
        yield (
            died,
            0.0,
            WorkerError(
                f"{died.source_name}: the process that worked on it died {deaths} times, and it was given up; memory "
                f"may be short ({_first_line(error)})"
            ),
        )


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[-1][:300]


_KEPT: dict[bytes, Any] = {}


def _unit(token: bytes, worker: bytes, jobs: list[files.Job], folder: str, version: str, threads: int) -> Any:
    """Runs in a process of the cluster: does jobs one after the other, and says what comes of each, after
    a first word that it is there.

    Args:
        token: what the worker is kept under, with its model, for the units to come.
        worker: pickled.
        jobs: to do.
        folder: that names are relative to.
        version: of Latens.
        threads: of the process.
    """
    if latens.__version__ != version:
        raise RuntimeError(f"this machine has Latens {latens.__version__}, and {version} is expected")
    if token not in _KEPT:
        _KEPT.clear()
        work.set_threads(threads)
        _KEPT[token] = pickle.loads(worker)
    with suppress(OSError):  # names of stores don't need it, and others say what is missing
        os.chdir(folder)
    yield b""
    for job in jobs:
        started = time.perf_counter()
        result: batch.Done | BaseException
        cause = None
        try:
            result = _KEPT[token](job)
        except Exception as error:
            result, cause = error, error.__cause__
        yield _answer(time.perf_counter() - started, result, cause)


def _answer(seconds: float, result: batch.Done | BaseException, cause: BaseException | None) -> bytes:
    """What can be sent; of errors of other libraries, it may be only their text."""
    if isinstance(result, BaseException) and not isinstance(result, LatensError):
        result = _UnexpectedError(reason(result))
    for kept in (cause if isinstance(cause, OSError) else None, None):
        with suppress(Exception):
            data = pickle.dumps((seconds, result, kept))
            pickle.loads(data)
            return data
    return pickle.dumps((seconds, _UnexpectedError(str(result)), None))


class _UnexpectedError(LatensError):
    """What somebody else raised, far away."""
