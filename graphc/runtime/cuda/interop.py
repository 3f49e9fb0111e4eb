"""Device memory of and for other libraries: ``__cuda_array_interface__`` (version 3) and DLPack (0.x and 1.x).

Layout of DLPack's structures: dmlc/dlpack, include/dlpack/dlpack.h. Arrays are (DeviceBuffer, shape, strides in elements,
dtype); dtypes are NumPy's, with ml_dtypes' bfloat16.
"""
from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...errors import ArgumentError, DeviceError, DTypeError
from . import device as devices
from . import driver as cuda
from .buffer import DeviceBuffer, copy, empty, external, to_host
from .device import ExternalStream, Stream

CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13  # DLDeviceType
_KINDS = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}  # DLDataTypeCode; 4 is bfloat16
_BFLOAT = 4


class Flags(NamedTuple):
    """``writeable``: whether the memory belongs to one array alone and to one stream, so that work there may overwrite it."""

    writeable: bool


_OWN, _SHARED = Flags(True), Flags(False)
_count = sys.getrefcount


class Array(NamedTuple):
    """An array in device memory; ``strides`` in elements."""

    buffer: DeviceBuffer
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype

    @property
    def flags(self) -> Flags:
        """As of a NumPy array."""
        b = self.buffer
        block = b._block
        return _OWN if block is not None and not block.users and _count(b) == _HELD else _SHARED

    def fetch(self) -> np.ndarray:
        """A copy on the host. Waits for it, and raises what kernels sent before have to report."""
        flat = np.empty(extent(self.shape, self.strides), self.dtype)
        to_host(self.buffer, flat)
        self.buffer.owner.check_faults()
        if self.strides == contiguous(self.shape):
            return flat.reshape(self.shape)
        return np.lib.stride_tricks.as_strided(flat, self.shape, [s * flat.itemsize for s in self.strides]).copy()

    def copy(self) -> Array:
        """A copy on the same device, in order with its stream's work."""
        stream = devices.current_stream(self.buffer.device)
        made = empty(self.buffer.nbytes, stream=stream, tag="copy of a tensor")
        copy(made, self.buffer, stream)
        return self._replace(buffer=made)

    def part(self, start: int, shape: tuple[int, ...], strides: tuple[int, ...], dt: np.dtype) -> Array:
        """Elements of this array's memory from number ``start`` on; they keep the whole alive."""
        return Array(self.buffer.view(start * dt.itemsize, extent(shape, strides) * dt.itemsize), shape, strides, dt)

    def to_dlpack(self, stream: Any = None, max_version: tuple[int, int] | None = None) -> Any:
        """See :func:`to_dlpack`."""
        return to_dlpack(self, stream=stream, max_version=max_version)

    def to_interface(self) -> dict[str, Any]:
        """See :func:`cuda_array_interface`."""
        return cuda_array_interface(self)

    def overwrite(self, source: Array) -> None:
        """Copy the data of an equally laid out array into this one's memory."""
        copy(self.buffer, source.buffer, devices.current_stream(self.buffer.device))


def _held() -> int:
    """The reference count :attr:`Array.flags` sees of a buffer that one array holds (it differs between Python versions)."""
    held = (DeviceBuffer(0, 0, None, None),)  # type: ignore[arg-type]
    b = held[0]
    return _count(b)


_HELD = _held()


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides in elements of a C-contiguous array."""
    return tuple(math.prod(shape[k + 1:]) for k in range(len(shape)))


def extent(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Elements from the first to behind the last in memory. Raises ArgumentError for strides below 0."""
    if any(s < 0 for s in strides):
        raise ArgumentError("negative strides are not supported")
    return 0 if 0 in shape else 1 + sum((n - 1) * s for n, s in zip(shape, strides))


# -------------------------------------------------------------------------------------------- __cuda_array_interface__
def cuda_array_interface(array: Array) -> dict[str, Any]:
    """The value of ``__cuda_array_interface__`` for an array; consumers wait for the stream named in it."""
    dt, buffer = array.dtype, array.buffer
    if dt.kind not in "biufc":
        raise DTypeError(f"__cuda_array_interface__ cannot describe {dt}; use DLPack")
    size = dt.itemsize
    empty = 0 in array.shape
    stream = buffer.stream.cuda_stream or 1  # 0 is not allowed there; 1 is the legacy default stream
    return {"shape": array.shape, "typestr": dt.str, "data": (0 if empty else buffer.ptr, False), "version": 3,
            "strides": None if array.strides == contiguous(array.shape) else tuple(s * size for s in array.strides),
            "stream": stream}


def from_cuda_array_interface(obj: Any, stream: Stream | None = None) -> Array:
    """The array another library describes; work on ``stream`` (default: the current one) waits for the producer's.

    Raises ArgumentError for masked or read-only arrays and for descriptions that make no sense.
    """
    facts = obj.__cuda_array_interface__
    shape, dt = tuple(int(n) for n in facts["shape"]), np.dtype(facts["typestr"])
    pointer, read_only = facts["data"]
    if facts.get("mask") is not None:
        raise ArgumentError("masked arrays are not supported")
    if read_only:
        raise ArgumentError("the array is read-only")
    if dt.kind not in "biufc" or not dt.isnative:
        raise DTypeError(f"no tensor can hold {facts['typestr']!r}")
    steps = facts.get("strides")
    if steps is not None and any(s % dt.itemsize for s in steps):
        raise ArgumentError(f"strides {tuple(steps)} are not multiples of the {dt.itemsize} bytes of an element")
    strides = contiguous(shape) if steps is None else tuple(int(s) // dt.itemsize for s in steps)
    nbytes = extent(shape, strides) * dt.itemsize
    index = _device_of(int(pointer)) if nbytes else devices.current()
    stream = devices.current_stream(index) if stream is None else stream
    theirs = facts.get("stream")
    if theirs is not None and theirs not in (1, stream.cuda_stream):
        stream.follow(ExternalStream(theirs, index))
    elif theirs == 1 and stream.cuda_stream:
        stream.follow(stream.owner.default)
    return Array(external(int(pointer), nbytes, index, obj, stream), shape, strides, dt)


def _device_of(pointer: int) -> int:
    """The device a pointer belongs to; DeviceError if it is no device memory."""
    driver = cuda.get()
    driver.use(devices.current())
    try:
        return driver.pointer_device(pointer)
    except cuda.CudaError as error:
        raise DeviceError(f"{pointer:#x} is not an address of device memory: {error}") from error


# -------------------------------------------------------------------------------------------------------------- DLPack
class _Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int32), ("index", ctypes.c_int32)]


class _DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device", _Device), ("ndim", ctypes.c_int32), ("dtype", _DataType),
                ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
                ("byte_offset", ctypes.c_uint64)]


_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    _fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


class _Versioned(ctypes.Structure):
    _fields_ = [("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", ctypes.c_void_p),
                ("deleter", ctypes.c_void_p), ("flags", ctypes.c_uint64), ("tensor", _Tensor)]


_OLD, _NEW = b"dltensor", b"dltensor_versioned"
_USED = {_OLD: b"used_dltensor", _NEW: b"used_dltensor_versioned"}
_READ_ONLY = 1
_api = ctypes.pythonapi
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(("PyCapsule_New", _api))
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", _api))
# A capsule that nobody took is destroyed as a bare pointer: the object itself has no references any more then.
_raw_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_raw_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_exported: dict[int, tuple[Any, ...]] = {}  # by address of the structure: what must live until it is deleted


@_DELETER
def _delete(address: int) -> None:
    _exported.pop(address, None)


@ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
def _destroy(capsule: int) -> None:
    for name in (_OLD, _NEW):
        if _raw_valid(capsule, name):
            _exported.pop(_raw_pointer(capsule, name) or 0, None)


def to_dlpack(array: Array, *, stream: Any = None, max_version: tuple[int, int] | None = None,
              place: tuple[int, int] | None = None) -> Any:
    """A DLPack capsule for an array, as ``__dlpack__`` returns it.

    ``stream``: the consumer's, as an integer (1 or 2 for the default ones, -1 for no synchronisation); it waits for the
    array's. ``place``: (device type, number), default the array's CUDA device.
    """
    buffer = array.buffer
    if place is None:
        place = (CUDA, buffer.device)
        if stream != -1:
            _hand_over(buffer, stream)
    kind = _BFLOAT if array.dtype.name == "bfloat16" else _KINDS.get(array.dtype.kind)
    if kind is None:
        raise DTypeError(f"DLPack cannot describe {array.dtype}")
    n = len(array.shape)
    shape, strides = (ctypes.c_int64 * max(n, 1))(*array.shape), (ctypes.c_int64 * max(n, 1))(*array.strides)
    tensor = _Tensor(buffer.ptr, _Device(*place), n, _DataType(kind, array.dtype.itemsize * 8, 1), shape, strides, 0)
    deleter = ctypes.cast(_delete, ctypes.c_void_p)
    versioned = max_version is not None and max_version[0] >= 1
    made: Any = _Versioned(1, 0, None, deleter, 0, tensor) if versioned else _Managed(tensor, None, deleter)
    address = ctypes.addressof(made)
    _exported[address] = (made, shape, strides, buffer)
    return _new(address, _NEW if versioned else _OLD, ctypes.cast(_destroy, ctypes.c_void_p))


def _hand_over(buffer: DeviceBuffer, stream: Any) -> None:
    """The consumer's stream waits for the work on the buffer."""
    if stream is not None and (not isinstance(stream, int) or stream == 0 or stream < -1):
        raise ArgumentError(f"DLPack stream {stream!r}: 1 and 2 are the default streams, others are addresses")
    theirs = buffer.owner.default if stream in (None, 1, 2) else ExternalStream(stream, buffer.device)
    if theirs != buffer.stream:
        theirs.follow(buffer.stream)
        buffer.record_stream(theirs)


class _Imported:
    """Owner of what a capsule held: calls its deleter at the end."""

    __slots__ = ("address", "deleter")

    def __init__(self, address: int, deleter: int):
        self.address, self.deleter = address, deleter

    def __del__(self) -> None:
        if self.deleter:
            _DELETER(self.deleter)(self.address)


def from_dlpack(obj: Any, stream: Stream | None = None,
                view: Callable[[int, int, int, Any], DeviceBuffer] | None = None) -> Array:
    """The array in a capsule or in an object with ``__dlpack__``; work on ``stream`` may use it at once.

    ``view(address, bytes, device number, owner)`` makes the buffer (default: on a CUDA device). Raises ArgumentError for
    capsules taken before and read-only arrays, DeviceError for other devices.
    """
    if hasattr(obj, "__dlpack__"):
        where = obj.__dlpack_device__()
        if view is None and int(where[0]) not in (CUDA, CUDA_MANAGED):
            raise DeviceError(f"the array is on DLPack device {tuple(map(int, where))}, not on a CUDA device")
        number = None
        if view is None:
            stream = devices.current_stream(int(where[1])) if stream is None else stream
            number = stream.cuda_stream or 1
        try:
            obj = obj.__dlpack__(stream=number, max_version=(1, 0))
        except TypeError:  # a producer of the older protocol
            obj = obj.__dlpack__(stream=number)
    name = next((n for n in (_NEW, _OLD) if _valid(obj, n)), None)
    if name is None:
        raise ArgumentError("from_dlpack: not a DLPack capsule, or one that was used before")
    address = _pointer(obj, name)
    managed: Any = (_Versioned if name == _NEW else _Managed).from_address(address)
    if name == _NEW and managed.major != 1:
        raise ArgumentError(f"from_dlpack: DLPack version {managed.major}.{managed.minor} is not supported")
    if name == _NEW and managed.flags & _READ_ONLY:
        raise ArgumentError("from_dlpack: the array is read-only")
    t = managed.tensor
    dt = _numpy_dtype(t.dtype)
    if view is None and t.device.type not in (CUDA, CUDA_MANAGED):
        raise DeviceError(f"the array is on DLPack device ({t.device.type}, {t.device.index}), not on a CUDA device")
    shape = tuple(t.shape[k] for k in range(t.ndim))
    strides = tuple(t.strides[k] for k in range(t.ndim)) if t.strides else contiguous(shape)
    nbytes = extent(shape, strides) * dt.itemsize
    _rename(obj, _USED[name])
    owner = _Imported(address, managed.deleter or 0)
    pointer = (t.data or 0) + t.byte_offset
    made = view(pointer, nbytes, t.device.index, owner) if view else external(pointer, nbytes, t.device.index, owner, stream)
    return Array(made, shape, strides, dt)


def _numpy_dtype(t: _DataType) -> np.dtype:
    if t.lanes == 1 and t.code == _BFLOAT and t.bits == 16:
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    letter = {v: k for k, v in _KINDS.items()}.get(t.code)
    try:
        if letter is None or t.lanes != 1 or t.bits % 8:
            raise TypeError
        return np.dtype(f"{letter}{t.bits // 8}")
    except TypeError:
        raise DTypeError(f"from_dlpack: no tensor can hold elements of kind {t.code} with {t.bits} bits and {t.lanes} lanes") \
            from None
