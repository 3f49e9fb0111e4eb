"""Pooling with random windows, unpooling in one and three dimensions, older names."""
from __future__ import annotations

import math
from typing import Any

from ..errors import ArgumentError, ShapeError
from ..ir import build as P
from ..tensor import Tensor, wrap
from . import pool
from ._common import val
from .conv import tuple_of
from .creation import arange
from .indexing import gather
from .joining import cat
from .random import rand

__all__ = ["adaptive_max_pool1d_with_indices", "adaptive_max_pool2d_with_indices", "adaptive_max_pool3d_with_indices",
           "fractional_max_pool2d", "fractional_max_pool2d_with_indices", "fractional_max_pool3d",
           "fractional_max_pool3d_with_indices", "lp_pool3d", "max_pool1d_with_indices", "max_pool2d_with_indices",
           "max_pool3d_with_indices", "max_unpool1d", "max_unpool2d", "max_unpool3d", "upsample_bilinear", "upsample_nearest"]


# ------------------------------------------------------------------------------------------------------------- unpooling
def _unpool(n: int, input: Tensor, indices: Tensor, kernel_size: Any, stride: Any, padding: Any, output_size: Any) -> Tensor:
    v, idx = val(input), val(indices, "indices")
    if v.aval.shape != idx.aval.shape:
        raise ShapeError(f"Expected shape of indices to be same as that of the input tensor ({list(v.aval.shape)}) but got "
                         f"indices tensor with shape: {list(idx.aval.shape)}")
    k = tuple_of(kernel_size, n, "kernel_size")
    s = k if stride is None else tuple_of(stride, n, "stride")
    p = tuple_of(padding, n, "padding")
    default = [(d - 1) * a - 2 * q + m for d, a, q, m in zip(v.aval.shape[-n:], s, p, k)]
    size = tuple(default)
    if output_size is not None:
        size = tuple(output_size)[-n:]
        for d, m, a in zip(size, default, s):
            if not m - a < d < m + a:
                raise ArgumentError(f"invalid output_size {list(size)} (dim must be between {m - a} and {m + a})")
    lead = v.aval.shape[:-n]
    count = math.prod(v.aval.shape[-n:])
    base = P.full((*lead, math.prod(size)), 0, v.aval.dtype, v.aval.device)
    out = P.scatter(base, P.reshape(idx, (*lead, count)), P.reshape(v, (*lead, count)), len(lead), "set")
    return wrap(P.reshape(out, (*lead, *size)))


def max_unpool1d(input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
                 output_size: Any = None) -> Tensor:
    """Put pooled values back at their indices, zeros elsewhere."""
    return _unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
                 output_size: Any = None) -> Tensor:
    """Put pooled values back at their indices, zeros elsewhere."""
    return _unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
                 output_size: Any = None) -> Tensor:
    """Put pooled values back at their indices, zeros elsewhere."""
    return _unpool(3, input, indices, kernel_size, stride, padding, output_size)


# -------------------------------------------------------------------------------------------------------- random windows
def _starts(sample: Tensor, size: int, out: int, k: int) -> Tensor:
    """First positions of the windows along one dimension, (N, C, out): floor((i + u) a) - floor(u a), the last one at the end
    (Graham 2014, pseudo-random sequence)."""
    last = (sample.unsqueeze(-1) * 0 + (size - k)).long()
    if out == 1:
        return last
    a = (size - k) / (out - 1)
    u = sample.unsqueeze(-1)
    i = arange(out - 1, dtype=sample.dtype, device=sample.device)
    return cat([((i + u) * a).floor().long() - (u * a).floor().long(), last], -1)


def _fractional(n: int, input: Tensor, kernel_size: Any, output_size: Any, output_ratio: Any, samples: Tensor | None) -> Any:
    name = f"fractional_max_pool{n}d"
    if output_size is None and output_ratio is None:
        raise ArgumentError(f"{name} requires specifying either an output_size or an output_ratio")
    if input.ndim not in (n + 1, n + 2):
        raise ShapeError(f"{name}: Expected {n + 1}D or {n + 2}D input, got shape {list(input.shape)}")
    k = tuple_of(kernel_size, n, "kernel_size")
    x = input if input.ndim == n + 2 else input.unsqueeze(0)
    sizes = tuple(x.shape[2:])
    if output_size is None:
        ratio = (output_ratio,) * n if isinstance(output_ratio, float) else tuple(output_ratio)
        out = tuple([int(m * r) for m, r in zip(sizes, ratio)])
    else:
        out = tuple_of(output_size, n, "output_size")
    for o, a, m in zip(out, k, sizes):
        if o + a - 1 > m:
            raise ShapeError(f"{name}: pool size {a} and output size {o} are too large for input size {m}")
    if samples is None:
        samples = rand(*x.shape[:2], n, dtype=x.dtype, device=x.device)
    elif input.ndim == n + 1 and samples.shape[0] > 1:
        samples = samples[:1]  # one picture uses the first row
    if tuple(samples.shape) != (*x.shape[:2], n):
        raise ShapeError(f"{name}: expected _random_samples of shape {[*x.shape[:2], n]}, got {list(samples.shape)}")
    index: Any = None
    for d in range(n):
        which = n - 1 - d if n == 2 else d  # PyTorch's 2-d version uses the first sample for the width
        start = _starts(samples[:, :, which].detach(), sizes[d], out[d], k[d])
        at = start.unsqueeze(-1) + arange(k[d], device=x.device)  # (N, C, out, k)
        shape = [*x.shape[:2], *[1] * (2 * n)]
        shape[2 + d], shape[2 + n + d] = out[d], k[d]
        at = at.reshape(shape)
        index = at if index is None else index * sizes[d] + at
    patches = gather(x.flatten(2), 2, index.flatten(2)).reshape((*x.shape[:2], *out, -1))
    where = index.reshape((*x.shape[:2], *out, -1))
    pick = patches.detach().argmax(-1, keepdim=True)
    y, i = gather(patches, -1, pick).squeeze(-1), gather(where, -1, pick).squeeze(-1)
    return (y, i) if input.ndim == n + 2 else (y[0], i[0])


def fractional_max_pool2d_with_indices(input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
                                       return_indices: bool = False, _random_samples: Tensor | None = None) -> Any:
    """Maxima over windows at random places and their indices in the flattened picture."""
    return _fractional(2, input, kernel_size, output_size, output_ratio, _random_samples)


def fractional_max_pool3d_with_indices(input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
                                       return_indices: bool = False, _random_samples: Tensor | None = None) -> Any:
    """Maxima over windows at random places and their indices in the flattened volume."""
    return _fractional(3, input, kernel_size, output_size, output_ratio, _random_samples)


def fractional_max_pool2d(input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
                          return_indices: bool = False, _random_samples: Tensor | None = None) -> Any:
    """Maxima over windows at random places of (N, C, H, W) or (C, H, W) (Graham 2014)."""
    y, i = _fractional(2, input, kernel_size, output_size, output_ratio, _random_samples)
    return (y, i) if return_indices else y


def fractional_max_pool3d(input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
                          return_indices: bool = False, _random_samples: Tensor | None = None) -> Any:
    """Maxima over windows at random places of (N, C, D, H, W) or (C, D, H, W)."""
    y, i = _fractional(3, input, kernel_size, output_size, output_ratio, _random_samples)
    return (y, i) if return_indices else y


# ----------------------------------------------------------------------------------------------------- by another name
def lp_pool3d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """p-norms over windows."""
    return pool.lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


def _max_with_indices(name: str) -> Any:
    fn = getattr(pool, name)

    def f(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
          return_indices: bool = False) -> Any:
        return fn(input, kernel_size, stride, padding, dilation, ceil_mode, True)

    f.__name__, f.__doc__ = name + "_with_indices", f":func:`{name}` with the places of the maxima."
    return f


def _adaptive_with_indices(name: str) -> Any:
    fn = getattr(pool, name)

    def f(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
        return fn(input, output_size, True)

    f.__name__, f.__doc__ = name + "_with_indices", f":func:`{name}` with the places of the maxima."
    return f


max_pool1d_with_indices, max_pool2d_with_indices, max_pool3d_with_indices = [
    _max_with_indices(f"max_pool{n}d") for n in (1, 2, 3)]
adaptive_max_pool1d_with_indices, adaptive_max_pool2d_with_indices, adaptive_max_pool3d_with_indices = [
    _adaptive_with_indices(f"adaptive_max_pool{n}d") for n in (1, 2, 3)]


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """``interpolate`` by the nearest pixel."""
    return pool.interpolate(input, size, scale_factor, mode="nearest")


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """Bilinear ``interpolate`` between the corner pixels' centres."""
    return pool.interpolate(input, size, scale_factor, mode="bilinear", align_corners=True)
