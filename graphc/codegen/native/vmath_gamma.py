"""lgamma, digamma and trigamma in float64 vectors by the formulas of graphc/ir/prims/special.py.

lgamma of float64 is left to the C library.
"""
from __future__ import annotations

import math

from ...ir.prims.special import _LG1, _LG2, _PSI, _ROOT, _ROOT_LOW
from .vmath_core import V, double, helper, invoke, libm, poly

_LGAMMA_TAIL = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)
_DIGAMMA_TAIL = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)
_TRIGAMMA_TAIL = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)


def _lgamma_positive(p: V) -> V:
    """Fits on (0, 3); above, Stirling's series at p moved beyond 8 by lgamma(p) = lgamma(p + 1) - log(p).

    For float32, yet with float64's absolute error: next to the zeros of lgamma below -2 the reflection cancels.
    """
    tiny, product, z = p.cmp("olt", 0.5), p.of(1.0), p
    for _ in range(5):
        low = z.cmp("olt", 8.0)
        product = low.pick(product * z, product)
        z = low.pick(z + 1.0, z)
    r = 1.0 / z
    series = poly(r * r, _LGAMMA_TAIL) * r + (0.5 * math.log(2 * math.pi) - 0.5)
    log = invoke("log", tiny.pick(p, product))
    far = ((z - 0.5) * (invoke("log", z) - 1.0) + series) - log
    one = tiny.pick(p, p - 1.0)
    near = one * poly(one, _LG1[::-1])
    near = tiny.pick(near - log, near)
    near = p.cmp("olt", 1.5).pick(near, (p - 2.0) * poly(p - 2.25, _LG2[::-1]))
    return p.cmp("olt", 3.0).pick(near + 0.0, far)  # + 0.0: no -0.0 at 1


@helper("lgamma")
def _lgamma(x: V) -> V:
    """log |gamma(x)|: reflection below 0; infinite at 0, the negative integers and the infinities."""
    if double(x):
        return libm("lgamma", x)
    w = x.wide()
    a = w.abs()
    up = _lgamma_positive(a)
    s = invoke("sin", (w - w.math("rint")) * math.pi).abs()
    y = w.cmp("olt", 0.0).pick(invoke("log", math.pi / (a * s)) - up, up)
    return a.cmp("oeq", math.inf).pick(a, y).like(x)


def _digamma_positive(p: V) -> V:
    """Moved to [1, 2] by digamma(x) = digamma(x - 1) + 1 / (x - 1) below 10, the asymptotic series above."""
    s = p.of(0.0)
    z = p
    near = p.cmp("olt", 10.0)
    for _ in range(8):
        high = z.cmp("ogt", 2.0) & near
        z = high.pick(z - 1.0, z)
        s = high.pick(s + 1.0 / z, s)
    low = p.cmp("olt", 1.0)
    s = low.pick(-1.0 / p, s)
    z = low.pick(p + 1.0, z)
    unit = ((z - _ROOT) - _ROOT_LOW) * poly(z - 1.5, _PSI[::-1])
    r = 1.0 / (p * p)
    far = (invoke("log", p) - 0.5 / p) - poly(r, _DIGAMMA_TAIL) * r
    return near.pick(s + unit, far)


@helper("digamma")
def _digamma(x: V) -> V:
    """Reflection below 0; NaN at the negative integers, -inf at 0, +inf at -0."""
    w = x.wide()
    up = _digamma_positive(w.abs())
    frac = w - w.math("rint")
    angle = frac * math.pi
    down = (up - 1.0 / w) - math.pi * (invoke("cos", angle) / invoke("sin", angle))
    down = (frac.cmp("oeq", 0.0) | w.cmp("oeq", -math.inf)).pick(w.of(math.nan), down)
    y = w.cmp("olt", 0.0).pick(down, up)
    y = w.cmp("oeq", math.inf).pick(w, y)
    return w.abs().cmp("olt", 1e-17).pick(-1.0 / w, y).like(x)


def _trigamma_positive(v: V) -> V:
    """Moved above 10 by the recurrence, then the asymptotic series."""
    s = v.of(0.0)
    for _ in range(10):
        low = v.cmp("olt", 10.0)
        s = low.pick(s + 1.0 / (v * v), s)
        v = low.pick(v + 1.0, v)
    r = 1.0 / (v * v)
    return s + 1.0 / v + r * 0.5 + r / v * poly(r, _TRIGAMMA_TAIL)


@helper("trigamma")
def _trigamma(x: V) -> V:
    """Reflection below -0.5, one recurrence step below 0; infinite at 0 and the negative integers, NaN at -inf."""
    w = x.wide()
    small = w.cmp("olt", 0.0) & w.cmp("ogt", -0.5)
    up = _trigamma_positive(small.pick(w + 1.0, w.abs()))
    square = 1.0 / (w * w)
    frac = w - w.math("rint")
    s = math.pi / invoke("sin", frac * math.pi)
    y = w.cmp("ole", -0.5).pick((s * s + square) - up, small.pick(up + square, up))
    y = (w.cmp("ole", 0.0) & frac.cmp("oeq", 0.0)).pick(w.of(math.inf), y)
    return w.cmp("oeq", -math.inf).pick(w.of(math.nan), y).like(x)
