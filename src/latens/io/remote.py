"""Files that are not in a folder of this machine: object stores, archives, whatever fsspec opens.

A name is remote if it begins with a protocol, as in ``s3://bucket/photo.png``; fsspec's chains are names, too
(``zip://a.png::s3://bucket/photos.zip``). fsspec is an extra, and so is what it needs for each protocol.
"""

from __future__ import annotations

import errno
import glob
import io
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from latens.errors import DownloadError, ImageError, LatensError, LimitError, OutputError, UnavailableError
from latens.io._text import printable

if TYPE_CHECKING:
    import tarfile

__all__ = [
    "Found",
    "Span",
    "archive",
    "fetch",
    "find",
    "is_folder",
    "is_pattern",
    "is_remote",
    "join",
    "local",
    "sizes",
    "store",
]

EXTRA = "pip install 'latens[remote]'"
Span = tuple[int, int]
"""Where a member of an archive lies in it: offset and size."""
Found = tuple[str, str, int | None, Span | None]
"""Name, name below what was looked through, bytes, and where it lies in an archive of which it is a part."""

_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_FILE = re.compile(r"file://(?:localhost)?(?=/)", re.IGNORECASE)
_ARCHIVES = {".zip": "zip", ".tar": "tar"}
_FEW = 16  # files that are asked for one by one
_BLOCK = 1 << 18  # of a tar file, whose headers lie between its members
# One wait of 20 seconds, which s3fs does five times; the standard ones are 25 times 60.
_S3 = {"config_kwargs": {"connect_timeout": 10, "read_timeout": 20, "retries": {"total_max_attempts": 1}}}
_ARCHIVE_LOCK = threading.Lock()  # their readers move one file position


def is_remote(name: str) -> bool:
    """Whether a name begins with a protocol."""
    return _PROTOCOL.match(name) is not None


def is_pattern(name: str) -> bool:
    """Whether a remote name stands for all that match it: with ``*``, ``?``, ``[]`` or ``**``."""
    return is_remote(name) and glob.has_magic(name.split("::")[0])


def local(name: str) -> str:
    """The same name; of ``file://`` the path, which needs nothing but Python."""
    return _FILE.sub("", name)


def archive(name: str) -> str | None:
    """The protocol for what is in an archive, by its suffix: ``zip`` or ``tar``; None for other files."""
    return next((kind for suffix, kind in _ARCHIVES.items() if name.lower().endswith(suffix)), None)


def join(folder: str, below: str) -> str:
    """The name of something below a folder."""
    return f"{folder.rstrip('/')}/{below}"


def find(name: str, *, through: bool, apart: bool = False) -> Iterator[Found]:
    """Files that a name stands for, in the order of their names: one, those of a pattern, of a folder, of an archive.

    Args:
        name: with ``*``, ``?``, ``[]`` and ``**`` a pattern.
        through: go through folders and archives.
        apart: what is in an archive that is named is below a folder of its name.

    Raises:
        DownloadError: they cannot be listed.
        ImageError: there is nothing.
        UnavailableError: a package is missing.
    """
    pattern = is_pattern(name)
    if through and archive(name) is not None and not pattern:
        yield from _members(name, _base(name) if apart else "")
        return
    if not pattern and not through:
        yield name, _base(name), None, None
        return
    with _reading(name):
        files, path = _store(name)
        files.invalidate_cache()
        found = dict(files.glob(path, detail=True)) if pattern else {path: {"type": "directory"}}
        root = path
        while glob.has_magic(root):
            root = files._parent(root)
        entries: dict[str, Any] = {}
        for entry, about in found.items():
            if about["type"] != "directory":
                entries[entry] = about
            elif through:
                entries.update(files.find(entry, detail=True))
    if not entries:
        raise ImageError(f"{printable(name)}: there is no such file, or nothing below it")
    for entry in sorted(entries):
        about = entries[entry]
        if about["type"] != "file" or entry.endswith("/"):
            continue
        below = entry.removeprefix(root).lstrip("/") or _base(entry)
        whole = _named(files, entry, name)
        if through and archive(entry) is not None:
            yield from _members(whole, below)
        else:
            yield whole, below, about.get("size"), None


def _members(name: str, below: str) -> Iterator[Found]:
    """What is in an archive, which stands for a folder without its suffix."""
    top = below[:-4] + "/" if below else ""
    with _reading(name):
        if archive(name) == "tar":
            yield from [
                (f"tar://{member.name}::{name}", top + member.name.removeprefix("./"), member.size, span)
                for member, span in _headers(name)
            ]
            return
        files, _ = _store(f"zip://::{name}")
        entries = files.find("", detail=True)
    for path in sorted(entries):
        if entries[path]["type"] == "file":
            yield f"zip://{path}::{name}", top + path, entries[path]["size"], None


def _headers(name: str) -> list[tuple[tarfile.TarInfo, Span]]:
    import tarfile

    if not is_remote(name):
        opened: Any = open(name, "rb")  # noqa: PTH123, SIM115
    else:
        files, path = _store(name)
        opened = files.open(path, "rb", block_size=_BLOCK)
    with opened as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                return [(member, (member.offset_data, member.size)) for member in tar if member.isreg()]
        except tarfile.TarError as error:
            raise ImageError(f"{printable(name)}: no sound tar file ({printable(str(error))})") from error


def sizes(names: Iterable[str]) -> dict[str, int]:
    """Bytes of those files that are there.

    Raises:
        OutputError: that cannot be found out.
        UnavailableError: a package is missing.
    """
    wanted = set(names)
    there: dict[str, int] = {}
    if len(wanted) <= _FEW:
        for name in wanted:
            with _writing(name):
                files, path = _store(name)
                try:
                    about = files.info(path)
                except FileNotFoundError:
                    continue
                if about["type"] == "file":
                    there[name] = int(about["size"] or 0)
        return there
    folder = _common(wanted)
    with _writing(folder):
        files, path = _store(folder)
        files.invalidate_cache()
        try:
            entries = files.find(path, detail=True)
        except FileNotFoundError:
            return there
        for entry, about in entries.items():
            if (name := _named(files, entry, folder)) in wanted:
                there[name] = int(about["size"] or 0)
    return there


def _common(names: set[str]) -> str:
    """The folder that all are below."""
    first, last = min(names).split("/"), max(names).split("/")
    shared = [a for a, b in zip(first[:-1], last[:-1], strict=False) if a == b]
    count = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(shared))
    return "/".join(first[: min(count, len(shared))])


def is_folder(name: str) -> bool:
    """Whether there is a folder of this name. Raises DownloadError, UnavailableError."""
    with _reading(name):
        files, path = _store(name)
        return bool(files.isdir(path))


def fetch(name: str, span: Span | None, limit: int) -> bytes:
    """All bytes of a file.

    Args:
        name: of it.
        span: where it lies in the archive that its name ends with.
        limit: in bytes.

    Raises:
        DownloadError: it is not there, or cannot be read.
        LimitError: it is larger than the limit.
        UnavailableError: a package is missing.
    """
    with _reading(name):
        if span is not None:
            offset, size = span
            _check_size(name, size, limit)
            return _range(name.split("::", 1)[1], offset, size)
        with _locked(name):
            files, path = _store(name)
            size = files.info(path).get("size")
            _check_size(name, size or 0, limit)
            if size is not None:
                return bytes(files.cat_file(path))
            with files.open(path, "rb") as file:
                data = bytes(file.read(limit + 1))
        _check_size(name, len(data), limit)
        return data


def _range(name: str, offset: int, size: int) -> bytes:
    if not is_remote(name):
        with open(name, "rb") as file:  # noqa: PTH123
            file.seek(offset)
            data = file.read(size)
    else:
        files, path = _store(name)
        data = bytes(files.cat_file(path, start=offset, end=offset + size)) if size else b""
    if len(data) != size:
        raise DownloadError(f"{printable(name)}: ends before its member does")
    return data


@contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """A file to be read in parts, of which no more is fetched than is asked for, in blocks.

    Raises:
        DownloadError, UnavailableError: as :func:`fetch`.
    """
    with _reading(name):
        if _PROTOCOL.match(name) and name.split("://")[0].lower() in _ARCHIVES.values():
            yield io.BytesIO(fetch(name, None, 1 << 32))
            return
        files, path = _store(name)
        with files.open(path, "rb", block_size=1 << 16, cache_type="bytes") as file:
            yield cast(BinaryIO, file)


def store(name: str, data: bytes | BinaryIO) -> None:
    """Write a whole file, which an object store shows when all of it is there.

    Raises:
        OutputError: it cannot be written.
        UnavailableError: a package is missing.
    """
    with _writing(name):
        files, path = _store(name)
        if isinstance(data, bytes):
            files.pipe_file(path, data)
            return
        with files.open(path, "wb") as file:
            while piece := data.read(1 << 24):
                file.write(piece)


# ---- fsspec


def _store(name: str) -> tuple[Any, str]:
    """The file system and the path in it."""
    fsspec = _fsspec()
    options = {"s3": _S3} if re.search(r"(?:^|::)s3a?://", name) else {}
    try:
        files, path = fsspec.url_to_fs(name, **options)
    except ImportError as error:
        protocol = name.split("::")[-1].split("://")[0]
        raise UnavailableError(
            f"{printable(name)}: {printable(protocol)}:// needs a package that is not installed: {EXTRA} "
            f"({printable(str(error))})"
        ) from error
    except ValueError as error:
        raise UnavailableError(f"{printable(name)}: {printable(str(error))}") from error
    return files, path


@cache
def _fsspec() -> Any:
    try:
        return import_module("fsspec.core")
    except ImportError as error:
        raise UnavailableError(
            f"addresses such as s3://, and archives, need fsspec, which is not installed: {EXTRA}"
        ) from error


def _named(files: Any, path: str, like: str) -> str:
    """The whole name of a path, as names of the same file system are written."""
    head, chained, rest = like.partition("::")
    if chained:
        return f"{head.split('://')[0]}://{path}::{rest}"
    match = _PROTOCOL.match(path)
    return path if match else f"{head.split('://')[0]}://{path}"


def _base(name: str) -> str:
    return name.split("::")[0].rstrip("/").rsplit("/", 1)[-1]


@contextmanager
def _locked(name: str) -> Iterator[None]:
    if "::" in name:
        with _ARCHIVE_LOCK:
            yield
    else:
        yield


def _check_size(name: str, size: int, limit: int) -> None:
    if size > limit:
        raise LimitError(f"{printable(name)}: more than {limit} bytes of input")


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except LatensError:
        raise
    except Exception as error:
        raise DownloadError(f"{printable(name)}: {_why(error)}") from error


@contextmanager
def _writing(name: str) -> Iterator[None]:
    try:
        yield
    except LatensError:
        raise
    except Exception as error:
        raise OutputError(f"{printable(name)}: cannot be written: {_why(error)}") from error


def _why(error: Exception) -> str:
    """What is wrong, in words; file systems raise what they like."""
    kind, text = type(error).__name__, printable(str(error))
    if isinstance(error, FileNotFoundError | KeyError):
        return "there is no such file or bucket (404)"
    if isinstance(error, PermissionError):
        return f"access is denied (403); check the credentials, and what they allow ({text})"
    if "Credentials" in kind:
        return f"no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile ({text})"
    if isinstance(error, TimeoutError) or "Timeout" in kind:
        return "the server does not answer in time, after several tries; try again later"
    if isinstance(error, OSError) and error.errno == errno.EBUSY:
        return f"the server is too busy (503), after several tries; try again later, with fewer at a time ({text})"
    if isinstance(error, ConnectionError) or "Connection" in kind or "Connect" in kind:
        return f"the server cannot be reached ({text})"
    return f"{kind}: {text}" if text else kind
