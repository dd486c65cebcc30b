"""Training throughput beside the example training loop of CompressAI: same model, photographs and machine.

    python benchmarks/training.py --peer PYTHON_WITH_COMPRESSAI --data FOLDER [--threads 2] [--rounds 3]
        [--models bmshj2018-hyperprior mbt2018-mean]

The peer does what its documentation describes: photographs from a folder, decoded by four worker processes,
random crops of 256, batches of 16, Adam at 1e-4 with gradients clipped to 1, and a second optimiser for the
quantiles. Both run as processes of their own and take turns of some steps, after one to warm up. Printed are crops
per second and the median of the ratios of turns that follow each other, with our networks in bfloat16 (as `latens
train` has it) and in float32.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from common import Peer, machine
from latens.train import TrainConfig, Trainer
from latens.train.data import PhotoPool

PEER = """
import json, sys, time
import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from compressai.datasets import ImageFolder
from compressai.losses import RateDistortionLoss
from compressai.optimizers import net_aux_optimizer
from compressai.zoo import image_models

folder, name, batch, crop, threads, lmbda = sys.argv[1:]
torch.set_num_threads(int(threads))
crops = transforms.Compose([transforms.RandomCrop((int(crop), int(crop))), transforms.ToTensor()])
photographs = ImageFolder(folder, split="train", transform=crops)
loader = DataLoader(photographs, batch_size=int(batch), num_workers=4, shuffle=True)
model = image_models[name](quality=3)
settings = {"net": {"type": "Adam", "lr": 1e-4}, "aux": {"type": "Adam", "lr": 1e-3}}
optimisers = net_aux_optimizer(model, settings)
measure = RateDistortionLoss(lmbda=float(lmbda))
model.train()


def batches():
    while True:
        yield from loader


source = batches()
for line in sys.stdin:
    start = time.perf_counter()
    for step in range(json.loads(line)):
        x = next(source)
        for optimiser in optimisers.values():
            optimiser.zero_grad()
        result = measure(model(x), x)
        result["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimisers["net"].step()
        auxiliary = model.aux_loss()
        auxiliary.backward()
        optimisers["aux"].step()
    print(json.dumps(time.perf_counter() - start), flush=True)
"""


class Ours:
    """The same by ``latens.train``, in this process."""

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        self._trainer = Trainer(config, folder)
        # What it takes to save has no counterpart on the other side.
        self._trainer.save = lambda: None  # type: ignore[method-assign]

    def steps(self, count: int) -> float:
        """Seconds of some steps."""
        trainer = self._trainer
        trainer.config = replace(trainer.config, steps=trainer.step + count)
        start = time.perf_counter()
        trainer.run()
        return time.perf_counter() - start


def prepare(data: Path, folder: Path, images: int, crop: int, batches: int) -> None:
    """Write photographs as PNG, decoded, large enough to be cropped; and a folder of many links to them."""
    pool = PhotoPool.load(data)
    fit = [i for i in range(len(pool)) if min(pool.sizes[i]) >= crop][:images]
    if not fit:
        raise SystemExit(f"{data}: no photograph is as large as a crop")
    (folder / "photos").mkdir()
    (folder / "many" / "train").mkdir(parents=True)
    for number, i in enumerate(fit):
        Image.fromarray(pool[i]).save(folder / "photos" / f"{number}.png")
    for number, source in zip(range(batches), itertools.cycle(range(len(fit)))):
        (folder / "many" / "train" / f"{number}.png").symlink_to(folder / "photos" / f"{source}.png")


def compare(name: str, folder: Path, options: argparse.Namespace) -> None:
    """One line of the table."""
    config = TrainConfig.for_architecture(name)
    lmbda = 0.0067
    config = replace(
        config, data=str(folder / "photos"), quality=3, lmbda=lmbda, batch=options.batch, crop=options.crop,
        threads=options.threads, device="cpu", checkpoint_seconds=1e6,
    )  # fmt: skip
    arguments = [str(folder / "many"), name, *map(str, (options.batch, options.crop, options.threads, lmbda))]
    peer = Peer(options.peer, PEER, arguments, {"OMP_NUM_THREADS": str(options.threads)})
    sides = {
        "CompressAI": peer.ask,
        "bfloat16": Ours(folder / f"{name}-low", config).steps,
        "float32": Ours(folder / f"{name}-full", replace(config, amp=False)).steps,
    }
    for side in sides.values():
        side(1)
    turns = [{key: side(options.steps) for key, side in sides.items()} for _ in range(options.rounds)]
    peer.close()
    crops = options.steps * options.batch
    speed = {key: statistics.median(crops / turn[key] for turn in turns) for key in sides}
    ratio = {key: statistics.median(turn["CompressAI"] / turn[key] for turn in turns) for key in sides}
    print(
        f"{name:<28}{speed['CompressAI']:>12.2f}"
        + "".join(f"{speed[key]:>12.2f}{ratio[key]:>7.2f}x" for key in ("bfloat16", "float32")),
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peer", required=True, help="Python interpreter of an environment with CompressAI 1.2.8"
    )
    parser.add_argument("--data", required=True, type=Path, help="folder or .tar of photographs")
    parser.add_argument("--models", nargs="+", default=["bmshj2018-hyperprior", "mbt2018-mean"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2, help="steps a turn")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(machine(), file=sys.stderr)
    print(
        f"{'crops per second':<28}{'CompressAI':>12}{'bfloat16':>12}{'ratio':>8}{'float32':>12}{'ratio':>8}"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(
            options.data, folder, 48, options.crop, options.batch * (2 + options.steps * options.rounds) * 2
        )
        for name in options.models:
            compare(name, folder, options)


if __name__ == "__main__":
    main()
