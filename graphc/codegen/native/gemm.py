"""Which kernels compute a matrix product: shapes of tiles, what is packed, how k is cut."""
from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

from ...dtypes import dtype
from ..loop_ir import Kernel
from .gemm_dots import dots
from .gemm_kernel import DTYPES, WORDS, fused_kernel, product_kernel
from .gemm_operand import Operand, touched
from .gemm_pack import pack_kernel, sum_kernel
from .jobs import Job, Space, kernel_space

TASKS = 16  # a product is cut in at least so many tasks where it has them
MIN_PART = 1024  # steps of k worth a part of their own
CACHE_A = 1 << 18  # bytes of A's block, which stays in the second-level cache


@dataclass(frozen=True)
class _Problem:
    dt: str
    acc: str  # dtype of partial sums
    batch: tuple[int, ...]
    m: int
    n: int
    k: int
    out: Hashable
    unique: Hashable
    bits: int

    @property
    def itemsize(self) -> int:
        return 8 if self.acc == "float64" else 4

    @property
    def width(self) -> int:
        return self.bits // (8 * self.itemsize)

    @property
    def matrices(self) -> int:
        return math.prod(self.batch)

    @property
    def size(self) -> int:
        return self.matrices * self.m * self.n


def gemm_jobs(dt: dtype | str, batch: tuple[int, ...], m: int, n: int, k: int, a: Operand, b: Operand, out: Hashable,
              unique: Hashable, vector_bits: int, nthreads_hint: int = 2, epilogue: Kernel | None = None) -> list[Job]:
    """Jobs, in order, that write the contiguous C[batch, m, n] = A B at key ``out``.

    ``dt`` is float32, float64, bfloat16 or float16; the 16-bit ones accumulate in float32 and are rounded once. Own buffers
    are named (unique, "a"), (unique, "b"), (unique, "c"). Neither the jobs nor their results depend on ``nthreads_hint``.
    With an ``epilogue`` (see :func:`takes_epilogue`) that kernel's results are written instead; it reads C as slot ``out``.
    """
    name = dt if isinstance(dt, str) else dt.name
    p = _Problem(name, "float64" if name == "float64" else "float32", batch, m, n, k, out, unique, vector_bits)
    if p.size == 0:
        return []
    if min(m, n) == 1 and k > 1:
        return [dots(DTYPES[name], (*batch, m, n, k), a, b, out, vector_bits)]
    rows, vectors = tile_shape(p)
    span = p.width * vectors
    jobs: list[Job] = []
    if pack_b(p, b, span):
        b, b_panel = _pack(p, jobs, b, "b", (b.row, b.col), n, span, min(p.width, span)), k * span
        axes_b = [(-(-n // span) * span * k, 1)]
    else:
        b_panel, axes_b = span * b.col, [(k, b.row), (n, b.col)]
    if pack_a(p, a):
        a, a_tile = _pack(p, jobs, a, "a", (a.col, a.row), m, rows, min(p.width, rows)), k * rows
        axes_a = [(-(-m // rows) * rows * k, 1)]
    else:
        a_tile, axes_a = rows * a.row, [(m, a.row), (k, a.col)]
    packed = "float32" if name in ("bfloat16", "float16") else name
    made = _product(p, packed, rows, vectors, a, a_tile, b, b_panel, epilogue)
    if len(made) == 1:
        job = made[0]
        job.matrices, job.row_tiles = p.matrices, m // rows if m % rows == 0 else 0
        job.spaces = _spaces(p, job, a, axes_a, b, axes_b)
        job.by_rows = lambda parts: _by_rows(p, job, parts, _spaces(p, job, a, axes_a, b, axes_b, parts))
    return [*jobs, *made]


def _by_rows(p: _Problem, job: Job, parts: int, spaces: tuple[Space, ...]) -> Job:
    """The product whose tasks are ``parts`` equal parts of the rows of each matrix."""
    at = len(job.numbers) - len(WORDS) - 3 * len(p.batch) + WORDS.index("m_tasks")
    assert WORDS[WORDS.index("m_tasks") + 1] == "n_tasks" and job.row_tiles and job.row_tiles % parts == 0
    return replace(job, numbers=(*job.numbers[:at], parts, 1, *job.numbers[at + 2:]), spaces=spaces)


def _spaces(p: _Problem, job: Job, a: Operand, axes_a: list[tuple[int, int]], b: Operand, axes_b: list[tuple[int, int]],
            parts: int = 1) -> tuple[Space, ...]:
    """What a product touches: the operands, ``axes_a`` (rows first) and ``axes_b`` in every matrix as (size, stride); partial
    sums and the result, or what its epilogue touches. The rows of every matrix are cut in ``parts``."""
    (size, step), *inner = axes_a
    axes_a = [(parts, size // parts * step), (size // parts, step), *inner]
    read = [touched(x.key, p.itemsize, x.offset, [*zip(p.batch, x.batch), *axes], len(p.batch) + 1)
            for x, axes in ((b, [(parts, 0), *axes_b]), (a, axes_a))]
    return (*read, *_written(p, job, parts, job.epilogue))


def _written(p: _Problem, job: Job, parts: int, epilogue: Kernel | None) -> list[Space]:
    """What a product writes: partial sums and the result, or what its epilogue touches."""
    each = p.m // parts * p.n
    axes = [(p.matrices * parts, each), (each, 1)]
    out = [touched(key, p.itemsize, 0, axes, 1) for key in job.own]
    if epilogue is None:
        return [*out, touched(p.out, DTYPES[p.dt].itemsize, 0, axes, 1)]
    product = next(b for b in epilogue.reads if epilogue.buffers[b].slot == p.out)
    return [*out, kernel_space(epilogue, len(epilogue.extents) - 1, product)]


def takes_epilogue(dt: dtype, batch: tuple[int, ...], m: int, n: int, k: int, vector_bits: int) -> bool:
    """Whether a product is finished tile by tile, in its own dtype, so that an epilogue can follow."""
    p = _Problem(dt.name, dt.name, batch, m, n, k, None, None, vector_bits)
    if dt.name not in ("float32", "float64") or min(m, n) < 2 or k < 1 or not p.size:
        return False
    rows, vectors = tile_shape(p)
    return k_parts(p, -(-m // rows) * -(-n // (p.width * vectors))) == 1


def tile_shape(p: _Problem) -> tuple[int, int]:
    """Rows and vectors of a tile: 16 accumulators where there are 32 registers, else 12."""
    if p.bits == 512:
        return 8, 1 if p.n <= p.width else 2
    return 4, 1 if p.n <= p.width else 2 if p.n <= 2 * p.width else 3


def pack_b(p: _Problem, b: Operand, span: int) -> bool:
    """Whether B must be packed: lanes not neighbours, 16 bits, or many rows far apart used often."""
    if p.dt != p.acc or b.col != 1:
        return p.k > 0
    return p.m >= 192 and p.k * b.row * p.itemsize > 1 << 18


def pack_a(p: _Problem, a: Operand) -> bool:
    """Whether A must be packed."""
    return p.dt != p.acc and p.k > 0 or 1 not in (a.row, a.col) and p.n > 64 and p.k > 8


def _axes(batch: tuple[int, ...], *strides: tuple[int, ...]) -> list[int]:
    """Words of the batch axes, last first: size and strides."""
    return [x for d in reversed(range(len(batch))) for x in (batch[d], *[s[d] for s in strides])]


def _pack(p: _Problem, jobs: list[Job], x: Operand, which: str, strides: tuple[int, int], length: int, span: int,
          width: int) -> Operand:
    """Append the job that packs ``x`` (strides along k and across) and return it as packed: row is k's stride for B."""
    along, across = strides
    live = [d for d in range(len(p.batch)) if x.batch[d] != 0 and p.batch[d] != 1]
    sizes = tuple([p.batch[d] for d in live])
    panels = -(-length // span)
    per = panels * p.k * span
    key: Hashable = (p.unique, which)
    kind = "across" if across == 1 else "along" if along == 1 else "none"
    symbol, text = pack_kernel(p.dt, kind, width)
    chunk = 128
    words = (length, p.k, across, along, x.offset, span, panels, chunk, math.prod(sizes), len(sizes),
             *_axes(sizes, tuple([x.batch[d] for d in live])))
    total = per * math.prod(sizes)
    axes = [*[(p.batch[d], x.batch[d]) for d in live], (length, across), (p.k, along)]
    whole = panels if length % span == 0 else 1  # panels that can be made apart: all but a last, smaller one
    axes[-2:-1] = [(whole, length // whole * across), (length // whole, across)]
    spaces = (touched(x.key, DTYPES[p.dt].itemsize, x.offset, axes, len(live) + 1),
              touched(key, p.itemsize, 0, [(math.prod(sizes) * whole, per // whole), (per // whole, 1)], 1))
    jobs.append(Job(symbol, text, [x.key, key], words, {x.key}, {key}, work=total // 4, own={key: total * p.itemsize},
                    spaces=spaces))
    at, step = [0] * len(p.batch), per
    for d in reversed(live):
        at[d], step = step, step * p.batch[d]
    return Operand(key, 0, tuple(at), *((span, 1) if which == "b" else (1, span)))


def _product(p: _Problem, dt: str, rows: int, vectors: int, a: Operand, a_tile: int, b: Operand, b_panel: int,
             epilogue: Kernel | None) -> list[Job]:
    """The kernel over packed or plain operands, and the sum of its parts if k is split."""
    tiles, panels = -(-p.m // rows), -(-p.n // (p.width * vectors))
    parts = k_parts(p, tiles * panels)
    k_part = -(-p.k // parts)
    k_block = k_block_of(p)
    m_tasks, n_tasks = task_grid(p, tiles, panels, parts, rows * min(k_part, k_block) * p.itemsize)
    split = parts > 1
    key: Hashable = (p.unique, "c")
    needs_sums = split or (p.dt != p.acc or epilogue is not None) and k_part > k_block
    to = key if split else p.out
    words = (p.m, p.n, p.k, k_block, tiles, panels, m_tasks, n_tasks, p.matrices, parts, k_part, a.offset, a_tile, a.row, a.col,
             b.offset, b_panel, b.row, len(p.batch), *_axes(p.batch, a.batch, b.batch))
    own = {key: parts * p.size * p.itemsize} if needs_sums else {}
    if epilogue is not None:
        symbol, text, numbers, streams = fused_kernel(dt, rows, vectors, p.bits, epilogue, p.out)  # type: ignore[arg-type]
        names: list[Any] = [x.slot for x in epilogue.buffers]
        product = next(i for i in epilogue.reads if names[i] == p.out)
        reads = {names[i] for i in epilogue.reads if i != product}
        writes = {names[i] for i in epilogue.writes}
        names[product] = a.key  # never followed
        sums: Hashable = key if needs_sums else a.key
        return [Job(symbol, text, [a.key, b.key, a.key, sums, *names, "err", "scratch"], (*numbers, *words),
                    {a.key, b.key, *reads}, writes, own=own, work=p.size * p.k // 4, epilogue=epilogue,
                    streams=streams)]
    symbol, text = product_kernel(dt, p.acc if split else p.dt, rows, vectors, p.bits)
    jobs = [Job(symbol, text, [a.key, b.key, to, key if needs_sums else to], words, {a.key, b.key}, {to}, own=own,
                work=p.size * p.k // 4)]
    if split:
        symbol, text = sum_kernel(p.acc, p.dt, p.bits)
        jobs.append(Job(symbol, text, [p.out, key], (p.size, parts), {key}, {p.out}, work=parts * p.size // 4))
    return jobs


def k_block_of(p: _Problem) -> int:
    """Steps of k between visits of C."""
    return 256


def k_parts(p: _Problem, tiles: int) -> int:
    """Parts of a long k where there are too few tiles for threads to share; depends on sizes only."""
    wanted = TASKS // (tiles * p.matrices)
    return max(1, min(wanted, p.k // MIN_PART))


def task_grid(p: _Problem, tiles: int, panels: int, parts: int, tile_bytes: int) -> tuple[int, int]:
    """In how many groups row tiles and panels are cut: A's group fits its cache, and there are enough tasks."""
    m_tasks = -(-tiles // max(1, CACHE_A // max(1, tile_bytes)))
    n_tasks = -(-panels * p.width // 1024) if panels * p.width > 1024 else 1
    while parts * p.matrices * m_tasks * n_tasks < TASKS and (m_tasks < tiles or n_tasks < panels):
        if m_tasks < tiles and (n_tasks >= panels or tiles / m_tasks >= panels / n_tasks):
            m_tasks = min(tiles, 2 * m_tasks)
        else:
            n_tasks = min(panels, 2 * n_tasks)
    return m_tasks, n_tasks
