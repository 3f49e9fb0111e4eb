"""A recorded program over several devices made executable: a :class:`Program` per part on a device, host plans for the rest.

Values on a device are :class:`~.interop.Array` objects over memory that nothing writes any more. Work is sent to the current
stream of each device, and the host waits only where it needs data: for results on the host.
"""
from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np

from ... import config
from ...codegen.devices import Part, Split, split
from ...codegen.triton.passes import gpu_passes
from ...device import CPU, device
from ...dtypes import dtype, float32, int64
from ...errors import CompileError, OutOfMemoryError
from ...ir.interpret import evaluate_each
from ...ir.node import Graph, leaf_value
from ...ir.recorder import SCALAR, scalar_buffer
from . import buffer as buffers
from . import device as devices
from .driver import CudaError
from .interop import Array, contiguous
from .program import Program

HostPlan = Callable[[Graph], Any]
_LIMIT = 1 << 63
TRIED = 32  # values that are computed one by one after an allocation failed
# what a mistake of ours in fusion, selection or printing raises: never the user's problem
_BUGS = (ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError)


def upload(array: np.ndarray, where: device) -> Array:
    """A copy on a device, in order with its current stream."""
    stream = devices.current_stream(where)
    buffer = buffers.empty(array.nbytes, stream=stream, tag="tensor copied from the host")
    buffers.from_host(buffer, array)
    return Array(buffer, array.shape, contiguous(array.shape), array.dtype)


def across(array: Array, where: device) -> Array:
    """A copy on another device."""
    stream = devices.current_stream(where)
    buffer = buffers.empty(array.buffer.nbytes, stream=stream, tag="tensor copied from another device")
    buffers.copy(buffer, array.buffer, stream)
    return array._replace(buffer=buffer)


def moved(value: Any, where: device) -> Any:
    """A host or device array on ``where``."""
    if where is CPU:
        return value if isinstance(value, np.ndarray) else value.fetch()
    if isinstance(value, np.ndarray):
        return upload(value, where)
    return value if value.buffer.device == where.index else across(value, where)


class RegionPlan:
    """A plan over several devices. Called with the region's bindings; returns the outputs' buffers, each on its device."""

    def __init__(self, recorded: Graph, host_plan: HostPlan):
        self.recorded = self.graph = recorded
        self.host_plan = host_plan
        self.whole: Split = split(recorded)
        self.parts = [_HostPart(p, host_plan) if p.device is CPU else _DevicePart(p, host_plan) for p in self.whole.parts]
        wanted = {s for s, _ in self.whole.outputs}  # of numbers: those that are results, or read as arrays
        wanted.update(s for p in self.parts for s, number, _ in p.takes if not number)
        self.numbers = [(s, recorded.inputs[k].avals[0].dtype) for k, s in self.whole.numbers if s in wanted]
        self.run = self
        self.donors: tuple[int, ...] = tuple(self._donors())
        self.outputs = recorded.outputs
        self.shortest = self._shortest()
        taken = {(s, p.device): b for p in self.parts if isinstance(p, _DevicePart) for s, b in p.takers()}
        self.donor_of = {s: taken[at] for s, at in zip(self.outputs, self.whole.outputs) if at in taken}  # slot -> binding

    def _donors(self) -> Iterator[int]:
        """Bindings whose memory results of the only part that reads them would take."""
        binding = {slot: k for k, slot, d in self.whole.leaves if d is not CPU}
        reads = Counter(s for p in self.whole.parts for s in p.reads)
        reads.update(s for s, _ in self.whole.outputs)
        for p in self.parts:
            if isinstance(p, _DevicePart) and p.program is not None:
                for k in p.program.donor_of.values():
                    slot = p.part.reads[k]
                    if slot in binding and reads[slot] == 1 and self.whole.home[slot] is p.device:
                        p.gives[binding[slot]] = k
                        yield binding[slot]

    def _shortest(self) -> Callable[[list[Any], Collection[int]], list[Any]] | None:
        """How to run a plan with one part, on a device, whose results all are results of that part."""
        only = self.parts[0] if len(self.parts) == 1 else None
        if not isinstance(only, _DevicePart) or only.program is None:
            return None
        if any(at not in {(s, only.device) for s in only.writes} for at in self.whole.outputs):
            return None
        part, program, where, gives = only, only.program, only.device, only.gives
        binding = {s: k for k, s, _ in self.whole.leaves} | {s: k for k, s in self.whole.numbers}
        numbers = {s for _, s in self.whole.numbers}
        here = {s for _, s, d in self.whole.leaves if d is where}
        takes = [(binding[s], 0 if s in here else 1 if number and s in numbers else 2, number, av)
                 for s, number, av in part.takes]
        if any(not number and s in numbers for s, number, _ in part.takes):
            return None
        order = [part.writes.index(s) for s, _ in self.whole.outputs]
        straight = order == list(range(len(part.writes)))

        def run(bindings: list[Any], free: Collection[int]) -> list[Any]:
            given = []
            for k, kind, number, av in takes:
                x = bindings[k]
                if kind == 0:
                    given.append(x.buffer.buffer)
                elif kind == 1:
                    given.append(_number(x, av.dtype))
                else:
                    given.append(x.buffer.item() if number else moved(x.buffer, where).buffer)
            out = program(given, devices.current_stream(where), [gives[b] for b in free if b in gives])
            return out if straight else [out[k] for k in order]

        return run

    def __call__(self, bindings: list[Any], free: Collection[int] = ()) -> list[Any]:
        if self.shortest is not None:
            return self.shortest(bindings, free)
        env: dict[tuple[int, device], Any] = {(slot, d): bindings[k].buffer for k, slot, d in self.whole.leaves}
        numbers: dict[int, Any] = {slot: bindings[k] for k, slot in self.whole.numbers}
        home = self.whole.home
        for slot, dt in self.numbers:
            env[slot, CPU] = scalar_buffer(numbers[slot], dt)

        def at(slot: int, where: device) -> Any:
            found = env.get((slot, where))
            if found is None:
                found = env[slot, where] = moved(env[slot, home[slot]], where)
            return found

        for part in self.parts:
            for slot, made in zip(part.writes, part.run(at, numbers, free)):
                env[slot, part.device] = made
        return self.owned([at(slot, d) for slot, d in self.whole.outputs], bindings)

    def owned(self, results: list[Any], bindings: list[Any]) -> list[Any]:
        """Results on the host as arrays that share memory with nothing else; memory on devices is never written again."""
        seen = {id(bindings[k].buffer) for k, _, d in self.whole.leaves if d is CPU}
        for k, r in enumerate(results):
            if isinstance(r, np.ndarray):
                if id(r) in seen or r.base is not None:
                    r = results[k] = r.copy()
                seen.add(id(r))
        return results

    def kernels(self) -> list[str]:
        """Names of the kernels and library calls it runs."""
        return [name for p in self.parts for name in p.kernels()]

    def to_text(self) -> str:
        """The parts as text."""
        return "\n".join(f"on {p.device}:\n{p.to_text()}" for p in self.parts)

    def evaluate_each(self, bindings: list[Any], wanted: Collection[int], error: BaseException) -> list[Any]:
        """After ``error``: every slot's buffer, or the exception of the op it depends on that failed. An error of a device
        is the result of everything there."""
        graph = self.recorded
        if isinstance(error, OutOfMemoryError):
            return self.one_by_one(bindings, wanted, error)
        lost = isinstance(error, CudaError)
        arrays = [b if n.op is SCALAR else leaf_value(n.avals[0], self._known(b.buffer, lost, error))
                  for n, b in zip(graph.inputs, bindings)]
        results = evaluate_each(graph, arrays)
        for slot, av in enumerate(graph.slot_avals()):
            if av.device is not CPU and not isinstance(results[slot], BaseException) and slot in wanted:
                try:
                    results[slot] = error if lost else upload(results[slot], av.device)
                except Exception as again:
                    results[slot] = again
        return results

    def one_by_one(self, bindings: list[Any], wanted: Collection[int], error: BaseException) -> list[Any]:
        """Every wanted slot's buffer by a plan of its own, or ``error``: some may fit where all together did not."""
        results: list[Any] = [None] * len(self.recorded.slot_avals())
        for slot in wanted:
            results[slot] = error
            if len(wanted) <= TRIED:
                try:
                    (results[slot],) = RegionPlan(Graph(self.recorded.nodes, (slot,)), self.host_plan)(bindings)
                except Exception as again:
                    results[slot] = again
        return results

    @staticmethod
    def _known(buffer: Any, lost: bool, error: BaseException) -> Any:
        if isinstance(buffer, np.ndarray):
            return buffer
        return error if lost else buffer.fetch()


def _number(x: Any, dt: dtype) -> Any:
    """A run-time scalar as a number that fits ``dt``."""
    if x.__class__ is float and dt is float32 and -3e38 < x < 3e38:
        return x
    if x.__class__ is int and dt is int64 and -_LIMIT <= x < _LIMIT:
        return x
    return scalar_buffer(x, dt).item()


class _HostPart:
    """A part on the host."""

    def __init__(self, part: Part, host_plan: HostPlan):
        self.part, self.device, self.writes = part, part.device, part.writes
        self.plan = host_plan(part.graph)
        self.takes = [(slot, leaf.op is SCALAR, leaf.avals[0]) for slot, leaf in zip(part.reads, part.graph.inputs)]

    def run(self, at: Any, numbers: dict[int, Any], free: Collection[int]) -> list[Any]:
        given = [numbers[s] if number else leaf_value(av, at(s, CPU)) for s, number, av in self.takes]
        out: list[Any] = self.plan(given)
        return out

    def kernels(self) -> list[str]:
        run = self.plan.run
        return run.kernels() if hasattr(run, "kernels") else []

    def to_text(self) -> str:
        return self.plan.run.to_text() if hasattr(self.plan.run, "to_text") else "NumPy"


def _dump(program: Program) -> None:
    """What GRAPHC_DUMP asks for: the graph, the launches, the sources of kernels."""
    from ...ir import dump

    if "plan" in config.DUMP:
        dump.emit("plan", program.graph)
    if "kernels" in config.DUMP:
        dump.emit_text("kernels", program.to_text())
    if "src" in config.DUMP:
        for x in program.kernels():
            dump.emit_text(f"src.{x.printed.symbol}", x.printed.source, ".py")


class _DevicePart:
    """A part on a device; on the host between copies if it cannot be compiled."""

    def __init__(self, part: Part, host_plan: HostPlan):
        self.part, self.device, self.writes = part, part.device, part.writes
        self.program: Program | None = None
        self.gives: dict[int, int] = {}  # binding of the region -> input whose memory a result may take
        try:
            self.program = self._compiled()
            graph = self.program.graph
            if config.DUMP:
                _dump(self.program)
        except CompileError as error:
            if config.STRICT:
                raise
            warnings.warn(f"{error}; this program runs on the host instead, with copies to and from {part.device} "
                          f"(GRAPHC_STRICT=1 makes this an error)", stacklevel=2)
            self.plan, graph = host_plan(part.graph), part.graph
        self.takes = [(slot, leaf.op is SCALAR, leaf.avals[0]) for slot, leaf in zip(part.reads, graph.inputs)]

    def _compiled(self) -> Program:
        try:
            return Program(gpu_passes(self.part.graph), devices.get(self.device.index))
        except _BUGS as bug:
            raise CompileError(f"internal error in the GPU back end ({type(bug).__name__}: {bug})") from bug

    def takers(self) -> Iterator[tuple[int, int]]:
        """(slot written, binding whose memory it takes if that is free)."""
        if self.program is not None:
            binding = {k: b for b, k in self.gives.items()}
            for slot, result in zip(self.writes, self.program.graph.outputs):
                k = self.program.donor_of.get(self.program.base(result), -1)
                if k in binding and result not in self.program.copied:
                    yield slot, binding[k]

    def run(self, at: Any, numbers: dict[int, Any], free: Collection[int]) -> Sequence[Any]:
        if self.program is None:
            return self.on_host(at, numbers)
        given = []
        for slot, number, av in self.takes:
            if not number:
                given.append(at(slot, self.device).buffer)
            elif slot in numbers:
                given.append(_number(numbers[slot], av.dtype))
            else:
                given.append(at(slot, CPU).item())
        return self.program(given, devices.current_stream(self.device), [self.gives[b] for b in free if b in self.gives])

    def on_host(self, at: Any, numbers: dict[int, Any]) -> list[Any]:
        given = []
        for slot, number, av in self.takes:
            x = numbers.get(slot) if number else None
            given.append(leaf_value(av, at(slot, CPU)) if not number else at(slot, CPU).item() if x is None else x)
        return [upload(x, self.device) for x in self.plan(given)]

    def kernels(self) -> list[str]:
        return [] if self.program is None else [x.label for x in self.program.kernels()]

    def to_text(self) -> str:
        return "on the host, between copies" if self.program is None else self.program.to_text()
