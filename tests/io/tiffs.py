"""TIFF files of every kind, made byte by byte: a writer that knows nothing of the code that is tested."""

import struct
import zlib

import imagecodecs
import numpy as np
import numpy.typing as npt

BYTE, ASCII, SHORT, LONG, RATIONAL = 1, 2, 3, 4, 5
_SIZES = {BYTE: "B", ASCII: "B", SHORT: "H", LONG: "I", RATIONAL: "II", 7: "B"}


def packed(rows: npt.NDArray[np.unsignedinteger], bits: int, order: str) -> bytes:
    """Rows of samples of any number of bits, each row filled up to a byte."""
    if rows.dtype.kind == "f" or bits in (8, 16, 32, 64):
        return rows.astype(rows.dtype.newbyteorder(order)).tobytes()
    out = b""
    for row in rows.reshape(len(rows), -1):
        value = 0
        for sample in row:
            value = value << bits | int(sample)
        fill = -len(row) * bits % 8
        out += (value << fill).to_bytes((len(row) * bits + fill) // 8, "big")
    return out


def compressed(data: bytes, kind: int, width: int = 0) -> bytes:
    if kind == 1:
        return data
    if kind in (8, 32946):
        return zlib.compress(data)
    if kind == 5:
        return bytes(imagecodecs.lzw_encode(data))
    if kind == 32773:
        return bytes(imagecodecs.packbits_encode(data))
    if kind == 34925:
        return bytes(imagecodecs.lzma_encode(data))
    if kind == 50000:
        return bytes(imagecodecs.zstd_encode(data))
    raise ValueError(kind)


def differences(rows: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.unsignedinteger]:
    """Predictor 2: each sample minus the one of the pixel on its left."""
    out = rows.copy()
    out[:, 1:] -= rows[:, :-1]
    return out


Tag = tuple[int, int, list[int] | bytes]


def directory(tags: list[Tag], start: int, order: str, following: int = 0) -> bytes:
    """A directory that begins at offset `start`, with its values behind it."""
    head = struct.pack(order + "H", len(tags))
    behind = b""
    at = start + 2 + 12 * len(tags) + 4
    for tag, kind, values in sorted(tags, key=lambda entry: entry[0]):
        data = (
            values
            if isinstance(values, bytes)
            else struct.pack(f"{order}{len(values)}{_SIZES[kind][0]}", *values)
        )
        count = len(data) // struct.calcsize("=" + _SIZES[kind])
        if len(data) > 4:
            offset = at + len(behind)
            behind += data + bytes(len(data) % 2)
            data = struct.pack(order + "I", offset)
        head += struct.pack(order + "HHI", tag, kind, count) + data.ljust(4, b"\0")
    return head + struct.pack(order + "I", following) + behind


def tiff(
    samples: npt.NDArray[np.generic],
    bits: int,
    photometric: int,
    *,
    planar: int = 1,
    compression: int = 1,
    extra: tuple[int, ...] | None = (),
    sample_format: int = 1,
    predictor: int = 1,
    tile: int = 0,
    rows: int = 3,
    order: str = "<",
    tags: list[Tag] | None = None,
) -> bytes:
    """One picture, height x width x samples per pixel, in strips of `rows` rows or square tiles."""
    height, width, count = samples.shape
    planes = [samples] if planar == 1 else [samples[..., k : k + 1] for k in range(count)]
    pieces = []
    for plane in planes:
        if tile:
            filled = np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)), mode="edge")
            pieces += [
                filled[y : y + tile, x : x + tile]
                for y in range(0, height, tile)
                for x in range(0, width, tile)
            ]
        else:
            pieces += [plane[y : y + rows] for y in range(0, height, rows)]
    out = b"II*\0" if order == "<" else b"MM\0*"
    out += bytes(4)
    offsets, sizes = [], []
    for piece in pieces:
        data = compressed(packed(differences(piece) if predictor == 2 else piece, bits, order), compression)
        offsets.append(len(out))
        sizes.append(len(data))
        out += data + bytes(len(data) % 2)
    entries: list[Tag] = [
        (256, LONG, [width]),
        (257, LONG, [height]),
        (258, SHORT, [bits] * count),
        (259, SHORT, [compression]),
        (262, SHORT, [photometric]),
        (277, SHORT, [count]),
        (284, SHORT, [planar]),
        *([(338, SHORT, list(extra))] if extra else []),
        *([(339, SHORT, [sample_format] * count)] if sample_format != 1 else []),
        *([(317, SHORT, [predictor])] if predictor != 1 else []),
        *(
            [(322, LONG, [tile]), (323, LONG, [tile]), (324, LONG, offsets), (325, LONG, sizes)]
            if tile
            else [(273, LONG, offsets), (278, LONG, [rows]), (279, LONG, sizes)]
        ),
        *(tags or []),
    ]
    place = struct.pack(order + "I", len(out))
    return out[:4] + place + out[8:] + directory(entries, len(out), order)
