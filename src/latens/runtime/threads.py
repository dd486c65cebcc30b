"""Threads of the integer networks."""

from __future__ import annotations

import os

from latens import _native

__all__ = ["crew", "set_threads", "threads"]

_chosen: int | None = None


def set_threads(count: int | None) -> None:
    """Use at most ``count`` threads from now on; None for as many as there are processors to run on."""
    global _chosen
    _chosen = count


def threads() -> int:
    """The number of threads that a :func:`crew` has."""
    if _chosen is not None:
        return _chosen
    # Not on all systems: which processors this process may run on.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def crew() -> _native.Crew:
    """Threads that wait for work as long as they exist: for one tile, say. One caller at a time."""
    return _native.Crew(threads())
