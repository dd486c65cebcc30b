"""How ``.ltn`` files code latents: tables chosen by integers only, all symbols of a tile in one stream."""

from latens.latent_codecs.exact.entropy import LATENT_BITS, QUALITY_MAX, ExactEntropy
from latens.latent_codecs.exact.parts import Decoded, Group, IntegerTables, Level, Pass

__all__ = ["LATENT_BITS", "QUALITY_MAX", "Decoded", "ExactEntropy", "Group", "IntegerTables", "Level", "Pass"]
