"""Library nodes that are loops after all, printed from kernels of the loop IR: strided writes, overlapping windows, products of
integers, and arithmetic on integers that may fail."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...dtypes import bool_, int64
from ...ir.node import Aval
from ...ir.prims.movement import slice_length
from .. import index
from ..index import Ix
from ..loop_ir import Access, Buf, Guard, Kernel, Stmt, Store
from ..lower import tidy
from .jobs import Job, Key, copy_job
from .printed import kernel_job


def _axes(shape: Sequence[int], first: int = 0) -> list[Ix]:
    """The iteration variables first, first + 1, ... as a multi-index of ``shape``."""
    return [index.var(first + d) if n != 1 else index.ZERO for d, n in enumerate(shape)]


def _buffers(keys: Sequence[Key], avals: Sequence[Aval]) -> tuple[Buf, ...]:
    return tuple([Buf(k, a.dtype, a.size) for k, a in zip(keys, avals)])  # type: ignore[arg-type]


def slice_set_jobs(attrs: Any, base: Aval, src: Aval, keys: Sequence[Key], out: Key, bits: int) -> list[Job]:
    """``slice_set`` (starts, stops, steps of any sign): the base is copied, then the source written into its places."""
    jobs = [copy_job(out, keys[0], base.nbytes)]
    if not src.size:
        return jobs
    starts, stops, steps = attrs
    assert src.shape == tuple([slice_length(*x) for x in zip(starts, stops, steps)])
    at = _axes(src.shape)
    to = index.flatten([index.add(index.num(a), index.scale(x, s)) for x, a, s in zip(at, starts, steps)], base.shape)
    read = Stmt("load", (), src.dtype, Access(0, index.flatten(at, src.shape)))
    k = Kernel("k_slice_set", src.shape, src.ndim, _buffers((keys[1], out), (src, base)), (read,), (Store(Access(1, to), 0),))
    put = kernel_job(tidy(k), bits)
    put.kernel = None  # it writes only a part of the result: nothing may lend its memory
    return [*jobs, put]


def contract_jobs(attrs: Any, a: Aval, b: Aval, out: Aval, keys: Sequence[Key], to: Key, bits: int) -> list[Job] | None:
    """``contract`` of integers (batch_a, batch_b, dims_a, dims_b): wraps around like NumPy's."""
    if out.dtype.is_floating_point or out.dtype.is_complex or not a.size or not b.size:
        return None
    ba, bb, da, db = attrs
    free_a = [i for i in range(a.ndim) if i not in ba and i not in da]
    free_b = [i for i in range(b.ndim) if i not in bb and i not in db]
    n = len(ba) + len(free_a)
    of_a = {ax: d for d, ax in enumerate([*ba, *free_a])} | {ax: out.ndim + j for j, ax in enumerate(da)}
    of_b = {ax: d for d, ax in enumerate(bb)} | {ax: n + d for d, ax in enumerate(free_b)} | {
        ax: out.ndim + j for j, ax in enumerate(db)}
    stmts = [Stmt("load", (), v.dtype, Access(k, index.flatten([index.var(of[ax]) for ax in range(v.ndim)], v.shape)))
             for k, (v, of) in enumerate(((a, of_a), (b, of_b)))]
    stmts += [Stmt("mul", (0, 1), out.dtype), Stmt("reduce", (2,), out.dtype, "add")]
    extents = (*out.shape, *[a.shape[ax] for ax in da])
    store = Store(Access(2, index.flatten([index.var(d) for d in range(out.ndim)], out.shape)), 3)
    if math.prod(extents[out.ndim:]) == 1:  # nothing to sum
        stmts, store = stmts[:3], Store(store.access, 2)
    k = Kernel("k_integer_product", extents, out.ndim, _buffers((*keys, to), (a, b, out)), tuple(stmts), (store,))
    return [kernel_job(tidy(k), bits)]


def overlap_jobs(attrs: Any, g: Aval, out: Aval, keys: Sequence[Key], to: Key, bits: int) -> list[Job] | None:
    """``overlap_add`` (shape, axes, sizes, strides, dilations): every element of the result sums the windows over it.

    Element x lies in window q at i with x = q * stride + i * dilation. The reduced axes are the elements i of a window;
    without dilation, as only every stride-th i fits, they are j with i = j * stride + x % stride and q = x // stride - j.
    """
    _, axes, sizes, strides, dilations = attrs
    if out.dtype is bool_ or out.dtype.is_complex or not g.size:
        return None
    at, within, guards = _axes(out.shape), [], []
    extents = list(out.shape)
    for axis, k, s, d in zip(axes, sizes, strides, dilations):
        steps = k if d != 1 else -(-k // s)
        x, i = index.var(axis), index.var(len(extents))
        extents.append(steps)
        if d == 1:
            q = index.add(index.floordiv(x, s, extents), index.scale(i, -1))
            i = index.add(index.scale(i, s), index.mod(x, s, extents))
            guards.append(Guard(i, 0, k))
            guards.append(Guard(q, 0, g.shape[axis]))
        else:
            before = -(-(k - 1) * d // s)  # whole strides that keep divided numbers from being negative
            t = index.add(index.add(x, index.scale(i, -d)), index.num(before * s))
            q = index.add(index.floordiv(t, s, extents), index.num(-before))
            guards.append(Guard(index.mod(t, s, extents), 0, 1))
            guards.append(Guard(q, 0, g.shape[axis]))
        at[axis] = q
        within.append(i)
    zero = np.zeros((), out.dtype.np).tobytes()
    conditions = tuple(guards)
    stmts = (Stmt("load", (), g.dtype, Access(0, index.flatten([*at, *within], g.shape), conditions)),
             Stmt("guard", (), bool_, conditions), Stmt("const", (), g.dtype, zero), Stmt("where", (1, 0, 2), g.dtype),
             Stmt("reduce", (3,), g.dtype, "add"))
    store = Store(Access(1, index.flatten(_axes(out.shape), out.shape)), 4)
    k = Kernel("k_overlap_add", tuple(extents), out.ndim, _buffers((*keys, to), (g, out)), stmts, (store,))
    return [kernel_job(tidy(k), bits)]


def integer_jobs(name: str, ins: Sequence[Aval], out: Aval, keys: Sequence[Key], to: Key, bits: int) -> list[Job] | None:
    """``floordiv``, ``remainder``, ``fmod`` and ``pow`` of integers; a divisor of 0 is reported as an index out of range is."""
    dt = out.dtype
    if dt.is_floating_point or dt.is_complex or dt is bool_ or any(a.dtype is not dt for a in ins):
        return None
    stmts = []
    for n, a in enumerate(ins):
        at = [index.var(out.ndim - a.ndim + d) if e != 1 else index.ZERO for d, e in enumerate(a.shape)]
        stmts.append(Stmt("load", (), dt, Access(n, index.flatten(at, a.shape))))
    if name == "pow":
        stmts.append(Stmt(name, (0, 1), dt))
    else:
        zero, one = [Stmt("const", (), dt, np.array(v, dt.np).tobytes()) for v in (0, 1)]
        stmts += [zero, Stmt("eq", (1, 2), bool_), Stmt("cast", (3,), int64), Stmt("check", (4,), int64, (1, False, ())), one,
                  Stmt("where", (3, 6, 1), dt), Stmt(name, (0, 7), dt)]
    store = Store(Access(len(ins), index.flatten(_axes(out.shape), out.shape)), len(stmts) - 1)
    k = Kernel(f"k_{name}", out.shape, out.ndim, _buffers((*keys, to), (*ins, out)), tuple(stmts), (store,))
    return [kernel_job(tidy(k), bits)]
