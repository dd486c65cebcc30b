"""Both streams and the table construction once more, in plain Python: slow, short, and the tests' oracle.

Written from ``docs/coder.md`` with big integers, divisions and linear searches only, so that it shares no
trick, and hopefully no mistake, with the native coder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from latens.errors import CoderError, TableError

Symbol = tuple[int, int]
"""A symbol and the number of the table it is coded with."""

_PRECISION = 16
_NIBBLE = 4


@dataclass(frozen=True)
class Table:
    """One CDF table: ``cdf`` rises from 0 to 2^16; its symbols stand for ``offset``, ``offset + 1``, ..."""

    cdf: Sequence[int]
    offset: int

    @property
    def escape(self) -> int:
        """The number of the last symbol, which announces a value outside of the table."""
        return len(self.cdf) - 2


@dataclass(frozen=True)
class Layout:
    """What distinguishes the two streams."""

    lower_bits: int
    word_bits: int
    state_bytes: int
    escape_nibbles: int

    @property
    def lower(self) -> int:
        """The least state, in which encoding begins."""
        return 1 << self.lower_bits


STREAM = Layout(lower_bits=31, word_bits=32, state_bytes=8, escape_nibbles=8)
LANES = Layout(lower_bits=24, word_bits=16, state_bytes=5, escape_nibbles=4)


def _events(value: int, table: Table, layout: Layout) -> list[tuple[int, int, int]]:
    """(start, freq, bits) of everything that one value is coded as, in decoding order."""
    number = value - table.offset
    if 0 <= number < table.escape:
        return [(table.cdf[number], table.cdf[number + 1] - table.cdf[number], _PRECISION)]
    folded = -2 * number - 1 if number < 0 else 2 * (number - table.escape)
    digits = []
    while folded:
        digits.append(folded % 16)
        folded //= 16
    if len(digits) > layout.escape_nibbles:
        raise CoderError(f"{value} is too far from its table")
    start = table.cdf[table.escape]
    nibbles = [len(digits), *digits]
    return [(start, (1 << _PRECISION) - start, _PRECISION), *((nibble, 1, _NIBBLE) for nibble in nibbles)]


def encode(
    symbols: Sequence[Symbol], tables: Sequence[Table], layout: Layout = STREAM, lanes: int = 1
) -> bytes:
    """The stream of ``symbols``; symbol ``i`` goes to lane ``i % lanes``."""
    states = [layout.lower] * lanes
    words: list[int] = []
    for position in reversed(range(len(symbols))):
        value, index = symbols[position]
        x = states[position % lanes]
        for start, freq, bits in reversed(_events(value, tables[index], layout)):
            if x >= freq << (layout.lower_bits + layout.word_bits - bits):
                words.append(x % (1 << layout.word_bits))
                x >>= layout.word_bits
            x = (x // freq << bits) + start + x % freq
        states[position % lanes] = x
    head = b"".join(x.to_bytes(layout.state_bytes, "little") for x in states)
    return head + b"".join(word.to_bytes(layout.word_bits // 8, "little") for word in reversed(words))


class Reader:
    """Decodes symbol by symbol; ``finish`` checks that decoding ended where encoding began."""

    def __init__(self, data: bytes, layout: Layout = STREAM, lanes: int = 1) -> None:
        size = layout.state_bytes
        self._layout = layout
        self._data = data
        self._at = lanes * size
        self._lane = 0
        if len(data) < self._at or (len(data) - self._at) % (layout.word_bits // 8):
            raise CoderError("impossible size")
        self._states = [
            int.from_bytes(data[lane * size : (lane + 1) * size], "little") for lane in range(lanes)
        ]
        if not all(layout.lower <= x < layout.lower << layout.word_bits for x in self._states):
            raise CoderError("impossible state")

    def _event(self, cdf: Sequence[int], bits: int) -> int:
        x = self._states[self._lane]
        slot = x % (1 << bits)
        number = next(i for i in range(len(cdf)) if cdf[i + 1] > slot)
        x = (cdf[number + 1] - cdf[number]) * (x >> bits) + slot - cdf[number]
        if x < self._layout.lower:
            size = self._layout.word_bits // 8
            word = self._data[self._at : self._at + size]
            if len(word) < size:
                raise CoderError("the stream ends early")
            x = (x << self._layout.word_bits) + int.from_bytes(word, "little")
            self._at += size
        self._states[self._lane] = x
        return number

    def symbol(self, table: Table) -> int:
        """The next symbol."""
        number = self._event(table.cdf, _PRECISION)
        if number == table.escape:
            nibble = range(17)
            digits = [self._event(nibble, _NIBBLE) for _ in range(self._event(nibble, _NIBBLE))]
            if len(digits) > self._layout.escape_nibbles or (digits and digits[-1] == 0):
                raise CoderError("impossible escape")
            folded = sum(digit << (_NIBBLE * i) for i, digit in enumerate(digits))
            number = -(folded + 1) // 2 if folded % 2 else folded // 2 + table.escape
        self._lane = (self._lane + 1) % len(self._states)
        return number + table.offset

    def finish(self) -> None:
        """Raises :class:`CoderError` unless all is consumed and every state is back at the start."""
        if self._at != len(self._data) or any(x != self._layout.lower for x in self._states):
            raise CoderError("decoding did not end where encoding began")


def quantize(pmf: Sequence[float], precision: int = 16) -> list[int]:
    """The CDF table of ``pmf``, whose values must be exact in float32; symbol by symbol, as defined."""
    whole = 1 << precision
    if not 1 <= len(pmf) <= whole:
        raise TableError("wrong number of probabilities")
    scaled = [int(p * whole + 0.5) for p in pmf]
    if sum(scaled) == 0:
        raise TableError("all probabilities round to zero")
    freq = [s * whole // sum(scaled) for s in scaled]
    freq[-1] += whole - sum(freq)
    for i in range(len(freq)):
        if freq[i] == 0:
            donor = min((j for j in range(len(freq)) if freq[j] > 1), key=lambda j: freq[j])
            freq[donor] -= 1
            freq[i] = 1
    cdf = [0]
    for f in freq:
        cdf.append(cdf[-1] + f)
    return cdf
