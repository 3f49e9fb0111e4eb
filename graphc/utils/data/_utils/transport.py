"""How objects travel between the loader's processes.

A message is a pickle whose arrays are kept apart (protocol 5). Small messages go through the connection. Large ones go
into a shared-memory segment: on Linux an anonymous one (``memfd_create``) whose descriptor is passed along. It never
has a name, so nothing can be left in /dev/shm however the processes die, and /dev/shm's size (64 MB in containers) does
not matter. Elsewhere ``multiprocessing.shared_memory`` is used; the receiver unlinks a segment as soon as it has read it
and the names are predictable, so that the parent can remove what a dead worker left.

The parent maps a segment privately: tensors lie in it without a copy, and a write stays in this process.
"""
from __future__ import annotations

import io
import os
import pickle
import struct
import weakref
from typing import Any

import numpy as np

from ....tensor import Tensor, to_numpy
from . import host

INLINE = 16 << 10  # bytes; larger messages use a segment
ANONYMOUS = hasattr(os, "memfd_create")  # tests switch it off to cover the named segments
_ALIGN = 64
_MAX_MAPPINGS = 4096  # live mapped batches (the kernel allows 65530 per process); beyond that batches are copied
_HEAD = struct.Struct("<cQ")  # kind of body, number of parts


class _Mapped:
    """Batches of this process that still lie in a mapped segment."""

    count = 0

    @classmethod
    def release(cls) -> None:
        cls.count -= 1


# ------------------------------------------------------------------------------------------------------------ pickling
def _rebuild_tensor(raw: np.ndarray, dtype_name: str, device: str, requires_grad: bool) -> Tensor:
    from ....dtypes import by_name

    t = host.adopt(raw.view(by_name(dtype_name).np))
    if device != "cpu":
        t = t.to(device)
    return t.requires_grad_() if requires_grad else t


def _reduce_tensor(t: Tensor) -> Any:
    """A tensor as its data: what it was recorded from stays in the process that recorded it."""
    if not t.is_leaf:
        raise RuntimeError("Cowardly refusing to serialize non-leaf tensor which requires_grad, since autograd does not "
                           "support crossing process boundaries.  If you just want to transfer the data, call detach() "
                           "on the tensor before serializing (e.g., returning it from the dataset).")
    arr = host.fetched(t) if str(t.device) == "cpu" else to_numpy(t)
    if t.dtype.name == "bfloat16":
        arr = arr.view(np.uint16)  # NumPy keeps only its own dtypes apart from the pickle
    return _rebuild_tensor, (arr, t.dtype.name, str(t.device), t.requires_grad)


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        return _reduce_tensor(obj) if type(obj) is Tensor else NotImplemented


def dumps(obj: Any) -> list[Any]:
    """The parts of a message: the pickle, then the arrays it refers to, as byte buffers."""
    out = io.BytesIO()
    arrays: list[pickle.PickleBuffer] = []
    _Pickler(out, 5, buffer_callback=arrays.append).dump(obj)
    return [out.getbuffer(), *[a.raw() for a in arrays]]


def loads(parts: list[Any]) -> Any:
    """The object a list of parts describes. Its arrays use the parts' memory."""
    return pickle.loads(parts[0], buffers=parts[1:])


def _offsets(sizes: tuple[int, ...]) -> tuple[list[int], int]:
    """Aligned offset of each part, and the total size."""
    out, end = [], 0
    for n in sizes:
        out.append(end)
        end += -(-n // _ALIGN) * _ALIGN
    return out, end


# ------------------------------------------------------------------------------------------------------------ channels
def prepare_parent() -> None:
    """Before workers start: named segments need one resource tracker for all processes, or each worker's own would
    remove what the parent still reads."""
    if not ANONYMOUS and os.name == "posix":
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()


def _remove_named(name: str) -> None:
    """Unlink a segment if it exists, also one whose maker died before giving it a size."""
    from multiprocessing.shared_memory import SharedMemory

    try:
        segment = SharedMemory(name)
    except OSError:
        return
    except ValueError:  # empty: cannot be mapped
        from _posixshmem import shm_unlink

        shm_unlink("/" + name)
        return
    segment.close()
    segment.unlink()


class Channel:
    """One end of a two-way connection that carries objects. ``prefix`` names segments where they need names."""

    def __init__(self, connection: Any, prefix: str = "") -> None:
        self.connection = connection
        self.prefix = prefix
        self.anonymous = ANONYMOUS
        self.sent = 0  # named segments made so far
        self.received = 0
        self._unread: list[Any] = []  # named segments the other side may not have opened yet

    def send(self, obj: Any) -> None:
        """Send without a segment: for small objects, and for index lists, whose receiver always reads."""
        self._send_inline(dumps(obj))

    def send_large(self, obj: Any) -> None:
        """Send through a segment when the object is large. Raises OSError when memory runs out."""
        parts = dumps(obj)
        sizes = tuple([p.nbytes for p in parts])
        if sum(sizes) <= INLINE:
            self._send_inline(parts)
            return
        offsets, total = _offsets(sizes)
        if self.anonymous:
            self._send_descriptor(parts, sizes, offsets)
        else:
            self._send_named(parts, sizes, offsets, total)

    def _head(self, kind: bytes, sizes: tuple[int, ...]) -> bytes:
        return _HEAD.pack(kind, len(sizes)) + struct.pack(f"<{len(sizes)}Q", *sizes)

    def _send_inline(self, parts: list[Any]) -> None:
        self.connection.send_bytes(b"".join([self._head(b"I", tuple([p.nbytes for p in parts])), *parts]))

    def _send_descriptor(self, parts: list[Any], sizes: tuple[int, ...], offsets: list[int]) -> None:
        import socket
        from multiprocessing import reduction

        fd = os.memfd_create("graphc-batch", os.MFD_CLOEXEC)
        try:
            for part, offset in zip(parts, offsets):
                written = 0
                while written < part.nbytes:  # one call writes at most 2 GiB
                    written += os.pwrite(fd, part[written:], offset + written)
            with socket.fromfd(self.connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as s:
                self.connection.send_bytes(self._head(b"D", sizes))
                reduction.sendfds(s, [fd])
        finally:
            os.close(fd)

    def _send_named(self, parts: list[Any], sizes: tuple[int, ...], offsets: list[int], total: int) -> None:
        from multiprocessing.shared_memory import SharedMemory

        segment = SharedMemory(f"{self.prefix}{self.sent}", create=True, size=total)
        self.sent += 1
        if hasattr(os, "posix_fallocate") and hasattr(segment, "_fd"):
            try:
                os.posix_fallocate(segment._fd, 0, total)  # an error now instead of SIGBUS while writing
            except OSError:
                segment.close()
                segment.unlink()
                raise
        for part, offset in zip(parts, offsets):
            segment.buf[offset:offset + part.nbytes] = part  # type: ignore[index]
        if os.name == "nt":  # a segment lives as long as a handle: keep it until some later ones are through
            self._unread = [*self._unread[-64:], segment]
        else:
            segment.close()
        self.connection.send_bytes(self._head(b"N", sizes))

    def receive(self) -> Any:
        """The next object. Raises EOFError or OSError when the other side is gone."""
        data = self.connection.recv_bytes()
        kind, count = _HEAD.unpack_from(data)
        sizes = struct.unpack_from(f"<{count}Q", data, _HEAD.size)
        if kind == b"I":
            body, ends = memoryview(bytearray(data))[_HEAD.size + 8 * count:], np.cumsum(sizes).tolist()
            return loads([body[end - n:end] for end, n in zip(ends, sizes)])
        offsets, total = _offsets(sizes)
        root = self._mapped(total) if kind == b"D" else self._read_named(total)
        return loads([root[offset:offset + n] for offset, n in zip(offsets, sizes)])

    def _mapped(self, total: int) -> np.ndarray:
        import mmap
        from multiprocessing import reduction

        fd = reduction.recv_handle(self.connection)
        try:
            if _Mapped.count < _MAX_MAPPINGS:
                size = os.fstat(fd).st_size  # the last part is not padded
                root = np.frombuffer(mmap.mmap(fd, size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE), np.uint8)
                _Mapped.count += 1
                weakref.finalize(root, _Mapped.release).atexit = False
                return root
            with open(fd, "rb", closefd=False) as f:
                copied = np.zeros(total, np.uint8)
                f.readinto(memoryview(copied))  # type: ignore[arg-type]
                return copied
        finally:
            os.close(fd)

    def _read_named(self, total: int) -> np.ndarray:
        from multiprocessing.shared_memory import SharedMemory

        segment = SharedMemory(f"{self.prefix}{self.received}")
        self.received += 1
        try:
            return np.frombuffer(segment.buf, np.uint8, total).copy()  # type: ignore[arg-type]
        finally:
            segment.close()
            segment.unlink()

    def close(self) -> None:
        """Close the connection (the other side's reader ends)."""
        try:
            self.connection.close()
        except OSError:
            pass

    def remove_leftovers(self, outstanding: int) -> None:
        """Unlink named segments that were sent but never read; at most ``outstanding`` of them can exist."""
        if self.anonymous:
            return
        for k in range(self.received, self.received + outstanding + 1):
            _remove_named(f"{self.prefix}{k}")
