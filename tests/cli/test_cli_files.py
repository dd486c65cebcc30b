"""Encode, decode, info and models: what they do with files, and with everything that is not as it should be."""

import dataclasses
import io
import json
import os
import re
import resource
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import tiny
from latens import format as ltn
from latens import io as lio
from latens.cli import app
from latens.zoo import DEFAULT_MODEL

Run = Callable[..., Any]
Fails = Callable[..., str]


@pytest.fixture
def model(tiny_weights: Path) -> tuple[str, str]:
    """The options that choose the tiny model."""
    return ("--model", str(tiny_weights))


# ---- what works


def test_a_photo_becomes_a_file_and_comes_back(latens: Run, photo: Path, work: Path, model: Any) -> None:
    result = latens("encode", photo, "-q", "80", *model)
    assert (result.code, result.out) == (0, b"")
    size = (work / "photo.ltn").stat().st_size
    before = photo.stat().st_size
    share = f"{before:,} -> {size:,} bytes ({100 * size / before:.1f} %)"
    assert result.err == f"photo.png -> photo.ltn: {share}, {8 * size / 3500:.3f} bits per pixel\n"
    result = latens("decode", "photo.ltn", "-o", "back.webp", *model)
    assert (result.code, result.out, result.err) == (0, b"", "photo.ltn -> back.webp: 70 x 50\n")
    with Image.open("back.webp") as image:
        assert (image.format, image.size) == ("WEBP", (70, 50))
    assert sorted(p.name for p in work.iterdir()) == ["back.webp", "photo.ltn", "photo.png"]


def test_many_files_go_beside_their_sources_or_into_a_folder(latens: Run, work: Path, model: Any) -> None:
    (work / "in").mkdir()
    for name in ("a.png", "b.JPEG", "in/c.d.png"):
        Image.fromarray(tiny.picture(9, 9)).save(work / name)
    assert latens("encode", "a.png", "b.JPEG", "in/c.d.png", *model).code == 0
    for name in ("a.ltn", "b.ltn", "in/c.d.ltn"):
        assert (work / name).is_file()
    assert latens("decode", "a.ltn", "b.ltn", "in/c.d.ltn", "-o", "new/folder", "--quiet", *model).err == ""
    assert sorted(p.name for p in (work / "new/folder").iterdir()) == ["a.png", "b.png", "c.d.png"]
    assert latens("encode", "a.png", "-o", "one/", *model).code == 0
    assert (work / "one/a.ltn").is_file()
    assert latens("decode", "a.ltn", "--format", "ppm", *model).code == 0
    assert (work / "a.ppm").read_bytes().startswith(b"P6")


def test_standard_input_and_output(latens: Run, photo: Path, work: Path, model: Any) -> None:
    encoded = latens("encode", "-", *model, stdin=photo.read_bytes())
    assert encoded.code == 0
    assert encoded.err.startswith("standard input -> standard output: ")
    ltn.read(encoded.out)
    decoded = latens("decode", "-", *model, stdin=encoded.out)
    with Image.open(io.BytesIO(decoded.out)) as image:
        assert (image.format, image.size) == ("PNG", (70, 50))
    to_file = latens("encode", "-", "-o", "x.ltn", *model, stdin=photo.read_bytes())
    assert (to_file.code, to_file.out) == (0, b"")
    assert (work / "x.ltn").read_bytes() == encoded.out
    as_jpeg = latens("decode", "x.ltn", "-o", "-", "--format", "jpeg", *model)
    assert as_jpeg.out.startswith(b"\xff\xd8")
    assert latens("encode", "-", "-o", "folder/", *model, stdin=photo.read_bytes()).code == 0
    assert (work / "folder" / "stdin.ltn").read_bytes() == encoded.out
    described = latens("info", "-", stdin=encoded.out)
    assert b"tiny-1" in described.out


def test_info_describes_every_byte(latens: Run, ltn_file: Path) -> None:
    text = latens("info", ltn_file).out.decode()
    size = ltn_file.stat().st_size
    for label, value in (("Width", "70"), ("Height", "50"), ("Model", "tiny-1"), ("Colour", "sRGB")):
        assert re.search(rf"^{label} +{value}$", text, re.M)
    told = json.loads(latens("info", ltn_file, "--json").out)
    assert (told["quality"], told["bpp"], told["ratio"]) == (60, 8 * size / 3500, 3 * 3500 / size)
    assert re.search(
        rf"^Quality +60$\nRatio +{3 * 3500 / size:.1f} : 1 .* {8 * size / 3500:.3f} bits", text, re.M
    )
    assert told["size"] == size == told["streams"] + told["extras"] + told["overhead"]
    chunks = [chunk["name"] for chunk in told["chunks"]]
    assert sorted(chunks) == sorted(["tile", "checksum of the picture", "END"])
    assert chunks[-1] == "END"
    fields = told["fields"]
    assert (fields["Width"], fields["Bits per sample"], fields["Tile size"]) == (70, 8, 1024)
    assert fields["Model"] == "tiny-1"


def test_info_gives_the_quality_as_it_was_given(latens: Run, photo: Path, model: Any) -> None:
    for quality in ("0", "100", "33.3", "0.01", "71.25", "50"):
        assert latens("encode", photo, "-q", quality, "--force", *model).code == 0
        assert re.search(rf"^Quality +{re.escape(quality)}$", latens("info", "photo.ltn").out.decode(), re.M)


def test_models_and_version_and_help(latens: Run) -> None:
    assert DEFAULT_MODEL.encode() in latens("models").out
    assert DEFAULT_MODEL in [card["id"] for card in json.loads(latens("models", "--json").out)]
    assert re.fullmatch(rb"latens \d+\.\d+\.\d+\S*\n", latens("--version").out)
    for arguments in ((), ("--help",), ("-h",)):
        result = latens(*arguments)
        assert (result.code, result.err) == (0, "")
        assert b"update-model" in result.out
    for command in ("encode", "decode", "info", "models", "train", "update-model"):
        result = latens(command, "--help")
        assert result.code == 0
        assert b"Example" in result.out
        assert max(map(len, result.out.splitlines())) <= 80


def test_quality_threads_and_max_pixels(latens: Run, photo: Path, work: Path, model: Any) -> None:
    sizes = []
    for quality in ("0", "50.5", "100"):
        assert latens("encode", photo, "-q", quality, "-f", "--threads", "1", *model).code == 0
        sizes.append((work / "photo.ltn").stat().st_size)
    assert sizes == sorted(sizes)
    assert latens("decode", "photo.ltn", "--max-pixels", "3500", "-o", "x.png", *model).code == 0


def test_force_replaces_and_nothing_else_does(
    latens: Run, fails: Fails, photo: Path, work: Path, model: Any
) -> None:
    assert latens("encode", photo, *model).code == 0
    assert "photo.ltn: exists already; use --force" in fails("encode", photo, "-q", "1", *model)
    before = (work / "photo.ltn").read_bytes()
    assert latens("encode", photo, "-q", "1", "--force", *model).code == 0
    assert (work / "photo.ltn").read_bytes() != before


def test_notes_about_conversions_are_told(latens: Run, work: Path, model: Any) -> None:
    Image.fromarray(tiny.picture(9, 9, 4), "CMYK").save("c.tif")
    result = latens("encode", "c.tif", *model)
    assert "c.tif: converted from CMYK to sRGB" in result.err
    Image.fromarray(tiny.picture(9, 9)).save("e.png", icc_profile=_icc())
    assert latens("encode", "e.png", *model).code == 0
    result = latens("decode", "e.ltn", "-o", "e.bmp", *model)
    assert "e.ltn: not kept: ICC profile (written as BMP)\n" in result.err


def test_what_is_lost_is_named_even_if_quiet(latens: Run, work: Path, model: Any) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "a cat")
    Image.fromarray(tiny.picture(9, 9)).save("t.png", pnginfo=text, icc_profile=_icc(), dpi=(300, 300))
    result = latens("encode", "t.png", "--quiet", *model)
    assert result.err == "t.png: not kept: text (parameters)\n"
    result = latens("decode", "t.ltn", "-o", "t.bmp", "--quiet", *model)
    assert result.err == "t.ltn: not kept: ICC profile, density (written as BMP)\n"
    result = latens("decode", "t.ltn", "-o", "out.png", "--quiet", *model)
    assert result.err == ""
    with Image.open("out.png") as image:
        assert image.info["dpi"] == (299.9994, 299.9994)


def test_deep_pictures_stay_deep(latens: Run, work: Path, model: Any) -> None:
    """A PNG of 16 bits, with the code points of PQ, comes out as one; and info says so."""
    ramp = np.linspace(20_000, 30_000, 1600).astype(np.uint16)
    deep = lio.Image(np.broadcast_to(ramp[:, None], (64, 1600, 3)).copy(), colour=(9, 16, 0, 1))
    lio.write_image(deep, "deep.png")
    assert latens("encode", "deep.png", "-q", "100", *model).code == 0
    shown = latens("info", "deep.ltn").out.decode()
    assert re.search(r"Bits per sample +16\n", shown)
    assert re.search(r"Colour +CICP 9/16/0/1\n", shown)
    for name in ("back.png", "back.tif"):
        result = latens("decode", "deep.ltn", "-o", name, *model)
        assert "not kept" not in result.err
        back = lio.read_image(name)
        assert len(np.unique(back.pixels)) > 1000
        assert back.colour == deep.colour or back.icc


def _icc() -> bytes:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


# ---- wrong usage


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",), ("encode",), ("decode",), ("info",), ("encode", "--nothing", "x"), ("info", "a", "b"),
        ("encode", "x", "-q"), ("encode", "x", "-q", "much"), ("encode", "x", "-q", "-1"), ("encode", "x", "-q", "101"),
        ("encode", "x", "--threads", "0"), ("encode", "x", "--max-pixels", "0"), ("encode", "x", "--frame", "-1"),
        ("--\x1b[31m",), ("\x1b]0;x\x07",), ("encode", "x", "--threads", "\x1b[2J"), ("train",), ("update-model", "x"),
        ("encode", ""), ("info", ""), ("decode", "x", "--format", "gif"), ("decode", "x", "--format", "../x"),
        ("decode", "x.ltn", "-o", "x.gif"), ("decode", "x.ltn", "-o", "noending"), ("encode", "x", "-o", ""),
    ],
    ids=lambda a: " ".join(a).encode("unicode_escape").decode(),
)  # fmt: skip
def test_wrong_usage(fails: Fails, arguments: tuple[str, ...]) -> None:
    fails(*arguments)


def test_quality_that_is_no_number(fails: Fails, photo: Path, model: Any) -> None:
    for quality in ("nan", "inf", "-inf", "1e400"):
        assert "quality" in fails("encode", photo, "-q", quality, *model)


def test_debug_shows_where_it_happened(latens: Run, work: Path) -> None:
    for arguments in (("--debug", "info", "x"), ("info", "x", "--debug")):
        result = latens(*arguments)
        assert result.code == 2
        assert result.err.startswith("Traceback")
        assert result.err.endswith("latens: error: x: cannot be read (No such file or directory)\n")
    assert "Traceback" not in latens("info", "--", "--debug").err


# ---- files that are no images


def png(width: int, height: int, *chunks: tuple[bytes, bytes], rows: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rest = b"".join(chunk(*c) for c in chunks)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + rest
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


BOMB = zlib.compress(bytes(100_000_000), 9)
BAD_IMAGES = {
    "empty": b"",
    "text": b"hello, I am not an image\n" * 50,
    "html": b"<!doctype html><img src=x>",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "zeros": bytes(4096),
    "ltn": b"LTN\1" + bytes(100),
    "png of 10^9 squared": png(10**9, 10**9),
    "png of 2^31 pixels": png(2**31 - 1, 1),
    "png of 70000 x 1": png(70000, 1, rows=bytes(70001)),
    "png of 20000 squared": png(20000, 20000, rows=bytes(20001 * 10)),
    "png of no pixels": png(0, 5),
    "png without rows": png(50, 50),
    "bomb in icc": png(1, 1, (b"iCCP", b"x\0\0" + BOMB), rows=b"\0\0"),
    "bomb in text": png(1, 1, (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB), rows=b"\0\0"),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_what_is_no_image(kind: str, latens: Run, fails: Fails, work: Path, model: Any) -> None:
    (work / "bad.png").write_bytes(BAD_IMAGES[kind])
    if kind.startswith("bomb"):
        # Nothing is lost when only a bomb is left out; it must not go off.
        result = latens("encode", "bad.png", *model)
        assert result.code in (0, 2)
        assert (work / "bad.ltn").exists() == (result.code == 0)
        return
    assert fails("encode", "bad.png", *model).startswith("latens: error: bad.png: ")
    assert fails("encode", "-", "-o", "x.ltn", *model, stdin=BAD_IMAGES[kind])


def test_images_cut_anywhere(fails: Fails, photo: Path, work: Path, model: Any) -> None:
    data = photo.read_bytes()
    for length in (0, 1, 8, 20, 33, 40, len(data) // 2, len(data) - 200):
        (work / "cut.png").write_bytes(data[:length])
        assert "cut.png: " in fails("encode", "cut.png", *model)
    Image.fromarray(tiny.picture(90, 90)).save("whole.jpg")
    (work / "cut.jpg").write_bytes((work / "whole.jpg").read_bytes()[:900])
    assert "cut.jpg: " in fails("encode", "cut.jpg", *model)


def test_animations_need_a_frame(latens: Run, fails: Fails, work: Path, model: Any) -> None:
    frames = [Image.fromarray(tiny.picture(20, 20, seed=i)) for i in range(3)]
    frames[0].save("a.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert "a.webp: animated" in fails("encode", "a.webp", *model)
    assert "a.webp: frame 3 does not exist" in fails("encode", "a.webp", "--frame", "3", *model)
    assert latens("encode", "a.webp", "--frame", "2", *model).code == 0


def test_what_cannot_be_opened(fails: Fails, work: Path, model: Any) -> None:
    (work / "folder.png").mkdir()
    (work / "loop.png").symlink_to("loop.png")
    for name in ("missing.png", "folder.png", "loop.png", "a" * 300 + ".png", "missing/x.png"):
        for command in ("encode", "decode"):
            output = {"encode": "out.ltn", "decode": "out.png"}[command]
            assert f"{name}: " in fails(command, name, "-o", output, *model)
        assert f"{name}: " in fails("info", name)


# ---- files that are no .ltn, or not any more


def test_ltn_cut_at_any_byte(fails: Fails, ltn_bytes: bytes, work: Path, model: Any) -> None:
    for length in range(len(ltn_bytes)):
        (work / "cut.ltn").write_bytes(ltn_bytes[:length])
        if length % 7 and length > 40:
            continue
        assert fails("decode", "cut.ltn", *model).startswith("latens: error: cut.ltn: ")
        assert fails("info", "cut.ltn").startswith("latens: error: cut.ltn: ")


def corrupted(data: bytes, rng: np.random.Generator) -> bytes:
    """The file with one kind of damage."""
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 30))
    kind = rng.integers(8)
    out = bytearray(data)
    if kind == 0:
        out[at] ^= 1 << rng.integers(8)
    elif kind == 1:
        out[at] = rng.integers(256)
    elif kind == 2:
        out[at : at + length] = rng.bytes(length)
    elif kind == 3:
        out[at : at + length] = bytes(length)
    elif kind == 4:
        del out[at : at + length]
    elif kind == 5:
        out[at:at] = rng.bytes(length)
    elif kind == 6:
        del out[at:]
    else:
        out += rng.bytes(length)
    return bytes(out) if bytes(out) != data else corrupted(data, rng)


def test_500_corruptions_give_no_picture(fails: Fails, ltn_bytes: bytes, work: Path, model: Any) -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        (work / "x.ltn").write_bytes(corrupted(ltn_bytes, rng))
        assert fails("decode", "x.ltn", *model).startswith("latens: error: x.ltn: ")


def with_header(data: bytes, **changes: Any) -> bytes:
    container = ltn.read(data)
    container.header = dataclasses.replace(container.header, **changes)
    return ltn.write(container)


def packed_header(data: bytes, find: bytes, replace: bytes) -> bytes:
    """A file with other bytes in its header, and the header's checksum made right again."""
    size = next(
        n for n in range(20, 128) if zlib.crc32(data[:n]) == int.from_bytes(data[n : n + 4], "little")
    )
    head = data[:size]
    assert head.count(find) >= 1
    head = head.replace(find, replace, 1)
    return head + zlib.crc32(head).to_bytes(4, "little") + data[size + 4 :]


def test_hostile_ltn_files(fails: Fails, ltn_bytes: bytes, work: Path, model: Any) -> None:
    container = ltn.read(ltn_bytes)
    tile = container.tiles[0]
    assert tile is not None
    size = bytes([70, 50])

    def with_stream(stream: bytes) -> bytes:
        return ltn.write(dataclasses.replace(container, tiles=[ltn.Tile(tile.checksum, stream)]))

    alpha_bomb = ltn.write(dataclasses.replace(container, alpha=bytes(3500)))
    alpha = next(chunk for chunk in ltn.describe(alpha_bomb).chunks if chunk.name == "alpha")
    bomb = b"A" + _varint(len(BOMB) + 1) + b"\0" + BOMB
    bomb += zlib.crc32(bomb).to_bytes(4, "little")
    icc = b"i" + _varint(len(BOMB)) + BOMB
    icc += zlib.crc32(icc).to_bytes(4, "little")
    cases = {
        "is newer|reads version": packed_header(ltn_bytes, b"LTN\1", b"LTN\7"),
        "expected 1 to 65535": packed_header(ltn_bytes, size, _varint(10**9) * 2),
        "above the limit of 268435456": packed_header(ltn_bytes, size, _varint(60000) * 2),
        "bytes follow the END": ltn_bytes + b"x",
        "alpha: inflates to more": alpha_bomb[: alpha.offset] + bomb + alpha_bomb[alpha.offset + alpha.size :],
        "ICC profile: inflates to more": ltn_bytes[: alpha.offset] + icc + ltn_bytes[alpha.offset :],
        "tiles of 65536 pixels": with_header(ltn_bytes, tile_size=65536),
        "entropy model": with_header(ltn_bytes, entropy_id="00000000"),
        "--other-weights": with_header(ltn_bytes, weights_id="00000000"),
        "tile 0: ": with_stream(b""),
        "tile 0:  ": with_stream(b"\xff" * 200),
        "tile 0:   ": with_stream(bytes(200)),
        "tile 0:    ": with_stream(tile.stream + b"\0\0"),
    }  # fmt: skip
    for cause, data in cases.items():
        (work / "x.ltn").write_bytes(data)
        line = fails("decode", "x.ltn", *model)
        assert line.startswith("latens: error: x.ltn: ")
        assert re.search(cause.rstrip(" "), line), (cause, line)


def _varint(value: int) -> bytes:
    groups = []
    while value >= 128:
        groups.append(value % 128 + 128)
        value //= 128
    return bytes([*groups, value])


def test_unknown_models_and_wrong_weights(
    latens: Run, fails: Fails, ltn_file: Path, ltn_bytes: bytes, photo: Path, work: Path, model: Any
) -> None:
    error = fails("decode", ltn_file, "-o", "x.png")
    assert re.search(rf"photo.ltn: unknown model 'tiny-1'; this release knows .*{DEFAULT_MODEL}", error)
    assert "unknown model 'none'" in fails("encode", photo, "-o", "x.ltn", "-m", "none")
    assert "none.safetensors: cannot be read" in fails(
        "encode", photo, "-o", "x.ltn", "-m", "none.safetensors"
    )
    (work / "bad.safetensors").write_bytes(b"x" * 100)
    assert "bad.safetensors: weights: not a safetensors file" in fails(
        "decode", ltn_file, "-o", "x.png", "-m", "bad.safetensors"
    )
    (work / "x.ltn").write_bytes(with_header(ltn_bytes, weights_id="00000000"))
    fails("decode", "x.ltn", *model)
    assert latens("decode", "x.ltn", "--other-weights", *model).code == 0
    # A name in a file is looked up among the released models only.
    Path("evil.safetensors").write_bytes(Path(model[1]).read_bytes())
    (work / "evil.ltn").write_bytes(with_header(ltn_bytes, model="evil.safetensors"))
    assert "unknown model 'evil.safetensors'" in fails("decode", "evil.ltn")


def test_a_model_that_cannot_be_used_ends_a_batch_at_once(fails: Fails, work: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(tiny.picture(9, 9)).save(work / name)
    assert fails("encode", "a.png", "b.png", "-m", "none").count("unknown model") == 1


# ---- salvage


@pytest.fixture
def tiles(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A file of six tiles."""
    from latens.codec import image as codec

    monkeypatch.setattr(codec, "_TILE", 64)
    import latens

    return latens.encode(tiny.picture(100, 190), model=str(tiny_weights))


def test_salvage_writes_what_can_be_had_and_says_what_cannot(
    latens: Run, fails: Fails, tiles: bytes, work: Path, model: Any
) -> None:
    info = [chunk for chunk in ltn.describe(tiles).chunks if chunk.name == "tile"]
    damaged = bytearray(tiles)
    damaged[info[2].offset + info[2].size // 2] ^= 1
    (work / "x.ltn").write_bytes(damaged)
    (work / "sound.ltn").write_bytes(tiles)
    (work / "junk.ltn").write_bytes(b"junk")
    fails("decode", "x.ltn", *model)
    result = latens("decode", "x.ltn", "--salvage", *model)
    assert result.code == 3
    assert "x.ltn: the chunk at byte" in result.err
    assert "x.ltn: 1 of 6 tiles are lost" in result.err
    with Image.open("x.png") as image:
        assert image.size == (190, 100)
    assert latens("decode", "sound.ltn", "--salvage", *model).code == 0
    # An error outweighs what was salvaged.
    result = latens("decode", "x.ltn", "junk.ltn", "sound.ltn", "--salvage", "-o", "out", *model)
    assert result.code == 2
    assert sorted(p.name for p in (work / "out").iterdir()) == ["sound.png", "x.png"]


def test_salvage_of_nothing_writes_nothing(
    fails: Fails, ltn_bytes: bytes, tiles: bytes, work: Path, model: Any
) -> None:
    for data in (ltn_bytes, tiles):
        damaged = bytearray(data)
        for chunk in ltn.describe(data).chunks[:-1]:
            damaged[chunk.offset + 8] ^= 1
        (work / "x.ltn").write_bytes(damaged)
        assert "x.ltn: nothing of the picture can be saved" in fails("decode", "x.ltn", "--salvage", *model)
    (work / "x.ltn").write_bytes(ltn_bytes[:20])
    assert "x.ltn: " in fails("decode", "x.ltn", "--salvage", *model)


# ---- where results go


def test_two_inputs_for_one_output(fails: Fails, work: Path, model: Any) -> None:
    (work / "sub").mkdir()
    for name in ("a.png", "a.jpg", "sub/a.png", "A.webp"):
        Image.fromarray(tiny.picture(9, 9)).save(work / name)
    (work / "link.png").symlink_to("a.png")
    for inputs in (("a.png", "a.jpg"), ("a.png", "a.png"), ("a.png", "./a.png"), ("a.png", "A.webp")):
        line = fails("encode", *inputs, *model)
        assert f"{inputs[0]} and {inputs[1]} would both be written to" in line
    assert "nothing was written" in fails("encode", "a.png", "sub/a.png", "-o", "new/", *model)
    assert not (work / "new").exists()
    assert "standard input can be read only once" in fails("encode", "-", "-", "-o", "new", *model)
    assert "several inputs cannot all go to standard output" in fails(
        "encode", "a.png", "a.jpg", "-o", "-", *model
    )


def test_outputs_that_must_not_be_written(fails: Fails, photo: Path, work: Path, model: Any) -> None:
    (work / "file").write_text("x")
    (work / "link.ltn").symlink_to("file")
    (work / "hard.ltn").hardlink_to(photo)
    os.mkfifo(work / "pipe.ltn")
    (work / "here.ltn").mkdir()
    for output, cause in (
        ("photo.png", "'encode' writes .ltn files"), ("./link/x.jpg", "name it ./link/x.ltn"),
        ("hard.ltn", "is also an input"),
        ("link.ltn", "is a symbolic link"), ("pipe.ltn", "is not a regular file"), ("/dev/full", "not a regular file"),
        ("missing/x.ltn", "the folder missing does not exist"), ("file/x.ltn", "the folder file does not exist"),
        ("file/", "cannot be made a folder"), ("/proc/x.ltn", ""), ("a" * 300, "too long"),
        ("link.ltn/x/", "cannot be made a folder"),
    ):  # fmt: skip
        for force in ((), ("--force",)):
            assert cause in fails("encode", photo, "-o", output, *force, *model)


def test_an_output_among_the_inputs_is_refused_before_any_work(fails: Fails, work: Path, model: Any) -> None:
    """Decoding a.ltn to a.png must not replace the photo a.png that is encoded in the same breath."""
    Image.fromarray(tiny.picture(9, 9)).save(work / "a.png")
    (work / "a.ltn").symlink_to("a.png")
    line = fails("encode", "a.png", "a.ltn", "--force", "-o", ".", *model)
    assert "would both be written" in line
    (work / "a.ltn").unlink()
    (work / "b.ltn").hardlink_to(work / "a.png")
    Image.fromarray(tiny.picture(9, 9)).save(work / "b.png")
    assert "b.ltn: is also an input (a.png)" in fails("encode", "a.png", "b.png", "--force", *model)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_must_not_be_written(fails: Fails, photo: Path, work: Path, model: Any) -> None:
    (work / "locked").mkdir(mode=0o500)
    assert "not writable" in fails("encode", photo, "-o", "locked/x.ltn", *model)
    assert "not writable" in fails("encode", photo, "-o", "locked/new/", *model)


def test_a_full_disk_leaves_nothing(
    fails: Fails, latens: Run, photo: Path, ltn_file: Path, model: Any
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    latens("decode", ltn_file, "-o", "/dev/null", *model)  # loads everything while writing is possible
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        line = fails("decode", ltn_file, "-o", "x.png", *model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert line.startswith("latens: error: x.png: cannot be written: ")


def test_alpha_is_never_dropped(latens: Run, fails: Fails, work: Path, model: Any) -> None:
    Image.fromarray(tiny.picture(9, 9, 4), "RGBA").save(work / "a.png")
    assert latens("encode", "a.png", *model).code == 0
    assert "a.ltn: " in fails("decode", "a.ltn", "-o", "x.jpg", *model)
    assert latens("decode", "a.ltn", "-o", "x.webp", *model).code == 0


def test_batches_go_on_after_a_bad_file(latens: Run, work: Path, model: Any) -> None:
    for name in ("a.png", "c.png"):
        Image.fromarray(tiny.picture(9, 9)).save(work / name)
    (work / "b.png").write_bytes(b"nothing")
    result = latens("encode", "a.png", "b.png", "c.png", "missing.png", *model)
    assert result.code == 2
    *lines, closing = result.err.splitlines()
    assert sorted(line.split(":")[0] for line in lines) == [
        "a.png -> a.ltn",
        "c.png -> c.ltn",
        "latens",
        "latens",
    ]
    assert any(line.startswith("latens: error: b.png: ") for line in lines)
    assert closing.startswith("2 encoded, 0 skipped, 2 failed; ")
    assert sorted(p.name for p in work.glob("*.ltn")) == ["a.ltn", "c.ltn"]


def test_running_out_of_memory_is_told_in_a_line(
    latens: Run, work: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latens.codec import ImageCodec

    for name in ("a.png", "b.png"):
        Image.fromarray(tiny.picture(9, 9)).save(work / name)
    errors = iter(
        [
            MemoryError(),
            RuntimeError("DefaultCPUAllocator: can't allocate memory: 12 bytes"),
            ValueError("x\ny"),
        ]
    )
    monkeypatch.setattr(ImageCodec, "encode", lambda *_, **__: (_ for _ in ()).throw(next(errors)))
    assert latens("encode", "a.png", *model).err == "latens: error: not enough memory\n"
    assert latens("encode", "a.png", *model).err == "latens: error: not enough memory\n"
    result = latens("encode", "a.png", *model)
    assert result.code == 2
    assert result.err.startswith("latens: error: unexpected error, please report it (ValueError: x\\ny)")


# ---- names


HOSTILE_NAMES = [
    "-dash.png", "--force.png", "[red]markup[bold].png", "[\\].png", ":smile:.png", "a b.png", "ünïcödé.png",
    "esc\x1b[31mred\x1b]0;title\x07.png", "new\nline.png", "bell\x07\x08\x7f.png", "right\u202etoleft.png",
    os.fsdecode(b"latin-\xe9.png"), "%s%n{0}.png", "$(reboot).png", "'\".png", "*?.png", "\U0001f600.png",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
def test_hostile_file_names(name: str, latens: Run, work: Path, model: Any) -> None:
    Image.fromarray(tiny.picture(9, 9)).save(work / "x.png")
    (work / "x.png").rename(work / name)
    result = latens("encode", *model, "--", name)
    assert result.code == 0, result
    shown = result.err.removesuffix("\n")
    assert shown.isprintable()
    if name.isprintable():
        assert shown.startswith(f"{name} -> {name[:-4]}.ltn: ")
    assert latens("decode", *model, "-o", "back.png", "--", name[:-4] + ".ltn").code == 0
    (work / name).write_bytes(b"")
    for command in ("encode", "info"):
        result = latens(command, *(("-o", "out.ltn", *model) if command == "encode" else ()), "--", name)
        assert result.code == 2
        assert result.err.removesuffix("\n").isprintable()
        assert result.err.startswith("latens: error: ")


def test_names_that_the_terminal_cannot_show(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """As in the C locale of a minimal container."""
    stderr = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    monkeypatch.setattr(sys, "stderr", stderr)
    assert app.run(["info", "ü.ltn"]) == 2
    stderr.flush()
    assert stderr.buffer.getvalue().startswith(rb"latens: error: \xfc.ltn: cannot be read")  # type: ignore[attr-defined]


def test_targets(latens: Run, work: Path, tiny_weights: Path) -> None:
    """A size, in bytes or bits per pixel, is met from below."""
    photo = "large.png"
    Image.fromarray(tiny.picture(130, 200)).save(work / photo)
    ends = []
    for quality in ("0", "100"):
        assert latens("encode", photo, "-m", tiny_weights, "-q", quality, "-o", f"{quality}.ltn").code == 0
        ends.append(Path(f"{quality}.ltn").stat().st_size)
    size = sum(ends) // 2
    target = ("--target-size", f"{size / 1024:.5f}KiB")
    assert latens("encode", photo, "-m", tiny_weights, *target, "-o", "a.ltn").code == 0
    bpp = size * 8 / (130 * 200)
    assert latens("encode", photo, "-m", tiny_weights, "--target-bpp", str(bpp), "-o", "b.ltn").code == 0
    assert 0.98 * size <= Path("a.ltn").stat().st_size <= size
    assert Path("a.ltn").read_bytes() == Path("b.ltn").read_bytes()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("50000", 50000),
        ("20k", 20000),
        ("1.5M", 1.5e6),
        ("20 kB", 20000),
        (".5MB", 5e5),
        ("64KiB", 65536),
        ("7B", 7),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size: float) -> None:
    from latens.cli.app import _bytes

    assert _bytes(text) == size


def test_sizes_that_are_none_are_refused(fails: Callable[..., str], photo: Path) -> None:
    for text in ("20x", "-5k", "k", "0", "1e9", "nan", "20 kk", "1.2.3", "9" * 30, ""):
        assert "expected a size such as" in fails("encode", photo, f"--target-size={text}")


def test_impossible_targets(fails: Callable[..., str], photo: Path, tiny_weights: Path) -> None:
    """Out of reach, contradictory and senseless targets say what is possible."""
    line = fails("encode", photo, "-m", tiny_weights, "--target-size", "1")
    assert "photo.png: " in line
    assert "1 bytes cannot be reached" in line
    assert "at quality 0" in line
    line = fails("encode", photo, "-m", tiny_weights, "--target-bpp", "0.001")
    assert "0.001 bits per pixel cannot be reached" in line
    assert "one of --quality" in fails("encode", photo, "-q", "50", "--target-psnr", "30")
    assert "positive" in fails("encode", photo, "-m", tiny_weights, "--target-psnr", "-3")
