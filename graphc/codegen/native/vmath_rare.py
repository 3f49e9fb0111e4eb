"""The less frequent functions. float32 is computed in float64 vectors and rounded once; float64 mostly by the C library."""
from __future__ import annotations

import math

from . import vmath_coeffs as C
from .vmath_core import V, double, fma, helper, invoke, libm, poly, rarely
from .vmath_exp import exp_normal, half_exp
from .vmath_trig import both, quarter_turns


# -------------------------------------------------------------------------------------------------- inverse trigonometry
def _angle(y: V, x: V) -> V:
    """atan(y / x) of float64 y, x >= 0 to about 30 bits; 0 / 0 is 0 and inf / inf is 1."""
    steep = y.cmp("ogt", x)
    num, den = steep.pick(x, y), steep.pick(y, x)
    q = num / den
    q = num.cmp("oeq", den).pick(num.cmp("oeq", 0.0).pick(num, 1.0), q)
    z = q * q
    a = fma(q * z, poly(z, C.ATAN_30), q)
    return steep.pick(math.pi / 2 - a, a)


@helper("atan")
def _atan(x: V) -> V:
    if double(x):
        return libm("atan", x)
    w = x.wide()
    return _angle(w.abs(), w.of(1.0)).sign_of(w).like(x)


@helper("asin")
def _asin(x: V) -> V:
    if double(x):
        return libm("asin", x)
    w = x.wide()
    return _angle(w.abs(), ((1.0 - w) * (1.0 + w)).math("sqrt")).sign_of(w).like(x)


@helper("acos")
def _acos(x: V) -> V:
    if double(x):
        return libm("acos", x)
    w = x.wide()
    half = _angle((1.0 - w).math("sqrt"), (1.0 + w).math("sqrt"))
    return (half + half).like(x)


@helper("atan2")
def _atan2(y: V, x: V) -> V:
    if double(x):
        return libm("atan2", y, x)
    yw, xw = y.wide(), x.wide()
    a = _angle(yw.abs(), xw.abs())
    return xw.bits().cmp("slt", 0).pick(math.pi - a, a).sign_of(yw).like(x)


@helper("tan")
def _tan(x: V) -> V:
    if double(x):
        return libm("tan", x)
    w = x.wide()
    a = w.abs()
    r, n = quarter_turns(a)
    s, c = both(r)
    even = (n & 1).cmp("eq", 0)
    y = even.pick(s, -c) / even.pick(c, s)
    y = (y.bits() ^ (w.bits() & -(1 << 63))).floats().like(x)
    return rarely(a.cmp("oge", 2.0 ** 30), y, "tan_slow", x)


@helper("tan_slow")
def _tan_slow(x: V) -> V:
    return libm("tan", x.wide()).like(x)


# ----------------------------------------------------------------------------------------------------------- hyperbolic
@helper("sinh")
def _sinh(x: V) -> V:
    """(t + t / (t + 1)) / 2 with t = exp|x| - 1; far out exp|x| / 2."""
    w = x.wide()
    a = w.abs()
    t = invoke("expm1", a.at_most(40.0))
    return a.cmp("ogt", 30.0).pick(half_exp(a), (t + t / (t + 1.0)) * 0.5).sign_of(w).like(x)


@helper("cosh")
def _cosh(x: V) -> V:
    """h + 1 / (4 h) with h = exp|x| / 2."""
    h = half_exp(x.wide().abs())
    return (h + 0.25 / h).like(x)


@helper("asinh")
def _asinh(x: V) -> V:
    if double(x):
        return libm("asinh", x)
    w = x.wide()
    a = w.abs()
    z = a * a
    y = invoke("log1p", a + z / (1.0 + (1.0 + z).math("sqrt")))
    return a.cmp("oeq", math.inf).pick(a, y).sign_of(w).like(x)


@helper("acosh")
def _acosh(x: V) -> V:
    if double(x):
        return libm("acosh", x)
    w = x.wide()
    t = w - 1.0
    y = invoke("log1p", t + fma(t, t, t + t).math("sqrt"))
    return w.cmp("oge", 1.0).pick(y, math.nan).like(x)


@helper("atanh")
def _atanh(x: V) -> V:
    if double(x):
        return libm("atanh", x)
    w = x.wide()
    a = w.abs()
    return (invoke("log1p", (a + a) / (1.0 - a)) * 0.5).sign_of(w).like(x)


# ------------------------------------------------------------------------------------------------------ error functions
@helper("erfc")
def _erfc(x: V) -> V:
    """1 - erf(x) within 1, else exp(-x^2) times a fit in 2 / (2 + |x|); the square of a float32 is exact."""
    if double(x):
        return libm("erfc", x)
    w = x.wide()
    a = w.abs()
    b = a.at_least(1.0).at_most(11.0)
    far = exp_normal(-(b * b)) * poly(2.0 / (b + 2.0), C.ERFCX_30)
    far = w.cmp("olt", 0.0).pick(2.0 - far, far)
    return a.cmp("olt", 1.0).pick(1.0 - fma(w, poly(w * w, C.ERF_F64), w), far).like(x)


@helper("erfinv")
def _erfinv(x: V) -> V:
    """A fit in w = -log(1 - y^2) below 6 and in sqrt(w) above, good to float32; one Halley step more in float64."""
    y = x.wide()
    w = -invoke("log", (1.0 - y) * (1.0 + y))
    near = poly(w, C.ERFINV_NEAR)
    far = poly(w.at_least(6.0).at_most(40.0).math("sqrt"), C.ERFINV_FAR)
    r = w.cmp("olt", 6.0).pick(near, far) * y
    if double(x):
        a = r.abs()
        above = (1.0 - y.abs()) - invoke("erfc", a)
        tail = y.cmp("olt", 0.0).pick(-above, above)
        err = a.cmp("olt", 0.5).pick(invoke("erf", r) - y, tail)
        d = err * (math.sqrt(math.pi) / 2) * invoke("exp", a * a)
        r = r - d / fma(r, d, 1.0)
    r = y.abs().cmp("olt", 1.0).pick(r, math.nan)
    r = y.cmp("oeq", 0.0).pick(y, r)
    return y.abs().cmp("oeq", 1.0).pick(y.of(math.inf).sign_of(y), r).like(x)


# ------------------------------------------------------------------------------------------------- powers and remainders
@helper("pow")
def _pow(x: V, y: V) -> V:
    """exp(y log|x|) with C's rules for signs and special values."""
    if double(x):
        return libm("pow", x, y)
    a, b = x.wide(), y.wide()
    m = a.abs()
    r = invoke("exp", b * invoke("log", m))
    whole = b.math("floor").cmp("oeq", b)
    half = b * 0.5
    odd = whole & half.math("floor").cmp("one", half)
    r = (odd & a.bits().cmp("slt", 0)).pick(-r, r)
    finite = m.cmp("olt", math.inf)
    r = (a.cmp("olt", 0.0) & finite & ~whole & b.cmp("ord", b)).pick(r.of(math.nan), r)
    one = a.cmp("oeq", 1.0) | b.cmp("oeq", 0.0) | (m.cmp("oeq", 1.0) & b.abs().cmp("oeq", math.inf))
    return one.pick(r.of(1.0), r).like(x)


@helper("fmod")
def _fmod(x: V, y: V) -> V:
    """x - trunc(x/y) y, exact: a quotient below 2^22 (2^51) is at most one too large; other lanes by the C library."""
    q = (x / y).math("trunc")
    r = fma(-q, y, x)
    wrong = (r.bits() ^ x.bits()).cmp("slt", 0) & r.cmp("one", 0.0)
    r = wrong.pick(r + y.abs().sign_of(x), r).sign_of(x)
    usual = q.abs().cmp("olt", 2.0 ** (51 if double(x) else 22)) & y.abs().cmp("olt", math.inf)
    return rarely(~usual, r, "fmod_slow", x, y)


@helper("fmod_slow")
def _fmod_slow(x: V, y: V) -> V:
    return libm("fmod", x.wide(), y.wide()).like(x)


def _crosses(m: V, y: V) -> V:
    """Whether a remainder is not zero and its sign differs from the divisor's."""
    return m.cmp("une", 0.0) & (m.bits() ^ y.bits()).cmp("slt", 0)


@helper("remainder")
def _remainder(x: V, y: V) -> V:
    """fmod moved to the divisor's sign; a zero takes it too."""
    m = invoke("fmod", x, y)
    out = _crosses(m, y).pick(m + y, m)
    return out.cmp("oeq", 0.0).pick(out.of(0.0).sign_of(y), out)


@helper("floordiv")
def _floordiv(x: V, y: V) -> V:
    """(x - fmod) / y, less one where fmod crosses, rounded to the nearest integer; x / y where y is 0."""
    m = invoke("fmod", x, y)
    plain = x / y
    d = (x - m) / y
    d = _crosses(m, y).pick(d - 1.0, d)
    low = d.math("floor")
    low = (d - low).cmp("ogt", 0.5).pick(low + 1.0, low)
    out = d.cmp("oeq", 0.0).pick(d.of(0.0).sign_of(plain), low)
    return y.cmp("oeq", 0.0).pick(plain, out)


@helper("logaddexp")
def _logaddexp(x: V, y: V) -> V:
    """The larger plus log1p(exp(-|difference|)); equal infinities stay."""
    a, b = x.wide(), y.wide()
    d = a - b
    far = d.cmp("ogt", 0.0).pick(a, b) + invoke("log1p", invoke("exp", -d.abs()))
    return a.cmp("oeq", b).pick(a + math.log(2), d.cmp("ord", d).pick(far, d)).like(x)
