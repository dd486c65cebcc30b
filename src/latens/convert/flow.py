"""Scale-space flow in ``.ltn`` files: integers decide about symbols, PyTorch makes the pixels."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from latens import format as ltn
from latens.convert.networks import Step, steps_of
from latens.convert.published import gaussian_hyperprior
from latens.convert.research import finite
from latens.errors import FormatError, ModelError, UnknownModelError
from latens.io import printable
from latens.models.video.google import FLOW_UNITS, Hyperprior, ScaleSpaceFlow
from latens.runtime import Decoded, ExactEntropy
from latens.runtime.coding import CodedPicture, Keep, Samples, Squares, checksum
from latens.runtime.layers import RELU
from latens.zoo.architectures import entry
from latens.zoo.pretrained import load_pretrained, read_checkpoint
from latens.zoo.weights import frozen

__all__ = ["ExactLatents", "FlowVideo", "checkpoint", "freeze_flow", "load", "weights_of"]

Array = npt.NDArray[Any]

PARTS = ("img", "motion", "res")
"""The latents: of pictures, of motion, of residuals."""

_LARGEST = 255.0  # of QReLU with 8 bits
_HYPER = 128  # pixels per position of z
_MAX_LEVELS = 8  # frames are multiples of 128
_MAX_BYTES = 1 << 30
_MOST = 65_535
_PUBLISHED = re.compile(r"ssf2020-([1-9])")


class ExactLatents:
    """The entropy models of all latents of a model.

    Args:
        parts: one for each of :data:`PARTS`.

    Raises:
        ModelError: the parts do not fit together.
    """

    def __init__(self, parts: Mapping[str, ExactEntropy]) -> None:
        if parts.keys() != set(PARTS):
            raise ModelError(
                f"entropy model: expected the parts {', '.join(PARTS)}, found {', '.join(parts)}"
            )
        self.parts = {name: parts[name] for name in PARTS}
        sizes = {(part.z_channels, part.y_channels, part.upscale, part.knots) for part in parts.values()}
        channels = parts["img"].y_channels
        if sizes != {(channels, channels, 8, 1)}:
            raise ModelError("entropy model: its parts are not those of one scale-space flow")

    @property
    def channels(self) -> int:
        """Channels of each latent, y and z."""
        return self.parts["img"].y_channels

    @cached_property
    def entropy_id(self) -> str:
        """SHA-256 over every integer that decides about symbols: 64 hex digits."""
        ids = "\n".join(f"{name} {part.entropy_id}" for name, part in self.parts.items())
        return hashlib.sha256(f"latens scale-space flow\n{ids}".encode()).hexdigest()

    def tensors(self) -> dict[str, Array]:
        """Everything as integer arrays, to be stored with the weights."""
        return {
            f"{name}.{key}": value
            for name, part in self.parts.items()
            for key, value in part.tensors().items()
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array]) -> ExactLatents:
        """The inverse of :meth:`tensors`. Everything is checked: a weights file may be hostile.

        Raises:
            ModelError: something is missing, too much, of the wrong type, or out of range.
            TableError: a CDF table is not valid.
        """
        own: dict[str, dict[str, Array]] = {name: {} for name in PARTS}
        for key, value in tensors.items():
            name, _, rest = key.partition(".")
            if name not in own:
                raise ModelError(f"entropy model: {key[:80]!a} belongs to no part of it")
            own[name][rest] = value
        return cls({name: ExactEntropy.from_tensors(part) for name, part in own.items()})


def freeze_flow(model: ScaleSpaceFlow) -> ExactLatents:
    """The entropy models of scale-space flow in integers, for files; makes the tables that it lacks.

    Raises:
        ModelError: weights that cannot be made exact.
        TableError: the tables are not valid.
    """
    return ExactLatents({name: _freeze(getattr(model, f"{name}_hyperprior"), name) for name in PARTS})


def _freeze(hyperprior: Hyperprior, name: str) -> ExactEntropy:
    layers = [m for m in hyperprior.hyper_decoder_scale.modules() if isinstance(m, nn.ConvTranspose2d)]
    scales: list[Step] = []
    for number, layer in enumerate(layers):
        (step,) = steps_of(nn.Sequential(layer), f"{name}_hyperprior, scales, layer {number}")
        scales.append(step._replace(activation=RELU, top=_LARGEST))
    means = steps_of(hyperprior.hyper_decoder_mean, f"{name}_hyperprior, means")
    return gaussian_hyperprior(hyperprior.entropy_bottleneck, scales, means, hyperprior.gaussian_conditional)


class FlowVideo:
    """A latent of each picture, or one of its motion and one of what that leaves.

    Its symbols are exact; its pixels are those of PyTorch. A :class:`latens.runtime.coding.VideoFileModel`.
    """

    grid = _HYPER
    # Published weights were trained without leaving out symbols.
    skip = 0
    qualities = False
    exact = False
    structured = False

    def __init__(self, name: str, weights_id: str, network: ScaleSpaceFlow, entropy: ExactLatents) -> None:
        self.id, self.weights_id, self.network, self.entropy = name, weights_id, network, entropy
        self.entropy_id = entropy.entropy_id

    def encode(
        self,
        picture: Samples,
        references: Sequence[Samples],
        level: int,
        depth: int,
        visible: tuple[int, int] | None = None,
        keep: Keep | None = None,
    ) -> CodedPicture:
        network = self.network
        run = network._transform
        with _session():
            x = _tensor(picture)
            if not references:
                stream, decoded = self._code("img", run(network.img_encoder, x))
                return _coded([stream], [decoded], network._picture(_latent(decoded)), depth)
            reference = _tensor(references[0])
            stream, motion = self._code("motion", network._motion(x, reference))
            predicted = network._predict(reference, _latent(motion))
            other, residual = self._code("res", run(network.res_encoder, x - predicted))
            found = network._add(predicted, _latent(residual), _latent(motion))
            return _coded([stream, other], [motion, residual], found, depth)

    def _code(self, name: str, y: Tensor) -> tuple[ltn.Stream, Decoded]:
        prior = self.entropy.parts[name]
        hyperprior = getattr(self.network, f"{name}_hyperprior")
        z = prior.quantise_z(finite(hyperprior.hyper_encoder(finite(y))).numpy(), 0)
        quantise = prior.quantiser(y.numpy(), 0, self.skip)
        stream, lanes, decoded = prior.encode(z, quantise, 0, self.skip)
        return ltn.Stream(lanes, stream), decoded

    def decode(
        self,
        frame: ltn.Frame,
        references: Sequence[Samples],
        shape: tuple[int, int],
        header: ltn.VideoHeader,
        kept: Squares | None = None,
    ) -> tuple[int, Samples]:
        if len(references) > 1:
            raise FormatError(f"{self.id} knows no frames with two references")
        names = PARTS[1:] if references else PARTS[:1]
        if len(frame.streams) != len(names):
            raise FormatError(f"expected {len(names)} streams, found {len(frame.streams)}")
        z_shape = shape[0] // _HYPER, shape[1] // _HYPER
        found = [
            self.entropy.parts[name].decode(stream.data, z_shape, 0, header.skip, stream.lanes)
            for name, stream in zip(names, frame.streams, strict=True)
        ]
        network = self.network
        with _session():
            if not references:
                decoded = network._picture(_latent(found[0]))
            else:
                motion, residual = map(_latent, found)
                decoded = network._add(network._predict(_tensor(references[0]), motion), residual, motion)
            return _checksum(found), _settled(decoded, header.bit_depth)


@contextmanager
def _session() -> Iterator[None]:
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        yield


def _tensor(picture: Samples) -> Tensor:
    return torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None].div_(_MOST)


def _settled(picture: Tensor, depth: int) -> Samples:
    """Rounded to the levels of a bit depth: what little two machines differ in does not add up."""
    levels = (1 << depth) - 1
    whole = finite(picture).clamp(0, 1).mul(levels).round_()[0].permute(1, 2, 0).to(torch.int64).numpy()
    return ((whole * _MOST + levels // 2) // levels).astype(np.uint16)


def _latent(decoded: Decoded) -> Tensor:
    return torch.from_numpy(decoded.latent)


def _checksum(found: list[Decoded]) -> int:
    return checksum(*(array for decoded in found for array in (decoded.z, decoded.y)))


def _coded(streams: list[ltn.Stream], found: list[Decoded], picture: Tensor, depth: int) -> CodedPicture:
    return CodedPicture(tuple(streams), _checksum(found), _settled(picture, depth))


# ---- weights files


def weights_of(network: ScaleSpaceFlow, name: str) -> tuple[dict[str, Array], dict[str, str]]:
    """Arrays and metadata of a weights file.

    Raises:
        ModelError: weights that are not finite or cannot be made exact.
        TableError: a table is not valid.
    """
    # Conversion makes the tables that a model lacks.
    entropy = freeze_flow(network).tensors()
    state = network.state_dict()
    _check_finite(state)
    arrays = {f"network.{key}": value.detach().cpu().numpy() for key, value in state.items()}
    config = {"num_levels": network.num_levels, "sigma0": network.sigma0, "flow_unit": network.flow_unit}
    return arrays | {f"entropy.{key}": value for key, value in entropy.items()}, {
        "config": json.dumps(config)
    }


def _check_finite(state: Mapping[str, Tensor]) -> None:
    for key, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ModelError(f"{printable(key)[:80]} has values that are not finite")


def load(name: str, weights_id: str, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> FlowVideo:
    """The model of a weights file.

    Raises:
        ModelError: it is damaged.
        TableError: a table is not valid.
    """
    config = _checked_config(metadata.get("config", ""))
    parts: dict[str, dict[str, Array]] = {"network": {}, "entropy": {}}
    for key, array in arrays.items():
        part, _, rest = key.partition(".")
        if part not in parts:
            raise ModelError(f"{printable(key)[:80]} is not known to this release")
        parts[part][rest] = array
    state = {key: torch.from_numpy(np.array(array)) for key, array in parts["network"].items()}
    _check_finite(state)
    try:
        network = ScaleSpaceFlow.from_state_dict(state).eval().requires_grad_(False)
        channels = state["img_encoder.6.weight"].shape[0]
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ModelError(
            f"damaged, or weights of another architecture ({printable(str(error)[:200])})"
        ) from error
    entropy = ExactLatents.from_tensors(parts["entropy"])
    network.num_levels, network.sigma0 = config["num_levels"], config["sigma0"]
    network.flow_unit = config["flow_unit"]
    if entropy.channels != channels:
        raise ModelError("the entropy model does not fit the networks")
    return FlowVideo(name, weights_id, network, entropy)


def _checked_config(text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
        levels, sigma, unit = config["num_levels"], config["sigma0"], config["flow_unit"]
        fits = (
            isinstance(levels, int)
            and 1 <= levels <= _MAX_LEVELS
            and isinstance(sigma, float)
            and 0 < sigma < 100
            and unit in FLOW_UNITS
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError("its configuration is damaged") from error
    if not fits:
        raise ModelError(f"its configuration is out of range: {printable(text)[:200]}")
    return {"num_levels": levels, "sigma0": sigma, "flow_unit": unit}


def checkpoint(model: str | os.PathLike[str], flow_unit: str) -> tuple[bytes, str]:
    """The weights file that a checkpoint, or published weights, ``ssf2020-1`` to ``ssf2020-9``, become; and their name.

    Raises:
        UnknownModelError: there is no such file.
        DownloadError: published weights cannot be downloaded.
        ModelError: it is none of scale-space flow, or holds no tables.
    """
    name = os.fspath(model)
    if not isinstance(model, os.PathLike) and (match := _PUBLISHED.fullmatch(name)):
        from latens.zoo.download import fetch

        path = fetch(entry("ssf2020").url(int(match[1]), "mse"), progress=True)
    else:
        path = Path(name)
    shown = printable(path)
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnknownModelError(
            f"{shown}: cannot be read ({printable(reason)}); give a weights file, a checkpoint, the name of a released "
            "model, or ssf2020-1 to ssf2020-9"
        ) from error
    if not path.is_file():
        raise UnknownModelError(f"{shown}: not a regular file")
    if size > _MAX_BYTES:
        raise ModelError(f"{shown}: larger than {_MAX_BYTES} bytes; not a weights file")
    network = ScaleSpaceFlow.from_state_dict(load_pretrained(read_checkpoint(path))).eval()
    network.flow_unit = flow_unit
    hyperpriors = (network.img_hyperprior, network.motion_hyperprior, network.res_hyperprior)
    if any(h.entropy_bottleneck.quantized_cdf.numel() == 0 for h in hyperpriors):
        raise ModelError(
            f"{shown}: holds no CDF tables, and made anew they would not be the same on every machine; make a weights "
            "file of it once ('latens video freeze')"
        )
    stem = re.sub(r"[^a-z0-9._-]+", "-", path.name.split(".")[0].lower()).strip("-._")[:64]
    return frozen(network, stem or "scale-space-flow"), shown
