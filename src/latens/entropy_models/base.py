"""What every entropy model shares: quantisation, integer tables, and coding with them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latens.entropy_coding import pmfs_to_quantized_cdfs
from latens.entropy_models.coders import EntropyCoder, coder_by_name
from latens.errors import CoderError, LimitError, ModelError, ShapeError, TableError
from latens.ops import LowerBound

__all__ = ["EntropyModel"]

PRECISION = 16
"""Bits of a probability: every CDF table ends at 2^16."""

MAX_TABLE_SYMBOLS = 2**PRECISION - 1
"""Symbols of one table: each needs a probability of at least 2^-16, and so does the escape."""

MAX_TABLE_ENTRIES = 2**24
"""Entries of all tables of one model together; protects memory from weights that ask for absurd tables."""

_MAX_VALUES_PER_BYTE = 2**20
"""The surest symbol has a probability of 1 - 2^-16, so that a byte holds up to 363,409 of them."""

# Zig-zag coding of an escaped symbol doubles its distance from the table; this keeps it inside 32 bits.
MAX_SYMBOL = 2**29

_TABLE_BUFFERS = ("_offset", "_quantized_cdf", "_cdf_length")


class Unchanged:
    """Whether tensors are still what they were when this was made.

    Args:
        *tensors: to be watched. They are kept alive.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self._known = [(t, *self._mark(t)) for t in tensors]

    @staticmethod
    def _mark(tensor: Tensor) -> tuple[int, Tensor | None]:
        # Tensors of inference mode do not count changes, so their values are kept.
        return (0, tensor.clone()) if tensor.is_inference() else (tensor._version, None)

    def __call__(self, *tensors: Tensor) -> bool:
        """Whether these are the same tensors, with the same values."""
        return len(tensors) == len(self._known) and all(
            tensor is known
            and (tensor._version == version if values is None else torch.equal(tensor, values))
            for tensor, (known, version, values) in zip(tensors, self._known, strict=True)
        )


def lasting(tensor: Tensor) -> Tensor:
    """A copy that can be written to in and out of inference mode, where tensors born inside cannot."""
    with torch.inference_mode(False):
        return tensor.detach().clone()


class EntropyModel(nn.Module):
    """Base class of the entropy models: quantises latents and codes them with integer CDF tables.

    The tables are buffers and travel with the weights: ``_quantized_cdf`` of shape ``(tables, entries)``,
    each row rising from 0 to 2^16, ``_cdf_length`` of shape ``(tables,)`` with the entries in use, and
    ``_offset`` of shape ``(tables,)`` with the value of the first symbol. All are int32. Subclasses make
    them when a model is first asked to code, or is saved in evaluation mode; a model of this very class
    has nothing to make them from and raises until they are set.

    Args:
        likelihood_bound: likelihoods below are raised to this value; 0 switches the bound off.
        entropy_coder: name of the coder (see :func:`latens.entropy_models.available_entropy_coders`);
            None takes the default of this thread.
        entropy_coder_precision: bits of a probability. Only 16 is supported.

    Raises:
        ModelError: an unknown coder or precision.
    """

    _offset: Tensor
    _quantized_cdf: Tensor
    _cdf_length: Tensor

    def __init__(
        self,
        likelihood_bound: float = 1e-9,
        entropy_coder: str | None = None,
        entropy_coder_precision: int = PRECISION,
    ) -> None:
        super().__init__()
        if entropy_coder_precision != PRECISION:
            raise ModelError(
                f"entropy_coder_precision must be {PRECISION}, the only precision that streams can have, "
                f"not {entropy_coder_precision}"
            )
        self.entropy_coder: EntropyCoder = coder_by_name(entropy_coder)
        self.entropy_coder_precision = PRECISION
        self.use_likelihood_bound = likelihood_bound > 0
        if self.use_likelihood_bound:
            self.likelihood_lower_bound = LowerBound(likelihood_bound)
        for name in _TABLE_BUFFERS:
            self.register_buffer(name, torch.IntTensor())
        # The weights that the present tables stand for; None: the tables were set by hand, or there are none.
        self._made_from: Tensor | None = None
        self._registered: tuple[Unchanged, Any] | None = None
        self.register_load_state_dict_post_hook(_tables_loaded)  # type: ignore[no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        # Native tables can neither be copied nor pickled; they are registered anew when needed.
        return {**self.__dict__, "_registered": None}

    @property
    def offset(self) -> Tensor:
        """Value of the first symbol of each table, ``(tables,)``, int32."""
        return self._offset

    @property
    def quantized_cdf(self) -> Tensor:
        """The CDF tables, ``(tables, entries)``, int32."""
        return self._quantized_cdf

    @property
    def cdf_length(self) -> Tensor:
        """Entries in use of each table, ``(tables,)``, int32."""
        return self._cdf_length

    def forward(self, *args: Any) -> Any:
        """Defined by subclasses."""
        raise NotImplementedError

    # -- quantisation ---------------------------------------------------------------------------------------

    def quantize(self, inputs: Tensor, mode: str, means: Tensor | None = None) -> Tensor:
        """Quantise a tensor.

        Args:
            inputs: any shape.
            mode: ``"noise"`` adds uniform noise in [-0.5, 0.5); ``"dequantize"`` rounds around ``means``;
                ``"symbols"`` returns the rounded distance to ``means`` as int32.
            means: broadcasts against ``inputs``. Not used by ``"noise"``.

        Raises:
            ModelError: an unknown mode.
            CoderError: the mode is ``"symbols"`` and a value is not finite or beyond +-2^29.
        """
        if mode == "noise":
            return inputs + torch.empty_like(inputs).uniform_(-0.5, 0.5)
        if mode not in ("dequantize", "symbols"):
            raise ModelError(f'quantization mode must be "noise", "dequantize" or "symbols", not {mode!r}')
        rounded = torch.round(inputs if means is None else inputs - means)
        if mode == "symbols":
            _check_symbols(rounded)
            return rounded.int()
        return rounded if means is None else rounded + means

    @staticmethod
    def dequantize(inputs: Tensor, means: Tensor | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """Latents of integer symbols: ``inputs + means`` in the type of ``means``, else in ``dtype``."""
        if means is None:
            return inputs.to(dtype)
        return inputs.to(means.dtype) + means

    # What entropy models of other people, derived from these, call.

    def _quantize(self, inputs: Tensor, mode: str, means: Tensor | None = None) -> Tensor:
        warnings.warn("_quantize is an old name; call quantize", stacklevel=2)
        return self.quantize(inputs, mode, means)

    @classmethod
    def _dequantize(cls, inputs: Tensor, means: Tensor | None = None) -> Tensor:
        warnings.warn("_dequantize is an old name; call dequantize", stacklevel=2)
        return cls.dequantize(inputs, means)

    def _check_cdf_size(self) -> None:
        self._tables()

    _check_cdf_length = _check_offsets_size = _check_cdf_size

    # -- tables ---------------------------------------------------------------------------------------------

    def _table_source(self) -> Tensor | None:
        """Everything the tables are computed from, flattened; None if they aren't computed from anything."""
        return None

    def _make_tables(self) -> None:
        """Compute the tables from the weights."""
        raise TableError(
            "this entropy model has no CDF tables and cannot make any; set `_quantized_cdf`, `_cdf_length` "
            "and `_offset`, load weights that contain them, or use EntropyBottleneck or GaussianConditional"
        )

    def _set_tables(self, cdfs: Tensor, lengths: Tensor, offsets: Tensor) -> None:
        device = self._offset.device
        self._quantized_cdf = lasting(cdfs.to(device, torch.int32))
        self._cdf_length = lasting(lengths.to(device, torch.int32))
        self._offset = lasting(offsets.to(device, torch.int32))
        self._made_from = self._table_source()

    def _tables_are_stale(self) -> bool:
        """Whether the weights have changed since the tables were made or loaded."""
        source = self._table_source()
        if source is None or self._quantized_cdf.numel() == 0:
            return False
        if self._made_from is None:
            self._made_from = source
        return self._made_from.shape != source.shape or not torch.equal(self._made_from.to(source), source)

    def _tables(self) -> Any:
        """The tables as the coder holds them; made, or made again, if the weights ask for it."""
        if self._quantized_cdf.numel() == 0:
            self._make_tables()
        elif self._tables_are_stale():
            warnings.warn(
                f"the weights of this {type(self).__name__} changed after its CDF tables were made; the "
                "tables are made again, and what was coded with the old ones can no longer be decoded",
                UserWarning,
                stacklevel=3,
            )
            self._make_tables()
        buffers = (self._quantized_cdf, self._cdf_length, self._offset)
        if self._registered is not None:
            unchanged, tables = self._registered
            if unchanged(*buffers):
                return tables
        # Copies, because a tensor that shares its memory with an array cannot be resized any more.
        tables = self.entropy_coder.register(*(_to_numpy(b.clone()) for b in buffers))
        self._registered = Unchanged(*buffers), tables
        return tables

    def _pmf_to_cdf(self, pmf: Tensor, tail_mass: Tensor, pmf_length: Tensor, max_length: int) -> Tensor:
        """Integer CDF tables of probability mass functions.

        Args:
            pmf: ``(tables, max_length)`` probabilities.
            tail_mass: ``(tables, 1)`` probability of the escape symbol.
            pmf_length: ``(tables,)`` entries of ``pmf`` in use.
            max_length: largest of them.

        Returns:
            ``(tables, max_length + 2)``, int32, zeros beyond each table's end.

        Raises:
            TableError: a probability is NaN, because a weight is.
        """
        lengths = pmf_length.detach().cpu()
        rows = torch.cat((pmf.detach().cpu(), torch.zeros(len(pmf), 1)), dim=1)
        rows.scatter_(1, lengths[:, None].long(), tail_mass.detach().to("cpu", rows.dtype))
        return torch.from_numpy(pmfs_to_quantized_cdfs(rows.numpy(), lengths.numpy() + 1, PRECISION))

    # -- coding ---------------------------------------------------------------------------------------------

    def compress(self, inputs: Tensor, indexes: Tensor, means: Tensor | None = None) -> list[bytes]:
        """Code latents.

        Args:
            inputs: ``(batch, channels, ...)`` latents.
            indexes: table of every element, integer, shaped like ``inputs``.
            means: subtracted before rounding; broadcasts against ``inputs``.

        Returns:
            One string per batch element.

        Raises:
            ShapeError: shapes that do not match.
            CoderError: a latent that is not finite, or an index without a table.
            TableError: no tables, or invalid ones.
        """
        if inputs.dim() < 2:
            raise ShapeError(f"inputs must be (batch, channels, ...), but have shape {tuple(inputs.shape)}")
        if inputs.shape != indexes.shape:
            raise ShapeError(
                f"indexes must be shaped like the inputs, {tuple(inputs.shape)}, not {tuple(indexes.shape)}"
            )
        tables = self._tables()
        symbols = _to_numpy(self.quantize(inputs, "symbols", means))
        rows = _to_numpy(indexes)
        strings = []
        for symbol, row in zip(symbols, rows, strict=True):
            encoder = self.entropy_coder.encoder()
            encoder.push(symbol, row, tables)
            strings.append(encoder.finish())
        return strings

    def decompress(
        self,
        strings: Sequence[bytes],
        indexes: Tensor,
        dtype: torch.dtype = torch.float32,
        means: Tensor | None = None,
    ) -> Tensor:
        """Undo :meth:`compress`.

        Args:
            strings: one per batch element.
            indexes: as given to :meth:`compress`, ``(batch, channels, ...)``.
            dtype: of the result, where there are no means.
            means: as given to :meth:`compress`; ``(batch, channels, ...)`` where the further sizes are those
                of ``indexes`` or 1.

        Returns:
            The latents, shaped like ``indexes``.

        Raises:
            ShapeError: shapes or numbers of strings that do not match.
            CoderError: a damaged string, or an index without a table.
            TableError: no tables, or invalid ones.
        """
        if indexes.dim() < 2:
            raise ShapeError(f"indexes must be (batch, channels, ...), but have shape {tuple(indexes.shape)}")
        check_strings(strings, indexes.shape[0])
        if means is not None and (
            means.shape[:2] != indexes.shape[:2]
            or means.dim() != indexes.dim()
            or any(m not in (1, i) for m, i in zip(means.shape[2:], indexes.shape[2:], strict=True))
        ):
            raise ShapeError(
                f"means must be shaped like the indexes, {tuple(indexes.shape)}, or have sizes of 1 after "
                f"the second; they are {tuple(means.shape)}"
            )
        tables = self._tables()
        rows = _to_numpy(indexes)
        symbols = np.empty(rows.shape, dtype=np.int32)
        for out, string, row in zip(symbols, strings, rows, strict=True):
            decoder = self.entropy_coder.decoder(string)
            out[...] = decoder.decode(row, tables)
            decoder.finish()
        return self.dequantize(torch.from_numpy(symbols).to(indexes.device), means, dtype)

    # -- saving and loading ---------------------------------------------------------------------------------

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        # Tables belong to finished weights: a checkpoint taken while training goes on is saved as it is.
        finished = not self.training and self._table_source() is not None
        if finished and (self._quantized_cdf.numel() == 0 or self._tables_are_stale()):
            try:
                self._make_tables()
            except TableError as error:
                warnings.warn(f"saved without valid CDF tables: {error}", UserWarning, stacklevel=2)
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _resize_like_file(self, state_dict: Mapping[str, Any], prefix: str, names: Sequence[str]) -> None:
        """Give buffers the size they have in the file, so that tables of any size load."""
        for name in names:
            stored = state_dict.get(prefix + name)
            present = getattr(self, name)
            if isinstance(stored, Tensor) and stored.shape != present.shape:
                setattr(self, name, lasting(present.new_empty(stored.shape)))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        offsets, cdfs, lengths = (state_dict.get(prefix + name) for name in _TABLE_BUFFERS)
        if isinstance(cdfs, Tensor) and isinstance(lengths, Tensor) and isinstance(offsets, Tensor):
            empty = cdfs.numel() == lengths.numel() == offsets.numel() == 0
            rows = cdfs.shape[:1]
            if not empty and (
                cdfs.dim() != 2
                or lengths.shape != rows
                or offsets.shape != rows
                or cdfs.shape[1] > MAX_TABLE_SYMBOLS + 2
                or cdfs.is_floating_point()
            ):
                raise TableError(
                    "CDF tables must be an integer tensor (tables, entries) with as many lengths and offsets "
                    f"as tables and at most {MAX_TABLE_SYMBOLS + 2} entries; {prefix}_quantized_cdf is "
                    f"{tuple(cdfs.shape)}, _cdf_length {tuple(lengths.shape)}, _offset "
                    f"{tuple(offsets.shape)}"
                )
        self._resize_like_file(state_dict, prefix, _TABLE_BUFFERS)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _tables_loaded(module: nn.Module, _incompatible_keys: object) -> None:
    """Tables that come with weights are the tables of these weights, whatever would be computed now."""
    if isinstance(module, EntropyModel):
        module._made_from = module._table_source()


def _to_numpy(tensor: Tensor) -> Any:
    return tensor.detach().to("cpu", torch.int32).contiguous().numpy()


def _check_symbols(rounded: Tensor) -> None:
    if rounded.numel() == 0:
        return
    low, high = torch.aminmax(rounded)
    # Written so that NaN, for which every comparison is false, is caught too.
    if not (low >= -MAX_SYMBOL and high <= MAX_SYMBOL):
        raise CoderError(
            f"latents must be finite and within +-{MAX_SYMBOL} to be coded, but lie between "
            f"{low.item():g} and {high.item():g}; look for NaN in the input or in the weights"
        )


def check_strings(strings: object, batch: int | None = None) -> None:
    """Check that ``strings`` is a list of ``batch`` byte strings.

    Raises:
        ShapeError: it is something else.
    """
    if not isinstance(strings, (list, tuple)) or not all(isinstance(s, bytes) for s in strings):
        raise ShapeError(
            f"strings must be a list of bytes, one per batch element, not {type(strings).__name__}"
        )
    if batch is not None and len(strings) != batch:
        raise ShapeError(f"expected {batch} strings, one per batch element, but got {len(strings)}")


def check_capacity(strings: Sequence[bytes], values: int) -> None:
    """Check that each string can hold so many values, before memory for them is taken.

    Raises:
        LimitError: it is too short.
    """
    for string in strings:
        if values > _MAX_VALUES_PER_BYTE * (len(string) + 8):
            raise LimitError(
                f"a string of {len(string)} bytes cannot hold {values} values; give the shape that it was coded with"
            )


def check_table_size(rows: int, symbols: float) -> None:
    """Check the size of tables before they are computed.

    Raises:
        TableError: more symbols in a table, or more entries in all, than can be coded.
    """
    if not 1 <= symbols <= MAX_TABLE_SYMBOLS:
        raise TableError(
            f"a CDF table holds 1 to {MAX_TABLE_SYMBOLS} symbols, but these weights ask for {symbols:g}; "
            "their quantiles or scale table are damaged"
        )
    if rows * (symbols + 2) > MAX_TABLE_ENTRIES:
        raise TableError(
            f"CDF tables hold at most {MAX_TABLE_ENTRIES} entries together, but {rows} tables of {symbols:g} "
            "symbols are asked for; the quantiles of these weights are damaged"
        )
