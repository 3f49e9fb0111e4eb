"""Convolutions and their two gradients as jobs of direct kernels: no patch matrix is ever made.

``conv`` and ``conv_input_grad`` are the same sum over taps (:class:`_Taps`): the gradient to the input is, for every residue
class of positions modulo the stride, a convolution with stride 1 of the padded output gradient with some of the filter's
taps in reverse order. ``conv_weight_grad`` is in conv_weight.py. Images get a border of zeros in a copy unless there is
none to add; a border times an infinite weight is NaN, as in the NumPy row.

One axis is two with a height of 1. Other numbers of axes, other dtypes than float32 and float64 and empty operands are left
to NumPy. Every element of a result is one chain of fused multiply-adds in an order that depends on sizes alone.
"""
from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import gcd
from typing import Any, NamedTuple

from ...dtypes import dtype, float32, float64
from ...ir.node import Aval
from . import conv_lanes, conv_pack, conv_rows, conv_weight
from .jobs import Job

TAPS_UNROLLED = 7  # filter columns up to which a row of the filter is written out
FILTER_IN_CACHE = 1 << 19  # bytes of a packed filter that stay in the second-level cache beside an image
CHUNK = 24 << 10  # bytes of a packed gradient that stay in the first-level cache
PACK_CHUNK = 256  # positions of a copy that one task moves
TASKS = 16  # what a job is cut into at least, for threads


class _Geometry(NamedTuple):
    """A two-dimensional convolution: sizes of x (n, c, h, w), of the result (o, oh, ow), of the filter, its attributes."""

    n: int
    c: int
    h: int
    w: int
    o: int
    oh: int
    ow: int
    kh: int
    kw: int
    stride: tuple[int, int]
    lo: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


class _Image(NamedTuple):
    """An input of a kernel: key, first element, strides of image, group, channel, row, and of columns' residues."""

    key: Hashable
    offset: int
    n: int
    g: int
    c: int
    row: int
    phase: int = 0


class _Filter(NamedTuple):
    """Where a kernel's filter comes from: first tap, strides of group, lane, summed channel, row, column; taps of a channel."""

    key: Hashable
    offset: int
    strides: tuple[int, int, int, int, int]
    taps: int


class _Target(NamedTuple):
    """Where results go: key, first element, strides of image, channel, row, column."""

    key: Hashable
    offset: int
    n: int
    o: int
    y: int
    x: int


class _Taps(NamedTuple):
    """out[n, o, y, x] = sum over c, i, j of image[n, c, y * step_y + i * tap_y, x * step_x + j * tap_x] * filter."""

    n: int
    groups: int
    lanes: int  # output channels of a group
    red: int  # summed channels of a group
    size: tuple[int, int]  # of the output
    kernel: tuple[int, int]
    step: tuple[int, int]
    tap: tuple[int, int]


class _Context(NamedTuple):
    """What all jobs of a node share."""

    dt: dtype
    unique: Hashable
    bits: int
    jobs: list[Job]

    @property
    def width(self) -> int:
        """Lanes of a vector."""
        return self.bits // (8 * self.dt.itemsize)


def conv_jobs(op: str, attrs: Any, avals_in: Sequence[Aval], aval_out: Aval, in_keys: Sequence[Hashable], out_key: Hashable,
              unique: Hashable, vector_bits: int) -> list[Job] | None:
    """Jobs, in order, of ``conv``, ``conv_input_grad`` or ``conv_weight_grad``; None where only NumPy can.

    Operands and result are contiguous (N, C, *S) and (O, C/groups, *K). ``unique`` names the jobs' own buffers.
    """
    dt = aval_out.dtype
    spatial = len(attrs[0])
    if dt not in (float32, float64) or spatial not in (1, 2) or any(a.size == 0 for a in (*avals_in, aval_out)):
        return None
    ctx = _Context(dt, unique, vector_bits, [])
    x, w, y = {"conv": (avals_in[0], avals_in[1], aval_out), "conv_input_grad": (aval_out, avals_in[1], avals_in[0]),
               "conv_weight_grad": (avals_in[0], aval_out, avals_in[1])}[op]
    z = _geometry(attrs, x.shape, w.shape, y.shape)
    if op == "conv":
        _forward(ctx, z, in_keys[0], in_keys[1], out_key)
    elif op == "conv_input_grad":
        _input_grad(ctx, z, in_keys[0], in_keys[1], out_key)
    else:
        _weight_grad(ctx, z, in_keys[0], in_keys[1], out_key)
    return ctx.jobs


def _geometry(attrs: Any, x: tuple[int, ...], w: tuple[int, ...], y: tuple[int, ...]) -> _Geometry:
    stride, lo, _, dilation, groups = attrs[:5]
    if len(stride) == 1:
        stride, lo, dilation = (1, *stride), (0, *lo), (1, *dilation)
        x, w, y = ((*s[:2], 1, s[2]) for s in (x, w, y))
    return _Geometry(x[0], x[1], x[2], x[3], w[0], y[2], y[3], w[2], w[3], (stride[0], stride[1]), (lo[0], lo[1]),
                     (dilation[0], dilation[1]), groups)


# ------------------------------------------------------------------------------------------------------------- forward
def _forward(ctx: _Context, z: _Geometry, x: Hashable, w: Hashable, out: Hashable) -> None:
    per = z.c // z.groups
    taps = _Taps(z.n, z.groups, z.o // z.groups, per, (z.oh, z.ow), (z.kh, z.kw), z.stride, z.dilation)
    area = z.oh * z.ow
    target = _Target(out, 0, z.o * area, area, z.ow, 1)
    few = _rows_plan(ctx, taps) is not None
    if z.kh == z.kw == 1 and (few or z.stride == (1, 1)):  # take the positions that are used, then one long row
        if z.stride != (1, 1) or z.lo != (0, 0) or (z.oh, z.ow) != (z.h, z.w):
            image = _packed(ctx, x, (z.n, z.c, z.h, z.w), per, (z.oh, z.ow), z.lo, z.stride, "x")
        else:
            image = _Image(x, 0, z.c * area, per * area, area, z.ow)
        taps = taps._replace(size=(1, area), step=(1, 1))
        target = target._replace(y=area)
    else:
        image = _bordered(ctx, z, x, z.stride[1] if few else 1)
    inner = z.kh * z.kw
    source = _Filter(w, 0, (taps.lanes * per * inner, per * inner, inner, z.kw, 1), inner)
    _taps(ctx, taps, image, source, target, "w")


def _bordered(ctx: _Context, z: _Geometry, x: Hashable, phases: int = 1) -> _Image:
    """x with the zeros around it that windows reach, columns sorted by residues modulo ``phases``; or x itself if it serves."""
    need = [(o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip((z.oh, z.ow), z.stride, (z.kh, z.kw), z.dilation)]
    per = z.c // z.groups
    if phases == 1 and z.lo == (0, 0) and need[0] <= z.h and need[1] <= z.w:
        return _Image(x, 0, z.c * z.h * z.w, per * z.h * z.w, z.h * z.w, z.w)
    return _packed(ctx, x, (z.n, z.c, z.h, z.w), per, (need[0], -(-need[1] // phases)), z.lo, (1, phases), "x", phases)


def _packed(ctx: _Context, x: Hashable, shape: tuple[int, int, int, int], per: int, size: tuple[int, int], lo: tuple[int, int],
            step: tuple[int, int], name: str, phases: int = 1) -> _Image:
    """A copy of images: element (i, p, j) is x[i * step - lo, j * step + p - lo], 0 outside."""
    n, c, h, w = shape
    key = (ctx.unique, name)
    symbol, text = conv_pack.image_kernel(ctx.dt.name, ctx.width, step[1] == 1)
    row = phases * size[1]
    area = size[0] * row
    numbers = (n * c, h, w, size[0], phases, size[1], lo[0], lo[1], step[0], step[1])
    ctx.jobs.append(Job(symbol, text, [x, key], numbers, {x}, {key}, work=n * c * area // 4,
                        own={key: n * c * area * ctx.dt.itemsize}))
    return _Image(key, 0, c * area, per * area, area, row, size[1])


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


def _input_grad(ctx: _Context, z: _Geometry, g: Hashable, w: Hashable, out: Hashable) -> None:
    ys, xs = (_classes(size, k, s, lo, d) for size, k, s, lo, d in
              zip((z.h, z.w), (z.kh, z.kw), z.stride, z.lo, z.dilation))
    border, need = [0, 0], [1, 1]
    for axis, classes in enumerate((ys, xs)):
        live = [q for q in classes if q.taps]
        border[axis] = max([0, *[-q.at for q in live]])
        need[axis] = border[axis] + max([1, *[q.length + q.at + (q.taps - 1) * q.tap for q in live]])
    per = z.o // z.groups
    if border == [0, 0] and need[0] <= z.oh and need[1] <= z.ow:
        area = z.oh * z.ow
        image = _Image(g, 0, z.o * area, per * area, area, z.ow)
    else:
        image = _packed(ctx, g, (z.n, z.o, z.oh, z.ow), per, (need[0], need[1]), (border[0], border[1]), (1, 1), "g")
    lanes, area, inner = z.c // z.groups, z.h * z.w, z.kh * z.kw
    for y in ys:
        for x in xs:
            both = y.taps and x.taps
            kernel = (y.taps, x.taps) if both else (0, 1)
            taps = _Taps(z.n, z.groups, lanes, per if both else 0, (y.length, x.length), kernel, (1, 1), (y.tap, x.tap))
            target = _Target(out, y.start * z.w + x.start, z.c * area, area, z.stride[0] * z.w, z.stride[1])
            source = _Filter(w, y.first * z.kw + x.first, (per * lanes * inner, inner, lanes * inner, -y.skip * z.kw, -x.skip),
                             inner)
            at = (border[0] + y.at) * image.row + border[1] + x.at if both else 0
            if both and kernel == (1, 1) and image.key is g and z.stride == (1, 1) and (z.h, z.w) == (z.oh, z.ow):
                taps, target = taps._replace(size=(1, area)), target._replace(y=area)
            _taps(ctx, taps, image._replace(offset=image.offset + at), source, target, f"w{y.start},{x.start}")


# ------------------------------------------------------------------------------------------------------- sums over taps
def _taps(ctx: _Context, t: _Taps, image: _Image, source: _Filter, target: _Target, name: str) -> None:
    """The jobs of one sum over taps: pack the filter, then the kernel."""
    width = ctx.width
    plan = _rows_plan(ctx, t)
    if plan is not None:
        _rows(ctx, t, plan, image, source, target, name)
        return
    rows, cols, vectors = _tile(t, width, ctx.bits)[1]
    block = width * vectors
    tiles = -(-t.lanes // block)
    key = _packed_filter(ctx, t, source, tiles, block) if t.red else source.key  # nothing is read from it
    kh, kw = t.kernel
    unrolled = kw if kw <= TAPS_UNROLLED and vectors > 1 else 1  # one vector: broadcasts are operands, not kept for other taps
    dense = target.x == 1 and (rows == 1 or target.y == cols)
    shape = conv_lanes.Shape(rows, cols, vectors, t.step[1], unrolled, t.tap[1] if kw > 1 else 1,
                             source.strides[4] if kw > 1 else 1, kh != 1, kw != unrolled,
                             dense)
    symbol, text = conv_lanes.lanes_kernel(ctx.dt.name, width, shape)
    tasks = t.n * t.groups * tiles
    y_blocks = max(1, min(-(-t.size[0] // rows), TASKS // tasks))
    w_c = source.taps * block
    o_outer = t.groups * tiles * t.red * kh * kw * block * ctx.dt.itemsize > FILTER_IN_CACHE
    numbers = (t.n, t.groups, tiles, y_blocks, *t.size, t.red, kh, kw // unrolled, image.n, image.g, image.c,
               t.tap[0] * image.row, t.step[0] * image.row, image.offset, t.red * w_c, w_c,
               source.strides[3] * block, source.offset * block, target.n, target.o, target.y, target.x, target.offset, t.lanes,
               int(o_outer))
    work = t.n * t.groups * tiles * block * t.size[0] * t.size[1] * max(1, t.red * kh * kw) // 4
    ctx.jobs.append(Job(symbol, text, [image.key, key, target.key], numbers, {image.key, key}, {target.key}, work=work))


def _packed_filter(ctx: _Context, t: _Taps, source: _Filter, tiles: int, block: int) -> Hashable:
    """The whole filter as [group, tile, summed channel, tap, lane]; packed once for all kernels of a node that want it."""
    key: Hashable = (ctx.unique, "w", block)
    if any(key in job.own for job in ctx.jobs):
        return key
    sg, sl, sr, _, _ = source.strides
    red, length = (1, t.red * source.taps) if sr == source.taps else (t.red, source.taps)
    count = t.groups * tiles * t.red * source.taps * block
    symbol, text = conv_pack.channels_kernel(ctx.dt.name, ctx.width)
    numbers = (t.groups, tiles, t.lanes, red, length, block, PACK_CHUNK, sg, sl, sr)
    ctx.jobs.append(Job(symbol, text, [source.key, key], numbers, {source.key}, {key}, work=count // 2,
                        own={key: count * ctx.dt.itemsize}))
    return key


def _tile(t: _Taps, width: int, bits: int) -> tuple[float, tuple[int, int, int]]:
    """Rows, columns and vectors of a tile: the fewest cycles for the whole output, counted by a simple model.

    A step issues two multiply-adds or two loads per cycle and cannot be shorter than a chain of two latencies allows.
    """
    a, b = t.size
    budget = 28 if bits == 512 else 12
    best: tuple[float, tuple[int, int, int]] | None = None
    for vectors in (1, 2, 3, 4):
        tiles = -(-t.lanes // (width * vectors))
        for rows in range(1, 5):
            for cols in range(1, budget // vectors + 1):
                p = rows * cols
                if p * vectors > budget or cols > b or rows > a or (rows > 1 and cols < b):
                    continue
                cycles = max(p * vectors / 2, (p + vectors) / 2, 4.0) + 0.25
                cost = tiles * -(-a // rows) * -(-b // cols) * cycles
                if best is None or cost < best[0] - 1e-9:
                    best = cost, (rows, cols, vectors)
    assert best is not None
    return best


def _rows(ctx: _Context, t: _Taps, plan: tuple[int, int, int], image: _Image, source: _Filter, target: _Target,
          name: str) -> None:
    """The jobs of a sum over taps with positions in the lanes."""
    rows, vectors, block = plan
    tiles = -(-t.lanes // block)
    key: Hashable = (ctx.unique, name)
    kh, kw = t.kernel
    if t.red:
        count = t.groups * tiles * t.red * kh * kw * block
        symbol, text = conv_rows.filter_rows_kernel(ctx.dt.name, block)
        sizes = (source.offset, t.groups, tiles, t.lanes, t.red, kh, kw, *source.strides)
        ctx.jobs.append(Job(symbol, text, [source.key, key], sizes, {source.key}, {key}, work=count,
                            own={key: count * ctx.dt.itemsize}))
    else:
        key = source.key  # nothing is read from it
    unrolled = kw if kw <= TAPS_UNROLLED else 1
    shape = conv_rows.Shape(rows, vectors, block, t.step[1], unrolled, t.tap[1] if kw > 1 else 1, target.x == 1)
    symbol, text = conv_rows.rows_kernel(ctx.dt.name, ctx.width, shape)
    tasks = t.n * t.groups * tiles
    y_blocks = max(1, min(-(-t.size[0] // rows), TASKS // tasks))
    numbers = (t.n, t.groups, tiles, y_blocks, *t.size, t.red, kh, kw // unrolled, image.n, image.g, image.c,
               t.tap[0] * image.row, t.step[0] * image.row, image.offset, image.phase, target.n, target.o, target.y, target.x,
               target.offset, t.lanes)
    work = tasks * block * t.size[0] * t.size[1] * max(1, t.red * kh * kw) // 4
    ctx.jobs.append(Job(symbol, text, [image.key, key, target.key], numbers, {image.key, key}, {target.key}, work=work))


def _rows_plan(ctx: _Context, t: _Taps) -> tuple[int, int, int] | None:
    """Rows, vectors and channels of a tile with positions in the lanes; None where channels in the lanes are better."""
    if t.lanes > ctx.width or t.step[1] > 1 and t.kernel[1] > TAPS_UNROLLED:
        return None
    (a, b), registers = t.size, 32 if ctx.bits == 512 else 16
    best: tuple[float, tuple[int, int, int] | None] = _tile(t, ctx.width, ctx.bits)[0], None
    for block in range(1, min(t.lanes, 8) + 1):
        for rows in range(1, min(a, 8) + 1):
            for vectors in range(1, min(4, -(-b // ctx.width)) + 1):
                p = rows * vectors
                if p * block + block + 1 >= registers:
                    continue
                cycles = max(p * block / 2, p + block / 2, 4.0) + 0.25  # loads of rows cross cache lines
                cost = -(-t.lanes // block) * -(-a // rows) * -(-b // (ctx.width * vectors)) * cycles
                if cost < best[0] - 1e-9:
                    best = cost, (rows, vectors, block)
    return best[1]



# ------------------------------------------------------------------------------------------------ gradient to the filter
def _weight_grad(ctx: _Context, z: _Geometry, x: Hashable, g: Hashable, out: Hashable) -> None:
    """The jobs: both operands packed, sums of every part of the images, parts added and turned into the filter's layout."""
    lanes, per, area = z.o // z.groups, z.c // z.groups, z.oh * z.ow
    image = _bordered(ctx, z, x)
    rows_all = per * z.kh
    rows, cols, vectors = _sums_tile(lanes, rows_all, z.kw, ctx.width, ctx.bits)
    block = ctx.width * vectors
    tiles = -(-lanes // block)
    packed: Hashable = (ctx.unique, "g")
    size = ctx.dt.itemsize
    symbol, text = conv_pack.channels_kernel(ctx.dt.name, ctx.width)
    matrices = z.n * z.groups
    numbers: tuple[int, ...] = (matrices, tiles, lanes, 1, area, block, PACK_CHUNK, lanes * area, area, 0)
    ctx.jobs.append(Job(symbol, text, [g, packed], numbers, {g}, {packed},
                        work=matrices * tiles * area * block // 4, own={packed: matrices * tiles * area * block * size}))
    row_tiles = -(-rows_all // rows)
    row_blocks = max(1, min(row_tiles, TASKS // (z.groups * tiles)))
    per_part = -(-z.n // max(1, min(z.n, TASKS // (z.groups * tiles * row_blocks))))
    parts = -(-z.n // per_part)
    line = z.ow * block * size
    y_chunk = max(1, min(z.oh, CHUNK // line))
    n_chunk = max(1, CHUNK // (line * z.oh))
    sums: Hashable = (ctx.unique, "sums")
    count = z.groups * tiles * rows_all * z.kw * block
    shape = conv_weight.Shape(rows, cols, vectors, z.stride[1], z.dilation[1] if z.kw > 1 else 1)
    symbol, text = conv_weight.sums_kernel(ctx.dt.name, ctx.width, shape)
    numbers = (parts, per_part, z.groups, tiles, row_blocks, z.n, z.oh, z.ow, rows_all, z.kh, z.kw, n_chunk, y_chunk, image.n,
               image.g, image.c, z.dilation[0] * image.row, z.stride[0] * image.row, image.offset)
    ctx.jobs.append(Job(symbol, text, [image.key, packed, sums], numbers, {image.key, packed}, {sums},
                        work=count * z.n * area // 4, own={sums: parts * count * size}))
    symbol, text = conv_weight.gather_kernel(ctx.dt.name, ctx.width)
    ctx.jobs.append(Job(symbol, text, [sums, out], (parts, z.groups, tiles, lanes, rows_all * z.kw, block), {sums}, {out},
                        work=parts * count // 4))


def _sums_tile(lanes: int, rows_all: int, kw: int, width: int, bits: int) -> tuple[int, int, int]:
    """Rows, columns and vectors of a tile of the filter's gradient, by the model of :func:`_tile`."""
    budget, registers = (28, 32) if bits == 512 else (12, 16)
    best: tuple[float, tuple[int, int, int]] | None = None
    for vectors in (4, 3, 2, 1):
        for cols in range(min(kw, budget // vectors), 0, -1):
            for rows in range(1, min(rows_all, 8, budget // (cols * vectors)) + 1):
                p = rows * cols
                if p * vectors + vectors + 1 > registers:
                    continue
                cycles = max(p * vectors / 2, (p + vectors) / 2, 4.0) + 0.25
                cost = -(-lanes // (width * vectors)) * -(-rows_all // rows) * -(-kw // cols) * cycles
                if best is None or cost < best[0] - 1e-9:
                    best = cost, (rows, cols, vectors)
    assert best is not None
    return best[1]
