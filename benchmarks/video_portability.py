"""Encode a video under one configuration, decode it under many: which symbols differ, and how far do pictures drift?

A frame's symbols are lost if their checksum
differs from the encoder's. The pictures are compared with those that the encoder went on from: the largest difference
of a sample of luma, and the PSNR of the last frame.

Usage: python benchmarks/video_portability.py CLIP [MODEL...] [--frames 300] [--gop 30] [--quality 40]
       [--other-python PYTHON] [--emulate CPU...] [--json FILE]

A clip that is shorter is played back and forth. The configurations are those of portability.py.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latens import format as ltn
from latens.codec.structure import Structure
from latens.codec.video import VideoCodec
from latens.errors import LatensError
from latens.io import VideoFrame, VideoSource


def back_and_forth(clip: str, count: int) -> Iterator[VideoFrame]:
    """Frames of a clip, as many as are wanted, one tick after the other."""
    with VideoSource(clip) as source:
        frames = list(itertools.islice(source.frames(), count))
    turns = [*frames, *frames[-2:0:-1]]
    for number, frame in enumerate(itertools.islice(itertools.cycle(turns), count)):
        yield VideoFrame(frame.planes, number)


def encode(folder: Path, model: str, clip: str, count: int, gop: int, quality: float) -> None:
    """Write the file, and the luma of all pictures that the encoder went on from."""
    codec = VideoCodec(model)
    with VideoSource(clip) as source:
        info = source.info
    rate = quality if codec.qualities else None
    with (folder / "clip.ltn").open("wb") as file:
        coded = codec.encode(info, back_and_forth(clip, count), file, structure=Structure(gop), quality=rate)
        lumas = {frame.number: frame.frame.planes[0] for frame in coded}
        np.save(folder / "luma.npy", np.stack([lumas[number] for number in range(count)]))


def decode(folder: Path, model: str, count: int, options: set[str]) -> dict[str, Any]:
    """Frames that were decoded, the largest difference, and the PSNR of the last picture to the encoder's."""
    for option in options:
        name, _, value = option.partition("=")
        if name == "threads":
            torch.set_num_threads(int(value))
    torch.use_deterministic_algorithms("deterministic" in options)
    torch.backends.mkldnn.enabled = "mkldnn=0" not in options  # type: ignore[assignment]
    codec = VideoCodec(model)
    if "channels_last" in options and hasattr(codec.model, "network"):
        codec.model.network.to(memory_format=torch.channels_last)
    expected = np.load(folder / "luma.npy", mmap_mode="r")
    found: dict[str, Any] = {"frames": 0, "of": count, "largest": 0, "psnr": float("inf"), "error": ""}
    try:
        with (folder / "clip.ltn").open("rb") as file:
            for frame in itertools.islice(codec.decode(ltn.VideoReader(file)), count):
                difference = frame.frame.planes[0].astype(int) - expected[frame.number]
                found["frames"] += 1
                found["largest"] = max(found["largest"], int(np.abs(difference).max()))
                error = float(np.square(difference).mean())
                found["psnr"] = 10 * np.log10(255**2 / error) if error else float("inf")
    except LatensError as error:
        found["error"] = str(error)[:200]
    return found


def main() -> None:
    """Print a table per model, and write all of it as JSON."""
    # Not before: a worker may run where this folder is not on the path.
    from portability import Configuration, configurations, run

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("clip")
    parser.add_argument("models", nargs="*", default=["latens-video-6"])
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--gop", type=int, default=30)
    parser.add_argument("--quality", default="40")
    parser.add_argument("--other-python")
    parser.add_argument("--emulate", nargs="+", default=[], metavar="CPU")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results: dict[str, Any] = {}
    for model in args.models:
        rows = results[model] = {}
        with tempfile.TemporaryDirectory() as name:
            child = ["--encode", name, model, args.clip, str(args.frames), str(args.gop), args.quality]
            run(child, Configuration("encoding"), __file__)
            print(f"\n{model}, {args.frames} frames\n")
            print("| decoded with | frames with the encoder's symbols | largest difference | last frame |")
            print("|---|---|---|---|")
            for configuration in configurations(args.other_python, args.emulate):
                count = args.frames if configuration.count is None else configuration.count
                child = ["--decode", name, model, str(count), *configuration.options]
                found = rows[configuration.name] = json.loads(run(child, configuration, __file__))
                cells = f"{found['frames']} of {found['of']} | {found['largest']} | {found['psnr']:.1f} dB"
                print(f"| {configuration.name} | {cells} | {found['error']}".rstrip(" |") + " |", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(2)
    if sys.argv[1:2] == ["--encode"]:
        encode(
            Path(sys.argv[2]),
            sys.argv[3],
            sys.argv[4],
            int(sys.argv[5]),
            int(sys.argv[6]),
            float(sys.argv[7]),
        )
    elif sys.argv[1:2] == ["--decode"]:
        print(json.dumps(decode(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), set(sys.argv[5:]))))
    else:
        main()
