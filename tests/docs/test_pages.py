"""Every code block of the documentation runs, page by page."""

import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import tiny
from latens.cli import app
from latens.models import MeanScaleHyperprior
from latens.registry import MODELS
from latens.train import TrainConfig, Trainer

sybil = pytest.importorskip("sybil")

from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser  # noqa: E402

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for folder in ("", "tutorial", "concepts") for path in (DOCS / folder).glob("*.md"))


def run_commands(example: Any) -> None:
    """Each line of a shell block: commands of Latens run here, installations are only checked for their extras."""
    for line in str(example.parsed).splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["torchrun"]:  # the tests of training start several processes; one will do here
            words = words[words.index("-m") + 1 :]
        if words[:1] == ["latens"]:
            if words[1:] == ["--install-completion"]:  # would change the files of whoever runs the tests
                continue
            arguments = [
                name
                for word in words[1:]
                for name in ([str(path) for path in sorted(Path().glob(word))] if "*" in word else [word])
            ]
            assert app.run(arguments) == 0, line
        elif words[:2] == ["pip", "install"]:
            _check_extras(line)
        else:
            assert not words, f"expected a command of Latens or pip install: {line}"


def _check_extras(line: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"latens\[([\w,-]+)\]", line):
        assert set(extras.split(",")) <= set(project["optional-dependencies"]), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_code_blocks_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # Drawing is tested elsewhere, and takes its time.
    drawn = dict.fromkeys(
        ("original", "reconstruction", "difference"), (ROOT / "examples/blossom.png").read_bytes()
    )
    monkeypatch.setattr("latens.inspect.report.figures", lambda *_: drawn)
    patches = Trainer._patches
    monkeypatch.setattr(Trainer, "_patches", lambda self, count: patches(self, 2000))
    with Image.open(ROOT / "examples" / "blossom.png") as image:
        image.crop((180, 100, 436, 292)).save("photo.png")
    Path("photos").mkdir()
    for seed in range(2):
        Image.fromarray(tiny.picture(90, 100, seed=seed)).save(f"photos/{seed}.png")
    if page in (DOCS / "training.md", DOCS / "tutorial" / "video.md"):
        _prepare_training(monkeypatch)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    modules, threads = set(sys.modules), torch.get_num_threads()
    path_hooks = list(sys.meta_path)
    parsers = [PythonCodeBlockParser(), CodeBlockParser("bash", run_commands)]
    try:
        document = sybil.Sybil(parsers=parsers, path=str(DOCS), patterns=["**/*.md"]).parse(page)
        with torch.random.fork_rng(devices=[]):
            for example in document.examples():
                example.evaluate()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        torch.set_num_threads(threads)
        sys.meta_path[:] = path_hooks
        MODELS.pop("my-model", None)
        for name in set(sys.modules) - modules:
            if name.split(".")[0] == "compressai":
                del sys.modules[name]


def _prepare_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes hours takes a step, of a model and of crops that are small; everything else is as it is written."""
    begin, run = Trainer.__init__, Trainer.run

    def small(self: Trainer, config: TrainConfig, *more: Any) -> None:
        if not config.architecture.startswith("latens-"):
            config = replace(config, sizes=(8, 12))
        crop = 128 if config.architecture == "ssf2020" else 64
        begin(self, replace(config, batch=config.parts, crop=crop, large_crop=0, threads=1), *more)

    monkeypatch.setattr(Trainer, "__init__", small)
    monkeypatch.setattr(Trainer, "run", lambda self, budget_seconds=0.0: run(self, 0.0))
    for folder in ("tests", "val"):
        Path(folder).mkdir()
        shutil.copy("photos/1.png", f"{folder}/x.png")
    clips = Path("vimeo_septuplet/sequences/00001/0001")
    clips.mkdir(parents=True)
    for number in range(1, 4):
        Image.fromarray(tiny.picture(90, 100, seed=number)).save(clips / f"im{number}.png")
    torch.save(MeanScaleHyperprior(8, 12).state_dict(), "mbt2018-mean-3.pth.tar")


def test_every_block_says_what_it_is() -> None:
    """Blocks without a language are formulas and layouts; anything else must be one that is run, or compiled
    (in tests/library)."""
    for page in PAGES:
        fences = re.findall(r"^```(.*)$", page.read_text(), re.M)
        assert len(fences) % 2 == 0, page
        assert set(fences[::2]) <= {"python", "bash", "", "text", "json", "c", "html", "js"}, page


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Also checks every link between pages."""
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    index = (tmp_path / "index.html").read_text()
    assert not re.search(r'(?:src|href)="https?://(?!squidfunk)', index), "something is loaded from elsewhere"
    reference = (tmp_path / "reference/models/index.html").read_text()
    assert "MeanScaleHyperprior" in reference
    assert ":class:" not in reference
