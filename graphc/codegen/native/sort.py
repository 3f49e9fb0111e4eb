"""Sorting and top-k: values and int64 indices, stable, NaN largest.

Elements of at most 32 bits become one signed 64-bit record, an order-preserving integer above the position; those of 64
bits a pair of words. Records of a line are all different, so any correct sort of them is the stable one, in either
direction (descending inverts the integer), and results do not depend on threads or vectors.

- Short lines: a bitonic network on vectors of records in scratch memory, one line per thread. Every step is of the form
  "smaller record to the lower place": a merge of size k starts by comparing i with k - 1 - i (Batcher's network in the form
  without directions), then at distances k/4, k/8, ... 1; distances below a vector's width are shuffles.
- Long lines: radix sort from the lowest byte (LSD), each line in parts: every pass counts digits of all parts, then every part
  moves its records to where the counts say.
- Top-k of long lines: a buffer takes records below the k-th best found so far; a full buffer is sorted and cut to k.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from ...dtypes import bfloat16, bool_, complex64, complex128, dtype, float16, int8, int16, uint8, uint32
from ...ir.node import Aval
from . import opcodes
from .jobs import Job, Key
from .llvm import Function, const, lanes, vec
from .scatter import seal

SHORT_LINE = 1 << 14  # longest line sorted by the network; a line that has no others to share threads with: FEW_SHORT
FEW_SHORT, FEW_LINES = 1 << 12, 4
PARTS, PART = 16, 4096  # a long line is moved in at most PARTS parts of at least PART records
TOP_RATIO, TOP_MOST = 4, 2048  # k is filtered if n >= TOP_RATIO * k and k <= TOP_MOST
I64 = "i64"
_LAST = 2 ** 63 - 1  # as record or both words of a pair: not before any other
Record = list[str]  # registers: one word, or key and position


def _words(dt: dtype) -> int:
    return 2 if dt.itemsize == 8 else 1


def _digits(dt: dtype) -> int:
    """Bytes of the order-preserving integer."""
    return dt.itemsize


# --------------------------------------------------------------------------------------------------------------- records
def ordered(f: Function, dt: dtype, x: str, w: int, descending: bool) -> str:
    """Memory values as signed integers in the same order: i64 for 64-bit dtypes, else i32 (0 .. 2^bits - 1 below 32 bits).

    -0.0 equals 0.0; every NaN is the largest.
    """
    bits = dt.itemsize * 8
    narrow, ty = vec(w, f"i{bits}"), vec(w, "i64" if bits == 64 else "i32")
    if dt.is_floating_point:
        top = (1 << bits - 1) - 1
        infinity = {float16: 0x7C00, bfloat16: 0x7F80}.get(dt, 0x7F800000 if bits == 32 else 0x7FF0000000000000)
        b = f.cast("bitcast", vec(w, opcodes.memory_type(dt)), x, narrow)
        size = f.op("and", narrow, b, const(narrow, top))
        negative = f.op("ashr", narrow, b, const(narrow, bits - 1))
        flipped = f.op("xor", narrow, b, f.op("lshr", narrow, negative, const(narrow, 1)))
        key = f.select(narrow, f.cmp("eq", narrow, size, const(narrow, 0)), const(narrow, 0), flipped)
        key = f.select(narrow, f.cmp("ugt", narrow, size, const(narrow, infinity)), const(narrow, top), key)
        if bits == 16:
            key = f.op("add", ty, f.cast("sext", narrow, key, ty), const(ty, 1 << 15))
    elif dt in (bool_, uint8):
        key = f.cast("zext", vec(w, "i8"), x, ty)
    elif dt in (int8, int16):
        key = f.op("add", ty, f.cast("sext", narrow, x, ty), const(ty, 1 << bits - 1))
    else:
        key = f.op("xor", ty, x, const(ty, -2 ** 31)) if dt is uint32 else x
    return f.op("xor", ty, key, const(ty, -1 if bits >= 32 else (1 << bits) - 1)) if descending else key


def _record(f: Function, dt: dtype, x: str, at: str, w: int, descending: bool) -> Record:
    """Records of memory values at positions ``at``, ``at + 1``, ..."""
    t = vec(w, I64)
    key = ordered(f, dt, x, w, descending)
    position = f.op("add", t, f.splat(t, at), f.ramp(t)) if w > 1 else at
    if _words(dt) == 2:
        return [key, position]
    return [f.op("or", t, f.op("shl", t, f.cast("sext", vec(w, "i32"), key, t), const(t, 32)), position)]


def _position(f: Function, r: Record, ty: str) -> str:
    return r[1] if len(r) == 2 else f.op("and", ty, r[0], const(ty, 0xFFFFFFFF))


def _less(f: Function, ty: str, a: Record, b: Record) -> str:
    """Whether a is before b."""
    first = f.cmp("slt", ty, a[0], b[0])
    if len(a) == 1:
        return first
    i1 = vec(lanes(ty), "i1")
    return f.op("or", i1, first, f.op("and", i1, f.cmp("eq", ty, a[0], b[0]), f.cmp("slt", ty, a[1], b[1])))


def _exchange(f: Function, ty: str, a: Record, b: Record) -> tuple[Record, Record]:
    """(smaller, larger) lane by lane."""
    if len(a) == 1:
        return [f.math2("smin", ty, a[0], b[0])], [f.math2("smax", ty, a[0], b[0])]
    swap = _less(f, ty, b, a)
    return [f.select(ty, swap, y, x) for x, y in zip(a, b)], [f.select(ty, swap, x, y) for x, y in zip(a, b)]


def _shuffle(f: Function, ty: str, a: str, b: str, pick: Sequence[int]) -> str:
    return f.let(f"shufflevector {ty} {a}, {ty} {b}, <{len(pick)} x i32> <{', '.join(f'i32 {p}' for p in pick)}>")


def _cross(f: Function, ty: str, r: Record, flip: int) -> Record:
    """Lane i against lane i ^ flip of the same vector: the smaller record to the lower lane."""
    w = lanes(ty)
    partner = [_shuffle(f, ty, x, "poison", [k ^ flip for k in range(w)]) for x in r]
    if len(r) == 1:
        low, high = _exchange(f, ty, r, partner)
        return [_shuffle(f, ty, low[0], high[0], [k if k < k ^ flip else w + k for k in range(w)])]
    upper = "<" + ", ".join(f"i1 {'true' if k > k ^ flip else 'false'}" for k in range(w)) + ">"
    take = f.op("xor", vec(w, "i1"), _less(f, ty, partner, r), upper)
    return [f.select(ty, take, p, x) for p, x in zip(partner, r)]


# --------------------------------------------------------------------------------------------------------- bitonic network
def _load(f: Function, ty: str, bases: Sequence[str], at: str) -> Record:
    return [f.load(ty, f.at(I64, b, at)) for b in bases]


def _store(f: Function, ty: str, r: Record, bases: Sequence[str], at: str) -> None:
    for x, b in zip(r, bases):
        f.store(ty, x, f.at(I64, b, at))


def _network(words: int, w: int) -> Function:
    """``gc_bitonic(p, q, e)``: sort 2^e records (at least a vector) with keys at p and, for pairs, positions at q."""
    f = Function("gc_bitonic", "ptr %p, ptr %q, i64 %e", "internal void", "noinline nounwind")
    bases = ["%p", "%q"][:words]
    ty, log = vec(w, I64), w.bit_length() - 1
    n = f.op("shl", I64, "1", "%e")
    half = f.op("lshr", I64, n, "1")

    def within(i: str) -> None:
        r = _load(f, ty, bases, i)
        for e in range(1, log + 1):
            r = _cross(f, ty, r, (1 << e) - 1)
            for s in reversed(range(e - 1)):
                r = _cross(f, ty, r, 1 << s)
        _store(f, ty, r, bases, i)

    f.loop("0", n, within, step=w)

    def merge(e: str) -> None:
        size = f.op("shl", I64, "1", e)
        low = f.sub(f.op("lshr", I64, size, "1"), "1")

        def mirror(t: str) -> None:
            i = f.op("and", I64, t, low)
            block = f.op("shl", I64, f.sub(t, i), "1")
            at, back = f.add(block, i), f.sub(f.add(block, size), f.add(i, str(w)))
            turn = list(reversed(range(w)))
            a, b = _load(f, ty, bases, at), [_shuffle(f, ty, x, "poison", turn) for x in _load(f, ty, bases, back)]
            a, b = _exchange(f, ty, a, b)
            _store(f, ty, a, bases, at)
            _store(f, ty, [_shuffle(f, ty, x, "poison", turn) for x in b], bases, back)

        f.loop("0", half, mirror, step=w)

        def distance(s: str) -> None:
            j = f.op("shl", I64, "1", f.sub(f.sub(e, "2"), s))
            mask = f.sub(j, "1")

            def plain(t: str) -> None:
                i = f.op("and", I64, t, mask)
                at = f.add(f.op("shl", I64, f.sub(t, i), "1"), i)
                a, b = _exchange(f, ty, _load(f, ty, bases, at), _load(f, ty, bases, f.add(at, j)))
                _store(f, ty, a, bases, at)
                _store(f, ty, b, bases, f.add(at, j))

            f.loop("0", half, plain, step=w)

        f.loop("0", f.sub(e, str(log + 1)), distance)

        def finish(i: str) -> None:
            r = _load(f, ty, bases, i)
            for s in reversed(range(log)):
                r = _cross(f, ty, r, 1 << s)
            _store(f, ty, r, bases, i)

        f.loop("0", n, finish, step=w)

    f.loop(str(log + 1), f.add("%e", "1"), merge)
    f.emit("ret void")
    return f


def _sort_scratch(f: Function, bases: Sequence[str], e: str) -> None:
    q = bases[1] if len(bases) == 2 else "null"
    f.emit(f"call void @gc_bitonic(ptr {bases[0]}, ptr {q}, i64 {e})")


def _pad(f: Function, bases: Sequence[str], count: str, total: str, w: int) -> None:
    """Fill records count .. total (and up to a vector more) with the last one."""
    ty = vec(w, I64)
    f.loop(count, total, lambda i: _store(f, ty, [const(ty, _LAST)] * len(bases), bases, i), step=w)


class _Line:
    """A line of x of length n: element i is at base + i * step. ``last``: along the last axis, step 1."""

    def __init__(self, f: Function, dt: dtype, x: str, t: str, n: str, cols: str, last: bool):
        self.f, self.dt, self.x, self.step, self.last = f, dt, x, "1" if last else cols, last
        self.mem = opcodes.memory_type(dt)
        self.outer, self.inner = (t, "0") if last else (f.div(t, cols), f.rem(t, cols))
        self.base = self.start(n)

    def start(self, n: str) -> str:
        """First element of this line in an array whose lines have length n."""
        return self.f.add(self.f.mul(self.f.mul(self.outer, n), self.step), self.inner)

    def load(self, at: str, w: int, mask: str | None = None) -> str:
        """Memory values at, at + 1, ... (lines not along the last axis: one value)."""
        f = self.f
        return f.load(vec(w, self.mem), f.at(self.mem, self.x, f.add(self.base, f.mul(at, self.step))), mask)

    def write(self, values: str, indices: str, n: str, at: str, r: Record, w: int, mask: str | None = None) -> None:
        """Store value and position of records as elements at, at + 1, ... of the results, whose lines have length n."""
        f = self.f
        t = vec(w, I64)
        p = _position(f, r, t)
        to = f.add(self.start(n), f.mul(at, self.step))
        if w == 1:
            value = f.load(self.mem, f.at(self.mem, self.x, f.add(self.base, f.mul(p, self.step))))
        else:
            value = f.gather(vec(w, self.mem), f.at(self.mem, self.x, self.base), p, mask)
        f.store(vec(w, self.mem), value, f.at(self.mem, values, to), mask)
        f.store(t, p, f.at(I64, indices, to), mask)


def _emit_results(f: Function, line: _Line, values: str, indices: str, bases: Sequence[str], k: str, w: int) -> None:
    """The first k sorted records as results."""
    if line.last:
        def some(i: str) -> None:
            line.write(values, indices, k, i, _load(f, vec(w, I64), bases, i), w, f.lane_mask(w, f.sub(k, i)))

        f.loop("0", k, some, step=w)
    else:
        f.loop("0", k, lambda i: line.write(values, indices, k, i, _load(f, I64, bases, i), 1))


def _bases(f: Function, words: int, scratch: str, records: str) -> list[str]:
    """This thread's arrays of ``records`` words in scratch memory."""
    mine = f.mul(f.mul("%tid", records), str(words))
    return [f.at(I64, scratch, f.add(mine, f.mul(records, str(k)))) for k in range(words)]


def scratch_bytes(words: int, records: int) -> int:
    """Scratch of one thread: ``records`` must allow a vector beyond the last."""
    return words * records * 8


@cache
def _short_kernel(dt: dtype, descending: bool, last: bool, bits: int) -> tuple[str, str]:
    """Sort lines by the network: args = (values, indices, x, scratch, lines, n, I, k, e, records of scratch)."""
    f = Function("KERNEL")
    values, indices, x, scratch = [f.arg(k, "ptr") for k in range(4)]
    count, n, cols, k, e, records = [f.arg(a) for a in range(4, 10)]
    words, w = _words(dt), bits // 64
    bases = _bases(f, words, scratch, records)
    total = f.op("shl", I64, "1", e)

    def one(t: str) -> None:
        line = _Line(f, dt, x, t, n, cols, last)
        if last:
            whole = f.mul(f.div(n, str(w)), str(w))

            def vector(i: str, mask: str | None = None) -> None:
                r = _record(f, dt, line.load(i, w, mask), i, w, descending)
                _store(f, vec(w, I64), r, bases, i)

            f.loop("0", whole, vector, step=w)
            f.loop(whole, n, lambda i: vector(i, f.lane_mask(w, f.sub(n, i))), step=w)
        else:
            f.loop("0", n, lambda i: _store(f, I64, _record(f, dt, line.load(i, 1), i, 1, descending), bases, i))
        _pad(f, bases, n, total, w)
        _sort_scratch(f, bases, e)
        _emit_results(f, line, values, indices, bases, k, w)

    f.loop(*f.share(count), one)
    return seal(f"sort_{dt.short}", _network(words, w), f)


# ----------------------------------------------------------------------------------------------------------------- top-k
@cache
def _top_kernel(dt: dtype, descending: bool, last: bool, bits: int) -> tuple[str, str]:
    """First k by filtering: args = (values, indices, x, scratch, lines, n, I, k, e, records); the buffer is 2^e records."""
    f = Function("KERNEL")
    values, indices, x, scratch = [f.arg(k, "ptr") for k in range(4)]
    count, n, cols, k, e, records = [f.arg(a) for a in range(4, 10)]
    words, w = _words(dt), bits // 64
    wide = w if last else 1
    ty = vec(wide, I64)
    bases = _bases(f, words, scratch, records)
    total = f.op("shl", I64, "1", e)
    full = f.sub(total, str(wide))
    held, limit = f.alloca(I64, 1), f.alloca(I64, 1)  # records in the buffer; key word of the k-th best

    def cut() -> None:
        have = f.load(I64, held)
        _pad(f, bases, have, total, w)
        _sort_scratch(f, bases, e)
        f.store(I64, f.load(I64, f.at(I64, bases[0], f.sub(k, "1"))), limit)
        f.store(I64, f.min(have, k), held)

    def take(line: _Line, i: str, mask: str | None) -> None:
        r = _record(f, dt, line.load(i, wide, mask), i, wide, descending)
        # later positions are larger, so an equal key word never displaces anything
        better = f.cmp("slt", ty, r[0], f.splat(ty, f.load(I64, limit)))
        if words == 2:  # no key word is below an unset limit if all are the largest integer
            m = vec(wide, "i1")
            better = f.op("or", m, better, f.splat(m, f.cmp("slt", I64, f.load(I64, held), k)))
        if mask is not None:
            better = f.op("and", vec(wide, "i1"), better, mask)
        some = better if wide == 1 else f.call(f"llvm.vector.reduce.or.v{wide}i1", "i1", (vec(wide, "i1"), better))
        with f.when(some):
            have = f.load(I64, held)
            more = _append(f, ty, r, bases, have, better)
            f.store(I64, f.add(have, more), held)
            with f.when(f.cmp("sgt", I64, f.add(have, more), full)):
                cut()

    def one(t: str) -> None:
        line = _Line(f, dt, x, t, n, cols, last)
        f.store(I64, "0", held)
        f.store(I64, str(_LAST), limit)
        whole = f.mul(f.div(n, str(wide)), str(wide))
        f.loop("0", whole, lambda i: take(line, i, None), step=wide)
        if last:
            f.loop(whole, n, lambda i: take(line, i, f.lane_mask(w, f.sub(n, i))), step=w)
        cut()
        _emit_results(f, line, values, indices, bases, k, w)

    f.loop(*f.share(count), one)
    return seal(f"topk_{dt.short}", _network(words, w), f)


def _append(f: Function, ty: str, r: Record, bases: Sequence[str], at: str, chosen: str) -> str:
    """Store the chosen lanes one after the other from ``at``; returns how many."""
    w = lanes(ty)
    if w == 1:
        _store(f, ty, r, bases, at)
        return "1"
    m = vec(w, "i1")
    for x, b in zip(r, bases):
        f.call(f"llvm.masked.compressstore.v{w}i64", "void", (ty, x), ("ptr", f.at(I64, b, at)), (m, chosen))
    bits = f.cast("zext", f"i{w}", f.cast("bitcast", m, chosen, f"i{w}"), I64)
    return f.call("llvm.ctpop.i64", I64, (I64, bits))


# ----------------------------------------------------------------------------------------------------------------- radix
def _each_part(f: Function, count: str, n: str, size: str, body: Callable[[str, str, str, str], None]) -> None:
    """``body(line, part, lo, hi)`` for this thread's parts of all lines."""
    parts = f.ceil_div(n, size)

    def task(t: str) -> None:
        p = f.rem(t, parts)
        lo = f.mul(p, size)
        body(f.div(t, parts), p, lo, f.min(f.add(lo, size), n))

    f.loop(*f.share(f.mul(count, parts)), task)


@cache
def _pack_kernel(dt: dtype, descending: bool, last: bool, bits: int) -> tuple[str, str]:
    """Records of all lines: args = (keys, positions, x, lines, n, I, part)."""
    f = Function("KERNEL")
    bases, x = [f.arg(0, "ptr"), f.arg(1, "ptr")][:_words(dt)], f.arg(2, "ptr")
    count, n, cols, size = [f.arg(k) for k in range(3, 7)]
    w = bits // 64 if last else 1

    def body(t: str, _: str, lo: str, hi: str) -> None:
        line = _Line(f, dt, x, t, n, cols, last)
        to = [f.at(I64, b, f.mul(t, n)) for b in bases]
        whole = f.add(lo, f.mul(f.div(f.sub(hi, lo), str(w)), str(w)))

        def some(i: str, wide: int) -> None:
            _store(f, vec(wide, I64), _record(f, dt, line.load(i, wide), i, wide, descending), to, i)

        f.loop(lo, whole, lambda i: some(i, w), step=w)
        f.loop(whole, hi, lambda i: some(i, 1))

    _each_part(f, count, n, size, body)
    return seal(f"sort_{dt.short}_pack", f)


def _digit(f: Function, key: str, shift: str, flip: str) -> str:
    return f.op("xor", I64, f.op("and", I64, f.op("lshr", I64, key, shift), "255"), flip)


@cache
def _count_kernel() -> tuple[str, str]:
    """Digits of every part: args = (counts, keys, lines, n, part, shift, flip)."""
    f = Function("KERNEL")
    counts, keys = f.arg(0, "ptr"), f.arg(1, "ptr")
    count, n, size, shift, flip = [f.arg(k) for k in range(2, 7)]
    parts = f.ceil_div(n, size)

    def body(t: str, p: str, lo: str, hi: str) -> None:
        row = f.at(I64, counts, f.mul(f.add(f.mul(t, parts), p), "256"))
        f.loop("0", "256", lambda d: f.store(I64, "0", f.at(I64, row, d)))
        source = f.at(I64, keys, f.mul(t, n))

        def one(i: str) -> None:
            at = f.at(I64, row, _digit(f, f.load(I64, f.at(I64, source, i)), shift, flip))
            f.store(I64, f.add(f.load(I64, at), "1"), at)

        f.loop(lo, hi, one)

    _each_part(f, count, n, size, body)
    return seal("sort_count", f)


@cache
def _move_kernel(words: int) -> tuple[str, str]:
    """Move records by a digit: args = (to keys, to positions, keys, positions, counts, lines, n, part, shift, flip)."""
    f = Function("KERNEL")
    to, of, counts = [f.arg(0, "ptr"), f.arg(1, "ptr")][:words], [f.arg(2, "ptr"), f.arg(3, "ptr")][:words], f.arg(4, "ptr")
    count, n, size, shift, flip = [f.arg(k) for k in range(5, 10)]
    parts = f.ceil_div(n, size)
    place = f.alloca(I64, 256)

    def body(t: str, p: str, lo: str, hi: str) -> None:
        table = f.at(I64, counts, f.mul(f.mul(t, parts), "256"))

        def digit(d: str, start: str) -> list[str]:
            def part(q: str, all_of: str, before: str) -> list[str]:
                c = f.load(I64, f.at(I64, table, f.add(f.mul(q, "256"), d)))
                return [f.add(all_of, c), f.add(before, f.select(I64, f.cmp("slt", I64, q, p), c, "0"))]

            all_of, before = f.loop("0", parts, part, [(I64, "0"), (I64, "0")])
            f.store(I64, f.add(start, before), f.at(I64, place, d))
            return [f.add(start, all_of)]

        f.loop("0", "256", digit, [(I64, "0")])
        source, target = [[f.at(I64, b, f.mul(t, n)) for b in bs] for bs in (of, to)]

        def one(i: str) -> None:
            r = _load(f, I64, source, i)
            at = f.at(I64, place, _digit(f, r[0], shift, flip))
            goal = f.load(I64, at)
            f.store(I64, f.add(goal, "1"), at)
            _store(f, I64, r, target, goal)

        f.loop(lo, hi, one)

    _each_part(f, count, n, size, body)
    return seal(f"sort_move{words}", f)


@cache
def _unpack_kernel(dt: dtype, last: bool, bits: int) -> tuple[str, str]:
    """Sorted records to results: args = (values, indices, x, keys, positions, lines, n, I, k, part); parts are of k."""
    f = Function("KERNEL")
    values, indices, x, keys, positions = [f.arg(k, "ptr") for k in range(5)]
    count, n, cols, k, size = [f.arg(a) for a in range(5, 10)]
    w = bits // 64 if last else 1

    def body(t: str, _: str, lo: str, hi: str) -> None:
        line = _Line(f, dt, x, t, n, cols, last)
        of = [f.at(I64, b, f.mul(t, n)) for b in [keys, positions][:_words(dt)]]
        whole = f.add(lo, f.mul(f.div(f.max(f.sub(hi, lo), "0"), str(w)), str(w)))

        def some(i: str, wide: int) -> None:
            line.write(values, indices, k, i, _load(f, vec(wide, I64), of, i), wide)

        f.loop(lo, whole, lambda i: some(i, w), step=w)
        f.loop(whole, hi, lambda i: some(i, 1))

    _each_part(f, count, k, size, body)
    return seal(f"sort_{dt.short}_unpack", f)


# ------------------------------------------------------------------------------------------------------------------ jobs
def _radix_jobs(dt: dtype, shape: tuple[int, int, int, int], descending: bool, key: Key, outs: Sequence[Key], unique: Any,
                bits: int) -> list[Job]:
    count, n, cols, k = shape
    words, last = _words(dt), cols == 1
    size = max(PART, -(-n // PARTS))
    here, there = [[("sort", unique, a, b) for b in range(2)] for a in "xy"]
    table: Key = ("sort", unique, "counts")
    own: dict[Key, int] = {a: count * n * 8 for a in [*here[:words], *there[:words]]}
    own[table] = count * -(-n // size) * 256 * 8
    names = {b: (b if i < words else bs[0]) for bs in (here, there) for i, b in enumerate(bs)}  # no second word: any pointer
    work = count * n
    jobs = [Job(*_pack_kernel(dt, descending, last, bits), [names[b] for b in here] + [key], (count, n, cols, size), {key},
                set(here[:words]), work=work, own=own)]
    for digit in range(_digits(dt)):
        shift, flip = 8 * digit + (32 if words == 1 else 0), 128 if digit + 1 == _digits(dt) >= 4 else 0
        numbers = (count, n, size, shift, flip)
        of, to = [names[b] for b in here], [names[b] for b in there]
        jobs.append(Job(*_count_kernel(), [table, of[0]], numbers, {of[0]}, {table}, work=work))
        jobs.append(Job(*_move_kernel(words), [*to, *of, table], numbers, {*of, table}, set(to), work=work))
        here, there = there, here
    of = [names[b] for b in here]
    jobs.append(Job(*_unpack_kernel(dt, last, bits), [*outs, key, *of], (count, n, cols, k, size), {key, *of}, set(outs),
                    work=count * k))
    return jobs


def sort_jobs(axis: int, descending: bool, k: int | None, x: Aval, key: Key, outs: Sequence[Key], unique: Any,
              bits: int) -> list[Job] | None:
    """Sort (or the first k of it) along an axis of x, results values and indices."""
    dt = x.dtype
    if dt in (complex64, complex128) or x.size == 0:
        return None
    shape = x.shape or (1,)
    n, cols = shape[axis], math.prod(shape[axis + 1:])
    count = x.size // n
    k = n if k is None else k
    words, last, width = _words(dt), cols == 1, bits // 64
    if n >= 1 << 31:
        return None
    filtered = k < n and n >= max(TOP_RATIO * k, 64) and k <= TOP_MOST
    if not filtered and (n > SHORT_LINE or n > FEW_SHORT and count < FEW_LINES):
        return _radix_jobs(dt, (count, n, cols, k), descending, key, outs, unique, bits)
    e = max(64, 2 * k + 2 * width) if filtered else max(n, width)
    e = (e - 1).bit_length()
    records = (1 << e) + 8  # padding writes whole vectors
    kernel = (_top_kernel if filtered else _short_kernel)(dt, descending, last, bits)
    return [Job(*kernel, [*outs, key, "scratch"], (count, n, cols, k, e, records), {key}, set(outs),
                scratch=scratch_bytes(words, records), work=x.size * 4)]


__all__ = ["ordered", "sort_jobs"]
