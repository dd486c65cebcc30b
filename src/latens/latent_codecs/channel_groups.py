"""Groups of channels, each with those before it as context."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from latens.errors import ModelError, ShapeError
from latens.latent_codecs.base import LatentCodec, Strings, check_streams

__all__ = ["ChannelGroupsLatentCodec"]


class ChannelGroupsLatentCodec(LatentCodec):
    """Codes channels in groups; a network turns the groups so far into parameters of the next.

    .. code-block:: none

        side_params ──┬───────────────┬───────────────────────────┬──►
                      ▼               ▼                           ▼
                     y0 ──► y1 ctx ─► y1 ──► y2 ctx (y0, y1) ───► y2 ──► ...

    Minnen, Singh, "Channel-wise autoregressive entropy models for learned image compression", ICIP 2020;
    He et al., "ELIC", CVPR 2022.

    Args:
        latent_codec: ``"y0"``, ``"y1"``, ...: the codec of each group given its parameters.
        channel_context: ``"y1"``, ``"y2"``, ...: network from the groups so far to parameters.
        groups: channels of each group.

    Raises:
        ModelError: a codec or a context is missing.
    """

    def __init__(
        self,
        latent_codec: Mapping[str, LatentCodec],
        channel_context: Mapping[str, nn.Module],
        *,
        groups: Sequence[int],
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.groups = list(groups)
        missing = [f"latent_codec[y{k}]" for k in range(len(self.groups)) if f"y{k}" not in latent_codec]
        missing += [f"channel_context[y{k}]" for k in range(1, len(groups)) if f"y{k}" not in channel_context]
        if missing:
            raise ModelError(f"{len(self.groups)} groups need {', '.join(missing)}")
        self.channel_context = nn.ModuleDict(dict(channel_context))
        self.latent_codec = nn.ModuleDict(dict(latent_codec))

    def __getitem__(self, key: str) -> LatentCodec:
        codec = self.latent_codec[key]
        if not isinstance(codec, LatentCodec):
            raise ModelError(f"{key} is not a latent codec")
        return codec

    def merge_y(self, *args: Tensor) -> Tensor:
        """What the context of a group sees of the groups before it: here, all of them."""
        return torch.cat(args, dim=1)

    def merge_params(self, *args: Tensor) -> Tensor:
        """Context and side parameters side by side."""
        return torch.cat(args, dim=1)

    def _traverse(self, code: Callable[[int, Tensor], Tensor], side_params: Tensor) -> Tensor:
        """Code all groups: ``code(k, params)`` trains, encodes or decodes group ``k`` and returns it."""
        decoded: list[Tensor] = []
        for k in range(len(self.groups)):
            params = side_params
            if k > 0:
                context = self.channel_context[f"y{k}"](self.merge_y(*decoded))
                params = self.merge_params(context, side_params)
            decoded.append(code(k, params))
        return torch.cat(decoded, dim=1)

    def _split(self, y: Tensor) -> tuple[Tensor, ...]:
        if y.shape[1] != sum(self.groups):
            raise ShapeError(
                f"expected {sum(self.groups)} channels for groups {self.groups}, not {y.shape[1]}"
            )
        return torch.split(y, self.groups, dim=1)

    def forward(self, y: Tensor, side_params: Tensor) -> dict[str, Any]:
        """``y`` is ``(B, sum(groups), H, W)``.

        Raises:
            ShapeError: another number of channels.
        """
        parts = self._split(y)
        likelihoods: list[Tensor] = []

        def train(k: int, params: Tensor) -> Tensor:
            out = self[f"y{k}"](parts[k], params)
            likelihoods.append(out["likelihoods"]["y"])
            y_hat: Tensor = out["y_hat"]
            return y_hat

        y_hat = self._traverse(train, side_params)
        return {"likelihoods": {"y": torch.cat(likelihoods, dim=1)}, "y_hat": y_hat}

    def compress(self, y: Tensor, side_params: Tensor) -> dict[str, Any]:
        """``strings`` are those of all groups in turn, ``shape`` has one entry per group.

        Raises:
            ShapeError: another number of channels.
        """
        parts = self._split(y)
        strings: list[list[bytes]] = []
        shapes: list[Any] = []

        def encode(k: int, params: Tensor) -> Tensor:
            out = self[f"y{k}"].compress(parts[k], params)
            strings.extend(out["strings"])
            shapes.append(out["shape"])
            y_hat: Tensor = out["y_hat"]
            return y_hat

        y_hat = self._traverse(encode, side_params)
        return {"strings": strings, "shape": shapes, "y_hat": y_hat}

    def decompress(
        self, strings: Strings, shape: Sequence[Any], side_params: Tensor, **kwargs: Any
    ) -> dict[str, Any]:
        """Raises ``ShapeError`` for other streams or shapes, ``CoderError`` for a damaged stream."""
        count = len(self.groups)
        if not isinstance(shape, (list, tuple)) or len(shape) != count:
            raise ShapeError(f"shape must have an entry for each of the {count} groups, not be {shape!r}")
        if not isinstance(strings, (list, tuple)) or not strings or len(strings) % count:
            raise ShapeError(
                f"expected as many streams for each of the {count} groups, as compress returns them"
            )
        streams = check_streams(strings, len(strings))
        bounds = list(pairwise(range(0, len(streams) + 1, len(streams) // count)))

        def decode(k: int, params: Tensor) -> Tensor:
            start, end = bounds[k]
            y_hat: Tensor = self[f"y{k}"].decompress(streams[start:end], shape[k], params)["y_hat"]
            return y_hat

        return {"y_hat": self._traverse(decode, side_params)}
