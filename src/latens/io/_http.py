"""A file behind an address, of which single ranges are fetched; on the standard library alone."""

from __future__ import annotations

import io
import re
import threading
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import IO, Any

from latens.errors import DownloadError
from latens.io._text import printable

__all__ = ["RangeFile", "is_address"]

_ADDRESS = re.compile(r"https?://", re.IGNORECASE)
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_TIMEOUT = 20.0
_BLOCK = 1 << 16
_BLOCKS = 16  # that are kept


def is_address(text: str) -> bool:
    """Whether a text is an address that :class:`RangeFile` opens."""
    return _ADDRESS.match(text) is not None


class RangeFile(io.RawIOBase):
    """A binary file that can be sought, whose bytes come from a server as they are read (RFC 9110, section 14).

    Small reads are answered from blocks of 64 KiB, of which the last sixteen are kept. Nothing is fetched whole: a
    server that knows no ranges is refused.

    Args:
        address: ``http://`` or ``https://``.
        timeout: seconds without a byte after which the server has stopped.

    Raises:
        DownloadError: no such file, no connection, or a server that ignores ranges, says another length than before,
            gives other bytes than were asked for, or stops.
    """

    def __init__(self, address: str, *, timeout: float = _TIMEOUT) -> None:
        if not is_address(address):
            raise DownloadError(f"{printable(address)}: expected an address, http:// or https://")
        self.address, self._timeout = address, timeout
        self._tag: str | None = None
        self._size: int | None = None
        self._position = 0
        self._blocks: dict[int, bytes] = {}
        self._lock = threading.RLock()
        self._block(0)

    @property
    def name(self) -> str:
        """The address."""
        return self.address

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        assert self._size is not None
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """As of any file; the file may end before."""
        with self._lock:
            assert self._size is not None
            left = max(self._size - self._position, 0)
            size = left if size is None or size < 0 else min(size, left)
            data = self._ranged(self._position, size)
            self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _ranged(self, start: int, size: int) -> bytes:
        if not size:
            return b""
        first, last = start // _BLOCK, (start + size - 1) // _BLOCK
        if last - first > 1:
            return self._fetch(start, size)
        data = b"".join(self._block(number) for number in range(first, last + 1))
        return data[start - first * _BLOCK :][:size]

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            size = _BLOCK if self._size is None else min(_BLOCK, self._size - number * _BLOCK)
            self._blocks[number] = self._fetch(number * _BLOCK, size)
            if len(self._blocks) > _BLOCKS:
                del self._blocks[next(iter(self._blocks))]
        return self._blocks[number]

    def _fetch(self, start: int, size: int) -> bytes:
        request = urllib.request.Request(self.address)
        request.add_header("Range", f"bytes={start}-{start + size - 1}")
        # What is compressed on the way has other ranges.
        request.add_header("Accept-Encoding", "identity")
        if self._tag is not None:
            request.add_header("If-Match", self._tag)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                size = self._check(answer, start, size)
                return self._body(answer, size)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and not start:
                raise self._problem("the file is empty") from error
            if error.code in (412, 416) and self._size is not None:
                raise self._problem("the file has changed on the server; open it anew") from error
            raise self._problem(f"the server answers {error.code} {error.reason}") from error
        except (OSError, HTTPException, ValueError) as error:
            if isinstance(error, DownloadError):
                raise
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            raise self._problem(f"cannot be fetched ({reason})") from error

    def _check(self, answer: Any, start: int, size: int) -> int:
        """How many bytes come; DownloadError for another answer than was asked for."""
        if answer.status != 206:
            raise self._problem(
                "the server ignores ranges, and would send all of the file; download it first"
            )
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise self._problem("the server compresses what it sends; ranges of that mean something else")
        match = _RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
        if match is None:
            raise self._problem("the server does not say which range it sends")
        first, last, whole = (int(number) for number in match.groups())
        expected = min(size, max(whole - start, 0))
        if first != start or last - first + 1 != expected:
            raise self._problem(
                f"the server sends bytes {first} to {last} of {whole}, where {expected} from {start} on were asked for"
            )
        if self._size is None:
            self._size = whole
            tag = answer.headers.get("ETag")
            self._tag = tag if tag and not tag.startswith("W/") else None
        elif whole != self._size:
            raise self._problem(f"the server said that there are {self._size} bytes, and now {whole}")
        return expected

    def _body(self, answer: IO[bytes], size: int) -> bytes:
        data = bytearray()
        while len(data) <= size:
            piece = answer.read(min(1 << 16, size + 1 - len(data)))
            if not piece:
                break
            data += piece
        if len(data) != size:
            kind = "more than" if len(data) > size else f"{len(data)} of"
            raise self._problem(f"the server sends {kind} the {size} bytes that it promised")
        return bytes(data)

    def _problem(self, text: str) -> DownloadError:
        return DownloadError(f"{printable(self.address)}: {printable(text)}")
