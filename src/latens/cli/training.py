"""Commands that make models: ``latens train`` and ``latens update-model``."""

from __future__ import annotations

import math
import re
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latens.errors import TrainingError
from latens.io import printable

if TYPE_CHECKING:
    from rich.progress import TaskID

_UNITS = {"s": 1, "m": 60, "h": 3600}


def _seconds(budget: str | None) -> float:
    """Seconds of ``150m``, ``2.5h`` or ``90s``."""
    if budget is None:
        return math.inf
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget)
    if match is None:
        raise TrainingError(f"--budget {printable(budget)}: expected a number and s, m or h, such as 150m")
    return float(match[1]) * _UNITS[match[2]]


def train(
    run: Annotated[Path, typer.Argument(help="Run folder; an unfinished run in it is continued.")],
    data: Annotated[str | None, typer.Option("--data", help="Folder (or .tar) of photographs.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="JSON file; --data and --threads override it.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", help="Stop cleanly after so long: 90s, 150m, 2.5h.")
    ] = None,
    branch_from: Annotated[
        Path | None, typer.Option("--branch-from", help="Start from this checkpoint.")
    ] = None,
    decay_steps: Annotated[
        int | None,
        typer.Option(
            "--decay-steps",
            min=1,
            help="Let the learning rate fall to zero in so many steps from the checkpoint on.",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of crops, qualities and noise.")] = None,
) -> None:
    """Train the default model's architecture on a folder of photographs.

    The run can be killed at any time and goes on from its last checkpoint when the command is repeated. A run
    without a decay never ends: it is the trunk from which finished models branch.

    Examples:

      latens train runs/trunk --data photos/ --budget 150m

      latens train runs/final --branch-from runs/trunk/checkpoint.pt --decay-steps 3000
    """  # fmt: skip
    from dataclasses import replace

    from latens.train import TrainConfig, Trainer

    saved = run / "config.json"
    if config is None and saved.exists():
        config = saved
    elif config is None and branch_from is not None and (branch_from.parent / "config.json").exists():
        config = branch_from.parent / "config.json"
    settings = TrainConfig.load(config) if config is not None else TrainConfig()
    given: dict[str, Any] = {"data": data, "threads": threads, "seed": seed}
    settings = replace(settings, **{key: value for key, value in given.items() if value is not None})
    if not settings.data:
        raise TrainingError("no photographs: give a folder with --data")
    with _Progress() as progress:
        trainer = Trainer(settings, run, branch_from, progress.show)
        if trainer.pool.skipped:
            print(f"{len(trainer.pool.skipped)} files could not be read and are skipped:", file=sys.stderr)
            for name in trainer.pool.skipped:
                print(f"  {printable(name)}", file=sys.stderr)
        if decay_steps is not None and settings.steps == 0:
            trainer.start_decay(decay_steps)
        progress.start(trainer.step, trainer.config.steps)
        trainer.run(_seconds(budget))


class _Progress:
    """A progress bar on a terminal, a line a minute elsewhere; SIGTERM ends the run like Ctrl-C."""

    def __enter__(self) -> _Progress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"),
            console=Console(stderr=True, markup=False, highlight=False), disable=not sys.stderr.isatty(),
        )  # fmt: skip
        self._bar.start()
        self._task: TaskID | None = None
        signal.signal(signal.SIGTERM, _interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def start(self, step: int, steps: int) -> None:
        self._task = self._bar.add_task("", total=steps or None, completed=step)

    def show(self, record: dict[str, Any]) -> None:
        if "validation" in record:
            text = ", ".join(f"{row['bpp']:.3f} bpp {row['db']:.2f} dB" for row in record["validation"])
            self._bar.console.print(f"step {record['step']}: {text}", markup=False)
        elif self._task is not None:
            text = f"loss {record['loss']:.3f}, {record['bpp']:.3f} bpp, {record['db']:.2f} dB"
            self._bar.update(self._task, completed=record["step"], description=text)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def update_model(
    checkpoint: Annotated[Path, typer.Argument(help="checkpoint.pt of a run of 'latens train'.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Weights file to write (.safetensors).")],
    name: Annotated[str, typer.Option("--name", help="Identifier that files made with these weights carry.")],
    notes: Annotated[str, typer.Option("--notes", help="Stored with the weights.")] = "",
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing file.")] = False,
) -> None:
    """Turn a training checkpoint into a weights file that encode and decode take with --model.

    Example:

      latens update-model runs/final/checkpoint.pt -o mine.safetensors --name mine-1
    """
    from latens.train import load_average
    from latens.zoo import save

    save(load_average(checkpoint), output, name, notes, force=force)
