"""The default model: one set of weights for all qualities, made for a CPU.

What decides which table a symbol is coded with (the hyper-scale network) reads nothing but the integers of
``z`` and consists of convolutions, ReLU and PixelShuffle, so that it converts to exact integer arithmetic.
Everything else may be computed in any precision on any device without endangering a file.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from latens.entropy_models.gaussian import SCALES_LEVELS, SCALES_MAX, SCALES_MIN
from latens.errors import ModelError
from latens.layers.depthconv import DepthConvBlock
from latens.ops import quantize_ste

__all__ = ["LatensBase", "LatensBaseConfig", "LogisticMixturePrior"]

_LOG_SCALE_STEP = math.log(SCALES_MAX / SCALES_MIN) / (SCALES_LEVELS - 1)
_LIKELIHOOD_BOUND = 1e-9
_SQRT_HALF = math.sqrt(0.5)
# Unit of the features of g_a and g_s, relative to orthonormal transform coefficients of pixels in 0..1.
STREAM_SCALE = 8.0


@dataclass(frozen=True)
class LatensBaseConfig:
    """Sizes of a :class:`LatensBase`. Saved beside the weights.

    Attributes:
        N: channels at 1/8 resolution.
        M: channels of the latent y at 1/16 resolution.
        inner: channels inside the blocks at 1/16 resolution.
        hyper: channels of z at 1/64 resolution.
        analysis_blocks, synthesis_blocks: number of blocks at (1/8, 1/16) in g_a and g_s.
        knots: qualities that have gains and a prior for z of their own.
        lambda_min, lambda_max: weight of the squared error (0..255 scale) at both ends of the quality range.
    """

    N: int = 128
    M: int = 320
    inner: int = 192
    hyper: int = 128
    analysis_blocks: tuple[int, int] = (4, 2)
    synthesis_blocks: tuple[int, int] = (5, 2)
    knots: int = 16
    lambda_min: float = 0.00036
    lambda_max: float = 0.22

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LatensBaseConfig":
        """The inverse of :meth:`to_dict`."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    def __post_init__(self) -> None:
        # The configuration comes from files too; nothing is allocated before it is found sane.
        sizes = (self.N, self.M, self.inner, self.hyper, self.knots)
        blocks = (*self.analysis_blocks, *self.synthesis_blocks)
        sane = (
            all(type(n) is int and 2 <= n <= 1024 for n in sizes)
            and len(self.analysis_blocks) == len(self.synthesis_blocks) == 2
            and all(type(n) is int and 0 <= n <= 64 for n in blocks)
            and 0.0 < self.lambda_min < self.lambda_max < 1e4
        )
        if not sane:
            raise ModelError(f"model configuration: a size is out of range in {self}")


class _Bounded(torch.autograd.Function):
    """Clamp from both sides; the gradient passes where it leads back into the range."""

    @staticmethod
    def forward(ctx: Any, t: Tensor, upper: float) -> Tensor:
        ctx.save_for_backward(t)
        ctx.upper = upper
        return t.clamp(0.0, upper)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (t,) = ctx.saved_tensors
        (grad,) = grads
        keep = ((t >= 0) | (grad < 0)) & ((t <= ctx.upper) | (grad > 0))
        return grad * keep, None


class LogisticMixturePrior(nn.Module):
    """Factorised prior of z: for each quality knot and channel a mixture of three logistic distributions.

    One shape per channel is shared by all knots; each knot adds its own offsets, which start at zero.

    Args:
        knots: number of quality knots.
        channels: channels of z.
    """

    MIXTURES = 3

    def __init__(self, knots: int, channels: int) -> None:
        super().__init__()
        k = self.MIXTURES
        self.mean = nn.Parameter(torch.linspace(-2.0, 2.0, k).repeat(channels, 1))
        self.log_scale = nn.Parameter(torch.full((channels, k), math.log(1.5)))
        self.logit = nn.Parameter(torch.zeros(channels, k))
        self.delta = nn.Parameter(torch.zeros(knots, 3, channels, k))

    def _cdf(self, z: Tensor, knot: Tensor) -> Tensor:
        mean = (self.mean + self.delta[knot, 0])[:, :, None, None]
        inv_scale = torch.exp(-(self.log_scale + self.delta[knot, 1]).clamp(-3.0, 5.0))[:, :, None, None]
        weight = torch.softmax(self.logit + self.delta[knot, 2], dim=-1)[:, :, None, None]
        return (torch.sigmoid((z[..., None] - mean) * inv_scale) * weight).sum(-1)

    def forward(self, z: Tensor, knot: Tensor) -> Tensor:
        """Probability of the unit interval around each z.

        Args:
            z: ``(B, C, H, W)``, any real values.
            knot: ``(B,)`` int64, the quality knot of each sample.

        Returns:
            Likelihoods in (0, 1], the shape of ``z``.
        """
        return (self._cdf(z + 0.5, knot) - self._cdf(z - 0.5, knot)).clamp_min(_LIKELIHOOD_BOUND)


def first_step_mask(y: Tensor) -> Tensor:
    """True where a position of y ``(B, C, H, W)`` belongs to the first context step: ``(1, C, H, W)``.

    The first half of the channels comes first on one colour of a checkerboard, the second half on the other.
    """
    channels, height, width = y.shape[1:]
    rows = torch.arange(height, device=y.device)[:, None]
    cols = torch.arange(width, device=y.device)[None, :]
    even = (rows + cols) % 2 == 0
    first = torch.arange(channels, device=y.device)[:, None, None] < channels // 2
    return torch.where(first, even, ~even)[None]


def _conv3(n_in: int, n_out: int) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, padding=1)


class LatensBase(nn.Module):
    r"""Variable-rate hyperprior with a two-step mean context, in depthwise-separable blocks.

    .. code-block:: none

        x ─ unshuffle 8 ─ g_a ── * gain(q) ── y ── round around mean ── y_hat ── / gain(q) ─ g_s ─ x_hat
                                              │                          ▲
                                             h_a ── z ── round ── z_hat ─┼─ h_scale (integers) ─ table index
                                                                         └─ h_mean ─ context ─── mean

    The hyperprior is that of Ballé et al. (ICLR 2018), the mean prediction that of Minnen et al. (NeurIPS 2018),
    the two coding steps over channel halves and checkerboard that of Li et al. (CVPR 2023, DCVC-DC), the gain
    vectors that of Cui et al. (CVPR 2021), the block that of Jia et al. (CVPR 2025, DCVC-RT).

    Shapes: x ``(B, 3, H, W)`` in 0..1, H and W multiples of 64; y ``(B, M, H/16, W/16)``;
    z ``(B, hyper, H/64, W/64)``. Quality is a real number in 0..1 per sample: lambda is log-spaced between
    ``lambda_min`` and ``lambda_max``, and everything that depends on it is interpolated between ``knots`` knots,
    except the prior of z, which takes the nearest knot.
    """

    channel_scale: Tensor

    def __init__(self, config: LatensBaseConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LatensBaseConfig()
        N, M, inner, Z, K = config.N, config.M, config.inner, config.hyper, config.knots
        blocks8 = [DepthConvBlock(N) for _ in range(config.analysis_blocks[0])]
        blocks16 = [DepthConvBlock(M, inner) for _ in range(config.analysis_blocks[1])]
        self.g_a = nn.Sequential(
            nn.PixelUnshuffle(8), nn.Conv2d(192, N, 1), *blocks8,
            nn.PixelUnshuffle(2), nn.Conv2d(4 * N, M, 1), *blocks16,
        )  # fmt: skip
        blocks16 = [DepthConvBlock(M, inner) for _ in range(config.synthesis_blocks[1])]
        blocks8 = [DepthConvBlock(N) for _ in range(config.synthesis_blocks[0])]
        self.g_s = nn.Sequential(*blocks16, nn.Conv2d(M, 4 * N, 1), nn.PixelShuffle(2), *blocks8)
        self.g_s_out = nn.Sequential(nn.Conv2d(N, 192, 1), nn.PixelShuffle(8))
        self.log_gain = nn.Parameter(torch.zeros(K, M))
        self.log_inverse_gain = nn.Parameter(torch.zeros(K, M))
        self.out_scale = nn.Parameter(torch.ones(K, N))

        self.h_a = nn.Sequential(
            nn.Conv2d(M, inner, 1), DepthConvBlock(inner),
            nn.PixelUnshuffle(2), nn.Conv2d(4 * inner, inner, 1), DepthConvBlock(inner),
            nn.PixelUnshuffle(2), nn.Conv2d(4 * inner, Z, 1),
        )  # fmt: skip
        self.z_offset = nn.Parameter(torch.zeros(K, Z))
        self.prior = LogisticMixturePrior(K, Z)
        self.h_scale = nn.Sequential(
            _conv3(Z, 192), nn.ReLU(), nn.Conv2d(192, 4 * 160, 1), nn.ReLU(), nn.PixelShuffle(2),
            _conv3(160, 160), nn.ReLU(), nn.Conv2d(160, 4 * 128, 1), nn.ReLU(), nn.PixelShuffle(2),
            _conv3(128, 96), nn.ReLU(), nn.Conv2d(96, M, 1),
        )  # fmt: skip
        self.h_mean = nn.Sequential(
            _conv3(Z, inner), DepthConvBlock(inner),
            nn.Conv2d(inner, 4 * inner, 1), nn.PixelShuffle(2), DepthConvBlock(inner),
            nn.Conv2d(inner, 4 * inner, 1), nn.PixelShuffle(2), DepthConvBlock(inner),
        )  # fmt: skip
        self.mean_0 = nn.Conv2d(inner, M, 1)
        self.context = nn.Sequential(
            nn.Conv2d(M + inner, inner, 1), DepthConvBlock(inner), DepthConvBlock(inner)
        )
        self.mean_1 = nn.Conv2d(inner, M, 1)
        # Typical strength of each channel of the features that y is made of.
        self.register_buffer("channel_scale", torch.ones(1, M, 1, 1))
        for conv in (self.mean_0, self.mean_1):
            _fill(conv, torch.zeros_like(conv.weight), torch.zeros(M))
        self._initialise_levels(torch.ones(M))

    # -- initial values ------------------------------------------------------------------------------------

    @torch.no_grad()
    def _initialise_levels(self, sigma: Tensor) -> None:
        """Set gains and scale predictions for latent channels of standard deviation ``sigma`` (0..1 pixels)."""
        c = self.config
        lmbda = torch.logspace(math.log10(c.lambda_min), math.log10(c.lambda_max), c.knots)
        # Where rate falls by one bit per halved step (high rate), the best step is sqrt(26 / lambda).
        level = torch.log(255.0 / torch.sqrt(26.0 / lmbda))
        self.log_gain.copy_((level - math.log(STREAM_SCALE))[:, None].expand_as(self.log_gain))
        self.log_inverse_gain.copy_(-self.log_gain)
        middle = level.mean() + torch.log(sigma) - math.log(SCALES_MIN)
        last = cast(nn.Conv2d, self.h_scale[-1])
        _fill(last, 8.0 * last.weight, (middle / _LOG_SCALE_STEP).clamp(2.0, SCALES_LEVELS - 3.0))
        # Let one channel of z carry the quality from the start, at no cost.
        self.z_offset[:, 0] = torch.linspace(-8.0, 8.0, c.knots)
        self.prior.delta[:, 0, 0, :] = torch.linspace(-8.0, 8.0, c.knots)[:, None]

    @torch.no_grad()
    def initialise_from_patches(self, patches: Tensor) -> None:
        """Start as a transform codec: the linear path becomes the Karhunen-Loève transform of ``patches``.

        The features along the path are the transform's coefficients times ``STREAM_SCALE``: optimisers move
        weights by a fixed amount, and a residual branch must not disturb coefficients that have to be
        precise to a fraction of a grey level. What enters a branch is whitened by its initial weights.

        Args:
            patches: ``(n, 3, 16, 16)`` in 0..1, from training photographs only, n at least some thousands.
        """
        c = self.config
        blocks = F.pixel_unshuffle(patches.double() - 0.5, 8)
        basis8, sigma8 = _klt(blocks.permute(0, 2, 3, 1).reshape(-1, 192), c.N)
        packed = F.pixel_unshuffle(torch.einsum("nchw,ck->nkhw", blocks, basis8), 2).flatten(1)
        basis16, sigma16 = _klt(packed, c.M)
        head, down = self.g_a[1], self.g_a[3 + c.analysis_blocks[0]]
        up, out = self.g_s[c.synthesis_blocks[1]], self.g_s_out[0]
        for conv, weight in (
            (head, basis8.T * STREAM_SCALE), (down, basis16.T), (up, basis16), (out, basis8),
        ):  # fmt: skip
            _fill(cast(nn.Conv2d, conv), weight[:, :, None, None], torch.zeros(len(weight)))
        for part in (self.g_a, self.g_s):
            for block in part:
                if isinstance(block, DepthConvBlock):
                    sigma = sigma8 if block.pw_in.in_channels == c.N else sigma16
                    # Weak channels are mostly noise: not amplified beyond a point.
                    whiten = 1.0 / (STREAM_SCALE * (sigma.float() + 0.05))
                    block.pw_in.weight.mul_(whiten[:, None, None])
                    block.ffn_in.weight.mul_(whiten[:, None, None])
        self.channel_scale.copy_((STREAM_SCALE * sigma16.float()).clamp_min(0.05)[None, :, None, None])
        self._initialise_levels(sigma16.float())

    # -- quality -------------------------------------------------------------------------------------------

    def lmbda(self, quality: Tensor) -> Tensor:
        """Weight of the mean squared error (0..255 scale, against bits per pixel) at each quality in 0..1."""
        c = self.config
        return c.lambda_min * (c.lambda_max / c.lambda_min) ** quality

    def nearest_knot(self, quality: Tensor) -> Tensor:
        """The knot whose prior of z is used at each quality: int64, the shape of ``quality``."""
        return torch.round(quality * (self.config.knots - 1)).long()

    def _at_quality(self, table: Tensor, quality: Tensor) -> Tensor:
        """Rows of ``table`` (knots, C) interpolated at ``quality`` (B,): ``(B, C, 1, 1)``."""
        position = quality * (self.config.knots - 1)
        low = position.floor().clamp(0, self.config.knots - 2).long()
        fraction = (position - low)[:, None].to(table.dtype)
        return torch.lerp(table[low], table[low + 1], fraction)[:, :, None, None]

    def gain(self, quality: Tensor) -> Tensor:
        """Factor from features to units of the quantiser: ``(B, M, 1, 1)``."""
        return torch.exp(self._at_quality(self.log_gain, quality))

    def inverse_gain(self, quality: Tensor) -> Tensor:
        """Factor from units of the quantiser to features: ``(B, M, 1, 1)``."""
        return torch.exp(self._at_quality(self.log_inverse_gain, quality))

    @torch.no_grad()
    def with_range(self, lambda_min: float, lambda_max: float) -> "LatensBase":
        """The same networks over another range of lambda: what belongs to a lambda stays with it.

        Beyond the range of today, gains go on as at its end, and everything else stays as it is there: something to
        train on from, not a finished model.

        Args:
            lambda_min, lambda_max: as in :class:`LatensBaseConfig`.

        Raises:
            ModelError: no range.
        """
        old = self.config
        other = LatensBase(replace(old, lambda_min=lambda_min, lambda_max=lambda_max))
        last = old.knots - 1
        wanted = torch.linspace(math.log(lambda_min), math.log(lambda_max), old.knots, dtype=torch.float64)
        span = math.log(old.lambda_max / old.lambda_min)
        place = (wanted - math.log(old.lambda_min)) / span * last
        state = self.state_dict()
        for name in ("log_gain", "log_inverse_gain", "z_offset", "out_scale", "prior.delta"):
            table = state[name].float()
            at = place if name in ("log_gain", "log_inverse_gain") else place.clamp(0, last)
            low = at.floor().clamp(0, last - 1).long().to(table.device)
            share = (at.to(table.device) - low).to(table.dtype).view(-1, *[1] * (table.dim() - 1))
            state[name] = table[low] + (table[low + 1] - table[low]) * share
        other.load_state_dict(state)
        return other

    # -- the parts -----------------------------------------------------------------------------------------

    def features(self, x: Tensor) -> Tensor:
        """x ``(B, 3, H, W)`` to what y is made of at any quality: ``(B, M, H/16, W/16)`` float32."""
        features: Tensor = self.g_a(x - 0.5).float()
        return features

    def analyse(self, x: Tensor, quality: Tensor) -> Tensor:
        """x ``(B, 3, H, W)`` to y ``(B, M, H/16, W/16)`` in units of the quantiser."""
        return self.features(x) * self.gain(quality)

    def hyper_analyse(self, y: Tensor, quality: Tensor) -> Tensor:
        """y to z ``(B, hyper, H/64, W/64)``, not yet rounded. asinh tames the dynamic range of y."""
        z: Tensor = self.h_a(asinh(y)).float() + self._at_quality(self.z_offset, quality)
        return z

    def means(self, z_hat: Tensor) -> Tensor:
        """Features that the means are predicted from: ``(B, inner, H/16, W/16)``."""
        features: Tensor = self.h_mean(z_hat)
        return features

    def first_mean(self, features: Tensor, quality: Tensor) -> Tensor:
        """Mean of the positions coded first, from the hyperprior alone (given for all positions)."""
        return in_float32(self.mean_0, features) * (self.channel_scale * self.gain(quality))

    def second_mean(self, features: Tensor, y_first: Tensor, quality: Tensor) -> Tensor:
        """Mean of the positions coded second, given ``y_first`` (zero elsewhere)."""
        known = y_first * (self.inverse_gain(quality) / self.channel_scale)
        u = torch.cat([known, features], dim=1)
        return in_float32(self.mean_1, self.context(u)) * (self.channel_scale * self.gain(quality))

    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """y_hat to x_hat ``(B, 3, H, W)``, not clamped."""
        features = self.g_s(y_hat * self.inverse_gain(quality))
        scale = self._at_quality(self.out_scale, quality) / STREAM_SCALE
        x_hat: Tensor = self.g_s_out(features * scale.to(features.dtype)).float() + 0.5
        return x_hat

    # -- training ------------------------------------------------------------------------------------------

    def forward(
        self, x: Tensor, quality: Tensor, *, noise: bool = True, autocast: bool = False
    ) -> dict[str, Any]:
        """One training pass.

        Args:
            x: ``(B, 3, H, W)`` in 0..1, H and W multiples of 64.
            quality: ``(B,)`` in 0..1.
            noise: gradients of the rate reach latents and means through uniform noise in place of rounding. What
                predicts probabilities always learns from rounded latents, and these are what is returned. (What
                enters g_s, context and hyper-synthesis is rounded, with straight-through gradients.)
            autocast: run the networks in bfloat16, except for the last layers of those that predict means and
                scales. Latents, means, scales and likelihoods stay in float32.

        Returns:
            ``{"x_hat": (B, 3, H, W), "likelihoods": {"y": ..., "z": ...}}``.
        """
        low_precision = torch.autocast(x.device.type, torch.bfloat16, enabled=autocast)
        with low_precision:
            y = self.analyse(x, quality)
            z = self.hyper_analyse(y, quality)
            z_hat = quantize_ste(z)
            index = in_float32(self.h_scale[-1], self.h_scale[:-1](z_hat))
            features = self.means(z_hat)
        z_likelihoods = likelihoods_of_z(self.prior, z, z_hat, self.nearest_knot(quality), noise=noise)
        first = first_step_mask(y)
        mean = self.first_mean(features, quality)
        y_first = (quantize_ste(y - mean) + mean) * first
        with low_precision:
            second = self.second_mean(features, y_first, quality)
        mean = torch.where(first, mean, second)
        residual = y - mean
        y_hat = quantize_ste(residual) + mean
        y_likelihoods = likelihoods_of_y(residual, index, noise=noise)
        with low_precision:
            x_hat = self.synthesise(y_hat, quality)
        return {"x_hat": x_hat, "likelihoods": {"y": y_likelihoods, "z": z_likelihoods}}


def likelihoods_of_z(
    prior: LogisticMixturePrior, z: Tensor, z_hat: Tensor, knot: Tensor, *, noise: bool
) -> Tensor:
    """Probabilities of z for training: the prior learns from rounded values, z from noisy ones.

    Args:
        prior: of z.
        z, z_hat: ``(B, C, h, w)``, as it is and rounded with straight-through gradients.
        knot: ``(B,)`` int64.
        noise: whether gradients reach z through uniform noise; through ``z_hat`` if not.
    """
    likelihoods: Tensor = prior(z_hat.detach() if noise else z_hat, knot)
    if not noise:
        return likelihoods
    frozen = {name: parameter.detach() for name, parameter in prior.named_parameters()}
    return _with_gradient_of(likelihoods, functional_call(prior, frozen, (z + _noise(z), knot)))


def likelihoods_of_y(residual: Tensor, index: Tensor, *, noise: bool) -> Tensor:
    """Probabilities of y around its means for training: scales learn from rounded values, y from noisy ones.

    Args:
        residual: y less its mean, ``(B, M, H, W)``.
        index: of its tables, not yet bounded.
        noise: whether gradients reach y and its means through uniform noise; none do if not.
    """
    bounded: Tensor = _Bounded.apply(index, SCALES_LEVELS - 1.0)  # type: ignore[no-untyped-call]
    log_scale = log_scale_of(bounded)
    likelihoods = gaussian_likelihood(torch.round(residual).detach(), log_scale)
    if not noise:
        return likelihoods
    return _with_gradient_of(
        likelihoods, gaussian_likelihood(residual + _noise(residual), log_scale.detach())
    )


def _noise(x: Tensor) -> Tensor:
    """Uniform noise of a quantiser's width, shaped like x."""
    return torch.empty_like(x).uniform_(-0.5, 0.5)


def _with_gradient_of(likelihoods: Tensor, noisy: Tensor) -> Tensor:
    """``likelihoods``, whose logarithm has its own gradient and that of ``noisy`` besides."""
    log = torch.log(noisy)
    return likelihoods * torch.exp(log - log.detach())


def in_float32(layer: nn.Module, x: Tensor) -> Tensor:
    """Run one layer outside autocast: its result has to be precise relative to the quantiser's step."""
    with torch.autocast(x.device.type, enabled=False):
        out: Tensor = layer(x.float())
    return out


def asinh(y: Tensor) -> Tensor:
    """Inverse hyperbolic sine, as precise as ``torch.asinh``, which takes five times as long on CPUs."""
    a = y.abs()
    return torch.copysign(torch.log1p(a + a * a / (1.0 + torch.sqrt(1.0 + a * a))), y)


def log_scale_of(index: Tensor) -> Tensor:
    """Logarithm of the scale that a table index, whole or not, stands for."""
    return index * _LOG_SCALE_STEP + math.log(SCALES_MIN)


def gaussian_likelihood(value: Tensor, log_scale: Tensor) -> Tensor:
    """Probability of the unit interval around ``value`` under a zero-mean Gaussian of scale exp(log_scale)."""
    inv = torch.exp(-log_scale) * _SQRT_HALF
    value = value.abs()
    # erfc of the far side keeps the relative precision of small tails.
    upper = torch.erfc((value - 0.5) * inv)
    lower = torch.erfc((value + 0.5) * inv)
    return (0.5 * (upper - lower)).clamp_min(_LIKELIHOOD_BOUND)


@torch.no_grad()
def _fill(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    conv.weight.copy_(weight)
    if conv.bias is not None:
        conv.bias.copy_(bias)


def _klt(rows: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Leading eigenvectors (dim, keep) and standard deviations (keep,) of zero-mean ``rows`` (n, dim)."""
    values, vectors = torch.linalg.eigh(rows.T @ rows / rows.shape[0])
    values, vectors = values.flip(0)[:keep], vectors.flip(1)[:, :keep]
    return vectors, values.clamp_min(1e-12).sqrt()
