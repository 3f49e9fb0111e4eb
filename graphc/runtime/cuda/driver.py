"""The CUDA driver through ``cuda-bindings``: the only file that touches it.

Nothing is loaded before the first :func:`get` or :func:`reason`. Handles (contexts, streams, events, modules, functions,
graphs) are passed on as the bindings give them; device addresses are ints. Bytes, milliseconds and flat ints otherwise.
"""
from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ...errors import DeviceError

MINIMUM = 12000  # CUDA 12.0 (driver R525): what Triton's machine code needs
INSTALL = "pip install 'graphc[cuda]'"
OUT_OF_MEMORY, NOT_READY, NO_DEVICE = 2, 600, 100
# After these the context is lost: every later call on the device fails with the same code.
STICKY = frozenset((214, 220, 226, 700, 702, 710, 713, 714, 715, 716, 717, 718, 719, 720, 721))
_FORKED = ("Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you must use the 'spawn' "
           "start method")
_REASONS = {
    34: "the library libcuda is a stub that comes with the CUDA toolkit, not a driver",
    NO_DEVICE: "the NVIDIA driver finds no device (is CUDA_VISIBLE_DEVICES empty? does the container have the GPU?)",
    101: "the NVIDIA driver finds no usable device",
    803: "the NVIDIA driver's library and kernel module have different versions (restart the machine after an update)",
    804: "this GPU does not support the driver's compatibility libraries: install a newer NVIDIA driver",
}


class CudaError(DeviceError):
    """A CUDA call failed. ``code`` and ``name`` are the driver's, e.g. 700 and CUDA_ERROR_ILLEGAL_ADDRESS."""

    def __init__(self, message: str, code: int = 0, name: str = ""):
        super().__init__(message)
        self.code, self.name = code, name


class CudaUnavailable(DeviceError, AssertionError):
    """There is no CUDA here. PyTorch raises AssertionError in builds without it and RuntimeError in others: this is both."""


class Properties:
    """What a device is, under the names of ``torch.cuda.get_device_properties``. Memory in bytes, clocks in kHz."""

    name: str
    major: int
    minor: int
    total_memory: int
    multi_processor_count: int
    max_threads_per_block: int
    max_threads_per_multi_processor: int
    warp_size: int
    regs_per_multiprocessor: int
    shared_memory_per_block: int
    shared_memory_per_block_optin: int
    shared_memory_per_multiprocessor: int
    L2_cache_size: int
    clock_rate: int
    memory_clock_rate: int
    memory_bus_width: int
    is_integrated: int
    is_multi_gpu_board: int
    pci_bus_id: int
    pci_device_id: int
    pci_domain_id: int
    uuid: str

    def __init__(self, facts: dict[str, Any]):
        self.__dict__.update(facts)

    def __repr__(self) -> str:
        return (f"_CudaDeviceProperties(name='{self.name}', major={self.major}, minor={self.minor}, "
                f"total_memory={self.total_memory // 2**20}MB, multi_processor_count={self.multi_processor_count}, "
                f"uuid={self.uuid}, pci_bus_id={self.pci_bus_id}, pci_device_id={self.pci_device_id}, "
                f"pci_domain_id={self.pci_domain_id}, L2_cache_size={self.L2_cache_size // 2**20}MB)")


# CUdevice_attribute by our name
_ATTRIBUTES = {
    "max_threads_per_block": 1, "shared_memory_per_block": 8, "warp_size": 10, "clock_rate": 13, "multi_processor_count": 16,
    "is_integrated": 18, "pci_bus_id": 33, "pci_device_id": 34, "memory_clock_rate": 36, "memory_bus_width": 37,
    "L2_cache_size": 38, "max_threads_per_multi_processor": 39, "pci_domain_id": 50, "major": 75, "minor": 76,
    "shared_memory_per_multiprocessor": 81, "regs_per_multiprocessor": 82, "is_multi_gpu_board": 84,
    "shared_memory_per_block_optin": 97,
}
# CUfunction_attribute
MAX_THREADS, STATIC_SHARED, LOCAL_BYTES, REGISTERS, DYNAMIC_SHARED, BIG_CLUSTER = 0, 1, 3, 4, 8, 14
# CUlaunchAttributeID
COOPERATIVE, CLUSTER_DIMENSION, CLUSTER_POLICY, OVERLAP = 2, 4, 5, 6


class Driver:
    """An initialised driver. ``cu`` is the module ``cuda.bindings.driver`` (or a stand-in with its functions).

    Raises DeviceError saying what is missing if there is no driver, no device, or the driver is too old.
    """

    def __init__(self, cu: Any):
        self.cu = cu
        self.contexts: dict[int, Any] = {}
        self.known: dict[int, Properties] = {}
        self.lock = threading.Lock()
        self.broken = ""  # the error that made a context unusable
        self.recent: deque[str] = deque(maxlen=4)  # what was launched last, for errors that are seen later
        try:
            code = int(cu.cuInit(0)[0])
        except Exception as error:  # the bindings' own error types differ between versions
            raise DeviceError(f"no NVIDIA driver was found ({_brief(error)})") from error
        if code:
            raise DeviceError(_REASONS.get(code) or f"the NVIDIA driver cannot be used: {self.describe(code)}")
        try:
            self.version = int(self.call("cuDriverGetVersion"))
        except CudaError:
            self.version = 0
        if self.version < MINIMUM:
            raise DeviceError(f"the NVIDIA driver is too old: it supports CUDA {_version(self.version)}, graphc needs "
                              f"{_version(MINIMUM)} (driver 525) or newer")
        self.count = int(self.call("cuDeviceGetCount"))
        if self.count == 0:
            raise DeviceError(_REASONS[NO_DEVICE])

    # -------------------------------------------------------------------------------------------------------- errors
    def call(self, name: str, *args: Any) -> Any:
        """Call a driver function: None, its result, or a tuple of results. Raises CudaError."""
        try:
            result = getattr(self.cu, name)(*args)
        except (AttributeError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "not found" not in str(error):
                raise
            raise CudaError(f"the NVIDIA driver (CUDA {_version(self.version)}) or the installed cuda-bindings has no {name}: "
                            f"one of them is too old") from error
        if int(result[0]):
            raise self.error(name, int(result[0]))
        return result[1] if len(result) == 2 else result[1:] if len(result) > 2 else None

    def describe(self, code: int) -> str:
        """An error code in words: its name and the driver's description."""
        texts = []
        for function in ("cuGetErrorName", "cuGetErrorString"):
            try:
                rc, text = getattr(self.cu, function)(self.cu.CUresult(code))
                texts.append(text.decode() if int(rc) == 0 and text else "")
            except Exception:  # codes newer than the bindings
                texts.append("")
        return f"{texts[0] or f'error {code}'}: {texts[1] or 'unknown error'} (code {code})"

    def error(self, name: str, code: int, what: str = "") -> CudaError:
        """The exception for a failed call; notes errors after which the device cannot be used."""
        text = self.describe(code)
        message = f"CUDA error in {what or name}: {text}"
        if code in STICKY:
            if self.recent and not what:
                message += (f". It may come from work launched before: {', '.join(self.recent)}; CUDA_LAUNCH_BLOCKING=1 "
                            f"names the kernel")
            if self.broken:
                message += f". First error: {self.broken}"
            else:
                self.broken = message
            message += ". The device cannot be used again in this process"
        return CudaError(message, code, text.partition(":")[0])

    # ------------------------------------------------------------------------------------------------------- devices
    def check_index(self, index: int) -> int:
        """``index`` if there is such a device; DeviceError otherwise."""
        if not 0 <= index < self.count:
            have = "there is only device 0" if self.count == 1 else f"devices are numbered 0 to {self.count - 1}"
            raise DeviceError(f"CUDA error: invalid device ordinal {index}: {have}")
        return index

    def properties(self, index: int) -> Properties:
        """What device ``index`` is; asked once."""
        found = self.known.get(self.check_index(index))
        if found is not None:
            return found
        dev = self.call("cuDeviceGet", index)
        facts: dict[str, Any] = {}
        for name, number in _ATTRIBUTES.items():
            try:
                facts[name] = int(self.call("cuDeviceGetAttribute", self.cu.CUdevice_attribute(number), dev))
            except CudaError:  # an attribute this driver does not know
                facts[name] = 0
        facts["name"] = bytes(self.call("cuDeviceGetName", 256, dev)).split(b"\0")[0].decode()
        facts["total_memory"] = int(self.call("cuDeviceTotalMem", dev))
        facts["uuid"] = _uuid(self.call("cuDeviceGetUuid", dev))
        self.known[index] = made = Properties(facts)
        return made

    def use(self, index: int) -> None:
        """Make device ``index``'s primary context current in this thread (other libraries may have changed it)."""
        context = self.contexts.get(index)
        if context is None:
            with self.lock:
                if index not in self.contexts:
                    self.check_index(index)
                    self.contexts[index] = self.call("cuDevicePrimaryCtxRetain", self.call("cuDeviceGet", index))
                context = self.contexts[index]
        code = int(self.cu.cuCtxSetCurrent(context)[0])
        if code:
            raise self.error("cuCtxSetCurrent", code)

    @contextmanager
    def within(self, index: int) -> Iterator[None]:
        """Device ``index``'s context inside, the one before afterwards: for finalizers, which interrupt other work."""
        before = self.call("cuCtxGetCurrent")
        self.use(index)
        try:
            yield
        finally:
            self.call("cuCtxSetCurrent", before)

    def can_access_peer(self, index: int, peer: int) -> bool:
        """Whether device ``index`` can read ``peer``'s memory directly."""
        a, b = (self.call("cuDeviceGet", self.check_index(i)) for i in (index, peer))
        return bool(int(self.call("cuDeviceCanAccessPeer", a, b)))

    # -------------------------------------------------------------------------------------------------------- memory
    def alloc(self, nbytes: int) -> int:
        """Device memory on the current device; MemoryError if there is not enough."""
        return self._alloc("cuMemAlloc", nbytes)

    def alloc_host(self, nbytes: int) -> int:
        """Page-locked host memory, usable from every device; MemoryError if there is not enough."""
        return self._alloc("cuMemHostAlloc", nbytes, 1)

    def _alloc(self, name: str, *args: Any) -> int:
        try:
            return int(self.call(name, *args))
        except CudaError as error:
            if error.code == OUT_OF_MEMORY:
                raise MemoryError(str(error)) from None
            raise

    def free(self, pointer: int) -> None:
        self.call("cuMemFree", pointer)

    def free_host(self, pointer: int) -> None:
        self.call("cuMemFreeHost", pointer)

    def memory_info(self) -> tuple[int, int]:
        """(free, total) bytes of the current device."""
        free, total = self.call("cuMemGetInfo")
        return int(free), int(total)

    def copy_to_device(self, dst: int, src: int, nbytes: int, stream: Any) -> None:
        self.call("cuMemcpyHtoDAsync", dst, src, nbytes, stream)

    def copy_to_host(self, dst: int, src: int, nbytes: int, stream: Any) -> None:
        self.call("cuMemcpyDtoHAsync", dst, src, nbytes, stream)

    def copy_on_device(self, dst: int, src: int, nbytes: int, stream: Any) -> None:
        self.call("cuMemcpyDtoDAsync", dst, src, nbytes, stream)

    def copy_between(self, dst: int, to: int, src: int, source: int, nbytes: int, stream: Any) -> None:
        """From device ``source`` to device ``to``, both in use already."""
        self.call("cuMemcpyPeerAsync", dst, self.contexts[to], src, self.contexts[source], nbytes, stream)

    def fill(self, dst: int, byte: int, nbytes: int, stream: Any) -> None:
        self.call("cuMemsetD8Async", dst, byte, nbytes, stream)

    def pointer_device(self, pointer: int) -> int:
        """Number of the device that ``pointer`` belongs to."""
        return int(self.call("cuPointerGetAttribute", self.cu.CUpointer_attribute(9), pointer))

    # ----------------------------------------------------------------------------------------------- streams, events
    def stream(self, priority: int = 0) -> Any:
        """A new stream that does not wait for the default one; lower numbers run first, the device limits them."""
        least, greatest = (int(x) for x in self.call("cuCtxGetStreamPriorityRange"))
        return self.call("cuStreamCreateWithPriority", 1, min(max(priority, greatest), least))

    def legacy_stream(self) -> Any:
        """The default stream, which other blocking streams synchronise with."""
        return self.cu.CUstream(0)

    def external_stream(self, pointer: int) -> Any:
        """A stream another library made."""
        return self.cu.CUstream(pointer)

    def event(self, timing: bool, blocking: bool) -> Any:
        return self.call("cuEventCreate", (0 if timing else 2) | (1 if blocking else 0))

    def done(self, name: str, handle: Any) -> bool:
        """``cuEventQuery`` or ``cuStreamQuery``: whether everything recorded has been done."""
        code = int(getattr(self.cu, name)(handle)[0])
        if code not in (0, NOT_READY):
            raise self.error(name, code)
        return code == 0

    def capturing(self, stream: Any) -> bool:
        """Whether work sent to ``stream`` is recorded into a graph."""
        return int(self.call("cuStreamIsCapturing", stream)) != 0

    # -------------------------------------------------------------------------------------------------------- launch
    def function_attribute(self, function: Any, number: int) -> int:
        return int(self.call("cuFuncGetAttribute", self.cu.CUfunction_attribute(number), function))

    def set_function_attribute(self, function: Any, number: int, value: int) -> None:
        self.call("cuFuncSetAttribute", function, self.cu.CUfunction_attribute(number), value)

    def parameter_sizes(self, function: Any) -> list[int] | None:
        """Bytes of each kernel parameter; None if this driver or cuda-bindings cannot tell."""
        ask = getattr(self.cu, "cuFuncGetParamInfo", None)
        sizes: list[int] = []
        try:
            while ask is not None:
                result = ask(function, len(sizes))
                if int(result[0]):
                    return sizes
                sizes.append(int(result[2]))
        except RuntimeError:  # not in the driver
            pass
        return None

    def launch_config(self, grid: tuple[int, int, int], block: int, shared: int, attributes: list[tuple[int, Any]]) -> Any:
        """A CUlaunchConfig for launches that need attributes: (CUlaunchAttributeID, value) pairs."""
        cu = self.cu
        config = cu.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = grid
        config.blockDimX, config.blockDimY, config.blockDimZ = block, 1, 1
        config.sharedMemBytes = shared
        made = []
        for number, value in attributes:
            attribute = cu.CUlaunchAttribute()
            attribute.id = cu.CUlaunchAttributeID(number)
            if number == CLUSTER_DIMENSION:
                attribute.value.clusterDim.x, attribute.value.clusterDim.y, attribute.value.clusterDim.z = value
            elif number == CLUSTER_POLICY:
                attribute.value.clusterSchedulingPolicyPreference = cu.CUclusterSchedulingPolicy(value)
            elif number == COOPERATIVE:
                attribute.value.cooperative = value
            elif number == OVERLAP:
                attribute.value.programmaticStreamSerializationAllowed = value
            else:
                raise ValueError(f"launch attribute {number} is not known here")
            made.append(attribute)
        config.attrs, config.numAttrs = made, len(made)
        return config

    # --------------------------------------------------------------------------------------------------------- graphs
    def begin_capture(self, stream: Any) -> None:
        """Record what is sent to ``stream`` instead of running it; everything else goes on (relaxed mode)."""
        self.call("cuStreamBeginCapture", stream, self.cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED)

    def update_graph(self, executable: Any, graph: Any) -> bool:
        """Put the arguments of ``graph`` into ``executable``; False if their structures differ."""
        result = self.cu.cuGraphExecUpdate(executable, graph)
        code = int(result[0])
        if code not in (0, 910):  # CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE
            raise self.error("cuGraphExecUpdate", code)
        return code == 0


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _uuid(found: Any) -> str:
    raw = found.bytes if hasattr(found, "bytes") else found
    h = bytes(b & 255 for b in raw).hex() if not isinstance(raw, bytes) else raw.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


# ----------------------------------------------------------------------------------------------------- the process's
def load_bindings() -> Any:
    """The module ``cuda.bindings.driver``; DeviceError if the package is missing."""
    try:
        from cuda.bindings import driver as bindings
    except ImportError as error:
        raise DeviceError(f"the package cuda-bindings is not installed ({_brief(error)})") from error
    return bindings


class _Process:
    """This process's driver, found at the first question; why there is none, otherwise."""

    lock = threading.Lock()
    load: Callable[[], Any] = load_bindings
    driver: Driver | None = None
    why = ""
    forked = False
    listeners: list[Callable[[], None]] = []  # called when the driver is forgotten


def reason() -> str:
    """Why this process cannot use CUDA; empty if it can."""
    if _Process.driver is not None:
        return ""
    with _Process.lock:
        if _Process.driver is None and not _Process.why:
            if _Process.forked:
                _Process.why = _FORKED
            else:
                try:
                    _Process.driver = Driver(_Process.load())
                except DeviceError as error:
                    _Process.why = str(error)
        return _Process.why


def get() -> Driver:
    """The driver. Raises CudaUnavailable (a RuntimeError) that says what is missing and how to get it."""
    if _Process.driver is None and reason():
        if _Process.why == _FORKED:
            raise CudaUnavailable(_FORKED)
        raise CudaUnavailable(f"CUDA is not available: {_Process.why}. graphc needs an NVIDIA GPU, its driver and {INSTALL}; "
                          f"without them use device='cpu'")
    assert _Process.driver is not None
    return _Process.driver


def started() -> bool:
    """Whether the driver has been loaded and a device has been used."""
    return _Process.driver is not None and bool(_Process.driver.contexts)


def on_reset(listener: Callable[[], None]) -> None:
    """Call ``listener()`` when everything known about the driver is forgotten (tests, a forked child)."""
    _Process.listeners.append(listener)


def reset(load: Callable[[], Any] | None = None) -> None:
    """Forget the driver and load it with ``load`` (default: cuda-bindings) next time. For tests."""
    with _Process.lock:
        _Process.driver, _Process.why, _Process.forked = None, "", False
        _Process.load = load or load_bindings
    for listener in _Process.listeners:
        listener()


def _after_fork() -> None:
    """A child cannot use its parent's contexts, and the driver refuses to start again."""
    _Process.lock = threading.Lock()
    _Process.forked = _Process.forked or _Process.driver is not None
    _Process.driver, _Process.why = None, ""
    for listener in _Process.listeners:
        listener()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
