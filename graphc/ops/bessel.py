"""Bessel and Airy functions: series near zero, integrals between, asymptotic expansions far out (DLMF chapters 9 and 10).

Evaluated on the host in float64; derivatives are formulas in one another, so they can be taken again (PyTorch has none).
"""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..tensor import Tensor
from . import pointwise
from .special_functions import _host, _over_x, _where, i0, i1

_GAMMA = 0.57721566490153286060651209  # Euler-Mascheroni
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(72)
_NEAR, _FAR = 5.0, 25.0  # where series end and Hankel's expansions begin
Array = np.ndarray


def _series(order: int, x: Array, sign: float) -> tuple[Array, Array]:
    """(sum of (sign x^2/4)^k / (k! (k+order)!) (x/2)^order, the same sum with each term times H_k + H_(k+order)).

    DLMF 10.2.2 and 10.8.1 (sign -1), 10.25.2 and 10.31.1 (sign 1).
    """
    z = x * x / 4
    term = (x / 2) ** order / math.factorial(order)
    plain, harmonic = np.zeros_like(x), np.zeros_like(x)
    h = sum(1 / j for j in range(1, order + 1))
    for k in range(60):
        plain, harmonic = plain + term, harmonic + term * h
        term = term * sign * z / ((k + 1) * (k + 1 + order))
        h += 1 / (k + 1) + 1 / (k + 1 + order)
    return plain, harmonic


def _hankel(order: int, x: Array) -> tuple[Array, Array]:
    """(J, Y) of large x by DLMF 10.17.3 and 10.17.4."""
    p, q, term = np.ones_like(x), np.zeros_like(x), np.ones_like(x)
    mu = 4.0 * order * order
    for k in range(1, 26):
        term = term * (mu - (2 * k - 1) ** 2) / (k * 8 * x)
        if k % 2:
            q = q + (-1) ** (k // 2) * term
        else:
            p = p + (-1) ** (k // 2) * term
    # cos and sin of x - (order/2 + 1/4) pi from those of x, so that nothing is lost in the difference
    c, s = np.cos(x), np.sin(x)
    cos, sin = ((c + s), (s - c)) if order == 0 else ((s - c), -(s + c))
    scale = 1 / np.sqrt(math.pi * x)
    return scale * (cos * p - sin * q), scale * (sin * p + cos * q)


def _jy(order: int, x: Array) -> tuple[Array, Array]:
    """(J, Y) of order 0 or 1 for x > 0: Bessel's and Schlaefli's integrals in the middle (DLMF 10.9.1, 10.9.7)."""
    small, middle, large = np.minimum(x, _NEAR), np.clip(x, _NEAR, _FAR), np.maximum(x, _FAR)
    j, harmonic = _series(order, small, -1.0)
    log = np.log(np.maximum(small, 1e-300) / 2) + _GAMMA
    y = (2 * log * j - harmonic) / math.pi
    if order:
        y = y - 2 / (math.pi * np.maximum(small, 1e-300))
    jm, ym = np.zeros_like(x), np.zeros_like(x)
    end = np.arcsinh(45 / middle)
    for node, weight in zip(_NODES, _WEIGHTS):
        theta = math.pi / 2 * (1 + node)
        phase = middle * math.sin(theta) - order * theta
        jm, ym = jm + weight / 2 * np.cos(phase), ym + weight / 2 * np.sin(phase)
        t = end / 2 * (1 + node)
        growth = 2 * np.sinh(t) if order else 2.0  # e^(order t) + (-1)^order e^(-order t)
        ym = ym - weight * end / (2 * math.pi) * growth * np.exp(-middle * np.sinh(t))
    jl, yl = _hankel(order, large)
    return np.where(x < _NEAR, j, np.where(x <= _FAR, jm, jl)), np.where(x < _NEAR, y, np.where(x <= _FAR, ym, yl))


def _np_j(order: int, x: Array) -> Array:
    j = _jy(order, np.abs(x))[0]
    j = np.where(np.isinf(x), 0.0, np.where(np.isnan(x), x, j))
    return np.where(x < 0, -j, j) if order else j


def _np_y(order: int, x: Array) -> Array:
    y = _jy(order, np.where(x > 0, x, 1.0))[1]
    return np.where(x > 0, np.where(np.isinf(x), 0.0, y), np.where(x == 0, -np.inf, np.nan))


def _np_ke(order: int, x: Array) -> Array:
    """e^x K_order(x): DLMF 10.31.1 below 1, above the trapezoidal rule on e^(x - x cosh t) cosh(order t) (DLMF 10.32.9)."""
    small, large = np.clip(x, 1e-300, 1.0), np.maximum(x, 1.0)
    plain, harmonic = _series(order, small, 1.0)
    log = np.log(small / 2) + _GAMMA
    near = harmonic / 2 - log * plain if order == 0 else 1 / small + log * plain - harmonic / 2
    end = np.arccosh(1 + 42 / large)
    steps = 64
    total = np.full_like(x, 0.5)
    for k in range(1, steps + 1):
        t = end * (k / steps)
        total = total + np.exp(-large * (np.cosh(t) - 1)) * np.cosh(order * t)
    value = np.where(x < 1, near * np.exp(small), total * end / steps)
    return np.where(x > 0, np.where(np.isinf(x), 0.0, value), np.where(x == 0, np.inf, np.nan))


def _np_k(order: int, x: Array) -> Array:
    k = _np_ke(order, x)
    return np.where(x > 0, k * np.exp(-np.maximum(x, 0)), k)


# --------------------------------------------------------------------------------------------------------------- Airy
def _airy_middle(x: Array) -> tuple[Array, Array]:
    """(Ai, Ai') by Maclaurin series (DLMF 9.4.1) in extended precision: terms cancel for negative x."""
    z = x.astype(np.longdouble)
    f, g, cube = np.ones_like(z), z.copy(), z ** 3
    df, dg = np.zeros_like(z), np.ones_like(z)
    tf, tg = f.copy(), g.copy()
    safe = np.where(z == 0, 1, z)
    for k in range(1, 90):
        tf, tg = tf * cube / ((3 * k - 1) * (3 * k)), tg * cube / ((3 * k) * (3 * k + 1))
        f, g = f + tf, g + tg
        df, dg = df + tf * (3 * k) / safe, dg + tg * (3 * k + 1) / safe
    # Ai(0) and -Ai'(0), DLMF 9.2.3 and 9.2.4
    a, b = np.longdouble("0.355028053887817239260063186004183177"), np.longdouble("0.258819403792806798405183560189203963")
    return (a * f - b * g).astype(np.float64), (a * df - b * dg).astype(np.float64)


def _airy_right(x: Array) -> tuple[Array, Array]:
    """(Ai, Ai') for x >= 1 by K_1/3 and K_2/3 (DLMF 9.6.2, 9.6.3), integrated by the trapezoidal rule."""
    zeta = 2 / 3 * x ** 1.5
    end, steps = np.arccosh(1 + 42 / zeta), 96
    third, two = np.full_like(x, 0.5), np.full_like(x, 0.5)
    for k in range(1, steps + 1):
        t = end * (k / steps)
        w = np.exp(-zeta * (np.cosh(t) - 1))
        third, two = third + w * np.cosh(t / 3), two + w * np.cosh(2 * t / 3)
    scale = np.exp(-zeta) * end / steps / math.pi
    return np.sqrt(x / 3) * third * scale, -x / math.sqrt(3) * two * scale


def _airy_left(x: Array) -> tuple[Array, Array]:
    """(Ai, Ai') for x <= -8 by DLMF 9.7.9 and 9.7.10."""
    z = -x
    zeta = 2 / 3 * z ** 1.5
    sums = [np.zeros_like(z) for _ in range(4)]  # even and odd terms of u, then of v
    u = np.ones_like(z)
    for k in range(24):
        v = u * (6 * k + 1) / (1 - 6 * k)
        sign = (-1) ** (k // 2)
        sums[k % 2] = sums[k % 2] + sign * u
        sums[2 + k % 2] = sums[2 + k % 2] + sign * v
        u = u * (6 * k + 1) * (6 * k + 3) * (6 * k + 5) / (216 * (k + 1) * (2 * k + 1)) / zeta
    c, s = np.cos(zeta - math.pi / 4), np.sin(zeta - math.pi / 4)
    root = math.sqrt(math.pi)
    return (c * sums[0] + s * sums[1]) / (root * z ** 0.25), z ** 0.25 / root * (s * sums[2] - c * sums[3])


def _np_airy(x: Array, which: int) -> Array:
    middle = _airy_middle(np.clip(x, -8.0, 1.0))[which]
    right = _airy_right(np.clip(x, 1.0, 200.0))[which]
    left = _airy_left(np.minimum(x, -8.0))[which]
    return np.where(np.isnan(x), x, np.where(x > 200, 0.0, np.where(x > 1, right, np.where(x < -8, left, middle))))


# ----------------------------------------------------------------------------------------------------------- functions
bessel_j0: Any = _host("bessel_j0", lambda x: _np_j(0, x), lambda x: -bessel_j1(x), "Bessel function of the first kind J_0.")
bessel_j1: Any = _host("bessel_j1", lambda x: _np_j(1, x), lambda x: bessel_j0(x) - _over_x(bessel_j1(x), x),
                       "Bessel function of the first kind J_1.")
bessel_y0: Any = _host("bessel_y0", lambda x: _np_y(0, x), lambda x: -bessel_y1(x), "Bessel function of the second kind Y_0.")
bessel_y1: Any = _host("bessel_y1", lambda x: _np_y(1, x), lambda x: bessel_y0(x) - bessel_y1(x) / x,
                       "Bessel function of the second kind Y_1.")
modified_bessel_k0: Any = _host("modified_bessel_k0", lambda x: _np_k(0, x), lambda x: -modified_bessel_k1(x),
                                "Modified Bessel function of the second kind K_0.")
modified_bessel_k1: Any = _host("modified_bessel_k1", lambda x: _np_k(1, x),
                                lambda x: -modified_bessel_k0(x) - modified_bessel_k1(x) / x,
                                "Modified Bessel function of the second kind K_1.")
scaled_modified_bessel_k0: Any = _host("scaled_modified_bessel_k0", lambda x: _np_ke(0, x),
                                       lambda x: scaled_modified_bessel_k0(x) - scaled_modified_bessel_k1(x), "e^x K_0(x).")
scaled_modified_bessel_k1: Any = _host(
    "scaled_modified_bessel_k1", lambda x: _np_ke(1, x),
    lambda x: scaled_modified_bessel_k1(x) * (1 - 1 / x) - scaled_modified_bessel_k0(x), "e^x K_1(x).")
airy_ai: Any = _host("airy_ai", lambda x: _np_airy(x, 0), lambda x: _airy_slope(x), "Airy function Ai.")
_airy_slope: Any = _host("airy_ai_slope", lambda x: _np_airy(x, 1), lambda x: x * airy_ai(x), "Derivative of Ai: Ai'' = x Ai.")
modified_bessel_i0, modified_bessel_i1 = i0, i1


def spherical_bessel_j0(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """sin(x) / x, 1 at 0, 0 at infinity."""
    y = pointwise.sinc(input / math.pi)
    y = _where(input.isinf(), 0.0, y)
    return y if out is None else out.copy_(y)
