"""A loop over time (``loop_scan``) as native code: its body is scheduled once, and its waves repeat.

The argument blocks of the body's kernels are shared by all iterations. Pointers into stacked inputs and outputs are
cursors that a small job moves between iterations; carries live in buffers of the loop, which the last wave of an
iteration overwrites with the new carries. The pool walks the repeated waves like any others.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ...ir.node import Node
from ...ir.passes import run_passes
from ..fuse import schedule
from .jobs import Call, Cursor, Job, Key, Loop, Step, copy_job

MAX_WORDS = 400_000  # of the repeated program; longer loops stay on NumPy


def lower_loop(node: Node, keys: Sequence[Key], select: Callable[..., list[Step]]) -> Loop | None:
    """The loop as native waves, or None when its body needs Python.

    ``keys``: where the loop's operands lie contiguous; ``select(graph, schedule)`` gives the steps of the body.
    """
    body, n_carry, n_xs, length, reverse, _ = node.attrs
    graph = run_passes(body)
    sched = schedule(graph)
    steps = select(graph, sched)
    if any(not isinstance(s, Job) for s in steps) or not length:
        return None
    tag = ("loop", node.slot)
    names = _Names(node, keys, graph, tag, n_carry, n_xs, length, reverse)
    jobs: list[Job] = []
    constant = set(keys[n_carry + n_xs:])
    writers = Counter(x for s in steps for x in s.writes)
    for s in steps:
        assert isinstance(s, Job)
        job = names.renamed(s)
        same = (not any(isinstance(p, Cursor) for p in job.pointers) and {names.plain(x) for x in s.reads} <= constant
                and all(writers[x] == 1 for x in s.writes))  # nothing changes its result in place
        (names.before if same else jobs).append(job)  # what depends on no iteration (packed weights) runs once, before
    waves = _waves(jobs)
    ys, carries = names.copies()
    waves += [w for w in (ys, carries) if w]
    if sum(2 + 2 * len(w) for w in waves) * length > MAX_WORDS:
        return None
    own = dict(names.own)
    for j in (*names.before, *jobs):
        own.update(j.own)
    return Loop(waves, length, names.before, names.after, set(keys), set(range(node.slot, node.end)), own,
                f"loop x{length} of {len(jobs)} kernels")


class _Names:
    """Keys of the body's slots in the enclosing plan."""

    def __init__(self, node: Node, keys: Sequence[Key], graph: Any, tag: Any, n_carry: int, n_xs: int, length: int,
                 reverse: bool):
        self.node, self.graph, self.tag, self.n_carry = node, graph, tag, n_carry
        self.avals = graph.slot_avals()
        self.own: dict[Key, int] = {}
        self.length, self.reverse = length, reverse
        self.before: list[Job] = []
        self.after: list[Job] = []
        self.key_of: dict[int, Any] = {}
        for i, leaf in enumerate(graph.inputs):
            outer = keys[i]
            if i < n_carry:
                key = (*tag, "carry", i)
                self.own[key] = leaf.avals[0].nbytes
                self.key_of[leaf.slot] = key
                self.before.append(copy_job(key, outer, leaf.avals[0].nbytes))
                self.after.append(copy_job(node.slot + i, key, leaf.avals[0].nbytes))
            elif i < n_carry + n_xs:
                self.key_of[leaf.slot] = self.cursor(outer, leaf.avals[0].nbytes)
            else:
                self.key_of[leaf.slot] = outer
        self.inputs = {leaf.slot for leaf in graph.inputs}
        self.uses: dict[int, int] = {}
        for s in graph.outputs:
            self.uses[s] = self.uses.get(s, 0) + 1
        for k, s in enumerate(graph.outputs[n_carry:]):
            if s not in self.inputs and self.uses[s] == 1:  # written straight into the stacked result
                self.key_of[s] = self.cursor(node.slot + n_carry + k, self.avals[s].nbytes)

    def cursor(self, key: Key, nbytes: int) -> Cursor:
        return Cursor(key, (self.length - 1) * nbytes if self.reverse else 0, -nbytes if self.reverse else nbytes)

    def key(self, slot: Any) -> Any:
        """The enclosing plan's name of a body slot (or of a body step's own buffer)."""
        if slot in ("err", "scratch"):
            return slot
        found = self.key_of.get(slot)
        if found is None:
            found = self.key_of[slot] = (*self.tag, slot)
            if isinstance(slot, int):
                self.own[found] = self.avals[slot].nbytes
        return found

    def plain(self, slot: Any) -> Key:
        k = self.key(slot)
        return k.key if isinstance(k, Cursor) else k

    def renamed(self, j: Job) -> Job:
        """The job with the enclosing plan's keys; dependences stay those of the body."""
        own = {self.key(k): n for k, n in j.own.items()}
        return Job(j.symbol, j.text, [self.key(p) for p in j.pointers], j.numbers, {("in", x) for x in j.reads},
                   {("in", x) for x in j.writes}, j.scratch, j.work, j.checks, None, own)

    def copies(self) -> tuple[list[Job], list[Job]]:
        """Jobs at the end of an iteration: results that are also carries (or inputs) into place, then new carries."""
        ys, carries = [], []
        for k, s in enumerate(self.graph.outputs[self.n_carry:]):
            if s in self.inputs or self.uses[s] != 1:
                ys.append(copy_job(self.cursor(self.node.slot + self.n_carry + k, self.avals[s].nbytes), self.key(s),
                                   self.avals[s].nbytes))
        for i, s in enumerate(self.graph.outputs[:self.n_carry]):
            mine = (*self.tag, "carry", i)
            if self.key(s) != mine:
                if s in self.inputs:  # a carry that is another carry: go through a buffer of its own
                    key = (*self.tag, "moved", i)
                    self.own[key] = self.avals[s].nbytes
                    ys.append(copy_job(key, self.key(s), self.avals[s].nbytes))
                    carries.append(copy_job(mine, key, self.avals[s].nbytes))
                else:
                    carries.append(copy_job(mine, self.key(s), self.avals[s].nbytes))
        return ys, carries


def _waves(jobs: list[Job]) -> list[list[Job]]:
    """Jobs in waves, in order: one joins the last wave unless it depends on it."""
    made: dict[Key, int] = {}
    waves: list[list[Job]] = []
    for j in jobs:
        need = max([made.get(x, -1) for x in j.reads], default=-1) + 1
        if need >= len(waves):
            waves.append([j])
        else:
            waves[-1].append(j)
        for x in j.writes:
            made[x] = len(waves) - 1
    return waves


__all__ = ["Call", "lower_loop"]
