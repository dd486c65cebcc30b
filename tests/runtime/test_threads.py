"""How many threads the native core uses, and that callers do not get into each other's way."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from latens import _native
from latens.runtime import set_threads, threads

CODE = """
import os, threading
import numpy as np
from latens import _native
form = {"weight": np.ones((64, 1, 1, 64), np.int16), "bias": np.zeros(64, np.int32), "shift": np.ones(64, np.uint8),
        "low": -32768, "high": 32767, "gate": 0}
network = _native.Network([("product", form)] * 3, (-8, 8))
x = np.random.default_rng(0).integers(-8, 9, (96, 96, 64)).astype(np.int16)
"""


def run(code: str, **environment: str) -> str:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("LATENS_")}
    result = subprocess.run(
        [sys.executable, "-c", CODE + code],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize(("text", "count"), [("1", 1), ("3", 3), ("1000", 64), ("99999999999", 64)])
def test_the_environment_sets_threads(text: str, count: int) -> None:
    assert run("print(_native.threads())", LATENS_THREADS=text) == str(count)


@pytest.mark.parametrize("text", ["", "0", "-1", "two", "2x"])
def test_what_is_no_number_of_threads_counts_for_nothing(text: str) -> None:
    assert run("print(_native.threads())", LATENS_THREADS=text) == run("print(_native.threads())")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_affinity_limits_threads() -> None:
    code = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nprint(_native.threads())"
    assert run(code) == "1"


def test_threads_can_be_set() -> None:
    before = threads()
    set_threads(3)
    assert threads() == _native.threads() == 3
    set_threads(1000)
    assert threads() == 64
    set_threads(None)
    assert threads() == before


def files(mount: Path, texts: dict[str, str]) -> str:
    for name, text in texts.items():
        path = mount / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(mount)


@pytest.mark.parametrize(
    ("groups", "texts", "quota"),
    [
        ("0::/\n", {}, 0),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 0),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),
        (
            "0::/a/b\n",
            {"cpu.max": "max 100000\n", "a/cpu.max": "150000 100000\n", "a/b/cpu.max": "max 100000"},
            1.5,
        ),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "200000 100000"}, 2),
        ("0::/not/here\n", {"cpu.max": "250000 100000\n"}, 2.5),
        (
            "3:cpu,cpuacct:/x\n2:memory:/y\n",
            {"cpu,cpuacct/x/cpu.cfs_quota_us": "70000\n", "cpu,cpuacct/x/cpu.cfs_period_us": "100000\n"},
            0.7,
        ),
        ("3:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, 0),
        ("3:cpu:/x\n", {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ("nonsense\n:::::\n0::", {"cpu.max": "no 0\n"}, 0),
        ("", {}, 0),
    ],
)
def test_a_containers_quota_is_found(
    tmp_path: Path, groups: str, texts: dict[str, str], quota: float
) -> None:
    assert _native.processor_quota(groups, files(tmp_path, texts)) == pytest.approx(quota)


def test_callers_at_the_same_time() -> None:
    code = """
want = network.run(x)
wrong = []
def work():
    for _ in range(20):
        if not (network.run(x) == want).all():
            wrong.append(1)
workers = [threading.Thread(target=work) for _ in range(5)]
for worker in workers: worker.start()
for worker in workers: worker.join()
print(len(wrong))
"""
    assert run(code, LATENS_THREADS="3") == "0"


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="no forks here")
def test_children_of_forks_have_threads_of_their_own() -> None:
    code = """
want = network.run(x)
for _ in range(5):
    if (child := os.fork()) == 0:
        os._exit(0 if (network.run(x) == want).all() and len(os.listdir("/proc/self/task")) == 3 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert (network.run(x) == want).all()
print("fine")
"""
    if not Path("/proc/self/task").is_dir():
        code = code.replace(' and len(os.listdir("/proc/self/task")) == 3', "")
    assert run(code, LATENS_THREADS="3") == "fine"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
def test_an_interrupt_stops_a_long_run() -> None:
    """What Ctrl-C does, half a second of the processor's time after the start, however busy the machine is."""
    code = """
import signal
block = {"weight": np.zeros((512, 3, 3, 512), np.int16), "bias": np.zeros(512, np.int32),
         "shift": np.ones(512, np.uint8), "low": 0, "high": 1, "gate": 0}
long = _native.Network([("product", block)] * 40, (0, 1))
x = np.zeros((500, 100, 512), np.int16)
signal.signal(signal.SIGVTALRM, signal.default_int_handler)
try:
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.5)
    long.run(x)
    print("not interrupted")
except KeyboardInterrupt:
    print("interrupted")
"""
    assert run(code, LATENS_THREADS="2") == "interrupted"
