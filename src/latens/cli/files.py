"""Which file goes where: inputs to outputs, ``-`` for standard input and output, checked before any work."""

from __future__ import annotations

import io
import os
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from latens import format as ltn
from latens.errors import FormatError, ImageError, LatensError, OutputError
from latens.io import TemporaryOutput, UnfinishedOutput, atomic_write, check_output, printable, remote

if TYPE_CHECKING:
    from latens.cli.archive import Archive

STANDARD = "-"
EXIT_SALVAGED = 3
_LONGEST_LIST = 1 << 30
_STANDARD_OUTPUT = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


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


@dataclass(slots=True)
class Job:
    """One file to read and one to write; ``-`` stands for standard input or output.

    Attributes:
        source: path, or ``-``.
        target: path, ``-``, or the null device.
        new_folder: whether the folder of the target is made if it is not there.
        found: whether the source was found in a folder, and not named.
        exists: whether there is a result already, which stays as it is.
        replaces: whether the target may be replaced whatever the command says: it is what a killed process left.
        problem: why it cannot be done; empty if it can.
        size: bytes of the source, where they were told with its name.
        span: where the source lies in the archive that its name ends with, if that is known.
        archive: what the result is put into, under the part of the target behind its name.
    """

    source: str
    target: str
    new_folder: bool
    found: bool = False
    exists: bool = False
    replaces: bool = False
    problem: str = ""
    size: int | None = None
    span: remote.Span | None = None
    archive: Archive | None = None

    @property
    def remote(self) -> bool:
        """Whether the source is not in a folder of this machine."""
        return remote.is_remote(self.source)

    @property
    def source_name(self) -> str:
        """For messages."""
        return shown(self.source)

    @property
    def target_name(self) -> str:
        """For messages."""
        return "standard output" if self.target == STANDARD else printable(self.target)


@dataclass(frozen=True)
class Plan:
    """What a command does.

    Attributes:
        jobs: in the order of the command line; files of a folder by their names.
        inputs: all sources.
        recursive: whether folders were looked through.
        others: how many files were found in folders that are of no kind that is read.
        unsupported: how many of these have which of the suffixes that were to be watched.
        links: how many links to folders were met, which nobody follows.
        problems: folders that could not be looked through, and why.
        archive: what results are put into, if it is no folder.
    """

    jobs: list[Job]
    inputs: Inputs
    recursive: bool = False
    others: int = 0
    unsupported: Mapping[str, int] = field(default_factory=dict)
    links: int = 0
    problems: list[str] = field(default_factory=list)
    archive: Archive | None = None


def shown(source: str) -> str:
    """An input as messages name it."""
    return "standard input" if source == STANDARD else printable(source)


@contextmanager
def named(source: str) -> Iterator[None]:
    """Put the name of an input before the message of every error."""
    try:
        yield
    except LatensError as error:
        if str(error).startswith(f"{shown(source)}: "):
            raise
        raise type(error)(f"{shown(source)}: {error}") from error


def standard(output: str | None) -> str | None:
    """``-`` for all names of standard output."""
    return STANDARD if output in _STANDARD_OUTPUT else output


def is_null(target: str) -> bool:
    """Whether what is written there is thrown away."""
    return target == os.devnull


def plan(
    sources: list[str],
    output: str | None,
    suffix: str,
    force: bool,
    *,
    recursive: bool = False,
    suffixes: Collection[str] = (),
    watched: Collection[str] = (),
    skip_existing: bool = False,
    listed: Sequence[str] = (),
    done: Collection[tuple[str, str]] = (),
    begun: Collection[tuple[str, str]] = (),
) -> Plan:
    """The jobs of a command, all of them checked; nothing is written.

    One source may go to a file, or to standard output; several go to a folder, or each beside its source. A folder is
    made if ``output`` names it; that of a file has to be there. An output that ends in ``.zip`` or ``.tar``, and is no
    folder, stands for one, and is made as one file. Of a folder that is a source, what is below it goes to the same
    place below the output.

    Args:
        sources: files, ``-``, and with ``recursive`` folders.
        output: file, folder or ``-``.
        suffix: of results.
        force: existing results are replaced.
        recursive: take the files of folders, and of the folders in them. Links to folders are not followed, and an
            output folder inside a source is left out.
        suffixes: in lower case, of the files that are taken from folders.
        watched: suffixes of files that are left alone, and counted.
        skip_existing: jobs whose result is there are marked, and not refused.
        listed: more files; what is below the folder that all of them are in goes to the same place below the output.
        done: sources and targets of jobs that were done, whether their results are there or not.
        begun: of those that may be done; what their targets hold is replaced.

    Raises:
        OutputError: two sources would write the same file, or an output must not be written.
        ImageError: an input without a name, or a folder without ``recursive``.
        DownloadError: a remote folder cannot be looked through.
        UnavailableError: what is needed for remote files is not installed.
    """
    output = standard(output) if output is None else remote.local(standard(output) or "")
    sources = [remote.local(source) for source in sources]
    folders = [
        remote.is_pattern(source)
        or (
            recursive
            and source != STANDARD
            and (remote.is_remote(source) or _is_folder(source) or remote.archive(source) is not None)
        )
        for source in sources
    ]
    packed = output is not None and is_archive(output)
    is_folder = (
        output is not None
        and not is_null(output)
        and (
            packed
            or len(sources) > 1
            or any(folders)
            or bool(listed)
            or output.endswith(("/", os.sep))
            or _is_folder(output)
        )
    )
    if is_folder and output == STANDARD:
        raise OutputError("several inputs cannot all go to standard output; give a folder with -o")
    walk = _Walk(suffixes, watched, output if is_folder else None)
    jobs: list[Job] = []
    for source, through in zip(sources, folders, strict=True):
        if not source:
            raise ImageError("an input has an empty name")
        if through and (remote.is_remote(source) or not _is_folder(source)):
            apart = len(sources) > 1
            jobs += _remote_jobs(
                source, output, suffix, walk, recursive=recursive, is_folder=is_folder, apart=apart
            )
            continue
        if through:
            for path, below, problem in walk.files(source):
                target = _target(path, below, output, suffix, is_folder)
                jobs.append(Job(path, target, is_folder, found=True, problem=problem))
            continue
        if source != STANDARD and _is_folder(source):
            raise ImageError(f"{shown(source)}: is a folder; -r takes the files in it")
        if output is not None and not is_folder:
            target = output
        elif source == STANDARD:
            target = STANDARD if output is None else _below(output, f"stdin{suffix}")
        elif remote.is_remote(source) or (output is not None and remote.is_remote(output)):
            name = source.split("::")[0].rstrip("/").replace(os.sep, "/").rsplit("/", 1)[-1]
            target = _target(source, name, output, suffix, is_folder)
        else:
            folder = Path(source).parent if output is None else Path(output)
            target = str(folder / (Path(source).stem + suffix))
            if output is None and os.path.abspath(target) == os.path.abspath(source):  # noqa: PTH100
                _refuse_own_kind(source)
        jobs.append(Job(source, target, is_folder))
    names = [remote.local(name) for name in listed]
    top = len(_common_folder(names))
    for name in names:
        below = name[top:].lstrip("/")
        target = _target(name, below, output, suffix, is_folder)
        jobs.append(Job(name, target, is_folder, found=True, problem=_leads_out(below)))
    inputs = Inputs(job.source for job in jobs if job.source != STANDARD and not job.remote)
    archive = _archived(jobs, output, force) if packed and output is not None else None
    jobs = _check(jobs, inputs, suffix, force, skip_existing, done, begun)
    return Plan(jobs, inputs, any(folders), walk.others, walk.unsupported, walk.links, walk.problems, archive)


def is_archive(output: str) -> bool:
    """Whether results that go there go into one file."""
    return remote.archive(output) is not None and "::" not in output and not _is_folder(output)


def _archived(jobs: list[Job], output: str, force: bool) -> Archive:
    """The archive that jobs put their results into."""
    from latens.cli.archive import Archive

    archive = Archive(output, force)
    for job in jobs:
        if _whole(job.source.split("::")[-1]) == _whole(output):
            raise OutputError(f"{printable(output)}: is also an input; choose another output")
        job.archive = archive
        if "\\" in job.target[len(output) :] and os.sep == "/":
            job.problem = job.problem or "its name could lead out of its folder elsewhere"
    return archive


def _member(job: Job, archive: Archive) -> str:
    return job.target[len(archive.name) :].replace(os.sep, "/").lstrip("/")


def _target(source: str, below: str, output: str | None, suffix: str, is_folder: bool) -> str:
    """Where the result of something that was found goes: beside it, or to the same place below the output."""
    if output is None:
        head, chained, rest = source.partition("::")
        # Nothing can be put into an archive: it goes beside that, into a folder of its name.
        path = remote.join(os.path.splitext(rest)[0], head.split("://")[1]) if chained else source  # noqa: PTH122
        return _suffixed(path, suffix)
    return _suffixed(_below(output, below), suffix) if is_folder else output


def _below(output: str, below: str) -> str:
    return remote.join(output, below) if remote.is_remote(output) else os.path.join(output, below)  # noqa: PTH118


def _remote_jobs(
    source: str,
    output: str | None,
    suffix: str,
    walk: _Walk,
    *,
    recursive: bool,
    is_folder: bool,
    apart: bool,
) -> Iterator[Job]:
    """The jobs of what is in an archive or an object store, or matches a pattern."""
    inside = None if output is None else output.rstrip("/") + "/"
    for name, below, size, span in remote.find(source, through=recursive, apart=apart):
        if inside is not None and name.startswith(inside):
            continue
        path = name.split("::")[0]
        if not walk.takes(os.path.splitext(path)[1].lower()) and recursive:  # noqa: PTH122
            continue
        target = _target(name, below.lstrip("/"), output, suffix, is_folder)
        new_folder = is_folder or (output is None and "::" in name)
        yield Job(name, target, new_folder, found=True, problem=_leads_out(below), size=size, span=span)


def _leads_out(below: str) -> str:
    """What is wrong with a name that others have chosen; nothing, mostly."""
    strange = os.sep != "/" and ("\\" in below or ":" in below)
    return "its name leads out of its folder" if strange or ".." in below.split("/") or "\0" in below else ""


def _common_folder(names: Sequence[str]) -> str:
    """What the folders of all names begin with, in whole names."""
    if not names:
        return ""
    first, last = (name.split("/")[:-1] for name in (min(names), max(names)))
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), None)
    return "/".join(first[: min(len(first), len(last)) if shared is None else shared])


def listed(name: str) -> list[str]:
    """The names in a file, one on a line; of a remote one, and ``-``, too.

    Raises:
        ImageError: it cannot be read, or is no text.
        DownloadError, UnavailableError: the same of a remote one.
    """
    name = remote.local(name)
    with named(name):
        if remote.is_remote(name):
            data = remote.fetch(name, None, _LONGEST_LIST)
        else:
            with _reported(), _open(name) as file:
                data = file.read()
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise ImageError("is no list of files: expected UTF-8, one name on a line") from error
    names = [line.rstrip("\r") for line in text.split("\n")]
    return [line for line in names if line]


def _suffixed(path: str, suffix: str) -> str:
    return os.path.splitext(path)[0] + suffix  # noqa: PTH122  (a Path takes ten times as long)


class _Walk:
    """Goes through folders, in the order of names.

    Args:
        suffixes: of files to take.
        watched: of files to count one by one.
        output: a folder that is left out if it lies inside.
    """

    def __init__(self, suffixes: Collection[str], watched: Collection[str], output: str | None) -> None:
        self.others = 0
        self.unsupported: Counter[str] = Counter()
        self.links = 0
        self.problems: list[str] = []
        self._suffixes = suffixes
        self._watched = watched
        self._left_out = _identity(output)

    def files(self, root: str) -> Iterator[tuple[str, str, str]]:
        """Path, path below ``root``, and what is wrong with it, of each file."""
        # A folder is gone through once, whatever ways lead there: where links are followed against our will, too.
        seen = {_identity(root), self._left_out}
        waiting = [(root, "")]
        while waiting:
            folder, below = waiting.pop()
            try:
                with os.scandir(folder) as entries:
                    found = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                self.problems.append(f"{printable(folder)}: cannot be looked through ({error.strerror})")
                continue
            folders = []
            for entry in found:
                # Below "." names stay as short as they are.
                path = entry.name if folder == "." else entry.path
                inner = os.path.join(below, entry.name)  # noqa: PTH118
                if entry.is_dir(follow_symlinks=False):
                    identity = _identity(path)
                    if identity is None or identity not in seen:
                        seen.add(identity)
                        folders.append((path, inner))
                elif (suffix := os.path.splitext(entry.name)[1].lower()) in self._suffixes:  # noqa: PTH122
                    if (problem := self._problem(entry)) is not None:
                        yield path, inner, problem
                elif entry.is_symlink() and _is_folder(path):
                    self.links += 1
                else:
                    self.takes(suffix)
            waiting += reversed(folders)

    def takes(self, suffix: str) -> bool:
        """Whether files with this suffix are taken; one that is not is counted."""
        if suffix in self._suffixes:
            return True
        self.others += 1
        if suffix in self._watched:
            self.unsupported[suffix] += 1
        return False

    def _problem(self, entry: os.DirEntry[str]) -> str | None:
        """Empty for a file that can be read; None for a link to a folder."""
        try:
            mode = entry.stat().st_mode
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        if stat.S_ISDIR(mode):
            self.links += 1
            return None
        # To open a pipe could take for ever.
        return "" if stat.S_ISREG(mode) else "not a regular file"


def _identity(path: str | None) -> tuple[int, int] | None:
    with suppress(OSError, ValueError):
        if path is not None:
            status = Path(path).stat()
            return status.st_dev, status.st_ino
    return None


class _Targets:
    """Tells whether two targets are one file: here, or where upper and lower case are the same."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def key(self, target: str) -> str:
        if remote.is_remote(target):
            return target
        folder, name = os.path.split(target)
        if os.path.islink(target):  # noqa: PTH114
            folder, name = os.path.split(os.path.realpath(target))
        if folder not in self._folders:
            self._folders[folder] = os.path.normcase(os.path.realpath(folder))
        return os.path.join(self._folders[folder], os.path.normcase(name)).casefold()  # noqa: PTH118


def _check(
    jobs: list[Job],
    inputs: Inputs,
    suffix: str,
    force: bool,
    skip_existing: bool,
    done: Collection[tuple[str, str]],
    begun: Collection[tuple[str, str]],
) -> list[Job]:
    if sum(job.source == STANDARD for job in jobs) > 1:
        raise OutputError("standard input can be read only once")
    if any(job.target == STANDARD for job in jobs) and (sys.stdout is None or sys.stdout.isatty()):
        raise OutputError("standard output is closed or a terminal; redirect it, or name a file with -o")
    jobs = _without_collisions(jobs, suffix)
    existing = []
    folders: set[str] = set()
    for job in jobs:
        job.exists = (job.source, job.target) in done
        job.replaces = (job.source, job.target) in begun
    stores = [
        job.target
        for job in jobs
        if remote.is_remote(job.target) and not (job.exists or job.replaces or job.archive)
    ]
    there = remote.sizes(stores) if stores and not force else {}
    sources = {job.source for job in jobs if job.remote}
    for job in jobs:
        if job.target == STANDARD or is_null(job.target) or job.problem or job.exists or job.archive:
            continue
        is_store = remote.is_remote(job.target)
        size = there.get(job.target) if is_store else _size(job.target)
        if skip_existing and size is not None:
            # What is empty is no result: a process was killed between making the name and giving it a content.
            job.exists, job.replaces = size > 0 and not job.replaces, size == 0 or job.replaces
        if job.exists:
            continue
        if job.found and size is not None and not force and not job.replaces:
            existing.append(job)
            continue
        try:
            if is_store:
                _check_store(job, size, sources, force)
                continue
            folder = os.path.dirname(job.target)  # noqa: PTH120
            if job.new_folder and folder not in folders and not _is_folder(folder or "."):
                _check_folder(Path(folder))
                folders.add(folder)
            elif folder not in folders:
                check_output(job.target, force=force or job.replaces, inputs=inputs.same_as(job.target))
        except OutputError as error:
            if not job.found:
                raise
            job.problem = str(error)
    if existing:
        others = f" and {len(existing) - 1:,} more are" if len(existing) > 1 else " is"
        raise OutputError(
            f"{existing[0].target_name}{others} there already; use --skip-existing to go on without them, or "
            "--force to replace them"
        )
    return jobs


def _check_store(job: Job, size: int | None, sources: Collection[str], force: bool) -> None:
    if job.target in sources:
        raise OutputError(f"{job.target_name}: is also an input; choose another output")
    if size is not None and not force and not job.replaces:
        raise OutputError(f"{job.target_name}: exists already; use --force (force=True) to replace it")


def _without_collisions(jobs: list[Job], suffix: str) -> list[Job]:
    """Jobs that each have a target of their own.

    ``a.png`` and ``a.jpg`` that were found in a folder become ``a.png.ltn`` and ``a.jpg.ltn``. Named files are
    refused: there is somebody who can name them otherwise.
    """
    targets = _Targets()
    taken: dict[str, list[int]] = {}
    for number, job in enumerate(jobs):
        if job.target != STANDARD and not is_null(job.target):
            taken.setdefault(targets.key(job.target), []).append(number)
    twice: set[int] = set()
    again: dict[str, int] = {}
    for group in [group for group in taken.values() if len(group) > 1]:
        first, second = (jobs[number] for number in group[:2])
        if not all(jobs[number].found for number in group):
            raise OutputError(
                f"{first.source_name} and {second.source_name} would both be written to {second.target_name}; "
                "nothing was written"
            )
        # As in "photos photos/2020": one file, found on two ways.
        ways = {_whole(jobs[number].source): number for number in reversed(group)}
        twice.update(set(group) - set(ways.values()))
        for number in sorted(ways.values()) if len(ways) > 1 else ():
            job = jobs[number]
            kind = os.path.splitext(job.source.split("::")[0])[1]  # noqa: PTH122
            job.target = os.path.splitext(job.target)[0] + kind + suffix  # noqa: PTH122
            key = targets.key(job.target)
            other = taken[key][0] if key in taken else again.setdefault(key, number)
            if other != number:
                other_name = jobs[other].source_name
                job.problem = f"would be written to {job.target_name}, as {other_name} is; rename one of them"
    return [job for number, job in enumerate(jobs) if number not in twice]


def _whole(source: str) -> str:
    return source if remote.is_remote(source) else os.path.abspath(source)  # noqa: PTH100


def _size(path: str) -> int | None:
    """Of a regular file; None if there is none."""
    with suppress(OSError, ValueError):
        status = os.lstat(path)
        return status.st_size if stat.S_ISREG(status.st_mode) else None
    return None


def _check_folder(folder: Path) -> None:
    """Whether a folder that does not exist could be made, as :func:`write` will do."""
    above = next(parent for parent in folder.absolute().parents if os.path.lexists(parent))
    if os.path.lexists(folder) or not _is_folder(above):
        raise OutputError(f"{printable(folder)}: cannot be made a folder: something else is in its place")
    if not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(f"{printable(folder)}: cannot be made: {printable(above)} is not writable")


def _is_folder(path: str | Path) -> bool:
    if isinstance(path, str) and remote.is_remote(path):
        return not path.startswith(("http://", "https://")) and remote.is_folder(path)
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


class _Fetched(io.BytesIO):
    """The bytes of a remote file, which knows its name."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


@contextmanager
def opened(job: Job, max_pixels: int) -> Iterator[BinaryIO | str]:
    """What the image reader takes, of any source.

    Raises:
        ImageError: standard input is closed.
        DownloadError: a remote file cannot be read.
        LimitError: it has more bytes than an image of ``max_pixels`` can have.
    """
    if not job.remote:
        yield open_source(job.source)
        return
    # 16 bytes per pixel are more than any format stores.
    data = remote.fetch(job.source, job.span, 16 * max_pixels + (1 << 26))
    job.size = len(data)
    yield _Fetched(data, job.source)


@contextmanager
def sought(source: BinaryIO | str) -> Iterator[BinaryIO | None]:
    """A source of an image as a file that can be sought; None if it is none."""
    if not isinstance(source, str):
        source.seek(0)
        yield source
    elif is_plain(source):
        with Path(source).open("rb") as file:
            yield file
    else:
        yield None


@contextmanager
def opened_ltn(job: Job, limits: ltn.Limits, *, in_parts: bool) -> Iterator[BinaryIO]:
    """A ``.ltn`` file to be read; of a remote one, parts are fetched as they are asked for if that is wanted.

    Raises:
        ImageError: it cannot be opened.
        DownloadError, LimitError: as :func:`opened`.
    """
    if job.remote:
        if in_parts:
            with remote.opened(job.source) as file:
                yield file
            return
        data = remote.fetch(job.source, job.span, 16 * limits.max_pixels + (1 << 26))
        job.size = len(data)
        yield _Fetched(data, job.source)
        return
    with ExitStack() as stack:
        with _reported():
            file = stack.enter_context(_open(job.source))
        yield file


@contextmanager
def _open(name: str) -> Iterator[BinaryIO]:
    source = open_source(name)
    if isinstance(source, str):
        with Path(source).open("rb") as file:
            yield file
    else:
        yield source


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, LatensError | BrokenPipeError):
            raise
        reason = error.strerror if isinstance(error, OSError) else None
        raise ImageError(f"cannot be read ({reason or error})") from error


def read_ltn(name: str, limits: ltn.Limits) -> bytes:
    """All of a ``.ltn`` file, or of standard input.

    Raises:
        ImageError: it cannot be read.
        FormatError: it is something else.
        LimitError: it is larger than the limits allow.
    """
    with ExitStack() as stack:
        with _reported():
            file = stack.enter_context(_open(name))
        return load(file, limits)


def load(file: BinaryIO, limits: ltn.Limits) -> bytes:
    """The same of a file that is open; what can be sought is read from its beginning."""
    with _reported():
        if not file.seekable():
            return ltn.load(file, limits)
        file.seek(0)
        try:
            return ltn.load(file, limits)
        except FormatError as error:
            file.seek(0)
            raise not_ltn(file.read(16), error) from error


def size_of(job: Job) -> int | None:
    """Bytes of an input, if that can be known without reading it."""
    if job.remote:
        return job.size
    with suppress(OSError, ValueError, AttributeError):
        status = os.fstat(sys.stdin.fileno()) if job.source == STANDARD else Path(job.source).stat()
        return status.st_size if stat.S_ISREG(status.st_mode) else None
    return None


_KINDS = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
)


def kind_of(head: bytes) -> str | None:
    """What a file is that begins like this, in words; None for what is no image that people have."""
    for signature, kind in _KINDS:
        if head.startswith(signature):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP image"
    if head[4:8] == b"ftyp":
        return {b"avif": "an AVIF image", b"heic": "a HEIC image"}.get(head[8:12], "a video")
    return None


def not_ltn(head: bytes, error: FormatError, name: str = "") -> FormatError:
    """The error for a file that is no ``.ltn`` file; of what people have, it says what it is."""
    kind = kind_of(head)
    if kind is None:
        return error
    command = "latens video encode" if kind == "a video" else "latens encode"
    return FormatError(f"{name and name + ': '}{kind}, not a .ltn file; '{command}' makes one of it")


def is_plain(path: str) -> bool:
    """Whether it is a file that can be sought; not if its name is none that there can be."""
    with suppress(OSError, ValueError):
        return Path(path).is_file()
    return False


def _head(path: str) -> bytes:
    with suppress(OSError, ValueError), Path(path).open("rb") as file:
        return file.read(16)
    return b""


def _refuse_own_kind(source: str) -> None:
    """Say what is wrong with a file whose result would have the same name, if that is the kind of file it is."""
    head = _head(source)
    if head.startswith(b"LTN") and source.lower().endswith(".ltn"):
        raise ImageError(f"{shown(source)}: a .ltn file already; 'latens decode' takes it")
    if kind_of(head) is not None:
        raise not_ltn(head, FormatError(), shown(source))


def not_image(job: Job, error: ImageError) -> ImageError:
    """The error for a file that is no image; of what Latens can read by another command, it says so."""
    source = job.source
    head = b"" if source == STANDARD or job.remote else _head(source)
    if head.startswith(b"LTN"):
        return ImageError(f"{shown(source)}: a .ltn file already; 'latens decode' takes it")
    if kind_of(head) == "a video":
        return ImageError(f"{shown(source)}: a video; 'latens video encode' takes it")
    return error


@contextmanager
def writing(job: Job, force: bool, inputs: Inputs, *, begun: bool = False) -> Iterator[BinaryIO]:
    """A file for a result that is written bit by bit; it gets its name when it is complete, and not before.

    Args:
        job: whose result it is.
        force, inputs: as for :func:`write`.
        begun: give what another process left of the same, in a local file, and leave it for the next one if this one
            is stopped.

    Raises:
        OutputError: it cannot be written.
    """
    if is_null(job.target):
        with Path(os.devnull).open("wb") as null:
            yield null
        return
    if job.archive is not None:
        with tempfile.TemporaryFile() as kept:
            yield cast(BinaryIO, kept)
            job.archive.add(_member(job, job.archive), cast(BinaryIO, kept))
            kept.seek(0, os.SEEK_END)
        return
    if remote.is_remote(job.target):
        with tempfile.TemporaryFile() as kept:
            yield cast(BinaryIO, kept)
            kept.seek(0)
            remote.store(job.target, cast(BinaryIO, kept))
            kept.seek(0, os.SEEK_END)
        return
    if job.new_folder:
        _make(Path(job.target).parent)
    kind = UnfinishedOutput if begun else TemporaryOutput
    output = kind(job.target, force=force or job.replaces, inputs=inputs.same_as(job.target))
    try:
        try:
            yield output.open()
        except OSError as error:
            if isinstance(error, LatensError):
                raise
            raise OutputError(f"{job.target_name}: cannot be written ({error.strerror})") from error
        output.commit()
    except BaseException as error:
        if isinstance(output, UnfinishedOutput) and not isinstance(error, ImageError):
            output.keep()
        output.discard()
        raise


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{printable(folder)}: cannot be made ({error.strerror})") from error


def write(job: Job, data: bytes, force: bool, inputs: Inputs) -> None:
    """Write a whole result, which never replaces an input.

    Raises:
        OutputError: it cannot be written.
    """
    if is_null(job.target):
        return
    if job.target == STANDARD:
        to_standard_output(data)
        return
    if job.archive is not None:
        job.archive.add(_member(job, job.archive), data)
        return
    if remote.is_remote(job.target):
        remote.store(job.target, data)
        return
    if job.new_folder:
        _make(Path(job.target).parent)
    atomic_write(job.target, data, force=force or job.replaces, inputs=inputs.same_as(job.target))


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
