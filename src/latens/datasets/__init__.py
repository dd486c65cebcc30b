"""Data sets to train and evaluate with, for :class:`torch.utils.data.DataLoader`.

A ``transform`` is any callable; torchvision's fit, and are not needed.
"""

from latens import _research  # noqa: F401  (tells who lacks PyTorch)
from latens.datasets.cache import CacheDataset
from latens.datasets.image import ImageFolder
from latens.datasets.ndarray import NdArrayDataset
from latens.datasets.pregenerated import PreGeneratedMemmapDataset
from latens.datasets.rawvideo import (
    RawVideoSequence,
    VideoFormat,
    get_raw_video_file_info,
    video_formats,
)
from latens.datasets.stack import StackDataset
from latens.datasets.video import VideoFolder
from latens.datasets.vimeo90k import Vimeo90kDataset

__all__ = [
    "CacheDataset",
    "ImageFolder",
    "NdArrayDataset",
    "PreGeneratedMemmapDataset",
    "RawVideoSequence",
    "StackDataset",
    "VideoFolder",
    "VideoFormat",
    "Vimeo90kDataset",
    "get_raw_video_file_info",
    "video_formats",
]
