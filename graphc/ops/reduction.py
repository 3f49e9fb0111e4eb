"""Reductions: sums, means, extremes, variance, norms, tests."""
from __future__ import annotations

import math
from typing import Any

from .. import dtypes
from ..dtypes import bool_, dtype, int64
from ..errors import ArgumentError, AutogradError, DimError, DTypeError
from ..ir import build as P
from ..ir.composites._common import wide
from ..ir.node import Value
from ..tensor import Tensor, wrap
from ._common import binary_values, float_value, norm_dim, norm_dims, numpy_names, result, to_out, val
from ._named import named_result as _named_result

max_result = _named_result("max", ["values", "indices"])
min_result = _named_result("min", ["values", "indices"])
aminmax_result = _named_result("aminmax", ["min", "max"])


def _sum_dtype(v: Value, dt: dtype | None) -> Value:
    if dt is not None:
        return P.cast(v, dt)
    return P.cast(v, int64) if v.aval.dtype.category < 2 else v


@numpy_names
def sum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: dtype | None = None,
        out: Tensor | None = None) -> Tensor:
    """Sum over ``dim`` (default all). Integers and bool sum to int64."""
    v = _sum_dtype(val(input), dtype)
    return to_out(out, P.reduce("add", v, norm_dims(dim, v.aval.ndim), keepdim))


@numpy_names
def nansum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: dtype | None = None) -> Tensor:
    """Sum treating NaN as zero."""
    v = val(input)
    return sum(wrap(P.where(P.isnan(v), P.zeros_like(v), v)), dim, keepdim, dtype=dtype)


def _count(v: Value, axes: tuple[int, ...]) -> int:
    return math.prod([v.aval.shape[a] for a in axes])


def mean_value(v: Value, axes: tuple[int, ...], keepdim: bool) -> Value:
    """Mean at the level of Values; an empty mean is NaN. 16-bit floats are summed and divided in float32: neither the sum nor
    the count need fit them."""
    n = _count(v, axes)
    s = P.reduce("add", wide(v), axes, keepdim)
    return P.cast(P.div(s, float(n)) if n else P.mul(s, math.nan), v.aval.dtype)


@numpy_names
def mean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: dtype | None = None,
         out: Tensor | None = None) -> Tensor:
    """Mean over ``dim`` (default all); needs a floating dtype."""
    v = val(input)
    if dtype is not None:
        v = P.cast(v, dtype)
    if v.aval.dtype.category < 2:
        raise DTypeError("mean(): could not infer output dtype. Input dtype must be either a floating point or complex "
                         f"dtype. Got: {v.aval.dtype.name.capitalize()}")
    return to_out(out, mean_value(v, norm_dims(dim, v.aval.ndim), keepdim))


@numpy_names
def nanmean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: dtype | None = None,
            out: Tensor | None = None) -> Tensor:
    """Mean over the elements that are not NaN."""
    v = val(input) if dtype is None else P.cast(val(input), dtype)
    if v.aval.dtype.category < 2:
        raise DTypeError(f"nanmean(): expected a floating point or complex dtype, got {v.aval.dtype.name}")
    axes = norm_dims(dim, v.aval.ndim)
    ok = P.logical_not(P.isnan(v))
    s = P.reduce("add", wide(P.where(ok, v, P.zeros_like(v))), axes, keepdim)
    return to_out(out, P.cast(P.div(s, P.reduce("add", P.cast(ok, s.aval.dtype), axes, keepdim)), v.aval.dtype))


@numpy_names
def prod(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: dtype | None = None) -> Tensor:
    """Product over ``dim`` (default all). Integers and bool multiply to int64."""
    v = _sum_dtype(val(input), dtype)
    return to_out(None, P.reduce("mul", v, norm_dims(dim, v.aval.ndim), keepdim))


def _extreme(kind: str, input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    v = val(input)
    axes = norm_dims(dim, v.aval.ndim)
    if v.aval.dtype is bool_:
        return wrap(P.reduce("any" if kind == "max" else "all", v, axes, keepdim))
    return wrap(P.reduce(kind, v, axes, keepdim))


@numpy_names
def amax(input: Tensor, dim: Any = (), keepdim: bool = False, *, out: Tensor | None = None) -> Tensor:
    """Largest over ``dim``; equal maxima share the gradient."""
    return to_out(out, _extreme("max", input, dim, keepdim)._v)


@numpy_names
def amin(input: Tensor, dim: Any = (), keepdim: bool = False, *, out: Tensor | None = None) -> Tensor:
    """Smallest over ``dim``."""
    return to_out(out, _extreme("min", input, dim, keepdim)._v)


def _max_min(kind: str, names: Any, input: Tensor, dim: Any, keepdim: bool, out: Any) -> Any:
    v = val(input)
    if dim is None:
        if v.aval.size == 0:
            raise AutogradError(f"{kind}(): Expected reduction dim to be specified for input.numel() == 0. Specify the "
                                "reduction dim with the 'dim' argument.")
        return to_out(out, _extreme(kind, input, None, False)._v)
    if isinstance(dim, Tensor):
        from .pointwise import maximum, minimum

        return (maximum if kind == "max" else minimum)(input, dim, out=out)
    d = norm_dim(dim, v.aval.ndim)
    if v.aval.ndim == 0:
        values, indices = v, P.full((), 0, int64, v.aval.device)
    else:
        plain = P.cast(v, dtypes.uint8) if v.aval.dtype is bool_ else v
        indices = P.argreduce(kind, plain, d)
        idx = P.unsqueeze(indices, d)
        values = P.reshape(P.gather(v, idx, d), indices.aval.shape)
        if keepdim:
            values, indices = P.unsqueeze(values, d), idx
    if out is not None:
        return names(to_out(out[0], values), to_out(out[1], indices))
    return names(wrap(result(values)), wrap(indices))


@numpy_names
def max(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None, out: Any = None) -> Any:
    """Largest element, (values, indices) along ``dim``, or the elementwise maximum with a tensor."""
    return _max_min("max", max_result, input, dim if other is None else other, keepdim, out)


@numpy_names
def min(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None, out: Any = None) -> Any:
    """Smallest element, (values, indices) along ``dim``, or the elementwise minimum with a tensor."""
    return _max_min("min", min_result, input, dim if other is None else other, keepdim, out)


@numpy_names
def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False, out: Any = None) -> Any:
    """(min, max)."""
    low, high = amin(input, dim, keepdim), amax(input, dim, keepdim)
    if out is not None:
        low, high = to_out(out[0], low._read()), to_out(out[1], high._read())
    return aminmax_result(low, high)


def _arg(kind: str, input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    v = val(input)
    if v.aval.dtype is bool_:
        raise DTypeError(f"\"arg{kind}\" not implemented for 'Bool'")
    if dim is None:
        if v.aval.size == 0:
            raise DimError(f"arg{kind}(): Expected reduction dim to be specified for input.numel() == 0. Specify the "
                           "reduction dim with the 'dim' argument.")
        r = P.argreduce(kind, P.reshape(v, (v.aval.size,)), 0)
        return wrap(P.reshape(r, (1,) * v.aval.ndim) if keepdim else r)
    d = norm_dim(dim, v.aval.ndim)
    if v.aval.ndim == 0:
        return wrap(P.full((), 0, int64, v.aval.device))
    r = P.argreduce(kind, v, d)
    return wrap(P.unsqueeze(r, d) if keepdim else r)


@numpy_names
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Index of the largest element (of the flattened tensor without ``dim``)."""
    return _arg("max", input, dim, keepdim)


@numpy_names
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Index of the smallest element."""
    return _arg("min", input, dim, keepdim)


@numpy_names
def any(input: Tensor, dim: Any = None, keepdim: bool = False, *, out: Tensor | None = None) -> Tensor:
    """Whether any element is nonzero (uint8 stays uint8, as in PyTorch)."""
    v = val(input)
    r = P.reduce("any", P.as_bool(v), norm_dims(dim, v.aval.ndim, empty_is_all=False), keepdim)
    return to_out(out, P.cast(r, dtypes.uint8) if v.aval.dtype is dtypes.uint8 else r)


@numpy_names
def all(input: Tensor, dim: Any = None, keepdim: bool = False, *, out: Tensor | None = None) -> Tensor:
    """Whether all elements are nonzero."""
    v = val(input)
    r = P.reduce("all", P.as_bool(v), norm_dims(dim, v.aval.ndim, empty_is_all=False), keepdim)
    return to_out(out, P.cast(r, dtypes.uint8) if v.aval.dtype is dtypes.uint8 else r)


@numpy_names
def count_nonzero(input: Tensor, dim: Any = None, *dims: int) -> Tensor:
    """Number of nonzero elements over ``dim`` (all without; several as a tuple or one after the other)."""
    dim = (dim, *dims) if dims else dim
    v = P.as_bool(val(input))
    return wrap(P.reduce("add", P.cast(v, int64), norm_dims(dim, v.aval.ndim)))


# ---------------------------------------------------------------------------------------------- variance and norms
def var_value(v: Value, axes: tuple[int, ...], correction: float, keepdim: bool) -> tuple[Value, Value]:
    """(variance, mean) by the two-pass formula; both with ``keepdim`` applied."""
    n, dt = _count(v, axes), v.aval.dtype
    v = wide(v)
    m = mean_value(v, axes, True)
    d = P.sub(v, m)
    s = P.reduce("add", P.mul(d, d), axes, keepdim)
    dof = n - correction
    var = P.div(s, float(dof)) if dof > 0 else P.div(s, 0.0)
    if not keepdim:
        m = P.reshape(m, var.aval.shape)
    return P.cast(var, dt), P.cast(m, dt)


def _var_args(dim: Any, unbiased: Any, correction: Any) -> tuple[Any, float]:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is not None:
        return dim, correction
    return dim, 1.0 if unbiased in (None, True) else 0.0


def _var(name: str, input: Tensor, dim: Any, unbiased: Any, keepdim: bool, correction: Any) -> tuple[Value, Value]:
    v = val(input)
    if v.aval.dtype.category < 2:
        raise DTypeError(f"{name}: expected input to be floating point or complex, got {v.aval.dtype.name}")
    d, c = _var_args(dim, unbiased, correction)
    return var_value(v, norm_dims(d, v.aval.ndim), c, keepdim)


@numpy_names
def var(input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None,
        out: Tensor | None = None) -> Tensor:
    """Variance with Bessel's ``correction`` (default 1)."""
    return to_out(out, _var("var", input, dim, unbiased, keepdim, correction)[0])


def _root(var: Value) -> Value:
    """Standard deviation; the gradient where it is 0 is 0."""
    if var.gfn is None:
        return P.sqrt(var)
    zero = P.eq(var, 0)
    return P.where(zero, P.zeros_like(var), P.sqrt(P.where(zero, P.full_like(var, 1), var)))


@numpy_names
def std(input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None,
        out: Tensor | None = None) -> Tensor:
    """Standard deviation with Bessel's ``correction`` (default 1)."""
    return to_out(out, _root(_var("std", input, dim, unbiased, keepdim, correction)[0]))


@numpy_names
def var_mean(input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *,
             correction: Any = None) -> tuple[Tensor, Tensor]:
    """(variance, mean)."""
    v, m = _var("var_mean", input, dim, unbiased, keepdim, correction)
    return wrap(v), wrap(m)


@numpy_names
def std_mean(input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *,
             correction: Any = None) -> tuple[Tensor, Tensor]:
    """(standard deviation, mean)."""
    v, m = _var("std_mean", input, dim, unbiased, keepdim, correction)
    return wrap(_root(v)), wrap(m)


@numpy_names
def logsumexp(input: Tensor, dim: Any = None, keepdim: bool = False, *, out: Tensor | None = None) -> Tensor:
    """log of the sum of exponentials, without overflow."""
    v = float_value(input)
    axes = norm_dims(dim, v.aval.ndim)
    if _count(v, axes) == 0:
        return to_out(out, P.log(P.reduce("add", v, axes, keepdim)))
    from ..ir.recorder import state

    grad, state.grad = state.grad, False  # the shift cancels in the derivative
    try:
        m = P.reduce("max", v, axes, True)
        m = P.where(P.isinf(m), P.zeros_like(m), m)
    finally:
        state.grad = grad
    s = P.log(P.reduce("add", P.exp(P.sub(v, m)), axes, True))
    s = P.add(s, P.cast(m, s.aval.dtype))  # under autocast exp and log are wider than m
    if not keepdim:
        s = P.reshape(s, tuple([d for i, d in enumerate(v.aval.shape) if i not in axes]))
    return to_out(out, s)


def norm_value(v: Value, p: float, axes: tuple[int, ...], keepdim: bool) -> Value:
    """Vector p-norm of a Value; the gradient of the 2-norm at 0 is 0."""
    w = wide(v)
    if w is not v:  # powers need not fit 16 bits
        return P.cast(norm_value(w, p, axes, keepdim), v.aval.dtype)
    a = P.abs(v)
    if p == math.inf:
        return P.reduce("max", a, axes, keepdim)
    if p == -math.inf:
        return P.reduce("min", a, axes, keepdim)
    if p == 0:
        count = P.cast(P.ne(v, 0), v.aval.dtype)
        never = P.full(v.aval.shape, False, bool_, v.aval.device)  # depends on v with gradient zero, as in PyTorch
        return P.reduce("add", count if v.gfn is None else P.where(never, v, count), axes, keepdim)
    if p == 1:
        return P.reduce("add", a, axes, keepdim)
    if p == 2:
        s = P.reduce("add", P.mul(v, v), axes, keepdim)
        zero = P.eq(s, 0)
        return P.where(zero, P.zeros_like(s), P.sqrt(P.where(zero, P.full_like(s, 1), s)))
    zero = P.eq(v, 0)  # neither an element nor a norm of 0 has a gradient, whatever p
    powers = P.pow(P.where(zero, P.full_like(a, 1), a), float(p))
    s = P.reduce("add", P.where(zero, P.full_like(a, 0.0 if p > 0 else math.inf), powers), axes, keepdim)
    none = P.eq(s, 0)
    return P.where(none, P.full_like(s, 0.0 if p > 0 else math.inf), P.pow(P.where(none, P.full_like(s, 1), s), 1.0 / p))


def vector_norm(x: Tensor, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: dtype | None = None,
                out: Tensor | None = None) -> Tensor:
    """``linalg.vector_norm``: (sum |x|^ord)^(1/ord)."""
    v = val(x)
    if dtype is not None:
        v = P.cast(v, dtype)
    if v.aval.dtype.category < 2:
        raise DTypeError(f"linalg.vector_norm: Expected a floating point or complex tensor as input. Got {v.aval.dtype.name}")
    return to_out(out, norm_value(v, ord, norm_dims(dim, v.aval.ndim), keepdim))


@numpy_names
def norm(input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, out: Tensor | None = None,
         dtype: dtype | None = None) -> Tensor:
    """Vector norm over ``dim`` (default all); ``p="fro"`` is the 2-norm."""
    if p is None or p == "fro":
        p = 2
    if p == "nuc":
        from .linalg_norm import matrix_norm

        return matrix_norm(input, "nuc", keepdim=keepdim)
    if isinstance(p, str):
        raise ArgumentError(f"norm: unknown p {p!r}; use a number, 'fro' or 'nuc'")
    return vector_norm(input, float(p), dim, keepdim, dtype=dtype, out=out)


def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """p-norm of ``input - other``."""
    d = P.sub(*binary_values("dist", input, other))
    return wrap(norm_value(d, float(p), tuple(range(d.aval.ndim)), False))


def _cum(kind: str, input: Tensor, dim: int, dt: dtype | None) -> Value:
    v = _sum_dtype(val(input), dt)
    d = norm_dim(dim, v.aval.ndim)
    return v if v.aval.ndim == 0 else P.scan(kind, v, d)


@numpy_names
def cumsum(input: Tensor, dim: int, *, dtype: dtype | None = None, out: Tensor | None = None) -> Tensor:
    """Running sum along ``dim``."""
    return to_out(out, _cum("add", input, dim, dtype))


@numpy_names
def cumprod(input: Tensor, dim: int, *, dtype: dtype | None = None, out: Tensor | None = None) -> Tensor:
    """Running product along ``dim``."""
    return to_out(out, _cum("mul", input, dim, dtype))


@numpy_names
def logcumsumexp(input: Tensor, dim: int, *, out: Tensor | None = None) -> Tensor:
    """Running logsumexp along ``dim``."""
    v = float_value(input)
    if v.aval.ndim == 0:
        return to_out(out, v)
    d = norm_dim(dim, v.aval.ndim)
    return to_out(out, P.scan("logaddexp", v, d))


def trace(input: Tensor) -> Tensor:
    """Sum of the main diagonal of a matrix."""
    v = val(input)
    if v.aval.ndim != 2:
        raise AutogradError(f"trace: expected a matrix, but got tensor with dim {v.aval.ndim}")
    from .indexing import diagonal

    return sum(diagonal(input))
