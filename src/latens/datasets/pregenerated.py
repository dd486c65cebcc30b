"""Patches in one big array on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from latens.errors import DatasetError
from latens.io import printable

__all__ = ["PreGeneratedMemmapDataset"]

_FILES = {"train": "training.npy", "valid": "validation.npy"}


class PreGeneratedMemmapDataset(Dataset[Any]):
    """Image patches cut and shuffled beforehand, ``(n, height, width, 3)`` uint8, read straight from the disk.

    The files ``training.npy`` and ``validation.npy`` hold the bare values, without a header
    (``array.tofile(path)``).

    An item is an RGB ``PIL.Image.Image``, or what ``transform`` makes of it.

    Args:
        root: folder of the two files.
        transform: called with each patch.
        split: ``"train"`` or ``"valid"``.
        image_size: (height, width) of the patches, or one number for both.

    Raises:
        DatasetError: another split, no such file, or one that is not a whole number of patches.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        transform: Callable[[Image.Image], Any] | None = None,
        split: str = "train",
        image_size: int | tuple[int, int] = (256, 256),
    ) -> None:
        if split not in _FILES:
            raise DatasetError(f'expected split "train" or "valid", but got {split!r}')
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        if height < 1 or width < 1:
            raise DatasetError(f"expected an image_size of at least 1, but got {image_size}")
        path = Path(root) / _FILES[split]
        try:
            data = np.memmap(path, np.uint8, "r")
        except (OSError, ValueError) as error:
            raise DatasetError(f"{printable(path)}: cannot be read ({error})") from error
        if bytes(data[:6]) == b"\x93NUMPY":
            raise DatasetError(
                f"{printable(path)}: has a NumPy header; expected bare values, which array.tofile writes"
            )
        if data.size % (height * width * 3):
            raise DatasetError(
                f"{printable(path)}: {data.size} bytes are not a whole number of patches {height}x{width}x3"
            )
        self.split = split
        self.transform = transform
        self.data = data.reshape(-1, height, width, 3)

    def __getitem__(self, index: int) -> Any:
        image = Image.fromarray(self.data[index])
        return image if self.transform is None else self.transform(image)

    def __len__(self) -> int:
        return len(self.data)
