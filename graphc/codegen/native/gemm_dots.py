"""Products with a vector: bound by memory, so an ordinary printed kernel that multiplies and sums rows is best."""
from __future__ import annotations

import math
from collections.abc import Hashable

from ...dtypes import dtype, float32, float64
from .. import index
from ..index import Ix
from ..loop_ir import Access, Buf, Kernel, Stmt, Store
from ..lower import tidy
from .gemm_operand import Operand
from .jobs import Job, kernel_space
from .kernel import print_kernel


def dots(dt: dtype, extents: tuple[int, ...], a: Operand, b: Operand, out: Hashable, bits: int) -> Job:
    """The job of C[*extents[:-1]] = sum over the last of ``extents`` = (*batch, m, n, k), where m or n is 1."""
    work = float64 if dt is float64 else float32
    nb = len(extents) - 3
    ia = Ix(a.offset, tuple([(d, s) for d, s in enumerate((*a.batch, a.row, 0, a.col)) if s and extents[d] > 1]))
    ib = Ix(b.offset, tuple([(d, s) for d, s in enumerate((*b.batch, 0, b.col, b.row)) if s and extents[d] > 1]))
    kept = extents[:-1]
    ic = index.flatten([index.var(d) if e > 1 else Ix(0, ()) for d, e in enumerate(kept)], kept)
    stmts = [Stmt("load", (), dt, Access(0, ia, ()), None), Stmt("load", (), dt, Access(1, ib, ()), None)]
    at = [0, 1]
    if dt is not work:
        stmts += [Stmt("cast", (x,), work, None, None) for x in at]
        at = [2, 3]
    stmts.append(Stmt("mul", (at[0], at[1]), work, None, None))
    stmts.append(Stmt("reduce", (len(stmts) - 1,), work, "add", None))
    if dt is not work:
        stmts.append(Stmt("cast", (len(stmts) - 1,), dt, None, None))
    reads = [Buf(x.key, dt, _extent(x, (*extents[:nb], extents[i], extents[j])))  # type: ignore[arg-type]
             for x, i, j in ((a, -3, -1), (b, -1, -2))]
    store = Store(Access(2, ic, ()), len(stmts) - 1)
    k = tidy(Kernel("k_dots", extents, len(kept), (*reads, Buf(out, dt, math.prod(kept))), tuple(stmts), (store,)))  # type: ignore
    p = print_kernel(k, bits)
    return Job(p.symbol, p.text, [*[x.slot for x in k.buffers], "err", "scratch"], p.numbers, {a.key, b.key}, {out}, p.scratch,
               2 * p.work, spaces=(kernel_space(k, p.leading),), matrices=math.prod(extents[:nb]), streams=p.streams)


def _extent(x: Operand, sizes: tuple[int, ...]) -> int:
    """One past the last element the matrix reads."""
    return 1 + x.offset + sum(max(0, s * (n - 1)) for s, n in zip((*x.batch, x.row, x.col), sizes))
