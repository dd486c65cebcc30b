"""TIFF: every cell of depth, photometric interpretation, planes, alpha and compression is right, or refused by name."""

import io
import itertools
import logging
import struct
from collections import Counter
from typing import Any

import imagecodecs  # noqa: F401  (the extra `formats` is there)
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import tiffs
from PIL import Image as PilImage

from latens.errors import ImageError, LatensError
from latens.io import NOT_KEPT, Image, read_image, write_image

RNG = np.random.default_rng(3)
SHAPE = (7, 11)
DEPTHS = (1, 2, 4, 8, 10, 12, 14, 16, 32, "signed 8", "signed 16", "float 16", "float 32")
COLOURS = {
    "white is zero": (0, 1),
    "grey": (1, 1),
    "RGB": (2, 3),
    "palette": (3, 1),
    "CMYK": (5, 4),
    "YCbCr": (6, 3),
    "Lab": (8, 3),
}
ALPHA: dict[str, tuple[int, ...] | None] = {"none": (), "associated": (1,), "straight": (2,), "unknown": (0,)}
COMPRESSIONS = {"none": 1, "LZW": 5, "deflate": 8, "PackBits": 32773, "LZMA": 34925, "ZSTD": 50000}


def expected(samples: npt.NDArray[Any], bits: int, photometric: int, extra: tuple[int, ...]) -> Any:
    """What the samples mean, by the letter of TIFF 6.0, as fractions of white: pixels, and alpha or None."""
    values = samples.astype(float) / ((1 << bits) - 1)
    colours = values[..., : values.shape[2] - len(extra)]
    alpha = values[..., -1] if extra and extra != (0,) else None
    if extra == (1,):
        with np.errstate(divide="ignore", invalid="ignore"):
            colours = np.where(values[..., -1:] > 0, np.minimum(colours / values[..., -1:], 1), 0)
    if photometric == 0:
        colours = 1 - colours
    return colours, alpha


def from_ycbcr(samples: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """BT.601 of full range, as TIFF 6.0 has it."""
    y, blue, red = np.moveaxis(samples.astype(float), 2, 0) - np.array([0, 128, 128])[:, None, None]
    rgb = np.stack([y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue], axis=2)
    return np.clip(rgb, 0, 255) / 255


def from_lab(samples: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """CIE L*a*b* of D50 to sRGB; a and b are signed."""
    lightness = samples[..., 0] / 255 * 100
    a, b = np.moveaxis(samples[..., 1:].astype(np.int8).astype(float), 2, 0)
    f = np.stack([(lightness + 16) / 116 + a / 500, (lightness + 16) / 116, (lightness + 16) / 116 - b / 200])
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    xyz *= np.array([0.9642, 1, 0.8249])[:, None, None]
    # From D50 to linear sRGB, Bradford included.
    matrix = [[3.1339, -1.6169, -0.4906], [-0.9788, 1.9161, 0.0335], [0.0719, -0.2290, 1.4052]]
    light = np.clip(np.moveaxis(np.tensordot(matrix, xyz, 1), 0, 2), 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def close(found: npt.NDArray[Any], wanted: npt.NDArray[np.float64], steps: float = 0.51) -> bool:
    """Within half a step of what 8 or 16 bits can say."""
    most = np.iinfo(found.dtype).max
    return bool(np.abs(found - wanted * most).max() <= steps)


def cell(depth: int | str, colour: str, planar: int, alpha: str, compression: str) -> tuple[bytes, Any]:
    """A file, and pixels and alpha that it should give; (file, None) if it must be refused."""
    photometric, channels = COLOURS[colour]
    extra = ALPHA[alpha] or ()
    shape = (*SHAPE, channels + len(extra))
    bits = int(depth) if isinstance(depth, int) else int(depth.split()[1])
    options: dict[str, Any] = {"planar": planar, "extra": extra, "compression": COMPRESSIONS[compression]}
    if isinstance(depth, str):
        kind = 2 if depth.startswith("signed") else 3
        dtype = f"{'i' if kind == 2 else 'f'}{bits // 8}"
        samples = RNG.integers(-100, 100, shape).astype(dtype)
        return tiffs.tiff(samples, bits, photometric, sample_format=kind, **options), None
    dtype = "u1" if bits <= 8 else "u2" if bits <= 16 else "u4"
    samples = RNG.integers(0, 1 << bits, shape).astype(dtype)
    if extra == (1,):
        # Colours are never more than what they were multiplied by. Full and no alpha occur.
        samples[0, 0, -1], samples[0, 1, -1] = (1 << bits) - 1, 0
        samples[..., :-1] = samples[..., :-1].astype(np.uint64) * samples[..., -1:] // ((1 << bits) - 1)
    if bits == 32:
        return tiffs.tiff(samples, bits, photometric, **options), None
    if photometric == 3:
        table = RNG.integers(0, 256, (3, 1 << bits)).astype(np.uint16)
        options["tags"] = [(320, tiffs.SHORT, (table * 257).ravel().tolist())] if bits <= 8 else []
        file = tiffs.tiff(samples, bits, photometric, **options)
        if bits > 8 or extra == (1,):
            return file, None
        _, straight = expected(samples, bits, 3, extra)
        return file, (table.T[samples[..., 0]] / 255, straight)
    if photometric in (6, 8):
        if photometric == 6:
            options["tags"] = [(530, tiffs.SHORT, [1, 1])]
        elif bits == 8:
            # Colours that a screen has.
            samples[..., 0] = samples[..., 0] // 2 + 60
            samples[..., 1:3] = samples[..., 1:3] % 24 - np.uint8(12)
        data = tiffs.tiff(samples, bits, photometric, **options)
        convert = from_ycbcr if photometric == 6 else from_lab
        return data, (convert(samples), None) if bits == 8 and planar == 1 and not extra else None
    if photometric in (0, 5) and extra == (1,):
        return tiffs.tiff(
            samples, bits, photometric, **options
        ), None  # readers differ in what they take this for
    return tiffs.tiff(samples, bits, photometric, **options), expected(samples, bits, photometric, extra)


@pytest.mark.parametrize("colour", COLOURS)
def test_every_cell_is_right_or_refused_by_name(colour: str) -> None:
    outcomes: Counter[str] = Counter()
    wrong = []
    for depth, planar, alpha, compression in itertools.product(DEPTHS, (1, 2), ALPHA, COMPRESSIONS):
        where = f"{depth} {colour} planar {planar}, alpha {alpha}, {compression}"
        data, wanted = cell(depth, colour, planar, alpha, compression)
        try:
            image = read_image(data)
        except ImageError as error:
            outcomes["refused"] += 1
            if (
                "this kind" not in str(error)
                and "needs" not in str(error)
                and "not supported" not in str(error)
            ):
                wrong.append(f"{where}: refused without a name: {error}")
            elif isinstance(depth, int) and depth <= 16 and wanted is not None:
                wrong.append(f"{where}: refused: {error}")
            continue
        if wanted is None:
            wrong.append(f"{where}: read, though there is no right reading")
            continue
        outcomes["read"] += 1
        pixels, straight = wanted
        if (image.pixels.dtype == np.uint16) != (isinstance(depth, int) and depth > 8 and colour != "CMYK"):
            wrong.append(f"{where}: {image.pixels.dtype}")
        if (image.alpha is None) != (straight is None):
            wrong.append(f"{where}: alpha {image.alpha}")
        elif straight is not None and not close(image.alpha, straight):  # type: ignore[arg-type]
            wrong.append(f"{where}: alpha")
        notes = " ".join(image.notes)
        if alpha == "unknown" and f"{NOT_KEPT}" not in notes:
            wrong.append(f"{where}: a channel is dropped without a word")
        if colour == "CMYK":
            # Plain ink to light, as nobody has given a profile.
            ink = np.rint(pixels * 255).astype(np.uint8)
            light = np.asarray(PilImage.fromarray(ink, "CMYK").convert("RGB")) / 255
            if np.abs(image.pixels / 255 - light).max() > 3 / 255 or "converted from CMYK" not in notes:
                wrong.append(f"{where}: colours")
        elif alpha == "associated":
            # Where alpha is small, a step of it moves colours by many.
            solid = straight > 0.2
            if np.abs(image.pixels / np.iinfo(image.pixels.dtype).max - pixels)[solid].max(initial=0) > 0.01:
                wrong.append(f"{where}: colours")
        elif not close(image.pixels, pixels, {"YCbCr": 1.5, "Lab": 3}.get(colour, 0.51)):
            wrong.append(f"{where}: pixels")
    assert not wrong, f"{len(wrong)} cells:\n" + "\n".join(wrong[:30])
    assert outcomes["read"] > (5 if colour in ("YCbCr", "Lab") else 100)
    assert outcomes["refused"] > 100


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize(("tile", "predictor"), [(0, 1), (16, 1), (0, 2), (16, 2)])
def test_tiles_predictors_and_byte_orders(
    order: str, bits: int, planar: int, tile: int, predictor: int
) -> None:
    if bits == 12 and predictor == 2:
        pytest.skip("TIFF has no such thing")
    samples = RNG.integers(0, 1 << bits, (37, 41, 3)).astype(np.uint8 if bits == 8 else np.uint16)
    data = tiffs.tiff(
        samples, bits, 2, planar=planar, compression=8, tile=tile, predictor=predictor, order=order
    )
    image = read_image(data)
    assert close(image.pixels, samples / ((1 << bits) - 1))
    # tifffile reads it likewise: the file is what it is meant to be.
    oracle = tifffile.imread(io.BytesIO(data))
    assert (np.moveaxis(oracle, 0, 2) == samples).all() if planar == 2 else (oracle == samples).all()


def test_what_a_library_thinks_of_damage_is_not_said(caplog: pytest.LogCaptureFixture) -> None:
    data = tiffs.tiff(RNG.integers(0, 1 << 16, (9, 8, 3)).astype(np.uint16), 16, 2, planar=2)
    entry = struct.pack("<HH", 279, 4)
    assert data.count(entry) == 1
    with pytest.raises(ImageError):
        read_image(data.replace(entry, struct.pack("<HH", 279, 127)))
    assert caplog.records == []
    assert not logging.getLogger("tifffile").disabled


@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14, 15])
def test_samples_that_do_not_fill_16_bits(bits: int) -> None:
    """MaxSampleValue tells how many of them are used; a maximum that merely occurs does not."""
    most = (1 << bits) - 1
    samples = RNG.integers(0, most + 1, (*SHAPE, 1)).astype(np.uint16)
    image = read_image(tiffs.tiff(samples, 16, 1, tags=[(281, tiffs.SHORT, [most])]))
    assert close(image.pixels, samples / most)
    assert image.bit_depth == bits
    image = read_image(tiffs.tiff(samples, 16, 1, tags=[(281, tiffs.SHORT, [most - 1])]))
    assert (image.pixels == samples).all()


def test_thumbnails_masks_and_pages(tmp_path: Any) -> None:
    large = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    small, mask = large[::4, ::4], large[..., 0] > 100
    for first in (True, False):
        path = tmp_path / f"{first}.tif"
        with tifffile.TiffWriter(path) as file:
            parts = [(small, {"subfiletype": 1}), (large, {"subfiletype": 0})]
            for array, options in parts if first else parts[::-1]:
                file.write(array, photometric="rgb", metadata=None, **options)
            file.write(mask, photometric="mask", subfiletype=4, metadata=None)
        image = read_image(path)
        assert (image.pixels == large).all()
        assert image.notes == (f"{NOT_KEPT}transparency mask, thumbnail",)
        assert (read_image(path, frame=0).pixels == large).all()
        with pytest.raises(ImageError, match="frame 1 does not exist: the file has 1"):
            read_image(path, frame=1)
    path = tmp_path / "preview.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(small, photometric="rgb", subfiletype=1, metadata=None)
    with pytest.raises(ImageError, match="nothing but a preview"):
        read_image(path)
    deep = RNG.integers(0, 65536, (2, 20, 30, 3), dtype=np.uint16)
    path = tmp_path / "pages.tif"
    tifffile.imwrite(path, deep, photometric="rgb", metadata=None)
    with pytest.raises(ImageError, match="2 pictures"):
        read_image(path)
    for frame in (1, 0):
        assert (read_image(path, frame=frame).pixels == deep[frame]).all()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation_of_files_that_pillow_does_not_decode(orientation: int) -> None:
    samples = RNG.integers(0, 65536, (*SHAPE, 3), dtype=np.uint16)
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'
    for planar in (1, 2):
        data = tiffs.tiff(
            samples,
            16,
            2,
            planar=planar,
            tags=[
                (274, tiffs.SHORT, [orientation]),
                (700, tiffs.BYTE, xmp),
                (282, tiffs.RATIONAL, [300, 1]),
                (283, tiffs.RATIONAL, [150, 1]),
                (271, tiffs.ASCII, b"cam\0"),
            ],
        )
        image = read_image(data)
        turned = np.rot90(samples, {1: 0, 3: 2, 6: -1, 8: 1}[orientation])
        assert (image.pixels == turned).all()
        assert image.xmp == xmp.replace(b'"8"', b'"1"')
        wide, high = ((300, 1), (150, 1)) if orientation < 5 else ((150, 1), (300, 1))
        assert image.density == (wide, high, "inch")
        assert image.exif is not None
        assert b"cam\0" in image.exif


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"photometric": 32803}, "raw data of a camera"),
        ({"photometric": 9}, "ICC Lab"),
        ({"photometric": 777}, "photometric interpretation 777"),
        ({"photometric": 5, "tags": [(332, tiffs.SHORT, [2])]}, "inks other than CMYK"),
        ({"photometric": 8}, "Lab of 16 bits"),
        ({"photometric": 6}, "YCbCr of 16 bits"),
        (
            {"photometric": 6, "tags": [(529, tiffs.RATIONAL, [2126, 10000, 7152, 10000, 722, 10000])]},
            "unusual",
        ),
        (
            {
                "photometric": 6,
                "tags": [(532, tiffs.RATIONAL, [16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1])],
            },
            "unusual",
        ),
        ({"photometric": 2, "tags": [(339, tiffs.SHORT, [1, 1, 3])]}, "floating-point"),
    ],
)
def test_kinds_that_are_refused(options: dict[str, Any], words: str) -> None:
    photometric = options.pop("photometric")
    samples = np.zeros((4, 4, 4 if photometric == 5 else 3), np.uint16)
    with pytest.raises(ImageError, match=words):
        read_image(tiffs.tiff(samples, 16, photometric, **options))
    options["photometric"] = photometric


def test_without_imagecodecs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tifffile reads alone is read, the rest says what to install."""
    monkeypatch.setattr("latens.io._extras.load_extra", lambda module: None)
    samples = RNG.integers(0, 65536, (*SHAPE, 3), dtype=np.uint16)
    for compression in (1, 8, 32773):
        data = tiffs.tiff(samples, 16, 2, planar=2, compression=compression)
        assert (read_image(data).pixels == samples).all()
    with pytest.raises(ImageError, match=r"needs imagecodecs.*pip install 'latens\[formats\]'"):
        read_image(tiffs.tiff(samples, 16, 2, planar=2, compression=5))
    # Pillow's libtiff knows the usual layout.
    assert (read_image(tiffs.tiff(samples, 16, 2, compression=5)).pixels == samples).all()


KINDS = {
    "planar": {"bits": 16, "photometric": 2, "planar": 2},
    "deflate": {"bits": 16, "photometric": 2, "planar": 2, "compression": 8},
    "LZW": {"bits": 12, "photometric": 1, "compression": 5},
    "tiles": {"bits": 16, "photometric": 0, "tile": 16, "compression": 8},
    "packed": {"bits": 10, "photometric": 2},
    "associated": {"bits": 16, "photometric": 2, "extra": (1,)},
}


@pytest.mark.parametrize("name", KINDS)
def test_damage_gives_typed_errors(name: str) -> None:
    options: dict[str, Any] = dict(KINDS[name])
    bits, photometric = options.pop("bits"), options.pop("photometric")
    count = (3 if photometric == 2 else 1) + len(options.get("extra", ()))
    samples = RNG.integers(0, 1 << bits, (20, 20, count), dtype=np.uint16)
    data = tiffs.tiff(samples, bits, photometric, **options)
    whole = read_image(data)
    rng = np.random.default_rng(5)
    for round_ in range(120):
        hostile = bytearray(data)
        if round_ % 3:
            for position in rng.integers(0, len(data), rng.integers(1, 4)):
                hostile[position] = rng.integers(0, 256)
        else:
            hostile = hostile[: rng.integers(1, len(data))]
        try:
            image = read_image(bytes(hostile), max_pixels=10**6)
        except LatensError as error:
            message = str(error)
        else:
            message = "".join(image.notes)
            assert image.pixels.size <= 3 * 10**6
            assert round_ % 3 or (image.pixels == whole.pixels).all()
        assert message.isprintable()


@pytest.mark.parametrize("kind", ["deflate", "strips", "sides"])
def test_bombs(kind: str) -> None:
    samples = np.zeros((4, 4, 3), np.uint16)
    data = bytearray(tiffs.tiff(samples, 16, 2, planar=2, compression=8, rows=4))
    if kind == "deflate":
        import zlib

        bomb = zlib.compress(bytes(50 << 20))
        good = zlib.compress(samples[..., 0].tobytes())
        first = data.index(good)
        at = len(data)
        data += bomb
        data = data.replace(first.to_bytes(4, "little"), at.to_bytes(4, "little"), 1)
        data = data.replace(len(good).to_bytes(4, "little"), len(bomb).to_bytes(4, "little"), 1)
    elif kind == "strips":
        data = data.replace(b"\x16\x01\x04\0\x01\0\0\0\x04", b"\x16\x01\x04\0\x01\0\0\0\x01")
    else:
        data = data.replace(b"\x00\x01\x04\0\x01\0\0\0\x04\0\0\0", b"\x00\x01\x04\0\x01\0\0\0\x04\0\1\0")
    with pytest.raises(LatensError):
        read_image(bytes(data))


@pytest.mark.parametrize("bits", [10, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_deep_files_are_written(bits: int, channels: int) -> None:
    """And tifffile reads what is written, metadata included."""
    values = RNG.integers(0, 65536, (*SHAPE, channels), dtype=np.uint16)
    exif = PilImage.Exif()
    exif[0x010F] = "cam"
    exif[0x8769] = {0x9003: "2026:01:02 03:04:05"}
    image = Image(
        values[..., : channels - 1 + channels % 2],
        None if channels % 2 else np.ascontiguousarray(values[..., -1]),
        None,
        exif.tobytes()[6:],
        b"<x/>",
        colour=(9, 16, 0, 1),
        density=((300, 1), (600, 1), "inch"),
        bit_depth=bits,
    )
    buffer = io.BytesIO()
    assert write_image(image, buffer, "tiff") == ()
    buffer.seek(0)
    with tifffile.TiffFile(buffer) as file:
        page = file.pages[0]
        assert (page.asarray().reshape(values.shape) == values).all()
        assert page.tags[271].value == "cam"
        assert page.tags[0x8769].value["DateTimeOriginal"] == "2026:01:02 03:04:05"
        assert page.tags[282].value == (300, 1)
        assert page.tags[283].value == (600, 1)
        assert page.tags[700].value == b"<x/>"
        assert len(page.iccprofile) > 128
    back = read_image(buffer.getvalue())
    assert (back.pixels == image.pixels).all()
    assert back.exif is not None
    assert b"2026:01:02" in back.exif
    assert back.density == image.density


def test_other_layouts_and_compressions() -> None:
    """What tifffile writes: big files, planes, image codecs inside of TIFF."""
    deep = RNG.integers(0, 65536, (20, 30, 3), dtype=np.uint16)

    def written(**options: Any) -> bytes:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, options.pop("array", deep), photometric="rgb", metadata=None, **options)
        return buffer.getvalue()

    assert (read_image(written(bigtiff=True)).pixels == deep).all()
    planes = written(array=deep.transpose(2, 0, 1), planarconfig="separate", bigtiff=True)
    assert (read_image(planes).pixels == deep).all()
    with pytest.raises(ImageError, match="BigTIFF with its most significant"):
        read_image(written(bigtiff=True, byteorder=">"))
    for compression in ("webp", "png", "jpeg2000", "jpegxl"):
        small = (deep >> 8).astype(np.uint8)
        with pytest.raises(ImageError, match=r"TIFF with compression \d+: this kind is not supported"):
            read_image(written(array=small, compression=compression))
    smooth = np.add.outer(np.arange(32), np.arange(48))[..., None].repeat(3, 2).astype(np.uint8)
    for options in ({}, {"tile": (16, 16)}, {"compressionargs": {"level": 95}}):
        data = written(array=smooth, compression="jpeg", **options)
        assert np.abs(read_image(data).pixels.astype(int) - tifffile.imread(io.BytesIO(data))).max() <= 2
