"""Sums over rows made on the side by a kernel that works row by row.

Gradients of a norm's weights and of biases sum values over all rows that a row-wise kernel has in its registers anyway. Such
a sum would otherwise be a kernel of its own, after the values went to memory and back. :func:`merge_sums` finds the pairs:
the row kernel then works through parts of the rows, adding every row to a partial sum of its part that stays in the cache,
and what was the reduction only adds the parts. The parts depend on sizes alone, so results do not depend on threads.
"""
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...dtypes import float32, float64
from ...ir.node import Node
from .. import index
from ..loop_ir import Access, Buf, Kernel, Store, inputs_of
from ..lower import split_axis
from ..split import parts_of
from .jobs import Job
from .kernel import Printer, finished
from .kernel_layout import Env, choose_vector_axis, second_axis
from .llvm import vec
from .opcodes import memory_type

MIN_ROWS = 64


def merge_sums(steps: Sequence[Kernel | Node], readers: Mapping[int, Sequence[int]],
               outputs: Collection[int]) -> tuple[dict[int, tuple[Kernel, int]], dict[int, Kernel]]:
    """(row kernels by place: with the sums they make and how many those are, the last stores), (what is left of the
    reductions, by place). ``readers``: slot -> places of the steps that read it."""
    rows: dict[int, tuple[Kernel, int]] = {}
    rest: dict[int, Kernel] = {}
    for j, b in enumerate(steps):
        slot = _summed(b)
        if slot is None:
            continue
        assert isinstance(b, Kernel)
        for i, a in enumerate(steps[:j]):
            if not isinstance(a, Kernel) or a.kept != 1 or len(a.extents) != 2 or a.extents != b.extents[::-1]:
                continue
            k, n = rows.get(i, (a, 0))
            value = _value_of(k, slot)
            parts = parts_of(a.extents[0])
            if value is None or not parts or a.extents[0] < MIN_ROWS:
                continue
            if choose_vector_axis(a) != 1 or second_axis(a, 1) is not None:
                continue
            key: Any = ("columns", next(b.buffers[x].slot for x in b.writes))
            if n == 0:
                k = split_axis(k, 0, a.extents[0] // parts)
            width, dt = a.extents[1], k.stmts[value].dtype
            buffers = (*k.buffers, Buf(key, dt, parts * width))
            at = index.add(index.scale(index.var(0), width), index.var(2))
            stores = k.stores
            if len(readers.get(slot, ())) == 1 and slot not in outputs:
                stores = tuple([s for s in stores if k.buffers[s.access.buffer].slot != slot])  # nobody else reads it
            rows[i] = replace(k, buffers=buffers, stores=(*stores, Store(Access(len(buffers) - 1, at, ()), value))), n + 1
            rest[j] = _of_parts(b, slot, key, parts)
            break
    return {i: (_without_unused(k), n) for i, (k, n) in rows.items()}, rest


def _summed(b: Any) -> int | None:
    """The slot whose rows a kernel sums, if it does nothing else with them."""
    if not isinstance(b, Kernel) or b.kept != 1 or len(b.extents) != 2:
        return None
    reduces = [s for s in b.stmts if s.op in ("reduce", "argreduce")]
    if len(reduces) != 1 or reduces[0].op != "reduce" or reduces[0].attr != "add":
        return None
    at = reduces[0].args[0]
    load = b.stmts[at]
    if load.op != "load" or load.attr.guards or load.dtype not in (float32, float64):
        return None
    users = sum(at in inputs_of(s) for s in b.stmts) + sum(st.value == at for st in b.stores)
    want = index.add(index.var(0), index.scale(index.var(1), b.extents[0]))
    inner = sum(1 in index.variables(s.attr.ix) for s in b.stmts if s.op == "load")
    if users != 1 or inner != 1 or load.attr.ix != want or any(1 in index.variables(st.access.ix) for st in b.stores) or \
            any(s.op in ("index", "rng", "guard", "check") for s in b.stmts):
        return None
    return b.buffers[load.attr.buffer].slot


def _value_of(k: Kernel, slot: int) -> int | None:
    """The statement of a row kernel that is element (row, column) of ``slot``: one it stores, or one it loads."""
    split = len(k.extents) == 3
    flat = index.flatten([index.var(d) for d in range(len(k.extents))], k.extents)
    if split and k.extents[0] == 1 or 1 in k.extents:
        return None
    for st in k.stores:
        if k.buffers[st.access.buffer].slot == slot:
            return st.value if st.access.ix == flat and not st.access.guards else None
    loads = [n for n, s in enumerate(k.stmts) if s.op == "load" and k.buffers[s.attr.buffer].slot == slot]
    if len(loads) == 1 and k.stmts[loads[0]].attr.ix == flat and not k.stmts[loads[0]].attr.guards:
        return loads[0]
    return None


def _of_parts(b: Kernel, slot: int, key: Any, parts: int) -> Kernel:
    """The reduction over the partial sums instead of the rows."""
    buffers = tuple([Buf(key, x.dtype, parts * b.extents[0]) if x.slot == slot else x for x in b.buffers])
    return replace(b, extents=(b.extents[0], parts), buffers=buffers)


def _without_unused(k: Kernel) -> Kernel:
    """Buffers that are neither read nor written any more are dropped."""
    used = sorted(k.reads | k.writes)
    if len(used) == len(k.buffers):
        return k
    new = {b: n for n, b in enumerate(used)}
    stmts = tuple([s._replace(attr=s.attr._replace(buffer=new[s.attr.buffer])) if s.op == "load" else s for s in k.stmts])
    stores = tuple([Store(st.access._replace(buffer=new[st.access.buffer]), st.value) for st in k.stores])
    return replace(k, buffers=tuple([k.buffers[b] for b in used]), stmts=stmts, stores=stores)


class Columns(Printer):
    """Prints a row kernel over (part, row of the part | column) whose last ``sums`` stores add up the rows of a part."""

    def __init__(self, k: Kernel, sums: int, vector_bits: int):
        super().__init__(k, vector_bits)
        self.sums = range(len(k.stores) - sums, len(k.stores))
        self.first = ""

    def build(self) -> None:
        """Threads share the parts."""
        f = self.f
        if self.spill:
            self.find_scratch()
        lo, hi = f.share(self.extents[0])

        def part(p: str) -> None:
            def row(r: str) -> None:
                self.dims = {0: p, 1: r}
                self.first = f.cmp("eq", "i64", r, "0")
                env: Env = {}
                self.place(sorted({i for n in self.all_needs() for i in n}), env, frozenset((0, 1)), 0)
                self.row(env)

            f.loop("0", self.extents[1], row)

        f.loop(lo, hi, part)
        if self.streaming:
            f.emit("fence seq_cst")

    def store(self, n: int, env: Env) -> None:
        """A sum starts with the part's first row."""
        if n not in self.sums:
            super().store(n, env)
            return
        f, st = self.f, self.k.stores[n]
        assert self.lanes is not None
        dt = self.k.buffers[st.access.buffer].dtype
        w, mem = self.width, memory_type(dt)
        ty, mask_type = vec(w, mem), vec(w, "i1")
        val = self.spread(env[st.value])
        start = self.scalar_ix(st.access.ix, ("s", n), env, self.vaxis)
        later = f.splat(mask_type, f.op("xor", "i1", self.first, "true"))
        for u, lane in enumerate(self.lanes.starts):
            at = f.at(mem, self.pointers[st.access.buffer], f.add(start, lane))
            mask = later if self.lanes.mask is None else f.op("and", mask_type, later, self.lanes.mask)
            total = f.op("fadd", ty, f.load(ty, at, mask), val.regs[u % len(val.regs)])
            f.store(ty, total, at, self.lanes.mask)


def columns_job(k: Kernel, sums: int, vector_bits: int) -> Job:
    """The job of a row kernel with sums on the side."""
    p = finished(Columns(k, sums, vector_bits))
    slots: list[Any] = [b.slot for b in k.buffers]
    own = {b.slot: b.size * b.dtype.itemsize for b in k.buffers[len(k.buffers) - sums:]}
    return Job(p.symbol, p.text, [*slots, "err", "scratch"], p.numbers, {k.buffers[b].slot for b in k.reads},
               {k.buffers[b].slot for b in k.writes}, p.scratch, p.work * max(1, len(k.stmts) // 4), p.checks, k, own=own)  # type: ignore
