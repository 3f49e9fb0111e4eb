"""sin and cos.

r = |x| - k pi/2 in three steps, pi/2 in three full parts: the first step is exact, so r keeps its relative accuracy for
every |x| below the bound; lanes above it are left to the C library.
"""
from __future__ import annotations

import math

from . import vmath_coeffs as C
from .vmath_core import V, double, fma, helper, libm, poly, rarely

_BOUND = {False: 2.0 ** 15, True: 2.0 ** 30}


def quarter_turns(a: V) -> tuple[V, V]:
    """|r| <= pi/4 and an integer whose low bits are k mod 4, of 0 <= a < the bound."""
    big = 1.5 * 2.0 ** (52 if double(a) else 23)
    t = fma(a, 2 / math.pi, a.of(big))
    k = t - big
    r = a
    for part in C.HALF_PI_F64 if double(a) else C.HALF_PI_F32:
        r = fma(k, -part, r)
    return r, t.bits()


def both(r: V) -> tuple[V, V]:
    """sin(r) and cos(r), |r| <= pi/4."""
    s, c = (C.SIN_F64, C.COS_F64) if double(r) else (C.SIN_F32, C.COS_F32)
    z = r * r
    sine = fma(r * z, poly(z, s), r)
    if not double(r):
        return sine, fma(z, fma(z, poly(z, c), -0.5), 1.0)
    half = z * 0.5
    w = 1.0 - half
    return sine, w + fma(z * z, poly(z, c), (1.0 - w) - half)


def _turned(x: V, quadrant: int) -> V:
    """sin(|x| + quadrant * pi/2), times the sign of x if quadrant is 0."""
    a = x.abs()
    r, n = quarter_turns(a)
    if quadrant:
        n = n + quadrant
    s, c = both(r)
    y = (n & 1).cmp("eq", 0).pick(s, c).bits()
    top = 63 if double(x) else 31
    sign = (n & 2).shl(top - 1)
    if quadrant == 0:
        sign = sign ^ (x.bits() & -(1 << top))
    y = (y ^ sign).floats()
    return rarely(a.cmp("oge", _BOUND[double(x)]), y, "sin_slow" if quadrant == 0 else "cos_slow", x)


@helper("sin", inline=True)
def _sin(x: V) -> V:
    return _turned(x, 0)


@helper("cos", inline=True)
def _cos(x: V) -> V:
    return _turned(x, 1)


@helper("sin_slow")
def _sin_slow(x: V) -> V:
    return libm("sin", x.wide()).like(x)


@helper("cos_slow")
def _cos_slow(x: V) -> V:
    return libm("cos", x.wide()).like(x)
