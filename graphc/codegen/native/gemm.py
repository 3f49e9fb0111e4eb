"""Matrix products: a register-blocked kernel over packed operands.

C[batch, m, n] = sum over k of A[batch, m, k] B[batch, k, n]. The micro kernel keeps ``rows`` x ``vectors`` accumulator
vectors: lanes run along n, elements of A are broadcast. B is read as panels of ``vectors`` vectors, packed by an ordinary
printed copy kernel unless its rows are contiguous and fit; A is read in place where its k-stride is 1 and packed
otherwise. The sum over k is cut into blocks whose panel stays in the first-level cache; later blocks add to C. Every
element is one chain of fused multiply-adds in increasing k, so results do not depend on threads or tiling. Goto and van de
Geijn, "Anatomy of high-performance matrix multiplication", ACM TOMS 34(3), 2008.

16-bit floats are packed as float32, and rounded once when the float32 result is copied into place.
"""
from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache

from ...dtypes import dtype, float32, float64
from .. import index
from ..index import Ix
from ..loop_ir import Access, Buf, Kernel, Stmt, Store
from ..lower import tidy
from .jobs import Job
from .kernel import print_kernel
from .llvm import Function, module, vec

BLOCK_K = 256  # steps of k whose panels stay in the first-level cache
ROWS = 8  # of the micro kernel; with 2 vectors this leaves registers free, and measures faster than 12


@dataclass(frozen=True)
class Operand:
    """A strided matrix: key, offset in elements, a stride for every batch axis (0 repeats), strides of row and column."""

    key: Hashable
    offset: int
    batch: tuple[int, ...]
    row: int
    col: int


def gemm_jobs(dt: dtype, batch: tuple[int, ...], m: int, n: int, k: int, a: Operand, b: Operand, out: Hashable,
              unique: Hashable, vector_bits: int) -> list[Job]:
    """Jobs, in order, that write C (contiguous) at ``out``. ``unique`` names the jobs' own buffers."""
    work = float64 if dt is float64 else float32
    if min(m, n) == 1 and k > 1:
        return [_dots(dt, work, (*batch, m, n, k), a, b, out, vector_bits)]
    width = vector_bits // (8 * work.itemsize)
    rows = ROWS
    vectors = 1 if n <= width else 2
    panel = width * vectors
    jobs: list[Job] = []
    crowded = b.row * work.itemsize % 4096 == 0 and m >= 8 * rows and k >= 64  # rows of a panel would evict each other
    if b.col != 1 or n % panel or dt is not work or crowded:
        b = _pack(jobs, b, batch, (k, n), panel, dt, work, (unique, "b"), vector_bits, by_row=False)
        step_panel = k * panel
    else:
        step_panel = panel
    if 1 not in (a.col, a.row) or dt is not work:
        a = _pack(jobs, a, batch, (m, k), rows, dt, work, (unique, "a"), vector_bits, by_row=True)
        step_rows, row, a_k = k * rows, 1, rows
    else:
        step_rows, row, a_k = rows * a.row, a.row, a.col
    direct = dt is work
    dst: Hashable = out if direct else (unique, "c")
    row_blocks, panels = -(-m // rows), -(-n // panel)
    mb, nb = _task_size(row_blocks, panels, math.prod(batch), k, rows, panel, work.itemsize)
    symbol, text = gemm_kernel(work.name, rows, vectors, width, len(batch))
    sizes = [m, n, k, mb, nb, -(-row_blocks // mb), -(-panels // nb), step_rows, row, a_k, step_panel, b.row,
             a.offset, b.offset, *batch, *a.batch, *b.batch]
    flops = 2 * math.prod(batch) * m * n * k
    own = {} if direct else {dst: 4 * math.prod(batch) * m * n}
    jobs.append(Job(symbol, text, [a.key, b.key, dst], tuple(sizes), {a.key, b.key}, {dst}, work=flops // 16, own=own))
    if not direct:
        size = math.prod(batch) * m * n
        jobs.append(_copy(Ix(0, ((0, 1),)), Ix(0, ((0, 1),)), (size,), (dst, work, size), (out, dt, size), vector_bits))
    return jobs


def _dots(dt: dtype, work: dtype, extents: tuple[int, ...], a: Operand, b: Operand, out: Hashable, bits: int) -> Job:
    """Products with a vector are bound by memory: a printed kernel that multiplies and sums rows."""
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
    reads = [Buf(x.key, dt, _extent(x, extents[:nb], (extents[i], extents[j])))  # type: ignore[arg-type]
             for x, i, j in ((a, -3, -1), (b, -1, -2))]
    store = Store(Access(2, ic, ()), len(stmts) - 1)
    k = tidy(Kernel("k_dots", extents, len(kept), (*reads, Buf(out, dt, math.prod(kept))), tuple(stmts), (store,)))  # type: ignore
    p = print_kernel(k, bits)
    return Job(p.symbol, p.text, [*[x.slot for x in k.buffers], "err", "scratch"], p.numbers, {a.key, b.key}, {out}, p.scratch,
               2 * p.work)


def _task_size(row_blocks: int, panels: int, batch: int, k: int, rows: int, panel: int, itemsize: int) -> tuple[int, int]:
    """Row blocks and panels of a task: A's block fits the second-level cache, and there are tasks for many threads."""
    mb = max(1, min(row_blocks, (1 << 18) // (rows * max(1, min(k, BLOCK_K)) * itemsize)))
    nb = max(1, min(panels, 2048 // panel))
    while batch * -(-row_blocks // mb) * -(-panels // nb) < 16 and (mb > 1 or nb > 1):
        if mb * rows >= nb * panel and mb > 1 or nb == 1:
            mb = -(-mb // 2)
        else:
            nb = -(-nb // 2)
    return mb, nb


def _pack(jobs: list[Job], x: Operand, batch: tuple[int, ...], shape: tuple[int, int], block: int, dt: dtype, work: dtype,
          key: Hashable, bits: int, by_row: bool) -> Operand:
    """Copy a matrix into blocks of ``block`` rows (or columns), inner index along the block, then k.

    What lies beyond the edge of the last block stays unset: it only meets lanes and rows that are never stored.
    """
    steps, length = (shape[1], shape[0]) if by_row else (shape[0], shape[1])  # sizes of k and of the blocked axis
    across, along = (x.row, x.col) if by_row else (x.col, x.row)
    live = [d for d in range(len(batch)) if x.batch[d] != 0]
    blocks = -(-length // block)
    per = blocks * steps * block
    sizes = [batch[d] for d in live]
    strides = [per * math.prod(sizes[i + 1:]) for i in range(len(sizes))]
    total = per * math.prod(sizes)
    nb = len(live)
    pairs = [(0, length // block, block), (length // block, 1, length % block)]
    for first, count, lanes in pairs:
        if not count or not lanes or not steps or not total:
            continue
        axes = [(count, block * across, steps * block), (steps, along, block), (lanes, across, 1)]  # size, from, to
        if across == 1 and steps % 16 == 0:  # short runs along k: neither reads nor writes jump too far
            axes[:2] = [(steps // 16, 16 * along, 16 * block), axes[0], (16, along, block)]
        src = [*[(d, x.batch[live[d]]) for d in range(nb)], *[(nb + i, t[1]) for i, t in enumerate(axes)]]
        dst = [*[(d, strides[d]) for d in range(nb)], *[(nb + i, t[2]) for i, t in enumerate(axes)]]
        jobs.append(_copy(Ix(x.offset + first * block * across, tuple(src)), Ix(first * steps * block, tuple(dst)),
                          (*sizes, *[t[0] for t in axes]), (x.key, dt, _extent(x, batch, shape)), (key, work, total), bits))
    if jobs and key in jobs[-1].writes:
        jobs[-1].own[key] = total * work.itemsize
    at = dict(zip(live, strides))
    return Operand(key, 0, tuple([at.get(d, 0) for d in range(len(batch))]), block, 1) if not by_row else Operand(
        key, 0, tuple([at.get(d, 0) for d in range(len(batch))]), 1, block)


def _extent(x: Operand, batch: tuple[int, ...], shape: tuple[int, int]) -> int:
    """One past the last element the matrix reads."""
    return 1 + x.offset + sum(max(0, s * (n - 1)) for s, n in zip((*x.batch, x.row, x.col), (*batch, *shape)))


def _copy(src: Ix, dst: Ix, extents: Sequence[int], from_: tuple[Hashable, dtype, int], to: tuple[Hashable, dtype, int],
          bits: int) -> Job:
    """A printed copy kernel, with a cast where the dtypes differ."""
    live = [d for d, e in enumerate(extents) if e != 1]
    names = {d: i for i, d in enumerate(live)}
    src, dst = (Ix(ix.const, tuple([(names[d], c) for d, c in ix.terms if d in names and c])) for ix in (src, dst))
    stmts = [Stmt("load", (), from_[1], Access(0, src, ()), None)]
    if from_[1] is not to[1]:
        stmts.append(Stmt("cast", (0,), to[1], None, None))
    buffers = (Buf(*from_), Buf(*to))  # type: ignore[arg-type]
    ext = tuple([extents[d] for d in live])
    k = Kernel("k_pack", ext, len(ext), buffers, tuple(stmts), (Store(Access(1, dst, ()), len(stmts) - 1),))
    p = print_kernel(k, bits)
    return Job(p.symbol, p.text, [from_[0], to[0], "err", "scratch"], p.numbers, {from_[0]}, {to[0]}, p.scratch, p.work)


# ------------------------------------------------------------------------------------------------------- the kernel
@cache
def gemm_kernel(name: str, rows: int, vectors: int, width: int, batch: int) -> tuple[str, str]:
    """(symbol, LLVM text). Words: A, B, C, then the sizes :func:`gemm_jobs` lists."""
    symbol = f"gemm_{name}_{rows}x{vectors * width}_{batch}"
    return symbol, module([_Gemm(symbol, name, rows, vectors, width, batch).f])


class _Gemm:
    """Prints the kernel: threads share tasks (batch, panel group, row group); a task walks k blocks, panels, row blocks."""

    def __init__(self, symbol: str, name: str, rows: int, vectors: int, width: int, batch: int):
        self.rows, self.vectors, self.width = rows, vectors, width
        self.scalar = "double" if name == "float64" else "float"
        self.ty = vec(width, self.scalar)
        f = self.f = Function(symbol)
        self.a, self.b, self.c = (f.arg(i, "ptr") for i in range(3))
        (self.m, self.n, self.k, self.mb, self.nb, self.m_tasks, self.n_tasks, self.step_rows, self.row, self.a_k,
         self.step_panel, self.b_row, off_a, off_b) = (f.arg(3 + i) for i in range(14))
        self.a, self.b = f.at(self.scalar, self.a, off_a), f.at(self.scalar, self.b, off_b)
        sizes, sa, sb = ([f.arg(17 + g * batch + d) for d in range(batch)] for g in range(3))
        self.per_batch = f.mul(self.m_tasks, self.n_tasks)
        total = self.per_batch
        for s in sizes:
            total = f.mul(total, s)
        lo, hi = f.share(total)
        f.loop(lo, hi, lambda t: self.task(t, sizes, sa, sb))

    def task(self, t: str, sizes: list[str], sa: list[str], sb: list[str]) -> None:
        """One group of row blocks and panels of one matrix of the batch."""
        f, s = self.f, self.scalar
        which, rest = f.div(t, self.per_batch), f.rem(t, self.per_batch)
        a, b = self.a, self.b
        c = f.at(s, self.c, f.mul(which, f.mul(self.m, self.n)))
        for d in reversed(range(len(sizes))):
            i = f.rem(which, sizes[d]) if d else which
            a, b = f.at(s, a, f.mul(i, sa[d])), f.at(s, b, f.mul(i, sb[d]))
            which = f.div(which, sizes[d]) if d else which
        panel = self.width * self.vectors
        p0, i0 = f.mul(f.div(rest, self.m_tasks), self.nb), f.mul(f.rem(rest, self.m_tasks), self.mb)
        p1 = f.min(f.add(p0, self.nb), f.ceil_div(self.n, panel))
        i1 = f.min(f.add(i0, self.mb), f.ceil_div(self.m, self.rows))

        def k_block(k0: str) -> None:
            k1 = f.min(f.add(k0, str(BLOCK_K)), self.k)
            f.loop(p0, p1, lambda p: one_panel(p, k0, k1))

        def one_panel(p: str, k0: str, k1: str) -> None:
            left = f.sub(self.n, f.mul(p, str(panel)))
            older = f.cmp("sgt", "i64", k0, "0")
            masks = [f.lane_mask(self.width, f.max(f.sub(left, str(v * self.width)), "0")) for v in range(self.vectors)]
            mt = vec(self.width, "i1")
            seen = [f.op("and", mt, x, f.splat(mt, older)) for x in masks]
            bp = f.at(s, b, f.add(f.mul(p, self.step_panel), f.mul(k0, self.b_row)))
            f.loop(i0, i1, lambda i: self.micro(i, a, bp, f.at(s, c, f.mul(p, str(panel))), k0, k1, masks, seen))

        f.loop("0", f.max(self.k, "1"), k_block, step=BLOCK_K)

    def micro(self, i: str, a: str, b: str, c: str, k0: str, k1: str, masks: list[str], seen: list[str]) -> None:
        """rows x vectors accumulators over one block of k. Rows beyond the edge repeat the last one."""
        f, s, ty = self.f, self.scalar, self.ty
        first = f.mul(i, str(self.rows))
        last = f.sub(f.sub(self.m, "1"), first)  # largest row of this block
        ab = f.at(s, a, f.add(f.mul(i, self.step_rows), f.mul(k0, self.a_k)))
        at = [f.min(str(r), last) if r else "0" for r in range(self.rows)]
        a_rows = [f.at(s, ab, f.mul(x, self.row)) for x in at]
        c_rows = [f.at(s, c, f.mul(f.add(first, x), self.n)) for x in at]
        acc: list[tuple[str, str]] = []
        for r in range(self.rows):
            for v in range(self.vectors):
                acc.append((ty, f.load(ty, f.at(s, c_rows[r], str(v * self.width)), seen[v])))

        def steps(count: int, kk: str, values: tuple[str, ...]) -> list[str]:
            now = list(values)
            for u in range(count):
                step = f.add(kk, str(u))
                bk = f.at(s, b, f.mul(step, self.b_row))
                bv = [f.load(ty, f.at(s, bk, str(v * self.width))) for v in range(self.vectors)]
                ak = f.mul(step, self.a_k)
                for r in range(self.rows):
                    x = f.splat(ty, f.load(s, f.at(s, a_rows[r], ak)))
                    for v in range(self.vectors):
                        n = r * self.vectors + v
                        now[n] = f.fma(ty, x, bv[v], now[n])
            return now

        span = f.sub(k1, k0)
        whole = f.mul(f.div(span, "4"), "4")
        mid = f.loop("0", whole, lambda kk, *x: steps(4, kk, x), acc, 4)
        out = f.loop(whole, span, lambda kk, *x: steps(1, kk, x), [(ty, x) for x in mid])
        for r in range(self.rows):
            for v in range(self.vectors):
                f.store(ty, out[r * self.vectors + v], f.at(s, c_rows[r], str(v * self.width)), masks[v])


__all__ = ["Operand", "gemm_jobs", "gemm_kernel"]
