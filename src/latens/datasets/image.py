"""Images in a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from latens.errors import DatasetError
from latens.io import printable

__all__ = ["ImageFolder", "load_rgb"]


def load_rgb(path: str | os.PathLike[str]) -> Image.Image:
    """The image in a file, 8-bit RGB.

    Raises:
        DatasetError: there is no such file, or it is not an image.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(
            f"{printable(path)}: cannot be read as an image ({printable(str(error))})"
        ) from error


class ImageFolder(Dataset[Any]):
    """The images of one folder, in the order of their names.

    .. code-block:: none

        root/
            train/img000.png ...
            test/img000.png ...

    An item is an RGB ``PIL.Image.Image``, or what ``transform`` makes of it.

    Args:
        root: folder of the data set.
        transform: called with each image.
        split: name of the folder below ``root``.

    Raises:
        DatasetError: there is no such folder; on access, a file that is not an image.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        transform: Callable[[Image.Image], Any] | None = None,
        split: str = "train",
    ) -> None:
        folder = Path(root) / split
        if not folder.is_dir():
            raise DatasetError(f"{printable(folder)}: no such folder; images are expected there")
        self.samples = sorted(path for path in folder.iterdir() if path.is_file())
        self.transform = transform

    def __getitem__(self, index: int) -> Any:
        image = load_rgb(self.samples[index])
        return image if self.transform is None else self.transform(image)

    def __len__(self) -> int:
        return len(self.samples)
