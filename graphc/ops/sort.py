"""Sorting, selection and order statistics. All are built on the stable sort row, where NaN is the largest."""
from __future__ import annotations

import math
from typing import Any

from ..dtypes import bool_, float32, float64, int32, int64, uint8
from ..errors import AutogradError, DimError, DTypeError
from ..ir import build as P
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.recorder import apply
from ..tensor import Tensor, wrap
from ._common import binary_values, norm_dim, number, numpy_names, to_out, val
from ._named import named_result as _named_result

sort_result: Any = _named_result("sort", ["values", "indices"])
topk_result: Any = _named_result("topk", ["values", "indices"])
kthvalue_result: Any = _named_result("kthvalue", ["values", "indices"])
median_result: Any = _named_result("median", ["values", "indices"])
nanmedian_result: Any = _named_result("nanmedian", ["values", "indices"])
mode_result: Any = _named_result("mode", ["values", "indices"])
cummax_result: Any = _named_result("cummax", ["values", "indices"])
cummin_result: Any = _named_result("cummin", ["values", "indices"])


def _sorted(v: Value, d: int, descending: bool) -> tuple[Value, Value]:
    if v.aval.dtype.is_complex:
        raise DTypeError("Sort does not support complex dtypes on CPU")
    if v.aval.dtype is bool_:
        s, i = P.sort(P.cast(v, uint8), d, descending)
        return P.cast(s, bool_), i
    return P.sort(v, d, descending)


def _scalar_pair(v: Value) -> tuple[Value, Value]:
    return v, P.full((), 0, int64, v.aval.device)


def _pair(kind: Any, s: Value, i: Value, out: Any = None) -> Any:
    a, b = out if out is not None else (None, None)
    return kind(to_out(a, s), to_out(b, i))


def _drop(v: Value, d: int) -> Value:
    """Remove dimension ``d`` of size 1."""
    return P.reshape(v, v.aval.shape[:d] + v.aval.shape[d + 1:])


# ----------------------------------------------------------------------------------------------------------------- sort
@numpy_names
def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False, *, out: Any = None) -> Any:
    """(values, indices) along ``dim``; NaN is largest. Always stable."""
    v = val(input)
    d = norm_dim(dim, v.aval.ndim)
    s, i = _sorted(v, d, bool(descending)) if v.aval.ndim else _scalar_pair(v)
    return _pair(sort_result, s, i, out)


@numpy_names
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """Indices that sort along ``dim``."""
    return sort(input, dim, descending)[1]


def msort(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Values sorted along the first dimension."""
    return to_out(out, sort(input, 0)[0]._v)


@numpy_names
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True, *, out: Any = None) -> Any:
    """The ``k`` largest (or smallest) along ``dim`` in order, and their indices; of equals the first."""
    v = val(input)
    d = norm_dim(dim, v.aval.ndim)
    k = k.__index__()
    n = v.aval.shape[d] if v.aval.ndim else 1
    if not 0 <= k <= n:
        raise AutogradError(f"selected index k out of range: k={k} for a dimension of size {n}")
    if v.aval.ndim == 0:
        return _pair(topk_result, *_scalar_pair(v), out)
    if v.aval.dtype.is_complex:
        raise DTypeError("topk does not support complex dtypes on CPU")
    s, i = apply(OPS["topk"], (v,), (d, k, bool(largest)))
    return _pair(topk_result, s, i, out)


# ----------------------------------------------------------------------------------------------------- order statistics
def _nth(s: Value, i: Value, d: int, k: int, keepdim: bool) -> tuple[Value, Value]:
    """Element ``k`` of sorted values and indices."""
    s, i = P.narrow(s, d, k, 1), P.narrow(i, d, k, 1)
    return (s, i) if keepdim else (_drop(s, d), _drop(i, d))


def _not_empty(name: str, v: Value, d: int) -> None:
    if v.aval.shape[d] == 0:
        raise DimError(f"{name}(): Expected reduction dim {d} to have non-zero size.")


@numpy_names
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False, *, out: Any = None) -> Any:
    """The ``k``-th smallest along ``dim`` (k from 1) and its index."""
    v = val(input)
    d = norm_dim(dim, v.aval.ndim)
    if not 1 <= k <= (v.aval.shape[d] if v.aval.ndim else 1):
        raise AutogradError(f"kthvalue(): selected number k out of range for dimension {d}: k={k}, shape {list(v.aval.shape)}")
    if v.aval.ndim == 0:
        return _pair(kthvalue_result, *_scalar_pair(v), out)
    return _pair(kthvalue_result, *_nth(*_sorted(v, d, False), d, k - 1, keepdim), out)


@numpy_names
def median(input: Tensor, dim: int | None = None, keepdim: bool = False, *, out: Any = None) -> Any:
    """Lower median (NaN if any): a scalar, or (values, indices) along ``dim``."""
    v = val(input)
    if dim is None:
        n = v.aval.size
        if n == 0:
            return wrap(P.full((), math.nan if v.aval.dtype.is_floating_point else 0, v.aval.dtype, v.aval.device))
        s, _ = _sorted(P.reshape(v, (n,)), 0, False)
        mid = P.reshape(P.narrow(s, 0, (n - 1) // 2, 1), ())
        if v.aval.dtype.is_floating_point:
            largest = P.reshape(P.narrow(s, 0, n - 1, 1), ())
            mid = P.where(P.isnan(largest), largest, mid)
        return wrap(mid)
    d = norm_dim(dim, v.aval.ndim)
    if v.aval.ndim == 0:
        return _pair(median_result, *_scalar_pair(v), out)
    _not_empty("median", v, d)
    s, i = _nth(*_sorted(v, d, False), d, (v.aval.shape[d] - 1) // 2, True)
    if v.aval.dtype.is_floating_point:
        bad = P.isnan(v)
        first = P.unsqueeze(P.argreduce("max", P.cast(bad, uint8), d), d)
        i = P.where(P.reduce("any", bad, (d,), True), first, i)
        s = P.gather(v, i, d)
    return _pair(median_result, *((s, i) if keepdim else (_drop(s, d), _drop(i, d))), out)


@numpy_names
def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False, *, out: Any = None) -> Any:
    """Lower median of the elements that are not NaN (NaN if there are none)."""
    v = val(input)
    if dim is None and v.aval.size == 0:
        return median(input)
    if v.aval.ndim == 0:
        return input.clone() if dim is None else _pair(nanmedian_result, *_scalar_pair(v), out)
    if dim is None:
        v = P.reshape(v, (v.aval.size,))
    d = 0 if dim is None else norm_dim(dim, v.aval.ndim)
    _not_empty("nanmedian", v, d)
    s, i = _sorted(v, d, False)
    count = P.reduce("add", P.cast(P.logical_not(P.isnan(v)), int64), (d,), True)
    k = P.maximum(P.floordiv(P.sub(count, 1), 2), 0)
    s, i = P.gather(s, k, d), P.gather(i, k, d)
    if not keepdim or dim is None:
        s, i = _drop(s, d), _drop(i, d)
    return wrap(s) if dim is None else _pair(nanmedian_result, s, i, out)


@numpy_names
def mode(input: Tensor, dim: int = -1, keepdim: bool = False, *, out: Any = None) -> Any:
    """The smallest of the most frequent values along ``dim`` and its last index.

    In sorted order the running length of a run of equals peaks at its last element.
    """
    v = val(input)
    d = norm_dim(dim, v.aval.ndim)
    if v.aval.ndim == 0:
        return _pair(mode_result, *_scalar_pair(v), out)
    _not_empty("mode", v, d)
    s, i = _sorted(v, d, False)
    n = v.aval.shape[d]
    head = P.full(v.aval.shape[:d] + (1,) + v.aval.shape[d + 1:], True, bool_, v.aval.device)
    starts = P.concat((head, P.ne(P.narrow(s, d, 1, n - 1), P.narrow(s, d, 0, n - 1))), d)
    at = P.iota_like(v, d, int64)
    begin = P.scan("max", P.where(starts, at, P.full_like(at, 0)), d)
    best = P.unsqueeze(P.argreduce("max", P.sub(at, begin), d), d)
    value, index = P.gather(s, best, d), P.gather(i, best, d)
    return _pair(mode_result, *((value, index) if keepdim else (_drop(value, d), _drop(index, d))), out)


# ------------------------------------------------------------------------------------------------------------ quantiles
_INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


def quantile(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear",
             out: Tensor | None = None) -> Tensor:
    """q-th quantiles along ``dim`` (default of all); ``q`` a number or a 1-D tensor, whose dimension then comes first."""
    return _quantile("quantile", input, q, dim, keepdim, interpolation, False, out)


def nanquantile(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear",
                out: Tensor | None = None) -> Tensor:
    """:func:`quantile` of the elements that are not NaN."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, True, out)


def _q_value(name: str, q: Any, v: Value) -> tuple[Value, bool]:
    """The quantiles as a vector, and whether they were a single number."""
    if not isinstance(q, Tensor):
        if not 0 <= q <= 1:
            raise AutogradError(f"{name}() q must be in the range [0, 1] but got {q}")
        return P.reshape(number(float(q), v.aval.dtype), (1,)), True
    x = val(q)
    if x.aval.ndim > 1:
        raise AutogradError(f"{name}() q must be a scalar or 1D tensor")
    if x.aval.dtype is not v.aval.dtype:
        raise DTypeError(f"{name}() q tensor must be same dtype as the input tensor")
    return P.reshape(x, (x.aval.size,)), x.aval.ndim == 0


def _quantile(name: str, input: Tensor, q: Any, dim: int | None, keepdim: bool, how: str, skip_nan: bool,
              out: Tensor | None) -> Tensor:
    v = val(input)
    if v.aval.dtype not in (float32, float64):
        raise DTypeError(f"{name}() input tensor must be either float or double dtype")
    if how not in _INTERPOLATIONS:
        raise AutogradError(f"{name}() interpolation must be one of linear, lower, higher, midpoint or nearest, but got {how}")
    qs, single = _q_value(name, q, v)
    qs = P.to_device(qs, v.aval.device)
    nd = v.aval.ndim
    d = None if dim is None else norm_dim(dim, nd)
    if d is None or nd == 0:
        x = P.reshape(v, (v.aval.size,))
    else:
        x = P.permute(v, tuple([j for j in range(nd) if j != d]) + (d,))
    if x.aval.size == 0:
        raise AutogradError(f"{name}() input tensor must be non-empty")
    r = _interpolated(x, qs, how, skip_nan)  # (..., Q)
    lead, k = r.aval.shape[:-1], r.aval.shape[-1]
    shape = lead
    if keepdim:
        shape = (1,) * nd if d is None else lead[:d] + (1,) * (nd > 0) + lead[d:]
    if single:
        return to_out(out, P.reshape(r, shape))
    r = P.permute(r, (len(lead), *range(len(lead))))
    return to_out(out, P.reshape(r, (k, *shape)))


def _interpolated(x: Value, qs: Value, how: str, skip_nan: bool) -> Value:
    """Quantiles of the last dimension of ``x``, in a new last dimension."""
    last, dt = x.aval.ndim - 1, x.aval.dtype
    n = x.aval.shape[last]
    s, _ = _sorted(x, last, False)
    if skip_nan:
        count = P.reduce("add", P.cast(P.logical_not(P.isnan(x)), dt), (last,), True)
        ranks = P.maximum(P.mul(qs, P.sub(count, 1)), 0)
    else:  # NaN sorts last: where there is one, take it
        ranks = P.where(P.isnan(P.narrow(s, last, n - 1, 1)), P.full_like(qs, n - 1), P.mul(qs, float(n - 1)))
    if how in ("lower", "higher", "nearest"):
        ranks = {"lower": P.floor, "higher": P.ceil, "nearest": P.round}[how](ranks)
    below = P.floor(ranks)
    low = P.gather(s, P.cast(below, int64), last)
    if how not in ("linear", "midpoint"):
        return low
    high = P.gather(s, P.cast(P.ceil(ranks), int64), last)
    weight = P.sub(ranks, below) if how == "linear" else P.full_like(ranks, 0.5)
    gap = P.sub(high, low)  # interpolate from the nearer end, so that an infinite one is kept
    return P.where(P.lt(weight, 0.5), P.add(low, P.mul(gap, weight)), P.sub(high, P.mul(gap, P.sub(1.0, weight))))


# ---------------------------------------------------------------------------------------------------- running extremes
def _cum_extreme(kind: str, input: Tensor, dim: int) -> tuple[Value, Value]:
    v = val(input)
    d = norm_dim(dim, v.aval.ndim)
    if v.aval.ndim == 0:
        return _scalar_pair(v)
    y = P.scan(kind, v, d)
    at = P.expand(P.iota_like(v, d, int64), v.aval.shape)
    hit = P.eq(v, y)
    if v.aval.dtype.is_floating_point:
        hit = P.bit_or(hit, P.isnan(v))
    return y, P.scan("max", P.where(hit, at, P.zeros_like(at)), d)


@numpy_names
def cummax(input: Tensor, dim: int, *, out: Any = None) -> Any:
    """Running maximum and the index of its latest occurrence."""
    return _pair(cummax_result, *_cum_extreme("max", input, dim), out)


@numpy_names
def cummin(input: Tensor, dim: int, *, out: Any = None) -> Any:
    """Running minimum and the index of its latest occurrence."""
    return _pair(cummin_result, *_cum_extreme("min", input, dim), out)


# --------------------------------------------------------------------------------------------------------------- search
def searchsorted(sorted_sequence: Tensor, input: Any, *, out_int32: bool = False, right: bool = False,
                 side: str | None = None, out: Tensor | None = None, sorter: Tensor | None = None) -> Tensor:
    """Where to insert ``input`` (tensor or number) to keep the last dimension sorted.

    left: the number of elements below; right: of those not above. ``sorter``: indices that sort ``sorted_sequence``.
    """
    val(sorted_sequence, "sorted_sequence")
    if side not in (None, "left", "right"):
        raise AutogradError(f"torch.searchsorted(): side can only be 'left' or 'right' but got {side}")
    if side == "left" and right:
        raise AutogradError("torch.searchsorted(): side and right can't be set to opposites, got side of left while right "
                            "was True")
    s, v = binary_values("searchsorted", sorted_sequence, input)
    if sorter is not None:
        order = val(sorter, "sorter")
        if order.aval.shape != s.aval.shape:
            raise AutogradError("torch.searchsorted(): boundary and sorter must have the same size, but got boundary tensor "
                                f"{list(s.aval.shape)} and got sorter tensor {list(order.aval.shape)}")
        if order.aval.dtype is not int64:
            raise DTypeError("torch.searchsorted(): sorter must be a tensor of long dtype but got dtype "
                             f"{order.aval.dtype.name}")
        s = P.gather(s, order, s.aval.ndim - 1)
    found = apply(OPS["searchsorted"], (s, v), (bool(right) or side == "right",))
    return to_out(out, P.cast(found, int32) if out_int32 else found)


def bucketize(input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False,
              out: Tensor | None = None) -> Tensor:
    """Index of the bucket between sorted 1-D ``boundaries`` each element falls in."""
    if boundaries.ndim != 1:
        raise AutogradError(f"boundaries tensor must be 1 dimension, but got dim({boundaries.ndim})")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right, out=out)
