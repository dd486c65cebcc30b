"""Files from the network, kept in the platform's cache folder.

Whatever happens (a cut connection, a full disk, Ctrl-C, another process that wants the same file), there is either the
complete file under its name or none; what was received stays for the next try. Its name carries the first digits of
its SHA-256. The full hash is noted beside the file when it is first seen, and has to stay the same.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from latens.errors import DownloadError, LatensError, LimitError, OutputError
from latens.io import atomic_write, printable

__all__ = ["cache_folder", "fetch"]

MAX_BYTES = 1 << 30
TIMEOUT = 30.0  # seconds without a byte
_CONNECTIONS = 20
_PIECE = 1 << 18
_NETWORK_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    ssl.SSLError,
    TimeoutError,
    ConnectionError,
)
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,150}-([0-9a-f]{8,64})(?:\.[a-z]+)+", re.ASCII)
_LOCAL = ("localhost", "127.0.0.1", "::1")
_SECURE = (("https", False), ("https", True), ("http", True))  # scheme, on this machine


def cache_folder() -> Path:
    """Where downloaded files are kept.

    ``LATENS_CACHE`` if it is set; else ``latens`` in the platform's folder for caches: ``$XDG_CACHE_HOME`` or
    ``~/.cache``, on macOS ``~/Library/Caches``, on Windows ``%LOCALAPPDATA%``.
    """
    if own := os.environ.get("LATENS_CACHE"):
        return Path(own)
    home = Path.home()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or home / ".cache"
    return Path(base) / "latens"


def fetch(url: str, *, sha256: str | None = None, progress: bool = True, max_bytes: int = MAX_BYTES) -> Path:
    """The file at ``url``: from the cache, or downloaded.

    A file that was put into the cache by hand is fine, too.

    Args:
        url: HTTPS (HTTP from this machine only). The name ends in ``-`` and at least eight hex digits of the
            file's SHA-256, before its suffixes.
        sha256: all 64 of them, if they are known.
        progress: show a progress bar on standard error, if that is a terminal.
        max_bytes: refuse a larger file.

    Raises:
        DownloadError: it cannot be had, or is not the file that its name, or the hash noted earlier, announce.
        LimitError: it is larger than ``max_bytes``.
    """
    _check_url(url)
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
    found = _NAME.fullmatch(name)
    if not found:
        raise DownloadError(
            f"{printable(url)}: the name does not end in the digits of a hash, so that nothing could be checked"
        )
    digits = found[1] if sha256 is None else sha256
    folder = cache_folder() / "models"
    target = folder / name
    try:
        if not target.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            with _lock(folder / f"{name}.lock"):
                # Another process may have been faster.
                if not target.is_file():
                    _download(url, target, digits, progress, max_bytes)
        _check_hash(target, target, digits)
    except LatensError:
        raise
    except OSError as error:
        raise DownloadError(
            f"{printable(folder)}: cannot keep files there ({error}); set LATENS_CACHE to another folder"
        ) from error
    return target


def _check_url(url: str) -> None:
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError as error:
        raise DownloadError(f"{printable(url)}: not an address ({error})") from error
    if not parts.hostname or (parts.scheme, parts.hostname in _LOCAL) not in _SECURE:
        raise DownloadError(f"{printable(url)}: only HTTPS addresses are fetched from")


def _check_hash(path: Path, target: Path, digits: str) -> None:
    """Compare a file with its name and with the hash noted when it was first seen, or note that now."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    note = target.with_name(f"{target.name}.json")
    try:
        noted = json.loads(note.read_bytes())["sha256"]
    except FileNotFoundError:
        noted = found
    except (ValueError, TypeError, KeyError) as error:
        raise DownloadError(f"{printable(note)}: damaged; delete it and {printable(target)}") from error
    if not found.startswith(digits):
        what = f"SHA-256 {found[: len(digits)]}, expected was {digits}"
        if path != target:
            raise DownloadError(
                f"{printable(target.name)}: what was received is another file ({what}); it is not kept"
            )
        raise DownloadError(
            f"{printable(target)}: it is damaged or not the published file ({what}); delete it"
        )
    if found != noted:
        raise DownloadError(
            f"{printable(target)}: its SHA-256 is {found}, but it was {printable(str(noted))} when the file was "
            f"first used. If you know why it changed, delete {printable(note)}"
        )
    if not note.exists():
        # In a folder that cannot be written to, there is the name to go by.
        with suppress(OutputError):
            atomic_write(note, json.dumps({"sha256": found}).encode(), force=True)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a file's lock; the system lets go of it when the process ends, however that happens."""
    with path.open("ab") as file:
        while not _try_lock(file):
            time.sleep(0.1)
        yield


def _try_lock(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        _check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, target: Path, digits: str, progress: bool, max_bytes: int) -> None:
    """Bring a file under its name, going on from what an earlier try has left."""
    part = target.with_name(f"{target.name}.part")
    while True:
        resumed = part.exists()
        try:
            _fill(url, part, target, progress, max_bytes)
            _check_hash(part, target, digits)
        except _IncompleteError as error:
            raise DownloadError(str(error)) from None
        except (DownloadError, LimitError):
            part.unlink(missing_ok=True)
            # What was there may have been of another file; that is found out only now.
            if not resumed:
                raise
        else:
            part.replace(target)
            return


class _IncompleteError(Exception):
    """What was received is good as far as it goes."""


def _fill(url: str, part: Path, target: Path, progress: bool, max_bytes: int) -> None:
    """Bring ``part`` to its full length, in as many connections as it takes, if each brings something."""
    for _ in range(_CONNECTIONS):
        before = part.stat().st_size if part.exists() else 0
        try:
            if _receive(url, part, before, progress, max_bytes):
                return
            reason = "the connection was cut"
        except urllib.error.HTTPError as error:
            reason = f"the server answers {error.code} {error.reason}"
        except _NETWORK_ERRORS as error:
            reason = str(error.reason if isinstance(error, urllib.error.URLError) else repr(error))
        if not part.exists() or part.stat().st_size <= before:
            break
    raise _IncompleteError(
        f"cannot download {printable(url)} ({printable(reason)}). What was received is kept, and the next try goes "
        f"on from there. If you have the file from elsewhere, put it at {printable(target)}"
    )


def _receive(url: str, part: Path, have: int, progress: bool, max_bytes: int) -> bool:
    """One connection; whether the file is complete then."""
    headers = {"User-Agent": "latens", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    opener = urllib.request.build_opener(_Redirects)
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            # There is nothing after what we have. If it was complete, its hash will say so.
            return True
        raise
    with response:
        if response.status != 206:
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length and length.isdecimal() else None
        _check_size(url, total or 0, max_bytes)
        with part.open("r+b" if have else "wb") as file, _bar(part, progress, have, total) as advance:
            file.seek(have)
            file.truncate()
            while piece := response.read(_PIECE):
                have += len(piece)
                _check_size(url, have, max_bytes)
                file.write(piece)
                advance(len(piece))
            file.flush()
            os.fsync(file.fileno())
    return total is None or have == total


def _check_size(url: str, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise LimitError(f"{printable(url)}: expected at most {max_bytes:,} bytes, but got {size:,} or more")


@contextmanager
def _bar(part: Path, wanted: bool, have: int, total: int | None) -> Iterator[Any]:
    if not (wanted and sys.stderr is not None and sys.stderr.isatty()):
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(part.stem, total=total, completed=have)
        yield lambda count: progress.advance(task, count)
