"""What a legal loop-IR kernel is. Runs on every kernel of the tests, and on every plan under ``GRAPHC_VERIFY``.

Checked: statements read only earlier ones, dtypes follow the opcodes, index expressions use existing axes and stay inside
their buffers wherever their guards hold, results are written by every point exactly once, nothing is read from a buffer
that is written, and reductions belong to the sweep their operands allow. Of a whole schedule: what a step reads is complete,
and what several kernels write into one buffer covers it exactly once.

Ranges come from interval arithmetic, with the ranges of the variables narrowed by the guards until nothing changes. Where
that is not enough (several variables under one division) the points are enumerated; of more than ``POINTS`` points a
sample is taken, corners included, so a kernel is refused only with a witness.
"""
from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..dtypes import bool_, int64, uint32
from ..errors import VerifyError
from ..ir.node import Graph
from . import index
from .fuse import Schedule
from .index import Ix
from .loop_ir import Access, Guard, Kernel, Stmt, dependences, expressions_of, inputs_of, stage_of

POINTS = 1 << 16  # points enumerated at most
ELEMENTS = 1 << 24  # elements of a result whose stores are counted one by one; larger ones only in total
COMPARISONS = frozenset(("eq", "ne", "lt", "le"))
PREDICATES = frozenset(("isnan", "isinf", "logical_not"))
MONOIDS = frozenset(("add", "mul", "max", "min", "any", "all"))
SPECIAL = frozenset(("load", "const", "index", "guard", "rng", "reduce", "argreduce", "cast", "check"))


class Part(NamedTuple):
    """Elements a store writes: an expression over all points of ``dims``."""

    ix: Ix
    dims: tuple[int, ...]
    ext: tuple[int, ...]

    @property
    def points(self) -> int:
        """Number of points."""
        return math.prod([self.ext[d] for d in self.dims])


class _Verifier:
    """State of checking one kernel. Buffers of the slots in ``shared`` are completed by other kernels."""

    def __init__(self, k: Kernel, shared: frozenset[int] = frozenset()):
        self.k, self.shared = k, shared
        self.where = ""

    def fail(self, why: str) -> None:
        raise VerifyError(f"kernel {self.k.name}: {self.where}{why}")

    def need(self, ok: bool, why: str) -> None:
        if not ok:
            self.fail(why)

    # -------------------------------------------------------------------------------------------------------- statements
    def run(self) -> None:
        """All checks."""
        k = self.k
        self.need(0 <= k.kept <= len(k.extents), f"{k.kept} kept axes of {len(k.extents)}")
        self.need(all(e >= 1 for e in k.extents), f"empty axes {k.extents}")
        self.need(bool(k.stores), "no stores")
        for i, s in enumerate(k.stmts):
            self.where = f"%{i} ({s.op}): "
            self.need(all(0 <= a < i for a in inputs_of(s)), "reads a later statement")
            for e in expressions_of(s):
                self.expression(e)
            self.statement(s)
        self.where = ""
        self.stages()
        self.stores()

    def statement(self, s: Stmt) -> None:
        """Arguments, attributes and dtype of one statement."""
        k = self.k
        args = [k.stmts[a] for a in s.args]
        types = [a.dtype for a in args]
        count = {"load": 0, "const": 0, "index": 0, "guard": 0, "rng": 2, "reduce": 1, "argreduce": 1, "cast": 1, "check": 1}
        if s.op in count:
            self.need(len(args) == count[s.op], f"{len(args)} arguments")
        if s.op == "load":
            self.access(s.attr)
            self.need(s.dtype is k.buffers[s.attr.buffer].dtype, f"{s.dtype} from a buffer of {k.buffers[s.attr.buffer].dtype}")
        elif s.op == "const":
            self.need(len(s.attr) == s.dtype.itemsize, f"{len(s.attr)} bytes for {s.dtype}")
        elif s.op == "guard":
            self.need(s.dtype is bool_ and len(s.attr) > 0, f"guard of {s.dtype}")
            self.guards(s.attr)
        elif s.op == "rng":
            self.need(s.dtype is uint32 and all(t is int64 for t in types), f"{types} to {s.dtype}")
        elif s.op == "check":
            size, _, guards = s.attr
            self.need(s.dtype is int64 and types[0].category == 1, f"{types} to {s.dtype}")
            self.need(size > 0, "index into nothing")
            self.guards(guards)
        elif s.op == "reduce":
            self.need(s.attr in MONOIDS, f"unknown monoid {s.attr}")
            self.need(s.dtype is types[0] and (s.dtype is bool_ or s.attr not in ("any", "all")), f"{types[0]} to {s.dtype}")
        elif s.op == "argreduce":
            self.need(s.attr[0] in ("max", "min") and s.dtype is int64, f"{s.attr[0]} to {s.dtype}")
            reduced = range(k.kept, len(k.extents))
            width = math.prod(k.extents[k.kept:])
            self.need(self.once([s.attr[1]], frozenset(reduced), width), "positions are not 0 .. width-1, each once")
        elif s.op not in SPECIAL:
            self.pointwise(s, types)

    def pointwise(self, s: Stmt, types: Sequence[object]) -> None:
        """Operands share a dtype; comparisons and predicates give bool, the rest the operands' dtype."""
        if s.op == "where":
            self.need(len(types) == 3 and types[0] is bool_ and types[1] is types[2] is s.dtype, f"{types} to {s.dtype}")
            return
        self.need(len(types) >= 1 and all(t is types[0] for t in types), f"operands of {types}")
        want = bool_ if s.op in COMPARISONS | PREDICATES else types[0]
        self.need(s.dtype is want, f"{types} to {s.dtype}")

    def expression(self, e: Ix) -> None:
        """Axes and data of an expression exist; sizes of data agree with their check."""
        stack = [e]
        while stack:
            for atom, c in stack.pop().terms:
                self.need(c != 0, "a term with coefficient 0")
                if isinstance(atom, int):
                    self.need(0 <= atom < len(self.k.extents), f"axis {atom} does not exist")
                elif atom[0] == "data":
                    s = self.k.stmts[atom[1]]
                    self.need(s.op == "check" and s.attr[0] == atom[2], f"%{atom[1]} is no index below {atom[2]}")
                else:
                    self.need(atom[0] in ("//", "%") and atom[2] > 0, f"unknown atom {atom[0]} {atom[2]}")
                    least = index.bounds(atom[1], self.k.extents)[0]  # printers divide without sign
                    self.need(least >= 0, f"a numerator may be {least}: {index.text(e)}")
                    stack.append(atom[1])

    def guards(self, guards: Sequence[Guard]) -> None:
        for g in guards:
            self.expression(g.ix)

    # ----------------------------------------------------------------------------------------------------------- ranges
    def access(self, a: Access) -> None:
        """The element lies inside the buffer wherever the guards hold."""
        self.need(0 <= a.buffer < len(self.k.buffers), f"buffer {a.buffer} does not exist")
        size = self.k.buffers[a.buffer].size
        found = narrowed(a.guards, self.k.extents)
        if found is None:
            return  # the guards never hold
        lo, hi = _range(a.ix, found)
        if 0 <= lo and hi < size:
            return
        names = _atoms([a.ix, *[g.ix for g in a.guards]])
        points = _points(names, self.k.extents)
        ok = np.ones(len(next(iter(points.values()))) if points else 1, bool)
        for g in a.guards:
            v = _values(g.ix, points)
            ok &= (v >= g.lo) & (v < g.hi)
        at = _values(a.ix, points)
        bad = ok & ((at < 0) | (at >= size))
        if bad.any():
            n = int(np.argmax(bad))
            here = {str(x): int(v[n]) for x, v in points.items()}
            self.fail(f"element {int(np.broadcast_to(at, bad.shape)[n])} of {size} at {here}: {index.text(a.ix)}")

    def once(self, exprs: Sequence[Ix], dims: frozenset[int], size: int) -> bool:
        """Whether the expressions together map the points of ``dims`` one to one onto 0 .. size-1."""
        return tiles([Part(e, tuple(sorted(dims)), self.k.extents) for e in exprs], size)

    # -------------------------------------------------------------------------------------------------- stores, stages
    def stores(self) -> None:
        """Every written buffer gets each of its elements exactly once, and is not read."""
        k = self.k
        deps = dependences(k)
        self.need(not (k.reads & k.writes), f"buffers {k.reads & k.writes} are read and written")
        slots = [b.slot for b in k.buffers]
        self.need(len(set(slots)) == len(slots), "two buffers of one slot")
        for n, st in enumerate(k.stores):
            self.where = f"store {n}: "
            self.need(0 <= st.value < len(k.stmts), f"%{st.value} does not exist")
            self.expression(st.access.ix)
            self.access(st.access)
            self.need(not st.access.guards and index.is_affine(st.access.ix), "stores have no guards and are affine")
            self.need(k.buffers[st.access.buffer].dtype is k.stmts[st.value].dtype,
                      f"{k.stmts[st.value].dtype} into {k.buffers[st.access.buffer].dtype}")
            axes = {d for d in deps[st.value] if k.extents[d] > 1}
            self.need(axes <= index.variables(st.access.ix), f"several points write one element of b{st.access.buffer}")
        for b, parts in parts_of(k).items():
            self.where = f"b{b}: "
            if k.buffers[b].slot not in self.shared:
                self.need(tiles(parts, k.buffers[b].size), "not every element is written exactly once")

    def stages(self) -> None:
        """Reductions come after the sweeps their operands need, and results never depend on reduced axes."""
        k = self.k
        stages, deps = stage_of(k.stmts), dependences(k)
        kept = frozenset(range(k.kept))
        for i, s in enumerate(k.stmts):
            self.where = f"%{i} ({s.op}): "
            self.need(all(stages[a] <= stages[i] for a in inputs_of(s)), "runs in an earlier sweep than its operands")
            if s.op in ("reduce", "argreduce"):
                self.need(deps[i] <= kept, "the result of a reduction varies over reduced axes")
                self.need(stages[i] > max([stages[a] for a in s.args]), "reduced in the sweep that computes its operand")
            self.need(all(0 <= d < len(k.extents) for d in deps[i]), "depends on an axis that does not exist")
            if s.op == "rng":
                self.need(all(not deps[a] for a in s.args), "seeds differ between points")
        self.where = ""


def narrowed(guards: Sequence[Guard], ext: Sequence[int]) -> dict[object, tuple[int, int]] | None:
    """Ranges (lo, hi inclusive) of the atoms under the guards, by interval propagation; None if a guard can't hold."""
    ranges: dict[object, tuple[int, int]] = {d: (0, e - 1) for d, e in enumerate(ext)}
    for _ in range(8):
        before = dict(ranges)
        for g in guards:
            lo, hi = _range(g.ix, ranges)
            if hi < g.lo or lo >= g.hi:
                return None
            for atom, c in g.ix.terms:
                a, b = _atom_range(atom, ranges)
                x, y = (c * a, c * b) if c > 0 else (c * b, c * a)
                least, most = g.lo - (hi - y), g.hi - 1 - (lo - x)  # what c * atom may be
                p, q = (-(-least // c), most // c) if c > 0 else (-(-most // c), least // c)
                a, b = max(a, p), min(b, q)
                if a > b:
                    return None
                ranges[atom] = (a, b)
        if ranges == before:
            break
    return ranges


def _atom_range(atom: object, ranges: dict[object, tuple[int, int]]) -> tuple[int, int]:
    if atom in ranges:
        return ranges[atom]
    assert isinstance(atom, tuple)
    if atom[0] == "data":
        return 0, atom[2] - 1
    lo, hi = _range(atom[1], ranges)
    if atom[0] == "//":
        return lo // atom[2], hi // atom[2]
    return (lo % atom[2], hi % atom[2]) if lo // atom[2] == hi // atom[2] else (0, atom[2] - 1)


def _range(e: Ix, ranges: dict[object, tuple[int, int]]) -> tuple[int, int]:
    lo = hi = e.const
    for atom, c in e.terms:
        a, b = _atom_range(atom, ranges)
        lo, hi = (lo + c * a, hi + c * b) if c > 0 else (lo + c * b, hi + c * a)
    return lo, hi


def _atoms(exprs: Sequence[Ix]) -> dict[object, int | None]:
    """Axes (value None) and data (value: size) the expressions are made of."""
    found: dict[object, int | None] = {}
    stack = list(exprs)
    while stack:
        for atom, _ in stack.pop().terms:
            if isinstance(atom, int):
                found[atom] = None
            elif atom[0] == "data":
                found[atom] = atom[2]
            else:
                stack.append(atom[1])
    return found


def _points(names: dict[object, int | None], ext: Sequence[int]) -> dict[object, np.ndarray]:
    """Values of the atoms at all points, or at the corners and a random sample where there are more than POINTS."""
    sizes = [n if n is not None else ext[x] for x, n in names.items()]  # type: ignore[call-overload]
    if math.prod(sizes) <= POINTS:
        grid = np.indices(sizes).reshape(len(sizes), -1) if sizes else np.zeros((0, 1), np.int64)
        return dict(zip(names, grid))
    rng = np.random.default_rng(0)
    out = []
    corners = np.array(list(itertools.islice(itertools.product((0, 1), repeat=len(sizes)), POINTS // 4)))
    for k, n in enumerate(sizes):
        out.append(np.concatenate([corners[:, k] * (n - 1), rng.integers(0, n, POINTS)]))
    return dict(zip(names, out))


def _values(e: Ix, points: dict[object, np.ndarray]) -> np.ndarray:
    """An expression at all points."""
    total = np.asarray(e.const, np.int64)
    for atom, c in e.terms:
        if atom in points:
            v = points[atom]
        else:
            inner = _values(atom[1], points)
            v = inner // atom[2] if atom[0] == "//" else inner % atom[2]
        total = total + c * v
    return total


def parts_of(k: Kernel) -> dict[int, list[Part]]:
    """What the stores of a kernel write, by buffer."""
    out: dict[int, list[Part]] = {}
    for st in k.stores:
        dims = tuple(sorted(index.variables(st.access.ix)))
        out.setdefault(st.access.buffer, []).append(Part(st.access.ix, dims, k.extents))
    return out


def tiles(parts: Sequence[Part], size: int) -> bool:
    """Whether the parts together give each of 0 .. size-1 exactly once; of more than ELEMENTS only the number is compared."""
    if len(parts) == 1 and index.covers(parts[0].ix, parts[0].dims, parts[0].ext, size):
        return True
    if sum(p.points for p in parts) != size:
        return False
    if size > ELEMENTS:
        return True
    seen = np.zeros(size, bool)
    for p in parts:
        grid = np.indices([p.ext[d] for d in p.dims], sparse=True)
        at = np.broadcast_to(_values(p.ix, dict(zip(p.dims, grid))), [p.ext[d] for d in p.dims])
        if at.size and (at.min() < 0 or at.max() >= size):
            return False
        seen[at.reshape(-1)] = True
    return bool(seen.all())  # as many stores as elements, and none left out


def verify_kernel(k: Kernel, shared: frozenset[int] = frozenset()) -> None:
    """Raise VerifyError, naming the statement, unless the kernel is well formed. Slots in ``shared`` may be written in part."""
    _Verifier(k, shared).run()


def verify_schedule(graph: Graph, sched: Schedule) -> None:
    """Raise VerifyError unless every kernel is well formed, every step reads what is complete by then, every slot that
    several kernels write is covered exactly once, and all outputs are there."""
    writers: dict[int, int] = {}
    parts: dict[int, list[Part]] = {}
    sizes: dict[int, int] = {}
    for step in sched.steps:
        if not isinstance(step, Kernel):
            writers.update(dict.fromkeys(range(step.slot, step.end), 1))
            continue
        for b, more in parts_of(step).items():
            slot = step.buffers[b].slot
            writers[slot] = writers.get(slot, 0) + 1
            parts.setdefault(slot, []).extend(more)
            sizes[slot] = step.buffers[b].size
    shared = frozenset(s for s, n in writers.items() if n > 1)
    for s in shared:
        if not tiles(parts[s], sizes[s]):
            raise VerifyError(f"slot {s}: not every element is written exactly once by the kernels that write it")
    left = dict(writers)  # writers that are still to come
    inputs = {n.slot for n in graph.inputs}

    def ready(slot: int, who: str) -> None:
        base = sched.views[slot][0] if slot in sched.views else slot
        if base not in inputs and left.get(base, -1) != 0:
            raise VerifyError(f"{who} reads slot {base} before it is complete")

    for step in sched.steps:
        if isinstance(step, Kernel):
            verify_kernel(step, shared)
            for b in step.reads:
                ready(step.buffers[b].slot, f"kernel {step.name}")
            for b in step.writes:
                left[step.buffers[b].slot] -= 1
        else:
            for s in step.ins:
                ready(s, f"{step.op} (slot {step.slot})")
            left.update(dict.fromkeys(range(step.slot, step.end), 0))
    for s in graph.outputs:
        ready(s, "the result")


__all__ = ["VerifyError", "narrowed", "verify_kernel", "verify_schedule"]
