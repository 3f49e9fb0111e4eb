"""exp, exp2, expm1, tanh and erf.

exp(x) = 2^k exp(r), r = x - k log(2), |r| <= log(2)/2. k comes from adding a constant so large that the sum's last bit
counts units: its low bits then hold k plus the exponent's bias, ready to be shifted into place.
"""
from __future__ import annotations

import math

from . import vmath_coeffs as C
from .vmath_core import V, double, fma, helper, poly

_LOG2E = 1 / math.log(2)
_EXP = {False: (C.EXP_F32, C.EXP2_F32, C.EXPM1_F32), True: (C.EXP_F64, C.EXP2_F64, C.EXPM1_F64)}
_EXP_RANGE = {False: (-104.0, 89.0), True: (-746.0, 710.0)}  # beyond: 0 and infinity
_EXP2_RANGE = {False: (-151.0, 129.0), True: (-1076.0, 1025.0)}


def _mantissa(x: V) -> int:
    return 52 if double(x) else 23


def _whole(x: V, factor: float, bias: int) -> tuple[V, V]:
    """k = the integer nearest x * factor, and integer bits whose low end is k + bias."""
    big = 1.5 * 2.0 ** _mantissa(x) + bias
    t = fma(x, factor, x.of(big)) if factor != 1 else x + big
    return t - big, t.bits()


def _power(bits: V, x: V) -> V:
    """2^k from the bits of :func:`_whole` with the exponent's bias."""
    return bits.shl(_mantissa(x)).floats()


def _bias(x: V) -> int:
    return 1023 if double(x) else 127


def _times_two_powers(y: V, bits: V) -> V:
    """y * 2^k for bits with twice the bias: two factors, so that k may lie outside the exponent's range; rounds once."""
    half = bits.lshr(1)
    return y * _power(half, y) * _power(bits - half, y)


def _remainder(x: V, k: V) -> V:
    """x - k log(2). The first step is exact."""
    hi, lo = C.LN2_F64 if double(x) else C.LN2_F32
    return fma(k, -lo, fma(k, -hi, x))


def exp_parts(x: V, bias: int) -> tuple[V, V]:
    """exp(r) and the bits of k + bias."""
    k, bits = _whole(x, _LOG2E, bias)
    r = _remainder(x, k)
    return fma(fma(poly(r, _EXP[double(x)][0]), r, 1.0), r, 1.0), bits


def exp_normal(x: V) -> V:
    """exp(x) where neither x nor the result leaves the normal range."""
    y, bits = exp_parts(x, _bias(x))
    return y * _power(bits, x)


def half_exp(a: V) -> V:
    """exp(a) / 2 of a >= 0; infinite only where the half is."""
    y, bits = exp_parts(a.at_most(_EXP_RANGE[double(a)][1] + 1), 2 * _bias(a) - 1)
    return _times_two_powers(y, bits)


@helper("exp", inline=True)
def _exp(x: V) -> V:
    lo, hi = _EXP_RANGE[double(x)]
    y, bits = exp_parts(x.at_most(hi).at_least(lo), 2 * _bias(x))
    return _times_two_powers(y, bits)


@helper("exp2")
def _exp2(x: V) -> V:
    lo, hi = _EXP2_RANGE[double(x)]
    x = x.at_most(hi).at_least(lo)
    k, bits = _whole(x, 1, 2 * _bias(x))
    r = x - k
    return _times_two_powers(fma(poly(r, _EXP[double(x)][1]), r, 1.0), bits)


@helper("expm1")
def _expm1(x: V) -> V:
    """2^k (exp(r) - 1) + (2^k - 1), halved until the end so that 2^k exists; r carries a low part."""
    a = x.at_most(_EXP_RANGE[double(x)][1]).at_least(-40.0)
    k, bits = _whole(a, _LOG2E, _bias(x) - 1)
    hi, lo = C.LN2_F64 if double(x) else C.LN2_F32
    first = fma(k, -hi, a)
    r = fma(k, -lo, first)
    low = fma(k, -lo, first - r)
    q = r + fma(r * r, poly(r, _EXP[double(x)][2]), low)
    half = _power(bits, x)
    y = fma(half, q, half - 0.5)
    return x.abs().cmp("olt", 2.0 ** -(_mantissa(x) + 2)).pick(x, y + y)


@helper("tanh", inline=True)
def _tanh(x: V) -> V:
    """x + x z P(z) next to 0, else 1 - 2 / (exp(2|x|) + 1)."""
    a = x.abs()
    z = x * x
    near = fma(a * z, poly(z, C.TANH_F64 if double(x) else C.TANH_F32), a)
    e = exp_normal((a + a).at_most(40.0))
    return a.cmp("olt", 0.625).pick(near, 1.0 - 2.0 / (e + 1.0)).sign_of(x)


@helper("erf", inline=True)
def _erf(x: V) -> V:
    """x + x P(z) next to 0, else 1 - exp(-Q(|x|)) with Q = -log(erfc)."""
    a = x.abs()
    p, q, end = (C.ERF_F64, C.ERFC_LOG_F64, 6.0) if double(x) else (C.ERF_F32, C.ERFC_LOG_F32, 4.0)
    near = fma(x, poly(x * x, p), x)
    far = (1.0 - exp_normal(-poly(a.at_most(end), q))).sign_of(x)
    return a.cmp("olt", 1.0).pick(near, far)
