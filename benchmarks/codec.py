"""Whole encoding and decoding beside CompressAI's ``mbt2018_mean``, quality 3: pixels to bytes and back.

    python benchmarks/codec.py PHOTO --peer OTHER_ENVIRONMENT/bin/python [--threads 2] [--rounds 9]

PHOTO is cut to 768x512. CompressAI runs in a process and an environment of its own; the two sides take turns, so
that both see the same machine. Each times itself: uint8 pixels to a finished file (there: strings) and back to
uint8 pixels, after warming up, with ``update()`` done.

Trained weights are not needed for times, but statistics of latents are: with random weights, y is nearly constant
and coding it unrealistically cheap. Therefore the last layers there are scaled so that the channels of y have
standard deviations that fall geometrically over three decades and that the entropy model knows, at an amplitude
that gives the size published for trained weights on the Kodak set (0.307 bpp). Latens is run at the same size.
What their entropy models and coder take is also reported on its own, so that nothing hides in these choices.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from common import Peer, machine
from latens.codec import ImageCodec
from latens.evaluate import find_closest, make_codec, read_rgb
from latens.format import read
from latens.io import Image
from latens.runtime import set_threads

SIZE = (768, 512)
BITS_PER_PIXEL = 0.307

# What the other side runs: no import from here, since Latens is not installed there.
PEER = """
import json, sys, time
import numpy as np
import torch
from compressai.zoo import mbt2018_mean

pixels, threads, target = np.load(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
torch.set_num_threads(threads)
torch.manual_seed(1)
torch.set_grad_enabled(False)
model = mbt2018_mean(3, pretrained=False).eval()
coder_time = 0.0

def timed(function):
    def run(*args, **kwargs):
        global coder_time
        start = time.perf_counter()
        result = function(*args, **kwargs)
        coder_time += time.perf_counter() - start
        return result
    return run

def compress():
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float().div(255)
    return model.compress(x)

def decompress(out):
    x = model.decompress(**out)["x_hat"]
    return x[0].clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()

def bytes_of(out):
    return sum(len(string) for strings in out["strings"] for string in strings)

last, out_layer = model.g_a[-1], model.h_s[-1]
y = model.g_a(torch.from_numpy(pixels).permute(2, 0, 1)[None].float().div(255))
mean, std = y.mean((0, 2, 3)), y.std((0, 2, 3))
weight, bias = last.weight.clone(), last.bias.clone()
sigma = torch.logspace(0, -3, len(std))
out_layer.weight.zero_()
low, high = 0.1, 1000.0
for _ in range(12):
    amplitude = (low * high) ** 0.5
    factor = amplitude * sigma / std
    last.weight.copy_(weight * factor[:, None, None, None])
    last.bias.copy_((bias - mean) * factor)
    out_layer.bias.copy_(torch.cat((amplitude * sigma, torch.zeros_like(sigma))))
    model.update(force=True)
    low, high = (amplitude, high) if bytes_of(compress()) < target else (low, amplitude)
for part in (model.entropy_bottleneck, model.gaussian_conditional):
    part.compress, part.decompress = timed(part.compress), timed(part.decompress)
out = compress()
decompress(out)
for _ in sys.stdin:
    coder_time, start = 0.0, time.perf_counter()
    out = compress()
    middle, encode_coder = time.perf_counter(), coder_time
    coder_time = 0.0
    decompress(out)
    end = time.perf_counter()
    answer = {"bytes": bytes_of(out), "encode": middle - start, "decode": end - middle}
    print(json.dumps(answer | {"encode coder": encode_coder, "decode coder": coder_time}), flush=True)
"""


def ours(codec: ImageCodec, image: Image, quality: float) -> dict[str, float]:
    start = time.perf_counter()
    data = codec.encode(image, quality)
    middle = time.perf_counter()
    codec.decode(read(data))
    return {"bytes": len(data), "encode": middle - start, "decode": time.perf_counter() - middle}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photo", type=Path)
    parser.add_argument("--peer", help="Python with CompressAI; without it only Latens is timed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="where to write all times, in seconds")
    args = parser.parse_args()
    set_threads(args.threads)

    pixels = np.ascontiguousarray(read_rgb(args.photo)[: SIZE[1], : SIZE[0]])
    found = find_closest(make_codec("latens", args.threads), pixels, "bpp", BITS_PER_PIXEL)
    quality, data, image = found.setting, found.data, Image(pixels)
    codec = ImageCodec()
    sides: dict[str, Callable[[], dict[str, float]]] = {"Latens": lambda: ours(codec, image, quality)}
    with tempfile.TemporaryDirectory() as folder:
        if args.peer:
            source = Path(folder, "photo.npy")
            np.save(source, image.pixels)
            threads = {"OMP_NUM_THREADS": str(args.threads)}
            peer = Peer(args.peer, PEER, [str(source), str(args.threads), str(len(data))], threads)
            sides["CompressAI mbt2018_mean"] = lambda: peer.ask("go")
        for run in sides.values():
            run()
        times: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for _ in range(args.rounds):
            for name, run in sides.items():
                times[name].append(run())
                time.sleep(0.05)  # lets threads of the side that has finished stop spinning

    table = Table(
        title=f"{SIZE[0]}x{SIZE[1]}, medians of {args.rounds} rounds, taking turns", title_justify="left"
    )
    table.add_column("")
    for heading in ("bytes", "encode ms", "decode ms", "encode ratio", "decode ratio"):
        table.add_column(heading, justify="right")
    for name, rows in times.items():
        cells = [
            f"{1000 * statistics.median(row[step] for row in rows):.1f}" for step in ("encode", "decode")
        ]
        for step in ("encode", "decode"):
            # Each round is a pair that saw the same machine.
            pairs = zip(times["CompressAI mbt2018_mean"] if args.peer else rows, rows, strict=True)
            cells.append(f"{statistics.median(theirs[step] / row[step] for theirs, row in pairs):.2f}x")
        table.add_row(name, f"{rows[0]['bytes']:,}", *cells)
    console = Console(highlight=False)
    console.print(table)
    if args.peer:
        rows = times["CompressAI mbt2018_mean"]
        coder = [
            1000 * statistics.median(row[f"{step} coder"] for row in rows) for step in ("encode", "decode")
        ]
        console.print(
            f"Of CompressAI's time, entropy models and coder: {coder[0]:.1f} and {coder[1]:.1f} ms."
        )
        peer.close()
    console.print(f"Random weights there, see the head of {Path(sys.argv[0]).name}. {machine()}", style="dim")
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), "seconds": times}, indent=1) + "\n")


if __name__ == "__main__":
    main()
