"""The example that serves huge pictures, asked as viewers ask."""

import http.client
import importlib.util
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny
from latens import format as ltn
from latens.codec import LosslessCodec, Picture
from latens.io import Image as Pixels

PICTURE = tiny.picture(1300, 2100)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    path = tmp_path_factory.mktemp("iiif") / "a picture.ltn"
    path.write_bytes(LosslessCodec().encode(Pixels(PICTURE)))
    source = Path(__file__).parents[2] / "examples" / "iiif_server.py"
    spec = importlib.util.spec_from_file_location("iiif_server", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.Handler.log_message = lambda *_: None
    server = module.serve([path], 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def get(port: int, path: str) -> tuple[int, str | None, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", path)
    response = connection.getresponse()
    found = response.status, response.getheader("Content-Type"), response.read()
    assert response.getheader("Access-Control-Allow-Origin") == "*"
    connection.close()
    return found


def pixels(port: int, request: str) -> np.ndarray:
    status, kind, data = get(port, f"/a_picture/{request}/0/default.png")
    assert (status, kind) == (200, "image/png"), data
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def test_info(port: int) -> None:
    status, kind, data = get(port, "/a_picture/info.json")
    assert status == 200
    assert kind is not None
    assert kind.startswith("application/ld+json")
    info = json.loads(data)
    assert (info["width"], info["height"], info["type"], info["profile"]) == (
        2100,
        1300,
        "ImageService3",
        "level1",
    )
    assert info["id"] == f"http://127.0.0.1:{port}/a_picture"
    assert info["tiles"] == [{"width": 512, "scaleFactors": [1, 2, 4, 8]}]
    assert get(port, "/a_picture")[0] == 303
    assert b"info.json" in get(port, "/")[2]


def test_every_tile_that_a_viewer_asks_for(port: int) -> None:
    for factor in (1, 4):
        side = 512 * factor
        for top in range(0, 1300, side):
            for left in range(0, 2100, side):
                width, height = min(side, 2100 - left), min(side, 1300 - top)
                size = f"{-(-width // factor)},{-(-height // factor)}"
                found = pixels(port, f"{left},{top},{side},{side}/{size}").astype(int)
                wanted = PICTURE[top : top + height, left : left + width]
                if factor == 1:
                    assert np.array_equal(found, wanted)
                else:
                    assert abs(found.mean((0, 1)) - wanted.mean((0, 1))).max() < 1
                    assert found.shape[:2] == (-(-height // factor), -(-width // factor))


@pytest.mark.parametrize(
    ("request_", "shape"),
    [
        ("full/max", (634, 1024)),
        ("full/60,", (37, 60)),
        ("full/,37", (37, 60)),
        ("full/60,60", (60, 60)),
        ("full/!60,60", (37, 60)),
        ("full/pct:10", (130, 210)),
        ("square/130,", (130, 130)),
        ("pct:50,50,50,50/105,", (65, 105)),
        ("2000,1200,500,500/max", (100, 100)),
        ("7,9,1,1/max", (1, 1)),
    ],
)
def test_regions_and_sizes(port: int, request_: str, shape: tuple[int, int]) -> None:
    found = pixels(port, request_)
    assert found.shape == (*shape, 3)
    if request_.startswith("full"):
        assert abs(found.mean((0, 1)) - PICTURE.mean((0, 1))).max() < 1
    status, kind, data = get(port, f"/a_picture/{request_}/0/color.jpg")
    assert (status, kind, data[:2]) == (200, "image/jpeg", b"\xff\xd8")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/other/info.json", 404),
        ("/..%2Fa_picture/info.json", 404),
        ("/a_picture/full/max", 404),
        ("/a_picture/full/max/90/default.jpg", 400),
        ("/a_picture/full/max/0/default.gif", 400),
        ("/a_picture/full/max/0/gray.jpg", 400),
        ("/a_picture/2100,0,5,5/max/0/default.jpg", 400),
        ("/a_picture/0,0,0,5/max/0/default.jpg", 400),
        ("/a_picture/-1,0,5,5/max/0/default.jpg", 400),
        ("/a_picture/0,0,5/max/0/default.jpg", 400),
        ("/a_picture/nan,0,5,5/max/0/default.jpg", 400),
        ("/a_picture/pct:inf,0,5,5/max/0/default.jpg", 400),
        ("/a_picture/0,0,5,5/6,/0/default.jpg", 400),
        ("/a_picture/0,0,5,5/^6,/0/default.jpg", 400),
        ("/a_picture/full/2000,/0/default.jpg", 400),
        ("/a_picture/full/0,/0/default.jpg", 400),
        ("/a_picture/full/,/0/default.jpg", 400),
        ("/a_picture/full/pct:0/0/default.jpg", 400),
        ("/a_picture/full/99999999999,/0/default.jpg", 400),
    ],
)
def test_what_is_refused(port: int, path: str, status: int) -> None:
    found, _, text = get(port, path)
    assert found == status
    assert text.count(b"\n") == 1


def test_no_more_is_decoded_than_is_asked_for(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = []
    image = Picture.image

    def told(self: Picture, box: ltn.Rect, scale: str) -> Pixels:
        boxes.append((box, scale))
        return image(self, box, scale)  # type: ignore[arg-type]

    monkeypatch.setattr(Picture, "image", told)
    pixels(port, "0,0,512,512/256,")
    pixels(port, "full/30,")
    pixels(port, "0,0,1024,1024/128,")
    assert ((0, 0, 512, 512), "1/2") in boxes
    assert len([scale for _, scale in boxes if scale == "1/8"]) <= 1  # once for all requests
