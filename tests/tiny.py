"""A tiny model with weights that are all alive, and pictures to feed it with; the same in every run."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

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


def network(
    seed: int = 1, config: LatensBaseConfig = CONFIG, h_scale: nn.Sequential | None = None
) -> LatensBase:
    """A model that starts as a transform codec, and whose branches, means and context then get random weights."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = LatensBase(config)
        if h_scale is not None:
            last = model.h_scale[-1].bias
            model.h_scale = h_scale
            model.h_scale[-1].bias = last
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
        _follow_quality(model)
    return model


def _follow_quality(model: LatensBase) -> None:
    """Let h_scale pass on the first channel of z, which carries the quality, so that scales fit the symbols."""
    convs = [module for module in model.h_scale if isinstance(module, nn.Conv2d)]
    step = math.log(256 / 0.11) / 63
    slope = 0.5 * math.log(model.config.lambda_max / model.config.lambda_min) / 16 / step
    for number, conv in enumerate(convs):
        assert conv.bias is not None
        first, last = number == 0, number == len(convs) - 1
        # Feature 0 of a layer; a PixelShuffle takes it from four channels.
        rows = slice(None) if last else slice(0, 4 if conv.kernel_size == (1, 1) else 1)
        conv.weight.mul_(0.3 if last else 1.0)
        conv.weight[rows, 0] = 0.0
        if not last:
            conv.weight[rows] = 0.0
            conv.bias[rows] = 8.0 if first else 0.0
        else:
            conv.bias.sub_(8.0 * slope)
        middle = conv.kernel_size[0] // 2
        conv.weight[rows, 0, middle, middle] = slope if last else 1.0


def save_weights(path: Path, seed: int = 1, name: str = "tiny-1") -> None:
    """Write the weights file of a tiny model."""
    save(network(seed), path, name)
