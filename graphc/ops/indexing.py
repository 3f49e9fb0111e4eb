"""Indexing: ``t[...]`` in full, gather/scatter and their relatives, triangles and diagonals."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import dtypes
from ..dtypes import bool_, int64
from ..errors import AutogradError, DimError, DTypeError, ShapeError
from ..ir import build as P
from ..ir.node import Value
from ..ir.recorder import evaluated
from ..ir.tape import alias_value
from ..tensor import Tensor, from_array, wrap
from ._common import NUMBERS, norm_dim, number, operand, result_dtype, to_dtype, to_out, val


# ------------------------------------------------------------------------------------------------------------- t[...]
class _Plan:
    """An index split into what a view can do and the integer arrays left over."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.stops: list[int] = []
        self.steps: list[int] = []
        self.shape: list[int] = []  # shape after slicing, ints dropped and None inserted
        self.arrays: list[tuple[int, Value]] = []  # (dimension in `shape`, index array)


def _as_index(item: Any) -> Any:
    """Lists and ndarrays as tensors; everything else as it is."""
    if isinstance(item, (list, np.ndarray, range)):
        if isinstance(item, np.ndarray) and item.ndim == 0:
            return item.item()
        from .creation import tensor

        t = tensor(np.asarray(item) if not isinstance(item, list) else item)
        return t.long() if t.numel() == 0 and t.dtype.is_floating_point else t
    if isinstance(item, (np.integer, np.bool_)):
        return item.item()
    return item


def _items(index: Any, ndim: int) -> list[Any]:
    """The index as a list with Ellipsis expanded and trailing slices added."""
    if isinstance(index, list) and any(isinstance(i, (slice, type(None), type(Ellipsis), Tensor, list)) for i in index) \
            and not all(isinstance(i, (list, int)) for i in index):
        index = tuple(index)
    raw = [_as_index(i) for i in (index if isinstance(index, tuple) else (index,))]
    used = 0
    for i in raw:
        if i is None or i is Ellipsis or isinstance(i, bool):
            continue
        used += i.ndim if isinstance(i, Tensor) and i.dtype in (bool_, dtypes.uint8) else 1
    if used > ndim:
        raise DimError(f"too many indices for tensor of dimension {ndim}")
    out: list[Any] = []
    seen = False
    for i in raw:
        if i is Ellipsis:
            if not seen:
                out += [slice(None)] * (ndim - used)
            seen = True
        else:
            out.append(i)
    return out if seen else out + [slice(None)] * (ndim - used)


def _plan(t: Tensor, index: Any) -> _Plan:
    p = _Plan()
    d = 0
    sh = t._v.aval.shape
    for item in _items(index, len(sh)):
        if item is None:
            p.shape.append(1)
        elif isinstance(item, bool):
            p.shape.append(1)
            p.arrays.append((len(p.shape) - 1, from_array(np.zeros(1 if item else 0, np.int64))._v))
        elif isinstance(item, Tensor):
            d = _tensor_item(p, item, d, sh)
        elif isinstance(item, slice):
            start, stop, step = _slice_bounds(item, sh[d])
            _keep(p, start, stop, step)
            p.shape.append(max(0, -(-(stop - start) // step)))
            d += 1
        else:
            k = _int_item(item)
            n = sh[d]
            if not -n <= k < n:
                raise DimError(f"index {k} is out of bounds for dimension {d} with size {n}")
            k %= n
            _keep(p, k, k + 1, 1)
            d += 1
    return p


def _keep(p: _Plan, start: int, stop: int, step: int) -> None:
    p.starts.append(start)
    p.stops.append(stop)
    p.steps.append(step)


def _int_item(item: Any) -> int:
    if isinstance(item, float) or not hasattr(item, "__index__"):
        raise DimError("only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices "
                       f"(got {type(item).__name__})")
    return item.__index__()


def _slice_bounds(s: slice, n: int) -> tuple[int, int, int]:
    parts = [x.item() if isinstance(x, Tensor) else x for x in (s.start, s.stop, s.step)]
    if parts[2] is not None and parts[2] <= 0:
        raise ValueError("step must be greater than zero")
    start, stop, step = slice(*parts).indices(n)
    return start, max(stop, start), step


def _tensor_item(p: _Plan, item: Tensor, d: int, sh: tuple[int, ...]) -> int:
    if item.dtype in (bool_, dtypes.uint8):
        mask_shape = tuple(item.shape)
        if not mask_shape:
            p.shape.append(1)
            p.arrays.append((len(p.shape) - 1, from_array(np.zeros(1 if item.item() else 0, np.int64))._v))
            return d
        for k, m in enumerate(mask_shape):
            if m != sh[d + k]:
                raise DimError(f"The shape of the mask {list(mask_shape)} at index {k} does not match the shape of the "
                               f"indexed tensor {list(sh)} at index {d + k}")
        for k, where in enumerate(np.nonzero(evaluated(item._read()))):
            p.shape.append(sh[d + k])
            _keep(p, 0, sh[d + k], 1)
            p.arrays.append((len(p.shape) - 1, from_array(where.astype(np.int64))._v))
        return d + len(mask_shape)
    if item.dtype.category != 1:
        raise DimError(f"tensors used as indices must be long, int, byte or bool tensors, got {item.dtype.name}")
    v = P.cast(item._read(), int64)
    p.shape.append(sh[d])
    _keep(p, 0, sh[d], 1)
    p.arrays.append((len(p.shape) - 1, v))
    return d + 1


def _basic_view(t: Tensor, p: _Plan) -> Tensor:
    sh = t._v.aval.shape
    if any(a != 0 or b != n or s != 1 for a, b, s, n in zip(p.starts, p.stops, p.steps, sh)):
        t = t._view("slice", (tuple(p.starts), tuple(p.stops), tuple(p.steps)))
    return t._view("reshape", (tuple(p.shape),))


def _linear(shape: Sequence[int], arrays: list[tuple[int, Value]]) -> tuple[list[int], tuple[int, ...], Value]:
    """(indexed dims, broadcast index shape, flat index over the indexed dims with negatives resolved)."""
    from ..ir.infer import broadcast_shapes

    try:
        ishape = broadcast_shapes("index", *[v.aval.shape for _, v in arrays])
    except ShapeError:
        raise DimError("shape mismatch: indexing tensors could not be broadcast together with shapes "
                       + ", ".join(str(list(v.aval.shape)) for _, v in arrays)) from None
    flat: Any = None
    for d, v in arrays:
        v = _resolve(v, shape[d], d)
        flat = v if flat is None else P.add(P.mul(flat, shape[d]), v)
    return [d for d, _ in arrays], ishape, P.expand(flat, ishape)


def _resolve(v: Value, n: int, d: int) -> Value:
    """Index with negatives resolved; out-of-range ones fail when the data is read."""
    table = P.iota(n, int64, v.aval.device)
    return P.take(table, v, 0, True)


def _adjacent(dims: list[int]) -> bool:
    return all(b - a == 1 for a, b in zip(dims, dims[1:]))


def _front(shape: Sequence[int], dims: list[int]) -> tuple[tuple[int, ...], list[int]]:
    """Permutation bringing the indexed dims to the front, and the remaining dims."""
    rest = [i for i in range(len(shape)) if i not in dims]
    return tuple(dims + rest), rest


def getitem(self: Tensor, index: Any) -> Tensor:
    """``self[index]``: a view for ints, slices, None and Ellipsis; a copy when integer arrays or masks take part."""
    if index.__class__ is int and self._v.aval.ndim:
        from .shape import select

        n = self._v.aval.shape[0]
        if not -n <= index < n:
            raise DimError(f"index {index} is out of bounds for dimension 0 with size {n}")
        return select(self, 0, index)
    p = _plan(self, index)
    base = _basic_view(self, p)
    if not p.arrays:
        return base
    return wrap(_advanced_read(base._read(), p.arrays))


def _advanced_read(v: Value, arrays: list[tuple[int, Value]]) -> Value:
    shape = v.aval.shape
    if len(arrays) == 1:
        d, idx = arrays[0]
        return P.take(v, idx, d, True)
    dims, ishape, flat = _linear(shape, arrays)
    perm, rest = _front(shape, dims)
    n = 1
    for d in dims:
        n *= shape[d]
    moved = P.reshape(P.permute(v, perm), (n, *[shape[r] for r in rest]))
    out = P.take(moved, flat, 0)
    if _adjacent(dims) and dims[0]:
        k = len(ishape)
        lead = dims[0]
        order = tuple(range(k, k + lead)) + tuple(range(k)) + tuple(range(k + lead, k + len(rest)))
        out = P.permute(out, order)
    return out


def setitem(self: Tensor, index: Any, value: Any) -> None:
    """``self[index] = value`` with broadcasting; through the view for basic indices."""
    from .convert import copy_, fill_

    single = index if isinstance(index, Tensor) else None
    if single is not None and single.dtype in (bool_, dtypes.uint8) and single.ndim and (
            isinstance(value, NUMBERS) or (isinstance(value, Tensor) and value.ndim == 0)):
        _masked_set(self, single, value)
        return
    p = _plan(self, index)
    base = _basic_view(self, p)
    if not p.arrays:
        if isinstance(value, NUMBERS):
            fill_(base, value)
        else:
            from .shape import reshape

            src = value if isinstance(value, Tensor) else from_array(np.array(value, order="C"))
            extra = src.ndim - base.ndim
            if extra > 0 and all(n == 1 for n in src.shape[:extra]):
                src = reshape(src, tuple(src.shape[extra:]))
            copy_(base, src)
        return
    v = base._read()
    x = operand(value, "setitem")
    new = _advanced_write(v, p.arrays, x, "set")
    base._write(new)


def _masked_set(self: Tensor, mask: Tensor, value: Any) -> None:
    v = self._read()
    m = P.as_bool(mask._read())
    if m.aval.shape != v.aval.shape[:m.aval.ndim]:
        raise DimError(f"The shape of the mask {list(m.aval.shape)} at index 0 does not match the shape of the indexed tensor "
                       f"{list(v.aval.shape)} at index 0")
    m = P.reshape(m, m.aval.shape + (1,) * (v.aval.ndim - m.aval.ndim))
    self._write(P.where(m, to_dtype(operand(value, "setitem"), v.aval.dtype), v))


def _advanced_write(v: Value, arrays: list[tuple[int, Value]], x: Any, mode: str) -> Value:
    from .convert import broadcast_into

    shape = v.aval.shape
    dims, ishape, flat = _linear(shape, arrays)
    perm, rest = _front(shape, dims)
    tail = [shape[r] for r in rest]
    adjacent = _adjacent(dims) and dims[0] > 0
    lead = dims[0] if adjacent else 0
    k = len(ishape)
    want = (*tail[:lead], *ishape, *tail[lead:])
    src = to_dtype(x, v.aval.dtype)
    src = broadcast_into(src, tuple(want), "shape mismatch: value tensor")
    if adjacent:
        src = P.permute(src, tuple(range(lead, lead + k)) + tuple(range(lead)) + tuple(range(lead + k, len(want))))
    n = 1
    for d in dims:
        n *= shape[d]
    moved = P.permute(v, perm)
    flat_base = P.reshape(moved, (n, *tail))
    out = P.take_put(flat_base, flat, src, 0, mode)
    inverse = [0] * len(perm)
    for i, q in enumerate(perm):
        inverse[q] = i
    return P.permute(P.reshape(out, moved.aval.shape), tuple(inverse))


def index_put_(input: Tensor, indices: Sequence[Any], values: Tensor, accumulate: bool = False) -> Tensor:
    """``input[indices] = values`` or ``+= values`` with repeated indices added up."""
    p = _plan(input, tuple(indices))
    base = _basic_view(input, p)
    base._write(_advanced_write(base._read(), p.arrays, val(values), "add" if accumulate else "set"))
    return input


def index_put(input: Tensor, indices: Sequence[Any], values: Tensor, accumulate: bool = False) -> Tensor:
    return index_put_(input.clone(), indices, values, accumulate)


# ----------------------------------------------------------------------------------------------------- by-dim indexing
def _index(t: Any, name: str = "index") -> Value:
    v = val(t, name)
    if v.aval.dtype.category != 1:
        raise DTypeError(f"expected an integer index tensor (int64 or int32), got {v.aval.dtype.name}")
    return v


def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False, out: Tensor | None = None) -> Tensor:
    """out[i][j] = input[index[i][j]][j] for dim 0, and so on."""
    v = val(input)
    return to_out(out, P.gather(v, _index(index), norm_dim(dim, v.aval.ndim)))


_REDUCE = {"add": "add", "multiply": "mul", "sum": "add", "prod": "mul", "amax": "max", "amin": "min"}


def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, value: Any = None, *, reduce: str | None = None,
            out: Tensor | None = None) -> Tensor:
    """Write ``src`` (tensor or number) at ``index`` along ``dim``; ``reduce``: add or multiply."""
    v, idx = val(input), _index(index)
    s = value if src is None else src
    if isinstance(s, Tensor):
        sv = val(s)
        if sv.aval.dtype is not v.aval.dtype:
            raise DTypeError(f"scatter(): Expected self.dtype to be equal to src.dtype, got {v.aval.dtype.name} and "
                             f"{sv.aval.dtype.name}")
    else:
        sv = P.expand(number(s, v.aval.dtype), idx.aval.shape)
    mode = "set" if reduce is None else _REDUCE[reduce]
    return to_out(out, P.scatter(v, idx, sv, norm_dim(dim, v.aval.ndim), mode))


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """Add ``src`` at ``index`` along ``dim``."""
    v = val(input)
    return wrap(P.scatter(v, _index(index), val(src), norm_dim(dim, v.aval.ndim), "add"))


def scatter_reduce(input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *,
                   include_self: bool = True) -> Tensor:
    """Combine ``src`` by sum, prod, mean, amax or amin."""
    v, idx, s = val(input), _index(index), val(src)
    d = norm_dim(dim, v.aval.ndim)
    if reduce not in ("sum", "prod", "mean", "amax", "amin"):
        raise AutogradError(f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}")
    if not include_self:
        identity: Any = {"sum": 0, "mean": 0, "prod": 1}.get(reduce)
        if identity is None:
            info = dtypes.finfo(v.aval.dtype) if v.aval.dtype.is_floating_point else dtypes.iinfo(v.aval.dtype)
            lowest = -np.inf if v.aval.dtype.is_floating_point else info.min
            highest = np.inf if v.aval.dtype.is_floating_point else info.max
            identity = lowest if reduce == "amax" else highest
        v = P.scatter(v, idx, P.expand(P.const(identity, v.aval.dtype), idx.aval.shape), d, "set")
    mode = {"sum": "add", "mean": "add", "prod": "mul", "amax": "max", "amin": "min"}[reduce]
    out = P.scatter(v, idx, s, d, mode)
    if reduce == "mean":
        ones = P.expand(P.const(1, v.aval.dtype), idx.aval.shape)
        start = P.full_like(v, 1 if include_self else 0)
        count = P.maximum(P.scatter(start, idx, ones, d, "add"), 1)
        out = P.div(out, count) if v.aval.dtype.is_floating_point else P.floordiv(out, count)
    return wrap(out)


def index_select(input: Tensor, dim: int, index: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Rows of ``dim`` by a 1-D index."""
    v, idx = val(input), _index(index)
    if idx.aval.ndim > 1:
        raise DimError("index_select(): Index is supposed to be a vector")
    idx = P.reshape(idx, (idx.aval.size,))
    if v.aval.ndim == 0:
        return to_out(out, v)
    return to_out(out, P.take(v, idx, norm_dim(dim, v.aval.ndim)))


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """Add rows of ``source`` at ``index``."""
    v, s = val(input), val(source)
    if alpha != 1:
        s = P.mul(s, number(alpha, s.aval.dtype))
    return wrap(P.take_put(v, _index(index), s, norm_dim(dim, v.aval.ndim), "add"))


def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """Overwrite rows at ``index``."""
    v = val(input)
    return wrap(P.take_put(v, _index(index), val(source), norm_dim(dim, v.aval.ndim), "set"))


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """Fill rows at ``index`` with a number."""
    v, idx = val(input), _index(index)
    d = norm_dim(dim, v.aval.ndim)
    sh = (*v.aval.shape[:d], *idx.aval.shape, *v.aval.shape[d + 1:])
    return wrap(P.take_put(v, idx, P.expand(to_dtype(operand(value, "index_fill"), v.aval.dtype), sh), d, "set"))


def take(input: Tensor, index: Tensor) -> Tensor:
    """Elements of the flattened tensor."""
    v = val(input)
    return wrap(P.take(P.reshape(v, (v.aval.size,)), _index(index), 0, True))


def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """Write into the flattened tensor."""
    v, idx = val(input), _index(index)
    s = P.reshape(val(source), idx.aval.shape)
    flat = P.take_put(P.reshape(v, (v.aval.size,)), idx, s, 0, "add" if accumulate else "set", True)
    return wrap(P.reshape(flat, v.aval.shape))


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """Gather with broadcasting of the other dimensions."""
    v, idx = val(input), _index(indices, "indices")
    if dim is None:
        return wrap(P.gather(P.reshape(v, (v.aval.size,)), P.reshape(idx, (idx.aval.size,)), 0))
    d = norm_dim(dim, v.aval.ndim)
    from ..ir.infer import broadcast_shapes

    a, b = list(v.aval.shape), list(idx.aval.shape)
    n, m = a[d], b[d]
    a[d] = b[d] = 1
    both = list(broadcast_shapes("take_along_dim", tuple(a), tuple(b)))
    va, vb = both.copy(), both.copy()
    va[d], vb[d] = n, m
    return wrap(P.gather(P.expand(v, tuple(va)), P.expand(idx, tuple(vb)), d))


# ---------------------------------------------------------------------------------------------------------------- masks
def where(condition: Tensor, input: Any = None, other: Any = None, *, out: Tensor | None = None) -> Any:
    """``input`` where ``condition`` else ``other``; with one argument, ``nonzero(as_tuple=True)``."""
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    c = val(condition, "condition")
    if c.aval.dtype not in (bool_, dtypes.uint8):
        raise DTypeError(f"where expected condition to be a boolean tensor, but got a tensor with dtype {c.aval.dtype.name}")
    a, b = operand(input, "where"), operand(other, "where")
    dt = result_dtype(a, b)
    return to_out(out, P.where(P.as_bool(c), to_dtype(a, dt), to_dtype(b, dt)))


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """``value`` where ``mask``."""
    v, m = val(input), val(mask, "mask")
    if m.aval.dtype not in (bool_, dtypes.uint8):
        raise DTypeError(f"masked_fill_ only supports boolean masks, but got mask with dtype {m.aval.dtype.name}")
    x = operand(value, "masked_fill")
    if isinstance(x, Value) and x.aval.ndim:
        raise ShapeError(f"masked_fill only supports a 0-dimensional value tensor, but got tensor with {x.aval.ndim} "
                         "dimension(s).")
    return wrap(P.where(P.as_bool(m), to_dtype(x, v.aval.dtype), v))


def masked_select(input: Tensor, mask: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The elements where ``mask``, 1-D (the count is read on the host)."""
    from .shape import broadcast_tensors

    if mask.dtype is not bool_:
        raise DTypeError(f"masked_select: expected BoolTensor for mask, got {mask.dtype.name}")
    a, m = broadcast_tensors(input, mask)
    flat = np.flatnonzero(evaluated(m._read()))
    v = val(a)
    return to_out(out, P.take(P.reshape(v, (v.aval.size,)), from_array(flat.astype(np.int64))._v, 0))


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """Elements of ``source`` in order where ``mask``."""
    v, m = val(input), P.expand(val(mask), input.shape)
    s = val(source)
    flat_m = P.reshape(P.cast(m, int64), (v.aval.size,))
    pos = P.maximum(P.sub(P.scan("add", flat_m, 0), 1), 0)
    picked = P.reshape(P.take(P.reshape(s, (s.aval.size,)), P.minimum(pos, s.aval.size - 1), 0), v.aval.shape)
    return wrap(P.where(m, picked, v))


def nonzero(input: Tensor, *, as_tuple: bool = False, out: Tensor | None = None) -> Any:
    """Indices of nonzero elements (n, ndim), or a tuple of 1-D tensors (evaluates)."""
    found = np.nonzero(np.atleast_1d(evaluated(val(input))) if as_tuple else evaluated(val(input))) \
        if input.ndim or as_tuple else (np.zeros(int(bool(input)), np.int64),)
    if as_tuple:
        return tuple([from_array(np.ascontiguousarray(i, np.int64)) for i in found])
    if not input.ndim:
        return from_array(np.zeros((len(found[0]), 0), np.int64))
    return from_array(np.stack(found, 1).astype(np.int64) if found else np.zeros((0, 0), np.int64))


def argwhere(input: Tensor) -> Tensor:
    return nonzero(input)


# -------------------------------------------------------------------------------------------------- embeddings, one-hot
def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
              norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False) -> Tensor:
    """Rows of ``weight`` (num, dim) by an integer tensor of any shape; the row ``padding_idx`` gets no gradient."""
    idx, w = val(input), val(weight, "weight")
    if idx.aval.dtype.category != 1:
        raise DTypeError("Expected tensor for argument #1 'indices' to have one of the following scalar types: Long, Int; "
                         f"but got {idx.aval.dtype.name} instead (while checking arguments for embedding)")
    if w.aval.ndim != 2:
        raise ShapeError(f"'weight' must be 2-D, got shape {list(w.aval.shape)}")
    if max_norm is not None:
        _renorm_rows(weight, input, max_norm, norm_type)
        w = val(weight)
    if padding_idx is not None and w.gfn is not None:
        n = w.aval.shape[0]
        keep = P.reshape(P.ne(P.iota(n, int64, w.aval.device), padding_idx % n), (n, 1))
        w = P.where(keep, w, alias_value(w))
    out = P.take(w, idx, 0)
    return wrap(_per_frequency(out, idx, w.aval.shape[0]) if scale_grad_by_freq and w.gfn is not None else out)


def _per_frequency(out: Value, idx: Value, n: int) -> Value:
    """``out`` with its gradient divided by how often each index occurs: out0 + (out - out0) / count."""
    flat = P.reshape(idx, (idx.aval.size,))
    dt = out.aval.dtype
    counts = P.take_put(P.full((n,), 0, dt), flat, P.full((idx.aval.size,), 1, dt), 0, "add")
    per = P.unsqueeze(P.take(counts, idx, 0), idx.aval.ndim)
    plain = alias_value(out)
    return P.add(plain, P.div(P.sub(out, plain), per))


def _renorm_rows(weight: Tensor, input: Tensor, max_norm: float, norm_type: float) -> None:
    from ..ir.recorder import state
    from .reduction import norm_value

    before, state.grad = state.grad, False
    try:
        w = val(weight)
        n = norm_value(w, float(norm_type), (1,), True)
        scale = P.where(P.gt(n, max_norm), P.div(max_norm, P.add(n, 1e-7)), P.full_like(n, 1))
        used = P.take_put(P.full((w.aval.shape[0],), 0, dtypes.float32), P.reshape(val(input), (input.numel(),)),
                          P.full((input.numel(),), 1, dtypes.float32), 0, "add")
        scale = P.where(P.reshape(P.gt(used, 0), (w.aval.shape[0], 1)), scale, P.full_like(scale, 1))
        weight._write(P.mul(w, scale))
    finally:
        state.grad = before


def embedding_bag(input: Tensor, weight: Tensor, offsets: Tensor | None = None, max_norm: float | None = None,
                  norm_type: float = 2, scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
                  per_sample_weights: Tensor | None = None, include_last_offset: bool = False,
                  padding_idx: int | None = None) -> Tensor:
    """Sums, means or maxima of bags of embeddings: 2-D ``input`` (bags of equal length) or 1-D with ``offsets``."""
    if input.ndim == 2:
        bags = np.repeat(np.arange(input.shape[0], dtype=np.int64), input.shape[1])
        flat = P.reshape(val(input), (input.numel(),))
        n = input.shape[0]
        per = None if per_sample_weights is None else P.reshape(val(per_sample_weights), (input.numel(),))
    else:
        if offsets is None:
            raise ValueError("offsets has to be a 1D Tensor but got None")
        starts = [int(o) for o in offsets.tolist()]
        ends = starts[1:] + ([] if include_last_offset else [input.shape[0]])
        n = len(ends)
        bags = np.repeat(np.arange(n, dtype=np.int64), [b - a for a, b in zip(starts, ends)]) if n else np.zeros(0, np.int64)
        flat = val(input)
        per = None if per_sample_weights is None else val(per_sample_weights)
    return _bags(flat, bags, n, per, weight, (padding_idx, max_norm, norm_type, scale_grad_by_freq), mode)


def _bags(flat: Value, bags: np.ndarray, n: int, per: Value | None, weight: Tensor, options: Any, mode: str) -> Tensor:
    """Combine the embeddings of ``flat`` indices into ``n`` bags; padding indices take no part."""
    padding_idx, max_norm, norm_type, by_freq = options
    e = val(embedding(wrap(flat), weight, padding_idx, max_norm, norm_type, by_freq))
    dt, width = e.aval.dtype, e.aval.shape[1]
    which = from_array(bags)._v
    used = None
    if padding_idx is not None:
        used = P.unsqueeze(P.ne(flat, padding_idx % weight.shape[0]), 1)
    if mode == "max":
        if used is not None:
            e = P.where(used, e, P.full_like(e, -np.inf))
        out = _bag_max(e, which, n)
        return wrap(P.where(P.isinf(out), P.zeros_like(out), out))
    if per is not None:
        e = P.mul(e, P.unsqueeze(P.cast(per, dt), 1))
    if used is not None:
        e = P.where(used, e, P.zeros_like(e))
    out = P.take_put(P.full((n, width), 0, dt), which, e, 0, "add")
    if mode == "mean":
        ones = P.full((flat.aval.size, 1), 1, dt) if used is None else P.cast(used, dt)
        out = P.div(out, P.maximum(P.take_put(P.full((n, 1), 0, dt), which, ones, 0, "add"), 1))
    return wrap(out)


def _bag_max(e: Value, which: Value, n: int) -> Value:
    """Largest of each bag; equal maxima share the gradient."""
    rows, width = e.aval.shape
    idx = P.expand(P.unsqueeze(which, 1), (rows, width))
    return P.scatter(P.full((n, width), -np.inf, e.aval.dtype), idx, e, 0, "max")


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """int64 (*, num_classes) with a one at each class; -1 reads the largest class on the host."""
    v = val(tensor)
    if v.aval.dtype is not int64:
        raise DTypeError("one_hot is only applicable to index tensor of type LongTensor.")
    if num_classes == -1:
        if v.aval.size == 0:
            raise AutogradError("Can not infer total number of classes from empty tensor.")
        num_classes = int(evaluated(v).max()) + 1
    classes = P.iota(num_classes, int64, v.aval.device)
    hot = P.take(P.cast(P.eq(P.reshape(classes, (num_classes, 1)), classes), int64), v, 0)
    return wrap(hot)


# ------------------------------------------------------------------------------------------------ triangles, diagonals
def _tri_mask(v: Value, diagonal: int, lower: bool) -> Value:
    m, n = v.aval.shape[-2:]
    r = P.reshape(P.iota(m, int64, v.aval.device), (m, 1))
    c = P.reshape(P.iota(n, int64, v.aval.device), (1, n))
    d = P.sub(c, r)
    return P.le(d, diagonal) if lower else P.ge(d, diagonal)


def _tri(input: Tensor, diagonal: int, lower: bool, out: Tensor | None) -> Tensor:
    v = val(input)
    if v.aval.ndim < 2:
        raise ShapeError(f"{'tril' if lower else 'triu'}: input tensor must have at least 2 dimensions")
    return to_out(out, P.where(_tri_mask(v, diagonal, lower), v, P.zeros_like(v)))


def tril(input: Tensor, diagonal: int = 0, *, out: Tensor | None = None) -> Tensor:
    """Lower triangle of matrices."""
    return _tri(input, diagonal, True, out)


def triu(input: Tensor, diagonal: int = 0, *, out: Tensor | None = None) -> Tensor:
    """Upper triangle of matrices."""
    return _tri(input, diagonal, False, out)


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = int64, device: Any = None) -> Tensor:
    """(2, n) indices of the lower triangle."""
    return from_array(np.stack(np.tril_indices(row, offset, col)).astype(dtype.np))


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = int64, device: Any = None) -> Tensor:
    """(2, n) indices of the upper triangle."""
    return from_array(np.stack(np.triu_indices(row, offset, col)).astype(dtype.np))


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonal of two dims as a new last dimension (view)."""
    n = input.ndim
    a, b = norm_dim(dim1, n), norm_dim(dim2, n)
    if a == b:
        raise ShapeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    from .shape import permute, reshape

    rest = [d for d in range(n) if d not in (a, b)]
    t = permute(input, tuple(rest + [a, b]))
    rows, cols = input.shape[a], input.shape[b]
    r0, c0 = max(0, -offset), max(0, offset)
    k = max(0, min(rows - r0, cols - c0))
    lead = tuple([input.shape[d] for d in rest])
    # Element (i, i) of the k x k block sits at stride cols+1: pad a k x k block's rows to length k+1 by slicing a view.
    nl = len(lead)
    block = t._view("slice", ((0,) * nl + (r0, c0), lead + (r0 + k, c0 + k), (1,) * (nl + 2)))
    if k == 0:
        return reshape(block, (*lead, 0))
    if input.is_contiguous() and not rest:
        flat = input._view("reshape", ((rows * cols,),))
        start = r0 * cols + c0
        return flat._view("slice", ((start,), (start + (k - 1) * (cols + 1) + 1,), (cols + 1,)))
    v = block._read()
    idx = P.iota(k, int64)
    flat_v = P.reshape(v, (*lead, k * k))
    return wrap(P.take(flat_v, P.mul(idx, k + 1), nl))


def diag(input: Tensor, diagonal: int = 0, *, out: Tensor | None = None) -> Tensor:
    """Diagonal of a matrix, or a matrix from a vector."""
    if input.ndim == 1:
        return to_out(out, val(diag_embed(input, diagonal)))
    if input.ndim != 2:
        raise ShapeError(f"diag(): Supports 1D or 2D tensors. Got {input.ndim}D")
    return to_out(out, P.add(val(_diagonal(input, diagonal)), 0) if input.dtype is not bool_
                  else val(_diagonal(input, diagonal)))


_diagonal = diagonal


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices with the last dimension on a diagonal."""
    v = val(input)
    n = v.aval.shape[-1]
    size = n + abs(offset)
    nd = v.aval.ndim
    r = P.reshape(P.iota(size, int64), (size, 1))
    c = P.reshape(P.iota(size, int64), (1, size))
    on = P.eq(P.sub(c, r), offset)
    lo, hi = (0, size - n) if offset >= 0 else (size - n, 0)
    padded = P.pad(v, (0,) * (nd - 1) + (lo,), (0,) * (nd - 1) + (hi,))
    m = P.where(on, P.unsqueeze(padded, nd), P.zeros_like(P.unsqueeze(padded, nd)))
    a, b = norm_dim(dim1, nd + 1), norm_dim(dim2, nd + 1)
    out = wrap(m)
    if (a, b) != (nd - 1, nd):
        from .shape import movedim

        out = movedim(out, (nd - 1, nd), (a, b))
    return out


def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    from .shape import reshape

    return diag_embed(reshape(input, (-1,)), offset)


def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """Flat indices as coordinates."""
    v = val(indices)
    out = []
    for n in reversed(tuple(shape)):
        out.append(wrap(P.remainder(v, n)))
        v = P.floordiv(v, n)
    return tuple(reversed(out))


def _in_place(fn: Any, name: str) -> Any:
    from .methods import in_place

    return in_place(fn, name)


def _install() -> None:
    Tensor.__getitem__ = getitem  # type: ignore[method-assign]
    Tensor.__setitem__ = setitem  # type: ignore[method-assign]
    for fn in (scatter, scatter_add, scatter_reduce, index_add, index_copy, index_fill, put, masked_fill, masked_scatter,
               tril, triu):
        setattr(Tensor, fn.__name__ + "_", _in_place(fn, fn.__name__ + "_"))
    Tensor.where = lambda self, condition, other: where(condition, self, other)  # type: ignore[attr-defined]


_install()
