"""Prints checksums of all that a decoder gets out of .ltn files, for tools/cross.py to compare.

    python tools/cross_decode.py [--threads N] [--frames N] FILE.ltn ...

Of a picture: the whole, halves, eighths, a part of it; then it is verified. Of a video: each frame, as RGB and as
planes. Samples are counted as integers of 16 bits, lowest byte first, on any processor.
"""

import argparse
import hashlib
from itertools import islice
from pathlib import Path

import numpy as np

from latens import format as ltn
from latens.codec import ImageCodec, LosslessCodec, Picture
from latens.codec.video import VideoCodec
from latens.io import Image
from latens.runtime import set_threads


def _tell(path: Path, what: str, *arrays: np.ndarray | None) -> None:
    digest = hashlib.sha256()
    for array in arrays:
        if array is not None:
            digest.update(f"{array.shape}".encode())
            digest.update(array.astype("<u2").tobytes())
    print(path.name, what, digest.hexdigest(), flush=True)


def _picture(path: Path) -> None:
    data = path.read_bytes()
    container = ltn.read(data)
    codec = LosslessCodec() if container.header.lossless else ImageCodec.for_file(container.header)
    found: Image = codec.decode(container)[0]
    _tell(path, "verified", found.pixels, found.alpha)
    picture = Picture(ltn.PathSource(path), lambda _: codec)
    width, height = picture.size
    part = width // 3, height // 4, width // 3 + width // 2 + 1, height // 4 + height // 2 + 1
    for name, box, scale in (
        ("whole", None, 1),
        ("half", None, "1/2"),
        ("eighth", None, "1/8"),
        ("part", part, 1),
    ):
        found = picture.image(box, scale)
        _tell(path, name, found.pixels, found.alpha)


def _video(path: Path, frames: int | None) -> None:
    with path.open("rb") as file:
        reader = ltn.VideoReader(file)
        for frame in islice(VideoCodec(reader.header.model).decode(reader), frames):
            _tell(path, f"{'key ' if frame.key else ''}{frame.number}", frame.rgb, *frame.frame.planes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument("--frames", type=int, help="of a video, only so many")
    parser.add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    if arguments.threads is not None:
        set_threads(arguments.threads)
    for path in arguments.files:
        with path.open("rb") as file:
            video = ltn.is_video(file.read(64))
        if video:
            _video(path, arguments.frames)
        else:
            _picture(path)


if __name__ == "__main__":
    main()
