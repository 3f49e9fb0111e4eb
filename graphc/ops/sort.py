"""Sorting, selection and order statistics."""
from __future__ import annotations

import math
from collections import namedtuple
from typing import Any

import numpy as np

from ..dtypes import bool_, float64, int32, int64, uint8
from ..errors import AutogradError, DTypeError, ShapeError
from ..ir import build as P
from ..ir.node import Value
from ..tensor import Tensor, wrap
from ._common import norm_dim, val

sort_result = namedtuple("sort", ["values", "indices"])  # type: ignore[name-match]  # prints like PyTorch
topk_result = namedtuple("topk", ["values", "indices"])  # type: ignore[name-match]  # prints like PyTorch
kthvalue_result = namedtuple("kthvalue", ["values", "indices"])  # type: ignore[name-match]  # prints like PyTorch
median_result = namedtuple("median", ["values", "indices"])  # type: ignore[name-match]  # prints like PyTorch
mode_result = namedtuple("mode", ["values", "indices"])  # type: ignore[name-match]  # prints like PyTorch
cummax_result = namedtuple("cummax", ["values", "indices"])  # type: ignore[name-match]  # prints like PyTorch
cummin_result = namedtuple("cummin", ["values", "indices"])  # type: ignore[name-match]  # prints like PyTorch


def _sorted(v: Value, d: int, descending: bool) -> tuple[Value, Value]:
    if v.aval.dtype is bool_:
        s, i = P.sort(P.cast(v, uint8), d, descending)
        return P.cast(s, bool_), i
    return P.sort(v, d, descending)


def _scalar_pair(v: Value) -> tuple[Value, Value]:
    return v, P.full((), 0, int64, v.aval.device)


def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False, *, out: Any = None) -> Any:
    """(values, indices) along ``dim``; NaN is largest. Always stable."""
    v = val(input)
    d = norm_dim(dim, v.aval.ndim)
    s, i = _sorted(v, d, descending) if v.aval.ndim else _scalar_pair(v)
    return sort_result(wrap(s), wrap(i))


def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    return sort(input, dim, descending)[1]


def msort(input: Tensor) -> Tensor:
    return sort(input, 0)[0]


def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True, *, out: Any = None) -> Any:
    """The ``k`` largest (or smallest) along ``dim`` in order."""
    v = val(input)
    d = norm_dim(dim, v.aval.ndim)
    n = v.aval.shape[d] if v.aval.ndim else 1
    if not 0 <= k <= n:
        raise AutogradError(f"selected index k out of range: k={k} for a dimension of size {n}")
    if v.aval.ndim == 0:
        s, i = _scalar_pair(v)
    else:
        s, i = _sorted(v, d, largest)
        s, i = P.narrow(s, d, 0, k), P.narrow(i, d, 0, k)
    return topk_result(wrap(s), wrap(i))


def _pick(s: Value, i: Value, d: int, k: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    s, i = P.narrow(s, d, k, 1), P.narrow(i, d, k, 1)
    if not keepdim:
        sh = tuple([n for j, n in enumerate(s.aval.shape) if j != d])
        s, i = P.reshape(s, sh), P.reshape(i, sh)
    return wrap(s), wrap(i)


def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """The ``k``-th smallest along ``dim`` (k from 1)."""
    v = val(input)
    d = norm_dim(dim, v.aval.ndim)
    if v.aval.ndim == 0:
        return kthvalue_result(*map(wrap, _scalar_pair(v)))
    if not 1 <= k <= v.aval.shape[d]:
        raise AutogradError(f"kthvalue(): selected number k out of range for dimension {d}")
    return kthvalue_result(*_pick(*_sorted(v, d, False), d, k - 1, keepdim))


def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """Lower median (NaN if any): a scalar, or (values, indices) along ``dim``."""
    v = val(input)
    if dim is None:
        n = v.aval.size
        if n == 0:
            return wrap(P.full((), math.nan, v.aval.dtype))
        s, _ = _sorted(P.reshape(v, (n,)), 0, False)
        mid = P.reshape(P.narrow(s, 0, (n - 1) // 2, 1), ())
        return wrap(_nan_wins(mid, P.reshape(P.narrow(s, 0, n - 1, 1), ())))
    d = norm_dim(dim, v.aval.ndim)
    if v.aval.ndim == 0:
        return median_result(*map(wrap, _scalar_pair(v)))
    n = v.aval.shape[d]
    s, i = _sorted(v, d, False)
    low, at = _pick(s, i, d, (n - 1) // 2, keepdim)
    if v.aval.dtype.is_floating_point:
        bad = P.isnan(v)
        first = P.argreduce("max", P.cast(bad, uint8), d)
        any_nan = P.reduce("any", bad, (d,))
        if keepdim:
            first, any_nan = P.unsqueeze(first, d), P.unsqueeze(any_nan, d)
        low = wrap(P.where(any_nan, P.full_like(low._v, math.nan), low._v))
        at = wrap(P.where(any_nan, first, at._v))
    return median_result(low, at)


def _nan_wins(mid: Value, largest: Value) -> Value:
    return P.where(P.isnan(largest), largest, mid) if mid.aval.dtype.is_floating_point else mid


def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """Median ignoring NaN."""
    v = val(input)
    flat = dim is None
    if flat:
        v = P.reshape(v, (v.aval.size,))
    d = 0 if flat else norm_dim(dim, v.aval.ndim)
    s, i = _sorted(v, d, False)
    count = P.reduce("add", P.cast(P.logical_not(P.isnan(v)), int64), (d,), True)
    k = P.maximum(P.floordiv(P.sub(count, 1), 2), 0)
    s, i = P.gather(s, k, d), P.gather(i, k, d)
    if not keepdim or flat:
        sh = tuple([n for j, n in enumerate(s.aval.shape) if j != d])
        s, i = P.reshape(s, sh), P.reshape(i, sh)
    return wrap(s) if flat else median_result(wrap(s), wrap(i))


def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    """The smallest most frequent value along ``dim`` and its last index."""
    v = val(input)
    d = norm_dim(dim, v.aval.ndim)
    if v.aval.ndim == 0:
        return mode_result(*map(wrap, _scalar_pair(v)))
    s, i = _sorted(v, d, False)
    same = P.eq(P.unsqueeze(s, d + 1), P.unsqueeze(s, d))
    count = P.reduce("add", P.cast(same, int64), (d + 1,))
    best = P.unsqueeze(P.argreduce("max", count, d), d)
    length = P.gather(count, best, d)
    value, index = P.gather(s, best, d), P.gather(i, P.sub(P.add(best, length), 1), d)
    if not keepdim:
        sh = tuple([n for j, n in enumerate(v.aval.shape) if j != d])
        value, index = P.reshape(value, sh), P.reshape(index, sh)
    return mode_result(wrap(value), wrap(index))


def quantile(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear") -> Tensor:
    """q-th quantiles (q a number or 1-D tensor of them, in front of the result)."""
    v = val(input)
    if not v.aval.dtype.is_floating_point:
        raise DTypeError("quantile() input tensor must be either float or double dtype")
    qs = np.asarray(q.tolist() if isinstance(q, Tensor) else q, np.float64)
    if (qs < 0).any() or (qs > 1).any():
        raise AutogradError("quantile() q values must be in the range [0, 1]")
    nd = v.aval.ndim
    flat = dim is None
    x = P.reshape(v, (v.aval.size,)) if flat else v
    d = 0 if flat else norm_dim(dim, nd)
    s, _ = _sorted(x, d, False)
    n = x.aval.shape[d]
    if n == 0:
        raise AutogradError("quantile() input tensor must be non-empty")
    parts = [_one_quantile(s, float(a), d, n, interpolation) for a in qs.reshape(-1)]
    top = P.narrow(s, d, n - 1, 1)
    parts = [P.where(P.isnan(top), top, p) for p in parts]
    shape = tuple([1] * nd if keepdim else []) if flat else tuple(
        [1 if j == d else m for j, m in enumerate(x.aval.shape) if keepdim or j != d])
    parts = [P.reshape(p, shape) for p in parts]
    if qs.ndim == 0:
        return wrap(parts[0])
    return wrap(P.concat(tuple([P.unsqueeze(p, 0) for p in parts]), 0))


def _one_quantile(s: Value, q: float, d: int, n: int, how: str) -> Value:
    pos = q * (n - 1)
    lo, hi = math.floor(pos), math.ceil(pos)
    a, b = P.narrow(s, d, lo, 1), P.narrow(s, d, hi, 1)
    if how == "lower":
        return a
    if how == "higher":
        return b
    if how == "nearest":
        return P.narrow(s, d, int(np.rint(pos)), 1)
    if how == "midpoint":
        return P.div(P.add(a, b), 2.0)
    if how != "linear":
        raise AutogradError("quantile() interpolation must be one of linear, lower, higher, midpoint or nearest, but got "
                            f"{how}")
    return P.add(a, P.mul(P.sub(b, a), pos - lo))


def nanquantile(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Quantiles ignoring NaN (evaluates; no gradient)."""
    from ..tensor import from_array, to_numpy

    qs = np.asarray(q.tolist() if isinstance(q, Tensor) else q, np.float64)
    arr = to_numpy(input)
    return from_array(np.asarray(np.nanquantile(arr, qs, axis=dim, keepdims=keepdim), arr.dtype).copy())


def _cum_extreme(kind: str, input: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    v = val(input)
    d = norm_dim(dim, v.aval.ndim)
    if v.aval.ndim == 0:
        a, b = _scalar_pair(v)
        return wrap(a), wrap(b)
    y = P.scan(kind, v, d)
    at = P.expand(P.iota_like(v, d, int64), v.aval.shape)
    hit = P.eq(v, y)
    if v.aval.dtype.is_floating_point:
        hit = P.bit_or(hit, P.isnan(v))
    idx = P.scan("max", P.where(hit, at, P.zeros_like(at)), d)
    return wrap(y), wrap(idx)


def cummax(input: Tensor, dim: int) -> Any:
    """Running maximum and the index of its latest occurrence."""
    return cummax_result(*_cum_extreme("max", input, dim))


def cummin(input: Tensor, dim: int) -> Any:
    """Running minimum and the index of its latest occurrence."""
    return cummin_result(*_cum_extreme("min", input, dim))


def searchsorted(sorted_sequence: Tensor, input: Any, *, out_int32: bool = False, right: bool = False,
                 side: str | None = None, sorter: Tensor | None = None) -> Tensor:
    """Insertion positions that keep the (last-dimension) order: the number of elements below (or not above)."""
    from .creation import tensor

    x = input if isinstance(input, Tensor) else tensor(input)
    s, v = val(sorted_sequence), val(x)
    if sorter is not None:
        s = P.gather(s, val(sorter), s.aval.ndim - 1)
    if side == "right":
        right = True
    if s.aval.ndim > 1 and s.aval.shape[:-1] != v.aval.shape[:-1]:
        raise ShapeError("torch.searchsorted(): boundaries tensor should be 1 dimension or the first N-1 dimensions of "
                         "boundaries tensor and input value tensor must match, but we got boundaries tensor "
                         f"{list(s.aval.shape)} and input value tensor {list(v.aval.shape)}")
    s = P.unsqueeze(s, s.aval.ndim - 1) if s.aval.ndim > 1 else s
    v1 = P.unsqueeze(v, v.aval.ndim)
    if s.aval.dtype is not v1.aval.dtype:
        s, v1 = P.cast(s, float64), P.cast(v1, float64)
    below = P.le(s, v1) if right else P.lt(s, v1)
    out = P.reduce("add", P.cast(below, int64), (below.aval.ndim - 1,))
    return wrap(P.cast(out, int32) if out_int32 else out)


def bucketize(input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """Index of the bucket each element falls in."""
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)
