"""Video models."""

from latens.models.video.conditional import LatensVideo, LatensVideoConfig
from latens.models.video.google import ScaleSpaceFlow

__all__ = ["LatensVideo", "LatensVideoConfig", "ScaleSpaceFlow"]
