"""Run CompressAI's own tests on Latens, through ``latens.compat``.

    pip download --no-binary :all: --no-deps compressai==1.2.8
    python tools/compressai_tests.py compressai-1.2.8.tar.gz [--on python-with-compressai] [pytest's arguments]

The release holds the tests and examples, but not the pictures and results that some need: stand-ins are made. Tests
that download weights fail without a network, with either library; with ``--on`` the same tests run on CompressAI first,
and what fails there does not count. Ends with 1 if Latens fails a test that counts.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

# torchvision is no dependency of Latens; of its transforms, CompressAI's examples and tests use these.
TORCHVISION = """
import random
import numpy as np
import torch
from PIL import Image


class Compose:
    def __init__(self, transforms):
        self.transforms = transforms

    def __call__(self, x):
        for transform in self.transforms:
            x = transform(x)
        return x


class ToTensor:
    def __call__(self, x):
        return torch.from_numpy(np.array(x, dtype=np.float32) / 255).permute(2, 0, 1).contiguous()


class ToPILImage:
    def __call__(self, x):
        return Image.fromarray(x.mul(255).byte().permute(1, 2, 0).numpy())


class _Crop:
    def __init__(self, size):
        self.size = (size, size) if isinstance(size, int) else tuple(size)

    def __call__(self, x):
        (height, width), left, top = self.size, *self.place(x.size[0] - self.size[1], x.size[1] - self.size[0])
        return x.crop((left, top, left + width, top + height))


class CenterCrop(_Crop):
    def place(self, x, y):
        return x // 2, y // 2


class RandomCrop(_Crop):
    def place(self, x, y):
        return random.randint(0, max(x, 0)), random.randint(0, max(y, 0))
"""

PLUGIN = """
import latens.compat

latens.compat.install()
"""


def unpack(release: Path, folder: Path) -> Path:
    """The release, unpacked, with stand-ins for what it lacks."""
    with tarfile.open(release) as archive:
        archive.extractall(folder, filter="data")
    (root,) = (path for path in folder.iterdir() if (path / "tests").is_dir())
    # Python would find the sources before the alias.
    shutil.rmtree(root / "compressai")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:512, 0:768][..., None] / 97
    waves = (
        np.sin(x * rng.uniform(0.5, 3, 3)) + np.sin(y * rng.uniform(0.5, 3, 3)) + (np.sin(5 * x * y) > 0.3)
    )
    texture = rng.normal(0, 0.1, (512, 768, 3)) * (np.sin(3 * x) > 0)
    picture = np.clip(128 + 45 * (waves + texture), 0, 255).astype(np.uint8)
    assets, expected = root / "tests/assets", root / "tests/expected"
    for place in (
        assets / "dataset/image",
        *(assets / f"fakedata/imagefolder/{s}" for s in ("train", "test")),
    ):
        place.mkdir(parents=True, exist_ok=True)
        if not list(place.glob("*.*")):
            Image.fromarray(picture).save(place / "stmalo_fracape.png")
    expected.mkdir(exist_ok=True)
    curve = {"bpp": [0.1, 0.4], "psnr-rgb": [28.0, 32.0], "ms-ssim-rgb": [0.91, 0.97]}
    results = expected / "eval_0_bmshj2018-factorized_mse_1.json"
    if not results.exists():
        about = {"name": "bmshj2018-factorized-mse", "description": "Inference (ans)"}
        results.write_text(json.dumps({**about, "results": curve}))
    return root


def outcomes(python: str, root: Path, more: list[str], plugin: bool) -> dict[str, str]:
    """Run the tests; the outcome of each."""
    libraries = root / "libraries"
    libraries.mkdir(exist_ok=True)
    (libraries / "alias_plugin.py").write_text(PLUGIN)
    if subprocess.run([python, "-c", "import torchvision"], capture_output=True, check=False).returncode:
        (libraries / "torchvision").mkdir(exist_ok=True)
        (libraries / "torchvision/__init__.py").write_text("from . import transforms\n")
        (libraries / "torchvision/transforms.py").write_text(TORCHVISION)
    # What a test expects of an encoder is written by the first run, and compared with by the second.
    environment = {**os.environ, "PYTHONPATH": str(libraries), "GENERATE_EXPECTED": "1", "MPLBACKEND": "agg"}
    environment |= {"BROWSER": "true"}  # plots open one
    command = [
        python,
        "-m",
        "pytest",
        "-q",
        "-rA",
        "-p",
        "no:cacheprovider",
        "--continue-on-collection-errors",
    ]
    command += ["-p", "alias_plugin"] if plugin else []
    done = subprocess.run(
        [*command, *more, "tests"], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    found = re.findall(r"^(PASSED|FAILED|ERROR) (tests/\S+)", done.stdout, re.MULTILINE)
    if not found:
        raise SystemExit(f"no test ran:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return {name: outcome for outcome, name in found}


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("release", type=Path, help="compressai-1.2.8.tar.gz")
    parser.add_argument("--on", help="a Python that has CompressAI, to find out what counts")
    arguments, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        root = unpack(arguments.release, Path(folder))
        reference = outcomes(arguments.on, root, more, plugin=False) if arguments.on else {}
        ours = outcomes(sys.executable, root, more, plugin=True)
    counts = {name for name, outcome in reference.items() if outcome == "PASSED"} if reference else set(ours)
    failed = sorted(name for name in counts if ours.get(name) != "PASSED")
    for name in failed:
        print(f"failed: {name}")
    if reference:
        print(f"CompressAI passes {len(counts)} of its tests")
    passed = [name for name, outcome in ours.items() if outcome == "PASSED"]
    print(f"Latens passes {len(passed)}, and fails {len(failed)} of {len(counts)} that count")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
