"""A web service that codes pictures, with nothing but the standard library around it.

python examples/web_service.py --port 8000
curl --data-binary @photo.png 'localhost:8000/encode?quality=40' > photo.ltn
curl --data-binary @photo.ltn  localhost:8000/decode             > photo.png

What strangers send is a limit's business: bytes and pixels are capped before anything is decoded, every wrong input is
a 400 with one line of text, and one request at a time uses the processor.
"""

import argparse
import io
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from latens import LatensError
from latens import format as ltn
from latens.codec import ImageCodec
from latens.io import read_image, write_image

MAX_BYTES = 32 << 20
MAX_PIXELS = 24_000_000

codec = ImageCodec()  # loaded once; all requests share it
busy = threading.Lock()


def encode(data: bytes, quality: float) -> bytes:
    image = read_image(io.BytesIO(data), max_pixels=MAX_PIXELS)
    with busy:
        return codec.encode(image, quality)


def decode(data: bytes) -> bytes:
    container = ltn.read(data, ltn.Limits(max_pixels=MAX_PIXELS))
    with busy:
        image, _ = codec.decode(container)
    out = io.BytesIO()
    write_image(image, out, "png")
    return out.getvalue()


class Handler(BaseHTTPRequestHandler):
    timeout = 30  # seconds that a client may keep silent

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BYTES:
            self.answer(413, "text/plain", f"expected at most {MAX_BYTES} bytes and their number\n".encode())
            return
        data = self.rfile.read(int(length))
        try:
            if url.path == "/encode":
                quality = float(parse_qs(url.query).get("quality", ["50"])[0])
                self.answer(200, "application/octet-stream", encode(data, quality))
            elif url.path == "/decode":
                self.answer(200, "image/png", decode(data))
            else:
                self.answer(404, "text/plain", b"there are /encode and /decode\n")
        except (LatensError, ValueError) as error:
            self.answer(400, "text/plain", f"{error}\n".encode(errors="backslashreplace"))

    def answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve(port: int) -> ThreadingHTTPServer:
    """The server, listening on this machine only."""
    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8000)
    server = serve(parser.parse_args().port)
    print(f"http://{server.server_address[0]}:{server.server_port}/")
    server.serve_forever()
