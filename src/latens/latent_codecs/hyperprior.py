"""A latent and its side information, together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from latens.errors import ShapeError
from latens.latent_codecs.base import LatentCodec, Strings, check_streams

__all__ = ["GainHyperpriorLatentCodec", "HyperpriorLatentCodec"]


class HyperpriorLatentCodec(LatentCodec):
    """A codec for ``y`` with parameters from a codec for side information.

    .. code-block:: none

           ┌──►── hyper ──►──┐
           │                 ▼ params
        y ─┴──►─ (×) ──►──── y ──►── (×) ──►── y_hat
                  ▲                   ▲
              (y_gain)           (y_gain_inv)

    Ballé, Minnen, Singh, Hwang, Johnston, "Variational image compression with a scale hyperprior", ICLR 2018.
    The gains are those of Cui et al., "Asymmetric gained deep image compression with continuous rate
    adaptation", CVPR 2021; leave them out for fixed rate. Each broadcasts against what it multiplies.

    Args:
        latent_codec: ``"hyper"``, which returns ``params``, and ``"y"``, which takes them.
    """

    def __init__(self, latent_codec: Mapping[str, LatentCodec], **kwargs: Any) -> None:
        super().__init__()
        self.y = latent_codec["y"]
        self.hyper = latent_codec["hyper"]

    @property
    def latent_codec(self) -> dict[str, LatentCodec]:
        """The two codecs by name."""
        return {"y": self.y, "hyper": self.hyper}

    def __getitem__(self, key: str) -> LatentCodec:
        return self.latent_codec[key]

    def forward(
        self,
        y: Tensor,
        y_gain: Tensor | None = None,
        z_gain: Tensor | None = None,
        y_gain_inv: Tensor | None = None,
        z_gain_inv: Tensor | None = None,
    ) -> dict[str, Any]:
        """``y`` is ``(B, C, H, W)``; returns ``likelihoods`` of ``y`` and ``z``, and ``y_hat``."""
        hyper = self.hyper(y, *_given(z_gain, z_gain_inv))
        out = self.y(_times(y, y_gain), hyper["params"])
        return {
            "likelihoods": {"y": out["likelihoods"]["y"], "z": hyper["likelihoods"]["z"]},
            "y_hat": _times(out["y_hat"], y_gain_inv),
        }

    def compress(
        self,
        y: Tensor,
        y_gain: Tensor | None = None,
        z_gain: Tensor | None = None,
        y_gain_inv: Tensor | None = None,
        z_gain_inv: Tensor | None = None,
    ) -> dict[str, Any]:
        """``strings`` are those of ``y`` and then those of ``hyper``; ``shape`` has a key for each."""
        hyper = self.hyper.compress(y, *_given(z_gain, z_gain_inv))
        out = self.y.compress(_times(y, y_gain), hyper["params"])
        return {
            "strings": [*out["strings"], *hyper["strings"]],
            "shape": {"y": out["shape"], "hyper": hyper["shape"]},
            "y_hat": _times(out["y_hat"], y_gain_inv),
        }

    def decompress(
        self,
        strings: Strings,
        shape: Mapping[str, Any],
        y_gain_inv: Tensor | None = None,
        z_gain_inv: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Raises ``ShapeError`` for other streams or shapes, ``CoderError`` for a damaged stream."""
        if not isinstance(shape, Mapping) or not {"y", "hyper"} <= shape.keys():
            raise ShapeError(
                f'shape must have the keys "y" and "hyper", as compress returns it, not {shape!r}'
            )
        if not isinstance(strings, (list, tuple)) or len(strings) < 2:
            raise ShapeError("expected lists of strings for y and for its side information")
        *y_strings, z_strings = check_streams(strings, len(strings))
        hyper = self.hyper.decompress([z_strings], shape["hyper"], *_given(z_gain_inv))
        out = self.y.decompress(y_strings, shape["y"], hyper["params"])
        return {"y_hat": _times(out["y_hat"], y_gain_inv)}


class GainHyperpriorLatentCodec(HyperpriorLatentCodec):
    """:class:`HyperpriorLatentCodec` under the name that says that gains are used with it."""


def _times(x: Tensor, gain: Tensor | None) -> Tensor:
    return x if gain is None else x * gain


def _given(*gains: Tensor | None) -> tuple[Tensor | None, ...]:
    # A codec for side information without gains need not know of them.
    return gains if any(gain is not None for gain in gains) else ()
