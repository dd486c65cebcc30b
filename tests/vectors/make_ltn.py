"""Makes tests/vectors/ltn: for each kind of model a tiny file, and the integers that decode it.

Once the format is stable the vectors are never made again: they prove that old files still decode.

Usage: python tests/vectors/make_ltn.py
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from safetensors.numpy import save_file
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

import published
import tiny
from latens import format as ltn
from latens.codec import image as codec
from latens.codec.models import FileModel
from latens.convert import exact_entropy, freeze
from latens.io import Image
from latens.models.latens_base import LatensBaseConfig
from latens.runtime import ExactEntropy, IntegerTables, Level, Thresholds
from latens.zoo import LoadedModel

FOLDER = Path(__file__).parent / "ltn"
TABLES = 44
WEIGHTS_ID = "00000000" + "0" * 56


def default() -> LoadedModel:
    """The default model's architecture."""
    config = LatensBaseConfig(
        N=16, M=32, inner=16, hyper=4, analysis_blocks=(1, 1), synthesis_blocks=(1, 1), knots=3
    )
    small = nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 32, 1), nn.ReLU(), nn.PixelShuffle(2),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 32, 1), nn.ReLU(), nn.PixelShuffle(2),
        nn.Conv2d(8, 32, 1),
    )  # fmt: skip
    network = tiny.network(7, config, small).eval().requires_grad_(False)
    entropy = freeze(network)
    # The widest tables are most of the file, and a small picture does not need them.
    level = Level((Thresholds(entropy.levels[0].thresholds[0].values[: TABLES - 1]),))
    sizes, offsets = entropy.y_tables.sizes[:TABLES], entropy.y_tables.offsets[:TABLES]
    y_tables = IntegerTables(entropy.y_tables.entries[: sizes.sum()], sizes, offsets)
    entropy = ExactEntropy(
        entropy.z_tables, entropy.medians, z_bits=0, y_tables=y_tables, hyper=entropy.hyper,
        groups=entropy.groups, levels=[level],
    )  # fmt: skip
    return LoadedModel("frozen-default", network, entropy, WEIGHTS_ID)


def models() -> Iterator[tuple[str, LoadedModel]]:
    """One tiny model of each kind."""
    yield "default", default()
    for kind, name in published.FAMILIES.items():
        network = published.make(name).requires_grad_(False)
        yield kind, LoadedModel(f"frozen-{kind}", network, exact_entropy(network), WEIGHTS_ID)


def main() -> None:
    """Write for each kind its entropy model, a file, and what is expected of it."""
    FOLDER.mkdir(exist_ok=True)
    codec._TILE = 64
    picture = Image(
        tiny.picture(70, 150), alpha=tiny.picture(70, 150, 1)[..., 0], icc=b"profile", xmp=b"<x/>"
    )
    expected = {}
    for kind, model in models():
        file_model = FileModel(model, fast=False)
        data = codec.ImageCodec(model).encode(picture, None if file_model.rates == 1 else 62.5)
        container = ltn.read(data)
        header, knot = container.header, file_model.knot(container.header.quality)
        digest = hashlib.sha256()
        for tile, rect in zip(container.tiles, header.tiles(), strict=True):
            assert tile is not None
            z_shape = (64 // file_model.hyper, 64 // file_model.hyper)
            assert ltn.coded_size(rect.width, rect.height) == (64, 64)
            z, y, *_ = model.entropy.decode(tile.stream, z_shape, knot, header.skip, header.lanes)
            digest.update(z.astype("<i2").tobytes() + y.astype("<i2").tobytes())
        save_file(model.entropy.tensors(), FOLDER / f"{kind}.safetensors")
        (FOLDER / f"{kind}.ltn").write_bytes(data)
        expected[kind] = {
            "entropy_id": model.entropy.entropy_id,
            "symbols": digest.hexdigest(),
            "knot": knot,
            "z_shape": z_shape,
        }
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
