"""Pooling and resampling."""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dtypes import int64
from ..errors import AutogradError, ShapeError
from ..ir import build as P
from ..ir.composites._common import wide
from ..ir.composites.pool import flat_argmax
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.recorder import apply
from ..tensor import Tensor, from_array, wrap
from ._common import val
from .conv import tuple_of


def _geometry(v: Value, n: int, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Any:
    """(kernel, stride, lo, hi, dilation) with ceil_mode turned into extra padding at the end."""
    k = tuple_of(kernel, n, "kernel_size")
    s = k if stride is None or stride == [] or stride == () else tuple_of(stride, n, "stride")
    p, d = tuple_of(padding, n, "padding"), tuple_of(dilation, n, "dilation")
    if v.aval.ndim not in (n + 1, n + 2):
        raise ShapeError(f"pool{n}d: Expected {n + 1}D or {n + 2}D input, got shape {list(v.aval.shape)}")
    for what, values, least in (("kernel size", k, 1), ("stride", s, 1), ("dilation", d, 1), ("pad", p, 0)):
        if min(values) < least:
            must = "greater than zero" if least else "non-negative"
            raise AutogradError(f"pool{n}d: {what} must be {must}, but got {what}: {min(values)}")
    if any(2 * a > m for a, m in zip(p, k)):
        raise AutogradError(f"pad should be at most half of effective kernel size, but got pad={p[0]}, kernel_size={k[0]} and "
                            f"dilation={d[0]}")
    hi = list(p)
    for i, m in enumerate(v.aval.shape[-n:]):
        span = d[i] * (k[i] - 1) + 1
        out = (m + 2 * p[i] - span) // s[i] + 1
        if ceil_mode:
            up = -(-(m + 2 * p[i] - span) // s[i]) + 1
            if (up - 1) * s[i] >= m + p[i]:
                up -= 1
            if up > out:
                hi[i] = p[i] + (up - 1) * s[i] + span - (m + 2 * p[i])
            out = up
        if out <= 0:
            raise ShapeError(f"Given input size {list(v.aval.shape)}: calculated output size is too small for kernel {k}")
    return k, s, p, tuple(hi), d


def _max(n: int, input: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool,
         return_indices: bool) -> Any:
    v = val(input)
    attrs = _geometry(v, n, kernel, stride, padding, dilation, ceil_mode)
    out = wrap(apply(OPS["max_pool"], (v,), attrs))
    if not return_indices:
        return out
    return out, wrap(_flat_indices(v, attrs, n))


def _flat_indices(v: Value, attrs: Any, n: int) -> Value:
    """Indices into the flattened spatial dims, as PyTorch returns them."""
    k, s, lo, _, d = attrs
    within = flat_argmax(attrs, v)
    spatial = v.aval.shape[-n:]
    out = within.aval.shape[-n:]
    flat: Any = None
    rest = within
    parts = []
    for i in reversed(range(n)):
        parts.append(P.remainder(rest, k[i]))
        rest = P.floordiv(rest, k[i])
    for i, w in enumerate(reversed(parts)):
        shape = [1] * within.aval.ndim
        shape[within.aval.ndim - n + i] = out[i]
        origin = P.reshape(P.sub(P.mul(P.iota(out[i], int64, v.aval.device), s[i]), lo[i]), tuple(shape))
        at = P.add(origin, P.mul(w, d[i]))
        flat = at if flat is None else P.add(P.mul(flat, spatial[i]), at)
    return flat


def max_pool1d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """Largest of each window of (N, C, L)."""
    return _max(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """Largest of each window of (N, C, H, W)."""
    return _max(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """Largest of each window of (N, C, D, H, W)."""
    return _max(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def _avg(n: int, input: Tensor, kernel: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool,
         divisor: int | None) -> Tensor:
    v = val(input)
    if divisor == 0:
        raise AutogradError("divisor must be not zero")
    k, s, lo, hi, d = _geometry(v, n, kernel, stride, padding, 1, ceil_mode)
    lead = v.aval.ndim - n
    axes = tuple(range(lead, v.aval.ndim))
    x = P.pad(v, (0,) * lead + lo, (0,) * lead + hi, 0)
    w = P.window(x, axes, k, s, d)
    total = P.reduce("add", w, tuple(range(v.aval.ndim, v.aval.ndim + n)))
    if divisor is not None:
        return wrap(P.div(total, float(divisor)))
    if lo == hi and (count_include_pad or not any(lo)):
        return wrap(P.div(total, float(math.prod(k))))
    counts: Any = 1.0
    for i, m in enumerate(v.aval.shape[-n:]):
        first = np.arange(total.aval.shape[lead + i]) * s[i] - lo[i]
        a, b = (-lo[i], m + lo[i]) if count_include_pad else (0, m)
        c = np.minimum(first + k[i], b) - np.maximum(first, a)
        counts = np.multiply.outer(counts, c.astype(v.aval.dtype.np))
    return wrap(P.div(total, from_array(np.ascontiguousarray(counts, v.aval.dtype.np), dev=v.aval.device)._v))


def avg_pool1d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
               count_include_pad: bool = True) -> Tensor:
    """Mean of each window of (N, C, L)."""
    return _avg(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, divisor_override: int | None = None) -> Tensor:
    """Mean of each window of (N, C, H, W)."""
    return _avg(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, divisor_override: int | None = None) -> Tensor:
    """Mean of each window of (N, C, D, H, W)."""
    return _avg(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def lp_pool(n: int, input: Tensor, norm_type: float, kernel_size: Any, stride: Any, ceil_mode: bool) -> Tensor:
    """(sum |x|^p)^(1/p) over windows."""
    v = val(input)
    k = tuple_of(kernel_size, n, "kernel_size")
    s = _avg(n, wrap(P.pow(v, float(norm_type))), k, stride, 0, ceil_mode, True, None)
    total = P.mul(s._v, float(math.prod(k)))
    return wrap(P.pow(P.mul(P.sign(total), P.maximum(P.abs(total), 0)), 1.0 / norm_type))


def lp_pool1d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    return lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    return lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


# -------------------------------------------------------------------------------------------------------------- adaptive
def _cells(n: int, m: int) -> list[tuple[int, int]]:
    """Bounds of the m adaptive cells over n positions."""
    return [(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]


def _adaptive_sizes(v: Value, n: int, output_size: Any) -> tuple[int, ...]:
    if v.aval.ndim not in (n + 1, n + 2):
        raise ShapeError(f"adaptive_pool{n}d(): Expected {n + 1}D or {n + 2}D tensor, but got {list(v.aval.shape)}")
    size = (output_size,) * n if output_size is None or isinstance(output_size, int) else tuple(output_size)
    if len(size) != n:
        raise ShapeError(f"adaptive_pool{n}d: output_size must have {n} elements, got {size}")
    if any(m is not None and m < 0 for m in size):
        raise ShapeError(f"adaptive_pool{n}d: elements of output_size must be greater than or equal to 0 but received {size}")
    return tuple([d if m is None else int(m) for m, d in zip(size, v.aval.shape[-n:])])


def _adaptive_avg(n: int, input: Tensor, output_size: Any) -> Tensor:
    v = val(input)
    for i, m in enumerate(_adaptive_sizes(v, n, output_size)):
        axis = v.aval.ndim - n + i
        size = v.aval.shape[axis]
        if m == size:
            continue
        if m and size % m == 0:
            sh = v.aval.shape
            v = P.reshape(v, (*sh[:axis], m, size // m, *sh[axis + 1:]))
            v = P.cast(P.div(P.reduce("add", wide(v), (axis + 1,)), float(size // m)), v.aval.dtype)
            continue
        weights = np.zeros((m, size), v.aval.dtype.np)
        for j, (a, b) in enumerate(_cells(size, m)):
            weights[j, a:b] = 1 / (b - a)
        y = P.contract(v, from_array(weights, dev=v.aval.device)._v, ((), ()), ((axis,), (1,)))
        nd = v.aval.ndim
        v = P.permute(y, (*range(axis), nd - 1, *range(axis, nd - 1)))
    return wrap(v)


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """Means over ``output_size`` cells."""
    return _adaptive_avg(1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Means over a grid of cells."""
    return _adaptive_avg(2, input, output_size)


def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """Means over a grid of cells."""
    return _adaptive_avg(3, input, output_size)


def _adaptive_max(n: int, input: Tensor, output_size: Any, return_indices: bool) -> Any:
    v = val(input)
    sizes = _adaptive_sizes(v, n, output_size)
    lead = v.aval.shape[:-n]
    grids: list[np.ndarray] = []
    widest = []
    for m, d in zip(sizes, v.aval.shape[-n:]):
        cells = _cells(d, m)
        w = max((b - a for a, b in cells), default=1)
        grids.append(np.array([[min(a + j, b - 1) for j in range(w)] for a, b in cells], np.int64).reshape(m, w))
        widest.append(w)
    flat = np.zeros((*sizes, *widest), np.int64)
    for i, g in enumerate(grids):
        shape = [1] * (2 * n)
        shape[i], shape[n + i] = g.shape
        flat = flat * v.aval.shape[-n + i] + g.reshape(shape)
    k = math.prod(widest)
    idx = from_array(np.ascontiguousarray(flat.reshape(*sizes, k)), dev=v.aval.device)._v
    x = P.reshape(v, (*lead, math.prod(v.aval.shape[-n:])))
    patches = P.take(x, idx, len(lead))
    which = P.argreduce("max", patches, patches.aval.ndim - 1)
    pick = P.unsqueeze(which, patches.aval.ndim - 1)
    out = wrap(P.reshape(P.gather(patches, pick, patches.aval.ndim - 1), which.aval.shape))
    if not return_indices:
        return out
    full = P.expand(idx, patches.aval.shape)
    return out, wrap(P.reshape(P.gather(full, pick, patches.aval.ndim - 1), which.aval.shape))


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    return _adaptive_max(1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    return _adaptive_max(2, input, output_size, return_indices)


def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    return _adaptive_max(3, input, output_size, return_indices)


# ----------------------------------------------------------------------------------------------------------- resampling
def _source(m: int, n: int, scale: float | None, align: bool) -> np.ndarray:
    """Source coordinate of each output position."""
    i = np.arange(m, dtype=np.float64)
    if align:
        return i * ((n - 1) / (m - 1) if m > 1 else 0.0)
    step = 1 / scale if scale is not None else n / m
    return (i + 0.5) * step - 0.5


def _linear_weights(m: int, n: int, scale: float | None, align: bool) -> np.ndarray:
    x = np.maximum(_source(m, n, scale, align), 0)
    lo = np.minimum(np.floor(x).astype(int), n - 1)
    hi = np.minimum(lo + 1, n - 1)
    f = x - lo
    w = np.zeros((m, n))
    np.add.at(w, (np.arange(m), lo), 1 - f)
    np.add.at(w, (np.arange(m), hi), f)
    return w


def _cubic_weights(m: int, n: int, scale: float | None, align: bool) -> np.ndarray:
    x = _source(m, n, scale, align)
    lo = np.floor(x).astype(int)
    f = x - lo
    a = -0.75
    w = np.zeros((m, n))
    for k in range(-1, 3):
        t = np.abs(f - k)
        c = np.where(t <= 1, ((a + 2) * t - (a + 3)) * t * t + 1, ((a * t - 5 * a) * t + 8 * a) * t - 4 * a)
        np.add.at(w, (np.arange(m), np.clip(lo + k, 0, n - 1)), c)
    return w


def _smooth_weights(mode: str) -> Any:
    """Weights with ``antialias=True``: a filter as wide as an output pixel (PyTorch's: a = -0.5 in the cubic one)."""
    reach = 2.0 if mode == "bicubic" else 1.0

    def kernel(t: np.ndarray) -> np.ndarray:
        t = np.abs(t)
        if mode != "bicubic":
            return np.maximum(1 - t, 0)
        near, far = (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2
        return np.where(t < 1, near, np.where(t < 2, far, 0))

    def make(m: int, n: int, scale: float | None, align: bool) -> np.ndarray:
        step = ((n - 1) / (m - 1) if m > 1 else 0.0) if align else 1 / scale if scale is not None else n / m
        wide = max(step, 1.0)
        w = np.zeros((m, n))
        for i in range(m):
            center = step * (i + 0.5)
            lo, hi = max(int(center - reach * wide + 0.5), 0), min(int(center + reach * wide + 0.5), n)
            taps = kernel((np.arange(lo, hi) - center + 0.5) / wide)
            w[i, lo:hi] = taps / taps.sum() if taps.sum() else taps
        return w

    return make


def interpolate(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
                align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
                antialias: bool = False) -> Tensor:
    """Resize the spatial dimensions: nearest, nearest-exact, linear, bilinear, bicubic, trilinear, area."""
    v = val(input)
    n = v.aval.ndim - 2
    if not 1 <= n <= 3:
        raise NotImplementedError("Input Error: Only 3D, 4D and 5D input Tensors supported "
                                  f"(got {v.aval.ndim}D) for the modes: {mode}")
    if (size is None) == (scale_factor is None):
        raise ValueError("either size or scale_factor should be defined" if size is None
                         else "only one of size or scale_factor should be defined")
    if align_corners is not None and mode in ("nearest", "area", "nearest-exact"):
        raise ValueError("align_corners option can only be set with the interpolating modes: linear | bilinear | bicubic | "
                         "trilinear")
    spatial = v.aval.shape[2:]
    scales: list[float | None] = [None] * n
    if size is not None:
        out = (size,) * n if isinstance(size, int) else tuple(size)
    else:
        f = (scale_factor,) * n if isinstance(scale_factor, (int, float)) else tuple(scale_factor)
        if len(f) != n:
            raise ValueError("Input and scale_factor must have the same number of spatial dimensions, but got input with "
                             f"spatial dimensions of {list(spatial)} and scale_factor of shape {f}.")
        out = tuple([int(math.floor(d * s)) for d, s in zip(spatial, f)])
        if not recompute_scale_factor:
            scales = [float(s) for s in f]
    if len(out) != n:
        raise ValueError(f"Input and output must have the same number of spatial dimensions, but got input with spatial "
                         f"dimensions of {list(spatial)} and output size of {list(out)}")
    if 0 in out or 0 in spatial:
        raise ShapeError(f"Input and output sizes should be greater than 0, but got input {list(spatial)} and output "
                         f"{list(out)}")
    if antialias and (mode not in ("bilinear", "bicubic") or n != 2):
        raise ValueError("Anti-alias option is restricted to bilinear and bicubic modes and requires a 4-D tensor as input")
    if mode == "area":
        return _adaptive_avg(n, input, out)
    want = {"linear": 1, "bilinear": 2, "trilinear": 3, "bicubic": 2}.get(mode)
    if want is None and mode not in ("nearest", "nearest-exact"):
        raise NotImplementedError(f"interpolate: mode {mode!r} is not supported")
    if want is not None and want != n:
        raise NotImplementedError(f"Got {v.aval.ndim}D input, but {mode} mode needs {want + 2}D input")
    for i, (m, d, sc) in enumerate(zip(out, spatial, scales)):
        axis = 2 + i
        if mode.startswith("nearest"):
            step = 1 / sc if sc is not None else d / m
            pos = np.arange(m, dtype=np.float32 if v.aval.dtype.itemsize <= 4 else np.float64)
            src = (pos + 0.5) * np.float32(step) if mode == "nearest-exact" else pos * np.float32(step)
            idx = np.minimum(np.floor(src).astype(np.int64), d - 1)
            v = P.take(v, from_array(idx, dev=v.aval.device)._v, axis)
            continue
        make = _smooth_weights(mode) if antialias else _cubic_weights if mode == "bicubic" else _linear_weights
        w = from_array(make(m, d, sc, bool(align_corners)).astype(v.aval.dtype.np), dev=v.aval.device)._v
        y = P.contract(v, w, ((), ()), ((axis,), (1,)))
        nd = v.aval.ndim
        v = P.permute(y, (*range(axis), nd - 1, *range(axis, nd - 1)))
    return wrap(v)


def upsample(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
             align_corners: bool | None = None) -> Tensor:
    return interpolate(input, size, scale_factor, mode, align_corners)
