# In the style of published code: a model made of latent codecs, trained as the tutorials do.
import torch
import torch.nn as nn
from compressai.entropy_models import EntropyBottleneck
from compressai.latent_codecs import (
    EntropyBottleneckLatentCodec,
    GaussianConditionalLatentCodec,
    HyperLatentCodec,
    HyperpriorLatentCodec,
)
from compressai.losses import RateDistortionLoss
from compressai.models import SimpleVAECompressionModel
from compressai.models.utils import conv, deconv
from compressai.optimizers import net_aux_optimizer
from compressai.registry import CRITERIONS, MODELS, OPTIMIZERS, register_model
from compressai.typing import TModel


@register_model("composed")
class Composed(SimpleVAECompressionModel):
    latent_codec: HyperpriorLatentCodec

    def __init__(self, N=8, M=12):
        super().__init__()
        self.g_a = nn.Sequential(
            conv(3, N), nn.ReLU(), conv(N, N), nn.ReLU(), conv(N, N), nn.ReLU(), conv(N, M)
        )
        self.g_s = nn.Sequential(
            deconv(M, N), nn.ReLU(), deconv(N, N), nn.ReLU(), deconv(N, N), nn.ReLU(), deconv(N, 3)
        )
        h_a = nn.Sequential(conv(M, N), nn.ReLU(), conv(N, N))
        h_s = nn.Sequential(deconv(N, N), nn.ReLU(), deconv(N, 2 * M))
        self.latent_codec = HyperpriorLatentCodec(
            latent_codec={
                "hyper": HyperLatentCodec(entropy_bottleneck=EntropyBottleneck(N), h_a=h_a, h_s=h_s),
                "y": GaussianConditionalLatentCodec(),
            },
        )


@register_model("composed-factorized")
class ComposedFactorized(SimpleVAECompressionModel):
    def __init__(self, N=8, M=12):
        super().__init__()
        self.g_a = nn.Sequential(conv(3, N), nn.ReLU(), conv(N, M))
        self.g_s = nn.Sequential(deconv(M, N), nn.ReLU(), deconv(N, 3))
        self.latent_codec = EntropyBottleneckLatentCodec(channels=M)


def train(name: str, steps: int = 3) -> TModel:
    torch.manual_seed(1)
    net = MODELS[name]()
    criterion = CRITERIONS["RateDistortionLoss"](lmbda=0.01)
    assert isinstance(criterion, RateDistortionLoss)
    assert OPTIMIZERS["net_aux"] is net_aux_optimizer
    conf = {"net": {"type": "Adam", "lr": 1e-3}, "aux": {"type": "Adam", "lr": 1e-2}}
    optimizer = OPTIMIZERS["net_aux"](net, conf)
    for _ in range(steps):
        x = torch.rand(2, 3, 64, 64)
        optimizer["net"].zero_grad()
        optimizer["aux"].zero_grad()
        out_net = net(x)
        out_criterion = criterion(out_net, x)
        out_criterion["loss"].backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer["net"].step()
        aux_loss = net.aux_loss()
        aux_loss.backward()
        optimizer["aux"].step()
    return net
