"""Two passes over a checkerboard."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latens.errors import ModelError, ShapeError
from latens.latent_codecs.base import LatentCodec, Strings, check_size, check_streams
from latens.latent_codecs.leaves import GaussianConditionalLatentCodec
from latens.layers import MaskedConv2d
from latens.ops import quantize_ste

__all__ = ["CheckerboardLatentCodec"]


class CheckerboardLatentCodec(LatentCodec):
    """Codes the positions of one colour of a checkerboard, then the others with the first as context.

    .. code-block:: none

        positions      anchors      the others
        □ □ □ □        ■ □ ■ □      □ ■ □ ■
        □ □ □ □        □ ■ □ ■      ■ □ ■ □
        □ □ □ □        ■ □ ■ □      □ ■ □ ■

    He, Zheng, Sun, Wang, Qin, "Checkerboard context model for efficient learned image compression",
    CVPR 2021. ``entropy_parameters`` must look at one position at a time (1x1 convolutions and activations).

    Args:
        latent_codec: ``"y"``, the codec of one half given its parameters.
        entropy_parameters: network from context and side parameters, concatenated, to those of ``"y"``.
        context_prediction: network from the latent (other half zero) to context, as a rule a
            :class:`CheckerboardMaskedConv2d`.
        anchor_parity: ``"even"`` if the top left position is an anchor, else ``"odd"``.
        forward_method: how to train. ``"twopass"`` quantises around the means as the coder does;
            ``"twopass_faster"`` does too and takes parameters of anchors from the second pass;
            ``"onepass"`` sees all context at once, from rounded or noisy values.

    Raises:
        ModelError: an unknown parity or method.
    """

    def __init__(
        self,
        latent_codec: Mapping[str, LatentCodec],
        entropy_parameters: nn.Module,
        context_prediction: nn.Module,
        anchor_parity: str = "even",
        forward_method: str = "twopass",
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if anchor_parity not in ("even", "odd"):
            raise ModelError(f'anchor_parity must be "even" or "odd", not {anchor_parity!r}')
        if forward_method not in ("onepass", "twopass", "twopass_faster"):
            raise ModelError(
                f'forward_method must be "onepass", "twopass" or "twopass_faster", not {forward_method!r}'
            )
        self.anchor_parity = anchor_parity
        self.forward_method = forward_method
        self.entropy_parameters = entropy_parameters
        self.context_prediction = context_prediction
        self.y = latent_codec["y"]

    @property
    def non_anchor_parity(self) -> str:
        """Parity of the positions coded second."""
        return "odd" if self.anchor_parity == "even" else "even"

    @property
    def latent_codec(self) -> dict[str, LatentCodec]:
        """The codec of one half, by name."""
        return {"y": self.y}

    def __getitem__(self, key: str) -> LatentCodec:
        return self.latent_codec[key]

    def merge(self, *args: Tensor) -> Tensor:
        """Context and side parameters side by side."""
        return torch.cat(args, dim=1)

    def _parameters_of(self, context: Tensor, side_params: Tensor) -> Tensor:
        """Parameters of ``"y"``."""
        params: Tensor = self.entropy_parameters(self.merge(context, side_params))
        return params

    # Codecs of other people override this, or have a context that is no convolution.
    @torch.no_grad()
    def _y_ctx_zero(self, y: Tensor) -> Tensor:
        """The context of anchors, which have none: zeros, for ``y`` of shape ``(B, C, H, W)``."""
        if isinstance(self.context_prediction, nn.Conv2d):
            return y.new_zeros((len(y), self.context_prediction.out_channels, *y.shape[2:]))
        return torch.zeros_like(self.context_prediction(y))

    # -- training -------------------------------------------------------------------------------------------

    def forward(self, y: Tensor, side_params: Tensor) -> dict[str, Any]:
        """``y`` is ``(B, C, H, W)``, ``side_params`` ``(B, P, H, W)``."""
        if self.forward_method == "onepass":
            noisy = self.quantize(y)
            context = self._second(self.context_prediction(noisy))
            out = self.y(y, self._parameters_of(context, side_params))
            return {"likelihoods": {"y": out["likelihoods"]["y"]}, "y_hat": noisy}

        first = self._parameters_of(self._y_ctx_zero(y), side_params)
        anchors = self._first(self._rounded(y, first))
        context = self.context_prediction(anchors)
        if self.forward_method == "twopass_faster":
            second = self._parameters_of(self._second(context), side_params)
            out = self.y(y, second)
            y_hat = anchors + self._second(out["y_hat"])
        else:
            second = self._parameters_of(context, side_params)
            out = self.y(y, self._first(first) + self._second(second))
            y_hat = anchors + self._second(self._rounded(y, second))
        return {"likelihoods": {"y": out["likelihoods"]["y"]}, "y_hat": y_hat}

    def quantize(self, y: Tensor) -> Tensor:
        """``y`` with noise while training, rounded else."""
        return y + torch.empty_like(y).uniform_(-0.5, 0.5) if self.training else torch.round(y)

    def _rounded(self, y: Tensor, params: Tensor) -> Tensor:
        if not hasattr(self.y, "_chunk"):
            raise ModelError('two-pass training needs a GaussianConditionalLatentCodec as "y"')
        _, means = cast(GaussianConditionalLatentCodec, self.y)._chunk(params)
        return quantize_ste(y) if means is None else quantize_ste(y - means) + means

    def _keep(self, x: Tensor, parity: str) -> Tensor:
        rows, columns = (torch.arange(size, device=x.device) for size in x.shape[-2:])
        odd = (rows[:, None] + columns[None, :]) % 2 == 1
        return torch.where(odd if parity == "odd" else ~odd, x, torch.zeros_like(x))

    def _first(self, x: Tensor) -> Tensor:
        return self._keep(x, self.anchor_parity)

    def _second(self, x: Tensor) -> Tensor:
        return self._keep(x, self.non_anchor_parity)

    # -- coding ---------------------------------------------------------------------------------------------

    def _traverse(self, code: Callable[[int, Tensor], Tensor], channels: int, side_params: Tensor) -> Tensor:
        """Code both halves in turn: ``code(i, params)`` encodes or decodes half ``i`` and returns it."""
        side = self.unembed(side_params)
        # No memory is taken for what only tells a size.
        nothing = side_params.new_zeros(()).expand(len(side_params), channels, *side_params.shape[2:])
        anchors = code(0, self._parameters_of(self.unembed(self._y_ctx_zero(nothing))[0], side[0]))
        others = code(1, self._parameters_of(self._context_of(anchors), side[1]))
        return self.embed(torch.stack((anchors, others)))

    def _context_of(self, anchors: Tensor) -> Tensor:
        """Context of the others: ``(B, C, H, W / 2)`` to ``(B, P, H, W / 2)``.

        An ordinary convolution would multiply zeros three times out of four. In the plane of anchors, the kernel is
        half as wide, and another one in odd rows than in even ones.
        """
        convolution = self.context_prediction
        if not _is_usual(convolution):
            both = self.embed(torch.stack((anchors, torch.zeros_like(anchors))))
            return self.unembed(convolution(both))[1]
        height, width = convolution.kernel_size
        reach = (width // 2 + 1) // 2
        taps = (convolution.weight * convolution.mask).flatten(2)
        taps = F.pad(taps, (0, 1))
        padded = F.pad(anchors, (reach, reach, height // 2, height // 2))
        context = anchors.new_empty((len(anchors), convolution.out_channels, *anchors.shape[2:]))
        for row in range(min(2, anchors.shape[2])):
            chosen = self._taps_of_row(row, height, width).to(anchors.device)
            kernel = taps.index_select(2, chosen).view(*taps.shape[:2], height, 2 * reach + 1)
            context[:, :, row::2] = F.conv2d(padded[:, :, row:], kernel, convolution.bias, stride=(2, 1))
        return context

    def _taps_of_row(self, row: int, height: int, width: int) -> Tensor:
        """For each tap in the plane of anchors the one of the kernel, or the number of taps for none."""
        reach = (width // 2 + 1) // 2
        column = {(half, parity): shift for half, parity, shift in self._cells()}
        chosen = torch.full((height, 2 * reach + 1), height * width)
        for y, x in itertools.product(range(height), range(width)):
            down, right = y - height // 2, x - width // 2
            steps = column[1, row % 2] + right - column[0, (row + down) % 2]
            if steps % 2 == 0:
                chosen[y, steps // 2 + reach] = y * width + x
        return chosen.flatten()

    def compress(self, y: Tensor, side_params: Tensor) -> dict[str, Any]:
        """``strings`` are those of both halves, ``shape`` is ``(C, H, W)``. ``W`` must be even.

        Raises:
            ShapeError: the width is odd.
        """
        halves = self.unembed(y)
        strings: list[list[bytes]] = []

        def encode(i: int, params: Tensor) -> Tensor:
            out = self.y.compress(halves[i], params)
            strings.extend(out["strings"])
            y_hat: Tensor = out["y_hat"]
            return y_hat

        y_hat = self._traverse(encode, y.shape[1], side_params)
        return {"strings": strings, "shape": y.shape[1:], "y_hat": y_hat}

    def decompress(
        self, strings: Strings, shape: Sequence[int], side_params: Tensor, **kwargs: Any
    ) -> dict[str, Any]:
        """Raises ``ShapeError`` for other streams or sizes, ``CoderError`` for a damaged stream."""
        streams = check_streams(strings, 2)
        check_size(shape[1:], side_params.shape[2:])
        half = (shape[1], shape[2] // 2)

        def decode(i: int, params: Tensor) -> Tensor:
            y_hat: Tensor = self.y.decompress([streams[i]], half, params)["y_hat"]
            return y_hat

        return {"y_hat": self._traverse(decode, shape[0], side_params)}

    def unembed(self, y: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(2, B, C, H, W / 2)``: anchors, and the others.

        Raises:
            ShapeError: ``W`` is odd.
        """
        if y.shape[-1] % 2:
            raise ShapeError(f"a checkerboard needs an even width, not {y.shape[-1]}")
        halves = y.new_empty((2, *y.shape[:-1], y.shape[-1] // 2))
        for half, row, column in self._cells():
            halves[half, ..., row::2, :] = y[..., row::2, column::2]
        return halves

    def embed(self, y_: Tensor) -> Tensor:
        """Undo :meth:`unembed`."""
        y = y_.new_empty((*y_.shape[1:-1], y_.shape[-1] * 2))
        for half, row, column in self._cells():
            y[..., row::2, column::2] = y_[half, ..., row::2, :]
        return y

    def _cells(self) -> list[tuple[int, int, int]]:
        """For each half and row parity, the parity of its columns."""
        odd = self.anchor_parity == "odd"
        return [(half, row, (half + row + odd) % 2) for half in (0, 1) for row in (0, 1)]


def _is_usual(context: nn.Module) -> TypeGuard[MaskedConv2d]:
    """Whether a context is a masked convolution that keeps height and width and does nothing else."""
    return (
        isinstance(context, MaskedConv2d)
        and type(context).forward is MaskedConv2d.forward
        and context.stride == context.dilation == (1, 1)
        and context.padding_mode == "zeros"
        and context.padding == (context.kernel_size[0] // 2, context.kernel_size[1] // 2)
        and context.groups == 1
    )
