"""What every latent codec promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from latens.errors import ShapeError

__all__ = ["LatentCodec", "Strings"]

Strings = Sequence[Sequence[bytes]]
"""One sequence per stream, each with a string per batch element."""


class LatentCodec(nn.Module):
    """Turns a latent ``y`` into likelihoods, or into strings and back; codecs are built from codecs.

    ``forward(y, ...) -> {"likelihoods", "y_hat"}`` is for training, ``compress(y, ...) -> {"strings",
    "shape", "y_hat"}`` and ``decompress(strings, shape, ...) -> {"y_hat"}`` are for coding. What else they take
    is up to the codec. A codec that gives parameters instead of a latent has ``params`` in place of ``y_hat``.

    The order in which a latent is coded is written once per codec, as a traversal that is handed a function to
    train, encode or decode one part with. So the directions cannot differ.
    """

    def forward(self, y: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Likelihoods and quantised latent."""
        raise NotImplementedError

    def compress(self, y: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Strings, their shape, and the latent that the decoder will have."""
        raise NotImplementedError

    def decompress(self, strings: Strings, shape: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The latent behind ``strings``."""
        raise NotImplementedError


def check_streams(strings: object, count: int) -> Strings:
    """Check that there are ``count`` streams for the same number of batch elements.

    Raises:
        ShapeError: there are not.
    """
    if not isinstance(strings, (list, tuple)) or len(strings) != count:
        found = len(strings) if isinstance(strings, (list, tuple)) else type(strings).__name__
        raise ShapeError(f"expected {count} list(s) of strings, as compress returns them, but got {found}")
    for part in strings:
        if not isinstance(part, (list, tuple)) or len(part) != len(strings[0]):
            raise ShapeError("every list of strings must have one string per batch element")
        if not all(isinstance(string, bytes) for string in part):
            raise ShapeError("strings must be bytes")
    return strings


def check_size(shape: object, expected: Sequence[int]) -> None:
    """Check that the ``shape`` beside some strings is the one that their side information has.

    Raises:
        ShapeError: it is another one.
    """
    if not isinstance(shape, (list, tuple)) or tuple(shape) != tuple(expected):
        raise ShapeError(f"the shape beside the strings should be {tuple(expected)}, but is {shape!r}")
