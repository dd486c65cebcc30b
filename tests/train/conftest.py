"""Small photographs and tiny runs."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import tiny
from latens.train import TrainConfig, Trainer

Make = Callable[..., Trainer]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photographs, two of them smaller than a crop may be; and a damaged one."""
    folder = tmp_path_factory.mktemp("photos")
    for name, size in (("a", (150, 200)), ("b", (90, 70)), ("c", (40, 30))):
        Image.fromarray(tiny.picture(*size)).save(folder / f"{name}.png")
    (folder / "damaged.png").write_bytes(b"nothing")
    return folder


@pytest.fixture
def make(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes trainers in a run folder: of a tiny default model, unless an architecture is named."""
    patches = Trainer._patches
    monkeypatch.setattr(Trainer, "_patches", lambda self, count: patches(self, 2000))
    threads = torch.get_num_threads()

    def trainer(
        run: str = "run", branch_from: Path | None = None, report: Any = None, **changes: Any
    ) -> Trainer:
        config = TrainConfig(data=str(photos), batch=2, crop=64, warmup=2, ema=0.9, model=tiny.CONFIG)
        return Trainer(replace(config, **changes), tmp_path / run, branch_from, report or (lambda _: None))

    yield trainer
    torch.set_num_threads(threads)
