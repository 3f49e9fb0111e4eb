"""Tensors as host arrays, without recording anything where that can be avoided.

A loader handles thousands of small tensors. Recording an op for each would grow the trie with programs that never
repeat (``x[17]``, ``x[4]``, ...) and build a plan for each batch, so data that is already computed is moved with NumPy.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ....device import CPU
from ....dtypes import from_numpy
from ....ir.node import aval, leaf_value
from ....ir.recorder import evaluated
from ....tensor import Tensor, to_numpy, wrap
from ....tensor_overriding import overriding
from ....view_steps import np_view


def adopt(arr: np.ndarray) -> Tensor:
    """A tensor over ``arr`` without a copy. Nobody else may write to ``arr`` afterwards."""
    return wrap(leaf_value(aval(arr.shape, from_numpy(arr.dtype), CPU), np.ascontiguousarray(arr).reshape(arr.shape)))


def computed(t: Tensor) -> np.ndarray | None:
    """The data of a CPU tensor that is already computed and carries no gradient (not to be written to), else None; also None
    for a subclass that overrides functions, which has to see what is done with it."""
    if overriding(type(t)) or t.device is not CPU or t.requires_grad:
        return None
    alias = t._alias
    if alias is not None and alias.leaf is None and alias.storage.value.region is None:
        arr = evaluated(alias.storage.value)
        for name, attrs in alias.chain:
            arr = np_view(arr, name, attrs)
        return arr
    v = t._read()
    return evaluated(v) if v.region is None else None


def fetched(t: Tensor) -> np.ndarray:
    """The tensor's data on the host, computing it if need be; contiguous, not to be written to."""
    arr = computed(t)
    if arr is None:
        arr = evaluated(t._read()) if t.device is CPU else to_numpy(t)
    return np.ascontiguousarray(arr).reshape(arr.shape)


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """``ops.stack(tensors)``: on the host when all are computed, recorded (with gradients) otherwise."""
    arrays = [computed(t) for t in tensors]
    first = arrays[0]
    if first is None or any(a is None or a.shape != first.shape or a.dtype != first.dtype for a in arrays):
        from .... import ops

        return ops.stack(list(tensors), 0)
    out = np.empty((len(arrays), *first.shape), first.dtype)
    for i, a in enumerate(arrays):
        out[i] = a
    return adopt(out)


def take(t: Tensor, indices: Any) -> Tensor:
    """Rows ``indices`` (int64 array) of ``t``: equal to stacking ``t[i]``. Raises IndexError when out of range."""
    arr = computed(t)
    if arr is None:
        return t[adopt(indices)]
    try:
        return adopt(np.take(arr, indices, axis=0))
    except IndexError:
        bad = next(i for i in indices.tolist() if not -len(arr) <= i < len(arr))
        raise IndexError(f"index {bad} is out of bounds for dimension 0 with size {len(arr)}") from None


def rows(data: Any) -> Any:
    """Something whose ``[i]`` is a NumPy row: the data of a tensor, or ``data`` itself."""
    if not isinstance(data, Tensor):
        return data
    arr = computed(data)
    return arr if arr is not None else fetched(data)
