"""Indexing by integer arrays: reading (take, gather) and combining into a base (take_put, scatter)."""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...errors import DTypeError, IndexOutOfRangeError, ShapeError
from .. import build as P
from ..node import Aval, aval
from ..optable import prim
from ..samples import draw

MODES = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _need_int(name: str, idx: Aval) -> None:
    if idx.dtype.category != 1:
        raise DTypeError(f"{name}(): Expected dtype int32/int64 for index but got {idx.dtype.name}")


def checked(idx: np.ndarray, size: int, axis: int, wrap: bool = False) -> np.ndarray:
    """The index array, checked against ``size``; negative ones are resolved under ``wrap``."""
    if idx.size:
        lo, hi = int(idx.min()), int(idx.max())
        if hi >= size or lo < (-size if wrap else 0):
            bad = hi if hi >= size else lo
            raise IndexOutOfRangeError(f"index {bad} is out of bounds for dimension {axis} with size {size}")
        if lo < 0:
            idx = np.where(idx < 0, idx + size, idx)
    return idx


# ------------------------------------------------------------------------------------------------------ take, take_put
def _take_infer(attrs: Any, x: Aval, idx: Aval) -> Aval:
    _need_int("index_select", idx)
    axis = attrs[0]
    return aval((*x.shape[:axis], *idx.shape, *x.shape[axis + 1:]), x.dtype, x.device)


def _take_np(attrs: Any, x: np.ndarray, idx: np.ndarray) -> Any:
    axis, wrap = attrs
    return np.take(x, checked(idx, x.shape[axis], axis, wrap), axis)


def _take_vjp(ctx: Any, g: Any) -> Any:
    x = ctx.in_avals[0]
    return P.take_put(P.full(x.shape, 0, x.dtype, x.device), ctx.ins[1], g, ctx.attrs[0], "add", ctx.attrs[1]), None


def _ix(*v: Any) -> np.ndarray:
    return np.array(v, np.int64)


prim("take", kind="index", attrs=("axis", "wrap"), infer=_take_infer, eval_np=_take_np, loop="take", vjp=_take_vjp,
     saves=(1,), samples=lambda: [((draw("t", 4, 3), _ix(2, 0, 2)), (0, False)),
                                  ((draw("t", 2, 4), np.array([[0, -1], [3, 1]])), (1, True))],
     doc="Select along an axis by an index array of any shape.")


def _take_put_infer(attrs: Any, base: Aval, idx: Aval, src: Aval) -> Aval:
    _need_int("index_put", idx)
    axis = attrs[0]
    want = (*base.shape[:axis], *idx.shape, *base.shape[axis + 1:])
    if src.shape != want:
        raise ShapeError(f"source of shape {src.shape} does not fit index {idx.shape} on axis {axis} of {base.shape}: "
                         f"expected {want}")
    if src.dtype is not base.dtype:
        raise DTypeError(f"Index put requires the source and destination dtypes match, got {base.dtype.name} for the "
                         f"destination and {src.dtype.name} for the source.")
    return base


def _is_half(x: np.ndarray) -> bool:
    return x.dtype.itemsize == 2 and x.dtype.kind not in "iub"


def _combine_at(out: np.ndarray, at: Any, src: np.ndarray, mode: str) -> np.ndarray:
    """``out`` with ``src`` combined in at the indices ``at``, one after the other; 16-bit floats in float32."""
    if mode == "set":
        out[at] = src
    elif _is_half(out):
        wide = out.astype(np.float32)
        MODES[mode].at(wide, at, src.astype(np.float32))
        return wide.astype(out.dtype)
    else:
        (np.logical_or if mode == "add" and out.dtype == np.bool_ else MODES[mode]).at(out, at, src)
    return out


def _take_put_np(attrs: Any, base: np.ndarray, idx: np.ndarray, src: np.ndarray) -> Any:
    axis, mode, wrap = attrs
    n = base.shape[axis]
    idx = checked(idx, n, axis, wrap).reshape(-1)
    if base.ndim == 1:
        return _combine_at(base.copy(), idx, src.reshape(-1), mode)
    src = src.reshape(*base.shape[:axis], idx.size, *base.shape[axis + 1:])
    out = np.moveaxis(base.copy(), axis, 0)
    s = np.moveaxis(src, axis, 0)
    if mode == "add" and base.dtype != np.bool_:
        _add_rows(out, idx, s)
    else:
        out = _combine_at(out, idx, s, mode)
    return np.moveaxis(out, 0, axis)


def _add_rows(out: np.ndarray, idx: np.ndarray, s: np.ndarray) -> None:
    """out[idx] += s with repeated indices, in index order: sort, then add runs. Faster than ``add.at`` for rows."""
    if not idx.size:
        return
    order = np.argsort(idx, kind="stable")
    sorted_idx = idx[order]
    starts = np.flatnonzero(np.r_[True, sorted_idx[1:] != sorted_idx[:-1]])
    rows = s[order]
    sums = np.add.reduceat(rows.astype(np.float32) if _is_half(s) else rows, starts, axis=0)
    out[sorted_idx[starts]] += sums.astype(out.dtype, copy=False)


def _take_put_vjp(ctx: Any, g: Any) -> Any:
    axis, mode, wrap = ctx.attrs
    idx = ctx.ins[1]
    gsrc = P.take(g, idx, axis, wrap) if ctx.needs[2] else None
    if mode == "add":
        return g, None, gsrc
    if mode == "set":
        src = ctx.in_avals[2]
        zeros = P.full(src.shape, 0, src.dtype, src.device)
        return (P.take_put(g, idx, zeros, axis, "set", wrap) if ctx.needs[0] else None), None, gsrc
    raise NotImplementedError(f"the derivative of index_reduce with {mode!r} is not available")


prim("take_put", kind="index", attrs=("axis", "mode", "wrap"), infer=_take_put_infer, eval_np=_take_put_np, loop="scatter",
     vjp=_take_put_vjp, saves=(1,),
     samples=lambda: [((draw("b", 4, 3), _ix(2, 0, 2), draw("s", 3, 3)), (0, "add", False)),
                      ((draw("b", 4, 3), _ix(2, 0), draw("s", 2, 3)), (0, "set", False))],
     doc="A base with rows combined in along an axis.")


# ---------------------------------------------------------------------------------------------------- gather, scatter
def _gather_infer(attrs: Any, x: Aval, idx: Aval) -> Aval:
    _need_int("gather", idx)
    if x.ndim != idx.ndim:
        raise ShapeError(f"Index tensor must have the same number of dimensions as input tensor, got {idx.ndim} and {x.ndim}")
    for d in range(x.ndim):
        if d != attrs[0] and idx.shape[d] > x.shape[d]:
            raise ShapeError(f"Size does not match at dimension {d} expected index {list(idx.shape)} to be no larger than "
                             f"self {list(x.shape)} apart from dimension {attrs[0]}")
    return aval(idx.shape, x.dtype, x.device)


def _flat_positions(idx: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """Where the elements ``idx`` stands for are in a flattened array of this shape: (.., idx, ..) as one number."""
    out = idx * math.prod(shape[axis + 1:]) if idx.dtype == np.int64 else idx.astype(np.int64) * math.prod(shape[axis + 1:])
    for d, n in enumerate(idx.shape):
        if d != axis and n > 1:
            at = np.arange(n, dtype=np.int64) * math.prod(shape[d + 1:])
            out += at.reshape((n,) + (1,) * (idx.ndim - d - 1))
    return out


def _gather_np(attrs: Any, x: np.ndarray, idx: np.ndarray) -> Any:
    axis = attrs[0]
    if idx.ndim == 0:
        checked(idx, 1, 0)
        return x
    idx = checked(idx, x.shape[axis], axis)
    return np.take(x.reshape(-1), _flat_positions(idx, x.shape, axis))


def _gather_vjp(ctx: Any, g: Any) -> Any:
    x = ctx.in_avals[0]
    return P.scatter(P.full(x.shape, 0, x.dtype, x.device), ctx.ins[1], g, ctx.attrs[0], "add"), None


prim("gather", kind="index", attrs=("axis",), infer=_gather_infer, eval_np=_gather_np, loop="take", vjp=_gather_vjp,
     saves=(1,), samples=lambda: [((draw("g", 4, 3), np.array([[0, 2, 1], [3, 3, 0]])), (0,)),
                                  ((draw("g", 4, 3), np.array([[0], [2], [2]])), (1,))],
     doc="Select along an axis, an index for each element.")


def _scatter_infer(attrs: Any, base: Aval, idx: Aval, src: Aval) -> Aval:
    _need_int("scatter", idx)
    if not base.ndim == idx.ndim == src.ndim:
        raise ShapeError(f"Index tensor must have the same number of dimensions as self and src tensor, got {idx.ndim}, "
                         f"{base.ndim} and {src.ndim}")
    for d in range(base.ndim):
        if idx.shape[d] > src.shape[d] or (d != attrs[0] and idx.shape[d] > base.shape[d]):
            raise ShapeError(f"Expected index {list(idx.shape)} to be no larger than self {list(base.shape)} apart from "
                             f"dimension {attrs[0]} and to be no larger than src {list(src.shape)}")
    if src.dtype is not base.dtype:
        raise DTypeError(f"scatter(): Expected self.dtype to be equal to src.dtype, got {base.dtype.name} and "
                         f"{src.dtype.name}")
    return base


def _scatter_np(attrs: Any, base: np.ndarray, idx: np.ndarray, src: np.ndarray) -> Any:
    axis, mode = attrs
    out = base.copy(order="C")
    if idx.ndim == 0:
        checked(idx, 1, 0)
        return _combine_at(out.reshape(1), np.zeros(1, np.int64), src.reshape(1), mode).reshape(())
    if not idx.size:
        return out
    at = _flat_positions(checked(idx, base.shape[axis], axis), base.shape, axis).reshape(-1)
    s = src[tuple([slice(0, n) for n in idx.shape])].reshape(-1)
    return _combine_at(out.reshape(-1), at, s, mode).reshape(base.shape)


def _scatter_vjp(ctx: Any, g: Any) -> Any:
    axis, mode = ctx.attrs
    idx, src = ctx.ins[1], ctx.in_avals[2]
    if mode not in ("add", "set"):
        raise NotImplementedError(f"the primitive scatter has no derivative for {mode!r}: record scatter_reduce")
    gsrc = None
    if ctx.needs[2]:  # a source larger than the index: the rest of it got no gradient
        gsrc = P.gather(g, idx, axis)
        gsrc = P.pad(gsrc, (0,) * src.ndim, tuple([a - b for a, b in zip(src.shape, gsrc.aval.shape)]))
    if mode == "add":
        return g, None, gsrc
    zeros = P.full(idx.aval.shape, 0, src.dtype, src.device)
    return (P.scatter(g, idx, zeros, axis, "set") if ctx.needs[0] else None), None, gsrc


prim("scatter", kind="index", attrs=("axis", "mode"), infer=_scatter_infer, eval_np=_scatter_np, loop="scatter",
     vjp=_scatter_vjp, saves=(1,),
     samples=lambda: [((draw("b", 4, 3), np.array([[0, 2, 1], [3, 2, 0]]), draw("s", 2, 3)), (0, "add")),
                      ((draw("b", 4, 3), np.array([[0, 2, 1], [3, 1, 0]]), draw("s", 3, 3)), (0, "set"))],
     doc="A base with elements combined in along an axis.")
