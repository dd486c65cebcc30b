# In the style of published code: channel slices with latent residual prediction, symbols collected in lists.
import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from compressai.ans import BufferedRansEncoder, RansDecoder
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.layers import (
    ResidualBlock,
    ResidualBlockUpsample,
    ResidualBlockWithStride,
    conv3x3,
    subpel_conv3x3,
)
from compressai.models import CompressionModel
from compressai.ops import quantize_ste as ste_round

SCALES_MIN = 0.11
SCALES_MAX = 256
SCALES_LEVELS = 64


def get_scale_table(min=SCALES_MIN, max=SCALES_MAX, levels=SCALES_LEVELS):
    return torch.exp(torch.linspace(math.log(min), math.log(max), levels))


def resize_buffers(module, module_name, buffer_names, state_dict):
    """Most published models bring a copy of this along."""
    if not module:
        return
    buffers = dict(module.named_buffers())
    for name in buffer_names:
        if name not in buffers:
            raise ValueError(f'Invalid buffer name "{name}"')
        if buffers[name].numel() == 0:
            buffers[name].resize_(state_dict[f"{module_name}.{name}"].size())


def support(channels_in, channels_out):
    return nn.Sequential(
        nn.Conv2d(channels_in, 32, 3, padding=1), nn.GELU(), nn.Conv2d(32, channels_out, 3, padding=1)
    )


class SliceModel(CompressionModel):
    def __init__(self, N=16, M=20, num_slices=5, max_support_slices=2, **kwargs):
        super().__init__(entropy_bottleneck_channels=N)
        self.num_slices = num_slices
        self.max_support_slices = max_support_slices
        self.M = M
        width = M // num_slices

        self.g_a = nn.Sequential(
            ResidualBlockWithStride(3, N, 2),
            ResidualBlock(N, N),
            ResidualBlockWithStride(N, N, 2),
            ResidualBlockWithStride(N, N, 2),
            conv3x3(N, M, stride=2),
        )
        self.g_s = nn.Sequential(
            ResidualBlockUpsample(M, N, 2),
            ResidualBlock(N, N),
            ResidualBlockUpsample(N, N, 2),
            ResidualBlockUpsample(N, N, 2),
            subpel_conv3x3(N, 3, 2),
        )
        self.h_a = nn.Sequential(
            conv3x3(M, N), nn.GELU(), conv3x3(N, N, stride=2), nn.GELU(), conv3x3(N, N, stride=2)
        )
        self.h_mean_s = nn.Sequential(subpel_conv3x3(N, N, 2), nn.GELU(), subpel_conv3x3(N, M, 2))
        self.h_scale_s = nn.Sequential(subpel_conv3x3(N, N, 2), nn.GELU(), subpel_conv3x3(N, M, 2))

        def supports(extra):
            return nn.ModuleList(
                support(M + width * (min(i, max_support_slices) + extra), width) for i in range(num_slices)
            )

        self.cc_mean_transforms = supports(0)
        self.cc_scale_transforms = supports(0)
        self.lrp_transforms = supports(1)
        self.entropy_bottleneck = EntropyBottleneck(N)
        self.gaussian_conditional = GaussianConditional(None)

    def update(self, scale_table=None, force=False):
        if scale_table is None:
            scale_table = get_scale_table()
        updated = self.gaussian_conditional.update_scale_table(scale_table, force=force)
        updated |= super().update(force=force)
        return updated

    def forward(self, x):
        y = self.g_a(x)
        y_shape = y.shape[2:]
        z = self.h_a(y)
        _, z_likelihoods = self.entropy_bottleneck(z)
        z_offset = self.entropy_bottleneck._get_medians()
        z_tmp = z - z_offset
        z_hat = ste_round(z_tmp) + z_offset

        latent_scales = self.h_scale_s(z_hat)
        latent_means = self.h_mean_s(z_hat)

        y_hat_slices = []
        y_likelihood = []
        for slice_index, y_slice in enumerate(y.chunk(self.num_slices, 1)):
            support_slices = y_hat_slices[: self.max_support_slices]
            mean_support = torch.cat([latent_means, *support_slices], dim=1)
            mu = self.cc_mean_transforms[slice_index](mean_support)
            mu = mu[:, :, : y_shape[0], : y_shape[1]]
            scale_support = torch.cat([latent_scales, *support_slices], dim=1)
            scale = self.cc_scale_transforms[slice_index](scale_support)
            scale = scale[:, :, : y_shape[0], : y_shape[1]]
            _, y_slice_likelihood = self.gaussian_conditional(y_slice, scale, mu)
            y_likelihood.append(y_slice_likelihood)
            y_hat_slice = ste_round(y_slice - mu) + mu
            lrp = self.lrp_transforms[slice_index](torch.cat([mean_support, y_hat_slice], dim=1))
            y_hat_slice = y_hat_slice + 0.5 * torch.tanh(lrp)
            y_hat_slices.append(y_hat_slice)

        y_hat = torch.cat(y_hat_slices, dim=1)
        x_hat = self.g_s(y_hat)
        return {
            "x_hat": x_hat,
            "likelihoods": {"y": torch.cat(y_likelihood, dim=1), "z": z_likelihoods},
            "para": {"y": y},
        }

    def load_state_dict(self, state_dict):
        resize_buffers(
            self.gaussian_conditional,
            "gaussian_conditional",
            ["_quantized_cdf", "_offset", "_cdf_length", "scale_table"],
            state_dict,
        )
        super().load_state_dict(state_dict)

    @classmethod
    def from_state_dict(cls, state_dict):
        net = cls(16, 20)
        net.load_state_dict(state_dict)
        return net

    def compress(self, x):
        y = self.g_a(x)
        y_shape = y.shape[2:]
        z = self.h_a(y)
        z_strings = self.entropy_bottleneck.compress(z)
        z_hat = self.entropy_bottleneck.decompress(z_strings, z.size()[-2:])
        latent_scales = self.h_scale_s(z_hat)
        latent_means = self.h_mean_s(z_hat)

        y_hat_slices = []
        cdf = self.gaussian_conditional.quantized_cdf.tolist()
        cdf_lengths = self.gaussian_conditional.cdf_length.reshape(-1).int().tolist()
        offsets = self.gaussian_conditional.offset.reshape(-1).int().tolist()

        encoder = BufferedRansEncoder()
        symbols_list = []
        indexes_list = []
        y_strings = []
        for slice_index, y_slice in enumerate(y.chunk(self.num_slices, 1)):
            support_slices = y_hat_slices[: self.max_support_slices]
            mean_support = torch.cat([latent_means, *support_slices], dim=1)
            mu = self.cc_mean_transforms[slice_index](mean_support)
            mu = mu[:, :, : y_shape[0], : y_shape[1]]
            scale_support = torch.cat([latent_scales, *support_slices], dim=1)
            scale = self.cc_scale_transforms[slice_index](scale_support)
            scale = scale[:, :, : y_shape[0], : y_shape[1]]

            index = self.gaussian_conditional.build_indexes(scale)
            y_q_slice = self.gaussian_conditional.quantize(y_slice, "symbols", mu)
            y_hat_slice = y_q_slice + mu
            symbols_list.extend(y_q_slice.reshape(-1).tolist())
            indexes_list.extend(index.reshape(-1).tolist())

            lrp = self.lrp_transforms[slice_index](torch.cat([mean_support, y_hat_slice], dim=1))
            y_hat_slices.append(y_hat_slice + 0.5 * torch.tanh(lrp))

        encoder.encode_with_indexes(symbols_list, indexes_list, cdf, cdf_lengths, offsets)
        y_strings.append(encoder.flush())
        return {"strings": [y_strings, z_strings], "shape": z.size()[-2:]}

    def decompress(self, strings, shape):
        z_hat = self.entropy_bottleneck.decompress(strings[1], shape)
        latent_scales = self.h_scale_s(z_hat)
        latent_means = self.h_mean_s(z_hat)
        y_shape = [z_hat.shape[2] * 4, z_hat.shape[3] * 4]
        y_string = strings[0][0]

        y_hat_slices = []
        cdf = self.gaussian_conditional.quantized_cdf.tolist()
        cdf_lengths = self.gaussian_conditional.cdf_length.reshape(-1).int().tolist()
        offsets = self.gaussian_conditional.offset.reshape(-1).int().tolist()

        decoder = RansDecoder()
        decoder.set_stream(y_string)
        for slice_index in range(self.num_slices):
            support_slices = y_hat_slices[: self.max_support_slices]
            mean_support = torch.cat([latent_means, *support_slices], dim=1)
            mu = self.cc_mean_transforms[slice_index](mean_support)
            mu = mu[:, :, : y_shape[0], : y_shape[1]]
            scale_support = torch.cat([latent_scales, *support_slices], dim=1)
            scale = self.cc_scale_transforms[slice_index](scale_support)
            scale = scale[:, :, : y_shape[0], : y_shape[1]]

            index = self.gaussian_conditional.build_indexes(scale)
            rv = decoder.decode_stream(index.reshape(-1).tolist(), cdf, cdf_lengths, offsets)
            rv = torch.Tensor(rv).reshape(1, -1, y_shape[0], y_shape[1])
            y_hat_slice = self.gaussian_conditional.dequantize(rv, mu)

            lrp = self.lrp_transforms[slice_index](torch.cat([mean_support, y_hat_slice], dim=1))
            y_hat_slices.append(y_hat_slice + 0.5 * torch.tanh(lrp))

        x_hat = self.g_s(torch.cat(y_hat_slices, dim=1)).clamp_(0, 1)
        return {"x_hat": F.relu(x_hat)}
