"""log, log2, log10 and log1p.

x = 2^k (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2); log(1 + f) = f + tail, |tail| < |f| / 4, and k log(2) + f is summed with
its rounding error, so that hardly more than the last rounding is lost.
"""
from __future__ import annotations

import math

from . import vmath_coeffs as C
from .vmath_core import V, double, fast_two_sum, fma, helper, poly, two_prod


def _split(x: V) -> tuple[V, V]:
    """k as integer, and 1 + f, of a positive normal x."""
    shift, root = (52, 0x3FE6A09E667F3BCD) if double(x) else (23, 0x3F3504F3)  # bits of sqrt(1/2)
    bits = x.bits()
    k = (bits - root).ashr(shift)
    return k, (bits - k.shl(shift)).floats()


def _reduce(x: V) -> tuple[V, V]:
    """k and f of any positive finite x."""
    tiny = x.cmp("olt", 2.0 ** -1022 if double(x) else 2.0 ** -126)
    up = 54 if double(x) else 25
    k, m = _split(tiny.pick(x * 2.0 ** up, x))
    e = tiny.pick(k - up, k).cast("sitofp", "double" if double(x) else "float")
    return e, m - 1.0


def _tail(f: V) -> V:
    """log(1 + f) - f."""
    if not double(f):
        return f * f * fma(poly(f, C.LOG_F32), f, -0.5)
    s = f / (f + 2.0)
    z = s * s
    half = f * f * 0.5
    return s * fma(z, poly(z, C.LOG_F64), half) - half


def _log_sum(k: V, f: V) -> V:
    """k log(2) + log(1 + f)."""
    hi, lo = C.LN2_SHORT_F64 if double(f) else C.LN2_SHORT_F32
    s, err = fast_two_sum(k * hi, f)
    return s + (fma(k, lo, err) + _tail(f))


def _edges(x: V, y: V) -> V:
    """log's values at 0, infinity, below 0 and for NaN."""
    y = x.cmp("ogt", 0.0).pick(y, math.nan)
    y = x.cmp("oeq", math.inf).pick(x, y)
    return x.cmp("oeq", 0.0).pick(x.of(-math.inf), y)


@helper("log", inline=True)
def _log(x: V) -> V:
    return _edges(x, _log_sum(*_reduce(x)))


def _other_base(x: V, base_e: tuple[float, float], hi: float, lo: float) -> V:
    """k * (hi + lo) + log(1 + f) * (base_e[0] + base_e[1])."""
    k, f = _reduce(x)
    p, err = two_prod(f, base_e[0])
    s, more = fast_two_sum(k * hi, p)
    rest = fma(_tail(f), base_e[0], fma(f, base_e[1], err))
    return _edges(x, s + (fma(k, lo, more) + rest))


@helper("log2")
def _log2(x: V) -> V:
    return _other_base(x, C.LOG2E_F64 if double(x) else C.LOG2E_F32, 1.0, 0.0)


@helper("log10")
def _log10(x: V) -> V:
    if double(x):
        return _other_base(x, C.LOG10E_F64, *C.LOG10_2_SHORT_F64)
    return _other_base(x, C.LOG10E_F32, *C.LOG10_2_SHORT_F32)


@helper("log1p", inline=True)
def _log1p(x: V) -> V:
    """1 + x = 2^k (1 + f), f = 2^-k x + (2^-k - 1): k of the rounded sum will do. Where x is huge, log(x)."""
    k, m = _split(x + 1.0)
    bias, shift = (1023, 52) if double(x) else (127, 23)
    down = (bias - k).shl(shift).floats()
    f = x.cmp("ogt", 2.0 ** 60).pick(m - 1.0, fma(x, down, down - 1.0))
    y = _log_sum(k.cast("sitofp", "double" if double(x) else "float"), f)
    y = x.cmp("ogt", -1.0).pick(y, math.nan)
    y = x.cmp("oeq", math.inf).pick(x, y)
    return x.cmp("oeq", -1.0).pick(x.of(-math.inf), y).sign_of(x)
