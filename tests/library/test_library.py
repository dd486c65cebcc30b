"""libltn against the Python side: each is the other's oracle."""

import ctypes
import os
import random
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import clib
import numpy as np
import pytest
from PIL import Image as PillowImage

import latens.codec.image
import latens.codec.lossless
import tiny
from latens import format as ltn
from latens.codec import ImageCodec, LosslessCodec
from latens.errors import FormatError, LatensError
from latens.format import _container
from latens.io import Image
from latens.runtime.arrays import read_arrays, write_arrays
from latens.runtime.released import ReleasedPictures
from latens.zoo import load

pytestmark = pytest.mark.skipif(
    os.name != "posix" or shutil.which("c++") is None,
    reason="needs a C++ compiler, and symbols as Unix has them",
)

VECTORS = Path(__file__).parents[1] / "vectors/ltn"
EXIF = b"II*\0\x08\0\0\0\0\0\0\0\0\0"


@pytest.fixture(scope="session")
def folder() -> Path:
    return clib.build(clib.ROOT / "build/library")


@pytest.fixture(scope="session")
def library(folder: Path) -> clib.Library:
    return clib.Library(next(p for p in (folder / "libltn.so", folder / "libltn.dylib") if p.exists()))


@pytest.fixture(scope="session")
def model(library: clib.Library, tiny_weights: Path) -> Iterator[ctypes.c_void_p]:
    loaded = library.load(tiny_weights.read_bytes())
    yield loaded
    library.c.ltn_model_free(loaded)


def picture(
    height: int, width: int, channels: int = 3, *, bits: int = 8, alpha: bool = False, drawn: bool = False
) -> Image:
    samples: Any = tiny.picture(height, width, channels)
    if drawn:
        samples[: height // 2, : width // 2] = np.where(samples[: height // 2, : width // 2] > 128, 255, 0)
        samples[::3, : width // 2] = 255
    plane = tiny.picture(height, width, 1, seed=5)[..., 0]
    if bits > 8:
        rng = np.random.default_rng(1)
        samples = samples.astype(np.uint16) * 257 + rng.integers(-90, 90, samples.shape).astype(np.uint16)
        plane = plane.astype(np.uint16) * 257
    return Image(samples, plane if alpha else None, bit_depth=bits)


def same(found: Image, expected: Image) -> None:
    assert found.pixels.dtype == expected.pixels.dtype
    assert np.array_equal(found.pixels, expected.pixels)
    assert (found.alpha is None) == (expected.alpha is None)
    assert expected.alpha is None or np.array_equal(found.alpha, expected.alpha)
    for name in ("icc", "exif", "xmp", "colour", "density", "bit_depth"):
        assert getattr(found, name) == getattr(expected, name), name


def alike(data: bytes, other: bytes, codec: ImageCodec) -> None:
    """Both decode, and where they differ, an encoder's floats were rounded another way: that costs nothing."""
    assert ltn.read_header(data).quality == ltn.read_header(other).quality
    assert abs(len(data) - len(other)) <= 8 + len(other) // 50
    # Their checksums of the picture are proved here.
    a, b = (codec.decode(each)[0].pixels.astype(np.int32) for each in (data, other))
    assert np.abs(a - b).mean() < (1 if a.max() < 256 else 257)


PICTURES = [
    picture(1, 1),
    picture(64, 64),
    picture(65, 63),
    picture(130, 97, 1),
    picture(70, 200, alpha=True),
    picture(100, 66, bits=16),
    picture(66, 130, 1, bits=10, alpha=True),
    picture(200, 200, drawn=True),
]


@pytest.mark.parametrize("image", PICTURES, ids=lambda i: "x".join(map(str, i.pixels.shape)))
@pytest.mark.parametrize("tile", [1024, 64])
def test_files_of_a_model(
    library: clib.Library, model: ctypes.c_void_p, tiny_model: ReleasedPictures, image: Image, tile: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(latens.codec.image, "_TILE", tile)
    codec = ImageCodec(tiny_model)
    for quality in (0.0, 43.0, 100.0):
        data = codec.encode(image, quality)
        same(library.decode(model, data), codec.decode(data)[0])
    about = library.info(data)
    header = ltn.read_header(data)
    assert (about.width, about.height, about.channels) == (header.width, header.height, header.channels)
    assert (about.bit_depth, about.quality, about.tiles) == (
        header.bit_depth,
        header.quality,
        header.tile_count,
    )
    assert (about.model.decode(), about.entropy_id.decode()) == (header.model, header.entropy_id)
    assert (about.weights_id.decode(), about.tile_size) == (header.weights_id, tile)
    assert (about.alpha, about.lossless) == (image.alpha is not None, 0)


def test_drawn_blocks(
    library: clib.Library,
    model: ctypes.c_void_p,
    tiny_model: ReleasedPictures,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocks = np.zeros((4, 4), bool)
    blocks[0, 1] = blocks[2:, 2:] = True
    whole = blocks.repeat(64, 0).repeat(64, 1)
    y, x = np.indices(whole.shape)
    cut = whole ^ (np.hypot(y - 90, x - 77) < 50.5)
    mask = iter((whole, cut, cut))
    monkeypatch.setattr(
        ImageCodec, "_drawn", lambda _, pixels, *__: next(mask)[: len(pixels), : pixels.shape[1]]
    )
    monkeypatch.setattr(latens.codec.image, "smaller", lambda image, data, *_, **__: data)
    codec = ImageCodec(tiny_model)
    for tile, bits in ((1024, 8), (64, 8), (128, 12)):
        monkeypatch.setattr(latens.codec.image, "_TILE", tile)
        image = picture(250, 200, bits=bits)
        data = codec.encode(image, 50, content="auto")
        container = ltn.read(data)
        kinds = {t.drawn[0] for t in container.tiles if t is not None and t.drawn}
        assert kinds & ({1, 2} if tile == 1024 else {3})
        same(library.decode(model, data), codec.decode(container)[0])


def test_the_frozen_file(library: clib.Library) -> None:
    weights = (VECTORS / "default.safetensors").read_bytes()
    data = (VECTORS / "default.ltn").read_bytes()
    loaded = library.load(weights)
    expected = load(VECTORS / "default.safetensors")
    assert library.c.ltn_model_entropy_id(loaded).decode() == expected.entropy_id
    assert library.c.ltn_model_weights_id(loaded).decode() == expected.weights_id
    assert library.c.ltn_model_name(loaded).decode() == expected.id
    same(library.decode(loaded, data), ImageCodec(expected).decode(data)[0])
    library.c.ltn_model_free(loaded)


@pytest.mark.parametrize("name", ["latens-eye-1", "latens-psnr-1"])
def test_shipped_models(library: clib.Library, name: str) -> None:
    weights = (Path(latens.__file__).parent / f"zoo/data/{name}.safetensors").read_bytes()
    loaded = library.load(weights)
    codec = ImageCodec(name)
    image = picture(150, 203)
    data = codec.encode(image, 62)
    same(library.decode(loaded, data), codec.decode(data)[0])
    alike(library.encode(loaded, image, 62), data, codec)
    library.c.ltn_model_free(loaded)


@pytest.mark.parametrize("image", PICTURES, ids=lambda i: "x".join(map(str, i.pixels.shape)))
def test_lossless_files(library: clib.Library, image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = LosslessCodec()
    for near, tile in ((0, None), (3, None), (0, 64)):
        if tile:
            monkeypatch.setattr(latens.codec.lossless, "_tile_size", lambda *_: 64)
        data = codec.encode(image, near=near)
        expected = codec.decode(ltn.read(data))[0]
        same(library.decode(None, data), expected)
        if not tile:
            assert library.encode(None, image, near=near) == data
    assert library.info(data).lossless


def test_metadata(library: clib.Library, model: ctypes.c_void_p, tiny_model: ReleasedPictures) -> None:
    rng = random.Random(3)
    icc = bytes(rng.choices(range(4), k=5000)) + rng.randbytes(70_000)
    image = replace(
        picture(40, 50, alpha=True),
        icc=icc,
        exif=EXIF,
        xmp="<x:xmpmeta>ü</x:xmpmeta>".encode() * 300,
        density=((300, 1), (72, 5), "inch"),
        colour=ltn.Cicp(9, 16, 0, 1),
    )
    codec = ImageCodec(tiny_model)
    same(library.decode(model, codec.encode(image)), codec.decode(codec.encode(image))[0])
    same(library.decode(None, LosslessCodec().encode(image)), image)
    # What C writes, Python reads.
    same(LosslessCodec().decode(ltn.read(library.encode(None, image, gap=7)))[0], image)
    same(codec.decode(library.encode(model, image, gap=7))[0], codec.decode(codec.encode(image))[0])


@pytest.mark.parametrize("level", [0, 1, 6, 9])
@pytest.mark.parametrize("strategy", [zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE])
def test_zlib_streams(
    library: clib.Library, level: int, strategy: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compress(data: bytes, _: int) -> bytes:
        made = zlib.compressobj(level, strategy=strategy)
        return made.compress(data) + made.flush()

    rng = random.Random(level)
    texts = [
        b"a",
        b"ab" * 40_000,
        rng.randbytes(300),
        bytes(rng.choices(b"abcdefgh", [9, 5, 3, 2, 1, 1, 1, 1], k=99_999)),
    ]
    image = picture(3, 3)
    for text in texts:
        with monkeypatch.context() as patch:
            patch.setattr("latens.format._container.zlib.compress", compress)
            data = LosslessCodec().encode(replace(image, xmp=text))
        assert library.decode(None, data).xmp == text


@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_as_older_files_have_it(
    library: clib.Library, model: ctypes.c_void_p, tiny_model: ReleasedPictures, channels: int
) -> None:
    codec = ImageCodec(tiny_model)
    for bits in (8, 16):
        image = picture(70, 45, channels, bits=bits, alpha=True)
        container = ltn.read(codec.encode(image))
        assert image.alpha is not None
        ramp = np.cumsum(np.ones_like(image.alpha), axis=0, dtype=image.alpha.dtype)  # for the filter
        for plane in (image.alpha, ramp):
            old = replace(container, alpha_tiles=None, alpha=plane.tobytes())
            data = ltn.write(old)
            same(library.decode(model, data), codec.decode(data)[0])


def test_files_that_it_encodes(
    library: clib.Library,
    model: ctypes.c_void_p,
    tiny_model: ReleasedPictures,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codec = ImageCodec(tiny_model)
    for image in PICTURES:
        for quality in (0.0, 55.5, 100.0):
            data = library.encode(model, image, quality)
            alike(data, codec.encode(image, quality), codec)
            same(library.decode(model, data), codec.decode(data)[0])
    # 1024 is the size of a tile: two rows and columns of them, features across their border.
    large = picture(1100, 1090)
    alike(library.encode(model, large, 40), codec.encode(large, 40), codec)


@pytest.mark.parametrize("alpha", [False, True])
def test_previews(
    library: clib.Library, model: ctypes.c_void_p, tiny_model: ReleasedPictures, alpha: bool
) -> None:
    codec = ImageCodec(tiny_model)
    image = replace(picture(90, 141, alpha=alpha), xmp=b"<x/>")
    data = codec.encode(image, 60, preview=True)
    container = ltn.read(data)
    assert library.preview(data) == container.preview
    assert library.preview(codec.encode(image, 60)) is None
    same(library.decode(model, data), codec.decode(data)[0])
    inner = ltn.read(container.preview or b"")
    same(library.decode(model, container.preview or b""), codec.decode(inner)[0])
    place = next(about for about in ltn.describe(data).chunks if about.name == "preview")

    def chunk(kind: bytes, payload: bytes) -> bytes:
        body = kind + _container.varint(len(payload), "") + payload
        return body + zlib.crc32(body).to_bytes(4, "little")

    def finish(start: bytes) -> bytes:
        return start + chunk(b"Z", _container.varint(len(start), ""))

    assert library.preview(finish(data[: place.offset] + chunk(b"p", container.preview or b""))) is not None
    plain = ltn.write(inner)
    end = ltn.describe(plain).chunks[-1].offset
    for preview in (
        b"",
        b"LT",
        b"not one",
        plain[:-1],
        plain + b"x",
        ltn.write(replace(inner, xmp=b"x")),
        ltn.write(replace(inner, density=((1, 1), (2, 1), ""))),
        ltn.write(replace(inner, header=replace(inner.header, width=inner.header.width - 1))),
        ltn.write(replace(inner, header=replace(inner.header, model="other"))),
        ltn.write(replace(inner, header=replace(inner.header, entropy_id="00000000"))),
        ltn.write(replace(inner, header=replace(inner.header, bit_depth=12), alpha_tiles=None)),
        codec.encode(picture(12, 18, alpha=not alpha), 30),
        LosslessCodec().encode(picture(12, 18, alpha=alpha)),
        finish(plain[:end] + chunk(b"p", plain)),
    ):
        bad = finish(data[: place.offset] + chunk(b"p", preview))
        with pytest.raises(FormatError) as error:
            ltn.read(bad)
        expected = next(codes for kind, codes in clib.CODES.items() if isinstance(error.value, kind))
        assert outcome(library, model, bad) in expected, error.value
        with pytest.raises(clib.LibraryError):
            library.preview(bad)
    kept = chunk(b"p", container.preview or b"")
    first = next(about.offset for about in ltn.describe(data).chunks if about.name == "tile")
    for bad in (finish(data[: place.offset] + kept + kept), finish(data[:first] + kept + data[first:])):
        assert outcome(library, model, bad) == 7


# -- what is damaged ---------------------------------------------------------------------------------------


def outcome(library: clib.Library, model: Any, data: bytes) -> int:
    try:
        library.decode(model, data)
    except clib.LibraryError as error:
        return error.code
    return 0


def test_damaged_files(
    library: clib.Library,
    model: ctypes.c_void_p,
    tiny_model: ReleasedPictures,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(latens.codec.image, "_TILE", 64)
    image = replace(picture(70, 140, alpha=True), exif=EXIF, density=((1, 1), (2, 1), ""))
    codec = ImageCodec(tiny_model)
    rng = random.Random(7)
    for good in (codec.encode(image, 20), LosslessCodec().encode(image)):
        cut = [good[:n] for n in range(min(len(good), 150))] + [
            good[: rng.randrange(len(good))] for _ in range(100)
        ]
        flipped = []
        for _ in range(300):
            bit = rng.randrange(8 * min(len(good), 400 if rng.random() < 0.5 else len(good)))
            flipped.append(good[: bit // 8] + bytes([good[bit // 8] ^ 1 << bit % 8]) + good[bit // 8 + 1 :])
        for bad in (*cut, *flipped, good + b"\0"):
            with pytest.raises(LatensError) as error:
                codec.decode(bad)
            expected = next(codes for kind, codes in clib.CODES.items() if isinstance(error.value, kind))
            assert outcome(library, model, bad) in expected, error.value
            with pytest.raises(clib.LibraryError):
                library.info(bad)


def recrc(container: ltn.Container, **changes: Any) -> bytes:
    return ltn.write(replace(container, **changes))


def test_damage_behind_sound_checksums(
    library: clib.Library, model: ctypes.c_void_p, tiny_model: ReleasedPictures
) -> None:
    """Streams that are damaged where no CRC of a chunk tells, as an attacker makes them."""
    codec = ImageCodec(tiny_model)
    rng = random.Random(11)
    container = ltn.read(codec.encode(picture(100, 100), 30))
    lossless = ltn.read(LosslessCodec().encode(picture(50, 50)))
    for given, loaded in ((container, model), (lossless, None)):
        tile = given.tiles[0]
        assert tile is not None
        for _ in range(200):
            stream = bytearray(tile.stream)
            for _ in range(rng.randrange(1, 4)):
                stream[rng.randrange(len(stream))] = rng.randrange(256)
            if bytes(stream) == tile.stream:
                continue
            stream = stream[: rng.randrange(len(stream))] if rng.random() < 0.3 else stream
            assert outcome(library, loaded, recrc(given, tiles=[tile._replace(stream=bytes(stream))])) in (
                4,
                5,
                8,
            )
        wrong = tile._replace(checksum=tile.checksum ^ 1)
        assert outcome(library, loaded, recrc(given, tiles=[wrong])) == 5
    assert outcome(library, model, recrc(container, pixels=1)) == 5
    bomb = zlib.compress(bytes(20_000_000))
    assert len(bomb) < 30_000
    at = ltn.write(replace(lossless, icc=b"x"))
    start = at.index(b"i", ltn.describe(at).chunks[0].offset)
    size = ltn.describe(at).chunks[0].size
    length = len(bomb)
    head = b"i" + bytes([length & 127 | 128, length >> 7 & 127 | (128 if length >> 14 else 0)])
    head += bytes([length >> 14]) if length >> 14 else b""
    chunk = head + bomb
    chunk += zlib.crc32(chunk).to_bytes(4, "little")
    assert outcome(library, None, at[:start] + chunk + at[start + size :]) == 6


def test_what_is_refused(library: clib.Library, model: ctypes.c_void_p, tiny_model: ReleasedPictures) -> None:
    data = ImageCodec(tiny_model).encode(picture(64, 64))
    exact = LosslessCodec().encode(picture(64, 64))

    def refused(code: int, work: Any) -> str:
        with pytest.raises(clib.LibraryError) as error:
            work()
        assert error.value.code == code
        return error.value.message

    other = library.load((VECTORS / "default.safetensors").read_bytes())
    assert "none was given" in refused(10, lambda: library.decode(None, data))
    assert "entropy id" in refused(10, lambda: library.decode(other, data))
    library.c.ltn_model_free(other)
    few = clib.Limits(ctypes.sizeof(clib.Limits), 64 * 64 - 1, 0)
    little = clib.Limits(ctypes.sizeof(clib.Limits), 0, 1 << 16)
    for given, loaded in ((data, model), (exact, None)):
        refused(6, lambda given=given, loaded=loaded: library.decode(loaded, given, few))
        refused(6, lambda given=given: library.info(given, few))
        refused(6, lambda given=given, loaded=loaded: library.decode(loaded, given, little))
    unset = clib.Limits(0)
    refused(1, lambda: library.decode(None, exact, unset))
    refused(2, lambda: library.decode(None, b"GIF89a"))
    refused(3, lambda: library.decode(None, b""))
    refused(4, lambda: library.decode(None, b"LTN\2"))
    assert "video" in refused(4, lambda: library.info((VECTORS / "video.ltn").read_bytes()))
    image = picture(8, 8)
    refused(1, lambda: library.encode(model, image, 101.0))
    refused(1, lambda: library.encode(model, image, float("nan")))
    refused(1, lambda: library.encode(None, image, near=256))
    refused(1, lambda: library.encode(None, image, effort=0))
    refused(1, lambda: library.encode(None, replace(image, colour=ltn.Cicp(1, 13, 1, 1))))
    # An older program's header is filled as far as it goes.
    short = clib.Header(16)
    assert library.c.ltn_info(data, len(data), None, ctypes.byref(short), None) == 0
    assert (short.width, short.height, short.channels) == (64, 64, 0)


@pytest.mark.parametrize("name", ["latens-eye-1", "latens-psnr-1"])
def test_packed_weights(library: clib.Library, name: str) -> None:
    weights = (Path(latens.__file__).parent / f"zoo/data/{name}.safetensors").read_bytes()
    decoding, encoding = library.pack(weights), library.pack(weights, encoding=True)
    assert len(decoding) < 6_000_000
    assert len(decoding) + len(encoding) < 0.65 * len(weights)
    codec = ImageCodec(name)
    image = picture(70, 90)
    data = codec.encode(image, 50)
    whole, half = library.load(weights), library.load(decoding)
    both = library.load(encoding + decoding)
    for loaded in (half, both):
        # The hash over all that decides about symbols: what was packed is what comes out.
        assert library.c.ltn_model_entropy_id(loaded).decode() == codec.model.entropy_id
        assert library.c.ltn_model_weights_id(loaded).decode() == codec.model.weights_id
        same(library.decode(loaded, data), codec.decode(data)[0])
    assert library.encode(both, image, 50) == library.encode(whole, image, 50)
    with pytest.raises(clib.LibraryError, match="for encoding"):
        library.encode(half, image)
    for loaded in (whole, half, both):
        library.c.ltn_model_free(loaded)


def test_packed_weights_that_are_damaged(library: clib.Library, tiny_weights: Path) -> None:
    weights = tiny_weights.read_bytes()
    good, more = library.pack(weights), library.pack(weights, encoding=True)
    other = library.pack((VECTORS / "default.safetensors").read_bytes(), encoding=True)

    def code(data: bytes) -> int:
        found, loaded = library.try_load(data)
        library.c.ltn_model_free(loaded)
        return found

    assert code(good) == code(good + more) == 0
    for bad in (
        more,
        good + good,
        good + other,
        good + b"\0",
        good[:-1],
        good[:60],
        b"LTNW",
        good + more[:-5],
    ):
        assert code(bad) == 9
    assert code(good[:4] + b"\2" + good[5:]) == 4
    rng = random.Random(5)
    for _ in range(200):
        at = rng.randrange(len(good))
        changed = good[:at] + bytes([good[at] ^ 1 << rng.randrange(8)]) + good[at + 1 :]
        assert code(changed) in (4, 9)
        # With a checksum that is right again.
        changed = changed[:-4] + zlib.crc32(changed[:-4]).to_bytes(4, "little")
        assert code(changed) in (0, 4, 6, 9)


def test_weights_that_are_damaged(library: clib.Library, tiny_weights: Path) -> None:
    good = tiny_weights.read_bytes()
    length = int.from_bytes(good[:8], "little")
    rng = random.Random(4)
    bad = [good[: rng.randrange(len(good))] for _ in range(20)]
    bad += [good + b"\0", b"", b"{}", b"\xff" * 64, good[:8] + b"[" * length + good[8 + length :]]
    refused = 0
    for _ in range(150):
        at = rng.randrange(8 + length) if rng.random() < 0.9 else rng.randrange(len(good))
        bad.append(good[:at] + bytes([good[at] ^ 1 << rng.randrange(8)]) + good[at + 1 :])
    for data in bad:
        code, loaded = library.try_load(data)
        assert code in (0, 6, 9)
        refused += code != 0
        library.c.ltn_model_free(loaded)
    assert refused > 100
    renamed = good.replace(b'"family":"pictures"', b'"family":"pictured"')
    assert renamed != good
    with pytest.raises(clib.LibraryError, match="pictured"):
        library.load(renamed)
    arrays, metadata = read_arrays(good)
    for name, at, offset in (("z", 3, -(2**15) - 1), ("y", 1, 2**15 + 3 - int(arrays["y.sizes"][1]))):
        offsets = arrays[f"{name}.offsets"].copy()
        offsets[at] = offset
        with pytest.raises(clib.LibraryError, match=f"tables {name}: symbols of table {at} leave 16 bits"):
            library.load(write_arrays(arrays | {f"{name}.offsets": offsets}, metadata))
        offsets[at] = max(offset - 1, -(2**15))
        library.c.ltn_model_free(library.load(write_arrays(arrays | {f"{name}.offsets": offsets}, metadata)))


def test_threads(library: clib.Library, model: ctypes.c_void_p, tiny_model: ReleasedPictures) -> None:
    codec = ImageCodec(tiny_model)
    files = [codec.encode(picture(100 + i, 130), 10 * i) for i in range(6)]
    expected = [codec.decode(data)[0] for data in files]
    with ThreadPoolExecutor(4) as pool:
        for found, image in zip(
            pool.map(lambda d: library.decode(model, d), files * 3), expected * 3, strict=True
        ):
            same(found, image)


# -- what is installed -------------------------------------------------------------------------------------


def test_an_installed_library_and_the_example(
    folder: Path, library: clib.Library, tiny_weights: Path, tiny_model: ReleasedPictures, tmp_path: Path
) -> None:
    subprocess.run(
        ["cmake", "--install", folder, "--prefix", tmp_path / "here"], check=True, capture_output=True
    )
    found = next((tmp_path / "here").rglob("libltn.so"), None) or next(
        (tmp_path / "here").rglob("libltn.dylib")
    )
    program = tmp_path / "example"
    flags = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    where = [f"-I{tmp_path}/here/include", f"-L{found.parent}", "-lltn", f"-Wl,-rpath,{found.parent}"]
    subprocess.run(["cc", *flags, clib.ROOT / "examples/ltn.c", *where, "-o", program], check=True)
    image = picture(60, 41, bits=12, alpha=True)
    codec = ImageCodec(tiny_model)
    (tmp_path / "a.ltn").write_bytes(data := codec.encode(image, 40))
    subprocess.run(
        [program, tmp_path / "a.ltn", tmp_path / "a.pam", tiny_weights], check=True, capture_output=True
    )
    expected = codec.decode(data)[0]
    assert expected.alpha is not None
    samples = np.concatenate([expected.pixels, expected.alpha[..., None]], 2)
    head, _, content = (tmp_path / "a.pam").read_bytes().partition(b"ENDHDR\n")
    assert b"WIDTH 41\nHEIGHT 60\nDEPTH 4\nMAXVAL 65535\nTUPLTYPE RGB_ALPHA\n" in head
    assert content == samples.astype(">u2").tobytes()
    (tmp_path / "a.ltn").write_bytes(data[:-3])
    failed = subprocess.run(
        [program, tmp_path / "a.ltn", tmp_path / "b.pam", tiny_weights], capture_output=True
    )
    assert failed.returncode == 1
    assert b"data end" in failed.stderr
    assert not (tmp_path / "b.pam").exists()


FREEDESKTOP = clib.ROOT / "native/library/freedesktop"


@pytest.mark.skipif(shutil.which("update-mime-database") is None, reason="needs shared-mime-info")
def test_kinds_of_files(tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    shutil.copy(FREEDESKTOP / "ltn.xml", tmp_path / "packages")
    subprocess.run(["update-mime-database", tmp_path], check=True, capture_output=True)
    assert "image/x-ltn:*.ltn" in (tmp_path / "globs2").read_text()
    # [priority:type], then rules of depth>offset=size, value and &mask: read here as file managers do.
    magic = (tmp_path / "magic").read_bytes()
    profiles = {"image/x-ltn": (0, 2), "video/x-ltn": (1,)}
    for kind, codes in profiles.items():
        section = magic.split(f"[70:{kind}]\n".encode())[1].split(b"[")[0]
        assert section.startswith(b">0=\0\x04LTN\x01\n")
        found = re.findall(rb"1>4=\0\x01(.)&(.)\n", section, re.S)
        assert sorted(found) == sorted((bytes([code]), b"\3") for code in codes)


@pytest.mark.skipif(sys.platform != "linux", reason="file managers elsewhere have other ways")
def test_the_thumbnailer(
    folder: Path, library: clib.Library, tiny_weights: Path, tiny_model: ReleasedPictures, tmp_path: Path
) -> None:
    (line,) = re.findall(r"^Exec=(.*)$", (FREEDESKTOP / "ltn.thumbnailer").read_text(), re.M)
    shutil.copy(tiny_weights, tmp_path / f"{tiny_model.id}.safetensors")
    source, out = tmp_path / "in put.ltn", tmp_path / "thumbnail"

    def run(data: bytes, size: int = 30) -> subprocess.CompletedProcess[bytes]:
        source.write_bytes(data)
        names = {"%s": str(size), "%i": str(source), "%o": str(out)}
        name, *arguments = (names.get(word, word) for word in line.split())
        return subprocess.run(
            [folder / name, *arguments], capture_output=True, env={"LTN_WEIGHTS": str(tmp_path)}
        )

    for number, image in enumerate(
        (
            picture(80, 120),
            picture(120, 80, bits=12, alpha=True),
            picture(90, 90, 1),
            picture(2, 120),
            picture(20, 30, 1, bits=16),
        )
    ):
        for codec in (LosslessCodec(), ImageCodec(tiny_model)):
            data = codec.encode(image)
            out.write_bytes(b"there may be one")
            assert run(data).returncode == 0
            with PillowImage.open(out) as found:
                found.load()
                size = ((30, 20), (20, 30), (30, 30), (30, 1), (30, 20))[number]
                assert (found.format, found.mode, found.size) == ("PNG", "RGBA", size)
            decoded = ImageCodec(tiny_model).decode(data)[0].to_8_bits()
            pixels = np.broadcast_to(decoded.pixels, (*decoded.pixels.shape[:2], 3)).astype(np.float64)
            alpha = (
                np.full(pixels.shape[:2], 255.0)
                if decoded.alpha is None
                else decoded.alpha.astype(np.float64)
            )
            rows, columns = len(pixels) // size[1], pixels.shape[1] // size[0]
            if number != 4:
                squares = (pixels * alpha[..., None]).reshape(size[1], rows, size[0], columns, 3).sum((1, 3))
                visible = alpha.reshape(size[1], rows, size[0], columns).sum((1, 3))
                small = np.asarray(found)
                colour = squares / np.maximum(visible, 1)[..., None]
                assert np.abs(small[..., :3] - colour)[visible > 0].max() <= 1.5
                assert np.abs(small[..., 3] - visible / (rows * columns)).max() <= 1
            else:
                assert np.array_equal(np.asarray(found)[..., :3], pixels)

    # The small copy of a file is taken where it is large enough, and shows another picture here.
    container = ltn.read(ImageCodec(tiny_model).encode(picture(240, 320), preview=True))
    other = ImageCodec(tiny_model).encode(Image(np.full((30, 40, 3), 200, np.uint8)))
    data = ltn.write(replace(container, preview=other))
    assert (run(data, 40).returncode, run(data, 41).returncode) == (0, 0)
    with PillowImage.open(out) as found:
        assert np.ptp(np.asarray(found)[..., :3]) > 100
    assert run(data, 40).returncode == 0
    with PillowImage.open(out) as found:
        assert found.size == (40, 30)
        assert np.abs(np.asarray(found)[..., :3].astype(int) - 200).max() < 40

    out.unlink()
    sound = ImageCodec(tiny_model).encode(picture(80, 120))
    (tmp_path / f"{tiny_model.id}.safetensors").write_bytes(b"no weights")
    for data, why in ((sound[:-1], b"data end"), (b"", b""), (sound, b""), (b"LTN", b"")):
        failed = run(data)
        assert failed.returncode == 1
        assert failed.stderr.startswith(b"ltn-thumbnailer: ")
        assert why in failed.stderr
        assert failed.stderr.count(b"\n") == 1
        assert not out.exists()
    (tmp_path / f"{tiny_model.id}.safetensors").unlink()
    assert b"cannot be read" in run(sound).stderr
    assert run(sound, 0).returncode == 1


def test_the_page_compiles(tmp_path: Path) -> None:
    page = (clib.ROOT / "docs/tutorial/library.md").read_text()
    first, *others = re.findall(r"^```c\n(?:#include <ltn.h>\n)?(.*?)^```$", page, re.M | re.S)
    assert others
    given = "void* weights, size_t weights_size, void* file, size_t file_size, uint8_t* pixels, FILE* out"
    body = first + "".join(f"{{{block}}}" for block in others)
    (tmp_path / "page.c").write_text(f"#include <ltn.h>\n#include <stdio.h>\nvoid page({given}) {{{body}}}\n")
    where = f"-I{clib.ROOT / 'native/library'}"
    subprocess.run(
        ["cc", "-fsyntax-only", "-Wall", "-Werror", "-Wno-unused", where, tmp_path / "page.c"], check=True
    )


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
def test_symbols(folder: Path, library: clib.Library) -> None:
    shared = folder / "libltn.so"
    if not shared.exists():
        pytest.skip("symbols have versions in ELF")
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", shared], check=True, capture_output=True, text=True
    ).stdout
    names = {line.split()[-1] for line in listed.splitlines()} - {"LTN_1"}
    declared = (clib.ROOT / "native/library/ltn.h").read_text()
    assert len(names) >= 15
    assert {name.partition("@@")[2] for name in names} == {"LTN_1"}
    assert all(f"{name.partition('@@')[0]}(" in declared for name in names)
