# In the style of published code for hierarchical contexts (HPCM): masks of the whole latent, sums of masked chunks,
# one string for all steps, tables and parameters of z as buffers and parameters of the model itself.
import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from compressai._CXX import pmf_to_quantized_cdf
from compressai.ans import BufferedRansEncoder, RansDecoder
from compressai.ops import LowerBound

PATTERNS = [
    ("1000", "0000", "0010", "0000"),
    ("0010", "0000", "1000", "0000"),
    ("0000", "0100", "0000", "0001"),
    ("0000", "0001", "0000", "0100"),
    ("0100", "0000", "0001", "0000"),
    ("0001", "0000", "0100", "0000"),
    ("0000", "1000", "0000", "0010"),
    ("0000", "0010", "0000", "1000"),
]
ORDERS = ["02461357", "13570246", "24603571", "35712460", "46025713", "57134602", "60247135", "71356024"]


def tiled(rows, height, width):
    cell = torch.tensor([[int(c) for c in row] for row in rows])
    return cell.repeat(height // len(rows), width // len(rows[0])).bool()


def stack(masks, batch, channels):
    """One mask for each share of the channels, ``(B, C, H, W)``."""
    share = channels // len(masks)
    return torch.cat([m.expand(batch, share, *m.shape) for m in masks], dim=1)


class Partial(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.pconv = nn.Conv2d(n // 4, n // 4, 3, 1, 1)

    def forward(self, x):
        a, b = torch.split(x, [x.shape[1] // 4, x.shape[1] - x.shape[1] // 4], dim=1)
        return torch.cat((self.pconv(a), b), 1)


class Residual(nn.Module):
    def __init__(self, first, n, ratio):
        super().__init__()
        self.branch = nn.Sequential(
            first, nn.Conv2d(n, n * ratio, 1), nn.LeakyReLU(), nn.Conv2d(n * ratio, n, 1)
        )

    def forward(self, x):
        return x + self.branch(x)


def partial(n):
    return Residual(Partial(n), n, 4)


def depthwise(n):
    return Residual(nn.Conv2d(n, n, 3, 1, 1, groups=n), n, 2)


class Branch(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.branch = nn.Sequential(*layers)

    def forward(self, x):
        return self.branch(x)


def down(i, o, k=2):
    return nn.Conv2d(i, o, k, 2, (k - 2) // 2)


def up(i, o, k=2):
    return nn.ConvTranspose2d(i, o, k, 2, (k - 2) // 2)


class Prior(nn.Module):
    def __init__(self, M, before, behind):
        super().__init__()
        self.branch_1 = nn.Sequential(*[depthwise(3 * M) for _ in range(before)])
        self.branch_2 = nn.Sequential(*[depthwise(3 * M) for _ in range(behind)], nn.Conv2d(3 * M, 2 * M, 1))

    def forward(self, x, gain):
        return self.branch_2(self.branch_1(x) * gain)


class Cross(nn.Module):
    def __init__(self, dim, window, heads=32):
        super().__init__()
        self.window, self.heads = window, heads
        self.conv_q, self.conv_k = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1)
        self.conv_v, self.conv_out = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1)

    def forward(self, x, h):
        B, C, H, W = x.shape
        w = self.window

        def cut(t):
            t = t.view(B, C, H // w, w, W // w, w).permute(0, 2, 4, 1, 3, 5)
            return t.reshape(-1, self.heads, C // self.heads, w * w).transpose(2, 3)

        q, k, v = cut(self.conv_q(x)), cut(self.conv_k(h)), cut(self.conv_v(h))
        a = F.softmax(q @ k.transpose(2, 3) / math.sqrt(C // self.heads), dim=-1) @ v
        a = a.transpose(2, 3).reshape(B, H // w, W // w, C, w, w).permute(0, 3, 1, 4, 2, 5).reshape(x.shape)
        return a + self.conv_out(x)


class Density(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale_lower_bound, self.likelihood_lower_bound = LowerBound(0.12), LowerBound(1e-9)
        self.register_buffer("beta", torch.tensor([1.5]))

    def cdf(self, v):
        return (1 + v.sign() * torch.special.gammainc(1 / self.beta, v.abs() ** self.beta)) / 2

    def mass(self, v, scales):
        scales = self.scale_lower_bound(scales)
        return self.cdf((v + 0.5) / scales) - self.cdf((v - 0.5) / scales)

    def forward(self, v, scales):
        return self.likelihood_lower_bound(self.mass(v, scales))

    def tables(self, scales):
        scales = self.scale_lower_bound(scales)
        # Of 1e-6 outside: found with scipy.stats.gennorm.ppf(5e-7, 1.5).
        center = torch.ceil(scales * 5.42691097558631).int()
        lengths = 2 * center + 1
        samples = (torch.arange(int(lengths.max())).int() - center[:, None]).float()
        upper = self.cdf((samples + 0.5) / scales[:, None])
        lower = self.cdf((samples - 0.5) / scales[:, None])
        pmf, tail = upper - lower, lower[:, :1] + (1 - upper[:, -1:])
        rows = []
        for p, t, n in zip(pmf, tail, lengths.tolist(), strict=True):
            rows.append(pmf_to_quantized_cdf(torch.cat((p[:n], t)).tolist(), 16))
        return rows, (lengths + 2).tolist(), (-center).tolist()


class Hierarchical(nn.Module):
    def __init__(
        self, N=256, M=320, dims=(96, 192, 384), depths=(2, 2, 4), prior=((2, 1), (3, 2)), gains=True
    ):
        super().__init__()
        a, b, c = dims
        d, e, f = depths
        self.means_hyper = nn.Parameter(torch.zeros(1, N, 1, 1))
        self.scales_hyper = nn.Parameter(torch.ones(1, N, 1, 1))
        for k in ("quantized_cdf", "cdf_length", "offset"):
            self.register_buffer(k + "_z", torch.Tensor())
            self.register_buffer(k + "_y", torch.Tensor())
        self.register_buffer("scale_table", torch.Tensor())
        self.entropy_estimation = Density()
        A, B, C = ([partial(n) for _ in range(m)] for n, m in ((a, d), (b, e), (c, f)))
        self.g_a = Branch(down(3, a, 4), *A, down(a, b), *B, down(b, c), *C, down(c, M))
        A, B, C = ([partial(n) for _ in range(m)] for n, m in ((a, d), (b, e), (c, f)))
        self.g_s = Branch(up(M, c), *C, up(c, b), *B, up(b, a), *A, up(a, 3, 4))
        self.h_a = Branch(partial(M), down(M, N), partial(N), partial(N), partial(N), down(N, N))
        self.h_s = Branch(up(N, N), partial(N), partial(N), partial(N), up(N, 2 * M), partial(2 * M))
        for k, n in ((1, 1), (2, 3), (3, 6)):
            adaptors = nn.ModuleList(nn.Conv2d(3 * M, 3 * M, 1) for _ in range(n))
            setattr(self, f"y_spatial_prior_adaptor_list_s{k}", adaptors)
        self.y_spatial_prior_s1_s2, self.y_spatial_prior_s3 = Prior(M, *prior[0]), Prior(M, *prior[1])
        steps = [torch.ones(1, 3 * M, 1, 1) for _ in range(10)]
        if gains:
            self.adaptive_params_list = nn.ParameterList(nn.Parameter(s) for s in steps)
        else:
            self.adaptive_params_list = steps
        self.attn_s1, self.attn_s2, self.attn_s3 = Cross(2 * M, 4), Cross(2 * M, 8), Cross(2 * M, 8)
        self.context_net = nn.ModuleList(nn.Conv2d(2 * M, 2 * M, 1) for _ in range(2))

    # Every step is a generator's turn: it says where and with what parameters, and is told what was decoded.
    def steps(self, params):
        B, C2, H, W = params.shape
        M = C2 // 2
        eight = [tiled(p, H, W) for p in PATTERNS]
        first, second = ([eight[int(k)] for k in ORDERS[i]] for i in (0, 1))
        at2 = stack([m | n for m, n in zip(first, second, strict=True)], B, M)
        only = [tiled([row if i < 2 else "0000" for i, row in enumerate(p)], H, W) for p in PATTERNS]
        at1 = stack([only[int(k)] for k in ORDERS[0]], B, M)
        four = [tiled(p, H // 2, W // 2) for p in (("10", "00"), ("01", "00"), ("00", "10"), ("00", "01"))]
        half = stack(four, B, M)

        def scatter(values, mask):
            out = torch.zeros(mask.shape, dtype=params.dtype)
            out[mask] = values.reshape(-1)
            return out

        def thin(x):
            return x[at2].view(B, M, H // 2, W // 2)

        def thinner(x):
            return thin(x)[half].view(B, M, H // 4, W // 4)

        scales, means = params.chunk(2, 1)
        context = torch.cat((thinner(scales), thinner(means)), 1)
        even = tiled(("10", "01"), H // 4, W // 4)
        mask = stack([even, ~even], B, M)
        y_hat = yield thinner, mask, 2, *context.chunk(2, 1)
        found = self.y_spatial_prior_s1_s2(
            self.y_spatial_prior_adaptor_list_s1[0](torch.cat((context, y_hat), 1)),
            self.adaptive_params_list[0],
        )
        context = self.attn_s1(found, context)
        y_hat = y_hat + (yield thinner, ~mask, 2, *found.chunk(2, 1))

        def hyper(x):
            out = torch.zeros(half.shape, dtype=x.dtype)
            out[~half] = x[at2 & ~at1]
            return out

        context = torch.cat([scatter(t, half) for t in context.chunk(2, 1)], 1)
        context = self.context_net[0](context + torch.cat((hyper(scales), hyper(means)), 1))
        y_hat = scatter(y_hat, half)
        for i, order in enumerate(("3210", "2301", "1032")):
            adapted = self.y_spatial_prior_adaptor_list_s2[i - 1](torch.cat((context, y_hat), 1))
            found = self.y_spatial_prior_s1_s2(adapted, self.adaptive_params_list[i + 1])
            context = self.attn_s2(found, context)
            mask = stack([four[int(k)] for k in order], B, M)
            y_hat = y_hat + (yield thin, mask, 4, *found.chunk(2, 1))
        context = torch.cat(
            [scatter(t, at2) + s * ~at2 for t, s in zip(context.chunk(2, 1), (scales, means), strict=True)], 1
        )
        context = self.context_net[1](context)
        y_hat = scatter(y_hat, at2)
        for i, order in enumerate(ORDERS[2:]):
            adapted = self.y_spatial_prior_adaptor_list_s3[i - 1](torch.cat((context, y_hat), 1))
            found = self.y_spatial_prior_s3(adapted, self.adaptive_params_list[i + 4])
            context = self.attn_s3(found, context)
            mask = stack([eight[int(k)] for k in order], B, M)
            y_hat = y_hat + (yield (lambda x: x), mask, 8, *found.chunk(2, 1))
        return y_hat

    def run(self, params, code):
        steps = self.steps(params)
        answer = None
        while True:
            try:
                answer = code(*steps.send(answer))
            except StopIteration as end:
                return end.value

    def forward(self, x):
        y = self.g_a(x)
        z = self.h_a(y)
        z_res = torch.round(z - self.means_hyper)
        bits = []

        def code(at, mask, chunks, scales, means):
            res = torch.round((at(y) - means * mask) * mask)
            bits.append(self.entropy_estimation(res, scales * mask)[mask].log2().sum())
            return res + means * mask

        y_hat = self.run(self.h_s(z_res + self.means_hyper), code)
        bits_z = self.entropy_estimation(z_res, self.scales_hyper).log2().sum()
        return {"x_hat": self.g_s(y_hat), "bits": {"y": -sum(bits), "z": -bits_z}}

    def update(self):
        self.scale_table = torch.exp(torch.linspace(math.log(0.12), math.log(64), 60))
        density = Density()
        with torch.no_grad():
            self.tables_z = density.tables(self.scales_hyper.float().view(-1))
            self.tables_y = density.tables(self.scale_table)

    def indexes(self, scales):
        return (scales.unsqueeze(-1) > self.scale_table[:-1]).sum(-1).flatten().tolist()

    def indexes_z(self, size):
        N = self.means_hyper.shape[1]
        return torch.arange(N).view(-1, 1, 1).expand(N, *size).flatten().tolist()

    @torch.no_grad()
    def compress(self, x):
        y = self.g_a(x)
        z = self.h_a(y)
        z_res = torch.round(z - self.means_hyper)
        encoder_z, encoder = BufferedRansEncoder(), BufferedRansEncoder()
        encoder_z.encode_with_indexes(
            z_res.int().flatten().tolist(), self.indexes_z(z.shape[2:]), *self.tables_z
        )

        def code(at, mask, chunks, scales, means):
            res = torch.round((at(y) - means * mask) * mask)
            symbols, s = sum(res.chunk(chunks, 1)), sum((scales * mask).chunk(chunks, 1))
            encoder.encode_with_indexes(symbols.int().flatten().tolist(), self.indexes(s), *self.tables_y)
            return res + means * mask

        self.run(self.h_s(z_res + self.means_hyper), code)
        return {"strings": [[encoder.flush()], [encoder_z.flush()]], "shape": z.shape[2:]}

    @torch.no_grad()
    def decompress(self, strings, shape):
        decoder = RansDecoder()
        decoder.set_stream(strings[1][0])
        z_res = torch.tensor(decoder.decode_stream(self.indexes_z(shape), *self.tables_z))
        z_hat = z_res.view(1, -1, *shape) + self.means_hyper
        decoder.set_stream(strings[0][0])

        def code(at, mask, chunks, scales, means):
            s = sum((scales * mask).chunk(chunks, 1))
            symbols = torch.tensor(decoder.decode_stream(self.indexes(s), *self.tables_y)).view(s.shape)
            return (torch.cat([symbols] * chunks, 1) + means) * mask

        return {"x_hat": self.g_s(self.run(self.h_s(z_hat), code)).clamp_(0, 1)}
