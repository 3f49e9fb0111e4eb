"""Print a loop-IR kernel as Triton source.

Every statement becomes one line, a scalar or a block broadcast from the axes it depends on: values of kept axes have
shape (BX,) or (BX, 1), values of reduced axes (1, BY), values of both (BX, BY). The tiling (see :mod:`tiling`) says which
iteration axes lie along which side of the block. Extents are literals where many positions are divided by them; strides
that keep accesses aligned, the number of rows (and of reduced points, when they are looped over) are run-time arguments, so
a new batch size, or a layer of another width, reuses the compiled code. Bounds and pointers carry a divisibility hint,
without which there are no 16-byte accesses. Where the bound is not divisible by 16, full blocks take a branch without masks.
"""
from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...dtypes import float32
from ...ir.location import format_location
from .. import index
from ..index import Ix
from ..loop_ir import Access, Guard, Kernel, dependences, expressions_of, inputs_of, stage_of
from . import opcodes, support
from .channels import FEW, channels_tiling
from .tiling import Tiling, choose, has_reduction, wide

X, Y = "x", "y"
Shape = frozenset


@dataclass(frozen=True)
class Arg:
    """A run-time argument: ``type`` as Triton spells it; ``value`` a buffer's slot, "err" or a number."""

    name: str
    type: str
    value: Any
    divisor: int  # a power of two up to 16 that divides it: an address in bytes, a number as it is; 1: nothing known


@dataclass(frozen=True)
class Printed:
    """Source of a kernel and what compiling and launching it needs."""

    symbol: str
    source: str
    args: tuple[Arg, ...]
    constants: tuple[tuple[str, int], ...]  # tl.constexpr arguments, after ``args``
    grid: tuple[tuple[str | int, int], ...]  # (argument name or number, block): programs = product of ceil(n / block)
    warps: int
    stages: int = 1
    checks: bool = False  # may report an index error through the argument "err"
    kernel: Any = field(default=None, compare=False)

    def with_args(self, args: tuple[Arg, ...]) -> Printed:
        """The same code for other memory; weaker hints about addresses make it another kernel."""
        if [(a.type, a.divisor) for a in args] == [(a.type, a.divisor) for a in self.args]:
            return replace(self, args=args)
        symbol = f"{self.symbol}_{'_'.join(str(a.divisor) for a in args if a.type[0] == '*')}"
        return replace(self, args=args, symbol=symbol, source=self.source.replace(f"def {self.symbol}(", f"def {symbol}(", 1))

    def programs(self, sizes: dict[str, int] | None = None) -> int:
        """Number of programs for the given values of size arguments (default: those printed for)."""
        given = {a.name: a.value for a in self.args} | (sizes or {})
        return math.prod([-(-(given[n] if isinstance(n, str) else n) // block) for n, block in self.grid])


class Val:
    """A value's text and the sides of the block it varies over."""

    __slots__ = ("text", "shape", "literal")

    def __init__(self, text: str, shape: frozenset[str], literal: str | None = None):
        self.text, self.shape, self.literal = text, shape, literal


Env = dict[int, Val]
NONE: frozenset[str] = frozenset()


class Printer:
    """State of printing one kernel."""

    def __init__(self, k: Kernel, tiling: Tiling | None = None, lifts: bool = False):
        self.k = k
        self.t = tiling or channels_tiling(k) or choose(k)
        self.lifts = lifts  # whether sizes become arguments: kernels that differ in sizes only are one
        self.sizes: dict[tuple[str, float], str] = {}  # those that did: (kind, number) -> name
        self.deps = dependences(k)
        self.stages = stage_of(k.stmts)
        self.sweeps = max(self.stages, default=0) + 1
        self.helpers: set[str] = set()
        self.lines: list[str] = []
        self.depth = 1
        self.big = wide(k)
        self.side: dict[int, frozenset[str]] = {d: NONE for d in self.t.programs}
        self.side.update({d: frozenset(X) for d in self.t.x})
        self.side.update({d: frozenset(Y) for d in self.t.y})
        self.nx = math.prod([k.extents[d] for d in self.t.x])
        self.ny = math.prod([k.extents[d] for d in self.t.y])
        flat = index.flatten([index.var(d) for d in self.t.x], [k.extents[d] for d in self.t.x])
        self.own = flat if lifts and len(self.t.x) > 1 else None  # an index that is the position along x itself
        self.reducing = has_reduction(k)
        self.rank = 2 if self.t.y or self.reducing else 1
        self.bounded_y = self.t.looped or (bool(self.t.y) and not self.reducing)  # ny is an argument
        self.masks = self.needed_masks()
        self.buffer_names = [f"{'b' if i in k.reads else 'out'}{i}" for i in range(len(k.buffers))]

    def needed_masks(self) -> frozenset[str]:
        """Sides of the block that may reach beyond the space."""
        out = set()
        if self.t.x and (self.t.bx > 1 or self.rank == 1):
            out.add(X)
        if self.t.y and (self.ny % self.t.by or self.t.looped and self.nx * self.ny <= FEW):  # small: one code for any length
            out.add(Y)
        return frozenset(out)

    # ---------------------------------------------------------------------------------------------------------- text
    def line(self, text: str) -> None:
        """Append a line at the current indentation."""
        self.lines.append("    " * self.depth + text)

    def let(self, name: str, text: str, note: str = "") -> str:
        """Append an assignment; returns the name."""
        self.line(f"{name} = {text}{note}")
        return name

    def blocktext(self, both: bool = True) -> str:
        """The shape of a whole block."""
        return "(BX, BY)" if self.rank == 2 else "(BX,)"

    def ix(self, e: Ix, env: Env) -> Val:
        """An index expression."""
        if self.own is not None and e == self.own:
            return Val("x", frozenset(X))
        parts: list[str] = []
        shape = NONE
        for atom, c in e.terms:
            if isinstance(atom, int):
                text, s = f"i{atom}", self.side[atom]
            elif atom[0] == "data":
                v = env[atom[1]]
                text, s = (v.text if self.big else f"{v.text}.to(tl.int32)"), v.shape
            else:
                inner = self.ix(atom[1], env)
                text, s = f"({inner.text}) {atom[0]} {atom[2]}", inner.shape
                text = f"({text})"
            shape |= s
            sign = "-" if c < 0 else "+"
            term = text if abs(c) == 1 else f"{text} * {self.coefficient(abs(c))}"
            parts.append(f"{sign} {term}" if parts or c < 0 else term)
        if e.const or not parts:
            parts.append(f"{'-' if e.const < 0 else '+'} {abs(e.const)}" if parts else str(e.const))
        return Val(" ".join(parts), shape)

    def coefficient(self, c: int) -> str:
        """A distance in memory: an argument where that costs nothing and hides nothing from the compiler."""
        return self.lifted("step", c) if self.lifts and c % 16 == 0 else str(c)

    def extent(self, n: int) -> str:
        """What positions are divided by: a literal but where few are."""
        few = self.reducing or len(self.t.x) == 3
        return self.lifted("size", n) if self.lifts and few and n % 16 == 0 else str(n)

    def lifted(self, kind: str, n: float) -> str:
        """The argument for a number. Numbers of different kinds are different arguments even if they are equal here."""
        return self.sizes.setdefault((kind, n), f"{kind}{len(self.sizes)}")

    def condition(self, guards: Sequence[Guard], env: Env) -> list[Val]:
        """Each guard as a comparison, sides that always hold left out."""
        out = []
        for g in guards:
            v = self.ix(g.ix, env)
            lo, hi = index.bounds(g.ix, self.k.extents)
            if lo < g.lo:
                out.append(Val(f"({v.text} >= {g.lo})", v.shape))
            if hi >= g.hi:
                out.append(Val(f"({v.text} < {g.hi})", v.shape))
        return out

    def mask(self, shape: frozenset[str], extra: Sequence[Val] = ()) -> str:
        """The mask of an access that varies over ``shape``; empty if every element is there."""
        parts = [f"m{s}" for s in (X, Y) if s in shape and s in self.masks]
        return " & ".join(dict.fromkeys(parts + [v.text for v in extra]))

    # --------------------------------------------------------------------------------------------------- statements
    def name(self, i: int) -> str:
        s = self.k.stmts[i]
        return f"{s.attr if s.op == 'reduce' else s.op}{i}"

    def note(self, i: int) -> str:
        """The user's line as a comment."""
        loc = self.k.stmts[i].loc
        return f"  # {format_location(loc)}" if loc is not None else ""

    def statement(self, i: int, env: Env) -> Val:
        """Print one statement other than a reduction."""
        s = self.k.stmts[i]
        name = self.name(i)
        if s.op == "const":
            value = np.frombuffer(s.attr, s.dtype.np)[0].item()
            if self.lifts and self.reducing and s.dtype is float32 and particular(value):
                return Val(self.lifted("number", value), NONE)
            text = opcodes.literal(value, s.dtype)
            inline = text is not None and all(self.inlines(j, i) for j in range(len(self.k.stmts)))
            inline = inline and all(st.value != i for st in self.k.stores)
            return Val(text or "", NONE, text) if inline else Val(self.let(name, opcodes.constant(value, s.dtype)), NONE)
        if s.op == "load":
            return self.load(i, s.attr, env)
        if s.op == "guard":
            conds = self.condition(s.attr, env)
            text = " & ".join(v.text for v in conds) or "tl.full([], 1, tl.int1)"
            return Val(self.let(name, text), NONE.union(*[v.shape for v in conds]))
        if s.op == "index":
            v = self.ix(s.attr, env)
            plain = f"({v.text}).to(tl.int64)" if v.shape or not s.attr.terms == () else f"tl.full([], {v.text}, tl.int64)"
            if v.shape == NONE and s.attr.terms and index.variables(s.attr) and not self.t.programs:
                plain = f"({v.text}).to(tl.int64)"
            from ...dtypes import int64

            return Val(self.let(name, opcodes.cast(int64, plain, s.dtype, self.helpers), self.note(i)), v.shape)
        if s.op == "rng":
            self.helpers.add("philox")
            v = self.ix(s.attr, env)
            at = f"tl.full([], {v.text}, tl.int64)" if not s.attr.terms else v.text
            seed, offset = [env[a].text for a in s.args]
            shape = v.shape.union(*[env[a].shape for a in s.args])  # a seed may be computed, by a reduction for example
            return Val(self.let(name, f"philox({seed}, {offset}, {at})", self.note(i)), shape)
        if s.op == "check":
            return self.check(i, env)
        args = [env[a] for a in s.args]
        src = self.k.stmts[s.args[-1]].dtype
        text = opcodes.emit(s.op, src, [a.text for a in args], s.dtype, self.helpers)
        return Val(self.let(name, text, self.note(i)), NONE.union(*[a.shape for a in args]))

    def inlines(self, j: int, i: int) -> bool:
        """Whether statement ``j`` takes the constant ``i`` as a literal (or does not use it)."""
        s = self.k.stmts[j]
        if i not in inputs_of(s):
            return True
        others = [a for a in s.args if self.k.stmts[a].op != "const"]
        if s.op == "where":
            return s.args[0] != i and any(a in others for a in s.args[1:])
        return s.op in opcodes.INLINE and bool(others)

    def load(self, i: int, a: Access, env: Env) -> Val:
        dt = self.k.buffers[a.buffer].dtype
        at = self.ix(a.ix, env)
        conds = self.condition(a.guards, env)
        shape = at.shape.union(*[c.shape for c in conds])
        mask = self.mask(shape, conds)
        where = self.buffer_names[a.buffer] + ("" if a.ix == index.ZERO else f" + {at.text}")
        if shape != at.shape:
            where = f"{where} + tl.zeros({self.shape_text(shape)}, tl.int32)"
        text = f"tl.load({where}, mask={mask}, other=0)" if mask and conds else f"tl.load({where}, mask={mask})" if mask else \
            f"tl.load({where})"
        return Val(self.let(self.name(i), opcodes.loaded(dt, text)), shape)

    def shape_text(self, shape: frozenset[str]) -> str:
        """The block shape of a value that varies over ``shape``."""
        if self.rank == 1:
            return "(BX,)"
        return f"({'BX' if X in shape else 1}, {'BY' if Y in shape else 1})"

    def check(self, i: int, env: Env) -> Val:
        """An index, wrapped, reported and set to 0 when out of range."""
        s, name = self.k.stmts[i], self.name(i)
        size, wrap, guards = s.attr
        v = env[s.args[0]]
        x = self.let(name, f"{v.text}.to(tl.int64)", self.note(i))
        if wrap:
            self.let(x, f"tl.where({x} < 0, {x} + {size}, {x})")
        conds = self.condition(guards, env)
        shape = v.shape.union(*[c.shape for c in conds])
        ok = self.let(f"ok{i}", f"({x} >= 0) & ({x} < {size})")
        bad = " & ".join([f"({ok} == 0)", *[m for m in [self.mask(shape, conds)] if m]])
        if shape:
            self.line(f"tl.store(err + tl.zeros({self.shape_text(shape)}, tl.int32), 1, mask={bad})")
        else:
            self.line(f"tl.store(err, 1, mask={bad})")
        self.let(x, f"tl.where({ok}, {x}, 0)")
        return Val(x, v.shape)

    def store(self, n: int, env: Env) -> None:
        st = self.k.stores[n]
        dt = self.k.buffers[st.access.buffer].dtype
        at, v = self.ix(st.access.ix, env), env[st.value]
        shape = at.shape | v.shape
        where = self.buffer_names[st.access.buffer] + ("" if st.access.ix == index.ZERO else f" + {at.text}")
        if shape != at.shape:
            where = f"{where} + tl.zeros({self.shape_text(shape)}, tl.int32)"
        mask = self.mask(shape)
        self.line(f"tl.store({where}, {opcodes.stored(dt, v.text)}{f', mask={mask}' if mask else ''})")

    # --------------------------------------------------------------------------------------------------- reductions
    def whole(self, v: Val, dt: Any) -> str:
        """A reduction's operand as an accumulator block (BX, BY)."""
        text = opcodes.widened(dt, v.text)
        if v.shape != frozenset((X, Y)):
            text = f"tl.broadcast_to({text}, (BX, BY))"
        return text

    def reduction(self, i: int, env: Env) -> None:
        """A reduction of values that are all there at once."""
        s = self.k.stmts[i]
        dt = self.k.stmts[s.args[0]].dtype
        x = self.whole(env[s.args[0]], dt)
        kind = s.attr if s.op == "reduce" else s.attr[0]
        if Y in self.masks:
            x = self.let(f"part{i}", f"tl.where(my, {x}, {self.neutral(kind, dt)})")
        if s.op == "reduce":
            env[i] = Val(self.let(self.name(i), opcodes.reduce(kind, dt, x, self.helpers), self.note(i)), frozenset(X))
            return
        pos = self.position(i, env)
        if Y in self.masks:
            pos = f"tl.where(my, {pos}, {1 << 30})"
        self.arg_result(i, env, x, pos)

    def neutral(self, kind: str, dt: Any) -> str:
        """The neutral element with its type."""
        return f"tl.full([], {opcodes.identity(kind, dt)}, {opcodes.register(opcodes.accumulator(dt))})"

    def position(self, i: int, env: Env) -> str:
        """Positions for an argreduce as a block of int32 (int64 where needed)."""
        v = self.ix(self.k.stmts[i].attr[1], env)
        ty = "tl.int64" if self.big else "tl.int32"
        return f"tl.broadcast_to(({v.text}).to({ty}), (BX, BY))" if v.shape else f"tl.full((BX, BY), {v.text}, {ty})"

    def arg_result(self, i: int, env: Env, x: str, pos: str) -> None:
        kind = "arg" + self.k.stmts[i].attr[0]
        self.helpers.add(kind)
        self.line(f"best{i}, at{i} = tl.reduce(({x}, {pos}), 1, {kind}, keep_dims=True)")
        env[i] = Val(self.let(self.name(i), f"at{i}.to(tl.int64)", self.note(i)), frozenset(X))

    def start(self, i: int) -> None:
        """Accumulators before a loop."""
        s = self.k.stmts[i]
        dt = self.k.stmts[s.args[0]].dtype
        kind = s.attr if s.op == "reduce" else s.attr[0]
        acc = opcodes.register(opcodes.accumulator(dt))
        self.let(f"acc{i}", f"tl.full((BX, BY), {opcodes.identity(kind, dt)}, {acc})")
        if s.op == "argreduce":
            self.let(f"pos{i}", f"tl.full((BX, BY), {1 << 30}, {'tl.int64' if self.big else 'tl.int32'})")

    def step(self, i: int, env: Env) -> None:
        """One block into the accumulators."""
        s = self.k.stmts[i]
        dt = self.k.stmts[s.args[0]].dtype
        x = self.whole(env[s.args[0]], dt)
        kind = s.attr if s.op == "reduce" else s.attr[0]
        if Y in self.masks:
            x = self.let(f"part{i}", f"tl.where(my, {x}, {self.neutral(kind, dt)})")
        if s.op == "reduce":
            self.let(f"acc{i}", opcodes.combine(kind, dt, f"acc{i}", x))
            return
        pos = self.position(i, env)
        if Y in self.masks:
            pos = f"tl.where(my, {pos}, {1 << 30})"
        self.helpers.add("arg" + kind)
        self.line(f"acc{i}, pos{i} = arg{kind}(acc{i}, pos{i}, {x}, {pos})")

    def finish(self, i: int, env: Env) -> None:
        """The result after a loop."""
        s = self.k.stmts[i]
        if s.op == "argreduce":
            self.arg_result(i, env, f"acc{i}", f"pos{i}")
            return
        dt = self.k.stmts[s.args[0]].dtype
        text = opcodes.reduce(s.attr, dt, f"acc{i}", self.helpers)
        env[i] = Val(self.let(self.name(i), text, self.note(i)), frozenset(X))

    # -------------------------------------------------------------------------------------------------------- bodies
    def straight(self, env: Env) -> None:
        """All statements in order, each store as soon as its value is there."""
        waiting: dict[int, list[int]] = {}
        for n, st in enumerate(self.k.stores):
            waiting.setdefault(max([st.value, *index.data(st.access.ix)]), []).append(n)
        for i, s in enumerate(self.k.stmts):
            if s.op in ("reduce", "argreduce"):
                self.reduction(i, env)
            else:
                env[i] = self.statement(i, env)
        for i in sorted(waiting):
            for n in waiting[i]:
                self.store(n, env)

    def inner(self, i: int) -> bool:
        """Whether a statement varies over the looped axes."""
        return any(d in self.t.y for d in self.deps[i])

    def closure(self, sweep: int) -> list[int]:
        """Statements that sweep ``sweep`` needs, in order; reductions of earlier sweeps are there already."""
        k = self.k
        stack = [a for i, s in enumerate(k.stmts) if s.op in ("reduce", "argreduce") and self.stages[i] == sweep + 1
                 for a in [*inputs_of(s)]]
        stack += [st.value for st in k.stores if self.stages[st.value] == sweep]
        stack += [i for i, s in enumerate(k.stmts) if s.op == "check" and self.stages[i] == sweep]
        seen: set[int] = set()
        while stack:
            i = stack.pop()
            if i not in seen and k.stmts[i].op not in ("reduce", "argreduce"):
                seen.add(i)
                stack += inputs_of(k.stmts[i])
        return sorted(seen)

    def looped(self, env: Env) -> None:
        """One loop over y per stage; what does not vary over y stands before its loop."""
        k = self.k
        for s in range(self.sweeps):
            needs = self.closure(s)
            for i in needs:
                if i not in env and not self.inner(i):
                    env[i] = self.statement(i, env)
            reduces = [i for i, st in enumerate(k.stmts) if st.op in ("reduce", "argreduce") and self.stages[i] == s + 1]
            mine = [n for n, st in enumerate(k.stores) if self.stages[st.value] == s]
            stores = [n for n in mine if self.inner(k.stores[n].value)
                      or any(d in self.t.y for d in index.variables(k.stores[n].access.ix))]
            if reduces or stores or any(self.inner(i) and k.stmts[i].op == "check" for i in needs):
                self.sweep(s, needs, reduces, stores, env)
            for n in mine:
                if n not in stores:
                    self.store(n, env)

    def sweep(self, s: int, needs: list[int], reduces: list[int], stores: list[int], env: Env) -> None:
        """The loop of one stage."""
        for i in reduces:
            self.start(i)
        self.line("for y0 in range(0, ny, BY):")
        self.depth += 1
        self.side_y("y0 + tl.arange(0, BY)[None, :]")
        here = dict(env)
        for i in needs:
            if i not in here:
                here[i] = self.statement(i, here)
        for i in reduces:
            self.step(i, here)
        for n in stores:
            self.store(n, here)
        self.depth -= 1
        for i in reduces:
            self.finish(i, env)

    # ---------------------------------------------------------------------------------------------------- the kernel
    def axes(self, side: str, axes: Sequence[int]) -> None:
        """Iteration variables from a flattened position."""
        rest = side
        for n, d in enumerate(reversed(axes)):
            if n == len(axes) - 1:
                self.let(f"i{d}", rest)
                return
            size = self.extent(self.k.extents[d])
            self.let(f"i{d}", f"{rest} % {size}")
            rest = self.let(f"{side}{n + 1}", f"{rest} // {size}")

    def side_y(self, text: str) -> None:
        """The y axis of the block: position, mask, iteration variables."""
        self.let("y", f"({text}).to(tl.int64)" if self.big else text)
        if Y in self.masks:
            self.let("my", f"y < {'ny' if self.bounded_y else self.ny}")
        self.axes("y", self.t.y)

    def header(self) -> None:
        """Program numbers and the block's positions."""
        t = self.t
        self.let("pid", "tl.program_id(0)" + (".to(tl.int64)" if self.big else ""))
        tiles_y = bool(t.y) and not self.reducing
        if t.programs or tiles_y:
            self.let("px", "pid % tl.cdiv(nx, BX)")
            self.let("rest", "pid // tl.cdiv(nx, BX)")
            if tiles_y:
                self.let("py", "rest % tl.cdiv(ny, BY)")
                self.let("rest", "rest // tl.cdiv(ny, BY)")
            self.axes("rest", t.programs)
        first = "px" if t.programs or tiles_y else "pid"
        if t.x:
            self.let("x", f"{first} * BX + tl.arange(0, BX){'[:, None]' if self.rank == 2 else ''}")
            if X in self.masks:
                self.let("mx", "x < nx")
            self.axes("x", t.x)
        if t.y and not t.looped:
            self.side_y(f"{'py * BY + ' if tiles_y else ''}tl.arange(0, BY)[None, :]")

    def build(self) -> Printed:
        """The whole kernel."""
        t, env = self.t, {}  # type: ignore[var-annotated]
        self.header()
        if t.looped:
            self.looped(env)
        elif self.rank == 1 and self.nx % 16 and self.nx > t.bx:
            self.line("if (pid + 1) * BX <= nx:  # a full block: no masks, so that accesses stay 16 bytes wide")
            kept, self.masks = self.masks, NONE
            self.depth += 1
            self.straight({})
            self.depth -= 1
            self.line("else:")
            self.masks = kept
            self.depth += 1
            self.straight({})
            self.depth -= 1
        else:
            self.straight(env)
        return self.finished()

    def finished(self) -> Printed:
        k, t = self.k, self.t
        reads, writes = k.reads, k.writes
        args = [Arg(n, opcodes.pointer_type(b.dtype), b.slot, 16)
                for i, (n, b) in enumerate(zip(self.buffer_names, k.buffers)) if i in reads or i in writes]
        checks = any(s.op == "check" for s in k.stmts)
        if checks:
            args.append(Arg("err", "*i32", "err", 16))
        size = "i64" if self.big else "i32"
        args.append(Arg("nx", size, self.nx, 16 if self.nx % 16 == 0 else 1))
        constants = [("BX", t.bx)]
        if self.bounded_y:
            args.append(Arg("ny", size, self.ny, 16 if self.ny % 16 == 0 and self.t.by > 32 else 1))
        args += [Arg(name, "fp32", n, 1) if kind == "number" else Arg(name, size, n, 16)
                 for (kind, n), name in self.sizes.items()]
        if self.rank == 2:
            constants.append(("BY", t.by))
        grid: list[tuple[str | int, int]] = [("nx", t.bx)]
        if t.y and not self.reducing:
            grid.append(("ny", t.by))
        if t.programs:
            grid.append((math.prod([k.extents[d] for d in t.programs]), 1))
        return assemble(k.name, self.describe(), self.lines, args, constants, grid, t.warps, self.helpers, checks, k)

    def describe(self) -> list[str]:
        """Lines of the kernel's docstring."""
        k = self.k
        names = [f"i{d}" for d in range(len(k.extents))]
        space = " ".join(f"{n}<{e}" for n, e in zip(names[:k.kept], k.extents))
        if k.kept < len(k.extents):
            space += "; reduced: " + " ".join(f"{n}<{e}" for n, e in zip(names[k.kept:], k.extents[k.kept:]))
        ops = dict.fromkeys(s.attr if s.op == "reduce" else s.op for s in k.stmts if s.op not in ("load", "const", "index"))
        return [f"{', '.join(ops) or 'copy'} over {space or 'one element'}."]


def assemble(name: str, doc: Sequence[str], lines: Sequence[str], args: Sequence[Arg], constants: Sequence[tuple[str, int]],
             grid: Sequence[tuple[str | int, int]], warps: int, helpers: set[str], checks: bool = False, kernel: Any = None,
             stages: int = 1) -> Printed:
    """A module with one kernel, named after its digest."""
    params = ", ".join([*[a.name for a in args], *[f"{c}: tl.constexpr" for c, _ in constants]])
    head = f'@triton.jit\ndef KERNEL({params}):\n    """{doc[0]}'
    head += '"""\n' if len(doc) == 1 else "\n" + "".join(f"    {d}\n" for d in doc[1:]) + '    """\n'
    text = support.module(head + "\n".join(lines) + "\n", helpers)
    digest = hashlib.sha256(repr((stable(text), constants, warps, stages, [(a.type, a.divisor) for a in args])).encode())
    tail = re.sub(r"\W", "_", name.split("_", 1)[-1])[:40]
    symbol = f"{tail}_{digest.hexdigest()[:12]}"
    return Printed(symbol, text.replace("def KERNEL(", f"def {symbol}(", 1), tuple(args), tuple(constants), tuple(grid), warps,
                   stages, checks, kernel)


def particular(value: float) -> bool:
    """Whether a constant belongs to one size (a count, n / (n - 1)) rather than to a formula."""
    return abs(value) >= 16 or len(f"{abs(np.float32(value))}".strip("0").replace(".", "").split("e")[0]) > 5


def stable(source: str) -> str:
    """A source without what does not change its code: comments (the user's lines) and docstrings (sizes)."""
    return re.sub(r'  # [^\n]*|\n    """.*?"""', "", source, flags=re.DOTALL)


def print_kernel(k: Kernel, tiling: Tiling | None = None) -> Printed:
    """Triton source of a kernel. Raises NotImplementedError for an opcode this back end lacks."""
    return Printer(k, tiling, lifts=True).build()


__all__ = ["Arg", "Printed", "Printer", "assemble", "expressions_of", "print_kernel", "stable"]
