"""Scale-space flow beside CompressAI's: same weights, same frames, taking turns.

    python benchmarks/video.py --peer PYTHON_WITH_COMPRESSAI [--threads 2] [--rounds 5] [--sizes 416x240 832x480]

Weights are random, but made so that latents have a few bits each; both sides load them from one file. Each is a
process of its own; they take turns, one clip of a key frame and two more each, after some to warm up. Frames are
padded to multiples of 128 before, as both libraries want them. Printed are medians of times per frame and of paired
ratios, how long strings are, and whether each side decodes the strings of the other. The default video model codes the
same frames beside them (column "default"), with its own weights and padding, at quality 50.
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from common import Peer

FRAMES = 3
# Clips after which memory of both libraries has settled.
WARM_UP = 3


def frames_of(width: int, height: int) -> list[Any]:
    """A made-up clip with edges, slopes, noise and motion, ``(1, 3, H, W)`` each, padded."""
    import numpy as np
    import torch

    random = np.random.default_rng(0)
    noise = 0.03 * random.standard_normal((3, height + 16, width + 16))
    frames = []
    for t in range(FRAMES):
        y, x = np.mgrid[0:height, 0:width] / 90
        x, y = x + 0.05 * t, y - 0.02 * t
        waves = np.sin(y + np.arange(3)[:, None, None]) + np.sin(1.7 * x) + (np.sin(x * y) > 0.3)
        pixels = 0.45 + 0.13 * waves + noise[:, 2 * t : 2 * t + height, 4 * t : 4 * t + width]
        padding = ((0, 0), (0, -height % 128), (0, -width % 128))
        frames.append(torch.from_numpy(np.pad(pixels.clip(0, 1).astype(np.float32), padding, "edge"))[None])
    return frames


def make_weights(path: Path) -> None:
    """Random weights with latents of some units, scales within the table and motion of some pixels."""
    import torch

    from latens.models.video import ScaleSpaceFlow

    torch.manual_seed(1)
    model = ScaleSpaceFlow(flow_unit="relative").eval()
    frames = frames_of(416, 240)

    def scale_to(module: Any, last: Any, level: float, run: Any) -> None:
        found: list[Any] = []
        handle = module.register_forward_hook(lambda m, a, out: found.append(out))
        run()
        handle.remove()
        ratio = level / found[-1].std()
        last.weight.mul_(ratio)
        last.bias.mul_(ratio)

    def run() -> Any:
        return model(frames[:2])

    with torch.no_grad():
        for name, level in (("img", 3.0), ("motion", 1.0), ("res", 1.0)):
            scale_to(getattr(model, f"{name}_encoder"), getattr(model, f"{name}_encoder")[6], level, run)
            prior = getattr(model, f"{name}_hyperprior")
            scale_to(prior.hyper_encoder, prior.hyper_encoder[4], 2.0, run)
            prior.hyper_decoder_scale.deconv3.bias.uniform_(0.3, 2.5)
            scale_to(getattr(model, f"{name}_decoder"), getattr(model, f"{name}_decoder")[6], 0.05, run)
            prior.entropy_bottleneck._update_quantiles()
    model.update(force=True)
    torch.save(dict(model.state_dict()), path)


def worker(package: str, threads: int) -> None:
    """Answer requests, one a line."""
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    if package == "compressai":
        from compressai.models.video import ScaleSpaceFlow
    else:
        from latens.models.video import ScaleSpaceFlow
    model: Any = ScaleSpaceFlow().eval()
    frames: list[Any] = []
    for line in sys.stdin:
        request = json.loads(line)
        answer: Any = True
        if "weights" in request:
            model.load_state_dict(torch.load(request["weights"], weights_only=True))
        elif "size" in request:
            frames = frames_of(*request["size"])
        elif "to" in request:
            code = model.compress(frames)
            Path(request["to"]).write_bytes(pickle.dumps((code, model.decompress(*code))))
        elif "decode" in request:
            # Written by the other process of this very script.
            (strings, shapes), expected = pickle.loads(Path(request["decode"]).read_bytes())
            try:
                decoded = model.decompress(strings, shapes)
                answer = max((a - b).abs().max().item() for a, b in zip(decoded, expected, strict=True))
            except (ValueError, RuntimeError) as error:
                answer = repr(error)
        elif request["fast"] is None:
            answer = default_times(frames, request["size_of"])
        else:
            model.fast = request["fast"]
            start = time.perf_counter()
            code = model.compress(frames)
            middle = time.perf_counter()
            model.decompress(*code)
            end = time.perf_counter()
            answer = {"encode": middle - start, "decode": end - middle, "bytes": len(pickle.dumps(code))}
        print(json.dumps(answer), flush=True)


def default_times(frames: list[Any], size: list[int]) -> dict[str, float]:
    """The default video model on the same frames: everything but the container."""

    import numpy as np

    from latens import format as ltn
    from latens.zoo import DEFAULT_VIDEO_MODEL
    from latens.zoo.weights import load_video

    loaded = load_video(DEFAULT_VIDEO_MODEL)
    width, height = (side + -side % loaded.grid for side in size)
    level = 1 << 15
    header = ltn.VideoHeader(
        width=size[0], height=size[1], model=loaded.id, entropy_id=loaded.entropy_id[:8],
        weights_id=loaded.weights_id[:8], quality=level, skip=loaded.skip,
    )  # fmt: skip
    times = {"encode": 0.0, "decode": 0.0, "bytes": 0}
    before = shown = None

    def references(picture: Any) -> tuple[Any, ...]:
        return () if picture is None else (picture,)

    for number, padded in enumerate(frames):
        rgb = padded[0, :, :height, :width].mul(65_535).round().permute(1, 2, 0).int().numpy()
        picture = np.ascontiguousarray(rgb.astype(np.uint16))
        start = time.perf_counter()
        coded = loaded.encode(picture, references(before), level, 8)
        before = coded.picture
        middle = time.perf_counter()
        numbers = (number - 1,) if number else ()
        frame = ltn.Frame(number, number, numbers, coded.checksum, coded.streams)
        _, shown = loaded.decode(frame, references(shown), (height, width), header)
        end = time.perf_counter()
        times["encode"] += middle - start
        times["decode"] += end - middle
        times["bytes"] += frame.size
    return times


def compare(sides: dict[str, Peer], sizes: list[tuple[int, int]], rounds: int, folder: Path) -> None:
    """Times of all sizes, side by side."""
    columns = "".join(f"{name:>12}{'ratio':>8}" for name in ("Latens", "fast", "default"))
    print(f"{'':<10}{'per frame':<10}{'CompressAI':>12}{columns}")
    order = [("compressai", False), ("latens", False), ("latens", True), ("latens", None)]
    for size in sizes:
        for side in sides.values():
            side.ask({"size": size})
        requests = [(package, {"fast": fast, "size_of": size}) for package, fast in order]
        for _ in range(WARM_UP):
            for package, request in requests:
                sides[package].ask(request)
        found = [[sides[package].ask(request) for package, request in requests] for _ in range(rounds)]
        for what in ("encode", "decode"):
            times = [[r[what] / FRAMES for r in turn] for turn in found]
            medians = [statistics.median(column) for column in zip(*times, strict=True)]
            ours, fast, default = (statistics.median(t[0] / t[i] for t in times) for i in (1, 2, 3))
            print(
                f"{'x'.join(map(str, size)):<10}{what:<10}{medians[0]:>10.3f} s{medians[1]:>10.3f} s"
                f"{ours:>7.2f}x{medians[2]:>10.3f} s{fast:>7.2f}x{medians[3]:>10.3f} s{default:>7.2f}x",
                flush=True,
            )
        sizes_found = [found[0][i]["bytes"] for i in (0, 1, 3)]
        print(f"{'':<10}bytes     {sizes_found[0]:>12}{sizes_found[1]:>12}{sizes_found[2]:>40}")
        sides["latens"].ask({"fast": False})
        for package, other in (("compressai", "latens"), ("latens", "compressai")):
            sides[package].ask({"to": str(folder / "code")})
            difference = sides[other].ask({"decode": str(folder / "code")})
            print(f"{'':<10}strings of {package} in {other}: largest difference {difference}", flush=True)


def _size(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    return int(width), int(height)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", help="Python interpreter of an environment with CompressAI 1.2.8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", nargs="+", type=_size, default=[(416, 240), (832, 480)])
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.threads)
        return
    if not options.peer:
        parser.error("--peer is needed")
    pythons = {"compressai": options.peer, "latens": sys.executable}
    # Not before: a worker may run where Latens is not installed.
    from common import Peer

    sides = {
        package: Peer(python, Path(__file__), ["--worker", package, "--threads", str(options.threads)])
        for package, python in pythons.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pt"
        make_weights(weights)
        for side in sides.values():
            side.ask({"weights": str(weights)})
        compare(sides, options.sizes, options.rounds, Path(folder))
    for side in sides.values():
        side.close()


if __name__ == "__main__":
    main()
