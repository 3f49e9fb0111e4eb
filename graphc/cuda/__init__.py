"""CUDA under PyTorch's names.

Without a GPU, its driver and ``cuda-bindings``, everything that asks answers "no" or 0, seeding and emptying do nothing, and
use raises a RuntimeError that says what is missing. The driver is not loaded before something here is asked.
"""
from __future__ import annotations

import importlib
from typing import Any

from ..dtypes import bfloat16, bool_, float16, float32, float64, int8, int16, int32, int64, uint8
from ..errors import ArgumentError
from ..errors import OutOfMemoryError as OutOfMemoryError
from ..runtime.cuda import device as _devices
from ..runtime.cuda import driver as _driver
from ..runtime.cuda.device import Event as Event
from ..runtime.cuda.device import ExternalStream as ExternalStream
from ..runtime.cuda.device import Stream as Stream
from ..runtime.cuda.device import current_stream as current_stream
from ..runtime.cuda.device import set_stream as set_stream
from ..runtime.cuda.driver import CudaError as CudaError
from ..runtime.cuda.driver import Properties as _CudaDeviceProperties
from . import memory as memory
from . import random as random
from . import streams as streams
from ._available import is_available as is_available
from ._legacy import legacy_type as _legacy_type
from .memory import empty_cache as empty_cache
from .memory import host_memory_stats as host_memory_stats
from .memory import max_memory_allocated as max_memory_allocated
from .memory import max_memory_reserved as max_memory_reserved
from .memory import mem_get_info as mem_get_info
from .memory import memory_allocated as memory_allocated
from .memory import memory_reserved as memory_reserved
from .memory import memory_snapshot as memory_snapshot
from .memory import memory_stats as memory_stats
from .memory import memory_summary as memory_summary
from .memory import reset_accumulated_memory_stats as reset_accumulated_memory_stats
from .memory import reset_max_memory_allocated as reset_max_memory_allocated
from .memory import reset_peak_memory_stats as reset_peak_memory_stats
from .memory import set_per_process_memory_fraction as set_per_process_memory_fraction
from .random import get_rng_state as get_rng_state
from .random import get_rng_state_all as get_rng_state_all
from .random import initial_seed as initial_seed
from .random import manual_seed as manual_seed
from .random import manual_seed_all as manual_seed_all
from .random import seed as seed
from .random import seed_all as seed_all
from .random import set_rng_state as set_rng_state
from .random import set_rng_state_all as set_rng_state_all

AcceleratorError = CudaError
memory_cached, max_memory_cached = memory_reserved, max_memory_reserved
has_half = True


# ---------------------------------------------------------------------------------------------------------- what is there
def device_count() -> int:
    """Number of GPUs tensors can live on."""
    return _driver.get().count if is_available() else 0


def is_initialized() -> bool:
    """Whether this process has used a device."""
    return _driver.started()


def init() -> None:
    """Start CUDA now rather than at first use."""
    _devices.get()


def current_device() -> int:
    """Number of this thread's current device."""
    return _devices.current()


def set_device(device: Any) -> None:
    """Make a device current; negative numbers do nothing."""
    index = _devices.index_of(device)
    if index >= 0:
        _devices.set_current(index)


def synchronize(device: Any = None) -> None:
    """Wait for everything sent to a device (default: the current one)."""
    _devices.settle()
    found = _devices.get(device)
    found.synchronize()
    found.check_faults()


def get_device_properties(device: Any = None) -> _CudaDeviceProperties:
    """Name, memory in bytes, multiprocessors, compute capability and limits of a device."""
    return _driver.get().properties(_devices.index_of(device))


def get_device_name(device: Any = None) -> str:
    """The device's name, e.g. "NVIDIA H200"."""
    return get_device_properties(device).name


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """(major, minor) compute capability, e.g. (9, 0)."""
    found = get_device_properties(device)
    return found.major, found.minor


def get_arch_list() -> list[str]:
    """Architectures of the devices here; kernels are compiled for them when they are needed."""
    if not is_available():
        return []
    return sorted({f"sm_{p.major}{p.minor}" for p in map(get_device_properties, range(device_count()))})


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether the current device computes in bfloat16: in hardware, or with conversions if that counts."""
    return is_available() and (including_emulation or get_device_capability()[0] >= 8)


def is_tf32_supported() -> bool:
    """Whether the current device has TF32 tensor cores."""
    return is_available() and get_device_capability()[0] >= 8


def can_device_access_peer(device: Any, peer_device: Any) -> bool:
    """Whether one device can read another's memory directly."""
    return _driver.get().can_access_peer(_devices.index_of(device), _devices.index_of(peer_device))


def ipc_collect() -> None:
    """Nothing to collect: memory is not shared between processes."""


# ---------------------------------------------------------------------------------------------------------------- devices
class device:
    """``with device(d):`` makes ``d`` the current device inside; None and negative numbers change nothing."""

    def __init__(self, device: Any):
        self.idx = -1 if device is None else _devices.index_of(device)
        self.prev_idx = -1

    def __enter__(self) -> None:
        if self.idx >= 0:
            self.prev_idx = _devices.set_current(self.idx)

    def __exit__(self, *exc: object) -> None:
        if self.prev_idx >= 0:
            _devices.set_current(self.prev_idx)
            self.prev_idx = -1


class device_of(device):
    """``with device_of(tensor):`` makes the tensor's device current; tensors elsewhere change nothing."""

    def __init__(self, obj: Any):
        super().__init__(obj.device if obj.is_cuda else None)


# ---------------------------------------------------------------------------------------------------------------- streams
def default_stream(device: Any = None) -> Stream:
    """The stream work goes to unless another is made current."""
    return _devices.get(device).default


def get_stream_from_external(data_ptr: int, device: Any = None) -> Stream:
    """A stream another library made, by its address."""
    return ExternalStream(data_ptr, device)


class StreamContext:
    """``with stream(s):`` sends work to ``s``; None changes nothing."""

    def __init__(self, stream: Stream | None):
        if stream is not None and not isinstance(stream, Stream):
            raise ArgumentError(f"stream() needs a Stream or None, not {type(stream).__name__}")
        self.stream = stream

    def __enter__(self) -> None:
        if self.stream is not None:
            self.stream.__enter__()

    def __exit__(self, *exc: object) -> None:
        if self.stream is not None:
            self.stream.__exit__()


def stream(stream: Stream | None) -> StreamContext:
    """``with stream(s):`` sends work to ``s``; None changes nothing."""
    return StreamContext(stream)


_GRAPHS = ("CUDAGraph", "graph", "graph_pool_handle", "is_current_stream_capturing", "make_graphed_callables")


def __getattr__(name: str) -> Any:
    if name in ("amp", "graphs", "nvtx"):  # load what few programs need
        return importlib.import_module(f"graphc.cuda.{name}")
    if name in _GRAPHS:
        return getattr(importlib.import_module("graphc.cuda.graphs"), name)
    raise AttributeError(f"module 'graphc.cuda' has no attribute {name!r}")


FloatTensor, DoubleTensor, HalfTensor, BFloat16Tensor = (
    _legacy_type(dt, name) for dt, name in ((float32, "FloatTensor"), (float64, "DoubleTensor"), (float16, "HalfTensor"),
                                            (bfloat16, "BFloat16Tensor")))
LongTensor, IntTensor, ShortTensor, CharTensor, ByteTensor, BoolTensor = (
    _legacy_type(dt, name) for dt, name in ((int64, "LongTensor"), (int32, "IntTensor"), (int16, "ShortTensor"),
                                            (int8, "CharTensor"), (uint8, "ByteTensor"), (bool_, "BoolTensor")))
