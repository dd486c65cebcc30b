"""Use a checkpoint that was trained with CompressAI.

python examples/load_compressai_checkpoint.py mbt2018-mean-3.pth.tar MeanScaleHyperprior photo.png

Weights of the published zoo need no file: ``latens.zoo.mbt2018_mean(quality=3, pretrained=True)``.
"""

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from latens import models
from latens.metrics import psnr
from latens.ops import compute_padding
from latens.zoo.pretrained import load_pretrained, read_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="file of torch.save or safetensors; code in it is never run")
    parser.add_argument(
        "architecture", choices=[n for n in models.__all__ if hasattr(getattr(models, n), "forward")]
    )
    parser.add_argument("image")
    options = parser.parse_args()

    # Names of old releases are translated; sizes are read from the weights.
    state_dict = load_pretrained(read_checkpoint(options.checkpoint))
    model = getattr(models, options.architecture).from_state_dict(state_dict).eval()
    print(f"{options.architecture}: {sum(p.numel() for p in model.parameters()):,} parameters")

    pixels = np.array(Image.open(options.image).convert("RGB"))
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    pad, unpad = compute_padding(*x.shape[2:], min_div=64)
    coded = model.compress(F.pad(x, pad))
    x_hat = F.pad(model.decompress(coded["strings"], coded["shape"])["x_hat"], unpad)
    size = sum(len(string) for part in coded["strings"] for string in part)
    print(
        f"{size} bytes, {8 * size / (x.shape[2] * x.shape[3]):.3f} bits per pixel, {psnr(x, x_hat).item():.2f} dB"
    )


if __name__ == "__main__":
    main()
