"""What the harness takes on top of the codecs' own time.

    python benchmarks/harness.py FOLDER [--codecs jpeg,webp] [--repeats 3] [--rounds 3]

For each codec three things take turns, each in processes of its own. Of each the least CPU time counts, that
of a process and of all that it starts:

* ``latens bench`` on the folder, with all measures and with files kept;
* the bare calls that it makes: every image encoded and decoded as often, at the same settings (own time); then
  the measures of each result;
* ``latens bench`` on one picture of 64x64 pixels: what starts and loads before anything can be measured.

What is left of the first is bookkeeping: reading images, pipes, writing files and results. Shares are of the codecs'
own time. Start-up does not grow with the number of images; the last row counts it once for every codec all the same.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

from common import machine
from latens.evaluate import make_codec

METRICS = ("psnr_rgb", "psnr_y", "ms_ssim")
BARE = """
import json, resource, sys
from pathlib import Path
from latens.evaluate import find_images, make_codec, measure, read_rgb
from latens.evaluate.codecs.learned import loads

def cpu():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)

spec, settings, repeats, metrics, folder = json.loads(sys.argv[1])
codec = make_codec(spec)
loads(codec)
images = [read_rgb(path) for path in find_images(Path(folder))]
measure(images[0], images[0], metrics)  # loads what it needs
start = cpu()
decoded = []
for image in images:
    for setting in settings:
        for _ in range(repeats + (not decoded)):  # a first time is left out by the harness, too
            pixels = codec.decode(codec.encode(image, setting), image.shape[:2], setting)
        decoded.append((image, pixels))
middle = cpu()
for image, pixels in decoded:
    measure(image, pixels, metrics)
print(json.dumps([middle - start, cpu() - middle]))
"""


def cpu(command: Sequence[str]) -> tuple[float, str]:
    """CPU seconds and output of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def bench(spec: str, settings: Sequence[float], repeats: int, folder: Path) -> float:
    """CPU seconds of ``latens bench``, from nothing."""
    with tempfile.TemporaryDirectory() as place:
        points = ",".join(f"{setting:g}" for setting in settings)
        return cpu(
            (
                sys.executable, "-m", "latens", "bench", str(folder), "-c", spec, "-p", f"{spec}={points}",
                "--repeats", str(repeats), "--metrics", ",".join(METRICS), "-o", f"{place}/results.json",
            )
        )[0]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--codecs", default="jpeg,webp,avif,jxl,hevc,av1,vvc,latens")
    parser.add_argument("--repeats", type=int, default=3, help="as for latens bench")
    parser.add_argument("--settings", type=int, default=2, help="of each codec, from the middle of its dial")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as small:
        Image.new("RGB", (64, 64)).save(f"{small}/small.png")
        for spec in args.codecs.split(","):
            points = make_codec(spec).dial.points
            settings = [points[(i + 1) * len(points) // (args.settings + 1)] for i in range(args.settings)]
            job = json.dumps([spec, settings, args.repeats, METRICS, str(args.folder)])
            rounds = []
            for _ in range(args.rounds):
                bare = json.loads(cpu((sys.executable, "-c", BARE, job))[1])
                whole = bench(spec, settings, args.repeats, args.folder)
                rounds.append([*bare, bench(spec, settings[:1], 1, Path(small)), whole])
            own, measures, start, whole = map(min, zip(*rounds, strict=True))
            rows[spec] = [own, measures, start, max(0.0, whole - own - measures - start)]
    rows["together"] = [sum(column) for column in zip(*rows.values(), strict=True)]

    shown = Table(title=f"CPU time, {machine()}", title_justify="left")
    for heading in ("codec", "own s", "bookkeeping", "measures", "start-up s", "all on top"):
        shown.add_column(heading, justify="left" if heading == "codec" else "right")
    for spec, (own, measures, start, rest) in rows.items():
        on_top = f"{100 * (measures + start + rest) / own:.1f} %"
        shares = (f"{100 * part / own:.1f} %" for part in (rest, measures))
        shown.add_row(spec, f"{own:.2f}", *shares, f"{start:.2f}", on_top)
    Console(width=110).print(shown)


if __name__ == "__main__":
    main()
