"""Scaled dot-product attention as a composite: ``softmax(scale * q k^T + mask) v``.

Shapes: q (..., Hq, L, E), k (..., Hk, S, E), v (..., Hk, S, Ev) with Hq a multiple of Hk (grouped-query attention when
they differ); leading axes are equal (``graphc.ops`` broadcasts them). The mask is boolean (True takes part) or floating
(added), of any shape that broadcasts to (..., Hq, L, S). Fully masked rows give zeros with a boolean mask, as in PyTorch.

Backward (Dao 2022): with the row-wise log-sum-exp saved, P = exp(S - lse) is computed again and
dS = P * (dP - rowsum(dO * O)), so nothing of size L x S is kept.
"""
from __future__ import annotations

import math
from typing import Any

from ...dtypes import bool_, int64
from .. import build as P
from ..infer import require_float
from ..node import Aval, Value, aval
from ..optable import composite
from ..recorder import apply
from ..samples import draw
from ._common import acc_dtype, expansion_vjp, wide

_NEG_INF = -math.inf


def group_size(q: Value, k: Value) -> int:
    """Query heads per key head."""
    return q.aval.shape[-3] // max(k.aval.shape[-3], 1) if q.aval.ndim > 2 else 1


def repeat_heads(x: Value, n: int) -> Value:
    """(..., H, S, E) -> (..., H * n, S, E), each head n times in a row."""
    if n == 1:
        return x
    *lead, h, s, e = x.aval.shape
    return P.reshape(P.expand(P.unsqueeze(x, len(lead) + 1), (*lead, h, n, s, e)), (*lead, h * n, s, e))


def sum_heads(g: Value, n: int) -> Value:
    if n == 1:
        return g
    *lead, h, s, e = g.aval.shape
    return P.sum(P.reshape(g, (*lead, h // n, n, s, e)), (len(lead) + 1,))


def _causal(scores: Value) -> Value:
    """True where key position <= query position."""
    return P.le(P.iota_like(scores, -1, int64), P.iota_like(scores, -2, int64))


def scores(at: Any, q: Value, k: Value, mask: tuple[Value, ...]) -> Value:
    """Wide scores with masks applied."""
    causal, scale, _ = at
    s = P.mul(P.matmul(wide(q), P.transpose(wide(repeat_heads(k, group_size(q, k))))), scale)
    if causal:
        s = P.where(_causal(s), s, P.full_like(s, _NEG_INF))
    if mask:
        m = mask[0]
        s = P.where(m, s, P.full_like(s, _NEG_INF)) if m.aval.dtype is bool_ else P.add(s, P.cast(m, s.aval.dtype))
    return s


def _infer(attrs: Any, q: Aval, k: Aval, v: Aval, *mask: Aval) -> tuple[Aval, ...]:
    require_float("scaled_dot_product_attention", q)
    rows = q.shape[:-1]
    return (aval((*rows, v.shape[-1]), q.dtype, q.device), aval((*rows, 1), acc_dtype(q.dtype), q.device))


def _sdpa(at: Any, q: Value, k: Value, v: Value, *mask: Value) -> tuple[Value, ...]:
    """(output, log-sum-exp of every row of scores)."""
    s = scores(at, q, k, mask)
    last = s.aval.ndim - 1
    if not s.aval.shape[last]:
        rows = s.aval.shape[:-1]
        return (P.full((*rows, v.aval.shape[-1]), 0, q.aval.dtype, q.aval.device),
                P.full((*rows, 1), _NEG_INF, s.aval.dtype, q.aval.device))
    m = P.reduce("max", s, (last,), True)
    m = P.where(P.eq(m, _NEG_INF), P.zeros_like(m), m)
    e = P.exp(P.sub(s, m))
    total = P.sum(e, (last,), True)
    lse = P.add(P.log(total), m)
    safe = P.where(P.eq(total, 0), P.full_like(total, 1), total)  # rows without any key give zeros
    out = P.matmul(P.div(e, safe), wide(repeat_heads(v, group_size(q, v))))
    return P.cast(out, q.aval.dtype), lse


def _sdpa_backward(at: Any, q: Value, k: Value, v: Value, out: Value, lse: Value, g: Value,
                   *mask: Value) -> tuple[Value, ...]:
    """Cotangents of q, k, v and, for a floating mask that needs it, the mask."""
    (causal, scale, mask_grad) = at
    n = group_size(q, k)
    s = scores(at, q, k, mask)
    empty = P.eq(lse, _NEG_INF)
    p = P.exp(P.sub(s, P.where(empty, P.zeros_like(lse), lse)))
    gw = wide(g)
    delta = P.sum(P.mul(gw, wide(out)), (g.aval.ndim - 1,), True)
    dp = P.matmul(gw, P.transpose(wide(repeat_heads(v, n))))
    ds = P.mul(p, P.sub(dp, delta))
    dq = P.mul(P.matmul(ds, wide(repeat_heads(k, n))), scale)
    dk = P.mul(sum_heads(P.matmul(P.transpose(ds), wide(q)), n), scale)
    dv = sum_heads(P.matmul(P.transpose(p), gw), n)
    outs = [P.cast(d, x.aval.dtype) for d, x in ((dq, q), (dk, k), (dv, v))]
    if mask_grad:
        outs.append(P.cast(P.sum_to(ds, mask[0].aval.shape), mask[0].aval.dtype))
    return tuple(outs)


def _backward_infer(attrs: Any, q: Aval, k: Aval, v: Aval, out: Aval, lse: Aval, g: Aval, *mask: Aval) -> Any:
    return (q, k, v, *mask) if attrs[2] else (q, k, v)


def _sample_inputs(backward: bool) -> Any:
    def make() -> list[Any]:
        import numpy as np

        q, k, v = draw("q", 2, 2, 3, 4), draw("k", 2, 1, 5, 4), draw("v", 2, 1, 5, 2)
        extra = (draw("o", 2, 2, 3, 2), draw("l", 2, 2, 3, 1, lo=2, hi=4), draw("g", 2, 2, 3, 2)) if backward else ()
        mask = draw("m", 3, 5)
        keep = np.ones((3, 5), bool)
        keep[0, 2:] = False
        return [((q, k, v, *extra), (False, 0.5, False)), ((q, k, v, *extra), (True, 0.3, False)),
                ((q, k, v, *extra, mask), (False, 0.5, True)), ((q, k, v, *extra, keep), (False, 0.5, False))]

    return make


_ATTRS = ("causal", "scale", "mask_grad")
_BACKWARD = composite("sdpa_backward", attrs=_ATTRS, infer=_backward_infer, expand=_sdpa_backward,
                      vjp=expansion_vjp(_sdpa_backward), saves=("ins",), samples=_sample_inputs(True), n_out=3,
                      kind="contract", doc="Gradients of sdpa; ins q, k, v, out, lse, cotangent[, mask].")


def _vjp(ctx: Any, g: Any) -> tuple[Value | None, ...]:
    q, k, v, *mask = ctx.ins
    out, lse = ctx.out
    causal, scale, _ = ctx.attrs
    mask_grad = len(mask) > 0 and bool(ctx.needs[3])
    g_out = g[0] if g[0] is not None else P.zeros_like(out)
    grads = apply(_BACKWARD, (q, k, v, out, lse, g_out, *mask), (causal, scale, mask_grad))
    if g[1] is not None:  # only in higher derivatives: d lse / dS = P
        grads = _add_lse_gradient(ctx, g[1], grads)
    return (*grads, None) if mask and not mask_grad else tuple(grads)


def _add_lse_gradient(ctx: Any, g: Value, grads: tuple[Value, ...]) -> tuple[Value, ...]:
    q, k, v, *mask = ctx.ins
    causal, scale, _ = ctx.attrs
    n, lse = group_size(q, k), ctx.out[1]
    s = scores(ctx.attrs, q, k, tuple(mask))
    ds = P.mul(P.exp(P.sub(s, P.where(P.eq(lse, _NEG_INF), P.zeros_like(lse), lse))), g)
    dq = P.mul(P.matmul(ds, wide(repeat_heads(k, n))), scale)
    dk = P.mul(sum_heads(P.matmul(P.transpose(ds), wide(q)), n), scale)
    out = [P.add(grads[0], P.cast(dq, q.aval.dtype)), P.add(grads[1], P.cast(dk, k.aval.dtype)), *grads[2:]]
    if len(out) > 3:
        out[3] = P.add(out[3], P.cast(P.sum_to(ds, mask[0].aval.shape), mask[0].aval.dtype))
    return tuple(out)


composite("sdpa", attrs=_ATTRS, infer=_infer, expand=_sdpa, vjp=_vjp, saves=("ins", "out"), n_out=2, kind="contract",
          samples=_sample_inputs(False), kernel_tag="attention",
          doc="Attention; ins q, k, v[, mask]; outs output, log-sum-exp of the scores (rows, 1).")
