"""How latents are ordered, conditioned, quantised and coded."""

from latens import _research  # noqa: F401  (tells who lacks PyTorch)
from latens.latent_codecs.base import LatentCodec
from latens.latent_codecs.channel_groups import ChannelGroupsLatentCodec
from latens.latent_codecs.checkerboard import CheckerboardLatentCodec
from latens.latent_codecs.hyperprior import GainHyperpriorLatentCodec, HyperpriorLatentCodec
from latens.latent_codecs.leaves import (
    EntropyBottleneckLatentCodec,
    GainHyperLatentCodec,
    GaussianConditionalLatentCodec,
    HyperLatentCodec,
)
from latens.latent_codecs.rasterscan import RasterScanLatentCodec

__all__ = [
    "ChannelGroupsLatentCodec",
    "CheckerboardLatentCodec",
    "EntropyBottleneckLatentCodec",
    "GainHyperLatentCodec",
    "GainHyperpriorLatentCodec",
    "GaussianConditionalLatentCodec",
    "HyperLatentCodec",
    "HyperpriorLatentCodec",
    "LatentCodec",
    "RasterScanLatentCodec",
]
