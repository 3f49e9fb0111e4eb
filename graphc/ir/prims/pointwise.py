"""Pointwise primitives. Operands broadcast and share one dtype; ``loop`` names the scalar opcode of the loop IR."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import build as P
from ..infer import comparison, elementwise, require_float
from ..node import Aval
from ..optable import prim
from ..quiet import quiet
from ..samples import binary, draw, unary
from . import special


def _wide(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Evaluate 16-bit floats in float32: NumPy has no vector code for them and ml_dtypes would round twice."""

    def run(*xs: np.ndarray) -> Any:
        if xs[0].dtype.kind == "V" or xs[0].dtype.itemsize == 2 and xs[0].dtype.kind not in "iu":
            dt = xs[0].dtype
            out = np.asarray(fn(*[x.astype(np.float32) for x in xs]))
            return out.astype(dt) if out.dtype == np.float32 else out
        return fn(*xs)

    return run


def _unary(name: str, fn: Callable[..., Any], vjp: Any, saves: tuple[Any, ...] = (), lo: float = -2.0, hi: float = 2.0,
           floats: bool = True, doc: str = "") -> None:
    def infer(attrs: Any, x: Aval) -> Aval:
        if floats:
            require_float(name, x)
        return x

    wide = _wide(fn)
    prim(name, kind="pointwise", attrs=(), infer=infer, eval_np=lambda attrs, x: wide(x), loop=name,
         vjp=vjp, saves=saves, samples=unary(lo, hi), doc=doc or f"{name} of each element.")


def _x(rule: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda ctx, g: (P.mul(g, rule(ctx.ins[0], ctx)),)


_unary("neg", np.negative, lambda ctx, g: (P.neg(g),), floats=False)
_unary("exp", np.exp, lambda ctx, g: (P.mul(g, ctx.out),), ("out",))
_unary("exp2", np.exp2, lambda ctx, g: (P.mul(P.mul(g, ctx.out), math.log(2)),), ("out",))
_unary("expm1", np.expm1, lambda ctx, g: (P.mul(g, P.add(ctx.out, 1)),), ("out",))
_unary("log", np.log, lambda ctx, g: (P.div(g, ctx.ins[0]),), (0,), 0.2, 3)
_unary("log2", np.log2, lambda ctx, g: (P.div(g, P.mul(ctx.ins[0], math.log(2))),), (0,), 0.2, 3)
_unary("log10", np.log10, lambda ctx, g: (P.div(g, P.mul(ctx.ins[0], math.log(10))),), (0,), 0.2, 3)
_unary("log1p", np.log1p, lambda ctx, g: (P.div(g, P.add(ctx.ins[0], 1)),), (0,), -0.7, 3)
_unary("sin", np.sin, _x(lambda x, c: P.cos(x)), (0,))
_unary("cos", np.cos, _x(lambda x, c: P.neg(P.sin(x))), (0,))
_unary("tan", np.tan, lambda ctx, g: (P.mul(g, P.add(P.mul(ctx.out, ctx.out), 1)),), ("out",), -1.2, 1.2)
_unary("asin", np.arcsin, _x(lambda x, c: P.rsqrt(P.sub(1, P.mul(x, x)))), (0,), -0.9, 0.9)
_unary("acos", np.arccos, _x(lambda x, c: P.neg(P.rsqrt(P.sub(1, P.mul(x, x))))), (0,), -0.9, 0.9)
_unary("atan", np.arctan, lambda ctx, g: (P.div(g, P.add(P.mul(ctx.ins[0], ctx.ins[0]), 1)),), (0,))
_unary("sinh", np.sinh, _x(lambda x, c: P.cosh(x)), (0,))
_unary("cosh", np.cosh, _x(lambda x, c: P.sinh(x)), (0,))
_unary("tanh", np.tanh, lambda ctx, g: (P.mul(g, P.sub(1, P.mul(ctx.out, ctx.out))),), ("out",))
_unary("asinh", np.arcsinh, _x(lambda x, c: P.rsqrt(P.add(P.mul(x, x), 1))), (0,))
_unary("acosh", np.arccosh, _x(lambda x, c: P.rsqrt(P.sub(P.mul(x, x), 1))), (0,), 1.2, 3)
_unary("atanh", np.arctanh, lambda ctx, g: (P.div(g, P.sub(1, P.mul(ctx.ins[0], ctx.ins[0]))),), (0,), -0.9, 0.9)
_unary("erf", special.erf, _x(lambda x, c: P.mul(P.exp(P.neg(P.mul(x, x))), 2 / math.sqrt(math.pi))), (0,))
_unary("erfc", special.erfc, _x(lambda x, c: P.mul(P.exp(P.neg(P.mul(x, x))), -2 / math.sqrt(math.pi))), (0,))
_unary("erfinv", special.erfinv, lambda ctx, g: (P.mul(g, P.mul(P.exp(P.mul(ctx.out, ctx.out)), math.sqrt(math.pi) / 2)),),
       ("out",), -0.9, 0.9)
_unary("lgamma", special.lgamma, _x(lambda x, c: P.digamma(x)), (0,), 0.3, 4)
_unary("digamma", special.digamma, _x(lambda x, c: _polygamma1(x)), (0,), 0.3, 4)
_unary("trigamma", special.trigamma, _x(lambda x, c: _polygamma2(x)), (0,), 0.3, 4, doc="Second derivative of lgamma.")
_unary("sqrt", np.sqrt, lambda ctx, g: (P.div(g, P.mul(ctx.out, 2)),), ("out",), 0.2, 3)
_unary("rsqrt", lambda x: 1 / np.sqrt(x),
       lambda ctx, g: (P.mul(P.mul(g, -0.5), P.mul(ctx.out, P.mul(ctx.out, ctx.out))),), ("out",), 0.2, 3)
_unary("reciprocal", lambda x: 1 / x, lambda ctx, g: (P.neg(P.mul(g, P.mul(ctx.out, ctx.out))),), ("out",), 0.3, 2)
_unary("abs", np.abs, _x(lambda x, c: P.sign(x)), (0,), floats=False)


def _polygamma1(x: Any) -> Any:
    from ..optable import OPS
    from ..recorder import apply

    return apply(OPS["trigamma"], (x,))


def _polygamma2(x: Any) -> Any:
    """Third derivative of lgamma: 12 steps of the recurrence, then the asymptotic series (Abramowitz and Stegun 6.4.13), by
    reflection where x < 0; within 1e-14 of the largest term, made of rows that have derivatives themselves."""
    below = P.lt(x, 0)
    z = P.where(below, P.sub(1, x), x)
    total: Any = 0
    for k in range(12):
        y = P.add(z, k)
        total = P.add(P.div(-2.0, P.mul(y, P.mul(y, y))), total)
    w = P.reciprocal(P.add(z, 12))
    s = P.mul(w, w)
    series: Any = P.mul(s, 5 / 6)
    for c in (-3 / 10, 1 / 6, -1 / 6):
        series = P.mul(s, P.add(series, c))
    total = P.sub(total, P.mul(s, P.add(P.add(w, P.mul(s, P.add(series, 0.5))), 1)))
    angle = P.mul(P.where(below, x, P.full_like(x, 0.5)), math.pi)
    sine = P.sin(angle)
    return P.sub(total, P.div(P.mul(P.cos(angle), 2 * math.pi ** 3), P.mul(sine, P.mul(sine, sine))))


def _flat(name: str, fn: Callable[..., Any], doc: str) -> None:
    """Piecewise-constant ops: gradient zero."""
    _unary(name, fn, lambda ctx, g: (P.zeros_like(g),), floats=False, doc=doc)


def _keep_ints(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: x if x.dtype.kind in "biu" else fn(x)


_flat("sign", lambda x: np.where(x == x, np.sign(x), 0).astype(x.dtype), "-1, 0 or 1; 0 for NaN, as in PyTorch.")
_flat("floor", _keep_ints(np.floor), "Largest integer not above.")
_flat("ceil", _keep_ints(np.ceil), "Smallest integer not below.")
_flat("round", _keep_ints(np.rint), "Nearest integer, halves to even.")
_flat("trunc", _keep_ints(np.trunc), "Integer part.")


def _predicate(name: str, fn: Callable[..., Any]) -> None:
    wide = _wide(fn)
    prim(name, kind="pointwise", attrs=(), infer=lambda attrs, x: comparison(name, x), eval_np=lambda attrs, x: wide(x),
         loop=name, vjp=None, saves=(), samples=unary(), doc=f"{name} of each element, bool.")


_predicate("isnan", lambda x: x != x)
_predicate("isinf", lambda x: np.isinf(x) if x.dtype.kind in "fc" else np.zeros(x.shape, bool))
_predicate("logical_not", lambda x: x == 0)
prim("bit_not", kind="pointwise", attrs=(), infer=lambda attrs, x: x, eval_np=lambda attrs, x: np.invert(x),
     loop="bit_not", vjp=None, saves=(), samples=lambda: [((draw("i", 3, 4, lo=-9, hi=9, dtype=np.int64),), ())],
     doc="Bitwise complement; of bool: not.")


# ------------------------------------------------------------------------------------------------------------- binary
def _binary(name: str, fn: Callable[..., Any], vjp: Any, saves: tuple[Any, ...] = (), samples: Any = None,
            doc: str = "", floats: bool = False) -> None:
    def infer(attrs: Any, a: Aval, b: Aval) -> Aval:
        if floats:
            require_float(name, a)
        return elementwise(name, a, b)

    wide = _wide(fn)
    prim(name, kind="pointwise", attrs=(), infer=infer,
         eval_np=lambda attrs, a, b: wide(a, b), loop=name, vjp=vjp, saves=saves, samples=samples or binary(),
         doc=doc or f"{name}, broadcasting.")


def _grads(ctx: Any, ga: Callable[[], Any], gb: Callable[[], Any]) -> tuple[Any, Any]:
    """Per-input gradients, summed to the input's shape, computed only where needed."""
    ea, eb = ctx.edges
    ia, ib = ctx.in_avals
    return (P.sum_to(ga(), ia.shape) if ea is not None else None, P.sum_to(gb(), ib.shape) if eb is not None else None)


def _bool_or(fn: Callable[..., Any], for_bool: Callable[..., Any]) -> Callable[..., Any]:
    return lambda a, b: for_bool(a, b) if a.dtype == np.bool_ else fn(a, b)


def _div(a: np.ndarray, b: np.ndarray) -> Any:
    return np.true_divide(a, b)


def _vjp_pow(ctx: Any, g: Any) -> Any:
    a, b = ctx.ins

    def base() -> Any:  # b * a^(b-1), and exactly zero at b == 0 whatever a is
        d = P.mul(b, P.pow(a, P.sub(b, 1)))
        return P.mul(g, P.where(P.eq(b, 0), P.zeros_like(d), d))

    def exponent() -> Any:  # y * log a, and zero at a == 0 with b >= 0
        d = P.mul(ctx.out, P.log(a))
        return P.mul(g, P.where(P.bit_and(P.eq(a, 0), P.ge(b, 0)), P.zeros_like(d), d))

    return _grads(ctx, base, exponent)


def _int_safe(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Integer division by zero raises as in PyTorch instead of giving NumPy's 0."""

    def run(a: np.ndarray, b: np.ndarray) -> Any:
        if a.dtype.kind in "iu" and (np.asarray(b) == 0).any() and np.broadcast(a, b).size:
            raise _zero_division()
        return fn(a, b)

    return run


def _zero_division() -> Exception:
    from ...errors import GraphcError

    class ZeroDivision(GraphcError, RuntimeError, ZeroDivisionError):
        """Integer division by zero."""

    return ZeroDivision("ZeroDivisionError: integer division or modulo by zero")


def _pow(a: np.ndarray, b: np.ndarray) -> Any:
    if a.dtype.kind in "iu" and b.dtype.kind in "i":
        neg = b < 0
        if np.any(neg):  # C-like: 1 and -1 have integer inverses, everything else rounds to zero
            p = np.power(a, np.where(neg, 0, b))
            inv = np.where(a == 1, 1, np.where(a == -1, np.where(b % 2 == 0, 1, -1), 0))
            return np.where(neg, inv, p).astype(a.dtype)
    return np.power(a, b)


def _vjp_extreme(first_wins: Callable[[Any, Any], Any]) -> Any:
    def vjp(ctx: Any, g: Any) -> Any:
        a, b = ctx.ins
        zero = P.zeros_like(g)
        half = P.mul(P.where(P.eq(a, b), g, zero), 0.5)  # ties share, as in PyTorch
        return _grads(ctx, lambda: P.add(P.where(first_wins(a, b), g, zero), half),
                      lambda: P.add(P.where(first_wins(b, a), g, zero), half))

    return vjp


def _floordiv(a: np.ndarray, b: np.ndarray) -> Any:
    return np.floor_divide(a, b) if a.dtype.kind in "iu" else _float_floordiv(a, b)


def _float_floordiv(a: np.ndarray, b: np.ndarray) -> Any:
    with quiet():
        out = np.floor_divide(a, b)
        return np.where(b == 0, np.true_divide(a, b), out).astype(a.dtype)


_binary("add", _bool_or(np.add, np.logical_or), lambda ctx, g: _grads(ctx, lambda: g, lambda: g))
_binary("sub", np.subtract, lambda ctx, g: _grads(ctx, lambda: g, lambda: P.neg(g)))
_binary("mul", _bool_or(np.multiply, np.logical_and),
        lambda ctx, g: _grads(ctx, lambda: P.mul(g, ctx.ins[1]), lambda: P.mul(g, ctx.ins[0])), (0, 1))
_binary("div", _div, lambda ctx, g: _grads(ctx, lambda: P.div(g, ctx.ins[1]),
                                           lambda: P.neg(P.div(P.mul(g, ctx.out), ctx.ins[1]))), (1, "out"),
        binary(-2, 2, lo2=0.4, hi2=2.0), floats=True)
_binary("pow", _pow, _vjp_pow, (0, 1, "out"), binary(0.3, 2))
_binary("maximum", np.maximum, _vjp_extreme(P.gt), (0, 1), doc="Larger; NaN if either is NaN.")
_binary("minimum", np.minimum, _vjp_extreme(P.lt), (0, 1), doc="Smaller; NaN if either is NaN.")
_binary("fmod", _int_safe(np.fmod),
        lambda ctx, g: _grads(ctx, lambda: g, lambda: P.neg(P.mul(g, P.trunc(P.div(ctx.ins[0], ctx.ins[1]))))), (0, 1),
        binary(-5, 5, lo2=0.7, hi2=2.0), doc="Remainder with the dividend's sign (C).")
_binary("remainder", _int_safe(np.remainder),
        lambda ctx, g: _grads(ctx, lambda: g, lambda: P.neg(P.mul(g, P.floor(P.div(ctx.ins[0], ctx.ins[1]))))), (0, 1),
        binary(-5, 5, lo2=0.7, hi2=2.0), doc="Remainder with the divisor's sign (Python).")
_binary("floordiv", _int_safe(_floordiv), None, (),
        binary(-5, 5, lo2=0.7, hi2=2.0), doc="Floor of the quotient.")


def _vjp_atan2(ctx: Any, g: Any) -> Any:
    a, b = ctx.ins
    d = P.div(g, P.add(P.mul(a, a), P.mul(b, b)))
    return _grads(ctx, lambda: P.mul(d, b), lambda: P.neg(P.mul(d, a)))


_binary("atan2", np.arctan2, _vjp_atan2, (0, 1), binary(0.2, 2), floats=True)


def _compare(name: str, fn: Callable[..., Any]) -> None:
    prim(name, kind="pointwise", attrs=(), infer=lambda attrs, a, b: comparison(name, a, b),
         eval_np=lambda attrs, a, b: fn(a, b), loop=name, vjp=None, saves=(), samples=binary(), doc=f"{name}, bool.")


_compare("eq", np.equal)
_compare("ne", np.not_equal)
_compare("lt", np.less)
_compare("le", np.less_equal)

_ints = binary(0, 7, np.int64)
_binary("bit_and", np.bitwise_and, None, (), _ints)
_binary("bit_or", np.bitwise_or, None, (), _ints)
_binary("bit_xor", np.bitwise_xor, None, (), _ints)
_binary("shl", np.left_shift, None, (), _ints)
_binary("shr", np.right_shift, None, (), _ints)


def _where_infer(attrs: Any, c: Aval, a: Aval, b: Aval) -> Aval:
    from ..infer import broadcast_shapes, common_device
    from ..node import aval

    pair = elementwise("where", a, b)
    if c.shape == pair.shape and c.device is pair.device:
        return pair
    return aval(broadcast_shapes("where", c.shape, pair.shape), pair.dtype, common_device("where", c, a, b))


def _where_vjp(ctx: Any, g: Any) -> Any:
    c, zero = ctx.ins[0], P.zeros_like(g)
    _, ea, eb = ctx.edges
    return (None, P.sum_to(P.where(c, g, zero), ctx.in_avals[1].shape) if ea is not None else None,
            P.sum_to(P.where(c, zero, g), ctx.in_avals[2].shape) if eb is not None else None)


prim("where", kind="pointwise", attrs=(), infer=_where_infer, eval_np=lambda attrs, c, a, b: np.where(c, a, b),
     loop="where", vjp=_where_vjp, saves=(0,),
     samples=lambda: [((draw("m", 3, 4, dtype=np.bool_), draw("a", 3, 4), draw("b", 3, 4)), ()),
                      ((draw("m", 4, dtype=np.bool_), draw("a", 3, 1), draw("b")), ())],
     doc="The second operand where the first (bool) holds, else the third.")
