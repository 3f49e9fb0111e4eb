"""Scalar optimizer state (``step``, ``eta``, ``mu_product``): zero-dim CPU tensors whose number always is on the host.

Each write rebinds the tensor to a fresh evaluated leaf, so a bias correction is computed in Python without ever waiting
for a device, and ``state`` and ``state_dict()`` still hold ordinary tensors, as PyTorch's do.
"""
from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ..device import CPU
from ..dtypes import dtype, float32, float64, get_default_dtype
from ..ir import recorder
from ..ir.node import Value, aval, leaf_value
from ..ir.recorder import scalar_aval
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
    return advance_all((state,), key)[0]


def advance_all(states: Sequence[dict[str, Any]], key: str = "step") -> list[int]:
    """Add one to every step count and return them as ints."""
    region = recorder.state.region
    log, at = partial(list.append, region.writes), region.slots
    counts = []
    for state in states:
        t = state[key]
        v = t._v if t.__class__ is Tensor and t._alias is None else None
        if v.__class__ is Value and v.region is None and v.aval in _COUNTS:  # what the rest comes to for a count of our own
            n = int(v.buffer) + 1
            log((t, v, at))
            t._v = leaf_value(v.aval, np.array(n, v.buffer.dtype))
        else:
            n = int(number(t)) + 1
            store(state, key, n)
            region = recorder.state.region
            log, at = partial(list.append, region.writes), region.slots  # reading may have ended a region
        counts.append(n)
    return counts


_COUNTS = (scalar_aval(float32), scalar_aval(float64))
