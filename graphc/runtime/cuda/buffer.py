"""Device buffers, page-locked arrays and copies between them.

Host memory that is not page-locked is copied through page-locked pieces ("staging"), a few of which are under way at a time.
"""
from __future__ import annotations

import ctypes
from collections import deque
from typing import Any

import numpy as np

from ...errors import ArgumentError, DeviceError, OutOfMemoryError, ShapeError
from . import device as devices
from .allocator import Allocator, Block
from .device import Device, Event, Stream, quietly, usable

PIECE = 8 << 20  # bytes of a staging piece
UNDER_WAY = 4  # staging pieces copied at the same time
_HOST: tuple[int, int] = (-1, 0)  # stream key of page-locked blocks


class DeviceBuffer:
    """``nbytes`` of device memory at address ``ptr`` on ``device`` (its number), used by work on ``stream``.

    Made by :func:`empty`; :meth:`view` gives a part that keeps the whole alive. The memory goes back with the last reference.
    """

    __slots__ = ("ptr", "nbytes", "owner", "stream", "_block", "_keep", "__weakref__")

    def __init__(self, ptr: int, nbytes: int, owner: Device, stream: Stream, block: Block | None = None, keep: Any = None):
        self.ptr, self.nbytes, self.owner, self.stream = ptr, nbytes, owner, stream
        self._block, self._keep = block, keep

    @property
    def device(self) -> int:
        return self.owner.index

    def view(self, offset: int, nbytes: int) -> DeviceBuffer:
        """Part of this buffer. Raises ArgumentError if it reaches outside."""
        if offset < 0 or nbytes < 0 or offset + nbytes > self.nbytes:
            raise ArgumentError(f"bytes {offset} to {offset + nbytes} of a buffer of {self.nbytes} bytes")
        return DeviceBuffer(self.ptr + offset, nbytes, self.owner, self.stream, keep=self)

    def record_stream(self, stream: Stream) -> None:
        """Work on another ``stream`` uses this memory: it is reused when that work is done."""
        buffer: Any = self
        while isinstance(buffer, DeviceBuffer):
            if buffer._block is not None:
                self.owner.memory.used_by(buffer._block, stream.key)
            buffer = buffer._keep

    def is_sole(self) -> bool:
        """Whether this buffer is a whole block that no stream but its own works with."""
        return self._block is not None and not self._block.users

    def free(self) -> None:
        """Give the memory back now; parts of it must not be used any more."""
        block, self._block = self._block, None
        self.ptr = self.nbytes = 0
        self._keep = None
        if block is not None and usable(self.owner.driver):
            self.owner.memory.free(block)

    def __del__(self) -> None:
        if getattr(self, "_block", None) is not None:
            quietly(self.free)

    def __repr__(self) -> str:
        return f"DeviceBuffer({self.ptr:#x}, {self.nbytes} bytes, cuda:{self.device})"


def empty(nbytes: int, device: Any = None, stream: Stream | None = None, tag: Any = "") -> DeviceBuffer:
    """Uninitialised device memory; ``tag`` names its purpose in out-of-memory messages. Raises OutOfMemoryError."""
    stream = devices.current_stream(device) if stream is None else stream
    memory = stream.owner.memory
    try:
        block = memory.allocate(nbytes, stream.key, tag)
    except OutOfMemoryError:
        if not stream.owner.give_up_reserves():
            raise
        block = memory.allocate(nbytes, stream.key, tag)
    return DeviceBuffer(block.ptr, nbytes, stream.owner, stream, block)


def external(ptr: int, nbytes: int, device: int, keep: Any, stream: Stream | None = None) -> DeviceBuffer:
    """A buffer over memory of another library; ``keep`` is held as long as the buffer is."""
    owner = devices.get(device)
    return DeviceBuffer(ptr, nbytes, owner, stream or owner.default, keep=keep)


# --------------------------------------------------------------------------------------------------- page-locked memory
class Pinned:
    """Owner of a page-locked piece: arrays made from it keep it alive."""

    __slots__ = ("block", "memory", "__array_interface__")

    def __init__(self, memory: Allocator, shape: tuple[int, ...], dt: np.dtype, tag: Any):
        nbytes = int(np.prod(shape, dtype=np.int64)) * dt.itemsize
        self.memory, self.block = memory, memory.allocate(max(nbytes, 1), _HOST, tag)
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": dt.str, "data": (self.block.ptr, False)}

    def __del__(self) -> None:
        if getattr(self, "block", None) is not None and devices.host_memory_used() is self.memory:
            quietly(lambda: self.memory.free(self.block))


def pinned(shape: tuple[int, ...], dt: Any, tag: Any = "pinned array") -> np.ndarray:
    """An uninitialised C-contiguous array in page-locked memory, from which copies to a device run on their own.

    ``dt``: any NumPy dtype without objects. Raises OutOfMemoryError.
    """
    dt = np.dtype(dt)
    if dt.hasobject:
        raise ArgumentError(f"no device can hold {dt}")
    plain = dt if dt.kind in "?bBiufc" else np.dtype(f"V{dt.itemsize}")  # the protocol does not know bfloat16
    return np.asarray(Pinned(devices.host_memory(), tuple(shape), plain, tag)).view(dt)


def pinned_owner(array: np.ndarray) -> Pinned | None:
    """The page-locked piece an array lies in, if any."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, Pinned) else None


def _bytes_at(address: int, nbytes: int) -> np.ndarray:
    return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))


# --------------------------------------------------------------------------------------------------------------- copies
def _flat(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(np.uint8) if array.size else np.empty(0, np.uint8)


def _fits(what: str, have: int, need: int) -> None:
    if need > have:
        raise ShapeError(f"{what}: {need} bytes do not fit into a buffer of {have} bytes")


def _order(buffer: DeviceBuffer, stream: Stream | None) -> Stream:
    """The stream a copy runs on; notes that it uses the buffer."""
    if stream is None:
        return buffer.stream
    if stream.owner is not buffer.owner:
        raise DeviceError(f"the stream is on cuda:{stream.owner.index}, the memory on cuda:{buffer.device}")
    buffer.record_stream(stream)
    return stream


def from_host(buffer: DeviceBuffer, array: np.ndarray, stream: Stream | None = None) -> None:
    """Copy an array (any layout; its C-order bytes) to the start of a buffer, in order with the stream's work.

    Returns when ``array`` may be changed, except for page-locked arrays: those must be left alone until the copy is done.
    """
    array = np.ascontiguousarray(array)
    _fits("copy to the device", buffer.nbytes, array.nbytes)
    stream = _order(buffer, stream)
    driver = stream.driver
    owner = pinned_owner(array)
    if owner is not None:
        if array.nbytes:
            driver.copy_to_device(buffer.ptr, array.ctypes.data, array.nbytes, stream.handle)
            owner.memory.used_by(owner.block, stream.key)
        return
    host, source = devices.host_memory(), _flat(array)
    under_way: deque[Event] = deque()
    for at in range(0, source.size, PIECE):
        piece = source[at:at + PIECE]
        if len(under_way) == UNDER_WAY:
            under_way.popleft().synchronize()
        block = host.allocate(piece.size, _HOST, "staging")
        try:
            _bytes_at(block.ptr, piece.size)[:] = piece
            stream.driver.copy_to_device(buffer.ptr + at, block.ptr, piece.size, stream.handle)
            host.used_by(block, stream.key)
        finally:
            host.free(block)
        if source.size > PIECE:
            under_way.append(stream.mark())


def to_host(buffer: DeviceBuffer, array: np.ndarray, stream: Stream | None = None, non_blocking: bool = False) -> None:
    """Fill ``array`` (any layout, in C order) from the start of a buffer; returns when it is filled.

    With ``non_blocking``, a contiguous page-locked array is filled later, in order with the stream's work.
    """
    _fits("copy from the device", buffer.nbytes, array.nbytes)
    stream = _order(buffer, stream)
    if not array.nbytes:
        return
    if not array.flags.c_contiguous:
        whole = np.empty(array.shape, array.dtype)
        to_host(buffer, whole, stream)
        array[...] = whole
        return
    owner = pinned_owner(array)
    if owner is not None:
        stream.driver.copy_to_host(array.ctypes.data, buffer.ptr, array.nbytes, stream.handle)
        owner.memory.used_by(owner.block, stream.key)
        if not non_blocking:
            stream.drain()
        return
    _through_staging(buffer, _flat(array), stream)


def _through_staging(buffer: DeviceBuffer, target: np.ndarray, stream: Stream) -> None:
    """One piece is copied by the device while the one before is copied by the host."""
    host = devices.host_memory()
    waiting: deque[tuple[int, np.ndarray, Block, Event]] = deque()
    at = 0
    try:
        while at < target.size or waiting:
            while at < target.size and len(waiting) < 2:
                n = min(PIECE, target.size - at)
                block = host.allocate(n, _HOST, "staging")
                host.used_by(block, stream.key)
                waiting.append((at, _bytes_at(block.ptr, n), block, Event()))
                stream.driver.copy_to_host(block.ptr, buffer.ptr + at, n, stream.handle)
                waiting[-1][3].place(stream)
                at += n
            start, piece, block, event = waiting[0]
            event.synchronize()
            target[start:start + piece.size] = piece
            waiting.popleft()
            host.free(block)
    finally:
        for _, _, block, _ in waiting:
            host.free(block)


def copy(dst: DeviceBuffer, src: DeviceBuffer, stream: Stream | None = None) -> None:
    """Copy ``src`` to the start of ``dst``, on any devices, in order with ``src``'s stream and the one it runs on.

    The copy runs on ``stream`` (default: ``dst``'s).
    """
    _fits("copy between devices", dst.nbytes, src.nbytes)
    stream = dst.stream if stream is None else stream
    if not src.nbytes:
        return
    for buffer in (dst, src):
        if buffer.stream != stream:
            stream.follow(buffer.stream)
            buffer.record_stream(stream)
    if dst.owner is src.owner:
        stream.driver.copy_on_device(dst.ptr, src.ptr, src.nbytes, stream.handle)
    else:
        for index in (src.device, dst.device):
            devices.get(index).driver.use(index)
        stream.driver.copy_between(dst.ptr, dst.device, src.ptr, src.device, src.nbytes, stream.handle)


def fill(buffer: DeviceBuffer, byte: int = 0, stream: Stream | None = None) -> None:
    """Set every byte of a buffer."""
    stream = _order(buffer, stream)
    if buffer.nbytes:
        stream.driver.fill(buffer.ptr, byte, buffer.nbytes, stream.handle)
