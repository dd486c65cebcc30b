"""Peak memory of encoding and decoding a large photograph, Latens and CompressAI's ``mbt2018_mean``.

    python benchmarks/memory.py PHOTO --peer OTHER_ENVIRONMENT/bin/python [--megapixels 24] [--peer-limit 12]

The photograph is PHOTO, enlarged twice and repeated as in mirrors, in a temporary folder. Every step runs in a
process of its own from file to file, and reports its largest resident set (``VmHWM`` of Linux; ``getrusage`` would
carry over that of the process it was started from), the interpreter and its libraries included. CompressAI has
random weights and may not take more address space than the limit (GB, beyond what its libraries map); if it needs
more, the picture is halved until it fits, and its need is also given scaled to the full size.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

QUALITY = 50.0

OURS = """
import json, sys, time
from pathlib import Path
import torch
from latens.io import read_image, write_image
from latens.codec import ImageCodec
from latens.format import read

step, source, target, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
start = time.perf_counter()
if step == "encode":
    Path(target).write_bytes(ImageCodec().encode(read_image(source), QUALITY))
elif step == "decode":
    write_image(ImageCodec().decode(read(Path(source).read_bytes()))[0], target)
else:
    ImageCodec()
seconds = time.perf_counter() - start
peak = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) / 1024
print(json.dumps({"MB": peak, "s": seconds}))
""".replace("QUALITY", str(QUALITY))

# What the other side runs: no import from here, since Latens is not installed there. Streams pass through pickle,
# which costs next to nothing beside the network.
PEER = """
import json, pickle, resource, sys, time
from pathlib import Path
import numpy as np
import torch
from PIL import Image
from compressai.zoo import mbt2018_mean

step, source, target, threads, limit = sys.argv[1:]
Image.MAX_IMAGE_PIXELS = None
torch.set_num_threads(int(threads))
torch.set_grad_enabled(False)
torch.manual_seed(1)
model = mbt2018_mean(3, pretrained=False).eval()
model.update(force=True)
mapped = 1024 * int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmSize")))
allowed = mapped + int(float(limit) * 2**30)
resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
start = time.perf_counter()
try:
    if step == "encode":
        pixels = np.array(Image.open(source))
        height, width = pixels.shape[:2]
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float().div(255)
        padding = (0, -width % 64, 0, -height % 64)
        out = model.compress(torch.nn.functional.pad(x, padding, mode="replicate"))
        Path(target).write_bytes(pickle.dumps((out, height, width)))
    elif step == "decode":
        out, height, width = pickle.loads(Path(source).read_bytes())
        x = model.decompress(**out)["x_hat"][0, :, :height, :width]
        Image.fromarray(x.mul(255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()).save(target)
except (MemoryError, RuntimeError) as error:
    if "memory" not in str(error) and not isinstance(error, MemoryError):
        raise
    sys.exit(9)
seconds = time.perf_counter() - start
peak = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) / 1024
print(json.dumps({"MB": peak, "s": seconds}))
"""

OUT_OF_MEMORY = 9


def large_photo(path: Path, megapixels: float) -> Image.Image:
    """The photograph enlarged twice and continued in mirrors, 3:2."""
    photo = Image.open(path).convert("RGB")
    block = np.asarray(photo.resize((2 * photo.width, 2 * photo.height), Image.Resampling.BICUBIC))
    height = round((megapixels * 1e6 * 2 / 3) ** 0.5)
    width = round(height * 3 / 2)
    padding = ((0, max(height - block.shape[0], 0)), (0, max(width - block.shape[1], 0)), (0, 0))
    return Image.fromarray(np.pad(block, padding, mode="symmetric")[:height, :width])


def run(python: str, script: str, *arguments: str) -> dict[str, Any] | None:
    """What the script prints; None if the memory did not suffice."""
    environment = os.environ | {"OMP_NUM_THREADS": arguments[3]}
    done = subprocess.run(
        [python, "-c", script, *arguments], stdout=subprocess.PIPE, text=True, env=environment, check=False
    )
    if done.returncode == OUT_OF_MEMORY:
        return None
    if done.returncode:
        raise SystemExit(f"{Path(python).name} ended with status {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photo", type=Path)
    parser.add_argument("--megapixels", type=float, default=24.0)
    parser.add_argument("--peer", help="Python with CompressAI")
    parser.add_argument("--peer-limit", type=float, default=12.0, help="GB")
    parser.add_argument("--peer-megapixels", type=float, help="begin with this size there")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    threads = str(args.threads)

    with tempfile.TemporaryDirectory() as folder:
        photo, coded, decoded = (str(Path(folder, name)) for name in ("photo.png", "coded", "decoded.png"))
        picture = large_photo(args.photo, args.megapixels)
        picture.save(photo, compress_level=1)
        print(f"{picture.width}x{picture.height}, {threads} threads, largest resident set:")
        ours = {}
        for step, source, target in (
            ("idle", "-", "-"),
            ("encode", photo, coded),
            ("decode", coded, decoded),
        ):
            result = run(sys.executable, OURS, step, source, target, threads)
            assert result is not None
            ours[step] = result["MB"]
            print(f"  Latens, {step}: {result['MB']:.0f} MB, {result['s']:.1f} s", flush=True)
        if not args.peer:
            return

        idle = run(args.peer, PEER, "idle", "-", "-", threads, "1")
        assert idle is not None
        print(f"  CompressAI mbt2018_mean, idle: {idle['MB']:.0f} MB", flush=True)
        megapixels, need = args.peer_megapixels or args.megapixels, dict[str, float]()
        while len(need) < 2:
            large_photo(args.photo, megapixels).save(photo, compress_level=1)
            for step, source, target in (("encode", photo, coded), ("decode", coded, decoded)):
                result = run(args.peer, PEER, step, source, target, threads, str(args.peer_limit))
                if result is None:
                    print(
                        f"  CompressAI mbt2018_mean, {step} of {megapixels:g} MP: more than {args.peer_limit:g} GB"
                    )
                    megapixels, need = megapixels / 2, {}
                    break
                cost = f"{result['MB']:.0f} MB, {result['s']:.1f} s"
                print(f"  CompressAI mbt2018_mean, {step} of {megapixels:g} MP: {cost}", flush=True)
                need[step] = idle["MB"] + (result["MB"] - idle["MB"]) * args.megapixels / megapixels
        for step, megabytes in need.items():
            scaled = "" if megapixels == args.megapixels else f", scaled from {megapixels:g} MP"
            print(f"  {step}: {megabytes:.0f} MB{scaled}, {megabytes / ours[step]:.1f}x as much as Latens")


if __name__ == "__main__":
    main()
