"""Downloads against a server on this machine that cuts, lies, stalls and redirects."""

import hashlib
import io
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from latens.errors import DownloadError, LimitError
from latens.zoo import download
from latens.zoo.download import cache_folder, fetch

DATA = np.random.default_rng(7).bytes(350_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
NAME = f"tiny-1-{SHA256[:8]}.pth.tar"


class Server(ThreadingHTTPServer):
    """Serves DATA. What it does wrong is set by the tests."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = DATA
        self.requests = []  # the Range header of each
        self.cut_after = None  # bytes per connection
        self.statuses = []  # of the first answers; None is the data
        self.ranges = True
        self.say_length = True
        self.redirect = None
        self.delay = 0.0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/models/{NAME}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.requests.append(asked)
        if server.redirect:
            self.send_response(302)
            self.send_header("Location", server.redirect)
            self.end_headers()
            return
        if server.statuses and (status := server.statuses.pop(0)):
            self.send_error(status)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        if start >= len(server.data):
            self.send_error(416)
            return
        body = server.data[start:]
        self.send_response(206 if start else 200)
        if server.say_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        time.sleep(server.delay)
        self.wfile.write(body[: server.cut_after])


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache" / "models"


def left(cache):
    """What is in the cache, but for lock files."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_downloaded_once_and_noted(server, cache):
    path = fetch(server.url)
    assert path == cache / NAME
    assert path.read_bytes() == DATA
    assert json.loads((cache / f"{NAME}.json").read_text()) == {"sha256": SHA256}
    assert fetch(server.url) == path
    assert server.requests == [None]
    assert left(cache) == [NAME, f"{NAME}.json"]


def test_cut_connections_are_resumed(server):
    server.cut_after = 100_000
    assert fetch(server.url).read_bytes() == DATA
    assert server.requests == [None, "bytes=100000-", "bytes=200000-", "bytes=300000-"]


def test_the_next_try_goes_on_where_the_last_one_failed(server, cache):
    server.cut_after = 100_000
    server.statuses = [None, None, 503]
    with pytest.raises(DownloadError, match=r"503 Service Unavailable.*next try goes on"):
        fetch(server.url)
    assert left(cache) == [f"{NAME}.part"]
    server.requests.clear()
    server.cut_after = None
    assert fetch(server.url).read_bytes() == DATA
    assert server.requests == ["bytes=200000-"]


@pytest.mark.parametrize("junk", [bytes(1000), bytes(len(DATA)), bytes(len(DATA) + 5)])
def test_what_an_earlier_try_left_of_another_file_is_thrown_away(server, cache, junk):
    cache.mkdir(parents=True)
    (cache / f"{NAME}.part").write_bytes(junk)
    assert fetch(server.url).read_bytes() == DATA
    assert server.requests == [f"bytes={len(junk)}-", None]


def test_a_complete_rest_needs_no_more_bytes(server, cache):
    cache.mkdir(parents=True)
    (cache / f"{NAME}.part").write_bytes(DATA)
    assert fetch(server.url).read_bytes() == DATA
    assert server.requests == [f"bytes={len(DATA)}-"]


def test_a_server_that_knows_no_ranges(server, cache):
    server.ranges = False
    cache.mkdir(parents=True)
    (cache / f"{NAME}.part").write_bytes(DATA[:5000])
    assert fetch(server.url).read_bytes() == DATA


def test_a_server_that_does_not_say_the_length(server):
    server.say_length = False
    assert fetch(server.url).read_bytes() == DATA


def test_the_wrong_file(server, cache):
    server.data = DATA[:-1] + b"?"
    with pytest.raises(DownloadError, match=f"expected was {SHA256[:8]}"):
        fetch(server.url)
    assert left(cache) == []


def test_another_file_than_on_first_use(server, cache):
    path = fetch(server.url)
    note = cache / f"{NAME}.json"
    note.write_text(json.dumps({"sha256": SHA256[:8] + "0" * 56}))
    with pytest.raises(DownloadError, match=r"when the file was first used.*\.json"):
        fetch(server.url)
    path.unlink()
    with pytest.raises(DownloadError, match="when the file was first used"):
        fetch(server.url)
    assert left(cache) == [f"{NAME}.json"]
    note.unlink()
    assert fetch(server.url).read_bytes() == DATA


@pytest.mark.parametrize("note", [b"", b"[]", b"{}", b"\xff", b"3"])
def test_a_damaged_note(server, cache, note):
    fetch(server.url)
    (cache / f"{NAME}.json").write_bytes(note)
    with pytest.raises(DownloadError, match=r"\.json: damaged"):
        fetch(server.url)


def test_a_file_damaged_on_disk(server, cache):
    fetch(server.url).write_bytes(DATA[:1000])
    with pytest.raises(DownloadError, match="delete it"):
        fetch(server.url)


def test_a_file_put_there_by_hand(server, cache):
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(DATA)
    assert fetch(server.url) == cache / NAME
    assert server.requests == []
    assert left(cache) == [NAME, f"{NAME}.json"]


@pytest.mark.parametrize("say_length", [True, False])
def test_too_large(server, cache, say_length):
    server.say_length = say_length
    with pytest.raises(LimitError, match="at most 300,000 bytes"):
        fetch(server.url, max_bytes=300_000)
    assert left(cache) == []
    assert fetch(server.url, max_bytes=350_000).read_bytes() == DATA


def test_offline_says_what_to_do(cache):
    closed = Server()
    url = closed.url
    closed.server_close()
    with pytest.raises(DownloadError) as caught:
        fetch(url)
    assert url in str(caught.value)
    assert str(cache / NAME) in str(caught.value)


def test_a_server_that_never_answers(server, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    server.delay = 1.0
    with pytest.raises(DownloadError, match="timed out"):
        fetch(server.url)


@pytest.mark.parametrize("status", [403, 404, 500])
def test_no_such_file(server, status):
    server.statuses = [status]
    with pytest.raises(DownloadError, match=f"the server answers {status}"):
        fetch(server.url)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "url",
    [
        f"http://example.com/{NAME}",
        f"ftp://example.com/{NAME}",
        f"file:///tmp/{NAME}",
        f"https:///{NAME}",
        f"https://[/{NAME}",
        NAME,
        "https://example.com/weights.pth",
        "https://example.com/a-12345678",
        f"https://example.com/..%2f{NAME}",
        "",
    ],
)
def test_addresses_that_are_refused(url, cache):
    with pytest.raises(DownloadError):
        fetch(url)
    assert not cache.exists()


def test_a_redirect_must_be_as_safe(server):
    server.redirect = f"http://example.com/{NAME}"
    with pytest.raises(DownloadError, match="only HTTPS"):
        fetch(server.url)
    other = Server()
    threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01}).start()
    server.redirect = other.url
    try:
        assert fetch(server.url).read_bytes() == DATA
    finally:
        other.shutdown()
        other.server_close()


FETCH = "import sys; from latens.zoo.download import fetch; fetch(sys.argv[1])"


def test_two_processes_download_once(server, cache):
    server.delay = 0.5
    both = [subprocess.Popen([sys.executable, "-c", FETCH, server.url]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert server.requests == [None]
    assert (cache / NAME).read_bytes() == DATA


def test_a_process_that_dies_leaves_no_lock(server, cache):
    server.delay = 30
    process = subprocess.Popen([sys.executable, "-c", FETCH, server.url])
    while not server.requests:
        time.sleep(0.01)
    process.kill()
    process.wait()
    server.delay = 0
    assert fetch(server.url).read_bytes() == DATA


def test_a_cache_that_cannot_be_written(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LATENS_CACHE", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match="set LATENS_CACHE"):
        fetch(server.url)


def test_progress_is_shown_on_terminals_only(server, cache, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    fetch(server.url, progress=True)
    assert "350.0" in sys.stderr.getvalue().replace(",", ".")
    (cache / NAME).unlink()
    for progress, stream in ((True, io.StringIO()), (False, Terminal())):
        monkeypatch.setattr(sys, "stderr", stream)
        fetch(server.url, progress=progress).unlink()
        assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {}, "/home/me/.cache/latens"),
        ("linux", {"XDG_CACHE_HOME": "/fast"}, "/fast/latens"),
        ("darwin", {"XDG_CACHE_HOME": "/fast"}, "/home/me/Library/Caches/latens"),
        ("win32", {}, "/home/me/AppData/Local/latens"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/latens"),
        ("win32", {"LATENS_CACHE": "/mine"}, "/mine"),
    ],
)
def test_where_the_cache_is(monkeypatch, platform, environment, expected):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    for name in ("LATENS_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)
