"""The native core by itself: under the sanitizers, and without optional parts of the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_fuzz_targets_under_sanitizers() -> None:
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        pytest.skip("no C++ compiler")
    command = [str(ROOT / "native" / "fuzz" / "run.sh"), "100"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("100 inputs") == 9


@pytest.mark.slow
def test_the_tests_of_the_core() -> None:
    """Those in C++; what was built before is kept."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    cmake, ctest = (shutil.which(name, path=places) for name in ("cmake", "ctest"))
    if cmake is None or ctest is None:
        pytest.skip("no CMake")
    build = ROOT / "build" / "native-tests"
    for command in (
        [
            cmake,
            "-S",
            str(ROOT / "native" / "tests"),
            "-B",
            str(build),
            "-DCMAKE_BUILD_TYPE=Debug",
            "-DCMAKE_CXX_FLAGS_DEBUG=-O1",
        ],
        [cmake, "--build", str(build), "--config", "Debug", "--parallel", "2"],
        [ctest, "--test-dir", str(build), "--build-config", "Debug", "--output-on-failure"],
    ):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout
    assert "100% tests passed" in done.stdout
    assert "No tests were found" not in done.stdout


def test_import_is_light() -> None:
    code = "import sys, latens.entropy_coding; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.strip() == "False"
