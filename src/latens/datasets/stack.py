"""Several data sets side by side."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset

from latens.errors import DatasetError

__all__ = ["StackDataset"]


class StackDataset(Dataset[Any]):
    """Data sets of one length, indexed together.

    An item is a tuple of their items, or a dictionary of them if they were given by name:

    >>> StackDataset([1, 2], ["a", "b"])[1]
    (2, 'b')
    >>> StackDataset(number=[1, 2], letter=["a", "b"])[1]
    {'number': 2, 'letter': 'b'}

    Args:
        args: data sets, or
        kwargs: data sets by name.

    Raises:
        DatasetError: both kinds or none, or different lengths.
    """

    datasets: tuple[Any, ...] | dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if bool(args) == bool(kwargs):
            raise DatasetError("expected data sets either without or with names, not both, and at least one")
        lengths = [len(dataset) for dataset in (args or kwargs.values())]
        if len(set(lengths)) > 1:
            raise DatasetError(f"expected data sets of one length, but they have {lengths}")
        self.datasets = args or kwargs
        self._length = lengths[0]

    def __getitem__(self, index: int) -> Any:
        if isinstance(self.datasets, dict):
            return {name: dataset[index] for name, dataset in self.datasets.items()}
        return tuple(dataset[index] for dataset in self.datasets)

    def __len__(self) -> int:
        return self._length
