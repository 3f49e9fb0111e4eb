"""CUDA graphs: a plan's launches recorded once and replayed by one call.

Kernel arguments are fixed when a graph is captured. What changes from step to step is therefore read from device memory:
numbers, seeds and step counts from :class:`Cells`; addresses are those of the plan's own arena, or cause another capture.
"""
from __future__ import annotations

import gc
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...errors import ArgumentError
from . import buffer as buffers
from .device import Device, Event, Stream, quietly, usable
from .launch import LaunchList, pack

KEPT = 4  # graphs a Replay keeps, one per set of addresses
MIRRORS = 4  # host copies of the cells: how many steps the host may be ahead of the device
CELL = 16  # bytes; kernels are compiled for addresses divisible by 16
_FORMATS = {name: f"{code}{CELL - struct.calcsize('=' + code)}x" for name, code in {
    "bool": "?", "uint8": "B", "int8": "b", "int16": "h", "int32": "i", "int64": "q", "uint32": "I", "uint64": "Q",
    "float16": "e", "bfloat16": "2s", "float32": "f", "float64": "d"}.items()}


class Graph:
    """An executable graph; :meth:`launch` replays it. The memory it works on must live as long as it is replayed."""

    __slots__ = ("owner", "handle", "keep", "done", "__weakref__")

    def __init__(self, owner: Device, handle: Any, keep: Any = None):
        self.owner, self.handle, self.keep = owner, handle, keep
        self.done: Event | None = None  # behind the last launch

    def launch(self, stream: Stream) -> None:
        """Replay on ``stream``. Launches of one graph run one after the other."""
        stream.driver.call("cuGraphLaunch", self.handle, stream.handle)
        self.done = stream.mark(self.done)

    def free(self) -> None:
        """Wait for the last launch and destroy the graph."""
        handle, self.handle = self.handle, None
        if handle is not None and usable(self.owner.driver):
            with self.owner.driver.within(self.owner.index):
                if self.done is not None:
                    self.done.synchronize()
                self.owner.driver.call("cuGraphExecDestroy", handle)

    def __del__(self) -> None:
        if getattr(self, "handle", None) is not None:
            quietly(self.free)


def record(owner: Device, work: Callable[[Stream], None], stream: Stream | None = None) -> Any:
    """What ``work`` sends to a stream, as a graph handle that the caller destroys. The stream is left as it was if it fails."""
    stream = Stream(owner.index) if stream is None else stream
    driver = stream.driver
    collecting = gc.isenabled()
    gc.disable()  # a finalizer in the middle could wait for the device, which spoils the capture
    try:
        driver.begin_capture(stream.handle)
        try:
            work(stream)
        except BaseException:
            spoilt = quietly_end(driver, stream)
            if spoilt is not None:
                driver.call("cuGraphDestroy", spoilt)
            raise
        return driver.call("cuStreamEndCapture", stream.handle)
    finally:
        if collecting:
            gc.enable()


def quietly_end(driver: Any, stream: Stream) -> Any:
    """End a capture that failed: the graph so far, or None if there is none."""
    result = driver.cu.cuStreamEndCapture(stream.handle)
    return result[1] if not int(result[0]) and int(result[1]) else None


def capture(owner: Device, work: Callable[[Stream], None], stream: Stream | None = None) -> Graph:
    """Record ``work(stream)`` and make it executable. ``work`` must not wait for the device.

    The graph keeps ``work`` and so the kernels it refers to, which must not be unloaded before it.
    """
    graph = record(owner, work, stream)
    driver = owner.driver
    driver.use(owner.index)
    try:
        return Graph(owner, driver.call("cuGraphInstantiate", graph, 0), work)
    finally:
        driver.call("cuGraphDestroy", graph)


class Replay:
    """A list of launches, as a graph where that pays: plain the first time with a set of addresses, captured the second.

    Up to ``KEPT`` graphs are kept, one per set of addresses; the one not used for longest is given the new addresses.
    Numbers by value would be frozen by a capture, so lists that take some are refused: put them into :class:`Cells`.
    """

    def __init__(self, launches: LaunchList, warm: int = 1):
        launches.link()
        if launches.n_numbers:
            raise ArgumentError(f"{launches.label}: numbers passed by value cannot be replayed; pass them through Cells")
        self.launches, self.owner, self.warm = launches, launches.owner, warm
        self.known: OrderedDict[tuple[int, ...], Graph | int] = OrderedDict()  # a graph, or how often it ran plain
        self.captured = self.updated = self.replayed = self.plain = 0  # counts, for tests and logs
        self.lock = threading.Lock()

    def run(self, stream: Stream, pointers: Sequence[int] = ()) -> None:
        """Run the launches with these addresses, in order with the stream's work."""
        key = tuple(pointers)
        with self.lock:
            found = self.known.get(key, 0)
            if not isinstance(found, Graph) and found < self.warm:
                self.launches.run(stream, key)
                self.plain += 1
                self._remember(key, found + 1)
                return
            graph = found if isinstance(found, Graph) else self._capture(key)
            self._remember(key, graph)
            graph.launch(stream)
            self.replayed += 1

    def _remember(self, key: tuple[int, ...], what: Graph | int) -> None:
        self.known[key] = what
        self.known.move_to_end(key)
        for old in [k for k, v in self.known.items() if not isinstance(v, Graph)][:-KEPT]:
            del self.known[old]

    def _capture(self, key: tuple[int, ...]) -> Graph:
        graphs = [k for k, v in self.known.items() if isinstance(v, Graph)]
        if len(graphs) >= KEPT:
            old = self.known.pop(graphs[0])
            assert isinstance(old, Graph)
            if self._update(old, key):
                return old
            old.free()
        self.captured += 1
        return capture(self.owner, lambda stream: self.launches.run(stream, key))

    def _update(self, graph: Graph, key: tuple[int, ...]) -> bool:
        """Give an executable graph other addresses; what was launched before keeps the old ones."""
        driver = self.owner.driver
        new = record(self.owner, lambda stream: self.launches.run(stream, key))
        try:
            done = driver.update_graph(graph.handle, new)
        finally:
            driver.call("cuGraphDestroy", new)
        self.updated += done
        return done

    def free(self) -> None:
        """Destroy the graphs."""
        with self.lock:
            for found in self.known.values():
                if isinstance(found, Graph):
                    found.free()
            self.known.clear()


class Cells:
    """Run-time scalars in device memory: one 16-byte cell each, written by one small copy in front of a step.

    ``dtypes``: names such as "float32" or "int64", one per cell. ``pointer(k)`` is the address kernels read cell ``k`` from.
    """

    def __init__(self, owner: Device, dtypes: Sequence[str], stream: Stream | None = None):
        self.owner, self.dtypes = owner, tuple(dtypes)
        unknown = [d for d in self.dtypes if d not in _FORMATS]
        if unknown:
            raise ArgumentError(f"a cell cannot hold {unknown[0]} (known: {', '.join(_FORMATS)})")
        self.packer = struct.Struct("=" + "".join(_FORMATS[d] for d in self.dtypes))
        self.halves = "bfloat16" in self.dtypes
        self.nbytes = max(CELL, self.packer.size)
        self.memory = buffers.empty(self.nbytes, owner.index, stream, "scalars")
        self.mirrors = buffers.pinned((MIRRORS, self.nbytes), np.uint8, "scalars")
        self.events: list[Event | None] = [None] * MIRRORS
        self.turn = 0
        self.last: bytes | None = None

    def pointer(self, k: int) -> int:
        return self.memory.ptr + CELL * range(len(self.dtypes))[k]

    def write(self, values: Sequence[Any], stream: Stream) -> None:
        """Set all cells, in order with the stream's work; does nothing if they hold these values already.

        The cells belong to one stream's work at a time. Raises ArgumentError for values that do not fit.
        """
        try:
            if self.halves:
                values = [pack("bf16", v) if d == "bfloat16" else v for d, v in zip(self.dtypes, values)]
            data = self.packer.pack(*values)
        except (struct.error, OverflowError, TypeError) as error:
            raise ArgumentError(f"scalars {list(values)} do not fit {list(self.dtypes)}: {error}") from None
        if data == self.last or not data:
            return
        k = self.turn % MIRRORS
        event = self.events[k]
        if event is not None:
            event.synchronize()  # the copy from this mirror, MIRRORS steps ago
        mirror = self.mirrors[k]
        mirror[:len(data)] = np.frombuffer(data, np.uint8)
        stream.driver.copy_to_device(self.memory.ptr, mirror.ctypes.data, len(data), stream.handle)
        self.events[k] = stream.mark(event)
        self.turn += 1
        self.last = data
