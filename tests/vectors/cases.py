"""The models that are compared with the reference, each with the arguments of a small one."""

from __future__ import annotations

from typing import Any

CASES: dict[str, dict[str, Any]] = {
    "FactorizedPrior": {"N": 6, "M": 8},
    "FactorizedPriorReLU": {"N": 5, "M": 7},
    "ScaleHyperprior": {"N": 6, "M": 8},
    "MeanScaleHyperprior": {"N": 6, "M": 10},
    "JointAutoregressiveHierarchicalPriors": {"N": 4, "M": 6},
    "Cheng2020Anchor": {"N": 4},
    "Cheng2020Attention": {"N": 4},
    "Cheng2020AnchorCheckerboard": {"N": 4},
    "ScaleHyperpriorVbr": {"N": 6, "M": 8},
    "MeanScaleHyperpriorVbr": {"N": 6, "M": 10},
    "JointAutoregressiveHierarchicalPriorsVbr": {"N": 4, "M": 6},
    "Elic2022Official": {"N": 4, "M": 12, "groups": [2, 3, 3, 4]},
    "Elic2022Chandelier": {"N": 4, "M": 12, "groups": [2, 3, 3, 4]},
}

VARIANTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ScaleHyperpriorVbr-6": ("ScaleHyperpriorVbr", {"N": 4, "M": 6}, {"s": 6}),
    "ScaleHyperpriorVbr-fixed": ("ScaleHyperpriorVbr", {"N": 4, "M": 6}, {"stage": 1}),
    "ScaleHyperpriorVbr-z": ("ScaleHyperpriorVbr", {"N": 4, "M": 6, "vr_entbttlnck": True}, {"s": 4}),
    "MeanScaleHyperpriorVbr-z": ("MeanScaleHyperpriorVbr", {"N": 4, "M": 6, "vr_entbttlnck": True}, {"s": 6}),
    "MeanScaleHyperpriorVbr-fixed": ("MeanScaleHyperpriorVbr", {"N": 4, "M": 6}, {"stage": 1}),
    "JointAutoregressiveHierarchicalPriorsVbr-6": (
        "JointAutoregressiveHierarchicalPriorsVbr",
        {"N": 4, "M": 6},
        {"s": 6},
    ),
    "JointAutoregressiveHierarchicalPriorsVbr-fixed": (
        "JointAutoregressiveHierarchicalPriorsVbr",
        {"N": 4, "M": 6},
        {"stage": 1},
    ),
}
"""More of the models of variable rate: class, its arguments, and options of its methods."""

OWN: dict[str, dict[str, Any]] = {"Cheng2020GMM": {"N": 4, "K": 2}}
"""Models that the reference does not have."""
