"""Training of DCVC-RT: pictures on their own, and frames told of those before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from latens.errors import ModelError, TrainingError
from latens.models.video import DCVCRT, DCVCRTIntra
from latens.models.video.dcvc import Reference
from latens.train import TrainConfig, Trainer, save_weights
from latens.transforms.functional import rgb2ycbcr
from latens.zoo.pretrained import read_checkpoint
from latens.zoo.weights import load_video

SIZES = {"dcvc-rt": (8, 4, 6, 10), "dcvc-rt-intra": (8, 4, 12)}
BOTH = pytest.mark.parametrize("name", sorted(SIZES))


@pytest.fixture
def frames(tmp_path: Path) -> Callable[..., Trainer]:
    """Trainers of small networks, with a clip that pans over a picture as data and another one held out."""
    for clip, seed in (("a", 1), ("b", 2)):
        (tmp_path / "clips" / clip).mkdir(parents=True)
        whole = tiny.picture(80, 120, seed=seed)
        for t in range(5):
            Image.fromarray(whole[:, 4 * t : 4 * t + 96]).save(tmp_path / "clips" / clip / f"im{t}.png")
    (tmp_path / "held.txt").write_text("b\n")

    def trainer(name: str, run: str = "run", branch_from: Path | None = None, **changes: Any) -> Trainer:
        config = TrainConfig.for_architecture(name)
        data = (
            {"clips": str(tmp_path / "clips"), "holdout": str(tmp_path / "held.txt"), "sequence": ((0, 3),)}
            if config.is_video
            else {"data": str(tmp_path / "clips" / "a"), "validation": str(tmp_path / "clips" / "b")}
        )
        options = {
            "sizes": SIZES[name],
            "batch": 4,
            "crop": 64,
            "learning_rate": 1e-3,
            "warmup": 1,
            "ema": 0.9,
        }
        return Trainer(replace(config, **{**data, **options, **changes}), tmp_path / run, branch_from)

    return trainer


@BOTH
def test_everything_is_trained(name: str, frames: Callable[..., Trainer]) -> None:
    trainer = frames(name)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    figures = [trainer.train_step(trainer.crops(step)) for step in range(2)]
    assert all(np.isfinite(value) for row in figures for value in row.values())
    moved = {k for k, v in trainer.model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {k for k, _ in trainer.model.named_parameters()}


@BOTH
def test_a_run_becomes_networks_that_code(name: str, frames: Callable[..., Trainer], tmp_path: Path) -> None:
    trainer = frames(name, validate_images=1)
    trainer.train_step(trainer.crops(0))
    rows = trainer.validate()
    assert [row["quality"] for row in rows] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert all(row["bpp"] > 0 and np.isfinite(row["db"]) for row in rows)
    trainer.save()
    weights = tmp_path / "mine.safetensors"
    save_weights(tmp_path / "run" / "checkpoint.pt", weights, "mine-1")
    kind: Any = DCVCRT if name == "dcvc-rt" else DCVCRTIntra
    model = kind.from_state_dict(read_checkpoint(weights)).eval()
    x = rgb2ycbcr(torch.rand(2, 3, 64, 96))
    known = [Reference(frame=x[:1])] if name == "dcvc-rt" else []
    code = model.compress(x[1:], 40, *known)
    decoded = model.decompress(code["strings"], code["shape"], 40, *known)["x_hat"]
    with torch.no_grad():
        expected = model(x[1:], 40, *known)["x_hat"]
    torch.testing.assert_close(decoded.clamp(0, 1), expected.clamp(0, 1), rtol=1e-4, atol=1e-4)
    with pytest.raises(ModelError, match=f"the networks of {kind.__name__}, which has no portable files"):
        load_video(weights)
    again = frames(name, "again", weights)
    for key, value in model.state_dict().items():
        assert torch.equal(again.model.state_dict()[key], value), key


def test_what_it_refuses(frames: Callable[..., Trainer]) -> None:
    with pytest.raises(TrainingError, match="dcvc-rt: is trained for mse only"):
        frames("dcvc-rt", metric="ms-ssim", crop=192)
    with pytest.raises(TrainingError, match="dcvc-rt-intra: is trained for mse only"):
        frames("dcvc-rt-intra", objective={"ssimulacra2": 1.0}, crop=256)
    with pytest.raises(ModelError, match="multiple of 4"):
        frames("dcvc-rt-intra", sizes=(6, 4, 8))
    with pytest.raises(TrainingError, match=r"does not take sizes \[1, 2, 3, 4\]"):
        frames("dcvc-rt-intra", sizes=(1, 2, 3, 4))
