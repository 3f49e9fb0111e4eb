"""Special functions beyond the op table: normal distribution, entropy, polygamma, modified Bessel functions.

Those without an elementary form are evaluated on the host in float64; their gradients are formulas in other functions, so they
are differentiable as often as wanted.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd.function import Function
from ..errors import AutogradError
from ..ir import build as P
from ..ir.node import Value
from ..ir.prims import special as numeric
from ..tensor import Tensor, from_array, to_numpy, wrap
from . import pointwise
from ._common import binary_values, float_value, to_out
from .activation import log_softmax as _log_softmax
from .activation import softmax as _softmax

_SQRT_HALF = math.sqrt(0.5)
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)  # B_2, B_4, ...


class _Host(Function):
    """A NumPy function of float64 arrays with its derivative as a function of tensors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, fn: Callable[[np.ndarray], np.ndarray],  # type: ignore[override]
                derivative: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.derivative = derivative
        with np.errstate(all="ignore"):
            y = fn(to_numpy(x).astype(np.float64))
        return from_array(np.asarray(y).astype(x.dtype.np), dev=x.device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        return grad * ctx.derivative(ctx.saved_tensors[0]), None, None


def _host(name: str, fn: Callable[[np.ndarray], np.ndarray], derivative: Callable[[Tensor], Tensor], doc: str) -> Any:
    def f(input: Tensor, *, out: Tensor | None = None) -> Tensor:
        y = _Host.apply(wrap(float_value(input)), fn, derivative)
        return y if out is None else to_out(out, y._read())

    f.__name__, f.__doc__ = name, doc
    return f


def _unary(name: str, fn: Callable[[Value], Value], doc: str) -> Any:
    def f(input: Tensor, *, out: Tensor | None = None) -> Tensor:
        return to_out(out, fn(float_value(input)))

    f.__name__, f.__doc__ = name, doc
    return f


# -------------------------------------------------------------------------------------------- normal distribution, entropy
ndtr = _unary("ndtr", lambda v: P.mul(P.erfc(P.mul(v, -_SQRT_HALF)), 0.5), "Standard normal distribution function.")
ndtri = _unary("ndtri", lambda v: P.mul(P.erfinv(P.sub(P.mul(v, 2.0), 1.0)), math.sqrt(2)), "Inverse of :func:`ndtr`.")
entr = _unary("entr", lambda v: P.where(P.lt(v, 0), -math.inf, P.neg(P.mul(v, P.log(P.where(P.eq(v, 0), 1, v))))),
              "-x log(x); 0 at 0, -inf below.")


def xlog1py(input: Any, other: Any, *, out: Tensor | None = None) -> Tensor:
    """a log(1 + b), 0 where a is 0."""
    a, b = binary_values("xlog1py", input, other, at_least_float=True)
    silent = P.bit_and(P.eq(a, 0), P.bit_or(P.le(b, -1), P.isinf(b)))
    return to_out(out, P.mul(a, P.log1p(P.where(silent, 0, b))))


def _np_erfcx(x: np.ndarray) -> np.ndarray:
    """e^(x^2) erfc(x): directly below 2, above by Laplace's continued fraction (DLMF 7.9.1)."""
    small = np.minimum(x, 2.0)
    direct = np.exp(small * small) * to_numpy(pointwise.erfc(from_array(np.array(small))))
    big = np.maximum(x, 2.0)
    f = big.copy()
    for k in range(120, 0, -1):
        f = big + k / 2 / f
    return np.where(np.isnan(x), x, np.where(x < 2, direct, 1 / (math.sqrt(math.pi) * f)))


erfcx: Any = _host("erfcx", _np_erfcx, lambda x: 2 * x * erfcx(x) - 2 / math.sqrt(math.pi),
                   "e^(x^2) erfc(x), without overflow.")


def log_ndtr(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """log of :func:`ndtr`, accurate far in the lower tail."""
    x = wrap(float_value(input))
    low = (x < -1).detach()
    tail = _where(low, x, -1.0)
    body = _where(low, 0.0, x)
    below = pointwise.log(erfcx(tail * -_SQRT_HALF) / 2) - tail * tail / 2
    above = pointwise.log1p(pointwise.erfc(body * _SQRT_HALF) * -0.5)
    return to_out(out, _where(low, below, above)._read())


def _where(condition: Tensor, a: Any, b: Any) -> Tensor:
    from .indexing import where

    return where(condition, a, b)


# ------------------------------------------------------------------------------------------------------------ gamma family
def _np_zeta(s: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Hurwitz zeta sum over k of (k + q)^-s by Euler-Maclaurin summation (DLMF 25.11.28)."""
    s, q = [v.astype(np.float64) for v in np.broadcast_arrays(s, q)]
    total = np.zeros(s.shape)
    a = q.copy()
    for _ in range(100_000):
        low = a <= 10
        if not low.any():
            break
        total = np.where(low, total + a ** -s, total)
        a = np.where(low, a + 1, a)
    total = total + a ** (1 - s) / (s - 1) + a ** -s / 2
    term = s * a ** (-s - 1)
    factorial = 2.0
    for k, b in enumerate(_BERNOULLI):
        total = total + b / factorial * term
        term = term * (s + 2 * k + 1) * (s + 2 * k + 2) / (a * a)
        factorial *= (2 * k + 3) * (2 * k + 4)
    total = np.where((q <= 0) & (q == np.floor(q)), np.inf, np.where((q <= 0) & (s != np.floor(s)), np.nan, total))
    return np.where(s == 1, np.inf, np.where(s < 1, np.nan, total))


def zeta(input: Any, other: Any, *, out: Tensor | None = None) -> Tensor:
    """Hurwitz zeta function zeta(input, other). Differentiable in ``other``."""
    a, b = binary_values("zeta", input, other, at_least_float=True)
    s, q = wrap(a), wrap(b)
    if s.requires_grad:
        raise NotImplementedError("the derivative for 'zeta: input' is not implemented.")
    order = to_numpy(s).astype(np.float64)
    q = q.expand(np.broadcast_shapes(tuple(s.shape), tuple(q.shape)))
    y = _Host.apply(q, lambda v: _np_zeta(order, v), lambda x: -s * zeta(s + 1, x))
    return y if out is None else to_out(out, y._read())


def polygamma(n: int, input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The ``n``-th derivative of digamma: (-1)^(n+1) n! zeta(n + 1, x) for n >= 1."""
    if n < 0:
        raise AutogradError(f"polygamma(n, x) does not support negative n, but got: {n}")
    if n == 0:
        return pointwise.digamma(input, out=out)
    sign = -math.factorial(n) if n % 2 == 0 else math.factorial(n)

    def value(x: np.ndarray) -> np.ndarray:
        return numeric.trigamma(x) if n == 1 else sign * _np_zeta(np.asarray(n + 1.0), x)

    y = _Host.apply(wrap(float_value(input)), value, lambda x: polygamma(n + 1, x))
    return y if out is None else to_out(out, y._read())


def mvlgamma(input: Tensor, p: int, *, out: Tensor | None = None) -> Tensor:
    """Logarithm of the multivariate gamma function of dimension ``p``; needs input > (p - 1) / 2."""
    if p < 1:
        raise AutogradError("p has to be greater than or equal to 1")
    v = float_value(input)
    y = P.lgamma(v)
    for j in range(1, p):
        y = P.add(y, P.lgamma(P.sub(v, j / 2)))
    return to_out(out, P.add(y, p * (p - 1) / 4 * math.log(math.pi)))


# ---------------------------------------------------------------------------------------------- modified Bessel functions
def _bessel_e(order: int, x: np.ndarray) -> np.ndarray:
    """e^-|x| I_order(|x|), order 0 or 1: the series below 1, the mean of e^(x (cos t - 1)) cos(order t) over the circle up to
    60 (the trapezoidal rule converges exponentially: Trefethen and Weideman 2014), Hankel's expansion above (DLMF 10.40.1)."""
    x = np.abs(x)
    small, middle, large = np.minimum(x, 1.0), np.clip(x, 1.0, 60.0), np.maximum(x, 60.0)
    term = small ** order / 2 ** order
    series = term.copy()
    for k in range(1, 14):
        term = term * (small * small / 4) / (k * (k + order))
        series = series + term
    series = series * np.exp(-small)
    nodes = 160
    circle = np.zeros_like(x)
    for j in range(nodes):
        c = math.cos(2 * math.pi * j / nodes)
        circle = circle + np.exp(middle * (c - 1)) * (c if order else 1.0)
    circle = circle / nodes
    term = np.ones_like(x)
    far = term.copy()
    for k in range(1, 16):
        term = term * -(4 * order * order - (2 * k - 1) ** 2) / (k * 8 * large)
        far = far + term
    far = far / np.sqrt(2 * math.pi * large)
    far = np.where(np.isinf(x), 0.0, far)
    return np.where(np.isnan(x), x, np.where(x < 1, series, np.where(x <= 60, circle, far)))


i0e: Any = _host("i0e", lambda x: _bessel_e(0, x), lambda x: i1e(x) - pointwise.sign(x) * i0e(x), "e^-|x| I_0(x).")
i1e: Any = _host("i1e", lambda x: np.copysign(_bessel_e(1, x), x), lambda x: _i1e_slope(x), "e^-|x| I_1(x).")
i0: Any = _host("i0", lambda x: _bessel_e(0, x) * np.exp(np.abs(x)), lambda x: i1(x), "Modified Bessel function I_0.")
i1: Any = _host("i1", lambda x: np.copysign(_bessel_e(1, x), x) * np.exp(np.abs(x)),
           lambda x: i0(x) - _over_x(i1(x), x), "Modified Bessel function I_1.")


def _over_x(y: Tensor, x: Tensor) -> Tensor:
    """I_1(x) / x, 1/2 at 0."""
    zero = (x == 0).detach()
    return _where(zero, 0.5, y / _where(zero, 1.0, x))


def _i1e_slope(x: Tensor) -> Tensor:
    return i0e(x) - _over_x(i1e(x), x) - pointwise.sign(x) * i1e(x)


# --------------------------------------------------------------------------------------------------------- by another name
def softmax(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """:func:`graphc.softmax`."""
    return _softmax(input, dim, dtype=dtype)


def log_softmax(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """:func:`graphc.log_softmax`."""
    return _log_softmax(input, dim, dtype=dtype)


NAMES = ["polygamma", "mvlgamma", "i0"]
METHODS = ["mvlgamma", "i0"]
IN_PLACE = ["mvlgamma", "i0"]
