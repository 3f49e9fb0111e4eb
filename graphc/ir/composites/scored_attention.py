"""Attention with any pointwise code between the scores and the softmax: what the pass that recognises plain code makes.

These two rows are not in the op table: no program records them, only :mod:`graphc.ir.passes.attention` writes them into a
graph, and a back end either has a kernel for them or expands them into the plain code they came from.

Shapes: q (..., Hq, L, E), k (..., Hk, S, E), v (..., Hk, S, Ev), Hq a multiple of Hk. A :class:`Recipe` says how the scores
become the softmax's input: ``x = masks(body(q k^T))``. Its graphs take tiles of the scores' full shape in float32 and the
*extras*: arrays, numbers, masks in memory that the code reads.

Rows whose scores are all -inf are NaN, as they are in plain code (and unlike in ``sdpa``). For the backward pass a row's
maximum and the logarithm of its sum are kept apart: where every score is a mask's large finite number, their sum would be
that number alone. (Kernels keep both in units of log2; nobody else reads them.)
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...dtypes import float32
from .. import build as P
from ..node import Aval, Graph, Value, aval
from ..optable import Composite
from ..recorder import inline
from ._common import wide
from .attention import group_size, repeat_heads, sum_heads


@dataclass(frozen=True)
class Recipe:
    """How scores become the softmax's input, and how gradients come back.

    ``body``: (score, *extras) -> softmax input before the masks. ``masks``: (*extras) -> (mask, fill)* or None; ``kinds``
    says for each mask, the innermost first, whether the input becomes ``fill`` where the mask is True ("where") or has
    ``fill`` added there ("add"). ``slope``: (score, gradient of the softmax input, mask*, *extras) -> gradient of the score.
    ``ranges``: whether it pays to look through the masks for blocks to skip; changes speed, never results.
    """

    body: Graph
    masks: Graph | None
    kinds: tuple[str, ...]
    slope: Graph | None = None
    ranges: bool = False


def _full(q: Aval, k: Aval) -> Aval:
    return aval((*q.shape[:-1], k.shape[-2]), float32, q.device)


def _softmax_input(r: Recipe, score: Value, extras: tuple[Value, ...]) -> tuple[Value, tuple[Value, ...]]:
    """(softmax input, masks)."""
    (x,) = inline(r.body, (score, *extras))
    made = inline(r.masks, extras) if r.masks is not None else ()
    for kind, mask, fill in zip(r.kinds, made[::2], made[1::2]):
        fill = P.expand(fill, x.aval.shape)
        x = P.where(P.expand(mask, x.aval.shape), fill if kind == "where" else P.add(x, fill), x)
    return x, made[::2]


def _scores(q: Value, k: Value) -> Value:
    return P.matmul(wide(q), P.transpose(wide(repeat_heads(k, group_size(q, k)))))


def _infer(attrs: Any, q: Aval, k: Aval, v: Aval, *extras: Aval) -> tuple[Aval, ...]:
    rows = q.shape[:-1]
    return aval((*rows, v.shape[-1]), q.dtype, q.device), aval((*rows, 2), float32, q.device)


def _forward(attrs: Any, q: Value, k: Value, v: Value, *extras: Value) -> tuple[Value, ...]:
    """(output, maximum and logarithm of the sum of every row)."""
    (r,) = attrs
    x, _ = _softmax_input(r, _scores(q, k), extras)
    last = (x.aval.ndim - 1,)
    top = P.reduce("max", x, last, True)
    e = P.exp(P.sub(x, top))
    total = P.sum(e, last, True)
    out = P.matmul(P.div(e, total), wide(repeat_heads(v, group_size(q, v))))
    return P.cast(out, q.aval.dtype), P.concat((top, P.log(total)), last[0])


def _backward(attrs: Any, q: Value, k: Value, v: Value, out: Value, rows: Value, g: Value, *extras: Value) -> tuple[Value, ...]:
    """Gradients of q, k and v."""
    (r,) = attrs
    n, gw = group_size(q, k), wide(g)
    score = _scores(q, k)
    x, masks = _softmax_input(r, score, extras)
    last = x.aval.ndim - 1
    p = P.exp(P.sub(P.sub(x, P.narrow(rows, last, 0, 1)), P.narrow(rows, last, 1, 1)))
    delta = P.sum(P.mul(gw, wide(out)), (g.aval.ndim - 1,), True)
    dx = P.mul(p, P.sub(P.matmul(gw, P.transpose(wide(repeat_heads(v, n)))), delta))
    (ds,) = inline(r.slope, (score, dx, *masks, *extras))  # type: ignore[arg-type]
    dq = P.matmul(ds, wide(repeat_heads(k, n)))
    dk = sum_heads(P.matmul(P.transpose(ds), wide(q)), n)
    dv = sum_heads(P.matmul(P.transpose(p), gw), n)
    return P.cast(dq, q.aval.dtype), P.cast(dk, k.aval.dtype), P.cast(dv, v.aval.dtype)


def _backward_infer(attrs: Any, q: Aval, k: Aval, v: Aval, *rest: Aval) -> tuple[Aval, ...]:
    return q, k, v


SCORED = Composite("scored_attention", attrs=("recipe",), infer=_infer, expand=_forward, vjp=None, saves=(), samples=list,
                   n_out=2, kind="contract", kernel_tag="attention",
                   doc="Attention with pointwise code on the scores; ins q, k, v, *extras; outs output, (rows, 2).")
SCORED_BACKWARD = Composite("scored_attention_backward", attrs=("recipe",), infer=_backward_infer, expand=_backward, vjp=None,
                            saves=(), samples=list, n_out=3, kind="contract",
                            doc="Gradients of scored_attention; ins q, k, v, out, rows, cotangent, *extras.")

__all__ = ["SCORED", "SCORED_BACKWARD", "Recipe"]
