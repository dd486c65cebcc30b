"""Freeze what the reference implementation (CompressAI 1.2.8) computes, for the tests to compare with.

Run by hand, with the reference installed: ``python tests/vectors/make_reference.py [CLASS ...]``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import compressai.models
import torch
from cases import CASES
from recipe import exercise, fill, image
from safetensors.torch import save_file


def main() -> None:
    torch.set_default_dtype(torch.float64)
    folder = Path(__file__).parent / "models"
    for name in sys.argv[1:] or CASES:
        torch.manual_seed(0)
        model = getattr(compressai.models, name)(**CASES[name])
        fill(model)
        tensors, facts = exercise(model, image(2, 64, 64))
        save_file(tensors, folder / f"{name}.safetensors", {"facts": json.dumps(facts)})


if __name__ == "__main__":
    main()
