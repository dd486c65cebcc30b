"""One position after the other, each with those above and to the left as context."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latens.entropy_models import GaussianConditional
from latens.entropy_models.coders import SymbolDecoder, SymbolEncoder
from latens.errors import ModelError, ShapeError
from latens.latent_codecs.base import LatentCodec, Strings, check_size, check_streams
from latens.layers import MaskedConv2d

__all__ = ["PositionCodec", "RasterScan", "RasterScanLatentCodec"]

Code = Callable[[int, Tensor], Tensor]
"""Takes position and parameters, encodes or decodes one vector of channels, and returns it."""


class PositionCodec:
    """How the channels of one position become symbols and back: here, as Gaussians, in steps around the means.

    ``state`` is whatever :meth:`begin` and :meth:`resume` return for one image.
    """

    def __init__(self, gaussian_conditional: GaussianConditional) -> None:
        self.gaussian_conditional = gaussian_conditional

    def begin(self, latent: Tensor) -> tuple[bytes, Any]:
        """What to write before the first symbol of a latent, and the state to encode with."""
        return b"", self.gaussian_conditional._tables()

    def resume(self, string: bytes) -> tuple[bytes, Any]:
        """What follows what :meth:`begin` wrote, and the state to decode with."""
        return string, self.gaussian_conditional._tables()

    def encode(self, y: Tensor, params: Tensor, encoder: SymbolEncoder, state: Any) -> Tensor:
        """Code ``y`` of shape ``(C,)``; returns what will be decoded."""
        scales, means = params.chunk(2)
        symbols = self.symbols(y, means)
        encoder.push(symbols.cpu().numpy(), self.indexes(scales).cpu().numpy(), state)
        return self.values(symbols, scales, means)

    def decode(self, params: Tensor, decoder: SymbolDecoder, state: Any) -> Tensor:
        """The next vector of ``C`` values."""
        scales, means = params.chunk(2)
        symbols = decoder.decode(self.indexes(scales).cpu().numpy(), state)
        return self.values(torch.from_numpy(symbols).to(means.device), scales, means)

    def indexes(self, scales: Tensor) -> Tensor:
        """Tables of the symbols."""
        return self.gaussian_conditional.build_indexes(scales)

    def symbols(self, y: Tensor, means: Tensor) -> Tensor:
        """Symbols of latents, int32."""
        return self.gaussian_conditional.quantize(y, "symbols", means)

    def values(self, symbols: Tensor, scales: Tensor, means: Tensor) -> Tensor:
        """Latents of symbols."""
        return symbols + means


class RasterScan:
    """The traversal of :class:`RasterScanLatentCodec`, for modules that it does not own.

    With ``arithmetic="own"`` everything but the two positions to the left is computed row by row or image by
    image, as matrix products, and the linear maps between them and the first activation are one matrix.
    ``"reference"`` runs the networks position by position, as CompressAI does, so that strings can be
    exchanged with it on one machine. The two differ in the last bits; decode with what was encoded with.

    Args:
        gaussian_conditional: the entropy model.
        entropy_parameters: network from side parameters and context, concatenated, to scales and means; for
            ``"own"`` a sequence of 1x1 convolutions and ReLUs or leaky ReLUs.
        context_prediction: masked convolution from the latent to context, odd square kernel.
        arithmetic: ``"own"`` or ``"reference"``.
        position_codec: :class:`PositionCodec` by default.
        context_offset: added to the context of every position, one number per channel of it.

    Raises:
        ModelError: another arithmetic, or networks that it cannot use.
    """

    def __init__(
        self,
        gaussian_conditional: GaussianConditional,
        entropy_parameters: nn.Module,
        context_prediction: MaskedConv2d,
        arithmetic: str = "own",
        position_codec: PositionCodec | None = None,
        context_offset: Tensor | None = None,
    ) -> None:
        if arithmetic not in ("own", "reference"):
            raise ModelError(f'arithmetic must be "own" or "reference", not {arithmetic!r}')
        self.gaussian_conditional = gaussian_conditional
        self.entropy_parameters = entropy_parameters
        self.context_prediction = context_prediction
        self.arithmetic = arithmetic
        self.position_codec = position_codec or PositionCodec(gaussian_conditional)
        self.context_offset = context_offset
        self.reach = context_prediction.kernel_size[0] // 2
        centre = self.reach * context_prediction.kernel_size[1] + self.reach
        if bool(context_prediction.mask.flatten(2)[..., centre:].any()):
            raise ModelError("the context must not see the position that is being coded, nor later ones")

    # -- directions -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def compress(self, y: Tensor, params: Tensor) -> tuple[list[bytes], Tensor]:
        """Strings of ``y``, ``(B, C, H, W)``, and what they decode to.

        Raises:
            ShapeError: side parameters of another size.
            CoderError: a latent or a scale is not finite.
        """
        if params.shape[0] != y.shape[0] or params.shape[2:] != y.shape[2:]:
            raise ShapeError(
                f"side parameters of {tuple(params.shape)} do not fit a latent of {tuple(y.shape)}"
            )
        codec, coder = self.position_codec, self.gaussian_conditional.entropy_coder
        strings, decoded = [], []
        # Images are coded one by one: in a batch, products would be summed in another order.
        for image, side in zip(y, params, strict=True):
            rows = image.flatten(1).t().contiguous()
            header, state = codec.begin(rows)
            encoder = coder.encoder()
            encode = partial(_encode, codec, rows, encoder, state)
            decoded.append(self._traverse(encode, side[None], y.shape[1]))
            strings.append(header + encoder.finish())
        return strings, torch.cat(decoded)

    @torch.no_grad()
    def decompress(self, strings: Sequence[bytes], params: Tensor) -> Tensor:
        """What is behind ``strings``; side parameters give the size.

        Raises:
            ShapeError: another number of strings.
            CoderError: a damaged string.
        """
        if len(strings) != params.shape[0]:
            raise ShapeError(
                f"expected {params.shape[0]} strings, one per batch element, but got {len(strings)}"
            )
        codec, coder = self.position_codec, self.gaussian_conditional.entropy_coder
        channels = self.context_prediction.in_channels
        decoded = []
        for string, side in zip(strings, params, strict=True):
            stream, state = codec.resume(string)
            decoder = coder.decoder(stream)
            decode = partial(_decode, codec, decoder, state)
            decoded.append(self._traverse(decode, side[None], channels))
            decoder.finish()
        return torch.cat(decoded)

    # -- the traversal --------------------------------------------------------------------------------------

    def _traverse(self, code: Code, params: Tensor, channels: int) -> Tensor:
        """Code all positions of one image in turn; returns the latent, ``(1, C, H, W)``."""
        height, width = params.shape[2:]
        reach = self.reach
        # Channels last, so that the positions to the left of one are one run of memory.
        latent = params.new_zeros((height + reach, width + 2 * reach, channels))
        predict = self._own(latent, params) if self.arithmetic == "own" else self._reference(latent, params)
        for position, parameters in enumerate(predict):
            row, column = divmod(position, width)
            latent[row + reach, column + reach] = code(position, parameters)
        return latent[reach:, reach : reach + width].permute(2, 0, 1)[None].contiguous()

    def _reference(self, latent: Tensor, params: Tensor) -> Iterator[Tensor]:
        """Parameters of each position, by the networks as they are."""
        height, width = params.shape[2:]
        convolution, reach = self.context_prediction, self.reach
        weight = convolution.weight * convolution.mask
        crop = params.new_zeros((1, latent.shape[2], 2 * reach + 1, 2 * reach + 1))
        for row in range(height):
            for column in range(width):
                seen = latent[row : row + reach + 1, column : column + 2 * reach + 1]
                crop[0, :, : reach + 1] = seen.permute(2, 0, 1)
                context = F.conv2d(crop, weight, convolution.bias)
                if self.context_offset is not None:
                    context = context + self.context_offset[:, None, None]
                side = params[:, :, row : row + 1, column : column + 1]
                gaussian = self.entropy_parameters(torch.cat((side, context), dim=1))
                yield gaussian.flatten()

    def _own(self, latent: Tensor, params: Tensor) -> Iterator[Tensor]:
        """Parameters of each position, by matrix products."""
        height, width = params.shape[2:]
        reach = self.reach
        (first, first_bias), *others = self._linear_layers()
        sides = params.shape[1]
        from_side, from_context = first[:, :sides], first[:, sides:]

        # Weight of the context as (taps, in, out) so that windows of the latent multiply it as they lie.
        convolution = self.context_prediction
        weight = (convolution.weight * convolution.mask).permute(2, 3, 1, 0)
        above = weight[:reach].flatten(0, 2)
        left = (from_context @ weight[reach, :reach].flatten(0, 1).t()).contiguous()
        start = first_bias
        if convolution.bias is not None:
            start = start + from_context @ convolution.bias
        if self.context_offset is not None:
            start = start + from_context @ self.context_offset
        hidden = torch.addmm(start, params[0].flatten(1).t(), from_side.t()).view(height, width, -1)

        span = 2 * reach + 1
        for row in range(height):
            windows = latent[row : row + reach].unfold(1, span, 1).permute(1, 0, 3, 2).reshape(width, -1)
            hidden[row] += (windows @ above) @ from_context.t()
            for column in range(width):
                seen = latent[row + reach, column : column + reach].view(-1)
                out = torch.addmv(hidden[row, column], left, seen)
                for activation, matrix, bias in others:
                    out = torch.addmv(bias, matrix, activation(out))
                yield out

    def _linear_layers(self) -> list[Any]:
        """The first layer as matrix and bias, and each further one with the activation before it."""
        network = self.entropy_parameters
        modules = list(network) if isinstance(network, nn.Sequential) else [network]
        layers: list[Any] = []
        activation: nn.Module | None = None
        for module in modules:
            if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1:
                bias = module.weight.new_zeros(module.out_channels) if module.bias is None else module.bias
                matrix = module.weight[:, :, 0, 0]
                if not layers and activation is None:
                    layers.append((matrix, bias))
                    continue
                if layers and activation is not None:
                    layers.append((activation, matrix, bias))
                    activation = None
                    continue
            elif isinstance(module, (nn.ReLU, nn.LeakyReLU)) and activation is None:
                activation = module
                continue
            activation = module
            break
        if not layers or activation is not None:
            raise ModelError(
                "entropy_parameters must be 1x1 convolutions with ReLUs or leaky ReLUs between them for "
                'arithmetic="own"; use arithmetic="reference" for anything else'
            )
        return layers


def _encode(
    codec: PositionCodec, rows: Tensor, encoder: SymbolEncoder, state: Any, position: int, params: Tensor
) -> Tensor:
    return codec.encode(rows[position], params, encoder, state)


def _decode(
    codec: PositionCodec, decoder: SymbolDecoder, state: Any, position: int, params: Tensor
) -> Tensor:
    return codec.decode(params, decoder, state)


class RasterScanLatentCodec(LatentCodec):
    """Codes a latent position by position, with a masked convolution over what is coded as context.

    .. code-block:: none

                        params
                           ▼
        y_hat ──► CP ──►─ EP ──► scales, means
          ▲                           ▼
        y ─────►── Q ──►── GaussianConditional ──► y_hat

    Minnen, Ballé, Toderici, "Joint autoregressive and hierarchical priors for learned image compression",
    NeurIPS 2018.

    Args:
        gaussian_conditional: the entropy model.
        entropy_parameters: EP, from side parameters and context, concatenated, to scales and means.
        context_prediction: CP, a masked convolution.
        arithmetic: see :class:`RasterScan`.
    """

    def __init__(
        self,
        gaussian_conditional: GaussianConditional,
        entropy_parameters: nn.Module,
        context_prediction: MaskedConv2d,
        arithmetic: str = "own",
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.gaussian_conditional = gaussian_conditional
        self.entropy_parameters = entropy_parameters
        self.context_prediction = context_prediction
        self.arithmetic = arithmetic

    def _scan(self) -> RasterScan:
        return RasterScan(
            self.gaussian_conditional, self.entropy_parameters, self.context_prediction, self.arithmetic
        )

    @staticmethod
    def merge(*args: Tensor) -> Tensor:
        """Side parameters and context side by side."""
        return torch.cat(args, dim=1)

    def forward(self, y: Tensor, params: Tensor) -> dict[str, Any]:
        """``y`` is ``(B, C, H, W)``, ``params`` ``(B, P, H, W)``."""
        return raster_forward(
            self.gaussian_conditional, self.entropy_parameters, self.context_prediction, y, params
        )

    def compress(self, y: Tensor, ctx_params: Tensor) -> dict[str, Any]:
        """``shape`` is ``(H, W)``."""
        strings, y_hat = self._scan().compress(y, ctx_params)
        return {"strings": [strings], "shape": y.shape[2:4], "y_hat": y_hat}

    def decompress(
        self, strings: Strings, shape: Sequence[int], ctx_params: Tensor, **kwargs: Any
    ) -> dict[str, Any]:
        """Raises ``ShapeError`` for another number of streams or size, ``CoderError`` for damage."""
        (part,) = check_streams(strings, 1)
        check_size(shape, ctx_params.shape[2:])
        return {"y_hat": self._scan().decompress(part, ctx_params)}


def raster_forward(
    gaussian_conditional: GaussianConditional,
    entropy_parameters: nn.Module,
    context_prediction: nn.Module,
    y: Tensor,
    params: Tensor,
) -> dict[str, Any]:
    """Likelihoods and quantised latent, all positions at once."""
    y_hat = gaussian_conditional.quantize(y, "noise" if gaussian_conditional.training else "dequantize")
    gaussian = entropy_parameters(torch.cat((params, context_prediction(y_hat)), dim=1))
    scales, means = gaussian.chunk(2, 1)
    _, likelihoods = gaussian_conditional(y, scales, means=means)
    return {"likelihoods": {"y": likelihoods}, "y_hat": y_hat}
