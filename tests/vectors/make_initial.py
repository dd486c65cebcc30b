"""Makes ``initial_weights.json`` with CompressAI 1.2.8: what a seed gives, as the first value of each parameter."""

import json
import sys
from pathlib import Path

import torch

SEED = 11
SIZES = {
    "FactorizedPrior": (8, 12),
    "FactorizedPriorReLU": (8, 12),
    "ScaleHyperprior": (8, 12),
    "MeanScaleHyperprior": (8, 12),
    "JointAutoregressiveHierarchicalPriors": (8, 12),
    "ScaleHyperpriorVbr": (8, 12),
    "MeanScaleHyperpriorVbr": (8, 12),
    "JointAutoregressiveHierarchicalPriorsVbr": (8, 12),
    "Cheng2020Anchor": (8,),
    "Cheng2020Attention": (8,),
    "Cheng2020AnchorCheckerboard": (8,),
    "Elic2022Official": (8, 144),
    "Elic2022Chandelier": (8, 144),
    "ScaleSpaceFlow": (),
}


def first_values(model_class, sizes):
    """By name of the parameter; and what comes next from the generator."""
    torch.manual_seed(SEED)
    model = model_class(*sizes)
    found = {name: round(p.flatten()[0].item(), 6) for name, p in model.named_parameters()}
    return {**found, "": round(torch.rand(1).item(), 6)}


def main():
    from compressai import models
    from compressai.models import vbr, video

    found = {}
    for name, sizes in SIZES.items():
        (module,) = [m for m in (models, vbr, video) if hasattr(m, name)][:1]
        found[name] = first_values(getattr(module, name), sizes)
    Path(sys.argv[1]).write_text(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
