# In the style of published code: a discretised Gaussian whose constructor goes around that of GaussianConditional, and
# checkerboards whose context is no convolution, one of which says itself what anchors see.
import math

import compressai
import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.latent_codecs import (
    CheckerboardLatentCodec,
    GaussianConditionalLatentCodec,
    HyperLatentCodec,
    HyperpriorLatentCodec,
)
from compressai.layers import CheckerboardMaskedConv2d, conv1x1, conv3x3
from compressai.models import SimpleVAECompressionModel
from compressai.models.utils import conv, deconv
from compressai.ops import LowerBound
from torch import distributions, nn


class NormalConditional(GaussianConditional):
    def __init__(self, scale_table=None):
        super(GaussianConditional, self).__init__()
        if scale_table is None:
            scale_table = torch.exp(torch.linspace(math.log(0.11), math.log(20.0), steps=32))
        self.register_buffer("scale_table", scale_table, persistent=False)
        self.tail_mass = 1e-9
        self.lower_bound_scale = LowerBound(scale_table[0])
        self.normal = distributions.Normal(loc=0, scale=1)

    @staticmethod
    def _standardized_quantile(quantile):
        return float(
            distributions.Normal(loc=0.0, scale=1.0).icdf(torch.tensor(quantile, dtype=torch.float64))
        )

    def _standardized_cumulative(self, inputs):
        return self.normal.cdf(inputs)


class Context(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.masked = CheckerboardMaskedConv2d(channels, channels, 3, padding=1)
        self.mix = conv1x1(channels, 2 * channels)

    def forward(self, y):
        return self.mix(torch.relu(self.masked(y)))


class SelfMadeCheckerboard(CheckerboardLatentCodec):
    calls = 0

    @torch.no_grad()
    def _y_ctx_zero(self, y):
        type(self).calls += 1
        context = self.context_prediction(y.detach().clone())
        return y.new_zeros(context.shape)


class ContextModel(SimpleVAECompressionModel):
    def __init__(self, checkerboard=CheckerboardLatentCodec, gaussian=None, N=12):
        super().__init__()
        self.g_a = nn.Sequential(
            conv(3, N), nn.ReLU(), conv(N, N), nn.ReLU(), conv(N, N), nn.ReLU(), conv(N, N)
        )
        self.g_s = nn.Sequential(
            deconv(N, N), nn.ReLU(), deconv(N, N), nn.ReLU(), deconv(N, N), nn.ReLU(), deconv(N, 3)
        )
        gaussian = NormalConditional() if gaussian is None else gaussian
        self.latent_codec = HyperpriorLatentCodec(
            latent_codec={
                "y": checkerboard(
                    latent_codec={
                        "y": GaussianConditionalLatentCodec(gaussian_conditional=gaussian, quantizer="ste")
                    },
                    entropy_parameters=nn.Sequential(conv1x1(4 * N, 3 * N), nn.ReLU(), conv1x1(3 * N, 2 * N)),
                    context_prediction=Context(N),
                ),
                "hyper": HyperLatentCodec(
                    entropy_bottleneck=EntropyBottleneck(N),
                    h_a=nn.Sequential(conv3x3(N, N), nn.ReLU(), conv(N, N), nn.ReLU(), conv(N, N)),
                    h_s=nn.Sequential(deconv(N, N), nn.ReLU(), deconv(N, N), nn.ReLU(), conv3x3(N, 2 * N)),
                    quantizer="ste",
                ),
            }
        )


assert compressai.__version__
