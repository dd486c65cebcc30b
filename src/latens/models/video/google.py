"""Scale-space flow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latens.entropy_models import EntropyBottleneck, GaussianConditional
from latens.errors import ModelError, ShapeError
from latens.layers import QReLU
from latens.models.base import CompressionModel, check_code
from latens.models.utils import conv, deconv, gaussian_blur
from latens.ops import quantize_ste

__all__ = ["FLOW_UNITS", "Hyperprior", "ScaleSpaceFlow"]

FLOW_UNITS = ("pixels", "relative", "corrected")
"""What a flow of 1 stands for: a pixel; half a frame; half a training crop."""

CROP = 256
"""Side of the crops that the published weights were trained on, pixels."""

_PADDING_MODES = ("border", "zeros", "reflection")


def _encoder(channels: int, N: int, M: int) -> nn.Sequential:
    relu = nn.ReLU(inplace=True)
    return nn.Sequential(conv(channels, N), relu, conv(N, N), relu, conv(N, N), relu, conv(N, M))


def _decoder(M: int, N: int, channels: int) -> nn.Sequential:
    relu = nn.ReLU(inplace=True)
    return nn.Sequential(deconv(M, N), relu, deconv(N, N), relu, deconv(N, N), relu, deconv(N, channels))


class _QuantisedDecoder(nn.Module):
    """From z to scales, with activations that are clamped to 0 ... 255."""

    def __init__(self, M: int) -> None:
        super().__init__()
        self.deconv1 = deconv(M, M)
        self.deconv2 = deconv(M, M)
        self.deconv3 = deconv(M, M)

    def forward(self, z: Tensor) -> Tensor:
        for layer in (self.deconv1, self.deconv2, self.deconv3):
            z = cast(Tensor, QReLU.apply(layer(z), 8, 100))  # type: ignore[no-untyped-call]
        return z


class Hyperprior(CompressionModel):
    """One latent of a frame, coded as Gaussians given side information.

    ``y`` is ``(B, M, H, W)`` with H and W multiples of 8, ``z`` is ``(B, M, H/8, W/8)``.

    Args:
        M: channels of y and of z.
    """

    def __init__(self, M: int = 192) -> None:
        super().__init__()
        self.entropy_bottleneck = EntropyBottleneck(M)
        relu = nn.ReLU(inplace=True)
        self.hyper_encoder = nn.Sequential(conv(M, M), relu, conv(M, M), relu, conv(M, M))
        self.hyper_decoder_mean = nn.Sequential(deconv(M, M), relu, deconv(M, M), relu, deconv(M, M))
        self.hyper_decoder_scale = _QuantisedDecoder(M)
        self.gaussian_conditional = GaussianConditional(None)

    def forward(self, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Round y with straight-through gradients. While training, z and what the likelihoods are of have noise.

        Returns:
            ``y_hat`` like ``y``, and the likelihoods of ``y`` and ``z``.
        """
        z_hat, z_likelihoods = self.entropy_bottleneck(self.hyper_encoder(y))
        scales, means = self.hyper_decoder_scale(z_hat), self.hyper_decoder_mean(z_hat)
        _, y_likelihoods = self.gaussian_conditional(y, scales, means)
        return quantize_ste(y - means) + means, {"y": y_likelihoods, "z": z_likelihoods}

    @torch.no_grad()
    def compress(self, y: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Code a latent.

        Returns:
            ``y_hat`` as :meth:`decompress` will return it, and a dictionary of ``strings`` (for y and for z, one
            string per sample) and ``shape`` (height and width of z).

        Raises:
            CoderError: a value that is not finite.
        """
        z = self.hyper_encoder(y)
        z_strings = self.entropy_bottleneck.compress(z)
        z_hat = self.entropy_bottleneck.dequantized(z)
        means = self.hyper_decoder_mean(z_hat)
        indexes = self.gaussian_conditional.build_indexes(self.hyper_decoder_scale(z_hat))
        y_strings = self.gaussian_conditional.compress(y, indexes, means)
        y_hat = torch.round(y - means).add_(means)
        return y_hat, {"strings": [y_strings, z_strings], "shape": z.shape[-2:]}

    @torch.no_grad()
    def decompress(self, strings: Sequence[Sequence[bytes]], shape: Sequence[int]) -> Tensor:
        """Undo :meth:`compress`.

        Raises:
            ShapeError: another number of strings or sizes.
            CoderError: a damaged string.
        """
        size = check_code(strings, shape, 2)
        z_hat = self.entropy_bottleneck.decompress(strings[1], size)
        means = self.hyper_decoder_mean(z_hat)
        indexes = self.gaussian_conditional.build_indexes(self.hyper_decoder_scale(z_hat))
        return self.gaussian_conditional.decompress(strings[0], indexes, z_hat.dtype, means)


class ScaleSpaceFlow(CompressionModel):
    r"""Frames predicted by warping a stack of ever more blurred copies of the frame before.

    .. code-block:: none

               ┌────────┐  y_motion  ┌─┐  ┌────────┐ flow, scale ┌────┐
        x ──┬──┤ motion ├──►─────────┤Q├──┤ motion ├──►──────────┤warp├──┬── x_pred
            │  │ encoder│            └─┘  │ decoder│             └─┬──┘  │
            │  └───┬────┘                 └────────┘               │     │
            │      └────────────── x_ref ──────────────────────────┘     │
            │  ┌────────┐  y_res     ┌─┐  ┌────────┐                     ▼
            └──┤ res    ├──►─────────┤Q├──┤ res    ├──►──────────────── (+) ──► x_hat
               │ encoder│            └─┘  │ decoder│
               └────────┘                 └────────┘

    The residual encoder takes ``x - x_pred``; the residual decoder takes both latents. Where prediction fails, a
    large scale lets it fail softly. The first frame is coded as a picture. Frames are ``(B, 3, H, W)`` with values from
    0 to 1, H and W multiples of 128; latents are ``(B, M, H/16, W/16)``.

    **The unit of the flow.** The published weights were trained on crops of 256 pixels, and their flow counts in
    halves of the *frame*, so that the same weights move things four times as far in a frame of 1024 pixels
    (CompressAI #307). Here the unit is a choice, ``flow_unit``:

    - ``"pixels"``: a flow of 1 is one pixel. For new models.
    - ``"relative"``: half the width or height of the frame, whatever its size; what CompressAI computes.
    - ``"corrected"``: 128 pixels, half a crop of the published training. The published weights at any size.

    Left at None it is pixels, until weights are loaded that do not know of the choice: these count in halves of the
    frame, so that checkpoints of CompressAI compute what they did. (Weights of this class know by the version that
    ``state_dict()`` carries. What has lost it, as in a safetensors file, needs an explicit unit.)

    Agustsson, Minnen, Johnston, Ballé, Hwang, Toderici, "Scale-space flow for end-to-end optimized video compression",
    CVPR 2020.

    Args:
        num_levels: blurred copies in the stack.
        sigma0: standard deviation of the first blur, pixels; it doubles from level to level.
        scale_field_shift: kept for compatibility; nothing depends on it.
        N: channels of the transforms.
        M: channels of the latents.
        flow_unit: see above.

    Raises:
        ModelError: an unknown unit, or no levels or blur.
    """

    _version = 2  # 1, or none: of CompressAI, whose flow is relative

    def __init__(
        self,
        num_levels: int = 5,
        sigma0: float = 1.5,
        scale_field_shift: float = 1.0,
        *,
        N: int = 128,
        M: int = 192,
        flow_unit: str | None = None,
    ) -> None:
        super().__init__()
        if num_levels < 1 or not 0 < sigma0 < 100:
            raise ModelError(
                f"num_levels must be positive and sigma0 in (0, 100), not {num_levels} and {sigma0}"
            )
        self.img_encoder = _encoder(3, N, M)
        self.img_decoder = _decoder(M, N, 3)
        self.img_hyperprior = Hyperprior(M)
        self.res_encoder = _encoder(3, N, M)
        self.res_decoder = _decoder(2 * M, N, 3)
        self.res_hyperprior = Hyperprior(M)
        self.motion_encoder = _encoder(6, N, M)
        self.motion_decoder = _decoder(M, N, 3)
        self.motion_hyperprior = Hyperprior(M)
        self.num_levels = num_levels
        self.sigma0 = sigma0
        self.scale_field_shift = scale_field_shift
        self._flow_unit_is_explicit = flow_unit is not None
        self._flow_unit = "pixels"
        if flow_unit is not None:
            self.flow_unit = flow_unit

    @property
    def flow_unit(self) -> str:
        """What a flow of 1 stands for: one of :data:`FLOW_UNITS`. May be set."""
        return self._flow_unit

    @flow_unit.setter
    def flow_unit(self, unit: str) -> None:
        if unit not in FLOW_UNITS:
            raise ModelError(f"flow_unit must be one of {', '.join(FLOW_UNITS)}, not {unit!r}")
        self._flow_unit, self._flow_unit_is_explicit = unit, True

    # -- prediction -----------------------------------------------------------------------------------------

    @staticmethod
    def gaussian_volume(x: Tensor, sigma: float, num_levels: int) -> Tensor:
        """A frame and its blurred copies.

        Args:
            x: ``(B, C, H, W)``; H and W multiples of ``2^(num_levels - 1)``.
            sigma: standard deviation of the first blur, pixels.
            num_levels: number of copies.

        Returns:
            ``(B, C, num_levels + 1, H, W)``, the sharp frame first.

        Raises:
            ShapeError: a size that cannot be halved so often.
        """
        step = 2 ** (num_levels - 1)
        if x.dim() != 4 or any(size % step or size == 0 for size in x.shape[2:]):
            raise ShapeError(f"expected frames with sides that are multiples of {step}, got {tuple(x.shape)}")
        levels = [x]
        smaller = x
        for level in range(num_levels):
            if level > 0:
                smaller = F.avg_pool2d(smaller, 2)
            smaller = gaussian_blur(smaller, kernel_size=2 * math.ceil(3 * sigma) + 1, sigma=sigma)
            copy = smaller
            for _ in range(level):
                copy = F.interpolate(copy, scale_factor=2.0, mode="bilinear", align_corners=False)
            levels.append(copy)
        return torch.stack(levels, 2)

    def warp_volume(
        self, volume: Tensor, flow: Tensor, scale_field: Tensor, padding_mode: str = "border"
    ) -> Tensor:
        """Look up every pixel in a stack of blurred frames.

        Args:
            volume: ``(B, C, D, H, W)``.
            flow: ``(B, 2, H, W)``, how far to look right and down, in :attr:`flow_unit`.
            scale_field: ``(B, 1, H, W)``, the level to look in: from -1, the edge of the first, to 1, the edge
                of the last.
            padding_mode: what is outside: ``"border"`` (the nearest value), ``"zeros"`` or ``"reflection"``.

        Returns:
            ``(B, C, H, W)``.

        Raises:
            ShapeError: sizes that do not fit.
            ModelError: an unknown padding mode.
        """
        if padding_mode not in _PADDING_MODES:
            raise ModelError(f"padding_mode must be one of {', '.join(_PADDING_MODES)}, not {padding_mode!r}")
        if volume.dim() != 5:
            raise ShapeError(
                f"expected a volume (batch, channels, levels, height, width), got {tuple(volume.shape)}"
            )
        batch, channels, depth, height, width = volume.shape
        if flow.shape != (batch, 2, height, width) or scale_field.shape != (batch, 1, height, width):
            raise ShapeError(
                f"expected a flow {(batch, 2, height, width)} and a scale field {(batch, 1, height, width)}, "
                f"got {tuple(flow.shape)} and {tuple(scale_field.shape)}"
            )
        unit = {
            "pixels": (2 / width, 2 / height),
            "relative": (1.0, 1.0),
            "corrected": (CROP / width, CROP / height),
        }
        right, down = unit[self._flow_unit]
        x = _centres(width, flow) + flow[:, 0] * right
        y = _centres(height, flow)[:, None] + flow[:, 1] * down
        grid = torch.stack((x, y), -1)
        if padding_mode != "border":
            points = torch.cat((grid, scale_field.permute(0, 2, 3, 1)), -1)
            return F.grid_sample(volume, points[:, None], padding_mode=padding_mode, align_corners=False)[
                :, :, 0
            ]
        # All levels are sampled in the plane, and two of them mixed: trilinear sampling is slower by far on CPUs.
        planes = F.grid_sample(volume.flatten(1, 2), grid, padding_mode="border", align_corners=False)
        level = ((scale_field + 1) * (0.5 * depth) - 0.5).clamp(0, depth - 1)
        levels = planes.view(batch, channels, depth, height, width).unbind(2)
        weights = [(1 - (level - number).abs()).clamp_min(0) for number in range(depth)]
        mixed = levels[0] * weights[0]
        for plane, weight in zip(levels[1:], weights[1:], strict=True):
            mixed.addcmul_(plane, weight)
        return mixed

    def forward_prediction(self, x_ref: Tensor, motion_info: Tensor) -> Tensor:
        """The frame before, moved.

        Args:
            x_ref: ``(B, 3, H, W)``.
            motion_info: ``(B, 3, H, W)``: flow to the right, flow down, scale.

        Returns:
            ``(B, 3, H, W)``.

        Raises:
            ShapeError: sizes that do not fit.
        """
        if motion_info.dim() != 4 or motion_info.shape[1] != 3:
            raise ShapeError(f"expected motion (batch, 3, height, width), got {tuple(motion_info.shape)}")
        volume = self.gaussian_volume(x_ref, self.sigma0, self.num_levels)
        return self.warp_volume(volume, motion_info[:, :2], motion_info[:, 2:])

    # -- training -------------------------------------------------------------------------------------------

    def forward(self, frames: Sequence[Tensor]) -> dict[str, Any]:
        """Code and decode a clip without strings, differentiably in training mode.

        Args:
            frames: list of ``(B, 3, H, W)``, at least one.

        Returns:
            ``x_hat``: list like ``frames``; ``likelihoods``: for the first frame ``{"keyframe": {"y", "z"}}``, for
            the others ``{"motion": {"y", "z"}, "residual": {"y", "z"}}``. No gradient flows into the
            first from the others.

        Raises:
            ShapeError: no list of frames of one size that the model can code.
        """
        self._check_frames(frames)
        x_hat, likelihoods = self.forward_keyframe(frames[0])
        decoded, found = [x_hat], [likelihoods]
        x_hat = x_hat.detach()
        for frame in frames[1:]:
            x_hat, likelihoods = self.forward_inter(frame, x_hat)
            decoded.append(x_hat)
            found.append(likelihoods)
        return {"x_hat": decoded, "likelihoods": found}

    def forward_keyframe(self, x: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """The decoded first frame, and its likelihoods as in :meth:`forward`."""
        y_hat, likelihoods = self.img_hyperprior(self._transform(self.img_encoder, x))
        return self._picture(y_hat), {"keyframe": likelihoods}

    def forward_inter(self, x_cur: Tensor, x_ref: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """A decoded further frame, and its likelihoods as in :meth:`forward`."""
        motion_hat, motion_likelihoods = self.motion_hyperprior(self._motion(x_cur, x_ref))
        x_pred = self._predict(x_ref, motion_hat)
        res_hat, res_likelihoods = self.res_hyperprior(self._transform(self.res_encoder, x_cur - x_pred))
        return self._add(x_pred, res_hat, motion_hat), {
            "motion": motion_likelihoods,
            "residual": res_likelihoods,
        }

    def aux_loss(self) -> list[Tensor]:  # type: ignore[override]
        """:meth:`EntropyBottleneck.loss` of the three hyperpriors: of pictures, residuals, motion."""
        return [m.loss() for m in self.modules() if isinstance(m, EntropyBottleneck)]

    # -- coding ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_keyframe(self, x: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Code a frame as a picture.

        Returns:
            The decoded frame, and ``{"strings", "shape"}`` for :meth:`decode_keyframe`.

        Raises:
            ShapeError: a frame of another type or size than the model takes.
            CoderError: NaN in the frame or in the weights.
        """
        decoded, code = self._code_keyframe(x)
        return decoded(), code

    @torch.no_grad()
    def decode_keyframe(self, strings: Sequence[Sequence[bytes]], shape: Sequence[int]) -> Tensor:
        """Undo :meth:`encode_keyframe`.

        Raises:
            ShapeError: another number of strings, or another shape.
            CoderError: a damaged string.
        """
        return self._picture(self.img_hyperprior.decompress(strings, shape))

    @torch.no_grad()
    def encode_inter(self, x_cur: Tensor, x_ref: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Code a frame, given the frame before as the decoder has it.

        Returns:
            The decoded frame, and ``{"strings", "shape"}``, both with the keys ``motion`` and ``residual``.

        Raises:
            ShapeError: frames of another type or size than the model takes.
            CoderError: NaN in a frame or in the weights.
        """
        decoded, code = self._code_inter(x_cur, x_ref)
        return decoded(), code

    @torch.no_grad()
    def decode_inter(
        self,
        x_ref: Tensor,
        strings: Mapping[str, Sequence[Sequence[bytes]]],
        shapes: Mapping[str, Sequence[int]],
    ) -> Tensor:
        """Undo :meth:`encode_inter`.

        Raises:
            ShapeError: strings or shapes that do not fit.
            CoderError: a damaged string.
        """
        for name, given in (("strings", strings), ("shapes", shapes)):
            if not isinstance(given, Mapping) or given.keys() != {"motion", "residual"}:
                raise ShapeError(f"expected {name} of 'motion' and 'residual', as encode_inter returns them")
        motion_hat = self.motion_hyperprior.decompress(strings["motion"], shapes["motion"])
        res_hat = self.res_hyperprior.decompress(strings["residual"], shapes["residual"])
        expected = tuple(size // 16 for size in x_ref.shape[2:])
        if motion_hat.shape[2:] != expected or res_hat.shape[2:] != expected:
            raise ShapeError(f"shapes {dict(shapes)} do not fit a reference frame {tuple(x_ref.shape)}")
        return self._add(self._predict(x_ref, motion_hat), res_hat, motion_hat)

    @torch.no_grad()
    def compress(self, frames: Sequence[Tensor]) -> tuple[list[Any], list[Any]]:
        """Code a clip.

        Returns:
            The strings and the shapes of all frames, for :meth:`decompress`.

        Raises:
            ShapeError: no list of frames of one size that the model can code.
            CoderError: NaN in a frame or in the weights.
        """
        self._check_frames(frames)
        decoded, code = self._code_keyframe(frames[0])
        codes = [code]
        for frame in frames[1:]:
            decoded, code = self._code_inter(frame, decoded())
            codes.append(code)
        return [code["strings"] for code in codes], [code["shape"] for code in codes]

    @torch.no_grad()
    def decompress(self, strings: Sequence[Any], shapes: Sequence[Any]) -> list[Tensor]:
        """Undo :meth:`compress`.

        Returns:
            The decoded frames.

        Raises:
            ShapeError: numbers of strings or shapes that do not fit.
            CoderError: a damaged string.
        """
        if not strings or len(strings) != len(shapes):
            raise ShapeError(
                f"expected strings and shapes of each frame, got {len(strings)} and {len(shapes)}"
            )
        frames = [self.decode_keyframe(strings[0], shapes[0])]
        for string, shape in zip(strings[1:], shapes[1:], strict=True):
            frames.append(self.decode_inter(frames[-1], string, shape))
        return frames

    # -- checkpoints ----------------------------------------------------------------------------------------

    @classmethod
    def _arguments(cls, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "N": state_dict["img_encoder.0.weight"].shape[0],
            "M": state_dict["img_encoder.6.weight"].shape[0],
        }

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Mapping[str, Any], *args: Any
    ) -> None:
        if not self._flow_unit_is_explicit:
            self._flow_unit = "pixels" if local_metadata.get("version", 1) >= 2 else "relative"
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    # -- parts ----------------------------------------------------------------------------------------------

    # Coding returns what makes the decoded frame, not the frame: nobody needs that of the last one.

    def _code_keyframe(self, x: Tensor) -> tuple[Callable[[], Tensor], dict[str, Any]]:
        self._check_image(x, self.img_encoder, 16, 8)
        y_hat, code = self.img_hyperprior.compress(self._transform(self.img_encoder, x))
        return lambda: self._picture(y_hat), code

    def _code_inter(self, x_cur: Tensor, x_ref: Tensor) -> tuple[Callable[[], Tensor], dict[str, Any]]:
        self._check_frames([x_cur, x_ref])
        motion_hat, motion = self.motion_hyperprior.compress(self._motion(x_cur, x_ref))
        x_pred = self._predict(x_ref, motion_hat)
        res_hat, residual = self.res_hyperprior.compress(self._transform(self.res_encoder, x_cur - x_pred))
        parts = {"motion": motion, "residual": residual}
        code = {key: {name: part[key] for name, part in parts.items()} for key in ("strings", "shape")}
        return lambda: self._add(x_pred, res_hat, motion_hat), code

    def _picture(self, y_hat: Tensor) -> Tensor:
        return self._transform(self.img_decoder, y_hat)

    def _motion(self, x_cur: Tensor, x_ref: Tensor) -> Tensor:
        return self._transform(self.motion_encoder, torch.cat((x_cur, x_ref), 1))

    def _predict(self, x_ref: Tensor, motion_hat: Tensor) -> Tensor:
        return self.forward_prediction(x_ref, self._transform(self.motion_decoder, motion_hat))

    def _add(self, x_pred: Tensor, res_hat: Tensor, motion_hat: Tensor) -> Tensor:
        return x_pred + self._transform(self.res_decoder, torch.cat((res_hat, motion_hat), 1))

    def _check_frames(self, frames: Sequence[Tensor]) -> None:
        if not isinstance(frames, (list, tuple)) or not frames:
            raise ShapeError(f"expected a list of frames, but got {type(frames).__name__}")
        for frame in frames:
            self._check_image(frame, self.img_encoder, 16, 8)
            if frame.shape != frames[0].shape:
                raise ShapeError(
                    f"all frames must have one size, but there are {tuple(frames[0].shape)} and {tuple(frame.shape)}"
                )


def _centres(size: int, like: Tensor) -> Tensor:
    """Where the pixels of a row are, from -1 (its left edge) to 1."""
    return (torch.arange(size, dtype=like.dtype, device=like.device) * 2 + (1 - size)) / size
