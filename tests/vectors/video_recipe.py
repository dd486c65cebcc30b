"""Scale-space flow, exercised: the same calls on the same weights and frames, whichever library it is from.

As in ``recipe.py``, nothing here may import either library.
"""

from __future__ import annotations

from typing import Any

import torch
from recipe import digest, fill, fix_noise, image, numbers, strings_of
from torch import Tensor

N, M = 4, 6


def clip(count: int = 3, height: int = 128, width: int = 256) -> list[Tensor]:
    """Frames that move to the left and down, and a change that motion does not explain."""
    still = image(1, height, width)
    frames = [still.roll((5 * t, -9 * t), (2, 3)) for t in range(count)]
    for t, frame in enumerate(frames):
        frame[:, t % 3, 20 * t : 20 * t + 30, 50:90] *= 0.4
    return frames


@torch.no_grad()
def fill_video(model: Any) -> None:
    """Weights that make motion of some pixels, all levels of blur, and scales inside the table."""
    fill(model)
    for name, module in model.named_children():
        if name.endswith("encoder"):
            for layer in (module[0], module[2], module[4], module[6]):
                layer.weight.mul_(2.0)
        elif name.endswith("hyperprior"):
            module.hyper_decoder_scale.deconv3.bias.add_(1.5)
            for conv in (module.hyper_encoder[0], module.hyper_encoder[2], module.hyper_encoder[4]):
                conv.weight.mul_(3.0)
    last = model.motion_decoder[6]
    last.weight[:, :2].mul_(0.02)
    last.bias[:2].mul_(0.1)
    last.weight[:, 2].mul_(2.0)


def exercise_video(model: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Train one step, make tables, evaluate, code, decode: tensors, and facts that are not tensors."""
    frames = clip()
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Any] = {}
    original = {m: dict(m.__dict__) for m in model.modules() if hasattr(m, "_quantized_cdf")}
    fix_noise(model)
    model.train()
    out = model(frames)
    parts = [p for frame in out["likelihoods"] for latent in frame.values() for p in latent.values()]
    loss = sum(x.square().sum() for x in out["x_hat"]) - sum(p.log().sum() for p in parts)
    loss.backward()
    aux = model.aux_loss()
    facts["aux_losses"] = len(aux)
    sum(aux).backward()
    tensors["loss"] = torch.stack([loss.detach(), *(a.detach() for a in aux)])
    for name, value in model.named_parameters():
        if value.grad is not None:
            weights = numbers("grad" + name, *value.shape)
            tensors["grad/" + name] = torch.stack([(value.grad * weights).sum(), value.grad.abs().sum()])
    for module, attributes in original.items():
        for name in module.__dict__.keys() - attributes.keys():
            delattr(module, name)

    model.eval()
    model.update()
    with torch.no_grad():
        out = model(frames)
        strings, shapes = model.compress(frames)
        decoded = model.decompress(strings, shapes)
        motion = numbers("motion", 1, 3, 64, 96)
        motion[:, :2] *= 0.2
        volume = model.gaussian_volume(image(1, 64, 96), 1.5, 5)
        tensors["volume"] = volume[..., ::7, ::7]
        tensors["warped"] = model.warp_volume(volume, motion[:, :2], motion[:, 2:])[..., ::3, ::3]
        tensors["predicted"] = model.forward_prediction(image(1, 64, 96), motion)[..., ::3, ::3]
    facts["likelihoods"] = [{k: sorted(v) for k, v in frame.items()} for frame in out["likelihoods"]]
    for t, (x, y) in enumerate(zip(out["x_hat"], decoded, strict=True)):
        tensors[f"x_hat/{t}"] = x[..., ::9, ::9]
        tensors[f"decoded/{t}"] = y[..., ::9, ::9]
    facts["strings"] = [
        [s.hex() for s in strings_of(list(frame.values()) if isinstance(frame, dict) else frame)]
        for frame in strings
    ]
    facts["shapes"] = repr(shapes).replace("torch.Size(", "").replace(")", "")
    facts["state"] = {k: [list(v.shape), str(v.dtype)] for k, v in model.state_dict().items()}
    facts["parameters"] = [name for name, _ in model.named_parameters()]
    facts["tables"] = {
        k: digest(v) for k, v in model.state_dict().items() if k.endswith(("_cdf", "_offset", "_cdf_length"))
    }
    return {k: v.clone().contiguous() for k, v in tensors.items()}, facts
