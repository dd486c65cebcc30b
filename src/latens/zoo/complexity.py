"""How much a model computes, counted without computing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from latens.entropy_models import EntropyModel
from latens.errors import ModelError
from latens.models.video import DCVCRT, DCVCRTIntra, ScaleSpaceFlow
from latens.models.video.dcvc import Reference

__all__ = ["Complexity", "count"]

_SIZE = 256  # pixels on each side; a multiple of what every model needs

# By the names they have throughout the literature.
_ENCODER_ONLY = (
    "g_a", "h_a", "motion_encoder", "res_encoder", "hyper_encoder", "encoder", "enc", "hyper_enc",
)  # fmt: skip
_DECODER_ONLY = ("g_s", "dec", "recon_generation_net")


@dataclass(frozen=True)
class Complexity:
    """Size and cost of a model.

    Attributes:
        parameters: number of trained values.
        encoding: multiply-accumulate operations per pixel to encode.
        decoding: multiply-accumulate operations per pixel to decode.
    """

    parameters: int
    encoding: float
    decoding: float


def _inputs(model: nn.Module, x: Tensor) -> tuple[Any, ...]:
    """What a model takes to code a picture, or a frame like it."""
    if isinstance(model, ScaleSpaceFlow):
        return ([x, x],)
    if isinstance(model, DCVCRT):
        return x, 0, Reference(feature=x.new_empty(len(x), model.dim, x.shape[2] // 8, x.shape[3] // 8))
    return (x, 0) if isinstance(model, DCVCRTIntra) else (x,)


def count(model: nn.Module) -> Complexity:
    """Count the products of convolutions and matrices when ``model`` codes an RGB image.

    Of a video model, this is a frame that is predicted from another; its encoder is a decoder, too.

    Every position of a context model counts once; probability models don't, because coding looks them up in tables.
    The model may be on the ``meta`` device, where it takes no memory.

    Raises:
        ModelError: it does not take an image of 256x256 pixels.
    """
    parameters = list(model.parameters())
    x = torch.empty(1, 3, _SIZE, _SIZE, device=parameters[0].device, dtype=parameters[0].dtype)
    training = model.training
    counter = FlopCounterMode(display=False)
    # The counter minds inputs that gradients flow to, which parameters may be.
    learned = [parameter for parameter in parameters if parameter.requires_grad]
    try:
        model.requires_grad_(False)
        with torch.no_grad(), counter:
            model.eval()(*_inputs(model, x))
    except (RuntimeError, ValueError, TypeError) as error:
        raise ModelError(
            f"{type(model).__name__} cannot be counted with an image {_SIZE}x{_SIZE}: {error}"
        ) from error
    finally:
        model.train(training)
        for parameter in learned:
            parameter.requires_grad_()
    by_module = counter.get_flop_counts()

    def operations(*modules: str) -> float:
        names = [name for module in modules for name in (f"{type(model).__name__}.{module}", module)]
        return sum(sum(by_module.get(name, {}).values()) for name in names) / 2

    # What only the first frame of a video goes through.
    once = [name for name, _ in model.named_children() if name.startswith("img_")]
    always = [(name, module) for name, module in model.named_modules() if name.partition(".")[0] not in once]

    def ending(*names: str) -> list[str]:
        # Transforms that the model makes of its modules when asked are counted under the names of their classes.
        children = dict(model.named_children())
        made = [
            type(getattr(model, name)).__name__
            for name in names
            if name not in children and hasattr(model, name)
        ]
        return made + [name for name, _ in always if name.rpartition(".")[2] in names]

    densities = [name for name, module in always if isinstance(module, EntropyModel)]
    total = counter.get_total_flops() / 2 - operations(*densities, *once)
    pixels = _SIZE * _SIZE
    return Complexity(
        parameters=sum(parameter.numel() for parameter in parameters),
        encoding=(total - operations(*ending(*_DECODER_ONLY))) / pixels,
        decoding=(total - operations(*ending(*_ENCODER_ONLY))) / pixels,
    )
