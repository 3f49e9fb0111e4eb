"""Convolutions and their two gradients as jobs of direct kernels: no patch matrix is ever made.

``conv`` and ``conv_input_grad`` are the same sum over taps (conv_plan.py): the gradient to the input is, for every residue
class of positions modulo the stride, a convolution with stride 1 of the padded output gradient with some of the filter's
taps in reverse order. Images get a border of zeros in a copy unless there is none to add; a border times an infinite weight
is NaN, as in the NumPy row.

Everything has three axes; fewer are sizes of 1 in front. 16-bit floats are computed in float32 and rounded once, as in the
NumPy row. More axes and empty operands are left to NumPy. Every element of a result is one chain of fused multiply-adds (or
a fixed number of chains, for the gradient to the filter) in an order that depends on sizes alone.
"""
from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import product
from math import gcd, prod
from typing import Any, NamedTuple

from ...dtypes import bfloat16, dtype, float16, float32, float64
from ...ir.node import Aval
from . import conv_dots, conv_pack, conv_weight
from .conv_plan import (
    BOTH_IN_CACHE,
    PACK_CHUNK,
    TAPS_UNROLLED,
    TASKS,
    Context,
    Copy,
    Filter,
    Image,
    Taps,
    Target,
    Three,
    copy_numbers,
    image_copy,
    made,
    plain,
    rows_plan,
    sum_jobs,
)
from .gemm_pack import sum_kernel
from .jobs import Job

CHUNK = 32 << 10  # bytes of a packed gradient that stay in the first-level cache
SMALL_COPY = 2 << 10  # bytes of a copy below which reading it at once waits for its stores
HALF = (float16, bfloat16)


class _Geometry(NamedTuple):
    """A three-dimensional convolution: x is (n, c, *size), the result (n, o, *out), the filter (o, c / groups, *kernel)."""

    n: int
    c: int
    size: Three
    o: int
    out: Three
    kernel: Three
    stride: Three
    lo: Three
    dilation: Three
    groups: int


def conv_jobs(op: str, attrs: Any, avals_in: Sequence[Aval], aval_out: Aval, in_keys: Sequence[Hashable], out_key: Hashable,
              unique: Hashable, vector_bits: int) -> list[Job] | None:
    """Jobs, in order, of ``conv``, ``conv_input_grad`` or ``conv_weight_grad``; None where only NumPy can.

    Operands and result are contiguous (N, C, *S) and (O, C/groups, *K). ``unique`` names the jobs' own buffers.
    """
    dt = aval_out.dtype
    if dt not in (float32, float64, *HALF) or len(attrs[0]) > 3 or any(a.size == 0 for a in (*avals_in, aval_out)):
        return None
    x, w, y = {"conv": (avals_in[0], avals_in[1], aval_out), "conv_input_grad": (aval_out, avals_in[1], avals_in[0]),
               "conv_weight_grad": (avals_in[0], aval_out, avals_in[1])}[op]
    z = _geometry(attrs, x.shape, w.shape, y.shape)
    ctx = Context(float32 if dt in HALF else dt, unique, vector_bits, [])
    build = {"conv": _forward, "conv_input_grad": _input_grad, "conv_weight_grad": _weight_grad}[op]
    if dt not in HALF:
        build(ctx, z, in_keys[0], in_keys[1], out_key)
        return ctx.jobs
    wide = [_converted(ctx, key, (unique, "wide", k), a.size, dt, float32) for k, (key, a) in enumerate(zip(in_keys, avals_in))]
    result: Hashable = (unique, "result")
    build(ctx, z, wide[0], wide[1], result)
    ctx.jobs[-1].own[result] = 4 * aval_out.size
    _converted(ctx, result, out_key, aval_out.size, float32, dt)
    return ctx.jobs


def _converted(ctx: Context, src: Hashable, dst: Hashable, count: int, old: dtype, new: dtype) -> Hashable:
    """The job that changes the dtype of ``count`` elements; returns ``dst``."""
    symbol, text = conv_pack.convert_kernel(old.name, new.name, ctx.width)
    own = {dst: count * new.itemsize} if new is float32 else {}
    ctx.jobs.append(Job(symbol, text, [src, dst], (count,), {src}, {dst}, work=count // 4, own=own))
    return dst


def _geometry(attrs: Any, x: tuple[int, ...], w: tuple[int, ...], y: tuple[int, ...]) -> _Geometry:
    def three(values: Sequence[int], fill: int) -> Three:
        a, b, c = [fill] * (3 - len(values)) + list(values)
        return a, b, c

    stride, lo, _, dilation, groups = attrs[:5]
    return _Geometry(x[0], x[1], three(x[2:], 1), w[0], three(y[2:], 1), three(w[2:], 1), three(stride, 1), three(lo, 0),
                     three(dilation, 1), groups)


def _whole(key: Hashable, channels: int, groups: int, size: Three) -> Image:
    """A contiguous image as it is."""
    volume = prod(size)
    return Image(key, 0, channels * volume, channels // groups * volume, volume, size[1] * size[2], size[2])


# ------------------------------------------------------------------------------------------------------------- forward
def _forward(ctx: Context, z: _Geometry, x: Hashable, w: Hashable, out: Hashable) -> None:
    per, volume = z.c // z.groups, prod(z.out)
    taps = Taps(z.n, z.groups, z.o // z.groups, per, z.out, z.kernel, z.stride, z.dilation)
    target = Target(out, 0, z.o * volume, volume, z.out[1] * z.out[2], z.out[2], 1)
    few = rows_plan(ctx, taps) is not None
    if z.kernel == (1, 1, 1) and (few or z.stride == (1, 1, 1)):  # take the positions that are used, then one long row
        if z.stride != (1, 1, 1) or z.lo != (0, 0, 0) or z.out != z.size:
            image = image_copy(ctx, "x", Copy(x, (z.n, z.c, *z.size), per, z.out, z.lo, z.stride, 1))
        else:
            image = _whole(x, z.c, z.groups, z.size)
        taps = taps._replace(size=(1, 1, volume), step=(1, 1, 1))
    else:
        image = _bordered(ctx, z, x, z.stride[2] if few else 1)
    inner = prod(z.kernel)
    strides = (taps.lanes * per * inner, per * inner, inner, z.kernel[1] * z.kernel[2], z.kernel[2], 1)
    sum_jobs(ctx, taps, image, Filter(w, 0, strides, inner), target, "w")


def _bordered(ctx: Context, z: _Geometry, x: Hashable, phases: int = 1) -> Image:
    """x with the zeros around it that windows reach, columns sorted by residues modulo ``phases``; or x itself if it serves."""
    need = [(o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip(z.out, z.stride, z.kernel, z.dilation)]
    if phases == 1 and z.lo == (0, 0, 0) and all(a <= b for a, b in zip(need, z.size)):
        return _whole(x, z.c, z.groups, z.size)
    size = (need[0], need[1], -(-need[2] // phases))
    return image_copy(ctx, "x", Copy(x, (z.n, z.c, *z.size), z.c // z.groups, size, z.lo, (1, 1, phases), phases))


# ------------------------------------------------------------------------------------------------- gradient to the input
class _Class(NamedTuple):
    """Positions p, p + s, ... of one axis: how many, taps that reach them, and what each tap reads.

    Tap number t (of ``taps``) is the filter's element ``first`` - t * ``skip`` and reads gradient position + ``at`` + t *
    ``tap``: taps are in order of what they read.
    """

    start: int
    length: int
    taps: int
    first: int
    skip: int
    at: int
    tap: int


def _classes(size: int, k: int, s: int, lo: int, d: int) -> list[_Class]:
    out = []
    g = gcd(d, s)
    for p in range(min(s, size)):
        live = [t for t in range(k) if (p + lo - t * d) % s == 0]
        count = -(-(size - p) // s)
        at = (p + lo - live[-1] * d) // s if live else 0
        out.append(_Class(p, count, len(live), live[-1] if live else 0, s // g, at, d // g))
    return out


def _input_grad(ctx: Context, z: _Geometry, g: Hashable, w: Hashable, out: Hashable) -> None:
    axes = [_classes(*q) for q in zip(z.size, z.kernel, z.stride, z.lo, z.dilation)]
    border, need = [], []
    for classes in axes:
        live = [q for q in classes if q.taps]
        border.append(max([0, *[-q.at for q in live]]))
        need.append(border[-1] + max([1, *[q.length + q.at + (q.taps - 1) * q.tap for q in live]]))
    if border == [0, 0, 0] and all(a <= b for a, b in zip(need, z.out)):
        image = _whole(g, z.o, z.groups, z.out)
    else:
        size, lo = (need[0], need[1], need[2]), (border[0], border[1], border[2])
        image = image_copy(ctx, "g", Copy(g, (z.n, z.o, *z.out), z.o // z.groups, size, lo, (1, 1, 1), 1))
        if prod(z.stride) > 1:  # several kernels read it
            image = made(ctx, image)
    for classes3 in product(*axes):
        _input_grad_class(ctx, z, image, (border[0], border[1], border[2]), classes3, g, w, out)


def _input_grad_class(ctx: Context, z: _Geometry, image: Image, border: Three, classes: tuple[_Class, ...], g: Hashable,
                      w: Hashable, out: Hashable) -> None:
    """The positions of one residue class per axis."""
    q0, q1, q2 = classes
    lanes, per, volume, inner = z.c // z.groups, z.o // z.groups, prod(z.size), prod(z.kernel)
    pitch = (z.size[1] * z.size[2], z.size[2], 1)
    filter_pitch = (z.kernel[1] * z.kernel[2], z.kernel[2], 1)
    live = all(q.taps for q in classes)  # else these positions are zero
    taps = Taps(z.n, z.groups, lanes, per if live else 0, (q0.length, q1.length, q2.length),
                (q0.taps, q1.taps, q2.taps) if live else (1, 1, 1), (1, 1, 1), (q0.tap, q1.tap, q2.tap))
    start = sum(q.start * p for q, p in zip(classes, pitch))
    target = Target(out, start, z.c * volume, volume, z.stride[0] * pitch[0], z.stride[1] * pitch[1], z.stride[2])
    source = Filter(w, sum(q.first * p for q, p in zip(classes, filter_pitch)),
                    (per * lanes * inner, inner, lanes * inner, -q0.skip * filter_pitch[0], -q1.skip * filter_pitch[1],
                     -q2.skip), inner)
    at = sum((b + q.at) * p for b, q, p in zip(border, classes, (image.plane, image.row, 1))) if live else 0
    if live and taps.kernel == (1, 1, 1) and image.key is g and z.stride == (1, 1, 1) and z.size == z.out:
        taps = taps._replace(size=(1, 1, volume))
    name = "w" + ",".join(str(q.start) for q in classes)
    sum_jobs(ctx, taps, image._replace(offset=image.offset + at), source, target, name)


# ------------------------------------------------------------------------------------------------ gradient to the filter
def _weight_grad(ctx: Context, z: _Geometry, x: Hashable, g: Hashable, out: Hashable) -> None:
    """The jobs: both operands packed, sums of every part of the images, parts added and turned into the filter's layout."""
    lanes, volume, size = z.o // z.groups, prod(z.out), ctx.dt.itemsize
    kd, kh, kw = z.kernel
    rows_all = z.c // z.groups * kd * kh
    cost, (rows, cols, vectors) = _sums_tile(lanes, rows_all, kw, ctx.width, ctx.bits)
    dots = _dots_tile(z, ctx.width, ctx.bits, cost * z.out[2])
    if dots is not None:
        _weight_grad_dots(ctx, z, dots, x, g, out)
        return
    image = _bordered(ctx, z, x)
    block = ctx.width * vectors
    tiles = -(-lanes // block)
    packed: Hashable = (ctx.unique, "gradient")
    symbol, text = conv_pack.channels_kernel(ctx.dt.name, ctx.width)
    matrices, planes = z.n * z.groups, z.n * z.out[0]
    numbers: tuple[int, ...] = (matrices, tiles, lanes, 1, volume, block, PACK_CHUNK, lanes * volume, volume, 0)
    ctx.jobs.append(Job(symbol, text, [g, packed], numbers, {g}, {packed}, work=matrices * tiles * volume * block // 4,
                        own={packed: matrices * tiles * volume * block * size}))
    row_tiles = -(-rows_all // rows)
    row_blocks = max(1, min(row_tiles, TASKS // (z.groups * tiles)))
    per_part = -(-planes // max(1, min(planes, TASKS // (z.groups * tiles * row_blocks))))
    parts = -(-planes // per_part)
    line = z.out[2] * block * size
    y_chunk = max(1, min(z.out[1], CHUNK // line))
    n_chunk = max(1, CHUNK // (line * z.out[1]))
    span = -(-row_tiles // row_blocks) * rows  # rows of a task; they may begin inside a channel
    channels = min(z.c // z.groups, (span - 2) // kh + 2)
    scratch = -(-n_chunk * channels * image.plane * size // 64) * 64
    fused = (plain(image) and z.out[0] == kd == 1 and scratch <= BOTH_IN_CACHE
             and tiles <= 2)  # how often an image is copied
    if not fused:
        image = made(ctx, image)
    sums: Hashable = (ctx.unique, "sums")
    count = z.groups * tiles * row_tiles * rows * kw * block
    shape = conv_weight.Shape(rows, cols, vectors, z.stride[2], z.dilation[2] if kw > 1 else 1, fused)
    symbol, text = conv_weight.sums_kernel(ctx.dt.name, ctx.width, shape)
    numbers = (parts, per_part, z.groups, tiles, row_blocks, z.n, *z.out, rows_all, kd, kh, kw, n_chunk, y_chunk, image.n,
               image.g, image.c, z.dilation[0] * image.plane, z.stride[0] * image.plane, z.dilation[1] * image.row,
               z.stride[1] * image.row, image.offset)
    pointers = [image.key, packed, sums]
    if fused:
        assert image.copy is not None
        numbers = (*numbers, *copy_numbers(image), channels, scratch)
        pointers = [image.copy.key, packed, sums, "scratch"]
    ctx.jobs.append(Job(symbol, text, pointers, numbers, {pointers[0], packed}, {sums}, fused * scratch,
                        count * z.n * volume // 4, own={sums: parts * count * size}))
    symbol, text = conv_weight.gather_kernel(ctx.dt.name, ctx.width)
    numbers = (parts, z.groups, tiles, lanes, rows_all * kw, row_tiles * rows * kw, block)
    ctx.jobs.append(Job(symbol, text, [sums, out], numbers, {sums}, {out}, work=parts * count // 4))


def _sums_tile(lanes: int, rows_all: int, kw: int, width: int, bits: int) -> tuple[float, tuple[int, int, int]]:
    """Rows, columns and vectors of a tile of the filter's gradient, by the model of conv_plan.py, and cycles per position."""
    budget, registers = (28, 32) if bits == 512 else (12, 16)
    best: tuple[float, tuple[int, int, int]] | None = None
    for vectors in (4, 3, 2, 1):
        for cols in [k for k in range(min(kw, budget // vectors), 0, -1) if kw % k == 0]:
            for rows in range(1, min(rows_all, 8, budget // (cols * vectors)) + 1):
                p = rows * cols
                if p * vectors + vectors + 1 > registers:
                    continue
                cycles = max(p * vectors / 2, (p + vectors) / 2, 4.0) + 0.25
                cost = -(-lanes // (width * vectors)) * (-(-rows_all // rows) * -(-kw // cols) * cycles + 6 * vectors)
                if best is None or cost < best[0] - 1e-9:
                    best = cost, (rows, cols, vectors)
    assert best is not None
    return best


def _weight_grad_dots(ctx: Context, z: _Geometry, tile: Three, x: Hashable, g: Hashable, out: Hashable) -> None:
    """The jobs with positions in the lanes: sums of every part of the images, then their sum."""
    lanes, (kd, kh, kw), (each, rows, cols) = z.o // z.groups, z.kernel, tile
    image = _bordered(ctx, z, x, z.stride[2])
    rows_all, planes = z.c // z.groups * kd * kh, z.n * z.out[0]
    tiles, row_tiles = -(-lanes // each), -(-rows_all // rows)
    per_part = -(-planes // max(1, min(planes, TASKS // (z.groups * tiles * row_tiles))))
    parts = -(-planes // per_part)
    count = z.o * rows_all * kw
    sums: Hashable = (ctx.unique, "sums") if parts > 1 else out
    scratch = -(-z.c // z.groups * image.plane * ctx.dt.itemsize // 64) * 64
    fused = (plain(image) and z.out[0] == kd == 1 and tiles * row_tiles * -(-kw // cols) <= 2
             and SMALL_COPY <= scratch <= BOTH_IN_CACHE)
    if not fused:
        image = made(ctx, image)
    shape = conv_dots.Shape(each, rows, cols, z.stride[2], z.dilation[2] if kw > 1 else 1, fused)
    symbol, text = conv_dots.dots_kernel(ctx.dt.name, ctx.width, shape)
    numbers: tuple[int, ...] = (parts, per_part, z.groups, tiles, row_tiles, z.n, *z.out, lanes, rows_all, kd, kh, kw, image.n,
                                image.g, image.c, z.dilation[0] * image.plane, z.stride[0] * image.plane,
                                z.dilation[1] * image.row, z.stride[1] * image.row, image.offset, image.phase)
    own = {sums: parts * count * ctx.dt.itemsize} if parts > 1 else {}
    pointers = [image.key, g, sums]
    if fused:
        assert image.copy is not None
        numbers = (*numbers, *copy_numbers(image), z.c // z.groups, scratch)
        pointers = [image.copy.key, g, sums, "scratch"]
    ctx.jobs.append(Job(symbol, text, pointers, numbers, {pointers[0], g}, {sums}, fused * scratch,
                        count * z.n * prod(z.out) // 4, own=own))
    if parts > 1:
        symbol, text = sum_kernel(ctx.dt.name, ctx.dt.name, ctx.bits)
        ctx.jobs.append(Job(symbol, text, [out, sums], (count, parts), {sums}, {out}, work=parts * count // 4))


def _dots_tile(z: _Geometry, width: int, bits: int, limit: float) -> Three | None:
    """Channels, rows and columns of a tile with positions in the lanes; None where ``limit`` cycles for a row are fewer."""
    lanes, (kd, kh, kw), registers = z.o // z.groups, z.kernel, 32 if bits == 512 else 16
    rows_all, together = z.c // z.groups * kd * kh, z.stride[2] > 1
    if lanes > width or kw > TAPS_UNROLLED and together:
        return None
    best: tuple[float, Three | None] = limit, None
    for cols in range(kw if together else 1, min(kw, TAPS_UNROLLED) + 1):
        for each in range(1, min(lanes, 6) + 1):
            for rows in range(1, min(rows_all, 8) + 1):
                p = rows * cols
                if p * each + each + 1 > registers:
                    continue
                cycles = max(p * each / 2, p + each, 4.0) + 0.5  # loads of rows cross cache lines
                row = -(-z.out[2] // width) * cycles + rows + each
                cost = -(-lanes // each) * -(-rows_all // rows) * -(-kw // cols) * row
                if cost < best[0] - 1e-9:
                    best = cost, (each, rows, cols)
    return best[1]
