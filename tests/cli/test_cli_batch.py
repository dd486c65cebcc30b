"""Whole folders: their trees, what is in the way, and batches that are stopped and go on."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_cli_process import COMMAND, ENVIRONMENT, wait_for

import tiny
from latens import format as ltn
from latens.cli import batch, files

Run = Callable[..., Any]
Fails = Callable[..., str]


@pytest.fixture
def model(tiny_weights: Path) -> tuple[str, str]:
    """The options that choose the tiny model."""
    return ("--model", str(tiny_weights))


def pictures(folder: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tiny.picture(20, 30, seed=seed)).save(folder / name)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def outputs(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_folder_keeps_its_tree(latens: Run, work: Path, model: Any) -> None:
    pictures(work, "in/a.png", "in/b/c.JPG", "in/b/d/e.webp", "f.png")
    (work / "in/notes.txt").write_text("x")
    result = latens("encode", "-r", "in", "f.png", "-o", "out", *model)
    assert result.code == 0, result
    assert outputs(work / "out") == ["a.ltn", "b/c.ltn", "b/d/e.ltn", "f.ltn"]
    assert result.err.splitlines()[-1].startswith("4 encoded, 0 skipped, 0 failed; ")
    assert result.err.endswith("; 1 other file left alone\n")
    assert "not supported" not in result.err
    for name in ("x.heic", "b/y.HEIC", "b/z.jxl"):
        (work / "in" / name).write_text("x")
    result = latens("encode", "-r", "in", "-o", "out", "--skip-existing", "--quiet", "--json", *model)
    assert result.code == 0
    assert result.err == (
        "latens: pictures of kinds that are not supported were left alone: 2 .heic, 1 .jxl\n"
    )
    closing = json.loads(result.out.splitlines()[-1])
    assert (closing["other_files"], closing["unsupported"]) == (4, {".heic": 2, ".jxl": 1})
    assert latens("decode", "-r", "out/", "-o", "back/", "--format", "ppm", *model).code == 0
    assert outputs(work / "back") == ["a.ppm", "b/c.ppm", "b/d/e.ppm", "f.ppm"]
    # Without -o, beside the sources; a folder with nothing in it is no mistake.
    assert latens("encode", "-r", "in", *model).code == 0
    assert (work / "in/b/d/e.ltn").read_bytes() == (work / "out/b/d/e.ltn").read_bytes()
    (work / "empty").mkdir()
    assert latens("encode", "-r", "empty", "-o", "none", *model).err == "0 encoded, 0 skipped, 0 failed\n"


def test_a_folder_needs_its_option(fails: Fails, work: Path, model: Any) -> None:
    pictures(work, "in/a.png")
    assert fails("encode", "in", *model) == "latens: error: in: is a folder; -r takes the files in it"
    assert "in: is a folder" in fails("decode", "in", *model)
    assert "cannot all go to standard output" in fails("encode", "-r", "in", "-o", "-", *model)


def test_names_that_differ_only_in_their_suffix(latens: Run, work: Path, model: Any) -> None:
    pictures(work, "in/a.png", "in/a.jpg", "in/b.png", "in/B.png", "in/c.png", "in/c.jpg", "in/c.png.webp")
    result = latens("encode", "-r", "in", "-o", "out", *model)
    assert result.code == 2
    # Where upper and lower case are the same, B.png.ltn and b.png.ltn would be one file.
    assert outputs(work / "out") == ["B.png.ltn", "a.jpg.ltn", "a.png.ltn", "c.jpg.ltn", "c.png.ltn"]
    errors = [line for line in result.err.splitlines() if line.startswith("latens: error: ")]
    assert len(errors) == 2
    assert "in/b.png: would be written to out/b.png.ltn, as in/B.png is; rename one of them" in errors[0]
    assert "in/c.png.webp" in errors[1] or "in/c.png:" in errors[1]
    single = latens("encode", "in/a.png", "-o", "-", *model).out
    assert (work / "out/a.png.ltn").read_bytes() == single


def test_a_file_found_twice_is_coded_once(latens: Run, work: Path, model: Any) -> None:
    pictures(work, "in/sub/a.png")
    result = latens("encode", "-r", "in", "in/sub", *model)
    assert (result.code, outputs(work)) == (0, ["in/sub/a.ltn", "in/sub/a.png"])
    assert "1 encoded" in result.err


def test_the_output_may_lie_in_the_input(latens: Run, work: Path, model: Any) -> None:
    pictures(work, "a.png", "sub/b.png")
    assert latens("encode", "-r", ".", "-o", "./out", *model).code == 0
    assert outputs(work / "out") == ["a.ltn", "sub/b.ltn"]
    # What was decoded into it is no input of the next run either.
    assert latens("decode", "-r", ".", "-o", "out", *model).code == 0
    pictures(work, "out/own.png")
    result = latens("encode", "-r", ".", "-o", "out", "--skip-existing", *model)
    assert result.code == 0
    assert result.err.startswith("0 encoded, 2 skipped, 0 failed")
    assert outputs(work / "out") == ["a.ltn", "own.png", "sub/b.ltn"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_and_what_is_no_file(latens: Run, work: Path, model: Any) -> None:
    pictures(work, "in/a.png")
    (work / "in/loop").symlink_to(".")
    (work / "in/up").symlink_to(work)
    (work / "in/folder.png").symlink_to("..")
    (work / "in/self.png").symlink_to("self.png")
    (work / "in/dead.png").symlink_to("nowhere")
    (work / "in/link.png").symlink_to("a.png")
    os.mkfifo(work / "in/pipe.png")
    result = latens("encode", "-r", "in", "-o", "out", *model)
    assert result.code == 2
    assert outputs(work / "out") == ["a.ltn", "link.ltn"]
    assert "in/dead.png: cannot be read (No such file or directory)" in result.err
    assert "in/self.png: cannot be read (" in result.err
    assert "in/pipe.png: not a regular file" in result.err
    assert result.err.endswith("; 3 links to folders left alone\n")
    # A link that is named is meant.
    (work / "way").symlink_to("in")
    assert "2 skipped" in latens("encode", "-r", "way", "-o", "out", "--skip-existing", *model).err


@pytest.mark.skipif(sys.platform == "win32" or os.getuid() == 0, reason="everything can be read")
def test_a_folder_that_cannot_be_looked_through(latens: Run, work: Path, model: Any) -> None:
    pictures(work, "in/a.png", "in/locked/b.png")
    (work / "in/locked").chmod(0)
    result = latens("encode", "-r", "in", "-o", "out", *model)
    (work / "in/locked").chmod(0o700)
    assert result.code == 2
    assert "in/locked: cannot be looked through (Permission denied)" in result.err
    assert outputs(work / "out") == ["a.ltn"]


def test_what_is_in_the_way_of_one_stops_no_other(latens: Run, work: Path, model: Any) -> None:
    pictures(work, "in/a.png", "in/b.png", "in/sub/c.png", "in/d.png")
    (work / "out/a.ltn").mkdir(parents=True)
    (work / "out/sub").write_text("a file")
    result = latens("encode", "-r", "in", "-o", "out", *model)
    assert result.code == 2
    assert "out/a.ltn: is a folder" in result.err
    assert "out/sub" in result.err
    assert outputs(work / "out") == ["b.ltn", "d.ltn", "sub"]


def test_existing_results_are_refused_before_any_work_or_skipped_or_replaced(
    latens: Run, fails: Fails, work: Path, model: Any
) -> None:
    pictures(work, "in/a.png", "in/b.png", "in/c.png")
    assert latens("encode", "in/a.png", "in/b.png", "-o", "out", "-q", "1", *model).code == 0
    line = fails("encode", "-r", "in", "-o", "out", *model)
    assert "out/a.ltn and 1 more are there already; use --skip-existing" in line
    before = tree(work / "out")
    result = latens("encode", "-r", "in", "-o", "out", "--skip-existing", *model)
    assert (result.code, result.err.count("\n")) == (0, 2)
    assert "1 encoded, 2 skipped, 0 failed" in result.err
    assert tree(work / "out").items() >= before.items()
    assert latens("encode", "-r", "in", "-o", "out", "--force", *model).code == 0
    assert tree(work / "out")["a.ltn"] != before["a.ltn"]
    # Also of files that are named, and of one alone.
    result = latens("encode", "in/a.png", "-o", "out/a.ltn", "--skip-existing", *model)
    assert (result.code, result.err) == (0, "")


def test_an_empty_result_is_none(latens: Run, work: Path, model: Any) -> None:
    """Where files cannot be linked, a killed process may leave a name without content."""
    pictures(work, "in/a.png")
    (work / "out").mkdir()
    (work / "out/a.ltn").write_bytes(b"")
    assert latens("encode", "-r", "in", "-o", "out", "--skip-existing", *model).code == 0
    ltn.read((work / "out/a.ltn").read_bytes())


def test_lines_of_json(latens: Run, fails: Fails, work: Path, model: Any) -> None:
    pictures(work, "in/a.png", "in/c.png")
    (work / "in/b.png").write_text("nothing")
    assert latens("encode", "in/c.png", "-o", "out/", *model).code == 0
    result = latens("encode", "-r", "in", "-o", "out", "--json", "--skip-existing", *model)
    assert result.code == 2
    lines = [json.loads(line) for line in result.out.splitlines()]
    found = {line["source"]: line for line in lines[:-1]}
    size = (work / "out/a.ltn").stat().st_size
    coded = found["in/a.png"]
    assert coded["seconds"] > 0
    assert coded | {"seconds": 0} == {
        "source": "in/a.png", "target": "out/a.ltn", "status": "coded", "notes": [], "seconds": 0,
        "bytes_before": (work / "in/a.png").stat().st_size, "bytes": size, "bpp": round(8 * size / 600, 6),
    }  # fmt: skip
    assert found["in/b.png"]["status"] == "failed"
    assert found["in/b.png"]["error"].startswith("in/b.png: not an image")
    assert found["in/c.png"]["status"] == "skipped"
    closing = lines[-1]
    assert (closing["coded"], closing["skipped"], closing["failed"], closing["bytes"]) == (1, 1, 1, size)
    assert result.err == f"latens: error: {found['in/b.png']['error']}\n"
    back = latens("decode", "out/a.ltn", "-o", "back.png", "--json", *model)
    line = json.loads(back.out.splitlines()[0])
    assert (line["bytes_before"], line["bpp"]) == (size, coded["bpp"])
    assert line["bytes"] == (work / "back.png").stat().st_size
    assert "both go to standard output" in fails("encode", "in/a.png", "-o", "-", "--json", *model)


def test_jobs_at_a_time_give_the_same_bytes(latens: Run, work: Path, model: Any) -> None:
    pictures(work, *(f"in/{i}.png" for i in range(12)))
    assert latens("encode", "-r", "in", "-o", "one", "-j", "1", *model).code == 0
    assert latens("encode", "-r", "in", "-o", "four", "-j", "4", *model).code == 0
    assert tree(work / "one") == tree(work / "four")
    for jobs in ("1", "4"):
        assert latens("decode", "-r", "one", "-o", f"back{jobs}", "-j", jobs, *model).code == 0
    assert tree(work / "back1") == tree(work / "back4")


def test_how_processors_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "_processors", lambda: 12)
    assert batch.share(1, None, None) == (1, None)
    assert batch.share(1, 4, 3) == (1, 3)
    assert batch.share(9, None, None) == (8, 1)
    assert batch.share(9, 3, None) == (3, 4)
    assert batch.share(9, None, 4) == (4, 1)
    assert batch.share(9, 4, 2) == (4, 1)


def test_standard_output_and_nothing_by_their_names(
    latens: Run, fails: Fails, photo: Path, model: Any
) -> None:
    direct = latens("encode", photo, "-o", "-", *model)
    named = latens("encode", photo, "-o", "/dev/stdout", *model)
    assert (named.code, named.out) == (0, direct.out)
    before = Path(os.devnull).stat()
    for arguments in ((photo,), (photo, photo), ("-r", ".")):
        result = latens("encode", *arguments, "-o", os.devnull, *model)
        assert result.code == 0, result
        assert f"photo.png -> {os.devnull}: " in result.err
    Path("photo.ltn").write_bytes(direct.out)
    assert latens("decode", "photo.ltn", "-o", os.devnull, *model).code == 0
    after = Path(os.devnull).stat()
    assert (after.st_mode, after.st_ino) == (before.st_mode, before.st_ino)
    assert "not a regular file" in fails("encode", photo, "-o", "/dev/full", "--force", *model)


def test_files_for_the_other_command_are_told_so(
    fails: Fails, photo: Path, ltn_file: Path, work: Path
) -> None:
    for name in ("photo.png", "a.jpg"):
        with Image.open(photo) as image:
            image.save(name)
    assert fails("decode", "photo.png") == (
        "latens: error: photo.png: a PNG image, not a .ltn file; 'latens encode' makes one of it"
    )
    assert "a.jpg: a JPEG image, not a .ltn file" in fails("decode", "a.jpg", "-o", "b.png")
    assert "a.jpg: a JPEG image, not a .ltn file" in fails("info", "a.jpg")
    for arguments in ((ltn_file,), (ltn_file, "-o", "x.ltn")):
        assert "photo.ltn: a .ltn file already; 'latens decode' takes it" in fails("encode", *arguments)
    (work / "clip.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(100))
    assert "clip.mp4: a video; 'latens video encode' takes it" in fails("encode", "clip.mp4")
    line = fails("encode", "photo.png", "-o", "y.png")
    assert "'encode' writes .ltn files; name it y.ltn" in line


def test_errors_of_any_kind_stop_no_other_file(
    latens: Run, work: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latens.codec import ImageCodec

    pictures(work, "a.png", "b.png", "c.png")
    real, errors = ImageCodec.encode, iter([ValueError("odd"), MemoryError()])

    def encode(*arguments: Any, **options: Any) -> bytes:
        for error in errors:
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(ImageCodec, "encode", encode)
    result = latens("encode", "-r", ".", "-j", "1", *model)
    assert result.code == 2
    lines = result.err.splitlines()
    assert lines[0].startswith("latens: error: a.png: unexpected error, please report it (ValueError: odd)")
    assert lines[1] == "latens: error: b.png: not enough memory"
    assert outputs(work) == ["a.png", "b.png", "c.ltn", "c.png"]


@pytest.mark.parametrize("jobs", ["1", "3"])
def test_a_full_disk_ends_a_batch_and_leaves_whole_files(
    jobs: str, latens: Run, work: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(work, *(f"in/{i}.png" for i in range(20)))
    real, calls = os.fsync, []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        result = latens("encode", "-r", "in", "-o", "out", "-j", jobs, *model)
    assert result.code == 2
    assert len(calls) < 15, "the rest was tried all the same"
    assert "cannot be written: No space left on device. All results that are there are complete" in result.err
    assert len(outputs(work / "out")) == 5
    assert latens("encode", "-r", "in", "-o", "out", "--skip-existing", *model).code == 0
    assert latens("encode", "-r", "in", "-o", "whole", *model).code == 0
    assert tree(work / "out") == tree(work / "whole")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_batch_that_is_killed_goes_on(latens: Run, work: Path, tiny_weights: Path) -> None:
    pictures(work, *(f"in/{i // 50}/{i}.png" for i in range(300)))
    command = ["encode", "-r", "in", "--model", str(tiny_weights)]
    assert latens(*command, "-o", "whole").code == 0
    chance = random.Random(1)
    for _ in range(3):
        process = subprocess.Popen(
            [*COMMAND, *command, "-o", "out", "--skip-existing", "-j", "2"],
            cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT,
        )  # fmt: skip
        have = len(list((work / "out").rglob("*.ltn"))) + chance.randint(1, 60)
        wait_for(lambda have=have: len(list((work / "out").rglob("*.ltn"))) >= have, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        whole = tree(work / "whole")
        for name, data in tree(work / "out").items():
            assert name.endswith(".tmp") or whole[name] == data
    assert latens(*command, "-o", "out", "--skip-existing").code == 0
    assert tree(work / "out") == tree(work / "whole")


@pytest.mark.slow
def test_70_000_files_are_planned(work: Path) -> None:
    for number in range(70):
        folder = work / "in" / str(number)
        folder.mkdir(parents=True)
        for image in range(1000):
            (folder / f"{image}.png").touch()
    (work / "in/3/5.jpg").touch()
    plan = files.plan(["in"], "out", ".ltn", False, recursive=True, suffixes={".png", ".jpg"})
    assert len(plan.jobs) == 70_001
    assert len({job.target for job in plan.jobs}) == 70_001
    assert not any(job.problem or job.exists for job in plan.jobs)
    assert [job.target for job in plan.jobs if job.source.startswith("in/3/5.")] == [
        "out/3/5.jpg.ltn", "out/3/5.png.ltn"
    ]  # fmt: skip
