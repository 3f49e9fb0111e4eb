"""Indexing: ``t[...]`` and ``t[...] = value`` in full. The other families of indexing are in ``_index_*.py``, re-exported.

An index is split in two: what a view can do (ints, slices, None, Ellipsis) becomes a chain of movement ops on the tensor,
so that reads alias it and writes go through; integer arrays and masks are read from, or written into, that view.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..device import CPU, device
from ..dtypes import bool_, int64, uint8
from ..errors import DeviceError, DimError, DTypeError, ShapeError
from ..ir import build as P
from ..ir.infer import broadcast_shapes
from ..ir.node import Value
from ..ir.prims.movement import slice_length
from ..ir.recorder import fetched
from ..ir.recorder import state as recording
from ..tensor import Tensor, from_array, wrap
from ..views import Alias, Storage
from . import _index_diagonal, _index_dim, _index_mask
from ._common import NUMBERS, operand, to_dtype, val
from ._index_diagonal import diag, diag_embed, diagflat, diagonal, tril, tril_indices, triu, triu_indices
from ._index_dim import (
    gather,
    index_add,
    index_copy,
    index_fill,
    index_reduce,
    index_select,
    put,
    scatter,
    scatter_add,
    scatter_reduce,
    take,
    take_along_dim,
    unravel_index,
)
from ._index_embedding import embedding, embedding_bag, one_hot
from ._index_mask import argwhere, masked_fill, masked_scatter, masked_select, nonzero, where
from .joining import select

__all__ = [
    "argwhere", "diag", "diag_embed", "diagflat", "diagonal", "embedding", "embedding_bag", "gather", "getitem", "index_add",
    "index_copy", "index_fill", "index_put", "index_put_", "index_reduce", "index_select", "masked_fill", "masked_scatter",
    "masked_select", "nonzero", "one_hot", "put", "scatter", "scatter_add", "scatter_reduce", "setitem", "take",
    "take_along_dim", "tril", "tril_indices", "triu", "triu_indices", "unravel_index", "where"]

Arrays = list[tuple[int, Value]]  # (dimension, integer index array)


# ------------------------------------------------------------------------------------------------- reading the index
class _Plan:
    """An index split into what a view can do and the arrays and masks left over."""

    __slots__ = ("starts", "stops", "steps", "shape", "arrays", "masks")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.stops: list[int] = []
        self.steps: list[int] = []
        self.shape: list[int] = []  # of the view: after slicing, with ints dropped and None inserted
        self.arrays: Arrays = []  # dimensions of `shape`
        self.masks: Arrays = []  # bool; a mask of m dimensions covers m of `shape` from the given one

    def keep(self, start: int, stop: int, step: int = 1) -> None:
        """Slice the next dimension of the tensor."""
        self.starts.append(start)
        self.stops.append(stop)
        self.steps.append(step)

    def index_arrays(self, where: device) -> Arrays:
        """The arrays in order of dimension, masks turned into one array per dimension (reads the masks), on the device of the
        indexed tensor."""
        out = [(d, v if v.aval.device is where else _moved_index(v, where)) for d, v in self.arrays]
        for d, m in self.masks:
            if m.aval.device is not where:
                _moved_index(m, where)
            out += [(d + k, from_array(i.astype(np.int64), dev=where)._v) for k, i in enumerate(np.nonzero(fetched(m)))]
        return sorted(out, key=lambda pair: pair[0])


def _moved_index(v: Value, where: device) -> Value:
    """An index on the indexed tensor's device: one on the host may index everything."""
    if v.aval.device is not CPU:
        raise DeviceError(f"indices should be either on cpu or on the same device as the indexed tensor ({where})")
    return P.to_device(v, where)


def _as_index(item: Any) -> Any:
    """Lists, ranges and ndarrays as tensors, NumPy scalars as Python's; everything else as it is."""
    if isinstance(item, (np.integer, np.bool_)) or isinstance(item, np.ndarray) and item.ndim == 0:
        return item.item()
    if isinstance(item, (list, range, np.ndarray)) or isinstance(item, tuple):
        from .creation import tensor

        t = tensor(list(item) if isinstance(item, (range, tuple)) else item)
        return t.long() if t.numel() == 0 and t.dtype.is_floating_point else t
    return item


def _means_tuple(index: list[Any]) -> bool:
    """PyTorch's old rule: a short list holding sequences, tensors, slices, None or ... stands for a tuple of indices."""
    return len(index) < 32 and any(i is None or i is Ellipsis or isinstance(i, (Tensor, list, tuple, slice, np.ndarray))
                                   for i in index)


def _is_mask(item: Any) -> bool:
    return isinstance(item, Tensor) and item.dtype in (bool_, uint8)


def _items(index: Any, ndim: int) -> list[Any]:
    """The index as a list with Ellipsis expanded and trailing slices added."""
    if isinstance(index, list) and _means_tuple(index):
        index = tuple(index)
    raw = [_as_index(i) for i in (index if isinstance(index, tuple) else (index,))]
    used = 0
    for i in raw:
        if not (i is None or i is Ellipsis or isinstance(i, bool)):
            used += i.ndim if _is_mask(i) else 1
    if used > ndim:
        raise DimError(f"too many indices for tensor of dimension {ndim}")
    out: list[Any] = []
    missing = ndim - used
    for i in raw:
        if i is Ellipsis:  # PyTorch lets a second one stand for nothing
            out += [slice(None)] * missing
            missing = 0
        else:
            out.append(i)
    return out + [slice(None)] * missing


def _plan(t: Tensor, index: Any) -> _Plan:
    p = _Plan()
    d = 0
    sh = t._v.aval.shape
    if not sh and isinstance(index, int) and not isinstance(index, bool):
        raise DimError("invalid index of a 0-dim tensor. Use `tensor.item()` in Python or `tensor.item<T>()` in C++ to convert "
                       "a 0-dim tensor to a number")
    for item in _items(index, len(sh)):
        if item is None:
            p.shape.append(1)
        elif isinstance(item, bool):
            p.masks.append((len(p.shape), from_array(np.array([item]))._v))
            p.shape.append(1)
        elif isinstance(item, Tensor):
            d = _tensor_item(p, item, d, sh)
        elif isinstance(item, slice):
            start, stop, step = _slice_bounds(item, sh[d])
            p.keep(start, stop, step)
            p.shape.append(slice_length(start, stop, step))
            d += 1
        else:
            k = _in_range(_int_item(item), d, sh[d])
            p.keep(k, k + 1)
            d += 1
    return p


def _int_item(item: Any) -> int:
    if isinstance(item, str):
        raise TypeError(f"a tensor cannot be indexed by the string {item!r}")
    if isinstance(item, float) or not hasattr(item, "__index__"):
        raise DimError("only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices "
                       f"(got {type(item).__name__})")
    return item.__index__()


def _in_range(k: int, d: int, n: int) -> int:
    """The index ``k`` of dimension ``d``, of size ``n``, counted from the front."""
    if not -n <= k < n:
        raise DimError(f"index {k} is out of bounds for dimension {d} with size {n}")
    return k % n


def _slice_bounds(s: slice, n: int) -> tuple[int, int, int]:
    start, stop, step = [x.item() if isinstance(x, Tensor) else x for x in (s.start, s.stop, s.step)]
    if step is not None and step <= 0:
        raise ValueError(f"step must be greater than zero (got {step}); use flip() to reverse a dimension")
    start, stop, step = slice(start, stop, step).indices(n)
    return start, max(stop, start), step


def _tensor_item(p: _Plan, item: Tensor, d: int, sh: tuple[int, ...]) -> int:
    """Enter an index tensor; returns the next dimension of the tensor."""
    if item.dtype not in (bool_, uint8):
        if item.dtype.category != 1:
            raise DimError(f"tensors used as indices must be long, int, byte or bool tensors, got {item.dtype.name}")
        if not (item.ndim or recording.hold or recording.tracing or item.is_meta):  # a number: what it selects is a view
            k = _in_range(int(item.item()), d, sh[d])
            p.keep(k, k + 1)
            return d + 1
        p.arrays.append((len(p.shape), P.cast(item._read(), int64)))
        p.shape.append(sh[d])
        p.keep(0, sh[d])
        return d + 1
    mask = P.as_bool(item._read())
    p.masks.append((len(p.shape), mask if mask.aval.ndim else P.reshape(mask, (1,))))
    if not mask.aval.ndim:  # a zero-dim mask is a new dimension of 0 or 1 elements
        p.shape.append(1)
        return d
    for k, m in enumerate(mask.aval.shape):
        n = sh[d + k]
        if m != n:
            raise DimError(f"The shape of the mask {list(mask.aval.shape)} at index {k} does not match the shape of the "
                           f"indexed tensor {list(sh)} at index {d + k}")
        p.shape.append(n)
        p.keep(0, n)
    return d + mask.aval.ndim


def _basic_view(t: Tensor, p: _Plan) -> Tensor:
    sh, shape = t._v.aval.shape, tuple(p.shape)
    if all(a == 0 and b == n and s == 1 for a, b, s, n in zip(p.starts, p.stops, p.steps, sh)):
        return t._view("reshape", (shape,))
    kept = tuple([slice_length(a, b, s) for a, b, s in zip(p.starts, p.stops, p.steps)])
    more = () if kept == shape else (("reshape", (shape,)),)
    return t._view("slice", (tuple(p.starts), tuple(p.stops), tuple(p.steps)), *more)


# ------------------------------------------------------------------------------------------------------- index arrays
class _Layout:
    """Where the dimensions of an advanced index go.

    ``flat`` indexes the indexed dimensions ``dims`` of the view as one; ``perm`` brings them to the front, ``tail`` are the
    sizes of the others. In the result the index dimensions stand after ``lead`` others: in place of the indexed ones when
    these are neighbours (zero-dim indices, like ints, do not count), in front otherwise.
    """

    def __init__(self, shape: tuple[int, ...], arrays: Arrays):
        try:
            self.index_shape = broadcast_shapes("index", *[v.aval.shape for _, v in arrays])
        except ShapeError:
            raise DimError("shape mismatch: indexing tensors could not be broadcast together with shapes "
                           + ", ".join(str(list(v.aval.shape)) for _, v in arrays)) from None
        self.dims = [d for d, _ in arrays]
        rest = [d for d in range(len(shape)) if d not in self.dims]
        self.perm = tuple(self.dims + rest)
        self.tail = tuple([shape[d] for d in rest])
        self.size = math.prod([shape[d] for d in self.dims])
        wide = [d for d, v in arrays if v.aval.ndim]
        between = [d for d in rest if wide and wide[0] < d < wide[-1]]
        self.lead = 0 if between or not wide else sum(d < wide[0] for d in rest)
        self.flat = P.expand(_flat_index(shape, arrays), self.index_shape)


def _flat_index(shape: tuple[int, ...], arrays: Arrays) -> Value:
    """The arrays as one index over the product of their dimensions, negatives resolved.

    Out-of-range indices fail when the result is read: looking them up in 0..n-1 checks them.
    """
    flat: Any = None
    for d, v in arrays:
        n = shape[d]
        table = P.reshape(P.iota(n, int64, v.aval.device), (1,) * d + (n,))
        v = P.reshape(P.take(table, v, d, True), v.aval.shape)
        flat = v if flat is None else P.add(P.mul(flat, n), v)
    return flat


def _read_arrays(v: Value, arrays: Arrays) -> Value:
    """``v[arrays]``."""
    if len(arrays) == 1:
        return P.take(v, arrays[0][1], arrays[0][0], True)
    at = _Layout(v.aval.shape, arrays)
    out = P.take(P.reshape(P.permute(v, at.perm), (at.size, *at.tail)), at.flat, 0)
    k, lead = len(at.index_shape), at.lead
    return P.permute(out, tuple(range(k, k + lead)) + tuple(range(k)) + tuple(range(k + lead, k + len(at.tail))))


def _write_arrays(v: Value, arrays: Arrays, x: Any, mode: str, same_dtype: bool) -> Value:
    """``v`` with ``v[arrays] = x`` (or ``+=``, by ``mode``). ``same_dtype``: a tensor ``x`` is not converted."""
    at = _Layout(v.aval.shape, arrays)
    if same_dtype:
        _require_dtype(x, v)
    k, lead = len(at.index_shape), at.lead
    want = (*at.tail[:lead], *at.index_shape, *at.tail[lead:])
    src = _broadcast_value(_beside(to_dtype(x, v.aval.dtype), v), want)
    src = P.permute(src, tuple(range(lead, lead + k)) + tuple(range(lead)) + tuple(range(lead + k, len(want))))
    moved = P.permute(v, at.perm)
    out = P.take_put(P.reshape(moved, (at.size, *at.tail)), at.flat, src, 0, mode)
    inverse = [0] * len(at.perm)
    for i, q in enumerate(at.perm):
        inverse[q] = i
    return P.permute(P.reshape(out, moved.aval.shape), tuple(inverse))


def _beside(x: Value, v: Value) -> Value:
    """A number of the host goes along to the device of ``v``."""
    return x if x.aval.ndim else P.to_device(x, v.aval.device)


def _broadcast_value(v: Value, shape: tuple[int, ...]) -> Value:
    have = v.aval.shape
    lead = len(have) - len(shape)
    if lead > 0 and all(d == 1 for d in have[:lead]):
        v = P.reshape(v, have[lead:])
    try:
        return P.expand(v, shape)
    except ShapeError:
        raise ShapeError(f"shape mismatch: value tensor of shape {list(have)} cannot be broadcast to indexing result of shape "
                         f"{list(shape)}") from None


# ------------------------------------------------------------------------------------------------------------- t[...]
def getitem(self: Tensor, index: Any) -> Tensor:
    """``self[index]``: a view for ints, slices, None and Ellipsis; a copy when integer arrays or masks take part."""
    if index.__class__ is int and self._v.aval.ndim:
        return select(self, 0, _in_range(index, 0, self._v.aval.shape[0]))
    p = _plan(self, index)
    base = _basic_view(self, p)
    if not p.arrays and not p.masks:
        return base
    arrays = p.index_arrays(base.device)
    out = wrap(_read_arrays(base._read(), arrays))
    if not p.masks and not any([v.aval.ndim for _, v in arrays]):
        out._alias = Alias(_LateSelection(base, arrays), (), False)
    return out


class _LateSelection(Storage):
    """What numbers that are not known yet select, inside a compiled function: a view, like what known ones select, so writes go
    through to ``base`` and reads after its writes select anew."""

    __slots__ = ("base", "arrays")

    def __init__(self, base: Tensor, arrays: Arrays):
        self.base, self.arrays = base, arrays

    @property
    def value(self) -> Value:  # type: ignore[override]
        return _read_arrays(self.base._read(), self.arrays)

    @value.setter
    def value(self, new: Value) -> None:
        self.base._write(_write_arrays(self.base._read(), self.arrays, new, "set", same_dtype=True))

    @property
    def version(self) -> int:  # type: ignore[override]
        return self.base._base_alias().storage.version

    @version.setter
    def version(self, count: int) -> None:
        """The base counts."""

    def restore(self, old: Value) -> None:
        """The base is restored."""


def setitem(self: Tensor, index: Any, value: Any) -> None:
    """``self[index] = value`` with broadcasting; through the view for basic indices.

    One mask with a value that does not depend on how many elements it selects is a ``where``, so nothing is read.
    """
    if not isinstance(value, (Tensor, np.ndarray, *NUMBERS)):
        raise TypeError(f"can't assign a {type(value).__name__} to a {self.type()}")
    if isinstance(index, bool):
        if index:
            setitem(self, None, value)
        return
    if index.__class__ is int and self._v.aval.ndim:
        _assign(select(self, 0, _in_range(index, 0, self._v.aval.shape[0])), value)
        return
    p = _plan(self, index)
    base = _basic_view(self, p)
    if not p.arrays and not p.masks:
        _assign(base, value)
        return
    x = operand(value, "setitem")
    v = base._read()
    new = _masked_write(v, p, x) if len(p.masks) == 1 and not p.arrays else None
    if new is None:
        wide = p.masks or any(i.aval.ndim for _, i in p.arrays)
        new = _write_arrays(v, p.index_arrays(v.aval.device), x, "set", same_dtype=bool(wide))
    base._write(new)


def _masked_write(v: Value, p: _Plan, x: Any) -> Value | None:
    """``v[mask] = x`` as a ``where``; None when ``x`` has a dimension for the selected elements."""
    d, m = p.masks[0]
    tail = v.aval.ndim - d - m.aval.ndim
    if isinstance(x, Value):
        if x.aval.size == 1:
            x = P.reshape(x, ())
        elif x.aval.ndim > tail:
            return None
        else:
            _require_dtype(x, v)
    src = _broadcast_value(_beside(to_dtype(x, v.aval.dtype), v), v.aval.shape[v.aval.ndim - tail:])
    return P.where(P.reshape(m, m.aval.shape + (1,) * tail), src, v)


def _require_dtype(x: Any, v: Value) -> None:
    if isinstance(x, Value) and x.aval.dtype is not v.aval.dtype:
        raise DTypeError(f"Index put requires the source and destination dtypes match, got {v.aval.dtype.name} for the "
                         f"destination and {x.aval.dtype.name} for the source. Convert the value with .to().")


def _assign(view: Tensor, value: Any) -> None:
    from .convert import copy_, fill_

    if isinstance(value, NUMBERS):
        fill_(view, value)
    else:
        copy_(view, value)


def index_put_(input: Tensor, indices: Sequence[Any], values: Tensor, accumulate: bool = False) -> Tensor:
    """``input[indices] = values``, or ``+= values`` with repeated indices added up. None in ``indices`` means all."""
    if not isinstance(indices, (tuple, list)):
        raise TypeError(f"index_put_(): argument 'indices' must be tuple of Tensors, not {type(indices).__name__}")
    p = _plan(input, tuple([slice(None) if i is None else i for i in indices]))
    base = _basic_view(input, p)
    mode = "add" if accumulate else "set"
    base._write(_write_arrays(base._read(), p.index_arrays(base.device), val(values, "values"), mode, same_dtype=True))
    return input


def index_put(input: Tensor, indices: Sequence[Any], values: Tensor, accumulate: bool = False) -> Tensor:
    """A copy of ``input`` with ``values`` put in; see :func:`index_put_`."""
    return index_put_(input.clone(), indices, values, accumulate)


def _install() -> None:
    from .methods import in_place, install_family

    Tensor.__getitem__ = getitem  # type: ignore[method-assign]
    Tensor.__setitem__ = setitem  # type: ignore[method-assign]
    for fn in (scatter, scatter_add, scatter_reduce, index_add, index_copy, index_fill, index_reduce, put, masked_fill,
               masked_scatter, tril, triu):
        setattr(Tensor, fn.__name__ + "_", in_place(fn, fn.__name__ + "_"))
    for module in (_index_dim, _index_mask, _index_diagonal):
        install_family(module, [n for n in __all__ if getattr(module, n, None) is not None and n != "where"
                                and getattr(module, n).__module__ == module.__name__ and not n.endswith("_indices")])
    Tensor.where = lambda self, condition, other: where(condition, self, other)  # type: ignore[attr-defined]


_install()
