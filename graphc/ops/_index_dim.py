"""Indexing along one dimension: gather, scatter, index_select and their relatives."""
from __future__ import annotations

import math
from typing import Any

from .. import dtypes
from ..dtypes import bool_
from ..errors import ArgumentError, AutogradError, DimError, DTypeError, ShapeError
from ..ir import build as P
from ..ir.infer import broadcast_shapes
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.recorder import apply
from ..tensor import Tensor, wrap
from ._common import norm_dim, number, operand, to_dtype, to_out, val


def index_value(t: Any, fn: str) -> Value:
    """The Value of an index argument; RuntimeError unless it is an integer tensor."""
    v = val(t, "index")
    if v.aval.dtype.category != 1:
        raise DTypeError(f"{fn}(): Expected dtype int32/int64 for index, got {v.aval.dtype.name}")
    return v


def _same_dtype(fn: str, v: Value, s: Value, what: str = "src") -> None:
    if s.aval.dtype is not v.aval.dtype:
        raise DTypeError(f"{fn}(): Expected self.dtype to be equal to {what}.dtype, got {v.aval.dtype.name} and "
                         f"{s.aval.dtype.name}")


# ----------------------------------------------------------------------------------------- an index for every element
def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False, out: Tensor | None = None) -> Tensor:
    """``out[i][j] = input[index[i][j]][j]`` for dim 0, and so on; the result has the shape of ``index``."""
    v, idx = val(input), index_value(index, "gather")
    d = norm_dim(dim, v.aval.ndim)
    if idx.aval.size == 0:
        return to_out(out, P.reshape(P.narrow(P.reshape(v, (v.aval.size,)), 0, 0, 0), idx.aval.shape))
    if (v.aval.ndim, idx.aval.ndim) in ((0, 1), (1, 0)):  # a number is a vector of one element
        y = P.gather(P.reshape(v, (v.aval.size,)), P.reshape(idx, (idx.aval.size,)), 0)
        return to_out(out, P.reshape(y, idx.aval.shape))
    return to_out(out, P.gather(v, idx, d))


_MODES = {"add": "add", "multiply": "mul", "sum": "add", "mean": "add", "prod": "mul", "amax": "max", "amin": "min",
          "max": "max", "min": "min"}


def _combine(v: Value, idx: Value, s: Value, d: int, mode: str) -> Value:
    """scatter by ``mode``; an empty index changes nothing whatever the shapes."""
    if idx.aval.size == 0:
        return v
    if mode in ("set", "add"):
        return P.scatter(v, idx, s, d, mode)
    if v.aval.ndim == 0:
        flat = [P.reshape(x, (x.aval.size,)) for x in (v, idx, s)]
        return P.reshape(apply(OPS["scatter_reduce"], tuple(flat), (0, mode)), ())
    return apply(OPS["scatter_reduce"], (v, idx, s), (d, mode))


def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, value: Any = None, *, reduce: str | None = None,
            out: Tensor | None = None) -> Tensor:
    """``input`` with ``src`` (tensor or number) written at ``index`` along ``dim``; ``reduce``: add or multiply.

    Repeated indices: the last one in memory order wins.
    """
    v, idx = val(input), index_value(index, "scatter")
    s = value if src is None else src
    if isinstance(s, Tensor):
        sv = val(s)
        _same_dtype("scatter", v, sv)
    else:
        sv = P.expand(P.to_device(number(s, v.aval.dtype), v.aval.device), idx.aval.shape)
    if reduce not in (None, "add", "multiply"):
        raise AutogradError(f"reduce argument must be either add or multiply, got {reduce!r}; scatter_reduce has the others")
    return to_out(out, _combine(v, idx, sv, norm_dim(dim, v.aval.ndim), "set" if reduce is None else _MODES[reduce]))


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor, *, out: Tensor | None = None) -> Tensor:
    """``input`` with ``src`` added at ``index`` along ``dim``; repeated indices add up in order."""
    v, idx, s = val(input), index_value(index, "scatter"), val(src, "src")
    _same_dtype("scatter", v, s)
    return to_out(out, _combine(v, idx, s, norm_dim(dim, v.aval.ndim), "add"))


def _identity(reduce: str, dt: dtypes.dtype) -> Any:
    """What leaves the other operand of a reduction as it is."""
    if reduce in ("sum", "mean"):
        return 0
    if reduce == "prod":
        return 1
    if dt is bool_:
        return reduce in ("amin", "min")
    if dt.is_floating_point:
        return -math.inf if reduce in ("amax", "max") else math.inf
    info = dtypes.iinfo(dt)
    return info.min if reduce in ("amax", "max") else info.max


def _reduced(v: Value, idx: Value, s: Value, d: int, reduce: str, include_self: bool) -> Value:
    dt, shape = v.aval.dtype, idx.aval.shape
    if not include_self:
        v = P.scatter(v, idx, P.full(shape, _identity(reduce, dt), dt, v.aval.device), d, "set")
    out = _combine(v, idx, s, d, _MODES[reduce])
    if reduce != "mean":
        return out
    start = P.full_like(v, int(include_self))
    count = P.maximum(P.scatter(start, idx, P.full(shape, 1, dt, v.aval.device), d, "add"), 1)
    return P.div(out, count) if dt.is_floating_point else P.floordiv(out, count)


def scatter_reduce(input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True,
                   out: Tensor | None = None) -> Tensor:
    """``input`` with ``src`` combined in at ``index`` by sum, prod, mean, amax or amin.

    Without ``include_self`` the elements that are written forget their old value first.
    """
    v, idx, s = val(input), index_value(index, "scatter_reduce"), val(src, "src")
    if reduce not in ("sum", "prod", "mean", "amax", "amin", "max", "min"):
        raise AutogradError(f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}")
    _same_dtype("scatter", v, s)
    d = norm_dim(dim, v.aval.ndim)
    return to_out(out, v if idx.aval.size == 0 else _reduced(v, idx, s, d, reduce, include_self))


# --------------------------------------------------------------------------------------------- a vector of indices
def _vector(t: Any, fn: str) -> Value:
    idx = index_value(t, fn)
    if idx.aval.ndim > 1:
        raise DimError(f"{fn}(): Index is supposed to be a vector, but got dim: {idx.aval.ndim}")
    return P.reshape(idx, (idx.aval.size,))


def index_select(input: Tensor, dim: int, index: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Slices of ``dim`` by a 1-D index."""
    v, idx = val(input), _vector(index, "index_select")
    d = norm_dim(dim, v.aval.ndim)
    if v.aval.ndim == 0:
        if idx.aval.size != 1:
            raise DimError(f"index_select(): Index to scalar can have only 1 value, got {idx.aval.size} value(s)")
        return to_out(out, P.reshape(P.take(P.reshape(v, (1,)), idx, 0), ()))
    return to_out(out, P.take(v, idx, d))


def _rows(fn: str, input: Tensor, dim: int, index: Tensor, source: Tensor) -> tuple[Value, Value, Value, int]:
    """Checked operands of index_add and index_copy; zero-dim tensors as vectors of one element."""
    v, idx, s = val(input), _vector(index, fn), val(source, "source")
    if s.aval.dtype is not v.aval.dtype:
        raise DTypeError(f"{fn}(): self and source expected to have the same dtype, but got (self) {v.aval.dtype.name} and "
                         f"(source) {s.aval.dtype.name}")
    d = norm_dim(dim, v.aval.ndim)
    if v.aval.ndim == 0:
        v = P.reshape(v, (1,))
    want = (*v.aval.shape[:d], idx.aval.size, *v.aval.shape[d + 1:])
    if s.aval.ndim == 0 and math.prod(want) == 1:
        s = P.reshape(s, want)
    if s.aval.shape != want:
        error = DimError if fn == "index_copy" else ShapeError
        raise error(f"{fn}(): source of shape {list(s.aval.shape)} does not fit: an index of {idx.aval.size} elements on "
                    f"dimension {d} of {list(v.aval.shape)} needs {list(want)}")
    return v, idx, s, d


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1, out: Tensor | None = None) -> Tensor:
    """``input`` with ``alpha`` times the slices of ``source`` added at ``index``; repeated indices add up."""
    v, idx, s, d = _rows("index_add", input, dim, index, source)
    if alpha.__class__ is not int or alpha != 1:
        s = P.mul(s, number(alpha, s.aval.dtype))
    return to_out(out, P.reshape(P.take_put(v, idx, s, d, "add"), tuple(input.shape)))


def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor, *, out: Tensor | None = None) -> Tensor:
    """``input`` with the slices at ``index`` replaced by those of ``source``."""
    v, idx, s, d = _rows("index_copy", input, dim, index, source)
    return to_out(out, P.reshape(P.take_put(v, idx, s, d, "set"), tuple(input.shape)))


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """``input`` with the slices at ``index`` filled with a number or zero-dim tensor."""
    v, idx = val(input), _vector(index, "index_fill")
    d = norm_dim(dim, v.aval.ndim)
    x = operand(value, "index_fill")
    if isinstance(x, Value) and x.aval.ndim:
        raise ShapeError("index_fill_ only supports a 0-dimensional value tensor, but got tensor with "
                         f"{x.aval.ndim} dimension(s).")
    base = v if v.aval.ndim else P.reshape(v, (1,))
    sh = (*base.aval.shape[:d], idx.aval.size, *base.aval.shape[d + 1:])
    filler = P.expand(P.to_device(to_dtype(x, v.aval.dtype), v.aval.device), sh)
    return wrap(P.reshape(P.take_put(base, idx, filler, d, "set"), v.aval.shape))


def index_reduce(input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True) -> Tensor:
    """``input`` with the slices of ``source`` combined in at ``index`` by prod, mean, amax or amin."""
    if reduce not in ("prod", "mean", "amax", "amin"):
        raise AutogradError(f"index_reduce(): Expected reduce to be one of prod, mean, amax or amin but got {reduce}.")
    v, idx, s, d = _rows("index_reduce", input, dim, index, source)
    if idx.aval.size == 0:
        return wrap(P.reshape(v, tuple(input.shape)))
    rows = P.reshape(idx, tuple([idx.aval.size if i == d else 1 for i in range(s.aval.ndim)]))
    out = _reduced(v, P.expand(rows, s.aval.shape), s, d, reduce, include_self)
    return wrap(P.reshape(out, tuple(input.shape)))


# ------------------------------------------------------------------------------------------------ the flattened tensor
def take(input: Tensor, index: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Elements of the flattened tensor; negative indices count from the end."""
    v, idx = val(input), index_value(index, "take")
    return to_out(out, P.take(P.reshape(v, (v.aval.size,)), idx, 0, True))


def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """``input`` with ``source`` written to (or added at) indices of the flattened tensor."""
    v, idx, s = val(input), index_value(index, "put"), val(source, "source")
    _same_dtype("put", v, s, "source")
    if s.aval.size != idx.aval.size:
        raise ShapeError(f"put_(): Expected source and index to have the same number of elements, but got source.numel() = "
                         f"{s.aval.size}, index.numel() = {idx.aval.size}")
    s = P.reshape(s, idx.aval.shape)
    flat = P.take_put(P.reshape(v, (v.aval.size,)), idx, s, 0, "add" if accumulate else "set", True)
    return wrap(P.reshape(flat, v.aval.shape))


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None, *, out: Tensor | None = None) -> Tensor:
    """:func:`gather` with broadcasting of the other dimensions (``dim=None``: of the flattened tensors)."""
    v, idx = val(input), index_value(indices, "take_along_dim")
    if dim is None:
        flat = P.gather(P.reshape(v, (v.aval.size,)), P.reshape(idx, (idx.aval.size,)), 0)
        return to_out(out, flat)
    d = norm_dim(dim, v.aval.ndim)
    if v.aval.ndim != idx.aval.ndim:
        raise ShapeError("torch.take_along_dim(): input and indices should have the same number of dimensions, but got "
                         f"{v.aval.ndim} dimensions for input, and {idx.aval.ndim} dimensions for indices")
    a, b = list(v.aval.shape), list(idx.aval.shape)
    n, m = a[d], b[d]
    idx = P.where(P.lt(idx, 0), P.add(idx, n), idx)  # unlike gather, this one counts from the end too
    a[d] = b[d] = 1
    both = broadcast_shapes("take_along_dim", tuple(a), tuple(b))
    va, vb = both[:d] + (n,) + both[d + 1:], both[:d] + (m,) + both[d + 1:]
    return to_out(out, P.gather(P.expand(v, va), P.expand(idx, vb), d))


def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """Flat indices as one tensor of coordinates per dimension of ``shape``."""
    v = index_value(indices, "unravel_index")
    dims = (shape,) if isinstance(shape, int) else tuple(shape)
    if any(n < 0 for n in dims):
        raise ArgumentError(f"torch.unravel_index(): the shape must not have negative dimensions, got {dims}")
    out = []
    for n in reversed(dims):
        out.append(wrap(P.remainder(v, n)))
        v = P.floordiv(v, n)
    return tuple(reversed(out))
