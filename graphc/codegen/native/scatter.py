"""Combining into a base at indices: ``take_put`` (an index for each row of the source) and ``scatter`` (one for each element).

The base is copied to the result first, by a job of its own. Then threads own disjoint parts of the result: whole slices in
front of the indexed axis, else columns behind it, else ranges of the indexed axis itself. Every thread walks all indices
in order and leaves alone what is not its own, so a result element is combined in index order by one thread: no races, and
the same bits for any number of threads. 16-bit floats are combined in a float32 copy of the base and rounded once.
"""
from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, NamedTuple

from ...dtypes import complex64, complex128, dtype, float32, float64, int64
from ...ir.node import Aval
from . import opcodes, vmath
from .jobs import SUPPORT, Job, Key
from .llvm import Function, module, vec

CACHE_LINE = 64
POINT_COLUMNS = 4  # fewer columns behind the axis than this are combined one by one
_OPCODE = {"add": "add", "mul": "mul", "max": "maximum", "min": "minimum"}


class Area(NamedTuple):
    """A thread's share: ranges of the slices before the axis, the columns behind it, and the axis."""

    tasks: tuple[str, str]
    columns: tuple[str, str]
    rows: tuple[str, str]


# ------------------------------------------------------------------------------------------- shared by the library kernels
def seal(name: str, *functions: Function) -> tuple[str, str]:
    """(symbol, module text) of the kernel ``functions[-1]`` (named KERNEL); the others are helpers it calls."""
    body = module(functions, vmath.definitions({h for f in functions for h in f.helpers}))
    symbol = f"{name}_{hashlib.sha256(body.encode()).hexdigest()[:16]}"
    return symbol, body.replace("@KERNEL(", f"@{symbol}(")


def width_of(dt: dtype, bits: int) -> int:
    """Lanes of the vectors that compute with a dtype: those of float32 for everything narrower."""
    return max(1, bits // (8 * max(4, dt.itemsize)))


def accumulator(dt: dtype) -> dtype:
    """What a dtype is combined in."""
    return float32 if opcodes.is_half(dt) else dt


def part(f: Function, total: str, grain: int, who: str, parts: str) -> tuple[str, str]:
    """Range number ``who`` of ``parts`` of ``total`` items, in multiples of ``grain``; empty for ``who >= parts``."""
    per = f.mul(f.ceil_div(f.ceil_div(total, grain), parts), str(grain))
    lo = f.min(f.mul(per, who), total)
    return lo, f.min(f.add(lo, per), total)


def sweep(f: Function, lo: str, hi: str, width: int, body: Callable[[str, str | None], None], unroll: int = 4) -> None:
    """``body(start, mask)`` for vectors of ``width`` over lo .. hi: whole vectors without a mask, the rest with one."""
    step = width * unroll
    end = f.add(lo, f.mul(f.div(f.max(f.sub(hi, lo), "0"), str(step)), str(step)))

    def whole(i: str) -> None:
        for u in range(unroll):
            body(f.add(i, str(u * width)), None)

    f.loop(lo, end, whole, step=step)
    f.loop(end, hi, lambda i: body(i, f.lane_mask(width, f.sub(hi, i))), step=width)


@cache
def _convert(src: dtype, dst: dtype, bits: int) -> tuple[str, str]:
    """dst[i] = src[i] converted: args = (dst, src, count)."""
    f = Function("KERNEL")
    to, source, n = f.arg(0, "ptr"), f.arg(1, "ptr"), f.arg(2)
    w = max(1, bits // (8 * max(4, src.itemsize, dst.itemsize)))
    mem, out = opcodes.memory_type(src), opcodes.memory_type(dst)
    reg, res = vec(w, opcodes.register_type(src)), vec(w, opcodes.register_type(dst))

    def one(i: str, mask: str | None) -> None:
        x = opcodes.load_convert(f, src, reg, f.load(vec(w, mem), f.at(mem, source, i), mask))
        y = opcodes.store_convert(f, dst, res, opcodes.cast(f, src, reg, x, dst))
        f.store(vec(w, out), y, f.at(out, to, i), mask)

    lo, hi = f.share(n, CACHE_LINE)
    sweep(f, lo, hi, w, one)
    return seal(f"convert_{src.short}_{dst.short}", f)


@cache
def _fill() -> tuple[str, str]:
    """Zero bytes: args = (to, bytes)."""
    f = Function("KERNEL")
    to, n = f.arg(0, "ptr"), f.arg(1)
    lo, hi = f.share(n, 4096)
    f.call("llvm.memset.p0.i64", "void", ("ptr", f.at("i8", to, lo)), ("i8", "0"), ("i64", f.max(f.sub(hi, lo), "0")),
           ("i1", "false"))
    return seal("zeros", f)


def convert_job(dst: Key, src: Key, to: dtype, of: dtype, count: int, bits: int) -> Job:
    """Copy ``count`` elements, converting."""
    symbol, text = _convert(of, to, bits)
    return Job(symbol, text, [dst, src], (count,), {src}, {dst}, work=count)


def base_job(dst: Key, base: Key | None, dt: dtype, to: dtype, count: int, bits: int) -> Job:
    """The result before anything is combined in: the base, or zeros where ``base`` is None."""
    if base is None:
        symbol, text = _fill()
        return Job(symbol, text, [dst], (count * to.itemsize,), set(), {dst}, work=count * to.itemsize // 8)
    if to is not dt:
        return convert_job(dst, base, to, dt, count, bits)
    nbytes = count * dt.itemsize
    return Job("gc_copy", SUPPORT["gc_copy"], [dst, base], (nbytes,), {base}, {dst}, work=nbytes // 8)


# --------------------------------------------------------------------------------------------------------------- kernels
def _area(f: Function, tasks: str, columns: str, rows: str, grain: int) -> Area:
    """This thread's part of a result of tasks x rows x columns."""
    parts_t = f.min("%nt", tasks)
    rest = f.div("%nt", parts_t)
    parts_c = f.min(rest, f.ceil_div(columns, grain))
    parts_r = f.max(f.div(rest, parts_c), "1")
    who = f.div("%tid", parts_t)
    return Area(part(f, tasks, 1, f.rem("%tid", parts_t), parts_t), part(f, columns, grain, f.rem(who, parts_c), parts_c),
                part(f, rows, 1, f.div(who, parts_c), parts_r))


def _index(f: Function, idx: str, at: str, it: dtype, n: str, wrap: bool) -> str:
    """Index number ``at``, counted from the end if negative under ``wrap``."""
    mem = opcodes.memory_type(it)
    x = opcodes.cast(f, it, mem, f.load(mem, f.at(mem, idx, at)), int64)
    return f.select("i64", f.cmp("slt", "i64", x, "0"), f.add(x, n), x) if wrap else x


@contextmanager
def _owned(f: Function, x: str, lo: str, size: str, n: str, err: str) -> Iterator[None]:
    """A block that runs if lo <= x < lo + size; an index not below ``n`` is reported."""
    name = f.fresh("")[1:]
    mine = f.cmp("ult", "i64", f.sub(x, lo), size)
    f.emit(f"br i1 {mine}, label %mine{name}, label %other{name}")
    f.label(f"other{name}")
    with f.when(f.cmp("uge", "i64", x, n)):
        f.emit(f"store i64 1, ptr {err}, align 8")
    f.emit(f"br label %next{name}")
    f.label(f"mine{name}")
    yield
    f.emit(f"br label %next{name}")
    f.label(f"next{name}")


def _combine(f: Function, mode: str, acc: dtype, ty: str, old: Callable[[], str], new: str) -> str:
    return new if mode == "set" else opcodes.emit(f, _OPCODE[mode], acc, ty, [old(), new], acc)


@cache
def _rows_kernel(dt: dtype, it: dtype, mode: str, wrap: bool, bits: int) -> tuple[str, str]:
    """dst[o, idx[m], i] op= src[o, m, i]: args = (dst, idx, src, err, O, n, M, I); dst of the accumulator's dtype."""
    f = Function("KERNEL")
    dst, idx, src, err = [f.arg(k, "ptr") for k in range(4)]
    tasks, n, m, cols = [f.arg(k) for k in range(4, 8)]
    acc = accumulator(dt) if mode != "set" else dt
    w = width_of(acc, bits)
    smem, dmem = opcodes.memory_type(dt), opcodes.memory_type(acc)
    ty = vec(w, opcodes.register_type(acc))
    area = _area(f, tasks, cols, n, CACHE_LINE // acc.itemsize)
    size = f.sub(area.rows[1], area.rows[0])

    def task(t: str) -> None:
        to, source = f.at(dmem, dst, f.mul(f.mul(t, n), cols)), f.at(smem, src, f.mul(f.mul(t, m), cols))

        def row(k: str) -> None:
            x = _index(f, idx, k, it, n, wrap)
            with _owned(f, x, area.rows[0], size, n, err):
                d, s = f.at(dmem, to, f.mul(x, cols)), f.at(smem, source, f.mul(k, cols))

                def some(i: str, mask: str | None) -> None:
                    new = opcodes.load_convert(f, dt, ty, f.load(vec(w, smem), f.at(smem, s, i), mask))
                    at = f.at(dmem, d, i)
                    old = partial(f.load, vec(w, dmem), at, mask)
                    r = _combine(f, mode, acc, ty, lambda: opcodes.load_convert(f, acc, ty, old()), new)
                    f.store(vec(w, dmem), opcodes.store_convert(f, acc, ty, r), at, mask)

                sweep(f, *area.columns, w, some)

        f.loop("0", m, row)

    f.loop(*area.tasks, task)
    return seal(f"put_{mode}_{dt.short}", f)


@cache
def _points_kernel(dt: dtype, it: dtype, mode: str, wrap: bool, dims: int, single: bool) -> tuple[str, str]:
    """dst[t, idx[t, m, i], i] op= src[t, m, i], element by element.

    Args: (dst, idx, src, err, tasks, n, M, I), strides of m in (dst, idx, src), strides of i in (idx, src), then for each of
    the ``dims`` axes that t runs over, outermost first: size and strides in (dst, idx, src). In dst, i has stride 1;
    ``single``: I is 1.
    """
    f = Function("KERNEL")
    dst, idx, src, err = [f.arg(k, "ptr") for k in range(4)]
    tasks, n, m, cols, dm, im, sm, ii, si = [f.arg(k) for k in range(4, 13)]
    axes = [[f.arg(13 + 4 * d + k) for k in range(4)] for d in range(dims)]
    acc = accumulator(dt) if mode != "set" else dt
    smem, dmem, ty = opcodes.memory_type(dt), opcodes.memory_type(acc), opcodes.register_type(acc)
    area = _area(f, tasks, cols, n, CACHE_LINE // acc.itemsize)
    size = f.sub(area.rows[1], area.rows[0])

    def task(t: str) -> None:
        at = ["0", "0", "0"]
        for d, (extent, *strides) in reversed(list(enumerate(axes))):
            x = f.rem(t, extent) if d else t
            t = f.div(t, extent) if d else t
            at = [f.add(a, f.mul(x, s)) for a, s in zip(at, strides)]

        def row(k: str) -> None:
            i0, s0 = f.add(at[1], f.mul(k, im)), f.add(at[2], f.mul(k, sm))

            def point(i: str) -> None:
                x = _index(f, idx, f.add(i0, f.mul(i, ii)), it, n, wrap)
                with _owned(f, x, area.rows[0], size, n, err):
                    where = f.at(dmem, dst, f.add(f.add(at[0], f.mul(x, dm)), i))
                    new = opcodes.load_convert(f, dt, ty, f.load(smem, f.at(smem, src, f.add(s0, f.mul(i, si)))))
                    r = _combine(f, mode, acc, ty, lambda: opcodes.load_convert(f, acc, ty, f.load(dmem, where)), new)
                    f.store(dmem, opcodes.store_convert(f, acc, ty, r), where)

            if single:
                point("0")
            else:
                f.loop(*area.columns, point)

        f.loop("0", m, row)

    f.loop(*area.tasks, task)
    return seal(f"scatter_{mode}_{dt.short}", f)


# ------------------------------------------------------------------------------------------------------------------ jobs
def _strides(shape: Sequence[int]) -> list[int]:
    """Element strides of a contiguous array."""
    return [math.prod(shape[d + 1:]) for d in range(len(shape))]


def _around(dst: Key, base: Key | None, dt: dtype, mode: str, count: int, unique: Any, bits: int,
            make: Callable[[Key], Job | None]) -> list[Job]:
    """Copy of the base, the combining job ``make(key of the accumulator)``, and rounding where the dtype needs it."""
    wide = accumulator(dt)
    if mode == "set" or wide is dt:
        jobs = [base_job(dst, base, dt, dt, count, bits), make(dst)]
        return [j for j in jobs if j is not None]
    own: Key = ("scatter", unique)
    first = base_job(own, base, dt, wide, count, bits)
    first.own[own] = count * wide.itemsize
    jobs = [first, make(own), convert_job(dst, own, dt, wide, count, bits)]
    return [j for j in jobs if j is not None]


def take_put_jobs(attrs: Any, base: Aval, idx: Aval, src: Aval, keys: Sequence[Key | None], out: Key, unique: Any,
                  bits: int) -> list[Job] | None:
    """``take_put`` (axis, mode, wrap): base (O, n, I), indices (M) of any shape, source (O, M, I).

    ``keys`` of base, indices, source; a base of None stands for zeros. Complex numbers are added and set as pairs.
    """
    axis, mode, wrap = attrs
    dt, pair = base.dtype, 1
    if dt in (complex64, complex128):
        if mode not in ("add", "set"):
            return None
        dt, pair = (float32 if dt is complex64 else float64), 2
    if base.size == 0:
        return None
    n, m = base.shape[axis], idx.size
    outer, cols = math.prod(base.shape[:axis]), math.prod(base.shape[axis + 1:]) * pair

    def make(to: Key) -> Job | None:
        if not src.size:
            return None
        numbers: tuple[int, ...] = (outer, n, m, cols)
        used: list[Any] = [to, keys[1], keys[2]]
        if cols < POINT_COLUMNS:
            kernel = _points_kernel(dt, idx.dtype, mode, wrap, 1, cols == 1)
            numbers = (*numbers, cols, 1, cols, 0, 1, outer, n * cols, 0, m * cols)
        else:
            kernel = _rows_kernel(dt, idx.dtype, mode, wrap, bits)
        return Job(*kernel, [*used, "err"], numbers, set(used), {to}, work=src.size + m, checks=True,
                   tests=((keys[1], n, wrap),))

    return _around(out, keys[0], dt, mode, base.size * pair, unique, bits, make)


def scatter_jobs(attrs: Any, base: Aval, idx: Aval, src: Aval, keys: Sequence[Key | None], out: Key, unique: Any,
                 bits: int) -> list[Job] | None:
    """``scatter`` (axis, mode): the index covers a corner of base (but for the axis) and of source; see take_put_jobs."""
    axis, mode = attrs
    dt = base.dtype
    if base.size == 0 or dt in (complex64, complex128):
        return None
    shape, whole, source = [a.shape or (1,) for a in (idx, base, src)]
    strides = list(zip(_strides(whole), _strides(shape), _strides(source)))
    axis = axis if base.ndim else 0
    last = len(shape) - 1
    inner = last if axis != last else None
    axes: list[list[int]] = []  # size, strides in (dst, idx, src), axes that lie together merged
    for d in range(len(shape)):
        if d in (axis, inner) or shape[d] == 1:
            continue
        new = [shape[d], *strides[d]]
        if axes and all(a == b * shape[d] for a, b in zip(axes[-1][1:], new[1:])):
            axes[-1] = [axes[-1][0] * shape[d], *new[1:]]
        else:
            axes.append(new)
    axes = axes or [[1, 0, 0, 0]]
    cols, steps = (1, (0, 0)) if inner is None else (shape[inner], strides[inner][1:])

    def make(to: Key) -> Job | None:
        if not idx.size:
            return None
        kernel = _points_kernel(dt, idx.dtype, mode, False, len(axes), cols == 1)
        numbers = (math.prod([a[0] for a in axes]), whole[axis], shape[axis], cols, *strides[axis], *steps,
                   *[x for a in axes for x in a])
        return Job(*kernel, [to, keys[1], keys[2], "err"], numbers, {to, keys[1], keys[2]}, {to}, work=idx.size, checks=True,
                   tests=((keys[1], whole[axis], False),))

    return _around(out, keys[0], dt, mode, base.size, unique, bits, make)


__all__ = ["Area", "accumulator", "base_job", "convert_job", "part", "scatter_jobs", "seal", "sweep", "take_put_jobs",
           "width_of"]
