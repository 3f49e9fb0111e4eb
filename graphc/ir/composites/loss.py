"""Classification losses with class-index targets: ``nll`` of log-probabilities and ``cross_entropy`` of logits.

The class axis is ``axis``; ``target`` (int64) lacks it. ``weight`` has one entry per class. Targets equal to
``ignore_index`` contribute nothing. ``mean`` divides by the summed weight of the targets that count; that sum stays on
the device, so a batch of ignored targets only gives NaN, as in PyTorch. A target outside ``0..C-1`` fails when evaluated.
"""
from __future__ import annotations

from typing import Any

from ...dtypes import int64
from ...errors import DTypeError, ShapeError
from .. import build as P
from ..infer import require_float
from ..node import Aval, Value, aval
from ..optable import composite
from ..recorder import apply
from ..samples import draw
from ._common import acc_dtype, expansion_vjp, op, wide

_ATTRS = ("axis", "ignore_index", "reduction", "smoothing", "has_weight")


def _infer(name: str) -> Any:
    def infer(attrs: Any, x: Aval, target: Aval, *weight: Aval) -> Aval:
        require_float(name, x)
        axis = attrs[0]
        want = (*x.shape[:axis], *x.shape[axis + 1:])
        if target.dtype is not int64:
            raise DTypeError(f"{name}: expected scalar type Long but found {target.dtype.name}; convert with .long()")
        if target.shape != want:
            raise ShapeError(f"{name}: expected target of shape {want} for input of shape {x.shape}, got {target.shape}")
        if weight and weight[0].shape != (x.shape[axis],):
            raise ShapeError(f"{name}: weight tensor should be defined either for all {x.shape[axis]} classes or no "
                             f"classes but got weight tensor of shape: {list(weight[0].shape)}")
        return aval(want if attrs[2] == "none" else (), x.dtype, x.device)

    return infer


def _targets(at: Any, target: Value, weight: tuple[Value, ...], dt: Any) -> tuple[Value, Value, Value]:
    """(counts: bool, class index safe to gather with, weight of each target in ``dt``, 0 where ignored)."""
    valid = P.ne(target, at[1])
    safe = P.where(valid, target, P.zeros_like(target))
    wt = P.cast(valid, dt)
    if weight:
        wt = P.mul(P.take(P.cast(weight[0], dt), safe, 0), wt)
    return valid, safe, wt


def _class_shape(axis: int, nd: int) -> tuple[int, ...]:
    return tuple(-1 if i == axis else 1 for i in range(nd))


def _per_class(weight: Value, axis: int, like: Value) -> Value:
    """The class weights shaped to broadcast against ``like``."""
    n = weight.aval.shape[0]
    return P.reshape(P.cast(weight, like.aval.dtype), tuple(n if d < 0 else 1 for d in _class_shape(axis, like.aval.ndim)))


def _nll_of(at: Any, logp: Value, target: Value, weight: tuple[Value, ...]) -> Value:
    """The reduced loss of wide log-probabilities."""
    axis, _, reduction, smoothing, _ = at
    valid, safe, wt = _targets(at, target, weight, logp.aval.dtype)
    picked = P.reshape(P.gather(logp, P.unsqueeze(safe, axis), axis), target.aval.shape)
    loss = P.where(valid, P.neg(P.mul(picked, wt)), P.zeros_like(picked))
    if smoothing:
        all_classes = P.neg(P.sum(P.mul(logp, _per_class(weight[0], axis, logp)) if weight else logp, (axis,)))
        all_classes = P.where(valid, all_classes, P.zeros_like(all_classes))
        loss = P.add(P.mul(loss, 1 - smoothing), P.mul(all_classes, smoothing / logp.aval.shape[axis]))
    if reduction == "none":
        return loss
    total = P.sum(loss)
    return P.div(total, P.sum(wt)) if reduction == "mean" else total


def _scale(at: Any, g: Value, wt: Value) -> Value:
    """What the loss of each target is multiplied by in the result, times the cotangent; weights not included."""
    return P.div(g, P.sum(wt)) if at[2] == "mean" else g


def _hit(x: Value, safe: Value, axis: int) -> Value:
    """One-hot targets as bool, never stored: an index comparison that fuses into its user."""
    return P.eq(P.iota_like(x, axis, int64), P.unsqueeze(safe, axis))


# ---------------------------------------------------------------------------------------------------------------- nll
def _nll(at: Any, logp: Value, target: Value, *weight: Value) -> Value:
    return P.cast(_nll_of(at, wide(logp), target, weight), logp.aval.dtype)


def _nll_backward(at: Any, logp: Value, target: Value, g: Value, *weight: Value) -> Value:
    axis = at[0]
    dt = acc_dtype(logp.aval.dtype)
    _, safe, wt = _targets(at, target, weight, dt)
    per_target = P.neg(P.mul(wt, _scale(at, P.cast(g, dt), wt)))
    spread = P.expand(P.unsqueeze(per_target, axis), logp.aval.shape)
    return P.cast(P.where(_hit(logp, safe, axis), spread, P.zeros_like(spread)), logp.aval.dtype)


# ------------------------------------------------------------------------------------------------------- cross entropy
def _cross_entropy(at: Any, x: Value, target: Value, *weight: Value) -> Value:
    logp = op("log_softmax", wide(x), attrs=(at[0],))
    return P.cast(_nll_of(at, logp, target, weight), x.aval.dtype)


def _cross_entropy_backward(at: Any, x: Value, target: Value, g: Value, *weight: Value) -> Value:
    """scale * (softmax(x) * sum(a) - a) with a the (weighted, smoothed) target distribution."""
    axis, smoothing = at[0], at[3]
    xw = wide(x)
    dt = xw.aval.dtype
    valid, safe, wt = _targets(at, target, weight, dt)
    p = op("softmax", xw, attrs=(axis,))
    scale = _scale(at, P.cast(g, dt), wt)
    hit = _hit(x, safe, axis)
    if not smoothing:
        d = P.mul(P.where(hit, P.sub(p, 1), p), P.unsqueeze(P.mul(wt, scale), axis))
        return P.cast(d, x.aval.dtype)
    share = smoothing / x.aval.shape[axis]
    hard = P.mul(P.unsqueeze(wt, axis), 1 - smoothing)
    soft = P.mul(_per_class(weight[0], axis, xw), share) if weight else share
    a = P.add(P.where(hit, P.expand(hard, x.aval.shape), P.zeros_like(xw)), soft)
    total = P.add(hard, P.mul(P.sum(P.cast(weight[0], dt)), share) if weight else smoothing)
    scale = P.mul(scale, P.cast(valid, dt))
    return P.cast(P.mul(P.sub(P.mul(p, total), a), P.unsqueeze(scale, axis)), x.aval.dtype)


# --------------------------------------------------------------------------------------------------------------- rows
def _samples(backward: bool, smoothing: bool) -> Any:
    def make() -> list[Any]:
        import numpy as np

        x = draw("x", 4, 3)
        t = np.array([0, 2, -100, 1])
        out = []
        for reduction in ("mean", "sum", "none"):
            for w in ((), (draw("w", 3, lo=0.5, hi=2),)):
                g = (draw("g", 4) if reduction == "none" else draw("g"),) if backward else ()
                out.append(((x, t, *g, *w), (1, -100, reduction, 0.1 if smoothing and w else 0.0, bool(w))))
        return out

    return make


def _register(name: str, forward: Any, backward: Any, save_x: bool) -> None:
    back = composite(f"{name}_backward", attrs=_ATTRS, infer=lambda attrs, x, *rest: x, expand=backward, kind="reduce",
                     vjp=expansion_vjp(backward), saves=("ins",), samples=_samples(True, save_x),
                     doc=f"Gradient of {name} for its first input; ins x, target, g[, weight].")

    def vjp(ctx: Any, g: Value) -> tuple[Value | None, ...]:
        x, target, *weight = ctx.ins
        return (apply(back, (x, target, g, *weight), ctx.attrs), None, *[None for _ in weight])

    composite(name, attrs=_ATTRS, infer=_infer(name), expand=forward, vjp=vjp, saves=("ins",), kind="reduce",
              samples=_samples(False, save_x), kernel_tag=name, doc=f"{name}; ins x, target[, weight].")


_register("nll", _nll, _nll_backward, False)
_register("cross_entropy", _cross_entropy, _cross_entropy_backward, True)


# ------------------------------------------------------------------------------------------------ binary cross entropy
_LOG_FLOOR = -100.0  # logs are cut off here, so that a probability of exactly 0 or 1 gives a finite loss (as in PyTorch)


def _log_floored(x: Value) -> Value:
    return P.maximum(P.log(x), _LOG_FLOOR)


def _bce(at: Any, p: Value, target: Value) -> Value:
    x, t = wide(p), wide(target)
    loss = P.sub(P.mul(P.sub(t, 1), P.maximum(P.log1p(P.neg(x)), _LOG_FLOOR)), P.mul(t, _log_floored(x)))
    return P.cast(loss, p.aval.dtype)


def _bce_backward(at: Any, p: Value, target: Value, g: Value) -> Value:
    x, t = wide(p), wide(target)
    spread = P.mul(P.sub(1, x), x)
    safe = P.where(P.lt(spread, 1e-12), P.full_like(spread, 1e-12), spread)
    return P.cast(P.div(P.mul(wide(g), P.sub(x, t)), safe), p.aval.dtype)


def _bce_target_backward(at: Any, p: Value, g: Value) -> Value:
    x = wide(p)
    return P.cast(P.mul(wide(g), P.sub(_log_floored(P.sub(1, x)), _log_floored(x))), p.aval.dtype)


def _bce_infer(attrs: Any, p: Aval, target: Aval) -> Aval:
    require_float("binary_cross_entropy", p)
    return p


def _probabilities(*extra: str) -> Any:
    return lambda: [((draw("p", 3, 4, lo=0.1, hi=0.9), *[draw(e, 3, 4, lo=0.1, hi=0.9) for e in extra]), ())]


_BCE_BACK = composite("bce_backward", attrs=(), infer=lambda attrs, p, *rest: p, expand=_bce_backward,
                      vjp=expansion_vjp(_bce_backward), saves=("ins",), samples=_probabilities("t", "g"),
                      doc="Gradient of bce for the probabilities.")
_BCE_TARGET_BACK = composite("bce_target_backward", attrs=(), infer=lambda attrs, p, *rest: p,
                             expand=_bce_target_backward, vjp=expansion_vjp(_bce_target_backward), saves=("ins",),
                             samples=_probabilities("g"), doc="Gradient of bce for the targets.")


def _bce_vjp(ctx: Any, g: Value) -> tuple[Value | None, ...]:
    p, t = ctx.ins
    need_p, need_t = ctx.needs
    return (apply(_BCE_BACK, (p, t, g)) if need_p else None, apply(_BCE_TARGET_BACK, (p, g)) if need_t else None)


composite("bce", attrs=(), infer=_bce_infer, expand=_bce, vjp=_bce_vjp, saves=("ins",), samples=_probabilities("t"),
          doc="-(t log p + (1 - t) log(1 - p)) of each element, logs floored at -100; equal shapes.")
