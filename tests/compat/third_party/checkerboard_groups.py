# In the style of published code: uneven channel groups, each in two checkerboard passes, one stream for all.
import compressai
import torch
from compressai.ans import BufferedRansEncoder, RansDecoder
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.layers import CheckerboardMaskedConv2d, conv1x1
from compressai.models.google import JointAutoregressiveHierarchicalPriors, get_scale_table
from compressai.ops import compute_padding
from torch import nn


class GroupModel(JointAutoregressiveHierarchicalPriors):
    def __init__(self, N=12, M=16, groups=(4, 12), **kwargs):
        super().__init__(N=N, M=M, **kwargs)
        del self.context_prediction, self.entropy_parameters
        self.groups = list(groups)
        assert sum(self.groups) == M
        starts = [sum(self.groups[:i]) for i in range(len(self.groups))]
        self.local_context = nn.ModuleList(
            CheckerboardMaskedConv2d(width, 2 * width, kernel_size=5, padding=2, stride=1)
            for width in self.groups
        )
        self.parameters_of = nn.ModuleList(
            nn.Sequential(
                conv1x1(2 * M + start + 2 * width, 32),
                nn.LeakyReLU(inplace=True),
                conv1x1(32, 2 * width),
            )
            for start, width in zip(starts, self.groups, strict=False)
        )
        self.entropy_bottleneck = EntropyBottleneck(N)
        self.gaussian_conditional = GaussianConditional(None)

    @staticmethod
    def anchors(y):
        mask = torch.zeros_like(y)
        mask[:, :, 0::2, 0::2] = 1
        mask[:, :, 1::2, 1::2] = 1
        return mask

    def two_passes(self, i, params, coded, code):
        """Calls ``code(scales, means, mask)`` for anchors, then for the rest; it returns what is known then."""
        context = torch.zeros_like(params[:, : 2 * self.groups[i]])
        y_hat = 0
        for later in (False, True):
            scales, means = self.parameters_of[i](torch.cat([params, *coded, context], 1)).chunk(2, 1)
            mask = self.anchors(scales)
            mask = 1 - mask if later else mask
            y_hat = y_hat + code(scales, means, mask) * mask
            context = self.local_context[i](y_hat)
        return y_hat

    def forward(self, x):
        y = self.g_a(x)
        z = self.h_a(y)
        z_hat, z_likelihoods = self.entropy_bottleneck(z)
        params = self.h_s(z_hat)
        coded, likelihoods = [], []
        for i, y_i in enumerate(y.split(self.groups, 1)):
            found = []

            def code(scales, means, mask, y_i=y_i, found=found):
                y_hat, likelihood = self.gaussian_conditional(y_i, scales, means)
                found.append((likelihood, mask))
                return y_hat

            coded.append(self.two_passes(i, params, coded, code))
            likelihoods.append(sum(likelihood * mask for likelihood, mask in found))
        return {
            "x_hat": self.g_s(torch.cat(coded, 1)),
            "likelihoods": {"y": torch.cat(likelihoods, 1), "z": z_likelihoods},
        }

    def tables(self):
        conditional = self.gaussian_conditional
        return (
            conditional.quantized_cdf.tolist(),
            conditional.cdf_length.reshape(-1).int().tolist(),
            conditional.offset.reshape(-1).int().tolist(),
        )

    def compress(self, x):
        y = self.g_a(x)
        z = self.h_a(y)
        z_strings = self.entropy_bottleneck.compress(z)
        params = self.h_s(self.entropy_bottleneck.decompress(z_strings, z.size()[-2:]))
        encoder = BufferedRansEncoder()
        coded = []
        for i, y_i in enumerate(y.split(self.groups, 1)):

            def code(scales, means, mask, y_i=y_i):
                here = mask.bool()
                symbols = self.gaussian_conditional.quantize(y_i, "symbols", means)
                indexes = self.gaussian_conditional.build_indexes(scales)
                encoder.encode_with_indexes(symbols[here].tolist(), indexes[here].tolist(), *self.tables())
                return self.gaussian_conditional.dequantize(symbols, means)

            coded.append(self.two_passes(i, params, coded, code))
        return {"strings": [[encoder.flush()], z_strings], "shape": z.size()[-2:]}

    def decompress(self, strings, shape):
        assert isinstance(strings, list)
        assert len(strings) == 2
        params = self.h_s(self.entropy_bottleneck.decompress(strings[1], shape))
        decoder = RansDecoder()
        decoder.set_stream(strings[0][0])
        coded = []
        for i in range(len(self.groups)):

            def code(scales, means, mask):
                here = mask.bool()
                indexes = self.gaussian_conditional.build_indexes(scales)
                symbols = torch.zeros_like(means)
                values = decoder.decode_stream(indexes[here].tolist(), *self.tables())
                symbols[here] = torch.tensor(values, dtype=means.dtype)
                return self.gaussian_conditional.dequantize(symbols, means)

            coded.append(self.two_passes(i, params, coded, code))
        return {"x_hat": self.g_s(torch.cat(coded, 1)).clamp_(0, 1)}

    @classmethod
    def from_state_dict(cls, state_dict):
        net = cls()
        net.load_state_dict(state_dict)
        return net


def padded(x, factor=64):
    pad, unpad = compute_padding(x.size(2), x.size(3), min_div=factor)
    return nn.functional.pad(x, pad), unpad


def setup():
    compressai.set_entropy_coder(compressai.available_entropy_coders()[0])
    return compressai.get_entropy_coder(), get_scale_table().numel()
