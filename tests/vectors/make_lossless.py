"""Freezes streams of lossless tiles of every kind, and the checksums of what they decode to: lossless.json.

Run by hand, when docs/lossless.md has something new: ``python tests/vectors/make_lossless.py``. Streams that are
there are kept: they prove that what was coded once still decodes.
"""

import base64
import hashlib
import json
import sys
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("lossless.json")
sys.path.append(str(FILE.parents[1] / "entropy_coding"))


def digest(samples: np.ndarray, there: np.ndarray) -> str:
    """Of samples, 16 bits each and lowest byte first, and of the pixels that are there."""
    return hashlib.sha256(samples.astype("<u2").tobytes() + there.astype(np.uint8).tobytes()).hexdigest()


def main() -> None:
    """A picture of drawn and of smooth blocks in several depths, whole and in parts."""
    from test_lossless import drawing, mixed, photograph, stream_of

    from latens.entropy_coding.lossless import decode_part

    noise = np.random.default_rng(3).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    y, x = np.mgrid[:100, :150]
    round_mask = (x - 70) ** 2 + (y - 50) ** 2 < 45**2
    large = drawing(100, 150)
    large[30:80, 60:130] = photograph(50, 70)
    blocks = np.array([[True, False, True], [False, True, False]])
    cases = {
        "stored": (noise, {}),
        "drawn": (drawing(), {}),
        "drawn, alpha": (drawing(channels=4), {}),
        "drawn, 16 bits": (drawing(dtype=np.uint16), {}),
        "smooth": (photograph(), {}),
        "smooth, grey, 16 bits": (photograph(channels=1, dtype=np.uint16), {}),
        "smooth, effort 2": (photograph(40, 48), {"effort": 2}),
        "both": (mixed(), {}),
        "near": (mixed(), {"near": 3}),
        "enlarged": (drawing(12, 12).repeat(4, 0).repeat(4, 1), {}),
        "part": (large, {"part": blocks}),
        "mask": (large, {"mask": round_mask}),
        "mask, slack": (large, {"mask": round_mask, "slack": 40}),
        "mask, 16 bits, alpha": (drawing(100, 150, 4, np.uint16), {"mask": ~round_mask}),
    }
    found = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name, (samples, options) in cases.items():
        if name not in found:
            stream = stream_of(samples, **options)
            shape, dtype = samples.shape, samples.dtype.name
            found[name] = {
                "kind": stream[0],
                "shape": shape,
                "dtype": dtype,
                "digest": digest(*decode_part(stream, shape, dtype)),
                "stream": base64.b64encode(stream).decode(),
            }
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
