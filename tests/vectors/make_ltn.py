"""Makes tests/vectors/ltn: for each kind of model a tiny file, and the integers that decode it.

Once the format is stable the vectors are never made again: they prove that old files still decode. What is there is
kept; remove the files of a kind to make them anew.

Usage: python tests/vectors/make_ltn.py
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

import published
import tiny
from latens import format as ltn
from latens.codec import image as codec
from latens.convert import exact_entropy
from latens.convert.pictures import picture_model
from latens.convert.research import ResearchPictures
from latens.io import Image
from latens.models.latens_base import LatensBaseConfig
from latens.runtime.arrays import write_arrays
from latens.runtime.coding import FileModel
from latens.runtime.parts import IntegerTables
from latens.runtime.picture import INDEXES, PictureModel
from latens.zoo.weights import parse

FOLDER = Path(__file__).parent / "ltn"
TABLES = 44
WEIGHTS_ID = "00000000" + "0" * 56


def default() -> bytes:
    """The weights file of a tiny model of the default architecture."""
    config = LatensBaseConfig(
        N=8, M=16, inner=8, hyper=4, analysis_blocks=(1, 1), synthesis_blocks=(1, 1), knots=3
    )
    small = nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 32, 1), nn.ReLU(), nn.PixelShuffle(2),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 32, 1), nn.ReLU(), nn.PixelShuffle(2),
        nn.Conv2d(8, 16, 1),
    )  # fmt: skip
    made = picture_model(tiny.network(7, config, small)).model
    model = PictureModel(made.z_tables, narrow(made.y_tables), made.networks, made.factors, made.z_offset)
    about = {"format": "latens-weights-2", "family": "pictures", "name": "frozen-default"}
    return write_arrays(model.arrays(), about)


def narrow(tables: IntegerTables) -> IntegerTables:
    """The widest tables are most of a file, and a small picture does not need them: a narrow one stands in."""
    rows, offsets = tables.rows(0, TABLES), tables.offsets[:TABLES].tolist()
    rows += [rows[TABLES // 2]] * (INDEXES - TABLES)
    offsets += [offsets[TABLES // 2]] * (INDEXES - TABLES)
    sizes = np.array([len(row) for row in rows], np.int32)
    return IntegerTables(np.concatenate(rows), sizes, np.array(offsets, np.int32))


def make(kind: str) -> FileModel:
    """The model of a kind, and its integers in a file."""
    path = FOLDER / f"{kind}.safetensors"
    if kind == "default":
        path.write_bytes(default())
        model: FileModel = parse(path.read_bytes(), path.name)
        return model
    network = published.make(published.FAMILIES[kind]).requires_grad_(False)
    entropy = exact_entropy(network)
    save_file(entropy.tensors(), path)
    return ResearchPictures(f"frozen-{kind}", WEIGHTS_ID, network, entropy)


def expectation(model: FileModel, data: bytes) -> dict[str, Any]:
    """What is expected of a file."""
    container = ltn.read(data)
    header = container.header
    digest = hashlib.sha256()
    for tile, rect in zip(container.tiles, header.tiles(), strict=True):
        assert tile is not None
        assert ltn.coded_size(rect.width, rect.height) == (64, 64)
        found = model.anatomy(tile.stream, (64, 64), header.quality, header.skip, header.lanes)
        digest.update(found.z.astype("<i2").tobytes() + found.y.astype("<i2").tobytes())
    expected: dict[str, Any] = {"entropy_id": model.entropy_id, "symbols": digest.hexdigest()}
    if isinstance(model, ResearchPictures):
        expected |= {"knot": model.entropy.knot_at(header.quality), "z_shape": found.z.shape[1:]}
    else:
        image, _ = codec.ImageCodec(model).decode(container)
        expected |= {"pixels": hashlib.sha256(image.pixels.tobytes()).hexdigest()}
    return expected


def main() -> None:
    """Write for each kind its integers, a file, and what is expected of it."""
    FOLDER.mkdir(exist_ok=True)
    codec._TILE = 64
    picture = Image(
        tiny.picture(70, 150), alpha=tiny.picture(70, 150, 1)[..., 0], icc=b"profile", xmp=b"<x/>"
    )
    path = FOLDER / "expected.json"
    expected = json.loads(path.read_text()) if path.exists() else {}
    for kind in ("default", *published.FAMILIES):
        file = FOLDER / f"{kind}.ltn"
        if file.exists():
            continue
        model = make(kind)
        file.write_bytes(codec.ImageCodec(model).encode(picture, None if model.rates == 1 else 62.5))
        expected[kind] = expectation(model, file.read_bytes())
    path.write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
