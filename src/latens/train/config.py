"""What a training run is: one dataclass, saved beside the weights as JSON."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from latens.errors import ModelError, TrainingError
from latens.io import printable
from latens.models.latens_base import LatensBaseConfig

__all__ = ["TrainConfig"]


@dataclass
class TrainConfig:
    """One training run of the default model's architecture.

    Attributes:
        data: folder or ``.tar`` of photographs (searched recursively).
        holdout: names listed in this file, one a line, are kept out of training and used for validation.
        cache: folder for decoded pixels; decoded anew each time if empty.
        batch, crop: crops per step and their side in pixels (a multiple of 64).
        learning_rate, betas, clip: AdamW without weight decay; gradient norm is clipped to ``clip``.
        warmup: steps of linear warm-up.
        decay_start, steps: the rate is constant until ``decay_start`` and falls linearly to zero at ``steps``.
            Both zero: constant for ever (a trunk that later runs branch from).
        hard_fraction: share of the decay, at its end, with g_a and h_a frozen and rounding in place of noise.
        ema: decay of the averaged weights, those that are evaluated and shipped.
        seed: of crops, qualities and noise, 0 to 2^32 - 1.
        threads: CPU threads.
        checkpoint_seconds, validate_seconds: how often to save and to validate.

    Raises:
        TrainingError: a value out of range.
    """

    data: str = ""
    holdout: str = ""
    cache: str = ""
    batch: int = 8
    crop: int = 256
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    warmup: int = 200
    decay_start: int = 0
    steps: int = 0
    hard_fraction: float = 0.5
    ema: float = 0.9995
    seed: int = 0
    threads: int = 1
    checkpoint_seconds: float = 240.0
    validate_seconds: float = 900.0
    model: LatensBaseConfig = field(default_factory=LatensBaseConfig)

    def __post_init__(self) -> None:
        whole = {"batch": 1, "crop": 64, "warmup": 0, "decay_start": 0, "steps": 0, "seed": 0, "threads": 1}
        positive = ("learning_rate", "clip", "checkpoint_seconds", "validate_seconds")
        for name, least in whole.items():
            value = getattr(self, name)
            self._require(name, type(value) is int and least <= value < 1 << 32, f"at least {least}, whole")
        for name in positive:
            self._require(name, _is_number(getattr(self, name)) and getattr(self, name) > 0, "above 0")
        for name in ("hard_fraction", "ema"):
            self._require(name, _is_number(getattr(self, name)) and 0 <= getattr(self, name) <= 1, "0 to 1")
        self._require("crop", self.crop % 64 == 0, "a multiple of 64")
        betas_fit = len(self.betas) == 2 and all(_is_number(b) and 0 <= b < 1 for b in self.betas)
        self._require("betas", betas_fit, "two numbers from 0 to below 1")
        for name in ("data", "holdout", "cache"):
            self._require(name, isinstance(getattr(self, name), str), "text")

    def _require(self, name: str, fits: bool, expected: str) -> None:
        if not fits:
            got = printable(repr(getattr(self, name)))[:80]
            raise TrainingError(f"training configuration: {name}: expected {expected}, got {got}")

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step (0-based)."""
        rate = self.learning_rate * min(1.0, (step + 1) / max(self.warmup, 1))
        if self.steps > self.decay_start and step >= self.decay_start:
            rate *= max(0.0, (self.steps - step) / (self.steps - self.decay_start))
        return rate

    def is_hard(self, step: int) -> bool:
        """Whether a step trains with frozen g_a and h_a and hard rounding."""
        return 0 < self.steps - self.hard_fraction * (self.steps - self.decay_start) <= step

    def to_json(self) -> str:
        """The configuration as JSON text."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "TrainConfig":
        """The inverse of :meth:`to_json`; missing keys take their defaults.

        Raises:
            TrainingError: not JSON, or a key that does not exist.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            model = LatensBaseConfig.from_dict(values.pop("model", {}))
            if "betas" in values:
                values["betas"] = tuple(values["betas"])
            return cls(**values, model=model)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, ModelError):
                raise
            raise TrainingError(f"not a training configuration: {printable(str(error)[:200])}") from error

    @classmethod
    def load(cls, path: Path) -> "TrainConfig":
        """Read :meth:`from_json` from a file.

        Raises:
            TrainingError: it cannot be read, or is not a configuration.
        """
        try:
            return cls.from_json(path.read_text())
        except (TrainingError, ModelError) as error:
            raise TrainingError(f"{printable(path)}: {error}") from error
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise TrainingError(f"{printable(path)}: cannot be read ({reason})") from error


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
