"""Reductions by a monoid over axes, arg-reductions, and scans."""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...dtypes import bool_, float32, int64
from ...errors import DimError
from .. import build as P
from ..node import Aval, aval
from ..optable import prim
from ..samples import draw

MONOIDS = ("add", "mul", "max", "min", "any", "all")


def _kept(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple([d for i, d in enumerate(shape) if i not in axes])


def _reduce_infer(attrs: Any, x: Aval) -> Aval:
    kind, axes = attrs
    if kind in ("max", "min"):
        for a in axes:
            if x.shape[a] == 0:
                raise DimError(f"a{kind}(): Expected reduction dim {a} to have non-zero size.")
    return aval(_kept(x.shape, axes), bool_ if kind in ("any", "all") else x.dtype, x.device)


def _is_half(x: np.ndarray) -> bool:
    return x.dtype.itemsize == 2 and x.dtype.kind not in "iu"


def _reduce_np(attrs: Any, x: np.ndarray) -> Any:
    kind, axes = attrs
    if kind == "add":
        if _is_half(x):
            return np.add.reduce(x.astype(np.float32), axes).astype(x.dtype)
        return np.add.reduce(x, axes, dtype=x.dtype if x.dtype != np.bool_ else np.bool_)
    if kind == "mul":
        return np.multiply.reduce(x.astype(np.float32) if _is_half(x) else x, axes, dtype=None if _is_half(x) else x.dtype)
    if kind == "max":
        return np.maximum.reduce(x.astype(np.float32) if _is_half(x) else x, axes)
    if kind == "min":
        return np.minimum.reduce(x.astype(np.float32) if _is_half(x) else x, axes)
    if kind == "any":
        return np.logical_or.reduce(x, axes)
    return np.logical_and.reduce(x, axes)


def _restore(v: Any, ctx_shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    """Give a reduced value its axes back and broadcast it to the input's shape."""
    keep = tuple([1 if i in axes else d for i, d in enumerate(ctx_shape)])
    return P.expand(P.reshape(v, keep), ctx_shape)


def _reduce_vjp(ctx: Any, g: Any) -> Any:
    kind, axes = ctx.attrs
    shape = ctx.in_avals[0].shape
    if kind == "add":
        return (_restore(g, shape, axes),)
    x = ctx.ins[0]
    if kind in ("max", "min"):
        y = _restore(ctx.out, shape, axes)
        hit = P.bit_or(P.eq(x, y), P.bit_and(P.isnan(x), P.isnan(y)))
        ones = P.cast(hit, x.dtype)
        share = P.div(g, P.reduce("add", ones, axes))
        return (P.mul(ones, _restore(share, shape, axes)),)
    if kind == "mul":
        return (P.mul(_restore(g, shape, axes), _product_of_others(x, axes)),)
    return (None,)


def _product_of_others(x: Any, axes: tuple[int, ...]) -> Any:
    """prod / x, right also where x is zero: exclusive prefix product times exclusive suffix product."""
    shape = x.shape
    perm = tuple([i for i in range(len(shape)) if i not in axes]) + axes
    lead = tuple([shape[p] for p in perm[:len(shape) - len(axes)]])
    flat = P.reshape(P.permute(x, perm), (*lead, int(np.prod([shape[a] for a in axes]))))
    n, ax = flat.shape[-1], flat.ndim - 1
    if n == 0:
        return x
    one = P.full((*flat.shape[:-1], 1), 1, x.dtype, x.device)
    before = P.scan("mul", P.concat((one, P.narrow(flat, ax, 0, n - 1)), ax), ax)
    after = P.scan("mul", P.concat((P.narrow(flat, ax, 1, n - 1), one), ax), ax, reverse=True)
    out = P.reshape(P.mul(before, after), tuple([shape[p] for p in perm]))
    inverse = [0] * len(perm)
    for i, p in enumerate(perm):
        inverse[p] = i
    return P.permute(out, tuple(inverse))


prim("reduce", kind="reduce", attrs=("kind", "axes"), infer=_reduce_infer, eval_np=_reduce_np, loop="reduce",
     vjp=_reduce_vjp, saves=(0, "out"),
     samples=lambda: [((draw("r", 3, 4, 2),), (k, a)) for k in ("add", "mul", "max", "min")
                      for a in ((0,), (1, 2), (0, 1, 2))] + [((draw("b", 3, 4, dtype=np.bool_),), ("any", (1,)))],
     doc="Combine over axes; 16-bit floats accumulate in float32.")


def _arg_infer(attrs: Any, x: Aval) -> Aval:
    kind, axis = attrs
    if x.shape[axis] == 0:
        raise DimError(f"arg{kind}(): Expected reduction dim {axis} to have non-zero size.")
    return aval(_kept(x.shape, (axis,)), int64, x.device)


def _arg_np(attrs: Any, x: np.ndarray) -> Any:
    kind, axis = attrs
    if _is_half(x):
        x = x.astype(np.float32)
    return np.argmax(x, axis) if kind == "max" else np.argmin(x, axis)


prim("argreduce", kind="reduce", attrs=("kind", "axis"), infer=_arg_infer, eval_np=_arg_np, loop="argreduce", vjp=None,
     saves=(), samples=lambda: [((draw("r", 3, 4),), ("max", 1)), ((draw("r", 3, 4),), ("min", 0))],
     doc="Index of the first extreme; NaN is the extreme.")

_SCANS = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum, "logaddexp": np.logaddexp}


def _scan_np(attrs: Any, x: np.ndarray) -> Any:
    kind, axis, reverse = attrs
    dt = x.dtype
    if _is_half(x):
        x = x.astype(np.float32)
    if reverse:
        x = np.flip(x, axis)
    y = _SCANS[kind].accumulate(x, axis, dtype=x.dtype) if x.shape[axis] else x
    return (np.flip(y, axis) if reverse else y).astype(dt)


def _scan_vjp(ctx: Any, g: Any) -> Any:
    kind, axis, reverse = ctx.attrs
    if kind == "add":
        return (P.scan("add", g, axis, not reverse),)
    x, y = ctx.ins[0], ctx.out
    if kind == "mul":
        return (_cumprod_vjp(x, y, g, axis, reverse),)
    if kind == "logaddexp":
        return (_logcumsumexp_vjp(x, y, g, axis, reverse),)
    return (_cumextreme_vjp(x, y, g, axis, reverse),)


def _cumprod_vjp(x: Any, y: Any, g: Any, axis: int, reverse: bool) -> Any:
    """Without division: d x_k = sum_{i>=k} g_i * prod_{j<=i, j!=k} x_j, as an (n, n) table of products."""
    n = x.shape[axis]
    last = x.ndim - 1
    perm = [i for i in range(x.ndim) if i != axis] + [axis]
    xt, gt = P.permute(x, tuple(perm)), P.permute(g, tuple(perm))
    if reverse:
        xt, gt = P.flip(xt, (last,)), P.flip(gt, (last,))
    k = P.iota_like(P.unsqueeze(xt, last + 1), last, int64)  # (.., n, 1): index k of the derivative
    j = P.reshape(P.iota(n, int64, x.device), (1,) * last + (1, n))
    row = P.expand(P.unsqueeze(xt, last), (*xt.shape[:-1], n, n))
    dropped = P.where(P.eq(j, k), P.full_like(row, 1), row)
    prods = P.scan("mul", dropped, last + 1)
    masked = P.where(P.le(k, j), prods, P.zeros_like(prods))
    out = P.reduce("add", P.mul(masked, P.unsqueeze(gt, last)), (last + 1,))
    if reverse:
        out = P.flip(out, (last,))
    inverse = [0] * x.ndim
    for i, p in enumerate(perm):
        inverse[p] = i
    return P.permute(out, tuple(inverse))


def _logcumsumexp_vjp(x: Any, y: Any, g: Any, axis: int, reverse: bool) -> Any:
    """d x_k = e^(x_k - y_k) c_k, where c_k = g_k + e^(y_k - y_k+1) c_k+1: y never falls, so nothing overflows; linear in g.

    The recurrence is solved by doubling, in log2(n) steps; halves are summed in float32.
    """
    dt, n = x.dtype, x.shape[axis]
    if dt.itemsize < 4:
        x, y, g = P.cast(x, float32), P.cast(y, float32), P.cast(g, float32)
    if reverse:
        x, y, g = P.flip(x, (axis,)), P.flip(y, (axis,)), P.flip(g, (axis,))
    nothing = P.eq(y, -math.inf)  # e^-inf over itself: such elements get no gradient
    below = P.where(nothing, P.full_like(y, 0), y)
    share = P.exp(P.sub(P.where(nothing, P.full_like(x, -math.inf), x), below))
    if n > 1:
        before = P.narrow(P.where(nothing, P.full_like(y, -math.inf), y), axis, 0, n - 1)
        decay = P.exp(P.sub(before, P.narrow(below, axis, 1, n - 1)))  # from k + step to k; behind the end there is nothing
        none, step = [0] * x.ndim, 1
        while step < n:
            behind = [step if a == axis else 0 for a in range(x.ndim)]
            g = P.add(g, P.pad(P.mul(decay, P.narrow(g, axis, step, n - step)), tuple(none), tuple(behind), 0))
            if 2 * step < n:
                decay = P.mul(P.narrow(decay, axis, 0, n - 2 * step), P.narrow(decay, axis, step, n - 2 * step))
            step *= 2
    out = P.cast(P.mul(share, g), dt)
    return P.flip(out, (axis,)) if reverse else out


def _cumextreme_vjp(x: Any, y: Any, g: Any, axis: int, reverse: bool) -> Any:
    """The gradient of each running extreme goes to the latest element that set it."""
    n = x.shape[axis]
    at = P.expand(P.iota_like(x, axis, int64), x.shape)
    setter = P.where(P.eq(x, y), at, P.full_like(at, n - 1 if reverse else 0))
    idx = P.scan("min" if reverse else "max", setter, axis, reverse)
    return P.scatter(P.zeros_like(g), idx, g, axis, "add")


prim("scan", kind="scan", attrs=("kind", "axis", "reverse"), infer=lambda attrs, x: x, eval_np=_scan_np, loop="scan",
     vjp=_scan_vjp, saves=(0, "out"),
     samples=lambda: [((draw("s", 3, 4),), (k, 1, r)) for k in _SCANS for r in (False, True)],
     doc="Inclusive running combination along an axis.")
