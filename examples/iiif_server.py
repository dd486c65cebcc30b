"""A picture of any size on the web, to zoom into: IIIF Image API 3, level 1, with the standard library around Latens.

python examples/iiif_server.py huge.ltn --port 8000

http://localhost:8000/ shows it in OpenSeadragon, which comes from a CDN; any other viewer takes
http://localhost:8000/huge/info.json. Of a request no more is decoded than the tiles that it touches. What is smaller
than an eighth comes from a small copy of the whole, which is made when it is first asked for.
"""

import argparse
import io
import json
import re
import threading
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from PIL import Image

from latens import LatensError
from latens import format as ltn
from latens.codec import Picture

TILE = 512
MOST = 1024  # pixels of a side of an answer
SMALL = 8  # the small copy has sides of an eighth
FORMATS = {"jpg": ("JPEG", "image/jpeg"), "png": ("PNG", "image/png")}
CONTEXT = "http://iiif.io/api/image/3/context.json"
PAGE = """<!doctype html><meta charset="utf-8"><title>%(name)s</title>
<script src="https://cdn.jsdelivr.net/npm/openseadragon@4.1.1/build/openseadragon/openseadragon.min.js"></script>
<body style="margin:0"><div id="view" style="width:100vw;height:100vh"></div>
<script>OpenSeadragon({id: "view", tileSources: "/%(name)s/info.json", showNavigator: true,
prefixUrl: "https://cdn.jsdelivr.net/npm/openseadragon@4.1.1/build/openseadragon/images/"})</script>
"""

busy = threading.Lock()  # one request at a time uses the processor


class BadRequestError(ValueError):
    """What is asked for makes no sense, or is not offered."""


class Served:
    """A file that is open, and what of it is asked for.

    Args:
        path: of the file; of any size, which the server's owner has chosen.
    """

    def __init__(self, path: Path) -> None:
        self.picture = Picture(ltn.PathSource(path), limits=ltn.Limits(max_pixels=1 << 32))
        self.width, self.height = self.picture.size

    @cached_property
    def small(self) -> Image.Image:
        """The whole picture with an eighth of the sides."""
        return self._decoded((0, 0, self.width, self.height), SMALL)

    def _decoded(self, box: tuple[int, int, int, int], step: int) -> Image.Image:
        pixels = self.picture.image(box, f"1/{step}").to_8_bits().pixels
        return Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])

    def info(self, address: str) -> dict[str, object]:
        """What viewers ask first."""
        factors = [1]
        while max(self.width, self.height) > TILE * factors[-1]:
            factors.append(2 * factors[-1])
        return {
            "@context": CONTEXT,
            "id": address,
            "type": "ImageService3",
            "protocol": "http://iiif.io/api/image",
            "profile": "level1",
            "width": self.width,
            "height": self.height,
            "maxWidth": MOST,
            "maxHeight": MOST,
            "tiles": [{"width": TILE, "scaleFactors": factors}],
            "extraFormats": ["png"],
            "extraFeatures": ["regionByPct", "sizeByPct", "sizeByConfinedWh"],
        }

    def image(self, region: str, size: str) -> Image.Image:
        """A region at a size, both as in a request."""
        box = self._region(region)
        left, top, right, bottom = box
        width, height = self._size(size, right - left, bottom - top)
        least = min((right - left) / width, (bottom - top) / height)
        step = max(step for step in (1, 2, 4, SMALL) if step <= max(least, 1))
        with busy:
            if step == SMALL:
                source, x, y = self.small, 0, 0
            else:
                source, x, y = self._decoded(box, step), left // step, top // step
        part = left / step - x, top / step - y, right / step - x, bottom / step - y
        return source.resize((width, height), Image.Resampling.LANCZOS, part, 2.0)

    def _region(self, text: str) -> tuple[int, int, int, int]:
        if text == "full":
            return 0, 0, self.width, self.height
        if text == "square":
            side = min(self.width, self.height)
            left, top = (self.width - side) // 2, (self.height - side) // 2
            return left, top, left + side, top + side
        percent = text.removeprefix("pct:")
        numbers = percent.split(",")
        if len(numbers) != 4 or not all(map(_is_number if percent != text else _is_whole, numbers)):
            raise BadRequestError("a region is full, square, x,y,w,h or pct:x,y,w,h")
        x, y, w, h = map(float, numbers)
        if percent != text:
            x, y, w, h = (
                x * self.width / 100,
                y * self.height / 100,
                w * self.width / 100,
                h * self.height / 100,
            )
        left, top = round(x), round(y)
        right, bottom = min(round(x + w), self.width), min(round(y + h), self.height)
        if left >= right or top >= bottom:
            raise BadRequestError("the region is empty, or outside the picture")
        return left, top, right, bottom

    @staticmethod
    def _size(text: str, width: int, height: int) -> tuple[int, int]:
        most = min(MOST / width, MOST / height, 1.0)
        found: tuple[float, float]
        if text == "max":
            found = width * most, height * most
        elif text.startswith("pct:") and _is_number(text[4:]):
            share = float(text[4:]) / 100
            found = width * share, height * share
        else:
            match = re.fullmatch(r"(!?)(\d{0,9}),(\d{0,9})", text)
            if match is None or not (match[2] or match[3]) or (match[1] and not (match[2] and match[3])):
                raise BadRequestError(
                    "a size is max, w, or ,h or w,h or !w,h or pct:n; larger ones are not made"
                )
            w, h = int(match[2] or 0), int(match[3] or 0)
            share = min(w / width, h / height) if match[1] else (w / width if w else h / height)
            found = (w, h) if w and h and not match[1] else (width * share, height * share)
        result = max(round(found[0]), 1), max(round(found[1]), 1)
        if not found[0] or not found[1] or result[0] > min(width, MOST) or result[1] > min(height, MOST):
            raise BadRequestError(f"a size is at least 1, at most that of the region, and at most {MOST}")
        return result


def _is_whole(text: str) -> bool:
    return re.fullmatch(r"\d{1,9}", text) is not None


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text) is not None


class Handler(BaseHTTPRequestHandler):
    served: dict[str, Served]
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds that a client may keep silent

    def do_GET(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.split("/")[1:]]
        try:
            if parts == [""]:
                self.answer(
                    200, "text/html; charset=utf-8", (PAGE % {"name": next(iter(self.served))}).encode()
                )
                return
            served = self.served.get(parts[0])
            if served is None:
                self.answer(404, "text/plain", b"no such picture\n")
            elif len(parts) == 1:
                self.answer(303, "text/plain", b"", Location=f"/{parts[0]}/info.json")
            elif parts[1:] == ["info.json"]:
                address = f"http://{self.headers.get('Host', 'localhost')}/{parts[0]}"
                kind = f'application/ld+json;profile="{CONTEXT}"'
                self.answer(200, kind, json.dumps(served.info(address)).encode())
            elif len(parts) == 5:
                self.image(served, *parts[1:])
            else:
                self.answer(
                    404, "text/plain", b"there are info.json and region/size/rotation/quality.format\n"
                )
        except (LatensError, BadRequestError) as error:
            self.answer(400, "text/plain", f"{error}\n".encode(errors="backslashreplace"))

    def image(self, served: Served, region: str, size: str, rotation: str, last: str) -> None:
        quality, _, form = last.partition(".")
        if rotation != "0" or quality not in ("default", "color") or form not in FORMATS:
            raise BadRequestError(f"expected 0/default.jpg or 0/default.png, got {rotation}/{last}"[:200])
        out = io.BytesIO()
        served.image(region, size).save(out, FORMATS[form][0], quality=85)
        self.answer(200, FORMATS[form][1], out.getvalue())

    def answer(self, status: int, kind: str, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Access-Control-Allow-Origin", "*")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def serve(files: list[Path], port: int) -> ThreadingHTTPServer:
    """The server, listening on this machine only. Each file has the name that it has without its folder and suffix."""
    served = {re.sub(r"[^\w.-]", "_", path.stem): Served(path) for path in files}
    return ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (Handler,), {"served": served}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    server = serve(options.files, options.port)
    print(f"http://localhost:{server.server_port}/")
    server.serve_forever()
