"""Print a loop-IR kernel as LLVM IR.

Layout of the work. One axis is the *vector axis*: the one along which most accesses are contiguous. If it is a kept
axis, every lane is a row of its own (column mode: pointwise kernels, sums over leading axes); if it is a reduced axis,
lanes walk one row and are combined at its end (row mode: softmax, norms). The kept axes outside the vector axis,
flattened, times blocks of a kept vector axis, are the tasks that threads share. Where an access is contiguous along
another kept axis instead (a transposition), that axis is the innermost loop around single vectors, and square tiles are
loaded along it and transposed in registers, so that every cache line is read once.

A row is a sequence of sweeps over the reduced axes, one per stage of the kernel; before a sweep come the per-row
statements it needs. Statements are placed in the outermost loop that binds all axes they depend on. The vector axis runs
in steps of ``unroll`` vectors, then single vectors with a lane mask for the rest. Expensive values that a later sweep
needs again are kept in a per-thread scratch row instead of being computed twice.

Every extent, stride, bound and divisor is a run-time word of the argument block, except strides -1 .. 4, so the text (and
the compiled code) is the same for every batch size. Argument block: one pointer per buffer, the error block, the
scratch area, then these numbers.
"""
from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...dtypes import bool_, float32, float64, int64
from .. import index
from ..index import Ix
from ..loop_ir import Access, Guard, Kernel, Stmt, dependences, inputs_of, stage_of
from . import opcodes, vmath
from .llvm import Function, const, lanes, module, vec

SCRATCH_LIMIT = 1 << 16  # bytes of a scratch row; longer rows are recomputed
TASK = 8192  # points of a task of a pointwise kernel
TILE_STATEMENTS = 16  # a tile repeats its statements for every column: larger kernels gather
RUN = 256  # steps along the second axis of a transposition in one task
_HEAVY = opcodes.MATH | {"div", "sqrt", "rsqrt", "reciprocal", "rng"}


@dataclass(frozen=True)
class Printed:
    """Source of a kernel and what its launch needs."""

    symbol: str
    text: str
    numbers: tuple[int, ...]  # words after the pointers
    scratch: int  # bytes per thread
    checks: bool  # may report an index error
    work: int  # points, for deciding whether threads are worth waking


@dataclass
class Val:
    """A statement's value: one register when uniform over the vector axis, else one vector per unrolled step."""

    regs: list[str]
    ty: str

    @property
    def uniform(self) -> bool:
        return self.ty[0] != "<"


Env = dict[int, Val]


class Lanes:
    """Where the vector axis stands: index of the first lane of each unrolled vector (a multiple of the width), and the mask
    and number of live lanes where not all are."""

    def __init__(self, starts: list[str], width: int, mask: str | None, count: str = ""):
        self.starts, self.width, self.mask, self.count = starts, width, mask, count


class Printer:
    """State of printing one kernel."""

    def __init__(self, k: Kernel, vector_bits: int):
        self.k = k
        self.deps = dependences(k)
        self.stages = stage_of(k.stmts)
        self.f = Function("KERNEL")
        self.numbers: list[int] = []
        self.named: dict[tuple[object, ...], str] = {}
        self.vaxis = choose_vector_axis(k)
        self.across = second_axis(k, self.vaxis)
        wide = all(b.dtype.itemsize == 8 for b in k.buffers) or any(s.dtype is float64 for s in k.stmts)
        width = max(1, vector_bits // (64 if wide else 32))
        self.width = width if self.vaxis is not None else 1
        self.dims: dict[int, str] = {}  # bound axes -> index register (not the vector axis)
        self.pointers = [self.entry(f"load ptr, ptr %args.{i}, !invariant.load !{{}}", i) for i in range(len(k.buffers))]
        self.extents = [self.number(e, fixed=False) for e in k.extents]
        self.lanes: Lanes | None = None
        self.sweeps = max(self.stages, default=0) + 1
        self.plan_sweeps()
        big = sum(1 for s in k.stmts if s.op not in ("const", "load")) > 40
        self.unroll = 1 if big or self.vaxis is None else 4 if self.has_reductions or len(k.stmts) < 12 else 2
        if self.rng or any(s.op in ("lgamma", "digamma", "trigamma", "erfinv", "pow") for s in k.stmts):
            self.unroll = 1
        self.tiled: list[int] = []  # loads transposed in registers
        if self.across is not None and self.width > 1 and not self.has_reductions:
            self.unroll = 1
            self.tiled = [i for i, s in enumerate(k.stmts) if s.op == "load" and self.is_transposed(s.attr)]
            if len(k.stmts) - len(self.tiled) > TILE_STATEMENTS:
                self.tiled = []

    # ------------------------------------------------------------------------------------------------------- planning
    @property
    def row_mode(self) -> bool:
        """Lanes walk a reduced axis."""
        return self.vaxis is not None and self.vaxis >= self.k.kept

    def is_transposed(self, a: Access) -> bool:
        """Whether a load is strided along the vector axis and contiguous along the second axis."""
        assert self.vaxis is not None and self.across is not None
        return (not a.guards and index.coefficient(a.ix, self.vaxis) not in (0, 1, None) and not index.data(a.ix)
                and index.coefficient(a.ix, self.across) == 1 and index.variables(a.ix) <= frozenset(range(self.k.kept)))

    def plan_sweeps(self) -> None:
        """Which statements each sweep and each row section needs, and what is kept in scratch between sweeps."""
        k = self.k
        kept = frozenset(range(k.kept))
        self.inner = [not d <= kept for d in self.deps]
        self.has_reductions = any(s.op in ("reduce", "argreduce") for s in k.stmts)
        self.rng = any(s.op == "rng" for s in k.stmts)
        self.reduces: list[list[int]] = [[] for _ in range(self.sweeps)]
        for i, s in enumerate(k.stmts):
            if s.op in ("reduce", "argreduce"):
                self.reduces[self.stages[i] - 1].append(i)
        self.stores: list[list[int]] = [[] for _ in range(self.sweeps)]
        self.row_stores: list[int] = []
        for n, st in enumerate(k.stores):
            if self.inner[st.value] or not index.variables(st.access.ix) <= kept:
                self.stores[self.stages[st.value]].append(n)
            else:
                self.row_stores.append(n)
        self.spill: dict[int, int] = {}  # statement -> scratch row number
        self.needs = [self.closure(s) for s in range(self.sweeps)]
        if not self.row_mode:
            return
        length = math.prod(k.extents[k.kept:])
        for later in range(1, self.sweeps):
            for i in self.needs[later]:
                if (self.vaxis in self.deps[i] and self.stages[i] < later and k.stmts[i].op in opcodes.MATH
                        and i not in self.spill and i in self.needs[self.stages[i]]
                        and (len(self.spill) + 1) * length * 8 <= SCRATCH_LIMIT):
                    self.spill[i] = len(self.spill)
        if self.spill:
            self.needs = [self.closure(s) for s in range(self.sweeps)]

    def closure(self, sweep: int) -> list[int]:
        """Statements sweep ``sweep`` evaluates, in order."""
        k = self.k
        stack = [a for r in self.reduces[sweep] for a in inputs_of(k.stmts[r])]
        stack += [k.stores[n].value for n in self.stores[sweep]]
        stack += [i for i, s in enumerate(k.stmts) if s.op == "check" and self.stages[i] == sweep]  # even if nobody reads it
        return self.reach(stack, sweep)

    def reach(self, stack: list[int], sweep: int) -> list[int]:
        """All statements the given ones need, stopping at reductions and at values kept from an earlier sweep."""
        k = self.k
        seen: set[int] = set()
        while stack:
            i = stack.pop()
            if i in seen:
                continue
            seen.add(i)
            if k.stmts[i].op in ("reduce", "argreduce") or (i in self.spill and self.stages[i] < sweep):
                continue
            stack += inputs_of(k.stmts[i])
        return sorted(seen)

    # -------------------------------------------------------------------------------------------------- numbers, entry
    def entry(self, text: str, word: int) -> str:
        """An entry-block load of an argument word."""
        r = self.f.fresh("a")
        self.f._entry.append(f"  %p{r} = getelementptr i64, ptr %args, i64 {word}")
        self.f._entry.append("  %" + r + " = " + text.replace(f"%args.{word}", f"%p{r}"))
        return "%" + r

    def number(self, n: int, fixed: bool = True) -> str:
        """A run-time number; small ones (strides) are literal when ``fixed``."""
        if fixed and -1 <= n <= 4:
            return str(n)
        word = len(self.k.buffers) + 2 + len(self.numbers)
        self.numbers.append(n)
        return self.entry(f"load i64, ptr %args.{word}, !invariant.load !{{}}", word)

    def coef(self, key: tuple[object, ...], n: int) -> str:
        """The number ``n`` at one place of the kernel: loaded once for that place."""
        if -1 <= n <= 4:
            return str(n)
        found = self.named.get(key)
        if found is None:
            found = self.named[key] = self.number(n)
        return found

    # --------------------------------------------------------------------------------------------- index expressions
    def scalar_ix(self, ix: Ix, place: tuple[object, ...], env: Env, skip: object = None) -> str:
        """The uniform part of an expression as an i64 register (the term of atom ``skip`` left out)."""
        f = self.f
        total = "0" if ix.const == 0 else self.coef((*place, "c"), ix.const)
        for n, (atom, c) in enumerate(ix.terms):
            if atom == skip and skip is not None:
                continue
            if isinstance(atom, int):
                v = self.dims[atom]
            elif atom[0] == "data":
                v = env[atom[1]].regs[0]
            else:
                inner = self.scalar_ix(atom[1], (*place, n), env)
                d = self.coef((*place, n, "d"), atom[2])
                v = f.div(inner, d) if atom[0] == "//" else f.rem(inner, d)
            total = f.add(total, f.mul(v, self.coef((*place, n), c)))
        return total

    def varies(self, ix: Ix, env: Env) -> bool:
        """Whether the expression differs between lanes."""
        return self.vaxis is not None and (self.vaxis in index.variables(ix) or any(not env[d].uniform for d in index.data(ix)))

    def vector_ix(self, ix: Ix, place: tuple[object, ...], env: Env, u: int) -> str:
        """An expression as a vector of i64, one per lane of unrolled vector ``u``."""
        f, ln = self.f, self.lanes
        assert ln is not None
        t = vec(ln.width, "i64")
        total = f.splat(t, "0" if ix.const == 0 else self.coef((*place, "c"), ix.const))
        for n, (atom, c) in enumerate(ix.terms):
            if atom == self.vaxis:
                v = f.op("add", t, f.splat(t, ln.starts[u]), f.ramp(t))
            elif isinstance(atom, int):
                v = f.splat(t, self.dims[atom])
            elif atom[0] == "data":
                val = env[atom[1]]
                v = f.splat(t, val.regs[0]) if val.uniform else val.regs[u]
            elif self.is_pattern(atom):
                kind, _, part = atom
                steps = [lane // part if kind == "//" else lane % part for lane in range(ln.width)]
                v = "<" + ", ".join(f"i64 {x}" for x in steps) + ">"
                if kind == "//":
                    v = f.op("add", t, f.splat(t, f.div(ln.starts[u], str(part))), v)
            else:
                inner = self.vector_ix(atom[1], (*place, n), env, u)
                d = f.splat(t, self.coef((*place, n, "d"), atom[2]))
                v = f.op("udiv" if atom[0] == "//" else "urem", t, inner, d)
            total = f.op("add", t, total, f.op("mul", t, v, f.splat(t, self.coef((*place, n), c))) if c != 1 else v)
        return total

    def is_pattern(self, atom: Any) -> bool:
        """Whether an atom is the vector axis divided by (or modulo) a small power of two: lanes then form a fixed pattern."""
        return (not isinstance(atom, int) and atom[0] in ("//", "%") and self.width % atom[2] == 0 and atom[2] <= 8
                and atom[1] == Ix(0, ((self.vaxis, 1),)))

    def condition(self, guards: Sequence[Guard], place: tuple[object, ...], env: Env) -> Val | None:
        """All guards together as i1, or None when there are none."""
        f = self.f
        if not guards:
            return None
        vector = any(self.varies(g.ix, env) for g in guards)
        out = []
        for u in range(len(self.lanes.starts) if vector and self.lanes else 1):
            w = self.width if vector else 1
            t, b = vec(w, "i64"), vec(w, "i1")
            total = ""
            for n, g in enumerate(guards):
                here = (*place, "g", n)
                v = self.vector_ix(g.ix, here, env, u) if vector else self.scalar_ix(g.ix, here, env)
                lo, hi = f.splat(t, self.coef((*here, "lo"), g.lo)), f.splat(t, self.coef((*here, "hi"), g.hi))
                c = f.op("and", b, f.cmp("sge", t, v, lo), f.cmp("slt", t, v, hi))
                total = f.op("and", b, total, c) if total else c
            out.append(total)
        return Val(out, vec(self.width, "i1") if vector else "i1")

    # ---------------------------------------------------------------------------------------------------- statements
    def place(self, order: Sequence[int], env: Env, bound: frozenset[int], sweep: int) -> None:
        """Emit the statements of ``order`` whose axes are all bound and that are not in ``env`` yet."""
        for i in order:
            if (i not in env and self.deps[i] <= bound and self.stages[i] <= sweep
                    and self.k.stmts[i].op not in ("reduce", "argreduce")):
                env[i] = self.scratch_load(i) if i in self.spill and self.stages[i] < sweep else self.statement(i, env)
                if i in self.spill and self.stages[i] == sweep and self.inner[i]:
                    self.scratch_store(i, env[i])

    def statement(self, i: int, env: Env) -> Val:
        """Emit one statement."""
        s, f = self.k.stmts[i], self.f
        if s.op == "load":
            return self.load(i, s.attr, env)
        if s.op == "const":
            ty = opcodes.register_type(s.dtype)
            return Val([const(ty, np.frombuffer(s.attr, s.dtype.np)[0].item())], ty)
        if s.op == "guard":
            c = self.condition(s.attr, (i,), env)
            assert c is not None
            return c
        if s.op in ("index", "rng"):
            vector = self.varies(s.attr, env)
            n = len(self.lanes.starts) if vector and self.lanes else 1
            regs = [self.vector_ix(s.attr, (i,), env, u) if vector else self.scalar_ix(s.attr, (i,), env) for u in range(n)]
            t = vec(self.width, "i64") if vector else "i64"
            if s.op == "rng":
                seed, offset = [env[a].regs[0] for a in s.args]
                return Val([philox(f, t, r, seed, offset) for r in regs], vec(lanes(t), "i32"))
            return Val([opcodes.cast(f, int64, t, r, s.dtype) for r in regs], vec(lanes(t), opcodes.register_type(s.dtype)))
        if s.op == "check":
            return self.check(i, s, env)
        return self.pointwise(s, env)

    def pointwise(self, s: Stmt, env: Env) -> Val:
        """An opcode on registers, splatting uniform operands where others are vectors."""
        args = [env[a] for a in s.args]
        vector = any(not a.uniform for a in args)
        src = self.k.stmts[s.args[-1]].dtype
        w = self.width if vector else 1
        ty = vec(w, opcodes.register_type(src))
        n = max(len(a.regs) for a in args)
        spread = [self.spread(a) if vector else a for a in args]
        regs = [opcodes.emit(self.f, s.op, src, ty, [a.regs[u % len(a.regs)] for a in spread], s.dtype) for u in range(n)]
        return Val(regs, vec(w, opcodes.register_type(s.dtype)))

    def spread(self, a: Val) -> Val:
        """A uniform value as a vector."""
        if not a.uniform:
            return a
        t = vec(self.width, a.ty)
        return Val([self.f.splat(t, a.regs[0])], t)

    def check(self, i: int, s: Stmt, env: Env) -> Val:
        """An index, wrapped, reported and set to 0 when out of range."""
        f = self.f
        size, wrap, guards = s.attr
        val = env[s.args[0]]
        cond = self.condition(guards, (i, "w"), env)
        if cond is not None and not cond.uniform:
            val = self.spread(val)
        src = self.k.stmts[s.args[0]].dtype
        t = vec(lanes(val.ty), "i64")
        n = self.coef((i, "size"), size)
        out = []
        for u in range(max(len(val.regs), len(cond.regs) if cond is not None else 1)):  # guards differ
            x = opcodes.cast(f, src, val.ty, val.regs[u % len(val.regs)], int64)
            y = x
            if wrap:
                y = f.select(t, f.cmp("slt", t, x, const(t, 0)), f.op("add", t, x, f.splat(t, n)), x)
            ok = f.cmp("ult", t, y, f.splat(t, n))
            bad = f.op("xor", vec(lanes(t), "i1"), ok, const(vec(lanes(t), "i1"), True))
            if cond is not None:
                c = cond.regs[u % len(cond.regs)]
                bad = f.op("and", vec(lanes(t), "i1"), bad, f.splat(vec(lanes(t), "i1"), c) if cond.uniform else c)
            self.report(bad, t)
            out.append(f.select(t, ok, y, const(t, 0)))
        return Val(out, t)

    def report(self, bad: str, t: str) -> None:
        """Set the error flag if any live lane is bad."""
        f = self.f
        if t[0] == "<":
            b = vec(lanes(t), "i1")
            if self.lanes is not None and self.lanes.mask is not None:
                bad = f.op("and", b, bad, self.lanes.mask)
            bad = f.call(f"llvm.vector.reduce.or.v{lanes(t)}i1", "i1", (b, bad))
        with f.when(bad):
            err = f.arg(len(self.k.buffers), "ptr")
            f.emit(f"store i64 1, ptr {err}, align 8")

    # --------------------------------------------------------------------------------------------------------- memory
    def load(self, i: int, a: Access, env: Env) -> Val:
        """Read a buffer: a scalar, a contiguous vector or a gather, under guards and the lane mask."""
        f = self.f
        dt = self.k.buffers[a.buffer].dtype
        base = self.pointers[a.buffer]
        mem, reg = opcodes.memory_type(dt), opcodes.register_type(dt)
        cond = self.condition(a.guards, (i,), env)
        vector = self.varies(a.ix, env)
        if not vector and (cond is None or cond.uniform):
            at = self.scalar_ix(a.ix, (i,), env)
            if cond is not None:
                at = f.select("i64", cond.regs[0], at, "0")
            return Val([opcodes.load_convert(f, dt, reg, f.load(mem, f.at(mem, base, at)))], reg)
        assert self.lanes is not None and self.vaxis is not None
        t, w = vec(self.width, reg), self.width
        whole = self.load_pattern(i, a, env) if cond is None and w > 1 else None
        if whole is not None:
            return Val([opcodes.load_convert(f, dt, t, x) for x in whole], t)
        stride = index.coefficient(a.ix, self.vaxis) if all(env[d].uniform for d in index.data(a.ix)) else None
        near = stride is not None and abs(stride) * w < 1 << 31  # offsets within a vector fit 32 bits: faster gathers
        start = self.scalar_ix(a.ix, (i,), env, self.vaxis) if near else ""
        offsets = ""
        if near and stride != 1:
            t32 = vec(w, "i32")
            step = self.coef((i, "step"), stride or 0)
            offsets = f.op("mul", t32, f.ramp(t32), f.splat(t32, f.cast("trunc", "i64", step, "i32")))
        out = []
        for u, first in enumerate(self.lanes.starts):
            mask = self.masked(cond, u)
            if stride == 1:
                x = f.load(vec(w, mem), f.at(mem, base, f.add(start, first)), mask)
            elif near:
                x = f.gather(vec(w, mem), f.at(mem, base, f.add(start, f.mul(first, step))), offsets, mask, "i32")
            else:
                x = f.gather(vec(w, mem), base, self.vector_ix(a.ix, (i,), env, u), mask)
            out.append(opcodes.load_convert(f, dt, t, x))
        return Val(out, t)

    def load_pattern(self, i: int, a: Access, env: Env) -> list[str] | None:
        """Loads with lanes in a fixed pattern, as whole vectors and a shuffle: backwards, every second element, or each
        element repeated.

        None where the access is something else.
        """
        f, w, ln = self.f, self.width, self.lanes
        assert ln is not None
        mem = opcodes.memory_type(self.k.buffers[a.buffer].dtype)
        base, ty = self.pointers[a.buffer], vec(w, mem)
        mine = [(atom, c) for atom, c in a.ix.terms if self.varies(Ix(0, ((atom, c),)), env)]
        if len(mine) != 1:
            return None
        (atom, c), out = mine[0], []
        if atom == self.vaxis and c == 2:
            start = self.scalar_ix(a.ix, (i,), env, atom)
            need = f.sub(f.mul(ln.count, "2"), "1") if ln.mask is not None else str(2 * w - 1)
            masks = [f.lane_mask(w, need) if ln.mask is not None else None, f.lane_mask(w, f.max(f.sub(need, str(w)), "0"))]
            picks = ", ".join(f"i32 {2 * x}" for x in range(w))
            for first in ln.starts:
                at = f.add(start, f.mul(first, "2"))
                low = f.load(ty, f.at(mem, base, at), masks[0])
                high = f.load(ty, f.at(mem, base, f.add(at, str(w))), masks[1])
                out.append(f.let(f"shufflevector {ty} {low}, {ty} {high}, <{w} x i32> <{picks}>"))
            return out
        if atom == self.vaxis and c == -1:
            start = f.sub(self.scalar_ix(a.ix, (i,), env, atom), str(w - 1))
            t = vec(w, "i64")
            mask = None
            if ln.mask is not None:
                mask = f.cmp("uge", t, f.ramp(t), f.splat(t, f.max(f.sub(str(w), ln.count), "0")))
            picks = ", ".join(f"i32 {w - 1 - x}" for x in range(w))
            for first in ln.starts:
                x = f.load(ty, f.at(mem, base, f.sub(start, first)), mask)
                out.append(f.let(f"shufflevector {ty} {x}, {ty} poison, <{w} x i32> <{picks}>"))
            return out
        if c == 1 and self.is_pattern(atom) and atom[0] == "//" and w // atom[2] > 1:
            start, part = self.scalar_ix(a.ix, (i,), env, atom), atom[2]
            few = vec(w // part, mem)
            picks = ", ".join(f"i32 {x // part}" for x in range(w))
            for first in ln.starts:
                mask = f.lane_mask(w // part, f.ceil_div(ln.count, part)) if ln.mask is not None else None
                x = f.load(few, f.at(mem, base, f.add(start, f.div(first, str(part)))), mask)
                out.append(f.let(f"shufflevector {few} {x}, {few} poison, <{w} x i32> <{picks}>"))
            return out
        return None

    def masked(self, cond: Val | None, u: int) -> str | None:
        """Lane mask and guard together for unrolled vector ``u``."""
        assert self.lanes is not None
        if cond is None:
            return self.lanes.mask
        c = self.spread(cond).regs
        c0 = c[u % len(c)]
        return c0 if self.lanes.mask is None else self.f.op("and", vec(self.width, "i1"), c0, self.lanes.mask)

    def store(self, n: int, env: Env) -> None:
        """Write a value at its place."""
        f = self.f
        st = self.k.stores[n]
        a, val = st.access, env[st.value]
        dt = self.k.buffers[a.buffer].dtype
        base, mem = self.pointers[a.buffer], opcodes.memory_type(dt)
        place = ("s", n)
        if not self.varies(a.ix, env):
            x = opcodes.store_convert(f, dt, val.ty, val.regs[0])
            f.store(mem, x, f.at(mem, base, self.scalar_ix(a.ix, place, env)))
            return
        assert self.lanes is not None and self.vaxis is not None
        val = self.spread(val)
        w = self.width
        contiguous = index.coefficient(a.ix, self.vaxis) == 1
        start = self.scalar_ix(a.ix, place, env, self.vaxis) if contiguous else ""
        for u, first in enumerate(self.lanes.starts):
            x = opcodes.store_convert(f, dt, val.ty, val.regs[u % len(val.regs)])
            if contiguous:
                f.store(vec(w, mem), x, f.at(mem, base, f.add(start, first)), self.lanes.mask)
            else:
                f.scatter(vec(w, mem), x, base, self.vector_ix(a.ix, place, env, u), self.lanes.mask)

    def scratch_at(self, i: int, u: int) -> str:
        """Address of unrolled vector ``u`` of a kept value in this thread's scratch rows (8 bytes an element)."""
        f, k = self.f, self.k
        assert self.lanes is not None
        pos = "0"
        for d in range(k.kept, len(k.extents)):
            pos = f.add(f.mul(pos, self.extents[d]), self.lanes.starts[u] if d == self.vaxis else self.dims[d])
        row = f.add(f.mul(self.scratch_length, str(self.spill[i])), pos)
        return f.at("i64", self.scratch_base, row) if lanes(self.k_type(i)) == 1 else f.let(
            f"getelementptr i8, ptr {self.scratch_base}, i64 {f.mul(row, '8')}")

    def k_type(self, i: int) -> str:
        return vec(self.width, opcodes.register_type(self.k.stmts[i].dtype))

    def scratch_store(self, i: int, v: Val) -> None:
        assert self.lanes is not None
        v = self.spread(v)
        for u in range(len(self.lanes.starts)):
            self.f.store(v.ty, v.regs[u % len(v.regs)], self.scratch_at(i, u), self.lanes.mask)

    def scratch_load(self, i: int) -> Val:
        assert self.lanes is not None
        t = self.k_type(i)
        return Val([self.f.load(t, self.scratch_at(i, u), self.lanes.mask) for u in range(len(self.lanes.starts))], t)

    # ---------------------------------------------------------------------------------------------------------- loops
    def vector_loop(self, lo: str, hi: str, body: Callable[[Sequence[str]], Sequence[str]],
                    carried: Sequence[tuple[str, str]]) -> list[str]:
        """Run ``body`` over lo .. hi along the vector axis: unrolled whole vectors, then single masked vectors.

        ``carried`` are per-vector accumulators (type, initial value): each unrolled vector has its own set; the sets are
        returned one after the other (set 0 continues through the masked part).
        """
        f, w, n = self.f, self.width, len(carried)
        outer = self.lanes
        if w == 1:
            def single(i: str, *acc: str) -> Sequence[str]:
                self.lanes = Lanes([i], 1, None)
                return body(acc)

            out = f.loop(lo, hi, single, carried)
            self.lanes = outer
            return out
        step = w * self.unroll
        span = f.max(f.sub(hi, lo), "0")
        end = f.add(lo, f.mul(f.div(span, str(step)), str(step)))

        def whole(i: str, *acc: str) -> Sequence[str]:
            self.lanes = Lanes([f.add(i, str(u * w)) for u in range(self.unroll)], w, None)
            return body(acc)

        sets = f.loop(lo, end, whole, [c for _ in range(self.unroll) for c in carried], step)

        def rest(i: str, *acc: str) -> Sequence[str]:
            left = f.sub(hi, i)
            self.lanes = Lanes([i], w, f.lane_mask(w, left), left)
            return body(acc)

        tail = f.loop(end, hi, rest, [(carried[j][0], sets[j]) for j in range(n)], w)
        self.lanes = outer
        return [*tail, *sets[n:]]

    def build(self) -> None:
        """The whole function body."""
        f, k = self.f, self.k
        self.scratch_base, self.scratch_length = "", ""
        if self.spill:
            base = f.arg(len(k.buffers) + 1, "ptr")
            self.scratch_length = self.number(-(-math.prod(k.extents[k.kept:]) // 64) * 64 + 64, fixed=False)
            size = f.mul(f.mul(self.scratch_length, str(len(self.spill))), "8")
            self.scratch_base = f.let(f"getelementptr i8, ptr {base}, i64 {f.mul(size, '%tid')}")
        outer = [d for d in range(k.kept) if d != self.vaxis]
        tasks = "1"
        for d in outer:
            tasks = f.mul(tasks, self.extents[d])
        column = self.vaxis is not None and not self.row_mode
        if column:
            assert self.vaxis is not None
            step = self.width * self.unroll if self.has_reductions or self.across is not None else TASK
            blocks = f.ceil_div(self.extents[self.vaxis], step)
            tasks = f.mul(tasks, blocks)
        if self.across is not None:
            outer.remove(self.across)
            runs = f.ceil_div(self.extents[self.across], RUN)
            tasks = f.mul(f.div(tasks, self.extents[self.across]), runs)
        lo, hi = f.share(tasks)

        def task(t: str) -> None:
            env: Env = {}
            self.dims = {}
            block = run = "0"
            rest = t
            if column:
                block, rest = f.rem(rest, blocks), f.div(rest, blocks)
            if self.across is not None:
                run, rest = f.rem(rest, runs), f.div(rest, runs)
            for d in reversed(outer):
                first = d == outer[0]
                self.dims[d] = rest if first else f.rem(rest, self.extents[d])
                rest = rest if first else f.div(rest, self.extents[d])
            self.place(sorted({i for n in self.all_needs() for i in n}), env, frozenset(outer), 0)
            if not column:
                self.row(env)
                return
            assert self.vaxis is not None
            start = f.mul(block, str(step))
            stop = f.min(f.add(start, str(step)), self.extents[self.vaxis])

            def block_body(acc: Sequence[str]) -> Sequence[str]:
                if self.across is None:
                    self.row(dict(env))
                    return ()
                d, first = self.across, f.mul(run, str(RUN))

                def one(i: str) -> None:
                    self.dims[d] = i
                    self.row(dict(env))

                last = f.min(f.add(first, str(RUN)), self.extents[d])
                whole = first
                if self.tiled:
                    whole = f.sub(last, f.rem(f.sub(last, first), str(self.width)))
                    f.loop(first, whole, lambda i: self.tile(i, env), step=self.width)
                f.loop(whole, last, one)
                return ()

            self.vector_loop(start, stop, block_body, ())

        f.loop(lo, hi, task)

    def tile(self, first: str, env: Env) -> None:
        """``width`` steps along the second axis at once: transposed loads, then every step's statements."""
        assert self.across is not None
        self.dims[self.across] = first
        columns = {i: self.tile_load(i, self.k.stmts[i].attr, env) for i in self.tiled}
        for u in range(self.width):
            self.dims[self.across] = self.f.add(first, str(u))
            self.row({**env, **{i: Val([regs[u]], vec(self.width, opcodes.register_type(self.k.stmts[i].dtype)))
                                for i, regs in columns.items()}})

    def tile_load(self, i: int, a: Access, env: Env) -> list[str]:
        """The values of a transposed load, one vector along the vector axis for each step along the second axis."""
        f, w = self.f, self.width
        assert self.lanes is not None and self.vaxis is not None
        dt = self.k.buffers[a.buffer].dtype
        mem, base = opcodes.memory_type(dt), self.pointers[a.buffer]
        start = self.scalar_ix(a.ix, (i,), env, self.vaxis)
        stride = self.coef((i, "step"), index.coefficient(a.ix, self.vaxis) or 0)
        rows = []
        for j in range(w):
            row = f.add(self.lanes.starts[0], str(j))
            if self.lanes.mask is not None:  # beyond the edge: any row inside will do
                row = f.min(row, f.sub(self.extents[self.vaxis], "1"))
            rows.append(f.load(vec(w, mem), f.at(mem, base, f.add(start, f.mul(row, stride)))))
        reg = vec(w, opcodes.register_type(dt))
        return [opcodes.load_convert(f, dt, reg, x) for x in f.transpose(vec(w, mem), rows)]

    def all_needs(self) -> list[list[int]]:
        """Statements of all sweeps and of the per-row stores."""
        return [*self.needs, self.reach([self.k.stores[n].value for n in self.row_stores], self.sweeps)]

    def row(self, env: Env) -> None:
        """All sweeps of one row (or of one block of rows in column mode), then the per-row stores."""
        kept = frozenset(range(self.k.kept))
        for s in range(self.sweeps):
            self.place(self.needs[s], env, kept, s)
            if self.reduces[s] or self.stores[s]:
                self.sweep(s, env)
        self.place(self.all_needs()[-1], env, kept, self.sweeps)
        for n in self.row_stores:
            self.store(n, env)

    def sweep(self, s: int, env: Env) -> None:
        """One pass over the reduced axes."""
        k = self.k
        axes = list(range(k.kept, len(k.extents)))
        if self.row_mode:
            axes = [d for d in axes if d != self.vaxis] + [self.vaxis]  # type: ignore[list-item]
        carried = [c for r in self.reduces[s] for c in self.start(r)]
        sets = self.unroll if self.row_mode and self.width > 1 else len(self.lanes.starts) if self.lanes else 1
        full = [c for _ in range(sets) for c in carried]
        names = self.nest(s, axes, 0, dict(env), frozenset(range(k.kept)), full)
        self.finish(s, names, len(carried), env)

    def start(self, r: int) -> list[tuple[str, str]]:
        """(type, initial value) of the accumulators of a reduction."""
        s = self.k.stmts[r]
        dt = self.k.stmts[s.args[0]].dtype
        w = self.width if self.vaxis is not None else 1
        ty = vec(w, opcodes.register_type(dt))
        if s.op == "reduce":
            return [(ty, opcodes.identity(s.attr, dt, ty))]
        t = vec(w, "i64")
        return [(ty, opcodes.identity(s.attr[0], dt, ty)), (t, const(t, (1 << 63) - 1))]

    def nest(self, s: int, axes: list[int], depth: int, env: Env, bound: frozenset[int],
             acc: Sequence[tuple[str, str]]) -> list[str]:
        """The loops over ``axes[depth:]`` (few, by construction) around the sweep's body."""
        f = self.f
        if depth == len(axes):
            return self.body(s, env, bound, [v for _, v in acc])
        d = axes[depth]
        if self.row_mode and d == self.vaxis:
            if self.width == 1:
                return self.vector_loop("0", self.extents[d], lambda a: self.body(s, dict(env), bound | {d}, list(a)), acc)
            n = len(acc) // self.unroll

            def vector_body(a: Sequence[str]) -> Sequence[str]:
                return self.body(s, dict(env), bound | {d}, list(a))

            return self.vector_loop_sets("0", self.extents[d], vector_body, acc, n)

        def scalar_body(i: str, *a: str) -> Sequence[str]:
            self.dims[d] = i
            here = dict(env)
            self.place(self.needs[s], here, bound | {d}, s)
            return self.nest(s, axes, depth + 1, here, bound | {d}, [(t, v) for (t, _), v in zip(acc, a)])

        return f.loop("0", self.extents[d], scalar_body, acc)

    def vector_loop_sets(self, lo: str, hi: str, body: Callable[[Sequence[str]], Sequence[str]],
                         acc: Sequence[tuple[str, str]], n: int) -> list[str]:
        """:meth:`vector_loop` continuing given accumulator sets (``n`` accumulators each) of an outer loop."""
        f, w = self.f, self.width
        step = w * self.unroll
        end = f.mul(f.div(hi, str(step)), str(step))

        def whole(i: str, *a: str) -> Sequence[str]:
            self.lanes = Lanes([f.add(i, str(u * w)) for u in range(self.unroll)], w, None)
            return body(a)

        sets = f.loop(lo, end, whole, acc, step)

        def rest(i: str, *a: str) -> Sequence[str]:
            left = f.sub(hi, i)
            self.lanes = Lanes([i], w, f.lane_mask(w, left), left)
            return body(a)

        tail = f.loop(end, hi, rest, [(acc[j][0], sets[j]) for j in range(n)], w)
        self.lanes = None
        return [*tail, *sets[n:]]

    def body(self, s: int, env: Env, bound: frozenset[int], acc: list[str]) -> list[str]:
        """Innermost code of a sweep: statements, stores, one step of every reduction."""
        f = self.f
        self.place(self.needs[s], env, bound, s)
        for n in self.stores[s]:
            self.store(n, env)
        if not self.reduces[s]:
            return acc
        ln = self.lanes
        count = len(ln.starts) if ln else 1
        per = len(acc) // count
        out = []
        for u in range(count):
            mine = acc[u * per:(u + 1) * per]
            at = 0
            for r in self.reduces[s]:
                st = self.k.stmts[r]
                dt = self.k.stmts[st.args[0]].dtype
                x = env[st.args[0]]
                if ln is not None and self.width > 1:
                    x = self.spread(x)
                v = x.regs[u % len(x.regs)]
                if st.op == "reduce":
                    new = opcodes.combine(f, st.attr, dt, x.ty, mine[at], v)
                    out.append(self.keep_live(x.ty, new, mine[at]))
                    at += 1
                    continue
                t = vec(lanes(x.ty), "i64")
                pos = self.vector_ix(st.attr[1], (r, "p"), env, u) if self.varies(st.attr[1], env) else f.splat(
                    t, self.scalar_ix(st.attr[1], (r, "p"), env))
                a, b = opcodes.better(f, st.attr[0], dt, x.ty, (mine[at], mine[at + 1]), (v, pos))
                out += [self.keep_live(x.ty, a, mine[at]), self.keep_live(t, b, mine[at + 1])]
                at += 2
        return out

    def keep_live(self, ty: str, new: str, old: str) -> str:
        """In row mode, lanes beyond the row leave the accumulator alone."""
        if self.row_mode and self.lanes is not None and self.lanes.mask is not None:
            return self.f.select(ty, self.lanes.mask, new, old)
        return new

    def finish(self, s: int, names: list[str], per: int, env: Env) -> None:
        """Results of the sweep's reductions: in row mode combine unrolled sets, then lanes."""
        at = 0
        sets = [names[i:i + per] for i in range(0, len(names), per)] if per else []
        for r in self.reduces[s]:
            st = self.k.stmts[r]
            dt = self.k.stmts[st.args[0]].dtype
            k = 1 if st.op == "reduce" else 2
            ty = self.start(r)[0][0]
            parts = [tuple(x[at:at + k]) for x in sets]
            at += k
            if not self.row_mode:
                regs = [self.result(st, dt, ty, p) for p in parts]
                env[r] = Val(regs, vec(lanes(ty), opcodes.register_type(st.dtype)))
                continue
            total = parts[0]
            for p in parts[1:]:
                total = self.join(st, dt, ty, total, p)
            w = lanes(ty)
            while w > 1:
                w //= 2
                low = [self.half(t, x, w, 0) for t, x in zip((ty, vec(lanes(ty), "i64")), total)]
                high = [self.half(t, x, w, w) for t, x in zip((ty, vec(lanes(ty), "i64")), total)]
                ty = vec(w, opcodes.register_type(dt))
                total = self.join(st, dt, ty, tuple(low), tuple(high))
            env[r] = Val([self.result(st, dt, ty, total)], opcodes.register_type(st.dtype))

    def half(self, ty: str, x: str, w: int, start: int) -> str:
        """Lanes start .. start+w-1 (a scalar for one lane)."""
        if w == 1:
            return self.f.let(f"extractelement {ty} {x}, i64 {start}")
        picks = ", ".join(f"i32 {start + j}" for j in range(w))
        return self.f.let(f"shufflevector {ty} {x}, {ty} poison, <{w} x i32> <{picks}>")

    def join(self, st: Stmt, dt: object, ty: str, a: tuple[str, ...], b: tuple[str, ...]) -> tuple[str, ...]:
        if st.op == "reduce":
            return (opcodes.combine(self.f, st.attr, dt, ty, a[0], b[0]),)  # type: ignore[arg-type]
        return opcodes.better(self.f, st.attr[0], dt, ty, a, b)  # type: ignore[arg-type]

    def result(self, st: Stmt, dt: object, ty: str, total: tuple[str, ...]) -> str:
        """The reduction's value in its own dtype."""
        if st.op == "argreduce":
            return total[1]
        if opcodes.is_half(st.dtype):
            return opcodes.rounded(self.f, st.dtype, ty, total[0])
        return opcodes.cast(self.f, dt, ty, total[0], st.dtype) if st.dtype is bool_ else total[0]  # type: ignore[arg-type]


def choose_vector_axis(k: Kernel) -> int | None:
    """The axis along which most accesses are contiguous, weighted by how full its vectors are."""
    accesses = [s.attr for s in k.stmts if s.op == "load"] + [st.access for st in k.stores]
    written = [st.access for st in k.stores]
    best, best_score = None, -math.inf
    for d, e in enumerate(k.extents):
        score = 0.0
        for a in accesses:
            c = index.coefficient(a.ix, d)
            weight = math.log2(2 + k.buffers[a.buffer].size)
            if c == 1:
                score += (2.5 if a in written else 2) * weight  # strided loads are cheaper than strided stores
            elif c != 0:
                score -= weight
        fill = e / (-(-e // 16) * 16)
        score = score * fill if score > 0 else score / fill
        if d >= k.kept:
            score -= 1e-3  # of equals a kept axis: no combining of lanes
        if score > best_score:
            best, best_score = d, score
    return best


def second_axis(k: Kernel, vaxis: int | None) -> int | None:
    """The kept axis along which accesses are contiguous that are strided along a kept vector axis, if any."""
    if vaxis is None or vaxis >= k.kept:
        return None
    accesses = [s.attr for s in k.stmts if s.op == "load"] + [st.access for st in k.stores]
    far = [a for a in accesses if index.coefficient(a.ix, vaxis) not in (0, 1, None)]
    votes = {d: sum(1 for a in far if index.coefficient(a.ix, d) == 1) for d in range(k.kept) if d != vaxis}
    return max(votes, key=lambda d: votes[d]) if votes and max(votes.values()) else None


def philox(f: Function, t: str, pos: str, seed: str, offset: str) -> str:
    """Word ``pos`` of the Philox4x32-10 stream (seed, offset) for a vector (or scalar) of positions.

    Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011: counter (offset + pos // 4, 0, 0), word pos % 4.
    """
    w = lanes(t)
    low = const(t, 0xFFFFFFFF)
    counter = f.op("add", t, f.op("lshr", t, pos, const(t, 2)), f.splat(t, offset))
    c = [f.op("and", t, counter, low), f.op("lshr", t, counter, const(t, 32)), const(t, 0), const(t, 0)]
    k0, k1 = f.op("and", "i64", seed, str(0xFFFFFFFF)), f.op("lshr", "i64", seed, "32")
    for _ in range(10):
        p0, p1 = f.op("mul", t, c[0], const(t, 0xD2511F53)), f.op("mul", t, c[2], const(t, 0xCD9E8D57))
        n0 = f.op("xor", t, f.op("xor", t, f.op("lshr", t, p1, const(t, 32)), c[1]), f.splat(t, k0))
        n2 = f.op("xor", t, f.op("xor", t, f.op("lshr", t, p0, const(t, 32)), c[3]), f.splat(t, k1))
        c = [n0, f.op("and", t, p1, low), n2, f.op("and", t, p0, low)]
        k0 = f.op("and", "i64", f.op("add", "i64", k0, str(0x9E3779B9)), str(0xFFFFFFFF))
        k1 = f.op("and", "i64", f.op("add", "i64", k1, str(0xBB67AE85)), str(0xFFFFFFFF))
    word = f.op("and", t, pos, const(t, 3))
    out = c[3]
    for j in (2, 1, 0):
        out = f.select(t, f.cmp("eq", t, word, const(t, j)), c[j], out)
    return f.cast("trunc", t, out, vec(w, "i32"))


def print_kernel(k: Kernel, vector_bits: int) -> Printed:
    """LLVM module text of a kernel. Raises NotImplementedError for an opcode this back end lacks."""
    p = Printer(k, vector_bits)
    p.build()
    body = module([p.f], vmath.definitions(p.f.helpers))
    digest = hashlib.sha256(body.encode()).hexdigest()[:16]
    tail = k.name.split("_", 1)[-1][:40]
    symbol = f"{tail}_{digest}"
    scratch = (-(-math.prod(k.extents[k.kept:]) // 64) * 64 + 64) * 8 * len(p.spill) if p.spill else 0
    return Printed(symbol, body.replace("@KERNEL(", f"@{symbol}("), tuple(p.numbers), scratch,
                   any(s.op == "check" for s in k.stmts), math.prod(k.extents))


__all__ = ["Printed", "Printer", "choose_vector_axis", "float32", "philox", "print_kernel"]
