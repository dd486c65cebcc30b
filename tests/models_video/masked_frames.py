"""DCVC-RT written plainly, with masks over the whole latent: what the models are compared with."""

import torch
import torch.nn as nn
import torch.nn.functional as F

P = 192


def wsilu(x):
    return torch.sigmoid(4.0 * x) * x


class WSiLU(nn.Module):
    def forward(self, x):
        return wsilu(x)


class ChunkAdd(nn.Module):
    def forward(self, x):
        x = wsilu(x)
        return x[:, : x.shape[1] // 2] + x[:, x.shape[1] // 2 :]


class Depth(nn.Module):
    def __init__(self, i, o, shortcut=False, force=False):
        super().__init__()
        self.shortcut = shortcut
        if i != o or force:
            self.adaptor = nn.Conv2d(i, o, 1)
        middle = nn.Conv2d(o, o, 3, 1, 1, groups=o)
        self.dc = nn.Sequential(nn.Conv2d(o, o, 1), WSiLU(), middle, nn.Conv2d(o, o, 1))
        self.ffn = nn.Sequential(nn.Conv2d(o, o * 4, 1), ChunkAdd(), nn.Conv2d(o * 2, o, 1))

    def forward(self, x):
        if hasattr(self, "adaptor"):
            x = self.adaptor(x)
        out = self.dc(x) + x
        out = self.ffn(out) + out
        return out + x if self.shortcut else out


class Stride(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.down = nn.Conv2d(i, o, 2, 2)
        self.conv = Depth(o, o, True)

    def forward(self, x):
        return self.conv(self.down(x))


class Subpel(nn.Module):
    def __init__(self, i, o, k, p=0):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(i, o * 4, k, padding=p), nn.PixelShuffle(2))

    def forward(self, x):
        return self.conv(x)


class Upsample(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.up, self.conv = Subpel(i, o, 1), Depth(o, o, True)

    def forward(self, x):
        return self.conv(self.up(x))


class Bit(nn.Module):
    def __init__(self, qps, c, final=False):
        super().__init__()
        for k in "hb" if final else "hba":
            setattr(self, k, nn.Parameter(0.01 * torch.randn(qps, c, 1, 1)))

    def forward(self, x, q):
        x = x * F.softplus(self.h[q : q + 1]) + self.b[q : q + 1]
        return x + torch.tanh(x) * torch.tanh(self.a[q : q + 1]) if hasattr(self, "a") else x


class Bits(nn.Module):
    def __init__(self, qps, c):
        super().__init__()
        self.f1, self.f2, self.f3, self.f4 = Bit(qps, c), Bit(qps, c), Bit(qps, c), Bit(qps, c, True)

    def forward(self, x, q):
        return torch.sigmoid(self.f4(self.f3(self.f2(self.f1(x, q), q), q), q))


def masks(pattern, order, y):
    share = y.shape[1] // len(order)
    out = torch.zeros_like(y)
    for group, name in enumerate(order):
        for r in range(y.shape[2]):
            for c in range(y.shape[3]):
                out[:, group * share : (group + 1) * share, r, c] = pattern[r % 2][c % 2] == name
    return out


# Bounds are stored in single precision.
def likelihood(v, s):
    normal = torch.distributions.Normal(0.0, s.clamp(min=torch.tensor(0.11).item()))
    v = -v.abs()
    return (normal.cdf(v + 0.5) - normal.cdf(v - 0.5)).clamp(min=torch.tensor(1e-9).item())


class Coder(nn.Module):
    def quantised(self, z, q):
        z_hat = torch.round(z).clamp(-128, 127)
        mass = self.bit_estimator_z(z_hat + 0.5, q) - self.bit_estimator_z(z_hat - 0.5, q)
        bits = -torch.log2(mass.clamp(min=1e-9)).sum()
        return z_hat, bits

    def pad(self, y):
        return F.pad(y, (0, -y.shape[3] % 4, 0, -y.shape[2] % 4), mode="replicate")

    def process(self, y, scales, means, mask):
        res = torch.round((y - means * mask) * mask).clamp(-128, 127)
        self.bits_y = self.bits_y - (torch.log2(likelihood(res, scales)) * mask).sum()
        return res + means * mask


class Intra(Coder):
    def __init__(self, N, Z, D):
        super().__init__()
        self.bit_estimator_z = Bits(64, Z)
        self.enc, self.dec = nn.Module(), nn.Module()
        self.enc.enc_1 = Depth(P, D)
        self.enc.enc_2 = nn.Sequential(*[Depth(D, D) for _ in range(6)], nn.Conv2d(D, N, 3, 2, 1))
        self.hyper_enc = nn.Sequential(Depth(N, Z), Stride(Z, Z), Stride(Z, Z))
        self.hyper_dec = nn.Sequential(Upsample(Z, Z), Upsample(Z, Z), Depth(Z, N))
        W = N * 2
        self.y_prior_fusion = nn.Sequential(Depth(N, W), Depth(W, W), Depth(W, W), nn.Conv2d(W, W + 2, 1))
        self.y_spatial_prior_reduction = nn.Conv2d(W + 2, N, 1)
        self.y_spatial_prior_adaptor_1 = Depth(W, W, force=True)
        self.y_spatial_prior_adaptor_2 = Depth(W, W, force=True)
        self.y_spatial_prior_adaptor_3 = Depth(W, W, force=True)
        self.y_spatial_prior = nn.Sequential(Depth(W, W), Depth(W, W), Depth(W, W), nn.Conv2d(W, W, 1))
        self.dec.dec_1 = nn.Sequential(Upsample(N, D), *[Depth(D, D) for _ in range(12)])
        self.dec.dec_2 = Depth(D, P)
        self.q_scale_enc = nn.Parameter(torch.ones(64, D, 1, 1))
        self.q_scale_dec = nn.Parameter(torch.ones(64, D, 1, 1))

    def forward(self, x, q):
        self.bits_y = 0
        y = self.enc.enc_2(self.enc.enc_1(F.pixel_unshuffle(x, 8)) * self.q_scale_enc[q : q + 1])
        z_hat, bits_z = self.quantised(self.hyper_enc(self.pad(y)), q)
        params = self.y_prior_fusion(self.hyper_dec(z_hat))[:, :, : y.shape[2], : y.shape[3]]
        q_enc, q_dec = (torch.sigmoid(params[:, :2]) * 1.5 + 0.5).chunk(2, 1)
        scales, means = params[:, 2:].chunk(2, 1)
        common = self.y_spatial_prior_reduction(params)
        y = y * q_enc
        so_far = self.process(y, scales, means, masks(("ab", "cd"), "abcd", y))
        for k, order in enumerate(("dcba", "cdab", "badc"), 1):
            adapted = getattr(self, f"y_spatial_prior_adaptor_{k}")(torch.cat((so_far, common), 1))
            scales, means = self.y_spatial_prior(adapted).chunk(2, 1)
            so_far = so_far + self.process(y, scales, means, masks(("ab", "cd"), order, y))
        out = self.dec.dec_2(self.dec.dec_1(so_far * q_dec) * self.q_scale_dec[q : q + 1])
        return F.pixel_shuffle(out, 8), self.bits_y, bits_z


class Named(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.conv = nn.Sequential(*layers)

    def forward(self, x):
        return self.conv(x)


class Inter(Coder):
    def __init__(self, N, Z, D, R):
        super().__init__()
        self.bit_estimator_z = Bits(72, Z)
        self.feature_adaptor_i, self.feature_adaptor_p = Depth(P, D), nn.Conv2d(D, D, 1)
        e, d, f, g = (nn.Module() for _ in range(4))
        f.conv1 = nn.Sequential(Depth(D, D), Depth(D, D))
        f.conv2 = nn.Sequential(Depth(D, D), Depth(D, D), Depth(D, D), Depth(D, D))
        e.conv1, e.conv2 = nn.Conv2d(P, D, 1), nn.Sequential(Depth(D * 2, D), Depth(D, D))
        e.conv3, e.down = Depth(D, D), nn.Conv2d(D, N, 3, 2, 1)
        d.up, d.conv1 = Subpel(N, D, 3, 1), nn.Sequential(Depth(D * 2, D), Depth(D, D), Depth(D, D))
        d.conv2 = nn.Conv2d(D, D, 1)
        g.conv = nn.Sequential(Depth(D, R), Depth(R, R), Depth(R, R), Depth(R, R))
        g.head = nn.Conv2d(R, P, 1)
        self.encoder, self.decoder, self.feature_extractor, self.recon_generation_net = e, d, f, g
        self.hyper_encoder = Named(Depth(N, Z), Stride(Z, Z), Stride(Z, Z))
        self.hyper_decoder = Named(Upsample(Z, Z), Upsample(Z, Z), Depth(Z, N))
        self.temporal_prior_encoder = Stride(D, N * 2)
        T = N * 3
        self.y_prior_fusion = Named(Depth(T, T), Depth(T, T), Depth(T, T), nn.Conv2d(T, T, 1))
        self.y_spatial_prior = Named(Depth(N * 4, T), Depth(T, T), nn.Conv2d(T, N * 2, 1))
        for name, width in (("encoder", D), ("decoder", D), ("feature", D), ("recon", R)):
            setattr(self, f"q_{name}", nn.Parameter(torch.ones(72, width, 1, 1)))

    def forward(self, x, q, frame=None, feature=None):
        self.bits_y = 0
        s = slice(q, q + 1)
        if feature is None:
            known = self.feature_adaptor_i(F.pixel_unshuffle(frame, 8))
        else:
            known = self.feature_adaptor_p(feature)
        x1 = self.feature_extractor.conv1(known)
        ctx_t, ctx = x1 * self.q_feature[s], self.feature_extractor.conv2(x1)
        out = self.encoder.conv2(torch.cat((self.encoder.conv1(F.pixel_unshuffle(x, 8)), ctx), 1))
        y = self.encoder.down(self.encoder.conv3(out) * self.q_encoder[s])
        z_hat, bits_z = self.quantised(self.hyper_encoder(self.pad(y)), q)
        hyper = self.hyper_decoder(z_hat)[:, :, : y.shape[2], : y.shape[3]]
        params = self.y_prior_fusion(torch.cat((hyper, self.temporal_prior_encoder(ctx_t)), 1))
        q_dec, scales, means = params.chunk(3, 1)
        q_dec = torch.clamp_min(q_dec, 0.5)
        y = y * (1 / q_dec)
        first = self.process(y, scales, means, masks(("ab", "ba"), "ab", y))
        scales, means = self.y_spatial_prior(torch.cat((first, params), 1)).chunk(2, 1)
        y_hat = (first + self.process(y, scales, means, masks(("ab", "ba"), "ba", y))) * q_dec
        out = self.decoder.conv1(torch.cat((self.decoder.up(y_hat), ctx), 1))
        feature = self.decoder.conv2(out) * self.q_decoder[s]
        out = self.recon_generation_net.head(self.recon_generation_net.conv(feature) * self.q_recon[s])
        return F.pixel_shuffle(out, 8).clamp(0, 1), feature, self.bits_y, bits_z
