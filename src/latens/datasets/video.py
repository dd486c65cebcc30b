"""Clips of video frames."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from latens.datasets.image import load_rgb
from latens.errors import DatasetError
from latens.io import printable

__all__ = ["VideoFolder", "read_list"]


def read_list(path: Path) -> list[str]:
    """The lines of a text file that are not blank.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{printable(path)}: this list of folders cannot be read ({error})") from error
    return [line.strip() for line in lines if line.strip()]


class VideoFolder(Dataset[tuple[Tensor, ...]]):
    """Three frames from each clip.

    .. code-block:: none

        root/
            train.list, test.list: a folder name per line
            sequences/00010/0932/*.png ...

    An item is a tuple of three tensors ``(3, height, width)``. The transform gets all three frames in one array
    ``(height, width, 9)``, uint8, so that a random crop is the same for all, and makes a tensor
    ``(9, height, width)`` of it.

    Args:
        root: folder of the data set.
        rnd_interval: take frames at a random distance, as far as the clip is long enough, from the first one
            on; otherwise the first three.
        rnd_temp_order: reverse every other item's time, at random.
        transform: needed.
        split: name of the list.

    Raises:
        DatasetError: no transform, no list or no folder ``sequences``; on access, a clip that is missing, too
            short, or of frames of different sizes.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        rnd_interval: bool = False,
        rnd_temp_order: bool = False,
        transform: Callable[[NDArray[np.uint8]], Tensor] | None = None,
        split: str = "train",
    ) -> None:
        if transform is None:
            raise DatasetError("a transform is needed that makes tensors (9, H, W) of arrays (H, W, 9)")
        folder = Path(root) / "sequences"
        if not folder.is_dir():
            raise DatasetError(f"{printable(folder)}: no such folder; the clips are expected there")
        self.sample_folders = [folder / line for line in read_list(Path(root) / f"{split}.list")]
        self.max_frames = 3
        self.rnd_interval = rnd_interval
        self.rnd_temp_order = rnd_temp_order
        self.transform = transform

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        folder = self.sample_folders[index]
        try:
            paths = sorted(path for path in folder.iterdir() if path.is_file())
        except OSError as error:
            raise DatasetError(f"{printable(folder)}: this clip cannot be read ({error})") from error
        count = self.max_frames
        if len(paths) < count:
            raise DatasetError(f"{printable(folder)}: expected at least {count} frames, but got {len(paths)}")
        interval = 1
        if self.rnd_interval:
            interval = random.randint(1, min((len(paths) + 2) // count, (len(paths) - 1) // (count - 1)))
        frames = [np.asarray(load_rgb(path)) for path in paths[::interval][:count]]
        if len({frame.shape for frame in frames}) > 1:
            raise DatasetError(f"{printable(folder)}: its frames are not all of one size")
        stacked = self.transform(np.concatenate(frames, axis=-1))
        if not isinstance(stacked, Tensor) or stacked.ndim != 3 or stacked.shape[0] != 3 * count:
            got = tuple(stacked.shape) if hasattr(stacked, "shape") else ""
            raise DatasetError(
                f"the transform must make a tensor ({3 * count}, H, W), not {type(stacked).__name__} {got}"
            )
        clip = torch.chunk(stacked, count)
        if self.rnd_temp_order and random.random() < 0.5:
            return clip[::-1]
        return clip

    def __len__(self) -> int:
        return len(self.sample_folders)
