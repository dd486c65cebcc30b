"""Published architectures: conversion of trained models to the integer entropy models of files, and coding with these.

It is a function of the checkpoint in integers: the same weights and tables give the same integers, and the same
``entropy_id``, on every machine. Ranges of layers are found by running the integer networks on z drawn from the
tables of z by a fixed generator, and on y drawn from the tables that these choose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from latens.convert.networks import (
    Converted,
    Int32,
    Int64,
    Part,
    Step,
    convert,
    draw_bits,
    draw_symbols,
    steps_of,
)
from latens.entropy_models import EntropyBottleneck, EntropyModel, GaussianConditional
from latens.entropy_models.base import Unchanged, check_capacity
from latens.errors import CoderError, ModelError
from latens.latent_codecs import (
    ChannelGroupsLatentCodec,
    CheckerboardLatentCodec,
    EntropyBottleneckLatentCodec,
    GaussianConditionalLatentCodec,
    HyperLatentCodec,
    HyperpriorLatentCodec,
    LatentCodec,
    RasterScanLatentCodec,
)
from latens.models.base import CompressionModel, SimpleVAECompressionModel, check_code
from latens.models.google import (
    FactorizedPrior,
    JointAutoregressiveHierarchicalPriors,
    MeanScaleHyperprior,
    ScaleHyperprior,
)
from latens.models.stepwise import StepwiseModel
from latens.models.vbr import ScaleHyperpriorVbr
from latens.runtime import LATENT_BITS, ExactEntropy, Group, IntegerTables, Level, Thresholds
from latens.runtime.layers import ACTIVATION_MAX, LINEAR, halve

__all__ = ["compress", "decompress", "exact_entropy", "gaussian_hyperprior", "hyper_analysis"]

_UNIT = 1 << LATENT_BITS
_SAMPLE = (16, 16)  # positions of z that ranges are found with
_STEP = 1 << 16


def exact_entropy(model: CompressionModel) -> ExactEntropy:
    """The entropy model of a trained model in integers, for files.

    Tables that the model lacks are made first.

    Raises:
        ModelError: a network that cannot be made exact; the message says which layer.
        TableError: the model's tables are not valid, and cannot be made.
    """
    if isinstance(model, FactorizedPrior):
        return _factorized(model.entropy_bottleneck)
    if isinstance(model, SimpleVAECompressionModel):
        return _of_codec(model.latent_codec)
    if isinstance(model, JointAutoregressiveHierarchicalPriors):
        scan = model._scan()
        if type(scan.gaussian_conditional) is not GaussianConditional:
            raise ModelError(
                f"{type(model).__name__}: mixtures have no tables of their own and cannot be made exact; "
                "use its compress() and decompress()"
            )
        plan = _Contexts("raster", model.entropy_parameters, ("side", "spatial"), model.context_prediction)
        return _hyperprior(
            model.entropy_bottleneck, model.h_s, model.gaussian_conditional, [plan], _rates(model)
        )
    if isinstance(model, ScaleHyperprior):
        chunks = ("scales", "means") if isinstance(model, MeanScaleHyperprior) else ("scales",)
        plan = _Contexts("all", chunks=chunks)
        return _hyperprior(
            model.entropy_bottleneck, model.h_s, model.gaussian_conditional, [plan], _rates(model)
        )
    if isinstance(model, StepwiseModel):
        raise ModelError(f"{type(model).__name__} cannot be made exact: {model.inexact}")
    raise ModelError(
        f"{type(model).__name__} cannot be made exact: it is neither one of the published hyperpriors nor a "
        "SimpleVAECompressionModel with codecs of latens.latent_codecs"
    )


def hyper_analysis(model: CompressionModel, y: Tensor) -> Tensor:
    """z of y, for a model with a hyperprior.

    Raises:
        ModelError: it has none that is known here.
    """
    if isinstance(model, ScaleHyperprior):
        return model._hyper_analysis(y)
    if isinstance(model, SimpleVAECompressionModel) and isinstance(model.latent_codec, HyperpriorLatentCodec):
        return cast(Tensor, cast(nn.Module, model.latent_codec.hyper.h_a)(y))
    raise ModelError(f"{type(model).__name__} has no hyperprior that can be made exact")


def _cached(model: CompressionModel) -> ExactEntropy:
    """:func:`exact_entropy`, made again when weights or tables have changed."""

    known = model.__dict__.get("_exact_entropy")
    if known is None or not known[0](*model.parameters(), *model.buffers()):
        entropy = exact_entropy(model)
        # Conversion makes tables that are missing, so the state is taken after it.
        known = model.__dict__["_exact_entropy"] = (
            Unchanged(*model.parameters(), *model.buffers()),
            entropy,
        )
    return cast(ExactEntropy, known[1])


@torch.no_grad()
def compress(model: CompressionModel, x: Tensor, level: int = 0) -> dict[str, Any]:
    """Code images so that every machine decodes the same latent: ``model.compress(x, exact=True)``.

    Args:
        model: of a published architecture.
        x: ``(B, 3, H, W)`` in 0..1; H and W multiples of what the model asks for.
        level: rate of a model of variable rate.

    Returns:
        ``strings``: one list with a string per image, a byte with the number of lanes before the stream of a tile;
        ``shape``: height and width of z.

    Raises:
        ModelError: the model cannot be made exact.
        ShapeError: the size does not fit.
        CoderError: a latent is not finite.
    """
    entropy = _cached(model)
    model._check_image(x, cast(nn.Module, model.g_a), 16, entropy.upscale)
    strings, shape = [], (0, 0)
    for image in x:
        y = model._transform(cast(nn.Module, model.g_a), image[None])
        z = hyper_analysis(model, y) if entropy.groups else y
        if not (torch.isfinite(y).all() and torch.isfinite(z).all()):
            raise CoderError("latents are not finite: look for NaN in the image or in the weights")
        symbols = entropy.quantise_z(z.cpu().numpy(), level)
        stream, lanes, _ = entropy.encode(symbols, entropy.quantiser(y.cpu().numpy(), level, 0), level, 0)
        strings.append(bytes([lanes]) + stream)
        shape = (symbols.shape[1], symbols.shape[2])
    return {"strings": [strings], "shape": shape}


@torch.no_grad()
def decompress(
    model: CompressionModel, strings: Sequence[Sequence[bytes]], shape: Sequence[int], level: int = 0
) -> dict[str, Any]:
    """Undo :func:`compress`: ``model.decompress(strings, shape, exact=True)``.

    Returns:
        ``x_hat``, values in 0..1.

    Raises:
        ModelError: the model cannot be made exact.
        ShapeError: another number of strings or sizes.
        LimitError: so many values do not fit into the strings; found out before any memory is taken.
        CoderError: a damaged string.
    """
    size = check_code(strings, shape, 1)
    entropy = _cached(model)
    values = entropy.z_channels + entropy.y_channels * entropy.upscale**2
    check_capacity(strings[0], values * size[0] * size[1])
    latents = []
    for string in strings[0]:
        if not string or string[0] not in (1, 2, 4, 8):
            raise CoderError(
                "the string is damaged: it must start with the number of its lanes, 1, 2, 4 or 8"
            )
        latents.append(torch.from_numpy(entropy.decode(string[1:], size, level, 0, string[0]).latent))
    y_hat = torch.cat(latents).to(next(model.parameters()))
    return {"x_hat": model._reconstruct(cast(nn.Module, model.g_s), y_hat)}


# -- what a model consists of ------------------------------------------------------------------------------------


@dataclass
class _Contexts:
    """How one group of channels is coded, in float networks."""

    order: str
    parameters: nn.Module | None = None
    parts: tuple[str, ...] = ()
    spatial: nn.Module | None = None
    chunks: tuple[str, ...] = ("scales", "means")
    channels: int = 0
    earlier: tuple[int, ...] = ()
    channel: nn.Module | None = None
    odd_first: bool = False


@dataclass
class _Rate:
    """One gain of a model of variable rate: see :class:`Level`."""

    gain: float = 1.0
    offsets: Int64 | None = None
    context: npt.NDArray[np.float64] | None = None


def _of_codec(codec: nn.Module) -> ExactEntropy:
    if isinstance(codec, EntropyBottleneckLatentCodec):
        return _factorized(codec.entropy_bottleneck)
    if not isinstance(codec, HyperpriorLatentCodec) or not isinstance(codec.hyper, HyperLatentCodec):
        raise ModelError(f"{type(codec).__name__} cannot be made exact")
    y = codec.y
    plans = (
        [_group_plan(y, k) for k in range(len(y.groups))]
        if isinstance(y, ChannelGroupsLatentCodec)
        else [_plan(y, ("side",))]
    )
    gaussians = [m for m in y.modules() if isinstance(m, GaussianConditional)]
    first = gaussians[0]
    tables = [_table_arrays(g) for g in gaussians]
    if any(not np.array_equal(a, b) for other in tables for a, b in zip(tables[0], other, strict=True)):
        raise ModelError("the groups of this model have different scale tables and cannot be made exact")
    return _hyperprior(codec.hyper.entropy_bottleneck, codec.hyper.h_s, first, plans, [_Rate()])


def _plan(codec: LatentCodec, inputs: tuple[str, ...]) -> _Contexts:
    """The plan of a codec of one group, whose side parameters are ``inputs`` side by side."""
    if isinstance(codec, CheckerboardLatentCodec):
        inner = codec.y
        if not isinstance(inner, GaussianConditionalLatentCodec) or not isinstance(
            inner.entropy_parameters, nn.Identity
        ):
            raise ModelError(f"a checkerboard of {type(inner).__name__} cannot be made exact")
        order = _order_of(codec.merge, 2)
        parts = tuple(part for i in order for part in (("spatial",), inputs)[i])
        return _Contexts(
            "checkerboard",
            codec.entropy_parameters,
            parts,
            codec.context_prediction,
            inner.chunks,
            odd_first=codec.anchor_parity == "odd",
        )
    if isinstance(codec, RasterScanLatentCodec):
        order = _order_of(codec.merge, 2)
        parts = tuple(part for i in order for part in (inputs, ("spatial",))[i])
        return _Contexts("raster", codec.entropy_parameters, parts, codec.context_prediction)
    if isinstance(codec, GaussianConditionalLatentCodec):
        if isinstance(codec.entropy_parameters, nn.Identity) and inputs == ("side",):
            return _Contexts("all", chunks=codec.chunks)
        return _Contexts("all", codec.entropy_parameters, inputs, chunks=codec.chunks)
    raise ModelError(f"{type(codec).__name__} cannot be made exact")


def _group_plan(codec: ChannelGroupsLatentCodec, k: int) -> _Contexts:
    if k == 0:
        plan = _plan(codec["y0"], ("side",))
        if plan.parameters is None:
            raise ModelError("groups of channels without parameter networks cannot be made exact")
        return replace(plan, channels=codec.groups[0])
    inputs = tuple(("channel", "side")[i] for i in _order_of(codec.merge_params, 2))
    plan = _plan(codec[f"y{k}"], inputs)
    return replace(
        plan,
        channels=codec.groups[k],
        earlier=_order_of(codec.merge_y, k),
        channel=codec.channel_context[f"y{k}"],
    )


def _order_of(merge: Callable[..., Tensor], count: int) -> tuple[int, ...]:
    """Which of its arguments a function puts side by side, in what order: asked of it with marked arguments."""
    size = 3
    # Numbers that have nothing to do with each other: no sum or mean of some is another.
    marked = torch.from_numpy(draw_bits(count * size, seed=0)).float().view(count, 1, size, 1, 1)
    merged = merge(*marked)
    parts = torch.split(merged.flatten(), size)
    order = tuple(i for part in parts for i in range(count) if torch.equal(part, marked[i].flatten()))
    if len(order) != len(parts):
        raise ModelError("this model merges contexts in a way that cannot be made exact")
    return order


def _rates(model: ScaleHyperprior) -> list[_Rate]:
    """The gains of a model of variable rate, lowest first; one of 1 for all others."""
    if not isinstance(model, ScaleHyperpriorVbr):
        return [_Rate()]
    if model.vr_entbttlnck:
        raise ModelError(
            f"{type(model).__name__} with steps for z (vr_entbttlnck) has no tables in its weights and cannot be "
            "made exact; use its compress() and decompress()"
        )
    scales = _scale_table(model.gaussian_conditional)
    context = getattr(model, "scale_to_context", None)
    rates = []
    for gain in model.Gain.detach().abs().double().tolist():
        if not 2**-8 <= gain <= 2**8:
            raise ModelError(f"{type(model).__name__}: a gain of {gain:g} cannot be made exact")
        moved = [-_perceptron(model.QuantABCD, (scale, gain)) for scale in scales]
        if not all(abs(m) * _UNIT <= 1 << 20 for m in moved):
            raise ModelError(
                f"{type(model).__name__}: reconstruction offsets (QuantABCD) of {max(map(abs, moved)):g} steps cannot "
                "be made exact"
            )
        offsets = np.array([round(m * _UNIT) for m in moved], np.int64)
        added = None
        if context is not None:
            weight, bias = (t.detach().double().numpy() for t in (context.weight, context.bias))
            added = weight[:, 0] * gain + bias
        rates.append(_Rate(gain, offsets, added))
    return rates


def _perceptron(network: nn.Module, inputs: Sequence[float]) -> float:
    """A small network of linear layers and ReLUs, its sums rounded once: the same on every machine."""
    values = list(inputs)
    for layer in cast(nn.Sequential, network):
        if isinstance(layer, nn.ReLU):
            values = [max(v, 0.0) for v in values]
            continue
        if not isinstance(layer, nn.Linear):
            raise ModelError(f"{type(layer).__name__} cannot be made exact")
        if not (torch.isfinite(layer.weight).all() and torch.isfinite(layer.bias).all()):
            raise ModelError("the weights of the reconstruction offsets (QuantABCD) are not finite")
        rows, biases = layer.weight.detach().double().tolist(), layer.bias.detach().double().tolist()
        values = [
            math.fsum([bias, *(w * v for w, v in zip(row, values, strict=True))])
            for row, bias in zip(rows, biases, strict=True)
        ]
    return values[0]


# -- tables ------------------------------------------------------------------------------------------------------


def _table_arrays(model: EntropyModel) -> tuple[npt.NDArray[np.int32], ...]:
    model._tables()
    buffers = (model.quantized_cdf, model.cdf_length, model.offset)
    return tuple(buffer.detach().cpu().numpy().astype(np.int32) for buffer in buffers)


def _scale_table(gaussian: GaussianConditional) -> npt.NDArray[np.float64]:
    gaussian._tables()
    table = gaussian.scale_table.detach().cpu().double().numpy()
    if float(gaussian.lower_bound_scale.bound) > table[0]:
        raise ModelError(
            "the bound of scales is above the first entry of the scale table; it cannot be made exact"
        )
    return cast("npt.NDArray[np.float64]", table)


def _bottleneck(bottleneck: EntropyBottleneck) -> tuple[IntegerTables, Int64]:
    """Tables and medians (units of 2^-8) of z."""
    # Making tables may move the medians, so they come first.
    tables = IntegerTables.from_rows(*_table_arrays(bottleneck))
    medians = bottleneck._get_medians().detach().cpu().double().numpy().reshape(-1)
    if not np.isfinite(medians).all() or np.abs(medians).max() * _UNIT >= 1 << 20:
        raise ModelError(f"medians of z must be finite and below {(1 << 20) // _UNIT}")
    return tables, np.rint(np.ldexp(medians, LATENT_BITS)).astype(np.int64)


def _factorized(bottleneck: EntropyBottleneck) -> ExactEntropy:
    tables, medians = _bottleneck(bottleneck)
    return ExactEntropy(tables, medians, levels=[Level((), _UNIT)])


# -- hyperpriors -------------------------------------------------------------------------------------------------


def gaussian_hyperprior(
    bottleneck: EntropyBottleneck,
    scale_network: Sequence[Step],
    mean_network: Sequence[Step],
    gaussian: GaussianConditional,
) -> ExactEntropy:
    """A hyperprior whose scales and means come from networks of their own, in integers.

    Args:
        bottleneck: of z.
        scale_network, mean_network: from z to scales and to means; see :func:`latens.convert.networks.steps_of`.
        gaussian: of y.

    Raises:
        ModelError: a network that cannot be made exact.
        TableError: the tables are not valid.
    """
    z_tables, medians = _bottleneck(bottleneck)
    inputs, z = _z_samples(z_tables, medians)
    scales = convert(_open_ended(scale_network, _scale_table(gaussian)), inputs, z, "scales")
    means = convert(mean_network, inputs, z, "means")
    thresholds = Thresholds.of(_scale_table(gaussian)[:-1], scales.exponent, "scales")
    group = Group(scales.chain.outputs, mean=0, mean_shift=means.exponent - LATENT_BITS)
    return ExactEntropy(
        z_tables,
        medians,
        y_tables=IntegerTables.from_rows(*_table_arrays(gaussian)),
        hyper=[scales.chain, means.chain],
        groups=[group],
        levels=[Level((thresholds,), _UNIT)],
    )


def _z_samples(tables: IntegerTables, medians: Int64) -> tuple[list[Part], list[Int32]]:
    symbols = draw_symbols(tables.rows(0, len(medians)), tables.offsets[: len(medians)], _SAMPLE, seed=0)
    values = symbols.transpose(1, 2, 0) * _UNIT + medians
    return [Part(len(medians), LATENT_BITS)], [_limited(values)]


def _limited(values: Int64) -> Int32:
    """As activations are."""
    return values.clip(-ACTIVATION_MAX, ACTIVATION_MAX).astype(np.int32)


def _open_ended(steps: Sequence[Step], levels: npt.NDArray[np.float64]) -> list[Step]:
    """Without an activation at the end that does not matter: one that changes no value near a threshold."""
    last = steps[-1]
    if last.top is not None and last.top <= levels[-2]:
        raise ModelError(f"scales end at {last.top}, within the scale table; they cannot be made exact")
    return [*steps[:-1], last._replace(activation=LINEAR, top=None)]


def _hyperprior(
    bottleneck: EntropyBottleneck,
    h_s: nn.Module,
    gaussian: GaussianConditional,
    plans: Sequence[_Contexts],
    rates: Sequence[_Rate],
) -> ExactEntropy:
    z_tables, medians = _bottleneck(bottleneck)
    y_tables = IntegerTables.from_rows(*_table_arrays(gaussian))
    scale_table = _scale_table(gaussian)
    inputs, z = _z_samples(z_tables, medians)
    steps = steps_of(h_s, "h_s")
    thresholds: list[list[Thresholds]] = [[] for _ in rates]
    context: list[Int64 | None] = [None] * len(rates)
    groups: list[Group] = []

    if plans[0].parameters is None:
        (plan,) = plans
        if plan.chunks == ("scales",):
            steps = _open_ended(steps, scale_table)
        elif steps[-1].activation != LINEAR:
            raise ModelError("h_s: the activation after its last layer cannot be made exact")
        hyper = convert(steps, inputs, z, "h_s")
        groups.append(_head(plan, hyper, hyper.chain.outputs // len(plan.chunks)))
        for rate, found in zip(rates, thresholds, strict=True):
            found.append(Thresholds.of(scale_table[:-1] / rate.gain, hyper.exponent, "h_s"))
    else:
        hyper = convert(steps, inputs, z, "h_s", last="activations")
        draw = partial(_draw_y, y_tables=y_tables)
        samples: list[Int32] = []
        middle = rates[len(rates) // 2]
        for k, plan in enumerate(plans):
            group, parameters, values, spatial_scale = _convert_group(
                plan, k, hyper, samples, scale_table, middle, draw
            )
            groups.append(group)
            samples.append(values)
            for i, rate in enumerate(rates):
                levels = scale_table[:-1] / rate.gain
                thresholds[i].append(Thresholds.of(levels, parameters.exponent, f"parameters of group {k}"))
                if rate.context is not None:
                    # The layer's bias has that of the middle rate in it.
                    added = np.rint(np.ldexp(rate.context, spatial_scale)) - np.rint(
                        np.ldexp(cast("npt.NDArray[np.float64]", middle.context), spatial_scale)
                    )
                    context[i] = added.astype(np.int64)
    return ExactEntropy(
        _repeated(z_tables, len(rates)),
        medians,
        y_tables=y_tables,
        hyper=[hyper.chain],
        groups=groups,
        levels=[
            Level(tuple(found), _UNIT, round(_STEP / rate.gain), rate.offsets, added)
            for rate, found, added in zip(rates, thresholds, context, strict=True)
        ],
    )


def _repeated(tables: IntegerTables, times: int) -> IntegerTables:
    """The same tables for every rate."""
    return IntegerTables(*(np.tile(array, times) for array in (tables.entries, tables.sizes, tables.offsets)))


def _head(plan: _Contexts, network: Converted, channels: int) -> Group:
    """A group whose scales and means are chunks of the network's result."""
    if plan.chunks[0] == "means" and len(plan.chunks) == 1:
        raise ModelError("a Gaussian without scales cannot be made exact")
    if channels * len(plan.chunks) != network.chain.layers[-1].weight.shape[0]:
        raise ModelError(f"{network.chain.outputs} parameters do not fit {channels} channels")
    start = {name: i * channels for i, name in enumerate(plan.chunks)}
    return Group(
        channels,
        plan.order,
        scale=start["scales"],
        mean=start.get("means"),
        mean_shift=network.exponent - LATENT_BITS,
    )


def _convert_group(
    plan: _Contexts,
    k: int,
    side: Converted,
    earlier: Sequence[Int32],
    scale_table: npt.NDArray[np.float64],
    rate: _Rate,
    draw: Callable[..., Int32],
) -> tuple[Group, Converted, Int32, int]:
    """One group in integers; its parameters, values of its y to go on with, and the scale of its spatial sums."""
    label = f"group {k}"
    parts = {"side": Part(side.chain.outputs, side.exponent)}
    values = {"side": side.samples[0]}
    channel = None
    if plan.channel is not None:
        seen = np.concatenate([earlier[e] for e in plan.earlier], axis=-1)
        made = convert(
            steps_of(plan.channel, f"{label}, channel context"),
            [Part(seen.shape[-1], LATENT_BITS)],
            [seen],
            f"{label}, channel context",
            last="activations",
        )
        channel, values["channel"] = made.chain, made.samples[0]
        parts["channel"] = Part(made.chain.outputs, made.exponent)
    steps = steps_of(cast(nn.Module, plan.parameters), f"{label}, parameters")
    for number, step in enumerate(steps):
        if step.weight.shape[2] != 1 or step.up != 1 or step.shuffle != 1:
            raise ModelError(
                f"{label}, parameters, layer {number}: it must be a 1x1 convolution to be made exact"
            )
    channels = steps[-1].weight.shape[0] // len(plan.chunks)
    y = np.zeros((*side.samples[0].shape[:2], channels), np.int32)
    # First with contexts of zeros, which gives values of y; then with contexts of these values.
    for final in (False, True):
        spatial = None
        scale = 0
        if plan.spatial is not None:
            (step,) = steps_of(plan.spatial, f"{label}, spatial context")
            if rate.context is not None:
                step = step._replace(bias=(step.bias + rate.context).astype(np.float32))
            made = convert(
                [step], [Part(channels, LATENT_BITS)], [y], f"{label}, context", last="activations"
            )
            spatial = made.chain.layers[0]
            scale = made.exponent + spatial.shift
            values["spatial"], parts["spatial"] = made.samples[0], Part(spatial.channels, made.exponent)
        inputs = [np.concatenate([values[part] for part in plan.parts], axis=-1)]
        if plan.order == "checkerboard":
            blank = {**values, "spatial": np.zeros_like(values["spatial"])}
            inputs.append(np.concatenate([blank[part] for part in plan.parts], axis=-1))
        parameters = convert(steps, [parts[part] for part in plan.parts], inputs, f"{label}, parameters")
        group = _head(plan, parameters, channels)
        thresholds = Thresholds.of(scale_table[:-1] / rate.gain, parameters.exponent, label)
        y = draw(parameters.samples[0], group, thresholds, rate, k)
        if plan.spatial is None or final:
            break
    if plan.channels not in (0, channels):
        raise ModelError(f"{label}: parameters for {channels} channels, expected {plan.channels}")
    group = replace(
        group,
        parameters=parameters.chain,
        parts=plan.parts,
        earlier=plan.earlier,
        channel=channel,
        spatial=spatial,
        odd_first=plan.odd_first,
    )
    return group, parameters, y, scale


def _draw_y(
    sums: Int64, group: Group, thresholds: Thresholds, rate: _Rate, seed: int, y_tables: IntegerTables
) -> Int32:
    """Values of y from the tables that sums choose, by a fixed generator, around their means."""
    flat = sums.reshape(-1, sums.shape[-1])
    indexes = thresholds.count(flat, group.scale, group.channels).ravel()
    draws = draw_bits(indexes.size, seed + 1)
    symbols = np.zeros(indexes.size, np.int64)
    rows = y_tables.rows(0, len(y_tables.sizes))
    for index in np.unique(indexes):
        here = indexes == index
        found = np.searchsorted(rows[index], draws[here], side="right") - 1
        symbols[here] = np.minimum(found, len(rows[index]) - 3) + y_tables.offsets[index]
    values = halve(symbols.reshape(-1, group.channels) * (_UNIT * round(_STEP / rate.gain)), 16)
    if group.mean is not None:
        means = flat[:, group.mean : group.mean + group.channels]
        values += _limited(halve(means, group.mean_shift))
    return _limited(values).reshape(*sums.shape[:-1], -1)
