"""Files behind an address: ranges, and servers that have no idea of them, lie or stop."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

import latens
import tiny
from latens import format as ltn
from latens.errors import DownloadError, FormatError, LatensError
from latens.io import RangeFile

DATA = bytes(range(256)) * 2000


class Server:
    """A server of one file.

    Attributes:
        data: of the file.
        answer: what it does, in place of answering rightly; gets the handler, and first and last byte asked for.
        sent: bytes of answers.
    """

    def __init__(self) -> None:
        self.data, self.sent, self.tag = DATA, 0, '"one"'
        self.answer: Callable[[BaseHTTPRequestHandler, int, int], None] | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
                if outer.answer is not None:
                    outer.answer(self, first, last)
                    self.close_connection = True
                    return
                if self.headers.get("If-Match", outer.tag) != outer.tag:
                    self.send_error(412)
                    return
                if first >= len(outer.data):
                    self.send_error(416)
                    return
                send(self, outer.data, first, last, tag=outer.tag)
                outer.sent += last + 1 - first

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_port}/photo.ltn"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def send(
    handler: BaseHTTPRequestHandler,
    data: bytes,
    first: int,
    last: int,
    *,
    tag: str = '"one"',
    status: int = 206,
    said: str | None = None,
    length: int | None = None,
    body: bytes | None = None,
) -> None:
    body = data[first : last + 1] if body is None else body
    handler.send_response(status)
    last = min(last, len(data) - 1)
    handler.send_header("Content-Range", said or f"bytes {first}-{last}/{len(data)}")
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.send_header("ETag", tag)
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    found = Server()
    yield found
    found.stop()


def test_what_is_read_is_fetched(server: Server) -> None:
    file = RangeFile(server.address)
    assert file.seek(0, 2) == len(DATA)
    for start, size in ((0, 10), (65_530, 20), (300_000, 200_000), (len(DATA) - 5, 100), (len(DATA) + 9, 4)):
        file.seek(start)
        assert file.read(size) == DATA[start : start + size]
    sent = server.sent
    file.seek(65_000)
    assert file.read(1000) == DATA[65_000:66_000]
    assert server.sent == sent  # known already
    file.seek(0)
    assert file.read() == DATA


def test_parts_of_pictures_come_from_servers(server: Server) -> None:
    pixels = tiny.picture(40, 9000)
    server.data = latens.encode(pixels, lossless=True)
    assert ltn.read_header(server.data).tile_count == 5
    with latens.open(server.address) as image:
        assert image.size == (9000, 40)
        assert np.array_equal(image.crop((8500, 3, 8600, 33)), pixels[3:33, 8500:8600])
        assert np.array_equal(image.read(), pixels)
    assert server.sent < 3 * len(server.data)


def _ignores(handler: BaseHTTPRequestHandler, first: int, last: int) -> None:
    send(handler, DATA, 0, len(DATA) - 1, status=200)


def _stops(handler: BaseHTTPRequestHandler, first: int, last: int) -> None:
    send(handler, DATA, first, last, body=DATA[first : first + 100], length=last + 1 - first)


def _sends_more(handler: BaseHTTPRequestHandler, first: int, last: int) -> None:
    send(handler, DATA, first, last, body=DATA[first : last + 100])


def _other_range(handler: BaseHTTPRequestHandler, first: int, last: int) -> None:
    send(handler, DATA, first, last, said=f"bytes {first + 1}-{last + 1}/{len(DATA)}")


def _no_range(handler: BaseHTTPRequestHandler, first: int, last: int) -> None:
    send(handler, DATA, first, last, said="bytes */*")


def _huge(handler: BaseHTTPRequestHandler, first: int, last: int) -> None:
    send(handler, DATA, first, last, said=f"bytes {first}-{last}/{1 << 70}")


def _not_there(handler: BaseHTTPRequestHandler, first: int, last: int) -> None:
    handler.send_error(404)


def _hangs_up(handler: BaseHTTPRequestHandler, first: int, last: int) -> None:
    handler.close_connection = True


def _silent(handler: BaseHTTPRequestHandler, first: int, last: int) -> None:
    handler.wfile.flush()
    threading.Event().wait(1.0)


def _elsewhere(handler: BaseHTTPRequestHandler, first: int, last: int) -> None:
    handler.send_response(302)
    handler.send_header("Location", "file:///etc/passwd")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (_ignores, "ignores ranges"),
        (_stops, r"sends 100 of the 65536 bytes|IncompleteRead|100 of"),
        (_sends_more, "more than|where 65536 from 0"),
        (_other_range, "where 65536 from 0 on were asked for"),
        (_no_range, "does not say which range"),
        (_not_there, "answers 404"),
        (_hangs_up, "cannot be fetched"),
        (_silent, "cannot be fetched"),
        (_elsewhere, "answers 302|cannot be fetched"),
    ],
)
def test_servers_that_cannot_be_used(
    server: Server, answer: Callable[[BaseHTTPRequestHandler, int, int], None], why: str
) -> None:
    server.answer = answer
    with pytest.raises(DownloadError, match=why) as caught:
        RangeFile(server.address, timeout=0.3)
    assert server.address in str(caught.value)


def test_an_address_is_named_once(server: Server) -> None:
    server.answer = _not_there
    with pytest.raises(DownloadError) as caught:
        latens.open(server.address)
    assert str(caught.value).count(server.address) == 1


def test_servers_that_lie_about_the_length(server: Server) -> None:
    server.data = latens.encode(tiny.picture(300, 900), lossless=True)
    true = len(server.data)
    server.answer = lambda handler, first, last: send(
        handler, server.data, first, last, said=f"bytes {first}-{last}/{true + 1000}"
    )
    with pytest.raises(LatensError):
        latens.open(server.address)
    server.answer = _huge
    with pytest.raises(LatensError):
        latens.open(server.address)
    server.answer = None
    file = RangeFile(server.address)
    server.data += b"x"
    file.seek(70_000)
    with pytest.raises(DownloadError, match=f"said that there are {true} bytes, and now {true + 1}"):
        file.read(10)


def test_files_that_change_on_the_server(server: Server) -> None:
    file = RangeFile(server.address)
    server.tag = '"two"'
    file.seek(200_000)
    with pytest.raises(DownloadError, match="has changed"):
        file.read(10)


def test_addresses_that_are_none(server: Server) -> None:
    for address in ("ftp://example.org/a.ltn", "a.ltn", ""):
        with pytest.raises(DownloadError, match="expected an address"):
            RangeFile(address)
    server.data = b""
    with pytest.raises(DownloadError, match="empty"):
        RangeFile(server.address)
    server.data = b"no such file" * 100
    with pytest.raises(FormatError, match=r"not a \.ltn file"):
        latens.open(server.address)
