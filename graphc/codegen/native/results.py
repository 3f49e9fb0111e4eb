"""Memory for the results of a plan: a donor's where it may be overwritten, else new. A plan that runs often keeps its small
results at hand, two of each, and hands out again what nobody else holds any more: a step's gradients are forgotten before the
next ones are made, and a reference count is read in less time than memory is allocated and freed.
"""
from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from ...ir.picking import picker
from ...runtime import memory

OFTEN = 16  # runs; programs that run a few times should not hold on to memory
SMALL = 1 << 18  # bytes of all results that may be kept
_count = sys.getrefcount


class Results:
    """What results are made of. ``made``: for each, the number of the binding it may overwrite (the first ones) or -1, and what
    allocates its memory; ``nbytes``: of those without a donor, together."""

    def __init__(self, made: list[tuple[int, Callable[[], np.ndarray]]], nbytes: int):
        self.made = made
        self.donors = [donor for donor, _ in made if donor >= 0]
        self.pick_donors = picker(self.donors)
        self.new = [new for donor, new in made if donor < 0]
        self.runs = 0 if self.new and nbytes <= SMALL else OFTEN
        self.kept: list[list[Any]] | None = None  # of every result without a donor: two arrays and what makes another

    def take(self, bindings: list[Any], free: Collection[int]) -> list[np.ndarray]:
        """Memory for all results; ``free``: donors that may be overwritten."""
        if len(free) != len(self.donors):
            free = frozenset(free)
            return [bindings[donor].buffer if donor in free else new() for donor, new in self.made]
        out = [v.buffer for v in self.pick_donors(bindings)]
        if self.kept is not None:
            out += [x[0] if _count(x[0]) == _ALONE else x[1] if _count(x[1]) == _ALONE else _another(x) for x in self.kept]
        else:
            out += [new() for new in self.new]
            if self.runs < OFTEN:
                self.runs += 1
                if self.runs == OFTEN:
                    self.forget()
                    memory.hold_in_reserve(self)
        return out

    def forget(self) -> None:
        """Start anew with no memory at hand."""
        self.kept = [[None, None, new] for new in self.new]


def _another(x: list[Any]) -> Any:
    x[0], x[1] = x[2](), x[0]
    return x[0]


def _alone() -> int:
    """The reference count seen of an array that only such a list holds (it differs between Python versions)."""
    x: list[Any] = [np.empty(0)]
    return _count(x[0])


_ALONE = _alone()
