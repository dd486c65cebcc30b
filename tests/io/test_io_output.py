"""Writing files whole or not at all, and printing strings from outside."""

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latens.errors import OutputError
from latens.io import TemporaryOutput, atomic_write, check_output, printable, remove_leftovers


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_new_file(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"data")
    assert (tmp_path / "a").read_bytes() == b"data"
    assert names(tmp_path) == ["a"]


# At one instant the open file is only known to the interpreter, which closes it with a warning.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("before", "links"),
    [(None, True), (None, False), (b"before", True)],
    ids=["new", "without links", "replaced"],
)
def test_ctrl_c_at_any_instruction_leaves_all_or_nothing(
    tmp_path: Path, before: bytes | None, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        without_links(monkeypatch)
    outcomes = set()
    for instruction in count():
        folder = tmp_path / str(instruction)
        folder.mkdir()
        if before is not None:
            (folder / "a").write_bytes(before)
        interrupted = interrupt_at(
            instruction, lambda at=folder: atomic_write(at / "a", b"data", force=bool(before))
        )
        left = {path.name: path.read_bytes() for path in folder.iterdir()}
        outcomes.add(tuple(left.items()))
        assert left in ({"a": b"data"}, {} if before is None else {"a": before}), instruction
        if not interrupted:
            break
    assert len(outcomes) == 2
    assert instruction > 100


def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on file systems on which a file has but one name."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)


def interrupt_at(instruction: int, function: Callable[[], None]) -> bool:
    """Raise KeyboardInterrupt before the n-th instruction of `_output.py`; False if there are fewer."""
    seen = 0

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., object] | None:
        nonlocal seen
        if not frame.f_code.co_filename.endswith("_output.py"):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            seen += 1
            if seen > instruction:
                raise KeyboardInterrupt
        return trace

    tracing = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(tracing)
    return False


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int, force: bool) -> None:
    before = os.umask(umask)
    try:
        atomic_write(str(tmp_path / "a"), b"", force=force)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask


def test_replacing_keeps_the_permissions(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    target.chmod(0o640)
    atomic_write(target, b"new", force=True)
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert names(tmp_path) == ["a"]


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(OutputError, match=r"a: exists already.*--force"):
        atomic_write(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_kept(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        without_links(monkeypatch)
    target = tmp_path / "a"
    monkeypatch.setattr(os, "fsync", lambda _: target.write_bytes(b"theirs"))
    with pytest.raises(OutputError, match="someone else"):
        atomic_write(target, b"ours")
    assert target.read_bytes() == b"theirs"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, force: bool
) -> None:
    target = tmp_path / "a"
    if force:
        target.write_bytes(b"old")

    def fail(_: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    expected = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        atomic_write(target, b"new", force=force)
    if expected is OutputError:
        assert str(caught.value) == f"{target}: cannot be written: No space left on device"
    assert names(tmp_path) == (["a"] if force else [])
    assert not force or target.read_bytes() == b"old"


def test_a_failing_rename_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "replace", fail)
    without_links(monkeypatch)
    for force in (False, True):
        with pytest.raises(OutputError, match="Input/output error"):
            atomic_write(tmp_path / "a", b"new", force=force)
    assert names(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from latens.io import TemporaryOutput\n"
        "TemporaryOutput(sys.argv[1]).open().write(b'half')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")])
    assert done.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 1
    own = TemporaryOutput(tmp_path / "b")
    own.open().write(b"whole")
    for name in (".latens-notes.tmp", "latens-0123456789abcdef.tmp"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".latens-0123456789abcdef.tmp").symlink_to("nowhere")
    remove_leftovers(tmp_path)
    own.commit()
    assert (tmp_path / "b").read_bytes() == b"whole"
    assert names(tmp_path) == [
        ".latens-0123456789abcdef.tmp", ".latens-notes.tmp", "b", "latens-0123456789abcdef.tmp"
    ]  # fmt: skip
    remove_leftovers(tmp_path / "missing")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
def test_a_file_taken_for_a_leftover_is_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between being created and being locked, a temporary file looks like one of a process that was killed."""
    import fcntl

    real, calls = fcntl.flock, []

    def flock(file: object, operation: int) -> None:
        calls.append(operation)
        if len(calls) == 1:
            remove_leftovers(tmp_path)
        real(file, operation)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", flock)
    atomic_write(tmp_path / "a", b"data")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"data"}
    assert calls == [fcntl.LOCK_EX, fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_EX]


def test_a_file_size_limit_is_an_output_error(tmp_path: Path) -> None:
    """A disk that takes no more bytes, for real: the process may write 1,000 bytes per file."""
    code = (
        "import resource, signal, sys\n"
        "from latens.io import atomic_write\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    atomic_write(sys.argv[1], bytes(5000))\n"
        "except Exception as error:\n"
        "    print(type(error).__name__)\n"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "a")]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "OutputError\n"
    assert names(tmp_path) == []


@pytest.mark.parametrize("force", [False, True])
def test_what_is_not_a_place_for_a_file(tmp_path: Path, force: bool) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    before = names(tmp_path)
    for name, words in {
        "link": "symbolic link",
        "dangling": "symbolic link",
        "folder": "is a folder",
        "pipe": "not a regular file",
        "missing/a": "does not exist",
        "file/a": "does not exist",
        "x" * 300: "cannot be written",
        "a\0b": "cannot be written",
    }.items():
        for function in (check_output, lambda path, force: atomic_write(path, b"new", force=force)):
            with pytest.raises(OutputError, match=words):
                function(tmp_path / name, force=force)
    with pytest.raises(OutputError, match="not a regular file"):
        atomic_write("/dev/null", b"new", force=force)
    assert names(tmp_path) == before
    assert (tmp_path / "file").read_bytes() == b"kept"


def test_an_input_is_never_replaced(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"kept")
    twin = tmp_path / "twin"
    twin.hardlink_to(source)
    alias = tmp_path / "alias"
    alias.symlink_to(tmp_path, target_is_directory=True)
    for target in (source, twin, tmp_path / "." / "source", alias / "source"):
        with pytest.raises(OutputError, match="also an input"):
            atomic_write(target, b"new", force=True, inputs=[tmp_path / "gone", source])
    assert source.read_bytes() == b"kept"
    atomic_write(tmp_path / "other", b"new", inputs=[source])


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: object, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, flags, mode)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OutputError, match="a: cannot be written: Permission denied"):
        atomic_write(tmp_path / "a", b"new")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="is not writable"):
        check_output(tmp_path / "a")
    assert names(tmp_path) == []


def test_error_messages_are_printable(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        check_output(tmp_path / "a\x1b[2J\n\u202e" / "b")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name (1) [bold].png", "plain name (1) [bold].png"),
        ("Grüße 図 😀", "Grüße 図 😀"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\r\nb\tc\x7f", "a\\r\\nb\\tc\\x7f"),
        ("gnp\u202e.exe", "gnp\\u202e.exe"),
        ("\u200b\u2028\u2066\ufeff", "\\u200b\\u2028\\u2066\\ufeff"),
        (b"bytes\xff", "bytes\\udcff"),
        (Path("path/\x01"), "path/\\x01"),
    ],
)
def test_printable(text: str | bytes | Path, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(codec=None)))
def test_printable_is_printable(text: str) -> None:
    assert printable(text).isprintable()
    printable(text).encode()


def test_import_is_light() -> None:
    code = "import sys, latens.io; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "torch", "PIL"} & set(modules.stdout.split())
