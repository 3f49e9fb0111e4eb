"""Complex numbers: their parts, their conjugates. A gradient of a real loss to z = x + iy is dL/dx + i dL/dy, PyTorch's
convention; so vjp rules multiply by conjugates. Rules written for real numbers are made right for complex ones here, where
the op is analytic: g conj(f'(z)) = conj(conj(g) f'(z)), the rule between two conjugations."""
from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import DTypeError
from .. import build as P
from ..infer import elementwise
from ..node import Aval, aval
from ..optable import OPS, prim
from ..recorder import apply
from ..samples import draw
from . import contraction, pointwise, reduction, sort  # noqa: F401  (their rows are extended below)


def _z(tag: str, *shape: int) -> np.ndarray:
    return draw(tag, *shape) + 1j * draw(tag + "i", *shape)


def _need(name: str, x: Aval) -> None:
    if not x.dtype.is_complex:
        raise DTypeError(f"{name} is not implemented for tensors with non-complex dtypes.")


def _conj_infer(attrs: Any, x: Aval) -> Aval:
    _need("conj", x)
    return x


def _part_infer(name: str) -> Any:
    def infer(attrs: Any, x: Aval) -> Aval:
        _need(name, x)
        return aval(x.shape, x.dtype.to_real(), x.device)

    return infer


def _join(re: Any, im: Any) -> Any:
    return apply(OPS["complex"], (re, im))


prim("conj", kind="pointwise", attrs=(), infer=_conj_infer, eval_np=lambda attrs, x: np.conj(x), loop="conj",
     vjp=lambda ctx, g: (apply(OPS["conj"], (g,)),), saves=(), samples=lambda: [((_z("j", 3, 4),), ()), ((_z("j"),), ())],
     doc="Complex conjugate.")
prim("real", kind="pointwise", attrs=(), infer=_part_infer("real"), eval_np=lambda attrs, x: x.real.copy(), loop="real",
     vjp=lambda ctx, g: (_join(g, P.zeros_like(g)),), saves=(), samples=lambda: [((_z("r", 3, 4),), ()), ((_z("r", 0),), ())],
     doc="Real part.")
prim("imag", kind="pointwise", attrs=(), infer=_part_infer("imag"), eval_np=lambda attrs, x: x.imag.copy(), loop="imag",
     vjp=lambda ctx, g: (_join(P.zeros_like(g), g),), saves=(), samples=lambda: [((_z("i", 3, 4),), ()), ((_z("i", 0),), ())],
     doc="Imaginary part.")


def _complex_infer(attrs: Any, re: Aval, im: Aval) -> Aval:
    both = elementwise("complex", re, im)
    if re.dtype.name not in ("float32", "float64"):
        raise DTypeError(f"Expected both inputs to be Half, Float or Double tensors but got {re.dtype.name} and "
                         f"{im.dtype.name}")
    return aval(both.shape, both.dtype.to_complex(), both.device)


def _complex_np(attrs: Any, re: np.ndarray, im: np.ndarray) -> np.ndarray:
    out = np.empty(np.broadcast_shapes(re.shape, im.shape), np.result_type(re.dtype, np.complex64))
    out.real, out.imag = re, im
    return out


def _complex_vjp(ctx: Any, g: Any) -> Any:
    a, b = ctx.in_avals
    return (P.sum_to(apply(OPS["real"], (g,)), a.shape) if ctx.needs[0] else None,
            P.sum_to(apply(OPS["imag"], (g,)), b.shape) if ctx.needs[1] else None)


prim("complex", kind="pointwise", attrs=(), infer=_complex_infer, eval_np=_complex_np, loop="complex", vjp=_complex_vjp,
     saves=(), samples=lambda: [((draw("a", 3, 4), draw("b", 3, 4)), ()), ((draw("a", 3, 1), draw("b", 4)), ())],
     doc="re + i im.")


def direction(z: Any) -> Any:
    """z / |z|, and 0 at 0."""
    size = apply(OPS["magnitude"], (z,))
    zero = P.eq(size, 0)
    scale = P.where(zero, P.zeros_like(size), P.reciprocal(P.where(zero, P.full_like(size, 1), size)))
    return P.mul(z, P.cast(scale, z.aval.dtype))


prim("magnitude", kind="pointwise", attrs=(), infer=_part_infer("abs"), eval_np=lambda attrs, x: np.abs(x), loop="magnitude",
     vjp=lambda ctx, g: (P.mul(P.cast(g, ctx.ins[0].aval.dtype), direction(ctx.ins[0])),), saves=(0,),
     samples=lambda: [((_z("m", 3, 4),), ()), ((_z("m", 0),), ())], doc="Absolute value of complex numbers, real.")


# ------------------------------------------------------------------------------------------------- rules of analytic ops
# Of reduce and scan the product is meant; sums are unharmed.
ANALYTIC = ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "sinh",
            "cosh", "tanh", "asinh", "acosh", "atanh", "sqrt", "rsqrt", "reciprocal", "mul", "div", "pow", "contract", "reduce",
            "scan")


def analytic(rule: Any) -> Any:
    """The vjp ``rule`` of an analytic function, right for complex cotangents, too."""

    def vjp(ctx: Any, g: Any) -> Any:
        if not g.aval.dtype.is_complex:
            return rule(ctx, g)
        conj = OPS["conj"]
        return tuple([None if r is None else apply(conj, (r,)) for r in rule(ctx, apply(conj, (g,)))])

    return vjp


def extend(names: tuple[str, ...]) -> None:
    """Make the rules of analytic rows right for complex numbers."""
    for name in names:
        row = OPS[name]
        if row.vjp is not None:
            row.vjp = analytic(row.vjp)


def _acosh_vjp(ctx: Any, g: Any) -> Any:
    z = ctx.ins[0]
    if not z.aval.dtype.is_complex:
        return _real_acosh(ctx, g)
    return (P.mul(g, P.mul(P.rsqrt(P.sub(z, 1)), P.rsqrt(P.add(z, 1)))),)  # rsqrt(z^2 - 1) has the wrong sign for Re z < 0


def _pow_vjp(ctx: Any, g: Any) -> Any:
    """As for real numbers, but that exponents are compared by their real parts."""
    a, b = ctx.ins
    if not a.aval.dtype.is_complex:
        return _real_pow(ctx, g)
    ga = gb = None
    if ctx.needs[0]:
        d = P.mul(b, P.pow(a, P.sub(b, 1)))
        ga = P.sum_to(P.mul(g, P.where(P.eq(b, 0), P.zeros_like(d), d)), a.aval.shape)
    if ctx.needs[1]:
        d = P.mul(ctx.out, P.log(a))
        flat = P.bit_and(P.eq(a, 0), P.ge(apply(OPS["real"], (b,)), 0))
        gb = P.sum_to(P.mul(g, P.where(flat, P.zeros_like(d), d)), b.aval.shape)
    return ga, gb


_real_acosh: Any = OPS["acosh"].vjp
_real_pow: Any = OPS["pow"].vjp
OPS["acosh"].vjp, OPS["pow"].vjp = _acosh_vjp, _pow_vjp
extend(ANALYTIC)


# ------------------------------------------------------------------------------------------------ what only reals can do
UNORDERED = ("lt", "le", "maximum", "minimum", "floor", "ceil", "round", "trunc", "fmod", "remainder", "floordiv", "atan2",
             "erf", "erfc", "erfinv", "lgamma", "digamma", "trigamma", "sign", "argreduce", "sort")


def _refusing(name: str, infer: Any, kinds: tuple[str, ...]) -> Any:
    def check(attrs: Any, *ins: Aval) -> Any:
        for x in ins:
            if x.dtype.is_complex and (not kinds or attrs[0] in kinds):
                what = f"{attrs[0]}_{name}" if kinds else name
                dtype = "ComplexFloat" if x.dtype.itemsize == 8 else "ComplexDouble"
                raise NotImplementedError(f"\"{what}\" not implemented for '{dtype}'")
        return infer(attrs, *ins)

    return check


def refuse(names: tuple[str, ...], kinds: tuple[str, ...] = ()) -> None:
    """Make rows (those of the given ``kinds``, their first attribute) refuse complex numbers, as PyTorch's functions do."""
    for name in names:
        OPS[name].infer = _refusing(name, OPS[name].infer, kinds)


refuse(UNORDERED)
refuse(("reduce", "scan"), ("max", "min", "logaddexp"))
