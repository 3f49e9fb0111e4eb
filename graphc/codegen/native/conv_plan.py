"""Sums over taps as jobs: which kernel, which tile, and the copies of image and filter it reads.

Everything has three axes (depth, height, width); fewer are sizes of 1 in front.
"""
from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from ...dtypes import dtype
from . import conv_lanes, conv_pack, conv_rows
from .jobs import Job

TAPS_UNROLLED = 7  # filter columns up to which a row of the filter is written out
FILTER_IN_CACHE = 1 << 19  # bytes of a packed filter that stay in the second-level cache beside an image
BOTH_IN_CACHE = 800 << 10  # bytes of a packed filter and an image that stay in the second-level cache together
PACK_CHUNK = 256  # positions of a copy that one task moves
TASKS = 16  # what a job is cut into at least, for threads
Three = tuple[int, int, int]


class Copy(NamedTuple):
    """A copy of images still to be made: of what (key, shape), channels of a group, size and first element of the copy (the
    border), steps, residues of columns."""

    key: Hashable
    shape: tuple[int, int, int, int, int]
    per: int
    size: Three
    lo: Three
    step: Three
    phases: int


class Image(NamedTuple):
    """An input of a kernel: key, first element, strides of image, group, channel, plane, row, and of columns' residues."""

    key: Hashable
    offset: int
    n: int
    g: int
    c: int
    plane: int
    row: int
    phase: int = 0
    copy: Copy | None = None


class Filter(NamedTuple):
    """Where a kernel's filter comes from: first tap, strides of group, lane, summed channel, plane, row, column; taps of a
    channel."""

    key: Hashable
    offset: int
    strides: tuple[int, int, int, int, int, int]
    taps: int


class Target(NamedTuple):
    """Where results go: key, first element, strides of image, channel, plane, row, column."""

    key: Hashable
    offset: int
    n: int
    o: int
    z: int
    y: int
    x: int


class Taps(NamedTuple):
    """out[n, o, p] = sum over channels c and taps k of image[n, c, p * step + k * tap] * filter, p and k of three axes."""

    n: int
    groups: int
    lanes: int  # output channels of a group
    red: int  # summed channels of a group
    size: Three  # of the output
    kernel: Three
    step: Three
    tap: Three

    @property
    def tap_count(self) -> int:
        """Taps."""
        return self.kernel[0] * self.kernel[1] * self.kernel[2]


class Context(NamedTuple):
    """What all jobs of a node share."""

    dt: dtype
    unique: Hashable
    bits: int
    jobs: list[Job]

    @property
    def width(self) -> int:
        """Lanes of a vector."""
        return self.bits // (8 * self.dt.itemsize)


def image_copy(ctx: Context, name: str, copy: Copy) -> Image:
    """A copy of images: element (i, j, p, k) is x[(i, j, k) * step + (0, 0, p) - lo], 0 outside. :func:`made` makes it."""
    row = copy.phases * copy.size[2]
    plane = copy.size[1] * row
    volume = copy.size[0] * plane
    return Image((ctx.unique, name), 0, copy.shape[1] * volume, copy.per * volume, volume, plane, row, copy.size[2], copy)


def made(ctx: Context, image: Image) -> Image:
    """The image after the job of its copy, if there is one to make."""
    if image.copy is None:
        return image
    x, (n, c, d, h, w), _, size, lo, step, phases = image.copy
    symbol, text = conv_pack.image_kernel(ctx.dt.name, ctx.width, step[2] if step[2] <= 2 else 0)
    numbers = (n * c, d, h, w, size[0], size[1], phases, size[2], *lo, *step)
    ctx.jobs.append(Job(symbol, text, [x, image.key], numbers, {x}, {image.key}, work=n * image.n // 4,
                        own={image.key: n * image.n * ctx.dt.itemsize}))
    return image._replace(copy=None)


def sum_jobs(ctx: Context, t: Taps, image: Image, source: Filter, target: Target, name: str) -> None:
    """The jobs of one sum over taps: pack the filter, then the kernel."""
    width = ctx.width
    plan = rows_plan(ctx, t)
    if plan is not None:
        _rows(ctx, t, plan, image, source, target, name)
        return
    rows, cols, vectors = _tile(t, width, ctx.bits)[1]
    block = width * vectors
    tiles = -(-t.lanes // block)
    key = _packed_filter(ctx, t, source, tiles, block) if t.red else source.key  # nothing is read from it
    kd, kh, kw = t.kernel
    unrolled = _unrolled(kw, rows * cols, vectors, ctx.bits)
    pitch = target.x if rows == 1 and target.x <= width // 2 or target.x == 1 and target.y == cols else 0
    tasks = t.n * t.size[0] * t.groups * tiles
    y_blocks = max(1, min(-(-t.size[1] // rows), TASKS // tasks))
    w_c = source.taps * block
    filter_bytes = t.groups * tiles * t.red * t.tap_count * block * ctx.dt.itemsize
    fused = copies_itself(ctx, t, image, filter_bytes)
    if not fused:
        image = made(ctx, image)
    shape = conv_lanes.Shape(rows, cols, vectors, t.step[2], unrolled, t.tap[2] if kw > 1 else 1,
                             source.strides[5] if kw > 1 else 1, kd != 1, kh != 1, kw != unrolled, pitch, fused)
    symbol, text = conv_lanes.lanes_kernel(ctx.dt.name, width, shape)
    numbers = (t.n, t.groups, tiles, y_blocks, *t.size, t.red, kd, kh, kw // unrolled, image.n, image.g, image.c,
               t.tap[0] * image.plane, t.step[0] * image.plane, t.tap[1] * image.row, t.step[1] * image.row, image.offset,
               t.red * w_c, w_c, source.strides[3] * block, source.strides[4] * block, source.offset * block, *target[2:],
               target.offset, t.lanes, int(filter_bytes > FILTER_IN_CACHE))
    work = tasks * block * t.size[1] * t.size[2] * max(1, t.red * t.tap_count) // 4
    _append(ctx, symbol, text, image, key, target, numbers, t.red, work, fused)


def copy_numbers(image: Image) -> tuple[int, ...]:
    """The words ``conv_pack.COPY_WORDS`` of a plain copy."""
    assert image.copy is not None
    _, (_, c, _, h, w), per, size, lo, _, _ = image.copy
    copied = (max(0, min(h, size[1] - lo[1])), max(0, min(w, size[2] - lo[2])))
    return c * h * w, per * h * w, h, w, *copied, image.row, image.plane, lo[1] * image.row + lo[2]


def plain(image: Image) -> bool:
    """Whether a copy only adds a border to planes."""
    copy = image.copy
    return (copy is not None and copy.phases == 1 and copy.step == (1, 1, 1) and copy.size[0] == copy.shape[2] == 1
            and copy.lo[0] == 0 and min(copy.lo) >= 0)


def copies_itself(ctx: Context, t: Taps, image: Image, filter_bytes: int) -> bool:
    """Whether a kernel copies images one by one into its scratch memory: plain copies that fit the cache beside the filter,
    and enough of them for threads to share."""
    return (plain(image) and t.size[0] == t.kernel[0] == 1 and t.n * t.groups >= TASKS and t.red > 0
            and t.red * image.plane * ctx.dt.itemsize + filter_bytes <= BOTH_IN_CACHE)


def _packed_filter(ctx: Context, t: Taps, source: Filter, tiles: int, block: int) -> Hashable:
    """The whole filter as [group, tile, summed channel, tap, lane]; packed once for all kernels of a node that want it."""
    key: Hashable = (ctx.unique, "w", block)
    if any(key in job.own for job in ctx.jobs):
        return key
    sg, sl, sr = source.strides[:3]
    red, length = (1, t.red * source.taps) if sr == source.taps else (t.red, source.taps)
    count = t.groups * tiles * t.red * source.taps * block
    symbol, text = conv_pack.channels_kernel(ctx.dt.name, ctx.width)
    numbers = (t.groups, tiles, t.lanes, red, length, block, PACK_CHUNK, sg, sl, sr)
    ctx.jobs.append(Job(symbol, text, [source.key, key], numbers, {source.key}, {key}, work=count // 2,
                        own={key: count * ctx.dt.itemsize}))
    return key


def _unrolled(kw: int, positions: int, vectors: int, bits: int) -> int:
    """Filter columns written out: all, if the broadcasts that neighbouring columns share fit the registers; else one."""
    fit = (positions + 1) * vectors + positions <= (32 if bits == 512 else 16)
    return kw if kw <= TAPS_UNROLLED and vectors > 1 and fit else 1


def _tile(t: Taps, width: int, bits: int) -> tuple[float, tuple[int, int, int]]:
    """Rows, columns and vectors of a tile: the fewest cycles for the whole output, counted by a simple model.

    A step issues two multiply-adds or two loads per cycle and cannot be shorter than a chain of two latencies allows. Then
    vectors are transposed and stored; parts of cache lines cost more.
    """
    _, a, b = t.size
    registers = 32 if bits == 512 else 16
    steps = max(1, t.red * t.tap_count)
    best: tuple[float, tuple[int, int, int]] | None = None
    for vectors in (1, 2, 3, 4):
        tiles = -(-t.lanes // (width * vectors))
        for rows in range(1, 5):
            for cols in range(1, registers // vectors + 1):
                p = rows * cols
                if p * vectors + vectors + 1 > registers - 2 * (vectors == 1) or cols > b or rows > a:
                    continue
                if rows > 1 and cols < b:
                    continue
                cycles = max(p * vectors / 2, (p + vectors) * 0.55, 4.0) + 0.25
                if t.kernel[2] > 1 and _unrolled(t.kernel[2], p, vectors, bits) == 1:
                    cycles += 0.5
                stores = vectors * -(-p // width) * width * (3 if p % width == 0 else 4)
                cost = tiles * -(-a // rows) * -(-b // cols) * (steps * cycles + stores)
                if best is None or cost < best[0] - 1e-9:
                    best = cost, (rows, cols, vectors)
    assert best is not None
    return best


def _rows(ctx: Context, t: Taps, plan: tuple[int, int, int], image: Image, source: Filter, target: Target,
          name: str) -> None:
    """The jobs of a sum over taps with positions in the lanes."""
    rows, vectors, block = plan
    tiles = -(-t.lanes // block)
    key: Hashable = (ctx.unique, name)
    kd, kh, kw = t.kernel
    if t.red:
        count = t.groups * tiles * t.red * t.tap_count * block
        symbol, text = conv_rows.filter_rows_kernel(ctx.dt.name, block)
        sizes = (source.offset, t.groups, tiles, t.lanes, t.red, *t.kernel, *source.strides)
        ctx.jobs.append(Job(symbol, text, [source.key, key], sizes, {source.key}, {key}, work=count,
                            own={key: count * ctx.dt.itemsize}))
    else:
        key = source.key  # nothing is read from it
    fused = tiles <= 2 and copies_itself(ctx, t, image, 0)
    if not fused:
        image = made(ctx, image)
    unrolled = kw if kw <= TAPS_UNROLLED else 1
    shape = conv_rows.Shape(rows, vectors, block, t.step[2], unrolled, t.tap[2] if kw > 1 else 1, kd != 1, target.x == 1, fused)
    symbol, text = conv_rows.rows_kernel(ctx.dt.name, ctx.width, shape)
    tasks = t.n * t.size[0] * t.groups * tiles
    y_blocks = max(1, min(-(-t.size[1] // rows), TASKS // tasks))
    numbers = (t.n, t.groups, tiles, y_blocks, *t.size, t.red, kd, kh, kw // unrolled, image.n, image.g, image.c,
               t.tap[0] * image.plane, t.step[0] * image.plane, t.tap[1] * image.row, t.step[1] * image.row, image.offset,
               image.phase, *target[2:], target.offset, t.lanes)
    work = tasks * block * t.size[1] * t.size[2] * max(1, t.red * t.tap_count) // 4
    _append(ctx, symbol, text, image, key, target, numbers, t.red, work, fused)


def _append(ctx: Context, symbol: str, text: str, image: Image, key: Hashable, target: Target, numbers: tuple[int, ...],
            channels: int, work: int, fused: bool) -> None:
    """The job of a kernel; a ``fused`` one reads the raw image and has scratch memory for its copy of ``channels``."""
    if not fused:
        ctx.jobs.append(Job(symbol, text, [image.key, key, target.key], numbers, {image.key, key}, {target.key}, work=work))
        return
    assert image.copy is not None
    raw = image.copy.key
    scratch = -(-channels * image.plane * ctx.dt.itemsize // 64) * 64
    more = (*copy_numbers(image), scratch)
    ctx.jobs.append(Job(symbol, text, [raw, key, target.key, "scratch"], (*numbers, *more), {raw, key}, {target.key}, scratch,
                        work))


def rows_plan(ctx: Context, t: Taps) -> tuple[int, int, int] | None:
    """Rows, vectors and channels of a tile with positions in the lanes; None where channels in the lanes are better."""
    if t.lanes > ctx.width or t.step[2] > 1 and t.kernel[2] > TAPS_UNROLLED:
        return None
    (_, a, b), registers = t.size, 32 if ctx.bits == 512 else 16
    steps = max(1, t.red * t.tap_count)
    best: tuple[float, tuple[int, int, int] | None] = _tile(t, ctx.width, ctx.bits)[0], None
    for block in range(1, min(t.lanes, 8) + 1):
        for rows in range(1, min(a, 8) + 1):
            for vectors in range(1, min(4, -(-b // ctx.width)) + 1):
                p = rows * vectors
                if p * block + block + 1 >= registers:
                    continue
                cycles = max(p * block / 2, p + block / 2, 4.0) + 0.25  # loads of rows cross cache lines
                cost = -(-t.lanes // block) * -(-a // rows) * -(-b // (ctx.width * vectors)) * (steps * cycles + p * block)
                if cost < best[0] - 1e-9:
                    best = cost, (rows, vectors, block)
    return best[1]
