"""What the command-line tests share: a folder to work in, and commands run in this process."""

import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

import tiny
from latens.cli import app


@dataclass
class Result:
    """What a command did."""

    code: int
    out: bytes
    err: str


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def latens(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Runs a command as ``main`` does, but for signals; ``stdin`` is what it reads from standard input."""

    def run(*arguments: str | os.PathLike[str], stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfdbinary.readouterr()
        code = app.run([os.fspath(a) for a in arguments])
        out, err = capfdbinary.readouterr()
        return Result(code, out, err.decode())

    return run


def tree(folder: Path) -> dict[str, bytes]:
    """Names (temporary ones too) and contents of all files."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def fails(latens: Callable[..., Result], work: Path) -> Callable[..., str]:
    """Runs a command that must fail as every failure should: code 2, one line that names the cause, nothing
    written. Returns the line."""

    def run(*arguments: str | os.PathLike[str], stdin: bytes = b"") -> str:
        before = tree(work)
        result = latens(*arguments, stdin=stdin)
        assert result.code == 2, result
        assert result.out == b""
        assert result.err.startswith("latens: error: ")
        assert result.err.endswith("\n")
        line = result.err[:-1]
        assert line.isprintable(), line
        assert "Traceback" not in line
        assert "unexpected error" not in line
        assert tree(work) == before
        return line

    return run


@pytest.fixture
def photo(work: Path) -> Path:
    """A small photograph, ``photo.png``."""
    Image.fromarray(tiny.picture(50, 70)).save(work / "photo.png")
    return Path("photo.png")


@pytest.fixture(scope="session")
def ltn_bytes(tiny_weights: Path) -> bytes:
    """The same photograph, encoded by the tiny model."""
    import latens

    return latens.encode(tiny.picture(50, 70), 60, model=str(tiny_weights))


@pytest.fixture
def ltn_file(work: Path, ltn_bytes: bytes) -> Path:
    """``photo.ltn``."""
    (work / "photo.ltn").write_bytes(ltn_bytes)
    return Path("photo.ltn")
