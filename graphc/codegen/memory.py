"""The memory plan: where intermediates live.

Algorithm: every intermediate is alive from the wave that writes it to the last wave that reads it (kernels of one wave
run at the same time, so waves, not kernels, are the clock). Buffers are placed from large to small at the lowest offset
where they overlap nothing alive at the same time (best fit over the gaps). :func:`check` derives the same again by
simulation, independently: no byte may be overwritten before its last read. ``GRAPHC_NO_MEMPLAN=1`` gives every buffer
memory of its own, for hunting bugs.
"""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .. import config
from ..errors import VerifyError

ALIGN = 64
_NONE = 1 << 62  # larger than any gap


class Life(NamedTuple):
    """An intermediate: its size in bytes, the wave that writes it, the last wave that reads it."""

    slot: int
    nbytes: int
    first: int
    last: int


def plan(lives: list[Life]) -> tuple[dict[int, int], int]:
    """(offset of each slot, bytes needed)."""
    offsets: dict[int, int] = {}
    top = 0
    first, last, start, end = np.zeros((4, len(lives)), np.int64)  # of what is placed, in columns: plans may be long
    for k, life in enumerate(sorted(lives, key=lambda x: (-x.nbytes, x.first))):
        size = max(ALIGN, -(-life.nbytes // ALIGN) * ALIGN)
        alive = np.flatnonzero((first[:k] <= life.last) & (last[:k] >= life.first)) if not config.NO_MEMPLAN else np.arange(k)
        offset = 0
        if len(alive):
            alive = alive[np.argsort(start[alive], kind="stable")]
            below = np.maximum.accumulate(end[alive])  # the end of all that starts no later
            gaps = start[alive] - np.concatenate(([0], below[:-1]))
            gaps[gaps < size] = _NONE
            best = int(gaps.argmin())
            offset = int(below[-1]) if gaps[best] == _NONE else int(below[best - 1]) if best else 0
        first[k], last[k], start[k], end[k] = life.first, life.last, offset, offset + size
        offsets[life.slot] = offset
        top = max(top, offset + size)
    return offsets, top


def check(lives: list[Life], offsets: dict[int, int]) -> None:
    """Raise VerifyError if two intermediates share a byte while both are alive, by simulating wave after wave."""
    owner: dict[int, int] = {}  # 64-byte line -> slot that wrote it last
    by_wave: dict[int, list[Life]] = {}
    for life in lives:
        by_wave.setdefault(life.first, []).append(life)
    ends: dict[int, list[Life]] = {}
    for life in lives:
        ends.setdefault(life.last, []).append(life)
    for wave in sorted({*by_wave, *ends}):
        for life in by_wave.get(wave, ()):
            for line in range(offsets[life.slot] // ALIGN, (offsets[life.slot] + life.nbytes + ALIGN - 1) // ALIGN):
                owner[line] = life.slot
        for life in (x for x in lives if x.first <= wave <= x.last):
            for line in range(offsets[life.slot] // ALIGN, (offsets[life.slot] + life.nbytes + ALIGN - 1) // ALIGN):
                if owner[line] != life.slot:
                    raise VerifyError(f"memory plan: slot {life.slot} is overwritten by slot {owner[line]} before wave {wave}")
