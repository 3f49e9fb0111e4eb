"""Discrete Fourier transforms over some axes, by ``numpy.fft`` (pocketfft), in the precision of the input.

With N the product of the transformed sizes, ``scale`` says what the sums are multiplied by: 0: 1, 1: N^-1/2, 2: 1/N.
Every transform is linear, so a vjp is the adjoint: the transform the other way with the same scale. The half spectrum of
real data stands for twice its inner elements, hence the weights of the real ones.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from ...dtypes import int64
from ...errors import DTypeError, ShapeError
from .. import build as P
from ..node import Aval, Value, aval
from ..optable import OPS, prim
from ..recorder import apply
from ..samples import draw

_FORWARD: tuple[Any, ...] = ("backward", "ortho", "forward")  # NumPy's names of the scales for a transform with exp(-i...)
_INVERSE: tuple[Any, ...] = ("forward", "ortho", "backward")  # and for one with exp(+i...)


def _check(x: Aval, axes: tuple[int, ...], floats: bool) -> None:
    if x.dtype.category < 2 or x.dtype.itemsize == 2 or floats and x.dtype.is_complex:
        raise DTypeError(f"Unsupported dtype {x.dtype.name}")
    if any(not x.shape[a] for a in axes):
        raise ShapeError("Invalid number of data points (0) specified")


def _resized(x: Aval, axis: int, n: int, dt: Any) -> Aval:
    return aval((*x.shape[:axis], n, *x.shape[axis + 1:]), dt, x.device)


def _fft_infer(attrs: Any, x: Aval) -> Aval:
    _check(x, attrs[0], False)
    return aval(x.shape, x.dtype.to_complex(), x.device)


def _fft_np(attrs: Any, x: np.ndarray) -> np.ndarray:
    axes, inverse, scale = attrs
    if not x.size:
        return np.zeros(x.shape, np.result_type(x.dtype, np.complex64))
    norm = (_INVERSE if inverse else _FORWARD)[scale]
    if len(axes) == 1:
        out = (np.fft.ifft if inverse else np.fft.fft)(x, None, axes[0], norm)
    else:
        out = (np.fft.ifftn if inverse else np.fft.fftn)(x, None, axes, norm)
    return out.astype(np.result_type(x.dtype, np.complex64), copy=False)  # NumPy before 2.0 computes in float64


def _fft_vjp(ctx: Any, g: Any) -> Any:
    axes, inverse, scale = ctx.attrs
    back = apply(OPS["fft"], (g,), (axes, not inverse, scale))
    return (back if ctx.in_avals[0].dtype.is_complex else apply(OPS["real"], (back,)),)


prim("fft", kind="opaque", attrs=("axes", "inverse", "scale"), infer=_fft_infer, eval_np=_fft_np, loop="library",
     vjp=_fft_vjp, saves=(),
     samples=lambda: [((draw("f", 3, 4),), ((1,), False, 0)), ((draw("f", 3, 4) + 1j,), ((1, 0), True, 2)),
                      ((draw("f", 5, dtype=np.float32),), ((0,), True, 1)), ((draw("f", 0, 4),), ((1,), False, 0))],
     doc="Transform of real or complex numbers over ``axes``, complex.")


def _rfft_infer(attrs: Any, x: Aval) -> Aval:
    axes = attrs[0]
    _check(x, axes, True)
    return _resized(x, axes[-1], x.shape[axes[-1]] // 2 + 1, x.dtype.to_complex())


def _rfft_np(attrs: Any, x: np.ndarray) -> np.ndarray:
    axes, scale = attrs
    if not x.size:
        shape = list(x.shape)
        shape[axes[-1]] = shape[axes[-1]] // 2 + 1
        return np.zeros(shape, np.result_type(x.dtype, np.complex64))
    return np.fft.rfftn(x, None, axes, _FORWARD[scale]).astype(np.result_type(x.dtype, np.complex64), copy=False)


def _weigh(half: Value, axis: int, n: int, inner: float) -> Value:
    """A half spectrum of ``n`` elements with those that stand for two times ``inner``."""
    k = P.iota_like(half, axis, int64)
    alone = P.eq(k, 0) if n % 2 else P.bit_or(P.eq(k, 0), P.eq(k, n // 2))
    one = P.const(1, half.aval.dtype)
    return P.mul(half, P.where(alone, one, P.const(inner, half.aval.dtype)))


def _rfft_vjp(ctx: Any, g: Any) -> Any:
    axes, scale = ctx.attrs
    n = ctx.in_avals[0].shape[axes[-1]]
    return (apply(OPS["irfft"], (_weigh(g, axes[-1], n, 0.5),), (axes, n, scale)),)


prim("rfft", kind="opaque", attrs=("axes", "scale"), infer=_rfft_infer, eval_np=_rfft_np, loop="library", vjp=_rfft_vjp,
     saves=(), samples=lambda: [((draw("r", 3, 4),), ((1,), 0)), ((draw("r", 3, 5),), ((0, 1), 2)),
                                ((draw("r", 6, dtype=np.float32),), ((0,), 1)), ((draw("r", 0, 4),), ((1,), 0))],
     doc="exp(-i...) transform of real numbers: the first n // 2 + 1 elements along the last of ``axes``; the others are "
         "their conjugates.")


def _irfft_infer(attrs: Any, x: Aval) -> Aval:
    axes, n, _ = attrs
    _check(x, axes[:-1], False)
    if n < 1:
        raise ShapeError(f"Invalid number of data points ({n}) specified")
    if not x.dtype.is_complex or x.shape[axes[-1]] != n // 2 + 1:
        raise ShapeError(f"irfft: {n} real numbers have {n // 2 + 1} complex ones, got {x.dtype.name} of shape {x.shape}")
    return _resized(x, axes[-1], n, x.dtype.to_real())


def _irfft_np(attrs: Any, x: np.ndarray) -> np.ndarray:
    axes, n, scale = attrs
    if not x.size:
        shape = list(x.shape)
        shape[axes[-1]] = n
        return np.zeros(shape, x.real.dtype)
    out = np.fft.irfftn(x, [*[x.shape[a] for a in axes[:-1]], n], axes, _INVERSE[scale])
    return out.astype(x.real.dtype, copy=False)


def _irfft_vjp(ctx: Any, g: Any) -> Any:
    axes, n, scale = ctx.attrs
    return (_weigh(apply(OPS["rfft"], (g,), (axes, scale)), axes[-1], n, 2.0),)


prim("irfft", kind="opaque", attrs=("axes", "n", "scale"), infer=_irfft_infer, eval_np=_irfft_np, loop="library",
     vjp=_irfft_vjp, saves=(),
     samples=lambda: [((draw("i", 3, 3) + 1j * draw("j", 3, 3),), ((1,), 4, 0)),
                      ((draw("i", 3, 3) + 1j * draw("j", 3, 3),), ((0, 1), 5, 2)), ((draw("i", 0, 3) + 1j,), ((1,), 4, 1))],
     doc="exp(+i...) transform of a half spectrum: ``n`` real numbers along the last of ``axes``.")
