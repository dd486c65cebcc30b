"""The training loop: resumable, bounded in time, and safe to kill at any moment."""

from __future__ import annotations

import enum
import itertools
import math
import time
import warnings
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from latens.errors import LatensError, ModelError, TrainingError
from latens.io import atomic_write, printable
from latens.models.latens_base import LatensBase, LatensBaseConfig
from latens.models.video import ScaleSpaceFlow
from latens.runtime import set_threads
from latens.train.checkpoints import read_checkpoint, write_checkpoint
from latens.train.config import FRAMES_ARCHITECTURE, TrainConfig
from latens.train.data import CropSampler, PhotoPool
from latens.train.logs import RunLog
from latens.train.objectives import architecture_of, make_objective
from latens.train.processes import Processes
from latens.train.sequences import Clip, ClipPool, SequenceSampler
from latens.train.similar import Match, find_similar
from latens.train.soap import Soap
from latens.zoo import load
from latens.zoo.pretrained import read_checkpoint as read_weights
from latens.zoo.weights import load_video

__all__ = ["Trainer"]

_SLOPE_FROM = 2000
"""Before this step, how much quality a bit buys says more about the training than about the model."""

_VALIDATION_FRAMES = 8

_OPTIMISER_STATE = {
    "adamw": {"step", "exp_avg", "exp_avg_sq"},
    "soap": {"step", "momentum", "second", "left", "right", "left_basis", "right_basis"},
}


class _Due(enum.IntEnum):
    """What is to be done between the two halves of a step."""

    NOTHING = 0
    CHECKPOINT = 1
    VALIDATION = 2


class Trainer:
    """Trains a model.

    The run folder holds ``config.json``, ``checkpoint.pt`` (weights, averaged weights, optimiser, step: plain
    tensors, loaded with ``weights_only``) and ``log.jsonl``. Under ``torchrun``, all processes make a trainer
    with the same arguments; the first one writes the files.

    Args:
        config: the run.
        folder: run folder; if it holds a checkpoint, the run goes on from there.
        branch_from: what to start from when the folder holds no checkpoint: the checkpoint of another run, with
            its optimiser and step (for a decay branch), or weights (for fine-tuning, from step 0).
        report: called with a dict after each logged interval, in the first process.

    Attributes:
        skipped: names of files among the photographs that could not be read.
        excluded: photographs left out because they show the same as a test image.
        resumed: whether the run goes on from a checkpoint of its own.
        remarks: what is worth saying about how it starts: options that differ from before, for one.
        step: number of steps done.

    Raises:
        TrainingError: no images, a checkpoint of another architecture, or a folder that cannot be written.
        ModelError: an unknown architecture.
        OutputError: its configuration cannot be written.
    """

    LOG_EVERY = 25

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        branch_from: Path | None = None,
        report: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        self.config, self.folder, self.report = config, folder, report
        self.processes = Processes.join(config.device)
        self.device = self.processes.device
        torch.set_num_threads(config.threads)
        set_threads(config.threads)
        torch.manual_seed(config.seed)
        self._parts = self._number_of_parts()
        self.objective = make_objective(config, self.device)
        self.model = self.objective.model
        self.average = self.objective.new_average()
        self._trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = self._make_optimiser()
        # SOAP takes a third of a step on a CPU: several processes share its parameters out, and pass on what became
        # of them.
        self._owners: list[int] = []
        if self.processes.count > 1 and isinstance(self.optimiser, Soap):
            self._owners = self.processes.share_out([self.optimiser.work(p) for p in self._trained])
        self._load_data()
        self.step = 0
        self._stop_wanted = self._stopping = False
        self._due = _Due.NOTHING
        self._net: nn.Module | None = None
        self._hard: bool | None = None
        # Of the steps since the last line of the log.
        self._sums: dict[str, float] = {}
        self._summed = 0
        self.remarks: list[str] = []
        checkpoint = folder / "checkpoint.pt"
        self.resumed = checkpoint.exists()
        if self.processes.leads:
            if self.resumed:
                self._compare_configurations()
            elif branch_from is not None:
                self._branch(branch_from)
            else:
                self.objective.start(self._patches)
                self.average.load_state_dict(self.model.state_dict())
            if self.resumed:
                self._restore(checkpoint)
            self._log = RunLog(folder, self.step, tensorboard=config.tensorboard)
            if not self.resumed:
                # At once: a branch must not depend on a trunk that moves on, and a full disk should show now.
                self._write(self.optimiser.state_dict())
            self._save_config()
        self.processes.wait()
        if not self.processes.leads:
            self._restore(checkpoint)

    def _number_of_parts(self) -> int:
        parts = self.config.parts if self.config.parts > 1 else self.processes.count
        if parts % self.processes.count or self.config.batch < parts:
            raise TrainingError(
                f"{self.processes.count} processes cannot share {parts} parts of a batch of {self.config.batch}; "
                "parts must be a multiple of the processes, and at most the batch"
            )
        return parts

    def _make_optimiser(self) -> Optimizer:
        config = self.config
        if config.optimiser == "soap":
            return Soap(self._trained, config.learning_rate, config.betas, refresh=config.refresh)
        return torch.optim.AdamW(
            self._trained, lr=config.learning_rate, betas=config.betas, weight_decay=0.0, fused=True
        )

    def _load_data(self) -> None:
        config = self.config
        cache = Path(config.cache) if config.cache else None
        self.pool: PhotoPool | None = None
        self.clips: list[Clip] = []
        self.skipped: list[str] = []
        self.excluded: list[Match] = []
        self.validation: PhotoPool | list[npt.NDArray[np.uint8]] = []
        self.sampler: CropSampler | SequenceSampler
        if not config.is_video:
            self.pool = self._load_photographs(cache)
            self.sampler = CropSampler(self.pool, config.batch, config.seed, self.device)
            return
        if config.data:
            self.pool = self._load_photographs(cache)
        if config.clips:
            self._load_clips(cache)
        if config.validation:
            self.validation = [_beginning(clip) for clip in ClipPool(Path(config.validation), cache).clips]
        self.sampler = SequenceSampler(
            self.pool, self.clips, config.batch, config.clip_share, config.seed, self.device
        )

    def _load_clips(self, cache: Path | None) -> None:
        config = self.config
        found = ClipPool(Path(config.clips), cache)
        held = _names(config.holdout)
        if held - {clip.name for clip in found.clips}:
            raise TrainingError(
                f"{printable(config.holdout)}: names what is no clip of {printable(config.clips)}"
            )
        self.skipped += found.skipped
        self.clips = [clip for clip in found.clips if clip.name not in held]
        self.validation = [_beginning(clip) for clip in found.clips if clip.name in held]

    def _load_photographs(self, cache: Path | None) -> PhotoPool:
        config = self.config
        pool = PhotoPool.load(Path(config.data), cache)
        self.skipped = pool.skipped
        held = set() if config.is_video else _names(config.holdout)
        outside = [i for i, name in enumerate(pool.names) if name in held]
        if config.holdout and not config.is_video and not outside:
            raise TrainingError(
                f"{printable(config.holdout)}: names no photograph of {printable(config.data)}"
            )
        self.validation = pool.subset(outside)
        if config.validation and not config.is_video:
            self.validation = PhotoPool.load(Path(config.validation))
        if config.exclude_like:
            self.excluded = find_similar(pool, PhotoPool.load(Path(config.exclude_like)), cache)
        left_out = {match.index for match in self.excluded}.union(outside)
        if left_out:
            pool = pool.subset([i for i in range(len(pool)) if i not in left_out])
        if not len(pool):
            raise TrainingError(f"{printable(config.data)}: no image is left for training")
        return pool

    def _compare_configurations(self) -> None:
        before = self.folder / "config.json"
        if before.exists():
            changes = TrainConfig.load(before).differences(self.config)
            self.remarks += [f"from here on with {change}" for change in changes]

    def _save_config(self) -> None:
        if self.processes.leads:
            atomic_write(self.folder / "config.json", self.config.to_json().encode(), force=True)

    def start_decay(self, steps: int) -> None:
        """Let the learning rate fall to zero over the next ``steps`` steps; the run ends there."""
        self.config = replace(self.config, decay_start=self.step, steps=self.step + steps)
        self._save_config()

    def _patches(self, count: int) -> Tensor:
        """Random 16x16 patches for the transform that training starts from: ``(count, 3, 16, 16)``."""
        if self.pool is None:
            raise TrainingError("there are no photographs to start from")
        sampler = CropSampler(self.pool, 8, self.config.seed + 1)
        rng = np.random.default_rng(self.config.seed)
        patches: list[Tensor] = []
        per_crop = 64
        for step in range(math.ceil(count / (8 * per_crop))):
            for image in sampler(step, 256):
                at = rng.integers(0, 241, (per_crop, 2))
                patches.extend(image[:, r : r + 16, c : c + 16] for r, c in at)
        return torch.stack(patches[:count])

    # -- starting and saving -------------------------------------------------------------------------------

    def _branch(self, path: Path) -> None:
        """Start from another run's checkpoint, or from weights alone."""
        is_default = isinstance(self.model, LatensBase)
        is_network = self.config.architecture == FRAMES_ARCHITECTURE
        if path.suffix == ".safetensors" and self.config.is_video and not is_network:
            found = getattr(load_video(path), "network", None)
            if found is None:
                raise TrainingError(
                    f"{printable(path)}: holds integers only; start from the checkpoint that it was made of"
                )
            if isinstance(found, ScaleSpaceFlow) and found.flow_unit != self.config.flow_unit:
                raise TrainingError(
                    f"{printable(path)}: its flow counts in another unit; set flow_unit={found.flow_unit}"
                )
            self._take_weights(found.state_dict(), path)
            return
        if path.suffix == ".safetensors" and is_default:
            network = load(path).base
            if not _same_networks(network.config, self.config.model):
                raise TrainingError(
                    f"{printable(path)}: weights of another architecture: {network.config}, "
                    f"expected {self.config.model}"
                )
            self._take_weights(self._in_range(network).state_dict(), path)
            return
        state = read_checkpoint(path) if path.suffix != ".safetensors" else {}
        if is_default and self._has_other_range(state):
            self._take_in_range(state, path)
            return
        if is_default or "model" in state:
            self._take(state, path, branch=True)
            return
        try:
            weights = read_weights(path)
        except LatensError as error:
            raise TrainingError(f"{printable(path)}: not a checkpoint ({error})") from error
        self._take_weights(weights, path)
        if isinstance(self.model, ScaleSpaceFlow):
            self.remarks.append(
                f"flow counts in {self.config.flow_unit}; published weights want flow_unit=corrected"
            )

    def _has_other_range(self, state: dict[str, Any]) -> bool:
        """Whether a checkpoint is of the same networks, for another range of lambda."""
        try:
            found = LatensBaseConfig.from_dict(state["architecture"])
        except (LatensError, KeyError, TypeError, AttributeError):
            return False  # which is told where checkpoints are read
        return found != self.config.model and _same_networks(found, self.config.model)

    def _take_in_range(self, state: dict[str, Any], path: Path) -> None:
        """Start from a checkpoint of another range of lambda: its weights, and nothing else."""
        for key, model in (("model", self.model), ("average", self.average)):
            network = LatensBase(LatensBaseConfig.from_dict(state["architecture"]))
            try:
                network.load_state_dict(state[key])
                model.load_state_dict(self._in_range(network).state_dict())
            except (LatensError, KeyError, TypeError, AttributeError, RuntimeError) as error:
                raise TrainingError(
                    f"{printable(path)}: not a checkpoint of a training run, or damaged"
                ) from error
        self._require_finite_state(path)

    def _in_range(self, network: LatensBase) -> LatensBase:
        """A network with the range of lambda that is trained."""
        wanted = self.config.model
        if network.config == wanted:
            return network
        had = network.config
        before, after = (f"{c.lambda_min:g} to {c.lambda_max:g}" for c in (had, wanted))
        remark = f"lambda: {before} becomes {after}"
        if remark not in self.remarks:
            self.remarks.append(remark)
        return network.with_range(wanted.lambda_min, wanted.lambda_max)

    def _take_weights(self, weights: dict[str, Tensor], path: Path) -> None:
        try:
            for model in (self.model, self.average):
                model.load_state_dict(weights)
        except (LatensError, RuntimeError) as error:
            raise TrainingError(
                f"{printable(path)}: weights of another architecture than {self._described()}"
            ) from error

    def _described(self) -> str:
        return ", ".join(f"{k}={v}" for k, v in architecture_of(self.config).items())

    def _restore(self, path: Path) -> None:
        self._take(read_checkpoint(path), path, branch=False)

    def _take(self, state: dict[str, Any], path: Path, *, branch: bool) -> None:
        """Go on from the content of a checkpoint."""
        found = state.get("architecture")
        if not isinstance(found, dict):
            raise TrainingError(f"{printable(path)}: not a checkpoint of a training run")
        if not self._is_ours(found):
            shown = ", ".join(f"{printable(str(k))}={printable(str(v))}" for k, v in found.items())[:300]
            raise TrainingError(
                f"{printable(path)}: a checkpoint of another architecture: {shown}; expected {self._described()}"
            )
        try:
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            step = int(state["step"])
            if not 0 <= step < 1 << 32:
                raise ValueError(f"step {step}")
            fits = self._optimiser_fits(state["optimiser"])
            if fits:
                # Options come from the configuration, not from what was before.
                groups = self.optimiser.state_dict()["param_groups"]
                self.optimiser.load_state_dict({"state": state["optimiser"]["state"], "param_groups": groups})
            if not branch and "interval" in state:
                self._summed = int(state["interval"]["steps"])
                self._sums = {str(key): float(value) for key, value in state["interval"]["sums"].items()}
        except (
            LatensError,
            KeyError,
            IndexError,
            TypeError,
            AttributeError,
            RuntimeError,
            ValueError,
        ) as error:
            raise TrainingError(
                f"{printable(path)}: not a checkpoint of this architecture, or damaged "
                f"(expected {self._described()})"
            ) from error
        self._require_finite_state(path)
        if not fits and not branch:
            raise TrainingError(
                f"{printable(path)}: was made with another optimiser than {self.config.optimiser}, or for other "
                f"parameters; to change it, start a new run with --branch-from {printable(path)}"
            )
        if not fits:
            self.remarks.append(
                f"optimiser {self.config.optimiser}: starts anew, that of the checkpoint differs"
            )
        elif step and not self.objective.partly_used and not self.config.is_hard(step - 1):
            missing = len(self._trained) - len(state["optimiser"]["state"])
            if missing:
                self.remarks.append(
                    f"the checkpoint has no state of the optimiser for {missing} of {len(self._trained)} parameters; "
                    "for these it starts anew"
                )
        self.step = step

    def _require_finite_state(self, path: Path) -> None:
        """Refuse weights that nothing can come of."""
        states = (*self.optimiser.state.values(), self.model.state_dict(), self.average.state_dict())
        values = (value for state in states for value in state.values() if isinstance(value, Tensor))
        if not all(bool(torch.isfinite(value).all()) for value in values if value.is_floating_point()):
            raise TrainingError(
                f"{printable(path)}: holds values that are not finite; start from another one"
            )

    def _is_ours(self, architecture: dict[str, Any]) -> bool:
        if not self.config.is_default_model:
            return architecture == architecture_of(self.config)
        try:
            return LatensBaseConfig.from_dict(architecture) == self.config.model
        except (ModelError, TypeError):
            return False

    def _optimiser_fits(self, optimiser: dict[str, Any]) -> bool:
        """Whether what a checkpoint holds is of this kind of optimiser, for these parameters."""
        known = _OPTIMISER_STATE[self.config.optimiser]
        moments = known & {"exp_avg", "exp_avg_sq", "momentum", "second"}
        covered = sum(len(group["params"]) for group in optimiser["param_groups"])
        return covered == len(self._trained) and all(
            0 <= index < len(self._trained)
            and values.keys() <= known
            and float(values["step"]) >= 0
            and all(values[name].numel() == self._trained[index].numel() for name in moments)
            for index, values in optimiser["state"].items()
        )

    def save(self) -> None:
        """Write the checkpoint, in the first process; all have to call it after the same step.

        Raises:
            TrainingError: it cannot be written; the one before is kept.
        """
        optimiser = self.optimiser.state_dict()
        if self._owners:
            rank, states = self.processes.rank, optimiser["state"]
            mine = {i: states[i] for i, owner in enumerate(self._owners) if owner == rank and i in states}
            together = self.processes.collect(mine)
            optimiser["state"] = {i: state for states in together for i, state in states.items()}
        if self.processes.leads:
            self._write(optimiser)

    def _write(self, optimiser: dict[str, Any]) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": optimiser,
            "step": self.step,
            "architecture": architecture_of(self.config),
            "interval": {"steps": self._summed, "sums": self._sums},
        }
        write_checkpoint(state, self.folder / "checkpoint.pt")

    def _record(self, record: dict[str, Any]) -> None:
        if self.processes.leads:
            self._log.write(record)
            self.report(record)

    @property
    def unrecorded(self) -> tuple[int, dict[str, float]]:
        """Number of steps since the last record of the log, and the means of their figures."""
        return self._summed, {key: value / self._summed for key, value in self._sums.items()}

    def stop(self) -> None:
        """Let :meth:`run` end after the step it is in; for signal handlers and other threads."""
        self._stop_wanted = True

    # -- steps ---------------------------------------------------------------------------------------------

    def crops(self, step: int) -> Tensor:
        """This process's crops of a step, those of its first part first."""
        count, crop = self._crops_at(step)
        chosen = [i for part in self._my_parts() for i in range(part, count, self._parts)]
        if isinstance(self.sampler, SequenceSampler):
            return self.sampler(step, crop, self.config.frames_at(step), count, chosen)
        return self.sampler(step, crop, count, chosen)

    def _crops_at(self, step: int) -> tuple[int, int]:
        count, crop = self.config.crops_at(step)
        return max(count, self._parts), crop

    def _my_parts(self) -> range:
        return range(self.processes.rank, self._parts, self.processes.count)

    def _network(self, hard: bool) -> nn.Module:
        """The objective, ready for a step; over several processes, gradients are averaged in its backward pass."""
        self.objective.prepare(self.step, hard=hard)
        if self._net is None or hard != self._hard:
            self._hard, self._net = hard, self.objective
            if self.processes.count > 1:
                # Gradients of 1x1 convolutions have the strides of both layouts; PyTorch takes this for a change.
                warnings.filterwarnings("ignore", "Grad strides do not match")
                self._net = DistributedDataParallel(
                    self.objective, find_unused_parameters=self.objective.partly_used
                )
        return self._net

    def train_step(self, x: Tensor) -> dict[str, float]:
        """One optimiser step on :meth:`crops`; the step's mean loss, rate and distortion, over all processes.

        Args:
            x: ``(B, 3, crop, crop)`` in 0..1; B is the batch divided by the number of processes.

        Raises:
            TrainingError: loss or gradient are not finite; nothing was changed.
        """
        figures = self._differentiate(x)
        self._update()
        return figures

    def _differentiate(self, x: Tensor) -> dict[str, float]:
        """The first half of a step: its loss and gradient. Both are finite, or an error is raised."""
        config, count = self.config, self._crops_at(self.step)[0]
        if self.processes.count == 1:
            count = len(x)
        hard = config.is_hard(self.step)
        network = self._network(hard)
        seed = config.seed * 1_000_003 + self.step
        torch.manual_seed(seed)
        quality = (torch.arange(count) + torch.rand(count)) / count
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate_at(self.step)
        self.optimiser.zero_grad(set_to_none=True)
        x = x.to(self.device, memory_format=torch.channels_last)
        figures = torch.zeros(5, device=self.device)
        start = 0
        for part in (parts := self._my_parts()):
            if part:
                torch.manual_seed(seed + (part << 40))
            mine = quality[part :: self._parts].to(self.device)
            crops = x[start : start + len(mine)]
            start += len(mine)
            if isinstance(network, DistributedDataParallel):
                network.require_backward_grad_sync = part == parts[-1]
            result = network(crops, mine, self.step, hard)
            share = len(mine) / count
            # Processes average their gradients; this makes it the sum over parts.
            (result[0] * (share * self.processes.count)).backward()
            figures[:3] += result.detach() * share
        # All processes have to end after the same step, and to save when the first one's clock says so.
        figures[3], figures[4] = float(self._stop_wanted), float(self._due if self.processes.leads else 0)
        loss, bpp, db, wanted, due = self.processes.total(figures).tolist()
        self._stopping, self._due = wanted > 0, _Due(int(due))
        self._require_finite("loss", loss)
        norm = torch.nn.utils.clip_grad_norm_(self._trained, config.clip).item()
        self._require_finite("gradient", norm)
        return {"loss": loss, "bpp": bpp, "db": db, "grad": norm}

    def _update(self) -> None:
        """The second half of a step: new weights, and their average."""
        for parameter, owner in zip(self._trained, self._owners, strict=False):
            if owner != self.processes.rank:
                parameter.grad = None
        self.optimiser.step()
        if self._owners:
            self.processes.spread([p.detach() for p in self._trained], self._owners)
        self.step += 1
        decay = min(self.config.ema, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            parameters = [p.detach() for p in self.model.parameters()]
            torch._foreach_lerp_(list(self.average.parameters()), parameters, 1.0 - decay)

    def _require_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"the {what} is {value} at step {self.step}; the last good checkpoint is kept "
                f"in {printable(self.folder)}"
            )

    @torch.no_grad()
    def validate(self) -> list[dict[str, float]]:
        """Mean bits per pixel of real files, and PSNR (dB) of what they decode to, with the averaged weights."""
        rows = []
        count = min(self.config.validate_images, len(self.validation))
        for quality, code in self.objective.files(self.average):
            total = np.zeros(2)
            for i in range(count):
                pixels = np.ascontiguousarray(self.validation[i])
                size, decoded = code(pixels)
                mse = np.square(pixels.astype(np.float64) - decoded).mean()
                total += [8 * size / (pixels.size // 3), 10 * math.log10(255.0**2 / max(mse, 1e-10))]
            bpp, db = total / max(count, 1)
            rows.append({"quality": round(quality, 4), "bpp": bpp, "db": db})
        return rows

    def _check_slope(self, rows: list[dict[str, float]]) -> None:
        if not self.objective.variable_rate or self.step < _SLOPE_FROM or len(rows) < 2:
            return
        (below, top), least = rows[-2:], self.config.min_slope
        bits = top["bpp"] - below["bpp"]
        slope = (top["db"] - below["db"]) / bits if bits > 0 else 0.0
        if slope < least:
            raise TrainingError(
                f"step {self.step}: at the top of the range a bit per pixel buys {slope:.2f} dB "
                f"({below['db']:.2f} dB at {below['bpp']:.3f} bpp, {top['db']:.2f} at {top['bpp']:.3f}), "
                f"expected at least {least:g}: the latent is too narrow, or training goes wrong; the checkpoint is "
                "saved, and min_slope=0 trains on"
            )

    def _ended(self) -> bool:
        return 0 < self.config.steps <= self.step

    def run(self, budget_seconds: float = math.inf) -> None:
        """Train until ``config.steps``, the budget or :meth:`stop`; then save.

        Weights are saved once the next step has shown that their loss is finite. An exception, Ctrl-C included, may
        come in the middle of a step: nothing is saved then, and the run goes on from the checkpoint before.

        Raises:
            TrainingError: loss or gradient are not finite, a checkpoint cannot be saved, or the quality at the
                top of the range is as low as the configuration says.
        """
        start = saved = validated = interval = time.monotonic()
        first = last = self.step
        ahead = 1 if self.device.type == "cpu" else 4
        with ThreadPoolExecutor(ahead) as loader:
            coming = itertools.count(self.step)
            queue: deque[Future[Tensor]] = deque(
                loader.submit(self.crops, next(coming)) for _ in range(ahead)
            )
            try:
                while not (
                    self._ended() or self._stopping or (self._stop_wanted and self.processes.count == 1)
                ):
                    x = queue.popleft().result()
                    queue.append(loader.submit(self.crops, next(coming)))
                    now = time.monotonic()
                    self._due = _Due.NOTHING
                    if self.step > first and now - saved > self.config.checkpoint_seconds:
                        self._due = _Due.CHECKPOINT
                    if (
                        self.step > first
                        and len(self.validation)
                        and now - validated > self.config.validate_seconds
                    ):
                        self._due = _Due.VALIDATION
                    figures = self._differentiate(x)
                    now = time.monotonic()
                    if self._due:
                        self.save()
                        saved = now
                    if self._due == _Due.VALIDATION:
                        self._validate_and_record()
                        validated = time.monotonic()
                        interval += validated - now
                    self._update()
                    for key, value in figures.items():
                        self._sums[key] = self._sums.get(key, 0.0) + value
                    self._summed += 1
                    now = time.monotonic()
                    if self.step % self.LOG_EVERY == 0:
                        means = {k: round(v / self._summed, 5) for k, v in self._sums.items()}
                        rate = self.config.learning_rate_at(self.step)
                        seconds = round((now - interval) / (self.step - last), 4)
                        self._record({"step": self.step, **means, "lr": rate, "seconds": seconds})
                        self._sums, self._summed, last, interval = {}, 0, self.step, now
                    if now - start > budget_seconds:
                        self.stop()
                if self.step > first:
                    self._differentiate(queue[0].result())
            finally:
                for crops in queue:
                    crops.cancel()
        self.save()
        if self.step > first and self._ended() and len(self.validation):
            self._validate_and_record()

    def _validate_and_record(self) -> None:
        if self.processes.leads:
            rows = self.validate()
            self._record({"step": self.step, "validation": rows})
            self._check_slope(rows)


def _same_networks(a: LatensBaseConfig, b: LatensBaseConfig) -> bool:
    """Whether weights of one fit into the other, but for the range of lambda."""
    return replace(a, lambda_min=b.lambda_min, lambda_max=b.lambda_max) == b


def _beginning(clip: Clip) -> npt.NDArray[np.uint8]:
    """The first frames of a clip, ``(n, H, W, 3)``."""
    return np.stack(clip.read(range(min(len(clip), _VALIDATION_FRAMES))))


def _names(path: str) -> set[str]:
    """The names in a file, one a line."""
    if not path:
        return set()
    try:
        return {line.strip() for line in Path(path).read_text().splitlines()} - {""}
    except (OSError, ValueError) as error:
        raise TrainingError(f"{printable(path)}: cannot be read ({printable(str(error))})") from error
