"""Freezes a file of the default video model, and hashes of the planes that it decodes to.

Run by hand, when a new set of weights becomes the default: ``python tests/vectors/make_video.py``.
"""

import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
sys.path += [str(FOLDER), str(FOLDER.parent / "video")]


def main() -> None:
    """Six frames, at a size that is no multiple of anything."""
    from clips import clip, info

    from latens.codec.structure import Structure
    from latens.codec.video import VideoCodec

    about, file = info(136, 72), io.BytesIO()
    coded = list(
        VideoCodec("latens-video-6").encode(about, clip(about, 6), file, structure=Structure(6), quality=45)
    )
    hashes = [
        [
            hashlib.sha256(np.ascontiguousarray(plane).tobytes()).hexdigest()[:16]
            for plane in frame.frame.planes
        ]
        for frame in sorted(coded, key=lambda frame: frame.number)
    ]
    (FOLDER / "ltn" / "video.ltn").write_bytes(file.getvalue())
    (FOLDER / "ltn" / "video.json").write_text(json.dumps(hashes, indent=1) + "\n")


if __name__ == "__main__":
    main()
