"""Selecting by boolean masks: where, masked_*, nonzero."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..device import device
from ..dtypes import bool_, int64, uint8
from ..errors import DTypeError, ShapeError
from ..ir import build as P
from ..ir.infer import broadcast_shapes, common_device
from ..ir.node import Value
from ..ir.recorder import fetched
from ..tensor import Tensor, from_array, wrap
from ._common import convertible, number, operand, result_dtype, to_dtype, to_out, val


def where(condition: Tensor, input: Any = None, other: Any = None, *, out: Tensor | None = None) -> Any:
    """``input`` where ``condition`` (bool) else ``other``, broadcast; with one argument, ``nonzero(as_tuple=True)``."""
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    c = val(condition, "condition")
    if c.aval.dtype not in (bool_, uint8):
        raise DTypeError(f"where expected condition to be a boolean tensor, but got a tensor with dtype {c.aval.dtype.name}")
    a, b = operand(input, "where"), operand(other, "where")
    dt = result_dtype(a, b)
    return to_out(out, P.where(P.as_bool(c), to_dtype(a, dt), to_dtype(b, dt)))


def _mask(t: Any, fn: str) -> Value:
    m = val(t, "mask")
    if m.aval.dtype is not bool_:
        raise DTypeError(f"{fn} only supports boolean masks, but got mask with dtype {m.aval.dtype.name}")
    return m


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """``value`` (a number or zero-dim tensor) where ``mask`` (bool, broadcast with ``input``)."""
    v, m = val(input), _mask(mask, "masked_fill")
    dt = v.aval.dtype
    x = value if value.__class__ is float else operand(value, "masked_fill")
    if not isinstance(x, Value):
        return wrap(P.where(m, number(convertible(x, dt), dt), v))
    if x.aval.ndim:
        raise ShapeError(f"masked_fill only supports a 0-dimensional value tensor, but got tensor with {x.aval.ndim} "
                         "dimension(s).")
    return wrap(P.where(m, to_dtype(x, dt), v))


def _host_indices(mask: np.ndarray, where: device) -> Value:
    return from_array(np.flatnonzero(mask), dev=where)._v


def masked_select(input: Tensor, mask: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The elements where ``mask`` (broadcast), 1-D. How many they are is read on the host."""
    v, m = val(input), _mask(mask, "masked_select")
    shape = broadcast_shapes("masked_select", v.aval.shape, m.aval.shape)
    common_device("masked_select", v.aval, m.aval)
    flat = P.reshape(P.expand(v, shape), (int(np.prod(shape, dtype=np.int64)),))
    return to_out(out, P.take(flat, _host_indices(np.broadcast_to(fetched(m), shape), v.aval.device), 0))


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """Elements of ``source`` in order where ``mask``. Too few of them: an error when the result is read."""
    v, m, s = val(input), _mask(mask, "masked_scatter"), val(source, "source")
    if s.aval.dtype is not v.aval.dtype:
        raise DTypeError("masked_scatter: expected self and source to have same dtypes but got "
                         f"{v.aval.dtype.name} and {s.aval.dtype.name}")
    shape = broadcast_shapes("masked_scatter", v.aval.shape, m.aval.shape)
    v, m = P.expand(v, shape), P.expand(m, shape)
    if s.aval.size == 0 or v.aval.size == 0:
        if v.aval.size and fetched(m).any():
            raise ShapeError("masked_scatter: the source is empty but the mask selects elements")
        return wrap(v)
    flat = P.reshape(m, (v.aval.size,))
    nth = P.sub(P.scan("add", P.cast(flat, int64), 0), 1)
    picked = P.take(P.reshape(s, (s.aval.size,)), P.where(flat, nth, P.zeros_like(nth)), 0)
    return wrap(P.where(m, P.reshape(picked, shape), v))


def nonzero(input: Tensor, *, as_tuple: bool = False, out: Tensor | None = None) -> Any:
    """Indices of the nonzero elements, int64 (n, ndim), or a tuple of ndim 1-D tensors. Evaluates ``input``."""
    arr, where = fetched(val(input)), input.device
    if as_tuple:
        return tuple([from_array(i.astype(np.int64), dev=where) for i in np.nonzero(np.atleast_1d(arr))])
    if arr.ndim == 0:
        found = np.zeros((int(arr != 0), 0), np.int64)
    else:
        found = np.stack(np.nonzero(arr), 1).astype(np.int64)
    return to_out(out, from_array(found, dev=where)._v)


def argwhere(input: Tensor) -> Tensor:
    """``nonzero(input)``."""
    return nonzero(input)
