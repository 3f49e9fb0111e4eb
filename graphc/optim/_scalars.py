"""Scalar optimizer state (``step``, ``eta``, ``mu_product``): zero-dim CPU tensors whose number always is on the host.

Each write rebinds the tensor to a fresh evaluated leaf, so a bias correction is computed in Python without ever waiting
for a device, and ``state`` and ``state_dict()`` still hold ordinary tensors, as PyTorch's do.
"""
from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from operator import attrgetter
from typing import Any

import numpy as np

from ..device import CPU
from ..dtypes import dtype, float32, float64, get_default_dtype
from ..ir import recorder
from ..ir.node import Value, aval, leaf_value
from ..tensor import Tensor, wrap

HOST_SCALARS = ("step", "eta", "mu", "mu_product")


def scalar_dtype() -> dtype:
    """float32, or float64 where that is the default dtype."""
    return float64 if get_default_dtype() is float64 else float32


def _leaf(x: float, dt: dtype) -> Value:
    return leaf_value(aval((), dt, CPU), np.array(x, dtype=dt.np))


def scalar(x: float) -> Tensor:
    """A zero-dim state tensor holding ``x``."""
    return wrap(_leaf(x, scalar_dtype()))


def store(state: dict[str, Any], key: str, x: float) -> float:
    """Put ``x`` into the tensor ``state[key]``; returns it rounded to the tensor's dtype."""
    t = state.get(key)
    if not isinstance(t, Tensor) or not t.is_cpu or t.shape:  # state given by a user or by an old checkpoint
        t = state[key] = scalar(0.0)
    v = _leaf(x, t.dtype)
    t._write(v)
    return float(v.buffer)


def number(x: Any) -> float:
    """The Python number in ``x``; waits for nothing where the optimizer itself wrote ``x``."""
    return float(x.item()) if isinstance(x, Tensor) else float(x)


def advance(state: dict[str, Any], key: str = "step") -> int:
    """Add one to the step count and return it as an int."""
    n = int(number(state[key])) + 1
    store(state, key, n)
    return n


def advance_each(states: Sequence[dict[str, Any]]) -> list[int]:
    """Add one to the step count of every state and return them as ints; in columns where all are tensors of our own."""
    tensors = [state["step"] for state in states]
    if {*map(type, tensors)} != {Tensor} or any(map(_alias, tensors)):
        return [advance(state) for state in states]
    values = [*map(_value, tensors)]
    avals = {*map(_aval, values)}
    av = avals.pop()
    if avals or av.shape or av.dtype not in (float32, float64) or {*map(type, values)} != {Value} or any(map(_region, values)):
        return [advance(state) for state in states]
    region, dt = recorder.state.region, av.dtype.np
    list.extend(region.writes, zip(tensors, values, repeat(region.slots)))
    out = [n + 1 for n in map(int, map(_buffer, values))]
    for t, n in zip(tensors, out):
        t._v = v = Value(av, None, -1)
        v.buffer = np.array(n, dt)
    return out


_value, _alias, _aval = attrgetter("_v"), attrgetter("_alias"), attrgetter("aval")
_region, _buffer = attrgetter("region"), attrgetter("buffer")
