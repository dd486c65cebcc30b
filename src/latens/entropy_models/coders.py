"""The entropy coders that an entropy model can be given by name."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from latens.ans import RansDecoder, RansEncoder
from latens.entropy_coding import CdfTables, Decoder, Encoder
from latens.entropy_models.rangecoder import RangeCoder
from latens.errors import ModelError

__all__ = ["EntropyCoder", "available_entropy_coders", "get_entropy_coder", "set_entropy_coder"]

IntArray = NDArray[np.int32]


class SymbolEncoder(Protocol):
    """Writes a string, in as many calls as wanted."""

    def push(self, symbols: IntArray, indexes: IntArray, tables: Any) -> None:
        """Code ``symbols`` in C order; raises ``CoderError`` for an index without a table."""

    def finish(self) -> bytes:
        """The string of all symbols."""


class SymbolDecoder(Protocol):
    """Reads a string, in the same calls that wrote it."""

    def decode(self, indexes: IntArray, tables: Any) -> IntArray:
        """The next symbols, shaped like ``indexes``; raises ``CoderError`` for damaged data."""

    def finish(self) -> None:
        """Check that the string ends here; raises ``CoderError`` if not."""


class EntropyCoder(Protocol):
    """Turns symbols into bytes and back. Symbol ``i`` is coded with table ``indexes[i]``."""

    name: str

    def register(self, cdfs: IntArray, sizes: IntArray, offsets: IntArray) -> Any:
        """Check the tables and prepare them for coding.

        Args:
            cdfs: ``(tables, entries)``; each row rises from 0 to 2^16 and is padded beyond its size.
            sizes: ``(tables,)``, entries in use per row.
            offsets: ``(tables,)``, value of the first symbol of each table.

        Raises:
            TableError: the tables are not valid.
        """

    def encoder(self) -> SymbolEncoder:
        """An encoder of a new string."""

    def decoder(self, data: bytes) -> SymbolDecoder:
        """A decoder at the start of ``data``; raises ``CoderError`` if they cannot be a string."""


class _AnsCoder:
    """The library's rANS coder; streams are byte-identical to CompressAI's."""

    name = "ans"

    def register(self, cdfs: IntArray, sizes: IntArray, offsets: IntArray) -> CdfTables:
        return CdfTables(cdfs, sizes, offsets)

    def encoder(self) -> Encoder:
        return Encoder()

    def decoder(self, data: bytes) -> Decoder:
        return Decoder(data)

    # What entropy models written for CompressAI call.

    def encode_with_indexes(self, *args: Any) -> bytes:
        """See :meth:`latens.ans.RansEncoder.encode_with_indexes`."""
        return RansEncoder().encode_with_indexes(*args)

    def decode_with_indexes(self, *args: Any) -> list[int]:
        """See :meth:`latens.ans.RansDecoder.decode_with_indexes`."""
        return RansDecoder().decode_with_indexes(*args)


_CODERS: dict[str, Callable[[], EntropyCoder]] = {"ans": _AnsCoder, "rangecoder": RangeCoder}

# A context variable and not a plain global: another thread's models keep the coder they were promised.
_default: ContextVar[str] = ContextVar("latens_entropy_coder", default="ans")


def available_entropy_coders() -> list[str]:
    """Names that ``entropy_coder=`` and :func:`set_entropy_coder` accept.

    ``"ans"`` is the library's own; ``"rangecoder"`` is there if the package ``constriction`` is.
    """
    return ["ans", "rangecoder"] if find_spec("constriction") else ["ans"]


def get_entropy_coder() -> str:
    """Name of the coder that new entropy models get in this thread or task unless told otherwise."""
    return _default.get()


def set_entropy_coder(entropy_coder: str) -> str:
    """Choose the coder of entropy models made from now on in this thread or task; returns its name.

    Raises:
        ModelError: there is no coder of this name, or it needs a package that is not installed.
    """
    _default.set(coder_by_name(entropy_coder).name)
    return entropy_coder


def coder_by_name(name: str | None) -> EntropyCoder:
    """The coder called ``name``, or the default one for None.

    Raises:
        ModelError: there is no coder of this name, or it needs a package that is not installed.
    """
    name = _default.get() if name is None else name
    if name not in _CODERS:
        available = ", ".join(available_entropy_coders())
        raise ModelError(f"unknown entropy coder {name!r}; available: {available}")
    return _CODERS[name]()
