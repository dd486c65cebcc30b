"""``latens inspect`` as a command."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import tiny
from latens.cli import app
from latens.inspect import report

pytest.importorskip("matplotlib")

PNG = (Path(__file__).parents[2] / "examples" / "blossom.png").read_bytes()


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in an empty folder; returns exit code, output and messages."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfdbinary.readouterr()
        code = app.run(list(arguments))
        out, err = capfdbinary.readouterr()
        return code, out.decode(), err.decode()

    return command


def test_a_folder_beside_the_picture(
    run: Callable[..., tuple[int, str, str]], tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Drawing is tested elsewhere, and takes its time.
    monkeypatch.setattr(
        report, "figures", lambda anatomy, curve: {"original": PNG, "reconstruction": PNG, "difference": PNG}
    )
    Path("in").mkdir()
    Image.fromarray(tiny.picture(70, 90)).save("in/a photo.png")
    options = ("in/a photo.png", "--model", str(tiny_weights), "-q", "60", "--no-curve")
    code, out, err = run("inspect", *options)
    assert (code, err) == (0, "in/a photo.png -> in/a photo-inspect/index.html\n")
    numbers = json.loads(Path("in/a photo-inspect/inspection.json").read_text())
    assert out.startswith(
        f"tiny-1, quality 60: 90 x 70, {numbers['bytes']:,} bytes, {numbers['bpp']:.3f} bits"
    )
    for channel in numbers["channels"][:5]:
        assert f"{channel['channel']:>8}{channel['bits'] / 8:>14,.0f} bytes" in out
    for name, part in numbers["parts"].items():
        assert f"{name:<16}{part['ideal_bytes']:>14,.0f}{part['bytes']:>14,}" in out
    code, _, err = run("inspect", *options)
    assert code == 2
    assert "exists" in err
    assert "--force" in err


def test_errors_are_one_line(run: Callable[..., tuple[int, str, str]], tiny_weights: Path) -> None:
    Image.fromarray(tiny.picture(20, 20)).save("p.png")
    for arguments, message in (
        (("p.png", "--model", "no-such"), "neither a file nor a model"),
        (("p.png", "--model", str(tiny_weights), "-q", "101"), "p.png: quality must be 0 to 100"),
        (("missing.png",), "missing.png"),
        (("p.png", "--max-pixels", "100"), "more pixels than the limit of 100"),
        (("p.png", "--model", "mbt2018", "--metric", "x"), "expected metric"),
    ):
        code, out, err = run("inspect", *arguments)
        assert (code, out) == (2, "")
        assert err.startswith("latens: error: ")
        assert err.count("\n") == 1
        assert message in err
    assert [path.name for path in Path.cwd().iterdir()] == ["p.png"]
