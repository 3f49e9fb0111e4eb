"""Functions whose result size depends on the data: unique, bincount, histograms, membership. They evaluate."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import AutogradError
from ..ir.recorder import evaluated
from ..tensor import Tensor, from_array
from ._common import norm_dim, val


def _data(t: Tensor) -> np.ndarray:
    return evaluated(val(t))


def _returned(values: np.ndarray, inverse: Any, counts: Any, want_inverse: bool, want_counts: bool) -> Any:
    out: list[Any] = [from_array(np.array(values, order="C"))]
    if want_inverse:
        out.append(from_array(np.array(inverse, np.int64)))
    if want_counts:
        out.append(from_array(np.array(counts, np.int64)))
    return out[0] if len(out) == 1 else tuple(out)


def unique(input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False,
           dim: int | None = None) -> Any:
    """Distinct elements (or slices along ``dim``), sorted."""
    arr = _data(input)
    axis = None if dim is None else norm_dim(dim, arr.ndim)
    values, inverse, counts = np.unique(arr, return_inverse=True, return_counts=True, axis=axis)
    inverse = inverse.reshape(arr.shape if axis is None else (-1,))
    return _returned(values, inverse, counts, return_inverse, return_counts)


def unique_consecutive(input: Tensor, return_inverse: bool = False, return_counts: bool = False,
                       dim: int | None = None) -> Any:
    """Elements (or slices) without consecutive repeats."""
    arr = _data(input)
    rows = arr.reshape(-1) if dim is None else np.moveaxis(arr, norm_dim(dim, arr.ndim), 0)
    n = rows.shape[0]
    if n == 0:
        return _returned(rows, np.zeros(0), np.zeros(0), return_inverse, return_counts)
    change = np.r_[True, (rows[1:] != rows[:-1]).reshape(n - 1, -1).any(1)]
    inverse = np.cumsum(change) - 1
    values = rows[change] if dim is None else np.moveaxis(rows[change], 0, norm_dim(dim, arr.ndim))
    shape = arr.shape if dim is None else (-1,)
    return _returned(values, inverse.reshape(shape), np.bincount(inverse), return_inverse, return_counts)


def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """Counts (or sums of weights) of each non-negative integer."""
    arr = _data(input)
    if arr.ndim != 1 or arr.dtype.kind not in "iu":
        raise AutogradError("bincount only supports 1-d non-negative integral inputs.")
    if arr.size and arr.min() < 0:
        raise AutogradError("bincount only supports 1-d non-negative integral inputs.")
    w = None if weights is None else _data(weights)
    out = np.bincount(arr, w, minlength)
    return from_array(out.astype(np.int64 if w is None else w.dtype if w.dtype == np.float32 else np.float64))


def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """Histogram with equal bins; min == max means the data's range. Elements outside are ignored."""
    arr = _data(input)
    lo, hi = float(min), float(max)
    if lo == hi and arr.size:
        lo, hi = float(arr.min()), float(arr.max())
    if lo == hi:
        lo, hi = lo - 1, hi + 1
    if lo > hi:
        raise AutogradError("torch.histc: max must be larger than min")
    h, _ = np.histogram(arr, bins, (lo, hi))
    return from_array(h.astype(arr.dtype))


def histogram(input: Tensor, bins: Any, *, range: Any = None, weight: Tensor | None = None, density: bool = False) -> Any:
    """(hist, bin_edges)."""
    arr = _data(input)
    edges = _data(bins) if isinstance(bins, Tensor) else bins
    w = None if weight is None else _data(weight).reshape(arr.shape)
    h, e = np.histogram(arr, edges, range, density=density, weights=w)
    return from_array(h.astype(arr.dtype)), from_array(e.astype(arr.dtype))


def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Whether each element occurs in ``test_elements``."""
    a = _data(elements) if isinstance(elements, Tensor) else np.asarray(elements)
    b = _data(test_elements) if isinstance(test_elements, Tensor) else np.asarray(test_elements)
    return from_array(np.isin(a, b, invert=invert))


