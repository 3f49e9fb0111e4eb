"""Host memory of the native back end: result buffers that are reused, and one arena for intermediates.

A fresh large allocation costs more than the arithmetic that fills it (page faults), so large buffers that nobody holds
any more are kept for the next result of the same size. How much is kept is bounded by what is in use.
"""
from __future__ import annotations

import glob
import math
import os
import threading
from functools import cache
from typing import Any

import numpy as np

from ..errors import OutOfMemoryError

LARGE = 1 << 18  # bytes; smaller arrays come from NumPy, which is as fast
ALIGN = 64
_KEEP = 1 << 26  # bytes that may always be kept
_BITS = np.dtype(np.uint16)


class _Pool:
    """Process-wide state: free blocks by size, bytes kept and in use, the arena."""

    lock = threading.RLock()
    free: dict[int, list[np.ndarray]] = {}
    kept = 0
    used = 0
    arena: np.ndarray = np.empty(0, np.uint8)
    arena_base = 0


class _Block:
    """Owner of one buffer: the array made from it keeps it alive, and its end gives the memory back."""

    __slots__ = ("raw", "size", "__array_interface__")

    def __init__(self, raw: np.ndarray, size: int, shape: tuple[int, ...], dt: np.dtype):
        self.raw, self.size = raw, size
        start = raw.__array_interface__["data"][0]
        at = -(-start // ALIGN) * ALIGN
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": dt.str, "data": (at, False)}

    def __del__(self) -> None:
        pool = _Pool
        with pool.lock:
            pool.used -= self.size
            if pool.kept + self.size <= max(_KEEP, pool.used):
                pool.kept += self.size
                pool.free.setdefault(self.size, []).append(self.raw)


def _raw(nbytes: int, what: str = "") -> np.ndarray:
    try:
        return np.empty(nbytes + ALIGN, np.uint8)
    except MemoryError:
        empty_cache()
    try:
        return np.empty(nbytes + ALIGN, np.uint8)
    except MemoryError:
        raise OutOfMemoryError(f"out of memory: could not allocate {nbytes / 2**20:,.1f} MiB{what} on the CPU; "
                               f"{_Pool.used / 2**20:,.1f} MiB are held by large tensors") from None


def empty(shape: tuple[int, ...], dt: np.dtype) -> np.ndarray:
    """An uninitialised C-contiguous array; its memory is reused when the last reference goes."""
    nbytes = math.prod(shape) * dt.itemsize
    known = dt.char in "?bBhHiIlLqQefdFD"
    if nbytes < LARGE or not known and dt.itemsize != 2:
        return np.empty(shape, dt)
    size = -(-nbytes // 65536) * 65536
    pool = _Pool
    with pool.lock:
        stack = pool.free.get(size)
        raw = stack.pop() if stack else None
        if raw is not None:
            pool.kept -= size
            pool.used += size
    if raw is None:
        raw = _raw(size, f" for a tensor of shape {list(shape)} and dtype {dt.name}")
        with pool.lock:
            pool.used += size
    if known:
        return np.asarray(_Block(raw, size, shape, dt))
    return np.asarray(_Block(raw, size, shape, _BITS)).view(dt)  # bfloat16, which the array interface cannot name


@cache
def last_level_cache() -> int:
    """Bytes of the processor's last cache level; 32 MiB where the system does not tell."""
    sizes = []
    for path in glob.glob("/sys/devices/system/cpu/cpu0/cache/index*/size"):
        try:
            with open(path, encoding="ascii") as f:
                text = f.read().strip()
            sizes.append(int(text.rstrip("KMG")) << {"K": 10, "M": 20, "G": 30}.get(text[-1:], 0))
        except (OSError, ValueError):
            continue
    return max(sizes, default=0) or 1 << 25


def arena(nbytes: int) -> int:
    """Address of the intermediates' arena, at least ``nbytes`` long. Valid until a larger one is asked for; callers hold
    :func:`plan_lock` while they use it."""
    pool = _Pool
    if pool.arena.size < nbytes + ALIGN:
        pool.arena = np.empty(0, np.uint8)
        pool.arena = _raw(nbytes)
        start = pool.arena.__array_interface__["data"][0]
        pool.arena_base = -(-start // ALIGN) * ALIGN
    return pool.arena_base


def arena_view(offset: int, shape: tuple[int, ...], dt: np.dtype) -> np.ndarray:
    """An array over part of the arena."""
    start = _Pool.arena_base - _Pool.arena.__array_interface__["data"][0] + offset
    nbytes = math.prod(shape) * dt.itemsize
    return _Pool.arena[start:start + nbytes].view(dt).reshape(shape)


def empty_cache() -> None:
    """Give kept buffers and the arena back to the system."""
    pool = _Pool
    with pool.lock:
        pool.free.clear()
        pool.kept = 0
    if _Lock.plan.acquire(blocking=False):
        pool.arena, pool.arena_base = np.empty(0, np.uint8), 0
        _Lock.plan.release()


class _Lock:
    """One plan runs at a time: it owns the arena and the thread pool."""

    plan = threading.RLock()


def plan_lock() -> Any:
    """The lock a running plan holds."""
    return _Lock.plan


def _after_fork() -> None:
    _Lock.plan = threading.RLock()
    _Pool.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
