# In the style of published code: entropy models of one's own, derived from the library's.
import math

import torch
import torch.nn as nn
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.entropy_models.entropy_models import EntropyModel
from compressai.layers import GDN
from compressai.models import CompressionModel, get_scale_table
from compressai.models.utils import conv, deconv, update_registered_buffers
from compressai.ops import ste_round


class LaplacianConditional(GaussianConditional):
    """Another density under the same tables."""

    def _standardized_cumulative(self, inputs):
        half = 0.5 * torch.exp(-torch.abs(inputs) * math.sqrt(2))
        return torch.where(inputs < 0, half, 1 - half)

    @staticmethod
    def _standardized_quantile(quantile):
        return math.log(2 * quantile) / math.sqrt(2)

    def update(self):
        multiplier = -self._standardized_quantile(self.tail_mass / 2)
        pmf_center = torch.ceil(self.scale_table * multiplier).int()
        pmf_length = 2 * pmf_center + 1
        max_length = torch.max(pmf_length).item()
        samples = torch.abs(torch.arange(max_length).int() - pmf_center[:, None]).float()
        samples_scale = self.scale_table.unsqueeze(1).float()
        upper = self._standardized_cumulative((0.5 - samples) / samples_scale)
        lower = self._standardized_cumulative((-0.5 - samples) / samples_scale)
        pmf = upper - lower
        tail_mass = 2 * lower[:, :1]
        quantized_cdf = torch.Tensor(len(pmf_length), max_length + 2)
        quantized_cdf = self._pmf_to_cdf(pmf, tail_mass, pmf_length, max_length)
        self._quantized_cdf = quantized_cdf
        self._offset = -pmf_center
        self._cdf_length = pmf_length + 2

    def compress(self, inputs, indexes, means=None):
        symbols = self._quantize(inputs, "symbols", means)
        self._check_cdf_size()
        self._check_cdf_length()
        self._check_offsets_size()
        cdf, lengths, offsets = self._quantized_cdf, self._cdf_length, self._offset
        return [
            self.entropy_coder.encode_with_indexes(
                symbols[i].reshape(-1).int().tolist(),
                indexes[i].reshape(-1).int().tolist(),
                cdf.tolist(),
                lengths.reshape(-1).int().tolist(),
                offsets.reshape(-1).int().tolist(),
            )
            for i in range(symbols.size(0))
        ]

    def decompress(self, strings, indexes, dtype=torch.float, means=None):
        cdf = self._quantized_cdf
        outputs = cdf.new_empty(indexes.size())
        for i, s in enumerate(strings):
            values = self.entropy_coder.decode_with_indexes(
                s,
                indexes[i].reshape(-1).int().tolist(),
                cdf.tolist(),
                self._cdf_length.reshape(-1).int().tolist(),
                self._offset.reshape(-1).int().tolist(),
            )
            outputs[i] = torch.tensor(values, dtype=outputs.dtype).reshape(outputs[i].size())
        return self.dequantize(outputs, means, dtype)


def code_side_information(entropy_bottleneck, z):
    """What a bottleneck does, step by step, by way of its parent class."""
    indexes = entropy_bottleneck._build_indexes(z.size())
    medians = entropy_bottleneck._get_medians().detach()
    spatial_dims = len(z.size()) - 2
    medians = entropy_bottleneck._extend_ndims(medians, spatial_dims)
    medians = medians.expand(z.size(0), *([-1] * (spatial_dims + 1)))
    strings = EntropyModel.compress(entropy_bottleneck, z, indexes, medians)
    z_hat = EntropyModel.decompress(entropy_bottleneck, strings, indexes, medians.dtype, medians)
    return strings, z_hat


class LaplacianHyperprior(CompressionModel):
    def __init__(self, N=12, M=16):
        super().__init__()
        self.entropy_bottleneck = EntropyBottleneck(N)
        self.gaussian_conditional = LaplacianConditional(None)
        self.g_a = nn.Sequential(conv(3, N), GDN(N), conv(N, N), GDN(N), conv(N, M))
        self.g_s = nn.Sequential(
            deconv(M, N), GDN(N, inverse=True), deconv(N, N), GDN(N, inverse=True), deconv(N, 3)
        )
        self.h_a = nn.Sequential(conv(M, N, stride=1, kernel_size=3), nn.LeakyReLU(), conv(N, N))
        self.h_s = nn.Sequential(deconv(N, N), nn.LeakyReLU(), conv(N, 2 * M, stride=1, kernel_size=3))
        self.N, self.M = N, M

    def forward(self, x):
        y = self.g_a(x)
        z = self.h_a(y)
        _, z_likelihoods = self.entropy_bottleneck(z)
        z_offset = self.entropy_bottleneck._get_medians()
        z_hat = ste_round(z - z_offset) + z_offset
        scales_hat, means_hat = self.h_s(z_hat).chunk(2, 1)
        _, y_likelihoods = self.gaussian_conditional(y, scales_hat, means=means_hat)
        y_hat = ste_round(y - means_hat) + means_hat
        return {"x_hat": self.g_s(y_hat), "likelihoods": {"y": y_likelihoods, "z": z_likelihoods}}

    def load_state_dict(self, state_dict, strict=True):
        update_registered_buffers(
            self.gaussian_conditional,
            "gaussian_conditional",
            ["_quantized_cdf", "_offset", "_cdf_length", "scale_table"],
            state_dict,
        )
        super().load_state_dict(state_dict, strict=strict)

    @classmethod
    def from_state_dict(cls, state_dict):
        net = cls(state_dict["g_a.0.weight"].size(0), state_dict["g_a.4.weight"].size(0))
        net.load_state_dict(state_dict)
        return net

    def update(self, scale_table=None, force=False):
        if scale_table is None:
            scale_table = get_scale_table()
        updated = self.gaussian_conditional.update_scale_table(scale_table, force=force)
        updated |= super().update(force=force)
        return updated

    def compress(self, x):
        y = self.g_a(x)
        z_strings, z_hat = code_side_information(self.entropy_bottleneck, self.h_a(y))
        assert z_strings == self.entropy_bottleneck.compress(self.h_a(y))
        scales_hat, means_hat = self.h_s(z_hat).chunk(2, 1)
        indexes = self.gaussian_conditional.build_indexes(scales_hat)
        y_strings = self.gaussian_conditional.compress(y, indexes, means=means_hat)
        return {"strings": [y_strings, z_strings], "shape": z_hat.size()[-2:]}

    def decompress(self, strings, shape):
        assert len(strings) == 2
        z_hat = self.entropy_bottleneck.decompress(strings[1], shape)
        scales_hat, means_hat = self.h_s(z_hat).chunk(2, 1)
        indexes = self.gaussian_conditional.build_indexes(scales_hat)
        y_hat = self.gaussian_conditional.decompress(strings[0], indexes, means=means_hat)
        return {"x_hat": self.g_s(y_hat).clamp_(0, 1)}
