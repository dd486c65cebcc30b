# In the style of published code: window attention in the transforms; every slice of channels in two checkerboard
# steps, with the slices before it as context; coded through one encoder in lists.
import torch
import torch.nn as nn
import torch.nn.functional as F
from compressai.ans import BufferedRansEncoder, RansDecoder
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.layers import AttentionBlock, CheckerboardMaskedConv2d, ResidualBlockUpsample, subpel_conv3x3
from compressai.layers import ResidualBlockWithStride as Down
from compressai.models.google import SCALES_LEVELS, SCALES_MAX, SCALES_MIN, CompressionModel, get_scale_table
from compressai.models.utils import conv, deconv
from compressai.ops import quantize_ste
from compressai.registry import register_model


class WindowAttention(nn.Module):
    def __init__(self, dim, window=4, heads=2):
        super().__init__()
        self.window = window
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x):
        B, C, H, W = x.shape
        w = self.window
        t = x.view(B, C, H // w, w, W // w, w).permute(0, 2, 4, 3, 5, 1).reshape(-1, w * w, C)
        n = self.norm1(t)
        t = t + self.attention(n, n, n, need_weights=False)[0]
        t = t + self.mlp(self.norm2(t))
        return t.view(B, H // w, W // w, w, w, C).permute(0, 5, 1, 3, 2, 4).reshape(B, C, H, W)


def ckbd_split(y):
    anchor, nonanchor = torch.zeros_like(y), torch.zeros_like(y)
    anchor[:, :, 0::2, 1::2] = y[:, :, 0::2, 1::2]
    anchor[:, :, 1::2, 0::2] = y[:, :, 1::2, 0::2]
    nonanchor[:, :, 0::2, 0::2] = y[:, :, 0::2, 0::2]
    nonanchor[:, :, 1::2, 1::2] = y[:, :, 1::2, 1::2]
    return anchor, nonanchor


def ckbd_sequeeze(y, anchor):
    """The positions of one colour, half as wide."""
    B, C, H, W = y.shape
    out = torch.zeros(B, C, H, W // 2)
    out[:, :, 0::2], out[:, :, 1::2] = y[:, :, 0::2, anchor::2], y[:, :, 1::2, 1 - anchor :: 2]
    return out


def ckbd_unsequeeze(half, anchor):
    B, C, H, W = half.shape
    out = torch.zeros(B, C, H, 2 * W)
    out[:, :, 0::2, anchor::2], out[:, :, 1::2, 1 - anchor :: 2] = half[:, :, 0::2], half[:, :, 1::2]
    return out


@register_model("context-slices")
class ContextSlices(CompressionModel):
    def __init__(self, N=16, M=24, slice_num=3):
        super().__init__()
        self.slice_num, self.slice_ch = slice_num, M // slice_num
        c = self.slice_ch
        self.g_a = nn.Sequential(
            Down(3, N), WindowAttention(N), Down(N, N), AttentionBlock(N), conv(N, N), conv(N, M)
        )
        self.g_s = nn.Sequential(
            deconv(M, N),
            WindowAttention(N),
            ResidualBlockUpsample(N, N),
            deconv(N, N),
            subpel_conv3x3(N, 3, 2),
        )
        self.h_a = nn.Sequential(
            conv(M, N, stride=1, kernel_size=3), nn.GELU(), conv(N, N), nn.GELU(), conv(N, N)
        )
        self.h_s = nn.Sequential(deconv(N, N), nn.GELU(), deconv(N, N), nn.GELU(), conv(N, 2 * M, 3, 1))
        self.local_context = nn.ModuleList(
            CheckerboardMaskedConv2d(c, 2 * c, kernel_size=5, padding=2, stride=1) for _ in range(slice_num)
        )
        self.channel_context = nn.ModuleList(
            nn.Conv2d(c * i, 2 * c, 3, padding=1) for i in range(1, slice_num)
        )
        self.entropy_parameters = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4 * c + 2 * M, 32, 1), nn.GELU(), nn.Conv2d(32, 2 * c, 1))
            for _ in range(slice_num)
        )
        self.entropy_bottleneck = EntropyBottleneck(N)
        self.gaussian_conditional = GaussianConditional(None)

    def params(self, idx, hyper, slices, anchors=None):
        B, _, H, W = hyper.shape
        empty = torch.zeros(B, 2 * self.slice_ch, H, W)
        local = empty if anchors is None else self.local_context[idx](anchors)
        channel = empty if idx == 0 else self.channel_context[idx - 1](torch.cat(slices, dim=1))
        return self.entropy_parameters[idx](torch.cat([local, channel, hyper], dim=1)).chunk(2, 1)

    def forward(self, x):
        y = self.g_a(x)
        z = self.h_a(y)
        _, z_likelihoods = self.entropy_bottleneck(z)
        z_offset = self.entropy_bottleneck._get_medians()
        hyper = self.h_s(quantize_ste(z - z_offset) + z_offset)
        slices, likelihoods = [], []
        for idx, y_slice in enumerate(y.chunk(self.slice_num, 1)):
            scales_a, means_a = self.params(idx, hyper, slices)
            anchor, _ = ckbd_split(quantize_ste(y_slice - means_a) + means_a)
            scales_n, means_n = self.params(idx, hyper, slices, anchor)
            _, nonanchor = ckbd_split(quantize_ste(y_slice - means_n) + means_n)
            scales = ckbd_split(scales_a)[0] + ckbd_split(scales_n)[1]
            means = ckbd_split(means_a)[0] + ckbd_split(means_n)[1]
            likelihoods.append(self.gaussian_conditional(y_slice, scales, means)[1])
            slices.append(anchor + nonanchor)
        x_hat = self.g_s(torch.cat(slices, 1))
        return {
            "x_hat": x_hat,
            "likelihoods": {"y_likelihoods": torch.cat(likelihoods, 1), "z": z_likelihoods},
        }

    def update(self, scale_table=None, force=False):
        if scale_table is None:
            scale_table = get_scale_table(SCALES_MIN, SCALES_MAX, SCALES_LEVELS)
        updated = self.gaussian_conditional.update_scale_table(scale_table, force=force)
        return updated | super().update(force=force)

    @classmethod
    def from_state_dict(cls, state_dict):
        net = cls(state_dict["g_a.0.conv1.weight"].size(0), state_dict["g_a.5.weight"].size(0))
        net.load_state_dict(state_dict)
        return net

    def tables(self):
        cdf = self.gaussian_conditional.quantized_cdf.tolist()
        cdf_lengths = self.gaussian_conditional.cdf_length.reshape(-1).int().tolist()
        return cdf, cdf_lengths, self.gaussian_conditional.offset.reshape(-1).int().tolist()

    def compress(self, x):
        y = self.g_a(x)
        z = self.h_a(y)
        z_strings = self.entropy_bottleneck.compress(z)
        hyper = self.h_s(self.entropy_bottleneck.decompress(z_strings, z.size()[-2:]))
        encoder, symbols_list, indexes_list, slices = BufferedRansEncoder(), [], [], []
        for idx, y_slice in enumerate(y.chunk(self.slice_num, 1)):
            decoded = None
            for anchor in (1, 0):
                scales, means = self.params(idx, hyper, slices, decoded)
                scales, means = ckbd_sequeeze(scales, anchor), ckbd_sequeeze(means, anchor)
                indexes = self.gaussian_conditional.build_indexes(scales)
                half = self.gaussian_conditional.quantize(ckbd_sequeeze(y_slice, anchor), "symbols", means)
                symbols_list.extend(half.reshape(-1).tolist())
                indexes_list.extend(indexes.reshape(-1).tolist())
                part = ckbd_unsequeeze(half + means, anchor)
                decoded = part if decoded is None else decoded + part
            slices.append(decoded)
        encoder.encode_with_indexes(symbols_list, indexes_list, *self.tables())
        return {"strings": [[encoder.flush()], z_strings], "shape": z.size()[-2:]}

    def decompress(self, strings, shape):
        hyper = self.h_s(self.entropy_bottleneck.decompress(strings[1], shape))
        decoder, slices = RansDecoder(), []
        decoder.set_stream(strings[0][0])
        for idx in range(self.slice_num):
            decoded = None
            for anchor in (1, 0):
                scales, means = self.params(idx, hyper, slices, decoded)
                scales, means = ckbd_sequeeze(scales, anchor), ckbd_sequeeze(means, anchor)
                indexes = self.gaussian_conditional.build_indexes(scales)
                values = decoder.decode_stream(indexes.reshape(-1).tolist(), *self.tables())
                part = ckbd_unsequeeze(torch.Tensor(values).reshape(scales.shape) + means, anchor)
                decoded = part if decoded is None else decoded + part
            slices.append(decoded)
        return {"x_hat": F.hardtanh(self.g_s(torch.cat(slices, 1)), 0, 1)}
