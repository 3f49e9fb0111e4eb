"""Incomplete gamma functions. Evaluated on the host; differentiable in the second argument, as in PyTorch."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.function import Function
from ..ir import build as P
from ..ir.prims import special
from ..tensor import Tensor, from_array, to_numpy, wrap
from ._common import binary_values, to_out

_EPS = 2.0**-53


def _series(a: np.ndarray, x: np.ndarray, log_front: np.ndarray) -> np.ndarray:
    """P(a, x) = x^a e^-x / gamma(a + 1) * sum x^n / ((a+1)...(a+n)) (DLMF 8.11.4); for x up to about a + 1."""
    term = np.ones_like(x)
    total = term.copy()
    n = 0
    while n < 200_000:
        n += 1
        term = term * (x / (a + n))
        total += term
        if not (term > total * _EPS).any():
            break
    return np.exp(log_front) * total / a


def _fraction(a: np.ndarray, x: np.ndarray, log_front: np.ndarray) -> np.ndarray:
    """Q(a, x) by the continued fraction DLMF 8.9.2 in Lentz's form; for x above a + 1."""
    tiny = 1e-300
    b = x + 1 - a
    c, d = np.full_like(x, 1 / tiny), 1 / np.where(b == 0, tiny, b)
    h = d
    for i in range(1, 200_000):
        an = -i * (i - a)
        b = b + 2
        d = an * d + b
        c = b + an / c
        d = 1 / np.where(np.abs(d) < tiny, tiny, d)
        c = np.where(np.abs(c) < tiny, tiny, c)
        h = h * (d * c)
        if not (np.abs(d * c - 1) > 4 * _EPS).any():
            break
    return np.exp(log_front) * h


def _regularized(a: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P, Q) of float64 arrays, each accurate where it is small. NaN outside a >= 0, x >= 0."""
    a, x = [v.astype(np.float64) for v in np.broadcast_arrays(a, x)]
    p = np.full(a.shape, np.nan)
    p[(a > 0) & (x == 0)] = 0.0
    p[((a > 0) & np.isposinf(x)) | ((a == 0) & (x > 0))] = 1.0
    p[np.isposinf(a) & (x >= 0) & np.isfinite(x)] = 0.0
    q = 1 - p
    inside = (a > 0) & (x > 0) & np.isfinite(a) & np.isfinite(x)
    for low, fn in ((True, _series), (False, _fraction)):
        m = inside & ((x < a + 1) == low)
        if m.any():
            am, xm = a[m], x[m]
            v = fn(am, xm, am * np.log(xm) - xm - special.lgamma(am))
            p[m], q[m] = (v, 1 - v) if low else (1 - v, v)
    return p, q


class _Incomplete(Function):
    """``sign`` +1: P, -1: Q. Gradient to x: +-x^(a-1) e^-x / gamma(a)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, x: Tensor, upper: bool) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(a, x)
        ctx.upper = upper
        pair = _regularized(to_numpy(a).astype(np.float64), to_numpy(x).astype(np.float64))
        return from_array(np.asarray(pair[int(upper)]).astype(x.dtype.np), dev=x.device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        a, x = [t._read() for t in ctx.saved_tensors]
        if ctx.needs_input_grad[0]:
            raise NotImplementedError("the derivative for 'igamma: input' is not implemented.")
        density = P.exp(P.sub(P.sub(P.mul(P.sub(a, 1.0), P.log(x)), x), P.lgamma(a)))
        g = P.mul(grad._read(), P.neg(density) if ctx.upper else density)
        return None, wrap(P.sum_to(g, x.aval.shape)), None


def _incomplete(name: str, upper: bool, doc: str) -> Any:
    def f(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
        a, x = binary_values(name, input, other)
        if a.aval.dtype.category != 2:
            raise NotImplementedError(f"\"{name}_cpu\" not implemented for '{a.aval.dtype.name}'")
        y = _Incomplete.apply(wrap(a), wrap(x), upper)
        return y if out is None else to_out(out, y._read())

    f.__name__, f.__doc__ = name, doc
    return f


igamma = _incomplete("igamma", False, "Regularized lower incomplete gamma function P(input, other).")
igammac = _incomplete("igammac", True, "Regularized upper incomplete gamma function Q(input, other) = 1 - P.")
gammainc, gammaincc = igamma, igammac

NAMES = ["igamma", "igammac"]
METHODS = ["igamma", "igammac"]
IN_PLACE = ["igamma", "igammac"]
