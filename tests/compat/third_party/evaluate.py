# In the style of published scripts: look models up by name, load a checkpoint, measure.
import math

import compressai
import torch
import torch.nn as nn
from compressai.datasets import ImageFolder
from compressai.zoo import image_models as pretrained_models
from compressai.zoo import load_state_dict, models
from compressai.zoo.image import model_architectures as architectures
from compressai.zoo.pretrained import load_pretrained

NAMES = sorted({*pretrained_models, *models})
architectures["mine"] = architectures["bmshj2018-factorized"]


class Factorized(compressai.models.CompressionModel):
    def __init__(self, N=4):
        super().__init__(entropy_bottleneck_channels=N)
        self.encode = nn.Sequential(nn.Conv2d(3, N, 5, stride=2, padding=2), compressai.layers.GDN(N))
        self.decode = nn.ConvTranspose2d(N, 3, 5, stride=2, padding=2, output_padding=1)

    def forward(self, x):
        y_hat, y_likelihoods = self.entropy_bottleneck(self.encode(x))
        return self.decode(y_hat), y_likelihoods


def load_checkpoint(arch, path):
    state_dict = torch.load(path)
    state_dict = load_pretrained(state_dict.get("network", state_dict.get("state_dict", state_dict)))
    assert load_state_dict(state_dict).keys() == state_dict.keys()
    return architectures[arch].from_state_dict(state_dict).eval()


def evaluate(model, folder, transform):
    model.update(force=True)
    metrics = []
    for x in ImageFolder(folder, transform=transform, split="test"):
        x = x.unsqueeze(0)
        out_enc = model.compress(x)
        out_dec = model.decompress(out_enc["strings"], out_enc["shape"])
        num_pixels = x.size(0) * x.size(2) * x.size(3)
        bpp = sum(len(s[0]) for s in out_enc["strings"]) * 8.0 / num_pixels
        mse = torch.mean((out_dec["x_hat"] - x) ** 2).item()
        metrics.append((-10 * math.log10(mse), bpp))
    return metrics
