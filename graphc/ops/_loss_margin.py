"""Margin and embedding losses, and the distances they use. Formulas are PyTorch's."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import dtypes
from ..errors import ArgumentError, DTypeError, ShapeError
from ..ir import build as P
from ..ir.infer import broadcast_shapes
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.recorder import apply
from ..tensor import Tensor, value_of, wrap
from ._common import binary_values, norm_dim, val
from ._reduction import finish, reduction_name
from .norm import at_least, p_norm


def _same_float(name: str, *tensors: Tensor) -> list[Value]:
    """Values promoted to one floating dtype."""
    vs = [val(t) for t in tensors]
    dt = vs[0].aval.dtype
    for v in vs[1:]:
        dt = dtypes.promote_types(dt, v.aval.dtype)
    if dt.category < 2:
        raise DTypeError(f"{name}: expected floating point tensors, got {dt.name}")
    return [P.cast(v, dt) for v in vs]


# ----------------------------------------------------------------------------------------------------------- distances
def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """``norm_p(x1 - x2 + eps)`` along the last dimension."""
    a, b = _same_float("pairwise_distance", x1, x2)
    return wrap(_distance(a, b, p, eps, keepdim))


def _distance(a: Value, b: Value, p: float, eps: float, keepdim: bool = False) -> Value:
    d = P.add(P.sub(a, b), eps)
    return p_norm(d, float(p), (d.aval.ndim - 1,), keepdim)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """``x1 . x2 / (max(|x1|, eps) max(|x2|, eps))`` along ``dim`` of the broadcast shape."""
    a, b = _same_float("cosine_similarity", x1, x2)
    shape = broadcast_shapes("cosine_similarity", a.aval.shape, b.aval.shape)
    if not shape:  # numbers: vectors of one element
        one = cosine_similarity(wrap(P.reshape(a, (1,))), wrap(P.reshape(b, (1,))), 0, eps)
        return wrap(P.reshape(one._read(), ()))
    axis = (norm_dim(dim, len(shape)),)
    a, b = P.expand(a, shape), P.expand(b, shape)
    norms = [at_least(p_norm(v, 2.0, axis, True), eps) for v in (a, b)]
    return wrap(P.sum(P.mul(P.div(a, norms[0]), P.div(b, norms[1])), axis))


# ------------------------------------------------------------------------------------------------------------- margins
def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0, size_average: bool | None = None,
                         reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """``x`` where the target is 1, ``max(0, margin - x)`` where it is -1."""
    reduction = reduction_name(size_average, reduce, reduction)
    x, t = val(input), val(target, "target")
    far = at_least(P.sub(margin, x), 0)
    zero = P.zeros_like(x)
    return finish(P.add(P.where(P.ne(t, 1), far, zero), P.where(P.ne(t, -1), x, zero)), reduction)


def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0,
                        size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """``max(0, -t (x1 - x2) + margin)``; all of one number of dimensions (else RuntimeError)."""
    reduction = reduction_name(size_average, reduce, reduction)
    if not input1.dim() == input2.dim() == target.dim():
        raise ShapeError("margin_ranking_loss : All input tensors should have same dimension but got sizes: input1: "
                         f"{input1.shape}, input2: {input2.shape}, target: {target.shape} ")
    a, b, t = _same_float("margin_ranking_loss", input1, input2, target)
    return finish(at_least(P.add(P.mul(P.neg(t), P.sub(a, b)), margin), 0), reduction)


def soft_margin_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
                     reduction: str = "mean") -> Tensor:
    """``log(1 + exp(-t x))``."""
    reduction = reduction_name(size_average, reduce, reduction)
    x, t = binary_values("soft_margin_loss", input, target)
    return finish(P.neg(apply(OPS["log_sigmoid"], (P.mul(t, x),))), reduction)


def multi_margin_loss(input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, weight: Tensor | None = None,
                      size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """``sum_j max(0, margin - x[y] + x[j])^p / C`` over ``j != y`` for ``(N, C)`` or ``(C,)``, times ``weight[y]``."""
    reduction = reduction_name(size_average, reduce, reduction)
    if p not in (1, 2):
        raise ArgumentError("only p == 1 and p == 2 supported")
    x, t = val(input), val(target, "target")
    if weight is not None and weight.dim() != 1:
        raise ArgumentError("weight must be one-dimensional")
    if x.aval.ndim == 0:
        x = P.reshape(x, (1,))
    if x.aval.ndim not in (1, 2) or t.aval.size != (x.aval.shape[0] if x.aval.ndim == 2 else 1):
        raise ShapeError(f"inconsistent target size, expected ({x.aval.shape[0] if x.aval.ndim == 2 else 1},) for input "
                         f"of shape {x.aval.shape} but got {t.aval.shape}")
    rows = P.unsqueeze(x, 0) if x.aval.ndim == 1 else x
    idx = P.reshape(t, (rows.aval.shape[0], 1))
    z = at_least(P.sub(P.add(rows, margin), P.gather(rows, idx, 1)), 0)
    if p == 2:
        z = P.mul(z, z)
    if weight is not None:
        z = P.mul(z, P.take(P.cast(val(weight, "weight"), x.aval.dtype), idx, 0))
    own = P.eq(P.iota_like(rows, 1, t.aval.dtype), idx)
    loss = P.div(P.sum(P.where(own, P.zeros_like(z), z), (1,)), x.aval.shape[-1])
    return finish(P.reshape(loss, t.aval.shape), reduction)


def multilabel_margin_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
                           reduction: str = "mean") -> Tensor:
    """``sum max(0, 1 - x[y] + x[j]) / C`` over targets ``y`` (class indices up to the first -1) and others ``j``."""
    reduction = reduction_name(size_average, reduce, reduction)
    x, t = val(input), val(target, "target")
    if x.aval.ndim == 0:
        x, t = P.reshape(x, (1,)), P.reshape(t, (1,)) if t.aval.size == 1 else t
    if x.aval.shape != t.aval.shape or x.aval.ndim not in (1, 2):
        raise ShapeError(f"inconsistent target size: {list(t.aval.shape)} for input of size: {list(x.aval.shape)}")
    one_row = x.aval.ndim == 1
    rows, ts = (P.unsqueeze(x, 0), P.unsqueeze(t, 0)) if one_row else (x, t)
    n, c = rows.aval.shape
    counts = P.as_bool(P.scan("min", P.cast(P.ge(ts, 0), dtypes.int64), 1))
    safe = P.where(counts, ts, P.zeros_like(ts))
    classes = P.reshape(P.iota(c, ts.aval.dtype, ts.aval.device), (1, 1, c))
    hit = P.bit_and(P.eq(P.unsqueeze(safe, 2), classes), P.unsqueeze(counts, 2))  # (N, target, class)
    other = P.logical_not(P.reduce("any", hit, (1,)))
    z = at_least(P.add(P.sub(1, P.unsqueeze(P.gather(rows, safe, 1), 2)), P.unsqueeze(rows, 1)), 0)
    used = P.bit_and(P.unsqueeze(counts, 2), P.unsqueeze(other, 1))
    loss = P.div(P.sum(P.where(used, z, P.zeros_like(z)), (1, 2)), c)
    return finish(P.reshape(loss, ()) if one_row else P.reshape(loss, (n,)), reduction)


def multilabel_soft_margin_loss(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                size_average: bool | None = None, reduce: bool | None = None,
                                reduction: str = "mean") -> Tensor:
    """Mean over the last dimension of ``-(t log_sigmoid(x) + (1 - t) log_sigmoid(-x))``."""
    reduction = reduction_name(size_average, reduce, reduction)
    x, t = binary_values("multilabel_soft_margin_loss", input, target)
    yes, no = [apply(OPS["log_sigmoid"], (v,)) for v in (x, P.neg(x))]
    loss = P.neg(P.add(P.mul(t, yes), P.mul(P.sub(1, t), no)))
    if weight is not None:
        loss = P.mul(loss, P.cast(val(weight, "weight"), loss.aval.dtype))
    last = loss.aval.ndim - 1
    return finish(P.div(P.sum(loss, (last,)), loss.aval.shape[last]), reduction)


# ---------------------------------------------------------------------------------------------------------- embeddings
def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0,
                          size_average: bool | None = None, reduce: bool | None = None,
                          reduction: str = "mean") -> Tensor:
    """``1 - cos`` where the target is 1, ``max(0, cos - margin)`` where it is -1; inputs ``(N, D)`` or ``(D,)``."""
    reduction = reduction_name(size_average, reduce, reduction)
    a, b = _same_float("cosine_embedding_loss", input1, input2)
    t = val(target, "target")
    if t.aval.ndim + 1 != a.aval.ndim or t.aval.ndim + 1 != b.aval.ndim or t.aval.ndim > 1:
        raise ShapeError(f"{t.aval.ndim}D target tensor expects {t.aval.ndim + 1}D input tensors, but found inputs with "
                         f"sizes {list(a.aval.shape)} and {list(b.aval.shape)}.")
    last = (a.aval.ndim - 1,)
    dot, aa, bb = [P.sum(P.mul(u, v), last) for u, v in ((a, b), (a, a), (b, b))]
    cos = P.div(dot, P.sqrt(P.mul(P.add(aa, 1e-12), P.add(bb, 1e-12))))
    zero = P.zeros_like(cos)
    near = P.where(P.eq(t, 1), P.sub(1, cos), zero)
    return finish(P.add(near, P.where(P.eq(t, -1), at_least(P.sub(cos, margin), 0), zero)), reduction)


def triplet_margin_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2,
                        eps: float = 1e-6, swap: bool = False, size_average: bool | None = None,
                        reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """``max(0, d(a, p) - d(a, n) + margin)``; ``swap`` takes the nearer of ``d(a, n)`` and ``d(p, n)``."""
    reduction = reduction_name(size_average, reduce, reduction)
    if margin <= 0:
        raise ArgumentError(f"margin must be greater than 0, got {margin}")
    a, b, c = _same_float("triplet_margin_loss", anchor, positive, negative)
    if not a.aval.ndim == b.aval.ndim == c.aval.ndim:
        raise ShapeError("The anchor, positive, and negative tensors are expected to have the same number of dimensions, "
                         f"but got: anchor {a.aval.ndim}D, positive {b.aval.ndim}D, and negative {c.aval.ndim}D inputs")
    far = _distance(a, c, p, eps)
    if swap:
        far = P.minimum(far, _distance(b, c, p, eps))
    return finish(at_least(P.add(P.sub(_distance(a, b, p, eps), far), margin), 0), reduction)


def triplet_margin_with_distance_loss(anchor: Tensor, positive: Tensor, negative: Tensor, *,
                                      distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
                                      margin: float = 1.0, swap: bool = False, reduction: str = "mean") -> Tensor:
    """Triplet loss for any distance function (default: pairwise_distance)."""
    reduction = reduction_name(None, None, reduction)
    if margin <= 0:
        raise ArgumentError(f"margin must be greater than 0, got {margin}")
    distance: Any = distance_function if distance_function is not None else pairwise_distance
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise ShapeError("The anchor, positive, and negative tensors are expected to have the same number of dimensions, "
                         f"but got: anchor {anchor.ndim}D, positive {positive.ndim}D, and negative {negative.ndim}D "
                         "inputs")
    near, far = value_of(distance(anchor, positive)), value_of(distance(anchor, negative))
    if swap:
        far = P.minimum(far, value_of(distance(positive, negative)))
    return finish(at_least(P.sub(P.add(near, margin), far), 0), reduction)
