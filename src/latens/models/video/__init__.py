"""Video models."""

from latens.models.video.google import ScaleSpaceFlow

__all__ = ["ScaleSpaceFlow"]
