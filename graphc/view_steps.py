"""What chains of view steps mean in memory: strides, NumPy views, parts of evaluated values.

A view step is a movement op with its attributes; a *chain* of them says which elements of a contiguous storage a tensor
shows, and in what order. ``views.py`` is about who shares which storage.
"""
from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from .device import CPU
from .ir.node import SharedValue, Value, aval, leaf_value
from .ir.prims.movement import np_index, slice_length, window_np
from .ir.recorder import is_exported, state

ViewStep = tuple[str, Any]  # (movement op name, attrs)
STRIDED = "strided"  # the view step of as_strided: attrs are (size, strides, offset) in the storage


def positions(size: tuple[int, ...], strides: tuple[int, ...], offset: int) -> np.ndarray:
    """Places in a storage of the elements that as_strided shows."""
    out = np.full(size, offset, np.int64)
    for k, (n, s) in enumerate(zip(size, strides)):
        out += (np.arange(n, dtype=np.int64) * s).reshape((-1,) + (1,) * (len(size) - 1 - k))
    return out


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """C-order strides in elements."""
    out, n = [], 1
    for d in reversed(shape):
        out.append(n)
        n *= max(d, 1)
    return tuple(reversed(out))


@lru_cache(4096)
def geometry(shape: tuple[int, ...], chain: tuple[ViewStep, ...]) -> tuple[tuple[int, ...], int]:
    """(strides in elements, offset) of what a chain shows of a contiguous storage of ``shape``."""
    strides, offset = contiguous_strides(shape), 0
    for name, attrs in chain:
        if name == "reshape":
            found = reshape_strides(shape, strides, attrs[0])
            strides = contiguous_strides(attrs[0]) if found is None else found
            shape = attrs[0]
        elif name == "permute":
            strides, shape = tuple([strides[p] for p in attrs[0]]), tuple([shape[p] for p in attrs[0]])
        elif name == "expand":
            lead = len(attrs[0]) - len(shape)
            strides = (0,) * lead + tuple([0 if d == 1 and e != 1 else s
                                           for d, e, s in zip(shape, attrs[0][lead:], strides)])
            shape = attrs[0]
        elif name == "slice":
            offset += sum(a * s for a, s, d in zip(attrs[0], strides, shape) if d)
            shape = tuple([slice_length(a, b, s) for a, b, s in zip(*attrs)])
            strides = tuple([s * k for s, k in zip(strides, attrs[2])])
        elif name == STRIDED:
            shape, strides, offset = attrs
        elif name == "window":
            axes, sizes, steps, dilations = attrs
            extra = tuple([strides[ax] * d for ax, d in zip(axes, dilations)])
            for ax, k, s, d in zip(axes, sizes, steps, dilations):
                strides = (*strides[:ax], strides[ax] * s, *strides[ax + 1:])
                shape = (*shape[:ax], (shape[ax] - d * (k - 1) - 1) // s + 1, *shape[ax + 1:])
            strides, shape = strides + extra, (*shape, *sizes)
        else:
            strides = contiguous_strides(shape)
    return strides, offset


@lru_cache(4096)
def shows(base: tuple[int, ...], chain: tuple[ViewStep, ...], shape: tuple[int, ...], new: tuple[int, ...]) -> bool:
    """Whether a view of ``shape``, made by ``chain`` of a storage shaped ``base``, can be seen as ``new`` without copying."""
    return reshape_strides(shape, geometry(base, chain)[0], new) is not None


def reshape_strides(shape: tuple[int, ...], strides: tuple[int, ...], new: tuple[int, ...]) -> tuple[int, ...] | None:
    """Strides that show the same elements as ``new`` without copying, or None (NumPy's and PyTorch's rule)."""
    if 0 in shape:
        return contiguous_strides(new)
    old = [(d, s) for d, s in zip(shape, strides) if d != 1]
    out: list[int] = []
    oi, ni = 0, 0
    while ni < len(new):
        if new[ni] == 1:
            out.append(out[-1] if out else 1)
            ni += 1
            continue
        if oi >= len(old):
            return None
        size, stop = old[oi][0], oi + 1
        want, nstop = new[ni], ni + 1
        while size != want:
            if size < want:
                if stop >= len(old):
                    return None
                if old[stop - 1][1] != old[stop][0] * old[stop][1]:
                    return None
                size *= old[stop][0]
                stop += 1
            else:
                if nstop >= len(new):
                    return None
                want *= new[nstop]
                nstop += 1
        step = old[stop - 1][1]
        block = []
        for d in reversed(new[ni:nstop]):
            block.append(step)
            step *= d
        out.extend(reversed(block))
        oi, ni = stop, nstop
    return tuple(out)


def np_view(arr: np.ndarray, name: str, attrs: Any) -> np.ndarray:
    """One view step of an array."""
    if name == "reshape":
        if arr.flags.c_contiguous:
            return arr.reshape(attrs[0])
        strides = reshape_strides(arr.shape, tuple([s // arr.itemsize for s in arr.strides]), attrs[0])
        if strides is None:
            return arr.reshape(attrs[0])
        return np.lib.stride_tricks.as_strided(arr, attrs[0], tuple([s * arr.itemsize for s in strides]))
    if name == "permute":
        return arr.transpose(attrs[0])
    if name == "expand":
        return np.lib.stride_tricks.as_strided(arr, attrs[0], np.broadcast_to(arr, attrs[0]).strides)  # may be written
    if name == "slice":
        return arr[np_index(attrs)]
    if name == STRIDED:
        size, strides, offset = attrs
        return np.lib.stride_tricks.as_strided(arr.reshape(-1)[offset:], size, tuple([s * arr.itemsize for s in strides]))
    if name == "window":
        return window_np(attrs, arr)
    return arr.view(attrs[0].np)


def contiguous_cover(arr: np.ndarray) -> tuple[np.ndarray, ViewStep] | None:
    """A contiguous array over the memory of one that is not, and the view step that shows it; None where there is none."""
    order = sorted(range(arr.ndim), key=lambda k: -arr.strides[k])
    plain = arr.transpose(order)
    if plain.flags.c_contiguous:
        return plain, ("permute", (tuple([order.index(k) for k in range(arr.ndim)]),))
    if any(s % arr.itemsize for s in arr.strides) or not arr.size:
        return None
    strides = tuple([s // arr.itemsize for s in arr.strides])
    span = 1 + sum([(n - 1) * s for n, s in zip(arr.shape, strides)])
    return np.lib.stride_tricks.as_strided(arr, (span,), (arr.itemsize,)), (STRIDED, (arr.shape, strides, 0))


def is_part(buffer: Any) -> bool:
    """Whether a buffer is an array over less than all of another one."""
    return buffer.__class__ is np.ndarray and buffer.base.__class__ is np.ndarray and buffer.nbytes < buffer.base.nbytes


def part(v: Value, chain: tuple[ViewStep, ...]) -> Value | None:
    """What a chain that begins with a slice shows of an evaluated value, as a value over the same memory if it lies there in
    one piece; None where it must be recorded. So a loop over the rows of data stays one program, whichever rows they are."""
    watch = state.watch
    if state.tracing or (state.hold if watch is None else watch.whole) or v.gfn is not None and state.grad:
        return None
    if v.buffer.__class__ is not np.ndarray:
        return None
    shared = v.__class__ is SharedValue
    if shared and not is_exported(v):
        v.__class__, shared = Value, False  # type: ignore[assignment]
    whole = out = v.buffer
    for name, attrs in chain:
        if name != "slice" and not (name == "reshape" and out.flags.c_contiguous):
            return None
        out = np_view(out, name, attrs)
    if shared:
        out = out.copy()
    elif not out.flags.c_contiguous or out.base is not (whole if whole.flags.writeable else whole.base):
        return None  # (what may not be written is such a part itself, with the same base)
    else:
        out.flags.writeable = False  # no plan takes it for memory that it may overwrite, and `whole` is held by it
    return leaf_value(aval(out.shape, v.aval.dtype, CPU), out)
