"""Scaled dot-product attention. Formulas: ``graphc/ir/composites/attention.py``."""
from __future__ import annotations

import math

from ..dtypes import bool_, float32
from ..errors import DTypeError, ShapeError
from ..ir import build as P
from ..ir.composites import attention as rules
from ..ir.composites._common import wide
from ..ir.infer import broadcast_shapes
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.recorder import apply
from ..tensor import Tensor, wrap
from ._common import products, val

_NAME = "scaled_dot_product_attention"


def _check(q: Value, k: Value, v: Value, dropout_p: float, scale: float | None) -> None:
    dims = [x.aval.ndim for x in (q, k, v)]
    if min(dims) < 2:
        raise ShapeError(f"{_NAME}: Expected query, key, and value to all be  at least 2 dimensional, but got query.dim: "
                         f"{dims[0]} key.dim: {dims[1]} and value.dim: {dims[2]} instead.")
    dts = [x.aval.dtype for x in (q, k, v)]
    if dts[0] is not dts[1] or dts[0] is not dts[2]:
        raise DTypeError(f"{_NAME}: Expected query, key, and value to have the same dtype, but got query.dtype: "
                         f"{dts[0].name} key.dtype: {dts[1].name} and value.dtype: {dts[2].name} instead.")
    shapes = [x.aval.shape for x in (q, k, v)]
    if shapes[0][-1] != shapes[1][-1]:
        raise ShapeError(f"{_NAME}: query and key must have the same last size, got shapes {shapes[0]} and {shapes[1]}")
    if shapes[1][-2] != shapes[2][-2]:
        raise ShapeError(f"{_NAME}: key and value must have the same length, got shapes {shapes[1]} and {shapes[2]}")
    if not 0.0 <= dropout_p <= 1.0:
        raise ShapeError(f"dropout probability has to be between 0 and 1, but got {dropout_p}")
    if scale is None and shapes[0][-1] == 0:
        raise ShapeError(f"{_NAME}: the default scale needs a last size above 0, got query of shape {shapes[0]}")


def _check_groups(q: Value, k: Value, v: Value) -> None:
    heads = [x.aval.shape[-3] if x.aval.ndim > 2 else 0 for x in (q, k, v)]
    if min(x.aval.ndim for x in (q, k, v)) < 3 or not heads[1] or heads[1] != heads[2] or heads[0] % heads[1]:
        raise ShapeError("Number of heads in key and value must divide the number of heads in query, got "
                         f"{heads[0]} query heads, {heads[1]} key heads and {heads[2]} value heads")


def _common_lead(xs: tuple[Value, ...], keep: int) -> tuple[Value, ...]:
    """The values with all but the last ``keep`` axes broadcast to one shape."""
    lead = broadcast_shapes(_NAME, *[x.aval.shape[:x.aval.ndim - keep] for x in xs])
    return tuple([P.expand(x, (*lead, *x.aval.shape[x.aval.ndim - keep:])) for x in xs])


def _mask_value(mask: Tensor, q: Value, is_causal: bool) -> Value:
    if is_causal:
        raise ShapeError(f"_{_NAME}: Explicit attn_mask should not be set when is_causal=True")
    m = val(mask, "attn_mask")
    if m.aval.dtype not in (bool_, float32, q.aval.dtype):
        raise DTypeError(f"Expected attn_mask dtype to be bool or float or to match query dtype, but got "
                         f"attn_mask.dtype: {m.aval.dtype.name} and  query.dtype: {q.aval.dtype.name} instead.")
    return m


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
                                 dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
                                 enable_gqa: bool = False) -> Tensor:
    """``softmax(scale * query @ key^T + mask) @ value`` for query (..., Hq, L, E), key (..., H, S, E), value (..., H, S,
    Ev); result (..., Hq, L, Ev).

    ``attn_mask``: boolean (True takes part) or floating (added), broadcastable to (..., Hq, L, S). ``scale`` defaults to
    1/sqrt(E). ``enable_gqa`` lets Hq be a multiple of H. Raises RuntimeError for shapes, dtypes or heads that do not fit
    and for a mask together with ``is_causal``."""
    q, k, v = products(val(query, "query"), val(key, "key"), val(value, "value"))
    _check(q, k, v, dropout_p, scale)
    if enable_gqa:
        _check_groups(q, k, v)
        q, k, v = _common_lead((q, k, v), 3)
    else:
        q, k, v = _common_lead((q, k, v), 2)
    mask = () if attn_mask is None else (_mask_value(attn_mask, q, is_causal),)
    for m in mask:
        scores = (*q.aval.shape[:-1], k.aval.shape[-2])
        if broadcast_shapes(_NAME, m.aval.shape, scores) != scores:
            raise ShapeError(f"{_NAME}: attn_mask of shape {m.aval.shape} does not broadcast to the scores' {scores}")
    attrs = (bool(is_causal), float(scale) if scale is not None else 1 / math.sqrt(q.aval.shape[-1]), False)
    if dropout_p:
        return wrap(_with_dropout(attrs, q, k, v, mask, dropout_p))
    return wrap(apply(OPS["sdpa"], (q, k, v, *mask), attrs)[0])


def _with_dropout(attrs: tuple[bool, float, bool], q: Value, k: Value, v: Value, mask: tuple[Value, ...],
                  p: float) -> Value:
    from .random import dropout

    scores = rules.scores(attrs, q, k, mask)
    boolean = mask and mask[0].aval.dtype is bool_
    if boolean:  # rows without any key: uniform for now, zeros below, so that no NaN arises on either pass
        alive = P.reduce("any", mask[0], (mask[0].aval.ndim - 1,), True)
        scores = P.where(alive, scores, P.zeros_like(scores))
    weights = apply(OPS["softmax"], (scores,), (scores.aval.ndim - 1,))
    if boolean:
        weights = P.where(mask[0], weights, P.zeros_like(weights))
    weights = val(dropout(wrap(weights), p, True))
    out = P.matmul(weights, wide(rules.repeat_heads(v, rules.group_size(q, k))))
    return P.cast(out, q.aval.dtype)
