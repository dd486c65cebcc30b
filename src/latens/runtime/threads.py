"""Threads of the native core: one set for the whole process, asleep while there is nothing to do."""

from __future__ import annotations

from latens import _native

__all__ = ["set_threads", "threads"]


def set_threads(count: int | None) -> None:
    """Use at most ``count`` threads from now on, 64 at most.

    None for as many as the environment's LATENS_THREADS says or, without it, as there are processors that this process
    may use: by its affinity, and by the quota of its container.
    """
    _native.set_threads(count or 0)


def threads() -> int:
    """How many threads may work at a time, that of the caller among them."""
    return _native.threads()
