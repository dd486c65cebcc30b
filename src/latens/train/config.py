"""What a training run is: one dataclass, saved beside the weights as JSON."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from latens.errors import TrainingError
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
        seed: of crops, qualities and noise.
        threads: CPU threads.
        checkpoint_seconds, validate_seconds: how often to save and to validate.
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
        except (json.JSONDecodeError, TypeError, AttributeError) as error:
            raise TrainingError(f"not a training configuration: {error}") from error

    @classmethod
    def load(cls, path: Path) -> "TrainConfig":
        """Read :meth:`from_json` from a file."""
        return cls.from_json(path.read_text())
