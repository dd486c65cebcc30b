"""The training loop: resumable, bounded in time, and safe to kill at any moment."""

import json
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latens.errors import ModelError, TrainingError
from latens.io import atomic_write, printable
from latens.models.latens_base import LatensBase, LatensBaseConfig
from latens.train.config import TrainConfig
from latens.train.data import CropSampler, PhotoPool
from latens.zoo import load

__all__ = ["Trainer", "load_average", "rate_and_distortion"]

VALIDATION_QUALITIES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def rate_and_distortion(out: dict[str, Any], x: Tensor) -> tuple[Tensor, Tensor]:
    """Bits per pixel (from likelihoods) and mean squared error (0..255 scale), each per sample ``(B,)``."""
    pixels = x.shape[2] * x.shape[3]
    per_latent = [-torch.log2(p).flatten(1).sum(1) for p in out["likelihoods"].values()]
    bits = torch.stack(per_latent).sum(0)
    mse = (out["x_hat"] - x).square().flatten(1).mean(1) * 255.0**2
    return bits / pixels, mse


def _load_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint: tensors and plain values only, never code.

    Raises:
        TrainingError: it cannot be read.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the zip, the pickle or the system does
        raise TrainingError(f"{printable(path)}: not a checkpoint ({printable(str(error)[:200])})") from error
    return state


def load_average(path: Path) -> LatensBase:
    """The averaged weights of a run, from its ``checkpoint.pt``.

    Raises:
        TrainingError: the file is not a checkpoint of a training run.
    """
    state = _load_checkpoint(path)
    try:
        model = LatensBase(LatensBaseConfig.from_dict(state["architecture"]))
        model.load_state_dict(state["average"])
    except (ModelError, KeyError, IndexError, TypeError, RuntimeError, AttributeError) as error:
        raise TrainingError(
            f"{printable(path)}: not a checkpoint of a training run ({printable(str(error)[:200])})"
        ) from error
    return model


class Trainer:
    """Trains a :class:`LatensBase`.

    The run folder holds ``config.json``, ``checkpoint.pt`` (weights, averaged weights, optimiser, step: plain
    tensors, loaded with ``weights_only``), ``log.jsonl`` and, after validation, its figures.

    Args:
        config: the run.
        folder: run folder; if it holds a checkpoint, the run goes on from there.
        branch_from: what to start from when the folder holds no checkpoint: the checkpoint of another run, with
            its optimiser and step (for a decay branch), or a weights file (for fine-tuning, from step 0).
        report: called with a dict after each logged interval.

    Attributes:
        skipped: names of files among the photographs that could not be read.
        step: number of steps done.

    Raises:
        TrainingError: no images, a checkpoint of another architecture, or a folder that cannot be written.
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
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        pool = PhotoPool.load(Path(config.data), Path(config.cache) if config.cache else None)
        self.skipped = pool.skipped
        held = _holdout(config.holdout)
        # What is smaller than one position of z cannot be measured.
        large = pool.sizes.min(axis=1) >= 64
        self.validation = pool.subset([i for i, n in enumerate(pool.names) if n in held and large[i]])
        self.pool = pool.subset([i for i, n in enumerate(pool.names) if n not in held]) if held else pool
        if held and not len(self.validation):
            raise TrainingError(
                f"{printable(config.holdout)}: names no photograph of {printable(config.data)}"
            )
        if not len(self.pool):
            raise TrainingError(f"{printable(config.data)}: no image is left for training")
        self.sampler = CropSampler(self.pool, config.batch, config.seed)
        self.model = LatensBase(config.model)
        self.average = LatensBase(config.model).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, betas=config.betas, weight_decay=0.0
        )
        self.step = 0
        self._stopping = False
        self._open_folder()
        checkpoint = folder / "checkpoint.pt"
        if checkpoint.exists():
            self._restore(checkpoint)
        else:
            if branch_from is not None and branch_from.suffix == ".safetensors":
                self._start_from(load(branch_from).network, branch_from)
            elif branch_from is not None:
                self._restore(branch_from)
            else:
                self.model.initialise_from_patches(self._patches(40_000))
                self.average.load_state_dict(self.model.state_dict())
            # At once: a branch must not depend on a trunk that moves on, and a full disk should show now.
            self.save()
        self._save_config()

    def _open_folder(self) -> None:
        log = self.folder / "log.jsonl"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with log.open("ab+") as file:
                # A run that was killed may have left half a line.
                if file.tell() and log.read_bytes()[-1:] != b"\n":
                    file.write(b"\n")
        except OSError as error:
            raise TrainingError(f"{printable(self.folder)}: cannot be written ({error.strerror})") from error

    def _save_config(self) -> None:
        atomic_write(self.folder / "config.json", self.config.to_json().encode(), force=True)

    def start_decay(self, steps: int) -> None:
        """Let the learning rate fall to zero over the next ``steps`` steps; the run ends there."""
        self.config = replace(self.config, decay_start=self.step, steps=self.step + steps)
        self._save_config()

    def _patches(self, count: int) -> Tensor:
        """Random 16x16 patches for the transform that training starts from: ``(count, 3, 16, 16)``."""
        sampler = CropSampler(self.pool, 8, self.config.seed + 1)
        rng = np.random.default_rng(self.config.seed)
        patches: list[Tensor] = []
        per_crop = 64
        for step in range(math.ceil(count / (8 * per_crop))):
            for image in sampler(step, 256):
                at = rng.integers(0, 241, (per_crop, 2))
                patches.extend(image[:, r : r + 16, c : c + 16] for r, c in at)
        return torch.stack(patches[:count])

    def _start_from(self, network: LatensBase, path: Path) -> None:
        if network.config != self.config.model:
            raise TrainingError(
                f"{printable(path)}: weights of another architecture: {network.config}, "
                f"expected {self.config.model}"
            )
        for model in (self.model, self.average):
            model.load_state_dict(network.state_dict())

    def _restore(self, path: Path) -> None:
        state = _load_checkpoint(path)
        try:
            architecture = LatensBaseConfig.from_dict(state["architecture"])
            if architecture != self.config.model:
                raise TrainingError(
                    f"{printable(path)}: a checkpoint of another architecture: {architecture}, "
                    f"expected {self.config.model}"
                )
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step = int(state["step"])
        except (
            ModelError,
            KeyError,
            IndexError,
            TypeError,
            AttributeError,
            RuntimeError,
            ValueError,
        ) as error:
            if isinstance(error, TrainingError):
                raise
            raise TrainingError(
                f"{printable(path)}: not a checkpoint of this architecture ({printable(str(error)[:200])})"
            ) from error

    def save(self) -> None:
        """Write the checkpoint: to a temporary file first, so that a kill never leaves half of one.

        Raises:
            TrainingError: it cannot be written; the one before is kept.
        """
        temporary = self.folder / "checkpoint.tmp"
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "architecture": self.config.model.to_dict(),
        }
        try:
            with temporary.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.folder / "checkpoint.pt")
        except BaseException as error:
            temporary.unlink(missing_ok=True)
            if isinstance(error, OSError | RuntimeError):
                reason = printable(str(error).partition("\n")[0][:200])
                raise TrainingError(
                    f"{printable(self.folder)}: cannot save the checkpoint at step {self.step}; "
                    f"the one before is kept ({reason})"
                ) from error
            raise

    def _log(self, record: dict[str, Any]) -> None:
        try:
            with (self.folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(record) + "\n")
        except OSError as error:
            raise TrainingError(
                f"{printable(self.folder)}: cannot write the log ({error.strerror})"
            ) from error
        self.report(record)

    def stop(self) -> None:
        """Let :meth:`run` end after the step it is in; for signal handlers and other threads."""
        self._stopping = True

    def train_step(self, x: Tensor) -> dict[str, float]:
        """One optimiser step on a batch ``(B, 3, crop, crop)``; the step's mean loss, rate and distortion.

        Raises:
            TrainingError: loss or gradient are not finite; nothing was changed.
        """
        config, batch = self.config, x.shape[0]
        torch.manual_seed(config.seed * 1_000_003 + self.step)
        quality = (torch.arange(batch) + torch.rand(batch)) / batch
        hard = config.is_hard(self.step)
        for part in (self.model.g_a, self.model.h_a):
            part.requires_grad_(not hard)
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate_at(self.step)
        out = self.model(
            x.contiguous(memory_format=torch.channels_last), quality, noise=not hard, autocast=True
        )
        rate, mse = rate_and_distortion(out, x)
        lmbda = self.model.lmbda(quality)
        # Dividing by sqrt(lambda) makes a given relative saving of rate count alike at all qualities.
        loss = ((rate + lmbda * mse) / lmbda.sqrt()).mean()
        self._require_finite("loss", loss)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        self._require_finite("gradient", norm)
        self.optimiser.step()
        self.step += 1
        decay = min(config.ema, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            parameters = [p.detach() for p in self.model.parameters()]
            torch._foreach_lerp_(list(self.average.parameters()), parameters, 1.0 - decay)
        return {
            "loss": loss.item(),
            "bpp": rate.mean().item(),
            "db": (10 * torch.log10(255.0**2 / mse)).mean().item(),
            "grad": norm.item(),
        }

    def _require_finite(self, what: str, value: Tensor) -> None:
        if not math.isfinite(value.item()):
            raise TrainingError(
                f"the {what} is {value.item()} at step {self.step}; the last good checkpoint is kept "
                f"in {printable(self.folder)}"
            )

    @torch.no_grad()
    def validate(self, images: int = 32) -> list[dict[str, float]]:
        """Estimated rate and PSNR of the averaged weights on the held-out photographs, hard rounding."""
        rows = []
        for q in VALIDATION_QUALITIES:
            total = np.zeros(2)
            count = min(images, len(self.validation))
            for i in range(count):
                pixels = self.validation[i]
                height, width = (s // 64 * 64 for s in pixels.shape[:2])
                x = (
                    torch.from_numpy(np.ascontiguousarray(pixels[:height, :width])).permute(2, 0, 1)[None]
                    / 255.0
                )
                out = self.average(x, torch.tensor([q]), noise=False, autocast=True)
                out["x_hat"] = out["x_hat"].clamp(0, 1)
                rate, mse = rate_and_distortion(out, x)
                total += [rate.item(), 10 * math.log10(255.0**2 / mse.item())]
            rows.append({"quality": q, "bpp": total[0] / max(count, 1), "db": total[1] / max(count, 1)})
        return rows

    def run(self, budget_seconds: float = math.inf) -> None:
        """Train until ``config.steps``, the budget or :meth:`stop`; then save.

        An exception, Ctrl-C included, may come in the middle of a step: nothing is saved then, and the run goes
        on from the checkpoint before.
        """
        start = saved = validated = time.monotonic()
        sums: dict[str, float] = {}
        last = self.step
        interval = time.monotonic()
        with ThreadPoolExecutor(1) as loader:
            crops = loader.submit(self.sampler, self.step, self.config.crop)
            while not (0 < self.config.steps <= self.step or self._stopping):
                x = crops.result()
                crops = loader.submit(self.sampler, self.step + 1, self.config.crop)
                for key, value in self.train_step(x).items():
                    sums[key] = sums.get(key, 0.0) + value
                now = time.monotonic()
                if self.step % self.LOG_EVERY == 0:
                    n = self.step - last
                    means = {k: round(v / n, 5) for k, v in sums.items()}
                    rate = self.config.learning_rate_at(self.step)
                    seconds = round((now - interval) / n, 4)
                    self._log({"step": self.step, **means, "lr": rate, "seconds": seconds})
                    sums, last, interval = {}, self.step, now
                if now - saved > self.config.checkpoint_seconds:
                    self.save()
                    saved = now
                if len(self.validation) and now - validated > self.config.validate_seconds:
                    self._log({"step": self.step, "validation": self.validate(8)})
                    validated = interval = time.monotonic()
                if now - start > budget_seconds:
                    break
        self.save()


def _holdout(path: str) -> set[str]:
    """The names in a file, one a line."""
    if not path:
        return set()
    try:
        return {line.strip() for line in Path(path).read_text().splitlines()} - {""}
    except (OSError, ValueError) as error:
        raise TrainingError(f"{printable(path)}: cannot be read ({printable(str(error))})") from error
