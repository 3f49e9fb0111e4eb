"""Times of candidate kernels on a device, for ``mode="max-autotune"``.

Kernels run on memory of their own with random numbers in it (products of zeros are faster than they should be), a few times
after a first run, each time with the second-level cache overwritten before; the median counts, by the device's clock. After
the first run a sample of what the kernels wrote is compared with that of the choice's first candidate.
"""
from __future__ import annotations

import statistics
import weakref
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ...codegen.triton import autotune, compiler
from ...codegen.triton.compiler import Target
from ...codegen.triton.printer import Printed
from ...errors import GraphcError
from . import buffer as buffers
from . import device as devices
from .buffer import DeviceBuffer
from .device import Device, Event
from .launch import LaunchList, Pointer, load

RUNS = 9
LONG = 20e-3  # seconds of a run from which on three runs are enough
SAMPLED = 3 << 16  # elements of a result that are looked at
FAR = 0.05  # of the largest magnitude: sums in another order differ by less, other numbers by more
FLUSHED = 128 << 20  # bytes written between runs: more than any second-level cache
_NUMBERS = {"fp16": np.float16, "fp32": np.float32, "fp64": np.float64, "bf16": np.uint16}
Compile = Callable[[Iterable[Printed]], dict[str, Any]]


class Bench:
    """Measures kernels on a device. ``flush``: bytes overwritten before each run, 0 for a warm cache."""

    def __init__(self, owner: Device, compile: Compile, flush: int = FLUSHED):
        self.owner, self.compile, self.flush = owner, compile, flush
        self.reference: tuple[autotune.Memory, dict[Any, np.ndarray]] | None = None  # of the choice measured last

    def __call__(self, printed: Sequence[Printed], choice: autotune.Memory) -> float:
        """Seconds of one run of the kernels in order. Raises whatever compiling and running raises, GraphcError for results
        unlike those of the choice's first candidate."""
        code = self.compile(printed)
        stream = devices.current_stream(self.owner.index)
        memory: dict[Any, DeviceBuffer] = {}
        launches = LaunchList(self.owner, "a measurement")
        keys: list[Any] = []
        kinds: dict[Any, str] = {}
        for p in printed:
            values: list[Any] = []
            for a in p.args:
                if a.type[0] != "*":
                    values.append(a.value)
                    continue
                if a.value not in memory:
                    memory[a.value] = self.filled(choice.sizes.get(a.value, 256), a.type[1:], a.value)
                    keys.append(a.value)
                    kinds[a.value] = a.type[1:]
                values.append(Pointer(keys.index(a.value)))
            launches.add_kernel(load(self.owner, code[p.symbol]), (p.programs(),), [a.type for a in p.args], values)
        pointers = tuple([memory[k].ptr for k in keys])
        spoiler = buffers.empty(self.flush, self.owner.index, stream, "measurement") if self.flush else None
        times: list[float] = []
        for run in range(1 + RUNS):
            start, end = Event(enable_timing=True), Event(enable_timing=True)
            if spoiler is not None:
                buffers.fill(spoiler, run, stream)
            start.place(stream)
            launches.run(stream, pointers)
            end.place(stream)
            end.synchronize()
            if not run:
                self.check(choice, {k: self.sampled(memory[k], kinds[k]) for k in keys if k not in choice.scratch})
            else:  # the first one loads code and fills caches
                times.append(start.elapsed_time(end) / 1e3)
                if len(times) >= 3 and times[-1] > LONG:
                    break
        return statistics.median(times)

    def sampled(self, memory: DeviceBuffer, kind: str) -> np.ndarray:
        """Up to SAMPLED elements in three runs, as float64."""
        dt = np.dtype(_NUMBERS.get(kind, np.uint8))
        n, part = memory.nbytes // dt.itemsize, SAMPLED // 3
        flat = np.empty(min(n, 3 * part), dt)
        for i, at in enumerate((0, (n - part) // 2, n - part) if n > 3 * part else ()):
            buffers.to_host(memory.view(at * dt.itemsize, part * dt.itemsize), flat[i * part:(i + 1) * part])
        if n <= 3 * part:
            buffers.to_host(memory, flat)
        return ((flat.astype(np.uint32) << 16).view(np.float32) if kind == "bf16" else flat).astype(np.float64)

    def check(self, choice: autotune.Memory, found: dict[Any, np.ndarray]) -> None:
        """Compare with the choice's first candidate that ran."""
        if self.reference is None or self.reference[0] is not choice:
            self.reference = choice, found
            return
        for key, want in self.reference[1].items():
            got = found.get(key)
            if got is None:
                continue
            with np.errstate(invalid="ignore", over="ignore"):
                finite = np.isfinite(want)
                far = np.abs(got - want)[finite] > FAR * np.abs(want[finite]).max(initial=0.0)
            if not np.array_equal(np.isfinite(got), finite) or far.any():
                raise GraphcError(f"a candidate computes something else: {int(far.sum())} of {want.size} elements of {key!r}")

    def filled(self, nbytes: int, kind: str, name: Any = 0) -> DeviceBuffer:
        """Memory with numbers between -1 and 1, by its name; zeros for integers, which may be indices."""
        whole = buffers.empty(nbytes, self.owner.index, tag="measurement")
        if kind not in _NUMBERS:
            buffers.fill(whole, 0)
            return whole
        dt = np.dtype(_NUMBERS[kind])
        rng = np.random.default_rng(zlib.crc32(repr(name).encode()))
        piece = rng.uniform(-1, 1, min(1 << 20, -(-nbytes // dt.itemsize))).astype(np.float32)
        data = (piece.view(np.uint32) >> 16).astype(np.uint16) if kind == "bf16" else piece.astype(dt)
        done = min(data.nbytes, nbytes // dt.itemsize * dt.itemsize)
        buffers.from_host(whole, data[:done // dt.itemsize])
        while 0 < done < nbytes:
            more = min(done, nbytes - done)
            buffers.copy(whole.view(done, more), whole.view(0, more))
            done += more
        return whole


_TUNERS: weakref.WeakKeyDictionary[Device, autotune.Tuner] = weakref.WeakKeyDictionary()  # a registry of this process


def tuner_of(owner: Device, target: Target, compile: Compile | None = None) -> autotune.Tuner:
    """The tuner of a device: choices last as long as the process, and on disk."""
    found = _TUNERS.get(owner)
    if found is None:
        compile = compile or compiler.compiler(target).get
        p = owner.properties
        stamp = f"{p.name} {p.multi_processor_count} driver {owner.driver.version}"
        found = _TUNERS[owner] = autotune.Tuner(target, Bench(owner, compile), stamp, compile)
    return found


__all__ = ["Bench", "tuner_of"]
