"""How long this process's threads were ready to run but had to wait for a processor: a timing disturbed so means little.

Linux only (``/proc/self/task/*/schedstat``); elsewhere every slice of time counts as quiet. Two threads that meet at a barrier
lose whole scheduler slices when another process wants a core, so on a shared machine most of a figure could be such waiting.
"""
from __future__ import annotations

import os
from collections.abc import Sequence

LIMIT = 0.03  # waiting, as a share of a slice's wall time, up to which the slice counts as quiet
SLICE = 0.04  # seconds

Slice = tuple[float, list[float]]  # share waited, step times in seconds


def waited() -> float:
    """Seconds all threads of this process have waited for a processor so far."""
    total = 0
    try:
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/schedstat") as f:
                total += int(f.read().split()[1])
    except (OSError, ValueError, IndexError):
        return total / 1e9
    return total / 1e9


def choose(slices: Sequence[Slice], least: int = 5) -> tuple[list[float], float]:
    """Times of the quiet slices and the largest share waited among them; when they hold fewer than ``least`` steps, of as
    many of the least disturbed ones as it takes."""
    times: list[float] = []
    worst = 0.0
    for share, steps in sorted(slices, key=lambda s: s[0]):
        if share > LIMIT and len(times) >= least:
            break
        times += steps
        worst = max(worst, share)
    return times, worst
