"""Attention kernels with pointwise code on the scores: the recipe's statements are printed into the tile.

The code is lowered to loop-IR statements over (leading axes..., queries, keys), and each statement is printed where it
belongs: what depends on neither queries nor keys before the loops, the rest on the tile, transposed where the kernel's is.

A small kernel first looks through the masks: for every query it notes the first key that is not masked, one past the last,
and whether there is a gap between them (for every key likewise its queries). Blocks free of masks then run in a loop of their
own without them, and blocks in which everything is masked are skipped if the masks' numbers are -inf, which the kernel sees
when it runs. So a causal mask costs half the products, wherever it comes from.
"""
from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ...dtypes import dtype, int32, int64
from ...ir.composites.scored_attention import Recipe
from ...ir.node import Aval, Graph
from .. import index
from ..index import Ix
from ..loop_ir import Stmt
from ..lower import Lowering, Space
from . import attention, opcodes
from .attention import LOG2E, Problem, Text, Tile
from .library_row import Library, Made
from .printer import Arg, Printed, assemble
from .tiling import WIDE

COSTLY = frozenset(("exp", "exp2", "expm1", "log", "log2", "log1p", "tanh", "sin", "cos", "erf"))  # take many registers
TILE = -1  # among the axes a statement depends on: the scores themselves, or what is made of them


class Piece(NamedTuple):
    """A small graph as statements: ``buffers`` are the numbers of its inputs, ``outs`` statements, ``deps`` axes of each."""

    stmts: tuple[Stmt, ...]
    buffers: tuple[int, ...]
    sizes: tuple[int, ...]
    outs: tuple[int, ...]
    deps: tuple[frozenset[int], ...]
    narrow: tuple[bool, ...]  # int64 statements whose values fit 32 bits


@functools.lru_cache(256)
def piece(graph: Graph, shape: tuple[int, ...], tiles: int) -> Piece:
    """Lower a recipe's graph; its first ``tiles`` inputs are tiles."""
    producer = graph.producer()
    leaves = {n.slot: i for i, n in enumerate(graph.inputs)}
    inside = {s for s in range(len(producer)) if s not in leaves}
    low = Lowering(graph, producer, inside, Space(shape, (), tuple(range(len(shape)))))
    outs = []
    for s in graph.outputs:
        own = producer[s].avals[s - producer[s].slot].shape
        pos = [index.var(d + len(shape) - len(own)) if n != 1 else index.ZERO for d, n in enumerate(own)]
        outs.append(low.emit(s, tuple(pos)))
    buffers = tuple([leaves[b.slot] for b in low.buffers])
    deps: list[frozenset[int]] = []
    for st in low.stmts:
        found = frozenset().union(*[deps[a] for a in st.args])
        if st.op == "load":
            found |= {TILE} if buffers[st.attr.buffer] < tiles else index.variables(st.attr.ix)
        elif st.op == "index":
            found |= index.variables(st.attr)
        deps.append(found)
    return Piece(tuple(low.stmts), buffers, tuple([b.size for b in low.buffers]), tuple(outs), tuple(deps),
                 _narrow(low.stmts, shape))


def _narrow(stmts: Sequence[Stmt], shape: tuple[int, ...]) -> tuple[bool, ...]:
    """Which int64 statements stay within 32 bits, by interval arithmetic."""
    ranges: list[tuple[int, int] | None] = []
    for s in stmts:
        got: tuple[int, int] | None = None
        args = [ranges[a] for a in s.args]
        if s.dtype is not int64:
            got = None
        elif s.op == "index":
            got = index.bounds(s.attr, shape)
        elif s.op == "const":
            n = int(np.frombuffer(s.attr, s.dtype.np)[0])
            got = (n, n)
        elif s.op in ("add", "sub", "mul", "neg", "minimum", "maximum") and all(a is not None for a in args):
            got = _interval(s.op, args)
        ranges.append(got if got is not None and max(-got[0], got[1]) < 1 << 31 else None)
    return tuple([r is not None for r in ranges])


def _interval(op: str, args: list[Any]) -> tuple[int, int]:
    a, b = args[0], args[-1]
    if op == "neg":
        return -a[1], -a[0]
    if op == "add":
        return a[0] + b[0], a[1] + b[1]
    if op == "sub":
        return a[0] - b[1], a[1] - b[0]
    if op == "mul":
        ends = [x * y for x in a for y in b]
        return min(ends), max(ends)
    pick = min if op == "minimum" else max
    return pick(a[0], b[0]), pick(a[1], b[1])


class Scored(Text):
    """Text of a kernel with a recipe."""

    def __init__(self, p: Problem, t: Tile, recipe: Recipe, extras: Sequence[Aval], backward: bool, by_keys: bool,
                 ranges_key: Any):
        super().__init__(p, t)
        shape = (*p.lead, p.queries, p.keys)
        self.recipe, self.extras, self.by_keys, self.n = recipe, extras, by_keys, len(p.lead)
        self.ranges_key = ranges_key
        self.big = self.big or any(a.size >= WIDE for a in extras)
        masks = len(recipe.kinds)
        self.pieces = {"body": (piece(recipe.body, shape, 1), 1)}
        if recipe.masks is not None:
            self.pieces["mask"] = (piece(recipe.masks, shape, 0), 0)
        if backward:
            assert recipe.slope is not None
            self.pieces["slope"] = (piece(recipe.slope, shape, 2 + masks), 2 + masks)
        self.planes = self.plane_axes()
        self.env: dict[str, dict[int, str]] = {name: {} for name in self.pieces}
        self.known: dict[str, dict[int, bool]] = {name: {} for name in self.pieces}
        self.used: set[int] = set()
        self.empty, self.may_be_empty = 'float("nan")', not recipe.ranges and masks > 0
        factor = self.factor_of("body", 0)
        uses_score = backward and any(self.tile_of_load("slope", i) == 0 for i in range(len(self.pieces["slope"][0].stmts)))
        self.late = factor is not None and not uses_score
        self.scaled, self.scale_stmt = repr(LOG2E), -1
        if self.late and factor is not None and factor >= 0:
            self.scaled, self.scale_stmt = "scale2", factor
        self.flips = self.scale_stmt >= 0 and not backward  # a maximum of scaled scores needs a scale that is not negative
        self.after = self.factor_of("slope", 1) if backward else None  # a number the gradients of the scores end in
        self.unscaled = "after" if self.after is not None and self.after >= 0 else "1.0"

    # ------------------------------------------------------------------------------------------------------ inspection
    def tile_of_load(self, name: str, i: int) -> int | None:
        """The number of the tile a statement reads."""
        pc, tiles = self.pieces[name]
        s = pc.stmts[i]
        return pc.buffers[s.attr.buffer] if s.op == "load" and pc.buffers[s.attr.buffer] < tiles else None

    def factor_of(self, name: str, tile: int) -> int | None:
        """The statement ``f`` of a piece whose result is ``f`` times something, -1 for the tile itself, None for neither.

        For the body the something must be the tile."""
        pc, _ = self.pieces[name]
        out = pc.outs[0]
        if self.tile_of_load(name, out) == tile:
            return -1
        s = pc.stmts[out]
        if s.op != "mul":
            return None
        for f, x in (s.args, s.args[::-1]):
            constant = not pc.deps[f] & {TILE, self.n, self.n + 1} and not (self.p.group > 1 and pc.deps[f])
            if constant and (name == "slope" and not pc.deps[f] or self.tile_of_load(name, x) == tile):
                return f
        return None

    # -------------------------------------------------------------------------------------------------------- printing
    def ix(self, e: Ix, transposed: bool) -> str:
        """An index expression."""
        rows, cols = ("x[None, :]", "y[:, None]") if transposed else ("x[:, None]", "y[None, :]")
        if self.big:
            rows, cols = f"{rows}.to(tl.int64)", f"{cols}.to(tl.int64)"
        parts = []
        for atom, c in e.terms:
            if isinstance(atom, int):
                text = f"h{atom}" if atom < self.n else rows if atom == self.n else cols
            else:
                text = f"(({self.ix(atom[1], transposed)}) {atom[0]} {atom[2]})"
            parts.append(text if c == 1 else f"{text} * {c}")
        if e.const or not parts:
            parts.append(str(e.const))
        return " + ".join(parts)

    def bounds(self, axes: frozenset[int], transposed: bool) -> list[str]:
        """Conditions that an element is there."""
        rows, cols = ("x[None, :]", "y[:, None]") if transposed else ("x[:, None]", "y[None, :]")
        out = [f"({rows} < lq)"] if self.n in axes and self.p.queries % self.t.x else []
        return out + ([f"({cols} < ls)"] if self.n + 1 in axes and self.p.keys % self.t.y else [])

    def statement(self, name: str, i: int, tiles: Sequence[str], transposed: bool, depth: int) -> None:
        """Print one statement."""
        pc, _ = self.pieces[name]
        s, env, known = pc.stmts[i], self.env[name], self.known[name]
        if s.op == "load":
            at = self.tile_of_load(name, i)
            if at is not None:
                env[i] = tiles[at]
                if tiles[at] == "False":
                    known[i] = False
                return
        if s.op == "where" and s.args[0] in known:
            chosen = s.args[1] if known[s.args[0]] else s.args[2]
            env[i] = env[chosen]
            return
        if s.op == "logical_not" and s.args[0] in known:
            known[i] = not known[s.args[0]]
            env[i] = str(known[i])
            return
        for a in s.args:
            if a in known:
                env[a] = f"tl.full([], {int(known[a])}, tl.int1)"
        env[i] = f"{name}_{i}"
        self.line(f"{name}_{i} = {self.expression(name, i, transposed)}", depth)

    def expression(self, name: str, i: int, transposed: bool) -> str:
        """The text of a statement."""
        pc, tiles = self.pieces[name]
        s, env = pc.stmts[i], self.env[name]
        dt = int32 if pc.narrow[i] else s.dtype
        if s.op == "load":
            buffer = s.attr.buffer
            number = pc.buffers[buffer] - tiles
            self.used.add(number)
            where = f"extra{number}" + ("" if s.attr.ix == index.ZERO else f" + {self.ix(s.attr.ix, transposed)}")
            conds = self.bounds(index.variables(s.attr.ix), transposed)
            mask = f", mask={' & '.join(conds)}, other=0" if conds else ""
            return opcodes.loaded(s.dtype, f"tl.load({where}{mask})")
        if s.op == "const":
            return opcodes.constant(np.frombuffer(s.attr, s.dtype.np)[0].item(), dt)
        if s.op == "index":
            text = f"({self.ix(s.attr, transposed)})"
            return f"tl.full([], {text}, {opcodes.register(dt)})" if not s.attr.terms else f"{text}.to({opcodes.register(dt)})"
        args = []
        narrow = all(pc.narrow[a] for a in s.args if pc.stmts[a].dtype is int64)
        for a in s.args:
            args.append(f"{env[a]}.to(tl.int64)" if pc.narrow[a] and not narrow else env[a])
        src = pc.stmts[s.args[-1]].dtype
        src = int32 if src is int64 and narrow else src
        if s.dtype is int64 and not pc.narrow[i] and s.op not in ("cast",) and src is int32:
            args, src = [f"{a}.to(tl.int64)" for a in args], int64
        return opcodes.emit(s.op, src, args, dt, self.helpers)

    def run(self, name: str, tiles: Sequence[str], transposed: bool, depth: int) -> list[str]:
        """The statements of a piece that belong on the tile; texts of its results."""
        pc, _ = self.pieces[name]
        self.known[name] = {}
        for i in range(len(pc.stmts)):
            if pc.deps[i] & {TILE, self.n, self.n + 1}:
                self.statement(name, i, tiles, transposed, depth)
        return [self.env[name][o] for o in pc.outs]

    # ----------------------------------------------------------------------------------------------- hooks of the text
    def common(self, depth: int = 1) -> None:
        """What depends on nothing: printed once, before any loop."""
        for name, (pc, _) in self.pieces.items():
            for i in range(len(pc.stmts)):
                if not pc.deps[i]:
                    self.statement(name, i, (), False, depth)
        if self.after is not None and self.after >= 0 and not self.pieces["slope"][0].deps[self.after]:
            self.line(f"after = {self.env['slope'][self.after]}", depth)

    def prepare(self, depth: int = 1) -> None:
        """What depends on the head alone."""
        if depth == 1:
            self.common()
        rest = "h"
        for d in range(self.n - 1, -1, -1):
            self.line(f"h{d} = {rest}{f' % {self.p.lead[d]}' if d else ''}", depth)
            rest = f"({rest} // {self.p.lead[d]})"
        for name, (pc, _) in self.pieces.items():
            for i in range(len(pc.stmts)):
                if pc.deps[i] and not pc.deps[i] & {TILE, self.n, self.n + 1}:
                    self.statement(name, i, (), False, depth)
        if self.scale_stmt >= 0:
            self.line(f"scale2 = {self.env['body'][self.scale_stmt]} * {LOG2E!r}", depth)
        if self.flips:
            self.line("sign = tl.where(scale2 < 0, -1.0, 1.0)", depth)
            self.line("scale2 = tl.abs(scale2)", depth)
        if self.after is not None and self.after >= 0 and self.pieces["slope"][0].deps[self.after]:
            self.line(f"after = {self.env['slope'][self.after]}", depth)
        if "mask" in self.pieces:
            outs = self.pieces["mask"][0].outs
            for k, o in enumerate(outs[1::2]):
                self.line(f"fill{k} = {self.env['mask'][o]}", depth)
            limits = " & ".join(f'(fill{k} == float("-inf"))' for k in range(len(outs) // 2))
            self.line(f"limited = {limits}", depth)
            for k in range(len(outs) // 2):  # large finite numbers stay finite in units of log2
                low = f'tl.where(fill{k} == float("-inf"), float("-inf"), -3.4028234663852886e38)'
                self.line(f"fill{k} = tl.maximum(fill{k} * {LOG2E!r}, {low}, propagate_nan=tl.PropagateNan.ALL)", depth)

    def turned(self, name: str) -> None:
        if self.flips:
            self.line(f"{name} = ({name}.to(tl.float32) * sign).to({name}.dtype)")

    def scores(self, transposed: bool, masked: bool, depth: int) -> bool:
        dot = f"tl.dot(tk, tl.trans(tq){self.dot})" if transposed else f"tl.dot(tq, tl.trans(tk){self.dot})"
        self.line(f"raw = {dot}", depth)
        late = self.late and not masked
        if late:
            self.line("s = raw", depth)
        elif self.late:
            self.line(f"s = raw * {self.scaled}", depth)
        else:
            (x,) = self.run("body", ["raw"], transposed, depth)
            self.line(f"s = {x} * {LOG2E!r}", depth)
        if not masked:
            return late
        if "mask" in self.pieces:
            texts = self.run("mask", (), transposed, depth)
            for k, kind in enumerate(self.recipe.kinds):
                new = f"fill{k}" if kind == "where" else f"s + fill{k}"
                self.line(f"s = tl.where({texts[2 * k]}, {new}, s)", depth)
        conds = self.bounds(frozenset((self.n, self.n + 1)), transposed)
        if conds:
            self.line(f's = tl.where({" & ".join(conds)}, s, float("-inf"))', depth)
        return late

    def slope(self, transposed: bool, masked: bool, depth: int) -> None:
        pc, _ = self.pieces["slope"]
        texts = [self.env["mask"][o] for o in self.pieces["mask"][0].outs[::2]] if masked and "mask" in self.pieces else \
            ["False"] * len(self.recipe.kinds)
        (out,) = self.run("slope", ["raw", "change", *texts], transposed, depth)
        if self.after is not None and self.after >= 0:
            s = pc.stmts[pc.outs[0]]
            out = self.env["slope"][s.args[1] if s.args[0] == self.after else s.args[0]]
        if masked and self.recipe.kinds and not transposed and self.p.keys % self.t.y:  # rows of NaN end with the keys
            out = f"tl.where(y[None, :] < ls, {out}, 0.0)"
        if out != "change":
            self.line(f"change = {out}", depth)

    # ---------------------------------------------------------------------------------------------------------- blocks
    def plane_axes(self) -> tuple[int, ...]:
        """Leading axes the masks vary along."""
        if "mask" not in self.pieces:
            return ()
        pc, _ = self.pieces["mask"]
        found = frozenset().union(*[pc.deps[o] for o in pc.outs[::2]])
        return tuple([d for d in range(self.n) if d in found and self.p.lead[d] != 1])

    @property
    def number_of_planes(self) -> int:
        """How many different masks there are."""
        return math.prod([self.p.lead[d] for d in self.planes])

    def plane(self) -> str:
        """The number of a head's mask."""
        parts = []
        for i, d in enumerate(self.planes):
            parts.append(f"h{d} * {math.prod([self.p.lead[x] for x in self.planes[i + 1:]])}")
        return f"({' + '.join(parts) or '0'})"

    def limits(self, which: str, count: str, own_step: int, step: int, own_total: int, depth: int) -> None:
        """lo, free, rest, hi: blocks from lo to hi are looked at, those from free to rest have no masked element."""
        rows = "ls" if self.by_keys else "lq"
        mask = f", mask={which} < {rows}, other=" if own_total % own_step else ""
        self.line(f"at = ranges + {self.plane()} * {rows} * 3 + {which} * 3", depth)
        self.line(f"start = tl.load(at{mask + count if mask else ''})", depth)
        self.line(f"end = tl.load(at + 1{mask + '0' if mask else ''})", depth)
        self.line(f"gap = tl.load(at + 2{mask + '0' if mask else ''})", depth)
        self.line(f"lo, hi = tl.min(start, 0) // {step} * {step}, tl.max(end, 0)", depth)
        inner = f"tl.where({which} < {rows}, " if mask else ""
        free, rest = [f"{inner}{x}, {y})" if inner else x for x, y in (("start", "0"), ("end", count))]
        self.line(f"free, rest = tl.cdiv(tl.max({free}, 0), {step}) * {step}, tl.min({rest}, 0) // {step} * {step}", depth)
        self.line("some_free = (tl.max(gap, 0) == 0) & (free < rest)", depth)
        self.line("lo, hi = tl.where(limited, lo, 0), tl.where(limited, hi, " + count + ")", depth)
        self.line("free, rest = tl.where(some_free, free, lo), tl.where(some_free, rest, lo)", depth)

    def loops(self, name: str, count: str, total: int, step: int, depth: int, body: Any) -> None:
        """Blocks without masks, then the others."""
        if not self.recipe.kinds:
            whole = f"{count} // {step} * {step}" if total % step else count
            self.line(f"for {name} in range(0, {whole}, {step}):", depth)
            body(False, depth + 1)
            if total % step:
                self.line(f"for {name} in range({whole}, {count}, {step}):", depth)
                body(True, depth + 1)
            return
        if not self.recipe.ranges:
            self.line(f"for {name} in range(0, {count}, {step}):", depth)
            body(True, depth + 1)
            return
        self.line(f"for {name} in range(free, rest, {step}):", depth)
        body(False, depth + 1)
        self.line(f"before = (free - lo) // {step}", depth)
        self.line(f"for block in range(0, before + tl.cdiv(tl.maximum(hi - rest, 0), {step})):", depth)
        self.line(f"{name} = tl.where(block < before, lo + block * {step}, rest + (block - before) * {step})", depth + 1)
        body(True, depth + 1)

    def key_loops(self, body: Any) -> None:
        if self.recipe.ranges:
            self.limits("x", "ls", self.t.x, self.t.y, self.p.queries, 1)
        self.loops("n0", "ls", self.p.keys, self.t.y, 1, body)

    def query_loops(self, depth: int, body: Any) -> None:
        if self.recipe.ranges:
            self.limits("y", "lq", self.t.y, self.t.x, self.p.keys, depth)
        self.loops("m0", "lq", self.p.queries, self.t.x, depth, body)

    # ------------------------------------------------------------------------------------------------- numbers of rows
    def put_shift(self) -> None:
        mask = ", mask=x < lq" if self.p.queries % self.t.x else ""
        self.line(f"tl.store(lse + (h * lq + x) * 2, top{mask})")
        number = f"tl.where(some, tl.log2(tl.where(some, total, 1.0)), {self.empty})"
        self.line(f"tl.store(lse + (h * lq + x) * 2 + 1, {number}{mask})")

    def shift(self, depth: int = 1) -> None:
        mask = ", mask=x < lq, other=0" if self.p.queries % self.t.x else ""
        self.line(f"best = tl.load(lse + (h * lq + x) * 2{mask})", depth)
        self.line(f"logs = tl.load(lse + (h * lq + x) * 2 + 1{mask})", depth)
        self.line("shift = best + logs", depth)

    def prob(self, side: str, late: bool, masked: bool) -> str:
        if masked and self.recipe.kinds:
            return f"tl.exp2((s - best{side}) - logs{side})"
        return self.exponent(f"shift{side}", late)

    def finish_head(self, depth: int) -> None:
        """Rows without any key make the gradients of all values NaN, those of skipped blocks too."""
        if not self.recipe.ranges:
            return
        self.line("bad = 0.0", depth)
        self.line("for m0 in range(0, lq, 128):", depth)
        self.line("z = m0 + tl.arange(0, 128)", depth + 1)
        self.line("bad += tl.sum(tl.load(lse + (h * lq + z) * 2 + 1, mask=z < lq, other=0) * 0.0, 0)", depth + 1)
        self.line("acc_v += bad", depth)
        if "add" in self.recipe.kinds:
            self.line("acc_k += bad", depth)

    def finish_rows(self) -> None:
        if "add" in self.recipe.kinds and self.recipe.ranges:
            self.line("acc += (logs * 0.0)[:, None]")

    def extra_pointers(self, keys: Sequence[Any]) -> list[tuple[str, dtype, Any]]:
        ranges = [("ranges", int32, self.ranges_key)] if self.recipe.ranges else []
        return [*[(f"extra{i}", self.extras[i].dtype, keys[i]) for i in sorted(self.used)], *ranges]

    # ---------------------------------------------------------------------------------------------------------- ranges
    def print_ranges(self, keys: Sequence[Any]) -> Printed:
        """The kernel that looks through the masks: (planes, queries, 3) int32 first, end, gap; or (planes, keys, 3)."""
        p, t = self.p, self.t
        own, other, own_step, step = ("ls", "lq", t.y, t.x) if self.by_keys else ("lq", "ls", t.x, t.y)
        mine, across = ("y", "x") if self.by_keys else ("x", "y")
        self.line(f"tiles = tl.cdiv({own}, {own_step})")
        self.line(f"{mine} = tl.program_id(0) % tiles * {own_step} + tl.arange(0, {own_step})")
        self.line("plane = tl.program_id(0) // tiles")
        rest = "plane"
        for d in range(self.n - 1, -1, -1):
            at = f"{rest} % {p.lead[d]}" if d in self.planes else "0"
            self.line(f"h{d} = {at}")
            rest = f"({rest} // {p.lead[d]})" if d in self.planes else rest
        pc, _ = self.pieces["mask"]
        for i in range(len(pc.stmts)):
            if not pc.deps[i] & {TILE, self.n, self.n + 1}:
                self.statement("mask", i, (), False, 1)
        self.line(f"first = tl.full(({own_step},), 0, tl.int32) + {other}")
        self.line(f"end = tl.zeros(({own_step},), tl.int32)")
        self.line(f"kept = tl.zeros(({own_step},), tl.int32)")
        self.line(f"for n0 in range(0, {other}, {step}):")
        self.line(f"{across} = n0 + tl.arange(0, {step})", 2)
        texts = self.run("mask", (), False, 2)[::2]
        self.line(f"masked = (y[None, :] >= ls) | (x[:, None] >= lq) | {' | '.join(f'({m})' for m in texts)}", 2)
        at, axis = ("x[:, None]", 0) if self.by_keys else ("y[None, :]", 1)
        self.line(f"first = tl.minimum(first, tl.min(tl.where(masked, {other}, {at}), {axis}))", 2)
        self.line(f"end = tl.maximum(end, tl.max(tl.where(masked, 0, {at} + 1), {axis}))", 2)
        self.line(f"kept += tl.sum(tl.where(masked, 0, 1), {axis})", 2)
        self.line(f"there = {mine} < {own}")
        self.line(f"at = ranges + (plane * {own} + {mine}) * 3")
        self.line("tl.store(at, first, mask=there)")
        self.line("tl.store(at + 1, end, mask=there)")
        self.line("tl.store(at + 2, (kept != end - first).to(tl.int32), mask=there)")
        args = [Arg(n, opcodes.pointer_type(dt), key, 16) for n, dt, key in self.extra_pointers(keys)]
        args += [Arg(n, "i32", v, math.gcd(v, 16)) for n, v in (("lq", p.queries), ("ls", p.keys))]
        doc = [f"Which {'queries of each key' if self.by_keys else 'keys of each query'} are not masked."]
        grid: list[tuple[str | int, int]] = [(own, own_step), (self.number_of_planes, 1)]
        return assemble("k_mask_ranges", doc, self.lines, args, [], grid, t.warps, self.helpers)


# ---------------------------------------------------------------------------------------------------------------- rows
RANGES_TILE = {False: Tile(16, 128, 4, 1), True: Tile(128, 16, 4, 1)}  # by keys: which side a program owns


class _Rows:
    """The launches of one node."""

    def __init__(self, x: Library, backward: bool):
        self.x, self.backward = x, backward
        (self.recipe,) = x.node.attrs
        self.first = 6 if backward else 3
        views = x.views[:6] if backward else attention.forward_views(x)
        self.p = attention.problem_of((False, 1.0, False), x.ins[:3], 0, views)
        self.made: list[Made] = []

    def text(self, by_keys: bool) -> Callable[[Problem, Tile], Scored]:
        """A writer of kernels; the kernel that finds the ranges comes before them."""
        assert self.p is not None
        x, extras, keys = self.x, self.x.ins[self.first:], self.x.keys[self.first:]
        key = x.own("keys" if by_keys else "queries")
        if self.recipe.ranges:
            w = Scored(self.p, RANGES_TILE[by_keys], self.recipe, extras, False, by_keys, key)
            size = 12 * w.number_of_planes * (self.p.keys if by_keys else self.p.queries)
            self.made.append((w.print_ranges(keys), {key}, {key: size}))
        return lambda p, t: Scored(p, t, self.recipe, extras, self.backward, by_keys, key)


def scored(x: Library) -> list[Made] | None:
    """``scored_attention``."""
    r = _Rows(x, False)
    if r.p is None:
        return None
    out, rows = x.placed[0] if x.placed is not None else x.node.slot, x.node.slot + 1
    made = attention.forward(r.p, x.keys, out, rows, tile_of("forward", r.p, r.recipe), r.text(False))
    return [*r.made, (made, {out, rows}, {})]


def scored_backward(x: Library) -> list[Made] | None:
    """``scored_attention_backward``: a kernel that owns queries, and one that owns keys."""
    r = _Rows(x, True)
    if r.p is None:
        return None
    delta, s = x.own("delta"), x.node.slot
    queries = attention.backward_queries(r.p, x.keys, s, delta, tile_of("queries", r.p, r.recipe), r.text(False))
    keys = attention.backward_keys(r.p, x.keys, s + 1, s + 2, delta, tile_of("keys", r.p, r.recipe), r.text(True))
    return [*r.made, (queries, {s, delta}, {delta: 4 * r.p.heads * r.p.queries}), (keys, {s + 1, s + 2}, {})]


def tile_of(what: str, p: Problem, recipe: Recipe) -> Tile:
    """Block sizes: those of plain attention, with registers left for the code on the scores."""
    depth = max(p.depth, p.value_depth)
    t = attention.tile_of(what, p.dt, depth)
    if what == "keys" and t.y == 64 and p.dt.itemsize == 2:
        t = Tile(32, 128 if depth <= 64 else 64, 8, 2)
    elif t.x * t.y >= 4096 and p.dt.itemsize == 2:
        t = replace(t, warps=8, stages=min(t.stages, 2))
    elif what == "queries" and p.dt.itemsize == 4 and t.x * t.y >= 1024:
        t = replace(t, y=t.y // 2)
    nodes = [*recipe.body.nodes, *(recipe.slope.nodes if recipe.slope is not None else ())]
    if any(n.op is not None and n.op.name in COSTLY for n in nodes) and min(t.x, t.y) >= 32:
        t = replace(t, y=t.y // 2) if what == "keys" else replace(t, x=t.x // 2)
    return t


__all__ = ["Scored", "scored", "scored_backward"]
