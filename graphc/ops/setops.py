"""Functions whose result size depends on the data: unique, bincount, histograms, membership. They evaluate."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..device import device
from ..dtypes import float32, float64
from ..errors import AutogradError, DTypeError, ShapeError
from ..ir.recorder import fetched
from ..tensor import Tensor, from_array
from ._common import norm_dim, to_out, val
from ._named import named_result as _named_result

histogram_result: Any = _named_result("histogram", ["hist", "bin_edges"])


def _data(t: Tensor, name: str = "input") -> np.ndarray:
    return fetched(val(t, name))


def _sortable(arr: np.ndarray) -> np.ndarray:
    """bfloat16 has no order in NumPy: look at it as float32 (exact)."""
    return arr.astype(np.float32) if arr.dtype.kind == "V" or arr.dtype.name == "bfloat16" else arr


# --------------------------------------------------------------------------------------------------------------- unique
def _returned(where: device, values: np.ndarray, dt: np.dtype, inverse: Any, counts: Any, want_inverse: bool,
              want_counts: bool) -> Any:
    out: list[Any] = [from_array(np.array(values, dt, order="C"), dev=where)]
    if want_inverse:
        out.append(from_array(np.array(inverse, np.int64), dev=where))
    if want_counts:
        out.append(from_array(np.array(counts, np.int64), dev=where))
    return out[0] if len(out) == 1 else tuple(out)


def unique(input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False,
           dim: int | None = None) -> Any:
    """Distinct elements (or slices along ``dim``), always sorted; NaNs are all distinct."""
    arr = _data(input)
    key = _sortable(arr)
    axis = None if dim is None else norm_dim(dim, arr.ndim)
    values, inverse, counts = np.unique(key, return_inverse=True, return_counts=True, axis=axis, equal_nan=False)
    inverse = inverse.reshape(arr.shape if axis is None else (-1,))
    return _returned(input.device, values, arr.dtype, inverse, counts, return_inverse, return_counts)


def unique_consecutive(input: Tensor, return_inverse: bool = False, return_counts: bool = False,
                       dim: int | None = None) -> Any:
    """Elements (or slices along ``dim``) without consecutive repeats."""
    arr = _data(input)
    axis = None if dim is None else norm_dim(dim, arr.ndim)
    rows = arr.reshape(-1) if axis is None else np.moveaxis(arr, axis, 0)
    n = rows.shape[0]
    change = np.ones(n, bool)
    if n:
        change[1:] = (rows[1:] != rows[:-1]).any(tuple(range(1, rows.ndim)))
    inverse = np.cumsum(change) - 1
    values = rows[change] if axis is None else np.moveaxis(rows[change], 0, axis)
    counts = np.bincount(inverse)
    inverse = inverse.reshape(arr.shape if axis is None else (-1,))
    return _returned(input.device, values, arr.dtype, inverse, counts, return_inverse, return_counts)


# --------------------------------------------------------------------------------------------------------------- counts
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """Counts (or sums of weights) of each non-negative integer."""
    arr = _data(input)
    if arr.ndim != 1 or arr.dtype.kind not in "iu" or arr.size and arr.min() < 0:
        raise AutogradError("bincount only supports 1-d non-negative integral inputs.")
    if minlength < 0:
        raise AutogradError("minlength should be >= 0")
    if weights is None:
        return from_array(np.bincount(arr, None, minlength).astype(np.int64), dev=input.device)
    w = _data(weights, "weights")
    if w.shape != arr.shape:
        raise ShapeError("weights should be 1-d and have the same length as input, got shapes "
                         f"{list(w.shape)} and {list(arr.shape)}")
    kind = np.float32 if w.dtype == np.float32 else np.float64
    return from_array(np.bincount(arr, w, minlength).astype(kind), dev=input.device)


def _require_float(name: str, t: Tensor) -> None:
    if t.dtype not in (float32, float64):
        raise DTypeError(f"\"{name}\" not implemented for '{t.dtype.name}'; convert with .float() first")


def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0, *, out: Tensor | None = None) -> Tensor:
    """Histogram with equal bins; min == max means the data's range. Elements outside are ignored."""
    _require_float("histogram_cpu", input)
    if bins <= 0:
        raise AutogradError(f"bins must be > 0, got {bins}")
    arr = _data(input)
    lo, hi = float(min), float(max)
    if lo == hi and arr.size:
        lo, hi = float(arr.min()), float(arr.max())
    if lo == hi:
        lo, hi = lo - 1, hi + 1
    if not (np.isfinite(lo) and np.isfinite(hi)):
        raise AutogradError(f"range of [{lo}, {hi}] is not finite")
    if lo > hi:
        raise AutogradError("torch.histc: max must be larger than min")
    h, _ = np.histogram(arr, bins, (lo, hi))
    return to_out(out, from_array(h.astype(arr.dtype), dev=input.device)._v)


def histogram(input: Tensor, bins: Any, *, range: Any = None, weight: Tensor | None = None, density: bool = False,
              out: Any = None) -> Any:
    """(hist, bin_edges) for a number of equal ``bins``, or for 1-D bin edges."""
    _require_float("histogram_cpu", input)
    arr = _data(input)
    edges = _data(bins, "bins") if isinstance(bins, Tensor) else bins
    if isinstance(bins, Tensor) and (bins.ndim != 1 or bins.dtype is not input.dtype):
        raise AutogradError("torch.histogram(): input tensor and bins tensors should have the same dtype and bins be 1-D, but "
                            f"got input with float type {input.dtype.name} and bins with {bins.dtype.name}{list(bins.shape)}")
    if not isinstance(bins, Tensor) and bins <= 0:
        raise AutogradError(f"torch.histogram(): bins must be > 0, but got {bins}")
    w = None
    if weight is not None:
        w = _data(weight, "weight")
        if w.shape != arr.shape:
            raise ShapeError("torch.histogram(): if weight tensor is provided it should have the same shape as the input, got "
                             f"{list(w.shape)} and {list(arr.shape)}")
    if range is None and not isinstance(bins, Tensor) and arr.size == 0:
        range = (0.0, 1.0)
    h, e = np.histogram(arr, edges, range, density=density, weights=w)
    made = [from_array(x.astype(arr.dtype), dev=input.device) for x in (h, e)]
    return histogram_result(*(made if out is None else [to_out(o, t._read()) for o, t in zip(out, made)]))


# ----------------------------------------------------------------------------------------------------------- membership
def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Whether each element occurs in ``test_elements`` (either may be a number)."""
    if not isinstance(elements, Tensor) and not isinstance(test_elements, Tensor):
        raise TypeError("isin(): one of elements and test_elements must be a Tensor")
    a, b = [_sortable(_data(t) if isinstance(t, Tensor) else np.asarray(t)) for t in (elements, test_elements)]
    where = elements.device if isinstance(elements, Tensor) else test_elements.device
    return from_array(np.asarray(np.isin(a, b, assume_unique=False, invert=invert)), dev=where)
