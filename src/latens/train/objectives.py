"""What is trained: a model, its loss for a batch, and what its files cost."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latens import format as ltn
from latens import registry, zoo
from latens.codec import ImageCodec
from latens.codec.structure import Structure
from latens.codec.video import VideoCodec
from latens.entropy_models import EntropyBottleneck
from latens.errors import ModelError, TrainingError
from latens.io import Image, VideoFrame, VideoInfo, printable
from latens.losses import Mixture, squared_error, structural_dissimilarity
from latens.models import CompressionModel
from latens.models.latens_base import LatensBase, LatensBaseConfig
from latens.models.vbr import ScaleHyperpriorVbr
from latens.models.video import DCVCRT, DCVCRTIntra, LatensVideo, LatensVideoConfig, ScaleSpaceFlow
from latens.models.video.dcvc import Reference
from latens.ops import compute_padding
from latens.runtime.planes import planes_from_rgb
from latens.train.config import DEFAULT_ARCHITECTURE, FLOW_ARCHITECTURE, VIDEO_ARCHITECTURE, TrainConfig
from latens.transforms.functional import rgb2ycbcr, ycbcr2rgb
from latens.zoo.weights import frozen, parse

__all__ = ["Objective", "make_objective", "model_of", "rate_and_distortion"]

Pixels = npt.NDArray[np.uint8]

VALIDATION_QUALITIES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_GRID = 64
_FLOW_GRID = 128
_FLOW_SIZES = (128, 192)
_RATES_PER_BATCH = 4
_FRAME_LAMBDAS = 1 / 255**2, 768 / 255**2
_FRAME_MODELS = DCVCRT, DCVCRTIntra
_QUANTILES_EVERY = 25
_MOST_VALUES = 2**31
_LEAST_CROPS = {"ms-ssim": 192, "ssimulacra2": 256}


def rate_and_distortion(out: dict[str, Any], x: Tensor) -> tuple[Tensor, Tensor]:
    """Bits per pixel (from likelihoods) and mean squared error (0..255 scale), each per sample ``(B,)``."""
    pixels = x.shape[2] * x.shape[3]
    per_latent = [-torch.log2(p).flatten(1).sum(1) for p in out["likelihoods"].values()]
    bits = torch.stack(per_latent).sum(0)
    return bits / pixels, squared_error(out["x_hat"], x)


def _figures(loss: Tensor, rate: Tensor, mse: Tensor) -> Tensor:
    """Loss, bits per pixel and PSNR of a batch, one vector; only the loss leads back to the weights."""
    psnr = 10 * torch.log10(255.0**2 / mse.detach())
    return torch.stack([loss.mean(), rate.detach().mean(), psnr.mean()])


class Objective(nn.Module):
    """A model and its loss.

    Attributes:
        model: what is trained.
        variable_rate: whether one set of weights has all rates.
        partly_used: whether there are steps that leave some parameters alone.

    Args:
        model: see above; on its device.
    """

    variable_rate = False
    partly_used = False

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def new_average(self) -> nn.Module:
        """A copy to average weights in: float32, never compiled."""
        raise NotImplementedError

    def start(self, patches: Callable[[int], Tensor]) -> None:
        """Set initial weights that depend on the photographs.

        Args:
            patches: gives so many random patches, ``(n, 3, 16, 16)`` in 0..1.
        """

    def prepare(self, step: int, *, hard: bool) -> None:
        """Called before each step: freeze what is not trained in it."""

    def forward(self, x: Tensor, quality: Tensor, step: int, hard: bool) -> Tensor:
        """Figures of a batch.

        Args:
            x: ``(B, 3, H, W)`` in 0..1.
            quality: ``(B,)`` in 0..1, rising.
            step: number of the step.
            hard: round in place of noise.

        Returns:
            ``(3,)``: loss, bits per pixel, PSNR in dB.
        """
        raise NotImplementedError

    def files(self, model: nn.Module) -> Iterator[tuple[float, Callable[[Pixels], tuple[int, Pixels]]]]:
        """For each quality that is validated: how to code an image ``(H, W, 3)`` with weights like ours.

        Yields:
            Quality, and a function that returns the number of bytes and the decoded image.
        """
        raise NotImplementedError


class DefaultObjective(Objective):
    """The default model: all rates in each batch, evenly."""

    variable_rate = True
    model: LatensBase

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        super().__init__(LatensBase(config.model).to(device))
        self._amp, self._power = config.amp, config.quality_power
        self._distortion = config.mixture or Mixture({"ms-ssim": 1.0})
        _check_crop(config, self._distortion.weights)
        if config.compile:
            for part in (self.model.g_a, self.model.g_s, self.model.g_s_out):
                part.compile()

    def new_average(self) -> nn.Module:
        average = LatensBase(self.model.config).to(next(self.model.parameters()).device)
        average.load_state_dict(self.model.state_dict())
        return average.requires_grad_(False)

    def start(self, patches: Callable[[int], Tensor]) -> None:
        # On the CPU, so that a run starts alike on every device.
        fresh = LatensBase(self.model.config)
        fresh.initialise_from_patches(patches(40_000))
        self.model.load_state_dict(fresh.state_dict())

    def prepare(self, step: int, *, hard: bool) -> None:
        for part in (self.model.g_a, self.model.h_a):
            part.requires_grad_(not hard)

    def forward(self, x: Tensor, quality: Tensor, step: int, hard: bool) -> Tensor:
        quality = quality**self._power
        out = self.model(x, quality, noise=not hard, autocast=self._amp)
        rate, mse = rate_and_distortion(out, x)
        lmbda = self.model.lmbda(quality)
        distortion = self._distortion(out["x_hat"], x, lmbda)
        # Dividing by sqrt(lambda) makes a given relative saving of rate count alike at all qualities.
        return _figures((rate + lmbda * distortion) / lmbda.sqrt(), rate, mse)

    def files(self, model: nn.Module) -> Iterator[tuple[float, Callable[[Pixels], tuple[int, Pixels]]]]:
        network = cast(LatensBase, copy.deepcopy(model).cpu().eval())
        codec = ImageCodec(parse(frozen(network, "validation"), "validation"))
        for quality in VALIDATION_QUALITIES:

            def code(pixels: Pixels, quality: float = quality) -> tuple[int, Pixels]:
                data = codec.encode(Image(pixels), 100 * quality)
                return len(data), codec.decode(ltn.read(data))[0].pixels

            yield quality, code


class VideoObjective(Objective):
    """The default video model: frames after the first of each sequence, all rates in each batch."""

    variable_rate = True
    model: LatensVideo

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        super().__init__(_video_model(config).to(device))
        self._config = config

    def new_average(self) -> nn.Module:
        average = _video_model(self._config).to(next(self.model.parameters()).device)
        average.load_state_dict(self.model.state_dict())
        return average.requires_grad_(False)

    def prepare(self, step: int, *, hard: bool) -> None:
        self.model.h_a.requires_grad_(not hard)

    def forward(self, x: Tensor, quality: Tensor, step: int, hard: bool) -> Tensor:
        frames = x.view(len(x), -1, 3, *x.shape[2:])
        out = self.model(frames, quality, noise=not hard, autocast=self._config.amp)
        pairs = zip(out["x_hat"], out["likelihoods"], strict=True)
        found = [
            rate_and_distortion({"x_hat": x_hat, "likelihoods": likelihoods}, frames[:, t])
            for t, (x_hat, likelihoods) in enumerate(pairs, 1)
        ]
        rate, mse = (torch.stack(values) for values in zip(*found, strict=True))
        lmbda = self.model.image.lmbda(quality)
        return _figures((rate + lmbda * mse) / lmbda.sqrt(), rate, mse)

    def files(self, model: nn.Module) -> Iterator[tuple[float, Callable[[Pixels], tuple[int, Pixels]]]]:
        network = copy.deepcopy(cast(LatensVideo, model)).cpu().eval()
        data = frozen(network, "validation", image=zoo.load(self._config.image_model))
        codec = VideoCodec(parse(data, "validation", "video"))
        for quality in VALIDATION_QUALITIES:
            yield quality, partial(_code_clip, codec, 100 * quality)


def _code_clip(codec: VideoCodec, quality: float | None, pixels: Pixels) -> tuple[int, Pixels]:
    """Bytes of the file of a clip ``(n, H, W, 3)``, its first frame a key frame, and what it decodes to."""
    count, height, width = pixels.shape[:3]
    info = VideoInfo(width, height, chroma="4:4:4", colour=(1, 1, 1, 1))

    def frames() -> Iterator[VideoFrame]:
        for t, picture in enumerate(pixels):
            rgb = picture.astype(np.uint16) * 257
            yield VideoFrame(planes_from_rgb(rgb, info.chroma, 8, info.colour), t)

    file = io.BytesIO()
    for _ in codec.encode(info, frames(), file, structure=Structure(count, 0), quality=quality):
        pass
    reader = ltn.VideoReader(io.BytesIO(file.getvalue()))
    return file.tell(), np.stack([frame.rgb8() for frame in codec.decode(reader)])


class ZooObjective(Objective):
    """A published architecture of one rate, with mean squared error or MS-SSIM.

    Quantiles of entropy bottlenecks are no weights here: they follow from the densities, and are solved for
    every 25 steps.

    Attributes:
        transforms: names of the networks that may run in bfloat16.
    """

    transforms: tuple[str, ...] = ("g_a", "g_s", "h_a")
    model: CompressionModel

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        model = _zoo_model(config)
        super().__init__(_placed(model, device))
        self._distortion, self._lmbda = config.mixture, _lmbda(config)
        if self._distortion is None and self.variable_rate:
            raise TrainingError(
                f"{config.architecture}: the field has no lambdas for ms-ssim at variable rate; with "
                "'objective={\"ms-ssim\":1}' they are those of squared error"
            )
        _check_crop(config, self._distortion.weights if self._distortion else {"ms-ssim": 1.0})
        self._bottlenecks = [m for m in self.model.modules() if isinstance(m, EntropyBottleneck)]
        for bottleneck in self._bottlenecks:
            bottleneck.quantiles.requires_grad_(False)
        self._config = config
        for name, part in self.model.named_modules():
            if name.rpartition(".")[2] in self.transforms:
                if config.amp:
                    _run_in_bfloat16(part, device.type)
                if config.compile:
                    part.compile()

    def new_average(self) -> nn.Module:
        average = _placed(_zoo_model(self._config), next(self.model.parameters()).device)
        average.load_state_dict(self.model.state_dict())
        return average.eval().requires_grad_(False)

    def prepare(self, step: int, *, hard: bool) -> None:
        if step % _QUANTILES_EVERY == 0:
            for bottleneck in self._bottlenecks:
                bottleneck._update_quantiles()

    def forward(self, x: Tensor, quality: Tensor, step: int, hard: bool) -> Tensor:
        return _figures(*self._loss(self.model(x), x))

    def _loss(self, out: dict[str, Any], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, bits per pixel and mean squared error, each per sample."""
        rate, mse = rate_and_distortion(out, x)
        return rate + self._lmbda * self._distorted(out["x_hat"], x, self._lmbda), rate, mse

    def _distorted(self, x_hat: Tensor, x: Tensor, lmbda: float) -> Tensor:
        """The distortion per sample, as ``lmbda`` weighs it."""
        if self._distortion is None:
            return structural_dissimilarity(x_hat, x)
        return self._distortion(x_hat, x, torch.full((len(x),), lmbda, device=x.device))

    def files(self, model: nn.Module) -> Iterator[tuple[float, Callable[[Pixels], tuple[int, Pixels]]]]:
        coder = _with_tables(model)
        yield 0.0, partial(_code, coder)


class VbrObjective(ZooObjective):
    """A published architecture of variable rate: after some steps at the highest rate alone, four rates a batch."""

    variable_rate = True
    partly_used = True
    model: ScaleHyperpriorVbr

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        super().__init__(config, device)
        self._fixed_rate_steps = config.fixed_rate_steps

    def forward(self, x: Tensor, quality: Tensor, step: int, hard: bool) -> Tensor:
        weights = self.model.lmbda
        if step < self._fixed_rate_steps:
            out = self.model(x, stage=1)
            rate, mse = rate_and_distortion(out, x)
            distortion = self._distorted(out["x_hat"], x, weights[-1])
            return _figures((rate + weights[-1] * distortion) / math.sqrt(weights[-1]), rate, mse)
        losses, rates, distortions = [], [], []
        groups = min(_RATES_PER_BATCH, len(x))
        for part, levels in zip(x.tensor_split(groups), quality.tensor_split(groups), strict=True):
            # Drawn from those of the group, so that all levels come up alike.
            drawn = levels[int(torch.randint(len(levels), ()))]
            level = min(int(drawn * len(weights)), len(weights) - 1)
            out = self.model(part, stage=2, s=level)
            rate, mse = rate_and_distortion(out, part)
            distortion = self._distorted(out["x_hat"], part, weights[level])
            losses.append((rate + weights[level] * distortion) / math.sqrt(weights[level]))
            rates.append(rate)
            distortions.append(mse)
        return _figures(torch.cat(losses), torch.cat(rates), torch.cat(distortions))

    def files(self, model: nn.Module) -> Iterator[tuple[float, Callable[[Pixels], tuple[int, Pixels]]]]:
        coder = _with_tables(model)
        for level in range(self.model.levels):
            yield level / (self.model.levels - 1), partial(_code, coder, stage=2, s=level)


class FlowObjective(ZooObjective):
    """Scale-space flow of one rate: the mean over the frames of a sequence, the first of which is a picture."""

    # In bfloat16 a flow would be off by some hundredths of a pixel.
    transforms = ("img_encoder", "img_decoder", "res_encoder", "res_decoder", "motion_encoder")
    model: ScaleSpaceFlow

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        for name in ("crop", "large_crop"):
            if getattr(config, name) % _FLOW_GRID:
                raise TrainingError(
                    f"{config.architecture}: {name} must be a multiple of {_FLOW_GRID}, got {getattr(config, name)}"
                )
        super().__init__(config, device)

    def forward(self, x: Tensor, quality: Tensor, step: int, hard: bool) -> Tensor:
        losses, rates, distortions = [], [], []
        before: Tensor | None = None
        for frame in x.view(len(x), -1, 3, *x.shape[2:]).unbind(1):
            frame = frame.contiguous(memory_format=torch.channels_last)
            if before is None:
                x_hat, found = self.model.forward_keyframe(frame)
            else:
                x_hat, found = self.model.forward_inter(frame, before)
            # As in the model's own forward, no gradient flows into the first frame from others.
            through = before is not None and self._config.multi_frame
            before = x_hat if through else x_hat.detach()
            likelihoods = {f"{part}.{key}": p for part, pair in found.items() for key, p in pair.items()}
            loss, rate, mse = self._loss({"x_hat": x_hat, "likelihoods": likelihoods}, frame)
            losses.append(loss)
            rates.append(rate)
            distortions.append(mse)
        return _figures(torch.stack(losses), torch.stack(rates), torch.stack(distortions))

    def files(self, model: nn.Module) -> Iterator[tuple[float, Callable[[Pixels], tuple[int, Pixels]]]]:
        network = _with_tables(model).cpu()
        codec = VideoCodec(parse(frozen(network, "validation"), "validation", "video"))
        yield 0.0, partial(_code_clip, codec, None)


class FramesObjective(ZooObjective):
    """DCVC-RT: pictures on their own, or frames told of those before, four of its qualities a batch.

    The weight of the distortion rises evenly, on a logarithmic scale, from quality to quality; it is the squared error
    in YCbCr, six eighths of it of Y. The first frame of a sequence is taken as it is, for free: what a picture model
    makes of it, the networks learn to repair in use.
    """

    variable_rate = True
    partly_used = True
    transforms = ("enc", "dec", "encoder", "decoder", "recon_generation_net")
    model: DCVCRT | DCVCRTIntra

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        if config.metric != "mse" or config.objective:
            raise TrainingError(f"{config.architecture}: is trained for mse only")
        super().__init__(config, device)

    def forward(self, x: Tensor, quality: Tensor, step: int, hard: bool) -> Tensor:
        losses, rates, distortions = [], [], []
        groups = min(_RATES_PER_BATCH, len(x))
        for part, levels in zip(x.tensor_split(groups), quality.tensor_split(groups), strict=True):
            qp = int(float(levels[int(torch.randint(len(levels), ()))]) * 63)
            low, high = _FRAME_LAMBDAS
            lmbda = low * (high / low) ** (qp / 63)
            for frame, out in self._coded(part.view(len(part), -1, 3, *part.shape[2:]).unbind(1), qp):
                rate, _ = rate_and_distortion(out, frame)
                planes = (out["x_hat"] - frame).square().mean((2, 3)) * 255**2
                error = planes @ planes.new_tensor([0.75, 0.125, 0.125])
                losses.append((rate + lmbda * error) / math.sqrt(lmbda))
                rates.append(rate)
                distortions.append(squared_error(ycbcr2rgb(out["x_hat"]), ycbcr2rgb(frame)))
        return _figures(torch.cat(losses), torch.cat(rates), torch.cat(distortions))

    def _coded(self, frames: Iterable[Tensor], qp: int) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        """Frames in YCbCr and what they are coded as, one after the other."""
        reference: Reference | None = None
        for rgb in frames:
            frame = rgb2ycbcr(rgb).contiguous(memory_format=torch.channels_last)
            if isinstance(self.model, DCVCRTIntra):
                yield frame, self.model(frame, qp)
            elif reference is None:
                reference = Reference(frame=frame)
            else:
                out = self.model(frame, qp, reference)
                # Gradients stop here: frames learn to be good references from their own pixels.
                reference = Reference(feature=out["reference"].feature.detach())
                yield frame, out

    def files(self, model: nn.Module) -> Iterator[tuple[float, Callable[[Pixels], tuple[int, Pixels]]]]:
        coder = _with_tables(model)
        for quality in VALIDATION_QUALITIES:
            yield quality, partial(_code_frames, coder, round(quality * 63))


def _code_frames(coder: DCVCRT | DCVCRTIntra, qp: int, pixels: Pixels) -> tuple[int, Pixels]:
    """Bytes of the strings of a picture ``(H, W, 3)``, or of a clip without its first frame; what they decode to."""
    device = next(coder.parameters()).device
    frames = torch.from_numpy(np.array(pixels)).to(device).view(-1, *pixels.shape[-3:]).permute(0, 3, 1, 2)
    pad, unpad = compute_padding(frames.shape[2], frames.shape[3], min_div=16)
    frames = F.pad(rgb2ycbcr(frames.float() / 255.0), pad, mode="replicate")
    decoded, size = [], 0
    at_encoder = at_decoder = Reference(frame=frames[:1])
    for frame in frames[:, None]:
        if isinstance(coder, DCVCRTIntra):
            code = coder.compress(frame, qp)
            decoded.append(coder.decompress(code["strings"], code["shape"], qp)["x_hat"])
        elif not decoded:
            decoded.append(frame)
            continue
        else:
            code = coder.compress(frame, qp, at_encoder)
            out = coder.decompress(code["strings"], code["shape"], qp, at_decoder)
            at_encoder, at_decoder = code["reference"], out["reference"]
            decoded.append(out["x_hat"])
        size += sum(len(string) for part in code["strings"] for string in part)
    rgb = ycbcr2rgb(F.pad(torch.cat(decoded), unpad)).clamp(0, 1).permute(0, 2, 3, 1)
    return size, rgb.mul(255.0).round_().byte().cpu().numpy().reshape(pixels.shape)


def make_objective(config: TrainConfig, device: torch.device) -> Objective:
    """The objective of a configuration, with random weights.

    Raises:
        TrainingError: options that do not fit the architecture.
        ModelError: an unknown architecture, or sizes that it does not take.
    """
    if config.is_default_model:
        return DefaultObjective(config, device)
    if config.architecture == FLOW_ARCHITECTURE:
        return FlowObjective(config, device)
    if config.architecture == VIDEO_ARCHITECTURE:
        if config.metric != "mse" or config.objective:
            raise TrainingError(f"{VIDEO_ARCHITECTURE}: is trained for mse only")
        return VideoObjective(config, device)
    if issubclass(_model_class(config.architecture), _FRAME_MODELS):
        return FramesObjective(config, device)
    variable = issubclass(_model_class(config.architecture), ScaleHyperpriorVbr)
    return VbrObjective(config, device) if variable else ZooObjective(config, device)


def _check_crop(config: TrainConfig, distortions: Iterable[str]) -> None:
    """Refuse crops that a distortion is not defined for."""
    for name in distortions:
        least = _LEAST_CROPS.get(name, 0)
        sides = [side for side in (config.crop, config.large_crop) if side]
        if min(sides) < least:
            raise TrainingError(f"{name} needs crops of {least} pixels or more, got {min(sides)}")


def architecture_of(config: TrainConfig) -> dict[str, Any]:
    """What a checkpoint says about its networks, as plain values."""
    if config.is_default_model:
        return config.model.to_dict()
    if config.architecture == VIDEO_ARCHITECTURE:
        return {
            "name": VIDEO_ARCHITECTURE,
            "image_model": config.image_model,
            "video": config.video.to_dict(),
        }
    described = {"name": config.architecture, "sizes": list(_sizes(config))}
    if config.architecture == FLOW_ARCHITECTURE:
        described["flow_unit"] = config.flow_unit
    return described


def model_of(architecture: dict[str, Any]) -> nn.Module:
    """The model, with random weights, that :func:`architecture_of` describes.

    Raises:
        ModelError: an unknown architecture, or sizes out of range.
    """
    if "name" not in architecture:
        return LatensBase(LatensBaseConfig.from_dict(architecture))
    if architecture["name"] == VIDEO_ARCHITECTURE:
        video = LatensVideoConfig.from_dict(architecture["video"])
        return _video_model(TrainConfig(image_model=str(architecture["image_model"]), video=video))
    config = TrainConfig(
        architecture=str(architecture["name"]),
        sizes=tuple(architecture["sizes"]),
        lmbda=1.0,
        flow_unit=architecture.get("flow_unit", TrainConfig.flow_unit),
    )
    return _zoo_model(config)


def _video_model(config: TrainConfig) -> LatensVideo:
    image = zoo.load(config.image_model).base
    # Loading takes random numbers the first time, and none from the cache.
    torch.manual_seed(config.seed)
    return LatensVideo(image, config.video)


def _model_class(architecture: str) -> Any:
    known = {entry.id: entry for entry in zoo.entries()}
    if architecture in known:
        return known[architecture].model_class()
    if architecture in registry.MODELS:
        return registry.MODELS[architecture]
    names = [DEFAULT_ARCHITECTURE, VIDEO_ARCHITECTURE, *known]
    raise ModelError(f"unknown architecture {printable(architecture)!r}; there are {', '.join(names)}")


def _sizes(config: TrainConfig) -> tuple[int, ...]:
    if config.sizes:
        return config.sizes
    if config.architecture == FLOW_ARCHITECTURE:
        return _FLOW_SIZES
    sizes = next((entry.sizes for entry in zoo.entries() if entry.id == config.architecture), {})
    if 0 in sizes:
        return sizes[0]
    if config.quality in sizes:
        return sizes[config.quality]
    asked = f"a quality from {min(sizes)} to {max(sizes)}, or sizes" if sizes else "sizes"
    raise TrainingError(
        f"{printable(config.architecture)}: expected {asked}, such as sizes=[128,192]; "
        f"got quality {config.quality}"
    )


def _zoo_model(config: TrainConfig) -> CompressionModel:
    make, sizes = _model_class(config.architecture), _sizes(config)
    if config.architecture == FLOW_ARCHITECTURE:
        if len(sizes) != 2:
            raise TrainingError(f"{FLOW_ARCHITECTURE}: expected two sizes, N and M, got {list(sizes)}")
        return ScaleSpaceFlow(N=sizes[0], M=sizes[1], flow_unit=config.flow_unit)
    try:
        if config.architecture in {entry.id for entry in zoo.entries()}:
            # Before any memory is taken; others may not be made for this device.
            with torch.device("meta"):
                values = sum(parameter.numel() for parameter in make(*sizes).parameters())
            if values > _MOST_VALUES:
                raise TrainingError(
                    f"{config.architecture}: sizes {list(sizes)} would be {values:,} parameters; more than "
                    f"{_MOST_VALUES:,} are not trained here"
                )
        model = make(*sizes)
    except TypeError as error:
        raise TrainingError(
            f"{printable(config.architecture)}: does not take sizes {list(sizes)} ({error})"
        ) from error
    if not isinstance(model, CompressionModel):
        raise TrainingError(f"{printable(config.architecture)}: is no compression model of images")
    return model


def _lmbda(config: TrainConfig) -> float:
    """Weight of the distortion: as given, or that of the field's table."""
    if config.lmbda:
        return config.lmbda
    if config.architecture == FLOW_ARCHITECTURE:
        raise TrainingError(
            f"{FLOW_ARCHITECTURE}: its qualities have no agreed lambda; give lmbda, such as 0.01"
        )
    # Not all architectures were published with weights; the table is the same for those that were.
    measure = "ms-ssim" if config.mixture is None else "mse"
    table = zoo.entry("bmshj2018-hyperprior").lmbda[measure]
    if config.quality:
        return table[config.quality - 1]
    if issubclass(_model_class(config.architecture), (ScaleHyperpriorVbr, *_FRAME_MODELS)):
        return table[-1]
    raise TrainingError(f"{printable(config.architecture)}: expected a quality from 1 to 8, or lmbda")


def _placed(model: nn.Module, device: torch.device) -> nn.Module:
    """On a device, in the layout that convolutions like best."""
    placed: nn.Module = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed


def _run_in_bfloat16(part: nn.Module, device: str) -> None:
    forward = part.forward

    def low_precision(*args: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16):
            out: Tensor = forward(*args)
        return out.float()

    part.forward = low_precision


def _with_tables(model: nn.Module) -> Any:
    coder: Any = copy.deepcopy(model).eval()
    coder.update(force=True, update_quantiles=True)
    return coder


def _code(coder: Any, pixels: Pixels, **options: Any) -> tuple[int, Pixels]:
    """Bytes of all strings, and the decoded image."""
    device = next(coder.parameters()).device
    x = torch.from_numpy(np.array(pixels)).to(device).permute(2, 0, 1)[None].float() / 255.0
    pad, unpad = compute_padding(pixels.shape[0], pixels.shape[1], min_div=_GRID)
    code = coder.compress(F.pad(x, pad, mode="replicate"), **options)
    x_hat = coder.decompress(code["strings"], code["shape"], **options)["x_hat"]
    decoded = F.pad(x_hat, unpad)[0].permute(1, 2, 0).mul(255.0).round_().byte().cpu().numpy()
    return sum(len(string) for part in code["strings"] for string in part), decoded
