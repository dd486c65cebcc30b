"""One harness for all codecs: real files, the same measures, times, in worker processes that may crash or hang."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from latens.errors import CodecError, DatasetError, LatensError
from latens.evaluate.codecs import Codec, make_codec
from latens.evaluate.codecs.learned import loads
from latens.evaluate.quality import METRICS, Pixels, find_images, measure, read_rgb
from latens.evaluate.results import Results, machine, versions
from latens.evaluate.search import find
from latens.io import printable
from latens.runtime import set_threads

__all__ = ["Plan", "bench", "file_name"]

_REASON = 500
_SAVE_SECONDS = 2.0
_START_SECONDS = 60.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        folder: of the images.
        codecs: specifications, see :func:`latens.evaluate.codecs.make_codec`.
        settings: for each codec that has any here; otherwise the codec's own points.
        options: further options for codecs, such as paths of programs, that results don't show.
        metrics: of :data:`latens.evaluate.quality.METRICS`.
        match: rates in bits per pixel: for each, image and codec, also the setting that comes closest to it.
        repeats: how often to encode and decode; times are kept one by one.
        threads: for each codec.
        jobs: images at a time; times are only worth anything with one.
        time_limit: seconds for one setting of one image with all repeats.
        keep_files: keep the coded files beside the results.
    """

    folder: Path
    codecs: tuple[str, ...]
    settings: Mapping[str, tuple[float, ...]]
    options: Mapping[str, Mapping[str, str]]
    metrics: tuple[str, ...] = METRICS
    match: tuple[float, ...] = ()
    repeats: int = 3
    threads: int = 1
    jobs: int = 1
    time_limit: float = 300.0
    keep_files: bool = True


@dataclass(frozen=True)
class _Task:
    """All settings of one image with one codec."""

    codec: str
    image: str
    settings: tuple[float, ...]
    match: tuple[float, ...]


def file_name(codec: str, image: str, setting: float, suffix: str) -> str:
    """Where a coded file lies below the folder of files: names of codecs and images may hold anything."""
    plain = "".join(c if c.isalnum() or c in "-_=." else "_" for c in codec).lstrip(".-") or "codec"
    stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in image).lstrip(".-") or "image"
    marks = [sha256(text.encode(errors="surrogateescape")).hexdigest()[:6] for text in (codec, image)]
    return f"{plain[:60]}-{marks[0]}/{stem[:80]}-{marks[1]}-{setting:g}{suffix}"


def bench(
    plan: Plan,
    output: Path,
    *,
    command: Sequence[str] = (),
    progress: Callable[[int, int, str], None] = lambda done, total, text: None,
) -> Results:
    """Measure everything that is not yet in ``output``, and write it there as it comes.

    Args:
        plan: what to measure.
        output: results file. One that exists is continued; what failed is tried again.
        command: recorded.
        progress: called with files done, files to do, and what happens.

    Raises:
        DatasetError: no images.
        CodecError: not one codec can be used.
        ResultsError: ``output`` exists and is something else, or belongs to other images or versions.
        OutputError: it cannot be written.
    """
    results = Results.load(output) if output.exists() else Results()
    results.folder = os.fsdecode(plan.folder)
    results.files = f"{output.stem}.files" if plan.keep_files else results.files
    paths = _images(plan, results)
    codecs = _codecs(plan, results)
    tasks = _tasks(plan, results, codecs, paths)
    if tasks:
        results.runs.append(
            {
                "machine": machine(),
                "versions": versions(),
                "command": shlex.join(command),
                "threads": plan.threads,
                "jobs": plan.jobs,
                "repeats": plan.repeats,
                "started": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )
    results.save(output)
    store = _Store(results, output, len(results.runs) - 1)
    total = sum(len(task.settings) + len(task.match) for task in tasks)
    with _environment(plan.threads):
        found = _Pool(plan, paths, output.parent / results.files).run(tasks)
        for done, (task, kind, content) in enumerate(found, 1):
            store.add(task, kind, content)
            progress(done, total, f"{task.codec} {task.image}")
    store.save()
    return results


def _images(plan: Plan, results: Results) -> dict[str, Path]:
    """The images that can be read, and what is known of them."""
    paths: dict[str, Path] = {}
    for path in find_images(plan.folder):
        try:
            pixels = read_rgb(path)
        except LatensError as error:
            results.unreadable[path.name] = str(error)[:_REASON]
            continue
        height, width = pixels.shape[:2]
        about = {"width": width, "height": height, "sha256": sha256(pixels.tobytes()).hexdigest()}
        known = results.images.setdefault(path.name, about)
        if known != about:
            raise DatasetError(
                f"{printable(path)}: the results are of another image of that name; write to a new file"
            )
        results.unreadable.pop(path.name, None)
        paths[path.name] = path
    if not paths:
        raise DatasetError(f"{printable(plan.folder)}: none of its images can be read")
    return paths


def _codecs(plan: Plan, results: Results) -> dict[str, Codec]:
    """The codecs that can be used."""
    made = {}
    for spec in plan.codecs:
        try:
            codec = make_codec(spec, plan.threads, **plan.options.get(spec, {}))
            if reason := loads(codec):
                raise CodecError(reason)
            about = codec.describe()
        except LatensError as error:
            results.skipped[spec] = str(error)[:_REASON]
            continue
        results.skipped.pop(spec, None)
        known = results.codecs.setdefault(spec, about)
        if known.get("version") != about["version"] or known.get("options") != about["options"]:
            there, here = (printable(f"{c.get('version')} {c.get('options')}") for c in (known, about))
            raise CodecError(
                f"{printable(spec)}: the results are of {there}, but here is {here}; write to a new file"
            )
        made[spec] = codec
    if not made:
        reasons = "; ".join(f"{spec}: {reason}" for spec, reason in results.skipped.items())
        raise CodecError(f"no codec can be used: {reasons}")
    return made


def _tasks(
    plan: Plan, results: Results, codecs: Mapping[str, Codec], paths: Mapping[str, Path]
) -> list[_Task]:
    done = {(p["codec"], p["image"], p["setting"]) for p in results.points if not p.get("matched")}
    matched = {(p["codec"], p["image"], p.get("matched")) for p in results.points}
    tasks = []
    for spec, codec in codecs.items():
        wanted = plan.settings.get(spec, codec.dial.points)
        for setting in wanted:
            if not codec.dial.low <= setting <= codec.dial.high:
                raise CodecError(
                    f"{printable(spec)}: {codec.dial.name} {setting:g} is not in {codec.dial.low:g} to "
                    f"{codec.dial.high:g}"
                )
        for name in paths:
            task = _Task(
                spec,
                name,
                tuple(float(s) for s in wanted if (spec, name, float(s)) not in done),
                tuple(bpp for bpp in plan.match if (spec, name, bpp) not in matched),
            )
            if task.settings or task.match:
                tasks.append(task)
    return tasks


class _Store:
    """Puts what comes in into the results, and saves them every now and then."""

    def __init__(self, results: Results, path: Path, run: int) -> None:
        self._results, self._path, self._run = results, path, run
        self._saved = time.monotonic()

    def add(self, task: _Task, kind: str, content: dict[str, Any]) -> None:
        about = {"codec": task.codec, "image": task.image}
        failures = [f for f in self._results.failures if _place(f) != (*about.values(), content["setting"])]
        if kind == "failure":
            failures.append({**about, **content})
        else:
            self._results.absent |= content.pop("absent", {})
            self._results.points.append({**about, **content, "run": self._run})
        self._results.failures = failures
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        self._results.save(self._path)
        self._saved = time.monotonic()


def _place(failure: Mapping[str, Any]) -> tuple[Any, ...]:
    return failure.get("codec"), failure.get("image"), failure.get("setting")


# ---- the pool


class _Worker:
    """A process, its pipe, and what it is at."""

    def __init__(self, plan: Plan, paths: Mapping[str, Path], files: Path) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_work, args=(theirs, plan, dict(paths), files), daemon=True
        )
        self.process.start()
        theirs.close()
        self.task: _Task | None = None
        self.left: deque[tuple[str, float]] = deque()
        self.deadline = float("inf")

    def give(self, task: _Task, left: deque[tuple[str, float]], seconds: float) -> None:
        """Let it do what is left of a task."""
        self.task, self.left = task, left
        self.deadline = time.monotonic() + seconds
        self.pipe.send((task.codec, task.image, tuple(left)))

    def end(self) -> None:
        """End it and all that it has started."""
        if self.process.pid is not None:
            with suppress(OSError):
                # The worker is the leader of its group; before it has become that, there is nothing to find.
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.pipe.close()


class _Pool:
    """Workers that are replaced when they end before their time, or run out of it."""

    def __init__(self, plan: Plan, paths: Mapping[str, Path], files: Path) -> None:
        self._plan, self._paths, self._files = plan, paths, files

    def _start(self) -> _Worker:
        return _Worker(self._plan, self._paths, self._files)

    def run(self, tasks: Sequence[_Task]) -> Iterator[tuple[_Task, str, dict[str, Any]]]:
        """Do all tasks; gives the task, ``"point"`` or ``"failure"``, and the content, as they come."""
        todo = deque((task, _parts(task)) for task in tasks)
        workers = [self._start() for _ in range(min(self._plan.jobs, len(todo)))]
        # Starting a process and loading a model don't count against the first setting.
        limit = self._plan.time_limit + _START_SECONDS
        try:
            for worker in workers:
                worker.give(*todo.popleft(), limit)
            while busy := [worker for worker in workers if worker.task is not None]:
                soonest = min(worker.deadline for worker in busy)
                ready = wait([w.pipe for w in busy], max(0.0, soonest - time.monotonic()))
                for place, worker in enumerate(workers):
                    if worker.task is None:
                        continue
                    if worker.pipe in ready:
                        try:
                            kind, content = worker.pipe.recv()
                        except (EOFError, OSError):
                            worker.process.join(5.0)
                            reason = _ending(worker.process.exitcode)
                        else:
                            worker.deadline = time.monotonic() + self._plan.time_limit
                            if kind == "ready":
                                continue
                            worker.left.popleft()
                            yield worker.task, kind, content
                            if not worker.left:
                                worker.task = None
                                if todo:
                                    worker.give(*todo.popleft(), limit)
                            continue
                    elif time.monotonic() >= worker.deadline:
                        reason = f"took longer than {self._plan.time_limit:g} seconds, and was ended"
                    else:
                        continue
                    task, left = worker.task, worker.left
                    worker.end()
                    workers[place] = self._start()
                    yield task, "failure", {"setting": left.popleft()[1], "reason": reason}
                    if left or todo:
                        workers[place].give(*((task, left) if left else todo.popleft()), limit)
        finally:
            for worker in workers:
                worker.end()


def _parts(task: _Task) -> deque[tuple[str, float]]:
    return deque([*(("setting", s) for s in task.settings), *(("match", bpp) for bpp in task.match)])


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"crashed ({signal.Signals(-code).name})"
    return f"ended with status {code}"


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """The number of threads, for the workers that are started meanwhile."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


# ---- inside of a worker


def _work(pipe: Connection, plan: Plan, paths: Mapping[str, Path], files: Path) -> None:
    with suppress(AttributeError, OSError):
        os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # what libraries print would tear the progress bar
        os.dup2(null, stream)
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(plan.threads)
    set_threads(plan.threads)
    codec: Codec | None = None
    with suppress(EOFError, OSError):
        while True:
            spec, name, parts = pipe.recv()
            cold = codec is None or codec.spec != spec
            try:
                if codec is None or cold:
                    codec = make_codec(spec, plan.threads, **plan.options.get(spec, {}))
                    loads(codec)
                pixels = read_rgb(paths[name])
            except Exception as error:
                codec = None
                for _, value in parts:
                    pipe.send(("failure", {"setting": value, "reason": _reason(error)}))
                continue
            pipe.send(("ready", {}))
            for kind, value in parts:
                try:
                    matched = {"matched": value} if kind == "match" else {}
                    setting = closest(codec, pixels, value) if matched else value
                    if cold:  # a first time does not count
                        code(codec, pixels, setting, 1)
                        cold = False
                    point = _measure(codec, pixels, setting, plan)
                    data = point.pop("data")
                    if plan.keep_files:
                        _keep(files / file_name(spec, name, setting, codec.suffix), data)
                    pipe.send(("point", {"setting": setting, **point, **matched}))
                except Exception as error:  # whatever a codec raises is its failure, not the harness's
                    pipe.send(("failure", {"setting": value, "reason": _reason(error)}))


def _reason(error: Exception) -> str:
    text = str(error) if isinstance(error, LatensError) else f"{type(error).__name__}: {error}"
    return text[:_REASON]


def _keep(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def code(
    codec: Codec, pixels: Pixels, setting: float, repeats: int
) -> tuple[bytes, Pixels, list[float], list[float]]:
    """Encode and decode an image several times: the file, what it decodes to, and both times in seconds."""
    size = pixels.shape[0], pixels.shape[1]
    encode_s, decode_s = [], []
    data, decoded = b"", pixels
    for _ in range(repeats):
        start = time.perf_counter()
        data = codec.encode(pixels, setting)
        middle = time.perf_counter()
        decoded = codec.decode(data, size, setting)
        decode_s.append(round(time.perf_counter() - middle, 6))
        encode_s.append(round(middle - start, 6))
    return data, decoded, encode_s, decode_s


def _measure(codec: Codec, pixels: Pixels, setting: float, plan: Plan) -> dict[str, Any]:
    """A point: what encoding and decoding at a setting gives."""
    data, decoded, encode_s, decode_s = code(codec, pixels, setting, plan.repeats)
    absent: dict[str, str] = {}
    measures = measure(pixels, decoded, plan.metrics, absent)
    return {
        "bytes": len(data),
        "bpp": round(8 * len(data) / (pixels.shape[0] * pixels.shape[1]), 7),
        **{key: value if value is None else round(value, 6) for key, value in measures.items()},
        "encode_s": encode_s,
        "decode_s": decode_s,
        "absent": absent,
        "data": data,
    }


def closest(codec: Codec, pixels: Pixels, bpp: float) -> float:
    """The setting whose file comes closest to a rate, by bisection over the dial."""
    target = bpp * pixels.shape[0] * pixels.shape[1]
    return find(codec, lambda data, setting: 8.0 * len(data), pixels, target).setting
