"""Results that go into one zip or tar file, as WebDataset and others read them, and not into a folder."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
import threading
import zipfile
from contextlib import ExitStack
from types import TracebackType
from typing import IO, BinaryIO, cast

from latens.errors import OutputError
from latens.io import TemporaryOutput, check_output, printable, remote

__all__ = ["Archive"]

_MODE = 0o644
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same results make the same file


class Archive:
    """A ``.zip`` or ``.tar`` file, here or in a store. It appears when all is in it, and not if the command is stopped.

    Args:
        name: of the file.
        force: replace what is there.

    Raises:
        OutputError: it must not be written.
    """

    def __init__(self, name: str, force: bool) -> None:
        self.name, self._force = name, force
        self._kind = remote.archive(name)
        self._lock, self._stack = threading.Lock(), ExitStack()
        self._file: BinaryIO | None = None
        self._local: TemporaryOutput | None = None
        self._made: tarfile.TarFile | zipfile.ZipFile | None = None
        if not remote.is_remote(name):
            check_output(name, force=force)
        elif not force and remote.sizes([name]):
            raise OutputError(f"{printable(name)}: exists already; use --force (force=True) to replace it")

    def add(self, member: str, data: bytes | BinaryIO) -> None:
        """Put a whole result in; called by several threads.

        Args:
            member: its name, with ``/`` between folders.
            data: a file is read from its beginning.

        Raises:
            OutputError: it cannot be written.
        """
        source = io.BytesIO(data) if isinstance(data, bytes) else data
        size = source.seek(0, os.SEEK_END)
        source.seek(0)
        try:
            with self._lock:
                made = self._open()
                if isinstance(made, tarfile.TarFile):
                    about = tarfile.TarInfo(member)
                    about.size, about.mode = size, _MODE
                    made.addfile(about, source)
                else:
                    entry = zipfile.ZipInfo(member, _LONG_AGO)
                    entry.external_attr, entry.file_size = _MODE << 16, size
                    with made.open(entry, "w") as file:
                        shutil.copyfileobj(cast("IO[bytes]", source), file)
        except OSError as error:
            raise self._failed(error) from error

    def _open(self) -> tarfile.TarFile | zipfile.ZipFile:
        if self._made is None:
            if remote.is_remote(self.name):
                kept = tempfile.TemporaryFile()  # noqa: SIM115
                self._file = cast(BinaryIO, self._stack.enter_context(kept))
            else:
                self._local = TemporaryOutput(self.name, force=self._force)
                self._stack.callback(self._local.discard)
                self._file = self._local.open()
            if self._kind == "tar":
                self._made = tarfile.open(fileobj=self._file, mode="w")  # noqa: SIM115
            else:
                self._made = zipfile.ZipFile(self._file, "w")
        return self._made

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it its name, if something is in it and nothing was raised."""
        with self._stack:
            if kind is not None or self._made is None:
                return
            try:
                self._made.close()
            except OSError as problem:
                raise self._failed(problem) from problem
            assert self._file is not None
            if self._local is not None:
                self._local.commit()
            else:
                self._file.seek(0)
                remote.store(self.name, self._file)

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(f"{printable(self.name)}: cannot be written ({error.strerror or error})")
