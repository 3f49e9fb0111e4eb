"""Adding overlapping windows, whole or one element of each, as movement and sums that fuse with what is around them."""
from __future__ import annotations

import functools
import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from ...dtypes import float32
from .. import build as P
from ..node import aval
from ..optable import OPS, composite
from ..recorder import apply
from ..samples import draw

MOST_TERMS = 64  # more windows over one element than this are added by a node of its own


class Term(NamedTuple):
    """Elements ``first`` .. ``first + width - 1`` of every window, which go to ``at`` + window number * stride + 0, 1, ..."""

    first: int
    width: int
    at: int


def _terms(size: int, stride: int, dilation: int) -> list[Term]:
    """The parts of windows that do not overlap with one another, in order: few if the stride is long."""
    if dilation != 1:
        return [Term(i, 1, i * dilation) for i in range(size)]
    return [Term(i, min(stride, size - i), i) for i in range(0, size, stride)]


def _placed(attrs: Any, g: Any, terms: tuple[Term, ...], around: float = 0) -> Any:
    """One part of every window at its place in the result's shape, ``around`` elsewhere."""
    shape, axes, _, strides, _ = attrs
    nd = len(shape)
    starts = (0,) * nd + tuple([t.first for t in terms])
    stops = (*g.shape[:nd], *[t.first + t.width for t in terms])
    g = P.slice_(g, starts, stops, (1,) * len(starts))
    lo, hi = [0] * len(starts), [0] * len(starts)
    perm, inner = [], list(shape)
    for a in range(nd):
        perm.append(a)
        if a in axes:  # the axis in blocks of a stride: windows begin in different blocks, at the same place of them
            k = axes.index(a)
            s, t = strides[k], terms[k]
            perm.append(nd + k)
            blocks = -(-shape[a] // s)
            inner[a] = blocks * s
            lo[a], lo[nd + k] = divmod(t.at, s)
            hi[a], hi[nd + k] = blocks - lo[a] - g.shape[a], s - t.width - lo[nd + k]
    g = P.reshape(P.permute(P.pad(g, tuple(lo), tuple(hi), around), tuple(perm)), tuple(inner))
    return P.slice_(g, (0,) * nd, shape, (1,) * nd)


def _expand(attrs: Any, g: Any) -> Any:
    shape, axes, sizes, strides, dilations = attrs
    terms = [_terms(*x) for x in zip(sizes, strides, dilations)]
    if not g.size or math.prod([len(t) for t in terms]) > MOST_TERMS:
        return apply(OPS["overlap_add"], (g,), attrs)
    dt = g.dtype
    x = P.cast(g, float32) if dt.is_floating_point and dt.itemsize == 2 else g
    first, *rest = [_placed(attrs, x, each) for each in itertools.product(*terms)]
    return P.cast(functools.reduce(P.add, rest, first), dt)


composite("fold", kind="index", attrs=("shape", "axes", "sizes", "strides", "dilations"),
          infer=lambda attrs, g: aval(attrs[0], g.dtype, g.device), expand=_expand,
          vjp=lambda ctx, g: (P.window(g, *ctx.attrs[1:]),), saves=(),
          samples=lambda: [((draw("f", 2, 2, 4, 3, 2),), ((2, 6, 5), (1, 2), (3, 2), (2, 1), (1, 1))),
                           ((draw("f", 3, 2, 2),), ((3, 8),  (1,), (2,), (5,), (1,))),
                           ((draw("f", 3, 2, 3),), ((3, 9),  (1,), (3,), (2,), (3,))),
                           ((draw("f", 4, 5, 5, 5),), ((8, 9), (0, 1), (5, 5), (1, 1), (1, 1)))],
          doc="Windows added into zeros: the adjoint of window.")


# --------------------------------------------------------------------------------------------------------------- unpooling
def _spots(attrs: Any) -> int:
    """Elements of a window."""
    return math.prod(attrs[2])


def _unpool_expand(attrs: Any, g: Any, which: Any) -> Any:
    shape, axes, sizes, strides, dilations = attrs
    nd = len(shape)
    terms = [_terms(*x) for x in zip(sizes, strides, dilations)]
    spots = P.reshape(P.iota(_spots(attrs), which.dtype, g.device), sizes)
    whole = (*g.shape, *sizes)
    last = (*g.shape, *[1] * len(sizes))
    if not g.size or math.prod([len(t) for t in terms]) > MOST_TERMS:
        hit = P.eq(P.expand(P.reshape(which, last), whole), P.expand(P.reshape(spots, (*[1] * nd, *sizes)), whole))
        return P.fold(P.where(hit, P.expand(P.reshape(g, last), whole), P.full(whole, 0, g.dtype, g.device)), *attrs)
    wide = [P.expand(P.reshape(v, last), whole) for v in (g, which)]
    wide.append(P.expand(P.reshape(spots, (*[1] * nd, *sizes)), whole))
    dt = g.dtype
    parts = []
    for each in itertools.product(*terms):  # moved first and compared where the result is: nothing of windows' size is stored
        value, mine, spot = [_placed(attrs, v, each, around) for v, around in zip(wide, (0, -1, -2))]
        value = P.cast(value, float32) if dt.is_floating_point and dt.itemsize == 2 else value
        parts.append(P.where(P.eq(mine, spot), value, P.full(shape, 0, value.dtype, g.device)))
    return P.cast(functools.reduce(P.add, parts), dt)


def _unpool_vjp(ctx: Any, gx: Any) -> Any:
    which = ctx.ins[1]
    w = P.window(gx, *ctx.attrs[1:])
    w = P.reshape(w, (*which.shape, _spots(ctx.attrs)))
    hit = P.eq(P.unsqueeze(which, which.ndim), P.iota(_spots(ctx.attrs), which.dtype, gx.device))
    return P.reduce("add", P.where(hit, w, P.full((), 0, gx.dtype, gx.device)), (which.ndim,)), None


composite("unpool", kind="index", attrs=("shape", "axes", "sizes", "strides", "dilations"),
          infer=lambda attrs, g, which: aval(attrs[0], g.dtype, g.device), expand=_unpool_expand, vjp=_unpool_vjp, saves=(1,),
          samples=lambda: [((draw("u", 2, 3, 4), np.arange(24).reshape(2, 3, 4) % 6),
                            ((2, 7, 5), (1, 2), (3, 2), (2, 1), (1, 1))),
                           ((draw("u", 3, 4), np.arange(12).reshape(3, 4) % 3), ((3, 13), (1,), (3,), (2,), (3,)))],
          doc="Each window's value added at its element number ``which`` (of the window flattened): the adjoint of picking it.")
