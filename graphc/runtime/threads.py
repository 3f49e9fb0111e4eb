"""Thread count of the CPU back end (a documented process-wide setting)."""
from __future__ import annotations

import os


class _Threads:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_num_threads(n: int) -> None:
    """Raises RuntimeError for a count below 1."""
    if not isinstance(n, int) or n < 1:
        raise RuntimeError("set_num_threads expects a positive integer")
    _Threads.count = n


def get_num_threads() -> int:
    return _Threads.count
