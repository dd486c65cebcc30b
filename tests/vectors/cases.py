"""The models that are compared with the reference, each with the arguments of a small one."""

from __future__ import annotations

from typing import Any

CASES: dict[str, dict[str, Any]] = {
    "FactorizedPrior": {"N": 6, "M": 8},
    "FactorizedPriorReLU": {"N": 5, "M": 7},
    "ScaleHyperprior": {"N": 6, "M": 8},
    "MeanScaleHyperprior": {"N": 6, "M": 10},
}
