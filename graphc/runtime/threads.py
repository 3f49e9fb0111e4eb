"""Thread count of the CPU back end (a documented process-wide setting)."""
from __future__ import annotations

import os
from collections.abc import Callable


class _Threads:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    listeners: list[Callable[[int], object]] = []


def set_num_threads(n: int) -> None:
    """Raises RuntimeError for a count below 1."""
    if not isinstance(n, int) or n < 1:
        raise RuntimeError("set_num_threads expects a positive integer")
    _Threads.count = n
    for listener in _Threads.listeners:
        listener(n)


def on_change(listener: Callable[[int], object]) -> None:
    """Call ``listener(n)`` after every later :func:`set_num_threads`."""
    _Threads.listeners.append(listener)


def get_num_threads() -> int:
    return _Threads.count
