"""Embedding tables, bags of embeddings and one-hot vectors."""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dtypes import int64
from ..errors import AutogradError, DTypeError, ShapeError
from ..ir import build as P
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.recorder import apply, fetched, state
from ..tensor import Tensor, from_array, wrap
from ._common import val


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
              norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False) -> Tensor:
    """Rows of ``weight`` (num, dim) by an integer tensor of any shape; the row ``padding_idx`` gets no gradient.

    ``max_norm`` first rescales the rows used, in place; ``scale_grad_by_freq`` divides a row's gradient by how often it
    was used; ``sparse`` is accepted (gradients are dense).
    """
    idx, w = val(input), val(weight, "weight")
    if idx.aval.dtype.category != 1:
        raise DTypeError("Expected tensor for argument #1 'indices' to have one of the following scalar types: Long, Int; "
                         f"but got {idx.aval.dtype.name} instead (while checking arguments for embedding)")
    if w.aval.ndim != 2:
        raise ShapeError(f"'weight' must be 2-D, got shape {list(w.aval.shape)}")
    n = w.aval.shape[0]
    if padding_idx is not None and not -n <= padding_idx < n:
        raise AssertionError("Padding_idx must be within num_embeddings")
    if max_norm is not None:
        _renorm_rows(weight, idx, max_norm, norm_type)
        w = val(weight)
    return wrap(apply(OPS["embedding"], (w, idx), (-1 if padding_idx is None else padding_idx % n, bool(scale_grad_by_freq))))


def _renorm_rows(weight: Tensor, idx: Value, max_norm: float, norm_type: float) -> None:
    """Scale the rows in use down to a norm of at most ``max_norm``, in place and outside the gradient."""
    from .reduction import norm_value

    before, state.grad = state.grad, False
    try:
        w = val(weight)
        dt, dev, rows = w.aval.dtype, w.aval.device, w.aval.shape[0]
        norm = norm_value(w, float(norm_type), (1,), True)
        used = P.take_put(P.full((rows,), 0, int64, dev), idx, P.full(idx.aval.shape, 1, int64, dev), 0, "add")
        over = P.bit_and(P.reshape(P.gt(used, 0), (rows, 1)), P.gt(norm, max_norm))
        weight._write(P.where(over, P.mul(w, P.div(P.full_like(norm, max_norm), P.add(norm, 1e-7))), w))
        assert w.aval.dtype is dt
    finally:
        state.grad = before


def embedding_bag(input: Tensor, weight: Tensor, offsets: Tensor | None = None, max_norm: float | None = None,
                  norm_type: float = 2, scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
                  per_sample_weights: Tensor | None = None, include_last_offset: bool = False,
                  padding_idx: int | None = None) -> Tensor:
    """Sums, means or maxima of bags of embeddings: 2-D ``input`` (bags of equal length) or 1-D with ``offsets``."""
    if mode not in ("sum", "mean", "max"):
        raise ValueError("mode has to be one of sum, mean or max")
    if per_sample_weights is not None and mode != "sum":
        raise NotImplementedError("embedding_bag: per_sample_weights was not None. per_sample_weights is only supported for "
                                  f"mode='sum' (got mode='{mode}'). Please open a feature request on GitHub.")
    if per_sample_weights is not None and per_sample_weights.shape != input.shape:
        raise ValueError(f"embedding_bag: If per_sample_weights ({tuple(per_sample_weights.shape)}) is not None, then it must "
                         f"have the same shape as the input ({tuple(input.shape)})")
    if input.ndim == 2:
        if offsets is not None:
            raise ValueError("if input is 2D, then offsets has to be None, as input is treated is a mini-batch of fixed "
                             "length sequences.")
        n = input.shape[0]
        bags = np.repeat(np.arange(n, dtype=np.int64), input.shape[1])
    elif input.ndim == 1:
        bags, n = _bags_from_offsets(input.shape[0], offsets, include_last_offset)
    else:
        raise ValueError(f"input has to be 1D or 2D Tensor, but got Tensor of dimension {input.ndim}")
    flat = P.reshape(val(input), (input.numel(),))
    per = None if per_sample_weights is None else P.reshape(val(per_sample_weights), (input.numel(),))
    return _bags(flat, bags, n, per, weight, (padding_idx, max_norm, norm_type, scale_grad_by_freq), mode)


def _bags_from_offsets(size: int, offsets: Tensor | None, include_last: bool) -> tuple[np.ndarray, int]:
    """The bag of every index, and the number of bags. Reads ``offsets``."""
    if offsets is None:
        raise ValueError("offsets has to be a 1D Tensor but got None")
    if offsets.ndim != 1:
        raise ValueError("offsets has to be a 1D Tensor")
    starts = np.asarray(fetched(val(offsets)), np.int64)
    if starts.size and starts[0] != 0:
        raise AutogradError(f"offsets[0] has to be 0, i.e., the first sequence in the mini-batch has to start from position 0. "
                            f"However, got {starts[0]}")
    if starts.size and starts[-1] > size:
        raise AutogradError(f"offsets[-1] can not be greater than input's length({size}) but got offsets[-1] of {starts[-1]}")
    ends = starts[1:] if include_last else np.append(starts[1:], size)
    n = len(ends)
    return np.repeat(np.arange(n, dtype=np.int64), ends - starts[:n]), n


def _bags(flat: Value, bags: np.ndarray, n: int, per: Value | None, weight: Tensor, options: Any, mode: str) -> Tensor:
    """Combine the embeddings of ``flat`` indices into ``n`` bags; padding indices take no part."""
    padding_idx, max_norm, norm_type, by_freq = options
    e = val(embedding(wrap(flat), weight, padding_idx, max_norm, norm_type, by_freq))
    dt, width = e.aval.dtype, e.aval.shape[1]
    which = from_array(bags, dev=e.aval.device)._v
    used = None
    if padding_idx is not None:
        used = P.unsqueeze(P.ne(flat, padding_idx % weight.shape[0]), 1)
    if mode == "max":
        if used is not None:
            e = P.where(used, e, P.full_like(e, -math.inf))
        out = _bag_max(e, which, n)
        return wrap(P.where(P.isinf(out), P.zeros_like(out), out))
    if per is not None:
        e = P.mul(e, P.unsqueeze(P.cast(per, dt), 1))
    if used is not None:
        e = P.where(used, e, P.zeros_like(e))
    out = P.take_put(P.full((n, width), 0, dt, e.aval.device), which, e, 0, "add")
    if mode == "mean":
        ones = P.full((flat.aval.size, 1), 1, dt, e.aval.device) if used is None else P.cast(used, dt)
        out = P.div(out, P.maximum(P.take_put(P.full((n, 1), 0, dt, e.aval.device), which, ones, 0, "add"), 1))
    return wrap(out)


def _bag_max(e: Value, which: Value, n: int) -> Value:
    """Largest of each bag; equal maxima share the gradient."""
    rows, width = e.aval.shape
    base = P.full((n, width), -math.inf, e.aval.dtype, e.aval.device)
    if rows == 0:
        return base
    return apply(OPS["scatter_reduce"], (base, P.expand(P.unsqueeze(which, 1), (rows, width)), e), (0, "max"))


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """int64 (*, num_classes) with a one at each class; -1 reads the largest class on the host."""
    v = val(tensor, "tensor")
    if v.aval.dtype is not int64:
        raise DTypeError("one_hot is only applicable to index tensor of type LongTensor.")
    if num_classes == -1:
        if v.aval.size == 0:
            raise AutogradError("Can not infer total number of classes from empty tensor.")
        arr = fetched(v)
        if arr.min() < 0:
            raise AutogradError("Class values must be non-negative.")
        num_classes = int(arr.max()) + 1
    elif num_classes < 1 and v.aval.size == 0 or num_classes < -1:
        raise AutogradError("Can not infer total number of classes from empty tensor.")
    classes = P.iota(num_classes, int64, v.aval.device)
    checked = P.take(classes, v, 0)  # a class out of range fails when the result is read
    return wrap(P.cast(P.eq(P.unsqueeze(checked, v.aval.ndim), classes), int64))
