"""Training: photographs in memory, the loop, checkpoints, and what must stay out of training."""

from latens import _research  # noqa: F401  (tells who lacks PyTorch)
from latens.train.checkpoints import load_average, save_weights
from latens.train.config import TrainConfig
from latens.train.loop import Trainer
from latens.train.similar import Match, find_similar
from latens.train.soap import Soap

__all__ = ["Match", "Soap", "TrainConfig", "Trainer", "find_similar", "load_average", "save_weights"]
