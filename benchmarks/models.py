"""Compression models beside CompressAI's: same weights, same image, taking turns.

    python benchmarks/models.py --peer PYTHON_WITH_COMPRESSAI [--threads 2] [--rounds 5] [--models NAME ...]
    python benchmarks/models.py --peer PYTHON_WITH_COMPRESSAI --exchange FOLDER_WITH_KODAK

Weights are random but made so that latents have a few bits each; both sides load them from one file. Both run
as processes of their own and take turns, one repetition each, after one to warm up. Printed are the medians of
times and of paired ratios. ``--exchange`` decodes each side's strings with the other, for every image of a folder.
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

MODELS: dict[str, dict[str, int]] = {
    "FactorizedPrior": {"N": 128, "M": 192},
    "ScaleHyperprior": {"N": 128, "M": 192},
    "MeanScaleHyperprior": {"N": 128, "M": 192},
    "JointAutoregressiveHierarchicalPriors": {"N": 192, "M": 192},
    "Cheng2020Anchor": {"N": 128},
    "Elic2022Official": {"N": 192, "M": 320},
}
RASTER = ("JointAutoregressiveHierarchicalPriors", "Cheng2020Anchor")
WIDTH, HEIGHT = 768, 512


def read_image(path: str | None) -> Any:
    """A picture as ``(1, 3, H, W)``; without a path a made-up one of edges, slopes and noise."""
    import numpy as np
    import torch

    if path is not None:
        from PIL import Image

        pixels = np.asarray(Image.open(path).convert("RGB"), np.float32) / 255
        return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / 90
    waves = np.sin(y + np.arange(3)[:, None, None]) + np.sin(1.7 * x) + (np.sin(x * y) > 0.3)
    pixels = 0.45 + 0.13 * waves + 0.03 * random.standard_normal((3, HEIGHT, WIDTH))
    return torch.from_numpy(pixels.clip(0, 1).astype(np.float32))[None]


def make_weights(name: str, sizes: dict[str, int], path: Path) -> None:
    """Random weights whose latents lie within some units and whose scales lie within the table."""
    import torch

    import latens.models

    torch.manual_seed(1)
    model: Any = getattr(latens.models, name)(**sizes).eval()
    x = read_image(None)
    codec = getattr(model, "latent_codec", None)
    bottleneck = codec.hyper.entropy_bottleneck if codec is not None else model.entropy_bottleneck
    with torch.no_grad():
        for transform, level in (
            (model.g_a, 2.0),
            (codec.hyper.h_a if codec else getattr(model, "h_a", None), 3.0),
        ):
            if transform is None:
                continue
            found: list[Any] = []
            handle = transform.register_forward_hook(lambda m, a, out, found=found: found.append(out))
            model(x)
            handle.remove()
            last = [m for m in transform.modules() if isinstance(m, torch.nn.Conv2d)][-1]
            ratio = level / found[0].std()
            last.weight.mul_(ratio)
            if last.bias is not None:
                last.bias.mul_(ratio)
        # Positive scales, so that many tables are used.
        for network in (m for n, m in model.named_modules() if n.endswith(("h_s", "entropy_parameters"))):
            convolutions = [
                m for m in network.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.ConvTranspose2d))
            ]
            if convolutions:
                bias = convolutions[-1].bias
                bias[: len(bias) // 2].uniform_(0.3, 3.0)
        bottleneck._update_quantiles()
    model.update(force=True)
    torch.save(model.state_dict(), path)


def worker(package: str, threads: int) -> None:
    """Answer requests, one pickled path with arguments a line."""
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    if package == "compressai":
        import compressai.models as library
    else:
        import latens.models as library
    model: Any = None
    x: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        answer: Any = None
        if "load" in request:
            cls = getattr(library, request["load"])
            options = request["options"] if package == "latens" else {}
            model = cls(**request["sizes"], **options).eval()
            model.load_state_dict(torch.load(request["weights"], weights_only=True))
            x = read_image(None)
            answer = True
        elif "image" in request:
            x = read_image(request["image"])
            x = x[..., : x.shape[2] // 64 * 64, : x.shape[3] // 64 * 64].contiguous()
            code = model.compress(x)
            decoded = model.decompress(code["strings"], code["shape"])["x_hat"]
            Path(request["to"]).write_bytes(pickle.dumps((code["strings"], list(code["shape"]), decoded)))
            answer = sum(len(s[0]) for s in code["strings"])
        elif "decode" in request:
            # Written by the other process of this very script.
            strings, shape, expected = pickle.loads(Path(request["decode"]).read_bytes())
            try:
                answer = (model.decompress(strings, shape)["x_hat"] - expected).abs().max().item()
            except (ValueError, RuntimeError) as error:
                answer = repr(error)
        else:
            model.fast = request["fast"]
            start = time.perf_counter()
            code = model.compress(x)
            middle = time.perf_counter()
            model.decompress(code["strings"], code["shape"])
            end = time.perf_counter()
            size = len(pickle.dumps(code["strings"]))
            answer = {"compress": middle - start, "decompress": end - middle, "bytes": size}
        print(json.dumps(answer), flush=True)


def compare(sides: dict[str, Peer], names: list[str], rounds: int, folder: Path) -> None:
    """Times of all models, side by side."""
    print(f"{'':<40}{'':<12}{'CompressAI':>12}{'Latens':>12}{'ratio':>8}{'fast':>12}{'ratio':>8}")
    for name in names:
        weights = folder / f"{name}.pt"
        make_weights(name, MODELS[name], weights)
        for side in sides.values():
            side.ask({"load": name, "sizes": MODELS[name], "weights": str(weights), "options": {}})
        order = [("compressai", False), ("latens", False), ("latens", True)]
        for package, fast in order:
            sides[package].ask({"fast": fast})
        found = [[sides[package].ask({"fast": fast}) for package, fast in order] for _ in range(rounds)]
        for what in ("compress", "decompress", "both"):
            times = [
                [r["compress"] + r["decompress"] if what == "both" else r[what] for r in turn]
                for turn in found
            ]
            medians = [statistics.median(column) for column in zip(*times, strict=True)]
            ours, fast = (statistics.median(t[0] / t[i] for t in times) for i in (1, 2))
            print(
                f"{name if what == 'compress' else '':<40}{what:<12}{medians[0]:>10.3f} s{medians[1]:>10.3f} s"
                f"{ours:>7.2f}x{medians[2]:>10.3f} s{fast:>7.2f}x",
                flush=True,
            )
        print(f"{'':<40}bytes       {found[0][0]['bytes']:>12}{found[0][1]['bytes']:>12}", flush=True)


def exchange(
    sides: dict[str, Peer], names: list[str], images: list[Path], folder: Path, width: int | None
) -> None:
    """Decode each side's strings with the other."""
    for name in names:
        weights = folder / f"{name}.pt"
        sizes = dict.fromkeys(MODELS[name], width) if width else MODELS[name]
        make_weights(name, sizes, weights)
        options = {"arithmetic": "reference"} if name in RASTER else {}
        for side in sides.values():
            side.ask({"load": name, "sizes": sizes, "weights": str(weights), "options": options})
        worst, failed, size = 0.0, [], 0
        for image in images:
            for package, other in (("compressai", "latens"), ("latens", "compressai")):
                code = folder / f"{package}.code"
                size += sides[package].ask({"image": str(image), "to": str(code)})
                difference = sides[other].ask({"decode": str(code)})
                if isinstance(difference, str) or not difference < 1e-3:
                    failed.append(f"{image.name} {package}->{other}: {difference}")
                else:
                    worst = max(worst, difference)
        print(
            f"{name}, {sizes}: {2 * len(images) - len(failed)} of {2 * len(images)} decode in the other library, "
            f"{size / (2 * len(images)):.0f} bytes each, largest difference {worst:.1e}",
            *failed[:5],
            sep="\n  ",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", help="Python interpreter of an environment with CompressAI 1.2.8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--exchange", type=Path, help="folder of images")
    parser.add_argument(
        "--width", type=int, help="channels of the models to exchange; those of the published ones"
    )
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
        if options.exchange:
            images = sorted(p for p in options.exchange.iterdir() if p.suffix.lower() == ".png")
            exchange(sides, options.models, images, Path(folder), options.width)
        else:
            compare(sides, options.models, options.rounds, Path(folder))
    for side in sides.values():
        side.close()


if __name__ == "__main__":
    main()
