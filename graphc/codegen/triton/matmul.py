"""Matrix products as Triton kernels: tiles of the result accumulated in registers, operands of any strides.

float32 uses tensor cores three times per product (tf32x3: the error of plain float32), 16-bit floats accumulate in
float32, float64 in float64. A pointwise kernel that reads the product elementwise can be printed into the same kernel: it
starts from the accumulator (:class:`Epilogue`). Long sums over few tiles (weight gradients) are cut into parts: partial
products into a buffer, then one reduction in fixed order, so that results repeat bit for bit. Where the device and the
operands' alignment allow it, large products use the persistent kernel of :mod:`matmul_tma`.

Sizes and strides are run-time arguments with divisibility hints; only which stride is one and which sizes fill whole
tiles is part of the code.
"""
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from ...dtypes import dtype, float32, float64
from .. import index
from ..index import Ix
from ..loop_ir import Access, Buf, Guard, Kernel, Stmt, Store
from ..native.contraction import Product
from . import opcodes
from .compiler import Target
from .printer import NONE, Arg, Printed, Printer, Val, X, Y, assemble, print_kernel
from .tiling import CANDIDATES, WIDE, Sizes, Tile, Tiling, is_narrow, ranked

GROUP = 8  # rows of tiles that run together, so that columns are found in the L2 cache


def choose(p: Product, dt: dtype, target: Target, offsets: tuple[int, int] = (0, 0), candidates: Sequence[Sizes] | None = None,
           epilogue: Kernel | None = None) -> Tile:
    """The tile with the least estimated time; see :func:`tiling.ranked`."""
    return ranked(p, dt, target, offsets, candidates, epilogue)[0]


# ------------------------------------------------------------------------------------------------------------ epilogue
class Epilogue(Printer):
    """Prints a pointwise kernel into a tile of a product: loads of the product become the accumulator."""

    def __init__(self, k: Kernel, slot: Any, p: Product, tile: Tile, levels: Levels):
        axes = tuple(range(len(k.extents)))
        super().__init__(k, Tiling((), axes, (), tile.m, tile.n, False, tile.warps))
        self.slot, self.rank = slot, 2
        self.buffer_names = [f"e{i}" for i in range(len(k.buffers))]
        self.masks = frozenset([s for s, n, b in ((X, p.m, tile.m), (Y, p.n, tile.n)) if n % b])
        self.texts: dict[int, str] = {}
        places = positions(k.extents, levels)
        assert places is not None
        for d, (text, shape) in enumerate(places):
            self.side[d], self.texts[d] = shape, text

    def print(self, acc: str) -> None:
        """The statements and stores, given the accumulator's name."""
        for d, text in self.texts.items():
            self.let(f"i{d}", text)
        env: dict[int, Val] = {}
        for i, s in enumerate(self.k.stmts):
            if s.op == "load" and self.k.buffers[s.attr.buffer].slot == self.slot:
                env[i] = Val(self.let(f"product{i}", opcodes.rounded(s.dtype, acc)), frozenset((X, Y)))
            else:
                env[i] = self.statement(i, env)
        for n in range(len(self.k.stores)):
            self.store(n, env)

    def arguments(self) -> list[Arg]:
        """Pointers of what the kernel touches besides the product."""
        used = {b for b in self.k.reads if self.k.buffers[b].slot != self.slot} | self.k.writes
        out = [Arg(self.buffer_names[i], opcodes.pointer_type(self.k.buffers[i].dtype), self.k.buffers[i].slot, 16)
               for i in sorted(used)]
        return out + ([Arg("err", "*i32", "err", 16)] if self.checks else [])

    @property
    def checks(self) -> bool:
        """Whether an index error may be reported."""
        return any(s.op == "check" for s in self.k.stmts)


Levels = Sequence[tuple[str, int, frozenset[str]]]  # axes of a result, last first: (text, size, sides of the block)


def product_levels(p: Product) -> Levels:
    """The dense result (batch, m, n) of a product."""
    return [("y", p.n, frozenset(Y)), ("x", p.m, frozenset(X)), ("z", math.prod(p.batch), NONE)]


def positions(extents: Sequence[int], given: Levels) -> list[tuple[str, frozenset[str]]] | None:
    """Iteration variables over ``extents`` (C order) as texts over the axes of a result of the same size; None if they do
    not nest."""
    levels = list(given)
    text, size, shape = levels.pop(0)
    out: list[tuple[str, frozenset[str]]] = []
    for e in reversed(extents):
        while size % e:
            if not levels:
                return None
            outer, more, its = levels.pop(0)
            text, size, shape = f"({outer}) * {size} + {text}", size * more, shape | its
        if size == e:
            out.append((text, shape))
            text, size, shape = levels.pop(0) if levels else ("0", 1, NONE)
        else:
            out.append((f"({text}) % {e}", shape))
            text, size = f"({text}) // {e}", size // e
    return out[::-1]


def can_end_in(k: Kernel, slot: Any, levels: Levels) -> bool:
    """Whether a kernel can be printed into the product of ``slot``: pointwise, every read of the product at the point
    itself."""
    if k.kept != len(k.extents) or any(s.op in ("reduce", "argreduce") for s in k.stmts):
        return False
    own = index.flatten([index.var(d) for d in range(len(k.extents))], k.extents)
    loads = [s.attr for s in k.stmts if s.op == "load" and k.buffers[s.attr.buffer].slot == slot]
    size = math.prod([n for _, n, _ in levels])
    if not loads or math.prod(k.extents) != size or any(a.ix != own or a.guards for a in loads):
        return False
    return positions(k.extents, levels) is not None


# ------------------------------------------------------------------------------------------------------------ template
class Template:
    """State of printing one product."""

    def __init__(self, p: Product, dt: dtype, tile: Tile, offsets: tuple[int, int], keys: tuple[Any, Any]):
        self.p, self.dt, self.tile, self.offsets = p, dt, tile, offsets
        self.keys = keys
        self.lines: list[str] = []
        self.inside = 0  # loops around what is printed now
        self.columns = "BN" if tile.halves == 2 else "BY"  # the tile's width; BY is that of a piece
        spans = [off + sum((n - 1) * abs(s) for n, s in zip((*p.batch, *sizes), (*strides, *inner)))
                 for off, sizes, strides, inner in ((offsets[0], (p.m, p.k), p.batch_a, p.a),
                                                    (offsets[1], (p.k, p.n), p.batch_b, p.b))]
        out = math.prod(p.batch) * p.m * p.n * (tile.parts if tile.parts > 1 else 1)
        self.big = max(*spans, out) + (1 << 20) >= WIDE
        self.numbers: list[Arg] = []

    def line(self, text: str, depth: int = 1) -> None:
        self.lines.append("    " * (self.inside + depth) + text)

    def number(self, name: str, value: int) -> str:
        """A size or stride: a literal where the code depends on it, else an argument."""
        if value in (0, 1):
            return str(value)
        self.numbers.append(Arg(name, "i64" if self.big else "i32", value, math.gcd(value, 16)))
        return name

    def header(self) -> None:
        """Which tile, which part of the sum, which element of the batch."""
        p, t = self.p, self.tile
        self.numbers += [Arg(n, "i32", v, math.gcd(v, 16)) for n, v in (("m", p.m), ("n", p.n), ("k", p.k))]
        self.line(f"tiles_m, tiles_n = tl.cdiv(m, BX), tl.cdiv(n, {self.columns})")
        self.line("pid = tl.program_id(0)")
        self.line("tile, z = pid % (tiles_m * tiles_n), pid // (tiles_m * tiles_n)")
        self.line(f"first = tile // ({GROUP} * tiles_n) * {GROUP}  # rows of tiles in groups, for the L2 cache")
        self.line(f"rows = tl.minimum(tiles_m - first, {GROUP})")
        self.line(f"pm, pn = first + tile % ({GROUP} * tiles_n) % rows, tile % ({GROUP} * tiles_n) // rows")
        wide = ".to(tl.int64)" if self.big else ""
        self.line(f"x = (pm * BX + tl.arange(0, BX)[:, None]){wide}")
        self.line(f"y = (pn * {self.columns} + tl.arange(0, {self.columns})[None, :]){wide}")
        if p.m % t.m:
            self.line("mx = x < m")
        if p.n % t.n:
            self.line("my = y < n")
        if t.parts > 1:
            self.line(f"part, z = z % {t.parts}, z // {t.parts}")
        if self.big:
            self.line("z = z.to(tl.int64)")
        self.batch()

    def batch(self) -> None:
        """Move the operands to their element of the batch."""
        p = self.p
        at: list[list[str]] = [[], []]
        if len(p.batch) > 1:
            self.line("rest = z")
        for d in range(len(p.batch) - 1, -1, -1):
            if len(p.batch) == 1:
                name = "z"
            elif d:
                size = self.number(f"batch{d}", p.batch[d])
                self.line(f"z{d}, rest = rest % {size}, rest // {size}")
                name = f"z{d}"
            else:
                name = "rest"
            for which, stride in ((0, p.batch_a[d]), (1, p.batch_b[d])):
                if stride:
                    at[which].append(f"{name} * {self.number(f'batch_{chr(97 + which)}{d}', stride)}")
        for which, name in enumerate("ab"):
            parts = at[which] + ([str(self.offsets[which])] if self.offsets[which] else [])
            if parts:
                self.line(f"{name} += {' + '.join(parts)}")

    def loop(self) -> None:
        """acc = the tile's sum over its part of k."""
        p, t = self.p, self.tile
        acc = "tl.float64" if self.dt is float64 else "tl.float32"
        row, ka = self.number("a_row", p.a[0]), self.number("a_k", p.a[1])
        kb, col = self.number("b_k", p.b[0]), self.number("b_col", p.b[1])
        if t.parts > 1:
            self.line(f"lo = part * (tl.cdiv(k, {t.parts} * BK) * BK)")
            self.line(f"hi = tl.minimum(lo + tl.cdiv(k, {t.parts} * BK) * BK, k)")
        lo, hi = ("lo", "hi") if t.parts > 1 else ("0", "k")
        self.line("r = tl.arange(0, BK)")
        start = f"({lo} + r)" if t.parts > 1 else "r"
        self.line(f"pa = a + x * {row} + {start}[None, :] * {ka}")
        self.line(f"pb = b + {start}[:, None] * {kb} + y * {col}")
        self.line(f"acc = tl.zeros((BX, {self.columns}), {acc})")
        self.line(f"for k0 in range({lo}, {hi}, BK):")
        ends = p.k % t.k != 0
        ma = " & ".join((["mx"] if p.m % t.m else []) + ([f"(r[None, :] < {hi} - k0)"] if ends else []))
        mb = " & ".join((["my"] if p.n % t.n else []) + ([f"(r[:, None] < {hi} - k0)"] if ends else []))
        self.line(f"ta = tl.load(pa{f', mask={ma}, other=0' if ma else ''})", 2)
        self.line(f"tb = tl.load(pb{f', mask={mb}, other=0' if mb else ''})", 2)
        how = ', input_precision="tf32x3"' if self.dt is float32 else ""
        self.line(f"acc = tl.dot(ta, tb, acc{how}, out_dtype={acc})", 2)
        self.line(f"pa += BK * {ka}", 2)
        self.line(f"pb += BK * {kb}", 2)

    def store(self, dt: dtype, rows: str = "z") -> None:
        """Write the accumulator as the dense result."""
        mask = " & ".join([n for n, on in (("mx", self.p.m % self.tile.m), ("my", self.p.n % self.tile.n)) if on])
        self.line(f"tl.store(c + ({rows} * m + x) * n + y, {opcodes.stored(dt, 'acc')}{f', mask={mask}' if mask else ''})")

    def pieces(self) -> Iterator[str]:
        """The accumulator's name, once for every piece of the block; what belongs to a piece is printed in between."""
        if self.tile.halves == 1:
            yield "acc"
            return
        self.line("acc, right = tl.split(tl.permute(tl.reshape(acc, (BX, 2, BY)), (0, 2, 1)))")
        for h in range(2):
            self.line(f"y0 = pn * BN{' + BY' if h else ''}")
            self.line(f"y = (y0 + tl.arange(0, BY)[None, :]){'.to(tl.int64)' if self.big else ''}")
            if self.p.n % self.tile.n:
                self.line("my = y < n")
            if h:
                self.line("acc = right")
            yield "acc"

    def finish(self, name: str, doc: list[str], pointers: list[Arg], helpers: set[str], checks: bool, kernel: Any) -> Printed:
        t = self.tile
        keys = [Arg(n, opcodes.pointer_type(self.dt), key, 16) for n, key in zip("ab", self.keys)]
        args = [*keys, *pointers, *self.numbers]
        return assemble(name, doc, self.lines, args, self.constants(), self.grid(), t.warps, helpers, checks, kernel, t.stages)

    def constants(self) -> list[tuple[str, int]]:
        """Block sizes the text names."""
        t = self.tile
        return [("BX", t.m), ("BY", t.n // t.halves), *([("BN", t.n)] if t.halves == 2 else []), ("BK", t.k)]

    def grid(self) -> list[tuple[str | int, int]]:
        """How many programs."""
        t = self.tile
        return [("m", t.m), ("n", t.n), (math.prod(self.p.batch) * t.parts, 1)]


def print_product(p: Product, dt: dtype, keys: tuple[Any, Any, Any], target: Target, offsets: tuple[int, int] = (0, 0),
                  epilogue: Kernel | None = None, keep: bool = True, tile: Tile | None = None,
                  partial: Any = None) -> list[Printed]:
    """The kernels of ``out = a @ b`` in launch order; ``keys`` name the memory of a, b and out.

    ``epilogue`` is a kernel for which :func:`can_end_in` holds; ``keep``: whether out itself is stored as well.
    ``partial`` names the buffer of partial sums (parts, batch, m, n), used where :attr:`Tile.parts` > 1: float32, float64
    for float64.
    """
    tile = tile or choose(p, dt, target, offsets)
    if tile.tma:
        from .matmul_tma import Persistent

        t: Template = Persistent(p, dt, tile, offsets, keys[:2], target.processors, epilogue is None)
    else:
        t = Template(p, dt, tile, offsets, keys[:2])
    return finished(t, "k_product", keys[2], product_levels(p), epilogue, keep, partial)


def finished(t: Template, name: str, out: Any, levels: Levels, epilogue: Kernel | None, keep: bool,
             partial: Any) -> list[Printed]:
    """The kernels of a template."""
    p, dt, tile = t.p, t.dt, t.tile
    t.header()
    t.loop()
    space = "x".join(map(str, [*p.batch, p.m, p.n]))
    doc = [f"Product {space}, sum over {p.k}, in {dt.name}."]
    if tile.parts > 1:
        wide = float64 if dt is float64 else float32
        for _ in t.pieces():
            Template.store(t, wide, f"(part * {math.prod(p.batch)} + z)" if p.batch else "part")
        arg = Arg("c", opcodes.pointer_type(wide), partial, 16)
        first = t.finish(f"{name}{space}_parts", [*doc, f"Part of {tile.parts} of the sum."], [arg], set(), False, None)
        return [first, combine_parts(math.prod(p.batch) * p.m * p.n, dt, out, partial, tile.parts, epilogue, keep)]
    pointers: list[Arg] = []
    e = None if epilogue is None else Epilogue(epilogue, out, p, tile, levels)
    whole = keep or e is None
    if whole:
        pointers.append(Arg("c", opcodes.pointer_type(dt), out, 16))
    if e is not None:
        e.big = e.big or t.big
        e.lines, e.depth = t.lines, 1 + t.inside
    for acc in t.pieces():
        if whole:
            t.store(dt)
        if e is not None:
            e.print(acc)
    if e is None:
        return [t.finish(name, doc, pointers, set(), False, None)]
    assert epilogue is not None
    tail = epilogue.name.split("_", 1)[-1]
    return [t.finish(f"{name}_{tail}", [*doc, "Then " + e.describe()[0]], [*pointers, *e.arguments()], e.helpers, e.checks,
                     epilogue)]


def combine_parts(size: int, dt: dtype, out: Any, partial: Any, parts: int, epilogue: Kernel | None, keep: bool) -> Printed:
    """The sum of the parts in their order, rounded once, then the epilogue."""
    wide = float64 if dt is float64 else float32
    if epilogue is None:
        own = index.var(0)
        epilogue = Kernel("k_sum", (size,), 1, (Buf(out, dt, size),), (), (), ())
    else:
        own = index.flatten([index.var(i) for i in range(len(epilogue.extents))], epilogue.extents)
    return print_kernel(_with_parts(epilogue, own, size, wide, dt, out, partial, parts, keep or not epilogue.stores))


UNROLLED = 16  # parts added one after the other, so that all accesses are contiguous; more are a reduction


def _sum(buffer: int, own: Ix, size: int, parts: int, wide: dtype, axis: int) -> list[Stmt]:
    """Statements whose last one is the sum of the parts."""
    if parts > UNROLLED:
        ix = index.add(own, index.scale(index.var(axis), size))
        return [Stmt("load", (), wide, Access(buffer, ix)), Stmt("reduce", (0,), wide, "add")]
    out = [Stmt("load", (), wide, Access(buffer, own))]
    for k in range(1, parts):
        out.append(Stmt("load", (), wide, Access(buffer, index.add(own, index.num(k * size)))))
        out.append(Stmt("add", (len(out) - 2, len(out) - 1), wide))
    return out


def _with_parts(e: Kernel, own: Ix, size: int, wide: dtype, dt: dtype, out: Any, partial: Any, parts: int,
                keep: bool) -> Kernel:
    """The epilogue with the product's loads replaced by the sum of the parts."""
    d = len(e.extents)
    buffers = [*e.buffers, Buf(partial, wide, size * parts)]
    stmts = _sum(len(e.buffers), own, size, parts, wide, d)
    if dt is not wide:
        stmts.append(Stmt("cast", (len(stmts) - 1,), dt))
    total = len(stmts) - 1
    move: dict[int, int] = {}
    for i, s in enumerate(e.stmts):
        if s.op == "load" and e.buffers[s.attr.buffer].slot == out:
            move[i] = total
            continue
        move[i] = len(stmts)
        stmts.append(_moved(s, move))
    stores = [Store(_moved_access(st.access, move), move[st.value]) for st in e.stores]
    if keep:
        b = next(i for i, x in enumerate(e.buffers) if x.slot == out)
        stores.append(Store(Access(b, own), total))
    extents = (*e.extents, parts) if parts > UNROLLED else e.extents
    return Kernel(e.name + "_of_parts", extents, d, tuple(buffers), tuple(stmts), tuple(stores), e.notes)


def _moved(s: Stmt, move: dict[int, int]) -> Stmt:
    """A statement with the statements it refers to renumbered."""
    attr = s.attr
    if s.op == "load":
        attr = _moved_access(attr, move)
    elif s.op in ("index", "rng"):
        attr = _moved_ix(attr, move)
    elif s.op == "guard":
        attr = _moved_guards(attr, move)
    elif s.op == "check":
        attr = (*attr[:2], _moved_guards(attr[2], move))
    return s._replace(args=tuple([move[a] for a in s.args]), attr=attr)


def _moved_access(a: Access, move: dict[int, int]) -> Access:
    return Access(a.buffer, _moved_ix(a.ix, move), _moved_guards(a.guards, move))


def _moved_guards(guards: Sequence[Guard], move: dict[int, int]) -> tuple[Guard, ...]:
    return tuple([Guard(_moved_ix(g.ix, move), g.lo, g.hi) for g in guards])


def _moved_ix(e: Ix, move: dict[int, int]) -> Ix:
    """An expression with the statements in it renumbered."""
    terms = []
    for atom, c in e.terms:
        if not isinstance(atom, int):
            atom = ("data", move[atom[1]], atom[2]) if atom[0] == "data" else (atom[0], _moved_ix(atom[1], move), atom[2])
        terms.append((atom, c))
    return Ix(e.const, tuple(terms))


def vector_kernel(p: Product, dt: dtype, keys: tuple[Any, Any, Any], sizes: tuple[int, int],
                  offsets: tuple[int, int]) -> Kernel:
    """A product with one row or one column, or of integers, as a loop-IR kernel; ``sizes``: elements of a's and b's memory."""
    nb = len(p.batch)
    extents = [*p.batch, p.m, p.n, p.k]
    dims = [d for d, n in enumerate(extents) if n != 1 or d == nb + 2]
    at = {d: index.var(i) for i, d in enumerate(dims)}

    def place(offset: int, batch: Sequence[int], strides: dict[int, int]) -> Ix:
        ix = index.num(offset)
        for d, s in [*enumerate(batch), *strides.items()]:
            if d in at:
                ix = index.add(ix, index.scale(at[d], s))
        return ix

    a = place(offsets[0], p.batch_a, {nb: p.a[0], nb + 2: p.a[1]})
    b = place(offsets[1], p.batch_b, {nb + 2: p.b[0], nb + 1: p.b[1]})
    kept = [extents[d] for d in dims[:-1]]
    out = index.flatten([index.var(i) for i in range(len(kept))], kept)
    wide = float32 if opcodes.is_half(dt) else dt
    buffers = [Buf(keys[0], dt, sizes[0])]
    if keys[1] != keys[0]:
        buffers.append(Buf(keys[1], dt, sizes[1]))
    buffers.append(Buf(keys[2], dt, math.prod(extents[:-1])))
    stmts = [Stmt("load", (), dt, Access(0, a)), Stmt("load", (), dt, Access(len(buffers) - 2, b))]
    x, y = 0, 1
    if wide is not dt:
        stmts += [Stmt("cast", (0,), wide), Stmt("cast", (1,), wide)]
        x, y = 2, 3
    stmts += [Stmt("mul", (x, y), wide), Stmt("reduce", (len(stmts),), wide, "add")]
    if wide is not dt:
        stmts.append(Stmt("cast", (len(stmts) - 1,), dt))
    return Kernel("k_product_vector", (*kept, p.k), len(kept), tuple(buffers), tuple(stmts),
                  (Store(Access(len(buffers) - 1, out), len(stmts) - 1),))


__all__ = ["CANDIDATES", "Epilogue", "Levels", "Template", "Tile", "can_end_in", "choose", "finished", "is_narrow", "positions",
           "print_product", "product_levels", "vector_kernel"]
