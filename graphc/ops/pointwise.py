"""Pointwise functions: arithmetic, comparison, logic, transcendental functions, clamping, rounding."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .. import dtypes
from ..dtypes import bool_
from ..errors import ArgumentTypeError, AutogradError, DTypeError
from ..ir import build as P
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.recorder import apply, scalar
from ..tensor import Tensor, wrap
from ._common import binary_values, float_value, norm_dims, operand, result_dtype, to_dtype, to_out, val

ADD, SUB, MUL, DIV = OPS["add"], OPS["sub"], OPS["mul"], OPS["div"]


def _fast(op: Any, name: str, a: Any, b: Any) -> Tensor:
    """Record a binary op; the common case of two tensors of one dtype costs no promotion."""
    if isinstance(a, Tensor):
        x = a._v if a._alias is None else a._read()
        if isinstance(b, Tensor):
            y = b._v if b._alias is None else b._read()
            if x.aval.dtype is y.aval.dtype:
                return wrap(apply(op, (x, y)))
        elif b.__class__ is float and x.aval.dtype.category == 2:  # takes the tensor's dtype
            return wrap(apply(op, (x, scalar(b, x.aval.dtype))))
    return wrap(apply(op, binary_values(name, a, b)))


def _factor_first(name: str, given: tuple[Any, ...], *tensors: Any) -> tuple[Any, ...]:
    """PyTorch's first spelling, ``x.add_(alpha, other)`` and ``x.addcmul_(value, a, b)``, which programs of its time use."""
    factor, *rest = (*tensors, *given)
    if len(given) != 1 or isinstance(factor, Tensor):
        takes = len(tensors) + 1
        raise ArgumentTypeError(f"{name}() takes {takes} positional arguments but {takes + len(given)} were given")
    return factor, *rest


def add(input: Any, other: Any, *old: Any, alpha: Any = 1, out: Tensor | None = None) -> Tensor:
    """``input + alpha * other`` with broadcasting and type promotion."""
    if old:
        alpha, other = _factor_first("add", old, other)
    if alpha == 1 and out is None:
        return _fast(ADD, "add", input, other)
    x, y = binary_values("add", input, other)
    return to_out(out, P.add(x, y if alpha == 1 else P.mul(y, to_dtype(alpha, y.aval.dtype))))


def sub(input: Any, other: Any, *old: Any, alpha: Any = 1, out: Tensor | None = None) -> Tensor:
    """``input - alpha * other``."""
    if old:
        alpha, other = _factor_first("sub", old, other)
    x, y = binary_values("sub", input, other)
    if _is_bool(input) or _is_bool(other):
        raise DTypeError("Subtraction, the `-` operator, with a bool tensor is not supported. If you are trying to invert a "
                         "mask, use the `~` or `logical_not()` operator instead.")
    return to_out(out, P.sub(x, y if alpha == 1 else P.mul(y, to_dtype(alpha, y.aval.dtype))))


def _is_bool(x: Any) -> bool:
    return isinstance(x, bool) or isinstance(x, Tensor) and x.dtype is bool_


def _refuse_bool(name: str) -> Callable[[Value, Value], None]:
    def check(a: Value, b: Value) -> None:
        if a.aval.dtype is bool_:
            raise NotImplementedError(f'"{name}" not implemented for \'Bool\'')

    return check


def _refuse_ints(name: str) -> Callable[[Value, Value], None]:
    def check(a: Value, b: Value) -> None:
        if a.aval.dtype.category < 2:
            raise NotImplementedError(f'"{name}" not implemented for {a.aval.dtype.name}; convert with .float() first')

    return check


def mul(input: Any, other: Any, *, out: Tensor | None = None) -> Tensor:
    """``input * other``."""
    if out is None:
        return _fast(MUL, "mul", input, other)
    return to_out(out, P.mul(*binary_values("mul", input, other)))


def div(input: Any, other: Any, *, rounding_mode: str | None = None, out: Tensor | None = None) -> Tensor:
    """True division, or rounded toward zero ("trunc") or down ("floor")."""
    if rounding_mode is None:
        return to_out(out, P.div(*binary_values("div", input, other, at_least_float=True)))
    if rounding_mode not in ("trunc", "floor"):
        raise AutogradError("div expected rounding_mode to be one of None, 'trunc', or 'floor' but found "
                            f"'{rounding_mode}'")
    x, y = binary_values("div", input, other)
    if rounding_mode == "floor":
        q = P.floordiv(x, y)
        if (x.gfn is not None or y.gfn is not None) and x.aval.dtype.category >= 2:  # gradient zero, not none
            q = P.where(P.full(q.aval.shape, False, bool_, q.aval.device), P.add(x, y), q)
        return to_out(out, q)
    if x.aval.dtype.category < 2:  # sign-corrected integer division: exact where float division would round
        q = P.floordiv(x, y)
        fix = P.bit_and(P.lt(P.mul(P.sign(x), P.sign(y)), 0), P.ne(P.mul(q, y), x))
        return to_out(out, P.add(q, P.cast(fix, q.aval.dtype)))
    return to_out(out, P.trunc(P.div(x, y)))


def floor_divide(input: Any, other: Any, *, out: Tensor | None = None) -> Tensor:
    """Quotient rounded down."""
    x, y = binary_values("floor_divide", input, other)
    _refuse_bool("div_floor")(x, y)
    return to_out(out, P.floordiv(x, y))


def _bin(name: str, fn: Callable[[Value, Value], Value], doc: str, *, at_least_float: bool = False,
         check: Callable[[Value, Value], None] | None = None) -> Callable[..., Tensor]:
    def f(input: Any, other: Any, *, out: Tensor | None = None) -> Tensor:
        x, y = binary_values(name, input, other, at_least_float=at_least_float)
        if check is not None:
            check(x, y)
        return to_out(out, fn(x, y))

    f.__name__, f.__doc__ = name, doc
    return f


remainder = _bin("remainder", P.remainder, "Remainder with the divisor's sign (Python's ``%``).",
                 check=_refuse_bool("remainder"))
fmod = _bin("fmod", P.fmod, "Remainder with the dividend's sign (C's fmod).", check=_refuse_bool("fmod"))
maximum = _bin("maximum", P.maximum, "Elementwise larger; NaN propagates.")
minimum = _bin("minimum", P.minimum, "Elementwise smaller; NaN propagates.")
atan2 = arctan2 = _bin("atan2", P.atan2, "Angle of the point (other, input).", at_least_float=True)
eq = _bin("eq", P.eq, "``input == other``, bool.")
ne = not_equal = _bin("ne", P.ne, "``input != other``, bool.")
lt = less = _bin("lt", P.lt, "``input < other``, bool.")
le = less_equal = _bin("le", P.le, "``input <= other``, bool.")
gt = greater = _bin("gt", P.gt, "``input > other``, bool.")
ge = greater_equal = _bin("ge", P.ge, "``input >= other``, bool.")
logical_and = _bin("logical_and", lambda a, b: P.bit_and(P.as_bool(a), P.as_bool(b)), "Both nonzero.")
logical_or = _bin("logical_or", lambda a, b: P.bit_or(P.as_bool(a), P.as_bool(b)), "Either nonzero.")
logical_xor = _bin("logical_xor", lambda a, b: P.bit_xor(P.as_bool(a), P.as_bool(b)), "Exactly one nonzero.")
fmax = _bin("fmax", lambda a, b: P.where(P.isnan(a), b, P.where(P.isnan(b), a, P.maximum(a, b))),
            "Larger, ignoring a NaN.")
fmin = _bin("fmin", lambda a, b: P.where(P.isnan(a), b, P.where(P.isnan(b), a, P.minimum(a, b))),
            "Smaller, ignoring a NaN.")
hypot = _bin("hypot", lambda a, b: P.sqrt(P.add(P.mul(a, a), P.mul(b, b))), "sqrt(a^2 + b^2).")
copysign = _bin("copysign", lambda a, b: P.where(P.lt(P.where(P.eq(b, 0), P.reciprocal(b), b), 0), P.neg(P.abs(a)),
                                                 P.abs(a)), "|a| with b's sign.", at_least_float=True)
def heaviside(input: Tensor, values: Tensor, *, out: Tensor | None = None) -> Tensor:
    """0 below zero, 1 above, ``values`` at zero; both of one dtype."""
    a, b = val(input), val(values, "values")
    if a.aval.dtype is not b.aval.dtype:
        raise DTypeError("heaviside is not yet implemented for tensors with different dtypes.")
    return to_out(out, P.where(P.eq(a, 0), b, P.cast(P.gt(a, 0), a.aval.dtype)))


def _xlogy(a: Value, b: Value) -> Value:
    """0 for a = 0 even where log(b) is infinite or undefined; elsewhere the gradient to ``a`` is log(b), at a = 0 too."""
    no_log = P.bit_and(P.eq(a, 0), P.bit_or(P.le(b, 0), P.isinf(b)))
    return P.mul(a, P.log(P.where(no_log, 1, b)))


xlogy = _bin("xlogy", _xlogy, "a*log(b), 0 where a is 0.", at_least_float=True)
ldexp = _bin("ldexp", lambda a, b: P.mul(a, P.exp2(b)), "a * 2^b.", at_least_float=True)


def logaddexp(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """log(exp(a) + exp(b)) without overflow."""
    a, b = binary_values("logaddexp", input, other)
    _refuse_ints("logaddexp")(a, b)
    m = P.maximum(a, b)
    d = P.neg(P.abs(P.sub(a, b)))
    y = P.add(m, P.log1p(P.exp(d)))
    return to_out(out, P.where(P.bit_and(P.isinf(m), P.eq(a, b)), m, y))


def logaddexp2(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """log2(2^a + 2^b) without overflow."""
    a, b = binary_values("logaddexp2", input, other)
    _refuse_ints("logaddexp2")(a, b)
    m = P.maximum(a, b)
    y = P.add(m, P.mul(P.log1p(P.exp2(P.neg(P.abs(P.sub(a, b))))), 1 / math.log(2)))
    return to_out(out, P.where(P.bit_and(P.isinf(m), P.eq(a, b)), m, y))


def pow(input: Any, exponent: Any, *, out: Tensor | None = None) -> Tensor:
    """``input ** exponent``. Integer tensors refuse negative Python exponents, as in PyTorch."""
    if isinstance(input, Tensor) and isinstance(exponent, (int, float)):
        v = val(input)
        if v.aval.dtype.category < 2 and isinstance(exponent, int) and exponent < 0:
            raise AutogradError("Integers to negative integer powers are not allowed.")
        if exponent == 2 and v.aval.dtype.category >= 1:  # a program constant on purpose: x*x needs no pow kernel
            return to_out(out, P.mul(v, v))
        if exponent == 1:
            return to_out(out, P.mul(v, 1) if v.aval.dtype.category else v)
        if exponent == 0.5 and v.aval.dtype.category >= 2:
            return to_out(out, P.sqrt(v))
    x, y = binary_values("pow", input, exponent)
    _refuse_bool("pow")(x, y)
    return to_out(out, P.pow(x, y))


def float_power(input: Any, exponent: Any, *, out: Tensor | None = None) -> Tensor:
    """``pow`` computed in float64."""
    x, y = operand(input, "float_power"), operand(exponent, "float_power")
    return to_out(out, P.pow(to_dtype(x, dtypes.float64), to_dtype(y, dtypes.float64)))


def rsub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """``other - alpha * input``."""
    return sub(other, input, alpha=alpha)


# -------------------------------------------------------------------------------------------------------------- unary
def _un(name: str, fn: Callable[[Value], Value], doc: str, *, floats: bool = True, least: int = 0) -> Callable[..., Tensor]:
    def f(input: Tensor, *, out: Tensor | None = None) -> Tensor:
        if least and val(input).aval.dtype.category < least:
            raise NotImplementedError(f'"{name}" not implemented for {input.dtype.name}')
        return to_out(out, fn(float_value(input) if floats else val(input)))

    f.__name__, f.__doc__ = name, doc
    return f


exp = _un("exp", P.exp, "e^x.")
exp2 = _un("exp2", P.exp2, "2^x.")
expm1 = _un("expm1", P.expm1, "e^x - 1, accurate near 0.")
log = _un("log", P.log, "Natural logarithm.")
log2 = _un("log2", P.log2, "Logarithm to base 2.")
log10 = _un("log10", P.log10, "Logarithm to base 10.")
log1p = _un("log1p", P.log1p, "log(1 + x), accurate near 0.")
sin, cos, tan = _un("sin", P.sin, "Sine."), _un("cos", P.cos, "Cosine."), _un("tan", P.tan, "Tangent.")
asin = arcsin = _un("asin", P.asin, "Inverse sine.")
acos = arccos = _un("acos", P.acos, "Inverse cosine.")
atan = arctan = _un("atan", P.atan, "Inverse tangent.")
sinh, cosh, tanh = _un("sinh", P.sinh, "sinh."), _un("cosh", P.cosh, "cosh."), _un("tanh", P.tanh, "tanh.")
asinh = arcsinh = _un("asinh", P.asinh, "Inverse sinh.")
acosh = arccosh = _un("acosh", P.acosh, "Inverse cosh.")
atanh = arctanh = _un("atanh", P.atanh, "Inverse tanh.")
erf, erfc = _un("erf", P.erf, "Error function."), _un("erfc", P.erfc, "1 - erf(x).")
erfinv = _un("erfinv", P.erfinv, "Inverse error function.")
lgamma, digamma = _un("lgamma", P.lgamma, "log|Gamma(x)|."), _un("digamma", P.digamma, "d lgamma / dx.")
sqrt, rsqrt = _un("sqrt", P.sqrt, "Square root."), _un("rsqrt", P.rsqrt, "1 / sqrt(x).")
reciprocal = _un("reciprocal", P.reciprocal, "1 / x.")
abs = absolute = _un("abs", P.abs, "Absolute value.", floats=False, least=1)
positive = _un("positive", lambda v: v, "x itself.", floats=False, least=1)
floor = _un("floor", P.floor, "Largest integer not above.", floats=False, least=1)
ceil = _un("ceil", P.ceil, "Smallest integer not below.", floats=False, least=1)
trunc = fix = _un("trunc", P.trunc, "Integer part.", floats=False, least=1)
frac = _un("frac", lambda v: P.sub(v, P.trunc(v)), "Fractional part.", least=2)
square = _un("square", lambda v: P.mul(v, v) if v.aval.dtype.category else P.cast(v, dtypes.int64), "x * x.", floats=False)
isnan = _un("isnan", P.isnan, "Whether NaN.", floats=False)
isinf = _un("isinf", P.isinf, "Whether infinite.", floats=False)
isfinite = _un("isfinite", lambda v: P.logical_not(P.bit_or(P.isnan(v), P.isinf(v))), "Neither NaN nor infinite.",
               floats=False)
isposinf = _un("isposinf", lambda v: P.bit_and(P.isinf(v), P.gt(v, 0)), "Whether +infinity.", floats=False)
isneginf = _un("isneginf", lambda v: P.bit_and(P.isinf(v), P.lt(v, 0)), "Whether -infinity.", floats=False)
isreal = _un("isreal", lambda v: P.full(v.shape, True, bool_, v.device), "Whether real.",
             floats=False)
logical_not = _un("logical_not", P.logical_not, "Whether zero.", floats=False)
deg2rad = _un("deg2rad", lambda v: P.mul(v, math.pi / 180), "Degrees to radians.")
rad2deg = _un("rad2deg", lambda v: P.mul(v, 180 / math.pi), "Radians to degrees.")
signbit = _un("signbit", lambda v: P.lt(v, 0) if v.aval.dtype.category < 2
              else P.lt(P.where(P.eq(v, 0), P.reciprocal(v), v), 0), "Whether the sign bit is set.", floats=False)
sinc = _un("sinc", lambda v: P.where(P.eq(v, 0), P.full_like(v, 1),
                                     P.div(P.sin(P.mul(v, math.pi)), P.mul(P.where(P.eq(v, 0), P.full_like(v, 1), v),
                                                                          math.pi))), "sin(pi x)/(pi x).")


def sigmoid(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """1 / (1 + exp(-x))."""
    return to_out(out, apply(OPS["sigmoid"], (float_value(input),)))


expit = sigmoid


def logit(input: Tensor, eps: float | None = None, *, out: Tensor | None = None) -> Tensor:
    """log(x / (1 - x)); ``eps`` clamps x into [eps, 1 - eps] first."""
    v = float_value(input)
    if eps is not None:
        v = P.minimum(P.maximum(v, eps), 1 - eps)
    return to_out(out, P.log(P.div(v, P.sub(1, v))))


def neg(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """-x. Bool tensors are refused."""
    v = val(input)
    if v.aval.dtype is bool_:
        raise DTypeError("Negation, the `-` operator, on a bool tensor is not supported. If you are trying to invert a mask, "
                         "use the `~` or `logical_not()` operator instead.")
    return to_out(out, P.neg(v))


negative = neg


def sign(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """-1, 0 or 1 (bool: unchanged)."""
    v = val(input)
    return to_out(out, v if v.aval.dtype is bool_ else P.sign(v))


sgn = sign


def round(input: Tensor, *, decimals: int = 0, out: Tensor | None = None) -> Tensor:
    """Nearest integer, halves to even; ``decimals`` digits after the point are kept."""
    v = val(input)
    if v.aval.dtype is bool_:
        raise NotImplementedError('"round" not implemented for Bool')
    if decimals == 0:
        return to_out(out, P.round(v))
    scale = 10.0 ** builtins_abs(decimals)
    if decimals > 0:
        return to_out(out, P.div(P.round(P.mul(v, scale)), scale))
    return to_out(out, P.mul(P.round(P.div(v, scale)), scale))


def builtins_abs(x: int) -> int:
    return -x if x < 0 else x


def clamp(input: Tensor, min: Any = None, max: Any = None, *, out: Tensor | None = None) -> Tensor:
    """Limit to [min, max]; numbers or tensors. Gradient flows where min <= x <= max."""
    if min is None and max is None:
        raise AutogradError("torch.clamp: At least one of 'min' or 'max' must not be None")
    ops = [o if o is None else operand(o, "clamp") for o in (input, min, max)]
    dt = result_dtype(*[o for o in ops if o is not None])
    x, lo, hi = [None if o is None else to_dtype(o, dt) for o in ops]
    number_bounds = not isinstance(min, Tensor) and not isinstance(max, Tensor)
    if number_bounds:
        return to_out(out, apply(OPS["clamp"], tuple([v for v in (x, lo, hi) if v is not None]),
                                 (lo is not None, hi is not None)))
    y = x
    if lo is not None:
        y = P.maximum(y, lo)
    if hi is not None:
        y = P.minimum(y, hi)
    return to_out(out, y)  # type: ignore[arg-type]


clip = clamp


def clamp_min(input: Tensor, min: Any, *, out: Tensor | None = None) -> Tensor:
    return clamp(input, min=min, out=out)


def clamp_max(input: Tensor, max: Any, *, out: Tensor | None = None) -> Tensor:
    return clamp(input, max=max, out=out)


def lerp(input: Tensor, end: Tensor, weight: Any, *, out: Tensor | None = None) -> Tensor:
    """``input + weight * (end - input)``."""
    a, b = binary_values("lerp", input, end)
    return to_out(out, P.add(a, P.mul(to_dtype(operand(weight, "lerp"), a.aval.dtype), P.sub(b, a))))


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *old: Any, value: Any = 1, out: Tensor | None = None) -> Tensor:
    """``input + value * tensor1 * tensor2``."""
    if old:
        value, tensor1, tensor2 = _factor_first("addcmul", old, tensor1, tensor2)
    return to_out(out, val(add(input, mul(tensor1, tensor2), alpha=value)))


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *old: Any, value: Any = 1, out: Tensor | None = None) -> Tensor:
    """``input + value * tensor1 / tensor2``."""
    if old:
        value, tensor1, tensor2 = _factor_first("addcdiv", old, tensor1, tensor2)
    return to_out(out, val(add(input, div(tensor1, tensor2), alpha=value)))


def nan_to_num(input: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None, *,
               out: Tensor | None = None) -> Tensor:
    """Replace NaN and infinities (by default with 0 and the dtype's largest and lowest)."""
    v = val(input)
    if v.aval.dtype.category < 2:
        return to_out(out, v)
    info = dtypes.finfo(v.aval.dtype)
    hi, lo = info.max if posinf is None else posinf, info.min if neginf is None else neginf
    y = P.where(P.isnan(v), nan, v)
    inf = P.isinf(v)
    return to_out(out, P.where(P.bit_and(inf, P.gt(v, 0)), hi, P.where(P.bit_and(inf, P.lt(v, 0)), lo, y)))


def _bits(name: str, fn: Callable[[Value, Value], Value], doc: str) -> Callable[..., Tensor]:
    def f(input: Any, other: Any, *, out: Tensor | None = None) -> Tensor:
        x, y = binary_values(name, input, other)
        if x.aval.dtype.category > 1:
            raise DTypeError(f"\"{name}\" not implemented for '{x.aval.dtype.name}'")
        return to_out(out, fn(x, y))

    f.__name__, f.__doc__ = name, doc
    return f


bitwise_and = _bits("bitwise_and", P.bit_and, "Bitwise and.")
bitwise_or = _bits("bitwise_or", P.bit_or, "Bitwise or.")
bitwise_xor = _bits("bitwise_xor", P.bit_xor, "Bitwise exclusive or.")
bitwise_left_shift = _bits("bitwise_left_shift", P.shl, "Shift left.")
bitwise_right_shift = _bits("bitwise_right_shift", P.shr, "Shift right.")


def bitwise_not(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Bitwise complement; of bool: not."""
    v = val(input)
    if v.aval.dtype.category > 1:
        raise DTypeError(f"\"bitwise_not\" not implemented for '{v.aval.dtype.name}'")
    return to_out(out, P.bit_not(v))


def isclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
    """``|a - b| <= atol + rtol*|b|`` elementwise."""
    a, b = val(input), val(other, "other")
    if rtol < 0 or atol < 0:
        raise AutogradError(f"rtol and atol must be greater than or equal to zero, but got {rtol} and {atol}")
    a, b = binary_values("isclose", input, other)
    same = P.eq(a, b)
    if a.aval.dtype.category >= 2:
        near = P.le(P.abs(P.sub(a, b)), P.add(P.mul(P.abs(b), rtol), atol))
        finite = P.logical_not(P.bit_or(P.isinf(a), P.isinf(b)))
        same = P.bit_or(same, P.bit_and(near, finite))
        if equal_nan:
            same = P.bit_or(same, P.bit_and(P.isnan(a), P.isnan(b)))
        return wrap(same)
    a64, b64 = P.cast(a, dtypes.float64), P.cast(b, dtypes.float64)
    return wrap(P.bit_or(same, P.le(P.abs(P.sub(a64, b64)), P.add(P.mul(P.abs(b64), rtol), atol))))


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether all elements are close (a Python bool: evaluates)."""
    v = isclose(input, other, rtol, atol, equal_nan)._read()
    return bool(wrap(P.reduce("all", v, norm_dims(None, v.aval.ndim))).item())


def equal(input: Tensor, other: Tensor) -> bool:
    """Same shape and same elements (a Python bool: evaluates)."""
    a, b = val(input), val(other, "other")
    if a.aval.shape != b.aval.shape:
        return False
    v = P.eq(*binary_values("equal", input, other))
    return bool(wrap(P.reduce("all", v, norm_dims(None, v.aval.ndim))).item())


subtract, multiply, divide, true_divide = sub, mul, div, div
