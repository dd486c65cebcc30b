"""Generalised divisive normalisation."""

# TorchScript does not understand annotations that are put off (from __future__ import annotations).
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latens.errors import ShapeError
from latens.ops import NonNegativeParametrizer

__all__ = ["GDN", "GDN1"]

_BLOCK_BYTES = 2**20
"""What is normalised together on a CPU: little enough for the cache, and enough for several threads."""


class GDN(nn.Module):
    r"""Generalised divisive normalisation: each channel is divided by a pooled energy of all channels.

    .. math:: y_i = x_i \, / \, \sqrt{\beta_i + \sum_j \gamma_{ij} x_j^2}

    Ballé, Laparra, Simoncelli, "Density modeling of images using a generalized normalization
    transformation", ICLR 2016.

    Args:
        in_channels: number of channels.
        inverse: multiply instead of dividing (IGDN, the approximate inverse).
        beta_min: smallest value of beta.
        gamma_init: initial weight of a channel in its own pool.
        inplace: the input may be overwritten where no gradients are asked for, which saves memory and time.
    """

    def __init__(
        self,
        in_channels: int,
        inverse: bool = False,
        beta_min: float = 1e-6,
        gamma_init: float = 0.1,
        *,
        inplace: bool = False,
    ) -> None:
        super().__init__()
        self.inplace = bool(inplace)
        self.inverse = bool(inverse)
        self.beta_reparam = NonNegativeParametrizer(minimum=float(beta_min))
        self.gamma_reparam = NonNegativeParametrizer()
        self.beta = nn.Parameter(self.beta_reparam.init(torch.ones(in_channels)))
        self.gamma = nn.Parameter(self.gamma_reparam.init(float(gamma_init) * torch.eye(in_channels)))

    def _energy(self, x: Tensor) -> Tensor:
        return x * x

    def _scale(self, x: Tensor, pooled: Tensor) -> Tensor:
        """``x`` over (or times) the root of ``pooled``."""
        return x * (torch.sqrt(pooled) if self.inverse else torch.rsqrt(pooled))

    def _scale_into(self, out: Tensor, x: Tensor, pooled: Tensor) -> None:
        """The same without new memory: ``pooled`` is overwritten, and ``out`` may be ``x``."""
        torch.mul(x, pooled.sqrt_() if self.inverse else pooled.rsqrt_(), out=out)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(batch, channels, height, width)``; shape and memory layout are kept.

        Raises:
            ShapeError: another number of dimensions or channels.
        """
        channels = self.beta.shape[0]
        if x.dim() != 4 or x.shape[1] != channels:
            raise ShapeError(f"expected (batch, {channels}, height, width), but got {list(x.shape)}")
        beta = self.beta_reparam(self.beta)
        gamma = self.gamma_reparam(self.gamma)
        if not torch.jit.is_scripting() and self._in_blocks(x):  # type: ignore[attr-defined]
            return self._blocks(x, beta, gamma)
        return self._scale(x, F.conv2d(self._energy(x), gamma[:, :, None, None], beta))

    @torch.jit.unused
    def _in_blocks(self, x: Tensor) -> bool:
        """Whether :meth:`_blocks` can do it."""
        return (
            x.device.type == "cpu"
            and not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and x.is_contiguous(memory_format=torch.channels_last)
        )

    @torch.jit.unused
    def _blocks(self, x: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
        """A matrix product over pixels, in blocks that stay in the cache from the first operation to the last."""
        channels = x.shape[1]
        rows = x.permute(0, 2, 3, 1).reshape(-1, channels)
        beta, gamma = beta.to(x.dtype), gamma.to(x.dtype)
        out = rows if self.inplace else torch.empty_like(rows)
        size = max(1, _BLOCK_BYTES // (channels * rows.element_size()))
        weight, pooled = gamma.t().contiguous(), rows.new_empty(min(size, len(rows)), channels)
        for block, target in zip(torch.split(rows, size), torch.split(out, size), strict=True):
            pool = torch.addmm(beta, self._energy(block), weight, out=pooled[: len(block)])
            self._scale_into(target, block, pool)
        return out.view(x.shape[0], *x.shape[2:], channels).permute(0, 3, 1, 2)


class GDN1(GDN):
    r"""Simplified GDN: absolute values instead of squares, and no root.

    .. math:: y_i = x_i \, / \, (\beta_i + \sum_j \gamma_{ij} |x_j|)

    Johnston, Eban, Gordon, Ballé, "Computationally efficient neural image compression", 2019.
    """

    def _energy(self, x: Tensor) -> Tensor:
        return torch.abs(x)

    def _scale(self, x: Tensor, pooled: Tensor) -> Tensor:
        return x * pooled if self.inverse else x / pooled

    def _scale_into(self, out: Tensor, x: Tensor, pooled: Tensor) -> None:
        (torch.mul if self.inverse else torch.div)(x, pooled, out=out)
