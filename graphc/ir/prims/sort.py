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

_LOW = np.uint64(0xFFFFFFFF)
_S32 = np.uint64(32)


def _ordered_bits(x: np.ndarray) -> np.ndarray:
    """Elements of at most 32 bits as uint32 in the same order: NaN last, -0.0 equal to 0.0."""
    if x.dtype.kind in "bu":
        return x.astype(np.uint32)
    if x.dtype.kind == "i":
        return x.astype(np.int32).view(np.uint32) ^ np.uint32(0x80000000)
    wide = np.asarray(x.astype(np.float32) + np.float32(0))
    b = wide.view(np.uint32)
    key = np.where(b >> 31, ~b, b | np.uint32(0x80000000))
    return np.where(wide == wide, key, np.uint32(0xFFFFFFFF))


def _packed(x: np.ndarray, axis: int, descending: bool) -> np.ndarray:
    """One uint64 per element that sorts by value, then by index: the index is its low half.

    Plain sorting of these is stable in either direction and several times faster than an indirect stable sort.
    """
    key = _ordered_bits(x)
    if descending:
        key = ~key
    at = np.arange(x.shape[axis], dtype=np.uint64).reshape((-1,) + (1,) * (x.ndim - axis - 1))
    return (key.astype(np.uint64) << _S32) | at


def _order(x: np.ndarray, axis: int, descending: bool, k: int | None = None) -> np.ndarray:
    """Indices that sort along ``axis`` (the first ``k`` of them)."""
    n = x.shape[axis]
    first = tuple([slice(0, k) if d == axis else slice(None) for d in range(x.ndim)])
    if x.dtype.itemsize <= 4 and n < 1 << 32:
        p = _packed(x, axis, descending)
        if k is not None and 0 < k < n:
            p = np.partition(p, k - 1, axis)[first]
        return (np.sort(p, axis)[first] & _LOW).astype(np.int64)
    if descending:  # a stable descending sort is a stable ascending one of the reversed sequence, read backwards
        return np.flip(n - 1 - np.argsort(np.flip(x, axis), axis, kind="stable"), axis)[first]
    return np.argsort(x, axis, kind="stable")[first]


def _sort_infer(attrs: Any, x: Aval) -> tuple[Aval, Aval]:
    return x, aval(x.shape, int64, x.device)


def _sort_np(attrs: Any, x: np.ndarray) -> Any:
    axis, descending, _ = attrs
    idx = _order(x, axis, descending)
    return np.take_along_axis(x, idx, axis), idx


def _sort_vjp(ctx: Any, g: Any) -> Any:
    if g[0] is None:
        return (None,)
    x = ctx.in_avals[0]
    return (P.scatter(P.full(x.shape, 0, x.dtype, x.device), ctx.out[1], g[0], ctx.attrs[0], "add"),)


prim("sort", kind="sort", attrs=("axis", "descending", "stable"), infer=_sort_infer, eval_np=_sort_np, loop="sort",
     vjp=_sort_vjp, saves=("out",), n_out=2,
     samples=lambda: [((draw("s", 3, 5),), (1, False, True)), ((draw("s", 3, 5),), (0, True, True))],
     doc="(values, indices) along an axis; NaN is largest; always stable.")


def _topk_infer(attrs: Any, x: Aval) -> tuple[Aval, Aval]:
    axis, k, _ = attrs
    shape = x.shape[:axis] + (k,) + x.shape[axis + 1:]
    return aval(shape, x.dtype, x.device), aval(shape, int64, x.device)


def _topk_np(attrs: Any, x: np.ndarray) -> Any:
    axis, k, largest = attrs
    idx = _order(x, axis, largest, k)
    return np.take_along_axis(x, idx, axis), idx


prim("topk", kind="sort", attrs=("axis", "k", "largest"), infer=_topk_infer, eval_np=_topk_np, loop="sort", vjp=_sort_vjp,
     saves=("out",), n_out=2,
     samples=lambda: [((draw("s", 3, 5),), (1, 2, True)), ((draw("s", 3, 5),), (0, 2, False))],
     doc="The first k of sort in either direction: the k largest or smallest, in order.")


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
