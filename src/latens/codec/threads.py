"""Several tiles at a time."""

from __future__ import annotations

from typing import Any

from latens import _native

__all__ = ["together"]


def together(work: Any, items: list[Any]) -> list[Any]:
    """Results of all items, several at a time: tiles know nothing of each other, and the core needs no interpreter."""
    threads = min(len(items), _native.threads())
    if threads < 2:
        return [work(item) for item in items]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))
