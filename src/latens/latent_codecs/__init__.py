"""How latents are ordered, conditioned, quantised and coded."""

from latens.latent_codecs.exact import ExactHyperprior, IntegerTables

__all__ = ["ExactHyperprior", "IntegerTables"]
