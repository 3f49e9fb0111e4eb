"""Running combinations along an axis (cumsum, cumprod, cummax, cummin, logcumsumexp).

With axes behind the scanned one, lanes run across those and every lane is a sequential scan, bit for bit NumPy's. Along the
last axis, rows are shared among threads and a vector is scanned within its lanes in log2(width) steps; what came before
is added as one number. Products of floats are not regrouped (0 times infinity could appear where there was 0), and
logaddexp costs too much for regrouping: there lanes are rows, and square tiles are transposed. Few long rows are cut into
blocks whose totals are found first; the cut depends on the shape alone. 16-bit floats are combined in float32 and every
result is rounded once.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from ...dtypes import bool_, complex64, complex128, dtype
from ...ir.node import Aval
from . import opcodes
from .jobs import Job, Key
from .llvm import Function, lanes, vec
from .scatter import accumulator, seal, width_of

UNROLL = 4  # vectors of columns that advance together
ROWS_FOR_TILES = 4  # fewer rows are scanned one by one
LONG_ROW, FEW_ROWS, BLOCKS = 1 << 15, 16, 256  # rows cut into blocks: length, how many rows at most, most blocks a row
_OPCODE = {"add": "add", "mul": "mul", "max": "maximum", "min": "minimum", "logaddexp": "logaddexp"}


def _combine(f: Function, kind: str, acc: dtype, ty: str, a: str, b: str) -> str:
    return opcodes.emit(f, _OPCODE[kind], acc, ty, [a, b], acc)


def _identity(kind: str, acc: dtype, ty: str) -> str:
    return opcodes.identity("max" if kind == "logaddexp" else kind, acc, ty)


def _from(f: Function, dt: dtype, ty: str, base: str, at: str, mask: str | None = None) -> str:
    """Elements as register values; ``ty`` says how many."""
    mem = opcodes.memory_type(dt)
    return opcodes.load_convert(f, dt, ty, f.load(vec(lanes(ty), mem), f.at(mem, base, at), mask))


def _to(f: Function, dt: dtype, ty: str, x: str, base: str, at: str, mask: str | None = None) -> None:
    """Store register values of the accumulator, rounded to ``dt``."""
    mem = opcodes.memory_type(dt)
    f.store(vec(lanes(ty), mem), opcodes.store_convert(f, dt, ty, opcodes.rounded(f, dt, ty, x)), f.at(mem, base, at), mask)


# --------------------------------------------------------------------------------------------------------------- columns
@cache
def _columns_kernel(kind: str, dt: dtype, reverse: bool, bits: int) -> tuple[str, str]:
    """out[o, r, i] for r along the axis, lanes across i: args = (out, x, O, n, I)."""
    f = Function("KERNEL")
    out, x = f.arg(0, "ptr"), f.arg(1, "ptr")
    outer, n, cols = [f.arg(k) for k in range(2, 5)]
    acc, w = accumulator(dt), width_of(dt, bits)
    ty = vec(w, opcodes.register_type(dt))
    block = w * (UNROLL if kind != "logaddexp" else 1)
    blocks = f.ceil_div(cols, block)

    def task(t: str) -> None:
        o, first = f.div(t, blocks), f.mul(f.rem(t, blocks), str(block))
        base = f.add(f.mul(f.mul(o, n), cols), first)
        left = f.sub(cols, first)

        def walk(masks: Sequence[str | None]) -> None:
            def row(r: str, *before: str) -> Sequence[str]:
                at = f.add(base, f.mul(f.sub(f.sub(n, "1"), r) if reverse else r, cols))
                new = []
                for u, (mask, b) in enumerate(zip(masks, before)):
                    here = f.add(at, str(u * w))
                    y = _combine(f, kind, acc, ty, b, _from(f, dt, ty, x, here, mask))
                    _to(f, dt, ty, y, out, here, mask)
                    new.append(y)
                return new

            f.loop("0", n, row, [(ty, _identity(kind, acc, ty))] * len(masks))

        whole = f.cmp("sge", "i64", left, str(block))
        with f.when(whole):
            walk([None] * (block // w))
        with f.when(f.op("xor", "i1", whole, "true")):
            walk([f.lane_mask(w, f.max(f.sub(left, str(u * w)), "0")) for u in range(block // w)])

    f.loop(*f.share(f.mul(outer, blocks)), task)
    return seal(f"scan_{kind}_{dt.short}", f)


# ------------------------------------------------------------------------------------------------------------------ rows
def _shifted(f: Function, ty: str, v: str, by: int, fill: str, reverse: bool) -> str:
    """Lanes moved up by ``by`` (down under ``reverse``), ``fill`` moving in."""
    w = lanes(ty)
    pick = [(k + by if k + by < w else w + k) if reverse else (k - by if k >= by else w + k) for k in range(w)]
    return f.let(f"shufflevector {ty} {v}, {ty} {fill}, <{w} x i32> <{', '.join(f'i32 {p}' for p in pick)}>")


def _within(f: Function, kind: str, acc: dtype, ty: str, v: str, reverse: bool) -> str:
    """The scan of the lanes of one vector."""
    by = 1
    while by < lanes(ty):
        v = _combine(f, kind, acc, ty, _shifted(f, ty, v, by, _identity(kind, acc, ty), reverse), v)
        by *= 2
    return v


def _edge(f: Function, ty: str, v: str, reverse: bool) -> str:
    """The lane that holds the whole vector's combination, in every lane."""
    w = lanes(ty)
    at = 0 if reverse else w - 1
    return f.let(f"shufflevector {ty} {v}, {ty} poison, <{w} x i32> <{', '.join(f'i32 {at}' for _ in range(w))}>")


def _scan_range(f: Function, kind: str, dt: dtype, ty: str, x: str, out: str, lo: str, hi: str, start: str, reverse: bool,
                width: int) -> None:
    """Scan elements lo .. hi of a row; ``start`` is the combination of everything before, in every lane."""
    acc = accumulator(dt)
    mask_ty = vec(width, "i1")

    def vector(at: str, mask: str | None, before: str) -> list[str]:
        v = _from(f, dt, ty, x, at, mask)
        if mask is not None:
            v = f.select(ty, mask, v, _identity(kind, acc, ty), mask_ty)
        v = _within(f, kind, acc, ty, v, reverse)
        _to(f, dt, ty, _combine(f, kind, acc, ty, before, v), out, at, mask)
        return [_combine(f, kind, acc, ty, before, _edge(f, ty, v, reverse))]

    count = f.max(f.sub(hi, lo), "0")
    whole = f.mul(f.div(count, str(width)), str(width))
    if not reverse:
        end = f.add(lo, whole)
        (carry,) = f.loop(lo, end, lambda i, b: vector(i, None, b), [(ty, start)], width)
        f.loop(end, hi, lambda i, b: vector(i, f.lane_mask(width, f.sub(hi, i)), b), [(ty, carry)], width)
        return
    (carry,) = f.loop("0", whole, lambda i, b: vector(f.sub(f.sub(hi, str(width)), i), None, b), [(ty, start)], width)
    f.loop(whole, count, lambda i, b: vector(lo, f.lane_mask(width, f.sub(count, whole)), b), [(ty, carry)], width)


@cache
def _rows_kernel(kind: str, dt: dtype, reverse: bool, bits: int) -> tuple[str, str]:
    """Scans of whole rows: args = (out, x, O, n)."""
    f = Function("KERNEL")
    out, x, outer, n = f.arg(0, "ptr"), f.arg(1, "ptr"), f.arg(2), f.arg(3)
    w = width_of(dt, bits)
    ty = vec(w, opcodes.register_type(dt))

    def row(o: str) -> None:
        lo = f.mul(o, n)
        _scan_range(f, kind, dt, ty, x, out, lo, f.add(lo, n), _identity(kind, accumulator(dt), ty), reverse, w)

    f.loop(*f.share(outer), row)
    return seal(f"scan_{kind}_{dt.short}_last", f)


@cache
def _tiles_kernel(kind: str, dt: dtype, reverse: bool, bits: int) -> tuple[str, str]:
    """Scans of rows in order, lanes being rows: args = (out, x, O, n). The last group of rows repeats row O - 1."""
    f = Function("KERNEL")
    out, x, outer, n = f.arg(0, "ptr"), f.arg(1, "ptr"), f.arg(2), f.arg(3)
    acc, w = accumulator(dt), width_of(dt, bits)
    ty = vec(w, opcodes.register_type(dt))
    neutral = _identity(kind, acc, ty)

    def group(g: str) -> None:
        first = f.mul(g, str(w))
        rows = [f.mul(f.min(f.add(first, str(k)), f.sub(outer, "1")), n) for k in range(w)]

        def tile(at: str, mask: str | None, before: str) -> list[str]:
            loaded = [_from(f, dt, ty, x, f.add(r, at), mask) for r in rows]
            if mask is not None:
                loaded = [f.select(ty, mask, v, neutral, vec(w, "i1")) for v in loaded]
            columns = f.transpose(ty, loaded)
            for c in reversed(range(w)) if reverse else range(w):
                before = columns[c] = _combine(f, kind, acc, ty, before, columns[c])
            for r, v in zip(rows, f.transpose(ty, columns)):
                _to(f, dt, ty, v, out, f.add(r, at), mask)
            return [before]

        whole = f.mul(f.div(n, str(w)), str(w))
        left = f.sub(n, whole)
        last = f.sub(n, str(w))
        (carry,) = f.loop("0", whole, lambda i, b: tile(f.sub(last, i) if reverse else i, None, b), [(ty, neutral)], w)
        with f.when(f.cmp("ne", "i64", left, "0")):
            tile("0" if reverse else whole, f.lane_mask(w, left), carry)

    f.loop(*f.share(f.ceil_div(outer, w)), group)
    return seal(f"scan_{kind}_{dt.short}_tiles", f)


@cache
def _sequential_kernel(kind: str, dt: dtype, reverse: bool) -> tuple[str, str]:
    """Scans of rows, element by element: args = (out, x, O, n)."""
    f = Function("KERNEL")
    out, x, outer, n = f.arg(0, "ptr"), f.arg(1, "ptr"), f.arg(2), f.arg(3)
    acc, ty = accumulator(dt), opcodes.register_type(dt)

    def row(o: str) -> None:
        def step(r: str, before: str) -> Sequence[str]:
            at = f.add(f.mul(o, n), f.sub(f.sub(n, "1"), r) if reverse else r)
            y = _combine(f, kind, acc, ty, before, _from(f, dt, ty, x, at))
            _to(f, dt, ty, y, out, at)
            return [y]

        f.loop("0", n, step, [(ty, _identity(kind, acc, ty))])

    f.loop(*f.share(outer), row)
    return seal(f"scan_{kind}_{dt.short}_seq", f)


# ------------------------------------------------------------------------------------------------------- rows in blocks
def _block_task(f: Function, n: str, size: str, body: Callable[[str, str, str, str], None], outer: str) -> None:
    """``body(row, block, lo, hi)`` for this thread's blocks of all rows; lo and hi are positions in the row."""
    blocks = f.ceil_div(n, size)

    def task(t: str) -> None:
        o, b = f.div(t, blocks), f.rem(t, blocks)
        lo = f.mul(b, size)
        body(o, b, lo, f.min(f.add(lo, size), n))

    f.loop(*f.share(f.mul(outer, blocks)), task)


@cache
def _totals_kernel(kind: str, dt: dtype, bits: int) -> tuple[str, str]:
    """Combination of each block of each row: args = (totals, x, O, n, block); totals of the accumulator's dtype."""
    f = Function("KERNEL")
    totals, x = f.arg(0, "ptr"), f.arg(1, "ptr")
    outer, n, size = [f.arg(k) for k in range(2, 5)]
    acc, w = accumulator(dt), width_of(dt, bits)
    ty = vec(w, opcodes.register_type(dt))
    blocks = f.ceil_div(n, size)

    def block(o: str, b: str, lo: str, hi: str) -> None:
        base = f.mul(o, n)
        neutral = _identity(kind, acc, ty)

        def vector(i: str, before: str) -> list[str]:
            mask = f.lane_mask(w, f.sub(hi, i))
            v = f.select(ty, mask, _from(f, dt, ty, x, f.add(base, i), mask), neutral, vec(w, "i1"))
            return [_combine(f, kind, acc, ty, before, v)]

        (sums,) = f.loop(lo, hi, vector, [(ty, neutral)], w)
        total = f.let(f"extractelement {ty} {_within(f, kind, acc, ty, sums, False)}, i64 {w - 1}") if w > 1 else sums
        one = opcodes.register_type(acc)
        _to(f, acc, one, total, totals, f.add(f.mul(o, blocks), b))

    _block_task(f, n, size, block, outer)
    return seal(f"scan_{kind}_{dt.short}_totals", f)


@cache
def _blocks_kernel(kind: str, dt: dtype, reverse: bool, bits: int) -> tuple[str, str]:
    """Scans of blocks that start from the totals of the blocks before: args = (out, x, totals, O, n, block)."""
    f = Function("KERNEL")
    out, x, totals = [f.arg(k, "ptr") for k in range(3)]
    outer, n, size = [f.arg(k) for k in range(3, 6)]
    acc, w = accumulator(dt), width_of(dt, bits)
    one = opcodes.register_type(dt)
    ty = vec(w, one)
    blocks = f.ceil_div(n, size)

    def block(o: str, b: str, lo: str, hi: str) -> None:
        row = f.mul(o, blocks)

        def before(k: str, sofar: str) -> list[str]:
            at = f.sub(f.sub(blocks, "1"), k) if reverse else k
            return [_combine(f, kind, acc, one, sofar, _from(f, acc, one, totals, f.add(row, at)))]

        count = f.sub(f.sub(blocks, "1"), b) if reverse else b
        (start,) = f.loop("0", count, before, [(one, _identity(kind, acc, one))])
        base = f.mul(o, n)
        _scan_range(f, kind, dt, ty, x, out, f.add(base, lo), f.add(base, hi), f.splat(ty, start), reverse, w)

    _block_task(f, n, size, block, outer)
    return seal(f"scan_{kind}_{dt.short}_blocks", f)


# ------------------------------------------------------------------------------------------------------------------ jobs
def scan_jobs(attrs: Any, x: Aval, key: Key, out: Key, unique: Any, bits: int) -> list[Job] | None:
    """``scan`` (kind, axis, reverse) of an array (O, n, I)."""
    kind, axis, reverse = attrs
    dt = x.dtype
    if dt in (complex64, complex128) or kind == "logaddexp" and not dt.is_floating_point:
        return None
    shape = x.shape or (1,)
    outer, n, cols = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1:])
    if cols > 1:
        return [Job(*_columns_kernel(kind, dt, reverse, bits), [out, key], (outer, n, cols), {key}, {out}, work=x.size)]
    if kind in ("mul", "logaddexp") and dt.is_floating_point and outer >= ROWS_FOR_TILES:
        return [Job(*_tiles_kernel(kind, dt, reverse, bits), [out, key], (outer, n), {key}, {out}, work=x.size)]
    if kind == "mul" and dt.is_floating_point or dt is bool_:
        return [Job(*_sequential_kernel(kind, dt, reverse), [out, key], (outer, n), {key}, {out}, work=x.size)]
    if n < LONG_ROW or outer >= FEW_ROWS:
        return [Job(*_rows_kernel(kind, dt, reverse, bits), [out, key], (outer, n), {key}, {out}, work=x.size)]
    size = max(4096, -(-n // (BLOCKS * 64)) * 64)
    totals: Key = ("scan", unique)
    numbers = (outer, n, size)
    return [Job(*_totals_kernel(kind, dt, bits), [totals, key], numbers, {key}, {totals}, work=x.size,
                own={totals: outer * -(-n // size) * accumulator(dt).itemsize}),
            Job(*_blocks_kernel(kind, dt, reverse, bits), [out, key, totals], numbers, {key, totals}, {out}, work=x.size)]


__all__ = ["scan_jobs"]
