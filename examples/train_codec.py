"""Train an image codec of your own: python examples/train_codec.py photos/*.jpg --steps 20000 --lmbda 0.013"""

import argparse

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from latens.entropy_models import EntropyBottleneck
from latens.latent_codecs import GaussianConditionalLatentCodec, HyperLatentCodec, HyperpriorLatentCodec
from latens.layers import ResidualBlock, conv3x3, subpel_conv3x3
from latens.losses import RateDistortionLoss
from latens.metrics import psnr
from latens.models import SimpleVAECompressionModel
from latens.optimizers import net_aux_optimizer


class MyCodec(SimpleVAECompressionModel):
    def __init__(self, N: int = 64, M: int = 96) -> None:
        super().__init__()
        down = [nn.Sequential(nn.Conv2d(i, N, 5, 2, 2), ResidualBlock(N, N)) for i in (3, N, N)]
        up = [nn.Sequential(ResidualBlock(N, N), subpel_conv3x3(N, o, 2)) for o in (N, N, 3)]
        self.g_a = nn.Sequential(*down, nn.Conv2d(N, M, 5, 2, 2))
        self.g_s = nn.Sequential(subpel_conv3x3(M, N, 2), *up)
        h_a = nn.Sequential(conv3x3(M, N), nn.ReLU(), conv3x3(N, N, 2), nn.ReLU(), conv3x3(N, N, 2))
        h_s = nn.Sequential(subpel_conv3x3(N, N, 2), nn.ReLU(), subpel_conv3x3(N, 2 * M, 2))
        hyper = HyperLatentCodec(EntropyBottleneck(N), h_a, h_s, quantizer="ste")
        self.latent_codec = HyperpriorLatentCodec({"y": GaussianConditionalLatentCodec(), "hyper": hyper})


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("images", nargs="+")
parser.add_argument("--steps", type=int, default=20000)
parser.add_argument("--lmbda", type=float, default=0.013)
options = parser.parse_args()
photos = [torch.from_numpy(np.array(Image.open(name).convert("RGB"))) for name in options.images]
side = min(256, *(min(photo.shape[:2]) // 64 * 64 for photo in photos))


def crop() -> Tensor:
    photo = photos[int(torch.randint(len(photos), ()))]
    y, x = (int(torch.randint(size - side + 1, ())) for size in photo.shape[:2])
    return photo[y : y + side, x : x + side].permute(2, 0, 1) / 255


model, criterion = MyCodec(), RateDistortionLoss(options.lmbda)
rates = {"net": 1e-4, "aux": 1e-3}  # of the networks, and of the quantiles of the entropy bottleneck
optimizers = net_aux_optimizer(model, {name: {"type": "Adam", "lr": lr} for name, lr in rates.items()})
for step in range(options.steps):
    x = torch.stack([crop() for _ in range(8)])
    loss = criterion(model(x), x)
    for name, value in (("net", loss["loss"]), ("aux", model.aux_loss())):
        optimizers[name].zero_grad()
        value.backward()
        optimizers[name].step()
    print(f"step {step}: loss {loss['loss']:.3f}, {loss['bpp_loss']:.3f} bits per pixel")
coded = model.eval().compress(x[:1])
x_hat = model.decompress(coded["strings"], coded["shape"])["x_hat"]
print(f"{sum(len(s) for part in coded['strings'] for s in part)} bytes, {psnr(x[:1], x_hat).item():.2f} dB")
