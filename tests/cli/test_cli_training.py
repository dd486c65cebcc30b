"""``latens train`` and ``latens update-model``: from photographs to a weights file that codes photographs."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import tiny
from latens.train import TrainConfig, Trainer, load_average
from latens.zoo import DEFAULT_MODEL, DEFAULT_VIDEO_MODEL, load

Run = Callable[..., Any]
Fails = Callable[..., str]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fewer patches to start from; signal handlers and threads as they were."""
    patches = Trainer._patches
    monkeypatch.setattr(Trainer, "_patches", lambda self, count: patches(self, 2000))
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    threads = torch.get_num_threads()
    yield
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
        signal.signal(number, handler)
    torch.set_num_threads(threads)


LOSS = r"step {}: loss \d+\.\d+, \d+\.\d+ bpp, \d+\.\d+ dB"


@pytest.fixture
def config(work: Path) -> str:
    """A tiny run in ``c.json``, and photographs in ``photos``, one of them damaged."""
    (work / "photos").mkdir()
    for seed in range(2):
        Image.fromarray(tiny.picture(90, 100, seed=seed)).save(work / "photos" / f"{seed}.png")
    (work / "photos" / "bad\x1b[31m.png").write_bytes(b"nothing")
    run = TrainConfig(batch=1, crop=64, warmup=1, model=tiny.CONFIG)
    (work / "c.json").write_text(run.to_json())
    return "c.json"


def test_from_photographs_to_a_model(
    latens: Run, config: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = latens("train", "trunk", "--config", config, "--data", "photos", "--budget", "0s")
    assert (result.code, result.out) == (0, b"")
    lines = result.err.splitlines()
    assert re.fullmatch(LOSS.format(1), lines.pop(3))
    assert lines == [
        "1 files could not be read and are skipped:",
        r"  bad\x1b[31m.png",
        "2 photographs, starting at step 0",
        "trunk: stopped at step 1",
        "the same command goes on from there",
    ]
    # Nothing needs to be said again, not even from another folder.
    (work / "elsewhere").mkdir()
    monkeypatch.chdir(work / "elsewhere")
    result = latens("train", "../trunk", "--budget", "0s")
    assert "2 photographs, resuming at step 1" in result.err
    assert "../trunk: stopped at step 2" in result.err
    monkeypatch.chdir(work)

    result = latens("train", "final", "--branch-from", "trunk/checkpoint.pt", "--decay-steps", "2")
    assert (result.code, result.err.splitlines()[-1]) == (0, "final: finished at step 4")
    saved = TrainConfig.load(work / "final/config.json")
    assert (saved.decay_start, saved.steps, saved.model) == (2, 4, tiny.CONFIG)
    result = latens("train", "final", "--decay-steps", "2")
    assert result.err.splitlines()[-1] == "final: finished at step 4"
    # Branching from what has ended starts a new end.
    result = latens("train", "more", "--branch-from", "final/checkpoint.pt", "--decay-steps", "1")
    assert result.err.splitlines()[-1] == "more: finished at step 5"
    result = latens("train", "open", "--branch-from", "final/checkpoint.pt", "--budget", "0s")
    assert result.err.splitlines()[-2] == "open: stopped at step 5"

    result = latens(
        "update-model", "final/checkpoint.pt", "-o", "mine.safetensors", "--name", "mine-1", "--notes", "x"
    )
    size = (work / "mine.safetensors").stat().st_size
    assert result.code == 0
    assert result.err == f"mine.safetensors: {size:,} bytes, mine-1\n"
    weights = load(work / "mine.safetensors")
    average = load_average(work / "final/checkpoint.pt")
    torch.testing.assert_close(weights.base.log_gain, average.log_gain, rtol=0, atol=1e-4)
    assert latens("encode", "photos/0.png", "-m", "mine.safetensors").code == 0
    assert latens("decode", "photos/0.ltn", "-m", "mine.safetensors", "-o", "back.png").code == 0
    assert b"mine-1" in latens("info", "photos/0.ltn").out


def test_options_override_the_configuration(latens: Run, config: str, work: Path) -> None:
    arguments = (
        "train",
        "run",
        "--config",
        config,
        "--data",
        "photos",
        "--seed",
        "7",
        "--threads",
        "2",
        "--budget",
        "0s",
    )
    assert latens(*arguments).code == 0
    saved = TrainConfig.load(work / "run/config.json")
    want = replace(TrainConfig.load(work / config), data=str(work / "photos"), seed=7, threads=2)
    assert saved == want


@pytest.mark.usefixtures("config")
def test_released_models_go_on_by_their_names(latens: Run, fails: Fails, work: Path) -> None:
    common = ("--data", "photos", "--set", "batch=1", "--set", "crop=64", "-a")
    start = ("train", "run", *common, "latens-base", "--branch-from", DEFAULT_MODEL, "--budget", "0s")
    assert latens(*start).code == 0
    assert (work / "run/checkpoint.pt").exists()
    other = ("train", "other", *common)
    assert DEFAULT_VIDEO_MODEL in fails(*other, "latens-base", "--branch-from", DEFAULT_VIDEO_MODEL)
    # Of video, the file holds what coding needs and no more.
    assert "integers only" in fails(*other, "latens-video", "--branch-from", DEFAULT_VIDEO_MODEL)


def test_a_published_architecture_from_flags(latens: Run, config: str, work: Path) -> None:
    """Trained, validated with real strings, kept apart from test images, and turned into weights."""
    for folder, seed in (("tests", 1), ("val", 5)):
        (work / folder).mkdir()
        Image.fromarray(tiny.picture(90, 100, seed=seed)).save(work / folder / "x.png")
    arguments = [
        "train",
        "run",
        "--data",
        "photos",
        "-a",
        "bmshj2018-factorized",
        "-q",
        "3",
        "--lmbda",
        "0.02",
    ]
    options = ["--set", "sizes=[8,12]", "--set", "batch=1", "--set", "crop=64", "--set", "schedule=linear"]
    folders = ["--validation", "val", "--exclude-like", "tests", "--device", "cpu"]
    result = latens(*arguments, *options, *folders, "--steps", "2")
    assert result.code == 0, result.err
    lines = result.err.splitlines()
    assert lines[2:5] == [
        "1 photographs show the same as a test image and are left out:",
        "  1.png (x.png, 1.00)",
        "1 photographs, starting at step 0",
    ]
    assert re.fullmatch(r"step 2: \d+\.\d+ bpp \d+\.\d+ dB", lines[5])
    assert re.fullmatch(LOSS.format(2), lines[6])
    assert lines[7:] == ["run: finished at step 2"]
    saved = TrainConfig.load(work / "run/config.json")
    want = TrainConfig.for_architecture("bmshj2018-factorized")
    want = replace(
        want, data=str(work / "photos"), validation=str(work / "val"), exclude_like=str(work / "tests"), quality=3,
        lmbda=0.02, sizes=(8, 12), batch=1, crop=64, schedule="linear", steps=2, device="cpu",
    )  # fmt: skip
    assert saved == want
    result = latens("train", "run", "--steps", "3", "--set", "learning_rate=0.001")
    assert "from here on with learning_rate: 0.0001 -> 0.001" in result.err.splitlines()
    assert "from here on with steps: 2 -> 3" in result.err.splitlines()
    assert "1 photographs, resuming at step 2" in result.err.splitlines()

    result = latens("update-model", "run/checkpoint.pt", "-o", "f.safetensors", "--name", "f")
    assert result.code == 0, result.err
    from latens.models import FactorizedPrior
    from latens.zoo.pretrained import read_checkpoint

    model = FactorizedPrior.from_state_dict(read_checkpoint(work / "f.safetensors")).eval()
    x = torch.rand(1, 3, 64, 64)
    code = model.compress(x)
    torch.testing.assert_close(
        model.decompress(code["strings"], code["shape"])["x_hat"], model(x)["x_hat"].clamp(0, 1)
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_its_step(
    number: signal.Signals, latens: Run, config: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = Trainer._update

    def interrupted(self: Trainer) -> None:
        if self.step == 2:
            os.kill(os.getpid(), number)
        update(self)

    monkeypatch.setattr(Trainer, "_update", interrupted)
    result = latens("train", "run", "--config", config, "--data", "photos")
    assert result.code == 130
    assert result.err.splitlines()[-2:] == ["run: stopped at step 3", "the same command goes on from there"]
    assert torch.load(work / "run/checkpoint.pt", weights_only=True)["step"] == 3


def test_progress_without_a_terminal_is_a_line_now_and_then(
    latens: Run, config: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "LOG_EVERY", 1)
    settings = json.loads((work / config).read_text())
    (work / "held").write_text("1.png\n")
    settings |= {"steps": 3, "holdout": "held", "validate_seconds": 1e-6}
    (work / config).write_text(json.dumps(settings))
    minutes = iter(range(10_000))
    monkeypatch.setattr("latens.cli.training.time.monotonic", lambda: 61.0 * next(minutes))
    result = latens("train", "run", "--config", config, "--data", "photos")
    assert result.code == 0
    lines = [line for line in result.err.splitlines() if line.startswith("step ")]
    assert len(lines) == 6
    number = r"\d+\.\d+"
    for step in range(3):
        assert re.fullmatch(rf"step {step + 1}: loss {number}, {number} bpp, {number} dB", lines[2 * step])
        assert re.fullmatch(rf"step {step + 1}: ({number} bpp {number} dB(, )?){{6}}", lines[2 * step + 1])


def test_a_second_signal_ends_it_at_once(
    latens: Run, config: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Trainer) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError

    monkeypatch.setattr(Trainer, "_update", interrupted)
    result = latens("train", "run", "--config", config, "--data", "photos")
    assert result.code == 130
    assert torch.load(work / "run/checkpoint.pt", weights_only=True)["step"] == 0


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("run", "--config", "c.json"), "no photographs: give a folder with --data"),
        (("run", "--config", "c.json", "--data", "missing"), "missing: expected a folder of images"),
        (("run", "--config", "c.json", "--data", "empty"), "empty: no image in it that can be read"),
        (("run", "--config", "none.json"), "none.json: cannot be read"),
        (("run", "--config", "photos/0.png"), "photos/0.png: cannot be read"),
        (("run", "--config", "empty"), "empty: cannot be read"),
        (("run", "--config", "bad.json"), "bad.json: not a training configuration"),
        (
            ("run", "--config", "c.json", "--data", "photos", "--branch-from", "bad.json"),
            "bad.json: not a checkpoint",
        ),
        (
            ("run", "--config", "c.json", "--data", "photos", "--branch-from", "none"),
            "none: not a checkpoint",
        ),
        (("c.json", "--config", "c.json", "--data", "photos"), "c.json: cannot be written"),
        (("c.json/x", "--config", "c.json", "--data", "photos"), "c.json/x: cannot be written"),
        (("run", "--data", "photos", "--budget", "soon"), "--budget soon: expected a number and s, m or h"),
        (("run", "--data", "photos", "--budget", "-1s"), "--budget -1s: expected"),
        (("run", "--data", "photos", "--decay-steps", "0"), "--decay-steps"),
        (("run", "--data", "photos", "--threads", "0"), "--threads"),
        (("run", "--data", "photos", "--seed", "4294967296"), "seed: expected at least 0"),
        (
            ("run", "--data", "photos", "-a", "nothing"),
            "unknown architecture 'nothing'; there are latens-base",
        ),
        (("run", "--data", "photos", "-a", "mbt2018"), "mbt2018: expected a quality from 1 to 8, or sizes"),
        (("run", "--data", "photos", "-a", "mbt2018", "-q", "9"), "--quality"),
        (("run", "--data", "photos", "--metric", "vmaf"), "metric: expected mse"),
        (("run", "--data", "photos", "--lmbda", "-1"), "lmbda: expected at least 0"),
        (("run", "--data", "photos", "--set", "batch"), "batch: expected OPTION=VALUE, such as batch=16"),
        (("run", "--data", "photos", "--set", "size=3"), "size=3: expected OPTION=VALUE"),
        (("run", "--data", "photos", "--set", "batch=many"), "batch: expected at least 1, whole, got 'many'"),
        (("run", "--data", "photos", "--set", "model.N=0"), "a size is out of range"),
        (("run", "--data", "photos", "--device", "toaster"), "device 'toaster': expected cpu"),
        (("run", "--data", "photos", "--validation", "empty"), "empty: no image in it that can be read"),
        (("run", "--data", "photos", "--exclude-like", "missing"), "missing: expected a folder of images"),
        (("run", "--data", "photos", "--exclude-like", "photos"), "photos: no image is left for training"),
    ],
    ids=lambda a: a if isinstance(a, str) else " ".join(a),
)
def test_runs_that_cannot_start(
    arguments: tuple[str, ...], cause: str, latens: Run, config: str, work: Path
) -> None:
    (work / "empty").mkdir()
    (work / "bad.json").write_text("{")
    result = latens("train", *arguments)
    assert result.code == 2, result
    line = result.err.splitlines()[-1]
    assert line.startswith("latens: error: ")
    assert cause in line
    assert "unexpected error" not in line
    assert not (work / "run" / "checkpoint.pt").exists()


def test_checkpoints_that_cannot_become_models(fails: Fails, latens: Run, config: str, work: Path) -> None:
    latens("train", "run", "--config", config, "--data", "photos", "--budget", "0s")
    checkpoint = "run/checkpoint.pt"
    weights = ("-o", "x.safetensors", "--name")
    for name, cause in (("none.pt", "none.pt: not a checkpoint"), ("c.json", "c.json: not a checkpoint")):
        assert cause in fails("update-model", name, *weights, "a")
    assert "model name 'A/B'" in fails("update-model", checkpoint, *weights, "A/B")
    assert "must end in .safetensors" in fails("update-model", checkpoint, "-o", "x.pt", "--name", "a")
    assert "does not exist" in fails("update-model", checkpoint, "-o", "missing/x.safetensors", "--name", "a")
    assert "is also an input" in fails("update-model", checkpoint, "-o", checkpoint, "--name", "a", "--force")
    state = torch.load(work / checkpoint, weights_only=True)
    state["average"]["g_a.1.weight"].fill_(float("nan"))
    torch.save(state, work / "nan.pt")
    assert "g_a.1.weight has values that are not finite" in fails("update-model", "nan.pt", *weights, "a")


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_from_its_checkpoint(latens: Run, config: str, work: Path) -> None:
    settings = json.loads((work / config).read_text()) | {"checkpoint_seconds": 1e-6}
    (work / config).write_text(json.dumps(settings))
    arguments = ["train", "run", "--config", config, "--data", "photos"]
    process = subprocess.Popen([sys.executable, "-m", "latens", *arguments], cwd=work, stderr=subprocess.PIPE)
    log = work / "run" / "log.jsonl"
    while not (log.exists() and log.read_text().count("\n") >= 1):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    step = torch.load(work / "run/checkpoint.pt", weights_only=True)["step"]
    assert step >= 24
    result = latens(*arguments, "--budget", "0s")
    assert f"run: stopped at step {step + 1}" in result.err
    assert json.loads(log.read_text().splitlines()[0])["step"] == 25
    assert sorted(p.name for p in (work / "run").iterdir()) == ["checkpoint.pt", "config.json", "log.jsonl"]
