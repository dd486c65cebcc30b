"""A file of lines of JSON that says what a batch has done, written as it goes: what is done is never done twice."""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from latens.errors import OutputError
from latens.io import printable

if sys.platform != "win32":
    import fcntl

__all__ = ["Manifest"]

_VERSION = 1
Key = tuple[str, str]


class Manifest:
    """What a batch has begun and done, job by job.

    The first line says which command wrote it, and with which options; each other line is about a job: its ``source``
    and ``target``, and as ``status`` ``begun``, ``coded``, ``salvaged`` or ``failed``. A last line that breaks off is
    what a killed process left, and is removed. One process has the file at a time.

    Args:
        path: of the file, which is made if it is not there.
        command: whose batch it is.
        options: of the command that decide what its results are.

    Attributes:
        done: sources and targets of jobs with a result.
        begun: those that were begun, and of which no more is known.

    Raises:
        OutputError: another process has it, it cannot be written, or it is the file of another batch.
    """

    def __init__(self, path: str, command: str, options: dict[str, Any]) -> None:
        self.done: set[Key] = set()
        self.begun: set[Key] = set()
        self._name = printable(path)
        self._lock = threading.Lock()
        head = {"latens": _VERSION, "command": command, "options": options}
        try:
            self._file: IO[bytes] = Path(path).open("ab+")  # noqa: SIM115
        except (OSError, ValueError) as error:
            raise self._failed(error) from error
        try:
            self._hold()
            self._read(json.loads(json.dumps(head)))
        except BaseException as error:
            self._file.close()
            if isinstance(error, OSError) and not isinstance(error, OutputError):
                raise self._failed(error) from error
            raise

    def close(self) -> None:
        """Let others have it."""
        self._file.close()

    def write(self, status: str, source: str, target: str, **more: Any) -> None:
        """A line about a job. Raises OutputError."""
        self._write({"status": status, "source": source, "target": target, **more})

    def _hold(self) -> None:
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"{self._name}: another process is at work on this manifest; wait for it, or name another --manifest"
            ) from error

    def _read(self, head: dict[str, Any]) -> None:
        self._file.seek(0)
        end = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                # Of a file that never was a manifest nothing is removed.
                if number == 1 and not line.startswith(b'{"latens"'):
                    raise OutputError(f"{self._name}: is no manifest of Latens; name another file")
                self._file.truncate(end)
                break
            end += len(line)
            record: Any = None
            with suppress(ValueError):
                record = json.loads(line)
            if number == 1:
                self._check(record, head)
                continue
            try:
                key, status = (record["source"], record["target"]), record["status"]
            except (TypeError, KeyError) as error:
                raise OutputError(f"{self._name}: line {number} is damaged; mend or remove it") from error
            if status in ("coded", "salvaged"):
                self.done.add(key)
            elif status == "begun":
                self.begun.add(key)
        if not end:
            self._write(head)

    def _check(self, found: Any, head: dict[str, Any]) -> None:
        if not isinstance(found, dict) or "latens" not in found:
            raise OutputError(f"{self._name}: is no manifest of Latens; name another file")
        if found["latens"] != _VERSION:
            raise OutputError(f"{self._name}: was written by another release of Latens; name another file")
        if found != head:
            raise OutputError(
                f"{self._name}: belongs to another batch ({_difference(found, head)}); name another --manifest"
            )

    def _write(self, record: dict[str, Any]) -> None:
        line = (json.dumps(record) + "\n").encode()
        try:
            with self._lock:
                # In one piece, for whoever reads it meanwhile.
                self._file.seek(0, os.SEEK_END)
                self._file.write(line)
                self._file.flush()
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> OutputError:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return OutputError(f"{self._name}: the manifest cannot be written ({printable(reason)})")


def _difference(found: dict[str, Any], head: dict[str, Any]) -> str:
    if found.get("command") != head["command"]:
        return f"{printable(str(found.get('command')))}, not {head['command']}"
    old = found.get("options")
    for name, value in head["options"].items():
        before = old.get(name) if isinstance(old, dict) else None
        if before != value:
            return f"{name} was {printable(str(before))}, and is {printable(str(value))}"
    return "it has other ones"
