"""A device's context, memory, streams and events, and which of them is current in a thread.

Stream keys of the allocators are (device index, address of the stream). Streams are never destroyed: a :class:`Stream` that
goes returns its handle, so that a key always means the same queue of work.
"""
from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from ...device import device as DeviceName
from ...errors import ArgumentError, DeviceError
from ...ir import recorder
from . import driver as cuda
from .allocator import Allocator
from .driver import Driver, Properties

Key = tuple[int, int]


class Device:
    """Context and memory of one device; made when the device is first used."""

    def __init__(self, driver: Driver, index: int):
        self.driver, self.index = driver, driver.check_index(index)
        driver.use(index)
        self.marks = Marks(driver)
        self.memory = Allocator(self._take, self._give, mark=self.marks.make, passed=self.marks.passed,
                                settle=self.synchronize, info=self.memory_info, where="CUDA")
        self.idle: dict[int, list[Any]] = {}  # stream handles by priority
        self.kernels: dict[str, Any] = {}  # loaded kernels by symbol; see launch.load
        self.arenas: dict[Key, Any] = {}  # memory for intermediates by stream; see program.arena
        self.reserves: weakref.WeakSet[Any] = weakref.WeakSet()  # what holds memory for later; see results.py
        self.unchecked: dict[Any, None] = {}  # programs that ran since their index errors were looked at
        self.default = Stream._of(self, driver.legacy_stream())

    def _take(self, nbytes: int) -> int:
        self.driver.use(self.index)
        return self.driver.alloc(nbytes)

    def _give(self, pointer: int) -> None:
        self.driver.use(self.index)
        self.driver.free(pointer)

    @property
    def properties(self) -> Properties:
        return self.driver.properties(self.index)

    def memory_info(self) -> tuple[int, int]:
        """(free, total) bytes."""
        self.driver.use(self.index)
        return self.driver.memory_info()

    def synchronize(self) -> None:
        """Wait for everything sent to the device."""
        self.driver.use(self.index)
        self.driver.call("cuCtxSynchronize")

    def give_up_reserves(self) -> bool:
        """Give memory that is held for later back to the allocator; whether there was any."""
        return any([r.give_up() for r in list(self.reserves)])

    def check_faults(self) -> None:
        """Raise the first index error that finished programs have reported since the last time. Waits for nothing."""
        for program in list(self.unchecked):
            program.check_indices()


class Marks:
    """Events on streams that are asked only whether they have been passed; reused."""

    def __init__(self, driver: Driver):
        self.driver = driver
        self.idle: dict[int, list[Any]] = {}

    def make(self, key: Key) -> tuple[int, Any]:
        """A mark behind everything sent to a stream so far."""
        index, stream = key
        idle = self.idle.setdefault(index, [])
        with self.driver.within(index):
            event = idle.pop() if idle else self.driver.event(timing=False, blocking=False)
            self.driver.call("cuEventRecord", event, self.driver.external_stream(stream))
        return index, event

    def passed(self, mark: tuple[int, Any]) -> bool:
        index, event = mark
        if not self.driver.done("cuEventQuery", event):
            return False
        self.idle[index].append(event)
        return True


class _State(threading.local):
    """What is current in a thread: device 0 and default streams at first."""

    def __init__(self) -> None:
        self.index = 0
        self.streams: dict[int, Stream] = {}


class _Process:
    """Devices in use and page-locked host memory of this process."""

    lock = threading.RLock()
    devices: dict[int, Device] = {}
    host: Allocator | None = None
    local = _State()


def _forget() -> None:
    _Process.lock = threading.RLock()
    _Process.devices, _Process.host, _Process.local = {}, None, _State()


cuda.on_reset(_forget)


def index_of(which: Any = None) -> int:
    """The device number meant by None (the current one), an int, "cuda", "cuda:1" or a device.

    Raises ArgumentError (a ValueError) for a device of another kind.
    """
    if which is None:
        return _Process.local.index
    if isinstance(which, Device):
        return which.index
    if isinstance(which, int) and not isinstance(which, bool):
        return which
    name = DeviceName(which)
    if name.type != "cuda":
        raise ArgumentError(f"Expected a cuda device, but got: {name}")
    return _Process.local.index if name.index is None else name.index


def get(which: Any = None) -> Device:
    """The device, its context made if need be. Raises DeviceError if there is none or the number is wrong."""
    index = index_of(which)
    found = _Process.devices.get(index)
    if found is None:
        driver = cuda.get()
        with _Process.lock:
            found = _Process.devices.get(index)
            if found is None:
                found = _Process.devices[index] = Device(driver, index)
    return found


def used(which: Any = None) -> Device | None:
    """The device if this process has used it."""
    return _Process.devices.get(index_of(which))


def all_used() -> list[Device]:
    """Every device this process has used."""
    return [_Process.devices[k] for k in sorted(_Process.devices)]


def current() -> int:
    """Number of this thread's current device."""
    cuda.get()
    return _Process.local.index


def set_current(index: int) -> int:
    """Change this thread's current device; returns the one before."""
    cuda.get().check_index(index)
    before, _Process.local.index = _Process.local.index, index
    return before


def host_memory() -> Allocator:
    """Page-locked memory of this process. Its blocks belong to no stream; name the ones that use them with ``used_by``."""
    if _Process.host is None:
        first = get()
        driver, marks = first.driver, Marks(first.driver)

        def take(nbytes: int) -> int:
            driver.use(first.index)
            return driver.alloc_host(nbytes)

        def give(pointer: int) -> None:
            driver.use(first.index)
            driver.free_host(pointer)

        def settle() -> None:
            for device in all_used():
                device.synchronize()

        with _Process.lock:
            if _Process.host is None:
                _Process.host = Allocator(take, give, mark=marks.make, passed=marks.passed, settle=settle,
                                          where="Page-locked host memory:")
    return _Process.host


def host_memory_used() -> Allocator | None:
    """Page-locked memory, if any was asked for."""
    return _Process.host


# ------------------------------------------------------------------------------------------------------------ streams
def settle() -> None:
    """Send what this thread has recorded so far, so that streams get work in the order of the program. Inside a compiled call
    nothing is sent before its end."""
    if not recorder.state.hold and not recorder.state.tracing:
        recorder.flush()


class Stream:
    """A queue of work on a device. ``Stream(device=None, priority=0)``: lower priorities run first.

    ``with stream:`` makes it (and its device) current. ``cuda_stream`` is its address, for other libraries.
    """

    __slots__ = ("owner", "handle", "cuda_stream", "priority", "_keep", "_outer", "__weakref__")
    owner: Device
    handle: Any
    cuda_stream: int
    priority: int

    def __init__(self, device: Any = None, priority: int = 0, **kwargs: Any):
        if kwargs:
            raise TypeError(f"Stream() got an unexpected keyword argument '{next(iter(kwargs))}'")
        if isinstance(device, int) and device < 0:
            device = None
        owner = get(device)
        owner.driver.use(owner.index)
        idle = owner.idle.get(priority)
        handle = idle.pop() if idle else owner.driver.stream(priority)
        self._fill(owner, handle, priority, keep=False)

    def _fill(self, owner: Device, handle: Any, priority: int, keep: bool) -> None:
        self.owner, self.handle, self.priority, self._keep = owner, handle, priority, keep
        self.cuda_stream = int(handle)
        self._outer: list[tuple[int, int, Stream | None]] = []

    @classmethod
    def _of(cls, owner: Device, handle: Any) -> Stream:
        """A stream that is not ours to reuse."""
        new = cls.__new__(cls)
        new._fill(owner, handle, 0, keep=True)
        return new

    def __del__(self) -> None:
        if not getattr(self, "_keep", True):
            self.owner.idle.setdefault(self.priority, []).append(self.handle)

    @property
    def device(self) -> DeviceName:
        return DeviceName("cuda", self.owner.index)

    @property
    def key(self) -> Key:
        """What allocators call this stream."""
        return self.owner.index, self.cuda_stream

    @property
    def driver(self) -> Driver:
        """The driver, with this stream's device current."""
        self.owner.driver.use(self.owner.index)
        return self.owner.driver

    def query(self) -> bool:
        """Whether everything sent so far has been done."""
        return self.driver.done("cuStreamQuery", self.handle)

    def synchronize(self) -> None:
        """Wait until everything so far has been done."""
        settle()
        self.drain()
        self.owner.check_faults()

    def drain(self) -> None:
        """Wait until everything sent so far has been done."""
        self.driver.call("cuStreamSynchronize", self.handle)

    def wait_event(self, event: Event) -> None:
        """Work sent from now on waits for ``event``."""
        event.wait(self)

    def wait_stream(self, stream: Stream) -> None:
        """Work from now on waits for what ``stream`` was given so far."""
        settle()
        self.follow(stream)

    def follow(self, stream: Stream) -> None:
        """Work sent from now on waits for what was sent to ``stream`` so far."""
        self.wait_event(stream.mark())

    def record_event(self, event: Event | None = None) -> Event:
        """Record ``event`` (a new one by default) behind everything so far."""
        settle()
        return self.mark(event)

    def mark(self, event: Event | None = None) -> Event:
        """Record ``event`` (a new one by default) behind what was sent so far."""
        event = Event() if event is None else event
        event.place(self)
        return event

    def __enter__(self) -> Stream:
        settle()
        local, index = _Process.local, self.owner.index
        self._outer.append((local.index, index, local.streams.get(index)))
        local.index, local.streams[index] = index, self
        return self

    def __exit__(self, *exc: object) -> None:
        if not exc or exc[0] is None:
            settle()
        local = _Process.local
        local.index, index, before = self._outer.pop()
        if before is None:
            local.streams.pop(index, None)
        else:
            local.streams[index] = before

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.cuda_stream

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"<torch.cuda.Stream device={self.device} cuda_stream={self.cuda_stream:#x}>"


class ExternalStream(Stream):
    """A stream another library made, by its address."""

    __slots__ = ()

    def __init__(self, stream_ptr: int, device: Any = None, **kwargs: Any):
        owner = get(device)
        self._fill(owner, owner.driver.external_stream(int(stream_ptr)), 0, keep=True)


def current_stream(device: Any = None) -> Stream:
    """This thread's stream on a device."""
    owner = get(device)
    return _Process.local.streams.get(owner.index) or owner.default


def set_stream(stream: Stream | None) -> None:
    """Make ``stream`` and its device current in this thread; None does nothing."""
    if stream is not None:
        settle()
        _Process.local.index = stream.owner.index
        _Process.local.streams[stream.owner.index] = stream


# ------------------------------------------------------------------------------------------------------------- events
class Event:
    """A mark in a stream's work; with ``enable_timing`` also a clock. Made on the device when first recorded.

    ``blocking``: waiting for it sleeps instead of spinning. Events between processes are not supported.
    """

    __slots__ = ("enable_timing", "blocking", "owner", "handle", "__weakref__")

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False,
                 external: bool = False):
        if interprocess:
            raise NotImplementedError("events shared between processes are not supported")
        cuda.get()
        self.enable_timing, self.blocking = enable_timing, blocking
        self.owner: Device | None = None
        self.handle: Any = None

    @property
    def cuda_event(self) -> int:
        """Its address; 0 before it was recorded."""
        return 0 if self.handle is None else int(self.handle)

    @property
    def device(self) -> DeviceName | None:
        return None if self.owner is None else DeviceName("cuda", self.owner.index)

    def record(self, stream: Stream | None = None) -> None:
        """Mark what ``stream`` (default: the current one) was given so far."""
        settle()
        self.place(current_stream() if stream is None else stream)

    def place(self, stream: Stream) -> None:
        """Mark what was sent to ``stream`` so far."""
        if self.owner is None:
            self.handle = stream.driver.event(self.enable_timing, self.blocking)
            self.owner = stream.owner
        elif self.owner is not stream.owner:
            raise DeviceError(f"Event device {self.owner.index} does not match recording stream's device {stream.owner.index}.")
        stream.driver.call("cuEventRecord", self.handle, stream.handle)

    def wait(self, stream: Stream | None = None) -> None:
        """Work sent to ``stream`` (default: the current one) from now on waits for this event."""
        stream = current_stream() if stream is None else stream
        if self.handle is not None:
            stream.driver.call("cuStreamWaitEvent", stream.handle, self.handle, 0)

    def query(self) -> bool:
        """Whether the marked work has been done; True before the first record."""
        return self.owner is None or self._driver().done("cuEventQuery", self.handle)

    def synchronize(self) -> None:
        """Wait until the marked work has been done."""
        if self.owner is not None:
            self._driver().call("cuEventSynchronize", self.handle)

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this event to ``end_event``; both must be timed, recorded and over."""
        if not (self.enable_timing and end_event.enable_timing):
            raise ArgumentError("Both events must be created with argument 'enable_timing=True'.")
        if self.handle is None or end_event.handle is None:
            raise ArgumentError("Both events must be recorded before calculating elapsed time.")
        if not (self.query() and end_event.query()):
            raise ArgumentError("Both events must be completed before calculating elapsed time.")
        return float(self._driver().call("cuEventElapsedTime", self.handle, end_event.handle))

    def _driver(self) -> Driver:
        assert self.owner is not None
        self.owner.driver.use(self.owner.index)
        return self.owner.driver

    def __del__(self) -> None:
        owner: Device | None = getattr(self, "owner", None)
        if owner is not None and usable(owner.driver):
            quietly(partial(owner.driver.call, "cuEventDestroy", self.handle))

    def __repr__(self) -> str:
        return f"<torch.cuda.Event {self.cuda_event:#x}>" if self.handle is not None else "<torch.cuda.Event uninitialized>"


def usable(driver: Driver) -> bool:
    """Whether handles of this driver still mean something: not after a lost context, a fork or a reset."""
    return driver is cuda._Process.driver and not driver.broken


def quietly(action: Callable[[], object]) -> None:
    """Do something in a finalizer: at the end of a process the driver may be gone already."""
    try:
        action()
    except Exception:
        if os.environ.get("GRAPHC_STRICT"):
            raise


__all__ = ["Device", "Event", "ExternalStream", "Stream", "all_used", "current", "current_stream", "get", "host_memory",
           "host_memory_used", "index_of", "set_current", "set_stream", "used"]
