"""Building blocks of transforms."""

from latens.layers.gdn import GDN, GDN1

__all__ = ["GDN", "GDN1"]
