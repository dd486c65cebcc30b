"""The WebAssembly package that `make web` builds, in Node and in Chromium, against the Python side."""

import functools
import gzip
import hashlib
import http.server
import json
import os
import random
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import latens.codec.image
import tiny
from latens import format as ltn
from latens.codec import ImageCodec, LosslessCodec
from latens.io import Image, read_image
from latens.runtime.released import ReleasedPictures

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "build/web"
KODAK = Path(os.environ.get("KODAK", ROOT.parent / "shared/data/kodak"))
SOURCES = [*ROOT.glob("native/*.?pp"), *ROOT.glob("native/library/*.?pp"), *ROOT.glob("web/*")]

pytestmark = pytest.mark.skipif(
    not (BUILT / "models.js").exists()
    or max(path.stat().st_mtime for path in SOURCES) > (BUILT / "models.js").stat().st_mtime,
    reason="what `make web` builds is not there, or older than its sources",
)
"""It takes minutes, and emscripten."""


def pictures() -> list[Image]:
    """Sides that are no multiples of anything, grey, alpha, 16 bits, edges that stay as they are."""
    wide = tiny.picture(80, 90).astype(np.uint16) * 257 + 3
    return [
        Image(tiny.picture(1, 1)),
        Image(tiny.picture(65, 127)),
        Image(tiny.picture(97, 64, 1)),
        Image(tiny.picture(70, 33), tiny.picture(70, 33, 1)[..., 0]),
        Image(wide, wide[..., 0], bit_depth=12),
        read_image(ROOT / "examples/blossom.png"),
    ]


@pytest.fixture(scope="module")
def codec() -> ImageCodec:
    return ImageCodec("latens-eye-1")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a server of the package, and its folder, in which tests may put files."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(BUILT, folder, dirs_exist_ok=True)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api").sync_playwright
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium")
    with sync() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, site: tuple[str, Path]) -> Iterator[Any]:
    opened = browser.new_page(viewport={"width": 1000, "height": 900})
    opened.set_default_timeout(120_000)
    (site[1] / "empty.html").write_text("<!doctype html><title>test</title>")
    opened.goto(f"{site[0]}/empty.html")
    yield opened
    opened.close()


# Decodes files, and sends their samples where a test can read them.
SAMPLES = """
async ([names]) => {
  const { decode } = await import("./ltn.js");
  const found = [];
  for (const name of names) {
    const image = await decode(await (await fetch(name)).arrayBuffer());
    const digest = async (plane) => {
      if (plane === null) return null;
      const found = new Uint8Array(await crypto.subtle.digest("SHA-256", plane));
      return Array.from(found, (byte) => byte.toString(16).padStart(2, "0")).join("");
    };
    found.push([image.width, image.height, image.channels, await digest(image.pixels), await digest(image.alphaPlane)]);
  }
  return found;
}
"""


def fingerprint(image: Image) -> list[Any]:
    """What SAMPLES gives for an equal picture."""
    height, width, channels = image.pixels.shape
    planes = [
        None
        if plane is None
        else hashlib.sha256(np.ascontiguousarray(plane, plane.dtype.newbyteorder("<"))).hexdigest()
        for plane in (image.pixels, image.alpha)
    ]
    return [width, height, channels, *planes]


def files(codec: ImageCodec) -> list[tuple[bytes, Image]]:
    found = [(data, codec.decode(data)[0]) for data in (codec.encode(image, 45) for image in pictures())]
    exact = [LosslessCodec().encode(image) for image in pictures()]
    return found + [(data, LosslessCodec().decode(ltn.read(data))[0]) for data in exact]


def test_pixels_in_chromium(page: Any, site: tuple[str, Path], codec: ImageCodec) -> None:
    expected = files(codec)
    for number, (data, _) in enumerate(expected):
        (site[1] / f"{number}.ltn").write_bytes(data)
    found = page.evaluate(SAMPLES, [[f"{number}.ltn" for number in range(len(expected))]])
    assert found == [fingerprint(image) for _, image in expected]
    # A second visit needs no server for the weights.
    cached = page.evaluate(
        "async () => (await (await caches.open('latens-weights-1')).keys()).map((r) => new URL(r.url).pathname)"
    )
    assert any(name.startswith("/weights/latens-eye-1-") for name in cached)


@pytest.mark.slow
@pytest.mark.skipif(not KODAK.is_dir(), reason="needs the Kodak photographs, in the folder that KODAK names")
def test_photographs_in_chromium(page: Any, site: tuple[str, Path], codec: ImageCodec) -> None:
    expected = []
    for number, path in enumerate(sorted(KODAK.glob("*.png"))):
        data = codec.encode(read_image(path), 20.0 + 3 * number)
        (site[1] / f"k{number}.ltn").write_bytes(data)
        expected.append(fingerprint(codec.decode(data)[0]))
    assert page.evaluate(SAMPLES, [[f"k{number}.ltn" for number in range(len(expected))]]) == expected


def test_encoding_in_chromium(page: Any, site: tuple[str, Path], codec: ImageCodec) -> None:
    blossom = read_image(ROOT / "examples/blossom.png")
    (site[1] / "blossom.png").write_bytes((ROOT / "examples/blossom.png").read_bytes())
    script = """
    async () => {
      const { encode, info } = await import("./ltn.js");
      const bitmap = await createImageBitmap(await (await fetch("blossom.png")).blob());
      const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
      context.drawImage(bitmap, 0, 0);
      const image = context.getImageData(0, 0, bitmap.width, bitmap.height);
      const files = [await encode(image, { quality: 40 }), await encode(image, { lossless: true })];
      return Promise.all(files.map(async (file) => [Array.from(file), await info(file)]));
    }
    """
    (lossy, about), (exact, _) = page.evaluate(script)
    ours = codec.encode(blossom, 40)
    found, problems = codec.decode(bytes(lossy))
    assert not problems
    assert abs(len(lossy) - len(ours)) < 8 + len(ours) // 50
    assert (about["width"], about["height"], about["model"]) == (500, 500, "latens-eye-1")
    difference = np.abs(found.pixels.astype(int) - codec.decode(ours)[0].pixels)
    assert difference.mean() < 1
    assert np.array_equal(LosslessCodec().decode(ltn.read(bytes(exact)))[0].pixels, blossom.pixels)


def test_hostile_files_in_chromium(page: Any, site: tuple[str, Path], codec: ImageCodec) -> None:
    good = codec.encode(Image(tiny.picture(100, 130)), 30)
    container = ltn.read(good)
    tile = container.tiles[0]
    assert tile is not None
    noise = random.Random(1).randbytes(len(tile.stream))
    large = LosslessCodec().encode(Image(np.zeros((40, 40, 1), np.uint8)))
    # A picture of 2^28 pixels whose tiles are empty: only memory is asked for.
    header = ltn.Header.without_model(width=16384, height=16384, tile_size=4096)
    claims = ltn.write(ltn.Container(header, [ltn.Tile(0, b"\0")] * header.tile_count))
    bad = {
        "cut": good[:-9],
        "flipped": good[:40] + bytes([good[40] ^ 4]) + good[41:],
        "noise": ltn.write(replace(container, tiles=[tile._replace(stream=noise)])),
        "unknown": ltn.write(replace(container, header=replace(container.header, weights_id="00000000"))),
        "claims": claims,
        "gif": b"GIF89a" + bytes(100),
        "sound": large,
    }
    for name, data in bad.items():
        (site[1] / f"{name}.ltn").write_bytes(data)
    script = """
    async ([names]) => {
      const { Ltn, LtnError } = await import("./ltn.js");
      const ltn = new Ltn({ limits: { maxMemory: 2 ** 28 } });
      const codes = {};
      for (const name of names) {
        try {
          await ltn.decode(await (await fetch(`${name}.ltn`)).arrayBuffer());
          codes[name] = 0;
        } catch (error) {
          codes[name] = error instanceof LtnError && error.message ? error.code : String(error);
        }
      }
      const memory = await ltn.memory();
      ltn.close();
      return [codes, memory];
    }
    """
    codes, memory = page.evaluate(script, [list(bad)])
    assert codes == {"cut": 3, "flipped": 5, "noise": 8, "unknown": 10, "claims": 6, "gif": 2, "sound": 0}
    assert memory < 2**27
    # What takes too long is stopped, and the next call begins anew.
    stopped = """
    async () => {
      const { Ltn } = await import("./ltn.js");
      const ltn = new Ltn({ timeout: 1 });
      const first = await ltn.decode(await (await fetch("sound.ltn")).arrayBuffer()).catch((e) => e.code);
      ltn.timeout = 0;
      const second = await ltn.decode(await (await fetch("sound.ltn")).arrayBuffer());
      return [first, second.width];
    }
    """
    assert page.evaluate(stopped) == [6, 40]


def test_weights_that_are_damaged_in_chromium(page: Any, site: tuple[str, Path], codec: ImageCodec) -> None:
    """What a server sends in place of weights is not kept: the next visit finds the right ones."""
    (site[1] / "small.ltn").write_bytes(codec.encode(Image(tiny.picture(30, 20)), 30))
    (path,) = [
        found for found in (site[1] / "weights").glob("latens-eye-1-*.ltnw") if "encoding" not in found.name
    ]
    (site[1] / "other").mkdir()
    script = """
    async () => {
      const { Ltn } = await import("./ltn.js");
      const ltn = new Ltn({ weights: "other/" });
      const file = await (await fetch("small.ltn")).arrayBuffer();
      const found = await ltn.decode(file).then((image) => image.width, (error) => -error.code);
      ltn.close();
      return found;
    }
    """
    for content, found in (
        (None, -10),
        (b"<!doctype html>", -9),
        (path.read_bytes()[:-1], -9),
        (path.read_bytes(), 20),
    ):
        if content is not None:
            (site[1] / "other" / path.name).write_bytes(content)
        assert page.evaluate(script) == found


def test_the_element(page: Any, site: tuple[str, Path], codec: ImageCodec) -> None:
    image = read_image(ROOT / "examples/blossom.png")
    (site[1] / "element.ltn").write_bytes(codec.encode(image, 50))
    (site[1] / "element.html").write_text(
        '<!doctype html><script type="module" src="element.js"></script>'
        '<ltn-img id="good" src="element.ltn" alt="A flower"></ltn-img>'
        '<ltn-img id="bad" src="none.ltn" alt="Nothing"></ltn-img>'
    )
    page.goto(f"{site[0]}/element.html")
    page.wait_for_function("document.getElementById('good').canvas?.width === 500")
    page.wait_for_function(
        "document.getElementById('bad').shadowRoot?.querySelector('span').textContent === 'Nothing'"
    )
    shown = page.evaluate(
        "() => Array.from(document.getElementById('good').canvas.getContext('2d').getImageData(250, 250, 2, 1).data)"
    )
    pixels = codec.decode((site[1] / "element.ltn").read_bytes())[0].pixels
    assert shown == [*pixels[250, 250], 255, *pixels[250, 251], 255]


def test_the_page(page: Any, site: tuple[str, Path], codec: ImageCodec, tmp_path: Path) -> None:
    errors: list[str] = []
    requests: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"{site[0]}/index.html")
    page.set_input_files("#file", ROOT / "examples/blossom.png")
    page.wait_for_selector("#save", state="visible")
    page.screenshot(path=tmp_path / "page.png")
    with page.expect_download() as download:
        page.click("#save")
    saved = Path(download.value.path()).read_bytes()
    assert download.value.suggested_filename == "blossom.ltn"
    assert codec.decode(saved)[0].pixels.shape == (500, 500, 3)
    facts = page.inner_text("#facts")
    left, right = page.inner_text("#left"), page.inner_text("#right")
    assert left == f"Latens, {len(saved) / 1000:.1f} kB"
    assert right.startswith("JPEG, ")
    # At equal bytes.
    assert float(right.split()[1]) <= len(saved) / 1000
    assert "PSNR" in facts
    # What was downloaded is shown, and what is damaged is told.
    (tmp_path / "again.ltn").write_bytes(saved)
    page.set_input_files("#file", tmp_path / "again.ltn")
    page.wait_for_function("document.getElementById('facts').innerText.includes('again.ltn')")
    assert "latens-eye-1" in page.inner_text("#facts")
    (tmp_path / "bad.ltn").write_bytes(saved[:-1])
    page.set_input_files("#file", tmp_path / "bad.ltn")
    page.wait_for_function("document.getElementById('status').classList.contains('bad')")
    assert "data end" in page.inner_text("#status")
    assert not errors
    assert all(url.startswith((site[0], "blob:", "data:")) for url in requests)


NODE = """
import { readFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { Core } from "%(built)s/core.js";
const { module, weights, files } = JSON.parse(readFileSync(0, "utf8"));
const core = new Core(await WebAssembly.compile(readFileSync(module)));
core.load(readFileSync(weights));
const hash = (plane) => createHash("sha256").update(new Uint8Array(plane.buffer)).digest("hex");
const digest = (plane) => plane === null ? null : hash(plane);
console.log(JSON.stringify(files.map((path) => {
  try {
    const image = core.decode(readFileSync(path), { maxMemory: 2 ** 28 });
    return [image.width, image.height, image.channels, digest(image.pixels), digest(image.alphaPlane)];
  } catch (error) {
    return error.code ?? String(error);
  }
})));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
@pytest.mark.parametrize("name", ["ltn-simd.wasm", "ltn-plain.wasm"])
def test_both_modules(
    name: str,
    tiny_weights: Path,
    tiny_model: ReleasedPictures,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With SIMD and without; safetensors as they are; many tiles; drawn blocks; damage."""
    codec = ImageCodec(tiny_model)
    expected: list[Any] = []
    paths: list[str] = []

    def add(data: bytes, outcome: Any) -> None:
        path = tmp_path / f"{len(paths)}.ltn"
        path.write_bytes(data)
        paths.append(str(path))
        expected.append(outcome)

    for tile in (1024, 64):
        monkeypatch.setattr(latens.codec.image, "_TILE", tile)
        for data, image in files(codec)[:10]:
            add(data, fingerprint(image))
    blocks = np.zeros((2, 3), bool)
    blocks[0, 1] = True
    monkeypatch.setattr(ImageCodec, "_drawn", lambda *_: blocks)
    monkeypatch.setattr(latens.codec.image, "smaller", lambda image, data, *_, **__: data)
    data = codec.encode(Image(tiny.picture(100, 150)), 50, content="auto")
    add(data, fingerprint(codec.decode(data)[0]))
    rng = random.Random(2)
    for _ in range(50):
        at = rng.randrange(len(data))
        bad = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        add(bad, None)
    script = tmp_path / "run.mjs"
    script.write_text(NODE % {"built": BUILT.as_uri()})
    given = json.dumps({"module": str(BUILT / name), "weights": str(tiny_weights), "files": paths})
    done = subprocess.run(["node", script], input=given, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert len(found) == len(expected)
    for got, wanted in zip(found, expected, strict=True):
        if wanted is None:
            assert type(got) is int
        else:
            assert got == wanted


def test_sizes() -> None:
    """What a page has to fetch."""
    for name in ("ltn-simd.wasm", "ltn-plain.wasm"):
        assert len(gzip.compress((BUILT / name).read_bytes(), 9)) <= 400_000
    weights = [path for path in (BUILT / "weights").glob("*.ltnw") if "encoding" not in path.name]
    assert len(weights) == 2
    assert all(path.stat().st_size <= 8_000_000 for path in weights)


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_npm_pack(tmp_path: Path) -> None:
    command = ["npm", "pack", "--dry-run", "--json", "--offline"]
    done = subprocess.run(command, cwd=BUILT, capture_output=True, text=True, check=True)
    (listed,) = json.loads(done.stdout)
    names = {entry["path"] for entry in listed["files"]}
    assert {
        "ltn.js",
        "core.js",
        "worker.js",
        "models.js",
        "ltn.d.ts",
        "ltn-simd.wasm",
        "ltn-plain.wasm",
    } <= names
    assert sum(name.endswith(".ltnw") for name in names) == 4


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_what_the_page_of_the_docs_shows() -> None:
    page = (ROOT / "docs/tutorial/browser.md").read_text()
    (block,) = re.findall(r"^```js\n(.*?)^```$", page, re.M | re.S)
    subprocess.run(["node", "--check", "--input-type=module", "-"], input=block, text=True, check=True)
    (names,) = re.findall(r"import \{ (.*?) \}", block)
    module = (ROOT / "web/ltn.js").read_text()
    assert all(re.search(rf"export (?:const|function) {name}\b", module) for name in names.split(", "))
