"""Build sdist and wheel, look into both, install the wheel into a clean environment, and code a photograph there.

python tools/wheel_test.py            as a release would be checked; takes minutes, mostly for PyTorch
"""

import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What the sdist holds: folders whole, as far as they are under version control, and single files.
SOURCES = ("src/latens/", "native/", "bindings/")
FILES = ("CMakeLists.txt", "LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml")
NOT_BUILT = ("native/fuzz/", "native/library/", "native/tests/")


def run(*command: object) -> None:
    print("+", *command, flush=True)
    subprocess.run([str(part) for part in command], check=True)


def tracked() -> list[str]:
    """Names of all files under version control."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()


def check_sdist(path: Path) -> None:
    """It holds the sources that are under version control, all of them and nothing else."""
    wanted = {name for name in tracked() if name.startswith(SOURCES) and not name.startswith(NOT_BUILT)}
    wanted |= {name for name in FILES if (ROOT / name).is_file()} | {"PKG-INFO"}
    with tarfile.open(path) as archive:
        found = {member.name.split("/", 1)[1] for member in archive.getmembers() if member.isfile()}
    assert found == wanted, f"missing: {sorted(wanted - found)}; too much: {sorted(found - wanted)}"
    print(f"{path.name}: {path.stat().st_size:,} bytes, {len(found)} files")


def check_wheel(path: Path) -> None:
    """The package and its metadata, no tests, one extension with the tag that it should have."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    strangers = [name for name in names if name.split("/")[0] != "latens" and ".dist-info/" not in name]
    assert not strangers, strangers
    extensions = [name for name in names if name.endswith((".so", ".pyd"))]
    assert len(extensions) == 1, extensions
    stable = sys.version_info >= (3, 12)
    assert ("-cp312-abi3-" in path.name) == stable, path.name
    assert (".abi3." in extensions[0] or sys.platform == "win32") or not stable, extensions
    sources = {name.removeprefix("src/") for name in tracked() if name.startswith("src/latens/")}
    assert sources <= set(names), f"missing: {sorted(sources - set(names))}"
    for needed in ("latens/py.typed", "latens/_native.pyi"):
        assert needed in sources, needed
    assert any(name.endswith(".safetensors") for name in sources), "no weights"
    print(f"{path.name}: {path.stat().st_size:,} bytes, {len(names)} files")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "dist"
        # The wheel is made from the sdist, not from the checkout: what is missing there is missed here.
        run(sys.executable, "-m", "build", "--outdir", out, ROOT)
        (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
        check_sdist(sdist)
        check_wheel(wheel)
        clean = Path(folder) / "venv"
        venv.create(clean, with_pip=True)
        python = clean / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        run(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel)
        run(python, "-I", ROOT / "tools" / "check_wheel.py", ROOT / "examples" / "blossom.png")


if __name__ == "__main__":
    main()
