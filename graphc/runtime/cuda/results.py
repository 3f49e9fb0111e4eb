"""Memory for a plan's results that stays where it was: launches are captured with their addresses.

A plan that runs often gets for each result the memory of an earlier call whose result nobody holds any more. Small results
that somebody does keep (losses in a list) are copied out of one place. What is held in reserve is given up when memory runs
out and by ``torch.cuda.empty_cache``.
"""
from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from typing import Any

from . import buffer as buffers
from .buffer import DeviceBuffer
from .device import Device, Stream

OFTEN = 3  # calls after which a plan's addresses matter
KEPT = 2  # places per result: a new gradient is made while the old one still is there
SMALL = 64 << 10  # bytes; results up to this size are copied out rather than moved


def _idle(places: list[DeviceBuffer], stream: Stream, alone: int) -> DeviceBuffer | None:
    """The first place that nobody else holds or works with."""
    for b in places:
        if sys.getrefcount(b) == alone and b.is_sole() and b.stream is stream:
            return b
    return None


def _alone() -> int:
    """The reference count :func:`_idle` sees of what only its list holds (it differs between Python versions)."""
    for b in [DeviceBuffer(0, 0, None, None)]:  # type: ignore[arg-type]
        return sys.getrefcount(b)
    return 0


_ALONE = _alone()


class Results:
    """``wanted``: per result the number of the input whose memory it takes if that is free (-1: none), and its bytes."""

    def __init__(self, owner: Device, wanted: Sequence[tuple[int, int]], tag: str):
        self.owner, self.wanted, self.tag, self.calls = owner, wanted, tag, 0
        self.places: list[list[DeviceBuffer]] = [[] for _ in wanted]
        self.staged: dict[int, DeviceBuffer] = {}
        self.copies: list[tuple[DeviceBuffer, DeviceBuffer]] = []

    def take(self, values: Sequence[Any], free: Collection[int], stream: Stream) -> list[DeviceBuffer]:
        """Memory for one call, in order of the results."""
        self.calls += 1
        self.copies = []
        if self.calls <= OFTEN:
            return [values[k] if k in free else buffers.empty(n, stream=stream, tag=self.tag) for k, n in self.wanted]
        if self.calls == OFTEN + 1:
            self.owner.reserves.add(self)
        return [values[k] if k in free else self.place(i, n, stream) if k < 0 else
                buffers.empty(n, stream=stream, tag=self.tag) for i, (k, n) in enumerate(self.wanted)]

    def place(self, i: int, nbytes: int, stream: Stream) -> DeviceBuffer:
        """Memory for a result that never takes an input's. (What is held here cannot be given away by whoever gets it.)"""
        places = self.places[i]
        found = _idle(places, stream, _ALONE)
        if found is not None:
            return found
        made = buffers.empty(nbytes, stream=stream, tag=self.tag)
        if len(places) < KEPT:
            places.append(made)
        elif nbytes <= SMALL:
            if i not in self.staged or self.staged[i].stream is not stream:
                self.staged[i] = buffers.empty(nbytes, stream=stream, tag=self.tag)
            self.copies.append((made, self.staged[i]))
            return self.staged[i]
        else:
            places[:] = [*places[1:], made]
        return made

    def copied_out(self, memory: list[Any], stream: Stream) -> list[Any]:
        """``memory`` with small results where they stay, after the launches."""
        if self.copies:
            moved = {id(stage): made for made, stage in self.copies}
            for made, stage in self.copies:
                buffers.copy(made, stage, stream)
            memory = [moved.get(id(b), b) for b in memory]
            self.copies = []
        return memory

    def give_up(self) -> bool:
        """Hold nothing in reserve; whether anything was."""
        held = any(self.places) or bool(self.staged)
        self.places = [[] for _ in self.wanted]
        self.staged = {}
        return held
