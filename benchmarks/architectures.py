"""A table of architectures: what they cost, whether their files are portable, how well they are said to code.

    python benchmarks/architectures.py [--threads 2] [--rounds 3] [--models NAME ...] > docs/architectures.md

Weights are random and the picture is a made-up one of 768x512: times of transforms and contexts do not depend on
either, those of entropy coding hardly. DCVC-RT's frame is told of the features of another. Each model is run once to
warm up; times are the best of the rounds. BD-rates are what the sources named say, with their own anchors; they are
not measured here, nor comparable across anchors.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

from latens import __version__
from latens.convert.published import exact_entropy
from latens.errors import ModelError
from latens.models.video import DCVCRT, DCVCRTIntra
from latens.models.video.dcvc import Reference
from latens.zoo import entries
from latens.zoo.architectures import ModelEntry
from latens.zoo.complexity import count

_QUALITY = 32
"""Of DCVC-RT's 64, which makes no difference to times."""

MLIC = ("VTM 17.0", "the table of github.com/JiangWeibeta/MLIC")
BD_RATES: dict[str, tuple[float, tuple[str, str]]] = {
    "stf": (-2.48, MLIC),
    "wacnn": (-2.95, MLIC),
    "elic2022-official": (-5.95, MLIC),
    "tcm": (-10.14, MLIC),
    "mlic++": (-13.39, MLIC),
    "hpcm-large": (-19.19, ("VTM 22.0", "the README of github.com/lyq133/LIC-HPCM")),
    "lalic": (-15.26, ("VTM 9.1", "the paper's abstract")),
}
"""By name: percent on Kodak by PSNR, against what, and who says so."""

HEAD = """# Architectures

What the image architectures of the zoo and DCVC-RT cost in their largest size, and what is known of them. Made by
`benchmarks/architectures.py` of Latens {version}, on {threads} threads of {processor}, PyTorch {torch}.

| name | parameters | kMAC per pixel, encoding | decoding | 768x512, encoding | decoding | `.ltn` | BD-rate on Kodak |
|---|---|---|---|---|---|---|---|"""

FOOT = """
Times are those of `model.compress` and `model.decompress` with random weights, on a machine that may have had other
work: compare orders of magnitude; where there are none, nothing was measured. Raster models go position by position,
as their contexts ask for. Files (`.ltn`) are *portable* where integers choose every table, so that all machines decode
the same ([how](entropy.md)); the others code and decode strings on one machine. Why, in their own words:

{reasons}

BD-rates are by PSNR, as their sources give them, not measured here: they have anchors of their own.

{sources}

Papers are named by `latens models --published`. Names and sizes of all weights are the authors' own, so that their
checkpoints load with `from_state_dict`; `latens update-model -a NAME FILE` makes weights files of them: for files of
portable ones, of the others the networks alone. Of DCVC-RT there is a network for pictures (`dcvc-rt-intra`), and one
for frames that are told of the one before (`dcvc-rt`)."""


def picture(height: int = 512, width: int = 768) -> torch.Tensor:
    """Edges, slopes and noise, ``(1, 3, H, W)``."""
    y, x = torch.meshgrid(torch.arange(height) / 90, torch.arange(width) / 90, indexing="ij")
    waves = torch.sin(y + torch.arange(3)[:, None, None]) + torch.sin(1.7 * x) + (torch.sin(x * y) > 0.3)
    noise = torch.randn(3, height, width, generator=torch.Generator().manual_seed(0))
    return (0.45 + 0.13 * waves + 0.03 * noise).clamp(0, 1)[None]


def times(model: Any, rounds: int) -> tuple[float, float]:
    """Seconds to encode and to decode."""
    x, found = picture(), []
    more: tuple[Any, ...] = ()
    if isinstance(model, (DCVCRT, DCVCRTIntra)):
        more = (_QUALITY,)
    with torch.no_grad():
        if isinstance(model, DCVCRT):
            more += (model.compress(x, _QUALITY, Reference(frame=x))["reference"],)
        for _ in range(rounds + 1):
            start = time.perf_counter()
            code = model.compress(x, *more)
            middle = time.perf_counter()
            model.decompress(code["strings"], code["shape"], *more)
            found.append((middle - start, time.perf_counter() - middle))
    encoding, decoding = zip(*found[1:], strict=True)
    return min(encoding), min(decoding)


def row(known: ModelEntry, rounds: int) -> tuple[str, str | None]:
    """A line of the table, and why files are not portable if they are not."""
    torch.manual_seed(1)
    arguments = known.sizes[max(known.sizes)]
    make: Any = known.model_class()
    with torch.device("meta"):
        cost = count(make(*arguments))
    model = make(*arguments).eval()
    model.update(force=True)
    encoding, decoding = times(model, rounds)
    reason = None
    try:
        exact_entropy(model)
    except ModelError as error:
        reason = str(error)
    rate = (
        ""
        if known.id not in BD_RATES
        else f"{BD_RATES[known.id][0]:+.1f} % against {BD_RATES[known.id][1][0]}"
    )
    cells = (
        f"`{known.id}`",
        f"{cost.parameters / 1e6:.1f} M",
        f"{cost.encoding / 1e3:.0f}",
        f"{cost.decoding / 1e3:.0f}",
        f"{encoding:.2f} s",
        f"{decoding:.2f} s",
        "no" if reason else "portable",
        rate,
    )
    return "| " + " | ".join(cells) + " |", reason


def main() -> None:
    images = [known for known in entries() if known.media == "image" or known.id.startswith("dcvc")]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", choices=[known.id for known in images])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    processor = next(
        (line.partition(": ")[2].strip() for line in _cpuinfo() if line.startswith("model name")),
        platform.processor(),
    )
    print(
        HEAD.format(
            version=__version__, threads=options.threads, processor=processor, torch=torch.__version__
        )
    )
    reasons = {}
    for known in images:
        if options.models and known.id not in options.models:
            continue
        line, reason = row(known, options.rounds)
        print(line, flush=True)
        if reason:
            reasons[known.id] = reason
        print(known.id, file=sys.stderr)
    sources = dict.fromkeys(source for _, source in BD_RATES.values())
    print(
        FOOT.format(
            reasons="\n".join(f"- `{name}`: {reason}" for name, reason in reasons.items()),
            sources="\n".join(f"- against {anchor}: {source}" for anchor, source in sources),
        )
    )


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
