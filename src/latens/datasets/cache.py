"""Items prepared once and kept on disk."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from torch.utils.data import Dataset

from latens.errors import DatasetError
from latens.io import atomic_write, printable

__all__ = ["CacheDataset"]

_MAX_INFO = 1 << 20


class CacheDataset(Dataset[Any]):
    """Base class of data sets whose items are expensive to prepare, and fixed in shape.

    A subclass says what the items are (:meth:`_get_items`) and how one is prepared (:meth:`_load_item`), and
    calls :meth:`_ensure_cache` when it is made. An item is a dictionary of arrays, or what ``transform`` makes of
    it. On disk there is a file of bare values per key, and ``info.json`` with their types and shapes, which
    is written last, so that an interrupted preparation starts anew.

    Args:
        cache_root: folder of the prepared items.
        pre_transform: called with each item before it is stored.
        transform: called with each item when it is asked for.

    Raises:
        DatasetError: no ``cache_root``.
    """

    def __init__(
        self,
        cache_root: str | os.PathLike[str] | None = None,
        pre_transform: Callable[[Any], Mapping[str, Any]] | None = None,
        transform: Callable[[dict[str, NDArray[Any]]], Any] | None = None,
    ) -> None:
        if cache_root is None:
            raise DatasetError("cache_root is needed: the folder to keep prepared items in")
        self._root = Path(cache_root)
        self.pre_transform = pre_transform
        self.transform = transform
        self._store: dict[str, NDArray[Any]] = {}

    def __len__(self) -> int:
        return len(next(iter(self._store.values()))) if self._store else 0

    def __getitem__(self, index: int) -> Any:
        data = {key: values[index].copy() for key, values in self._store.items()}
        return data if self.transform is None else self.transform(data)

    def _get_items(self) -> Sequence[Any]:
        """What to prepare, in order; each element is given to :meth:`_load_item`."""
        raise NotImplementedError

    def _load_item(self, item: Any) -> Mapping[str, Any]:
        """An item: arrays or tensors by name, of the same types and shapes for all items."""
        raise NotImplementedError

    def _ensure_cache(self) -> None:
        """Open the prepared items, preparing them first if they aren't.

        Raises:
            DatasetError: what is on disk is damaged, or items differ in names, types or shapes.
        """
        try:
            with (self._root / "info.json").open("rb") as file:
                text = file.read(_MAX_INFO + 1)
        except FileNotFoundError:
            self._generate_cache()
        except OSError as error:
            raise DatasetError(f"{printable(self._root)}: cannot be read ({error})") from error
        else:
            self._load_cache(text)

    def _load_cache(self, text: bytes) -> None:
        try:
            if len(text) > _MAX_INFO:
                raise ValueError(f"info.json is larger than {_MAX_INFO} bytes")
            info = json.loads(text)
            self._store = {key: self._map(key, **entry) for key, entry in info.items()}
            if not self._store or len({len(values) for values in self._store.values()}) > 1:
                raise ValueError("no items, or different numbers of them")
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DatasetError(
                f"{printable(self._root)}: damaged ({printable(str(error))}); delete this folder to prepare it anew"
            ) from error

    def _map(self, key: str, dtype: str, shape: Sequence[int]) -> NDArray[Any]:
        path, kind = self._path(key), np.dtype(dtype)
        # Values that are pointers must not come from a file.
        if kind.hasobject or kind.itemsize * math.prod(shape) != path.stat().st_size or min(shape) < 1:
            raise ValueError(f"{key}.npy does not hold {shape} values of type {kind}")
        return np.memmap(path, kind, "r", shape=tuple(shape))

    def _generate_cache(self, verbose: bool = True) -> None:
        items = self._get_items()
        if not items:
            raise DatasetError(f"{printable(self._root)}: there are no items to prepare")
        self._root.mkdir(parents=True, exist_ok=True)
        store: dict[str, NDArray[Any]] = {}
        for i, item in enumerate(track(items, f"Preparing {printable(self._root)}", disable=not verbose)):
            data = self._load_item(item)
            if self.pre_transform is not None:
                data = self.pre_transform(data)
            arrays = {key: np.asarray(value) for key, value in data.items()}
            if not store:
                store = {
                    key: np.memmap(self._path(key), value.dtype, "w+", shape=(len(items), *value.shape))
                    for key, value in arrays.items()
                }
            expected = {key: (values.dtype, values.shape[1:]) for key, values in store.items()}
            found = {key: (value.dtype, value.shape) for key, value in arrays.items()}
            if not expected or found != expected:
                raise DatasetError(f"item {i} has {found}, but the first one has {expected}")
            for key, value in arrays.items():
                store[key][i] = value
        for values in store.values():
            values.flush()  # type: ignore[attr-defined]
        info = {key: {"dtype": str(v.dtype), "shape": v.shape} for key, v in store.items()}
        text = json.dumps(info, indent=2).encode()
        atomic_write(self._root / "info.json", text, force=True)
        self._load_cache(text)

    def _path(self, key: str) -> Path:
        if not key.isidentifier():
            raise DatasetError(f"{key!r} cannot be a file name: expected letters, digits and underscores")
        return self._root / f"{key}.npy"
