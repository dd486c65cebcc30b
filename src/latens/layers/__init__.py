"""Building blocks of transforms."""

from latens import _research  # noqa: F401  (tells who lacks PyTorch)
from latens.layers.basic import (
    Gain,
    Interleave,
    Lambda,
    NamedLayer,
    Reshape,
    Transpose,
    sequential_channel_ramp,
)
from latens.layers.gdn import GDN, GDN1
from latens.layers.masked import CheckerboardMaskedConv2d, MaskedConv2d
from latens.layers.qrelu import QReLU
from latens.layers.residual import (
    AttentionBlock,
    ResidualBlock,
    ResidualBlockUpsample,
    ResidualBlockWithStride,
    conv1x1,
    conv3x3,
    subpel_conv3x3,
)
from latens.layers.spectral import SpectralConv2d, SpectralConvTranspose2d

__all__ = [
    "GDN",
    "GDN1",
    "AttentionBlock",
    "CheckerboardMaskedConv2d",
    "Gain",
    "Interleave",
    "Lambda",
    "MaskedConv2d",
    "NamedLayer",
    "QReLU",
    "Reshape",
    "ResidualBlock",
    "ResidualBlockUpsample",
    "ResidualBlockWithStride",
    "SpectralConv2d",
    "SpectralConvTranspose2d",
    "Transpose",
    "conv1x1",
    "conv3x3",
    "sequential_channel_ramp",
    "subpel_conv3x3",
]
