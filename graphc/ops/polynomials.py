"""Orthogonal polynomials by their three-term recurrences (DLMF 18.9): differentiable in the argument."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..tensor import Tensor, to_numpy, wrap
from ._common import binary_values, to_out

# name -> (first degree p_1(x), next degree from k, x, p_k and p_(k-1), what it is)
_Rule = tuple[Callable[[Tensor], Tensor], Callable[[int, Tensor, Tensor, Tensor], Tensor], str]
_RULES: dict[str, _Rule] = {
    "chebyshev_polynomial_t": (lambda x: x, lambda k, x, p, q: 2 * x * p - q, "Chebyshev polynomial of the first kind T_n"),
    "chebyshev_polynomial_u": (lambda x: 2 * x, lambda k, x, p, q: 2 * x * p - q,
                               "Chebyshev polynomial of the second kind U_n"),
    "chebyshev_polynomial_v": (lambda x: 2 * x - 1, lambda k, x, p, q: 2 * x * p - q,
                               "Chebyshev polynomial of the third kind V_n"),
    "chebyshev_polynomial_w": (lambda x: 2 * x + 1, lambda k, x, p, q: 2 * x * p - q,
                               "Chebyshev polynomial of the fourth kind W_n"),
    "hermite_polynomial_h": (lambda x: 2 * x, lambda k, x, p, q: 2 * x * p - 2 * k * q, "physicist's Hermite polynomial H_n"),
    "hermite_polynomial_he": (lambda x: x, lambda k, x, p, q: x * p - k * q, "probabilist's Hermite polynomial He_n"),
    "laguerre_polynomial_l": (lambda x: 1 - x, lambda k, x, p, q: ((2 * k + 1 - x) * p - k * q) / (k + 1),
                              "Laguerre polynomial L_n"),
    "legendre_polynomial_p": (lambda x: x, lambda k, x, p, q: ((2 * k + 1) * x * p - k * q) / (k + 1),
                              "Legendre polynomial P_n"),
}


def _where(condition: Any, a: Any, b: Any) -> Tensor:
    from .indexing import where

    return where(condition, a, b)


def _evaluate(rule: _Rule, x: Tensor, n: Any) -> Tensor:
    """p_n(x); 0 for negative n. A tensor of degrees is read on the host."""
    first, after, _ = rule
    degrees = np.trunc(np.asarray(to_numpy(n.detach()) if isinstance(n, Tensor) else n, np.float64))
    top = int(degrees.max(initial=-1))
    one = x * 0 + 1
    result = one * 0
    p, q = first(x), one
    for k in range(top + 1):
        value = one if k == 0 else p
        if (degrees == k).all():
            return value
        if (degrees == k).any():
            result = _where(n.trunc() == k, value, result)
        if k:
            p, q = after(k, x, p, q), p
    return result


def _polynomial(name: str, shifted: bool) -> Callable[..., Tensor]:
    rule = _RULES[name]

    def f(input: Any, n: Any, *, out: Tensor | None = None) -> Tensor:
        a, b = binary_values(f.__name__, input, n, at_least_float=True)
        x = wrap(a)
        y = _evaluate(rule, 2 * x - 1 if shifted else x, n)
        shape = np.broadcast_shapes(a.aval.shape, b.aval.shape)
        y = y if tuple(y.shape) == shape else y.expand(shape)
        return y if out is None else to_out(out, y._read())

    f.__name__ = f"shifted_{name}" if shifted else name
    f.__doc__ = f"The {rule[2]}({'2x - 1' if shifted else 'x'}), 0 for negative degrees ``n`` (a number or tensor)."
    f.__module__ = __name__
    return f


chebyshev_polynomial_t = _polynomial("chebyshev_polynomial_t", False)
chebyshev_polynomial_u = _polynomial("chebyshev_polynomial_u", False)
chebyshev_polynomial_v = _polynomial("chebyshev_polynomial_v", False)
chebyshev_polynomial_w = _polynomial("chebyshev_polynomial_w", False)
shifted_chebyshev_polynomial_t = _polynomial("chebyshev_polynomial_t", True)
shifted_chebyshev_polynomial_u = _polynomial("chebyshev_polynomial_u", True)
shifted_chebyshev_polynomial_v = _polynomial("chebyshev_polynomial_v", True)
shifted_chebyshev_polynomial_w = _polynomial("chebyshev_polynomial_w", True)
hermite_polynomial_h = _polynomial("hermite_polynomial_h", False)
hermite_polynomial_he = _polynomial("hermite_polynomial_he", False)
laguerre_polynomial_l = _polynomial("laguerre_polynomial_l", False)
legendre_polynomial_p = _polynomial("legendre_polynomial_p", False)
