"""Huge pictures: what is coded of one is kept beside the result until that is complete; the next run goes on with it.

``NAME.part`` is the file as far as it is written, ``NAME.part.json`` says of what, and with which settings.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from latens.cli import files
from latens.io import atomic_write, remote

if TYPE_CHECKING:
    from latens.codec.image import Begun

__all__ = ["HUGE", "Note", "beside", "identity"]

HUGE = 1 << 26
"""Pixels, from which on it is worth it."""
_SAMPLE = 1 << 20  # bytes of either end of the input
_MOST = 1 << 12  # bytes of a note


class Note:
    """What is known of a part of a file.

    Args:
        path: of the note.
        identity: of what is coded; a note for anything else is none.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self._path, self._identity = path, identity

    def read(self) -> Begun | None:
        """What another process wrote; None if there is nothing to go on with."""
        from latens.codec.image import Begun

        with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            with self._path.open("rb") as file:
                found = json.loads(file.read(_MOST))
            bands, crc = found["bands"], found["crc"]
            if found["identity"] == self._identity and type(bands) is int and type(crc) is int:
                return Begun(bands, crc & 0xFFFFFFFF)
        return None

    def write(self, begun: Begun) -> None:
        """For the next process. Raises OutputError."""
        record = {"identity": self._identity, "bands": begun.bands, "crc": begun.crc}
        atomic_write(self._path, json.dumps(record).encode(), force=True)


@contextmanager
def beside(job: files.Job, identity: str) -> Iterator[Note | None]:
    """The note for a job's result; None where there can be none. It is removed when nothing is left to go on with."""
    remotely = remote.is_remote(job.target) or job.archive is not None
    if job.target == files.STANDARD or files.is_null(job.target) or remotely:
        yield None
        return
    part = Path(job.target + ".part")
    path = Path(job.target + ".part.json")
    try:
        yield Note(path, identity)
    finally:
        if not part.exists():
            with suppress(OSError):
                path.unlink(missing_ok=True)


def identity(file: BinaryIO, **settings: Any) -> str:
    """Tells an input and what is made of it from others: by its size, its date, either end, and all settings."""
    place = file.tell()
    size = file.seek(0, os.SEEK_END)
    digest = hashlib.sha256(json.dumps([size, settings], sort_keys=True).encode())
    for start in (0, max(size - _SAMPLE, 0)):
        file.seek(start)
        digest.update(file.read(_SAMPLE))
    file.seek(place)
    with suppress(OSError, AttributeError, ValueError):
        digest.update(str(os.fstat(file.fileno()).st_mtime_ns).encode())
    return digest.hexdigest()
