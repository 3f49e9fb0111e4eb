"""Special functions NumPy lacks, vectorised in float64 (results in the input's dtype), accurate to a few ulp.

erf, erfc: W. J. Cody, "Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969).
erfinv: M. Giles, "Approximating the erfinv function" (2010), refined by Newton-Halley steps.
lgamma, digamma: Chebyshev fits (degree in the tables below, made with mpmath at 60 digits) of lgamma(x)/(x-1) on
[0.5, 1.5], lgamma(x)/(x-2) on [1.5, 3] and digamma(x)/(x-root) on [1, 2]: dividing by the zero keeps the relative accuracy
next to it. Recurrence and the asymptotic series (Abramowitz and Stegun 6.1.41, 6.3.18, 6.4.12) elsewhere, reflection below 0.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..quiet import quiet

Fn = Callable[[np.ndarray], np.ndarray]


def _in64(fn: Fn) -> Callable[[Any], Any]:
    """Run ``fn`` on a flat float64 copy and give the result the input's shape and dtype."""

    def run(x: Any) -> Any:
        x = np.asarray(x)
        with quiet():
            return fn(x.astype(np.float64).reshape(-1)).reshape(x.shape).astype(x.dtype)

    run.__name__, run.__doc__ = fn.__name__, fn.__doc__
    return run


def _pieces(x: np.ndarray, default: Any, *pieces: tuple[np.ndarray, Fn]) -> np.ndarray:
    """``fn(x)`` where its mask holds (the masks are disjoint), ``default`` elsewhere: no element is computed twice."""
    out = np.array(np.broadcast_to(default, x.shape), np.float64)
    for mask, fn in pieces:
        if mask.all():
            return fn(x)
        if mask.any():
            out[mask] = fn(x[mask])
    return out


def _poly(t: np.ndarray, coefficients: Sequence[float]) -> np.ndarray:
    """Horner's rule, highest power first."""
    out = np.full_like(t, coefficients[0])
    for c in coefficients[1:]:
        out *= t
        out += c
    return out


# ------------------------------------------------------------------------------------------------------------ erf, erfc
_A = (1.85777706184603153e-1, 3.16112374387056560e00, 1.13864154151050156e02, 3.77485237685302021e02, 3.20937758913846947e03)
_B = (1.0, 2.36012909523441209e01, 2.44024637934444173e02, 1.28261652607737228e03, 2.84423683343917062e03)
_C = (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e00, 6.61191906371416295e01, 2.98635138197400131e02,
      8.81952221241769090e02, 1.71204761263407058e03, 2.05107837782607147e03, 1.23033935479799725e03)
_D = (1.0, 1.57449261107098347e01, 1.17693950891312499e02, 5.37181101862009858e02, 1.62138957456669019e03,
      3.29079923573345963e03, 4.36261909014324716e03, 3.43936767414372164e03, 1.23033935480374942e03)
_P = (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1, 1.60837851487422766e-2,
      6.58749161529837803e-4)
_Q = (1.0, 2.56852019228982242e00, 1.87295284992346725e00, 5.27905102951428412e-1, 6.05183413124413191e-2,
      2.33520497626869185e-3)
_SMALL = 0.46875


def _erf_small(x: np.ndarray) -> np.ndarray:
    z = x * x
    return x * (_poly(z, _A) / _poly(z, _B))


def _gauss(y: np.ndarray) -> np.ndarray:
    """exp(-y*y) without the error of rounding y*y: the square of y's leading bits is exact."""
    t = np.trunc(y * 16) / 16
    return np.exp(-t * t) * np.exp(-(y - t) * (y + t))


def _erfc_mid(y: np.ndarray) -> np.ndarray:
    """erfc on (0.46875, 4]."""
    return _gauss(y) * (_poly(y, _C) / _poly(y, _D))


def _erfc_far(y: np.ndarray) -> np.ndarray:
    """erfc above 4; exactly 0 where it underflows."""
    z = 1 / (y * y)
    r = (1 / math.sqrt(math.pi) - z * (_poly(z, _P) / _poly(z, _Q))) / y
    return np.where(y > 27, 0.0, _gauss(np.minimum(y, 28)) * r)


@_in64
def erf(x: np.ndarray) -> np.ndarray:
    """2/sqrt(pi) times the integral of exp(-t*t) from 0 to x."""
    a = np.abs(x)
    return _pieces(x, x, (a <= _SMALL, _erf_small),
                   ((a > _SMALL) & (a < 6), lambda v: np.copysign(1 - _pieces(
                       np.abs(v), 0.0, (np.abs(v) <= 4, _erfc_mid), (np.abs(v) > 4, _erfc_far)), v)),
                   (a >= 6, np.sign))


@_in64
def erfc(x: np.ndarray) -> np.ndarray:
    """1 - erf(x), accurate where it is tiny."""
    return _pieces(x, x, (np.abs(x) <= _SMALL, lambda v: 1 - _erf_small(v)),
                   ((x > _SMALL) & (x <= 4), _erfc_mid), (x > 4, _erfc_far),
                   ((x < -_SMALL) & (x >= -4), lambda v: 2 - _erfc_mid(-v)), (x < -4, lambda v: 2 - _erfc_far(-v)))


# --------------------------------------------------------------------------------------------------------------- erfinv
_NEAR = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
         0.246640727, 1.50140941)
_TAIL = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
         1.00167406, 2.83297682)


def _erfinv_edge(w: np.ndarray) -> np.ndarray:
    """A start beyond the reach of Giles' fits: erfc(x) ~ exp(-x*x) / (x sqrt(pi)), solved by fixed-point iteration."""
    x = np.sqrt(w)
    for _ in range(4):
        x = np.sqrt(w + math.log(2) - 0.5 * math.log(math.pi) - np.log(x) - 0.5 / (x * x))
    return x


def _erfinv_inside(y: np.ndarray) -> np.ndarray:
    """erfinv on (-1, 1)."""
    w = -np.log((1 - y) * (1 + y))
    x = np.where(w < 5, _poly(w - 2.5, _NEAR), _poly(np.sqrt(np.maximum(w, 5.0)) - 3, _TAIL)) * y
    x = np.where(w > 16, np.sign(y) * _erfinv_edge(np.maximum(w, 16)), x)
    for _ in range(2):  # the start has 7 digits, a Halley step triples them
        err = np.where(np.abs(x) < 0.5, erf(x) - y, np.sign(x) * ((1 - np.abs(y)) - erfc(np.abs(x))))
        d = err * (math.sqrt(math.pi) / 2) * np.exp(x * x)
        x = x - d / (1 + x * d)
    return np.where(y == 0, y, x)


@_in64
def erfinv(y: np.ndarray) -> np.ndarray:
    """The x with erf(x) = y; infinite at -1 and 1, NaN outside."""
    return _pieces(y, np.nan, (np.abs(y) < 1, _erfinv_inside), (np.abs(y) == 1, lambda v: np.copysign(np.inf, v)))


# --------------------------------------------------------------------------------------------------------------- lgamma
_LG1 = (0.21762817640022097, -0.22471180158915516, -0.14857260899606312, 0.1528715168258553, 0.14011729595820724,
        -0.14497971020532596, 0.01333577663873192, -0.014509338086091672, 0.057003000096539545, -0.059850048562680856,
        0.054501409023364235, -0.057737256640806416, 0.0626116167474043, -0.06678275881746833, 0.07142491150665906,
        -0.07692423568567124, 0.08335423437020126, -0.09095442301348973, 0.10009944506030896, -0.1113342530365414,
        0.1255096697597847, -0.14404989701106719, 0.16955717699509998, -0.2073855510262953, 0.2705808084277935,
        -0.4006856343865406, 0.8224670334241132, -0.5772156649015329)
_LG2 = (-3.733822460565909e-09, 8.799286207529291e-09, -9.75853963620739e-09, 2.3238382773919785e-08, -6.94870130043082e-08,
        1.6611825991016614e-07, -3.889152988891441e-07, 9.388069710530744e-07, -2.2838238745410546e-06,
        5.584283091169976e-06, -1.377174289382602e-05, 3.433609567255107e-05, -8.680583572785617e-05, 0.00022352009396955084,
        -0.0005901656741754037, 0.0016148854198894493, -0.004662626671218007, 0.014688323717332733, -0.05429540385214991,
        0.29223842821659274, 0.4994868595695864)
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def _lgamma_above(x: np.ndarray) -> np.ndarray:
    """lgamma for x in [3, 10): down to [2, 3) by lgamma(x) = log(x-1) + lgamma(x-1)."""
    product = np.ones_like(x)
    for _ in range(7):
        high = x >= 3
        x = np.where(high, x - 1, x)
        product = np.where(high, product * x, product)
    return np.log(product) + (x - 2) * _poly(x - 2.25, _LG2)


def _stirling(x: np.ndarray) -> np.ndarray:
    """lgamma for x >= 10 by its asymptotic series."""
    r = 1 / x
    s = _poly(r * r, (-691 / 360360, 1 / 1188, -1 / 1680, 1 / 1260, -1 / 360, 1 / 12)) * r
    return (x - 0.5) * (np.log(x) - 1) + (_HALF_LOG_2PI - 0.5 + s)


def _lgamma_positive(x: np.ndarray) -> np.ndarray:
    return _pieces(
        x, np.nan, (x < 0.5, lambda v: v * _poly(v, _LG1) - np.log(v)),
        ((x >= 0.5) & (x < 1.5), lambda v: (v - 1) * _poly(v - 1, _LG1) + 0.0),  # + 0.0: no -0.0 at 1
        ((x >= 1.5) & (x < 3), lambda v: (v - 2) * _poly(v - 2.25, _LG2)),
        ((x >= 3) & (x < 10), _lgamma_above), (x >= 10, _stirling))


def _lgamma_negative(x: np.ndarray) -> np.ndarray:
    """log|pi / (x sin(pi x))| - lgamma(-x); infinite at the integers."""
    frac = np.abs(x - np.rint(x))
    return np.where(frac == 0, np.inf, np.log(np.pi / (-x * np.sin(np.pi * frac))) - _lgamma_positive(-x))


@_in64
def lgamma(x: np.ndarray) -> np.ndarray:
    """log |gamma(x)|; infinite at 0, the negative integers and the infinities."""
    finite = np.isfinite(x)
    return _pieces(x, np.where(np.isnan(x), x, np.inf), ((x > 0) & finite, _lgamma_positive),
                   ((x < 0) & (x > -0.5), lambda v: v * _poly(v, _LG1) - np.log(-v)),
                   ((x <= -0.5) & finite, _lgamma_negative))


# ---------------------------------------------------------------------------------------------------- digamma, trigamma
_PSI = (0.0002522590506964885, -0.0003783907897248858, 0.00023650171719339814, -0.00035476352053371977,
        0.0007184107969046378, -0.0010776863967234226, 0.0015580749137213761, -0.002337552647103118, 0.0035187504361950134,
        -0.005280903066090605, 0.007926972735646359, -0.011908146513976738, 0.017907250563619775, -0.026975800029253667,
        0.0407608338843387, -0.06192213319072707, 0.09498872445354183, -0.14840492305485808, 0.24054248424078478,
        -0.4236274212814573, 0.9510558760318328)
_ROOT, _ROOT_LOW = 1.4616321449683622, 9.549995429965697e-17  # the zero of digamma in two parts


def _digamma_unit(x: np.ndarray) -> np.ndarray:
    """digamma on [1, 2]."""
    return ((x - _ROOT) - _ROOT_LOW) * _poly(x - 1.5, _PSI)


def _digamma_above(x: np.ndarray) -> np.ndarray:
    """digamma on (2, 10): down to [1, 2] by digamma(x) = digamma(x-1) + 1/(x-1)."""
    s = np.zeros_like(x)
    for _ in range(8):
        high = x > 2
        x = np.where(high, x - 1, x)
        s = np.where(high, s + 1 / x, s)
    return s + _digamma_unit(x)


def _digamma_far(x: np.ndarray) -> np.ndarray:
    """digamma for x >= 10 by its asymptotic series."""
    r = 1 / (x * x)
    series = _poly(r, (1 / 12, -691 / 32760, 1 / 132, -1 / 240, 1 / 252, -1 / 120, 1 / 12)) * r
    return np.log(x) - 0.5 / x - series


def _digamma_positive(x: np.ndarray) -> np.ndarray:
    return _pieces(x, np.nan, (x < 1, lambda v: _digamma_unit(v + 1) - 1 / v), ((x >= 1) & (x <= 2), _digamma_unit),
                   ((x > 2) & (x < 10), _digamma_above), (x >= 10, _digamma_far))


def _digamma_negative(x: np.ndarray) -> np.ndarray:
    """Reflection; NaN at the integers (and at minus infinity), where the sign of the infinity depends on the side."""
    frac = x - np.rint(x)
    out = _digamma_positive(-x) - 1 / x - np.pi / np.tan(np.pi * frac)
    return np.where(x > -1e-300, -1 / x, np.where(frac == 0, np.nan, out))


@_in64
def digamma(x: np.ndarray) -> np.ndarray:
    """Derivative of lgamma; -inf at 0, +inf at -0, NaN at the negative integers."""
    default = np.where(x == 0, np.copysign(np.inf, -x), np.where(np.isneginf(x), np.nan, x))
    finite = np.isfinite(x)
    return _pieces(x, default, ((x > 0) & finite, _digamma_positive), ((x < 0) & finite, _digamma_negative))


def _trigamma_positive(x: np.ndarray) -> np.ndarray:
    s = np.zeros_like(x)
    for _ in range(10):
        low = x < 10
        s = np.where(low, s + 1 / (x * x), s)
        x = np.where(low, x + 1, x)
    r = 1 / (x * x)
    series = _poly(r, (7 / 6, -691 / 2730, 5 / 66, -1 / 30, 1 / 42, -1 / 30, 1 / 6))
    return s + 1 / x + r / 2 + r / x * series


def _trigamma_negative(x: np.ndarray) -> np.ndarray:
    frac = x - np.rint(x)
    reflected = (np.pi / np.sin(np.pi * frac)) ** 2 + 1 / (x * x) - _trigamma_positive(-x)
    return np.where(frac == 0, np.inf, reflected)


@_in64
def trigamma(x: np.ndarray) -> np.ndarray:
    """Second derivative of lgamma; infinite at 0 and the negative integers."""
    default = np.where(np.isposinf(x), 0.0, np.where(x == 0, np.inf, np.nan))
    finite = np.isfinite(x)
    return _pieces(x, default, ((x > 0) & finite, _trigamma_positive),
                   ((x < 0) & (x > -0.5), lambda v: _trigamma_positive(1 + v) + 1 / (v * v)),
                   ((x <= -0.5) & finite, _trigamma_negative))
