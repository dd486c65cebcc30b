"""Arrays as a data set."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from torch.utils.data import Dataset

from latens.errors import DatasetError

__all__ = ["NdArrayDataset"]


class NdArrayDataset(Dataset[Any]):
    """Arrays indexed along their first dimension.

    An item is a tuple with one element of each array; with ``single``, the element itself.

    Args:
        arrays: at least one, all with the same first dimension.
        single: there is one array, and items are to be no tuples.

    Raises:
        DatasetError: no array, several with ``single``, or different lengths.
    """

    def __init__(self, *arrays: NDArray[Any], single: bool = False) -> None:
        if not arrays or (single and len(arrays) > 1):
            raise DatasetError(
                f"expected {'one array' if single else 'at least one array'}, but got {len(arrays)}"
            )
        lengths = [len(array) for array in arrays]
        if len(set(lengths)) > 1:
            raise DatasetError(f"expected arrays of one length, but they have {lengths}")
        self.arrays = arrays
        self.single = single

    def __getitem__(self, index: int) -> Any:
        if self.single:
            return self.arrays[0][index]
        return tuple(array[index] for array in self.arrays)

    def __len__(self) -> int:
        return len(self.arrays[0])
