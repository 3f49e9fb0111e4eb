"""How a loop-IR kernel is cut into programs: which axes run over programs, which along the two axes of a block.

A block has an x axis (kept iteration axes, flattened) and, where needed, a y axis: the reduced axes of a reduction, or
the second axis of a transposition (loads contiguous along y, stores along x). A reduction whose rows fit one block runs
in one go, its values staying in registers from stage to stage; a longer one loops over y once per stage.
"""
from __future__ import annotations

import math
from dataclasses import dataclass

from .. import index
from ..loop_ir import Access, Kernel, dependences

STREAM = 1024  # elements of a block of a pointwise kernel: 8 per thread of 4 warps, two 16-byte accesses in float32
SIDE = 64  # sides of the square block of a transposition
ROW = 16384  # longest row kept in registers when few values live across stages
SHORT_ROWS = 2048  # elements of a block that holds several short rows
LOOPED = 4096  # elements of a block of a reduction that loops
COLUMNS = 64  # results side by side when a reduction is contiguous along a kept axis
WIDE = 1 << 31


@dataclass(frozen=True)
class Tiling:
    """``programs``: axes bound to one index per program; ``x``, ``y``: axes along the block; ``bx``, ``by``: its sizes."""

    programs: tuple[int, ...]
    x: tuple[int, ...]
    y: tuple[int, ...]
    bx: int
    by: int
    looped: bool
    warps: int


def pow2(n: int) -> int:
    """Smallest power of two that is at least ``n``."""
    return 1 << max(0, n - 1).bit_length()


def has_reduction(k: Kernel) -> bool:
    """Whether any statement reduces."""
    return any(s.op in ("reduce", "argreduce") for s in k.stmts)


def accesses(k: Kernel) -> list[Access]:
    """Every load, then every store."""
    return [s.attr for s in k.stmts if s.op == "load"] + [st.access for st in k.stores]


def wide(k: Kernel) -> bool:
    """Whether positions need 64 bits."""
    return max([math.prod(k.extents), *[b.size for b in k.buffers]]) + (1 << 16) >= WIDE


def choose(k: Kernel) -> Tiling:
    """The tiling of a kernel."""
    if has_reduction(k):
        return _reduction(k)
    axes = tuple(range(len(k.extents)))
    second = _second_axis(k)
    if second is not None:
        x, y = second
        bx, by = [min(SIDE, pow2(k.extents[d])) for d in second]
        return Tiling(tuple([d for d in axes if d not in second]), (x,), (y,), bx, by, False, 4 if bx * by <= 2048 else 8)
    points = math.prod(k.extents)
    block = min(STREAM, max(32, pow2(points)))
    return Tiling((), axes, (), block, 1, False, max(1, min(4, block // 256)))


def _second_axis(k: Kernel) -> tuple[int, int] | None:
    """(x, y) when stores are contiguous along x and a large load along another axis y."""
    stores = [st.access for st in k.stores]
    score: dict[int, int] = {}
    for a in stores:
        for d in range(len(k.extents)):
            if index.coefficient(a.ix, d) == 1:
                score[d] = score.get(d, 0) + k.buffers[a.buffer].size * k.buffers[a.buffer].dtype.itemsize
    if not score:
        return None
    x = max(score, key=lambda d: score[d])
    votes: dict[int, int] = {}
    for a in accesses(k):
        if index.data(a.ix) or index.coefficient(a.ix, x) in (0, 1, None):
            continue
        for d in range(len(k.extents)):
            if d != x and index.coefficient(a.ix, d) == 1 and k.extents[d] >= 8:
                votes[d] = votes.get(d, 0) + k.buffers[a.buffer].size
    if not votes or k.extents[x] < 8:
        return None
    return x, max(votes, key=lambda d: votes[d])


def _reduction(k: Kernel) -> Tiling:
    kept, reduced = tuple(range(k.kept)), tuple(range(k.kept, len(k.extents)))
    rows = math.prod(k.extents[:k.kept])
    width = math.prod(k.extents[k.kept:])
    live = _live(k)
    if _along_rows(k):
        limit = ROW if live <= 2 else ROW // 2 if live <= 4 else ROW // 4
        by = pow2(width)
        if by <= limit:
            bx = max(1, min(SHORT_ROWS // pow2(max(live, 2)) // by, pow2(rows)))
            return Tiling((), kept, reduced, bx, by, False, _warps(bx * by))
        by = LOOPED if live <= 4 else LOOPED // 2
        return Tiling((), kept, reduced, 1, by, True, _warps(by))
    bx = min(COLUMNS, pow2(rows))
    by = pow2(width)
    if bx * by <= SHORT_ROWS:
        while bx * by < SHORT_ROWS // 2 and bx < pow2(rows):
            bx *= 2
        return Tiling((), kept, reduced, bx, by, False, _warps(bx * by))
    by = max(1, min(by, (LOOPED if live <= 2 else LOOPED // 2) // bx))
    return Tiling((), kept, reduced, bx, by, True, _warps(bx * by))


def _warps(points: int) -> int:
    """Warps for a block: 8 elements a thread, up to 16 warps."""
    return max(1, min(16, points // 256))


def _live(k: Kernel) -> int:
    """Number of loads that vary over reduced axes: what stays in registers from stage to stage."""
    deps = dependences(k)
    return sum(1 for i, s in enumerate(k.stmts) if s.op == "load" and any(d >= k.kept for d in deps[i]))


def _along_rows(k: Kernel) -> bool:
    """Whether accesses are contiguous along the reduced axes rather than along the kept ones."""
    along = across = 0
    for a in accesses(k):
        for d in range(len(k.extents)):
            if index.coefficient(a.ix, d) == 1 and k.extents[d] > 1:
                size = min(k.buffers[a.buffer].size, math.prod(k.extents)) * min(k.extents[d], 32)
                if d >= k.kept:
                    along += size
                else:
                    across += size
    return along >= across
