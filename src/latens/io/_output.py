"""Files are written whole or not at all."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from latens.errors import OutputError
from latens.io._text import printable

if sys.platform != "win32":
    import fcntl

# O_EXCL follows no symbolic link.
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
# No symbolic link either, and no waiting for the other end of a pipe.
_AGAIN = (
    os.O_RDWR
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | (_NEW & ~(os.O_CREAT | os.O_EXCL))
)
_TEMPORARY = re.compile(r"\.latens-[0-9a-f]{16}\.tmp")


def check_output(
    path: str | os.PathLike[str], *, force: bool = False, inputs: Iterable[str | os.PathLike[str]] = ()
) -> None:
    """Raises OutputError when `path` must not be written.

    To be asked before long work; `atomic_write` asks again.

    Refused: an existing file (unless `force`), a symbolic link, a folder or device, any of the files `inputs`
    (also under another name), and a file in a folder that does not exist or
    cannot be written.
    """
    path = Path(path)
    shown = printable(path)
    try:
        if not path.parent.is_dir():
            raise OutputError(f"{shown}: the folder {printable(path.parent)} does not exist")
        if not os.access(path.parent, os.W_OK):
            raise OutputError(f"{shown}: the folder {printable(path.parent)} is not writable")
        try:
            status = path.lstat()
        except FileNotFoundError:
            return
        if stat.S_ISLNK(status.st_mode):
            raise OutputError(f"{shown}: is a symbolic link; name the file that it points to")
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise OutputError(f"{shown}: is {kind}")
        for other in inputs:
            if _same_file(path, other):
                raise OutputError(f"{shown}: is also an input ({printable(other)}); choose another output")
        if not force:
            raise OutputError(f"{shown}: exists already; use --force (force=True) to replace it")
    except OutputError:
        raise
    except (OSError, ValueError) as error:
        raise _failed(shown, error) from error


def atomic_write(
    path: str | os.PathLike[str],
    data: bytes | bytearray | memoryview,
    *,
    force: bool = False,
    inputs: Iterable[str | os.PathLike[str]] = (),
) -> None:
    """Write a file so that `path` holds either all of `data` or what it held before, whatever happens.

    The data go to a temporary file in the same folder, reach the disk, and are then renamed. Without `force`
    a file that appears at `path` meanwhile is left alone. Permissions are those of the file replaced, else
    what the umask gives. Refusals: see `check_output`. Raises OutputError; nothing is left behind, on Ctrl-C
    neither.
    """
    output = TemporaryOutput(path, force=force, inputs=inputs)
    try:
        output.open().write(data)
        output.commit()
    except BaseException as error:
        output.discard()
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise _failed(printable(path), error) from error
        raise


class TemporaryOutput:
    """A file that is written bit by bit, and gets its name when it is complete; see `atomic_write`.

    One of `commit` and `discard` must be called after `open`; `discard` may be called at any time.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        force: bool = False,
        inputs: Iterable[str | os.PathLike[str]] = (),
    ) -> None:
        check_output(path, force=force, inputs=inputs)
        self._path = Path(path)
        self._force = force
        self._name()
        self._file: BinaryIO | None = None

    def _name(self) -> None:
        self._temporary = self._path.with_name(f".latens-{os.urandom(8).hex()}.tmp")

    def open(self) -> BinaryIO:
        """The file, to be written to, and to be read back. Raises OutputError.

        Apart from the constructor, so that Ctrl-C finds an object that can be discarded before there is a file.
        """
        try:
            while True:
                self._file = os.fdopen(os.open(self._temporary, _NEW, 0o666), "w+b")
                if _hold(self._file):
                    return self._file
                self._file.close()
                self._name()
        except OSError as error:
            raise _failed(printable(self._path), error) from error

    def commit(self) -> None:
        """Bring everything to the disk and give the file its name. Raises OutputError."""
        path, reserving = self._path, False
        try:
            file = self._file or self.open()
            file.flush()
            os.fsync(file.fileno())
            if sys.platform == "win32":
                file.close()  # no open file can be renamed there; elsewhere the lock is kept until it is done
            if self._force and path.exists():
                self._temporary.chmod(stat.S_IMODE(path.stat().st_mode))
            elif not self._force:
                if self._link():
                    self.discard()
                    return
                # Creating the name and failing if it exists is one step; renaming over it then replaces our own
                # empty file.
                reserving = True
                os.close(os.open(path, _NEW, 0o666))
            self._temporary.replace(path)
            file.close()
        except BaseException as error:
            self.discard()
            if reserving and not isinstance(error, FileExistsError):
                _remove_empty(path)
            if isinstance(error, FileExistsError):
                raise OutputError(
                    f"{printable(path)}: was created by someone else; it is left as it is"
                ) from error
            if isinstance(error, OSError):
                raise _failed(printable(path), error) from error
            raise

    def _link(self) -> bool:
        """Give the file its name in one step, unless that is taken; False where files have but one name."""
        try:
            os.link(self._temporary, self._path)
        except FileExistsError:
            raise
        except (OSError, NotImplementedError):
            return False
        return True

    def discard(self) -> None:
        """Leave nothing behind."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._temporary.unlink(missing_ok=True)


class UnfinishedOutput(TemporaryOutput):
    """The same in a file ``NAME.part``, which may have been begun already and is opened as it is: see `keep`."""

    def _name(self) -> None:
        self._temporary = self._path.with_name(self._path.name + ".part")

    def open(self) -> BinaryIO:
        """The file, which may hold something. Raises OutputError, also if another process writes it."""
        shown = printable(self._temporary)
        try:
            while True:
                try:
                    descriptor = os.open(self._temporary, _NEW, 0o666)
                except FileExistsError:
                    descriptor = os.open(self._temporary, _AGAIN)
                file = os.fdopen(descriptor, "r+b")
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    file.close()
                    raise OutputError(f"{shown}: is not a regular file")
                try:
                    if sys.platform != "win32":
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    # Who had it may have given it its last name in the meantime.
                    if os.path.samestat(status, self._temporary.lstat()):
                        self._file = file
                        return file
                except BlockingIOError as error:
                    file.close()
                    raise OutputError(f"{shown}: another process is writing it") from error
                except FileNotFoundError:
                    pass
                file.close()
        except OutputError:
            raise
        except OSError as error:
            raise _failed(shown, error) from error

    def keep(self) -> None:
        """Leave the file as it is, to be gone on with."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def discard(self) -> None:
        """Leave nothing behind of what was opened."""
        if self._file is not None:
            super().discard()


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Delete the temporary files of processes that were killed, and of no others: those hold a lock.

    Without locks (on Windows, and on some network file systems) nothing is deleted.
    """
    if sys.platform == "win32":
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not _TEMPORARY.fullmatch(entry.name) or not entry.is_file(follow_symlinks=False):
                continue
            with suppress(OSError):
                descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(entry.path)  # noqa: PTH108
                finally:
                    os.close(descriptor)


def _hold(file: BinaryIO) -> bool:
    """Lock a new file as one that is in use; False if it was taken for a leftover in the meantime, and is gone."""
    if sys.platform == "win32":
        return True
    with suppress(OSError):  # no locks here: nobody can take it for a leftover
        fcntl.flock(file, fcntl.LOCK_EX)
        return os.fstat(file.fileno()).st_nlink > 0
    return True


def _remove_empty(path: Path) -> None:
    """Remove the file that reserved a name; what has its content already is complete, and stays."""
    with suppress(OSError):
        if not path.stat().st_size:
            path.unlink()


def _same_file(path: Path, other: str | os.PathLike[str]) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


def _failed(shown: str, error: Exception) -> OutputError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return OutputError(f"{shown}: cannot be written: {printable(reason)}")
