"""A tiny model with weights that are all alive, and pictures to feed it with; the same in every run."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from latens.models.latens_base import LatensBase, LatensBaseConfig
from latens.zoo import save

CONFIG = LatensBaseConfig(
    N=16, M=32, inner=16, hyper=16, analysis_blocks=(2, 1), synthesis_blocks=(3, 1), knots=4
)


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Something between a photo and noise: smooth areas, edges, texture; ``(height, width, channels)``."""
    rng = np.random.default_rng([seed, height, width, channels])
    y, x = np.mgrid[0:height, 0:width][..., None] / 97.0
    phase, pace = rng.uniform(0, 6, (2, channels)), rng.uniform(0.5, 3, (2, channels))
    waves = np.sin(y * pace[0] + phase[0]) + np.sin(x * pace[1] + phase[1])
    edges = (np.sin(5 * x * y + phase[0]) > 0.3) * rng.uniform(-0.5, 0.5, channels)
    texture = rng.normal(0, 0.08, (height, width, channels)) * (np.sin(3 * x) > 0)
    return np.clip(128 + 50 * (waves + edges + texture), 0, 255).astype(np.uint8)


def network(seed: int = 1, config: LatensBaseConfig = CONFIG) -> LatensBase:
    """A model that starts as a transform codec, and whose branches, means and context then get random weights."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = LatensBase(config)
        pixels = torch.from_numpy(picture(512, 512)).permute(2, 0, 1) / 255.0
        patches = pixels.unfold(1, 16, 8).unfold(2, 16, 8).permute(1, 2, 0, 3, 4).reshape(-1, 3, 16, 16)
        model.initialise_from_patches(patches)
        for name, parameter in model.named_parameters():
            if name.endswith(("pw_out.weight", "ffn_out.weight")):
                parameter.normal_(0.0, 0.05)
            elif name.startswith(("mean_0", "mean_1")):
                parameter.normal_(0.0, 0.02)
            elif name.startswith("prior.") or name == "z_offset":
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def save_weights(path: Path, seed: int = 1, name: str = "tiny-1") -> None:
    """Write the weights file of a tiny model."""
    save(network(seed), path, name)
