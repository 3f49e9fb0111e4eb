"""Run native plans wave by wave with memory nobody owns overwritten in between: the oracle of the memory plan.

What is alive is derived here from what steps read and write, independently of the plan's own bookkeeping.
"""
from __future__ import annotations

import itertools
from collections.abc import Collection
from typing import Any

import numpy as np

from graphc.codegen.memory import ALIGN
from graphc.codegen.native import program as program_module
from graphc.codegen.native.jobs import Call, Job, Loop, Stretch
from graphc.codegen.native.results import SMALL, Results
from graphc.runtime import memory, pool

POISON = 0xA5


class WouldCorrupt(AssertionError):
    """Two steps that may run at the same time touch the same memory, or one overwrites what another still needs."""


def alive(plan: Any) -> dict[Any, tuple[int, int]]:
    """Key in the arena -> (first wave that writes it, last wave that touches it)."""
    first: dict[Any, int] = {}
    last: dict[Any, int] = {}
    for w, wave in enumerate(plan.waves):
        for s in wave:
            own = () if isinstance(s, Call) else tuple(s.own)
            for x in (*[plan.base_of(x) for x in s.reads], *s.writes, *own):
                last[x] = w
            for x in (*s.writes, *own):
                first.setdefault(x, w)
    return {x: (w, last[x]) for x, w in first.items() if x in plan.offsets}


def place(plan: Any, key: Any, donated: Collection[int]) -> tuple[Any, int, int]:
    """(which memory, start, end) of a key: the arena, or an array of its own; a donated result is its donor."""
    if key in plan.offsets:
        size = next(x.nbytes for x in plan.lives if x.slot == key)
        return "arena", plan.offsets[key], plan.offsets[key] + max(1, size)
    if plan.donor_of.get(key) in donated:
        key = plan.inputs[plan.donor_of[key]].slot
    return key, 0, 1


def check_waves(plan: Any, donated: Collection[int] = ()) -> int:
    """Raise WouldCorrupt unless jobs of a wave touch disjoint memory where one of them writes, and donated inputs are not
    needed after the first write into them. Returns the number of pairs looked at."""
    pairs = 0

    def where(keys: Any) -> dict[Any, tuple[Any, int, int]]:
        return {x: place(plan, x, donated) for x in keys}

    def share(x: tuple[Any, int, int], y: tuple[Any, int, int]) -> bool:
        return x[0] == y[0] and x[1] < y[2] and y[1] < x[2]

    for w, wave in enumerate(plan.waves):
        touched = [(s, where({plan.base_of(x) for x in s.reads}), where({*s.writes, *(() if isinstance(s, Call) else s.own)}))
                   for s in wave]
        for s, reads, writes in touched:
            for (x, at), (y, there) in itertools.product(writes.items(), {**reads, **writes}.items()):
                if x != y and at[0] == "arena" and share(at, there):
                    raise WouldCorrupt(f"wave {w}: {_name(s)} uses one place for {x} and {y}")
        for (a, ra, wa), (b, rb, wb) in itertools.combinations(touched, 2):
            pairs += 1
            for mine, theirs in ((wa, {**rb, **wb}), (wb, {**ra, **wa})):
                for (x, at), (y, there) in itertools.product(mine.items(), theirs.items()):
                    if share(at, there):
                        raise WouldCorrupt(f"wave {w}: {x} of {_name(a)} and {y} of {_name(b)} share memory")
    for out, k in plan.donor_of.items():
        if k not in donated:
            continue
        slot = plan.inputs[k].slot
        writes = [w for w, wave in enumerate(plan.waves) for s in wave if out in s.writes]
        reads = [w for w, wave in enumerate(plan.waves) for s in wave if slot in [plan.base_of(x) for x in s.reads]]
        if max(reads) > min(writes):
            raise WouldCorrupt(f"input {slot} is read in wave {max(reads)}, but its memory becomes slot {out} in {min(writes)}")
    return pairs


def _name(s: Any) -> str:
    return s.symbol if isinstance(s, Job) else s.label.split("(")[0]


def _program_waves(wave: list[Any]) -> int:
    """How many waves of the native program one wave of the plan became."""
    s = wave[0]
    if not isinstance(s, Loop):
        return 1
    return 1 + bool(s.before) + (len(s.waves) + 1) * s.length + bool(s.after)


class Poisoner:
    """One poisoned execution of a plan."""

    def __init__(self, plan: Any):
        self.plan, self.wave = plan, -1
        self.lives = alive(plan)
        self.filled = 0

    def fill(self) -> None:
        """Overwrite every byte of the arena that nothing needs after the current wave."""
        plan = self.plan
        if not plan.arena_bytes:
            return
        free = np.ones(-(-plan.arena_bytes // ALIGN), bool)
        for key, (first, last) in self.lives.items():
            if first <= self.wave < last:
                _, lo, hi = place(plan, key, ())
                free[lo // ALIGN:-(-hi // ALIGN)] = False
        start = memory._Pool.arena_base - memory._Pool.arena.__array_interface__["data"][0]
        area = memory._Pool.arena[start:start + plan.arena_bytes]
        mask = np.repeat(free, ALIGN)[:len(area)]
        area[mask] = POISON
        self.filled += int(mask.sum())

    def stretch(self, st: Stretch) -> None:
        """The waves of a stretch one by one, jobs of a wave in reverse order, one after the other."""
        words = st.program
        at = 1
        if self.wave < 0:
            self.fill()

        def one() -> None:
            nonlocal at
            n = int(words[at])
            body = words[at + 2:at + 2 + 2 * n].reshape(n, 2)
            for job in body[::-1]:
                single = np.concatenate(([1, 1, words[at + 1]], job)).astype(np.int64)
                pool.run(single.ctypes.data)
            at += 2 + 2 * n

        one()  # addresses of objects
        for wave in st.waves:
            for _ in range(_program_waves(wave)):
                one()
            self.wave += 1
            self.fill()
        assert at == len(words)

    def __call__(self, bindings: list[Any], free: Collection[int] = ()) -> list[Any]:
        plan = self.plan
        check_waves(plan, free)
        stretches = {st.address: st for st in plan.stretches if isinstance(st, Stretch)}
        results, call = plan.memory, plan.call

        def dirty(new: Any) -> Any:
            def make() -> np.ndarray:
                a = new()
                a.reshape(-1).view(np.uint8)[...] = POISON
                return a

            return make

        def called(c: Call, objects: list[Any], bound: list[Any]) -> None:
            if self.wave < 0:
                self.fill()
            call(c, objects, bound)
            self.wave += 1
            self.fill()

        class Pool:
            """Stands in for the pool inside program.py."""

            @staticmethod
            def run(address: int) -> None:
                self.stretch(stretches[address])

        plan.memory = Results([(donor, dirty(new)) for donor, new in results.made], SMALL + 1)  # all of it new
        plan.call = called
        program_module.pool = Pool  # type: ignore[assignment]
        try:
            self.wave = -1
            if plan.arena_bytes:
                plan.rebase()
            return plan(bindings, free)
        finally:
            program_module.pool = pool  # type: ignore[attr-defined]
            plan.memory = results
            del plan.call
