"""Freeze what the reference implementation (CompressAI 1.2.8) computes, for the tests to compare with.

Run by hand, with the reference installed: ``python tests/vectors/make_reference.py [CLASS ... | codecs | video]``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import compressai.entropy_models
import compressai.latent_codecs
import compressai.layers
import compressai.models
import compressai.models.vbr
import compressai.models.video
import torch
from cases import CASES, VARIANTS
from codec_cases import cases, exercise_codec
from recipe import exercise, fill, image
from safetensors.torch import save_file
from video_recipe import M, N, exercise_video, fill_video

FOLDER = Path(__file__).parent / "models"


def freeze_model(name: str) -> None:
    torch.manual_seed(0)
    classes = vars(compressai.models) | vars(compressai.models.vbr)
    cls, arguments, options = VARIANTS.get(name) or (name, CASES[name], {})
    model = classes[cls](**arguments)
    fill(model)
    tensors, facts = exercise(model, image(2, 64, 64), **options)
    save_file(tensors, FOLDER / f"{name}.safetensors", {"facts": json.dumps(facts)})


def freeze_codecs() -> None:
    parts = (compressai.entropy_models, compressai.latent_codecs, compressai.layers)
    lib = SimpleNamespace(**{k: v for part in parts for k, v in vars(part).items()})
    tensors, strings = {}, {}
    for name, (make, inputs, side) in cases().items():
        found: dict[str, Any] = exercise_codec(make(lib), inputs, side)
        strings[name] = found.pop("strings")
        tensors.update({f"{name}/{key}": value.clone().contiguous() for key, value in found.items()})
    save_file(tensors, FOLDER / "codecs.safetensors", {"strings": json.dumps(strings)})


def freeze_video() -> None:
    torch.manual_seed(0)
    model = compressai.models.video.ScaleSpaceFlow()
    # Its widths are fixed; these are the same networks, only narrow.
    for name, part in list(model.named_children()):
        kind: Any = type(part)
        if name.endswith("hyperprior"):
            narrow = kind(M, M)
        elif name.endswith("encoder"):
            narrow = kind(6 if name.startswith("motion") else 3, N, M)
        else:
            narrow = kind(3, 2 * M if name.startswith("res") else M, N)
        setattr(model, name, narrow)
    fill_video(model)
    warp_volume = model.warp_volume

    def warp_in_float64(*given: Any) -> Any:
        # The reference turns the grid into float32 whatever it is given.
        with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
            return warp_volume(*given)

    model.warp_volume = warp_in_float64
    tensors, facts = exercise_video(model)
    save_file(tensors, FOLDER / "ScaleSpaceFlow.safetensors", {"facts": json.dumps(facts)})


def main() -> None:
    torch.set_default_dtype(torch.float64)
    for name in sys.argv[1:] or [*CASES, *VARIANTS, "codecs", "video"]:
        if name == "codecs":
            freeze_codecs()
        elif name == "video":
            freeze_video()
        else:
            freeze_model(name)


if __name__ == "__main__":
    main()
