"""What a training run is: one dataclass, saved beside the weights as JSON."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from latens.errors import ModelError, TrainingError
from latens.io import printable
from latens.losses import DISTORTIONS, EYE, Mixture
from latens.models.latens_base import LatensBaseConfig
from latens.models.video import LatensVideoConfig
from latens.models.video.google import FLOW_UNITS

__all__ = [
    "DEFAULT_ARCHITECTURE",
    "FLOW_ARCHITECTURE",
    "FRAMES_ARCHITECTURE",
    "VIDEO_ARCHITECTURE",
    "TrainConfig",
]

DEFAULT_ARCHITECTURE = "latens-base"
VIDEO_ARCHITECTURE = "latens-video"
FLOW_ARCHITECTURE = "ssf2020"
FRAMES_ARCHITECTURE = "dcvc-rt"

_RECIPES: dict[str, dict[str, Any]] = {
    "cca": {"batch": 8},
    "dcvc-rt": {"batch": 8, "sequence": ((0, 2), (100_000, 4), (200_000, 7))},
    "hpcm": {"batch": 32},
    "hpcm-large": {"batch": 32},
    "mlic++": {"batch": 32, "large_crop": 512, "large_fraction": 0.4},
    "tcm": {"batch": 8},
}
"""Where authors say something else than what is usual in the field, in their papers or in what they train with.

Of DCVC-RT, sequences that grow are the way of its family (Li, Li, Lu, "Neural video compression with feature
modulation", CVPR 2024); the steps are not theirs.
"""

_CHOICES = {
    "metric": ("mse", "ms-ssim", "eye"),
    "optimiser": ("adamw", "soap"),
    "schedule": ("linear", "cosine"),
    "flow_unit": FLOW_UNITS,
}
_TEXTS = (
    "data", "clips", "holdout", "validation", "exclude_like", "cache", "device", "architecture", "image_model",
)  # fmt: skip
_SWITCHES = ("amp", "compile", "tensorboard", "multi_frame")


@dataclass
class TrainConfig:
    """One training run.

    Attributes:
        data: folder or ``.tar`` of photographs (searched recursively).
        clips: folder of video files and folders of frames (video only); with photographs, these are set in motion.
        holdout: names listed in this file, one a line, are kept out of training and used for validation; of
            photographs, or of clips (video).
        validation: folder of images to validate on, instead of ``holdout``.
        exclude_like: folder of test images; photographs that show the same are kept out of training.
        cache: folder for decoded pixels; decoded anew each time if empty.
        architecture: ``"latens-base"``, ``"latens-video"``, or a name of the zoo or of
            :data:`latens.registry.MODELS`.
        quality: of the zoo, 1 to 8: sizes of the networks and weight of the distortion; 0 for none.
        sizes: constructor arguments in place of those of ``quality``, such as ``(N, M)``.
        metric: what the distortion is: ``"mse"``, ``"ms-ssim"``, or ``"eye"``, the mixture that the default model is
            trained for, :data:`latens.losses.EYE`. Video knows the first, and scale-space flow the second, too.
        objective: weights of distortions of :data:`latens.losses.DISTORTIONS`, in place of ``metric``'s: ``{"mse":
            0.25, "ssimulacra2": 0.75}``. The weight of the whole is the lambda of squared error. Pictures only.
        lmbda: weight of the distortion in place of that of ``quality``; 0 for none.
        fixed_rate_steps: architectures of variable rate first train so many steps at their highest rate alone.
        batch, crop: crops per step, of all processes together, and their side in pixels (a multiple of 64).
        large_crop, large_fraction: side of the crops in the last part of the decay (0: like ``crop``), and its
            share. There are fewer of them, so that the pixels per step stay about the same.
        parts: into so many parts each batch is cut, one after the other, which takes less memory; parts are
            shared by processes. Results depend on the number of parts, not on that of processes.
        optimiser: ``"adamw"`` (without weight decay) or ``"soap"``.
        learning_rate, betas, clip: of the optimiser; the norm of the gradient is clipped to ``clip``.
        refresh: ``"soap"`` renews its bases every so many steps.
        warmup: steps of linear warm-up.
        schedule: how the rate falls from ``decay_start`` to zero at ``steps``: ``"linear"`` or ``"cosine"``.
        decay_start, steps: the rate is constant until ``decay_start``. Both zero: constant for ever (a trunk
            that later runs branch from).
        hard_fraction: share of the decay, at its end, with g_a and h_a frozen and rounding in place of noise
            (default models only).
        ema: decay of the averaged weights, those that are evaluated and shipped.
        quality_power: qualities of a batch are evenly spread over 0 to 1, to this power: below 1, high ones come up
            more often (default model only).
        min_slope: a model of variable rate that gives less than so many dB for a bit per pixel at its highest
            rate has too narrow a latent, and its run ends at the next validation, but not within the first
            2,000 steps; 0 for never.
        amp: run g_a, h_a and g_s in bfloat16.
        compile: compile these networks; pays on GPUs and in long runs.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``...; empty for a GPU if there is one.
        seed: of crops, qualities and noise, 0 to 2^32 - 1.
        threads: CPU threads.
        checkpoint_seconds, validate_seconds: how often to save and to validate.
        validate_images: so many images, the first ones, are validated on.
        tensorboard: log for TensorBoard, too.
        model: sizes of the default model.
        image_model: what codes pictures that need no other (video only): a released model, or a weights file.
        clip_share: of sequences that come from clips, if there are photographs, too.
        sequence: pairs of a step and the number of frames per sequence from there on, as ``((0, 2), (5000, 4))``.
        video: sizes of the default video model.
        flow_unit: of scale-space flow, see :class:`latens.models.video.ScaleSpaceFlow`; ``"corrected"`` is that of
            the published weights.
        multi_frame: of scale-space flow: the loss of a frame also trains how the one before was decoded, the first
            excepted; otherwise each frame learns from its own loss alone, as in the default video model.

    Raises:
        TrainingError: a value out of range.
    """

    data: str = ""
    clips: str = ""
    holdout: str = ""
    validation: str = ""
    exclude_like: str = ""
    cache: str = ""
    architecture: str = DEFAULT_ARCHITECTURE
    quality: int = 0
    sizes: tuple[int, ...] = ()
    metric: str = "mse"
    objective: dict[str, float] = field(default_factory=dict)
    lmbda: float = 0.0
    fixed_rate_steps: int = 0
    batch: int = 8
    crop: int = 256
    large_crop: int = 0
    large_fraction: float = 0.15
    parts: int = 1
    optimiser: str = "adamw"
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    refresh: int = 20
    warmup: int = 200
    schedule: str = "linear"
    decay_start: int = 0
    steps: int = 0
    hard_fraction: float = 0.5
    ema: float = 0.9995
    quality_power: float = 1.0
    min_slope: float = 3.0
    amp: bool = True
    compile: bool = False
    device: str = ""
    seed: int = 0
    threads: int = 1
    checkpoint_seconds: float = 240.0
    validate_seconds: float = 900.0
    validate_images: int = 8
    tensorboard: bool = False
    model: LatensBaseConfig = field(default_factory=LatensBaseConfig)
    image_model: str = "latens-psnr-1"
    clip_share: float = 0.5
    sequence: tuple[tuple[int, int], ...] = ((0, 2),)
    video: LatensVideoConfig = field(default_factory=LatensVideoConfig)
    flow_unit: str = "pixels"
    multi_frame: bool = True

    def __post_init__(self) -> None:
        least = {
            "quality": 0, "fixed_rate_steps": 0, "batch": 1, "crop": 64, "large_crop": 0, "parts": 1, "refresh": 1,
            "warmup": 0, "decay_start": 0, "steps": 0, "seed": 0, "threads": 1, "validate_images": 1,
        }  # fmt: skip
        for name, smallest in least.items():
            value = getattr(self, name)
            fits = type(value) is int and smallest <= value < 1 << 32
            self._require(name, fits, f"at least {smallest}, whole")
        for name in ("learning_rate", "clip", "checkpoint_seconds", "validate_seconds", "quality_power"):
            self._require(name, _is_number(getattr(self, name)) and getattr(self, name) > 0, "above 0")
        for name in ("lmbda", "min_slope"):
            self._require(name, _is_number(getattr(self, name)) and getattr(self, name) >= 0, "at least 0")
        for name in ("hard_fraction", "large_fraction", "ema", "clip_share"):
            self._require(name, _is_number(getattr(self, name)) and 0 <= getattr(self, name) <= 1, "0 to 1")
        for name in ("crop", "large_crop"):
            self._require(name, getattr(self, name) % 64 == 0, "a multiple of 64")
        self._require("quality", self.quality <= 8, "0 to 8")
        betas_fit = len(self.betas) == 2 and all(_is_number(b) and 0 <= b < 1 for b in self.betas)
        self._require("betas", betas_fit, "two numbers from 0 to below 1")
        sizes_fit = len(self.sizes) <= 4 and all(type(n) is int and 1 <= n <= 4096 for n in self.sizes)
        self._require("sizes", sizes_fit, "up to four numbers from 1 to 4096")
        sequence_fits = (
            bool(self.sequence)
            and all(len(pair) == 2 and all(type(n) is int for n in pair) for pair in self.sequence)
            and self.sequence[0][0] == 0
            and all(2 <= frames <= 32 for _, frames in self.sequence)
            and all(a[0] < b[0] for a, b in itertools.pairwise(self.sequence))
        )
        self._require("sequence", sequence_fits, "pairs of a rising step, from 0 on, and 2 to 32 frames")
        self._require("parts", self.parts <= self.batch, f"at most the batch, {self.batch}")
        for name in _TEXTS:
            self._require(name, isinstance(getattr(self, name), str), "text")
        for name in _SWITCHES:
            self._require(name, isinstance(getattr(self, name), bool), "true or false")
        for name, choices in _CHOICES.items():
            self._require(name, getattr(self, name) in choices, " or ".join(choices))
        self._require(
            "objective", _is_mixture(self.objective), f"weights of {', '.join(DISTORTIONS)}, at least 0"
        )
        self._require("holdout", not (self.holdout and self.validation), "either this or validation")

    def _require(self, name: str, fits: bool, expected: str) -> None:
        if not fits:
            got = printable(repr(getattr(self, name)))[:80]
            raise TrainingError(f"training configuration: {name}: expected {expected}, got {got}")

    @classmethod
    def for_architecture(cls, architecture: str) -> TrainConfig:
        """What to start from for an architecture: the field's usual settings, or those of the default model."""
        if architecture in (DEFAULT_ARCHITECTURE, VIDEO_ARCHITECTURE):
            return cls(architecture=architecture)
        if architecture == FLOW_ARCHITECTURE:
            # Agustsson et al. 2020: short sequences at a constant rate; the decay goes on to larger crops.
            return cls(
                architecture=architecture, learning_rate=1e-4, betas=(0.9, 0.999), large_crop=384, sequence=((0, 3),)
            )  # fmt: skip
        usual = {"batch": 16, "learning_rate": 1e-4, "betas": (0.9, 0.999), "schedule": "cosine"}
        return cls(architecture=architecture, **{**usual, **_RECIPES.get(architecture, {})})

    @property
    def mixture(self) -> Mixture | None:
        """The distortion as a mixture in the unit of squared error; None if ``metric`` is a measure of its own."""
        weights = self.objective or {"mse": {"mse": 1.0}, "eye": EYE}.get(self.metric)
        return None if weights is None else Mixture(weights)

    @property
    def is_default_model(self) -> bool:
        """Whether it is the default model that is trained."""
        return self.architecture == DEFAULT_ARCHITECTURE

    @property
    def is_video(self) -> bool:
        """Whether it is trained on sequences of frames."""
        return self.architecture in (VIDEO_ARCHITECTURE, FLOW_ARCHITECTURE, FRAMES_ARCHITECTURE)

    def frames_at(self, step: int) -> int:
        """Frames per sequence of a step."""
        return next(frames for start, frames in reversed(self.sequence) if start <= step)

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step (0-based)."""
        rate = self.learning_rate * min(1.0, (step + 1) / max(self.warmup, 1))
        if self.steps > self.decay_start and step >= self.decay_start:
            left = max(0.0, (self.steps - step) / (self.steps - self.decay_start))
            rate *= left if self.schedule == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)
        return rate

    def _in_last(self, share: float, step: int) -> bool:
        """Whether a step is in the last part of the decay."""
        decay = self.steps - self.decay_start
        return decay > 0 and step >= self.steps - share * decay

    def is_hard(self, step: int) -> bool:
        """Whether a step trains with frozen g_a and h_a and hard rounding."""
        has_hard_steps = self.architecture in (DEFAULT_ARCHITECTURE, VIDEO_ARCHITECTURE)
        return has_hard_steps and self._in_last(self.hard_fraction, step)

    def crops_at(self, step: int) -> tuple[int, int]:
        """Number of crops of a step, and their side in pixels."""
        if not self.large_crop or not self._in_last(self.large_fraction, step):
            return self.batch, self.crop
        per_part = max(1, round(self.batch / self.parts * (self.crop / self.large_crop) ** 2))
        return per_part * self.parts, self.large_crop

    def differences(self, other: TrainConfig) -> list[str]:
        """How another configuration differs from this one, an option each: ``batch: 8 -> 16``."""
        return [
            f"{item.name}: {mine!r} -> {theirs!r}"
            for item in fields(self)
            if (mine := getattr(self, item.name)) != (theirs := getattr(other, item.name))
        ]

    def to_json(self) -> str:
        """The configuration as JSON text."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """The inverse of :meth:`to_json`; missing keys are as in :meth:`for_architecture`.

        Raises:
            TrainingError: not JSON, or a key that does not exist.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            model = LatensBaseConfig.from_dict(values.pop("model", {}))
            video = LatensVideoConfig.from_dict(values.pop("video", {}))
            for name in ("betas", "sizes"):
                if name in values:
                    values[name] = tuple(values[name])
            if "sequence" in values:
                values["sequence"] = tuple(map(tuple, values["sequence"]))
            architecture = values.pop("architecture", DEFAULT_ARCHITECTURE)
            return replace(cls.for_architecture(architecture), **values, model=model, video=video)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, ModelError):
                raise
            raise TrainingError(f"not a training configuration: {printable(str(error)[:200])}") from error

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
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

    def changed(self, assignments: list[str]) -> TrainConfig:
        """This configuration with options set by text: ``batch=16``, ``model.N=192``, ``schedule=cosine``.

        Raises:
            TrainingError: no such option, or a value out of range.
        """
        values: dict[str, Any] = json.loads(self.to_json())
        for assignment in assignments:
            name, equals, text = assignment.partition("=")
            *path, last = name.strip().split(".")
            place = values
            for key in path:
                place = place.get(key, {}) if isinstance(place.get(key, {}), dict) else {}
            if not equals or last not in place:
                raise TrainingError(
                    f"{printable(assignment)}: expected OPTION=VALUE, such as batch=16; options are "
                    f"{', '.join(item.name for item in fields(self))}"
                )
            try:
                place[last] = json.loads(text)
            except (ValueError, RecursionError):
                place[last] = text
        return TrainConfig.from_json(json.dumps(values))


def _is_mixture(value: object) -> bool:
    """Whether these are weights of known distortions; none at all are fine."""
    return (
        isinstance(value, dict)
        and all(
            name in DISTORTIONS and _is_number(weight) and 0 <= weight < 1e6 for name, weight in value.items()
        )
        and (not value or any(value.values()))
    )


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
