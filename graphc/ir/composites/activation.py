"""Activation functions and softmax as composites. Formulas and values at the kinks are PyTorch's."""
from __future__ import annotations

import math
from typing import Any

from .. import build as P
from ..infer import require_float
from ..node import Aval, Value, aval
from ..optable import composite
from ..recorder import apply
from ..samples import draw
from ._common import expansion_vjp, op, pointwise, same_as_first, wide

_SQRT_HALF = math.sqrt(0.5)
_INV_SQRT_2PI = 1 / math.sqrt(2 * math.pi)
_SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715


def sigmoid(x: Value) -> Value:
    """The sigmoid composite; its vjp uses the result, so it stays finite where ``exp(-x)`` overflows."""
    return op("sigmoid", x)


def _zero_where(cond: Value, g: Value) -> Value:
    return P.where(cond, P.zeros_like(g), g)


# ------------------------------------------------------------------------------------------------------ piecewise linear
pointwise("relu", lambda at, x: P.maximum(x, 0), lambda at, out, g: _zero_where(P.le(out, 0), g), save="out",
          floats=False, doc="max(x, 0); NaN stays NaN; derivative 0 at 0.")
pointwise("leaky_relu", lambda at, x: P.where(P.gt(x, 0), x, P.mul(x, at[0])),
          lambda at, x, g: P.where(P.gt(x, 0), g, P.mul(g, at[0])), attrs=("slope",), values=(0.1,),
          doc="x where positive, else slope * x.")
pointwise("hardtanh", lambda at, x: P.minimum(P.maximum(x, at[0]), at[1]),
          lambda at, x, g: _zero_where(P.bit_or(P.le(x, at[0]), P.ge(x, at[1])), g), attrs=("low", "high"),
          values=(-1.0, 1.0), floats=False, doc="x clamped to [low, high]; derivative 0 at both ends.")
pointwise("threshold", lambda at, x: P.where(P.le(x, at[0]), P.full_like(x, at[1]), x),
          lambda at, x, g: _zero_where(P.le(x, at[0]), g), attrs=("threshold", "value"), values=(0.1, 20.0),
          floats=False, doc="x where above threshold, else value.")
pointwise("hardsigmoid", lambda at, x: P.div(P.minimum(P.maximum(P.add(x, 3), 0), 6), 6),
          lambda at, x, g: P.where(P.bit_and(P.gt(x, -3), P.lt(x, 3)), P.div(g, 6), P.zeros_like(g)),
          doc="relu6(x + 3) / 6.")


def _hardswish_backward(at: Any, x: Value, g: Value) -> Value:
    inner = P.where(P.lt(x, 3), P.mul(g, P.add(P.div(x, 3), 0.5)), g)
    return _zero_where(P.le(x, -3), inner)


pointwise("hardswish", lambda at, x: P.div(P.mul(x, P.minimum(P.maximum(P.add(x, 3), 0), 6)), 6), _hardswish_backward,
          lo=-2.5, hi=2.5, doc="x * relu6(x + 3) / 6.")


def _within(x: Value, lambd: float) -> Value:
    return P.bit_and(P.ge(x, -lambd), P.le(x, lambd))


def _softshrink(at: Any, x: Value) -> Value:
    low = P.where(P.lt(x, -at[0]), P.add(x, at[0]), P.mul(x, 0))  # x * 0 keeps NaN
    return P.where(P.gt(x, at[0]), P.sub(x, at[0]), low)


pointwise("softshrink", _softshrink, lambda at, x, g: _zero_where(_within(x, at[0]), g), attrs=("lambd",), values=(0.5,),
          doc="x moved towards 0 by lambd, not past it.")
pointwise("hardshrink", lambda at, x: _zero_where(_within(x, at[0]), x),
          lambda at, x, g: _zero_where(_within(x, at[0]), g), attrs=("lambd",), values=(0.5,),
          doc="x where |x| > lambd, else 0.")

# ---------------------------------------------------------------------------------------------------------------- smooth
pointwise("sigmoid", lambda at, x: P.reciprocal(P.add(P.exp(P.neg(x)), 1)),
          lambda at, out, g: P.mul(g, P.mul(P.sub(1, out), out)), save="out", doc="1 / (1 + exp(-x)).")


def _silu_backward(at: Any, x: Value, g: Value) -> Value:
    s = sigmoid(x)
    return P.mul(g, P.mul(s, P.add(P.mul(x, P.sub(1, s)), 1)))


pointwise("silu", lambda at, x: P.div(x, P.add(P.exp(P.neg(x)), 1)), _silu_backward, doc="x * sigmoid(x).")


def _gelu(at: Any, x: Value) -> Value:
    if at[0] == "none":
        return P.mul(P.mul(x, 0.5), P.add(P.erf(P.mul(x, _SQRT_HALF)), 1))
    return P.mul(P.mul(x, 0.5), P.add(P.tanh(_gelu_inner(x)), 1))


def _gelu_inner(x: Value) -> Value:
    cube = P.mul(P.mul(x, x), x)
    return P.mul(P.add(x, P.mul(cube, _GELU_CUBIC)), _SQRT_2_OVER_PI)


def _gelu_backward(at: Any, x: Value, g: Value) -> Value:
    if at[0] == "none":
        cdf = P.mul(P.add(P.erf(P.mul(x, _SQRT_HALF)), 1), 0.5)
        pdf = P.mul(P.exp(P.mul(P.mul(x, x), -0.5)), _INV_SQRT_2PI)
        return P.mul(g, P.add(cdf, P.mul(x, pdf)))
    t = P.tanh(_gelu_inner(x))
    slope = P.mul(P.add(P.mul(P.mul(x, x), 3 * _GELU_CUBIC), 1), _SQRT_2_OVER_PI)
    right = P.mul(P.mul(P.mul(x, 0.5), P.sub(1, P.mul(t, t))), slope)
    return P.mul(g, P.add(P.mul(P.add(t, 1), 0.5), right))


pointwise("gelu", _gelu, _gelu_backward, attrs=("approximate",), values=("none",),
          doc="x * Phi(x), or its tanh approximation (Hendrycks and Gimpel 2016).")


def _mish_backward(at: Any, x: Value, g: Value) -> Value:
    t, s = P.tanh(P.log1p(P.exp(x))), sigmoid(x)
    return P.mul(g, P.add(t, P.mul(P.mul(x, s), P.sub(1, P.mul(t, t)))))


pointwise("mish", lambda at, x: P.mul(x, P.tanh(P.log1p(P.exp(x)))), _mish_backward, doc="x * tanh(log(1 + exp(x))).")


def _elu(at: Any, x: Value) -> Value:
    alpha, scale, in_scale = at
    neg = P.mul(P.expm1(P.mul(x, in_scale)), alpha * scale)
    return P.where(P.le(x, 0), neg, P.mul(x, scale) if scale != 1 else x)


def _elu_backward(at: Any, x: Value, g: Value) -> Value:
    alpha, scale, in_scale = at
    below = P.le(x, 0)
    e = P.exp(P.mul(P.where(below, x, P.zeros_like(x)), in_scale))  # no overflow in the half that is not taken
    return P.where(below, P.mul(g, P.mul(e, alpha * scale * in_scale)), P.mul(g, scale) if scale != 1 else g)


pointwise("elu", _elu, _elu_backward, attrs=("alpha", "scale", "input_scale"), values=(1.5, 1.1, 0.7),
          doc="scale * (x where positive, else alpha * (exp(input_scale * x) - 1)).")


def _softplus(at: Any, x: Value) -> Value:
    beta, limit = at
    xb = P.mul(x, beta) if beta != 1 else x
    soft = P.log1p(P.exp(xb))
    return P.where(P.gt(xb, limit), x, P.div(soft, beta) if beta != 1 else soft)


def _softplus_backward(at: Any, x: Value, g: Value) -> Value:
    beta, limit = at
    xb = P.mul(x, beta) if beta != 1 else x
    return P.where(P.gt(xb, limit), g, P.mul(g, sigmoid(xb)))


pointwise("softplus", _softplus, _softplus_backward, attrs=("beta", "threshold"), values=(1.5, 20.0),
          doc="log(1 + exp(beta * x)) / beta; x itself where beta * x > threshold.")
pointwise("log_sigmoid", lambda at, x: P.sub(P.minimum(x, 0), P.log1p(P.exp(P.neg(P.abs(x))))),
          lambda at, x, g: P.mul(g, sigmoid(P.neg(x))), doc="log(1 / (1 + exp(-x))).")


# --------------------------------------------------------------------------------------------------------------- softmax
def _float_infer(name: str) -> Any:
    def infer(attrs: Any, x: Aval, *rest: Aval) -> Aval:
        require_float(name, x)
        return x

    return infer


def _shifted(x: Value, axis: int) -> Value:
    return P.sub(x, P.reduce("max", x, (axis,), True)) if x.aval.size else x


def _softmax(at: Any, x: Value) -> Value:
    if not x.aval.ndim:
        return P.exp(P.sub(x, x))  # 1, and NaN for infinities as in PyTorch
    e = P.exp(_shifted(wide(x), at[0]))
    return P.cast(P.div(e, P.sum(e, at, True)), x.aval.dtype)


def _softmax_backward(at: Any, out: Value, g: Value) -> Value:
    if not out.aval.ndim:
        return P.sub(g, g)
    o, gw = wide(out), wide(g)
    weighted = P.mul(gw, o)
    return P.cast(P.sub(weighted, P.mul(o, P.sum(weighted, at, True))), out.aval.dtype)


def _log_softmax(at: Any, x: Value) -> Value:
    if not x.aval.ndim:
        return P.sub(x, x)
    s = _shifted(wide(x), at[0])
    return P.cast(P.sub(s, P.log(P.sum(P.exp(s), at, True))), x.aval.dtype)


def _log_softmax_backward(at: Any, out: Value, g: Value) -> Value:
    if not out.aval.ndim:
        return P.sub(g, g)
    o, gw = wide(out), wide(g)
    return P.cast(P.sub(gw, P.mul(P.exp(o), P.sum(gw, at, True))), out.aval.dtype)


def _axis_samples() -> list[Any]:
    return [((draw("s", 3, 4),), (1,)), ((draw("s", 3, 4),), (0,)), ((draw("s0", 0, 4),), (1,))]


def _row_wise(name: str, forward: Any, backward: Any, doc: str) -> None:
    back = composite(f"{name}_backward", attrs=("axis",), infer=same_as_first, expand=backward,
                     vjp=expansion_vjp(backward), saves=("ins",), kind="reduce",
                     samples=lambda: [((draw("o", 3, 4, lo=0.1, hi=0.4), draw("g", 3, 4)), (1,))],
                     doc=f"Gradient of {name} from its result and the cotangent.")
    composite(name, attrs=("axis",), infer=_float_infer(name), expand=forward, kind="reduce",
              vjp=lambda ctx, g: (apply(back, (ctx.out, g), ctx.attrs),), saves=("out",), samples=_axis_samples,
              kernel_tag=name, doc=doc)


_row_wise("softmax", _softmax, _softmax_backward, "exp(x) / sum(exp(x)) along axis, shifted by the maximum.")
_row_wise("log_softmax", _log_softmax, _log_softmax_backward, "x - log(sum(exp(x))) along axis, shifted by the maximum.")


# ------------------------------------------------------------------------------------------------------------- logsumexp
def _kept(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if i in axes else d for i, d in enumerate(shape))


def _lse_infer(attrs: Any, x: Aval) -> Aval:
    axes, keepdim = attrs
    require_float("logsumexp", x)
    shape = _kept(x.shape, axes) if keepdim else tuple(d for i, d in enumerate(x.shape) if i not in axes)
    return aval(shape, x.dtype, x.device)


def _logsumexp(at: Any, x: Value) -> Value:
    axes, keepdim = at
    xw = wide(x)
    if x.aval.size:
        m = P.reduce("max", xw, axes, True)
        m = P.where(P.isinf(m), P.zeros_like(m), m)  # all -inf gives -inf, any +inf gives +inf, not NaN
        out = P.add(P.log(P.sum(P.exp(P.sub(xw, m)), axes, True)), m)
    else:
        out = P.log(P.sum(P.exp(xw), axes, True))
    return P.cast(P.reshape(out, _lse_infer(at, x.aval).shape), x.aval.dtype)


def _lse_backward(at: Any, x: Value, out: Value, g: Value) -> Value:
    kept = _kept(x.aval.shape, at[0])
    o, gw = P.reshape(wide(out), kept), P.reshape(wide(g), kept)
    return P.cast(P.mul(gw, P.exp(P.sub(wide(x), o))), x.aval.dtype)


_lse_back = composite(
    "logsumexp_backward", attrs=("axes", "keepdim"), infer=same_as_first, expand=_lse_backward,
    vjp=expansion_vjp(_lse_backward), saves=("ins",), kind="reduce",
    samples=lambda: [((draw("x", 3, 4), draw("o", 3, lo=1, hi=2), draw("g", 3)), ((1,), False))],
    doc="Gradient of logsumexp from input, result and cotangent.")
composite("logsumexp", attrs=("axes", "keepdim"), infer=_lse_infer, expand=_logsumexp, kind="reduce",
          vjp=lambda ctx, g: (apply(_lse_back, (ctx.ins[0], ctx.out, g), ctx.attrs),), saves=(0, "out"),
          samples=lambda: [((draw("s", 3, 4),), ((1,), False)), ((draw("s", 3, 4),), ((0, 1), True))],
          doc="log(sum(exp(x))) over axes, shifted by the maximum.")
