"""Combining into a base at indices (``take_put``, ``scatter``) without atomics: results repeat bit for bit.

Every program owns a block of the result and looks through the indices for what belongs to it, in order. For ``take_put``
(one index per row of the source) a block of indices is compared with the range of rows the program owns before anything
else happens, so that programs walk quickly over what is not theirs; only source rows that are hit are read. 16-bit
floats are combined in float32 and rounded once, as in the NumPy row.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...dtypes import bool_, dtype
from ...ir.node import Aval
from . import opcodes
from .library_row import Library, Made
from .printer import Arg, assemble
from .tiling import WIDE, pow2

LOOK = 1024  # indices compared at once in the search
POINTS = 4096  # elements of a block (result elements times indices)


def take_put(x: Library) -> list[Made]:
    """A base with rows combined in along an axis; attrs (axis, mode, wrap)."""
    axis, mode, wrap = x.node.attrs
    return _combine(x, axis, mode, wrap, rows=True)


def scatter(x: Library) -> list[Made]:
    """A base with elements combined in along an axis; attrs (axis, mode)."""
    axis, mode = x.node.attrs
    return _combine(x, axis, mode, False, rows=False)


def _combine(x: Library, axis: int, mode: str, wrap: bool, rows: bool) -> list[Made]:
    base, idx, src = x.ins
    count = idx.size if rows else idx.shape[axis] if idx.ndim else 1
    checked = x.own("indices")
    first = _check(x, axis, wrap, checked, base.shape[axis] if base.ndim else 1)
    lines, helpers = [], set()  # type: ignore[var-annotated]
    big = max(base.size, idx.size, src.size) + (1 << 16) >= WIDE
    bx = min(1024, max(32, pow2(math.prod(base.shape[axis + 1:]) if rows else 256)))
    p = _Printer(lines, base, axis, big)
    p.position()
    dt = base.dtype
    kind = "max" if dt is bool_ and mode == "add" else "min" if dt is bool_ and mode == "mul" else mode
    acc = opcodes.accumulator(dt)
    if mode == "set":
        lines.append("    last = tl.full((BX, 1), -1, tl.int32)")
    else:
        lines.append(f"    acc = tl.full((BX, 1), {opcodes.identity(kind, dt)}, {opcodes.register(acc)})")
    p.loop(rows, count, idx.shape, src.shape, kind, acc, helpers)
    p.finish(mode, kind, rows, idx.shape, src.shape, helpers)
    size = "i64" if big else "i32"
    pointers = [Arg(n, opcodes.pointer_type(av.dtype), k, 16) for n, av, k in (("b", base, x.keys[0]), ("s", src, x.keys[2]))]
    args = [*pointers, Arg("index", "*i32", checked, 16), Arg("o", opcodes.pointer_type(dt), x.node.slot, 16),
            Arg("nx", size, base.size, math.gcd(base.size, 16)), Arg("count", "i32", count, math.gcd(count, 16))]
    constants = [("BX", bx), ("BS", max(1, min(pow2(count), POINTS // bx)))] + ([("LOOK", LOOK)] if rows else [])
    name = f"k_{x.node.op.name}_{mode}"  # type: ignore[union-attr]
    printed = assemble(name, [f"{mode} {count} indices into axis {axis} of {tuple(base.shape)}."], lines, args, constants,
                       [("nx", bx)], 4, helpers)
    return [*first, (printed, {x.node.slot}, {})]


def _check(x: Library, axis: int, wrap: bool, checked: Any, size: int) -> list[Made]:
    """The indices as int32, wrapped; -1 where out of range, which is reported."""
    idx = x.ins[1]
    lines = ["    i = tl.program_id(0) * BX + tl.arange(0, BX)", "    v = tl.load(index + i, mask=i < n, other=0).to(tl.int64)"]
    if wrap:
        lines.append(f"    v = tl.where(v < 0, v + {size}, v)")
    lines += [f"    ok = (v >= 0) & (v < {size})", "    tl.store(err + tl.zeros((BX,), tl.int32), 1, mask=(ok == 0) & (i < n))",
              "    tl.store(checked + i, tl.where(ok, v, -1).to(tl.int32), mask=i < n)"]
    args = [Arg("index", opcodes.pointer_type(idx.dtype), x.keys[1], 16), Arg("checked", "*i32", checked, 16),
            Arg("err", "*i32", "err", 16), Arg("n", "i32", idx.size, math.gcd(idx.size, 16))]
    bx = min(1024, max(32, pow2(idx.size)))
    doc = ["Indices checked once."]
    printed = assemble("k_check_indices", doc, lines, args, [("BX", bx)], [("n", bx)], max(1, bx // 256), set(), True)
    return [(printed, {checked}, {checked: 4 * idx.size})]


class _Printer:
    """Lines of one combining kernel."""

    def __init__(self, lines: list[str], base: Aval, axis: int, big: bool):
        self.lines, self.shape, self.axis, self.big = lines, base.shape, axis, big

    def line(self, text: str, depth: int = 1) -> None:
        self.lines.append("    " * depth + text)

    def position(self) -> None:
        """x: position in the result; c0, c1, ..: its coordinates; v: the one along the axis."""
        wide = ".to(tl.int64)" if self.big else ""
        self.line(f"x = (tl.program_id(0){wide} * BX + tl.arange(0, BX))[:, None]")
        self.line("mx = x < nx")
        rest = "x"
        for d in range(len(self.shape) - 1, -1, -1):
            self.line(f"c{d} = {rest} % {self.shape[d]}" if d else f"c0 = {rest}")
            if d:
                rest = f"r{d}"
                self.line(f"{rest} = {'x' if d == len(self.shape) - 1 else f'r{d + 1}'} // {self.shape[d]}")
        self.line(f"v = c{self.axis}" if self.shape else "v = x")

    def address(self, shape: Sequence[int], along: str, spread: int = 1) -> str:
        """Position in an array shaped like the base but along the axis; ``spread``: axes the index takes there."""
        terms, stride = [], 1
        before = len(self.shape) - 1 - self.axis
        for d in range(len(shape) - 1, -1, -1):
            if len(shape) - 1 - d < before:
                own = len(self.shape) - len(shape) + d
                terms.append((f"c{own}", stride))
            elif d < self.axis:
                terms.append((f"c{d}", stride))
            elif d == self.axis:
                terms.append((along, math.prod(shape[self.axis + spread:])))
            stride *= shape[d]
        if not shape:
            terms = [(along, 1)]
        return " + ".join(t if s == 1 else f"{t} * {s}" for t, s in terms)

    def inside(self, shape: Sequence[int]) -> str:
        """The condition that a result element lies where a smaller array reaches."""
        parts = [f"(c{d} < {n})" for d, n in enumerate(shape) if d != self.axis and n < self.shape[d]]
        return " & ".join(["mx", *parts])

    def loop(self, rows: bool, count: int, idx: Sequence[int], src: Sequence[int], kind: str, acc: dtype,
             helpers: set[str]) -> None:
        """Walk over the indices and combine what is hit."""
        depth = 1
        if rows:
            self.line("lo, hi = tl.min(tl.where(mx, v, 2147483647)), tl.max(tl.where(mx, v, -1))")
            self.line("for n0 in range(0, count, LOOK):")
            self.line("i = n0 + tl.arange(0, LOOK)", 2)
            self.line("look = tl.load(index + i, mask=i < count, other=-1)", 2)
            self.line("if tl.max(((look >= lo) & (look <= hi)).to(tl.int32), 0) > 0:  # something here is ours", 2)
            self.line("for s0 in range(n0, tl.minimum(n0 + LOOK, count), BS):", 3)
            depth = 4
        else:
            self.line("for s0 in range(0, count, BS):")
            depth = 2
        self.line("j = s0 + tl.arange(0, BS)[None, :]", depth)
        if rows:
            self.line("hit = (tl.load(index + j, mask=j < count, other=-1) == v) & mx", depth)
        else:
            self.line(f"near = (j < count) & {self.inside(idx)}", depth)
            self.line(f"hit = (tl.load(index + {self.address(idx, 'j')}, mask=near, other=-1) == v) & near", depth)
        if kind == "set":
            self.line("last = tl.maximum(last, tl.max(tl.where(hit, j, -1).to(tl.int32), 1, keep_dims=True))", depth)
            return
        spread = len(src) - len(self.shape) + 1
        dt = self.dt = acc  # combining happens in the accumulator's type
        load = f"tl.load(s + {self.address(src, 'j', spread)}, mask=hit, other=0)"
        self.line(f"got = {load}.to({opcodes.register(acc)})", depth)
        self.line(f"got = tl.where(hit, got, tl.full([], {opcodes.identity(kind, dt)}, {opcodes.register(acc)}))", depth)
        self.line(f"part = {opcodes.reduce(kind, dt, 'got', helpers)}", depth)
        self.line(f"acc = {opcodes.combine(kind, dt, 'acc', 'part')}", depth)

    def finish(self, mode: str, kind: str, rows: bool, idx: Sequence[int], src: Sequence[int], helpers: set[str]) -> None:
        """Combine with the base and write."""
        self.line("old = tl.load(b + x, mask=mx, other=0)")
        if mode == "set":
            spread = len(src) - len(self.shape) + 1
            self.line(f"new = tl.load(s + {self.address(src, 'last', spread)}, mask=mx & (last >= 0), other=0)")
            self.line("tl.store(o + x, tl.where(last >= 0, new, old), mask=mx)")
            return
        self.line(f"new = {opcodes.combine(kind, self.dt, f'old.to({opcodes.register(self.dt)})', 'acc')}")
        self.line("tl.store(o + x, new.to(o.dtype.element_ty), mask=mx)")


__all__ = ["scatter", "take_put"]
