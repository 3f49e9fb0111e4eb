"""Loss functions with PyTorch's names and signatures: classification and regression. Margin, embedding and sequence
losses are in ``_loss_margin.py`` and ``_loss_ctc.py`` and re-exported here."""
from __future__ import annotations

import math
import warnings
from typing import Any

from .. import dtypes
from ..errors import ArgumentError, DTypeError, ShapeError
from ..ir import build as P
from ..ir.composites._common import wide
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.recorder import apply
from ..tensor import Size, Tensor, wrap
from ._common import binary_values, number, val
from ._loss_ctc import ctc_loss
from ._loss_margin import (
    cosine_embedding_loss,
    cosine_similarity,
    hinge_embedding_loss,
    margin_ranking_loss,
    multi_margin_loss,
    multilabel_margin_loss,
    multilabel_soft_margin_loss,
    pairwise_distance,
    soft_margin_loss,
    triplet_margin_loss,
    triplet_margin_with_distance_loss,
)
from ._reduction import finish, reduced, reduction_name

__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cosine_embedding_loss", "cosine_similarity",
    "cross_entropy", "ctc_loss", "gaussian_nll_loss", "hinge_embedding_loss", "huber_loss", "kl_div", "l1_loss",
    "margin_ranking_loss", "mse_loss", "multi_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss",
    "nll_loss", "pairwise_distance", "poisson_nll_loss", "smooth_l1_loss", "soft_margin_loss", "triplet_margin_loss",
    "triplet_margin_with_distance_loss"]


# ------------------------------------------------------------------------------------------------------ classification
def _class_targets(name: str, x: Value, t: Value) -> tuple[Value, int]:
    """(int64 targets, class axis) after PyTorch's checks of shapes and dtype."""
    xs, ts = x.aval.shape, t.aval.shape
    if len(xs) == 2 and ts == xs[:1] and t.aval.dtype is dtypes.int64:
        return t, 1
    if not xs:
        raise ArgumentError(f"{name}: Expected 1 or more dimensions (got 0)")
    axis = 0 if len(xs) == 1 else 1
    if len(xs) > 1 and ts and xs[0] != ts[0]:
        raise ArgumentError(f"Expected input batch_size ({xs[0]}) to match target batch_size ({ts[0]}).")
    if len(xs) <= 2 and len(ts) > 1:
        raise ShapeError("0D or 1D target tensor expected, multi-target not supported")
    if len(xs) == 1 and ts == (1,):
        t = P.reshape(t, ())
    elif ts != (*xs[:axis], *xs[axis + 1:]):
        raise ShapeError(f"size mismatch (got input: {list(xs)} , target: {list(ts)})")
    if t.aval.dtype not in (dtypes.int64, dtypes.uint8):
        raise DTypeError(f"expected target dtype to be Long or Byte, but got {t.aval.dtype.name}; use target.long()")
    return P.cast(t, dtypes.int64), axis


def _index_loss(name: str, x: Value, t: Value, weight: Tensor | None, ignore_index: int, reduction: str,
                smoothing: float) -> Any:
    was_one = x.aval.ndim == 1 and t.aval.shape == (1,)
    t, axis = _class_targets(name, x, t)
    attrs = (axis, int(ignore_index), reduction, smoothing, weight is not None)
    out = apply(OPS[name], (x, t) if weight is None else (x, t, val(weight, "weight")), attrs)
    return wrap(P.reshape(out, (1,)) if was_one and reduction == "none" else out)


def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
                  ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean",
                  label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy of logits ``(C,)``, ``(N, C)`` or ``(N, C, d1, ...)`` with class indices (input's shape without C)
    or class probabilities (input's shape).

    Raises ValueError/RuntimeError for shapes and dtypes that do not fit; IndexError, when evaluated, for a target
    outside the classes."""
    reduction = reduction_name(size_average, reduce, reduction)
    x, t = val(input), val(target, "target")
    if not 0.0 <= label_smoothing <= 1.0:
        raise ShapeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    if x.aval.shape == t.aval.shape and (t.aval.dtype.is_floating_point or not x.aval.ndim):
        return _soft_cross_entropy(x, t, weight, reduction, label_smoothing)
    return _index_loss("cross_entropy", x, t, weight, ignore_index, reduction, float(label_smoothing))


def _soft_cross_entropy(x: Value, t: Value, weight: Tensor | None, reduction: str, smoothing: float) -> Any:
    """Targets are distributions over the classes; ``mean`` divides by the number of distributions."""
    if not t.aval.dtype.is_floating_point:
        raise DTypeError(f"Expected floating point type for target with class probabilities, got {t.aval.dtype.name}")
    axis = 0 if x.aval.ndim == 1 else 1
    n_classes = x.aval.shape[axis]
    logp = apply(OPS["log_softmax"], (wide(x),), (axis,))
    dt = logp.aval.dtype
    t = P.cast(t, dt)
    if smoothing:
        t = P.add(P.mul(t, 1 - smoothing), smoothing / n_classes)
    if weight is not None:
        shape = tuple(n_classes if i == axis else 1 for i in range(x.aval.ndim))
        t = P.mul(t, P.reshape(P.cast(val(weight, "weight"), dt), shape))
    loss = P.neg(P.sum(P.mul(logp, t), (axis,)))
    return wrap(P.cast(reduced(loss, reduction), x.aval.dtype))


def nll_loss(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
             ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """Negative log likelihood of log-probabilities ``(C,)``, ``(N, C)`` or ``(N, C, d1, ...)``; see cross_entropy."""
    reduction = reduction_name(size_average, reduce, reduction)
    return _index_loss("nll", val(input), val(target, "target"), weight, ignore_index, reduction, 0.0)


def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
                         reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """``-(t log p + (1 - t) log(1 - p))``, logs floored at -100; input and target of one shape (else ValueError)."""
    reduction = reduction_name(size_average, reduce, reduction)
    p, t = val(input), val(target, "target")
    if p.aval.shape != t.aval.shape:
        raise ArgumentError(f"Using a target size ({Size(t.aval.shape)}) that is different to the input size "
                            f"({Size(p.aval.shape)}) is deprecated. Please ensure they have the same size.")
    if p.aval.dtype is not t.aval.dtype:
        raise DTypeError(f"binary_cross_entropy: Found dtype {t.aval.dtype.name} but expected {p.aval.dtype.name}")
    loss = apply(OPS["bce"], (p, t))
    if weight is not None:
        loss = P.mul(loss, P.cast(val(weight, "weight"), p.aval.dtype))
    return finish(loss, reduction)


def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                     size_average: bool | None = None, reduce: bool | None = None,
                                     reduction: str = "mean", pos_weight: Tensor | None = None) -> Tensor:
    """``(1 - t) x - (1 + (pos_weight - 1) t) log_sigmoid(x)``: stable for every logit."""
    reduction = reduction_name(size_average, reduce, reduction)
    if input.shape != target.shape:
        raise ArgumentError(f"Target size ({target.shape}) must be the same as input size ({input.shape})")
    x, t = binary_values("binary_cross_entropy_with_logits", input, target)
    log_sigmoid = apply(OPS["log_sigmoid"], (x,))
    if pos_weight is not None:
        pw = P.cast(val(pos_weight, "pos_weight"), x.aval.dtype)
        log_sigmoid = P.mul(log_sigmoid, P.add(P.mul(P.sub(pw, 1), t), 1))
    loss = P.sub(P.mul(P.sub(1, t), x), log_sigmoid)
    if weight is not None:
        loss = P.mul(loss, P.cast(val(weight, "weight"), x.aval.dtype))
    return finish(loss, reduction)


# ---------------------------------------------------------------------------------------------------------- regression
def _pair(name: str, input: Tensor, target: Tensor) -> tuple[Value, Value]:
    """Promoted operands; warns, as PyTorch does, when their sizes differ, and broadcasts."""
    if not isinstance(target, Tensor) or target.shape != input.shape:
        shape = target.shape if isinstance(target, Tensor) else Size(val(target, "target").aval.shape)
        warnings.warn(f"Using a target size ({shape}) that is different to the input size ({input.shape}). This will "
                      "likely lead to incorrect results due to broadcasting. Please ensure they have the same size.",
                      stacklevel=3)
    x, t = binary_values(name, input, target)
    if x.aval.dtype.category != 2 and name != "l1_loss":
        raise DTypeError(f'"{name}" not implemented for \'{x.aval.dtype.name}\'; convert with .float() first')
    return x, t


def _weighted(loss: Value, weight: Tensor, input: Tensor, reduction: str, by_weight: bool) -> Any:
    if weight.shape != input.shape:
        raise ArgumentError("Weights and input must have the same size.")
    w = P.cast(val(weight, "weight"), loss.aval.dtype)
    loss = P.mul(loss, w)
    if reduction == "mean" and by_weight:
            return wrap(P.div(P.sum(loss), P.sum(w)))
    return finish(loss, reduction)


def mse_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
             reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """``(x - t)^2``."""
    x, t = _pair("mse_loss", input, target)
    reduction = reduction_name(size_average, reduce, reduction)
    d = P.sub(x, t)
    loss = P.mul(d, d)
    return finish(loss, reduction) if weight is None else _weighted(loss, weight, input, reduction, True)


def l1_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
            reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """``|x - t|``."""
    x, t = _pair("l1_loss", input, target)
    reduction = reduction_name(size_average, reduce, reduction)
    loss = wrap(P.sub(x, t)).abs()._v  # type: ignore[attr-defined]
    return finish(loss, reduction) if weight is None else _weighted(loss, weight, input, reduction, True)


def smooth_l1_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
                   reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """``d^2 / (2 beta)`` where ``|d| < beta``, else ``|d| - beta / 2``; RuntimeError for a negative ``beta``."""
    x, t = _pair("smooth_l1_loss", input, target)
    reduction = reduction_name(size_average, reduce, reduction)
    if beta < 0:
        raise ShapeError("smooth_l1_loss does not support negative values for beta.")
    z = P.abs(P.sub(x, t))
    if beta == 0:
        return finish(z, reduction)
    return finish(P.where(P.lt(z, beta), P.mul(P.mul(z, z), 0.5 / beta), P.sub(z, 0.5 * beta)), reduction)


def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0,
               weight: Tensor | None = None) -> Tensor:
    """``d^2 / 2`` where ``|d| <= delta``, else ``delta (|d| - delta / 2)``; RuntimeError unless ``delta > 0``."""
    x, t = _pair("huber_loss", input, target)
    reduction = reduction_name(None, None, reduction)
    if delta <= 0:
        raise ShapeError("huber_loss does not support non-positive values for delta.")
    z = P.abs(P.sub(x, t))
    loss = P.where(P.le(z, delta), P.mul(P.mul(z, z), 0.5), P.mul(P.sub(z, 0.5 * delta), delta))
    return finish(loss, reduction) if weight is None else _weighted(loss, weight, input, reduction, False)


def _xlogx(t: Value) -> Value:
    """``t log t``, 0 at 0."""
    zero = P.eq(t, 0)
    return P.where(zero, P.zeros_like(t), P.mul(t, P.log(P.where(zero, P.full_like(t, 1), t))))


def kl_div(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
           reduction: str = "mean", log_target: bool = False) -> Tensor:
    """``t (log t - x)`` for log-probabilities ``x``; ``batchmean`` divides the sum by the first size."""
    batch = reduction == "batchmean"
    if reduction == "mean" and size_average is None and reduce is None:
        warnings.warn("reduction: 'mean' divides the total loss by both the batch size and the support size."
                      "'batchmean' divides only by the batch size, and aligns with the KL div math definition."
                      "'mean' will be changed to behave the same as 'batchmean' in the next major release.", stacklevel=2)
    reduction = reduction_name(size_average, reduce, "sum" if batch else reduction)
    x, t = binary_values("kl_div", input, target)
    loss = P.mul(P.exp(t), P.sub(t, x)) if log_target else P.sub(_xlogx(t), P.mul(t, x))
    out = reduced(loss, reduction)
    return wrap(P.div(out, x.aval.shape[0]) if batch and x.aval.ndim else out)


def poisson_nll_loss(input: Tensor, target: Tensor, log_input: bool = True, full: bool = False,
                     size_average: bool | None = None, eps: float = 1e-8, reduce: bool | None = None,
                     reduction: str = "mean") -> Tensor:
    """``exp(x) - t x``, or ``x - t log(x + eps)``; ``full`` adds Stirling's approximation of ``log t!`` for t > 1."""
    reduction = reduction_name(size_average, reduce, reduction)
    x, t = binary_values("poisson_nll_loss", input, target)
    if log_input:
        loss = P.sub(P.exp(x), P.mul(t, x))
    else:
        loss = P.sub(x, P.mul(t, P.log(P.add(x, eps))))
    if full:
        big = P.gt(t, 1)
        safe = P.where(big, t, P.full_like(t, 1))
        log_t = P.log(safe)
        stirling = P.add(P.sub(P.mul(safe, log_t), safe), P.mul(P.add(log_t, math.log(2 * math.pi)), 0.5))
        loss = P.add(loss, P.where(big, stirling, P.zeros_like(stirling)))
    return finish(loss, reduction)


def gaussian_nll_loss(input: Tensor, target: Tensor, var: Tensor | float, full: bool = False, eps: float = 1e-6,
                      reduction: str = "mean") -> Tensor:
    """``(log v + (x - t)^2 / v) / 2`` with ``v = max(var, eps)``, whose clamping is not differentiated.

    ``var`` has input's shape, or lacks the last dimension, or has 1 in one dimension; a negative number raises
    ValueError (the entries of a tensor are not read)."""
    reduction = reduction_name(None, None, reduction)
    x, t = binary_values("gaussian_nll_loss", input, target)
    dt, shape = x.aval.dtype, x.aval.shape
    if isinstance(var, (int, float)):
        if var < 0:
            raise ArgumentError("var has negative entry/entries")
        v = P.expand(P.to_device(number(var, dt), x.aval.device), shape)
    else:
        v = P.cast(val(var, "var"), dt)
        vs = v.aval.shape
        if vs != shape:
            if vs == shape[:-1]:
                v = P.unsqueeze(v, len(vs))
            elif len(vs) != len(shape) or sum(b for a, b in zip(shape, vs) if a != b) != 1:
                raise ArgumentError("var is of incorrect size")
    low = P.lt(v, eps)
    clamped = P.add(v, P.where(low, P.sub(eps, _constant(v)), P.zeros_like(v)))  # value max(v, eps), derivative 1
    d = P.sub(x, t)
    loss = P.mul(P.add(P.log(clamped), P.div(P.mul(d, d), clamped)), 0.5)
    return finish(P.add(loss, 0.5 * math.log(2 * math.pi)) if full else loss, reduction)


def _constant(v: Value) -> Value:
    from ..ir.tape import alias_value

    return alias_value(v) if v.gfn is not None else v
