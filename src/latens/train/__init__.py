"""Training of the default model."""

from latens.train.config import TrainConfig
from latens.train.loop import Trainer, load_average

__all__ = ["TrainConfig", "Trainer", "load_average"]
