"""What happens to a matrix product on its way to memory: a pointwise kernel over its result, run tile by tile.

A kernel whose only use of the product is to read it in order (bias, activation, residual, dropout, ...) is printed as an
internal function over some rows and columns of a tile in the cache. The product kernel calls it when a tile is finished, so
the product itself need not be stored at all. :func:`matching` finds out whether a kernel is of that form.
"""
from __future__ import annotations

import math

from .. import index
from ..loop_ir import Access, Buf, Kernel, Store
from ..lower import split_axis
from .kernel import Printer
from .kernel_layout import Env, Val, choose_vector_axis, second_axis
from .llvm import vec
from .opcodes import register_type

PARAMS = "ptr %args, ptr %tile, i64 %row, i64 %rows, i64 %col, i64 %cols"
MAX_STATEMENTS = 60


def matching(k: Kernel, slot: int, n: int) -> Kernel | None:
    """``k`` over axes (rows..., n), if it is pointwise, reads ``slot`` once and in order, and stores along columns."""
    if k.kept != len(k.extents) or not k.extents or len(k.stmts) > MAX_STATEMENTS or n < 2:
        return None
    if any(s.op in ("reduce", "argreduce", "check") for s in k.stmts):
        return None
    last = len(k.extents) - 1
    if k.extents[last] != n:
        if k.extents[last] % n:
            return None
        k = split_axis(k, last, n)
        last += 1
    here = [b for b in k.reads if k.buffers[b].slot == slot]
    if len(here) != 1 or math.prod(k.extents) != k.buffers[here[0]].size or here[0] in k.writes:
        return None
    flat = index.flatten([index.var(d) if e != 1 else index.ZERO for d, e in enumerate(k.extents)], k.extents)
    loads = [s.attr for s in k.stmts if s.op == "load" and s.attr.buffer == here[0]]
    if len(loads) != 1 or loads[0].ix != flat or loads[0].guards:
        return None
    if any(index.coefficient(st.access.ix, last) != 1 or st.access.guards for st in k.stores):
        return None
    return k if choose_vector_axis(k) == last and second_axis(k, last) is None else None


def storing(k: Kernel, slot: int) -> Kernel:
    """The kernel that also stores the product it reads from ``slot``: under a buffer of its own, the last one."""
    b = next(i for i in k.reads if k.buffers[i].slot == slot)
    value = next(i for i, s in enumerate(k.stmts) if s.op == "load" and s.attr.buffer == b)
    access = k.stmts[value].attr
    buffers = (*k.buffers, Buf(slot, k.buffers[b].dtype, k.buffers[b].size))
    store = Store(Access(len(buffers) - 1, access.ix, ()), value)
    return Kernel(k.name, k.extents, k.kept, buffers, k.stmts, (*k.stores, store))


class Epilogue(Printer):
    """Prints the function. Its argument block is that of the kernel; ``span`` is the length of a row of the tile."""

    def __init__(self, k: Kernel, slot: int, span: int, vector_bits: int, name: str):
        super().__init__(k, vector_bits)
        self.product = next(b for b in k.reads if k.buffers[b].slot == slot)
        self.span = span
        self.unroll = min(self.unroll, max(1, span // self.width))
        self.f.name, self.f.params, self.f.ret = name, PARAMS, "internal void"
        self.build_rows()

    def build_rows(self) -> None:
        """Every row of the tile, in vectors along its columns."""
        f, outer = self.f, list(range(len(self.k.extents) - 1))
        scalar = register_type(self.k.buffers[self.product].dtype)

        def one(r: str) -> None:
            env: Env = {}
            self.dims = {}
            rest = f.add("%row", r)
            for d in reversed(outer):
                self.dims[d] = rest if d == 0 else f.rem(rest, self.extents[d])
                rest = rest if d == 0 else f.div(rest, self.extents[d])
            self.tile_row = f.at(scalar, "%tile", f.mul(r, str(self.span)))
            self.place(self.all_needs()[-1], env, frozenset(outer), 0)
            self.vector_loop("%col", f.add("%col", "%cols"), lambda acc: self.columns(env), ())

        f.loop("0", "%rows", one)
        if self.streaming:
            f.emit("fence seq_cst")
        f.emit("ret void")

    def columns(self, env: Env) -> tuple[str, ...]:
        """One step along the columns."""
        self.row(dict(env))
        return ()

    def load(self, i: int, a: Access, env: Env) -> Val:
        """The product is read from the tile."""
        if a.buffer != self.product:
            return super().load(i, a, env)
        assert self.lanes is not None
        f, scalar = self.f, register_type(self.k.buffers[a.buffer].dtype)
        t = vec(self.width, scalar)
        at = [f.at(scalar, self.tile_row, f.sub(first, "%col")) for first in self.lanes.starts]
        return Val([f.load(t, p, self.lanes.mask) for p in at], t)
