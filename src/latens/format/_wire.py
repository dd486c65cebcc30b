"""Reading and writing the primitive types of the container: bytes, integers, varints, zlib streams."""

from __future__ import annotations

import zlib

from latens.errors import FormatError, LimitError, TruncatedError

VARINT_BYTES = 5
VARINT_MAX = (1 << 7 * VARINT_BYTES) - 1


class Reader:
    """A cursor over bytes that never reads past their end."""

    __slots__ = ("data", "pos")

    def __init__(self, data: memoryview, pos: int = 0) -> None:
        self.data = data
        self.pos = pos

    def take(self, count: int, what: str) -> memoryview:
        """The next `count` bytes, without a copy. Raises TruncatedError when there are fewer."""
        left = len(self.data) - self.pos
        if count > left:
            raise TruncatedError(
                f"the data end inside {what}: {count} bytes expected at byte {self.pos}, {left} left"
            )
        part = self.data[self.pos : self.pos + count]
        self.pos += count
        return part

    def uint(self, size: int, what: str) -> int:
        """A little-endian unsigned integer of `size` bytes."""
        return int.from_bytes(self.take(size, what), "little")

    def varint(self, what: str) -> int:
        """A varint of at most 5 bytes in its shortest form, else FormatError."""
        value = 0
        for group in range(VARINT_BYTES):
            byte = self.uint(1, what)
            value |= (byte & 0x7F) << 7 * group
            if byte < 0x80:
                if byte == 0 and group:
                    raise FormatError(f"{what}: a varint is not in its shortest form")
                return value
        raise FormatError(f"{what}: a varint is longer than {VARINT_BYTES} bytes")


def varint(value: int, what: str) -> bytes:
    """`value` as a varint. Raises LimitError outside 0 .. 2^35 - 1."""
    if not 0 <= value <= VARINT_MAX:
        raise LimitError(f"{what}: expected 0 to {VARINT_MAX}, got {value}")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def inflate(stream: memoryview, limit: int, what: str) -> bytes:
    """Inflate a whole zlib stream to at most `limit` bytes; more are never produced.

    Raises LimitError above the limit, FormatError when the stream is damaged, incomplete or followed by more.
    """
    inflater = zlib.decompressobj()
    try:
        # One byte more than allowed tells "too much" from "exactly enough".
        out = inflater.decompress(stream, limit + 1)
    except zlib.error as error:
        raise FormatError(f"{what}: the zlib stream is damaged ({error})") from error
    if len(out) > limit:
        raise LimitError(f"{what}: inflates to more than the {limit} bytes allowed")
    if not inflater.eof:
        raise FormatError(f"{what}: the zlib stream is incomplete")
    if inflater.unused_data:
        raise FormatError(f"{what}: {len(inflater.unused_data)} bytes follow the zlib stream")
    return out
