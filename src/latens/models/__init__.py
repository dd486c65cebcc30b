"""Compression models, one file per family."""

from latens import _research  # noqa: F401  (tells who lacks PyTorch)
from latens.layers import conv3x3
from latens.models.base import (
    SCALES_LEVELS,
    SCALES_MAX,
    SCALES_MIN,
    CompressionModel,
    SimpleVAECompressionModel,
    get_scale_table,
)
from latens.models.cca import CCA
from latens.models.dcae import DCAE
from latens.models.google import (
    FactorizedPrior,
    FactorizedPriorReLU,
    JointAutoregressiveHierarchicalPriors,
    MeanScaleHyperprior,
    ScaleHyperprior,
)
from latens.models.hpcm import HPCM, HPCMLarge
from latens.models.lalic import LALIC
from latens.models.mlic import MLICPlusPlus
from latens.models.sensetime import Cheng2020AnchorCheckerboard, Elic2022Chandelier, Elic2022Official
from latens.models.stf import WACNN, SymmetricalTransFormer
from latens.models.tcm import TCM
from latens.models.vbr import (
    JointAutoregressiveHierarchicalPriorsVbr,
    MeanScaleHyperpriorVbr,
    ScaleHyperpriorVbr,
)
from latens.models.video import ScaleSpaceFlow
from latens.models.waseda import Cheng2020Anchor, Cheng2020Attention, Cheng2020GMM

__all__ = [
    "CCA",
    "DCAE",
    "HPCM",
    "LALIC",
    "SCALES_LEVELS",
    "SCALES_MAX",
    "SCALES_MIN",
    "TCM",
    "WACNN",
    "Cheng2020Anchor",
    "Cheng2020AnchorCheckerboard",
    "Cheng2020Attention",
    "Cheng2020GMM",
    "CompressionModel",
    "Elic2022Chandelier",
    "Elic2022Official",
    "FactorizedPrior",
    "FactorizedPriorReLU",
    "HPCMLarge",
    "JointAutoregressiveHierarchicalPriors",
    "JointAutoregressiveHierarchicalPriorsVbr",
    "MLICPlusPlus",
    "MeanScaleHyperprior",
    "MeanScaleHyperpriorVbr",
    "ScaleHyperprior",
    "ScaleHyperpriorVbr",
    "ScaleSpaceFlow",
    "SimpleVAECompressionModel",
    "SymmetricalTransFormer",
    "conv3x3",
    "get_scale_table",
]
