"""What integers cost against the float network that they were made of: PSNR of both pictures, from the same latents.

    python benchmarks/integers.py IMAGES FLOAT.safetensors [--model latens-psnr-1] [--qualities 30 60 85]

FLOAT.safetensors holds the trained network: the set that the model was converted from.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from latens import format as ltn
from latens.codec import ImageCodec
from latens.io import read_image
from latens.models.latens_base import LatensBase, LatensBaseConfig
from latens.runtime.factors import QUALITY_MAX
from latens.runtime.picture import LATENT_BITS, PictureModel

PREFIX = "network."


def load_float(path: Path) -> LatensBase:
    with safe_open(path, "pt") as file:
        network = LatensBase(LatensBaseConfig.from_dict(json.loads(file.metadata()["config"])))
        state = {
            name.removeprefix(PREFIX): file.get_tensor(name)
            for name in file.keys()  # noqa: SIM118
            if name.startswith(PREFIX)
        }
    network.load_state_dict(state)
    return network.eval()


def psnr(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    return 10 * math.log10(255**2 / float(np.mean(np.square(a.astype(np.float64) - b))))


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--model", default="latens-psnr-1")
    parser.add_argument("--qualities", type=float, nargs="+", default=[30.0, 60.0, 85.0])
    arguments = parser.parse_args()
    codec, network = ImageCodec(arguments.model), load_float(arguments.weights)
    file_model: Any = codec.model
    model: PictureModel = file_model.model
    for quality in arguments.qualities:
        found = []
        for path in sorted(arguments.images.glob("*.png")):
            pixels = read_image(path).pixels
            container = ltn.read(codec.encode(read_image(path), quality))
            header, (tile,) = container.header, container.tiles  # one tile: up to 1024 pixels a side
            assert tile is not None
            width, height = ltn.coded_size(header.width, header.height)
            latents = model.decode(
                tile.stream, (height // 64, width // 64), header.quality, header.skip, header.lanes
            )
            y_hat = torch.from_numpy(latents.y_hat).permute(2, 0, 1)[None] / float(1 << LATENT_BITS)
            x_hat = network.synthesise(y_hat, torch.tensor([header.quality / QUALITY_MAX]))[0]
            x_hat = (x_hat.clamp(0, 1) * 255).round()[:, : header.height, : header.width]
            shown = codec.decode(container)[0].pixels
            found.append((psnr(x_hat.permute(1, 2, 0).numpy(), pixels), psnr(shown, pixels)))
        floats, integers = np.mean(found, axis=0)
        most = max(a - b for a, b in found)
        print(
            f"quality {quality:g}: {len(found)} images, float {floats:.4f} dB, integers {integers:.4f} dB,"
            f" {floats - integers:.4f} dB less, at most {most:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
