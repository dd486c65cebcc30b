"""One run in several processes gives what one process gives."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from latens.errors import TrainingError
from latens.train import TrainConfig, Trainer
from latens.train.processes import Processes

Make = Callable[..., Trainer]

TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc-per-node",
    "2",
    "--no-python",
]

RUN = """
import sys
from pathlib import Path
from latens.train import TrainConfig, Trainer

Trainer.LOG_EVERY = 1
for config, folder in zip(sys.argv[1::2], sys.argv[2::2]):
    trainer = Trainer(TrainConfig.load(Path(config)), Path(folder))
    trainer.run()
    weights = b"".join(v.numpy().tobytes() for v in trainer.model.state_dict().values())
    Path(f"{folder}/weights-{trainer.processes.rank}").write_bytes(weights)
trainer.processes.leave()
"""


def losses(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in ("step", "loss", "bpp", "db", "grad")} for line in lines]


def configurations(photos: Path) -> dict[str, TrainConfig]:
    """Runs of four steps; the default model freezes a part of its networks after two."""
    common: dict[str, Any] = {
        "data": str(photos),
        "batch": 4,
        "crop": 64,
        "warmup": 2,
        "steps": 4,
        "device": "cpu",
    }
    return {
        "default": TrainConfig(**common, model=tiny.CONFIG, parts=2, hard_fraction=0.5),
        "soap": TrainConfig(
            **common, model=tiny.CONFIG, parts=2, optimiser="soap", hard_fraction=0.5, checkpoint_seconds=1e-6
        ),
        "mean": TrainConfig(**common, architecture="mbt2018-mean", sizes=(8, 12), quality=2, parts=2),
        "vbr": TrainConfig(
            **common, architecture="mbt2018-mean-vbr", sizes=(8, 12), parts=4, fixed_rate_steps=2
        ),
    }


@pytest.mark.slow
def test_two_processes_give_what_one_gives_with_the_doubled_batch(
    photos: Path, make: Make, tmp_path: Path
) -> None:
    """Loss, rate, gradient and weights; each process sees half of the crops, and both use the same weights."""
    paths: list[str] = []
    runs = configurations(photos)
    alone: dict[str, Trainer] = {}
    LOG_EVERY, Trainer.LOG_EVERY = Trainer.LOG_EVERY, 1
    try:
        for name, config in runs.items():
            alone[name] = Trainer(config, tmp_path / f"{name}-1")
            # The other run starts from the same weights.
            other = tmp_path / f"{name}-2"
            other.mkdir()
            (other / "checkpoint.pt").write_bytes((tmp_path / f"{name}-1" / "checkpoint.pt").read_bytes())
            alone[name].run()
            (tmp_path / f"{name}.json").write_text(config.to_json())
            paths += [str(tmp_path / f"{name}.json"), str(other)]
    finally:
        Trainer.LOG_EVERY = LOG_EVERY
    done = subprocess.run([*TORCHRUN, sys.executable, "-c", RUN, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for name, trainer in alone.items():
        mine, theirs = losses(tmp_path / f"{name}-1"), losses(tmp_path / f"{name}-2")
        assert len(mine) == 4
        for a, b in zip(mine, theirs, strict=True):
            # Sums in another order; Adam's first steps are of one length whatever the gradient's.
            assert b == pytest.approx(a, rel=2e-3), name
        assert theirs[0] == pytest.approx(mine[0], rel=1e-4)
        state = torch.load(tmp_path / f"{name}-2" / "checkpoint.pt", weights_only=True)
        held = [(tmp_path / f"{name}-2" / f"weights-{rank}").read_bytes() for rank in range(2)]
        assert held[0] == held[1], f"{name}: the processes have different weights"
        # Processes that share out the work of an optimiser save the state of all.
        states = state["optimiser"]["state"]
        assert states.keys() == trainer.optimiser.state_dict()["state"].keys()
        assert {int(s["step"]) for s in states.values()} <= {2, 4}
        for key, value in trainer.model.state_dict().items():
            torch.testing.assert_close(state["model"][key], value, rtol=0, atol=4e-3, msg=f"{name} {key}")


def test_tasks_are_shared_out_evenly() -> None:
    processes = Processes(1, 3, torch.device("cpu"))
    costs = [5.0, 1.0, 7.0, 1.0, 5.0, 1.0, 0.0]
    owners = processes.share_out(costs)
    loads = [sum(c for c, owner in zip(costs, owners, strict=True) if owner == i) for i in range(3)]
    assert sorted(loads) == [6.0, 7.0, 7.0]
    assert processes.share_out([]) == []


@pytest.mark.slow
def test_a_signal_ends_all_processes_after_the_same_step(photos: Path, tmp_path: Path) -> None:
    config = configurations(photos)["mean"]
    (tmp_path / "c.json").write_text(config.changed(["steps=0"]).to_json())
    command = [*TORCHRUN, sys.executable, "-m", "latens", "train", "run", "--config", "c.json"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "log.jsonl"
    while not (log.exists() and log.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert "photographs, starting at step 0" in err
    assert err.count("run: stopped at step") == 1
    step = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"]
    assert f"run: stopped at step {step}" in err


def test_parts_do_not_change_the_result_but_for_their_noise(make: Make) -> None:
    """Gradients of parts add up: without noise, two parts are one batch."""
    figures, weights = [], []
    for name, parts in (("one", 1), ("two", 2)):
        trainer = make(name, batch=4, parts=parts, steps=4, hard_fraction=1.0)
        torch.manual_seed(0)
        x = trainer.sampler(0, 64)
        if parts == 2:
            x = x[[0, 2, 1, 3]]  # those of the first part come first
            assert torch.equal(x, trainer.crops(0))
        figures.append(trainer.train_step(x))
        weights.append({k: p.grad.clone() for k, p in trainer.model.named_parameters() if p.grad is not None})
    assert figures[0] == pytest.approx(figures[1], rel=1e-3)
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=0.05, atol=2e-3)


def test_processes_that_cannot_share_a_batch(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def joined(count: int) -> None:
        monkeypatch.setattr(Processes, "join", lambda device: Processes(0, count, torch.device("cpu")))

    joined(3)
    with pytest.raises(TrainingError, match="3 processes cannot share 2 parts of a batch of 4"):
        make(batch=4, parts=2)
    with pytest.raises(TrainingError, match="3 processes cannot share 3 parts of a batch of 2"):
        make(batch=2)


def test_devices_that_are_not_there(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cuda:1", "meta"):
        with pytest.raises(TrainingError, match="not available here"):
            make(device=device)
    with pytest.raises(TrainingError, match="device 'toaster': expected cpu, cuda or cuda:N"):
        make(device="toaster")


def test_others_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "2")
    monkeypatch.setitem(os.environ, "RANK", "0")
    with pytest.raises(TrainingError, match="cannot reach the other processes"):
        Processes.join("cpu")
