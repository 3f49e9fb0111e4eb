"""How a loop-IR kernel is cut into programs: which axes run over programs, which along the two axes of a block.

A block has an x axis (kept iteration axes, flattened) and, where needed, a y axis: the reduced axes of a reduction, or
the second axis of a transposition (loads contiguous along y, stores along x). A reduction whose rows fit one block runs
in one go, its values staying in registers from stage to stage; a longer one loops over y once per stage.

The second half is about matrix products: their block sizes by type, device and access, and a model of the time each takes
(:func:`ranked`). The model's figures per device are in :data:`RATES`; measured choices (:mod:`autotune`) start from its order.
"""
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from ...dtypes import bfloat16, dtype, float16, float32, float64
from .. import index
from ..loop_ir import Access, Kernel, dependences
from ..native.contraction import Product

if TYPE_CHECKING:
    from .compiler import Target

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


def variants(k: Kernel) -> list[Tiling]:
    """Tilings to measure, the chosen one first: blocks half and twice as large, other numbers of warps; what runs over programs
    and over the block stays."""
    t = choose(k)
    out = [t]
    reduces = has_reduction(k)
    limit = LOOPED * 2 if t.looped else ROW * 2
    for wider in (2, 0.5, 4):
        bx, by = t.bx, t.by
        if t.looped:
            by = int(by * wider)
        elif not reduces and t.y and wider > 1:
            continue  # the sides of a transposition stay within shared memory
        else:
            bx = int(bx * wider)
        if bx < 1 or by < 16 and t.looped or not 32 <= bx * by <= limit:
            continue
        out.append(replace(t, bx=bx, by=by))
        out.append(replace(t, bx=bx, by=by, warps=max(1, min(16, int(t.warps * wider)))))
    out += [replace(t, warps=warps) for warps in (t.warps * 2, t.warps // 2) if 1 <= warps <= 16 and warps * 32 <= t.bx * t.by]
    return list(dict.fromkeys(out))


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


# ------------------------------------------------------------------------------------------------------ matrix products
@dataclass(frozen=True)
class Tile:
    """Block sizes of one program, its warps, stages of the pipeline, and into how many parts the sum is cut.

    ``tma``: operands come through tensor descriptors, programs stay and take one tile after the other. The finished block is
    worked on in ``halves`` pieces, which need fewer registers and less shared memory.
    """

    m: int
    n: int
    k: int
    warps: int
    stages: int
    parts: int = 1
    tma: bool = False
    halves: int = 1


Sizes = tuple[int, int, int, int, int]
# Every entry was compiled for sm_80 and sm_90 in three layouts, with and without masks: none spills.
_HALF = ((128, 256, 64, 8, 3), (256, 128, 64, 8, 3), (128, 128, 64, 8, 3), (64, 128, 64, 4, 4), (128, 64, 64, 4, 4),
         (64, 64, 64, 4, 4), (32, 64, 64, 4, 4), (64, 32, 64, 4, 4), (32, 32, 64, 2, 4), (16, 64, 64, 2, 4), (64, 16, 64, 2, 4))
_SINGLE = ((128, 128, 16, 8, 4), (64, 128, 32, 8, 3), (128, 64, 32, 8, 3), (64, 64, 32, 4, 3), (32, 64, 32, 4, 3),
           (64, 32, 32, 4, 3), (32, 32, 32, 4, 3), (16, 64, 32, 4, 3), (64, 16, 32, 4, 3))
_DOUBLE = ((64, 64, 16, 4, 3), (32, 64, 16, 4, 3), (64, 32, 16, 4, 3), (32, 32, 16, 4, 3))
# Operands without 16-byte accesses need a pointer and a mask per element in registers: shallower blocks.
_HALF_NARROW = ((128, 128, 32, 8, 3), (64, 64, 32, 8, 3), (32, 64, 32, 4, 3), (64, 32, 32, 4, 3), (32, 32, 32, 4, 3),
                (16, 64, 32, 4, 3), (64, 16, 32, 4, 3))
CANDIDATES: dict[dtype, tuple[tuple[Sizes, ...], tuple[Sizes, ...]]] = {
    float16: (_HALF, _HALF_NARROW), bfloat16: (_HALF, _HALF_NARROW), float32: (_SINGLE, _SINGLE[1:]),
    float64: (_DOUBLE, _DOUBLE)}
# Through descriptors, on sm_90, in 16 bits; compiled in four layouts, with and without parts and epilogues: none spills. In
# one piece a block of this size needs more registers behind the product than there are.
_TMA = tuple([Tile(m, n, 64, warps, 4, 1, True, 2)
              for m, n, warps in ((128, 256, 8), (256, 128, 8), (128, 128, 8), (64, 256, 4), (64, 128, 4), (128, 64, 4))])
TMA_ARCHS = (90,)  # where descriptors beside wgmma were compiled and looked at
LIGHT = 6  # statements of an epilogue that fit beside the largest blocks
MOST_PARTS = 64


class Rates(NamedTuple):
    """What one processor does in a cycle: multiply-adds by type (float32 by three products in tf32), bytes it reads."""

    half: int
    single: int
    double: int
    read: int


# From the dense peak rates in the vendors' data sheets, divided by processors and boost clock.
RATES = {80: Rates(1024, 170, 64, 32), 90: Rates(2048, 341, 64, 32)}
STARTUP, ENDING = 1000, 500  # cycles: a program of a pointer kernel until the first product; writing a block
RESIDENT = 2500  # cycles a persistent kernel starts with: descriptors, the first blocks
LATE = 1.15  # pointer kernels: loads are issued by the threads that multiply
REDUCE = 4000  # cycles of another kernel, which adds parts


def rates(target: Target) -> Rates:
    """The device's figures; those of the nearest known one below."""
    arch = target.arch if isinstance(target.arch, int) else 90
    return RATES[max([a for a in RATES if a <= arch], default=80)]


def is_narrow(p: Product, dt: dtype, offsets: tuple[int, int] = (0, 0)) -> bool:
    """Whether some operand cannot be read 16 bytes at a time."""
    for offset, batch, (s0, s1), (n0, n1) in ((offsets[0], p.batch_a, p.a, (p.m, p.k)),
                                              (offsets[1], p.batch_b, p.b, (p.k, p.n))):
        if 1 not in (s0, s1):
            return True
        run, step = (n0, s1) if s0 == 1 else (n1, s0)
        if math.gcd(run, step, offset, *batch) * dt.itemsize % 16:
            return True
    return False


def has_descriptors(p: Product, dt: dtype, target: Target, offsets: tuple[int, int] = (0, 0)) -> bool:
    """Whether both operands can be read through tensor descriptors: 16 bits, at most one batch axis, addresses and
    distances multiples of 16 bytes, the innermost stride one."""
    if target.backend != "cuda" or target.arch not in TMA_ARCHS or dt not in (float16, bfloat16) or len(p.batch) > 1:
        return False
    for offset, batch, strides in ((offsets[0], p.batch_a, p.a), (offsets[1], p.batch_b, p.b)):
        if 1 not in strides or min(strides) < 0 or min((0, *batch)) < 0:
            return False
        step = strides[1] if strides[0] == 1 else strides[0]
        if step <= 0 or math.gcd(step, offset, *batch) * dt.itemsize % 16:
            return False
    return True


def shared_bytes(t: Tile, dt: dtype) -> int:
    """Shared memory a kernel takes at most: the pipeline's blocks; with descriptors also the block being written."""
    pipeline = t.stages * (t.m + t.n) * t.k * dt.itemsize
    return pipeline + t.m * t.n // t.halves * dt.itemsize + 256 if t.tma else pipeline


def estimate(t: Tile, p: Product, dt: dtype, target: Target) -> float:
    """Cycles of a product: full waves of programs, each step limited by arithmetic or by loads."""
    r = rates(target)
    rate = r.half if dt.itemsize == 2 else r.double if dt is float64 else r.single
    if not t.tma and target.arch in TMA_ARCHS and dt.itemsize == 2 and t.m < 64:
        rate //= 2  # fewer rows than wgmma takes
    batch = math.prod(p.batch)
    tiles = -(-p.m // t.m) * -(-p.n // t.n) * batch * t.parts
    steps = -(-p.k // (t.k * t.parts))
    step = max(t.m * t.n * t.k / rate, (t.m + t.n) * t.k * dt.itemsize / r.read)
    waves = -(-tiles // target.processors)
    time = waves * (steps * step + ENDING) + RESIDENT if t.tma else waves * (steps * step * LATE + STARTUP + ENDING)
    if t.parts > 1:  # partial results go through memory, and a second kernel starts
        time += 2 * t.parts * p.m * p.n * batch * 4 / (r.read * target.processors) + REDUCE
    return time


def is_heavy(epilogue: Kernel | None) -> bool:
    """Whether what follows a product needs many registers."""
    return epilogue is not None and sum(s.op not in ("load", "const", "index") for s in epilogue.stmts) > LIGHT


def is_wide(epilogue: Kernel | None) -> bool:
    """Whether what follows a product reads more than two other arrays of its size, whose loads start together."""
    if epilogue is None:
        return False
    size = math.prod(epilogue.extents)
    return sum(s.op == "load" and epilogue.buffers[s.attr.buffer].size >= size for s in epilogue.stmts) > 3


def usable(p: Product, dt: dtype, target: Target, offsets: tuple[int, int] = (0, 0), candidates: Sequence[Sizes] | None = None,
           epilogue: Kernel | None = None) -> Iterator[Tile]:
    """Every tile that compiles without spills and fits the shared memory. ``candidates``: a template's own list, which has no
    descriptors."""
    tiles = [Tile(*sizes) for sizes in candidates or CANDIDATES[dt][is_narrow(p, dt, offsets)]]
    if candidates is None and has_descriptors(p, dt, target, offsets):
        tiles = [*_TMA, *tiles]
    heavy, wide = is_heavy(epilogue), is_wide(epilogue)
    for t in tiles:
        if (heavy or t.tma and wide) and t.m * t.n > 64 * 32 * t.warps:
            continue  # more than 64 accumulators a thread leave no registers for long expressions
        if shared_bytes(t, dt) > target.shared_limit:
            continue
        if heavy and wide and candidates is None and t.m * t.n >= 64 * 32 * t.warps:
            t = replace(t, halves=2)
        for parts in _parts(t, p, target):
            yield replace(t, parts=parts)


def _parts(t: Tile, p: Product, target: Target) -> list[int]:
    """Into how many parts a sum may be cut: powers of two, and what fills the device once or some times over. Every part has
    four steps or more, none is empty."""
    tiles = -(-p.m // t.m) * -(-p.n // t.n) * math.prod(p.batch)
    steps = -(-p.k // t.k)
    wanted = {1 << i for i in range(MOST_PARTS.bit_length())} | {target.processors * full // tiles for full in (1, 2, 3, 4)}
    return [n for n in sorted(wanted) if n == 1 or 1 < n <= MOST_PARTS and 4 * n <= steps and -(-steps // -(-steps // n)) == n]


def ranked(p: Product, dt: dtype, target: Target, offsets: tuple[int, int] = (0, 0), candidates: Sequence[Sizes] | None = None,
           epilogue: Kernel | None = None) -> list[Tile]:
    """Usable tiles, the one with the least estimated time first; of equal ones the earlier in the table."""
    return sorted(usable(p, dt, target, offsets, candidates, epilogue), key=lambda t: estimate(t, p, dt, target))
