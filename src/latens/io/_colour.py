"""Colour as code points of ITU-T H.273, and ICC profiles that say the same.

A profile is needed where a file has no place for code points, or where a picture's primaries and gamma have none.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

# x, y of red, green, blue and white.
Chromaticities = tuple[float, float, float, float, float, float, float, float]
Curve = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]

_D65 = (0.3127, 0.3290)
_C = (0.310, 0.316)
PRIMARIES: dict[int, Chromaticities] = {
    1: (0.640, 0.330, 0.300, 0.600, 0.150, 0.060, *_D65),
    4: (0.670, 0.330, 0.210, 0.710, 0.140, 0.080, *_C),
    5: (0.640, 0.330, 0.290, 0.600, 0.150, 0.060, *_D65),
    6: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *_D65),
    7: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *_D65),
    8: (0.681, 0.319, 0.243, 0.692, 0.145, 0.049, *_C),
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *_D65),
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351),
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *_D65),
    22: (0.630, 0.340, 0.295, 0.605, 0.155, 0.077, *_D65),
}
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
LINEAR = 8
SRGB_TRANSFER = 13
_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def primaries_code(found: Chromaticities) -> int | None:
    """The code of primaries, compared as PNG stores them, to 5 digits or nearly."""
    for code, known in PRIMARIES.items():
        if max(abs(a - b) for a, b in zip(found, known, strict=True)) < 5e-4:
            return code
    return None


def transfer_code(gamma: float) -> int | None:
    """The code of a decoding exponent, or None."""
    return next((code for code, known in _GAMMAS.items() if abs(known / gamma - 1) < 2e-3), None)


def profile_of_codes(primaries: int, transfer: int, channels: int) -> bytes | None:
    """An ICC profile for code points; None for those that no profile can express."""
    curve = _curve(transfer)
    if primaries not in PRIMARIES or curve is None:
        return None
    codes = (primaries, transfer)
    name = "sRGB" if codes == (1, SRGB_TRANSFER) else f"CICP {primaries}/{transfer}"
    return _profile(name, PRIMARIES[primaries], curve, channels, codes)


def profile_of_gamma(found: Chromaticities, gamma: float, channels: int) -> bytes | None:
    """An ICC profile for a decoding exponent and primaries, as gAMA and cHRM have them; None for nonsense."""
    sums = [a + b for a, b in zip(found[0::2], found[1::2], strict=True)]
    if not 0.1 <= gamma <= 10 or min(found) < 0 or min(found[1::2]) < 1e-4 or max(sums) > 1.2:
        return None
    try:
        return _profile(f"gamma {gamma:.4g}", found, gamma, channels, None)
    except np.linalg.LinAlgError:
        return None


def _curve(transfer: int) -> float | Curve | None:
    """From samples to light, both 0 to 1: an exponent, a function, or None."""
    if transfer in _GAMMAS:
        return _GAMMAS[transfer]
    return {1: _bt709, 6: _bt709, 14: _bt709, 15: _bt709, 13: _srgb, 16: _pq, 18: _hlg, 7: _smpte240}.get(
        transfer
    )


def _srgb(v: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def _bt709(v: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(v < 0.081, v / 4.5, ((v + 0.099) / 1.099) ** (1 / 0.45))


def _smpte240(v: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(v < 0.0913, v / 4.0, ((v + 0.1115) / 1.1115) ** (1 / 0.45))


def _pq(v: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    power = v ** (32 / 2523)
    return (np.maximum(power - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * power)) ** (8192 / 1305)


def _hlg(v: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(v <= 0.5, v * v / 3, (np.exp((v - c) / a) + b) / 12)


def _profile(
    name: str, primaries: Chromaticities, curve: float | Curve, channels: int, codes: tuple[int, int] | None
) -> bytes:
    """A display profile of ICC version 4.4: a matrix and curves, or a curve alone for grey."""
    tags: dict[bytes, bytes] = {
        b"desc": _text(name),
        b"cprt": _text("No copyright"),
        b"wtpt": _xyz(_D50),
    }
    tone = _gamma(curve) if isinstance(curve, float) else _table(curve)
    if channels == 1:
        tags[b"kTRC"] = tone
    else:
        white = _to_xyz(*primaries[6:])
        columns = np.array([_to_xyz(*primaries[i : i + 2]) for i in (0, 2, 4)]).T
        columns = columns * np.linalg.solve(columns, white)
        scale = (_BRADFORD @ _D50) / (_BRADFORD @ white)
        adapt = np.linalg.inv(_BRADFORD) @ (scale[:, None] * _BRADFORD)
        tags[b"chad"] = b"sf32\0\0\0\0" + b"".join(map(_fixed, adapt.ravel()))
        for letter, column in zip(b"rgb", (adapt @ columns).T, strict=True):
            tags[bytes([letter]) + b"XYZ"] = _xyz(column)
            tags[bytes([letter]) + b"TRC"] = tone
    if codes is not None and channels == 3:
        # What a curve cannot say: how bright the white of PQ is. Newer readers ask this tag first.
        tags[b"cicp"] = b"cicp\0\0\0\0" + bytes([*codes, 0, 1])
    return _assemble(tags, b"GRAY" if channels == 1 else b"RGB ")


def _assemble(tags: dict[bytes, bytes], space: bytes) -> bytes:
    offset = 128 + 4 + 12 * len(tags)
    table, data, places = b"", b"", dict[bytes, int]()
    for kind, content in tags.items():
        if content not in places:  # equal curves are stored once
            places[content] = offset + len(data)
            data += content + bytes(-len(content) % 4)
        table += kind + struct.pack(">II", places[content], len(content))
    head = struct.pack(">I4sI4s4s4s", offset + len(data), bytes(4), 0x04400000, b"mntr", space, b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + b"".join(map(_fixed, _D50))
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + data


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(float(value) * 65536))


def _to_xyz(x: float, y: float) -> npt.NDArray[np.float64]:
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _xyz(values: tuple[float, float, float] | npt.NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, values))


def _text(text: str) -> bytes:
    data = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(data), 28) + data


def _gamma(exponent: float) -> bytes:
    return b"para\0\0\0\0" + struct.pack(">HH", 0, 0) + _fixed(exponent)


def _table(curve: Curve) -> bytes:
    samples = np.rint(curve(np.linspace(0, 1, 1024)) * 65535).astype(">u2").tobytes()
    return b"curv\0\0\0\0" + struct.pack(">I", 1024) + samples
