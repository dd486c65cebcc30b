"""Coding of huge pictures goes on where it was stopped, and gives the same bytes."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tiny
from latens import format as ltn
from latens.cli import app
from latens.codec import ImageCodec
from latens.codec.image import Begun
from latens.errors import FormatError, OutputError
from latens.io import Image, Strips, UnfinishedOutput, open_strips, write_image


def _strips(seed: int = 0, height: int = 4200) -> Strips:
    file = io.BytesIO()
    write_image(Image(tiny.picture(height, 130)[::-1] if seed else tiny.picture(height, 130)), file, "png")
    strips = open_strips(file, 1 << 24)
    assert strips is not None
    return strips


class _StoppedError(Exception):
    pass


def _stop_after(bands: int, told: list[Begun]) -> object:
    def save(begun: Begun) -> None:
        told.append(begun)
        if begun.bands == bands:
            raise _StoppedError

    return save


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_codec(bands: int, tiny_weights: Path) -> None:
    codec = ImageCodec(tiny_weights)
    whole = io.BytesIO()
    codec.encode_strips(_strips(), whole, 60)
    out, told = io.BytesIO(), list[Begun]()
    with pytest.raises(_StoppedError):
        codec.encode_strips(_strips(), out, 60, save=_stop_after(bands, told))  # type: ignore[arg-type]
    out.write(b"half a tile")
    done: list[float] = []
    assert codec.encode_strips(_strips(), out, 60, begun=told[-1], progress=done.append) == len(
        whole.getvalue()
    )
    assert out.getvalue() == whole.getvalue()
    assert len(done) == 5 - bands


def test_other_files_are_refused(tiny_weights: Path) -> None:
    codec = ImageCodec(tiny_weights)
    out, told = io.BytesIO(), list[Begun]()
    with pytest.raises(_StoppedError):
        codec.encode_strips(_strips(), out, 60, save=_stop_after(2, told))  # type: ignore[arg-type]
    sound = out.getvalue()
    for number in (0, 20, len(sound) // 2, len(sound) - 5):
        damaged = bytearray(sound)
        damaged[number] ^= 1
        with pytest.raises(FormatError):
            codec.encode_strips(_strips(), io.BytesIO(damaged), 60, begun=told[-1])
    for begun in (Begun(0, 0), Begun(-1, 0), Begun(5, 0), Begun(6, 0), Begun(3, 0)):
        with pytest.raises(FormatError):
            codec.encode_strips(_strips(), io.BytesIO(sound), 60, begun=begun)
    with pytest.raises(FormatError, match="another picture"):
        codec.encode_strips(_strips(), io.BytesIO(sound), 61, begun=told[-1])
    with pytest.raises(FormatError, match="another picture"):
        codec.encode_strips(_strips(height=4100), io.BytesIO(sound), 60, begun=told[-1])


# A command that kills itself when it has written so many notes.
_KILLED = """
import os, signal, sys
from latens.cli import app, resume, work
work.LARGE = resume.HUGE = 1000
write, left = resume.Note.write, [int(sys.argv[1])]
def told(self, begun):
    write(self, begun)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
resume.Note.write = told
sys.exit(app.run(sys.argv[2:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed another way")
def test_command_that_is_killed(tmp_path: Path, tiny_weights: Path) -> None:
    write_image(Image(tiny.picture(3200, 130)), tmp_path / "a.png")
    command = ["encode", "a.png", "--content", "photo", "-m", str(tiny_weights), "-q", "50", "-o"]

    def run(name: str, notes: int, *more: str) -> int:
        line = [sys.executable, "-c", _KILLED, str(notes), *command, name, *more]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, timeout=120).returncode

    assert run("whole.ltn", -1) == 0
    whole = (tmp_path / "whole.ltn").read_bytes()
    assert run("b.ltn", 2) == -signal.SIGKILL
    assert sorted(p.name for p in tmp_path.glob("b.*")) == ["b.ltn.part", "b.ltn.part.json"]
    assert json.loads((tmp_path / "b.ltn.part.json").read_text())["bands"] == 2
    begun = (tmp_path / "b.ltn.part").read_bytes()
    assert whole.startswith(begun)
    # Once more: two rows of tiles are left of four, so that the third note is the last.
    assert run("b.ltn", 3) == 0
    assert (tmp_path / "b.ltn").read_bytes() == whole
    assert [p.name for p in tmp_path.glob("b.*")] == ["b.ltn"]

    # Another quality, another input, a damaged part or note: it begins anew.
    assert run("c.ltn", 1) == -signal.SIGKILL
    note = (tmp_path / "c.ltn.part.json").read_bytes()
    assert run("c.ltn", 1, "-q", "51") == -signal.SIGKILL
    assert json.loads((tmp_path / "c.ltn.part.json").read_text())["identity"] != json.loads(note)["identity"]
    assert run("c.ltn", -1) == 0
    assert (tmp_path / "c.ltn").read_bytes() == whole
    for text in (b"", b"[1]", b'{"bands": "x"}', b"[" * 4000, note.replace(b'"bands": 1', b'"bands": 77')):
        (tmp_path / "d.ltn.part").write_bytes(begun[:-9])
        (tmp_path / "d.ltn.part.json").write_bytes(text)
        assert run("d.ltn", -1, "--force") == 0
        assert (tmp_path / "d.ltn").read_bytes() == whole
    (tmp_path / "e.ltn.part").write_bytes(begun[:-9] + b"123456789")
    (tmp_path / "e.ltn.part.json").write_bytes(note.replace(b'"bands": 1', b'"bands": 2'))
    assert run("e.ltn", -1) == 0
    assert (tmp_path / "e.ltn").read_bytes() == whole
    os.utime(tmp_path / "a.png", (1, 1))
    assert run("f.ltn", 3) == -signal.SIGKILL
    os.utime(tmp_path / "a.png", (2, 2))
    assert run("f.ltn", 3) == -signal.SIGKILL  # all rows were done again


def test_what_is_left(tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("latens.cli.work.LARGE", 1000)
    monkeypatch.setattr("latens.cli.resume.HUGE", 1000)
    write_image(Image(tiny.picture(2100, 130)), tmp_path / "a.png")
    command = ["encode", "a.png", "--content", "photo", "-m", str(tiny_weights)]
    data = (tmp_path / "a.png").read_bytes()
    # Of an input that is damaged there is nothing to go on with.
    (tmp_path / "a.png").write_bytes(data[:-2000])
    assert app.run(command) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    (tmp_path / "a.png").write_bytes(data)
    # Somebody else's pipe, link, or folder is left alone.
    part = tmp_path / "a.ltn.part"
    (tmp_path / "kept").write_bytes(b"kept")
    part.symlink_to("kept")
    assert app.run(command) == 2
    assert (tmp_path / "kept").read_bytes() == b"kept"
    part.unlink()
    part.mkdir()
    assert app.run(command) == 2
    assert part.is_dir()
    part.rmdir()
    assert app.run(command) == 0
    assert ltn.read((tmp_path / "a.ltn").read_bytes()).header.height == 2100
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.ltn", "a.png", "kept"]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "a.ltn"
    first = UnfinishedOutput(path)
    first.open().write(b"1")
    second = UnfinishedOutput(path)
    with pytest.raises(OutputError, match="another process"):
        second.open()
    second.discard()
    assert (tmp_path / "a.ltn.part").exists()
    first.commit()
    assert path.read_bytes() == b"1"
    assert [p.name for p in tmp_path.iterdir()] == ["a.ltn"]
