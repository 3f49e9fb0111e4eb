"""Modules, functions, and lists of launches whose arguments are packed once.

A :class:`LaunchList` is a plan's kernels in order. All their arguments lie in one buffer that is built once by
:meth:`LaunchList.link`; a call writes only the addresses and numbers that may change and hands the driver one pointer per
launch. The driver copies arguments when it is called, so the buffer is free again afterwards.
"""
from __future__ import annotations

import math
import os
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ...errors import ArgumentError, CompileError
from . import driver as cuda
from .buffer import DeviceBuffer, empty
from .device import Device, Stream, quietly, usable

PLAIN_SHARED = 48 << 10  # bytes of shared memory a kernel may use without asking
# Parameter types as Triton spells them: struct format. Half-precision numbers take two bytes.
FORMATS = {"i1": "?", "i8": "b", "u8": "B", "i16": "h", "u16": "H", "i32": "i", "u32": "I", "i64": "q", "u64": "Q",
           "fp16": "e", "bf16": "H", "fp32": "f", "fp64": "d"}
WARP = 32  # threads
TENSOR_MAP = 128  # bytes of a CUtensorMap ("tma"), 64-byte aligned


class Pointer(NamedTuple):
    """An argument that is the call's ``number``-th address plus ``offset`` bytes."""

    number: int
    offset: int = 0


class Scratch(NamedTuple):
    """An argument that is the address of the list's scratch memory."""


class Number(NamedTuple):
    """An argument that is the call's ``number``-th scalar, passed by value."""

    number: int


class Module:
    """Machine code on a device. ``image``: cubin bytes (or PTX text)."""

    __slots__ = ("owner", "handle", "__weakref__")

    def __init__(self, owner: Device, image: bytes, label: str = "module"):
        self.owner, self.handle = owner, None
        owner.driver.use(owner.index)
        try:
            self.handle = owner.driver.call("cuModuleLoadData", image)
        except cuda.CudaError as error:
            p = owner.properties
            raise CompileError(f"{label} cannot be loaded on cuda:{owner.index} ({p.name}, sm_{p.major}{p.minor}): "
                               f"{error}") from error

    def function(self, name: str) -> Function:
        """A kernel by its entry name. Raises CompileError if there is none."""
        return Function(self, name)

    def __del__(self) -> None:
        if getattr(self, "handle", None) is not None and usable(self.owner.driver):
            quietly(self._unload)

    def _unload(self) -> None:
        with self.owner.driver.within(self.owner.index):
            self.owner.driver.call("cuModuleUnload", self.handle)


class Function:
    """A kernel on a device. ``registers`` per thread, ``spills`` (local bytes per thread), ``static_shared`` bytes."""

    __slots__ = ("module", "owner", "name", "handle", "registers", "spills", "static_shared", "max_threads", "allowed")

    def __init__(self, module: Module, name: str):
        self.module, self.owner, self.name = module, module.owner, name
        driver = self.owner.driver
        driver.use(self.owner.index)
        try:
            self.handle = driver.call("cuModuleGetFunction", module.handle, name.encode())
        except cuda.CudaError as error:
            raise CompileError(f"the module has no kernel {name!r}: {error}") from error
        self.registers = driver.function_attribute(self.handle, cuda.REGISTERS)
        self.spills = driver.function_attribute(self.handle, cuda.LOCAL_BYTES)
        self.static_shared = driver.function_attribute(self.handle, cuda.STATIC_SHARED)
        self.max_threads = driver.function_attribute(self.handle, cuda.MAX_THREADS)
        self.allowed = PLAIN_SHARED - self.static_shared

    def allow_shared(self, nbytes: int) -> None:
        """Let launches use ``nbytes`` of dynamic shared memory. Raises CompileError if the device has less."""
        if nbytes <= self.allowed:
            return
        limit = self.owner.properties.shared_memory_per_block_optin
        if nbytes + self.static_shared > limit:
            raise CompileError(f"kernel {self.name} needs {nbytes + self.static_shared} bytes of shared memory, "
                               f"{self.owner.properties.name} has {limit} per block")
        self.owner.driver.use(self.owner.index)
        self.owner.driver.set_function_attribute(self.handle, cuda.DYNAMIC_SHARED, nbytes)
        self.allowed = nbytes

    def parameter_sizes(self) -> list[int] | None:
        """Bytes of each parameter as the machine code says; None if the driver cannot tell (before CUDA 12.4)."""
        self.owner.driver.use(self.owner.index)
        return self.owner.driver.parameter_sizes(self.handle)

    def allow_big_clusters(self) -> None:
        """Let launches use clusters of more than 8 blocks."""
        self.owner.driver.use(self.owner.index)
        self.owner.driver.set_function_attribute(self.handle, cuda.BIG_CLUSTER, 1)


class Kernel(NamedTuple):
    """A compiled Triton kernel on a device. ``scratch``: bytes of global memory each block needs."""

    function: Function
    threads: int
    shared: int
    ctas: int
    scratch: int


def load(owner: Device, compiled: Any) -> Kernel:
    """A kernel of ``codegen.triton.compiler.Compiled`` on a device; loaded once. Raises CompileError if it cannot run there."""
    found = owner.kernels.get(compiled.symbol)
    if found is None or found[0] != compiled.code:
        function = Module(owner, compiled.code, f"kernel {compiled.symbol}").function(compiled.entry)
        align = max(1, compiled.scratch_align)
        made = Kernel(function, WARP * compiled.warps, compiled.shared, compiled.ctas, -(-compiled.scratch // align) * align)
        found = owner.kernels[compiled.symbol] = (compiled.code, made)
    return found[1]


def layout(types: Sequence[str]) -> tuple[list[int], int, int]:
    """(offset of each parameter, bytes, alignment) of an argument block: every parameter at its natural alignment."""
    offsets, at, widest = [], 0, 8
    for t in types:
        if t == "tma":
            size, align = TENSOR_MAP, 64
        else:
            size = align = 8 if t.startswith("*") else struct.calcsize("=" + _format(t))
        at = -(-at // align) * align
        offsets.append(at)
        at, widest = at + size, max(widest, align)
    return offsets, at, widest


def _format(t: str) -> str:
    found = FORMATS.get(t)
    if found is None:
        raise ArgumentError(f"{t!r} is not a kernel parameter type (known: pointers, tma, {', '.join(FORMATS)})")
    return found


def pack(t: str, value: Any) -> bytes:
    """One argument's bytes. Raises ArgumentError for a value that does not fit its type."""
    try:
        if t == "tma":
            data = bytes(value)
            if len(data) != TENSOR_MAP:
                raise ValueError(f"a tensor map has {TENSOR_MAP} bytes, not {len(data)}")
            return data
        if t.startswith("*"):
            return struct.pack("=Q", int(value))
        if t == "bf16":
            bits = int(np.float32(value).view(np.uint32))
            nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
            return struct.pack("=H", 0x7FC0 if value != value else nearest)
        return struct.pack("=" + _format(t), value)
    except (struct.error, TypeError, ValueError, OverflowError) as error:
        raise ArgumentError(f"kernel argument of type {t}: {value!r}: {error}") from None


@dataclass(frozen=True)
class Launch:
    """One kernel launch of a list. ``values``: an int or float, bytes (tensor maps), :class:`Pointer` or :class:`Number`.

    ``block``: threads. ``shared``: bytes. ``attributes``: (launch attribute, value) pairs. ``lines``: where the user's
    program recorded it, for errors.
    """

    function: Function
    grid: tuple[int, int, int]
    block: int
    shared: int
    types: tuple[str, ...]
    values: tuple[Any, ...]
    attributes: tuple[tuple[int, Any], ...] = ()
    lines: str = ""


@dataclass(frozen=True)
class Copy:
    """``nbytes`` from one address to another on the device, in order with the launches."""

    dst: int | Pointer
    src: int | Pointer
    nbytes: int


@dataclass(frozen=True)
class Fill:
    """``nbytes`` bytes set to ``byte``, in order with the launches."""

    dst: int | Pointer
    byte: int
    nbytes: int


def _address(where: int | Pointer, pointers: Sequence[int]) -> int:
    return pointers[where.number] + where.offset if isinstance(where, Pointer) else where


class LaunchList:
    """Launches, copies and fills that run in order, on one stream at a time; see the module's text."""

    def __init__(self, owner: Device, label: str = "plan"):
        self.owner, self.label = owner, label
        self.launches: list[Launch | Copy | Fill] = []
        self.lock = threading.Lock()
        self.scratch_bytes = 0
        self.scratch: DeviceBuffer | None = None
        self.linked = False
        self.blocking = os.environ.get("CUDA_LAUNCH_BLOCKING", "0") not in ("", "0")

    def add(self, function: Function, grid: Sequence[int], block: int, types: Sequence[str], values: Sequence[Any], *,
            shared: int = 0, ctas: int = 1, cooperative: bool = False, overlap: bool = False, lines: str = "") -> Launch:
        """Append a launch of ``grid`` (up to three sides) clusters of ``ctas`` blocks with ``block`` threads.

        ``overlap``: it may start before the one before has ended (programmatic dependent launch). Raises ArgumentError
        for arguments that do not fit the types or the device, CompileError for too much shared memory.
        """
        if function.owner is not self.owner:
            raise ArgumentError(f"kernel {function.name} is loaded on cuda:{function.owner.index}, the list runs on "
                                f"cuda:{self.owner.index}")
        sides = (*grid, 1, 1)[:3]
        full = (sides[0] * ctas, sides[1], sides[2])
        if len(grid) > 3 or min(full) < 1 or full[0] >= 1 << 31 or max(full[1:]) > 65535:
            raise ArgumentError(f"kernel {function.name}: a grid of {list(grid)} programs cannot be launched")
        if not 1 <= block <= function.max_threads:
            raise ArgumentError(f"kernel {function.name}: {block} threads a block, it allows {function.max_threads}")
        if len(types) != len(values):
            raise ArgumentError(f"kernel {function.name}: {len(types)} parameters, {len(values)} arguments")
        function.allow_shared(shared)
        attributes: list[tuple[int, Any]] = []
        if ctas > 1:
            attributes += [(cuda.CLUSTER_DIMENSION, (ctas, 1, 1)), (cuda.CLUSTER_POLICY, 1)]
            if ctas > 8:
                function.allow_big_clusters()
        if cooperative:
            attributes.append((cuda.COOPERATIVE, 1))
        if overlap:
            attributes.append((cuda.OVERLAP, 1))
        launch = Launch(function, full, block, shared, tuple(types), tuple(values), tuple(attributes), lines)
        self.launches.append(launch)
        self.linked = False
        return launch

    def add_kernel(self, kernel: Kernel, grid: Sequence[int], types: Sequence[str], values: Sequence[Any], *,
                   overlap: bool = False, lines: str = "") -> Launch:
        """Append a launch of a Triton kernel, whose two scratch pointers are added here.

        Scratch memory is shared by the launches of the list, which run one after the other (not with ``overlap``).
        """
        need = kernel.scratch * math.prod(grid) * kernel.ctas
        if need and overlap:
            raise ArgumentError(f"kernel {kernel.function.name} uses scratch memory and cannot overlap with another")
        self.scratch_bytes = max(self.scratch_bytes, need)
        return self.add(kernel.function, grid, kernel.threads, (*types, "*i8", "*i8"),
                        (*values, Scratch() if need else 0, 0), shared=kernel.shared, ctas=kernel.ctas, overlap=overlap,
                        lines=lines)

    def add_copy(self, dst: int | Pointer, src: int | Pointer, nbytes: int) -> None:
        """Append a copy on the device."""
        self.launches.append(Copy(dst, src, nbytes))
        self.linked = False

    def add_fill(self, dst: int | Pointer, nbytes: int, byte: int = 0) -> None:
        """Append a fill."""
        self.launches.append(Fill(dst, byte, nbytes))
        self.linked = False

    def link(self) -> None:
        """Build the argument buffer. Done by the first :meth:`run` at the latest."""
        if self.scratch_bytes and (self.scratch is None or self.scratch.nbytes < self.scratch_bytes):
            self.scratch = empty(self.scratch_bytes, self.owner.index, tag=f"scratch of {self.label}")
        places, size = [], 0
        launches = [x for x in self.launches if isinstance(x, Launch)]
        for launch in launches:
            offsets, nbytes, align = layout(launch.types)
            size = -(-size // align) * align
            places.append([size + o for o in offsets])
            size += nbytes
        self.raw = np.zeros(size + 64, np.uint8)
        self.start = -self.raw.ctypes.data % 64
        base = self.raw.ctypes.data + self.start
        self.table = np.zeros(max(1, sum(len(p) for p in places)), np.uint64)
        words: list[tuple[int, Pointer]] = []
        self.numbers: list[tuple[int, str, int]] = []  # (which scalar, type, where)
        self.calls: list[tuple[Any, tuple[Any, ...], Any]] = []  # (None, a configuration, Copy or Fill; function...; arguments)
        driver, at, rest = self.owner.driver, 0, iter(places)
        for x in self.launches:
            if not isinstance(x, Launch):
                self.calls.append((x, (), 0))
                continue
            launch, offsets = x, next(rest)
            for place, t, value in zip(offsets, launch.types, launch.values):
                if isinstance(value, Pointer):
                    words.append((place, value))
                elif isinstance(value, Number):
                    self.numbers.append((value.number, t, self.start + place))
                else:
                    if isinstance(value, Scratch):
                        assert self.scratch is not None
                        value = self.scratch.ptr
                    self._write(self.start + place, pack(t, value))
            self.table[at:at + len(offsets)] = [base + o for o in offsets]
            params = self.table.ctypes.data + 8 * at
            at += len(offsets)
            config = None
            if launch.attributes:
                config = driver.launch_config(launch.grid, launch.block, launch.shared, list(launch.attributes))
            head = (launch.function.handle, *launch.grid, launch.block, 1, 1, launch.shared)
            self.calls.append((config, head, params))
        self.words = self.raw[self.start:self.start + size // 8 * 8].view(np.int64)
        self.where = np.array([place // 8 for place, _ in words], np.intp)
        self.which = np.array([p.number for _, p in words], np.intp)
        self.plus = np.array([p.offset for _, p in words], np.int64)
        moved = [p.number for x in self.launches if isinstance(x, (Copy, Fill))
                 for p in (x.dst, x.src if isinstance(x, Copy) else 0) if isinstance(p, Pointer)]
        self.n_pointers = max([*moved, *self.which.tolist()], default=-1) + 1
        self.n_numbers = max([k for k, _, _ in self.numbers], default=-1) + 1
        self.last: tuple[int, ...] | None = None
        self.linked = True

    def _write(self, at: int, data: bytes) -> None:
        self.raw[at:at + len(data)] = np.frombuffer(data, np.uint8)

    def patch(self, pointers: Sequence[int], numbers: Sequence[Any] = ()) -> None:
        """Write the addresses and numbers of a call into the argument buffer."""
        if not self.linked:
            self.link()
        if len(pointers) < self.n_pointers or len(numbers) < self.n_numbers:
            raise ArgumentError(f"{self.label}: {self.n_pointers} addresses and {self.n_numbers} numbers are needed, got "
                                f"{len(pointers)} and {len(numbers)}")
        key = tuple(pointers)
        if key != self.last:
            if len(self.where):
                self.words[self.where] = np.array(key, np.int64)[self.which] + self.plus
            self.last = key
        for k, t, at in self.numbers:
            self._write(at, pack(t, numbers[k]))

    def run(self, stream: Stream, pointers: Sequence[int] = (), numbers: Sequence[Any] = ()) -> None:
        """Send every launch to ``stream``. Raises CudaError that names the kernel and the user's line."""
        if stream.owner is not self.owner:
            raise ArgumentError(f"{self.label} runs on cuda:{self.owner.index}, the stream is on cuda:{stream.owner.index}")
        with self.lock:
            self.patch(pointers, numbers)
            driver, handle = stream.driver, stream.handle
            if not driver.recent or driver.recent[-1] != self.label:
                driver.recent.append(self.label)
            plain = driver.cu.cuLaunchKernel
            for k, (kind, head, params) in enumerate(self.calls):
                if kind is None:
                    result = plain(*head, handle, params, 0)
                else:
                    result = _special(driver.cu, kind, head, params, handle, pointers)
                if result[0]:
                    self._failed(k, "cuLaunchKernel", int(result[0]))
                if self.blocking and not driver.capturing(handle):
                    code = int(driver.cu.cuStreamSynchronize(handle)[0])
                    if code:
                        self._failed(k, "cuStreamSynchronize", code)

    def _failed(self, k: int, name: str, code: int) -> None:
        x = self.launches[k]
        what = str(x)
        if isinstance(x, Launch):
            what = f"kernel {x.function.name}" + (f" (recorded at {x.lines})" if x.lines else "")
        raise self.owner.driver.error(name, code, f"{what}, launch {k + 1} of {len(self.launches)} of {self.label}")

    def describe(self) -> str:
        """The list as text: kernel, grid, threads, shared bytes, registers, spilled bytes, arguments."""
        rows = []
        for launch in self.launches:
            if not isinstance(launch, Launch):
                rows.append(str(launch))
                continue
            f = launch.function
            args = ", ".join(f"{t}={v!r}" if not isinstance(v, bytes) else t for t, v in zip(launch.types, launch.values))
            rows.append(f"{f.name} grid={launch.grid} threads={launch.block} shared={launch.shared} registers={f.registers} "
                        f"spills={f.spills} ({args})")
        return "\n".join(rows)


def _special(cu: Any, kind: Any, head: tuple[Any, ...], params: int, handle: Any, pointers: Sequence[int]) -> Any:
    """Send a launch with attributes, a copy or a fill; the driver's answer."""
    if isinstance(kind, Copy):
        return cu.cuMemcpyDtoDAsync(_address(kind.dst, pointers), _address(kind.src, pointers), kind.nbytes, handle)
    if isinstance(kind, Fill):
        return cu.cuMemsetD8Async(_address(kind.dst, pointers), kind.byte, kind.nbytes, handle)
    kind.hStream = handle
    return cu.cuLaunchKernelEx(kind, head[0], params, 0)
