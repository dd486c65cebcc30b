"""Video models."""

from latens.models.video.conditional import LatensVideo, LatensVideoConfig
from latens.models.video.dcvc import DCVCRT, DCVCRTIntra
from latens.models.video.google import ScaleSpaceFlow

__all__ = ["DCVCRT", "DCVCRTIntra", "LatensVideo", "LatensVideoConfig", "ScaleSpaceFlow"]
