# In the style of published code: a raster model with its own gains, around the helper methods of the library's.
import torch
import torch.nn as nn
import torch.nn.functional as F
from compressai.models import JointAutoregressiveHierarchicalPriors


class GainedRaster(JointAutoregressiveHierarchicalPriors):
    def __init__(self, N=8, M=12):
        super().__init__(N, M)
        self.gain = nn.Parameter(torch.full((1, M, 1, 1), 6.0))

    def forward(self, x):
        y = self.g_a(x) * self.gain
        z_hat, z_likelihoods = self.entropy_bottleneck(self.h_a(y))
        y_hat = self.gaussian_conditional.quantize(y, "noise" if self.training else "dequantize")
        params = torch.cat((self.h_s(z_hat), self.context_prediction(y_hat)), dim=1)
        scales_hat, means_hat = self.entropy_parameters(params).chunk(2, 1)
        _, y_likelihoods = self.gaussian_conditional(y, scales_hat, means=means_hat)
        return {
            "x_hat": self.g_s(y_hat / self.gain),
            "likelihoods": {"y": y_likelihoods, "z": z_likelihoods},
        }

    def compress(self, x):
        y = self.g_a(x) * self.gain
        z = self.h_a(y)
        z_strings = self.entropy_bottleneck.compress(z)
        z_hat = self.entropy_bottleneck.decompress(z_strings, z.size()[-2:])
        params = self.h_s(z_hat)
        height, width = z_hat.size(2) * 4, z_hat.size(3) * 4
        kernel_size, padding = 5, 2
        y_hat = F.pad(y, (padding, padding, padding, padding))
        y_strings = [
            self._compress_ar(y_hat[i : i + 1], params[i : i + 1], height, width, kernel_size, padding)
            for i in range(y.size(0))
        ]
        return {"strings": [y_strings, z_strings], "shape": z.size()[-2:]}

    def decompress(self, strings, shape):
        z_hat = self.entropy_bottleneck.decompress(strings[1], shape)
        params = self.h_s(z_hat)
        height, width = z_hat.size(2) * 4, z_hat.size(3) * 4
        kernel_size, padding = 5, 2
        y_hat = torch.zeros((z_hat.size(0), self.gain.size(1), height + 2 * padding, width + 2 * padding))
        for i, y_string in enumerate(strings[0]):
            self._decompress_ar(
                y_string, y_hat[i : i + 1], params[i : i + 1], height, width, kernel_size, padding
            )
        y_hat = F.pad(y_hat, (-padding, -padding, -padding, -padding))
        return {"x_hat": self.g_s(y_hat / self.gain).clamp_(0, 1)}
