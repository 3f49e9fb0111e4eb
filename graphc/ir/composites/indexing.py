"""Table lookup and combining scatters as single nodes, with the gradients PyTorch defines for them."""
from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ShapeError
from .. import build as P
from ..node import Aval, Value, aval
from ..optable import OPS, composite
from ..recorder import apply
from ..samples import draw


# ------------------------------------------------------------------------------------------------------------ embedding
def _embedding_infer(attrs: Any, w: Aval, idx: Aval) -> Aval:
    if w.ndim != 2:
        raise ShapeError(f"'weight' must be 2-D, got shape {list(w.shape)}")
    return aval((*idx.shape, w.shape[1]), w.dtype, w.device)


def _embedding_vjp(ctx: Any, g: Value) -> Any:
    padding, by_frequency = ctx.attrs
    w, idx = ctx.in_avals[0], ctx.ins[1]
    if padding >= 0:
        g = P.where(P.unsqueeze(P.ne(idx, padding), idx.aval.ndim), g, P.zeros_like(g))
    if by_frequency:
        ones = P.full(idx.aval.shape, 1, w.dtype, w.device)
        counts = P.take_put(P.full((w.shape[0],), 0, w.dtype, w.device), idx, ones, 0, "add")
        g = P.div(g, P.unsqueeze(P.take(counts, idx, 0), idx.aval.ndim))
    return P.take_put(P.full(w.shape, 0, w.dtype, w.device), idx, g, 0, "add"), None


composite("embedding", kind="index", attrs=("padding_idx", "scale_grad_by_freq"), infer=_embedding_infer,
          expand=lambda attrs, w, idx: P.take(w, idx, 0), vjp=_embedding_vjp, saves=(1,),
          samples=lambda: [((draw("w", 5, 3), np.array([[0, 4, 4], [2, 1, 0]])), (-1, False))],
          doc="Rows of a table; the row padding_idx (-1: none) gets no gradient, which may be divided by the index counts.")


# ------------------------------------------------------------------------------------------------------- scatter_reduce
def _crop(src: Value, shape: tuple[int, ...]) -> Value:
    return P.slice_(src, (0,) * len(shape), shape, (1,) * len(shape))


def _fit(g: Value, src: Aval) -> Value:
    """Pad a gradient shaped like the index to the source's shape, which may be larger."""
    return P.pad(g, (0,) * src.ndim, tuple([a - b for a, b in zip(src.shape, g.aval.shape)]))


def _extreme_vjp(base: Value, idx: Value, src: Value, out: Value, g: Value, axis: int) -> tuple[Value, Value]:
    """Every element equal to the result shares its gradient evenly."""
    hit_base = P.cast(P.eq(base, out), g.aval.dtype)
    hit_src = P.cast(P.eq(src, P.gather(out, idx, axis)), g.aval.dtype)
    count = P.scatter(hit_base, idx, hit_src, axis, "add")
    share = P.div(g, P.where(P.eq(count, 0), P.full_like(count, 1), count))  # no hit: the result is NaN
    return P.mul(share, hit_base), P.mul(P.gather(share, idx, axis), hit_src)


def _product_vjp(base: Value, idx: Value, src: Value, g: Value, axis: int) -> tuple[Value, Value]:
    """Gradient times the product of all other factors: zeros are counted instead of divided by."""
    dt = g.aval.dtype
    zero_base, zero_src = P.eq(base, 0), P.eq(src, 0)
    zeros = P.scatter(P.cast(zero_base, dt), idx, P.cast(zero_src, dt), axis, "add")
    one_base = P.where(zero_base, P.full_like(base, 1), base)
    one_src = P.where(zero_src, P.full_like(src, 1), src)
    rest = apply(OPS["scatter_reduce"], (one_base, idx, one_src), (axis, "mul"))  # product of the factors not zero

    def share(factor: Value, is_zero: Value, total: Value, n: Value, cot: Value) -> Value:
        others = P.eq(P.sub(n, P.cast(is_zero, dt)), 0)  # no other factor is zero
        return P.where(others, P.mul(cot, P.div(total, factor)), P.zeros_like(cot))

    at = [P.gather(v, idx, axis) for v in (rest, zeros, g)]
    return share(one_base, zero_base, rest, zeros, g), share(one_src, zero_src, *at)


def _scatter_reduce_vjp(ctx: Any, g: Value) -> Any:
    axis, mode = ctx.attrs
    base, idx, full = ctx.ins
    src = _crop(full, idx.aval.shape)
    if mode == "mul":
        gb, gs = _product_vjp(base, idx, src, g, axis)
    else:
        gb, gs = _extreme_vjp(base, idx, src, ctx.out, g, axis)
    return gb if ctx.needs[0] else None, None, _fit(gs, ctx.in_avals[2]) if ctx.needs[2] else None


composite("scatter_reduce", kind="index", attrs=("axis", "mode"),
          infer=lambda attrs, base, idx, src: OPS["scatter"].infer(attrs, base, idx, src),
          expand=lambda attrs, base, idx, src: P.scatter(base, idx, src, attrs[0], attrs[1]), vjp=_scatter_reduce_vjp,
          saves=("ins", "out"),
          samples=lambda: [((draw("b", 4, 3), np.array([[0, 2, 1], [3, 2, 0]]), draw("s", 2, 3)), (0, m))
                           for m in ("mul", "max", "min")],
          doc="A base with elements combined in along an axis by mul, max or min.")
