"""The memory plan: where intermediates live.

Algorithm: every intermediate is alive from the wave that writes it to the last wave that reads it (kernels of one wave
run at the same time, so waves, not kernels, are the clock). Buffers are placed from large to small at the lowest offset
where they overlap nothing alive at the same time (best fit over the gaps). :func:`check` derives the same again by
simulation, independently: no byte may be overwritten before its last read. ``GRAPHC_NO_MEMPLAN=1`` gives every buffer
memory of its own, for hunting bugs.
"""
from __future__ import annotations

from typing import NamedTuple

from .. import config
from ..errors import VerifyError

ALIGN = 64


class Life(NamedTuple):
    """An intermediate: its size in bytes, the wave that writes it, the last wave that reads it."""

    slot: int
    nbytes: int
    first: int
    last: int


def plan(lives: list[Life]) -> tuple[dict[int, int], int]:
    """(offset of each slot, bytes needed)."""
    placed: list[tuple[Life, int, int]] = []
    offsets: dict[int, int] = {}
    top = 0
    for life in sorted(lives, key=lambda x: (-x.nbytes, x.first)):
        size = max(ALIGN, -(-life.nbytes // ALIGN) * ALIGN)
        busy = sorted((at, at + n) for other, at, n in placed
                      if config.NO_MEMPLAN or not (other.last < life.first or life.last < other.first))
        at, best, gap = 0, None, 1 << 62
        for lo, hi in busy:
            if lo - at >= size and lo - at < gap:
                best, gap = at, lo - at
            at = max(at, hi)
        offset = at if best is None else best
        placed.append((life, offset, size))
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
