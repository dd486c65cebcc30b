"""Commands that make models: ``latens train`` and ``latens update-model``."""

from __future__ import annotations

import math
import re
import signal
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latens.cli.messages import on_terminal, say
from latens.errors import TrainingError
from latens.io import check_output, printable

if TYPE_CHECKING:
    from rich.progress import TaskID

    from latens.train import TrainConfig, Trainer

EXIT_INTERRUPTED = 130
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
    data: Annotated[Path | None, typer.Option("--data", help="Folder (or .tar) of photographs.")] = None,
    clips: Annotated[
        Path | None,
        typer.Option(
            "--clips", help="Folder of video files and of folders of frames, for latens-video and ssf2020."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="JSON file, such as the config.json of another run; missing keys take their defaults.",
        ),
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option(
            "--architecture",
            "-a",
            help="latens-base, latens-video, ssf2020, or one that 'latens models --published' lists.",
        ),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option("--quality", "-q", min=1, max=8, help="Sizes and lambda of a published architecture."),
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", help="What is trained for: mse, ms-ssim, or eye.")
    ] = None,
    lmbda: Annotated[
        float | None, typer.Option("--lmbda", help="Weight of the distortion, if not that of the quality.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="The run ends after so many.")] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", help="Stop cleanly after so long: 90s, 150m, 2.5h.")
    ] = None,
    validation: Annotated[
        Path | None, typer.Option("--validation", help="Folder of images to code for real now and then.")
    ] = None,
    exclude_like: Annotated[
        Path | None,
        typer.Option(
            "--exclude-like", help="Folder of test images; photographs that show the same are left out."
        ),
    ] = None,
    branch_from: Annotated[
        str | None,
        typer.Option(
            "--branch-from",
            help="Start from the checkpoint.pt of another run, a weights file, or a released model.",
        ),
    ] = None,
    decay_steps: Annotated[
        int | None,
        typer.Option(
            "--decay-steps",
            min=1,
            help="Let the learning rate fall to zero in so many steps from here on; the run ends there.",
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any option of config.json: --set batch=16 --set optimiser=soap ..."),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu or cuda; a GPU by default if there is one.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads; 1 by default.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of crops, qualities and noise.")] = None,
) -> None:
    """Train a model on photographs, or on clips.

    The architecture is that of the default model unless another one is named. The run can be killed at any time
    and goes on from its last checkpoint when the command is repeated; Ctrl-C saves first. A run without --steps
    or a decay never ends: it is the trunk from which finished models branch. RUN holds config.json,
    checkpoint.pt and log.jsonl. Several GPUs: torchrun --nproc-per-node 4 -m latens train ...

    Examples:

      latens train trunk/ --data photos/ --budget 150m

      latens train final/ --branch-from trunk/checkpoint.pt --decay-steps 3000

      latens update-model final/checkpoint.pt -o mine.safetensors --name mine-1

      latens train tuned/ --data photos/ --branch-from latens-psnr-1 --decay-steps 2000

      latens train eye/ --data photos/ --branch-from latens-psnr-1 --metric eye --set optimiser=soap

      latens train mean-3/ --data photos/ -a mbt2018-mean -q 3 --steps 500000

      latens train video/ -a latens-video --clips vimeo_septuplet/sequences/ --data photos/
    """
    seconds = _seconds(budget)
    from latens.train import Trainer

    resumes = (run / "checkpoint.pt").exists()
    origin = None if branch_from is None else _origin(branch_from)
    given = {
        "architecture": architecture, "data": _absolute(data), "clips": _absolute(clips),
        "validation": _absolute(validation), "exclude_like": _absolute(exclude_like),
        "quality": quality, "metric": metric, "lmbda": lmbda,
        "steps": steps, "device": device, "threads": threads, "seed": seed,
    }  # fmt: skip
    settings = _settings(run, config, origin, {k: v for k, v in given.items() if v is not None})
    settings = settings.changed(options or [])
    if not settings.data and not (settings.is_video and settings.clips):
        raise TrainingError("no photographs: give a folder with --data; for video, one of clips with --clips")
    progress = _Progress()
    trainer = Trainer(settings, run, origin, progress.show)
    try:
        if decay_steps is not None and (not resumes or settings.steps == 0):
            trainer.start_decay(decay_steps)
        progress.speaks = trainer.processes.leads
        if progress.speaks:
            _introduce(trainer)
        with progress:
            progress.start(trainer)
            trainer.run(seconds)
            progress.end(trainer)
    finally:
        trainer.processes.leave()
    ended = 0 < trainer.config.steps <= trainer.step
    if progress.speaks:
        say(f"{printable(run)}: {'finished' if ended else 'stopped'} at step {trainer.step}")
        if not ended:
            say("the same command goes on from there")
    if progress.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _settings(run: Path, config: Path | None, origin: Path | None, given: dict[str, Any]) -> TrainConfig:
    """The configuration of a run: from a file, from before, from what it branches from, or the usual one."""
    from dataclasses import replace

    from latens.train import TrainConfig
    from latens.zoo import load

    if config is not None:
        settings = TrainConfig.load(config)
    elif (run / "config.json").exists():
        settings = TrainConfig.load(run / "config.json")
    elif origin is not None and origin.suffix != ".safetensors" and (origin.parent / "config.json").exists():
        # Like the run it branches from, but for the end of that one.
        settings = replace(TrainConfig.load(origin.parent / "config.json"), decay_start=0, steps=0)
    else:
        settings = TrainConfig.for_architecture(given.get("architecture", TrainConfig.architecture))
        if origin is not None and origin.suffix == ".safetensors" and settings.is_default_model:
            settings = replace(settings, model=load(origin).base.config)
    return replace(settings, **given)


def _introduce(trainer: Trainer) -> None:
    """Say what was found, and where the run begins."""
    if trainer.skipped:
        say(f"{len(trainer.skipped)} files could not be read and are skipped:")
        for name in trainer.skipped:
            say(f"  {printable(name)}")
    if trainer.excluded:
        say(f"{len(trainer.excluded)} photographs show the same as a test image and are left out:")
        for match in trainer.excluded:
            say(f"  {printable(match.name)} ({printable(match.reference)}, {match.score:.2f})")
    for remark in trainer.remarks:
        say(printable(remark))
    begins = "resuming" if trainer.resumed else "starting"
    found = [] if trainer.pool is None else [f"{len(trainer.pool)} photographs"]
    found += [f"{len(trainer.clips)} clips"] if trainer.clips else []
    say(f"{', '.join(found)}, {begins} at step {trainer.step}")


def _origin(name: str) -> Path:
    """The file that a run starts from: released models go by their names, everything else is a path."""
    from latens.zoo import card, cards

    released = {entry.id for entry in (*cards(), *cards("video"))}
    return card(name).path if name in released else Path(name)


def _figures(record: dict[str, Any]) -> str:
    return f"loss {record['loss']:.3f}, {record['bpp']:.3f} bpp, {record['db']:.2f} dB"


class _Progress:
    """A progress bar on a terminal, a line a minute elsewhere; the first Ctrl-C or SIGTERM ends the run cleanly."""

    def __init__(self) -> None:
        self.interrupted = False
        self.speaks = True
        self._task: TaskID | None = None
        self._said = time.monotonic()

    def __enter__(self) -> _Progress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False),
            console=Console(stderr=True, markup=False, highlight=False), disable=not (self.speaks and on_terminal()),
        )  # fmt: skip
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def start(self, trainer: Trainer) -> None:
        """Show the progress of a run, and let signals end it."""
        self._task = self._bar.add_task("", total=trainer.config.steps or None, completed=trainer.step)

        def stop(number: int, frame: FrameType | None) -> None:
            if self.interrupted:
                raise KeyboardInterrupt  # a second time: at once
            self.interrupted = True
            trainer.stop()

        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGTERM, stop)

    def end(self, trainer: Trainer) -> None:
        """Show the last step, and what the log has no line for: records come but now and then."""
        if self._task is not None:
            self._bar.update(self._task, completed=trainer.step)
        steps, figures = trainer.unrecorded
        if steps and self.speaks:
            say(f"step {trainer.step}: {_figures(figures)}")

    def show(self, record: dict[str, Any]) -> None:
        """Called by the trainer with each line of its log."""
        if "validation" in record:
            text = ", ".join(f"{row['bpp']:.3f} bpp {row['db']:.2f} dB" for row in record["validation"])
        else:
            text = _figures(record)
            if self._task is not None:
                self._bar.update(self._task, completed=record["step"], description=text)
        now = time.monotonic()
        if "validation" in record or (self._bar.disable and now - self._said >= 60):
            self._said = now
            # The bar makes room for what is printed to standard error while it is shown.
            say(f"step {record['step']}: {text}")


def update_model(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="checkpoint.pt of a run of 'latens train', or any checkpoint of an architecture."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Weights file to write (.safetensors).")],
    name: Annotated[str, typer.Option("--name", help="Identifier that files made with these weights carry.")],
    architecture: Annotated[
        str | None,
        typer.Option(
            "--architecture", "-a", help="Of a checkpoint from elsewhere; see 'latens models --published'."
        ),
    ] = None,
    notes: Annotated[str, typer.Option("--notes", help="Stored with the weights.")] = "",
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing file.")] = False,
) -> None:
    """Make a weights file from a checkpoint.

    It holds the averaged weights of the run, and the integer networks and tables that files depend on, made from
    them once and for all. Encode and decode take it with --model.

    With --architecture it is a checkpoint from elsewhere, such as one of CompressAI, that becomes a weights file: with
    quantiles and tables up to date, and for encode and decode. Where an architecture has no portable files (the message
    says why), it holds the networks under today's names: for from_state_dict() and 'latens train --branch-from'.

    Examples:

      latens update-model final/checkpoint.pt -o mine.safetensors --name mine-1

      latens update-model theirs.pth.tar -a mbt2018-mean -o theirs.safetensors --name theirs-1
    """
    check_output(output, force=force, inputs=[checkpoint])
    if architecture is None:
        from latens.train import save_weights

        save_weights(checkpoint, output, name, notes, force=force)
    else:
        from latens.zoo import entry, save
        from latens.zoo.pretrained import read_checkpoint

        model_class = entry(architecture).model_class()
        # Old names become new ones where a model lacks them: some have a "downsample" of their own.
        model = model_class.from_state_dict(read_checkpoint(checkpoint)).eval()
        model.update(update_quantiles=True)
        save(model, output, name, notes, force=force)
        if model.inexact:
            say(
                f"no .ltn files can be made with {name}: {type(model).__name__} cannot be made exact: {model.inexact}"
            )
    say(f"{printable(output)}: {output.stat().st_size:,} bytes, {name}")
