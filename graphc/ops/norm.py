"""Normalisation functions with PyTorch's names and signatures. Formulas: ``graphc/ir/composites/norm.py``."""
from __future__ import annotations

import math
from typing import Any

from .. import dtypes
from ..errors import ArgumentError, DTypeError, ShapeError
from ..ir import build as P
from ..ir.composites._common import acc_dtype, wide
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.recorder import apply, state
from ..tensor import Tensor, wrap
from ._common import norm_dims, number, to_out, val


def _optional(t: Tensor | None, name: str) -> tuple[Value, ...]:
    return () if t is None else (val(t, name),)


def _affine(weight: Tensor | None, bias: Tensor | None) -> tuple[Value, ...]:
    if weight is not None is not bias:
        return val(weight, "weight"), val(bias, "bias")
    return (*_optional(weight, "weight"), *_optional(bias, "bias"))


# ----------------------------------------------------------------------------------------------------- layer and RMS
def _normalized(name: str, input: Value, shape: Any, *params: tuple[str, Tensor | None]) -> int:
    """Number of trailing axes; checks them and the parameters against ``normalized_shape``."""
    dims = (shape,) if isinstance(shape, int) else tuple([int(d) for d in shape])
    if not dims:
        raise ShapeError("Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one element, "
                         "but got normalized_shape = []")
    for what, t in params:
        if t is not None and t._v.aval.shape != dims:
            raise ShapeError(f"Expected {what} to be of same shape as normalized_shape, but got {what} of shape "
                             f"{list(t.shape)} and normalized_shape = {list(dims)}")
    have = input.aval.shape
    if len(have) < len(dims) or have[len(have) - len(dims):] != dims:
        star = ", ".join(["*", *map(str, dims)])
        raise ShapeError(f"Given normalized_shape={list(dims)}, expected input with shape [{star}], but got input of "
                         f"size{list(have)} ({name})")
    return len(dims)


def layer_norm(input: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5) -> Tensor:
    """Layer norm over the trailing ``normalized_shape``; statistics in float32 for 16-bit inputs."""
    x, params = val(input), _affine(weight, bias)
    have = x.aval.shape
    n = 1  # in the usual case
    if not have or normalized_shape != have[-1:] or [v for v in params if v.aval.shape != normalized_shape]:
        n = _normalized("layer_norm", x, normalized_shape, ("weight", weight), ("bias", bias))
    return wrap(apply(OPS["layer_norm"], (x, *params), (n, eps, weight is not None, bias is not None)))


def rms_norm(input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """``x / sqrt(mean(x^2) + eps) * weight``; ``eps`` defaults to the machine epsilon of the accumulation dtype."""
    x = val(input)
    n = _normalized("rms_norm", x, normalized_shape, ("weight", weight))
    if eps is None:
        eps = dtypes.finfo(acc_dtype(x.aval.dtype)).eps
    return wrap(apply(OPS["rms_norm"], (x, *_optional(weight, "weight")), (n, eps, weight is not None)))


def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5) -> Tensor:
    """Group norm of ``(N, C, ...)``; ``C`` must be divisible by ``num_groups``."""
    x = val(input)
    if x.aval.ndim < 2:
        raise ShapeError(f"Expected at least 2 dimensions for input tensor but received {x.aval.ndim}")
    c = x.aval.shape[1]
    if num_groups <= 0 or c % num_groups:
        raise ShapeError(f"Expected number of channels in input to be divisible by num_groups, but got input of shape "
                         f"{list(x.aval.shape)} and num_groups={num_groups}")
    _check_channels(c, ("weight", weight), ("bias", bias))
    attrs = (num_groups, eps, weight is not None, bias is not None)
    return wrap(apply(OPS["group_norm"], (x, *_affine(weight, bias)), attrs))


# ------------------------------------------------------------------------------------------------- batch and instance
def _check_channels(c: int, *tensors: tuple[str, Tensor | None]) -> None:
    for what, t in tensors:
        if t is not None and t.numel() != c:
            raise ShapeError(f"{what} should contain {c} elements not {t.numel()}")


def _values_per_channel(shape: tuple[int, ...]) -> None:
    n = shape[0] * math.prod(shape[2:])
    if n == 1:
        raise ArgumentError(f"Expected more than 1 value per channel when training, got input size torch.Size({list(shape)})")


def _blend(stat: Tensor, new: Value, momentum: float) -> None:
    """``stat = (1 - momentum) * stat + momentum * new`` in place, outside the gradient."""
    dt = stat.dtype
    old = stat._read()
    m = number(momentum, dt)
    stat._write(P.add(P.mul(old, P.sub(1, m)), P.mul(P.cast(new, dt), m)))


def _update_running(mean: Tensor | None, var: Tensor | None, batch_mean: Value, batch_var: Value, n: int,
                    momentum: float) -> None:
    """Running statistics take the unbiased variance (n / (n - 1) of the biased one)."""
    before, state.grad = state.grad, False
    try:
        if mean is not None:
            _blend(mean, batch_mean, momentum)
        if var is not None:
            _blend(var, P.mul(batch_var, n / max(n - 1, 1)), momentum)
    finally:
        state.grad = before


def batch_norm(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
               bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    """Batch norm of ``(N, C, ...)`` over all axes but the channels.

    In training the batch's own statistics are used and the running ones, if given, are updated in place.
    Raises ValueError for a single value per channel in training, RuntimeError for sizes that do not fit.
    """
    x = val(input)
    if training:
        _values_per_channel(x.aval.shape)
    elif running_mean is None or running_var is None:
        raise ShapeError("Expected running_mean and running_var to be defined when training=False")
    if x.aval.ndim < 2:
        raise ShapeError(f"batch_norm expects input of at least 2 dimensions (N, C, ...), got shape {x.aval.shape}")
    _check_channels(x.aval.shape[1], ("running_mean", running_mean), ("running_var", running_var), ("weight", weight),
                    ("bias", bias))
    attrs = (eps, weight is not None, bias is not None)
    params = _affine(weight, bias)
    if not training:
        assert running_mean is not None and running_var is not None
        return wrap(apply(OPS["batch_norm_eval"], (x, running_mean._read(), running_var._read(), *params), attrs))
    y, mean, var = apply(OPS["batch_norm_train"], (x, *params), attrs)
    if running_mean is not None or running_var is not None:
        n = x.aval.size // max(x.aval.shape[1], 1)
        _update_running(running_mean, running_var, mean, var, n, momentum)
    return wrap(y)


def instance_norm(input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
                  weight: Tensor | None = None, bias: Tensor | None = None, use_input_stats: bool = True,
                  momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    """Each channel of each sample by its own statistics; running statistics are updated with their batch mean."""
    x = val(input)
    shape = x.aval.shape
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if len(shape) < 3:
        raise ShapeError(f"instance_norm expects input of at least 3 dimensions (N, C, ...), got shape {shape}")
    if math.prod(shape[2:]) == 1:
        raise ArgumentError("Expected more than 1 spatial element when training, got input size "
                            f"torch.Size({list(shape)})")
    _check_channels(shape[1], ("running_mean", running_mean), ("running_var", running_var), ("weight", weight),
                    ("bias", bias))
    attrs = (shape[1], eps, weight is not None, bias is not None)
    y = apply(OPS["group_norm"], (x, *_affine(weight, bias)), attrs)  # one group per channel
    if running_mean is not None or running_var is not None:
        _update_instance(x, running_mean, running_var, momentum)
    return wrap(y)


def _update_instance(x: Value, mean: Tensor | None, var: Tensor | None, momentum: float) -> None:
    from ..ir.composites.norm import stats

    before, state.grad = state.grad, False
    try:
        n = math.prod(x.aval.shape[2:])
        m, v, _ = stats(P.cast(x, acc_dtype(x.aval.dtype)), tuple(range(2, x.aval.ndim)), 0.0)
        c = (x.aval.shape[0], x.aval.shape[1])
        batch = [P.div(P.sum(P.reshape(s, c), (0,)), c[0]) for s in (m, v)]
        _update_running(mean, var, batch[0], batch[1], n, momentum)
    finally:
        state.grad = before


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """``x / (k + alpha * mean over `size` neighbouring channels of x^2) ** beta`` for ``(N, C, ...)``."""
    x = val(input)
    nd = x.aval.ndim
    if nd < 3:
        raise ArgumentError(f"Expected 3D or higher dimensionality                          input (got {nd} dimensions)")
    if not x.aval.size:
        return input
    lo, hi = [0] * nd, [0] * nd
    lo[1], hi[1] = size // 2, (size - 1) // 2
    padded = P.pad(P.mul(x, x), tuple(lo), tuple(hi))
    mean = P.div(P.sum(P.window(padded, (1,), (size,), (1,), (1,)), (nd,)), size)
    dt = x.aval.dtype
    return wrap(P.div(x, P.pow(P.add(P.mul(mean, alpha), k), P.const(beta, dt))))


# ------------------------------------------------------------------------------------------------------------ p-norms
def p_norm(x: Value, p: float, axes: tuple[int, ...], keepdim: bool) -> Value:
    """``sum(|x|^p)^(1/p)`` with gradient 0 where the norm is 0; ``p`` may be infinite or 0."""
    w = wide(x)
    if w is not x:  # powers need not fit 16 bits
        return P.cast(p_norm(w, p, axes, keepdim), x.aval.dtype)
    if p == math.inf or p == -math.inf:
        return P.reduce("max" if p > 0 else "min", P.abs(x), axes, keepdim)
    if p == 0:
        return P.sum(P.cast(P.ne(x, 0), x.aval.dtype), axes, keepdim)
    if p == 1:
        return P.sum(P.abs(x), axes, keepdim)
    powers = P.mul(x, x) if p == 2 else _abs_pow(x, p)
    total = P.sum(powers, axes, keepdim)
    zero = P.eq(total, 0)
    safe = P.where(zero, P.full_like(total, 1), total)
    root = P.sqrt(safe) if p == 2 else P.pow(safe, P.const(1 / p, x.aval.dtype))
    return P.where(zero, P.zeros_like(root), root)


def _abs_pow(x: Value, p: float) -> Value:
    """``|x|^p`` with gradient 0 at 0 whatever p > 0."""
    zero = P.eq(x, 0)
    safe = P.where(zero, P.full_like(x, 1), P.abs(x))
    return P.where(zero, P.zeros_like(x), P.pow(safe, P.const(p, x.aval.dtype)))


def at_least(x: Value, low: float) -> Value:
    """``clamp_min``: NaN stays, the gradient passes where ``x >= low``."""
    return P.where(P.lt(x, low), P.full_like(x, low), x)


def normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Tensor | None = None) -> Tensor:
    """``x / max(norm_p(x), eps)`` along ``dim``."""
    x = val(input)
    if x.aval.dtype.category < 2:
        raise DTypeError(f"linalg.vector_norm: Expected a floating point or complex tensor as input. Got "
                         f"{x.aval.dtype.name}")
    axes = norm_dims(dim, x.aval.ndim)
    return to_out(out, P.div(x, at_least(p_norm(x, float(p), axes, True), eps)))
