"""Latents from coarse to fine, with a context that goes on from step to step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from latens.entropy_models import GeneralizedBottleneck, GeneralizedGaussianConditional
from latens.errors import ModelError
from latens.latent_codecs.shares import HALVES, Offset, blank, every, fill, select
from latens.latent_codecs.steps import Step
from latens.layers import conv1x1
from latens.layers.attention import attend_in_windows
from latens.models.stepwise import Named, StepwiseModel, count_in
from latens.ops.fast_convolutions import in_strips

__all__ = ["HPCM", "HPCMLarge"]

_HEADS = 32

# -- where things lie ---------------------------------------------------------------------------------------------

_WHOLES: tuple[Offset, ...] = ((0, 0), (1, 1), (0, 1), (1, 0)) * 2
"""Of every 2x2 positions at full resolution, the one that is at half of it, for each eighth of the channels."""


def _quads(*order: int) -> list[list[Offset]]:
    return [[HALVES[k]] for k in order]


def _octets(*order: int) -> list[list[Offset]]:
    """Eighths of the channels in squares of 4x4: two positions each, in this order of pairs."""
    pairs: list[list[Offset]] = []
    for row, column in _WHOLES[:4]:
        pairs.append([(row, column), (row + 2, column + 2)])
        pairs.append([(row, column + 2), (row + 2, column)])
    return [[(r % 4, c % 4) for r, c in pairs[k]] for k in order]


_EVEN: list[Offset] = [(0, 0), (1, 1)]
_ODD: list[Offset] = [(0, 1), (1, 0)]

_COARSE = [[_EVEN, _ODD], [_ODD, _EVEN]]
_MIDDLE = [_quads(3, 2, 1, 0), _quads(2, 3, 0, 1), _quads(1, 0, 3, 2)]
_FINE = [
    _octets(2, 4, 6, 0, 3, 5, 7, 1),
    _octets(3, 5, 7, 1, 2, 4, 6, 0),
    _octets(4, 6, 0, 2, 5, 7, 1, 3),
    _octets(5, 7, 1, 3, 4, 6, 0, 2),
    _octets(6, 0, 2, 4, 7, 1, 3, 5),
    _octets(7, 1, 3, 5, 6, 0, 2, 4),
]
"""For each step and each share of the channels, the positions of it that are coded."""


def thin(x: Tensor, offsets: Sequence[Offset]) -> Tensor:
    """Half the resolution, ``(B, C, H/2, W/2)``: one position of four for each share of the channels."""
    parts = [every(x, k, len(offsets), offset, 2) for k, offset in enumerate(offsets)]
    return torch.cat(parts, dim=1)


def put(x: Tensor, into: Tensor, offsets: Sequence[Offset]) -> Tensor:
    """Undo :func:`thin`: write ``x`` over one position of four; returns ``into``."""
    for k, (offset, part) in enumerate(zip(offsets, x.chunk(len(offsets), 1), strict=True)):
        every(into, k, len(offsets), offset, 2).copy_(part)
    return into


def rest_of_side(side: Tensor) -> Tensor:
    """Side parameters of what is coded at half the resolution, ``(B, C, H, W)`` to ``(B, C, H/2, W/2)``.

    Of every 2x2 positions three are new. Published weights have learned them in the order in which they were copied
    while training, where the gap is not the same on both sides: values follow each other over two rows.
    """
    thinned = thin(side, _WHOLES)
    out = torch.zeros_like(thinned)
    eighth = side.shape[1] // 8
    for k in range(8):
        channels = slice(k * eighth, (k + 1) * eighth)
        source, target = thinned[:, channels], out[:, channels]
        # What is left out of the source is in the first row of two, in an even or an odd column.
        first, second = source[:, :, 0::2, (1 if k < 4 else 0) :: 2], source[:, :, 1::2]
        values = torch.cat((first, second), dim=3)
        row, column = HALVES[k // 2]
        width = first.shape[3]
        if row == 0:
            target[:, :, 0::2, 1 - column :: 2].copy_(values[..., :width])
            target[:, :, 1::2].copy_(values[..., width:])
        else:
            target[:, :, 0::2].copy_(values[..., : 2 * width])
            target[:, :, 1::2, 1 - column :: 2].copy_(values[..., 2 * width :])
    return out


# -- networks -----------------------------------------------------------------------------------------------------


class _PartialConv(nn.Module):
    """3x3 convolution of the first quarter of the channels; the others stay.

    Chen, Kao, He, Zhuo, Wen, Lee, Chan, "Run, don't walk: Chasing higher FLOPS for faster neural networks", CVPR 2023.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pconv = nn.Conv2d(dim // 4, dim // 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        own = self.pconv.in_channels
        return torch.cat((self.pconv(x[:, :own]), x[:, own:]), dim=1)


class _Block(nn.Module):
    """Positions mixed, then channels in a wider layer, and a shortcut."""

    def __init__(self, dim: int, mix: nn.Module, ratio: int) -> None:
        super().__init__()
        self._wide = ratio * dim
        act = nn.LeakyReLU(inplace=True)
        self.branch = nn.Sequential(mix, conv1x1(dim, self._wide), act, conv1x1(self._wide, dim))

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            out: Tensor = self.branch(x)
            return out.add_(x)
        # What is wide never leaves the cache.
        values = self._wide * x.shape[2] * x.shape[3]
        return in_strips(self.branch[1:], self.branch[0](x), 0, 1, values).add_(x)


def _partial(dim: int) -> nn.Module:
    return _Block(dim, _PartialConv(dim), 4)


def _depthwise(dim: int) -> nn.Module:
    return _Block(dim, nn.Conv2d(dim, dim, 3, padding=1, groups=dim), 2)


def _half(in_ch: int, out_ch: int, kernel: int = 2) -> nn.Module:
    return nn.Conv2d(in_ch, out_ch, kernel, stride=2, padding=kernel // 2 - 1)


def _double(in_ch: int, out_ch: int, kernel: int = 2) -> nn.Module:
    return nn.ConvTranspose2d(in_ch, out_ch, kernel, stride=2, padding=kernel // 2 - 1)


class _Prior(nn.Module):
    """From what is known to scales and means: ``(B, 3 M, H, W)`` to ``(B, 2 M, H, W)``; each step has its own gain."""

    def __init__(self, M: int, before: int, behind: int) -> None:
        super().__init__()
        self.branch_1 = nn.Sequential(*(_depthwise(3 * M) for _ in range(before)))
        self.branch_2 = nn.Sequential(*(_depthwise(3 * M) for _ in range(behind)), conv1x1(3 * M, 2 * M))

    def forward(self, x: Tensor, gain: Tensor | None) -> Tensor:
        x = self.branch_1(x)
        out: Tensor = self.branch_2(x if gain is None else x * gain)
        return out


class _Fusion(nn.Module):
    """The context of a step looks at that of the step before, within windows."""

    def __init__(self, dim: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.conv_q, self.conv_k = conv1x1(dim, dim), conv1x1(dim, dim)
        self.conv_v, self.conv_out = conv1x1(dim, dim), conv1x1(dim, dim)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """``(B, dim, H, W)`` both, shape kept."""
        embedded = torch.cat((self.conv_q(x), self.conv_k(before), self.conv_v(before)), dim=1)
        found = attend_in_windows(embedded.permute(0, 2, 3, 1), None, _HEADS, self.window, None)
        out: Tensor = self.conv_out(x)
        return out + found.permute(0, 3, 1, 2)


# -- names of checkpoints -----------------------------------------------------------------------------------------

_NAMES = {
    "scale_table": "entropy_estimation.scale_table",
    "entropy_estimation.scale_lower_bound.bound": "entropy_estimation.lower_bound_scale.bound",
    **{
        f"quantized_cdf_{k}": f"{own}._quantized_cdf"
        for k, own in (("z", "hyper"), ("y", "entropy_estimation"))
    },
    **{f"cdf_length_{k}": f"{own}._cdf_length" for k, own in (("z", "hyper"), ("y", "entropy_estimation"))},
    **{f"offset_{k}": f"{own}._offset" for k, own in (("z", "hyper"), ("y", "entropy_estimation"))},
}
"""What checkpoints call the buffers, and what they are called here."""


def _saved(module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    for theirs, own in _NAMES.items():
        state[prefix + theirs] = state.pop(prefix + own)


def _attached(module: Any, *_: Any) -> None:
    # Saving makes what tables are missing.
    _ = module._bottleneck


def _loaded(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for theirs, own in _NAMES.items():
        if prefix + theirs in state:
            value = state.pop(prefix + theirs)
            # Tables that are not there yet are of no particular type.
            empty = isinstance(value, Tensor) and value.numel() == 0
            state[prefix + own] = value.int() if empty and "._" in own else value


class HPCM(StepwiseModel):
    """A latent coded at a quarter, at half and at full resolution, in 2, 3 and 6 steps.

    .. code-block:: none

        step:  context, y_hat so far ──► adaptor ──► prior (x gain) ──► scales, means ──► part of y_hat
                  ▲                                                        │
                  └────────── attention within windows (fusion) ◄──────────┘   (for the next step)

        from one resolution to the next: context ──► to its positions, side parameters at the others ──► context_net

    The rest of the data flow: :class:`latens.models.stepwise.StepwiseModel`; densities are generalised Gaussians. At
    each resolution all steps share one prior. ``x`` is ``(B, 3, H, W)`` with values from 0 to 1, sides multiples of 64
    (published weights have seen multiples of 256: others have windows that stick out, filled with zeros); ``y``,
    scales and means ``(B, M, H/16, W/16)``, ``z`` ``(B, N, H/64, W/64)``.

    Li, Zhang, Li, Liu, "Learned image compression with hierarchical progressive context modeling", ICCV 2025.

    Args:
        N: channels of z.
        M: channels of the latent, a multiple of 16.
        dims: channels of the transforms at a half, a quarter and an eighth of the resolution, multiples of 4.
        depths: blocks at these resolutions.
        prior: blocks before and behind the gain, of the two coarser resolutions, and of the finest.
        gains: whether each step has its own; without, they are 1.
        fusion: whether contexts look at those before; without, each is the context of the next step.

    Raises:
        ModelError: sizes that do not divide each other.
    """

    inexact = (
        "its contexts look at each other by attention, whose exponentials docs/entropy.md has no integers for; use its "
        "compress() and decompress(), on one machine"
    )

    _PRIOR: tuple[tuple[int, int], tuple[int, int]] = ((2, 1), (3, 2))
    """What tells the sizes apart."""

    _scales = (0.12, 64, 60)

    def __init__(
        self,
        N: int = 256,
        M: int = 320,
        dims: Sequence[int] = (96, 192, 384),
        depths: Sequence[int] = (2, 2, 4),
        prior: Sequence[Sequence[int]] | None = None,
        gains: bool = True,
        fusion: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        prior = self._PRIOR if prior is None else prior
        if M % 16 or N % 4 or any(dim % 4 for dim in dims):
            raise ModelError(f"M must be a multiple of 16, N and dims of 4, not {M}, {N} and {tuple(dims)}")
        if len(dims) != 3 or len(depths) != 3 or [len(p) for p in prior] != [2, 2]:
            raise ModelError(
                f"dims and depths are three numbers each, prior two pairs: {dims}, {depths}, {prior}"
            )
        self.N, self.M, self.dims, self.depths = N, M, tuple(dims), tuple(depths)
        self.means_hyper = nn.Parameter(torch.zeros(1, N, 1, 1))
        self.scales_hyper = nn.Parameter(torch.ones(1, N, 1, 1))

        def blocks(level: int) -> list[nn.Module]:
            return [_partial(dims[level]) for _ in range(depths[level])]

        a, b, c = dims
        down = [_half(3, a, 4), *blocks(0), _half(a, b), *blocks(1), _half(b, c), *blocks(2), _half(c, M)]
        up = [
            _double(M, c),
            *blocks(2),
            _double(c, b),
            *blocks(1),
            _double(b, a),
            *blocks(0),
            _double(a, 3, 4),
        ]
        self.g_a, self.g_s = Named("branch", nn.Sequential(*down)), Named("branch", nn.Sequential(*up))
        inner = [_partial(N) for _ in range(3)]
        self.h_a = Named("branch", nn.Sequential(_partial(M), _half(M, N), *inner, _half(N, N)))
        inner = [_partial(N) for _ in range(3)]
        self.h_s = Named("branch", nn.Sequential(_double(N, N), *inner, _double(N, 2 * M), _partial(2 * M)))
        self.y_spatial_prior_adaptor_list_s1 = nn.ModuleList([conv1x1(3 * M, 3 * M)])
        self.y_spatial_prior_adaptor_list_s2 = nn.ModuleList(conv1x1(3 * M, 3 * M) for _ in range(3))
        self.y_spatial_prior_adaptor_list_s3 = nn.ModuleList(conv1x1(3 * M, 3 * M) for _ in range(6))
        self.y_spatial_prior_s1_s2, self.y_spatial_prior_s3 = (_Prior(M, *pair) for pair in prior)
        self.adaptive_params_list = (
            nn.ParameterList(nn.Parameter(torch.ones(1, 3 * M, 1, 1)) for _ in range(10)) if gains else None
        )
        windows = (4, 8, 8) if fusion else ()
        for k, window in enumerate(windows, 1):
            self.add_module(f"attn_s{k}", _Fusion(2 * M, window))
        self._fused = fusion
        self.context_net = nn.ModuleList(conv1x1(2 * M, 2 * M) for _ in range(2))
        self.entropy_estimation = GeneralizedGaussianConditional()
        self.entropy_estimation.register_buffer(
            "scale_bound", self.entropy_estimation.scale_bound, persistent=False
        )
        self.hyper = GeneralizedBottleneck()
        self._register_state_dict_hook(_saved)  # type: ignore[no-untyped-call]
        self.register_state_dict_pre_hook(_attached)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_loaded)  # type: ignore[no-untyped-call]

    # -- what the steps are made of ---------------------------------------------------------------------------

    @property
    def _bottleneck(self) -> GeneralizedBottleneck:
        return self.hyper.attach(self.entropy_estimation, self.means_hyper, self.scales_hyper)

    @property
    def _gaussian(self) -> GeneralizedGaussianConditional:
        return self.entropy_estimation

    def _other_bottlenecks(self) -> Sequence[Any]:
        return (self._bottleneck,)

    def _side(self, z_hat: Tensor) -> Tensor:
        side: Tensor = self.h_s(z_hat)
        return side

    def _traverse(self, step: Step, side: Tensor) -> Tensor:
        gains = self.adaptive_params_list or [None] * 10
        scales, means = side.chunk(2, 1)

        def coarser(x: Tensor) -> Tensor:
            return thin(x, _WHOLES)

        def coarsest(x: Tensor) -> Tensor:
            return thin(coarser(x), HALVES)

        # A quarter of the resolution. The first half is told by side parameters alone.
        context = torch.cat((coarsest(scales), coarsest(means)), dim=1)
        y_hat = blank(context, self.M)
        self._code(step, context, y_hat, _COARSE[0], coarsest)
        context = self._steps(
            step,
            context,
            y_hat,
            _COARSE[1:],
            coarsest,
            (self.y_spatial_prior_adaptor_list_s1, self.y_spatial_prior_s1_s2, gains[:1], "attn_s1"),
        )
        # Half the resolution.
        new = [rest_of_side(x) for x in (scales, means)]
        halves = [put(x, into, HALVES) for x, into in zip(context.chunk(2, 1), new, strict=True)]
        context = self.context_net[0](torch.cat(halves, dim=1))
        y_hat = put(y_hat, blank(y_hat, self.M, 2), HALVES)
        context = self._steps(
            step,
            context,
            y_hat,
            _MIDDLE,
            coarser,
            (self.y_spatial_prior_adaptor_list_s2, self.y_spatial_prior_s1_s2, gains[1:4], "attn_s2"),
        )
        # All of it.
        halves = [
            put(x, into.clone(), _WHOLES)
            for x, into in zip(context.chunk(2, 1), (scales, means), strict=True)
        ]
        context = self.context_net[1](torch.cat(halves, dim=1))
        y_hat = put(y_hat, blank(y_hat, self.M, 2), _WHOLES)
        self._steps(
            step,
            context,
            y_hat,
            _FINE,
            lambda y: y,
            (self.y_spatial_prior_adaptor_list_s3, self.y_spatial_prior_s3, gains[4:], "attn_s3"),
            last=True,
        )
        return y_hat

    def _steps(
        self,
        step: Step,
        context: Tensor,
        y_hat: Tensor,
        schedule: list[list[list[Offset]]],
        at: Any,
        networks: tuple[Any, Any, Any, str],
        last: bool = False,
    ) -> Tensor:
        """The steps at one resolution; fills ``y_hat`` and returns the context of the next one."""
        adaptors, prior, gains, fusion = networks
        for i, (shares, gain) in enumerate(zip(schedule, gains, strict=True)):
            # The first step has the last adaptor: published weights were trained so.
            adapted = adaptors[i - 1](torch.cat((context, y_hat), dim=1))
            found = prior(adapted, gain)
            self._code(step, found, y_hat, shares, at)
            if last and i == len(schedule) - 1:
                break
            context = getattr(self, fusion)(found, context) if self._fused else found
        return context

    def _code(self, step: Step, context: Tensor, y_hat: Tensor, shares: list[list[Offset]], at: Any) -> None:
        scales, means = (select(half, shares) for half in context.chunk(2, 1))
        fill(step(lambda y: select(at(y), shares), scales, means), y_hat, shares)

    def _likelihoods(self, parts: list[Tensor]) -> Tensor:
        steps = iter(parts)
        out = blank(parts[0], self.M)
        for offsets, schedule in (((), _COARSE), (HALVES, _MIDDLE), (_WHOLES, _FINE)):
            if offsets:
                out = put(out, blank(out, self.M, 2), offsets)
            for shares in schedule:
                fill(next(steps), out, shares)
        return out

    # -- checkpoints ------------------------------------------------------------------------------------------

    @cached_property
    def _names(self) -> dict[str, str]:
        return {own: theirs for theirs, own in _NAMES.items()}

    def state_dict_names(self) -> list[str]:
        """Names of all parameters and buffers in a checkpoint."""
        return [self._names.get(name, name) for name in super().state_dict_names()]

    @classmethod
    def _arguments(cls, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        stages: list[list[int]] = []
        for i in range(count_in(state_dict, "g_a.branch.")):
            if f"g_a.branch.{i}.weight" in state_dict:
                stages.append([i])
            elif stages:
                stages[-1].append(i)
        if len(stages) != 4:
            raise KeyError("g_a at four resolutions")
        prior = tuple(
            (
                count_in(state_dict, f"{name}.branch_1."),
                count_in(state_dict, f"{name}.branch_2.") - 1,
            )
            for name in ("y_spatial_prior_s1_s2", "y_spatial_prior_s3")
        )
        sizes: dict[Any, type[HPCM]] = {kind._PRIOR: kind for kind in (HPCM, HPCMLarge)}
        if sizes.get(prior, cls) is not cls:
            raise ModelError(
                f"these weights are of {sizes[prior].__name__}, another size than {cls.__name__}"
            )
        return {
            "N": state_dict["means_hyper"].shape[1],
            "M": state_dict[f"g_a.branch.{stages[3][0]}.weight"].shape[0],
            "dims": tuple(state_dict[f"g_a.branch.{stage[0]}.weight"].shape[0] for stage in stages[:3]),
            "depths": tuple(len(stage) - 1 for stage in stages[:3]),
            "prior": prior,
            "gains": "adaptive_params_list.0" in state_dict,
            "fusion": "attn_s1.conv_q.weight" in state_dict,
        }


class HPCMLarge(HPCM):
    """:class:`HPCM` with twice the blocks at an eighth of the resolution, and deeper priors without gains."""

    _PRIOR = ((2, 2), (4, 3))

    def __init__(
        self,
        N: int = 256,
        M: int = 320,
        dims: Sequence[int] = (96, 192, 384),
        depths: Sequence[int] = (2, 2, 8),
        prior: Sequence[Sequence[int]] | None = None,
        gains: bool = False,
        fusion: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(N, M, dims, depths, prior, gains, fusion, **kwargs)
