"""Sorting along an axis and searching in what is sorted."""
from __future__ import annotations

from typing import Any

import numpy as np

from ...dtypes import int64
from ...errors import DTypeError, ShapeError
from .. import build as P
from ..node import Aval, aval
from ..optable import prim
from ..samples import draw


def _sort_infer(attrs: Any, x: Aval) -> tuple[Aval, Aval]:
    return x, aval(x.shape, int64, x.device)


def _sort_np(attrs: Any, x: np.ndarray) -> Any:
    axis, descending, _ = attrs
    key = x.astype(np.float32) if x.dtype.itemsize == 2 and x.dtype.kind not in "iub" else x
    if descending:  # a stable descending sort is a stable ascending one of the reversed sequence, read backwards
        n = x.shape[axis]
        idx = np.flip(n - 1 - np.argsort(np.flip(key, axis), axis, kind="stable"), axis)
    else:
        idx = np.argsort(key, axis, kind="stable")
    return np.take_along_axis(x, idx, axis), idx.astype(np.int64)


def _sort_vjp(ctx: Any, g: Any) -> Any:
    if g[0] is None:
        return (None,)
    return (P.scatter(P.zeros_like(g[0]), ctx.out[1], g[0], ctx.attrs[0], "add"),)


prim("sort", kind="sort", attrs=("axis", "descending", "stable"), infer=_sort_infer, eval_np=_sort_np, loop="sort",
     vjp=_sort_vjp, saves=("out",), n_out=2,
     samples=lambda: [((draw("s", 3, 5),), (1, False, True)), ((draw("s", 3, 5),), (0, True, True))],
     doc="(values, indices) along an axis; NaN is largest; always stable.")


# --------------------------------------------------------------------------------------------------------- searchsorted
def _search_infer(attrs: Any, s: Aval, v: Aval) -> Aval:
    if s.ndim == 0 or s.ndim > 1 and s.shape[:-1] != v.shape[:-1]:
        raise ShapeError("torch.searchsorted(): boundaries tensor should be 1 dimension or the first N-1 dimensions of "
                         "boundaries tensor and input value tensor must match, but we got boundaries tensor "
                         f"{list(s.shape)} and input value tensor {list(v.shape)}")
    if s.dtype is not v.dtype:
        raise DTypeError("torch.searchsorted(): boundary tensor and input value tensor should have same dtype, but got "
                         f"boundary tensor dtype {s.dtype.name} and input value tensor dtype {v.dtype.name}")
    return aval(v.shape, int64, v.device)


def _search_np(attrs: Any, s: np.ndarray, v: np.ndarray) -> Any:
    right = attrs[0]
    if s.dtype.itemsize == 2 and s.dtype.kind not in "iub":
        s, v = s.astype(np.float32), v.astype(np.float32)
    if s.ndim == 1:
        return np.searchsorted(s, v, "right" if right else "left").astype(np.int64)
    lo = np.zeros(v.shape, np.int64)
    if not v.size:
        return lo
    hi = np.full(v.shape, s.shape[-1], np.int64)
    for _ in range(s.shape[-1].bit_length()):  # binary search, all elements together
        mid = (lo + hi) >> 1
        probe = np.take_along_axis(s, np.minimum(mid, s.shape[-1] - 1), -1)
        below = ((probe <= v) if right else (probe < v)) | (v != v)
        below &= lo < hi
        hi = np.where(below, hi, np.maximum(mid, lo))
        lo = np.where(below, mid + 1, lo)
    return lo


prim("searchsorted", kind="sort", attrs=("right",), infer=_search_infer, eval_np=_search_np, loop="library", vjp=None,
     saves=(), samples=lambda: [((np.sort(draw("s", 5)), draw("v", 2, 3)), (False,)),
                                ((np.sort(draw("s", 2, 5)), draw("v", 2, 3)), (True,))],
     doc="Per element of the second input, how many of the sorted last dimension of the first are below it (right: not above).")
