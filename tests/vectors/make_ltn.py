"""Makes tests/vectors/ltn: a tiny file and the integers that decode it. Run once; the result is never made again.

Usage: python tests/vectors/make_ltn.py
"""

import hashlib
import json
import sys
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny
from latens import format as ltn
from latens.codec import image as codec
from latens.io import Image
from latens.models.latens_base import LatensBaseConfig, freeze
from latens.zoo import LoadedModel

FOLDER = Path(__file__).parent / "ltn"


def main() -> None:
    """Write entropy.safetensors, picture.ltn and expected.json."""
    config = LatensBaseConfig(
        N=16, M=32, inner=16, hyper=8, analysis_blocks=(1, 1), synthesis_blocks=(1, 1), knots=3
    )
    small = nn.Sequential(
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 64, 1), nn.ReLU(), nn.PixelShuffle(2),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 64, 1), nn.ReLU(), nn.PixelShuffle(2),
        nn.Conv2d(16, 32, 1),
    )  # fmt: skip
    network = tiny.network(7, config, small).eval().requires_grad_(False)
    model = LoadedModel("frozen-1", network, freeze(network), "00000000" + "0" * 56)
    codec._TILE = 64
    picture = Image(
        tiny.picture(70, 150), alpha=tiny.picture(70, 150, 1)[..., 0], icc=b"profile", xmp=b"<x/>"
    )
    data = codec.ImageCodec(model).encode(picture, 62.5)
    container = ltn.read(data)
    digest = hashlib.sha256()
    for tile, rect in zip(container.tiles, container.header.tiles(), strict=True):
        assert tile is not None
        width, height = ltn.coded_size(rect.width, rect.height)
        z, y, *_ = model.entropy.decode(
            tile.stream, (height // 64, width // 64), 1, container.header.skip, container.header.lanes
        )
        digest.update(z.astype("<i2").tobytes() + y.astype("<i2").tobytes())
    FOLDER.mkdir(exist_ok=True)
    save_file(model.entropy.tensors(), FOLDER / "entropy.safetensors")
    (FOLDER / "picture.ltn").write_bytes(data)
    expected = {"entropy_id": model.entropy.entropy_id, "symbols": digest.hexdigest(), "knot": 1}
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
