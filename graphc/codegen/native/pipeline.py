"""Jobs that work slice by slice on a common batch axis, run as one: attention, written by hand or not, is one job a pass.

Every job of ours is called as thread b of n and does the b-th n-th of its work. Where the matrices of a batched product are the
outermost part of that work, calling its code as "thread b of n" for n matrices computes matrix b, whatever else runs; the
same goes for kernels over rows, for epilogues and for packing. So a *pipeline* of n slices needs no other kernels: each
thread, for each of its slices b, calls the jobs one after the other as (b, n). What one job writes in slice b and another reads
there is in the cache, and what nobody else reads never leaves it: it lives in memory of one slice per thread, to which the
jobs' pointers are set back by b slices. Small values that all slices share, such as masks, every thread makes for itself before
its first slice. Results are those of the same jobs run one after the other, bit for bit.

Algorithm: steps are nodes of a graph (reads and writes). A pipeline grows from a batched product: a step joins if it shares a
value with a member, both touch slice b of it in their slice b only, and no path leads out of the pipeline and back.
"""
from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ... import config
from .. import index
from .. import memory as memory_plan
from ..fuse import Schedule
from ..index import Ix
from ..loop_ir import Kernel
from ..lower import permute_axes, split_axis
from .jobs import SUPPORT, Call, Job, Key, Space, Step, overwritable
from .printed import kernel_job

SMALL = 1 << 20  # bytes of a slice's intermediates that stay in the second-level cache
BLOCK = 1 << 19  # bytes of intermediates that are aimed at where slices are parts of the rows of a matrix
LARGE = 0.6  # worth of an intermediate in a slice that is larger than SMALL, compared with one in a smaller slice
BALANCE = 3 / 4  # of the threads' time, at least, must be busy with slices
SHARED = 1 << 18  # bytes at most of values that every thread makes for itself
SHARED_WORK = 1 / 16  # of a thread's share of the work, at most, for each of them
SERIAL_WORK = 1 << 15  # points below which one thread runs everything anyway
MEMBERS = 96  # of a pipeline at most: growing one takes time with their square
WINDOW = 2048  # steps looked at together: each has bits for all others


@dataclass
class Pipeline(Job):
    """Jobs that are called for one slice after the other, the first ``once`` only before the first slice. ``local``:
    intermediates of one slice, bytes each; ``shared``: those of all slices."""

    jobs: list[Job] = field(default_factory=list)
    local: dict[Key, int] = field(default_factory=dict)
    shared: dict[Key, int] = field(default_factory=dict)
    once: int = 0
    members: list[int] = field(default_factory=list)  # places of the jobs among the plan's steps
    slices: int = 0
    offsets: dict[Key, int] = field(default_factory=dict)  # in a thread's area
    size: int = 0  # bytes of intermediates in a thread's area
    scratch_at: int = 0
    tables: list[np.ndarray] = field(default_factory=list)  # what the argument block points to

    @property
    def name(self) -> str:
        return f"pipeline_{'_'.join(_names(self.jobs[self.once:]))}"

    @property
    def code(self) -> Hashable:
        return tuple([j.symbol for j in self.jobs])

    @property
    def label(self) -> str:
        lines = [f"{self.slices} slices, {self.size:,} bytes of intermediates in each:"]
        for n, j in enumerate(self.jobs):
            lines += f"{'once ' if n < self.once else ''}{j.label}".split("\n")
        return "\n  ".join(lines)

    def parts(self) -> list[Job]:
        return [*self.jobs, self]

    def place(self) -> None:
        """Lay out a thread's area: argument blocks, intermediates, scratch rows."""
        first: dict[Key, int] = {}
        last: dict[Key, int] = {}
        for n, j in enumerate(self.jobs):
            for x in self.local:
                if x in j.pointers:
                    first.setdefault(x, n)
                    last[x] = n
        home = {x: x for x in self.local}  # a result in place of an operand: where that one lies
        until, taken = dict(last), set()
        for n, j in enumerate(self.jobs):
            k = j.kernel or j.epilogue
            never = j.pointers[:4] if j.epilogue is not None else ()  # a product's operands
            for out, x in overwritable(k) if k is not None and not config.NO_MEMPLAN else ():
                if (out in home and x in home and x not in never and x not in taken and home[out] == out
                        and first[x] < n == first[out] == last[x] and self.local[out] == self.local[x]):
                    home[out], until[home[x]] = home[x], last[out]
                    taken.add(x)
        lives = [memory_plan.Life(x, size, first[x], until[x])  # type: ignore[arg-type]
                 for x, size in self.local.items() if home[x] == x]
        lives += [memory_plan.Life(x, size, 0, len(self.jobs)) for x, size in self.shared.items()]  # type: ignore[arg-type]
        offsets, self.size = memory_plan.plan(lives)
        memory_plan.check(lives, offsets)
        start = -(-8 * sum(words(j) for j in self.jobs) // 64) * 64
        self.offsets = {x: start + offsets[home.get(x, x)] for x in (*self.local, *self.shared)}  # type: ignore[index]
        self.scratch_at = start + self.size
        self.scratch = -(-(self.scratch_at + max(j.scratch for j in self.jobs)) // 128) * 128

    def bind(self, base: int, blocks: Mapping[int, int], address: Mapping[str, int]) -> tuple[int, ...]:
        """Numbers of the argument block. ``base``: address of all blocks; ``blocks``: first word of each job's, one after
        the other for the jobs of a pipeline; ``address``: functions."""
        first = blocks[id(self.jobs[0])]
        moves: list[int] = []
        calls: list[int] = []
        for n, j in enumerate(self.jobs):
            at = blocks[id(j)] - first
            calls += [address[j.symbol], 8 * at]
            for k, p in enumerate(j.pointers):
                if p == "scratch" and j.scratch:
                    moves += [at + k, self.scratch_at, 0 if n < self.once else j.scratch]
                elif p in self.offsets:
                    moves += [at + k, self.offsets[p], self.local.get(p, 0)]
        self.tables = [np.array(moves, np.int64), np.array(calls, np.int64)]
        return (base + 8 * first, 8 * sum(words(j) for j in self.jobs), self.scratch, self.tables[0].ctypes.data,
                len(moves) // 3, self.tables[1].ctypes.data, len(self.jobs), self.slices, self.once)


def words(j: Job) -> int:
    """Words of a job's argument block."""
    return len(j.pointers) + len(j.numbers) + 1


def _names(jobs: Sequence[Job]) -> list[str]:
    """What the jobs do, packing aside."""
    out = []
    for j in jobs:
        if j.matrices:
            out.append("contract")
        k = j.kernel or j.epilogue
        if k is not None:
            out.append(k.name.split("_", 1)[-1])
    return out[:8]


# -------------------------------------------------------------------------------------------------------------- slices
def slices(space: Space, n: int, nbytes: Callable[[Key], int]) -> dict[Key, bool] | None:
    """For n slices of a job's work: whether slice b touches of each key only the b-th n-th. None if it does not divide so."""
    ext = space.extents
    count, d, ahead = 1, 0, []  # ahead: (axis, how many slices apart its neighbours are)
    while count < n:
        left = n // count
        if d >= space.leading or not ext[d] or max(ext[d], left) % min(ext[d], left):
            return None
        if ext[d] > left:
            space, ext = _split(space, d, ext[d] // left)
        count *= ext[d]
        ahead.append((d, n // count))
        d += 1
    out: dict[Key, bool] = {}
    for key, itemsize, ix in space.accesses:
        size, rest = divmod(nbytes(key), n * itemsize)
        out[key] = out.get(key, True) and not rest and _within(ix, ahead, ext, size)
    return out


def _split(space: Space, d: int, size: int) -> tuple[Space, tuple[int, ...]]:
    """Axis ``d`` as two, the inner one of ``size``."""
    old = space.extents
    ext = (*old[:d], old[d] // size, size, *old[d + 1:])
    new = {v: index.var(v + (v > d)) for v in range(len(old))}
    new[d] = index.add(index.scale(index.var(d), size), index.var(d + 1))
    accesses = tuple([(key, itemsize, index.substitute(ix, new, ext)) for key, itemsize, ix in space.accesses])
    return Space(ext, space.leading + 1, accesses), ext


def _within(ix: Ix, ahead: Sequence[tuple[int, int]], ext: Sequence[int], size: int) -> bool:
    """Whether an index lies in [b size, (b + 1) size) for slice b."""
    for d, apart in ahead:
        if ext[d] > 1 and index.coefficient(ix, d) != apart * size:
            return False
    axes = {d for d, _ in ahead}
    low, high = index.bounds(Ix(ix.const, tuple([t for t in ix.terms if t[0] not in axes])), ext)
    return low >= 0 and high < size


def reordered(job: Job, key: Key, n: int, bits: int) -> Job | None:
    """A pointwise job that walks ``key`` in order, in n parts of it, as its outermost axes; None where that is not possible."""
    k = job.kernel
    if k is None or not job.spaces or k.kept != len(k.extents) or any(s.op in ("reduce", "argreduce") for s in k.stmts):
        return None
    ix = next((ix for x, _, ix in job.spaces[0].accesses if x == key), None)
    if ix is None or not index.is_affine(ix):
        return None
    ahead: list[int] = []
    left = n
    for d, c in sorted(ix.terms, key=lambda t: -t[1]):
        size = k.extents[d]
        if left == 1:
            break
        if c < 0 or max(size, left) % min(size, left):
            return None
        if size > left:
            k, size = split_axis(k, d, size // left), left
            ahead = [x + (x > d) for x in ahead]
        ahead.append(d)
        left //= size
    if left != 1:
        return None
    k = permute_axes(k, [*ahead, *[d for d in range(len(k.extents)) if d not in ahead]])
    return replace(kernel_job(k, bits), own=job.own)


# ------------------------------------------------------------------------------------------------------------- grouping
class _Steps:
    """Steps as a graph; what has become one pipeline counts as one node."""

    def __init__(self, steps: Sequence[Step], base_of: Callable[[Any], Key]):
        self.steps = steps
        self.reads = [{base_of(x) for x in s.reads} for s in steps]
        self.writes: list[set[Key]] = [set(s.writes) for s in steps]
        self.users: dict[Key, list[int]] = {}
        self.before = [0] * len(steps)  # bitsets of steps
        self.after = [0] * len(steps)
        self.direct: list[set[int]] = []
        wrote: dict[Key, list[int]] = {}
        for i, (reads, writes) in enumerate(zip(self.reads, self.writes)):
            waits = {base_of(x) for x in getattr(steps[i], "waits", ())}
            needs = {p for x in reads | waits for p in wrote.get(x, ())} | {p for x in writes for p in self.users.get(x, ())}
            self.direct.append(needs)
            for p in needs:
                self.before[i] |= self.before[p] | 1 << p
            for x in reads | writes:
                self.users.setdefault(x, []).append(i)
            for x in writes:
                wrote.setdefault(x, []).append(i)
        for i in range(len(steps) - 1, -1, -1):
            for p in self.direct[i]:
                self.after[p] |= self.after[i] | 1 << i

    def contract(self, members: Collection[int]) -> None:
        """Make the members one node."""
        bits = sum(1 << i for i in members)
        before, after = self.around(members)
        for i in range(len(self.steps)):
            if self.before[i] & bits or bits >> i & 1:
                self.before[i] |= before | bits
            if self.after[i] & bits or bits >> i & 1:
                self.after[i] |= after | bits

    def around(self, members: Collection[int]) -> tuple[int, int]:
        """Steps before, and after, any of the members."""
        before = after = 0
        for i in members:
            before |= self.before[i]
            after |= self.after[i]
        return before, after

    def convex(self, members: Collection[int]) -> bool:
        """Whether no path leads out of the members and back."""
        before, after = self.around(members)
        return not before & after & ~sum(1 << i for i in members)

    def near(self, i: int) -> set[int]:
        """Steps that share a value with one of them that writes it."""
        return {c for x in self.reads[i] | self.writes[i] for c in self.users[x] if x in self.writes[i] or x in self.writes[c]}

    def ordered(self, made: Sequence[Pipeline]) -> list[Step]:
        """All steps, pipelines in the place of their members: in the given order, but after what they depend on."""
        home = {i: max(p.members) for p in made for i in p.members}
        pipeline = {max(p.members): p for p in made}
        needs: dict[int, set[int]] = {}
        for i, direct in enumerate(self.direct):
            node = home.get(i, i)
            needs.setdefault(node, set()).update(n for n in (home.get(p, p) for p in direct) if n != node)
        waiting = {node: len(n) for node, n in needs.items()}
        users: dict[int, list[int]] = {}
        for node, ns in needs.items():
            for p in ns:
                users.setdefault(p, []).append(node)
        ready = [node for node, count in waiting.items() if not count]
        heapq.heapify(ready)
        out: list[Step] = []
        while ready:
            node = heapq.heappop(ready)
            out.append(pipeline.get(node, self.steps[node]))
            for u in users.get(node, ()):
                waiting[u] -= 1
                if not waiting[u]:
                    heapq.heappush(ready, u)
        assert len(out) == len(waiting), "pipelines depend on each other"
        return out


class Pipelines:
    """Finds the pipelines of a plan."""

    def __init__(self, steps: list[Step], base_of: Callable[[Any], Key], nbytes: Callable[[Any], int], outputs: Collection[Key],
                 nthreads: int, bits: int):
        """``nbytes``: size of a slot; ``base_of``: the key a view reads."""
        self.own = {x: size for s in steps if not isinstance(s, Call) for x, size in s.own.items()}
        self.slot_bytes, self.nthreads, self.bits = nbytes, nthreads, bits
        self.outputs: set[Key] = set(outputs)
        self.steps = steps
        self.base_of = base_of

    def nbytes(self, key: Key) -> int:
        """Size of a buffer."""
        return self.own[key] if key in self.own else self.slot_bytes(key)

    def all(self) -> list[Step]:
        """The steps with pipelines in the place of their members."""
        seeds = [i for i, s in enumerate(self.steps) if isinstance(s, Job) and s.matrices > 1 and s.spaces]
        if not seeds:
            return self.steps
        if len(self.steps) > WINDOW:
            return self.by_windows()
        self.graph = _Steps(self.steps, self.base_of)
        made: list[Pipeline] = []
        self.taken: set[int] = set()
        for i in seeds:
            job = self.steps[i]
            assert isinstance(job, Job)
            if i in self.taken:
                continue
            found = self.best(i, job)
            if found is not None:
                made.append(found)
                self.taken |= set(found.members)
                self.graph.contract(found.members)
        return self.graph.ordered(made) if made else self.steps

    def by_windows(self) -> list[Step]:
        """The same for one part of a very long plan after the other; what other parts touch is an output."""
        parts = [self.steps[i:i + WINDOW] for i in range(0, len(self.steps), WINDOW)]
        touched = [{key for s in part for x in (*s.reads, *s.writes, *getattr(s, "waits", ())) for key in (x, self.base_of(x))}
                   for part in parts]
        counts = Counter(x for keys in touched for x in keys)
        elsewhere = self.outputs | {x for x, n in counts.items() if n > 1}
        return [s for part in parts
                for s in Pipelines(part, self.base_of, self.nbytes, elsewhere, self.nthreads, self.bits).all()]

    def best(self, seed: int, job: Job) -> Pipeline | None:
        """The pipeline around a product whose slices are its matrices or, if they are too large or too few, parts of their
        rows: the one that saves most."""
        found = self.pipeline(self.grow(seed, job.matrices), job.matrices)
        if found is None or found.size <= SMALL and self.balanced(found):
            return found
        tries = [found]
        for parts in (d for d in range(2, job.row_tiles + 1) if job.row_tiles % d == 0):
            if found.size // parts <= 2 * BLOCK:  # what cannot be cut, such as packed keys, is then outside
                smaller = self.pipeline(self.grow(seed, job.matrices * parts), job.matrices * parts)
                if smaller is not None and smaller.size <= BLOCK and self.balanced(smaller):
                    tries.append(smaller)
                    break
        return max((p for p in tries if self.balanced(p)), key=saved, default=None)

    def balanced(self, p: Pipeline) -> bool:
        """Whether threads that share the slices have about as much to do."""
        rounds = -(-p.slices // self.nthreads)
        return p.work < SERIAL_WORK or p.slices >= BALANCE * rounds * self.nthreads

    def touched(self, job: Job, n: int) -> dict[Key, bool] | None:
        """For n slices: whether each key is touched slice by slice; None if the job cannot be cut so."""
        out: dict[Key, bool] = {}
        for space in job.spaces:
            found = slices(space, n, self.nbytes)
            if found is None:
                return None
            for key, good in found.items():
                out[key] = out.get(key, True) and good
        return out if out else None

    def grow(self, seed: int, n: int) -> dict[int, Job]:
        """The steps of a pipeline of n slices around a product, as the jobs that run in it."""
        g = self.graph
        first = self.variant(seed, n, {})
        if first is None:
            return {}
        members, keys = {seed: first[0]}, {seed: first[1]}
        before, after, bits = g.before[seed], g.after[seed], 1 << seed  # of all members
        near = g.near(seed)
        grown = True
        while grown:
            grown = False
            for c in sorted(near - set(members) - self.taken):
                if len(members) == MEMBERS:
                    break
                convex = not (before | g.before[c]) & (after | g.after[c]) & ~(bits | 1 << c)
                found = self.variant(c, n, keys) if convex else None
                if found is not None:
                    members[c], keys[c] = found
                    before, after, bits = before | g.before[c], after | g.after[c], bits | 1 << c
                    near |= g.near(c)
                    grown = True
        return dict(sorted(members.items()))

    def variant(self, c: int, n: int, keys: Mapping[int, dict[Key, bool]]) -> tuple[Job, dict[Key, bool]] | None:
        """The form of a step in which it can join members that touch ``keys``."""
        job, g = self.steps[c], self.graph
        if not isinstance(job, Job) or not job.spaces:
            return None
        shared = [x for x in g.reads[c] | g.writes[c] if any(x in t and (x in g.writes[c] or x in g.writes[i])
                                                              for i, t in keys.items())]
        if not all(t.get(x, True) for x in shared for t in keys.values()):
            return None
        forms = [job, *[f for x in shared if (f := reordered(job, x, n, self.bits)) is not None]]
        parts, rest = divmod(n, max(1, job.matrices))
        even = job.matrices > 1 and parts > 1 and not rest and job.row_tiles and not job.row_tiles % parts
        if job.by_rows is not None and even:
            forms.append(job.by_rows(parts))
        for form in forms:
            touched = self.touched(form, n)
            if touched is not None and all(touched.get(x, False) for x in shared):
                return form, touched
        return None

    def shared(self, group: dict[int, Job]) -> dict[int, Job]:
        """Small kernels before the group whose results only the group reads."""
        g = self.graph
        out: dict[int, Job] = {}
        most = SHARED_WORK * sum(j.work for j in group.values()) / self.nthreads
        grown = True
        while grown:
            grown = False
            members = {*group, *out}
            before = {c for i in members for x in g.reads[i] for c in g.users[x] if x in g.writes[c]}
            for c in sorted(before - members - self.taken):
                job = self.steps[c]
                if len(out) == MEMBERS:
                    break
                if (isinstance(job, Job) and job.kernel is not None and job.spaces and not job.checks and job.work <= most
                        and all(u in members or u == c for x in g.writes[c] for u in g.users[x])
                        and not any(x in g.writes[i] for x in g.writes[c] for i in members)
                        and not g.writes[c] & self.outputs and not g.direct[c] & set(group) and g.convex([*members, c])
                        and sum(self.nbytes(x) for i in (*out, c) for x in g.writes[i]) <= SHARED):
                    out[c] = job
                    members.add(c)
                    grown = True
        return dict(sorted(out.items()))

    def pipeline(self, group: dict[int, Job], n: int) -> Pipeline | None:
        """The job of a group, or None if it is not worth the trouble: a product and another product or kernel at least."""
        if sum(bool(_names([j])) for j in group.values()) < 2:
            return None
        g = self.graph
        touched = [self.touched(j, n) or {} for j in group.values()]
        written = {x for i in group for x in g.writes[i]} | {x for j in group.values() for x in j.own}
        local = {x: self.nbytes(x) // n for x in written
                 if x not in self.outputs and all(i in group for i in g.users.get(x, ()))
                 and any(x in t for t in touched) and all(t.get(x, True) for t in touched)}
        once = self.shared(group)
        shared = {x: self.nbytes(x) for i in once for x in g.writes[i]}
        group = {**once, **group}
        written |= set(shared)
        jobs = [without_streams(j, {*local, *shared}) for j in group.values()]
        inside = {x for x in written if all(i in group for i in g.users.get(x, ()) if x in g.writes[i])}
        reads = {x for i in group for x in g.reads[i]} - inside
        out = Pipeline("gc_pipeline", SUPPORT["gc_pipeline"], ["scratch"], (0,) * 9, reads, written - {*local, *shared},
                       work=sum(j.work for j in jobs), checks=any(j.checks for j in jobs),
                       own={x: size for j in jobs for x, size in j.own.items() if x not in local and x not in shared},
                       jobs=jobs, local=local, shared=shared, once=len(once), members=sorted(group), slices=n)
        out.place()
        return out


def saved(p: Pipeline) -> float:
    """How much a pipeline is worth: bytes that do not go to memory, less so where they do not stay in the nearest cache."""
    return p.slices * sum(p.local.values()) * (1 if p.size <= SMALL else LARGE)


def without_streams(j: Job, local: Collection[Key]) -> Job:
    """The job storing to ``local`` memory through the caches."""
    numbers = list(j.numbers)
    for key, at in j.streams:
        if key in local:
            numbers[at] = 0
    return replace(j, numbers=tuple(numbers))


def local_keys(steps: Sequence[Step]) -> set[Key]:
    """Intermediates that never go to memory."""
    return {x for s in steps if isinstance(s, Pipeline) for x in s.offsets}


def bytes_inside(sched: Schedule, local: Collection[Key]) -> int:
    """How much of :func:`..fuse.total_bytes` is about intermediates that never go to memory."""
    out = 0
    for item in sched.steps:
        if isinstance(item, Kernel):
            touched = [item.buffers[b] for b in item.reads | item.writes]
            out += sum(b.size * b.dtype.itemsize for b in touched if b.slot in local)
        else:
            ins = [a.nbytes for s, a in zip(item.ins, item.in_avals) if sched.views.get(s, (s,))[0] in local]
            out += sum(ins) + sum(a.nbytes for k, a in enumerate(item.avals) if item.slot + k in local)
    return out
