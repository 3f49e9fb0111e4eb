"""Sorting by rank: an element's place is the number of elements that come before it, ties by position, NaN last.

Every program owns a block of elements and counts over the whole row, so the order is stable and exact for every dtype and
any length; work grows with the square of the row's length, which a device carries up to some ten thousand elements.
``topk`` stores the first places only. ``searchsorted`` is a binary search of all elements together.
"""
from __future__ import annotations

import math

from ...dtypes import bool_, dtype
from ...ir.node import Aval
from . import opcodes
from .library_row import Library, Made
from .printer import Arg, assemble
from .tiling import pow2

LONGEST = 1 << 17  # elements of a row; counting is slower than the host beyond


def sort(x: Library) -> list[Made] | None:
    """(values, indices); attrs (axis, descending, stable)."""
    axis, descending, _ = x.node.attrs
    return _ranked(x, axis, bool(descending), None)


def topk(x: Library) -> list[Made] | None:
    """(values, indices) of the first k; attrs (axis, k, largest)."""
    axis, k, largest = x.node.attrs
    return _ranked(x, axis, bool(largest), k)


def _ranked(x: Library, axis: int, descending: bool, k: int | None) -> list[Made] | None:
    av = x.ins[0]
    if av.dtype.is_complex:
        return None
    n = av.shape[axis] if av.shape else 1
    inner = math.prod(av.shape[axis + 1:])
    if n > LONGEST or av.size >= 1 << 31:
        return None
    out = n if k is None else k
    bx, by = (64, 64) if n <= 64 else (128, 32)
    lines = [f"    tiles = tl.cdiv({n}, BX)", "    row = tl.program_id(0) // tiles",
             "    i = tl.program_id(0) % tiles * BX + tl.arange(0, BX)[:, None]",
             f"    base = row // {inner} * {n * inner} + row % {inner}",
             f"    mine = tl.load(b + base + i * {inner}, mask=i < {n}, other=0)", "    a = " + _comparable(av.dtype, "mine"),
             "    rank = tl.zeros((BX, 1), tl.int32)", f"    for j0 in range(0, {n}, BY):",
             "        j = j0 + tl.arange(0, BY)[None, :]",
             f"        c = {_comparable(av.dtype, f'tl.load(b + base + j * {inner}, mask=j < {n}, other=0)')}",
             f"        before = {_before(av.dtype, descending)}",
             f"        rank += tl.sum((before & (j < {n})).to(tl.int32), 1, keep_dims=True)",
             f"    place = row // {inner} * {out * inner} + row % {inner} + rank * {inner}",
             f"    tl.store(o + place, mine, mask=(i < {n}) & (rank < {out}))",
             f"    tl.store(index + place, i.to(tl.int64), mask=(i < {n}) & (rank < {out}))"]
    rows = av.size // n
    args = [Arg("b", opcodes.pointer_type(av.dtype), x.keys[0], 16), Arg("o", opcodes.pointer_type(av.dtype), x.node.slot, 16),
            Arg("index", "*i64", x.node.slot + 1, 16)]
    doc = [f"{'Sort' if k is None else f'The first {k} of the order'} along axis {axis} of {tuple(av.shape)}."]
    grid: list[tuple[str | int, int]] = [(n, bx), (rows, 1)]
    p = assemble(f"k_{x.node.op.name}", doc, lines, args, [("BX", bx), ("BY", by)], grid, 4, set())  # type: ignore[union-attr]
    return [(p, {x.node.slot, x.node.slot + 1}, {})]


def _comparable(dt: dtype, text: str) -> str:
    """A memory value as something that compares."""
    return f"{text}.to(tl.int32)" if dt is bool_ else f"{text}.to(tl.float32)" if opcodes.is_half(dt) else text


def _before(dt: dtype, descending: bool) -> str:
    """Whether c, at j, comes before a, at i."""
    less, same = ("(c > a)" if descending else "(c < a)"), "(c == a)"
    if dt.is_floating_point:
        less += " | ((c != c) & (a == a))" if descending else " | ((a != a) & (c == c))"
        same = f"({same} | ((a != a) & (c != c)))"
    return f"({less}) | ({same} & (j < i))"


def searchsorted(x: Library) -> list[Made] | None:
    """How many of a sorted row are below each value; attrs (right,)."""
    right, = x.node.attrs
    s, v = x.ins
    if s.dtype.is_complex or max(s.size, v.size) >= 1 << 31:
        return None
    n = s.shape[-1]
    per = v.shape[-1] if s.ndim > 1 and v.ndim else v.size
    cmp = "(probe <= q)" if right else "(probe < q)"
    nan = " | (q != q)" if s.dtype.is_floating_point else ""
    probe = f"tl.load(s + base + tl.minimum(mid, {max(n - 1, 0)}), mask=m, other=0)"
    lines = ["    i = tl.program_id(0) * BX + tl.arange(0, BX)", "    m = i < nx",
             f"    q = {_comparable(v.dtype, 'tl.load(v + i, mask=m, other=0)')}",
             f"    base = i // {per} * {n}" if s.ndim > 1 else "    base = tl.zeros((BX,), tl.int32)",
             "    lo = tl.zeros((BX,), tl.int32)", f"    hi = tl.full((BX,), {n}, tl.int32)",
             f"    for _ in range({n.bit_length()}):", "        mid = (lo + hi) // 2",
             f"        probe = {_comparable(s.dtype, probe)}",
             f"        below = ({cmp}{nan}) & (lo < hi)", "        hi = tl.where(below, hi, tl.maximum(mid, lo))",
             "        lo = tl.where(below, mid + 1, lo)", "    tl.store(o + i, lo.to(tl.int64), mask=m)"]
    if not n:
        return None
    bx = min(1024, max(32, pow2(v.size)))
    args = [Arg("s", opcodes.pointer_type(s.dtype), x.keys[0], 16), Arg("v", opcodes.pointer_type(v.dtype), x.keys[1], 16),
            Arg("o", "*i64", x.node.slot, 16), Arg("nx", "i32", v.size, math.gcd(v.size, 16))]
    p = assemble("k_searchsorted", [f"{_shape(v)} values in {_shape(s)} boundaries."], lines, args, [("BX", bx)], [("nx", bx)],
                 max(1, min(4, bx // 256)), set())
    return [(p, {x.node.slot}, {})]


def _shape(av: Aval) -> str:
    return "x".join(map(str, av.shape)) or "1"
