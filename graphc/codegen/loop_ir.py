"""The loop IR: one fused kernel as data. The same kernel prints as NumPy, native CPU code and Triton.

A :class:`Kernel` runs over an iteration space of *kept* axes (one independent row of work per point) and *reduced*
axes. Its body is a list of scalar statements in static single assignment: each is computed at every point of the axes
it depends on, so a value that depends on kept axes only is computed once per row, and one that depends on nothing once.

Reductions order the body into *stages*: stage s of a row is one sweep over the reduced axes that computes all reductions
whose operands need the results of s earlier sweeps (softmax: maximum, then sum of exponentials, then the quotient).
Where a statement runs is derived from this, never stored twice: see :func:`stage_of`.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..dtypes import dtype
from . import index
from .index import Ix


class Guard(NamedTuple):
    """lo <= ix < hi."""

    ix: Ix
    lo: int
    hi: int


class Access(NamedTuple):
    """Element ``ix`` of a buffer. Where a guard does not hold nothing is read (the value is unused)."""

    buffer: int
    ix: Ix
    guards: tuple[Guard, ...] = ()


class Stmt(NamedTuple):
    """One scalar value. ``op`` is a pointwise opcode of the op table or one of:

    ``load`` (access), ``const`` (attr: raw bytes), ``index`` (attr: Ix, its value), ``guard`` (attr: guards, bool),
    ``rng`` (attr: Ix; args seed, offset: the Philox word at that position), ``reduce`` (attr: monoid),
    ``argreduce`` (attr: (kind, Ix of the position)), ``cast``, ``check`` (an index; attr (size, wrap, guards): the argument if
    it lies in 0 .. size-1, counted from the end if negative under wrap; anything else gives 0 and is reported, unless a
    guard does not hold).
    """

    op: str
    args: tuple[int, ...]
    dtype: dtype
    attr: Any = None
    loc: Any = None


class Store(NamedTuple):
    """Write statement ``value`` to ``access`` at every point of the axes it depends on."""

    access: Access
    value: int


class Buf(NamedTuple):
    """Memory a kernel touches: ``slot`` of the program, dtype, number of elements."""

    slot: int
    dtype: dtype
    size: int


@dataclass(frozen=True, slots=True)
class Kernel:
    """One fused loop nest. ``extents[:kept]`` are the kept axes, the rest the reduced ones, outermost first."""

    name: str
    extents: tuple[int, ...]
    kept: int
    buffers: tuple[Buf, ...]
    stmts: tuple[Stmt, ...]
    stores: tuple[Store, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def reads(self) -> set[int]:
        """Buffer numbers read."""
        return {s.attr.buffer for s in self.stmts if s.op == "load"}

    @property
    def writes(self) -> set[int]:
        """Buffer numbers written."""
        return {s.access.buffer for s in self.stores}

    def bytes_moved(self) -> int:
        """Estimate: every buffer read or written once (a gathered one at most once per point)."""
        points = math.prod(self.extents)
        total = 0
        for s in self.stmts:
            if s.op == "load" and index.data(s.attr.ix):
                total += min(points, self.buffers[s.attr.buffer].size) * self.buffers[s.attr.buffer].dtype.itemsize
        gathered = {s.attr.buffer for s in self.stmts if s.op == "load" and index.data(s.attr.ix)}
        for b in (self.reads - gathered) | self.writes:
            total += self.buffers[b].size * self.buffers[b].dtype.itemsize
        return total

    def flops(self) -> int:
        """Estimate: one operation per statement and point of the axes it depends on."""
        deps = dependences(self)
        free = ("load", "const", "index", "cast", "guard")
        return sum(math.prod(self.extents[d] for d in deps[i]) for i, s in enumerate(self.stmts) if s.op not in free)


def access_variables(a: Access) -> frozenset[int]:
    """Axes an access depends on through its index and guards (not through data in it)."""
    out = index.variables(a.ix)
    for g in a.guards:
        out |= index.variables(g.ix)
    return out


def expressions_of(s: Stmt) -> list[Ix]:
    """The index expressions a statement contains."""
    if s.op == "load":
        return [s.attr.ix, *[g.ix for g in s.attr.guards]]
    if s.op in ("index", "rng"):
        return [s.attr]
    if s.op == "guard":
        return [g.ix for g in s.attr]
    if s.op == "check":
        return [g.ix for g in s.attr[2]]
    return [s.attr[1]] if s.op == "argreduce" else []


def inputs_of(s: Stmt) -> tuple[int, ...]:
    """Statements a statement reads, data in its index expressions included."""
    exprs = expressions_of(s)
    return (*s.args, *[d for e in exprs for d in index.data(e)]) if exprs else s.args


def dependences(k: Kernel) -> list[frozenset[int]]:
    """For each statement the axes its value varies over."""
    out: list[frozenset[int]] = []
    for s in k.stmts:
        if s.op in ("reduce", "argreduce"):
            out.append(frozenset(range(k.kept)))
            continue
        deps: frozenset[int] = frozenset().union(*[out[a] for a in inputs_of(s)])
        out.append(deps.union(*[index.variables(e) for e in expressions_of(s)]))
    return out


def stage_of(stmts: Sequence[Stmt]) -> list[int]:
    """For each statement the number of sweeps that must be done before it can be computed."""
    out: list[int] = []
    for s in stmts:
        out.append(max([out[a] for a in inputs_of(s)], default=0) + (s.op in ("reduce", "argreduce")))
    return out


def to_text(k: Kernel) -> str:
    """Readable form: iteration space, buffers, body by stage, estimated bytes and operations, user lines."""
    from ..ir.location import format_location

    names = [f"{'i' if d < k.kept else 'r'}{d}" for d in range(len(k.extents))]
    space = ", ".join(f"{n}<{e}" for n, e in zip(names, k.extents))
    lines = [f"kernel {k.name}({space})  # {k.bytes_moved():,} bytes, {k.flops():,} operations"]
    for i, b in enumerate(k.buffers):
        mode = "rw"[i in k.writes] if (i in k.reads) != (i in k.writes) else "rw"
        lines.append(f"  {mode} b{i}: {b.dtype.short}[{b.size}] = slot {b.slot}")
    stages = stage_of(k.stmts)

    def where(a: Access) -> str:
        cond = " if " + " and ".join(f"{g.lo} <= {index.text(g.ix, names)} < {g.hi}" for g in a.guards) if a.guards else ""
        return f"b{a.buffer}[{index.text(a.ix, names)}]{cond}"

    for i, s in enumerate(k.stmts):
        if s.op == "load":
            rhs = where(s.attr)
        elif s.op == "const":
            import numpy as np

            rhs = repr(np.frombuffer(s.attr, s.dtype.np)[0].item())
        elif s.op == "index":
            rhs = index.text(s.attr, names)
        elif s.op == "guard":
            rhs = " and ".join(f"{g.lo} <= {index.text(g.ix, names)} < {g.hi}" for g in s.attr)
        else:
            extra = [] if s.attr is None else [str(s.attr) if s.op != "rng" else index.text(s.attr, names)]
            rhs = f"{s.op}({', '.join([*[f'%{a}' for a in s.args], *extra])})"
        loc = f"  # {format_location(s.loc)}" if s.loc is not None else ""
        lines.append(f"  [{stages[i]}] %{i}: {s.dtype.short} = {rhs}{loc}")
    lines += [f"  {where(st.access)} = %{st.value}" for st in k.stores]
    lines += [f"  # {n}" for n in k.notes]
    return "\n".join(lines)
