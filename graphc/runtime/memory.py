"""Host memory of the native back end: result buffers that are reused, and one arena for intermediates.

A fresh large allocation costs more than the arithmetic that fills it (page faults), so large buffers that nobody holds
any more are kept for the next result of the same size. How much is kept is bounded by what is in use.
"""
from __future__ import annotations

import ctypes
import glob
import math
import os
import threading
import weakref
from functools import cache
from typing import Any

import numpy as np

from ..errors import OutOfMemoryError

LARGE = 1 << 16  # bytes; smaller arrays come from NumPy, which is as fast
ALIGN = 64
_KEEP = 1 << 26  # bytes that may always be kept


class _Pool:
    """Process-wide state: free blocks by size, bytes kept and in use, the arena."""

    lock = threading.RLock()
    reserves: weakref.WeakSet[Any] = weakref.WeakSet()  # what has memory nobody asks for at the moment, and forget()
    free: dict[int, list[tuple[np.ndarray, int]]] = {}  # by size: arrays of bytes, each with the aligned address in it
    kept = 0
    used = 0
    arena: np.ndarray = np.empty(0, np.uint8)
    arena_base = 0


@cache
def _owner(size: int) -> Any:
    """The type of what owns a block of ``size`` bytes: the array over it keeps it alive, and its end gives the memory back.
    (An array over an object that lends its memory is made in half a microsecond; one by ``__array_interface__`` takes four.)"""

    class Owner(ctypes.c_char * size):  # type: ignore[misc]
        __slots__ = ("home",)
        home: tuple[np.ndarray, int]

        def __del__(self, pool: Any = _Pool, size: int = size) -> None:
            with pool.lock:
                pool.used -= size
                if hasattr(self, "home") and pool.kept + size <= max(_KEEP, pool.used):
                    pool.kept += size
                    pool.free.setdefault(size, []).append(self.home)

    return Owner


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
    if nbytes < LARGE:
        return np.empty(shape, dt)
    size = -(-nbytes // 65536) * 65536
    pool = _Pool
    with pool.lock:
        stack = pool.free.get(size)
        home = stack.pop() if stack else None
        if home is not None:
            pool.kept -= size
            pool.used += size
    if home is None:
        raw = _raw(size, f" for a tensor of shape {list(shape)} and dtype {dt.name}")
        home = raw, -(-raw.ctypes.data // ALIGN) * ALIGN
        with pool.lock:
            pool.used += size
    owner = _owner(size).from_address(home[1])
    owner.home = home
    return np.ndarray(shape, dt, owner)


def hold_in_reserve(x: Any) -> None:
    """Have ``x.forget()`` called when memory runs out or is asked back."""
    _Pool.reserves.add(x)


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
    the lock of :class:`Running` while they use it."""
    pool = _Pool
    if pool.arena.size < nbytes + ALIGN:
        pool.arena = np.empty(0, np.uint8)
        pool.arena = _raw(nbytes)
        start = pool.arena.__array_interface__["data"][0]
        pool.arena_base = -(-start // ALIGN) * ALIGN
    return pool.arena_base


def is_arena(base: int, nbytes: int) -> bool:
    """Whether the arena still lies at ``base`` and is large enough."""
    return base == _Pool.arena_base and _Pool.arena.size >= nbytes + ALIGN


def arena_view(offset: int, shape: tuple[int, ...], dt: np.dtype) -> np.ndarray:
    """An array over part of the arena."""
    start = _Pool.arena_base - _Pool.arena.__array_interface__["data"][0] + offset
    nbytes = math.prod(shape) * dt.itemsize
    return _Pool.arena[start:start + nbytes].view(dt).reshape(shape)


def empty_cache() -> None:
    """Give kept buffers and the arena back to the system."""
    pool = _Pool
    for reserve in [*pool.reserves]:
        reserve.forget()
    with pool.lock:
        pool.free.clear()
        pool.kept = 0
    if Running.lock.acquire(blocking=False):
        if not Running.now:
            pool.arena, pool.arena_base = np.empty(0, np.uint8), 0
        Running.lock.release()


class Running:
    """One plan runs at a time: it owns the arena and the thread pool."""

    lock = threading.RLock()
    now = False  # whether the lock's owner is inside a plan: handlers of signals and the ends of objects come at any moment


def _after_fork() -> None:
    Running.lock, Running.now = threading.RLock(), False
    _Pool.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
