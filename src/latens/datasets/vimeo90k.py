"""The Vimeo-90K data set."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from latens.datasets.image import load_rgb
from latens.datasets.video import read_list
from latens.errors import DatasetError

__all__ = ["Vimeo90kDataset"]

_PREFIXES = {3: "tri", 7: "sep"}
_LISTS = {"train": "trainlist", "valid": "testlist"}


class Vimeo90kDataset(Dataset[Any]):
    """The frames of Vimeo-90K, each one an image of its own.

    .. code-block:: none

        root/
            tri_trainlist.txt, tri_testlist.txt (of septuplets: sep_...)
            sequences/00001/0001/im1.png ...

    An item is an RGB ``PIL.Image.Image``, or what ``transform`` makes of it.

    Xue, Chen, Wu, Wei, Freeman, "Video enhancement with task-oriented flow", IJCV 2019.

    Args:
        root: folder of the data set.
        transform: called with each frame.
        split: ``"train"`` or ``"valid"``.
        tuplet: frames per sequence, 3 or 7.

    Raises:
        DatasetError: another split or tuplet, or its list is missing; on access, a frame is missing or damaged.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        transform: Callable[[Image.Image], Any] | None = None,
        split: str = "train",
        tuplet: int = 3,
    ) -> None:
        if split not in _LISTS or tuplet not in _PREFIXES:
            raise DatasetError(
                f'expected split "train" or "valid" and tuplet 3 or 7, but got {split!r} and {tuplet!r}'
            )
        folders = read_list(Path(root) / f"{_PREFIXES[tuplet]}_{_LISTS[split]}.txt")
        self.samples = [
            f"{root}/sequences/{folder}/im{i}.png" for folder in folders for i in range(1, tuplet + 1)
        ]
        self.transform = transform

    def __getitem__(self, index: int) -> Any:
        image = load_rgb(self.samples[index])
        return image if self.transform is None else self.transform(image)

    def __len__(self) -> int:
        return len(self.samples)
