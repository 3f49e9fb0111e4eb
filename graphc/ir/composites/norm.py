"""Normalisations as composites: layer, group, batch (training and inference), RMS.

All but RMS share one core: over ``axes`` of ``x``, ``y = (x - mean) * rstd * weight + bias`` with ``rstd = 1 /
sqrt(var + eps)`` and the biased variance. The backward rules take ``x`` and compute the statistics again: inside one
region common subexpressions are merged with the forward's, and across regions a row kernel has the row at hand.
"""
from __future__ import annotations

import math
from typing import Any

from ...errors import DTypeError
from .. import build as P
from ..infer import require_float
from ..node import Aval, Value, aval
from ..optable import composite
from ..recorder import apply
from ..samples import draw
from ._common import acc_dtype, expansion_vjp, wide

Axes = tuple[int, ...]


def _count(x: Value, axes: Axes) -> int:
    return math.prod(x.aval.shape[a] for a in axes)


def _mean(x: Value, axes: Axes) -> Value:
    """Mean over ``axes``, kept as 1."""
    return P.div(P.sum(x, axes, True), _count(x, axes)) if axes else x


def stats(x: Value, axes: Axes, eps: float) -> tuple[Value, Value, Value]:
    """(mean, biased variance, (x - mean) / sqrt(variance + eps)) of wide ``x``, axes kept as 1."""
    mean = _mean(x, axes)
    centred = P.sub(x, mean)
    var = _mean(P.mul(centred, centred), axes)
    return mean, var, P.mul(centred, P.rsqrt(P.add(var, eps)))


def _affine(xhat: Value, weight: Value | None, bias: Value | None, shape: Axes) -> Value:
    out = xhat if weight is None else P.mul(xhat, P.reshape(P.cast(weight, xhat.aval.dtype), shape))
    return out if bias is None else P.add(out, P.reshape(P.cast(bias, xhat.aval.dtype), shape))


def _optional(ins: tuple[Value, ...], has_w: bool, has_b: bool) -> tuple[Value | None, Value | None]:
    return (ins[1] if has_w else None), (ins[-1] if has_b else None)


def _norm_infer(name: str) -> Any:
    def infer(attrs: Any, x: Aval, *affine: Aval) -> Aval:
        require_float(name, x)
        for p in affine:
            if not p.dtype.is_floating_point:
                raise DTypeError(f"{name}: weight and bias must be floating, got {p.dtype.name}")
        return x

    return infer


# ------------------------------------------------------------------------------------------------ the shared backward
def _backward_infer(attrs: Any, x: Aval, g: Aval, *weight: Aval) -> tuple[Aval, ...]:
    _, _, shape, needs, wdt, _ = attrs
    n = math.prod(shape)
    param = aval((n,), wdt, x.device)
    return tuple(a for a, need in zip((x, param, param), needs) if need)


def _norm_backward(at: Any, x: Value, g: Value, *weight: Value) -> tuple[Value, ...]:
    """Cotangents of x, weight and bias (flattened), those asked for."""
    axes, eps, shape, needs, wdt, rms = at
    xw, gw = wide(x), wide(g)
    if rms:
        rstd = P.rsqrt(P.add(_mean(P.mul(xw, xw), axes), eps))
        xhat = P.mul(xw, rstd)
    else:
        mean = _mean(xw, axes)
        centred = P.sub(xw, mean)
        rstd = P.rsqrt(P.add(_mean(P.mul(centred, centred), axes), eps))
        xhat = P.mul(centred, rstd)
    outs: list[Value] = []
    if needs[0]:
        gy = P.mul(gw, P.reshape(P.cast(weight[0], gw.aval.dtype), shape)) if weight else gw
        inner = gy if rms else P.sub(gy, _mean(gy, axes))
        dx = P.mul(rstd, P.sub(inner, P.mul(xhat, _mean(P.mul(gy, xhat), axes))))
        outs.append(P.cast(dx, x.aval.dtype))
    n = (math.prod(shape),)
    if needs[1]:
        outs.append(P.cast(P.reshape(P.sum_to(P.mul(gw, xhat), shape), n), wdt))
    if needs[2]:
        outs.append(P.cast(P.reshape(P.sum_to(gw, shape), n), wdt))
    return tuple(outs)


def _backward_samples() -> list[Any]:
    from ...dtypes import float64

    x, g, w = draw("x", 2, 3, 4), draw("g", 2, 3, 4), draw("w", 4)
    return [((x, g, w), ((2,), 1e-5, (1, 1, 4), (True, True, True), float64, False)),
            ((x, g), ((0, 2), 1e-5, (1, 3, 1), (True, False, False), float64, False)),
            ((x, g, w), ((2,), 1e-5, (1, 1, 4), (True, True, False), float64, True))]


BACKWARD = composite(
    "norm_backward", attrs=("axes", "eps", "affine_shape", "needs", "param_dtype", "rms"), infer=_backward_infer,
    expand=_norm_backward, vjp=expansion_vjp(_norm_backward), saves=("ins",), samples=_backward_samples, n_out=3,
    kind="reduce", doc="Gradients of a normalisation over `axes` for (x, weight, bias), those in `needs`.")


def _grads(x: Value, g: Value, weight: Value | None, axes: Axes, eps: float, shape: Axes, needs: tuple[bool, ...],
           params: list[Aval], rms: bool = False) -> list[Value | None]:
    """Gradients in the order x, weight, bias (absent ones None); parameters get their own shape back."""
    wdt = params[0].dtype if params else x.aval.dtype
    ins = (x, g) if weight is None else (x, g, weight)
    outs = list(apply(BACKWARD, ins, (axes, eps, shape, needs, wdt, rms))) if any(needs) else []
    return [outs.pop(0) if need else None for need in needs]


def _distribute(ctx: Any, has_w: bool, has_b: bool) -> tuple[tuple[bool, bool, bool], list[int]]:
    """(which of x, weight, bias need a gradient, input index of each present one)."""
    index = [0] + ([1] if has_w else []) + ([1 + has_w] if has_b else [])
    needs = ctx.needs
    return (needs[0], has_w and needs[1], has_b and needs[1 + has_w]), index


def _per_input(ctx: Any, grads: list[Value | None], has_w: bool, has_b: bool) -> tuple[Value | None, ...]:
    out: list[Value | None] = [grads[0]]
    for present, g, in ((has_w, grads[1]), (has_b, grads[2])):
        if present:
            a = ctx.in_avals[len(out)]
            out.append(None if g is None else P.cast(P.reshape(g, a.shape), a.dtype))
    return tuple(out)


def _affine_vjp(ctx: Any, g: Value, x: Value, axes: Axes, shape: Axes, eps: float, has_w: bool, has_b: bool,
                rms: bool = False) -> tuple[Value | None, ...]:
    needs, _ = _distribute(ctx, has_w, has_b)
    grads = _grads(x, g, ctx.ins[1] if has_w else None, axes, eps, shape, needs, list(ctx.in_avals[1:]), rms)
    if grads[0] is not None:
        grads[0] = P.reshape(grads[0], ctx.in_avals[0].shape)
    return _per_input(ctx, grads, has_w, has_b)


# ----------------------------------------------------------------------------------------------------- layer and RMS
def _last(nd: int, n: int) -> Axes:
    return tuple(range(nd - n, nd))


def _last_shape(shape: Axes, n: int) -> Axes:
    return (1,) * (len(shape) - n) + tuple(shape[len(shape) - n:])


def _layer_norm(at: Any, *ins: Value) -> Value:
    n, eps, has_w, has_b = at
    x = ins[0]
    w, b = _optional(ins, has_w, has_b)
    xhat = stats(wide(x), _last(x.aval.ndim, n), eps)[2]
    return P.cast(_affine(xhat, w, b, _last_shape(x.aval.shape, n)), x.aval.dtype)


def _layer_norm_vjp(ctx: Any, g: Value) -> Any:
    n, eps, has_w, has_b = ctx.attrs
    x = ctx.ins[0]
    return _affine_vjp(ctx, g, x, _last(x.aval.ndim, n), _last_shape(x.aval.shape, n), eps, has_w, has_b)


def _norm_samples(*attrs: Any) -> Any:
    """Samples without affine, with weight, with both; the last two attributes are (has_weight, has_bias)."""
    def make() -> list[Any]:
        x, w, b = draw("x", 2, 3, 4), draw("w", 4), draw("b", 4)
        return [((x,), (*attrs, False, False)), ((x, w), (*attrs, True, False)), ((x, w, b), (*attrs, True, True))]

    return make


composite("layer_norm", attrs=("n_axes", "eps", "has_weight", "has_bias"), infer=_norm_infer("layer_norm"),
          expand=_layer_norm, vjp=_layer_norm_vjp, saves=(0, 1), samples=_norm_samples(1, 1e-5), kind="reduce",
          kernel_tag="layer_norm", doc="Layer norm over the last n_axes; ins x[, weight][, bias].")


def _rms_norm(at: Any, *ins: Value) -> Value:
    n, eps, has_w = at
    x = ins[0]
    xw = wide(x)
    xhat = P.mul(xw, P.rsqrt(P.add(_mean(P.mul(xw, xw), _last(x.aval.ndim, n)), eps)))
    return P.cast(_affine(xhat, ins[1] if has_w else None, None, _last_shape(x.aval.shape, n)), x.aval.dtype)


def _rms_norm_vjp(ctx: Any, g: Value) -> Any:
    n, eps, has_w = ctx.attrs
    x = ctx.ins[0]
    return _affine_vjp(ctx, g, x, _last(x.aval.ndim, n), _last_shape(x.aval.shape, n), eps, has_w, False, True)


composite("rms_norm", attrs=("n_axes", "eps", "has_weight"), infer=_norm_infer("rms_norm"), expand=_rms_norm,
          vjp=_rms_norm_vjp, saves=(0, 1), kind="reduce", kernel_tag="rms_norm",
          samples=lambda: [((draw("x", 2, 3, 4),), (1, 1e-6, False)), ((draw("x", 2, 3), draw("w", 3)), (1, 1e-6, True))],
          doc="x / sqrt(mean(x^2) + eps) over the last n_axes; ins x[, weight].")


# --------------------------------------------------------------------------------------------------------- group norm
def _grouped(x: Value, groups: int) -> Value:
    sh = x.aval.shape
    return P.reshape(x, (sh[0], groups, sh[1] // groups, *sh[2:]))


def _group_affine(grouped: Value) -> tuple[Axes, Axes]:
    """(statistics axes, affine shape) of the grouped view."""
    sh = grouped.aval.shape
    return tuple(range(2, len(sh))), (1, sh[1], sh[2]) + (1,) * (len(sh) - 3)


def _group_norm(at: Any, *ins: Value) -> Value:
    groups, eps, has_w, has_b = at
    w, b = _optional(ins, has_w, has_b)
    x = _grouped(ins[0], groups)
    axes, shape = _group_affine(x)
    out = _affine(stats(wide(x), axes, eps)[2], w, b, shape)
    return P.cast(P.reshape(out, ins[0].aval.shape), x.aval.dtype)


def _group_norm_vjp(ctx: Any, g: Value) -> Any:
    groups, eps, has_w, has_b = ctx.attrs
    x = _grouped(ctx.ins[0], groups)
    axes, shape = _group_affine(x)
    return _affine_vjp(ctx, P.reshape(g, x.aval.shape), x, axes, shape, eps, has_w, has_b)


def _group_samples() -> list[Any]:
    x, w, b = draw("x", 2, 4, 3), draw("w", 4), draw("b", 4)
    return [((x,), (2, 1e-5, False, False)), ((x, w, b), (2, 1e-5, True, True)), ((x, w), (4, 1e-5, True, False))]


composite("group_norm", attrs=("groups", "eps", "has_weight", "has_bias"), infer=_norm_infer("group_norm"),
          expand=_group_norm, vjp=_group_norm_vjp, saves=(0, 1), samples=_group_samples, kind="reduce",
          kernel_tag="group_norm", doc="Group norm of (N, C, ...) over each of `groups` groups of channels.")


# --------------------------------------------------------------------------------------------------------- batch norm
def _channel_shape(x: Value) -> Axes:
    sh = x.aval.shape
    return (1, sh[1], *[1] * (len(sh) - 2))


def _batch_axes(x: Value) -> Axes:
    return (0, *range(2, x.aval.ndim))


def _batch_infer(attrs: Any, x: Aval, *affine: Aval) -> tuple[Aval, ...]:
    _norm_infer("batch_norm")(attrs, x, *affine)
    stat = aval((x.shape[1],), acc_dtype(x.dtype), x.device)
    return x, stat, stat


def _batch_norm(at: Any, *ins: Value) -> tuple[Value, ...]:
    eps, has_w, has_b = at
    x = ins[0]
    w, b = _optional(ins, has_w, has_b)
    mean, var, xhat = stats(wide(x), _batch_axes(x), eps)
    c = (x.aval.shape[1],)
    return (P.cast(_affine(xhat, w, b, _channel_shape(x)), x.aval.dtype), P.reshape(mean, c), P.reshape(var, c))


def _batch_norm_vjp(ctx: Any, g: Any) -> Any:
    eps, has_w, has_b = ctx.attrs
    x = ctx.ins[0]
    axes, shape = _batch_axes(x), _channel_shape(x)
    gy, gmean, gvar = g
    gy = P.zeros_like(x) if gy is None else gy
    out = list(_affine_vjp(ctx, gy, x, axes, shape, eps, has_w, has_b))
    if out[0] is not None and (gmean is not None or gvar is not None):
        out[0] = P.add(out[0], P.cast(_stat_grad(wide(x), gmean, gvar, axes, shape), x.aval.dtype))
    return tuple(out)


def _stat_grad(x: Value, gmean: Value | None, gvar: Value | None, axes: Axes, shape: Axes) -> Value:
    """Gradient of x through the returned statistics: d mean/dx = 1/n, d var/dx = 2 (x - mean)/n."""
    n = _count(x, axes)
    total = P.zeros_like(x)
    if gmean is not None:
        total = P.add(total, P.div(P.reshape(gmean, shape), n))
    if gvar is not None:
        total = P.add(total, P.mul(P.sub(x, _mean(x, axes)), P.mul(P.reshape(gvar, shape), 2 / n)))
    return total


def _batch_samples() -> list[Any]:
    x, w, b = draw("x", 4, 3, 2), draw("w", 3), draw("b", 3)
    return [((x,), (1e-5, False, False)), ((x, w, b), (1e-5, True, True)), ((draw("x", 5, 3), w), (1e-5, True, False))]


composite("batch_norm_train", attrs=("eps", "has_weight", "has_bias"), infer=_batch_infer, expand=_batch_norm,
          vjp=_batch_norm_vjp, saves=(0, 1), samples=_batch_samples, n_out=3, kind="reduce", kernel_tag="batch_norm",
          doc="Batch norm of (N, C, ...) by its own statistics; gives (y, mean, biased variance), both (C,).")


def _batch_eval(at: Any, *ins: Value) -> Value:
    eps, has_w, has_b = at
    x, mean, var = ins[:3]
    w, b = _optional((x, *ins[3:]), has_w, has_b)
    shape, xw = _channel_shape(x), wide(x)
    dt = xw.aval.dtype
    rstd = P.rsqrt(P.add(P.cast(var, dt), eps))
    xhat = P.mul(P.sub(xw, P.reshape(P.cast(mean, dt), shape)), P.reshape(rstd, shape))
    return P.cast(_affine(xhat, w, b, shape), x.aval.dtype)


def _batch_eval_samples() -> list[Any]:
    x, m, v = draw("x", 4, 3, 2), draw("m", 3), draw("v", 3, lo=0.5, hi=2)
    w, b = draw("w", 3), draw("b", 3)
    return [((x, m, v), (1e-5, False, False)), ((x, m, v, w, b), (1e-5, True, True))]


composite("batch_norm_eval", attrs=("eps", "has_weight", "has_bias"),
          infer=lambda attrs, x, *rest: _norm_infer("batch_norm")(attrs, x, *rest), expand=_batch_eval,
          vjp=expansion_vjp(_batch_eval), saves=("ins",), samples=_batch_eval_samples, kind="pointwise",
          kernel_tag="batch_norm_eval", doc="Batch norm by given statistics; ins x, mean, var[, weight][, bias].")
