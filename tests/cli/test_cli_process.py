"""What only a process of its own shows: signals, pipes, closed and full streams, what is imported."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import tiny
from latens import format as ltn
from latens.zoo import DEFAULT_MODEL

COMMAND = [sys.executable, "-m", "latens"]
FULL = b"latens: error: standard output: cannot be written (No space left on device)\n"
NOT_LTN = b"not a .ltn file: it does not begin with 'LTN'\n"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def shell(line: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a line of bash in which ``latens`` is the command."""
    function = f'latens() {{ {" ".join(COMMAND)} "$@"; }}; set -o pipefail; '
    environment = {**ENVIRONMENT, **variables}
    return subprocess.run(["bash", "-c", function + line], cwd=folder, capture_output=True, env=environment)


@pytest.mark.parametrize(
    ("line", "code", "error"),
    [
        ("latens models >/dev/full", 2, FULL),
        ("latens info photo.ltn >/dev/full", 2, FULL),
        ("latens --help >/dev/full", 2, None),
        ("latens info photo.ltn >&-", 2, b"latens: error: standard output is closed\n"),
        ("latens info - <&-", 2, b"latens: error: standard input: standard input is closed\n"),
        ("latens info - </dev/null", 2, b"latens: error: standard input: the file is empty\n"),
        ("latens info missing 2>&-", 2, b""),
        ("latens info missing 2>/dev/full", 2, b""),
        (f"latens models 2>&- | grep -q {DEFAULT_MODEL}", 0, b""),
        ("latens info photo.ltn | true; test ${PIPESTATUS[0]} -lt 2", 0, b""),
        ("latens decode - </dev/zero", 2, b"latens: error: standard input: " + NOT_LTN),
        ("latens info /dev/zero", 2, b"latens: error: /dev/zero: " + NOT_LTN),
        ("latens encode - -o x </dev/null", 2, b"latens: error: <stdin>: the file is empty\n"),
    ],
)  # fmt: skip
def test_streams_that_are_closed_full_or_empty(
    line: str, code: int, error: bytes | None, work: Path, ltn_file: Path
) -> None:
    result = shell(line, work)
    assert result.returncode == code, result
    if error is not None:
        assert result.stderr == error
    assert b"Traceback" not in result.stderr
    assert b"Exception ignored" not in result.stderr
    assert sorted(p.name for p in work.iterdir()) == ["photo.ltn"]


def test_names_in_another_locale(work: Path) -> None:
    result = shell(
        "latens info ü.ltn",
        work,
        LC_ALL="C",
        PYTHONUTF8="0",
        PYTHONCOERCECLOCALE="0",
        PYTHONIOENCODING="ascii",
    )
    assert result.returncode == 2
    assert result.stderr.startswith(b"latens: error: \\")
    result = shell(r"latens info $'\xff\xfe.ltn'", work)
    assert result.stderr.startswith(rb"latens: error: \udcff\udcfe.ltn: cannot be read")


def test_info_needs_neither_torch_nor_numpy_nor_pillow(ltn_file: Path) -> None:
    code = (
        "import sys; from latens.cli.app import run; code = run(['info', 'photo.ltn']); "
        "loaded = {'torch', 'numpy', 'PIL', 'safetensors', 'rich.progress'} & set(sys.modules); "
        "sys.exit(f'{code} {loaded}' if code or loaded else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, env=ENVIRONMENT)
    assert result.returncode == 0, result.stderr
    assert b"tiny-1" in result.stdout


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_batch_that_is_interrupted_keeps_what_is_finished(
    number: signal.Signals, code: int, work: Path, tiny_weights: Path
) -> None:
    pixels = Image.fromarray(tiny.picture(200, 200))
    names = [f"{i:03}.png" for i in range(300)]
    pixels.save(work / names[0])
    for name in names[1:]:
        (work / name).hardlink_to(work / names[0])
    process = subprocess.Popen(
        [*COMMAND, "encode", *names, "-o", "out", "--model", tiny_weights],
        cwd=work, stderr=subprocess.PIPE, env=ENVIRONMENT,
    )  # fmt: skip
    wait_for(lambda: len(list((work / "out").glob("*.ltn"))) >= 3, process)
    process.send_signal(number)
    _, error = process.communicate()
    assert process.returncode == code, error
    assert b"Traceback" not in error
    if number == signal.SIGINT:
        assert error.endswith(b"latens: interrupted; files finished before are complete\n")
    finished = sorted(p.name for p in (work / "out").iterdir())
    assert 3 <= len(finished) < 300
    for name in finished:
        ltn.read((work / "out" / name).read_bytes())


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    """However long it takes: how busy the machine is decides nothing."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.slow
def test_a_photo_goes_through_pipes(photo: Path, work: Path, tiny_weights: Path) -> None:
    line = f"cat photo.png | latens encode - -m {tiny_weights} | latens decode - -m {tiny_weights} > back.png"
    result = shell(line, work)
    assert result.returncode == 0, result.stderr
    with Image.open(work / "back.png") as image:
        assert image.size == (70, 50)
    broken = shell(f"latens encode photo.png -o - -m {tiny_weights} | true; exit ${{PIPESTATUS[0]}}", work)
    assert broken.returncode in (0, 1)
    assert b"Traceback" not in broken.stderr
    full = shell(f"latens encode photo.png -o - -m {tiny_weights} >/dev/full", work)
    assert full.returncode == 2
    assert full.stderr == FULL
